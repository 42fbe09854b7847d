/*
 * SQLite's threading modes, which a program chooses before anything else: each is tried in a child
 * of its own.  For one thread no other is started, and all that needs none works as ever.
 */
#include <dirent.h>
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

enum { COMMITS = 30, ROWS = 3000 };

static char directory[64], path[96], copy[96], restored[96];

static int setup(void **state)
{
    char place[96];

    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-modes-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    (void)snprintf(copy, sizeof(copy), "%s/copy.db", directory);
    (void)snprintf(restored, sizeof(restored), "%s/restored.db", directory);
    (void)snprintf(place, sizeof(place), "%s/identity", directory);
    return setenv("HYPERWAL_IDENTITY", place, 1);
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

/* ------------------------------------------------------- in a child, which must not assert */

/* Says what is wrong, and ends the child. */
static void must(int good, const char *what, const char *error)
{
    if (good)
        return;
    (void)fprintf(stderr, "%s: %s\n", what, error != NULL ? error : "");
    _exit(1);
}

static void execute(sqlite3 *db, const char *sql)
{
    must(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql, sqlite3_errmsg(db));
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

static unsigned thread_count(void)
{
    DIR *tasks = opendir("/proc/self/task");
    unsigned count = 0;

    must(tasks != NULL, "/proc/self/task", NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks))
        count += task->d_name[0] != '.';
    (void)closedir(tasks);
    return count;
}

static sqlite3 *open_db(const char *parameters)
{
    char uri[192], *error = NULL;
    sqlite3 *db = NULL;

    (void)snprintf(uri, sizeof(uri), "file:%s?%s", path, parameters);
    must(hyperwal_open(uri, 0, &db, &error) == SQLITE_OK, uri, error);
    return db;
}

/* Commits that the log confirms one by one, commits that it does not, a snapshot of many groups. */
static void write_some(void)
{
    sqlite3 *db = open_db("durability=local");
    char sql[96];
    uint64_t seq = 0;

    execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); BEGIN");
    for (int i = 0; i < ROWS; i++)
        execute(db, "INSERT INTO t(b) VALUES(randomblob(1000))");
    execute(db, "COMMIT");
    must(hyperwal_snapshot(db, NULL, &seq) == SQLITE_OK, "snapshot", sqlite3_errmsg(db));
    for (int i = 0; i < COMMITS; i++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO t(b) VALUES('confirmed %d')", i);
        execute(db, sql);
    }
    must(sqlite3_close(db) == SQLITE_OK, "close", NULL);
    db = open_db("");
    for (int i = 0; i < COMMITS; i++)
        execute(db, "INSERT INTO t(b) VALUES('not waited for')");
    must(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) == SQLITE_OK,
         "checkpoint", sqlite3_errmsg(db));
    must(sqlite3_close(db) == SQLITE_OK, "close", NULL);
}

static int64_t rows_of(const char *file)
{
    sqlite3 *db = NULL;
    int64_t rows = -1;

    if (sqlite3_open_v2(file, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK)
        rows = number(db, "SELECT count(*) FROM t");
    (void)sqlite3_close(db);
    return rows;
}

/* A replica, a restored file and the log have it all. */
static void read_all(void)
{
    hyperwal_follower *follower = NULL;
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    char *error = NULL;
    int code;

    must(hyperwal_follow_open(path, copy, NULL, NULL, &follower, &error) == SQLITE_OK, "follow",
         error);
    do
        code = hyperwal_follow_step(follower, 0);
    while (code == SQLITE_OK);
    must(code == SQLITE_DONE, "follow", hyperwal_follow_errmsg(follower));
    hyperwal_follow_close(follower);
    must(rows_of(copy) == ROWS + 2 * COMMITS, "rows of the replica", NULL);
    must(hyperwal_log_open(path, &log, &error) == SQLITE_OK, "log", error);
    must(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL) == SQLITE_OK, "verify",
         hyperwal_log_errmsg(log));
    must(hyperwal_restore(log, NULL, restored, 0, NULL, NULL, &entry) == SQLITE_OK, "restore",
         hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    must(rows_of(restored) == ROWS + 2 * COMMITS, "rows of what is restored", NULL);
}

static void what_needs_threads_is_refused(void)
{
    char uri[256], *error = NULL;
    hyperwal_node *node = NULL;
    sqlite3 *db = NULL;

    must(hyperwal_node_open(NULL, &node, &error) == SQLITE_MISUSE && error != NULL &&
             strstr(error, "threads") != NULL,
         "a node", error);
    sqlite3_free(error);
    must(hyperwal_open("hyper://127.0.0.1:1/app.db", 0, &db, &error) != SQLITE_OK &&
             error != NULL && strstr(error, "threads") != NULL,
         "a remote database", error);
    sqlite3_free(error);
    (void)snprintf(uri, sizeof(uri), "file:%s?listen=tcp://127.0.0.1:0&access=%s", path, path);
    must(hyperwal_open(uri, 0, &db, &error) != SQLITE_OK && error != NULL &&
             strstr(error, "threads") != NULL,
         "access=", error);
    sqlite3_free(error);
}

/* ------------------------------------------------------------------------------- tests */

static void in_mode(int mode, void (*work)(void))
{
    pid_t child = fork(); /* which is the first to call SQLite */
    int status = 0;

    assert_true(child >= 0);
    if (child == 0) {
        must(sqlite3_config(mode) == SQLITE_OK, "sqlite3_config", NULL);
        work();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void work_alone(void)
{
    unsigned threads = thread_count(); /* a sanitizer may have its own */
    sqlite3 *db;

    write_some();
    db = open_db("");
    must(number(db, "SELECT count(*) FROM t") == ROWS + 2 * COMMITS, "rows", NULL);
    must(thread_count() == threads, "threads were started", NULL);
    must(sqlite3_close(db) == SQLITE_OK, "close", NULL);
    read_all();
    what_needs_threads_is_refused();
    must(thread_count() == threads, "threads were started", NULL);
}

static void work_with_threads(void)
{
    hyperwal_node *node = NULL;
    char *error = NULL;
    sqlite3 *db;
    unsigned threads = thread_count();

    write_some();
    db = open_db("");
    must(number(db, "SELECT count(*) FROM t") == ROWS + 2 * COMMITS, "rows", NULL);
    must(thread_count() > threads, "there is no worker", NULL);
    must(sqlite3_close(db) == SQLITE_OK, "close", NULL);
    read_all();
    must(hyperwal_node_open(NULL, &node, &error) == SQLITE_OK, "a node", error);
    hyperwal_node_close(node);
}

static void a_program_of_one_thread_stays_one_thread(void **state)
{
    (void)state;
    in_mode(SQLITE_CONFIG_SINGLETHREAD, work_alone);
}

static void connections_without_mutexes_work(void **state)
{
    (void)state;
    in_mode(SQLITE_CONFIG_MULTITHREAD, work_with_threads);
}

static void connections_with_mutexes_work(void **state)
{
    (void)state;
    in_mode(SQLITE_CONFIG_SERIALIZED, work_with_threads);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_program_of_one_thread_stays_one_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(connections_without_mutexes_work, setup, teardown),
        cmocka_unit_test_setup_teardown(connections_with_mutexes_work, setup, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
