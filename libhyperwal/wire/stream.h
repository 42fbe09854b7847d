/*
 * wire/stream.h - a byte stream made private: frames, handshake, then sealed messages
 *
 *   frame    length u24 | bytes
 *   first    the three messages of wire/noise.h, a frame each
 *   then     each side one frame: stream id 32 | header of its secretstream 24
 *   then     a frame a message: crypto_secretstream_xchacha20poly1305, 17 bytes more than it
 *
 * Bytes that came are put in, messages are taken out; messages to send are put in, bytes are taken
 * out.  An empty message is a sign of life.
 *
 * Invariants: 1. Memory for a frame grows with the bytes that came, not with the length it claims,
 *                and no frame above the limit is taken in: before the handshake 1 KiB.
 *             2. After a failure nothing more is given out.
 *
 * Source: @hyperswarm/secret-stream 6.9.
 */
#ifndef HW_WIRE_STREAM_H
#define HW_WIRE_STREAM_H

#include "wire/noise.h"

enum {
    HW_STREAM_FRAME_MAX = 0xffffff, /* bytes, by the width of its length */
    HW_STREAM_SEAL_SIZE = 17,
    HW_STREAM_MESSAGE_MAX = HW_STREAM_FRAME_MAX - HW_STREAM_SEAL_SIZE,
};

struct hw_stream;

/* `ephemeral` NULL: a fresh one. */
enum hw_status hw_stream_new(struct hw_env *env, bool is_initiator,
                             const struct hw_identity *identity,
                             const struct hw_identity *ephemeral, struct hw_stream **out,
                             struct hw_error *err) HW_MUST_CHECK;
void hw_stream_free(struct hw_stream *stream); /* NULL does nothing */

/* Largest frame taken in from now on; the start is HW_STREAM_FRAME_MAX. */
void hw_stream_set_frame_max(struct hw_stream *stream, size_t size);

/* Bytes that came; copied.  HW_ENOMEM: nothing was taken.  Or what hw_stream_next() failed with. */
enum hw_status hw_stream_put(struct hw_stream *stream, struct hw_slice bytes,
                             struct hw_error *err) HW_MUST_CHECK;
/*
 * The next message, borrowed until the next _put() or _next().  HW_END: more bytes must come.
 * HW_EPROTOCOL: not a peer, or altered bytes; HW_ELIMIT: a frame above the limit: drop the
 * connection.  HW_ENOMEM: nothing happened, call again.
 */
enum hw_status hw_stream_next(struct hw_stream *stream, struct hw_slice *message,
                              struct hw_error *err) HW_MUST_CHECK;

/* The handshake is complete and we may send; what came may still lack the other's header. */
bool hw_stream_is_open(const struct hw_stream *stream);
const uint8_t *hw_stream_remote_key(const struct hw_stream *stream); /* when open */
const uint8_t *hw_stream_handshake_hash(const struct hw_stream *stream);
bool hw_stream_is_initiator(const struct hw_stream *stream);

/*
 * Seal a message and append it to the output.  HW_ELIMIT; HW_ENOMEM: nothing was added.  Only when
 * open.
 */
enum hw_status hw_stream_send(struct hw_stream *stream, struct hw_slice message,
                              struct hw_error *err) HW_MUST_CHECK;
/* The same for a message in two parts, one after the other. */
enum hw_status hw_stream_send_parts(struct hw_stream *stream, struct hw_slice head,
                                    struct hw_slice body, struct hw_error *err) HW_MUST_CHECK;
/* What must go over the wire: the caller sends a prefix and tells how much with _sent(). */
struct hw_slice hw_stream_output(const struct hw_stream *stream);
void hw_stream_sent(struct hw_stream *stream, size_t size);

#endif
