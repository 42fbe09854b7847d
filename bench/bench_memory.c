/*
 * bench_memory - peak memory of a primary beyond plain SQLite's, and of a follower
 *
 * Each is a process of its own that does the same work, and its VmHWM is what the kernel counted.
 * The primary adopts the database, so its snapshot is part of the work, and then commits; one
 * commit is large.  The follower makes a replica of all that.
 */
#include "lib_replica.h"
#include "lib_workload.h"

enum { TRANSACTIONS = 20000 };
/* About 100 MiB of WAL in one transaction: entries of many blocks. */
static const char *const large_commit = "UPDATE ballast SET body = body || 'x' WHERE id <= 100000";

struct work {
    const struct bench_options *options;
    const char *path, *vfs, *replica;
};

static void primary(void *ctx, int in, int out)
{
    struct work *work = ctx;
    struct bench_load load;

    bench_load_open(&load, work->options, BENCH_KV, work->path, work->vfs, "NORMAL");
    bench_load_run(&load);
    bench_settle(load.db, work->vfs, work->path);
    for (int i = 0; i < TRANSACTIONS; i++)
        bench_load_run(&load);
    bench_exec(load.db, large_commit);
    bench_settle(load.db, work->vfs, work->path);
    bench_tell(out, bench_proc_status(0, "VmHWM"));
    bench_load_close(&load);
    (void)in;
}

static void follower(void *ctx, int in, int out)
{
    struct work *work = ctx;
    hyperwal_follower *follower = bench_follow(work->path, work->replica);

    bench_tell(out, bench_proc_status(0, "VmHWM"));
    hyperwal_follow_close(follower);
    (void)in;
}

static double peak_mib(void (*body)(void *ctx, int in, int out), struct work *work)
{
    struct bench_child child;
    uint64_t kib;

    bench_child_start(&child, body, work);
    kib = bench_hear(child.from);
    bench_child_join(&child);
    return (double)kib / 1024;
}

static void report(const struct bench_options *options, const char *role, double mib, double base,
                   double target)
{
    bench_json_begin(options);
    bench_json_text("role", role);
    bench_json_number("mib", mib - base);
    bench_json_number("target_mib", target);
    bench_json_bool("met", mib - base <= target);
    bench_json_number("ratio", (mib - base) / target);
    bench_json_number("target", 1);
    bench_json_number("peak_mib", mib);
    bench_json_number("plain_mib", base);
    bench_json_number("database_mib", (double)options->size_mib);
    bench_json_end();
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "memory", .size_mib = 256};
    struct work work = {.options = &options};
    double plain, shim;

    bench_start(&options, argc, argv);
    work.path = bench_path("plain.db");
    bench_ballast_populate(work.path, options.size_mib, options.random_values);
    bench_copy_file(work.path, bench_path("primary.db"));
    plain = peak_mib(primary, &work);
    bench_remove_database(work.path);

    work.path = bench_path("primary.db");
    work.vfs = options.vfs;
    work.replica = bench_path("replica.db");
    shim = peak_mib(primary, &work);
    report(&options, "primary", shim, plain, 16);
    if (bench_is_hyperwal(options.vfs))
        report(&options, "follower", peak_mib(follower, &work), 0, 32);
    return 0;
}
