/* Tests node/fences.h on the simulated disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/fences.h"
#include "sim/sim.h"

static struct {
    struct sim *sim;
    uint64_t first;  /* that the last successful call gave */
    uint64_t before; /* fences below it were given away */
    struct hw_error err;
} world;

static int setup(void **state)
{
    (void)state;
    world.sim = sim_new(0);
    return sim_env(world.sim)->ops->make_dir(sim_env(world.sim), "/log", NULL) == HW_OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    sim_free(world.sim);
    return 0;
}

static enum hw_status take(void)
{
    return hw_fences_take(sim_env(world.sim), "/log", 10, &world.first, &world.err);
}

static void each_time_there_are_others(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 5; i++) {
        assert_int_equal(take(), HW_OK);
        assert_int_equal(world.first, 10 * i);
    }
}

static void a_damaged_file_gives_none_and_says_so(void **state)
{
    (void)state;
    assert_int_equal(take(), HW_OK);
    sim_file_flip(world.sim, "/log/fences", 16, 1);
    sim_file_flip(world.sim, "/log/fences", 512 + 16, 1);
    assert_int_equal(take(), HW_ECORRUPT);
    sim_file_remove(world.sim, "/log/fences");
    assert_int_equal(take(), HW_OK);
}

/* Torn before anybody was told of its numbers, or gone bad after that: who knows. */
static void the_numbers_of_a_damaged_record_are_passed_over(void **state)
{
    static const uint64_t newest_at[] = {512, 0};

    (void)state;
    for (uint64_t i = 0; i < 2; i++) {
        assert_int_equal(take(), HW_OK);
        assert_int_equal(world.first, 20 * i);
        sim_file_flip(world.sim, "/log/fences", newest_at[i] + 8, 1);
        assert_int_equal(take(), HW_OK);
        assert_int_equal(world.first, 20 * i + 10);
    }
}

static void prepare_none(struct sim *sim, void *ctx)
{
    (void)sim, (void)ctx;
    assert_int_equal(sim_env(world.sim)->ops->make_dir(sim_env(world.sim), "/log", NULL), HW_OK);
    assert_int_equal(sim_env(world.sim)->ops->sync_dir(sim_env(world.sim), "/", NULL), HW_OK);
    world.before = 0;
}

static void prepare(struct sim *sim, void *ctx)
{
    prepare_none(sim, ctx);
    assert_int_equal(take(), HW_OK);
    assert_int_equal(take(), HW_OK);
    world.before = world.first + 10;
}

static void run(struct sim *sim, void *ctx)
{
    (void)sim, (void)ctx;
    for (unsigned i = 0; i < 3; i++)
        if (take() == HW_OK)
            world.before = world.first + 10;
}

static void check(struct sim *sim, void *ctx)
{
    (void)sim, (void)ctx;
    assert_int_equal(take(), HW_OK);
    assert_true(world.first >= world.before);
}

static void each_fault(void (*prepare_it)(struct sim *, void *), unsigned faults, unsigned modes)
{
    struct sim_scenario scenario = {
        .faults = faults, .crash_modes = modes, .prepare = prepare_it, .run = run, .check = check};

    assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
}

static void no_fault_gives_a_fence_twice(void **state)
{
    (void)state;
    each_fault(prepare, SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM, 0);
}

/* Whoever makes the file syncs its name before it gives one: else they would begin anew.  A record
 * that was torn before any was given stands in nobody's way. */
static void the_first_ones_are_not_given_twice(void **state)
{
    (void)state;
    each_fault(prepare_none, SIM_CRASH | SIM_KILL | SIM_EIO | SIM_ENOSPC | SIM_ENOMEM, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_time_there_are_others, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_gives_none_and_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(the_numbers_of_a_damaged_record_are_passed_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(no_fault_gives_a_fence_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_ones_are_not_given_twice, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
