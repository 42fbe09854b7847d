/* Implements the check of hypercore/proof.h. */
#include <string.h>

#include "hypercore/proof.h"

struct check {
    const struct hw_proof *proof;
    struct hw_nodes *met; /* all nodes, received and computed */
    struct hw_node root;  /* of the subtree of block, hash or seek */
    bool has_root;        /* and it was not used yet */
    size_t next;          /* of the upgrade's nodes */
    struct hw_error *err;
};

static enum hw_status wrong(struct check *check, const char *what, uint64_t index)
{
    return hw_fail(check->err, HW_EPROOF, "proof: %s (node %llu)", what, (unsigned long long)index);
}

static void remember(void *ctx, const struct hw_node *node)
{
    hw_nodes_add(((struct check *)ctx)->met, node);
}

/* --------------------------------------------------------------------- block, hash, seek */

/* Climb from *node to its parent with its sibling.  Sizes that wrap cannot be. */
static enum hw_status climb(struct check *check, struct hw_node *node,
                            const struct hw_node *sibling)
{
    if (sibling->index != hw_flat_sibling(node->index))
        return wrong(check, "a node that does not belong there", sibling->index);
    if (sibling->size > UINT64_MAX - node->size || hw_flat_depth(node->index) > 52)
        return wrong(check, "impossible size", sibling->index);
    remember(check, sibling);
    hw_node_parent(node, sibling, node);
    remember(check, node);
    return HW_OK;
}

static enum hw_status check_seek(struct check *check, struct hw_node *out, bool *has)
{
    const struct hw_nodes *nodes = &check->proof->seek_nodes;
    enum hw_status status = HW_OK;

    *has = hw_nodes_count(nodes) > 0;
    if (!*has)
        return HW_OK;
    *out = *hw_nodes_at(nodes, 0);
    remember(check, out);
    for (size_t i = 1; i < hw_nodes_count(nodes) && status == HW_OK; i++)
        status = climb(check, out, hw_nodes_at(nodes, i));
    return status;
}

static enum hw_status first_node(struct check *check, struct hw_node *out, size_t *used)
{
    const struct hw_proof *proof = check->proof;

    *used = 0;
    if (proof->has_block) {
        if (proof->block_index >= HW_TREE_LENGTH_MAX)
            return wrong(check, "a block beyond any log", proof->block_index);
        hw_node_leaf(proof->block_index, (struct hw_slice){proof->block.bytes, proof->block.size},
                     out);
    } else {
        if (hw_nodes_count(&proof->target_nodes) == 0 ||
            hw_nodes_at(&proof->target_nodes, 0)->index != proof->hash_index)
            return wrong(check, "the hash asked for is not there", proof->hash_index);
        *out = *hw_nodes_at(&proof->target_nodes, 0);
        *used = 1;
    }
    remember(check, out);
    return HW_OK;
}

/* The root of what block, hash and seek prove, if the proof has any of them. */
static enum hw_status check_subtree(struct check *check)
{
    const struct hw_proof *proof = check->proof;
    const struct hw_nodes *nodes = &proof->target_nodes;
    struct hw_node extra = {0};
    bool has_extra = false;
    size_t i;
    enum hw_status status = check_seek(check, &extra, &has_extra);

    if (status != HW_OK)
        return status;
    if (!proof->has_block && !proof->has_hash) {
        check->root = extra;
        check->has_root = has_extra;
        return HW_OK;
    }
    status = first_node(check, &check->root, &i);
    while (status == HW_OK && (i < hw_nodes_count(nodes) || has_extra)) {
        if (has_extra && extra.index == hw_flat_sibling(check->root.index)) {
            has_extra = false;
            status = climb(check, &check->root, &extra);
        } else if (i < hw_nodes_count(nodes)) {
            status = climb(check, &check->root, hw_nodes_at(nodes, i++));
        } else {
            status = wrong(check, "the way from the byte sought does not join", extra.index);
        }
    }
    check->has_root = status == HW_OK;
    return status;
}

/* A root that no upgrade used must be one that the reader holds. */
static enum hw_status check_held(struct check *check, const struct hw_node_source *source)
{
    struct hw_node held;
    enum hw_status status;

    if (!check->has_root)
        return HW_OK;
    status = source->get(source->ctx, check->root.index, &held, check->err);
    if (status == HW_ENOTFOUND)
        return wrong(check, "leads to a node that is not held", check->root.index);
    if (status != HW_OK)
        return status;
    if (memcmp(held.hash, check->root.hash, HW_HASH_SIZE) != 0)
        return wrong(check, "hashes to another node than the one held", check->root.index);
    return HW_OK;
}

/* -------------------------------------------------------------------------------- upgrade */

/* The next node of the way up: what the block or hash proves, or the next of the list. */
static bool take(void *ctx, uint64_t index, struct hw_node *out)
{
    struct check *check = ctx;
    const struct hw_nodes *nodes = &check->proof->upgrade_nodes;

    if (check->has_root && check->root.index == index) {
        check->has_root = false;
        *out = check->root;
        return true;
    }
    if (check->next >= hw_nodes_count(nodes) || hw_nodes_at(nodes, check->next)->index != index)
        return false;
    *out = *hw_nodes_at(nodes, check->next++);
    remember(check, out);
    return true;
}

/* One more root, from the additional nodes. */
static bool push_additional(struct check *check, struct hw_roots *roots, const struct hw_node *node)
{
    if (hw_flat_leaves(node->index) > HW_TREE_LENGTH_MAX - roots->length ||
        node->size > UINT64_MAX - roots->byte_length || roots->count >= HW_TREE_ROOTS_MAX)
        return false;
    remember(check, node);
    hw_roots_push(roots, node, remember, check);
    return true;
}

/* From the tree asked for to the one that was signed. */
static enum hw_status check_additional(struct check *check, struct hw_roots *roots)
{
    const struct hw_nodes *nodes = &check->proof->additional_nodes;
    size_t i = 0;

    if (hw_nodes_count(nodes) > 0 && roots->count == 0)
        return wrong(check, "more nodes behind an empty tree", 0);
    for (; i < hw_nodes_count(nodes); i++) {
        const struct hw_node *node = hw_nodes_at(nodes, i);

        if (node->index != hw_flat_sibling(roots->nodes[roots->count - 1].index))
            break;
        if (!push_additional(check, roots, node))
            return wrong(check, "impossible size", node->index);
    }
    for (; i < hw_nodes_count(nodes); i++) {
        const struct hw_node *node = hw_nodes_at(nodes, i);
        uint64_t at = hw_flat_sibling(roots->nodes[roots->count - 1].index);

        while (at != node->index && at % 2 == 1)
            at = hw_flat_left_child(at);
        if (at != node->index)
            return wrong(check, "a node that does not belong there", node->index);
        if (!push_additional(check, roots, node))
            return wrong(check, "impossible size", node->index);
    }
    return HW_OK;
}

/* A log whose first blocks are fixed: the way must pass through exactly those. */
static enum hw_status check_prologue(struct check *check, const struct hw_authority *authority,
                                     const struct hw_roots *asked)
{
    const struct hw_manifest *manifest = &authority->manifest;
    uint8_t tree_hash[HW_HASH_SIZE];

    if (authority->is_compat || !manifest->has_prologue ||
        check->proof->upgrade_start >= manifest->prologue_length)
        return HW_OK;
    if (check->proof->upgrade_start != 0 || asked->length < manifest->prologue_length)
        return wrong(check, "an upgrade that does not cover the prologue", asked->length);
    if (asked->length > manifest->prologue_length)
        return HW_OK; /* the signature is over it */
    hw_roots_hash(asked, tree_hash);
    if (memcmp(tree_hash, manifest->prologue_hash, HW_HASH_SIZE) != 0)
        return wrong(check, "other blocks than the prologue", asked->length);
    return HW_OK;
}

/* Grow *roots by the proof's upgrade, up to what is signed. */
static enum hw_status check_upgrade(struct check *check, const struct hw_authority *authority,
                                    struct hw_roots *roots)
{
    const struct hw_proof *proof = check->proof;
    struct hw_slice signature = {proof->signature.bytes, proof->signature.size};
    enum hw_status status;

    if (proof->upgrade_start > HW_TREE_LENGTH_MAX ||
        proof->upgrade_length > HW_TREE_LENGTH_MAX - proof->upgrade_start)
        return wrong(check, "an upgrade beyond any log", proof->upgrade_start);
    if (hw_roots_upgrade(roots, proof->upgrade_start + proof->upgrade_length, take, remember,
                         check) != HW_OK)
        return wrong(check, "nodes of the upgrade are missing or in disorder", roots->length);
    status = check_prologue(check, authority, roots);
    if (status == HW_OK)
        status = check_additional(check, roots);
    if (status == HW_OK)
        status = hw_authority_check(authority, roots, proof->fork, signature, check->err);
    return status;
}

/* Who signs: what the reader knows, or what came along and hashes to the key. */
static enum hw_status find_authority(const struct hw_proof_reader *reader,
                                     const struct hw_proof *proof, struct hw_authority *out,
                                     bool *is_new, struct hw_error *err)
{
    struct hw_slice manifest = {proof->manifest.bytes, proof->manifest.size};
    uint8_t key[HW_HASH_SIZE];
    enum hw_status status;

    *is_new = false;
    if (proof->has_manifest) {
        hw_manifest_key(manifest, key);
        if (memcmp(key, reader->key, sizeof(key)) != 0)
            return hw_fail(err, HW_EPROOF, "proof: the manifest is not that of the key");
    }
    if (reader->authority != NULL) {
        *out = *reader->authority;
        return HW_OK;
    }
    *out = (struct hw_authority){.is_compat = !proof->has_manifest};
    memcpy(out->key, reader->key, HW_HASH_SIZE);
    *is_new = proof->has_manifest || proof->has_upgrade;
    if (!proof->has_manifest)
        return HW_OK; /* the signature tells whether the key is the signer's */
    status = hw_manifest_decode(manifest, &out->manifest, err);
    return status == HW_EPROTOCOL ? HW_EPROOF : status;
}

void hw_proof_outcome_release(struct hw_proof_outcome *outcome)
{
    hw_nodes_release(&outcome->nodes);
    *outcome = (struct hw_proof_outcome){0};
}

enum hw_status hw_proof_check(const struct hw_proof_reader *reader, const struct hw_proof *proof,
                              struct hw_proof_outcome *out, struct hw_error *err)
{
    struct hw_proof_outcome outcome = {.roots = reader->roots};
    struct check check = {.proof = proof, .met = &outcome.nodes, .err = err};
    enum hw_status status;

    if (proof->fork != reader->fork)
        return hw_fail(err, HW_EFORK, "proof: of fork %llu, the copy is of %llu",
                       (unsigned long long)proof->fork, (unsigned long long)reader->fork);
    status = find_authority(reader, proof, &outcome.authority, &outcome.has_authority, err);
    if (status == HW_OK)
        status = check_subtree(&check);
    /* An upgrade to what the reader has already, from a slower peer, is worth nothing. */
    if (status == HW_OK && proof->has_upgrade &&
        proof->upgrade_length > reader->roots.length - (proof->upgrade_start < reader->roots.length
                                                            ? proof->upgrade_start
                                                            : reader->roots.length)) {
        status = check_upgrade(&check, &outcome.authority, &outcome.roots);
        outcome.is_upgrade = true;
    }
    /* That there is no manifest is only known once a signature fits without it. */
    outcome.has_authority = outcome.has_authority && (proof->has_manifest || outcome.is_upgrade);
    if (status == HW_OK)
        status = check_held(&check, &reader->source);
    if (status == HW_OK && outcome.nodes.buffer.failed)
        status = hw_fail(err, HW_ENOMEM, "proof: no memory for its nodes");
    if (status != HW_OK) {
        hw_proof_outcome_release(&outcome);
        return status;
    }
    *out = outcome;
    return HW_OK;
}

enum hw_status hw_proof_missing_nodes(const struct hw_proof_reader *reader, uint64_t index,
                                      uint64_t *out, struct hw_error *err)
{
    uint64_t head = 2 * reader->roots.length, levels = 0;

    *out = 0;
    if (hw_flat_right_span(index) >= head)
        return HW_OK; /* the upgrade will prove it */
    for (; !hw_flat_contains(index, head); index = hw_flat_parent(index), levels++) {
        struct hw_node node;
        enum hw_status status = reader->source.get(reader->source.ctx, index, &node, err);

        if (status == HW_OK)
            break;
        if (status != HW_ENOTFOUND)
            return status;
    }
    *out = levels;
    return HW_OK;
}

/* --------------------------------------------------------------------------- a higher fork */

void hw_reorg_release(struct hw_reorg *reorg)
{
    hw_nodes_release(&reorg->nodes);
    *reorg = (struct hw_reorg){0};
}

/* Does the reader hold this very node? */
static enum hw_status is_held(const struct hw_proof_reader *reader, const struct hw_node *node,
                              bool *out, struct hw_error *err)
{
    struct hw_node held;
    enum hw_status status = reader->source.get(reader->source.ctx, node->index, &held, err);

    *out = status == HW_OK && memcmp(held.hash, node->hash, HW_HASH_SIZE) == 0;
    return status == HW_ENOTFOUND ? HW_OK : status;
}

/* Go down from the difference as far as nodes of the new fork are known. */
static enum hw_status narrow(const struct hw_proof_reader *reader, struct hw_reorg *reorg,
                             struct hw_error *err)
{
    uint64_t at = reorg->difference;

    while (at % 2 == 1) {
        const struct hw_node *left = hw_nodes_find(&reorg->nodes, hw_flat_left_child(at));
        bool held = false;
        enum hw_status status;

        if (left == NULL)
            break;
        status = is_held(reader, left, &held, err);
        if (status != HW_OK)
            return status;
        at = held ? hw_flat_right_child(at) : left->index;
    }
    reorg->difference = at;
    reorg->common = hw_flat_left_span(at) / 2;
    reorg->is_done = at % 2 == 0 || reorg->common >= reader->roots.length;
    reorg->want_start = reorg->common;
    reorg->want_end = hw_flat_right_span(at) / 2 + 1;
    reorg->want_nodes = hw_flat_depth(at);
    return HW_OK;
}

static enum hw_status find_difference(const struct hw_proof_reader *reader, struct hw_reorg *reorg,
                                      struct hw_error *err)
{
    for (unsigned i = 0; i < reorg->roots.count; i++) {
        bool held = false;
        enum hw_status status = is_held(reader, &reorg->roots.nodes[i], &held, err);

        if (status != HW_OK)
            return status;
        if (held)
            continue;
        reorg->difference = reorg->roots.nodes[i].index;
        reorg->common = hw_flat_left_span(reorg->difference) / 2;
        reorg->is_done = reorg->difference % 2 == 0 || reorg->common >= reader->roots.length;
        reorg->want_start = reorg->common;
        reorg->want_end = hw_flat_right_span(reorg->difference) / 2 + 1;
        reorg->want_nodes = hw_flat_depth(reorg->difference);
        return HW_OK;
    }
    reorg->common = reorg->roots.length; /* a pure truncation */
    reorg->is_done = true;
    return HW_OK;
}

enum hw_status hw_reorg_begin(const struct hw_proof_reader *reader, const struct hw_proof *proof,
                              struct hw_reorg *out, struct hw_error *err)
{
    struct hw_reorg reorg = {.fork = proof->fork};
    struct check check = {.proof = proof, .met = &reorg.nodes, .err = err};
    enum hw_status status;

    if (proof->fork <= reader->fork)
        return hw_fail(err, HW_EFORK, "proof: fork %llu is not above %llu",
                       (unsigned long long)proof->fork, (unsigned long long)reader->fork);
    if (!proof->has_upgrade || proof->upgrade_start != 0)
        return wrong(&check, "a new fork without an upgrade from 0", 0);
    status = find_authority(reader, proof, &reorg.authority, &reorg.has_authority, err);
    if (status == HW_OK)
        status = check_subtree(&check);
    if (status == HW_OK)
        status = check_upgrade(&check, &reorg.authority, &reorg.roots);
    if (status == HW_OK && check.has_root)
        status = wrong(&check, "leads to no root", check.root.index);
    if (status == HW_OK && reorg.nodes.buffer.failed)
        status = hw_fail(err, HW_ENOMEM, "proof: no memory for its nodes");
    if (status == HW_OK)
        status = find_difference(reader, &reorg, err);
    if (status != HW_OK) {
        hw_reorg_release(&reorg);
        return status;
    }
    *out = reorg;
    return HW_OK;
}

enum hw_status hw_reorg_feed(const struct hw_proof_reader *reader, struct hw_reorg *reorg,
                             const struct hw_proof *proof, struct hw_error *err)
{
    struct hw_nodes met = {0};
    struct check check = {.proof = proof, .met = &met, .err = err};
    const struct hw_node *known;
    enum hw_status status;

    if (proof->fork != reorg->fork)
        return hw_fail(err, HW_EFORK, "proof: of fork %llu, not %llu",
                       (unsigned long long)proof->fork, (unsigned long long)reorg->fork);
    status = check_subtree(&check);
    if (status == HW_OK && !check.has_root)
        status = wrong(&check, "no hash in it", 0);
    if (status != HW_OK)
        goto done;
    known = hw_nodes_find(&reorg->nodes, check.root.index);
    if (known == NULL || memcmp(known->hash, check.root.hash, HW_HASH_SIZE) != 0) {
        status = wrong(&check, "does not lead to a node of the new fork", check.root.index);
        goto done;
    }
    hw_buffer_add(&reorg->nodes.buffer, met.buffer.bytes, met.buffer.size);
    if (met.buffer.failed || reorg->nodes.buffer.failed) {
        status = hw_fail(err, HW_ENOMEM, "proof: no memory for its nodes");
        goto done;
    }
    status = narrow(reader, reorg, err);
done:
    hw_nodes_release(&met);
    return status;
}
