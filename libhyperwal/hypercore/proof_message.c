/* Implements lists and messages of hypercore/proof.h. */
#include <string.h>

#include "hypercore/proof.h"

enum {
    FLAG_BLOCK = 1,
    FLAG_HASH = 2,
    FLAG_SEEK = 4,
    FLAG_UPGRADE = 8,
    FLAG_MANIFEST = 16,
    NODE_SIZE_MIN = 2 + HW_HASH_SIZE, /* bytes of a node in a message */
};

/* ---------------------------------------------------------------------------------- lists */

void hw_nodes_add(struct hw_nodes *nodes, const struct hw_node *node)
{
    hw_buffer_add(&nodes->buffer, node, sizeof(*node));
}

const struct hw_node *hw_nodes_find(const struct hw_nodes *nodes, uint64_t index)
{
    for (size_t i = hw_nodes_count(nodes); i > 0; i--) {
        if (hw_nodes_at(nodes, i - 1)->index == index)
            return hw_nodes_at(nodes, i - 1);
    }
    return NULL;
}

void hw_nodes_release(struct hw_nodes *nodes)
{
    hw_buffer_release(&nodes->buffer);
}

void hw_proof_release(struct hw_proof *proof)
{
    if (proof == NULL)
        return;
    hw_buffer_release(&proof->block);
    hw_buffer_release(&proof->signature);
    hw_buffer_release(&proof->manifest);
    hw_nodes_release(&proof->target_nodes);
    hw_nodes_release(&proof->seek_nodes);
    hw_nodes_release(&proof->upgrade_nodes);
    hw_nodes_release(&proof->additional_nodes);
    *proof = (struct hw_proof){0};
}

/* -------------------------------------------------------------------------------- request */

void hw_proof_request_encode(const struct hw_proof_request *request, struct hw_buffer *out)
{
    unsigned flags = (request->has_block ? FLAG_BLOCK : 0U) | (request->has_hash ? FLAG_HASH : 0U) |
                     (request->has_seek ? FLAG_SEEK : 0U) |
                     (request->has_upgrade ? FLAG_UPGRADE : 0U) |
                     (request->wants_manifest ? FLAG_MANIFEST : 0U);

    hw_buffer_add_uint(out, flags);
    hw_buffer_add_uint(out, request->id);
    hw_buffer_add_uint(out, request->fork);
    if (request->has_block) {
        hw_buffer_add_uint(out, request->block_index);
        hw_buffer_add_uint(out, request->block_nodes);
    }
    if (request->has_hash) {
        hw_buffer_add_uint(out, request->hash_index);
        hw_buffer_add_uint(out, request->hash_nodes);
    }
    if (request->has_seek) {
        hw_buffer_add_uint(out, request->seek_bytes);
        hw_buffer_add_uint(out, request->seek_padding);
    }
    if (request->has_upgrade) {
        hw_buffer_add_uint(out, request->upgrade_start);
        hw_buffer_add_uint(out, request->upgrade_length);
    }
}

enum hw_status hw_proof_request_decode(struct hw_slice bytes, struct hw_proof_request *out,
                                       struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_proof_request request = {0};
    uint64_t flags = hw_cursor_uint(&cursor);

    request.id = hw_cursor_uint(&cursor);
    request.fork = hw_cursor_uint(&cursor);
    request.has_block = (flags & FLAG_BLOCK) != 0;
    request.has_hash = (flags & FLAG_HASH) != 0;
    request.has_seek = (flags & FLAG_SEEK) != 0;
    request.has_upgrade = (flags & FLAG_UPGRADE) != 0;
    request.wants_manifest = (flags & FLAG_MANIFEST) != 0;
    if (request.has_block) {
        request.block_index = hw_cursor_uint(&cursor);
        request.block_nodes = hw_cursor_uint(&cursor);
    }
    if (request.has_hash) {
        request.hash_index = hw_cursor_uint(&cursor);
        request.hash_nodes = hw_cursor_uint(&cursor);
    }
    if (request.has_seek) {
        request.seek_bytes = hw_cursor_uint(&cursor);
        request.seek_padding = hw_cursor_uint(&cursor);
    }
    if (request.has_upgrade) {
        request.upgrade_start = hw_cursor_uint(&cursor);
        request.upgrade_length = hw_cursor_uint(&cursor);
    }
    if (cursor.failed)
        return hw_fail(err, HW_EPROTOCOL, "request of %zu bytes ends early", bytes.size);
    *out = request; /* a priority, and what later versions add, is not needed */
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- data */

static void encode_nodes(const struct hw_nodes *nodes, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, hw_nodes_count(nodes));
    for (size_t i = 0; i < hw_nodes_count(nodes); i++) {
        const struct hw_node *node = hw_nodes_at(nodes, i);

        hw_buffer_add_uint(out, node->index);
        hw_buffer_add_uint(out, node->size);
        hw_buffer_add(out, node->hash, HW_HASH_SIZE);
    }
}

void hw_proof_encode(const struct hw_proof *proof, struct hw_buffer *out)
{
    unsigned flags = (proof->has_block ? FLAG_BLOCK : 0U) | (proof->has_hash ? FLAG_HASH : 0U) |
                     (proof->has_seek ? FLAG_SEEK : 0U) | (proof->has_upgrade ? FLAG_UPGRADE : 0U) |
                     (proof->has_manifest ? FLAG_MANIFEST : 0U);

    hw_buffer_add_uint(out, flags);
    hw_buffer_add_uint(out, proof->id);
    hw_buffer_add_uint(out, proof->fork);
    if (proof->has_block) {
        hw_buffer_add_uint(out, proof->block_index);
        hw_buffer_add_uint(out, proof->block.size);
        hw_buffer_add(out, proof->block.bytes, proof->block.size);
        encode_nodes(&proof->target_nodes, out);
    }
    if (proof->has_hash) {
        hw_buffer_add_uint(out, proof->hash_index);
        encode_nodes(&proof->target_nodes, out);
    }
    if (proof->has_seek) {
        hw_buffer_add_uint(out, proof->seek_bytes);
        encode_nodes(&proof->seek_nodes, out);
    }
    if (proof->has_upgrade) {
        hw_buffer_add_uint(out, proof->upgrade_start);
        hw_buffer_add_uint(out, proof->upgrade_length);
        encode_nodes(&proof->upgrade_nodes, out);
        encode_nodes(&proof->additional_nodes, out);
        hw_buffer_add_uint(out, proof->signature.size);
        hw_buffer_add(out, proof->signature.bytes, proof->signature.size);
    }
    if (proof->has_manifest)
        hw_buffer_add(out, proof->manifest.bytes, proof->manifest.size);
}

static void decode_nodes(struct hw_cursor *cursor, struct hw_nodes *out)
{
    uint64_t count = hw_cursor_uint(cursor);

    if (count > hw_cursor_left(cursor) / NODE_SIZE_MIN)
        cursor->failed = true;
    for (uint64_t i = 0; i < count && !cursor->failed; i++) {
        struct hw_node node = {.index = hw_cursor_uint(cursor)};
        const uint8_t *hash;

        node.size = hw_cursor_uint(cursor);
        hash = hw_cursor_bytes(cursor, HW_HASH_SIZE);
        if (hash == NULL)
            return;
        memcpy(node.hash, hash, HW_HASH_SIZE);
        hw_nodes_add(out, &node);
    }
}

static void decode_buffer(struct hw_cursor *cursor, struct hw_buffer *out)
{
    uint64_t size = hw_cursor_uint(cursor);
    const uint8_t *bytes;

    if (size > hw_cursor_left(cursor)) {
        cursor->failed = true;
        return;
    }
    bytes = hw_cursor_bytes(cursor, (size_t)size);
    if (bytes != NULL && size > 0)
        hw_buffer_add(out, bytes, (size_t)size);
}

static void decode_sections(struct hw_cursor *cursor, uint64_t flags, struct hw_proof *out)
{
    out->has_block = (flags & FLAG_BLOCK) != 0;
    out->has_hash = (flags & FLAG_HASH) != 0 && !out->has_block;
    out->has_seek = (flags & FLAG_SEEK) != 0;
    out->has_upgrade = (flags & FLAG_UPGRADE) != 0;
    out->has_manifest = (flags & FLAG_MANIFEST) != 0;
    if (out->has_block) {
        out->block_index = hw_cursor_uint(cursor);
        decode_buffer(cursor, &out->block);
        decode_nodes(cursor, &out->target_nodes);
    }
    if ((flags & FLAG_HASH) != 0) {
        struct hw_nodes unused = {0};

        out->hash_index = hw_cursor_uint(cursor);
        decode_nodes(cursor, out->has_hash ? &out->target_nodes : &unused);
        hw_nodes_release(&unused);
    }
    if (out->has_seek) {
        out->seek_bytes = hw_cursor_uint(cursor);
        decode_nodes(cursor, &out->seek_nodes);
    }
    if (out->has_upgrade) {
        out->upgrade_start = hw_cursor_uint(cursor);
        out->upgrade_length = hw_cursor_uint(cursor);
        decode_nodes(cursor, &out->upgrade_nodes);
        decode_nodes(cursor, &out->additional_nodes);
        decode_buffer(cursor, &out->signature);
    }
    if (out->has_manifest && hw_cursor_left(cursor) > 0) /* has no length of its own: the rest */
        hw_buffer_add(&out->manifest, cursor->next, hw_cursor_left(cursor));
}

enum hw_status hw_proof_decode(struct hw_slice bytes, struct hw_proof *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_proof proof = {0};
    uint64_t flags = hw_cursor_uint(&cursor);

    proof.id = hw_cursor_uint(&cursor);
    proof.fork = hw_cursor_uint(&cursor);
    decode_sections(&cursor, flags, &proof);
    if (cursor.failed) {
        hw_proof_release(&proof);
        return hw_fail(err, HW_EPROTOCOL, "answer of %zu bytes ends early", bytes.size);
    }
    if (proof.block.failed || proof.signature.failed || proof.manifest.failed ||
        proof.target_nodes.buffer.failed || proof.seek_nodes.buffer.failed ||
        proof.upgrade_nodes.buffer.failed || proof.additional_nodes.buffer.failed) {
        hw_proof_release(&proof);
        return hw_fail(err, HW_ENOMEM, "no memory for an answer of %zu bytes", bytes.size);
    }
    *out = proof;
    return HW_OK;
}
