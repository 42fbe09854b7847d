/*
 * A reader whose look at what was appended fails at each of its operations in turn: it has all that
 * it had, and finds the rest when it looks again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { LENGTH = 120, READ_BEFORE = 30 };

static struct {
    struct hw_core *reader; /* owned; opened at READ_BEFORE */
    bool tree_is_lost;      /* the writer's machine lost power before the tree was on the disk */
} world;

static struct hw_core *open_reader(struct sim *sim)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_READ, READ_BEFORE, &core, &err), HW_OK,
                  &err);
    assert_int_equal(hw_core_length(core), READ_BEFORE);
    return core;
}

static void prepare(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    (void)ctx;
    world.reader = NULL;
    assert_status(hw_core_create(sim_env(sim), "/log", &core, &err), HW_OK, &err);
    if (!world.tree_is_lost)
        core->segment_size = 2000;
    for (unsigned i = 0; i < LENGTH / 3; i++) {
        if (hw_core_length(core) == READ_BEFORE && !world.tree_is_lost)
            world.reader = open_reader(sim);
        assert_status(core_log_append(core, 3, "note", &err), HW_OK, &err);
    }
    if (world.tree_is_lost)
        sim_crash(sim, SIM_DROP);
    hw_core_close(core);
    if (world.tree_is_lost)
        world.reader = open_reader(sim);
}

static void look(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};

    (void)sim;
    (void)ctx;
    if (hw_core_refresh(world.reader, LENGTH, &err) != HW_OK)
        assert_true(hw_core_length(world.reader) >= READ_BEFORE); /* check() looks again */
}

static void check_blocks(uint64_t length)
{
    struct hw_error err = {0};

    for (uint64_t i = 0; i < length; i++)
        assert_status(core_log_check(world.reader, i, &err), HW_OK, &err);
}

static void check(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};

    (void)ctx;
    check_blocks(hw_core_length(world.reader));
    assert_status(hw_core_refresh(world.reader, LENGTH, &err), HW_OK, &err);
    assert_int_equal(hw_core_length(world.reader), LENGTH);
    check_blocks(LENGTH);
    core_log_check_note(world.reader, "note");
    hw_core_close(world.reader);
    assert_int_equal(sim_open_handles(sim), 0);
}

static int setup(void **state)
{
    world.tree_is_lost = false;
    *state = sim_new(0);
    return 0;
}

static int teardown(void **state)
{
    sim_free(*state);
    return 0;
}

static void each_fault(struct sim *sim)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_EMFILE | SIM_ENOMEM,
        .prepare = prepare,
        .run = look,
        .check = check,
    };

    assert_true(sim_for_each_fault(sim, &scenario) > 10);
}

static void a_reader_goes_on_after_any_look_that_failed(void **state)
{
    each_fault(*state);
}

static void a_reader_without_the_tree_goes_on_after_any_look_that_failed(void **state)
{
    world.tree_is_lost = true;
    each_fault(*state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_reader_goes_on_after_any_look_that_failed),
        TEST(a_reader_without_the_tree_goes_on_after_any_look_that_failed),
    };

    return cmocka_run_group_tests_name("hypercore/core_reader_faults", tests, NULL, NULL);
}
