/*
 * A process that has a database open and reads nothing, while connections of its own and other
 * processes come and go: whoever closes last deletes WAL and wal-index, for the process holds no
 * lock.  What it had mapped before must not be what it reads, writes or logs from after.  Real
 * files and processes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyperwal.h"

enum { LONG_S = 120, THREADS = 3, COMMITS = 40 };

static char directory[64], path[96], copy[96];

static int setup(void **state)
{
    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-unread-XXXXXX");
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

/* `parameters` of the VFS; NULL: as a program without it. */
static sqlite3 *try_open(const char *parameters)
{
    char uri[256];
    sqlite3 *db = NULL;

    if (parameters == NULL)
        (void)sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix");
    (void)snprintf(uri, sizeof(uri), "file:%s?%s", path, parameters != NULL ? parameters : "");
    if (parameters != NULL)
        (void)hyperwal_open(uri, 0, &db, NULL);
    (void)sqlite3_busy_timeout(db, 1000 * LONG_S / 2); /* without a database its use fails */
    return db;
}

static sqlite3 *open_db(const char *parameters)
{
    sqlite3 *db = try_open(parameters);

    assert_non_null(db);
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
    int value = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement); /* a failure is a value that nobody expects */
    return value;
}

static void assert_is_whole(sqlite3 *db, int rows)
{
    sqlite3_stmt *statement = NULL;

    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(statement, 0), "ok");
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(number(db, "SELECT count(*) FROM t"), rows);
}

/* The log verifies and restores as many rows; it has so many gaps. */
static void assert_log_has(int rows, int gaps)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0;
    sqlite3 *db = NULL;
    int code;

    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK)
        gaps -= strcmp(entry.type, "gap") == 0;
    assert_int_equal(code, SQLITE_DONE);
    assert_int_equal(gaps, 0);
    assert_int_equal(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL), SQLITE_OK);
    assert_int_equal(hyperwal_restore(log, NULL, copy, 0, NULL, NULL, NULL), SQLITE_OK);
    hyperwal_log_close(log);
    assert_int_equal(sqlite3_open_v2(copy, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    assert_is_whole(db, rows);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(unlink(copy), 0);
}

/* ------------------------------------------------------- another process, told what to do */

struct other {
    pid_t pid;
    int to, from;
};

enum { OPEN = 'o', EXECUTE = 'e', CLOSE = 'c' };

struct order {
    char what;
    char sql[200];
};

static void obey(int in, int out, const char *parameters)
{
    sqlite3 *db = NULL;
    struct order order;

    (void)alarm(LONG_S); /* ends it if it hangs */
    while (read(in, &order, sizeof(order)) == (ssize_t)sizeof(order)) {
        int code = SQLITE_OK;

        if (order.what == OPEN)
            db = try_open(parameters);
        else if (order.what == EXECUTE)
            code = sqlite3_exec(db, order.sql, NULL, NULL, NULL);
        else
            code = sqlite3_close(db);
        if (write(out, &code, sizeof(code)) != (ssize_t)sizeof(code))
            break;
    }
    _exit(0);
}

/* Before this process opens a database. */
static struct other other_start(const char *parameters)
{
    struct other other;
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    other.pid = fork();
    assert_true(other.pid >= 0);
    if (other.pid == 0) {
        close(to[1]);
        close(from[0]);
        obey(to[0], from[1], parameters);
    }
    close(to[0]);
    close(from[1]);
    other.to = to[1];
    other.from = from[0];
    return other;
}

static void tell(const struct other *other, char what, const char *sql)
{
    struct order order = {.what = what};
    int code = -1;

    (void)snprintf(order.sql, sizeof(order.sql), "%s", sql);
    assert_int_equal(write(other->to, &order, sizeof(order)), sizeof(order));
    assert_int_equal(read(other->from, &code, sizeof(code)), sizeof(code));
    if (code != SQLITE_OK)
        print_error("another process: %c %s: %d\n", what, sql, code);
    assert_int_equal(code, SQLITE_OK);
}

static void other_end(const struct other *other)
{
    int status = -1;

    close(other->to);
    assert_int_equal(waitpid(other->pid, &status, 0), other->pid);
    close(other->from);
    assert_int_equal(status, 0);
}

/* ------------------------------------------------------------------------------ the tests */

static const char many[] = "INSERT INTO t SELECT randomblob(2000) FROM "
                           "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n "
                           "WHERE i<20) SELECT i FROM n)";

/* The application makes the database, and a first connection with it, which never read. */
static sqlite3 *make(void)
{
    sqlite3 *db = open_db(""), *unread;

    execute(db, "CREATE TABLE t(v)");
    execute(db, many);
    unread = open_db("");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return unread;
}

static void use_and_close(void)
{
    sqlite3 *db = open_db("");

    execute(db, many);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Others delete WAL and wal-index, and begin new ones. */
static void others_begin_anew(const struct other *other)
{
    tell(other, CLOSE, "");
    tell(other, OPEN, "");
    tell(other, EXECUTE, many);
}

static void a_wal_that_others_began_is_read_and_written(void **state)
{
    struct other other = other_start(NULL);
    sqlite3 *unread = make(), *db;

    (void)state;
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, many);
    use_and_close(); /* not the last one: WAL and wal-index stay */
    others_begin_anew(&other);
    assert_is_whole(unread, 80);
    execute(unread, many);
    tell(&other, EXECUTE, many);
    assert_is_whole(unread, 120);
    tell(&other, CLOSE, "");
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    other_end(&other);
    db = open_db("");
    assert_is_whole(db, 120);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_log_has(120, 0);
}

/* Of a connection that has not read another one does, until it is answered. */
static void an_answer_leaves_nothing_mapped(void **state)
{
    struct other other = other_start(NULL);
    sqlite3 *unread = make();
    uint64_t seq;

    (void)state;
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, many);
    assert_int_equal(hyperwal_seq(unread, NULL, &seq), SQLITE_OK);
    others_begin_anew(&other);
    assert_int_equal(hyperwal_seq(unread, NULL, &seq), SQLITE_OK);
    assert_log_has(60, 0);
    execute(unread, many);
    tell(&other, EXECUTE, many);
    assert_is_whole(unread, 100);
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    tell(&other, CLOSE, "");
    other_end(&other);
}

/* The WAL is kept at a close although nobody else is there. */
static void a_wal_that_a_close_keeps_is_not_kept_mapped(void **state)
{
    struct other other = other_start(NULL);
    sqlite3 *unread = make(), *db = open_db("");
    int keep = 1;

    (void)state;
    execute(db, many);
    assert_int_equal(sqlite3_file_control(db, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_log_has(40, 0); /* though the process goes on */
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, "SELECT count(*) FROM t");
    others_begin_anew(&other);
    assert_is_whole(unread, 60);
    execute(unread, many);
    tell(&other, EXECUTE, many);
    assert_is_whole(unread, 100);
    tell(&other, CLOSE, "");
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    other_end(&other);
    assert_log_has(100, 0);
}

/* Whoever reads in another process has the role as soon as nobody reads here. */
static void the_role_is_for_who_reads(void **state)
{
    struct other other = other_start("durability=local&timeout=20000");
    sqlite3 *unread = make(), *db = open_db("");

    (void)state;
    execute(db, many); /* this process has the role */
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, many);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    tell(&other, EXECUTE, many);
    others_begin_anew(&other);
    assert_log_has(100, 0);
    assert_is_whole(unread, 100);
    execute(unread, many);
    tell(&other, EXECUTE, many);
    assert_is_whole(unread, 140);
    tell(&other, CLOSE, "");
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    other_end(&other);
    assert_log_has(140, 0);
}

struct closing {
    sqlite3 *db;
    int code;
    atomic_bool is_done;
};

static void *close_in_thread(void *ctx)
{
    struct closing *closing = ctx;

    closing->code = sqlite3_close(closing->db);
    atomic_store(&closing->is_done, true);
    return NULL;
}

/* Who closes has tried to be alone with the database, and may be told to wait for the log. */
static void a_close_that_waits_for_the_log_keeps_nobody_out(void **state)
{
    struct other other = other_start("");
    sqlite3 *unread = make(), *stock = NULL;
    struct closing closing = {.code = -1};
    pthread_t thread;

    (void)state;
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, many);
    tell(&other, EXECUTE, "PRAGMA hyperwal_seq"); /* it has the role */
    closing.db = open_db("");
    assert_is_whole(closing.db, 40);
    assert_int_equal(kill(other.pid, SIGSTOP), 0);
    execute(closing.db, many);
    assert_int_equal(pthread_create(&thread, NULL, close_in_thread, &closing), 0);
    while (!atomic_load(&closing.is_done)) {
        assert_int_equal(sqlite3_open_v2(path, &stock, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
        assert_int_equal(sqlite3_busy_timeout(stock, 2000), SQLITE_OK); /* it waits for longer */
        assert_is_whole(stock, 60);
        assert_int_equal(sqlite3_close(stock), SQLITE_OK);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(closing.code, SQLITE_OK);
    assert_int_equal(kill(other.pid, SIGCONT), 0);
    tell(&other, EXECUTE, "PRAGMA hyperwal_seq");
    assert_log_has(60, 0);
    tell(&other, CLOSE, "");
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    other_end(&other);
}

/* Connections, each of which commits once. */
static int come_and_go(void)
{
    int failed = 0;

    for (int i = 0; i < COMMITS; i++) {
        sqlite3 *db = try_open("");

        failed += sqlite3_exec(db, "INSERT INTO t VALUES(randomblob(3000))", NULL, NULL, NULL) !=
                  SQLITE_OK;
        failed += sqlite3_close(db) != SQLITE_OK;
    }
    return failed;
}

static void *come_and_go_in_thread(void *ctx)
{
    int *failed = ctx;

    *failed = come_and_go();
    return NULL;
}

static void nothing_is_lost_while_all_but_one_come_and_go(void **state)
{
    struct other other = other_start("");
    sqlite3 *unread = make();
    pthread_t threads[THREADS];
    int failed[THREADS], status, rows = 20 + (THREADS + 1) * COMMITS;
    pid_t child;

    (void)state;
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(come_and_go() == 0 ? 0 : 1);
    unread = open_db("");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go_in_thread, &failed[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(failed[i], 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    tell(&other, OPEN, "");
    tell(&other, EXECUTE, many);
    assert_is_whole(unread, rows + 20);
    assert_int_equal(sqlite3_close(unread), SQLITE_OK);
    tell(&other, CLOSE, "");
    other_end(&other);
    assert_log_has(rows + 20, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_wal_that_others_began_is_read_and_written, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_answer_leaves_nothing_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wal_that_a_close_keeps_is_not_kept_mapped, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_role_is_for_who_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(a_close_that_waits_for_the_log_keeps_nobody_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nothing_is_lost_while_all_but_one_come_and_go, setup,
                                        teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
