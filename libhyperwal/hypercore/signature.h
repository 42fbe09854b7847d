/*
 * hypercore/signature.h - what a signer signs, and whether a signature makes a tree valid
 *
 * signable       TREE namespace | context 32 | tree hash 32 | length LE64 | fork LE64
 *                context: the log's key; version 0: the signer's namespace; compat: left out
 * signature      compat, and version 0 with one signer and no patches: 64 bytes of Ed25519
 *                else an envelope: proofs {signer, signature, patch}, nodes for the patches
 *
 * A patch lets a signer who signed a longer tree count for a shorter one: the nodes lead from the
 * shorter to the longer.
 */
#ifndef HW_HYPERCORE_SIGNATURE_H
#define HW_HYPERCORE_SIGNATURE_H

#include "hypercore/manifest.h"
#include "hypercore/tree.h"

enum {
    HW_SIGNABLE_SIZE = 112, /* bytes at most */
    HW_ENVELOPE_SIZE = 68,  /* of the envelope of one signer of version 1 */
};

/* Who a log's trees are signed by. */
struct hw_authority {
    uint8_t key[HW_HASH_SIZE];
    bool is_compat;              /* the key is the public key, there is no manifest */
    struct hw_manifest manifest; /* else: it hashes to the key */
};

/* `context` NULL: a compat log.  Bytes written. */
size_t hw_signable(const uint8_t *context, const uint8_t tree_hash[HW_HASH_SIZE], uint64_t length,
                   uint64_t fork, uint8_t out[HW_SIGNABLE_SIZE]);
/* The envelope around the signature of the only signer. */
void hw_envelope_of_one(const uint8_t signature[HW_SIGNATURE_SIZE], uint8_t out[HW_ENVELOPE_SIZE]);
/*
 * Is the tree with these roots, at this fork, one that the log's signers made?  HW_EPROOF: no.
 * `signature` may be empty for a tree of exactly the prologue.
 */
enum hw_status hw_authority_check(const struct hw_authority *authority,
                                  const struct hw_roots *roots, uint64_t fork,
                                  struct hw_slice signature, struct hw_error *err) HW_MUST_CHECK;

#endif
