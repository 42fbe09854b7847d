/*
 * hypercore/crypto.h - BLAKE2b and Ed25519, and the only file of the layer that knows libsodium
 */
#ifndef HW_HYPERCORE_CRYPTO_H
#define HW_HYPERCORE_CRYPTO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum {
    HW_HASH_SIZE = 32,
    HW_HASH_KEY_MAX = 64, /* bytes of the longest key of a keyed hash */
    HW_SEED_SIZE = 32,
    HW_PUBLIC_KEY_SIZE = 32,
    HW_SECRET_KEY_SIZE = 64, /* seed and public key */
    HW_SIGNATURE_SIZE = 64,
};

/* Once before the first use; again is harmless, also from another thread. */
void hw_crypto_init(void);

/* The namespaces of the family "hypercore"; a test derives them. */
extern const uint8_t hw_namespace_tree[HW_HASH_SIZE];
extern const uint8_t hw_namespace_manifest[HW_HASH_SIZE];
extern const uint8_t hw_namespace_default[HW_HASH_SIZE];

/* BLAKE2b-256 of the parts, one after the other. */
void hw_hash(const struct hw_slice *parts, unsigned count, uint8_t out[HW_HASH_SIZE]);
void hw_hash_keyed(const uint8_t key[HW_HASH_SIZE], struct hw_slice message,
                   uint8_t out[HW_HASH_SIZE]);
/* The same with a key of 64 bytes, over the parts one after the other. */
void hw_hash_keyed_long(const uint8_t key[HW_HASH_KEY_MAX], const struct hw_slice *parts,
                        unsigned count, uint8_t out[HW_HASH_SIZE]);
/* Are they equal?  Takes as long wherever they differ. */
bool hw_hash_equal(const uint8_t a[HW_HASH_SIZE], const uint8_t b[HW_HASH_SIZE]);

void hw_key_pair_from_seed(const uint8_t seed[HW_SEED_SIZE], uint8_t public_key[HW_PUBLIC_KEY_SIZE],
                           uint8_t secret_key[HW_SECRET_KEY_SIZE]);
void hw_sign(const uint8_t secret_key[HW_SECRET_KEY_SIZE], struct hw_slice message,
             uint8_t out[HW_SIGNATURE_SIZE]);
bool hw_signature_fits(const uint8_t public_key[HW_PUBLIC_KEY_SIZE], struct hw_slice message,
                       const uint8_t signature[HW_SIGNATURE_SIZE]);

/* What the compiler may not leave out. */
void hw_wipe(void *memory, size_t size);

#endif
