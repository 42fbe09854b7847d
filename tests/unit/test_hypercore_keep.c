/* A log, or a mirror, moves to where it is kept, whatever interrupts it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/keep.h"
#include "hypercore/log_file.h"
#include "hypercore/mirror.h"
#include "sim/sim.h"
#include "support/core_log.h"
#include "support/mirror_log.h"

enum { BLOCKS = 9 };

struct world {
    enum hw_keep_what what;
    struct hw_core *source; /* of the mirror; on no disk */
    char *to;               /* owned: where it is kept */
};

static void source_open(struct world *w)
{
    struct hw_error err = {0};

    assert_status(hw_core_create(hw_env_posix(), NULL, &w->source, &err), HW_OK, &err);
    assert_status(core_log_append(w->source, BLOCKS, "n", &err), HW_OK, &err);
}

static void world_release(struct world *w)
{
    hw_core_close(w->source);
    hw_free(w->to);
}

static void make(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_core *core = NULL;
    struct hw_accepted accepted;
    struct hw_error err = {0};
    uint64_t length;

    if (w->what == HW_KEEP_LOG) {
        assert_status(hw_core_create(sim_env(sim), "/log", &core, &err), HW_OK, &err);
        assert_status(core_log_append(core, BLOCKS, "n", &err), HW_OK, &err);
    } else {
        assert_status(hw_core_create_mirror(sim_env(sim), "/log", hw_core_identity(w->source)->key,
                                            &core, &err),
                      HW_OK, &err);
        assert_status(mirror_log_upgrade(w->source, core, &accepted, &err), HW_OK, &err);
        for (uint64_t i = 0; i < BLOCKS; i++)
            assert_status(mirror_log_block(w->source, core, i, &accepted, &err), HW_OK, &err);
        assert_status(hw_core_sync(core, &length, &err), HW_OK, &err);
    }
    hw_free(w->to);
    w->to = hw_keep_dir("/log", hw_core_identity(core)->key);
    hw_core_close(core);
    sim_file_put(sim, "/log/replica", "x", 1);
    sim_crash(sim, SIM_KEEP);
}

static void keep(struct sim *sim, void *ctx)
{
    struct world *w = ctx;

    (void)!hw_keep(sim_env(sim), "/log", w->what, NULL);
}

static void check(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    uint8_t key[HW_KEY_SIZE];

    assert_status(hw_keep(sim_env(sim), "/log", w->what, &err), HW_OK, &err);
    sim_crash(sim, SIM_DROP); /* who was told so makes another one in its place */
    assert_int_equal(hw_keep_key(sim_env(sim), "/log", w->what, key, &err), HW_ENOTFOUND);
    assert_status(hw_core_open(sim_env(sim), w->to, HW_CORE_READ, UINT64_MAX, &core, &err), HW_OK,
                  &err);
    core_log_check_all(core, BLOCKS);
    hw_core_close(core);
    assert_true(sim_file_exists(sim, "/log/replica"));
    assert_int_equal(sim_open_handles(sim), 0);
}

/* What `run` does ends at any operation, or one of them fails. */
static void each_fault(enum hw_keep_what what, void (*prepare)(struct sim *, void *),
                       void (*run)(struct sim *, void *), void (*verify)(struct sim *, void *))
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_CRASH | SIM_KILL,
        .seed = 5,
        .prepare = prepare,
        .run = run,
        .check = verify,
    };
    struct sim *sim = sim_new(5);
    struct world w = {.what = what};

    source_open(&w);
    scenario.ctx = &w;
    assert_true(sim_for_each_fault(sim, &scenario) > 20);
    world_release(&w);
    sim_free(sim);
}

static void log_is_kept_whole_whatever_fails(void **state)
{
    (void)state;
    each_fault(HW_KEEP_LOG, make, keep, check);
}

static void mirror_is_kept_whole_whatever_fails(void **state)
{
    (void)state;
    each_fault(HW_KEEP_MIRROR, make, keep, check);
}

/* One whose key is the last that the directory lists. */
static void make_key_last(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};
    uint8_t seed[HW_SEED_SIZE];

    make(sim, ctx);
    assert_status(hw_key_file_read(sim_env(sim), "/log", seed, &err), HW_OK, &err);
    sim_file_remove(sim, "/log/key");
    assert_status(hw_key_file_write(sim_env(sim), "/log", seed, &err), HW_OK, &err);
}

/* All of it is there, or it says that it cannot be written: nobody signs a part of it. */
static void check_adopt(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    if (hw_core_adopt(sim_env(sim), "/log", &err) == HW_OK) {
        assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &err),
                      HW_OK, &err);
        core_log_check_all(core, BLOCKS);
        hw_core_close(core);
    }
    check(sim, ctx);
}

static void log_of_which_a_part_is_kept_cannot_be_adopted(void **state)
{
    (void)state;
    each_fault(HW_KEEP_LOG, make_key_last, keep, check_adopt);
}

/* --------------------------------------------------------------------------------- and back */

static void make_kept(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};
    struct world *w = ctx;

    make(sim, ctx);
    assert_status(hw_keep(sim_env(sim), "/log", w->what, &err), HW_OK, &err);
}

static void back(struct sim *sim, void *ctx)
{
    struct world *w = ctx;

    (void)!hw_keep_mirror_back(sim_env(sim), "/log", hw_core_identity(w->source)->key, NULL);
}

/* It is in its place, also after a power loss, can be fed there, and can be kept. */
static void check_back(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    uint8_t key[HW_KEY_SIZE];

    assert_status(hw_keep_mirror_back(sim_env(sim), "/log", hw_core_identity(w->source)->key, &err),
                  HW_OK, &err);
    sim_crash(sim, SIM_DROP);
    assert_int_equal(hw_keep_key(sim_env(sim), w->to, HW_KEEP_MIRROR, key, &err), HW_ENOTFOUND);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_MIRROR, UINT64_MAX, &core, &err),
                  HW_OK, &err);
    core_log_check_all(core, BLOCKS);
    hw_core_close(core);
    check(sim, ctx);
}

static void mirror_that_was_half_moved_is_back_whatever_failed(void **state)
{
    (void)state;
    each_fault(HW_KEEP_MIRROR, make, keep, check_back);
}

static void mirror_comes_back_whatever_fails(void **state)
{
    (void)state;
    each_fault(HW_KEEP_MIRROR, make_kept, back, check_back);
}

static void make_next(struct sim *sim, void *ctx)
{
    static const uint8_t key[HW_KEY_SIZE] = {1, 2, 3};
    struct hw_core *core = NULL;

    (void)ctx;
    if (hw_core_create_mirror(sim_env(sim), "/log", key, &core, NULL) == HW_OK)
        hw_core_close(core);
}

/* If the next one is there it stays, and so does what is kept. */
static void check_next(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};
    uint8_t key[HW_KEY_SIZE];

    if (hw_keep_key(sim_env(sim), "/log", HW_KEEP_MIRROR, key, &err) != HW_OK) {
        check_back(sim, ctx);
        return;
    }
    back(sim, ctx);
    assert_status(hw_keep_key(sim_env(sim), "/log", HW_KEEP_MIRROR, key, &err), HW_OK, &err);
    assert_int_equal(key[0], 1);
    check(sim, ctx);
}

static void mirror_comes_back_while_the_next_one_is_not_there(void **state)
{
    (void)state;
    each_fault(HW_KEEP_MIRROR, make_kept, make_next, check_next);
}

static void mirror_that_was_made_anew_is_left_alone(void **state)
{
    struct sim *sim = sim_new(5);
    struct world w = {.what = HW_KEEP_MIRROR};
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    uint8_t key[HW_KEY_SIZE];
    char *path;

    (void)state;
    source_open(&w);
    make_kept(sim, &w);
    path = hw_format("%s/mirror", w.to);
    sim_file_remove(sim, path); /* half of it alone is kept */
    assert_status(
        hw_core_create_mirror(sim_env(sim), "/log", hw_core_identity(w.source)->key, &core, &err),
        HW_OK, &err);
    hw_core_close(core);
    assert_status(hw_keep_mirror_back(sim_env(sim), "/log", NULL, &err), HW_OK, &err);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &err), HW_OK,
                  &err);
    assert_int_equal(hw_core_length(core), 0);
    hw_core_close(core);
    assert_int_equal(hw_keep(sim_env(sim), "/log", HW_KEEP_MIRROR, &err), HW_EEXIST);
    assert_status(hw_keep_key(sim_env(sim), "/log", HW_KEEP_MIRROR, key, &err), HW_OK, &err);
    hw_free(path);
    world_release(&w);
    sim_free(sim);
}

static void mirror_that_somebody_feeds_is_left_alone(void **state)
{
    struct sim *sim = sim_new(5);
    struct world w = {.what = HW_KEEP_MIRROR};
    struct hw_file *lock = NULL;
    struct hw_error err = {0};

    (void)state;
    source_open(&w);
    make_kept(sim, &w);
    sim_set_process(sim, 1);
    assert_status(sim_env(sim)->ops->open(sim_env(sim), "/log/mirror.lock",
                                          HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &lock,
                                          &err),
                  HW_OK, &err);
    assert_status(sim_env(sim)->ops->lock(lock, false, &err), HW_OK, &err);
    sim_set_process(sim, 0);
    assert_status(hw_keep_mirror_back(sim_env(sim), "/log", hw_core_identity(w.source)->key, &err),
                  HW_OK, &err);
    assert_false(sim_file_exists(sim, "/log/head"));
    sim_env(sim)->ops->close(lock);
    check_back(sim, &w);
    world_release(&w);
    sim_free(sim);
}

static void nothing_comes_back_where_nothing_is_kept(void **state)
{
    static const uint8_t key[HW_KEY_SIZE] = {1, 2, 3};
    struct sim *sim = sim_new(5);
    struct hw_error err = {0};

    (void)state;
    assert_status(hw_keep_mirror_back(sim_env(sim), "/log", key, &err), HW_OK, &err);
    assert_status(hw_keep_mirror_back(sim_env(sim), "/log", NULL, &err), HW_OK, &err);
    assert_status(hw_keep(sim_env(sim), "/log", HW_KEEP_MIRROR, &err), HW_OK, &err);
    assert_false(sim_file_exists(sim, "/log"));
    sim_free(sim);
}

/* -------------------------------------------------------------------------------- by itself */

static void log_that_was_kept_and_moved_back_can_be_written(void **state)
{
    struct sim *sim = sim_new(5);
    struct world w = {.what = HW_KEEP_LOG};
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    (void)state;
    make(sim, &w);
    keep(sim, &w);
    assert_status(hw_keep_move(sim_env(sim), w.to, "/log", HW_KEEP_LOG, &err), HW_OK, &err);
    assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK, &err);
    assert_status(core_log_append(core, 1, "n", &err), HW_OK, &err);
    core_log_check_all(core, BLOCKS + 1);
    hw_core_close(core);
    hw_free(w.to);
    sim_free(sim);
}

static void file_in_the_way_is_named_and_left_alone(void **state)
{
    struct sim *sim = sim_new(5);
    struct world w = {.what = HW_KEEP_LOG};
    struct sim_fault unseen = {
        .kind = SIM_EIO, .operations = SIM_STAT, .path = "/log.", .at = 1, .for_ever = true};
    struct hw_error err = {0};
    size_t size = 0;
    char *path;

    (void)state;
    make(sim, &w);
    path = hw_format("%s/log", w.to);
    assert_int_equal(sim_env(sim)->ops->make_dir(sim_env(sim), w.to, &err), HW_OK);
    sim_file_put(sim, path, "mine", 4);
    assert_int_equal(hw_keep(sim_env(sim), "/log", HW_KEEP_LOG, &err), HW_EEXIST);
    assert_non_null(strstr(err.message, path));
    assert_true(sim_file_exists(sim, "/log/log"));

    /* Nor is it replaced where it cannot be seen. */
    sim_set_fault(sim, &unseen);
    assert_int_equal(hw_keep(sim_env(sim), "/log", HW_KEEP_LOG, &err), HW_EIO);
    sim_set_fault(sim, NULL);
    assert_memory_equal(sim_file_bytes(sim, path, &size), "mine", 4);
    assert_int_equal(size, 4);
    hw_free(path);
    hw_free(w.to);
    sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_is_kept_whole_whatever_fails),
        cmocka_unit_test(mirror_is_kept_whole_whatever_fails),
        cmocka_unit_test(log_of_which_a_part_is_kept_cannot_be_adopted),
        cmocka_unit_test(mirror_that_was_half_moved_is_back_whatever_failed),
        cmocka_unit_test(mirror_comes_back_whatever_fails),
        cmocka_unit_test(mirror_comes_back_while_the_next_one_is_not_there),
        cmocka_unit_test(mirror_that_was_made_anew_is_left_alone),
        cmocka_unit_test(mirror_that_somebody_feeds_is_left_alone),
        cmocka_unit_test(nothing_comes_back_where_nothing_is_kept),
        cmocka_unit_test(log_that_was_kept_and_moved_back_can_be_written),
        cmocka_unit_test(file_in_the_way_is_named_and_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
