/*
 * A mirror on a disk that fails at each of its operations in turn: what was synced is there, what
 * is there is right, and what is lost can be had again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"
#include "sim/sim.h"
#include "support/mirror_log.h"

enum { BLOCKS = 34, COMMON = 13 };

struct world {
    struct sim *keys[2];   /* of one seed: both logs have the same key */
    struct hw_core *log;   /* grows while it is mirrored */
    struct hw_core *other; /* of a higher fork; NULL: there is none */
    bool created, forks, prunes, sync_failed;
    bool small_tails, no_tails; /* full after a few syncs; at once */
    bool watched;               /* somebody reads it all the time: */
    struct hw_core *reader;
    unsigned every;             /* so many steps there is a sync */
    enum sim_crash_mode before; /* the crash before the run, if it has one */
    uint64_t synced_length, synced_fork;
    bool synced[BLOCKS + 8]; /* blocks that a sync covered, and that were not given up */
};

static struct world world;

static void block_of_other(uint64_t i, uint8_t out[4])
{
    hw_put_le32(out, (uint32_t)(i ^ 0x5a5a));
}

/* A log that has COMMON blocks with ours, and then its own, under fork 1. */
static void make_other(struct hw_core **out)
{
    struct hw_error err = {0};
    struct hw_core *core = NULL;

    assert_status(hw_core_create(sim_env(world.keys[1]), NULL, &core, &err), HW_OK, &err);
    assert_status(core_log_append(core, COMMON, "n", &err), HW_OK, &err);
    assert_status(hw_core_rotate(core, 1, &err), HW_OK, &err);
    for (uint64_t i = COMMON; i < BLOCKS; i++) {
        uint8_t block[4];

        block_of_other(i, block);
        assert_status(hw_core_batch_begin(core, &err), HW_OK, &err);
        assert_status(hw_core_batch_add(core, block, sizeof(block), &err), HW_OK, &err);
        assert_status(hw_core_batch_commit(core, "n", 1, &err), HW_OK, &err);
    }
    *out = core;
}

static struct hw_core *open_mirror(struct sim *sim)
{
    struct hw_core *core = NULL;
    enum hw_status status =
        hw_core_open(sim_env(sim), "/mirror", HW_CORE_MIRROR, UINT64_MAX, &core, NULL);

    if (status == HW_ENOTFOUND)
        status = hw_core_create_mirror(sim_env(sim), "/mirror", hw_core_identity(world.log)->key,
                                       &core, NULL);
    if (status != HW_OK) {
        world.sync_failed = true; /* perhaps */
        return NULL;
    }
    world.created = true;
    if (world.no_tails)
        core->mirror->tail.size = 0;
    if (world.small_tails) {
        core->mirror->tail.first_size = 2048;
        core->mirror->tail.size = 4096;
    }
    return core;
}

static bool keep_some(void *ctx, uint64_t index)
{
    (void)ctx;
    return index % 5 != 1;
}

static enum hw_status check_block(struct hw_core *core, uint64_t i, struct hw_error *err)
{
    struct hw_buffer out = {0};
    uint8_t block[4];
    enum hw_status status;

    if (hw_core_head(core).fork == 0 || i < COMMON)
        return core_log_check(core, i, err);
    block_of_other(i, block);
    status = hw_core_read(core, i, &out, err);
    if (status == HW_OK && (out.size != sizeof(block) || memcmp(out.bytes, block, 4) != 0))
        status = hw_fail(err, HW_ECORRUPT, "block %llu has other bytes", (unsigned long long)i);
    hw_buffer_release(&out);
    return status;
}

static enum hw_status sync_mirror(struct hw_core *core)
{
    uint64_t length = 0;
    enum hw_status status = hw_core_sync(core, &length, NULL);

    world.sync_failed = world.sync_failed || status == HW_EIO || status == HW_ENOSPC;
    if (status != HW_OK || world.sync_failed)
        return status; /* what was synced before stays */
    world.synced_length = length;
    world.synced_fork = hw_core_head(core).fork;
    for (uint64_t i = 0; i < BLOCKS; i++)
        world.synced[i] = hw_core_has(core, i) && check_block(core, i, NULL) == HW_OK;
    return HW_OK;
}

static enum hw_status prune_mirror(struct hw_core *core)
{
    uint64_t freed;

    for (uint64_t i = 0; i < BLOCKS; i++)
        world.synced[i] = world.synced[i] && keep_some(NULL, i);
    return hw_core_prune(core, keep_some, NULL, false, &freed, NULL);
}

static enum hw_status take_fork(struct hw_core *core)
{
    world.synced_length = 0; /* what is beyond the common part may go from now on */
    for (uint64_t i = COMMON; i < BLOCKS; i++)
        world.synced[i] = false;
    return mirror_log_reorg(world.other, core, NULL);
}

/* One of the things that happen to a mirror. */
static enum hw_status step(struct hw_core *core, unsigned i)
{
    struct hw_core *from = world.log;
    struct hw_accepted accepted;
    uint64_t length = hw_core_length(core);

    if (world.forks && i >= 18) {
        from = world.other;
        if (hw_core_head(core).fork < 1)
            return take_fork(core);
    } else if (i % 3 != 1 && hw_core_length(world.log) < BLOCKS) {
        enum hw_status status = core_log_append(world.log, 1 + i % 2, "n", NULL);

        if (status != HW_OK)
            return HW_OK; /* no memory for our own helper */
    }
    if (i % world.every == world.every - 1)
        return sync_mirror(core);
    if (world.prunes && i % 8 == 4)
        return prune_mirror(core);
    if (hw_core_length(from) > length)
        return i % 4 == 2 ? mirror_log_upgrade(from, core, &accepted, NULL)
                          : mirror_log_push(from, core, &accepted, NULL);
    return length == 0 ? HW_OK : mirror_log_block(from, core, i * 7 % length, &accepted, NULL);
}

/* A reader looks after each step, and after one that succeeds it has what the writer has. */
static void look(struct sim *sim, const struct hw_core *core, enum hw_status step_status)
{
    enum hw_status status = HW_OK;

    if (world.reader == NULL)
        status =
            hw_core_open(sim_env(sim), "/mirror", HW_CORE_READ, UINT64_MAX, &world.reader, NULL);
    if (status == HW_OK)
        status = hw_core_refresh(world.reader, UINT64_MAX, NULL);
    if (status != HW_OK || step_status != HW_OK)
        return;
    assert_int_equal(hw_core_length(world.reader), hw_core_length(core));
    assert_int_equal(hw_core_head(world.reader).fork, hw_core_head(core).fork);
}

static void run(struct sim *sim, void *ctx)
{
    struct hw_core *core = open_mirror(sim);

    (void)ctx;
    for (unsigned i = 0; i < 30; i++) {
        enum hw_status status;

        if (core == NULL)
            core = open_mirror(sim);
        if (core == NULL)
            continue;
        status = step(core, i);
        if (i % 8 == 4 || (world.forks && i >= 18)) /* prunes, or takes over a fork */
            world.sync_failed = world.sync_failed || status == HW_EIO || status == HW_ENOSPC;
        if (world.watched)
            look(sim, core, status);
        if (status == HW_EBROKEN || (status != HW_OK && i % 2 == 0)) {
            hw_core_close(core);
            core = NULL;
        }
    }
    hw_core_close(core);
    hw_core_close(world.reader);
    world.reader = NULL;
}

/* Open what an earlier run left, and go on a little. */
static void recover(struct sim *sim, void *ctx)
{
    struct hw_core *core = open_mirror(sim);

    (void)ctx;
    if (core == NULL)
        core = open_mirror(sim);
    for (unsigned i = 0; i < 4 && core != NULL; i++) {
        enum hw_status status = step(core, 8 + i);

        if (status == HW_EBROKEN)
            break;
    }
    hw_core_close(core);
}

/* Nothing is wrong. */
static void check_right(struct hw_core *core)
{
    struct hw_error err = {0};

    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        enum hw_status status = check_block(core, i, &err);

        if (status != HW_EMISSING)
            assert_status(status, HW_OK, &err);
    }
    assert_status(hw_core_verify(core, NULL, NULL, &err), HW_OK, &err);
}

/* Nothing is wrong, and nothing that was synced is missing. */
static void check_held(struct hw_core *core)
{
    struct hw_error err = {0};

    assert_true(hw_core_length(core) >= world.synced_length);
    assert_true(hw_core_head(core).fork >= world.synced_fork);
    for (uint64_t i = 0; i < hw_core_length(core); i++)
        if (world.synced[i])
            assert_status(check_block(core, i, &err), HW_OK, &err);
    check_right(core);
}

/* All that is missing is fetched; then nothing is missing. */
static void check_filled(struct hw_core *core)
{
    struct hw_core *from = hw_core_head(core).fork == 0 ? world.log : world.other;
    struct hw_accepted accepted;
    struct hw_error err = {0};
    uint64_t length;

    if (hw_core_length(core) < hw_core_length(from))
        assert_status(mirror_log_upgrade(from, core, &accepted, &err), HW_OK, &err);
    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        if (check_block(core, i, &err) == HW_OK)
            continue;
        assert_status(mirror_log_block(from, core, i, &accepted, &err), HW_OK, &err);
        assert_true(accepted.has_block);
        assert_status(check_block(core, i, &err), HW_OK, &err);
    }
    assert_status(hw_core_sync(core, &length, &err), HW_OK, &err);
    assert_int_equal(length, hw_core_length(from));
}

static void check(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    enum hw_status status;

    (void)ctx;
    status = hw_core_open(sim_env(sim), "/mirror", HW_CORE_READ, UINT64_MAX, &core, &err);
    if (status != HW_ENOTFOUND || world.created) {
        assert_status(status, HW_OK, &err);
        check_right(core); /* what is in the tail alone, a reader does not see */
        hw_core_close(core);
    }
    assert_non_null(core = open_mirror(sim));
    check_held(core);
    check_filled(core);
    hw_core_close(core);
    sim_crash(sim, SIM_DROP);
    assert_status(hw_core_open(sim_env(sim), "/mirror", HW_CORE_MIRROR, UINT64_MAX, &core, &err),
                  HW_OK, &err);
    check_held(core);
    /* What the kernel gave up when a sync failed, no later one brings to the disk. */
    for (uint64_t i = 0; i < hw_core_length(core) && !world.sync_failed; i++)
        assert_status(check_block(core, i, &err), HW_OK, &err);
    hw_core_close(core);
    assert_int_equal(sim_open_handles(sim), 0);
}

/* The next writer syncs at once what it found and did not write; then power is lost. */
static void check_inherited(struct sim *sim, void *ctx)
{
    struct hw_core *core = open_mirror(sim);

    (void)ctx;
    assert_non_null(core);
    check_held(core);
    world.sync_failed = false; /* it was only killed */
    assert_int_equal(sync_mirror(core), HW_OK);
    sim_crash(sim, SIM_DROP);
    hw_core_close(core);
    assert_non_null(core = open_mirror(sim));
    check_held(core);
    hw_core_close(core);
}

static void prepare(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};

    (void)sim;
    (void)ctx;
    hw_core_close(world.log);
    world.log = NULL;
    sim_reset(world.keys[0], 7);
    assert_status(hw_core_create(sim_env(world.keys[0]), NULL, &world.log, &err), HW_OK, &err);
    world.created = world.sync_failed = false;
    world.synced_length = world.synced_fork = 0;
    memset(world.synced, 0, sizeof(world.synced));
}

/* A mirror whose tail has something, after a power loss that took what was not synced. */
static void prepare_tail(struct sim *sim, void *ctx)
{
    prepare(sim, ctx);
    run(sim, ctx);
    assert_true(world.synced_length > 0 && !world.sync_failed);
    if (world.before != SIM_CRASH_MODES) /* else the page cache has it all */
        sim_crash(sim, world.before);
}

static int setup(void **state)
{
    world = (struct world){.keys = {sim_new(7), sim_new(7)}, .every = 8};
    *state = sim_new(0);
    return 0;
}

static int teardown(void **state)
{
    hw_core_close(world.log);
    hw_core_close(world.other);
    sim_free(world.keys[0]);
    sim_free(world.keys[1]);
    sim_free(*state);
    return 0;
}

static void each(void **state, unsigned faults, uint64_t stride, bool for_ever)
{
    struct sim_scenario scenario = {
        .faults = faults,
        .path = (faults & SIM_ENOMEM) != 0 ? NULL : "/mirror",
        .stride = stride,
        .for_ever = for_ever,
        .prepare = prepare,
        .run = run,
        .check = check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 10);
}

static void what_was_synced_survives_power_loss_anywhere(void **state)
{
    each(state, SIM_CRASH, 1, false);
}

static void what_was_synced_survives_a_kill_anywhere(void **state)
{
    each(state, SIM_KILL, 1, false);
}

static void what_a_killed_writer_left_is_durable_after_a_sync(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_KILL,
        .path = "/mirror",
        .prepare = prepare,
        .run = run,
        .check = check_inherited,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 100);
    world.every = 3;
    world.small_tails = true;
    assert_true(sim_for_each_fault(*state, &scenario) > 100);
}

static void any_failing_operation_leaves_a_mirror_that_goes_on(void **state)
{
    each(state, SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_SHORT_READ, 1, false);
}

static void nothing_is_stored_after_a_failed_sync_before_it_is_opened_again(void **state)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = "/mirror", .at = 1};
    struct hw_accepted accepted;
    struct hw_core *core;
    struct hw_error err = {0};
    uint64_t length;

    for (unsigned i = 0; i < 2; i++) {
        sim_reset(*state, 0);
        prepare(*state, NULL);
        world.no_tails = i == 0;
        assert_non_null(core = open_mirror(*state));
        for (unsigned blocks = 0; blocks < 3; blocks++) {
            assert_status(core_log_append(world.log, 1, "n", &err), HW_OK, &err);
            assert_status(mirror_log_push(world.log, core, &accepted, &err), HW_OK, &err);
            if (blocks < 2) /* the second one has a tail */
                assert_status(hw_core_sync(core, &length, &err), HW_OK, &err);
        }
        sim_set_fault(*state, &fault);
        assert_int_equal(hw_core_sync(core, &length, &err), HW_EIO);
        sim_set_fault(*state, NULL);
        assert_int_equal(hw_core_sync(core, &length, &err), HW_EBROKEN);
        hw_core_close(core);
    }
}

static void a_full_disk_stops_a_mirror_and_harms_nothing(void **state)
{
    each(state, SIM_ENOSPC, 3, true);
}

static void no_memory_stops_a_mirror_and_harms_nothing(void **state)
{
    each(state, SIM_ENOMEM, 1, false);
}

static void a_bit_read_wrong_is_never_given_out(void **state)
{
    each(state, SIM_BIT_FLIP, 1, false);
}

static void pruning_keeps_what_it_keeps_wherever_it_ends(void **state)
{
    world.prunes = true;
    each(state, SIM_CRASH | SIM_EIO | SIM_ENOSPC, 1, false);
}

static void another_fork_is_taken_over_or_not_wherever_it_ends(void **state)
{
    world.forks = true;
    make_other(&world.other);
    each(state, SIM_CRASH | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM, 1, false);
}

static void a_reader_sees_what_comes_after_any_failing_operation(void **state)
{
    world.watched = true;
    each(state, SIM_ENOMEM, 1, false);
    each(state, SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_SHORT_READ, 3, false);
    world.forks = true;
    make_other(&world.other);
    each(state, SIM_ENOMEM, 3, false);
}

static void what_was_synced_often_survives_power_loss_anywhere(void **state)
{
    world.every = 2;
    each(state, SIM_CRASH, 4, false);
    world.small_tails = true;
    each(state, SIM_CRASH, 1, false);
}

static void any_failing_operation_leaves_a_tail_that_goes_on(void **state)
{
    world.every = 2;
    world.small_tails = true;
    each(state, SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_SHORT_READ | SIM_BIT_FLIP, 2,
         false);
    each(state, SIM_ENOMEM, 2, false);
    each(state, SIM_ENOSPC, 5, true);
}

static void pruning_and_forks_leave_nothing_of_the_tail(void **state)
{
    world.every = 2;
    world.small_tails = true;
    world.prunes = true;
    each(state, SIM_CRASH | SIM_EIO, 2, false);
    world.prunes = false;
    world.forks = true;
    make_other(&world.other);
    each(state, SIM_CRASH | SIM_EIO, 2, false);
}

/* A fault at any operation of recovery, and of what comes after it; and then one more crash. */
static void a_recovery_that_ends_anywhere_is_done_again(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH,
        .crash_modes = 1 << SIM_DROP | 1 << SIM_TORN | 1 << SIM_BYTES,
        .path = "/mirror",
        .stride = 1,
        .prepare = prepare_tail,
        .run = recover,
        .check = check,
    };

    for (unsigned mode = SIM_KEEP; mode <= SIM_CRASH_MODES; mode++) {
        world.every = mode % 2 == 0 ? 3 : 4;
        world.before = (enum sim_crash_mode)mode;
        assert_true(sim_for_each_fault(*state, &scenario) > 10);
    }
    world.no_tails = true; /* heads alone */
    assert_true(sim_for_each_fault(*state, &scenario) > 10);
    world.no_tails = false;
    world.before = SIM_DROP;
    scenario.faults = SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_SHORT_READ;
    assert_true(sim_for_each_fault(*state, &scenario) > 10);
    scenario.faults = SIM_ENOMEM;
    scenario.path = NULL;
    assert_true(sim_for_each_fault(*state, &scenario) > 10);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_was_synced_survives_power_loss_anywhere),
        TEST(what_was_synced_survives_a_kill_anywhere),
        TEST(what_a_killed_writer_left_is_durable_after_a_sync),
        TEST(any_failing_operation_leaves_a_mirror_that_goes_on),
        TEST(nothing_is_stored_after_a_failed_sync_before_it_is_opened_again),
        TEST(a_full_disk_stops_a_mirror_and_harms_nothing),
        TEST(no_memory_stops_a_mirror_and_harms_nothing),
        TEST(a_bit_read_wrong_is_never_given_out),
        TEST(pruning_keeps_what_it_keeps_wherever_it_ends),
        TEST(another_fork_is_taken_over_or_not_wherever_it_ends),
        TEST(a_reader_sees_what_comes_after_any_failing_operation),
        TEST(what_was_synced_often_survives_power_loss_anywhere),
        TEST(any_failing_operation_leaves_a_tail_that_goes_on),
        TEST(pruning_and_forks_leave_nothing_of_the_tail),
        TEST(a_recovery_that_ends_anywhere_is_done_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror_faults", tests, NULL, NULL);
}
