/*
 * Implements verification of hypercore/hypercore.h: first the tree as a whole, from its leaves to
 * the signature of the head, then every segment, record by record, with the signature of each
 * batch.
 */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum { PROGRESS_EVERY = 1024 };

struct verify {
    struct hw_core *core;
    bool (*progress)(void *ctx, uint64_t checked, uint64_t length);
    void *ctx;
    struct hw_roots roots;
    struct hw_buffer block;
    uint64_t expected, seen; /* blocks whose place is in a segment as it was appended */
    enum hw_status parent_status;
    struct hw_error *err;
};

/* Told half a block for each of the two looks. */
static enum hw_status tell(struct verify *verify, uint64_t halves)
{
    if (verify->progress == NULL || halves % PROGRESS_EVERY != 0)
        return HW_OK;
    return verify->progress(verify->ctx, halves / 2, verify->core->roots.length) ? HW_OK : HW_AGAIN;
}

/* ------------------------------------------------------------------------------- the tree */

/* A parent computed from the leaves: is it the one on disk? */
static void check_parent(void *ctx, const struct hw_node *parent)
{
    struct verify *verify = ctx;
    struct hw_slot slot;
    enum hw_status status;

    if (verify->parent_status != HW_OK)
        return;
    status = hw_tree_file_slot(&verify->core->tree, parent->index / 2, &slot, verify->err);
    if (status == HW_END ||
        (status == HW_OK && memcmp(slot.parent, parent->hash, HW_HASH_SIZE) != 0))
        status = hw_fail(verify->err, HW_ECORRUPT, "%s: node %llu is not the hash of its children",
                         verify->core->tree.path, (unsigned long long)parent->index);
    verify->parent_status = status;
}

static enum hw_status verify_leaf(struct verify *verify, uint64_t index)
{
    struct hw_core *core = verify->core;
    struct hw_slot slot;
    struct hw_node leaf = {.index = 2 * index};
    uint64_t start = 0;
    enum hw_status status = hw_tree_file_block(&core->tree, index, &start, &slot, verify->err);

    if (status != HW_OK)
        return status;
    leaf.size = slot.end - start;
    memcpy(leaf.hash, slot.leaf, HW_HASH_SIZE);
    hw_roots_push(&verify->roots, &leaf, check_parent, verify);
    if (verify->parent_status != HW_OK)
        return verify->parent_status;
    if (slot.is_pruned)
        return HW_OK; /* pruned: the tree is all there is */
    if (hw_segment_generation(slot.segment) > 0)
        return hw_core_read(core, index, &verify->block, verify->err);
    verify->expected++;
    return HW_OK;
}

static enum hw_status verify_tree(struct verify *verify)
{
    struct hw_core *core = verify->core;
    uint8_t tree_hash[HW_HASH_SIZE];

    for (uint64_t i = 0; i < core->roots.length; i++) {
        enum hw_status status = verify_leaf(verify, i);

        if (status == HW_OK)
            status = tell(verify, i);
        if (status != HW_OK)
            return status;
    }
    hw_roots_hash(&verify->roots, tree_hash);
    if (memcmp(tree_hash, core->tree_hash, HW_HASH_SIZE) != 0)
        return hw_fail(verify->err, HW_ECORRUPT, "%s: the roots are not those of the newest batch",
                       core->tree.path);
    if (core->has_commit &&
        !hw_core_signature_fits(core, tree_hash, core->roots.length, core->fork, core->signature))
        return hw_fail(verify->err, HW_EPROOF, "%s: length %llu is not signed by the log's key",
                       core->dir, (unsigned long long)core->roots.length);
    return HW_OK;
}

/* --------------------------------------------------------------------------- the segments */

static enum hw_status verify_leaves(struct verify *verify, const struct hw_segment_scan *scan,
                                    const struct hw_record *record, uint32_t identity)
{
    const struct hw_node *leaves = (const struct hw_node *)(const void *)scan->leaves.bytes;

    for (uint32_t i = 0; i < record->count; i++) {
        struct hw_slot slot;
        enum hw_status status =
            hw_tree_file_slot(&verify->core->tree, record->first + i, &slot, verify->err);

        if (status == HW_OK)
            status = tell(verify, verify->core->roots.length + record->first + i);
        if (status < 0 || status == HW_AGAIN)
            return status;
        if (status == HW_END || memcmp(slot.leaf, leaves[i].hash, HW_HASH_SIZE) != 0)
            return hw_fail(
                verify->err, HW_ECORRUPT,
                "%s/%08u.seg: block %llu, in the record at %llu, is not that of the tree",
                verify->core->dir, (unsigned)hw_segment_number(identity),
                (unsigned long long)(record->first + i),
                (unsigned long long)(scan->offset - record->size));
        if (!slot.is_pruned && slot.segment == identity &&
            slot.offset == scan->offset - record->size)
            verify->seen++;
        hw_roots_push(&verify->roots, &leaves[i], NULL, NULL);
    }
    return HW_OK;
}

static enum hw_status verify_record(struct verify *verify, const struct hw_segment_scan *scan,
                                    const struct hw_record *record,
                                    const struct hw_segment_header *header)
{
    struct hw_core *core = verify->core;
    unsigned long long at = scan->offset - record->size;
    uint8_t tree_hash[HW_HASH_SIZE];
    enum hw_status status;

    if (record->first != verify->roots.length || record->start != verify->roots.byte_length ||
        record->kind == HW_RECORD_KEPT)
        return hw_fail(verify->err, HW_ECORRUPT, "%s/%08u.seg: the record at %llu is out of place",
                       core->dir, (unsigned)hw_segment_number(header->identity), at);
    status = verify_leaves(verify, scan, record, header->identity);
    if (status != HW_OK || record->kind != HW_RECORD_COMMIT)
        return status;
    hw_roots_hash(&verify->roots, tree_hash);
    if (!hw_core_signature_fits(core, tree_hash, verify->roots.length, header->fork,
                                record->signature.bytes))
        return hw_fail(verify->err, HW_EPROOF,
                       "%s/%08u.seg: the batch that ends with the record at %llu, length %llu, is "
                       "not signed by the log's key",
                       core->dir, (unsigned)hw_segment_number(header->identity), at,
                       (unsigned long long)verify->roots.length);
    return HW_OK;
}

/*
 * One segment as it was appended, up to block `end`; with `is_followed`, the next one begins there,
 * else what lies between was pruned, or is missing in the count.
 */
static enum hw_status verify_segment(struct verify *verify, uint32_t identity, uint64_t end,
                                     bool is_followed)
{
    struct hw_core *core = verify->core;
    struct hw_segment_header header;
    struct hw_segment_scan scan = {0};
    struct hw_record record;
    struct hw_file *file = NULL;
    uint8_t tree_hash[HW_HASH_SIZE];
    enum hw_status status =
        hw_segment_open(core->env, core->dir, identity, false, core->identity.discovery_key,
                        &header, &file, verify->err);

    if (status == HW_ENOTFOUND)
        return HW_OK; /* pruned meanwhile; if not, blocks are missing in the count */
    if (status != HW_OK)
        return status;
    if (header.first > core->roots.length)
        goto done; /* beyond our limit */
    status = hw_tree_file_roots(&core->tree, header.first, &verify->roots, verify->err);
    if (status != HW_OK)
        goto done;
    hw_roots_hash(&verify->roots, tree_hash);
    if (memcmp(tree_hash, header.tree_hash, HW_HASH_SIZE) != 0) {
        status = hw_fail(verify->err, HW_ECORRUPT, "%s/%08u.seg: does not continue the tree",
                         core->dir, (unsigned)hw_segment_number(identity));
        goto done;
    }
    hw_segment_scan_start(&scan, file, HW_SEGMENT_HEADER_SIZE, header.checksum);
    do { /* the first record says the signature again, even if nothing follows */
        status = hw_segment_scan_next(&scan, &record, verify->err);
        if (status == HW_OK)
            status = verify_record(verify, &scan, &record, &header);
    } while (verify->roots.length < end && status == HW_OK);
    if (status == HW_END && !is_followed)
        status = HW_OK;
    else if (status == HW_END)
        status = hw_fail(verify->err, HW_ECORRUPT,
                         "%s/%08u.seg: at %llu, block %llu, there is no whole record", core->dir,
                         (unsigned)hw_segment_number(identity), (unsigned long long)scan.offset,
                         (unsigned long long)verify->roots.length);
done:
    hw_segment_scan_release(&scan);
    core->env->ops->close(file);
    return status;
}

/* The block at which the segment after list[i] begins. */
static enum hw_status segment_end(struct verify *verify, const struct hw_segment_list *list,
                                  size_t i, uint64_t *out, bool *is_followed)
{
    struct hw_core *core = verify->core;
    uint32_t number = hw_segment_number(list->identities[i]);

    *out = core->roots.length;
    *is_followed = true;
    for (size_t next = i + 1; next < list->count; next++) {
        struct hw_segment_header header;
        struct hw_file *file = NULL;
        enum hw_status status;

        if (hw_segment_number(list->identities[next]) == number)
            continue;
        *is_followed = hw_segment_number(list->identities[next]) == number + 1;
        status = hw_segment_open(core->env, core->dir, list->identities[next], false,
                                 core->identity.discovery_key, &header, &file, verify->err);
        core->env->ops->close(file);
        if (status == HW_ENOTFOUND)
            continue;
        if (status == HW_OK && header.first < *out)
            *out = header.first;
        return status;
    }
    return HW_OK;
}

/* Some block's place was not met in its segment: name the first. */
static enum hw_status find_missing(struct verify *verify)
{
    for (uint64_t i = 0; i < verify->core->roots.length; i++) {
        enum hw_status status = hw_core_read(verify->core, i, &verify->block, verify->err);

        if (status != HW_OK && status != HW_EPRUNED)
            return status;
    }
    return HW_OK; /* pruned, or moved, while we looked */
}

enum hw_status hw_core_verify(struct hw_core *core,
                              bool (*progress)(void *ctx, uint64_t checked, uint64_t length),
                              void *ctx, struct hw_error *err)
{
    struct verify verify = {.core = core, .progress = progress, .ctx = ctx, .err = err};
    struct hw_segment_list list = {0};
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_verify(core, progress, ctx, err);
    status = verify_tree(&verify);

    if (status == HW_OK)
        status = hw_segment_list(core->env, core->dir, &list, err);
    for (size_t i = 0; i < list.count && status == HW_OK; i++) {
        uint64_t end;
        bool is_followed;

        if (hw_segment_generation(list.identities[i]) > 0)
            continue; /* its blocks were read one by one */
        status = segment_end(&verify, &list, i, &end, &is_followed);
        if (status == HW_OK)
            status = verify_segment(&verify, list.identities[i], end, is_followed);
    }
    if (status == HW_OK && verify.seen != verify.expected)
        status = find_missing(&verify);
    if (status == HW_OK && progress != NULL)
        (void)progress(ctx, core->roots.length, core->roots.length); /* there is nothing to stop */
    hw_segment_list_release(&list);
    hw_buffer_release(&verify.block);
    return status;
}
