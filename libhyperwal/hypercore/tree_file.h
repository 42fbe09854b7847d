/*
 * hypercore/tree_file.h - the nodes of the tree on disk, and where the bytes of each block are
 *
 * One slot of 80 bytes a block.  Block i brings node 2i (its leaf) and holds the place of node
 * 2i + 1 (a parent that is known when the last block below it is there):
 *
 *   header | slot 0 | slot 1 | ...
 *
 *   slot    0         32          64         70         74         80
 *           | leaf    | parent    | end u48  | segment  | offset   |
 *           | hash    | hash      |          | u32      | u48      |
 *
 *   end      bytes of all blocks up to this one: a node's size is the difference of two ends
 *   segment  identity of the segment file (segment.h)
 *   offset   of the record that holds the block, in that file; its last byte 0xff: pruned
 *
 * Pruning a block changes one byte.  Moving it changes one byte of the segment and those of the
 * offset; a disk may tear that, so an offset is a hint: if it is wrong, the segment is searched.
 *
 *   header  0        8         16        20       28         60         72        80
 *           | magic  | length  | segment | offset | tree hash | zero     | checksum |
 *
 * The header is the *marker*: all slots below `length` are on the disk, and the record of the next
 * block is, or will be, at that place.  A torn marker is ignored.  The file is written after the
 * segment is durable and synced only now and then: slots from the marker on are made anew from the
 * segments at open.  So a slot that is there tells that its block was durable once.
 *
 * Slots that were computed but not written live in an overlay: of a batch in the making, or, for a
 * reader of a log whose writer lost power, of the blocks from the marker on.
 */
#ifndef HW_HYPERCORE_TREE_FILE_H
#define HW_HYPERCORE_TREE_FILE_H

#include "base/buffer.h"
#include "env/env.h"
#include "hypercore/tree.h"

enum { HW_SLOT_SIZE = 80 };

struct hw_slot {
    uint8_t leaf[HW_HASH_SIZE], parent[HW_HASH_SIZE];
    uint64_t end;     /* bytes */
    uint32_t segment; /* 0: torn */
    uint64_t offset;  /* of the record */
    bool is_pruned;
};

struct hw_tree_marker {
    uint64_t length;
    uint32_t segment;
    uint64_t offset;
    uint8_t tree_hash[HW_HASH_SIZE];
};

struct hw_tree_file {
    struct hw_env *env;
    struct hw_file *file;   /* owned */
    char *path;             /* owned */
    uint64_t base;          /* first block of the overlay */
    struct hw_buffer fresh; /* slots from base on */
    struct hw_buffer older; /* {slot u64, hash}: parents in slots below base */
};

/* Created if it is missing and `writable`. */
enum hw_status hw_tree_file_open(struct hw_env *env, const char *dir, bool writable,
                                 struct hw_tree_file *out, struct hw_error *err) HW_MUST_CHECK;
void hw_tree_file_close(struct hw_tree_file *tree);

/* Slots the file has room for now, whether they are filled or not. */
enum hw_status hw_tree_file_slots(struct hw_tree_file *tree, uint64_t *out,
                                  struct hw_error *err) HW_MUST_CHECK;
/* HW_END: nothing is there. */
enum hw_status hw_tree_file_slot(struct hw_tree_file *tree, uint64_t block, struct hw_slot *out,
                                 struct hw_error *err) HW_MUST_CHECK;
/* The slot, and the end of the one before. */
enum hw_status hw_tree_file_block(struct hw_tree_file *tree, uint64_t block, uint64_t *start,
                                  struct hw_slot *out, struct hw_error *err) HW_MUST_CHECK;
/* The same for who goes from block to block: slots of a log of `length` blocks read at once. */
enum { HW_SLOTS_AHEAD = 64 };
struct hw_slots_ahead {
    uint64_t first;
    unsigned count; /* 0: none */
    uint8_t bytes[HW_SLOTS_AHEAD * HW_SLOT_SIZE];
};
enum hw_status hw_tree_file_block_ahead(struct hw_tree_file *tree, uint64_t block, uint64_t length,
                                        struct hw_slots_ahead *ahead, uint64_t *start,
                                        struct hw_slot *out, struct hw_error *err) HW_MUST_CHECK;
/* A node by its flat index, which must be complete in a log of the caller's length. */
enum hw_status hw_tree_file_node(struct hw_tree_file *tree, uint64_t index, struct hw_node *out,
                                 struct hw_error *err) HW_MUST_CHECK;
/*
 * The same for who wants several in a row, near the first one: the slots around that are read at
 * once.  `ahead` is of the caller, empty at first, and only good while the log does not change.
 */
enum hw_status hw_tree_file_node_ahead(struct hw_tree_file *tree, uint64_t index, uint64_t length,
                                       struct hw_slots_ahead *ahead, struct hw_node *out,
                                       struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_tree_file_roots(struct hw_tree_file *tree, uint64_t length, struct hw_roots *out,
                                  struct hw_error *err) HW_MUST_CHECK;

/* Overlay.  Additions that found no memory show in hw_tree_file_flush() and _failed(). */
void hw_tree_file_restart(struct hw_tree_file *tree, uint64_t base); /* empty, at `base` */
void hw_tree_file_add(struct hw_tree_file *tree, const struct hw_node *leaf, uint64_t end,
                      uint32_t segment, uint64_t offset);
void hw_tree_file_set_parent(struct hw_tree_file *tree, const struct hw_node *parent);
/*
 * Forget slots of blocks at and beyond `length`, and that additions from there on found no memory:
 * all before them are to be there.
 */
void hw_tree_file_cut(struct hw_tree_file *tree, uint64_t length);
bool hw_tree_file_failed(const struct hw_tree_file *tree);
/* Does the file hold just what the overlay says? */
enum hw_status hw_tree_file_agrees(struct hw_tree_file *tree, bool *out,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Write the overlay; it is empty then, and starts behind what it held. */
enum hw_status hw_tree_file_flush(struct hw_tree_file *tree, struct hw_error *err) HW_MUST_CHECK;

/* `count` slots of the file as they are, and back again with other places. */
enum hw_status hw_tree_file_read_range(struct hw_tree_file *tree, uint64_t block, unsigned count,
                                       uint8_t *out, struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_tree_file_write_range(struct hw_tree_file *tree, uint64_t block, unsigned count,
                                        const uint8_t *slots, struct hw_error *err) HW_MUST_CHECK;
void hw_slot_set_pruned(uint8_t bytes[HW_SLOT_SIZE]);
/* One block is in another segment now; in place. */
enum hw_status hw_tree_file_relocate(struct hw_tree_file *tree, uint64_t block, uint32_t segment,
                                     uint64_t offset, struct hw_error *err) HW_MUST_CHECK;
/* HW_END: there is none that can be trusted. */
enum hw_status hw_tree_file_marker(struct hw_tree_file *tree, struct hw_tree_marker *out,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Sync the slots, then write the marker. */
enum hw_status hw_tree_file_sync(struct hw_tree_file *tree, const struct hw_tree_marker *marker,
                                 struct hw_error *err) HW_MUST_CHECK;

/* One slot as it is in the file. */
void hw_slot_decode(const uint8_t bytes[HW_SLOT_SIZE], struct hw_slot *out);

#endif
