/* Implements the files of the simulated disk; sim/sim.h describes the model. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

enum {
    SECTOR = 512,    /* the unit in which a write tears */
    MAP_PAGE = 4096, /* and a mapping */
};

static void pending_release(struct sim_inode *inode)
{
    for (size_t i = 0; i < inode->pending_count; i++)
        free(inode->pending[i].bytes);
    free(inode->pending);
    inode->pending = NULL;
    inode->pending_count = inode->pending_capacity = 0;
}

static struct sim_pending *pending_add(struct sim_inode *inode)
{
    inode->pending = sim_grow(inode->pending, &inode->pending_capacity, inode->pending_count + 1,
                              sizeof(*inode->pending));
    inode->pending[inode->pending_count] = (struct sim_pending){0};
    return &inode->pending[inode->pending_count++];
}

static void put(struct sim_bytes *bytes, uint64_t offset, const uint8_t *from, size_t size)
{
    if (size == 0)
        return;
    if (offset + size > bytes->size)
        sim_bytes_resize(bytes, (size_t)offset + size);
    memcpy(bytes->bytes + offset, from, size);
}

static void pending_apply(struct sim_bytes *to, const struct sim_pending *pending)
{
    if (pending->is_truncate)
        sim_bytes_resize(to, (size_t)pending->offset);
    else
        put(to, pending->offset, pending->bytes, pending->size);
}

/* Some sectors of a write, or a beginning of it; the size of the file grows with what is kept. */
static void pending_tear(struct sim *sim, struct sim_bytes *to, const struct sim_pending *pending,
                         enum sim_crash_mode mode)
{
    uint64_t next = pending->offset, end = pending->offset + pending->size;

    if (pending->is_truncate) {
        pending_apply(to, pending);
        return;
    }
    if (mode == SIM_BYTES) {
        put(to, pending->offset, pending->bytes, (size_t)sim_chance(sim, pending->size + 1));
        return;
    }
    while (next < end) {
        uint64_t stop = (next / SECTOR + 1) * SECTOR;

        if (stop > end)
            stop = end;
        if (sim_chance(sim, 2) == 0)
            put(to, next, pending->bytes + (next - pending->offset), (size_t)(stop - next));
        next = stop;
    }
}

/* The kernel may have written any page of a mapping at any time. */
static void map_crash(struct sim *sim, struct sim_inode *inode, enum sim_crash_mode mode)
{
    size_t at = 0;

    if (inode->map_fd >= 0)
        sim_map_pull(inode);
    do {
        bool keeps = mode == SIM_KEEP || (mode != SIM_DROP && sim_chance(sim, 2) == 0);
        size_t left = inode->map_fd < 0 ? 0 : inode->map_size - at;

        if (keeps && left > 0)
            put(&inode->durable, at, inode->now.bytes + at, left < MAP_PAGE ? left : MAP_PAGE);
        at += MAP_PAGE;
    } while (inode->map_fd >= 0 && at < inode->map_size);
}

/* What a file comes to after a power loss. */
static void inode_crash(struct sim *sim, struct sim_inode *inode, enum sim_crash_mode mode)
{
    map_crash(sim, inode, mode);
    for (size_t i = 0; i < inode->pending_count; i++) {
        const struct sim_pending *pending = &inode->pending[i];

        if (mode == SIM_KEEP || (mode != SIM_DROP && sim_chance(sim, 2) == 0))
            pending_apply(&inode->durable, pending);
        else if ((mode == SIM_TORN || mode == SIM_BYTES) && sim_chance(sim, 2) == 0)
            pending_tear(sim, &inode->durable, pending, mode);
    }
    pending_release(inode);
    sim_map_forget(inode);
    sim_bytes_resize(&inode->now, 0);
    put(&inode->now, 0, inode->durable.bytes, inode->durable.size);
    inode->env_lock = NULL;
    inode->shm = NULL;
    for (struct sim_handle *handle = inode->handles; handle != NULL; handle = handle->next)
        sim_locks_drop(handle);
}

void sim_disk_crash(struct sim *sim, enum sim_crash_mode mode)
{
    for (struct sim_inode *inode = sim->inodes; inode != NULL; inode = inode->next)
        inode_crash(sim, inode, mode);
    sim_names_crash(sim, mode);
}

struct sim_inode *sim_inode_new(struct sim *sim, uint32_t mode, bool is_directory)
{
    struct sim_inode *inode = sim_allocate(sizeof(*inode));

    inode->id = ++sim->next_inode;
    inode->mode = mode;
    inode->is_directory = is_directory;
    inode->map_fd = -1;
    inode->next = sim->inodes;
    sim->inodes = inode;
    sim_inode_touch(sim, inode);
    return inode;
}

void sim_inode_touch(struct sim *sim, struct sim_inode *inode)
{
    inode->modified_ns = inode->changed_ns = (int64_t)sim->now_ns;
}

void sim_disk_release(struct sim *sim)
{
    struct sim_inode *next;

    sim_names_release(sim);
    for (struct sim_inode *inode = sim->inodes; inode != NULL; inode = next) {
        next = inode->next;
        for (struct sim_handle *handle = inode->handles; handle != NULL; handle = handle->next)
            handle->inode = NULL; /* a test that leaks a handle must not crash its own close */
        pending_release(inode);
        sim_map_forget(inode);
        sim_bytes_release(&inode->now);
        sim_bytes_release(&inode->durable);
        free(inode);
    }
    sim->inodes = NULL;
}

bool sim_is_dead(const struct sim_handle *handle)
{
    const struct sim *sim = handle->sim;

    return handle->inode == NULL || sim->crashed || sim->is_dead[handle->process] ||
           handle->generation != sim->generations[handle->process];
}

static int open_errno(struct sim *sim, const char *path, unsigned flags, struct sim_inode **out)
{
    struct sim_inode *inode = sim_find(sim, path);
    char parent[SIM_PATH_SIZE];
    const struct sim_inode *directory;

    if (inode != NULL && (flags & HW_OPEN_CREATE) && (flags & HW_OPEN_EXCLUSIVE))
        return EEXIST;
    if (inode != NULL && inode->is_directory)
        return EISDIR;
    if (inode == NULL) {
        if (!(flags & HW_OPEN_CREATE))
            return ENOENT;
        sim_parent(parent, path);
        directory = sim_find(sim, parent);
        if (directory == NULL)
            return ENOENT;
        if (!directory->is_directory)
            return ENOTDIR;
        inode = sim_inode_new(sim, flags & HW_OPEN_PRIVATE ? 0600 : 0644, false);
        sim_names_add(sim, path, inode);
    }
    *out = inode;
    return 0;
}

int sim_open(struct sim *sim, const char *path, unsigned flags, struct sim_handle **out)
{
    struct sim_inode *inode = NULL;
    struct sim_handle *handle;
    int os_errno = open_errno(sim, path, flags, &inode);

    if (os_errno != 0)
        return os_errno;
    handle = sim_allocate(sizeof(*handle));
    handle->sim = sim;
    handle->inode = inode;
    handle->process = sim->process;
    handle->generation = sim->generations[sim->process];
    handle->is_writable = (flags & HW_OPEN_WRITE) != 0;
    handle->powersafe_overwrite = true;
    (void)strcpy(handle->path, path); /* both have SIM_PATH_SIZE */
    handle->next = inode->handles;
    inode->handles = handle;
    *out = handle;
    return 0;
}

void sim_close(struct sim_handle *handle)
{
    struct sim_handle **link;

    if (handle == NULL)
        return;
    if (handle->inode != NULL) {
        sim_locks_drop(handle);
        for (link = &handle->inode->handles; *link != handle; link = &(*link)->next)
            assert(*link != NULL);
        *link = handle->next;
    }
    free(handle);
}

uint64_t sim_size(const struct sim_inode *inode)
{
    return inode->now.size;
}

enum sim_verdict sim_read(struct sim_handle *handle, uint64_t offset, void *buf, size_t size,
                          int *os_errno)
{
    struct sim_outcome outcome =
        sim_begin(handle->sim, handle, SIM_READ, handle->path, offset, size);
    struct sim_inode *inode = handle->inode;
    size_t got = 0;

    *os_errno = outcome.os_errno;
    if (outcome.verdict == SIM_FAIL)
        return SIM_FAIL;
    sim_map_pull(inode);
    if (offset < inode->now.size)
        got = inode->now.size - (size_t)offset < size ? inode->now.size - (size_t)offset : size;
    if (outcome.verdict == SIM_CUT)
        got = (size_t)sim_chance(handle->sim, got);
    if (got > 0)
        memcpy(buf, inode->now.bytes + offset, got);
    memset((uint8_t *)buf + got, 0, size - got);
    if (outcome.verdict == SIM_FLIP && got > 0)
        ((uint8_t *)buf)[sim_chance(handle->sim, got)] ^=
            (uint8_t)(1U << sim_chance(handle->sim, 8));
    return got < size ? SIM_CUT : SIM_GO;
}

/* A failed write may have put a part of its bytes. */
static void write_part(struct sim_handle *handle, uint64_t offset, const void *buf, size_t size)
{
    struct sim_inode *inode = handle->inode;
    struct sim_pending *pending;

    if (size == 0)
        return;
    pending = pending_add(inode);
    pending->offset = offset;
    pending->size = size;
    pending->bytes = sim_allocate(size);
    memcpy(pending->bytes, buf, size);
    sim_map_pull(inode);
    put(&inode->now, offset, buf, size);
    sim_map_push(inode, offset, size);
    sim_inode_touch(handle->sim, inode);
}

int sim_write(struct sim_handle *handle, uint64_t offset, const void *buf, size_t size)
{
    struct sim *sim = handle->sim;
    struct sim_outcome outcome = sim_begin(sim, handle, SIM_WRITE, handle->path, offset, size);
    uint64_t end = offset + size;
    uint64_t growth;

    if (outcome.verdict == SIM_FAIL) {
        if (!sim_is_dead(handle))
            write_part(handle, offset, buf, (size_t)sim_chance(sim, 2) * (size / 2));
        return outcome.os_errno;
    }
    if (!handle->is_writable)
        return EBADF;
    growth = end > handle->inode->now.size ? end - handle->inode->now.size : 0;
    if (growth > sim->space) {
        write_part(handle, offset, buf, size > growth ? size - (size_t)growth : 0);
        return ENOSPC;
    }
    if (sim->space != UINT64_MAX)
        sim->space -= growth;
    sim->trace = sim_hash(sim->trace, buf, size);
    write_part(handle, offset, buf, size);
    return 0;
}

int sim_sync(struct sim_handle *handle)
{
    struct sim_outcome outcome = sim_begin(handle->sim, handle, SIM_SYNC, handle->path, 0, 0);
    struct sim_inode *inode = handle->inode;

    if (outcome.verdict == SIM_FAIL) {
        /* The kernel marks the pages clean: nobody will write them, and readers still see them. */
        if (!sim_is_dead(handle))
            pending_release(inode);
        return outcome.os_errno;
    }
    for (size_t i = 0; i < inode->pending_count; i++)
        pending_apply(&inode->durable, &inode->pending[i]);
    pending_release(inode);
    if (inode->map_fd >= 0) { /* on Linux, what was written into mapped memory as well */
        sim_map_pull(inode);
        put(&inode->durable, 0, inode->now.bytes, inode->map_size);
    }
    return 0;
}

void sim_inode_resize(struct sim *sim, struct sim_inode *inode, size_t size)
{
    struct sim_pending *pending = pending_add(inode);

    pending->is_truncate = true;
    pending->offset = size;
    sim_map_pull(inode);
    if (sim->space != UINT64_MAX && size < inode->now.size)
        sim->space += inode->now.size - size;
    sim_bytes_resize(&inode->now, size);
    sim_map_push(inode, 0, inode->map_size);
    sim_inode_touch(sim, inode);
}

int sim_truncate(struct sim_handle *handle, uint64_t size)
{
    struct sim_outcome outcome =
        sim_begin(handle->sim, handle, SIM_TRUNCATE, handle->path, size, 0);

    if (outcome.verdict == SIM_FAIL)
        return outcome.os_errno;
    if (!handle->is_writable)
        return EBADF;
    sim_inode_resize(handle->sim, handle->inode, (size_t)size);
    return 0;
}

/* Reserves the room, as posix_fallocate does: the file grows to `size`, zeros at its end. */
int sim_allocate_file(struct sim_handle *handle, uint64_t size)
{
    struct sim *sim = handle->sim;
    struct sim_outcome outcome = sim_begin(sim, handle, SIM_ALLOCATE, handle->path, size, 0);
    uint64_t old;

    if (outcome.verdict == SIM_FAIL)
        return outcome.os_errno;
    if (!handle->is_writable)
        return EBADF;
    old = sim_size(handle->inode);
    if (size <= old)
        return 0;
    if (size - old > sim->space)
        return ENOSPC;
    if (sim->space != UINT64_MAX)
        sim->space -= size - old;
    sim_inode_resize(sim, handle->inode, (size_t)size);
    return 0;
}

void sim_stat(struct sim *sim, const struct sim_inode *inode, struct hw_file_stat *out)
{
    (void)sim;
    *out = (struct hw_file_stat){
        .device = 1,
        .inode = inode->id,
        .size = inode->now.size,
        .allocated = inode->now.size,
        .modified_ns = inode->modified_ns,
        .changed_ns = inode->changed_ns,
        .mode = inode->mode,
        .owner = SIM_USER,
        .is_directory = inode->is_directory,
    };
}

/* ------------------------------------------------------------------------ for tests to see */

static struct sim_inode *find(struct sim *sim, const char *path)
{
    char full[SIM_PATH_SIZE];

    sim_path(full, path);
    return sim_find(sim, full);
}

const uint8_t *sim_file_bytes(struct sim *sim, const char *path, size_t *size)
{
    static const uint8_t nothing[1];
    struct sim_inode *inode = find(sim, path);

    if (inode == NULL)
        return NULL;
    sim_map_pull(inode);
    *size = inode->now.size;
    return inode->now.size == 0 ? nothing : inode->now.bytes;
}

bool sim_file_exists(struct sim *sim, const char *path)
{
    return find(sim, path) != NULL;
}

/* What a test put there by hand was always there: no pending, durable. */
static void settle(struct sim_inode *inode)
{
    pending_release(inode);
    sim_bytes_resize(&inode->durable, 0);
    put(&inode->durable, 0, inode->now.bytes, inode->now.size);
}

void sim_file_put(struct sim *sim, const char *path, const void *bytes, size_t size)
{
    struct sim_inode *inode = find(sim, path);
    char full[SIM_PATH_SIZE];

    sim_path(full, path);
    if (inode == NULL) {
        inode = sim_inode_new(sim, 0644, false);
        sim_names_put(sim, full, inode);
    }
    sim_bytes_resize(&inode->now, 0);
    put(&inode->now, 0, bytes, size);
    sim_inode_touch(sim, inode);
    settle(inode);
}

void sim_file_truncate(struct sim *sim, const char *path, size_t size)
{
    struct sim_inode *inode = find(sim, path);

    assert(inode != NULL);
    sim_bytes_resize(&inode->now, size);
    sim_inode_touch(sim, inode);
    settle(inode);
}

void sim_file_flip(struct sim *sim, const char *path, size_t offset, uint8_t mask)
{
    struct sim_inode *inode = find(sim, path);

    assert(inode != NULL && offset < inode->now.size);
    inode->now.bytes[offset] ^= mask; /* as a bad disk does: no time changes */
    settle(inode);
}

void sim_file_set_modified(struct sim *sim, const char *path, int64_t ns)
{
    struct sim_inode *inode = find(sim, path);

    assert(inode != NULL);
    inode->modified_ns = ns;
    inode->changed_ns = (int64_t)sim->now_ns;
}

void sim_file_remove(struct sim *sim, const char *path)
{
    char full[SIM_PATH_SIZE];

    sim_path(full, path);
    sim_names_put(sim, full, NULL);
}
