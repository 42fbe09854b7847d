/* Entry headers, and the small entries of entry/entry.h: genesis, label, gap, switch. */
#include <assert.h>
#include <string.h>

#include "entry/entry.h"

enum { TIME_SIZE = 6 };

static const uint8_t genesis_magic[8] = {'h', 'y', 'p', 'e', 'r', 'w', 'a', 'l'};

static uint64_t distance(uint64_t seq, uint64_t earlier)
{
    assert(earlier == UINT64_MAX || earlier < seq);
    return earlier == UINT64_MAX ? 0 : seq - earlier;
}

/* Milliseconds in 6 bytes last for 8,900 years; compact encoding would take 9. */
static void time_encode(int64_t time_ms, struct hw_buffer *out)
{
    uint8_t bytes[8];

    assert(time_ms >= 0 && time_ms >> (8 * TIME_SIZE) == 0);
    hw_put_le64(bytes, (uint64_t)time_ms);
    hw_buffer_add(out, bytes, TIME_SIZE);
}

static int64_t time_decode(struct hw_cursor *cursor)
{
    const uint8_t *bytes = hw_cursor_bytes(cursor, TIME_SIZE);
    uint8_t padded[8] = {0};

    if (bytes == NULL)
        return 0;
    memcpy(padded, bytes, TIME_SIZE);
    return (int64_t)hw_get_le64(padded);
}

void hw_entry_header_encode(const struct hw_entry_header *header, uint64_t seq,
                            struct hw_buffer *out)
{
    hw_buffer_add_u8(out, (uint8_t)header->type);
    hw_buffer_add_u8(out, (uint8_t)((header->starts ? HW_ENTRY_START : 0) |
                                    (header->ends ? HW_ENTRY_END : 0) |
                                    (header->has_origin ? HW_ENTRY_ORIGIN : 0)));
    time_encode(header->time_ms, out);
    hw_buffer_add_uint(out, distance(seq, header->snapshot_seq));
    hw_buffer_add_uint(out, distance(seq, header->label_seq));
    if (header->has_origin)
        hw_buffer_add(out, header->origin.bytes, sizeof(header->origin.bytes));
}

/* Only a transaction comes from somewhere, and its first block says it. */
static bool flags_are_valid(uint8_t type, uint8_t flags)
{
    if ((flags & ~(HW_ENTRY_START | HW_ENTRY_END | HW_ENTRY_ORIGIN)) != 0)
        return false;
    return (flags & HW_ENTRY_ORIGIN) == 0 ||
           (type == HW_ENTRY_TRANSACTION && (flags & HW_ENTRY_START) != 0);
}

enum hw_status hw_entry_header_decode(struct hw_cursor *cursor, uint64_t seq,
                                      struct hw_entry_header *out)
{
    uint8_t type = hw_cursor_u8(cursor), flags = hw_cursor_u8(cursor);
    int64_t time_ms = time_decode(cursor);
    uint64_t snapshot = hw_cursor_uint(cursor), label = hw_cursor_uint(cursor);

    bool has_origin = (flags & HW_ENTRY_ORIGIN) != 0;
    const uint8_t *origin = has_origin ? hw_cursor_bytes(cursor, HW_ORIGIN_SIZE) : NULL;

    if (cursor->failed || type == 0 || snapshot > seq || label > seq)
        return HW_ECORRUPT;
    if (type > HW_ENTRY_SWITCH)
        return HW_EVERSION;
    if (!flags_are_valid(type, flags))
        return HW_ECORRUPT;
    *out = (struct hw_entry_header){
        .type = (enum hw_entry_type)type,
        .starts = (flags & HW_ENTRY_START) != 0,
        .ends = (flags & HW_ENTRY_END) != 0,
        .time_ms = time_ms,
        .snapshot_seq = snapshot == 0 ? UINT64_MAX : seq - snapshot,
        .label_seq = label == 0 ? UINT64_MAX : seq - label,
        .has_origin = has_origin,
    };
    if (origin != NULL)
        memcpy(out->origin.bytes, origin, HW_ORIGIN_SIZE);
    return HW_OK;
}

void hw_genesis_encode(const struct hw_genesis *genesis, struct hw_buffer *out)
{
    hw_buffer_add(out, genesis_magic, sizeof(genesis_magic));
    hw_buffer_add_uint(out, genesis->format_version);
    hw_buffer_add_uint(out, genesis->page_size);
    hw_buffer_add(out, genesis->database_id, sizeof(genesis->database_id));
    hw_buffer_add_uint(out, genesis->page_count);
    hw_buffer_add_le64(out, genesis->sum);
}

enum hw_status hw_genesis_decode(struct hw_cursor *cursor, struct hw_genesis *out)
{
    const uint8_t *magic = hw_cursor_bytes(cursor, sizeof(genesis_magic));
    uint64_t version, page_size, page_count, sum;
    const uint8_t *id;

    if (magic == NULL || memcmp(magic, genesis_magic, sizeof(genesis_magic)) != 0)
        return HW_ECORRUPT;
    version = hw_cursor_uint(cursor);
    if (cursor->failed || version == 0)
        return HW_ECORRUPT;
    if (version > HW_FORMAT_VERSION)
        return HW_EVERSION;
    page_size = hw_cursor_uint(cursor);
    id = hw_cursor_bytes(cursor, HW_DATABASE_ID_SIZE);
    page_count = hw_cursor_uint(cursor);
    sum = hw_cursor_le64(cursor);
    if (cursor->failed || hw_cursor_left(cursor) != 0 || page_count > UINT32_MAX ||
        page_size > UINT32_MAX || !hw_entry_page_size_ok((uint32_t)page_size) ||
        (page_count == 0 && sum != 0)) /* of no pages */
        return HW_ECORRUPT;
    *out = (struct hw_genesis){.format_version = (uint32_t)version,
                               .page_size = (uint32_t)page_size,
                               .page_count = (uint32_t)page_count,
                               .sum = sum};
    memcpy(out->database_id, id, sizeof(out->database_id));
    return HW_OK;
}

static void text_encode(const char *text, struct hw_buffer *out)
{
    size_t size = strlen(text);

    hw_buffer_add_uint(out, size);
    hw_buffer_add(out, text, size);
}

/* A text of 0 to size_max bytes without a zero in it, into `out` of size_max + 1. */
static bool text_decode(struct hw_cursor *cursor, size_t size_max, char *out)
{
    uint64_t size = hw_cursor_uint(cursor);
    const uint8_t *bytes = size > size_max ? NULL : hw_cursor_bytes(cursor, (size_t)size);

    if (bytes == NULL || cursor->failed || memchr(bytes, 0, (size_t)size) != NULL)
        return false;
    memcpy(out, bytes, (size_t)size);
    out[size] = '\0';
    return true;
}

void hw_label_encode(const struct hw_label *label, struct hw_buffer *out)
{
    text_encode(label->name, out);
}

enum hw_status hw_label_decode(struct hw_cursor *cursor, struct hw_label *out)
{
    struct hw_label label;

    if (!text_decode(cursor, HW_LABEL_SIZE_MAX, label.name) || label.name[0] == '\0' ||
        hw_cursor_left(cursor) != 0)
        return HW_ECORRUPT;
    *out = label;
    return HW_OK;
}

void hw_gap_encode(const struct hw_gap *gap, struct hw_buffer *out)
{
    hw_buffer_add_le64(out, gap->from_sum);
    hw_buffer_add_le64(out, gap->to_sum);
    hw_buffer_add_uint(out, gap->from_page_count);
    hw_buffer_add_uint(out, gap->to_page_count);
    text_encode(gap->reason, out);
}

enum hw_status hw_gap_decode(struct hw_cursor *cursor, struct hw_gap *out)
{
    uint64_t from_sum = hw_cursor_le64(cursor), to_sum = hw_cursor_le64(cursor);
    uint64_t from_count = hw_cursor_uint(cursor), to_count = hw_cursor_uint(cursor);
    struct hw_gap gap = {.from_sum = from_sum, .to_sum = to_sum};

    if (cursor->failed || from_count > UINT32_MAX || to_count > UINT32_MAX ||
        !text_decode(cursor, HW_GAP_REASON_SIZE_MAX, gap.reason) || hw_cursor_left(cursor) != 0)
        return HW_ECORRUPT;
    gap.from_page_count = (uint32_t)from_count;
    gap.to_page_count = (uint32_t)to_count;
    *out = gap;
    return HW_OK;
}

void hw_switch_encode(const struct hw_switch *switch_, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, switch_->role);
    hw_buffer_add(out, switch_->key, sizeof(switch_->key));
    hw_buffer_add_uint(out, switch_->fork);
    hw_buffer_add_uint(out, switch_->seq);
    hw_buffer_add_uint(out, switch_->page_count);
    hw_buffer_add_le64(out, switch_->sum);
}

enum hw_status hw_switch_decode(struct hw_cursor *cursor, struct hw_switch *out)
{
    uint64_t role = hw_cursor_uint(cursor);
    const uint8_t *key = hw_cursor_bytes(cursor, HW_LOG_KEY_SIZE);
    uint64_t fork = hw_cursor_uint(cursor), seq = hw_cursor_uint(cursor);
    uint64_t page_count = hw_cursor_uint(cursor), sum = hw_cursor_le64(cursor);

    if (cursor->failed || hw_cursor_left(cursor) != 0 || role > HW_SWITCH_CONTINUED ||
        page_count > UINT32_MAX)
        return HW_ECORRUPT;
    *out = (struct hw_switch){
        .role = role == 0 ? HW_SWITCH_CONTINUES : HW_SWITCH_CONTINUED,
        .fork = fork,
        .seq = seq,
        .page_count = (uint32_t)page_count,
        .sum = sum,
    };
    memcpy(out->key, key, sizeof(out->key));
    return HW_OK;
}
