/*
 * support/proof_server.h - a server of the vectors in proofs.json: it answers as the real one
 *
 * The key is that of the file, so that the answers can be compared byte for byte.
 */
#ifndef SUPPORT_PROOF_SERVER_H
#define SUPPORT_PROOF_SERVER_H

#include "hypercore/core_internal.h"
#include "hypercore/proof.h"
#include "support/json.h"

enum { NODES_MAX = 256, BLOCKS_MAX = 64 };

struct store { /* nodes by index */
    bool has[NODES_MAX];
    struct hw_node nodes[NODES_MAX];
};

enum hw_status store_get(void *ctx, uint64_t index, struct hw_node *out, struct hw_error *err);
void store_put(void *ctx, const struct hw_node *node);
void store_cut(struct store *store, uint64_t length); /* what a truncation leaves */

struct server {
    struct store store;
    struct hw_roots roots;
    uint64_t fork;
    uint8_t *blocks[BLOCKS_MAX]; /* owned */
    size_t sizes[BLOCKS_MAX];
    struct hw_authority authority;
    uint8_t secret_key[HW_SECRET_KEY_SIZE];
    uint8_t *manifest; /* owned; NULL: compat */
    size_t manifest_size;
};

void server_load(const struct json *file, const struct json *at, struct server *server);
void server_append(struct server *server, uint8_t *block, size_t size); /* the block is moved */
void server_release(struct server *server);
enum hw_status server_answer(struct server *server, const struct hw_proof_request *request,
                             struct hw_proof *out);
/* A step that is no request: append, truncate. */
void server_step(struct server *server, const struct json *step);
/* The request of a step, as it goes over the wire, and back. */
void server_request(const struct json *step, struct hw_proof_request *out);

#endif
