/* The caches that this process has open: node/cache.h. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "node/cache_internal.h"

enum { NS_PER_MS = 1000000 };

static struct hw_mutex registry = HW_MUTEX_INIT; /* guards the list and the references */
static struct hw_cache *caches;

void cache_wake(struct hw_cache *cache)
{
    hw_shared_wake(cache->news);
}

void cache_problem(struct hw_cache *cache, char out[HW_ERROR_SIZE])
{
    cache_page_text(cache->page, out);
}

static uint64_t now_ns(const struct hw_cache *cache)
{
    return cache->env->ops->monotonic_ns(cache->env);
}

/* ------------------------------------------------------------------------- the database file */

static void guard_close(struct hw_cache *cache)
{
    if (cache->guard != NULL && cache->guard->pMethods != NULL) {
        (void)cache->guard->pMethods->xUnlock(cache->guard, SQLITE_LOCK_NONE);
        (void)cache->guard->pMethods->xClose(cache->guard);
    }
    hw_free(cache->guard);
    cache->guard = NULL;
    if (cache->guard_name != NULL)
        sqlite3_free_filename((char *)(uintptr_t)cache->guard_name);
    cache->guard_name = NULL;
}

/* SQLite's code does not tell it from a file that cannot be opened now. */
static bool is_missing(const struct hw_cache *cache)
{
    struct hw_file_stat stat;

    return cache->env->ops->stat(cache->env, cache->path, &stat, NULL) == HW_ENOTFOUND;
}

/* SHARED on the database, for as long as this process has the cache open. */
static enum hw_status guard_open(struct hw_cache *cache, struct hw_error *err)
{
    char *journal = hw_format("%s-journal", cache->path), *wal = hw_format("%s-wal", cache->path);
    enum hw_status status = HW_OK;
    int code;

    if (journal != NULL && wal != NULL)
        cache->guard_name = sqlite3_create_filename(cache->path, journal, wal, 0, NULL);
    hw_free(journal);
    hw_free(wal);
    cache->guard = hw_zalloc((size_t)cache->base->szOsFile);
    if (cache->guard_name == NULL || cache->guard == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to open it", cache->path);
    if (status == HW_OK) {
        code = hw_sqlite_open(cache->base, cache->guard_name, cache->guard,
                              SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, NULL);
        if (code == SQLITE_OK)
            code = cache->guard->pMethods->xLock(cache->guard, SQLITE_LOCK_SHARED);
        if ((code & 0xff) == SQLITE_BUSY)
            status = hw_fail(err, HW_AGAIN, "%s: is being made anew", cache->path);
        else if (code != SQLITE_OK)
            status = hw_fail(err, is_missing(cache) ? HW_ENOTFOUND : HW_EIO,
                             "%s: cannot be opened (SQLite code %d)", cache->path, code);
    }
    if (status != HW_OK)
        guard_close(cache);
    return status;
}

static enum hw_status need(void *ctx, uint32_t page_number, struct hw_error *err);

static void ring(void *ctx)
{
    cache_wake(ctx);
}

static enum hw_status attach_locked(struct hw_cache *cache, struct hw_error *err)
{
    uint32_t generation = atomic_load(&cache->page->generation);
    struct hw_lazy_map *map = NULL;
    enum hw_status status = hw_lazy_map_open(cache->env, cache->map_path, &map, err);

    if (status != HW_OK)
        return status;
    status = guard_open(cache, err);
    /* Who makes it anew needs EXCLUSIVE, and says so before: map and file are of one making. */
    if (status == HW_OK && generation != atomic_load(&cache->page->generation)) {
        guard_close(cache);
        status = hw_fail(err, HW_AGAIN, "%s: is being made anew", cache->path);
    }
    if (status != HW_OK) {
        hw_lazy_map_close(map);
        return status;
    }
    cache->map = map;
    cache->lazy = (struct hw_vfs_lazy){
        .path = cache->path, .map = map, .need = need, .ring = ring, .ctx = cache};
    hw_mutex_init(&cache->lazy.filling);
    hw_vfs_lazy_attach(&cache->lazy);
    atomic_store(&cache->shown, map);
    return HW_OK;
}

enum hw_status cache_attach(struct hw_cache *cache, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    hw_mutex_lock(&cache->mutex);
    if (cache->map == NULL)
        status = attach_locked(cache, err);
    hw_mutex_unlock(&cache->mutex);
    return status;
}

static void detach_locked(struct hw_cache *cache)
{
    if (cache->map == NULL)
        return;
    hw_vfs_lazy_detach(&cache->lazy);
    hw_mutex_release(&cache->lazy.filling);
    guard_close(cache);
    hw_lazy_map_close(cache->map);
    cache->map = NULL;
    atomic_store(&cache->shown, NULL);
}

void cache_detach(struct hw_cache *cache)
{
    hw_mutex_lock(&cache->mutex);
    detach_locked(cache);
    hw_mutex_unlock(&cache->mutex);
}

/* ---------------------------------------------------------------------------------- waiting */

struct wait {
    struct hw_cache *cache;
    uint64_t deadline_ns;
    uint64_t progress;
    uint64_t timeout_ns;
};

static struct wait wait_begin(struct hw_cache *cache, uint64_t timeout_ms)
{
    uint64_t timeout_ns = timeout_ms * NS_PER_MS;

    return (struct wait){.cache = cache,
                         .deadline_ns = now_ns(cache) + timeout_ns,
                         .progress = atomic_load(&cache->page->progress),
                         .timeout_ns = timeout_ns};
}

/*
 * Sleep until there is news after `seen`.  HW_ETIMEOUT: nothing came for the time; the message says
 * what is known of it.
 */
static enum hw_status wait_more(struct wait *wait, uint32_t seen, const char *what,
                                struct hw_error *err)
{
    struct hw_cache *cache = wait->cache;
    uint64_t now = now_ns(cache), progress = atomic_load(&cache->page->progress), slice;
    char why[HW_ERROR_SIZE];

    if (progress != wait->progress) {
        wait->progress = progress;
        wait->deadline_ns = now + wait->timeout_ns;
    }
    if (now >= wait->deadline_ns) {
        cache_problem(cache, why);
        return hw_fail(err, HW_ETIMEOUT,
                       "%s is not on this machine, and did not come within %llu "
                       "ms%s%s",
                       what, (unsigned long long)(wait->timeout_ns / NS_PER_MS),
                       why[0] != '\0' ? ": " : "", why);
    }
    slice = wait->deadline_ns - now;
    if (slice > (uint64_t)CACHE_SLICE_MS * NS_PER_MS)
        slice = (uint64_t)CACHE_SLICE_MS * NS_PER_MS;
    hw_shared_wait(cache->news, seen, slice);
    return HW_OK;
}

/* A page that is not there: until the filler has written its group. */
static enum hw_status need(void *ctx, uint32_t page_number, struct hw_error *err)
{
    struct hw_cache *cache = ctx;
    struct hw_lazy_map *map = cache->map; /* there as long as files of it are open */
    uint32_t group = (page_number - 1) / HW_GROUP_PAGES;
    struct wait wait = wait_begin(cache, cache->timeout_ms);
    char what[64], why[HW_ERROR_SIZE];

    (void)snprintf(what, sizeof(what), "page %u", (unsigned)page_number);
    if (!hw_lazy_has(map, page_number))
        (void)hw_lazy_take_refused(map, group); /* before anybody waited: no answer to us */
    while (!hw_lazy_has(map, page_number)) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        enum hw_status status;

        if (hw_lazy_map_is_broken(map))
            return hw_fail(err, HW_EBROKEN, "the cache does not fit its log any more");
        if (atomic_load(&cache->closing) != 0)
            return hw_fail(err, HW_EMISSING, "%s: the cache is being closed", what);
        if (hw_lazy_take_refused(map, group)) {
            cache_problem(cache, why);
            return hw_fail(err, HW_EMISSING, "%s is not on this machine, and cannot be had: %s",
                           what, why);
        }
        if (hw_lazy_want(map, group))
            cache_wake(cache);
        if (hw_lazy_has(map, page_number))
            break;
        status = wait_more(&wait, seen, what, err);
        if (status != HW_OK) {
            hw_lazy_unwant(map, group); /* who else waits for it says so again */
            return status;
        }
    }
    return HW_OK;
}

/* ------------------------------------------------------------------------ blocks of the log */

/* Who reads in order finds the next blocks under way; twice as many each time. */
static uint64_t blocks_ahead(struct cache_reader *reader, uint64_t block)
{
    bool is_next = reader->ahead_end != 0 && block > reader->last && block <= reader->ahead_end;

    reader->ahead = !is_next ? 1 : 2 * reader->ahead;
    if (reader->ahead > CACHE_REQUEST_AHEAD_MAX / 2)
        reader->ahead = CACHE_REQUEST_AHEAD_MAX / 2;
    reader->last = block;
    reader->ahead_end = block + reader->ahead;
    return reader->ahead;
}

enum hw_status cache_fetch(void *ctx, uint64_t block, struct hw_error *err)
{
    struct cache_reader *reader = ctx;
    struct hw_cache *cache = reader->cache;
    struct wait wait = wait_begin(cache, cache->timeout_ms);
    uint64_t count = blocks_ahead(reader, block), word = 0;
    unsigned slot = CACHE_REQUESTS;
    char what[64], why[HW_ERROR_SIZE];
    enum hw_status status = HW_OK;

    (void)snprintf(what, sizeof(what), "block %llu", (unsigned long long)block);
    while (status == HW_OK && !hw_core_has(reader->core, block)) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        uint64_t now = slot < CACHE_REQUESTS ? atomic_load(&cache->page->requests[slot]) : 0;

        if (atomic_load(&cache->closing) != 0)
            return hw_fail(err, HW_EMISSING, "%s: the cache is being closed", what);
        if (slot < CACHE_REQUESTS && now == (word | CACHE_REQUEST_REFUSED)) {
            bool is_online = atomic_load(&cache->page->online) != 0;

            (void)atomic_compare_exchange_strong(&cache->page->requests[slot], &now, 0);
            cache_problem(cache, why);
            return hw_fail(err, is_online ? HW_EPRUNED : HW_EMISSING,
                           "%s is not on this machine, and cannot be had: %s", what, why);
        }
        if (now != word || slot == CACHE_REQUESTS) { /* answered, or taken over by another */
            if (hw_core_has(reader->core, block))
                break;
            if (cache_request_post(cache->page, block, count, &slot, &word) == HW_OK)
                cache_wake(cache);
        }
        status = wait_more(&wait, seen, what, err);
    }
    if (status != HW_OK && slot < CACHE_REQUESTS)
        (void)atomic_compare_exchange_strong(&cache->page->requests[slot], &word, 0);
    return status;
}

static enum hw_status log_open(struct hw_cache *cache, struct hw_core **out, void **handle,
                               struct hw_error *err)
{
    struct cache_reader *reader = hw_zalloc(sizeof(*reader));
    struct hw_core_fetcher fetcher = {cache_fetch, reader};
    enum hw_status status;

    if (reader == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to read a log");
    status =
        hw_core_open(cache->env, cache->mirror_dir, HW_CORE_READ, UINT64_MAX, &reader->core, err);
    if (status != HW_OK) {
        hw_free(reader);
        return status;
    }
    reader->cache = cache;
    hw_core_set_fetcher(reader->core, &fetcher);
    *out = reader->core;
    *handle = reader;
    return HW_OK;
}

static void log_close(void *handle)
{
    struct cache_reader *reader = handle;

    if (reader == NULL)
        return;
    hw_core_close(reader->core);
    hw_free(reader);
}

/* -------------------------------------------------------------------------- open and close */

static void cache_free(struct hw_cache *cache)
{
    if (cache == NULL)
        return;
    cache_detach(cache);
    cache->env->ops->close(cache->lock);
    hw_shared_page_close(cache->news);
    cache_page_close(cache->env, cache->page);
    hw_mutex_release(&cache->mutex);
    hw_free(cache->dir);
    hw_free(cache->path);
    hw_free(cache->mirror_dir);
    hw_free(cache->map_path);
    hw_free(cache->lock_path);
    hw_free(cache->url);
    hw_free(cache->addresses);
    hw_free(cache);
}

/* `dir` is moved, and so are the addresses of `place`. */
static enum hw_status cache_new(const struct hw_vfs_remote *remote, struct hw_place *place,
                                const uint8_t key[HW_KEY_SIZE], char *dir, struct hw_cache **out,
                                struct hw_error *err)
{
    struct hw_cache *cache = hw_zalloc(sizeof(*cache));
    enum hw_status status = HW_OK;

    if (cache == NULL) {
        hw_free(dir);
        return hw_fail(err, HW_ENOMEM, "no memory to open a cache");
    }
    cache->env = hw_env_posix();
    hw_mutex_init(&cache->mutex);
    cache->base = remote->base;
    cache->vfs = remote->cache;
    cache->timeout_ms = remote->timeout_ms;
    cache->addresses = place->addresses;
    cache->address_count = place->count;
    cache->url = hw_strdup(place->urls[0]);
    for (size_t i = 0; i < place->count; i++)
        hw_free(place->urls[i]);
    place->addresses = NULL;
    place->count = 0;
    memcpy(cache->key, key, HW_KEY_SIZE);
    cache->dir = dir;
    cache->path = hw_format("%s/db", dir);
    cache->mirror_dir = hw_format("%s/db-hyper", dir);
    cache->map_path = hw_format("%s/present", dir);
    cache->lock_path = hw_format("%s/holder.lock", dir);
    if (cache->path == NULL || cache->mirror_dir == NULL || cache->map_path == NULL ||
        cache->lock_path == NULL || cache->url == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to open a cache");
    if (status == HW_OK)
        status = hw_shared_page_open(cache->env, cache->mirror_dir, true, &cache->news, err);
    if (status == HW_OK)
        status = cache_page_open(cache->env, dir, &cache->page, err);
    if (status == HW_OK)
        status = hw_thread_start(&cache->keeper, cache_keep, cache, err);
    if (status != HW_OK) {
        cache_free(cache);
        return status;
    }
    *out = cache;
    return HW_OK;
}

/* SQLite's files go by full paths, without symbolic links on the way. */
static enum hw_status full_path(sqlite3_vfs *base, char **dir, struct hw_error *err)
{
    size_t size = (size_t)base->mxPathname + 1;
    char *full = hw_zalloc(size);
    int code;

    if (full == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    code = base->xFullPathname(base, *dir, (int)size, full);
    if ((code & 0xff) != SQLITE_OK) {
        hw_free(full);
        return hw_fail(err, HW_EIO, "%s: no full path (SQLite code %d)", *dir, code);
    }
    hw_free(*dir);
    *dir = full;
    return HW_OK;
}

/* What went wrong before an opening is none of its business. */
struct opening {
    struct hw_cache *cache; /* one reference */
    uint32_t failures;      /* of this process, that were there already */
};

static uint32_t failures(struct hw_cache *cache)
{
    uint32_t count;

    hw_mutex_lock(&cache->mutex);
    count = cache->failures;
    hw_mutex_unlock(&cache->mutex);
    return count;
}

/* In the list, or made; with one reference more. */
static enum hw_status cache_take(const struct hw_vfs_remote *remote, struct hw_place *place,
                                 const uint8_t key[HW_KEY_SIZE], char *dir, struct opening *out,
                                 struct hw_error *err)
{
    struct hw_cache *cache;
    enum hw_status status = HW_OK;

    hw_mutex_lock(&registry);
    for (cache = caches; cache != NULL; cache = cache->next)
        if (strcmp(cache->dir, dir) == 0 && cache->base == remote->base)
            break;
    out->failures = 0;
    if (cache != NULL) {
        hw_free(dir);
        out->failures = failures(cache);
    } else {
        status = cache_new(remote, place, key, dir, &cache, err);
        if (status == HW_OK) {
            cache->next = caches;
            caches = cache;
        }
    }
    if (status == HW_OK) {
        cache->references++;
        out->cache = cache;
    }
    hw_mutex_unlock(&registry);
    return status;
}

static void cache_close(struct hw_cache *cache)
{
    bool is_last;

    if (cache == NULL)
        return;
    hw_mutex_lock(&registry);
    is_last = --cache->references == 0;
    for (struct hw_cache **at = &caches; is_last && *at != NULL; at = &(*at)->next) {
        if (*at == cache) {
            *at = cache->next;
            break;
        }
    }
    hw_mutex_unlock(&registry);
    if (!is_last)
        return;
    atomic_store(&cache->closing, 1);
    cache_wake(cache);
    /* Nothing else ends that wait; anywhere else it would be ended in the middle of something. */
    if (atomic_load(&cache->waiting) != 0)
        hw_thread_interrupt(&cache->keeper);
    hw_thread_join(&cache->keeper);
    cache_free(cache);
}

/* This process could not begin to hold since then: HW_AGAIN if it could, or has not tried. */
static enum hw_status failed_since(const struct opening *opening, struct hw_error *err)
{
    struct hw_cache *cache = opening->cache;
    enum hw_status status = HW_AGAIN;

    hw_mutex_lock(&cache->mutex);
    if (cache->failures != opening->failures) {
        status = cache->failure.status;
        if (err != NULL)
            *err = cache->failure;
    }
    hw_mutex_unlock(&cache->mutex);
    return status;
}

/* Until the log, or the database, can be opened. */
static enum hw_status await(const struct opening *opening, const struct hw_vfs_remote *remote,
                            struct hw_error *err)
{
    struct hw_cache *cache = opening->cache;
    uint32_t failures_of_all = atomic_load(&cache->page->failures);
    struct wait wait = wait_begin(cache, remote->timeout_ms);
    enum hw_status status = HW_AGAIN;

    while (status == HW_AGAIN) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        uint32_t phase = atomic_load(&cache->page->phase);

        if (remote->past && phase >= CACHE_LOG)
            return HW_OK;
        if (phase == CACHE_LIVE) {
            status = cache_attach(cache, err);
            if (status == HW_ENOTFOUND) /* of a holder that is dead: the next one makes it anew */
                status = HW_AGAIN;
            if (status != HW_AGAIN)
                return status;
        }
        status = failed_since(opening, err);
        if (status == HW_AGAIN && failures_of_all != atomic_load(&cache->page->failures)) {
            char why[HW_ERROR_SIZE];

            cache_problem(cache, why);
            status = hw_fail(err, HW_ETIMEOUT, "%s", why);
        }
        if (status == HW_AGAIN) {
            status = wait_more(&wait, seen, "the database", err);
            status = status == HW_OK ? HW_AGAIN : status;
        }
    }
    return status;
}

/* One reference of the cache of `place`, before it is known whether it can be used. */
static enum hw_status cache_find(const struct hw_vfs_remote *remote, const char *root,
                                 struct hw_place *place, struct opening *out, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    uint8_t key[HW_KEY_SIZE];
    char *dir = NULL;
    enum hw_status status =
        cache_resolve(env, root, remote->name, place, remote->creates, key, err);

    if (status == HW_OK)
        status = cache_dir_make(env, root, key, &dir, err);
    if (status == HW_OK)
        status = full_path(remote->base, &dir, err);
    if (status == HW_OK) {
        status = cache_take(remote, place, key, dir, out, err);
        dir = NULL;
    }
    hw_free(dir);
    return status;
}

static enum hw_status open_once(const struct hw_vfs_remote *remote, const char *root,
                                struct hw_cache **out, struct hw_error *err)
{
    struct opening opening = {0};
    struct hw_place place = {0};
    enum hw_status status = hw_place_find(hw_env_posix(), remote->name, &place, err);

    if (status == HW_OK && (!place.is_remote || place.count > HW_HUB_SOURCES_MAX))
        status = hw_fail(err, HW_EMISUSE, "%s: no database elsewhere", remote->name);
    for (size_t i = 0; status == HW_OK && remote->server != NULL && i < place.count; i++) {
        place.addresses[i].has_server = true;
        memcpy(place.addresses[i].server, remote->server, HW_KEY_SIZE);
    }
    if (status == HW_OK)
        status = cache_find(remote, root, &place, &opening, err);
    hw_place_release(&place);
    if (status != HW_OK)
        return status;
    if (!remote->past)
        atomic_store(&opening.cache->page->live, 1);
    if (remote->hydrate)
        atomic_store(&opening.cache->page->hydrate, 1);
    cache_wake(opening.cache);
    status = await(&opening, remote, err);
    if (status != HW_OK) {
        cache_close(opening.cache);
        return status;
    }
    *out = opening.cache;
    return HW_OK;
}

static enum hw_status cache_open(const struct hw_vfs_remote *remote, struct hw_cache **out,
                                 struct hw_error *err)
{
    enum { TRIES = 3 };
    char *root = NULL;
    enum hw_status status = cache_root(hw_env_posix(), &root, err);

    if (status != HW_OK)
        return status;
    status = HW_EBROKEN; /* somebody may remove it, for room, just when it is opened */
    for (int i = 0; i < TRIES && status == HW_EBROKEN; i++)
        status = open_once(remote, root, out, err);
    if (status == HW_OK)
        cache_bound(hw_env_posix(), root, remote->cache_max);
    hw_free(root);
    return status;
}

/* ----------------------------------------------------------------------------------- state */

/* Names that begin so are none of a file's: xFullPathname has seen to that. */
static bool is_remote(const char *name)
{
    return strncmp(name, "hyper:", 6) == 0 || hw_address_is_remote(name);
}

static enum hw_status locate(const char *name, char **path, struct hw_error *err)
{
    struct hw_place place = {0};
    enum hw_status status;

    *path = NULL;
    if (hw_address_is_remote(name))
        return HW_OK;
    status = hw_place_find(hw_env_posix(), name, &place, err);
    if (status != HW_OK)
        return status;
    *path = place.path;
    place.path = NULL;
    hw_place_release(&place);
    return HW_OK;
}

static const char *cache_path(const struct hw_cache *cache)
{
    return cache->path;
}

static void cache_status(struct hw_cache *cache, struct hw_cache_status *out)
{
    struct cache_page *page = cache->page;
    struct hw_lazy_map *map = atomic_load(&cache->shown);
    struct hw_replica_info info;
    char problem[HW_ERROR_SIZE];

    *out = (struct hw_cache_status){
        .is_online = atomic_load(&page->online) != 0,
        .length = atomic_load(&page->length),
        .seq = hw_shared_applied_seq(cache->news),
        .bytes_received = atomic_load(&page->received),
        .holder = atomic_load(&page->holder),
    };
    memcpy(out->key, cache->key, HW_KEY_SIZE);
    (void)snprintf(out->source, sizeof(out->source), "%s", cache->url);
    cache_problem(cache, problem);
    (void)snprintf(out->problem, sizeof(out->problem), "%.255s", problem);
    if (map != NULL && hw_replica_info(cache->env, cache->path, &info, NULL) == HW_OK) {
        uint64_t absent = hw_lazy_absent(map); /* the last group has places beyond the database */

        out->page_size = hw_lazy_map_origin(map).page_size;
        out->pages = info.page_count;
        out->pages_present = absent < out->pages ? out->pages - absent : 0;
    }
}

static enum hw_status cache_wait(struct hw_cache *cache, uint64_t seq, uint64_t timeout_ms,
                                 struct hw_error *err)
{
    uint64_t deadline = now_ns(cache) + timeout_ms * NS_PER_MS;

    for (;;) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        uint64_t applied = hw_shared_applied_seq(cache->news), now = now_ns(cache), slice;

        if (applied != UINT64_MAX && applied >= seq)
            return HW_OK;
        if (now >= deadline)
            return hw_fail(err, HW_ETIMEOUT, "seq %llu is not here yet, the cache is at %lld",
                           (unsigned long long)seq,
                           applied == UINT64_MAX ? -1LL : (long long)applied);
        slice = deadline - now;
        if (slice > (uint64_t)CACHE_SLICE_MS * NS_PER_MS)
            slice = (uint64_t)CACHE_SLICE_MS * NS_PER_MS;
        hw_shared_wait(cache->news, seen, slice);
    }
}

/* Nothing of a parent's caches is the child's: what they hold is lost to it. */
static void cache_forked(void)
{
    hw_mutex_init(&registry);
    caches = NULL;
    hw_hub_process_forked();
}

const struct hw_vfs_remotes *hw_cache_remotes(void)
{
    static const struct hw_vfs_remotes remotes = {
        .is_remote = is_remote,
        .locate = locate,
        .open = cache_open,
        .close = cache_close,
        .path = cache_path,
        .status = cache_status,
        .wait = cache_wait,
        .log = log_open,
        .log_close = log_close,
        .write_begin = cache_commit_begin,
        .commit = cache_commit_send,
        .write_end = cache_commit_end,
        .outcome = cache_commit_outcome,
        .forked = cache_forked,
    };

    return &remotes;
}
