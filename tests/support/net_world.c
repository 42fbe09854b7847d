/* Implements support/net_world.h. */
#include "support/net_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "hypercore/mirror.h"
#include "support/core_log.h"

enum { STEPS_MAX = 2000000 };
#define LIMIT_NS MS(600000) /* of simulated time */

static const char *const names[HOSTS] = {"server", "a", "b", "c"};
static const unsigned sources[HOSTS] = {SERVER, SERVER, SERVER, A};

static void dir_of(unsigned host, char out[32])
{
    (void)snprintf(out, 32, "/%s", names[host]);
}

/* -------------------------------------------------------------------------------- begin */

enum hw_status net_host_open(struct net_world *w, unsigned host)
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

static void source_of(struct net_world *w, unsigned host, struct hw_address *out)
{
    *out = (struct hw_address){.has_key = true};
    (void)snprintf(out->dial, sizeof(out->dial), "tcp://%s:1", names[host]);
    memcpy(out->key, w->key, HW_KEY_SIZE);
}

/* From its source, and `second` too if that is another host. */
enum hw_status net_mirror_open_from(struct net_world *w, unsigned host, unsigned second)
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

enum hw_status net_mirror_open(struct net_world *w, unsigned host)
{
    return net_mirror_open_from(w, host, sources[host]);
}

void net_append(struct net_world *w, unsigned count)
{
    sim_set_process(w->sim, SERVER);
    assert_status(core_log_append(w->core, count, "", &w->err), HW_OK, &w->err);
    w->expected = hw_core_length(w->core);
    hw_shared_set_durable_length(w->page, w->expected);
}

/* The log and its server, no fault about. */
void net_begin(struct net_world *w, struct sim *sim, uint64_t seed)
{
    *w = (struct net_world){.sim = sim, .env = sim_env(sim)};
    w->net = sim_net_new(w->env, seed);
    sim_net_set_delay(w->net, MS(1) / 10, MS(2));
    sim_set_process(sim, SERVER);
    assert_status(hw_core_create(w->env, "/server", &w->core, &w->err), HW_OK, &w->err);
    assert_status(hw_shared_page_open(w->env, "/server", true, &w->page, &w->err), HW_OK, &w->err);
    hw_shared_set_worker(w->page, 1);
    memcpy(w->key, hw_core_identity(w->core)->key, HW_KEY_SIZE);
    net_append(w, 30);
    assert_status(net_host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
}

void net_follow(struct net_world *w, unsigned host)
{
    assert_status(net_host_open(w, host), HW_OK, &w->err);
    assert_status(net_mirror_open(w, host), HW_OK, &w->err);
}

void net_end(struct net_world *w)
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

bool net_mirror_is_whole(struct net_world *w, unsigned host)
{
    struct hw_mirror_status status;

    if (w->mirrors[host] == NULL)
        return true;
    sim_set_process(w->sim, host);
    hw_mirror_status(w->mirrors[host], &status);
    return status.length == w->expected && status.wanted == 0;
}

static bool all_are_whole(struct net_world *w)
{
    for (unsigned i = A; i < HOSTS; i++)
        if (!net_mirror_is_whole(w, i))
            return false;
    return true;
}

bool net_b_is_whole(struct net_world *w)
{
    return net_mirror_is_whole(w, B);
}

bool net_never(struct net_world *w)
{
    (void)w;
    return false;
}

/* One step of every host; then, with nothing to do, the clock moves on.  False: nothing will be. */
static bool step(struct net_world *w, uint64_t limit_ns)
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
bool net_run(struct net_world *w, bool (*is_done)(struct net_world *w), uint64_t time_ns)
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
void net_check_blocks(struct net_world *w, unsigned host)
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

void net_check_all(struct net_world *w)
{
    if (!net_run(w, all_are_whole, LIMIT_NS)) {
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
            net_check_blocks(w, i);
}
