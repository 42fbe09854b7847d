/* Implements wire/peer.h: the life of a peer, its bytes and its time. */
#include "wire/peer.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/peer_internal.h"

enum {
    NS_PER_MS = 1000000,
    STRANGER_PIECE = 1024, /* bytes that are looked at before more are taken in */
};

static uint64_t now_ns(const struct hw_peer *peer)
{
    return peer->env->ops->monotonic_ns(peer->env);
}

size_t peer_queued(const struct hw_peer *peer)
{
    return hw_stream_output(peer->stream).size;
}

struct hw_slice peer_content(const struct hw_buffer *buffer)
{
    return (struct hw_slice){buffer->bytes, buffer->size};
}

/* The first failure is kept: it is told again by every call after it. */
static enum hw_status fail(struct hw_peer *peer, enum hw_status status, const struct hw_error *why)
{
    if (peer->failure.status == HW_OK) {
        peer->failure = *why;
        peer->failure.status = status;
    }
    return status;
}

static enum hw_status failed_before(const struct hw_peer *peer, struct hw_error *err)
{
    if (err != NULL)
        *err = peer->failure;
    return peer->failure.status;
}

/* ------------------------------------------------------------------------------- mux host */

static enum hw_status mux_send(void *ctx, struct hw_slice head, struct hw_slice body,
                               struct hw_error *err)
{
    struct hw_peer *peer = ctx;
    size_t queued = peer_queued(peer);
    struct hw_error why = {0};
    enum hw_status status;

    if (peer->failure.status != HW_OK)
        return failed_before(peer, err);
    if (queued + head.size + body.size > HW_PEER_OUTPUT_MAX)
        status = hw_fail(&why, HW_ELIMIT, "peer: %zu bytes wait that it does not take", queued);
    else
        status = hw_stream_send_parts(peer->stream, head, body, &why);
    if (status != HW_OK) {
        (void)fail(peer, status, &why); /* what was lost on the way cannot be made up for */
        return failed_before(peer, err);
    }
    peer->sent_ns = now_ns(peer);
    if (queued == 0)
        peer->taken_ns = peer->sent_ns;
    return HW_OK;
}

static bool is_hyperwal(struct hw_slice protocol)
{
    return protocol.size == sizeof(HW_HYPERWAL_PROTOCOL) - 1 &&
           memcmp(protocol.bytes, HW_HYPERWAL_PROTOCOL, protocol.size) == 0;
}

static enum hw_status mux_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                                struct hw_error *err)
{
    struct hw_peer *peer = ctx;
    enum hw_status status = HW_END;

    if (peer_is_core_protocol(protocol))
        status = peer_core_asked(peer, protocol, id, err);
    else if (is_hyperwal(protocol))
        status = peer_hyperwal_asked(peer, id, err);
    if (status != HW_END)
        return status;
    if (peer->rejects == HW_PEER_REJECTS_MAX)
        return hw_fail(err, HW_ELIMIT, "peer: it asked for more than %d channels that we refuse",
                       HW_PEER_REJECTS_MAX);
    peer->rejects++;
    return HW_OK;
}

static enum hw_status mux_opened(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                                 struct hw_error *err)
{
    struct hw_peer *peer = ctx;

    if (!is_hyperwal(hw_channel_protocol(channel)))
        return peer_core_opened(hw_channel_user(channel), handshake, err);
    if (channel == peer->base)
        return peer_base_opened(peer, handshake, err);
    return peer_log_opened(hw_channel_user(channel), handshake, err);
}

static enum hw_status mux_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                  struct hw_slice payload, struct hw_error *err)
{
    struct hw_peer *peer = ctx;

    if (!is_hyperwal(hw_channel_protocol(channel)))
        return peer_core_message(hw_channel_user(channel), type, payload, err);
    if (channel == peer->base)
        return peer_base_message(peer, type, payload, err);
    return peer_log_message(hw_channel_user(channel), type, payload, err);
}

static void mux_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct hw_peer *peer = ctx;

    if (!is_hyperwal(hw_channel_protocol(channel)))
        peer_core_closed(hw_channel_user(channel), was_rejected);
    else if (channel == peer->base)
        peer_base_closed(peer, was_rejected);
    else
        peer_log_closed(hw_channel_user(channel), was_rejected);
}

enum hw_status peer_send_scratch(struct hw_peer *peer, struct hw_channel *channel, uint64_t type,
                                 struct hw_error *err)
{
    if (peer->scratch.failed)
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a message");
    return hw_channel_send(channel, type, peer_content(&peer->scratch), err);
}

/* ------------------------------------------------------------------------------- life */

enum hw_status hw_peer_new(struct hw_env *env, bool is_initiator,
                           const struct hw_identity *identity, const struct hw_peer_host *host,
                           struct hw_peer **out, struct hw_error *err)
{
    struct hw_mux_host mux_host = {
        .send = mux_send,
        .asked = mux_asked,
        .opened = mux_opened,
        .message = mux_message,
        .closed = mux_closed,
    };
    struct hw_peer *peer = hw_zalloc(sizeof(*peer));
    enum hw_status status;

    if (peer == NULL)
        return hw_fail(err, HW_ENOMEM, "peer: no memory");
    peer->env = env;
    peer->room = HW_LINK_OUTPUT_MAX;
    peer->host = *host;
    mux_host.ctx = peer;
    status = hw_stream_new(env, is_initiator, identity, NULL, &peer->stream, err);
    if (status == HW_OK)
        status = hw_mux_new(&mux_host, &peer->mux, err);
    if (status != HW_OK) {
        hw_peer_free(peer);
        return status;
    }
    hw_stream_set_frame_max(peer->stream, HW_PEER_FRAME_MAX);
    peer->born_ns = now_ns(peer);
    peer->received_ns = peer->sent_ns = peer->taken_ns = peer->born_ns;
    *out = peer;
    return HW_OK;
}

void hw_peer_free(struct hw_peer *peer)
{
    if (peer == NULL)
        return;
    peer_links_free(peer);
    peer_base_free(peer);
    hw_mux_free(peer->mux);
    hw_stream_free(peer->stream);
    hw_buffer_release(&peer->scratch);
    hw_free(peer);
}

void hw_peer_set_user(struct hw_peer *peer, void *user)
{
    peer->user = user;
}

void *hw_peer_user(const struct hw_peer *peer)
{
    return peer->user;
}

const uint8_t *hw_peer_remote_key(const struct hw_peer *peer)
{
    return peer->is_open ? hw_stream_remote_key(peer->stream) : NULL;
}

/* ------------------------------------------------------------------------------- bytes */

/* The handshake is complete: what waited for it goes out. */
static enum hw_status become_open(struct hw_peer *peer, struct hw_error *err)
{
    static const struct hw_slice protocol = {(const uint8_t *)HW_CORE_PROTOCOL,
                                             sizeof(HW_CORE_PROTOCOL) - 1};
    enum hw_status status = HW_OK;

    peer->is_open = true;
    peer->sent_ns = now_ns(peer);
    if (peer->host.ready != NULL)
        status = peer->host.ready(peer->host.ctx, peer, err);
    for (struct peer_link *link = peer->links; link != NULL && status == HW_OK; link = link->next)
        if (link->core == NULL) /* not opened by ready() itself */
            status = peer_core_open(link, protocol, err);
    return status == HW_OK ? peer_base_ready(peer, err) : status;
}

/* Until some of what waits for the remote is taken, nothing more is done for it. */
static bool is_paused(const struct hw_peer *peer)
{
    size_t queued = peer_queued(peer);

    return queued > HW_PEER_PAUSE_SIZE || (queued > 0 && peer->is_full);
}

/* Do what the whole frames say that came. */
static enum hw_status pump(struct hw_peer *peer, struct hw_error *err)
{
    struct hw_slice message;
    enum hw_status status = HW_OK, opened = HW_OK;

    while (!is_paused(peer)) {
        status = hw_stream_next(peer->stream, &message, err);
        if (status < 0)
            return status;
        if (!peer->is_open && hw_stream_is_open(peer->stream))
            opened = become_open(peer, err);
        if (opened != HW_OK)
            return opened;
        if (status == HW_END)
            return HW_OK;
        if (message.size == 0)
            peer->keeps_alive = true;
        status = hw_mux_receive(peer->mux, message, err);
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* One who has not shown a key yet is believed a little at a time. */
static enum hw_status receive(struct hw_peer *peer, struct hw_slice bytes, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    while (status == HW_OK && bytes.size > 0) {
        struct hw_slice piece = bytes;

        if (!peer->is_open && piece.size > STRANGER_PIECE)
            piece.size = STRANGER_PIECE;
        status = hw_stream_put(peer->stream, piece, err);
        if (status == HW_OK)
            status = pump(peer, err);
        bytes.bytes += piece.size;
        bytes.size -= piece.size;
    }
    return status;
}

/* A failure inside a callback that could not return it is one of the call around it. */
static enum hw_status finish(struct hw_peer *peer, enum hw_status status,
                             const struct hw_error *why, struct hw_error *err)
{
    if (status < 0)
        (void)fail(peer, status, why);
    return peer->failure.status != HW_OK ? failed_before(peer, err) : HW_OK;
}

enum hw_status hw_peer_receive(struct hw_peer *peer, struct hw_slice bytes, struct hw_error *err)
{
    struct hw_error why = {0};

    if (peer->failure.status != HW_OK)
        return failed_before(peer, err);
    peer->received_ns = now_ns(peer);
    return finish(peer, receive(peer, bytes, &why), &why, err);
}

bool hw_peer_wants_input(const struct hw_peer *peer)
{
    return peer->failure.status == HW_OK && !is_paused(peer);
}

uint64_t hw_peer_heard_ns(const struct hw_peer *peer)
{
    return is_paused(peer) ? now_ns(peer) : peer->received_ns;
}

void hw_peer_set_room(struct hw_peer *peer, size_t size)
{
    peer->room = size < HW_LINK_OUTPUT_MAX ? size : HW_LINK_OUTPUT_MAX;
}

struct hw_slice hw_peer_output(const struct hw_peer *peer)
{
    return hw_stream_output(peer->stream);
}

enum hw_status hw_peer_sent(struct hw_peer *peer, size_t size, struct hw_error *err)
{
    bool was_paused = is_paused(peer);
    struct hw_error why = {0};
    enum hw_status status = HW_OK;

    if (peer->failure.status != HW_OK)
        return failed_before(peer, err);
    hw_stream_sent(peer->stream, size);
    peer->taken_ns = now_ns(peer);
    if (peer_queued(peer) < peer->room) {
        status = peer_links_drained(peer, &why);
        if (status == HW_OK)
            status = peer_base_drained(peer, &why);
    }
    if (status == HW_OK && was_paused) {
        peer->received_ns = peer->taken_ns; /* it was not heard because we did not listen */
        status = pump(peer, &why);
    }
    return finish(peer, status, &why, err);
}

/* ------------------------------------------------------------------------------- time */

/* Has it been so long?  Else the deadline is at most when it will have. */
static bool is_over(uint64_t now, uint64_t since_ns, unsigned ms, uint64_t *deadline_ns)
{
    uint64_t end_ns = since_ns + (uint64_t)ms * NS_PER_MS;

    if (now >= end_ns)
        return true;
    if (end_ns < *deadline_ns)
        *deadline_ns = end_ns;
    return false;
}

static enum hw_status keep_alive(struct hw_peer *peer, uint64_t now, uint64_t *deadline_ns,
                                 struct hw_error *err)
{
    static const struct hw_slice nothing = {NULL, 0};

    if (!is_over(now, peer->sent_ns, HW_PEER_KEEPALIVE_MS, deadline_ns))
        return HW_OK;
    peer->sent_ns = now;
    (void)is_over(now, now, HW_PEER_KEEPALIVE_MS, deadline_ns);
    if (peer_queued(peer) > 0)
        return HW_OK; /* what waits is as good a sign */
    peer->taken_ns = now;
    return hw_stream_send(peer->stream, nothing, err);
}

static enum hw_status tick(struct hw_peer *peer, uint64_t now, uint64_t *deadline_ns,
                           struct hw_error *err)
{
    if (!peer->is_open && is_over(now, peer->born_ns, HW_PEER_HANDSHAKE_MS, deadline_ns))
        return hw_fail(err, HW_ETIMEOUT, "peer: no handshake within %d s",
                       HW_PEER_HANDSHAKE_MS / 1000);
    if (peer_queued(peer) > 0 && is_over(now, peer->taken_ns, HW_PEER_STUCK_MS, deadline_ns))
        return hw_fail(err, HW_ETIMEOUT, "peer: it took nothing of %zu bytes for %d s",
                       peer_queued(peer), HW_PEER_STUCK_MS / 1000);
    if (!peer->is_open)
        return HW_OK;
    if (peer->keeps_alive && !is_paused(peer) &&
        is_over(now, peer->received_ns, HW_PEER_SILENCE_MS, deadline_ns))
        return hw_fail(err, HW_ETIMEOUT, "peer: no sign of life for %d s",
                       HW_PEER_SILENCE_MS / 1000);
    return keep_alive(peer, now, deadline_ns, err);
}

enum hw_status hw_peer_tick(struct hw_peer *peer, uint64_t now, uint64_t *deadline_ns,
                            struct hw_error *err)
{
    struct hw_error why = {0};

    *deadline_ns = UINT64_MAX;
    if (peer->failure.status != HW_OK)
        return failed_before(peer, err);
    return finish(peer, tick(peer, now, deadline_ns, &why), &why, err);
}
