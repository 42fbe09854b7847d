/*
 * system/hostile_wire.h - a socket with the project's stream and mux above it, and no manners
 *
 * It shakes hands as any peer does and then says whatever its owner wants: well-formed messages of
 * wrong content, frames that are none, bytes beside the stream, nothing at all.
 *
 *     owner ──▶ mux ──▶ stream ──▶ out ──▶ socket          wire_raw() goes past mux and stream
 */
#ifndef SYSTEM_HOSTILE_WIRE_H
#define SYSTEM_HOSTILE_WIRE_H

#include <poll.h>

#include "base/buffer.h"
#include "hypercore/proof.h"
#include "wire/hyperwal_channel.h"
#include "wire/message.h"
#include "wire/mux.h"
#include "wire/stream.h"

struct wire;
struct wire_host { /* any may be NULL */
    void (*asked)(struct wire *wire, struct hw_slice protocol, struct hw_slice id);
    void (*opened)(struct wire *wire, struct hw_channel *channel);
    void (*message)(struct wire *wire, struct hw_channel *channel, uint64_t type,
                    struct hw_slice payload);
};

struct wire {
    int fd; /* -1: closed */
    bool is_initiator, is_connecting;
    bool is_deaf;    /* reads nothing once it is open */
    bool was_open;   /* the handshake was done, as far as this side can tell */
    bool was_linked; /* the log's channel was open, as its owner noticed */
    bool was_heard;  /* any byte came */
    bool has_asked;  /* the owner has opened the log's channel */
    bool was_dialed; /* by the owner */
    bool is_counted; /* the owner knows that it ended */
    bool is_broken;  /* what came cannot be understood (any more) */
    size_t flip_at;  /* this byte of what it sends is altered; SIZE_MAX: none */
    size_t cut_at;   /* no more than so many bytes are sent; SIZE_MAX: all */
    uint64_t length; /* of the log at the remote, as its Sync told */
    struct hw_stream *stream;
    struct hw_mux *mux;
    struct wire_host host;
    void *user;
    struct hw_buffer out;                 /* to be sent */
    size_t out_start;                     /* of it, sent already */
    struct hw_channel *core, *base, *log; /* open on both sides */
    uint64_t said;                        /* commits */
    struct hw_buffer *record;             /* of all that is sent; NULL: none */
    uint64_t number;                      /* the owner's, of this connection */
    uint64_t steps;                       /* the owner's count of what it did here */
    uint64_t sent, received;              /* bytes */
};

struct target {
    const char *host; /* an IPv4 address */
    unsigned port;
    uint8_t key[HW_KEY_SIZE]; /* of the log */
};

uint64_t now_ms(void);
/* Random, below `end`. */
uint64_t any_below(uint64_t end);
void any_bytes(void *out, size_t size);

/* Begins to connect; false: no socket, or refused at once. */
bool wire_dial(struct wire *wire, const struct target *target, const struct wire_host *host);
/* For a socket that was accepted. */
bool wire_take(struct wire *wire, int fd, const struct wire_host *host);
/* The system takes little for it: what it does not read stays with the remote. */
void wire_narrow(struct wire *wire);
void wire_close(struct wire *wire, bool with_reset);
/* What poll() is to wait for. */
short wire_events(const struct wire *wire);
/* Something happened: move bytes.  It may be closed afterwards. */
void wire_move(struct wire *wire, short events);

size_t wire_queued(const struct wire *wire);
bool wire_is_open(const struct wire *wire);
bool wire_is_heard(const struct wire *wire);
void wire_raw(struct wire *wire, const void *bytes, size_t size);
/* A frame of the stream with this content for the mux. */
void wire_frame(struct wire *wire, const void *bytes, size_t size);
/* Open the channel of the log with this key; `lies`: with a wrong proof of knowing it. */
bool wire_open_core(struct wire *wire, const uint8_t key[HW_KEY_SIZE], bool lies);
/* hyperwal/1 of the connection, or of the log with this key. */
bool wire_open_hyperwal(struct wire *wire, const uint8_t *key);
/* A message whose payload is in the buffer, which is emptied. */
void wire_say(struct hw_channel *channel, uint64_t type, struct hw_buffer *payload);

#endif
