/*
 * A log that cannot be opened or written for a while, step by step, over the simulated disk: the
 * application goes on, the WAL is let go at its cap, and the log comes back with one gap.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { STEPS = 200 };
#define DIR "/app.db-hyper"

static struct sim *sim;
static const struct sim_fault unreadable = {
    .kind = SIM_EIO, .operations = SIM_OPEN, .path = DIR "/key", .at = 1, .for_ever = true};
static const struct sim_fault full = {
    .kind = SIM_ENOSPC, .operations = SIM_WRITE, .path = DIR "/", .at = 1, .for_ever = true};

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    (void)state;
    sim = sim_new(0);
    options.base = sim_vfs(sim);
    options.env = sim_env(sim);
    assert_int_equal(setenv("HYPERWAL_WAL_CAP", "100000", 1), 0);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    return 0;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(sim);

    (void)state;
    (void)unsetenv("HYPERWAL_WAL_CAP"); /* the next test sets it again, if it cannot be unset */
    hw_vfs_unregister("hwsim");
    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_by(const char *vfs)
{
    sqlite3 *db = NULL;

    assert_int_equal(
        sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs),
        SQLITE_OK);
    return db;
}

static sqlite3 *open_database(void)
{
    return open_by("hwsim");
}

static bool execute(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    assert_non_null(capture);
    return capture;
}

/* The worker's steps, for as long as it may take, until it is in `state`. */
static void step_until(sqlite3 *db, const char *state)
{
    struct hw_capture *capture = capture_of(db);
    struct hw_capture_status now = {0};
    uint64_t deadline;

    for (int i = 0; i < STEPS && strcmp(now.state, state) != 0; i++) {
        (void)!hw_capture_step(capture, &deadline,
                               NULL); /* a failure is an alarm, and tried anew */
        sim_advance(sim, 100000000);
        hw_capture_status(capture, &now);
    }
    if (strcmp(now.state, state) != 0)
        fail_msg("%s, not %s: %s", now.state, state, now.alarm);
}

static bool is_released(sqlite3 *db)
{
    struct hw_capture_place place;

    hw_capture_place(capture_of(db), &place);
    return place.is_released;
}

static void make_log(void)
{
    sqlite3 *db = open_database();
    uint64_t seq;

    assert_true(execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"));
    assert_true(execute(db, "INSERT INTO t(b) VALUES('before')"));
    assert_int_equal(hw_capture_wait_logged(capture_of(db), 1000, &seq, NULL), HW_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* More than the WAL may hold. */
static void outgrow(sqlite3 *db)
{
    assert_true(execute(db, "INSERT INTO t(b) VALUES(randomblob(200000))"));
}

/* What is committed now is logged, and the log has `gaps` (-1: any) and is the database. */
static void check_goes_on(sqlite3 *db, int gaps)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_error err = {0};
    struct hw_entry_summary entry;
    struct hw_core *core = NULL;
    struct hw_state reached;
    uint64_t seq = 0, fingerprint = 0, restored = 0;
    char message[256];
    sqlite3 *out = NULL;
    int found = 0;

    assert_true(execute(db, "INSERT INTO t(b) VALUES('after')"));
    if (hw_capture_wait_logged(capture_of(db), 20000, &seq, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_true(execute(db, "PRAGMA hyperwal_snapshot"));
    assert_true(sim_fingerprint(db, &fingerprint, message));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(hw_capture_count(), 0);
    if (hw_core_open(sim_env(sim), DIR, HW_CORE_READ, UINT64_MAX, &core, &err) != HW_OK ||
        hw_core_verify(core, NULL, NULL, &err) != HW_OK ||
        hw_verify_deep(sim_env(sim), core, NULL, NULL, &err) != HW_OK ||
        hw_restore(sim_env(sim), sim_vfs(sim), core, &head, "/out.db", false, NULL, NULL, &reached,
                   &err) != HW_OK)
        fail_msg("log: %s", err.message);
    seq = 0;
    while (hw_entry_next(core, &seq, &entry, NULL) == HW_OK)
        found += entry.header.type == HW_ENTRY_GAP;
    assert_true(found == gaps || gaps < 0);
    hw_core_close(core);
    assert_int_equal(sqlite3_open_v2("/out.db", &out, SQLITE_OPEN_READONLY, sim_vfs(sim)->zName),
                     SQLITE_OK);
    assert_true(sim_fingerprint(out, &restored, message));
    assert_true(restored == fingerprint);
    assert_int_equal(sqlite3_close(out), SQLITE_OK);
    assert_null(sim_violation(sim));
}

/* ------------------------------------------------------------------------------- released */

/* Opened while the log cannot be, and used until the WAL is let go. */
static sqlite3 *open_released(void)
{
    sqlite3 *db;

    make_log();
    sim_set_fault(sim, &unreadable);
    db = open_database();
    outgrow(db);
    step_until(db, "released");
    return db;
}

static void a_log_that_could_not_be_opened_comes_back_after_its_wal_was_let_go(void **state)
{
    sqlite3 *db = open_released();

    (void)state;
    sim_set_fault(sim, NULL);
    step_until(db, "running");
    assert_false(is_released(db));
    check_goes_on(db, 1);
}

static void it_does_so_when_nobody_reads_any_more(void **state)
{
    sqlite3 *other, *db = open_released();

    (void)state;
    other = open_database();
    assert_int_equal(sqlite3_close(db), SQLITE_OK); /* the last that has the wal-index */
    sim_set_fault(sim, NULL);
    step_until(other, "starting");
    assert_true(execute(other, "SELECT count(*) FROM t"));
    step_until(other, "running");
    check_goes_on(other, 1);
}

static void it_does_so_when_readers_go_and_come_meanwhile(void **state)
{
    sqlite3 *other, *db = open_released();

    (void)state;
    other = open_database();
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_true(execute(other, "INSERT INTO t(b) VALUES('between')"));
    sim_set_fault(sim, NULL);
    step_until(other, "running");
    check_goes_on(other, 1);
}

/* Who is alone has the wal-index on the heap of SQLite: the WAL has a cap all the same. */
static void the_wal_of_one_who_is_alone_is_let_go_and_comes_back(void **state)
{
    sqlite3 *db;

    (void)state;
    make_log();
    db = open_database();
    assert_true(execute(db, "PRAGMA locking_mode=EXCLUSIVE"));
    assert_true(execute(db, "INSERT INTO t(b) VALUES('alone')"));
    step_until(db, "running");
    sim_set_fault(sim, &full);
    outgrow(db);
    step_until(db, "released");
    assert_true(is_released(db));
    sim_set_fault(sim, NULL);
    step_until(db, "running");
    check_goes_on(db, 1);
}

static void a_wal_that_was_let_go_stays_so_until_the_log_is_followed_again(void **state)
{
    struct sim_fault blind = {
        .kind = SIM_EIO, .operations = SIM_STAT, .path = "/app.db-wal", .at = 1, .for_ever = true};
    sqlite3 *db;
    uint64_t deadline;

    (void)state;
    make_log();
    db = open_database();
    assert_true(execute(db, "SELECT count(*) FROM t"));
    step_until(db, "running");
    sim_set_fault(sim, &full);
    outgrow(db);
    step_until(db, "released");
    assert_true(is_released(db));
    sim_set_fault(sim, &blind); /* there is room again, but nothing can be compared */
    for (int i = 0; i < 30; i++) {
        (void)!hw_capture_step(capture_of(db), &deadline, NULL); /* it fails */
        sim_advance(sim, 100000000);
    }
    assert_true(sim_fault_was_reached(sim));
    sim_set_fault(sim, &full);
    for (int i = 0; i < 30; i++) {
        (void)!hw_capture_step(capture_of(db), &deadline, NULL); /* and now there is none */
        sim_advance(sim, 100000000);
    }
    assert_true(is_released(db));
    sim_set_fault(sim, NULL);
    step_until(db, "running");
    check_goes_on(db, 1);
}

/* Damaged once more it is whole. */
static void damage_log(void)
{
    sim_file_flip(sim, DIR "/log", 20, 0x10);
}

static void prepare_released(struct sim *ignored, void *ctx)
{
    sqlite3 **db = ctx;

    (void)ignored;
    make_log();
    damage_log();
    *db = open_database();
    outgrow(*db);
    step_until(*db, "released");
    damage_log();
}

static void resume(struct sim *ignored, void *ctx)
{
    sqlite3 **db = ctx;
    uint64_t deadline;

    (void)ignored;
    for (int i = 0; i < 100; i++) {
        (void)!hw_capture_step(capture_of(*db), &deadline, NULL); /* one of them fails */
        sim_advance(sim, 100000000);
    }
    (void)execute(*db, "INSERT INTO t(b) VALUES('meanwhile')");
    assert_int_equal(sqlite3_close(*db), SQLITE_OK);
}

static void check_resumed(struct sim *ignored, void *ctx)
{
    sqlite3 *db;

    (void)ignored;
    (void)ctx;
    assert_int_equal(hw_capture_count(), 0);
    sim_file_remove(sim, "/out.db");
    db = open_database();
    assert_true(execute(db, "SELECT count(*) FROM t"));
    step_until(db, "running");
    assert_false(is_released(db));
    check_goes_on(db, -1);
}

static void a_wal_that_was_let_go_comes_back_whatever_fails_meanwhile(void **state)
{
    sqlite3 *db = NULL;
    const struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_ENOMEM | SIM_CRASH | SIM_KILL,
        .stride = 4,
        .prepare = prepare_released,
        .run = resume,
        .check = check_resumed,
        .ctx = &db,
    };

    (void)state;
    assert_true(sim_for_each_fault(sim, &scenario) > 50);
}

/* ------------------------------------------------------------------------------ page sums */

/* Only its page, which is of no group that was taken yet. */
static void update_last(sqlite3 *db)
{
    uint64_t seq;

    assert_true(execute(db, "UPDATE t SET b = randomblob(3500) WHERE a = 5000"));
    assert_int_equal(hw_capture_wait_logged(capture_of(db), 1000, &seq, NULL), HW_OK);
}

/* In the middle of a snapshot nobody compares a page that is changed with its sum. */
static void page_sums_that_could_not_be_written_make_no_wrong_entry(void **state)
{
    struct sim_fault failing = {
        .kind = SIM_EIO, .operations = SIM_WRITE, .path = DIR "/sums", .at = 1, .for_ever = true};
    struct hw_capture_status now;
    sqlite3 *db = open_by(sim_vfs(sim)->zName);
    uint64_t deadline;

    (void)state;
    assert_true(execute(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT "
                            "5000) INSERT INTO t SELECT i, randomblob(3500) FROM n"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_database();
    assert_true(execute(db, "SELECT count(*) FROM t"));
    step_until(db, "running");
    assert_int_equal(hw_capture_step(capture_of(db), &deadline, NULL), HW_OK); /* some groups */
    sim_set_fault(sim, &failing);
    update_last(db);
    assert_true(sim_fault_was_reached(sim));
    update_last(db);
    sim_set_fault(sim, NULL);
    hw_capture_status(capture_of(db), &now);
    assert_true(now.snapshot_seq == UINT64_MAX); /* it was not there yet */
    update_last(db);
    check_goes_on(db, 0);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_log_that_could_not_be_opened_comes_back_after_its_wal_was_let_go),
        TEST(it_does_so_when_nobody_reads_any_more),
        TEST(it_does_so_when_readers_go_and_come_meanwhile),
        TEST(the_wal_of_one_who_is_alone_is_let_go_and_comes_back),
        TEST(a_wal_that_was_let_go_stays_so_until_the_log_is_followed_again),
        TEST(a_wal_that_was_let_go_comes_back_whatever_fails_meanwhile),
        TEST(page_sums_that_could_not_be_written_make_no_wrong_entry),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("stalled", tests, NULL, NULL);
}
