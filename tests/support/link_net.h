/*
 * support/link_net.h - replications joined by links in memory, for tests of wire/replication.h
 *
 * Messages of a link lie in the queue of its direction until they are delivered, one at a time, in
 * an order between the links that a seed decides.  A test may look at each before it is delivered,
 * change it, keep it back, or cut the pair.  One thread, and a clock that the test moves.
 */
#ifndef SUPPORT_LINK_NET_H
#define SUPPORT_LINK_NET_H

#include "sim/sim.h"
#include "support/core_log.h"
#include "wire/replication.h"

enum { LINK_NET_NODES = 64, LINK_NET_PAIRS = 96 };

struct link_net;
struct link_node {
    struct link_net *net;
    struct hw_core *core; /* owned */
    struct hw_replication *replication;
    uint64_t arrived, upgraded, broken; /* how often it was told */
    uint64_t last_length;
    uint64_t overtaken, shown_fork, shown_length; /* of a log of ours: how often, by what */
};
struct link_message {
    struct link_message *next;
    uint64_t type;
    struct hw_buffer payload;
};
struct link_end { /* one side of a pair */
    struct link_net *net;
    struct hw_link *link;
    unsigned node, pair, side;
    struct link_message *first, *last; /* to be delivered to it */
    size_t bytes;                      /* of those */
    bool is_deaf;                      /* nothing is delivered to it: a peer that never reads */
    unsigned counts[16];               /* messages delivered to it, by type */
};
struct link_pair {
    bool is_open;
    struct link_end ends[2];
    enum hw_status why; /* the failure that cut it, or HW_OK */
};
struct link_net {
    struct sim *sim;
    uint64_t seed, chance;
    struct link_node nodes[LINK_NET_NODES];
    unsigned node_count;
    struct link_pair pairs[LINK_NET_PAIRS];
    unsigned pair_count;
    uint64_t delivered;
    /*
     * Called before a message is delivered to `to`; false: it is dropped.  May change the payload,
     * not the net; asserts nothing.
     */
    bool (*look)(void *ctx, struct link_end *to, struct link_message *message);
    void *ctx;
    struct hw_error err;
};

int link_net_setup(void **state); /* for cmocka: *state is a struct link_net */
int link_net_teardown(void **state);
void link_net_reset(struct link_net *net, uint64_t seed); /* no nodes, no pairs */
uint64_t link_net_chance(struct link_net *net, uint64_t bound);

unsigned link_net_primary(struct link_net *net, unsigned blocks); /* a log of core_log blocks */
/* A mirror in memory; `tail`: from where on it wants all blocks. */
unsigned link_net_mirror(struct link_net *net, const uint8_t key[HW_KEY_SIZE], uint64_t tail);
/* A node with a core of the test's own, which becomes the net's. */
unsigned link_net_add(struct link_net *net, struct hw_core *core, bool fetches);
void link_net_append(struct link_net *net, unsigned node, unsigned count);

unsigned link_net_connect(struct link_net *net, unsigned a, unsigned b); /* the pair */
void link_net_cut(struct link_net *net, unsigned pair);
/* Deliver one message; false: there is none. */
bool link_net_step(struct link_net *net);
void link_net_tick(struct link_net *net); /* all replications; dropped links are cut */
/* Deliver and tick until nothing happens any more. */
void link_net_run(struct link_net *net);
void link_net_advance(struct link_net *net, uint64_t ms);
/* Give a message to `end` as if its remote had sent it. */
void link_net_inject(struct link_end *end, enum hw_message_type type, const void *bytes,
                     size_t size);

void link_net_forget(struct link_message *message); /* free one that was taken out of a queue */

/* Has `node` the tree of `primary`, and all blocks from `start` on, as they should be? asserts */
void link_net_check(struct link_net *net, unsigned node, unsigned primary, uint64_t start);

/* Copy the directory of a log on the net's disk, as an operator does who moves it. */
void link_net_copy_log(struct link_net *net, const char *from, const char *to);
/* Blocks that no log of core_log_append() has: another history. */
void link_net_append_other(struct link_net *net, struct hw_core *core, unsigned count);

#endif
