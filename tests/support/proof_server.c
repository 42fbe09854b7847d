/* Implements support/proof_server.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/proof_server.h"

enum hw_status store_get(void *ctx, uint64_t index, struct hw_node *out, struct hw_error *err)
{
    const struct store *store = ctx;

    (void)err;
    if (index >= NODES_MAX || !store->has[index])
        return HW_ENOTFOUND;
    *out = store->nodes[index];
    return HW_OK;
}

void store_put(void *ctx, const struct hw_node *node)
{
    struct store *store = ctx;

    if (node->index < NODES_MAX) {
        store->has[node->index] = true;
        store->nodes[node->index] = *node;
    }
}

/* What a truncation to `length` blocks leaves. */
void store_cut(struct store *store, uint64_t length)
{
    for (uint64_t i = 0; i < NODES_MAX; i++) {
        if (hw_flat_right_span(i) >= 2 * length)
            store->has[i] = false;
    }
}

static void load_key(const struct json *file, struct server *server)
{
    uint8_t seed[HW_SEED_SIZE], public_key[HW_PUBLIC_KEY_SIZE], expected[HW_PUBLIC_KEY_SIZE];

    memset(seed, 1, sizeof(seed));
    hw_key_pair_from_seed(seed, public_key, server->secret_key);
    json_hex_fixed(json_get(file, "signerPublicKey"), expected, sizeof(expected));
    assert_memory_equal(public_key, expected, sizeof(expected));
}

void server_load(const struct json *file, const struct json *at, struct server *server)
{
    const struct json *manifest = json_find(at, "manifest");

    *server = (struct server){.fork = 0};
    load_key(file, server);
    json_hex_fixed(json_get(at, "key"), server->authority.key, HW_HASH_SIZE);
    server->authority.is_compat = manifest == NULL;
    if (manifest == NULL)
        return;
    server->manifest = json_hex(manifest, &server->manifest_size);
    assert_int_equal(hw_manifest_decode((struct hw_slice){server->manifest, server->manifest_size},
                                        &server->authority.manifest, NULL),
                     HW_OK);
}

void server_append(struct server *server, uint8_t *block, size_t size)
{
    uint64_t i = server->roots.length;
    struct hw_node leaf;

    assert_true(i < BLOCKS_MAX);
    free(server->blocks[i]);
    server->blocks[i] = block; /* moved */
    server->sizes[i] = size;
    hw_node_leaf(i, (struct hw_slice){block, size}, &leaf);
    store_put(&server->store, &leaf);
    hw_roots_push(&server->roots, &leaf, store_put, &server->store);
}

static void server_truncate(struct server *server, uint64_t length)
{
    struct hw_roots roots = {0};

    store_cut(&server->store, length);
    for (uint64_t i = 0; i < length; i++) {
        struct hw_node leaf;

        hw_node_leaf(i, (struct hw_slice){server->blocks[i], server->sizes[i]}, &leaf);
        hw_roots_push(&roots, &leaf, NULL, NULL);
    }
    server->roots = roots;
}

void server_release(struct server *server)
{
    for (size_t i = 0; i < BLOCKS_MAX; i++)
        free(server->blocks[i]);
    free(server->manifest);
}

/* The signature of the server's tree as it stands in an upgrade. */
static void server_sign(const struct server *server, struct hw_buffer *out)
{
    uint8_t tree_hash[HW_HASH_SIZE], signable[HW_SIGNABLE_SIZE], bare[HW_SIGNATURE_SIZE];
    uint8_t envelope[HW_ENVELOPE_SIZE];
    size_t size;

    hw_roots_hash(&server->roots, tree_hash);
    size = hw_signable(server->authority.is_compat ? NULL : server->authority.key, tree_hash,
                       server->roots.length, server->fork, signable);
    hw_sign(server->secret_key, (struct hw_slice){signable, size}, bare);
    hw_envelope_of_one(bare, envelope);
    if (server->authority.is_compat)
        hw_buffer_add(out, bare, sizeof(bare));
    else
        hw_buffer_add(out, envelope, sizeof(envelope));
}

enum hw_status server_answer(struct server *server, const struct hw_proof_request *request,
                             struct hw_proof *out)
{
    const struct hw_manifest *manifest = &server->authority.manifest;
    struct hw_proof_server view = {
        .length = server->roots.length,
        .fork = server->fork,
        .prologue_length = manifest->has_prologue ? manifest->prologue_length : 0,
        .source = {store_get, &server->store},
    };
    enum hw_status status = hw_proof_make(request, &view, out, NULL);

    if (status != HW_OK)
        return status;
    if (out->has_block)
        hw_buffer_add(&out->block, server->blocks[out->block_index],
                      server->sizes[out->block_index]);
    if (out->has_upgrade)
        server_sign(server, &out->signature);
    if (request->wants_manifest && server->manifest != NULL) {
        out->has_manifest = true;
        hw_buffer_add(&out->manifest, server->manifest, server->manifest_size);
    }
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- steps */

void server_step(struct server *server, const struct json *step)
{
    if (strcmp(json_text(step, "do"), "truncate") == 0)
        server_truncate(server, json_integer(step, "length"));
    for (const struct json *block =
             json_find(step, "blocks") == NULL ? NULL : json_get(step, "blocks")->first;
         block != NULL; block = block->next) {
        size_t size;
        uint8_t *bytes = json_hex(block, &size);

        server_append(server, bytes, size);
    }
    server->fork = json_integer(step, "fork");
    assert_int_equal(server->roots.length, json_integer(step, "length"));
}

void server_request(const struct json *step, struct hw_proof_request *out)
{
    size_t size;
    uint8_t *bytes = json_hex(json_get(step, "request_hex"), &size);
    struct hw_buffer encoded = {0};

    assert_int_equal(hw_proof_request_decode((struct hw_slice){bytes, size}, out, NULL), HW_OK);
    hw_proof_request_encode(out, &encoded);
    assert_int_equal(encoded.size, size);
    assert_memory_equal(encoded.bytes, bytes, size);
    for (size_t cut = 0; cut < size; cut++) {
        struct hw_proof_request ignored;

        assert_int_equal(hw_proof_request_decode((struct hw_slice){bytes, cut}, &ignored, NULL),
                         HW_EPROTOCOL);
    }
    hw_buffer_release(&encoded);
    free(bytes);
}
