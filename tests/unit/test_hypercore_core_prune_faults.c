/*
 * A prune that ended anywhere, and one after it: what was to stay is there, also after a power
 * loss, and what went is said to be pruned, or still there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { LENGTH = 90, FIRST_KEPT = 80 };

/* Several blocks of each segment stay, and take less than a quarter of it. */
static bool keep_some(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= FIRST_KEPT || index % 9 == 0;
}

static void make_log(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    (void)ctx;
    assert_status(hw_core_create(sim_env(sim), "/log", &core, &err), HW_OK, &err);
    core->segment_size = 6000;
    for (unsigned i = 0; i < LENGTH / 3; i++)
        assert_status(core_log_append(core, 3, "note", &err), HW_OK, &err);
    hw_core_close(core);
}

static enum hw_status prune(struct sim *sim, struct hw_error *err)
{
    struct hw_core *core = NULL;
    uint64_t freed;
    enum hw_status status = hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, err);

    if (status == HW_OK)
        status = hw_core_prune(core, keep_some, NULL, false, &freed, err);
    hw_core_close(core);
    return status;
}

static void prune_once(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};

    (void)ctx;
    (void)prune(sim, &err); /* the next one makes it whole */
}

/* A mark that was lost is no loss while the file is there: `may_stay`. */
static void check_block(struct hw_core *core, uint64_t index, bool may_stay)
{
    struct hw_error err = {0};
    enum hw_status status = core_log_check(core, index, &err);

    if (status != HW_OK || !may_stay)
        assert_status(status, keep_some(NULL, index) ? HW_OK : HW_EPRUNED, &err);
}

static void check_log(struct sim *sim, enum hw_core_mode mode, bool may_stay)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    assert_status(hw_core_open(sim_env(sim), "/log", mode, UINT64_MAX, &core, &err), HW_OK, &err);
    for (uint64_t i = 0; i < LENGTH; i++)
        check_block(core, i, may_stay);
    assert_int_equal(hw_core_first_kept(core), FIRST_KEPT);
    assert_status(hw_core_verify(core, NULL, NULL, &err), HW_OK, &err);
    hw_core_close(core);
}

/* With a power loss after it, if *ctx is true. */
static void check_next_prune(struct sim *sim, void *ctx)
{
    const bool *power_is_lost = ctx;
    struct hw_error err = {0};

    assert_status(prune(sim, &err), HW_OK, &err);
    if (*power_is_lost)
        sim_crash(sim, SIM_DROP);
    check_log(sim, HW_CORE_READ, *power_is_lost);
    check_log(sim, HW_CORE_WRITE, *power_is_lost);
    assert_int_equal(sim_open_handles(sim), 0);
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

static void a_prune_after_one_that_ended_anywhere_loses_nothing(void **state)
{
    bool power_is_lost = false;
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_ENOMEM | SIM_KILL,
        .prepare = make_log,
        .run = prune_once,
        .check = check_next_prune,
        .ctx = &power_is_lost,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 300);
    scenario.faults = SIM_CRASH;
    scenario.stride = 5;
    assert_true(sim_for_each_fault(*state, &scenario) > 100);
}

/* What a failed sync left in the page cache, no later one brings to the disk. */
static void a_prune_after_a_failed_sync_is_on_the_disk(void **state)
{
    bool power_is_lost = true;
    struct sim_scenario scenario = {
        .faults = SIM_EIO,
        .operations = SIM_SYNC | SIM_SYNC_DIR,
        .prepare = make_log,
        .run = prune_once,
        .check = check_next_prune,
        .ctx = &power_is_lost,
    };

    assert_true(sim_for_each_fault(*state, &scenario) > 10);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_prune_after_one_that_ended_anywhere_loses_nothing),
        TEST(a_prune_after_a_failed_sync_is_on_the_disk),
    };

    return cmocka_run_group_tests_name("hypercore/core_prune_faults", tests, NULL, NULL);
}
