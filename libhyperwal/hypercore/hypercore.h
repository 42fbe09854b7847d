/*
 * hypercore/hypercore.h - the log: a Hypercore, signed and append-only, on disk or in memory
 *
 * Blocks are appended in batches; a batch is one signature, one write and one fdatasync, and is
 * there after a crash either whole or not at all.  One writer appends while any number of readers,
 * in this process or others, read what is known to be durable.  Keys, tree hashes, signatures and
 * proofs are those of Hypercore 11 (manifest version 1, one Ed25519 signer); the files are ours,
 * docs/FORMAT.md has every byte.
 *
 *      log directory:  key            seed of the signer, mode 0600; without it: a read-only mirror
 *                      log            manifest, key, identity of machine and key file
 *                      tree           80 bytes a block: its nodes of the tree, and where it is
 *                      NNNNNNNN.seg   batches: blocks, signature, the writer's note
 *
 * Invariants: 1. What hw_core_length() of a writer tells is durable.
 *             2. No two trees are ever signed for one length of one fork.
 *             3. A torn tail is cut, a complete batch is kept; anything else that does not check is
 *                HW_ECORRUPT with file, offset and block, and nothing is changed.
 *
 * Threads: an hw_core belongs to one thread at a time.  Source of the formats: Hypercore 11.37,
 * as described in docs/FORMAT.md.
 */
#ifndef HW_HYPERCORE_HYPERCORE_H
#define HW_HYPERCORE_HYPERCORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/error.h"
#include "env/env.h"

enum {
    HW_KEY_SIZE = 32,               /* bytes: core key, discovery key, hash */
    HW_BLOCK_SIZE_MAX = 15 << 20,   /* bytes: what Hypercore peers accept */
    HW_NOTE_SIZE_MAX = 128,         /* bytes */
    HW_BATCH_BUFFER_SIZE = 1 << 20, /* bytes: a larger batch is written in parts of this size */
};

struct hw_core;

struct hw_core_identity { /* of a log, as anybody may know it */
    uint8_t key[HW_KEY_SIZE];
    uint8_t discovery_key[HW_KEY_SIZE];
};

/* What a signature covers, and what a reader compares. */
struct hw_core_head {
    uint64_t length;      /* blocks */
    uint64_t byte_length; /* bytes of all blocks */
    uint64_t fork;
    uint8_t tree_hash[HW_KEY_SIZE];
};

enum hw_core_mode {
    HW_CORE_READ,   /* never writes; the key file is not touched */
    HW_CORE_WRITE,  /* the caller holds the writer's lock */
    HW_CORE_MIRROR, /* of somebody else's log (mirror.h); the caller is the only one to write it */
};

/*
 * Make a new log in directory `dir` (made if it is missing; HW_EEXIST if it holds a log), with a
 * fresh key pair, and open it for writing at length 0.  `dir` NULL: in memory, gone at close.
 */
enum hw_status hw_core_create(struct hw_env *env, const char *dir, struct hw_core **out,
                              struct hw_error *err) HW_MUST_CHECK;

/*
 * Open the log in `dir`.
 *
 * For reading: up to `limit` blocks (the published durable length; UINT64_MAX: all complete
 * batches, for a log nobody writes).  Opens without the key file.  A copy that was made while the
 * log was written is read up to its last whole batch.  HW_EPRUNED: the log as of `limit` cannot be
 * told any more.
 *
 * For writing: cuts a torn tail, syncs what it keeps.  HW_EREADONLY: the key file is missing, does
 * not belong to the log, or others can read it; the message says which.  HW_EFORK: the directory is
 * a copy (machine id, device and inode of the key file do not match those recorded), or somebody
 * proved to have more of the log (overtaken.h): nothing is signed until hw_core_adopt().
 *
 * A mirror (mirror.h) is read in full, whatever `limit` says: each of its trees was signed.  For
 * writing it is HW_EREADONLY, and a log is HW_ENOTFOUND for HW_CORE_MIRROR.
 *
 * HW_ENOTFOUND: there is no log in `dir`.  HW_EVERSION, HW_ECORRUPT.
 */
enum hw_status hw_core_open(struct hw_env *env, const char *dir, enum hw_core_mode mode,
                            uint64_t limit, struct hw_core **out,
                            struct hw_error *err) HW_MUST_CHECK;

/*
 * Take over a copied directory, or one that lost its tail: record this machine's identity and raise
 * the fork above all seen.
 */
enum hw_status hw_core_adopt(struct hw_env *env, const char *dir,
                             struct hw_error *err) HW_MUST_CHECK;

void hw_core_close(struct hw_core *core); /* NULL does nothing */

const struct hw_core_identity *hw_core_identity(const struct hw_core *core);
struct hw_core_head hw_core_head(const struct hw_core *core);
uint64_t hw_core_length(const struct hw_core *core);
bool hw_core_is_mirror(const struct hw_core *core); /* however it is open */
/* The first block that may still be there: blocks below were pruned, except single ones. */
uint64_t hw_core_first_kept(const struct hw_core *core);
/* The encoded manifest, added to *out: nothing if it has none (compat), or is not known yet. */
enum hw_status hw_core_manifest(struct hw_core *core, struct hw_buffer *out,
                                struct hw_error *err) HW_MUST_CHECK;

/* Are the bytes of block `index` held?  A mirror that finds them damaged says no from then on. */
enum hw_status hw_core_is_held(struct hw_core *core, uint64_t index, bool *out,
                               struct hw_error *err) HW_MUST_CHECK;
/*
 * The same, and false where that cannot be read: for who asks somebody for the block then, or looks
 * again.  Who tells others what is not there has to know it.
 */
bool hw_core_has(struct hw_core *core, uint64_t index);
/*
 * *found: the first block in [start, end) that is held (or, with `held` false, is not); `end` if
 * there is none.  Looks at no more than a bounded part at once: *checked tells up to where it
 * looked, and if that is before `end` and nothing was found, go on from there.
 */
enum hw_status hw_core_find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                            uint64_t *found, uint64_t *checked, struct hw_error *err) HW_MUST_CHECK;
/* The same as bits, least significant first: `count` words from block `start`, a multiple of 32. */
enum hw_status hw_core_bits(struct hw_core *core, uint64_t start, size_t count, uint32_t *out,
                            struct hw_error *err) HW_MUST_CHECK;

/*
 * Who gets a block that a mirror open for reading has not got: returns when it may be there, or why
 * it will not be.  Called within hw_core_read() and _read_head(), which then look again.
 */
struct hw_core_fetcher {
    enum hw_status (*fetch)(void *ctx, uint64_t index, struct hw_error *err);
    void *ctx;
};
void hw_core_set_fetcher(struct hw_core *core, const struct hw_core_fetcher *fetcher);
/* Bytes the log takes on disk (or in memory), segments and tree. */
uint64_t hw_core_stored_bytes(const struct hw_core *core);

/*
 * The note of the newest batch: bytes of the writer's own that are durable with the batch, never
 * signed and never sent (hyperwal keeps there up to where in the WAL the log reaches).  Empty if
 * there is no batch.  Borrowed until the next call that changes the core.
 */
struct hw_slice hw_core_note(const struct hw_core *core);

/*
 * Append: begin, add blocks, commit.  Nothing is visible before commit, which returns once the
 * batch is durable; after a failure, and after abort, the log is as it was before begin, or the
 * core is poisoned (HW_EBROKEN from then on: a failed sync leaves no third way).
 * hw_core_batch_next() is the index of the block that the next add makes.
 * HW_ELIMIT: a block above HW_BLOCK_SIZE_MAX.
 */
enum hw_status hw_core_batch_begin(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_core_batch_add(struct hw_core *core, const void *block, size_t size,
                                 struct hw_error *err) HW_MUST_CHECK;
uint64_t hw_core_batch_next(const struct hw_core *core);
size_t hw_core_batch_bytes(const struct hw_core *core); /* of blocks added since begin */
enum hw_status hw_core_batch_commit(struct hw_core *core, const void *note, size_t note_size,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_core_batch_abort(struct hw_core *core);

/*
 * Read block `index` into *out (its old content is gone).  Bytes are checked against the leaf
 * hash.  HW_ENOTFOUND: beyond the length.  HW_EPRUNED: given up.  HW_EMISSING: a mirror has not got
 * it, and no fetcher.  HW_ECORRUPT.
 */
enum hw_status hw_core_read(struct hw_core *core, uint64_t index, struct hw_buffer *out,
                            struct hw_error *err) HW_MUST_CHECK;
/* The same for the first `size` bytes at most, unchecked: enough to look at an entry's header. */
enum hw_status hw_core_read_head(struct hw_core *core, uint64_t index, size_t size,
                                 struct hw_buffer *out, struct hw_error *err) HW_MUST_CHECK;
/* Bytes of block `index`; known for pruned blocks too. */
enum hw_status hw_core_block_size(struct hw_core *core, uint64_t index, uint64_t *out,
                                  struct hw_error *err) HW_MUST_CHECK;

/*
 * A reader learns of batches up to `limit` blocks, of a mirror all there are.  After a failure it
 * has all that it had, and looks again when it is asked again.  HW_ECORRUPT: they are not there;
 * then it reads nothing (HW_EBROKEN) until it finds them.  A mirror may move to another fork, and
 * be shorter.
 */
enum hw_status hw_core_refresh(struct hw_core *core, uint64_t limit,
                               struct hw_error *err) HW_MUST_CHECK;

/*
 * A reader looks from where on blocks are kept by now (hw_core_first_kept()); a mirror does so in
 * hw_core_refresh().  HW_EFORK: there is another log in the directory.
 */
enum hw_status hw_core_refresh_kept(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;

/*
 * Give up the bytes of every block for which `keep` says no; the tree stays.  Segments with less
 * than a quarter of live bytes are rewritten, dead ones removed; a mirror gives back the room of
 * each block.  Safe against a crash at any point and against readers.  *freed: bytes of files, or
 * of a mirror's blocks, that are gone.  With `dry_run` nothing is changed.
 */
enum hw_status hw_core_prune(struct hw_core *core, bool (*keep)(void *ctx, uint64_t index),
                             void *ctx, bool dry_run, uint64_t *freed,
                             struct hw_error *err) HW_MUST_CHECK;

/*
 * Check everything there is: every batch, block, leaf, parent, root and signature.  `progress` is
 * told blocks checked; false stops with HW_AGAIN.  The first thing wrong is HW_ECORRUPT or
 * HW_EPROOF with its place.  What a mirror finds damaged is logged, and counts as not held.
 */
enum hw_status hw_core_verify(struct hw_core *core,
                              bool (*progress)(void *ctx, uint64_t checked, uint64_t length),
                              void *ctx, struct hw_error *err) HW_MUST_CHECK;

/* 64 lower-case hex digits and a zero. */
void hw_key_format(const uint8_t key[HW_KEY_SIZE], char out[2 * HW_KEY_SIZE + 1]);

#endif
