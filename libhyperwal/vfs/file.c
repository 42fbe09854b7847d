/* Implements the wrapped file of vfs/shim.h: what is passed down, and the table of methods. */
#include "vfs/shim.h"

static int file_close(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (file->role == HW_SHIM_PRIMARY && !hw_shim_is_forked(file)) {
        hw_shim_checkpoint_end(file);
        hw_shim_exclusive_leave(file);
        file->shm_leaving |= file->shm_mapped; /* SQLite has unmapped it and unlocked before */
        hw_shim_shm_left(file);
    }
    code = file->layer.below->pMethods->xClose(file->layer.below);
    if (file->role != HW_SHIM_WAL && file->role != HW_SHIM_REMOTE_WAL)
        hw_shim_database_leave(file);
    if (file->cache != NULL)
        hw_shim_remote_close(file);
    file->layer.file.pMethods = NULL;
    return code;
}

static int file_read(sqlite3_file *sqlite_file, void *out, int size, sqlite3_int64 offset)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    code = file->layer.below->pMethods->xRead(file->layer.below, out, size, offset);
    return file->role == HW_SHIM_REMOTE_WAL ? hw_shim_remote_passed(file->main, code) : code;
}

static int file_write(sqlite3_file *sqlite_file, const void *bytes, int size, sqlite3_int64 offset)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    if (file->role == HW_SHIM_WAL) {
        code = hw_shim_wal_write(file, bytes, size, offset);
        if (code != SQLITE_OK)
            return code;
    }
    if (file->role == HW_SHIM_REMOTE_WAL)
        return hw_shim_remote_wal_write(file, bytes, size, offset);
    code = file->layer.below->pMethods->xWrite(file->layer.below, bytes, size, offset);
    if (code != SQLITE_OK && file->role == HW_SHIM_WAL)
        hw_shim_wal_failed(file);
    return code;
}

static int file_truncate(sqlite3_file *sqlite_file, sqlite3_int64 size)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    if (file->role == HW_SHIM_WAL && size == 0 && file->main->is_alone)
        hw_capture_alone_emptied(file->capture);
    return file->layer.below->pMethods->xTruncate(file->layer.below, size);
}

static int file_sync(sqlite3_file *sqlite_file, int flags)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    code = file->layer.below->pMethods->xSync(file->layer.below, flags);
    if (file->role == HW_SHIM_WAL && code == SQLITE_OK)
        hw_shim_wal_synced(file);
    else if (file->role == HW_SHIM_WAL)
        hw_shim_wal_failed(file);
    return file->role == HW_SHIM_REMOTE_WAL ? hw_shim_remote_passed(file->main, code) : code;
}

static int file_size(sqlite3_file *sqlite_file, sqlite3_int64 *out)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    if (file->checkpoint_refused) { /* door 2; SQLite looks at the size right after it knocked */
        file->checkpoint_refused = false;
        return SQLITE_IOERR_FSTAT;
    }
    return file->layer.below->pMethods->xFileSize(file->layer.below, out);
}

static int file_check_reserved_lock(sqlite3_file *sqlite_file, int *out)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->layer.below->pMethods->xCheckReservedLock(file->layer.below, out);
}

static void file_shm_barrier(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (file->layer.below->pMethods->xShmBarrier != NULL)
        file->layer.below->pMethods->xShmBarrier(file->layer.below);
}

static int file_fetch(sqlite3_file *sqlite_file, sqlite3_int64 offset, int size, void **out)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->layer.below->pMethods->xFetch(file->layer.below, offset, size, out);
}

/*
 * xShmLock, xShmBarrier and xShmUnmap are there even without xShmMap, as in the unix VFS: RBU calls
 * them then.
 */
void hw_shim_file_wrap(struct hw_shim_file *file)
{
    sqlite3_io_methods *methods = &file->layer.methods;

    hw_layer_fill(&file->layer);
    methods->xClose = file_close;
    methods->xRead = file_read;
    methods->xWrite = file_write;
    methods->xTruncate = file_truncate;
    methods->xSync = file_sync;
    methods->xFileSize = file_size;
    methods->xLock = hw_shim_file_lock;
    methods->xUnlock = hw_shim_file_unlock;
    methods->xCheckReservedLock = file_check_reserved_lock;
    methods->xFileControl = hw_shim_file_control;
    if (methods->iVersion >= 2) {
        if (methods->xShmMap != NULL)
            methods->xShmMap = hw_shim_file_shm_map;
        methods->xShmLock = hw_shim_file_shm_lock;
        methods->xShmBarrier = file_shm_barrier;
        methods->xShmUnmap = hw_shim_file_shm_unmap;
    }
    if (methods->xFetch != NULL)
        methods->xFetch = file_fetch;
}
