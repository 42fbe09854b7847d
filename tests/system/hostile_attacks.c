/* Implements system/hostile_attacks.h. */
#include "system/hostile_attacks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/replication.h"
#include "wire/write_message.h"

enum { BURST = 64, LORIS_MS = 400 };

static struct hw_buffer scratch; /* of messages: a program has one thread */

/* ---------------------------------------------------------------------- before the handshake */

/* What the stream wanted to say first is left out. */
static void be_silent(struct wire *wire)
{
    hw_stream_sent(wire->stream, hw_stream_output(wire->stream).size);
    wire->is_broken = true;
}

static void stop_in_the_middle(struct wire *wire)
{
    wire->cut_at = any_below(HANDSHAKE_SIZE);
}

static void alter_one_byte(struct wire *wire)
{
    wire->flip_at = wire->number % HANDSHAKE_SIZE;
}

static void a_byte_at_a_time(struct wire *wire)
{
    wire->cut_at = 0;
    wire->steps = now_ms();
}

static void one_byte_more(struct wire *wire, const struct target *target)
{
    (void)target;
    wire->cut_at = (now_ms() - wire->steps) / LORIS_MS;
}

static void random_bytes(struct wire *wire, const struct target *target)
{
    uint8_t bytes[1024];

    (void)target;
    any_bytes(bytes, sizeof(bytes));
    wire_raw(wire, bytes, 1 + any_below(sizeof(bytes)));
}

/* A frame of the greatest size there is. */
static void endless_frame(struct wire *wire, const struct target *target)
{
    static const uint8_t zeros[32 << 10];

    (void)target;
    if (wire->steps++ == 0)
        wire_raw(wire, "\xff\xff\xff", 3);
    wire_raw(wire, zeros, sizeof(zeros));
}

/* Frames of the greatest size that is let through before the handshake, one after the other. */
static void endless_frames(struct wire *wire, const struct target *target)
{
    static const uint8_t zeros[1024];

    (void)target;
    wire_raw(wire, "\x00\x04\x00", 3);
    wire_raw(wire, zeros, sizeof(zeros));
}

/* Points with which the secret that comes out is known to all. */
static void weak_point(struct wire *wire, const struct target *target)
{
    static const uint8_t points[3][32] = {{0}, {1}, {0xec}};
    uint8_t point[32];

    (void)target;
    if (wire->steps++ > 0)
        return;
    memcpy(point, points[wire->number % 3], sizeof(point));
    if (wire->number % 3 == 2) { /* the order 2: y = p - 1 */
        memset(point + 1, 0xff, 30);
        point[31] = 0x7f;
    }
    wire_raw(wire, "\x20\x00\x00", 3);
    wire_raw(wire, point, sizeof(point));
}

static void close_at_once(struct wire *wire, const struct target *target)
{
    (void)target;
    wire_close(wire, any_below(2) == 0);
}

/* ---------------------------------------------------------------------- after the handshake */

static void garbage_frames(struct wire *wire, const struct target *target)
{
    (void)target;
    wire_raw(wire, "\x40\x00\x00", 3);
    random_bytes(wire, target);
}

static void big_frames(struct wire *wire, const struct target *target)
{
    static uint8_t zeros[2 << 20];

    (void)target;
    wire_frame(wire, zeros, sizeof(zeros));
}

static void empty_frames(struct wire *wire, const struct target *target)
{
    (void)target;
    for (unsigned i = 0; i < BURST; i++)
        wire_frame(wire, "", 0);
}

static void random_frames(struct wire *wire, const struct target *target)
{
    uint8_t bytes[256];

    (void)target;
    for (unsigned i = 0; i < BURST; i++) {
        size_t size = 2 + any_below(sizeof(bytes) - 2);

        any_bytes(bytes, sizeof(bytes));
        bytes[0] %= 4; /* a channel that may be there */
        bytes[1] %= 10;
        wire_frame(wire, bytes, size);
    }
}

/* An open for a channel that nobody knows. */
static void open_unknown(uint64_t number, struct hw_buffer *out)
{
    uint8_t id[32];

    any_bytes(id, sizeof(id));
    hw_buffer_add(out, "\0\1", 2);
    hw_buffer_add_uint(out, number);
    hw_buffer_add(out, "\7unknown", 8);
    hw_buffer_add_uint(out, sizeof(id));
    hw_buffer_add(out, id, sizeof(id));
}

static void many_channels(struct wire *wire, const struct target *target)
{
    (void)target;
    for (unsigned i = 0; i < BURST; i++) {
        open_unknown(1, &scratch); /* refused each time: the number is free again */
        wire_frame(wire, scratch.bytes, scratch.size);
        hw_buffer_clear(&scratch);
    }
}

static void great_numbers(struct wire *wire, const struct target *target)
{
    (void)target;
    open_unknown(1 + any_below(UINT64_C(1) << 50), &scratch);
    wire_frame(wire, scratch.bytes, scratch.size);
    hw_buffer_clear(&scratch);
}

/* Thousands of opens in one frame. */
static void open_in_batches(struct wire *wire, const struct target *target)
{
    struct hw_buffer one = {0};

    (void)target;
    hw_buffer_add(&scratch, "\0\0\0", 3);
    for (unsigned i = 1; i < 4000; i++) {
        open_unknown(i, &one);
        hw_buffer_add_uint(&scratch, one.size - 1); /* the number of the channel is told before */
        hw_buffer_add(&scratch, one.bytes + 1, one.size - 1);
        hw_buffer_clear(&one);
    }
    wire_frame(wire, scratch.bytes, scratch.size);
    hw_buffer_clear(&scratch);
    hw_buffer_release(&one);
}

static void wrong_proof_of_key(struct wire *wire, const struct target *target)
{
    if (wire->steps++ == 0 && !wire_open_core(wire, target->key, true))
        abort();
}

static void wrong_key(struct wire *wire, const struct target *target)
{
    uint8_t key[HW_KEY_SIZE];

    (void)target;
    any_bytes(key, sizeof(key));
    if (wire->steps++ < 8 && !wire_open_core(wire, key, false))
        abort();
}

/* Names that are there and names that are not, lists, states. */
static void questions(struct wire *wire, const struct target *target)
{
    struct hw_hyperwal_query query = {.name = {(const uint8_t *)"app.db", 6}};

    (void)target;
    if (wire->steps == 0 && !wire_open_hyperwal(wire, NULL))
        abort();
    if (wire->base == NULL)
        wire->steps = 1;
    for (unsigned i = 0; i < BURST && wire->base != NULL; i++) {
        enum hw_hyperwal_type type = (enum hw_hyperwal_type)(2 * any_below(3));

        query.request = wire->steps++;
        query.name.size = any_below(2) == 0 ? 6 : 3;
        hw_hyperwal_query_encode(&query, type != HW_HYPERWAL_LIST, &scratch);
        wire_say(wire->base, type, &scratch);
    }
}

/* --------------------------------------------------------------- in the channel of the log */

static void say_request(struct wire *wire, struct hw_proof_request *request)
{
    request->id = ++wire->steps;
    hw_proof_request_encode(request, &scratch);
    wire_say(wire->core, HW_MESSAGE_REQUEST, &scratch);
}

static void ask_blocks(struct wire *wire, const struct target *target)
{
    (void)target;
    for (unsigned i = 0; i < BURST && wire->length > 0; i++)
        say_request(wire, &(struct hw_proof_request){.has_block = true,
                                                     .block_index = any_below(wire->length)});
}

static void ask_all_at_once(struct wire *wire, const struct target *target)
{
    (void)target;
    for (unsigned i = 0; i < 4 * BURST; i++)
        say_request(wire, &(struct hw_proof_request){
                              .has_block = true,
                              .has_upgrade = true,
                              .wants_manifest = true,
                              .upgrade_length = wire->length,
                              .block_index = wire->length > 0 ? any_below(wire->length) : 0});
}

static void ask_what_is_not_there(struct wire *wire, const struct target *target)
{
    struct hw_proof_request request = {0};
    uint64_t far = wire->length + any_below(UINT64_C(1) << any_below(50));

    (void)target;
    switch (any_below(5)) {
    case 0:
        request.has_block = true;
        request.block_index = far;
        request.block_nodes = any_below(70);
        break;
    case 1:
        request.has_hash = true;
        request.hash_index = 2 * far;
        request.hash_nodes = any_below(70);
        break;
    case 2:
        request.has_seek = true;
        request.seek_bytes = any_below(UINT64_C(1) << 50);
        break;
    case 3:
        request.has_upgrade = true;
        request.upgrade_start = far;
        request.upgrade_length = far;
        break;
    default:
        request.fork = any_below(UINT64_C(1) << 40);
        request.has_block = true;
    }
    say_request(wire, &request);
}

static void wants(struct wire *wire, const struct target *target)
{
    struct hw_message_want want;

    (void)target;
    for (unsigned i = 0; i < BURST; i++) {
        want = (struct hw_message_want){.start = any_below(UINT64_C(1) << any_below(50)),
                                        .length = any_below(UINT64_C(1) << any_below(50)),
                                        .any = any_below(2) == 0};
        hw_message_want_encode(&want, &scratch);
        wire_say(wire->core, HW_MESSAGE_WANT, &scratch);
    }
}

static void ranges(struct wire *wire, const struct target *target)
{
    struct hw_message_range range;

    (void)target;
    for (unsigned i = 0; i < BURST; i++) {
        range = (struct hw_message_range){.start = any_below(UINT64_C(1) << any_below(50)),
                                          .length = any_below(UINT64_C(1) << any_below(50)),
                                          .drop = any_below(2) == 0};
        hw_message_range_encode(&range, &scratch);
        wire_say(wire->core, HW_MESSAGE_RANGE, &scratch);
    }
}

/* Pages of which some blocks are there and some are not: what costs most to remember. */
static void bitfields(struct wire *wire, const struct target *target)
{
    static uint32_t words[8192];

    (void)target;
    words[0] = 0x55555555;
    for (unsigned i = 1; i < sizeof(words) / sizeof(words[0]); i++)
        words[i] = words[0] + i;
    hw_message_bitfield_encode(wire->steps++ * 32 * 8192 % HW_LINK_BITS_MAX, words,
                               sizeof(words) / sizeof(words[0]), &scratch);
    wire_say(wire->core, HW_MESSAGE_BITFIELD, &scratch);
}

static void syncs(struct wire *wire, const struct target *target)
{
    struct hw_message_sync sync;

    (void)target;
    for (unsigned i = 0; i < BURST; i++) {
        sync = (struct hw_message_sync){.can_upgrade = true,
                                        .is_uploading = true,
                                        .is_downloading = true,
                                        .allows_push = any_below(2) == 0,
                                        .length = any_below(UINT64_C(1) << any_below(50))};
        sync.fork = any_below(4) == 0 ? any_below(UINT64_C(1) << 40) : 0;
        hw_message_sync_encode(&sync, &scratch);
        wire_say(wire->core, HW_MESSAGE_SYNC, &scratch);
    }
}

/* An answer that nobody asked for, with a block that is none of the log's. */
static void forged_blocks(struct wire *wire, const struct target *target)
{
    struct hw_proof proof = {.has_block = true, .block_index = any_below(wire->length + 2)};

    (void)target;
    hw_buffer_add(&proof.block, "forged", 6);
    if (any_below(2) == 0) {
        proof.has_upgrade = true;
        proof.upgrade_start = wire->length;
        proof.upgrade_length = 1;
        any_bytes(hw_buffer_extend(&proof.signature, 64), 64);
    }
    hw_proof_encode(&proof, &scratch);
    wire_say(wire->core, HW_MESSAGE_DATA, &scratch);
    hw_proof_release(&proof);
}

static void random_messages(struct wire *wire, const struct target *target)
{
    uint8_t bytes[128];

    (void)target;
    for (unsigned i = 0; i < BURST && wire->core != NULL; i++) {
        any_bytes(bytes, sizeof(bytes));
        hw_buffer_add(&scratch, bytes, any_below(sizeof(bytes)));
        wire_say(wire->core, any_below(12), &scratch);
    }
}

/* A follower that is new each time and claims to have all there is, and more. */
static void acknowledgements(struct wire *wire, const struct target *target)
{
    struct hw_ack ack = {.received = any_below(UINT64_C(1) << 50)};

    if (wire->steps++ == 0 && !wire_open_hyperwal(wire, target->key))
        abort();
    if (wire->log == NULL)
        return;
    ack.durable = ack.applied = ack.received;
    hw_ack_encode(&ack, &scratch);
    wire_say(wire->log, HW_HYPERWAL_ACK, &scratch);
    if (wire->steps > 20)
        wire_close(wire, false);
}

static void write_say(struct wire *wire, struct hw_write_message *message)
{
    hw_buffer_clear(&scratch);
    hw_write_message_encode(message, &scratch);
    wire_say(wire->log, message->type, &scratch);
}

/* Wants to write, and does not, again and again; asks what became of what never was. */
static void leases(struct wire *wire, const struct target *target)
{
    if (wire->steps++ == 0 && !wire_open_hyperwal(wire, target->key))
        abort();
    for (unsigned i = 0; i < BURST && wire->log != NULL; i++) {
        struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = i};
        struct hw_write_message release = {.type = HW_WRITE_RELEASE, .fence = any_below(8)};
        struct hw_write_message question = {.type = HW_WRITE_QUESTION, .request = i};

        question.id = hw_origin_make(any_below(50), any_below(20), (const uint8_t *)"log!",
                                     (const uint8_t *)"luck");
        write_say(wire, &lease);
        write_say(wire, any_below(2) == 0 ? &release : &question);
    }
    if (wire->steps > 20)
        wire_close(wire, any_below(2) == 0);
}

/* Transactions that are none, under fences that it guesses, whole or in part. */
static void commits(struct wire *wire, const struct target *target)
{
    static uint8_t bytes[2000];
    struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = 1};

    if (wire->steps++ == 0 && !wire_open_hyperwal(wire, target->key))
        abort();
    if (wire->log == NULL)
        return;
    write_say(wire, &lease);
    for (unsigned i = 0; i < 4 && wire->log != NULL; i++) {
        struct hw_write_message commit = {.type = HW_WRITE_COMMIT,
                                          .request = ++wire->said,
                                          .page_count = 1 + any_below(UINT32_MAX - 1),
                                          .part_count = 1 + any_below(any_below(2) ? 3 : 1 << 20)};
        struct hw_write_message part = {.type = HW_WRITE_PART, .request = commit.request};

        commit.id = hw_origin_make(any_below(2000), any_below(20), (const uint8_t *)"log!",
                                   (const uint8_t *)"luck");
        any_bytes(bytes, sizeof(bytes));
        part.body = (struct hw_slice){bytes, any_below(sizeof(bytes))};
        write_say(wire, &commit);
        for (uint64_t n = any_below(4); n > 0; n--)
            write_say(wire, &part);
    }
    if (wire->steps > 20)
        wire_close(wire, any_below(2) == 0);
}

/* Busy, until it is gone from one moment to the next. */
static void reset_somewhere(struct wire *wire, const struct target *target)
{
    if (wire->core == NULL && wire_is_open(wire) && !wire->has_asked) {
        wire->has_asked = true;
        if (!wire_open_core(wire, target->key, false))
            abort();
    }
    if (wire->core != NULL)
        ask_blocks(wire, target);
    if (any_below(8) == 0)
        wire_close(wire, true);
}

/* ---------------------------------------------------------------------------------- table */

enum { LINKED = ATTACK_SHAKES | ATTACK_LINKS, DEAF = LINKED | ATTACK_DEAF, AGAIN = ATTACK_AGAIN };

static const struct attack attacks[] = {
    {"half-open", 0, be_silent, NULL},
    {"half-shaken", 0, stop_in_the_middle, NULL},
    {"altered-handshake", LINKED, alter_one_byte, NULL},
    {"slow-loris", 0, a_byte_at_a_time, one_byte_more},
    {"random-bytes", AGAIN, be_silent, random_bytes},
    {"endless-frame", AGAIN, be_silent, endless_frame},
    {"endless-frames", AGAIN, be_silent, endless_frames},
    {"weak-point", 0, be_silent, weak_point},
    {"connects", AGAIN, NULL, close_at_once},
    {"knocks", AGAIN, NULL, NULL},
    {"garbage-frames", ATTACK_SHAKES | AGAIN, NULL, garbage_frames},
    {"endless-frame-later", ATTACK_SHAKES | AGAIN, NULL, endless_frame},
    {"big-frames", ATTACK_SHAKES | AGAIN, NULL, big_frames},
    {"empty-frames", ATTACK_SHAKES, NULL, empty_frames},
    {"random-frames", ATTACK_SHAKES | AGAIN, NULL, random_frames},
    {"many-channels", ATTACK_SHAKES | AGAIN, NULL, many_channels},
    {"great-numbers", ATTACK_SHAKES | AGAIN, NULL, great_numbers},
    {"open-in-batches", ATTACK_SHAKES | AGAIN, NULL, open_in_batches},
    {"wrong-proof-of-key", ATTACK_SHAKES, NULL, wrong_proof_of_key},
    {"wrong-key", ATTACK_SHAKES, NULL, wrong_key},
    {"questions", ATTACK_SHAKES, NULL, questions},
    {"ask-blocks", LINKED | AGAIN, NULL, ask_blocks},
    {"ask-and-never-read", DEAF | AGAIN, NULL, ask_all_at_once},
    {"ask-what-is-not-there", LINKED | AGAIN, NULL, ask_what_is_not_there},
    {"wants", LINKED | AGAIN, NULL, wants},
    {"wants-and-never-read", DEAF | AGAIN, NULL, wants},
    {"ranges", LINKED | AGAIN, NULL, ranges},
    {"bitfields", LINKED | AGAIN, NULL, bitfields},
    {"syncs", LINKED | AGAIN, NULL, syncs},
    {"syncs-and-never-read", DEAF | AGAIN, NULL, syncs},
    {"forged-blocks", LINKED | AGAIN, NULL, forged_blocks},
    {"random-messages", LINKED | AGAIN, NULL, random_messages},
    {"acknowledgements", LINKED | AGAIN, NULL, acknowledgements},
    {"leases", LINKED | AGAIN, NULL, leases},
    {"commits", LINKED | AGAIN, NULL, commits},
    {"resets", AGAIN, NULL, reset_somewhere},
};

const struct attack *attack_find(const char *name)
{
    for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
        if (strcmp(attacks[i].name, name) == 0)
            return &attacks[i];
    return NULL;
}

void attacks_list(void)
{
    for (size_t i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
        (void)printf("attack %s\n", attacks[i].name);
}
