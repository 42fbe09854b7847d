/*
 * mux_fixture.h - two muxes whose frames wait in queues, and what their hosts were told, as text
 */
#ifndef HW_TEST_MUX_FIXTURE_H
#define HW_TEST_MUX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/mux.h"

enum { QUEUE_MAX = 8192, STORY_SIZE = 1 << 15 };

struct end;
struct end_hooks { /* what a host does beside writing its story; NULL: nothing */
    void (*opened)(struct end *end, struct hw_channel *channel);
    void (*message)(struct end *end, struct hw_channel *channel);
    void (*closed)(struct end *end, struct hw_channel *channel);
};

struct end { /* one side */
    struct hw_mux *mux;
    struct hw_buffer *queue; /* owned: frames to the other side, [first, last) */
    unsigned first, last;
    bool accepts;                /* opens what the other asks for */
    enum hw_status asked_status; /* what the host says when it is asked; and so on */
    enum hw_status message_status, send_status;
    struct end_hooks hooks;
    struct hw_channel *latest; /* the channel that was accepted or opened last */
    char story[STORY_SIZE];    /* "asked p/i, opened p/i handshake, ..." */
};

static inline struct hw_slice text(const char *words)
{
    return (struct hw_slice){(const uint8_t *)words, strlen(words)};
}

static inline void tell(struct end *end, const char *what, struct hw_slice protocol,
                        struct hw_slice id, const char *more, struct hw_slice payload)
{
    size_t used = strlen(end->story);

    (void)snprintf(end->story + used, sizeof(end->story) - used, "%s%s %.*s/%.*s%s%.*s",
                   used == 0 ? "" : ", ", what, (int)protocol.size, (const char *)protocol.bytes,
                   (int)id.size, (const char *)id.bytes, more, (int)payload.size,
                   payload.size == 0 ? "" : (const char *)payload.bytes);
}

static inline void tell_channel(struct end *end, const char *what, const struct hw_channel *channel,
                                const char *more, struct hw_slice payload)
{
    tell(end, what, hw_channel_protocol(channel), hw_channel_id(channel), more, payload);
}

static inline enum hw_status end_send(void *ctx, struct hw_slice head, struct hw_slice body,
                                      struct hw_error *err)
{
    struct end *end = ctx;
    struct hw_buffer frame = {0};

    (void)err;
    if (end->send_status != HW_OK)
        return end->send_status;
    if (end->last == QUEUE_MAX)
        return HW_ELIMIT;
    frame.bytes = malloc(head.size + body.size + 1); /* not ours to fail */
    frame.size = head.size + body.size;
    memcpy(frame.bytes, head.bytes, head.size);
    if (body.size > 0)
        memcpy(frame.bytes + head.size, body.bytes, body.size);
    end->queue[end->last++] = frame;
    return HW_OK;
}

static inline enum hw_status end_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                                       struct hw_error *err)
{
    struct end *end = ctx;

    tell(end, "asked", protocol, id, "", (struct hw_slice){NULL, 0});
    if (end->asked_status != HW_OK || !end->accepts)
        return end->asked_status;
    return hw_mux_open(end->mux, protocol, id, text("yes"), end, &end->latest, err);
}

static inline enum hw_status end_opened(void *ctx, struct hw_channel *channel,
                                        struct hw_slice handshake, struct hw_error *err)
{
    struct end *end = ctx;

    (void)err;
    tell_channel(end, "opened", channel, " ", handshake);
    if (end->hooks.opened != NULL)
        end->hooks.opened(end, channel);
    return HW_OK;
}

static inline enum hw_status end_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                         struct hw_slice payload, struct hw_error *err)
{
    struct end *end = ctx;
    char more[32];

    (void)err;
    (void)snprintf(more, sizeof(more), " %llu:", (unsigned long long)type);
    tell_channel(end, "message", channel, more, payload);
    if (end->hooks.message != NULL)
        end->hooks.message(end, channel);
    return end->message_status;
}

static inline void end_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct end *end = ctx;

    tell_channel(end, was_rejected ? "rejected" : "closed", channel, "",
                 (struct hw_slice){NULL, 0});
    if (end->hooks.closed != NULL)
        end->hooks.closed(end, channel);
}

static inline struct end *end_new(bool accepts)
{
    struct end *end = calloc(1, sizeof(*end));
    struct hw_mux_host host = {.ctx = end,
                               .send = end_send,
                               .asked = end_asked,
                               .opened = end_opened,
                               .message = end_message,
                               .closed = end_closed};

    end->queue = calloc(QUEUE_MAX, sizeof(*end->queue));
    end->accepts = accepts;
    assert_int_equal(hw_mux_new(&host, &end->mux, NULL), HW_OK);
    return end;
}

static inline void end_free(struct end *end)
{
    hw_mux_free(end->mux);
    for (unsigned i = end->first; i < end->last; i++)
        free(end->queue[i].bytes);
    free(end->queue);
    free(end);
}

/* The next frame to the other side; its bytes are the caller's (free). */
static inline struct hw_buffer end_take(struct end *end)
{
    struct hw_buffer frame = {0};

    if (end->first < end->last)
        frame = end->queue[end->first++];
    if (end->first == end->last)
        end->first = end->last = 0;
    return frame;
}

/* What the host was told since the last time. */
static inline void expect_story(struct end *end, const char *story)
{
    assert_string_equal(end->story, story);
    end->story[0] = '\0';
}

/* One frame, in an allocation of its own so that a read beyond it is seen. */
static inline enum hw_status give(struct end *end, const void *bytes, size_t size)
{
    uint8_t *copy = malloc(size + (size == 0));
    enum hw_status status;

    if (size > 0)
        memcpy(copy, bytes, size);
    status = hw_mux_receive(end->mux, (struct hw_slice){copy, size}, NULL);
    free(copy);
    return status;
}

/* Hand over one frame; false: there was none. */
static inline bool pass_one(struct end *from, struct end *to)
{
    struct hw_buffer frame = end_take(from);

    if (frame.bytes == NULL)
        return false;
    assert_int_equal(give(to, frame.bytes, frame.size), HW_OK);
    free(frame.bytes);
    return true;
}

static inline void pass_all(struct end *a, struct end *b)
{
    bool moved = true;

    while (moved) {
        moved = pass_one(a, b);
        moved |= pass_one(b, a);
    }
}

static inline struct hw_channel *open_channel(struct end *end, const char *protocol, const char *id)
{
    struct hw_channel *channel = NULL;

    assert_int_equal(
        hw_mux_open(end->mux, text(protocol), text(id), text("hi"), end, &channel, NULL), HW_OK);
    end->latest = channel;
    return channel;
}

static inline void say(struct hw_channel *channel, uint64_t type, const char *words)
{
    assert_int_equal(hw_channel_send(channel, type, text(words), NULL), HW_OK);
}

#endif
