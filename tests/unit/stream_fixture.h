/*
 * unit/stream_fixture.h - two streams that talk through memory, and a watch over allocations
 */
#ifndef HW_TEST_STREAM_FIXTURE_H
#define HW_TEST_STREAM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/stream.h"

enum { LENGTH_SIZE = 3, HEADER_FRAME_SIZE = 3 + 56 };

/* A world whose chance is one repeated byte, as the vectors want it for the headers. */
struct fixed_env {
    struct hw_env env;
    struct hw_env_ops ops;
    uint8_t byte;
};

static inline void fixed_random(struct hw_env *env, void *buf, size_t size)
{
    const struct fixed_env *fixed = (const struct fixed_env *)env;

    memset(buf, fixed->byte, size);
}

static inline void fixed_init(struct fixed_env *fixed, uint8_t byte)
{
    *fixed = (struct fixed_env){.ops = {.random = fixed_random}, .byte = byte};
    fixed->env.ops = &fixed->ops;
}

static inline struct hw_identity identity_of(uint8_t seed_byte)
{
    struct hw_identity identity;
    uint8_t seed[32];

    memset(seed, seed_byte, sizeof(seed));
    hw_identity_from_seed(seed, &identity);
    return identity;
}

static inline struct hw_slice slice(const void *bytes, size_t size)
{
    return (struct hw_slice){bytes, size};
}

/* Two sides that talk through memory. */
struct talk {
    struct fixed_env chance[2];
    struct hw_stream *sides[2]; /* 0: initiator */
};

static inline void talk_start(struct talk *talk)
{
    for (unsigned i = 0; i < 2; i++) {
        struct hw_identity own = identity_of((uint8_t)(10 + i));
        struct hw_identity ephemeral = identity_of((uint8_t)(20 + i));

        fixed_init(&talk->chance[i], (uint8_t)(30 + i));
        assert_int_equal(
            hw_stream_new(&talk->chance[i].env, i == 0, &own, &ephemeral, &talk->sides[i], NULL),
            HW_OK);
    }
}

static inline void talk_end(struct talk *talk)
{
    hw_stream_free(talk->sides[0]);
    hw_stream_free(talk->sides[1]);
}

/* All output of one side to the other.  HW_END if all was well and no message came. */
static inline enum hw_status pass(struct hw_stream *from, struct hw_stream *to)
{
    struct hw_slice bytes = hw_stream_output(from), message;
    enum hw_status status;

    status = hw_stream_put(to, bytes, NULL);
    hw_stream_sent(from, bytes.size);
    return status == HW_OK ? hw_stream_next(to, &message, NULL) : status;
}

static inline void shake_hands(struct talk *talk)
{
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pass(talk->sides[i % 2], talk->sides[(i + 1) % 2]), HW_END);
    assert_true(hw_stream_is_open(talk->sides[0]) && hw_stream_is_open(talk->sides[1]));
}

/* The sealed bytes of one message; owned by the caller. */
static inline struct hw_buffer sealed_by(struct hw_stream *stream, struct hw_slice plain)
{
    struct hw_buffer copy = {0};
    struct hw_slice bytes;

    assert_int_equal(hw_stream_send(stream, plain, NULL), HW_OK);
    bytes = hw_stream_output(stream);
    hw_buffer_add(&copy, bytes.bytes, bytes.size);
    hw_stream_sent(stream, bytes.size);
    return copy;
}

static inline void expect_message(struct hw_stream *stream, struct hw_slice expected)
{
    struct hw_slice message = {NULL, 99};

    assert_int_equal(hw_stream_next(stream, &message, NULL), HW_OK);
    assert_int_equal(message.size, expected.size);
    if (expected.size > 0)
        assert_memory_equal(message.bytes, expected.bytes, expected.size);
}

static inline void expect_end(struct hw_stream *stream)
{
    struct hw_slice message;

    assert_int_equal(hw_stream_next(stream, &message, NULL), HW_END);
}

struct allocations {
    size_t largest, count;
    long allowed; /* < 0: any number */
};

static inline bool watch(void *ctx, size_t size)
{
    struct allocations *seen = ctx;

    seen->count++;
    if (size > seen->largest)
        seen->largest = size;
    if (seen->allowed == 0)
        return false;
    seen->allowed -= seen->allowed > 0;
    return true;
}

#endif
