/*
 * hypercore/mirror_file.h - the small files of a mirror: `mirror`, and the slots of `head`
 *
 *   mirror  0       8         12         16      24           32    64         n
 *           | magic | version | manifest | flags | first kept | key | manifest | sum
 *           |       |         | size     |       |            |     |          | 8 bytes
 *
 *   slot    0       8            16       24            32     40      44          48
 *           | magic | generation | length | byte length | fork | roots | signature | roots 40 each
 *           | signature | sum, 8 bytes                           count   size
 *
 * `mirror` is replaced as a whole.  `head` has three slots of HW_MIRROR_SLOT_SIZE, written in turn:
 * the one with the greatest generation that checks is the newest tree, and a slot known to be on
 * the disk is not written before another one is there.
 *
 *   node    0          8      40
 *           | size u64 | hash | sum, 8 bytes: of index, size and hash
 *
 * The greatest bit of a node's size says that the size is not proven: a hash binds the sum of its
 * children's sizes, not each of them, so that a node of which only the hash was asked for may have
 * been given a wrong one.
 *
 *   tail    0       8      24     32       36      36 + n
 *           | magic | salt | fork | n, u32 | items | sum, 8 bytes | n, u32 | items | sum | ...
 *
 *   item    | 1 | index u64 | node, as above          | 2 | block u64 | start u64 | n, u32 | data
 *           | 3 | n, u32 | slot, as above
 *
 * A sum is of all before it: each record continues the one before, and the first one the header and
 * the key.  What a sum does not fit is where the tail ends, and so is what an older salt left.
 */
#ifndef HW_HYPERCORE_MIRROR_FILE_H
#define HW_HYPERCORE_MIRROR_FILE_H

#include "base/buffer.h"
#include "base/error.h"
#include "hypercore/tree.h"

enum {
    HW_MIRROR_MANIFEST_MAX = 16 << 10, /* bytes: a longer one is refused */
    HW_MIRROR_SIGNATURE_MAX = 8 << 10,
    HW_MIRROR_FILE_MAX = 64 + HW_MIRROR_MANIFEST_MAX + 8,
    HW_MIRROR_SLOTS = 3,
    HW_MIRROR_SLOT_SIZE = 12 << 10,
    HW_MIRROR_NODE_SIZE = 48,
    HW_MIRROR_TAIL_HEADER_SIZE = 32,
    HW_MIRROR_RECORD_FIXED_SIZE = 4 + 8, /* bytes of a record beside its items */
};

struct hw_mirror_info {
    uint8_t key[HW_HASH_SIZE];
    bool is_compat;           /* it is known that there is no manifest */
    uint64_t first_kept;      /* block */
    struct hw_slice manifest; /* borrowed; empty: not known, or there is none */
};
void hw_mirror_info_encode(const struct hw_mirror_info *info, struct hw_buffer *out);
/* Borrows from `bytes`.  HW_ECORRUPT, HW_EVERSION. */
enum hw_status hw_mirror_info_decode(struct hw_slice bytes, struct hw_mirror_info *out,
                                     struct hw_error *err) HW_MUST_CHECK;

struct hw_mirror_head {
    uint64_t generation; /* from 1 */
    uint64_t fork;
    struct hw_roots roots;
    struct hw_slice signature; /* as received; borrowed */
};
void hw_mirror_head_encode(const struct hw_mirror_head *head, struct hw_buffer *out);
/* Borrows from `bytes`, which may go on behind the slot.  False: empty, or torn. */
bool hw_mirror_head_decode(struct hw_slice bytes, struct hw_mirror_head *out);

void hw_mirror_node_encode(const struct hw_node *node, bool is_proven,
                           uint8_t out[HW_MIRROR_NODE_SIZE]);
/* False: not held, or torn.  `index` says which node it is to be. */
bool hw_mirror_node_decode(const uint8_t bytes[HW_MIRROR_NODE_SIZE], uint64_t index,
                           struct hw_node *out, bool *is_proven);

/* What continues to the next sum.  It begins with the header of a tail, and ends every record. */
struct hw_mirror_chain {
    uint8_t hash[HW_HASH_SIZE];
};
struct hw_mirror_chain hw_mirror_chain_begin(const uint8_t header[HW_MIRROR_TAIL_HEADER_SIZE],
                                             const uint8_t key[HW_HASH_SIZE]);
/* With one more record: its size and items.  The first 8 bytes are its sum. */
struct hw_mirror_chain hw_mirror_chain_next(const struct hw_mirror_chain *chain,
                                            struct hw_slice record);
void hw_mirror_tail_begin(uint64_t fork, const uint8_t salt[16],
                          uint8_t out[HW_MIRROR_TAIL_HEADER_SIZE]);
/* False: not the header of a tail. */
bool hw_mirror_tail_decode(const uint8_t header[HW_MIRROR_TAIL_HEADER_SIZE], uint64_t *fork);

enum hw_mirror_item_kind { HW_MIRROR_NODE = 1, HW_MIRROR_BLOCK = 2, HW_MIRROR_HEAD = 3 };
struct hw_mirror_item {
    enum hw_mirror_item_kind kind;
    struct hw_node node;
    bool is_proven;
    uint64_t block, start;      /* a block, and its first byte in the log */
    struct hw_slice data;       /* borrowed */
    struct hw_mirror_head head; /* borrows */
};
/* Adds to *out; `scratch` is for the head. */
void hw_mirror_item_encode(const struct hw_mirror_item *item, struct hw_buffer *scratch,
                           struct hw_buffer *out);
/* The next one; borrows what the cursor reads.  HW_END: that was all.  HW_ECORRUPT. */
enum hw_status hw_mirror_item_decode(struct hw_cursor *cursor, struct hw_mirror_item *out,
                                     struct hw_error *err) HW_MUST_CHECK;

#endif
