/*
 * Several hubs over a simulated disk and network, in one thread: what is cut, lost, silent, full or
 * out of memory holds up nobody for longer than it lasts, and is made up for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capture/capture.h"
#include "hypercore/keep.h"
#include "support/core_log.h"
#include "support/net_world.h"

/* -------------------------------------------------------------------------------- tests */

static void mirrors_become_whole_whatever_the_network_does(void **state)
{
    struct sim *sim = *state;
    struct net_world w;
    unsigned cuts = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        sim_reset(sim, seed);
        net_begin(&w, sim, seed);
        sim_net_set_cuts(w.net, 400 + seed * 60);
        sim_net_set_piece(w.net, 1 + (size_t)(seed * 97 % 3000));
        sim_net_set_capacity(w.net, 500 + (size_t)(seed * 1009 % 50000));
        for (unsigned i = A; i < HOSTS; i++)
            net_follow(&w, i);
        for (unsigned i = 0; i < 20; i++) {
            net_append(&w, 1 + i % 5);
            (void)net_run(&w, net_never, MS(150));
        }
        sim_net_set_cuts(w.net, 0);
        net_check_all(&w);
        cuts += sim_net_cuts(w.net);
        net_end(&w);
    }
    print_message("# %u cuts\n", cuts);
    assert_true(cuts > 100);
}

/* A clock that goes on whenever somebody looks at it: so all that a loop does takes time. */
static const struct hw_env_ops *timeless;
static uint64_t passed_ns;

static uint64_t clock_of_a_slow_machine(struct hw_env *env)
{
    passed_ns += MS(1) / 5;
    return timeless->monotonic_ns(env) + passed_ns;
}

/* Everybody costs more than is forgotten: all wait in line, and for each the turn comes. */
static void who_waits_in_line_is_served_all_the_same(void **state)
{
    struct sim *sim = *state;
    struct hw_env_ops ops;
    struct net_world w;

    for (uint64_t seed = 1; seed <= 6; seed++) {
        sim_reset(sim, seed);
        net_begin(&w, sim, seed);
        timeless = w.env->ops;
        ops = *timeless;
        ops.monotonic_ns = clock_of_a_slow_machine;
        w.env->ops = &ops;
        sim_net_set_cuts(w.net, seed % 2 == 0 ? 0 : 5000);
        sim_net_set_piece(w.net, 1 + (size_t)(seed * 997 % 30000));
        net_append(&w, 300);
        for (unsigned i = A; i < HOSTS; i++)
            net_follow(&w, i);
        for (unsigned i = 0; i < 10; i++) {
            net_append(&w, 5);
            (void)net_run(&w, net_never, MS(20));
        }
        sim_net_set_cuts(w.net, 0);
        net_check_all(&w);
        net_end(&w);
        w.env->ops = timeless;
    }
}

static void cut_at_any_byte_is_made_up_for(void **state)
{
    struct sim *sim = *state;
    struct net_world w;
    uint64_t total = 1;

    for (uint64_t at = 1; at <= total; at += 41) {
        sim_reset(sim, 5);
        net_begin(&w, sim, 5);
        sim_net_cut_after(w.net, at);
        net_follow(&w, B);
        net_check_all(&w);
        net_append(&w, 3);
        net_check_all(&w);
        if (at == 1)
            total = sim_net_bytes(w.net);
        net_end(&w);
    }
    assert_true(total > 4000);
}

static void host_that_falls_silent_holds_up_nobody(void **state)
{
    struct sim *sim = *state;
    struct net_world w;
    struct hw_hub_counts counts;

    net_begin(&w, sim, 3);
    net_follow(&w, A);
    net_follow(&w, B);
    net_check_all(&w);
    sim_net_set_silent(w.net, w.transports[A], true);
    for (unsigned i = 0; i < 200; i++) {
        net_append(&w, 10);
        assert_true(net_run(&w, net_b_is_whole, MS(1000)));
    }
    sim_set_process(w.sim, SERVER);
    hw_hub_counts(w.hubs[SERVER], &counts);
    assert_true(counts.output_bytes < 4 << 20);
    (void)net_run(&w, net_never, MS(120000)); /* it is given up */
    sim_set_process(w.sim, SERVER);
    hw_hub_counts(w.hubs[SERVER], &counts);
    assert_int_equal(counts.peers, 1);
    sim_net_set_silent(w.net, w.transports[A], false);
    net_check_all(&w); /* and comes back */
    net_end(&w);
}

static bool b_is_linked(struct net_world *w)
{
    struct hw_mirror_status status;

    sim_set_process(w->sim, B);
    hw_mirror_status(w->mirrors[B], &status);
    return status.connected == 1;
}

/* A server that lets us in and drops us, again and again, costs neither side much. */
static void source_that_drops_us_at_once_is_dialed_seldom(void **state)
{
    struct sim *sim = *state;
    struct net_world w;
    uint64_t end_ns;
    unsigned drops = 0;

    net_begin(&w, sim, 4);
    net_follow(&w, B);
    net_check_all(&w);
    end_ns = w.env->ops->monotonic_ns(w.env) + MS(60000);
    while (w.env->ops->monotonic_ns(w.env) < end_ns && net_run(&w, b_is_linked, MS(20000))) {
        sim_net_cut_host(w.net, w.transports[SERVER]);
        (void)net_run(&w, net_never, MS(10));
        drops++;
    }
    assert_in_range(drops, 5, 20);
    assert_true(net_run(&w, b_is_linked, MS(20000)));
    sim_advance(w.sim, MS(2000)); /* one that lasts is good again */
    sim_net_cut_host(w.net, w.transports[SERVER]);
    (void)net_run(&w, net_never, MS(10));
    assert_true(net_run(&w, b_is_linked, MS(200)));
    net_check_all(&w);
    net_end(&w);
}

static bool c_is_whole(struct net_world *w)
{
    return net_mirror_is_whole(w, C);
}

static bool c_knows_a_length(struct net_world *w)
{
    struct hw_mirror_status status;

    sim_set_process(w->sim, C);
    hw_mirror_status(w->mirrors[C], &status);
    return status.length > 0 && status.connected == 2;
}

/* At every moment of its catching up, by how many blocks it has. */
static void source_that_falls_silent_is_made_up_for_by_another(void **state)
{
    struct sim *sim = *state;

    for (unsigned when = 0; when < 12; when++) {
        struct net_world w;

        sim_reset(sim, 100 + when);
        net_begin(&w, sim, 100 + when);
        for (unsigned i = 0; i < 20; i++)
            net_append(&w, 50);
        net_follow(&w, A);
        net_check_all(&w);
        assert_status(net_host_open(&w, C), HW_OK, &w.err);
        assert_status(net_mirror_open_from(&w, C, SERVER), HW_OK, &w.err);
        assert_true(net_run(&w, c_knows_a_length, MS(5000)));
        (void)net_run(&w, c_is_whole, MS(2) * when);
        sim_net_set_silent(w.net, w.transports[when % 2 == 0 ? A : SERVER], true);
        assert_true(net_run(&w, c_is_whole, MS(30000)));
        net_check_blocks(&w, C);
        sim_net_set_silent(w.net, w.transports[when % 2 == 0 ? A : SERVER], false);
        net_append(&w, 5);
        net_check_all(&w);
        net_end(&w);
    }
}

/* ------------------------------------------------------------------------------- faults */

static struct net_world faulty;

static void fault_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    net_begin(&faulty, sim, 11);
    assert_status(net_host_open(&faulty, B), HW_OK, &faulty.err);
}

/* May fail at any point; what fails for a moment must be as if it had only been later. */
static void fault_run(struct sim *sim, void *ctx)
{
    (void)ctx;
    (void)sim;
    if (net_mirror_open(&faulty, B) != HW_OK)
        return;
    (void)net_run(&faulty, net_b_is_whole, MS(3000));
    if (faulty.mirrors[B] == NULL)
        return;
    sim_set_process(faulty.sim, SERVER);
    if (core_log_append(faulty.core, 5, "", &faulty.err) == HW_OK) {
        faulty.expected = hw_core_length(faulty.core);
        hw_shared_set_durable_length(faulty.page, faulty.expected);
    }
    (void)net_run(&faulty, net_b_is_whole, MS(3000));
}

static void fault_check(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    if (faulty.mirrors[B] == NULL)
        assert_status(net_mirror_open(&faulty, B), HW_OK, &faulty.err);
    net_check_all(&faulty);
    net_end(&faulty);
}

static void mirror_bears_any_failure_of_its_disk(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE,
        .path = "/b/",
        .prepare = fault_prepare,
        .run = fault_run,
        .check = fault_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

static void hubs_bear_any_failed_allocation(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_ENOMEM,
        .prepare = fault_prepare,
        .run = fault_run,
        .check = fault_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

/* The server's reading of its log fails as long as the run lasts: for seconds. */
static void server_bears_any_failure_of_its_disk(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_EMFILE,
        .operations = SIM_OPEN | SIM_READ | SIM_STAT | SIM_MAP | SIM_LIST,
        .path = "/server/",
        .prepare = fault_prepare,
        .run = fault_run,
        .check = fault_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
    scenario.for_ever = true;
    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

static void failures_that_last_are_made_up_for_when_they_end(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE,
        .path = "/b/",
        .stride = 3,
        .for_ever = true,
        .prepare = fault_prepare,
        .run = fault_run,
        .check = fault_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
    scenario.faults = SIM_ENOMEM;
    scenario.path = NULL;
    scenario.stride = 7;
    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

static int setup(void **state)
{
    *state = sim_new(0);
    return 0;
}

static int teardown(void **state)
{
    sim_free(*state);
    return 0;
}

static void make_next(struct net_world *w)
{
    struct hw_beginning begin = {.from = {.role = HW_SWITCH_CONTINUES}};
    struct hw_core *core = NULL;

    sim_set_process(w->sim, SERVER);
    assert_status(hw_core_create(w->env, "/next", &core, &w->err), HW_OK, &w->err);
    assert_status(core_log_append(core, 20, "", &w->err), HW_OK, &w->err);
    memcpy(w->key, hw_core_identity(core)->key, HW_KEY_SIZE);
    w->expected = hw_core_length(core);
    hw_core_close(core);
    assert_status(hw_keep(w->env, "/next", HW_KEEP_LOG, &w->err), HW_OK, &w->err);
    memcpy(begin.from.key, w->key, HW_KEY_SIZE);
    assert_status(hw_core_create(w->env, "/next", &core, &w->err), HW_OK, &w->err);
    assert_status(hw_capture_begin_log(core, &begin, &w->err), HW_OK, &w->err);
    hw_core_close(core);
}

static void a_kept_log_that_could_not_be_looked_for_is_found_when_somebody_asks(void **state)
{
    static const struct sim_fault kinds[] = {
        {.kind = SIM_EIO, .operations = SIM_READ | SIM_STAT, .path = "/next"},
        {.kind = SIM_ENOMEM},
    };
    struct sim *sim = *state;

    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        bool was_reached = true;

        for (uint64_t at = 1; was_reached; at++) {
            struct sim_fault fault = kinds[i];
            struct net_world w;
            enum hw_status status;

            fault.at = at;
            sim_reset(sim, at);
            net_begin(&w, sim, at);
            make_next(&w);
            sim_set_fault(sim, &fault);
            status = hw_hub_serve(w.hubs[SERVER], "y.db", "/next", &w.err);
            was_reached = sim_fault_was_reached(sim);
            sim_set_fault(sim, NULL);
            if (status != HW_OK)
                assert_status(hw_hub_serve(w.hubs[SERVER], "y.db", "/next", &w.err), HW_OK, &w.err);
            net_follow(&w, A);
            net_check_all(&w);
            net_end(&w);
        }
    }
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(mirrors_become_whole_whatever_the_network_does),
        TEST(who_waits_in_line_is_served_all_the_same),
        TEST(cut_at_any_byte_is_made_up_for),
        TEST(host_that_falls_silent_holds_up_nobody),
        TEST(source_that_falls_silent_is_made_up_for_by_another),
        TEST(source_that_drops_us_at_once_is_dialed_seldom),
        TEST(mirror_bears_any_failure_of_its_disk),
        TEST(hubs_bear_any_failed_allocation),
        TEST(server_bears_any_failure_of_its_disk),
        TEST(failures_that_last_are_made_up_for_when_they_end),
        TEST(a_kept_log_that_could_not_be_looked_for_is_found_when_somebody_asks),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
