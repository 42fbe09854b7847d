/* Tests base/buffer.h and base/alloc.h. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/buffer.h"

static void integers_are_little_endian(void **state)
{
    static const uint8_t expected[] = {0x07, 0x04, 0x03, 0x02, 0x01, 8, 7, 6, 5, 4, 3, 2, 1};
    struct hw_buffer buffer = {0};

    (void)state;
    hw_buffer_add_u8(&buffer, 7);
    hw_buffer_add_le32(&buffer, 0x01020304);
    hw_buffer_add_le64(&buffer, 0x0102030405060708);
    assert_int_equal(buffer.size, sizeof(expected));
    assert_memory_equal(buffer.bytes, expected, sizeof(expected));
    hw_buffer_release(&buffer);
}

/* The thresholds of Hypercore's compact encoding: one byte, then 0xfd, 0xfe and 0xff as marks. */
static void uint_has_the_shortest_form(void **state)
{
    static const struct {
        uint64_t value;
        uint8_t bytes[9];
        size_t size;
    } cases[] = {
        {0, {0}, 1},
        {0xfc, {0xfc}, 1},
        {0xfd, {0xfd, 0xfd, 0}, 3},
        {0xffff, {0xfd, 0xff, 0xff}, 3},
        {0x10000, {0xfe, 0, 0, 1, 0}, 5},
        {0xffffffff, {0xfe, 0xff, 0xff, 0xff, 0xff}, 5},
        {0x100000000, {0xff, 0, 0, 0, 0, 1, 0, 0, 0}, 9},
        {UINT64_MAX, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 9},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hw_buffer buffer = {0};
        struct hw_cursor cursor;

        hw_buffer_add_uint(&buffer, cases[i].value);
        assert_int_equal(buffer.size, cases[i].size);
        assert_memory_equal(buffer.bytes, cases[i].bytes, cases[i].size);
        cursor = hw_cursor(buffer.bytes, buffer.size);
        assert_true(hw_cursor_uint(&cursor) == cases[i].value);
        assert_int_equal(hw_cursor_left(&cursor), 0);
        assert_false(cursor.failed);
        hw_buffer_release(&buffer);
    }
}

static void cursor_that_failed_stays_failed_and_gives_zero(void **state)
{
    static const uint8_t bytes[] = {1, 2, 3, 4, 5};
    struct hw_cursor cursor = hw_cursor(bytes, sizeof(bytes));

    (void)state;
    assert_int_equal(hw_cursor_le32(&cursor), 0x04030201);
    assert_int_equal(hw_cursor_le32(&cursor), 0);
    assert_true(cursor.failed);
    assert_int_equal(hw_cursor_u8(&cursor), 0);
    assert_null(hw_cursor_bytes(&cursor, 1));
    assert_true(hw_cursor_uint(&cursor) == 0);
    assert_true(cursor.failed);
}

static void cursor_never_reads_beyond_any_end(void **state)
{
    static const uint8_t bytes[] = {0xff, 1, 2, 3, 4, 5, 6, 7, 8};

    (void)state;
    for (size_t size = 0; size <= sizeof(bytes); size++) {
        uint8_t *copy = hw_alloc(size); /* exactly so many: valgrind and asan see the rest */
        struct hw_cursor cursor;

        assert_non_null(copy);
        memcpy(copy, bytes, size);
        cursor = hw_cursor(copy, size);
        (void)hw_cursor_uint(&cursor);
        assert_int_equal(cursor.failed, size < 9);
        cursor = hw_cursor(copy, size);
        assert_true((hw_cursor_bytes(&cursor, size) != NULL) != cursor.failed);
        cursor = hw_cursor(copy, size);
        assert_null(hw_cursor_bytes(&cursor, SIZE_MAX));
        assert_true(cursor.failed);
        hw_free(copy);
    }
}

static bool refuse(void *ctx, size_t size)
{
    (void)size;
    return !*(bool *)ctx;
}

static void append_without_memory_marks_the_buffer(void **state)
{
    struct hw_buffer buffer = {0};
    bool refuses = false;
    char block[1000] = {0};

    (void)state;
    hw_alloc_set_hook(refuse, &refuses);
    hw_buffer_add(&buffer, "abc", 3);
    refuses = true;
    hw_buffer_add(&buffer, block, sizeof(block));
    assert_true(buffer.failed);
    assert_memory_equal(buffer.bytes, "abc", 3);
    assert_null(hw_buffer_extend(&buffer, 5000));
    assert_int_equal(hw_buffer_reserve(&buffer, 1 << 20), HW_ENOMEM);
    refuses = false;
    hw_buffer_clear(&buffer);
    assert_false(buffer.failed);
    hw_buffer_add(&buffer, block, sizeof(block));
    assert_false(buffer.failed);
    assert_int_equal(buffer.size, sizeof(block));
    hw_buffer_release(&buffer);
    assert_int_equal(hw_alloc_live(), 0);
    hw_alloc_set_hook(NULL, NULL);
}

static void empty_and_null_buffers_can_be_released(void **state)
{
    struct hw_buffer buffer = {0};

    (void)state;
    hw_buffer_release(NULL);
    hw_buffer_release(&buffer);
    hw_buffer_add(&buffer, "x", 1);
    hw_buffer_release(&buffer);
    hw_buffer_release(&buffer);
    assert_null(buffer.bytes);
}

static void failed_realloc_leaves_the_memory_as_it_was(void **state)
{
    bool refuses = false;
    char *memory = hw_alloc(8);

    (void)state;
    assert_non_null(memory);
    memcpy(memory, "12345678", 8);
    refuses = true;
    hw_alloc_set_hook(refuse, &refuses);
    assert_null(hw_realloc(memory, 1 << 20));
    assert_null(hw_alloc(1));
    assert_null(hw_zalloc(1));
    assert_null(hw_strdup("x"));
    assert_null(hw_format("%d", 1));
    hw_alloc_set_hook(NULL, NULL);
    assert_memory_equal(memory, "12345678", 8);
    hw_free(memory);
}

static void formatted_text_is_as_long_as_it_must_be(void **state)
{
    char *text = hw_format("%s-%0300d", "a", 7);

    (void)state;
    assert_non_null(text);
    assert_int_equal(strlen(text), 302);
    hw_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_little_endian),
        cmocka_unit_test(uint_has_the_shortest_form),
        cmocka_unit_test(cursor_that_failed_stays_failed_and_gives_zero),
        cmocka_unit_test(cursor_never_reads_beyond_any_end),
        cmocka_unit_test(append_without_memory_marks_the_buffer),
        cmocka_unit_test(empty_and_null_buffers_can_be_released),
        cmocka_unit_test(failed_realloc_leaves_the_memory_as_it_was),
        cmocka_unit_test(formatted_text_is_as_long_as_it_must_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
