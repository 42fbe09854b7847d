/*
 * entry/entry.h - what a block of the log says
 *
 * Every block begins with a header that tells, without decompressing, what to skip, index or plan:
 *
 *   type u8 | flags u8 | time_ms le48 | snapshot uint | label uint | origin 24, or none | body ...
 *
 * `uint` is Hypercore's compact encoding; `snapshot` and `label` are distances back from this block
 * to the index of the newest complete snapshot and to the newest label, 0 if there is none.  A
 * block starts, continues or ends its entry (flags).  docs/FORMAT.md has the bodies to the byte.
 *
 * This layer does no I/O: encoders append to a buffer, decoders take bytes and check them.
 */
#ifndef HW_ENTRY_ENTRY_H
#define HW_ENTRY_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/origin.h"

enum hw_entry_type {
    HW_ENTRY_GENESIS = 1,
    HW_ENTRY_TRANSACTION = 2,
    HW_ENTRY_GROUP = 3,    /* one page group of a snapshot */
    HW_ENTRY_SNAPSHOT = 4, /* the index that makes groups a snapshot */
    HW_ENTRY_LABEL = 5,
    HW_ENTRY_GAP = 6,
    HW_ENTRY_SWITCH = 7,
};

enum { HW_ENTRY_START = 1, HW_ENTRY_END = 2, HW_ENTRY_ORIGIN = 4 };

/* This much of a block is enough for its header and the numbers at the start of its body. */
enum { HW_ENTRY_PEEK_SIZE = 128 };

enum {
    HW_FORMAT_VERSION = 1,
    HW_GROUP_PAGES = 64, /* pages a group */
    /* Bytes of pages that a transaction block may hold; those that we make hold less. */
    HW_TRANSACTION_BYTES = 4 << 20,
    HW_LABEL_SIZE_MAX = 200, /* bytes of a label's name */
    HW_DATABASE_ID_SIZE = 16,
    HW_GAP_REASON_SIZE_MAX = 200,
    HW_LOG_KEY_SIZE = 32,
};

struct hw_entry_header {
    enum hw_entry_type type;
    bool starts, ends;
    bool has_origin; /* the first block of a transaction that was written from afar: */
    struct hw_origin origin;
    int64_t time_ms; /* since 1970, never less than in an earlier block */
    /* First index block of the newest complete snapshot before this block; UINT64_MAX: none. */
    uint64_t snapshot_seq;
    uint64_t label_seq; /* of the newest label before this block; UINT64_MAX: none */
};

/* `seq` is the index of the block itself.  Decoding leaves the cursor at the body. */
void hw_entry_header_encode(const struct hw_entry_header *header, uint64_t seq,
                            struct hw_buffer *out);
enum hw_status hw_entry_header_decode(struct hw_cursor *cursor, uint64_t seq,
                                      struct hw_entry_header *out) HW_MUST_CHECK;

struct hw_genesis {
    uint32_t format_version;
    uint32_t page_size;
    uint8_t database_id[HW_DATABASE_ID_SIZE]; /* random, made with the log */
    uint32_t page_count;                      /* of the database when it was adopted */
    uint64_t sum;                             /* its state sum */
};
void hw_genesis_encode(const struct hw_genesis *genesis, struct hw_buffer *out);
/* HW_EVERSION: a newer format. */
enum hw_status hw_genesis_decode(struct hw_cursor *cursor, struct hw_genesis *out) HW_MUST_CHECK;

struct hw_label {
    char name[HW_LABEL_SIZE_MAX + 1];
};
void hw_label_encode(const struct hw_label *label, struct hw_buffer *out);
enum hw_status hw_label_decode(struct hw_cursor *cursor, struct hw_label *out) HW_MUST_CHECK;

/* Transactions between these two states are not in the log; a snapshot follows. */
struct hw_gap {
    uint64_t from_sum, to_sum;
    uint32_t from_page_count, to_page_count;
    char reason[HW_GAP_REASON_SIZE_MAX + 1];
};
void hw_gap_encode(const struct hw_gap *gap, struct hw_buffer *out);
enum hw_status hw_gap_decode(struct hw_cursor *cursor, struct hw_gap *out) HW_MUST_CHECK;

/*
 * Where the writing of a database passes from one log to another.  CONTINUES: the block after the
 * genesis of the new log, which begins with the state that the log `key` has at `seq` of `fork`.
 * CONTINUED: the last block of the old log, whose newest state, at `seq` of its own `fork`, is the
 * one that the log `key` begins with; nothing follows it.
 */
struct hw_switch {
    enum { HW_SWITCH_CONTINUES, HW_SWITCH_CONTINUED } role;
    uint8_t key[HW_LOG_KEY_SIZE]; /* of the other log */
    uint64_t fork, seq;           /* of the old log: its state at `seq` is the one that goes over */
    uint32_t page_count;          /* of that state */
    uint64_t sum;
};
void hw_switch_encode(const struct hw_switch *switch_, struct hw_buffer *out);
enum hw_status hw_switch_decode(struct hw_cursor *cursor, struct hw_switch *out) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------ state sum */

/*
 * The page that holds byte 0x40000000, where SQLite keeps its locks: never written, never
 * counted.
 */
static inline bool hw_entry_is_lock_page(uint32_t page_number, uint32_t page_size)
{
    return page_number == 0x40000000 / page_size + 1;
}

static inline bool hw_entry_page_size_ok(uint32_t page_size)
{
    return page_size >= 512 && page_size <= 65536 && (page_size & (page_size - 1)) == 0;
}

/* What page `page_number` adds (by XOR) to the state sum; the lock-byte page adds nothing. */
uint64_t hw_page_sum(uint32_t page_number, const void *content, uint32_t page_size);

/* ---------------------------------------------------------------------------- transaction */

/*
 * One block of a transaction: new images of pages, ascending by number, compressed with the
 * previous images of the same pages, in the same order, as prefix.  Sums are those before and after
 * this block alone: page by page, old image out, new image in; the change of size (pages above the
 * new size leave) counts in the block that ends the entry.
 */
struct hw_transaction {
    uint32_t page_size;
    uint32_t page_count; /* of the database after the entry; the same in all its blocks */
    uint64_t sum_before, sum_after;
    uint32_t change_count; /* pages in this block */
};

/*
 * Builds the body of a block; keeps its memory (two buffers of 512 KiB at the most, grown
 * as needed, and zstd's state) from block to block.
 */
struct hw_transaction_encoder;
enum hw_status hw_transaction_encoder_new(uint32_t page_size, struct hw_transaction_encoder **out,
                                          struct hw_error *err) HW_MUST_CHECK;
void hw_transaction_encoder_free(struct hw_transaction_encoder *encoder);
/* Forget the pages added. */
void hw_transaction_encoder_clear(struct hw_transaction_encoder *encoder);
/*
 * Add one page; numbers may come in any order, each at most once.  `previous` NULL: the page has no
 * image before (or none that a reader will have), it is encoded whole.  HW_ELIMIT: the block is
 * full (nothing was added): encode, clear, and add it to the next block.
 */
enum hw_status hw_transaction_encoder_add(struct hw_transaction_encoder *encoder,
                                          uint32_t page_number, const void *content,
                                          const void *previous, struct hw_error *err) HW_MUST_CHECK;
uint32_t hw_transaction_encoder_count(const struct hw_transaction_encoder *encoder);
/* Append the body to *out.  Takes page_count and the sums from *transaction, ignores the rest. */
enum hw_status hw_transaction_encode(struct hw_transaction_encoder *encoder,
                                     const struct hw_transaction *transaction,
                                     struct hw_buffer *out, struct hw_error *err) HW_MUST_CHECK;

/*
 * Reads a body.  First hw_transaction_decode() tells the numbers; then for each page with a
 * previous image, in order, the caller hands that image in; then the new images can be had.
 *
 *   hw_transaction_decode(decoder, &cursor, page_size, &transaction, err);
 *   for i in change_count: hw_transaction_page(decoder, i, &needs_previous) ->
 *       if needed: read it into hw_transaction_previous(decoder, i)
 *   hw_transaction_expand(decoder, err);
 *   hw_transaction_image(decoder, i)
 */
struct hw_transaction_decoder;
enum hw_status hw_transaction_decoder_new(struct hw_transaction_decoder **out,
                                          struct hw_error *err) HW_MUST_CHECK;
void hw_transaction_decoder_free(struct hw_transaction_decoder *decoder);
/* `page_size` is the genesis's; the body is borrowed until expand.  HW_ECORRUPT, HW_ENOMEM. */
enum hw_status hw_transaction_decode(struct hw_transaction_decoder *decoder,
                                     struct hw_cursor *cursor, uint32_t page_size,
                                     struct hw_transaction *out,
                                     struct hw_error *err) HW_MUST_CHECK;
/*
 * The numbers alone, from the first HW_ENTRY_PEEK_SIZE bytes of a block (or fewer, if it is
 * shorter).
 */
enum hw_status hw_transaction_peek(struct hw_cursor *cursor, uint32_t page_size,
                                   struct hw_transaction *out) HW_MUST_CHECK;
/* Page number of change `i`; *needs_previous: its image before belongs into the prefix. */
uint32_t hw_transaction_page(const struct hw_transaction_decoder *decoder, uint32_t i,
                             bool *needs_previous);
/* Where the previous image of change `i` is to be put; NULL if none is needed. */
uint8_t *hw_transaction_previous(struct hw_transaction_decoder *decoder, uint32_t i);
enum hw_status hw_transaction_expand(struct hw_transaction_decoder *decoder,
                                     struct hw_error *err) HW_MUST_CHECK;
const uint8_t *hw_transaction_image(const struct hw_transaction_decoder *decoder, uint32_t i);

/* ------------------------------------------------------------------------------- snapshot */

/* Images of pages group*64+1 ... of the database as of base_seq, fewer at its end. */
struct hw_group {
    uint32_t page_size;
    uint32_t group;      /* from 0 */
    uint32_t page_count; /* pages in it: 1 to HW_GROUP_PAGES */
    uint64_t base_seq; /* the state of which entry; distance-coded, so the block's seq is needed */
};
struct hw_group_coder; /* zstd's state, both ways */
enum hw_status hw_group_coder_new(struct hw_group_coder **out, struct hw_error *err) HW_MUST_CHECK;
void hw_group_coder_free(struct hw_group_coder *coder);
enum hw_status hw_group_encode(struct hw_group_coder *coder, const struct hw_group *group,
                               uint64_t seq, const void *pages, struct hw_buffer *out,
                               struct hw_error *err) HW_MUST_CHECK;
/* `pages` has room for HW_GROUP_PAGES pages. */
enum hw_status hw_group_decode(struct hw_group_coder *coder, struct hw_cursor *cursor, uint64_t seq,
                               uint32_t page_size, struct hw_group *out, void *pages,
                               struct hw_error *err) HW_MUST_CHECK;
/* The numbers alone, from the first bytes of a block. */
enum hw_status hw_group_peek(struct hw_cursor *cursor, uint64_t seq, uint32_t page_size,
                             struct hw_group *out) HW_MUST_CHECK;

/*
 * The index of a snapshot: for each group its block and base seq.  The state at `greatest_base`, of
 * `page_count` pages, has state sum `sum`.  Everything the state needs: the groups, and the
 * transactions in (least_base, greatest_base].  All groups that were taken are listed, also those
 * that the database lost meanwhile by shrinking: the transactions may be differences to them.
 */
struct hw_snapshot_group {
    uint64_t block_seq; /* of the group block */
    uint64_t base_seq;  /* its images are those of the state at base_seq */
};
struct hw_snapshot {
    uint32_t page_size;
    uint32_t page_count; /* of the database at greatest_base */
    uint64_t sum;        /* at greatest_base */
    uint64_t least_base, greatest_base;
    uint32_t group_count; /* of the snapshot; groups in this block: first_group .. */
    uint32_t first_group, groups_here;
};
enum { HW_SNAPSHOT_GROUPS_MAX = 65536 }; /* groups one index block lists; more make more blocks */

void hw_snapshot_encode(const struct hw_snapshot *snapshot, uint64_t seq,
                        const struct hw_snapshot_group *groups, struct hw_buffer *out);
/* `groups` gets groups_here entries, and has room for HW_SNAPSHOT_GROUPS_MAX. */
enum hw_status hw_snapshot_decode(struct hw_cursor *cursor, uint64_t seq, struct hw_snapshot *out,
                                  struct hw_snapshot_group *groups) HW_MUST_CHECK;
/* The numbers alone, from the first bytes of a block. */
enum hw_status hw_snapshot_peek(struct hw_cursor *cursor, uint64_t seq,
                                struct hw_snapshot *out) HW_MUST_CHECK;

#endif
