/*
 * bench/lib_syncs.h - what the disk took: the time spent inside of the library's fdatasyncs
 *
 * SQLite's own do not come this way.
 */
#ifndef HW_BENCH_LIB_SYNCS_H
#define HW_BENCH_LIB_SYNCS_H

#include "lib.h"

/* From now on each call is timed; before the library starts a thread. */
void bench_syncs_time(void);
void bench_syncs_forget(void);
/* How much of a span of time went by inside of an fdatasync, ns. */
uint64_t bench_syncs_within(uint64_t from_ns, uint64_t to_ns);
/* Add each call's microseconds. */
void bench_syncs_list(struct bench_series *series);

#endif
