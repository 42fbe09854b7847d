/*
 * apply/replica_internal.h - the parts of a replica, for the replica*.c files of this folder only
 *
 *   replica.c            open, step, close: what happens next
 *   replica_binding.c    the file `replica`: whose replica it is, and how it becomes another log's
 *   replica_apply.c      blocks of the log become pages of a batch, and a batch a transaction
 *   replica_overlay.c    the pages of a batch, before anybody sees them
 *   replica_position.c   the file that tells which entry an end of the WAL is
 *   replica_database.c   the database file, its WAL and index, its locks, its checkpoints
 *   replica_write.c      the WRITE lock given to a connection, and taken back
 *   replica_recover.c    where we are at open, and the way back from a state that does not fit
 *
 * A batch becomes visible in this order: record appended to `position`, frames written, index
 * published.  So any end of the WAL that a recovery can find after a crash of the process has its
 * record.  After a loss of power the record may be gone while frames are there; then the WAL is
 * cut back to an end that has one, or the state is compared with the log's, page by page.
 *
 * That rests on frames being durable before a checkpoint copies them into the database file, and on
 * the file being durable before another round of the WAL.  After a sync that failed the next one
 * says nothing of what was written before it: then no checkpoint is made until the WAL was read,
 * written once more and synced, and it copies all frames again.  So it is after a follower that did
 * not close, for nobody knows what it was told.
 */
#ifndef HW_APPLY_REPLICA_INTERNAL_H
#define HW_APPLY_REPLICA_INTERNAL_H

#include "apply/apply.h"
#include "env/shared_page.h"
#include "wal/wal.h"

/* ---------------------------------------------------------------------------- position file */

enum { HW_RECORD_CLOSED = 1 }; /* a follower closed here: nothing was written after it */

/* This end of the WAL is the state at seq. */
struct hw_replica_record {
    uint64_t ordinal; /* from 1, counts records */
    uint64_t seq, sum;
    struct hw_wal_position at;
    uint32_t page_count;
    uint32_t flags;
    uint32_t epoch; /* of the log whose seq it is: that of hw_replica_base */
    uint32_t boot;  /* tells boots of a machine apart */
};

enum { HW_POSITION_RECORDS = 4096 };

struct hw_positions;
/*
 * The file `dir`/position, made if it is missing or damaged; new records get this epoch.
 * HW_EVERSION: of a newer hyperwal.
 */
enum hw_status hw_positions_open(struct hw_env *env, const char *dir, uint32_t epoch,
                                 struct hw_positions **out, struct hw_error *err) HW_MUST_CHECK;
void hw_positions_close(struct hw_positions *positions);
/* Forget all records. */
enum hw_status hw_positions_reset(struct hw_positions *positions,
                                  struct hw_error *err) HW_MUST_CHECK;
/* All records, newest first, on the heap: *out is the caller's. */
enum hw_status hw_positions_load(struct hw_positions *positions, struct hw_replica_record **out,
                                 uint32_t *count, struct hw_error *err) HW_MUST_CHECK;
/* Fills in ordinal, epoch and boot.  Not synced. */
enum hw_status hw_positions_append(struct hw_positions *positions,
                                   const struct hw_replica_record *record,
                                   struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_positions_sync(struct hw_positions *positions,
                                 struct hw_error *err) HW_MUST_CHECK;
/* Half of the ring is not synced yet: sync the WAL and it before a needed record is overwritten. */
bool hw_positions_is_half_unsynced(const struct hw_positions *positions);
uint32_t hw_positions_boot(const struct hw_positions *positions); /* of now */
/* When the newest record was written, by the file system. */
enum hw_status hw_positions_modified(struct hw_positions *positions, int64_t *ns,
                                     struct hw_error *err) HW_MUST_CHECK;
/* The newest record of the file, without opening it for writing.  HW_END: none. */
enum hw_status hw_positions_peek(struct hw_env *env, const char *dir, struct hw_replica_record *out,
                                 struct hw_error *err) HW_MUST_CHECK;

/* A record of an earlier log: its seq becomes that of the base, or UINT64_MAX: not known here. */
void hw_record_rebase(struct hw_replica_record *record, const struct hw_replica_base *base);

/* --------------------------------------------------------------------------------- binding */

/* key, source, fork and base; the rest is left as it is.  HW_ENOTFOUND: no replica. */
enum hw_status hw_replica_binding_read(struct hw_env *env, const char *dir,
                                       struct hw_replica_info *out,
                                       struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_replica_binding_write(struct hw_env *env, const char *dir,
                                        const struct hw_replica_info *info,
                                        struct hw_error *err) HW_MUST_CHECK;
/*
 * The replica `path`, bound as *info says, becomes one of the log of `core`, which continues its
 * own; *info is then as bound.  HW_EFORK: it does not continue it.
 */
enum hw_status hw_replica_move(struct hw_env *env, const char *path, struct hw_core *core,
                               struct hw_replica_info *info, struct hw_error *err) HW_MUST_CHECK;

/* --------------------------------------------------------------------------------- overlay */

/* Pages by number, up to `capacity` of them; memory grows as needed and is kept. */
struct hw_overlay;
enum hw_status hw_overlay_new(uint32_t page_size, uint32_t capacity, struct hw_overlay **out,
                              struct hw_error *err) HW_MUST_CHECK;
void hw_overlay_free(struct hw_overlay *overlay);
void hw_overlay_clear(struct hw_overlay *overlay);
uint32_t hw_overlay_count(const struct hw_overlay *overlay);
uint32_t hw_overlay_room(const struct hw_overlay *overlay);
/* Memory for `count` more pages, for which there is room: that many puts cannot fail then. */
enum hw_status hw_overlay_reserve(struct hw_overlay *overlay, uint32_t count,
                                  struct hw_error *err) HW_MUST_CHECK;
/* NULL: not in it.  Valid until the next reserve or clear. */
const uint8_t *hw_overlay_find(const struct hw_overlay *overlay, uint32_t page_number);
/* Replaces the page if it is there; else it takes a page that was reserved. */
void hw_overlay_put(struct hw_overlay *overlay, uint32_t page_number, const void *content);
void hw_overlay_drop_above(struct hw_overlay *overlay, uint32_t page_count);
/* Page `i` of count: its number, 0 if it was dropped, and its content. */
uint32_t hw_overlay_page(const struct hw_overlay *overlay, uint32_t i, const uint8_t **content);

/* -------------------------------------------------------------------------------- database */

/*
 * The replica's files.  While it is open SHARED is held on the database and WRITE on the wal-index:
 * nobody else writes into the replica or deletes its WAL.
 */
struct hw_replica_database {
    struct hw_env *env;
    sqlite3_vfs *base;
    sqlite3 *stock;   /* a connection of SQLite's own: recovery and checkpoints */
    const char *name; /* of sqlite3_create_filename(), for `file` */
    sqlite3_file *file;
    struct hw_wal_index *index;
    struct hw_file *wal;
    struct hw_wal_writer *writer; /* NULL until hw_replica_database_attach() */
    bool has_write;               /* the lock WRITE of the wal-index */
    uint32_t page_size;
};

/*
 * HW_EBUSY: somebody writes into the replica.  HW_ECORRUPT: not a database.  *header is the end of
 * the WAL that SQLite recovered.
 */
enum hw_status hw_replica_database_open(struct hw_env *env, sqlite3_vfs *base, const char *path,
                                        uint32_t page_size, struct hw_replica_database **out,
                                        struct hw_wal_index_header *header,
                                        struct hw_error *err) HW_MUST_CHECK;
void hw_replica_database_close(struct hw_replica_database *db);
/* Begin to write where the WAL ends. */
enum hw_status hw_replica_database_attach(struct hw_replica_database *db,
                                          struct hw_error *err) HW_MUST_CHECK;
/* Take WRITE back, which was given away: HW_EBUSY.  *header is the end of the WAL then. */
enum hw_status hw_replica_database_lock(struct hw_replica_database *db,
                                        struct hw_wal_index_header *header,
                                        struct hw_error *err) HW_MUST_CHECK;
void hw_replica_database_unlock(struct hw_replica_database *db); /* the writer is closed */
/* The page as readers see it now. */
enum hw_status hw_replica_database_read(struct hw_replica_database *db, uint32_t page_number,
                                        void *content, struct hw_error *err) HW_MUST_CHECK;
/* The state sum of `page_count` pages as readers see them now. */
enum hw_status hw_replica_database_sum(struct hw_replica_database *db, uint32_t page_count,
                                       uint64_t *sum, struct hw_error *err) HW_MUST_CHECK;
/* A passive checkpoint.  *complete: all of the WAL is in the database file. */
enum hw_status hw_replica_database_checkpoint(struct hw_replica_database *db, bool *complete,
                                              struct hw_error *err) HW_MUST_CHECK;
/*
 * Make `at` the end of the WAL: frames after it are gone.  HW_AGAIN: they are read, or are in the
 * database file already.  `check` looks at every page first; HW_END: some of them are in the file,
 * though the index does not tell.  Nothing is changed then.
 */
enum hw_status hw_replica_database_cut(struct hw_replica_database *db,
                                       const struct hw_replica_record *at, bool check,
                                       struct hw_error *err) HW_MUST_CHECK;

/* --------------------------------------------------------------------------------- replica */

enum {
    HW_REPLICA_BATCH_BYTES = 2 << 20,    /* of pages, that become visible at once */
    HW_REPLICA_BATCH_BLOCKS = 1024,      /* that a step looks at */
    HW_REPLICA_CHECKPOINT_FRAMES = 1000, /* new frames that make a checkpoint worth while */
    HW_REPLICA_CATCH_UP_FRAMES = 2500,   /* the same for who is behind */
    HW_REPLICA_WAL_LIMIT = 4000,         /* frames; above it publishing pauses */
    HW_REPLICA_PAUSE_MS = 1000,          /* the longest pause */
};

struct hw_replica_state {
    uint64_t seq; /* UINT64_MAX: not known, to be repaired */
    uint64_t sum;
    uint32_t page_count;
};

struct hw_replica {
    struct hw_env *env;
    sqlite3_vfs *base;
    struct hw_core *core; /* borrowed */
    char *path, *dir;     /* owned: full path, and path-hyper */
    hw_progress *progress;
    void *progress_ctx;
    hw_replica_make *make; /* NULL: a whole replica */
    void *make_ctx;
    bool (*skip)(void *ctx, uint64_t block); /* NULL: all blocks are read */
    void *skip_ctx;
    struct hw_file *lock; /* one follower at a time */
    struct hw_shared_page *shared;
    struct hw_positions *positions;
    struct hw_replica_database *db; /* NULL: nothing to build it from yet */

    uint32_t page_size;              /* 0: the log has no genesis yet */
    struct hw_replica_state visible; /* what readers see */
    struct hw_replica_state next;    /* with what the batch holds */
    uint64_t next_block;             /* the first block not yet looked at */
    uint64_t shown_seq;              /* visible.seq, or a later block that changes no page */

    struct hw_overlay *overlay;
    struct hw_transaction_decoder *decoder;
    struct hw_buffer block;
    uint8_t *scratch; /* one page */
    uint32_t grown;   /* pages of the open entry beyond the size before it */
    uint32_t added;   /* frames added to the writer and not published */
    bool in_entry;    /* between the blocks of a transaction of several */
    bool has_built;   /* a file at `path` is the one that build() made */
    bool needs_repair;
    uint64_t repair_from; /* a state before this block is no repair */
    uint64_t fork;        /* of the log whose state it has */
    struct hw_replica_base origin;
    bool round_recorded; /* this follower, and the WAL's present round, have their first record */
    bool is_in_doubt;    /* a sync of WAL or file failed, perhaps the last follower's */
    uint32_t checkpoint_at; /* frames in the WAL that make the next checkpoint due */
    uint32_t wal_limit;
    uint64_t pause_end_ns;           /* 0: no pause */
    struct hw_wal_position given_at; /* the end of the WAL when WRITE was given away */
};

/* replica_apply.c */
/*
 * Take the block next_block into the batch.  HW_OK: done, next_block is the next one.  HW_AGAIN:
 * the batch is full or must be flushed before this block.  HW_END: a gap: a snapshot is needed.
 * HW_EPRUNED.  HW_ECORRUPT: it does not fit the state.
 */
enum hw_status hw_replica_take_block(struct hw_replica *replica,
                                     struct hw_error *err) HW_MUST_CHECK;
/* Make the batch visible. */
enum hw_status hw_replica_flush(struct hw_replica *replica, struct hw_error *err) HW_MUST_CHECK;
/* Forget the batch. */
enum hw_status hw_replica_abandon(struct hw_replica *replica, struct hw_error *err) HW_MUST_CHECK;
/* What must be durable before a frame is added. */
enum hw_status hw_replica_begin_round(struct hw_replica *replica,
                                      struct hw_error *err) HW_MUST_CHECK;
/* Add a page to the transaction that the writer makes. */
enum hw_status hw_replica_add_page(struct hw_replica *replica, uint32_t page_number,
                                   const void *content, struct hw_error *err) HW_MUST_CHECK;
/* Finish what was added to the writer as `state`: record, frames, index. */
enum hw_status hw_replica_commit(struct hw_replica *replica, const struct hw_replica_state *state,
                                 struct hw_error *err) HW_MUST_CHECK;
/* Record where the WAL ends now, and sync the record. */
enum hw_status hw_replica_record_now(struct hw_replica *replica, uint32_t flags,
                                     struct hw_error *err) HW_MUST_CHECK;

/* replica_recover.c */
/* Which state is the database in?  Not known is HW_OK with needs_repair. */
enum hw_status hw_replica_locate(struct hw_replica *replica,
                                 const struct hw_wal_index_header *header,
                                 struct hw_error *err) HW_MUST_CHECK;
/* Bring the replica to the head of the log through its WAL.  HW_END: there is no state to go to. */
enum hw_status hw_replica_repair(struct hw_replica *replica, struct hw_error *err) HW_MUST_CHECK;

#endif
