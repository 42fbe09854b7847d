/* Tests node/rules.h: who may do what, as people write it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "node/rules.h"

#define ALICE "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define BOB   "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyo"

static const uint8_t alice[32] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa,
                                  0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
                                  0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
static const uint8_t bob[32] = {[31] = 1};
static const uint8_t mallory[32] = {[31] = 2};

static struct hw_slice slice(const char *text)
{
    return (struct hw_slice){(const uint8_t *)text, strlen(text)};
}

static unsigned rights(const char *text, const uint8_t *key, const char *name)
{
    struct hw_rules rules;
    struct hw_error err = {0};
    unsigned out;

    if (hw_rules_decode(slice(text), &rules, &err) != HW_OK)
        fail_msg("%s: %s", text, err.message);
    out = hw_rules_rights(&rules, key, slice(name));
    hw_rules_release(&rules);
    return out;
}

enum {
    R = HW_RIGHT_READ,
    W = HW_RIGHT_READ | HW_RIGHT_WRITE,
    C = HW_RIGHT_READ | HW_RIGHT_WRITE | HW_RIGHT_CREATE,
    P = HW_RIGHT_READ | HW_RIGHT_WRITE | HW_RIGHT_PROMOTE,
};

static void rules_give_rights_to_keys_and_names(void **state)
{
    static const struct {
        const char *text, *name;
        const uint8_t *key;
        unsigned rights;
    } cases[] = {
        {"", "a.db", alice, 0},
        {"# read * any\n\n  \t\n", "a.db", alice, 0},
        {"read * any", "a.db", mallory, R},
        {"read * " ALICE "\n", "a.db", alice, R},
        {"read * " ALICE " alice's laptop, the old one\r\n", "a.db", alice, R},
        {"read * " ALICE, "a.db", bob, 0},
        {"\tread,write\t*\t" BOB, "a.db", bob, W},
        {"write * " BOB, "a.db", bob, W},
        {"create * " BOB, "a.db", bob, C},
        {"promote * " BOB, "a.db", bob, P},
        {"read * any\nwrite a* " BOB "\nread c* " ALICE, "a.db", bob, W},
        {"read * any\nwrite a* " BOB "\nread c* " ALICE, "b.db", bob, R},
        {"create a* " BOB "\npromote *b " BOB, "ab", bob, C | P},
        {"read a.db,b.db " BOB, "b.db", bob, R},
        {"read a.db,b.db " BOB, "c.db", bob, 0},
        {"read *,!s* " BOB, "secret", bob, 0},
        {"read *,!s* " BOB, "open", bob, R},
        {"read !s*,* " BOB, "secret", bob, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (rights(cases[i].text, cases[i].key, cases[i].name) != cases[i].rights)
            fail_msg("%s: %s is not %u", cases[i].text, cases[i].name, cases[i].rights);
}

static void patterns_fit_whole_names(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool fits;
    } cases[] = {
        {"a", "a", true},
        {"a", "ab", false},
        {"ab", "a", false},
        {"*", "", true},
        {"*", "dir/a.db", true},
        {"?", "", false},
        {"?", "a", true},
        {"??", "a", false},
        {"*.db", "a.db", true},
        {"*.db", ".db", true},
        {"*.db", "a.dbx", false},
        {"a*b*c", "abc", true},
        {"a*b*c", "aXbXbXc", true},
        {"a*b*c", "aXbX", false},
        {"*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
        {"dir/*", "dir/a/b", true},
        {"dir/*", "dir", false},
        {"a?c", "a/c", true},
        {"my%20app", "my app", true},
        {"100%25", "100%", true},
        {"%2A", "*", true},
        {"%2a", "x", false},
        {"%3f", "?", true},
        {"%21a", "!a", true},
        {"a%2Cb", "a,b", true},
        {"gr\xc3\xbc\xc3\x9f*",
         "gr\xc3\xbc\xc3\x9f"
         "e",
         true},
        {"*", "\x01\x02", true},
        {"?", "\x02", true},
    };
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(text, sizeof(text), "read %s any", cases[i].pattern);
        if ((rights(text, alice, cases[i].name) != 0) != cases[i].fits)
            fail_msg("%s and %s", cases[i].pattern, cases[i].name);
    }
}

static void malformed_line_is_named_with_what_is_wrong(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"read", "no names"},
        {"read * any\nread * ", "line 2"},
        {"read *", "no key"},
        {"read * " ALICE "0", "not a key"},
        {"read * 00112233445566778899aabbccddeeff00112233445566778899aabbccddeef", "not a key"},
        {"read * anybody", "not a key"},
        {"reed * any", "\"reed\" is no right"},
        {"read, * any", "\"\" is no right"},
        {"Read * any", "no right"},
        {"admin * any", "promote"},
        {"read a,,b any", "nothing in it"},
        {"read a, any", "nothing in it"},
        {"read ! any", "nothing in it"},
        {"read !a,!b any", "only take away"},
        {"read a%zz any", "hex digits"},
        {"read a%4 any", "hex digits"},
        {"read a% any", "hex digits"},
        {"read a%0ab any", "control"},
        {"read \x01 any", "control"},
        {"read \x7f any", "control"},
    };
    struct hw_rules rules = {NULL, 77};
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        err = (struct hw_error){0};
        assert_int_equal(hw_rules_decode(slice(cases[i].text), &rules, &err), HW_EMISUSE);
        if (strstr(err.message, cases[i].says) == NULL || strstr(err.message, "line ") == NULL)
            fail_msg("%s: %s", cases[i].text, err.message);
        assert_int_equal(rules.count, 77); /* untouched */
    }
}

static void many_rules_are_found_by_key(void **state)
{
    enum { COUNT = 3000 };
    struct hw_rules rules = {0};
    struct hw_error err = {0};
    uint8_t key[32] = {0};

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        key[0] = (uint8_t)(i * 7919 % 251);
        key[1] = (uint8_t)(i / 251);
        assert_int_equal(hw_rules_add(&rules, HW_RIGHT_READ, slice("a"), key, &err), HW_OK);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        key[0] = (uint8_t)(i * 7919 % 251);
        key[1] = (uint8_t)(i / 251);
        assert_true(hw_rules_know(&rules, key));
        assert_int_equal(hw_rules_rights(&rules, key, slice("a")), HW_RIGHT_READ);
    }
    key[31] = 1;
    assert_false(hw_rules_know(&rules, key));
    assert_int_equal(hw_rules_add(&rules, HW_RIGHT_WRITE, slice("b"), NULL, &err), HW_OK);
    assert_true(hw_rules_know(&rules, key));
    assert_int_equal(hw_rules_rights(&rules, key, slice("b")), W);
    hw_rules_release(&rules);
    hw_rules_release(NULL);
}

static unsigned allocations_left;

static bool allow_some(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return allocations_left-- > 0;
}

static void memory_may_end_at_any_rule(void **state)
{
    static const char text[] = "read a any\nread a,b " ALICE "\nwrite a " BOB "\nread c " ALICE;
    enum hw_status status = HW_ENOMEM;

    (void)state;
    for (unsigned allowed = 0; status != HW_OK; allowed++) {
        struct hw_rules rules = {0};
        struct hw_error err;

        allocations_left = allowed;
        hw_alloc_set_hook(allow_some, NULL);
        status = hw_rules_decode(slice(text), &rules, &err);
        assert_true(status == HW_OK || status == HW_ENOMEM);
        if (status != HW_OK)
            assert_int_equal(rules.count, 0);
        hw_rules_release(&rules);
        assert_int_equal(hw_alloc_live(), 0);
        hw_alloc_set_hook(NULL, NULL);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_give_rights_to_keys_and_names),
        cmocka_unit_test(patterns_fit_whole_names),
        cmocka_unit_test(malformed_line_is_named_with_what_is_wrong),
        cmocka_unit_test(many_rules_are_found_by_key),
        cmocka_unit_test(memory_may_end_at_any_rule),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
