/* Tests wire/json_text.c: what may be passed on of what a peer calls JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire/json_text.h"

static bool is_object(const char *text)
{
    return hw_json_is_object((struct hw_slice){(const uint8_t *)text, strlen(text)});
}

static void objects_are_passed_on(void **state)
{
    (void)state;
    assert_true(is_object("{}"));
    assert_true(is_object("{\"name\":\"a\\u001b\\\"b\",\"length\":12,\"peers\":[]}"));
    assert_true(is_object("{ \"a\" : [ 1 , -2.5e+3, 0, true, false, null, {\"b\":\"\"} ] }"));
    assert_true(is_object("{\"gr\xc3\xb6\xc3\x9f"
                          "e\":1}"));
}

static void what_is_no_object_is_not(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "}",
        "[]",
        "1",
        "\"a\"",
        "{}}",
        "{} ",
        "{}\n",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":1.}",
        "{\"a\":x}",
        "{\"a\":1e}",
        "{\"a\":[}",
        "{\"a\":[1}",
        "{\"a\":\"}",
        "{\"a\" \"b\"}",
        "{\"\\x\":1}",
        "{\"\\u12g4\":1}",
        "{},{\"path\":\"/etc\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (is_object(texts[i]))
            fail_msg("%s is taken for an object", texts[i]);
}

static void what_steers_a_terminal_is_not(void **state)
{
    (void)state;
    assert_false(is_object("{\"a\":\"\x1b[2J\"}"));
    assert_false(is_object("{\"a\":\"\x7f\"}"));
    assert_false(is_object("{\"a\":\n1}"));
    assert_false(hw_json_is_object((struct hw_slice){(const uint8_t *)"{\"\\\0\":1}", 8}));
}

static void objects_in_objects_have_a_limit(void **state)
{
    char text[10001];

    (void)state;
    memset(text, '[', sizeof(text) - 1);
    memcpy(text, "{\"a\":", 5);
    text[sizeof(text) - 1] = '\0';
    assert_false(is_object(text));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_passed_on),
        cmocka_unit_test(what_is_no_object_is_not),
        cmocka_unit_test(what_steers_a_terminal_is_not),
        cmocka_unit_test(objects_in_objects_have_a_limit),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
