/* The C API of nodes and of followers over a network, on this machine: what the program hides. */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "hyperwal.h"

enum { LONG_MS = 20000 };

struct fixture {
    char dir[64];
    char path[96], replica[96], identity[96], listen[96];
    sqlite3 *db;         /* the primary, through the VFS */
    hyperwal_node *node; /* serves it */
    char *bound, *url;   /* sqlite3_free() */
};

static void must(int code, const char *error)
{
    if (code != SQLITE_OK)
        fail_msg("%d: %s", code, error != NULL ? error : sqlite3_errstr(code));
}

static void sql(sqlite3 *db, const char *text)
{
    char *error = NULL;

    must(sqlite3_exec(db, text, NULL, NULL, &error), error);
}

/* Commit, and wait for the log; its seq. */
static uint64_t commit(struct fixture *f)
{
    uint64_t seq = 0;

    sql(f->db, "INSERT INTO t(b) VALUES(randomblob(100))");
    assert_int_equal(hyperwal_seq(f->db, NULL, &seq), SQLITE_OK);
    return seq;
}

static void serve(struct fixture *f, const char *listen)
{
    char *error = NULL;

    must(hyperwal_node_open(f->identity, &f->node, &error), error);
    must(hyperwal_node_listen(f->node, listen, f->bound == NULL ? &f->bound : NULL, &error), error);
    must(hyperwal_node_serve(f->node, "app.db", f->path, &error), error);
    sqlite3_free(f->url);
    f->url = hyperwal_node_url(f->node, "app.db");
    assert_non_null(f->url);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char *error = NULL;

    snprintf(f->dir, sizeof(f->dir), "/tmp/hyperwal-net-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/app.db", f->dir);
    snprintf(f->replica, sizeof(f->replica), "%s/replica.db", f->dir);
    snprintf(f->identity, sizeof(f->identity), "%s/identity", f->dir);
    snprintf(f->listen, sizeof(f->listen), "ipc://%s/socket", f->dir);
    setenv("HYPERWAL_IDENTITY", f->identity, 1);
    must(hyperwal_open(f->path, 0, &f->db, &error), error);
    sql(f->db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for (int i = 0; i < 20; i++)
        (void)commit(f);
    serve(f, f->listen);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];

    hyperwal_node_close(f->node);
    sqlite3_free(f->bound);
    sqlite3_free(f->url);
    sqlite3_close_v2(f->db);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static hyperwal_follower *follow(struct fixture *f, hyperwal_node *node, const char *replica)
{
    const char *source = f->url;
    hyperwal_follower *follower = NULL;
    char *error = NULL;

    must(hyperwal_follow_sources(node, &source, 1, replica, NULL, NULL, &follower, &error), error);
    return follower;
}

static void follow_to(hyperwal_follower *follower, uint64_t seq)
{
    while (hyperwal_follow_seq(follower) == HYPERWAL_SEQ_NONE ||
           hyperwal_follow_seq(follower) < seq) {
        int code = hyperwal_follow_step(follower, LONG_MS);

        if (code != SQLITE_OK && code != SQLITE_DONE)
            fail_msg("%d: %s", code, hyperwal_follow_errmsg(follower));
    }
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------ following */

static void a_follower_takes_what_a_node_serves(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower = follow(f, NULL, f->replica);

    for (int i = 0; i < 10; i++)
        follow_to(follower, commit(f));
    assert_int_equal(hyperwal_follow_lag(follower), 0);
    assert_non_null(strstr(hyperwal_follow_log_dir(follower), "replica.db-hyper"));
    hyperwal_follow_close(follower);
}

static void *interrupt_soon(void *follower)
{
    hyperwal_follow_interrupt(follower);
    return NULL;
}

static void an_interrupt_ends_a_step_that_waits_for_the_network(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower = follow(f, NULL, f->replica);
    uint64_t seq = commit(f);

    follow_to(follower, seq);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        int code;

        assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, follower), 0);
        do
            code = hyperwal_follow_step(follower, LONG_MS);
        while (code == SQLITE_OK);
        assert_int_equal(code, SQLITE_INTERRUPT);
        pthread_join(thread, NULL);
    }
    /* Nothing of an interrupt is left that makes a later step lie. */
    assert_int_equal(hyperwal_follow_seq(follower), seq);
    seq = commit(f);
    follow_to(follower, seq);
    hyperwal_follow_close(follower);
}

static void a_step_keeps_its_time_when_the_server_is_gone(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower = follow(f, NULL, f->replica);
    uint64_t seq = commit(f);
    double began;

    follow_to(follower, seq);
    hyperwal_node_close(f->node);
    f->node = NULL;
    seq = commit(f);
    began = now();
    assert_int_equal(hyperwal_follow_step(follower, 200), SQLITE_DONE);
    assert_true(now() - began < 5);
    serve(f, f->listen);
    follow_to(follower, seq);
    hyperwal_follow_close(follower);
}

static int stop_at_once(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)ctx;
    return 0;
}

static void a_progress_function_that_says_stop_ends_the_wait_for_a_source(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower = NULL;
    char *error = NULL;
    int calls = 0;

    assert_int_equal(
        hyperwal_follow_open(f->url, f->replica, stop_at_once, &calls, &follower, &error),
        SQLITE_INTERRUPT);
    assert_null(follower);
    assert_true(calls > 0);
    sqlite3_free(error);
    follower = follow(f, NULL, f->replica);
    follow_to(follower, commit(f));
    hyperwal_follow_close(follower);
}

static void a_node_serves_further_what_it_follows(void **state)
{
    struct fixture *f = *state;
    hyperwal_node *middle = NULL;
    hyperwal_follower *first, *second = NULL;
    char *error = NULL, *url, other[128], replica[128];

    snprintf(other, sizeof(other), "ipc://%s/other", f->dir);
    snprintf(replica, sizeof(replica), "%s/second.db", f->dir);
    must(hyperwal_node_open(NULL, &middle, &error), error);
    must(hyperwal_node_listen(middle, other, NULL, &error), error);
    first = follow(f, middle, f->replica);
    must(hyperwal_node_serve(middle, "copy", hyperwal_follow_log_dir(first), &error), error);
    url = hyperwal_node_url(middle, "copy");
    follow_to(first, commit(f));
    must(hyperwal_follow_open(url, replica, NULL, NULL, &second, &error), error);
    for (int i = 0; i < 5; i++) {
        uint64_t seq = commit(f);

        follow_to(first, seq);
        follow_to(second, seq);
    }
    hyperwal_follow_close(second);
    hyperwal_follow_close(first);
    hyperwal_node_close(middle);
    sqlite3_free(url);
}

static void a_replica_is_followed_by_one_at_a_time(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *first = follow(f, NULL, f->replica), *second = NULL;
    char *error = NULL;

    assert_int_equal(hyperwal_follow_open(f->url, f->replica, NULL, NULL, &second, &error),
                     SQLITE_BUSY);
    assert_non_null(error);
    sqlite3_free(error);
    follow_to(first, commit(f));
    hyperwal_follow_close(first);
}

static void sources_of_different_logs_are_refused(void **state)
{
    struct fixture *f = *state;
    const char *sources[2] = {f->url, NULL};
    hyperwal_follower *follower = NULL;
    char *error = NULL, *key = sqlite3_mprintf("%s/%064d", f->bound, 0);

    sources[1] = key;
    assert_int_equal(
        hyperwal_follow_sources(NULL, sources, 2, f->replica, NULL, NULL, &follower, &error),
        SQLITE_ERROR);
    assert_non_null(strstr(error, "log"));
    sqlite3_free(error);
    sources[1] = f->path;
    assert_int_equal(
        hyperwal_follow_sources(NULL, sources, 2, f->replica, NULL, NULL, &follower, &error),
        SQLITE_MISUSE);
    sqlite3_free(error);
    sqlite3_free(key);
}

/* ---------------------------------------------------------------------------------- nodes */

static void a_remote_log_has_the_head_of_the_one_served(void **state)
{
    struct fixture *f = *state;
    hyperwal_head here, there;
    hyperwal_log *log = NULL;
    char *error = NULL, *json = NULL;
    uint64_t seq = commit(f);

    must(hyperwal_log_open(f->path, &log, &error), error);
    assert_int_equal(hyperwal_log_head(log, &here), SQLITE_OK);
    hyperwal_log_close(log);
    must(hyperwal_log_open(f->url, &log, &error), error);
    must(hyperwal_log_head(log, &there), hyperwal_log_errmsg(log));
    assert_memory_equal(here.key, there.key, 32);
    assert_true(there.seq >= seq);
    /* It goes on: a reader of a remote log may wait for more of it. */
    (void)commit(f);
    assert_int_equal(hyperwal_log_wait(log, there.length, LONG_MS), SQLITE_OK);
    hyperwal_log_close(log);
    must(hyperwal_remote_status(f->url, &json, &error), error);
    assert_non_null(strstr(json, "\"role\":\"primary\""));
    sqlite3_free(json);
}

static void followers_are_told_of(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower = follow(f, NULL, f->replica);
    uint64_t seq = commit(f), entries, bytes;
    hyperwal_peer peer = {.applied_seq = 0};
    unsigned char key[32];
    hyperwal_log *log = NULL;
    int64_t first_ms;
    char *error = NULL;
    double deadline = now() + LONG_MS / 1000;

    follow_to(follower, seq);
    must(hyperwal_log_open(f->path, &log, &error), error);
    while (peer.applied_seq != seq) {
        unsigned row = 0;

        assert_true(now() < deadline);
        (void)hyperwal_log_peer(log, &row, &peer);
        (void)hyperwal_follow_step(follower, 10);
    }
    must(hyperwal_identity(NULL, key, &error), error);
    assert_memory_equal(peer.key, key, 32);
    assert_true(peer.is_connected);
    assert_int_equal(hyperwal_log_after(log, seq - 3, &entries, &bytes, &first_ms), SQLITE_OK);
    assert_int_equal(entries, 3);
    assert_true(bytes > 0 && first_ms > 0);
    hyperwal_log_close(log);
    hyperwal_follow_close(follower);
}

static void a_name_that_is_no_longer_served_is_unknown(void **state)
{
    struct fixture *f = *state;
    hyperwal_log *log = NULL;
    char *error = NULL;

    assert_int_equal(hyperwal_node_serve(f->node, "", f->path, &error), SQLITE_MISUSE);
    sqlite3_free(error);
    must(hyperwal_node_serve(f->node, "again", f->path, &error), error);
    hyperwal_node_unserve(f->node, "app.db");
    assert_int_equal(hyperwal_log_open(f->url, &log, &error), SQLITE_CANTOPEN);
    assert_non_null(strstr(error, "again"));
    sqlite3_free(error);
}

static void who_listens_to_the_world_has_to_say_whom_he_lets_in(void **state)
{
    struct fixture *f = *state;
    char *error = NULL, *bound = NULL;

    assert_int_equal(hyperwal_node_listen(f->node, "tcp://0.0.0.0:0", NULL, &error), SQLITE_PERM);
    sqlite3_free(error);
    assert_int_equal(hyperwal_node_listen(f->node, "gopher://x", NULL, &error), SQLITE_MISUSE);
    sqlite3_free(error);
    assert_int_equal(hyperwal_node_allow(f->node, "everybody", &error), SQLITE_MISUSE);
    sqlite3_free(error);
    must(hyperwal_node_allow(f->node, "any", &error), error);
    must(hyperwal_node_listen(f->node, "tcp://0.0.0.0:0", &bound, &error), error);
    assert_true(bound[strlen(bound) - 2] != 0x3a); /* the port is not 0 */
    sqlite3_free(bound);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_follower_takes_what_a_node_serves, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupt_ends_a_step_that_waits_for_the_network, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_step_keeps_its_time_when_the_server_is_gone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_progress_function_that_says_stop_ends_the_wait_for_a_source, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_serves_further_what_it_follows, setup, teardown),
        cmocka_unit_test_setup_teardown(a_replica_is_followed_by_one_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(sources_of_different_logs_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_remote_log_has_the_head_of_the_one_served, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(followers_are_told_of, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_is_no_longer_served_is_unknown, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_listens_to_the_world_has_to_say_whom_he_lets_in, setup,
                                        teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
