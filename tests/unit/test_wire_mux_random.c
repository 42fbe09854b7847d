/*
 * Long random conversations of two muxes whose hosts open, refuse, close and talk as they like,
 * with frames that wait on the way and are joined to batches.  The promises that hold after each:
 * both sides agree which channels are open, and a channel's messages are those of one channel of
 * the other side, all of them, in order, from the first on.
 *
 * A seed names a history: HYPERWAL_SEED=N runs that one alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/mux.h"

enum { PAIRS = 5, HISTORIES = 400, STEPS = 1500, WAITING_MAX = 4096 };

struct session { /* a channel of one side */
    struct hw_channel *channel;
    unsigned pair;
    uint32_t name;       /* of this session; its messages carry it */
    uint32_t said;       /* messages */
    uint32_t heard;      /* messages */
    uint32_t heard_from; /* the other side's session; 0: nothing yet */
    bool is_open;
    struct session *next_dead; /* freed at the end, so that no address is used twice */
};

struct world;
struct party {
    struct world *world;
    struct party *other;
    struct hw_mux *mux;
    struct session *live[PAIRS];
    struct session *dead;
    struct hw_buffer waiting[WAITING_MAX]; /* frames on their way to the other: a ring */
    unsigned first, count;
};

struct world {
    struct party parties[2];
    uint64_t random;
    uint32_t next_name;
    bool is_calm;      /* the end: everything is accepted, nothing is closed or said */
    const char *wrong; /* NULL: nothing */
    unsigned opened, heard, rejected, batches;
};

static uint64_t below(struct world *world, uint64_t bound)
{
    world->random = world->random * 6364136223846793005U + 1442695040888963407U;
    return (world->random >> 33) % bound;
}

static bool one_in(struct world *world, uint64_t bound)
{
    return !world->is_calm && below(world, bound) == 0;
}

static void wrong(struct world *world, const char *what)
{
    if (world->wrong == NULL)
        world->wrong = what;
}

static void bury(struct party *party, struct session *session)
{
    if (party->live[session->pair] != session)
        wrong(party->world, "a channel ended that was not there");
    party->live[session->pair] = NULL;
    session->next_dead = party->dead;
    party->dead = session;
}

static void close_session(struct party *party, struct session *session)
{
    bury(party, session);
    hw_channel_close(session->channel);
}

static enum hw_status open_session(struct party *party, unsigned pair)
{
    struct session *session = calloc(1, sizeof(*session));
    const uint8_t id = (uint8_t)('0' + pair);
    enum hw_status status;

    session->pair = pair;
    session->name = ++party->world->next_name;
    status = hw_mux_open(party->mux, (struct hw_slice){(const uint8_t *)"p", 1},
                         (struct hw_slice){&id, 1}, (struct hw_slice){&id, 1}, session,
                         &session->channel, NULL);
    if (status != HW_OK) {
        free(session);
        wrong(party->world, "an open failed");
        return status;
    }
    if (party->live[pair] != NULL)
        wrong(party->world, "a channel was opened twice");
    party->live[pair] = session;
    return HW_OK;
}

static void say(struct party *party, struct session *session)
{
    uint8_t words[8];

    hw_put_le32(words, session->name);
    hw_put_le32(words + 4, session->said++);
    if (hw_channel_send(session->channel, session->said % 3, (struct hw_slice){words, 8}, NULL) !=
        HW_OK)
        wrong(party->world, "a message was not sent");
}

/* ---------------------------------------------------------------------------- the hosts */

static enum hw_status host_send(void *ctx, struct hw_slice head, struct hw_slice body,
                                struct hw_error *err)
{
    struct party *party = ctx;
    struct hw_buffer *frame = &party->waiting[(party->first + party->count) % WAITING_MAX];

    (void)err;
    if (party->count == WAITING_MAX)
        return HW_ELIMIT;
    party->count++;
    hw_buffer_clear(frame);
    hw_buffer_add(frame, head.bytes, head.size);
    hw_buffer_add(frame, body.bytes, body.size);
    return HW_OK;
}

static enum hw_status host_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                                 struct hw_error *err)
{
    struct party *party = ctx;
    unsigned pair = (unsigned)(id.bytes[0] - '0');

    (void)err;
    if (protocol.size != 1 || id.size != 1 || pair >= PAIRS || party->live[pair] != NULL) {
        wrong(party->world, "asked for a channel that is there, or is none");
        return HW_EMISUSE;
    }
    return one_in(party->world, 4) ? HW_OK : open_session(party, pair);
}

static enum hw_status host_opened(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                                  struct hw_error *err)
{
    struct party *party = ctx;
    struct session *session = hw_channel_user(channel);

    (void)err;
    if (session->is_open || !hw_channel_is_open(channel) || party->live[session->pair] != session ||
        handshake.size != 1 || handshake.bytes[0] != '0' + session->pair)
        wrong(party->world, "opened what is open, gone or another");
    session->is_open = true;
    party->world->opened++;
    if (one_in(party->world, 8))
        close_session(party, session);
    return HW_OK;
}

static enum hw_status host_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                   struct hw_slice payload, struct hw_error *err)
{
    struct party *party = ctx;
    struct session *session = hw_channel_user(channel);
    uint32_t name = payload.size == 8 ? hw_get_le32(payload.bytes) : 0;

    (void)err;
    if (session->heard_from == 0)
        session->heard_from = name;
    if (name != session->heard_from || hw_get_le32(payload.bytes + 4) != session->heard)
        wrong(party->world, "a message of another channel, or one is missing");
    if (party->live[session->pair] != session || !session->is_open)
        wrong(party->world, "a message on a channel that is not open");
    session->heard++;
    if (type != session->heard % 3)
        wrong(party->world, "a message of another type");
    party->world->heard++;
    if (one_in(party->world, 4))
        say(party, session);
    if (one_in(party->world, 20))
        close_session(party, session);
    return HW_OK;
}

static void host_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct party *party = ctx;
    struct session *session = hw_channel_user(channel);
    unsigned pair = session->pair;

    if (was_rejected == session->is_open)
        wrong(party->world, "rejected while open, or closed before");
    party->world->rejected += was_rejected;
    bury(party, session);
    if (one_in(party->world, 4))
        (void)open_session(party, pair); /* a failure is noted there */
}

/* ---------------------------------------------------------------------------- on the way */

static struct hw_buffer *oldest(struct party *from)
{
    struct hw_buffer *frame = &from->waiting[from->first];

    from->first = (from->first + 1) % WAITING_MAX;
    from->count--;
    return frame;
}

/* The next `count` frames as one batch, as JavaScript peers write it. */
static void join(struct party *from, unsigned count, struct hw_buffer *batch)
{
    uint64_t channel = UINT64_MAX;

    hw_buffer_add(batch, "\0\0", 2);
    for (unsigned i = 0; i < count; i++) {
        struct hw_buffer *frame = oldest(from);
        struct hw_cursor cursor = hw_cursor(frame->bytes, frame->size);
        uint64_t next = hw_cursor_uint(&cursor);

        if (next != channel) {
            if (i > 0)
                hw_buffer_add_u8(batch, 0);
            hw_buffer_add_uint(batch, next);
            channel = next;
        }
        hw_buffer_add_uint(batch, hw_cursor_left(&cursor));
        hw_buffer_add(batch, cursor.next, hw_cursor_left(&cursor));
    }
}

static void deliver(struct party *from)
{
    struct world *world = from->world;
    struct hw_buffer frame = {0};
    enum hw_status status;

    if (from->count == 0)
        return;
    if (from->count > 1 && below(world, 3) == 0) {
        join(from, 1 + (unsigned)below(world, from->count < 9 ? from->count : 9), &frame);
        world->batches++;
    } else {
        struct hw_buffer *only = oldest(from); /* copied: answers may use its place */

        hw_buffer_add(&frame, only->bytes, only->size);
    }
    status = hw_mux_receive(from->other->mux, (struct hw_slice){frame.bytes, frame.size}, NULL);
    if (status != HW_OK)
        wrong(world, "a frame was refused");
    hw_buffer_release(&frame);
}

static void step(struct world *world)
{
    struct party *party = &world->parties[below(world, 2)];
    unsigned pair = (unsigned)below(world, PAIRS);
    struct session *session = party->live[pair];

    switch (below(world, 8)) {
    case 0:
    case 1:
        if (session == NULL)
            (void)open_session(party, pair); /* a failure is noted there */
        break;
    case 2:
        if (session != NULL && one_in(world, 2))
            close_session(party, session);
        break;
    case 3:
    case 4:
        if (session != NULL) /* open or not yet: early messages must not be lost */
            say(party, session);
        break;
    default:
        deliver(party);
        break;
    }
}

/* ---------------------------------------------------------------------------- histories */

static void world_init(struct world *world, uint64_t seed)
{
    *world = (struct world){.random = seed * 2654435769U + 1};
    for (unsigned i = 0; i < 2; i++) {
        struct party *party = &world->parties[i];
        const struct hw_mux_host host = {.ctx = party,
                                         .send = host_send,
                                         .asked = host_asked,
                                         .opened = host_opened,
                                         .message = host_message,
                                         .closed = host_closed};

        party->world = world;
        party->other = &world->parties[1 - i];
        assert_int_equal(hw_mux_new(&host, &party->mux, NULL), HW_OK);
    }
}

static void world_release(struct world *world)
{
    for (unsigned i = 0; i < 2; i++) {
        struct party *party = &world->parties[i];

        hw_mux_free(party->mux);
        for (unsigned k = 0; k < PAIRS; k++)
            free(party->live[k]);
        while (party->dead != NULL) {
            struct session *next = party->dead->next_dead;

            free(party->dead);
            party->dead = next;
        }
        for (unsigned k = 0; k < WAITING_MAX; k++)
            hw_buffer_release(&party->waiting[k]);
    }
}

/* Nothing is on its way: both sides must say the same. */
static void check_agreement(struct world *world)
{
    for (unsigned pair = 0; pair < PAIRS; pair++) {
        const struct session *a = world->parties[0].live[pair];
        const struct session *b = world->parties[1].live[pair];

        if ((a == NULL) != (b == NULL))
            wrong(world, "a channel is there on one side only");
        if (a == NULL || b == NULL)
            continue;
        if (!a->is_open || !b->is_open)
            wrong(world, "a channel waits for ever");
        if (a->heard != b->said || b->heard != a->said)
            wrong(world, "messages of an open channel were lost");
        if ((a->heard > 0 && a->heard_from != b->name) ||
            (b->heard > 0 && b->heard_from != a->name))
            wrong(world, "a channel heard another");
    }
}

static void run_history(struct world *world, uint64_t seed)
{
    world_init(world, seed);
    for (unsigned i = 0; i < STEPS && world->wrong == NULL; i++) {
        step(world);
        if (i % 300 != 299)
            continue;
        world->is_calm = true;
        while (world->parties[0].count + world->parties[1].count > 0 && world->wrong == NULL)
            deliver(&world->parties[world->parties[0].count == 0]);
        world->is_calm = false;
        if (world->wrong == NULL)
            check_agreement(world);
    }
}

static void any_conversation_ends_in_agreement(void **state)
{
    const char *chosen = getenv("HYPERWAL_SEED");
    uint64_t seed = chosen == NULL ? 1 : strtoull(chosen, NULL, 10);
    uint64_t end = chosen == NULL ? seed + HISTORIES : seed + 1;
    unsigned opened = 0, heard = 0, rejected = 0, batches = 0;

    (void)state;
    for (; seed < end; seed++) {
        struct world *world = calloc(1, sizeof(*world));
        const char *what;

        run_history(world, seed);
        what = world->wrong;
        opened += world->opened;
        heard += world->heard;
        rejected += world->rejected;
        batches += world->batches;
        world_release(world);
        free(world);
        if (what != NULL)
            fail_msg("%s; again with HYPERWAL_SEED=%llu", what, (unsigned long long)seed);
    }
    if (chosen == NULL) /* the histories were not empty ones */
        assert_true(opened > 10000 && heard > 10000 && rejected > 1000 && batches > 10000);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_conversation_ends_in_agreement),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/mux random", tests, NULL, NULL);
}
