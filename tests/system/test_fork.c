/*
 * Processes that fork while databases are open: a child that opens anew has locks of its own, and
 * whatever its parent's threads were doing at that moment is nothing that it waits for.
 */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
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

enum { THREADS = 4, FORKS = 20, MANY_FORKS = 300, LONG_S = 120 };

static char directory[64], path[96], copy[96];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-fork-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    (void)snprintf(copy, sizeof(copy), "%s/copy.db", directory);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static int try(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static sqlite3 *open_at(const char *where)
{
    sqlite3 *db = NULL;
    char *error = NULL;

    if (hyperwal_open(where, 0, &db, &error) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", where, error);
        sqlite3_free(error);
        return NULL;
    }
    (void)sqlite3_busy_timeout(db, 1000 * LONG_S / 2);
    return db;
}

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement); /* a failure is a value that nobody expects */
    return value;
}

/* What every test begins with. */
static sqlite3 *make(void)
{
    sqlite3 *db;

#ifdef __SANITIZE_THREAD__
    skip(); /* the thread sanitizer cannot start threads in a child */
#endif
    db = open_at(path);
    assert_non_null(db);
    assert_int_equal(try(db, "CREATE TABLE t(v); INSERT INTO t VALUES(1)"), SQLITE_OK);
    return db;
}

/* ----------------------------------------------------- a child, told by bytes what to do */

struct child {
    pid_t pid;
    int to, from;
};

/* In the child `work` gets the ends of two pipes, and gives its exit code; 0 is good. */
static struct child child_start(int (*work)(int in, int out, void *ctx), void *ctx)
{
    struct child child;
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        close(to[1]);
        close(from[0]);
        (void)alarm(LONG_S); /* ends it if it hangs */
        _exit(work(to[0], from[1], ctx));
    }
    close(to[0]);
    close(from[1]);
    child.to = to[1];
    child.from = from[0];
    return child;
}

static bool said(int fd)
{
    char byte;

    return read(fd, &byte, 1) == 1;
}

static bool say(int fd)
{
    return write(fd, "x", 1) == 1;
}

static void child_ends_well(struct child *child)
{
    int status = 0;

    close(child->to);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    close(child->from);
    assert_int_equal(status, 0);
}

/* ------------------------------------------------------------------------- its own locks */

static int commit_before_and_after(int in, int out, void *ctx)
{
    sqlite3 *own = open_at(path);

    (void)ctx;
    if (own == NULL || try(own, "INSERT INTO t VALUES(2)") != SQLITE_OK || !say(out) || !said(in))
        return 1;
    if (try(own, "INSERT INTO t VALUES(3)") != SQLITE_OK || sqlite3_close(own) != SQLITE_OK)
        return 2;
    return 0;
}

/* Rows of the state that the log restores; it has no gap. */
static int64_t rows_in_log(void)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0;
    sqlite3 *db = NULL;
    int64_t rows;
    int code;

    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK)
        assert_string_not_equal(entry.type, "gap");
    assert_int_equal(code, SQLITE_DONE);
    assert_int_equal(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL), SQLITE_OK);
    assert_int_equal(hyperwal_restore(log, NULL, copy, 0, NULL, NULL, NULL), SQLITE_OK);
    hyperwal_log_close(log);
    assert_int_equal(sqlite3_open_v2(copy, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    rows = number(db, "SELECT count(*) FROM t");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return rows;
}

/* If it locked nothing its parent, closing last as it thinks, would delete the WAL under it. */
static void what_a_child_commits_outlives_its_parents_close(void **state)
{
    sqlite3 *db = make();
    struct child child = child_start(commit_before_and_after, NULL);

    (void)state;
    assert_true(said(child.from));
    assert_int_equal(try(db, "INSERT INTO t VALUES(4)"), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_true(say(child.to));
    child_ends_well(&child);
    db = open_at(path);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 4);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(rows_in_log(), 4);
}

static int wait_for_the_writer(int in, int out, void *ctx)
{
    sqlite3 *own = open_at(path);

    (void)ctx;
    if (own == NULL || number(own, "SELECT count(*) FROM t") != 1)
        return 1;
    (void)sqlite3_busy_timeout(own, 0);
    if (try(own, "INSERT INTO t VALUES(2)") != SQLITE_BUSY || !say(out) || !said(in))
        return 2;
    if (try(own, "INSERT INTO t VALUES(2)") != SQLITE_OK)
        return 3;
    return sqlite3_close(own) == SQLITE_OK ? 0 : 4;
}

/* And if it took its parent's locks for ones of its own process, it would wait for ever. */
static void a_transaction_at_the_fork_is_the_parents_alone(void **state)
{
    sqlite3 *db = make();
    struct child child;

    (void)state;
    assert_int_equal(try(db, "BEGIN IMMEDIATE; INSERT INTO t VALUES(5)"), SQLITE_OK);
    child = child_start(wait_for_the_writer, NULL);
    assert_true(said(child.from));
    assert_int_equal(try(db, "COMMIT"), SQLITE_OK);
    assert_true(say(child.to));
    child_ends_well(&child);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 3);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

struct inherited {
    sqlite3 *db;
    sqlite3_stmt *reading; /* in the middle of a table */
};

static int use_what_is_inherited(int in, int out, void *ctx)
{
    struct inherited *inherited = ctx;
    sqlite3 *own = open_at(path);

    (void)in;
    (void)out;
    if (own == NULL || number(own, "SELECT count(*) FROM t") != 5001)
        return 1;
    while (sqlite3_step(inherited->reading) == SQLITE_ROW)
        ; /* as far as its pages are in memory */
    if ((sqlite3_errcode(inherited->db) & 0xff) != SQLITE_IOERR)
        return 2;
    (void)sqlite3_finalize(inherited->reading); /* tells that error again */
    if ((try(inherited->db, "INSERT INTO t VALUES(6)") & 0xff) != SQLITE_IOERR ||
        (try(inherited->db, "SELECT count(*) FROM t") & 0xff) != SQLITE_IOERR)
        return 3;
    if (sqlite3_close(inherited->db) != SQLITE_OK)
        return 4;
    if (try(own, "INSERT INTO t VALUES(7)") != SQLITE_OK)
        return 5;
    return sqlite3_close(own) == SQLITE_OK ? 0 : 6;
}

static void inherited_connections_fail_with_an_io_error(void **state)
{
    struct inherited inherited = {.db = make()};
    struct child child;

    (void)state;
    assert_int_equal(try(inherited.db, "PRAGMA cache_size=10; WITH n(i) AS (VALUES(1) UNION ALL "
                                       "SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO t SELECT "
                                       "hex(randomblob(100)) FROM n"),
                     SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(inherited.db, "SELECT * FROM t", -1, &inherited.reading, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(inherited.reading), SQLITE_ROW);
    child = child_start(use_what_is_inherited, &inherited);
    child_ends_well(&child);
    assert_int_equal(sqlite3_finalize(inherited.reading), SQLITE_OK);
    assert_int_equal(number(inherited.db, "SELECT count(*) FROM t"), 5002);
    assert_int_equal(sqlite3_close(inherited.db), SQLITE_OK);
}

static int read_replica(int in, int out, void *ctx)
{
    sqlite3 *own = open_at(copy);

    (void)ctx;
    if (own == NULL || try(own, "BEGIN; SELECT * FROM t") != SQLITE_OK || !say(out) || !said(in))
        return 1;
    if (number(own, "SELECT count(*) FROM t") != 1)
        return 2; /* its snapshot */
    if (try(own, "COMMIT") != SQLITE_OK || number(own, "SELECT count(*) FROM t") != 2)
        return 3;
    return sqlite3_close(own) == SQLITE_OK ? 0 : 4;
}

static int look_at_replica(int in, int out, void *ctx)
{
    sqlite3 *own = open_at(copy);

    (void)in;
    (void)out;
    (void)ctx;
    return own != NULL && number(own, "SELECT count(*) FROM t") == 2 ? 0 : 1;
}

/* Who comes when no other process seems to have the wal-index open makes it anew. */
static void a_child_reads_a_replica_that_its_parent_followed(void **state)
{
    sqlite3 *db = make();
    hyperwal_follower *follower = NULL;
    struct child child, other;

    (void)state;
    assert_int_equal(hyperwal_snapshot(db, NULL, NULL), SQLITE_OK);
    assert_int_equal(hyperwal_follow_open(path, copy, NULL, NULL, &follower, NULL), SQLITE_OK);
    while (hyperwal_follow_step(follower, 0) == SQLITE_OK)
        ;
    child = child_start(read_replica, NULL);
    assert_true(said(child.from));
    assert_int_equal(try(db, "INSERT INTO t VALUES(2)"), SQLITE_OK);
    assert_int_equal(hyperwal_seq(db, NULL, &(uint64_t){0}), SQLITE_OK);
    while (hyperwal_follow_step(follower, 0) == SQLITE_OK)
        ;
    hyperwal_follow_close(follower);
    /* The child, which lives still, has not kept the follower's lock. */
    assert_int_equal(hyperwal_follow_open(path, copy, NULL, NULL, &follower, NULL), SQLITE_OK);
    hyperwal_follow_close(follower);
    other = child_start(look_at_replica, NULL);
    child_ends_well(&other);
    assert_true(say(child.to));
    child_ends_well(&child);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ---------------------------------------------------------------------- among threads */

static atomic_bool is_over;

/* Opens, commits, looks and closes; the commits that failed. */
static void *work(void *ctx)
{
    atomic_int *failed = ctx;

    while (!atomic_load(&is_over)) {
        sqlite3 *db = open_at(path);
        char *json = NULL;

        atomic_fetch_add(failed, try(db, "UPDATE n SET k = k + 1") != SQLITE_OK);
        for (int i = 0; i < 20; i++)
            atomic_fetch_add(failed, number(db, "SELECT k FROM n") < 0);
        atomic_fetch_add(failed, hyperwal_status(db, NULL, &json) != SQLITE_OK);
        sqlite3_free(json);
        atomic_fetch_add(failed, sqlite3_close(db) != SQLITE_OK);
    }
    return NULL;
}

static int commit_once(int in, int out, void *ctx)
{
    sqlite3 *own = open_at(path);

    (void)in;
    (void)out;
    (void)ctx;
    if (own == NULL)
        return 1;
    if (try(own, "INSERT INTO t VALUES('child')") != SQLITE_OK) {
        (void)fprintf(stderr, "%s\n", sqlite3_errmsg(own));
        return 2;
    }
    return sqlite3_close(own) == SQLITE_OK ? 0 : 3;
}

static void children_of_a_busy_process_open_anew(void **state)
{
    pthread_t threads[THREADS];
    atomic_int failed = 0;
    sqlite3 *db;

    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its allocator's locks are not held at a fork: a child of busy threads may hang */
#endif
    db = make();
    assert_int_equal(try(db, "CREATE TABLE n(k); INSERT INTO n VALUES(0)"), SQLITE_OK);
    atomic_store(&is_over, false);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &failed), 0);
    for (int i = 0; i < FORKS; i++) {
        struct child child = child_start(commit_once, NULL);
        int status = 0;

        close(child.to);
        close(child.from);
        if (waitpid(child.pid, &status, 0) != child.pid || status != 0) {
            print_error("child %d: status %d\n", i, status);
            atomic_fetch_add(&failed, 1);
        }
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&failed), 0);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 1 + FORKS);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(rows_in_log(), 1 + FORKS);
}

/* SQLite looks at the folder with a mutex held that a fork takes, too. */
static void *name_a_folder(void *ctx)
{
    atomic_int *failed = ctx;
    sqlite3 *db = open_at(path);

    while (!atomic_load(&is_over))
        atomic_fetch_add(failed, try(db, "PRAGMA temp_store_directory = '/tmp'") != SQLITE_OK);
    atomic_fetch_add(failed, try(db, "PRAGMA temp_store_directory = ''") != SQLITE_OK);
    atomic_fetch_add(failed, sqlite3_close(db) != SQLITE_OK);
    return NULL;
}

static int do_nothing(int in, int out, void *ctx)
{
    (void)in;
    (void)out;
    (void)ctx;
    return 0;
}

static void a_fork_amid_any_pragma_ends(void **state)
{
    sqlite3 *db = make();
    atomic_int failed = 0;
    pthread_t thread;

    (void)state;
    atomic_store(&is_over, false);
    assert_int_equal(pthread_create(&thread, NULL, name_a_folder, &failed), 0);
    for (int i = 0; i < MANY_FORKS; i++) {
        struct child child = child_start(do_nothing, NULL);

        child_ends_well(&child);
    }
    atomic_store(&is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&failed), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_child_commits_outlives_its_parents_close, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_transaction_at_the_fork_is_the_parents_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(inherited_connections_fail_with_an_io_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_child_reads_a_replica_that_its_parent_followed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(children_of_a_busy_process_open_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_fork_amid_any_pragma_ends, setup, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
