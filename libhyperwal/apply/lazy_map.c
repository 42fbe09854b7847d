/* Implements the map of apply/lazy.h. */
#include "apply/lazy.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "wal/wal.h"

enum {
    VERSION = 1,
    HEADER_SIZE = 4096,
    FIXED_SIZE = 88, /* bytes that the check covers */
    GROUPS_MAX = 1 << 26,
};

static const char magic[8] = {'h', 'w', 'p', 'r', 'e', 's', 'n', 't'};

/* As it lies in the file: little-endian up to the check, then words in the machine's order. */
struct header {
    uint8_t magic[8];
    uint8_t version[4], page_size[4];
    uint8_t group_count[4], order[4]; /* 1 in the machine's order */
    uint8_t index_seq[8], fork[8];
    uint8_t key[HW_KEY_SIZE];
    uint8_t zeros[16];
    uint8_t check[8];
    uint8_t boot[16];
    _Atomic uint32_t clean;  /* 1: closed in good order */
    _Atomic uint32_t broken; /* 1: does not fit its log */
};

struct hw_lazy_map {
    struct hw_env *env;
    struct hw_file *file; /* owned: to sync it */
    void *memory;         /* owned */
    size_t size;
    struct hw_lazy_origin origin;
    struct header *header;     /* into memory, as what follows */
    _Atomic uint64_t *present; /* a word a group */
    _Atomic uint32_t *wanted, *refused;
};

static_assert(sizeof(struct header) <= HEADER_SIZE, "the header fits");

static size_t words_of(uint32_t group_count)
{
    return ((size_t)group_count + 31) / 32;
}

static size_t size_of(uint32_t group_count)
{
    return HEADER_SIZE + (size_t)group_count * 8 + 2 * words_of(group_count) * 4;
}

/* -------------------------------------------------------------------------------- the header */

static void check_of(const struct header *header, uint8_t out[8])
{
    uint8_t bytes[FIXED_SIZE];
    uint32_t sum[2] = {0x68777072, VERSION};

    memcpy(bytes, header, sizeof(bytes));
    hw_wal_checksum(false, bytes, sizeof(bytes), sum);
    hw_put_le32(out, sum[0]);
    hw_put_le32(out + 4, sum[1]);
}

static void header_encode(const struct hw_lazy_origin *origin, struct header *header)
{
    uint32_t order = 1;

    memcpy(header->magic, magic, sizeof(magic));
    hw_put_le32(header->version, VERSION);
    hw_put_le32(header->page_size, origin->page_size);
    hw_put_le32(header->group_count, origin->group_count);
    memcpy(header->order, &order, sizeof(order));
    hw_put_le64(header->index_seq, origin->index_seq);
    hw_put_le64(header->fork, origin->fork);
    memcpy(header->key, origin->key, HW_KEY_SIZE);
    check_of(header, header->check);
}

/* False: not a map that this machine, in this boot, can read. */
static bool header_decode(struct header *header, const uint8_t boot[16], uint64_t file_size,
                          struct hw_lazy_origin *out)
{
    uint8_t check[8];
    uint32_t order = 0;

    check_of(header, check);
    memcpy(&order, header->order, sizeof(order));
    if (memcmp(header->magic, magic, sizeof(magic)) != 0 ||
        hw_get_le32(header->version) != VERSION || order != 1 ||
        memcmp(check, header->check, sizeof(check)) != 0)
        return false;
    if (memcmp(boot, header->boot, sizeof(header->boot)) != 0 && atomic_load(&header->clean) != 1)
        return false;
    if (atomic_load(&header->broken) != 0)
        return false;
    *out = (struct hw_lazy_origin){.fork = hw_get_le64(header->fork),
                                   .index_seq = hw_get_le64(header->index_seq),
                                   .page_size = hw_get_le32(header->page_size),
                                   .group_count = hw_get_le32(header->group_count)};
    memcpy(out->key, header->key, HW_KEY_SIZE);
    return hw_entry_page_size_ok(out->page_size) && out->group_count <= GROUPS_MAX &&
           file_size >= size_of(out->group_count);
}

/* ------------------------------------------------------------------------------ open, close */

static void point(struct hw_lazy_map *map)
{
    uint8_t *bytes = map->memory;

    map->header = map->memory;
    bytes += HEADER_SIZE;
    map->present = (_Atomic uint64_t *)(void *)bytes;
    bytes += (size_t)map->origin.group_count * 8;
    map->wanted = (_Atomic uint32_t *)(void *)bytes;
    map->refused = map->wanted + words_of(map->origin.group_count);
}

void hw_lazy_map_close(struct hw_lazy_map *map)
{
    if (map == NULL)
        return;
    if (map->memory != NULL)
        map->env->ops->unmap(map->env, map->memory, map->size);
    if (map->file != NULL)
        map->env->ops->close(map->file);
    hw_free(map);
}

static enum hw_status map_new(struct hw_env *env, const char *path, unsigned flags,
                              struct hw_lazy_map **out, struct hw_error *err)
{
    struct hw_lazy_map *map = hw_zalloc(sizeof(*map));
    enum hw_status status;

    if (map == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open it", path);
    map->env = env;
    status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | flags, &map->file, err);
    if (status != HW_OK) {
        hw_lazy_map_close(map);
        return status;
    }
    *out = map;
    return HW_OK;
}

enum hw_status hw_lazy_map_open(struct hw_env *env, const char *path, struct hw_lazy_map **out,
                                struct hw_error *err)
{
    struct hw_lazy_map *map = NULL;
    struct hw_file_stat stat;
    uint8_t boot[16];
    enum hw_status status = map_new(env, path, 0, &map, err);

    if (status != HW_OK)
        return status;
    status = env->ops->stat_file(map->file, &stat, err);
    if (status == HW_OK && (stat.size < HEADER_SIZE || stat.size > size_of(GROUPS_MAX)))
        status = hw_fail(err, HW_ENOTFOUND, "%s: not a map of pages", path);
    if (status == HW_OK) {
        map->size = (size_t)stat.size;
        status = env->ops->map(map->file, map->size, &map->memory, err);
    }
    if (status == HW_OK)
        status = env->ops->boot_id(env, boot, err);
    if (status == HW_OK && !header_decode(map->memory, boot, stat.size, &map->origin))
        status = hw_fail(err, HW_ENOTFOUND, "%s: of another boot, or damaged", path);
    if (status != HW_OK) {
        hw_lazy_map_close(map);
        return status;
    }
    point(map);
    *out = map;
    return HW_OK;
}

enum hw_status hw_lazy_map_create(struct hw_env *env, const char *path,
                                  const struct hw_lazy_origin *origin, struct hw_lazy_map **out,
                                  struct hw_error *err)
{
    struct hw_lazy_map *map = NULL;
    uint8_t boot[16];
    enum hw_status status;

    if (origin->group_count > GROUPS_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: %u page groups are too many", path,
                       (unsigned)origin->group_count);
    status = map_new(env, path, HW_OPEN_CREATE, &map, err);
    if (status != HW_OK)
        return status;
    map->origin = *origin;
    map->size = size_of(origin->group_count);
    status = env->ops->truncate(map->file, 0, err); /* left by one that did not end */
    if (status == HW_OK)
        status = env->ops->truncate(map->file, map->size, err);
    if (status == HW_OK)
        status = env->ops->map(map->file, map->size, &map->memory, err);
    if (status == HW_OK)
        status = env->ops->boot_id(env, boot, err);
    if (status != HW_OK) {
        hw_lazy_map_close(map);
        return status;
    }
    point(map);
    header_encode(origin, map->header);
    memcpy(map->header->boot, boot, sizeof(map->header->boot));
    *out = map;
    return HW_OK;
}

struct hw_lazy_origin hw_lazy_map_origin(const struct hw_lazy_map *map)
{
    return map->origin;
}

enum hw_status hw_lazy_map_begin(struct hw_lazy_map *map, struct hw_error *err)
{
    uint8_t boot[16];
    enum hw_status status = map->env->ops->boot_id(map->env, boot, err);

    if (status != HW_OK)
        return status;
    memcpy(map->header->boot, boot, sizeof(map->header->boot));
    atomic_store(&map->header->clean, 0);
    return map->env->ops->sync(map->file, err);
}

enum hw_status hw_lazy_map_end(struct hw_lazy_map *map, struct hw_error *err)
{
    /* First the bits: a word that says that they are good must not be there before them. */
    enum hw_status status = map->env->ops->sync(map->file, err);

    if (status != HW_OK || hw_lazy_map_is_broken(map))
        return status;
    atomic_store(&map->header->clean, 1);
    return map->env->ops->sync(map->file, err);
}

void hw_lazy_map_break(struct hw_lazy_map *map)
{
    atomic_store(&map->header->broken, 1);
}

bool hw_lazy_map_is_broken(const struct hw_lazy_map *map)
{
    return atomic_load(&map->header->broken) != 0;
}

/* ------------------------------------------------------------------------------------- pages */

bool hw_lazy_has(const struct hw_lazy_map *map, uint32_t page_number)
{
    uint32_t group = (page_number - 1) / HW_GROUP_PAGES;

    if (group >= map->origin.group_count)
        return true;
    return (atomic_load_explicit(&map->present[group], memory_order_acquire) >>
                (page_number - 1) % HW_GROUP_PAGES &
            1) != 0;
}

void hw_lazy_mark(struct hw_lazy_map *map, uint32_t page_number)
{
    uint32_t group = (page_number - 1) / HW_GROUP_PAGES;

    if (group < map->origin.group_count)
        atomic_fetch_or(&map->present[group], UINT64_C(1) << (page_number - 1) % HW_GROUP_PAGES);
}

void hw_lazy_mark_above(struct hw_lazy_map *map, uint32_t page_count)
{
    uint32_t group = page_count / HW_GROUP_PAGES, rest = page_count % HW_GROUP_PAGES;

    if (group < map->origin.group_count)
        atomic_fetch_or(&map->present[group], UINT64_MAX << rest);
    for (group++; group < map->origin.group_count; group++)
        atomic_store(&map->present[group], UINT64_MAX);
}

uint64_t hw_lazy_group(const struct hw_lazy_map *map, uint32_t group)
{
    return atomic_load_explicit(&map->present[group], memory_order_acquire);
}

void hw_lazy_mark_group(struct hw_lazy_map *map, uint32_t group)
{
    atomic_store(&map->present[group], UINT64_MAX);
}

uint64_t hw_lazy_absent(const struct hw_lazy_map *map)
{
    uint64_t absent = 0;

    for (uint32_t group = 0; group < map->origin.group_count; group++)
        absent += (uint64_t)__builtin_popcountll(~hw_lazy_group(map, group));
    return absent;
}

uint32_t hw_lazy_next_absent(const struct hw_lazy_map *map, uint32_t group)
{
    while (group < map->origin.group_count && hw_lazy_group(map, group) == UINT64_MAX)
        group++;
    return group < map->origin.group_count ? group : UINT32_MAX;
}

/* ------------------------------------------------------------------------------------ wishes */

static bool set_bit(_Atomic uint32_t *words, uint32_t group)
{
    uint32_t bit = UINT32_C(1) << group % 32;

    return (atomic_fetch_or(&words[group / 32], bit) & bit) == 0;
}

static bool clear_bit(_Atomic uint32_t *words, uint32_t group)
{
    uint32_t bit = UINT32_C(1) << group % 32;

    return (atomic_fetch_and(&words[group / 32], ~bit) & bit) != 0;
}

bool hw_lazy_want(struct hw_lazy_map *map, uint32_t group)
{
    assert(group < map->origin.group_count);
    return set_bit(map->wanted, group);
}

void hw_lazy_unwant(struct hw_lazy_map *map, uint32_t group)
{
    (void)clear_bit(map->wanted, group); /* set or not: it is not any more */
}

uint32_t hw_lazy_next_wanted(const struct hw_lazy_map *map, uint32_t group)
{
    while (group < map->origin.group_count) {
        uint32_t word = atomic_load(&map->wanted[group / 32]) >> group % 32;

        if (word != 0) {
            group += (uint32_t)__builtin_ctz(word);
            return group < map->origin.group_count ? group : UINT32_MAX;
        }
        group += 32 - group % 32;
    }
    return UINT32_MAX;
}

void hw_lazy_refuse(struct hw_lazy_map *map, uint32_t group)
{
    (void)set_bit(map->refused, group); /* again is the same */
    hw_lazy_unwant(map, group);
}

bool hw_lazy_take_refused(struct hw_lazy_map *map, uint32_t group)
{
    return clear_bit(map->refused, group);
}
