/*
 * bench/lib_workload.h - the four workloads, each one transaction a call
 *
 *   kv      UPSERT of one of 100,000 keys with a value of 100 bytes
 *   insert  a row of about 200 bytes, ids ascending, with one secondary index in random order
 *   order   order entry, after TPC-C: one order, 5 to 10 lines with their stock, the customer
 *   bulk    10,000 rows of about 200 bytes
 *
 * Values are JSON-like text (names, words, numbers), or random bytes if asked.  A workload of the
 * same seed makes the same transactions, so two databases stay alike.
 */
#ifndef HW_BENCH_LIB_WORKLOAD_H
#define HW_BENCH_LIB_WORKLOAD_H

#include "lib.h"

enum bench_workload { BENCH_KV, BENCH_INSERT, BENCH_ORDER, BENCH_BULK, BENCH_WORKLOADS };

const char *bench_workload_name(enum bench_workload workload);

enum { BENCH_STATEMENTS = 8 };

struct bench_load { /* a connection that runs one workload */
    sqlite3 *db;    /* owned */
    sqlite3_stmt *begin, *commit;
    sqlite3_stmt *statements[BENCH_STATEMENTS];
    enum bench_workload workload;
    uint64_t random; /* state of the generator */
    uint64_t count;  /* transactions made */
    bool random_values;
};

/* Open a connection in WAL mode; `vfs` NULL: SQLite's own. */
sqlite3 *bench_open(const char *path, const char *vfs, const char *synchronous);
void bench_exec(sqlite3 *db, const char *sql);
int64_t bench_query_int(sqlite3 *db, const char *sql);
/* Bytes of text like a small JSON object; `size` is exact. */
void bench_text(uint64_t *random, bool random_values, char *out, size_t size);
uint64_t bench_random(uint64_t *random);

/* Make the database at `path` with plain SQLite: closed, checkpointed, no WAL left. */
void bench_load_populate(const char *path, enum bench_workload workload, bool random_values);
/* A kv database that a table of rows of 1 KiB, never touched again, makes at least `mib` large. */
void bench_ballast_populate(const char *path, uint64_t mib, bool random_values);
void bench_load_open(struct bench_load *load, const struct bench_options *options,
                     enum bench_workload workload, const char *path, const char *vfs,
                     const char *synchronous);
void bench_load_close(struct bench_load *load);
/* One transaction, committed. */
void bench_load_run(struct bench_load *load);

struct bench_wal_count {
    uint64_t frames;    /* written since it began */
    int newest;         /* frames in the WAL after the last commit */
    uint64_t page_size; /* bytes */
};
/* Count what a connection writes to its WAL; `count` lives as long as it.  Checkpoints go on. */
void bench_wal_count(sqlite3 *db, struct bench_wal_count *count);
uint64_t bench_wal_bytes(const struct bench_wal_count *count);

/*
 * Wait until everything committed is in the log, and the snapshot of the adoption with it (the
 * former alone if there is a snapshot already).  Does nothing if the VFS is not hyperwal's.
 */
void bench_settle(sqlite3 *db, const char *vfs, const char *path);
bool bench_is_hyperwal(const char *vfs);

#endif
