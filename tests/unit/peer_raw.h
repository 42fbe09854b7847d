/*
 * unit/peer_raw.h - a remote that is no peer: its own stream and mux, and no manners
 *
 * It opens channels with any key or none, sends frames of any content, and may be deaf.
 */
#ifndef UNIT_PEER_RAW_H
#define UNIT_PEER_RAW_H

#include <malloc.h>

#include "unit/peer_fixture.h"
#include "wire/message.h"

struct raw {
    struct hw_env *env;
    struct hw_stream *stream;
    struct hw_mux *mux;
    bool accepts_logs;        /* opens hypercore/alpha when asked for it */
    uint8_t key[HW_KEY_SIZE]; /* with this one as the key */
    bool reflects;            /* with what proves the other side's knowledge as its own proof */
    bool is_deaf;             /* takes nothing of what is sent to it */
    struct hw_channel *opened;
    unsigned asked, opened_count, closed_count, rejected_count, message_count;
};

static inline enum hw_status raw_send(void *ctx, struct hw_slice head, struct hw_slice body,
                                      struct hw_error *err)
{
    struct raw *raw = ctx;

    return hw_stream_send_parts(raw->stream, head, body, err);
}

static inline enum hw_status raw_open(struct raw *raw, const char *protocol, struct hw_slice id,
                                      struct hw_slice handshake)
{
    struct hw_channel *channel;

    return hw_mux_open(raw->mux, (struct hw_slice){(const uint8_t *)protocol, strlen(protocol)}, id,
                       handshake, raw, &channel, NULL);
}

static inline enum hw_status raw_open_log(struct raw *raw, const char *protocol)
{
    bool as_initiator = hw_stream_is_initiator(raw->stream) != raw->reflects;
    struct hw_handshake handshake = {.has_seeks = false};
    struct hw_buffer bytes = {0};
    uint8_t id[HW_KEY_SIZE];
    enum hw_status status;

    hw_discovery_key(raw->key, id);
    hw_capability(as_initiator, hw_stream_handshake_hash(raw->stream), raw->key,
                  handshake.capability);
    hw_handshake_encode(&handshake, &bytes);
    status = raw_open(raw, protocol, (struct hw_slice){id, sizeof(id)},
                      (struct hw_slice){bytes.bytes, bytes.size});
    hw_buffer_release(&bytes);
    return status;
}

static inline enum hw_status raw_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                                       struct hw_error *err)
{
    struct raw *raw = ctx;

    (void)id, (void)err;
    raw->asked++;
    if (!raw->accepts_logs || protocol.size != strlen(HW_CORE_PROTOCOL))
        return HW_OK;
    return raw_open_log(raw, HW_CORE_PROTOCOL);
}

static inline enum hw_status raw_opened(void *ctx, struct hw_channel *channel,
                                        struct hw_slice handshake, struct hw_error *err)
{
    struct raw *raw = ctx;

    (void)handshake, (void)err;
    raw->opened = channel;
    raw->opened_count++;
    return HW_OK;
}

static inline enum hw_status raw_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                         struct hw_slice payload, struct hw_error *err)
{
    struct raw *raw = ctx;

    (void)channel, (void)type, (void)payload, (void)err;
    raw->message_count++;
    return HW_OK;
}

static inline void raw_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct raw *raw = ctx;

    raw->opened = raw->opened == channel ? NULL : raw->opened;
    raw->closed_count += !was_rejected;
    raw->rejected_count += was_rejected;
}

static inline void raw_release(struct raw *raw)
{
    hw_mux_free(raw->mux);
    hw_stream_free(raw->stream);
}

/* Bytes both ways until there are none. */
static inline void raw_run(struct world *w, struct raw *raw, struct side *side)
{
    struct hw_slice output, message;
    bool moved = true;

    while (moved && side->status == HW_OK) {
        moved = false;
        output = hw_stream_output(raw->stream);
        if (output.size > HW_RECEIVE_SIZE)
            output.size = HW_RECEIVE_SIZE;
        if (output.size > 0 && hw_peer_wants_input(side->peer)) {
            side_fail(side, hw_peer_receive(side->peer, output, &w->err), &w->err);
            hw_stream_sent(raw->stream, output.size);
            moved = true;
        }
        output = hw_peer_output(side->peer);
        if (raw->is_deaf || output.size == 0 || side->status != HW_OK)
            continue;
        assert_peer_ok(hw_stream_put(raw->stream, output, &w->err));
        side_fail(side, hw_peer_sent(side->peer, output.size, &w->err), &w->err);
        moved = true;
        while (hw_stream_next(raw->stream, &message, &w->err) == HW_OK)
            assert_peer_ok(hw_mux_receive(raw->mux, message, &w->err));
    }
}

/* Connected to one side, handshake done. */
static inline void raw_connect(struct world *w, struct raw *raw, struct side *side)
{
    struct hw_mux_host host = {
        .ctx = raw,
        .send = raw_send,
        .asked = raw_asked,
        .opened = raw_opened,
        .message = raw_message,
        .closed = raw_closed,
    };
    struct hw_identity identity;

    memset(raw, 0, sizeof(*raw));
    raw->env = w->env;
    hw_identity_random(w->env, &identity);
    assert_peer_ok(hw_stream_new(w->env, side == &w->b, &identity, NULL, &raw->stream, &w->err));
    assert_peer_ok(hw_mux_new(&host, &raw->mux, &w->err));
    assert_peer_ok(side_connect(w, side));
    raw_run(w, raw, side);
    assert_true(hw_stream_is_open(raw->stream));
    assert_int_equal(side->ready, 1);
}

static inline struct hw_slice text(const char *bytes)
{
    return (struct hw_slice){(const uint8_t *)bytes, strlen(bytes)};
}

static inline const uint8_t *side_key(const struct side *side)
{
    return hw_core_identity(world_core(side, 0))->key;
}

/* A frame of the mux as it stands. */
static inline void raw_frame(struct world *w, struct raw *raw, const void *bytes, size_t size)
{
    assert_peer_ok(
        hw_stream_send(raw->stream, (struct hw_slice){(const uint8_t *)bytes, size}, &w->err));
}

/* Bytes that the process has from malloc now. */
static inline size_t memory(void)
{
    return mallinfo2().uordblks;
}

#endif
