/*
 * bench/lib_replica.h - followers, and processes beside this one
 */
#ifndef HW_BENCH_LIB_REPLICA_H
#define HW_BENCH_LIB_REPLICA_H

#include "lib.h"

/* Follow the database `source` into `replica` until all is applied. */
hyperwal_follower *bench_follow(const char *source, const char *replica);
/* Apply what the log has; returns the seq applied. */
uint64_t bench_catch_up(hyperwal_follower *follower);
/* Die unless the replica's state sum, computed from its pages, is that of the log's head. */
void bench_check_replica(const char *source, const char *replica);

struct bench_child {
    int pid;
    int to, from; /* pipes: closing `to` is how the child learns that it may end */
};

/*
 * Run `body` in a process of its own, made by fork, while no database is open here.  The body
 * talks over `in` and `out`; it exits when it returns.
 */
void bench_child_start(struct bench_child *child, void (*body)(void *ctx, int in, int out),
                       void *ctx);
/* Exchange one number at a time; bench_die if the other side is gone. */
void bench_tell(int out, uint64_t value);
uint64_t bench_hear(int in);
void bench_child_join(struct bench_child *child); /* asks it to end and waits */

#endif
