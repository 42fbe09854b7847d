/*
 * hypercore/segment.h - the files that hold blocks: a header, then records in a chain
 *
 * `NNNNNNNN.seg` number 1, 2, ... as they are appended.  Pruning copies what is left of one into
 * `NNNNNNNN.G.seg`, generation G from 1.
 *
 *   header (104 bytes)
 *           0       8         12         16      24      32     40         72              80
 *           | magic | version | identity | first | start | fork | tree hash | discovery key | ...
 *           80     96         104
 *           | salt | checksum |
 *
 *   identity  number | generation << 24
 *   first     block that the first record begins with; start: bytes of all blocks before it
 *   tree hash of the log before `first`; 8 bytes of the discovery key; 16 of chance
 *
 *   record  size u32 | kind u8 | first uint | start uint | data size uint | count uint
 *           data of `count` blocks
 *           sizes of all blocks but the last, uint each
 *           kind COMMIT: note size uint | note | signature 64
 *           checksum 8
 *
 * A segment begins with a COMMIT of no blocks: the note as it was, the tree signed under its fork.
 * A batch is any number of PART records and one COMMIT, which may hold blocks too.  Its signature
 * is that of the tree after it, under the segment's fork.  KEPT records are what pruning left.
 * The checksum covers the checksum before it (the header's, at first), the record's head, the leaf
 * hashes of its blocks and its tail: so bytes left over from an earlier, longer write never pass
 * for the next record, and each byte of data is hashed once.
 */
#ifndef HW_HYPERCORE_SEGMENT_H
#define HW_HYPERCORE_SEGMENT_H

#include "env/env.h"
#include "hypercore/hypercore.h"
#include "hypercore/tree.h"

enum {
    HW_SEGMENT_HEADER_SIZE = 104,
    HW_SEGMENT_CHAIN_SIZE = 8,
    HW_SEGMENT_NUMBER_MAX = (1 << 24) - 1,
    HW_SEGMENT_GENERATION_MAX = 255,
    HW_RECORD_HEAD_MAX = 5 + 4 * 9, /* bytes before the data */
    HW_RECORD_COUNT_MAX = 65536,    /* blocks */
    HW_RECORD_SIZE_MAX = HW_BLOCK_SIZE_MAX + (1 << 20),
};

enum hw_record_kind { HW_RECORD_PART = 1, HW_RECORD_COMMIT = 2, HW_RECORD_KEPT = 3 };

static inline uint32_t hw_segment_identity(uint32_t number, uint32_t generation)
{
    return number | generation << 24;
}

static inline uint32_t hw_segment_number(uint32_t identity)
{
    return identity & HW_SEGMENT_NUMBER_MAX;
}

static inline uint32_t hw_segment_generation(uint32_t identity)
{
    return identity >> 24;
}

struct hw_segment_header {
    uint32_t identity;
    uint64_t first, start, fork;
    uint8_t tree_hash[HW_HASH_SIZE];
    uint8_t discovery_key[8];
    uint8_t salt[16];
    uint8_t checksum[HW_SEGMENT_CHAIN_SIZE]; /* where the chain of records begins; decoded only */
};

void hw_segment_header_encode(const struct hw_segment_header *header,
                              uint8_t out[HW_SEGMENT_HEADER_SIZE]);
/* HW_END: not a whole header.  HW_EVERSION. */
enum hw_status hw_segment_header_decode(const uint8_t bytes[HW_SEGMENT_HEADER_SIZE],
                                        struct hw_segment_header *out,
                                        struct hw_error *err) HW_MUST_CHECK;

/* The path of a segment; owned by the caller, NULL: no memory. */
char *hw_segment_path(const char *dir, uint32_t identity);

struct hw_segment_list {
    uint32_t *identities; /* owned; by number, then generation */
    size_t count;
};
enum hw_status hw_segment_list(struct hw_env *env, const char *dir, struct hw_segment_list *out,
                               struct hw_error *err) HW_MUST_CHECK;
void hw_segment_list_release(struct hw_segment_list *list);

/*
 * Make a segment: written aside, synced, renamed and the directory synced, so that it is there with
 * a whole header or not at all.  `fill` (may be NULL) writes what follows the header before that.
 */
enum hw_status
hw_segment_create(struct hw_env *env, const char *dir, const struct hw_segment_header *header,
                  enum hw_status (*fill)(void *ctx, struct hw_file *file, struct hw_error *err),
                  void *ctx, struct hw_file **out, struct hw_error *err) HW_MUST_CHECK;
/*
 * Open one and check its header.  HW_ENOTFOUND; HW_ECORRUPT: another log's, or a damaged header.
 * `discovery_key` NULL: any log's.
 */
enum hw_status hw_segment_open(struct hw_env *env, const char *dir, uint32_t identity,
                               bool writable, const uint8_t *discovery_key,
                               struct hw_segment_header *header, struct hw_file **out,
                               struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- records */

struct hw_record {
    enum hw_record_kind kind;
    uint32_t size;         /* bytes of the whole record */
    uint64_t first, start; /* block, bytes before it */
    uint32_t data_size, count;
    uint32_t data_at;      /* from the start of the record */
    struct hw_slice data;  /* borrowed from the bytes that were decoded */
    struct hw_slice sizes; /* encoded, of all blocks but the last */
    struct hw_slice note, signature;
};

/* The head alone: all fields but the slices.  `size` bytes are there.  False: not one. */
bool hw_record_head_decode(const uint8_t *bytes, size_t size, struct hw_record *out);
/* The whole record, without its checksum.  False: not one. */
bool hw_record_decode(const uint8_t *bytes, size_t size, struct hw_record *out);
/* Bytes of the next block of the record; *sizes starts as a copy of record->sizes. */
bool hw_record_next_size(const struct hw_record *record, struct hw_slice *sizes, uint32_t i,
                         uint32_t used, uint32_t *out);

/* Encode the head so that it ends at `end`; bytes. */
size_t hw_record_head_encode(const struct hw_record *record, uint8_t *end);
/* Room for the tail and checksum follow the data: this gives the size of the whole record. */
void hw_record_tail_encode(const struct hw_record *record, const uint32_t *sizes,
                           struct hw_buffer *out);
void hw_record_checksum(const uint8_t chain[HW_SEGMENT_CHAIN_SIZE], struct hw_slice head,
                        struct hw_slice leaves, struct hw_slice tail,
                        uint8_t out[HW_SEGMENT_CHAIN_SIZE]);

/* ---------------------------------------------------------------------------------- scan */

/* Reads records one after the other, and stops at the first that does not check. */
struct hw_segment_scan {
    struct hw_env *env;
    struct hw_file *file; /* borrowed */
    uint64_t offset;      /* of the next record */
    uint8_t chain[HW_SEGMENT_CHAIN_SIZE];
    struct hw_buffer window; /* bytes of the file from window_at on */
    uint64_t window_at;
    size_t read_ahead;       /* bytes */
    struct hw_buffer leaves; /* hw_node, one a block of the last record */
    struct hw_buffer hashes; /* of the same */
};

/* Stand at `offset` with the chain there. */
void hw_segment_scan_start(struct hw_segment_scan *scan, struct hw_file *file, uint64_t offset,
                           const uint8_t chain[HW_SEGMENT_CHAIN_SIZE]);
/*
 * The next record, whose slices are borrowed until the next call; its leaves are in scan->leaves.
 * It begins at scan->offset - record->size.  HW_END: what follows is not a record of this chain.
 */
enum hw_status hw_segment_scan_next(struct hw_segment_scan *scan, struct hw_record *out,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_segment_scan_release(struct hw_segment_scan *scan);

#endif
