/*
 * Implements wire/stream.h.
 *
 *     HANDSHAKE ──▶ HEADER ──▶ MESSAGES        what of the other's frames comes next
 *
 * Messages are sealed and opened where they lie: on the way out in the output buffer, on the way in
 * in the input buffer.
 */
#include "wire/stream.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "base/alloc.h"

enum {
    LENGTH_SIZE = 3,
    ID_SIZE = 32,
    SECRET_HEADER_SIZE = crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    HEADER_SIZE = ID_SIZE + SECRET_HEADER_SIZE,
    HANDSHAKE_ANSWER_MAX = 256, /* bytes of all that one handshake message makes us write */
    KEPT_CAPACITY = 256 << 10,  /* bytes: a larger buffer that became empty is given back */
};
_Static_assert((int)HW_STREAM_SEAL_SIZE == (int)crypto_secretstream_xchacha20poly1305_ABYTES,
               "what sealing adds");

enum phase { HANDSHAKE, HEADER, MESSAGES };

struct queue { /* bytes in the order they came: buffer[start..size) are still wanted */
    struct hw_buffer buffer;
    size_t start;
};

struct hw_stream {
    struct hw_env *env; /* borrowed */
    bool is_initiator;
    enum phase phase;
    bool is_open;           /* our header is in the output */
    struct hw_noise noise;  /* wiped when the handshake is complete */
    struct queue in, out;   /* bytes that came; bytes to send */
    size_t frame_max;       /* bytes */
    enum hw_status failure; /* HW_OK, or what ended the stream */
    uint8_t remote_key[HW_IDENTITY_KEY_SIZE];
    uint8_t handshake_hash[HW_NOISE_HASH_SIZE];
    uint8_t receive_key[HW_NOISE_KEY_SIZE]; /* until the other's header comes */
    crypto_secretstream_xchacha20poly1305_state push, pull;
};

/* What a side calls itself: BLAKE2b of these, keyed with the hash of the handshake. */
static const uint8_t namespace_initiator[32] = {
    0xa9, 0x31, 0xa0, 0x15, 0x5b, 0x5c, 0x09, 0xe6, 0xd2, 0x86, 0x28, 0x23, 0x6a, 0xf8, 0x3c, 0x4b,
    0x8a, 0x6a, 0xf9, 0xaf, 0x60, 0x98, 0x6e, 0xde, 0xed, 0xe9, 0xdc, 0x5d, 0x63, 0x19, 0x2b, 0xf7,
};
static const uint8_t namespace_responder[32] = {
    0x74, 0x2c, 0x9d, 0x83, 0x3d, 0x43, 0x0a, 0xf4, 0xc4, 0x8a, 0x87, 0x05, 0xe9, 0x16, 0x31, 0xee,
    0xcf, 0x29, 0x54, 0x42, 0xbb, 0xca, 0x18, 0x99, 0x6e, 0x59, 0x70, 0x97, 0x72, 0x3b, 0x10, 0x61,
};

/* ---------------------------------------------------------------------------- queues */

static size_t queue_size(const struct queue *queue)
{
    return queue->buffer.size - queue->start;
}

/* What is wanted, all of it. */
static struct hw_slice queue_bytes(const struct queue *queue)
{
    const uint8_t *bytes = queue->buffer.bytes;

    return (struct hw_slice){bytes == NULL ? NULL : bytes + queue->start, queue_size(queue)};
}

/* Room for `size` more bytes.  Moves what is wanted to the front when that is the smaller part. */
static enum hw_status queue_reserve(struct queue *queue, size_t size)
{
    size_t wanted = queue_size(queue);

    if (queue->start > 0 && wanted <= queue->start) {
        if (wanted > 0)
            memcpy(queue->buffer.bytes, queue->buffer.bytes + queue->start, wanted);
        queue->buffer.size = wanted;
        queue->start = 0;
    }
    return hw_buffer_reserve(&queue->buffer, size);
}

/* The first `size` bytes are not wanted any more. */
static void queue_drop(struct queue *queue, size_t size)
{
    assert(size <= queue_size(queue));
    queue->start += size;
}

/* Memory of an empty queue: a burst must not be held for the life of a connection. */
static void queue_relax(struct queue *queue)
{
    if (queue->start < queue->buffer.size)
        return;
    if (queue->buffer.capacity > KEPT_CAPACITY)
        hw_buffer_release(&queue->buffer);
    queue->buffer.size = 0;
    queue->start = 0;
}

/* ---------------------------------------------------------------------------- output */

static void put_length(uint8_t at[LENGTH_SIZE], size_t size)
{
    at[0] = (uint8_t)size;
    at[1] = (uint8_t)(size >> 8);
    at[2] = (uint8_t)(size >> 16);
}

static void own_id(const struct hw_stream *stream, bool of_initiator, uint8_t out[ID_SIZE])
{
    (void)crypto_generichash(out, ID_SIZE, of_initiator ? namespace_initiator : namespace_responder,
                             32, stream->handshake_hash, sizeof(stream->handshake_hash));
}

static enum hw_status fail(struct hw_stream *stream, enum hw_status status)
{
    stream->failure = status;
    return status;
}

/* The next message of the handshake, as a frame.  There is room in the output. */
static enum hw_status write_handshake(struct hw_stream *stream, struct hw_error *err)
{
    struct hw_buffer *out = &stream->out.buffer;
    size_t start = out->size;
    enum hw_status status;

    out->size += LENGTH_SIZE;
    status = hw_noise_write(&stream->noise, out, err);
    if (status != HW_OK) {
        out->size = start;
        return status;
    }
    put_length(out->bytes + start, out->size - start - LENGTH_SIZE);
    return HW_OK;
}

/* The handshake is complete: take its fruits, and say who we are in our first frame. */
static void write_header(struct hw_stream *stream)
{
    uint8_t *at = hw_buffer_extend(&stream->out.buffer, LENGTH_SIZE + HEADER_SIZE);
    uint8_t send_key[HW_NOISE_KEY_SIZE];

    assert(at != NULL); /* reserved before */
    hw_noise_split(&stream->noise, send_key, stream->receive_key);
    memcpy(stream->remote_key, stream->noise.remote_key, sizeof(stream->remote_key));
    memcpy(stream->handshake_hash, stream->noise.hash, sizeof(stream->handshake_hash));
    hw_noise_release(&stream->noise);

    put_length(at, HEADER_SIZE);
    own_id(stream, stream->is_initiator, at + LENGTH_SIZE);
    /* Both ends of a secretstream start from the same state, so that the chance can be ours. */
    stream->env->ops->random(stream->env, at + LENGTH_SIZE + ID_SIZE, SECRET_HEADER_SIZE);
    (void)crypto_secretstream_xchacha20poly1305_init_pull(&stream->push, at + LENGTH_SIZE + ID_SIZE,
                                                          send_key); /* cannot fail */
    sodium_memzero(send_key, sizeof(send_key));
    stream->is_open = true;
    stream->phase = HEADER;
}

enum hw_status hw_stream_new(struct hw_env *env, bool is_initiator,
                             const struct hw_identity *identity,
                             const struct hw_identity *ephemeral, struct hw_stream **out,
                             struct hw_error *err)
{
    struct hw_stream *stream;
    struct hw_identity fresh;
    enum hw_status status = HW_OK;

    if (sodium_init() < 0) /* picks the fast code; to call it again is harmless */
        return hw_fail(err, HW_EIO, "stream: the system gives no random bytes");
    stream = hw_zalloc(sizeof(*stream));
    if (stream == NULL || queue_reserve(&stream->out, HANDSHAKE_ANSWER_MAX) != HW_OK) {
        hw_free(stream);
        return hw_fail(err, HW_ENOMEM, "stream: no memory for a connection");
    }
    stream->env = env;
    stream->is_initiator = is_initiator;
    stream->frame_max = HW_STREAM_FRAME_MAX;
    if (ephemeral == NULL)
        hw_identity_random(env, &fresh);
    else
        fresh = *ephemeral;
    hw_noise_init(&stream->noise, is_initiator, identity, &fresh);
    sodium_memzero(&fresh, sizeof(fresh));
    if (is_initiator)
        status = write_handshake(stream, err);
    if (status != HW_OK) {
        hw_stream_free(stream);
        return status;
    }
    *out = stream;
    return HW_OK;
}

void hw_stream_free(struct hw_stream *stream)
{
    if (stream == NULL)
        return;
    hw_buffer_release(&stream->in.buffer);
    hw_buffer_release(&stream->out.buffer);
    sodium_memzero(stream, sizeof(*stream));
    hw_free(stream);
}

void hw_stream_set_frame_max(struct hw_stream *stream, size_t size)
{
    stream->frame_max = size;
}

/* ---------------------------------------------------------------------------- input */

enum hw_status hw_stream_put(struct hw_stream *stream, struct hw_slice bytes, struct hw_error *err)
{
    if (stream->failure != HW_OK)
        return hw_fail(err, stream->failure, "stream: ended by an earlier failure");
    queue_relax(&stream->in);
    if (queue_reserve(&stream->in, bytes.size) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "stream: no memory for %zu bytes that came", bytes.size);
    hw_buffer_add(&stream->in.buffer, bytes.bytes, bytes.size);
    return HW_OK;
}

/* May a frame claim this size now?  Before it is there, so that no memory is held for it. */
static enum hw_status check_size(const struct hw_stream *stream, size_t size, struct hw_error *err)
{
    switch (stream->phase) {
    case HANDSHAKE:
        if (size == 0 || size > HW_NOISE_MESSAGE_MAX)
            return hw_fail(err, HW_EPROTOCOL,
                           "stream: a handshake frame of %zu bytes: this is no Hypercore peer",
                           size);
        return HW_OK;
    case HEADER:
        if (size != HEADER_SIZE)
            return hw_fail(err, HW_EPROTOCOL, "stream: a header of %zu bytes, not %d", size,
                           HEADER_SIZE);
        return HW_OK;
    case MESSAGES:
        break;
    }
    if (size < HW_STREAM_SEAL_SIZE)
        return hw_fail(err, HW_EPROTOCOL, "stream: a frame of %zu bytes is none", size);
    if (size > stream->frame_max)
        return hw_fail(err, HW_ELIMIT, "stream: a frame of %zu bytes, and %zu are allowed", size,
                       stream->frame_max);
    return HW_OK;
}

static enum hw_status read_handshake(struct hw_stream *stream, struct hw_slice frame,
                                     struct hw_error *err)
{
    enum hw_status status = hw_noise_read(&stream->noise, frame, err);

    if (status == HW_OK && hw_noise_is_my_turn(&stream->noise))
        status = write_handshake(stream, err);
    if (status == HW_OK && hw_noise_is_complete(&stream->noise))
        write_header(stream);
    return status;
}

static enum hw_status read_header(struct hw_stream *stream, struct hw_slice frame,
                                  struct hw_error *err)
{
    uint8_t id[ID_SIZE];

    own_id(stream, !stream->is_initiator, id);
    if (sodium_memcmp(id, frame.bytes, sizeof(id)) != 0)
        return hw_fail(err, HW_EPROTOCOL, "stream: the header is not of this handshake");
    (void)crypto_secretstream_xchacha20poly1305_init_pull(&stream->pull, frame.bytes + ID_SIZE,
                                                          stream->receive_key); /* cannot fail */
    sodium_memzero(stream->receive_key, sizeof(stream->receive_key));
    stream->phase = MESSAGES;
    return HW_OK;
}

/* Open the frame where it lies. */
static enum hw_status read_message(struct hw_stream *stream, struct hw_slice frame,
                                   struct hw_slice *message, struct hw_error *err)
{
    uint8_t *plain = stream->in.buffer.bytes + (frame.bytes - stream->in.buffer.bytes) + 1;
    unsigned char tag;

    if (crypto_secretstream_xchacha20poly1305_pull(&stream->pull, plain, NULL, &tag, frame.bytes,
                                                   frame.size, NULL, 0) != 0)
        return hw_fail(err, HW_EPROTOCOL,
                       "stream: a frame of %zu bytes was altered on the way, or is not the next",
                       frame.size);
    *message = (struct hw_slice){plain, frame.size - HW_STREAM_SEAL_SIZE};
    return HW_OK;
}

/* One frame.  HW_END: it is not there yet.  *message stays as it is unless the frame was one. */
static enum hw_status read_frame(struct hw_stream *stream, struct hw_slice *message,
                                 struct hw_error *err)
{
    struct hw_slice bytes = queue_bytes(&stream->in), frame;
    enum hw_status status;

    if (bytes.size < LENGTH_SIZE)
        return HW_END;
    frame = (struct hw_slice){bytes.bytes + LENGTH_SIZE,
                              hw_get_le16(bytes.bytes) | (size_t)bytes.bytes[2] << 16};
    status = check_size(stream, frame.size, err);
    if (status != HW_OK)
        return fail(stream, status);
    if (bytes.size < LENGTH_SIZE + frame.size)
        return HW_END;

    if (stream->phase == HANDSHAKE) {
        if (queue_reserve(&stream->out, HANDSHAKE_ANSWER_MAX) != HW_OK)
            return hw_fail(err, HW_ENOMEM, "stream: no memory for the handshake");
        status = read_handshake(stream, frame, err);
    } else if (stream->phase == HEADER) {
        status = read_header(stream, frame, err);
    } else {
        status = read_message(stream, frame, message, err);
    }
    if (status != HW_OK)
        return fail(stream, status);
    queue_drop(&stream->in, LENGTH_SIZE + frame.size);
    return HW_OK;
}

enum hw_status hw_stream_next(struct hw_stream *stream, struct hw_slice *message,
                              struct hw_error *err)
{
    enum hw_status status = HW_OK;
    bool was_message = false;

    if (stream->failure != HW_OK)
        return hw_fail(err, stream->failure, "stream: ended by an earlier failure");
    while (status == HW_OK && !was_message) {
        was_message = stream->phase == MESSAGES;
        status = read_frame(stream, message, err);
    }
    if (status == HW_END)
        queue_relax(&stream->in);
    return status;
}

/* ---------------------------------------------------------------------------- messages out */

bool hw_stream_is_open(const struct hw_stream *stream)
{
    return stream->is_open;
}

const uint8_t *hw_stream_remote_key(const struct hw_stream *stream)
{
    assert(stream->is_open);
    return stream->remote_key;
}

const uint8_t *hw_stream_handshake_hash(const struct hw_stream *stream)
{
    assert(stream->is_open);
    return stream->handshake_hash;
}

bool hw_stream_is_initiator(const struct hw_stream *stream)
{
    return stream->is_initiator;
}

enum hw_status hw_stream_send(struct hw_stream *stream, struct hw_slice message,
                              struct hw_error *err)
{
    return hw_stream_send_parts(stream, (struct hw_slice){NULL, 0}, message, err);
}

enum hw_status hw_stream_send_parts(struct hw_stream *stream, struct hw_slice head,
                                    struct hw_slice body, struct hw_error *err)
{
    const uint8_t *plain = body.bytes;
    size_t size;
    uint8_t *at;

    if (stream->failure != HW_OK)
        return hw_fail(err, stream->failure, "stream: ended by an earlier failure");
    if (!stream->is_open)
        return hw_fail(err, HW_EMISUSE, "stream: a message before the handshake is complete");
    if (head.size > HW_STREAM_MESSAGE_MAX || body.size > HW_STREAM_MESSAGE_MAX - head.size)
        return hw_fail(err, HW_ELIMIT, "stream: a message of %zu bytes, and %d are possible",
                       head.size + body.size, HW_STREAM_MESSAGE_MAX);
    size = head.size + body.size;
    if (queue_reserve(&stream->out, LENGTH_SIZE + size + HW_STREAM_SEAL_SIZE) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "stream: no memory for a message of %zu bytes", size);

    at = hw_buffer_extend(&stream->out.buffer, LENGTH_SIZE + size + HW_STREAM_SEAL_SIZE);
    put_length(at, size + HW_STREAM_SEAL_SIZE);
    at += LENGTH_SIZE;
    if (head.size > 0) {
        /* Joined where they will lie sealed, one byte on: sealing in place copies nothing. */
        memcpy(at + 1, head.bytes, head.size);
        if (body.size > 0)
            memcpy(at + 1 + head.size, body.bytes, body.size);
        plain = at + 1;
    }
    (void)crypto_secretstream_xchacha20poly1305_push(&stream->push, at, NULL, plain, size, NULL, 0,
                                                     0); /* fails for impossible sizes only */
    return HW_OK;
}

struct hw_slice hw_stream_output(const struct hw_stream *stream)
{
    return queue_bytes(&stream->out);
}

void hw_stream_sent(struct hw_stream *stream, size_t size)
{
    queue_drop(&stream->out, size);
    queue_relax(&stream->out);
}
