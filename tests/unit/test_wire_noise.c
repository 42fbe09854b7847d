/*
 * The handshake, against the vectors step by step, and against whoever alters, repeats or cuts it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "support/json.h"
#include "wire/noise_internal.h"

enum { KEY_SIZE = HW_IDENTITY_KEY_SIZE, HASH_SIZE = HW_NOISE_HASH_SIZE };

static struct hw_slice slice_of(const struct hw_buffer *buffer)
{
    return (struct hw_slice){buffer->bytes, buffer->size};
}

static struct hw_identity identity_of(uint8_t seed_byte)
{
    struct hw_identity identity;
    uint8_t seed[32];

    memset(seed, seed_byte, sizeof(seed));
    hw_identity_from_seed(seed, &identity);
    return identity;
}

static struct hw_identity load_identity(const struct json *json)
{
    struct hw_identity identity;
    uint8_t seed[32], expected[64];

    json_hex_fixed(json_get(json, "seed"), seed, sizeof(seed));
    hw_identity_from_seed(seed, &identity);
    json_hex_fixed(json_get(json, "publicKey"), expected, KEY_SIZE);
    assert_memory_equal(identity.public_key, expected, KEY_SIZE);
    json_hex_fixed(json_get(json, "secretKey"), expected, 64);
    assert_memory_equal(identity.secret_key, expected, 64);
    return identity;
}

static void assert_hex(const void *bytes, size_t size, const struct json *hex)
{
    size_t expected_size;
    uint8_t *expected = json_hex(hex, &expected_size);

    assert_int_equal(size, expected_size);
    assert_memory_equal(bytes, expected, size);
    free(expected);
}

/* Start a side of a transcript. */
static void load_side(const struct json *transcript, bool is_initiator, struct hw_noise *noise)
{
    const struct json *side = json_get(transcript, is_initiator ? "initiator" : "responder");
    struct hw_identity own = load_identity(json_get(side, "static"));
    struct hw_identity ephemeral = load_identity(json_get(side, "ephemeral"));

    hw_noise_init(noise, is_initiator, &own, &ephemeral);
}

static void check_state(const struct hw_noise *noise, const struct json *step)
{
    const struct json *key = json_find(step, "k");

    assert_hex(noise->hash, HASH_SIZE, json_get(step, "h"));
    assert_hex(noise->chaining_key, HASH_SIZE, json_get(step, "ck"));
    assert_int_equal(noise->has_key, key != NULL);
    if (key != NULL)
        assert_hex(noise->key, HW_NOISE_KEY_SIZE, key);
}

/* The identity of this side that has the public key. */
static const struct hw_identity *find_identity(const struct hw_noise *noise,
                                               const struct json *public_key)
{
    uint8_t key[KEY_SIZE];

    json_hex_fixed(public_key, key, sizeof(key));
    if (memcmp(key, noise->own.public_key, KEY_SIZE) == 0)
        return &noise->own;
    assert_memory_equal(key, noise->ephemeral.public_key, KEY_SIZE);
    return &noise->ephemeral;
}

static void mix_key_step(struct hw_noise *noise, const struct json *step)
{
    uint8_t remote[KEY_SIZE], dh[KEY_SIZE];

    json_hex_fixed(json_get(step, "remote"), remote, sizeof(remote));
    assert_true(hw_noise_dh(find_identity(noise, json_get(step, "local")), remote, dh));
    assert_hex(dh, sizeof(dh), json_get(step, "dh"));
    hw_noise_mix_key(noise, dh);
}

static void cipher_step(struct hw_noise *noise, const struct json *step, bool encrypts)
{
    const struct json *nonce = json_find(step, "nonce");
    uint8_t out[128];
    size_t size, in_size;
    uint8_t *in = json_hex(json_get(step, "in"), &in_size);

    assert_true(in_size + HW_NOISE_MAC_SIZE <= sizeof(out));
    if (nonce != NULL)
        assert_int_equal(noise->nonce, nonce->integer);
    if (encrypts) {
        size = hw_noise_encrypt_and_hash(noise, (struct hw_slice){in, in_size}, out);
    } else {
        assert_true(hw_noise_decrypt_and_hash(noise, (struct hw_slice){in, in_size}, out));
        size = in_size - (noise->has_key ? HW_NOISE_MAC_SIZE : 0);
    }
    assert_hex(out, size, json_get(step, "out"));
    free(in);
}

static void run_steps(const struct json *transcript, bool is_initiator)
{
    const struct json *steps = json_get(transcript, "steps");
    struct hw_noise noise;

    load_side(transcript, is_initiator, &noise);
    assert_hex(noise.hash, HASH_SIZE, json_get(json_get(transcript, "start"), "h"));
    assert_hex(noise.chaining_key, HASH_SIZE, json_get(json_get(transcript, "start"), "ck"));
    steps = json_get(steps, is_initiator ? "initiator" : "responder");
    assert_int_equal(steps->count, 10);
    for (const struct json *step = steps->first; step != NULL; step = step->next) {
        const char *operation = json_text(step, "op");

        if (strcmp(operation, "mixHash") == 0) {
            size_t size;
            uint8_t *data = json_hex(json_get(step, "data"), &size);

            hw_noise_mix_hash(&noise, (struct hw_slice){data, size});
            free(data);
        } else if (strcmp(operation, "mixKey") == 0) {
            mix_key_step(&noise, step);
        } else {
            cipher_step(&noise, step, strcmp(operation, "encryptAndHash") == 0);
        }
        check_state(&noise, step);
    }
    hw_noise_release(&noise);
}

static void every_step_of_the_vectors_is_the_same(void **state)
{
    struct json *json = json_load("noise.json");

    (void)state;
    assert_int_equal(json_get(json, "transcripts")->count, 3);
    for (const struct json *at = json_get(json, "transcripts")->first; at != NULL; at = at->next) {
        run_steps(at, true);
        run_steps(at, false);
    }
    json_free(json);
}

static void diffie_hellman_is_that_of_the_vectors(void **state)
{
    struct json *json = json_load("noise.json");

    (void)state;
    assert_true(json_get(json, "dh")->count > 0);
    for (const struct json *at = json_get(json, "dh")->first; at != NULL; at = at->next) {
        struct hw_identity identity;
        uint8_t seed[32], remote[KEY_SIZE], dh[KEY_SIZE];

        json_hex_fixed(json_get(at, "a_seed"), seed, sizeof(seed));
        json_hex_fixed(json_get(at, "b_publicKey"), remote, sizeof(remote));
        hw_identity_from_seed(seed, &identity);
        assert_true(hw_noise_dh(&identity, remote, dh));
        assert_hex(dh, sizeof(dh), json_get(at, "dh"));
    }
    json_free(json);
}

static void check_end(const struct json *transcript, const struct hw_noise *initiator,
                      const struct hw_noise *responder)
{
    const struct json *split = json_get(transcript, "split");
    uint8_t send_key[32], receive_key[32];

    assert_true(hw_noise_is_complete(initiator) && hw_noise_is_complete(responder));
    assert_memory_equal(initiator->remote_key, responder->own.public_key, KEY_SIZE);
    assert_memory_equal(responder->remote_key, initiator->own.public_key, KEY_SIZE);
    assert_hex(initiator->hash, HASH_SIZE, json_get(transcript, "handshakeHash"));
    assert_hex(responder->hash, HASH_SIZE, json_get(transcript, "handshakeHash"));
    hw_noise_split(initiator, send_key, receive_key);
    assert_hex(send_key, 32, json_get(split, "initiator_tx"));
    assert_hex(receive_key, 32, json_get(split, "initiator_rx"));
    hw_noise_split(responder, send_key, receive_key);
    assert_hex(receive_key, 32, json_get(split, "initiator_tx"));
    assert_hex(send_key, 32, json_get(split, "initiator_rx"));
}

static void both_sides_write_the_messages_of_the_vectors(void **state)
{
    struct json *json = json_load("noise.json");

    (void)state;
    for (const struct json *at = json_get(json, "transcripts")->first; at != NULL; at = at->next) {
        struct hw_noise sides[2]; /* responder, initiator */
        bool turn = true;

        load_side(at, false, &sides[0]);
        load_side(at, true, &sides[1]);
        assert_int_equal(json_get(at, "messages")->count, 3);
        for (const struct json *message = json_get(at, "messages")->first; message != NULL;
             message = message->next, turn = !turn) {
            struct hw_buffer out = {0};

            assert_true(hw_noise_is_my_turn(&sides[turn]));
            assert_false(hw_noise_is_my_turn(&sides[!turn]));
            assert_false(hw_noise_is_complete(&sides[!turn]));
            assert_int_equal(hw_noise_write(&sides[turn], &out, NULL), HW_OK);
            assert_hex(out.bytes, out.size, json_get(message, "hex"));
            assert_int_equal(hw_noise_read(&sides[!turn], slice_of(&out), NULL), HW_OK);
            hw_buffer_release(&out);
        }
        check_end(at, &sides[1], &sides[0]);
        hw_noise_release(&sides[0]);
        hw_noise_release(&sides[1]);
    }
    json_free(json);
}

/* ---------------------------------------------------------------------------- bad peers */

struct handshake { /* an honest pair and what it said */
    struct hw_noise initiator, responder;
    struct hw_buffer messages[3];
};

static void start(struct handshake *h, uint8_t ephemeral_byte)
{
    struct hw_identity a = identity_of(1), b = identity_of(2);
    struct hw_identity a_fresh = identity_of(ephemeral_byte);
    struct hw_identity b_fresh = identity_of((uint8_t)(ephemeral_byte + 1));

    *h = (struct handshake){.initiator = {.step = 0}};
    hw_noise_init(&h->initiator, true, &a, &a_fresh);
    hw_noise_init(&h->responder, false, &b, &b_fresh);
}

static struct hw_noise *reader_of(struct handshake *h, unsigned message)
{
    return message % 2 == 0 ? &h->responder : &h->initiator;
}

/* All messages before `end` are said and heard, and `end` is said. */
static void run_until(struct handshake *h, unsigned end)
{
    for (unsigned i = 0; i <= end && i < 3; i++) {
        struct hw_noise *writer = i % 2 == 0 ? &h->initiator : &h->responder;

        assert_int_equal(hw_noise_write(writer, &h->messages[i], NULL), HW_OK);
        if (i < end)
            assert_int_equal(hw_noise_read(reader_of(h, i), slice_of(&h->messages[i]), NULL),
                             HW_OK);
    }
}

static void finish(struct handshake *h)
{
    for (unsigned i = 0; i < 3; i++)
        hw_buffer_release(&h->messages[i]);
    hw_noise_release(&h->initiator);
    hw_noise_release(&h->responder);
}

/* Goes on after message `from` was read; the first failure, or HW_OK if both are complete. */
static enum hw_status go_on(struct handshake *h, unsigned from)
{
    enum hw_status status = HW_OK;

    for (unsigned i = from + 1; i < 3 && status == HW_OK; i++) {
        status = hw_noise_write(i % 2 == 0 ? &h->initiator : &h->responder, &h->messages[i], NULL);
        if (status == HW_OK)
            status = hw_noise_read(reader_of(h, i), slice_of(&h->messages[i]), NULL);
    }
    return status;
}

static void an_altered_bit_anywhere_ends_the_handshake(void **state)
{
    (void)state;
    for (unsigned message = 0; message < 3; message++) {
        for (size_t bit = 0;; bit++) {
            struct handshake h;
            enum hw_status status;

            start(&h, 7);
            run_until(&h, message);
            if (bit == 8 * h.messages[message].size) {
                finish(&h);
                break;
            }
            h.messages[message].bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
            status = hw_noise_read(reader_of(&h, message), slice_of(&h.messages[message]), NULL);
            if (message > 0)
                assert_int_equal(status, HW_EPROTOCOL); /* the first has nothing to prove it */
            if (status == HW_OK)
                status = go_on(&h, message);
            assert_int_equal(status, HW_EPROTOCOL);
            assert_false(hw_noise_is_complete(&h.responder));
            finish(&h);
        }
    }
}

static void a_message_cut_short_or_empty_is_refused(void **state)
{
    (void)state;
    for (unsigned message = 0; message < 3; message++) {
        for (size_t size = 0;; size++) {
            struct handshake h;
            struct hw_slice cut;

            start(&h, 7);
            run_until(&h, message);
            cut = (struct hw_slice){h.messages[message].bytes, size};
            if (size == h.messages[message].size) {
                finish(&h);
                break;
            }
            assert_int_equal(hw_noise_read(reader_of(&h, message), cut, NULL), HW_EPROTOCOL);
            /* It does not get better afterwards. */
            assert_int_equal(
                hw_noise_read(reader_of(&h, message), slice_of(&h.messages[message]), NULL),
                HW_EPROTOCOL);
            assert_false(hw_noise_is_my_turn(reader_of(&h, message)));
            finish(&h);
        }
    }
}

static void a_recorded_handshake_does_not_work_twice(void **state)
{
    struct handshake recorded, again;

    (void)state;
    start(&recorded, 7);
    run_until(&recorded, 3);

    start(&again, 9); /* the responder is fresh, as it must be */
    assert_int_equal(hw_noise_read(&again.responder, slice_of(&recorded.messages[0]), NULL), HW_OK);
    assert_int_equal(hw_noise_write(&again.responder, &again.messages[1], NULL), HW_OK);
    assert_int_equal(hw_noise_read(&again.responder, slice_of(&recorded.messages[2]), NULL),
                     HW_EPROTOCOL);
    finish(&again);

    start(&again, 9); /* and so for who dials */
    assert_int_equal(hw_noise_write(&again.initiator, &again.messages[0], NULL), HW_OK);
    assert_int_equal(hw_noise_read(&again.initiator, slice_of(&recorded.messages[1]), NULL),
                     HW_EPROTOCOL);
    finish(&again);
    finish(&recorded);
}

static void a_message_out_of_turn_is_refused(void **state)
{
    struct handshake h;
    struct hw_buffer out = {0};

    (void)state;
    start(&h, 7);
    assert_int_equal(hw_noise_write(&h.responder, &out, NULL), HW_EMISUSE);
    assert_int_equal(out.size, 0);
    run_until(&h, 3);
    assert_int_equal(hw_noise_write(&h.initiator, &out, NULL), HW_EMISUSE);
    assert_int_equal(hw_noise_read(&h.responder, slice_of(&h.messages[2]), NULL), HW_EPROTOCOL);
    finish(&h);

    start(&h, 7); /* two that dial each other */
    run_until(&h, 0);
    assert_int_equal(hw_noise_read(&h.initiator, slice_of(&h.messages[0]), NULL), HW_EPROTOCOL);
    finish(&h);
    hw_buffer_release(&out);
}

/* Encodings of all points of small order, and bytes that are no point or no canonical one. */
static const char *const weak_keys[] = {
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0200000000000000000000000000000000000000000000000000000000000000",
};

static void a_key_that_is_no_strong_point_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(weak_keys) / sizeof(weak_keys[0]); i++) {
        struct json hex = {.kind = JSON_STRING};
        struct hw_buffer text = {0};
        struct handshake h;
        uint8_t key[KEY_SIZE], dh[KEY_SIZE];

        hw_buffer_add(&text, weak_keys[i], strlen(weak_keys[i]) + 1);
        hex.text = (char *)text.bytes;
        json_hex_fixed(&hex, key, sizeof(key));
        start(&h, 7);
        assert_false(hw_noise_dh(&h.responder.own, key, dh));
        /* As an ephemeral key of either side: message 1 is refused when it is answered. */
        assert_int_equal(hw_noise_read(&h.responder, (struct hw_slice){key, sizeof(key)}, NULL),
                         HW_OK);
        assert_int_equal(hw_noise_write(&h.responder, &h.messages[1], NULL), HW_EPROTOCOL);
        assert_int_equal(h.messages[1].size, 0);
        assert_false(hw_noise_is_my_turn(&h.responder));
        finish(&h);

        start(&h, 7);
        run_until(&h, 1);
        memcpy(h.messages[1].bytes, key, sizeof(key));
        assert_int_equal(hw_noise_read(&h.initiator, slice_of(&h.messages[1]), NULL), HW_EPROTOCOL);
        finish(&h);
        hw_buffer_release(&text);
    }
}

/* A peer that has the session but a weak static key: it is sealed well, and refused. */
static void a_weak_key_of_a_peer_is_refused(void **state)
{
    struct handshake h;
    enum hw_status status;

    (void)state;
    start(&h, 7);
    run_until(&h, 1);
    assert_int_equal(hw_noise_read(&h.initiator, slice_of(&h.messages[1]), NULL), HW_OK);
    memset(h.initiator.own.public_key, 0, KEY_SIZE);
    h.initiator.own.public_key[0] = 1;
    status = hw_noise_write(&h.initiator, &h.messages[2], NULL);
    assert_int_equal(status, HW_OK);
    assert_int_equal(hw_noise_read(&h.responder, slice_of(&h.messages[2]), NULL), HW_EPROTOCOL);
    finish(&h);
}

/* ---------------------------------------------------------------------------- the rest */

/* A message 3 with a payload of `size` bytes, as some other implementation may send it. */
static enum hw_status third_with_payload(size_t size)
{
    static uint8_t payload[2048], sealed[4096];
    struct handshake h;
    uint8_t dh[KEY_SIZE];
    size_t used;
    enum hw_status status;

    start(&h, 7);
    run_until(&h, 1);
    assert_int_equal(hw_noise_read(&h.initiator, slice_of(&h.messages[1]), NULL), HW_OK);
    used = hw_noise_encrypt_and_hash(
        &h.initiator, (struct hw_slice){h.initiator.own.public_key, KEY_SIZE}, sealed);
    assert_true(hw_noise_dh(&h.initiator.own, h.initiator.remote_ephemeral, dh));
    hw_noise_mix_key(&h.initiator, dh);
    used +=
        hw_noise_encrypt_and_hash(&h.initiator, (struct hw_slice){payload, size}, sealed + used);
    status = hw_noise_read(&h.responder, (struct hw_slice){sealed, used}, NULL);
    if (status == HW_OK)
        assert_memory_equal(h.responder.hash, h.initiator.hash, HASH_SIZE);
    finish(&h);
    return status;
}

static void a_payload_is_borne_up_to_the_limit(void **state)
{
    struct handshake h;

    (void)state;
    assert_int_equal(third_with_payload(0), HW_OK);
    assert_int_equal(third_with_payload(1), HW_OK);
    assert_int_equal(third_with_payload(HW_NOISE_MESSAGE_MAX - 64), HW_OK);
    assert_int_equal(third_with_payload(HW_NOISE_MESSAGE_MAX - 63), HW_EPROTOCOL);

    start(&h, 7); /* of message 1 it is in the clear, and part of the hash */
    run_until(&h, 0);
    hw_buffer_add(&h.messages[0], "hello", 5);
    assert_int_equal(hw_noise_read(&h.responder, slice_of(&h.messages[0]), NULL), HW_OK);
    assert_int_equal(go_on(&h, 0), HW_EPROTOCOL);
    finish(&h);
}

static bool refuse(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return false;
}

static void a_message_without_memory_can_be_written_later(void **state)
{
    struct handshake h;

    (void)state;
    start(&h, 7);
    hw_alloc_set_hook(refuse, NULL);
    assert_int_equal(hw_noise_write(&h.initiator, &h.messages[0], NULL), HW_ENOMEM);
    hw_alloc_set_hook(NULL, NULL);
    assert_int_equal(h.messages[0].size, 0);
    run_until(&h, 3);
    assert_true(hw_noise_is_complete(&h.initiator) && hw_noise_is_complete(&h.responder));
    finish(&h);
}

static void random_identities_differ(void **state)
{
    struct hw_identity a, b;

    (void)state;
    hw_identity_random(hw_env_posix(), &a);
    hw_identity_random(hw_env_posix(), &b);
    assert_memory_not_equal(a.public_key, b.public_key, KEY_SIZE);
    assert_memory_equal(a.public_key, a.secret_key + 32, KEY_SIZE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diffie_hellman_is_that_of_the_vectors),
        cmocka_unit_test(every_step_of_the_vectors_is_the_same),
        cmocka_unit_test(both_sides_write_the_messages_of_the_vectors),
        cmocka_unit_test(an_altered_bit_anywhere_ends_the_handshake),
        cmocka_unit_test(a_message_cut_short_or_empty_is_refused),
        cmocka_unit_test(a_recorded_handshake_does_not_work_twice),
        cmocka_unit_test(a_message_out_of_turn_is_refused),
        cmocka_unit_test(a_key_that_is_no_strong_point_is_refused),
        cmocka_unit_test(a_weak_key_of_a_peer_is_refused),
        cmocka_unit_test(a_payload_is_borne_up_to_the_limit),
        cmocka_unit_test(a_message_without_memory_can_be_written_later),
        cmocka_unit_test(random_identities_differ),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/noise", tests, NULL, NULL);
}
