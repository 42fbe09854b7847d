/* The messages of the channel hyperwal/1: what is decoded is encoded to what decodes the same. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/hyperwal_channel.h"
#include "wire/write_message.h"

static void check(bool holds)
{
    if (!holds)
        abort();
}

static struct hw_slice content(const struct hw_buffer *buffer)
{
    return (struct hw_slice){buffer->bytes, buffer->size};
}

static bool same(struct hw_slice a, struct hw_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.bytes, b.bytes, a.size) == 0);
}

static void feed_names(struct hw_slice bytes)
{
    struct hw_name_entry entry;
    struct hw_cursor entries;
    uint64_t request;
    size_t count;

    if (hw_hyperwal_names_decode(bytes, &request, &count, &entries, NULL) != HW_OK)
        return;
    check(count <= HW_NAMES_MAX);
    for (size_t i = 0; i < count; i++)
        if (hw_hyperwal_names_next(&entries, &entry, NULL) != HW_OK)
            return;
}

static void feed_questions(struct hw_slice bytes)
{
    struct hw_hyperwal_handshake handshake;
    struct hw_hyperwal_query query, query_again;
    struct hw_buffer encoded = {0};

    if (hw_hyperwal_handshake_decode(bytes, &handshake, NULL) == HW_OK)
        check(handshake.version == 1);
    for (int has_name = 0; has_name < 2; has_name++) {
        if (hw_hyperwal_query_decode(bytes, has_name == 1, &query, NULL) != HW_OK)
            continue;
        hw_buffer_clear(&encoded);
        hw_hyperwal_query_encode(&query, has_name == 1, &encoded);
        check(hw_hyperwal_query_decode(content(&encoded), has_name == 1, &query_again, NULL) ==
              HW_OK);
        check(query.request == query_again.request && same(query.name, query_again.name));
    }
    hw_buffer_release(&encoded);
}

static void feed_answers(struct hw_slice bytes)
{
    struct hw_hyperwal_found found, found_again;
    struct hw_hyperwal_state state, state_again;
    struct hw_buffer encoded = {0};

    if (hw_hyperwal_found_decode(bytes, &found, NULL) == HW_OK) {
        hw_hyperwal_found_encode(&found, &encoded);
        check(hw_hyperwal_found_decode(content(&encoded), &found_again, NULL) == HW_OK);
        check(found.request == found_again.request && found.status == found_again.status &&
              memcmp(found.key, found_again.key, sizeof(found.key)) == 0);
    }
    hw_buffer_clear(&encoded);
    if (hw_hyperwal_state_decode(bytes, &state, NULL) == HW_OK) {
        hw_hyperwal_state_encode(&state, &encoded);
        check(hw_hyperwal_state_decode(content(&encoded), &state_again, NULL) == HW_OK);
        check(state.request == state_again.request && state.status == state_again.status &&
              same(state.json, state_again.json));
    }
    hw_buffer_release(&encoded);
}

static void feed_creations(struct hw_slice bytes)
{
    struct hw_hyperwal_create create, create_again;
    struct hw_hyperwal_created created, created_again;
    struct hw_buffer encoded = {0};

    if (hw_hyperwal_create_decode(bytes, &create, NULL) == HW_OK) {
        hw_hyperwal_create_encode(&create, &encoded);
        check(hw_hyperwal_create_decode(content(&encoded), &create_again, NULL) == HW_OK);
        check(create.request == create_again.request && same(create.name, create_again.name) &&
              create.page_size == create_again.page_size);
    }
    hw_buffer_clear(&encoded);
    if (hw_hyperwal_created_decode(bytes, &created, NULL) == HW_OK) {
        hw_hyperwal_created_encode(&created, &encoded);
        check(hw_hyperwal_created_decode(content(&encoded), &created_again, NULL) == HW_OK);
        check(created.request == created_again.request && created.status == created_again.status &&
              same(created.why, created_again.why) &&
              memcmp(created.key, created_again.key, sizeof(created.key)) == 0);
    }
    hw_buffer_release(&encoded);
}

static void feed_handover(struct hw_slice bytes)
{
    struct hw_hyperwal_handover asked, asked_again;
    struct hw_hyperwal_handed told, told_again;
    struct hw_buffer encoded = {0};

    if (hw_hyperwal_handover_decode(bytes, &asked, NULL) == HW_OK) {
        hw_hyperwal_handover_encode(&asked, &encoded);
        check(hw_hyperwal_handover_decode(content(&encoded), &asked_again, NULL) == HW_OK);
        check(asked.request == asked_again.request && same(asked.name, asked_again.name) &&
              memcmp(asked.key, asked_again.key, sizeof(asked.key)) == 0);
    }
    hw_buffer_clear(&encoded);
    if (hw_hyperwal_handed_decode(bytes, &told, NULL) == HW_OK) {
        hw_hyperwal_handed_encode(&told, &encoded);
        check(hw_hyperwal_handed_decode(content(&encoded), &told_again, NULL) == HW_OK);
        check(told.request == told_again.request && told.status == told_again.status &&
              told.seq == told_again.seq && same(told.text, told_again.text));
    }
    hw_buffer_release(&encoded);
}

static void feed_log(struct hw_slice bytes)
{
    struct hw_buffer encoded = {0};
    struct hw_ack ack, ack_again;
    bool durable;

    if (hw_urge_decode(bytes, &durable, NULL) == HW_OK)
        check(bytes.size > 1 || durable == (bytes.bytes[0] % 2 == 1));
    if (hw_ack_decode(bytes, &ack, NULL) == HW_OK) {
        hw_ack_encode(&ack, &encoded);
        check(hw_ack_decode(content(&encoded), &ack_again, NULL) == HW_OK);
        check(ack.received == ack_again.received && ack.durable == ack_again.durable &&
              ack.applied == ack_again.applied);
    }
    hw_buffer_release(&encoded);
}

static void feed_writes(struct hw_slice bytes)
{
    struct hw_buffer first = {0}, second = {0};
    struct hw_write_message m, again;

    for (uint64_t type = HW_WRITE_LEASE; type <= HW_WRITE_WAITS; type++) {
        if (hw_write_message_decode(type, bytes, &m, NULL) != HW_OK)
            continue;
        check(m.status < HW_WRITE_STATUS_COUNT && m.body.size <= bytes.size);
        hw_buffer_clear(&first);
        hw_buffer_clear(&second);
        hw_write_message_encode(&m, &first);
        check(hw_write_message_decode(type, content(&first), &again, NULL) == HW_OK);
        hw_write_message_encode(&again, &second);
        check(same(content(&first), content(&second)));
    }
    hw_buffer_release(&first);
    hw_buffer_release(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_slice input = {bytes, size};

    feed_questions(input);
    feed_creations((struct hw_slice){bytes, size});
    feed_answers(input);
    feed_names(input);
    feed_handover(input);
    feed_log(input);
    feed_writes(input);
    return 0;
}
