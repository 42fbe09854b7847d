/*
 * node/lease.h - who may write to a database from afar: one at a time, in the order in which they
 * asked
 *
 *            granted                    another asks
 *     FREE ───────────▶ HELD ─────────────────────────▶ HELD, recalled
 *      ▲                 │ ▲ commit begins                │ commit begins
 *      │                 ▼ │ it ends                      ▼
 *      │              COMMITTING ────────────────▶ COMMITTING, recalled
 *      │                   │ it ends, and the client is gone    │ it ends
 *      └───────────────────┴────────────────────────────────────┘
 *             HELD and released, gone, expired, or revoked: FREE
 *
 * A lease does not make commits correct: that is done by the check of each commit against the head,
 * under SQLite's write lock.  It makes them succeed, one client after the other.  It is sticky:
 * kept until somebody else asks, or until nothing was heard of the holder for HW_LEASE_MS.  Each
 * grant has a fencing number greater than all before it, across restarts: the owner keeps a limit
 * in a file, below which numbers may have been given away (hw_lease_set_limit()).
 *
 * Invariants: 1. At most one client holds the lease.
 *             2. A commit begins only with the newest fence that was given away, by the client that
 *                it was given to, and that was not taken from it.  (One that expired while nobody
 *                else asked is still good.)
 *             3. While a commit is under way the lease does not change hands.
 *             4. Who is recalled holds it for HW_LEASE_MS at the most, and for one commit.
 *
 * A pure state machine: no I/O, time is passed in.  Calls change the state, then hw_lease_next()
 * tells what is to be said to whom.  All tables are bounded.
 *
 * Threads: one at a time.
 */
#ifndef HW_NODE_LEASE_H
#define HW_NODE_LEASE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HW_LEASE_CLIENTS_MAX = 128, /* that wait, hold, or were here lately */
    HW_LEASE_MS = 10000,
    HW_LEASE_STALE_MAX = 3, /* refusals in a row; then local writers are held off for a client */
};

enum hw_lease_state { HW_LEASE_FREE, HW_LEASE_HELD, HW_LEASE_COMMITTING };

struct hw_lease_client {
    uint64_t id;      /* never 0 */
    uint64_t request; /* what it asked, to be echoed */
    unsigned stale;   /* commits in a row that came too late */
    bool is_waiting;  /* it asked and has no answer yet */
};

struct hw_lease {
    enum hw_lease_state state;
    uint64_t holder;      /* client; FREE: whose the newest fence is still; 0: nobody's */
    uint64_t fence;       /* the newest that was given away; 0: none yet */
    uint64_t fence_limit; /* none at or above it may be given away */
    uint64_t expires_ns;  /* HELD */
    bool is_granted_due;  /* the holder is to be told that it has the lease ... */
    bool is_recalled;     /* ... that another waits ... */
    bool is_recall_due;   /* ... and this is to be told */
    bool is_ending;       /* COMMITTING: the lease ends with the commit */
    unsigned count;
    struct hw_lease_client clients[HW_LEASE_CLIENTS_MAX]; /* who waits longest comes first */
};

enum hw_lease_event_kind {
    HW_LEASE_GRANTED,  /* `request` is answered: it has the lease, with `fence` */
    HW_LEASE_RECALLED, /* others want the lease with `fence` back */
};
struct hw_lease_event {
    enum hw_lease_event_kind kind;
    uint64_t client, request, fence;
    bool must_hold; /* GRANTED: its commits come too late again and again: hold off local writers */
};

enum hw_lease_outcome {
    HW_LEASE_COMMITTED,
    HW_LEASE_STALE,  /* somebody else committed before it */
    HW_LEASE_FAILED, /* neither; nothing is known of its fault */
};

/* All at or below `fence` may have been given away.  Nothing is granted before a limit is set. */
void hw_lease_init(struct hw_lease *lease, uint64_t fence);
void hw_lease_set_limit(struct hw_lease *lease, uint64_t fence_limit, uint64_t now_ns);
/* Fewer than `reserve` fences are left below the limit: raise it. */
bool hw_lease_wants_limit(const struct hw_lease *lease, uint64_t reserve);

/*
 * A client wants the lease.  One that holds it gets it once more; unless it was recalled: then it
 * waits behind the others.  False: too many wait.
 */
bool hw_lease_ask(struct hw_lease *lease, uint64_t client, uint64_t request, uint64_t now_ns)
    __attribute__((warn_unused_result));
/* It asked, and has to wait because another has the lease. */
bool hw_lease_must_wait(const struct hw_lease *lease, uint64_t client);
/* It gives the lease back, if it holds it with `fence`; with 0 it does not want it any more. */
void hw_lease_release(struct hw_lease *lease, uint64_t client, uint64_t fence, uint64_t now_ns);
/* Its connection is closed, or it may not write any more.  A commit that has begun goes on. */
void hw_lease_gone(struct hw_lease *lease, uint64_t client, uint64_t now_ns);
/* No commit begins with this fence any more; one that has begun goes on. */
void hw_lease_revoke(struct hw_lease *lease, uint64_t fence, uint64_t now_ns);

/* May it commit?  Yes: until hw_lease_commit_end() nobody else gets the lease. */
bool hw_lease_commit_begin(struct hw_lease *lease, uint64_t client, uint64_t fence, uint64_t now_ns)
    __attribute__((warn_unused_result));
/* *kept: the client still has the lease. */
void hw_lease_commit_end(struct hw_lease *lease, enum hw_lease_outcome outcome, uint64_t now_ns,
                         bool *kept);

void hw_lease_tick(struct hw_lease *lease, uint64_t now_ns);
uint64_t hw_lease_deadline(const struct hw_lease *lease); /* UINT64_MAX: none */
bool hw_lease_next(struct hw_lease *lease, struct hw_lease_event *out);

#endif
