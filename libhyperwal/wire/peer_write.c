/* What peers say on a log's channel hyperwal/1 to write from afar. */
#include <string.h>

#include "wire/peer_internal.h"

/* Kept until the channel is open. */
static enum hw_status keep(struct peer_link *link, const struct hw_write_message *message,
                           struct hw_error *err)
{
    struct hw_buffer *early = &link->early;
    size_t start = early->size;

    hw_buffer_add_le32(early, (uint32_t)message->type);
    hw_buffer_add_le32(early, 0);
    hw_write_message_encode(message, early);
    if (!early->failed && early->size <= PEER_EARLY_MAX) {
        hw_put_le32(early->bytes + start + 4, (uint32_t)(early->size - start - 8));
        return HW_OK;
    }
    early->size = start;
    if (!early->failed)
        return hw_fail(err, HW_ELIMIT, "peer: too much is said before its channel is open");
    early->failed = false;
    return hw_fail(err, HW_ENOMEM, "peer: no memory for a message");
}

static enum hw_status no_writes(struct hw_error *err)
{
    return hw_fail(err, HW_EPROTOCOL, "peer: it is of a kind that takes no writes");
}

enum hw_status hw_peer_write(struct hw_peer *peer, struct hw_replication *replication,
                             const struct hw_write_message *message, struct hw_error *err)
{
    struct peer_link *link = peer_link_find(peer, replication);
    enum hw_status status = HW_OK;

    if (link == NULL || link->link == NULL)
        return hw_fail(err, HW_ENOTFOUND, "peer: this log is not linked");
    if (peer->is_plain || link->log_was_refused)
        return no_writes(err);
    if (link->log == NULL)
        status = peer_log_open(link, err);
    if (status != HW_OK)
        return status;
    if (!hw_channel_is_open(link->log))
        return keep(link, message, err);
    if (!link->remote_writes)
        return no_writes(err);
    hw_buffer_clear(&peer->scratch);
    hw_write_message_encode(message, &peer->scratch);
    return peer_send_scratch(peer, link->log, message->type, err);
}

enum hw_status peer_write_opened(struct peer_link *link, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(link->early.bytes, link->early.size);
    enum hw_status status = HW_OK;

    while (status == HW_OK && hw_cursor_left(&cursor) > 0) {
        uint32_t type = hw_cursor_le32(&cursor), size = hw_cursor_le32(&cursor);
        const uint8_t *bytes = hw_cursor_bytes(&cursor, size);

        if (link->remote_writes)
            status = hw_channel_send(link->log, type, (struct hw_slice){bytes, size}, err);
    }
    hw_buffer_release(&link->early);
    return status;
}

enum hw_status peer_write_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                  struct hw_error *err)
{
    struct hw_peer *peer = link->peer;
    struct hw_write_message message;
    enum hw_status status;

    if (type < HW_WRITE_LEASE || type > HW_WRITE_WAITS)
        return HW_OK; /* of a later version */
    status = hw_write_message_decode(type, payload, &message, err);
    if (status != HW_OK || peer->host.wrote == NULL)
        return status;
    return peer->host.wrote(peer->host.ctx, peer, link->replication, &message, err);
}
