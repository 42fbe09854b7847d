/*
 * Databases whose log a follower has more of: commits go on, nothing is signed until the log is
 * adopted, and then all that was committed is in it, under a higher fork.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "env/shared_page.h"
#include "hypercore/overtaken.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

static struct sim *sim;
static const char *dir = "/app.db-hyper";

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwover"};

    (void)state;
    sim = sim_new(0);
    options.base = sim_vfs(sim);
    options.env = sim_env(sim);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    return 0;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(sim);

    (void)state;
    hw_vfs_unregister("hwover");
    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_database(void)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;

    assert_int_equal(sqlite3_open_v2("file:/app.db?vfs=hwover&timeout=300", &db, flags, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA synchronous=FULL", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

static void execute(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static void commit(sqlite3 *db, int first, int count)
{
    char sql[128];

    for (int i = first; i < first + count; i++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d, randomblob(2000))", i);
        execute(db, sql);
    }
}

/* Through the PRAGMA, which waits; `why` is filled if it is in vain. */
static bool is_logged(sqlite3 *db, char why[512])
{
    sqlite3_stmt *statement = NULL;
    bool is = sqlite3_prepare_v2(db, "PRAGMA hyperwal_seq", -1, &statement, NULL) == SQLITE_OK &&
              sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_int64(statement, 0) >= 0;

    (void)snprintf(why, 512, "%s", is ? "" : sqlite3_errmsg(db));
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return is;
}

static void check_not_logged(sqlite3 *db)
{
    char why[512];

    assert_false(is_logged(db, why));
    if (strstr(why, "adopt") == NULL)
        fail_msg("the reason is \"%s\"", why);
}

static struct hw_core_head head(void)
{
    struct hw_core *core = NULL;
    struct hw_core_head out;
    struct hw_error err = {0};

    if (hw_core_open(sim_env(sim), dir, HW_CORE_READ, UINT64_MAX, &core, &err) != HW_OK)
        fail_msg("log: %s", err.message);
    out = hw_core_head(core);
    hw_core_close(core);
    return out;
}

/* As a server does that was shown a tree. */
static void overtake(uint64_t fork, uint64_t length, bool tell_worker, bool write)
{
    const struct hw_overtaken overtaken = {.fork = fork, .length = length};
    struct hw_shared_page *page = NULL;

    assert_int_equal(hw_shared_page_open(sim_env(sim), dir, true, &page, NULL), HW_OK);
    if (tell_worker)
        hw_shared_end_fork(page, fork);
    hw_shared_page_close(page);
    if (write)
        assert_int_equal(hw_overtaken_write(sim_env(sim), dir, &overtaken, NULL), HW_OK);
}

static void check_alarm(bool expected)
{
    struct hw_shared_page *page = NULL;
    char text[HW_SHARED_TEXT_SIZE];

    assert_int_equal(hw_shared_page_open(sim_env(sim), dir, true, &page, NULL), HW_OK);
    hw_shared_alarm(page, text);
    hw_shared_page_close(page);
    if ((strstr(text, "adopt") != NULL) != expected)
        fail_msg("the alarm is \"%s\"", text);
}

/* The head of the log is the database, which is closed. */
static void close_and_check(sqlite3 *db)
{
    struct hw_target target = {.kind = HW_TARGET_HEAD};
    struct hw_core *core = NULL;
    struct hw_state reached;
    struct hw_error err = {0};
    uint64_t expected = 0, restored = 0;
    char message[512];
    sqlite3 *out = NULL;

    assert_true(is_logged(db, message));
    assert_true(sim_fingerprint(db, &expected, message));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(hw_core_open(sim_env(sim), dir, HW_CORE_READ, UINT64_MAX, &core, &err), HW_OK);
    assert_int_equal(hw_core_verify(core, NULL, NULL, &err), HW_OK);
    if (hw_restore(sim_env(sim), sim_vfs(sim), core, &target, "/out.db", false, NULL, NULL,
                   &reached, &err) != HW_OK)
        fail_msg("restore: %s", err.message);
    hw_core_close(core);
    assert_int_equal(sqlite3_open_v2("/out.db", &out, SQLITE_OPEN_READONLY, sim_vfs(sim)->zName),
                     SQLITE_OK);
    assert_true(sim_fingerprint(out, &restored, message));
    assert_int_equal(sqlite3_close(out), SQLITE_OK);
    assert_true(restored == expected);
}

/* `fork` and `beyond` the length of the log: what somebody has. */
static void run(bool tell_worker, bool write, uint64_t fork, uint64_t beyond)
{
    struct hw_core_head before, after;
    struct hw_error err = {0};
    sqlite3 *db = open_database();
    char why[512];

    execute(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    commit(db, 0, 3);
    assert_true(is_logged(db, why));
    if (!tell_worker)
        assert_int_equal(sqlite3_close(db), SQLITE_OK); /* the file counts at the next open */
    before = head();
    overtake(fork, before.length + beyond, tell_worker, write);
    if (!tell_worker)
        db = open_database();

    commit(db, 10, 5);
    check_not_logged(db);
    check_alarm(true);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = open_database(); /* and again */
    commit(db, 20, 5);
    check_not_logged(db);
    check_alarm(true);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    after = head();
    assert_int_equal(after.length, before.length);
    assert_int_equal(after.fork, before.fork);

    if (hw_core_adopt(sim_env(sim), dir, &err) != HW_OK)
        fail_msg("adopt: %s", err.message);
    db = open_database();
    commit(db, 30, 5);
    close_and_check(db);
    check_alarm(false);
    assert_int_equal(head().fork, fork + 1);
    assert_true(head().length > before.length);
}

static void commits_go_on_and_nothing_is_signed_until_it_is_adopted(void **state)
{
    (void)state;
    run(true, true, 0, 5);
}

static void it_is_known_at_the_next_open(void **state)
{
    (void)state;
    run(false, true, 0, 1);
}

static void a_higher_fork_counts_too(void **state)
{
    (void)state;
    run(true, true, 6, 0);
}

static void a_disk_that_was_too_full_to_note_it_changes_nothing(void **state)
{
    (void)state;
    run(true, false, 0, 5);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(commits_go_on_and_nothing_is_signed_until_it_is_adopted),
        TEST(it_is_known_at_the_next_open),
        TEST(a_higher_fork_counts_too),
        TEST(a_disk_that_was_too_full_to_note_it_changes_nothing),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("overtaken", tests, NULL, NULL);
}
