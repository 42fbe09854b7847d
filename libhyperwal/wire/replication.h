/*
 * wire/replication.h - one log, exchanged with any number of peers
 *
 * A replication holds a core and a link for every peer that has the core's channel open.  Over each
 * link it serves what the core has (any core) and fetches what it wants (a mirror).  Messages in,
 * messages out: it knows nothing of muxes, streams and sockets.
 *
 *   a link, towards the remote        OPENING ──▶ OPEN ──▶ (freed)
 *   what we push to it                ASKED ◀──▶ LIVE     LIVE: it has our tree, and new blocks go
 *                                                         to it as they come, unasked
 *
 * Serving follows what JavaScript peers expect: every Sync of a shorter peer is answered, every
 * request is answered once, a Want of a log with holes gets Bitfields.  Pushing is for peers whose
 * Sync allows it, as ours does: Data with request 0.
 *
 * Fetching: one upgrade at a time; blocks by what was wanted, lowest first, from the link that
 * answers fastest and has them, at most `in_flight` a link; a request that is not answered within
 * its time goes to another link, and the link loses favour.  A link that gives a false proof is
 * dropped.
 *
 * A log of a signer does not fetch.  A peer that claims to have more of it is asked for the proof,
 * once a minute and one peer at a time; a claim that is not proven changes nothing.
 *
 * Invariants: 1. Memory a link: what it told of its blocks (a bit for each of the first
 *                HW_LINK_BITS_MAX, and some runs beyond), HW_LINK_REQUESTS_MAX requests of the
 *                remote, and what lies in its output, which stops the answers above
 *                HW_LINK_OUTPUT_MAX.
 *             2. Nothing of a peer is believed but what hw_core_accept() took.
 *
 * Threads: a replication, with its links and core, belongs to one thread at a time.
 */
#ifndef HW_WIRE_REPLICATION_H
#define HW_WIRE_REPLICATION_H

#include "hypercore/mirror.h"
#include "wire/message.h"

enum {
    HW_LINK_REQUESTS_MAX = 2048,  /* of the remote, not yet answered; more: HW_ELIMIT */
    HW_LINK_OUTPUT_MAX = 1 << 20, /* bytes: above it answers and pushes wait */
    HW_LINK_BITS_MAX = 64 << 20,  /* blocks: below it we remember of each whether it is there */
    HW_LINK_IN_FLIGHT = 64,       /* requests of ours */
};

struct hw_replication;
struct hw_link;

struct hw_replication_options {
    struct hw_env *env;
    struct hw_core *core; /* borrowed */
    bool fetches;         /* the core is a mirror open for writing, and is to grow */
    /*
     * The core changed by what a peer sent: blocks [first, end) are among those that came.  May be
     * called often; must not call back.  NULL: nobody wants to know.
     */
    void (*arrived)(void *ctx, uint64_t block);
    void (*upgraded)(void *ctx, uint64_t length);
    /* A failure of our own disk while a peer's answer was stored: told, fetching pauses. */
    void (*broken)(void *ctx, const struct hw_error *err);
    /*
     * For the log of a signer, which does not fetch: a peer proved that it signed a tree of this
     * fork and length, and we know of no such length.  Told once for each that is above all
     * before; must not call back.  NULL: peers that claim to have more are not asked to prove it.
     */
    void (*overtaken)(void *ctx, const struct hw_link *link, uint64_t fork, uint64_t length);
    void *ctx;
};
enum hw_status hw_replication_new(const struct hw_replication_options *options,
                                  struct hw_replication **out, struct hw_error *err) HW_MUST_CHECK;
void hw_replication_free(struct hw_replication *replication); /* links are gone; NULL: nothing */
struct hw_core *hw_replication_core(const struct hw_replication *replication);

/* The core has grown, or given up blocks, by our own doing: announce, push. */
void hw_replication_grown(struct hw_replication *replication);
void hw_replication_dropped(struct hw_replication *replication, uint64_t start, uint64_t length);

/* --------------------------------------------------------------------------------- wants */

/* Blocks [start, end) are to be fetched, if they are not held.  HW_ENOMEM, HW_ELIMIT. */
enum hw_status hw_replication_want(struct hw_replication *replication, uint64_t start, uint64_t end,
                                   struct hw_error *err) HW_MUST_CHECK;
/*
 * Somebody waits for this one: before all others, until it comes or hw_replication_unwant_now().
 * HW_ENOMEM.  HW_ELIMIT: so many that may still come are waited for.
 */
enum hw_status hw_replication_want_now(struct hw_replication *replication, uint64_t block,
                                       struct hw_error *err) HW_MUST_CHECK;
/* Nobody waits for it any more; one that is under way still comes. */
void hw_replication_unwant_now(struct hw_replication *replication, uint64_t block);
/* All blocks from `start` on, also those to come; UINT64_MAX: none (the start). */
void hw_replication_want_tail(struct hw_replication *replication, uint64_t start);
void hw_replication_unwant(struct hw_replication *replication); /* all but the tail */

/* May a block still come? */
enum hw_availability {
    HW_BLOCK_HELD,
    HW_BLOCK_COMING,  /* asked for, or a link may have it */
    HW_BLOCK_NOBODY,  /* every open link said that it has not got it */
    HW_BLOCK_NO_LINK, /* no link is open */
};
enum hw_availability hw_replication_availability(struct hw_replication *replication,
                                                 uint64_t block);

/* --------------------------------------------------------------------------------- links */

struct hw_link_sink { /* where a link's messages go */
    void *ctx;
    /* Channel message; copied.  After a failure hw_replication_tick() tells the link as dropped. */
    enum hw_status (*send)(void *ctx, enum hw_message_type type, struct hw_slice head,
                           struct hw_slice body, struct hw_error *err);
    size_t (*queued)(void *ctx); /* bytes that wait to be sent */
};
/* A peer: opened when both sides have opened the channel and the capability was right. */
enum hw_status hw_link_open(struct hw_replication *replication, const struct hw_link_sink *sink,
                            struct hw_link **out, struct hw_error *err) HW_MUST_CHECK;
void hw_link_close(struct hw_link *link); /* its requests go to others; NULL does nothing */
/*
 * A message of the remote.  HW_EPROTOCOL, HW_ELIMIT, HW_EPROOF: drop the peer.  HW_ENOMEM.
 */
enum hw_status hw_link_receive(struct hw_link *link, uint64_t type, struct hw_slice payload,
                               struct hw_error *err) HW_MUST_CHECK;
/* The output has room again: go on answering. */
enum hw_status hw_link_drained(struct hw_link *link, struct hw_error *err) HW_MUST_CHECK;
/* Is so much of the remote unanswered that no more should be read from it for now? */
bool hw_link_is_full(const struct hw_link *link);

struct hw_link_status {
    uint64_t remote_length, remote_fork;
    bool is_synced;                                                    /* it told them */
    bool is_live;                                                      /* we push to it */
    unsigned in_flight;                                                /* requests of ours */
    unsigned unanswered;                                               /* requests of the remote */
    uint64_t blocks_sent, blocks_received, bytes_sent, bytes_received; /* of blocks */
};
void hw_link_status(const struct hw_link *link, struct hw_link_status *out);

/*
 * Time passes: requests that wait too long, wants that were refused.  To be called after each round
 * of receiving too, as it sends what was put off to be said once.  Links that must be dropped
 * are told one by one: HW_OK and *dropped with err, to be closed by the caller, who calls again;
 * HW_END: none.  *deadline_ns: when to call again (monotonic; UINT64_MAX: not needed).
 */
enum hw_status hw_replication_tick(struct hw_replication *replication, uint64_t now_ns,
                                   struct hw_link **dropped, uint64_t *deadline_ns,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
