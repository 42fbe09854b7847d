/*
 * bench_write - commits to a remote database, against the round trip and against local durable ones
 *
 * A client writes through a relay that delays each way; the lease is sticky, so that a commit costs
 * one round trip, what the server's log takes to be durable, and the client's own WAL.  `ratio` of
 * the cases with a delay is (median commit - median commit without delay) over the round trip: how
 * many round trips a commit takes.  Of the one without it is the median commit over that of a local
 * connection with durability=local, which waits for the same log.
 */
#include "lib_relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CASES = 3, COMMITS_MAX = 2000, WARM = 20 };

static const struct {
    const char *name;
    unsigned one_way_ms;
} cases[CASES] = {{"near", 0}, {"metro", 1}, {"far", 10}};

struct test {
    unsigned index;
    double seconds;
    struct bench_relay relay;
    struct bench_child client;
};

static void commit_once(sqlite3 *db)
{
    if (sqlite3_exec(db, "INSERT INTO t(b) VALUES(randomblob(100))", NULL, NULL, NULL) != SQLITE_OK)
        bench_die("commit: %s", sqlite3_errmsg(db));
}

/* Each commit's time, as long as there is some left. */
static void run(sqlite3 *db, double seconds, struct bench_series *series)
{
    uint64_t end = bench_now_ns() + (uint64_t)(seconds * 1e9);

    for (int i = 0; i < WARM; i++)
        commit_once(db);
    while (series->count < COMMITS_MAX && bench_now_ns() < end) {
        uint64_t start = bench_now_ns();

        commit_once(db);
        bench_series_add(series, (double)(bench_now_ns() - start));
    }
}

static void client_body(void *ctx, int in, int out)
{
    struct test *test = ctx;
    struct bench_series series = {0};
    char url[96], path[512], *error = NULL;
    sqlite3 *db = NULL;
    uint64_t start;

    (void)snprintf(path, sizeof(path), "%s", bench_path(cases[test->index].name));
    setenv("HYPERWAL_CACHE", path, 1);
    setenv("HYPERWAL_IDENTITY", bench_path("identity"), 1); /* the server's own may do all */
    setenv("HYPERWAL_KNOWN_SERVERS", "/dev/null", 1);
    (void)snprintf(url, sizeof(url), "hyper://127.0.0.1:%u/app.db", test->relay.port);
    (void)bench_hear(in);
    if (hyperwal_open(url, 0, &db, &error) != SQLITE_OK)
        bench_die("%s", error);
    start = bench_now_ns();
    run(db, test->seconds, &series);
    bench_tell(out, bench_now_ns() - start);
    bench_tell(out, series.count);
    bench_tell(out, (uint64_t)bench_series_percentile(&series, 0.5));
    bench_tell(out, (uint64_t)bench_series_percentile(&series, 0.99));
    sqlite3_close(db);
    bench_series_release(&series);
    (void)bench_hear(in);
}

static double local_median(const struct bench_options *options, const char *path)
{
    struct bench_series series = {0};
    char uri[600], *error = NULL;
    sqlite3 *db = NULL;
    double median;

    (void)snprintf(uri, sizeof(uri), "file:%s?vfs=hyperwal&durability=local", path);
    if (hyperwal_open(uri, 0, &db, &error) != SQLITE_OK)
        bench_die("%s", error);
    run(db, options->seconds / CASES, &series);
    median = bench_series_percentile(&series, 0.5);
    sqlite3_close(db);
    bench_series_release(&series);
    return median;
}

static void measure(const struct bench_options *options, struct test *test, unsigned port,
                    double local_ns, double *near_ns)
{
    double rtt_ns = 2e6 * cases[test->index].one_way_ms, seconds, count, p50, p99;

    bench_relay_connect(&test->relay, port);
    bench_tell(test->client.to, 1);
    seconds = (double)bench_hear(test->client.from) / 1e9;
    count = (double)bench_hear(test->client.from);
    p50 = (double)bench_hear(test->client.from);
    p99 = (double)bench_hear(test->client.from);
    bench_tell(test->client.to, 1);
    bench_child_join(&test->client);
    bench_json_begin(options);
    bench_json_text("case", cases[test->index].name);
    if (rtt_ns == 0) {
        *near_ns = p50;
        bench_json_ratio(p50 / local_ns, 4, false);
    } else {
        bench_json_ratio((p50 - *near_ns) / rtt_ns, 1.2, false);
    }
    bench_json_number("round_trip_ms", rtt_ns / 1e6);
    bench_json_number("commits_per_second", (count + WARM) / seconds);
    bench_json_number("p50_ms", p50 / 1e6);
    bench_json_number("p99_ms", p99 / 1e6);
    bench_json_number("local_p50_ms", local_ns / 1e6);
    bench_json_end();
}

static void make_database(const char *path)
{
    char uri[600], *error = NULL;
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:%s?vfs=hyperwal", path);
    if (hyperwal_open(uri, 0, &db, &error) != SQLITE_OK ||
        sqlite3_exec(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", NULL, NULL, NULL) != SQLITE_OK)
        bench_die("%s", error != NULL ? error : "no table");
    sqlite3_close(db);
}

static unsigned serve(hyperwal_node **node, const char *path)
{
    char *bound = NULL, *error = NULL;
    unsigned port;

    if (hyperwal_node_open(bench_path("identity"), node, &error) != SQLITE_OK ||
        hyperwal_node_listen(*node, "tcp://127.0.0.1:0", &bound, &error) != SQLITE_OK ||
        hyperwal_node_serve(*node, "app.db", path, &error) != SQLITE_OK)
        bench_die("serve: %s", error != NULL ? error : "no message");
    port = (unsigned)strtoul(strrchr(bound, ':') + 1, NULL, 10);
    sqlite3_free(bound);
    return port;
}

int main(int argc, char **argv)
{
    struct bench_options options = {.name = "write", .seconds = 20};
    struct test tests[CASES];
    hyperwal_node *node = NULL;
    double near_ns = 0, local_ns;
    unsigned port;

    bench_start(&options, argc, argv);
    for (unsigned i = 0; i < CASES; i++) {
        tests[i] = (struct test){.index = i, .seconds = options.seconds / CASES};
        bench_relay_prepare_far(&tests[i].relay, cases[i].one_way_ms);
        bench_child_start(&tests[i].client, client_body, &tests[i]);
    }
    make_database(bench_path("app.db"));
    local_ns = local_median(&options, bench_path("app.db"));
    port = serve(&node, bench_path("app.db"));
    for (unsigned i = 0; i < CASES; i++)
        measure(&options, &tests[i], port, local_ns, &near_ns);
    for (int i = CASES - 1; i >= 0; i--) /* those made later have the pipes of those before */
        bench_relay_stop(&tests[i].relay);
    hyperwal_node_close(node);
    return 0;
}
