/* Implements base/buffer.h. */
#include "base/buffer.h"

#include <string.h>

#include "base/alloc.h"

void hw_buffer_release(struct hw_buffer *buffer)
{
    if (buffer == NULL)
        return;
    hw_free(buffer->bytes);
    *buffer = (struct hw_buffer){0};
}

void hw_buffer_clear(struct hw_buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
}

enum hw_status hw_buffer_reserve(struct hw_buffer *buffer, size_t size)
{
    size_t capacity = buffer->capacity;
    uint8_t *bytes;

    if (size > SIZE_MAX / 2 - buffer->size)
        return HW_ENOMEM;
    if (buffer->size + size <= capacity && capacity > 0)
        return HW_OK; /* there is memory even for nothing, so that its address can be told */
    capacity = capacity < 64 ? 64 : capacity;
    while (capacity < buffer->size + size)
        capacity += capacity / 2;
    bytes = hw_realloc(buffer->bytes, capacity);
    if (bytes == NULL)
        return HW_ENOMEM;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return HW_OK;
}

uint8_t *hw_buffer_extend(struct hw_buffer *buffer, size_t size)
{
    uint8_t *start;

    if (buffer->failed || hw_buffer_reserve(buffer, size) != HW_OK) {
        buffer->failed = true;
        return NULL;
    }
    start = buffer->bytes + buffer->size;
    buffer->size += size;
    return start;
}

void hw_buffer_add(struct hw_buffer *buffer, const void *bytes, size_t size)
{
    uint8_t *start = hw_buffer_extend(buffer, size);

    if (start != NULL && size > 0)
        memcpy(start, bytes, size);
}

void hw_buffer_add_u8(struct hw_buffer *buffer, uint8_t value)
{
    hw_buffer_add(buffer, &value, 1);
}

void hw_buffer_add_le32(struct hw_buffer *buffer, uint32_t value)
{
    uint8_t bytes[4];

    hw_put_le32(bytes, value);
    hw_buffer_add(buffer, bytes, sizeof(bytes));
}

void hw_buffer_add_le64(struct hw_buffer *buffer, uint64_t value)
{
    uint8_t bytes[8];

    hw_put_le64(bytes, value);
    hw_buffer_add(buffer, bytes, sizeof(bytes));
}

void hw_buffer_add_uint(struct hw_buffer *buffer, uint64_t value)
{
    uint8_t bytes[9];
    size_t size;

    hw_put_le64(bytes + 1, value);
    if (value <= 0xfc) {
        bytes[0] = (uint8_t)value;
        size = 1;
    } else if (value <= 0xffff) {
        bytes[0] = 0xfd;
        size = 3;
    } else if (value <= 0xffffffff) {
        bytes[0] = 0xfe;
        size = 5;
    } else {
        bytes[0] = 0xff;
        size = 9;
    }
    hw_buffer_add(buffer, bytes, size);
}

const uint8_t *hw_cursor_bytes(struct hw_cursor *cursor, size_t size)
{
    const uint8_t *start = cursor->next;

    if (cursor->failed || hw_cursor_left(cursor) < size) {
        cursor->failed = true;
        return NULL;
    }
    cursor->next += size;
    return start;
}

uint8_t hw_cursor_u8(struct hw_cursor *cursor)
{
    const uint8_t *p = hw_cursor_bytes(cursor, 1);

    return p == NULL ? 0 : *p;
}

uint32_t hw_cursor_le32(struct hw_cursor *cursor)
{
    const uint8_t *p = hw_cursor_bytes(cursor, 4);

    return p == NULL ? 0 : hw_get_le32(p);
}

uint64_t hw_cursor_le64(struct hw_cursor *cursor)
{
    const uint8_t *p = hw_cursor_bytes(cursor, 8);

    return p == NULL ? 0 : hw_get_le64(p);
}

uint64_t hw_cursor_uint(struct hw_cursor *cursor)
{
    uint8_t first = hw_cursor_u8(cursor);
    const uint8_t *p;

    if (first <= 0xfc)
        return first;
    if (first == 0xfd) {
        p = hw_cursor_bytes(cursor, 2);
        return p == NULL ? 0 : hw_get_le16(p);
    }
    return first == 0xfe ? hw_cursor_le32(cursor) : hw_cursor_le64(cursor);
}
