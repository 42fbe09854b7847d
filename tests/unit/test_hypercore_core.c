/* The log itself: append, read, reopen, follow, in files and in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/core_internal.h"
#include "support/core_log.h"

static void what_was_appended_is_there_after_reopening(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    struct hw_core_head head;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_int_equal(hw_core_length(core), 0);
    for (unsigned i = 0; i < 40; i++)
        assert_ok(core_log_append(core, i % 5, "note", &f->err));
    assert_ok(core_log_append(core, 3, "last", &f->err));
    core_log_check_all(core, 83);
    head = hw_core_head(core);
    hw_core_close(core);

    for (int mode = HW_CORE_READ; mode <= HW_CORE_WRITE; mode++) {
        struct hw_core_head again;

        assert_ok(
            hw_core_open(f->env, f->dir, (enum hw_core_mode)mode, UINT64_MAX, &core, &f->err));
        again = hw_core_head(core);
        assert_memory_equal(again.tree_hash, head.tree_hash, HW_KEY_SIZE);
        assert_int_equal(again.byte_length, head.byte_length);
        core_log_check_note(core, "last");
        core_log_check_all(core, 83);
        hw_core_close(core);
    }
}

static void a_log_in_memory_is_like_one_in_files(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, NULL, &core, &f->err));
    for (unsigned i = 0; i < 40; i++)
        assert_ok(core_log_append(core, i % 5, "n", &f->err));
    core_log_check_all(core, 80);
    core_log_check_note(core, "n");
    hw_core_close(core);
}

static void segments_follow_each_other(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL, *reader = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    core->segment_size = 2000;
    assert_ok(core_log_append(core, 3, "a", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 3, &reader, &f->err));
    for (unsigned i = 0; i < 60; i++) {
        assert_ok(core_log_append(core, 3, "b", &f->err));
        if (i % 7 == 0)
            assert_ok(hw_core_refresh(reader, hw_core_length(core), &f->err));
    }
    assert_true(hw_segment_number(core->end.segment) > 5);
    core_log_check_all(core, 183);
    assert_ok(hw_core_refresh(reader, 183, &f->err));
    core_log_check_all(reader, 183);
    hw_core_close(reader);
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    assert_ok(core_log_append(core, 2, "c", &f->err));
    core_log_check_all(core, 185);
    hw_core_close(core);
}

static void a_reader_stops_at_its_limit(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL, *reader = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 4, "a", &f->err));
    assert_ok(core_log_append(core, 4, "b", &f->err));
    assert_ok(core_log_append(core, 4, "c", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 8, &reader, &f->err));
    core_log_check_all(reader, 8);
    core_log_check_note(reader, "b");
    assert_ok(hw_core_refresh(reader, 11, &f->err)); /* in the middle of a batch */
    core_log_check_all(reader, 8);
    assert_ok(hw_core_refresh(reader, 12, &f->err));
    core_log_check_all(reader, 12);
    core_log_check_note(reader, "c");
    hw_core_close(reader);
    hw_core_close(core);
}

static const struct hw_env_ops *system_ops;
static unsigned read_count;

static enum hw_status read_counted(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                   struct hw_error *err)
{
    read_count++;
    return system_ops->read_at(file, offset, buf, size, err);
}

/* Small blocks come in windows, also while the log grows and goes on in other segments. */
static void blocks_read_in_turn_cost_few_reads(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL, *reader = NULL;
    static struct hw_env_ops counting;
    uint64_t next = 0;

    system_ops = f->env->ops;
    counting = *system_ops;
    counting.read_at = read_counted;
    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 1, "a", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 1, &reader, &f->err));
    for (unsigned round = 0; round < 4; round++) {
        core->segment_size = round == 2 ? 3000 : 1 << 20;
        for (unsigned i = 0; i < 40; i++)
            assert_ok(core_log_append(core, 1 + i % 9, "b", &f->err));
        assert_ok(hw_core_refresh(reader, hw_core_length(core) - 3, &f->err));
        f->env->ops = &counting;
        read_count = 0;
        while (next < hw_core_length(reader))
            assert_ok(core_log_check(reader, next++, &f->err));
        f->env->ops = system_ops;
        if (round == 0) /* of 180 blocks in 41 records */
            assert_in_range(read_count, 1, 30);
    }
    assert_status(core_log_check(reader, next, &f->err), HW_ENOTFOUND, &f->err);
    hw_core_close(reader);
    hw_core_close(core);
}

/* What was read ahead is a guess: if the file says something else by now, that counts. */
static void what_was_read_ahead_is_checked(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL, *reader = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 30, "a", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 30, &reader, &f->err));
    for (unsigned i = 0; i < 10; i++)
        assert_ok(core_log_check(reader, i, &f->err));
    assert_true(reader->ahead.window_size > 0 && reader->ahead.slots.count > 0);
    memset(reader->ahead.window, 0xaa, reader->ahead.window_size);
    assert_ok(core_log_check(reader, 10, &f->err));
    for (unsigned i = 11; i < 15; i++)
        assert_ok(core_log_check(reader, i, &f->err));
    memset(reader->ahead.slots.bytes, 0, sizeof(reader->ahead.slots.bytes));
    assert_ok(core_log_check(reader, 15, &f->err));
    assert_ok(core_log_check(reader, 16, &f->err));
    reader->ahead.record.start += 1;
    assert_ok(core_log_check(reader, 17, &f->err));
    hw_core_close(reader);
    hw_core_close(core);
}

/* Nodes near each other, as an answer wants them, from one read and from one read each. */
static void nodes_read_in_a_row_are_those_read_alone(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    for (unsigned i = 0; i < 40; i++)
        assert_ok(core_log_append(core, 1 + i % 7, "n", &f->err));
    for (uint64_t block = 0; block < hw_core_length(core); block++) {
        struct hw_slots_ahead ahead;

        ahead.count = 0;
        for (uint64_t at = 2 * block; hw_flat_right_span(at) < 2 * hw_core_length(core);
             at = hw_flat_parent(at)) {
            struct hw_node alone, in_row;

            assert_ok(hw_tree_file_node(&core->tree, at, &alone, &f->err));
            assert_ok(hw_tree_file_node_ahead(&core->tree, at, hw_core_length(core), &ahead,
                                              &in_row, &f->err));
            assert_true(ahead.count > 0);
            assert_int_equal(in_row.index, at);
            assert_int_equal(in_row.size, alone.size);
            assert_memory_equal(in_row.hash, alone.hash, HW_HASH_SIZE);
        }
    }
    hw_core_close(core);
}

static void a_large_batch_is_one_batch(void **state)
{
    struct core_log *f = *state;
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

static bool keep_last(void *ctx, uint64_t index)
{
    return index >= *(const uint64_t *)ctx;
}

static void a_log_in_memory_gives_back_what_is_pruned(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    uint64_t from = 180, freed = 0, before;

    assert_ok(hw_core_create(f->env, NULL, &core, &f->err));
    core->segment_size = 100000; /* more than a chunk of memory */
    for (unsigned i = 0; i < 200; i++) {
        uint8_t block[5000];

        memset(block, (int)i, sizeof(block));
        assert_ok(hw_core_batch_begin(core, &f->err));
        assert_ok(hw_core_batch_add(core, block, sizeof(block), &f->err));
        assert_ok(hw_core_batch_commit(core, "n", 1, &f->err));
    }
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    before = hw_core_stored_bytes(core);
    assert_ok(hw_core_prune(core, keep_last, &from, false, &freed, &f->err));
    assert_true(freed > 800000);
    assert_true(hw_core_stored_bytes(core) <= before - freed + 500);
    assert_status(core_log_check(core, 10, &f->err), HW_EPRUNED, &f->err);
    for (uint64_t i = from; i < 200; i++) {
        struct hw_buffer out = {0};

        assert_ok(hw_core_read(core, i, &out, &f->err));
        assert_int_equal(out.size, 5000);
        assert_int_equal(out.bytes[4999], i);
        hw_buffer_release(&out);
    }
    assert_ok(hw_core_verify(core, NULL, NULL, &f->err));
    hw_core_close(core);
}

static void an_aborted_batch_leaves_nothing(void **state)
{
    struct core_log *f = *state;
    struct hw_core *core = NULL;
    uint8_t block[CORE_LOG_BLOCK_MAX];

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, 5, "a", &f->err));
    assert_ok(hw_core_batch_begin(core, &f->err));
    for (unsigned i = 0; i < 5000; i++)
        assert_ok(hw_core_batch_add(core, block, core_log_block(77, block), &f->err));
    hw_core_batch_abort(core);
    core_log_check_all(core, 5);
    assert_ok(core_log_append(core, 5, "b", &f->err));
    hw_core_close(core);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err));
    core_log_check_all(core, 10);
    core_log_check_note(core, "b");
    hw_core_close(core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_appended_is_there_after_reopening, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(a_log_in_memory_is_like_one_in_files, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(segments_follow_each_other, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(a_reader_stops_at_its_limit, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(blocks_read_in_turn_cost_few_reads, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(what_was_read_ahead_is_checked, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(nodes_read_in_a_row_are_those_read_alone, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(a_large_batch_is_one_batch, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(a_log_in_memory_gives_back_what_is_pruned, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(an_aborted_batch_leaves_nothing, core_log_setup,
                                        core_log_teardown),
    };

    return cmocka_run_group_tests_name("hypercore/core", tests, NULL, NULL);
}
