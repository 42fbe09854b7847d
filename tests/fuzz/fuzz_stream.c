/*
 * The bytes of a connection, from its first on: a byte that says which side we are and how the
 * bytes are cut, then the bytes.  The corpus has true connections with these keys, whose messages
 * are "message 0", "message 1" and so on; nothing else may come out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/stream.h"

static void chance(struct hw_env *env, void *buf, size_t size)
{
    (void)env;
    memset(buf, 30, size);
}

static const struct hw_env_ops ops = {.random = chance};

static void identity(uint8_t seed_byte, struct hw_identity *out)
{
    uint8_t seed[32];

    memset(seed, seed_byte, sizeof(seed));
    hw_identity_from_seed(seed, out);
}

static void check(struct hw_slice message, unsigned number)
{
    char expected[32];
    int size = snprintf(expected, sizeof(expected), "message %u", number);

    if (message.size != 0 &&
        (message.size != (size_t)size || memcmp(message.bytes, expected, message.size) != 0))
        abort();
}

/* All messages that are there; false at a failure. */
static bool take_all(struct hw_stream *stream, unsigned *number)
{
    struct hw_slice message;
    enum hw_status status;

    while ((status = hw_stream_next(stream, &message, NULL)) == HW_OK)
        check(message, (*number)++);
    return status == HW_END;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_env env = {.ops = &ops};
    struct hw_identity own, ephemeral;
    struct hw_stream *stream = NULL;
    unsigned number = 0;
    size_t piece;
    bool is_initiator, ok = true;

    if (size == 0)
        return 0;
    is_initiator = (bytes[0] & 1) != 0;
    piece = 1 + (bytes[0] >> 1) * (size_t)8;
    identity(is_initiator ? 10 : 11, &own);
    identity(is_initiator ? 20 : 21, &ephemeral);
    if (hw_stream_new(&env, is_initiator, &own, &ephemeral, &stream, NULL) != HW_OK)
        return 0;
    hw_stream_set_frame_max(stream, 1 << 20);
    for (size_t i = 1; i < size && ok; i += piece) {
        struct hw_slice part = {bytes + i, size - i < piece ? size - i : piece};

        ok = hw_stream_put(stream, part, NULL) == HW_OK && take_all(stream, &number);
        hw_stream_sent(stream, hw_stream_output(stream).size / 2);
    }
    if (hw_stream_is_open(stream) && ok &&
        hw_stream_send(stream, (struct hw_slice){bytes, size}, NULL) != HW_OK)
        abort();
    hw_stream_free(stream);
    return 0;
}
