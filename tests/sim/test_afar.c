/*
 * Transactions that somebody else made, committed into a primary's database (vfs/afar.c).
 *
 * The other side is a copy of the database in memory: SQL changes it, and what differs is encoded.
 * What must come out is known from the copy.  Every operation of the commit is a crash, a kill or
 * an error in its turn; then what was told must be true: committed is there, refused is not, and
 * the log says by the id of the transaction which of both it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "entry/entry.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "support/other_side.h"
#include "vfs/vfs.h"

enum { WAIT_MS = 1000, PAGE_SIZE = 4096 /* SQLite's default */ };

static struct world {
    struct sim *sim;
    sqlite3 *db;
    struct transaction t;
    const char *sql;     /* what the other side does */
    unsigned touches;    /* that succeeded */
    bool keeps_wal;      /* when the database is closed before it */
    enum hw_status told; /* HW_OK: committed; HW_END: perhaps; else refused */
    struct hw_error err;
} world;

/* ----------------------------------------------------------------------------- the server */

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    world = (struct world){.sim = sim_new(0)};
    options.base = sim_vfs(world.sim);
    options.env = sim_env(world.sim);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    transaction_free(&world.t);
    sqlite3_close(world.db);
    hw_vfs_unregister("hwsim");
    assert_int_equal(sim_open_handles(world.sim), 0);
    sim_free(world.sim);
    return 0;
}

static sqlite3 *open_database(void)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    sqlite3 *db = NULL;

    if (sqlite3_open_v2("file:/app.db?vfs=hwsim", &db, flags, NULL) == SQLITE_OK)
        return db;
    sqlite3_close(db);
    return NULL;
}

static void make_database(void)
{
    world.db = open_database();
    assert_non_null(world.db);
    assert_int_equal(sqlite3_exec(world.db,
                                  "CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
                                  "CREATE TABLE n(k); INSERT INTO n VALUES(0);"
                                  "INSERT INTO t VALUES(1, zeroblob(9000)), (2, 'two')",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
}

static uint64_t length_now(sqlite3 *db)
{
    struct hw_vfs_head head;

    assert_int_equal(hw_vfs_hold(db, WAIT_MS, &head, &world.err), HW_OK);
    hw_vfs_let_go(db);
    return head.length;
}

/* As a server does it. */
static enum hw_status commit(sqlite3 *db, struct transaction *t)
{
    struct hw_vfs_head head;
    bool is_perhaps = false;
    enum hw_status status = hw_vfs_hold(db, WAIT_MS, &head, &world.err);

    t->next = 0;
    if (status != HW_OK)
        return status;
    status = hw_vfs_commit(db, &head, &t->commit, &is_perhaps, &world.err);
    hw_vfs_let_go(db);
    if (status != HW_OK)
        return is_perhaps ? HW_END : status;
    return hw_vfs_logged(db, WAIT_MS, &world.err) == HW_OK ? HW_OK : HW_END;
}

static bool changes_nothing(struct hw_cursor body)
{
    struct hw_transaction transaction;

    assert_int_equal(hw_transaction_peek(&body, PAGE_SIZE, &transaction), HW_OK);
    return transaction.sum_before == transaction.sum_after;
}

/* The next change of the database in the log at or above the base: is it this transaction? */
static bool is_in_log(const struct hw_origin *origin)
{
    struct hw_core *core = NULL;
    struct hw_buffer block = {0};
    bool is_it = false;

    assert_int_equal(
        hw_core_open(sim_env(world.sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL),
        HW_OK);
    for (uint64_t seq = hw_origin_base(origin); seq < hw_core_length(core); seq++) {
        struct hw_entry_header header;
        struct hw_cursor cursor;

        assert_int_equal(hw_core_read(core, seq, &block, NULL), HW_OK);
        cursor = hw_cursor(block.bytes, block.size);
        assert_int_equal(hw_entry_header_decode(&cursor, seq, &header), HW_OK);
        if (header.type != HW_ENTRY_TRANSACTION || changes_nothing(cursor))
            continue;
        is_it = header.has_origin &&
                memcmp(header.origin.bytes, origin->bytes, sizeof(origin->bytes)) == 0;
        break;
    }
    hw_buffer_release(&block);
    hw_core_close(core);
    return is_it;
}

static bool is_image(sqlite3 *db, const struct image *image)
{
    struct image now = image_of(db);
    bool same = now.page_count == image->page_count &&
                memcmp(now.bytes, image->bytes, (size_t)now.page_count * now.page_size) == 0;

    sqlite3_free(now.bytes);
    return same;
}

static void check_log(void)
{
    struct hw_core *core = NULL;

    assert_int_equal(
        hw_core_open(sim_env(world.sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL),
        HW_OK);
    if (hw_verify_deep(sim_env(world.sim), core, NULL, NULL, &world.err) != HW_OK)
        fail_msg("deep: %s", world.err.message);
    hw_core_close(core);
}

static void commits(const char *sql)
{
    struct transaction t;

    transaction_make(&t, world.db, sql, length_now(world.db));
    if (commit(world.db, &t) != HW_OK)
        fail_msg("%s: %s", sql, world.err.message);
    assert_true(is_image(world.db, &t.after));
    assert_true(is_in_log(&t.commit.origin));
    transaction_free(&t);
}

/* --------------------------------------------------------------------------------- tests */

static void what_somebody_else_made_is_committed_and_the_log_has_its_id(void **state)
{
    char message[256];

    (void)state;
    make_database();
    commits("UPDATE n SET k = k + 1");
    commits("INSERT INTO t VALUES(10, randomblob(100000))");
    commits("CREATE INDEX i ON t(b); DELETE FROM t WHERE a = 1");
    assert_int_equal(sqlite3_exec(world.db, "UPDATE n SET k = k + 1", NULL, NULL, NULL), SQLITE_OK);
    commits("UPDATE n SET k = k + 1");
    commits("DELETE FROM t; VACUUM"); /* shrinks it */
    commits("WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < 400) "
            "INSERT INTO t SELECT x, randomblob(4000) FROM c"); /* parts */
    check_log();
    sqlite3_close(world.db);
    world.db = NULL;
    if (!sim_integrity_ok(sim_vfs(world.sim)->zName, "/app.db", message))
        fail_msg("integrity: %s", message);
}

static void who_is_late_is_refused_and_nothing_is_seen_of_it(void **state)
{
    struct transaction t;
    struct image image;

    (void)state;
    make_database();
    transaction_make(&t, world.db, "UPDATE n SET k = 7", length_now(world.db));
    assert_int_equal(sqlite3_exec(world.db, "UPDATE t SET b = 'x' WHERE a = 2", NULL, NULL, NULL),
                     SQLITE_OK);
    image = image_of(world.db);
    assert_int_equal(commit(world.db, &t), HW_AGAIN);
    assert_true(is_image(world.db, &image));
    assert_false(is_in_log(&t.commit.origin));
    sqlite3_free(image.bytes);
    transaction_free(&t);
    /* Back to the same state by another way: the sum is the same, the history is not. */
    transaction_make(&t, world.db, "UPDATE n SET k = 7", length_now(world.db));
    assert_int_equal(sqlite3_exec(world.db, "UPDATE n SET k = 1", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(world.db, "UPDATE n SET k = 0", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(commit(world.db, &t), HW_AGAIN);
    transaction_free(&t);
}

static enum hw_status touch(sqlite3 *db)
{
    enum hw_status status;

    if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return HW_EBUSY;
    status = hw_vfs_logged(db, WAIT_MS, &world.err);
    if (status == HW_OK)
        status = hw_vfs_touch(db, &world.err);
    else
        hw_vfs_let_go(db);
    assert_int_not_equal(sqlite3_get_autocommit(db), 0);
    return status == HW_OK ? hw_vfs_logged(db, WAIT_MS, &world.err) : status;
}

static void salts_of_wal(uint8_t out[8])
{
    size_t size = 0;
    const uint8_t *bytes = sim_file_bytes(world.sim, "/app.db-wal", &size);

    assert_true(size > 24);
    memcpy(out, bytes + 16, 8);
}

static void a_commit_that_changes_nothing_is_in_nobodys_way(void **state)
{
    struct transaction t;
    uint8_t before[8], after[8];
    uint64_t length;

    (void)state;
    make_database();
    length = length_now(world.db);
    transaction_make(&t, world.db, "UPDATE n SET k = 7", length);
    salts_of_wal(before);
    assert_int_equal(touch(world.db), HW_OK);
    salts_of_wal(after);
    assert_memory_equal(before, after, 8); /* frames that are not copied stay */
    assert_true(is_image(world.db, &t.before));
    assert_true(length_now(world.db) > length);
    length = length_now(world.db);
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(world.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(touch(world.db), HW_OK);
    salts_of_wal(after);
    assert_memory_not_equal(before, after, 8);
    assert_true(is_image(world.db, &t.before));
    assert_true(length_now(world.db) > length);
    assert_int_equal(commit(world.db, &t), HW_AGAIN); /* nobody says that nothing was changed */
    t.commit.unchanged_to = length_now(world.db);
    assert_int_equal(commit(world.db, &t), HW_OK);
    assert_true(is_image(world.db, &t.after));
    assert_true(is_in_log(&t.commit.origin));
    assert_int_equal(sqlite3_exec(world.db, "UPDATE n SET k = k + 1", NULL, NULL, NULL), SQLITE_OK);
    check_log();
    transaction_free(&t);
}

/* A change to what is sent, and the commit is refused. */
static void is_refused(void (*harm)(struct transaction *t))
{
    struct transaction t;
    struct image image = image_of(world.db);

    transaction_make(&t, world.db, "INSERT INTO t VALUES(77, randomblob(9000))",
                     length_now(world.db));
    harm(&t);
    assert_int_equal(commit(world.db, &t), HW_ECORRUPT);
    assert_true(is_image(world.db, &image));
    sqlite3_free(image.bytes);
    transaction_free(&t);
}

static void another_sum(struct transaction *t)
{
    t->commit.sum_after ^= 1;
}

static void another_size(struct transaction *t)
{
    t->commit.page_count++;
}

static void a_part_twice(struct transaction *t)
{
    hw_buffer_add(&t->parts[t->count], t->parts[0].bytes, t->parts[0].size);
    t->count++;
}

static void no_parts(struct transaction *t)
{
    for (unsigned i = 0; i < t->count; i++)
        hw_buffer_release(&t->parts[i]);
    t->count = 0;
}

static void half_a_part(struct transaction *t)
{
    t->parts[0].size /= 2;
}

/* The parts are made anew after the image was harmed. */
static void with_image(struct transaction *t, size_t at, uint8_t value)
{
    no_parts(t);
    t->after.bytes[at] = value;
    encode(t);
    t->commit.sum_after = sum_of(&t->after);
}

static void out_of_wal_mode(struct transaction *t)
{
    with_image(t, 18, 1);
}

static void of_another_page_size(struct transaction *t)
{
    with_image(t, 16, 2);
}

/* Only the pages that were there. */
static void pages_missing(struct transaction *t)
{
    uint32_t page_count = t->after.page_count;

    assert_true(page_count > t->before.page_count);
    no_parts(t);
    t->page_limit = t->before.page_count;
    encode(t);
    t->commit.sum_after = t->sum_after;
}

static void what_is_no_transaction_of_this_database_is_refused(void **state)
{
    (void)state;
    make_database();
    is_refused(another_sum);
    is_refused(another_size);
    is_refused(a_part_twice);
    is_refused(no_parts);
    is_refused(half_a_part);
    is_refused(out_of_wal_mode);
    is_refused(of_another_page_size);
    is_refused(pages_missing);
    commits("UPDATE n SET k = k + 1"); /* and all is well after it */
    check_log();
}

static void the_wal_begins_anew_though_nobody_else_writes(void **state)
{
    size_t size = 0;

    (void)state;
    make_database();
    for (unsigned i = 0; i < 40; i++) {
        commits("UPDATE n SET k = k + 1; DELETE FROM t WHERE a > 99;"
                "INSERT INTO t VALUES(100, randomblob(400000))");
        assert_int_equal(
            sqlite3_wal_checkpoint_v2(world.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
            SQLITE_OK);
    }
    assert_non_null(sim_file_bytes(world.sim, "/app.db-wal", &size));
    assert_true(size < (2000U * 4120));
    check_log();
}

/* -------------------------------------------------------------------------------- faults */

static void prepare(struct sim *sim, void *ctx)
{
    (void)sim, (void)ctx;
    transaction_free(&world.t);
    make_database();
    transaction_make(&world.t, world.db, world.sql, length_now(world.db));
    if (world.keeps_wal) { /* all copied, and there: a new round may begin */
        assert_int_equal(
            sqlite3_wal_checkpoint_v2(world.db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL),
            SQLITE_OK);
        assert_int_equal(sqlite3_db_config(world.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL),
                         SQLITE_OK);
    }
    sqlite3_close(world.db);
    world.db = NULL;
}

static void run_commit(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();

    (void)sim, (void)ctx;
    world.told = HW_EIO;
    if (db == NULL)
        return;
    if (sqlite3_exec(db, "SELECT count(*) FROM t", NULL, NULL, NULL) == SQLITE_OK)
        world.told = commit(db, &world.t);
    sqlite3_close(db);
}

static void check(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();
    char message[256];
    bool is_there;

    (void)sim, (void)ctx;
    assert_non_null(db);
    (void)length_now(db); /* the log has all */
    is_there = is_image(db, &world.t.after);
    if (!is_there)
        assert_true(is_image(db, &world.t.before));
    if (world.told == HW_OK)
        assert_true(is_there);
    else if (world.told != HW_END)
        assert_false(is_there);
    assert_true(is_in_log(&world.t.commit.origin) == is_there);
    sqlite3_close(db);
    check_log();
    if (!sim_integrity_ok(sim_vfs(world.sim)->zName, "/app.db", message))
        fail_msg("integrity: %s", message);
    if (sim_violation(world.sim) != NULL)
        fail_msg("%s", sim_violation(world.sim));
}

static void run_touch(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();

    (void)sim, (void)ctx;
    if (db != NULL && sqlite3_exec(db, "SELECT count(*) FROM t", NULL, NULL, NULL) == SQLITE_OK)
        world.touches += touch(db) == HW_OK; /* or not: nothing is to be seen of it either way */
    world.told = HW_EIO;
    sqlite3_close(db);
}

static void no_fault_in_a_commit_that_changes_nothing_changes_something(void **state)
{
    struct sim_scenario scenario = {.faults =
                                        SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM,
                                    .prepare = prepare,
                                    .run = run_touch,
                                    .check = check};

    (void)state;
    world.sql = "UPDATE n SET k = k + 1"; /* which nobody does */
    assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
    assert_true(world.touches > 0);
    world.keeps_wal = true;
    world.touches = 0;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
    assert_true(world.touches > 0);
}

static void what_was_told_is_true(unsigned faults)
{
    static const char *const work[] = {
        "UPDATE n SET k = k + 1",
        "INSERT INTO t VALUES(10, randomblob(20000)); DELETE FROM t WHERE a = 1",
    };

    for (unsigned i = 0; i < 2; i++) {
        struct sim_scenario scenario = {
            .faults = faults, .prepare = prepare, .run = run_commit, .check = check};

        world.sql = work[i];
        assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
    }
}

static void a_crash_at_any_operation_makes_no_answer_untrue(void **state)
{
    (void)state;
    what_was_told_is_true(SIM_CRASH);
}

static void a_kill_at_any_operation_makes_no_answer_untrue(void **state)
{
    (void)state;
    what_was_told_is_true(SIM_KILL);
}

static void an_error_at_any_operation_makes_no_answer_untrue(void **state)
{
    (void)state;
    what_was_told_is_true(SIM_EIO | SIM_ENOSPC | SIM_ENOMEM);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_somebody_else_made_is_committed_and_the_log_has_its_id,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_late_is_refused_and_nothing_is_seen_of_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_commit_that_changes_nothing_is_in_nobodys_way, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(no_fault_in_a_commit_that_changes_nothing_changes_something,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_transaction_of_this_database_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_wal_begins_anew_though_nobody_else_writes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_crash_at_any_operation_makes_no_answer_untrue, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_kill_at_any_operation_makes_no_answer_untrue, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_error_at_any_operation_makes_no_answer_untrue, setup,
                                        teardown),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("afar", tests, NULL, NULL);
}
