/*
 * hypercore/mirror_internal.h - the parts of a mirror, for the mirror*.c files and their tests
 *
 *   mirror_file.c    bytes of the small files
 *   mirror_store.c   nodes, bits and data of blocks, at their places
 *   mirror.c         create, open, refresh, sync, close; the head
 *   mirror_tail.c    what was accepted since all of that was synced
 *   mirror_accept.c  answers, other forks
 *   mirror_read.c    blocks, what is held
 *   mirror_prune.c   giving bytes up
 *   mirror_verify.c  checking everything
 *
 * A struct hw_core with a `mirror` is one: roots, fork and tree hash are those of the newest head,
 * segments and tree file are not used.  Order of writing: nodes, data, bits, head; whoever sees a
 * length finds what came with it, and what a crash leaves out is not held.
 *
 * To sync is one write and one fdatasync of one file most of the time:
 *
 *             accept ──▶ nodes, *.dat, have, head      as readers see them
 *                  └───▶ news ──sync──▶ tail           the same again, durable
 *                                         │ full, or the news too large:
 *                                         ▼
 *                        all files are synced, and a new tail begins
 *
 * What was synced in full and the tail upon it are what a crash leaves.  Who opens the mirror for
 * writing stores what the tail has once more.  Whatever takes something away, or writes over it,
 * retires the tail before.
 */
#ifndef HW_HYPERCORE_MIRROR_INTERNAL_H
#define HW_HYPERCORE_MIRROR_INTERNAL_H

#include "hypercore/core_internal.h"
#include "hypercore/mirror.h"
#include "hypercore/mirror_file.h"

enum {
    HW_MIRROR_DAT_SIZE = 64 << 20,       /* bytes of the log in one file */
    HW_MIRROR_DAT_NUMBER_MAX = 99999999, /* what the name has room for */
    HW_MIRROR_DATS_OPEN = 4,
    HW_MIRROR_CACHE = 1024,          /* nodes; a power of two */
    HW_MIRROR_RUN_MAX = 64,          /* nodes written at once */
    HW_MIRROR_LOOK = 4096,           /* bytes of `have` looked at in one call */
    HW_MIRROR_PAGE = 4096,           /* bytes of `have` that the one who writes it keeps */
    HW_MIRROR_TAIL_FIRST = 64 << 10, /* bytes of a tail; it is doubled when it was full, up to */
    HW_MIRROR_TAIL_SIZE = 4 << 20,
    HW_MIRROR_NEWS_MAX = 512 << 10, /* bytes of items in one record; beyond all is synced */
    HW_MIRROR_RECORD_MAX = HW_MIRROR_NEWS_MAX + HW_MIRROR_SLOT_SIZE,
};

struct hw_mirror_dat {
    struct hw_file *file; /* owned; NULL: free */
    uint64_t number;
    bool is_dirty;
    uint64_t used; /* for finding the one not used for longest */
};

struct hw_mirror_cached {
    struct hw_node node;
    bool is_held, is_proven;
    bool is_missing; /* it is known not to be in the file; only in who writes that */
};

struct hw_mirror_tail {
    struct hw_file *file;         /* owned; NULL: there is none yet */
    uint64_t capacity;            /* bytes that were written once */
    uint64_t first_size, size;    /* HW_MIRROR_TAIL_..., smaller for tests */
    uint64_t end;                 /* where the next record goes; 0: with a new salt */
    struct hw_mirror_chain chain; /* up to there */
    bool is_based;  /* all was synced, and what was stored since is in the tail or in the news */
    bool is_void;   /* nothing in the file counts, also after a crash */
    bool has_head;  /* the head moved since the last record */
    bool was_short; /* its size was why all was synced */
    /* Room for a header and a record's size, then items. */
    struct hw_buffer news;
};

struct hw_core_mirror {
    struct hw_buffer manifest; /* encoded; what the authority borrows from */
    struct hw_authority authority;
    bool has_authority;
    uint64_t first_kept;

    struct hw_buffer signature; /* of the head, as received */
    uint64_t generation;        /* of the head; 0: there is none */
    unsigned slot;              /* where it is */
    unsigned pinned;            /* the slot known to be on the disk: not to be written */

    struct hw_file *head, *nodes, *have; /* owned */
    bool head_dirty, nodes_dirty, have_dirty, names_dirty;
    bool dats_dirty; /* those of a writer before us: any of them */
    struct hw_mirror_dat dats[HW_MIRROR_DATS_OPEN];
    uint64_t ticks;

    /* A page of `have` as in the file.  Only in who writes it: others would miss what comes. */
    uint8_t page[HW_MIRROR_PAGE];
    uint64_t page_at; /* where it is from; UINT64_MAX: none */
    struct hw_mirror_cached cache[HW_MIRROR_CACHE];
    uint64_t next, next_start; /* the block after the one read last, and its first byte */
    struct hw_core_fetcher fetcher;
    struct hw_buffer scratch, order;
    struct hw_mirror_tail tail;
};

/* ---------------------------------------------------------------------------- mirror_store.c */

enum hw_status hw_mirror_files_open(struct hw_core *core, bool create,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_mirror_files_close(struct hw_core *core);

/* HW_ENOTFOUND: not held.  `is_proven`: its size is, too. */
enum hw_status hw_mirror_node(struct hw_core *core, uint64_t index, struct hw_node *out,
                              bool *is_proven, struct hw_error *err) HW_MUST_CHECK;
/* For struct hw_node_source, ctx is the core: nodes of its tree; and only those with a size. */
enum hw_status hw_mirror_node_any(void *ctx, uint64_t index, struct hw_node *out,
                                  struct hw_error *err);
enum hw_status hw_mirror_node_proven(void *ctx, uint64_t index, struct hw_node *out,
                                     struct hw_error *err);
/* Nodes whose sizes were said, and not proven (mirror_file.h). */
struct hw_mirror_doubt {
    bool all;
    unsigned count;
    uint64_t indices[4];
};
enum hw_status hw_mirror_put_nodes(struct hw_core *core, const struct hw_nodes *nodes,
                                   const struct hw_mirror_doubt *doubt, struct hw_error *err);
/* Drop all nodes that a log of `length` blocks does not have. */
enum hw_status hw_mirror_cut_nodes(struct hw_core *core, uint64_t length,
                                   struct hw_error *err) HW_MUST_CHECK;
void hw_mirror_forget_nodes(struct hw_core *core); /* the cached ones */

/* `size` bytes of `have` from `offset`; zero behind its end. */
enum hw_status hw_mirror_read_bits(struct hw_core *core, uint64_t offset, size_t size, uint8_t *out,
                                   struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_bit(struct hw_core *core, uint64_t block, bool *out,
                             struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_set_bit(struct hw_core *core, uint64_t block, bool value,
                                 struct hw_error *err);
enum hw_status hw_mirror_write_bits(struct hw_core *core, uint64_t offset, const uint8_t *bytes,
                                    size_t size, struct hw_error *err) HW_MUST_CHECK;
/* Bits of blocks from `length` on are gone. */
enum hw_status hw_mirror_cut_bits(struct hw_core *core, uint64_t length,
                                  struct hw_error *err) HW_MUST_CHECK;

/* Bytes of the log.  HW_ENOTFOUND: no such file; holes read as zero. */
enum hw_status hw_mirror_read_data(struct hw_core *core, uint64_t offset, size_t size, uint8_t *out,
                                   struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_write_data(struct hw_core *core, uint64_t offset, struct hw_slice data,
                                    struct hw_error *err) HW_MUST_CHECK;
/* Give the room back, of bytes within one file.  HW_ENOTFOUND: there is no such file. */
enum hw_status hw_mirror_punch_data(struct hw_core *core, uint64_t offset, uint64_t size,
                                    struct hw_error *err) HW_MUST_CHECK;
char *hw_mirror_dat_path(const char *dir, uint64_t number);
/* Close what is open of the data: files may have been removed or made anew. */
void hw_mirror_drop_dats(struct hw_core *core);
/* The numbers of all data files, u64 each, in no order, added to *out. */
enum hw_status hw_mirror_list_dats(struct hw_env *env, const char *dir, struct hw_buffer *out,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Make what was written so far durable, data and nodes before the head. */
enum hw_status hw_mirror_sync_files(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;

/* Write nodes whose indices follow each other, `count` of at most HW_MIRROR_RUN_MAX. */
enum hw_status hw_mirror_write_nodes(struct hw_core *core, const struct hw_mirror_cached *items,
                                     size_t count, struct hw_error *err) HW_MUST_CHECK;

/* ----------------------------------------------------------------------------- mirror_tail.c */

/* Open the tail if there is one; a new mirror begins without. */
enum hw_status hw_mirror_tail_open(struct hw_core *core, bool create,
                                   struct hw_error *err) HW_MUST_CHECK;
void hw_mirror_tail_close(struct hw_core *core);

/* What was stored: for the next record. */
void hw_mirror_tail_node(struct hw_core *core, const struct hw_node *node, bool is_proven);
void hw_mirror_tail_block(struct hw_core *core, uint64_t block, uint64_t start,
                          struct hw_slice data);
void hw_mirror_tail_head(struct hw_core *core);
/* Something was stored in part, or is stored past the tail: the next sync is one of everything. */
void hw_mirror_tail_spoil(struct hw_core *core);

/* Make the news durable.  *done false: that takes a sync of everything. */
enum hw_status hw_mirror_tail_sync(struct hw_core *core, bool *done,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Everything was synced: the tail begins anew. */
void hw_mirror_tail_restart(struct hw_core *core);
/* Make it larger, if that would have spared a sync of everything.  Without room it stays. */
void hw_mirror_tail_grow(struct hw_core *core);
/* Sync everything, and let nothing of the tail come back after a crash. */
enum hw_status hw_mirror_tail_retire(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;
/* Store what the tail has, and retire it. */
enum hw_status hw_mirror_tail_replay(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;

/* ---------------------------------------------------------------------------------- mirror.c */

/* Does `dir` hold a mirror? */
enum hw_status hw_mirror_exists(struct hw_core *core, bool *out,
                                struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_open(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_refresh(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;
void hw_mirror_free(struct hw_core *core);
/* HW_OK if it may be written, else why not. */
enum hw_status hw_mirror_check_writable(const struct hw_core *core,
                                        struct hw_error *err) HW_MUST_CHECK;
/* Write the file `mirror` with what is known. */
enum hw_status hw_mirror_write_info(struct hw_core *core, struct hw_error *err) HW_MUST_CHECK;
/* Keep this manifest (empty: there is none) and the authority that follows, in memory. */
enum hw_status hw_mirror_set_authority(struct hw_core *core, struct hw_slice manifest,
                                       struct hw_error *err) HW_MUST_CHECK;
/* The head is this from now on. */
enum hw_status hw_mirror_write_head(struct hw_core *core, uint64_t fork,
                                    const struct hw_roots *roots, struct hw_slice signature,
                                    struct hw_error *err) HW_MUST_CHECK;

/* ----------------------------------------------------------------------------- mirror_read.c */

/* The first byte of a block.  HW_ENOTFOUND: nodes are missing. */
enum hw_status hw_mirror_block_start(struct hw_core *core, uint64_t index, uint64_t *out,
                                     struct hw_error *err) HW_MUST_CHECK;
/* At most `size` bytes of a block. */
enum hw_status hw_mirror_read(struct hw_core *core, uint64_t index, size_t size,
                              struct hw_buffer *out, struct hw_error *err) HW_MUST_CHECK;
/*
 * The whole block, without asking anybody.  HW_EMISSING: it is not held; if it should have been, it
 * is not from now on.
 */
enum hw_status hw_mirror_read_held(struct hw_core *core, uint64_t index, struct hw_buffer *out,
                                   struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_block_size(struct hw_core *core, uint64_t index, uint64_t *out,
                                    struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                              uint64_t *found, uint64_t *checked,
                              struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_bits(struct hw_core *core, uint64_t start, size_t count, uint32_t *out,
                              struct hw_error *err) HW_MUST_CHECK;
uint64_t hw_mirror_stored_bytes(const struct hw_core *core);

/* ------------------------------------------------------------------- prune, verify, prove */

enum hw_status hw_mirror_prune(struct hw_core *core, bool (*keep)(void *ctx, uint64_t index),
                               void *ctx, bool dry_run, uint64_t *freed,
                               struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_verify(struct hw_core *core,
                                bool (*progress)(void *ctx, uint64_t checked, uint64_t length),
                                void *ctx, struct hw_error *err) HW_MUST_CHECK;

#endif
