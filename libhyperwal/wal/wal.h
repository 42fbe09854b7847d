/*
 * wal/wal.h - SQLite's write-ahead log and its index, read and written by SQLite's own rules
 *
 * The WAL file holds frames; the wal-index (-shm) says which of them are committed (mxFrame), where
 * the newest frame of a page is, and how far a checkpoint has come.  Formats:
 * https://sqlite.org/fileformat2.html#walformat and https://sqlite.org/walformat.html, SQLite 3.7.0
 * and later (format 3007000).  docs/ARCHITECTURE.md says who calls what.
 *
 * WAL file (big-endian; checksums over words in the order that the magic tells):
 *    byte  0        4        8        12       16       20       24       28       32
 *  header  | magic  | format | pgsize | ckpt   | salt 1 | salt 2 | sum 1  | sum 2  |
 *   frame  | page   | commit | salt 1 | salt 2 | sum 1  | sum 2  | page content ...
 *
 * wal-index (native byte order), regions of 32 KiB: two copies of the 48-byte header, the 40-byte
 * checkpoint information, then per region page numbers of 4096 frames (4062 in the first) and 8192
 * two-byte hash slots.
 */
#ifndef HW_WAL_WAL_H
#define HW_WAL_WAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/origin.h"
#include "base/sqlite.h"
#include "env/env.h"

enum {
    HW_WAL_HEADER_SIZE = 32,
    HW_WAL_FRAME_HEADER_SIZE = 24,
    HW_PAGE_SIZE_MIN = 512,
    HW_PAGE_SIZE_MAX = 65536,
    HW_PENDING_BYTE = 0x40000000, /* the page with this byte is never used by SQLite */
};

/* SQLite's lock slots in the wal-index, as xShmLock numbers them. */
enum { HW_SHM_WRITE = 0, HW_SHM_CKPT = 1, HW_SHM_RECOVER = 2, HW_SHM_READ0 = 3 };

/* The lock-byte page, which is never written and never counts. */
static inline uint32_t hw_lock_page(uint32_t page_size)
{
    return HW_PENDING_BYTE / page_size + 1;
}

/* A place in the WAL: everything up to and with a frame. */
struct hw_wal_position {
    uint8_t salts[8];     /* as in the file */
    uint32_t frame;       /* frames up to here; 0: just the header */
    uint32_t checksum[2]; /* running, after that frame */
};

struct hw_wal_header {
    uint32_t page_size; /* bytes */
    uint32_t checkpoint_sequence;
    uint8_t salts[8];
    uint32_t checksum[2];
    bool big_endian; /* byte order of the words summed */
};

struct hw_wal_frame {
    uint32_t page_number;
    uint32_t commit_size; /* pages of the database after this commit; 0: not a commit frame */
    uint8_t salts[8];
    uint32_t checksum[2]; /* as stored */
    bool has_checksum;    /* and salts: SQLite before 3.50.2 may leave both out, as zeros */
};

/* Add `size` bytes (a multiple of 8) to a running checksum. */
void hw_wal_checksum(bool big_endian, const void *bytes, size_t size, uint32_t sum[2]);

/* HW_END: not a valid header.  HW_EVERSION: written by an SQLite this code does not know. */
enum hw_status hw_wal_header_decode(const uint8_t bytes[HW_WAL_HEADER_SIZE],
                                    struct hw_wal_header *out) HW_MUST_CHECK;
void hw_wal_header_encode(const struct hw_wal_header *header, uint8_t out[HW_WAL_HEADER_SIZE]);
struct hw_wal_frame hw_wal_frame_decode(const uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE]);

static inline uint64_t hw_wal_frame_offset(uint32_t page_size, uint32_t frame) /* frame from 1 */
{
    return HW_WAL_HEADER_SIZE +
           (uint64_t)(frame - 1) * (HW_WAL_FRAME_HEADER_SIZE + (uint64_t)page_size);
}

/*
 * Is the frame in `bytes`, header and page, the one that goes on from what *sum is of?  Then *sum
 * has taken it in.
 */
bool hw_wal_frame_continues(const struct hw_wal_header *header, const uint8_t *bytes,
                            uint32_t sum[2]);

/*
 * A transaction that was written from afar begins with a frame whose page is not one: it has the id
 * of the transaction.  A later frame of the same transaction has that page as it is, so that no
 * reader sees the mark; and the log's worker finds it.
 */
void hw_wal_mark_encode(const struct hw_origin *origin, uint8_t *page, uint32_t page_size);
bool hw_wal_mark_decode(const uint8_t *page, uint32_t page_size, struct hw_origin *out);

/* What of the file is live, by the rule of SQLite's recovery. */
struct hw_wal_extent {
    struct hw_wal_header header;
    struct hw_wal_position commit; /* the end of the last commit; frame 0: there is none */
    uint32_t live_frames;          /* with checksums that continue, committed or not */
    uint32_t page_count;           /* of the database after the last commit */
};

/* Measure the log in `file`, borrowed.  No valid header is HW_OK with a zero extent. */
enum hw_status hw_wal_scan(struct hw_file *file, struct hw_wal_extent *out,
                           struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------- the wal-index */

/*
 * A view of a wal-index: regions come from `region`, which gives the address of a 32 KiB region,
 * or NULL with *status HW_END if it does not exist yet and `extend` is false.  Shared memory of an
 * sqlite3_file (hw_wal_index_shared()), or memory of our own (hw_wal_index_private()).
 */
struct hw_wal_index;

/* The wal-index of `file`, an open database of the base VFS, borrowed; maps by xShmMap. */
enum hw_status hw_wal_index_shared(sqlite3_file *file, struct hw_wal_index **out,
                                   struct hw_error *err) HW_MUST_CHECK;
/* An empty one on the heap, for exclusive locking mode, where SQLite's own cannot be seen. */
enum hw_status hw_wal_index_private(struct hw_wal_index **out, struct hw_error *err) HW_MUST_CHECK;
void hw_wal_index_free(struct hw_wal_index *index); /* unmaps nothing: SQLite owns the memory */

/* The 48-byte header, SQLite's WalIndexHdr. */
struct hw_wal_index_header {
    uint32_t change; /* counter of transactions */
    bool big_endian_checksum;
    uint32_t page_size;
    uint32_t max_frame; /* mxFrame: the last committed frame */
    uint32_t page_count;
    uint32_t frame_checksum[2];
    uint8_t salts[8];
};

/*
 * Read the header so that it is one that a writer published whole.  HW_AGAIN: a writer is between
 * the two copies, or nobody has made it valid yet (recovery is SQLite's work): look again later.
 */
enum hw_status hw_wal_index_read(struct hw_wal_index *index, struct hw_wal_index_header *out,
                                 struct hw_error *err) HW_MUST_CHECK;

/*
 * The newest frame of `page_number` at or below `max_frame`, 0 if there is none.  `max_frame` must
 * be committed and the WAL must not be restarted meanwhile.
 */
enum hw_status hw_wal_index_lookup(struct hw_wal_index *index, uint32_t page_number,
                                   uint32_t max_frame, uint32_t *frame,
                                   struct hw_error *err) HW_MUST_CHECK;

/* The page that the index says frame `frame` has; the frame is committed, as above. */
enum hw_status hw_wal_index_page(struct hw_wal_index *index, uint32_t frame, uint32_t *page_number,
                                 struct hw_error *err) HW_MUST_CHECK;

/* Checkpoint progress; a frame above `backfilled` is surely still in the WAL alone. */
enum hw_status hw_wal_index_backfill(struct hw_wal_index *index, uint32_t *backfilled,
                                     uint32_t *attempted, struct hw_error *err) HW_MUST_CHECK;

/* For a writer (who holds WRITE): remember that frame `frame` has `page_number`. */
enum hw_status hw_wal_index_insert(struct hw_wal_index *index, uint32_t frame, uint32_t page_number,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Forget all frames above max_frame of the published header. */
enum hw_status hw_wal_index_cleanup(struct hw_wal_index *index, struct hw_error *err) HW_MUST_CHECK;
/* Publish: copy two, barrier, copy one.  Fills in version, change counter and checksum itself. */
enum hw_status hw_wal_index_publish(struct hw_wal_index *index,
                                    const struct hw_wal_index_header *header,
                                    struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------ the writer */

/*
 * Append transactions to a WAL as an ordinary SQLite writer does.  The caller holds the WRITE lock
 * from open to close, and SHARED on the database file; readers keep their snapshots.
 */
struct hw_wal_writer;

/*
 * `database` is an open file of the base VFS, `wal` the -wal (ours), both borrowed.  The wal-index
 * must be valid.  `page_size` in bytes.
 */
enum hw_status hw_wal_writer_open(sqlite3_file *database, struct hw_wal_index *index,
                                  struct hw_file *wal, uint32_t page_size,
                                  struct hw_wal_writer **out, struct hw_error *err) HW_MUST_CHECK;
void hw_wal_writer_close(struct hw_wal_writer *writer);

/*
 * Where the WAL ends for readers now.  At frame 0 these are the salts of the round that the next
 * hw_wal_writer_add() begins, with the checksum of its header; no round before had them.
 */
struct hw_wal_position hw_wal_writer_position(const struct hw_wal_writer *writer);

/*
 * If the next add begins a round, do now what that takes: sync the database, write the new header
 * and sync it.
 */
enum hw_status hw_wal_writer_begin(struct hw_wal_writer *writer,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Add one page of the transaction that is being written; content is copied or written at once. */
enum hw_status hw_wal_writer_add(struct hw_wal_writer *writer, uint32_t page_number,
                                 const void *content, struct hw_error *err) HW_MUST_CHECK;
/*
 * The last page was added: make it the commit frame of a database of `page_count` pages and tell in
 * *end where the WAL will end.  The commit frame is not written yet, so that the caller can record
 * *end first; hw_wal_writer_publish() writes it and makes the transaction visible.
 */
enum hw_status hw_wal_writer_finish(struct hw_wal_writer *writer, uint32_t page_count,
                                    struct hw_wal_position *end,
                                    struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_wal_writer_publish(struct hw_wal_writer *writer,
                                     struct hw_error *err) HW_MUST_CHECK;
/* Forget what was added since the last publish; the frames stay in the file as dead bytes. */
enum hw_status hw_wal_writer_rollback(struct hw_wal_writer *writer,
                                      struct hw_error *err) HW_MUST_CHECK;
/*
 * After a sync of the WAL or of the database that failed: the system may have given up bytes that
 * are still read, and another sync would say nothing of them.  So frames are read, written once
 * more as they are, and synced; and none counts as copied into the database.  Not within a
 * transaction.  Takes and releases CKPT, never waits: HW_AGAIN.  HW_ECORRUPT: that was done, but
 * there are frames that are not what was written: the disk has lost them.
 */
enum hw_status hw_wal_writer_renew(struct hw_wal_writer *writer,
                                   struct hw_error *err) HW_MUST_CHECK;
/*
 * Start the WAL over, if all of it is backfilled and no reader needs it: HW_AGAIN if not now.
 * Takes and releases CKPT and READ(1..4), never waits.  The file is left alone until
 * hw_wal_writer_begin() or the next add.
 */
enum hw_status hw_wal_writer_restart(struct hw_wal_writer *writer,
                                     struct hw_error *err) HW_MUST_CHECK;

/* The page as a reader at `max_frame` sees it: newest frame, else the file, else zeros. */
enum hw_status hw_wal_read_page(sqlite3_file *database, struct hw_wal_index *index,
                                struct hw_file *wal, uint32_t page_size, uint32_t page_number,
                                uint32_t max_frame, void *content, bool *from_file,
                                struct hw_error *err) HW_MUST_CHECK;

#endif
