/*
 * bench_bytes - log bytes for each byte that SQLite writes to its WAL
 *
 * Paced at 200 commits a second, where every commit may be a batch of its own, and unpaced.  WAL
 * bytes are the frames that the WAL hook counts, 24 bytes of header and a page each.  `ratio` is
 * the log's growth in transactions; snapshots (policy, not cost of a commit) and the growth of the
 * files are told beside it.
 */
#include "lib_workload.h"

#include <stdio.h>
#include <string.h>

enum { COMMITS_PER_SECOND = 200 };

struct log_count {
    uint64_t entries, transactions, transaction_bytes, other_bytes, raw_bytes;
};

/* Sort the log's bytes from block `from` on. */
static struct log_count count_log(hyperwal_log *log, uint64_t from)
{
    struct log_count count = {0};
    hyperwal_entry entry;
    int code;

    for (uint64_t seq = from; (code = hyperwal_log_next(log, &seq, &entry)) == SQLITE_OK;) {
        count.entries++;
        if (strcmp(entry.type, "transaction") == 0) {
            count.transactions++;
            count.transaction_bytes += entry.bytes;
            count.raw_bytes += entry.raw_bytes;
        } else {
            count.other_bytes += entry.bytes;
        }
    }
    if (code != SQLITE_DONE)
        bench_die("read the log: %s", hyperwal_log_errmsg(log));
    return count;
}

static hyperwal_head head_of(hyperwal_log *log)
{
    hyperwal_head head;

    if (hyperwal_log_head(log, &head) != SQLITE_OK)
        bench_die("hyperwal_log_head: %s", hyperwal_log_errmsg(log));
    return head;
}

static uint64_t run_transactions(struct bench_load *load, double seconds, bool paced)
{
    uint64_t start = bench_now_ns(), end = start + (uint64_t)(seconds * 1e9), made = 0;

    while (bench_now_ns() < end) {
        bench_load_run(load);
        made++;
        if (paced)
            bench_sleep_until(start + made * (1000000000U / COMMITS_PER_SECOND));
    }
    return made;
}

static void report(const struct bench_options *options, enum bench_workload workload, bool paced,
                   uint64_t commits, uint64_t wal_bytes, const struct log_count *log,
                   uint64_t stored)
{
    bench_json_begin(options);
    bench_json_text("workload", bench_workload_name(workload));
    bench_json_text("pace", paced ? "200/s" : "none");
    bench_json_ratio((double)log->transaction_bytes / (double)wal_bytes, 0.025, false);
    bench_json_number("commits", (double)commits);
    bench_json_number("wal_bytes", (double)wal_bytes);
    bench_json_number("log_bytes", (double)log->transaction_bytes);
    bench_json_number("log_bytes_a_commit", (double)log->transaction_bytes / (double)commits);
    bench_json_number("page_bytes", (double)log->raw_bytes);
    bench_json_number("transactions", (double)log->transactions);
    bench_json_number("snapshot_bytes", (double)log->other_bytes);
    bench_json_number("stored_bytes", (double)stored);
    bench_json_bool("random_values", options->random_values);
    bench_json_end();
}

static void run_case(const struct bench_options *options, enum bench_workload workload, bool paced,
                     const char *original)
{
    const char *path = bench_path("bytes.db");
    struct bench_wal_count wal;
    struct log_count log_count;
    struct bench_load load;
    hyperwal_log *log;
    hyperwal_head before, after;
    char *error = NULL;
    uint64_t commits;

    bench_copy_file(original, path);
    bench_load_open(&load, options, workload, path, options->vfs, "NORMAL");
    bench_load_run(&load);
    bench_settle(load.db, options->vfs, path);
    if (hyperwal_log_open(path, &log, &error) != SQLITE_OK)
        bench_die("hyperwal_log_open: %s", error != NULL ? error : "no message");
    bench_wal_count(load.db, &wal);
    bench_load_run(&load); /* the count begins after this one's frames */
    bench_settle(load.db, options->vfs, path);
    wal.frames = 0;
    before = head_of(log);

    commits = run_transactions(&load, options->seconds, paced);
    bench_settle(load.db, options->vfs, path);
    after = head_of(log);
    log_count = count_log(log, before.length);
    if (log_count.transactions != commits)
        bench_die("%llu commits, but %llu transactions in the log", (unsigned long long)commits,
                  (unsigned long long)log_count.transactions);
    report(options, workload, paced, commits, bench_wal_bytes(&wal), &log_count,
           after.stored_bytes - before.stored_bytes);
    hyperwal_log_close(log);
    bench_load_close(&load);
    bench_remove_database(path);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "bytes", .seconds = 6};

    bench_start(&options, argc, argv);
    for (enum bench_workload workload = BENCH_KV; workload <= BENCH_ORDER; workload++) {
        const char *original = bench_path("original.db");

        if (!bench_selected(&options, bench_workload_name(workload)))
            continue;
        bench_load_populate(original, workload, options.random_values);
        run_case(&options, workload, true, original);
        run_case(&options, workload, false, original);
        bench_remove_database(original);
    }
    return 0;
}
