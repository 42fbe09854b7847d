/*
 * bench_daemon - `hyperwal serve` with five hundred databases that nobody writes
 *
 * Case `vfs`: no program without the VFS has written to them since the server looks.  Case
 * `sidecar`: one has, to each of them.  Descriptors and memory are those of the process, less what
 * it has with one database; wake-ups and CPU time are of all its threads, over some seconds.
 * `ratio` is descriptors a database.
 */
#include "lib.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DATABASES = 500, WAIT_S = 120 };

struct server {
    pid_t pid;
    FILE *lines;
    double start_s;
};

struct cost {
    double descriptors, memory_kib, threads, switches, ticks;
};

static double seconds(void)
{
    return (double)bench_now_ns() / 1e9;
}

static void run(const char *path, const char *sql)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix") !=
            SQLITE_OK ||
        sqlite3_busy_timeout(db, 10000) != SQLITE_OK ||
        sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        bench_die("%s: %s", path, sqlite3_errmsg(db));
    sqlite3_close(db);
}

static void run_all(const char *dir, int count, const char *sql)
{
    for (int i = 0; i < count; i++) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%03d.db", dir, i);
        run(path, sql);
    }
}

/* ------------------------------------------------------------------------------ the server */

static void line_wait(struct server *server, const char *start)
{
    char line[1024];

    while (fgets(line, sizeof(line), server->lines) != NULL)
        if (strncmp(line, start, strlen(start)) == 0)
            return;
    bench_die("the server ended, or says no line that begins with %s", start);
}

static struct server server_start(const char *dir)
{
    char command[2048];
    struct server server = {0};
    double begin = seconds();
    int out[2];

    snprintf(command, sizeof(command), "%s.conf", dir);
    FILE *conf = fopen(command, "we");
    if (conf == NULL || pipe(out) != 0)
        bench_die("%s: %s", command, strerror(errno));
    fprintf(conf, "directory = %s\nrest-after = 1\n", dir);
    fclose(conf);
    server.pid = fork();
    if (server.pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        execl(HW_BENCH_PROGRAM, "hyperwal", "serve", "--config", command, (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    server.lines = fdopen(out[0], "r");
    line_wait(&server, "ready\n");
    server.start_s = seconds() - begin;
    return server;
}

static double server_end(struct server *server)
{
    double begin = seconds();
    int status;

    kill(server->pid, SIGTERM);
    if (waitpid(server->pid, &status, 0) != server->pid || status != 0)
        bench_die("the server ended with %d", status);
    fclose(server->lines);
    return seconds() - begin;
}

static double count_in(pid_t pid, const char *what)
{
    char path[64];
    double count = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    dir = opendir(path);
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count - 2; /* . and .. */
}

static double number_in(pid_t pid, const char *file, const char *key)
{
    char path[64], line[256];
    double number = 0;
    FILE *text;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
    text = fopen(path, "re");
    while (text != NULL && fgets(line, sizeof(line), text) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            number += strtod(line + strlen(key), NULL);
    if (text != NULL)
        fclose(text);
    return number;
}

/* At rest it has one thread, whose figures are those of the process. */
static struct cost cost_of(pid_t pid)
{
    struct cost cost = {
        .descriptors = count_in(pid, "fd"),
        .threads = count_in(pid, "task"),
        .memory_kib = number_in(pid, "smaps_rollup", "Anonymous:"),
        .switches = number_in(pid, "status", "voluntary_ctxt_switches:") +
                    number_in(pid, "status", "nonvoluntary_ctxt_switches:"),
    };
    char path[64];
    unsigned long long user = 0, system = 0;
    FILE *stat;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    stat = fopen(path, "re");
    if (stat == NULL ||
        fscanf(stat, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
               &system) != 2)
        bench_die("%s: cannot read it", path);
    fclose(stat);
    cost.ticks = (double)(user + system);
    return cost;
}

/* Until nothing is awake any more: one thread, and no descriptor closed for a second. */
static struct cost rest_wait(const struct server *server)
{
    double end = seconds() + WAIT_S, since = seconds();
    struct cost last = cost_of(server->pid);

    while (seconds() < since + 1.5 || last.threads > 1) {
        struct cost now;

        bench_sleep_until(bench_now_ns() + 100000000U);
        now = cost_of(server->pid);
        if (now.descriptors != last.descriptors || now.threads != last.threads)
            since = seconds();
        last = now;
        if (seconds() > end)
            bench_die("the server did not come to rest: %.0f descriptors, %.0f threads",
                      last.descriptors, last.threads);
    }
    return last;
}

/* ------------------------------------------------------------------------------- the cases */

static struct cost rest_of_one(void)
{
    const char *dir = bench_path("one");
    struct server server;
    struct cost cost;

    if (mkdir(dir, 0777) != 0)
        bench_die("%s: %s", dir, strerror(errno));
    run_all(dir, 1, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    server = server_start(dir);
    cost = rest_wait(&server);
    (void)server_end(&server);
    return cost;
}

static double new_database_s(struct server *server, const char *dir)
{
    char path[512];
    double begin;

    snprintf(path, sizeof(path), "%s/new.db", dir);
    begin = seconds();
    run(path, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
    line_wait(server, "new.db ");
    return seconds() - begin;
}

static void report(const struct bench_options *options, const char *name,
                   const struct server *server, const struct cost *one, double target)
{
    struct cost before = rest_wait(server), after;

    bench_sleep_until(bench_now_ns() + (uint64_t)(options->seconds * 1e9));
    after = cost_of(server->pid);
    bench_json_begin(options);
    bench_json_text("case", name);
    bench_json_ratio((after.descriptors - one->descriptors) / (DATABASES - 1), target, false);
    bench_json_number("databases", DATABASES);
    bench_json_number("kib_per_database", (after.memory_kib - one->memory_kib) / (DATABASES - 1));
    bench_json_number("threads", after.threads);
    bench_json_number("wakeups_per_s", (after.switches - before.switches) / options->seconds);
    bench_json_number("cpu_percent", 100 * (after.ticks - before.ticks) /
                                         (double)sysconf(_SC_CLK_TCK) / options->seconds);
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "daemon", .seconds = 5};
    struct server server;
    struct cost one;
    const char *dir;

    bench_start(&options, argc, argv);
    one = rest_of_one();
    dir = bench_path("many");
    if (mkdir(dir, 0777) != 0)
        bench_die("%s: %s", dir, strerror(errno));
    run_all(dir, DATABASES, "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    server = server_start(dir);
    report(&options, "vfs", &server, &one, 3);
    bench_json_number("first_start_s", server.start_s);
    bench_json_number("new_database_ms", 1000 * new_database_s(&server, dir));
    bench_json_number("end_s", server_end(&server));
    bench_remove_database(bench_path("many/new.db"));
    server = server_start(dir);
    bench_json_number("start_s", server.start_s);
    bench_json_end();
    run_all(dir, DATABASES, "INSERT INTO t VALUES(2)");
    report(&options, "sidecar", &server, &one, 9);
    bench_json_number("end_s", server_end(&server));
    bench_json_end();
    return 0;
}
