/*
 * bench_network - followers over TCP on loopback
 *
 *   lag       commit to visible on one follower, 1000 commits a second, beyond the log's fdatasyncs
 *   fanout-N  the same at 100 commits a second on N followers, each a process; all of them count
 *   catchup   a new follower of a log that is there, against one on the same file system
 *   bytes     bytes over the wire to a live follower for each byte of WAL (and of log)
 *   remote    a commit with durability=remote and one follower, against a plain commit at FULL
 *
 * Primary and server are one process, as with listen=; each follower is a process.  All share the
 * machine's cores, so fan-out measures what one machine can apply as much as what one can send.
 */
#include "lib_relay.h"
#include "lib_syncs.h"
#include "lib_workload.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMMITS_MAX = 30000, FOLLOWERS_MAX = 50, CATCH_UP_COMMITS = 20000, CATCH_UP_ROUNDS = 5 };

struct shared {                                     /* between primary and followers */
    _Atomic uint64_t committed_ns[COMMITS_MAX + 1]; /* by row id, from 1 */
    _Atomic uint64_t visible_ns[FOLLOWERS_MAX][COMMITS_MAX + 1];
    _Atomic uint64_t count; /* rows that will come; or 0: it is over */
    _Atomic unsigned port;  /* to connect to */
    const struct bench_options *options;
};

static struct shared *shared;

static const char *replica_path(unsigned index)
{
    static char names[FOLLOWERS_MAX][24];

    (void)snprintf(names[index], sizeof(names[index]), "replica%u.db", index);
    return bench_path(names[index]);
}

/* --------------------------------------------------------------------------- follower */

static hyperwal_follower *follow_url(unsigned index)
{
    hyperwal_follower *follower = NULL;
    char url[64], *error = NULL;
    const char *sources[] = {url};

    (void)snprintf(url, sizeof(url), "hyper://127.0.0.1:%u/primary.db", atomic_load(&shared->port));
    if (hyperwal_follow_sources(NULL, sources, 1, replica_path(index), NULL, NULL, &follower,
                                &error) != SQLITE_OK)
        bench_die("%s: %s", url, error != NULL ? error : "no message");
    bench_catch_up(follower);
    return follower;
}

static void note_newest(sqlite3_stmt *newest, unsigned index, uint64_t *seen)
{
    uint64_t id, now;

    if (sqlite3_step(newest) != SQLITE_ROW)
        bench_die("replica: %s", sqlite3_errmsg(sqlite3_db_handle(newest)));
    id = (uint64_t)sqlite3_column_int64(newest, 0);
    sqlite3_reset(newest);
    now = bench_now_ns();
    while (*seen < id && *seen < COMMITS_MAX)
        shared->visible_ns[index][++*seen] = now;
}

static void follower_body(void *ctx, int in, int out)
{
    unsigned index = *(unsigned *)ctx;
    hyperwal_follower *follower;
    sqlite3_stmt *newest = NULL;
    sqlite3 *db;
    uint64_t seen = 0;

    (void)bench_hear(in); /* the server listens */
    follower = follow_url(index);
    if (sqlite3_open_v2(replica_path(index), &db, SQLITE_OPEN_READONLY, "unix") != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT ifnull(max(id), 0) FROM tick", -1, &newest, NULL) !=
            SQLITE_OK)
        bench_die("replica: %s", sqlite3_errmsg(db));
    bench_tell(out, 0);
    while (seen < atomic_load(&shared->count)) {
        int code = hyperwal_follow_step(follower, 1000);

        if (code != SQLITE_OK && code != SQLITE_DONE)
            bench_die("hyperwal_follow_step: %s", hyperwal_follow_errmsg(follower));
        note_newest(newest, index, &seen);
    }
    sqlite3_finalize(newest);
    sqlite3_close(db);
    hyperwal_follow_close(follower);
    bench_tell(out, 0);
}

/* ---------------------------------------------------------------------------- primary */

struct primary {
    sqlite3 *db;
    hyperwal_node *node;
    const char *path;
    struct bench_child followers[FOLLOWERS_MAX];
    unsigned follower_count;
};

/* Followers are forked before anything of the library runs here. */
static void followers_start(struct primary *primary, unsigned count)
{
    static unsigned indices[FOLLOWERS_MAX];

    primary->follower_count = count;
    for (unsigned i = 0; i < count; i++) {
        indices[i] = i;
        bench_child_start(&primary->followers[i], follower_body, &indices[i]);
    }
}

static unsigned serve(struct primary *primary)
{
    char *bound = NULL, *error = NULL;
    unsigned port = 0;
    const char *colon;

    if (hyperwal_node_open(bench_path("identity"), &primary->node, &error) != SQLITE_OK ||
        hyperwal_node_listen(primary->node, "tcp://127.0.0.1:0", &bound, &error) != SQLITE_OK ||
        hyperwal_node_serve(primary->node, "primary.db", primary->path, &error) != SQLITE_OK)
        bench_die("serve: %s", error != NULL ? error : "no message");
    colon = strrchr(bound, ':');
    port = (unsigned)strtoul(colon + 1, NULL, 10);
    sqlite3_free(bound);
    return port;
}

static void primary_open(struct primary *primary, const char *synchronous, const char *durability)
{
    char uri[512];

    primary->path = bench_path("primary.db");
    (void)snprintf(uri, sizeof(uri), "file:%s?durability=%s", primary->path, durability);
    primary->db = bench_open(uri, shared->options->vfs, synchronous);
    bench_exec(primary->db, "CREATE TABLE IF NOT EXISTS tick(id INTEGER PRIMARY KEY, body)");
    bench_settle(primary->db, shared->options->vfs, primary->path);
    atomic_store(&shared->port, serve(primary));
}

static void followers_ready(struct primary *primary)
{
    for (unsigned i = 0; i < primary->follower_count; i++)
        bench_tell(primary->followers[i].to, 0);
    for (unsigned i = 0; i < primary->follower_count; i++)
        (void)bench_hear(primary->followers[i].from);
}

static void followers_done(struct primary *primary)
{
    for (unsigned i = 0; i < primary->follower_count; i++) {
        (void)bench_hear(primary->followers[i].from);
        bench_child_join(&primary->followers[i]);
    }
    for (unsigned i = 0; i < primary->follower_count; i++) {
        bench_check_replica(primary->path, replica_path(i));
        bench_remove_database(replica_path(i));
    }
}

static void primary_close(struct primary *primary)
{
    sqlite3_close(primary->db);
    hyperwal_node_close(primary->node);
    bench_remove_database(primary->path);
}

static void commit_at_pace(sqlite3 *db, uint64_t count, unsigned per_second)
{
    uint64_t start = bench_now_ns();

    for (uint64_t id = 1; id <= count; id++) {
        bench_exec(db, "INSERT INTO tick(body) VALUES('a row of some words, as they are')");
        shared->committed_ns[id] = bench_now_ns();
        bench_sleep_until(start + id * (1000000000U / per_second));
    }
}

/* -------------------------------------------------------------------------------- cases */

static void lag_print(const char *name, unsigned followers, uint64_t count, bool has_target)
{
    struct bench_series raw = {0}, latencies = {0}, each_sync = {0};
    double p50, p99;

    for (unsigned i = 0; i < followers; i++) {
        for (uint64_t id = 1; id <= count; id++) {
            uint64_t from = shared->committed_ns[id], to = shared->visible_ns[i][id];

            to = to < from ? from : to; /* seen before the commit returned: 0 */
            bench_series_add(&raw, (double)(to - from) / 1e6);
            bench_series_add(&latencies, (double)(to - from - bench_syncs_within(from, to)) / 1e6);
        }
    }
    bench_syncs_list(&each_sync);
    p50 = bench_series_percentile(&latencies, 0.5);
    p99 = bench_series_percentile(&latencies, 0.99);
    bench_json_begin(shared->options);
    bench_json_text("case", name);
    bench_json_number("followers", followers);
    if (has_target) {
        bench_json_ratio(p50, 1, false);
        bench_json_number("p99_target_ms", 5);
        bench_json_bool("p99_met", p99 <= 5);
    } else {
        bench_json_number("p50_ms", p50);
    }
    bench_json_number("p99_ms", p99);
    bench_json_number("raw_p50_ms", bench_series_percentile(&raw, 0.5));
    bench_json_number("raw_p99_ms", bench_series_percentile(&raw, 0.99));
    bench_json_number("raw_max_ms", bench_series_percentile(&raw, 1));
    bench_json_number("commits", (double)count);
    bench_json_number("fdatasync_us", bench_series_percentile(&each_sync, 0.5));
    bench_json_end();
    bench_series_release(&raw);
    bench_series_release(&latencies);
    bench_series_release(&each_sync);
}

static void lag_case(const char *name, unsigned followers, unsigned per_second, bool has_target)
{
    struct primary primary = {0};
    uint64_t count = (uint64_t)(shared->options->seconds * per_second);

    if (!bench_selected(shared->options, name))
        return;
    count = count > COMMITS_MAX ? COMMITS_MAX : count;
    atomic_store(&shared->count, count);
    followers_start(&primary, followers);
    primary_open(&primary, "NORMAL", "async");
    followers_ready(&primary);
    bench_syncs_forget();
    commit_at_pace(primary.db, count, per_second);
    followers_done(&primary);
    lag_print(name, followers, count, has_target);
    primary_close(&primary);
}

static void late_body(void *ctx, int in, int out)
{
    bool local = *(bool *)ctx;
    hyperwal_follower *follower;
    uint64_t start;

    (void)bench_hear(in);
    start = bench_now_ns();
    follower = local ? bench_follow(bench_path("primary.db"), replica_path(0)) : follow_url(0);
    bench_tell(out, bench_now_ns() - start);
    hyperwal_follow_close(follower);
    bench_check_replica(bench_path("primary.db"), replica_path(0));
    bench_remove_database(replica_path(0));
}

/* New followers in turn, over the network and on the same file system. */
static void catchup_case(void)
{
    static bool kinds[2] = {false, true};
    struct bench_series ratios = {0}, remote_s = {0};
    struct bench_child late[2 * CATCH_UP_ROUNDS];
    struct primary primary = {0};
    hyperwal_log *log = NULL;
    hyperwal_head head;

    if (!bench_selected(shared->options, "catchup"))
        return;
    for (int i = 0; i < 2 * CATCH_UP_ROUNDS; i++)
        bench_child_start(&late[i], late_body, &kinds[i % 2]);
    primary_open(&primary, "NORMAL", "async");
    commit_at_pace(primary.db, CATCH_UP_COMMITS, 1000000);
    bench_settle(primary.db, shared->options->vfs, primary.path);
    for (int round = 0; round < CATCH_UP_ROUNDS; round++) {
        double seconds[2];

        for (int i = 0; i < 2; i++) {
            bench_tell(late[2 * round + i].to, 1);
            seconds[i] = (double)bench_hear(late[2 * round + i].from) / 1e9;
            bench_child_join(&late[2 * round + i]);
        }
        bench_series_add(&ratios, seconds[1] / seconds[0]);
        bench_series_add(&remote_s, seconds[0]);
    }
    if (hyperwal_log_open(primary.path, &log, NULL) != SQLITE_OK ||
        hyperwal_log_head(log, &head) != SQLITE_OK)
        bench_die("the log cannot be read");
    bench_json_begin(shared->options);
    bench_json_text("case", "catchup");
    bench_json_number("rate_over_local", bench_series_percentile(&ratios, 0.5));
    bench_json_number("entries_per_s",
                      (double)head.length / bench_series_percentile(&remote_s, 0.5));
    bench_json_number("log_mib_per_s",
                      (double)head.byte_length / 1048576 / bench_series_percentile(&remote_s, 0.5));
    bench_json_end();
    hyperwal_log_close(log);
    bench_series_release(&ratios);
    bench_series_release(&remote_s);
    primary_close(&primary);
}

/* ---------------------------------------------------------------------- bytes on the wire */

/* Follows until it is told to stop. */
static void steady_body(void *ctx, int in, int out)
{
    hyperwal_follower *follower;

    (void)ctx;
    (void)bench_hear(in); /* the relay listens */
    follower = follow_url(0);
    bench_tell(out, 0);
    while (atomic_load(&shared->count) != 0) {
        int code = hyperwal_follow_step(follower, 50);

        if (code != SQLITE_OK && code != SQLITE_DONE)
            bench_die("hyperwal_follow_step: %s", hyperwal_follow_errmsg(follower));
    }
    bench_catch_up(follower);
    hyperwal_follow_close(follower);
    bench_tell(out, 0);
}

static hyperwal_head head_of(const char *path)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;

    if (hyperwal_log_open(path, &log, NULL) != SQLITE_OK ||
        hyperwal_log_head(log, &head) != SQLITE_OK)
        bench_die("the log cannot be read");
    hyperwal_log_close(log);
    return head;
}

static void bytes_case(enum bench_workload workload, unsigned per_second)
{
    struct primary primary = {.follower_count = 1};
    struct bench_relay relay;
    struct bench_load load;
    struct bench_wal_count wal;
    hyperwal_head before, after;
    uint64_t up, down, start, commits = (uint64_t)(shared->options->seconds * per_second);
    char name[32];

    (void)snprintf(name, sizeof(name), "bytes-%s", bench_workload_name(workload));
    if (!bench_selected(shared->options, name))
        return;
    primary.path = bench_path("primary.db");
    bench_load_populate(primary.path, workload, shared->options->random_values);
    atomic_store(&shared->count, 1);
    bench_child_start(&primary.followers[0], steady_body, NULL);
    bench_relay_prepare(&relay);
    bench_load_open(&load, shared->options, workload, primary.path, shared->options->vfs, "NORMAL");
    bench_load_run(&load);
    bench_settle(load.db, shared->options->vfs, primary.path);
    bench_relay_connect(&relay, serve(&primary));
    atomic_store(&shared->port, relay.port);
    followers_ready(&primary);
    bench_wal_count(load.db, &wal);
    bench_load_run(&load);
    bench_settle(load.db, shared->options->vfs, primary.path);
    wal.frames = 0;
    before = head_of(primary.path);
    bench_relay_count(&relay, &up, &down);
    start = bench_now_ns();
    for (uint64_t i = 1; i <= commits; i++) {
        bench_load_run(&load);
        bench_sleep_until(start + i * (1000000000U / per_second));
    }
    bench_settle(load.db, shared->options->vfs, primary.path);
    after = head_of(primary.path);
    atomic_store(&shared->count, 0);
    followers_done(&primary);
    bench_relay_count(&relay, &up, &down);
    bench_json_begin(shared->options);
    bench_json_text("case", name);
    bench_json_number("wire_per_wal_byte", (double)(up + down) / (double)bench_wal_bytes(&wal));
    bench_json_number("wire_per_log_byte",
                      (double)(up + down) / (double)(after.byte_length - before.byte_length));
    bench_json_number("down_bytes_a_commit", (double)down / (double)commits);
    bench_json_number("up_bytes_a_commit", (double)up / (double)commits);
    bench_json_number("commits", (double)commits);
    bench_json_end();
    bench_relay_stop(&relay);
    hyperwal_node_close(primary.node);
    bench_load_close(&load);
    bench_remove_database(primary.path);
}

/* ---------------------------------------------------------------------- remote durability */

/* Microseconds of one commit each; rounds of both sides in turn. */
static void remote_case(const char *durability)
{
    enum { ROUND = 50 };
    struct primary primary = {0};
    struct bench_series plain_us = {0}, remote_us = {0};
    sqlite3 *plain;
    uint64_t end;

    if (!bench_selected(shared->options, durability))
        return;
    atomic_store(&shared->count, 1);
    primary.follower_count = 1;
    bench_child_start(&primary.followers[0], steady_body, NULL);
    plain = bench_open(bench_path("plain.db"), "unix", "FULL");
    bench_exec(plain, "CREATE TABLE tick(id INTEGER PRIMARY KEY, body)");
    primary_open(&primary, "FULL", "async");
    followers_ready(&primary);
    bench_exec(primary.db, durability[6] == '\0' ? "PRAGMA hyperwal_durability = remote"
                                                 : "PRAGMA hyperwal_durability = remote_apply");
    end = bench_now_ns() + (uint64_t)(shared->options->seconds * 1e9);
    while (bench_now_ns() < end) {
        for (int i = 0; i < 2 * ROUND; i++) {
            uint64_t start = bench_now_ns();

            bench_exec(i < ROUND ? plain : primary.db,
                       "INSERT INTO tick(body) VALUES('a row of some words, as they are')");
            bench_series_add(i < ROUND ? &plain_us : &remote_us,
                             (double)(bench_now_ns() - start) / 1e3);
        }
    }
    bench_exec(primary.db, "PRAGMA hyperwal_durability = async");
    atomic_store(&shared->count, 0);
    followers_done(&primary);
    bench_json_begin(shared->options);
    bench_json_text("case", durability);
    bench_json_number("plain_full_p50_us", bench_series_percentile(&plain_us, 0.5));
    bench_json_number("plain_full_p99_us", bench_series_percentile(&plain_us, 0.99));
    bench_json_number("remote_p50_us", bench_series_percentile(&remote_us, 0.5));
    bench_json_number("remote_p99_us", bench_series_percentile(&remote_us, 0.99));
    bench_json_number("p50_over_plain", bench_series_percentile(&remote_us, 0.5) /
                                            bench_series_percentile(&plain_us, 0.5));
    bench_json_end();
    sqlite3_close(plain);
    bench_remove_database(bench_path("plain.db"));
    primary_close(&primary);
    bench_series_release(&plain_us);
    bench_series_release(&remote_us);
}

/* ---------------------------------------------------------------------------------- main */

static void lag_1(void)
{
    lag_case("lag", 1, 1000, true);
}

static void fanout_1(void)
{
    lag_case("fanout-1", 1, 100, false);
}

static void fanout_10(void)
{
    lag_case("fanout-10", 10, 100, false);
}

static void fanout_50(void)
{
    lag_case("fanout-50", FOLLOWERS_MAX, 100, false);
}

static void bytes_kv(void)
{
    bytes_case(BENCH_KV, 200);
}

static void bytes_insert(void)
{
    bytes_case(BENCH_INSERT, 200);
}

static void bytes_order(void)
{
    bytes_case(BENCH_ORDER, 200);
}

static void remote_durable(void)
{
    remote_case("remote");
}

static void remote_applied(void)
{
    remote_case("remote_apply");
}

/* A process a case: who has used the network cannot fork followers any more. */
int main(int argc, char **argv)
{
    static void (*const cases[])(void) = {
        lag_1,    fanout_1,     fanout_10,   fanout_50,      catchup_case,
        bytes_kv, bytes_insert, bytes_order, remote_durable, remote_applied,
    };
    struct bench_options options = {.name = "network", .seconds = 5};
    int failed = 0;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        bench_die("no memory");
    bench_start(&options, argc, argv);
    bench_syncs_time(); /* before the library starts a thread */
    shared->options = &options;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int status;
        pid_t child = fork();

        if (child == 0) {
            cases[i]();
            fflush(stdout);
            _exit(0); /* the files are the parent's to remove */
        }
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
            failed = 1;
    }
    return failed;
}
