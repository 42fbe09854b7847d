/* Implements hypercore/crypto.h. */
#include "hypercore/crypto.h"

#include <assert.h>
#include <sodium.h>

const uint8_t hw_namespace_tree[HW_HASH_SIZE] = {
    0x9f, 0xac, 0x70, 0xb5, 0x0c, 0xa1, 0x4e, 0xfc, 0x4e, 0x91, 0xc8, 0x33, 0xb2, 0x04, 0xe7, 0x5b,
    0x8b, 0x5a, 0xad, 0x8b, 0x58, 0x81, 0xbf, 0xc0, 0xad, 0xb5, 0xef, 0x38, 0xa3, 0x27, 0x5b, 0x9c,
};
const uint8_t hw_namespace_manifest[HW_HASH_SIZE] = {
    0xe6, 0x4b, 0x71, 0x08, 0xea, 0xcc, 0xe4, 0x7c, 0xfc, 0x61, 0xac, 0x85, 0x05, 0x68, 0xf5, 0x5f,
    0x8b, 0x15, 0xb8, 0x2e, 0xc5, 0xed, 0x78, 0xc4, 0xec, 0x59, 0x7b, 0x03, 0x6e, 0x2a, 0x14, 0x98,
};
const uint8_t hw_namespace_default[HW_HASH_SIZE] = {
    0x41, 0x44, 0xee, 0xa5, 0x31, 0xe4, 0x83, 0xd5, 0x4e, 0x0c, 0x14, 0xf4, 0xca, 0x68, 0xe0, 0x64,
    0x4f, 0x35, 0x53, 0x43, 0xff, 0x6f, 0xcb, 0x0f, 0x00, 0x52, 0x00, 0xe1, 0x2c, 0xd7, 0x47, 0xcb,
};

void hw_crypto_init(void)
{
    int rc = sodium_init(); /* picks the fast BLAKE2b; fails only where chance is missing */

    assert(rc >= 0);
    (void)rc;
}

void hw_hash(const struct hw_slice *parts, unsigned count, uint8_t out[HW_HASH_SIZE])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, HW_HASH_SIZE); /* fails for bad sizes only */
    for (unsigned i = 0; i < count; i++)
        (void)crypto_generichash_update(&state, parts[i].bytes, parts[i].size);
    (void)crypto_generichash_final(&state, out, HW_HASH_SIZE);
}

void hw_hash_keyed(const uint8_t key[HW_HASH_SIZE], struct hw_slice message,
                   uint8_t out[HW_HASH_SIZE])
{
    (void)crypto_generichash(out, HW_HASH_SIZE, message.bytes, message.size, key, HW_HASH_SIZE);
}

void hw_hash_keyed_long(const uint8_t key[HW_HASH_KEY_MAX], const struct hw_slice *parts,
                        unsigned count, uint8_t out[HW_HASH_SIZE])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, key, HW_HASH_KEY_MAX, HW_HASH_SIZE); /* sizes are right */
    for (unsigned i = 0; i < count; i++)
        (void)crypto_generichash_update(&state, parts[i].bytes, parts[i].size);
    (void)crypto_generichash_final(&state, out, HW_HASH_SIZE);
}

bool hw_hash_equal(const uint8_t a[HW_HASH_SIZE], const uint8_t b[HW_HASH_SIZE])
{
    return sodium_memcmp(a, b, HW_HASH_SIZE) == 0;
}

void hw_key_pair_from_seed(const uint8_t seed[HW_SEED_SIZE], uint8_t public_key[HW_PUBLIC_KEY_SIZE],
                           uint8_t secret_key[HW_SECRET_KEY_SIZE])
{
    (void)crypto_sign_seed_keypair(public_key, secret_key, seed); /* cannot fail */
}

void hw_sign(const uint8_t secret_key[HW_SECRET_KEY_SIZE], struct hw_slice message,
             uint8_t out[HW_SIGNATURE_SIZE])
{
    (void)crypto_sign_detached(out, NULL, message.bytes, message.size, secret_key);
}

bool hw_signature_fits(const uint8_t public_key[HW_PUBLIC_KEY_SIZE], struct hw_slice message,
                       const uint8_t signature[HW_SIGNATURE_SIZE])
{
    return crypto_sign_verify_detached(signature, message.bytes, message.size, public_key) == 0;
}

void hw_wipe(void *memory, size_t size)
{
    sodium_memzero(memory, size);
}
