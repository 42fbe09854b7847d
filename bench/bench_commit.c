/*
 * bench_commit - what a commit costs with the VFS, against plain SQLite in WAL mode
 *
 * Two copies of one database, one transaction stream, rounds in turn (lib_rounds.h).  `ratio` is
 * the throughput, `ratio_drained` the throughput if a round had to wait for its log at the end,
 * `drain_ms` that wait.
 */
#include "lib_rounds.h"

enum { PLAIN = 0, SHIM = 1 };

static void report(const struct bench_options *options, enum bench_workload workload, bool full,
                   struct bench_side *sides, struct bench_ratios *ratios, double fdatasync_us)
{
    struct bench_series *plain = &sides[PLAIN].latencies, *shim = &sides[SHIM].latencies;
    double p99_ratio = bench_series_percentile(&ratios->p99, 0.5), p99_target = full ? 1.10 : 1.5;

    bench_json_begin(options);
    bench_json_text("workload", bench_workload_name(workload));
    bench_json_text("synchronous", full ? "FULL" : "NORMAL");
    bench_json_ratio(1 / bench_series_percentile(&ratios->time, 0.5), full ? 0.98 : 0.93, true);
    bench_json_number("p99_ratio", p99_ratio);
    bench_json_number("p99_target", p99_target);
    bench_json_bool("p99_met", p99_ratio <= p99_target);
    bench_json_number("p50_ratio", bench_series_percentile(&ratios->p50, 0.5));
    bench_json_number("ratio_p25", 1 / bench_series_percentile(&ratios->time, 0.75));
    bench_json_number("ratio_p75", 1 / bench_series_percentile(&ratios->time, 0.25));
    bench_json_number("ratio_total", bench_series_sum(plain) / bench_series_sum(shim));
    bench_json_number("ratio_drained", 1 / bench_series_percentile(&ratios->drained, 0.5));
    bench_json_number("drain_ms", bench_series_percentile(&ratios->drain_ms, 0.5));
    bench_json_number("plain_per_s", (double)plain->count * 1e6 / bench_series_sum(plain));
    bench_json_number("vfs_per_s", (double)shim->count * 1e6 / bench_series_sum(shim));
    bench_json_number("plain_p50_us", bench_series_percentile(plain, 0.5));
    bench_json_number("vfs_p50_us", bench_series_percentile(shim, 0.5));
    bench_json_number("plain_p99_us", bench_series_percentile(plain, 0.99));
    bench_json_number("vfs_p99_us", bench_series_percentile(shim, 0.99));
    bench_json_number("transactions", (double)shim->count);
    bench_json_number("pairs", (double)ratios->time.count);
    bench_json_number("fdatasync_us", fdatasync_us);
    bench_json_text("vfs", options->vfs);
    bench_json_end();
}

static void run_case(const struct bench_options *options, enum bench_workload workload, bool full,
                     const char *original, double fdatasync_us)
{
    const char *const paths[2] = {bench_path("plain.db"), bench_path("shim.db")};
    const char *const vfs[2] = {NULL, options->vfs};
    struct bench_side sides[2];
    struct bench_ratios ratios = {0};

    for (int i = 0; i < 2; i++) {
        bench_copy_file(original, paths[i]);
        bench_side_open(&sides[i], options, workload, paths[i], vfs[i], full ? "FULL" : "NORMAL");
    }
    bench_compare(sides, options, &ratios);
    report(options, workload, full, sides, &ratios, fdatasync_us);
    for (int i = 0; i < 2; i++)
        bench_side_close(&sides[i], options->keep);
    bench_ratios_release(&ratios);
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
