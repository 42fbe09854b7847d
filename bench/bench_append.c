/*
 * bench_append - small entries into the log in batches of 64, against Node's hypercore
 *
 * Rounds alternate.  Each of our batches is signed, written and synced with fdatasync before the
 * next, and `ratio` is that; Node's storage writes without a sync (strace: none a batch), so
 * `ratio_unsynced` is the like for like: the same code with an fdatasync that does nothing.
 * `memory_per_s` is our log without files.  Without Node or its package (bench/run installs it into
 * the build folder) the line says "skipped".
 */
#include "lib.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hypercore/hypercore.h"

enum { BATCH_ENTRIES = 64, ENTRY_SIZE = 100, ROUND_BATCHES = 200, ROUNDS_MIN = 5 };

struct node { /* the other side, in a process of its own */
    pid_t pid;
    FILE *to, *from;
};

static bool node_is_there(void)
{
    return access(HW_BENCH_NODE_DIR "/node_modules/hypercore/package.json", R_OK) == 0 &&
           system("node --version >/dev/null 2>&1") == 0;
}

static void node_start(struct node *node, const char *dir)
{
    int down[2], up[2];

    if (pipe(down) != 0 || pipe(up) != 0)
        bench_die("pipe: %s", strerror(errno));
    node->pid = fork();
    if (node->pid < 0)
        bench_die("fork: %s", strerror(errno));
    if (node->pid == 0) {
        dup2(down[0], STDIN_FILENO);
        dup2(up[1], STDOUT_FILENO);
        close(down[1]);
        close(up[0]);
        setenv("NODE_PATH", HW_BENCH_NODE_DIR "/node_modules", 1);
        execlp("node", "node", HW_BENCH_SOURCE_DIR "/node/append.js", dir, (char *)NULL);
        _exit(127);
    }
    close(down[0]);
    close(up[1]);
    node->to = fdopen(down[1], "w");
    node->from = fdopen(up[0], "r");
    if (node->to == NULL || node->from == NULL)
        bench_die("no memory");
}

static void node_stop(struct node *node)
{
    fclose(node->to); /* the end of its input is the end of its work */
    waitpid(node->pid, NULL, 0);
    fclose(node->from);
}

static double node_round(struct node *node) /* seconds */
{
    char line[64];

    fprintf(node->to, "%d %d %d\n", ROUND_BATCHES, BATCH_ENTRIES, ENTRY_SIZE);
    fflush(node->to);
    if (fgets(line, sizeof(line), node->from) == NULL)
        bench_die("node: no answer");
    return strtod(line, NULL) / 1e9;
}

static void must(enum hw_status status, const struct hw_error *err)
{
    if (status != HW_OK)
        bench_die("append: %s", err->message);
}

static double core_round(struct hw_core *core) /* seconds */
{
    static uint8_t blocks[BATCH_ENTRIES][ENTRY_SIZE];
    struct hw_error err;
    uint64_t start;

    hw_env_posix()->ops->random(hw_env_posix(), blocks, sizeof(blocks));
    start = bench_now_ns();
    for (int batch = 0; batch < ROUND_BATCHES; batch++) {
        must(hw_core_batch_begin(core, &err), &err);
        for (int i = 0; i < BATCH_ENTRIES; i++)
            must(hw_core_batch_add(core, blocks[i], ENTRY_SIZE, &err), &err);
        must(hw_core_batch_commit(core, NULL, 0, &err), &err);
    }
    return (double)(bench_now_ns() - start) / 1e9;
}

static enum hw_status sync_nothing(struct hw_file *file, struct hw_error *err)
{
    (void)file;
    (void)err;
    return HW_OK;
}

/* A round in which the system's fdatasync does nothing. */
static double unsynced_round(struct hw_core *core) /* seconds */
{
    struct hw_env *env = hw_env_posix();
    const struct hw_env_ops *original = env->ops;
    struct hw_env_ops ops = *original;
    double seconds;

    ops.sync = sync_nothing;
    env->ops = &ops;
    seconds = core_round(core);
    env->ops = original;
    return seconds;
}

struct rounds { /* seconds of each */
    struct bench_series synced, unsynced, memory, node, ratio, ratio_unsynced;
};

static void report(const struct bench_options *options, struct rounds *rounds, double fdatasync_us)
{
    const double entries = (double)ROUND_BATCHES * BATCH_ENTRIES;

    bench_json_begin(options);
    if (rounds->node.count > 0) {
        bench_json_ratio(bench_series_percentile(&rounds->ratio, 0.5), 8, true);
        bench_json_number("ratio_unsynced", bench_series_percentile(&rounds->ratio_unsynced, 0.5));
        bench_json_number("node_per_s", entries / bench_series_percentile(&rounds->node, 0.5));
    } else {
        bench_json_text("skipped", "node or its hypercore package is not here");
    }
    bench_json_number("entries_per_s", entries / bench_series_percentile(&rounds->synced, 0.5));
    bench_json_number("unsynced_per_s", entries / bench_series_percentile(&rounds->unsynced, 0.5));
    bench_json_number("memory_per_s", entries / bench_series_percentile(&rounds->memory, 0.5));
    bench_json_number("entry_bytes", ENTRY_SIZE);
    bench_json_number("batch", BATCH_ENTRIES);
    bench_json_number("rounds", (double)rounds->synced.count);
    bench_json_number("fdatasync_us", fdatasync_us);
    bench_json_end();
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "append", .seconds = 10};
    struct hw_core *file_core, *memory_core;
    struct rounds rounds = {0};
    struct hw_error err;
    struct node node;
    double fdatasync_us;
    uint64_t end;
    bool with_node = node_is_there();

    bench_start(&options, argc, argv);
    fdatasync_us = bench_fdatasync_us();
    signal(SIGPIPE, SIG_IGN); /* a node that dies is told by its missing answer */
    must(hw_core_create(hw_env_posix(), bench_path("core"), &file_core, &err), &err);
    must(hw_core_create(hw_env_posix(), NULL, &memory_core, &err), &err);
    if (with_node) {
        node_start(&node, bench_path("node"));
        (void)node_round(&node); /* its compiler warms up */
    }
    (void)core_round(file_core);

    end = bench_now_ns() + (uint64_t)(options.seconds * 1e9);
    while (bench_now_ns() < end || rounds.synced.count < ROUNDS_MIN) {
        double synced = core_round(file_core), unsynced = unsynced_round(file_core), theirs;

        bench_series_add(&rounds.synced, synced);
        bench_series_add(&rounds.unsynced, unsynced);
        if (rounds.synced.count <= ROUNDS_MIN)
            bench_series_add(&rounds.memory, core_round(memory_core)); /* few: it only grows */
        if (!with_node)
            continue;
        theirs = node_round(&node);
        bench_series_add(&rounds.node, theirs);
        bench_series_add(&rounds.ratio, theirs / synced);
        bench_series_add(&rounds.ratio_unsynced, theirs / unsynced);
    }
    report(&options, &rounds, fdatasync_us);
    if (with_node)
        node_stop(&node);
    hw_core_close(file_core);
    hw_core_close(memory_core);
    return 0;
}
