/* Implements an SQLite VFS over the simulated disk, with the manners of SQLite's unix VFS. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

static struct sim_handle *handle_of(sqlite3_file *file)
{
    return ((struct sim_vfs_file *)file)->handle;
}

static struct sim *sim_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

static int io_code(int os_errno, int code)
{
    if (os_errno == 0)
        return SQLITE_OK;
    return os_errno == ENOSPC ? SQLITE_FULL : code;
}

/* -------------------------------------------------------------------------------- the file */

static int file_close(sqlite3_file *file)
{
    struct sim_handle *handle = handle_of(file);

    (void)sim_shm_unmap(file, 0); /* releases what this handle has mapped, cannot fail */
    if (handle->delete_on_close && !sim_is_dead(handle))
        (void)sim_remove(handle->sim, handle->path, false); /* it may be gone already */
    sim_close(handle);
    file->pMethods = NULL;
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *buf, int size, sqlite3_int64 offset)
{
    int os_errno;

    switch (sim_read(handle_of(file), (uint64_t)offset, buf, (size_t)size, &os_errno)) {
    case SIM_FAIL:
        return SQLITE_IOERR_READ;
    case SIM_CUT:
        return SQLITE_IOERR_SHORT_READ;
    case SIM_GO:
    case SIM_FLIP:
        break;
    }
    return SQLITE_OK;
}

static int file_write(sqlite3_file *file, const void *buf, int size, sqlite3_int64 offset)
{
    return io_code(sim_write(handle_of(file), (uint64_t)offset, buf, (size_t)size),
                   SQLITE_IOERR_WRITE);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return io_code(sim_truncate(handle_of(file), (uint64_t)size), SQLITE_IOERR_TRUNCATE);
}

/* As unix does: the first sync of a new journal or WAL syncs the directory, too. */
static int file_sync(sqlite3_file *file, int flags)
{
    struct sim_handle *handle = handle_of(file);
    char parent[SIM_PATH_SIZE];
    int os_errno = sim_sync(handle);

    (void)flags;
    if (os_errno != 0)
        return SQLITE_IOERR_FSYNC;
    if (!handle->sync_directory)
        return SQLITE_OK;
    handle->sync_directory = false;
    sim_parent(parent, handle->path);
    if (sim_begin(handle->sim, handle, SIM_SYNC_DIR, parent, 0, 0).verdict == SIM_FAIL)
        return SQLITE_IOERR_DIR_FSYNC;
    return sim_sync_dir(handle->sim, parent) == 0 ? SQLITE_OK : SQLITE_IOERR_DIR_FSYNC;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out)
{
    struct sim_handle *handle = handle_of(file);

    if (sim_begin(handle->sim, handle, SIM_STAT, handle->path, 0, 0).verdict == SIM_FAIL)
        return SQLITE_IOERR_FSTAT;
    *out = (sqlite3_int64)sim_size(handle->inode);
    return SQLITE_OK;
}

/* The strongest lock that others hold on the file. */
static int others_lock(const struct sim_handle *handle)
{
    int strongest = SQLITE_LOCK_NONE;

    for (const struct sim_handle *other = handle->inode->handles; other; other = other->next)
        if (other != handle && other->lock > strongest)
            strongest = other->lock;
    return strongest;
}

static int file_lock(sqlite3_file *file, int level)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome =
        sim_begin(handle->sim, handle, SIM_LOCK, handle->path, (uint64_t)level, 0);
    int others;

    if (outcome.verdict == SIM_FAIL)
        return SQLITE_IOERR_LOCK;
    if (handle->lock >= level)
        return SQLITE_OK;
    others = others_lock(handle);
    if (level == SQLITE_LOCK_SHARED && others >= SQLITE_LOCK_PENDING)
        return SQLITE_BUSY;
    if (level > SQLITE_LOCK_SHARED && others >= SQLITE_LOCK_RESERVED)
        return SQLITE_BUSY;
    if (level == SQLITE_LOCK_EXCLUSIVE && others >= SQLITE_LOCK_SHARED) {
        handle->lock = SQLITE_LOCK_PENDING; /* no new readers; those that are there may end */
        return SQLITE_BUSY;
    }
    handle->lock = level;
    return SQLITE_OK;
}

static int file_unlock(sqlite3_file *file, int level)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome =
        sim_begin(handle->sim, handle, SIM_UNLOCK, handle->path, (uint64_t)level, 0);

    if (outcome.verdict == SIM_FAIL)
        return SQLITE_IOERR_UNLOCK;
    if (handle->lock > level)
        handle->lock = level;
    return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *file, int *out)
{
    struct sim_handle *handle = handle_of(file);

    if (sim_is_dead(handle))
        return SQLITE_IOERR_CHECKRESERVEDLOCK;
    *out = handle->lock >= SQLITE_LOCK_RESERVED || others_lock(handle) >= SQLITE_LOCK_RESERVED;
    return SQLITE_OK;
}

static void mode_bit(bool *bit, int *argument)
{
    if (*argument < 0)
        *argument = *bit;
    else
        *bit = *argument != 0;
}

static int has_foreign_reader(const struct sim_handle *handle)
{
    if (handle->shm == NULL)
        return 0;
    for (const struct sim_handle *other = handle->inode->handles; other; other = other->next)
        if (other->process != handle->process &&
            ((other->shm_shared | other->shm_exclusive) & 0xf8))
            return 1;
    return 0;
}

static int file_control(sqlite3_file *file, int operation, void *argument)
{
    struct sim_handle *handle = handle_of(file);

    switch (operation) {
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)argument = handle->lock;
        return SQLITE_OK;
    case SQLITE_FCNTL_LAST_ERRNO:
        *(int *)argument = 0;
        return SQLITE_OK;
    case SQLITE_FCNTL_CHUNK_SIZE:
    case SQLITE_FCNTL_SIZE_HINT:
        return SQLITE_OK;
    case SQLITE_FCNTL_PERSIST_WAL:
        mode_bit(&handle->persist_wal, argument);
        return SQLITE_OK;
    case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
        mode_bit(&handle->powersafe_overwrite, argument);
        return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME:
        *(char **)argument = sqlite3_mprintf("%s", handle->sim->vfs_name);
        return SQLITE_OK;
    case SQLITE_FCNTL_TEMPFILENAME:
        *(char **)argument =
            sqlite3_mprintf("/sim-etilqs-%llu", (unsigned long long)++handle->sim->next_temporary);
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
        *(int *)argument =
            handle->inode == NULL || sim_find(handle->sim, handle->path) != handle->inode;
        return SQLITE_OK;
    case SQLITE_FCNTL_MMAP_SIZE:
        *(sqlite3_int64 *)argument = 0; /* there is no memory-mapped I/O here */
        return SQLITE_OK;
    case SQLITE_FCNTL_EXTERNAL_READER:
        *(int *)argument = has_foreign_reader(handle);
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int file_sector_size(sqlite3_file *file)
{
    return handle_of(file)->sim->sector_size;
}

static int file_characteristics(sqlite3_file *file)
{
    const struct sim_handle *handle = handle_of(file);

    return handle->powersafe_overwrite && handle->sim->powersafe_overwrite
               ? SQLITE_IOCAP_POWERSAFE_OVERWRITE
               : 0;
}

static int file_fetch(sqlite3_file *file, sqlite3_int64 offset, int size, void **out)
{
    (void)file;
    (void)offset;
    (void)size;
    *out = NULL; /* not mapped: SQLite reads */
    return SQLITE_OK;
}

static int file_unfetch(sqlite3_file *file, sqlite3_int64 offset, void *memory)
{
    (void)file;
    (void)offset;
    (void)memory;
    return SQLITE_OK;
}

const sqlite3_io_methods sim_file_methods = {
    .iVersion = 3,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
    .xShmMap = sim_shm_map,
    .xShmLock = sim_shm_lock,
    .xShmBarrier = sim_shm_barrier,
    .xShmUnmap = sim_shm_unmap,
    .xFetch = file_fetch,
    .xUnfetch = file_unfetch,
};

/* --------------------------------------------------------------------------------- the VFS */

static unsigned open_flags(int flags)
{
    unsigned result = HW_OPEN_READ;

    if (flags & SQLITE_OPEN_READWRITE)
        result |= HW_OPEN_WRITE;
    if (flags & SQLITE_OPEN_CREATE)
        result |= HW_OPEN_CREATE;
    if (flags & SQLITE_OPEN_EXCLUSIVE)
        result |= HW_OPEN_EXCLUSIVE;
    return result;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *out, int flags,
                    int *out_flags)
{
    const int synced_types = SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL;
    struct sim *sim = sim_of(vfs);
    struct sim_vfs_file *file = (struct sim_vfs_file *)out;
    char path[SIM_PATH_SIZE];
    int os_errno;

    memset(file, 0, sizeof(*file));
    if (name == NULL)
        (void)snprintf(path, sizeof(path), "/sim-etilqs-%llu",
                       (unsigned long long)++sim->next_temporary);
    else
        sim_path(path, name);
    if (sim_begin(sim, NULL, SIM_OPEN, path, (uint64_t)flags, 0).verdict == SIM_FAIL)
        return SQLITE_CANTOPEN;
    os_errno = sim_open(sim, path, open_flags(flags), &file->handle);
    if (os_errno != 0)
        return SQLITE_CANTOPEN;
    file->handle->is_database = (flags & SQLITE_OPEN_MAIN_DB) != 0;
    file->handle->delete_on_close = name == NULL || (flags & SQLITE_OPEN_DELETEONCLOSE);
    file->handle->sync_directory = (flags & SQLITE_OPEN_CREATE) && (flags & synced_types);
    file->file.pMethods = &sim_file_methods;
    if (out_flags != NULL)
        *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_directory)
{
    struct sim *sim = sim_of(vfs);
    char path[SIM_PATH_SIZE], parent[SIM_PATH_SIZE];
    int os_errno;

    sim_path(path, name);
    if (sim_begin(sim, NULL, SIM_REMOVE, path, 0, 0).verdict == SIM_FAIL)
        return SQLITE_IOERR_DELETE;
    os_errno = sim_remove(sim, path, false);
    if (os_errno == ENOENT)
        return SQLITE_IOERR_DELETE_NOENT;
    if (os_errno != 0)
        return SQLITE_IOERR_DELETE;
    if (!sync_directory)
        return SQLITE_OK;
    sim_parent(parent, path);
    if (sim_begin(sim, NULL, SIM_SYNC_DIR, parent, 0, 0).verdict == SIM_FAIL)
        return SQLITE_IOERR_DIR_FSYNC;
    return sim_sync_dir(sim, parent) == 0 ? SQLITE_OK : SQLITE_IOERR_DIR_FSYNC;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    struct sim *sim = sim_of(vfs);
    char path[SIM_PATH_SIZE];
    const struct sim_inode *inode;

    sim_path(path, name);
    if (sim_begin(sim, NULL, SIM_STAT, path, (uint64_t)flags, 0).verdict == SIM_FAIL)
        return SQLITE_IOERR_ACCESS;
    inode = sim_find(sim, path);
    *out = inode != NULL;
    if (flags == SQLITE_ACCESS_EXISTS && inode != NULL)
        *out = inode->is_directory || inode->now.size > 0; /* an empty journal is not hot */
    return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    char path[SIM_PATH_SIZE];

    (void)vfs;
    sim_path(path, name);
    if (strlen(path) >= (size_t)size)
        return SQLITE_CANTOPEN;
    (void)sqlite3_snprintf(size, out, "%s", path);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *out)
{
    sim_random(sim_of(vfs), out, (size_t)size);
    return size;
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    sim_wait(sim_of(vfs), (uint64_t)microseconds * 1000);
    return microseconds;
}

static int vfs_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    const sqlite3_int64 unix_epoch_ms = 24405875 * (sqlite3_int64)8640000;

    *out = unix_epoch_ms + 1700000000000 + (sqlite3_int64)(sim_of(vfs)->now_ns / 1000000);
    return SQLITE_OK;
}

static int vfs_current_time(sqlite3_vfs *vfs, double *out)
{
    sqlite3_int64 ms;
    int rc = vfs_current_time_int64(vfs, &ms);

    *out = (double)ms / 86400000.0;
    return rc;
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    (void)size;
    (void)out;
    return 0;
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    (void)name;
    return NULL;
}

static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *out)
{
    (void)vfs;
    (void)sqlite3_snprintf(size, out, "no libraries in a simulation");
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    (void)vfs;
    (void)library;
}

void sim_vfs_init(struct sim *sim)
{
    static unsigned count; /* of simulations in this program: names must differ */

    (void)snprintf(sim->vfs_name, sizeof(sim->vfs_name), "sim%u", ++count);
    sim->vfs = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct sim_vfs_file),
        .mxPathname = SIM_PATH_SIZE - 32,
        .zName = sim->vfs_name,
        .pAppData = sim,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xDlOpen = vfs_dl_open,
        .xDlError = vfs_dl_error,
        .xDlClose = vfs_dl_close,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_current_time_int64,
    };
    if (sqlite3_vfs_register(&sim->vfs, 0) != SQLITE_OK)
        abort();
}

sqlite3_vfs *sim_vfs(struct sim *sim)
{
    return &sim->vfs;
}
