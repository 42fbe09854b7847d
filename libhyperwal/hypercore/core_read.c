/* Implements reading of hypercore/hypercore.h. */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum {
    TRIES = 3, /* pruning may move a block between two looks */
    AHEAD_SIZE = 64 << 10,
    AHEAD_BLOCK_MAX = 4 << 10, /* what is larger costs more to copy than to read for itself */
};

void hw_core_drop_ahead(struct hw_core *core)
{
    core->ahead.slots.count = 0;
    core->ahead.record_segment = 0;
    core->ahead.window_size = 0;
}

enum hw_status hw_core_segment_file(struct hw_core *core, uint32_t identity, struct hw_file **out,
                                    struct hw_error *err)
{
    struct hw_segment_header header;
    struct hw_file *file = NULL;
    enum hw_status status;

    if (identity == core->end.segment && core->segment != NULL) {
        *out = core->segment;
        return HW_OK;
    }
    if (core->old == NULL || core->old_identity != identity) {
        status = hw_segment_open(core->env, core->dir, identity, false,
                                 core->identity.discovery_key, &header, &file, err);
        if (status != HW_OK)
            return status;
        hw_core_drop_old(core);
        core->old = file;
        core->old_identity = identity;
    }
    *out = core->old;
    return HW_OK;
}

struct place { /* of a block */
    struct hw_slot slot;
    uint64_t start; /* bytes of all blocks before it */
    size_t size;
};

static enum hw_status find_block(struct hw_core *core, uint64_t index, bool ahead,
                                 struct place *out, struct hw_error *err)
{
    enum hw_status status;

    if (core->is_poisoned && core->mode == HW_CORE_READ)
        return hw_fail(err, HW_EBROKEN, "%s: a look did not find blocks that are to be there",
                       core->dir);
    if (index >= core->roots.length)
        return hw_fail(err, HW_ENOTFOUND, "%s: block %llu is not there, the log has %llu",
                       core->dir, (unsigned long long)index,
                       (unsigned long long)core->roots.length);
    status = ahead ? hw_tree_file_block_ahead(&core->tree, index, core->roots.length,
                                              &core->ahead.slots, &out->start, &out->slot, err)
                   : hw_tree_file_block(&core->tree, index, &out->start, &out->slot, err);
    if (status != HW_OK)
        return status;
    if (out->slot.end - out->start > HW_BLOCK_SIZE_MAX)
        return hw_fail(err, HW_ECORRUPT, "%s/tree: block %llu of %llu bytes", core->dir,
                       (unsigned long long)index, (unsigned long long)(out->slot.end - out->start));
    out->size = (size_t)(out->slot.end - out->start);
    return HW_OK;
}

/* Bytes of a segment through the window.  HW_END: some lie beyond the end of the file. */
static enum hw_status read_window(struct hw_core *core, uint32_t segment, uint64_t offset,
                                  size_t size, uint8_t *out, struct hw_error *err)
{
    struct hw_core_ahead *ahead = &core->ahead;
    struct hw_file *file;
    enum hw_status status;

    if (ahead->window_size == 0 || segment != ahead->window_segment ||
        offset < ahead->window_offset ||
        offset - ahead->window_offset + size > ahead->window_size) {
        ahead->window_size = 0;
        status = hw_core_segment_file(core, segment, &file, err);
        if (status == HW_OK)
            status = core->env->ops->read_at(file, offset, ahead->window, AHEAD_SIZE, err);
        if (status < 0)
            return status;
        ahead->window_size = AHEAD_SIZE; /* zeros behind the end */
        ahead->window_segment = segment;
        ahead->window_offset = offset;
    }
    memcpy(out, ahead->window + (offset - ahead->window_offset), size);
    return HW_OK;
}

static bool holds_block(const struct hw_record *record, uint64_t index, const struct place *place)
{
    return index >= record->first && index - record->first < record->count &&
           place->start >= record->start && place->slot.end - record->start <= record->data_size;
}

/* A whole small block after the one read last.  HW_END: it is not where it is looked for. */
static enum hw_status read_ahead(struct hw_core *core, uint64_t index, const struct place *place,
                                 struct hw_buffer *out, struct hw_error *err)
{
    struct hw_core_ahead *ahead = &core->ahead;
    uint64_t offset = place->slot.offset;
    enum hw_status status = HW_OK;

    if (place->slot.segment == 0)
        return HW_END;
    hw_buffer_clear(out);
    if (hw_buffer_extend(out, place->size) == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a block of %zu bytes", core->dir,
                       place->size);
    if (ahead->record_segment != place->slot.segment || ahead->record_offset != offset) {
        uint8_t head[HW_RECORD_HEAD_MAX];

        ahead->record_segment = 0;
        status = read_window(core, place->slot.segment, offset, sizeof(head), head, err);
        if (status != HW_OK || !hw_record_head_decode(head, sizeof(head), &ahead->record))
            return status < 0 ? status : HW_END;
        ahead->record_segment = place->slot.segment;
        ahead->record_offset = offset;
    }
    if (!holds_block(&ahead->record, index, place))
        return HW_END;
    return read_window(core, place->slot.segment,
                       offset + ahead->record.data_at + (place->start - ahead->record.start),
                       place->size, out->bytes, err);
}

/* May this block be read ahead of its turn?  Only a reader's: it never writes. */
static bool goes_on(struct hw_core *core, uint64_t index)
{
    if (core->mode != HW_CORE_READ || index == 0 || index != core->ahead.next)
        return false;
    if (core->ahead.window == NULL)
        core->ahead.window = hw_alloc(AHEAD_SIZE); /* without it, block by block */
    return core->ahead.window != NULL;
}

/* The first `size` bytes of a block into *out.  HW_END: the place does not hold that block. */
static enum hw_status read_bytes(struct hw_core *core, uint64_t index, const struct place *place,
                                 size_t size, struct hw_buffer *out, struct hw_error *err)
{
    struct hw_record record;
    struct hw_file *file;
    uint64_t offset = place->slot.offset, skip;
    enum hw_status status;

    if (place->slot.segment == 0)
        return HW_END; /* a torn slot: read_block() says so */
    status = hw_core_segment_file(core, place->slot.segment, &file, err);
    if (status != HW_OK)
        return status;
    hw_buffer_clear(out);
    if (hw_buffer_extend(out, HW_RECORD_HEAD_MAX + size) == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a block of %zu bytes", core->dir, size);
    /* Mostly a record is one block, and this is all that has to be read. */
    status = core->env->ops->read_at(file, offset, out->bytes, out->size, err);
    if (status < 0)
        return status;
    if (!hw_record_head_decode(out->bytes, HW_RECORD_HEAD_MAX, &record) ||
        !holds_block(&record, index, place))
        return HW_END;
    skip = place->start - record.start;
    if (skip == 0) {
        memmove(out->bytes, out->bytes + record.data_at, size);
    } else {
        status =
            core->env->ops->read_at(file, offset + record.data_at + skip, out->bytes, size, err);
        if (status < 0)
            return status;
    }
    out->size = size;
    return HW_OK;
}

/* The same, checked if it is the whole block. */
static enum hw_status read_checked(struct hw_core *core, uint64_t index, bool ahead,
                                   const struct place *place, size_t size, struct hw_buffer *out,
                                   struct hw_error *err)
{
    struct hw_node leaf;
    enum hw_status status = ahead && size <= AHEAD_BLOCK_MAX
                                ? read_ahead(core, index, place, out, err)
                                : read_bytes(core, index, place, size, out, err);

    if (status != HW_OK || size < place->size)
        return status;
    hw_node_leaf(index, (struct hw_slice){out->bytes, out->size}, &leaf);
    return memcmp(leaf.hash, place->slot.leaf, HW_HASH_SIZE) == 0 ? HW_OK : HW_END;
}

/*
 * The slot's offset is wrong, torn when the block was moved: search its segment for the block.
 * HW_END: it is not there.
 */
static enum hw_status search_segment(struct hw_core *core, uint64_t index, struct place *place,
                                     struct hw_error *err)
{
    uint8_t head[HW_RECORD_HEAD_MAX];
    uint64_t offset = HW_SEGMENT_HEADER_SIZE;
    struct hw_record record;
    struct hw_file *file;
    enum hw_status status;

    if (place->slot.segment == 0)
        return HW_END;
    status = hw_core_segment_file(core, place->slot.segment, &file, err);
    if (status != HW_OK)
        return status;
    for (;;) {
        status = core->env->ops->read_at(file, offset, head, sizeof(head), err);
        if (status < 0)
            return status;
        if (!hw_record_head_decode(head, sizeof(head), &record) || record.size == 0)
            return HW_END;
        if (index >= record.first && index - record.first < record.count)
            break;
        offset += record.size;
    }
    place->slot.offset = offset;
    return HW_OK;
}

/* At most `size` bytes of a block; checked if that is all of it. */
static enum hw_status read_block(struct hw_core *core, uint64_t index, size_t size,
                                 struct hw_buffer *out, struct hw_error *err)
{
    struct place place = {0};
    size_t want = 0;
    enum hw_status status = HW_END;

    for (int i = 0; i < TRIES; i++) {
        bool ahead = i == 0 && size == SIZE_MAX && goes_on(core, index);

        status = find_block(core, index, ahead, &place, err);
        if (ahead && status == HW_ECORRUPT) {
            hw_core_drop_ahead(core);
            status = find_block(core, index, false, &place, err);
        }
        if (status != HW_OK)
            return status;
        if (place.slot.is_pruned)
            return hw_fail(err, HW_EPRUNED, "%s: block %llu was pruned", core->dir,
                           (unsigned long long)index);
        want = size < place.size ? size : place.size; /* anew: the slot may have been misread */
        status = read_checked(core, index, ahead, &place, want, out, err);
        if (status == HW_OK || (status < 0 && status != HW_ENOTFOUND && status != HW_ECORRUPT))
            return status;
        hw_core_drop_ahead(core);
        hw_core_drop_old(core); /* pruning may have moved the block, or removed the file */
    }
    if (status == HW_END) {
        status = search_segment(core, index, &place, err);
        if (status == HW_OK)
            status = read_checked(core, index, false, &place, want, out, err);
        if (status == HW_OK)
            return HW_OK;
    }
    if (status < 0)
        return hw_prefix(err, status == HW_ENOTFOUND ? HW_ECORRUPT : status, "block %llu",
                         (unsigned long long)index);
    return hw_fail(err, HW_ECORRUPT,
                   "%s/%08u.seg: block %llu, in the record at %llu, does not check: restore the "
                   "file from a copy",
                   core->dir, (unsigned)hw_segment_number(place.slot.segment),
                   (unsigned long long)index, (unsigned long long)place.slot.offset);
}

enum hw_status hw_core_read(struct hw_core *core, uint64_t index, struct hw_buffer *out,
                            struct hw_error *err)
{
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_read(core, index, SIZE_MAX, out, err);
    status = read_block(core, index, SIZE_MAX, out, err);
    if (status == HW_OK)
        core->ahead.next = index + 1;
    return status;
}

enum hw_status hw_core_read_head(struct hw_core *core, uint64_t index, size_t size,
                                 struct hw_buffer *out, struct hw_error *err)
{
    if (core->mirror != NULL)
        return hw_mirror_read(core, index, size, out, err);
    return read_block(core, index, size, out, err);
}

enum hw_status hw_core_block_size(struct hw_core *core, uint64_t index, uint64_t *out,
                                  struct hw_error *err)
{
    struct place place = {0};
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_block_size(core, index, out, err);
    status = find_block(core, index, false, &place, err);
    if (status == HW_OK)
        *out = place.size;
    return status;
}
