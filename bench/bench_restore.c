/*
 * bench_restore - a restore from a snapshot, against `cp` and fsync of the same database file
 *
 * The log has a snapshot and a few transactions after it.  Rounds alternate; sources are in the
 * page cache for both, the results are synced by both.
 */
#include "lib_workload.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TRANSACTIONS_AFTER = 200, ROUNDS_MIN = 3, ROUNDS_MAX = 15 };

extern char **environ;

static double copy_round(const char *from, const char *to) /* seconds */
{
    uint64_t start = bench_now_ns();
    const char *const command[] = {"cp", from, to, NULL};
    char *arguments[4];
    int status, file;
    pid_t pid;
    double seconds;

    memcpy(arguments, command, sizeof(command)); /* posix_spawn's type lacks a const */
    if (posix_spawnp(&pid, "cp", NULL, NULL, arguments, environ) != 0)
        bench_die("cp cannot be run");
    if (waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("cp '%s' '%s' failed", from, to);
    file = open(to, O_RDWR | O_CLOEXEC);
    if (file < 0 || fsync(file) != 0)
        bench_die("sync '%s': %s", to, strerror(errno));
    close(file);
    seconds = (double)(bench_now_ns() - start) / 1e9;
    unlink(to);
    return seconds;
}

static double restore_round(const char *source, const char *to, bool keep) /* seconds */
{
    uint64_t start = bench_now_ns();
    hyperwal_target head = {0};
    hyperwal_entry reached;
    hyperwal_log *log;
    char *error = NULL;
    double seconds;

    if (hyperwal_log_open(source, &log, &error) != SQLITE_OK)
        bench_die("hyperwal_log_open: %s", error != NULL ? error : "no message");
    if (hyperwal_restore(log, &head, to, 0, NULL, NULL, &reached) != SQLITE_OK)
        bench_die("hyperwal_restore: %s", hyperwal_log_errmsg(log));
    seconds = (double)(bench_now_ns() - start) / 1e9;
    hyperwal_log_close(log);
    if (!keep)
        bench_remove_database(to);
    return seconds;
}

/* A database of options->size_mib, with a log that holds a snapshot and some transactions. */
static void make_source(const struct bench_options *options, const char *path)
{
    struct bench_load load;
    uint64_t seq;

    bench_ballast_populate(path, options->size_mib, options->random_values);
    bench_load_open(&load, options, BENCH_KV, path, options->vfs, "NORMAL");
    bench_load_run(&load);
    bench_settle(load.db, options->vfs, path);
    if (hyperwal_snapshot(load.db, "main", &seq) != SQLITE_OK)
        bench_die("hyperwal_snapshot: %s", sqlite3_errmsg(load.db));
    for (int i = 0; i < TRANSACTIONS_AFTER; i++)
        bench_load_run(&load);
    bench_load_close(&load); /* everything is in the database file and in the log */
}

/* The restored database must hold what the source holds. */
static void check_restored(const char *source, const char *restored)
{
    static const char *const sql = "SELECT sum(k * length(v)) + count(*) FROM kv";
    sqlite3 *a = bench_open(source, NULL, "NORMAL"), *b = bench_open(restored, NULL, "NORMAL");

    if (bench_query_int(a, sql) != bench_query_int(b, sql))
        bench_die("the restored database differs from the source");
    sqlite3_close(a);
    sqlite3_close(b);
    bench_remove_database(restored);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "restore", .seconds = 20, .size_mib = 256};
    struct bench_series copies = {0}, restores = {0}, ratios = {0};
    const char *source, *copy, *restored;
    double size_mib;
    uint64_t end;

    bench_start(&options, argc, argv);
    source = bench_path("source.db");
    copy = bench_path("copy.db");
    restored = bench_path("restored.db");
    make_source(&options, source);
    size_mib = (double)bench_file_size(source) / (1 << 20);
    (void)restore_round(source, restored, true); /* warms the cache up */
    check_restored(source, restored);

    end = bench_now_ns() + (uint64_t)(options.seconds * 1e9);
    while (ratios.count < ROUNDS_MIN || (bench_now_ns() < end && ratios.count < ROUNDS_MAX)) {
        double copy_s = copy_round(source, copy);
        double restore_s = restore_round(source, restored, false);

        bench_series_add(&copies, copy_s);
        bench_series_add(&restores, restore_s);
        bench_series_add(&ratios, copy_s / restore_s);
    }
    bench_json_begin(&options);
    bench_json_ratio(bench_series_percentile(&ratios, 0.5), 0.5, true);
    bench_json_number("restore_mib_per_s", size_mib / bench_series_percentile(&restores, 0.5));
    bench_json_number("copy_mib_per_s", size_mib / bench_series_percentile(&copies, 0.5));
    bench_json_number("database_mib", size_mib);
    bench_json_number("rounds", (double)ratios.count);
    bench_json_bool("random_values", options.random_values);
    bench_json_end();
    return 0;
}
