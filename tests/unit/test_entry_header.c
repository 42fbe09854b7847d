/* Headers and the small entries: what goes in comes out, and nothing else is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "entry/entry.h"

static void header_roundtrip(uint64_t seq, uint64_t snapshot_seq, uint64_t label_seq)
{
    struct hw_entry_header in = {.type = HW_ENTRY_TRANSACTION,
                                 .starts = true,
                                 .ends = false,
                                 .time_ms = 1790000000123,
                                 .snapshot_seq = snapshot_seq,
                                 .label_seq = label_seq};
    struct hw_buffer buffer = {0};
    struct hw_entry_header out;
    struct hw_cursor cursor;

    hw_entry_header_encode(&in, seq, &buffer);
    assert_false(buffer.failed);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_entry_header_decode(&cursor, seq, &out), HW_OK);
    assert_int_equal(hw_cursor_left(&cursor), 0);
    assert_int_equal(out.type, in.type);
    assert_true(out.starts);
    assert_false(out.ends);
    assert_int_equal(out.time_ms, in.time_ms);
    assert_true(out.snapshot_seq == snapshot_seq);
    assert_true(out.label_seq == label_seq);
    for (size_t size = 0; size < buffer.size; size++) {
        cursor = hw_cursor(buffer.bytes, size);
        assert_int_equal(hw_entry_header_decode(&cursor, seq, &out), HW_ECORRUPT);
    }
    hw_buffer_release(&buffer);
}

static void the_origin_of_a_transaction_comes_back_and_nothing_else_has_one(void **state)
{
    struct hw_entry_header in = {.type = HW_ENTRY_TRANSACTION,
                                 .starts = true,
                                 .has_origin = true,
                                 .snapshot_seq = UINT64_MAX,
                                 .label_seq = UINT64_MAX};
    struct hw_buffer buffer = {0};
    struct hw_entry_header out;
    struct hw_cursor cursor;

    (void)state;
    in.origin = hw_origin_make(1, 2, (const uint8_t *)"log!", (const uint8_t *)"luck");
    hw_entry_header_encode(&in, 9, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_entry_header_decode(&cursor, 9, &out), HW_OK);
    assert_int_equal(hw_cursor_left(&cursor), 0);
    assert_true(out.has_origin);
    assert_memory_equal(out.origin.bytes, in.origin.bytes, HW_ORIGIN_SIZE);
    for (size_t size = 0; size < buffer.size; size++) {
        cursor = hw_cursor(buffer.bytes, size);
        assert_int_equal(hw_entry_header_decode(&cursor, 9, &out), HW_ECORRUPT);
    }
    buffer.bytes[1] &= (uint8_t)~HW_ENTRY_START;
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_entry_header_decode(&cursor, 9, &out), HW_ECORRUPT);
    buffer.bytes[1] |= HW_ENTRY_START;
    buffer.bytes[0] = HW_ENTRY_LABEL;
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_entry_header_decode(&cursor, 9, &out), HW_ECORRUPT);
    hw_buffer_release(&buffer);
}

static void header_comes_back_as_it_was_and_no_prefix_of_it_does(void **state)
{
    (void)state;
    header_roundtrip(0, UINT64_MAX, UINT64_MAX);
    header_roundtrip(1, 0, UINT64_MAX);
    header_roundtrip(100000, 99999, 3);
    header_roundtrip(UINT64_MAX - 1, 1ULL << 40, 0);
}

static void header_with_a_distance_beyond_the_first_block_is_corrupt(void **state)
{
    uint8_t bytes[10] = {HW_ENTRY_LABEL, 3, 0, 0, 0, 0, 0, 0, 6, 0};
    struct hw_cursor cursor = hw_cursor(bytes, sizeof(bytes));
    struct hw_entry_header out;

    (void)state;
    assert_int_equal(hw_entry_header_decode(&cursor, 5, &out), HW_ECORRUPT);
    cursor = hw_cursor(bytes, sizeof(bytes));
    assert_int_equal(hw_entry_header_decode(&cursor, 6, &out), HW_OK);
    assert_int_equal(out.snapshot_seq, 0);
}

static void header_of_an_unknown_type_asks_for_a_newer_program(void **state)
{
    uint8_t bytes[10] = {HW_ENTRY_SWITCH + 1, 3};
    struct hw_cursor cursor = hw_cursor(bytes, sizeof(bytes));
    struct hw_entry_header out;

    (void)state;
    assert_int_equal(hw_entry_header_decode(&cursor, 5, &out), HW_EVERSION);
    bytes[0] = 0;
    cursor = hw_cursor(bytes, sizeof(bytes));
    assert_int_equal(hw_entry_header_decode(&cursor, 5, &out), HW_ECORRUPT);
    bytes[0] = HW_ENTRY_GAP;
    bytes[1] = 4;
    cursor = hw_cursor(bytes, sizeof(bytes));
    assert_int_equal(hw_entry_header_decode(&cursor, 5, &out), HW_ECORRUPT);
}

static void genesis_comes_back_and_a_newer_one_is_refused(void **state)
{
    struct hw_genesis in = {.format_version = HW_FORMAT_VERSION,
                            .page_size = 4096,
                            .database_id = {1, 2, 3},
                            .page_count = 17,
                            .sum = 0x1122334455667788};
    struct hw_buffer buffer = {0};
    struct hw_cursor cursor;
    struct hw_genesis out;

    (void)state;
    hw_genesis_encode(&in, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_genesis_decode(&cursor, &out), HW_OK);
    assert_int_equal(out.page_size, 4096);
    assert_int_equal(out.page_count, 17);
    assert_true(out.sum == in.sum);
    assert_memory_equal(out.database_id, in.database_id, sizeof(in.database_id));

    buffer.bytes[8] = HW_FORMAT_VERSION + 1;
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_genesis_decode(&cursor, &out), HW_EVERSION);
    buffer.bytes[8] = HW_FORMAT_VERSION;
    buffer.bytes[0] ^= 1;
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_genesis_decode(&cursor, &out), HW_ECORRUPT);

    in.page_size = 1000;
    hw_buffer_clear(&buffer);
    hw_genesis_encode(&in, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_genesis_decode(&cursor, &out), HW_ECORRUPT);
    hw_buffer_release(&buffer);
}

static void label_comes_back_and_an_empty_or_overlong_one_is_corrupt(void **state)
{
    struct hw_label in = {"before the migration"}, out;
    struct hw_buffer buffer = {0};
    struct hw_cursor cursor;

    (void)state;
    hw_label_encode(&in, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_label_decode(&cursor, &out), HW_OK);
    assert_string_equal(out.name, in.name);
    hw_buffer_add_u8(&buffer, 'x'); /* something behind it */
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_label_decode(&cursor, &out), HW_ECORRUPT);

    hw_buffer_clear(&buffer);
    hw_buffer_add_u8(&buffer, 0);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_label_decode(&cursor, &out), HW_ECORRUPT);

    hw_buffer_clear(&buffer);
    hw_buffer_add_u8(&buffer, HW_LABEL_SIZE_MAX + 1);
    memset(hw_buffer_extend(&buffer, HW_LABEL_SIZE_MAX + 1), 'a', HW_LABEL_SIZE_MAX + 1);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_label_decode(&cursor, &out), HW_ECORRUPT);
    hw_buffer_release(&buffer);
}

static void gap_comes_back(void **state)
{
    struct hw_gap in = {.from_sum = 1,
                        .to_sum = UINT64_MAX,
                        .from_page_count = 300,
                        .to_page_count = 70000,
                        .reason = "the log's disk was full for 3 h"};
    struct hw_buffer buffer = {0};
    struct hw_cursor cursor;
    struct hw_gap out;

    (void)state;
    hw_gap_encode(&in, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_gap_decode(&cursor, &out), HW_OK);
    assert_true(out.from_sum == 1 && out.to_sum == UINT64_MAX);
    assert_int_equal(out.from_page_count, 300);
    assert_int_equal(out.to_page_count, 70000);
    assert_string_equal(out.reason, in.reason);
    for (size_t size = 0; size < buffer.size; size++) {
        cursor = hw_cursor(buffer.bytes, size);
        assert_int_equal(hw_gap_decode(&cursor, &out), HW_ECORRUPT);
    }
    hw_buffer_release(&buffer);
}

static void switch_comes_back_and_no_prefix_or_other_role_does(void **state)
{
    struct hw_switch in = {.role = HW_SWITCH_CONTINUED,
                           .fork = 3,
                           .seq = UINT64_MAX - 1,
                           .page_count = 70000,
                           .sum = 0x0123456789abcdef};
    struct hw_buffer buffer = {0};
    struct hw_cursor cursor;
    struct hw_switch out;

    (void)state;
    memset(in.key, 0xc5, sizeof(in.key));
    hw_switch_encode(&in, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_switch_decode(&cursor, &out), HW_OK);
    assert_int_equal(out.role, HW_SWITCH_CONTINUED);
    assert_memory_equal(out.key, in.key, sizeof(in.key));
    assert_true(out.fork == 3 && out.seq == UINT64_MAX - 1 && out.sum == in.sum);
    assert_int_equal(out.page_count, 70000);
    for (size_t size = 0; size < buffer.size; size++) {
        cursor = hw_cursor(buffer.bytes, size);
        assert_int_equal(hw_switch_decode(&cursor, &out), HW_ECORRUPT);
    }
    buffer.bytes[0] = 2;
    cursor = hw_cursor(buffer.bytes, buffer.size);
    assert_int_equal(hw_switch_decode(&cursor, &out), HW_ECORRUPT);
    hw_buffer_release(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_origin_of_a_transaction_comes_back_and_nothing_else_has_one),
        cmocka_unit_test(header_comes_back_as_it_was_and_no_prefix_of_it_does),
        cmocka_unit_test(header_with_a_distance_beyond_the_first_block_is_corrupt),
        cmocka_unit_test(header_of_an_unknown_type_asks_for_a_newer_program),
        cmocka_unit_test(genesis_comes_back_and_a_newer_one_is_refused),
        cmocka_unit_test(label_comes_back_and_an_empty_or_overlong_one_is_corrupt),
        cmocka_unit_test(gap_comes_back),
        cmocka_unit_test(switch_comes_back_and_no_prefix_or_other_role_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
