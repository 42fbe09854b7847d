/*
 * bench_apply - how fast a follower catches up, over how fast the primary commits
 *
 * A replica is made, its follower stops, the primary commits through the VFS as fast as it can at
 * synchronous=NORMAL (its fastest) for some seconds, and a follower opens the replica again and
 * applies all of it.  The replica's state sum is checked afterwards.
 */
#include "lib_replica.h"
#include "lib_workload.h"

#include <stdio.h>

enum { ROUNDS = 3 };

struct rates { /* transactions a second, a value each round */
    struct bench_series commit, apply, ratio;
    uint64_t transactions;
};

static void run_round(struct bench_load *load, const struct bench_options *options,
                      const char *source, const char *replica, struct rates *rates)
{
    uint64_t start = bench_now_ns(), made = 0, middle, end;
    hyperwal_follower *follower;

    while (bench_now_ns() - start < (uint64_t)(options->seconds / ROUNDS * 1e9)) {
        bench_load_run(load);
        made++;
    }
    middle = bench_now_ns();
    bench_settle(load->db, options->vfs, source); /* the follower alone is measured */

    end = bench_now_ns();
    bench_series_add(&rates->commit, (double)made * 1e9 / (double)(middle - start));
    start = end;
    follower = bench_follow(source, replica);
    end = bench_now_ns();
    hyperwal_follow_close(follower);
    bench_check_replica(source, replica);
    bench_series_add(&rates->apply, (double)made * 1e9 / (double)(end - start));
    bench_series_add(&rates->ratio, rates->apply.values[rates->apply.count - 1] /
                                        rates->commit.values[rates->commit.count - 1]);
    rates->transactions += made;
}

static void run_case(const struct bench_options *options, enum bench_workload workload)
{
    const char *source = bench_path("primary.db"), *replica = bench_path("replica.db");
    struct bench_load load;
    struct rates rates = {0};

    bench_load_populate(source, workload, options->random_values);
    bench_load_open(&load, options, workload, source, options->vfs, "NORMAL");
    bench_load_run(&load);
    bench_settle(load.db, options->vfs, source);
    hyperwal_follow_close(bench_follow(source, replica));
    for (int round = 0; round < ROUNDS; round++)
        run_round(&load, options, source, replica, &rates);

    bench_json_begin(options);
    bench_json_text("workload", bench_workload_name(workload));
    bench_json_ratio(bench_series_percentile(&rates.ratio, 0.5), 3, true);
    bench_json_number("commits_per_s", bench_series_percentile(&rates.commit, 0.5));
    bench_json_number("applied_per_s", bench_series_percentile(&rates.apply, 0.5));
    bench_json_number("transactions", (double)rates.transactions);
    bench_json_number("rounds", ROUNDS);
    bench_json_end();

    bench_load_close(&load);
    bench_remove_database(source);
    bench_remove_database(replica);
    bench_series_release(&rates.commit);
    bench_series_release(&rates.apply);
    bench_series_release(&rates.ratio);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "apply", .seconds = 6};

    bench_start(&options, argc, argv);
    for (enum bench_workload workload = BENCH_KV; workload <= BENCH_ORDER; workload++) {
        if (bench_selected(&options, bench_workload_name(workload)))
            run_case(&options, workload);
    }
    return 0;
}
