/* Implements bench/lib_rounds.h. */
#include "lib_rounds.h"

enum { ROUND_MS = 150, PAIRS_MIN = 3 };

static void run_round(struct bench_side *side, uint64_t transactions)
{
    struct bench_series latencies = {0};
    uint64_t start = bench_now_ns(), before = start;

    for (uint64_t i = 0; i < transactions; i++) {
        uint64_t now;

        bench_load_run(&side->load);
        now = bench_now_ns();
        bench_series_add(&latencies, (double)(now - before) / 1e3);
        before = now;
    }
    side->round_s = (double)(before - start) / 1e9;
    bench_settle(side->load.db, side->vfs, side->path);
    side->round_drained_s = (double)(bench_now_ns() - start) / 1e9;
    for (size_t i = 0; i < latencies.count; i++)
        bench_series_add(&side->latencies, latencies.values[i]);
    side->round_p50 = bench_series_percentile(&latencies, 0.50);
    side->round_p99 = bench_series_percentile(&latencies, 0.99);
    bench_series_release(&latencies);
}

/* How many transactions A makes in a round; B makes as many, so the databases stay alike. */
static uint64_t calibrate(struct bench_side *sides)
{
    uint64_t start = bench_now_ns(), transactions = 0;

    while (bench_now_ns() - start < ROUND_MS * 1000000U) {
        bench_load_run(&sides[0].load);
        transactions++;
    }
    bench_settle(sides[0].load.db, sides[0].vfs, sides[0].path);
    run_round(&sides[1], transactions);
    bench_series_release(&sides[1].latencies);
    return transactions;
}

void bench_compare(struct bench_side *sides, const struct bench_options *options,
                   struct bench_ratios *ratios)
{
    uint64_t transactions = calibrate(sides);
    uint64_t end = bench_now_ns() + (uint64_t)(options->seconds * 1e9);
    struct bench_side *a = &sides[0], *b = &sides[1];

    for (size_t pair = 0; pair < PAIRS_MIN || bench_now_ns() < end; pair++) {
        run_round(pair % 2 == 0 ? a : b, transactions);
        run_round(pair % 2 == 0 ? b : a, transactions);
        bench_series_add(&ratios->time, b->round_s / a->round_s);
        bench_series_add(&ratios->drained, b->round_drained_s / a->round_drained_s);
        bench_series_add(&ratios->p50, b->round_p50 / a->round_p50);
        bench_series_add(&ratios->p99, b->round_p99 / a->round_p99);
        bench_series_add(&ratios->drain_ms, (b->round_drained_s - b->round_s) * 1e3);
    }
}

void bench_ratios_release(struct bench_ratios *ratios)
{
    bench_series_release(&ratios->time);
    bench_series_release(&ratios->drained);
    bench_series_release(&ratios->p50);
    bench_series_release(&ratios->p99);
    bench_series_release(&ratios->drain_ms);
}

void bench_side_open(struct bench_side *side, const struct bench_options *options,
                     enum bench_workload workload, const char *path, const char *vfs,
                     const char *synchronous)
{
    *side = (struct bench_side){.path = path, .vfs = vfs};
    bench_load_open(&side->load, options, workload, path, vfs, synchronous);
    bench_load_run(&side->load);
    bench_settle(side->load.db, vfs, path);
}

void bench_side_close(struct bench_side *side, bool keep)
{
    bench_load_close(&side->load);
    bench_series_release(&side->latencies);
    if (!keep)
        bench_remove_database(side->path);
}
