/* Implements wire/noise.h and wire/noise_internal.h. */
#include "wire/noise.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "wire/noise_internal.h"

enum {
    KEY_SIZE = HW_IDENTITY_KEY_SIZE,
    HASH_SIZE = HW_NOISE_HASH_SIZE,
    HASH_BLOCK_SIZE = 128, /* of BLAKE2b, for the HMAC */
    MAC_SIZE = HW_NOISE_MAC_SIZE,
    STEP_COUNT = 3,
    FIRST_SIZE = KEY_SIZE, /* bytes of the messages with an empty payload */
    SECOND_SIZE = KEY_SIZE + KEY_SIZE + 2 * MAC_SIZE,
    THIRD_SIZE = KEY_SIZE + 2 * MAC_SIZE,
};

static const char protocol_name[] = "Noise_XX_Ed25519_ChaChaPoly_BLAKE2b";

/* ---------------------------------------------------------------------------- identities */

void hw_identity_from_seed(const uint8_t seed[32], struct hw_identity *out)
{
    (void)crypto_sign_seed_keypair(out->public_key, out->secret_key, seed); /* cannot fail */
}

void hw_identity_random(struct hw_env *env, struct hw_identity *out)
{
    uint8_t seed[32];

    env->ops->random(env, seed, sizeof(seed));
    hw_identity_from_seed(seed, out);
    sodium_memzero(seed, sizeof(seed));
}

bool hw_noise_dh(const struct hw_identity *own, const uint8_t public_key[HW_IDENTITY_KEY_SIZE],
                 uint8_t out[HW_IDENTITY_KEY_SIZE])
{
    uint8_t scalar[64];
    int rc;

    /* The scalar that signs with this key: half of the hash of its seed, clamped. */
    (void)crypto_hash_sha512(scalar, own->secret_key, 32);
    scalar[0] &= 0xf8;
    scalar[31] = (uint8_t)((scalar[31] & 0x7f) | 0x40);
    rc = crypto_scalarmult_ed25519_noclamp(out, scalar, public_key);
    sodium_memzero(scalar, sizeof(scalar));
    return rc == 0;
}

/* ---------------------------------------------------------------------------- hashes */

static void hash_pair(struct hw_slice a, struct hw_slice b, uint8_t out[HASH_SIZE])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, HASH_SIZE); /* fails for bad sizes only */
    (void)crypto_generichash_update(&state, a.bytes, a.size);
    (void)crypto_generichash_update(&state, b.bytes, b.size);
    (void)crypto_generichash_final(&state, out, HASH_SIZE);
}

/* RFC 2104 over BLAKE2b: what is keyed BLAKE2b elsewhere is not, here. */
static void hmac(const uint8_t key[HASH_SIZE], struct hw_slice message, uint8_t out[HASH_SIZE])
{
    uint8_t inner[HASH_BLOCK_SIZE], outer[HASH_BLOCK_SIZE], digest[HASH_SIZE];

    memset(inner, 0x36, sizeof(inner));
    memset(outer, 0x5c, sizeof(outer));
    for (unsigned i = 0; i < HASH_SIZE; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    hash_pair((struct hw_slice){inner, sizeof(inner)}, message, digest);
    hash_pair((struct hw_slice){outer, sizeof(outer)}, (struct hw_slice){digest, sizeof(digest)},
              out);
    sodium_memzero(inner, sizeof(inner));
    sodium_memzero(outer, sizeof(outer));
    sodium_memzero(digest, sizeof(digest));
}

static void derive(const uint8_t chaining_key[HASH_SIZE], struct hw_slice input,
                   uint8_t first[HASH_SIZE], uint8_t second[HASH_SIZE])
{
    uint8_t temporary[HASH_SIZE], next[HASH_SIZE + 1];

    hmac(chaining_key, input, temporary);
    hmac(temporary, (struct hw_slice){(const uint8_t *)"\x01", 1}, first);
    memcpy(next, first, HASH_SIZE);
    next[HASH_SIZE] = 2;
    hmac(temporary, (struct hw_slice){next, sizeof(next)}, second);
    sodium_memzero(temporary, sizeof(temporary));
    sodium_memzero(next, sizeof(next));
}

/* ---------------------------------------------------------------------------- state */

void hw_noise_mix_hash(struct hw_noise *noise, struct hw_slice data)
{
    hash_pair((struct hw_slice){noise->hash, HASH_SIZE}, data, noise->hash);
}

void hw_noise_mix_key(struct hw_noise *noise, const uint8_t dh[HW_IDENTITY_KEY_SIZE])
{
    uint8_t chaining_key[HASH_SIZE], key[HASH_SIZE];

    derive(noise->chaining_key, (struct hw_slice){dh, KEY_SIZE}, chaining_key, key);
    memcpy(noise->chaining_key, chaining_key, HASH_SIZE);
    memcpy(noise->key, key, HW_NOISE_KEY_SIZE);
    noise->has_key = true;
    noise->nonce = 0;
    sodium_memzero(chaining_key, sizeof(chaining_key));
    sodium_memzero(key, sizeof(key));
}

static void next_nonce(struct hw_noise *noise, uint8_t out[12])
{
    memset(out, 0, 4);
    hw_put_le64(out + 4, noise->nonce++);
}

size_t hw_noise_encrypt_and_hash(struct hw_noise *noise, struct hw_slice plain, uint8_t *out)
{
    uint8_t nonce[12];
    size_t size = plain.size;

    if (noise->has_key) {
        next_nonce(noise, nonce);
        (void)crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain.bytes, plain.size,
                                                        noise->hash, HASH_SIZE, NULL, nonce,
                                                        noise->key); /* cannot fail */
        size += MAC_SIZE;
    } else if (size > 0) {
        memcpy(out, plain.bytes, size);
    }
    hw_noise_mix_hash(noise, (struct hw_slice){out, size});
    return size;
}

bool hw_noise_decrypt_and_hash(struct hw_noise *noise, struct hw_slice sealed, uint8_t *out)
{
    uint8_t nonce[12], ignored[HW_NOISE_MESSAGE_MAX];

    if (!noise->has_key) {
        if (out != NULL && sealed.size > 0)
            memcpy(out, sealed.bytes, sealed.size);
    } else {
        if (sealed.size < MAC_SIZE || (out == NULL && sealed.size > sizeof(ignored)))
            return false;
        next_nonce(noise, nonce);
        if (crypto_aead_chacha20poly1305_ietf_decrypt(out != NULL ? out : ignored, NULL, NULL,
                                                      sealed.bytes, sealed.size, noise->hash,
                                                      HASH_SIZE, nonce, noise->key) != 0)
            return false;
    }
    hw_noise_mix_hash(noise, sealed);
    return true;
}

/* ---------------------------------------------------------------------------- messages */

void hw_noise_init(struct hw_noise *noise, bool is_initiator, const struct hw_identity *own,
                   const struct hw_identity *ephemeral)
{
    *noise = (struct hw_noise){.is_initiator = is_initiator, .own = *own, .ephemeral = *ephemeral};
    /* The name is shorter than a hash: it is padded, not hashed. */
    memcpy(noise->hash, protocol_name, sizeof(protocol_name) - 1);
    memcpy(noise->chaining_key, noise->hash, HASH_SIZE);
    hw_noise_mix_hash(noise, (struct hw_slice){NULL, 0}); /* the empty prologue */
}

void hw_noise_release(struct hw_noise *noise)
{
    if (noise != NULL)
        sodium_memzero(noise, sizeof(*noise));
}

bool hw_noise_is_complete(const struct hw_noise *noise)
{
    return noise->step == STEP_COUNT;
}

bool hw_noise_is_my_turn(const struct hw_noise *noise)
{
    return !noise->failed && noise->step < STEP_COUNT &&
           (noise->step % 2 == 0) == noise->is_initiator;
}

/* Diffie-Hellman into the key. */
static bool mix_dh(struct hw_noise *noise, const struct hw_identity *own,
                   const uint8_t public_key[KEY_SIZE])
{
    uint8_t dh[KEY_SIZE];
    bool ok = hw_noise_dh(own, public_key, dh);

    if (ok)
        hw_noise_mix_key(noise, dh);
    sodium_memzero(dh, sizeof(dh));
    return ok;
}

/* Before each message: "es" is between the initiator's ephemeral key and the responder's own. */
static bool mix_es(struct hw_noise *noise)
{
    return noise->is_initiator ? mix_dh(noise, &noise->ephemeral, noise->remote_key)
                               : mix_dh(noise, &noise->own, noise->remote_ephemeral);
}

static bool mix_se(struct hw_noise *noise)
{
    return noise->is_initiator ? mix_dh(noise, &noise->own, noise->remote_ephemeral)
                               : mix_dh(noise, &noise->ephemeral, noise->remote_key);
}

static uint8_t *write_ephemeral(struct hw_noise *noise, uint8_t *at)
{
    memcpy(at, noise->ephemeral.public_key, KEY_SIZE);
    hw_noise_mix_hash(noise, (struct hw_slice){at, KEY_SIZE});
    return at + KEY_SIZE;
}

static uint8_t *write_sealed(struct hw_noise *noise, struct hw_slice plain, uint8_t *at)
{
    return at + hw_noise_encrypt_and_hash(noise, plain, at);
}

static const struct hw_slice empty = {NULL, 0};

enum hw_status hw_noise_write(struct hw_noise *noise, struct hw_buffer *out, struct hw_error *err)
{
    static const size_t sizes[STEP_COUNT] = {FIRST_SIZE, SECOND_SIZE, THIRD_SIZE};
    const struct hw_slice own_key = {noise->own.public_key, KEY_SIZE};
    bool ok = true;
    uint8_t *at;

    if (!hw_noise_is_my_turn(noise))
        return hw_fail(err, HW_EMISUSE, "handshake: message %u is not ours to write",
                       noise->step + 1);
    if (hw_buffer_reserve(out, sizes[noise->step]) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "handshake: no memory for message %u", noise->step + 1);
    at = out->bytes + out->size;
    switch (noise->step) {
    case 0:
        at = write_ephemeral(noise, at);
        break;
    case 1:
        at = write_ephemeral(noise, at);
        ok = mix_dh(noise, &noise->ephemeral, noise->remote_ephemeral);
        at = write_sealed(noise, own_key, at);
        ok = ok && mix_es(noise);
        break;
    default:
        at = write_sealed(noise, own_key, at);
        ok = mix_se(noise);
        break;
    }
    at = write_sealed(noise, empty, at);
    if (!ok) {
        noise->failed = true;
        return hw_fail(err, HW_EPROTOCOL, "handshake: the peer's keys are no points of the curve");
    }
    assert((size_t)(at - out->bytes) == out->size + sizes[noise->step]);
    out->size += sizes[noise->step++];
    return HW_OK;
}

static bool read_ephemeral(struct hw_noise *noise, struct hw_cursor *cursor)
{
    const uint8_t *key = hw_cursor_bytes(cursor, KEY_SIZE);

    if (key == NULL)
        return false;
    memcpy(noise->remote_ephemeral, key, KEY_SIZE);
    hw_noise_mix_hash(noise, (struct hw_slice){key, KEY_SIZE});
    return true;
}

static bool read_static(struct hw_noise *noise, struct hw_cursor *cursor)
{
    const uint8_t *sealed = hw_cursor_bytes(cursor, KEY_SIZE + MAC_SIZE);

    return sealed != NULL &&
           hw_noise_decrypt_and_hash(noise, (struct hw_slice){sealed, KEY_SIZE + MAC_SIZE},
                                     noise->remote_key);
}

static bool read_message(struct hw_noise *noise, struct hw_cursor *cursor)
{
    switch (noise->step) {
    case 0:
        if (!read_ephemeral(noise, cursor))
            return false;
        break;
    case 1:
        if (!read_ephemeral(noise, cursor) ||
            !mix_dh(noise, &noise->ephemeral, noise->remote_ephemeral) ||
            !read_static(noise, cursor) || !mix_es(noise))
            return false;
        break;
    default:
        if (!read_static(noise, cursor) || !mix_se(noise))
            return false;
        break;
    }
    /* A payload is authenticated, and of no interest. */
    return hw_noise_decrypt_and_hash(noise, (struct hw_slice){cursor->next, hw_cursor_left(cursor)},
                                     NULL);
}

enum hw_status hw_noise_read(struct hw_noise *noise, struct hw_slice message, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(message.bytes, message.size);

    if (noise->failed || noise->step == STEP_COUNT || hw_noise_is_my_turn(noise)) {
        noise->failed = true;
        return hw_fail(err, HW_EPROTOCOL, "handshake: a message that nobody waits for");
    }
    if (message.size > HW_NOISE_MESSAGE_MAX || !read_message(noise, &cursor)) {
        noise->failed = true;
        return hw_fail(err, HW_EPROTOCOL,
                       "handshake: message %u (%zu bytes) is not one of this handshake: another "
                       "protocol, or altered on the way",
                       noise->step + 1, message.size);
    }
    noise->step++;
    return HW_OK;
}

void hw_noise_split(const struct hw_noise *noise, uint8_t send_key[HW_NOISE_KEY_SIZE],
                    uint8_t receive_key[HW_NOISE_KEY_SIZE])
{
    uint8_t first[HASH_SIZE], second[HASH_SIZE];

    assert(hw_noise_is_complete(noise));
    derive(noise->chaining_key, empty, first, second);
    memcpy(send_key, noise->is_initiator ? first : second, HW_NOISE_KEY_SIZE);
    memcpy(receive_key, noise->is_initiator ? second : first, HW_NOISE_KEY_SIZE);
    sodium_memzero(first, sizeof(first));
    sodium_memzero(second, sizeof(second));
}
