/*
 * What a worker makes of a database while others change it, step by step, and of one that cannot be
 * read, over the simulated disk.
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
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    return 0;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(sim);

    (void)state;
    hw_vfs_unregister("hwsim");
    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_by(const char *vfs)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

    assert_int_equal(sqlite3_open_v2("/app.db", &db, flags, vfs), SQLITE_OK);
    return db;
}

static sqlite3 *open_database(void)
{
    return open_by("hwsim");
}

static sqlite3 *open_stock(void)
{
    return open_by(sim_vfs(sim)->zName);
}

static bool execute(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* The number that one row of one column has; -1: none. */
static sqlite3_int64 number_of(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    sqlite3_int64 number = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_type(statement, 0) != SQLITE_NULL)
        number = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return number;
}

static bool wait_logged(sqlite3 *db, uint64_t *seq)
{
    sqlite3_int64 answer = number_of(db, "PRAGMA hyperwal_seq");

    *seq = (uint64_t)answer;
    return answer >= 0;
}

/* The log verifies, every state replays to its sum, and there is no gap. */
static void check_agreement(void)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    struct hw_entry_summary entry;
    uint64_t seq = 0;

    if (hw_core_open(sim_env(sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) !=
            HW_OK ||
        hw_core_verify(core, NULL, NULL, &err) != HW_OK ||
        hw_verify_deep(sim_env(sim), core, NULL, NULL, &err) != HW_OK)
        fail_msg("log: %s", err.message);
    while (hw_entry_next(core, &seq, &entry, NULL) == HW_OK)
        assert_int_not_equal(entry.header.type, HW_ENTRY_GAP);
    hw_core_close(core);
    assert_null(sim_violation(sim));
}

/* In the middle of the check the WAL, which was wholly logged, is copied and restarted. */
static void a_foreign_restart_during_the_check_is_no_gap(void **state)
{
    struct hw_capture_status now = {0};
    struct hw_capture *capture = NULL;
    sqlite3 *stock, *db;
    uint64_t seq, deadline;

    (void)state;
    db = open_database();
    assert_true(execute(db, "PRAGMA wal_autocheckpoint=0") &&
                execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)") &&
                /* more pages than two steps of a check look at */
                execute(db, "INSERT INTO t VALUES(1, randomblob(12000000))"));
    sim_set_process(sim, 1);
    stock = open_stock();
    assert_true(execute(stock, "SELECT count(*) FROM t")); /* now the WAL stays */
    sim_set_process(sim, 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(sim, 1);
    assert_true(execute(stock, "PRAGMA wal_checkpoint(PASSIVE)")); /* the file changes */
    sim_set_process(sim, 0);
    db = open_database();
    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    assert_true(execute(db, "SELECT count(*) FROM t"));
    for (int i = 0; i < 50 && strcmp(now.state, "checking") != 0; i++) {
        assert_true(hw_capture_step(capture, &deadline, NULL) >= 0);
        hw_capture_status(capture, &now);
    }
    assert_string_equal(now.state, "checking");
    sim_set_process(sim, 1);
    assert_true(execute(stock, "PRAGMA wal_checkpoint(RESTART)") &&
                execute(stock, "INSERT INTO t VALUES(2, 'foreign')"));
    sim_set_process(sim, 0);
    assert_true(wait_logged(db, &seq));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(sim, 1);
    assert_int_equal(sqlite3_close(stock), SQLITE_OK);
    sim_set_process(sim, 0);
    check_agreement();
}

/* Is the database compared with its log, page by page, before the worker goes on? */
static bool is_checked(sqlite3 *db, bool is_held)
{
    struct hw_capture_status now = {0};
    struct hw_capture *capture = NULL;
    uint64_t deadline;
    bool checked = false;

    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    if (is_held)
        hw_capture_held_since(capture);
    assert_true(execute(db, "SELECT count(*) FROM t"));
    for (int i = 0; i < 50 && strcmp(now.state, "running") != 0; i++) {
        assert_true(hw_capture_step(capture, &deadline, NULL) >= 0);
        hw_capture_status(capture, &now);
        checked |= strcmp(now.state, "checking") == 0;
    }
    assert_string_equal(now.state, "running");
    return checked;
}

/*
 * A reader of ours stays while the database is not open through the VFS, and others write: with all
 * of the WAL in the file when it came (it is at READ(0), and a new round begins), or not.
 */
static void foreign_commits_beside_a_reader(bool is_copied, bool is_held)
{
    sqlite3 *db = open_database(), *reader, *stock;
    uint64_t seq;

    assert_true(execute(db, "PRAGMA wal_autocheckpoint=0") &&
                execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)") &&
                execute(db, "INSERT INTO t VALUES(1, randomblob(12000000))") &&
                wait_logged(db, &seq));
    assert_true(!is_copied || execute(db, "PRAGMA wal_checkpoint(PASSIVE)"));
    reader = open_stock();
    assert_true(execute(reader, "BEGIN; SELECT count(*) FROM t"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(sim, 1);
    stock = open_stock();
    assert_true(execute(stock, "INSERT INTO t VALUES(2, 'foreign')") &&
                execute(stock, "PRAGMA wal_checkpoint(PASSIVE)") &&
                execute(stock, "INSERT INTO t VALUES(3, 'and more')"));
    assert_int_equal(sqlite3_close(stock), SQLITE_OK);
    sim_set_process(sim, 0);
    db = open_database();
    assert_int_equal(is_checked(db, is_held), !is_held);
    assert_true(wait_logged(db, &seq));
    assert_int_equal(number_of(db, "SELECT count(*) FROM t"), 3);
    assert_int_equal(sqlite3_close(reader), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    check_agreement();
}

static void a_reader_that_stayed_spares_the_check(void **state)
{
    (void)state;
    foreign_commits_beside_a_reader(false, true);
}

static void a_reader_that_stayed_lets_a_new_round_begin(void **state)
{
    (void)state;
    foreign_commits_beside_a_reader(true, true);
}

static void without_the_word_of_a_reader_all_is_checked(void **state)
{
    (void)state;
    foreign_commits_beside_a_reader(true, false);
}

/* It is not taken for an empty database, of which there is nothing to log. */
static void a_header_that_cannot_be_read_is_an_error(void **state)
{
    struct sim_fault broken = {
        .kind = SIM_EIO, .operations = SIM_READ, .path = "app.db", .at = 1, .for_ever = true};
    sqlite3 *db = open_database();
    uint64_t seq = 0, after;

    (void)state;
    assert_true(execute(db, "CREATE TABLE t(a)") && wait_logged(db, &seq));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_database();
    sim_set_fault(sim, &broken);
    assert_false(execute(db, "PRAGMA hyperwal_seq"));
    sim_set_fault(sim, NULL);
    assert_true(wait_logged(db, &after));
    assert_true(after >= seq);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Not for as long as it may wait for an answer: the worker says that it cannot write. */
static void who_asks_a_worker_that_cannot_write_is_told_soon(void **state)
{
    struct sim_fault full = {.kind = SIM_ENOSPC,
                             .operations = SIM_WRITE,
                             .path = "app.db-hyper",
                             .at = 1,
                             .for_ever = true};
    struct hw_env *env = sim_env(sim);
    struct hw_capture *capture = NULL;
    struct hw_error err = {0};
    sqlite3 *db = open_database();
    uint64_t seq, begin;

    (void)state;
    assert_true(execute(db, "CREATE TABLE t(a)") && execute(db, "INSERT INTO t VALUES(1)") &&
                wait_logged(db, &seq));
    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    begin = env->ops->monotonic_ns(env);
    sim_set_fault(sim, &full);
    assert_int_equal(hw_capture_snapshot(capture, 3600000, &seq, &err), HW_ETIMEOUT);
    if (strstr(err.message, "cannot be written") == NULL)
        fail_msg("%s", err.message);
    assert_true(env->ops->monotonic_ns(env) - begin < 60000000000);
    sim_set_fault(sim, NULL);
    assert_int_equal(hw_capture_snapshot(capture, 3600000, &seq, &err), HW_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    check_agreement();
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_foreign_restart_during_the_check_is_no_gap),
        TEST(a_reader_that_stayed_spares_the_check),
        TEST(a_reader_that_stayed_lets_a_new_round_begin),
        TEST(without_the_word_of_a_reader_all_is_checked),
        TEST(a_header_that_cannot_be_read_is_an_error),
        TEST(who_asks_a_worker_that_cannot_write_is_told_soon),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
