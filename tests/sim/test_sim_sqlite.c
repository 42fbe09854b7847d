/*
 * Tests the simulator with stock SQLite on it: what SQLite promises of a real disk must hold here
 * at every operation, and what it does not promise must be seen to fail.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <setjmp.h>

#include <cmocka.h>

#include "sim/sim.h"

enum { COMMITS = 6 };

struct world {
    struct sim *sim;
    const char *synchronous;
    int acknowledged; /* commits that SQLite said are done */
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(0), .synchronous = "FULL"};
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    unsigned open = sim_open_handles(world->sim);

    sim_free(world->sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_database(struct sim *sim)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;

    if (sqlite3_open_v2("/app.db", &db, flags, sim_vfs(sim)->zName) == SQLITE_OK)
        return db;
    (void)sqlite3_close(db); /* a failed open leaves an object that holds nothing */
    return NULL;
}

static bool execute(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int count_rows(struct sim *sim)
{
    sqlite3 *db = open_database(sim);
    sqlite3_stmt *statement = NULL;
    int count = -1;

    if (db != NULL &&
        sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        count = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    (void)sqlite3_close(db);           /* no statement is left */
    return count;
}

static void run_commits(struct sim *sim, void *ctx)
{
    struct world *world = ctx;
    sqlite3 *db = open_database(sim);
    char pragma[64];

    world->acknowledged = -1;
    if (db == NULL)
        return;
    (void)snprintf(pragma, sizeof(pragma), "PRAGMA synchronous=%s", world->synchronous);
    if (!execute(db, "PRAGMA journal_mode=WAL") || !execute(db, pragma) ||
        !execute(db, "PRAGMA wal_autocheckpoint=4") || !execute(db, "CREATE TABLE t(a, b)"))
        goto done;
    world->acknowledged = 0;
    for (int i = 0; i < COMMITS; i++)
        if (execute(db, "INSERT INTO t VALUES(random(), randomblob(3000))"))
            world->acknowledged++;
done:
    (void)sqlite3_close(db); /* its checkpoint may fail: the WAL stays */
}

static void check_commits(struct sim *sim, void *ctx)
{
    const struct world *world = ctx;
    char message[256];
    int rows = count_rows(sim);

    if (world->acknowledged >= 0)
        assert_true(rows >= world->acknowledged);
    assert_true(rows <= COMMITS);
    if (!sim_integrity_ok(sim_vfs(sim)->zName, "/app.db", message) && rows >= 0)
        fail_msg("%s", message);
}

static void commits_with_synchronous_full_survive_a_crash_at_any_operation(void **state)
{
    struct world *world = *state;
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL, .run = run_commits, .check = check_commits, .ctx = world};

    assert_true(sim_for_each_fault(world->sim, &scenario) > 500);
}

static void commits_survive_any_failed_operation(void **state)
{
    struct world *world = *state;
    struct sim_scenario scenario = {.faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE,
                                    .run = run_commits,
                                    .check = check_commits,
                                    .ctx = world};

    assert_true(sim_for_each_fault(world->sim, &scenario) > 100);
}

static void commits_survive_a_disk_that_stays_full(void **state)
{
    struct world *world = *state;
    struct sim_scenario scenario = {.faults = SIM_ENOSPC,
                                    .for_ever = true,
                                    .run = run_commits,
                                    .check = check_commits,
                                    .ctx = world};

    assert_true(sim_for_each_fault(world->sim, &scenario) > 20);
}

static void commits_survive_without_powersafe_overwrite(void **state)
{
    struct world *world = *state;

    for (int size = 512; size <= 16384; size *= 4) {
        sim_reset(world->sim, 3);
        sim_set_powersafe_overwrite(world->sim, false);
        sim_set_sector_size(world->sim, size);
        run_commits(world->sim, world);
        assert_int_equal(world->acknowledged, COMMITS);
        sim_crash(world->sim, SIM_TORN);
        check_commits(world->sim, world);
    }
}

/* If no commit were ever lost here, the crash would not be one. */
static void commits_without_sync_can_be_lost(void **state)
{
    struct world *world = *state;
    int lost = 0;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        sqlite3 *db;

        sim_reset(world->sim, seed);
        db = open_database(world->sim);
        assert_non_null(db);
        assert_true(execute(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);"
                                "PRAGMA wal_checkpoint(TRUNCATE);"
                                "PRAGMA synchronous=OFF; INSERT INTO t VALUES(1)"));
        sim_crash(world->sim, seed % 2 == 0 ? SIM_DROP : SIM_TORN);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        lost += count_rows(world->sim) == 0;
    }
    assert_true(lost >= 10);
}

static void killed_processes_lose_nothing_that_they_wrote(void **state)
{
    struct world *world = *state;
    sqlite3 *db = open_database(world->sim);

    assert_non_null(db);
    assert_true(execute(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);"
                            "PRAGMA synchronous=OFF; INSERT INTO t VALUES(1);"
                            "BEGIN; INSERT INTO t VALUES(2)"));
    sim_kill(world->sim, 0);
    assert_int_equal(count_rows(world->sim), 1); /* also: the dead hold no lock */
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(count_rows(world->sim), 1);
}

static void dead_writer_does_not_disturb_a_living_one(void **state)
{
    struct world *world = *state;
    sqlite3 *dead = open_database(world->sim), *living;
    uint64_t before, after;
    char message[256];

    assert_non_null(dead);
    assert_true(execute(dead, "PRAGMA journal_mode=WAL; PRAGMA cache_size=2; CREATE TABLE t(a);"
                              "BEGIN; INSERT INTO t VALUES(randomblob(90000))"));
    sim_set_process(world->sim, 1);
    living = open_database(world->sim);
    assert_non_null(living);
    assert_true(execute(living, "SELECT * FROM t"));
    sim_kill(world->sim, 0);
    assert_true(execute(living, "INSERT INTO t VALUES(7)"));
    assert_true(sim_fingerprint(living, &before, message));
    (void)sqlite3_close(dead); /* rolls back in memory that is private by now */
    assert_true(sim_fingerprint(living, &after, message));
    assert_true(before == after);
    assert_true(execute(living, "INSERT INTO t VALUES(8)"));
    assert_int_equal(sqlite3_close(living), SQLITE_OK);
    assert_int_equal(count_rows(world->sim), 2);
}

static void writers_of_two_processes_exclude_each_other(void **state)
{
    struct world *world = *state;
    sqlite3 *first = open_database(world->sim), *second;

    assert_true(execute(first, "PRAGMA journal_mode=WAL; CREATE TABLE t(a);"));
    sim_set_process(world->sim, 1);
    second = open_database(world->sim);
    assert_true(execute(first, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)"));
    assert_false(execute(second, "INSERT INTO t VALUES(2)"));
    assert_int_equal(sqlite3_errcode(second), SQLITE_BUSY);
    assert_true(execute(first, "COMMIT"));
    assert_true(execute(second, "INSERT INTO t VALUES(2)"));
    assert_int_equal(sqlite3_close(first), SQLITE_OK);
    assert_int_equal(sqlite3_close(second), SQLITE_OK);
    assert_int_equal(count_rows(world->sim), 2);
}

static void same_seed_gives_the_same_run(void **state)
{
    struct world *world = *state;
    uint64_t hashes[3];

    for (int i = 0; i < 3; i++) {
        sim_reset(world->sim, i == 2 ? 78 : 77);
        sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, i == 2 ? 78 : 77, NULL);
        run_commits(world->sim, world);
        sim_crash(world->sim, SIM_TORN);
        hashes[i] = sim_trace_hash(world->sim);
    }
    assert_true(hashes[0] == hashes[1]);
    assert_true(hashes[0] != hashes[2]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commits_with_synchronous_full_survive_a_crash_at_any_operation),
        TEST(commits_survive_any_failed_operation),
        TEST(commits_survive_a_disk_that_stays_full),
        TEST(commits_survive_without_powersafe_overwrite),
        TEST(commits_without_sync_can_be_lost),
        TEST(killed_processes_lose_nothing_that_they_wrote),
        TEST(dead_writer_does_not_disturb_a_living_one),
        TEST(writers_of_two_processes_exclude_each_other),
        TEST(same_seed_gives_the_same_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
