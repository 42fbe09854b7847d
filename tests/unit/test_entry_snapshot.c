/* Page groups, snapshot indexes, and the sum of a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "entry/entry.h"

enum { PAGE_SIZE = 1024 };

static void group_comes_back_and_a_damaged_one_does_not(void **state)
{
    struct hw_group in = {
        .page_size = PAGE_SIZE, .group = 40000, .page_count = HW_GROUP_PAGES, .base_seq = 12};
    uint8_t *pages = calloc(2, (size_t)HW_GROUP_PAGES * PAGE_SIZE);
    uint8_t *back = pages + (size_t)HW_GROUP_PAGES * PAGE_SIZE;
    struct hw_buffer body = {0};
    struct hw_group_coder *coder;
    struct hw_cursor cursor;
    struct hw_group out;
    struct hw_error err;

    (void)state;
    for (int i = 0; i < HW_GROUP_PAGES; i++)
        memset(pages + (ptrdiff_t)i * PAGE_SIZE, i + 1, 40);
    assert_int_equal(hw_group_coder_new(&coder, &err), HW_OK);
    assert_int_equal(hw_group_encode(coder, &in, 90, pages, &body, &err), HW_OK);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_group_decode(coder, &cursor, 90, PAGE_SIZE, &out, back, &err), HW_OK);
    assert_int_equal(out.group, 40000);
    assert_int_equal(out.page_count, HW_GROUP_PAGES);
    assert_int_equal(out.base_seq, 12);
    assert_memory_equal(pages, back, (size_t)HW_GROUP_PAGES * PAGE_SIZE);

    /* At an earlier place the base would lie before the first block. */
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_group_decode(coder, &cursor, 77, PAGE_SIZE, &out, back, &err), HW_ECORRUPT);
    for (size_t size = 0; size < body.size; size++) {
        cursor = hw_cursor(body.bytes, size);
        assert_int_equal(hw_group_decode(coder, &cursor, 90, PAGE_SIZE, &out, back, &err),
                         HW_ECORRUPT);
    }
    hw_buffer_add_u8(&body, 0);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_group_decode(coder, &cursor, 90, PAGE_SIZE, &out, back, &err), HW_ECORRUPT);
    hw_group_coder_free(coder);
    hw_buffer_release(&body);
    free(pages);
}

static void index_comes_back_and_names_blocks_before_itself_alone(void **state)
{
    struct hw_snapshot in = {.page_size = 4096,
                             .page_count = 300,
                             .sum = 0xfedcba9876543210,
                             .least_base = 20,
                             .greatest_base = 900,
                             .group_count = 5,
                             .first_group = 1,
                             .groups_here = 4};
    struct hw_snapshot_group groups[4] = {{21, 20}, {22, 21}, {5, 800}, {999, 900}};
    struct hw_snapshot_group *back = calloc(HW_SNAPSHOT_GROUPS_MAX, sizeof(*back));
    struct hw_buffer body = {0};
    struct hw_snapshot out;
    struct hw_cursor cursor;

    (void)state;
    hw_snapshot_encode(&in, 1000, groups, &body);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_snapshot_decode(&cursor, 1000, &out, back), HW_OK);
    assert_int_equal(out.page_size, 4096);
    assert_int_equal(out.page_count, 300);
    assert_true(out.sum == in.sum);
    assert_int_equal(out.least_base, 20);
    assert_int_equal(out.greatest_base, 900);
    assert_int_equal(out.group_count, 5);
    assert_int_equal(out.first_group, 1);
    assert_int_equal(out.groups_here, 4);
    assert_memory_equal(groups, back, sizeof(groups));
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_snapshot_peek(&cursor, 1000, &out), HW_OK);
    for (size_t size = 0; size < body.size; size++) {
        cursor = hw_cursor(body.bytes, size);
        assert_int_equal(hw_snapshot_decode(&cursor, 1000, &out, back), HW_ECORRUPT);
    }
    groups[3].block_seq = 1000;
    hw_buffer_clear(&body);
    hw_snapshot_encode(&in, 1000, groups, &body);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_snapshot_decode(&cursor, 1000, &out, back), HW_ECORRUPT);
    groups[3] = (struct hw_snapshot_group){999, 901}; /* beyond the greatest base */
    hw_buffer_clear(&body);
    hw_snapshot_encode(&in, 1000, groups, &body);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_snapshot_decode(&cursor, 1000, &out, back), HW_ECORRUPT);
    hw_buffer_release(&body);
    free(back);
}

/* Computed with XXH3_64bits() over number and content in one piece. */
static void sum_of_a_page_is_the_hash_of_its_number_and_content(void **state)
{
    uint8_t page[4096];

    (void)state;
    for (size_t i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t)(i * 7 + i / 256);
    assert_true(hw_page_sum(1, page, 512) == 0xf2fec067ec845960);
    assert_true(hw_page_sum(0x01020304, page, 4096) == 0xf88a5b3c5b44b8e7);
}

static void lock_page_adds_nothing_to_the_sum(void **state)
{
    static uint8_t page[65536];

    (void)state;
    assert_true(hw_page_sum(0x40000000 / 4096 + 1, page, 4096) == 0);
    assert_true(hw_page_sum(0x40000000 / 65536 + 1, page, 65536) == 0);
    assert_true(hw_page_sum(0x40000000 / 4096 + 1, page, 65536) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_comes_back_and_a_damaged_one_does_not),
        cmocka_unit_test(index_comes_back_and_names_blocks_before_itself_alone),
        cmocka_unit_test(sum_of_a_page_is_the_hash_of_its_number_and_content),
        cmocka_unit_test(lock_page_adds_nothing_to_the_sum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
