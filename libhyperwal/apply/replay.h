/*
 * apply/replay.h - from a snapshot and the entries after it to a state, page by page
 *
 * A snapshot is fuzzy: its groups are images as of their own base seqs.  A replay lays the groups
 * down, then goes through the entries after the least base; for entry S and page p of a group with
 * base B the image is skipped if B >= S, for the group has it already.  Once the greatest base is
 * passed the state is exact, is compared with the snapshot's sum, and from there on every entry's
 * sums are checked.
 *
 *     groups        B=10          B=14          B=12
 *     entries   ...[10] 11 12 13 14 15 16 ... target
 *                        ^ least     ^ greatest: exact from here on
 *
 * Where the pages live is the caller's: a new file (restore.c), a thin layer over the groups
 * (past.c), a scratch file (verify.c).
 *
 * For a replica.  To start, hw_restore() of the newest state makes the file, and hw_state says
 * which entry it has: go on behind hw_state.seq.  To repair one that readers have open, open the
 * target by hw_past_open(), compare hw_past_read() of each page with the replica's own and append
 * those that differ to its WAL as one transaction: readers never see the mixture.
 *
 * Private to apply/.
 */
#ifndef HW_APPLY_REPLAY_H
#define HW_APPLY_REPLAY_H

#include "apply/apply.h"

/* ------------------------------------------------------------------------------ blocks (walk.c) */

/*
 * Block `seq`: its header, and a cursor at its body, borrowed from `buffer` until it changes.  The
 * whole block, checked; or (peek) its first bytes, enough for the numbers of any body, unchecked.
 */
enum hw_status hw_block_read(struct hw_core *core, uint64_t seq, struct hw_buffer *buffer,
                             struct hw_entry_header *header, struct hw_cursor *body,
                             struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_block_peek(struct hw_core *core, uint64_t seq, struct hw_buffer *buffer,
                             struct hw_entry_header *header, struct hw_cursor *body,
                             struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_block_genesis(struct hw_core *core, struct hw_genesis *out,
                                struct hw_error *err) HW_MUST_CHECK;
/* Its bytes are not to be had: given up, or a mirror has not got them. */
static inline bool hw_block_is_absent(enum hw_status status)
{
    return status == HW_EPRUNED || status == HW_EMISSING;
}

/* ------------------------------------------------------------------------------- plan (state.c) */

struct hw_replay_plan {
    struct hw_genesis genesis;
    struct hw_state target;
    bool from_empty;                  /* the database was adopted empty: no snapshot is needed */
    uint64_t first_seq;               /* first block to replay */
    uint64_t index_seq;               /* of the snapshot, unless from_empty */
    struct hw_snapshot snapshot;      /* the same; groups_here is group_count */
    struct hw_snapshot_group *groups; /* owned; group_count of them */
    uint64_t *listed;                 /* owned; the same blocks, ascending */
};

/* The last complete entry with a state at or before block `seq`, restorable or not. */
enum hw_status hw_state_at(struct hw_core *core, uint64_t seq, struct hw_state *out,
                           struct hw_error *err) HW_MUST_CHECK;
/* How to come to `target`: HW_ENOTFOUND, HW_EPRUNED, HW_EFORK as hw_state_resolve(). */
enum hw_status hw_replay_plan_make(struct hw_core *core, const struct hw_target *target,
                                   struct hw_replay_plan *out, struct hw_error *err) HW_MUST_CHECK;
/* The groups of the snapshot whose first index block is `index_seq` into *out. */
enum hw_status hw_replay_plan_snapshot(struct hw_core *core, uint64_t index_seq,
                                       struct hw_replay_plan *out,
                                       struct hw_error *err) HW_MUST_CHECK;
void hw_replay_plan_release(struct hw_replay_plan *plan);
/* The first index block of the newest complete snapshot.  HW_ENOTFOUND: there is none. */
enum hw_status hw_replay_newest_snapshot(struct hw_core *core, uint64_t *index_seq,
                                         struct hw_snapshot *out,
                                         struct hw_error *err) HW_MUST_CHECK;
/*
 * Are the groups of the plan's snapshot there?  HW_EPRUNED, HW_EMISSING: not all.  Of a snapshot
 * older than those that pruning kept the index may be left, among the entries that are kept.
 */
enum hw_status hw_replay_plan_check(struct hw_core *core, const struct hw_replay_plan *plan,
                                    struct hw_error *err) HW_MUST_CHECK;
/*
 * Is block `seq` a group of the plan's snapshot?  They lie among the entries after its least base,
 * and nobody needs to look at them to know it: in a mirror that would be to fetch them.
 */
bool hw_replay_plan_lists(const struct hw_replay_plan *plan, uint64_t seq);

/* ----------------------------------------------------------------------------------- the replay */

/* Where pages are kept.  A page that was never written, or was cut off, reads as zeros. */
struct hw_replay_pages {
    void *ctx;
    enum hw_status (*read)(void *ctx, uint32_t page_number, void *content, struct hw_error *err);
    enum hw_status (*write)(void *ctx, uint32_t page_number, const void *content,
                            struct hw_error *err);
    enum hw_status (*cut)(void *ctx, uint32_t page_count, struct hw_error *err);
};

struct hw_replay {
    struct hw_core *core;              /* borrowed */
    const struct hw_replay_plan *plan; /* borrowed */
    struct hw_replay_pages pages;
    uint32_t page_size;
    uint64_t next_seq;   /* block to replay next */
    uint32_t page_count; /* pages there are; while not exact, as far as any was seen */
    bool exact;          /* past the greatest base: the state of the last entry, and no mixture */
    bool summed;         /* `sum` is that of pages 1 .. page_count */
    uint64_t sum;
    uint64_t entry_sum; /* sum_after of the last block within an entry */
    bool in_entry;
    struct hw_transaction_decoder *decoder; /* owned */
    struct hw_group_coder *coder;           /* owned */
    struct hw_buffer block, group_block;    /* owned */
    uint8_t *group_pages;                   /* owned; HW_GROUP_PAGES pages */
    uint8_t *page;                          /* owned; one page */
};

/* `summed`: the caller will lay down all groups with hw_replay_groups(). */
enum hw_status hw_replay_init(struct hw_replay *replay, struct hw_core *core,
                              const struct hw_replay_plan *plan,
                              const struct hw_replay_pages *pages, bool summed,
                              struct hw_error *err) HW_MUST_CHECK;
void hw_replay_release(struct hw_replay *replay);
/*
 * Block of group `group` of the plan into *block, checked to be one; *body is borrowed from it.
 */
enum hw_status hw_replay_group_load(struct hw_replay *replay, uint32_t group,
                                    struct hw_buffer *block, struct hw_cursor *body,
                                    struct hw_error *err) HW_MUST_CHECK;
/*
 * Expand it into `pages`, *page_count of at most HW_GROUP_PAGES, and check it against what the
 * index says.  Touches nothing of a replay but the plan, which stays as it is: any thread may do
 * it.
 */
enum hw_status hw_replay_group_expand(const struct hw_replay_plan *plan, uint32_t group,
                                      struct hw_group_coder *coder, struct hw_cursor body,
                                      uint8_t *pages, uint32_t *page_count,
                                      struct hw_error *err) HW_MUST_CHECK;
/* Both, into replay->group_pages. */
enum hw_status hw_replay_group_read(struct hw_replay *replay, uint32_t group, uint32_t *page_count,
                                    struct hw_error *err) HW_MUST_CHECK;
/*
 * Lay all groups into `file`, each page at its place, and sum them (replay_groups.c).  `advance` is
 * told bytes written; what it returns, unless HW_OK, ends the work.
 */
enum hw_status hw_replay_groups(struct hw_replay *replay, struct hw_file *file,
                                enum hw_status (*advance)(void *ctx, uint64_t bytes,
                                                          struct hw_error *err),
                                void *ctx, struct hw_error *err) HW_MUST_CHECK;
/* Pages up to page_count are there from now on; they hold zeros until they are written. */
void hw_replay_grow(struct hw_replay *replay, uint32_t page_count);
/* Replay block next_seq.  HW_EFORK: it is a gap. */
enum hw_status hw_replay_block(struct hw_replay *replay, struct hw_error *err) HW_MUST_CHECK;
/* Nothing more comes before the greatest base: the state is exact now, or HW_ECORRUPT. */
enum hw_status hw_replay_settle(struct hw_replay *replay, struct hw_error *err) HW_MUST_CHECK;
/*
 * Nothing more comes: the state must be the plan's target, exact now, also if no entry followed
 * the snapshot.
 */
enum hw_status hw_replay_finish(struct hw_replay *replay, struct hw_error *err) HW_MUST_CHECK;

/* A file that is gone when it is closed, in the system's place for such files. */
enum hw_status hw_replay_scratch(struct hw_env *env, struct hw_file **out,
                                 struct hw_error *err) HW_MUST_CHECK;

#endif
