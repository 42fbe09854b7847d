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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_without_memory_shows_no_part_of_a_transaction_and_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
