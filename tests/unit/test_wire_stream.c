/*
 * The private byte stream: against the vectors and whole recorded connections, and against itself
 * with its bytes cut at every place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/json.h"
#include "unit/stream_fixture.h"

static struct hw_identity identity_from(const struct json *seed_hex)
{
    struct hw_identity identity;
    uint8_t seed[32];

    json_hex_fixed(seed_hex, seed, sizeof(seed));
    hw_identity_from_seed(seed, &identity);
    return identity;
}

static void assert_hex(struct hw_slice bytes, const struct json *hex)
{
    size_t size;
    uint8_t *expected = json_hex(hex, &size);

    assert_int_equal(bytes.size, size);
    if (size > 0)
        assert_memory_equal(bytes.bytes, expected, size);
    free(expected);
}

/* ---------------------------------------------------------------------------- vectors */

static void start_side(const struct json *transcript, bool is_initiator, struct fixed_env *chance,
                       struct hw_stream **out)
{
    const struct json *side = json_get(transcript, is_initiator ? "initiator" : "responder");
    struct hw_identity own = identity_from(json_get(json_get(side, "static"), "seed"));
    struct hw_identity ephemeral = identity_from(json_get(json_get(side, "ephemeral"), "seed"));
    size_t size;
    uint8_t *header = json_hex(json_get(side, "header"), &size);

    fixed_init(chance, header[0]);
    free(header);
    assert_int_equal(hw_stream_new(&chance->env, is_initiator, &own, &ephemeral, out, NULL), HW_OK);
}

static void send_all(struct hw_stream *stream, const struct json *plains)
{
    for (const struct json *at = plains->first; at != NULL; at = at->next) {
        size_t size;
        uint8_t *plain = json_hex(at, &size);
        size_t head = size / 3; /* in two parts: the same bytes come out */

        assert_int_equal(hw_stream_send_parts(stream, slice(plain, head),
                                              slice(plain + head, size - head), NULL),
                         HW_OK);
        free(plain);
    }
}

static void expect_all(struct hw_stream *stream, const struct json *plains)
{
    for (const struct json *at = plains->first; at != NULL; at = at->next) {
        struct hw_slice message;

        assert_int_equal(hw_stream_next(stream, &message, NULL), HW_OK);
        assert_hex(message, at);
    }
    expect_end(stream);
}

static void check_transcript(const struct json *at)
{
    const struct json *plain = json_get(at, "plaintext"), *raw = json_get(at, "raw");
    struct fixed_env chance[2];
    struct hw_stream *sides[2];
    struct hw_buffer wire[2] = {{0}, {0}};
    struct hw_slice part;

    start_side(at, true, &chance[0], &sides[0]);
    start_side(at, false, &chance[1], &sides[1]);
    for (unsigned turn = 0; turn < 3; turn++) { /* the three messages and the first header */
        part = hw_stream_output(sides[turn % 2]);
        hw_buffer_add(&wire[turn % 2], part.bytes, part.size);
        assert_int_equal(pass(sides[turn % 2], sides[1 - turn % 2]), HW_END);
    }
    send_all(sides[0], json_get(plain, "I"));
    send_all(sides[1], json_get(plain, "R"));
    for (unsigned i = 0; i < 2; i++) {
        part = hw_stream_output(sides[i]);
        hw_buffer_add(&wire[i], part.bytes, part.size);
        assert_int_equal(hw_stream_put(sides[1 - i], part, NULL), HW_OK);
        assert_hex(slice(wire[i].bytes, wire[i].size), json_get(raw, i == 0 ? "I" : "R"));
        assert_hex(slice(hw_stream_handshake_hash(sides[i]), HW_NOISE_HASH_SIZE),
                   json_get(at, "handshakeHash"));
    }
    expect_all(sides[1], json_get(json_get(at, "delivered"), "to_responder"));
    expect_all(sides[0], json_get(json_get(at, "delivered"), "to_initiator"));
    for (unsigned i = 0; i < 2; i++) {
        hw_buffer_release(&wire[i]);
        hw_stream_free(sides[i]);
    }
}

static void every_byte_on_the_wire_is_that_of_the_vectors(void **state)
{
    struct json *json = json_load("noise.json");

    (void)state;
    for (const struct json *at = json_get(json, "transcripts")->first; at != NULL; at = at->next)
        check_transcript(at);
    json_free(json);
}

static const char *const recorded[] = {
    "bigbitfield", "compat", "empty", "follow", "holes", "multi", "reorg", "resume", "sparse",
};

struct replay {
    struct fixed_env chance[2];
    struct hw_stream *sides[2]; /* 0: B, the initiator */
    unsigned messages, turns;
};

static void replay_start(struct replay *replay, const struct json *about)
{
    *replay = (struct replay){.messages = 0};
    for (unsigned i = 0; i < 2; i++) {
        const struct json *side = json_get(about, i == 0 ? "initiator" : "responder");
        struct hw_identity own = identity_from(json_get(side, "staticSeed"));
        struct hw_identity ephemeral = identity_from(json_get(side, "ephemeralSeed"));
        size_t size;
        uint8_t *header = json_hex(json_get(side, "header"), &size);

        fixed_init(&replay->chance[i], header[0]);
        free(header);
        assert_int_equal(hw_stream_new(&replay->chance[i].env, i == 0, &own, &ephemeral,
                                       &replay->sides[i], NULL),
                         HW_OK);
    }
}

/* What `from` writes next must be this frame; the other side reads it. */
static void replay_frame(struct replay *replay, unsigned from, const struct json *line)
{
    struct hw_stream *writer = replay->sides[from], *reader = replay->sides[1 - from];
    const struct json *plain = json_find(line, "plain");
    struct hw_slice wire, message;
    size_t size;
    uint8_t *bytes;

    if (plain != NULL) {
        bytes = json_hex(plain, &size);
        assert_int_equal(hw_stream_send(writer, slice(bytes, size), NULL), HW_OK);
        free(bytes);
        replay->messages++;
    }
    wire = hw_stream_output(writer);
    assert_true(wire.size > LENGTH_SIZE);
    size = wire.bytes[0] | (size_t)wire.bytes[1] << 8 | (size_t)wire.bytes[2] << 16;
    assert_hex(slice(wire.bytes + LENGTH_SIZE, size), json_get(line, "wire"));
    assert_int_equal(hw_stream_put(reader, slice(wire.bytes, size + LENGTH_SIZE), NULL), HW_OK);
    hw_stream_sent(writer, size + LENGTH_SIZE);
    if (plain != NULL) {
        assert_int_equal(hw_stream_next(reader, &message, NULL), HW_OK);
        assert_hex(message, plain);
    }
    expect_end(reader);
}

static void whole_recorded_connections_are_said_and_heard_again(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(recorded) / sizeof(recorded[0]); i++) {
        char path[512] = HW_VECTORS "/transcripts/";
        struct json *lines;
        struct replay replay;

        strncat(path, recorded[i], 64);
        strncat(path, ".jsonl", 8);
        lines = json_load_lines_file(path);
        replay_start(&replay, lines->first);
        for (const struct json *line = lines->first->next; line != NULL; line = line->next) {
            if (strcmp(json_text(line, "kind"), "event") != 0)
                replay_frame(&replay, strcmp(json_text(line, "from"), "A") == 0, line);
        }
        assert_true(replay.messages > 5);
        assert_hex(slice(hw_stream_handshake_hash(replay.sides[1]), HW_NOISE_HASH_SIZE),
                   json_get(lines->first, "handshakeHash"));
        hw_stream_free(replay.sides[0]);
        hw_stream_free(replay.sides[1]);
        json_free(lines);
    }
}

/* ---------------------------------------------------------------------------- any cut */

static void fill(uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + size);
}

/* Of side `from`: handshake, then messages of these sizes; pieces of `piece` bytes. */
static const size_t sizes[] = {1, 0, 40, 200, 3, 0, 1000};
enum { SIZE_COUNT = sizeof(sizes) / sizeof(sizes[0]) };

struct inbox {
    unsigned count;
    bool wrong;
};

/* Hand over up to `piece` bytes of what waits; false if nothing does. */
static bool hand_over(struct hw_stream *from, struct hw_stream *to, size_t piece,
                      struct inbox *inbox)
{
    struct hw_slice bytes = hw_stream_output(from), message;
    uint8_t expected[1000];
    enum hw_status status;

    if (bytes.size == 0)
        return false;
    bytes.size = bytes.size < piece ? bytes.size : piece;
    assert_int_equal(hw_stream_put(to, bytes, NULL), HW_OK);
    hw_stream_sent(from, bytes.size);
    while ((status = hw_stream_next(to, &message, NULL)) == HW_OK) {
        assert_true(inbox->count < SIZE_COUNT);
        assert_int_equal(message.size, sizes[inbox->count]);
        fill(expected, message.size);
        if (message.size > 0)
            assert_memory_equal(message.bytes, expected, message.size);
        inbox->count++;
    }
    assert_int_equal(status, HW_END);
    return true;
}

static void messages_arrive_however_the_bytes_are_cut(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 400; piece += piece < 140 ? 1 : 37) {
        struct talk talk;
        struct inbox inboxes[2] = {{0, false}, {0, false}};
        bool said[2] = {false, false}, moved = true;
        uint8_t plain[1000];

        talk_start(&talk);
        while (moved) {
            moved = false;
            for (unsigned i = 0; i < 2; i++) {
                if (!said[i] && hw_stream_is_open(talk.sides[i])) {
                    said[i] = true; /* at once, before the other's header */
                    for (unsigned k = 0; k < SIZE_COUNT; k++) {
                        fill(plain, sizes[k]);
                        assert_int_equal(
                            hw_stream_send(talk.sides[i], slice(plain, sizes[k]), NULL), HW_OK);
                    }
                }
                moved |= hand_over(talk.sides[i], talk.sides[1 - i], piece, &inboxes[1 - i]);
            }
        }
        assert_int_equal(inboxes[0].count, SIZE_COUNT);
        assert_int_equal(inboxes[1].count, SIZE_COUNT);
        talk_end(&talk);
    }
}

static void each_side_knows_the_other(void **state)
{
    struct hw_identity first = identity_of(10), second = identity_of(11);
    struct talk talk;

    (void)state;
    talk_start(&talk);
    assert_true(hw_stream_is_initiator(talk.sides[0]));
    assert_false(hw_stream_is_initiator(talk.sides[1]));
    assert_false(hw_stream_is_open(talk.sides[0]));
    assert_int_equal(hw_stream_send(talk.sides[0], slice("x", 1), NULL), HW_EMISUSE);
    shake_hands(&talk);
    assert_memory_equal(hw_stream_remote_key(talk.sides[0]), second.public_key, 32);
    assert_memory_equal(hw_stream_remote_key(talk.sides[1]), first.public_key, 32);
    assert_memory_equal(hw_stream_handshake_hash(talk.sides[0]),
                        hw_stream_handshake_hash(talk.sides[1]), HW_NOISE_HASH_SIZE);
    talk_end(&talk);
}

static void fresh_connections_of_the_same_identities_share_no_bytes(void **state)
{
    struct hw_identity own = identity_of(1);
    struct hw_stream *a = NULL, *b = NULL;

    (void)state;
    assert_int_equal(hw_stream_new(hw_env_posix(), true, &own, NULL, &a, NULL), HW_OK);
    assert_int_equal(hw_stream_new(hw_env_posix(), true, &own, NULL, &b, NULL), HW_OK);
    assert_int_equal(hw_stream_output(a).size, hw_stream_output(b).size);
    assert_memory_not_equal(hw_stream_output(a).bytes + LENGTH_SIZE,
                            hw_stream_output(b).bytes + LENGTH_SIZE, 32);
    hw_stream_free(a);
    hw_stream_free(b);
    hw_stream_free(NULL);
}

/* What was given out is not touched by what is sent before the next put or next. */
static void a_message_stays_while_answers_are_sent(void **state)
{
    struct talk talk;
    struct hw_buffer wire;
    struct hw_slice message;
    uint8_t large[5000] = {1};

    (void)state;
    talk_start(&talk);
    shake_hands(&talk);
    wire = sealed_by(talk.sides[0], slice("question", 8));
    assert_int_equal(hw_stream_put(talk.sides[1], slice(wire.bytes, wire.size), NULL), HW_OK);
    assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_OK);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(hw_stream_send(talk.sides[1], slice(large, sizeof(large)), NULL), HW_OK);
    hw_stream_sent(talk.sides[1], hw_stream_output(talk.sides[1]).size);
    assert_memory_equal(message.bytes, "question", 8);
    hw_buffer_release(&wire);
    talk_end(&talk);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_on_the_wire_is_that_of_the_vectors),
        cmocka_unit_test(whole_recorded_connections_are_said_and_heard_again),
        cmocka_unit_test(messages_arrive_however_the_bytes_are_cut),
        cmocka_unit_test(each_side_knows_the_other),
        cmocka_unit_test(fresh_connections_of_the_same_identities_share_no_bytes),
        cmocka_unit_test(a_message_stays_while_answers_are_sent),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/stream", tests, NULL, NULL);
}
