/* Tests the helpers of env/env.h that every world shares, over the simulated disk. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "sim/sim.h"

static int setup(void **state)
{
    *state = sim_new(0);
    return 0;
}

static int teardown(void **state)
{
    struct sim *sim = *state;
    unsigned open = sim_open_handles(sim);

    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static void prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    assert_int_equal(sim_env(sim)->ops->make_dir(sim_env(sim), "/d", NULL), HW_OK);
    assert_int_equal(sim_env(sim)->ops->sync_dir(sim_env(sim), "/", NULL), HW_OK);
    sim_file_put(sim, "/d/f", "old content", 11);
}

static void replace(struct sim *sim, void *ctx)
{
    *(enum hw_status *)ctx = hw_env_replace_file(sim_env(sim), "/d/f", "new", 3, 0, NULL);
}

static void check_old_or_new(struct sim *sim, void *ctx)
{
    const enum hw_status *replaced = ctx;
    char text[16] = {0};
    size_t size = 0;

    assert_int_equal(hw_env_read_file(sim_env(sim), "/d/f", text, sizeof(text), &size, NULL),
                     HW_OK);
    if (*replaced == HW_OK)
        assert_string_equal(text, "new");
    else
        assert_true(strcmp(text, "new") == 0 || strcmp(text, "old content") == 0);
    assert_int_equal(sim_open_handles(sim), 0);
    /* And it can be done again, whatever was left behind. */
    assert_int_equal(hw_env_replace_file(sim_env(sim), "/d/f", "newer", 5, 0, NULL), HW_OK);
    sim_crash(sim, SIM_DROP);
    memset(text, 0, sizeof(text));
    assert_int_equal(hw_env_read_file(sim_env(sim), "/d/f", text, sizeof(text), &size, NULL),
                     HW_OK);
    assert_string_equal(text, "newer");
}

static void replaced_file_has_the_old_content_or_the_new(void **state)
{
    enum hw_status replaced = HW_EIO;
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_CRASH | SIM_KILL | SIM_ENOMEM,
        .prepare = prepare,
        .run = replace,
        .check = check_old_or_new,
        .ctx = &replaced,
    };

    for (scenario.seed = 1; scenario.seed <= 20; scenario.seed++)
        assert_true(sim_for_each_fault(*state, &scenario) > 30);
}

static void file_that_is_too_long_is_not_read(void **state)
{
    struct hw_error err;
    size_t size = 77;
    char text[4];

    sim_file_put(*state, "/f", "12345", 5);
    assert_int_equal(hw_env_read_file(sim_env(*state), "/f", text, 4, &size, &err), HW_ELIMIT);
    assert_non_null(strstr(err.message, "/f"));
    assert_int_equal(size, 77);
    assert_int_equal(hw_env_read_file(sim_env(*state), "/g", text, 4, &size, &err), HW_ENOTFOUND);
}

static void log_lines_reach_the_world(void **state)
{
    hw_env_log(sim_env(*state), HW_LOG_WARN, "event=%s", "first");
    hw_env_log(sim_env(*state), HW_LOG_WARN, "event=%s", "second");
    assert_true(sim_log_has(*state, "event=first\nevent=second"));
    assert_false(sim_log_has(*state, "event=third"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(replaced_file_has_the_old_content_or_the_new),
        TEST(file_that_is_too_long_is_not_read),
        TEST(log_lines_reach_the_world),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
