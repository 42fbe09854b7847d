/*
 * SQLite behaves under the shim as it does without: each scenario runs on the stock VFS and on
 * hyperwal, and writes down every result code, row and file that a user could see.  The two
 * transcripts are the same text; where the log asks for a difference, a test of its own names it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hyperwal.h"

enum { CONNECTIONS = 4, PATH_SIZE = 512 };

struct run {
    const char *vfs;
    char dir[PATH_SIZE];
    sqlite3 *db[CONNECTIONS];
    char *text; /* the transcript, owned */
    size_t size;
};

static void note(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void note(struct run *run, const char *format, ...)
{
    char line[4096];
    size_t size;
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    size = strlen(line);
    run->text = realloc(run->text, run->size + size + 2);
    assert_non_null(run->text);
    memcpy(run->text + run->size, line, size);
    run->size += size;
    run->text[run->size++] = '\n';
    run->text[run->size] = '\0';
}

static const char *path_of(const struct run *run, const char *name)
{
    static char path[2 * PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", run->dir, name);
    return path;
}

/* `name` is relative to the run's directory; `parameters` begin with '&' or are empty. */
static int open_with(struct run *run, int c, const char *name, const char *parameters, int flags)
{
    char uri[3 * PATH_SIZE];
    int code;

    (void)snprintf(uri, sizeof(uri), "file:%s/%s?vfs=%s%s", run->dir, name, run->vfs, parameters);
    code = sqlite3_open_v2(uri, &run->db[c], flags | SQLITE_OPEN_URI, NULL);
    note(run, "%d open %s%s -> %d", c, name, parameters, code);
    sqlite3_extended_result_codes(run->db[c], 1);
    return code;
}

static void open_db(struct run *run, int c, const char *name)
{
    (void)open_with(run, c, name, "", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
}

static void close_db(struct run *run, int c)
{
    note(run, "%d close -> %d", c, sqlite3_close(run->db[c]));
    run->db[c] = NULL;
}

static int sql(struct run *run, int c, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Run every statement of `sql`; $D is the directory. */
static int sql(struct run *run, int c, const char *format, ...)
{
    char text[4096], *mark;
    const char *next = text;
    int code = SQLITE_OK;
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    while ((mark = strstr(text, "$D")) != NULL) {
        char rest[4096];

        (void)snprintf(rest, sizeof(rest), "%s", mark + 2);
        (void)snprintf(mark, sizeof(text) - (size_t)(mark - text), "%s%s", run->dir, rest);
    }
    note(run, "%d %s", c, format);
    while (*next != '\0') {
        sqlite3_stmt *statement = NULL;

        code = sqlite3_prepare_v2(run->db[c], next, -1, &statement, &next);
        if (code != SQLITE_OK) {
            note(run, "  prepare -> %d %s", code, sqlite3_errmsg(run->db[c]));
            break;
        }
        if (statement == NULL)
            break;
        while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
            char row[2048] = "";

            for (int i = 0; i < sqlite3_column_count(statement); i++) {
                const char *value = (const char *)sqlite3_column_text(statement, i);
                size_t used = strlen(row);

                (void)snprintf(row + used, sizeof(row) - used, "|%s", value == NULL ? "-" : value);
            }
            note(run, "  %s", row);
        }
        if (sqlite3_finalize(statement) != SQLITE_OK || code != SQLITE_DONE) {
            note(run, "  -> %d %s", code, sqlite3_errmsg(run->db[c]));
            break;
        }
    }
    note(run, "  autocommit %d", sqlite3_get_autocommit(run->db[c]));
    return code;
}

/* Wait until the log has everything: what follows would depend on the worker's pace. */
static void settle(const struct run *run, int c)
{
    uint64_t seq;

    if (strcmp(run->vfs, "hyperwal") == 0)
        assert_int_equal(hyperwal_seq(run->db[c], NULL, &seq), SQLITE_OK);
}

static void note_file(struct run *run, const char *name)
{
    struct stat st;
    int rc = stat(path_of(run, name), &st);

    note(run, "file %s: %s", name, rc == 0 ? "there" : "none");
}

static void checkpoint(struct run *run, int c, int mode)
{
    int frames = -2, done = -2;
    int code = sqlite3_wal_checkpoint_v2(run->db[c], NULL, mode, &frames, &done);

    note(run, "%d checkpoint %d -> %d, %d of %d", c, mode, code, done, frames);
}

static void remove_tree(const char *dir)
{
    char command[2 * PATH_SIZE];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void run_init(struct run *run, const char *vfs)
{
    *run = (struct run){.vfs = vfs};
    (void)snprintf(run->dir, sizeof(run->dir), "/tmp/hyperwal-same-XXXXXX");
    assert_non_null(mkdtemp(run->dir));
    note(run, "begin");
}

static void run_release(struct run *run)
{
    for (int c = 0; c < CONNECTIONS; c++)
        assert_int_equal(sqlite3_close(run->db[c]), SQLITE_OK);
    remove_tree(run->dir);
    free(run->text);
}

static void compare(void (*scenario)(struct run *run))
{
    struct run stock, shim;

    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&stock, "unix");
    run_init(&shim, "hyperwal");
    scenario(&stock);
    scenario(&shim);
    if (strcmp(stock.text, shim.text) != 0)
        print_error("---- stock\n%s---- hyperwal\n%s", stock.text, shim.text);
    assert_string_equal(stock.text, shim.text);
    run_release(&stock);
    run_release(&shim);
}

static const char fill[] =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d)"
    " INSERT INTO t(v) SELECT printf('%%0500d', i*7919) FROM n";

static void fill_rows(struct run *run, int c, int rows)
{
    char text[256];

    (void)snprintf(text, sizeof(text), fill, rows);
    (void)sql(run, c, "%s", text);
}

static void make(struct run *run, int c, const char *name)
{
    open_db(run, c, name);
    (void)sql(run, c, "PRAGMA journal_mode=WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
}

/* ---------------------------------------------------------------------------- scenarios */

static void statements(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "INSERT INTO t(v) VALUES('a'),('b'),('c'); SELECT * FROM t");
    (void)sql(run, 0, "CREATE UNIQUE INDEX u ON t(v); INSERT INTO t(v) VALUES('a')");
    (void)sql(run, 0, "BEGIN; DELETE FROM t; SELECT count(*) FROM t; ROLLBACK");
    (void)sql(run, 0, "UPDATE t SET v=v||v WHERE id>1; SELECT * FROM t; SELECT * FROM nowhere");
    (void)sql(run, 0, "BEGIN; SAVEPOINT s; DELETE FROM t WHERE id=1; ROLLBACK TO s; COMMIT");
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check; PRAGMA journal_mode");
    close_db(run, 0);
    note_file(run, "app.db");
    note_file(run, "app.db-wal");
    note_file(run, "app.db-shm");
}

static void the_same_statements_give_the_same_answers(void **state)
{
    (void)state;
    compare(statements);
}

static void spilling_savepoints(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "PRAGMA cache_size=5; BEGIN");
    fill_rows(run, 0, 2000);
    (void)sql(run, 0, "SAVEPOINT a; UPDATE t SET v='x'||v WHERE id%%3=0; SAVEPOINT b");
    fill_rows(run, 0, 1000);
    (void)sql(run, 0, "ROLLBACK TO b; DELETE FROM t WHERE id%%5=0; RELEASE a");
    (void)sql(run, 0, "SELECT count(*), sum(length(v)) FROM t; COMMIT");
    (void)sql(run, 0, "BEGIN; DELETE FROM t WHERE id>10; SAVEPOINT c; ROLLBACK TO c; ROLLBACK");
    (void)sql(run, 0, "SELECT count(*), sum(length(v)) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
}

static void savepoints_survive_a_cache_that_spills(void **state)
{
    (void)state;
    compare(spilling_savepoints);
}

static void checkpoints(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "PRAGMA wal_autocheckpoint=0");
    fill_rows(run, 0, 100);
    checkpoint(run, 0, SQLITE_CHECKPOINT_PASSIVE);
    fill_rows(run, 0, 10);
    checkpoint(run, 0, SQLITE_CHECKPOINT_FULL);
    fill_rows(run, 0, 10);
    checkpoint(run, 0, SQLITE_CHECKPOINT_RESTART);
    fill_rows(run, 0, 10);
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    (void)sql(run, 0, "PRAGMA wal_checkpoint; PRAGMA wal_checkpoint(full); SELECT count(*) FROM t");
    open_db(run, 1, "app.db");
    (void)sql(run, 1, "BEGIN; SELECT count(*) FROM t");
    fill_rows(run, 0, 10);
    checkpoint(run, 0, SQLITE_CHECKPOINT_PASSIVE);
    checkpoint(run, 0, SQLITE_CHECKPOINT_RESTART);
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    (void)sql(run, 1, "SELECT count(*) FROM t; COMMIT; SELECT count(*) FROM t");
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    (void)sql(run, 0, "BEGIN");
    fill_rows(run, 0, 1);
    checkpoint(run, 0, SQLITE_CHECKPOINT_PASSIVE);
    (void)sql(run, 0, "COMMIT; PRAGMA integrity_check");
    close_db(run, 1);
    close_db(run, 0);
}

static void checkpoints_of_all_modes_do_the_same(void **state)
{
    (void)state;
    compare(checkpoints);
}

static void two_writers(struct run *run)
{
    make(run, 0, "app.db");
    open_db(run, 1, "app.db");
    (void)sql(run, 0, "BEGIN IMMEDIATE; INSERT INTO t(v) VALUES(1)");
    (void)sql(run, 1, "INSERT INTO t(v) VALUES(2)");
    (void)sql(run, 1, "BEGIN; SELECT count(*) FROM t");
    (void)sql(run, 0, "COMMIT");
    (void)sql(run, 1, "SELECT count(*) FROM t; INSERT INTO t(v) VALUES(3)");
    (void)sql(run, 1, "ROLLBACK; INSERT INTO t(v) VALUES(4); SELECT * FROM t");
    (void)sql(run, 0, "SELECT * FROM t; PRAGMA data_version");
    close_db(run, 0);
    note_file(run, "app.db-wal");
    close_db(run, 1);
    note_file(run, "app.db-wal");
}

static void two_writers_get_the_same_busy_codes(void **state)
{
    (void)state;
    compare(two_writers);
}

static void attached(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0,
              "ATTACH 'file:$D/b.db?vfs=%s' AS b; ATTACH 'file:$D/c.db?vfs=unix' AS c;"
              "ATTACH ':memory:' AS m",
              run->vfs);
    (void)sql(run, 0,
              "PRAGMA b.journal_mode=WAL; CREATE TABLE b.t(v); CREATE TABLE c.t(v);"
              "CREATE TABLE m.t(v)");
    (void)sql(run, 0,
              "BEGIN; INSERT INTO t(v) VALUES(1); INSERT INTO b.t VALUES(2);"
              "INSERT INTO c.t VALUES(3); INSERT INTO m.t VALUES(4); COMMIT");
    (void)sql(run, 0, "SELECT main.t.v, b.t.v, c.t.v, m.t.v FROM main.t, b.t, c.t, m.t");
    (void)sql(run, 0, "BEGIN; DELETE FROM t; DELETE FROM b.t; ROLLBACK; SELECT count(*) FROM b.t");
    (void)sql(run, 0, "DETACH b; DETACH c; DETACH nothing; SELECT count(*) FROM t");
    close_db(run, 0);
    note_file(run, "b.db-wal");
}

static void attached_databases_commit_together(void **state)
{
    (void)state;
    compare(attached);
}

static void backup(struct run *run, int to, int from)
{
    sqlite3_backup *copy = sqlite3_backup_init(run->db[to], "main", run->db[from], "main");

    assert_non_null(copy);
    note(run, "backup step -> %d", sqlite3_backup_step(copy, 3));
    note(run, "backup step -> %d", sqlite3_backup_step(copy, -1));
    note(run, "backup of %d, left %d", sqlite3_backup_pagecount(copy),
         sqlite3_backup_remaining(copy));
    note(run, "backup finish -> %d", sqlite3_backup_finish(copy));
}

static void backups(struct run *run)
{
    make(run, 0, "app.db");
    fill_rows(run, 0, 100);
    open_db(run, 1, "copy.db");
    backup(run, 1, 0);
    (void)sql(run, 1, "SELECT count(*), sum(length(v)) FROM t; PRAGMA integrity_check");
    (void)sql(run, 0, "DELETE FROM t WHERE id>50");
    backup(run, 1, 0); /* over a database that is there, and larger */
    (void)sql(run, 1, "SELECT count(*) FROM t; INSERT INTO t(v) VALUES(1)");
    backup(run, 0, 1);
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check");
    close_db(run, 1);
    close_db(run, 0);
}

static void the_backup_api_copies_both_ways(void **state)
{
    (void)state;
    compare(backups);
}

static void layouts(struct run *run)
{
    open_db(run, 0, "app.db");
    (void)sql(run, 0,
              "PRAGMA page_size=8192; PRAGMA auto_vacuum=incremental;"
              "PRAGMA encoding='UTF-16le'; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    (void)sql(run, 0, "PRAGMA page_size; PRAGMA auto_vacuum; PRAGMA encoding");
    (void)sql(run, 0, "PRAGMA journal_mode=wal");
    fill_rows(run, 0, 200);
    (void)sql(run, 0,
              "DELETE FROM t WHERE id<150; PRAGMA freelist_count; PRAGMA incremental_vacuum;"
              "PRAGMA freelist_count; PRAGMA page_count");
    (void)sql(run, 0,
              "VACUUM; PRAGMA page_count; SELECT count(*), sum(length(v)) FROM t;"
              "PRAGMA integrity_check; VACUUM INTO '$D/into.db'");
    close_db(run, 0);
    open_db(run, 0, "into.db");
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA page_size");
    close_db(run, 0);
}

static void page_size_encoding_and_vacuum_work_as_ever(void **state)
{
    (void)state;
    compare(layouts);
}

static void memory_maps(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "PRAGMA mmap_size=1048576");
    fill_rows(run, 0, 500);
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    (void)sql(run, 0,
              "SELECT count(*), sum(length(v)) FROM t; PRAGMA mmap_size=0; PRAGMA mmap_size");
    fill_rows(run, 0, 50);
    (void)sql(run, 0, "SELECT count(*), sum(length(v)) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
}

static void mapped_memory_reads_the_same(void **state)
{
    (void)state;
    compare(memory_maps);
}

static void temporary(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "PRAGMA temp_store=file; PRAGMA cache_size=5; PRAGMA temp.cache_size=5");
    fill_rows(run, 0, 500);
    (void)sql(run, 0,
              "CREATE TEMP TABLE x AS SELECT v FROM t ORDER BY v DESC;"
              "SELECT count(*), min(v)<max(v) FROM x; BEGIN; DELETE FROM x; ROLLBACK;"
              "SELECT count(*) FROM x; DROP TABLE x");
    open_db(run, 1, "");
    close_db(run, 1);
    close_db(run, 0);
}

static void temporary_tables_and_sorts_work(void **state)
{
    (void)state;
    compare(temporary);
}

static void control_int(struct run *run, const char *what, int op, int value)
{
    int code = sqlite3_file_control(run->db[0], "main", op, &value);

    note(run, "control %s -> %d %d", what, code, value);
}

static void file_controls(struct run *run)
{
    sqlite3_int64 wide = 1 << 20;
    sqlite3_file *file = NULL;
    char *text = NULL;
    int code;

    make(run, 0, "app.db");
    settle(run, 0);
    control_int(run, "persist?", SQLITE_FCNTL_PERSIST_WAL, -1);
    control_int(run, "persist", SQLITE_FCNTL_PERSIST_WAL, 1);
    control_int(run, "persist?", SQLITE_FCNTL_PERSIST_WAL, -1);
    control_int(run, "psow?", SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1);
    control_int(run, "psow", SQLITE_FCNTL_POWERSAFE_OVERWRITE, 0);
    control_int(run, "psow?", SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1);
    control_int(run, "chunk", SQLITE_FCNTL_CHUNK_SIZE, 65536);
    control_int(run, "moved", SQLITE_FCNTL_HAS_MOVED, 7);
    control_int(run, "lock state", SQLITE_FCNTL_LOCKSTATE, 7);
    control_int(run, "errno", SQLITE_FCNTL_LAST_ERRNO, 7);
    control_int(run, "reserve", SQLITE_FCNTL_RESERVE_BYTES, -1);
    control_int(run, "unknown", 98765, 7);
    code = sqlite3_file_control(run->db[0], "main", SQLITE_FCNTL_SIZE_HINT, &wide);
    note(run, "size hint -> %d", code);
    wide = 4096;
    code = sqlite3_file_control(run->db[0], "main", SQLITE_FCNTL_MMAP_SIZE, &wide);
    note(run, "mmap size -> %d %lld", code, (long long)wide);
    code = sqlite3_file_control(run->db[0], "main", SQLITE_FCNTL_TEMPFILENAME, &text);
    note(run, "temporary name -> %d %d", code, text != NULL);
    sqlite3_free(text);
    code = sqlite3_file_control(run->db[0], "main", SQLITE_FCNTL_FILE_POINTER, &file);
    note(run, "file -> %d, version %d, sector %d, characteristics %d", code,
         file->pMethods->iVersion, file->pMethods->xSectorSize(file),
         file->pMethods->xDeviceCharacteristics(file));
    fill_rows(run, 0, 200);
    assert_int_equal(rename(path_of(run, "app.db"), "/tmp/hyperwal-same-moved"), 0);
    control_int(run, "moved", SQLITE_FCNTL_HAS_MOVED, 7);
    char from[2 * PATH_SIZE];
    (void)snprintf(from, sizeof(from), "%s", path_of(run, "app.db"));
    assert_int_equal(rename("/tmp/hyperwal-same-moved", from), 0);
    close_db(run, 0);
    note_file(run, "app.db-wal"); /* it was told to persist */
}

static void file_controls_reach_the_file_below(void **state)
{
    (void)state;
    compare(file_controls);
}

static void read_only(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "INSERT INTO t(v) VALUES(1)");
    (void)open_with(run, 1, "app.db", "", SQLITE_OPEN_READONLY);
    (void)sql(run, 1, "SELECT * FROM t; INSERT INTO t(v) VALUES(2)");
    (void)sql(run, 1, "PRAGMA journal_mode=DELETE; BEGIN IMMEDIATE");
    note(run, "read-only: %d %d", sqlite3_db_readonly(run->db[0], "main"),
         sqlite3_db_readonly(run->db[1], "main"));
    close_db(run, 1);
    (void)open_with(run, 1, "app.db", "&mode=ro", SQLITE_OPEN_READWRITE);
    (void)sql(run, 1, "SELECT * FROM t; DELETE FROM t");
    close_db(run, 1);
    close_db(run, 0);
    (void)open_with(run, 1, "app.db", "&immutable=1", SQLITE_OPEN_READONLY);
    (void)sql(run, 1, "SELECT * FROM t; DELETE FROM t");
    close_db(run, 1);
    (void)open_with(run, 1, "app.db", "&mode=ro&nolock=1", SQLITE_OPEN_READONLY);
    (void)sql(run, 1, "SELECT * FROM t");
    close_db(run, 1);
    (void)open_with(run, 1, "nowhere.db", "", SQLITE_OPEN_READWRITE);
    close_db(run, 1);
    (void)open_with(run, 1, "no/such/dir.db", "", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    close_db(run, 1);
    note_file(run, "nowhere.db");
    note_file(run, "nowhere.db-hyper");
}

static void read_only_opens_read_and_refuse_to_write(void **state)
{
    (void)state;
    compare(read_only);
}

static void exclusive(struct run *run)
{
    make(run, 0, "app.db");
    (void)sql(run, 0, "PRAGMA locking_mode=exclusive; INSERT INTO t(v) VALUES(1)");
    open_db(run, 1, "app.db");
    (void)sql(run, 1, "SELECT * FROM t");
    fill_rows(run, 0, 100);
    checkpoint(run, 0, SQLITE_CHECKPOINT_PASSIVE);
    fill_rows(run, 0, 100);
    checkpoint(run, 0, SQLITE_CHECKPOINT_TRUNCATE);
    fill_rows(run, 0, 100);
    (void)sql(run, 0, "PRAGMA locking_mode=normal; SELECT count(*) FROM t");
    (void)sql(run, 1, "SELECT count(*) FROM t; INSERT INTO t(v) VALUES(2)");
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check");
    close_db(run, 1);
    close_db(run, 0);
    open_db(run, 0, "app.db"); /* from the start: the wal-index is on the heap */
    (void)sql(run, 0, "PRAGMA locking_mode=exclusive; SELECT count(*) FROM t");
    note_file(run, "app.db-shm");
    fill_rows(run, 0, 100);
    checkpoint(run, 0, SQLITE_CHECKPOINT_FULL);
    fill_rows(run, 0, 10);
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
    note_file(run, "app.db-wal");
    open_db(run, 0, "app.db");
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
}

static void exclusive_locking_mode_locks_others_out(void **state)
{
    (void)state;
    compare(exclusive);
}

static void die_in_the_middle(struct run *run)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        make(run, 0, "app.db");
        fill_rows(run, 0, 100);
        (void)sql(run, 0, "PRAGMA cache_size=5; BEGIN; DELETE FROM t WHERE id>3");
        fill_rows(run, 0, 500);
        _exit(0); /* as kill -9: nothing is closed */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    note(run, "child %d", status);
    note_file(run, "app.db-wal");
    /* Recovery by stock SQLite, whoever wrote. */
    note(run, "open -> %d",
         sqlite3_open_v2(path_of(run, "app.db"), &run->db[0], SQLITE_OPEN_READWRITE, "unix"));
    (void)sql(run, 0, "SELECT count(*), sum(length(v)) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
    open_db(run, 0, "app.db"); /* and whoever comes next */
    (void)sql(run, 0, "SELECT count(*) FROM t");
    fill_rows(run, 0, 10);
    (void)sql(run, 0, "SELECT count(*) FROM t; PRAGMA integrity_check");
    close_db(run, 0);
}

static void stock_sqlite_recovers_what_a_dead_process_left(void **state)
{
    (void)state;
    compare(die_in_the_middle);
}

static void shared_caches(struct run *run)
{
    make(run, 0, "app.db");
    close_db(run, 0);
    (void)open_with(run, 0, "app.db", "&cache=shared", SQLITE_OPEN_READWRITE);
    (void)open_with(run, 1, "app.db", "&cache=shared", SQLITE_OPEN_READWRITE);
    (void)sql(run, 0, "INSERT INTO t(v) VALUES(1)");
    (void)sql(run, 1, "SELECT * FROM t; BEGIN; INSERT INTO t(v) VALUES(2)");
    (void)sql(run, 0, "SELECT * FROM t");
    (void)sql(run, 1, "COMMIT");
    (void)sql(run, 0, "SELECT * FROM t");
    close_db(run, 0);
    (void)sql(run, 1, "INSERT INTO t(v) VALUES(3); SELECT count(*) FROM t");
    close_db(run, 1);
}

static void a_shared_cache_serves_two_connections(void **state)
{
    (void)state;
    compare(shared_caches);
}

/* -------------------------------------------------------------------- known differences */

static void leaving_wal_mode_is_an_error_that_says_so(void **state)
{
    struct run run;

    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&run, "hyperwal");
    make(&run, 0, "app.db");
    assert_int_equal(sql(&run, 0, "PRAGMA journal_mode=DELETE"), SQLITE_ERROR);
    assert_non_null(strstr(sqlite3_errmsg(run.db[0]), "stays in WAL mode"));
    assert_int_equal(sql(&run, 0, "PRAGMA journal_mode"), SQLITE_DONE);
    run_release(&run);
}

static void a_new_database_comes_into_wal_mode_by_itself(void **state)
{
    struct run run;

    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&run, "hyperwal");
    open_db(&run, 0, "app.db");
    (void)sql(&run, 0, "PRAGMA page_size=1024; CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    run.size = 0;
    /* Without a read SQLite does not notice, as if another process had switched. */
    (void)sql(&run, 0, "SELECT count(*) FROM t; PRAGMA journal_mode; PRAGMA page_size");
    assert_non_null(strstr(run.text, "|wal"));
    assert_non_null(strstr(run.text, "|1024"));
    run_release(&run);
}

static void a_database_with_another_journal_is_switched_at_open(void **state)
{
    struct run run;

    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&run, "unix");
    open_db(&run, 0, "app.db");
    (void)sql(&run, 0, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES(1)");
    run.vfs = "hyperwal";
    open_db(&run, 1, "app.db");
    run.size = 0;
    (void)sql(&run, 1, "PRAGMA journal_mode; SELECT count(*) FROM t");
    assert_non_null(strstr(run.text, "|wal"));
    (void)sql(&run, 0, "SELECT count(*) FROM t"); /* the other one goes along */
    run_release(&run);
}

static void exclusive_locking_needs_wal_mode_first(void **state)
{
    struct run run;

    (void)state;
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&run, "hyperwal");
    open_db(&run, 0, "app.db");
    assert_int_equal(sql(&run, 0, "PRAGMA locking_mode=exclusive"), SQLITE_MISUSE);
    assert_non_null(strstr(sqlite3_errmsg(run.db[0]), "journal_mode=WAL first"));
    run_release(&run);
}

static void a_connection_from_before_a_fork_fails_in_the_child(void **state)
{
    struct run run;
    pid_t child;
    int status;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* the thread sanitizer cannot start threads in a child */
#endif
    assert_int_equal(hyperwal_register(0), SQLITE_OK);
    run_init(&run, "hyperwal");
    make(&run, 0, "app.db");
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int code = sql(&run, 0, "INSERT INTO t(v) VALUES(1)");
        sqlite3 *own = NULL;

        if ((code & 0xff) != SQLITE_IOERR)
            _exit(1);
        if (sqlite3_close(run.db[0]) != SQLITE_OK)
            _exit(2);
        if (hyperwal_open(path_of(&run, "app.db"), 0, &own, NULL) != SQLITE_OK)
            _exit(3);
        if (sqlite3_exec(own, "INSERT INTO t(v) VALUES(2)", NULL, NULL, NULL) != SQLITE_OK)
            _exit(4);
        _exit(sqlite3_close(own) == SQLITE_OK ? 0 : 5);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    run.size = 0;
    (void)sql(&run, 0, "INSERT INTO t(v) VALUES(3); SELECT group_concat(v) FROM t");
    assert_non_null(strstr(run.text, "|2,3"));
    run_release(&run);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_statements_give_the_same_answers),
        cmocka_unit_test(savepoints_survive_a_cache_that_spills),
        cmocka_unit_test(checkpoints_of_all_modes_do_the_same),
        cmocka_unit_test(two_writers_get_the_same_busy_codes),
        cmocka_unit_test(attached_databases_commit_together),
        cmocka_unit_test(the_backup_api_copies_both_ways),
        cmocka_unit_test(page_size_encoding_and_vacuum_work_as_ever),
        cmocka_unit_test(mapped_memory_reads_the_same),
        cmocka_unit_test(temporary_tables_and_sorts_work),
        cmocka_unit_test(file_controls_reach_the_file_below),
        cmocka_unit_test(read_only_opens_read_and_refuse_to_write),
        cmocka_unit_test(exclusive_locking_mode_locks_others_out),
        cmocka_unit_test(stock_sqlite_recovers_what_a_dead_process_left),
        cmocka_unit_test(a_shared_cache_serves_two_connections),
        cmocka_unit_test(leaving_wal_mode_is_an_error_that_says_so),
        cmocka_unit_test(a_new_database_comes_into_wal_mode_by_itself),
        cmocka_unit_test(a_database_with_another_journal_is_switched_at_open),
        cmocka_unit_test(exclusive_locking_needs_wal_mode_first),
        cmocka_unit_test(a_connection_from_before_a_fork_fails_in_the_child),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
