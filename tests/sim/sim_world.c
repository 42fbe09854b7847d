/* Implements the machine of sim/sim.h: making, ending, crashing it, its clock and its chance. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

enum { START_NS = 1000000000 };

void *sim_allocate(size_t size)
{
    void *memory = calloc(1, size == 0 ? 1 : size);

    if (memory == NULL)
        abort(); /* the simulator's own memory is not part of the game */
    return memory;
}

void *sim_grow(void *memory, size_t *capacity, size_t count, size_t item_size)
{
    if (count <= *capacity)
        return memory;
    *capacity = count < 8 ? 8 : count * 2;
    memory = realloc(memory, *capacity * item_size);
    if (memory == NULL)
        abort();
    return memory;
}

char *sim_copy_text(const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(sim_allocate(size), text, size);
}

void sim_bytes_resize(struct sim_bytes *bytes, size_t size)
{
    bytes->bytes = sim_grow(bytes->bytes, &bytes->capacity, size, 1);
    if (size > bytes->size)
        memset(bytes->bytes + bytes->size, 0, size - bytes->size);
    bytes->size = size;
}

void sim_bytes_release(struct sim_bytes *bytes)
{
    free(bytes->bytes);
    *bytes = (struct sim_bytes){0};
}

/* FNV-1a, by words where there are eight bytes: it runs over everything that is written. */
uint64_t sim_hash(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    uint64_t word;

    for (; size >= sizeof(word); p += sizeof(word), size -= sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        hash = (hash ^ word) * 1099511628211U;
        hash ^= hash >> 32; /* high bits count, too */
    }
    for (; size > 0; p++, size--)
        hash = (hash ^ *p) * 1099511628211U;
    return hash;
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static uint64_t next_chance(struct sim *sim)
{
    uint64_t z = sim->chance += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

uint64_t sim_chance(struct sim *sim, uint64_t bound)
{
    return bound == 0 ? 0 : next_chance(sim) % bound;
}

void sim_random(struct sim *sim, void *buf, size_t size)
{
    uint8_t *p = buf;

    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)next_chance(sim);
}

static uint64_t seed_or_default(uint64_t seed)
{
    const char *text = getenv("HYPERWAL_SEED");

    if (seed != 0)
        return seed;
    if (text != NULL && *text != '\0')
        return strtoull(text, NULL, 0);
    return 1;
}

static void start(struct sim *sim, uint64_t seed)
{
    sim->seed = sim->chance = seed_or_default(seed);
    sim->now_ns = START_NS;
    sim->boot = 1;
    sim->sector_size = 4096;
    sim->powersafe_overwrite = true;
    sim->space = UINT64_MAX;
    sim->trace = SIM_HASH_START;
    sim->prints = getenv("HYPERWAL_TRACE") != NULL;
    sim_disk_start(sim);
}

struct sim *sim_new(uint64_t seed)
{
    struct sim *sim = sim_allocate(sizeof(*sim));

    sim_env_init(sim);
    sim_vfs_init(sim);
    start(sim, seed);
    return sim;
}

static void end(struct sim *sim)
{
    sim_set_fault(sim, NULL);
    sim_disk_release(sim);
    for (unsigned i = 0; i < SIM_PROCESS_COUNT; i++)
        sim->generations[i]++;
    sim_map_detach_dead(sim); /* whoever forgot to unmap keeps private memory */
    free(sim->changes);
    free(sim->tallies);
    sim_bytes_release(&sim->log);
}

void sim_reset(struct sim *sim, uint64_t seed)
{
    struct sim fresh = {.env = sim->env,
                        .vfs = sim->vfs,
                        .maps = sim->maps,
                        .map_count = sim->map_count,
                        .map_capacity = sim->map_capacity};

    end(sim);
    memcpy(fresh.vfs_name, sim->vfs_name, sizeof(fresh.vfs_name));
    memcpy(fresh.generations, sim->generations, sizeof(fresh.generations));
    memcpy(fresh.first_generations, sim->generations, sizeof(fresh.first_generations));
    *sim = fresh;
    start(sim, seed);
}

void sim_free(struct sim *sim)
{
    if (sim == NULL)
        return;
    (void)sqlite3_vfs_unregister(&sim->vfs); /* it was registered */
    end(sim);
    while (sim->map_count > 0)
        sim_unmap_memory(sim, sim->maps[0].memory, sim->maps[0].size);
    free(sim->maps);
    free(sim);
}

void sim_set_sector_size(struct sim *sim, int size)
{
    sim->sector_size = size;
}

void sim_set_powersafe_overwrite(struct sim *sim, bool on)
{
    sim->powersafe_overwrite = on;
}

void sim_set_space(struct sim *sim, uint64_t bytes)
{
    sim->space = bytes;
}

void sim_advance(struct sim *sim, uint64_t ns)
{
    sim->now_ns += ns;
}

void sim_set_clock(struct sim *sim, int64_t offset_ms)
{
    sim->clock_ms = offset_ms;
}

void sim_set_idle(struct sim *sim, void (*idle)(void *ctx), void *ctx)
{
    sim->idle = idle;
    sim->idle_ctx = ctx;
}

void sim_wait(struct sim *sim, uint64_t ns)
{
    sim->now_ns += ns;
    if (sim->idle == NULL || sim->is_idle || sim->crashed)
        return;
    sim->is_idle = true; /* the others may wait too: they are not run inside themselves */
    sim->idle(sim->idle_ctx);
    sim->is_idle = false;
}

void sim_set_process(struct sim *sim, unsigned process)
{
    if (process >= SIM_PROCESS_COUNT)
        abort();
    sim->process = process;
}

void sim_crash(struct sim *sim, enum sim_crash_mode mode)
{
    sim->trace = sim_hash(sim->trace, &mode, sizeof(mode));
    for (unsigned i = 0; i < SIM_PROCESS_COUNT; i++) {
        sim->generations[i]++;
        sim->is_dead[i] = false;
    }
    sim_disk_crash(sim, mode);
    sim_map_detach_dead(sim);
    sim->crashed = false;
    sim->boot++;
    sim->now_ns += 30000000000U; /* half a minute to boot */
}

void sim_kill(struct sim *sim, unsigned process)
{
    for (unsigned i = 0; i < SIM_PROCESS_COUNT; i++) {
        if (process != SIM_ALL_PROCESSES && process != i)
            continue;
        sim->generations[i]++;
        sim->is_dead[i] = false;
    }
    for (struct sim_inode *inode = sim->inodes; inode != NULL; inode = inode->next)
        for (struct sim_handle *handle = inode->handles; handle != NULL; handle = handle->next)
            if (sim_is_dead(handle))
                sim_locks_drop(handle);
    sim_map_detach_dead(sim);
}

uint64_t sim_operation_count(const struct sim *sim)
{
    return sim->operations;
}

uint64_t sim_trace_hash(const struct sim *sim)
{
    return sim->trace;
}

unsigned sim_open_handles(const struct sim *sim)
{
    unsigned count = 0;

    for (const struct sim_inode *inode = sim->inodes; inode != NULL; inode = inode->next)
        for (struct sim_handle *handle = inode->handles; handle != NULL; handle = handle->next)
            count += !sim_is_dead(handle);
    return count;
}

bool sim_log_has(const struct sim *sim, const char *text)
{
    return sim->log.size > 0 && strstr((const char *)sim->log.bytes, text) != NULL;
}

const char *sim_violation(const struct sim *sim)
{
    return sim->violation[0] == '\0' ? NULL : sim->violation;
}
