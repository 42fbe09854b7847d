/* The state sum of a database file, as a reader sees it: hw_database_sum() of apply/apply.h. */
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "wal/wal.h"

/* The -wal that SQLite itself has open, as an hw_file: only reading is ever asked of it. */
struct wal_file {
    struct hw_file file;
    sqlite3_file *wal; /* borrowed from the connection */
};

/* One reader's sight of the database, for as long as its read transaction lasts. */
struct view {
    const char *path;
    sqlite3 *db;                /* owned */
    sqlite3_file *database;     /* borrowed from db */
    struct hw_wal_index *index; /* owned; NULL: not in WAL mode */
    struct hw_env wal_env;
    struct wal_file wal;
    uint32_t page_size, page_count;
    uint32_t max_frame; /* 0: all is in the file */
};

static enum hw_status wal_read_at(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                  struct hw_error *err)
{
    sqlite3_file *wal = ((struct wal_file *)file)->wal;
    int rc = wal->pMethods->xRead(wal, buf, (int)size, (sqlite3_int64)offset);

    if (rc == SQLITE_IOERR_SHORT_READ)
        return HW_END;
    if (rc != SQLITE_OK)
        return hw_fail(err, HW_EIO, "-wal: cannot read %zu bytes at %llu: %s", size,
                       (unsigned long long)offset, sqlite3_errstr(rc));
    return HW_OK;
}

static const struct hw_env_ops wal_ops = {.read_at = wal_read_at};

static enum hw_status sql_fail(const struct view *view, int rc, const char *doing,
                               struct hw_error *err)
{
    enum hw_status status = HW_EIO;
    int failure = hw_sqlite_failure(view->db, rc);

    if ((failure & 0xff) == SQLITE_BUSY)
        status = HW_EBUSY;
    else if ((failure & 0xff) == SQLITE_NOMEM)
        status = HW_ENOMEM;
    else if ((failure & 0xff) == SQLITE_NOTADB || (failure & 0xff) == SQLITE_CORRUPT)
        status = HW_ECORRUPT;
    return hw_fail(err, status, "%s: cannot %s: %s", view->path, doing,
                   view->db == NULL || failure != rc ? sqlite3_errstr(failure)
                                                     : sqlite3_errmsg(view->db));
}

/* The number that a PRAGMA gives. */
static enum hw_status pragma_number(struct view *view, const char *sql, uint32_t *out,
                                    struct hw_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(view->db, sql, -1, &stmt, NULL);
    enum hw_status status = HW_OK;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *out = (uint32_t)sqlite3_column_int64(stmt, 0);
    else
        status = sql_fail(view, rc, sql, err);
    (void)sqlite3_finalize(stmt); /* repeats what step said */
    return status;
}

/* It is not there; what cannot be opened or seen for another reason is not missing. */
static bool is_missing(const struct view *view, sqlite3_vfs *base)
{
    sqlite3_vfs *vfs = base != NULL ? base : sqlite3_vfs_find(NULL);
    int exists = 1;

    return vfs->xAccess(vfs, view->path, SQLITE_ACCESS_EXISTS, &exists) == SQLITE_OK && !exists;
}

/* Open, and begin a read transaction: SQLite recovers what there is to recover. */
static enum hw_status view_begin(struct view *view, sqlite3_vfs *base, struct hw_error *err)
{
    const char *vfs = base == NULL ? NULL : base->zName;
    uint32_t tables;
    int rc = sqlite3_open_v2(view->path, &view->db, SQLITE_OPEN_READWRITE, vfs);

    if ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_READONLY) {
        (void)sqlite3_close(view->db);
        view->db = NULL;
        rc = sqlite3_open_v2(view->path, &view->db, SQLITE_OPEN_READONLY, vfs);
    }
    if ((rc & 0xff) == SQLITE_CANTOPEN && is_missing(view, base))
        return hw_fail(err, HW_ENOTFOUND, "%s: no such database", view->path);
    if (rc != SQLITE_OK)
        return sql_fail(view, rc, "open it", err);
    /* Looking at a database must not move frames of it past the log. */
    (void)sqlite3_db_config(view->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_busy_timeout(view->db, 2000);
    rc = sqlite3_exec(view->db, "BEGIN", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        return sql_fail(view, rc, "read it", err);
    return pragma_number(view, "SELECT count(*) FROM sqlite_schema", &tables, err);
}

static enum hw_status is_wal_mode(struct view *view, bool *out, struct hw_error *err)
{
    static const char sql[] = "PRAGMA journal_mode";
    sqlite3_stmt *stmt = NULL;
    const unsigned char *mode = NULL;
    int rc = sqlite3_prepare_v2(view->db, sql, -1, &stmt, NULL);
    enum hw_status status = HW_OK;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        mode = sqlite3_column_text(stmt, 0);
        rc = mode == NULL ? SQLITE_NOMEM : SQLITE_OK;
    }
    if (rc == SQLITE_OK)
        *out = strcmp((const char *)mode, "wal") == 0;
    else
        status = sql_fail(view, rc, sql, err);
    (void)sqlite3_finalize(stmt); /* repeats what step said */
    return status;
}

static enum hw_status header_read(struct view *view, struct hw_wal_index_header *out,
                                  struct hw_error *err)
{
    enum hw_status status = HW_AGAIN; /* a writer is between the two copies: not for long */

    for (int i = 0; status == HW_AGAIN && i < 1000000; i++)
        status = hw_wal_index_read(view->index, out, err);
    return status == HW_AGAIN ? hw_fail(err, HW_EBUSY, "%s-shm: no valid header", view->path)
                              : status;
}

/*
 * Fix the frames that count.  Our read transaction keeps checkpoints from going beyond its own
 * snapshot, and the WAL from being restarted, unless all of it was in the file when it began: then
 * the file alone counts, and no checkpoint can touch it.
 */
static enum hw_status view_fix(struct view *view, struct hw_error *err)
{
    struct hw_wal_index_header header, after;
    uint32_t backfilled, attempted;
    enum hw_status status = hw_wal_index_shared(view->database, &view->index, err);

    /* The count of frames in the file is no other's if the WAL did not start over in between. */
    do {
        if (status == HW_OK)
            status = header_read(view, &header, err);
        if (status == HW_OK)
            status = hw_wal_index_backfill(view->index, &backfilled, &attempted, err);
        if (status == HW_OK)
            status = header_read(view, &after, err);
    } while (status == HW_OK && memcmp(header.salts, after.salts, sizeof(after.salts)) != 0);
    if (status != HW_OK)
        return status;
    if (header.page_size != 0)
        view->page_size = header.page_size;
    if (header.page_count != 0)
        view->page_count = header.page_count;
    view->max_frame = backfilled >= header.max_frame ? 0 : header.max_frame;
    return HW_OK;
}

static enum hw_status view_open(struct view *view, sqlite3_vfs *base, struct hw_error *err)
{
    bool is_wal = false;
    enum hw_status status = view_begin(view, base, err);

    if (status == HW_OK)
        status = pragma_number(view, "PRAGMA page_size", &view->page_size, err);
    if (status == HW_OK)
        status = pragma_number(view, "PRAGMA page_count", &view->page_count, err);
    if (status == HW_OK)
        status = is_wal_mode(view, &is_wal, err);
    if (status != HW_OK)
        return status;
    if (sqlite3_file_control(view->db, "main", SQLITE_FCNTL_FILE_POINTER, &view->database) !=
            SQLITE_OK ||
        sqlite3_file_control(view->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &view->wal.wal) !=
            SQLITE_OK)
        return hw_fail(err, HW_EIO, "%s: SQLite does not give its files", view->path);
    if (!hw_entry_page_size_ok(view->page_size))
        return hw_fail(err, HW_ECORRUPT, "%s: page size %u", view->path, view->page_size);
    view->wal_env.ops = &wal_ops;
    view->wal.file.env = &view->wal_env;
    return is_wal ? view_fix(view, err) : HW_OK;
}

static void view_close(struct view *view)
{
    hw_wal_index_free(view->index);
    (void)sqlite3_close(view->db); /* ends the transaction; nothing is prepared on it */
}

static enum hw_status view_read(struct view *view, uint32_t page_number, void *content,
                                struct hw_error *err)
{
    sqlite3_int64 offset = (sqlite3_int64)(page_number - 1) * view->page_size;
    bool from_file;
    int rc;

    if (view->max_frame > 0)
        return hw_wal_read_page(view->database, view->index, &view->wal.file, view->page_size,
                                page_number, view->max_frame, content, &from_file, err);
    rc = view->database->pMethods->xRead(view->database, content, (int)view->page_size, offset);
    if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) /* which leaves zeros */
        return hw_fail(err, HW_EIO, "%s: page %u: %s", view->path, page_number, sqlite3_errstr(rc));
    return HW_OK;
}

enum hw_status hw_database_sum(sqlite3_vfs *base, const char *path, uint32_t *page_size,
                               uint32_t *page_count, uint64_t *sum, struct hw_error *err)
{
    struct view view = {.path = path};
    uint64_t total = 0;
    uint8_t *page = NULL; /* owned */
    enum hw_status status = view_open(&view, base, err);

    if (status != HW_OK)
        goto done;
    page = hw_alloc(view.page_size);
    if (page == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for a page", path);
        goto done;
    }
    for (uint32_t p = 1; status == HW_OK && p <= view.page_count && p != 0; p++) {
        status = view_read(&view, p, page, err);
        if (status == HW_OK)
            total ^= hw_page_sum(p, page, view.page_size);
    }
    if (status == HW_OK) {
        *page_size = view.page_size;
        *page_count = view.page_count;
        *sum = total;
    }

done:
    hw_free(page);
    view_close(&view);
    return status;
}
