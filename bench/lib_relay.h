/*
 * bench/lib_relay.h - a relay on loopback that counts the bytes of both directions, and may be slow
 */
#ifndef HW_BENCH_LIB_RELAY_H
#define HW_BENCH_LIB_RELAY_H

#include "lib_replica.h"

struct bench_relay {
    struct bench_child child;
    unsigned port; /* where it listens */
};

/* Listen, in a process made by fork: before a database is open here. */
void bench_relay_prepare(struct bench_relay *relay);
/* The same, with everything delayed by so much each way, and nothing lost or reordered. */
void bench_relay_prepare_far(struct bench_relay *relay, unsigned one_way_ms);
/* From now on every connection is passed on to 127.0.0.1:`port`. */
void bench_relay_connect(struct bench_relay *relay, unsigned port);
/* Bytes since the last call: towards `port`, and back. */
void bench_relay_count(struct bench_relay *relay, uint64_t *up, uint64_t *down);
void bench_relay_stop(struct bench_relay *relay);

#endif
