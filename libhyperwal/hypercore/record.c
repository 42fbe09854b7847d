/* Implements the records of hypercore/segment.h. */
#include "hypercore/segment.h"

#include <assert.h>
#include <string.h>

bool hw_record_head_decode(const uint8_t *bytes, size_t size, struct hw_record *out)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);
    struct hw_record record = {.size = hw_cursor_le32(&cursor)};
    uint8_t kind = hw_cursor_u8(&cursor);
    uint64_t data_size, count;

    record.first = hw_cursor_uint(&cursor);
    record.start = hw_cursor_uint(&cursor);
    data_size = hw_cursor_uint(&cursor);
    count = hw_cursor_uint(&cursor);
    if (cursor.failed || kind < HW_RECORD_PART || kind > HW_RECORD_KEPT ||
        record.size > HW_RECORD_SIZE_MAX || data_size > record.size ||
        count > HW_RECORD_COUNT_MAX || (count == 0 && data_size > 0) ||
        record.first > HW_TREE_LENGTH_MAX - count || record.start >= UINT64_C(1) << 48)
        return false;
    record.kind = (enum hw_record_kind)kind;
    record.data_size = (uint32_t)data_size;
    record.count = (uint32_t)count;
    record.data_at = (uint32_t)(cursor.next - bytes);
    *out = record;
    return true;
}

static struct hw_slice take(struct hw_cursor *cursor, size_t size)
{
    struct hw_slice slice = {hw_cursor_bytes(cursor, size), size};

    return slice;
}

bool hw_record_decode(const uint8_t *bytes, size_t size, struct hw_record *out)
{
    struct hw_record record;
    struct hw_cursor cursor;
    uint64_t sum = 0;

    if (!hw_record_head_decode(bytes, size, &record) || record.size > size ||
        record.size < record.data_at + HW_SEGMENT_CHAIN_SIZE)
        return false;
    cursor =
        hw_cursor(bytes + record.data_at, record.size - record.data_at - HW_SEGMENT_CHAIN_SIZE);
    record.data = take(&cursor, record.data_size);
    record.sizes.bytes = cursor.next;
    for (uint32_t i = 1; i < record.count && !cursor.failed; i++) {
        uint64_t block = hw_cursor_uint(&cursor);

        if (block > record.data_size)
            return false;
        sum += block;
    }
    record.sizes.size = (size_t)(cursor.next - record.sizes.bytes);
    if (cursor.failed || sum > record.data_size)
        return false;
    if (record.kind == HW_RECORD_COMMIT) {
        uint64_t note_size = hw_cursor_uint(&cursor);

        if (note_size > HW_NOTE_SIZE_MAX)
            return false;
        record.note = take(&cursor, (size_t)note_size);
        record.signature = take(&cursor, HW_SIGNATURE_SIZE);
    }
    if (cursor.failed || hw_cursor_left(&cursor) > 0)
        return false;
    *out = record;
    return true;
}

bool hw_record_next_size(const struct hw_record *record, struct hw_slice *sizes, uint32_t i,
                         uint32_t used, uint32_t *out)
{
    struct hw_cursor cursor = hw_cursor(sizes->bytes, sizes->size);

    if (i + 1 == record->count) {
        *out = record->data_size - used;
        return true;
    }
    *out = (uint32_t)hw_cursor_uint(&cursor);
    sizes->bytes = cursor.next;
    sizes->size = hw_cursor_left(&cursor);
    return !cursor.failed && *out <= record->data_size - used;
}

size_t hw_record_head_encode(const struct hw_record *record, uint8_t *end)
{
    uint8_t head[HW_RECORD_HEAD_MAX];
    struct hw_buffer buffer = {.bytes = head, .capacity = sizeof(head)}; /* never grows */

    hw_buffer_add_le32(&buffer, record->size);
    hw_buffer_add_u8(&buffer, (uint8_t)record->kind);
    hw_buffer_add_uint(&buffer, record->first);
    hw_buffer_add_uint(&buffer, record->start);
    hw_buffer_add_uint(&buffer, record->data_size);
    hw_buffer_add_uint(&buffer, record->count);
    assert(buffer.bytes == head && !buffer.failed);
    memcpy(end - buffer.size, head, buffer.size);
    return buffer.size;
}

void hw_record_tail_encode(const struct hw_record *record, const uint32_t *sizes,
                           struct hw_buffer *out)
{
    for (uint32_t i = 0; i + 1 < record->count; i++)
        hw_buffer_add_uint(out, sizes[i]);
    if (record->kind != HW_RECORD_COMMIT)
        return;
    hw_buffer_add_uint(out, record->note.size);
    hw_buffer_add(out, record->note.bytes, record->note.size);
    hw_buffer_add(out, record->signature.bytes, HW_SIGNATURE_SIZE);
}

void hw_record_checksum(const uint8_t chain[HW_SEGMENT_CHAIN_SIZE], struct hw_slice head,
                        struct hw_slice leaves, struct hw_slice tail,
                        uint8_t out[HW_SEGMENT_CHAIN_SIZE])
{
    struct hw_slice parts[4] = {{chain, HW_SEGMENT_CHAIN_SIZE}, head, leaves, tail};
    uint8_t hash[HW_HASH_SIZE];

    hw_hash(parts, 4, hash);
    memcpy(out, hash, HW_SEGMENT_CHAIN_SIZE);
}
