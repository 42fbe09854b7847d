/*
 * hypercore/flat_tree.h - the numbering of a binary tree in one line
 *
 * Leaves have even indices, block i is node 2i; a parent stands between its children:
 *
 *   index    0   1   2   3   4   5   6   7   8
 *   depth 0  0       2       4       6       8        blocks 0 1 2 3 4
 *   depth 1      1               5
 *   depth 2              3
 *
 * A node of depth d and offset o has index (2o + 1) * 2^d - 1.  Indices come from peers: all of
 * these are total functions; a caller bounds the index (HW_TREE_LENGTH_MAX) before it does I/O.
 */
#ifndef HW_HYPERCORE_FLAT_TREE_H
#define HW_HYPERCORE_FLAT_TREE_H

#include <stdbool.h>
#include <stdint.h>

enum { HW_TREE_ROOTS_MAX = 64 }; /* roots of the longest log */

/* Blocks: JavaScript peers count up to 2^53 - 1, and 2 * length must have room too. */
#define HW_TREE_LENGTH_MAX (UINT64_C(1) << 52)

static inline unsigned hw_flat_depth(uint64_t index)
{
    return index == UINT64_MAX ? 64 : (unsigned)__builtin_ctzll(~index);
}

static inline uint64_t hw_flat_index(unsigned depth, uint64_t offset)
{
    return depth >= 64 ? UINT64_MAX : (2 * offset + 1) * (UINT64_C(1) << depth) - 1;
}

static inline uint64_t hw_flat_offset(uint64_t index)
{
    unsigned depth = hw_flat_depth(index);
    return depth >= 63 ? 0 : index >> (depth + 1);
}

static inline uint64_t hw_flat_parent(uint64_t index)
{
    return hw_flat_index(hw_flat_depth(index) + 1, hw_flat_offset(index) >> 1);
}

static inline uint64_t hw_flat_sibling(uint64_t index)
{
    return hw_flat_index(hw_flat_depth(index), hw_flat_offset(index) ^ 1);
}

/* Of a parent (odd index). */
static inline uint64_t hw_flat_left_child(uint64_t index)
{
    return index - (UINT64_C(1) << (hw_flat_depth(index) - 1));
}

static inline uint64_t hw_flat_right_child(uint64_t index)
{
    return index + (UINT64_C(1) << (hw_flat_depth(index) - 1));
}

/* Leaves below a node, itself if it is one. */
static inline uint64_t hw_flat_leaves(uint64_t index)
{
    unsigned depth = hw_flat_depth(index);
    return depth >= 64 ? 0 : UINT64_C(1) << depth;
}

/* Index of the first and of the last leaf below. */
static inline uint64_t hw_flat_left_span(uint64_t index)
{
    return index - (hw_flat_leaves(index) - 1);
}

static inline uint64_t hw_flat_right_span(uint64_t index)
{
    return index + (hw_flat_leaves(index) - 1);
}

static inline bool hw_flat_contains(uint64_t index, uint64_t other)
{
    return hw_flat_left_span(index) <= other && other <= hw_flat_right_span(index);
}

/* The roots of a log of `length` blocks, left to right; their number. */
unsigned hw_flat_full_roots(uint64_t length, uint64_t out[HW_TREE_ROOTS_MAX]);

#endif
