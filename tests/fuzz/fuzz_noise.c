/*
 * Handshake messages of a peer: first a byte that says which side we are, then messages, each after
 * its size in two bytes.  The corpus has true handshakes with these keys; nothing else may end one.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/noise.h"

static void identity(uint8_t seed_byte, struct hw_identity *out)
{
    uint8_t seed[32];

    memset(seed, seed_byte, sizeof(seed));
    hw_identity_from_seed(seed, out);
}

/* Our messages until it is the other's turn. */
static bool write_ours(struct hw_noise *noise)
{
    struct hw_buffer out = {0};
    bool ok = true;

    while (ok && hw_noise_is_my_turn(noise))
        ok = hw_noise_write(noise, &out, NULL) == HW_OK;
    hw_buffer_release(&out);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);
    bool is_initiator = (hw_cursor_u8(&cursor) & 1) != 0;
    struct hw_identity own, ephemeral, other;
    struct hw_noise noise;

    identity(is_initiator ? 10 : 11, &own);
    identity(is_initiator ? 20 : 21, &ephemeral);
    identity(is_initiator ? 11 : 10, &other);
    hw_noise_init(&noise, is_initiator, &own, &ephemeral);
    while (write_ours(&noise) && hw_cursor_left(&cursor) >= 2) {
        size_t length = hw_cursor_u8(&cursor);
        const uint8_t *message;

        length |= (size_t)hw_cursor_u8(&cursor) << 8;
        if (length > hw_cursor_left(&cursor))
            length = hw_cursor_left(&cursor);
        message = hw_cursor_bytes(&cursor, length);
        if (hw_noise_read(&noise, (struct hw_slice){message, length}, NULL) != HW_OK)
            break;
    }
    if (hw_noise_is_complete(&noise) &&
        memcmp(noise.remote_key, other.public_key, sizeof(other.public_key)) != 0)
        abort(); /* nobody proves a key by chance */
    hw_noise_release(&noise);
    return 0;
}
