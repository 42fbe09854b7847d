/*
 * base/buffer.h - bytes that grow, with a bound, and a cursor over bytes that came from outside
 *
 * A failed append or read marks the object; the caller checks once at the end.  An all-zero
 * buffer is valid and empty.
 */
#ifndef HW_BASE_BUFFER_H
#define HW_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct hw_buffer {
    uint8_t *bytes; /* owned */
    size_t size;
    size_t capacity;
    bool failed; /* an append found no memory: the content is not to be used */
};

void hw_buffer_release(struct hw_buffer *buffer);
void hw_buffer_clear(struct hw_buffer *buffer); /* size 0, keeps the memory */
/* Make room for `size` more bytes. */
enum hw_status hw_buffer_reserve(struct hw_buffer *buffer, size_t size) HW_MUST_CHECK;
/* `size` more bytes of undefined content, or NULL (and failed). */
uint8_t *hw_buffer_extend(struct hw_buffer *buffer, size_t size);
void hw_buffer_add(struct hw_buffer *buffer, const void *bytes, size_t size);
void hw_buffer_add_u8(struct hw_buffer *buffer, uint8_t value);
void hw_buffer_add_le32(struct hw_buffer *buffer, uint32_t value);
void hw_buffer_add_le64(struct hw_buffer *buffer, uint64_t value);
/* Hypercore's compact encoding: `uint`, in the shortest form (docs/FORMAT.md). */
void hw_buffer_add_uint(struct hw_buffer *buffer, uint64_t value);

struct hw_cursor {
    const uint8_t *next; /* borrowed */
    const uint8_t *end;
    bool failed; /* a read went beyond the end; that one and all later ones gave 0 */
};

static inline struct hw_cursor hw_cursor(const void *bytes, size_t size)
{
    const uint8_t *start = bytes;

    return (struct hw_cursor){.next = start, .end = size == 0 ? start : start + size};
}

static inline size_t hw_cursor_left(const struct hw_cursor *cursor)
{
    return (size_t)(cursor->end - cursor->next);
}

uint8_t hw_cursor_u8(struct hw_cursor *cursor);
uint32_t hw_cursor_le32(struct hw_cursor *cursor);
uint64_t hw_cursor_le64(struct hw_cursor *cursor);
uint64_t hw_cursor_uint(struct hw_cursor *cursor);
/* The next `size` bytes, borrowed from what the cursor reads; NULL (and failed) if there are
 * fewer. */
const uint8_t *hw_cursor_bytes(struct hw_cursor *cursor, size_t size);

#endif
