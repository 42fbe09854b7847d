/*
 * Caches that were not used for longest are removed when all together take more than they may:
 * node/cache.h.  One that somebody has open is not: its holder has the lock.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "node/cache_internal.h"

#define BYTES_DEFAULT (UINT64_C(10) << 30)
enum { CACHES_MAX = 1024 }; /* looked at; more are looked at when some of these are gone */

struct found {
    char *dir; /* owned */
    uint64_t bytes;
    int64_t used_ns;
};

struct walk {
    struct hw_env *env;
    const char *dir;
    uint64_t bytes; /* of files */
    struct found *found;
    size_t count;
};

/* ----------------------------------------------------------------------------- what there is */

static bool add_bytes(void *ctx, const char *name)
{
    struct walk *walk = ctx;
    struct hw_file_stat stat;
    char *path = hw_format("%s/%s", walk->dir, name);

    if (path != NULL && walk->env->ops->stat(walk->env, path, &stat, NULL) == HW_OK &&
        !stat.is_directory)
        walk->bytes += stat.allocated;
    hw_free(path);
    return true;
}

static uint64_t bytes_in(struct hw_env *env, const char *dir, const char *name)
{
    char *path = hw_format("%s%s", dir, name);
    struct walk walk = {.env = env, .dir = path};

    if (path != NULL)
        (void)env->ops->list(env, path, add_bytes, &walk, NULL); /* one that is gone has none */
    hw_free(path);
    return walk.bytes;
}

static bool is_key(const char *name)
{
    return strlen(name) == 2 * (size_t)HW_KEY_SIZE &&
           strspn(name, "0123456789abcdef") == 2 * (size_t)HW_KEY_SIZE;
}

static bool add_cache(void *ctx, const char *name)
{
    struct walk *walk = ctx;
    struct hw_file_stat stat;
    char *dir, *lock;

    if (!is_key(name))
        return true;
    dir = hw_format("%s/%s", walk->dir, name);
    lock = hw_format("%s/%s/holder.lock", walk->dir, name);
    if (dir != NULL && lock != NULL &&
        walk->env->ops->stat(walk->env, lock, &stat, NULL) == HW_OK) {
        struct found *one = &walk->found[walk->count++];

        one->dir = dir;
        one->used_ns = stat.modified_ns;
        one->bytes = bytes_in(walk->env, dir, "") + bytes_in(walk->env, dir, "/db-hyper");
        walk->bytes += one->bytes;
        dir = NULL;
    }
    hw_free(dir);
    hw_free(lock);
    return walk->count < CACHES_MAX;
}

static int by_use(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    return x->used_ns < y->used_ns ? -1 : x->used_ns > y->used_ns;
}

/* -------------------------------------------------------------------------------- removing */

static bool remove_one(void *ctx, const char *name)
{
    struct walk *walk = ctx;
    char *path = hw_format("%s/%s", walk->dir, name);

    if (path != NULL && strcmp(name, "holder.lock") != 0)
        (void)walk->env->ops->remove(walk->env, path, NULL); /* directories stay */
    hw_free(path);
    return true;
}

static void remove_in(struct hw_env *env, const char *dir)
{
    struct walk walk = {.env = env, .dir = dir};

    (void)env->ops->list(env, dir, remove_one, &walk, NULL); /* what stays is found again */
}

/* HW_EBUSY: somebody has it open. */
static enum hw_status remove_cache(struct hw_env *env, const char *dir)
{
    char *lock_path = hw_format("%s/holder.lock", dir), *mirror = hw_format("%s/db-hyper", dir);
    struct hw_file *lock = NULL;
    enum hw_status status = HW_ENOMEM;

    if (lock_path != NULL && mirror != NULL)
        status = env->ops->open(env, lock_path,
                                HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK, &lock, NULL);
    if (status == HW_OK)
        status = env->ops->lock(lock, false, NULL);
    if (status == HW_OK) {
        char *map = hw_format("%s/present", dir);

        if (map != NULL)
            (void)env->ops->remove(env, map, NULL); /* first: see apply/lazy.h */
        hw_free(map);
        remove_in(env, mirror);
        (void)env->ops->remove_dir(env, mirror, NULL);
        remove_in(env, dir);
        /* Who waits for the lock sees that the file has no name any more. */
        (void)env->ops->remove(env, lock_path, NULL);
        (void)env->ops->remove_dir(env, dir, NULL);
    }
    env->ops->close(lock);
    hw_free(lock_path);
    hw_free(mirror);
    return status;
}

static uint64_t limit(uint64_t asked)
{
    const char *text = getenv("HYPERWAL_CACHE_MAX");
    char *end = NULL;
    unsigned long long value;

    if (asked != 0 || text == NULL || text[0] < '0' || text[0] > '9')
        return asked != 0 ? asked : BYTES_DEFAULT;
    value = strtoull(text, &end, 10);
    return *end == '\0' && value != 0 ? value : BYTES_DEFAULT;
}

void cache_bound(struct hw_env *env, const char *root, uint64_t max)
{
    struct walk walk = {.env = env, .dir = root};

    max = limit(max);
    walk.found = hw_alloc(CACHES_MAX * sizeof(*walk.found));
    if (walk.found == NULL)
        return; /* the next opening looks again */
    (void)env->ops->list(env, root, add_cache, &walk, NULL);
    qsort(walk.found, walk.count, sizeof(*walk.found), by_use);
    for (size_t i = 0; i < walk.count; i++) {
        struct found *one = &walk.found[i];

        if (walk.bytes > max && remove_cache(env, one->dir) == HW_OK) {
            walk.bytes -= one->bytes;
            hw_env_log(env, HW_LOG_INFO, "event=cache_removed dir=%s bytes=%llu", one->dir,
                       (unsigned long long)one->bytes);
        }
        hw_free(one->dir);
    }
    hw_free(walk.found);
}
