/* Times as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "apply/apply.h"

static void every_way_to_write_a_time_means_the_same(void **state)
{
    static const char *const texts[] = {"2026-11-22T10:00:00Z", "2026-11-22 10:00:00",
                                        "2026-11-22T10:00",     "2026-11-22 10:00:00.000Z",
                                        "1795341600000",        "2026-11-22T10:00:00.0009999"};
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        int64_t time_ms = 0;

        assert_int_equal(hw_time_parse(texts[i], &time_ms, &err), HW_OK);
        assert_true(time_ms == 1795341600000);
    }
}

static void text_that_is_no_time_is_refused_and_changes_nothing(void **state)
{
    static const char *const texts[] = {"",
                                        "yesterday",
                                        "2026-13-01",
                                        "2026-02-29",
                                        "2026-11-22T24:00:00Z",
                                        "2026-11-22T10:00:00+01:00",
                                        "2026-11-22T10:00:00.Z",
                                        "2026-11-22T",
                                        "2026-11-22T10:00:5Z",
                                        "1969-12-31T23:59:59Z",
                                        "-5",
                                        "99999999999999999999"};
    int64_t time_ms = 42;
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(hw_time_parse(texts[i], &time_ms, &err), HW_EMISUSE);
        assert_true(time_ms == 42);
    }
}

static void what_is_formatted_can_be_parsed_for_every_day_of_centuries(void **state)
{
    struct hw_error err;

    (void)state;
    for (int64_t day = 0; day < 365 * 500; day += 1) {
        int64_t in = day * 86400000 + 45296789, out;
        char text[32];

        hw_time_format(in, text);
        assert_int_equal(hw_time_parse(text, &out, &err), HW_OK);
        assert_true(in == out);
    }
}

static void format_is_iso_with_milliseconds(void **state)
{
    char text[32];

    (void)state;
    hw_time_format(1795341600123, text);
    assert_string_equal(text, "2026-11-22T10:00:00.123Z");
    hw_time_format(951782400000, text); /* a leap day of a year divisible by 400 */
    assert_string_equal(text, "2000-02-29T00:00:00.000Z");
    hw_time_format(-1, text);
    assert_string_equal(text, "-1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_write_a_time_means_the_same),
        cmocka_unit_test(text_that_is_no_time_is_refused_and_changes_nothing),
        cmocka_unit_test(what_is_formatted_can_be_parsed_for_every_day_of_centuries),
        cmocka_unit_test(format_is_iso_with_milliseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
