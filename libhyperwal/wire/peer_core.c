/* The channels of logs over one connection: who may open them, and what goes through. */
#include <string.h>

#include "base/alloc.h"
#include "wire/peer_internal.h"

static struct hw_slice text_slice(const char *text)
{
    return (struct hw_slice){(const uint8_t *)text, strlen(text)};
}

static bool slice_is_text(struct hw_slice slice, const char *text)
{
    return slice.size == strlen(text) && memcmp(slice.bytes, text, slice.size) == 0;
}

bool peer_is_core_protocol(struct hw_slice protocol)
{
    return slice_is_text(protocol, HW_CORE_PROTOCOL) ||
           slice_is_text(protocol, HW_CORE_PROTOCOL_ALIAS);
}

/* In a time that does not tell how much of it is right. */
static bool is_same_secret(const uint8_t *a, const uint8_t *b, size_t size)
{
    volatile uint8_t difference = 0;

    for (size_t i = 0; i < size; i++)
        difference = (uint8_t)(difference | (a[i] ^ b[i]));
    return difference == 0;
}

static const struct hw_core_identity *link_identity(const struct peer_link *link)
{
    return hw_core_identity(hw_replication_core(link->replication));
}

struct peer_link *peer_link_find(const struct hw_peer *peer,
                                 const struct hw_replication *replication)
{
    for (struct peer_link *link = peer->links; link != NULL; link = link->next)
        if (link->replication == replication)
            return link;
    return NULL;
}

struct peer_link *peer_link_find_id(const struct hw_peer *peer, struct hw_slice id)
{
    if (id.size != HW_KEY_SIZE)
        return NULL;
    for (struct peer_link *link = peer->links; link != NULL; link = link->next)
        if (memcmp(link_identity(link)->discovery_key, id.bytes, HW_KEY_SIZE) == 0)
            return link;
    return NULL;
}

/* ------------------------------------------------------------------------------- sink */

static enum hw_status sink_send(void *ctx, enum hw_message_type type, struct hw_slice head,
                                struct hw_slice body, struct hw_error *err)
{
    struct peer_link *link = ctx;

    return hw_channel_send_parts(link->core, type, head, body, err);
}

static size_t sink_queued(void *ctx)
{
    const struct peer_link *link = ctx;

    /* Links know one bound: above ours it is told as reached. */
    if (peer_queued(link->peer) > link->peer->room)
        return HW_LINK_OUTPUT_MAX + peer_queued(link->peer);
    return peer_queued(link->peer);
}

/* --------------------------------------------------------------------------- open, close */

static struct peer_link *link_new(struct hw_peer *peer, struct hw_replication *replication)
{
    struct peer_link *link = hw_zalloc(sizeof(*link));

    if (link == NULL)
        return NULL;
    link->peer = peer;
    link->replication = replication;
    link->next = peer->links;
    peer->links = link;
    if (peer->last == NULL)
        peer->last = link;
    return link;
}

/* Its channels are closed by the caller, or gone. */
static void link_free(struct peer_link *link)
{
    struct peer_link **at = &link->peer->links, *before = NULL;

    for (; *at != link; at = &(*at)->next)
        before = *at;
    *at = link->next;
    if (link->peer->last == link)
        link->peer->last = before;
    hw_link_close(link->link);
    hw_buffer_release(&link->early);
    hw_free(link);
}

enum hw_status peer_core_open(struct peer_link *link, struct hw_slice protocol,
                              struct hw_error *err)
{
    const struct hw_core_identity *identity = link_identity(link);
    struct hw_peer *peer = link->peer;
    struct hw_handshake handshake = {.has_seeks = false};

    hw_capability(hw_stream_is_initiator(peer->stream), hw_stream_handshake_hash(peer->stream),
                  identity->key, handshake.capability);
    hw_buffer_clear(&peer->scratch);
    hw_handshake_encode(&handshake, &peer->scratch);
    if (peer->scratch.failed)
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a channel");
    return hw_mux_open(peer->mux, protocol, (struct hw_slice){identity->discovery_key, HW_KEY_SIZE},
                       peer_content(&peer->scratch), link, &link->core, err);
}

enum hw_status hw_peer_link(struct hw_peer *peer, struct hw_replication *replication,
                            struct hw_error *err)
{
    struct peer_link *link;
    enum hw_status status;

    if (peer_link_find(peer, replication) != NULL)
        return hw_fail(err, HW_EEXIST, "peer: this log is linked already");
    link = link_new(peer, replication);
    if (link == NULL)
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a link");
    if (!peer->is_open)
        return HW_OK; /* it is opened when the remote is known */
    status = peer_core_open(link, text_slice(HW_CORE_PROTOCOL), err);
    if (status != HW_OK)
        link_free(link);
    return status;
}

enum hw_status peer_core_asked(struct hw_peer *peer, struct hw_slice protocol, struct hw_slice id,
                               struct hw_error *err)
{
    struct hw_replication *replication;
    struct peer_link *link;
    enum hw_status status;

    if (id.size != HW_KEY_SIZE || peer->host.find == NULL || peer_link_find_id(peer, id) != NULL)
        return HW_END;
    replication = peer->host.find(peer->host.ctx, peer, id.bytes);
    if (replication == NULL)
        return HW_END;
    link = link_new(peer, replication);
    if (link == NULL)
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a link");
    status = peer_core_open(link, protocol, err);
    if (status != HW_OK)
        link_free(link);
    return status;
}

enum hw_status peer_core_opened(struct peer_link *link, struct hw_slice handshake,
                                struct hw_error *err)
{
    struct hw_link_sink sink = {.ctx = link, .send = sink_send, .queued = sink_queued};
    struct hw_peer *peer = link->peer;
    struct hw_replication *replication = link->replication;
    struct hw_handshake theirs;
    uint8_t wanted[sizeof(theirs.capability)];
    enum hw_status status;

    status = hw_handshake_decode(handshake, &theirs, err);
    if (status != HW_OK)
        return status;
    hw_capability(!hw_stream_is_initiator(peer->stream), hw_stream_handshake_hash(peer->stream),
                  link_identity(link)->key, wanted);
    if (!is_same_secret(wanted, theirs.capability, sizeof(wanted)))
        return hw_fail(err, HW_EPROTOCOL, "peer: it does not know the key of the log it asks for");
    if (hw_core_is_mirror(hw_replication_core(replication)))
        hw_stream_set_frame_max(peer->stream, HW_STREAM_FRAME_MAX);
    status = hw_link_open(replication, &sink, &link->link, err);
    if (status != HW_OK)
        return status;
    if (peer->host.linked != NULL)
        peer->host.linked(peer->host.ctx, peer, replication);
    link = peer_link_find(peer, replication); /* or the host has unlinked it */
    return link == NULL ? HW_OK : peer_log_flush(link, err);
}

void peer_core_closed(struct peer_link *link, bool was_rejected)
{
    struct hw_replication *replication = link->replication;
    struct hw_peer *peer = link->peer;

    if (link->log != NULL)
        hw_channel_close(link->log);
    link_free(link);
    if (peer->host.unlinked != NULL)
        peer->host.unlinked(peer->host.ctx, peer, replication, was_rejected);
}

void hw_peer_unlink(struct hw_peer *peer, struct hw_replication *replication)
{
    struct peer_link *link = peer_link_find(peer, replication);

    if (link == NULL)
        return;
    if (link->log != NULL)
        hw_channel_close(link->log);
    if (link->core != NULL)
        hw_channel_close(link->core);
    link_free(link);
}

void peer_links_free(struct hw_peer *peer)
{
    while (peer->links != NULL) {
        struct hw_replication *replication = peer->links->replication;

        link_free(peer->links);
        if (peer->host.unlinked != NULL)
            peer->host.unlinked(peer->host.ctx, peer, replication, false);
    }
}

/* ----------------------------------------------------------------------------- messages */

enum hw_status peer_core_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                 struct hw_error *err)
{
    enum hw_status status = hw_link_receive(link->link, type, payload, err);

    if (status == HW_OK && hw_link_is_full(link->link))
        link->peer->is_full = true;
    return status;
}

/* Who had its turn goes to the end. */
static struct peer_link *take_turn(struct hw_peer *peer)
{
    struct peer_link *first = peer->links;

    peer->last->next = first; /* for a moment they are a ring */
    peer->links = first->next;
    peer->last = first;
    first->next = NULL;
    return first;
}

enum hw_status peer_links_drained(struct hw_peer *peer, struct hw_error *err)
{
    unsigned count = 0;
    enum hw_status status = HW_OK;

    for (const struct peer_link *link = peer->links; link != NULL; link = link->next)
        count++;
    while (status == HW_OK && count-- > 0 && peer_queued(peer) < peer->room) {
        struct peer_link *link = take_turn(peer);

        if (link->link != NULL)
            status = hw_link_drained(link->link, err);
    }
    peer->is_full = false;
    for (const struct peer_link *link = peer->links; link != NULL; link = link->next)
        if (link->link != NULL && hw_link_is_full(link->link))
            peer->is_full = true;
    return status;
}

bool hw_peer_has_link(const struct hw_peer *peer, const struct hw_link *link)
{
    for (const struct peer_link *p = peer->links; p != NULL; p = p->next)
        if (p->link == link)
            return link != NULL;
    return false;
}

const struct hw_link *hw_peer_link_of(const struct hw_peer *peer,
                                      const struct hw_replication *replication)
{
    const struct peer_link *link = peer_link_find(peer, replication);

    return link == NULL ? NULL : link->link;
}
