/* Implements the oracle of sim/sim.h: what a database says of itself, through SQL. */
#include <stdio.h>
#include <string.h>

#include "sim/sim_private.h"

static void complain(sqlite3 *db, const char *where, char message[256])
{
    (void)snprintf(message, 256, "%s: %s", where, sqlite3_errmsg(db));
}

static void hash_value(sqlite3_stmt *row, int column, uint64_t *hash)
{
    int type = sqlite3_column_type(row, column);
    sqlite3_int64 integer = sqlite3_column_int64(row, column);
    double real = sqlite3_column_double(row, column);

    *hash = sim_hash(*hash, &type, sizeof(type));
    if (type == SQLITE_INTEGER) {
        *hash = sim_hash(*hash, &integer, sizeof(integer));
    } else if (type == SQLITE_FLOAT) {
        *hash = sim_hash(*hash, &real, sizeof(real));
    } else if (type != SQLITE_NULL) {
        const void *bytes = sqlite3_column_blob(row, column);

        *hash = sim_hash(*hash, bytes, (size_t)sqlite3_column_bytes(row, column));
    }
}

static bool hash_query(sqlite3 *db, const char *sql, uint64_t *hash, char message[256])
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    while (rc == SQLITE_OK) {
        rc = sqlite3_step(statement);
        if (rc != SQLITE_ROW)
            break;
        for (int i = 0; i < sqlite3_column_count(statement); i++)
            hash_value(statement, i, hash);
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_DONE)
        complain(db, sql, message);
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return rc == SQLITE_DONE;
}

bool sim_fingerprint(sqlite3 *db, uint64_t *hash, char message[256])
{
    const char *schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name";
    const char *names = "SELECT name FROM sqlite_schema WHERE type = 'table' "
                        "AND rootpage > 0 ORDER BY name";
    sqlite3_stmt *tables = NULL;
    bool done = false;
    int rc;

    *hash = SIM_HASH_START;
    if (sqlite3_exec(db, "SAVEPOINT fingerprint", NULL, NULL, NULL) != SQLITE_OK) {
        complain(db, "SAVEPOINT", message);
        return false;
    }
    if (!hash_query(db, schema, hash, message))
        goto done;
    rc = sqlite3_prepare_v2(db, names, -1, &tables, NULL);
    while (rc == SQLITE_OK) {
        char *sql;
        bool hashed;

        rc = sqlite3_step(tables);
        if (rc != SQLITE_ROW)
            break;
        sql = sqlite3_mprintf("SELECT * FROM \"%w\"", sqlite3_column_text(tables, 0));
        hashed = sql != NULL && hash_query(db, sql, hash, message);
        sqlite3_free(sql);
        if (!hashed)
            goto done;
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_DONE)
        complain(db, names, message);
    done = rc == SQLITE_DONE;
done:
    (void)sqlite3_finalize(tables);                                  /* repeats the step's error */
    (void)sqlite3_exec(db, "RELEASE fingerprint", NULL, NULL, NULL); /* only read */
    return done;
}

bool sim_integrity_ok(const char *vfs_name, const char *path, char message[256])
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    bool ok = false;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, vfs_name);

    if (rc == SQLITE_OK)
        rc = sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);

        ok = text != NULL && strcmp(text, "ok") == 0;
        (void)snprintf(message, 256, "%s: %s", path, text == NULL ? "no memory" : text);
    } else {
        complain(db, path, message);
    }
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    (void)sqlite3_close(db);           /* no statement is left */
    return ok;
}
