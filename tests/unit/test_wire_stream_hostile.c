/*
 * The private byte stream against who alters, repeats, floods or starves it, and without memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "unit/stream_fixture.h"

/* ---------------------------------------------------------------------------- altered bytes */

/* Everything `from` says from the start, one bit altered: the status of the reader at the end. */
static enum hw_status handshake_with_altered_bit(unsigned from, size_t bit, bool *reached)
{
    struct talk talk;
    size_t offset = 0; /* of what `from` said */
    enum hw_status status = HW_END;
    struct hw_slice message;

    talk_start(&talk);
    *reached = false;
    for (unsigned turn = 0; turn < 4 && status == HW_END; turn++) {
        unsigned i = turn % 2;
        struct hw_slice bytes = hw_stream_output(talk.sides[i]);
        uint8_t copy[512];

        assert_true(bytes.size <= sizeof(copy));
        if (bytes.size == 0)
            break; /* the other waits for bytes that never come: a length grew */
        memcpy(copy, bytes.bytes, bytes.size);
        if (i == from && bit / 8 >= offset && bit / 8 < offset + bytes.size) {
            copy[bit / 8 - offset] ^= (uint8_t)(1U << bit % 8);
            *reached = true;
        }
        offset += i == from ? bytes.size : 0;
        status = hw_stream_put(talk.sides[1 - i], slice(copy, bytes.size), NULL);
        hw_stream_sent(talk.sides[i], bytes.size);
        if (status == HW_OK)
            status = hw_stream_next(talk.sides[1 - i], &message, NULL);
    }
    if (*reached && status == HW_END && hw_stream_is_open(talk.sides[1 - from])) {
        /* Only the nonce of the header is not proven by itself: the first message is. */
        struct hw_buffer wire = sealed_by(talk.sides[from], slice("x", 1));

        status = hw_stream_put(talk.sides[1 - from], slice(wire.bytes, wire.size), NULL);
        if (status == HW_OK)
            status = hw_stream_next(talk.sides[1 - from], &message, NULL);
        hw_buffer_release(&wire);
    }
    talk_end(&talk);
    return status;
}

static void no_altered_bit_of_the_handshake_goes_through(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 2; from++) {
        bool reached = true;
        size_t bit = 0;

        for (; reached; bit++) {
            enum hw_status status = handshake_with_altered_bit(from, bit, &reached);

            size_t byte = bit / 8, frame = byte < 35 || from == 1 ? byte : byte - 35;

            /* The length of a handshake frame that grew: the reader waits for more. */
            if (reached && !(status == HW_END && frame < LENGTH_SIZE))
                assert_int_equal(status, HW_EPROTOCOL);
        }
        assert_true(bit > (size_t)8 * (32 + 64));
    }
}

static void an_altered_bit_of_a_frame_ends_the_stream(void **state)
{
    const size_t size = LENGTH_SIZE + 20 + HW_STREAM_SEAL_SIZE;

    (void)state;
    for (size_t bit = 0; bit < 8 * size; bit++) {
        struct talk talk;
        struct hw_buffer wire;
        struct hw_slice message = {NULL, 77};
        enum hw_status status;

        talk_start(&talk);
        shake_hands(&talk);
        wire = sealed_by(talk.sides[0], slice("a message of twenty!", 20));
        assert_int_equal(wire.size, size);
        wire.bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_equal(hw_stream_put(talk.sides[1], slice(wire.bytes, size), NULL), HW_OK);
        status = hw_stream_next(talk.sides[1], &message, NULL);
        if (bit / 8 >= LENGTH_SIZE) {
            assert_int_equal(status, HW_EPROTOCOL);
            assert_int_equal(message.size, 77); /* nothing was given out, and nothing will be */
            assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_EPROTOCOL);
            assert_int_equal(hw_stream_put(talk.sides[1], slice("x", 1), NULL), HW_EPROTOCOL);
            assert_int_equal(hw_stream_send(talk.sides[1], slice("x", 1), NULL), HW_EPROTOCOL);
        } else {
            assert_true(status == HW_EPROTOCOL || status == HW_END);
        }
        hw_buffer_release(&wire);
        talk_end(&talk);
    }
}

static void frames_repeated_left_out_or_swapped_end_the_stream(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        struct talk talk;
        struct hw_buffer first, second;
        struct hw_slice message;

        talk_start(&talk);
        shake_hands(&talk);
        first = sealed_by(talk.sides[0], slice("first", 5));
        second = sealed_by(talk.sides[0], slice("second", 6));
        if (way == 0) { /* repeated */
            assert_int_equal(hw_stream_put(talk.sides[1], slice(first.bytes, first.size), NULL),
                             HW_OK);
            expect_message(talk.sides[1], slice("first", 5));
            assert_int_equal(hw_stream_put(talk.sides[1], slice(first.bytes, first.size), NULL),
                             HW_OK);
        } else if (way == 1) { /* left out */
            assert_int_equal(hw_stream_put(talk.sides[1], slice(second.bytes, second.size), NULL),
                             HW_OK);
        } else { /* given back to who said it */
            assert_int_equal(hw_stream_put(talk.sides[0], slice(first.bytes, first.size), NULL),
                             HW_OK);
        }
        assert_int_equal(hw_stream_next(talk.sides[way < 2], &message, NULL), HW_EPROTOCOL);
        hw_buffer_release(&first);
        hw_buffer_release(&second);
        talk_end(&talk);
    }
}

/* Everything that a recorded initiator said, said again to a responder with a fresh key. */
static void a_recorded_connection_cannot_be_played_again(void **state)
{
    struct hw_identity own = identity_of(11);
    struct hw_stream *fresh = NULL;
    struct hw_buffer recording = {0};
    struct hw_slice message, bytes;
    struct talk talk;

    (void)state;
    talk_start(&talk);
    for (unsigned i = 0; i < 4; i++) {
        bytes = hw_stream_output(talk.sides[i % 2]);
        if (i % 2 == 0)
            hw_buffer_add(&recording, bytes.bytes, bytes.size);
        assert_int_equal(pass(talk.sides[i % 2], talk.sides[(i + 1) % 2]), HW_END);
    }
    assert_int_equal(hw_stream_new(hw_env_posix(), false, &own, NULL, &fresh, NULL), HW_OK);
    assert_int_equal(hw_stream_put(fresh, slice(recording.bytes, recording.size), NULL), HW_OK);
    assert_int_equal(hw_stream_next(fresh, &message, NULL), HW_EPROTOCOL);
    assert_false(hw_stream_is_open(fresh));
    hw_stream_free(fresh);
    hw_buffer_release(&recording);
    talk_end(&talk);
}

/* ---------------------------------------------------------------------------- sizes */

static void strangers_are_told_from_peers_by_their_first_bytes(void **state)
{
    static const char *const greetings[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x16\x03\x01\x02",
        "\x00\x00\x00",
        "\x01\x04\x00",
        "\xff\xff\xff",
    };
    static const size_t greeting_sizes[] = {26, 21, 4, 3, 3, 3};

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct talk talk;
        struct hw_slice message;
        struct hw_error err = {0};

        talk_start(&talk);
        assert_int_equal(hw_stream_put(talk.sides[1], slice(greetings[i], greeting_sizes[i]), NULL),
                         HW_OK);
        assert_int_equal(hw_stream_next(talk.sides[1], &message, &err), HW_EPROTOCOL);
        assert_non_null(strstr(err.message, "no Hypercore peer"));
        assert_int_equal(hw_stream_output(talk.sides[1]).size, 0);
        talk_end(&talk);
    }
}

static void a_header_of_another_size_or_handshake_is_refused(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        struct talk talk;
        struct hw_slice bytes, message;
        uint8_t copy[256];

        talk_start(&talk);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(pass(talk.sides[i % 2], talk.sides[(i + 1) % 2]), HW_END);
        bytes = hw_stream_output(talk.sides[1]);
        assert_int_equal(bytes.size, HEADER_FRAME_SIZE);
        memcpy(copy, bytes.bytes, bytes.size);
        if (way == 0)
            copy[0]++;
        else if (way == 1)
            copy[0]--;
        else
            memset(copy + LENGTH_SIZE, 0, 32);
        assert_int_equal(hw_stream_put(talk.sides[0], slice(copy, bytes.size), NULL), HW_OK);
        assert_int_equal(hw_stream_next(talk.sides[0], &message, NULL), HW_EPROTOCOL);
        talk_end(&talk);
    }
}

static void frames_beyond_the_limit_are_refused_by_their_length(void **state)
{
    static const uint8_t length[3] = {0x02, 0x10, 0};
    struct talk talk;
    struct hw_buffer wire;
    struct hw_slice message;
    uint8_t plain[0x1001 - HW_STREAM_SEAL_SIZE] = {0};

    (void)state;
    talk_start(&talk);
    shake_hands(&talk);
    hw_stream_set_frame_max(talk.sides[1], 0x1001);
    wire = sealed_by(talk.sides[0], slice(plain, sizeof(plain)));
    assert_int_equal(hw_stream_put(talk.sides[1], slice(wire.bytes, wire.size), NULL), HW_OK);
    expect_message(talk.sides[1], slice(plain, sizeof(plain)));
    assert_int_equal(hw_stream_put(talk.sides[1], slice(length, 3), NULL), HW_OK);
    assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_ELIMIT);
    assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_ELIMIT);
    hw_buffer_release(&wire);
    talk_end(&talk);
}

static void frames_too_short_to_be_sealed_are_refused(void **state)
{
    (void)state;
    for (uint8_t size = 0; size < HW_STREAM_SEAL_SIZE; size++) {
        uint8_t bytes[LENGTH_SIZE] = {size, 0, 0};
        struct talk talk;
        struct hw_slice message;

        talk_start(&talk);
        shake_hands(&talk);
        assert_int_equal(hw_stream_put(talk.sides[1], slice(bytes, sizeof(bytes)), NULL), HW_OK);
        assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_EPROTOCOL);
        talk_end(&talk);
    }
}

static void the_largest_message_passes_and_its_memory_is_given_back(void **state)
{
    const size_t size = HW_STREAM_MESSAGE_MAX;
    uint8_t *plain = calloc(1, size + 1);
    struct allocations seen = {.allowed = -1};
    struct hw_slice message, bytes;
    struct talk talk;

    (void)state;
    hw_alloc_set_hook(watch, &seen);
    talk_start(&talk);
    shake_hands(&talk);
    plain[size - 1] = 9;
    assert_int_equal(hw_stream_send(talk.sides[0], slice(plain, size + 1), NULL), HW_ELIMIT);
    assert_int_equal(
        hw_stream_send_parts(talk.sides[0], slice(plain, 2), slice(plain + 2, size - 1), NULL),
        HW_ELIMIT);
    assert_int_equal(hw_stream_output(talk.sides[0]).size, 0);
    assert_int_equal(hw_stream_send(talk.sides[0], slice(plain, size), NULL), HW_OK);
    bytes = hw_stream_output(talk.sides[0]);
    assert_int_equal(bytes.size, LENGTH_SIZE + HW_STREAM_FRAME_MAX);
    assert_int_equal(hw_stream_put(talk.sides[1], bytes, NULL), HW_OK);
    hw_stream_sent(talk.sides[0], bytes.size);
    assert_null(hw_stream_output(talk.sides[0]).bytes);
    assert_int_equal(hw_stream_next(talk.sides[1], &message, NULL), HW_OK);
    assert_int_equal(message.size, size);
    assert_int_equal(message.bytes[size - 1], 9);
    expect_end(talk.sides[1]);
    assert_int_equal(hw_alloc_live(), 4); /* the streams, and a small buffer of each */
    talk_end(&talk);
    assert_int_equal(hw_alloc_live(), 0);
    hw_alloc_set_hook(NULL, NULL);
    free(plain);
}

/* A frame that claims 16 MiB and comes a byte at a time. */
static void memory_follows_the_bytes_that_came_not_the_length_claimed(void **state)
{
    static const uint8_t length[3] = {0xff, 0xff, 0xff};
    struct allocations seen = {.allowed = -1};
    struct talk talk;

    (void)state;
    talk_start(&talk);
    shake_hands(&talk);
    hw_alloc_set_hook(watch, &seen);
    assert_int_equal(hw_stream_put(talk.sides[1], slice(length, 3), NULL), HW_OK);
    for (unsigned i = 0; i < 10000; i++) {
        expect_end(talk.sides[1]);
        assert_int_equal(hw_stream_put(talk.sides[1], slice("x", 1), NULL), HW_OK);
    }
    assert_true(seen.largest < 2 * 10003);
    hw_alloc_set_hook(NULL, NULL);
    talk_end(&talk);
}

static void a_message_a_time_needs_no_new_memory(void **state)
{
    struct allocations seen = {.allowed = -1};
    uint8_t plain[1024] = {5};
    struct talk talk;

    (void)state;
    talk_start(&talk);
    shake_hands(&talk);
    for (unsigned i = 0; i < 2000; i++) {
        struct hw_slice bytes;

        if (i == 10)
            hw_alloc_set_hook(watch, &seen);
        assert_int_equal(
            hw_stream_send_parts(talk.sides[0], slice(plain, 9), slice(plain + 9, 1015), NULL),
            HW_OK);
        bytes = hw_stream_output(talk.sides[0]);
        if (i % 3 == 2) /* a part stays behind */
            bytes.size -= 100;
        assert_int_equal(hw_stream_put(talk.sides[1], bytes, NULL), HW_OK);
        hw_stream_sent(talk.sides[0], bytes.size);
        if (i % 3 == 0 && i > 0)
            expect_message(talk.sides[1], slice(plain, sizeof(plain)));
        if (i % 3 != 2)
            expect_message(talk.sides[1], slice(plain, sizeof(plain)));
        expect_end(talk.sides[1]);
    }
    assert_true(seen.count <= 4); /* until the buffers have their size */
    hw_alloc_set_hook(NULL, NULL);
    talk_end(&talk);
}

/* ---------------------------------------------------------------------------- no memory */

/* One conversation; an allocation that fails is tried once more, and all must end well. */
static bool converse(struct allocations *seen)
{
    struct hw_identity own[2] = {identity_of(10), identity_of(11)};
    struct hw_stream *sides[2] = {NULL, NULL};
    uint8_t plain[3000] = {7};
    unsigned heard = 0;
    bool sent = false, moved = true;

    for (unsigned i = 0; i < 2; i++) {
        while (hw_stream_new(hw_env_posix(), i == 0, &own[i], NULL, &sides[i], NULL) != HW_OK)
            assert_int_equal(seen->allowed, 0), seen->allowed = -1;
    }
    while (moved) {
        moved = false;
        for (unsigned i = 0; i < 2; i++) {
            struct hw_slice bytes = hw_stream_output(sides[i]), message;
            enum hw_status status;

            if (bytes.size > 0) {
                moved = true;
                status = hw_stream_put(sides[1 - i], bytes, NULL);
                if (status != HW_OK) {
                    assert_int_equal(status, HW_ENOMEM);
                    seen->allowed = -1;
                    continue;
                }
                hw_stream_sent(sides[i], bytes.size);
            }
            do {
                status = hw_stream_next(sides[1 - i], &message, NULL);
                if (status == HW_ENOMEM)
                    seen->allowed = -1;
                if (status == HW_OK) {
                    heard++;
                    assert_int_equal(message.size, sizeof(plain));
                    assert_int_equal(message.bytes[0], 7);
                }
            } while (status == HW_OK || status == HW_ENOMEM);
            assert_int_equal(status, HW_END);
        }
        if (!sent && hw_stream_is_open(sides[0])) {
            enum hw_status status = hw_stream_send(sides[0], slice(plain, sizeof(plain)), NULL);

            sent = status == HW_OK;
            moved = true;
            if (!sent) {
                assert_int_equal(status, HW_ENOMEM);
                seen->allowed = -1;
            }
        }
    }
    hw_stream_free(sides[0]);
    hw_stream_free(sides[1]);
    return heard == 1;
}

static void any_failed_allocation_can_be_tried_again(void **state)
{
    bool reached = true;
    long at = 0;

    (void)state;
    for (; reached; at++) {
        struct allocations seen = {.allowed = at};

        hw_alloc_set_hook(watch, &seen);
        assert_true(converse(&seen));
        assert_int_equal(hw_alloc_live(), 0);
        hw_alloc_set_hook(NULL, NULL);
        reached = seen.allowed < 0;
    }
    assert_true(at > 5);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_altered_bit_of_the_handshake_goes_through),
        cmocka_unit_test(an_altered_bit_of_a_frame_ends_the_stream),
        cmocka_unit_test(frames_repeated_left_out_or_swapped_end_the_stream),
        cmocka_unit_test(a_recorded_connection_cannot_be_played_again),
        cmocka_unit_test(strangers_are_told_from_peers_by_their_first_bytes),
        cmocka_unit_test(a_header_of_another_size_or_handshake_is_refused),
        cmocka_unit_test(frames_beyond_the_limit_are_refused_by_their_length),
        cmocka_unit_test(frames_too_short_to_be_sealed_are_refused),
        cmocka_unit_test(the_largest_message_passes_and_its_memory_is_given_back),
        cmocka_unit_test(memory_follows_the_bytes_that_came_not_the_length_claimed),
        cmocka_unit_test(a_message_a_time_needs_no_new_memory),
        cmocka_unit_test(any_failed_allocation_can_be_tried_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/stream hostile", tests, NULL, NULL);
}
