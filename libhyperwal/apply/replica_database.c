/*
 * The files of a replica.  The database file and its -shm are reached only through the base VFS; a
 * stock connection recovers the WAL before we take WRITE, and checkpoints it later.
 */
#include <assert.h>
#include <string.h>

#include "apply/replica_internal.h"
#include "base/alloc.h"

enum { LOCK_TRIES = 200, LOCK_PAUSE_US = 10000 }; /* two seconds: a recovery of SQLite's ends */

static enum hw_status fail_code(struct hw_error *err, int code, const char *path, const char *what)
{
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return hw_fail(err, HW_ENOMEM, "%s: %s: no memory", path, what);
    case SQLITE_FULL:
        return hw_fail(err, HW_ENOSPC, "%s: %s: no space left", path, what);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return hw_fail(err, HW_EBUSY, "%s: %s: another connection writes into this replica", path,
                       what);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return hw_fail(
            err, HW_ECORRUPT,
            "%s: %s: damaged or not a database: remove it and its -wal, and follow again", path,
            what);
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return hw_fail(err, HW_EREADONLY, "%s: %s: no permission to write", path, what);
    default:
        return hw_fail(err, HW_EIO, "%s: %s: SQLite code %d", path, what, code);
    }
}

/* ---------------------------------------------------------------------- stock connection */

static int run(sqlite3 *stock, const char *sql)
{
    return sqlite3_exec(stock, sql, NULL, NULL, NULL);
}

/* Let SQLite read the database: it recovers the WAL and its index if they need it. */
static int stock_touch(sqlite3 *stock)
{
    return run(stock, "PRAGMA schema_version");
}

static enum hw_status stock_open(struct hw_replica_database *db, const char *path,
                                 struct hw_error *err)
{
    int persist = 1;
    int code = sqlite3_open_v2(path, &db->stock, SQLITE_OPEN_READWRITE, db->base->zName);

    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(db->stock, 2000);
    /* Frames come into the file only after their records are durable: by our own checkpoints. */
    if (code == SQLITE_OK)
        code = sqlite3_db_config(db->stock, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (code == SQLITE_OK)
        code = stock_touch(db->stock);
    if (code == SQLITE_OK)
        code = run(db->stock, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
                              "PRAGMA synchronous=NORMAL; PRAGMA cache_size=8");
    if (code == SQLITE_OK)
        code = sqlite3_file_control(db->stock, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
    if (code != SQLITE_OK)
        return fail_code(err, hw_sqlite_failure(db->stock, code), path, "open the replica");
    (void)sqlite3_busy_timeout(db->stock, 0); /* checkpoints never wait */
    return HW_OK;
}

/* ------------------------------------------------------------------------------ own handle */

static enum hw_status file_open(struct hw_replica_database *db, const char *path,
                                struct hw_error *err)
{
    char *journal = hw_format("%s-journal", path), *wal = hw_format("%s-wal", path);
    enum hw_status status = HW_OK;
    int code, persist = 1;

    if (journal != NULL && wal != NULL)
        db->name = sqlite3_create_filename(path, journal, wal, 0, NULL);
    db->file = hw_zalloc((size_t)db->base->szOsFile);
    if (db->name == NULL || db->file == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to open it", path);
        goto done;
    }
    code = hw_sqlite_open(db->base, db->name, db->file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE,
                          NULL);
    if (code == SQLITE_OK)
        code = db->file->pMethods->xLock(db->file, SQLITE_LOCK_SHARED);
    if (code != SQLITE_OK) {
        status = fail_code(err, code, path, "open the replica");
        goto done;
    }
    (void)db->file->pMethods->xFileControl(db->file, SQLITE_FCNTL_PERSIST_WAL, &persist);
    status = hw_wal_index_shared(db->file, &db->index, err);
    if (status == HW_OK)
        status = db->env->ops->open(db->env, wal, HW_OPEN_READ | HW_OPEN_WRITE, &db->wal, err);
    /* The WAL may be new: SQLite syncs its name when it first syncs the file, we do not. */
    if (status == HW_OK)
        status = hw_env_sync_names(db->env, path, err);

done:
    hw_free(journal);
    hw_free(wal);
    return status;
}

static int lock_write(struct hw_replica_database *db, int flags)
{
    return db->file->pMethods->xShmLock(db->file, HW_SHM_WRITE, 1, flags | SQLITE_SHM_EXCLUSIVE);
}

/* Take WRITE over a valid index: without it nobody could recover the index after us. */
static enum hw_status lock_valid(struct hw_replica_database *db, const char *path,
                                 struct hw_wal_index_header *header, struct hw_error *err)
{
    enum hw_status status;
    int code = SQLITE_BUSY;

    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        code = lock_write(db, SQLITE_SHM_LOCK);
        if (code == SQLITE_OK) {
            status = hw_wal_index_read(db->index, header, err);
            db->has_write = status != HW_AGAIN;
            if (db->has_write)
                return status;
            (void)lock_write(db, SQLITE_SHM_UNLOCK); /* for the recovery that is needed */
            code = stock_touch(db->stock);
        }
        if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY)
            break;
        (void)db->base->xSleep(db->base, LOCK_PAUSE_US);
    }
    return fail_code(err, code == SQLITE_OK ? SQLITE_BUSY : code, path, "lock the replica");
}

enum hw_status hw_replica_database_lock(struct hw_replica_database *db,
                                        struct hw_wal_index_header *header, struct hw_error *err)
{
    return lock_valid(db, db->name, header, err);
}

void hw_replica_database_unlock(struct hw_replica_database *db)
{
    hw_wal_writer_close(db->writer);
    db->writer = NULL;
    (void)lock_write(db, SQLITE_SHM_UNLOCK); /* it is ours: cannot fail */
    db->has_write = false;
}

enum hw_status hw_replica_database_open(struct hw_env *env, sqlite3_vfs *base, const char *path,
                                        uint32_t page_size, struct hw_replica_database **out,
                                        struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_replica_database *db = hw_zalloc(sizeof(*db));
    enum hw_status status;

    if (db == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open it", path);
    db->env = env;
    db->base = base;
    db->page_size = page_size;
    status = stock_open(db, path, err);
    if (status == HW_OK)
        status = file_open(db, path, err);
    if (status == HW_OK)
        status = lock_valid(db, path, header, err);
    if (status == HW_OK && header->max_frame > 0 && header->page_size != page_size)
        status = hw_fail(err, HW_ECORRUPT,
                         "%s: pages of %u bytes, the log has %u: remove it and follow again", path,
                         (unsigned)header->page_size, (unsigned)page_size);
    if (status != HW_OK) {
        hw_replica_database_close(db);
        return status;
    }
    *out = db;
    return HW_OK;
}

void hw_replica_database_close(struct hw_replica_database *db)
{
    if (db == NULL)
        return;
    hw_wal_writer_close(db->writer);
    if (db->file != NULL && db->file->pMethods != NULL) {
        /* Unmapping would leave the lock with the process, if it has the file open besides. */
        if (db->has_write)
            (void)lock_write(db, SQLITE_SHM_UNLOCK);
        (void)db->file->pMethods->xShmUnmap(db->file, 0);
        (void)db->file->pMethods->xUnlock(db->file, SQLITE_LOCK_NONE);
        (void)db->file->pMethods->xClose(db->file);
    }
    hw_wal_index_free(db->index);
    if (db->wal != NULL)
        db->env->ops->close(db->wal);
    (void)sqlite3_close(db->stock); /* no statement is left open */
    sqlite3_free_filename(db->name);
    hw_free(db->file);
    hw_free(db);
}

enum hw_status hw_replica_database_attach(struct hw_replica_database *db, struct hw_error *err)
{
    assert(db->writer == NULL);
    return hw_wal_writer_open(db->file, db->index, db->wal, db->page_size, &db->writer, err);
}

/* --------------------------------------------------------------------------------- reading */

static enum hw_status read_at(struct hw_replica_database *db, uint32_t max_frame,
                              uint32_t page_number, void *content, struct hw_error *err)
{
    enum hw_status status = hw_wal_read_page(db->file, db->index, db->wal, db->page_size,
                                             page_number, max_frame, content, NULL, err);

    return status == HW_OK ? HW_OK : hw_prefix(err, status, "%s", db->name);
}

enum hw_status hw_replica_database_read(struct hw_replica_database *db, uint32_t page_number,
                                        void *content, struct hw_error *err)
{
    return read_at(db, hw_wal_writer_position(db->writer).frame, page_number, content, err);
}

/* The state sum of `page_count` pages as of a frame. */
static enum hw_status sum_at(struct hw_replica_database *db, uint32_t max_frame,
                             uint32_t page_count, uint64_t *sum, struct hw_error *err)
{
    uint8_t *content = hw_alloc(db->page_size);
    enum hw_status status = HW_OK;
    uint64_t total = 0;

    if (content == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a page", db->name);
    for (uint32_t page = 1; status == HW_OK && page <= page_count; page++) {
        status = read_at(db, max_frame, page, content, err);
        if (status == HW_OK)
            total ^= hw_page_sum(page, content, db->page_size);
    }
    hw_free(content);
    if (status == HW_OK)
        *sum = total;
    return status;
}

enum hw_status hw_replica_database_sum(struct hw_replica_database *db, uint32_t page_count,
                                       uint64_t *sum, struct hw_error *err)
{
    struct hw_wal_index_header header;
    enum hw_status status = hw_wal_index_read(db->index, &header, err);

    return status == HW_OK ? sum_at(db, header.max_frame, page_count, sum, err) : status;
}

/* ------------------------------------------------------------------------------ checkpoint */

enum hw_status hw_replica_database_checkpoint(struct hw_replica_database *db, bool *complete,
                                              struct hw_error *err)
{
    int frames = 0, backfilled = 0;
    int code = sqlite3_wal_checkpoint_v2(db->stock, "main", SQLITE_CHECKPOINT_PASSIVE, &frames,
                                         &backfilled);

    *complete = code == SQLITE_OK && frames == backfilled;
    if (code == SQLITE_OK || (code & 0xff) == SQLITE_BUSY) /* another one checkpoints */
        return HW_OK;
    return fail_code(err, code, db->name, "checkpoint the replica");
}

/* With nobody in the WAL. */
static enum hw_status cut_locked(struct hw_replica_database *db, const struct hw_replica_record *at,
                                 struct hw_error *err)
{
    struct hw_wal_index_header header;
    uint32_t backfilled, attempted;
    enum hw_status status = hw_wal_index_read(db->index, &header, err);

    if (status == HW_OK)
        status = hw_wal_index_backfill(db->index, &backfilled, &attempted, err);
    if (status != HW_OK)
        return status;
    /* `attempted` says nothing here: a recovery sets it to all there is. */
    if (backfilled > at->at.frame)
        return hw_fail(err, HW_AGAIN, "%s: frames after %u are in the file already", db->name,
                       (unsigned)at->at.frame);
    header.max_frame = at->at.frame;
    header.page_count = at->page_count;
    memcpy(header.frame_checksum, at->at.checksum, sizeof(header.frame_checksum));
    /* The index first: a reader must never be told of frames that the file does not have. */
    status = hw_wal_index_publish(db->index, &header, err);
    if (status == HW_OK)
        status = hw_wal_index_cleanup(db->index, err);
    if (status == HW_OK)
        status = db->env->ops->truncate(db->wal,
                                        hw_wal_frame_offset(db->page_size, at->at.frame + 1), err);
    if (status == HW_OK)
        status = db->env->ops->sync(db->wal, err);
    return status;
}

/*
 * Was the state, by a look at every page, that of `at` at its frame?  A checkpoint from before a
 * recovery, which forgets how far it came, may have put later frames into the file.  HW_END: no.
 */
static enum hw_status check_state(struct hw_replica_database *db,
                                  const struct hw_replica_record *at, struct hw_error *err)
{
    uint64_t sum = 0;
    enum hw_status status = sum_at(db, at->at.frame, at->page_count, &sum, err);

    if (status != HW_OK)
        return status;
    return sum == at->sum ? HW_OK : HW_END;
}

/* With no checkpoint under way. */
static enum hw_status cut_if_unread(struct hw_replica_database *db,
                                    const struct hw_replica_record *at, struct hw_error *err)
{
    const struct sqlite3_io_methods *methods = db->file->pMethods;
    enum hw_status status;

    if (methods->xShmLock(db->file, HW_SHM_READ0 + 1, 4, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
        SQLITE_OK)
        return hw_fail(err, HW_AGAIN, "%s: the WAL is read", db->name);
    status = cut_locked(db, at, err);
    (void)methods->xShmLock(db->file, HW_SHM_READ0 + 1, 4,
                            SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE); /* ours: cannot fail */
    return status;
}

enum hw_status hw_replica_database_cut(struct hw_replica_database *db,
                                       const struct hw_replica_record *at, bool check,
                                       struct hw_error *err)
{
    const struct sqlite3_io_methods *methods = db->file->pMethods;
    enum hw_status status;

    assert(db->writer == NULL && at->at.frame > 0);
    if (methods->xShmLock(db->file, HW_SHM_CKPT, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
        SQLITE_OK)
        return hw_fail(err, HW_AGAIN, "%s: a checkpoint runs", db->name);
    status = check ? check_state(db, at, err) : HW_OK;
    if (status == HW_OK)
        status = cut_if_unread(db, at, err);
    (void)methods->xShmLock(db->file, HW_SHM_CKPT, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    return status;
}
