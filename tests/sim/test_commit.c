/*
 * The whole path on one disk that can fail: commits through the shim, the log, a replica.
 *
 * Every operation of a scenario is a crash, a kill, or an error in its turn.  Afterwards, by an
 * oracle that is not the code under test (the rows that SQLite acknowledged): what SQLite promised
 * is there; log and database agree; the log verifies, never shrinks below what was announced;
 * restoring its head gives the database; and opening once more changes nothing.
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

struct world {
    struct sim *sim;
    const char *synchronous;
    unsigned crash_modes; /* 0: all */
    bool follows;         /* a replica is part of the run */
    bool checkpoints;
    int acknowledged;   /* commits that SQLite said are done */
    int logged;         /* of those: known to be in the log */
    uint64_t announced; /* durable length that was seen */
};

static struct world world;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    world = (struct world){.sim = sim_new(0), .synchronous = "FULL"};
    options.base = sim_vfs(world.sim);
    options.env = sim_env(world.sim);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hw_vfs_unregister("hwsim");
    assert_int_equal(sim_open_handles(world.sim), 0);
    sim_free(world.sim);
    return 0;
}

static sqlite3 *open_database(void)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    char sql[64];

    if (sqlite3_open_v2("file:/app.db?vfs=hwsim", &db, flags, NULL) != SQLITE_OK) {
        (void)sqlite3_close(db);
        return NULL;
    }
    snprintf(sql, sizeof(sql), "PRAGMA synchronous=%s", world.synchronous);
    (void)sqlite3_exec(db, sql, NULL, NULL, NULL);
    return db;
}

static bool run_sql(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    return capture;
}

static void note_logged(sqlite3 *db)
{
    struct hw_capture *capture = capture_of(db);
    struct hw_capture_status status;
    uint64_t seq;

    if (capture != NULL && hw_capture_wait_logged(capture, 1000, &seq, NULL) == HW_OK) {
        hw_capture_status(capture, &status);
        world.logged = world.acknowledged;
        world.announced = status.length;
    }
}

/* Commits of several kinds; table t has one row for each that was acknowledged. */
static void commits(sqlite3 *db)
{
    static const char *const work[] = {
        "INSERT INTO t VALUES(1, zeroblob(50))",
        "BEGIN; INSERT INTO t VALUES(2, randomblob(9000)); UPDATE t SET b = 'x' WHERE a=1; COMMIT",
        "INSERT INTO t VALUES(3, randomblob(30000))",
        "BEGIN; DELETE FROM big; INSERT INTO t VALUES(4, 'after delete'); COMMIT",
        "INSERT INTO t VALUES(5, randomblob(200))",
        "INSERT INTO t VALUES(6, randomblob(200))",
    };

    if (!run_sql(db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)") ||
        !run_sql(db, "CREATE TABLE IF NOT EXISTS big(a)") ||
        !run_sql(db, "INSERT INTO big VALUES(zeroblob(20000))"))
        return;
    world.acknowledged = 0;
    for (int i = 0; i < (int)(sizeof(work) / sizeof(work[0])); i++) {
        if (!run_sql(db, work[i]))
            return;
        world.acknowledged = i + 1;
        if (i % 2 == 1)
            note_logged(db);
        if (world.checkpoints && i == 2)
            (void)run_sql(db, "PRAGMA wal_checkpoint(PASSIVE)");
        if (world.checkpoints && i == 4)
            (void)run_sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

static void run_commits(struct sim *sim, void *ctx)
{
    sqlite3 *db;

    (void)sim;
    (void)ctx;
    world.acknowledged = -1;
    world.logged = 0;
    world.announced = 0;
    db = open_database();
    if (db == NULL)
        return;
    commits(db);
    (void)sqlite3_close(db);
}

static int64_t query(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return value;
}

/* The log from the outside: it verifies, and its head restores to the fingerprint given. */
static void check_log(uint64_t fingerprint)
{
    struct hw_env *env = sim_env(world.sim);
    struct hw_core *core = NULL;
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_state reached;
    struct hw_error err = {0};
    char message[256];
    uint64_t restored = 0;
    sqlite3 *db = NULL;

    if (hw_core_open(env, "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) != HW_OK)
        fail_msg("log: %s", err.message);
    assert_true(hw_core_length(core) >= world.announced);
    if (hw_core_verify(core, NULL, NULL, &err) != HW_OK)
        fail_msg("verify: %s", err.message);
    if (hw_verify_deep(env, core, NULL, NULL, &err) != HW_OK)
        fail_msg("deep: %s", err.message);
    sim_file_remove(world.sim, "/out.db");
    if (hw_restore(env, sim_vfs(world.sim), core, &head, "/out.db", false, NULL, NULL, &reached,
                   &err) != HW_OK)
        fail_msg("restore: %s", err.message);
    hw_core_close(core);
    assert_int_equal(
        sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(world.sim)->zName),
        SQLITE_OK);
    if (!sim_fingerprint(db, &restored, message))
        fail_msg("restored: %s", message);
    sqlite3_close(db);
    if (restored != fingerprint)
        fail_msg("the restored head is not the database");
}

static uint64_t check_database(void)
{
    char message[256];
    uint64_t fingerprint = 0, seq = 0;
    struct hw_error err = {0};
    sqlite3 *db = open_database();
    int rows;

    assert_non_null(db);
    rows = (int)query(db, "SELECT count(*) FROM t");
    if (world.acknowledged > 0 && strcmp(world.synchronous, "FULL") == 0)
        assert_true(rows >= world.acknowledged);
    if (world.logged > 0 &&
        rows < world.logged) /* what is in the log is in the database, whatever the setting */
        fail_msg("%d rows, but %d commits were in the log", rows, world.logged);
    assert_true(sim_fingerprint(db, &fingerprint, message));
    if (capture_of(db) != NULL && query(db, "PRAGMA page_count") > 0 &&
        hw_capture_wait_logged(capture_of(db), 5000, &seq, &err) != HW_OK)
        fail_msg("not logged after reopening: %s (%d rows, journal %lld pages)", err.message, rows,
                 (long long)query(db, "PRAGMA page_count"));
    sqlite3_close(db);
    if (!sim_integrity_ok(sim_vfs(world.sim)->zName, "/app.db", message))
        fail_msg("integrity: %s", message);
    return rows < 0 && fingerprint == 0 ? 0 : fingerprint;
}

static void check(struct sim *sim, void *ctx)
{
    uint64_t fingerprint;

    (void)ctx;
    assert_int_equal(hw_capture_count(), 0);
    if (!sim_file_exists(sim, "/app.db"))
        return;
    fingerprint = check_database();
    if (sim_violation(sim) != NULL)
        fail_msg("%s", sim_violation(sim));
    {
        size_t size = 0;

        if (sim_file_bytes(sim, "/app.db", &size) == NULL || size == 0)
            return; /* nothing was ever committed: no log to speak of */
    }
    check_log(fingerprint);
    assert_true(check_database() == fingerprint);
    check_log(fingerprint);
}

static void nothing_is_lost(unsigned faults, unsigned operations)
{
    struct sim_scenario scenario = {
        .faults = faults,
        .operations = operations,
        .crash_modes = world.crash_modes,
        .run = run_commits,
        .check = check,
    };

    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

static void a_run_without_faults_agrees(void **state)
{
    (void)state;
    world.checkpoints = true;
    run_commits(world.sim, NULL);
    assert_int_equal(world.acknowledged, 6);
    check(world.sim, NULL);
}

/* SQLite then repeats the commit frame up to the end of the sector: still one transaction each. */
static void without_powersafe_overwrite_a_commit_is_one_transaction(void **state)
{
    struct hw_core *core = NULL;
    struct hw_entry_summary entry;
    uint64_t seq = 0;
    int before, transactions = 0;
    sqlite3 *db;

    (void)state;
    sim_set_sector_size(world.sim, 16384);
    sim_set_powersafe_overwrite(world.sim, false);
    run_commits(world.sim, NULL);
    assert_int_equal(world.acknowledged, 6);
    db = open_database();
    assert_true(run_sql(db, "SELECT * FROM t"));
    note_logged(db);
    before = (int)world.announced;
    for (int i = 0; i < 5; i++)
        assert_true(run_sql(db, "UPDATE t SET b = b || 'x' WHERE a = 1"));
    note_logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(
        hw_core_open(sim_env(world.sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL),
        HW_OK);
    for (seq = (uint64_t)before; hw_entry_next(core, &seq, &entry, NULL) == HW_OK;)
        transactions += entry.header.type == HW_ENTRY_TRANSACTION;
    hw_core_close(core);
    assert_int_equal(transactions, 5);
    check(world.sim, NULL);
}

static void a_crash_at_any_operation_loses_nothing(void **state)
{
    (void)state;
    nothing_is_lost(SIM_CRASH, 0);
}

static void a_crash_at_any_operation_of_checkpoints_loses_nothing(void **state)
{
    (void)state;
    world.checkpoints = true;
    nothing_is_lost(SIM_CRASH, 0);
}

static void a_crash_with_synchronous_normal_keeps_log_and_database_in_step(void **state)
{
    (void)state;
    world.synchronous = "NORMAL";
    world.checkpoints = true;
    nothing_is_lost(SIM_CRASH, 0);
}

static void a_crash_with_synchronous_off_keeps_log_and_database_in_step(void **state)
{
    (void)state;
    world.synchronous = "OFF"; /* then SQLite itself bears no reordered or torn writes */
    world.crash_modes = 1U << SIM_KEEP | 1U << SIM_DROP;
    nothing_is_lost(SIM_CRASH, 0);
}

static void a_kill_at_any_operation_loses_nothing(void **state)
{
    (void)state;
    world.checkpoints = true;
    nothing_is_lost(SIM_KILL, 0);
}

static void an_error_at_any_operation_loses_nothing(void **state)
{
    (void)state;
    world.checkpoints = true;
    nothing_is_lost(SIM_EIO | SIM_ENOSPC, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_run_without_faults_agrees, setup, teardown),
        cmocka_unit_test_setup_teardown(without_powersafe_overwrite_a_commit_is_one_transaction,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_at_any_operation_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_at_any_operation_of_checkpoints_loses_nothing,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_crash_with_synchronous_normal_keeps_log_and_database_in_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_crash_with_synchronous_off_keeps_log_and_database_in_step,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_kill_at_any_operation_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_at_any_operation_loses_nothing, setup, teardown),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("commit", tests, NULL, NULL);
}
