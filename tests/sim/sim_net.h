/*
 * sim/sim_net.h - a simulated network: transports in memory, with delay, cuts and silence by a seed
 *
 * Each host has a transport (wire/transport.h).  One listens at a URL of any spelling, another
 * dials the same URL; port 0 gets a number.  Bytes of a connection arrive in the order they were
 * sent, after a delay, in pieces whose sizes are chance; which of several things that are due
 * happens first is chance, too, but the same seed gives the same run (sim_net_trace_hash() tells).
 *
 *      sender ──send()──▶ on the way: at most `capacity` bytes ──delay──▶ receive()
 *                          SENT when all were taken in
 *
 * Nothing happens by itself: time is the clock of the hw_env, and whoever runs the hosts moves it
 * on to sim_net_deadline() when nobody has anything to do.  One thread.  Memory is malloc's, so
 * that a failed hw_alloc is never the network's.
 */
#ifndef SIM_SIM_NET_H
#define SIM_SIM_NET_H

#include "wire/transport.h"

struct sim_net;

/* `env`: the clock, borrowed.  Seed 0 is 1. */
struct sim_net *sim_net_new(struct hw_env *env, uint64_t seed);
void sim_net_free(struct sim_net *net); /* after its transports */

/* A host's transport; freed by its owner through its ops.  The name is for people. */
struct hw_transport *sim_net_host(struct sim_net *net, const char *name);

/* How long bytes are on their way, by chance between the two; the start: 0, 0. */
void sim_net_set_delay(struct sim_net *net, uint64_t min_ns, uint64_t max_ns);
/* Bytes of one receive at the most; the start: HW_RECEIVE_SIZE. */
void sim_net_set_piece(struct sim_net *net, size_t size);
/* Bytes that one direction of a connection holds; the start: 256 KiB. */
void sim_net_set_capacity(struct sim_net *net, size_t size);

/* Cut the connection over which the n-th byte from now arrives, right behind it; 0: none. */
void sim_net_cut_after(struct sim_net *net, uint64_t bytes);
/* And so on, each time after 1 to 2 * mean bytes; 0: no more. */
void sim_net_set_cuts(struct sim_net *net, uint64_t mean_bytes);
/* Cut all connections of a host. */
void sim_net_cut_host(struct sim_net *net, struct hw_transport *host);
/* A host whose cable is out: nothing arrives, in both directions, and nobody is told. */
void sim_net_set_silent(struct sim_net *net, struct hw_transport *host, bool silent);

/* When the next thing will happen that is only a matter of time; UINT64_MAX: nothing will. */
uint64_t sim_net_deadline(const struct sim_net *net);

uint64_t sim_net_bytes(const struct sim_net *net);       /* that arrived */
unsigned sim_net_cuts(const struct sim_net *net);        /* made by bytes */
unsigned sim_net_connections(const struct sim_net *net); /* ends that are not closed */
uint64_t sim_net_trace_hash(const struct sim_net *net);

#endif
