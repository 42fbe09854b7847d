/* Implements wire/write_message.h. */
#include "wire/write_message.h"

#include <assert.h>

/* ------------------------------------------------------------------------------- encode */

static void add_words(const struct hw_write_message *m, struct hw_buffer *out)
{
    size_t size = m->body.size < HW_WRITE_TEXT_MAX ? m->body.size : HW_WRITE_TEXT_MAX;

    hw_buffer_add_uint(out, size);
    hw_buffer_add(out, m->body.bytes, size);
}

static void leased_encode(const struct hw_write_message *m, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, m->status);
    if (m->status != HW_WRITE_OK) {
        add_words(m, out);
        return;
    }
    hw_buffer_add_uint(out, m->fence);
    hw_buffer_add_uint(out, m->ms);
    hw_buffer_add_uint(out, m->length);
}

static void commit_encode(const struct hw_write_message *m, struct hw_buffer *out)
{
    hw_buffer_add(out, m->id.bytes, sizeof(m->id.bytes));
    hw_buffer_add_le64(out, m->sum_before);
    hw_buffer_add_le64(out, m->sum_after);
    hw_buffer_add_uint(out, m->page_count);
    hw_buffer_add_uint(out, m->part_count);
}

static void committed_encode(const struct hw_write_message *m, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, m->status);
    hw_buffer_add_uint(out, m->kept ? 1 : 0);
    if (m->status == HW_WRITE_OK)
        hw_buffer_add_uint(out, m->seq);
    else
        add_words(m, out);
}

void hw_write_message_encode(const struct hw_write_message *m, struct hw_buffer *out)
{
    if (m->type == HW_WRITE_RELEASE || m->type == HW_WRITE_RECALL) {
        hw_buffer_add_uint(out, m->fence);
        return;
    }
    hw_buffer_add_uint(out, m->request);
    switch (m->type) {
    case HW_WRITE_LEASED:
        leased_encode(m, out);
        break;
    case HW_WRITE_COMMIT:
        commit_encode(m, out);
        break;
    case HW_WRITE_PART:
        hw_buffer_add_uint(out, m->body.size);
        hw_buffer_add(out, m->body.bytes, m->body.size);
        break;
    case HW_WRITE_COMMITTED:
        committed_encode(m, out);
        break;
    case HW_WRITE_QUESTION:
        hw_buffer_add(out, m->id.bytes, sizeof(m->id.bytes));
        break;
    case HW_WRITE_OUTCOME:
        hw_buffer_add_uint(out, m->status);
        if (m->status == HW_WRITE_OK)
            hw_buffer_add_uint(out, m->seq);
        break;
    case HW_WRITE_LEASE:
    case HW_WRITE_WAITS:
    case HW_WRITE_RELEASE:
    case HW_WRITE_RECALL:
        break;
    }
}

/* ------------------------------------------------------------------------------- decode */

static enum hw_write_status read_status(struct hw_cursor *cursor)
{
    uint64_t status = hw_cursor_uint(cursor);

    if (status >= HW_WRITE_STATUS_COUNT) {
        cursor->failed = true;
        return HW_WRITE_FAILED;
    }
    return (enum hw_write_status)status;
}

/* The cursor fails if there are none, or more. */
static struct hw_slice read_bytes(struct hw_cursor *cursor, size_t size_max)
{
    uint64_t size = hw_cursor_uint(cursor);
    const uint8_t *bytes;

    if (size > size_max)
        cursor->failed = true;
    bytes = hw_cursor_bytes(cursor, cursor->failed ? 0 : (size_t)size);
    return bytes == NULL ? (struct hw_slice){NULL, 0} : (struct hw_slice){bytes, (size_t)size};
}

static void read_id(struct hw_cursor *cursor, struct hw_origin *id)
{
    const uint8_t *bytes = hw_cursor_bytes(cursor, sizeof(id->bytes));

    if (bytes != NULL)
        memcpy(id->bytes, bytes, sizeof(id->bytes));
}

static void leased_decode(struct hw_cursor *cursor, struct hw_write_message *m)
{
    m->status = read_status(cursor);
    if (m->status != HW_WRITE_OK) {
        m->body = read_bytes(cursor, HW_WRITE_TEXT_MAX);
        return;
    }
    m->fence = hw_cursor_uint(cursor);
    m->ms = hw_cursor_uint(cursor);
    m->length = hw_cursor_uint(cursor);
}

static void commit_decode(struct hw_cursor *cursor, struct hw_write_message *m)
{
    read_id(cursor, &m->id);
    m->sum_before = hw_cursor_le64(cursor);
    m->sum_after = hw_cursor_le64(cursor);
    m->page_count = hw_cursor_uint(cursor);
    m->part_count = hw_cursor_uint(cursor);
    if (m->page_count == 0 || m->page_count > UINT32_MAX || m->part_count == 0 ||
        m->part_count > HW_WRITE_PARTS_MAX)
        cursor->failed = true;
}

static void committed_decode(struct hw_cursor *cursor, struct hw_write_message *m)
{
    m->status = read_status(cursor);
    m->kept = (hw_cursor_uint(cursor) & 1) != 0;
    if (m->status == HW_WRITE_OK)
        m->seq = hw_cursor_uint(cursor);
    else
        m->body = read_bytes(cursor, HW_WRITE_TEXT_MAX);
}

enum hw_status hw_write_message_decode(uint64_t type, struct hw_slice payload,
                                       struct hw_write_message *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_write_message m = {.type = (enum hw_write_type)type};

    assert(type >= HW_WRITE_LEASE && type <= HW_WRITE_WAITS);
    if (m.type == HW_WRITE_RELEASE || m.type == HW_WRITE_RECALL)
        m.fence = hw_cursor_uint(&cursor);
    else
        m.request = hw_cursor_uint(&cursor);
    switch (m.type) {
    case HW_WRITE_LEASED:
        leased_decode(&cursor, &m);
        break;
    case HW_WRITE_COMMIT:
        commit_decode(&cursor, &m);
        break;
    case HW_WRITE_PART:
        m.body = read_bytes(&cursor, HW_WRITE_PART_MAX);
        break;
    case HW_WRITE_COMMITTED:
        committed_decode(&cursor, &m);
        break;
    case HW_WRITE_QUESTION:
        read_id(&cursor, &m.id);
        break;
    case HW_WRITE_OUTCOME:
        m.status = read_status(&cursor);
        m.seq = m.status == HW_WRITE_OK ? hw_cursor_uint(&cursor) : 0;
        break;
    case HW_WRITE_LEASE:
    case HW_WRITE_WAITS:
    case HW_WRITE_RELEASE:
    case HW_WRITE_RECALL:
        break;
    }
    if (cursor.failed)
        return hw_fail(err, HW_EPROTOCOL, "hyperwal channel: a malformed message of type %d",
                       (int)m.type);
    *out = m;
    return HW_OK;
}
