/*
 * bench_idle - wake-ups and CPU time of a primary and a follower that have nothing to do
 *
 * Context switches and CPU time of all threads of each process, over some seconds, as the kernel
 * counts them.  `ratio` is wake-ups a second.
 */
#include "lib_replica.h"
#include "lib_workload.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TRANSACTIONS = 100, CALM_MS = 1500 };

struct work {
    const struct bench_options *options;
    const char *path, *replica;
};

struct activity {
    uint64_t switches, ticks;
    unsigned threads;
};

static void primary(void *ctx, int in, int out)
{
    struct work *work = ctx;
    struct bench_load load;
    char byte;

    bench_load_open(&load, work->options, BENCH_KV, work->path, work->options->vfs, "NORMAL");
    for (int i = 0; i < TRANSACTIONS; i++)
        bench_load_run(&load);
    bench_settle(load.db, work->options->vfs, work->path);
    bench_tell(out, 0);
    (void)!read(in, &byte, 1); /* until the parent closes it */
    bench_load_close(&load);
}

static void *step_for_ever(void *ctx)
{
    hyperwal_follower *follower = ctx;
    int code;

    do
        code = hyperwal_follow_step(follower, 3600000);
    while (code == SQLITE_OK || code == SQLITE_DONE);
    if (code != SQLITE_INTERRUPT)
        bench_die("hyperwal_follow_step: %s", hyperwal_follow_errmsg(follower));
    return NULL;
}

static void follow(void *ctx, int in, int out)
{
    struct work *work = ctx;
    hyperwal_follower *follower = bench_follow(work->path, work->replica);
    pthread_t thread;
    char byte;

    if (pthread_create(&thread, NULL, step_for_ever, follower) != 0)
        bench_die("no thread");
    bench_tell(out, 0);
    (void)!read(in, &byte, 1);
    hyperwal_follow_interrupt(follower);
    pthread_join(thread, NULL);
    hyperwal_follow_close(follower);
}

static void add_thread(const char *task, struct activity *sum)
{
    char path[400], line[256];
    unsigned long long value, user, system;
    FILE *file;

    snprintf(path, sizeof(path), "%s/status", task);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "voluntary_ctxt_switches: %llu", &value) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %llu", &value) == 1)
            sum->switches += value;
    }
    if (file != NULL)
        fclose(file);
    snprintf(path, sizeof(path), "%s/stat", task);
    file = fopen(path, "re");
    if (file != NULL && fscanf(file,
                               "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u"
                               " %llu %llu",
                               &user, &system) == 2)
        sum->ticks += user + system;
    if (file != NULL)
        fclose(file);
    sum->threads++;
}

static struct activity activity_of(int pid)
{
    struct activity sum = {0};
    struct dirent *entry;
    char path[64], task[sizeof(path) + 256];
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    if (dir == NULL)
        bench_die("open '%s': %s", path, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(task, sizeof(task), "%s/%s", path, entry->d_name);
        add_thread(task, &sum);
    }
    closedir(dir);
    return sum;
}

static void report(const struct bench_options *options, const char *role,
                   const struct activity *before, const struct activity *after)
{
    double wakeups = (double)(after->switches - before->switches) / options->seconds;
    double cpu = (double)(after->ticks - before->ticks) / (double)sysconf(_SC_CLK_TCK);

    bench_json_begin(options);
    bench_json_text("role", role);
    bench_json_ratio(wakeups, 0, false);
    bench_json_number("wakeups_per_s", wakeups);
    bench_json_number("cpu_percent", 100 * cpu / options->seconds);
    bench_json_number("threads", after->threads);
    bench_json_number("seconds", options->seconds);
    bench_json_end();
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "idle", .seconds = 6};
    struct bench_child children[2];
    struct activity before[2], after[2];
    struct work work = {.options = &options};
    int count;

    bench_start(&options, argc, argv);
    work.path = bench_path("primary.db");
    work.replica = bench_path("replica.db");
    count = bench_is_hyperwal(options.vfs) ? 2 : 1;
    bench_load_populate(work.path, BENCH_KV, options.random_values);
    for (int i = 0; i < count; i++) {
        bench_child_start(&children[i], i == 0 ? primary : follow, &work);
        (void)bench_hear(children[i].from);
    }
    bench_sleep_until(bench_now_ns() + CALM_MS * 1000000U);
    for (int i = 0; i < count; i++)
        before[i] = activity_of(children[i].pid);
    bench_sleep_until(bench_now_ns() + (uint64_t)(options.seconds * 1e9));
    for (int i = 0; i < count; i++)
        after[i] = activity_of(children[i].pid);
    for (int i = 0; i < count; i++)
        report(&options, i == 0 ? "primary" : "follower", &before[i], &after[i]);
    for (int i = count - 1; i >= 0; i--)
        bench_child_join(&children[i]);
    return 0;
}
