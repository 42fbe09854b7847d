/* Implements the short-lived connections of vfs/shim.h: what only SQLite may do to a file. */
#include <limits.h>
#include <string.h>

#include "vfs/shim.h"

enum { HEADER_SIZE = 100, BUSY_TIMEOUT_MS = 50 };

enum hw_header_state hw_internal_header(struct hw_shim_file *file)
{
    uint8_t header[HEADER_SIZE];
    int code = file->layer.below->pMethods->xRead(file->layer.below, header, sizeof(header), 0);

    if (code != SQLITE_OK)
        return code == SQLITE_IOERR_SHORT_READ ? HW_HEADER_EMPTY : HW_HEADER_UNKNOWN;
    return header[18] == 2 && header[19] == 2 ? HW_HEADER_WAL : HW_HEADER_OTHER;
}

/* The status of a connection that answered `code`. */
static enum hw_status fail(sqlite3 *db, int code, const char *what, struct hw_error *err)
{
    enum hw_status status = HW_EIO;

    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        status = HW_EBUSY;
        break;
    case SQLITE_NOMEM:
        status = HW_ENOMEM;
        break;
    case SQLITE_FULL:
        status = HW_ENOSPC;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        status = HW_ECORRUPT;
        break;
    case SQLITE_READONLY:
        status = HW_EREADONLY;
        break;
    default:
        break;
    }
    return hw_fail(err, status, "cannot %s: %s", what,
                   db == NULL ? sqlite3_errstr(code) : sqlite3_errmsg(db));
}

static enum hw_status open_internal(const char *path, const char *vfs, const char *what,
                                    sqlite3 **out, struct hw_error *err)
{
    sqlite3 *db = NULL;
    enum hw_status status;
    int code = hw_vfs_guest_open(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE, vfs);

    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
    if (code == SQLITE_OK) {
        *out = db;
        return HW_OK;
    }
    status = fail(db, code, what, err);
    (void)sqlite3_close(db); /* nothing was prepared: cannot be busy */
    return status;
}

enum hw_status hw_internal_switch(struct hw_shim_file *file, struct hw_error *err)
{
    static const char what[] = "switch the database to WAL mode";
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;
    enum hw_status status = open_internal(file->path, file->shim->base->zName, what, &db, err);
    int code;

    if (status != HW_OK)
        return status;
    code = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    if (code != SQLITE_ROW) {
        status = fail(db, code, what, err);
    } else {
        const char *mode = (const char *)sqlite3_column_text(statement, 0);

        if (mode == NULL || strcmp(mode, "wal") != 0)
            status = hw_fail(err, HW_EBUSY, "cannot %s: it stays in '%s'", what,
                             mode == NULL ? "" : mode);
    }
    (void)sqlite3_finalize(statement); /* repeats the code of the step */
    (void)sqlite3_close(db);           /* its statement is gone: cannot be busy */
    return status;
}

enum hw_status hw_internal_read(struct hw_shim_file *file, uint64_t timeout_ms, sqlite3 **out,
                                struct hw_error *err)
{
    static const char what[] = "read the database";
    sqlite3 *db = NULL;
    enum hw_status status = open_internal(file->path, file->shim->name, what, &db, err);
    int code;

    if (status != HW_OK)
        return status;
    if (timeout_ms > BUSY_TIMEOUT_MS)
        (void)sqlite3_busy_timeout(db, timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX);
    code = sqlite3_exec(db, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        status = fail(db, code, what, err);
        (void)sqlite3_close(db); /* its statements are gone: cannot be busy */
        return status;
    }
    *out = db;
    return HW_OK;
}

void hw_internal_checkpoint(struct hw_shim_file *file)
{
    sqlite3 *db = NULL;

    if (open_internal(file->path, file->shim->name, "checkpoint", &db, NULL) != HW_OK)
        return;
    (void)sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    (void)sqlite3_close(db); /* it has no statements: cannot be busy */
}
