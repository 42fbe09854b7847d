/* Finds where a log ends, at open and when others append: hw_core_find_end(), hw_core_refresh(). */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum {
    OVERLAY_FLUSH = 8192,  /* slots after which a walk makes room */
    OVERLAY_MAX = 1 << 20, /* slots a reader holds for a tree that is damaged */
};

/* ---------------------------------------------------------------------------------- stand */

/* Let the core end at this place in `file`, which is moved in, with the tree it had there. */
static void stand(struct hw_core *core, struct hw_file *file,
                  const struct hw_segment_header *header, uint64_t offset, const uint8_t *chain,
                  const struct hw_roots *roots)
{
    if (core->segment != file)
        core->env->ops->close(core->segment);
    core->segment = file;
    core->fork = header->fork;
    core->end.segment = header->identity;
    core->end.offset = offset;
    memcpy(core->end.chain, chain, HW_SEGMENT_CHAIN_SIZE);
    if (roots != &core->roots)
        core->roots = *roots;
    hw_roots_hash(&core->roots, core->tree_hash);
}

/*
 * Open segment `identity` to stand at `offset` in it, if the tree before that place is as told.
 * HW_END: it is not.  HW_AGAIN: it lies beyond the limit.
 */
static enum hw_status try_place(struct hw_core *core, uint32_t identity, uint64_t offset,
                                uint64_t length, const uint8_t *tree_hash, struct hw_error *err)
{
    uint8_t chain[HW_SEGMENT_CHAIN_SIZE], hash[HW_HASH_SIZE];
    struct hw_segment_header header;
    struct hw_file *file = NULL;
    struct hw_roots roots = {0};
    enum hw_status status;

    status = hw_segment_open(core->env, core->dir, identity, core->mode == HW_CORE_WRITE,
                             core->identity.discovery_key, &header, &file, err);
    if (status != HW_OK)
        return status;
    if (offset == 0) { /* its beginning */
        offset = HW_SEGMENT_HEADER_SIZE;
        length = header.first;
        tree_hash = header.tree_hash;
    }
    if (length > core->limit) {
        status = HW_AGAIN;
        goto done;
    }
    hw_tree_file_restart(&core->tree, length);
    status = hw_tree_file_roots(&core->tree, length, &roots, err);
    if (status != HW_OK)
        goto done;
    hw_roots_hash(&roots, hash);
    status = core->env->ops->read_at(file, offset - sizeof(chain), chain, sizeof(chain), err);
    if (status == HW_OK && memcmp(hash, tree_hash, sizeof(hash)) != 0)
        status = HW_END;
    if (status != HW_OK)
        goto done;
    stand(core, file, &header, offset, chain, &roots);
    core->has_commit = false; /* it follows */
    file = NULL;
done:
    core->env->ops->close(file);
    return status;
}

/* Is a failure of one place a reason to try an earlier one? */
static bool is_soft(enum hw_status status)
{
    return status > 0 || status == HW_ENOTFOUND || status == HW_ECORRUPT;
}

/*
 * Stand at the last place that can be trusted: the marker, else the beginning of the newest segment
 * whose tree is whole.  HW_END: no segments.
 */
static enum hw_status find_place(struct hw_core *core, const struct hw_segment_list *list,
                                 bool use_marker, struct hw_error *err)
{
    struct hw_tree_marker marker;
    enum hw_status status = HW_END;

    if (use_marker)
        status = hw_tree_file_marker(&core->tree, &marker, err);
    if (status == HW_OK && marker.segment != 0 && hw_segment_generation(marker.segment) == 0 &&
        marker.offset >= HW_SEGMENT_HEADER_SIZE) {
        status =
            try_place(core, marker.segment, marker.offset, marker.length, marker.tree_hash, err);
        if (status == HW_OK)
            core->marker_offset = marker.offset;
    } else if (status == HW_OK) {
        status = HW_END;
    }
    for (size_t i = list->count; i > 0 && is_soft(status); i--) {
        if (hw_segment_generation(list->identities[i - 1]) == 0)
            status = try_place(core, list->identities[i - 1], 0, 0, NULL, err);
    }
    if (status == HW_AGAIN)
        return hw_fail(err, HW_EPRUNED, "%s: the log as of length %llu was pruned", core->dir,
                       (unsigned long long)core->limit);
    if (is_soft(status) && list->count > 0)
        return hw_fail(err, HW_ECORRUPT,
                       "%s: no segment continues the tree: restore the directory from a copy",
                       core->dir);
    return is_soft(status) ? HW_END : status;
}

/* ----------------------------------------------------------------------------------- walk */

struct walk {
    struct hw_roots roots; /* with the parts of a batch whose commit was not seen yet */
};

static enum hw_status push_leaves(struct hw_core *core, struct walk *walk,
                                  const struct hw_record *record, struct hw_error *err)
{
    const struct hw_node *leaves = (const struct hw_node *)(const void *)core->scan.leaves.bytes;
    uint64_t offset = core->scan.offset - record->size;

    for (uint32_t i = 0; i < record->count; i++) {
        hw_tree_file_add(&core->tree, &leaves[i], walk->roots.byte_length + leaves[i].size,
                         core->end.segment, offset);
        hw_roots_push(&walk->roots, &leaves[i], hw_core_parent_made, core);
    }
    /* Before the commit counts: a log longer than its nodes could not be read, nor walked on. */
    if (hw_tree_file_failed(&core->tree))
        return hw_fail(err, HW_ENOMEM, "%s: no memory for nodes", core->dir);
    return HW_OK;
}

static void adopt_commit(struct hw_core *core, const struct walk *walk,
                         const struct hw_record *record)
{
    core->before = (struct hw_tree_marker){
        .length = core->roots.length,
        .segment = core->end.segment,
        .offset = core->end.offset,
    };
    memcpy(core->before.tree_hash, core->tree_hash, HW_HASH_SIZE);
    core->roots = walk->roots;
    hw_roots_hash(&core->roots, core->tree_hash);
    core->end.offset = core->scan.offset;
    memcpy(core->end.chain, core->scan.chain, sizeof(core->end.chain));
    memcpy(core->signature, record->signature.bytes, HW_SIGNATURE_SIZE);
    if (record->note.size > 0)
        memcpy(core->note, record->note.bytes, record->note.size);
    core->note_size = record->note.size;
    core->has_commit = true;
}

/*
 * Keep the overlay small while a long way is walked; where a batch begins.  So all that a writer
 * writes here is of batches that were synced, for else none would follow them.  The newest one is
 * perhaps in the page cache alone, and its slots on the disk would tell of blocks that were lost.
 */
static enum hw_status make_room(struct hw_core *core, struct hw_error *err)
{
    size_t slots = core->tree.fresh.size / HW_SLOT_SIZE;
    bool agrees = false;
    enum hw_status status;

    if (slots < OVERLAY_FLUSH)
        return HW_OK;
    if (core->mode == HW_CORE_WRITE)
        return hw_tree_file_flush(&core->tree, err);
    status = hw_tree_file_agrees(&core->tree, &agrees, err);
    if (status != HW_OK)
        return status;
    if (agrees)
        hw_tree_file_restart(&core->tree, core->roots.length);
    else if (slots > OVERLAY_MAX)
        return hw_fail(err, HW_ECORRUPT,
                       "%s/tree: damaged; opening the log for writing makes it "
                       "anew from the segments",
                       core->dir);
    return HW_OK;
}

/* The records of the current segment, up to the limit.  HW_END: what follows is not a record. */
static enum hw_status walk_segment(struct hw_core *core, uint64_t limit, struct hw_error *err)
{
    struct walk walk = {.roots = core->roots};
    struct hw_record record;
    enum hw_status status = HW_OK;

    core->at_limit = false;
    hw_segment_scan_start(&core->scan, core->segment, core->end.offset, core->end.chain);
    while (!core->has_commit || core->roots.length < limit) {
        status = hw_segment_scan_next(&core->scan, &record, err);
        if (status != HW_OK)
            break;
        if (record.first != walk.roots.length || record.start != walk.roots.byte_length ||
            record.kind == HW_RECORD_KEPT) {
            status = HW_END;
            break;
        }
        core->at_limit = record.first + record.count > limit;
        if (core->at_limit)
            break;
        if (walk.roots.length == core->roots.length)
            status = make_room(core, err);
        if (status == HW_OK)
            status = push_leaves(core, &walk, &record, err);
        if (status != HW_OK)
            break;
        if (record.kind == HW_RECORD_COMMIT)
            adopt_commit(core, &walk, &record);
    }
    hw_tree_file_cut(&core->tree, core->roots.length);
    return status;
}

/*
 * Go on in the segment after the current one.  HW_END: there is none.  HW_AGAIN: it begins further
 * on than we are.
 */
static enum hw_status next_segment(struct hw_core *core, struct hw_error *err)
{
    uint32_t next = hw_segment_identity(hw_segment_number(core->end.segment) + 1, 0);
    struct hw_segment_header header;
    struct hw_file *file = NULL;
    enum hw_status status;

    status = hw_segment_open(core->env, core->dir, next, core->mode == HW_CORE_WRITE,
                             core->identity.discovery_key, &header, &file, err);
    if (status == HW_ENOTFOUND)
        return HW_END;
    if (status != HW_OK)
        return status;
    if (header.first != core->roots.length ||
        memcmp(header.tree_hash, core->tree_hash, HW_HASH_SIZE) != 0) {
        core->env->ops->close(file);
        return HW_AGAIN;
    }
    stand(core, file, &header, HW_SEGMENT_HEADER_SIZE, header.checksum, &core->roots);
    return HW_OK;
}

/* All records up to the limit.  HW_AGAIN: the way is broken, a later segment does not continue. */
static enum hw_status walk_all(struct hw_core *core, uint64_t limit, struct hw_error *err)
{
    bool again = false;
    enum hw_status status;

    for (;;) {
        uint64_t before = core->end.offset;

        if (core->segment != NULL) {
            status = walk_segment(core, limit, err);
            if (status != HW_END)
                return status;
        }
        if (again && (core->segment == NULL || core->end.offset == before))
            return HW_AGAIN;
        status = next_segment(core, err);
        if (status == HW_END)
            return HW_OK;
        /* The writer may have gone on here before it began the next one: look once more. */
        again = status == HW_AGAIN;
        if (status < 0)
            return status;
    }
}

/* From the last place that can be trusted on.  HW_END: no segments.  HW_AGAIN: as walk_all(). */
static enum hw_status walk_from_place(struct hw_core *core, const struct hw_segment_list *list,
                                      uint64_t limit, struct hw_error *err)
{
    enum hw_status status = find_place(core, list, true, err);

    if (status == HW_OK)
        status = walk_all(core, limit, err);
    if (status == HW_AGAIN || (status == HW_OK && !core->has_commit && list->count > 0)) {
        /* The batch that the marker names is damaged: how far do the others reach? */
        status = find_place(core, list, false, err);
        if (status == HW_OK)
            status = walk_all(core, limit, err);
    }
    return status;
}

/* A reader's tree file is mostly right; keep the overlay only if it is not. */
static enum hw_status drop_overlay(struct hw_core *core, struct hw_error *err)
{
    bool agrees = false;
    enum hw_status status;

    if (core->mode == HW_CORE_WRITE)
        return HW_OK;
    status = hw_tree_file_agrees(&core->tree, &agrees, err);
    if (status == HW_OK && agrees)
        hw_tree_file_restart(&core->tree, core->roots.length);
    return status;
}

/* ----------------------------------------------------------------------------------- open */

/*
 * A slot is written after its block is durable, so one beyond the end tells of blocks that were
 * there and are not any more.
 */
static enum hw_status check_nothing_lost(struct hw_core *core, uint64_t slots, struct hw_error *err)
{
    uint64_t end = slots < core->limit ? slots : core->limit;

    if (core->at_limit) /* in the middle of a batch, which is there */
        return HW_OK;
    for (uint64_t block = core->roots.length; block < end; block++) {
        struct hw_slot slot;
        enum hw_status status = hw_tree_file_slot(&core->tree, block, &slot, err);

        if (status < 0)
            return status;
        if (status == HW_OK && core->mode == HW_CORE_READ && !hw_core_is_at_home(core)) {
            hw_env_log(core->env, HW_LOG_WARN, "event=copy_is_behind log=%s length=%llu block=%llu",
                       core->dir, (unsigned long long)core->roots.length,
                       (unsigned long long)block);
            return HW_OK; /* it was written while it was copied */
        }
        if (status == HW_OK)
            return hw_fail(err, HW_ECORRUPT,
                           "%s/%08u.seg: at %llu there is no whole batch, but block %llu was there "
                           "once: restore the file from a copy, or adopt the log as it is "
                           "(hyperwal init --adopt)",
                           core->dir, (unsigned)hw_segment_number(core->end.segment),
                           (unsigned long long)core->end.offset, (unsigned long long)block);
    }
    return HW_OK;
}

static enum hw_status check_end(struct hw_core *core, const struct hw_segment_list *list,
                                struct hw_error *err)
{
    uint32_t last = list->count == 0 ? 0 : hw_segment_number(list->identities[list->count - 1]);

    if (list->count > 0 && !core->has_commit)
        return hw_fail(err, HW_ECORRUPT, "%s/%08u.seg: no whole batch at %llu: restore the file",
                       core->dir, (unsigned)hw_segment_number(core->end.segment),
                       (unsigned long long)core->end.offset);
    if (core->limit == UINT64_MAX && last > hw_segment_number(core->end.segment))
        return hw_fail(err, HW_ECORRUPT,
                       "%s/%08u.seg: at %llu there is no whole batch, but segment %u follows: "
                       "restore the file from a copy",
                       core->dir, (unsigned)hw_segment_number(core->end.segment),
                       (unsigned long long)core->end.offset, (unsigned)last);
    if (core->has_commit && !hw_core_signature_fits(core, core->tree_hash, core->roots.length,
                                                    core->fork, core->signature))
        return hw_fail(err, HW_ECORRUPT,
                       "%s: the newest batch, of length %llu, is not signed by the log's key",
                       core->dir, (unsigned long long)core->roots.length);
    return HW_OK;
}

static enum hw_status find_end(struct hw_core *core, const struct hw_segment_list *list, bool adopt,
                               struct hw_error *err)
{
    uint64_t slots = 0;
    enum hw_status status = hw_tree_file_slots(&core->tree, &slots, err);

    if (status == HW_OK)
        status = walk_from_place(core, list, core->limit, err);
    if (status > 0)
        status = HW_OK; /* no segments: nothing was ever appended; else check_end() says it */
    if (status == HW_OK)
        status = drop_overlay(core, err);
    if (status == HW_OK)
        status = check_end(core, list, err);
    if (status == HW_OK && adopt) /* what is lost is lost: the fork says so */
        return core->env->ops->truncate(core->tree.file, (core->roots.length + 1) * HW_SLOT_SIZE,
                                        err);
    return status == HW_OK ? check_nothing_lost(core, slots, err) : status;
}

static bool same_list(const struct hw_segment_list *one, const struct hw_segment_list *other)
{
    return one->count == other->count &&
           (one->count == 0 ||
            memcmp(one->identities, other->identities, one->count * sizeof(uint32_t)) == 0);
}

/* Did a writer prune while we looked?  Then there are other files now: they are in *list. */
static bool has_moved(struct hw_core *core, struct hw_segment_list *list)
{
    struct hw_segment_list now = {0};
    bool moved;

    if (hw_segment_list(core->env, core->dir, &now, NULL) != HW_OK)
        return false;
    moved = !same_list(list, &now);
    hw_segment_list_release(list);
    *list = now; /* moved */
    return moved;
}

enum hw_status hw_core_find_end(struct hw_core *core, bool adopt, struct hw_error *err)
{
    struct hw_segment_list list = {0};
    enum hw_status status = hw_segment_list(core->env, core->dir, &list, err);

    if (status != HW_OK)
        return status;
    do
        status = find_end(core, &list, adopt, err);
    while (status == HW_ECORRUPT && core->mode == HW_CORE_READ && has_moved(core, &list));
    hw_segment_list_release(&list);
    return status;
}

/* -------------------------------------------------------------------------------- refresh */

/* Should there be more than the walk found? */
static bool is_short(const struct hw_core *core, uint64_t limit)
{
    return limit != UINT64_MAX && core->roots.length < limit && !core->at_limit;
}

struct foothold {                  /* where a reader stands, to go back to */
    struct hw_file *segment;       /* owned */
    struct hw_buffer fresh, older; /* owned: the overlay */
    uint64_t base;
    struct hw_roots roots;
    struct hw_core_end end;
    struct hw_tree_marker before;
    uint64_t fork, marker_offset;
    uint8_t tree_hash[HW_HASH_SIZE], signature[HW_SIGNATURE_SIZE], note[HW_NOTE_SIZE_MAX];
    size_t note_size;
    bool has_commit, at_limit;
};

/* What the core owns there is moved. */
static void foothold_leave(struct hw_core *core, struct foothold *out)
{
    struct hw_tree_file *tree = &core->tree;

    *out = (struct foothold){
        .segment = core->segment,
        .fresh = tree->fresh,
        .older = tree->older,
        .base = tree->base,
        .roots = core->roots,
        .end = core->end,
        .before = core->before,
        .fork = core->fork,
        .marker_offset = core->marker_offset,
        .note_size = core->note_size,
        .has_commit = core->has_commit,
        .at_limit = core->at_limit,
    };
    memcpy(out->tree_hash, core->tree_hash, sizeof(out->tree_hash));
    memcpy(out->signature, core->signature, sizeof(out->signature));
    memcpy(out->note, core->note, sizeof(out->note));
    core->segment = NULL;
    tree->fresh = tree->older = (struct hw_buffer){0};
}

/* Back to it, from wherever the core is; *from is empty then. */
static void foothold_return(struct hw_core *core, struct foothold *from)
{
    struct hw_tree_file *tree = &core->tree;

    core->env->ops->close(core->segment);
    core->segment = from->segment;
    hw_buffer_release(&tree->fresh);
    hw_buffer_release(&tree->older);
    tree->fresh = from->fresh;
    tree->older = from->older;
    tree->base = from->base;
    core->roots = from->roots;
    core->end = from->end;
    core->before = from->before;
    core->fork = from->fork;
    core->marker_offset = from->marker_offset;
    memcpy(core->tree_hash, from->tree_hash, sizeof(core->tree_hash));
    memcpy(core->signature, from->signature, sizeof(core->signature));
    memcpy(core->note, from->note, sizeof(core->note));
    core->note_size = from->note_size;
    core->has_commit = from->has_commit;
    core->at_limit = from->at_limit;
    *from = (struct foothold){.segment = NULL};
}

static void foothold_release(struct hw_core *core, struct foothold *foothold)
{
    core->env->ops->close(foothold->segment);
    hw_buffer_release(&foothold->fresh);
    hw_buffer_release(&foothold->older);
}

/* From the newest place on. */
static enum hw_status walk_from_newest(struct hw_core *core, const struct hw_segment_list *list,
                                       uint64_t limit, uint64_t expected, struct hw_error *err)
{
    enum hw_status status = walk_from_place(core, list, limit, err);

    if (status > 0 || (status == HW_OK && (!core->has_commit || is_short(core, limit))))
        status =
            hw_fail(err, HW_ECORRUPT, "%s: %llu blocks are said to be there, %llu are", core->dir,
                    (unsigned long long)expected, (unsigned long long)core->roots.length);
    return status;
}

/*
 * Pruning removed segments that were not read yet: go on from the newest place, or stay where we
 * are.  What is not there where it should be makes the core useless until it is found.
 */
static enum hw_status go_to_newest(struct hw_core *core, uint64_t limit, struct hw_error *err)
{
    struct hw_segment_list list = {0};
    struct foothold foothold;
    uint64_t expected = limit == UINT64_MAX ? core->roots.length : limit;
    enum hw_status status = hw_segment_list(core->env, core->dir, &list, err);

    if (status != HW_OK)
        return status;
    foothold_leave(core, &foothold);
    do
        status = walk_from_newest(core, &list, limit, expected, err);
    while (status == HW_ECORRUPT && has_moved(core, &list));
    core->is_poisoned = status == HW_ECORRUPT || (core->is_poisoned && status != HW_OK);
    if (status != HW_OK)
        foothold_return(core, &foothold);
    foothold_release(core, &foothold);
    hw_segment_list_release(&list);
    return status;
}

enum hw_status hw_core_refresh(struct hw_core *core, uint64_t limit, struct hw_error *err)
{
    uint64_t length = core->roots.length;
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_refresh(core, err);
    if (core->mode == HW_CORE_WRITE)
        return HW_OK; /* it knows */
    if (core->is_poisoned && limit < length)
        limit = length; /* found again, it is no shorter */
    core->limit = limit;
    if (!core->is_poisoned && core->has_commit && limit <= length)
        return HW_OK;
    hw_core_drop_ahead(core);
    if (core->tree.fresh.size == 0) /* else the tree on disk is damaged, and we know it better */
        hw_tree_file_restart(&core->tree, length);
    status = core->is_poisoned ? HW_AGAIN : walk_all(core, limit, err);
    if (status == HW_AGAIN || (status == HW_OK && is_short(core, limit)))
        status = go_to_newest(core, limit, err);
    if (status == HW_OK)
        status = drop_overlay(core, err);
    return status;
}
