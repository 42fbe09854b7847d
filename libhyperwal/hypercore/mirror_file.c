/* Implements hypercore/mirror_file.h. */
#include "hypercore/mirror_file.h"

#include <assert.h>
#include <string.h>

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
