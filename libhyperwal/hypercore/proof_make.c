/* Implements the answer of hypercore/proof.h. */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

struct make {
    const struct hw_proof_request *request;
    const struct hw_proof_server *server;
    struct hw_proof *proof;
    struct hw_error *err;
    uint64_t from, to; /* heads, as flat indices: what the reader has, what it asked for */
    bool has_target;   /* block or hash */
    uint64_t target;   /* flat index */
    bool target_done, seek_done; /* proven already */
};

static enum hw_status refuse(struct make *make, const char *why)
{
    return hw_fail(make->err, HW_EPROTOCOL, "request refused: %s", why);
}

static enum hw_status get(struct make *make, uint64_t index, struct hw_node *out)
{
    return make->server->source.get(make->server->source.ctx, index, out, make->err);
}

static enum hw_status push(struct make *make, uint64_t index, struct hw_nodes *nodes)
{
    struct hw_node node;
    enum hw_status status = get(make, index, &node);

    if (status != HW_OK)
        return status;
    hw_nodes_add(nodes, &node);
    if (nodes->buffer.failed)
        return hw_fail(make->err, HW_ENOMEM, "no memory for a proof");
    return HW_OK;
}

/* From the seek's mark up to `root`. */
static enum hw_status prove_seek(struct make *make, uint64_t mark, uint64_t root)
{
    enum hw_status status = push(make, mark, &make->proof->seek_nodes);

    make->seek_done = true;
    make->proof->has_seek = true;
    make->proof->seek_bytes = make->request->seek_bytes;
    for (uint64_t at = mark; at != root && status == HW_OK; at = hw_flat_parent(at))
        status = push(make, hw_flat_sibling(at), &make->proof->seek_nodes);
    return status;
}

/* From the target, or the mark if there is none, up to `root`.  `mark`: UINT64_MAX is none. */
static enum hw_status prove_target(struct make *make, uint64_t mark, uint64_t root)
{
    enum hw_status status = HW_OK;

    if (!make->has_target)
        return prove_seek(make, mark, root);
    make->target_done = true;
    if (!make->request->has_block)
        status = push(make, make->target, &make->proof->target_nodes);
    for (uint64_t at = make->target; at != root && status == HW_OK; at = hw_flat_parent(at)) {
        uint64_t sibling = hw_flat_sibling(at);

        if (make->request->has_seek && mark != sibling && hw_flat_contains(sibling, mark))
            status = prove_seek(make, mark, sibling);
        else
            status = push(make, sibling, &make->proof->target_nodes);
    }
    return status;
}

/* ----------------------------------------------------------------------------------- seek */

/* Bytes below a node, each block counted shorter by the padding. */
static uint64_t unpadded(const struct make *make, const struct hw_node *node)
{
    uint64_t leaves = hw_flat_leaves(node->index), padding = make->request->seek_padding;

    if (padding > 0 && leaves > node->size / padding)
        return 0;
    return node->size - padding * leaves;
}

/* The node below `root` at which byte `bytes` of it begins, or that holds it. */
static enum hw_status seek_below(struct make *make, uint64_t root, uint64_t bytes, uint64_t *out)
{
    uint64_t at = root;

    while (bytes > 0 && at % 2 == 1) {
        struct hw_node left;
        enum hw_status status = get(make, hw_flat_left_child(at), &left);
        uint64_t size;

        if (status == HW_ENOTFOUND)
            break;
        if (status != HW_OK)
            return status;
        size = unpadded(make, &left);
        at = left.index;
        if (size == bytes)
            break;
        if (size < bytes) {
            bytes -= size;
            at = hw_flat_sibling(at);
        }
    }
    *out = at;
    return HW_OK;
}

/* The mark of a seek that comes with an upgrade; UINT64_MAX: beyond the end. */
static enum hw_status seek_from_head(struct make *make, uint64_t *out)
{
    uint64_t roots[HW_TREE_ROOTS_MAX], bytes = make->request->seek_bytes;
    unsigned count = hw_flat_full_roots(make->to / 2, roots);

    *out = UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        struct hw_node root;
        enum hw_status status = get(make, roots[i], &root);
        uint64_t size;

        if (status != HW_OK)
            return status;
        size = unpadded(make, &root);
        if (bytes == size) {
            *out = root.index;
            return HW_OK;
        }
        if (bytes < size)
            return seek_below(make, root.index, bytes, out);
        bytes -= size;
    }
    return HW_OK;
}

/* The mark of a seek inside the subtree `root` of a block or hash. */
static enum hw_status seek_in_subtree(struct make *make, uint64_t root, uint64_t *out)
{
    uint64_t roots[HW_TREE_ROOTS_MAX], bytes = make->request->seek_bytes, before = 0;
    unsigned count = hw_flat_full_roots(hw_flat_left_span(root) / 2, roots);
    struct hw_node node;
    enum hw_status status;

    for (unsigned i = 0; i < count; i++) { /* what lies left of it */
        status = get(make, roots[i], &node);
        if (status != HW_OK)
            return status;
        before += unpadded(make, &node);
    }
    status = get(make, root, &node);
    if (status != HW_OK)
        return status;
    if (bytes < before || bytes - before > unpadded(make, &node))
        return refuse(make, "the byte sought is not below the node");
    return seek_below(make, root, bytes - before, out);
}

/* -------------------------------------------------------------------------------- upgrade */

/* A node of the way up: itself, or what proves the target below it (`mark` with has_seek). */
static enum hw_status upgrade_node(struct make *make, uint64_t index, uint64_t target,
                                   struct hw_nodes *nodes)
{
    if (target != UINT64_MAX && !make->target_done && !make->seek_done &&
        hw_flat_contains(index, target))
        return prove_target(make, target, index);
    return push(make, index, nodes);
}

/* From a tree with head `from` to one with head `to`. */
static enum hw_status prove_upgrade(struct make *make, uint64_t from, uint64_t to, uint64_t target,
                                    struct hw_nodes *nodes)
{
    uint64_t roots[HW_TREE_ROOTS_MAX];
    unsigned count = hw_flat_full_roots(to / 2, roots);
    bool grown = from == 0;
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < count && status == HW_OK; i++) {
        uint64_t root = roots[i];

        if (hw_flat_right_span(root) < from)
            continue; /* the reader has it */
        if (grown || !hw_flat_contains(root, from - 2)) {
            status = upgrade_node(make, root, target, nodes);
            continue;
        }
        grown = true;
        for (uint64_t at = from - 2; at != root && status == HW_OK; at = hw_flat_parent(at)) {
            if (hw_flat_sibling(at) > from - 2)
                status = upgrade_node(make, hw_flat_sibling(at), target, nodes);
        }
    }
    return status;
}

/* ----------------------------------------------------------------------------------- make */

static enum hw_status check_request(struct make *make)
{
    const struct hw_proof_request *request = make->request;
    uint64_t start = request->upgrade_start, length = request->upgrade_length;

    make->to = 2 * make->server->length;
    if (request->has_upgrade) {
        if (start < make->server->prologue_length) {
            start = 0;
            length = make->server->prologue_length;
        }
        if (length == 0 || start > make->server->length || length > make->server->length - start)
            return refuse(make, "an upgrade beyond the log");
        make->from = 2 * start;
        make->to = make->from + 2 * length;
        make->proof->upgrade_start = start;
        make->proof->upgrade_length = length;
    }
    make->has_target = request->has_block || request->has_hash;
    if (request->has_block ? request->block_index >= HW_TREE_LENGTH_MAX
                           : request->has_hash && request->hash_index >= 2 * HW_TREE_LENGTH_MAX)
        return refuse(make, "a block beyond any log");
    make->target = request->has_block ? 2 * request->block_index : request->hash_index;
    if (make->has_target && request->has_seek && request->has_upgrade && make->target >= make->from)
        return refuse(make, "a seek together with a block of the upgrade");
    if (make->has_target && hw_flat_right_span(make->target) >= make->to)
        return refuse(make, "a block beyond the log");
    return HW_OK;
}

/* The target lies in what the reader has: up to the node that it said it holds. */
static enum hw_status prove_below(struct make *make)
{
    uint64_t levels =
        make->request->has_block ? make->request->block_nodes : make->request->hash_nodes;
    uint64_t root = make->target, mark = UINT64_MAX;
    enum hw_status status;

    for (; levels > 0; levels--) {
        root = hw_flat_parent(root);
        if (hw_flat_contains(root, make->to))
            return refuse(make, "more nodes than the log has levels");
    }
    if (make->request->has_seek) {
        status = seek_in_subtree(make, root, &mark);
        if (status != HW_OK)
            return status;
    }
    return prove_target(make, mark, root);
}

static enum hw_status make_sections(struct make *make)
{
    const struct hw_proof_request *request = make->request;
    struct hw_proof *proof = make->proof;
    uint64_t target = UINT64_MAX;
    enum hw_status status = check_request(make);

    if (status != HW_OK)
        return status;
    if (make->has_target &&
        (!request->has_upgrade || hw_flat_right_span(make->target) < make->from)) {
        status = prove_below(make);
    } else if (request->has_upgrade && request->has_seek) {
        status = seek_from_head(make, &target);
    } else if (make->has_target) {
        target = make->target;
    }
    if (status == HW_OK && request->has_upgrade) {
        proof->has_upgrade = true;
        status = prove_upgrade(make, make->from, make->to, target, &proof->upgrade_nodes);
        if (status == HW_OK && make->to < 2 * make->server->length)
            status = prove_upgrade(make, make->to, 2 * make->server->length, UINT64_MAX,
                                   &proof->additional_nodes);
    }
    proof->has_block = request->has_block;
    proof->block_index = request->block_index;
    proof->has_hash = request->has_hash && !request->has_block;
    proof->hash_index = request->hash_index;
    return status;
}

enum hw_status hw_proof_make(const struct hw_proof_request *request,
                             const struct hw_proof_server *server, struct hw_proof *out,
                             struct hw_error *err)
{
    struct hw_proof proof = {.id = request->id, .fork = server->fork};
    struct make make = {.request = request, .server = server, .proof = &proof, .err = err};
    enum hw_status status = HW_OK;

    /* An empty log has nothing to prove; whoever asked learns that, and the manifest. */
    if (server->length > 0)
        status = make_sections(&make);
    if (status != HW_OK) {
        hw_proof_release(&proof);
        return status;
    }
    *out = proof;
    return HW_OK;
}

/* --------------------------------------------------------------------------- a log we hold */

/* What is read ahead for one answer, and good no longer. */
struct core_nodes {
    struct hw_core *core;
    struct hw_slots_ahead ahead;
};

static enum hw_status core_node(void *ctx, uint64_t index, struct hw_node *out,
                                struct hw_error *err)
{
    struct core_nodes *nodes = ctx;
    struct hw_core *core = nodes->core;

    if (core->mirror != NULL)
        return hw_mirror_node_proven(core, index, out, err);
    if (hw_flat_right_span(index) >= 2 * core->roots.length)
        return hw_fail(err, HW_ENOTFOUND, "%s: node %llu is beyond the log", core->dir,
                       (unsigned long long)index);
    return hw_tree_file_node_ahead(&core->tree, index, core->roots.length, &nodes->ahead, out, err);
}

/* As we made it, or as it was received. */
static void add_signature(const struct hw_core *core, struct hw_buffer *out)
{
    uint8_t envelope[HW_ENVELOPE_SIZE];

    if (core->mirror != NULL) {
        hw_buffer_add(out, core->mirror->signature.bytes, core->mirror->signature.size);
        return;
    }
    hw_envelope_of_one(core->signature, envelope);
    hw_buffer_add(out, envelope, sizeof(envelope));
}

static uint64_t prologue_length(const struct hw_core *core)
{
    const struct hw_core_mirror *mirror = core->mirror;

    return mirror != NULL && mirror->has_authority && mirror->authority.manifest.has_prologue
               ? mirror->authority.manifest.prologue_length
               : 0;
}

enum hw_status hw_core_prove(struct hw_core *core, const struct hw_proof_request *request,
                             struct hw_proof *out, struct hw_error *err)
{
    struct core_nodes nodes;
    struct hw_proof_server server = {.length = core->roots.length,
                                     .fork = core->fork,
                                     .prologue_length = prologue_length(core),
                                     .source = {core_node, &nodes}};
    struct hw_proof proof = {0};
    enum hw_status status;

    nodes.core = core;
    nodes.ahead.count = 0;
    if (request->fork != core->fork)
        return hw_fail(err, HW_EFORK, "request about fork %llu of a log at %llu",
                       (unsigned long long)request->fork, (unsigned long long)core->fork);
    status = hw_proof_make(request, &server, &proof, err);
    if (status == HW_ENOTFOUND && core->mirror != NULL)
        return hw_prefix(err, HW_EMISSING, "not enough of the tree");
    if (status == HW_OK && proof.has_block)
        status = hw_core_read(core, proof.block_index, &proof.block, err);
    if (status == HW_OK && proof.has_upgrade)
        add_signature(core, &proof.signature);
    if (status == HW_OK && request->wants_manifest) {
        status = hw_core_manifest(core, &proof.manifest, err);
        proof.has_manifest = proof.manifest.size > 0;
    }
    if (status == HW_OK && proof.signature.failed)
        status = hw_fail(err, HW_ENOMEM, "no memory for a proof");
    if (status != HW_OK) {
        hw_proof_release(&proof);
        return status;
    }
    *out = proof;
    return HW_OK;
}
