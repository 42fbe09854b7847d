/*
 * apply/apply.h - from entries of the log back to a database
 *
 * Four users of one replay: a replica that follows, a restore to a file, a read-only view of the
 * past, and the deep verification.  A replay starts from a snapshot (page groups as of their own
 * base seqs) and applies, for each page, the transactions after its group's base.
 *
 * A log is named here by a struct hw_core opened for reading, borrowed; nothing here signs or
 * appends.  Every state reached is checked against the state sum that the log carries.
 */
#ifndef HW_APPLY_APPLY_H
#define HW_APPLY_APPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "entry/entry.h"
#include "env/env.h"
#include "hypercore/hypercore.h"
#include "wal/wal.h"

/* --------------------------------------------------------------------------- which state */

struct hw_target {
    enum { HW_TARGET_HEAD, HW_TARGET_SEQ, HW_TARGET_TIME, HW_TARGET_LABEL } kind;
    uint64_t seq;
    int64_t time_ms;   /* the last entry that is not later */
    const char *label; /* borrowed; the newest of that name */
};

/*
 * "2026-11-22T10:00:00Z", "2026-11-22 10:00:00" (UTC), with fractions, or milliseconds since 1970
 * as digits.  HW_EMISUSE: none of these.
 */
enum hw_status hw_time_parse(const char *text, int64_t *out, struct hw_error *err) HW_MUST_CHECK;
void hw_time_format(int64_t time_ms, char out[32]); /* "2026-11-22T10:00:00.123Z" */

/* What a target resolves to: the last complete entry at or before it. */
struct hw_state {
    uint64_t seq; /* last block of that entry */
    int64_t time_ms;
    uint32_t page_size, page_count;
    uint64_t sum;
};
/*
 * HW_ENOTFOUND: beyond the head, before the first state, or no such label or time; HW_EPRUNED: the
 * log had it; HW_EFORK: it lies in a gap.  The message names what there is.
 */
enum hw_status hw_state_resolve(struct hw_core *core, const struct hw_target *target,
                                struct hw_state *out, struct hw_error *err) HW_MUST_CHECK;

/*
 * Which blocks are needed to come to `target`: the page groups, and last the entries after them.
 * For who has to get them from elsewhere, all at once.  HW_ENOTFOUND: no snapshot leads there.
 */
typedef void hw_block_range(void *ctx, uint64_t start, uint64_t end); /* end: the first beyond */
enum hw_status hw_state_blocks(struct hw_core *core, const struct hw_target *target,
                               hw_block_range *each, void *ctx, struct hw_error *err) HW_MUST_CHECK;

/* -------------------------------------------------------------------------- walking entries */

struct hw_entry_summary { /* one entry, as `hyperwal log` prints it */
    uint64_t seq;         /* last block */
    uint64_t first_seq;   /* first block */
    struct hw_entry_header header;
    uint32_t pages;                   /* images in it */
    uint64_t raw_bytes;               /* of the images */
    uint64_t bytes;                   /* of the blocks */
    uint32_t page_count;              /* database size after it, pages; 0 where it does not say */
    uint64_t sum;                     /* state sum after it; 0 where it does not say */
    char text[HW_LABEL_SIZE_MAX + 1]; /* name of a label, reason of a gap, words of a switch */
    bool has_switch;                  /* it is one: */
    struct hw_switch switch_;
};
/*
 * The entry that holds block *seq; then *seq is the first block of the next one.  HW_END: beyond
 * the length.  HW_EPRUNED: given up, HW_EMISSING: a mirror has not got it; *seq is the next block.
 */
enum hw_status hw_entry_next(struct hw_core *core, uint64_t *seq, struct hw_entry_summary *out,
                             struct hw_error *err) HW_MUST_CHECK;

/*
 * The last block that is held, or that a fetcher can get: for a mirror that nobody fills now, the
 * end of the log may be known while its blocks are not.  UINT64_MAX: there is none.
 */
uint64_t hw_entry_last(struct hw_core *core);

/* -------------------------------------------------------------------------------- restore */

typedef bool hw_progress(void *ctx, uint64_t done, uint64_t total); /* bytes; false: stop */

/*
 * Write the state of `target` to the new file `out_path` through `out_path`.tmp: synced, its sum
 * checked, then renamed.  out_path, -wal, -journal and -shm must not exist (HW_EEXIST); with
 * `force` the old database is folded under EXCLUSIVE first, and refused (HW_EBUSY) if it is open
 * anywhere; the new file has its rights.  *reached says what was restored.  `base` is the VFS for
 * the old database.
 */
enum hw_status hw_restore(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                          const struct hw_target *target, const char *out_path, bool force,
                          hw_progress *progress, void *ctx, struct hw_state *reached,
                          struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- the past */

/* A read-only view of one state, without a full restore: groups are expanded as they are read. */
struct hw_past;
enum hw_status hw_past_open(struct hw_env *env, struct hw_core *core,
                            const struct hw_target *target, struct hw_past **out,
                            struct hw_error *err) HW_MUST_CHECK;
void hw_past_close(struct hw_past *past);
struct hw_state hw_past_state(const struct hw_past *past);
/* Page `page_number`, from 1; beyond page_count HW_END. */
enum hw_status hw_past_read(struct hw_past *past, uint32_t page_number, void *content,
                            struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- replicas */

/*
 * A replica: a plain SQLite database in WAL mode at `path`, and the directory `path`-hyper with
 * `replica` (whose log it follows), `position` (what its WAL means) and `shared`.  One follower at
 * a time has it open; stock sqlite3 may read it at any moment.
 */
struct hw_replica;

/*
 * Open or make the replica of `core` (borrowed until close).  A missing replica is restored from
 * the newest snapshot and the entries after it.  HW_EEXIST: `path` is a database, but not a
 * replica. HW_EFORK: it is the replica of another log.  HW_EBUSY: another follower has it.
 */
enum hw_status hw_replica_open(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                               const char *path, hw_progress *progress, void *ctx,
                               struct hw_replica **out, struct hw_error *err) HW_MUST_CHECK;
/*
 * The same for a replica with holes (lazy.h), through a `base` that fills them: `make` makes the
 * first state.  It is not compared with the log page by page: where that would be needed, opening
 * is HW_ECORRUPT, and so is a step; a step onto another fork is HW_EFORK.  Then it is to be made
 * anew.
 */
typedef enum hw_status hw_replica_make(void *ctx, const char *path, struct hw_state *reached,
                                       struct hw_error *err);
enum hw_status hw_replica_open_lazy(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                                    const char *path, hw_replica_make *make, void *ctx,
                                    struct hw_replica **out, struct hw_error *err) HW_MUST_CHECK;
/* Blocks for which `skip` says so hold no entry and are not read; NULL: all are read. */
void hw_replica_set_skip(struct hw_replica *replica, bool (*skip)(void *ctx, uint64_t block),
                         void *ctx);
void hw_replica_close(struct hw_replica *replica);
/*
 * Apply what the core has beyond the replica's seq, a bounded amount.  HW_END: all of it is
 * applied. HW_AGAIN: readers hold the WAL back beyond its limit, come again soon.  After
 * HW_ECORRUPT by a wrong state sum the next step repairs from a snapshot.  HW_EEXIST: before the
 * first state was there, another database came to `path`; it is not touched.
 */
enum hw_status hw_replica_step(struct hw_replica *replica, struct hw_error *err) HW_MUST_CHECK;
/*
 * The last block that needs nothing more done: of the newest transaction that readers see, or of
 * what follows it and changes no page.  UINT64_MAX: there is no database yet, or its state is not
 * known.
 */
uint64_t hw_replica_seq(const struct hw_replica *replica);
uint64_t hw_replica_sum(const struct hw_replica *replica);
/* The state that readers see: of the last transaction; seq UINT64_MAX as above.  No time. */
struct hw_state hw_replica_state(const struct hw_replica *replica);
uint64_t hw_replica_fork(const struct hw_replica *replica); /* of the log that it is a state of */
/*
 * Let a connection of this process write: drop what is not visible yet and give the WRITE lock of
 * the WAL away.  No step until hw_replica_take_write(), which the caller makes after that
 * connection has given the lock back.
 */
enum hw_status hw_replica_give_write(struct hw_replica *replica,
                                     struct hw_error *err) HW_MUST_CHECK;
/*
 * `committed`: the log has what the connection committed, as the last block of this state.  It is
 * the state of the replica from now on, if the WAL has it; if not, the entry is applied as any
 * other.  NULL: nothing was committed, and frames that say otherwise are cut off.  HW_ECORRUPT:
 * the WAL has another state than it should.  HW_EBUSY: the lock is still held; call again.
 */
enum hw_status hw_replica_take_write(struct hw_replica *replica, const struct hw_state *committed,
                                     struct hw_error *err) HW_MUST_CHECK;
/* Remember where the log was found, for hw_replica_info(). */
enum hw_status hw_replica_set_source(struct hw_replica *replica, const char *source,
                                     struct hw_error *err) HW_MUST_CHECK;

/* Where a replica that came from another log began in the one that it follows now. */
struct hw_replica_base {
    uint32_t epoch; /* how many logs it followed before this one; 0: none, and the rest is too */
    uint32_t page_count;
    uint64_t seq, sum; /* the state with this sum is that of `seq` */
};

/* What `path`-hyper says without opening the replica.  HW_ENOTFOUND: not a replica. */
struct hw_replica_info {
    uint8_t key[HW_KEY_SIZE];
    uint64_t record; /* number of the last record of a state, from 1; 0: none */
    bool is_closed;  /* its follower ended in good order with it */
    uint64_t seq;    /* last recorded; UINT64_MAX: none */
    uint64_t sum;
    uint64_t fork; /* of the log that it is a state of */
    uint32_t page_count;
    struct hw_wal_position at; /* the end of its WAL in that state */
    struct hw_replica_base base;
    char source[512]; /* where it was last fed from: a log directory, or URLs with blanks between */
};
enum hw_status hw_replica_info(struct hw_env *env, const char *path, struct hw_replica_info *out,
                               struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------ from one log to another one */

/*
 * The directory within that of a replica in which the log lies that it is about to get as a
 * primary.  While it is there the replica is not followed.
 */
#define HW_REPLICA_PROMOTED "promoted"

/* The switch that is block `seq`.  HW_ENOTFOUND: there is none there. */
enum hw_status hw_switch_read(struct hw_core *core, uint64_t seq, struct hw_switch *out,
                              struct hw_error *err) HW_MUST_CHECK;
/*
 * How does a log stand to a state of another one, at `seq` of `fork` of the log `key`?  *out is its
 * switch, unless it is a stranger's.
 */
enum hw_relation {
    HW_RELATION_STRANGER, /* it does not continue that log */
    HW_RELATION_EQUAL,    /* it begins with this very state */
    HW_RELATION_BEHIND,   /* the state is an earlier one: more of the old log leads to the switch */
    HW_RELATION_AHEAD,    /* the state is a later one, or of another history */
};
enum hw_status hw_replica_relation(struct hw_core *core, const struct hw_replica_info *info,
                                   enum hw_relation *relation, struct hw_switch *out,
                                   struct hw_error *err) HW_MUST_CHECK;
/*
 * The replica `path`, which nobody has open, ends being one: its directory loses what only a
 * replica has, and last the file that makes it one.  Its log is in the directory, or kept.
 */
enum hw_status hw_replica_release(struct hw_env *env, const char *path,
                                  struct hw_error *err) HW_MUST_CHECK;
/* The same without the last step: nothing here speaks of the old log any more. */
enum hw_status hw_replica_strip(struct hw_env *env, const char *path,
                                struct hw_error *err) HW_MUST_CHECK;
/*
 * A database with a log of its own becomes a replica of the log `key`, whose switch is `switch_`:
 * the reverse.  It is closed, without a WAL.  `is_equal`: it is in the state of the switch; else
 * it is compared with the log when it is followed.  Its own log is moved away by the caller.
 */
enum hw_status hw_replica_adopt(struct hw_env *env, const char *path,
                                const uint8_t key[HW_KEY_SIZE], const struct hw_switch *switch_,
                                bool is_equal, struct hw_error *err) HW_MUST_CHECK;
/* The lock of a replica's follower, for who does one of these.  HW_EBUSY: it is followed. */
enum hw_status hw_replica_lock(struct hw_env *env, const char *path, struct hw_file **out,
                               struct hw_error *err) HW_MUST_CHECK;

/* ----------------------------------------------------------------------------- verification */

/*
 * Replay the whole log: every snapshot against the state that the transactions before it reached,
 * every transaction's sums.  HW_ECORRUPT names the first entry that does not fit.
 */
enum hw_status hw_verify_deep(struct hw_env *env, struct hw_core *core, hw_progress *progress,
                              void *ctx, struct hw_error *err) HW_MUST_CHECK;
/*
 * The state sum of a closed or open database file as a reader sees it now, by SQLite's own reads.
 */
enum hw_status hw_database_sum(sqlite3_vfs *base, const char *path, uint32_t *page_size,
                               uint32_t *page_count, uint64_t *sum,
                               struct hw_error *err) HW_MUST_CHECK;

#endif
