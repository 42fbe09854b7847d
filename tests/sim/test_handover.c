/*
 * A log is handed over, on a disk that fails at each operation in turn.  Afterwards it ended or it
 * did not, by its own word: if it did, nobody writes any more, and the database is in the state
 * that went over, with every commit that was acknowledged; if it did not, the primary goes on.
 * Whoever was told that it was handed over can rely on that.
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
#include "env/shared_page.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

#define DIR "/app.db-hyper"

static struct world {
    struct sim *sim;
    int acknowledged; /* commits that SQLite said are done */
    bool was_handed;  /* whoever asked was told so */
    uint64_t seq;     /* of the switch, if he was */
    uint8_t key[32];
} world;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    world = (struct world){.sim = sim_new(0)};
    memset(world.key, 0x5e, sizeof(world.key));
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

    if (sqlite3_open_v2("file:/app.db?vfs=hwsim", &db, flags, NULL) != SQLITE_OK) {
        (void)sqlite3_close(db);
        return NULL;
    }
    (void)sqlite3_exec(db, "PRAGMA synchronous=FULL", NULL, NULL, NULL);
    return db;
}

static int run_sql(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    return capture;
}

/* Ask, and do the worker's steps until there is an answer, or no step helps any more. */
static enum hw_status hand_over(sqlite3 *db, const uint8_t key[32], uint64_t *seq,
                                struct hw_error *err)
{
    struct hw_capture *capture = capture_of(db);
    struct hw_shared_page *page = NULL;
    uint64_t mail = 0;
    enum hw_status status;

    if (capture == NULL)
        return HW_EMISUSE;
    status = hw_shared_page_open(sim_env(world.sim), DIR, false, &page, err);
    if (status == HW_OK)
        status = hw_handover_post(page, key, 1000, &mail, err);
    for (int i = 0; status == HW_OK && i < 400; i++) {
        uint64_t next;

        (void)!hw_capture_step(capture, &next, NULL);
        status = hw_handover_collect(page, mail, seq, err);
        if (status != HW_AGAIN)
            break;
        sim_advance(world.sim, 10000000);
        status = i == 399 ? HW_AGAIN : HW_OK;
    }
    if (status == HW_AGAIN)
        hw_mailbox_cancel(page, mail);
    hw_shared_page_close(page);
    return status;
}

static void run(struct sim *sim, void *ctx)
{
    static const char *const work[] = {
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        "INSERT INTO t VALUES(1, randomblob(5000))",
        "INSERT INTO t VALUES(2, randomblob(300))",
    };
    struct hw_error err = {0};
    sqlite3 *db = open_database();

    (void)sim;
    (void)ctx;
    world.acknowledged = 0;
    world.was_handed = false;
    if (db == NULL)
        return;
    for (size_t i = 0; i < sizeof(work) / sizeof(work[0]) && run_sql(db, work[i]) == SQLITE_OK; i++)
        world.acknowledged += i > 0; /* the first one goes through a rollback journal */
    world.was_handed = hand_over(db, world.key, &world.seq, &err) == HW_OK;
    if (run_sql(db, "INSERT INTO t VALUES(3, 'after')") == SQLITE_OK) {
        world.acknowledged++;
        if (world.was_handed)
            world.acknowledged = 1000; /* which no check lets through */
    }
    (void)sqlite3_close(db);
}

static int rows_of(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    int rows = 0;

    if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        rows = sqlite3_column_int(statement, 0);
    if (rows == 0 && world.acknowledged > 0)
        fail_msg("%d commits were acknowledged: %s", world.acknowledged, sqlite3_errmsg(db));
    (void)sqlite3_finalize(statement);
    return rows;
}

/* The log by its own word, and its newest state. */
static bool has_ended(struct hw_switch *out, uint64_t *length)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    bool ended = false;

    *length = 0;
    if (hw_core_open(sim_env(world.sim), DIR, HW_CORE_READ, UINT64_MAX, &core, &err) != HW_OK)
        return false;
    *length = hw_core_length(core);
    if (*length > 0)
        ended = hw_switch_read(core, *length - 1, out, NULL) == HW_OK;
    if (*length > 0 && hw_verify_deep(sim_env(world.sim), core, NULL, NULL, &err) != HW_OK)
        fail_msg("deep: %s", err.message);
    hw_core_close(core);
    return ended;
}

static void check_ended(const struct hw_switch *last, uint64_t length)
{
    uint64_t again = 0, sum = 0;
    uint32_t page_size, page_count;
    struct hw_error err = {0};
    uint8_t other[32] = {1};
    sqlite3 *db = open_database();

    assert_non_null(db);
    assert_memory_equal(last->key, world.key, sizeof(world.key));
    assert_true(rows_of(db) >= world.acknowledged);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(9, 'too late')"), SQLITE_READONLY);
    assert_int_equal(hand_over(db, world.key, &again, &err), HW_OK); /* he may not have heard it */
    assert_int_equal(again, length - 1);
    assert_int_equal(hand_over(db, other, &again, &err), HW_EREADONLY);
    (void)sqlite3_close(db);
    assert_int_equal(
        hw_database_sum(sim_vfs(world.sim), "/app.db", &page_size, &page_count, &sum, &err), HW_OK);
    assert_true(sum == last->sum && page_count == last->page_count);
}

static void check_goes_on(void)
{
    struct hw_error err = {0};
    uint64_t seq;
    sqlite3 *db = open_database();

    assert_non_null(db);
    assert_true(rows_of(db) >= world.acknowledged);
    assert_int_equal(run_sql(db, "CREATE TABLE IF NOT EXISTS u(a); INSERT INTO u VALUES(1)"),
                     SQLITE_OK);
    assert_int_equal(hw_capture_wait_logged(capture_of(db), 5000, &seq, &err), HW_OK);
    (void)sqlite3_close(db);
}

static void check(struct sim *sim, void *ctx)
{
    struct hw_switch last = {.fork = 0};
    uint64_t length;
    bool ended;

    (void)ctx;
    assert_int_equal(hw_capture_count(), 0);
    ended = has_ended(&last, &length);
    assert_true(ended || !world.was_handed);
    if (world.was_handed)
        assert_int_equal(world.seq, length - 1);
    if (!ended) {
        check_goes_on();
        ended = has_ended(&last, &length); /* what a worker that died was asked the next one does */
    }
    if (ended)
        check_ended(&last, length);
    assert_null(sim_violation(sim));
}

static void handed_over_it_stays_so(void **state)
{
    (void)state;
    run(world.sim, NULL);
    assert_int_equal(world.acknowledged, 2);
    assert_true(world.was_handed);
    check(world.sim, NULL);
}

static void each_fault(unsigned faults)
{
    struct sim_scenario scenario = {.faults = faults, .run = run, .check = check};

    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

static void crash_at_any_operation_leaves_one_of_the_two(void **state)
{
    (void)state;
    each_fault(SIM_CRASH);
}

static void kill_at_any_operation_leaves_one_of_the_two(void **state)
{
    (void)state;
    each_fault(SIM_KILL);
}

static void error_at_any_operation_leaves_one_of_the_two(void **state)
{
    (void)state;
    each_fault(SIM_EIO | SIM_ENOSPC);
}

static void transaction_that_does_not_end_keeps_the_log(void **state)
{
    struct hw_error err = {0};
    uint64_t seq;
    sqlite3 *db, *writer;

    (void)state;
    db = open_database();
    writer = open_database();
    assert_int_equal(run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), SQLITE_OK);
    assert_int_equal(run_sql(writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1)"), SQLITE_OK);
    assert_int_equal(hand_over(db, world.key, &seq, &err), HW_ETIMEOUT);
    assert_non_null(strstr(err.message, "stays the primary"));
    assert_int_equal(run_sql(writer, "COMMIT"), SQLITE_OK);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(2, 2)"), SQLITE_OK);
    assert_int_equal(hand_over(db, world.key, &seq, &err), HW_OK);
    assert_int_equal(run_sql(writer, "INSERT INTO t VALUES(3, 3)"), SQLITE_READONLY);
    (void)sqlite3_close(writer);
    (void)sqlite3_close(db);
    world.acknowledged = 2;
    world.was_handed = true;
    world.seq = seq;
    check(world.sim, NULL);
}

static uint64_t shared_length(void)
{
    struct hw_shared_page *page = NULL;
    uint64_t length;

    assert_int_equal(hw_shared_page_open(sim_env(world.sim), DIR, false, &page, NULL), HW_OK);
    length = hw_shared_durable_length(page);
    hw_shared_page_close(page);
    return length;
}

/* Two commits, logged, and a program without the VFS that has the database open, too. */
static sqlite3 *begin(sqlite3 **stock)
{
    sqlite3 *db = open_database();
    uint64_t seq;

    assert_non_null(db);
    assert_int_equal(run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), SQLITE_OK);
    sim_set_process(world.sim, 1);
    assert_int_equal(
        sqlite3_open_v2("/app.db", stock, SQLITE_OPEN_READWRITE, sim_vfs(world.sim)->zName),
        SQLITE_OK);
    assert_int_equal(run_sql(*stock, "INSERT INTO t VALUES(1, 1)"), SQLITE_OK);
    sim_set_process(world.sim, 0);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(2, 2)"), SQLITE_OK);
    assert_int_equal(hw_capture_wait_logged(capture_of(db), 1000, &seq, NULL), HW_OK);
    return db;
}

static void end(sqlite3 *db, sqlite3 *stock)
{
    sim_set_process(world.sim, 1);
    assert_int_equal(sqlite3_close(stock), SQLITE_OK);
    sim_set_process(world.sim, 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    world.acknowledged = 2;
}

static void switch_that_is_found_again_is_seen_by_all_and_nobody_writes_meanwhile(void **state)
{
    struct sim_fault failing = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = DIR "/", .at = 1};
    struct hw_error err = {0};
    sqlite3 *stock = NULL, *db = begin(&stock);
    uint64_t seq, deadline;

    (void)state;
    sim_set_fault(world.sim, &failing);
    assert_int_equal(hand_over(db, world.key, &seq, &err), HW_EIO);
    assert_true(sim_fault_was_reached(world.sim));
    sim_set_fault(world.sim, NULL);
    for (int i = 0; i < 20; i++) {
        sim_set_process(world.sim, 1);
        assert_int_equal(run_sql(stock, "INSERT INTO t VALUES(3, 3)"), SQLITE_BUSY);
        sim_set_process(world.sim, 0);
        (void)!hw_capture_step(capture_of(db), &deadline, NULL); /* the log is read again */
        sim_advance(world.sim, 100000000);
    }
    assert_int_equal(hand_over(db, world.key, &seq, &err), HW_OK);
    assert_int_equal(shared_length(), seq + 1);
    end(db, stock);
    world.was_handed = true;
    world.seq = seq;
    check(world.sim, NULL);
}

static void switch_is_found_again_though_readers_went_and_came(void **state)
{
    struct sim_fault failing = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = DIR "/", .at = 1};
    struct hw_error err = {0};
    sqlite3 *stock = NULL, *db = begin(&stock), *other = NULL;
    uint64_t seq, deadline;
    int code = SQLITE_BUSY;

    (void)state;
    assert_int_equal(sqlite3_open_v2("/app.db", &other, SQLITE_OPEN_READWRITE, "hwsim"), SQLITE_OK);
    sim_set_process(world.sim, 1);
    assert_int_equal(sqlite3_close(stock), SQLITE_OK);
    sim_set_process(world.sim, 0);
    assert_int_equal(run_sql(db, "PRAGMA hyperwal_snapshot"), SQLITE_OK); /* and none is due */
    sim_set_fault(world.sim, &failing);
    assert_int_equal(hand_over(db, world.key, &seq, &err), HW_EIO);
    sim_set_fault(world.sim, NULL);
    assert_int_equal(sqlite3_close(db), SQLITE_OK); /* the last that has read */
    assert_int_equal(rows_of(other), 2);
    for (int i = 0; i < 20 && code == SQLITE_BUSY; i++) {
        code = run_sql(other, "INSERT INTO t VALUES(3, 3)");
        (void)!hw_capture_step(capture_of(other), &deadline, NULL); /* the log is read again */
        sim_advance(world.sim, 100000000);
    }
    assert_int_equal(code, SQLITE_READONLY);
    assert_int_equal(hand_over(other, world.key, &seq, &err), HW_OK);
    assert_int_equal(shared_length(), seq + 1);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    world.acknowledged = 2;
    world.was_handed = true;
    world.seq = seq;
    check(world.sim, NULL);
}

static void writers_go_on_if_the_log_cannot_be_written_while_it_is_handed_over(void **state)
{
    struct sim_fault full = {.kind = SIM_ENOSPC,
                             .operations = SIM_WRITE | SIM_ALLOCATE,
                             .path = DIR "/",
                             .at = 1,
                             .for_ever = true};
    struct hw_shared_page *page = NULL;
    struct hw_error err = {0};
    sqlite3 *stock = NULL, *db = begin(&stock);
    uint64_t seq, deadline, mail;

    (void)state;
    assert_int_equal(hw_shared_page_open(sim_env(world.sim), DIR, false, &page, NULL), HW_OK);
    assert_int_equal(hw_handover_post(page, world.key, 60000, &mail, NULL), HW_OK);
    while (hw_shared_handover(page) == HW_HANDOVER_NONE)
        assert_int_equal(hw_capture_step(capture_of(db), &deadline, NULL), HW_OK);
    sim_set_process(world.sim, 1);
    assert_int_equal(run_sql(stock, "INSERT INTO t VALUES(3, 3)"), SQLITE_OK); /* just in time */
    sim_set_process(world.sim, 0);
    sim_set_fault(world.sim, &full);
    for (int i = 0; i < 5; i++)
        (void)!hw_capture_step(capture_of(db), &deadline, NULL); /* the commit cannot be logged */
    assert_true(sim_fault_was_reached(world.sim));
    assert_int_equal(hw_handover_collect(page, mail, &seq, &err), HW_ENOSPC);
    hw_shared_page_close(page);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(4, 4)"), SQLITE_OK);
    sim_set_process(world.sim, 1);
    assert_int_equal(run_sql(stock, "INSERT INTO t VALUES(5, 5)"), SQLITE_OK);
    sim_set_process(world.sim, 0);
    sim_set_fault(world.sim, NULL);
    end(db, stock);
    world.acknowledged = 5;
    check(world.sim, NULL);
}

static void ended_log_that_could_not_be_used_at_first_is_answered_for_later(void **state)
{
    struct sim_fault failing = {
        .kind = SIM_EIO, .operations = SIM_OPEN, .path = DIR "/peers", .at = 1};
    struct hw_error err = {0};
    uint64_t length = 0;
    sqlite3 *db;

    (void)state;
    run(world.sim, NULL);
    assert_true(world.was_handed);
    sim_crash(world.sim, SIM_KEEP); /* so that nothing is known of its length */
    sim_set_fault(world.sim, &failing);
    db = open_database();
    assert_non_null(db);
    assert_true(sim_fault_was_reached(world.sim));
    assert_true(rows_of(db) >= world.acknowledged);
    assert_int_equal(hand_over(db, world.key, &length, &err), HW_OK);
    sim_set_fault(world.sim, NULL);
    assert_int_equal(length, world.seq);
    assert_int_equal(shared_length(), world.seq + 1);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void steps(sqlite3 *db, int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t next;

        (void)!hw_capture_step(capture_of(db), &next, NULL);
        sim_advance(world.sim, 10000000);
    }
}

static void post(struct hw_shared_page **page, uint64_t *mail)
{
    assert_int_equal(hw_shared_page_open(sim_env(world.sim), DIR, false, page, NULL), HW_OK);
    assert_int_equal(hw_handover_post(*page, world.key, 1000, mail, NULL), HW_OK);
}

/* Whoever asked is killed, and the database is opened much later. */
static void request_that_nobody_waits_for_is_not_done(void **state)
{
    struct hw_shared_page *page = NULL;
    struct hw_switch last;
    uint64_t mail, length;
    sqlite3 *db;

    (void)state;
    db = open_database();
    assert_int_equal(run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), SQLITE_OK);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(1, 1)"), SQLITE_OK);
    steps(db, 20);
    post(&page, &mail);
    sim_advance(world.sim, 3000000000);
    steps(db, 20);
    assert_int_equal(hw_mailbox_posted(page), 0);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(2, 2)"), SQLITE_OK);
    hw_shared_page_close(page);
    (void)sqlite3_close(db);
    assert_false(has_ended(&last, &length));
    world.acknowledged = 2;
    check(world.sim, NULL);
}

static void who_gives_up_keeps_the_log(void **state)
{
    struct hw_shared_page *page = NULL;
    struct hw_switch last;
    uint64_t mail, length;
    sqlite3 *db, *writer;

    (void)state;
    db = open_database();
    writer = open_database();
    assert_int_equal(run_sql(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)"), SQLITE_OK);
    steps(db, 20);
    assert_int_equal(run_sql(writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 1)"), SQLITE_OK);
    post(&page, &mail);
    steps(db, 10);
    assert_int_equal(hw_shared_handover(page), HW_HANDOVER_CLOSING);
    hw_mailbox_cancel(page, mail);
    steps(db, 1);
    assert_int_equal(hw_shared_handover(page), HW_HANDOVER_NONE);
    assert_int_equal(run_sql(writer, "COMMIT"), SQLITE_OK);
    steps(db, 10);
    assert_int_equal(run_sql(db, "INSERT INTO t VALUES(2, 2)"), SQLITE_OK);
    hw_shared_page_close(page);
    (void)sqlite3_close(writer);
    (void)sqlite3_close(db);
    assert_false(has_ended(&last, &length));
    world.acknowledged = 2;
    check(world.sim, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(handed_over_it_stays_so, setup, teardown),
        cmocka_unit_test_setup_teardown(transaction_that_does_not_end_keeps_the_log, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            switch_that_is_found_again_is_seen_by_all_and_nobody_writes_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(switch_is_found_again_though_readers_went_and_came, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            writers_go_on_if_the_log_cannot_be_written_while_it_is_handed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(
            ended_log_that_could_not_be_used_at_first_is_answered_for_later, setup, teardown),
        cmocka_unit_test_setup_teardown(request_that_nobody_waits_for_is_not_done, setup, teardown),
        cmocka_unit_test_setup_teardown(who_gives_up_keeps_the_log, setup, teardown),
        cmocka_unit_test_setup_teardown(crash_at_any_operation_leaves_one_of_the_two, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(kill_at_any_operation_leaves_one_of_the_two, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(error_at_any_operation_leaves_one_of_the_two, setup,
                                        teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
