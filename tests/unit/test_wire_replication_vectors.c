/*
 * A log of ours, asked by the JavaScript readers of the recorded connections: it must give the very
 * answers that the JavaScript log gave, byte for byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/proof.h"
#include "support/json.h"
#include "support/link_net.h"

enum { MESSAGES_MAX = 512 };

struct said { /* messages in order */
    struct {
        uint64_t type;
        uint8_t *bytes; /* owned */
        size_t size;
        bool is_matched;
    } list[MESSAGES_MAX];
    unsigned count;
};

static void said_add(struct said *said, uint64_t type, const uint8_t *bytes, size_t size)
{
    assert_true(said->count < MESSAGES_MAX);
    said->list[said->count].bytes = test_malloc(size + 1);
    memcpy(said->list[said->count].bytes, bytes, size);
    said->list[said->count].size = size;
    said->list[said->count].type = type;
    said->list[said->count++].is_matched = false;
}

static void said_release(struct said *said)
{
    for (unsigned i = 0; i < said->count; i++)
        test_free(said->list[i].bytes);
    said->count = 0;
}

/* ---------------------------------------------------------------------------------- our log */

static const struct hw_env_ops *sim_ops;

static void known_random(struct hw_env *env, void *buf, size_t size)
{
    if (size == 32)
        memset(buf, 1, size); /* the seed of the recorded log's signer */
    else
        sim_ops->random(env, buf, size);
}

static struct hw_core *known_core(struct link_net *net)
{
    struct hw_env *env = sim_env(net->sim);
    struct hw_env_ops ops = *env->ops;
    struct hw_core *core = NULL;

    sim_ops = env->ops;
    ops.random = known_random;
    env->ops = &ops;
    assert_status(hw_core_create(env, NULL, &core, &net->err), HW_OK, &net->err);
    env->ops = sim_ops;
    return core;
}

struct recording {
    const char *name;
    uint64_t length;                         /* of the log at the start */
    bool has_small_blocks;                   /* block i is the byte i */
    bool has_holes;                          /* then which Ranges are told is a matter of taste */
    bool (*keep)(void *ctx, uint64_t index); /* NULL: all blocks */
};

static size_t known_block(const struct recording *recording, uint64_t i, uint8_t out[64])
{
    size_t size;

    if (recording->has_small_blocks) {
        out[0] = (uint8_t)i;
        return 1;
    }
    size = (size_t)snprintf((char *)out, 64, "block %u", (unsigned)i);
    for (uint64_t j = 0; j < i % 17; j++)
        out[size++] = (uint8_t)(7 * i + j);
    return size;
}

static void grow_to(struct link_net *net, const struct recording *recording, struct hw_core *core,
                    uint64_t length)
{
    uint8_t block[64];

    assert_status(hw_core_batch_begin(core, &net->err), HW_OK, &net->err);
    while (hw_core_batch_next(core) < length) {
        uint64_t i = hw_core_batch_next(core);

        assert_status(hw_core_batch_add(core, block, known_block(recording, i, block), &net->err),
                      HW_OK, &net->err);
    }
    assert_status(hw_core_batch_commit(core, "", 0, &net->err), HW_OK, &net->err);
}

/* ------------------------------------------------------------------------------ the players */

struct play {
    struct link_net *net;
    const struct recording *recording;
    unsigned node;
    struct link_end *to, *from;
    struct said ours, theirs;
    bool is_over; /* what comes next a log of ours cannot do: truncate */
};

static enum hw_status take(void *ctx, enum hw_message_type type, struct hw_slice head,
                           struct hw_slice body, struct hw_error *err)
{
    struct said *ours = ctx;

    (void)body;
    (void)err;
    if (ours->count < MESSAGES_MAX)
        said_add(ours, type, head.bytes, head.size);
    return HW_OK;
}

static size_t nothing_queued(void *ctx)
{
    (void)ctx;
    return 0;
}

/* A message of the recorded log: what it tells of its length, ours has to have. */
static void hear_log(struct play *play, uint64_t type, const uint8_t *bytes, size_t size)
{
    struct hw_message_sync sync;
    struct link_node *node = &play->net->nodes[play->node];

    if (type == HW_MESSAGE_SYNC) {
        assert_status(
            hw_message_sync_decode((struct hw_slice){bytes, size}, &sync, &play->net->err), HW_OK,
            &play->net->err);
        play->is_over = play->is_over || sync.fork > 0;
        if (!play->is_over && sync.length > hw_core_length(node->core)) {
            grow_to(play->net, play->recording, node->core, sync.length);
            hw_replication_grown(node->replication);
        }
    }
    if (type == HW_MESSAGE_RANGE && (bytes[0] & 1) != 0)
        play->is_over = true; /* it cleared, and soon truncates */
    if (!play->is_over)
        said_add(&play->theirs, type, bytes, size);
}

/* A large payload stands in its frame alone: after the numbers of channel and type. */
static uint8_t *payload_of(const struct json *line, const struct json *message, size_t *size)
{
    uint8_t *bytes;

    if (json_find(message, "payload") != NULL)
        return json_hex(json_get(message, "payload"), size);
    bytes = json_hex(json_get(line, "plain"), size);
    *size -= 2;
    memmove(bytes, bytes + 2, *size);
    return bytes;
}

static void play_message(struct play *play, struct hw_link *link, bool is_log,
                         const struct json *line, const struct json *message)
{
    uint64_t type;
    size_t size;
    uint8_t *bytes;

    if (strcmp(json_text(message, "kind"), "message") != 0)
        return;
    type = json_integer(message, "type");
    bytes = payload_of(line, message, &size);
    if (is_log)
        hear_log(play, type, bytes, size);
    else
        assert_status(hw_link_receive(link, type, (struct hw_slice){bytes, size}, &play->net->err),
                      HW_OK, &play->net->err);
    free(bytes);
}

static uint64_t id_of(const uint8_t *bytes, size_t size)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);

    (void)hw_cursor_uint(&cursor);
    return hw_cursor_uint(&cursor);
}

/* Each Data is the first of the log's with that id; other messages come in the same order. */
static bool is_same(const struct play *play, unsigned ours, unsigned theirs)
{
    if (play->ours.list[ours].type != play->theirs.list[theirs].type)
        return false;
    return play->ours.list[ours].type != HW_MESSAGE_DATA ||
           id_of(play->ours.list[ours].bytes, play->ours.list[ours].size) ==
               id_of(play->theirs.list[theirs].bytes, play->theirs.list[theirs].size);
}

static void compare(struct play *play)
{
    unsigned data = 0;

    for (unsigned i = 0; i < play->ours.count; i++) {
        unsigned k = 0;

        if (play->recording->has_holes && play->ours.list[i].type == HW_MESSAGE_RANGE)
            continue;
        while (k < play->theirs.count && (play->theirs.list[k].is_matched || !is_same(play, i, k)))
            k++;
        if (k == play->theirs.count)
            print_error("%s: message %u of type %u was not said by the log\n",
                        play->recording->name, i, (unsigned)play->ours.list[i].type);
        assert_true(k < play->theirs.count);
        play->theirs.list[k].is_matched = true;
        assert_int_equal(play->ours.list[i].size, play->theirs.list[k].size);
        assert_memory_equal(play->ours.list[i].bytes, play->theirs.list[k].bytes,
                            play->ours.list[i].size);
        data += play->ours.list[i].type == HW_MESSAGE_DATA;
    }
    for (unsigned k = 0; k < play->theirs.count; k++)
        assert_true(play->theirs.list[k].is_matched ||
                    (play->recording->has_holes && play->theirs.list[k].type == HW_MESSAGE_RANGE));
    assert_true(data > 1);
}

static void play_recording(struct link_net *net, const struct recording *recording)
{
    char path[512];
    struct json *lines;
    struct play *play = test_calloc(1, sizeof(*play));
    struct hw_core *core = known_core(net);
    struct hw_link *link = NULL;
    struct hw_link_sink sink = {.ctx = &play->ours, .send = take, .queued = nothing_queued};
    uint64_t freed;

    *play = (struct play){.net = net, .recording = recording};
    if (recording->length > 0)
        grow_to(net, recording, core, recording->length);
    if (recording->keep != NULL)
        assert_status(hw_core_prune(core, recording->keep, NULL, false, &freed, &net->err), HW_OK,
                      &net->err);
    play->node = link_net_add(net, core, false);
    assert_status(hw_link_open(net->nodes[play->node].replication, &sink, &link, &net->err), HW_OK,
                  &net->err);
    (void)snprintf(path, sizeof(path), HW_VECTORS "/transcripts/%s.jsonl", recording->name);
    lines = json_load_lines_file(path);
    for (const struct json *line = lines->first; line != NULL && !play->is_over;
         line = line->next) {
        bool is_log;

        if (strcmp(json_text(line, "kind"), "frame") != 0)
            continue;
        is_log = strcmp(json_text(line, "from"), "A") == 0;
        for (const struct json *part = json_get(line, "decoded")->first; part != NULL;
             part = part->next) {
            if (strcmp(json_text(part, "kind"), "batch") != 0) {
                play_message(play, link, is_log, line, part);
                continue;
            }
            for (const struct json *entry = json_get(part, "entries")->first; entry != NULL;
                 entry = entry->next)
                play_message(play, link, is_log, line, entry);
        }
    }
    compare(play);
    hw_link_close(link);
    json_free(lines);
    said_release(&play->ours);
    said_release(&play->theirs);
    test_free(play);
}

static bool keep_of_holes(void *ctx, uint64_t index)
{
    (void)ctx;
    return !(index >= 4 && index < 8) && index != 20;
}

static bool keep_of_bigbitfield(void *ctx, uint64_t index)
{
    (void)ctx;
    return index != 10 && index != 11;
}

static void a_recorded_reader_gets_the_recorded_answers(void **state)
{
    static const struct recording recordings[] = {
        {.name = "follow", .length = 13},
        {.name = "resume", .length = 21},
        {.name = "empty"},
        {.name = "sparse", .length = 13},
        {.name = "holes", .length = 40, .has_holes = true, .keep = keep_of_holes},
        {.name = "bigbitfield",
         .length = 40000,
         .has_small_blocks = true,
         .has_holes = true,
         .keep = keep_of_bigbitfield},
    };

    for (size_t i = 0; i < sizeof(recordings) / sizeof(recordings[0]); i++) {
        link_net_reset(*state, 1);
        play_recording(*state, &recordings[i]);
    }
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(a_recorded_reader_gets_the_recorded_answers),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication_vectors", tests, NULL, NULL);
}
