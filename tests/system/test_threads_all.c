/*
 * All that the library can do, at once: threads of one process that write, serve, follow, read the
 * past and a database elsewhere, open and close, and fork, with a second process beside them; in
 * the two modes in which SQLite bears threads.  Each of them runs in a child that chooses its mode.
 */
#include <pthread.h>
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

enum { UPDATES = 8, TRIES = 2000, LONG_MS = 60000, LONG_S = 300 };

/* Who writes; each has a row. */
enum { LOCAL, SHARED_ONE, SHARED_OTHER, REMOTE, BESIDE, BESIDE_REMOTE, FORKED };

/*
 * The thread sanitizer cannot start threads in a child, which it needs; the address sanitizer does
 * not hold its allocator's locks while a process forks: a child of busy threads hangs there.
 */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { COUNTING = FORKED, CAN_FORK = 0 };
#else
enum { COUNTING = FORKED + 1, CAN_FORK = 1 };
#endif

static char directory[64], path[96], copies[2][96];
static char url[128];

static int setup(void **state)
{
    char place[96];

    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/hyperwal-all-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof(path), "%s/app.db", directory);
    for (int i = 0; i < 2; i++)
        (void)snprintf(copies[i], sizeof(copies[i]), "%s/copy%d.db", directory, i);
    (void)snprintf(place, sizeof(place), "%s/identity", directory);
    assert_int_equal(setenv("HYPERWAL_IDENTITY", place, 1), 0);
    (void)snprintf(place, sizeof(place), "%s/cache", directory);
    return setenv("HYPERWAL_CACHE", place, 1);
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

/* ----------------------------------------------------------------------- what is done */

struct actor {
    void (*act)(struct actor *actor);
    const char *name; /* of what it works on */
    int who;          /* the row that it counts in */
    sqlite3 *shared;  /* borrowed; NULL: it opens its own */
    pthread_t thread;
    char wrong[300]; /* "": nothing */
};

static atomic_int writing; /* writers that are not done; the others go on as long */

static void wrong(struct actor *actor, const char *what, const char *why)
{
    if (actor->wrong[0] == '\0')
        (void)snprintf(actor->wrong, sizeof(actor->wrong), "%s: %s: %s", actor->name, what,
                       why != NULL ? why : "");
}

static sqlite3 *open_at(struct actor *actor, const char *name)
{
    char *error = NULL;
    sqlite3 *db = NULL;

    if (hyperwal_open(name, 0, &db, &error) != SQLITE_OK)
        wrong(actor, "open", error);
    else
        (void)sqlite3_busy_timeout(db, LONG_MS);
    sqlite3_free(error);
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

/* A trigger notes each count: one snapshot has as many notes as counts. */
static void look(struct actor *actor, sqlite3 *db)
{
    if (db != NULL &&
        number(db, "SELECT (SELECT sum(k) FROM n) = (SELECT count(*) FROM noted)") != 1)
        wrong(actor, "counts and notes differ", sqlite3_errmsg(db));
}

/* Count so often in one's row.  From afar one may come too late, and tries again. */
static void count(struct actor *actor, int times)
{
    sqlite3 *db = actor->shared != NULL ? actor->shared : open_at(actor, actor->name);
    char sql[64];
    int done = 0, code = SQLITE_OK;

    (void)snprintf(sql, sizeof(sql), "UPDATE n SET k = k + 1 WHERE who = %d", actor->who);
    for (int i = 0; db != NULL && i < TRIES && done < times; i++) {
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
        done += code == SQLITE_OK;
        if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY)
            break;
    }
    if (done < times)
        wrong(actor, "write", db != NULL ? sqlite3_errmsg(db) : "");
    if (actor->shared == NULL && sqlite3_close(db) != SQLITE_OK)
        wrong(actor, "close", "it is in use");
}

static void write_to_end(struct actor *actor)
{
    count(actor, UPDATES);
    atomic_fetch_sub(&writing, 1);
}

static uint64_t seq_of(struct actor *actor, sqlite3 *db)
{
    uint64_t seq = 0;
    int code = SQLITE_BUSY;

    for (int i = 0; db != NULL && code == SQLITE_BUSY && i < TRIES; i++)
        code = hyperwal_seq(db, NULL, &seq);
    if (code != SQLITE_OK)
        wrong(actor, "seq", sqlite3_errstr(code));
    return seq;
}

static void read_over_and_over(struct actor *actor)
{
    sqlite3 *db = open_at(actor, actor->name);

    do
        look(actor, db);
    while (db != NULL && atomic_load(&writing) > 0);
    (void)sqlite3_close(db);
}

static void open_and_close(struct actor *actor)
{
    do {
        sqlite3 *db = open_at(actor, actor->name);

        look(actor, db);
        if (sqlite3_close(db) != SQLITE_OK)
            wrong(actor, "close", NULL);
    } while (actor->wrong[0] == '\0' && atomic_load(&writing) > 0);
}

static void read_the_past(struct actor *actor)
{
    sqlite3 *db = open_at(actor, actor->name);
    char uri[200];

    do {
        sqlite3 *past;

        (void)snprintf(uri, sizeof(uri), "file:%s?vfs=hyperwal&seq=%llu", actor->name,
                       (unsigned long long)seq_of(actor, db));
        past = open_at(actor, uri);
        look(actor, past);
        (void)sqlite3_close(past);
    } while (actor->wrong[0] == '\0' && atomic_load(&writing) > 0);
    (void)sqlite3_close(db);
}

static void ask_for_the_status(struct actor *actor)
{
    sqlite3 *db = open_at(actor, path);
    hyperwal_log *log = NULL;
    hyperwal_head head;
    char *json = NULL, *error = NULL;

    if (hyperwal_log_open(path, &log, &error) != SQLITE_OK)
        wrong(actor, "log", error);
    do {
        if (hyperwal_status(db, NULL, &json) != SQLITE_OK)
            wrong(actor, "status", sqlite3_errmsg(db));
        sqlite3_free(json);
        if (hyperwal_log_head(log, &head) != SQLITE_OK)
            wrong(actor, "head", hyperwal_log_errmsg(log));
        if (hyperwal_remote_status(url, &json, &error) != SQLITE_OK)
            wrong(actor, "status from afar", error);
        sqlite3_free(json);
    } while (actor->wrong[0] == '\0' && atomic_load(&writing) > 0);
    hyperwal_log_close(log);
    (void)sqlite3_close(db);
}

/* Until it has all that was written. */
static void follow(struct actor *actor)
{
    const char *copy = copies[actor->who];
    hyperwal_follower *follower = NULL;
    sqlite3 *db = open_at(actor, path);
    uint64_t last = UINT64_MAX;
    char *error = NULL;
    int code = SQLITE_OK;

    if (hyperwal_follow_open(actor->name, copy, NULL, NULL, &follower, &error) != SQLITE_OK)
        wrong(actor, "follow", error);
    while (actor->wrong[0] == '\0' && hyperwal_follow_seq(follower) != last) {
        code = hyperwal_follow_step(follower, 50);
        if (code != SQLITE_OK && code != SQLITE_DONE)
            wrong(actor, "follow", hyperwal_follow_errmsg(follower));
        if (last == UINT64_MAX && atomic_load(&writing) == 0)
            last = seq_of(actor, db);
    }
    hyperwal_follow_close(follower);
    (void)sqlite3_close(db);
}

/* Children that open anew, one after the other; each counts once. */
static void fork_children(struct actor *actor)
{
    for (int i = 0; CAN_FORK && i < UPDATES; i++) {
        pid_t child = fork();
        int status = 0;

        if (child == 0) {
            struct actor own = {.name = actor->name, .who = FORKED};

            (void)alarm(LONG_S / 2); /* ends it if it hangs */
            count(&own, 1);
            (void)fprintf(stderr, "%s%s", own.wrong, own.wrong[0] == '\0' ? "" : "\n");
            _exit(own.wrong[0] == '\0' ? 0 : 1);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
            wrong(actor, "a child", WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");
    }
    atomic_fetch_sub(&writing, 1);
}

/* --------------------------------------------------------------------- who does it */

static void *run(void *ctx)
{
    struct actor *actor = ctx;

    actor->act(actor);
    return NULL;
}

/* Runs them all to their end; false with words if something was wrong. */
static bool run_all(struct actor *actors, size_t count)
{
    bool good = true;

    for (size_t i = 0; i < count; i++)
        if (pthread_create(&actors[i].thread, NULL, run, &actors[i]) != 0)
            abort(); /* the others would wait for it */
    for (size_t i = 0; i < count; i++)
        (void)pthread_join(actors[i].thread, NULL);
    for (size_t i = 0; i < count; i++) {
        if (actors[i].wrong[0] != '\0')
            (void)fprintf(stderr, "%s\n", actors[i].wrong);
        good = good && actors[i].wrong[0] == '\0';
    }
    return good;
}

/* The second process; it has nothing of the first one but its memory before it opened anything. */
static pid_t start_beside(int *go)
{
    int ends[2];
    pid_t child;

    if (pipe(ends) != 0)
        return -1;
    child = fork();
    if (child == 0) {
        struct actor actors[] = {
            {.act = write_to_end, .name = path, .who = BESIDE},
            {.act = write_to_end, .name = url, .who = BESIDE_REMOTE},
            {.act = read_over_and_over, .name = url},
            {.act = read_the_past, .name = path},
        };

        close(ends[1]);
        atomic_store(&writing, 2);
        if (read(ends[0], url, sizeof(url)) != sizeof(url))
            _exit(0); /* the first one did not come so far */
        _exit(run_all(actors, sizeof(actors) / sizeof(actors[0])) ? 0 : 1);
    }
    close(ends[0]);
    *go = ends[1];
    return child;
}

/* The database, which its process serves. */
static sqlite3 *make(void)
{
    struct actor maker = {.name = "make"};
    char uri[300], rules[96], *json = NULL, *begin;
    FILE *file;
    sqlite3 *db;

    (void)snprintf(rules, sizeof(rules), "%s/rules", directory);
    file = fopen(rules, "w");
    if (file == NULL || fputs("write app.db any\n", file) < 0 || fclose(file) != 0)
        return NULL;
    (void)snprintf(uri, sizeof(uri), "file:%s?listen=tcp://127.0.0.1:0&access=%s", path, rules);
    db = open_at(&maker, uri);
    if (db == NULL ||
        sqlite3_exec(db,
                     "CREATE TABLE n(who INTEGER PRIMARY KEY, k); CREATE TABLE noted(who);"
                     "WITH w(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM w WHERE i < 6)"
                     "INSERT INTO n SELECT i, 0 FROM w;"
                     "CREATE TRIGGER counted AFTER UPDATE ON n BEGIN "
                     "INSERT INTO noted VALUES(new.who); END",
                     NULL, NULL, NULL) != SQLITE_OK ||
        hyperwal_snapshot(db, NULL, NULL) != SQLITE_OK ||
        hyperwal_status(db, NULL, &json) != SQLITE_OK)
        return NULL;
    begin = strstr(json, "\"hyper://");
    if (begin != NULL)
        (void)snprintf(url, sizeof(url), "%.*s", (int)strcspn(begin + 1, "\""), begin + 1);
    sqlite3_free(json);
    return begin != NULL ? db : NULL;
}

/* Make both replicas, so that others can open them. */
static bool make_copies(void)
{
    const char *sources[] = {path, url};

    for (int i = 0; i < 2; i++) {
        hyperwal_follower *follower = NULL;
        char *error = NULL;
        int code = hyperwal_follow_open(sources[i], copies[i], NULL, NULL, &follower, &error);

        while (code == SQLITE_OK)
            code = hyperwal_follow_step(follower, 1000);
        if (code != SQLITE_DONE)
            (void)fprintf(stderr, "%s: %s\n", sources[i], error != NULL ? error : "");
        hyperwal_follow_close(follower);
        if (code != SQLITE_DONE)
            return false;
    }
    return true;
}

static bool log_is_whole(void)
{
    hyperwal_log *log = NULL;
    bool good = hyperwal_log_open(path, &log, NULL) == SQLITE_OK &&
                hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL) == SQLITE_OK;

    hyperwal_log_close(log);
    return good;
}

/* Everybody counted to the end, as each of the copies says. */
static bool all_is_there(void)
{
    const char *names[] = {path, copies[0], copies[1], url};
    struct actor looker = {.name = "the end"};
    int64_t expected = (int64_t)UPDATES * COUNTING;

    for (int i = 0; i < 4; i++) {
        sqlite3 *db = open_at(&looker, names[i]);
        int64_t counted = db != NULL ? number(db, "SELECT sum(k) FROM n") : -1;

        look(&looker, db);
        (void)sqlite3_close(db);
        if (counted != expected)
            wrong(&looker, names[i], "it is not all there");
    }
    if (looker.wrong[0] != '\0')
        (void)fprintf(stderr, "%s\n", looker.wrong);
    return looker.wrong[0] == '\0' && log_is_whole();
}

static bool act_at_once(sqlite3 *shared)
{
    struct actor actors[] = {
        {.act = write_to_end, .name = path, .who = LOCAL},
        {.act = write_to_end, .name = path, .who = SHARED_ONE, .shared = shared},
        {.act = write_to_end, .name = path, .who = SHARED_OTHER, .shared = shared},
        {.act = write_to_end, .name = url, .who = REMOTE},
        {.act = fork_children, .name = path},
        {.act = follow, .name = path, .who = 0},
        {.act = follow, .name = url, .who = 1},
        {.act = read_over_and_over, .name = copies[0]},
        {.act = read_over_and_over, .name = url},
        {.act = open_and_close, .name = path},
        {.act = open_and_close, .name = url},
        {.act = open_and_close, .name = copies[1]},
        {.act = read_the_past, .name = path},
        {.act = read_the_past, .name = url},
        {.act = ask_for_the_status, .name = path},
    };

    atomic_store(&writing, 5);
    return run_all(actors, sizeof(actors) / sizeof(actors[0]));
}

/* What the second process wrote at last, too. */
static bool catch_up(void)
{
    struct actor actors[] = {{.act = follow, .name = path, .who = 0},
                             {.act = follow, .name = url, .who = 1}};

    return run_all(actors, sizeof(actors) / sizeof(actors[0]));
}

/* What the child of a test does; 0: all was well. */
static int act_in_mode(int mode)
{
    int go = -1, status = 0;
    pid_t beside = start_beside(&go);
    sqlite3 *db;

    if (beside < 0 || sqlite3_config(mode) != SQLITE_OK)
        return 1;
    db = make();
    if (db == NULL || !make_copies() || write(go, url, sizeof(url)) != sizeof(url))
        return 2;
    /* Two threads share a connection where SQLite bears that. */
    if (!act_at_once(mode == SQLITE_CONFIG_SERIALIZED ? db : NULL))
        return 3;
    if (waitpid(beside, &status, 0) != beside || status != 0)
        return 4;
    if (!catch_up() || !all_is_there())
        return 5;
    return sqlite3_close(db) == SQLITE_OK ? 0 : 6;
}

/* ------------------------------------------------------------------------------- tests */

static void in_mode(int mode)
{
    pid_t child = fork(); /* which is the first to call SQLite */
    int status = 0;

    assert_true(child >= 0);
    if (child == 0) {
        (void)alarm(LONG_S); /* ends it if it hangs */
        _exit(act_in_mode(mode));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void all_of_it_works_at_once(void **state)
{
    (void)state;
    in_mode(SQLITE_CONFIG_SERIALIZED);
}

static void all_of_it_works_at_once_with_connections_without_mutexes(void **state)
{
    (void)state;
    in_mode(SQLITE_CONFIG_MULTITHREAD);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_of_it_works_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(all_of_it_works_at_once_with_connections_without_mutexes,
                                        setup, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
