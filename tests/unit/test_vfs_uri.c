/* Tests of vfs/uri.h: what a database's URI may say, and what it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/sqlite.h"
#include "vfs/uri.h"

/* Parse with up to three parameters, given as name, value, ..., NULL. */
static enum hw_status parse(struct hw_uri *uri, struct hw_error *error, ...)
{
    const char *parameters[6];
    int count = 0;
    sqlite3_filename name;
    enum hw_status status;
    va_list args;

    va_start(args, error);
    for (const char *word = va_arg(args, const char *); word != NULL;
         word = va_arg(args, const char *))
        parameters[count++] = word;
    va_end(args);
    name = sqlite3_create_filename("/x/app.db", "/x/app.db-journal", "/x/app.db-wal", count / 2,
                                   parameters);
    assert_non_null(name);
    memset(uri, 0, sizeof(*uri));
    *error = (struct hw_error){0};
    status = hw_uri_parse(name, uri, error);
    uri->log_dir = uri->log_dir == NULL ? NULL : "given"; /* they point into the name */
    uri->listen = uri->listen == NULL ? NULL : "given";
    uri->target.label = uri->target.label == NULL ? NULL : "given";
    sqlite3_free_filename(name);
    return status;
}

static void no_parameters_mean_the_defaults(void **state)
{
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    assert_int_equal(parse(&uri, &error, NULL), HW_OK);
    assert_null(uri.log_dir);
    assert_false(uri.memory);
    assert_false(uri.past);
    assert_false(uri.pass_through);
    assert_false(uri.continue_on_timeout);
    assert_int_equal(uri.durability, HW_DURABILITY_ASYNC);
    assert_int_equal(uri.timeout_ms, 10000);
    assert_int_equal(uri.replicas, 1);
    assert_null(uri.listen);
}

static void every_parameter_arrives(void **state)
{
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    assert_int_equal(parse(&uri, &error, "log", "/logs", "timeout", "250", NULL), HW_OK);
    assert_string_equal(uri.log_dir, "given");
    assert_false(uri.memory);
    assert_int_equal(parse(&uri, &error, "storage", "memory", "timeout", "250", NULL), HW_OK);
    assert_true(uri.memory);
    assert_int_equal(uri.timeout_ms, 250);
    assert_int_equal(
        parse(&uri, &error, "durability", "LOCAL", "on_timeout", "continue", "replicas", "3", NULL),
        HW_OK);
    assert_int_equal(uri.durability, HW_DURABILITY_LOCAL);
    assert_true(uri.continue_on_timeout);
    assert_int_equal(uri.replicas, 3);
    assert_int_equal(parse(&uri, &error, "durability", "remote_apply", "listen", "tcp://h:1", NULL),
                     HW_OK);
    assert_int_equal(uri.durability, HW_DURABILITY_REMOTE_APPLY);
    assert_string_equal(uri.listen, "given");
    assert_int_equal(parse(&uri, &error, "immutable", "1", NULL), HW_OK);
    assert_true(uri.pass_through);
    assert_int_equal(parse(&uri, &error, "nolock", "on", NULL), HW_OK);
    assert_true(uri.pass_through);
}

static void the_past_is_named_by_seq_time_or_label(void **state)
{
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    assert_int_equal(parse(&uri, &error, "seq", "0", NULL), HW_OK);
    assert_true(uri.past);
    assert_int_equal(uri.target.kind, HW_TARGET_SEQ);
    assert_int_equal(parse(&uri, &error, "time", "2026-11-22T10:00:00Z", NULL), HW_OK);
    assert_int_equal(uri.target.kind, HW_TARGET_TIME);
    assert_int_equal(uri.target.time_ms, 1795341600000);
    assert_int_equal(parse(&uri, &error, "label", "before", NULL), HW_OK);
    assert_int_equal(uri.target.kind, HW_TARGET_LABEL);
    assert_string_equal(uri.target.label, "given");
}

static void wrong_values_are_errors_that_name_parameter_and_value(void **state)
{
    static const char *const wrong[][2] = {
        {"storage", "tape"},
        {"durability", "strong"},
        {"timeout", "soon"},
        {"timeout", "4294967296"},
        {"replicas", "-1"},
        {"replicas", "257"},
        {"on_timeout", "maybe"},
        {"seq", "1x"},
        {"seq", "18446744073709551616"},
        {"time", "yesterday"},
    };
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(parse(&uri, &error, wrong[i][0], wrong[i][1], NULL), HW_EMISUSE);
        assert_non_null(strstr(error.message, wrong[i][0]));
        assert_non_null(strstr(error.message, wrong[i][1]));
    }
    assert_int_equal(parse(&uri, &error, "log", "", NULL), HW_EMISUSE);
    assert_int_equal(parse(&uri, &error, "label", "", NULL), HW_EMISUSE);
    assert_int_equal(parse(&uri, &error, "seq", "", NULL), HW_EMISUSE);
}

static void parameters_that_contradict_each_other_are_errors(void **state)
{
    static const char *const wrong[][5] = {
        {"durability", "remote", "replicas", "0", "replicas=0"},
        {"durability", "remote_apply", "replicas", "0", "replicas=0"},
        {"log", "/x", "storage", "memory", "in memory"},
        {"listen", "tcp://h:1", "seq", "5", "past"},
        {"listen", "tcp://h:1", "immutable", "1", "immutable"},
        {"listen", "", "timeout", "5", "listen"},
        {"access", "/keys", "timeout", "5", "access: '/keys'"},
        {"access", "", "listen", "tcp://h:1", "access"},
    };
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(
            parse(&uri, &error, wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3], NULL),
            HW_EMISUSE);
        assert_non_null(strstr(error.message, wrong[i][4]));
    }
    /* What waits for nobody may name any number. */
    assert_int_equal(parse(&uri, &error, "durability", "local", "replicas", "0", NULL), HW_OK);
}

static void two_ways_to_name_the_past_are_an_error(void **state)
{
    struct hw_uri uri;
    struct hw_error error;

    (void)state;
    assert_int_equal(parse(&uri, &error, "seq", "1", "label", "a", NULL), HW_EMISUSE);
    assert_non_null(strstr(error.message, "exclude"));
}

static void numbers_are_digits_that_fit(void **state)
{
    uint64_t value = 7;

    (void)state;
    assert_int_equal(hw_number_parse("18446744073709551615", &value, NULL), HW_OK);
    assert_true(value == UINT64_MAX);
    assert_int_equal(hw_number_parse("18446744073709551616", &value, NULL), HW_EMISUSE);
    assert_int_equal(hw_number_parse("99999999999999999999", &value, NULL), HW_EMISUSE);
    assert_int_equal(hw_number_parse("", &value, NULL), HW_EMISUSE);
    assert_int_equal(hw_number_parse("+1", &value, NULL), HW_EMISUSE);
    assert_true(value == UINT64_MAX); /* failures leave it alone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_parameters_mean_the_defaults),
        cmocka_unit_test(every_parameter_arrives),
        cmocka_unit_test(the_past_is_named_by_seq_time_or_label),
        cmocka_unit_test(wrong_values_are_errors_that_name_parameter_and_value),
        cmocka_unit_test(parameters_that_contradict_each_other_are_errors),
        cmocka_unit_test(two_ways_to_name_the_past_are_an_error),
        cmocka_unit_test(numbers_are_digits_that_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
