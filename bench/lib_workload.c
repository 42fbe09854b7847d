/* Implements bench/lib_workload.h. */
#include "lib_workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 100000, PREFILLED_ROWS = 100000, CUSTOMERS = 3000, ITEMS = 10000, BULK_ROWS = 10000 };
enum { KV_VALUE_SIZE = 100, ROW_TEXT_SIZE = 170, LINE_TEXT_SIZE = 24, SETTLE_SECONDS = 120 };

static const char *const names[BENCH_WORKLOADS] = {"kv", "insert", "order", "bulk"};

static const char *const schemas[BENCH_WORKLOADS] = {
    "CREATE TABLE kv(k INTEGER PRIMARY KEY, v);",
    "CREATE TABLE event(id INTEGER PRIMARY KEY, account INTEGER, kind TEXT, body);"
    "CREATE INDEX event_account ON event(account);",
    "CREATE TABLE customer(id INTEGER PRIMARY KEY, balance REAL, orders INTEGER, detail);"
    "CREATE TABLE stock(item INTEGER PRIMARY KEY, quantity INTEGER, sold INTEGER, detail);"
    "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, lines INTEGER, entered TEXT);"
    "CREATE INDEX orders_customer ON orders(customer);"
    "CREATE TABLE line(orders INTEGER, number INTEGER, item INTEGER, quantity INTEGER,"
    " amount REAL, detail, PRIMARY KEY(orders, number)) WITHOUT ROWID;",
    "CREATE TABLE event(id INTEGER PRIMARY KEY, account INTEGER, kind TEXT, body);",
};

static const char *const transactions[BENCH_WORKLOADS][BENCH_STATEMENTS] = {
    {"INSERT INTO kv VALUES(?1, ?2) ON CONFLICT(k) DO UPDATE SET v = excluded.v"},
    {"INSERT INTO event(account, kind, body) VALUES(?1, 'visit', ?2)"},
    {"INSERT INTO orders(customer, lines, entered) VALUES(?1, ?2, datetime(1700000000 + ?3,"
     " 'unixepoch'))",
     "INSERT INTO line VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
     "UPDATE stock SET quantity = CASE WHEN quantity >= ?2 + 10 THEN quantity - ?2"
     " ELSE quantity - ?2 + 91 END, sold = sold + ?2 WHERE item = ?1",
     "UPDATE customer SET balance = balance - ?2, orders = orders + 1 WHERE id = ?1"},
    {"INSERT INTO event(account, kind, body) VALUES(?1, 'visit', ?2)"},
};

const char *bench_workload_name(enum bench_workload workload)
{
    return names[workload];
}

/* ---------------------------------------------------------------------- what is written */

uint64_t bench_random(uint64_t *random) /* splitmix64 */
{
    uint64_t z = *random += 0x9e3779b97f4a7c15U;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static int64_t below(uint64_t *random, uint64_t limit)
{
    return (int64_t)(bench_random(random) % limit);
}

void bench_text(uint64_t *random, bool random_values, char *out, size_t size)
{
    static const char *const words[] = {
        "amber",  "birch",  "cedar",  "delta",  "ember",  "fjord", "grove",   "harbor",
        "inlet",  "jasper", "kelp",   "lumen",  "maple",  "north", "ochre",   "pine",
        "quartz", "river",  "slate",  "tundra", "umber",  "vale",  "willow",  "xenon",
        "yarrow", "zephyr", "anchor", "beacon", "copper", "drift", "estuary", "flint"};
    size_t used = 0;

    if (random_values) {
        for (size_t i = 0; i < size; i++)
            out[i] = (char)bench_random(random);
        return;
    }
    while (used < size) {
        char part[64];
        uint64_t value = bench_random(random);
        size_t part_size =
            (size_t)snprintf(part, sizeof(part), "%s\"%s\":\"%s %s\",\"count\":%u",
                             used == 0 ? "{" : ",", words[value % 32], words[value >> 8 & 31],
                             words[value >> 16 & 31], (unsigned)(value >> 24 & 4095));
        size_t room = size - used;

        memcpy(out + used, part, part_size < room ? part_size : room);
        used += part_size < room ? part_size : room;
    }
    out[size - 1] = '}';
}

/* ------------------------------------------------------------------------------ SQLite */

static void check(sqlite3 *db, int code, const char *what)
{
    if (code != SQLITE_OK)
        bench_die("%s: %s", what, sqlite3_errmsg(db));
}

void bench_exec(sqlite3 *db, const char *sql)
{
    check(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

int64_t bench_query_int(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement;
    int64_t value;

    check(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL), sql);
    if (sqlite3_step(statement) != SQLITE_ROW)
        bench_die("%s: %s", sql, sqlite3_errmsg(db));
    value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

sqlite3 *bench_open(const char *path, const char *vfs, const char *synchronous)
{
    char sql[64];
    sqlite3 *db;
    int code = sqlite3_open_v2(path, &db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs);

    check(db, code, path);
    sqlite3_busy_timeout(db, 10000);
    bench_exec(db, "PRAGMA journal_mode=WAL");
    snprintf(sql, sizeof(sql), "PRAGMA synchronous=%s", synchronous);
    bench_exec(db, sql);
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement;

    check(db, sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL), sql);
    return statement;
}

static void run(struct bench_load *load, sqlite3_stmt *statement)
{
    if (sqlite3_step(statement) != SQLITE_DONE)
        bench_die("%s: %s", sqlite3_sql(statement), sqlite3_errmsg(load->db));
    sqlite3_reset(statement);
}

/* ---------------------------------------------------------------------------- workloads */

static void kv_put(struct bench_load *load, int64_t key)
{
    char value[KV_VALUE_SIZE];

    bench_text(&load->random, load->random_values, value, sizeof(value));
    sqlite3_bind_int64(load->statements[0], 1, key);
    sqlite3_bind_text(load->statements[0], 2, value, sizeof(value), SQLITE_STATIC);
    run(load, load->statements[0]);
}

static void event_add(struct bench_load *load)
{
    char body[ROW_TEXT_SIZE];

    bench_text(&load->random, load->random_values, body, sizeof(body));
    sqlite3_bind_int64(load->statements[0], 1, below(&load->random, 1000000));
    sqlite3_bind_text(load->statements[0], 2, body, sizeof(body), SQLITE_STATIC);
    run(load, load->statements[0]);
}

static double order_line(struct bench_load *load, int64_t order, int number)
{
    char text[LINE_TEXT_SIZE];
    int64_t item = 1 + below(&load->random, ITEMS), quantity = 1 + below(&load->random, 10);
    double amount = (double)(quantity * (1 + below(&load->random, 10000))) / 100;

    bench_text(&load->random, load->random_values, text, sizeof(text));
    sqlite3_bind_int64(load->statements[1], 1, order);
    sqlite3_bind_int(load->statements[1], 2, number);
    sqlite3_bind_int64(load->statements[1], 3, item);
    sqlite3_bind_int64(load->statements[1], 4, quantity);
    sqlite3_bind_double(load->statements[1], 5, amount);
    sqlite3_bind_text(load->statements[1], 6, text, sizeof(text), SQLITE_STATIC);
    run(load, load->statements[1]);

    sqlite3_bind_int64(load->statements[2], 1, item);
    sqlite3_bind_int64(load->statements[2], 2, quantity);
    run(load, load->statements[2]);
    return amount;
}

static void order_enter(struct bench_load *load)
{
    int64_t customer = 1 + below(&load->random, CUSTOMERS), order;
    int lines = 5 + (int)below(&load->random, 6);
    double amount = 0;

    sqlite3_bind_int64(load->statements[0], 1, customer);
    sqlite3_bind_int(load->statements[0], 2, lines);
    sqlite3_bind_int64(load->statements[0], 3, (int64_t)load->count);
    run(load, load->statements[0]);
    order = sqlite3_last_insert_rowid(load->db);
    for (int number = 1; number <= lines; number++)
        amount += order_line(load, order, number);
    sqlite3_bind_int64(load->statements[3], 1, customer);
    sqlite3_bind_double(load->statements[3], 2, amount);
    run(load, load->statements[3]);
}

void bench_load_run(struct bench_load *load)
{
    if (load->workload == BENCH_KV) {
        kv_put(load, 1 + below(&load->random, KEYS)); /* autocommit */
    } else if (load->workload == BENCH_INSERT) {
        event_add(load);
    } else {
        run(load, load->begin);
        if (load->workload == BENCH_ORDER)
            order_enter(load);
        else
            for (int i = 0; i < BULK_ROWS; i++)
                event_add(load);
        run(load, load->commit);
    }
    load->count++;
}

void bench_load_open(struct bench_load *load, const struct bench_options *options,
                     enum bench_workload workload, const char *path, const char *vfs,
                     const char *synchronous)
{
    *load = (struct bench_load){
        .workload = workload, .random = 42, .random_values = options->random_values};
    load->db = bench_open(path, vfs, synchronous);
    load->begin = prepare(load->db, "BEGIN IMMEDIATE");
    load->commit = prepare(load->db, "COMMIT");
    for (int i = 0; i < BENCH_STATEMENTS && transactions[workload][i] != NULL; i++)
        load->statements[i] = prepare(load->db, transactions[workload][i]);
}

void bench_load_close(struct bench_load *load)
{
    sqlite3_finalize(load->begin);
    sqlite3_finalize(load->commit);
    for (int i = 0; i < BENCH_STATEMENTS; i++)
        sqlite3_finalize(load->statements[i]);
    check(load->db, sqlite3_close(load->db), "close");
    *load = (struct bench_load){0};
}

/* Customers and items, with a detail text each. */
static void populate_order(struct bench_load *load)
{
    sqlite3_stmt *customer = prepare(load->db, "INSERT INTO customer VALUES(?1, 100.0, 0, ?2)");
    sqlite3_stmt *item = prepare(load->db, "INSERT INTO stock VALUES(?1, 50, 0, ?2)");
    char text[200];

    for (int i = 1; i <= CUSTOMERS + ITEMS; i++) {
        sqlite3_stmt *statement = i <= CUSTOMERS ? customer : item;

        bench_text(&load->random, load->random_values, text, sizeof(text));
        sqlite3_bind_int(statement, 1, i <= CUSTOMERS ? i : i - CUSTOMERS);
        sqlite3_bind_text(statement, 2, text, sizeof(text), SQLITE_STATIC);
        run(load, statement);
    }
    sqlite3_finalize(customer);
    sqlite3_finalize(item);
    for (int i = 0; i < 10000; i++)
        order_enter(load);
}

void bench_load_populate(const char *path, enum bench_workload workload, bool random_values)
{
    struct bench_options options = {.random_values = random_values};
    struct bench_load load;
    sqlite3 *db = bench_open(path, NULL, "OFF");

    bench_exec(db, schemas[workload]);
    sqlite3_close(db);
    bench_load_open(&load, &options, workload, path, NULL, "OFF");
    load.random = 7; /* not the values that the transactions write */
    run(&load, load.begin);
    if (workload == BENCH_ORDER)
        populate_order(&load);
    else
        for (int i = 1; i <= PREFILLED_ROWS; i++) {
            if (workload == BENCH_KV)
                kv_put(&load, i);
            else
                event_add(&load);
        }
    run(&load, load.commit);
    bench_load_close(&load); /* the last close checkpoints and removes the WAL */
}

void bench_ballast_populate(const char *path, uint64_t mib, bool random_values)
{
    enum { POOL_SIZE = 4 << 20, ROW_SIZE = 980, ROWS_A_COMMIT = 65536 };
    char *pool = malloc(
        POOL_SIZE); /* rows are slices of it, four a page: making text costs more than SQLite */
    uint64_t random = 9, rows = mib << 20 >> 10;
    sqlite3_stmt *insert;
    sqlite3 *db;

    if (pool == NULL)
        bench_die("no memory");
    bench_load_populate(path, BENCH_KV, random_values);
    bench_text(&random, random_values, pool, POOL_SIZE);
    db = bench_open(path, NULL, "OFF");
    bench_exec(db, "CREATE TABLE ballast(id INTEGER PRIMARY KEY, body)");
    insert = prepare(db, "INSERT INTO ballast(body) VALUES(?1)");
    bench_exec(db, "BEGIN");
    for (uint64_t row = 0; row < rows; row++) {
        const char *slice = pool + below(&random, POOL_SIZE - ROW_SIZE);

        sqlite3_bind_text(insert, 1, slice, ROW_SIZE, SQLITE_STATIC);
        if (sqlite3_step(insert) != SQLITE_DONE)
            bench_die("ballast: %s", sqlite3_errmsg(db));
        sqlite3_reset(insert);
        if (row % ROWS_A_COMMIT == ROWS_A_COMMIT - 1)
            bench_exec(db, "COMMIT; BEGIN"); /* the WAL starts again */
    }
    bench_exec(db, "COMMIT");
    sqlite3_finalize(insert);
    check(db, sqlite3_close(db), "close");
    free(pool);
}

/* ------------------------------------------------------------------------------ settle */

bool bench_is_hyperwal(const char *vfs)
{
    return vfs != NULL && strcmp(vfs, "hyperwal") == 0;
}

void bench_settle(sqlite3 *db, const char *vfs, const char *path)
{
    uint64_t deadline = bench_now_ns() + (uint64_t)SETTLE_SECONDS * 1000000000U, seq;
    hyperwal_log *log = NULL;
    hyperwal_head head;
    char *error = NULL;

    if (!bench_is_hyperwal(vfs))
        return;
    if (hyperwal_seq(db, "main", &seq) != SQLITE_OK)
        bench_die("hyperwal_seq: %s", sqlite3_errmsg(db));
    if (hyperwal_log_open(path, &log, &error) != SQLITE_OK)
        bench_die("hyperwal_log_open: %s", error != NULL ? error : "no message");
    for (;;) {
        if (hyperwal_log_head(log, &head) != SQLITE_OK)
            bench_die("hyperwal_log_head: %s", hyperwal_log_errmsg(log));
        if (head.snapshot_seq != HYPERWAL_SEQ_NONE)
            break;
        if (bench_now_ns() > deadline)
            bench_die("'%s': no snapshot in the log after %d s", path, SETTLE_SECONDS);
        (void)hyperwal_log_wait(log, head.length, 1000); /* the deadline decides */
    }
    hyperwal_log_close(log);
}

/* -------------------------------------------------------------------------- WAL bytes */

/* SQLite's own automatic checkpoint is a WAL hook: this one takes its place. */
static int count_frames(void *ctx, sqlite3 *db, const char *schema, int frames)
{
    enum { CHECKPOINT_FRAMES = 1000 };
    struct bench_wal_count *count = ctx;

    count->frames += (uint64_t)(frames > count->newest ? frames - count->newest : frames);
    count->newest = frames;
    if (frames >= CHECKPOINT_FRAMES)
        (void)sqlite3_wal_checkpoint_v2(db, schema, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    return SQLITE_OK; /* a checkpoint that found the database busy comes again */
}

void bench_wal_count(sqlite3 *db, struct bench_wal_count *count)
{
    *count = (struct bench_wal_count){0};
    count->page_size = (uint64_t)bench_query_int(db, "PRAGMA page_size");
    sqlite3_wal_hook(db, count_frames, count);
}

uint64_t bench_wal_bytes(const struct bench_wal_count *count)
{
    enum { FRAME_HEADER_SIZE = 24 };

    return count->frames * (count->page_size + FRAME_HEADER_SIZE);
}
