/*
 * bench_commit - what a commit costs with the VFS, against plain SQLite in WAL mode
 *
 * Two copies of one database, one transaction stream.  Rounds of the same transactions alternate
 * between them, in the order A B B A, and the ratio of each pair of rounds counts: noise that lasts
 * longer than a round hits both.  Between rounds the log is let to catch up, outside the measured time,
 * so that no round pays for another's capture; `drain_ms` tells how long that takes, and
 * `ratio_drained` is the throughput with it added.
 */
#include "lib_workload.h"

#include <stdio.h>

enum { ROUND_MS = 150, PLAIN = 0, SHIM = 1 };

struct side {
    struct bench_load load;
    const char *path, *vfs;
    struct bench_series latencies; /* us, of all rounds */
    double round_s, round_drained_s, round_p50, round_p99;
};

struct ratios { /* one value a pair of rounds, SHIM over PLAIN */
    struct bench_series throughput, drained, p50, p99, drain_ms;
};

static void run_round(struct side *side, uint64_t transactions)
{
    struct bench_series latencies = {0};
    uint64_t start = bench_now_ns(), before = start, end;

    for (uint64_t i = 0; i < transactions; i++) {
        uint64_t now;

        bench_load_run(&side->load);
        now = bench_now_ns();
        bench_series_add(&latencies, (double)(now - before) / 1e3);
        before = now;
    }
    side->round_s = (double)(before - start) / 1e9;
    bench_settle(side->load.db, side->vfs, side->path);
    end = bench_now_ns();
    side->round_drained_s = (double)(end - start) / 1e9;
    for (size_t i = 0; i < latencies.count; i++)
        bench_series_add(&side->latencies, latencies.values[i]);
    side->round_p50 = bench_series_percentile(&latencies, 0.50);
    side->round_p99 = bench_series_percentile(&latencies, 0.99);
    bench_series_release(&latencies);
}

static void side_open(struct side *side, const struct bench_options *options,
                      enum bench_workload workload, const char *name, const char *vfs,
                      const char *synchronous, const char *original)
{
    *side = (struct side){.path = bench_path(name), .vfs = vfs};
    bench_copy_file(original, side->path);
    bench_load_open(&side->load, options, workload, side->path, vfs, synchronous);
    bench_load_run(&side->load);
    bench_settle(side->load.db, vfs, side->path);
}

/* How many transactions the plain side makes in a round. */
static uint64_t calibrate(struct side *sides)
{
    uint64_t start = bench_now_ns(), transactions = 0;

    while (bench_now_ns() - start < ROUND_MS * 1000000U) {
        bench_load_run(&sides[PLAIN].load);
        transactions++;
    }
    run_round(&sides[SHIM], transactions); /* the same warm-up, and the databases stay alike */
    bench_series_release(&sides[SHIM].latencies);
    return transactions;
}

static void run_pair(struct side *sides, struct ratios *ratios, uint64_t transactions, bool reverse)
{
    run_round(&sides[reverse ? SHIM : PLAIN], transactions);
    run_round(&sides[reverse ? PLAIN : SHIM], transactions);
    bench_series_add(&ratios->throughput, sides[PLAIN].round_s / sides[SHIM].round_s);
    bench_series_add(&ratios->drained, sides[PLAIN].round_drained_s / sides[SHIM].round_drained_s);
    bench_series_add(&ratios->p50, sides[SHIM].round_p50 / sides[PLAIN].round_p50);
    bench_series_add(&ratios->p99, sides[SHIM].round_p99 / sides[PLAIN].round_p99);
    bench_series_add(&ratios->drain_ms, (sides[SHIM].round_drained_s - sides[SHIM].round_s) * 1e3);
}

static void report(const struct bench_options *options, enum bench_workload workload, bool full,
                   struct side *sides, struct ratios *ratios, double fdatasync_us)
{
    struct bench_series *plain = &sides[PLAIN].latencies, *shim = &sides[SHIM].latencies;
    double p99_ratio = bench_series_percentile(&ratios->p99, 0.5), p99_target = full ? 1.10 : 1.5;

    bench_json_begin(options);
    bench_json_text("workload", bench_workload_name(workload));
    bench_json_text("synchronous", full ? "FULL" : "NORMAL");
    bench_json_ratio(bench_series_percentile(&ratios->throughput, 0.5), full ? 0.98 : 0.93, true);
    bench_json_number("p99_ratio", p99_ratio);
    bench_json_number("p99_target", p99_target);
    bench_json_bool("p99_met", p99_ratio <= p99_target);
    bench_json_number("p50_ratio", bench_series_percentile(&ratios->p50, 0.5));
    bench_json_number("ratio_drained", bench_series_percentile(&ratios->drained, 0.5));
    bench_json_number("ratio_p25", bench_series_percentile(&ratios->throughput, 0.25));
    bench_json_number("ratio_p75", bench_series_percentile(&ratios->throughput, 0.75));
    bench_json_number("drain_ms", bench_series_percentile(&ratios->drain_ms, 0.5));
    bench_json_number("plain_per_s", (double)plain->count * 1e6 / bench_series_sum(plain));
    bench_json_number("vfs_per_s", (double)shim->count * 1e6 / bench_series_sum(shim));
    bench_json_number("plain_p50_us", bench_series_percentile(plain, 0.5));
    bench_json_number("vfs_p50_us", bench_series_percentile(shim, 0.5));
    bench_json_number("plain_p99_us", bench_series_percentile(plain, 0.99));
    bench_json_number("vfs_p99_us", bench_series_percentile(shim, 0.99));
    bench_json_number("transactions", (double)shim->count);
    bench_json_number("rounds", (double)ratios->throughput.count);
    bench_json_number("fdatasync_us", fdatasync_us);
    bench_json_text("vfs", options->vfs);
    bench_json_end();
}

static void run_case(const struct bench_options *options, enum bench_workload workload, bool full,
                     const char *original, double fdatasync_us)
{
    const char *synchronous = full ? "FULL" : "NORMAL";
    struct side sides[2];
    struct ratios ratios = {0};
    uint64_t transactions, end;
    bool reverse = false;

    side_open(&sides[PLAIN], options, workload, "plain.db", NULL, synchronous, original);
    side_open(&sides[SHIM], options, workload, "shim.db", options->vfs, synchronous, original);
    transactions = calibrate(sides);

    end = bench_now_ns() + (uint64_t)(options->seconds * 1e9);
    while (bench_now_ns() < end || ratios.throughput.count < 3) {
        run_pair(sides, &ratios, transactions, reverse);
        reverse = !reverse;
    }
    report(options, workload, full, sides, &ratios, fdatasync_us);

    for (int i = 0; i < 2; i++) {
        bench_load_close(&sides[i].load);
        bench_remove_database(sides[i].path);
        bench_series_release(&sides[i].latencies);
    }
    bench_series_release(&ratios.throughput);
    bench_series_release(&ratios.drained);
    bench_series_release(&ratios.p50);
    bench_series_release(&ratios.p99);
    bench_series_release(&ratios.drain_ms);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "commit", .seconds = 5};
    double fdatasync_us;

    bench_start(&options, argc, argv);
    fdatasync_us = bench_fdatasync_us();
    for (enum bench_workload workload = 0; workload < BENCH_WORKLOADS; workload++) {
        const char *original = bench_path("original.db");

        if (!bench_selected(&options, bench_workload_name(workload)))
            continue;
        bench_load_populate(original, workload, options.random_values);
        run_case(&options, workload, true, original, fdatasync_us);
        run_case(&options, workload, false, original, fdatasync_us);
        bench_remove_database(original);
    }
    return 0;
}
