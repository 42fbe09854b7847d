/* The log itself: append, read, reopen, follow, in files and in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "env/env.h"
#include "hypercore/core_internal.h"

struct fixture {
    struct hw_env *env;
    char dir[64];
    struct hw_error err;
};

#define assert_ok(call) assert_status(call, HW_OK, f->err.message)
#define assert_status(value, expected, message)                                                    \
    do {                                                                                           \
        int value_ = (int)(value);                                                                 \
        if (value_ != (int)(expected))                                                             \
            fail_msg("%s: %s instead of %s: %s", #value, hw_status_name((enum hw_status)value_),   \
                     hw_status_name((enum hw_status)(expected)), message);                         \
    } while (0)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->env = hw_env_posix();
    (void)strcpy(f->dir, "/tmp/hw-core-XXXXXX");
    *state = f;
    return mkdtemp(f->dir) == NULL;
}

static bool remove_name(void *ctx, const char *name)
{
    struct fixture *f = ctx;
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    (void)f->env->ops->remove(f->env, path, NULL);
    return true;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    (void)f->env->ops->list(f->env, f->dir, remove_name, f, NULL);
    (void)f->env->ops->remove_dir(f->env, f->dir, NULL);
    free(f);
    return 0;
}

/* Block i of the log of these tests: its bytes and size follow from i. */
static size_t make_block(uint64_t i, uint8_t out[512])
{
    size_t size = (size_t)(i * 37 % 300);

    for (size_t j = 0; j < size; j++)
        out[j] = (uint8_t)(i * 7 + j);
    return size;
}

static void append(struct fixture *f, struct hw_core *core, unsigned count, const char *note)
{
    uint8_t block[512];

    assert_ok(hw_core_batch_begin(core, &f->err));
    for (unsigned i = 0; i < count; i++) {
        size_t size = make_block(hw_core_batch_next(core), block);

        assert_ok(hw_core_batch_add(core, block, size, &f->err));
    }
    assert_ok(hw_core_batch_commit(core, note, strlen(note), &f->err));
}

static void check_blocks(struct fixture *f, struct hw_core *core, uint64_t length)
{
    struct hw_buffer out = {0};
    uint8_t block[512];

    assert_int_equal(hw_core_length(core), length);
    for (uint64_t i = 0; i < length; i++) {
        size_t size = make_block(i, block);

        assert_ok(hw_core_read(core, i, &out, &f->err));
        assert_int_equal(out.size, size);
        assert_memory_equal(out.bytes, block, size);
    }
    assert_int_equal(hw_core_read(core, length, &out, &f->err), HW_ENOTFOUND);
    hw_buffer_release(&out);
}

static void check_note(struct hw_core *core, const char *note)
{
    struct hw_slice slice = hw_core_note(core);

    assert_int_equal(slice.size, strlen(note));
    assert_memory_equal(slice.bytes, note, slice.size);
}

static void what_was_appended_is_there_after_reopening(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL;
    struct hw_core_head head;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_int_equal(hw_core_length(core), 0);
    for (unsigned i = 0; i < 40; i++)
        append(f, core, i % 5, "note");
    append(f, core, 3, "last");
    check_blocks(f, core, 83);
    head = hw_core_head(core);
    hw_core_close(core);

    for (int mode = HW_CORE_READ; mode <= HW_CORE_WRITE; mode++) {
        struct hw_core_head again;

        assert_ok(
            hw_core_open(f->env, f->dir, (enum hw_core_mode)mode, UINT64_MAX, &core, &f->err));
        again = hw_core_head(core);
        assert_memory_equal(again.tree_hash, head.tree_hash, HW_KEY_SIZE);
        assert_int_equal(again.byte_length, head.byte_length);
        check_note(core, "last");
        check_blocks(f, core, 83);
        hw_core_close(core);
    }
}

static void a_log_in_memory_is_like_one_in_files(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, NULL, &core, &f->err));
    for (unsigned i = 0; i < 40; i++)
        append(f, core, i % 5, "n");
    check_blocks(f, core, 80);
    check_note(core, "n");
    hw_core_close(core);
}

static void segments_follow_each_other(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL, *reader = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    core->segment_size = 2000;
    append(f, core, 3, "a");
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 3, &reader, &f->err));
    for (unsigned i = 0; i < 60; i++) {
        append(f, core, 3, "b");
        if (i % 7 == 0)
            assert_ok(hw_core_refresh(reader, hw_core_length(core), &f->err));
    }
    assert_true(hw_segment_number(core->end.segment) > 5);
    check_blocks(f, core, 183);
    assert_ok(hw_core_refresh(reader, 183, &f->err));
    check_blocks(f, reader, 183);
    hw_core_close(reader);
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    append(f, core, 2, "c");
    check_blocks(f, core, 185);
    hw_core_close(core);
}

static void a_reader_stops_at_its_limit(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL, *reader = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    append(f, core, 4, "a");
    append(f, core, 4, "b");
    append(f, core, 4, "c");
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 8, &reader, &f->err));
    check_blocks(f, reader, 8);
    check_note(reader, "b");
    assert_ok(hw_core_refresh(reader, 11, &f->err)); /* in the middle of a batch */
    check_blocks(f, reader, 8);
    assert_ok(hw_core_refresh(reader, 12, &f->err));
    check_blocks(f, reader, 12);
    check_note(reader, "c");
    hw_core_close(reader);
    hw_core_close(core);
}

static void a_large_batch_is_one_batch(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL;
    struct hw_buffer out = {0};
    size_t size = 3 << 20;
    uint8_t *block = calloc(1, size);

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(hw_core_batch_begin(core, &f->err));
    for (unsigned i = 0; i < 6; i++) {
        memset(block, (int)i, size);
        assert_ok(hw_core_batch_add(core, block, i % 2 == 0 ? size : 400000 * i, &f->err));
    }
    assert_int_equal(hw_core_length(core), 0);
    assert_ok(hw_core_batch_commit(core, "x", 1, &f->err));
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    assert_int_equal(hw_core_length(core), 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_ok(hw_core_read(core, i, &out, &f->err));
        assert_int_equal(out.size, i % 2 == 0 ? size : 400000 * i);
        assert_int_equal(out.bytes[out.size - 1], i);
    }
    hw_buffer_release(&out);
    hw_core_close(core);
    free(block);
}

static void an_aborted_batch_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct hw_core *core = NULL;
    uint8_t block[512];

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    append(f, core, 5, "a");
    assert_ok(hw_core_batch_begin(core, &f->err));
    for (unsigned i = 0; i < 5000; i++)
        assert_ok(hw_core_batch_add(core, block, make_block(77, block), &f->err));
    hw_core_batch_abort(core);
    check_blocks(f, core, 5);
    append(f, core, 5, "b");
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    check_blocks(f, core, 10);
    check_note(core, "b");
    hw_core_close(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_appended_is_there_after_reopening, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_log_in_memory_is_like_one_in_files, setup, teardown),
        cmocka_unit_test_setup_teardown(segments_follow_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reader_stops_at_its_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_batch_is_one_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_batch_leaves_nothing, setup, teardown),
    };

    return cmocka_run_group_tests_name("hypercore/core", tests, NULL, NULL);
}
