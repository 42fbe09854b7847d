/*
 * bench_remote - the first query on a remote database, cold, against downloading all of it
 *
 * The database has a snapshot and a few transactions after it.  Both go through a relay, which
 * counts bytes, and in the second case delays them by 10 ms each way.  Clients are processes of
 * their own with a cache of their own; the network begins in each of them after the fork.
 */
#include "lib_relay.h"
#include "lib_workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRANSACTIONS_AFTER = 200, ONE_WAY_MS = 10, CASES = 2, ROWS_ASKED = 5 };

/* What one client measured, in nanoseconds. */
struct figures {
    uint64_t first_ns, next_ns, scan_ns; /* a query; one elsewhere; all rows */
    uint64_t download_ns;
    uint64_t first_bytes, next_bytes, scan_bytes, download_bytes; /* both directions */
};

struct test {
    const char *name;
    struct bench_relay relay;
    struct bench_child client, follower;
    uint64_t size_mib;
};

static void use_directory(const char *name)
{
    char path[512];

    (void)snprintf(path, sizeof(path), "%s", bench_path(name));
    setenv("HYPERWAL_CACHE", path, 1);
    (void)snprintf(path, sizeof(path), "%s-identity", bench_path(name));
    setenv("HYPERWAL_IDENTITY", path, 1);
    setenv("HYPERWAL_KNOWN_SERVERS", "/dev/null", 1);
}

static void ask(sqlite3 *db, uint64_t row)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql), "SELECT length(body) FROM ballast WHERE id = %llu",
                   (unsigned long long)row);
    if (bench_query_int(db, sql) <= 0)
        bench_die("the row is not there");
}

/* Between measurements it waits to be told to go on, so that bytes can be counted. */
static void client_body(void *ctx, int in, int out)
{
    struct test *test = ctx;
    uint64_t rows = test->size_mib << 10, start;
    char url[96], *error = NULL;
    sqlite3 *db = NULL;

    use_directory(test->name);
    (void)snprintf(url, sizeof(url), "hyper://127.0.0.1:%u/source.db", test->relay.port);
    (void)bench_hear(in);
    start = bench_now_ns();
    if (hyperwal_open(url, 0, &db, &error) != SQLITE_OK)
        bench_die("%s", error);
    ask(db, rows / 2);
    bench_tell(out, bench_now_ns() - start);
    (void)bench_hear(in);
    start = bench_now_ns();
    for (uint64_t i = 0; i < ROWS_ASKED; i++)
        ask(db, rows / (3 + i));
    bench_tell(out, (bench_now_ns() - start) / ROWS_ASKED);
    (void)bench_hear(in);
    start = bench_now_ns();
    (void)bench_query_int(db, "SELECT sum(length(body)) FROM ballast");
    bench_tell(out, bench_now_ns() - start);
    (void)bench_hear(in);
    sqlite3_close(db);
}

static void follower_body(void *ctx, int in, int out)
{
    struct test *test = ctx;
    char url[96], name[64];
    uint64_t start;

    (void)snprintf(name, sizeof(name), "%s-replica.db", test->name);
    use_directory(name);
    (void)snprintf(url, sizeof(url), "hyper://127.0.0.1:%u/source.db", test->relay.port);
    (void)bench_hear(in);
    start = bench_now_ns();
    hyperwal_follow_close(bench_follow(url, bench_path(name)));
    bench_tell(out, bench_now_ns() - start);
    bench_remove_database(bench_path(name));
}

static uint64_t step(struct test *test, const struct bench_child *child, uint64_t *bytes)
{
    uint64_t up, down, ns;

    bench_relay_count(&test->relay, &up, &down);
    bench_tell(child->to, 1);
    ns = bench_hear(child->from);
    bench_relay_count(&test->relay, &up, &down);
    *bytes = up + down;
    return ns;
}

static void report(const struct bench_options *options, const struct test *test,
                   const struct figures *figures)
{
    bench_json_begin(options);
    bench_json_text("case", test->name);
    bench_json_ratio((double)figures->first_bytes / (double)figures->download_bytes, 0.02, false);
    bench_json_number("time_ratio", (double)figures->first_ns / (double)figures->download_ns);
    bench_json_number("first_query_ms", (double)figures->first_ns / 1e6);
    bench_json_number("first_query_bytes", (double)figures->first_bytes);
    bench_json_number("next_query_ms", (double)figures->next_ns / 1e6);
    bench_json_number("next_query_bytes", (double)figures->next_bytes / ROWS_ASKED);
    bench_json_number("scan_ms", (double)figures->scan_ns / 1e6);
    bench_json_number("scan_bytes", (double)figures->scan_bytes);
    bench_json_number("download_ms", (double)figures->download_ns / 1e6);
    bench_json_number("download_bytes", (double)figures->download_bytes);
    bench_json_number("database_mib", (double)bench_file_size(bench_path("source.db")) / (1 << 20));
    bench_json_end();
}

static void measure(const struct bench_options *options, struct test *test, unsigned port)
{
    struct figures figures;

    bench_relay_connect(&test->relay, port);
    figures.first_ns = step(test, &test->client, &figures.first_bytes);
    figures.next_ns = step(test, &test->client, &figures.next_bytes);
    figures.scan_ns = step(test, &test->client, &figures.scan_bytes);
    bench_tell(test->client.to, 1);
    bench_child_join(&test->client);
    figures.download_ns = step(test, &test->follower, &figures.download_bytes);
    bench_child_join(&test->follower);
    report(options, test, &figures);
}

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

static unsigned serve(hyperwal_node **node, const char *path)
{
    char *bound = NULL, *error = NULL;
    unsigned port;

    if (hyperwal_node_open(bench_path("identity"), node, &error) != SQLITE_OK ||
        hyperwal_node_listen(*node, "tcp://127.0.0.1:0", &bound, &error) != SQLITE_OK ||
        hyperwal_node_serve(*node, "source.db", path, &error) != SQLITE_OK)
        bench_die("serve: %s", error != NULL ? error : "no message");
    port = (unsigned)strtoul(strrchr(bound, ':') + 1, NULL, 10);
    sqlite3_free(bound);
    return port;
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "remote", .seconds = 20, .size_mib = 1024};
    struct test tests[CASES] = {{.name = "loopback"}, {.name = "far"}};
    hyperwal_node *node = NULL;
    unsigned port;

    bench_start(&options, argc, argv);
    for (int i = 0; i < CASES; i++) {
        tests[i].size_mib = options.size_mib;
        bench_relay_prepare_far(&tests[i].relay, i == 0 ? 0 : ONE_WAY_MS);
        bench_child_start(&tests[i].client, client_body, &tests[i]);
        bench_child_start(&tests[i].follower, follower_body, &tests[i]);
    }
    make_source(&options, bench_path("source.db"));
    port = serve(&node, bench_path("source.db"));
    for (int i = 0; i < CASES; i++)
        measure(&options, &tests[i], port);
    for (int i = CASES - 1; i >= 0; i--) /* those made later have the pipes of those before */
        bench_relay_stop(&tests[i].relay);
    hyperwal_node_close(node);
    return 0;
}
