/*
 * wire/transport.h - bytes to and from other machines, and nothing else
 *
 * A transport listens and dials, and moves bytes both ways over connections.  What happens is put
 * into a bounded queue and taken out by its owner, who is woken by `wake`.  transport_nng.c does it
 * over TCP, IPC and WebSocket; tests/sim/sim_net.c in memory, with delay, loss of connections and
 * cuts by a seed.
 *
 * Flow control: one receive and one send of a connection are under way at a time, each started by
 * the owner; so what is not asked for is not read.
 *
 * Threads: one owner calls everything; `wake` comes from any thread and must only wake.
 */
#ifndef HW_WIRE_TRANSPORT_H
#define HW_WIRE_TRANSPORT_H

#include "base/buffer.h"
#include "base/error.h"
#include "env/env.h"

enum { HW_RECEIVE_SIZE = 64 << 10 }; /* bytes, of one receive */

struct hw_connection; /* made by the transport, freed by hw_transport close() */

struct hw_transport_event {
    enum {
        HW_EVENT_ACCEPTED,  /* connection, address of the remote */
        HW_EVENT_CONNECTED, /* connection, user of the dial */
        HW_EVENT_FAILED,    /* a dial: user, error */
        HW_EVENT_RECEIVED,  /* bytes, borrowed until the next receive() or close() of it */
        HW_EVENT_SENT,      /* all of it: the buffer may be changed */
        HW_EVENT_CLOSED,    /* by the remote or the network: error says why; close() it */
    } kind;
    struct hw_connection *connection;
    void *user; /* of the connection, or the dial */
    struct hw_slice bytes;
    char address[128]; /* of the remote, for people */
    struct hw_error error;
};

struct hw_transport;
struct hw_transport_ops {
    /* HW_END: nothing happened. */
    enum hw_status (*next)(struct hw_transport *transport, struct hw_transport_event *out);
    /* `bound`: the URL with the port that was taken. */
    enum hw_status (*listen)(struct hw_transport *transport, const char *url, char *bound,
                             size_t bound_size, struct hw_error *err);
    /* CONNECTED or FAILED follows, with `user`. */
    enum hw_status (*dial)(struct hw_transport *transport, const char *url, void *user,
                           struct hw_error *err);
    void (*set_user)(struct hw_connection *connection, void *user);
    void (*receive)(struct hw_connection *connection); /* RECEIVED or CLOSED follows */
    /* SENT or CLOSED follows; `bytes` stay as they are until then. */
    void (*send)(struct hw_connection *connection, struct hw_slice bytes);
    /* No event of it comes after this. */
    void (*close)(struct hw_connection *connection);
    void (*free)(struct hw_transport *transport); /* all connections and listeners with it */
};
struct hw_transport {
    const struct hw_transport_ops *ops; /* implementations put their own fields after this one */
};

enum { HW_TRANSPORT_CONNECTIONS_MAX = 2048 }; /* more are closed when they are accepted */

/* Over nng's streams. */
enum hw_status hw_transport_nng_open(struct hw_env *env, void (*wake)(void *ctx), void *ctx,
                                     struct hw_transport **out, struct hw_error *err) HW_MUST_CHECK;

#endif
