/* Implements the wrapped file of vfs/shim.h: what is passed down, and the table of methods. */
#include "vfs/shim.h"

static int file_close(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (file->role == HW_SHIM_PRIMARY && !hw_shim_is_forked(file)) {
        hw_shim_checkpoint_end(file);
        if (file->exclusive_entered)
            hw_capture_leave_exclusive(file->capture);
    }
    /* First the base, so that nobody waits for our locks while the log is brought to its end. */
    code = file->below->pMethods->xClose(file->below);
    if (file->role != HW_SHIM_WAL && file->role != HW_SHIM_REMOTE_WAL)
        hw_shim_database_leave(file);
    if (file->cache != NULL)
        hw_shim_remote_close(file);
    file->file.pMethods = NULL;
    return code;
}

static int file_read(sqlite3_file *sqlite_file, void *out, int size, sqlite3_int64 offset)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->below->pMethods->xRead(file->below, out, size, offset);
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
    return file->below->pMethods->xWrite(file->below, bytes, size, offset);
}

static int file_truncate(sqlite3_file *sqlite_file, sqlite3_int64 size)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->below->pMethods->xTruncate(file->below, size);
}

static int file_sync(sqlite3_file *sqlite_file, int flags)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    code = file->below->pMethods->xSync(file->below, flags);
    if (code == SQLITE_OK && file->role == HW_SHIM_WAL)
        hw_shim_wal_synced(file);
    return code;
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
    return file->below->pMethods->xFileSize(file->below, out);
}

static int file_check_reserved_lock(sqlite3_file *sqlite_file, int *out)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->below->pMethods->xCheckReservedLock(file->below, out);
}

static int file_sector_size(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    return file->below->pMethods->xSectorSize(file->below);
}

static int file_device_characteristics(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    return file->below->pMethods->xDeviceCharacteristics(file->below);
}

static void file_shm_barrier(sqlite3_file *sqlite_file)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (file->below->pMethods->xShmBarrier != NULL)
        file->below->pMethods->xShmBarrier(file->below);
}

static int file_fetch(sqlite3_file *sqlite_file, sqlite3_int64 offset, int size, void **out)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    return file->below->pMethods->xFetch(file->below, offset, size, out);
}

static int file_unfetch(sqlite3_file *sqlite_file, sqlite3_int64 offset, void *memory)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    return file->below->pMethods->xUnfetch(file->below, offset, memory);
}

/*
 * SQLite decides by the version and by single methods whether it maps memory, whether WAL is
 * possible, how large a sector is: the table is a mirror.  But xShmLock, xShmBarrier and xShmUnmap
 * are there even without xShmMap, as in the unix VFS: RBU calls them then.
 */
void hw_shim_file_wrap(struct hw_shim_file *file)
{
    const sqlite3_io_methods *below = file->below->pMethods;
    sqlite3_io_methods *methods = &file->methods;

    *methods = (sqlite3_io_methods){
        .iVersion = below->iVersion < 3 ? below->iVersion : 3,
        .xClose = file_close,
        .xRead = file_read,
        .xWrite = file_write,
        .xTruncate = file_truncate,
        .xSync = file_sync,
        .xFileSize = file_size,
        .xLock = hw_shim_file_lock,
        .xUnlock = hw_shim_file_unlock,
        .xCheckReservedLock = file_check_reserved_lock,
        .xFileControl = hw_shim_file_control,
        .xSectorSize = below->xSectorSize == NULL ? NULL : file_sector_size,
        .xDeviceCharacteristics =
            below->xDeviceCharacteristics == NULL ? NULL : file_device_characteristics,
    };
    if (below->iVersion >= 2) {
        methods->xShmMap = below->xShmMap == NULL ? NULL : hw_shim_file_shm_map;
        methods->xShmLock = hw_shim_file_shm_lock;
        methods->xShmBarrier = file_shm_barrier;
        methods->xShmUnmap = hw_shim_file_shm_unmap;
    }
    if (below->iVersion >= 3) {
        methods->xFetch = below->xFetch == NULL ? NULL : file_fetch;
        methods->xUnfetch = below->xUnfetch == NULL ? NULL : file_unfetch;
    }
    file->file.pMethods = methods;
}
