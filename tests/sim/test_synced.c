/*
 * Frames that a connection synced the worker need not sync again, unless others came in their place
 * since: what is in the log is in the WAL after a loss of power, whoever wrote it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "capture/capture.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { INDEX_REGION = 32768, INDEX_HEADERS = 96 }; /* both copies of the header of the wal-index */

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

static bool execute(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static sqlite3 *open_by(const char *vfs, const char *synchronous)
{
    sqlite3 *db = NULL;
    char sql[64];

    assert_int_equal(
        sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs),
        SQLITE_OK);
    (void)snprintf(sql, sizeof(sql), "PRAGMA synchronous=%s", synchronous);
    assert_true(execute(db, sql));
    return db;
}

static void wait_logged(sqlite3 *db)
{
    struct hw_capture *capture = NULL;
    struct hw_error err = {0};
    uint64_t seq;

    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    if (hw_capture_wait_logged(capture, 1000, &seq, &err) != HW_OK)
        fail_msg("%s", err.message);
}

static sqlite3 *begin(void)
{
    sqlite3 *db = open_by("hwsim", "FULL");

    assert_true(execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                            "INSERT INTO t VALUES(1, 'before')"));
    wait_logged(db);
    return db;
}

/* The power is lost, and what SQLite then finds in the WAL has `sql` true. */
static void check_after_power_loss(sqlite3 *one, sqlite3 *other, const char *sql)
{
    const struct sim_fault lost = {.kind = SIM_CRASH, .at = 1};
    sqlite3_stmt *statement = NULL;
    sqlite3 *db;

    sim_set_fault(sim, &lost);
    (void)sqlite3_close(one); /* the dead close before the machine is up again */
    (void)sqlite3_close(other);
    sim_set_fault(sim, NULL);
    assert_int_equal(hw_capture_count(), 0);
    sim_crash(sim, SIM_DROP);
    db = open_by(sim_vfs(sim)->zName, "FULL");
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), 1);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static uint8_t volatile *wal_index(sqlite3 *db)
{
    void volatile *memory = NULL;
    sqlite3_file *file = NULL;

    assert_int_equal(sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file), SQLITE_OK);
    assert_int_equal(file->pMethods->xShmMap(file, 0, INDEX_REGION, 0, &memory), SQLITE_OK);
    return memory;
}

/* As a process leaves it that is killed between the sync and the word that the frames count. */
static void commit_that_nobody_sees(sqlite3 *db, const char *sql)
{
    uint8_t before[INDEX_HEADERS];
    uint8_t volatile *index = wal_index(db);

    for (int i = 0; i < INDEX_HEADERS; i++)
        before[i] = index[i];
    assert_true(execute(db, sql));
    for (int i = 0; i < INDEX_HEADERS; i++)
        index[i] = before[i];
}

static void frames_in_the_place_of_synced_ones_of_a_dead_writer_are_synced(void **state)
{
    sqlite3 *dead = begin(), *db = open_by("hwsim", "NORMAL");

    (void)state;
    commit_that_nobody_sees(dead, "UPDATE t SET b = 'of the dead' WHERE a = 1");
    assert_true(execute(db, "UPDATE t SET b = 'after' WHERE a = 1"));
    wait_logged(db);
    check_after_power_loss(db, dead, "SELECT b = 'after' FROM t WHERE a = 1");
}

/* The frames of a large transaction are written before its end, and stay when it is rolled back. */
static void roll_back_much_and_commit_little(sqlite3 *db)
{
    assert_true(execute(db, "PRAGMA cache_size=5; PRAGMA cache_spill=5; BEGIN;"
                            "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n LIMIT "
                            "100) INSERT INTO t SELECT i, randomblob(3500) FROM n; ROLLBACK"));
    assert_true(execute(db, "UPDATE t SET b = 'little' WHERE a = 1"));
    wait_logged(db);
}

static void frames_in_the_place_of_a_rolled_back_transaction_are_synced(void **state)
{
    sqlite3 *full = begin(), *db = open_by("hwsim", "NORMAL");

    (void)state;
    roll_back_much_and_commit_little(full);
    assert_true(execute(db, "UPDATE t SET b = 'after' WHERE a = 1"));
    wait_logged(db);
    check_after_power_loss(db, full, "SELECT b = 'after' FROM t WHERE a = 1");
}

static void so_are_those_of_a_program_without_hyperwal(void **state)
{
    sqlite3 *full = begin(), *stock;

    (void)state;
    roll_back_much_and_commit_little(full);
    sim_set_process(sim, 1);
    stock = open_by(sim_vfs(sim)->zName, "NORMAL");
    assert_true(execute(stock, "UPDATE t SET b = 'after' WHERE a = 1"));
    sim_set_process(sim, 0);
    wait_logged(full);
    check_after_power_loss(full, stock, "SELECT b = 'after' FROM t WHERE a = 1");
}

/* What the whole is for: one sync a commit, not two. */
static void frames_that_the_writer_synced_are_not_synced_again(void **state)
{
    sqlite3 *db = begin();
    uint64_t before;

    (void)state;
    assert_true(execute(db, "UPDATE t SET b = 'one' WHERE a = 1"));
    before = sim_count(sim, SIM_SYNC, "/app.db-wal");
    wait_logged(db);
    assert_int_equal(sim_count(sim, SIM_SYNC, "/app.db-wal"), before);
    roll_back_much_and_commit_little(db);
    assert_int_equal(sim_count(sim, SIM_SYNC, "/app.db-wal"), before + 1);
    check_after_power_loss(db, NULL, "SELECT b = 'little' FROM t WHERE a = 1");
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(frames_in_the_place_of_synced_ones_of_a_dead_writer_are_synced),
        TEST(frames_in_the_place_of_a_rolled_back_transaction_are_synced),
        TEST(so_are_those_of_a_program_without_hyperwal),
        TEST(frames_that_the_writer_synced_are_not_synced_again),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("synced", tests, NULL, NULL);
}
