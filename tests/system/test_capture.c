/*
 * Every state that SQLite shows after a commit can be restored from the log, byte for byte.
 *
 * A random workload of all kinds of transactions runs through the VFS; after each one
 * sqlite3_serialize() tells what the database is, by SQLite's own account.  Then states are
 * restored by seq and compared, the log is replayed whole, and a replica is compared with the last
 * state.
 */
#include <inttypes.h>
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

enum { STATES_MAX = 2000 };

struct state {
    uint64_t seq;
    uint64_t hash;
};

struct fixture {
    char dir[64];
    char path[96], uri[256], out[96], replica[96];
    sqlite3 *db;
    uint64_t seed;
    struct state states[STATES_MAX];
    unsigned count;
};

static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15U; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static uint64_t hash_bytes(const unsigned char *bytes, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325U; /* FNV-1a over words, then the rest */
    size_t i = 0;

    for (; i + 8 <= size; i += 8) {
        uint64_t word;

        memcpy(&word, bytes + i, 8);
        hash = (hash ^ word) * 0x100000001b3U;
        hash ^= hash >> 29;
    }
    for (; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3U;
    return hash;
}

static void print_event(void *ctx, int level, const char *line)
{
    (void)ctx;
    if (level >= 2)
        fprintf(stderr, "# %s\n", line);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const char *tmp = getenv("TMPDIR");

    snprintf(f->dir, sizeof(f->dir), "%s/hwcapXXXXXX",
             tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/app.db", f->dir);
    snprintf(f->uri, sizeof(f->uri), "file:%s?vfs=hyperwal", f->path);
    snprintf(f->out, sizeof(f->out), "%s/out.db", f->dir);
    snprintf(f->replica, sizeof(f->replica), "%s/replica.db", f->dir);
    hyperwal_set_log(print_event, NULL);
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    f->seed = getenv("HYPERWAL_SEED") != NULL ? strtoull(getenv("HYPERWAL_SEED"), NULL, 0) : 1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];

    sqlite3_close_v2(f->db);
    snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
    if (getenv("HYPERWAL_KEEP") == NULL && system(command) != 0)
        fprintf(stderr, "# %s is left\n", f->dir);
    free(f);
    return 0;
}

static void run(struct fixture *f, const char *sql)
{
    char *message = NULL;
    int rc = sqlite3_exec(f->db, sql, NULL, NULL, &message);

    if (rc != SQLITE_OK)
        fail_msg("seed %" PRIu64 ": %s: %s (%d)", f->seed, sql, message, rc);
}

static void open_database(struct fixture *f)
{
    int rc = sqlite3_open_v2(f->uri, &f->db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);

    if (rc != SQLITE_OK)
        fail_msg("open: %s", sqlite3_errmsg(f->db));
    sqlite3_busy_timeout(f->db, 5000);
}

/* What the database is now, by SQLite's own account, at the seq of its last commit. */
static void remember(struct fixture *f)
{
    sqlite3_int64 size = 0;
    unsigned char *image = sqlite3_serialize(f->db, "main", &size, 0);
    struct state *state = &f->states[f->count];

    assert_non_null(image);
    assert_int_equal(hyperwal_seq(f->db, NULL, &state->seq), SQLITE_OK);
    assert_true(f->count == 0 || state->seq >= f->states[f->count - 1].seq);
    state->hash = hash_bytes(image, (size_t)size);
    if (f->count > 0 && f->states[f->count - 1].seq == state->seq)
        f->states[f->count - 1] = *state; /* nothing was committed */
    else
        f->count++;
    sqlite3_free(image);
}

static uint64_t file_hash(const char *path)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    long size;
    uint64_t hash;

    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    rewind(file);
    bytes = malloc((size_t)size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), (size_t)size);
    hash = hash_bytes(bytes, (size_t)size);
    free(bytes);
    fclose(file);
    return hash;
}

static void restore_and_compare(struct fixture *f, hyperwal_log *log, const struct state *state)
{
    hyperwal_target target = {.kind = HYPERWAL_SEQ, .seq = state->seq};
    hyperwal_entry reached;

    unlink(f->out);
    if (hyperwal_restore(log, &target, f->out, 0, NULL, NULL, &reached) != SQLITE_OK)
        fail_msg("seed %" PRIu64 ": restore to %" PRIu64 ": %s", f->seed, state->seq,
                 hyperwal_log_errmsg(log));
    assert_int_equal(reached.seq, state->seq);
    if (file_hash(f->out) != state->hash)
        fail_msg("seed %" PRIu64 ": the state at seq %" PRIu64 " is not what SQLite showed",
                 f->seed, state->seq);
}

/* One transaction of some kind. */
static void transact(struct fixture *f)
{
    char sql[512];
    unsigned kind = (unsigned)(next_random(&f->seed) % 20);
    unsigned n = (unsigned)(next_random(&f->seed) % 400);

    switch (kind) {
    case 0:
        snprintf(sql, sizeof(sql),
                 "CREATE TABLE IF NOT EXISTS t%u(a INTEGER PRIMARY KEY, b, c); "
                 "CREATE INDEX IF NOT EXISTS i%u ON t%u(b)",
                 n % 5, n % 5, n % 5);
        break;
    case 1:
        snprintf(sql, sizeof(sql), "DROP TABLE IF EXISTS t%u", 1 + n % 4);
        break;
    case 2:
        snprintf(sql, sizeof(sql),
                 "BEGIN; SAVEPOINT s; WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r "
                 "WHERE i<%u) INSERT INTO t0(b,c) SELECT i, randomblob(900) FROM r; ROLLBACK TO s; "
                 "INSERT INTO t0(b,c) VALUES(%u, zeroblob(100)); COMMIT",
                 200 + n, n);
        break;
    case 3:
        snprintf(sql, sizeof(sql), "DELETE FROM t0 WHERE a %% 3 = %u", n % 3);
        break;
    case 4:
        snprintf(sql, sizeof(sql), "VACUUM");
        break;
    case 5:
        snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%u)", n % 50);
        break;
    case 6:
        snprintf(sql, sizeof(sql), "PRAGMA wal_checkpoint(%s)",
                 (const char *[]){"PASSIVE", "FULL", "RESTART", "TRUNCATE"}[n % 4]);
        break;
    case 7:
        snprintf(sql, sizeof(sql),
                 "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i<%u) "
                 "INSERT INTO t0(b,c) SELECT i, randomblob(%u) FROM r",
                 n * 4, 10 + n * 3);
        break;
    case 8:
        snprintf(sql, sizeof(sql), "BEGIN; DELETE FROM t0; INSERT INTO t0(b) VALUES(1); ROLLBACK");
        break;
    case 9:
        snprintf(sql, sizeof(sql), "UPDATE t0 SET c = hex(a)");
        break;
    default:
        snprintf(sql, sizeof(sql), "INSERT INTO t0(b,c) VALUES(%u,'row %u'); ", n, n);
        break;
    }
    run(f, sql);
}

static void workload(struct fixture *f, unsigned page_size, unsigned auto_vacuum, unsigned steps)
{
    char sql[256];

    open_database(f);
    snprintf(sql, sizeof(sql),
             "PRAGMA page_size=%u; PRAGMA auto_vacuum=%u; PRAGMA cache_size=20; "
             "CREATE TABLE t0(a INTEGER PRIMARY KEY, b, c); CREATE INDEX i0 ON t0(b)",
             page_size, auto_vacuum);
    run(f, sql);
    for (unsigned i = 0; i < steps; i++) {
        transact(f);
        remember(f);
        if (next_random(&f->seed) % 40 == 0)
            assert_int_equal(hyperwal_snapshot(f->db, NULL, NULL), SQLITE_OK);
        if (next_random(&f->seed) % 60 == 0) { /* close and come back */
            sqlite3_close_v2(f->db);
            open_database(f);
            run(f, "PRAGMA cache_size=20");
        }
    }
}

static void check_all(struct fixture *f)
{
    hyperwal_log *log = NULL;
    hyperwal_follower *follower = NULL;
    char *error = NULL;
    int rc = hyperwal_log_open(f->path, &log, &error);

    if (rc != SQLITE_OK)
        fail_msg("open the log: %s", error);
    for (int i = 0; i < 12; i++)
        restore_and_compare(f, log, &f->states[next_random(&f->seed) % f->count]);
    restore_and_compare(f, log, &f->states[f->count - 1]);
    if (hyperwal_log_verify(log, HYPERWAL_VERIFY_DEEP, NULL, NULL) != SQLITE_OK)
        fail_msg("seed %" PRIu64 ": verify: %s", f->seed, hyperwal_log_errmsg(log));
    hyperwal_log_close(log);

    rc = hyperwal_follow_open(f->path, f->replica, NULL, NULL, &follower, &error);
    if (rc != SQLITE_OK)
        fail_msg("follow: %s", error);
    do {
        rc = hyperwal_follow_step(follower, 0);
        if (rc != SQLITE_OK && rc != SQLITE_DONE)
            fail_msg("follow: %s", hyperwal_follow_errmsg(follower));
    } while (rc == SQLITE_OK);
    hyperwal_follow_close(follower);
    {
        sqlite3 *db;
        sqlite3_int64 size;
        unsigned char *image;

        assert_int_equal(sqlite3_open_v2(f->replica, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        image = sqlite3_serialize(db, "main", &size, 0);
        assert_non_null(image);
        assert_true(hash_bytes(image, (size_t)size) == f->states[f->count - 1].hash);
        sqlite3_free(image);
        sqlite3_close(db);
    }
}

static void states_are_restored_with_pages_of_4096(void **state)
{
    workload(*state, 4096, 0, 150);
    check_all(*state);
}

static void states_are_restored_with_pages_of_512_and_auto_vacuum(void **state)
{
    workload(*state, 512, 1, 150);
    check_all(*state);
}

static void states_are_restored_with_pages_of_65536_and_incremental_vacuum(void **state)
{
    workload(*state, 65536, 2, 80);
    check_all(*state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(states_are_restored_with_pages_of_4096, setup, teardown),
        cmocka_unit_test_setup_teardown(states_are_restored_with_pages_of_512_and_auto_vacuum,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            states_are_restored_with_pages_of_65536_and_incremental_vacuum, setup, teardown),
    };

    return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
