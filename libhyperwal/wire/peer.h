/*
 * wire/peer.h - one connection to somebody: stream, mux, and the channels that are spoken over it
 *
 *     bytes ◀─▶ stream ◀─▶ mux ◀─▶ hypercore/alpha, one a log      ◀─▶ replication.h
 *                               ◀─▶ hyperwal/1, one a log and one   ◀─▶ host
 *
 *         HANDSHAKE ──▶ OPEN ──▶ (dropped by its owner when a call fails)
 *
 * Bytes in, bytes out; the owner moves them.  All that the remote can make us do is bounded here:
 * time to shake hands, channels, unknown channels a second, bytes that wait, silence.
 *
 * Invariants: 1. Before the handshake is complete nothing is done and at most 2 KiB are kept.
 *             2. A core's channel opens only after the remote has proven to know its key, and we
 *                prove it only to who asked for that core by discovery key or whom we dialed.
 *             3. A failed call is final: the owner frees the peer; its error says why.
 *
 * Threads: one at a time, that of the replications it is linked to.
 */
#ifndef HW_WIRE_PEER_H
#define HW_WIRE_PEER_H

#include "wire/hyperwal_channel.h"
#include "wire/noise.h"
#include "wire/replication.h"
#include "wire/write_message.h"

enum {
    HW_PEER_HANDSHAKE_MS = 10000,
    HW_PEER_KEEPALIVE_MS = 10000,  /* of silence on our side */
    HW_PEER_SILENCE_MS = 45000,    /* of a remote that has sent keepalives before: it is gone */
    HW_PEER_STUCK_MS = 60000,      /* nothing of our output was taken for so long */
    HW_PEER_PAUSE_SIZE = 20 << 20, /* bytes that wait: from here on nothing more is read */
    HW_PEER_OUTPUT_MAX = 48 << 20, /* bytes that wait; more: drop */
    HW_PEER_FRAME_MAX = 4 << 20,   /* bytes, until a mirror is linked: then what a stream bears */
    HW_PEER_REJECTS_MAX = 256,     /* channels refused over a connection's life; more: drop */
};

struct hw_peer;

/*
 * Whom a peer tells and asks; any may be NULL.  They are called from within hw_peer_receive() and
 * hw_peer_sent(), unlinked() from hw_peer_free() too; and may call all but those three.
 */
struct hw_peer_host {
    void *ctx;
    /* The remote's key is known.  A failure drops the peer. */
    enum hw_status (*ready)(void *ctx, struct hw_peer *peer, struct hw_error *err);
    /* The remote wants this core.  NULL: it is rejected (not here, or not for this remote). */
    struct hw_replication *(*find)(void *ctx, struct hw_peer *peer,
                                   const uint8_t discovery_key[HW_KEY_SIZE]);
    /* The core's channel is open; closed, or refused by the remote. */
    void (*linked)(void *ctx, struct hw_peer *peer, struct hw_replication *replication);
    void (*unlinked)(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                     bool was_rejected);

    /* What the remote asks on the hyperwal channel. */
    enum hw_lookup_status (*lookup)(void *ctx, struct hw_peer *peer, struct hw_slice name,
                                    uint8_t key[HW_KEY_SIZE]);
    void (*list)(void *ctx, struct hw_peer *peer,
                 void (*add)(void *list_ctx, const struct hw_name_entry *entry), void *list_ctx);
    /* JSON of one database, added to *out. */
    enum hw_lookup_status (*state)(void *ctx, struct hw_peer *peer, struct hw_slice name,
                                   struct hw_buffer *out);
    /*
     * The remote wants a new database; hw_peer_created() answers, now or later.  A failure drops
     * the peer.
     */
    enum hw_status (*create)(void *ctx, struct hw_peer *peer,
                             const struct hw_hyperwal_create *create, struct hw_error *err);
    void (*created)(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_created *created);
    /* Answers to what we asked; `request` is what hw_peer_lookup() gave. */
    void (*found)(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_found *found);
    void (*told)(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_state *state);
    /* Another log is to go on from one of ours: answer with hw_peer_handed(), any time. */
    void (*handover)(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_handover *handover);
    void (*handed)(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_handed *handed);
    /* One of the names that were asked for; NULL: that was the last. */
    void (*named)(void *ctx, struct hw_peer *peer, uint64_t request,
                  const struct hw_name_entry *entry);
    /* It does not speak hyperwal/1 (a Hypercore peer of another kind); told once. */
    void (*is_plain)(void *ctx, struct hw_peer *peer);
    /*
     * A follower tells how far it says to be, also further than we are: then it may have another
     * history.  Its replica's id is all zeros if it has none.
     */
    void (*acknowledged)(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                         const uint8_t replica_id[HW_REPLICA_ID_SIZE], const struct hw_ack *ack);
    /* The server has somebody waiting for durability (or not any more). */
    void (*urged)(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                  bool durable);
    /* Of writing from afar: what a client asks, or a server answers.  A failure drops the peer. */
    enum hw_status (*wrote)(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                            const struct hw_write_message *message, struct hw_error *err);
};

/* `host` and `identity` are copied. */
enum hw_status hw_peer_new(struct hw_env *env, bool is_initiator,
                           const struct hw_identity *identity, const struct hw_peer_host *host,
                           struct hw_peer **out, struct hw_error *err) HW_MUST_CHECK;
void hw_peer_free(struct hw_peer *peer); /* unlinked() is told for each link; NULL does nothing */
void hw_peer_set_user(struct hw_peer *peer, void *user);
void *hw_peer_user(const struct hw_peer *peer);
const uint8_t *hw_peer_remote_key(const struct hw_peer *peer); /* NULL: not known yet */

/* Bytes that came. */
enum hw_status hw_peer_receive(struct hw_peer *peer, struct hw_slice bytes,
                               struct hw_error *err) HW_MUST_CHECK;
/* May more be read from it now?  No: it has to take answers first. */
bool hw_peer_wants_input(const struct hw_peer *peer);
/* When it was last heard; now, while nothing may be read from it: that is not its silence. */
uint64_t hw_peer_heard_ns(const struct hw_peer *peer);
/*
 * Bytes to send, borrowed until the next call; then tell how many went.  Large ones in pieces: who
 * takes nothing for HW_PEER_STUCK_MS is dropped.
 */
struct hw_slice hw_peer_output(const struct hw_peer *peer);
enum hw_status hw_peer_sent(struct hw_peer *peer, size_t size, struct hw_error *err) HW_MUST_CHECK;
/*
 * Answers and pushes wait while more than so many bytes wait to be sent: HW_LINK_OUTPUT_MAX is the
 * start, and the most.
 */
void hw_peer_set_room(struct hw_peer *peer, size_t size);
/*
 * Time passes.  A failure drops the peer; it may be one that a push to it met.  *deadline_ns: when
 * to call again.
 */
enum hw_status hw_peer_tick(struct hw_peer *peer, uint64_t now_ns, uint64_t *deadline_ns,
                            struct hw_error *err) HW_MUST_CHECK;

/* Open the channel of this core, as soon as the remote is known.  HW_EEXIST: it is open. */
enum hw_status hw_peer_link(struct hw_peer *peer, struct hw_replication *replication,
                            struct hw_error *err) HW_MUST_CHECK;
/* Close it; unlinked() is not told. */
void hw_peer_unlink(struct hw_peer *peer, struct hw_replication *replication);
/* Does this link belong to the peer?  To find whom hw_replication_tick() wants dropped. */
bool hw_peer_has_link(const struct hw_peer *peer, const struct hw_link *link);
/* NULL: not linked. */
const struct hw_link *hw_peer_link_of(const struct hw_peer *peer,
                                      const struct hw_replication *replication);

/*
 * Ask on the hyperwal channel, which is opened if it is not; found(), told() or named() has the
 * same request.  HW_EPROTOCOL: the remote does not speak hyperwal/1; if that shows later is_plain()
 * tells.  HW_ELIMIT: a long name, or too many questions wait.
 */
enum hw_status hw_peer_lookup(struct hw_peer *peer, const char *name, uint64_t *request,
                              struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_peer_ask(struct hw_peer *peer, const char *name, uint64_t *request,
                           struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_peer_list(struct hw_peer *peer, uint64_t *request,
                            struct hw_error *err) HW_MUST_CHECK;
/* Ask for a new database; created() has the same request. */
enum hw_status hw_peer_create(struct hw_peer *peer, const char *name, uint32_t page_size,
                              uint64_t *request, struct hw_error *err) HW_MUST_CHECK;
/* Answer create(); nothing happens if the channel is closed by now. */
enum hw_status hw_peer_created(struct hw_peer *peer, const struct hw_hyperwal_created *created,
                               struct hw_error *err) HW_MUST_CHECK;
/* Ask the server to end the log that it calls `name`; handed() has the same request. */
enum hw_status hw_peer_hand_over(struct hw_peer *peer, const char *name,
                                 const uint8_t key[HW_KEY_SIZE], uint64_t *request,
                                 struct hw_error *err) HW_MUST_CHECK;
/* HW_ENOTFOUND: the channel is closed. */
enum hw_status hw_peer_handed(struct hw_peer *peer, const struct hw_hyperwal_handed *handed,
                              struct hw_error *err) HW_MUST_CHECK;
/*
 * Tell the server of this log how far we are; nothing happens if it does not speak hyperwal/1.  The
 * first one opens the log's hyperwal channel, over which it can urge us.  HW_ENOTFOUND: not linked.
 */
enum hw_status hw_peer_acknowledge(struct hw_peer *peer, struct hw_replication *replication,
                                   const uint8_t replica_id[HW_REPLICA_ID_SIZE],
                                   const struct hw_ack *ack, struct hw_error *err) HW_MUST_CHECK;
/*
 * Say something of writing from afar about this log; what is said before the log's hyperwal channel
 * is open waits for that.  HW_ENOTFOUND: not linked.  HW_EPROTOCOL: the remote takes no writes.
 * HW_ELIMIT: too much waits to be sent.
 */
enum hw_status hw_peer_write(struct hw_peer *peer, struct hw_replication *replication,
                             const struct hw_write_message *message,
                             struct hw_error *err) HW_MUST_CHECK;
/* Tell a follower, once it has acknowledged something, whether somebody waits for durability. */
enum hw_status hw_peer_urge(struct hw_peer *peer, struct hw_replication *replication, bool durable,
                            struct hw_error *err) HW_MUST_CHECK;

#endif
