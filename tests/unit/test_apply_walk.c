/* Entries of a log, one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/apply.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static void walk_names_every_entry_once(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 1024, 100, 1);
    static const enum hw_entry_type expected[] = {
        HW_ENTRY_GENESIS, HW_ENTRY_GROUP,       HW_ENTRY_GROUP, HW_ENTRY_SNAPSHOT,
        HW_ENTRY_LABEL,   HW_ENTRY_TRANSACTION, HW_ENTRY_GAP,
    };
    struct hw_entry_summary entry;
    struct hw_error err;
    uint64_t seq = 0, sum;

    (void)state;
    sum = log->sum;
    (void)log_snapshot(log, false);
    (void)log_label(log, "first");
    (void)log_transaction(log, 3, 101);
    (void)log_gap(log, "somebody else wrote", 90);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_int_equal(hw_entry_next(log->core, &seq, &entry, &err), HW_OK);
        assert_int_equal(entry.header.type, expected[i]);
        assert_int_equal(entry.seq, i);
        assert_int_equal(seq, i + 1);
        assert_true(entry.bytes > 0);
        if (i == 0 || i == 3)
            assert_true(entry.page_count == 100 && entry.sum == sum);
        if (i == 1 || i == 2)
            assert_int_equal(entry.pages, i == 1 ? 64 : 36);
        if (i == 4)
            assert_string_equal(entry.text, "first");
        if (i == 5)
            assert_true(entry.page_count == 101 && entry.pages >= 1 &&
                        entry.raw_bytes == entry.pages * 1024);
        if (i == 6) {
            assert_string_equal(entry.text, "somebody else wrote");
            assert_true(entry.page_count == 90 && entry.sum == log->sum);
        }
    }
    assert_int_equal(hw_entry_next(log->core, &seq, &entry, &err), HW_END);
    log_builder_free(log);
}

static void entry_of_many_blocks_is_found_from_each_of_them(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 4096, 0, 1);
    struct hw_entry_summary entry;
    struct hw_error err;
    uint64_t last = log_transaction(log, 0, 500), next;

    (void)state;
    (void)log_label(log, "behind");
    assert_in_range(last, 3, 10);
    for (uint64_t seq = 1; seq <= last; seq++) {
        next = seq;
        assert_int_equal(hw_entry_next(log->core, &next, &entry, &err), HW_OK);
        assert_int_equal(entry.first_seq, 1);
        assert_int_equal(entry.seq, last);
        assert_int_equal(entry.pages, 500);
        assert_true(entry.sum == log->sum);
        assert_int_equal(next, last + 1);
    }
    log_builder_free(log);
}

static void block_that_is_no_entry_is_corrupt_and_named(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 1024, 1, 1);
    struct hw_entry_summary entry;
    struct hw_error err;
    uint64_t seq = log_raw(log, HW_ENTRY_TRANSACTION, "?", 1);

    (void)state;
    assert_int_equal(hw_entry_next(log->core, &seq, &entry, &err), HW_ECORRUPT);
    assert_non_null(strstr(err.message, "block 1"));
    log_builder_free(log);
}

/* Else who asks for the entry that holds it would get the one before, again and again. */
static void block_that_continues_an_entry_which_has_ended_is_corrupt(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 3, 1);
    struct hw_entry_summary entry;
    struct hw_error err;
    uint8_t body[18] = {3}; /* no page changes */
    uint64_t seq;

    (void)state;
    hw_put_le64(body + 1, log->sum);
    hw_put_le64(body + 9, log->sum);
    (void)log_raw(log, HW_ENTRY_TRANSACTION, body, sizeof(body));
    seq = log_raw_part(log, HW_ENTRY_TRANSACTION, false, true, body, sizeof(body));
    assert_int_equal(hw_entry_next(log->core, &seq, &entry, &err), HW_ECORRUPT);
    assert_non_null(strstr(err.message, "block 2"));
    assert_int_equal(seq, 2);
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
        cmocka_unit_test(walk_names_every_entry_once),
        cmocka_unit_test(entry_of_many_blocks_is_found_from_each_of_them),
        cmocka_unit_test(block_that_is_no_entry_is_corrupt_and_named),
        cmocka_unit_test(block_that_continues_an_entry_which_has_ended_is_corrupt),
    };

    return cmocka_run_group_tests(tests, machine_up, machine_down);
}
