/*
 * hypercore/tree.h - hashes of blocks, parents and whole logs, and the roots that grow
 *
 *   leaf    H(0 || size || data)                  sizes are those of the data below, 8 bytes LE
 *   parent  H(1 || size || left || right)
 *   log     H(2 || for each root: hash || index || size)
 *
 * The roots of a log are all that an append needs to know of it.
 */
#ifndef HW_HYPERCORE_TREE_H
#define HW_HYPERCORE_TREE_H

#include "base/status.h"
#include "hypercore/crypto.h"
#include "hypercore/flat_tree.h"

struct hw_node {
    uint64_t index; /* flat */
    uint64_t size;  /* bytes of all blocks below */
    uint8_t hash[HW_HASH_SIZE];
};

void hw_node_leaf(uint64_t block, struct hw_slice data, struct hw_node *out);
/* Of two siblings, in any order. */
void hw_node_parent(const struct hw_node *one, const struct hw_node *other, struct hw_node *out);

struct hw_roots {
    uint64_t length;      /* blocks */
    uint64_t byte_length; /* bytes */
    unsigned count;
    struct hw_node nodes[HW_TREE_ROOTS_MAX];
};

/* Add a root to the right and merge while the last two are siblings; told each parent made. */
void hw_roots_push(struct hw_roots *roots, const struct hw_node *node,
                   void (*made)(void *ctx, const struct hw_node *parent), void *ctx);
/*
 * Grow the roots to those of a log of `end` blocks (more than there are), with nodes that `take`
 * gives by index; it says false if it has none.  HW_EPROOF: it did, or an index is not possible.
 * On failure *roots is undefined.
 */
enum hw_status hw_roots_upgrade(struct hw_roots *roots, uint64_t end,
                                bool (*take)(void *ctx, uint64_t index, struct hw_node *out),
                                void (*made)(void *ctx, const struct hw_node *parent),
                                void *ctx) HW_MUST_CHECK;
void hw_roots_hash(const struct hw_roots *roots, uint8_t out[HW_HASH_SIZE]);

#endif
