/*
 * tests/support/net_world.h - several hubs over a simulated disk and network, in one thread
 *
 *     server ──▶ a ──▶ c        a serves what it mirrors
 *        └─────▶ b
 *
 * The server has a log and serves it as x.db; the hosts' directories are /server, /a, /b and /c.
 * What fails fails the test.
 */
#ifndef HW_TESTS_SUPPORT_NET_WORLD_H
#define HW_TESTS_SUPPORT_NET_WORLD_H

#include "env/shared_page.h"
#include "hypercore/hypercore.h"
#include "node/hub.h"
#include "sim/sim.h"
#include "sim/sim_net.h"

enum { SERVER, A, B, C, HOSTS };
#define MS(n) ((uint64_t)(n)*1000000)

struct net_world {
    struct sim *sim;
    struct hw_env *env;
    struct sim_net *net;
    struct hw_transport *transports[HOSTS]; /* moved to the hubs */
    struct hw_hub *hubs[HOSTS];             /* owned; NULL: not open */
    struct hw_mirror *mirrors[HOSTS];       /* owned; NULL: not open */
    struct hw_core *core;                   /* owned: the server's log, open for writing */
    struct hw_shared_page *page;            /* owned */
    uint8_t key[HW_KEY_SIZE];
    uint64_t expected; /* its length */
    struct hw_error err;
};

/* The log, 30 blocks of it, and its server. */
void net_begin(struct net_world *w, struct sim *sim, uint64_t seed);
/* Close all that is open. */
void net_end(struct net_world *w);

/* Open the hub of a host, and listen. */
enum hw_status net_host_open(struct net_world *w, unsigned host) HW_MUST_CHECK;
/* Follow the log at its source, and at `second` too if that is another host. */
enum hw_status net_mirror_open_from(struct net_world *w, unsigned host,
                                    unsigned second) HW_MUST_CHECK;
enum hw_status net_mirror_open(struct net_world *w, unsigned host) HW_MUST_CHECK;
void net_follow(struct net_world *w, unsigned host); /* its hub and its mirror */
void net_append(struct net_world *w, unsigned count);

/* Until `is_done`.  False: it did not come to that within so much simulated time. */
bool net_run(struct net_world *w, bool (*is_done)(struct net_world *w), uint64_t time_ns);
bool net_mirror_is_whole(struct net_world *w, unsigned host);
bool net_b_is_whole(struct net_world *w);
bool net_never(struct net_world *w);

/* Run until all mirrors are whole, and look at their blocks as somebody else. */
void net_check_all(struct net_world *w);
void net_check_blocks(struct net_world *w, unsigned host);

#endif
