/*
 * Channels over one stream: the frames of the vectors, and recorded connections heard by one mux
 * and written again by another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/json.h"
#include "unit/mux_fixture.h"

static enum hw_status give_hex(struct end *end, const struct json *hex)
{
    size_t size;
    uint8_t *bytes = json_hex(hex, &size);
    enum hw_status status = give(end, bytes, size);

    free(bytes);
    return status;
}

static void expect_frame(struct end *end, const struct json *hex)
{
    struct hw_buffer frame = end_take(end);
    size_t size;
    uint8_t *expected = json_hex(hex, &size);

    assert_int_equal(frame.size, size);
    assert_memory_equal(frame.bytes, expected, size);
    free(expected);
    free(frame.bytes);
}

/* ---------------------------------------------------------------------------- vectors */

static const struct json *mux_vector(const struct json *json, const char *what)
{
    for (const struct json *at = json_get(json, "mux")->first; at != NULL; at = at->next) {
        if (strncmp(json_text(at, "what"), what, strlen(what)) == 0)
            return json_get(at, "hex");
    }
    fail_msg("no vector \"%s\"", what);
    return NULL;
}

static void frames_of_the_vectors_are_written_as_they_stand(void **state)
{
    struct json *json = json_load("messages.json");
    struct end *end = end_new(false);
    struct hw_channel *first = NULL, *second = NULL;
    uint8_t id[32], handshake[33];

    (void)state;
    memset(id, 0xdd, sizeof(id));
    memset(handshake, 0xca, sizeof(handshake));
    handshake[0] = 1;
    assert_int_equal(hw_mux_open(end->mux, text("hypercore/alpha"), (struct hw_slice){id, 32},
                                 (struct hw_slice){handshake, 33}, NULL, &first, NULL),
                     HW_OK);
    expect_frame(end, mux_vector(json, "open, local id 1"));
    assert_int_equal(
        hw_channel_send(first, 0, (struct hw_slice){(const uint8_t *)"\x0f\x00\x0d\x00", 4}, NULL),
        HW_OK);
    expect_frame(end, mux_vector(json, "one message, uncorked"));
    second = open_channel(end, "other", "");
    free(end_take(end).bytes);
    hw_channel_close(second);
    expect_frame(end, mux_vector(json, "close, local id 2"));
    assert_int_equal(give(end,
                          "\x00\x01\x01\x03"
                          "abc\x04xyzz",
                          12),
                     HW_OK);
    expect_story(end, "asked abc/xyzz");
    expect_frame(end, mux_vector(json, "reject, after the remote"));
    end_free(end);
    json_free(json);
}

static void frames_of_the_vectors_are_understood(void **state)
{
    struct json *json = json_load("messages.json");
    struct end *end = end_new(true);
    unsigned messages = 0;
    char *at;

    (void)state;
    assert_int_equal(give_hex(end, mux_vector(json, "open, local id 1")), HW_OK);
    assert_true(hw_channel_is_open(end->latest));
    assert_int_equal(hw_channel_id(end->latest).size, 32);
    assert_int_equal(give_hex(end, mux_vector(json, "one message, uncorked")), HW_OK);
    assert_int_equal(give_hex(end, mux_vector(json, "two messages of one channel")), HW_OK);
    assert_int_equal(give_hex(end, mux_vector(json, "one message, corked")), HW_OK);
    assert_int_equal(give_hex(end, mux_vector(json, "corked: message on channel 1, open")), HW_OK);
    for (at = end->story; (at = strstr(at, "message ")) != NULL; at++)
        messages++;
    assert_int_equal(messages, 1 + 2 + 1 + 3);
    assert_non_null(strstr(end->story, "closed hypercore/alpha"));
    assert_int_equal(hw_channel_id(end->latest).bytes[0], 0xde); /* the second is open still */
    assert_true(hw_channel_is_open(end->latest));
    assert_int_equal(give_hex(end, mux_vector(json, "close, local id 2")), HW_OK);
    end_free(end);

    end = end_new(false);
    (void)open_channel(end, "abc", "xyzz");
    assert_int_equal(give_hex(end, mux_vector(json, "reject, after the remote")), HW_OK);
    expect_story(end, "rejected abc/xyzz");
    end_free(end);
    json_free(json);
}

/* ---------------------------------------------------------------------------- recordings */

enum { ENTRIES_MAX = 4096 };

struct entries { /* frames with the batches taken apart: channel, type, payload each */
    struct hw_buffer list[ENTRIES_MAX];
    unsigned count;
};

static struct hw_buffer *add_entry(struct entries *entries)
{
    assert_true(entries->count < ENTRIES_MAX);
    return &entries->list[entries->count++];
}

/* Taken apart by other hands than the mux's own. */
static void take_apart(struct entries *entries, struct hw_slice plain)
{
    struct hw_cursor cursor = hw_cursor(plain.bytes, plain.size);
    uint64_t channel;

    if (plain.size == 0)
        return;
    if (plain.size < 3 || plain.bytes[0] != 0 || plain.bytes[1] != 0) {
        hw_buffer_add(add_entry(entries), plain.bytes, plain.size);
        return;
    }
    cursor.next += 2;
    channel = hw_cursor_uint(&cursor);
    while (hw_cursor_left(&cursor) > 0) {
        uint64_t size = hw_cursor_uint(&cursor);
        struct hw_buffer *entry;

        if (size == 0) {
            channel = hw_cursor_uint(&cursor);
            continue;
        }
        entry = add_entry(entries);
        hw_buffer_add_uint(entry, channel);
        hw_buffer_add(entry, hw_cursor_bytes(&cursor, (size_t)size), (size_t)size);
    }
    assert_false(cursor.failed);
}

static void entries_release(struct entries *entries)
{
    for (unsigned i = 0; i < entries->count; i++)
        hw_buffer_release(&entries->list[i]);
    free(entries);
}

static bool same_entry(const struct hw_buffer *a, const struct hw_buffer *b)
{
    return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
}

struct side { /* of a recording */
    struct hw_mux *mux;
    struct hw_channel *channels[16];    /* by our number */
    struct entries *written, *expected; /* what our mux wrote, and what the recording has */
    struct entries *heard;              /* messages: the remote's number put back in front */
    unsigned rejected, closed;
    const struct json *lines;
    const char *name;
};

static enum hw_status side_send(void *ctx, struct hw_slice head, struct hw_slice body,
                                struct hw_error *err)
{
    struct side *side = ctx;
    struct hw_buffer *entry = add_entry(side->written);

    (void)err;
    hw_buffer_add(entry, head.bytes, head.size);
    hw_buffer_add(entry, body.bytes, body.size);
    return HW_OK;
}

/* Does this side of the recording open the channel?  Then *handshake is what it says. */
static bool finds_open(const struct side *side, struct hw_slice id, uint8_t handshake[64],
                       size_t *size)
{
    for (unsigned i = 0; i < side->expected->count; i++) {
        const struct hw_buffer *entry = &side->expected->list[i];
        struct hw_cursor cursor = hw_cursor(entry->bytes, entry->size);
        const uint8_t *at;
        uint64_t length;

        if (hw_cursor_uint(&cursor) != 0 || hw_cursor_uint(&cursor) != 1)
            continue;
        (void)hw_cursor_uint(&cursor);
        length = hw_cursor_uint(&cursor);
        (void)hw_cursor_bytes(&cursor, (size_t)length);
        length = hw_cursor_uint(&cursor);
        at = hw_cursor_bytes(&cursor, (size_t)length);
        if (length != id.size || memcmp(at, id.bytes, id.size) != 0)
            continue;
        *size = hw_cursor_left(&cursor);
        assert_true(*size <= 64);
        memcpy(handshake, cursor.next, *size);
        return true;
    }
    return false;
}

static enum hw_status side_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                                 struct hw_error *err)
{
    struct side *side = ctx;
    struct hw_channel *channel = NULL;
    uint8_t handshake[64];
    size_t size;
    enum hw_status status;

    if (!finds_open(side, id, handshake, &size))
        return HW_OK;
    status = hw_mux_open(side->mux, protocol, id, (struct hw_slice){handshake, size}, NULL,
                         &channel, err);
    for (unsigned i = 0; i < 16 && status == HW_OK; i++) {
        if (side->channels[i] == NULL) {
            side->channels[i] = channel;
            break;
        }
    }
    return status;
}

static enum hw_status side_opened(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                                  struct hw_error *err)
{
    (void)ctx;
    (void)channel;
    (void)err;
    return handshake.size == 33 ? HW_OK : HW_EPROTOCOL;
}

static enum hw_status side_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                   struct hw_slice payload, struct hw_error *err)
{
    struct side *side = ctx;
    struct hw_buffer *entry = add_entry(side->heard);

    (void)channel;
    (void)err;
    hw_buffer_add_uint(entry, type);
    hw_buffer_add(entry, payload.bytes, payload.size);
    return HW_OK;
}

static void side_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct side *side = ctx;

    for (unsigned i = 0; i < 16; i++) {
        if (side->channels[i] == channel)
            side->channels[i] = NULL;
    }
    side->rejected += was_rejected;
    side->closed += !was_rejected;
}

static void side_init(struct side *side, const char *name, const struct json *lines)
{
    struct hw_mux_host host = {.ctx = side,
                               .send = side_send,
                               .asked = side_asked,
                               .opened = side_opened,
                               .message = side_message,
                               .closed = side_closed};

    *side = (struct side){.name = name, .lines = lines};
    side->written = calloc(1, sizeof(struct entries));
    side->expected = calloc(1, sizeof(struct entries));
    side->heard = calloc(1, sizeof(struct entries));
    assert_int_equal(hw_mux_new(&host, &side->mux, NULL), HW_OK);
    for (const struct json *line = lines->first; line != NULL; line = line->next) {
        size_t size;
        uint8_t *plain;

        if (strcmp(json_text(line, "kind"), "frame") != 0 ||
            strcmp(json_text(line, "from"), name) != 0)
            continue;
        plain = json_hex(json_get(line, "plain"), &size);
        take_apart(side->expected, (struct hw_slice){plain, size});
        free(plain);
    }
}

static void side_release(struct side *side)
{
    hw_mux_free(side->mux);
    entries_release(side->written);
    entries_release(side->expected);
    entries_release(side->heard);
}

/* Do what made the real peer write this entry, if it is not done. */
static void act(struct side *side, const struct hw_buffer *entry)
{
    struct hw_cursor cursor = hw_cursor(entry->bytes, entry->size);
    uint64_t number = hw_cursor_uint(&cursor), type = hw_cursor_uint(&cursor);
    uint64_t local = number == 0 ? hw_cursor_uint(&cursor) : number;
    struct hw_slice protocol, id, rest;

    assert_true(local >= 1 && local <= 16);
    rest = (struct hw_slice){cursor.next, hw_cursor_left(&cursor)};
    if (number != 0) {
        assert_non_null(side->channels[local - 1]);
        assert_int_equal(hw_channel_send(side->channels[local - 1], type, rest, NULL), HW_OK);
    } else if (type == 3) {
        assert_non_null(side->channels[local - 1]);
        hw_channel_close(side->channels[local - 1]);
        side->channels[local - 1] = NULL;
    } else if (type == 1 && side->channels[local - 1] == NULL) {
        protocol.size = (size_t)hw_cursor_uint(&cursor);
        protocol.bytes = hw_cursor_bytes(&cursor, protocol.size);
        id.size = (size_t)hw_cursor_uint(&cursor);
        id.bytes = hw_cursor_bytes(&cursor, id.size);
        rest = (struct hw_slice){cursor.next, hw_cursor_left(&cursor)};
        assert_int_equal(
            hw_mux_open(side->mux, protocol, id, rest, NULL, &side->channels[local - 1], NULL),
            HW_OK);
    } /* a reject was written when the open came */
}

/* One frame of the recording: made by our mux of that side, heard by that of the other. */
static void play(struct side *from, struct side *to, struct hw_slice plain)
{
    struct entries *entries = calloc(1, sizeof(*entries));
    unsigned heard = to->heard->count, messages = 0;

    take_apart(entries, plain);
    for (unsigned i = 0; i < entries->count; i++)
        act(from, &entries->list[i]);
    assert_int_equal(hw_mux_receive(to->mux, plain, NULL), HW_OK);
    for (unsigned i = 0; i < entries->count; i++) {
        struct hw_cursor cursor = hw_cursor(entries->list[i].bytes, entries->list[i].size);

        if (hw_cursor_uint(&cursor) == 0)
            continue;
        assert_true(heard + messages < to->heard->count);
        assert_int_equal(to->heard->list[heard + messages].size, hw_cursor_left(&cursor));
        assert_memory_equal(to->heard->list[heard + messages].bytes, cursor.next,
                            hw_cursor_left(&cursor));
        messages++;
    }
    assert_int_equal(to->heard->count, heard + messages);
    entries_release(entries);
}

static bool is_reject(const struct hw_buffer *entry)
{
    return entry->bytes[0] == 0 && entry->bytes[1] == 2;
}

/* Rejects apart, which we write at once, and JavaScript a little later. */
static void expect_same(const struct side *side)
{
    const struct entries *written = side->written, *expected = side->expected;
    unsigned i = 0, k = 0;

    assert_int_equal(written->count, expected->count);
    while (i < written->count || k < expected->count) {
        if (i < written->count && is_reject(&written->list[i])) {
            i++;
        } else if (k < expected->count && is_reject(&expected->list[k])) {
            k++;
        } else {
            assert_true(i < written->count && k < expected->count);
            assert_true(same_entry(&written->list[i++], &expected->list[k++]));
        }
    }
}

static void play_recording(const char *name)
{
    char path[512] = HW_VECTORS "/transcripts/";
    struct json *lines;
    struct side a, b;

    strncat(path, name, 64);
    lines = json_load_lines_file(path);
    side_init(&a, "A", lines);
    side_init(&b, "B", lines);
    for (const struct json *line = lines->first; line != NULL; line = line->next) {
        bool is_a;
        size_t size;
        uint8_t *plain;

        if (strcmp(json_text(line, "kind"), "frame") != 0)
            continue;
        is_a = strcmp(json_text(line, "from"), "A") == 0;
        plain = json_hex(json_get(line, "plain"), &size);
        play(is_a ? &a : &b, is_a ? &b : &a, (struct hw_slice){plain, size});
        free(plain);
    }
    expect_same(&a);
    expect_same(&b);
    if (strcmp(name, "multi.jsonl") == 0)
        assert_int_equal(b.rejected, 1);
    side_release(&a);
    side_release(&b);
    json_free(lines);
}

static void recorded_connections_are_heard_and_their_frames_written_again(void **state)
{
    (void)state;
    play_recording("bigbitfield.jsonl");
    play_recording("compat.jsonl");
    play_recording("empty.jsonl");
    play_recording("follow.jsonl");
    play_recording("holes.jsonl");
    play_recording("multi.jsonl");
    play_recording("reorg.jsonl");
    play_recording("resume.jsonl");
    play_recording("sparse.jsonl");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_of_the_vectors_are_written_as_they_stand),
        cmocka_unit_test(frames_of_the_vectors_are_understood),
        cmocka_unit_test(recorded_connections_are_heard_and_their_frames_written_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/mux vectors", tests, NULL, NULL);
}
