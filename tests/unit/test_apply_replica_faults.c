/*
 * A replica on a disk that fails, fills up or loses power at every operation: readers only ever see
 * a state that the primary had, and the next follower comes to the head.
 */
#include "unit/replica_fixture.h"

enum { STEPS = 14 };

/* The primary and its log, on a machine of their own that has no faults. */
struct world {
    struct sim *log_sim;
    struct maker m;
    uint64_t states[STEPS];    /* fingerprints of the primary after each commit */
    uint64_t lengths[STEPS];   /* of the log then */
    struct hw_core *whole_log; /* opened before memory fails */
    bool reader_first;         /* a stock client comes before the next follower */
};

static void world_open(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->log_sim = sim_new(0);
    maker_open_in(&w->m, sim_env(w->log_sim), "/log", 512);
    for (int i = 0; i < STEPS; i++) {
        if (i == 11)
            maker_snapshot(&w->m);
        if (i == 0)
            maker_commit(
                &w->m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
                       "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<110)"
                       "INSERT INTO t SELECT i, randomblob(400) FROM n");
        else
            maker_commit(&w->m, i == 12 ? "DELETE FROM t WHERE a > 60; VACUUM"
                                        : "UPDATE t SET b = randomblob(400)");
        w->states[i] = fingerprint(w->m.db);
        w->lengths[i] = hw_core_length(w->m.core);
    }
}

static void world_close(struct world *w)
{
    hw_core_close(w->whole_log);
    maker_close(&w->m);
    sim_free(w->log_sim);
}

static struct hw_core *open_log(struct world *w, uint64_t length)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    assert_status(hw_core_open(sim_env(w->log_sim), "/log", HW_CORE_READ, length, &core, &err),
                  HW_OK, &err);
    return core;
}

/* Follow through transactions, a checkpoint and a new round of the WAL; any failure may come. */
static void follow(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_core *core = open_log(w, w->lengths[0]);
    struct hw_replica *replica = NULL;
    struct hw_error err;

    for (int i = 0; i < STEPS; i++) {
        assert_status(hw_core_refresh(core, w->lengths[i], &err), HW_OK, &err);
        if (replica == NULL && replica_open(sim, core, &replica, &err) != HW_OK)
            continue;
        /* After a wrong sum, which a fault can feign, the next step repairs. */
        for (int tries = 0; tries < 3 && catch_up(replica, &err) != HW_END; tries++)
            continue;
        if (i == 5) {
            hw_replica_close(replica);
            replica = NULL;
        }
    }
    hw_replica_close(replica);
    hw_core_close(core);
}

static void assert_state_was_committed(struct sim *sim, struct world *w)
{
    sqlite3 *db = reader_open(sim);
    uint64_t seen = fingerprint(db);
    bool found = false;

    for (int i = 0; i < STEPS; i++)
        found = found || w->states[i] == seen;
    assert_true(found);
    sqlite3_close(db);
}

static void check(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_core *core = open_log(w, w->lengths[STEPS - 1]);
    struct hw_replica *replica = NULL;
    struct hw_error err = {0};

    if (w->reader_first && sim_file_exists(sim, REPLICA))
        assert_state_was_committed(sim, w);
    assert_status(replica_open(sim, core, &replica, &err), HW_OK, &err);
    if (sim_file_exists(sim, REPLICA))
        assert_state_was_committed(sim, w);
    assert_status(catch_up(replica, &err), HW_END, &err);
    assert_int_equal(hw_replica_seq(replica), w->m.seq);
    assert_int_equal(hw_replica_sum(replica), w->m.sum);
    assert_replica_is_primary(sim, &w->m);
    hw_replica_close(replica);
    hw_core_close(core);
    assert_replica_is_primary(sim, &w->m);
    assert_null(sim_violation(sim));
    assert_int_equal(sim_open_handles(sim), 0);
}

/* Not at each operation, for time; all of them with HYPERWAL_EVERY=1 in the environment. */
static void each_fault(struct sim_scenario scenario, bool reader_first)
{
    struct sim *sim = sim_new(0);
    struct world w;

    world_open(&w);
    w.reader_first = reader_first;
    scenario.run = scenario.run == NULL ? follow : scenario.run;
    scenario.check = check;
    scenario.ctx = &w;
    if (getenv("HYPERWAL_EVERY") != NULL)
        scenario.stride = 1;
    assert_true(sim_for_each_fault(sim, &scenario) > 10);
    world_close(&w);
    sim_free(sim);
}

static void a_failing_disk_at_any_operation_does_no_harm(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE, .stride = 11},
               false);
}

static void a_disk_that_fails_from_some_operation_on_does_no_harm(void **state)
{
    (void)state;
    each_fault(
        (struct sim_scenario){.faults = SIM_EIO | SIM_ENOSPC, .for_ever = true, .stride = 17},
        true);
}

static void a_changed_bit_in_the_replicas_own_files_does_no_harm(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_BIT_FLIP | SIM_SHORT_READ, .path = "-hyper"},
               true);
}

static void a_kill_at_any_operation_leaves_a_state_of_the_primary(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_KILL, .stride = 7}, false);
}

static void a_kill_and_then_a_client_leave_a_state_of_the_primary(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_KILL, .stride = 11}, true);
}

static void a_loss_of_power_at_any_operation_leaves_a_state_of_the_primary(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_CRASH, .stride = 13}, false);
}

static void a_loss_of_power_and_then_a_client_leave_a_state_of_the_primary(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_CRASH, .stride = 17}, true);
}

static void prepare_whole_log(struct sim *sim, void *ctx)
{
    struct world *w = ctx;

    (void)sim;
    if (w->whole_log == NULL)
        w->whole_log = open_log(w, w->lengths[STEPS - 1]);
}

static void follow_all(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_replica *replica = NULL;
    struct hw_error err;

    if (replica_open(sim, w->whole_log, &replica, &err) != HW_OK)
        return;
    for (int tries = 0; tries < 3 && catch_up(replica, &err) != HW_END; tries++)
        continue;
    hw_replica_close(replica);
}

static void an_allocation_that_fails_does_no_harm(void **state)
{
    (void)state;
    each_fault((struct sim_scenario){.faults = SIM_ENOMEM,
                                     .prepare = prepare_whole_log,
                                     .run = follow_all},
               false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_disk_at_any_operation_does_no_harm),
        cmocka_unit_test(a_disk_that_fails_from_some_operation_on_does_no_harm),
        cmocka_unit_test(a_changed_bit_in_the_replicas_own_files_does_no_harm),
        cmocka_unit_test(a_kill_at_any_operation_leaves_a_state_of_the_primary),
        cmocka_unit_test(a_kill_and_then_a_client_leave_a_state_of_the_primary),
        cmocka_unit_test(a_loss_of_power_at_any_operation_leaves_a_state_of_the_primary),
        cmocka_unit_test(a_loss_of_power_and_then_a_client_leave_a_state_of_the_primary),
        cmocka_unit_test(an_allocation_that_fails_does_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
