/* Giving up blocks, and checking what is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "support/core_log.h"

/* Of the first 270 blocks only every 50th stays. */
static bool keep_few(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= 270 || index % 50 == 0;
}

static bool keep_all(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
    return true;
}

/* 300 blocks in segments of about 3000 bytes. */
static struct hw_core *make_log(struct core_log *f)
{
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    core->segment_size = 3000;
    for (unsigned i = 0; i < 100; i++)
        assert_ok(core_log_append(core, 3, "n", &f->err));
    return core;
}

static void check_pruned(struct core_log *f, struct hw_core *core)
{
    for (uint64_t i = 0; i < 300; i++)
        assert_status(core_log_check(core, i, &f->err), keep_few(NULL, i) ? HW_OK : HW_EPRUNED,
                      &f->err);
    assert_status(core_log_check(core, 300, &f->err), HW_ENOTFOUND, &f->err);
    assert_int_equal(hw_core_first_kept(core), 270);
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
}

static void pruning_frees_what_a_dry_run_said(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = make_log(f);
    uint64_t before = hw_core_stored_bytes(core), said = 0, freed = 0, size = 0;

    assert_ok(hw_core_prune(core, keep_few, NULL, true, &said, &f->err));
    assert_int_equal(hw_core_stored_bytes(core), before);
    assert_int_equal(hw_core_first_kept(core), 0);
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));

    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_int_equal(freed, said);
    assert_true(freed > 30000);
    assert_int_equal(hw_core_stored_bytes(core), before - freed);
    check_pruned(f, core);
    assert_ok(hw_core_block_size(core, 7, &size, &f->err));
    assert_int_equal(size, 259);
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_int_equal(freed, 0);
    hw_core_close(core);
    for (int mode = HW_CORE_READ; mode <= HW_CORE_WRITE; mode++) {
        assert_ok(
            hw_core_open(f->env, f->dir, (enum hw_core_mode)mode, UINT64_MAX, &core, &f->err));
        check_pruned(f, core);
        core_log_check_note(core, "n");
        hw_core_close(core);
    }
}

static void a_log_in_one_segment_can_be_pruned(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    uint64_t freed = 0;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    for (unsigned i = 0; i < 100; i++)
        assert_ok(core_log_append(core, 3, "n", &f->err));
    assert_ok(hw_core_prune(core, keep_all, NULL, false, &freed, &f->err));
    assert_int_equal(freed, 0);
    assert_int_equal(core->end.segment, 1);
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_true(freed > 20000);
    check_pruned(f, core);
    assert_ok(core_log_append(core, 3, "more", &f->err));
    assert_ok(core_log_check(core, 302, &f->err));
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    core_log_check_note(core, "more");
    hw_core_close(core);
}

static void a_reader_survives_pruning(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = make_log(f), *reader = NULL, *slow = NULL;
    uint64_t freed;

    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 300, &reader, &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 300, &slow, &f->err));
    assert_ok(core_log_check(reader, 100, &f->err));
    assert_ok(core_log_check(reader, 101, &f->err));
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    for (uint64_t i = 0; i < 300; i++) {
        enum hw_status status = core_log_check(reader, i, &f->err);

        assert_true(status == HW_OK || (status == HW_EPRUNED && !keep_few(NULL, i)));
    }
    for (unsigned i = 0; i < 30; i++)
        assert_ok(core_log_append(core, 3, "later", &f->err));
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_ok(hw_core_refresh(reader, 390, &f->err));
    assert_ok(core_log_check(reader, 389, &f->err));
    core_log_check_note(reader, "later");
    assert_int_equal(hw_core_head(reader).byte_length, hw_core_head(core).byte_length);
    hw_core_close(reader);
    hw_core_close(slow);
    hw_core_close(core);
}

/* A reader whose segment and all that followed are gone goes on at the newest place. */
static void a_reader_far_behind_goes_on_after_pruning(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL, *reader = NULL;
    uint64_t freed;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    core->segment_size = 3000;
    assert_ok(core_log_append(core, 3, "first", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 3, &reader, &f->err));
    for (unsigned i = 0; i < 120; i++)
        assert_ok(core_log_append(core, 3, "n", &f->err));
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_ok(hw_core_refresh(reader, 363, &f->err));
    assert_int_equal(hw_core_length(reader), 363);
    assert_ok(core_log_check(reader, 362, &f->err));
    assert_status(core_log_check(reader, 4, &f->err), HW_EPRUNED, &f->err);
    hw_core_close(reader);
    hw_core_close(core);
}

static void a_length_below_what_was_pruned_cannot_be_opened(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = make_log(f), *reader = NULL;
    uint64_t freed;

    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_READ, 100, &reader, &f->err), HW_EPRUNED,
                  &f->err);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 299, &reader, &f->err));
    assert_int_equal(hw_core_length(reader), 297);
    hw_core_close(reader);
    hw_core_close(core);
}

static void files_that_a_crash_left_are_removed_by_the_next_run(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = make_log(f);
    uint8_t bytes[8] = {1};
    char path[128];
    uint64_t freed;
    struct hw_file_stat stat;

    hw_core_close(core);
    (void)snprintf(path, sizeof(path), "%s/00000003.1.seg.tmp", f->dir);
    assert_ok(hw_env_replace_file(f->env, path, bytes, sizeof(bytes), 0, &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    assert_int_equal(f->env->ops->stat(f->env, path, &stat, NULL), HW_ENOTFOUND);
    assert_ok(hw_core_prune(core, keep_few, NULL, false, &freed, &f->err));
    check_pruned(f, core);
    hw_core_close(core);
}

static bool stop_at_200(void *ctx, uint64_t checked, uint64_t length)
{
    *(uint64_t *)ctx = checked;
    return length == 300 && checked < 200;
}

static void verification_tells_how_far_it_is(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = make_log(f);
    uint64_t told = 0;

    assert_ok(hw_core_verify(core, stop_at_200, &told, &f->err));
    assert_int_equal(told, 300);
    hw_core_close(core);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, core_log_setup, core_log_teardown)
    const struct CMUnitTest tests[] = {
        TEST(pruning_frees_what_a_dry_run_said),
        TEST(a_log_in_one_segment_can_be_pruned),
        TEST(a_reader_survives_pruning),
        TEST(a_reader_far_behind_goes_on_after_pruning),
        TEST(a_length_below_what_was_pruned_cannot_be_opened),
        TEST(files_that_a_crash_left_are_removed_by_the_next_run),
        TEST(verification_tells_how_far_it_is),
    };

    return cmocka_run_group_tests_name("hypercore/core_prune", tests, NULL, NULL);
}
