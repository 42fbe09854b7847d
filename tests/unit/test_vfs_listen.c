/* Tests of vfs/listen.c: when a database is served from within.  The listener is the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "env/env.h"
#include "vfs/vfs.h"

static struct {
    atomic_int starts, stops, now, most, rests, resumes;
    sqlite3 *guest; /* owned; closed when the writers are put off */
    int closed;     /* with this code */
    bool fail;
    char url[64], name[64], dir[128], access[128]; /* of the last start */
} listener;

static enum hw_status start(const struct hw_vfs_served *served, void **handle, struct hw_error *err)
{
    int now;

    if (listener.fail)
        return hw_fail(err, HW_EBUSY, "the address is taken");
    (void)snprintf(listener.url, sizeof(listener.url), "%s", served->url);
    (void)snprintf(listener.name, sizeof(listener.name), "%s", served->name);
    (void)snprintf(listener.dir, sizeof(listener.dir), "%s", served->dir);
    (void)snprintf(listener.access, sizeof(listener.access), "%s",
                   served->access == NULL ? "" : served->access);
    atomic_fetch_add(&listener.starts, 1);
    now = atomic_fetch_add(&listener.now, 1) + 1;
    if (now > atomic_load(&listener.most))
        atomic_store(&listener.most, now);
    *handle = &listener;
    return HW_OK;
}

static void stop(void *handle)
{
    if (handle == &listener)
        atomic_fetch_add(&listener.stops, 1);
    atomic_fetch_sub(&listener.now, 1);
}

static void rest(void *handle, bool rests)
{
    atomic_fetch_add(rests ? &listener.rests : &listener.resumes, handle == &listener);
    if (rests && listener.guest != NULL) { /* what a committer does */
        listener.closed = sqlite3_close(listener.guest);
        listener.guest = NULL;
    }
}

static const char *address(const void *handle)
{
    return handle == &listener ? "hyper://h:1/app.db" : "";
}

static const struct hw_vfs_listener methods = {
    .start = start, .rest = rest, .stop = stop, .address = address};
static char directory[64];
static char path[128];

static int setup_with(const struct hw_vfs_listener *with, bool threaded)
{
    struct hw_vfs_options options = {
        .name = "serving", .env = hw_env_posix(), .threaded = threaded, .listener = with};

    memset(&listener, 0, sizeof(listener));
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    (void)snprintf(directory, sizeof(directory), "%s/hyperwal-listen-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(&methods, true);
}

static int setup_without_network(void **state)
{
    (void)state;
    return setup_with(NULL, true);
}

/* The thread sanitizer has no threads in a child of a process with threads. */
static int setup_without_threads(void **state)
{
    (void)state;
    return setup_with(&methods, false);
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    hw_vfs_unregister("serving");
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static int try_open(const char *parameters, sqlite3 **db)
{
    char uri[256];

    (void)snprintf(uri, sizeof(uri), "file:%s?vfs=serving%s", path, parameters);
    return sqlite3_open_v2(uri, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                           NULL);
}

static sqlite3 *open_db(const char *parameters)
{
    sqlite3 *db = NULL;

    assert_int_equal(try_open(parameters, &db), SQLITE_OK);
    return db;
}

static void assert_refused(const char *parameters, const char *why)
{
    sqlite3 *db = NULL;

    assert_int_equal(try_open(parameters, &db), SQLITE_CANTOPEN);
    if (strstr(hw_vfs_last_error(), why) == NULL)
        print_error("'%s' is not in '%s'\n", why, hw_vfs_last_error());
    assert_non_null(strstr(hw_vfs_last_error(), why));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void close_db(sqlite3 *db)
{
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void database_is_served_from_its_first_open_to_its_last_close(void **state)
{
    sqlite3 *first = open_db("&listen=tcp://h:1"), *second, *third;

    (void)state;
    assert_int_equal(listener.starts, 1);
    assert_string_equal(listener.url, "tcp://h:1");
    assert_string_equal(listener.name, "app.db");
    assert_non_null(strstr(listener.dir, "/app.db-hyper"));
    second = open_db("&listen=tcp://h:1"); /* shares it */
    third = open_db("");
    assert_int_equal(listener.starts, 1);
    close_db(first);
    close_db(second);
    assert_int_equal(listener.stops, 0);
    close_db(third);
    assert_int_equal(listener.stops, 1);
    close_db(open_db("&listen=tcp://h:1"));
    assert_int_equal(listener.starts, 2);
    assert_int_equal(listener.stops, 2);
}

static void every_url_is_served(void **state)
{
    sqlite3 *first = open_db("&listen=tcp://h:1"), *second = open_db("&listen=ipc:///h");

    (void)state;
    assert_int_equal(listener.now, 2);
    close_db(first);
    close_db(second);
    assert_int_equal(listener.now, 0);
}

static void status_tells_where_it_is_served(void **state)
{
    sqlite3 *db = open_db("&listen=tcp://h:0");
    sqlite3_stmt *statement = NULL;
    const char *text;

    (void)state;
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA hyperwal_status", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    text = (const char *)sqlite3_column_text(statement, 0);
    assert_non_null(strstr(text, "\"listen\":[\"hyper://h:1/app.db\"],"));
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    close_db(db);
}

static void open_fails_if_nobody_can_listen(void **state)
{
    (void)state;
    listener.fail = true;
    assert_refused("&listen=tcp://h:1", "listen: 'tcp://h:1': the address is taken");
    listener.fail = false;
    close_db(open_db("&listen=tcp://h:1"));
    assert_int_equal(listener.now, 0);
}

static sqlite3 *open_guest(void)
{
    sqlite3 *db = NULL;

    assert_int_equal(hw_vfs_guest_open(path, &db, SQLITE_OPEN_READWRITE, "serving"), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "SELECT * FROM sqlite_schema", NULL, NULL, NULL), SQLITE_OK);
    return db;
}

static bool is_there(const char *suffix)
{
    char name[160];

    (void)snprintf(name, sizeof(name), "%s%s", path, suffix);
    return access(name, F_OK) == 0;
}

static void who_may_write_is_handed_on_with_a_name_that_stays_good(void **state)
{
    char here[128], want[160];
    sqlite3 *db;

    (void)state;
    assert_non_null(getcwd(here, sizeof(here)));
    close_db(open_db("&listen=tcp://h:1"));
    assert_string_equal(listener.access, "");
    assert_int_equal(listener.rests, 0);
    db = open_db("&listen=tcp://h:1&access=/some/keys");
    assert_string_equal(listener.access, "/some/keys");
    close_db(db);
    assert_int_equal(listener.rests, 1);
    db = open_db("&listen=tcp://h:1&access=keys");
    (void)snprintf(want, sizeof(want), "%s/keys", here);
    assert_string_equal(listener.access, want);
    assert_refused("&listen=tcp://h:1&access=others", "serves it with access=");
    close_db(open_db("&listen=tcp://h:1&access=keys"));
    close_db(open_db("&listen=tcp://h:1"));
    assert_refused("&access=keys", "access: 'keys'");
    assert_refused("&listen=tcp://h:1&access=", "the name of a file is missing");
    close_db(db);
    assert_int_equal(listener.starts, listener.stops);
}

static void applications_last_close_ends_the_guests_before_anything_else(void **state)
{
    sqlite3 *db = open_db(""), *second;

    (void)state;
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(v)", NULL, NULL, NULL), SQLITE_OK);
    close_db(db);
    db = open_db("&listen=tcp://h:1&access=keys");
    second = open_db("");
    assert_int_equal(
        sqlite3_exec(db, "INSERT INTO t VALUES(1); PRAGMA hyperwal_seq", NULL, NULL, NULL),
        SQLITE_OK); /* it is in the log: nothing else keeps the WAL */
    listener.guest = open_guest();
    close_db(db);
    assert_non_null(listener.guest);
    assert_int_equal(listener.stops, 0);
    close_db(second);
    assert_null(listener.guest);
    assert_int_equal(listener.closed, SQLITE_OK);
    assert_int_equal(listener.rests, 1);
    assert_int_equal(listener.stops, 1);
    assert_false(is_there("-wal")); /* the guest was the last to close, as SQLite saw it */
}

static void guests_alone_keep_nobody_served_and_the_log_open(void **state)
{
    sqlite3 *db = open_db("&listen=tcp://h:1"), *guest;

    (void)state;
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(v)", NULL, NULL, NULL), SQLITE_OK);
    guest = open_guest();
    close_db(db);
    assert_int_equal(listener.stops, 1);
    assert_int_equal(sqlite3_exec(guest, "INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_OK);
    db = open_db("&listen=tcp://h:1");
    close_db(guest);
    assert_int_equal(listener.starts, 2);
    assert_int_equal(listener.stops, 1);
    close_db(db);
    assert_int_equal(listener.stops, 2);
}

static void program_without_a_network_says_so(void **state)
{
    (void)state;
    assert_refused("&listen=tcp://h:1", "hyperwal serve");
}

static void what_has_no_log_of_its_own_is_not_served(void **state)
{
    sqlite3 *db = open_db("");
    char command[256];

    (void)state;
    assert_int_equal(sqlite3_exec(db, "CREATE TABLE t(v)", NULL, NULL, NULL), SQLITE_OK);
    assert_refused("&mode=ro&listen=tcp://h:1", "read-only");
    assert_refused("&immutable=1&listen=tcp://h:1", "immutable");
    close_db(db);
    (void)snprintf(command, sizeof(command), "touch %s-hyper/replica", path);
    assert_int_equal(system(command), 0);
    assert_refused("&listen=tcp://h:1", "this is a replica");
    assert_int_equal(listener.starts, 0);
}

enum { THREADS = 4, ROUNDS = 40 };

static void *open_and_close(void *ctx)
{
    intptr_t failed = 0;

    (void)ctx;
    for (int i = 0; i < ROUNDS; i++) {
        sqlite3 *db = NULL;

        failed += try_open("&listen=tcp://h:1&access=/keys", &db) != SQLITE_OK;
        failed += atomic_load(&listener.now) != 1; /* as long as one of us is open */
        failed += sqlite3_close(db) != SQLITE_OK;
    }
    return (void *)failed;
}

static void threads_that_open_and_close_at_once_share_one_listener(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed = NULL;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(listener.most, 1);
    assert_true(listener.rests >= listener.stops);
    assert_int_equal(listener.rests, listener.stops + listener.resumes); /* each came to an end */
    assert_int_equal(listener.now, 0);
    assert_int_equal(listener.starts, listener.stops);
}

static void child_after_fork_serves_anew_and_leaves_the_parent_alone(void **state)
{
    sqlite3 *db = open_db("&listen=tcp://h:1");
    int status;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        sqlite3 *own = NULL;
        int ok =
            try_open("&listen=tcp://h:1", &own) == SQLITE_OK && atomic_load(&listener.starts) == 2;

        _exit(ok && sqlite3_close(own) == SQLITE_OK && atomic_load(&listener.stops) == 1 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(listener.now, 1);
    close_db(db);
    assert_int_equal(listener.now, 0);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(database_is_served_from_its_first_open_to_its_last_close),
        TEST(every_url_is_served),
        TEST(status_tells_where_it_is_served),
        TEST(open_fails_if_nobody_can_listen),
        TEST(who_may_write_is_handed_on_with_a_name_that_stays_good),
        TEST(applications_last_close_ends_the_guests_before_anything_else),
        TEST(guests_alone_keep_nobody_served_and_the_log_open),
        cmocka_unit_test_setup_teardown(program_without_a_network_says_so, setup_without_network,
                                        teardown),
        TEST(what_has_no_log_of_its_own_is_not_served),
        TEST(threads_that_open_and_close_at_once_share_one_listener),
        cmocka_unit_test_setup_teardown(child_after_fork_serves_anew_and_leaves_the_parent_alone,
                                        setup_without_threads, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
