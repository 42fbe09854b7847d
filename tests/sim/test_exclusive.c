/*
 * PRAGMA locking_mode=EXCLUSIVE over the simulated disk: a connection that is alone with the
 * database calls no locks, and one that was so from its first read on keeps the wal-index on its
 * heap.  What it commits is in the log all the same, and nothing else is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

static struct sim *sim;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    (void)state;
    sim = sim_new(0);
    options.base = sim_vfs(sim);
    options.env = sim_env(sim);
    return hw_vfs_register(&options, NULL) == HW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(sim);

    (void)state;
    hw_vfs_unregister("hwsim");
    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_with(const char *vfs)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2("/app.db", &db, flags, vfs), SQLITE_OK);
    return db;
}

static void run_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
}

static void close_database(sqlite3 *db)
{
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    assert_non_null(capture);
    return capture;
}

static uint64_t logged(sqlite3 *db)
{
    struct hw_error err = {0};
    uint64_t seq = 0;

    run_sql(db, "SELECT count(*) FROM t"); /* a WAL that is just new is known from then on */
    if (hw_capture_wait_logged(capture_of(db), 5000, &seq, &err) != HW_OK)
        fail_msg("%s", err.message);
    return seq;
}

static uint64_t fingerprint_of(sqlite3 *db)
{
    uint64_t fingerprint = 0;
    char message[256];

    if (!sim_fingerprint(db, &fingerprint, message))
        fail_msg("%s", message);
    return fingerprint;
}

/* The database as a connection of ours leaves it, with two tables that share no page. */
static void make_database(void)
{
    sqlite3 *db = open_with("hwsim");

    run_sql(db,
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE TABLE u(a INTEGER PRIMARY KEY, b);"
            "INSERT INTO t VALUES(1, zeroblob(3000)); INSERT INTO u VALUES(1, zeroblob(3000))");
    (void)logged(db);
    close_database(db);
}

enum shape { WITH_SHM, WITHOUT_SHM, SHAPES };

/* A connection that is alone as soon as it writes; its wal-index is in shared memory or not. */
static sqlite3 *open_exclusive(enum shape shape)
{
    sqlite3 *db = open_with("hwsim");

    if (shape == WITH_SHM)
        run_sql(db, "SELECT count(*) FROM t");
    run_sql(db, "PRAGMA locking_mode=EXCLUSIVE");
    return db;
}

static unsigned count_entries(enum hw_entry_type type)
{
    struct hw_entry_summary entry;
    struct hw_core *core = NULL;
    uint64_t seq = 0;
    unsigned count = 0;

    assert_int_equal(
        hw_core_open(sim_env(sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL), HW_OK);
    while (hw_entry_next(core, &seq, &entry, NULL) == HW_OK)
        count += entry.header.type == type;
    hw_core_close(core);
    return count;
}

/* All is closed: the log's head is the database, as SQLite alone has it, with so many gaps. */
static void check_log(unsigned gaps)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_env *env = sim_env(sim);
    struct hw_core *core = NULL;
    struct hw_state reached;
    struct hw_error err = {0};
    uint64_t wanted, restored;
    sqlite3 *db = open_with(sim_vfs(sim)->zName);

    assert_int_equal(hw_capture_count(), 0);
    wanted = fingerprint_of(db);
    close_database(db);
    assert_int_equal(hw_core_open(env, "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL),
                     HW_OK);
    if (hw_verify_deep(env, core, NULL, NULL, &err) != HW_OK ||
        hw_restore(env, sim_vfs(sim), core, &head, "/out.db", false, NULL, NULL, &reached, &err) !=
            HW_OK)
        fail_msg("%s", err.message);
    hw_core_close(core);
    assert_int_equal(sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(sim)->zName),
                     SQLITE_OK);
    restored = fingerprint_of(db);
    close_database(db);
    sim_file_remove(sim, "/out.db");
    if (restored != wanted)
        fail_msg("the head of the log is not the database");
    assert_int_equal(count_entries(HW_ENTRY_GAP), gaps);
}

/* ------------------------------------------------------------------------- two connections */

/* Somebody else wishes for the same, does not get it, and goes, or goes back to normal. */
static void another_one_who_does_not_get_it(enum shape shape, bool goes_back)
{
    sqlite3 *db, *other;
    uint64_t first;

    make_database();
    db = open_exclusive(shape);
    run_sql(db, "INSERT INTO t VALUES(2, 'alone')");
    first = logged(db);
    other = open_with("hwsim");
    run_sql(other, "PRAGMA locking_mode=EXCLUSIVE");
    run_sql(db, "INSERT INTO t VALUES(3, 'while it is there')");
    assert_int_equal(sqlite3_exec(other, "SELECT * FROM t", NULL, NULL, NULL), SQLITE_BUSY);
    run_sql(db, "INSERT INTO t VALUES(4, 'while it waits')");
    if (goes_back)
        run_sql(other, "PRAGMA locking_mode=NORMAL");
    else
        close_database(other);
    run_sql(db, "INSERT INTO t VALUES(5, 'after it')");
    assert_true(logged(db) >= first + 3);
    run_sql(db, "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(6, 'in the next round')");
    assert_true(logged(db) >= first + 4);
    close_database(db);
    if (goes_back)
        close_database(other);
    check_log(0);
}

static void another_one_that_closes_leaves_capture_to_the_one_that_is_alone(void **state)
{
    (void)state;
    another_one_who_does_not_get_it(WITHOUT_SHM, false);
}

static void another_one_that_goes_back_leaves_capture_to_the_one_that_is_alone(void **state)
{
    (void)state;
    another_one_who_does_not_get_it(WITHOUT_SHM, true);
}

static void another_one_leaves_capture_to_the_one_that_is_alone_with_the_wal_index(void **state)
{
    (void)state;
    another_one_who_does_not_get_it(WITH_SHM, false);
}

/* To wish for it without having it opens no gate for those who write meanwhile. */
static void a_wish_for_exclusive_mode_opens_no_gate(void **state)
{
    struct sim_fault full = {
        .kind = SIM_ENOSPC, .path = "/app.db-hyper", .at = 1, .for_ever = true};
    sqlite3 *db, *other;
    size_t size = 0;

    (void)state;
    make_database();
    db = open_with("hwsim");
    run_sql(db, "INSERT INTO t VALUES(2, 'logged')");
    (void)logged(db);
    other = open_with("hwsim");
    run_sql(other, "PRAGMA locking_mode=EXCLUSIVE");
    sim_set_fault(sim, &full);
    run_sql(db, "INSERT INTO t VALUES(3, 'not logged')");
    (void)sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL); /* may say BUSY */
    assert_non_null(sim_file_bytes(sim, "/app.db-wal", &size));
    assert_true(size > 0);
    sim_set_fault(sim, NULL);
    close_database(other);
    sim_advance(sim, 1000000000);
    (void)logged(db);
    close_database(db);
    check_log(0);
}

static unsigned steps_failed;

static void let_the_first_process_work(void *capture)
{
    uint64_t next;

    sim_set_process(sim, 0);
    if (hw_capture_step(capture, &next, NULL) < 0)
        steps_failed++;
    sim_set_process(sim, 2);
}

/* What is committed there cannot be seen from another process: the role stays. */
static void another_process_does_not_get_the_role_of_the_one_that_is_alone(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim2", .base = sim_vfs(sim), .env = sim_env(sim)};
    sqlite3 *db, *other;

    (void)state;
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    make_database();
    db = open_exclusive(WITHOUT_SHM);
    run_sql(db, "INSERT INTO t VALUES(2, 'alone')");
    (void)logged(db);
    sim_set_process(sim, 2);
    other = open_with("hwsim2");
    sim_set_idle(sim, let_the_first_process_work, capture_of(db));
    assert_int_equal(sqlite3_exec(other, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL),
                     SQLITE_BUSY);
    sim_set_idle(sim, NULL, NULL);
    assert_int_equal(steps_failed, 0);
    sim_set_process(sim, 0);
    run_sql(db, "INSERT INTO t VALUES(3, 'while it is there')");
    (void)logged(db);
    sim_set_process(sim, 2);
    close_database(other);
    sim_set_process(sim, 0);
    close_database(db);
    hw_vfs_unregister("hwsim2");
    check_log(0);
}

/* ---------------------------------------------------------------------- calls that fail */

static const struct sim_fault wal_faults[] = {
    {.kind = SIM_EMFILE, .operations = SIM_OPEN, .path = "/app.db-wal", .at = 1},
    {.kind = SIM_EIO, .operations = SIM_STAT, .path = "/app.db-wal", .at = 1},
    {.kind = SIM_EMFILE, .operations = SIM_OPEN, .path = "/app.db-wal", .at = 1, .for_ever = true},
};

enum { WAL_FAULTS = sizeof(wal_faults) / sizeof(wal_faults[0]) };

/* All is in the log, and the worker let go of the WAL. */
static void let_the_worker_rest(sqlite3 *db)
{
    uint64_t next;

    (void)logged(db);
    while (hw_capture_step(capture_of(db), &next, NULL) == HW_OK)
        continue;
}

/* Alone without the wal-index; the last commit could not be looked at as it was done. */
static sqlite3 *open_with_unseen_commit(const char *uri, const struct sim_fault *fault, int *code)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI;
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2(uri, &db, flags, "hwsim"), SQLITE_OK);
    run_sql(db, "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t(b) VALUES('seen')");
    let_the_worker_rest(db);
    sim_set_fault(sim, fault);
    *code = sqlite3_exec(db, "INSERT INTO t(b) VALUES('unseen')", NULL, NULL, NULL);
    assert_true(sim_fault_was_reached(sim));
    return db;
}

/* Its WAL is not deleted before it is in the log. */
static void a_commit_that_could_not_be_seen_is_logged_before_the_wal_goes(void **state)
{
    (void)state;
    make_database();
    for (size_t i = 0; i < WAL_FAULTS; i++) {
        int code;
        sqlite3 *db = open_with_unseen_commit("/app.db", &wal_faults[i], &code);

        assert_int_equal(code, SQLITE_OK);
        close_database(db);
        sim_set_fault(sim, NULL);
        db = open_with("hwsim");
        (void)logged(db);
        close_database(db);
        check_log(0);
    }
}

/* It is as soon as the fault is over, without another commit. */
static void a_commit_that_could_not_be_seen_is_looked_at_again(void **state)
{
    (void)state;
    make_database();
    for (size_t i = 0; i < WAL_FAULTS; i++) {
        unsigned before = count_entries(HW_ENTRY_TRANSACTION);
        struct hw_capture_status status;
        int code;
        sqlite3 *db = open_with_unseen_commit("/app.db", &wal_faults[i], &code);

        sim_set_fault(sim, NULL);
        (void)logged(db);
        assert_true(count_entries(HW_ENTRY_TRANSACTION) == before + 2);
        hw_capture_status(capture_of(db), &status);
        assert_string_equal(status.alarm, "");
        close_database(db);
        check_log(0);
    }
}

static void a_commit_that_cannot_be_seen_is_not_confirmed(void **state)
{
    const char *uri = "file:/app.db?durability=local&timeout=300";
    struct hw_capture_status status;
    int code;
    sqlite3 *db;

    (void)state;
    make_database();
    db = open_with_unseen_commit(uri, &wal_faults[0], &code);
    assert_int_equal(code, SQLITE_OK); /* it was looked at again */
    sim_set_fault(sim, NULL);
    close_database(db);
    db = open_with_unseen_commit(uri, &wal_faults[2], &code);
    assert_int_equal(code, SQLITE_ERROR);
    assert_int_equal(sqlite3_extended_errcode(db), HW_VFS_UNCONFIRMED);
    (void)sqlite3_exec(db, "PRAGMA hyperwal_status", NULL, NULL, NULL); /* runs no step */
    hw_capture_status(capture_of(db), &status);
    assert_int_equal(status.unconfirmed_count, 1);
    sim_set_fault(sim, NULL);
    close_database(db);
    check_log(0);
}

/* --------------------------------------------------------------------- rounds of the WAL */

/* A program without the VFS, which may come as long as nobody is alone. */
static sqlite3 *open_stock(void)
{
    return open_with(sim_vfs(sim)->zName);
}

/* Its commits in one round of the WAL, copied into the file, and in the next one. */
static void restart_the_wal(sqlite3 *stock)
{
    run_sql(stock, "UPDATE u SET b = randomblob(3000)");
    run_sql(stock, "PRAGMA wal_checkpoint");
    run_sql(stock, "UPDATE t SET b = 'there the log knows the page before'");
}

/* To have wished for exclusive mode is not to have been alone since: one gap says so. */
static void a_round_that_a_stranger_began_before_is_a_gap(void **state)
{
    sqlite3 *db, *stock;

    (void)state;
    make_database();
    db = open_exclusive(WITH_SHM);
    let_the_worker_rest(db);
    stock = open_stock();
    restart_the_wal(stock);
    close_database(stock);
    run_sql(db, "UPDATE t SET b = 'alone'");
    (void)logged(db);
    run_sql(db, "UPDATE t SET b = 'alone again'");
    (void)logged(db);
    close_database(db);
    check_log(1);
}

/* Likewise for one whose wal-index is its own, while the worker still had that of others. */
static void what_a_stranger_left_before_one_is_alone_without_shm_is_a_gap(void **state)
{
    sqlite3 *db, *normal, *stock;

    (void)state;
    make_database();
    db = open_exclusive(WITHOUT_SHM);
    normal = open_with("hwsim");
    run_sql(normal, "INSERT INTO t VALUES(2, 'as everybody')");
    let_the_worker_rest(normal);
    stock = open_stock();
    run_sql(stock, "SELECT * FROM t");
    close_database(normal);
    restart_the_wal(stock);
    close_database(stock);
    run_sql(db, "UPDATE t SET b = 'alone'");
    (void)logged(db);
    close_database(db);
    check_log(1);
}

/* Frames that are in the WAL are logged, though the first frame alone would begin it anew. */
static void what_a_stranger_copied_is_logged_before_one_is_alone(void **state)
{
    sqlite3 *db, *stock;

    (void)state;
    make_database();
    db = open_with("hwsim");
    run_sql(db, "UPDATE t SET b = 'as everybody'; PRAGMA locking_mode=EXCLUSIVE");
    (void)logged(db);
    stock = open_stock();
    run_sql(stock, "UPDATE u SET b = randomblob(3000); PRAGMA wal_checkpoint");
    close_database(stock);
    run_sql(db, "UPDATE t SET b = 'alone'");
    (void)logged(db);
    close_database(db);
    check_log(0);
}

/* Rounds that one who is alone begins follow one another without a check of the state. */
static void rounds_of_one_who_is_alone_follow_one_another(void **state)
{
    static const char *const ends[] = {"PRAGMA wal_checkpoint(PASSIVE)",
                                       "PRAGMA wal_checkpoint(RESTART)",
                                       "PRAGMA wal_checkpoint(TRUNCATE)"};

    (void)state;
    make_database();
    for (enum shape shape = WITH_SHM; shape < SHAPES; shape++) {
        sqlite3 *db = open_exclusive(shape);
        unsigned before;

        run_sql(db, "UPDATE t SET b = 'alone'");
        (void)logged(db);
        before = count_entries(HW_ENTRY_TRANSACTION);
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            run_sql(db, ends[i]);
            let_the_worker_rest(db); /* it may see an empty WAL */
            run_sql(db, "BEGIN; UPDATE t SET b = 'taken back'; ROLLBACK");
            run_sql(db, "UPDATE t SET b = randomblob(9); UPDATE u SET b = randomblob(9)");
            let_the_worker_rest(db);
        }
        run_sql(db, "PRAGMA wal_checkpoint; UPDATE u SET b = 'not seen before it closes'");
        close_database(db);
        assert_int_equal(count_entries(HW_ENTRY_TRANSACTION), before + 7);
        check_log(0);
    }
    assert_false(sim_log_has(sim, "by a program without hyperwal"));
    assert_false(sim_log_has(sim, "after an unclean end"));
}

/* ------------------------------------------------------------------- what was taken back */

/* A commit whose frames are in the WAL and count for nothing: its sync failed. */
static sqlite3 *open_with_commit_taken_back(void)
{
    struct sim_fault fault = {
        .kind = SIM_EIO, .operations = SIM_SYNC, .path = "/app.db-wal", .at = 1};
    sqlite3 *db = open_exclusive(WITHOUT_SHM);

    run_sql(db, "PRAGMA synchronous=FULL; UPDATE t SET b = 'committed'");
    let_the_worker_rest(db);
    sim_set_fault(sim, &fault);
    assert_int_equal(sqlite3_exec(db, "UPDATE u SET b = 'taken back'", NULL, NULL, NULL),
                     SQLITE_IOERR);
    assert_true(sim_fault_was_reached(sim));
    sim_set_fault(sim, NULL);
    return db;
}

static void what_was_taken_back_is_not_logged_by_a_commit_of_nothing(void **state)
{
    unsigned before;
    sqlite3 *db;

    (void)state;
    make_database();
    db = open_with_commit_taken_back();
    before = count_entries(HW_ENTRY_TRANSACTION);
    run_sql(db, "BEGIN IMMEDIATE; COMMIT");
    let_the_worker_rest(db);
    assert_int_equal(count_entries(HW_ENTRY_TRANSACTION), before);
    run_sql(db, "UPDATE t SET b = 'over it'");
    let_the_worker_rest(db);
    assert_int_equal(count_entries(HW_ENTRY_TRANSACTION), before + 1);
    close_database(db);
    check_log(0);
}

/* The worker begins anew and looks at the whole WAL, while nothing was committed since. */
static void what_was_taken_back_is_not_logged_by_a_worker_that_begins_anew(void **state)
{
    struct sim_fault full = {
        .kind = SIM_ENOSPC, .path = "/app.db-hyper", .at = 1, .for_ever = true};
    unsigned before;
    sqlite3 *db;

    (void)state;
    make_database();
    db = open_with_commit_taken_back();
    before = count_entries(HW_ENTRY_TRANSACTION);
    sim_set_fault(sim, &full);
    assert_int_equal(sqlite3_exec(db, "PRAGMA hyperwal_label='none'", NULL, NULL, NULL),
                     SQLITE_FULL);
    sim_set_fault(sim, NULL);
    sim_advance(sim, 1000000000);
    let_the_worker_rest(db);
    assert_true(sim_log_has(sim, "event=alarm_over"));
    assert_int_equal(count_entries(HW_ENTRY_TRANSACTION), before);
    run_sql(db, "UPDATE t SET b = 'over it'");
    let_the_worker_rest(db);
    assert_int_equal(count_entries(HW_ENTRY_TRANSACTION), before + 1);
    close_database(db);
    check_log(0);
}

/* SQLite does not tell of a commit if that of a database before it in the list was an error. */
static void a_commit_that_nobody_told_of_keeps_the_wal(void **state)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    sqlite3 *db = NULL;

    (void)state;
    make_database();
    assert_int_equal(
        sqlite3_open_v2("file:/other.db?durability=remote&timeout=100", &db, flags, "hwsim"),
        SQLITE_OK);
    (void)sqlite3_exec(db, "CREATE TABLE o(a)", NULL, NULL, NULL); /* not confirmed either */
    run_sql(db, "SELECT * FROM o; PRAGMA locking_mode=EXCLUSIVE; ATTACH 'file:/app.db' AS app");
    run_sql(db, "UPDATE app.t SET b = 'told'");
    assert_int_equal(sqlite3_exec(db,
                                  "BEGIN; INSERT INTO o VALUES(1); UPDATE app.t SET b = 'untold';"
                                  "COMMIT",
                                  NULL, NULL, NULL),
                     SQLITE_ERROR);
    assert_int_equal(sqlite3_extended_errcode(db), HW_VFS_UNCONFIRMED);
    (void)sqlite3_exec(db, "PRAGMA app.wal_checkpoint", NULL, NULL, NULL); /* may be refused */
    close_database(db);
    db = open_with("hwsim");
    (void)logged(db);
    close_database(db);
    check_log(0);
}

/* ----------------------------------------------------------------- power losses and kills */

enum { ROWS_MAX = 16 };

struct work {
    enum shape shape;
    unsigned rows; /* tried so far */
    bool acknowledged[ROWS_MAX];
};

static bool tried(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static void insert_row(sqlite3 *db, struct work *work)
{
    char sql[96];

    assert_true(work->rows < ROWS_MAX);
    (void)snprintf(sql, sizeof(sql), "INSERT INTO u VALUES(%u, randomblob(900))", 100 + work->rows);
    work->acknowledged[work->rows++] = tried(db, sql);
}

static void prepare_work(struct sim *machine, void *ctx)
{
    struct work *work = ctx;

    (void)machine;
    *work = (struct work){.shape = work->shape};
    make_database();
}

/* Rounds of the WAL, most of them not logged before the next thing is done. */
static void work_alone(struct sim *machine, void *ctx)
{
    struct work *work = ctx;
    struct hw_capture *capture = NULL;
    sqlite3 *db = NULL;
    uint64_t seq;

    (void)machine;
    if (sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE, "hwsim") != SQLITE_OK) {
        (void)sqlite3_close(db); /* a failed open leaves an object that holds nothing */
        return;
    }
    if (work->shape == WITH_SHM)
        (void)tried(db, "SELECT * FROM t");
    if (tried(db, "PRAGMA locking_mode=EXCLUSIVE")) {
        (void)tried(db, "PRAGMA synchronous=FULL");
        insert_row(db, work);
        insert_row(db, work);
        (void)tried(db, "PRAGMA wal_checkpoint");
        insert_row(db, work);
        (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
        if (hw_capture_wait_logged(capture, 100, &seq, NULL) == HW_OK)
            insert_row(db, work);
        (void)tried(db, "PRAGMA wal_checkpoint(TRUNCATE)");
        insert_row(db, work);
        (void)tried(db, "BEGIN; DELETE FROM u; ROLLBACK; BEGIN IMMEDIATE; COMMIT");
        insert_row(db, work);
    }
    (void)sqlite3_close(db); /* its checkpoint may fail: the WAL stays */
}

static bool has_row(sqlite3 *db, unsigned row)
{
    sqlite3_stmt *statement = NULL;
    bool is_there;

    assert_int_equal(sqlite3_prepare_v2(db, "SELECT 1 FROM u WHERE a = ?", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_bind_int(statement, 1, 100 + (int)row), SQLITE_OK);
    is_there = sqlite3_step(statement) == SQLITE_ROW;
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return is_there;
}

static void check_work(struct sim *machine, void *ctx)
{
    const struct work *work = ctx;
    sqlite3 *db = open_with("hwsim");

    (void)machine;
    (void)logged(db);
    for (unsigned row = 0; row < work->rows; row++)
        if (work->acknowledged[row] && !has_row(db, row))
            fail_msg("row %u was acknowledged and is not there", row);
    close_database(db);
    check_log(0);
}

/* Nothing that was acknowledged is lost, and the log goes on without a gap. */
static void one_who_is_alone_bears_power_losses_and_kills(void **state)
{
    (void)state;
    for (enum shape shape = WITH_SHM; shape < SHAPES; shape++) {
        struct work work = {.shape = shape};
        struct sim_scenario scenario = {
            .faults = SIM_CRASH | SIM_KILL,
            .stride = 11,
            .prepare = prepare_work,
            .run = work_alone,
            .check = check_work,
            .ctx = &work,
        };

        assert_true(sim_for_each_fault(sim, &scenario) > 50);
    }
}

/* Calls on the WAL fail, once or from one on: the next one who opens the database finds all. */
static void one_who_is_alone_bears_errors_of_the_wal(void **state)
{
    (void)state;
    for (enum shape shape = WITH_SHM; shape < SHAPES; shape++) {
        struct work work = {.shape = shape};
        struct sim_scenario scenario = {
            .faults = SIM_EIO | SIM_EMFILE | SIM_SHORT_READ,
            .path = "/app.db-wal",
            .stride = 2,
            .prepare = prepare_work,
            .run = work_alone,
            .check = check_work,
            .ctx = &work,
        };

        assert_true(sim_for_each_fault(sim, &scenario) > 25);
        scenario.for_ever = true;
        assert_true(sim_for_each_fault(sim, &scenario) > 25);
    }
}

/* Who wishes for it and did not read yet asks like anybody else, and is alone as it reads. */
static void one_who_did_not_read_yet_gets_answers(void **state)
{
    sqlite3 *db;

    (void)state;
    make_database();
    db = open_exclusive(WITHOUT_SHM);
    run_sql(db, "PRAGMA hyperwal_seq");
    run_sql(db, "PRAGMA hyperwal_label='before'");
    run_sql(db, "UPDATE t SET b = 'alone'; PRAGMA hyperwal_seq");
    run_sql(db, "PRAGMA hyperwal_label='after'; PRAGMA hyperwal_snapshot");
    close_database(db);
    assert_int_equal(count_entries(HW_ENTRY_LABEL), 2);
    check_log(0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(another_one_that_closes_leaves_capture_to_the_one_that_is_alone),
        TEST(another_one_that_goes_back_leaves_capture_to_the_one_that_is_alone),
        TEST(another_one_leaves_capture_to_the_one_that_is_alone_with_the_wal_index),
        TEST(a_wish_for_exclusive_mode_opens_no_gate),
        TEST(another_process_does_not_get_the_role_of_the_one_that_is_alone),
        TEST(a_commit_that_could_not_be_seen_is_logged_before_the_wal_goes),
        TEST(a_commit_that_could_not_be_seen_is_looked_at_again),
        TEST(a_commit_that_cannot_be_seen_is_not_confirmed),
        TEST(a_round_that_a_stranger_began_before_is_a_gap),
        TEST(what_a_stranger_left_before_one_is_alone_without_shm_is_a_gap),
        TEST(what_a_stranger_copied_is_logged_before_one_is_alone),
        TEST(rounds_of_one_who_is_alone_follow_one_another),
        TEST(what_was_taken_back_is_not_logged_by_a_commit_of_nothing),
        TEST(what_was_taken_back_is_not_logged_by_a_worker_that_begins_anew),
        TEST(a_commit_that_nobody_told_of_keeps_the_wal),
        TEST(one_who_did_not_read_yet_gets_answers),
        TEST(one_who_is_alone_bears_power_losses_and_kills),
        TEST(one_who_is_alone_bears_errors_of_the_wal),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("exclusive", tests, NULL, NULL);
}
