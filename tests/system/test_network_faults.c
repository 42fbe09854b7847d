/*
 * Any allocation and any call of the operating system fails, once or all for a while, in a process
 * that serves a database, follows it and writes it from afar; and while it begins to:
 *
 *     served ── local commit, remote commit, step of a follower ──✗── each: success or an error
 *       └── the fault goes away ── the same handles commit, the follower and the reader have it all
 *
 * Nothing that was acknowledged is lost, and nothing is left allocated.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "hyperwal.h"
#include "system/faults_calls.h"

enum { SOON_MS = 30000, STEP_MS = 50, ROWS_MAX = 20000 };
enum { ONE = 1, SOME = 30, ALL = 1000000000 }; /* failures, one after another */

/* -------------------------------------------------------------------------------- the rig */

struct rig {
    char dir[64], path[96], replica[96], listen[96], url[128];
    sqlite3 *db;     /* the primary */
    sqlite3 *afar;   /* the same database at its URL */
    sqlite3 *reader; /* the replica, by stock SQLite; opened when there is one */
    hyperwal_node *node;
    hyperwal_follower *follower;
    unsigned rows; /* tried so far */
    bool acknowledged[ROWS_MAX];
};

static void must(int code, const char *error)
{
    if (code != SQLITE_OK)
        fail_msg("%d: %s", code, error != NULL ? error : sqlite3_errstr(code));
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void point_environment_into(const char *dir)
{
    static const struct {
        const char *variable, *name;
    } places[] = {
        {"HYPERWAL_IDENTITY", "identity"},
        {"HYPERWAL_KNOWN_SERVERS", "known"},
        {"HYPERWAL_CACHE", "cache"},
    };
    char place[96];

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(place, sizeof(place), "%s/%s", dir, places[i].name);
        setenv(places[i].variable, place, 1);
    }
}

/* The database and its log, closed again. */
static int make_database(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    char *error = NULL;
    sqlite3 *db = NULL;

    assert_non_null(rig);
    snprintf(rig->dir, sizeof(rig->dir), "/tmp/hyperwal-netfaults-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    snprintf(rig->path, sizeof(rig->path), "%s/app.db", rig->dir);
    snprintf(rig->replica, sizeof(rig->replica), "%s/replica.db", rig->dir);
    snprintf(rig->listen, sizeof(rig->listen), "ipc://%s/socket", rig->dir);
    snprintf(rig->url, sizeof(rig->url), "ipc://%s/socket/app.db", rig->dir);
    point_environment_into(rig->dir);
    must(hyperwal_open(rig->path, 0, &db, &error), error);
    must(sqlite3_exec(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", NULL, NULL, NULL), NULL);
    must(hyperwal_seq(db, NULL, &(uint64_t){0}), NULL);
    must(sqlite3_close(db), NULL);
    faults_install();
    *state = rig;
    return 0;
}

static int remove_database(void **state)
{
    struct rig *rig = *state;
    char command[128];

    faults_remove();
    snprintf(command, sizeof(command), "rm -rf %s", rig->dir);
    free(rig);
    return system(command);
}

/* All that a process may have open, in order; ends at the first that does not. */
static int open_all(struct rig *rig, char **error)
{
    const char *source = rig->url;
    int code;

    if ((code = hyperwal_open(rig->path, 0, &rig->db, error)) != SQLITE_OK ||
        (code = hyperwal_node_open(NULL, &rig->node, error)) != SQLITE_OK ||
        (code = hyperwal_node_listen(rig->node, rig->listen, NULL, error)) != SQLITE_OK ||
        (code = hyperwal_node_serve(rig->node, "app.db", rig->path, error)) != SQLITE_OK ||
        (code = hyperwal_follow_sources(NULL, &source, 1, rig->replica, NULL, NULL, &rig->follower,
                                        error)) != SQLITE_OK ||
        (code = hyperwal_open(rig->url, 0, &rig->afar, error)) != SQLITE_OK)
        return code;
    return SQLITE_OK;
}

static void close_all(struct rig *rig)
{
    assert_int_equal(sqlite3_close(rig->reader), SQLITE_OK);
    assert_int_equal(sqlite3_close(rig->afar), SQLITE_OK);
    hyperwal_follow_close(rig->follower);
    hyperwal_node_close(rig->node);
    assert_int_equal(sqlite3_close(rig->db), SQLITE_OK);
    rig->reader = rig->afar = rig->db = NULL;
    rig->follower = NULL;
    rig->node = NULL;
}

static int insert(struct rig *rig, sqlite3 *db)
{
    unsigned row = rig->rows++;
    char sql[96];
    int code;

    assert_true(row < ROWS_MAX);
    snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%u, randomblob(%u))", row,
             50 + row * 997 % 6000);
    code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    rig->acknowledged[row] = code == SQLITE_OK;
    return code;
}

/* What goes on in the process, fault or not. */
static void work(struct rig *rig)
{
    char *json = NULL, *error = NULL;

    (void)insert(rig, rig->db);
    (void)insert(rig, rig->afar);
    (void)sqlite3_exec(rig->afar, "SELECT sum(length(b)) FROM t", NULL, NULL, NULL);
    (void)hyperwal_label(rig->db, NULL, "here", NULL);
    (void)hyperwal_follow_step(rig->follower, STEP_MS);
    (void)hyperwal_remote_status(rig->url, &json, &error);
    sqlite3_free(json);
    sqlite3_free(error);
}

/* One row more through this connection, which has to be possible soon. */
static void insert_soon(struct rig *rig, sqlite3 *db, const char *who)
{
    double deadline = now() + SOON_MS / 1000;
    int code;

    do
        code = insert(rig, db);
    while (code != SQLITE_OK && now() < deadline);
    if (code != SQLITE_OK)
        fail_msg("the fault is over, but %s does not commit: %d, %s", who,
                 sqlite3_extended_errcode(db), sqlite3_errmsg(db));
}

static int64_t row_count(sqlite3 *db, unsigned rows, const bool *acknowledged, const char *who)
{
    sqlite3_stmt *statement = NULL;
    int64_t count = 0;
    unsigned expected = 0;

    must(sqlite3_prepare_v2(db, "SELECT a FROM t ORDER BY a", -1, &statement, NULL),
         sqlite3_errmsg(db));
    while (sqlite3_step(statement) == SQLITE_ROW) {
        unsigned row = (unsigned)sqlite3_column_int(statement, 0);

        for (; expected < row; expected++)
            if (acknowledged[expected])
                fail_msg("%s has not row %u, which was acknowledged", who, expected);
        expected = row + 1;
        count++;
    }
    must(sqlite3_finalize(statement), sqlite3_errmsg(db));
    for (; expected < rows; expected++)
        if (acknowledged[expected])
            fail_msg("%s has not row %u, which was acknowledged", who, expected);
    return count;
}

/* The same handles go on, and all of them see the same. */
static void goes_on(struct rig *rig)
{
    double deadline = now() + SOON_MS / 1000;
    uint64_t seq = 0;
    int64_t count;
    int code = SQLITE_OK;

    insert_soon(rig, rig->db, "the primary");
    insert_soon(rig, rig->afar, "the remote connection");
    count = row_count(rig->db, rig->rows, rig->acknowledged, "the primary");
    do
        code = hyperwal_seq(rig->db, NULL, &seq);
    while (code != SQLITE_OK && now() < deadline);
    must(code, sqlite3_errmsg(rig->db));
    while (hyperwal_follow_seq(rig->follower) == HYPERWAL_SEQ_NONE ||
           hyperwal_follow_seq(rig->follower) < seq) {
        code = hyperwal_follow_step(rig->follower, STEP_MS);
        if (now() >= deadline)
            fail_msg("the fault is over, but the follower is at %llu of %llu: %d, %s",
                     (unsigned long long)hyperwal_follow_seq(rig->follower),
                     (unsigned long long)seq, code, hyperwal_follow_errmsg(rig->follower));
    }
    if (rig->reader == NULL)
        must(sqlite3_open_v2(rig->replica, &rig->reader, SQLITE_OPEN_READONLY, NULL), NULL);
    assert_int_equal(row_count(rig->reader, rig->rows, rig->acknowledged, "the replica"), count);
    assert_int_equal(row_count(rig->afar, rig->rows, rig->acknowledged, "the cache"), count);
}

/* ---------------------------------------------------------------------------------- tests */

/* Every so many-th fault; HYPERWAL_STRIDE makes them fewer. */
static unsigned stride_of(unsigned stride)
{
    const char *text = getenv("HYPERWAL_STRIDE");
    unsigned factor = text == NULL ? 1 : (unsigned)strtoul(text, NULL, 10);

    return factor == 0 ? stride : factor * stride;
}

static void fail_in_turn(struct rig *rig, enum faults_kind kind, unsigned count, unsigned stride)
{
    bool was_reached = true;
    unsigned reached = 0;
    char *error = NULL;

    must(open_all(rig, &error), error);
    goes_on(rig);
    for (unsigned n = 1; was_reached; n += stride_of(stride)) {
        faults_begin(kind, n, count);
        work(rig);
        was_reached = faults_end();
        reached += was_reached;
        goes_on(rig);
    }
    assert_true(reached > 0);
    close_all(rig);
    assert_int_equal(hw_alloc_live(), 0);
}

static void an_allocation_that_fails_amid_the_work_is_over_when_it_is_over(void **state)
{
    fail_in_turn(*state, FAULTS_MEMORY, ONE, 2);
}

static void a_while_without_memory_amid_the_work_is_over_when_it_is_over(void **state)
{
    fail_in_turn(*state, FAULTS_MEMORY, SOME, 17);
    fail_in_turn(*state, FAULTS_MEMORY, ALL, 31);
}

static void a_call_that_fails_amid_the_work_is_over_when_it_is_over(void **state)
{
    fail_in_turn(*state, FAULTS_CALLS, ONE, 2);
}

static void a_while_of_failing_calls_amid_the_work_is_over_when_it_is_over(void **state)
{
    fail_in_turn(*state, FAULTS_CALLS, SOME, 17);
    fail_in_turn(*state, FAULTS_CALLS, ALL, 31);
}

static void a_full_disk_amid_the_work_is_over_when_it_is_over(void **state)
{
    fail_in_turn(*state, FAULTS_SPACE, ONE, 2);
    fail_in_turn(*state, FAULTS_SPACE, ALL, 13);
}

static void begin_in_turn(struct rig *rig, enum faults_kind kind, unsigned count, unsigned stride)
{
    bool was_reached = true;
    unsigned reached = 0;

    for (unsigned n = 1; was_reached; n += stride_of(stride)) {
        char *error = NULL;
        int code;

        faults_begin(kind, n, count);
        code = open_all(rig, &error);
        was_reached = faults_end();
        reached += was_reached;
        sqlite3_free(error);
        if (!was_reached && code != SQLITE_OK)
            fail_msg("without a fault: %d", code);
        /* A file that cannot be opened for writing, SQLite opens for reading. */
        if (code == SQLITE_OK && sqlite3_db_readonly(rig->db, "main") == 0)
            goes_on(rig);
        close_all(rig);
        if (hw_alloc_live() != 0)
            fail_msg("fault %u: %ld are not freed", n, hw_alloc_live());
    }
    assert_true(reached > 0);
}

static void who_cannot_begin_for_want_of_memory_says_so_and_can_try_again(void **state)
{
    struct rig *rig = *state;

    begin_in_turn(rig, FAULTS_MEMORY, ONE, 7);
    begin_in_turn(rig, FAULTS_MEMORY, SOME, 37);
    begin_in_turn(rig, FAULTS_MEMORY, ALL, 37);
}

static void who_cannot_begin_because_calls_fail_says_so_and_can_try_again(void **state)
{
    struct rig *rig = *state;

    begin_in_turn(rig, FAULTS_CALLS, ONE, 7);
    begin_in_turn(rig, FAULTS_CALLS, SOME, 37);
    begin_in_turn(rig, FAULTS_CALLS, ALL, 37);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_database, remove_database)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(an_allocation_that_fails_amid_the_work_is_over_when_it_is_over),
        TEST(a_while_without_memory_amid_the_work_is_over_when_it_is_over),
        TEST(a_call_that_fails_amid_the_work_is_over_when_it_is_over),
        TEST(a_while_of_failing_calls_amid_the_work_is_over_when_it_is_over),
        TEST(a_full_disk_amid_the_work_is_over_when_it_is_over),
        TEST(who_cannot_begin_because_calls_fail_says_so_and_can_try_again),
        TEST(who_cannot_begin_for_want_of_memory_says_so_and_can_try_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
