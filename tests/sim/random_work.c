/* Implements the work of sim/random_world.h: transactions of all kinds, and what else users do. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/random_world.h"
#include "vfs/vfs.h"

/* noise(n, size): bytes that do not compress, the same for the same n. */
static void noise(sqlite3_context *context, int count, sqlite3_value **values)
{
    uint64_t z = (uint64_t)sqlite3_value_int64(values[0]) * 0x9e3779b97f4a7c15U + 1;
    int size = sqlite3_value_int(values[1]);
    uint8_t *bytes = sqlite3_malloc(size < 1 ? 1 : size);

    (void)count;
    if (bytes == NULL) {
        sqlite3_result_error_nomem(context);
        return;
    }
    for (int i = 0; i < size; i++) {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        bytes[i] = (uint8_t)(z >> 24);
    }
    sqlite3_result_blob(context, bytes, size, sqlite3_free);
}

void random_prepare(struct random_world *w, sqlite3 *db)
{
    char sql[160];

    (void)sqlite3_create_function(db, "noise", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL, noise,
                                  NULL, NULL);
    (void)sqlite3_busy_timeout(db, 2000);
    (void)snprintf(sql, sizeof(sql),
                   "PRAGMA page_size=%u; PRAGMA auto_vacuum=%u; PRAGMA cache_size=%u;"
                   "PRAGMA wal_autocheckpoint=%u",
                   w->page_size, w->auto_vacuum, 2 + (unsigned)random_chance(w, 30),
                   random_chance(w, 3) == 0 ? 30U : 1000U);
    if (w->process == RANDOM_FOREIGN)
        (void)snprintf(sql, sizeof(sql), "PRAGMA cache_size=5; PRAGMA wal_autocheckpoint=0");
    (void)sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* ----------------------------------------------------------------------------------- oracle */

static uint64_t fingerprint_of_oracle(struct random_world *w)
{
    uint64_t fingerprint = 0;
    char message[256];

    if (!sim_fingerprint(w->oracle, &fingerprint, message))
        random_fail(w, "oracle: %s", message);
    return fingerprint;
}

static void start_oracle(struct random_world *w)
{
    (void)sqlite3_close(w->oracle);
    w->oracle = NULL;
    if (sqlite3_open_v2(":memory:", &w->oracle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        random_fail(w, "no oracle");
    (void)sqlite3_create_function(w->oracle, "noise", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                  noise, NULL, NULL);
}

void random_oracle_open(struct random_world *w)
{
    start_oracle(w);
    w->states[0] =
        (struct random_state){.fingerprint = fingerprint_of_oracle(w), .seq = UINT64_MAX};
}

void random_oracle_close(struct random_world *w)
{
    for (unsigned i = 1; i <= w->count; i++)
        free(w->states[i].sql);
    free(w->pending);
    (void)sqlite3_close(w->oracle);
    w->oracle = NULL;
    w->pending = NULL;
    w->count = 0;
}

void random_acknowledge(struct random_world *w, const char *sql)
{
    struct random_state *state = &w->states[w->count + 1];

    if (sqlite3_exec(w->oracle, sql, NULL, NULL, NULL) != SQLITE_OK) {
        random_fail(w, "the oracle refuses what SQLite took: %s: %s", sqlite3_errmsg(w->oracle),
                    sql);
        return;
    }
    state->sql = strdup(sql);
    state->fingerprint = fingerprint_of_oracle(w);
    state->seq = UINT64_MAX;
    if (state->fingerprint != w->states[w->count].fingerprint)
        w->ghost = 0; /* frames were written over its own */
    w->count++;
}

void random_forget_after(struct random_world *w, unsigned index)
{
    if (index == w->count)
        return;
    for (unsigned i = index + 1; i <= w->count; i++)
        free(w->states[i].sql);
    w->count = index;
    start_oracle(w);
    for (unsigned i = 1; i <= w->count; i++)
        if (sqlite3_exec(w->oracle, w->states[i].sql, NULL, NULL, NULL) != SQLITE_OK)
            random_fail(w, "the oracle cannot repeat: %s", sqlite3_errmsg(w->oracle));
}

/* ----------------------------------------------------------------------------- transactions */

struct text {
    char bytes[4096];
    size_t size;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *text, const char *format, ...)
{
    size_t room = sizeof(text->bytes) - text->size;
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(text->bytes + text->size, room, format, arguments);
    va_end(arguments);
    if (size > 0)
        text->size += (size_t)size < room ? (size_t)size : room - 1;
}

static unsigned one_of(struct random_world *w, unsigned bound)
{
    return (unsigned)random_chance(w, bound);
}

static void add_insert(struct random_world *w, struct text *sql, unsigned size)
{
    unsigned value = ++w->next_value;

    add(sql, "INSERT INTO t VALUES(%u,%u,noise(%u,%u));", value, one_of(w, 50), value, size);
}

static void add_many(struct random_world *w, struct text *sql, unsigned rows, unsigned size)
{
    unsigned first = w->next_value + 1;

    w->next_value += rows;
    add(sql,
        "WITH RECURSIVE n(i) AS (VALUES(%u) UNION ALL SELECT i+1 FROM n WHERE i<%u)"
        "INSERT INTO t SELECT i,i%%7,noise(i,%u) FROM n;",
        first, w->next_value, size);
}

/* More pages than the cache has: SQLite spills, then takes part of it back. */
static void add_savepoints(struct random_world *w, struct text *sql)
{
    add(sql, "BEGIN;");
    add_insert(w, sql, 1 + one_of(w, 3000));
    add(sql, "SAVEPOINT a;");
    add_many(w, sql, 5 + one_of(w, 60), 1 + one_of(w, 2 * w->page_size < 6000 ? 2000 : 6000));
    if (one_of(w, 2) == 0)
        add(sql, "UPDATE t SET k=k+1 WHERE k%%3=0;");
    add(sql, "ROLLBACK TO a;");
    if (one_of(w, 2) == 0)
        add_insert(w, sql, 1 + one_of(w, 8000));
    add(sql, "RELEASE a;");
    if (one_of(w, 3) > 0)
        add(sql, "UPDATE t SET b=noise(a+%u,100) WHERE a>%u;", one_of(w, 1000),
            w->next_value - one_of(w, 20) % (w->next_value + 1));
    add(sql, "%s", one_of(w, 6) == 0 ? "ROLLBACK;" : "COMMIT;");
}

static void add_schema(struct random_world *w, struct text *sql)
{
    unsigned name = one_of(w, 4);

    switch (one_of(w, 6)) {
    case 0:
        add(sql, "CREATE INDEX IF NOT EXISTS i%u ON t(k,a);", name);
        break;
    case 1:
        add(sql, "DROP INDEX IF EXISTS i%u;", name);
        break;
    case 2:
        add(sql,
            "BEGIN;CREATE TABLE IF NOT EXISTS x%u(a INTEGER PRIMARY KEY,b);"
            "INSERT INTO x%u(b) SELECT noise(a,30) FROM t WHERE a%%5=0;COMMIT;",
            name, name);
        break;
    case 3:
        add(sql, "DROP TABLE IF EXISTS x%u;", name);
        break;
    case 4:
        add(sql, "CREATE VIEW v%u AS SELECT count(*) AS c FROM t;", ++w->next_value);
        break;
    default:
        add(sql, "PRAGMA user_version=%u;", one_of(w, 1000));
        break;
    }
}

static void make_transaction(struct random_world *w, struct text *sql)
{
    switch (one_of(w, 14)) {
    case 0:
    case 1:
    case 2:
        add_insert(w, sql, one_of(w, 400));
        break;
    case 3:
        add_many(w, sql, 1 + one_of(w, 40), one_of(w, 700));
        break;
    case 4:
        add_insert(w, sql, one_of(w, 60 * (w->page_size > 2048 ? 2048 : w->page_size)));
        break;
    case 5:
    case 6:
        if (w->has_savepoints)
            add_savepoints(w, sql);
        else
            add_many(w, sql, 5 + one_of(w, 60), 1 + one_of(w, 3000));
        break;
    case 7:
        add(sql, "DELETE FROM t WHERE a%%%u=0;", 2 + one_of(w, 4));
        break;
    case 8:
        add(sql, "UPDATE t SET b=noise(a*31+%u,length(b)) WHERE k<%u;", one_of(w, 1000),
            one_of(w, 50));
        break;
    case 9:
        add_schema(w, sql);
        break;
    case 10:
        add(sql, "VACUUM;");
        break;
    case 11:
        add(sql, "PRAGMA incremental_vacuum(%u);", 1 + one_of(w, 20));
        break;
    case 12:
        add(sql, "BEGIN;");
        add(sql, "DELETE FROM t WHERE a<%u;", w->next_value / (1 + one_of(w, 2)));
        add_insert(w, sql, one_of(w, 5000));
        add(sql, "UPDATE t SET k=%u;COMMIT;", one_of(w, 50));
        break;
    default:
        add(sql, "BEGIN;");
        for (unsigned i = 0; i < 5; i++)
            add_insert(w, sql, one_of(w, 1000));
        add(sql, "COMMIT;");
        break;
    }
}

/* So that each process knows of the WAL, and its worker can work. */
static void let_all_read(struct random_world *w)
{
    unsigned process = w->process;

    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++) {
        struct random_connection *connection = &w->connections[i];

        if (connection->db == NULL || connection->process >= RANDOM_SHIM_PROCESSES)
            continue;
        random_act_as(w, connection->process);
        (void)sqlite3_exec(connection->db, "SELECT count(*) FROM t", NULL, NULL, NULL);
        (void)sqlite3_exec(connection->db, "SELECT count(*) FROM t", NULL, NULL, NULL);
    }
    random_act_as(w, process);
}

/* SQLite took it. */
static void acknowledge(struct random_world *w, struct random_connection *connection,
                        const char *sql, bool had_wal, bool is_confirmed)
{
    bool has_changed;

    random_acknowledge(w, sql);
    w->totals.commits++;
    if (w->count == 1)
        let_all_read(w);
    has_changed = w->states[w->count].fingerprint != w->states[w->count - 1].fingerprint;
    /* Without a WAL there was a journal, which may come back; no change syncs nothing. */
    if (connection->is_full && w->synchronous != RANDOM_OFF &&
        sim_file_exists(w->sim, "/app.db-wal") && has_changed)
        w->floor = w->durable = w->count;
    if (connection->is_local && is_confirmed && had_wal && has_changed)
        w->floor = w->count;
}

void random_commit(struct random_world *w, struct random_connection *connection)
{
    bool had_wal = sim_file_exists(w->sim, "/app.db-wal"), is_confirmed;
    struct text sql = {.size = 0};
    int rc;

    if (connection->is_reading || w->count + 2 >= RANDOM_STATES)
        return;
    if (w->count == 0)
        add(&sql, "CREATE TABLE t(a INTEGER PRIMARY KEY,k,b);");
    else
        make_transaction(w, &sql);
    rc = sqlite3_exec(connection->db, sql.bytes, NULL, NULL, NULL);
    is_confirmed = sqlite3_extended_errcode(connection->db) != HW_VFS_UNCONFIRMED;
    if ((rc == SQLITE_OK || (!is_confirmed && w->may_have_gaps)) &&
        !sim_is_killed(w->sim, connection->process)) {
        acknowledge(w, connection, sql.bytes, had_wal, is_confirmed);
        return;
    }
    if (random_is_down(w)) {
        free(w->pending);
        w->pending = strdup(sql.bytes);
        return;
    }
    if (rc != SQLITE_BUSY && rc != SQLITE_LOCKED)
        random_fail(w, "a transaction fails: %s (%d): %s", sqlite3_errmsg(connection->db),
                    sqlite3_extended_errcode(connection->db), sql.bytes);
    w->totals.busy++;
    if (sqlite3_get_autocommit(connection->db) == 0)
        (void)sqlite3_exec(connection->db, "ROLLBACK", NULL, NULL, NULL);
}

void random_checkpoint(struct random_world *w, struct random_connection *connection)
{
    static const char *const modes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    char sql[64];
    int rc;

    if (connection->is_reading)
        return;
    if (connection->process == RANDOM_FOREIGN)
        w->may_have_gaps = true;
    (void)snprintf(sql, sizeof(sql), "PRAGMA wal_checkpoint(%s)", modes[random_chance(w, 4)]);
    rc = sqlite3_exec(connection->db, sql, NULL, NULL, NULL);
    if (rc != SQLITE_OK && rc != SQLITE_BUSY && !random_is_down(w))
        random_fail(w, "%s: %s (%d)", sql, sqlite3_errmsg(connection->db),
                    sqlite3_extended_errcode(connection->db));
}

void random_read(struct random_world *w, struct random_connection *connection)
{
    uint64_t seen = 0;
    char message[256];

    if (!connection->is_reading) {
        if (sqlite3_exec(connection->db, "SAVEPOINT reading", NULL, NULL, NULL) != SQLITE_OK)
            return;
        connection->is_reading = true;
    }
    if (!sim_fingerprint(connection->db, &seen, message)) {
        if (!random_is_down(w))
            random_fail(w, "a reader: %s", message);
        return;
    }
    if (random_is_down(w))
        return;
    if (connection->seen != 0 && connection->seen != seen)
        random_fail(w, "a reader saw its state change");
    else if (connection->seen == 0 && seen != w->states[w->count].fingerprint)
        random_fail(w, "a reader does not see the newest state");
    if (connection->seen == 0 && random_chance(w, 2) == 0) {
        connection->seen = seen; /* it stays */
        return;
    }
    (void)sqlite3_exec(connection->db, "RELEASE reading", NULL, NULL, NULL);
    connection->is_reading = false;
    connection->seen = 0;
}

/* ------------------------------------------------------------------------- what users ask */

void random_note_length(struct random_world *w)
{
    struct hw_capture_status status;

    if (sim_has_crashed(w->sim))
        return;
    for (unsigned process = 0; process < RANDOM_SHIM_PROCESSES; process++) {
        if (w->captures[process] == NULL || sim_is_killed(w->sim, process))
            continue;
        random_act_as(w, process);
        hw_capture_status(w->captures[process], &status);
        if (status.length > w->announced)
            w->announced = status.length;
        if (status.fork > w->fork)
            w->fork = status.fork;
    }
}

/* The seq after what was committed; UINT64_MAX: it is not known. */
static uint64_t ask_seq(struct random_world *w, struct random_connection *connection,
                        const char *pragma)
{
    sqlite3_stmt *statement = NULL;
    sqlite3_int64 answer = -1;

    if (sqlite3_prepare_v2(connection->db, pragma, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        answer = sqlite3_column_int64(statement, 0);
    else if (!random_is_down(w))
        random_fail(w, "%s: %s", pragma, sqlite3_errmsg(connection->db));
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return answer < 0 || sim_is_killed(w->sim, connection->process) ? UINT64_MAX : (uint64_t)answer;
}

/* A stranger reads a database that has no WAL yet: nobody can give it one now. */
static bool is_kept_from_wal(struct random_world *w)
{
    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++)
        if (w->connections[i].process == RANDOM_FOREIGN && w->connections[i].is_reading)
            return !sim_file_exists(w->sim, "/app.db-wal");
    return false;
}

/*
 * A process that has the role, and in which nobody reads, gives it to who wants it in a thread of
 * its own, which no process has here (test_vfs_roles.c has it).
 */
static bool is_kept_from_role(struct random_world *w, unsigned process)
{
    for (unsigned other = 0; other < RANDOM_SHIM_PROCESSES; other++) {
        struct hw_capture_status status;

        if (other == process || w->captures[other] == NULL)
            continue;
        hw_capture_status(w->captures[other], &status);
        if (status.is_worker && strcmp(status.state, "starting") == 0)
            return true;
    }
    return false;
}

void random_wait_logged(struct random_world *w, struct random_connection *connection)
{
    uint64_t seq;

    if (connection->is_reading || w->count == 0 || is_kept_from_wal(w))
        return;
    if (sqlite3_exec(connection->db, "SELECT count(*) FROM t", NULL, NULL, NULL) != SQLITE_OK)
        return; /* and with that it reads: its process may do the worker's work */
    if (w->captures[connection->process] == NULL)
        return;
    {
        struct hw_error err = {0};
        enum hw_status status =
            hw_capture_wait_logged(w->captures[connection->process], 5000, &seq, &err);

        if (status != HW_OK) {
            if (!random_is_down(w) && !is_kept_from_role(w, connection->process))
                random_fail(w, "not logged: %s", err.message);
            return;
        }
    }
    if (sim_is_killed(w->sim, connection->process) || seq == UINT64_MAX)
        return;
    w->floor = w->count;
    w->states[w->count].seq = seq;
    random_note_length(w);
}

void random_label(struct random_world *w, struct random_connection *connection)
{
    char sql[64];

    if (connection->is_reading || w->count == 0 || is_kept_from_wal(w))
        return;
    (void)snprintf(sql, sizeof(sql), "PRAGMA hyperwal_label='l%u'", one_of(w, 5));
    (void)ask_seq(w, connection, sql);
}

void random_snapshot(struct random_world *w, struct random_connection *connection)
{
    if (!connection->is_reading && w->count > 0 && !is_kept_from_wal(w))
        (void)ask_seq(w, connection, "PRAGMA hyperwal_snapshot");
}

void random_prune(struct random_world *w)
{
    unsigned index = (unsigned)random_chance(w, w->count + 1);
    unsigned process = (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES);
    bool dry_run = random_chance(w, 4) == 0;
    struct hw_error err = {0};
    uint64_t freed, seq = w->states[index].seq;
    enum hw_status status;

    if (w->captures[process] == NULL || seq == UINT64_MAX)
        return;
    random_act_as(w, process);
    if (!dry_run && seq > w->pruned_below)
        w->pruned_below = seq;
    status = hw_capture_prune(w->captures[process], seq, dry_run, 5000, &freed, &err);
    if (status != HW_OK && status != HW_ENOTFOUND && status != HW_EPRUNED && !random_is_down(w))
        random_fail(w, "prune to %llu: %s", (unsigned long long)seq, err.message);
}
