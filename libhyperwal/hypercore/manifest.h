/*
 * hypercore/manifest.h - who may sign a log, and the key that follows from it
 *
 * version 1 to 3:  version | flags | hash 0 | quorum | signers | prologue? | linked? | user data?
 * version 0:       0 | hash 0 | type | one of three shapes
 * signer:          type 0 (Ed25519) | namespace 32 | public key 32
 *
 * The key of a log is a hash of the encoded manifest.  A compat log has none: its key is the
 * signer's public key.
 */
#ifndef HW_HYPERCORE_MANIFEST_H
#define HW_HYPERCORE_MANIFEST_H

#include "base/buffer.h"
#include "base/error.h"
#include "hypercore/crypto.h"

enum {
    HW_SIGNERS_MAX = 64,   /* more are refused */
    HW_MANIFEST_SIZE = 70, /* bytes of the manifest we make */
    HW_KEY_ID_SIZE = 52,   /* characters of z-base-32 */
};

struct hw_signer {
    uint8_t name_space[HW_HASH_SIZE];
    uint8_t public_key[HW_PUBLIC_KEY_SIZE];
};

struct hw_manifest {
    unsigned version;
    bool allow_patch;
    uint64_t quorum;
    unsigned signer_count;
    struct hw_signer signers[HW_SIGNERS_MAX];
    bool has_prologue;
    uint8_t prologue_hash[HW_HASH_SIZE];
    uint64_t prologue_length;
    bool has_linked, has_user_data;
    struct hw_slice linked;    /* 32 bytes each; borrowed from what was decoded */
    struct hw_slice user_data; /* likewise */
};

/* Version 1, one signer: what a log of ours has. */
void hw_manifest_default(const uint8_t public_key[HW_PUBLIC_KEY_SIZE], struct hw_manifest *out);
void hw_manifest_encode(const struct hw_manifest *manifest, struct hw_buffer *out);
/*
 * Borrows from `bytes`.  HW_EVERSION: above 3.  HW_ELIMIT: too many signers.  HW_EPROTOCOL: not a
 * manifest, or bytes remain.
 */
enum hw_status hw_manifest_decode(struct hw_slice bytes, struct hw_manifest *out,
                                  struct hw_error *err) HW_MUST_CHECK;
void hw_manifest_key(struct hw_slice encoded, uint8_t out[HW_HASH_SIZE]);

void hw_discovery_key(const uint8_t key[HW_HASH_SIZE], uint8_t out[HW_HASH_SIZE]);
/* 52 characters of z-base-32 and a zero. */
void hw_key_id_format(const uint8_t key[HW_HASH_SIZE], char out[HW_KEY_ID_SIZE + 1]);
/* 64 hex digits or 52 characters of z-base-32; false: neither. */
bool hw_key_parse(const char *text, uint8_t out[HW_HASH_SIZE]);

#endif
