/* The messages of the channel hypercore/alpha, against the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "support/json.h"
#include "wire/message.h"

static struct hw_error err;

static void fill_sync(const struct json *value, struct hw_message_sync *out)
{
    *out = (struct hw_message_sync){
        .can_upgrade = json_bool(value, "canUpgrade"),
        .is_uploading = json_bool(value, "uploading"),
        .is_downloading = json_bool(value, "downloading"),
        .has_manifest = json_bool(value, "hasManifest"),
        .allows_push = json_bool(value, "allowPush"),
        .fork = json_integer(value, "fork"),
        .length = json_integer(value, "length"),
        .remote_length = json_integer(value, "remoteLength"),
    };
}

static void check_sync(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    struct hw_message_sync want, got = {.fork = 77};

    fill_sync(value, &want);
    assert_int_equal(hw_message_sync_decode(bytes, &got, &err), HW_OK);
    assert_true(got.can_upgrade == want.can_upgrade && got.is_uploading == want.is_uploading &&
                got.is_downloading == want.is_downloading &&
                got.has_manifest == want.has_manifest && got.allows_push == want.allows_push);
    assert_int_equal(got.fork, want.fork);
    assert_int_equal(got.length, want.length);
    assert_int_equal(got.remote_length, want.remote_length);
    hw_message_sync_encode(&want, again);
}

static void check_no_data(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    struct hw_message_no_data got = {.request = 77};

    assert_int_equal(hw_message_no_data_decode(bytes, &got, &err), HW_OK);
    assert_int_equal(got.request, json_integer(value, "request"));
    assert_int_equal(got.reason, json_integer(value, "reason"));
    hw_message_no_data_encode(&got, again);
}

static void check_want(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    struct hw_message_want got = {.start = 77};

    assert_int_equal(hw_message_want_decode(bytes, &got, &err), HW_OK);
    assert_int_equal(got.start, json_integer(value, "start"));
    assert_int_equal(got.length, json_integer(value, "length"));
    assert_true(got.any == json_bool(value, "any"));
    hw_message_want_encode(&got, again);
}

static void check_bitfield(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    struct hw_message_bitfield got = {.start = 77};
    const struct json *words = json_get(value, "bitfield");
    uint32_t *copy = calloc(words->count + 1, sizeof(*copy));
    size_t i = 0;

    assert_int_equal(hw_message_bitfield_decode(bytes, &got, &err), HW_OK);
    assert_int_equal(got.start, json_integer(value, "start"));
    assert_int_equal(got.words.size, 4 * words->count);
    for (const struct json *word = words->first; word != NULL; word = word->next, i++) {
        copy[i] = hw_get_le32(got.words.bytes + 4 * i);
        assert_int_equal(copy[i], word->integer);
    }
    hw_message_bitfield_encode(got.start, copy, i, again);
    free(copy);
}

static void check_range(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    struct hw_message_range got = {.start = 77};

    assert_int_equal(hw_message_range_decode(bytes, &got, &err), HW_OK);
    assert_int_equal(got.start, json_integer(value, "start"));
    assert_int_equal(got.length, json_integer(value, "length"));
    assert_true(got.drop == json_bool(value, "drop"));
    hw_message_range_encode(&got, again);
}

static void check_handshake(const struct json *value, struct hw_slice bytes,
                            struct hw_buffer *again)
{
    struct hw_handshake got = {.has_seeks = false};
    uint8_t capability[32];

    json_hex_fixed(json_get(value, "capability"), capability, sizeof(capability));
    assert_int_equal(hw_handshake_decode(bytes, &got, &err), HW_OK);
    assert_true(got.has_seeks == json_bool(value, "seeks"));
    assert_memory_equal(got.capability, capability, sizeof(capability));
    hw_handshake_encode(&got, again);
}

static void check_cancel(const struct json *value, struct hw_slice bytes, struct hw_buffer *again)
{
    uint64_t request = 77;

    assert_int_equal(hw_message_cancel_decode(bytes, &request, &err), HW_OK);
    assert_int_equal(request, json_integer(value, "request"));
    hw_buffer_add_uint(again, request);
}

static const struct kind {
    const char *name;
    void (*check)(const struct json *value, struct hw_slice bytes, struct hw_buffer *again);
} kinds[] = {
    {"sync", check_sync},           {"noData", check_no_data}, {"want", check_want},
    {"unwant", check_want},         {"range", check_range},    {"bitfield", check_bitfield},
    {"handshake", check_handshake}, {"cancel", check_cancel},
};

/* How many of the list are ours; each decodes, and encodes to the same bytes if `same`. */
static unsigned check_list(const struct json *list, bool same)
{
    unsigned checked = 0;

    for (const struct json *item = list->first; item != NULL; item = item->next) {
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            struct hw_buffer again = {0};
            size_t size;
            uint8_t *bytes;

            if (strcmp(kinds[k].name, json_text(item, "message")) != 0)
                continue;
            bytes = json_hex(json_get(item, "hex"), &size);
            kinds[k].check(json_get(item, "value"), (struct hw_slice){bytes, size}, &again);
            if (same) {
                assert_int_equal(again.size, size);
                assert_memory_equal(again.bytes, bytes, size);
            }
            hw_buffer_release(&again);
            free(bytes);
            checked++;
        }
    }
    return checked;
}

static void every_message_of_the_vectors_is_read_and_written(void **state)
{
    struct json *json = json_load("messages.json");

    (void)state;
    assert_int_equal(check_list(json_get(json, "messages"), true), 25);
    assert_int_equal(check_list(json_get(json, "decode_only"), false), 4);
    json_free(json);
}

/* Every prefix of a message is refused, or means the same with something optional left out. */
static void what_ends_early_is_refused(void **state)
{
    static const uint8_t sync[] = {0x1f, 1, 0xfe, 0x70, 0x11, 1, 0, 0xfd, 0x2c, 1};
    static const uint8_t range[] = {0, 5, 0xfd, 1, 1}, bitfield[] = {0, 2, 1, 1, 1, 1, 2, 2, 2, 2};
    struct hw_message_sync s;
    struct hw_message_range r;
    struct hw_message_bitfield b;

    (void)state;
    for (size_t i = 0; i < sizeof(sync); i++)
        assert_int_equal(hw_message_sync_decode((struct hw_slice){sync, i}, &s, &err),
                         HW_EPROTOCOL);
    for (size_t i = 0; i < sizeof(range); i++)
        assert_int_equal(hw_message_range_decode((struct hw_slice){range, i}, &r, &err),
                         HW_EPROTOCOL);
    for (size_t i = 0; i < sizeof(bitfield); i++)
        assert_int_equal(hw_message_bitfield_decode((struct hw_slice){bitfield, i}, &b, &err),
                         HW_EPROTOCOL);
}

static void a_capability_is_that_of_the_vectors(void **state)
{
    struct json *json = json_load("constants.json");

    (void)state;
    hw_crypto_init();
    for (const struct json *item = json_get(json, "capability")->first; item != NULL;
         item = item->next) {
        uint8_t key[32], hash[64], want[32], got[32];

        json_hex_fixed(json_get(item, "key"), key, sizeof(key));
        json_hex_fixed(json_get(item, "handshakeHash"), hash, sizeof(hash));
        json_hex_fixed(json_get(item, "capability"), want, sizeof(want));
        hw_capability(json_bool(item, "isInitiator"), hash, key, got);
        assert_true(hw_hash_equal(got, want));
    }
    json_free(json);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_of_the_vectors_is_read_and_written),
        cmocka_unit_test(what_ends_early_is_refused),
        cmocka_unit_test(a_capability_is_that_of_the_vectors),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/message", tests, NULL, NULL);
}
