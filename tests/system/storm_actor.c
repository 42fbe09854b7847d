/*
 * The processes that test_storm.c starts and kills.
 *
 *     storm_actor write PATH SEED FIRST COUNT STYLE  writers numbered from FIRST, a thread each
 *     storm_actor keep  PATH SEED                    snapshots, labels, prunes, checkpoints
 *     storm_actor read  PATH SEED                    a stock reader: holds read transactions
 *     storm_actor make  PATH SEED                    no actor: makes the database, stock SQLite
 *     storm_actor check PATH SEED                    no actor: says what is there, stock SQLite
 *
 * STYLE: letters; v through the VFS, s stock SQLite; o a connection for each thread (NOMUTEX), f
 * one with FULLMUTEX for all, n one with NOMUTEX that goes from hand to hand; l waits for the log
 * (durability=local); x exclusive.
 *
 * Says one line at a time on standard output, each with one write(2), so that a kill leaves whole
 * lines:
 *
 *     start W N     writer W finds that its last commit is N
 *     ack W N SEQ   SQLite said that commit N of writer W is done; SEQ: its place in the log, or 0
 *     label NAME    the label is in the log
 *     keep SEQ      states before SEQ may be pruned from now on
 *     read          a reader saw a consistent state, twice the same
 *     bad TEXT      something that must not be
 *     counter W N   `check` finds that the last commit of writer W is N
 *     consistent    and that all is well
 *
 * Ends when standard input ends.  The invariant is in storm_schema.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hyperwal.h"
#include "storm_schema.h"

/* A request waits 10 s for the log; on a machine that has other work it is asked for again. */
enum { BUSY_MS = 60000, CHECKPOINT_BUSY_MS = 200, REQUEST_TRIES = 12, WRITERS_MAX = 8 };

struct actor {
    const char *path, *style;
    uint64_t seed;
};

struct writer {
    const struct actor *actor;
    pthread_mutex_t
        *turn; /* guards *db while it is shared; NULL: the connection is the thread's own */
    sqlite3 **db;
    uint64_t chance;
    int64_t last; /* the number of its last commit */
    int number;
};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[400];
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    if (size < 0)
        return;
    if (size > (int)sizeof(line) - 2)
        size = (int)sizeof(line) - 2;
    for (int i = 0; i < size; i++)
        if (line[i] == '\n')
            line[i] = ' ';
    line[size] = '\n';
    (void)!write(STDOUT_FILENO, line, (size_t)size + 1); /* nobody listens: the test is over */
}

static bool has(const struct actor *actor, char letter)
{
    return strchr(actor->style, letter) != NULL;
}

/* Wait for the end of standard input for some time; true when it has come. */
static bool is_over(int timeout_ms)
{
    struct pollfd fd = {STDIN_FILENO, POLLIN, 0};

    return poll(&fd, 1, timeout_ms) > 0;
}

static uint64_t below(uint64_t *chance, uint64_t limit)
{
    return storm_random(chance) % limit;
}

static bool is_busy(int code)
{
    return (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED;
}

/* -------------------------------------------------------------------------- writers */

static sqlite3 *writer_connect(struct writer *writer)
{
    const struct actor *actor = writer->actor;
    static const int checkpoints[] = {5, 50, 1000}, caches[] = {10, 2000};
    static const char *const synchronous[] = {"OFF", "NORMAL", "FULL"};
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI |
                (has(actor, 'f') ? SQLITE_OPEN_FULLMUTEX : SQLITE_OPEN_NOMUTEX);
    sqlite3 *db = NULL;
    char text[512];
    int code;

    (void)snprintf(text, sizeof(text), "file:%s%s%s", actor->path,
                   has(actor, 's') ? "" : "?vfs=hyperwal",
                   has(actor, 'l') ? "&durability=local&timeout=60000" : "");
    code = sqlite3_open_v2(text, &db, flags, NULL);
    if (code == SQLITE_OK) {
        (void)sqlite3_extended_result_codes(db, 1);
        (void)sqlite3_busy_timeout(db, BUSY_MS);
        (void)snprintf(
            text, sizeof(text),
            "%sPRAGMA wal_autocheckpoint=%d; PRAGMA cache_size=%d; PRAGMA synchronous=%s",
            has(actor, 'x') ? "PRAGMA locking_mode=EXCLUSIVE; " : "",
            checkpoints[below(&writer->chance, 3)], caches[below(&writer->chance, 2)],
            synchronous[below(&writer->chance, 3)]);
        code = sqlite3_exec(db, text, NULL, NULL, NULL);
    }
    if (code == SQLITE_OK)
        return db;
    say("bad writer %d opens: %d %s", writer->number, code, sqlite3_errmsg(db));
    (void)sqlite3_close(db);
    return NULL;
}

/*
 * The statements of commit `n`, between BEGIN and COMMIT.  Nothing spills into the WAL inside the
 * savepoint: SQLite 3.40.1 forgets at ROLLBACK TO from which frame on checksums are to be written
 * (iReCksum in its wal.c), and a commit that it then acknowledges is gone after a kill, with our
 * VFS or without.
 */
static int change(struct writer *writer, sqlite3 *db, int64_t n)
{
    uint64_t *chance = &writer->chance;
    int amount = (int)below(chance, 100), size = (int)below(chance, 900), w = writer->number;
    uint64_t kind = below(chance, 40);
    char sql[1024];
    int used =
        snprintf(sql, sizeof(sql),
                 "UPDATE account SET balance=balance-%d WHERE id=%d;"
                 "UPDATE account SET balance=balance+%d WHERE id=%d;"
                 "INSERT INTO entry VALUES(%d,%" PRId64 ",randomblob(%d));"
                 "UPDATE counter SET n=%" PRId64 " WHERE writer=%d; UPDATE total SET n=n+1;",
                 amount, (int)below(chance, STORM_ACCOUNTS), amount,
                 (int)below(chance, STORM_ACCOUNTS), w, n, kind == 0 ? size * 50 : size, n, w);

    if (kind < 4)
        used += snprintf(sql + used, sizeof(sql) - (size_t)used,
                         "DELETE FROM entry WHERE writer=%d AND n<=%" PRId64 ";"
                         "UPDATE counter SET low=max(low,%" PRId64 ") WHERE writer=%d;",
                         w, n - 20, n - 20, w);
    else if (kind == 4)
        used += snprintf(sql + used, sizeof(sql) - (size_t)used,
                         "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 150)"
                         "INSERT INTO scrap SELECT randomblob(700) FROM c;");
    else if (kind == 5)
        used += snprintf(sql + used, sizeof(sql) - (size_t)used, "DELETE FROM scrap;");
    else if (kind < 10 && storm_number(db, "PRAGMA cache_size") > 100)
        used += snprintf(sql + used, sizeof(sql) - (size_t)used,
                         "SAVEPOINT s; DELETE FROM entry; INSERT INTO scrap "
                         "VALUES(randomblob(9999));"
                         "ROLLBACK TO s; RELEASE s;");
    (void)used;
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void undo(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db))
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

static int ask_seq(sqlite3 *db, uint64_t *seq)
{
    int code = hyperwal_seq(db, NULL, seq);

    for (int i = 1; i < REQUEST_TRIES && is_busy(code); i++)
        code = hyperwal_seq(db, NULL, seq);
    return code;
}

/* One commit; false: the writer gives up, having said why. */
static bool commit(struct writer *writer, sqlite3 *db)
{
    int64_t n = writer->last + 1;
    uint64_t seq = 0;
    int code;

    do {
        code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (code == SQLITE_OK)
            code = change(writer, db, n);
        if (code == SQLITE_OK && below(&writer->chance, 10) == 0) { /* never mind: once more */
            undo(db);
            continue;
        }
        if (code == SQLITE_OK)
            code = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
        if (code == SQLITE_OK)
            break;
        say("bad writer %d commits %" PRId64 ": %d %s", writer->number, n, code,
            sqlite3_errmsg(db));
        undo(db);
        return false;
    } while (true);
    writer->last = n;
    if (!has(writer->actor, 's') && below(&writer->chance, 4) == 0) {
        code = ask_seq(db, &seq);
        if (code != SQLITE_OK)
            say("bad writer %d asks for its seq: %d %s", writer->number, code, sqlite3_errmsg(db));
    }
    say("ack %d %" PRId64 " %" PRIu64, writer->number, n, seq);
    return true;
}

/* Something other than a commit, now and then. */
static bool meddle(struct writer *writer)
{
    sqlite3 *db = *writer->db;
    int code;

    switch (below(&writer->chance, 60)) {
    case 0:
    case 1:
    case 2:
        /* Beside serve a stock RESTART or TRUNCATE waits its whole timeout, all writers with it. */
        (void)sqlite3_busy_timeout(db, CHECKPOINT_BUSY_MS);
        code = sqlite3_wal_checkpoint_v2(db, NULL, (int)below(&writer->chance, 4), NULL, NULL);
        (void)sqlite3_busy_timeout(db, BUSY_MS);
        if (code != SQLITE_OK && !is_busy(code) && (code & 0xff) != SQLITE_IOERR)
            say("bad checkpoint: %d %s", code, sqlite3_errmsg(db));
        return true;
    case 3:
        code = sqlite3_exec(db,
                            below(&writer->chance, 3) == 0 ? "VACUUM" : "PRAGMA incremental_vacuum",
                            NULL, NULL, NULL);
        if (code != SQLITE_OK && !is_busy(code))
            say("bad vacuum: %d %s", code, sqlite3_errmsg(db));
        return true;
    case 4:
        code = sqlite3_close(db);
        if (code != SQLITE_OK)
            say("bad close: %d", code);
        *writer->db = writer_connect(writer);
        return *writer->db != NULL;
    default:
        return true;
    }
}

static bool find_last(struct writer *writer)
{
    char sql[80];

    (void)snprintf(sql, sizeof(sql), "SELECT n FROM counter WHERE writer=%d", writer->number);
    writer->last = storm_number(*writer->db, sql);
    if (writer->last < 0)
        say("bad writer %d looks for its last commit: %s", writer->number,
            sqlite3_errmsg(*writer->db));
    else
        say("start %d %" PRId64, writer->number, writer->last);
    return writer->last >= 0;
}

static void *write_loop(void *argument)
{
    struct writer *writer = argument;
    bool goes_on = true, is_first = true;

    while (goes_on && !is_over(0)) {
        if (writer->turn != NULL)
            pthread_mutex_lock(writer->turn);
        if (*writer->db == NULL)
            *writer->db = writer_connect(writer);
        goes_on = *writer->db != NULL && (!is_first || find_last(writer)) &&
                  commit(writer, *writer->db) && meddle(writer);
        is_first = false;
        if (writer->turn != NULL)
            pthread_mutex_unlock(writer->turn);
    }
    if (writer->turn == NULL && sqlite3_close(*writer->db) != SQLITE_OK)
        say("bad close at the end");
    return NULL;
}

static int write_all(const struct actor *actor, int first, int count)
{
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* of the shared connection */
    struct writer writers[WRITERS_MAX];
    pthread_t threads[WRITERS_MAX];
    sqlite3 *own[WRITERS_MAX] = {NULL};
    bool is_shared = has(actor, 'f') || has(actor, 'n');

    for (int i = 0; i < count; i++) {
        writers[i] = (struct writer){.actor = actor,
                                     .turn = is_shared ? &turn : NULL,
                                     .db = is_shared ? &own[0] : &own[i],
                                     .chance = actor->seed + (uint64_t)i,
                                     .number = first + i};
        if (pthread_create(&threads[i], NULL, write_loop, &writers[i]) != 0)
            return 1;
    }
    for (int i = 0; i < count; i++)
        (void)pthread_join(threads[i], NULL);
    if (is_shared && sqlite3_close(own[0]) != SQLITE_OK)
        say("bad close at the end");
    return 0;
}

/* --------------------------------------------------------------------------- keeper */

static void prune(sqlite3 *db, uint64_t *chance)
{
    uint64_t seq, freed;
    int code = ask_seq(db, &seq);

    if (code == SQLITE_OK) {
        seq -= seq < 400 ? seq : below(chance, 400);
        say("keep %" PRIu64, seq);
        code = hyperwal_prune(db, NULL, seq, 0, &freed);
    }
    /* before the first snapshot beyond seq there is nothing to keep */
    if (code != SQLITE_OK && code != HYPERWAL_NOTARGET && !is_busy(code))
        say("bad prune of %" PRIu64 ": %d %s", seq, code, sqlite3_errmsg(db));
}

static void keep_once(sqlite3 *db, uint64_t *chance, uint64_t label)
{
    uint64_t kind = below(chance, 10);
    char name[40];
    int code;

    if (kind < 3) {
        code = hyperwal_snapshot(db, NULL, NULL);
        if (code != SQLITE_OK)
            say("bad snapshot: %d %s", code, sqlite3_errmsg(db));
    } else if (kind < 6) {
        (void)snprintf(name, sizeof(name), "label-%" PRIu64, label);
        code = hyperwal_label(db, NULL, name, NULL);
        for (int i = 1; i < REQUEST_TRIES && is_busy(code); i++)
            code = hyperwal_label(db, NULL, name, NULL);
        if (code == SQLITE_OK)
            say("label %s", name);
        else
            say("bad label: %d %s", code, sqlite3_errmsg(db));
    } else if (kind < 7) {
        prune(db, chance);
    } else {
        code = sqlite3_wal_checkpoint_v2(db, NULL, (int)below(chance, 4), NULL, NULL);
        if (code != SQLITE_OK && !is_busy(code) && (code & 0xff) != SQLITE_IOERR)
            say("bad checkpoint: %d %s", code, sqlite3_errmsg(db));
    }
}

static int keep(const struct actor *actor)
{
    uint64_t chance = actor->seed;
    char *error = NULL;
    sqlite3 *db = NULL;
    int code = hyperwal_open(actor->path, 0, &db, &error);

    if (code != SQLITE_OK) {
        say("bad keeper opens: %d %s", code, error);
        sqlite3_free(error);
        return 0;
    }
    (void)sqlite3_busy_timeout(db, BUSY_MS);
    do
        keep_once(db, &chance, storm_random(&chance));
    while (!is_over((int)below(&chance, 60)));
    if (sqlite3_close(db) != SQLITE_OK)
        say("bad close of the keeper");
    return 0;
}

/* --------------------------------------------------------------------------- reader */

/* A read transaction, held for a while; *total: what it saw.  False: it was busy. */
static bool read_once(sqlite3 *db, int hold_ms, int64_t *total)
{
    char why[200], again[200];
    int64_t first, second;

    if (sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return false;
    first = storm_number(db, "SELECT n FROM total");
    if (first < 0 && is_busy(sqlite3_errcode(db))) {
        undo(db);
        return false;
    }
    storm_check(db, why, sizeof(why));
    (void)is_over(hold_ms);
    storm_check(db, again, sizeof(again));
    second = storm_number(db, "SELECT n FROM total");
    if (why[0] != 0 || again[0] != 0 || first != second)
        say("bad read: %s; %s; total %" PRId64 " then %" PRId64, why, again, first, second);
    else if (first < *total)
        say("bad read: total %" PRId64 " after %" PRId64, first, *total);
    else
        say("read");
    *total = first;
    undo(db);
    return true;
}

static int read_all(const struct actor *actor)
{
    uint64_t chance = actor->seed;
    int64_t total = 0;
    int hold_ms = 0;

    while (!is_over(hold_ms)) {
        sqlite3 *db = NULL;
        bool is_there = access(actor->path, F_OK) == 0;
        int code = is_there ? sqlite3_open_v2(actor->path, &db, SQLITE_OPEN_READONLY, NULL) : 0;

        if (db != NULL)
            (void)sqlite3_busy_timeout(db, BUSY_MS);
        hold_ms = (int)below(&chance, 80);
        for (uint64_t i = below(&chance, 12); is_there && code == SQLITE_OK && !is_over(0) && i > 0;
             i--)
            (void)read_once(db, hold_ms, &total); /* busy: later */
        if (code != SQLITE_OK)
            say("bad reader opens: %d %s", code, sqlite3_errmsg(db));
        (void)sqlite3_close(db);
    }
    return 0;
}

/* ------------------------------------------------------------------- before and after it all */

static int make(const struct actor *actor)
{
    static const int page_sizes[] = {512, 1024, 4096, 4096, 16384};
    uint64_t chance = actor->seed;
    char sql[100];
    sqlite3 *db = NULL;
    int code = sqlite3_open(actor->path, &db);

    (void)snprintf(sql, sizeof(sql), "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d",
                   page_sizes[below(&chance, 5)], (int)below(&chance, 3));
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, STORM_SCHEMA, NULL, NULL, NULL);
    if (code != SQLITE_OK)
        say("bad database is made: %d %s", code, sqlite3_errmsg(db));
    (void)sqlite3_close(db); /* no statement is left */
    return code != SQLITE_OK;
}

static int check(const struct actor *actor)
{
    char why[200], sql[80];
    sqlite3 *db = NULL;
    int code = sqlite3_open_v2(actor->path, &db, SQLITE_OPEN_READWRITE, NULL);

    (void)sqlite3_busy_timeout(db, BUSY_MS);
    for (int writer = 0; writer < STORM_WRITERS && code == SQLITE_OK; writer++) {
        (void)snprintf(sql, sizeof(sql), "SELECT n FROM counter WHERE writer=%d", writer);
        say("counter %d %" PRId64, writer, storm_number(db, sql));
    }
    storm_check(db, why, sizeof(why));
    if (code == SQLITE_OK && why[0] == 0 &&
        storm_number(db, "SELECT count(*) FROM pragma_integrity_check"
                         " WHERE integrity_check <> 'ok'") != 0)
        (void)snprintf(why, sizeof(why), "integrity_check");
    if (code == SQLITE_OK && why[0] == 0)
        say("consistent");
    else
        say("bad database: %d %s", code, why);
    (void)sqlite3_close(db); /* no statement is left */
    return 0;
}

int main(int argc, char **argv)
{
    struct actor actor;

    if (argc < 4)
        return 2;
    actor = (struct actor){argv[2], argc > 6 ? argv[6] : "", strtoull(argv[3], NULL, 10)};
    if (hyperwal_register(0) != SQLITE_OK)
        return 1;
    if (strcmp(argv[1], "write") == 0 && argc == 7 && strtol(argv[5], NULL, 10) <= WRITERS_MAX)
        return write_all(&actor, (int)strtol(argv[4], NULL, 10), (int)strtol(argv[5], NULL, 10));
    if (strcmp(argv[1], "keep") == 0)
        return keep(&actor);
    if (strcmp(argv[1], "read") == 0)
        return read_all(&actor);
    if (strcmp(argv[1], "make") == 0)
        return make(&actor);
    if (strcmp(argv[1], "check") == 0)
        return check(&actor);
    return 2;
}
