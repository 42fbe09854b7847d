/* Requests and answers of a peer: decoding, answering any request, checking any answer. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "hypercore/proof.h"

enum { LENGTH = 21, NODES = 2 * LENGTH };

struct tree {
    bool has[NODES];
    struct hw_node nodes[NODES];
    struct hw_roots roots;
};

static enum hw_status get(void *ctx, uint64_t index, struct hw_node *out, struct hw_error *err)
{
    const struct tree *tree = ctx;

    (void)err;
    if (index >= NODES || !tree->has[index])
        return HW_ENOTFOUND;
    *out = tree->nodes[index];
    return HW_OK;
}

static void put(void *ctx, const struct hw_node *node)
{
    struct tree *tree = ctx;

    tree->has[node->index] = true;
    tree->nodes[node->index] = *node;
}

static void build(struct tree *tree)
{
    *tree = (struct tree){.roots = {.length = 0}};
    for (uint8_t i = 0; i < LENGTH; i++) {
        struct hw_node leaf;

        hw_node_leaf(i, (struct hw_slice){&i, 1}, &leaf);
        put(tree, &leaf);
        hw_roots_push(&tree->roots, &leaf, put, tree);
    }
}

static void answer(struct tree *tree, struct hw_slice bytes)
{
    struct hw_proof_server server = {.length = LENGTH, .source = {get, tree}};
    struct hw_proof_request request;
    struct hw_proof proof = {0};

    if (hw_proof_request_decode(bytes, &request, NULL) != HW_OK)
        return;
    server.prologue_length = request.id % 4; /* with and without */
    if (hw_proof_make(&request, &server, &proof, NULL) == HW_OK &&
        hw_nodes_count(&proof.target_nodes) > 64)
        abort();
    hw_proof_release(&proof);
}

static void check(struct tree *tree, struct hw_slice bytes)
{
    struct hw_proof_reader reader = {.roots = tree->roots, .source = {get, tree}};
    struct hw_proof_outcome outcome = {.is_upgrade = false};
    struct hw_reorg reorg = {.is_done = false};
    struct hw_proof proof = {0};

    if (hw_proof_decode(bytes, &proof, NULL) != HW_OK)
        return;
    if (hw_proof_check(&reader, &proof, &outcome, NULL) == HW_OK && outcome.is_upgrade)
        abort(); /* nobody signs by chance */
    hw_proof_outcome_release(&outcome);
    if (hw_reorg_begin(&reader, &proof, &reorg, NULL) == HW_OK)
        abort();
    reorg.fork = proof.fork; /* as if the new fork had the roots of the tree */
    for (unsigned i = 0; i < tree->roots.count; i++)
        hw_nodes_add(&reorg.nodes, &tree->roots.nodes[i]);
    reorg.difference = tree->roots.nodes[0].index;
    if (hw_reorg_feed(&reader, &reorg, &proof, NULL) == HW_OK && reorg.common > LENGTH)
        abort();
    hw_reorg_release(&reorg);
    hw_proof_release(&proof);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct tree tree;

    if (size == 0)
        return 0;
    if (tree.roots.length == 0)
        build(&tree);
    if (bytes[0] % 2 == 0)
        answer(&tree, (struct hw_slice){bytes + 1, size - 1});
    else
        check(&tree, (struct hw_slice){bytes + 1, size - 1});
    return 0;
}
