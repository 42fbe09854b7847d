/* Implements wire/message.h. */
#include "wire/message.h"

#include <string.h>

#include "hypercore/crypto.h"

enum {
    SYNC_CAN_UPGRADE = 1,
    SYNC_UPLOADING = 2,
    SYNC_DOWNLOADING = 4,
    SYNC_HAS_MANIFEST = 8,
    SYNC_ALLOWS_PUSH = 16
};
enum { NO_DATA_HAS_REASON = 1 };
enum { WANT_ANY = 1 };
enum { RANGE_DROP = 1, RANGE_OF_ONE = 2 };
enum { HANDSHAKE_SEEKS = 1 };

static const uint8_t replicate_initiator[HW_HASH_SIZE] = {
    0x51, 0x81, 0x2a, 0x2a, 0x35, 0x9b, 0x50, 0x36, 0x95, 0x36, 0x77, 0x5d, 0xf8, 0x9e, 0x18, 0xe4,
    0x77, 0x40, 0xf3, 0xdb, 0x72, 0xac, 0x0a, 0xe7, 0x0b, 0x29, 0x59, 0x4c, 0x19, 0x4d, 0xc3, 0x16,
};
static const uint8_t replicate_responder[HW_HASH_SIZE] = {
    0x04, 0x38, 0x49, 0x2d, 0x02, 0x97, 0x0c, 0xc1, 0x35, 0x28, 0xac, 0x02, 0x62, 0xbc, 0xa0, 0x07,
    0x4e, 0x09, 0x26, 0x26, 0x02, 0x56, 0x86, 0x5a, 0xcc, 0xc0, 0xbf, 0x15, 0xbd, 0x79, 0x12, 0x7d,
};

static enum hw_status ends_early(const char *what, struct hw_slice payload, struct hw_error *err)
{
    return hw_fail(err, HW_EPROTOCOL, "%s message of %zu bytes ends early", what, payload.size);
}

/* ------------------------------------------------------------------------------------ sync */

void hw_message_sync_encode(const struct hw_message_sync *sync, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, (sync->can_upgrade ? SYNC_CAN_UPGRADE : 0U) |
                                (sync->is_uploading ? SYNC_UPLOADING : 0U) |
                                (sync->is_downloading ? SYNC_DOWNLOADING : 0U) |
                                (sync->has_manifest ? SYNC_HAS_MANIFEST : 0U) |
                                (sync->allows_push ? SYNC_ALLOWS_PUSH : 0U));
    hw_buffer_add_uint(out, sync->fork);
    hw_buffer_add_uint(out, sync->length);
    hw_buffer_add_uint(out, sync->remote_length);
}

enum hw_status hw_message_sync_decode(struct hw_slice payload, struct hw_message_sync *out,
                                      struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    uint64_t flags = hw_cursor_uint(&cursor);
    struct hw_message_sync sync = {
        .can_upgrade = (flags & SYNC_CAN_UPGRADE) != 0,
        .is_uploading = (flags & SYNC_UPLOADING) != 0,
        .is_downloading = (flags & SYNC_DOWNLOADING) != 0,
        .has_manifest = (flags & SYNC_HAS_MANIFEST) != 0,
        .allows_push = (flags & SYNC_ALLOWS_PUSH) != 0,
    };

    sync.fork = hw_cursor_uint(&cursor);
    sync.length = hw_cursor_uint(&cursor);
    sync.remote_length = hw_cursor_uint(&cursor);
    if (cursor.failed)
        return ends_early("sync", payload, err);
    *out = sync;
    return HW_OK;
}

/* ------------------------------------------------------------------------ cancel and no data */

enum hw_status hw_message_cancel_decode(struct hw_slice payload, uint64_t *request,
                                        struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    uint64_t id = hw_cursor_uint(&cursor);

    if (cursor.failed)
        return ends_early("cancel", payload, err);
    *request = id;
    return HW_OK;
}

void hw_message_no_data_encode(const struct hw_message_no_data *no_data, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, no_data->request);
    hw_buffer_add_uint(out, no_data->reason == HW_REASON_NONE ? 0 : NO_DATA_HAS_REASON);
    if (no_data->reason != HW_REASON_NONE)
        hw_buffer_add_uint(out, no_data->reason);
}

enum hw_status hw_message_no_data_decode(struct hw_slice payload, struct hw_message_no_data *out,
                                         struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_message_no_data no_data = {.request = hw_cursor_uint(&cursor)};

    if (hw_cursor_left(&cursor) > 0 && (hw_cursor_uint(&cursor) & NO_DATA_HAS_REASON) != 0)
        no_data.reason = hw_cursor_uint(&cursor);
    if (cursor.failed)
        return ends_early("no data", payload, err);
    *out = no_data;
    return HW_OK;
}

/* ------------------------------------------------------------------------------------ want */

void hw_message_want_encode(const struct hw_message_want *want, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, want->start);
    hw_buffer_add_uint(out, want->length);
    if (want->any)
        hw_buffer_add_uint(out, WANT_ANY);
}

enum hw_status hw_message_want_decode(struct hw_slice payload, struct hw_message_want *out,
                                      struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_message_want want = {.start = hw_cursor_uint(&cursor)};

    want.length = hw_cursor_uint(&cursor);
    if (!cursor.failed && hw_cursor_left(&cursor) > 0)
        want.any = (hw_cursor_uint(&cursor) & WANT_ANY) != 0;
    if (cursor.failed)
        return ends_early("want", payload, err);
    *out = want;
    return HW_OK;
}

/* ----------------------------------------------------------------------- bitfield and range */

void hw_message_bitfield_encode(uint64_t start, const uint32_t *words, size_t count,
                                struct hw_buffer *out)
{
    hw_buffer_add_uint(out, start);
    hw_buffer_add_uint(out, count);
    for (size_t i = 0; i < count; i++)
        hw_buffer_add_le32(out, words[i]);
}

enum hw_status hw_message_bitfield_decode(struct hw_slice payload, struct hw_message_bitfield *out,
                                          struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_message_bitfield bitfield = {.start = hw_cursor_uint(&cursor)};
    uint64_t count = hw_cursor_uint(&cursor);

    if (cursor.failed || count > hw_cursor_left(&cursor) / 4)
        return ends_early("bitfield", payload, err);
    bitfield.words = (struct hw_slice){cursor.next, (size_t)count * 4};
    *out = bitfield;
    return HW_OK;
}

void hw_message_range_encode(const struct hw_message_range *range, struct hw_buffer *out)
{
    hw_buffer_add_uint(out,
                       (range->drop ? RANGE_DROP : 0U) | (range->length == 1 ? RANGE_OF_ONE : 0U));
    hw_buffer_add_uint(out, range->start);
    if (range->length != 1)
        hw_buffer_add_uint(out, range->length);
}

enum hw_status hw_message_range_decode(struct hw_slice payload, struct hw_message_range *out,
                                       struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    uint64_t flags = hw_cursor_uint(&cursor);
    struct hw_message_range range = {.drop = (flags & RANGE_DROP) != 0, .length = 1};

    range.start = hw_cursor_uint(&cursor);
    if ((flags & RANGE_OF_ONE) == 0)
        range.length = hw_cursor_uint(&cursor);
    if (cursor.failed)
        return ends_early("range", payload, err);
    *out = range;
    return HW_OK;
}

/* --------------------------------------------------------------------------------- handshake */

void hw_handshake_encode(const struct hw_handshake *handshake, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, handshake->has_seeks ? HANDSHAKE_SEEKS : 0);
    hw_buffer_add(out, handshake->capability, sizeof(handshake->capability));
}

enum hw_status hw_handshake_decode(struct hw_slice bytes, struct hw_handshake *out,
                                   struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_handshake handshake = {.has_seeks = (hw_cursor_uint(&cursor) & HANDSHAKE_SEEKS) != 0};
    const uint8_t *capability = hw_cursor_bytes(&cursor, sizeof(handshake.capability));

    if (capability == NULL)
        return ends_early("handshake", bytes, err);
    memcpy(handshake.capability, capability, sizeof(handshake.capability));
    *out = handshake;
    return HW_OK;
}

void hw_capability(bool is_initiator, const uint8_t handshake_hash[64], const uint8_t key[32],
                   uint8_t out[32])
{
    const struct hw_slice parts[] = {
        {is_initiator ? replicate_initiator : replicate_responder, HW_HASH_SIZE},
        {key, HW_HASH_SIZE},
    };

    hw_hash_keyed_long(handshake_hash, parts, 2, out);
}
