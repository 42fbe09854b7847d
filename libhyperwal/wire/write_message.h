/*
 * wire/write_message.h - what is said on a log's channel hyperwal/1 to write from afar
 *
 *       client                        server
 *       2 lease ────────────────────▶             request
 *               ◀───────────────── waits 11        request: others have it, leased comes later
 *               ◀──────────────── leased 3        request, fence, ms, length; or why not
 *       6 commit ───────────────────▶             request, id, sums, pages, parts
 *       7 part ... ─────────────────▶             request, body of a transaction block
 *               ◀───────────── committed 8        request, status, kept, seq, why not
 *               ◀──────────────── recall 5        fence: others want the lease
 *       4 release ──────────────────▶             fence; 0: the lease is not wanted any more
 *       9 question ─────────────────▶             request, id: what became of it?
 *               ◀────────────── outcome 10        request, status, seq
 *
 * Numbers of commits grow on a connection, and each waits for the answer to the one before.
 * docs/PROTOCOL.md has the bytes.  Messages in and out as bytes; trailing bytes are ignored.
 */
#ifndef HW_WIRE_WRITE_MESSAGE_H
#define HW_WIRE_WRITE_MESSAGE_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/origin.h"

enum hw_write_type {
    HW_WRITE_LEASE = 2,
    HW_WRITE_LEASED,
    HW_WRITE_RELEASE,
    HW_WRITE_RECALL,
    HW_WRITE_COMMIT,
    HW_WRITE_PART,
    HW_WRITE_COMMITTED,
    HW_WRITE_QUESTION,
    HW_WRITE_OUTCOME,
    HW_WRITE_WAITS,
};

/* Of an answer.  Whatever is not OK or UNKNOWN is surely not in the database. */
enum hw_write_status {
    HW_WRITE_OK,
    HW_WRITE_REFUSED, /* this identity may not write it */
    HW_WRITE_NOWHERE, /* this server has only a copy of the log, not the database */
    HW_WRITE_BUSY,    /* too many wait, or the database is locked for long: try again */
    HW_WRITE_STALE,   /* somebody else committed before it */
    HW_WRITE_LOST,    /* the lease has gone to somebody else, or has run out */
    HW_WRITE_INVALID, /* the transaction is not one of this database */
    HW_WRITE_FAILED,  /* no disk, no memory, ...: the text says it */
    HW_WRITE_UNKNOWN, /* committed perhaps: ask later; OUTCOME: the log does not say it any more */
    HW_WRITE_NOT,     /* OUTCOME: it was not committed, and will not be */
    HW_WRITE_STATUS_COUNT,
};

enum {
    HW_WRITE_TEXT_MAX = 200,     /* bytes */
    HW_WRITE_PART_MAX = 3 << 20, /* bytes */
    HW_WRITE_PARTS_MAX = 1 << 20,
};

struct hw_write_message {
    enum hw_write_type type;
    uint64_t request;
    enum hw_write_status status;
    uint64_t fence;
    uint64_t ms;     /* LEASED: so long without a word, and it has run out */
    uint64_t length; /* LEASED: of the log now, at least */
    struct hw_origin id;
    uint64_t sum_before, sum_after; /* COMMIT: state sums */
    uint64_t page_count, part_count;
    uint64_t seq;         /* COMMITTED, OUTCOME: if OK */
    bool kept;            /* COMMITTED: the lease is still there */
    struct hw_slice body; /* PART: borrowed from the payload; LEASED, COMMITTED: words if not OK */
};

void hw_write_message_encode(const struct hw_write_message *message, struct hw_buffer *out);
/* `type` is one of enum hw_write_type.  HW_EPROTOCOL. */
enum hw_status hw_write_message_decode(uint64_t type, struct hw_slice payload,
                                       struct hw_write_message *out,
                                       struct hw_error *err) HW_MUST_CHECK;

#endif
