/* The C API of logs and followers, over real files: what the program does not show. */
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "hyperwal.h"

enum { LONG_MS = 20000 };

struct fixture {
    char dir[64];
    char path[96], replica[96], out[96];
    sqlite3 *db; /* open through the VFS; NULL: not opened yet */
};

static void sql(sqlite3 *db, const char *text)
{
    char *error = NULL;

    if (sqlite3_exec(db, text, NULL, NULL, &error) != SQLITE_OK)
        fail_msg("%s: %s", text, error);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->dir, sizeof(f->dir), "/tmp/hyperwal-api-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/app.db", f->dir);
    snprintf(f->replica, sizeof(f->replica), "%s/replica.db", f->dir);
    snprintf(f->out, sizeof(f->out), "%s/out.db", f->dir);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];

    sqlite3_close_v2(f->db);
    snprintf(command, sizeof(command), "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

/* The database with its log, and `rows` transactions; the seq of the last. */
static uint64_t primary_open(struct fixture *f, unsigned rows)
{
    char *error = NULL;
    uint64_t seq = 0;

    if (f->db == NULL) {
        if (hyperwal_open(f->path, 0, &f->db, &error) != SQLITE_OK)
            fail_msg("%s", error);
        sql(f->db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)");
        sql(f->db, "PRAGMA journal_mode=WAL");
    }
    for (unsigned i = 0; i < rows; i++)
        sql(f->db, "INSERT INTO t(b) VALUES(randomblob(100))");
    assert_int_equal(hyperwal_seq(f->db, NULL, &seq), SQLITE_OK);
    return seq;
}

/* Wait until the log has its first snapshot. */
static void snapshot_wait(hyperwal_log *log, hyperwal_head *head)
{
    for (;;) {
        assert_int_equal(hyperwal_log_head(log, head), SQLITE_OK);
        if (head->snapshot_seq != HYPERWAL_SEQ_NONE)
            return;
        assert_int_equal(hyperwal_log_wait(log, head->length, LONG_MS), SQLITE_OK);
    }
}

static hyperwal_log *log_open(const char *src)
{
    hyperwal_log *log = NULL;
    char *error = NULL;

    if (hyperwal_log_open(src, &log, &error) != SQLITE_OK)
        fail_msg("%s", error);
    return log;
}

static hyperwal_follower *follow(struct fixture *f)
{
    hyperwal_follower *follower = NULL;
    char *error = NULL;

    if (hyperwal_follow_open(f->path, f->replica, NULL, NULL, &follower, &error) != SQLITE_OK)
        fail_msg("%s", error);
    return follower;
}

/* Step until `seq` is applied. */
static void follow_to(hyperwal_follower *follower, uint64_t seq)
{
    while (hyperwal_follow_seq(follower) == HYPERWAL_SEQ_NONE ||
           hyperwal_follow_seq(follower) < seq) {
        int code = hyperwal_follow_step(follower, LONG_MS);

        if (code != SQLITE_OK)
            fail_msg("step: %d: %s", code, hyperwal_follow_errmsg(follower));
    }
}

static int64_t count(const char *path)
{
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;
    int64_t rows;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, "unix"), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    rows = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return rows;
}

/* -------------------------------------------------------------------------------- times */

static void times_are_read_as_people_write_them(void **state)
{
    int64_t a = 0, b = 0;

    (void)state;
    assert_int_equal(hyperwal_time_parse("2026-11-22T10:00:00Z", &a), SQLITE_OK);
    assert_int_equal(a, 1795341600000);
    assert_int_equal(hyperwal_time_parse("2026-11-22 10:00:00.5", &b), SQLITE_OK);
    assert_int_equal(b, a + 500);
    assert_int_equal(hyperwal_time_parse("1795341600000", &b), SQLITE_OK);
    assert_int_equal(b, a);
    assert_int_equal(hyperwal_time_parse("noon", &b), SQLITE_MISUSE);
    assert_int_equal(hyperwal_time_parse("", &b), SQLITE_MISUSE);
    assert_int_equal(hyperwal_time_parse(NULL, &b), SQLITE_MISUSE);
}

/* --------------------------------------------------------------------------------- logs */

static void a_log_that_is_not_there_is_told_by_its_path(void **state)
{
    struct fixture *f = *state;
    hyperwal_log *log = NULL;
    char *error = NULL;

    assert_int_equal(hyperwal_log_open(f->path, &log, &error), SQLITE_CANTOPEN);
    assert_null(log);
    assert_non_null(strstr(error, f->path));
    sqlite3_free(error);
    assert_int_equal(hyperwal_log_open("hyper://host:x/app", &log, &error), SQLITE_MISUSE);
    assert_non_null(strstr(error, "host:x"));
    sqlite3_free(error);
    assert_int_equal(hyperwal_log_open("/nowhere/at/all", &log, NULL), SQLITE_CANTOPEN);
}

static void every_block_belongs_to_the_entry_that_the_walk_showed(void **state)
{
    struct fixture *f = *state;
    uint64_t last = primary_open(f, 30);
    hyperwal_log *log = log_open(f->path);
    hyperwal_head head;
    hyperwal_entry entry, again;

    snapshot_wait(log, &head);
    assert_true(head.length > last);
    assert_true(head.has_key != 0);
    assert_int_equal(head.seq, last);
    for (uint64_t seq = 0; seq < head.length;) {
        uint64_t first = seq;

        assert_int_equal(hyperwal_log_next(log, &seq, &entry), SQLITE_OK);
        assert_int_equal(entry.seq - entry.blocks + 1, first);
        assert_int_equal(seq, entry.seq + 1);
        for (uint64_t block = first; block < seq; block++) {
            uint64_t from = block;

            assert_int_equal(hyperwal_log_next(log, &from, &again), SQLITE_OK);
            assert_int_equal(again.seq, entry.seq);
            assert_int_equal(from, seq);
        }
    }
    assert_int_equal(hyperwal_log_next(log, &head.length, &entry), SQLITE_DONE);
    hyperwal_log_close(log);
}

static void waiting_for_blocks_that_do_not_come_ends_in_time(void **state)
{
    struct fixture *f = *state;
    hyperwal_head head;
    hyperwal_log *log;

    primary_open(f, 1);
    log = log_open(f->path);
    snapshot_wait(log, &head);
    assert_int_equal(hyperwal_log_wait(log, head.length, 0), SQLITE_BUSY);
    assert_int_equal(hyperwal_log_wait(log, head.length, 5), SQLITE_BUSY);
    assert_non_null(strstr(hyperwal_log_errmsg(log), "-hyper"));
    primary_open(f, 1);
    assert_int_equal(hyperwal_log_wait(log, head.length, LONG_MS), SQLITE_OK);
    hyperwal_log_close(log);
}

static int stop_at_once(void *ctx, uint64_t done, uint64_t total)
{
    unsigned *calls = ctx;

    assert_true(done <= total);
    (*calls)++;
    return 0;
}

static void a_progress_function_that_says_stop_leaves_nothing_behind(void **state)
{
    struct fixture *f = *state;
    unsigned calls = 0;
    hyperwal_head head;
    hyperwal_log *log;

    primary_open(f, 20);
    log = log_open(f->path);
    snapshot_wait(log, &head);
    assert_int_equal(hyperwal_restore(log, NULL, f->out, 0, stop_at_once, &calls, NULL),
                     SQLITE_INTERRUPT);
    assert_true(calls > 0);
    assert_int_equal(access(f->out, F_OK), -1);
    assert_int_equal(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, stop_at_once, &calls),
                     SQLITE_INTERRUPT);
    assert_int_equal(hyperwal_restore(log, NULL, f->out, 0, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(count(f->out), 20);
    hyperwal_log_close(log);
}

/* ------------------------------------------------------------------------------- follow */

static void a_step_applies_what_there_is_and_then_says_done(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = primary_open(f, 10);
    hyperwal_follower *follower = follow(f);

    follow_to(follower, seq);
    while (hyperwal_follow_step(follower, 0) == SQLITE_OK) {
        /* a snapshot may still be on its way */
    }
    assert_int_equal(hyperwal_follow_step(follower, 1), SQLITE_DONE);
    assert_int_equal(hyperwal_follow_lag(follower), 0);
    seq = primary_open(f, 5);
    assert_true(hyperwal_follow_lag(follower) >= 5);
    follow_to(follower, seq);
    assert_int_equal(hyperwal_follow_seq(follower), seq);
    assert_int_equal(count(f->replica), 15);
    hyperwal_follow_close(follower);
}

static void a_follower_that_comes_before_the_first_snapshot_waits_for_it(void **state)
{
    struct fixture *f = *state;
    hyperwal_follower *follower;
    uint64_t seq;

    /* The log is made when the database is opened, the snapshot when it has its first page. */
    assert_int_equal(hyperwal_open(f->path, 0, &f->db, NULL), SQLITE_OK);
    sql(f->db, "SELECT 1 FROM sqlite_schema");
    follower = follow(f);
    assert_int_equal(hyperwal_follow_seq(follower), HYPERWAL_SEQ_NONE);
    assert_int_equal(hyperwal_follow_step(follower, 1), SQLITE_DONE);
    assert_int_equal(access(f->replica, F_OK), -1);
    sql(f->db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    seq = primary_open(f, 3);
    follow_to(follower, seq);
    assert_int_equal(count(f->replica), 3);
    hyperwal_follow_close(follower);
}

static void an_interrupt_before_the_step_is_not_lost(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = primary_open(f, 1);
    hyperwal_follower *follower = follow(f);

    follow_to(follower, seq);
    hyperwal_follow_interrupt(follower);
    assert_int_equal(hyperwal_follow_step(follower, LONG_MS), SQLITE_INTERRUPT);
    assert_int_equal(hyperwal_follow_step(follower, 0) & ~SQLITE_DONE, SQLITE_OK); /* once only */
    hyperwal_follow_close(follower);
}

static void *interrupter(void *argument)
{
    hyperwal_follow_interrupt(argument);
    return NULL;
}

static void an_interrupt_ends_a_waiting_step(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = primary_open(f, 1);
    hyperwal_follower *follower = follow(f);
    pthread_t thread;
    int code;

    follow_to(follower, seq);
    for (int i = 0; i < 200; i++) { /* before, in and after the moment when it falls asleep */
        assert_int_equal(pthread_create(&thread, NULL, interrupter, follower), 0);
        do
            code = hyperwal_follow_step(follower, LONG_MS);
        while (code == SQLITE_OK);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(code, SQLITE_INTERRUPT);
    }
    hyperwal_follow_close(follower);
}

static void a_second_follower_of_a_replica_is_refused(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = primary_open(f, 1);
    hyperwal_follower *follower = follow(f), *second = NULL;
    char *error = NULL;

    follow_to(follower, seq);
    assert_int_equal(hyperwal_follow_open(f->path, f->replica, NULL, NULL, &second, &error),
                     SQLITE_BUSY);
    assert_non_null(strstr(error, f->replica));
    sqlite3_free(error);
    hyperwal_follow_close(follower);
}

static void a_replica_is_known_by_its_file(void **state)
{
    struct fixture *f = *state;
    uint64_t seq = primary_open(f, 2), applied = 0, sum = 0;
    hyperwal_follower *follower = follow(f);
    hyperwal_log *log = log_open(f->path), *same;
    unsigned char key[32];
    hyperwal_head head;

    follow_to(follower, seq);
    hyperwal_follow_close(follower);
    snapshot_wait(log, &head);
    assert_int_equal(hyperwal_replica_info(f->path, 0, NULL, NULL, NULL, NULL), SQLITE_NOTFOUND);
    assert_int_equal(hyperwal_replica_info(f->replica, 1, key, &applied, &sum, NULL), SQLITE_OK);
    assert_memory_equal(key, head.key, sizeof(key));
    assert_int_equal(applied, seq);
    assert_true(sum == head.sum);
    same = log_open(f->replica); /* the log that it was fed from */
    assert_int_equal(hyperwal_log_head(same, &head), SQLITE_OK);
    assert_memory_equal(key, head.key, sizeof(key));
    hyperwal_log_close(same);
    hyperwal_log_close(log);
}

/* -------------------------------------------------------------------------------- adopt */

static void a_log_in_use_is_not_adopted_and_a_copied_one_goes_on_as_a_new_fork(void **state)
{
    struct fixture *f = *state;
    char command[500], copy[110], *error = NULL;
    uint64_t fork, seq = 0;
    hyperwal_head head;
    hyperwal_log *log;
    sqlite3 *db = NULL;

    primary_open(f, 3);
    log = log_open(f->path);
    snapshot_wait(log, &head);
    fork = head.fork;
    hyperwal_log_close(log);
    assert_int_equal(hyperwal_log_adopt(f->path, &error), SQLITE_BUSY);
    sqlite3_free(error);
    sqlite3_close_v2(f->db);
    f->db = NULL;

    snprintf(copy, sizeof(copy), "%s/copy.db", f->dir);
    snprintf(command, sizeof(command), "cp %s %s && cp -rp %s-hyper %s-hyper", f->path, copy,
             f->path, copy);
    assert_int_equal(system(command), 0);
    assert_int_not_equal(hyperwal_open(copy, 0, &db, NULL), SQLITE_OK);
    if (hyperwal_log_adopt(copy, &error) != SQLITE_OK)
        fail_msg("%s", error);
    if (hyperwal_open(copy, 0, &db, &error) != SQLITE_OK)
        fail_msg("%s", error);
    sql(db, "INSERT INTO t(b) VALUES(1)");
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    sqlite3_close_v2(db);
    log = log_open(copy);
    assert_int_equal(hyperwal_log_head(log, &head), SQLITE_OK);
    assert_true(head.fork > fork);
    assert_int_equal(head.seq, seq);
    assert_int_equal(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL), SQLITE_OK);
    assert_int_equal(hyperwal_restore(log, NULL, f->out, 0, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(count(f->out), 4);
    hyperwal_log_close(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read_as_people_write_them),
        cmocka_unit_test_setup_teardown(a_log_that_is_not_there_is_told_by_its_path, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(every_block_belongs_to_the_entry_that_the_walk_showed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(waiting_for_blocks_that_do_not_come_ends_in_time, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_progress_function_that_says_stop_leaves_nothing_behind,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_step_applies_what_there_is_and_then_says_done, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_follower_that_comes_before_the_first_snapshot_waits_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupt_before_the_step_is_not_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupt_ends_a_waiting_step, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_follower_of_a_replica_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_replica_is_known_by_its_file, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_log_in_use_is_not_adopted_and_a_copied_one_goes_on_as_a_new_fork, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
