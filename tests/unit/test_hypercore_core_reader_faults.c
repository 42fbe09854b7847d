/*
 * A reader whose look at what was appended fails at each of its operations in turn: it has all that
 * it had, and finds the rest when it looks again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { LENGTH = 120, READ_BEFORE = 30, FIRST_KEPT = 90 };

static struct {
    struct hw_core *reader; /* owned; opened at READ_BEFORE */
    bool prunes;            /* the segments that follow what it read are gone */
    bool tree_is_lost;      /* the writer's machine lost power before the tree was on the disk */
} world;

static bool keep_last(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= FIRST_KEPT;
}

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
    uint64_t freed;

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
    if (world.prunes)
        assert_status(hw_core_prune(core, keep_last, NULL, false, &freed, &err), HW_OK, &err);
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

    for (uint64_t i = 0; i < length; i++) {
        enum hw_status status = core_log_check(world.reader, i, &err);

        if (status != HW_EPRUNED || !world.prunes || keep_last(NULL, i))
            assert_status(status, HW_OK, &err);
    }
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
    world.prunes = world.tree_is_lost = false;
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

static void a_reader_far_behind_goes_on_after_any_look_that_failed(void **state)
{
    world.prunes = true;
    each_fault(*state);
}

static void a_reader_without_the_tree_goes_on_after_any_look_that_failed(void **state)
{
    world.tree_is_lost = true;
    each_fault(*state);
}

/* ------------------------------------------------------------------------- while it looks */

static const struct hw_env_ops *real_ops;
static bool is_armed, is_due; /* the prune that comes between two steps of the reader */

static bool keep_none(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
    return false;
}

static void prune_all(struct hw_env *env)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    uint64_t freed;

    assert_status(hw_core_open(env, "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK, &err);
    assert_status(hw_core_prune(core, keep_none, NULL, false, &freed, &err), HW_OK, &err);
    hw_core_close(core);
}

static enum hw_status list_and_arm(struct hw_env *env, const char *path,
                                   bool (*each)(void *ctx, const char *name), void *ctx,
                                   struct hw_error *err)
{
    is_due = is_armed;
    is_armed = false;
    return real_ops->list(env, path, each, ctx, err);
}

/* The reader has listed the segments, and opens the one that it chose. */
static enum hw_status open_late(struct hw_env *env, const char *path, unsigned flags,
                                struct hw_file **out, struct hw_error *err)
{
    if (is_due && strstr(path, ".seg") != NULL) {
        is_due = false;
        prune_all(env);
    }
    return real_ops->open(env, path, flags, out, err);
}

static void a_reader_looks_again_if_segments_go_while_it_looks(void **state)
{
    struct hw_env *env = sim_env(*state);
    struct hw_env_ops ops = *env->ops;
    struct hw_error err = {0};
    enum hw_status status;

    world.prunes = true;
    prepare(*state, NULL);
    ops.list = list_and_arm;
    ops.open = open_late;
    real_ops = env->ops;
    env->ops = &ops;
    is_armed = true;
    status = hw_core_refresh(world.reader, LENGTH, &err);
    env->ops = real_ops;
    assert_status(status, HW_OK, &err);
    assert_false(is_armed || is_due);
    assert_int_equal(hw_core_length(world.reader), LENGTH);
    assert_status(core_log_check(world.reader, LENGTH - 1, &err), HW_EPRUNED, &err);
    hw_core_close(world.reader);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_reader_goes_on_after_any_look_that_failed),
        TEST(a_reader_far_behind_goes_on_after_any_look_that_failed),
        TEST(a_reader_without_the_tree_goes_on_after_any_look_that_failed),
        TEST(a_reader_looks_again_if_segments_go_while_it_looks),
    };

    return cmocka_run_group_tests_name("hypercore/core_reader_faults", tests, NULL, NULL);
}
