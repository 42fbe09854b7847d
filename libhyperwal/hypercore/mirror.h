/*
 * hypercore/mirror.h - a log of somebody else, held as far as it was fetched
 *
 * A mirror knows a key, the newest signed tree that it has seen proven, some nodes of that tree and
 * some blocks.  It grows by answers that hold (proof.h), never signs, and is a struct hw_core like
 * any other: hw_core_open(HW_CORE_MIRROR) for the one who writes it, HW_CORE_READ for readers in
 * this process and others, who see what arrives when they call hw_core_refresh().
 *
 *      directory:  mirror         key, manifest once it is known
 *                  head           three checked slots in turn: the newest tree, those before it
 *                  nodes          48 bytes a node of the flat tree: size, hash, sum; holes
 *                  have           one bit a block
 *                  NNNNNNNN.dat   bytes of the log, 64 MiB each, at their place; holes
 *                  tail           what came since all of them were synced, to be synced fast
 *
 * Nothing is synced but by hw_core_sync(): what a crash takes was held by somebody else and is
 * fetched again.  So every byte is checked when it is read (nodes by their checksum, blocks by
 * their leaf), and what does not check is simply not held.
 *
 * Invariants: 1. Nothing is stored that does not hash to a tree that the log's signers signed.
 *             2. What hw_core_sync() covered is there after a crash.
 *             3. Memory is bounded, whatever the length of the log.
 */
#ifndef HW_HYPERCORE_MIRROR_H
#define HW_HYPERCORE_MIRROR_H

#include "hypercore/hypercore.h"
#include "hypercore/proof.h"

/*
 * Make an empty mirror of the log with this key in `dir` (made if it is missing; NULL: in memory)
 * and open it for writing.  HW_EEXIST: a log or mirror is there already.
 */
enum hw_status hw_core_create_mirror(struct hw_env *env, const char *dir,
                                     const uint8_t key[HW_KEY_SIZE], struct hw_core **out,
                                     struct hw_error *err) HW_MUST_CHECK;

/*
 * Remove a mirror's files, whatever state they are in, and nothing else of `dir`: what was damaged
 * is fetched again.  Nobody may have it open for writing.  HW_OK also if there is none.
 */
enum hw_status hw_core_remove_mirror(struct hw_env *env, const char *dir,
                                     struct hw_error *err) HW_MUST_CHECK;

/* What an answer brought. */
struct hw_accepted {
    bool has_upgrade; /* the head moved */
    bool has_block;   /* `block` is held now, and was not before */
    bool has_manifest;
    uint64_t block;
};
/*
 * Check an answer against what is held, and store what it proves.  HW_EPROOF: it is false, nothing
 * was stored.  HW_EFORK: it is of a fork above ours: hw_reorg_begin() of proof.h, with
 * hw_core_reader(), and in the end hw_core_reorg(); of one below ours: HW_OK, and nothing is taken.
 * HW_ELIMIT: it is larger than what is taken.  HW_ENOSPC, HW_EIO, HW_ENOMEM: the caller asks again
 * later.  A block whose place cannot be told is not stored although it is true: nodes were lost in
 * a crash, and hw_core_missing_nodes() says to ask for more of them.
 */
enum hw_status hw_core_accept(struct hw_core *core, const struct hw_proof *proof,
                              struct hw_accepted *out, struct hw_error *err) HW_MUST_CHECK;
/* What the functions of proof.h want to know of it; borrowed until the core changes. */
enum hw_status hw_core_reader(struct hw_core *core, struct hw_proof_reader *out,
                              struct hw_error *err) HW_MUST_CHECK;
/*
 * Take over a higher fork: what lies beyond the common blocks is dropped.  `signature` is that of
 * the answer hw_reorg_begin() was given, `manifest` likewise (may be empty).
 */
enum hw_status hw_core_reorg(struct hw_core *core, const struct hw_reorg *reorg,
                             struct hw_slice signature, struct hw_slice manifest,
                             struct hw_error *err) HW_MUST_CHECK;
/* Levels from the flat node `index` up to one that is held: what a request says as `nodes`. */
enum hw_status hw_core_missing_nodes(struct hw_core *core, uint64_t index, uint64_t *out,
                                     struct hw_error *err) HW_MUST_CHECK;

/*
 * Make durable what was accepted so far; its length.  If it fails, nobody can tell what of it is on
 * the disk: the mirror is poisoned (HW_EBROKEN), and once it was opened again, what was accepted
 * since the last good sync may still be lost in a crash, whatever later syncs say, and is fetched
 * again then; but for blocks that were stored again before such a sync.
 */
enum hw_status hw_core_sync(struct hw_core *core, uint64_t *length,
                            struct hw_error *err) HW_MUST_CHECK;
/*
 * Write a block that is held, of these bytes, and its nodes at their places once more: what a
 * failed sync left in the page cache alone, the next sync does not write else.
 */
enum hw_status hw_core_store_again(struct hw_core *core, uint64_t block, struct hw_slice data,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
