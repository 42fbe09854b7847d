/*
 * One step of a replica fails, and the follower goes on with the next one: what readers see between
 * them, and what another follower trusts later.
 */
#include "unit/replica_fixture.h"

struct stepped {
    struct sim *sim;
    struct maker m;
    struct hw_replica *replica;
    sqlite3 *reader;
};

static void stepped_open(struct stepped *s)
{
    struct hw_error err = {0};

    s->sim = sim_new(0);
    maker_open(&s->m, 512);
    maker_commit(&s->m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
                        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<40)"
                        "INSERT INTO t SELECT i, randomblob(400) FROM n");
    assert_status(replica_open(s->sim, s->m.core, &s->replica, &err), HW_OK, &err);
    s->reader = reader_open(s->sim);
}

static void stepped_close(struct stepped *s)
{
    sqlite3_close(s->reader);
    hw_replica_close(s->replica);
    assert_replica_is_primary(s->sim, &s->m);
    assert_null(sim_violation(s->sim));
    assert_int_equal(sim_open_handles(s->sim), 0);
    maker_close(&s->m);
    sim_free(s->sim);
}

/*
 * Pages of a batch take memory as they come: the second transaction, of `block_pages` a block,
 * needs more than the first one left.  The n-th allocation fails; false: there is no n-th one.
 */
static bool run_short_of_memory(size_t block_pages, bool label_first, uint64_t n)
{
    struct sim_fault fault = {.kind = SIM_ENOMEM, .at = n};
    struct stepped s;
    struct hw_error err = {0};
    enum hw_status status = HW_OK;
    uint64_t states[3], seen;
    bool was_reached;

    stepped_open(&s);
    states[0] = fingerprint(s.m.db);
    if (label_first)
        maker_label(&s.m, "no page");
    else
        maker_commit(&s.m, "UPDATE t SET b = randomblob(400) WHERE a < 4");
    states[1] = fingerprint(s.m.db);
    s.m.block_pages = block_pages;
    maker_commit(&s.m, "UPDATE t SET b = randomblob(400)");
    states[2] = fingerprint(s.m.db);
    sim_set_fault(s.sim, &fault);
    for (int steps = 0; steps < 6 && status != HW_END; steps++) {
        status = hw_replica_step(s.replica, &err);
        seen = fingerprint(s.reader);
        assert_true(seen == states[0] || seen == states[1] || seen == states[2]);
    }
    was_reached = sim_fault_was_reached(s.sim);
    sim_set_fault(s.sim, NULL);
    assert_int_equal(hw_replica_seq(s.replica), s.m.seq);
    assert_false(sim_log_has(s.sim, "event=replica_repair"));
    stepped_close(&s);
    return was_reached;
}

static void a_batch_without_memory_shows_no_part_of_a_transaction_and_goes_on(void **state)
{
    (void)state;
    for (size_t block_pages = 0; block_pages <= 20; block_pages += 20) {
        uint64_t n = 1;

        while (run_short_of_memory(block_pages, false, n))
            n++;
        assert_true(n > 2);
        for (n = 1; run_short_of_memory(block_pages, true, n); n++)
            continue;
        assert_true(n > 2);
    }
}

/* ----------------------------------------------------------------------- a database that comes */

/* The log is in a gap when the follower begins, and has a snapshot after it later. */
static void begin_in_a_gap(struct stepped *s)
{
    struct hw_error err = {0};

    s->sim = sim_new(0);
    maker_open(&s->m, 512);
    maker_commit(&s->m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)");
    maker_snapshot(&s->m);
    run_sql(s->m.db, "INSERT INTO t(b) VALUES(randomblob(2000))");
    maker_gap(&s->m);
    maker_commit(&s->m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    assert_status(replica_open(s->sim, s->m.core, &s->replica, &err), HW_OK, &err);
    assert_int_equal(hw_replica_seq(s->replica), UINT64_MAX);
    assert_false(sim_file_exists(s->sim, REPLICA));
    maker_snapshot(&s->m);
}

/* The n-th operation of the step that makes the database fails; false: there is no n-th one. */
static bool make_with_failure(enum sim_fault_kind kind, uint64_t n)
{
    struct sim_fault fault = {.kind = kind, .at = n};
    struct stepped s = {0};
    struct hw_error err = {0};
    enum hw_status status;
    bool was_reached;

    begin_in_a_gap(&s);
    sim_set_fault(s.sim, &fault);
    status = hw_replica_step(s.replica, &err);
    was_reached = sim_fault_was_reached(s.sim);
    sim_set_fault(s.sim, NULL);
    assert_true(status == HW_OK || was_reached);
    if (sim_file_exists(s.sim, REPLICA)) {
        s.reader = reader_open(s.sim);
        assert_int_equal(fingerprint(s.reader), fingerprint(s.m.db));
    }
    maker_commit(&s.m, "CREATE TABLE u(a)");
    assert_status(catch_up(s.replica, &err), HW_END, &err);
    assert_int_equal(hw_replica_seq(s.replica), s.m.seq);
    if (s.reader != NULL)
        assert_int_equal(fingerprint(s.reader), fingerprint(s.m.db));
    stepped_close(&s);
    return was_reached;
}

static void a_database_that_was_made_and_not_opened_is_opened_by_the_next_step(void **state)
{
    static const enum sim_fault_kind kinds[] = {SIM_EIO, SIM_ENOSPC, SIM_EMFILE, SIM_ENOMEM};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        uint64_t n = 1;

        while (make_with_failure(kinds[i], n))
            n++;
        assert_true(n > 5);
    }
}

static void a_database_of_another_that_comes_before_ours_is_not_touched(void **state)
{
    struct stepped s = {0};
    struct hw_error err = {0};
    sqlite3 *other = NULL;
    uint64_t seen;

    (void)state;
    begin_in_a_gap(&s);
    assert_int_equal(sqlite3_open_v2(REPLICA, &other, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(s.sim)->zName),
                     SQLITE_OK);
    run_sql(other, "PRAGMA journal_mode=WAL; CREATE TABLE mine(a); INSERT INTO mine VALUES(5)");
    seen = fingerprint(other);
    for (int i = 0; i < 3; i++)
        assert_int_equal(hw_replica_step(s.replica, &err), HW_EEXIST);
    assert_true(sim_file_exists(s.sim, REPLICA "-wal"));
    s.reader = reader_open(s.sim);
    assert_int_equal(fingerprint(s.reader), seen);
    sqlite3_close(s.reader);
    sqlite3_close(other);
    sim_file_remove(s.sim, REPLICA);
    assert_status(catch_up(s.replica, &err), HW_END, &err);
    s.reader = reader_open(s.sim);
    stepped_close(&s);
}

/* A stale WAL that comes back beside the new file would show the old database. */
static void what_an_older_database_left_is_gone_for_good_before_a_new_one_is_there(void **state)
{
    static const char *const leftovers[] = {REPLICA "-wal", REPLICA "-journal"};
    struct sim_fault fault = {
        .kind = SIM_CRASH, .operations = SIM_RENAME, .path = REPLICA, .at = 1, .for_ever = true};
    struct stepped s = {0};
    struct hw_error err = {0};

    (void)state;
    begin_in_a_gap(&s);
    for (size_t i = 0; i < sizeof(leftovers) / sizeof(*leftovers); i++)
        sim_file_put(s.sim, leftovers[i], "stale", 5);
    sim_set_fault(s.sim, &fault);
    assert_int_equal(hw_replica_step(s.replica, &err), HW_EIO);
    sim_set_fault(s.sim, NULL);
    assert_true(sim_has_crashed(s.sim));
    sim_crash(s.sim, SIM_DROP);
    for (size_t i = 0; i < sizeof(leftovers) / sizeof(*leftovers); i++)
        assert_false(sim_file_exists(s.sim, leftovers[i]));
    hw_replica_close(s.replica);
    assert_status(replica_open(s.sim, s.m.core, &s.replica, &err), HW_OK, &err);
    assert_status(catch_up(s.replica, &err), HW_END, &err);
    stepped_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_without_memory_shows_no_part_of_a_transaction_and_goes_on),
        cmocka_unit_test(a_database_that_was_made_and_not_opened_is_opened_by_the_next_step),
        cmocka_unit_test(a_database_of_another_that_comes_before_ours_is_not_touched),
        cmocka_unit_test(what_an_older_database_left_is_gone_for_good_before_a_new_one_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
