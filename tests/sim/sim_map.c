/*
 * Implements memory shared between simulated processes: files mapped by our own code, and the
 * regions of the wal-index.
 *
 * The bytes live in a memfd, and each mapping is a mapping of its own, as between processes.  So a
 * process that was killed keeps its addresses (SQLite writes to them while a dead connection is
 * closed), but they turn into private memory: nobody alive sees what it does there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim/sim_private.h"

enum { PAGE = 4096 };

static bool inode_share(struct sim_inode *inode, size_t size)
{
    if (inode->map_fd < 0) {
        inode->map_fd = memfd_create("sim", MFD_CLOEXEC);
        if (inode->map_fd < 0)
            return false;
    }
    if (inode->map_size < size) {
        size_t old = inode->map_size;

        if (ftruncate(inode->map_fd, (off_t)((size + PAGE - 1) / PAGE * PAGE)) != 0)
            return false;
        inode->map_size = size;
        sim_map_push(inode, old, size - old);
    }
    return true;
}

void *sim_map_memory(struct sim *sim, struct sim_inode *inode, uint64_t offset, size_t size)
{
    void *memory;

    if (!inode_share(inode, (size_t)offset + size))
        return NULL;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, inode->map_fd, (off_t)offset);
    if (memory == MAP_FAILED)
        return NULL;
    sim->maps = sim_grow(sim->maps, &sim->map_capacity, sim->map_count + 1, sizeof(*sim->maps));
    sim->maps[sim->map_count++] = (struct sim_map){
        .inode = inode,
        .memory = memory,
        .size = size,
        .process = sim->process,
        .generation = sim->generations[sim->process],
    };
    return memory;
}

void sim_unmap_memory(struct sim *sim, void *memory, size_t size)
{
    if (memory == NULL)
        return;
    for (size_t i = 0; i < sim->map_count; i++) {
        if (sim->maps[i].memory != memory)
            continue;
        sim_map_drop_lock(&sim->maps[i]);
        sim->maps[i] = sim->maps[--sim->map_count];
        (void)munmap(memory, size); /* it is a mapping of ours */
        return;
    }
}

/* Stands for a handle that is closed, whose lock is kept by a mapping. */
static struct sim_handle closed_handle;

void sim_map_keep_lock(struct sim_handle *handle)
{
    struct sim *sim = handle->sim;
    bool is_locked = handle->inode != NULL && handle->inode->env_lock == handle;

    for (size_t i = 0; i < sim->map_count; i++) {
        struct sim_map *map = &sim->maps[i];

        if (map->handle != handle)
            continue;
        map->handle = NULL; /* another handle may come to have this address */
        if (!is_locked || map->inode != handle->inode)
            continue;
        map->holds_lock = true;
        handle->inode->env_lock = &closed_handle;
        is_locked = false;
    }
}

void sim_map_drop_lock(struct sim_map *map)
{
    if (map->inode != NULL && map->holds_lock && map->inode->env_lock == &closed_handle)
        map->inode->env_lock = NULL;
    map->holds_lock = false;
}

static void detach(struct sim_map *map)
{
    if (mmap(map->memory, map->size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        abort();
    map->inode = NULL;
}

void sim_map_detach_dead(struct sim *sim)
{
    for (size_t i = 0; i < sim->map_count; i++) {
        struct sim_map *map = &sim->maps[i];

        if (map->inode == NULL || map->generation == sim->generations[map->process])
            continue;
        sim_map_drop_lock(map);
        detach(map);
    }
}

void sim_map_pull(struct sim_inode *inode)
{
    size_t size = inode->map_size < inode->now.size ? inode->map_size : inode->now.size;

    if (inode->map_fd >= 0 && pread(inode->map_fd, inode->now.bytes, size, 0) != (ssize_t)size)
        abort();
}

void sim_map_push(struct sim_inode *inode, uint64_t offset, size_t size)
{
    static const uint8_t zeros[PAGE];
    uint64_t end = offset + size;

    if (inode->map_fd < 0)
        return;
    if (end > inode->map_size)
        end = inode->map_size;
    while (offset < end) {
        size_t step = end - offset < PAGE ? (size_t)(end - offset) : PAGE;
        const uint8_t *from = zeros;

        if (offset < inode->now.size) {
            from = inode->now.bytes + offset;
            if (step > inode->now.size - offset)
                step = inode->now.size - (size_t)offset;
        }
        if (pwrite(inode->map_fd, from, step, (off_t)offset) != (ssize_t)step)
            abort();
        offset += step;
    }
}

void sim_map_forget(struct sim_inode *inode)
{
    if (inode->map_fd >= 0)
        (void)close(inode->map_fd); /* memory: nothing to lose */
    inode->map_fd = -1;
    inode->map_size = 0;
}
