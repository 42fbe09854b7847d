/*
 * What the shim does when things are not as usual: a worker that does not answer, a database that
 * is a replica, a process that dies.  Real files and processes; the worker is a child that can be
 * stopped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyperwal.h"

static char directory[64];
static char path[128];

static int setup(void **state)
{
    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-roles-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static sqlite3 *open_db(const char *parameters)
{
    char uri[256];
    char *message = NULL;
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:%s?%s", path, parameters);
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
        print_error("%s: %d %s\n", sql, code, sqlite3_errmsg(db));
    assert_int_equal(code, SQLITE_OK);
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

/* ------------------------------------------------------------ a worker that can be stopped */

struct worker {
    pid_t pid;
    int stop; /* its standard input: closing it ends the child */
};

/* A child that makes the database, is its worker, and waits. */
static struct worker worker_start(void)
{
    struct worker worker;
    int to[2], from[2];
    char byte = 0;

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    worker.pid = fork();
    assert_true(worker.pid >= 0);
    if (worker.pid == 0) {
        sqlite3 *db = NULL;
        uint64_t seq;
        int ok;

        close(to[1]);
        ok =
            hyperwal_open(path, 0, &db, NULL) == SQLITE_OK &&
            sqlite3_exec(db, "CREATE TABLE t(v); SELECT * FROM t", NULL, NULL, NULL) == SQLITE_OK &&
            hyperwal_seq(db, NULL, &seq) == SQLITE_OK;
        if (!ok || write(from[1], "r", 1) != 1)
            _exit(1);
        (void)!read(to[0], &byte, 1); /* the parent closes its end, or dies */
        _exit(sqlite3_close(db) == SQLITE_OK ? 0 : 2);
    }
    close(to[0]);
    close(from[1]);
    assert_int_equal(read(from[0], &byte, 1), 1);
    close(from[0]);
    worker.stop = to[1];
    return worker;
}

static void worker_pause(const struct worker *worker)
{
    int status;

    assert_int_equal(kill(worker->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(worker->pid, &status, WUNTRACED), worker->pid);
    assert_true(WIFSTOPPED(status));
}

static void worker_kill(const struct worker *worker)
{
    assert_int_equal(kill(worker->pid, SIGKILL), 0);
    assert_int_equal(waitpid(worker->pid, NULL, 0), worker->pid);
    close(worker->stop);
}

static void a_commit_that_is_not_confirmed_stands_and_fails_with_its_own_code(void **state)
{
    struct worker worker = worker_start();
    sqlite3 *db = open_db("durability=local&timeout=100");
    uint64_t seq;

    (void)state;
    execute(db, "INSERT INTO t VALUES('confirmed')");
    worker_pause(&worker);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t VALUES('alone')", NULL, NULL, NULL),
                     HYPERWAL_UNCONFIRMED);
    assert_int_equal(sqlite3_get_autocommit(db), 1);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 2);
    assert_status_has(db, "\"unconfirmed\":{\"seq\":");
    assert_status_has(db, "\"count\":1,");
    worker_kill(&worker);
    execute(db, "INSERT INTO t VALUES('again')"); /* this process took over */
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* A child that made the database and keeps it open, but has read nothing since its WAL is gone. */
static struct worker idle_start(void)
{
    struct worker idle;
    int to[2], from[2];
    char byte = 0;

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    idle.pid = fork();
    assert_true(idle.pid >= 0);
    if (idle.pid == 0) {
        sqlite3 *db = NULL;
        uint64_t seq;
        int ok;

        close(to[1]);
        ok = hyperwal_open(path, 0, &db, NULL) == SQLITE_OK &&
             sqlite3_exec(db, "CREATE TABLE t(v)", NULL, NULL, NULL) == SQLITE_OK &&
             hyperwal_seq(db, NULL, &seq) == SQLITE_OK;
        if (!ok || write(from[1], "r", 1) != 1)
            _exit(1);
        (void)!read(to[0], &byte, 1); /* the parent closes its end, or dies */
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    assert_int_equal(read(from[0], &byte, 1), 1);
    close(from[0]);
    idle.stop = to[1];
    return idle;
}

static void a_process_that_reads_nothing_does_not_keep_the_role(void **state)
{
    struct worker idle = idle_start();
    sqlite3 *db = open_db("durability=local&timeout=60000");
    char role[64];

    (void)state;
    for (int i = 0; i < 10; i++)
        execute(db, "INSERT INTO t VALUES(1)");
    (void)snprintf(role, sizeof(role), "\"worker_pid\":%d,", (int)getpid());
    assert_status_has(db, role);
    worker_kill(&idle);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* A program without the VFS, for which no reader is in the way: what is lost changes page 2. */
static void commit_and_copy(void)
{
    sqlite3 *stock = NULL;

    assert_int_equal(sqlite3_open_v2(path, &stock, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    execute(stock, "INSERT INTO t VALUES('not in the log')");
    execute(stock, "PRAGMA wal_checkpoint(TRUNCATE)");
    execute(stock, "PRAGMA user_version=1");
    assert_int_equal(sqlite3_close(stock), SQLITE_OK);
}

static int gaps(void)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0;
    int count = 0, code;

    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK)
        count += strcmp(entry.type, "gap") == 0;
    assert_int_equal(code, SQLITE_DONE);
    hyperwal_log_close(log);
    return count;
}

/* The promise is about the time before, in which nobody else wrote the log. */
static void that_a_reader_stayed_says_nothing_of_the_time_of_another_worker(void **state)
{
    struct worker worker = worker_start();
    sqlite3 *db = open_db("");
    uint64_t seq;

    (void)state;
    assert_int_equal(hyperwal_hold(db, NULL, HYPERWAL_HELD_SINCE), SQLITE_OK);
    execute(db, "SELECT count(*) FROM t");
    assert_int_equal(hyperwal_snapshot(db, NULL, &seq), SQLITE_OK); /* none has to be made later */
    worker_pause(&worker);
    commit_and_copy();
    worker_kill(&worker);
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    assert_int_equal(gaps(), 1);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 1);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void on_timeout_continue_lets_the_commit_succeed(void **state)
{
    struct worker worker = worker_start();
    sqlite3 *db = open_db("durability=local&timeout=50&on_timeout=continue");

    (void)state;
    worker_pause(&worker);
    execute(db, "INSERT INTO t VALUES('alone')");
    assert_status_has(db, "\"count\":1,");
    worker_kill(&worker);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int checkpoint(sqlite3 *db, int mode)
{
    return sqlite3_wal_checkpoint_v2(db, NULL, mode, NULL, NULL);
}

static void a_checkpoint_does_not_overtake_the_log(void **state)
{
    struct worker worker = worker_start();
    sqlite3 *db = open_db("");
    char wal[160];

    (void)state;
    (void)snprintf(wal, sizeof(wal), "%s-wal", path);
    assert_int_equal(sqlite3_busy_timeout(db, 0), SQLITE_OK);
    execute(db, "INSERT INTO t VALUES('logged')");
    worker_pause(&worker);
    execute(db, "INSERT INTO t VALUES('not logged')");
    assert_int_equal(checkpoint(db, SQLITE_CHECKPOINT_PASSIVE), SQLITE_BUSY);
    assert_int_equal(checkpoint(db, SQLITE_CHECKPOINT_TRUNCATE), SQLITE_BUSY);
    execute(db, "INSERT INTO t VALUES('neither')"); /* the application goes on */
    worker_kill(&worker);
    assert_int_equal(checkpoint(db, SQLITE_CHECKPOINT_TRUNCATE), SQLITE_OK);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 3);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_not_equal(access(wal, F_OK), 0);
}

static void everything_a_killed_process_committed_is_in_the_log(void **state)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0, last = 0;
    pid_t child = fork();
    int transactions = 0, code;
    sqlite3 *db;

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        sqlite3 *own = NULL;
        int ok = hyperwal_open(path, 0, &own, NULL) == SQLITE_OK;

        ok = ok && sqlite3_exec(own, "CREATE TABLE t(v); SELECT * FROM t", NULL, NULL, NULL) == 0 &&
             hyperwal_seq(own, NULL, &next) == SQLITE_OK;
        for (int i = 0; ok && i < 100; i++)
            ok = sqlite3_exec(own, "INSERT INTO t VALUES(1)", NULL, NULL, NULL) == SQLITE_OK;
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    db = open_db("");
    assert_int_equal(number(db, "SELECT count(*) FROM t"), 100);
    assert_int_equal(hyperwal_seq(db, NULL, &last), SQLITE_OK);
    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK) {
        transactions += strcmp(entry.type, "transaction") == 0;
        assert_string_not_equal(entry.type, "gap");
    }
    assert_int_equal(code, SQLITE_DONE);
    assert_int_equal(transactions, 100);
    hyperwal_log_close(log);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Opens and closes; returns how many opens failed. */
static int open_often(void)
{
    int failed = 0;

    for (int i = 0; i < 300; i++) {
        sqlite3 *db = NULL;

        failed += hyperwal_open(path, 0, &db, NULL) != SQLITE_OK;
        failed += sqlite3_close(db) != SQLITE_OK;
    }
    return failed;
}

/* Each looks for the leftovers of dead processes, and must not take the others' for such. */
static void processes_that_open_at_once_leave_each_other_alone(void **state)
{
    pid_t children[3];
    int code;

    (void)state;
    assert_int_equal(sqlite3_close(open_db("")), SQLITE_OK);
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0)
            _exit(open_often() == 0 ? 0 : 1);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(waitpid(children[i], &code, 0), children[i]);
        assert_int_equal(code, 0);
    }
}

/* ------------------------------------------------------------------------------- at once */

enum { WRITERS = 3, COMMITS = 150 };

/* Commits and checkpoints as they come; returns how many commits failed. */
static int write_many(int writer)
{
    sqlite3 *db = NULL;
    char sql[128];
    int failed = 0;

    if (hyperwal_open(path, 0, &db, NULL) != SQLITE_OK)
        return COMMITS;
    (void)sqlite3_busy_timeout(db, 60000);
    (void)sqlite3_exec(db, "PRAGMA wal_autocheckpoint=20", NULL, NULL, NULL);
    for (int i = 0; i < COMMITS; i++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d), (randomblob(3000))",
                       writer * COMMITS + i);
        failed += sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK;
        if (i % 50 == 49)
            (void)sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    }
    failed += sqlite3_close(db) != SQLITE_OK;
    return failed;
}

static void *write_in_thread(void *ctx)
{
    int *writer = ctx;

    *writer = write_many(*writer);
    return NULL;
}

static void threads_and_processes_write_at_once_and_every_commit_is_logged(void **state)
{
    sqlite3 *db = open_db("");
    pthread_t threads[WRITERS];
    int results[WRITERS], status, transactions = 0, code;
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0, seq;
    pid_t child;

    (void)state;
    execute(db, "CREATE TABLE t(v); SELECT * FROM t");
    assert_int_equal(hyperwal_snapshot(db, NULL, &next), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(write_many(WRITERS) == 0 ? 0 : 1);
    for (int i = 0; i < WRITERS; i++) {
        results[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_in_thread, &results[i]), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(results[i], 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    db = open_db("");
    assert_int_equal(number(db, "SELECT count(DISTINCT v) FROM t WHERE typeof(v)='integer'"),
                     (WRITERS + 1) * COMMITS);
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK) {
        transactions += strcmp(entry.type, "transaction") == 0;
        assert_string_not_equal(entry.type, "gap");
    }
    assert_int_equal(code, SQLITE_DONE);
    assert_int_equal(transactions, (WRITERS + 1) * COMMITS);
    code = hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL);
    if (code != SQLITE_OK)
        fail_msg("%s", hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* ----------------------------------------------------------------------------- replicas */

static void a_replica_reads_waits_and_refuses_to_write(void **state)
{
    sqlite3 *db = open_db(""), *replica = NULL;
    hyperwal_follower *follower = NULL;
    char copy[160], key[80], statement[128];
    char *message = NULL;
    uint64_t seq, applied;

    (void)state;
    (void)snprintf(copy, sizeof(copy), "%s/copy.db", directory);
    execute(db, "CREATE TABLE t(v)");
    assert_int_equal(hyperwal_snapshot(db, NULL, &seq), SQLITE_OK);
    execute(db, "INSERT INTO t VALUES(1)");
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    if (hyperwal_follow_open(path, copy, NULL, NULL, &follower, &message) != SQLITE_OK)
        fail_msg("%s", message);
    while (hyperwal_follow_step(follower, 0) == SQLITE_OK)
        ;
    assert_true(hyperwal_follow_seq(follower) == seq);

    assert_int_equal(hyperwal_open(copy, 0, &replica, &message), SQLITE_OK);
    assert_int_equal(sqlite3_db_readonly(replica, "main"), 1);
    assert_int_equal(number(replica, "SELECT count(*) FROM t"), 1);
    assert_int_equal(sqlite3_exec(replica, "INSERT INTO t VALUES(2)", NULL, NULL, NULL),
                     SQLITE_READONLY);
    assert_string_equal(sqlite3_errmsg(replica), "attempt to write a readonly database");
    assert_int_equal(hyperwal_seq(replica, NULL, &applied), SQLITE_OK);
    assert_true(applied == seq);
    assert_int_equal(hyperwal_wait(replica, NULL, seq, 1000), SQLITE_OK);
    assert_int_equal(hyperwal_wait(replica, NULL, seq + 1, 20), SQLITE_BUSY);
    assert_int_equal(hyperwal_snapshot(replica, NULL, NULL), SQLITE_READONLY);
    assert_status_has(replica, "\"role\":\"replica\"");
    assert_status_has(db, "\"role\":\"primary\"");

    execute(db, "INSERT INTO t VALUES(2)");
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    while (hyperwal_follow_step(follower, 0) == SQLITE_OK)
        ;
    (void)snprintf(statement, sizeof(statement), "PRAGMA hyperwal_wait=%llu",
                   (unsigned long long)seq);
    execute(replica, statement);
    assert_int_equal(number(replica, "SELECT count(*) FROM t"), 2);
    (void)snprintf(key, sizeof(key), "PRAGMA hyperwal_wait=%llu", (unsigned long long)seq + 1);
    assert_int_equal(sqlite3_busy_timeout(replica, 30), SQLITE_OK);
    assert_int_equal(sqlite3_exec(replica, key, NULL, NULL, NULL), SQLITE_BUSY);
    assert_int_equal(sqlite3_exec(replica, key, NULL, NULL, NULL), SQLITE_BUSY); /* it waits anew */
    hyperwal_follow_close(follower);
    assert_int_equal(sqlite3_close(replica), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_commit_that_is_not_confirmed_stands_and_fails_with_its_own_code, setup, teardown),
        cmocka_unit_test_setup_teardown(processes_that_open_at_once_leave_each_other_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_process_that_reads_nothing_does_not_keep_the_role, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            that_a_reader_stayed_says_nothing_of_the_time_of_another_worker, setup, teardown),
        cmocka_unit_test_setup_teardown(on_timeout_continue_lets_the_commit_succeed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_does_not_overtake_the_log, setup, teardown),
        cmocka_unit_test_setup_teardown(everything_a_killed_process_committed_is_in_the_log, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            threads_and_processes_write_at_once_and_every_commit_is_logged, setup, teardown),
        cmocka_unit_test_setup_teardown(a_replica_reads_waits_and_refuses_to_write, setup,
                                        teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
