/*
 * Any allocation or call of the operating system fails while a replica is promoted, is opened, or
 * takes the place of an old primary.  "It cannot be seen" is never "it is not there": what is on
 * the disk stays a replica or becomes the primary, and the next call does the rest.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "capture/capture.h"
#include "hypercore/log_file.h"
#include "hyperwal.h"
#include "system/faults_calls.h"

enum { ALL = 1000000000 }; /* failures, one after another */

static char dir[64], path[96], replica[96]; /* of a primary, and of its replica */
static unsigned char key[32];               /* of the primary's log */
static char url[128];                       /* of the primary, while it is served */

static void must(int code, const char *error)
{
    if (code != SQLITE_OK)
        fail_msg("%d: %s", code, error != NULL ? error : sqlite3_errstr(code));
}

static void remove_made(const char *name)
{
    char command[512];

    snprintf(command, sizeof(command), "rm -rf %s %s-wal %s-shm %s-hyper*", name, name, name, name);
    assert_int_equal(system(command), 0);
}

static void make_primary(void)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    sqlite3 *db = NULL;
    char *error = NULL;

    must(hyperwal_open(path, 0, &db, &error), error);
    must(sqlite3_exec(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", NULL, NULL, NULL), NULL);
    must(sqlite3_exec(db, "INSERT INTO t VALUES(1, randomblob(9000))", NULL, NULL, NULL), NULL);
    must(hyperwal_snapshot(db, NULL, NULL), NULL);
    must(sqlite3_close(db), NULL);
    must(hyperwal_log_open(path, &log, &error), error);
    must(hyperwal_log_head(log, &head), NULL);
    memcpy(key, head.key, sizeof(key));
    hyperwal_log_close(log);
}

/* Keys of this user, and of servers that it knows. */
static void point_environment_here(void)
{
    char place[96];

    snprintf(place, sizeof(place), "%s/identity", dir);
    setenv("HYPERWAL_IDENTITY", place, 1);
    snprintf(place, sizeof(place), "%s/known", dir);
    setenv("HYPERWAL_KNOWN_SERVERS", place, 1);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/hyperwal-roles-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/app.db", dir);
    snprintf(replica, sizeof(replica), "%s/replica.db", dir);
    point_environment_here();
    make_primary();
    faults_install();
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    faults_remove();
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

/* All of the log of `from` into `to`. */
static int follow(const char *from, const char *to, char **error)
{
    hyperwal_follower *follower = NULL;
    int code = hyperwal_follow_open(from, to, NULL, NULL, &follower, error);

    while (code == SQLITE_OK)
        code = hyperwal_follow_step(follower, 0);
    hyperwal_follow_close(follower);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static int promote(hyperwal_promotion *out, char **error)
{
    return hyperwal_promote(replica, NULL, NULL, 0, HYPERWAL_PROMOTE_FORCE, NULL, NULL, out, error);
}

static void must_follow(const char *from, const char *to, unsigned n)
{
    char *error = NULL;
    int code = follow(from, to, &error);

    if (code != SQLITE_OK)
        fail_msg("after fault %u: %d: %s", n, code, error != NULL ? error : "");
}

static void must_promote(unsigned n)
{
    hyperwal_promotion done = {.old_fork = 0};
    char *error = NULL;
    int code = promote(&done, &error);

    if (code != SQLITE_OK)
        fail_msg("after fault %u: %d: %s", n, code, error != NULL ? error : "");
    assert_memory_equal(done.old_key, key, sizeof(key));
}

static bool is_replica(const char *name)
{
    return hyperwal_replica_info(name, 0, NULL, NULL, NULL, NULL) == SQLITE_OK;
}

static bool has_log(const char *name)
{
    char log[128];

    snprintf(log, sizeof(log), "%s-hyper/log", name);
    return access(log, F_OK) == 0;
}

/* ------------------------------------------------------------------------------- promotion */

/* A replica from where others begin: that of `path`. */
static void make_replica(unsigned n)
{
    must_follow(path, replica, n);
}

/* One whose promotion is decided and not done, which must_decide() left in `decided`. */
static void copy_decided(unsigned n)
{
    char command[256];

    (void)n;
    snprintf(command, sizeof(command), "cp -a %s/decided/. %s", dir, dir);
    assert_int_equal(system(command), 0);
}

static void must_decide(void)
{
    char promoted[128], command[256];

    snprintf(promoted, sizeof(promoted), "%s-hyper/promoted/log", replica);
    must_follow(path, replica, 0);
    for (unsigned n = 1; access(promoted, F_OK) != 0; n += 5) {
        assert_true(is_replica(replica));
        faults_begin(FAULTS_CALLS, n, ALL);
        (void)promote(NULL, NULL);
        assert_true(faults_end());
    }
    snprintf(command, sizeof(command), "mkdir %s/decided && mv %s* %s/decided", dir, replica, dir);
    assert_int_equal(system(command), 0);
}

static void promote_in_turn(enum faults_kind kind, void (*prepare)(unsigned n), unsigned stride)
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n += stride) {
        char *error = NULL;
        int code;

        prepare(n);
        faults_begin(kind, n, 1);
        code = promote(NULL, &error);
        was_reached = faults_end();
        sqlite3_free(error);
        if (!was_reached)
            must(code, NULL);
        must_promote(n);
        assert_false(is_replica(replica));
        assert_int_equal(hw_alloc_live(), 0);
        remove_made(replica);
    }
}

static void a_promotion_that_failed_anywhere_is_gone_on_with(void **state)
{
    (void)state;
    promote_in_turn(FAULTS_MEMORY, make_replica, 19);
    promote_in_turn(FAULTS_CALLS, make_replica, 19);
}

static void a_promotion_that_was_decided_is_done_in_the_end_whatever_failed(void **state)
{
    (void)state;
    must_decide();
    promote_in_turn(FAULTS_MEMORY, copy_decided, 1);
    promote_in_turn(FAULTS_CALLS, copy_decided, 1);
}

/* ------------------------------------------------------------------------- a log that was begun */

static void begun_key(unsigned char out[32])
{
    char begun[160], *error = NULL;
    hyperwal_log *log = NULL;
    hyperwal_head head;

    snprintf(begun, sizeof(begun), "%s/decided/replica.db-hyper/promoted", dir);
    must(hyperwal_log_open(begun, &log, &error), error);
    must(hyperwal_log_head(log, &head), NULL);
    memcpy(out, head.key, sizeof(head.key));
    hyperwal_log_close(log);
}

/* The primary commits once more, and ends its log in favour of the one with this key. */
static void must_hand_over(const unsigned char heir[32])
{
    char log[128], *error = NULL;
    struct hw_error err = {0};
    sqlite3 *db = NULL;
    uint64_t seq;

    snprintf(log, sizeof(log), "%s-hyper", path);
    must(hyperwal_open(path, 0, &db, &error), error);
    must(sqlite3_exec(db, "INSERT INTO t(b) VALUES('the last one')", NULL, NULL, NULL), NULL);
    if (hw_capture_hand_over(hw_env_posix(), log, heir, 20000, &seq, &err) != HW_OK)
        fail_msg("%s", err.message);
    must(sqlite3_close(db), NULL);
}

/* Genesis and switch are there, of an earlier state, and the log was not yet said to be ready. */
static void copy_begun(unsigned n)
{
    struct hw_env *env = hw_env_posix();
    struct hw_log_file log;
    char command[256], next[128];

    copy_decided(n);
    snprintf(command, sizeof(command), "cd %s-hyper && mv promoted next", replica);
    assert_int_equal(system(command), 0);
    snprintf(next, sizeof(next), "%s-hyper/next", replica);
    assert_int_equal(hw_log_file_read(env, next, &log, NULL), HW_OK);
    assert_int_equal(hw_log_file_locate(env, next, &log, NULL), HW_OK);
    assert_int_equal(hw_log_file_write(env, next, &log, NULL), HW_OK); /* as if it were no copy */
}

static int take_over(hyperwal_promotion *out, char **error)
{
    return hyperwal_promote(replica, path, NULL, 0, 0, NULL, NULL, out, error);
}

static void take_over_in_turn(enum faults_kind kind, unsigned stride, const unsigned char heir[32])
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n += stride) {
        hyperwal_promotion done = {.old_fork = 0};
        char *error = NULL;
        int code;

        copy_begun(n);
        faults_begin(kind, n, 1);
        code = take_over(&done, &error);
        was_reached = faults_end();
        if (!was_reached)
            must(code, error);
        sqlite3_free(error);
        error = NULL;
        code = take_over(&done, &error);
        if (code != SQLITE_OK)
            fail_msg("after fault %u: %d: %s", n, code, error != NULL ? error : "");
        assert_memory_equal(done.key, heir, sizeof(done.key));
        assert_memory_equal(done.old_key, key, sizeof(key));
        remove_made(replica);
    }
}

static void a_log_that_was_begun_keeps_the_key_that_the_old_primary_knows(void **state)
{
    unsigned char heir[32];

    (void)state;
    must_decide();
    begun_key(heir);
    must_hand_over(heir);
    take_over_in_turn(FAULTS_MEMORY, 41, heir);
    take_over_in_turn(FAULTS_CALLS, 41, heir);
}

/* As begun on another machine, or before the volume was another one. */
static void copy_moved(void)
{
    char command[256];

    copy_decided(0);
    snprintf(command, sizeof(command), "cd %s-hyper && mv promoted next", replica);
    assert_int_equal(system(command), 0);
}

static void must_write(void)
{
    char *error = NULL;
    sqlite3 *db = NULL;
    uint64_t seq;

    must(hyperwal_open(replica, 0, &db, &error), error);
    must(sqlite3_exec(db, "INSERT INTO t(b) VALUES('goes on')", NULL, NULL, NULL), NULL);
    must(hyperwal_seq(db, NULL, &seq), NULL);
    must(sqlite3_close(db), NULL);
}

static void a_key_that_was_moved_and_that_nobody_knows_is_made_anew(void **state)
{
    hyperwal_promotion done = {.old_fork = 0};
    unsigned char heir[32];
    char *error = NULL;

    (void)state;
    must_decide();
    begun_key(heir);
    copy_moved();
    must(take_over(&done, &error), error);
    assert_memory_not_equal(done.key, heir, sizeof(done.key)); /* nobody knew it */
}

static void a_key_that_was_moved_goes_on_once_somebody_says_so(void **state)
{
    hyperwal_promotion done = {.old_fork = 0};
    unsigned char heir[32];
    char *error = NULL;

    (void)state;
    must_decide();
    begun_key(heir);
    must_hand_over(heir);
    copy_moved();
    assert_int_not_equal(take_over(&done, &error), SQLITE_OK);
    assert_non_null(strstr(error, "--force"));
    sqlite3_free(error);
    error = NULL;
    must(promote(&done, &error), error);
    assert_memory_equal(done.key, heir, sizeof(done.key));
    must_write();
    must_follow(replica, path, 0);
}

/* ----------------------------------------------------------------------- a primary that answers */

struct served {
    hyperwal_node *node;
    sqlite3 *db; /* somebody has it open */
};

static struct served serve(void)
{
    struct served served = {.node = NULL};
    char listen[96], *error = NULL;

    snprintf(listen, sizeof(listen), "ipc://%s/socket", dir);
    snprintf(url, sizeof(url), "%s/app.db", listen);
    must(hyperwal_open(path, 0, &served.db, &error), error);
    must(hyperwal_node_open(NULL, &served.node, &error), error);
    must(hyperwal_node_listen(served.node, listen, NULL, &error), error);
    must(hyperwal_node_serve(served.node, "app.db", path, &error), error);
    must_follow(url, replica, 0);
    return served;
}

static void end_served(struct served *served)
{
    hyperwal_node_close(served->node);
    must(sqlite3_close(served->db), NULL);
}

/* Whoever cannot ask it, or is not answered, has no leave to go on beside it. */
static void promote_beside_in_turn(enum faults_kind kind, unsigned stride)
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n += stride) {
        char *error = NULL;
        int code;

        faults_begin(kind, n, 1);
        code = hyperwal_promote(replica, NULL, NULL, 0, 0, NULL, NULL, NULL, &error);
        was_reached = faults_end();
        if (code == SQLITE_OK || !is_replica(replica))
            fail_msg("fault %u: promoted beside a primary that answers", n);
        if (!was_reached && code != SQLITE_BUSY)
            fail_msg("%d: %s", code, error != NULL ? error : "");
        sqlite3_free(error);
    }
}

static void a_primary_that_answers_keeps_its_place_whatever_failed(void **state)
{
    struct served served = serve();

    (void)state;
    promote_beside_in_turn(FAULTS_MEMORY, 1);
    promote_beside_in_turn(FAULTS_CALLS, 1);
    end_served(&served);
}

/* A replica whose mirror has more of the log than it has applied; *seq: the last that is there. */
static void must_be_behind_its_mirror(uint64_t *seq)
{
    struct served served = serve();
    char command[512];

    snprintf(command, sizeof(command), "mkdir %s/behind && cp -a %s* %s/behind", dir, replica, dir);
    assert_int_equal(system(command), 0);
    must(sqlite3_exec(served.db, "INSERT INTO t(b) VALUES('mirrored')", NULL, NULL, NULL), NULL);
    must(hyperwal_seq(served.db, NULL, seq), NULL);
    must_follow(url, replica, 0);
    end_served(&served);
    snprintf(command, sizeof(command),
             "cd %s-hyper && cp -a mirror head nodes have *.dat ../behind/replica.db-hyper",
             replica);
    assert_int_equal(system(command), 0);
    remove_made(replica);
}

static void promote_behind_in_turn(enum faults_kind kind, unsigned stride, uint64_t seq)
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n += stride) {
        hyperwal_promotion done = {.old_fork = 0};
        char command[256], *error = NULL;
        int code;

        snprintf(command, sizeof(command), "cp -a %s/behind/. %s", dir, dir);
        assert_int_equal(system(command), 0);
        faults_begin(kind, n, 1);
        code = hyperwal_promote(replica, NULL, NULL, 0, 0, NULL, NULL, &done, &error);
        was_reached = faults_end();
        if (!was_reached)
            must(code, error);
        if (code == SQLITE_OK && done.old_seq < seq)
            fail_msg("fault %u: left behind what is in its mirror, from seq %llu on", n,
                     (unsigned long long)done.old_seq);
        sqlite3_free(error);
        remove_made(replica);
    }
}

static void what_is_in_the_mirror_goes_over_or_nothing_does(void **state)
{
    uint64_t seq = 0;

    (void)state;
    must_be_behind_its_mirror(&seq);
    promote_behind_in_turn(FAULTS_MEMORY, 11, seq);
    promote_behind_in_turn(FAULTS_CALLS, 11, seq);
}

/* --------------------------------------------------------------------------------- opening */

static void open_in_turn(enum faults_kind kind)
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n++) {
        sqlite3 *db = NULL;
        char *error = NULL;

        faults_begin(kind, n, 1);
        if (hyperwal_open(replica, 0, &db, &error) == SQLITE_OK)
            (void)sqlite3_exec(db, "SELECT count(*) FROM t", NULL, NULL, NULL);
        (void)sqlite3_close(db);
        was_reached = faults_end();
        sqlite3_free(error);
        if (has_log(replica))
            fail_msg("fault %u: a replica got a log of its own", n);
        assert_true(is_replica(replica));
    }
}

static void a_replica_that_cannot_be_looked_at_is_no_primary(void **state)
{
    (void)state;
    must_follow(path, replica, 0);
    open_in_turn(FAULTS_MEMORY);
    open_in_turn(FAULTS_CALLS);
    must_follow(path, replica, 0);
}

/* ------------------------------------------------------------------------------ old primary */

static void demote_in_turn(enum faults_kind kind, unsigned stride)
{
    bool was_reached = true;

    for (unsigned n = 1; was_reached; n += stride) {
        char *error = NULL;
        int code;

        must_follow(path, replica, n);
        must_promote(n);
        faults_begin(kind, n, 1);
        code = follow(replica, path, &error);
        was_reached = faults_end();
        sqlite3_free(error);
        if (!was_reached)
            must(code, NULL);
        must_follow(replica, path, n);
        assert_true(is_replica(path) && !has_log(path));
        assert_int_equal(hw_alloc_live(), 0);
        remove_made(replica);
        remove_made(path);
        make_primary();
    }
}

static void an_old_primary_becomes_a_replica_in_the_end_whatever_failed(void **state)
{
    (void)state;
    demote_in_turn(FAULTS_MEMORY, 13);
    demote_in_turn(FAULTS_CALLS, 13);
}

/*
 * A program without the VFS, in a process of its own, commits just before the `at`th time that
 * SQLite opens the old primary's file, as long as that is no replica.
 */
static struct {
    pid_t pid;
    int tell, hear;
    atomic_uint at, seen; /* at 0: never */
    atomic_bool has_written;
} stock;

static _Noreturn void stock_run(int hear, int tell)
{
    char byte;

    while (read(hear, &byte, 1) == 1) {
        sqlite3 *db = NULL;
        int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix");

        if (code == SQLITE_OK)
            code = sqlite3_exec(db, "INSERT INTO t(b) VALUES('stock')", NULL, NULL, NULL);
        (void)sqlite3_close(db);
        byte = code == SQLITE_OK;
        if (write(tell, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

static int open_after_stock(const char *name, int flags, int mode)
{
    char mark[128], byte = 0;

    snprintf(mark, sizeof(mark), "%s-hyper/replica", path);
    if (strcmp(name, path) == 0 && access(mark, F_OK) != 0 &&
        atomic_fetch_add(&stock.seen, 1) + 1 == atomic_load(&stock.at) &&
        write(stock.tell, &byte, 1) == 1 && read(stock.hear, &byte, 1) == 1)
        atomic_store(&stock.has_written, byte != 0);
    return open(name, flags, mode);
}

static void stock_begin(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find("unix");
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    stock.tell = to[1];
    stock.hear = from[0];
    stock.pid = fork();
    assert_true(stock.pid >= 0);
    if (stock.pid == 0) {
        (void)close(to[1]); /* so that it ends with us */
        stock_run(to[0], from[1]);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    (void)vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)open_after_stock);
}

static void stock_end(void)
{
    (void)close(stock.tell);
    (void)close(stock.hear);
    assert_int_equal(waitpid(stock.pid, NULL, 0), stock.pid);
}

static int stock_rows(const char *name)
{
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;
    int rows = -1;

    must(sqlite3_open_v2(name, &db, SQLITE_OPEN_READWRITE, "unix"), NULL);
    must(sqlite3_prepare_v2(db, "SELECT count(*) FROM t WHERE b='stock'", -1, &statement, NULL),
         NULL);
    if (sqlite3_step(statement) == SQLITE_ROW)
        rows = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement);
    must(sqlite3_close(db), NULL);
    return rows;
}

/* What was committed and did not go over is in the log that is kept. */
static void must_have_kept(unsigned n)
{
    hyperwal_target head = {.kind = HYPERWAL_HEAD};
    hyperwal_log *log = NULL;
    char kept[160], out[96], *error = NULL;
    int used = snprintf(kept, sizeof(kept), "%s-hyper.", path);

    for (int i = 0; i < 8; i++)
        used += snprintf(kept + used, sizeof(kept) - (size_t)used, "%02x", key[i]);
    snprintf(out, sizeof(out), "%s/kept.db", dir);
    must(hyperwal_log_open(kept, &log, &error), error);
    must(hyperwal_restore(log, &head, out, 0, NULL, NULL, NULL), hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    if (stock_rows(out) != 1)
        fail_msg("opening %u: a commit before it is nowhere", n);
    remove_made(out);
}

static void what_is_committed_while_it_becomes_a_replica_is_in_its_log(void **state)
{
    bool was_reached = true;

    (void)state;
    stock_begin();
    for (unsigned n = 1; was_reached; n++) {
        char *error = NULL;
        int code;

        must_follow(path, replica, n);
        must_promote(n);
        atomic_store(&stock.has_written, false);
        atomic_store(&stock.seen, 0);
        atomic_store(&stock.at, n);
        code = follow(replica, path, &error);
        was_reached = atomic_load(&stock.seen) >= n;
        atomic_store(&stock.at, 0);
        if (!was_reached)
            must(code, error);
        sqlite3_free(error);
        must_follow(replica, path, n);
        if (stock_rows(path) != 0)
            fail_msg("opening %u: a commit before it came along", n);
        if (atomic_load(&stock.has_written))
            must_have_kept(n);
        remove_made(replica);
        remove_made(path);
        make_primary();
    }
    stock_end();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(a_promotion_that_failed_anywhere_is_gone_on_with),
        TEST(a_promotion_that_was_decided_is_done_in_the_end_whatever_failed),
        TEST(a_log_that_was_begun_keeps_the_key_that_the_old_primary_knows),
        TEST(a_key_that_was_moved_and_that_nobody_knows_is_made_anew),
        TEST(a_key_that_was_moved_goes_on_once_somebody_says_so),
        TEST(a_primary_that_answers_keeps_its_place_whatever_failed),
        TEST(what_is_in_the_mirror_goes_over_or_nothing_does),
        TEST(a_replica_that_cannot_be_looked_at_is_no_primary),
        TEST(an_old_primary_becomes_a_replica_in_the_end_whatever_failed),
        TEST(what_is_committed_while_it_becomes_a_replica_is_in_its_log),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
