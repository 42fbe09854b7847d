/* Whatever allocation fails while a log is read, restored or followed: an error and no leak. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "hyperwal.h"

enum { ROWS = 40 };

static char dir[64], path[96], out[96], replica[96]; /* one log for all tests, made once */

static struct {
    unsigned count;   /* allocations asked for */
    unsigned fail_at; /* the one that fails; 0: none */
    bool for_ever;    /* and all after it */
} plan;

static bool allow(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    plan.count++;
    return plan.for_ever ? plan.count < plan.fail_at : plan.count != plan.fail_at;
}

/* The database, its log with a snapshot, and nobody who has them open. */
static int make_log(void **state)
{
    hyperwal_log *log = NULL;
    hyperwal_head head = {0};
    sqlite3 *db = NULL;
    uint64_t seq;

    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/hyperwal-faults-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/app.db", dir);
    snprintf(out, sizeof(out), "%s/out.db", dir);
    snprintf(replica, sizeof(replica), "%s/replica.db", dir);
    assert_int_equal(hyperwal_open(path, 0, &db, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", 0, 0, 0), 0);
    for (int i = 0; i < ROWS; i++)
        assert_int_equal(sqlite3_exec(db, "INSERT INTO t(b) VALUES(randomblob(500))", 0, 0, 0), 0);
    assert_int_equal(hyperwal_seq(db, NULL, &seq), SQLITE_OK);
    assert_int_equal(hyperwal_label(db, NULL, "here", NULL), SQLITE_OK);
    assert_int_equal(hyperwal_snapshot(db, NULL, NULL), SQLITE_OK);
    sqlite3_close_v2(db);
    assert_int_equal(hyperwal_log_open(path, &log, NULL), SQLITE_OK);
    assert_int_equal(hyperwal_log_head(log, &head), SQLITE_OK);
    assert_true(head.snapshot_seq != HYPERWAL_SEQ_NONE);
    hyperwal_log_close(log);
    return 0;
}

static int remove_log(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static void remove_made(void)
{
    char command[600];

    snprintf(command, sizeof(command), "rm -rf %s %s %s-wal %s-shm %s-hyper", out, replica, replica,
             replica, replica);
    assert_int_equal(system(command), 0);
}

/* Each allocation in turn, or every `stride`-th with all that follow it. */
static void fail_each(int (*scenario)(void), bool for_ever, unsigned stride)
{
    bool was_reached = true;

    plan.for_ever = for_ever;
    for (unsigned n = 1; was_reached; n += stride) {
        int code;

        plan.count = 0;
        plan.fail_at = n;
        hw_alloc_set_hook(allow, NULL);
        code = scenario();
        was_reached = plan.count >= n;
        if (hw_alloc_live() != 0)
            fail_msg("allocation %u: %ld are not freed", n, hw_alloc_live());
        hw_alloc_set_hook(NULL, NULL);
        if (!was_reached && code != SQLITE_OK)
            fail_msg("without a fault: %d", code);
        if (code == HYPERWAL_CORRUPT || code == HYPERWAL_NOTARGET)
            fail_msg("allocation %u: told as %d", n, code);
        remove_made();
    }
}

/* Run `scenario`, which returns an SQLite code, with each allocation failing in turn. */
static void for_each_allocation(int (*scenario)(void))
{
    fail_each(scenario, false, 1);
    fail_each(scenario, true, 3);
}

static int walk(void)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    hyperwal_entry entry;
    char *error = NULL;
    int code = hyperwal_log_open(path, &log, &error);

    sqlite3_free(error);
    if (code == SQLITE_OK)
        code = hyperwal_log_head(log, &head);
    for (uint64_t seq = 0; code == SQLITE_OK;)
        code = hyperwal_log_next(log, &seq, &entry);
    hyperwal_log_close(log);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static void walking_bears_the_loss_of_any_allocation(void **state)
{
    (void)state;
    for_each_allocation(walk);
}

static int verify(void)
{
    hyperwal_log *log = NULL;
    int code = hyperwal_log_open(path, &log, NULL);

    if (code == SQLITE_OK)
        code = hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL);
    hyperwal_log_close(log);
    return code;
}

static void verifying_bears_the_loss_of_any_allocation(void **state)
{
    (void)state;
    for_each_allocation(verify);
}

static int restore(void)
{
    hyperwal_target target = {.kind = HYPERWAL_LABEL, .label = "here"};
    hyperwal_log *log = NULL;
    hyperwal_entry reached;
    int code = hyperwal_log_open(path, &log, NULL);

    if (code == SQLITE_OK)
        code = hyperwal_restore(log, &target, out, 0, NULL, NULL, &reached);
    hyperwal_log_close(log);
    if ((code == SQLITE_OK) != (access(out, F_OK) == 0))
        fail_msg("code %d, but the file tells another story", code);
    return code;
}

static void restoring_bears_the_loss_of_any_allocation(void **state)
{
    (void)state;
    for_each_allocation(restore);
}

static int follow(void)
{
    hyperwal_follower *follower = NULL;
    int code = hyperwal_follow_open(path, replica, NULL, NULL, &follower, NULL);

    while (code == SQLITE_OK)
        code = hyperwal_follow_step(follower, 0);
    hyperwal_follow_close(follower);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

static void following_bears_the_loss_of_any_allocation(void **state)
{
    (void)state;
    for_each_allocation(follow);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walking_bears_the_loss_of_any_allocation),
        cmocka_unit_test(verifying_bears_the_loss_of_any_allocation),
        cmocka_unit_test(restoring_bears_the_loss_of_any_allocation),
        cmocka_unit_test(following_bears_the_loss_of_any_allocation),
    };

    return cmocka_run_group_tests(tests, make_log, remove_log);
}
