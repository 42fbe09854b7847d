/*
 * bench/lib_rounds.h - two sides that run the same transactions in turn
 *
 * Rounds of the same transactions alternate between the sides, in the order A B B A, and the ratio
 * of each pair of rounds counts: noise that lasts longer than a round hits both.  Between rounds
 * the log is let to catch up, outside the measured time, so that no round pays for another's
 * capture; the drained time is the round's and this.
 */
#ifndef HW_BENCH_LIB_ROUNDS_H
#define HW_BENCH_LIB_ROUNDS_H

#include "lib_workload.h"

struct bench_side {
    struct bench_load load;
    const char *path, *vfs;        /* vfs NULL: plain SQLite */
    struct bench_series latencies; /* us, of all rounds */
    double round_s, round_drained_s, round_p50, round_p99;
};

struct bench_ratios { /* B over A, a value for each pair of rounds; times, so 1.1 is slower */
    struct bench_series time, drained, p50, p99, drain_ms;
};

/* Open the database at `path` and wait until the log has it. */
void bench_side_open(struct bench_side *side, const struct bench_options *options,
                     enum bench_workload workload, const char *path, const char *vfs,
                     const char *synchronous);
/* Also removes the database, unless `keep`. */
void bench_side_close(struct bench_side *side, bool keep);

/* Compare sides[1] with sides[0] for options->seconds, after a warm-up. */
void bench_compare(struct bench_side *sides, const struct bench_options *options,
                   struct bench_ratios *ratios);
void bench_ratios_release(struct bench_ratios *ratios);

#endif
