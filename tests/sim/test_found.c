/*
 * What random scenarios found, each on its own.
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
#include "wal/wal.h"

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
    (void)state;
    hw_vfs_unregister("hwsim");
    sim_free(sim);
    return 0;
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

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    run_sql(db, "SELECT count(*) FROM t"); /* now it knows of the WAL */
    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    assert_non_null(capture);
    return capture;
}

static uint64_t logged(sqlite3 *db)
{
    struct hw_error err = {0};
    uint64_t seq = 0;

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

static enum hw_status restore(uint64_t seq, uint64_t *fingerprint, struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = seq};
    struct hw_env *env = sim_env(sim);
    struct hw_core *core = NULL;
    struct hw_state reached;
    enum hw_status status;
    sqlite3 *db = NULL;

    assert_int_equal(hw_core_open(env, "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, err),
                     HW_OK);
    sim_file_remove(sim, "/out.db");
    status =
        hw_restore(env, sim_vfs(sim), core, &target, "/out.db", false, NULL, NULL, &reached, err);
    hw_core_close(core);
    if (status != HW_OK)
        return status;
    assert_int_equal(sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(sim)->zName),
                     SQLITE_OK);
    *fingerprint = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return HW_OK;
}

/* A snapshot has it, but what it is, its entry says. */
static void the_oldest_state_that_is_kept_is_restored(void **state)
{
    uint64_t wanted, restored = 0, freed = 0, first, seq;
    struct hw_error err = {0};
    sqlite3 *db = open_with("hwsim");

    (void)state;
    run_sql(db,
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, zeroblob(9000))");
    first = logged(db);
    run_sql(db, "PRAGMA hyperwal_snapshot");
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(3000000))"); /* an entry of several blocks */
    seq = logged(db);
    wanted = fingerprint_of(db);
    run_sql(db, "PRAGMA hyperwal_snapshot; DELETE FROM t WHERE a = 2");
    if (hw_capture_prune(capture_of(db), seq, false, 5000, &freed, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(restore(first, &restored, &err), HW_EPRUNED);
    if (restore(seq, &restored, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_true(restored == wanted);
}

static unsigned gaps(void)
{
    struct hw_entry_summary entry;
    struct hw_core *core = NULL;
    uint64_t seq = 0;
    unsigned count = 0;

    assert_int_equal(
        hw_core_open(sim_env(sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL), HW_OK);
    while (hw_entry_next(core, &seq, &entry, NULL) == HW_OK)
        count += entry.header.type == HW_ENTRY_GAP;
    hw_core_close(core);
    return count;
}

/* The journal of the switch to WAL mode, whose removal nobody synced, rolls the file back. */
static void an_adopted_state_is_not_undone_by_a_journal_that_comes_back(void **state)
{
    struct sim_fault lost = {.kind = SIM_CRASH, .at = 1};
    sqlite3 *db = open_with(sim_vfs(sim)->zName);

    (void)state;
    run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'x')");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_with("hwsim");
    (void)logged(db);
    sim_set_fault(sim, &lost);
    (void)sqlite3_close(db); /* the dead close before the machine is up again */
    sim_set_fault(sim, NULL);
    sim_crash(sim, SIM_DROP);
    db = open_with("hwsim");
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 0);
}

static sqlite3 *stranger_open(void);
static void stranger_close(sqlite3 *stranger);

/* That of a stranger's commit, of which a gap tells; the log was there before. */
static void a_state_after_a_gap_is_not_undone_by_a_journal_that_comes_back(void **state)
{
    struct sim_fault lost = {.kind = SIM_CRASH, .at = 1};
    sqlite3 *db = open_with("hwsim"), *stranger;

    (void)state;
    run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'x')");
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    stranger = stranger_open();
    run_sql(stranger, "PRAGMA journal_mode=DELETE; INSERT INTO t VALUES(2, 'y')");
    stranger_close(stranger);
    db = open_with("hwsim");
    (void)logged(db);
    assert_int_equal(gaps(), 1);
    sim_set_fault(sim, &lost);
    (void)sqlite3_close(db); /* the dead close before the machine is up again */
    sim_set_fault(sim, NULL);
    sim_crash(sim, SIM_DROP);
    db = open_with("hwsim");
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 1);
}

static sqlite3 *stranger_open(void)
{
    sim_set_process(sim, 1);
    return open_with(sim_vfs(sim)->zName);
}

static void stranger_close(sqlite3 *stranger)
{
    assert_int_equal(sqlite3_close(stranger), SQLITE_OK);
    sim_set_process(sim, 0);
}

/* The worker looks once; there may be nothing to do. */
static void step(struct hw_capture *capture)
{
    struct hw_error err = {0};
    uint64_t deadline;

    if (hw_capture_step(capture, &deadline, &err) < 0)
        fail_msg("%s", err.message);
}

/* A program without hyperwal copies all of the WAL and cuts it off. */
static void empty_by_stranger(void)
{
    sqlite3 *stranger = stranger_open();

    run_sql(stranger, "PRAGMA wal_checkpoint(TRUNCATE)");
    stranger_close(stranger);
}

/* A log that ends where the next round of the WAL will begin. */
static sqlite3 *open_at_empty_wal(void)
{
    sqlite3 *db = open_with("hwsim");

    run_sql(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                "INSERT INTO t VALUES(1, randomblob(3000))");
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_with("hwsim");
    (void)logged(db);
    return db;
}

static void expect_restored(uint64_t seq, uint64_t wanted)
{
    uint64_t restored = 0;
    struct hw_error err = {0};

    if (restore(seq, &restored, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_true(restored == wanted);
}

/* The log must not go on as if nothing had been in between. */
static void a_round_that_a_stranger_emptied_is_a_gap(void **state)
{
    sqlite3 *db = open_at_empty_wal();
    uint64_t seq, wanted;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    empty_by_stranger();
    run_sql(db, "INSERT INTO t VALUES(3, randomblob(100))");
    seq = logged(db);
    assert_int_equal(gaps(), 1);
    wanted = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK); /* it finishes the snapshot */
    expect_restored(seq, wanted);
}

/* Nor if nobody commits any more: the last close must not call the file a state of the log. */
static void a_last_close_after_a_round_was_emptied_tells_of_the_gap(void **state)
{
    sqlite3 *db = open_at_empty_wal();
    uint64_t seq, wanted;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    empty_by_stranger();
    wanted = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_with("hwsim");
    seq = logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 1);
    expect_restored(seq, wanted);
}

/* The pages of the commits in between are others, so no sum of an old image tells of them. */
static void a_round_that_a_stranger_emptied_and_another_that_it_began_are_a_gap(void **state)
{
    sqlite3 *db = open_with("hwsim"), *stranger;
    uint64_t seq, wanted;

    (void)state;
    run_sql(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                "CREATE TABLE u(a INTEGER PRIMARY KEY, b);"
                "INSERT INTO t VALUES(1, 1); INSERT INTO u VALUES(1, 1)");
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_with("hwsim");
    (void)logged(db);
    run_sql(db, "UPDATE t SET b = 2"); /* a round that follows the one before, and is not logged */
    stranger = stranger_open();
    run_sql(stranger, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE u SET b = 2");
    stranger_close(stranger);
    seq = logged(db);
    assert_int_equal(gaps(), 1);
    wanted = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK); /* it finishes the snapshot */
    expect_restored(seq, wanted);
}

/* A stranger copied frames that are not in the log: ours must not overwrite them. */
static void frames_that_a_stranger_copied_are_logged_before_the_wal_begins_anew(void **state)
{
    sqlite3 *db = open_at_empty_wal(), *stranger;
    uint64_t seq, wanted;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    stranger = stranger_open();
    run_sql(stranger, "PRAGMA wal_checkpoint(PASSIVE)");
    stranger_close(stranger);
    run_sql(db, "INSERT INTO t VALUES(3, randomblob(100))");
    seq = logged(db);
    assert_int_equal(gaps(), 0);
    wanted = fingerprint_of(db);
    run_sql(db, "PRAGMA hyperwal_snapshot");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    expect_restored(seq, wanted);
}

/* Nothing was lost, and that is known without reading the database. */
static void rounds_of_our_own_need_no_check(void **state)
{
    static const char *const emptied[] = {
        "SELECT 1",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(RESTART)",
        "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_checkpoint(RESTART)",
    };
    sqlite3 *db = open_at_empty_wal(), *other = open_with("hwsim");
    struct hw_capture *capture = capture_of(db);
    struct hw_capture_status status;

    (void)state;
    (void)capture_of(other);
    for (size_t i = 0; i < 4 * sizeof(emptied) / sizeof(emptied[0]); i++) {
        run_sql(db, emptied[i / 4]);
        if (i % 2 == 0)
            step(capture); /* it may look in between, or not */
        run_sql(i / 2 % 2 == 0 ? db : other, "INSERT INTO t(b) VALUES(randomblob(100))");
        step(capture);
        hw_capture_status(capture, &status);
        assert_string_equal(status.state, "running");
        (void)logged(db);
    }
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 0);
}

/* A wait for the log is for what was committed, not for what the WAL has now. */
static void a_wait_for_a_commit_that_went_into_a_gap_fails(void **state)
{
    sqlite3 *db = open_at_empty_wal();
    struct hw_capture *capture = capture_of(db);
    struct hw_capture_target target = {.is_known = false}, first = target;
    struct hw_error err = {0};
    uint64_t seq = 0;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, 'in the log')");
    hw_capture_target(capture, &first);
    (void)logged(db);
    run_sql(db, "INSERT INTO t VALUES(3, randomblob(9000))");
    hw_capture_target(capture, &target);
    assert_true(first.is_known && target.is_known);
    empty_by_stranger();
    run_sql(db, "INSERT INTO t VALUES(4, 'of the next round')");
    assert_int_equal(hw_capture_wait_target(capture, &target, 5000, &seq, &err), HW_EFORK);
    assert_non_null(strstr(err.message, "in the gap"));
    assert_int_equal(hw_capture_wait_target(capture, &first, 5000, &seq, &err), HW_OK);
    assert_int_equal(gaps(), 1);
    seq = logged(db); /* all that is there now has a place */
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The seq that is given is of the state that is seen, although the WAL is empty. */
static void the_seq_after_a_round_was_emptied_is_that_of_the_state(void **state)
{
    sqlite3 *db = open_at_empty_wal();
    uint64_t seq, wanted;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    empty_by_stranger();
    seq = logged(db);
    wanted = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 1);
    expect_restored(seq, wanted);
}

/* Likewise at durability=local, although its own round is not the one that was emptied. */
static void a_commit_that_went_into_a_gap_is_not_confirmed(void **state)
{
    sqlite3 *db = open_at_empty_wal();

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    empty_by_stranger();
    run_sql(db, "PRAGMA hyperwal_durability=local");
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES(3, 'x')", NULL, NULL, NULL),
                     SQLITE_ERROR);
    assert_int_equal(sqlite3_extended_errcode(db), HW_VFS_UNCONFIRMED);
    assert_non_null(strstr(hw_vfs_last_error(), "in the gap"));
    assert_int_equal(gaps(), 1);
    run_sql(db, "INSERT INTO t VALUES(4, 'y')"); /* this one is in the log */
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 1);
}

/*
 * A check of the state at the place where the log ends says that all is well, although a last close
 * waits for it at door 2, and has said how far it will copy.
 */
static void a_last_close_that_waits_for_a_check_makes_no_gap(void **state)
{
    sqlite3 *db = open_at_empty_wal(), *stranger;

    (void)state;
    run_sql(db, "INSERT INTO t VALUES(2, randomblob(9000))");
    (void)logged(db);
    run_sql(db, "PRAGMA wal_checkpoint(PASSIVE)");
    stranger = stranger_open();
    run_sql(stranger, "INSERT INTO t VALUES(3, randomblob(9000))"); /* a new round */
    stranger_close(stranger);
    step(capture_of(db)); /* who began this round?  The check begins. */
    step(capture_of(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 0);
}

/* So it was under load: the worker is killed, its successor checks, and the application ends. */
static void a_last_close_while_a_successor_checks_makes_no_gap(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim2", .base = sim_vfs(sim), .env = sim_env(sim)};
    struct sim_fault death = {.kind = SIM_KILL, .at = 1};
    sqlite3 *db, *worker;

    (void)state;
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    sim_set_process(sim, 2);
    worker = open_with("hwsim2");
    run_sql(worker, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    (void)logged(worker);
    sim_set_process(sim, 0);
    db = open_with("hwsim");
    run_sql(db, "BEGIN IMMEDIATE; ROLLBACK"); /* as a writer it has not to wait any more */
    sim_set_process(sim, 2);
    sim_set_fault(sim, &death);
    (void)sqlite3_close(worker); /* of one who is dead */
    sim_set_fault(sim, NULL);
    sim_kill(sim, 2);
    sim_set_process(sim, 0);
    sim_file_remove(sim, "/app.db-hyper/position"); /* it was about to be written */
    step(capture_of(db));                           /* the check begins */
    run_sql(db, "INSERT INTO t VALUES(1, 'meanwhile')");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    hw_vfs_unregister("hwsim2");
    assert_int_equal(gaps(), 0);
}

/* Somebody commits before each step of the worker. */
struct busy {
    sqlite3 *db; /* of process 2, which has the role */
    struct hw_capture *capture;
};

static void commit_and_step(void *ctx)
{
    struct busy *busy = ctx;

    sim_set_process(sim, 2);
    run_sql(busy->db, "INSERT INTO t(b) VALUES(randomblob(100))");
    step(busy->capture);
    sim_set_process(sim, 0);
}

static void requests_are_served_however_fast_others_commit(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim2", .base = sim_vfs(sim), .env = sim_env(sim)};
    struct busy busy;
    sqlite3 *db;

    (void)state;
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    sim_set_process(sim, 2);
    busy.db = open_with("hwsim2");
    run_sql(busy.db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    (void)logged(busy.db);
    busy.capture = capture_of(busy.db);
    sim_set_process(sim, 0);
    db = open_with("hwsim");
    run_sql(db, "SELECT count(*) FROM t");
    sim_set_idle(sim, commit_and_step, &busy);
    run_sql(db, "PRAGMA hyperwal_snapshot");
    run_sql(db, "PRAGMA hyperwal_label = 'here'");
    sim_set_idle(sim, NULL, NULL);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(sim, 2);
    assert_int_equal(sqlite3_close(busy.db), SQLITE_OK);
    sim_set_process(sim, 0);
    hw_vfs_unregister("hwsim2");
}

/*
 * New pages go into the WAL, the last of them once more, and all are taken back: SQLite before
 * 3.50.2 then writes the frames of the transaction without checksums.
 */
static const char *const taken_back =
    "BEGIN; UPDATE t SET b = randomblob(600) WHERE a = 3; SAVEPOINT s;"
    "WITH RECURSIVE n(i) AS (VALUES(11) UNION ALL SELECT i+1 FROM n WHERE i<40)"
    "INSERT INTO t SELECT i, randomblob(600) FROM n;"
    "UPDATE t SET b = randomblob(600) WHERE a > 32; ROLLBACK TO s; RELEASE s;"
    "UPDATE t SET b = randomblob(600) WHERE a = 5; COMMIT";

/* Does the WAL end with a commit frame that has no checksum? */
static bool ends_without_checksum(uint32_t page_size)
{
    struct hw_env *env = sim_env(sim);
    struct hw_file *wal = NULL;
    struct hw_wal_frame frame;
    uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE], salts[8] = {0};
    bool answer = false;

    assert_int_equal(env->ops->open(env, "/app.db-wal", HW_OPEN_READ, &wal, NULL), HW_OK);
    assert_int_equal(env->ops->read_at(wal, 16, salts, sizeof(salts), NULL), HW_OK);
    for (uint32_t i = 1; env->ops->read_at(wal, hw_wal_frame_offset(page_size, i), bytes,
                                           sizeof(bytes), NULL) == HW_OK;
         i++) {
        frame = hw_wal_frame_decode(bytes);
        if (frame.has_checksum && memcmp(frame.salts, salts, sizeof(salts)) != 0)
            break;
        if (frame.commit_size != 0)
            answer = !frame.has_checksum;
    }
    env->ops->close(wal);
    return answer;
}

/*
 * A database whose newest commit is such a one, after a PRAGMA of the connection that makes it;
 * NULL: this SQLite does not do it.
 */
static sqlite3 *open_with_commit_without_checksum(const char *pragma)
{
    sqlite3 *db = open_with("hwsim");

    run_sql(db, "PRAGMA page_size=1024; PRAGMA journal_mode=WAL;"
                "CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<10)"
                "INSERT INTO t SELECT i, randomblob(600) FROM n");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_with("hwsim");
    run_sql(db, pragma);
    run_sql(db, "PRAGMA cache_size=5; PRAGMA wal_autocheckpoint=0");
    run_sql(db, taken_back);
    if (ends_without_checksum(1024))
        return db;
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return NULL;
}

/* Another worker looks for the place where the log ends, and finds it by the state. */
static void a_worker_finds_its_place_by_a_frame_without_checksum(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim2", .base = sim_vfs(sim), .env = sim_env(sim)};
    sqlite3 *db = open_with_commit_without_checksum("SELECT 1"), *second;
    uint64_t seq, wanted;

    (void)state;
    if (db == NULL)
        skip();
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    (void)logged(db); /* this process has the role */
    sim_set_process(sim, 2);
    second = open_with("hwsim2");
    run_sql(second, "BEGIN IMMEDIATE; ROLLBACK"); /* as a writer it has not to wait any more */
    sim_set_process(sim, 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(sim, 2);
    run_sql(second, "INSERT INTO t(b) VALUES('after')");
    seq = logged(second);
    wanted = fingerprint_of(second);
    assert_int_equal(sqlite3_close(second), SQLITE_OK);
    sim_set_process(sim, 0);
    assert_int_equal(gaps(), 0);
    hw_vfs_unregister("hwsim2");
    expect_restored(seq, wanted);
}

/* Where SQLite keeps the wal-index to itself ours is made from the WAL, and so of such frames. */
static void a_commit_without_checksum_is_logged_in_exclusive_mode(void **state)
{
    sqlite3 *db = open_with_commit_without_checksum("PRAGMA locking_mode=exclusive");
    uint64_t seq, wanted, first;

    (void)state;
    if (db == NULL)
        skip();
    wanted = fingerprint_of(db);
    first = logged(db);
    run_sql(db, "INSERT INTO t VALUES(50, 'in the WAL after it')");
    run_sql(db, "PRAGMA wal_checkpoint(RESTART)");
    run_sql(db, "INSERT INTO t VALUES(51, 'in the next round')");
    seq = logged(db);
    assert_true(seq >= first + 2);
    assert_int_equal(gaps(), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    expect_restored(first, wanted);
    db = open_with(sim_vfs(sim)->zName);
    wanted = fingerprint_of(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    expect_restored(seq, wanted);
}

/* A log of some states, two of them in a snapshot. */
static void make_log(struct sim *machine, void *ctx)
{
    sqlite3 *db = open_with("hwsim");

    (void)machine;
    run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < 4; i++) {
        run_sql(db, "INSERT INTO t(b) VALUES(randomblob(2000))");
        *(uint64_t *)ctx = logged(db);
    }
    run_sql(db, "PRAGMA hyperwal_snapshot");
    run_sql(db, "INSERT INTO t(b) VALUES(randomblob(2000))");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void prune(struct sim *machine, void *ctx)
{
    struct hw_capture *capture = NULL;
    uint64_t freed = 0;
    sqlite3 *db = NULL;

    (void)machine;
    if (sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE, "hwsim") == SQLITE_OK &&
        sqlite3_exec(db, "SELECT count(*) FROM t", NULL, NULL, NULL) == SQLITE_OK &&
        sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture) == SQLITE_OK &&
        hw_capture_prune(capture, *(uint64_t *)ctx, false, 1000, &freed, NULL) != HW_OK)
        freed = 0; /* as it may, with a fault */
    (void)sqlite3_close(db);
}

static void check_what_is_kept(struct sim *machine, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    struct hw_env *env = sim_env(machine);

    (void)ctx;
    assert_int_equal(hw_core_open(env, "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err),
                     HW_OK);
    for (uint64_t i = hw_core_first_kept(core); i < hw_core_length(core); i++)
        assert_true(hw_core_has(core, i));
    if (hw_core_verify(core, NULL, NULL, &err) != HW_OK ||
        hw_verify_deep(env, core, NULL, NULL, &err) != HW_OK)
        fail_msg("%s", err.message);
    hw_core_close(core);
}

/* The log ends within the round of the WAL, in which there is one commit more. */
static void leave_an_unlogged_commit(struct sim *at, void *ctx)
{
    sqlite3 *db = open_with("hwsim"), *stock;

    (void)ctx;
    run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'one')");
    (void)logged(db);
    sim_set_process(at, 1);
    stock = open_with(sim_vfs(at)->zName); /* who reads keeps the round from ending */
    run_sql(stock, "PRAGMA wal_autocheckpoint=0; BEGIN; SELECT * FROM t");
    sim_set_process(at, 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_set_process(at, 1);
    run_sql(stock, "INSERT INTO t VALUES(2, 'two'); COMMIT");
    sim_kill(at, 1);
    (void)sqlite3_close(stock);
    sim_set_process(at, 0);
}

/* It may fail: check() looks at what is there. */
static void open_and_wait(struct sim *at, void *ctx)
{
    sqlite3 *db = NULL;

    (void)at;
    (void)ctx;
    if (sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE, "hwsim") == SQLITE_OK)
        (void)sqlite3_exec(db, "PRAGMA hyperwal_seq", NULL, NULL, NULL);
    (void)sqlite3_close(db);
}

static void check_no_gap(struct sim *at, void *ctx)
{
    sqlite3 *db = open_with("hwsim");

    (void)at;
    (void)ctx;
    (void)logged(db);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(gaps(), 0);
}

static void no_error_makes_a_gap_of_a_commit_that_the_wal_still_has(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_EMFILE | SIM_ENOMEM,
        .prepare = leave_an_unlogged_commit,
        .run = open_and_wait,
        .check = check_no_gap,
    };

    (void)state;
    assert_true(sim_for_each_fault(sim, &scenario) > 50);
}

static void a_log_that_was_being_pruned_verifies_after_any_end(void **state)
{
    uint64_t seq = 0;
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC,
        .prepare = make_log,
        .run = prune,
        .check = check_what_is_kept,
        .ctx = &seq,
    };

    (void)state;
    assert_true(sim_for_each_fault(sim, &scenario) > 50);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_oldest_state_that_is_kept_is_restored),
        TEST(an_adopted_state_is_not_undone_by_a_journal_that_comes_back),
        TEST(a_round_that_a_stranger_emptied_is_a_gap),
        TEST(a_state_after_a_gap_is_not_undone_by_a_journal_that_comes_back),
        TEST(a_round_that_a_stranger_emptied_and_another_that_it_began_are_a_gap),
        TEST(frames_that_a_stranger_copied_are_logged_before_the_wal_begins_anew),
        TEST(a_last_close_after_a_round_was_emptied_tells_of_the_gap),
        TEST(rounds_of_our_own_need_no_check),
        TEST(a_wait_for_a_commit_that_went_into_a_gap_fails),
        TEST(the_seq_after_a_round_was_emptied_is_that_of_the_state),
        TEST(a_commit_that_went_into_a_gap_is_not_confirmed),
        TEST(a_last_close_that_waits_for_a_check_makes_no_gap),
        TEST(a_worker_finds_its_place_by_a_frame_without_checksum),
        TEST(a_commit_without_checksum_is_logged_in_exclusive_mode),
        TEST(a_last_close_while_a_successor_checks_makes_no_gap),
        TEST(requests_are_served_however_fast_others_commit),
        TEST(no_error_makes_a_gap_of_a_commit_that_the_wal_still_has),
        TEST(a_log_that_was_being_pruned_verifies_after_any_end),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("found", tests, NULL, NULL);
}
