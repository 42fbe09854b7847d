/*
 * durability=remote and remote_apply: what a commit waits for, and what it says if that does not
 * come.  Real files, threads and processes.  Most followers are simulated: they confirm in the
 * table of followers what a server would that heard it from them.  The last ones are mirrors over
 * loopback; whole followers are in tests/system/test_durability.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env/peer_table.h"
#include "env/shared_page.h"
#include "hyperwal.h"
#include "node/hub.h"

/* How long commits wait: for what comes, and for what does not, once they are in the log. */
#define LONG  "&timeout=60000"
#define SHORT "&timeout=800"

static char directory[64];
static char path[128];
static char log_dir[160];
static char identity[160];
static char last_log[1024]; /* of sqlite3_log() */

static void remember_log(void *ctx, int code, const char *words)
{
    (void)ctx;
    if (code == HYPERWAL_UNCONFIRMED)
        (void)snprintf(last_log, sizeof(last_log), "%s", words);
}

static int setup(void **state)
{
    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-durability-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    (void)snprintf(log_dir, sizeof(log_dir), "%s-hyper", path);
    (void)snprintf(identity, sizeof(identity), "%s/identity", directory);
    assert_int_equal(setenv("HYPERWAL_IDENTITY", identity, 1), 0);
    last_log[0] = '\0';
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static sqlite3 *open_file(const char *name, const char *parameters)
{
    char uri[384];
    char *message = NULL;
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:%s?%s", name, parameters);
    if (hyperwal_open(uri, 0, &db, &message) != SQLITE_OK)
        print_error("%s\n", message);
    sqlite3_free(message);
    assert_non_null(db);
    sqlite3_extended_result_codes(db, 1);
    return db;
}

static void execute(sqlite3 *db, const char *sql)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);

    if (code != SQLITE_OK)
        print_error("%s: %d %s (%s)\n", sql, code, sqlite3_errmsg(db), last_log);
    assert_int_equal(code, SQLITE_OK);
}

/* A database with a table, in WAL mode and in the log: the first transaction waits for nobody. */
static sqlite3 *open_db(const char *parameters)
{
    sqlite3 *db = open_file(path, parameters);
    uint64_t seq;

    execute(db, "CREATE TABLE IF NOT EXISTS t(v)");
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    return db;
}

static void close_db(sqlite3 *db)
{
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int value;

    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    value = sqlite3_column_int(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    return value;
}

static void assert_status_has(sqlite3 *db, const char *words)
{
    char *json = NULL;

    assert_int_equal(hyperwal_status(db, NULL, &json), SQLITE_OK);
    if (strstr(json, words) == NULL)
        print_error("%s is not in %s\n", words, json);
    assert_non_null(strstr(json, words));
    sqlite3_free(json);
}

static void assert_unconfirmed(sqlite3 *db, const char *sql, const char *why)
{
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), HYPERWAL_UNCONFIRMED);
    if (strstr(last_log, why) == NULL)
        print_error("'%s' is not in '%s'\n", why, last_log);
    assert_non_null(strstr(last_log, why));
    assert_int_equal(sqlite3_get_autocommit(db), 1);
}

/* ------------------------------------------------------------------------------- followers */

enum { FOLLOWERS_MAX = 4 };

/* A server with some followers, which confirm all that is in the log, less what they are told. */
struct server {
    struct hw_peer_table *table;
    struct hw_shared_page *page;
    unsigned index[FOLLOWERS_MAX];
    unsigned count;
    atomic_bool stop;
    atomic_uint applied_behind; /* blocks that are durable there and not visible */
    atomic_uint held;           /* followers that confirm nothing new */
    atomic_uint rounds;         /* of acknowledgements */
    pthread_t thread;
};

static struct hw_peer_row follower(unsigned number_, uint64_t durable, uint64_t applied)
{
    struct hw_peer_row row = {.process_id = (uint32_t)getpid(),
                              .counts = true,
                              .length = durable,
                              .received = durable,
                              .durable = durable,
                              .applied = applied,
                              .since_ms = 1};

    (void)snprintf((char *)row.id, sizeof(row.id), "follower %u", number_);
    (void)snprintf(row.address, sizeof(row.address), "127.0.0.1:%u", 1000 + number_);
    return row;
}

static void *server_main(void *ctx)
{
    struct server *server = ctx;
    uint64_t told = 0;

    for (;;) {
        uint32_t seen = hw_shared_wake_count(server->page);
        uint64_t length = hw_shared_durable_length(server->page);
        unsigned behind = atomic_load(&server->applied_behind);

        if (atomic_load(&server->stop))
            break;
        if (length == told) {
            hw_shared_want_length(server->page, length);
            hw_shared_wait(server->page, seen, UINT64_MAX);
            continue;
        }
        for (unsigned i = atomic_load(&server->held); i < server->count; i++) {
            struct hw_peer_row row = follower(i, length, length > behind ? length - behind : 0);

            (void)hw_peer_table_set(server->table, server->index[i], &row);
        }
        told = length;
        atomic_fetch_add(&server->rounds, 1);
        hw_shared_wake(server->page);
    }
    return NULL;
}

static void server_open(struct server *server, const char *dir, unsigned count)
{
    struct hw_env *env = hw_env_posix();

    *server = (struct server){.count = count};
    assert_int_equal(hw_shared_page_open(env, dir, true, &server->page, NULL), HW_OK);
    assert_int_equal(hw_peer_table_open(env, dir, true, &server->table, NULL), HW_OK);
    for (unsigned i = 0; i < count; i++) {
        struct hw_peer_row row = follower(i, 0, 0);

        assert_int_equal(hw_peer_table_claim(server->table, &row, &server->index[i], NULL), HW_OK);
    }
}

static void server_start(struct server *server, const char *dir, unsigned count)
{
    server_open(server, dir, count);
    assert_int_equal(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void server_stop(struct server *server)
{
    atomic_store(&server->stop, true);
    hw_shared_wake(server->page);
    assert_int_equal(pthread_join(server->thread, NULL), 0);
    hw_peer_table_close(server->table);
    hw_shared_page_close(server->page);
}

/* ----------------------------------------------------------------------------------- alone */

static void without_followers_the_timeout_decides_and_the_commit_stands(void **state)
{
    sqlite3 *db = open_db("durability=remote" SHORT);

    (void)state;
    assert_unconfirmed(db, "INSERT INTO t VALUES('alone')", "no follower is connected");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 1);
    assert_status_has(db, "\"unconfirmed\":{\"seq\":");
    assert_status_has(db, "\"count\":1,");
    assert_status_has(db, "\"durability\":\"remote\",\"replicas\":1,\"waiters\":0,");
    execute(db, "PRAGMA hyperwal_durability=local");
    execute(db, "INSERT INTO t VALUES('in the log')");
    close_db(db);
}

static void on_timeout_continue_lets_the_commit_succeed_and_tells(void **state)
{
    sqlite3 *db = open_db("durability=remote_apply&timeout=20&on_timeout=continue");

    (void)state;
    execute(db, "INSERT INTO t VALUES(1)");
    assert_non_null(strstr(last_log, "not confirmed by followers within 20 ms"));
    assert_status_has(db, "\"count\":1,");
    close_db(db);
}

static void every_durability_can_be_set(void **state)
{
    static const char *const names[] = {"remote", "local", "remote_apply", "async"};
    sqlite3 *db = open_db("replicas=0");
    char sql[128];

    (void)state;
    assert_int_not_equal(sqlite3_exec(db, "PRAGMA hyperwal_durability=remote", NULL, NULL, NULL),
                         SQLITE_OK);
    assert_non_null(strstr(sqlite3_errmsg(db), "replicas=0"));
    close_db(db);
    db = open_db("replicas=256");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(sql, sizeof(sql), "PRAGMA hyperwal_durability=%s", names[i]);
        execute(db, sql);
        (void)snprintf(sql, sizeof(sql), "\"durability\":\"%s\"", names[i]);
        assert_status_has(db, sql);
    }
    close_db(db);
}

/* ------------------------------------------------------------------------------ followers */

static void a_commit_waits_until_enough_followers_have_it(void **state)
{
    sqlite3 *db = open_db("durability=remote&replicas=2" LONG);
    sqlite3 *hasty = open_db("durability=remote&replicas=2" SHORT);
    struct server server;

    (void)state;
    server_start(&server, log_dir, 2);
    for (int i = 0; i < 50; i++)
        execute(db, "INSERT INTO t VALUES(zeroblob(5000))");
    atomic_store(&server.held, 1);
    assert_unconfirmed(hasty, "INSERT INTO t VALUES('half')", "1 of 2 followers confirmed seq ");
    assert_non_null(strstr(last_log, "2 are connected"));
    atomic_store(&server.held, 0);
    execute(db, "INSERT INTO t VALUES('again')");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 52);
    assert_status_has(db, "\"address\":\"127.0.0.1:1001\"");
    assert_status_has(db, "\"connected\":true,");
    server_stop(&server);
    assert_status_has(db, "\"connected\":false,");
    close_db(hasty);
    close_db(db);
}

static void remote_apply_waits_for_what_readers_of_the_replica_see(void **state)
{
    sqlite3 *db = open_db("durability=remote" LONG);
    sqlite3 *hasty = open_db("durability=remote_apply" SHORT);
    struct server server;

    (void)state;
    server_start(&server, log_dir, 1);
    atomic_store(&server.applied_behind, 1);
    execute(db, "INSERT INTO t VALUES('durable')");
    execute(db, "PRAGMA hyperwal_durability=remote_apply");
    assert_unconfirmed(hasty, "INSERT INTO t VALUES('not visible')",
                       "0 of 1 followers applied seq ");
    assert_status_has(db, "\"lag\":1,\"lag_entries\":1,\"lag_bytes\":");
    atomic_store(&server.applied_behind, 0);
    execute(db, "INSERT INTO t VALUES('visible')");
    assert_status_has(db, "\"lag\":0,\"lag_entries\":0,\"lag_bytes\":0,\"lag_ms\":0}");
    server_stop(&server);
    close_db(hasty);
    close_db(db);
}

static void a_follower_that_left_after_it_confirmed_still_counts(void **state)
{
    sqlite3 *db = open_db("durability=remote" LONG);
    struct hw_peer_row row = follower(0, UINT32_MAX, 0);
    struct server server;

    (void)state;
    server_open(&server, log_dir, 1);
    row.process_id = 0;
    assert_true(hw_peer_table_set(server.table, server.index[0], &row));
    execute(db, "INSERT INTO t VALUES(1)");
    hw_peer_table_close(server.table);
    execute(db, "INSERT INTO t VALUES(1)");
    hw_shared_page_close(server.page);
    close_db(db);
}

/* Who writes the first row of the table, which is mapped here; or nobody does. */
static void set_writer(uint64_t *table, bool stops)
{
    enum { SEQUENCE = 0, SERVER = 22, WRITER = 31 };
    uint64_t *row = table + 4096 / sizeof(uint64_t);

    row[SEQUENCE] |= 1;
    row[WRITER] = stops ? row[SERVER] : 0;
}

/* What is left of another fork confirms nothing, however often the worker has to try again. */
static void a_table_that_cannot_be_emptied_yet_confirms_nothing(void **state)
{
    enum { TABLE_SIZE = 4096 + 256 * HW_PEER_ROWS };
    struct hw_peer_row row = follower(0, UINT32_MAX, 0);
    struct hw_env *env = hw_env_posix();
    struct hw_file *file = NULL;
    struct server server;
    void *table = NULL;
    char peers[192];
    sqlite3 *db;

    (void)state;
    close_db(open_db(LONG));
    server_open(&server, log_dir, 1);
    assert_int_equal(hw_peer_table_set_fork(server.table, 7, NULL), HW_OK);
    assert_int_equal(hw_peer_table_claim(server.table, &row, &server.index[0], NULL), HW_OK);
    (void)snprintf(peers, sizeof(peers), "%s/peers", log_dir);
    assert_int_equal(env->ops->open(env, peers, HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL), HW_OK);
    assert_int_equal(env->ops->map(file, TABLE_SIZE, &table, NULL), HW_OK);
    set_writer(table, true);
    db = open_file(path, "durability=remote" SHORT);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL),
                         HYPERWAL_UNCONFIRMED);
        assert_int_equal(hw_peer_table_confirmed(server.table, 1, false), 1); /* as it was left */
    }
    set_writer(table, false);
    while (hw_peer_table_confirmed(server.table, 1, false) != 0) /* until the worker comes to it */
        (void)sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
    assert_unconfirmed(db, "INSERT INTO t VALUES(1)", "no follower is connected");
    env->ops->unmap(env, table, TABLE_SIZE);
    env->ops->close(file);
    hw_peer_table_close(server.table);
    hw_shared_page_close(server.page);
    close_db(db);
}

static void all_kinds_of_transactions_wait(void **state)
{
    sqlite3 *db = open_db("durability=remote" LONG);
    struct server server;
    uint64_t seq;

    (void)state;
    server_start(&server, log_dir, 1);
    execute(db, "BEGIN; INSERT INTO t VALUES(1); SAVEPOINT a; INSERT INTO t VALUES(2); ROLLBACK TO "
                "a; RELEASE a; COMMIT");
    execute(db, "SAVEPOINT b; INSERT INTO t VALUES(3); RELEASE b");
    execute(db, "BEGIN; INSERT INTO t VALUES(4); ROLLBACK");
    execute(db, "BEGIN IMMEDIATE; COMMIT"); /* nothing to wait for */
    execute(db, "CREATE TABLE u(v); DROP TABLE u; VACUUM");
    execute(db, "PRAGMA wal_checkpoint(TRUNCATE)");
    execute(db, "INSERT INTO t VALUES(5)");
    execute(db, "PRAGMA locking_mode=exclusive; INSERT INTO t VALUES(6)");
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    assert_true(hw_peer_table_confirmed(server.table, seq + 1, false) == 1);
    execute(db, "PRAGMA locking_mode=normal; INSERT INTO t VALUES(7)");
    assert_int_equal(number(db, "SELECT sum(v) FROM t"), 1 + 3 + 5 + 6 + 7);
    server_stop(&server);
    close_db(db);
}

static void attached_databases_wait_each_for_its_own_followers(void **state)
{
    char other[160], other_dir[192], sql[400];
    struct server server;
    sqlite3 *db;

    (void)state;
    (void)snprintf(other, sizeof(other), "%s/other.db", directory);
    (void)snprintf(other_dir, sizeof(other_dir), "%s-hyper", other);
    db = open_file(other, "");
    execute(db, "CREATE TABLE o(v); SELECT * FROM o");
    close_db(db);
    db = open_db("durability=remote" LONG);
    (void)snprintf(sql, sizeof(sql),
                   "ATTACH 'file:%s?vfs=hyperwal&durability=remote" SHORT "' AS other", other);
    execute(db, sql);
    execute(db, "PRAGMA other.hyperwal_seq");
    server_start(&server, log_dir, 1);
    execute(db, "INSERT INTO t VALUES(1)");
    assert_unconfirmed(db, "INSERT INTO o VALUES(1)", "no follower is connected");
    assert_unconfirmed(db, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO o VALUES(2); COMMIT",
                       "no follower is connected");
    assert_int_equal(number(db, "SELECT (SELECT count(*) FROM t) * 10 + count(*) FROM o"), 22);
    server_stop(&server);
    close_db(db);
}

/* -------------------------------------------------------------------------------- together */

enum { WRITERS = 8, COMMITS = 60 };

static void *write_many(void *ctx)
{
    long failed = 0;
    sqlite3 *db = NULL;
    char uri[256];

    (void)ctx;
    (void)snprintf(uri, sizeof(uri), "file:%s?durability=remote&timeout=60000", path);
    if (hyperwal_open(uri, 0, &db, NULL) != SQLITE_OK)
        return (void *)(intptr_t)COMMITS;
    (void)sqlite3_busy_timeout(db, 60000);
    for (int i = 0; i < COMMITS; i++)
        failed += sqlite3_exec(db, "INSERT INTO t VALUES(1)", NULL, NULL, NULL) != SQLITE_OK;
    failed += sqlite3_close(db) != SQLITE_OK;
    return (void *)(intptr_t)failed;
}

static void connections_that_commit_at_once_share_the_wait(void **state)
{
    pthread_t threads[WRITERS];
    struct server server;
    sqlite3 *db;
    pid_t child;
    int code;

    (void)state;
    close_db(open_db(""));
    child = fork(); /* while there are no threads of ours that it would lack */
    if (child == 0)
        _exit(write_many(NULL) == NULL ? 0 : 1);
    db = open_db("");
    server_start(&server, log_dir, 1);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, NULL), 0);
    for (int i = 0; i < WRITERS; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), (WRITERS + 1) * COMMITS);
    assert_true(atomic_load(&server.rounds) <= (WRITERS + 1) * COMMITS + 1);
    server_stop(&server);
    close_db(db);
}

static void a_commit_that_waits_uses_no_processor(void **state)
{
    sqlite3 *db = open_db("durability=remote" SHORT);
    struct rusage before, after;
    long used_us;

    (void)state;
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    assert_unconfirmed(db, "INSERT INTO t VALUES(1)", "no follower");
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    used_us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
               before.ru_stime.tv_sec) *
                  1000000 +
              after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
              before.ru_stime.tv_usec;
    assert_true(used_us < 200000);
    close_db(db);
}

/* A process that serves: followers 0 to count - 1 confirm everything, or with `silent` nothing. */
static pid_t server_process(unsigned count, bool silent)
{
    struct server server;
    char byte;
    int ready[2];
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        server_open(&server, log_dir, count);
        atomic_store(&server.held, silent ? count : 0);
        (void)!write(ready[1], "r", 1);
        (void)server_main(&server); /* until it is killed */
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void kill_process(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void *commit_one(void *ctx)
{
    return (void *)(intptr_t)sqlite3_exec(ctx, "INSERT INTO t VALUES(1)", NULL, NULL, NULL);
}

static void a_server_that_is_killed_during_the_wait_may_have_a_successor(void **state)
{
    sqlite3 *db = open_db("durability=remote" LONG), *look = open_db("");
    pid_t first = server_process(1, true), second;
    pthread_t thread;
    void *code = NULL;
    char *json = NULL;
    bool waits = false;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, commit_one, db), 0);
    while (!waits) { /* status counts who waits */
        assert_int_equal(hyperwal_status(look, NULL, &json), SQLITE_OK);
        waits = strstr(json, "\"waiters\":1,") != NULL;
        sqlite3_free(json);
    }
    kill_process(first);
    assert_status_has(look, "\"connected\":false,");
    second = server_process(1, false);
    assert_int_equal(pthread_join(thread, &code), 0);
    assert_int_equal((intptr_t)code, SQLITE_OK);
    assert_status_has(look, "\"waiters\":0,");
    kill_process(second);
    close_db(look);
    close_db(db);
}

static void followers_of_a_killed_server_are_not_connected(void **state)
{
    sqlite3 *db = open_db("durability=remote" SHORT);
    pid_t server = server_process(3, true);

    (void)state;
    assert_unconfirmed(db, "INSERT INTO t VALUES(1)", "0 of 1 followers confirmed");
    kill_process(server);
    assert_unconfirmed(db, "INSERT INTO t VALUES(1)", "no follower is connected");
    close_db(db);
}

/* --------------------------------------------------------------------------------- mirrors */

struct follower_node {
    struct hw_hub *hub;
    struct hw_mirror *mirror;
};

/* Where this process serves `db`, from its status. */
static void served_at(sqlite3 *db, struct hw_address *out)
{
    static const char before[] = "\"listen\":[\"";
    char *json = NULL, *at;

    assert_int_equal(hyperwal_status(db, NULL, &json), SQLITE_OK);
    at = strstr(json, before);
    assert_non_null(at);
    at += strlen(before);
    assert_non_null(strchr(at, '"'));
    *strchr(at, '"') = '\0';
    assert_int_equal(hw_address_parse(at, out, NULL), HW_OK);
    sqlite3_free(json);
}

static struct follower_node mirror_start(sqlite3 *db, char name)
{
    struct hw_hub_options options = {.env = hw_env_posix(), .threaded = true};
    struct follower_node node = {0};
    struct hw_address address;
    struct hw_mirror_options mirror = {.sources = &address, .source_count = 1};
    char dir[160];

    served_at(db, &address);
    hw_identity_random(options.env, &options.identity);
    assert_int_equal(hw_hub_open(&options, &node.hub, NULL), HW_OK);
    assert_int_equal(hw_hub_resolve(node.hub, &address, 60000, mirror.key, NULL), HW_OK);
    (void)snprintf(dir, sizeof(dir), "%s/mirror-%c", directory, name);
    mirror.dir = dir;
    memset(mirror.replica_id, name, sizeof(mirror.replica_id));
    assert_int_equal(hw_hub_mirror_open(node.hub, &mirror, &node.mirror, NULL), HW_OK);
    hw_mirror_want_tail(node.mirror, 0);
    return node;
}

static void mirror_stop(struct follower_node *node)
{
    hw_hub_mirror_close(node->mirror);
    hw_hub_close(node->hub);
}

static void a_mirror_over_the_network_confirms_what_it_has_synced(void **state)
{
    sqlite3 *db = open_db("listen=tcp://127.0.0.1:0&durability=remote&replicas=2" LONG);
    struct follower_node first = mirror_start(db, 'a'), second = mirror_start(db, 'b');

    (void)state;
    for (int i = 0; i < 100; i++)
        execute(db, "INSERT INTO t VALUES(randomblob(3000))");
    assert_status_has(db, "\"durability\":\"remote\",\"replicas\":2,\"waiters\":0,");
    mirror_stop(&second);
    close_db(open_file(path, "")); /* it is served on */
    execute(db, "PRAGMA hyperwal_durability=async");
    close_db(db);
    mirror_stop(&first);
}

static void mirrors_confirm_to_many_who_commit_at_once(void **state)
{
    sqlite3 *db = open_db("listen=tcp://127.0.0.1:0");
    struct follower_node node = mirror_start(db, 'a');
    pthread_t threads[WRITERS];

    (void)state;
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, NULL), 0);
    for (int i = 0; i < WRITERS; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(number(db, "SELECT count(*) FROM t"), WRITERS * COMMITS);
    mirror_stop(&node);
    close_db(db);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(without_followers_the_timeout_decides_and_the_commit_stands),
        TEST(on_timeout_continue_lets_the_commit_succeed_and_tells),
        TEST(every_durability_can_be_set),
        TEST(a_commit_waits_until_enough_followers_have_it),
        TEST(remote_apply_waits_for_what_readers_of_the_replica_see),
        TEST(a_follower_that_left_after_it_confirmed_still_counts),
        TEST(a_table_that_cannot_be_emptied_yet_confirms_nothing),
        TEST(all_kinds_of_transactions_wait),
        TEST(attached_databases_wait_each_for_its_own_followers),
        TEST(connections_that_commit_at_once_share_the_wait),
        TEST(a_commit_that_waits_uses_no_processor),
        TEST(a_server_that_is_killed_during_the_wait_may_have_a_successor),
        TEST(followers_of_a_killed_server_are_not_connected),
        TEST(a_mirror_over_the_network_confirms_what_it_has_synced),
        TEST(mirrors_confirm_to_many_who_commit_at_once),
    };

    (void)sqlite3_config(SQLITE_CONFIG_LOG, remember_log, NULL);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
