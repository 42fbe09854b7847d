/*
 * Several hubs over a simulated disk and network, in one thread: what is cut, lost, silent, full or
 * out of memory holds up nobody for longer than it lasts, and is made up for.
 *
 *     server ──▶ a ──▶ c        a serves what it mirrors
 *        └─────▶ b
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
#include "env/shared_page.h"
#include "hypercore/keep.h"
#include "hypercore/mirror.h"
#include "node/hub.h"
#include "sim/sim.h"
#include "sim/sim_net.h"
#include "support/core_log.h"

enum { SERVER, A, B, C, HOSTS };
enum { STEPS_MAX = 2000000 };
#define MS(n)    ((uint64_t)(n)*1000000)
#define LIMIT_NS MS(600000) /* of simulated time */

struct world {
    struct sim *sim;
    struct hw_env *env;
    struct sim_net *net;
    struct hw_transport *transports[HOSTS]; /* moved to the hubs */
    struct hw_hub *hubs[HOSTS];
    struct hw_mirror *mirrors[HOSTS];
    struct hw_core *core; /* the server's log, open for writing */
    struct hw_shared_page *page;
    uint8_t key[HW_KEY_SIZE];
    uint64_t expected; /* its length */
    struct hw_error err;
};

static const char *const names[HOSTS] = {"server", "a", "b", "c"};
static const unsigned sources[HOSTS] = {SERVER, SERVER, SERVER, A};

static void dir_of(unsigned host, char out[32])
{
    (void)snprintf(out, 32, "/%s", names[host]);
}

/* -------------------------------------------------------------------------------- begin */

static enum hw_status host_open(struct world *w, unsigned host)
{
    struct hw_hub_options options = {.env = w->env};
    char url[64], bound[HW_URL_MAX], dir[32];
    enum hw_status status;

    sim_set_process(w->sim, host);
    hw_identity_random(w->env, &options.identity);
    w->transports[host] = options.transport = sim_net_host(w->net, names[host]);
    status = hw_hub_open(&options, &w->hubs[host], &w->err);
    if (status != HW_OK) {
        options.transport->ops->free(options.transport);
        return status;
    }
    (void)snprintf(url, sizeof(url), "tcp://%s:1", names[host]);
    dir_of(host, dir);
    status = hw_hub_allow(w->hubs[host], HW_RIGHT_READ, "*", NULL, &w->err);
    if (status == HW_OK)
        status = hw_hub_listen(w->hubs[host], url, bound, &w->err);
    return status;
}

static void source_of(struct world *w, unsigned host, struct hw_address *out)
{
    *out = (struct hw_address){.has_key = true};
    (void)snprintf(out->dial, sizeof(out->dial), "tcp://%s:1", names[host]);
    memcpy(out->key, w->key, HW_KEY_SIZE);
}

/* From its source, and `second` too if that is another host. */
static enum hw_status mirror_open_from(struct world *w, unsigned host, unsigned second)
{
    struct hw_address from[2];
    char dir[32];
    struct hw_mirror_options options = {.dir = dir, .sources = from, .source_count = 1};
    enum hw_status status;

    sim_set_process(w->sim, host);
    dir_of(host, dir);
    source_of(w, sources[host], &from[0]);
    source_of(w, second, &from[1]);
    if (second != sources[host])
        options.source_count = 2;
    memcpy(options.key, w->key, HW_KEY_SIZE);
    options.replica_id[0] = (uint8_t)host;
    status = hw_hub_mirror_open(w->hubs[host], &options, &w->mirrors[host], &w->err);
    if (status != HW_OK)
        return status;
    hw_mirror_want_tail(w->mirrors[host], 0);
    return hw_hub_serve(w->hubs[host], "x.db", dir, &w->err);
}

static enum hw_status mirror_open(struct world *w, unsigned host)
{
    return mirror_open_from(w, host, sources[host]);
}

static void append(struct world *w, unsigned count)
{
    sim_set_process(w->sim, SERVER);
    assert_status(core_log_append(w->core, count, "", &w->err), HW_OK, &w->err);
    w->expected = hw_core_length(w->core);
    hw_shared_set_durable_length(w->page, w->expected);
}

/* The log and its server, no fault about. */
static void begin(struct world *w, struct sim *sim, uint64_t seed)
{
    *w = (struct world){.sim = sim, .env = sim_env(sim)};
    w->net = sim_net_new(w->env, seed);
    sim_net_set_delay(w->net, MS(1) / 10, MS(2));
    sim_set_process(sim, SERVER);
    assert_status(hw_core_create(w->env, "/server", &w->core, &w->err), HW_OK, &w->err);
    assert_status(hw_shared_page_open(w->env, "/server", true, &w->page, &w->err), HW_OK, &w->err);
    hw_shared_set_worker(w->page, 1);
    memcpy(w->key, hw_core_identity(w->core)->key, HW_KEY_SIZE);
    append(w, 30);
    assert_status(host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
}

static void follow(struct world *w, unsigned host)
{
    assert_status(host_open(w, host), HW_OK, &w->err);
    assert_status(mirror_open(w, host), HW_OK, &w->err);
}

static void end(struct world *w)
{
    for (unsigned i = HOSTS; i-- > 0;) {
        sim_set_process(w->sim, i);
        hw_hub_mirror_close(w->mirrors[i]);
        hw_hub_close(w->hubs[i]);
    }
    sim_set_process(w->sim, SERVER);
    hw_core_close(w->core);
    hw_shared_page_close(w->page);
    sim_net_free(w->net);
    sim_set_process(w->sim, 0);
}

/* ---------------------------------------------------------------------------------- run */

static bool mirror_is_whole(struct world *w, unsigned host)
{
    struct hw_mirror_status status;

    if (w->mirrors[host] == NULL)
        return true;
    sim_set_process(w->sim, host);
    hw_mirror_status(w->mirrors[host], &status);
    return status.length == w->expected && status.wanted == 0;
}

static bool all_are_whole(struct world *w)
{
    for (unsigned i = A; i < HOSTS; i++)
        if (!mirror_is_whole(w, i))
            return false;
    return true;
}

static bool b_is_whole(struct world *w)
{
    return mirror_is_whole(w, B);
}

static bool never(struct world *w)
{
    (void)w;
    return false;
}

/* One step of every host; then, with nothing to do, the clock moves on.  False: nothing will be. */
static bool step(struct world *w, uint64_t limit_ns)
{
    uint64_t next = UINT64_MAX, now;
    bool any = false;

    for (unsigned i = 0; i < HOSTS; i++) {
        uint64_t deadline = UINT64_MAX;

        if (w->hubs[i] == NULL)
            continue;
        sim_set_process(w->sim, i);
        any |= hw_hub_step(w->hubs[i], &deadline, &w->err) == HW_OK;
        if (deadline < next)
            next = deadline;
    }
    if (any)
        return true;
    if (sim_net_deadline(w->net) < next)
        next = sim_net_deadline(w->net);
    now = w->env->ops->monotonic_ns(w->env);
    if (next == UINT64_MAX || next > limit_ns)
        return false;
    sim_advance(w->sim, next > now ? next - now : 1);
    return true;
}

/* False: it did not come to that within the time. */
static bool run(struct world *w, bool (*is_done)(struct world *w), uint64_t time_ns)
{
    uint64_t limit = w->env->ops->monotonic_ns(w->env) + time_ns;

    for (unsigned i = 0; i < STEPS_MAX; i++) {
        if (is_done(w))
            return true;
        if (!step(w, limit))
            return is_done(w);
    }
    return false;
}

/* Somebody else's look into the directory. */
static void check_blocks(struct world *w, unsigned host)
{
    struct hw_core *core = NULL;
    char dir[32];

    sim_set_process(w->sim, host);
    dir_of(host, dir);
    assert_status(hw_core_open(w->env, dir, HW_CORE_READ, UINT64_MAX, &core, &w->err), HW_OK,
                  &w->err);
    core_log_check_all(core, w->expected);
    hw_core_close(core);
}

static void check_all(struct world *w)
{
    if (!run(w, all_are_whole, LIMIT_NS)) {
        for (unsigned i = A; i < HOSTS; i++) {
            struct hw_mirror_status status;

            if (w->mirrors[i] == NULL)
                continue;
            sim_set_process(w->sim, i);
            hw_mirror_status(w->mirrors[i], &status);
            print_error("%s: length %u of %u, %u wanted, %u sources: %s\n", names[i],
                        (unsigned)status.length, (unsigned)w->expected, (unsigned)status.wanted,
                        status.connected, status.problem);
        }
        fail_msg("the mirrors are not whole");
    }
    for (unsigned i = A; i < HOSTS; i++)
        if (w->mirrors[i] != NULL)
            check_blocks(w, i);
}

/* -------------------------------------------------------------------------------- tests */

static void mirrors_become_whole_whatever_the_network_does(void **state)
{
    struct sim *sim = *state;
    struct world w;
    unsigned cuts = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        sim_reset(sim, seed);
        begin(&w, sim, seed);
        sim_net_set_cuts(w.net, 400 + seed * 60);
        sim_net_set_piece(w.net, 1 + (size_t)(seed * 97 % 3000));
        sim_net_set_capacity(w.net, 500 + (size_t)(seed * 1009 % 50000));
        for (unsigned i = A; i < HOSTS; i++)
            follow(&w, i);
        for (unsigned i = 0; i < 20; i++) {
            append(&w, 1 + i % 5);
            (void)run(&w, never, MS(150));
        }
        sim_net_set_cuts(w.net, 0);
        check_all(&w);
        cuts += sim_net_cuts(w.net);
        end(&w);
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
    struct world w;

    for (uint64_t seed = 1; seed <= 6; seed++) {
        sim_reset(sim, seed);
        begin(&w, sim, seed);
        timeless = w.env->ops;
        ops = *timeless;
        ops.monotonic_ns = clock_of_a_slow_machine;
        w.env->ops = &ops;
        sim_net_set_cuts(w.net, seed % 2 == 0 ? 0 : 5000);
        sim_net_set_piece(w.net, 1 + (size_t)(seed * 997 % 30000));
        append(&w, 300);
        for (unsigned i = A; i < HOSTS; i++)
            follow(&w, i);
        for (unsigned i = 0; i < 10; i++) {
            append(&w, 5);
            (void)run(&w, never, MS(20));
        }
        sim_net_set_cuts(w.net, 0);
        check_all(&w);
        end(&w);
        w.env->ops = timeless;
    }
}

static void cut_at_any_byte_is_made_up_for(void **state)
{
    struct sim *sim = *state;
    struct world w;
    uint64_t total = 1;

    for (uint64_t at = 1; at <= total; at += 41) {
        sim_reset(sim, 5);
        begin(&w, sim, 5);
        sim_net_cut_after(w.net, at);
        follow(&w, B);
        check_all(&w);
        append(&w, 3);
        check_all(&w);
        if (at == 1)
            total = sim_net_bytes(w.net);
        end(&w);
    }
    assert_true(total > 4000);
}

static void host_that_falls_silent_holds_up_nobody(void **state)
{
    struct sim *sim = *state;
    struct world w;
    struct hw_hub_counts counts;

    begin(&w, sim, 3);
    follow(&w, A);
    follow(&w, B);
    check_all(&w);
    sim_net_set_silent(w.net, w.transports[A], true);
    for (unsigned i = 0; i < 200; i++) {
        append(&w, 10);
        assert_true(run(&w, b_is_whole, MS(1000)));
    }
    sim_set_process(w.sim, SERVER);
    hw_hub_counts(w.hubs[SERVER], &counts);
    assert_true(counts.output_bytes < 4 << 20);
    (void)run(&w, never, MS(120000)); /* it is given up */
    sim_set_process(w.sim, SERVER);
    hw_hub_counts(w.hubs[SERVER], &counts);
    assert_int_equal(counts.peers, 1);
    sim_net_set_silent(w.net, w.transports[A], false);
    check_all(&w); /* and comes back */
    end(&w);
}

static bool b_is_linked(struct world *w)
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
    struct world w;
    uint64_t end_ns;
    unsigned drops = 0;

    begin(&w, sim, 4);
    follow(&w, B);
    check_all(&w);
    end_ns = w.env->ops->monotonic_ns(w.env) + MS(60000);
    while (w.env->ops->monotonic_ns(w.env) < end_ns && run(&w, b_is_linked, MS(20000))) {
        sim_net_cut_host(w.net, w.transports[SERVER]);
        (void)run(&w, never, MS(10));
        drops++;
    }
    assert_in_range(drops, 5, 20);
    assert_true(run(&w, b_is_linked, MS(20000)));
    sim_advance(w.sim, MS(2000)); /* one that lasts is good again */
    sim_net_cut_host(w.net, w.transports[SERVER]);
    (void)run(&w, never, MS(10));
    assert_true(run(&w, b_is_linked, MS(200)));
    check_all(&w);
    end(&w);
}

static bool c_is_whole(struct world *w)
{
    return mirror_is_whole(w, C);
}

static bool c_knows_a_length(struct world *w)
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
        struct world w;

        sim_reset(sim, 100 + when);
        begin(&w, sim, 100 + when);
        for (unsigned i = 0; i < 20; i++)
            append(&w, 50);
        follow(&w, A);
        check_all(&w);
        assert_status(host_open(&w, C), HW_OK, &w.err);
        assert_status(mirror_open_from(&w, C, SERVER), HW_OK, &w.err);
        assert_true(run(&w, c_knows_a_length, MS(5000)));
        (void)run(&w, c_is_whole, MS(2) * when);
        sim_net_set_silent(w.net, w.transports[when % 2 == 0 ? A : SERVER], true);
        assert_true(run(&w, c_is_whole, MS(30000)));
        check_blocks(&w, C);
        sim_net_set_silent(w.net, w.transports[when % 2 == 0 ? A : SERVER], false);
        append(&w, 5);
        check_all(&w);
        end(&w);
    }
}

/* ------------------------------------------------------------------------------- faults */

static struct world faulty;

static void fault_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    begin(&faulty, sim, 11);
    assert_status(host_open(&faulty, B), HW_OK, &faulty.err);
}

/* May fail at any point; what fails for a moment must be as if it had only been later. */
static void fault_run(struct sim *sim, void *ctx)
{
    (void)ctx;
    (void)sim;
    if (mirror_open(&faulty, B) != HW_OK)
        return;
    (void)run(&faulty, b_is_whole, MS(3000));
    if (faulty.mirrors[B] == NULL)
        return;
    sim_set_process(faulty.sim, SERVER);
    if (core_log_append(faulty.core, 5, "", &faulty.err) == HW_OK) {
        faulty.expected = hw_core_length(faulty.core);
        hw_shared_set_durable_length(faulty.page, faulty.expected);
    }
    (void)run(&faulty, b_is_whole, MS(3000));
}

static void fault_check(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    if (faulty.mirrors[B] == NULL)
        assert_status(mirror_open(&faulty, B), HW_OK, &faulty.err);
    check_all(&faulty);
    end(&faulty);
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

/* ------------------------------------------------------------------------------ crashes */

static struct world fallen;
static uint64_t told_durable; /* the most that a follower told its server */

static bool note_durable(struct world *w)
{
    struct hw_hub_peer peers[HOSTS];
    size_t count;

    sim_set_process(w->sim, SERVER);
    count = hw_hub_peers(w->hubs[SERVER], "x.db", peers, HOSTS);
    for (size_t i = 0; i < count; i++)
        if (peers[i].durable > told_durable)
            told_durable = peers[i].durable;
    return sim_has_crashed(w->sim);
}

static void crash_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    told_durable = 0;
    begin(&fallen, sim, 12);
    assert_status(host_open(&fallen, B), HW_OK, &fallen.err);
}

static void crash_go_on(struct world *w)
{
    if (mirror_open(w, B) != HW_OK)
        return;
    for (unsigned i = 0; i < 5; i++) {
        (void)run(w, note_durable, MS(i == 2 ? 300 : 30));
        if (sim_has_crashed(w->sim))
            return;
        append(w, 3);
        hw_shared_set_remote_wait(w->page, i == 1); /* once with haste */
    }
    (void)run(w, note_durable, MS(1000));
}

static void crash_run(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    crash_go_on(&fallen);
    end(&fallen);
}

/* All is opened anew: what was told to be durable is there, and the rest comes again. */
static void crash_check(struct sim *sim, void *ctx)
{
    struct world *w = &fallen;
    struct hw_core *core = NULL;
    uint64_t promised = told_durable;

    (void)ctx;
    *w = (struct world){.sim = sim, .env = sim_env(sim), .net = sim_net_new(sim_env(sim), 13)};
    sim_set_process(sim, B);
    if (promised > 0)
        assert_status(hw_core_open(w->env, "/b", HW_CORE_READ, UINT64_MAX, &core, &w->err), HW_OK,
                      &w->err);
    for (uint64_t i = 0; i < promised; i++)
        assert_status(core_log_check(core, i, &w->err), HW_OK, &w->err);
    hw_core_close(core);

    sim_set_process(sim, SERVER);
    assert_status(hw_core_open(w->env, "/server", HW_CORE_WRITE, UINT64_MAX, &w->core, &w->err),
                  HW_OK, &w->err);
    memcpy(w->key, hw_core_identity(w->core)->key, HW_KEY_SIZE);
    assert_status(hw_shared_page_open(w->env, "/server", true, &w->page, &w->err), HW_OK, &w->err);
    append(w, 2);
    assert_status(host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
    follow(w, B);
    check_all(w);
    end(w);
}

static void what_was_told_to_be_durable_survives_a_crash(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_CRASH,
        .path = "/b/",
        .prepare = crash_prepare,
        .stride = 4, /* they are many */
        .run = crash_run,
        .check = crash_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 100);
    assert_true(told_durable >= 40); /* of the last run, which nothing disturbed */
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

/* B begins anew, as after a crash: it has to check what it seems to hold. */
static void doubt(struct world *w)
{
    static const uint8_t nothing[24];

    sim_set_process(w->sim, B);
    hw_hub_mirror_close(w->mirrors[B]);
    hw_hub_close(w->hubs[B]);
    w->mirrors[B] = NULL;
    w->hubs[B] = NULL;
    sim_file_put(w->sim, "/b/mirror.lock", nothing, sizeof(nothing));
    assert_status(host_open(w, B), HW_OK, &w->err);
}

static void blocks_that_cannot_be_read_just_now_are_checked_later(void **state)
{
    struct sim *sim = *state;
    bool was_reached = true;

    for (uint64_t at = 1; was_reached; at++) {
        const struct sim_fault fault = {
            .kind = SIM_EIO, .operations = SIM_READ, .path = "/b/", .at = at, .for_ever = true};
        struct world w;
        enum hw_status status;

        sim_reset(sim, at);
        begin(&w, sim, at);
        follow(&w, B);
        check_all(&w);
        doubt(&w);
        sim_set_fault(sim, &fault);
        status = mirror_open(&w, B);
        if (status == HW_OK)
            (void)run(&w, b_is_whole, MS(3000));
        was_reached = sim_fault_was_reached(sim);
        sim_set_fault(sim, NULL);
        if (status != HW_OK)
            assert_status(mirror_open(&w, B), HW_OK, &w.err);
        assert_true(run(&w, b_is_whole, MS(1000))); /* of itself, before anything else happens */
        check_all(&w);
        end(&w);
    }
}

/* A log at /next that goes on from one that is kept beside it, which is the one to follow. */
static void make_next(struct world *w)
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
            struct world w;
            enum hw_status status;

            fault.at = at;
            sim_reset(sim, at);
            begin(&w, sim, at);
            make_next(&w);
            sim_set_fault(sim, &fault);
            status = hw_hub_serve(w.hubs[SERVER], "y.db", "/next", &w.err);
            was_reached = sim_fault_was_reached(sim);
            sim_set_fault(sim, NULL);
            if (status != HW_OK)
                assert_status(hw_hub_serve(w.hubs[SERVER], "y.db", "/next", &w.err), HW_OK, &w.err);
            follow(&w, A);
            check_all(&w);
            end(&w);
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
        TEST(what_was_told_to_be_durable_survives_a_crash),
        TEST(blocks_that_cannot_be_read_just_now_are_checked_later),
        TEST(a_kept_log_that_could_not_be_looked_for_is_found_when_somebody_asks),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
