/* Tests base/error.h and base/status.h. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/error.h"

static void failure_carries_status_and_words(void **state)
{
    struct hw_error err = {.os_errno = 5};

    (void)state;
    assert_int_equal(hw_fail(&err, HW_ECORRUPT, "%s: block %d", "app.db", 91), HW_ECORRUPT);
    assert_int_equal(err.status, HW_ECORRUPT);
    assert_int_equal(err.os_errno, 0);
    assert_string_equal(err.message, "app.db: block 91");
}

static void failure_without_an_object_is_only_a_status(void **state)
{
    (void)state;
    assert_int_equal(hw_fail(NULL, HW_EIO, "%s", "x"), HW_EIO);
    assert_int_equal(hw_fail_errno(NULL, ENOSPC, "%s", "x"), HW_ENOSPC);
    assert_int_equal(hw_prefix(NULL, HW_EIO, "%s", "x"), HW_EIO);
}

static void errno_becomes_a_status_and_its_text(void **state)
{
    static const struct {
        int os_errno;
        enum hw_status status;
    } cases[] = {
        {ENOSPC, HW_ENOSPC},    {EDQUOT, HW_ENOSPC}, {ENOMEM, HW_ENOMEM},
        {ENOENT, HW_ENOTFOUND}, {EEXIST, HW_EEXIST}, {ENOTEMPTY, HW_EEXIST},
        {EAGAIN, HW_EBUSY},     {EIO, HW_EIO},       {EMFILE, HW_EIO},
    };
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hw_fail_errno(&err, cases[i].os_errno, "x"), cases[i].status);
        assert_int_equal(err.os_errno, cases[i].os_errno);
        assert_int_equal(strncmp(err.message, "x: ", 3), 0);
        assert_true(strlen(err.message) > 5);
        assert_false(hw_error_is_forbidden(&err));
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(hw_fail_errno(&err, ((int[]){EACCES, EPERM, EROFS})[i], "x"), HW_EIO);
        (void)hw_prefix(&err, HW_EIO, "a caller");
        assert_true(hw_error_is_forbidden(&err));
    }
}

static void prefixes_pile_up_in_front(void **state)
{
    struct hw_error err;

    (void)state;
    (void)hw_fail(&err, HW_ECORRUPT, "bad checksum");
    (void)hw_prefix(&err, HW_ECORRUPT, "frame %d", 3);
    assert_int_equal(hw_prefix(&err, HW_ECORRUPT, "replica.db"), HW_ECORRUPT);
    assert_string_equal(err.message, "replica.db: frame 3: bad checksum");
}

static void long_words_are_cut_not_overrun(void **state)
{
    struct {
        struct hw_error err;
        char guard[16];
    } box;
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    memset(box.guard, 'g', sizeof(box.guard));
    (void)hw_fail(&box.err, HW_EIO, "%s", text);
    assert_int_equal(strlen(box.err.message), HW_ERROR_SIZE - 1);
    (void)hw_fail_errno(&box.err, EIO, "%s", text);
    (void)hw_prefix(&box.err, HW_EIO, "%s", text);
    (void)hw_prefix(&box.err, HW_EIO, "front");
    assert_int_equal(strncmp(box.err.message, "front: xxx", 10), 0);
    assert_true(strlen(box.err.message) < HW_ERROR_SIZE);
    for (size_t i = 0; i < sizeof(box.guard); i++)
        assert_int_equal(box.guard[i], 'g');
}

static void every_status_has_its_own_name(void **state)
{
    (void)state;
    for (int a = HW_ETIMEOUT; a <= HW_AGAIN; a++) {
        assert_string_not_equal(hw_status_name((enum hw_status)a), "HW_UNKNOWN");
        for (int b = HW_ETIMEOUT; b < a; b++)
            assert_string_not_equal(hw_status_name((enum hw_status)a),
                                    hw_status_name((enum hw_status)b));
    }
    assert_string_equal(hw_status_name((enum hw_status)77), "HW_UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_carries_status_and_words),
        cmocka_unit_test(failure_without_an_object_is_only_a_status),
        cmocka_unit_test(errno_becomes_a_status_and_its_text),
        cmocka_unit_test(prefixes_pile_up_in_front),
        cmocka_unit_test(long_words_are_cut_not_overrun),
        cmocka_unit_test(every_status_has_its_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
