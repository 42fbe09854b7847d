/*
 * The whole C interface in one program: a database with a log, a replica of it, a wait for one's own
 * write there, a label, a walk over the log, a restore.
 *
 *     cc tour.c -lhyperwal -lsqlite3 -o tour && ./tour app.db replica.db restored.db
 */
#include <hyperwal.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Every function here ends the program if something goes wrong: an example has no better idea. */
static void must(int code, const char *what, const char *why)
{
    if (code == SQLITE_OK || code == SQLITE_DONE)
        return;
    fprintf(stderr, "%s: %s (%d)\n", what, why == NULL ? sqlite3_errstr(code) : why, code);
    exit(1);
}

static void execute(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    must(sqlite3_exec(db, sql, NULL, NULL, &message), sql, message);
}

static int number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int value = -1;

    must(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql, sqlite3_errmsg(db));
    if (sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* Bring the replica up to date; a server would do this in a thread of its own. */
static void follow(const char *path, const char *replica)
{
    hyperwal_follower *follower = NULL;
    char *message = NULL;
    int code;

    must(hyperwal_follow_open(path, replica, NULL, NULL, &follower, &message), replica, message);
    do
        code = hyperwal_follow_step(follower, 0);
    while (code == SQLITE_OK);
    must(code, replica, hyperwal_follow_errmsg(follower));
    printf("followed to seq %" PRIu64 "\n", hyperwal_follow_seq(follower));
    hyperwal_follow_close(follower);
}

/* Read one's own write on the replica: wait until it has the seq of the commit. */
static void read_replica(const char *replica, uint64_t seq)
{
    sqlite3 *db = NULL;
    char *message = NULL;

    must(hyperwal_open(replica, SQLITE_OPEN_READWRITE, &db, &message), replica, message);
    must(hyperwal_wait(db, NULL, seq, 5000), "wait", sqlite3_errmsg(db));
    printf("the replica has %d notes\n", number(db, "SELECT count(*) FROM notes"));
    sqlite3_close_v2(db);
}

static void walk(hyperwal_log *log)
{
    hyperwal_entry entry;
    uint64_t seq = 0;
    int code;

    while ((code = hyperwal_log_next(log, &seq, &entry)) == SQLITE_OK)
        printf("%6" PRIu64 " %-11s %4u pages %6" PRIu64 " bytes  %s\n", entry.seq, entry.type,
               entry.pages, entry.bytes, entry.text);
    must(code, "walk", hyperwal_log_errmsg(log));
}

int main(int argc, char **argv)
{
    hyperwal_target target = {.kind = HYPERWAL_LABEL, .label = "before the accident"};
    hyperwal_entry reached;
    hyperwal_log *log = NULL;
    sqlite3 *db = NULL;
    char *message = NULL;
    uint64_t seq = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: %s DB REPLICA OUT\n", argv[0]);
        return 2;
    }
    must(hyperwal_register(0), "register", NULL);
    must(hyperwal_open(argv[1], 0, &db, &message), argv[1], message);
    execute(db, "CREATE TABLE notes(a INTEGER PRIMARY KEY, b TEXT)");
    execute(db, "INSERT INTO notes(b) VALUES('one'), ('two'), ('three')");
    must(hyperwal_label(db, NULL, "before the accident", NULL), "label", sqlite3_errmsg(db));
    execute(db, "DELETE FROM notes WHERE a > 1");
    must(hyperwal_snapshot(db, NULL, NULL), "snapshot", sqlite3_errmsg(db));
    must(hyperwal_seq(db, NULL, &seq), "seq", sqlite3_errmsg(db));

    follow(argv[1], argv[2]);
    read_replica(argv[2], seq);

    must(hyperwal_log_open(argv[1], &log, &message), argv[1], message);
    walk(log);
    must(hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL), "verify",
         hyperwal_log_errmsg(log));
    must(hyperwal_restore(log, &target, argv[3], 0, NULL, NULL, &reached), argv[3],
         hyperwal_log_errmsg(log));
    printf("restored to seq %" PRIu64 "\n", reached.seq);
    hyperwal_log_close(log);
    sqlite3_close_v2(db);

    must(sqlite3_open_v2(argv[3], &db, SQLITE_OPEN_READONLY, NULL), argv[3], NULL);
    printf("the restored database has %d notes\n", number(db, "SELECT count(*) FROM notes"));
    sqlite3_close_v2(db);
    return 0;
}
