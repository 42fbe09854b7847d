/* Tests the page sums of capture/internal.h: a cache that knows when it is not to be believed. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "capture/internal.h"
#include "sim/sim.h"

enum { PAGE_SIZE = 4096, LOCK_PAGE = 1 << 20 };

struct fixture {
    struct sim *sim;
    struct hw_env *env;
    struct hw_sums *sums;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){.sim = sim_new(1)};
    f.env = sim_env(f.sim);
    assert_int_equal(f.env->ops->make_dir(f.env, "/log", NULL), HW_OK);
    assert_int_equal(hw_sums_open(f.env, "/log", PAGE_SIZE, &f.sums, NULL), HW_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hw_sums_close(f->sums);
    assert_int_equal(sim_open_handles(f->sim), 0);
    sim_free(f->sim);
    return 0;
}

static uint64_t value_of(uint32_t page)
{
    return page * 0x9e3779b97f4a7c15U;
}

/* Set pages 1 to `count`; returns their XOR. */
static uint64_t fill(struct hw_sums *sums, uint32_t count)
{
    uint64_t total = 0;

    for (uint32_t page = 1; page <= count; page++) {
        assert_int_equal(hw_sums_set(sums, page, value_of(page), NULL), HW_OK);
        total ^= value_of(page);
    }
    return total;
}

static void what_is_set_is_read_before_and_after_commit(void **state)
{
    struct fixture *f = *state;
    uint64_t value = 0;

    fill(f->sums, 3000);
    assert_int_equal(hw_sums_get(f->sums, 2999, &value, NULL), HW_OK);
    assert_true(value == value_of(2999));
    assert_int_equal(hw_sums_commit(f->sums, 7, NULL), HW_OK);
    assert_int_equal(hw_sums_get(f->sums, 2999, &value, NULL), HW_OK);
    assert_true(value == value_of(2999));
    assert_int_equal(hw_sums_get(f->sums, 5000, &value, NULL), HW_OK);
    assert_true(value == 0);
}

static void a_committed_file_matches_its_seq_and_sum_only(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 20000);

    assert_int_equal(hw_sums_commit(f->sums, 7, NULL), HW_OK);
    assert_true(hw_sums_matches(f->sums, 7, 20000, total, LOCK_PAGE));
    assert_false(hw_sums_matches(f->sums, 8, 20000, total, LOCK_PAGE));
    assert_false(hw_sums_matches(f->sums, 7, 19999, total, LOCK_PAGE));
    assert_false(hw_sums_matches(f->sums, 7, 20000, total ^ 1, LOCK_PAGE));
}

static void the_lock_byte_page_does_not_count(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 10);

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    assert_true(hw_sums_matches(f->sums, 1, 10, total ^ value_of(4), 4));
}

static void an_aborted_batch_leaves_the_old_sums(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 10), value = 0;

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    assert_int_equal(hw_sums_set(f->sums, 4, 99, NULL), HW_OK);
    assert_int_equal(hw_sums_abort(f->sums, NULL), HW_OK);
    assert_int_equal(hw_sums_get(f->sums, 4, &value, NULL), HW_OK);
    assert_true(value == value_of(4));
    assert_true(hw_sums_matches(f->sums, 1, 10, total, LOCK_PAGE));
}

static void a_batch_too_large_for_memory_is_written_early_and_its_abort_invalidates(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 10);

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    fill(f->sums, 70000);
    assert_int_equal(hw_sums_abort(f->sums, NULL), HW_ECORRUPT);
    assert_false(hw_sums_matches(f->sums, 1, 10, total, LOCK_PAGE));
    total = fill(f->sums, 70000);
    assert_int_equal(hw_sums_commit(f->sums, 2, NULL), HW_OK);
    assert_true(hw_sums_matches(f->sums, 2, 70000, total, LOCK_PAGE));
}

/* Commits that cannot be written, all but the first `written` calls. */
static void commit_in_vain(struct fixture *f, uint64_t seq, uint64_t written)
{
    struct sim_fault full = {
        .kind = SIM_ENOSPC, .operations = SIM_WRITE, .at = written + 1, .for_ever = true};

    sim_set_fault(f->sim, &full);
    assert_int_equal(hw_sums_commit(f->sums, seq, NULL), HW_ENOSPC);
    sim_set_fault(f->sim, NULL);
}

static void what_a_commit_could_not_write_the_next_one_does(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 100), value = 0;

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    for (uint64_t seq = 2; seq < 10; seq++) {
        for (uint32_t page = 40; page < 43; page++) {
            assert_int_equal(hw_sums_get(f->sums, page, &value, NULL), HW_OK);
            total ^= value ^ seq;
            assert_int_equal(hw_sums_set(f->sums, page, seq, NULL), HW_OK);
        }
        commit_in_vain(f, seq, seq % 4);
        assert_int_equal(hw_sums_get(f->sums, 42, &value, NULL), HW_OK);
        assert_true(value == seq);
        assert_false(hw_sums_matches(f->sums, seq, 100, total, LOCK_PAGE));
    }
    assert_int_equal(hw_sums_commit(f->sums, 10, NULL), HW_OK);
    assert_true(hw_sums_matches(f->sums, 10, 100, total, LOCK_PAGE));
    assert_int_equal(hw_sums_set(f->sums, 50, 1, NULL), HW_OK);
    assert_int_equal(hw_sums_abort(f->sums, NULL), HW_OK); /* nothing of before is lost with it */
    assert_true(hw_sums_matches(f->sums, 10, 100, total, LOCK_PAGE));
}

static void what_was_not_written_is_lost_with_the_batch_after_it(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 100);

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    assert_int_equal(hw_sums_set(f->sums, 50, 1, NULL), HW_OK);
    commit_in_vain(f, 2, 0);
    assert_int_equal(hw_sums_set(f->sums, 51, 1, NULL), HW_OK);
    assert_int_equal(hw_sums_abort(f->sums, NULL), HW_ECORRUPT);
    assert_false(hw_sums_matches(f->sums, 2, 100, total ^ value_of(50) ^ 1, LOCK_PAGE));
    hw_sums_invalidate(f->sums); /* as it is computed again */
    total = fill(f->sums, 100);
    assert_int_equal(hw_sums_commit(f->sums, 2, NULL), HW_OK);
    assert_true(hw_sums_matches(f->sums, 2, 100, total, LOCK_PAGE));
}

static void a_flipped_bit_does_not_match(void **state)
{
    struct fixture *f = *state;
    uint64_t total = fill(f->sums, 100);

    assert_int_equal(hw_sums_commit(f->sums, 1, NULL), HW_OK);
    sim_file_flip(f->sim, "/log/sums", 32 + 8 * 50, 0x10);
    assert_false(hw_sums_matches(f->sums, 1, 100, total, LOCK_PAGE));
}

/* ------------------------------------------------------------------------- note, position */

static void a_note_comes_back_as_it_was(void **state)
{
    struct hw_note note = {
        .at = {.salts = {1, 2, 3, 4, 5, 6, 7, 8}, .frame = 70000, .checksum = {9, 10}},
        .page_count = 12345,
        .sum = 0x0123456789abcdef,
        .seq = 900,
        .snapshot_seq = UINT64_MAX,
        .label_seq = 1000,
        .log_since = 1 << 20,
        .raw_since = 1 << 30,
        .snapshot_bytes = 77,
        .time_ms = 1700000000000,
    };
    struct hw_note back = {0};
    struct hw_buffer bytes = {0};

    (void)state;
    hw_note_encode(&note, &bytes);
    assert_false(bytes.failed);
    assert_true(bytes.size <= HW_NOTE_SIZE_MAX);
    assert_int_equal(hw_note_decode((struct hw_slice){bytes.bytes, bytes.size}, &back), HW_OK);
    assert_memory_equal(&back.at, &note.at, sizeof(note.at));
    assert_true(back.seq == note.seq && back.snapshot_seq == UINT64_MAX && back.label_seq == 1000);
    assert_true(back.sum == note.sum && back.page_count == note.page_count);
    assert_true(back.log_since == note.log_since && back.raw_since == note.raw_since);
    assert_true(back.time_ms == note.time_ms && back.snapshot_bytes == 77);
    for (size_t size = 0; size < bytes.size; size++)
        assert_int_equal(hw_note_decode((struct hw_slice){bytes.bytes, size}, &back), HW_ECORRUPT);
    hw_buffer_release(&bytes);
}

static void a_torn_position_file_says_nothing(void **state)
{
    struct fixture *f = *state;
    struct hw_position_file written = {0}, read;
    size_t size = 0;

    sim_file_put(f->sim, "/app.db", "x", 1);
    assert_int_equal(hw_position_take(f->env, "/app.db", true, &written, NULL), HW_OK);
    assert_int_equal(hw_position_write(f->env, "/log", &written, NULL), HW_OK);
    assert_int_equal(hw_position_read(f->env, "/log", &read, NULL), HW_OK);
    assert_true(read.clean && hw_position_same_file(&read, &written));
    assert_string_equal(read.path, "/app.db");

    assert_non_null(sim_file_bytes(f->sim, "/log/position", &size));
    for (size_t i = 0; i < size; i += 7) {
        sim_file_flip(f->sim, "/log/position", i, 1);
        assert_int_equal(hw_position_read(f->env, "/log", &read, NULL), HW_ENOTFOUND);
        sim_file_flip(f->sim, "/log/position", i, 1);
    }
    sim_file_truncate(f->sim, "/log/position", size - 1);
    assert_int_equal(hw_position_read(f->env, "/log", &read, NULL), HW_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_set_is_read_before_and_after_commit, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_committed_file_matches_its_seq_and_sum_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_lock_byte_page_does_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(an_aborted_batch_leaves_the_old_sums, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_batch_too_large_for_memory_is_written_early_and_its_abort_invalidates, setup,
            teardown),
        cmocka_unit_test_setup_teardown(what_a_commit_could_not_write_the_next_one_does, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_was_not_written_is_lost_with_the_batch_after_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_flipped_bit_does_not_match, setup, teardown),
        cmocka_unit_test_setup_teardown(a_note_comes_back_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(a_torn_position_file_says_nothing, setup, teardown),
    };

    return cmocka_run_group_tests_name("capture sums", tests, NULL, NULL);
}
