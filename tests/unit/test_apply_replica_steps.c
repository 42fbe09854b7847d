/*
 * One step of a replica fails, and the follower goes on with the next one: what readers see between
 * them, and what another follower trusts later.
 */
#include "unit/replica_fixture.h"

#include <stdio.h>

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

/* ---------------------------------------------------------------------- a database that comes */

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

/* -------------------------------------------------------------- a sync that fails, and the next */

enum { STATES = 512 };

/* As stepped, with a fingerprint for each seq. */
struct synced {
    struct stepped s;
    uint64_t states[STATES];
};

/* Rows have a page each: this quarter of them is changed. */
static enum hw_status commit_and_step(struct synced *w, unsigned quarter, struct hw_error *err)
{
    char sql[80];

    (void)snprintf(sql, sizeof(sql), "UPDATE t SET b = randomblob(400) WHERE a %% 4 = %u", quarter);
    maker_commit(&w->s.m, sql);
    assert_true(w->s.m.seq < STATES);
    w->states[w->s.m.seq] = fingerprint(w->s.m.db);
    return catch_up(w->s.replica, err);
}

static void commit_many(struct synced *w, unsigned quarter, unsigned count)
{
    struct hw_error err = {0};

    for (unsigned i = 0; i < count; i++)
        assert_status(commit_and_step(w, quarter, &err), HW_END, &err);
}

/* The reader's transaction is of now: a checkpoint copies no more, and no other round begins. */
static void hold_round(struct synced *w)
{
    run_sql(w->s.reader, "BEGIN; SELECT count(*) FROM t");
}

static unsigned checkpoints_of(const struct synced *w)
{
    return (unsigned)sim_count(w->s.sim, SIM_SYNC, "-hyper/position");
}

/* What is synced at a checkpoint, in this order. */
enum { POSITION = 1, WAL, DATABASE };

/*
 * One of these syncs fails at the second checkpoint of a round.  The first one copied the quarter
 * 2, which is not changed after it; this one copies the quarter 3, which was not changed before the
 * first one, and all others if it `is_last`.
 */
static void fail_in_checkpoint(struct synced *w, unsigned which, bool is_last)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .at = which};
    struct hw_error err = {0};
    enum hw_status status = HW_END;
    unsigned before;

    stepped_open(&w->s);
    w->states[w->s.m.seq] = fingerprint(w->s.m.db);
    commit_many(w, 2, 3);
    hold_round(w);
    before = checkpoints_of(w);
    for (int i = 0; i < 100 && checkpoints_of(w) == before; i++)
        commit_many(w, 0, 1);
    commit_many(w, 3, 10);
    run_sql(w->s.reader, "COMMIT");
    if (!is_last)
        hold_round(w);
    commit_many(w, 0, 5);
    sim_set_fault(w->s.sim, &fault);
    for (int i = 0; i < 100 && status == HW_END; i++)
        status = commit_and_step(w, 0, &err);
    assert_status(status, HW_EIO, &err);
    assert_true(sim_fault_was_reached(w->s.sim));
    sim_set_fault(w->s.sim, NULL);
}

static void crash_and_reopen(struct synced *w, enum sim_crash_mode mode)
{
    struct hw_error err = {0};

    sim_crash(w->s.sim, mode);
    sqlite3_close(w->s.reader);
    hw_replica_close(w->s.replica);
    assert_status(replica_open(w->s.sim, w->s.m.core, &w->s.replica, &err), HW_OK, &err);
    w->s.reader = reader_open(w->s.sim);
}

/* What a loss of power leaves is a state of the log, and known as that. */
static void assert_survives(struct synced *w, enum sim_crash_mode mode)
{
    struct hw_error err = {0};
    uint64_t seq;

    crash_and_reopen(w, mode);
    seq = hw_replica_seq(w->s.replica);
    assert_true(seq < STATES);
    assert_true(fingerprint(w->s.reader) == w->states[seq]);
    assert_status(catch_up(w->s.replica, &err), HW_END, &err);
    assert_false(sim_log_has(w->s.sim, "event=replica_repair"));
    stepped_close(&w->s);
}

static void after_a_sync_that_failed_the_next_one_is_of_all_that_was_written_before(void **state)
{
    (void)state;
    for (unsigned which = POSITION; which <= DATABASE; which++) {
        for (unsigned mode = SIM_KEEP; mode < SIM_CRASH_MODES; mode++) {
            struct hw_error err = {0};
            struct synced w = {0};

            fail_in_checkpoint(&w, which, which == DATABASE);
            assert_status(catch_up(w.s.replica, &err), HW_END, &err);
            assert_survives(&w, (enum sim_crash_mode)mode);
        }
    }
}

static void a_follower_after_one_whose_sync_failed_trusts_no_sync_of_its_own_alone(void **state)
{
    (void)state;
    for (unsigned mode = SIM_KEEP; mode < SIM_CRASH_MODES; mode++) {
        struct hw_error err = {0};
        struct synced w = {0};

        fail_in_checkpoint(&w, WAL, false);
        sim_kill(w.s.sim, SIM_ALL_PROCESSES);
        sqlite3_close(w.s.reader);
        hw_replica_close(w.s.replica);
        assert_status(replica_open(w.s.sim, w.s.m.core, &w.s.replica, &err), HW_OK, &err);
        w.s.reader = reader_open(w.s.sim);
        hold_round(&w);
        commit_many(&w, 0, 5);
        assert_survives(&w, (enum sim_crash_mode)mode);
    }
}

/* What is read back is not what was written: the follower compares, and goes on. */
static void frames_that_are_lost_after_a_sync_that_failed_are_made_up_for(void **state)
{
    (void)state;
    for (unsigned mode = SIM_KEEP; mode < SIM_CRASH_MODES; mode++) {
        struct hw_error err = {0};
        struct synced w = {0};

        fail_in_checkpoint(&w, WAL, false);
        /* Of a page that has no frame before the first checkpoint. */
        sim_file_flip(w.s.sim, REPLICA "-wal", (size_t)hw_wal_frame_offset(512, 1010) + 100, 1);
        assert_int_equal(catch_up(w.s.replica, &err), HW_ECORRUPT);
        assert_status(catch_up(w.s.replica, &err), HW_END, &err);
        assert_true(sim_log_has(w.s.sim, "event=replica_repaired"));
        assert_replica_is_primary(w.s.sim, &w.s.m);
        run_sql(w.s.reader, "COMMIT");
        hold_round(&w);
        commit_many(&w, 0, 70); /* with the next checkpoint */
        crash_and_reopen(&w, (enum sim_crash_mode)mode);
        assert_status(catch_up(w.s.replica, &err), HW_END, &err);
        stepped_close(&w.s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_without_memory_shows_no_part_of_a_transaction_and_goes_on),
        cmocka_unit_test(a_database_that_was_made_and_not_opened_is_opened_by_the_next_step),
        cmocka_unit_test(a_database_of_another_that_comes_before_ours_is_not_touched),
        cmocka_unit_test(what_an_older_database_left_is_gone_for_good_before_a_new_one_is_there),
        cmocka_unit_test(after_a_sync_that_failed_the_next_one_is_of_all_that_was_written_before),
        cmocka_unit_test(a_follower_after_one_whose_sync_failed_trusts_no_sync_of_its_own_alone),
        cmocka_unit_test(frames_that_are_lost_after_a_sync_that_failed_are_made_up_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
