/*
 * wire/noise.h - who is at the other end: the Noise handshake of Hypercore peers
 *
 * Pattern XX, Noise_XX_Ed25519_ChaChaPoly_BLAKE2b, empty prologue, Diffie-Hellman on the Edwards
 * curve.  Three messages; who connects is the initiator:
 *
 *   1  initiator  e                  32 bytes
 *   2  responder  e, s, empty        96 bytes
 *   3  initiator  s, empty           64 bytes
 *
 * After them both know the other's public key, a hash of all that was said, and two keys.  Bytes
 * in, bytes out; nothing here reads or writes a socket.  Source: the Noise Protocol Framework
 * revision 34, and noise-handshake 4.2, noise-curve-ed 2.1.
 */
#ifndef HW_WIRE_NOISE_H
#define HW_WIRE_NOISE_H

#include "base/buffer.h"
#include "base/error.h"
#include "env/env.h"

enum {
    HW_IDENTITY_KEY_SIZE = 32,
    HW_NOISE_MESSAGE_MAX = 1024, /* bytes: a payload that somebody adds is borne, and ignored */
    HW_NOISE_HASH_SIZE = 64,
    HW_NOISE_KEY_SIZE = 32,
};

/* An Ed25519 pair. */
struct hw_identity {
    uint8_t public_key[HW_IDENTITY_KEY_SIZE];
    uint8_t secret_key[64]; /* seed, public key */
};
void hw_identity_random(struct hw_env *env, struct hw_identity *out);
void hw_identity_from_seed(const uint8_t seed[32], struct hw_identity *out);

struct hw_noise {
    bool is_initiator;
    unsigned step; /* messages done; 3: the handshake is complete */
    bool has_key;
    bool failed; /* a message was refused: no more is read or written */
    struct hw_identity own, ephemeral;
    uint8_t remote_ephemeral[HW_IDENTITY_KEY_SIZE];
    uint8_t remote_key[HW_IDENTITY_KEY_SIZE]; /* valid when complete */
    uint8_t hash[HW_NOISE_HASH_SIZE];         /* of all that was said */
    uint8_t chaining_key[HW_NOISE_HASH_SIZE];
    uint8_t key[HW_NOISE_KEY_SIZE];
    uint64_t nonce;
};

/* `ephemeral` is fresh for each handshake.  Both are copied. */
void hw_noise_init(struct hw_noise *noise, bool is_initiator, const struct hw_identity *own,
                   const struct hw_identity *ephemeral);
void hw_noise_release(struct hw_noise *noise); /* forgets the secrets */
bool hw_noise_is_complete(const struct hw_noise *noise);
bool hw_noise_is_my_turn(const struct hw_noise *noise); /* the next message is ours to write */
/* Append the next message to *out. */
enum hw_status hw_noise_write(struct hw_noise *noise, struct hw_buffer *out,
                              struct hw_error *err) HW_MUST_CHECK;
/* HW_EPROTOCOL: altered, replayed or not a message of this handshake; the object is of no more use.
 */
enum hw_status hw_noise_read(struct hw_noise *noise, struct hw_slice message,
                             struct hw_error *err) HW_MUST_CHECK;
/* When complete: the keys of the two directions. */
void hw_noise_split(const struct hw_noise *noise, uint8_t send_key[HW_NOISE_KEY_SIZE],
                    uint8_t receive_key[HW_NOISE_KEY_SIZE]);

#endif
