/*
 * wire/mux.h - many channels over one stream: the protomux framing of Hypercore peers
 *
 *   message   channel uint | type uint | payload        channel: the sender's number, from 1
 *   control   0 | 0 batch, 1 open, 2 reject, 3 close | ...
 *   open      local number uint | protocol string | id buffer | handshake
 *   batch     0 | 0 | channel uint | (size uint | type, payload)... | 0 | channel uint | ...
 *
 * A channel is a pair (protocol, id).  It is open when both sides have opened it; a message of a
 * channel that is not open is dropped.  A mux belongs to one connection and knows nothing of what
 * the channels say.
 *
 *              numbers a side may use for an open
 *
 *     free ──open──▶ asking ──the other's open──▶ open ──close, either side──▶ free
 *      ▲               │ reject ─▶ free
 *      └── answer ── closing ◀── our close
 *
 * An open that was closed before it was answered keeps its number until the answer comes, so that
 * no answer is taken for that of another.
 *
 * Invariants: 1. At most HW_MUX_CHANNELS_MAX channels; a peer that numbers more, or opens more in
 *                one frame, is dropped; and so is one that puts more than HW_MUX_BATCH_MAX
 *                messages into one frame, as all of a frame is worked off in one call.
 *             2. Numbers are the lowest free ones, as JavaScript peers demand.
 *             3. After a failure the mux only fails, with the same status.
 *
 * Source: protomux 3.12.
 */
#ifndef HW_WIRE_MUX_H
#define HW_WIRE_MUX_H

#include "base/buffer.h"
#include "base/error.h"

enum {
    HW_MUX_CHANNELS_MAX = 1024,
    HW_MUX_PROTOCOL_MAX = 64, /* bytes of a protocol's name */
    HW_MUX_ID_MAX = 64,       /* bytes of an id */
    HW_MUX_HANDSHAKE_MAX = 1024,
    /*
     * Messages of one batch, with its changes of channel.  JavaScript peers batch what they say of
     * themselves on each channel, and up to 512 requests or 64 bitfields of one log.
     */
    HW_MUX_BATCH_MAX = 8192,
};

struct hw_mux;
struct hw_channel; /* one of ours: lives from hw_mux_open() until closed() was told */

/*
 * Whom a mux tells.  All calls but send() come from within hw_mux_receive(); in them everything may
 * be called but hw_mux_receive() and hw_mux_free().  What they are given is borrowed for the call.
 */
struct hw_mux_host {
    void *ctx;
    /* A frame to send: head and body one after the other.  Copied before it returns. */
    enum hw_status (*send)(void *ctx, struct hw_slice head, struct hw_slice body,
                           struct hw_error *err);
    /*
     * The remote opened (protocol, id), and we have not.  The host calls hw_mux_open() to accept,
     * or does nothing: then the mux rejects.
     */
    enum hw_status (*asked)(void *ctx, struct hw_slice protocol, struct hw_slice id,
                            struct hw_error *err);
    /* Both have opened: here is the remote's handshake. */
    enum hw_status (*opened)(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                             struct hw_error *err);
    enum hw_status (*message)(void *ctx, struct hw_channel *channel, uint64_t type,
                              struct hw_slice payload, struct hw_error *err);
    /* Closed by the remote, or rejected; the channel is gone after the call. */
    void (*closed)(void *ctx, struct hw_channel *channel, bool was_rejected);
};

enum hw_status hw_mux_new(const struct hw_mux_host *host, struct hw_mux **out,
                          struct hw_error *err) HW_MUST_CHECK;
void hw_mux_free(struct hw_mux *mux); /* NULL does nothing; closed() is not told */

/*
 * A message of the stream; an empty one is a sign of life and nothing else.  What the host
 * returned, or HW_EPROTOCOL, HW_ELIMIT, HW_ENOMEM: drop the peer.
 */
enum hw_status hw_mux_receive(struct hw_mux *mux, struct hw_slice frame,
                              struct hw_error *err) HW_MUST_CHECK;

/*
 * Open our side of (protocol, id).  `user` is the host's.  HW_EEXIST: it is open on our side;
 * HW_ELIMIT: too many channels, or a name too long.
 */
enum hw_status hw_mux_open(struct hw_mux *mux, struct hw_slice protocol, struct hw_slice id,
                           struct hw_slice handshake, void *user, struct hw_channel **out,
                           struct hw_error *err) HW_MUST_CHECK;
void *hw_channel_user(const struct hw_channel *channel);
struct hw_slice hw_channel_protocol(const struct hw_channel *channel);
struct hw_slice hw_channel_id(const struct hw_channel *channel);
bool hw_channel_is_open(const struct hw_channel *channel); /* both sides */
enum hw_status hw_channel_send(struct hw_channel *channel, uint64_t type, struct hw_slice payload,
                               struct hw_error *err) HW_MUST_CHECK;
/* The same for a payload in two parts, of which the second is not copied on the way to send(). */
enum hw_status hw_channel_send_parts(struct hw_channel *channel, uint64_t type,
                                     struct hw_slice head, struct hw_slice body,
                                     struct hw_error *err) HW_MUST_CHECK;
/*
 * Close both directions and free the channel; closed() is not told.  Not from within closed() of
 * the same channel, which is gone then.
 */
void hw_channel_close(struct hw_channel *channel);

#endif
