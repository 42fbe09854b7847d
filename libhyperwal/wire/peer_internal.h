/*
 * wire/peer_internal.h - what the files of a peer share
 *
 *     peer.c           its life: bytes, time, limits
 *     peer_core.c      channels of logs, hypercore/alpha
 *     peer_hyperwal.c  channels of hyperwal/1
 *     peer_write.c     what is said there to write from afar
 */
#ifndef HW_WIRE_PEER_INTERNAL_H
#define HW_WIRE_PEER_INTERNAL_H

#include "wire/address.h"
#include "wire/mux.h"
#include "wire/peer.h"
#include "wire/stream.h"

enum {
    PEER_QUERIES_MAX = 16,
    PEER_QUESTIONS_MAX = 64,
    PEER_EARLY_MAX = 4096, /* bytes said before a channel is open */
    PEER_FLAG_WRITES = 1,  /* of the handshake: messages 2 to 10 are known here */
};

/* A log that is spoken about over this connection. */
struct peer_link {
    struct peer_link *next;
    struct hw_peer *peer;               /* borrowed */
    struct hw_replication *replication; /* borrowed */
    struct hw_channel *core;            /* hypercore/alpha, ours at least */
    struct hw_link *link;               /* owned; NULL until both sides have opened */
    struct hw_channel *log;             /* hyperwal/1 of this log; NULL: not opened */
    bool log_was_refused;               /* by the remote: acknowledgements are not wanted */
    bool has_ack, has_urge;             /* to be told when `log` is open */
    bool urge;                          /* what we told, or will */
    struct hw_ack ack;                  /* likewise */
    uint8_t own_id[HW_REPLICA_ID_SIZE]; /* with which `log` was opened */
    uint8_t remote_id[HW_REPLICA_ID_SIZE];
    bool remote_writes;     /* its flags say that it knows of writing from afar */
    struct hw_buffer early; /* what waits for `log` to open: le32 type | le32 size | payload, ... */
};

/* What the remote asked while our output was long. */
struct peer_query {
    enum hw_hyperwal_type type;
    uint64_t request;
    size_t name_size;
    uint8_t name[HW_NAME_MAX];
};

/* What we ask when the channel is open. */
struct peer_question {
    struct peer_question *next;
    enum hw_hyperwal_type type;
    struct hw_buffer payload;
};

struct hw_peer {
    struct hw_env *env; /* borrowed */
    struct hw_peer_host host;
    void *user;
    struct hw_stream *stream; /* owned */
    struct hw_mux *mux;       /* owned */
    bool is_open;             /* ready() was told */
    size_t room;              /* bytes of output above which answers wait */
    struct hw_error failure;  /* status HW_OK: none */

    struct peer_link *links; /* owned; the one whose turn it is comes first */
    struct peer_link *last;  /* of them */
    bool is_full;            /* a link was full when it was last looked at */
    unsigned rejects;        /* channels that we refused */

    struct hw_channel *base; /* hyperwal/1 of the connection; NULL: not opened */
    bool is_plain;           /* the remote does not speak it */
    uint64_t last_request;
    struct peer_question *questions; /* owned, oldest first */
    unsigned question_count;
    struct peer_query queries[PEER_QUERIES_MAX]; /* oldest first */
    unsigned query_count;
    struct hw_buffer scratch; /* of messages */

    bool keeps_alive;     /* the remote sends signs of life */
    uint64_t born_ns;     /* monotonic, as all of these */
    uint64_t received_ns; /* when the last bytes came */
    uint64_t sent_ns;     /* when the last message was put into the output */
    uint64_t taken_ns;    /* since when the output waits, or when some of it was last taken */
};

/* ---------------------------------------------------------------------------- peer.c */

size_t peer_queued(const struct hw_peer *peer); /* bytes that wait to be sent */
struct hw_slice peer_content(const struct hw_buffer *buffer);
/* Send what is in the scratch buffer. */
enum hw_status peer_send_scratch(struct hw_peer *peer, struct hw_channel *channel, uint64_t type,
                                 struct hw_error *err) HW_MUST_CHECK;

/* ---------------------------------------------------------------------- peer_core.c */

/* Is this the name of the channel of a log? */
bool peer_is_core_protocol(struct hw_slice protocol);
/* HW_END: we do not want it. */
enum hw_status peer_core_asked(struct hw_peer *peer, struct hw_slice protocol, struct hw_slice id,
                               struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_core_open(struct peer_link *link, struct hw_slice protocol,
                              struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_core_opened(struct peer_link *link, struct hw_slice handshake,
                                struct hw_error *err) HW_MUST_CHECK;
void peer_core_closed(struct peer_link *link, bool was_rejected);
enum hw_status peer_core_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                 struct hw_error *err) HW_MUST_CHECK;
/* NULL: none.  By log, or by what the id of its channels is. */
struct peer_link *peer_link_find(const struct hw_peer *peer,
                                 const struct hw_replication *replication);
struct peer_link *peer_link_find_id(const struct hw_peer *peer, struct hw_slice id);
/* All links have a chance to answer, the one that waits longest first. */
enum hw_status peer_links_drained(struct hw_peer *peer, struct hw_error *err) HW_MUST_CHECK;
void peer_links_free(struct hw_peer *peer);

/* ------------------------------------------------------------------ peer_hyperwal.c */

/* HW_END: we do not want it. */
enum hw_status peer_hyperwal_asked(struct hw_peer *peer, struct hw_slice id,
                                   struct hw_error *err) HW_MUST_CHECK;
/* The stream is open: ask what waits. */
enum hw_status peer_base_ready(struct hw_peer *peer, struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_base_opened(struct hw_peer *peer, struct hw_slice handshake,
                                struct hw_error *err) HW_MUST_CHECK;
void peer_base_closed(struct hw_peer *peer, bool was_rejected);
enum hw_status peer_base_message(struct hw_peer *peer, uint64_t type, struct hw_slice payload,
                                 struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_base_drained(struct hw_peer *peer, struct hw_error *err) HW_MUST_CHECK;
void peer_base_free(struct hw_peer *peer);

/* The log's channel of hyperwal/1: open it if it is needed, tell what waits. */
enum hw_status peer_log_flush(struct peer_link *link, struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_log_opened(struct peer_link *link, struct hw_slice handshake,
                               struct hw_error *err) HW_MUST_CHECK;
void peer_log_closed(struct peer_link *link, bool was_rejected);
/* Open it now, with what we are called. */
enum hw_status peer_log_open(struct peer_link *link, struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_log_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                struct hw_error *err) HW_MUST_CHECK;

/* --------------------------------------------------------------------- peer_write.c */

/* The channel is open: what waited goes out. */
enum hw_status peer_write_opened(struct peer_link *link, struct hw_error *err) HW_MUST_CHECK;
enum hw_status peer_write_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                  struct hw_error *err) HW_MUST_CHECK;

#endif
