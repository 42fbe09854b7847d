/* Implements hypercore/tree.h. */
#include "hypercore/tree.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

enum { TYPE_LEAF = 0, TYPE_PARENT = 1, TYPE_ROOT = 2, ROOT_SIZE = HW_HASH_SIZE + 16 };

void hw_node_leaf(uint64_t block, struct hw_slice data, struct hw_node *out)
{
    uint8_t head[9] = {TYPE_LEAF};
    struct hw_slice parts[2] = {{head, sizeof(head)}, data};

    hw_put_le64(head + 1, data.size);
    out->index = 2 * block;
    out->size = data.size;
    hw_hash(parts, 2, out->hash);
}

void hw_node_parent(const struct hw_node *one, const struct hw_node *other, struct hw_node *out)
{
    const struct hw_node *left = one->index < other->index ? one : other;
    const struct hw_node *right = left == one ? other : one;
    uint8_t input[9 + 2 * HW_HASH_SIZE] = {TYPE_PARENT};
    struct hw_slice part = {input, sizeof(input)};
    struct hw_node parent = {.index = hw_flat_parent(one->index), .size = one->size + other->size};

    hw_put_le64(input + 1, parent.size);
    memcpy(input + 9, left->hash, HW_HASH_SIZE);
    memcpy(input + 9 + HW_HASH_SIZE, right->hash, HW_HASH_SIZE);
    hw_hash(&part, 1, parent.hash);
    *out = parent;
}

void hw_roots_push(struct hw_roots *roots, const struct hw_node *node,
                   void (*made)(void *ctx, const struct hw_node *parent), void *ctx)
{
    assert(roots->count < HW_TREE_ROOTS_MAX);
    roots->length += hw_flat_leaves(node->index);
    roots->byte_length += node->size;
    roots->nodes[roots->count++] = *node;

    while (roots->count > 1) {
        struct hw_node *left = &roots->nodes[roots->count - 2], *right = left + 1;

        if (hw_flat_sibling(left->index) != right->index)
            break;
        hw_node_parent(left, right, left);
        roots->count--;
        if (made != NULL)
            made(ctx, left);
    }
}

/* Push one node, unless its size would make the sums wrap: no log is that large. */
static bool push_taken(struct hw_roots *roots, const struct hw_node *node,
                       void (*made)(void *ctx, const struct hw_node *parent), void *ctx)
{
    if (node->size > UINT64_MAX - roots->byte_length || roots->count >= HW_TREE_ROOTS_MAX)
        return false;
    hw_roots_push(roots, node, made, ctx);
    return true;
}

enum hw_status hw_roots_upgrade(struct hw_roots *roots, uint64_t end,
                                bool (*take)(void *ctx, uint64_t index, struct hw_node *out),
                                void (*made)(void *ctx, const struct hw_node *parent), void *ctx)
{
    uint64_t wanted[HW_TREE_ROOTS_MAX];
    unsigned wanted_count, original = roots->count, same = 0;
    bool grown = original == 0; /* the last old root needs no growing */
    struct hw_node node;

    if (end > HW_TREE_LENGTH_MAX)
        return HW_EPROOF;
    wanted_count = hw_flat_full_roots(end, wanted);
    for (unsigned i = 0; i < wanted_count; i++) {
        if (same == i && i < original && roots->nodes[i].index == wanted[i]) {
            same++;
            continue;
        }
        if (!grown && same < original) { /* wanted[i] covers the old roots from here on */
            grown = true;
            while (roots->nodes[roots->count - 1].index != wanted[i]) {
                uint64_t last = roots->nodes[roots->count - 1].index;

                if (hw_flat_depth(last) >= hw_flat_depth(wanted[i]) ||
                    !take(ctx, hw_flat_sibling(last), &node) ||
                    !push_taken(roots, &node, made, ctx))
                    return HW_EPROOF;
            }
            continue;
        }
        if (!take(ctx, wanted[i], &node) || !push_taken(roots, &node, made, ctx))
            return HW_EPROOF;
    }
    return roots->length == end ? HW_OK : HW_EPROOF;
}

void hw_roots_hash(const struct hw_roots *roots, uint8_t out[HW_HASH_SIZE])
{
    uint8_t input[1 + HW_TREE_ROOTS_MAX * ROOT_SIZE];
    uint8_t *next = input;
    struct hw_slice part = {input, 0};

    *next++ = TYPE_ROOT;
    for (unsigned i = 0; i < roots->count; i++, next += ROOT_SIZE) {
        memcpy(next, roots->nodes[i].hash, HW_HASH_SIZE);
        hw_put_le64(next + HW_HASH_SIZE, roots->nodes[i].index);
        hw_put_le64(next + HW_HASH_SIZE + 8, roots->nodes[i].size);
    }
    part.size = (size_t)(next - input);
    hw_hash(&part, 1, out);
}
