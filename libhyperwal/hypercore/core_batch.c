/* Implements append of hypercore/hypercore.h. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "hypercore/signature.h"

enum {
    STEP_MIN = 64 << 10, /* bytes reserved at a time */
    STEP_MAX = 4 << 20,
};

enum hw_status hw_core_poison(struct hw_core *core, enum hw_status status)
{
    core->is_poisoned = true;
    return status;
}

enum hw_status hw_core_check_writable(const struct hw_core *core, struct hw_error *err)
{
    if (core->mode != HW_CORE_WRITE)
        return hw_fail(err, HW_EREADONLY, "%s: the log is open for reading", core->dir);
    if (core->is_poisoned)
        return hw_fail(err, HW_EBROKEN,
                       "%s: an earlier write failed: close the log and open it again", core->dir);
    return HW_OK;
}

void hw_core_parent_made(void *ctx, const struct hw_node *parent)
{
    hw_tree_file_set_parent(&((struct hw_core *)ctx)->tree, parent);
}

/* ------------------------------------------------------------------------------ signature */

void hw_core_sign(const struct hw_core *core, const struct hw_roots *roots, uint64_t fork,
                  uint8_t tree_hash[HW_HASH_SIZE], uint8_t signature[HW_SIGNATURE_SIZE])
{
    uint8_t signable[HW_SIGNABLE_SIZE];
    struct hw_slice message = {signable, 0};

    hw_roots_hash(roots, tree_hash);
    message.size = hw_signable(core->identity.key, tree_hash, roots->length, fork, signable);
    hw_sign(core->secret_key, message, signature);
}

bool hw_core_signature_fits(const struct hw_core *core, const uint8_t tree_hash[HW_HASH_SIZE],
                            uint64_t length, uint64_t fork, const uint8_t *signature)
{
    uint8_t signable[HW_SIGNABLE_SIZE];
    struct hw_slice message = {signable, 0};

    message.size = hw_signable(core->identity.key, tree_hash, length, fork, signable);
    return hw_signature_fits(core->public_key, message, signature);
}

/* -------------------------------------------------------------------------------- records */

/*
 * Finish the record in `buffer`, whose data begins at HW_RECORD_HEAD_MAX: head before it, tail and
 * checksum behind it.  *at: where it begins.
 */
static enum hw_status record_finish(struct hw_record *record, const struct hw_core_batch *batch,
                                    struct hw_buffer *buffer, uint8_t chain[HW_SEGMENT_CHAIN_SIZE],
                                    size_t *at, struct hw_error *err)
{
    size_t data_end = buffer->size, head_size;
    struct hw_slice head, tail;

    hw_record_tail_encode(record, (const uint32_t *)(const void *)batch->sizes.bytes, buffer);
    if (hw_buffer_extend(buffer, HW_SEGMENT_CHAIN_SIZE) == NULL)
        return hw_fail(err, HW_ENOMEM, "log: no memory for a record");
    record->size = (uint32_t)(buffer->size - data_end) + record->data_size;
    /* The size is of fixed width, so the head's own length does not depend on it. */
    head_size = hw_record_head_encode(record, buffer->bytes + HW_RECORD_HEAD_MAX);
    record->size += (uint32_t)head_size;
    (void)hw_record_head_encode(record, buffer->bytes + HW_RECORD_HEAD_MAX);
    *at = HW_RECORD_HEAD_MAX - head_size;
    head = (struct hw_slice){buffer->bytes + *at, head_size};
    tail = (struct hw_slice){buffer->bytes + data_end,
                             buffer->size - data_end - HW_SEGMENT_CHAIN_SIZE};
    hw_record_checksum(chain, head, (struct hw_slice){batch->leaves.bytes, batch->leaves.size},
                       tail, chain);
    memcpy(buffer->bytes + buffer->size - HW_SEGMENT_CHAIN_SIZE, chain, HW_SEGMENT_CHAIN_SIZE);
    return HW_OK;
}

/* Keep room reserved ahead of the end, so that a sync need not extend the file. */
static void reserve(struct hw_core *core, uint64_t end)
{
    uint64_t step = end / 4;

    if (end <= core->allocated)
        return;
    step = step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
    /* Only for speed: if there is no room for all of it, the write itself may still fit. */
    if (core->env->ops->allocate(core->segment, end + step, NULL) == HW_OK)
        core->allocated = end + step;
    else
        core->allocated = end;
}

static uint32_t block_count(const struct hw_core_batch *batch)
{
    return (uint32_t)(batch->sizes.size / sizeof(uint32_t));
}

/* Empty the record in the making. */
static enum hw_status record_clear(struct hw_core_batch *batch, struct hw_error *err)
{
    hw_buffer_clear(&batch->record);
    hw_buffer_clear(&batch->sizes);
    hw_buffer_clear(&batch->leaves);
    batch->first = batch->roots.length;
    batch->start = batch->roots.byte_length;
    if (hw_buffer_extend(&batch->record, HW_RECORD_HEAD_MAX) == NULL)
        return hw_fail(err, HW_ENOMEM, "log: no memory for a record");
    return HW_OK;
}

/*
 * Write the record in the making.  `large` (may be NULL bytes) is the data of its only block, which
 * is not in the buffer.
 */
static enum hw_status record_write(struct hw_core *core, struct hw_record *record,
                                   struct hw_slice large, struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    struct hw_core_batch *batch = &core->batch;
    uint64_t offset = batch->end.offset;
    size_t at = 0;
    enum hw_status status;

    record->first = batch->first;
    record->start = batch->start;
    record->count = block_count(batch);
    record->data_size =
        (uint32_t)(large.bytes != NULL ? large.size : batch->record.size - HW_RECORD_HEAD_MAX);
    status = record_finish(record, batch, &batch->record, batch->end.chain, &at, err);
    if (status != HW_OK)
        return status;
    reserve(core, offset + record->size);
    if (large.bytes == NULL) {
        status = ops->write_at(core->segment, offset, batch->record.bytes + at,
                               batch->record.size - at, err);
    } else {
        size_t head = HW_RECORD_HEAD_MAX - at;

        status = ops->write_at(core->segment, offset, batch->record.bytes + at, head, err);
        if (status == HW_OK)
            status = ops->write_at(core->segment, offset + head, large.bytes, large.size, err);
        if (status == HW_OK)
            status = ops->write_at(core->segment, offset + head + large.size,
                                   batch->record.bytes + HW_RECORD_HEAD_MAX,
                                   batch->record.size - HW_RECORD_HEAD_MAX, err);
    }
    if (status != HW_OK)
        return hw_prefix(err, status, "%s: append", core->dir);
    batch->end.offset += record->size;
    return record_clear(batch, err);
}

static enum hw_status part_write(struct hw_core *core, struct hw_slice large, struct hw_error *err)
{
    struct hw_record record = {.kind = HW_RECORD_PART};

    return record_write(core, &record, large, err);
}

/* ------------------------------------------------------------------------------- segments */

struct first_commit { /* what a new segment begins with */
    struct hw_core *core;
    const struct hw_segment_header *header;
    uint8_t signature[HW_SIGNATURE_SIZE];
    uint8_t chain[HW_SEGMENT_CHAIN_SIZE]; /* after it */
    uint32_t size;
};

static enum hw_status write_first_commit(void *ctx, struct hw_file *file, struct hw_error *err)
{
    struct first_commit *first = ctx;
    const struct hw_core *core = first->core;
    struct hw_core_batch none = {0};
    struct hw_buffer buffer = {0};
    uint8_t header[HW_SEGMENT_HEADER_SIZE];
    struct hw_record record = {
        .kind = HW_RECORD_COMMIT,
        .first = core->roots.length,
        .start = core->roots.byte_length,
        .note = {core->note, core->note_size},
        .signature = {first->signature, HW_SIGNATURE_SIZE},
    };
    size_t at = 0;
    enum hw_status status;

    hw_segment_header_encode(first->header, header);
    memcpy(first->chain, header + HW_SEGMENT_HEADER_SIZE - HW_SEGMENT_CHAIN_SIZE,
           HW_SEGMENT_CHAIN_SIZE);
    (void)hw_buffer_extend(&buffer, HW_RECORD_HEAD_MAX); /* a failure stays, and shows below */
    status = record_finish(&record, &none, &buffer, first->chain, &at, err);
    if (status == HW_OK)
        status = file->env->ops->write_at(file, HW_SEGMENT_HEADER_SIZE, buffer.bytes + at,
                                          buffer.size - at, err);
    first->size = record.size;
    hw_buffer_release(&buffer);
    return status;
}

static void fill_header(struct hw_core *core, uint64_t fork, struct hw_segment_header *out)
{
    uint32_t number = hw_segment_number(core->end.segment) + 1;

    *out = (struct hw_segment_header){
        .identity = hw_segment_identity(number, 0),
        .first = core->roots.length,
        .start = core->roots.byte_length,
        .fork = fork,
    };
    hw_roots_hash(&core->roots, out->tree_hash);
    memcpy(out->discovery_key, core->identity.discovery_key, sizeof(out->discovery_key));
    core->env->ops->random(core->env, out->salt, sizeof(out->salt));
}

/* The new segment is there: go on in it. */
static void switch_segment(struct hw_core *core, struct hw_file *file,
                           const struct first_commit *first)
{
    const struct hw_segment_header *header = first->header;

    if (core->segment != NULL) {
        /* What was reserved and not used; if it fails, the file is larger than it need be. */
        (void)core->env->ops->truncate(core->segment, core->end.offset, NULL);
        core->env->ops->close(core->segment);
    }
    core->segment = file;
    core->fork = header->fork;
    core->end.segment = header->identity;
    core->end.offset = HW_SEGMENT_HEADER_SIZE + first->size;
    memcpy(core->end.chain, first->chain, sizeof(core->end.chain));
    core->allocated = core->end.offset;
    memcpy(core->tree_hash, header->tree_hash, HW_HASH_SIZE);
    memcpy(core->signature, first->signature, HW_SIGNATURE_SIZE);
    core->has_commit = true;
    core->before = (struct hw_tree_marker){
        .length = core->roots.length,
        .segment = header->identity,
        .offset = HW_SEGMENT_HEADER_SIZE,
    };
    memcpy(core->before.tree_hash, header->tree_hash, HW_HASH_SIZE);
}

enum hw_status hw_core_sync_tree(struct hw_core *core, struct hw_error *err)
{
    enum hw_status status = hw_tree_file_sync(&core->tree, &core->before, err);

    if (status != HW_OK)
        return hw_core_poison(core, status);
    core->marker_offset = core->before.offset;
    return HW_OK;
}

enum hw_status hw_core_rotate(struct hw_core *core, uint64_t fork, struct hw_error *err)
{
    struct hw_segment_header header;
    struct first_commit first = {.core = core, .header = &header};
    struct hw_file *file = NULL;
    uint8_t tree_hash[HW_HASH_SIZE];
    char *path = NULL;
    enum hw_status status;

    if (hw_segment_number(core->end.segment) >= HW_SEGMENT_NUMBER_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: no more segment numbers", core->dir);
    status = hw_tree_file_sync(&core->tree, &core->before, err);
    if (status != HW_OK)
        return hw_core_poison(core, status);
    fill_header(core, fork, &header);
    path = hw_segment_path(core->dir, header.identity);
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a segment", core->dir);
    hw_core_sign(core, &core->roots, fork, tree_hash, first.signature);
    status =
        hw_segment_create(core->env, core->dir, &header, write_first_commit, &first, &file, err);
    if (status != HW_OK) {
        struct hw_file_stat stat;

        /* If it has its name already, blocks appended to the old one would contradict it. */
        if (core->env->ops->stat(core->env, path, &stat, NULL) != HW_ENOTFOUND)
            (void)hw_core_poison(core, status);
        goto done;
    }
    switch_segment(core, file, &first);
    core->is_changed = true;
    status = hw_core_sync_tree(core, err);
done:
    hw_free(path);
    return status;
}

/* ---------------------------------------------------------------------------------- batch */

enum hw_status hw_core_batch_begin(struct hw_core *core, struct hw_error *err)
{
    struct hw_core_batch *batch = &core->batch;
    enum hw_status status = hw_core_check_writable(core, err);

    if (status != HW_OK)
        return status;
    assert(!batch->is_active);
    if (core->end.segment == 0 || core->end.offset >= core->segment_size) {
        status = hw_core_rotate(core, core->fork, err);
        if (status != HW_OK)
            return status;
    }
    batch->roots = core->roots;
    batch->end = core->end;
    batch->bytes = 0;
    batch->is_failed = false;
    status = record_clear(batch, err);
    if (status != HW_OK)
        return status;
    hw_tree_file_restart(&core->tree, core->roots.length);
    batch->is_active = true;
    return HW_OK;
}

static enum hw_status add(struct hw_core *core, const void *block, size_t size,
                          struct hw_error *err)
{
    struct hw_core_batch *batch = &core->batch;
    uint32_t size32 = (uint32_t)size;
    bool is_large = size > HW_BATCH_BUFFER_SIZE;
    struct hw_node leaf;
    enum hw_status status;

    if (batch->roots.length >= HW_TREE_LENGTH_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: the log is full", core->dir);
    if (block_count(batch) > 0 && (batch->record.size + size > HW_BATCH_BUFFER_SIZE ||
                                   block_count(batch) >= HW_RECORD_COUNT_MAX)) {
        status = part_write(core, (struct hw_slice){NULL, 0}, err);
        if (status != HW_OK)
            return status;
    }
    hw_node_leaf(batch->roots.length, (struct hw_slice){block, size}, &leaf);
    hw_buffer_add(&batch->sizes, &size32, sizeof(size32));
    hw_buffer_add(&batch->leaves, leaf.hash, HW_HASH_SIZE);
    if (!is_large)
        hw_buffer_add(&batch->record, block, size);
    hw_tree_file_add(&core->tree, &leaf, batch->roots.byte_length + size, batch->end.segment,
                     batch->end.offset);
    if (batch->sizes.failed || batch->leaves.failed || batch->record.failed ||
        hw_tree_file_failed(&core->tree))
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a block of %zu bytes", core->dir, size);
    hw_roots_push(&batch->roots, &leaf, hw_core_parent_made, core);
    batch->bytes += size;
    return is_large ? part_write(core, (struct hw_slice){block, size}, err) : HW_OK;
}

enum hw_status hw_core_batch_add(struct hw_core *core, const void *block, size_t size,
                                 struct hw_error *err)
{
    enum hw_status status;

    assert(core->batch.is_active);
    if (size > HW_BLOCK_SIZE_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: a block of %zu bytes, at most %d are possible",
                       core->dir, size, HW_BLOCK_SIZE_MAX);
    status = add(core, block, size, err);
    core->batch.is_failed = core->batch.is_failed || status != HW_OK;
    return status;
}

uint64_t hw_core_batch_next(const struct hw_core *core)
{
    return core->batch.is_active ? core->batch.roots.length : core->roots.length;
}

size_t hw_core_batch_bytes(const struct hw_core *core)
{
    return core->batch.is_active ? core->batch.bytes : 0;
}

void hw_core_batch_abort(struct hw_core *core)
{
    /* Parts that were written stay behind the end: the next record overwrites or unchains them. */
    core->batch.is_active = false;
    if (core->mode == HW_CORE_WRITE)
        hw_tree_file_restart(&core->tree, core->roots.length);
}

/* The batch is durable: it is the log now. */
static void batch_adopt(struct hw_core *core, const uint8_t tree_hash[HW_HASH_SIZE],
                        const uint8_t signature[HW_SIGNATURE_SIZE], const void *note,
                        size_t note_size)
{
    core->before = (struct hw_tree_marker){
        .length = core->roots.length,
        .segment = core->end.segment,
        .offset = core->end.offset,
    };
    memcpy(core->before.tree_hash, core->tree_hash, HW_HASH_SIZE);
    core->roots = core->batch.roots;
    core->end = core->batch.end;
    memcpy(core->tree_hash, tree_hash, HW_HASH_SIZE);
    memcpy(core->signature, signature, HW_SIGNATURE_SIZE);
    if (note_size > 0)
        memmove(core->note, note, note_size);
    core->note_size = note_size;
    core->is_changed = true;
    core->batch.is_active = false;
}

enum hw_status hw_core_batch_commit(struct hw_core *core, const void *note, size_t note_size,
                                    struct hw_error *err)
{
    uint8_t tree_hash[HW_HASH_SIZE], signature[HW_SIGNATURE_SIZE];
    struct hw_record record = {
        .kind = HW_RECORD_COMMIT,
        .note = {note, note_size},
        .signature = {signature, HW_SIGNATURE_SIZE},
    };
    enum hw_status status;

    assert(core->batch.is_active && note_size <= HW_NOTE_SIZE_MAX);
    if (core->batch.is_failed || hw_tree_file_failed(&core->tree)) {
        hw_core_batch_abort(core);
        return hw_fail(err, HW_EMISUSE, "%s: a block of the batch could not be added", core->dir);
    }
    hw_core_sign(core, &core->batch.roots, core->fork, tree_hash, signature);
    status = record_write(core, &record, (struct hw_slice){NULL, 0}, err);
    if (status != HW_OK) {
        hw_core_batch_abort(core);
        return status;
    }
    status = core->env->ops->sync(core->segment, err);
    if (status != HW_OK) {
        hw_core_batch_abort(core);
        return hw_core_poison(core, hw_prefix(err, status, "%s: sync", core->dir));
    }
    status = hw_tree_file_flush(&core->tree, err);
    if (status != HW_OK) { /* durable, but readers would not find it: the next open repairs it */
        hw_core_batch_abort(core);
        return hw_core_poison(core, hw_prefix(err, status, "%s: tree", core->dir));
    }
    batch_adopt(core, tree_hash, signature, note, note_size);
    if (core->before.offset > core->marker_offset + HW_CORE_MARKER_INTERVAL)
        return hw_core_sync_tree(core, err);
    return HW_OK;
}
