/*
 * wal/index.h - inside the wal-index: regions, and SQLite's codes as ours; for wal/ only
 *
 *   region 0   byte 0 header copy 1 | 48 header copy 2 | 96 checkpoint information | 136 pages of
 *              frames 1..4062 | 16384 hash slots
 *   region n   byte 0 pages of the next 4096 frames | 16384 hash slots
 *
 * Other connections of this process and of others store into this memory without telling, so all
 * loads and stores are atomic words.
 */
#ifndef HW_WAL_INDEX_H
#define HW_WAL_INDEX_H

#include "wal/wal.h"

enum {
    HW_INDEX_REGION_SIZE = 32768,
    HW_INDEX_FRAMES = 4096,       /* a region */
    HW_INDEX_FRAMES_FIRST = 4062, /* region 0 */
    HW_INDEX_SLOTS = 8192,        /* hash slots a region */
    HW_INDEX_HEADER_WORDS = 12,   /* one copy of the header */
    HW_INDEX_READ_MARKS = 5,
};

/* SQLite's result code of `what` as a status; SQLITE_BUSY and SQLITE_LOCKED are HW_AGAIN. */
enum hw_status hw_wal_fail_sqlite(struct hw_error *err, int code, const char *what);

/* nBackfill alone, with CKPT held: the next checkpoint copies all frames again. */
enum hw_status hw_wal_index_reset_backfill(struct hw_wal_index *index,
                                           struct hw_error *err) HW_MUST_CHECK;
/* nBackfill, the read marks and nBackfillAttempted of a WAL that has just been started over. */
enum hw_status hw_wal_index_reset_checkpoint(struct hw_wal_index *index,
                                             struct hw_error *err) HW_MUST_CHECK;

#endif
