/*
 * Every call that a primary makes fails in its turn, once or from then on, while an application
 * opens, commits, labels, takes snapshots, prunes, checkpoints and looks at the past.  Then the
 * fault goes away, and the same application goes on, without being started anew:
 *
 *     open ── work ──✗── work fails honestly ──✓── the same connection commits, the log follows
 *
 * What was acknowledged is there, log and database agree, nothing is left open or allocated.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { TRIES = 40, ROWS_MAX = 64 };
#define SECOND_NS ((uint64_t)1000000000)

struct world {
    struct sim *sim;
    const char *pragmas; /* of the application, as it opens */
    bool has_log;        /* there is one already when it opens */
    unsigned rows;       /* tried so far */
    bool acknowledged[ROWS_MAX];
};

static struct world world;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    world = (struct world){.sim = sim_new(0), .pragmas = "PRAGMA synchronous=FULL"};
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

static bool run_sql(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static sqlite3 *open_database(const char *uri)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;

    if (sqlite3_open_v2(uri, &db, flags, NULL) == SQLITE_OK)
        return db;
    (void)sqlite3_close(db);
    return NULL;
}

static sqlite3 *open_primary(void)
{
    sqlite3 *db = open_database("file:/app.db?vfs=hwsim");

    if (db != NULL)
        (void)run_sql(db, world.pragmas);
    return db;
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    return capture;
}

/* ---------------------------------------------------------------------------------- work */

/* One row, which must be there for ever if SQLite says so. */
static bool insert(sqlite3 *db)
{
    unsigned row = world.rows++;
    char sql[128];

    assert_true(row < ROWS_MAX);
    (void)snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%u, randomblob(%u))", row,
                   100 + row * 997 % 9000);
    world.acknowledged[row] = run_sql(db, sql);
    return world.acknowledged[row];
}

/* An older state: an answer or an error, and it is closed in any case. */
static void look_at_the_past(uint64_t seq)
{
    char uri[96];
    sqlite3 *db;

    (void)snprintf(uri, sizeof(uri), "file:/app.db?vfs=hwsim&seq=%llu", (unsigned long long)seq);
    db = open_database(uri);
    if (db != NULL)
        (void)run_sql(db, "SELECT sum(length(b)) FROM t");
    (void)sqlite3_close(db);
}

/* What an application does, failures or not. */
static void work(sqlite3 *db)
{
    struct hw_capture *capture = capture_of(db);
    struct hw_capture_status status;
    uint64_t seq = 0, freed = 0;

    (void)run_sql(db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < 3; i++)
        (void)insert(db);
    (void)run_sql(db, "PRAGMA hyperwal_label='here'");
    (void)run_sql(db, "BEGIN; UPDATE t SET b = 'x' WHERE a = 1; SAVEPOINT s; DELETE FROM t;"
                      "ROLLBACK TO s; COMMIT");
    if (sqlite3_get_autocommit(db) == 0)
        (void)run_sql(db, "ROLLBACK");
    (void)run_sql(db, "PRAGMA wal_checkpoint(PASSIVE)");
    (void)insert(db);
    (void)run_sql(db, "PRAGMA hyperwal_snapshot");
    (void)run_sql(db, "PRAGMA hyperwal_status");
    if (capture != NULL && hw_capture_wait_logged(capture, 1000, &seq, NULL) == HW_OK) {
        look_at_the_past(seq);
        (void)insert(db);
        if (hw_capture_prune(capture, seq, false, 1000, &freed, NULL) == HW_OK)
            (void)insert(db);
        hw_capture_status(capture, &status);
    }
    (void)run_sql(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    (void)insert(db);
}

/* ------------------------------------------------------------------ the fault has gone away */

/* The connection that saw the failures commits again, soon, and the log follows. */
static void goes_on(sqlite3 *db)
{
    struct hw_capture *capture = capture_of(db);
    struct hw_error err = {0};
    enum hw_status status = HW_EBUSY;
    uint64_t seq;
    bool is_done = false;

    if (sqlite3_get_autocommit(db) == 0)
        (void)run_sql(db, "ROLLBACK");
    for (int i = 0; i < TRIES && !is_done; i++) {
        is_done =
            run_sql(db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)") && insert(db);
        if (!is_done)
            sim_advance(world.sim, SECOND_NS);
    }
    if (!is_done)
        fail_msg("the fault is over, but no commit: %s", sqlite3_errmsg(db));
    if (capture == NULL)
        fail_msg("the fault is over, but nothing is captured");
    for (int i = 0; i < TRIES && status != HW_OK; i++) {
        (void)run_sql(db, "SELECT count(*) FROM t"); /* opens a WAL that is just new */
        status = hw_capture_wait_logged(capture, 1000, &seq, &err);
        if (status != HW_OK)
            sim_advance(world.sim, SECOND_NS);
    }
    if (status != HW_OK) {
        struct hw_capture_status now;

        hw_capture_status(capture, &now);
        fail_msg("the fault is over, but the log does not follow: %s; state %s, alarm %s",
                 err.message, now.state, now.alarm);
    }
}

static void prepare(struct sim *sim, void *ctx)
{
    sqlite3 *db;

    (void)sim;
    (void)ctx;
    world.rows = 0;
    memset(world.acknowledged, 0, sizeof(world.acknowledged));
    if (!world.has_log)
        return;
    db = open_primary();
    assert_non_null(db);
    work(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void run(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_primary();

    (void)ctx;
    if (db != NULL)
        work(db);
    sim_set_fault(sim, NULL);
    if (db == NULL) /* that was an honest error: the application tries again */
        db = open_primary();
    if (db == NULL)
        fail_msg("the fault is over, but the database does not open: %s", hw_vfs_last_error());
    goes_on(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* --------------------------------------------------------------------------------- checks */

/* What is in the log is the database, by rows. */
static void check_log(uint64_t fingerprint)
{
    struct hw_env *env = sim_env(world.sim);
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_core *core = NULL;
    struct hw_state reached;
    struct hw_error err = {0};
    uint64_t restored = 0;
    char message[256];
    sqlite3 *db = NULL;

    if (hw_core_open(env, "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) != HW_OK)
        fail_msg("log: %s", err.message);
    if (hw_core_verify(core, NULL, NULL, &err) != HW_OK)
        fail_msg("verify: %s", err.message);
    if (hw_verify_deep(env, core, NULL, NULL, &err) != HW_OK)
        fail_msg("deep: %s", err.message);
    if (hw_restore(env, sim_vfs(world.sim), core, &head, "/out.db", false, NULL, NULL, &reached,
                   &err) != HW_OK)
        fail_msg("restore: %s", err.message);
    hw_core_close(core);
    assert_int_equal(
        sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(world.sim)->zName),
        SQLITE_OK);
    if (!sim_fingerprint(db, &restored, message))
        fail_msg("restored: %s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    if (restored != fingerprint)
        fail_msg("the restored head is not the database");
}

static bool has_row(sqlite3 *db, unsigned row)
{
    sqlite3_stmt *statement = NULL;
    bool is_there;

    assert_int_equal(sqlite3_prepare_v2(db, "SELECT 1 FROM t WHERE a = ?", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_bind_int(statement, 1, (int)row), SQLITE_OK);
    is_there = sqlite3_step(statement) == SQLITE_ROW;
    (void)sqlite3_finalize(statement);
    return is_there;
}

static void check(struct sim *sim, void *ctx)
{
    uint64_t fingerprint = 0;
    char message[256];
    sqlite3 *db;

    (void)ctx;
    assert_int_equal(hw_capture_count(), 0);
    assert_int_equal(sim_open_handles(sim), 0);
    if (sim_violation(sim) != NULL)
        fail_msg("%s", sim_violation(sim));
    db = open_database("file:/app.db?vfs=hwsim");
    assert_non_null(db);
    for (unsigned row = 0; row < world.rows; row++)
        if (world.acknowledged[row] && !has_row(db, row))
            fail_msg("row %u was acknowledged and is not there", row);
    if (!sim_fingerprint(db, &fingerprint, message))
        fail_msg("%s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    if (!sim_integrity_ok(sim_vfs(sim)->zName, "/app.db", message))
        fail_msg("integrity: %s", message);
    check_log(fingerprint);
}

/* ---------------------------------------------------------------------------------- tests */

static void each(unsigned faults, bool for_ever, uint64_t stride)
{
    const struct sim_scenario scenario = {
        .faults = faults,
        .for_ever = for_ever,
        .stride = stride,
        .prepare = prepare,
        .run = run,
        .check = check,
    };

    assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
}

static void without_a_fault_all_is_acknowledged(void **state)
{
    (void)state;
    prepare(world.sim, NULL);
    run(world.sim, NULL);
    for (unsigned row = 0; row < world.rows; row++)
        assert_true(world.acknowledged[row]);
    assert_int_equal(world.rows, 8);
    check(world.sim, NULL);
}

static void an_error_of_any_call_is_over_when_it_is_over(void **state)
{
    (void)state;
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, false, 2);
}

static void errors_of_all_calls_from_any_one_on_are_over_when_they_are_over(void **state)
{
    (void)state;
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, true, 7);
}

static void an_allocation_that_fails_is_over_when_it_is_over(void **state)
{
    (void)state;
    each(SIM_ENOMEM, false, 1);
    each(SIM_ENOMEM, true, 5);
}

static void an_application_that_opens_its_log_again_bears_errors_of_any_call(void **state)
{
    (void)state;
    world.has_log = true;
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, false, 5);
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, true, 11);
    each(SIM_ENOMEM, false, 3);
}

/* A database that is in WAL mode already: no other has that. */
static void in_exclusive_mode(const char *pragmas)
{
    world.pragmas = pragmas;
    world.has_log = true;
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, false, 5);
    each(SIM_EIO | SIM_ENOSPC | SIM_EMFILE, true, 11);
    each(SIM_ENOMEM, false, 3);
}

/* It has the wal-index in shared memory when it goes into that mode: the first PRAGMA reads. */
static void an_application_in_exclusive_mode_bears_errors_of_any_call(void **state)
{
    (void)state;
    in_exclusive_mode("PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE");
}

static void one_in_exclusive_mode_without_shared_memory_bears_errors_of_any_call(void **state)
{
    (void)state;
    in_exclusive_mode("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(without_a_fault_all_is_acknowledged),
        TEST(an_error_of_any_call_is_over_when_it_is_over),
        TEST(errors_of_all_calls_from_any_one_on_are_over_when_they_are_over),
        TEST(an_allocation_that_fails_is_over_when_it_is_over),
        TEST(an_application_that_opens_its_log_again_bears_errors_of_any_call),
        TEST(an_application_in_exclusive_mode_bears_errors_of_any_call),
        TEST(one_in_exclusive_mode_without_shared_memory_bears_errors_of_any_call),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("fail_primary", tests, NULL, NULL);
}
