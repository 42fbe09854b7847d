/*
 * bench_visible - from the return of a commit to the follower that sees it
 *
 * A primary commits at a steady pace; a follower in a process of its own applies, and after each
 * step asks the replica, through stock SQLite, how far it has come.  Both note the time in shared
 * memory.  What fdatasync takes is the disk's business: of each commit's latency the time is taken
 * off that the log's writer spent inside of fdatasync meanwhile, as measured around each of its
 * calls.  `ratio` is the median of what is left, in milliseconds; `fdatasync_us` the median call.
 */
#include "lib_replica.h"
#include "lib_syncs.h"
#include "lib_workload.h"

#include <stdatomic.h>
#include <sys/mman.h>

enum { COMMITS_PER_SECOND = 100, COMMITS_MAX = 100000 };

struct shared {
    _Atomic uint64_t committed_ns[COMMITS_MAX + 1]; /* by row id, from 1 */
    _Atomic uint64_t visible_ns[COMMITS_MAX + 1];
    uint64_t count; /* rows that will come */
    const struct bench_options *options;
    const char *path, *replica;
};

/* -------------------------------------------------------------------------- both sides */

static void follower(void *ctx, int in, int out)
{
    static const char *const sql = "SELECT max(id) FROM tick";
    struct shared *shared = ctx;
    hyperwal_follower *follower;
    sqlite3_stmt *newest;
    sqlite3 *db;
    uint64_t seen = 0;

    (void)bench_hear(in); /* the log is there */
    follower = bench_follow(shared->path, shared->replica);
    if (sqlite3_open_v2(shared->replica, &db, SQLITE_OPEN_READONLY, "unix") != SQLITE_OK ||
        sqlite3_prepare_v2(db, sql, -1, &newest, NULL) != SQLITE_OK)
        bench_die("replica: %s", sqlite3_errmsg(db));
    bench_tell(out, 0);
    while (seen < shared->count) {
        int code = hyperwal_follow_step(follower, 1000);
        uint64_t id, now;

        if (code != SQLITE_OK && code != SQLITE_DONE)
            bench_die("hyperwal_follow_step: %s", hyperwal_follow_errmsg(follower));
        if (sqlite3_step(newest) != SQLITE_ROW)
            bench_die("replica: %s", sqlite3_errmsg(db));
        id = (uint64_t)sqlite3_column_int64(newest, 0);
        sqlite3_reset(newest);
        now = bench_now_ns();
        while (seen < id)
            shared->visible_ns[++seen] = now;
    }
    sqlite3_finalize(newest);
    sqlite3_close(db);
    hyperwal_follow_close(follower);
    bench_tell(out, 0);
}

static void commit_at_pace(sqlite3 *db, struct shared *shared)
{
    uint64_t start = bench_now_ns();

    for (uint64_t id = 1; id <= shared->count; id++) {
        bench_exec(db, "INSERT INTO tick(body) VALUES('a row of some words, as they are')");
        shared->committed_ns[id] = bench_now_ns();
        bench_sleep_until(start + id * (1000000000U / COMMITS_PER_SECOND));
    }
}

static void run_case(struct shared *shared, bool full)
{
    const struct bench_options *options = shared->options;
    struct bench_series raw = {0}, latencies = {0}, each_sync = {0};
    struct bench_child child;
    double p99;
    sqlite3 *db;

    bench_child_start(&child, follower, shared);
    db = bench_open(shared->path, options->vfs, full ? "FULL" : "NORMAL");
    bench_exec(db, "CREATE TABLE tick(id INTEGER PRIMARY KEY, body)");
    bench_settle(db, options->vfs, shared->path);
    bench_tell(child.to, 0);
    (void)bench_hear(child.from);
    bench_syncs_forget();
    commit_at_pace(db, shared);
    (void)bench_hear(child.from);
    bench_child_join(&child);
    sqlite3_close(db);

    for (uint64_t id = 1; id <= shared->count; id++) {
        uint64_t from = shared->committed_ns[id], to = shared->visible_ns[id];

        to = to < from ? from : to; /* seen before the commit returned: 0 */
        bench_series_add(&raw, (double)(to - from) / 1e6);
        bench_series_add(&latencies, (double)(to - from - bench_syncs_within(from, to)) / 1e6);
    }
    bench_syncs_list(&each_sync);
    p99 = bench_series_percentile(&latencies, 0.99);
    bench_json_begin(options);
    bench_json_text("synchronous", full ? "FULL" : "NORMAL");
    bench_json_ratio(bench_series_percentile(&latencies, 0.5), 1, false);
    bench_json_number("p99_ms", p99);
    bench_json_number("p99_target_ms", 5);
    bench_json_bool("p99_met", p99 <= 5);
    bench_json_number("raw_p50_ms", bench_series_percentile(&raw, 0.5));
    bench_json_number("raw_p99_ms", bench_series_percentile(&raw, 0.99));
    bench_json_number("raw_max_ms", bench_series_percentile(&raw, 1));
    bench_json_number("commits", (double)latencies.count);
    bench_json_number("fdatasync_us", bench_series_percentile(&each_sync, 0.5));
    bench_json_number("fdatasync_p99_us", bench_series_percentile(&each_sync, 0.99));
    bench_json_end();
    bench_series_release(&raw);
    bench_series_release(&latencies);
    bench_series_release(&each_sync);
    bench_remove_database(shared->path);
    bench_remove_database(shared->replica);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "visible", .seconds = 6};
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        bench_die("no memory");
    bench_start(&options, argc, argv);
    bench_syncs_time();         /* before the library starts a thread */
    shared->options = &options; /* the child has the same addresses */
    shared->path = bench_path("primary.db");
    shared->replica = bench_path("replica.db");
    shared->count = (uint64_t)(options.seconds * COMMITS_PER_SECOND);
    if (shared->count > COMMITS_MAX)
        bench_die("--seconds: at most %d", COMMITS_MAX / COMMITS_PER_SECOND);
    run_case(shared, true);
    run_case(shared, false);
    return 0;
}
