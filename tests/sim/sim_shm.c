/*
 * Implements the wal-index of the simulated VFS: a file beside the database, mapped by all, and
 * eight locks that are shared or exclusive, as SQLite's unix VFS has them.
 */
#include <stdio.h>
#include <string.h>

#include "sim/sim_private.h"

static struct sim_handle *handle_of(sqlite3_file *file)
{
    return ((struct sim_vfs_file *)file)->handle;
}

static bool is_attached(const struct sim_inode *database)
{
    for (const struct sim_handle *handle = database->handles; handle; handle = handle->next)
        if (handle->shm != NULL && handle->shm == database->shm && !sim_is_dead(handle))
            return true;
    return false;
}

/* Whoever comes first, or after all others died, finds nothing of what was there before. */
static struct sim_inode *attach(struct sim_handle *handle)
{
    struct sim *sim = handle->sim;
    char path[SIM_PATH_SIZE + 8];
    struct sim_inode *shm;

    if (is_attached(handle->inode))
        return handle->inode->shm;
    (void)snprintf(path, sizeof(path), "%s-shm", handle->path);
    shm = sim_find(sim, path);
    if (shm == NULL) {
        shm = sim_inode_new(sim, 0644, false);
        sim_names_add(sim, path, shm);
    }
    sim_map_forget(shm);
    sim_inode_resize(sim, shm, 0);
    handle->inode->shm = shm;
    return shm;
}

int sim_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome =
        sim_begin(handle->sim, handle, SIM_MAP, handle->path, (uint64_t)region, (uint64_t)size);
    size_t end = (size_t)(region + 1) * (size_t)size;

    *out = NULL;
    if (outcome.verdict == SIM_FAIL || region >= SIM_SHM_REGIONS)
        return SQLITE_IOERR_SHMMAP;
    if (handle->shm == NULL)
        handle->shm = attach(handle);
    handle->region_size = (size_t)size;
    if (sim_size(handle->shm) < end) {
        if (!extend)
            return SQLITE_OK; /* not there yet: *out is NULL */
        sim_inode_resize(handle->sim, handle->shm, end);
    }
    if (handle->regions[region] == NULL)
        handle->regions[region] = sim_map_memory(handle->sim, handle->shm,
                                                 (uint64_t)region * (uint64_t)size, (size_t)size);
    if (handle->regions[region] == NULL)
        return SQLITE_IOERR_NOMEM;
    *out = handle->regions[region];
    return SQLITE_OK;
}

/* Does another connection hold one of these slots, exclusively or at all? */
static bool is_taken(const struct sim_handle *handle, uint16_t slots, bool exclusive_only)
{
    for (const struct sim_handle *other = handle->inode->handles; other; other = other->next) {
        if (other == handle || other->shm != handle->shm)
            continue;
        if (other->shm_exclusive & slots)
            return true;
        if (!exclusive_only && (other->shm_shared & slots))
            return true;
    }
    return false;
}

int sim_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    struct sim_handle *handle = handle_of(file);
    uint16_t slots = (uint16_t)(((1U << count) - 1) << offset);
    bool unlocks = (flags & SQLITE_SHM_UNLOCK) != 0;
    struct sim_outcome outcome = sim_begin(handle->sim, handle, unlocks ? SIM_UNLOCK : SIM_LOCK,
                                           handle->path, (uint64_t)flags, slots);

    if (outcome.verdict == SIM_FAIL || handle->shm == NULL)
        return SQLITE_IOERR_SHMLOCK;
    if (unlocks) {
        handle->shm_shared &= (uint16_t)~slots;
        handle->shm_exclusive &= (uint16_t)~slots;
        return SQLITE_OK;
    }
    if (flags & SQLITE_SHM_SHARED) {
        if (is_taken(handle, slots, true))
            return SQLITE_BUSY;
        handle->shm_shared |= slots;
        return SQLITE_OK;
    }
    if (is_taken(handle, slots, false))
        return SQLITE_BUSY;
    handle->shm_exclusive |= slots;
    return SQLITE_OK;
}

void sim_shm_barrier(sqlite3_file *file)
{
    (void)file;
    __asm__ volatile("" ::: "memory"); /* one thread: only the compiler could reorder */
}

int sim_shm_unmap(sqlite3_file *file, int delete_it)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_inode *database = handle->inode;
    char path[SIM_PATH_SIZE + 8];

    for (unsigned i = 0; i < SIM_SHM_REGIONS; i++) {
        sim_unmap_memory(handle->sim, handle->regions[i], handle->region_size);
        handle->regions[i] = NULL;
    }
    handle->shm_shared = handle->shm_exclusive = 0;
    if (handle->shm == NULL)
        return SQLITE_OK;
    handle->shm = NULL;
    if (database == NULL || is_attached(database))
        return SQLITE_OK;
    database->shm = NULL;
    if (delete_it && !sim_is_dead(handle)) {
        (void)snprintf(path, sizeof(path), "%s-shm", handle->path);
        (void)sim_remove(handle->sim, path, false); /* it may be gone already */
    }
    return SQLITE_OK;
}

void sim_locks_drop(struct sim_handle *handle)
{
    handle->lock = SQLITE_LOCK_NONE;
    handle->shm_shared = handle->shm_exclusive = 0;
    if (handle->inode->env_lock == handle)
        handle->inode->env_lock = NULL;
}
