/* Tests wire/address.h. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "wire/address.h"

#define HEX_KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void addresses_say_where_to_dial_and_what_to_ask_for(void **state)
{
    static const struct {
        const char *url, *dial, *name;
    } cases[] = {
        {"hyper://example.org/app.db", "tcp://example.org:4970", "app.db"},
        {"hyper://127.0.0.1:81/app.db", "tcp://127.0.0.1:81", "app.db"},
        {"tcp://h:65535/a", "tcp://h:65535", "a"},
        {"hyper://[::1]/a", "tcp://[::1]:4970", "a"},
        {"hyper://[fe80::1%eth0]:5/a", "tcp://[fe80::1%eth0]:5", "a"},
        {"hyper://h/a%2Fb%3f%25%20c", "tcp://h:4970", "a/b?% c"},
        {"hyper://h/customers/acme.db", "tcp://h:4970", "customers/acme.db"},
        {"hyper://h/a/b/c%2F", "tcp://h:4970", "a/b/c/"},
        {"hyper://[1:2:3:4:5:6:7:8]/a", "tcp://[1:2:3:4:5:6:7:8]:4970", "a"},
        {"hyper://[::]/a", "tcp://[::]:4970", "a"},
        {"hyper://[1::]:7/a", "tcp://[1::]:7", "a"},
        {"hyper://[::ffff:1.2.3.4]/a", "tcp://[::ffff:1.2.3.4]:4970", "a"},
        {"hyper://[1:2:3:4:5:6:1.2.3.4]/a", "tcp://[1:2:3:4:5:6:1.2.3.4]:4970", "a"},
        {"hyper://[2001:DB8::7]/a", "tcp://[2001:DB8::7]:4970", "a"},
        {"hyper://example.org./a", "tcp://example.org.:4970", "a"},
        {"hyper://h/%6611223344556677889900112233445566778899001122334455667788", "tcp://h:4970",
         "f11223344556677889900112233445566778899001122334455667788"},
        {"ws://h:8080/app.db", "ws://h:8080/", "app.db"},
        {"ws://h/some/path/app.db", "ws://h:4970/some/path", "app.db"},
        {"ipc:///run/hyperwal.sock/app.db", "ipc:///run/hyperwal.sock", "app.db"},
        {"ipc://relative/sock/a b", "ipc://relative/sock", "a b"},
    };
    struct hw_address address;
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(hw_address_is_remote(cases[i].url));
        assert_int_equal(hw_address_parse(cases[i].url, &address, &err), HW_OK);
        assert_string_equal(address.dial, cases[i].dial);
        assert_string_equal(address.name, cases[i].name);
        assert_false(address.has_key);
    }
}

static void keys_are_known_in_both_spellings(void **state)
{
    /* The same key, in z-base-32. */
    static const char *const urls[] = {
        "hyper://h/" HEX_KEY,
        "ipc:///s/" HEX_KEY,
        "ws://h/path/00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF",
    };
    struct hw_address address;
    struct hw_error err;
    char text[2 * HW_KEY_SIZE + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        assert_int_equal(hw_address_parse(urls[i], &address, &err), HW_OK);
        assert_true(address.has_key);
        assert_string_equal(address.name, "");
        hw_key_format(address.key, text);
        assert_string_equal(text, HEX_KEY);
    }
    assert_int_equal(
        hw_address_parse("hyper://h/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyo", &address,
                         &err),
        HW_OK);
    assert_true(address.has_key);
    assert_int_equal(address.key[31], 1);
}

static const struct {
    const char *url, *says;
} wrong[] = {
    {"app.db", "hyper://"},
    {"", "hyper://"},
    {"http://h/a", "hyper://"},
    {"HYPER://h/a", "hyper://"},
    {"hyper:/h/a", "hyper://"},
    {"hyper://h", "/NAME"},
    {"hyper://h?server=1", "/NAME"},
    {"hyper://h/", "a name or a key"},
    {"hyper://h/?server=1", "a name or a key"},
    {"hyper://h//a", "around each /"},
    {"hyper://h/a/", "around each /"},
    {"hyper://h/a//b", "around each /"},
    {"ws://h/p/", "a name or a key"},
    {"ipc:///run/s/", "a name or a key"},
    {"hyper://h:0/a", "port"},
    {"hyper://h:65536/a", "port"},
    {"hyper://h:1234567/a", "port"},
    {"hyper://h:/a", "port"},
    {"hyper://h:x/a", "port"},
    {"hyper://h:-1/a", "port"},
    {"hyper://h:80 /a", "port"},
    {"hyper://[::1]:/a", "port"},
    {"hyper://[::1]:99999/a", "port"},
    {"hyper:///a", "no host is named"},
    {"hyper://:80/a", "no host is named"},
    {"hyper://*/a", "no host:"},
    {"hyper://a b/a", "no host:"},
    {"hyper://h\\h/a", "no host:"},
    {"hyper://user@h/a", "no user"},
    {"hyper://user:word@h:1/a", "no user"},
    {"hyper://.h/a", "dot too many"},
    {"hyper://h..h/a", "dot too many"},
    {"hyper://::1/a", "in brackets"},
    {"hyper://fe80::1/a", "in brackets"},
    {"hyper://fe80::abcd/a", "in brackets"},
    {"hyper://1:2:3:4:5:6:7:8/a", "in brackets"},
    {"hyper://[/a", "bracket without"},
    {"hyper://[::1/a", "bracket without"},
    {"hyper://::1]/a", "bracket without"},
    {"hyper://[]/a", "no IPv6"},
    {"hyper://[1]/a", "no IPv6"},
    {"hyper://[1:2]/a", "no IPv6"},
    {"hyper://[1:2:3:4:5:6:7:8:9]/a", "no IPv6"},
    {"hyper://[::1::2]/a", "no IPv6"},
    {"hyper://[:::1]/a", "no IPv6"},
    {"hyper://[1:2:3:4:5:6:7:8::]/a", "no IPv6"},
    {"hyper://[::12345]/a", "no IPv6"},
    {"hyper://[::g]/a", "no IPv6"},
    {"hyper://[::1.2.3]/a", "no IPv6"},
    {"hyper://[::1%]/a", "no IPv6"},
    {"hyper://[::1%a/b]/a", "bracket without"},
    {"hyper://[1:]/a", "no IPv6"},
    {"hyper://[h]/a", "no IPv6"},
    {"hyper://h/a?mode=ro", "%3F"},
    {"hyper://h/a?", "%3F"},
    {"hyper://h/a?server=", "server= wants a key"},
    {"hyper://h/a?server=" HEX_KEY "0", "server= wants a key"},
    {"hyper://h/a?server=" HEX_KEY "&x=1", "server= wants a key"},
    {"ws://h/p/a?x", "%3F"},
    {"hyper://h/a#b", "%23"},
    {"ws://h/p/a#b", "%23"},
    {"hyper://h/a%", "hex digits"},
    {"hyper://h/a%4", "hex digits"},
    {"hyper://h/a%zz", "hex digits"},
    {"hyper://h/100%sure", "%25"},
    {"hyper://h/a%00b", "control"},
    {"hyper://h/a%7f", "control"},
    {"hyper://h/a\nb", "control"},
    {"hyper://h\x7f/a", "control"},
    {"ipc://app.db", "/NAME"},
    {"ipc:///app.db", "socket"},
    {"ipc:///run//app.db", "socket"},
    {"hyper://h/00112233445566778899aabbccddeeff00112233445566778899aabbccddeef", "has 64"},
    {"hyper://h/" HEX_KEY "0", "has 64"},
    {"hyper://h/00112233445566778899aabbccddeeff0011223344556677889900aa", "has 64"},
    {"hyper://h/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyo", "has 52"},
    {"hyper://h/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyo", "has 52"},
};

static void wrong_addresses_are_refused_with_a_reason(void **state)
{
    struct hw_address address;
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memset(&address, 0x5a, sizeof(address));
        err = (struct hw_error){0};
        if (hw_address_parse(wrong[i].url, &address, &err) != HW_EMISUSE ||
            strstr(err.message, wrong[i].says) == NULL)
            fail_msg("%s: %s", wrong[i].url, err.message);
        assert_int_equal(address.dial[0], 0x5a); /* untouched */
    }
}

static void server_may_be_named_by_its_key(void **state)
{
    static const struct {
        const char *url, *dial, *name;
    } cases[] = {
        {"hyper://h/a?server=" HEX_KEY, "tcp://h:4970", "a"},
        {"ws://h:1/p/a?server=" HEX_KEY, "ws://h:1/p", "a"},
        {"ipc:///s?s/a?server=" HEX_KEY, "ipc:///s?s", "a"},
    };
    struct hw_address address;
    struct hw_error err;
    char text[2 * HW_KEY_SIZE + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hw_address_parse(cases[i].url, &address, &err), HW_OK);
        assert_string_equal(address.dial, cases[i].dial);
        assert_string_equal(address.name, cases[i].name);
        assert_true(address.has_server && !address.has_key);
        hw_key_format(address.server, text);
        assert_string_equal(text, HEX_KEY);
    }
    assert_int_equal(hw_address_parse("hyper://h/a", &address, &err), HW_OK);
    assert_false(address.has_server);
}

static void server_is_named_without_a_database(void **state)
{
    static const struct {
        const char *url, *dial;
    } cases[] = {
        {"hyper://h", "tcp://h:4970"},
        {"hyper://h:1/", "tcp://h:1"},
        {"hyper://h?server=" HEX_KEY, "tcp://h:4970"},
        {"hyper://[::1]:2/?server=" HEX_KEY, "tcp://[::1]:2"},
        {"ws://h/p/q", "ws://h:4970/p/q"},
        {"ipc:///run/s", "ipc:///run/s"},
    };
    struct hw_address address;
    struct hw_error err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hw_address_parse_server(cases[i].url, &address, &err), HW_OK);
        assert_string_equal(address.dial, cases[i].dial);
        assert_string_equal(address.name, "");
        assert_int_equal(address.has_server, strchr(cases[i].url, '?') != NULL);
    }
    assert_int_equal(hw_address_parse_server("hyper://h/a", &address, &err), HW_EMISUSE);
    assert_non_null(strstr(err.message, "without one of its databases"));
    assert_int_equal(hw_address_parse_server("hyper://h?x", &address, &err), HW_EMISUSE);
    assert_int_equal(hw_address_parse_server("h", &address, &err), HW_EMISUSE);
    assert_int_equal(hw_address_parse_server("ipc://", &address, &err), HW_EMISUSE);
}

static void lengths_have_limits(void **state)
{
    struct hw_address address;
    struct hw_error err;
    char url[2 * HW_URL_MAX];

    (void)state;
    (void)snprintf(url, sizeof(url), "hyper://h/%0128d", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_OK);
    assert_int_equal(strlen(address.name), 128);
    (void)snprintf(url, sizeof(url), "hyper://h/%0129d", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_EMISUSE);
    (void)snprintf(url, sizeof(url), "hyper://%0253d/a", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_OK);
    (void)snprintf(url, sizeof(url), "hyper://%0254d/a", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_EMISUSE);
    (void)snprintf(url, sizeof(url), "ipc://%0107d/a", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_OK);
    (void)snprintf(url, sizeof(url), "ipc://%0108d/a", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_EMISUSE);
    (void)snprintf(url, sizeof(url), "ws://h/%0600d/a", 7);
    assert_int_equal(hw_address_parse(url, &address, &err), HW_EMISUSE);
    for (unsigned size = 480; size < HW_URL_MAX; size++) { /* the port that is added must fit */
        (void)snprintf(url, sizeof(url), "ws://h/%0*d/a", (int)size - 9, 7);
        if (hw_address_parse(url, &address, &err) == HW_OK)
            assert_true(strlen(address.dial) < HW_URL_MAX);
    }
}

static void paths_of_this_machine_are_not_remote(void **state)
{
    static const char *const paths[] = {"app.db",          "/tmp/app.db", "hyper:app.db",
                                        "hyper:///app.db", "file:x",      "",
                                        "tcp:/x",          "hyper:/x"};

    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        assert_false(hw_address_is_remote(paths[i]));
    assert_true(hw_address_is_remote("hyper://h"));
    assert_true(hw_address_is_remote("ipc:///sock/name"));
}

static void listen_urls_get_what_the_transport_wants(void **state)
{
    static const struct {
        const char *url, *out;
        bool is_local;
    } cases[] = {
        {"tcp://127.0.0.1", "tcp://127.0.0.1:4970", true},
        {"tcp://127.0.0.1:0/", "tcp://127.0.0.1:0", true},
        {"hyper://127.1.2.3:1", "tcp://127.1.2.3:1", true},
        {"tcp://localhost:1", "tcp://localhost:1", true},
        {"tcp://[::1]", "tcp://[::1]:4970", true},
        {"ipc:///run/s", "ipc:///run/s", true},
        {"ws://127.0.0.1:8080", "ws://127.0.0.1:8080/", true},
        {"ws://127.0.0.1:8080/p/", "ws://127.0.0.1:8080/p", true},
        {"tcp://*", "tcp://*:4970", false},
        {"tcp://:7", "tcp://*:7", false},
        {"tcp://0.0.0.0:7", "tcp://0.0.0.0:7", false},
        {"tcp://[::]:7", "tcp://[::]:7", false},
        {"tcp://10.0.0.1", "tcp://10.0.0.1:4970", false},
        {"tcp://127.evil.org", "tcp://127.evil.org:4970", false},
        {"tcp://127.0.0.1.evil.org", "tcp://127.0.0.1.evil.org:4970", false},
        {"tcp://127.0.0.256", "tcp://127.0.0.256:4970", false},
        {"tcp://127.0.0", "tcp://127.0.0:4970", false},
        {"tcp://127.0.0.1.", "tcp://127.0.0.1.:4970", false},
        {"tcp://localhost.org:1", "tcp://localhost.org:1", false},
    };
    struct hw_error err;
    char out[HW_URL_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hw_address_parse_listen(cases[i].url, out, &err), HW_OK);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(hw_address_is_local(cases[i].url), cases[i].is_local);
        assert_int_equal(hw_address_is_local(out), cases[i].is_local);
    }
    assert_int_equal(hw_address_parse_listen("tcp://h/app.db", out, &err), HW_EMISUSE);
    assert_non_null(strstr(err.message, "no name"));
    assert_int_equal(hw_address_parse_listen("/run/s", out, &err), HW_EMISUSE);
    assert_int_equal(hw_address_parse_listen("tcp://h:99999", out, &err), HW_EMISUSE);
    assert_int_equal(hw_address_parse_listen("ipc://", out, &err), HW_EMISUSE);
}

static void formatted_address_leads_back_to_the_name(void **state)
{
    static const struct {
        const char *listen, *name, *url;
    } cases[] = {
        {"tcp://127.0.0.1:4970", "app.db", "hyper://127.0.0.1:4970/app.db"},
        {"tcp://*:7", "a/b?c#d%e f", "hyper://127.0.0.1:7/a/b%3Fc%23d%25e%20f"},
        {"tcp://h:7", "a//b", "hyper://h:7/a%2F%2Fb"},
        {"tcp://h:7", "/a", "hyper://h:7/%2Fa"},
        {"tcp://h:7", "a/", "hyper://h:7/a%2F"},
        {"tcp://h:7", "f11223344556677889900112233445566778899001122334455667788",
         "hyper://h:7/%6611223344556677889900112233445566778899001122334455667788"},
        {"ws://h:7/", "a/b", "ws://h:7/a%2Fb"},
        {"ipc:///run/s", "a/b", "ipc:///run/s/a%2Fb"},
        {"ipc:///run/s", "a", "ipc:///run/s/a"},
        {"ws://h:1/", "a", "ws://h:1/a"},
        {"ws://h:1/p", "a", "ws://h:1/p/a"},
    };
    struct hw_address address;
    struct hw_error err;
    char out[HW_URL_MAX], listen[HW_URL_MAX], name[HW_NAME_MAX + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        hw_address_format(cases[i].listen, cases[i].name, out);
        assert_string_equal(out, cases[i].url);
        assert_int_equal(hw_address_parse(out, &address, &err), HW_OK);
        assert_string_equal(address.name, cases[i].name);
    }
    (void)snprintf(listen, sizeof(listen), "ws://h:1/%0300d", 7);
    memset(name, '/', HW_NAME_MAX);
    name[HW_NAME_MAX] = 0;
    hw_address_format(listen, name, out);
    assert_string_equal(out, "");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_say_where_to_dial_and_what_to_ask_for),
        cmocka_unit_test(keys_are_known_in_both_spellings),
        cmocka_unit_test(server_may_be_named_by_its_key),
        cmocka_unit_test(server_is_named_without_a_database),
        cmocka_unit_test(wrong_addresses_are_refused_with_a_reason),
        cmocka_unit_test(lengths_have_limits),
        cmocka_unit_test(paths_of_this_machine_are_not_remote),
        cmocka_unit_test(listen_urls_get_what_the_transport_wants),
        cmocka_unit_test(formatted_address_leads_back_to_the_name),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
