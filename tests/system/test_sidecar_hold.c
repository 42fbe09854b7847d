/*
 * How long `hyperwal serve` keeps the writers of other programs out: replicator/hold.c and
 * sidecar.c over real files, with a disk whose syncs last as long as the test wants.  That disk is
 * the VFS "watched", the default one, through which all of the sidecar's connections go; the other
 * program uses "unix".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../replicator/hold.h"
#include "../replicator/program.h"
#include "../replicator/report.h"
#include "../replicator/sidecar.h"

enum { LONG = 60 };                    /* seconds: nothing here takes so long unless it hangs */
enum { LOCK_WRITE = 0, BUSY = 20000 }; /* slot of the wal-index; ms */

static char directory[64], path[128];

/* ------------------------------------------------------------------------- the disk below */

struct watched_file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this object */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the next four */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool is_slow;        /* a sync under the write lock lasts until the lock is free */
static bool is_locked;      /* somebody has the write lock through "watched" */
static unsigned outlasted;  /* syncs that did */
static bool has_given_up;   /* one waited in vain */
static sqlite3_vfs watched; /* set once */
static sqlite3_vfs *unix_vfs;

static sqlite3_file *real_of(sqlite3_file *file)
{
    return ((struct watched_file *)file)->real;
}

static int watched_close(sqlite3_file *file)
{
    return real_of(file)->pMethods->xClose(real_of(file));
}

static int watched_read(sqlite3_file *file, void *buffer, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xRead(real_of(file), buffer, size, offset);
}

static int watched_write(sqlite3_file *file, const void *buffer, int size, sqlite3_int64 offset)
{
    return real_of(file)->pMethods->xWrite(real_of(file), buffer, size, offset);
}

static int watched_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return real_of(file)->pMethods->xTruncate(real_of(file), size);
}

static int watched_sync(sqlite3_file *file, int flags)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LONG;
    pthread_mutex_lock(&mutex);
    if (is_slow && is_locked) {
        while (is_locked && !has_given_up)
            has_given_up = pthread_cond_timedwait(&changed, &mutex, &until) != 0;
        outlasted++;
    }
    pthread_mutex_unlock(&mutex);
    return real_of(file)->pMethods->xSync(real_of(file), flags);
}

static int watched_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}

static int watched_lock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xLock(real_of(file), level);
}

static int watched_unlock(sqlite3_file *file, int level)
{
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}

static int watched_reserved(sqlite3_file *file, int *is_reserved)
{
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), is_reserved);
}

static int watched_control(sqlite3_file *file, int code, void *argument)
{
    return real_of(file)->pMethods->xFileControl(real_of(file), code, argument);
}

static int watched_sector(sqlite3_file *file)
{
    return real_of(file)->pMethods->xSectorSize(real_of(file));
}

static int watched_characteristics(sqlite3_file *file)
{
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}

static int watched_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
    return real_of(file)->pMethods->xShmMap(real_of(file), region, size, extend, out);
}

static int watched_shm_lock(sqlite3_file *file, int slot, int count, int flags)
{
    const int write = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    bool is_write = slot == LOCK_WRITE && (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    int code = real_of(file)->pMethods->xShmLock(real_of(file), slot, count, flags);

    if (is_write && code == SQLITE_OK) {
        pthread_mutex_lock(&mutex);
        is_locked = flags == write;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return code;
}

static void watched_barrier(sqlite3_file *file)
{
    real_of(file)->pMethods->xShmBarrier(real_of(file));
}

static int watched_unmap(sqlite3_file *file, int remove_file)
{
    return real_of(file)->pMethods->xShmUnmap(real_of(file), remove_file);
}

static const sqlite3_io_methods watched_methods = {
    .iVersion = 2,
    .xClose = watched_close,
    .xRead = watched_read,
    .xWrite = watched_write,
    .xTruncate = watched_truncate,
    .xSync = watched_sync,
    .xFileSize = watched_size,
    .xLock = watched_lock,
    .xUnlock = watched_unlock,
    .xCheckReservedLock = watched_reserved,
    .xFileControl = watched_control,
    .xSectorSize = watched_sector,
    .xDeviceCharacteristics = watched_characteristics,
    .xShmMap = watched_map,
    .xShmLock = watched_shm_lock,
    .xShmBarrier = watched_barrier,
    .xShmUnmap = watched_unmap,
};

static int watched_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                        int *flags_out)
{
    struct watched_file *opened = (struct watched_file *)file;
    int code;

    (void)vfs;
    opened->real = (sqlite3_file *)(opened + 1);
    code = unix_vfs->xOpen(unix_vfs, name, opened->real, flags, flags_out);
    opened->base.pMethods = code == SQLITE_OK ? &watched_methods : NULL;
    return code;
}

/* ------------------------------------------------------------------------------- helpers */

/* What main.c has of the program: nobody asks this one to stop. */
bool stop_asked(void)
{
    return false;
}

static void execute(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static sqlite3 *stock_open(int busy_ms)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    sqlite3_busy_timeout(db, busy_ms);
    execute(db, "PRAGMA synchronous=NORMAL");
    return db;
}

static int setup_vfs(void **state)
{
    (void)state;
    unix_vfs = sqlite3_vfs_find("unix");
    watched = *unix_vfs;
    watched.zName = "watched";
    watched.pNext = NULL;
    watched.szOsFile = unix_vfs->szOsFile + (int)sizeof(struct watched_file);
    watched.xOpen = watched_open;
    assert_int_equal(sqlite3_vfs_register(&watched, 1), SQLITE_OK);
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    return 0;
}

static int setup(void **state)
{
    sqlite3 *db;

    (void)state;
    is_slow = has_given_up = false;
    outlasted = 0;
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-hold-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
                     SQLITE_OK);
    execute(db, "PRAGMA journal_mode=WAL");
    execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)");
    sqlite3_close(db);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

/* --------------------------------------------------------------------------------- holds */

static void a_hold_ends_by_itself_whatever_its_owner_does(void **state)
{
    sqlite3 *writer = stock_open(0), *other = stock_open(BUSY);
    struct hold hold;

    (void)state;
    assert_int_equal(hold_begin(&hold, writer, 0.005), SQLITE_OK);
    execute(other, "BEGIN IMMEDIATE"); /* while this thread has not ended the hold */
    assert_false(hold_is_held(&hold));
    assert_int_equal(hold_left_ms(&hold), 0);
    execute(other, "COMMIT");
    assert_true(hold_end(&hold) >= 0.005);
    sqlite3_close(writer);
    sqlite3_close(other);
}

static void a_hold_keeps_writers_out_until_it_is_ended(void **state)
{
    sqlite3 *writer = stock_open(0), *other = stock_open(0);
    struct hold hold;

    (void)state;
    assert_int_equal(hold_begin(&hold, writer, LONG), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
    assert_true(hold_is_held(&hold));
    assert_true(hold_left_ms(&hold) > 0);
    assert_true(hold_end(&hold) < LONG);
    execute(other, "BEGIN IMMEDIATE");
    execute(other, "COMMIT");
    sqlite3_close(writer);
    sqlite3_close(other);
}

static void who_never_gets_the_lock_holds_nothing(void **state)
{
    sqlite3 *writer = stock_open(0), *other = stock_open(0);
    struct hold hold;

    (void)state;
    execute(other, "BEGIN IMMEDIATE");
    assert_int_equal(hold_begin(&hold, writer, 0.005), SQLITE_BUSY);
    execute(other, "COMMIT");
    assert_int_equal(hold_begin(&hold, writer, LONG), SQLITE_OK); /* as good as new */
    (void)hold_end(&hold);
    sqlite3_close(writer);
    sqlite3_close(other);
}

/* ------------------------------------------------------------------------------- sidecar */

/* A program that writes and never rests. */
struct load {
    pthread_t thread;
    atomic_bool is_over;
    int code; /* of what went wrong; read after the join */
};

static void *load_main(void *ctx)
{
    struct load *load = ctx;
    sqlite3 *db = NULL;
    int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix");

    sqlite3_busy_timeout(db, BUSY);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
    while (code == SQLITE_OK && !atomic_load(&load->is_over))
        code = sqlite3_exec(db, "INSERT INTO t(b) VALUES(zeroblob(8000))", NULL, NULL, NULL);
    load->code = code;
    sqlite3_close(db);
    return NULL;
}

static void load_start(struct load *load)
{
    atomic_store(&load->is_over, false);
    load->code = SQLITE_OK;
    assert_int_equal(pthread_create(&load->thread, NULL, load_main, load), 0);
}

static void load_end(struct load *load)
{
    atomic_store(&load->is_over, true);
    pthread_join(load->thread, NULL);
    assert_int_equal(load->code, SQLITE_OK);
}

static bool is_over(unsigned outlasted_wanted)
{
    bool over;

    pthread_mutex_lock(&mutex);
    over = outlasted >= outlasted_wanted || has_given_up;
    pthread_mutex_unlock(&mutex);
    return over;
}

static void slow_set(bool slow)
{
    pthread_mutex_lock(&mutex);
    is_slow = slow;
    pthread_mutex_unlock(&mutex);
}

static void sidecar_start(struct sidecar *sidecar, sqlite3 **db)
{
    uint64_t seq;

    assert_int_equal(hyperwal_open(path, 0, db, NULL), SQLITE_OK);
    execute(*db, "SELECT count(*) FROM sqlite_schema");
    assert_int_equal(hyperwal_seq(*db, NULL, &seq), SQLITE_OK);
    assert_int_equal(sidecar_open(sidecar, path), SQLITE_OK);
}

static void a_sync_that_outlasts_the_hold_keeps_no_writer_out(void **state)
{
    double deadline = seconds_now() + LONG;
    struct sidecar sidecar;
    struct load load;
    sqlite3 *db;

    (void)state;
    sidecar_start(&sidecar, &db);
    sidecar.limit = 64 << 10; /* soon holds are as long as they get: also a slow log is done then */
    slow_set(true);
    load_start(&load);
    while (!is_over(3) && seconds_now() < deadline) {
        (void)hyperwal_look(db, NULL);
        sidecar_wake(&sidecar);
        (void)sidecar_move(&sidecar, db); /* what it met is counted below */
    }
    load_end(&load);
    slow_set(false);
    assert_false(has_given_up); /* no sync waited for a lock that waited for it */
    assert_true(outlasted >= 3);
    assert_true(sidecar.hold_count >= 3);
    sidecar_close(&sidecar);
    sqlite3_close_v2(db);
}

static void a_writer_that_never_rests_gets_a_new_round(void **state)
{
    double deadline = seconds_now() + 2 * LONG;
    unsigned rounds = 0, frames = 0;
    struct sidecar sidecar;
    hyperwal_wal wal;
    struct load load;
    sqlite3 *db;

    (void)state;
    sidecar_start(&sidecar, &db);
    load_start(&load);
    while (rounds < 2 && seconds_now() < deadline) {
        (void)hyperwal_look(db, NULL);
        sidecar_wake(&sidecar);
        (void)sidecar_move(&sidecar, db);
        assert_int_equal(hyperwal_wal_look(db, NULL, &wal), SQLITE_OK);
        rounds += wal.frames < frames;
        frames = wal.frames;
    }
    load_end(&load);
    assert_int_equal(rounds, 2);
    sidecar_close(&sidecar);
    sqlite3_close_v2(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_hold_ends_by_itself_whatever_its_owner_does, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_hold_keeps_writers_out_until_it_is_ended, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_never_gets_the_lock_holds_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sync_that_outlasts_the_hold_keeps_no_writer_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_writer_that_never_rests_gets_a_new_round, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, setup_vfs, NULL);
}
