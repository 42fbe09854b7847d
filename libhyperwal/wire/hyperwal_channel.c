/* Implements wire/hyperwal_channel.h. */
#include "wire/hyperwal_channel.h"

#include <string.h>

#include "wire/address.h"
#include "wire/json_text.h"

enum { VERSION = 1 };

static void add_string(struct hw_buffer *out, struct hw_slice text)
{
    hw_buffer_add_uint(out, text.size);
    hw_buffer_add(out, text.bytes, text.size);
}

/* The cursor fails if it is longer than `size_max`. */
static struct hw_slice read_string(struct hw_cursor *cursor, size_t size_max)
{
    uint64_t size = hw_cursor_uint(cursor);
    const uint8_t *bytes;

    if (size > size_max)
        cursor->failed = true;
    bytes = hw_cursor_bytes(cursor, cursor->failed ? 0 : (size_t)size);
    return bytes == NULL ? (struct hw_slice){NULL, 0} : (struct hw_slice){bytes, (size_t)size};
}

static void read_key(struct hw_cursor *cursor, uint8_t *out, size_t size)
{
    const uint8_t *bytes = hw_cursor_bytes(cursor, size);

    if (bytes != NULL)
        memcpy(out, bytes, size);
}

static enum hw_lookup_status read_status(struct hw_cursor *cursor)
{
    uint64_t status = hw_cursor_uint(cursor);

    if (status > HW_LOOKUP_REFUSED) {
        cursor->failed = true;
        return HW_LOOKUP_REFUSED;
    }
    return (enum hw_lookup_status)status;
}

static enum hw_status malformed(struct hw_error *err, const char *what)
{
    return hw_fail(err, HW_EPROTOCOL, "hyperwal channel: a malformed %s", what);
}

/* ------------------------------------------------------------------------------- encode */

void hw_hyperwal_handshake_encode(const struct hw_hyperwal_handshake *handshake,
                                  struct hw_buffer *out)
{
    hw_buffer_add_uint(out, handshake->version);
    hw_buffer_add_uint(out, handshake->flags);
    hw_buffer_add(out, handshake->replica_id, sizeof(handshake->replica_id));
}

void hw_hyperwal_query_encode(const struct hw_hyperwal_query *query, bool has_name,
                              struct hw_buffer *out)
{
    hw_buffer_add_uint(out, query->request);
    if (has_name)
        add_string(out, query->name);
}

void hw_hyperwal_handover_encode(const struct hw_hyperwal_handover *handover, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, handover->request);
    add_string(out, handover->name);
    hw_buffer_add(out, handover->key, sizeof(handover->key));
}

void hw_hyperwal_handed_encode(const struct hw_hyperwal_handed *handed, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, handed->request);
    hw_buffer_add_uint(out, handed->status);
    if (handed->status == HW_HANDED_DONE)
        hw_buffer_add_uint(out, handed->seq);
    if (handed->status == HW_HANDED_FAILED)
        add_string(out, handed->text);
}

void hw_hyperwal_found_encode(const struct hw_hyperwal_found *found, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, found->request);
    hw_buffer_add_uint(out, found->status);
    if (found->status == HW_LOOKUP_FOUND)
        hw_buffer_add(out, found->key, sizeof(found->key));
}

void hw_hyperwal_state_encode(const struct hw_hyperwal_state *state, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, state->request);
    hw_buffer_add_uint(out, state->status);
    if (state->status == HW_LOOKUP_FOUND)
        add_string(out, state->json);
}

void hw_hyperwal_create_encode(const struct hw_hyperwal_create *create, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, create->request);
    add_string(out, create->name);
    hw_buffer_add_uint(out, create->page_size);
}

void hw_hyperwal_created_encode(const struct hw_hyperwal_created *created, struct hw_buffer *out)
{
    struct hw_slice why = created->why;

    if (why.size > HW_CREATE_WHY_MAX)
        why.size = HW_CREATE_WHY_MAX;
    hw_buffer_add_uint(out, created->request);
    hw_buffer_add_uint(out, created->status);
    if (created->status == HW_CREATE_MADE)
        hw_buffer_add(out, created->key, sizeof(created->key));
    else
        add_string(out, why);
}

void hw_hyperwal_names_begin(uint64_t request, size_t count, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, request);
    hw_buffer_add_uint(out, count);
}

void hw_hyperwal_names_add(const struct hw_name_entry *entry, struct hw_buffer *out)
{
    add_string(out, entry->name);
    hw_buffer_add(out, entry->key, sizeof(entry->key));
}

void hw_ack_encode(const struct hw_ack *ack, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, ack->received);
    hw_buffer_add_uint(out, ack->durable);
    hw_buffer_add_uint(out, ack->applied);
}

void hw_urge_encode(bool durable, struct hw_buffer *out)
{
    hw_buffer_add_uint(out, durable ? 1 : 0);
}

/* ------------------------------------------------------------------------------- decode */

enum hw_status hw_hyperwal_handshake_decode(struct hw_slice bytes,
                                            struct hw_hyperwal_handshake *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_hyperwal_handshake handshake = {0};

    handshake.version = hw_cursor_uint(&cursor);
    if (!cursor.failed && handshake.version != VERSION)
        return hw_fail(err, HW_EVERSION, "hyperwal channel: version %llu, we speak %d",
                       (unsigned long long)handshake.version, VERSION);
    handshake.flags = hw_cursor_uint(&cursor);
    read_key(&cursor, handshake.replica_id, sizeof(handshake.replica_id));
    if (cursor.failed)
        return malformed(err, "handshake");
    *out = handshake;
    return HW_OK;
}

enum hw_status hw_hyperwal_query_decode(struct hw_slice payload, bool has_name,
                                        struct hw_hyperwal_query *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_query query = {0};

    query.request = hw_cursor_uint(&cursor);
    if (has_name)
        query.name = read_string(&cursor, HW_NAME_MAX);
    if (cursor.failed)
        return malformed(err, "query");
    *out = query;
    return HW_OK;
}

enum hw_status hw_hyperwal_handover_decode(struct hw_slice payload,
                                           struct hw_hyperwal_handover *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_handover handover = {0};

    handover.request = hw_cursor_uint(&cursor);
    handover.name = read_string(&cursor, HW_NAME_MAX);
    read_key(&cursor, handover.key, sizeof(handover.key));
    if (cursor.failed)
        return malformed(err, "handover");
    *out = handover;
    return HW_OK;
}

enum hw_status hw_hyperwal_handed_decode(struct hw_slice payload, struct hw_hyperwal_handed *out,
                                         struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_handed handed = {0};
    uint64_t status;

    handed.request = hw_cursor_uint(&cursor);
    status = hw_cursor_uint(&cursor);
    if (status == HW_HANDED_DONE)
        handed.seq = hw_cursor_uint(&cursor);
    if (status == HW_HANDED_FAILED)
        handed.text = read_string(&cursor, HW_HANDED_TEXT_MAX);
    if (cursor.failed || status > HW_HANDED_FAILED)
        return malformed(err, "answer to a handover");
    handed.status = status == HW_HANDED_DONE      ? HW_HANDED_DONE
                    : status == HW_HANDED_UNKNOWN ? HW_HANDED_UNKNOWN
                    : status == HW_HANDED_REFUSED ? HW_HANDED_REFUSED
                                                  : HW_HANDED_FAILED;
    *out = handed;
    return HW_OK;
}

enum hw_status hw_hyperwal_found_decode(struct hw_slice payload, struct hw_hyperwal_found *out,
                                        struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_found found = {0};

    found.request = hw_cursor_uint(&cursor);
    found.status = read_status(&cursor);
    if (found.status == HW_LOOKUP_FOUND)
        read_key(&cursor, found.key, sizeof(found.key));
    if (cursor.failed)
        return malformed(err, "answer to a lookup");
    *out = found;
    return HW_OK;
}

enum hw_status hw_hyperwal_state_decode(struct hw_slice payload, struct hw_hyperwal_state *out,
                                        struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_state state = {0};

    state.request = hw_cursor_uint(&cursor);
    state.status = read_status(&cursor);
    if (state.status == HW_LOOKUP_FOUND)
        state.json = read_string(&cursor, HW_STATE_TEXT_MAX);
    if (cursor.failed || (state.status == HW_LOOKUP_FOUND && !hw_json_is_object(state.json)))
        return malformed(err, "state");
    *out = state;
    return HW_OK;
}

enum hw_status hw_hyperwal_create_decode(struct hw_slice payload, struct hw_hyperwal_create *out,
                                         struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_create create = {0};
    uint64_t page_size;

    create.request = hw_cursor_uint(&cursor);
    create.name = read_string(&cursor, HW_NAME_MAX);
    page_size = hw_cursor_uint(&cursor);
    if (cursor.failed || page_size > UINT32_MAX)
        return malformed(err, "wish for a database");
    create.page_size = (uint32_t)page_size;
    *out = create;
    return HW_OK;
}

enum hw_status hw_hyperwal_created_decode(struct hw_slice payload, struct hw_hyperwal_created *out,
                                          struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_hyperwal_created created = {0};
    uint64_t status;

    created.request = hw_cursor_uint(&cursor);
    status = hw_cursor_uint(&cursor);
    if (status > HW_CREATE_FAILED)
        cursor.failed = true;
    else if (status == HW_CREATE_MADE)
        read_key(&cursor, created.key, sizeof(created.key));
    else
        created.why = read_string(&cursor, HW_CREATE_WHY_MAX);
    if (cursor.failed)
        return malformed(err, "answer about a new database");
    created.status = (enum hw_create_status)status;
    *out = created;
    return HW_OK;
}

enum hw_status hw_hyperwal_names_decode(struct hw_slice payload, uint64_t *request, size_t *count,
                                        struct hw_cursor *entries, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    uint64_t id = hw_cursor_uint(&cursor), names = hw_cursor_uint(&cursor);

    /* Each name has 33 bytes at least: a count that the bytes cannot hold is a lie. */
    if (cursor.failed || names > HW_NAMES_MAX ||
        names > hw_cursor_left(&cursor) / (1 + HW_KEY_SIZE))
        return malformed(err, "list of names");
    *request = id;
    *count = (size_t)names;
    *entries = cursor;
    return HW_OK;
}

enum hw_status hw_hyperwal_names_next(struct hw_cursor *entries, struct hw_name_entry *out,
                                      struct hw_error *err)
{
    struct hw_name_entry entry = {.name = read_string(entries, HW_NAME_MAX)};

    read_key(entries, entry.key, sizeof(entry.key));
    if (entries->failed)
        return malformed(err, "list of names");
    *out = entry;
    return HW_OK;
}

enum hw_status hw_ack_decode(struct hw_slice payload, struct hw_ack *out, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    struct hw_ack ack = {0};

    ack.received = hw_cursor_uint(&cursor);
    ack.durable = hw_cursor_uint(&cursor);
    ack.applied = hw_cursor_uint(&cursor);
    if (cursor.failed)
        return malformed(err, "acknowledgement");
    *out = ack;
    return HW_OK;
}

enum hw_status hw_urge_decode(struct hw_slice payload, bool *durable, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(payload.bytes, payload.size);
    uint64_t flags = hw_cursor_uint(&cursor);

    if (cursor.failed)
        return malformed(err, "urge");
    *durable = (flags & 1) != 0;
    return HW_OK;
}
