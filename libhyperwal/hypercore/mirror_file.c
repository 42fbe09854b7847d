/* Implements hypercore/mirror_file.h. */
#include "hypercore/mirror_file.h"

#include <assert.h>
#include <string.h>

#include "hypercore/hypercore.h"

enum {
    VERSION = 1,
    INFO_FIXED_SIZE = 64,
    SLOT_FIXED_SIZE = 48,
    ROOT_SIZE = 8 + HW_HASH_SIZE,
    CHECKSUM_SIZE = 8,
    FLAG_COMPAT = 1,
};
#define UNPROVEN (UINT64_C(1) << 63)

static_assert(INFO_FIXED_SIZE + HW_MIRROR_MANIFEST_MAX + CHECKSUM_SIZE == HW_MIRROR_FILE_MAX,
              "the largest file has the largest manifest");
static_assert(SLOT_FIXED_SIZE + HW_TREE_ROOTS_MAX * ROOT_SIZE + HW_MIRROR_SIGNATURE_MAX +
                      CHECKSUM_SIZE <=
                  HW_MIRROR_SLOT_SIZE,
              "the largest head fits into its slot");

static const uint8_t info_magic[8] = {'h', 'w', 'm', 'i', 'r', 'r', '1', '\n'};
static const uint8_t head_magic[8] = {'h', 'w', 'h', 'e', 'a', 'd', '1', '\n'};
static const uint8_t tail_magic[8] = {'h', 'w', 't', 'a', 'i', 'l', '1', '\n'};

static void checksum(const uint8_t *bytes, size_t size, uint8_t out[CHECKSUM_SIZE])
{
    struct hw_slice part = {bytes, size};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(&part, 1, hash);
    memcpy(out, hash, CHECKSUM_SIZE);
}

static void add_checksum(struct hw_buffer *buffer)
{
    uint8_t sum[CHECKSUM_SIZE];

    if (buffer->failed)
        return;
    checksum(buffer->bytes, buffer->size, sum);
    hw_buffer_add(buffer, sum, sizeof(sum));
}

static bool checks(const uint8_t *bytes, size_t size)
{
    uint8_t sum[CHECKSUM_SIZE];

    checksum(bytes, size, sum);
    return memcmp(sum, bytes + size, sizeof(sum)) == 0;
}

/* --------------------------------------------------------------------------------- mirror */

void hw_mirror_info_encode(const struct hw_mirror_info *info, struct hw_buffer *out)
{
    assert(info->manifest.size <= HW_MIRROR_MANIFEST_MAX);
    hw_buffer_clear(out);
    hw_buffer_add(out, info_magic, sizeof(info_magic));
    hw_buffer_add_le32(out, VERSION);
    hw_buffer_add_le32(out, (uint32_t)info->manifest.size);
    hw_buffer_add_le64(out, info->is_compat ? FLAG_COMPAT : 0);
    hw_buffer_add_le64(out, info->first_kept);
    hw_buffer_add(out, info->key, HW_HASH_SIZE);
    hw_buffer_add(out, info->manifest.bytes, info->manifest.size);
    add_checksum(out);
}

enum hw_status hw_mirror_info_decode(struct hw_slice bytes, struct hw_mirror_info *out,
                                     struct hw_error *err)
{
    const uint8_t *at = bytes.bytes;
    uint64_t manifest_size;

    if (bytes.size < INFO_FIXED_SIZE + CHECKSUM_SIZE ||
        memcmp(at, info_magic, sizeof(info_magic)) != 0)
        return hw_fail(err, HW_ECORRUPT, "not the file of a mirror");
    if (hw_get_le32(at + 8) != VERSION)
        return hw_fail(err, HW_EVERSION, "format %u, this program knows %d: upgrade it",
                       (unsigned)hw_get_le32(at + 8), VERSION);
    manifest_size = hw_get_le32(at + 12);
    if (manifest_size > HW_MIRROR_MANIFEST_MAX ||
        bytes.size != INFO_FIXED_SIZE + manifest_size + CHECKSUM_SIZE ||
        !checks(at, bytes.size - CHECKSUM_SIZE))
        return hw_fail(err, HW_ECORRUPT, "bad checksum");
    *out = (struct hw_mirror_info){
        .is_compat = (hw_get_le64(at + 16) & FLAG_COMPAT) != 0,
        .first_kept = hw_get_le64(at + 24),
        .manifest = {at + INFO_FIXED_SIZE, (size_t)manifest_size},
    };
    memcpy(out->key, at + 32, HW_HASH_SIZE);
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- head */

void hw_mirror_head_encode(const struct hw_mirror_head *head, struct hw_buffer *out)
{
    assert(head->signature.size <= HW_MIRROR_SIGNATURE_MAX);
    hw_buffer_clear(out);
    hw_buffer_add(out, head_magic, sizeof(head_magic));
    hw_buffer_add_le64(out, head->generation);
    hw_buffer_add_le64(out, head->roots.length);
    hw_buffer_add_le64(out, head->roots.byte_length);
    hw_buffer_add_le64(out, head->fork);
    hw_buffer_add_le32(out, head->roots.count);
    hw_buffer_add_le32(out, (uint32_t)head->signature.size);
    for (unsigned i = 0; i < head->roots.count; i++) {
        hw_buffer_add_le64(out, head->roots.nodes[i].size);
        hw_buffer_add(out, head->roots.nodes[i].hash, HW_HASH_SIZE);
    }
    hw_buffer_add(out, head->signature.bytes, head->signature.size);
    add_checksum(out);
}

static bool roots_decode(const uint8_t *at, struct hw_roots *roots)
{
    uint64_t indices[HW_TREE_ROOTS_MAX], sum = 0;

    if (roots->length > HW_TREE_LENGTH_MAX ||
        hw_flat_full_roots(roots->length, indices) != roots->count)
        return false;
    for (unsigned i = 0; i < roots->count; i++, at += ROOT_SIZE) {
        roots->nodes[i].index = indices[i];
        roots->nodes[i].size = hw_get_le64(at);
        memcpy(roots->nodes[i].hash, at + 8, HW_HASH_SIZE);
        if (roots->nodes[i].size > UINT64_MAX - sum)
            return false;
        sum += roots->nodes[i].size;
    }
    return sum == roots->byte_length;
}

bool hw_mirror_head_decode(struct hw_slice bytes, struct hw_mirror_head *out)
{
    const uint8_t *at = bytes.bytes;
    size_t root_count, signature_size, size;

    if (bytes.size < SLOT_FIXED_SIZE + CHECKSUM_SIZE ||
        memcmp(at, head_magic, sizeof(head_magic)) != 0)
        return false;
    root_count = hw_get_le32(at + 40);
    signature_size = hw_get_le32(at + 44);
    if (root_count > HW_TREE_ROOTS_MAX || signature_size > HW_MIRROR_SIGNATURE_MAX)
        return false;
    size = SLOT_FIXED_SIZE + root_count * ROOT_SIZE + signature_size;
    if (bytes.size - CHECKSUM_SIZE < size || !checks(at, size))
        return false;
    *out = (struct hw_mirror_head){
        .generation = hw_get_le64(at + 8),
        .fork = hw_get_le64(at + 32),
        .roots = {.length = hw_get_le64(at + 16),
                  .byte_length = hw_get_le64(at + 24),
                  .count = (unsigned)root_count},
        .signature = {at + size - signature_size, signature_size},
    };
    return roots_decode(at + SLOT_FIXED_SIZE, &out->roots);
}

/* ---------------------------------------------------------------------------------- nodes */

static void node_checksum(const uint8_t *bytes, uint64_t index, uint8_t out[CHECKSUM_SIZE])
{
    uint8_t prefix[8], hash[HW_HASH_SIZE];
    struct hw_slice parts[2] = {{prefix, sizeof(prefix)},
                                {bytes, HW_MIRROR_NODE_SIZE - CHECKSUM_SIZE}};

    hw_put_le64(prefix, index);
    hw_hash(parts, 2, hash);
    memcpy(out, hash, CHECKSUM_SIZE);
}

void hw_mirror_node_encode(const struct hw_node *node, bool is_proven,
                           uint8_t out[HW_MIRROR_NODE_SIZE])
{
    hw_put_le64(out, (node->size & ~UNPROVEN) | (is_proven ? 0 : UNPROVEN));
    memcpy(out + 8, node->hash, HW_HASH_SIZE);
    node_checksum(out, node->index, out + HW_MIRROR_NODE_SIZE - CHECKSUM_SIZE);
}

bool hw_mirror_node_decode(const uint8_t bytes[HW_MIRROR_NODE_SIZE], uint64_t index,
                           struct hw_node *out, bool *is_proven)
{
    uint8_t sum[CHECKSUM_SIZE];

    node_checksum(bytes, index, sum);
    if (memcmp(sum, bytes + HW_MIRROR_NODE_SIZE - CHECKSUM_SIZE, sizeof(sum)) != 0)
        return false;
    out->index = index;
    out->size = hw_get_le64(bytes) & ~UNPROVEN;
    memcpy(out->hash, bytes + 8, HW_HASH_SIZE);
    *is_proven = (hw_get_le64(bytes) & UNPROVEN) == 0;
    return true;
}

/* ----------------------------------------------------------------------------------- tail */

void hw_mirror_tail_begin(uint64_t fork, const uint8_t salt[16],
                          uint8_t out[HW_MIRROR_TAIL_HEADER_SIZE])
{
    memcpy(out, tail_magic, sizeof(tail_magic));
    memcpy(out + 8, salt, 16);
    hw_put_le64(out + 24, fork);
}

bool hw_mirror_tail_decode(const uint8_t header[HW_MIRROR_TAIL_HEADER_SIZE], uint64_t *fork)
{
    *fork = hw_get_le64(header + 24);
    return memcmp(header, tail_magic, sizeof(tail_magic)) == 0;
}

struct hw_mirror_chain hw_mirror_chain_begin(const uint8_t header[HW_MIRROR_TAIL_HEADER_SIZE],
                                             const uint8_t key[HW_HASH_SIZE])
{
    struct hw_slice parts[2] = {{header, HW_MIRROR_TAIL_HEADER_SIZE}, {key, HW_HASH_SIZE}};
    struct hw_mirror_chain chain;

    hw_hash(parts, 2, chain.hash);
    return chain;
}

struct hw_mirror_chain hw_mirror_chain_next(const struct hw_mirror_chain *chain,
                                            struct hw_slice record)
{
    struct hw_slice parts[2] = {{chain->hash, HW_HASH_SIZE}, record};
    struct hw_mirror_chain next;

    hw_hash(parts, 2, next.hash);
    return next;
}

void hw_mirror_item_encode(const struct hw_mirror_item *item, struct hw_buffer *scratch,
                           struct hw_buffer *out)
{
    uint8_t node[HW_MIRROR_NODE_SIZE];

    hw_buffer_add_u8(out, (uint8_t)item->kind);
    switch (item->kind) {
    case HW_MIRROR_NODE:
        hw_mirror_node_encode(&item->node, item->is_proven, node);
        hw_buffer_add_le64(out, item->node.index);
        hw_buffer_add(out, node, sizeof(node));
        return;
    case HW_MIRROR_BLOCK:
        assert(item->data.size <= HW_BLOCK_SIZE_MAX);
        hw_buffer_add_le64(out, item->block);
        hw_buffer_add_le64(out, item->start);
        hw_buffer_add_le32(out, (uint32_t)item->data.size);
        hw_buffer_add(out, item->data.bytes, item->data.size);
        return;
    case HW_MIRROR_HEAD:
        hw_mirror_head_encode(&item->head, scratch);
        hw_buffer_add_le32(out, (uint32_t)scratch->size);
        hw_buffer_add(out, scratch->bytes, scratch->size);
        out->failed = out->failed || scratch->failed;
        return;
    }
}

/* The rest of an item, behind its kind.  False: not one that was encoded. */
static bool item_decode(struct hw_cursor *cursor, struct hw_mirror_item *out)
{
    const uint8_t *bytes;
    size_t size;

    switch (out->kind) {
    case HW_MIRROR_NODE:
        out->node.index = hw_cursor_le64(cursor);
        bytes = hw_cursor_bytes(cursor, HW_MIRROR_NODE_SIZE);
        return bytes != NULL && out->node.index < 2 * HW_TREE_LENGTH_MAX &&
               hw_mirror_node_decode(bytes, out->node.index, &out->node, &out->is_proven);
    case HW_MIRROR_BLOCK:
        out->block = hw_cursor_le64(cursor);
        out->start = hw_cursor_le64(cursor);
        size = hw_cursor_le32(cursor);
        bytes = hw_cursor_bytes(cursor, size);
        out->data = (struct hw_slice){bytes, size};
        return bytes != NULL && out->block < HW_TREE_LENGTH_MAX && size <= HW_BLOCK_SIZE_MAX &&
               out->start <= UINT64_MAX - size;
    case HW_MIRROR_HEAD:
        size = hw_cursor_le32(cursor);
        bytes = hw_cursor_bytes(cursor, size);
        return bytes != NULL && hw_mirror_head_decode((struct hw_slice){bytes, size}, &out->head) &&
               out->head.signature.bytes + out->head.signature.size + CHECKSUM_SIZE == bytes + size;
    }
    return false;
}

enum hw_status hw_mirror_item_decode(struct hw_cursor *cursor, struct hw_mirror_item *out,
                                     struct hw_error *err)
{
    if (hw_cursor_left(cursor) == 0)
        return HW_END;
    out->kind = (enum hw_mirror_item_kind)hw_cursor_u8(cursor);
    if (!item_decode(cursor, out))
        return hw_fail(err, HW_ECORRUPT, "an item of kind %d that cannot be", (int)out->kind);
    return HW_OK;
}
