/*
 * hypercore/core_internal.h - the parts of a log, for the core_*.c files and their tests
 *
 *   core_open.c    create, open, adopt, close
 *   core_end.c     where it ends, at open and when others append
 *   core_batch.c   append, segments in turn
 *   core_read.c    blocks
 *   core_prune.c   giving bytes up
 *   core_verify.c  checking everything
 *   core_held.c    what is held
 *
 * A mirror (mirror_internal.h) is a core of another kind: each public function that differs for it
 * begins with one branch.
 */
#ifndef HW_HYPERCORE_CORE_INTERNAL_H
#define HW_HYPERCORE_CORE_INTERNAL_H

#include "hypercore/hypercore.h"
#include "hypercore/log_file.h"
#include "hypercore/segment.h"
#include "hypercore/tree.h"
#include "hypercore/tree_file.h"

enum {
    HW_CORE_SEGMENT_SIZE = 64 << 20,       /* bytes after which the next batch begins a segment */
    HW_CORE_MEMORY_SEGMENT_SIZE = 4 << 20, /* the same in memory */
    HW_CORE_MARKER_INTERVAL = 2 << 20,     /* bytes appended between two syncs of the tree */
};

/* Where the log ends: what one more record must continue. */
struct hw_core_end {
    uint32_t segment; /* identity; 0: there is no segment yet */
    uint64_t offset;
    uint8_t chain[HW_SEGMENT_CHAIN_SIZE];
};

struct hw_core_batch {
    bool is_active, is_failed; /* failed: an add found no room, only abort is left */
    struct hw_roots roots;     /* with the blocks added */
    struct hw_core_end end;    /* behind the parts written */
    struct hw_buffer record;   /* room for a head, then data of the record in the making */
    struct hw_buffer sizes;    /* uint32_t each, of its blocks */
    struct hw_buffer leaves;   /* their hashes */
    uint64_t first, start;     /* of it */
    size_t bytes;              /* of all blocks since begin */
};

/*
 * What a reader that goes from block to block has read beyond the block it was asked for.  All of
 * it is only a guess: what does not check is read again without it.
 */
struct hw_core_ahead {
    uint64_t next; /* the block after the one read last */
    struct hw_slots_ahead slots;
    struct hw_record record; /* without slices */
    uint32_t record_segment; /* where it is; 0: none */
    uint64_t record_offset;
    uint8_t *window; /* owned; NULL before the first use */
    size_t window_size;
    uint32_t window_segment;
    uint64_t window_offset;
};

struct hw_core_mirror; /* mirror_internal.h */

struct hw_core {
    struct hw_env *env;    /* where the files are */
    struct hw_env *memory; /* owned: the same, if the log is in memory; else NULL */
    char *dir;             /* owned */
    enum hw_core_mode mode;
    bool is_poisoned;
    struct hw_core_mirror *mirror; /* owned; NULL: a log with segments */
    uint64_t limit;                /* blocks a reader may see */
    uint64_t segment_size;         /* bytes */
    struct hw_log_file log;
    struct hw_core_identity identity;
    uint8_t public_key[HW_PUBLIC_KEY_SIZE];
    uint8_t secret_key[HW_SECRET_KEY_SIZE]; /* of a writer */

    struct hw_roots roots; /* of the newest commit */
    uint64_t fork;
    uint8_t tree_hash[HW_HASH_SIZE];
    uint8_t signature[HW_SIGNATURE_SIZE];
    uint8_t note[HW_NOTE_SIZE_MAX];
    size_t note_size;
    bool has_commit; /* signature and note are filled */
    bool at_limit;   /* the last walk ended because of the limit */

    struct hw_core_end end;
    struct hw_tree_marker before; /* the place before the newest commit: where to start reading */
    uint64_t marker_offset;       /* of the marker on disk, in the current segment */
    uint64_t allocated;           /* bytes reserved for the current segment */
    bool is_changed;              /* since open */

    struct hw_tree_file tree;
    struct hw_file *segment; /* owned: the current one */
    struct hw_file *old;     /* owned: an older one being read; NULL */
    uint32_t old_identity;
    struct hw_core_ahead ahead;
    struct hw_segment_scan scan;
    struct hw_core_batch batch;
    struct hw_buffer scratch; /* for reading */
};

/* A core that is not open yet; `dir` NULL: in memory. */
enum hw_status hw_core_new(struct hw_env *env, const char *dir, enum hw_core_mode mode,
                           struct hw_core **out, struct hw_error *err) HW_MUST_CHECK;
void hw_core_free(struct hw_core *core); /* NULL does nothing */
/* Its directory, and the name of that; HW_EEXIST: there is a log or mirror in it. */
enum hw_status hw_core_make_dir(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;

/*
 * Walk from the last place that can be trusted to the end of the log, or to core->limit.  With
 * `adopt` blocks that were lost are given up.  Slots stay in the overlay; a writer flushes them.
 */
enum hw_status hw_core_find_end(struct hw_core *core, bool adopt,
                                struct hw_error *err) HW_MUST_CHECK;

/* Is this the directory, on the machine, where the log is written, and not a copy of it? */
bool hw_core_is_at_home(struct hw_core *core);
/* HW_OK if the core may be written, else why not. */
enum hw_status hw_core_check_writable(const struct hw_core *core,
                                      struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_core_poison(struct hw_core *core, enum hw_status status);

/*
 * Begin a new segment under `fork`: with the tree synced, and a COMMIT of no blocks.  Poisons the
 * core if it fails after the segment got its name.
 */
enum hw_status hw_core_rotate(struct hw_core *core, uint64_t fork,
                              struct hw_error *err) HW_MUST_CHECK;
/* Sync the tree and mark the newest commit. */
enum hw_status hw_core_sync_tree(struct hw_core *core, struct hw_error *err);
/* Sign the tree with these roots. */
void hw_core_sign(const struct hw_core *core, const struct hw_roots *roots, uint64_t fork,
                  uint8_t tree_hash[HW_HASH_SIZE], uint8_t signature[HW_SIGNATURE_SIZE]);
bool hw_core_signature_fits(const struct hw_core *core, const uint8_t tree_hash[HW_HASH_SIZE],
                            uint64_t length, uint64_t fork, const uint8_t *signature);
/* A parent's place in the tree file; for hw_roots_push(), ctx is the core. */
void hw_core_parent_made(void *ctx, const struct hw_node *parent);

/* Forget what was read ahead. */
void hw_core_drop_ahead(struct hw_core *core);
/* Forget the old segment that is open for reading. */
void hw_core_drop_old(struct hw_core *core);
/* The file of a segment, borrowed until the next call.  HW_ENOTFOUND: pruned, or lost. */
enum hw_status hw_core_segment_file(struct hw_core *core, uint32_t identity, struct hw_file **out,
                                    struct hw_error *err) HW_MUST_CHECK;

#endif
