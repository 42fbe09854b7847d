/* Implements hypercore/tree_file.h. */
#include "hypercore/tree_file.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/segment.h"

enum {
    PARENT_AT = 32,
    END_AT = 64,
    PLACE_AT = 70,
    PLACE_SIZE = 10,
    PRUNED_AT = 79, /* the greatest byte of the offset */
    PRUNED = 0xff,
    CHECKSUM_AT = 72,
    OLDER_SIZE = 8 + HW_HASH_SIZE,
};

static const uint8_t magic[8] = {'h', 'w', 't', 'r', 'e', 'e', '1', '\n'};

static uint64_t slot_at(uint64_t block)
{
    return (block + 1) * HW_SLOT_SIZE; /* the header is as large as a slot */
}

static void put_le48(uint8_t *p, uint64_t value)
{
    hw_put_le32(p, (uint32_t)value);
    hw_put_le16(p + 4, (uint16_t)(value >> 32));
}

static uint64_t get_le48(const uint8_t *p)
{
    return hw_get_le32(p) | (uint64_t)hw_get_le16(p + 4) << 32;
}

static void place_encode(uint8_t *p, uint32_t segment, uint64_t offset)
{
    hw_put_le32(p, segment);
    put_le48(p + 4, offset);
}

void hw_slot_decode(const uint8_t bytes[HW_SLOT_SIZE], struct hw_slot *out)
{
    memcpy(out->leaf, bytes, HW_HASH_SIZE);
    memcpy(out->parent, bytes + PARENT_AT, HW_HASH_SIZE);
    out->end = get_le48(bytes + END_AT);
    out->segment = hw_get_le32(bytes + PLACE_AT);
    out->offset = get_le48(bytes + PLACE_AT + 4);
    out->is_pruned = bytes[PRUNED_AT] == PRUNED;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

enum hw_status hw_tree_file_open(struct hw_env *env, const char *dir, bool writable,
                                 struct hw_tree_file *out, struct hw_error *err)
{
    struct hw_tree_file tree = {.env = env};
    unsigned flags = HW_OPEN_READ | (writable ? HW_OPEN_WRITE | HW_OPEN_CREATE : 0U);
    enum hw_status status;

    tree.path = hw_format("%s/tree", dir);
    /* An append completes one older parent a level at most: that many never need memory. */
    if (tree.path == NULL ||
        hw_buffer_reserve(&tree.older, HW_TREE_ROOTS_MAX * OLDER_SIZE) != HW_OK) {
        hw_free(tree.path);
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open the tree", dir);
    }
    status = env->ops->open(env, tree.path, flags, &tree.file, err);
    if (status != HW_OK) {
        hw_free(tree.path);
        hw_buffer_release(&tree.older);
        return status;
    }
    *out = tree;
    return HW_OK;
}

void hw_tree_file_close(struct hw_tree_file *tree)
{
    if (tree->env != NULL)
        tree->env->ops->close(tree->file);
    hw_free(tree->path);
    hw_buffer_release(&tree->fresh);
    hw_buffer_release(&tree->older);
    *tree = (struct hw_tree_file){0};
}

/* -------------------------------------------------------------------------------- reading */

enum hw_status hw_tree_file_slots(struct hw_tree_file *tree, uint64_t *out, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = tree->env->ops->stat_file(tree->file, &stat, err);

    if (status != HW_OK)
        return status;
    stat.size += HW_SLOT_SIZE - 1; /* a torn slot counts: it tells that something was there */
    *out = stat.size / HW_SLOT_SIZE > 1 ? stat.size / HW_SLOT_SIZE - 1 : 0;
    return HW_OK;
}

static uint64_t overlay_end(const struct hw_tree_file *tree)
{
    return tree->base + tree->fresh.size / HW_SLOT_SIZE;
}

/* The parents of older slots that the overlay knows better. */
static void apply_older(const struct hw_tree_file *tree, uint64_t block, uint8_t *slot)
{
    for (size_t at = 0; at < tree->older.size; at += OLDER_SIZE) {
        if (hw_get_le64(tree->older.bytes + at) == block)
            memcpy(slot + PARENT_AT, tree->older.bytes + at + 8, HW_HASH_SIZE);
    }
}

/* The bytes of `count` slots, from the overlay or the file. */
static enum hw_status read_slots(struct hw_tree_file *tree, uint64_t block, unsigned count,
                                 uint8_t *out, struct hw_error *err)
{
    enum hw_status status;

    if (block >= tree->base && block + count <= overlay_end(tree)) {
        memcpy(out, tree->fresh.bytes + (block - tree->base) * HW_SLOT_SIZE, count * HW_SLOT_SIZE);
        return HW_OK;
    }
    status = tree->env->ops->read_at(tree->file, slot_at(block), out, count * HW_SLOT_SIZE, err);
    if (status < 0)
        return status;
    for (unsigned i = 0; i < count; i++) {
        if (block + i >= tree->base && block + i < overlay_end(tree))
            memcpy(out + i * HW_SLOT_SIZE,
                   tree->fresh.bytes + (block + i - tree->base) * HW_SLOT_SIZE, HW_SLOT_SIZE);
        else
            apply_older(tree, block + i, out + i * HW_SLOT_SIZE);
    }
    return HW_OK;
}

enum hw_status hw_tree_file_slot(struct hw_tree_file *tree, uint64_t block, struct hw_slot *out,
                                 struct hw_error *err)
{
    uint8_t bytes[HW_SLOT_SIZE];
    enum hw_status status = read_slots(tree, block, 1, bytes, err);

    if (status != HW_OK)
        return status;
    if (is_zero(bytes, HW_HASH_SIZE))
        return HW_END;
    hw_slot_decode(bytes, out);
    return HW_OK;
}

/* A block from its slot and the one before, which is zeros for the first. */
static enum hw_status block_decode(const struct hw_tree_file *tree, uint64_t block,
                                   const uint8_t bytes[2 * HW_SLOT_SIZE], uint64_t *start,
                                   struct hw_slot *out, struct hw_error *err)
{
    struct hw_slot before;

    hw_slot_decode(bytes, &before);
    hw_slot_decode(bytes + HW_SLOT_SIZE, out);
    if (is_zero(out->leaf, HW_HASH_SIZE) || out->end < before.end)
        return hw_fail(err, HW_ECORRUPT, "%s: slot of block %llu at %llu is damaged", tree->path,
                       (unsigned long long)block, (unsigned long long)slot_at(block));
    *start = before.end;
    return HW_OK;
}

enum hw_status hw_tree_file_block(struct hw_tree_file *tree, uint64_t block, uint64_t *start,
                                  struct hw_slot *out, struct hw_error *err)
{
    uint8_t bytes[2 * HW_SLOT_SIZE] = {0};
    enum hw_status status = block == 0 ? read_slots(tree, 0, 1, bytes + HW_SLOT_SIZE, err)
                                       : read_slots(tree, block - 1, 2, bytes, err);

    return status == HW_OK ? block_decode(tree, block, bytes, start, out, err) : status;
}

enum hw_status hw_tree_file_block_ahead(struct hw_tree_file *tree, uint64_t block, uint64_t length,
                                        struct hw_slots_ahead *ahead, uint64_t *start,
                                        struct hw_slot *out, struct hw_error *err)
{
    uint64_t first = block - 1;

    assert(block > 0 && block < length);
    if (first < ahead->first || block - ahead->first >= ahead->count) {
        unsigned count =
            length - first < HW_SLOTS_AHEAD ? (unsigned)(length - first) : (unsigned)HW_SLOTS_AHEAD;
        enum hw_status status;

        ahead->count = 0;
        status = read_slots(tree, first, count, ahead->bytes, err);
        if (status != HW_OK)
            return status;
        ahead->first = first;
        ahead->count = count;
    }
    return block_decode(tree, block, ahead->bytes + (first - ahead->first) * HW_SLOT_SIZE, start,
                        out, err);
}

/* Where slots are looked up: in the file, and before in what was read of it. */
struct lookup {
    struct hw_tree_file *tree;
    uint64_t length;              /* of the log */
    struct hw_slots_ahead *ahead; /* NULL: nothing is read ahead */
};

/* A slot of a complete block.  HW_END: nothing is there. */
static enum hw_status find_slot(const struct lookup *lookup, uint64_t block, struct hw_slot *out,
                                struct hw_error *err)
{
    struct hw_slots_ahead *ahead = lookup->ahead;

    /* Once: nodes far above have theirs far apart. */
    if (ahead != NULL && ahead->count == 0 && block < lookup->length) {
        uint64_t left;

        ahead->first = block - block % HW_SLOTS_AHEAD;
        left = lookup->length - ahead->first;
        ahead->count = left < HW_SLOTS_AHEAD ? (unsigned)left : (unsigned)HW_SLOTS_AHEAD;
        if (read_slots(lookup->tree, ahead->first, ahead->count, ahead->bytes, NULL) != HW_OK)
            ahead->count = 0; /* what is wrong shows below */
    }
    if (ahead != NULL && block >= ahead->first && block - ahead->first < ahead->count) {
        const uint8_t *bytes = ahead->bytes + (block - ahead->first) * HW_SLOT_SIZE;

        hw_slot_decode(bytes, out);
        return is_zero(bytes, HW_HASH_SIZE) ? HW_END : HW_OK;
    }
    return hw_tree_file_slot(lookup->tree, block, out, err);
}

/* Bytes of all blocks before `block`. */
static enum hw_status bytes_before(const struct lookup *lookup, uint64_t block, uint64_t *out,
                                   struct hw_error *err)
{
    struct hw_tree_file *tree = lookup->tree;
    struct hw_slot slot;
    enum hw_status status;

    *out = 0;
    if (block == 0)
        return HW_OK;
    status = find_slot(lookup, block - 1, &slot, err);
    if (status == HW_END)
        return hw_fail(err, HW_ECORRUPT, "%s: block %llu has no slot", tree->path,
                       (unsigned long long)(block - 1));
    if (status == HW_OK)
        *out = slot.end;
    return status;
}

static enum hw_status find_node(const struct lookup *lookup, uint64_t index, struct hw_node *out,
                                struct hw_error *err)
{
    struct hw_tree_file *tree = lookup->tree;
    struct hw_slot slot;
    struct hw_node node = {.index = index};
    uint64_t before = 0, end = 0;
    enum hw_status status;

    status = bytes_before(lookup, hw_flat_left_span(index) / 2, &before, err);
    if (status == HW_OK)
        status = bytes_before(lookup, hw_flat_right_span(index) / 2 + 1, &end, err);
    if (status == HW_OK)
        status = find_slot(lookup, index / 2, &slot, err);
    if (status < 0)
        return status;
    if (status == HW_OK)
        memcpy(node.hash, index % 2 == 0 ? slot.leaf : slot.parent, HW_HASH_SIZE);
    if (status == HW_END || end < before || is_zero(node.hash, HW_HASH_SIZE))
        return hw_fail(err, HW_ECORRUPT, "%s: node %llu is missing or damaged", tree->path,
                       (unsigned long long)index);
    node.size = end - before;
    *out = node;
    return HW_OK;
}

enum hw_status hw_tree_file_node(struct hw_tree_file *tree, uint64_t index, struct hw_node *out,
                                 struct hw_error *err)
{
    const struct lookup lookup = {.tree = tree};

    return find_node(&lookup, index, out, err);
}

enum hw_status hw_tree_file_node_ahead(struct hw_tree_file *tree, uint64_t index, uint64_t length,
                                       struct hw_slots_ahead *ahead, struct hw_node *out,
                                       struct hw_error *err)
{
    const struct lookup lookup = {.tree = tree, .length = length, .ahead = ahead};

    return find_node(&lookup, index, out, err);
}

enum hw_status hw_tree_file_roots(struct hw_tree_file *tree, uint64_t length, struct hw_roots *out,
                                  struct hw_error *err)
{
    uint64_t indices[HW_TREE_ROOTS_MAX];
    struct hw_roots roots = {.length = length};

    roots.count = hw_flat_full_roots(length, indices);
    for (unsigned i = 0; i < roots.count; i++) {
        enum hw_status status = hw_tree_file_node(tree, indices[i], &roots.nodes[i], err);

        if (status != HW_OK)
            return status;
        roots.byte_length += roots.nodes[i].size;
    }
    *out = roots;
    return HW_OK;
}

/* -------------------------------------------------------------------------------- overlay */

void hw_tree_file_restart(struct hw_tree_file *tree, uint64_t base)
{
    hw_buffer_clear(&tree->fresh);
    hw_buffer_clear(&tree->older);
    tree->base = base;
}

void hw_tree_file_add(struct hw_tree_file *tree, const struct hw_node *leaf, uint64_t end,
                      uint32_t segment, uint64_t offset)
{
    uint8_t *slot;

    assert(leaf->index / 2 == overlay_end(tree) || tree->fresh.failed);
    slot = hw_buffer_extend(&tree->fresh, HW_SLOT_SIZE);
    if (slot == NULL)
        return;
    memcpy(slot, leaf->hash, HW_HASH_SIZE);
    memset(slot + PARENT_AT, 0, HW_HASH_SIZE);
    put_le48(slot + END_AT, end);
    place_encode(slot + PLACE_AT, segment, offset);
}

void hw_tree_file_set_parent(struct hw_tree_file *tree, const struct hw_node *parent)
{
    uint64_t block = parent->index / 2;
    uint8_t *older;

    if (tree->fresh.failed)
        return;
    if (block >= tree->base) {
        memcpy(tree->fresh.bytes + (block - tree->base) * HW_SLOT_SIZE + PARENT_AT, parent->hash,
               HW_HASH_SIZE);
        return;
    }
    older = hw_buffer_extend(&tree->older, OLDER_SIZE);
    if (older == NULL)
        return;
    hw_put_le64(older, block);
    memcpy(older + 8, parent->hash, HW_HASH_SIZE);
}

void hw_tree_file_cut(struct hw_tree_file *tree, uint64_t length)
{
    /* Parents that reached beyond stay: nobody asks for them before they are computed again. */
    if (length < tree->base)
        length = tree->base;
    if (length > overlay_end(tree))
        return;
    tree->fresh.size = (size_t)(length - tree->base) * HW_SLOT_SIZE;
    tree->fresh.failed = tree->older.failed = false;
}

bool hw_tree_file_failed(const struct hw_tree_file *tree)
{
    return tree->fresh.failed || tree->older.failed;
}

/* Is the slot on disk the one that was computed, or what pruning or later blocks made of it? */
static bool slots_agree(const uint8_t *computed, const uint8_t *stored)
{
    struct hw_slot mine, theirs;

    hw_slot_decode(computed, &mine);
    hw_slot_decode(stored, &theirs);
    if (memcmp(mine.leaf, theirs.leaf, HW_HASH_SIZE) != 0 || mine.end != theirs.end)
        return false;
    if (!is_zero(mine.parent, HW_HASH_SIZE) &&
        memcmp(mine.parent, theirs.parent, HW_HASH_SIZE) != 0)
        return false;
    if (theirs.is_pruned)
        return true;
    if (hw_segment_generation(theirs.segment) > 0) /* a copy of the same segment */
        return hw_segment_number(theirs.segment) == hw_segment_number(mine.segment);
    return theirs.segment == mine.segment && theirs.offset == mine.offset;
}

enum hw_status hw_tree_file_agrees(struct hw_tree_file *tree, bool *out, struct hw_error *err)
{
    uint8_t bytes[64 * HW_SLOT_SIZE];
    enum hw_status status;

    *out = false;
    for (size_t at = 0; at < tree->fresh.size;) {
        size_t part = tree->fresh.size - at < sizeof(bytes) ? tree->fresh.size - at : sizeof(bytes);

        status = tree->env->ops->read_at(tree->file, slot_at(tree->base) + at, bytes, part, err);
        if (status < 0)
            return status;
        for (size_t slot = 0; slot < part; slot += HW_SLOT_SIZE) {
            if (!slots_agree(tree->fresh.bytes + at + slot, bytes + slot))
                return HW_OK;
        }
        at += part;
    }
    for (size_t at = 0; at < tree->older.size; at += OLDER_SIZE) {
        const uint8_t *older = tree->older.bytes + at;

        status = tree->env->ops->read_at(tree->file, slot_at(hw_get_le64(older)) + PARENT_AT, bytes,
                                         HW_HASH_SIZE, err);
        if (status < 0)
            return status;
        if (memcmp(bytes, older + 8, HW_HASH_SIZE) != 0)
            return HW_OK;
    }
    *out = true;
    return HW_OK;
}

enum hw_status hw_tree_file_flush(struct hw_tree_file *tree, struct hw_error *err)
{
    enum hw_status status;

    if (hw_tree_file_failed(tree))
        return hw_fail(err, HW_ENOMEM, "%s: no memory for nodes", tree->path);
    for (size_t at = 0; at < tree->older.size; at += OLDER_SIZE) {
        const uint8_t *older = tree->older.bytes + at;

        status = tree->env->ops->write_at(tree->file, slot_at(hw_get_le64(older)) + PARENT_AT,
                                          older + 8, HW_HASH_SIZE, err);
        if (status != HW_OK)
            return status;
    }
    if (tree->fresh.size > 0) {
        status = tree->env->ops->write_at(tree->file, slot_at(tree->base), tree->fresh.bytes,
                                          tree->fresh.size, err);
        if (status != HW_OK)
            return status;
    }
    hw_tree_file_restart(tree, overlay_end(tree));
    return HW_OK;
}

/* ---------------------------------------------------------------------- places and marker */

enum hw_status hw_tree_file_read_range(struct hw_tree_file *tree, uint64_t block, unsigned count,
                                       uint8_t *out, struct hw_error *err)
{
    return read_slots(tree, block, count, out, err);
}

enum hw_status hw_tree_file_write_range(struct hw_tree_file *tree, uint64_t block, unsigned count,
                                        const uint8_t *slots, struct hw_error *err)
{
    assert(block + count <= tree->base);
    return tree->env->ops->write_at(tree->file, slot_at(block), slots, count * HW_SLOT_SIZE, err);
}

void hw_slot_set_pruned(uint8_t bytes[HW_SLOT_SIZE])
{
    bytes[PRUNED_AT] = PRUNED;
}

enum hw_status hw_tree_file_relocate(struct hw_tree_file *tree, uint64_t block, uint32_t segment,
                                     uint64_t offset, struct hw_error *err)
{
    uint8_t place[PLACE_SIZE];

    assert(block < tree->base);
    place_encode(place, segment, offset);
    return tree->env->ops->write_at(tree->file, slot_at(block) + PLACE_AT, place, sizeof(place),
                                    err);
}

static void marker_checksum(const uint8_t *header, uint8_t out[8])
{
    struct hw_slice part = {header, CHECKSUM_AT};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(&part, 1, hash);
    memcpy(out, hash, 8);
}

enum hw_status hw_tree_file_marker(struct hw_tree_file *tree, struct hw_tree_marker *out,
                                   struct hw_error *err)
{
    uint8_t header[HW_SLOT_SIZE], checksum[8];
    enum hw_status status;

    status = tree->env->ops->read_at(tree->file, 0, header, sizeof(header), err);
    if (status != HW_OK)
        return status;
    marker_checksum(header, checksum);
    if (memcmp(header, magic, sizeof(magic)) != 0 ||
        memcmp(checksum, header + CHECKSUM_AT, sizeof(checksum)) != 0)
        return HW_END;
    out->length = hw_get_le64(header + 8);
    out->segment = hw_get_le32(header + 16);
    out->offset = hw_get_le64(header + 20);
    memcpy(out->tree_hash, header + 28, HW_HASH_SIZE);
    return HW_OK;
}

enum hw_status hw_tree_file_sync(struct hw_tree_file *tree, const struct hw_tree_marker *marker,
                                 struct hw_error *err)
{
    uint8_t header[HW_SLOT_SIZE] = {0};
    enum hw_status status = tree->env->ops->sync(tree->file, err);

    if (status != HW_OK)
        return status;
    memcpy(header, magic, sizeof(magic));
    hw_put_le64(header + 8, marker->length);
    hw_put_le32(header + 16, marker->segment);
    hw_put_le64(header + 20, marker->offset);
    memcpy(header + 28, marker->tree_hash, HW_HASH_SIZE);
    marker_checksum(header, header + CHECKSUM_AT);
    return tree->env->ops->write_at(tree->file, 0, header, sizeof(header), err);
}
