/* A state read page by page, without a restore. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static void check_pages(struct log_builder *log, struct hw_past *past,
                        const struct log_state *expected)
{
    struct hw_state found = hw_past_state(past);
    uint8_t *content = test_malloc(log->page_size);
    struct hw_error err;

    assert_int_equal(found.seq, expected->seq);
    assert_int_equal(found.page_count, expected->page_count);
    assert_true(found.sum == expected->sum);
    /* Backwards and forwards, so that the groups kept come and go. */
    for (uint32_t i = 0; i < 2 * expected->page_count; i++) {
        uint32_t p =
            i < expected->page_count ? expected->page_count - i : i - expected->page_count + 1;

        assert_int_equal(hw_past_read(past, p, content, &err), HW_OK);
        assert_memory_equal(content, expected->pages + (size_t)(p - 1) * log->page_size,
                            log->page_size);
    }
    assert_int_equal(hw_past_read(past, expected->page_count + 1, content, &err), HW_END);
    assert_int_equal(hw_past_read(past, 0, content, &err), HW_EMISUSE);
    test_free(content);
}

static void check_from(struct log_builder *log, uint64_t first)
{
    for (uint64_t seq = first; seq < hw_core_length(log->core); seq++) {
        struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = seq};
        struct hw_past *past;
        struct hw_error err;

        if (hw_past_open(sim_env(machine), log->core, &target, &past, &err) != HW_OK)
            fail_msg("seq %d: %s", (int)seq, err.message);
        check_pages(log, past, log_state_at(log, seq));
        hw_past_close(past);
    }
    assert_int_equal(sim_open_handles(machine), 0);
}

static void every_page_of_every_state_can_be_read(void **state)
{
    static const uint32_t page_sizes[] = {512, 4096, 65536};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct log_builder *log = log_builder_new(sim_env(machine), page_sizes[i], 200, 2);
        uint64_t first = log_snapshot(log, false);

        (void)log_transaction(log, 5, 210);
        (void)log_transaction(log, 5, 100);
        (void)log_transaction(log, 5, 230);
        log_snapshot_group(log);
        (void)log_transaction(log, 50, 230);
        log_snapshot_group(log);
        (void)log_transaction(log, 50, 150);
        (void)log_snapshot(log, false);
        (void)log_transaction(log, 5, 151);
        check_from(log, first);
        log_builder_free(log);
    }
}

static void pages_of_states_around_fuzzy_snapshots_can_be_read(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct log_builder *log = log_builder_new(sim_env(machine), 512, 300, seed);
        uint64_t first = log_snapshot(log, false);

        log_mix(log, 30);
        check_from(log, first);
        log_builder_free(log);
    }
}

static void pages_given_up_do_not_come_back_from_their_group(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 120, 2);
    uint64_t first = log_snapshot(log, false);

    (void)state;
    (void)log_transaction(log, 5, 60);
    (void)log_transaction(log, 0, 120);
    check_from(log, first);
    log_builder_free(log);
}

static void state_without_entries_after_its_snapshot_needs_no_file(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 120, 2);
    uint64_t opened, first = log_snapshot(log, false);

    (void)state;
    opened = sim_count(machine, SIM_OPEN, "hyperwal-");
    check_from(log, first);
    assert_int_equal(sim_count(machine, SIM_OPEN, "hyperwal-"), opened);
    log_builder_free(log);
}

static bool fails_at(void *ctx, size_t size)
{
    long *left = ctx;

    (void)size;
    return (*left)-- != 0;
}

static void failed_allocation_is_reported_and_leaks_nothing(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 120, 2);
    struct hw_target target = {.kind = HW_TARGET_HEAD};
    enum hw_status status = HW_ENOMEM;
    uint8_t content[512];
    struct hw_error err;
    long nth = 0;

    (void)state;
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 5, 130);
    for (; status != HW_OK && nth < 1000; nth++) {
        struct hw_past *past = NULL;
        long left = nth;

        hw_alloc_set_hook(fails_at, &left);
        status = hw_past_open(sim_env(machine), log->core, &target, &past, &err);
        if (status == HW_OK)
            status = hw_past_read(past, 100, content, &err);
        hw_past_close(past);
        hw_alloc_set_hook(NULL, NULL);
        assert_true(status == HW_OK || status == HW_ENOMEM);
    }
    assert_in_range(nth, 10, 200);
    assert_memory_equal(content, log->pages + 99 * 512, 512);
    log_builder_free(log);
}

static int machine_up(void **state)
{
    (void)state;
    machine = sim_new(0);
    return 0;
}

static int machine_down(void **state)
{
    (void)state;
    sim_free(machine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_of_every_state_can_be_read),
        cmocka_unit_test(pages_of_states_around_fuzzy_snapshots_can_be_read),
        cmocka_unit_test(pages_given_up_do_not_come_back_from_their_group),
        cmocka_unit_test(state_without_entries_after_its_snapshot_needs_no_file),
        cmocka_unit_test(failed_allocation_is_reported_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, machine_up, machine_down);
}
