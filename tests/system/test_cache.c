/* The cache of a remote database in one process: threads, children, connections that write it. */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "hyperwal.h"
#include "node/cache.h"

enum { ROWS = 3000, THREADS = 4, READS = 60, COMMITS = 30, LONG_MS = 20000 };

struct fixture {
    char dir[64];
    char path[96], identity[96], cache[96], listen[96];
    sqlite3 *db;         /* the primary, through the VFS */
    hyperwal_node *node; /* serves it */
    char *url;           /* sqlite3_free() */
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

static int64_t number(sqlite3 *db, const char *text)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement); /* a failure is a value that nobody expects */
    return value;
}

/* Commit at the primary, and wait for the log; its seq. */
static uint64_t commit(struct fixture *f, const char *text)
{
    uint64_t seq = 0;

    sql(f->db, text);
    assert_int_equal(hyperwal_seq(f->db, NULL, &seq), SQLITE_OK);
    return seq;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char *error = NULL, text[128];

    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/hyperwal-cache-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/app.db", f->dir);
    (void)snprintf(f->identity, sizeof(f->identity), "%s/identity", f->dir);
    (void)snprintf(f->cache, sizeof(f->cache), "%s/cache", f->dir);
    (void)snprintf(f->listen, sizeof(f->listen), "ipc://%s/socket", f->dir);
    setenv("HYPERWAL_IDENTITY", f->identity, 1);
    setenv("HYPERWAL_CACHE", f->cache, 1);
    must(hyperwal_open(f->path, 0, &f->db, &error), error);
    sql(f->db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); BEGIN");
    for (int i = 0; i < ROWS; i++) {
        (void)snprintf(text, sizeof(text), "INSERT INTO t VALUES(%d, randomblob(1000))", i);
        sql(f->db, text);
    }
    (void)commit(f, "COMMIT");
    must(hyperwal_snapshot(f->db, NULL, NULL), NULL);
    must(hyperwal_node_open(f->identity, &f->node, &error), error);
    must(hyperwal_node_listen(f->node, f->listen, NULL, &error), error);
    must(hyperwal_node_serve(f->node, "app.db", f->path, &error), error);
    f->url = hyperwal_node_url(f->node, "app.db");
    assert_non_null(f->url);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];

    hyperwal_node_close(f->node);
    sqlite3_free(f->url);
    sqlite3_close_v2(f->db);
    (void)snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* --------------------------------------------------------------------------------- threads */

struct reader {
    pthread_t thread;
    const char *url;
    unsigned seed;
    unsigned wrong; /* answers */
    char said[256]; /* the first failure */
};

static void *read_at_random(void *ctx)
{
    struct reader *reader = ctx;
    sqlite3 *db = NULL;
    char *error = NULL, text[96];

    for (int i = 0; i < READS; i++) {
        if (db == NULL && hyperwal_open(reader->url, 0, &db, &error) != SQLITE_OK) {
            (void)snprintf(reader->said, sizeof(reader->said), "%s", error);
            sqlite3_free(error);
            reader->wrong++;
            return NULL;
        }
        (void)snprintf(text, sizeof(text), "SELECT length(b) FROM t WHERE a = %d",
                       rand_r(&reader->seed) % ROWS);
        if (number(db, text) != 1000) {
            (void)snprintf(reader->said, sizeof(reader->said), "%s: %s", text, sqlite3_errmsg(db));
            reader->wrong++;
        }
        if (i % 20 == 19) { /* and open it again */
            sqlite3_close_v2(db);
            db = NULL;
        }
    }
    sqlite3_close_v2(db);
    return NULL;
}

static void threads_read_one_cache_while_commits_come(void **state)
{
    struct fixture *f = *state;
    struct reader readers[THREADS] = {0};
    char text[96];

    for (unsigned i = 0; i < THREADS; i++) {
        readers[i].url = f->url;
        readers[i].seed = i;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_at_random, &readers[i]), 0);
    }
    for (int i = 0; i < COMMITS; i++) {
        (void)snprintf(text, sizeof(text), "UPDATE t SET b = randomblob(1000) WHERE a = %d",
                       i * 97);
        (void)commit(f, text);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        if (readers[i].wrong != 0)
            fail_msg("%s", readers[i].said);
}

static void forked_children_read_through_their_parent(void **state)
{
    struct fixture *f = *state;
    sqlite3 *parent = NULL; /* its process fetches, for all */
    pid_t children[3];
    int status = 0;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    /* The one does not know children of a process with threads; the other reports the stack of a
     * thread that was ended in its wait for a lock. */
    skip();
#endif
    must(hyperwal_open(f->url, 0, &parent, NULL), NULL);

    for (unsigned i = 0; i < 3; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            struct reader reader = {.url = f->url, .seed = i};

            (void)read_at_random(&reader);
            if (reader.wrong != 0)
                (void)fprintf(stderr, "%s\n", reader.said);
            _exit(reader.wrong == 0 ? 0 : 1);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(number(parent, "SELECT count(*) FROM t"), ROWS);
    sqlite3_close_v2(parent);
}

/* --------------------------------------------------------------------------------- writing */

struct writing {
    struct hw_cache *cache;
    sqlite3 *into; /* a connection to the cache's own file */
    sqlite3 *reader;
};

static void writing_open(struct fixture *f, struct writing *w)
{
    struct hw_vfs_remote remote = {.name = f->url,
                                   .base = hw_vfs_ground(sqlite3_vfs_find("unix")),
                                   .cache = sqlite3_vfs_find("hyperwal-cache"),
                                   .timeout_ms = LONG_MS};
    struct hw_error err = {0};
    char *error = NULL;

    must(hyperwal_open(f->url, 0, &w->reader, &error), error);
    if (hw_cache_remotes()->open(&remote, &w->cache, &err) != HW_OK)
        fail_msg("%s", err.message);
    must(sqlite3_open_v2(hw_cache_remotes()->path(w->cache), &w->into, SQLITE_OPEN_READWRITE,
                         "hyperwal-cache"),
         NULL);
    sql(w->into, "PRAGMA wal_autocheckpoint=0");
    if (hw_cache_take_role(w->cache, LONG_MS, LONG_MS, &err) != HW_OK)
        fail_msg("%s", err.message);
}

static void writing_close(struct writing *w)
{
    sqlite3_close_v2(w->into);
    sqlite3_close_v2(w->reader);
    hw_cache_remotes()->close(w->cache);
}

static void begin(struct writing *w, uint64_t length, struct hw_cache_state *out)
{
    struct hw_error err = {0};

    if (hw_cache_write_begin(w->cache, length, LONG_MS, out, &err) != HW_OK)
        fail_msg("%s", err.message);
}

static void end(struct writing *w, const struct hw_cache_state *committed)
{
    struct hw_error err = {0};

    if (hw_cache_write_end(w->cache, committed, &err) != HW_OK)
        fail_msg("%s", err.message);
}

/* What the log says of the entry that ends at `seq`. */
static struct hw_cache_state state_of(struct fixture *f, uint64_t seq)
{
    struct hw_cache_state state = {.seq = seq};
    hyperwal_entry entry = {0};
    hyperwal_log *log = NULL;
    uint64_t next = seq;

    must(hyperwal_log_open(f->path, &log, NULL), NULL);
    must(hyperwal_log_next(log, &next, &entry), hyperwal_log_errmsg(log));
    state.sum = entry.sum;
    state.page_count = entry.db_pages;
    state.page_size = 4096;
    hyperwal_log_close(log);
    return state;
}

static void wait_for(struct writing *w, uint64_t seq)
{
    assert_int_equal(hyperwal_wait(w->reader, NULL, seq, LONG_MS), SQLITE_OK);
}

static void nobody_writes_into_a_cache_without_leave(void **state)
{
    struct fixture *f = *state;
    struct writing w = {0};

    writing_open(f, &w);
    assert_int_equal(sqlite3_exec(w.into, "DELETE FROM t", NULL, NULL, NULL), SQLITE_BUSY);
    writing_close(&w);
}

static void what_a_connection_committed_is_not_applied_again(void **state)
{
    static const char text[] = "UPDATE t SET b = 'written' WHERE a = 7";
    struct fixture *f = *state;
    struct hw_cache_state base, committed;
    struct writing w = {0};
    uint64_t seq;

    writing_open(f, &w);
    for (int i = 0; i < 3; i++) {
        seq = commit(f, "INSERT INTO t(b) VALUES('before')");
        begin(&w, seq + 1, &base);
        assert_int_equal(base.seq, seq);
        seq = commit(f, text); /* the server does the same, to the same state */
        sql(w.into, text);
        committed = state_of(f, seq);
        end(&w, &committed);
        wait_for(&w, seq);
        assert_int_equal(number(w.reader, "SELECT b = 'written' FROM t WHERE a = 7"), 1);
        wait_for(&w, commit(f, "UPDATE t SET b = zeroblob(10) WHERE a = 7"));
        assert_int_equal(number(w.reader, "SELECT length(b) FROM t WHERE a = 7"), 10);
    }
    assert_int_equal(number(w.reader, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                      "integrity_check = 'ok'"),
                     1);
    writing_close(&w);
}

static void what_the_log_has_not_is_cut_off(void **state)
{
    struct fixture *f = *state;
    struct hw_cache_state base;
    struct writing w = {0};

    writing_open(f, &w);
    wait_for(&w, commit(f, "INSERT INTO t(b) VALUES('before')")); /* so that the WAL has frames */
    begin(&w, 0, &base);
    end(&w, NULL); /* nothing was written */
    begin(&w, 0, &base);
    sql(w.into, "DELETE FROM t WHERE a < 100");
    end(&w, NULL);
    assert_int_equal(number(w.reader, "SELECT count(*) FROM t WHERE a < 100"), 100);
    wait_for(&w, commit(f, "INSERT INTO t(b) VALUES('after')"));
    assert_int_equal(number(w.reader, "SELECT count(*) FROM t"), ROWS + 2);
    writing_close(&w);
}

static void one_connection_writes_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct hw_cache_state base;
    struct hw_error err = {0};
    struct hw_mirror *mirror = NULL;
    struct writing w = {0};

    writing_open(f, &w);
    begin(&w, 0, &base);
    assert_int_equal(hw_cache_write_begin(w.cache, 0, 10, &base, &err), HW_EBUSY);
    end(&w, NULL);
    assert_int_equal(hw_cache_write_begin(w.cache, UINT64_MAX, 10, &base, &err), HW_ETIMEOUT);
    begin(&w, 0, &base);
    end(&w, NULL);
    assert_int_equal(hw_cache_mirror_hold(w.cache, &mirror, &err), HW_OK);
    assert_non_null(mirror);
    hw_cache_mirror_release(w.cache);
    writing_close(&w);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(threads_read_one_cache_while_commits_come, setup, teardown),
        cmocka_unit_test_setup_teardown(forked_children_read_through_their_parent, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_writes_into_a_cache_without_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_connection_committed_is_not_applied_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_the_log_has_not_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(one_connection_writes_at_a_time, setup, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
