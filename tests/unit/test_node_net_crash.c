/*
 * A mirror whose machine loses power, or whose disk fails to sync, as a hub keeps it: what servers
 * were told to be durable is, and what is not known to be is looked at first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror.h"
#include "support/core_log.h"
#include "support/net_world.h"

/* ------------------------------------------------------------------------------ crashes */

static struct net_world fallen;
static unsigned noted;        /* failed syncs */
static uint64_t told_durable; /* the most that a follower told its server */

static bool note_durable(struct net_world *w)
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

static bool note_all_durable(struct net_world *w)
{
    (void)note_durable(w);
    return told_durable == w->expected;
}

static void crash_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    told_durable = 0;
    net_begin(&fallen, sim, 12);
    assert_status(net_host_open(&fallen, B), HW_OK, &fallen.err);
}

static void crash_go_on(struct net_world *w)
{
    if (net_mirror_open(w, B) != HW_OK)
        return;
    for (unsigned i = 0; i < 5; i++) {
        (void)net_run(w, note_durable, MS(i == 2 ? 300 : 30));
        if (sim_has_crashed(w->sim))
            return;
        net_append(w, 3);
        hw_shared_set_remote_wait(w->page, i == 1); /* once with haste */
    }
    (void)net_run(w, note_durable, MS(1000));
}

static void crash_run(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    crash_go_on(&fallen);
    net_end(&fallen);
}

/* All is opened anew: what was told to be durable is there, and the rest comes again. */
static void crash_check(struct sim *sim, void *ctx)
{
    struct net_world *w = &fallen;
    struct hw_core *core = NULL;
    uint64_t promised = told_durable;

    (void)ctx;
    *w = (struct net_world){.sim = sim, .env = sim_env(sim), .net = sim_net_new(sim_env(sim), 13)};
    sim_set_process(sim, B);
    if (promised > 0) /* for writing: what is in the tail counts */
        assert_status(hw_core_open(w->env, "/b", HW_CORE_MIRROR, UINT64_MAX, &core, &w->err), HW_OK,
                      &w->err);
    for (uint64_t i = 0; i < promised; i++)
        assert_status(core_log_check(core, i, &w->err), HW_OK, &w->err);
    hw_core_close(core);

    sim_set_process(sim, SERVER);
    assert_status(hw_core_open(w->env, "/server", HW_CORE_WRITE, UINT64_MAX, &w->core, &w->err),
                  HW_OK, &w->err);
    memcpy(w->key, hw_core_identity(w->core)->key, HW_KEY_SIZE);
    assert_status(hw_shared_page_open(w->env, "/server", true, &w->page, &w->err), HW_OK, &w->err);
    net_append(w, 2);
    assert_status(net_host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
    net_follow(w, B);
    net_check_all(w);
    net_end(w);
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

/* A sync fails once, all goes on for a while; then the power goes, which takes what it can. */
static void unsynced_check(struct sim *sim, void *ctx)
{
    const struct sim_fault power_loss = {.kind = SIM_CRASH, .at = 1};

    net_append(&fallen, 3);
    (void)net_run(&fallen, note_durable, MS(5000));
    if (fallen.mirrors[B] != NULL) /* else it could not be opened */
        assert_int_equal(told_durable, fallen.expected);
    sim_set_fault(sim, &power_loss);
    net_end(&fallen);
    sim_set_fault(sim, NULL);
    sim_crash(sim, SIM_DROP);
    crash_check(sim, ctx);
}

static void unsynced_run(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    crash_go_on(&fallen);
}

static void what_could_not_be_synced_is_told_to_be_durable_only_once_it_is(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_EIO,
        .operations = SIM_SYNC,
        .path = "/b",
        .prepare = crash_prepare,
        .run = unsynced_run,
        .check = unsynced_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 5);
}

static struct net_world faulty;

static void fork_check(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    net_check_all(&faulty);
    net_end(&faulty);
}

static bool has_failed(struct net_world *w)
{
    return sim_fault_was_reached(w->sim);
}

static void until_it_fails(struct sim *sim, void *ctx)
{
    (void)ctx;
    if (net_mirror_open(&fallen, B) != HW_OK)
        return;
    for (unsigned i = 0; i < 5 && !sim_fault_was_reached(sim); i++) {
        (void)net_run(&fallen, has_failed, MS(1500));
        net_append(&fallen, 3);
    }
}

/* The process that met the failure may end now: the next one is to know of it (trust.c). */
static void noted_check(struct sim *sim, void *ctx)
{
    static const uint8_t lost[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    size_t size = 0;

    (void)ctx;
    if (sim_log_has(sim, "event=mirror_broken")) {
        const uint8_t *note = sim_file_bytes(sim, "/b/mirror.lock", &size);

        assert_int_equal(size, 24);
        assert_memory_equal(note + 16, lost, sizeof(lost));
        noted++;
    }
    net_end(&fallen);
}

static void a_sync_that_failed_is_noted_at_once(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_EIO,
        .operations = SIM_SYNC,
        .path = "/b/nodes",
        .prepare = crash_prepare,
        .run = until_it_fails,
        .check = noted_check,
    };

    noted = 0;
    assert_true(sim_for_each_fault(*state, &scenario) > 1);
    assert_true(noted > 0);
}

/* ------------------------------------------------------------------------ an older log */

struct copy { /* of a directory's files */
    struct sim *sim;
    unsigned count;
    struct {
        char path[64];
        uint8_t *bytes; /* owned */
        size_t size;
    } files[16];
};

static bool copy_file(void *ctx, const char *name)
{
    struct copy *copy = ctx;
    const uint8_t *bytes;
    unsigned i = copy->count++;

    assert_true(i < 16);
    (void)snprintf(copy->files[i].path, sizeof(copy->files[i].path), "/server/%s", name);
    bytes = sim_file_bytes(copy->sim, copy->files[i].path, &copy->files[i].size);
    copy->files[i].bytes = malloc(copy->files[i].size + 1);
    assert_non_null(copy->files[i].bytes);
    if (copy->files[i].size > 0)
        memcpy(copy->files[i].bytes, bytes, copy->files[i].size);
    return true;
}

static void copy_back(struct copy *copy)
{
    for (unsigned i = 0; i < copy->count; i++) {
        sim_file_put(copy->sim, copy->files[i].path, copy->files[i].bytes, copy->files[i].size);
        free(copy->files[i].bytes);
    }
}

static void server_close(struct net_world *w)
{
    sim_set_process(w->sim, SERVER);
    hw_hub_close(w->hubs[SERVER]);
    w->hubs[SERVER] = NULL;
    hw_core_close(w->core);
    w->core = NULL;
    hw_shared_page_close(w->page);
    w->page = NULL;
}

static void server_open(struct net_world *w)
{
    sim_set_process(w->sim, SERVER);
    assert_status(hw_core_open(w->env, "/server", HW_CORE_WRITE, UINT64_MAX, &w->core, &w->err),
                  HW_OK, &w->err);
    assert_status(hw_shared_page_open(w->env, "/server", true, &w->page, &w->err), HW_OK, &w->err);
    net_append(w, 5);
    assert_status(net_host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
}

/* It is put back from a backup, and goes on: what a follower has there are other blocks. */
static void more_than_there_is_confirms_nothing(void **state)
{
    struct net_world *w = &fallen;
    struct copy copy = {.sim = *state};

    crash_prepare(*state, NULL);
    assert_status(w->env->ops->list(w->env, "/server", copy_file, &copy, &w->err), HW_OK, &w->err);
    net_append(w, 20);
    assert_status(net_mirror_open(w, B), HW_OK, &w->err);
    net_check_all(w);
    assert_true(net_run(w, note_all_durable, MS(5000)));
    server_close(w);
    copy_back(&copy);
    server_open(w);
    told_durable = 0;
    (void)net_run(w, note_durable, MS(5000));
    assert_int_equal(told_durable, 0);
    net_end(w);
}

/* The server's log is adopted: another fork, of the same blocks and more. */
static void fork_run(struct sim *sim, void *ctx)
{
    struct net_world *w = &faulty;

    (void)sim;
    (void)ctx;
    sim_set_process(w->sim, SERVER);
    hw_hub_close(w->hubs[SERVER]);
    w->hubs[SERVER] = NULL;
    hw_core_close(w->core);
    w->core = NULL;
    assert_status(hw_core_adopt(w->env, "/server", &w->err), HW_OK, &w->err);
    assert_status(hw_core_open(w->env, "/server", HW_CORE_WRITE, UINT64_MAX, &w->core, &w->err),
                  HW_OK, &w->err);
    net_append(w, 2);
    assert_status(net_host_open(w, SERVER), HW_OK, &w->err);
    assert_status(hw_hub_serve(w->hubs[SERVER], "x.db", "/server", &w->err), HW_OK, &w->err);
    (void)net_run(w, net_b_is_whole, MS(3000));
}

static void fork_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    net_begin(&faulty, sim, 14);
    net_follow(&faulty, B);
    net_check_all(&faulty);
    for (unsigned i = 0; i < 3; i++) { /* until its syncs are those of the tail alone */
        net_append(&faulty, 3);
        (void)net_run(&faulty, net_never, MS(3000));
    }
}

static void a_sync_that_fails_as_another_fork_comes_is_made_up_for(void **state)
{
    const struct sim_scenario scenario = {
        .faults = SIM_EIO,
        .operations = SIM_SYNC,
        .path = "/b",
        .prepare = fork_prepare,
        .run = fork_run,
        .check = fork_check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 3);
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
static void doubt(struct net_world *w)
{
    static const uint8_t nothing[24];

    sim_set_process(w->sim, B);
    hw_hub_mirror_close(w->mirrors[B]);
    hw_hub_close(w->hubs[B]);
    w->mirrors[B] = NULL;
    w->hubs[B] = NULL;
    sim_file_put(w->sim, "/b/mirror.lock", nothing, sizeof(nothing));
    assert_status(net_host_open(w, B), HW_OK, &w->err);
}

static void blocks_that_cannot_be_read_just_now_are_checked_later(void **state)
{
    struct sim *sim = *state;
    bool was_reached = true;

    for (uint64_t at = 1; was_reached; at++) {
        const struct sim_fault fault = {
            .kind = SIM_EIO, .operations = SIM_READ, .path = "/b/", .at = at, .for_ever = true};
        struct net_world w;
        enum hw_status status;

        sim_reset(sim, at);
        net_begin(&w, sim, at);
        net_follow(&w, B);
        net_check_all(&w);
        doubt(&w);
        sim_set_fault(sim, &fault);
        status = net_mirror_open(&w, B);
        if (status == HW_OK)
            (void)net_run(&w, net_b_is_whole, MS(3000));
        was_reached = sim_fault_was_reached(sim);
        sim_set_fault(sim, NULL);
        if (status != HW_OK)
            assert_status(net_mirror_open(&w, B), HW_OK, &w.err);
        assert_true(
            net_run(&w, net_b_is_whole, MS(1000))); /* of itself, before anything else happens */
        net_check_all(&w);
        net_end(&w);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(more_than_there_is_confirms_nothing),
        TEST(what_was_told_to_be_durable_survives_a_crash),
        TEST(what_could_not_be_synced_is_told_to_be_durable_only_once_it_is),
        TEST(a_sync_that_failed_is_noted_at_once),
        TEST(a_sync_that_fails_as_another_fork_comes_is_made_up_for),
        TEST(blocks_that_cannot_be_read_just_now_are_checked_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
