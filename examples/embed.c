/*
 * A program that embeds hyperwal: its database has a log, and it can read its own past.
 *
 *     cc embed.c -lhyperwal -lsqlite3 -o embed && ./embed app.db
 */
#include <hyperwal.h>
#include <inttypes.h>
#include <stdio.h>

static int print_row(void *ctx, int count, char **values, char **names)
{
    (void)ctx;
    for (int i = 0; i < count; i++)
        printf("%s %s%s", names[i], values[i] == NULL ? "-" : values[i],
               i + 1 < count ? ", " : "\n");
    return 0;
}

static int execute(sqlite3 *db, const char *sql)
{
    char *message = NULL;
    int code = sqlite3_exec(db, sql, print_row, NULL, &message);

    if (code != SQLITE_OK)
        fprintf(stderr, "%s: %s\n", sql, message == NULL ? sqlite3_errstr(code) : message);
    sqlite3_free(message);
    return code;
}

/* Show the state as of `seq`, read from the log alone. */
static int show_past(const char *path, uint64_t seq)
{
    char uri[1024];
    char *message = NULL;
    sqlite3 *past = NULL;
    int code;

    (void)snprintf(uri, sizeof(uri), "file:%s?seq=%" PRIu64, path, seq);
    code = hyperwal_open(uri, SQLITE_OPEN_READONLY, &past, &message);
    if (code == SQLITE_OK)
        code = execute(past, "SELECT count(*) AS visits_before, max(at) AS last FROM visits");
    else
        fprintf(stderr, "%s\n", message);
    sqlite3_free(message);
    (void)sqlite3_close_v2(past);
    return code;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "app.db";
    char *message = NULL;
    sqlite3 *db = NULL;
    uint64_t seq = 0;
    int code = hyperwal_open(path, 0, &db, &message);

    if (code != SQLITE_OK) {
        fprintf(stderr, "%s\n", message);
        sqlite3_free(message);
        return 1;
    }
    code = execute(db, "CREATE TABLE IF NOT EXISTS visits(at TEXT DEFAULT current_timestamp)");
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq); /* everything committed so far is in the log */
    if (code == SQLITE_OK)
        code = execute(db, "INSERT INTO visits DEFAULT VALUES");
    if (code == SQLITE_OK)
        code = execute(db, "SELECT count(*) AS visits, max(at) AS last FROM visits");
    if (code == SQLITE_OK)
        code = show_past(path, seq);
    (void)sqlite3_close_v2(db);
    return code == SQLITE_OK ? 0 : 1;
}
