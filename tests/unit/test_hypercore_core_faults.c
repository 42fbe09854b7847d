/*
 * The log on a disk that fails at each of its operations in turn: what was acknowledged is there,
 * it verifies, and it goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

struct world {
    uint64_t acknowledged; /* blocks whose commit returned HW_OK */
    bool created;
    bool prunes, large;
    uint64_t pruned_below; /* a prune that gives up all below this was begun */
};

static struct world world;

static bool keep_from(void *ctx, uint64_t index)
{
    return index >= *(const uint64_t *)ctx || index == 0;
}

/* Open or make the log; NULL: that failed. */
static struct hw_core *open_log(struct sim *sim)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, NULL);

    if (status == HW_ENOTFOUND)
        status = hw_core_create(sim_env(sim), "/log", &core, NULL);
    if (status != HW_OK)
        return NULL;
    world.created = true;
    core->segment_size = 1500;
    return core;
}

static enum hw_status append_large(struct hw_core *core)
{
    static uint8_t block[HW_BATCH_BUFFER_SIZE + 5000];
    enum hw_status status = hw_core_batch_begin(core, NULL);

    if (status != HW_OK)
        return status;
    status = hw_core_batch_add(core, block, sizeof(block), NULL);
    if (status == HW_OK)
        status = hw_core_batch_add(core, block, 10, NULL);
    if (status != HW_OK) {
        hw_core_batch_abort(core);
        return status;
    }
    return hw_core_batch_commit(core, "large", 5, NULL);
}

/* Appends that go on whatever fails, as the capture does: a poisoned log is opened again. */
static void run(struct sim *sim, void *ctx)
{
    (void)ctx;
    struct hw_core *core = open_log(sim);

    for (unsigned i = 0; i < 12; i++) {
        enum hw_status status;

        if (core == NULL)
            core = open_log(sim);
        if (core == NULL)
            continue;
        if (world.large && i == 11)
            status = append_large(core);
        else
            status = core_log_append(core, 1 + i % 4, "note", NULL);
        if (status == HW_OK)
            world.acknowledged = hw_core_length(core);
        if (status == HW_OK && world.prunes && i % 4 == 3) {
            uint64_t freed;

            world.pruned_below = hw_core_length(core) - 6;
            status = hw_core_prune(core, keep_from, &world.pruned_below, false, &freed, NULL);
        }
        if (status != HW_OK) {
            hw_core_close(core);
            core = NULL;
        }
    }
    hw_core_close(core);
}

static void check_blocks(struct hw_core *core, uint64_t length)
{
    struct hw_error err = {0};

    for (uint64_t i = 0; i < length; i++) {
        enum hw_status status = core_log_check(core, i, &err);

        if (status == HW_EPRUNED && !keep_from(&world.pruned_below, i))
            continue;
        if (status == HW_ECORRUPT && world.large && strstr(err.message, "has other bytes") != NULL)
            continue; /* the large batch has blocks of its own */
        assert_status(status, HW_OK, &err);
    }
}

static void check(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    enum hw_status status;

    (void)ctx;
    status = hw_core_open(sim_env(sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &err);
    if (status == HW_ENOTFOUND && !world.created) {
        assert_non_null(core = open_log(sim)); /* nothing that was left there is in the way */
        hw_core_close(core);
        return;
    }
    /* First as a reader who may not repair anything. */
    assert_status(status, HW_OK, &err);
    assert_true(hw_core_length(core) >= world.acknowledged);
    check_blocks(core, hw_core_length(core));
    hw_core_close(core);
    if (world.acknowledged > 0) {
        assert_status(
            hw_core_open(sim_env(sim), "/log", HW_CORE_READ, world.acknowledged, &core, &err),
            HW_OK, &err);
        assert_int_equal(hw_core_length(core), world.acknowledged);
        check_blocks(core, hw_core_length(core));
        hw_core_close(core);
    }
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK, &err);
    assert_true(hw_core_length(core) >= world.acknowledged);
    assert_status(hw_core_verify(core, NULL, NULL, &err), HW_OK, &err);
    assert_status(core_log_append(core, 3, "after", &err), HW_OK, &err);
    check_blocks(core, hw_core_length(core));
    hw_core_close(core);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK, &err);
    core_log_check_note(core, "after");
    assert_status(hw_core_verify(core, NULL, NULL, &err), HW_OK, &err);
    hw_core_close(core);
    assert_int_equal(sim_open_handles(sim), 0);
}

static void prepare(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
    world.acknowledged = 0;
    world.created = false;
    world.pruned_below = 0;
}

static int setup(void **state)
{
    world = (struct world){0};
    *state = sim_new(0);
    return 0;
}

static int teardown(void **state)
{
    sim_free(*state);
    return 0;
}

static void each(void **state, unsigned faults, unsigned crash_modes, uint64_t stride)
{
    struct sim_scenario scenario = {
        .faults = faults,
        .crash_modes = crash_modes,
        .stride = stride,
        .prepare = prepare,
        .run = run,
        .check = check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

static void what_was_acknowledged_survives_power_loss_anywhere(void **state)
{
    each(state, SIM_CRASH, 0, 1);
}

static void what_was_acknowledged_survives_a_kill_anywhere(void **state)
{
    each(state, SIM_KILL, 0, 1);
}

/* The next writer, who tells others what it found, or goes on behind it; then power is lost. */
static void check_inherited(struct sim *sim, void *ctx)
{
    const bool *appends = ctx;
    struct hw_core *core = open_log(sim);
    struct hw_error err = {0};
    uint64_t length;

    assert_non_null(core);
    if (*appends)
        assert_status(core_log_append(core, 3, "after", &err), HW_OK, &err);
    length = hw_core_length(core);
    sim_crash(sim, SIM_DROP);
    hw_core_close(core);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &err), HW_OK,
                  &err);
    assert_true(hw_core_length(core) >= length);
    check_blocks(core, length);
    hw_core_close(core);
}

static void what_a_killed_writer_left_is_durable_once_it_is_opened(void **state)
{
    bool appends = false;
    struct sim_scenario scenario = {
        .faults = SIM_KILL,
        .prepare = prepare,
        .run = run,
        .check = check_inherited,
        .ctx = &appends,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 100);
    appends = true;
    assert_true(sim_for_each_fault(*state, &scenario) > 100);
}

static uint64_t killed_at; /* a sync of the writer before */

static void prepare_killed(struct sim *sim, void *ctx)
{
    struct sim_fault fault = {.kind = SIM_KILL, .operations = SIM_SYNC | SIM_SYNC_DIR};

    fault.at = killed_at;
    prepare(sim, ctx);
    sim_set_fault(sim, &fault);
    run(sim, ctx);
    sim_set_fault(sim, NULL);
    sim_kill(sim, SIM_ALL_PROCESSES);
}

static void run_open(struct sim *sim, void *ctx)
{
    (void)ctx;
    hw_core_close(open_log(sim));
}

/* What it left is in the page cache, and gets to the disk in any order. */
static void opening_after_a_kill_may_end_anywhere(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH,
        .crash_modes = 1U << SIM_RANDOM | 1U << SIM_TORN,
        .prepare = prepare_killed,
        .run = run_open,
        .check = check,
    };

    for (killed_at = 1; killed_at <= 25; killed_at += 2)
        for (scenario.seed = 1; scenario.seed <= 2; scenario.seed++)
            assert_true(sim_for_each_fault(*state, &scenario) > 10);
}

/*
 * As many blocks as make a walk write nodes on its way, the newest batch in the page cache alone
 * and clean: no sync brings it to the disk.
 */
static void prepare_long(struct sim *sim, void *ctx)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = ".seg", .at = 1};
    struct hw_error err = {0};
    struct hw_core *core;

    prepare(sim, ctx);
    assert_non_null(core = open_log(sim));
    core->segment_size = HW_CORE_SEGMENT_SIZE;
    assert_status(core_log_append(core, 4200, "note", &err), HW_OK, &err);
    world.acknowledged = 4200;
    sim_set_fault(sim, &fault);
    assert_int_equal(core_log_append(core, 4200, "note", &err), HW_EIO);
    sim_set_fault(sim, NULL);
    hw_core_close(core);
}

static void check_long(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    (void)ctx;
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &err), HW_OK,
                  &err);
    assert_true(hw_core_length(core) >= world.acknowledged);
    hw_core_close(core);
}

static void nodes_are_not_written_before_their_batch_is_on_the_disk(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH,
        .prepare = prepare_long,
        .run = run_open,
        .check = check_long,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 50);
}

static void any_failing_operation_leaves_a_whole_log(void **state)
{
    each(state, SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_SHORT_READ, 0, 1);
}

/* What a failed sync left in the page cache, no later one brings to the disk. */
static void check_after_power_loss(struct sim *sim, void *ctx)
{
    sim_crash(sim, SIM_DROP);
    check(sim, ctx);
}

static void what_was_acknowledged_after_a_failed_sync_is_on_the_disk(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO,
        .operations = SIM_SYNC | SIM_SYNC_DIR,
        .prepare = prepare,
        .run = run,
        .check = check_after_power_loss,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

static void nothing_is_appended_after_a_failed_sync_before_the_log_is_opened_again(void **state)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = ".seg", .at = 1};
    struct hw_core *core;
    struct hw_error err = {0};

    prepare(*state, NULL);
    assert_non_null(core = open_log(*state));
    assert_status(core_log_append(core, 1, "note", &err), HW_OK, &err);
    sim_set_fault(*state, &fault);
    assert_int_equal(core_log_append(core, 1, "note", &err), HW_EIO);
    sim_set_fault(*state, NULL);
    assert_int_equal(core_log_append(core, 1, "note", &err), HW_EBROKEN);
    hw_core_close(core);
}

/* As `run`, but the log is used for as long as it lets itself be used. */
static void run_on(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;

    (void)ctx;
    for (unsigned i = 0; i < 14; i++) {
        enum hw_status status;

        if (core == NULL)
            core = open_log(sim);
        if (core == NULL)
            continue;
        status = core_log_append(core, 1 + i % 4, "note", NULL);
        if (status == HW_OK)
            world.acknowledged = hw_core_length(core);
        if (status == HW_OK && world.prunes && i % 4 == 3) {
            uint64_t freed;

            world.pruned_below = hw_core_length(core) - 1;
            status = hw_core_prune(core, keep_from, &world.pruned_below, false, &freed, NULL);
        }
        if (status == HW_EBROKEN) {
            hw_core_close(core);
            core = NULL;
        }
    }
    hw_core_close(core);
}

static void a_log_that_goes_on_after_a_failing_operation_is_whole(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_ENOMEM,
        .prepare = prepare,
        .run = run_on,
        .check = check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 100);
    world.prunes = true;
    scenario.stride = 2;
    assert_true(sim_for_each_fault(*state, &scenario) > 100);
}

static void any_failing_allocation_leaves_a_whole_log(void **state)
{
    each(state, SIM_ENOMEM, 0, 1);
}

static void pruning_survives_whatever_fails(void **state)
{
    world.prunes = true;
    each(state, SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM, 0, 3);
}

static void a_batch_in_parts_survives_power_loss(void **state)
{
    world.large = true;
    each(state, SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC, 1U << SIM_TORN | 1U << SIM_DROP, 9);
}

static void a_full_disk_that_stays_full_loses_nothing(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_ENOSPC | SIM_EIO,
        .operations = SIM_WRITE | SIM_ALLOCATE | SIM_SYNC,
        .for_ever = true,
        .stride = 2,
        .prepare = prepare,
        .run = run,
        .check = check,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 20);
}

/* ----------------------------------------------------------------------------------- adopt */

/* A log whose directory seems to be a copy. */
static void prepare_copy(struct sim *sim, void *ctx)
{
    struct hw_log_file log;
    struct hw_error err = {0};

    prepare(sim, ctx);
    run(sim, ctx);
    assert_status(hw_log_file_read(sim_env(sim), "/log", &log, &err), HW_OK, &err);
    log.inode++;
    assert_status(hw_log_file_write(sim_env(sim), "/log", &log, &err), HW_OK, &err);
}

static void run_adopt(struct sim *sim, void *ctx)
{
    (void)ctx;
    if (hw_core_adopt(sim_env(sim), "/log", NULL) == HW_OK)
        world.created = true;
}

static void check_adopted(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    enum hw_status status = hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err);

    hw_core_close(core);
    if (status != HW_OK)
        assert_status(status, HW_EFORK, &err);
    if (status == HW_EFORK)
        assert_status(hw_core_adopt(sim_env(sim), "/log", &err), HW_OK, &err);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK, &err);
    assert_true(hw_core_head(core).fork >= 1);
    hw_core_close(core);
    check(sim, ctx);
}

static void adopting_a_copy_may_fail_anywhere(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM,
        .prepare = prepare_copy,
        .run = run_adopt,
        .check = check_adopted,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 100);
}

/* --------------------------------------------------------------------------------- reading */

static void prepare_log(struct sim *sim, void *ctx)
{
    prepare(sim, ctx);
    run(sim, ctx);
}

/* A reader on a disk that lies: what it says is right, or it is an error. */
static void run_reader(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    unsigned *wrong = ctx;

    if (hw_core_open(sim_env(sim), "/log", HW_CORE_READ, 9, &core, &err) != HW_OK)
        return;
    if (hw_core_length(core) > 9)
        (*wrong)++;
    for (int look = 0; look < 2; look++) {
        for (uint64_t i = 0; i < hw_core_length(core); i++) {
            if (core_log_check(core, i, &err) == HW_ECORRUPT &&
                strstr(err.message, "has other bytes") != NULL)
                (*wrong)++;
        }
        if (hw_core_refresh(core, world.acknowledged, &err) != HW_OK)
            break;
        if (hw_core_length(core) != world.acknowledged)
            (*wrong)++;
    }
    if (hw_core_verify(core, NULL, NULL, &err) > 0)
        (*wrong)++;
    hw_core_close(core);
}

static void check_reader(struct sim *sim, void *ctx)
{
    assert_int_equal(*(unsigned *)ctx, 0);
    assert_int_equal(sim_open_handles(sim), 0);
}

static void a_reader_on_a_lying_disk_never_gives_a_wrong_answer(void **state)
{
    unsigned wrong = 0;
    struct sim_scenario scenario = {
        .faults = SIM_BIT_FLIP | SIM_SHORT_READ | SIM_EIO | SIM_EMFILE | SIM_ENOMEM,
        .prepare = prepare_log,
        .run = run_reader,
        .check = check_reader,
        .ctx = &wrong,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 200);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_was_acknowledged_survives_power_loss_anywhere),
        TEST(what_was_acknowledged_survives_a_kill_anywhere),
        TEST(what_a_killed_writer_left_is_durable_once_it_is_opened),
        TEST(opening_after_a_kill_may_end_anywhere),
        TEST(nodes_are_not_written_before_their_batch_is_on_the_disk),
        TEST(any_failing_operation_leaves_a_whole_log),
        TEST(what_was_acknowledged_after_a_failed_sync_is_on_the_disk),
        TEST(nothing_is_appended_after_a_failed_sync_before_the_log_is_opened_again),
        TEST(a_log_that_goes_on_after_a_failing_operation_is_whole),
        TEST(any_failing_allocation_leaves_a_whole_log),
        TEST(pruning_survives_whatever_fails),
        TEST(a_batch_in_parts_survives_power_loss),
        TEST(a_full_disk_that_stays_full_loses_nothing),
        TEST(adopting_a_copy_may_fail_anywhere),
        TEST(a_reader_on_a_lying_disk_never_gives_a_wrong_answer),
    };

    return cmocka_run_group_tests_name("hypercore/core_faults", tests, NULL, NULL);
}
