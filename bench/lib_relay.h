/*
 * bench/lib_relay.h - a relay on loopback that counts the bytes of both directions
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
/* From now on every connection is passed on to 127.0.0.1:`port`. */
void bench_relay_connect(struct bench_relay *relay, unsigned port);
/* Bytes since the last call: towards `port`, and back. */
void bench_relay_count(struct bench_relay *relay, uint64_t *up, uint64_t *down);
void bench_relay_stop(struct bench_relay *relay);

#endif
