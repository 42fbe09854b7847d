/*
 * Threads of one process that write a remote database, which the same process serves: each with a
 * connection of its own, and one that writes it locally.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>
#include <pthread.h>

#include "hyperwal.h"

enum { THREADS = 3, INCREMENTS = 8, TRIES = 500 };

static char directory[64], path[96], url[128];

struct worker {
    const char *name; /* of the database */
    pthread_t thread;
    int done;        /* increments that were acknowledged */
    char wrong[256]; /* "": nothing */
};

static void *work(void *ctx)
{
    struct worker *worker = ctx;
    char *error = NULL;
    sqlite3 *db = NULL;

    if (hyperwal_open(worker->name, 0, &db, &error) != SQLITE_OK) {
        snprintf(worker->wrong, sizeof(worker->wrong), "%s", error);
        sqlite3_free(error);
        return NULL;
    }
    for (int i = 0; i < TRIES && worker->done < INCREMENTS; i++) {
        int code = sqlite3_exec(db, "UPDATE n SET k = k + 1", NULL, NULL, NULL);

        worker->done += code == SQLITE_OK;
        if (code != SQLITE_OK && code != SQLITE_BUSY) {
            snprintf(worker->wrong, sizeof(worker->wrong), "%d: %s", code, sqlite3_errmsg(db));
            break;
        }
    }
    sqlite3_close(db);
    return NULL;
}

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char place[96];

    (void)state;
    snprintf(directory, sizeof(directory), "%s/hwthreadsXXXXXX",
             tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
    if (mkdtemp(directory) == NULL)
        return 1;
    snprintf(path, sizeof(path), "%s/app.db", directory);
    snprintf(place, sizeof(place), "%s/identity", directory);
    setenv("HYPERWAL_IDENTITY", place, 1);
    snprintf(place, sizeof(place), "%s/known", directory);
    setenv("HYPERWAL_KNOWN_SERVERS", place, 1);
    snprintf(place, sizeof(place), "%s/cache", directory);
    setenv("HYPERWAL_CACHE", place, 1);
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command) == 0 ? 0 : 1;
}

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

static void all_of_them_commit_all_that_they_were_told(void **state)
{
    struct worker workers[THREADS + 1];
    hyperwal_node *node = NULL;
    char *bound = NULL, *error = NULL;
    int64_t done = 0;
    sqlite3 *db = NULL;

    (void)state;
    assert_int_equal(hyperwal_open(path, 0, &db, &error), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE n(k); INSERT INTO n VALUES(0)", 0, 0, 0),
                     SQLITE_OK);
    assert_int_equal(hyperwal_node_open(NULL, &node, &error), SQLITE_OK);
    assert_int_equal(hyperwal_node_listen(node, "tcp://127.0.0.1:0", &bound, &error), SQLITE_OK);
    assert_int_equal(hyperwal_node_serve(node, "app.db", path, &error), SQLITE_OK);
    snprintf(url, sizeof(url), "hyper://127.0.0.1:%s/app.db", strrchr(bound, ':') + 1);
    sqlite3_free(bound);
    for (int i = 0; i <= THREADS; i++) {
        workers[i] = (struct worker){.name = i < THREADS ? url : path};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i <= THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_string_equal(workers[i].wrong, "");
        assert_int_equal(workers[i].done, INCREMENTS);
        done += workers[i].done;
    }
    assert_int_equal(number(db, "SELECT k FROM n"), done);
    hyperwal_node_close(node);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Its hub serves the log, and mirrors it for the cache: who comes in means what is served. */
static void a_process_writes_through_the_url_that_it_serves(void **state)
{
    char uri[300], rules[96], *json = NULL, *begin;
    struct worker workers[THREADS];
    sqlite3 *db = NULL;
    FILE *file;

    (void)state;
    (void)snprintf(rules, sizeof(rules), "%s/rules", directory);
    file = fopen(rules, "w");
    assert_non_null(file);
    assert_true(fputs("write app.db any\n", file) >= 0 && fclose(file) == 0);
    (void)snprintf(uri, sizeof(uri), "file:%s?listen=tcp://127.0.0.1:0&access=%s", path, rules);
    assert_int_equal(hyperwal_open(uri, 0, &db, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE n(k); INSERT INTO n VALUES(0)", 0, 0, 0),
                     SQLITE_OK);
    assert_int_equal(hyperwal_status(db, NULL, &json), SQLITE_OK);
    begin = strstr(json, "\"hyper://");
    assert_non_null(begin);
    (void)snprintf(url, sizeof(url), "%.*s", (int)strcspn(begin + 1, "\""), begin + 1);
    sqlite3_free(json);
    for (int i = 0; i < THREADS; i++) { /* one after the other: each opens and closes the cache */
        workers[i] = (struct worker){.name = url};
        (void)work(&workers[i]);
        assert_string_equal(workers[i].wrong, "");
        assert_int_equal(workers[i].done, INCREMENTS);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_string_equal(workers[i].wrong, "");
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_of_them_commit_all_that_they_were_told, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_process_writes_through_the_url_that_it_serves, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
