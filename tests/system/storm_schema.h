/*
 * What is true of every state that test_storm.c and its actors may ever see:
 *
 * - the balances sum up to nothing;
 * - `total` is the sum of the counters, over all writers;
 * - writer w has the entries low+1 .. n of its counter, no more and no less.
 *
 * Small functions of both programs, hence inline.
 */
#ifndef STORM_SCHEMA_H
#define STORM_SCHEMA_H

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { STORM_ACCOUNTS = 200, STORM_WRITERS = 8 };

#define STORM_SCHEMA                                                                               \
    "PRAGMA journal_mode=WAL; BEGIN;"                                                              \
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, name TEXT);"                    \
    "CREATE TABLE entry(writer, n, filler BLOB, PRIMARY KEY(writer, n));"                          \
    "CREATE TABLE counter(writer INTEGER PRIMARY KEY, low INTEGER, n INTEGER);"                    \
    "CREATE TABLE total(n INTEGER); INSERT INTO total VALUES(0);"                                  \
    "CREATE TABLE scrap(v BLOB);"                                                                  \
    "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c LIMIT 200)"                      \
    "INSERT INTO account SELECT i, 0, hex(randomblob(40)) FROM c;"                                 \
    "INSERT INTO counter SELECT id, 0, 0 FROM account WHERE id < 8; COMMIT;"

/* splitmix64 */
static inline uint64_t storm_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15U;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31);
}

/* The first column of the first row; -1: an error, or no row. */
static inline int64_t storm_number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    if (sqlite3_finalize(statement) != SQLITE_OK)
        value = -1;
    return value;
}

/* `why`: "", or what is wrong. */
static inline void storm_check(sqlite3 *db, char *why, size_t why_size)
{
    static const char *const must_be_zero[] = {
        "SELECT abs(sum(balance)) FROM account",
        "SELECT abs((SELECT n FROM total) - (SELECT sum(n) FROM counter))",
        ("SELECT count(*) FROM counter c WHERE n - low <>"
         " (SELECT count(*) FROM entry e WHERE e.writer = c.writer AND e.n > c.low AND e.n <= "
         "c.n)"),
        "SELECT (SELECT sum(n - low) FROM counter) <> (SELECT count(*) FROM entry)",
    };

    why[0] = 0;
    for (size_t i = 0; i < sizeof(must_be_zero) / sizeof(must_be_zero[0]); i++) {
        int64_t value = storm_number(db, must_be_zero[i]);

        if (value != 0) {
            (void)snprintf(why, why_size, "%.90s is %lld: %.60s", must_be_zero[i], (long long)value,
                           sqlite3_errmsg(db));
            return;
        }
    }
}

#endif
