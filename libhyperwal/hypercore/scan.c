/* Implements the scan of hypercore/segment.h. */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/segment.h"

enum {
    READ_AHEAD_MIN = 4096,      /* bytes */
    READ_AHEAD_MAX = 256 << 10, /* bytes */
    WINDOW_KEPT = 1 << 20,      /* bytes from one scan to the next */
};

void hw_segment_scan_start(struct hw_segment_scan *scan, struct hw_file *file, uint64_t offset,
                           const uint8_t chain[HW_SEGMENT_CHAIN_SIZE])
{
    scan->env = file->env;
    scan->file = file;
    scan->offset = offset;
    memmove(scan->chain, chain, HW_SEGMENT_CHAIN_SIZE);
    if (scan->window.capacity > WINDOW_KEPT) /* a large block went by */
        hw_buffer_release(&scan->window);
    hw_buffer_clear(&scan->window); /* what was read before may have been overwritten since */
    scan->window_at = offset;
    scan->read_ahead = READ_AHEAD_MIN;
}

/* Have `size` bytes from scan->offset on in the window, zeros behind the end of the file. */
static enum hw_status fill(struct hw_segment_scan *scan, size_t size, const uint8_t **out,
                           struct hw_error *err)
{
    size_t skip = (size_t)(scan->offset - scan->window_at);
    size_t want = size > scan->read_ahead ? size : scan->read_ahead;
    enum hw_status status;

    if (skip + size <= scan->window.size) {
        *out = scan->window.bytes + skip;
        return HW_OK;
    }
    hw_buffer_clear(&scan->window);
    if (hw_buffer_extend(&scan->window, want) == NULL)
        return hw_fail(err, HW_ENOMEM, "log: no memory to read %zu bytes", want);
    scan->window_at = scan->offset;
    if (scan->read_ahead < READ_AHEAD_MAX)
        scan->read_ahead *= 2;
    status = scan->env->ops->read_at(scan->file, scan->offset, scan->window.bytes, want, err);
    if (status < 0) {
        hw_buffer_clear(&scan->window);
        return status;
    }
    *out = scan->window.bytes;
    return HW_OK;
}

/* The leaf of each block of the record, into scan->leaves.  HW_END: the sizes do not add up. */
static enum hw_status hash_leaves(struct hw_segment_scan *scan, const struct hw_record *record,
                                  struct hw_error *err)
{
    struct hw_slice sizes = record->sizes;
    uint32_t used = 0;

    hw_buffer_clear(&scan->leaves);
    hw_buffer_clear(&scan->hashes);
    for (uint32_t i = 0; i < record->count; i++) {
        struct hw_node leaf;
        uint32_t size;

        if (!hw_record_next_size(record, &sizes, i, used, &size))
            return HW_END;
        hw_node_leaf(record->first + i, (struct hw_slice){record->data.bytes + used, size}, &leaf);
        hw_buffer_add(&scan->leaves, &leaf, sizeof(leaf));
        hw_buffer_add(&scan->hashes, leaf.hash, HW_HASH_SIZE);
        used += size;
    }
    if (scan->leaves.failed || scan->hashes.failed)
        return hw_fail(err, HW_ENOMEM, "log: no memory for %u hashes", record->count);
    return HW_OK;
}

enum hw_status hw_segment_scan_next(struct hw_segment_scan *scan, struct hw_record *out,
                                    struct hw_error *err)
{
    uint8_t checksum[HW_SEGMENT_CHAIN_SIZE];
    const uint8_t *bytes = NULL, *tail;
    struct hw_record record;
    enum hw_status status;

    status = fill(scan, HW_RECORD_HEAD_MAX, &bytes, err);
    if (status != HW_OK)
        return status;
    if (!hw_record_head_decode(bytes, HW_RECORD_HEAD_MAX, &record))
        return HW_END;
    status = fill(scan, record.size, &bytes, err);
    if (status != HW_OK)
        return status;
    if (!hw_record_decode(bytes, record.size, &record))
        return HW_END;
    status = hash_leaves(scan, &record, err);
    if (status != HW_OK)
        return status;
    tail = record.data.bytes + record.data_size;
    hw_record_checksum(
        scan->chain, (struct hw_slice){bytes, record.data_at},
        (struct hw_slice){scan->hashes.bytes, scan->hashes.size},
        (struct hw_slice){tail, (size_t)(bytes + record.size - HW_SEGMENT_CHAIN_SIZE - tail)},
        checksum);
    if (memcmp(checksum, bytes + record.size - HW_SEGMENT_CHAIN_SIZE, sizeof(checksum)) != 0)
        return HW_END;
    memcpy(scan->chain, checksum, sizeof(checksum));
    scan->offset += record.size;
    *out = record;
    return HW_OK;
}

void hw_segment_scan_release(struct hw_segment_scan *scan)
{
    hw_buffer_release(&scan->window);
    hw_buffer_release(&scan->leaves);
    hw_buffer_release(&scan->hashes);
    scan->file = NULL;
}
