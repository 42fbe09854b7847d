/* Implements accept, reorg and what is asked for of hypercore/mirror.h. */
#include <string.h>

#include "hypercore/mirror_internal.h"

enum hw_status hw_core_reader(struct hw_core *core, struct hw_proof_reader *out,
                              struct hw_error *err)
{
    if (core->mirror == NULL)
        return hw_fail(err, HW_EMISUSE, "%s: only a mirror checks proofs", core->dir);
    *out = (struct hw_proof_reader){
        .fork = core->fork,
        .roots = core->roots,
        .source = {hw_mirror_node_any, core},
        .authority = core->mirror->has_authority ? &core->mirror->authority : NULL,
    };
    memcpy(out->key, core->identity.key, HW_HASH_SIZE);
    return HW_OK;
}

/* --------------------------------------------------------------------------- what to ask for */

static bool is_root(const struct hw_roots *roots, uint64_t index)
{
    for (unsigned i = 0; i < roots->count; i++) {
        if (roots->nodes[i].index == index)
            return true;
    }
    return false;
}

static enum hw_status is_held(struct hw_core *core, uint64_t index, bool proven, bool *out,
                              struct hw_error *err)
{
    struct hw_node node;
    enum hw_status status = proven ? hw_mirror_node_proven(core, index, &node, err)
                                   : hw_mirror_node_any(core, index, &node, err);

    *out = status == HW_OK;
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_core_missing_nodes(struct hw_core *core, uint64_t index, uint64_t *out,
                                     struct hw_error *err)
{
    uint64_t level = 0, answer = 0;
    bool found = false;

    if (core->mirror == NULL)
        return hw_fail(err, HW_EMISUSE, "%s: only a mirror misses nodes", core->dir);
    *out = 0;
    if (hw_flat_right_span(index) >= 2 * core->roots.length)
        return HW_OK; /* the upgrade will prove it */
    /*
     * The lowest node that is held would do to prove it.  But a block needs its place, and so the
     * sizes of all that lies left of it; a crash may have taken one of those above.
     */
    for (uint64_t at = index;; at = hw_flat_parent(at), level++) {
        bool held = true, left_held = true;
        enum hw_status status = HW_OK;

        if (!found)
            status = is_held(core, at, false, &held, err);
        if (status != HW_OK)
            return status;
        if (!found && held) {
            found = true;
            answer = level;
        }
        if (is_root(&core->roots, at))
            break;
        if (index % 2 == 0 && hw_flat_offset(at) % 2 == 1)
            status = is_held(core, hw_flat_sibling(at), true, &left_held, err);
        if (status != HW_OK)
            return status;
        found = found && left_held;
    }
    *out = found ? answer : level; /* a root is always held */
    return HW_OK;
}

/* -------------------------------------------------------------------------------- accept */

static void doubt_pair(struct hw_mirror_doubt *doubt, const struct hw_nodes *nodes)
{
    uint64_t first = hw_nodes_at(nodes, 0)->index;

    doubt->indices[doubt->count++] = first;
    if (hw_nodes_count(nodes) > 1)
        doubt->indices[doubt->count++] = hw_flat_sibling(first);
}

/*
 * From data a leaf follows, and from a hash the sum of the sizes below: only where a proof begins
 * with a node, that one and its sibling may have shares of the sum that are not theirs.
 */
static struct hw_mirror_doubt doubt_of(const struct hw_proof *proof)
{
    struct hw_mirror_doubt doubt = {.count = 0};
    bool has_target = proof->has_hash && !proof->has_block;

    if (has_target && hw_nodes_count(&proof->target_nodes) > 0) {
        doubt_pair(&doubt, &proof->target_nodes);
        if (hw_nodes_count(&proof->seek_nodes) > 0 && doubt.count == 1)
            doubt.indices[doubt.count++] = hw_flat_sibling(doubt.indices[0]);
    }
    if (hw_nodes_count(&proof->seek_nodes) > (proof->has_block ? 1 : 0))
        doubt_pair(&doubt, &proof->seek_nodes);
    return doubt;
}

static enum hw_status check_limits(const struct hw_core *core, const struct hw_proof *proof,
                                   const struct hw_proof_outcome *outcome, struct hw_error *err)
{
    if (proof->block.size > HW_BLOCK_SIZE_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: a block of %zu bytes, %d are taken", core->dir,
                       proof->block.size, HW_BLOCK_SIZE_MAX);
    if (outcome->is_upgrade && proof->signature.size > HW_MIRROR_SIGNATURE_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: a signature of %zu bytes, %d are taken", core->dir,
                       proof->signature.size, HW_MIRROR_SIGNATURE_MAX);
    if (proof->manifest.size > HW_MIRROR_MANIFEST_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: a manifest of %zu bytes, %d are taken", core->dir,
                       proof->manifest.size, HW_MIRROR_MANIFEST_MAX);
    if (proof->has_block && proof->block_index >= outcome->roots.length)
        return hw_fail(err, HW_EPROOF, "%s: block %llu is beyond the log", core->dir,
                       (unsigned long long)proof->block_index);
    return HW_OK;
}

/* Who signs is known from now on, also after a crash: the head that follows depends on it. */
static enum hw_status store_authority(struct hw_core *core, struct hw_slice manifest,
                                      struct hw_error *err)
{
    enum hw_status status = hw_mirror_set_authority(core, manifest, err);

    if (status == HW_OK)
        status = hw_mirror_write_info(core, err);
    if (status != HW_OK)
        core->mirror->has_authority = false; /* to be learnt again */
    return status;
}

/* *stored: it is held now, and was not before. */
static enum hw_status store_block(struct hw_core *core, const struct hw_proof *proof, bool *stored,
                                  struct hw_error *err)
{
    uint64_t index = proof->block_index, start = 0;
    bool held = false;
    enum hw_status status = HW_OK;

    if (index < core->roots.length)
        status = hw_mirror_bit(core, index, &held, err);
    if (status != HW_OK || held)
        return status;
    status = hw_mirror_block_start(core, index, &start, err);
    if (status == HW_ENOTFOUND)
        return HW_OK; /* a crash took nodes: hw_core_missing_nodes() says how many to ask for */
    if (status == HW_OK)
        status = hw_mirror_write_data(
            core, start, (struct hw_slice){proof->block.bytes, proof->block.size}, err);
    if (status == HW_OK)
        status = hw_mirror_set_bit(core, index, true, err);
    if (status == HW_OK)
        hw_mirror_tail_block(core, index, start,
                             (struct hw_slice){proof->block.bytes, proof->block.size});
    *stored = status == HW_OK;
    return status;
}

static enum hw_status store(struct hw_core *core, const struct hw_proof *proof,
                            const struct hw_proof_outcome *outcome, struct hw_accepted *out,
                            struct hw_error *err)
{
    struct hw_accepted accepted = {.block = proof->block_index};
    struct hw_mirror_doubt doubt = doubt_of(proof);
    enum hw_status status = check_limits(core, proof, outcome, err);

    if (status == HW_OK && outcome->has_authority) {
        status = store_authority(
            core, (struct hw_slice){proof->manifest.bytes, proof->manifest.size}, err);
        accepted.has_manifest = status == HW_OK && proof->has_manifest;
    }
    if (status == HW_OK)
        status = hw_mirror_put_nodes(core, &outcome->nodes, &doubt, err);
    if (status == HW_OK && proof->has_block)
        status = store_block(core, proof, &accepted.has_block, err);
    if (status == HW_OK && outcome->is_upgrade) {
        status = hw_mirror_write_head(
            core, core->fork, &outcome->roots,
            (struct hw_slice){proof->signature.bytes, proof->signature.size}, err);
        accepted.has_upgrade = status == HW_OK;
    }
    if (status == HW_OK)
        *out = accepted;
    else
        hw_mirror_tail_spoil(core); /* nobody knows how much of it was stored */
    return status;
}

/*
 * Roots are known from the head, and after a crash perhaps from there alone.  Those that a longer
 * tree has below its own are needed in their place from now on.
 */
static enum hw_status keep_roots(const struct hw_core *core, struct hw_proof_outcome *outcome,
                                 struct hw_error *err)
{
    for (unsigned i = 0; i < core->roots.count && outcome->is_upgrade; i++)
        if (!is_root(&outcome->roots, core->roots.nodes[i].index))
            hw_nodes_add(&outcome->nodes, &core->roots.nodes[i]);
    if (outcome->nodes.buffer.failed)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the nodes of an upgrade", core->dir);
    return HW_OK;
}

enum hw_status hw_core_accept(struct hw_core *core, const struct hw_proof *proof,
                              struct hw_accepted *out, struct hw_error *err)
{
    struct hw_proof_outcome outcome = {.is_upgrade = false};
    struct hw_proof_reader reader;
    enum hw_status status = hw_mirror_check_writable(core, err);

    if (status == HW_OK)
        status = hw_core_reader(core, &reader, err);
    if (status != HW_OK)
        return status;
    if (proof->fork < core->fork) { /* it was on its way when we took over the newer one */
        *out = (struct hw_accepted){.has_block = false};
        return HW_OK;
    }
    status = hw_proof_check(&reader, proof, &outcome, err);
    if (status == HW_OK)
        status = keep_roots(core, &outcome, err);
    if (status == HW_OK)
        status = store(core, proof, &outcome, out, err);
    hw_proof_outcome_release(&outcome);
    return status;
}

/* ----------------------------------------------------------------------------- once more */

static enum hw_status store_node_again(struct hw_core *core, uint64_t index, struct hw_error *err)
{
    struct hw_mirror_cached item = {.is_held = true};
    enum hw_status status = hw_mirror_node(core, index, &item.node, &item.is_proven, err);

    if (status == HW_ENOTFOUND)
        return HW_OK;
    return status == HW_OK ? hw_mirror_write_nodes(core, &item, 1, err) : status;
}

static enum hw_status store_bit_again(struct hw_core *core, uint64_t block, struct hw_error *err)
{
    uint8_t byte = 0;
    enum hw_status status = hw_mirror_read_bits(core, block / 8, 1, &byte, err);

    return status == HW_OK ? hw_mirror_write_bits(core, block / 8, &byte, 1, err) : status;
}

enum hw_status hw_core_store_again(struct hw_core *core, uint64_t block, struct hw_slice data,
                                   struct hw_error *err)
{
    uint64_t start = 0;
    enum hw_status status = hw_mirror_check_writable(core, err);

    if (status == HW_OK)
        status = hw_mirror_block_start(core, block, &start, err);
    if (status == HW_OK)
        status = hw_mirror_write_data(core, start, data, err);
    if (status == HW_OK)
        status = store_bit_again(core, block, err);
    for (uint64_t at = 2 * block; status == HW_OK && !is_root(&core->roots, at);
         at = hw_flat_parent(at)) {
        status = store_node_again(core, at, err);
        if (status == HW_OK)
            status = store_node_again(core, hw_flat_sibling(at), err);
    }
    hw_mirror_tail_spoil(core); /* all of it goes with the next sync of everything */
    return status;
}

/* ----------------------------------------------------------------------------- other forks */

enum { SURE_MAX = 2048 }; /* nodes of a new fork that are looked at; more are all doubted */

/* Do `one` and `other` make this very node? */
static bool makes(const struct hw_node *one, const struct hw_node *other,
                  const struct hw_node *parent)
{
    struct hw_node made;

    if (one->size > UINT64_MAX - other->size)
        return false;
    hw_node_parent(one, other, &made);
    return made.index == parent->index && made.size == parent->size &&
           memcmp(made.hash, parent->hash, HW_HASH_SIZE) == 0;
}

/* A parent's hash binds its size. */
static bool has_children(const struct hw_nodes *nodes, const struct hw_node *node)
{
    const struct hw_node *left, *right;

    if (node->index % 2 == 0)
        return false;
    left = hw_nodes_find(nodes, hw_flat_left_child(node->index));
    right = hw_nodes_find(nodes, hw_flat_right_child(node->index));
    return left != NULL && right != NULL && makes(left, right, node);
}

/*
 * Is the size of this node of a new fork, which hashes to its roots, proven?  That of a root is
 * signed, that of a parent follows from its hash, and that of its sibling from the one above.
 */
static bool is_sure(const struct hw_reorg *reorg, const struct hw_node *node)
{
    const struct hw_node *sibling, *parent;

    for (unsigned i = 0; i < reorg->roots.count; i++) {
        if (reorg->roots.nodes[i].index == node->index)
            return reorg->roots.nodes[i].size == node->size;
    }
    if (has_children(&reorg->nodes, node))
        return true;
    sibling = hw_nodes_find(&reorg->nodes, hw_flat_sibling(node->index));
    parent = hw_nodes_find(&reorg->nodes, hw_flat_parent(node->index));
    return sibling != NULL && parent != NULL && has_children(&reorg->nodes, sibling) &&
           makes(node, sibling, parent);
}

/* Those whose size may be wrong are asked for again before others are served by them. */
static enum hw_status put_fork(struct hw_core *core, const struct hw_reorg *reorg,
                               struct hw_error *err)
{
    static const struct hw_mirror_doubt all = {.all = true}, none = {.all = false};
    size_t count = hw_nodes_count(&reorg->nodes);
    struct hw_nodes sure = {0}, doubted = {0};
    enum hw_status status = HW_OK;

    for (size_t i = 0; i < count; i++) {
        const struct hw_node *node = hw_nodes_at(&reorg->nodes, i);

        hw_nodes_add(count <= SURE_MAX && is_sure(reorg, node) ? &sure : &doubted, node);
    }
    if (sure.buffer.failed || doubted.buffer.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for the nodes of a fork", core->dir);
    if (status == HW_OK)
        status = hw_mirror_put_nodes(core, &doubted, &all, err);
    if (status == HW_OK)
        status = hw_mirror_put_nodes(core, &sure, &none, err);
    hw_nodes_release(&sure);
    hw_nodes_release(&doubted);
    return status;
}

enum hw_status hw_core_reorg(struct hw_core *core, const struct hw_reorg *reorg,
                             struct hw_slice signature, struct hw_slice manifest,
                             struct hw_error *err)
{
    uint64_t common;
    enum hw_status status = hw_mirror_check_writable(core, err);

    if (status != HW_OK)
        return status;
    if (!reorg->is_done || reorg->fork <= core->fork)
        return hw_fail(err, HW_EMISUSE, "%s: fork %llu is not yet to be taken over", core->dir,
                       (unsigned long long)reorg->fork);
    if (signature.size > HW_MIRROR_SIGNATURE_MAX || manifest.size > HW_MIRROR_MANIFEST_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: a signature or manifest too large", core->dir);
    common = reorg->common < core->roots.length ? reorg->common : core->roots.length;
    if (reorg->has_authority)
        status = store_authority(core, manifest, err);
    /*
     * A node of the old fork under the new head would be a lie: they are gone for sure before the
     * head comes.  After a crash between, the old fork has fewer nodes and blocks.
     */
    if (status == HW_OK)
        status = hw_mirror_tail_retire(core, err);
    if (status == HW_OK)
        status = hw_mirror_cut_bits(core, common, err);
    if (status == HW_OK)
        status = hw_mirror_cut_nodes(core, common, err);
    if (status == HW_OK)
        status = hw_mirror_sync_files(core, err);
    if (status == HW_OK)
        status = hw_mirror_write_head(core, reorg->fork, &reorg->roots, signature, err);
    if (status == HW_OK)
        status = hw_mirror_sync_files(core, err);
    if (status == HW_OK) /* what finds no room now is asked for again */
        (void)put_fork(core, reorg, NULL);
    return status;
}
