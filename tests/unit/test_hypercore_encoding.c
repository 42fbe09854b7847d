/* Hypercore's compact encoding, as base/buffer.h has it, against the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "support/json.h"

static void integers_are_written_in_the_shortest_form(void **state)
{
    struct json *json = json_load("encoding.json");

    (void)state;
    for (const struct json *at = json_get(json, "uint")->first; at != NULL; at = at->next) {
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        struct hw_buffer buffer = {0};
        struct hw_cursor cursor = hw_cursor(bytes, size);

        hw_buffer_add_uint(&buffer, json_integer(at, "value"));
        assert_int_equal(buffer.size, size);
        assert_memory_equal(buffer.bytes, bytes, size);
        assert_true(hw_cursor_uint(&cursor) == json_integer(at, "value"));
        assert_false(cursor.failed);
        assert_int_equal(hw_cursor_left(&cursor), 0);
        hw_buffer_release(&buffer);
        free(bytes);
    }
    for (const struct json *at = json_get(json, "uint64")->first; at != NULL; at = at->next) {
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);

        assert_int_equal(size, 8);
        assert_true(hw_get_le64(bytes) == json_integer(at, "value"));
        free(bytes);
    }
    json_free(json);
}

static void longer_forms_are_read(void **state)
{
    struct json *json = json_load("encoding.json");

    (void)state;
    for (const struct json *at = json_get(json, "uint_nonminimal_accepted")->first; at != NULL;
         at = at->next) {
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        struct hw_cursor cursor = hw_cursor(bytes, size);

        assert_true(hw_cursor_uint(&cursor) == json_integer(at, "value"));
        assert_false(cursor.failed);
        cursor = hw_cursor(bytes, size - 1);
        (void)hw_cursor_uint(&cursor);
        assert_true(cursor.failed);
        free(bytes);
    }
    json_free(json);
}

static void buffers_and_arrays_are_read(void **state)
{
    struct json *json = json_load("encoding.json");

    (void)state;
    for (const struct json *at = json_get(json, "buffer")->first; at != NULL; at = at->next) {
        size_t size, value_size, found;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        uint8_t *value = json_hex(json_get(at, "value"), &value_size);
        struct hw_cursor cursor = hw_cursor(bytes, size);

        found = (size_t)hw_cursor_uint(&cursor);
        assert_int_equal(found, value_size);
        if (found > 0)
            assert_memory_equal(hw_cursor_bytes(&cursor, found), value, found);
        assert_false(cursor.failed);
        free(bytes);
        free(value);
    }
    for (const struct json *at = json_get(json, "array_uint")->first; at != NULL; at = at->next) {
        size_t size;
        uint8_t *bytes = json_hex(json_get(at, "hex"), &size);
        struct hw_cursor cursor = hw_cursor(bytes, size);
        const struct json *element = json_get(at, "value")->first;

        assert_int_equal(hw_cursor_uint(&cursor), json_get(at, "value")->count);
        for (; element != NULL; element = element->next)
            assert_true(hw_cursor_uint(&cursor) == element->integer);
        assert_false(cursor.failed);
        assert_int_equal(hw_cursor_left(&cursor), 0);
        free(bytes);
    }
    json_free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_written_in_the_shortest_form),
        cmocka_unit_test(longer_forms_are_read),
        cmocka_unit_test(buffers_and_arrays_are_read),
    };

    return cmocka_run_group_tests_name("hypercore/encoding", tests, NULL, NULL);
}
