/*
 * bench_open_cost - what a commit costs in a large database, over a small one
 *
 * Both hold the same table of 100,000 keys, which the commits update; the rest of the large one is
 * ballast.  So plain SQLite's cost is the same in both (`plain_ratio` is the control), and what is
 * above it would be ours.  Rounds alternate.
 */
#include "lib_rounds.h"

enum { SMALL_MIB = 88 }; /* of ballast: 100 MiB with the table */

static double compare(const struct bench_options *options, const char *const paths[2],
                      const char *vfs, struct bench_ratios *ratios, double adopt_s[2])
{
    struct bench_side sides[2];

    for (int i = 0; i < 2; i++) {
        uint64_t start = bench_now_ns();

        bench_side_open(&sides[i], options, BENCH_KV, paths[i], vfs, "NORMAL");
        adopt_s[i] = (double)(bench_now_ns() - start) / 1e9;
    }
    bench_compare(sides, options, ratios);
    for (int i = 0; i < 2; i++)
        bench_side_close(&sides[i], true);
    return bench_series_percentile(&ratios->time, 0.5);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "open_cost", .seconds = 8, .size_mib = 2048};
    struct bench_ratios plain = {0}, shim = {0};
    double plain_ratio, ratio, adopt_s[2];
    const char *paths[2];

    bench_start(&options, argc, argv);
    paths[0] = bench_path("small.db");
    paths[1] = bench_path("large.db");
    bench_ballast_populate(paths[0], SMALL_MIB, options.random_values);
    bench_ballast_populate(paths[1], options.size_mib, options.random_values);
    plain_ratio = compare(&options, paths, NULL, &plain, adopt_s);
    ratio = compare(&options, paths, options.vfs, &shim, adopt_s);

    bench_json_begin(&options);
    bench_json_ratio(ratio, 1.05, false);
    bench_json_number("plain_ratio", plain_ratio);
    bench_json_number("p50_ratio", bench_series_percentile(&shim.p50, 0.5));
    bench_json_number("p99_ratio", bench_series_percentile(&shim.p99, 0.5));
    bench_json_number("ratio_drained", bench_series_percentile(&shim.drained, 0.5));
    bench_json_number("large_mib", (double)bench_file_size(paths[1]) / (1 << 20));
    bench_json_number("small_mib", (double)bench_file_size(paths[0]) / (1 << 20));
    bench_json_number("adopt_large_s", adopt_s[1]);
    bench_json_number("adopt_small_s", adopt_s[0]);
    bench_json_number("pairs", (double)shim.time.count);
    bench_json_end();
    bench_ratios_release(&plain);
    bench_ratios_release(&shim);
    return 0;
}
