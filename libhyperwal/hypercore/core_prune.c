/*
 * Implements pruning of hypercore/hypercore.h.
 *
 * The slots of the tree say where each block is; pruning changes them first and removes files last:
 *
 *   1. a segment that is still appended to and has something to give up is closed
 *   2. slots of blocks that go: marked
 *   3. of each file with less than a quarter of live bytes a copy is made, with what is left
 *   4. slots of those blocks: the copy
 *   5. slots of files that go are written as they are, and the tree is synced
 *   6. files that no slot names are removed
 *
 * A crash leaves files that no slot names, or copies that only some name: the next run removes
 * them.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum { SLOTS_AT_ONCE = 256, LIVE_PART = 4 };

struct segment_use { /* of one file */
    uint32_t identity;
    uint32_t copy;       /* identity of the one that this run made; 0: none */
    uint64_t first;      /* block */
    uint64_t size;       /* bytes of the file */
    uint64_t live_bytes; /* of blocks that stay */
    uint64_t live_blocks, dead_blocks;
};

struct prune {
    struct hw_core *core;
    bool (*keep)(void *ctx, uint64_t index);
    void *ctx;
    bool dry_run;
    struct segment_use *uses; /* owned; one a file */
    size_t use_count;
    uint64_t first_kept;
    uint64_t freed;
};

static struct segment_use *find_use(struct prune *prune, uint32_t identity)
{
    for (size_t i = prune->use_count; i > 0; i--) { /* the newest are asked for most */
        if (prune->uses[i - 1].identity == identity)
            return &prune->uses[i - 1];
    }
    return NULL;
}

static enum hw_status load_use(struct prune *prune, uint32_t identity, struct segment_use *out,
                               struct hw_error *err)
{
    struct hw_core *core = prune->core;
    struct hw_segment_header header;
    struct hw_file_stat stat = {0};
    struct hw_file *file = NULL;
    enum hw_status status = hw_segment_open(core->env, core->dir, identity, false,
                                            core->identity.discovery_key, &header, &file, err);

    if (status != HW_OK)
        return status;
    status = core->env->ops->stat_file(file, &stat, err);
    core->env->ops->close(file);
    *out = (struct segment_use){.identity = identity, .first = header.first, .size = stat.size};
    if (identity == core->end.segment)
        out->size = core->end.offset;
    return status;
}

static enum hw_status load_uses(struct prune *prune, struct hw_error *err)
{
    struct hw_segment_list list = {0};
    struct hw_core *core = prune->core;
    enum hw_status status = hw_segment_list(core->env, core->dir, &list, err);

    if (status != HW_OK)
        return status;
    prune->uses = hw_zalloc((list.count + 1) * sizeof(*prune->uses));
    if (prune->uses == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to prune", core->dir);
        goto done;
    }
    for (size_t i = 0; i < list.count && status == HW_OK; i++)
        status = load_use(prune, list.identities[i], &prune->uses[i], err);
    prune->use_count = list.count;
done:
    hw_segment_list_release(&list);
    return status;
}

/* Count block `index` for its file; true: it goes now. */
static bool count_block(struct prune *prune, uint64_t index, const struct hw_slot *slot,
                        uint64_t size)
{
    struct segment_use *use = slot->is_pruned ? NULL : find_use(prune, slot->segment);
    bool keep = !slot->is_pruned && prune->keep(prune->ctx, index);

    if (!keep)
        prune->first_kept = index + 1;
    if (use != NULL && keep) {
        use->live_blocks++;
        use->live_bytes += size;
    } else if (use != NULL) {
        use->dead_blocks++;
    }
    return !keep && !slot->is_pruned;
}

/* Look at every slot; with `mark`, slots of blocks that go are marked. */
static enum hw_status sweep_slots(struct prune *prune, bool mark, struct hw_error *err)
{
    struct hw_tree_file *tree = &prune->core->tree;
    uint8_t slots[SLOTS_AT_ONCE * HW_SLOT_SIZE];
    uint64_t length = prune->core->roots.length, before = 0;

    for (uint64_t block = 0; block < length; block += SLOTS_AT_ONCE) {
        unsigned count =
            length - block < SLOTS_AT_ONCE ? (unsigned)(length - block) : SLOTS_AT_ONCE;
        bool changed = false;
        enum hw_status status = hw_tree_file_read_range(tree, block, count, slots, err);

        if (status != HW_OK)
            return status;
        for (unsigned i = 0; i < count; i++) {
            struct hw_slot slot;

            hw_slot_decode(slots + i * HW_SLOT_SIZE, &slot);
            if (slot.end < before)
                return hw_fail(err, HW_ECORRUPT, "%s: slot of block %llu is damaged", tree->path,
                               (unsigned long long)(block + i));
            if (count_block(prune, block + i, &slot, slot.end - before)) {
                hw_slot_set_pruned(slots + i * HW_SLOT_SIZE);
                changed = true;
            }
            before = slot.end;
        }
        /* One byte a slot differs from what is there: a torn write is fine. */
        if (mark && changed) {
            status = hw_tree_file_write_range(tree, block, count, slots, err);
            if (status != HW_OK)
                return status;
        }
    }
    return HW_OK;
}

/* ------------------------------------------------------------------------------- the copy */

struct copy {
    struct prune *prune;
    const struct segment_use *use;
    const struct hw_segment_header *header; /* of the copy */
    uint64_t end_block;                     /* blocks of the file are below */
    struct hw_file *file;                   /* NULL: only measure */
    uint64_t offset;                        /* of the record in the making */
    uint8_t chain[HW_SEGMENT_CHAIN_SIZE];
    struct hw_record record;
    struct hw_buffer data, sizes, leaves, tail, block;
    struct hw_buffer moved; /* {block u64, offset u64} */
};

static void copy_release(struct copy *copy)
{
    hw_buffer_release(&copy->data);
    hw_buffer_release(&copy->sizes);
    hw_buffer_release(&copy->leaves);
    hw_buffer_release(&copy->tail);
    hw_buffer_release(&copy->block);
    hw_buffer_release(&copy->moved);
}

/* Write the record in the making, if it has a block. */
static enum hw_status copy_flush(struct copy *copy, struct hw_error *err)
{
    struct hw_record *record = &copy->record;
    uint8_t head[HW_RECORD_HEAD_MAX];
    size_t head_size;
    enum hw_status status = HW_OK;

    if (record->count == 0)
        return HW_OK;
    record->kind = HW_RECORD_KEPT;
    record->data_size = (uint32_t)copy->data.size;
    hw_buffer_clear(&copy->tail);
    hw_record_tail_encode(record, (const uint32_t *)(const void *)copy->sizes.bytes, &copy->tail);
    if (copy->tail.failed || hw_buffer_reserve(&copy->tail, HW_SEGMENT_CHAIN_SIZE) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "prune: no memory for a record");
    head_size = hw_record_head_encode(record, head + sizeof(head));
    record->size =
        (uint32_t)(head_size + copy->data.size + copy->tail.size + HW_SEGMENT_CHAIN_SIZE);
    (void)hw_record_head_encode(record, head + sizeof(head)); /* the size has a fixed width */
    hw_record_checksum(copy->chain, (struct hw_slice){head + sizeof(head) - head_size, head_size},
                       (struct hw_slice){copy->leaves.bytes, copy->leaves.size},
                       (struct hw_slice){copy->tail.bytes, copy->tail.size}, copy->chain);
    hw_buffer_add(&copy->tail, copy->chain, HW_SEGMENT_CHAIN_SIZE);
    if (copy->file != NULL) {
        const struct hw_env_ops *ops = copy->file->env->ops;

        status = ops->write_at(copy->file, copy->offset, head + sizeof(head) - head_size, head_size,
                               err);
        if (status == HW_OK)
            status = ops->write_at(copy->file, copy->offset + head_size, copy->data.bytes,
                                   copy->data.size, err);
        if (status == HW_OK)
            status = ops->write_at(copy->file, copy->offset + head_size + copy->data.size,
                                   copy->tail.bytes, copy->tail.size, err);
    }
    copy->offset += record->size;
    hw_buffer_clear(&copy->data);
    hw_buffer_clear(&copy->sizes);
    hw_buffer_clear(&copy->leaves);
    *record = (struct hw_record){0};
    return status;
}

static enum hw_status copy_block(struct copy *copy, uint64_t index, const struct hw_slot *slot,
                                 uint64_t start, struct hw_error *err)
{
    struct hw_record *record = &copy->record;
    uint32_t size = (uint32_t)(slot->end - start);
    uint8_t *moved;
    enum hw_status status = HW_OK;

    if (record->count > 0 &&
        (record->first + record->count != index || copy->data.size + size > HW_BATCH_BUFFER_SIZE ||
         record->count >= HW_RECORD_COUNT_MAX))
        status = copy_flush(copy, err);
    if (status == HW_OK)
        status = hw_core_read(copy->prune->core, index, &copy->block, err);
    if (status != HW_OK)
        return status;
    if (record->count++ == 0) {
        record->first = index;
        record->start = start;
    }
    if (copy->block.size > 0)
        hw_buffer_add(&copy->data, copy->block.bytes, copy->block.size);
    hw_buffer_add(&copy->sizes, &size, sizeof(size));
    hw_buffer_add(&copy->leaves, slot->leaf, HW_HASH_SIZE);
    moved = hw_buffer_extend(&copy->moved, 16);
    if (moved == NULL || copy->data.failed || copy->sizes.failed || copy->leaves.failed)
        return hw_fail(err, HW_ENOMEM, "prune: no memory for a block");
    hw_put_le64(moved, index);
    hw_put_le64(moved + 8, copy->offset);
    return HW_OK;
}

/* All blocks of the file that stay; ctx is a struct copy. */
static enum hw_status copy_fill(void *ctx, struct hw_file *file, struct hw_error *err)
{
    struct copy *copy = ctx;
    struct prune *prune = copy->prune;

    copy->file = file;
    copy->offset = HW_SEGMENT_HEADER_SIZE;
    if (file != NULL) {
        uint8_t header[HW_SEGMENT_HEADER_SIZE];

        hw_segment_header_encode(copy->header, header);
        memcpy(copy->chain, header + sizeof(header) - sizeof(copy->chain), sizeof(copy->chain));
    }
    for (uint64_t block = copy->use->first; block < copy->end_block; block++) {
        struct hw_slot slot;
        uint64_t start;
        enum hw_status status = hw_tree_file_block(&prune->core->tree, block, &start, &slot, err);

        if (status != HW_OK)
            return status;
        if (slot.is_pruned || slot.segment != copy->use->identity ||
            !prune->keep(prune->ctx, block))
            continue;
        status = copy_block(copy, block, &slot, start, err);
        if (status != HW_OK)
            return status;
    }
    return copy_flush(copy, err);
}

/*
 * A generation of this segment's number that no file has; 0: there is none.  A run that ended while
 * it moved blocks left two files of one number, each with some of them: both may be copied now.
 */
static uint32_t free_generation(const struct prune *prune, uint32_t number)
{
    uint32_t greatest = 0;

    for (size_t i = 0; i < prune->use_count; i++) {
        const struct segment_use *use = &prune->uses[i];
        uint32_t newest = use->copy != 0 ? use->copy : use->identity; /* a copy's is greater */

        if (hw_segment_number(newest) == number && hw_segment_generation(newest) > greatest)
            greatest = hw_segment_generation(newest);
    }
    return greatest < HW_SEGMENT_GENERATION_MAX ? greatest + 1 : 0;
}

static enum hw_status relocate_all(struct prune *prune, const struct copy *copy, uint32_t identity,
                                   struct hw_error *err)
{
    for (size_t at = 0; at < copy->moved.size; at += 16) {
        enum hw_status status =
            hw_tree_file_relocate(&prune->core->tree, hw_get_le64(copy->moved.bytes + at), identity,
                                  hw_get_le64(copy->moved.bytes + at + 8), err);

        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* Copy what stays of one file into a new one and let the slots point there. */
static enum hw_status rewrite(struct prune *prune, struct segment_use *use, uint64_t end,
                              struct hw_error *err)
{
    struct hw_core *core = prune->core;
    uint32_t generation = free_generation(prune, hw_segment_number(use->identity));
    struct hw_segment_header header;
    struct copy copy = {.prune = prune, .use = use, .header = &header, .end_block = end};
    struct hw_file *file = NULL;
    enum hw_status status;

    if (generation == 0)
        return HW_OK; /* 255 times quartered: nothing is left to win */
    if (prune->dry_run) {
        status = copy_fill(&copy, NULL, err);
        goto done;
    }
    status = hw_segment_open(core->env, core->dir, use->identity, false,
                             core->identity.discovery_key, &header, &file, err);
    if (status != HW_OK)
        goto done;
    core->env->ops->close(file);
    file = NULL;
    header.identity = hw_segment_identity(hw_segment_number(use->identity), generation);
    core->env->ops->random(core->env, header.salt, sizeof(header.salt));
    status = hw_segment_create(core->env, core->dir, &header, copy_fill, &copy, &file, err);
    if (status == HW_OK) {
        use->copy = header.identity;
        status = relocate_all(prune, &copy, header.identity, err);
    }
done:
    core->env->ops->close(file);
    if (status == HW_OK && copy.offset < use->size)
        prune->freed += use->size - copy.offset;
    if (status == HW_OK)
        use->live_blocks = 0; /* the old file may go */
    copy_release(&copy);
    return status;
}

/* --------------------------------------------------------------------------------- the run */

static bool is_dead(const struct prune *prune, const struct segment_use *use)
{
    return use->live_blocks == 0 && use->identity != prune->core->end.segment;
}

/* The block behind those of file `i`, whatever its generation. */
static uint64_t end_block(const struct prune *prune, size_t i)
{
    uint32_t number = hw_segment_number(prune->uses[i].identity);

    for (size_t next = i + 1; next < prune->use_count; next++) {
        if (hw_segment_number(prune->uses[next].identity) > number)
            return prune->uses[next].first;
    }
    return prune->core->roots.length;
}

/*
 * Write the slots of a file that goes once more, as they are: after a sync that failed, of this run
 * or one before, they may be in the page cache alone, and what is not written, the next sync does
 * not write.  What the page cache lost meanwhile is what was there before: then it may stay.
 */
static enum hw_status write_slots(struct prune *prune, struct segment_use *use, uint64_t end,
                                  struct hw_error *err)
{
    struct hw_tree_file *tree = &prune->core->tree;
    uint8_t slots[SLOTS_AT_ONCE * HW_SLOT_SIZE];

    for (uint64_t block = use->first; block < end; block += SLOTS_AT_ONCE) {
        unsigned count = end - block < SLOTS_AT_ONCE ? (unsigned)(end - block) : SLOTS_AT_ONCE;
        enum hw_status status = hw_tree_file_read_range(tree, block, count, slots, err);

        if (status == HW_OK)
            status = hw_tree_file_write_range(tree, block, count, slots, err);
        if (status != HW_OK)
            return status;
        for (unsigned i = 0; i < count; i++) {
            struct hw_slot slot;

            hw_slot_decode(slots + i * HW_SLOT_SIZE, &slot);
            if (!slot.is_pruned && slot.segment == use->identity)
                use->live_blocks++;
        }
    }
    return HW_OK;
}

/* All that removing the dead files relies on gets to the disk. */
static enum hw_status settle(struct prune *prune, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (size_t i = 0; i < prune->use_count && status == HW_OK; i++) {
        if (is_dead(prune, &prune->uses[i]))
            status = write_slots(prune, &prune->uses[i], end_block(prune, i), err);
    }
    return status == HW_OK ? hw_core_sync_tree(prune->core, err) : status;
}

static enum hw_status remove_dead(struct prune *prune, struct hw_error *err)
{
    struct hw_core *core = prune->core;

    hw_core_drop_old(core);
    for (size_t i = 0; i < prune->use_count; i++) {
        const struct segment_use *use = &prune->uses[i];
        char *path;
        enum hw_status status;

        if (!is_dead(prune, use))
            continue;
        path = hw_segment_path(core->dir, use->identity);
        if (path == NULL)
            return hw_fail(err, HW_ENOMEM, "%s: no memory to remove a segment", core->dir);
        status = core->env->ops->remove(core->env, path, err);
        hw_free(path);
        if (status != HW_OK && status != HW_ENOTFOUND)
            return status;
    }
    return core->env->ops->sync_dir(core->env, core->dir, err);
}

/* Decide about each file; copies are made here, nothing is removed yet. */
static enum hw_status thin_out(struct prune *prune, struct hw_error *err)
{
    for (size_t i = 0; i < prune->use_count; i++) {
        struct segment_use *use = &prune->uses[i];
        enum hw_status status;

        if (use->identity == prune->core->end.segment && (!prune->dry_run || use->dead_blocks == 0))
            continue;
        if (use->live_blocks == 0) {
            prune->freed += use->size;
            continue;
        }
        if (use->live_bytes >= use->size / LIVE_PART)
            continue;
        status = rewrite(prune, use, end_block(prune, i), err);
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* Before any block goes, so that nobody who looks after a crash expects it. */
static enum hw_status announce(struct prune *prune, struct hw_error *err)
{
    struct hw_core *core = prune->core;
    uint64_t before = core->log.first_kept;
    enum hw_status status;

    if (prune->first_kept <= before)
        return HW_OK;
    core->log.first_kept = prune->first_kept;
    status = hw_log_file_write(core->env, core->dir, &core->log, err);
    if (status != HW_OK)
        core->log.first_kept = before;
    return status;
}

static enum hw_status run(struct prune *prune, struct hw_error *err)
{
    struct hw_core *core = prune->core;
    enum hw_status status = load_uses(prune, err);

    if (status == HW_OK)
        status = sweep_slots(prune, false, err);
    if (status == HW_OK && !prune->dry_run) {
        const struct segment_use *current = find_use(prune, core->end.segment);

        /* Slots from the current segment on are made anew after a crash: close it first. */
        if (current != NULL && current->dead_blocks > 0)
            status = hw_core_rotate(core, core->fork, err);
        if (status == HW_OK) {
            for (size_t i = 0; i < prune->use_count; i++) {
                prune->uses[i].live_blocks = prune->uses[i].dead_blocks = 0;
                prune->uses[i].live_bytes = 0;
            }
            status = announce(prune, err);
        }
        if (status == HW_OK)
            status = sweep_slots(prune, true, err);
    }
    if (status == HW_OK)
        status = thin_out(prune, err);
    if (status != HW_OK || prune->dry_run)
        return status;
    status = settle(prune, err);
    return status == HW_OK ? remove_dead(prune, err) : status;
}

enum hw_status hw_core_prune(struct hw_core *core, bool (*keep)(void *ctx, uint64_t index),
                             void *ctx, bool dry_run, uint64_t *freed, struct hw_error *err)
{
    struct prune prune = {.core = core, .keep = keep, .ctx = ctx, .dry_run = dry_run};
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_prune(core, keep, ctx, dry_run, freed, err);
    status = dry_run ? HW_OK : hw_core_check_writable(core, err);

    assert(!core->batch.is_active);
    if (status == HW_OK && core->roots.length > 0)
        status = run(&prune, err);
    if (status == HW_OK)
        *freed = prune.freed;
    hw_free(prune.uses);
    return status;
}
