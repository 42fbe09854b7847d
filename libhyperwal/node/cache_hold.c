/*
 * The thread that is the holder of a cache, or waits to be (node/cache.h): it opens the mirror,
 * starts the filler, makes the database if there is none, and applies what comes.
 */
#include <string.h>

#include "base/alloc.h"
#include "node/cache_internal.h"
#include "wire/peer.h"

enum {
    NS_PER_MS = 1000000,
    FRESH_MS = 2000, /* for a source to say what is new, where an old state is there */
    RETRY_MS = 1000, /* after a failure */
    READERS_MS = 2,  /* until old readers are asked again to leave the WAL */
    /* That a block is not to be had from who is there, before it is an error: longer than it takes
     * to find out that a silent one is not there. */
    ABSENT_MS = HW_PEER_SILENCE_MS + 15000,
};

struct cache_hold {
    struct hw_cache *cache;          /* borrowed */
    struct hw_hub *hub;              /* borrowed from the process's node */
    struct hw_mirror *mirror;        /* owned */
    struct cache_filler *filler;     /* owned */
    struct cache_reader reader;      /* its core is owned */
    struct hw_replica *replica;      /* owned; NULL: nobody wants the database yet */
    struct hw_lazy_entries *entries; /* owned: what it has to read of the log */
    uint64_t absent_ns; /* since when a block is not to be had from who is there; 0: no */
};

static uint64_t now_ns(const struct hw_cache *cache)
{
    return cache->env->ops->monotonic_ns(cache->env);
}

static bool goes_on(const struct cache_hold *hold)
{
    const struct cache_page *page = hold->cache->page;
    uint32_t yield = atomic_load(&page->yield);

    if (cache_write_state(hold->cache) >= CACHE_WRITE_GIVEN)
        return true; /* a connection is in the middle of it */
    return atomic_load(&hold->cache->closing) == 0 &&
           (yield == 0 || yield == atomic_load(&page->holder) ||
            atomic_load(&hold->cache->writers) != 0 ||
            now_ns(hold->cache) < atomic_load(&hold->cache->wish_ns));
}

/* Until the role goes to another process that wants it: nothing else tells when that is. */
static uint64_t until_wish_ends(const struct cache_hold *hold)
{
    uint64_t now = now_ns(hold->cache), end = atomic_load(&hold->cache->wish_ns);

    return end > now ? end - now : UINT64_MAX;
}

static void set_phase(struct hw_cache *cache, enum cache_phase phase)
{
    atomic_store(&cache->page->phase, (uint32_t)phase);
    cache_wake(cache);
}

/* ---------------------------------------------------------------------------------- the log */

/* Where nothing is known the length is waited for; else, shortly, what is new. */
static enum hw_status log_await(struct cache_hold *hold, struct hw_error *err)
{
    uint64_t begin = now_ns(hold->cache);

    while (goes_on(hold)) {
        struct hw_mirror_status now;
        uint64_t waited_ms = (now_ns(hold->cache) - begin) / NS_PER_MS;
        enum hw_status status;

        hw_mirror_status(hold->mirror, &now);
        if (now.length > 0 && now.connected > 0 && now.length >= now.remote_length &&
            now.remote_length > 0)
            return HW_OK;
        if (now.length > 0 && (waited_ms >= FRESH_MS || now.has_failed))
            return HW_OK;
        if (waited_ms >= CACHE_CONNECT_MS)
            return hw_fail(err, HW_ETIMEOUT, "%s: nobody gives the log: %s", hold->cache->url,
                           now.problem[0] != '\0' ? now.problem : "no source answers");
        status = hw_mirror_wait_length(hold->mirror, now.length + 1, 20, err);
        if (status != HW_OK && status != HW_ETIMEOUT && status != HW_AGAIN)
            return status;
    }
    return hw_fail(err, HW_AGAIN, "the cache is being closed");
}

static enum hw_status log_open(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    struct hw_mirror_options options = {.dir = cache->mirror_dir,
                                        .sources = cache->addresses,
                                        .source_count = cache->address_count};
    struct hw_core_fetcher fetcher = {cache_fetch, &hold->reader};
    enum hw_status status = hw_hub_borrow(&hold->hub, err);

    memcpy(options.key, cache->key, HW_KEY_SIZE);
    if (status == HW_OK)
        status = hw_hub_mirror_open(hold->hub, &options, &hold->mirror, err);
    if (status == HW_OK)
        status = hw_core_open(cache->env, cache->mirror_dir, HW_CORE_READ, UINT64_MAX,
                              &hold->reader.core, err);
    if (status != HW_OK)
        return status;
    hold->reader.cache = cache;
    hw_core_set_fetcher(hold->reader.core, &fetcher);
    status = cache_filler_start(cache, hold->mirror, &hold->filler, err);
    if (status == HW_OK)
        status = log_await(hold, err);
    return status;
}

/* ---------------------------------------------------------------------------- the database */

static void want_range(void *ctx, uint64_t start, uint64_t end)
{
    struct cache_hold *hold = ctx;

    (void)!hw_mirror_want(hold->mirror, start, end, NULL); /* fetched one by one otherwise */
}

static enum hw_status make(void *ctx, const char *path, struct hw_state *reached,
                           struct hw_error *err)
{
    struct cache_hold *hold = ctx;
    struct hw_cache *cache = hold->cache;
    enum hw_status status = hw_lazy_build(cache->env, hold->reader.core, path, cache->map_path,
                                          want_range, hold, reached, err);

    return status == HW_OK ? cache_attach(cache, err) : status;
}

static enum hw_status remove_file(struct hw_cache *cache, const char *path, struct hw_error *err)
{
    enum hw_status status = cache->env->ops->remove(cache->env, path, err);

    return status == HW_ENOTFOUND ? HW_OK : status;
}

static enum hw_status remove_files(struct hw_cache *cache, struct hw_error *err)
{
    /* The last two say of which fork it was, and what its WAL meant. */
    static const char *const suffixes[] = {"",         "-wal",           "-shm",
                                           "-journal", "-hyper/replica", "-hyper/position"};
    enum hw_status status = remove_file(cache, cache->map_path, err); /* first: see lazy.h */

    for (size_t i = 0; status == HW_OK && i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char *path = hw_format("%s%s", cache->path, suffixes[i]);

        status = path == NULL ? hw_fail(err, HW_ENOMEM, "no memory for a path")
                              : remove_file(cache, path, err);
        hw_free(path);
    }
    return status;
}

/*
 * Take the old database away, which nobody may have open: EXCLUSIVE tells.  Who opens it just now
 * sees by the generation that his map and his file are of different makings.
 */
static enum hw_status remove_old(struct hw_cache *cache, struct hw_error *err)
{
    sqlite3_file *file = hw_zalloc((size_t)cache->base->szOsFile); /* owned */
    const char *name = NULL;
    char *journal = hw_format("%s-journal", cache->path), *wal = hw_format("%s-wal", cache->path);
    struct hw_file_stat stat;
    enum hw_status status = HW_OK;
    int code = SQLITE_OK;

    if (journal != NULL && wal != NULL)
        name = sqlite3_create_filename(cache->path, journal, wal, 0, NULL);
    if (file == NULL || name == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to open it", cache->path);
        goto done;
    }
    status = cache->env->ops->stat(cache->env, cache->path, &stat, err);
    if (status == HW_OK)
        code = hw_sqlite_open(cache->base, name, file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE,
                              NULL);
    else if (status != HW_ENOTFOUND)
        goto done; /* it may be there, and open */
    if (code == SQLITE_OK && file->pMethods != NULL)
        code = file->pMethods->xLock(file, SQLITE_LOCK_SHARED);
    if (code == SQLITE_OK && file->pMethods != NULL)
        code = file->pMethods->xLock(file, SQLITE_LOCK_EXCLUSIVE);
    if (code != SQLITE_OK) {
        status = hw_fail(err, (code & 0xff) == SQLITE_BUSY ? HW_EBUSY : HW_EIO,
                         "the cache does not fit its log any more, and is open: close all "
                         "connections to it and open it again");
        goto done;
    }
    atomic_fetch_add(&cache->page->generation, 1);
    status = remove_files(cache, err);
done:
    if (file != NULL && file->pMethods != NULL) {
        (void)file->pMethods->xUnlock(file, SQLITE_LOCK_NONE);
        (void)file->pMethods->xClose(file);
    }
    if (name != NULL)
        sqlite3_free_filename((char *)(uintptr_t)name);
    hw_free(file);
    hw_free(journal);
    hw_free(wal);
    return status;
}

/* What is there is nothing to go on with, however often it is looked at. */
static bool is_unfit(enum hw_status status)
{
    return status == HW_ENOTFOUND || status == HW_ECORRUPT || status == HW_EFORK ||
           status == HW_EVERSION || status == HW_ELIMIT;
}

/*
 * Go on with the database that is there, before anybody uses it.  Only one that is_unfit() is made
 * anew: another failure tells nothing of it, and must not cost all the pages that were fetched.
 */
static enum hw_status take_up(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    struct hw_lazy_map *map = NULL;
    struct hw_lazy_origin origin;
    struct hw_replica_info info;
    struct hw_mirror_status now;
    enum hw_status status = hw_lazy_map_open(cache->env, cache->map_path, &map, err);

    if (status != HW_OK)
        return status;
    origin = hw_lazy_map_origin(map);
    hw_lazy_map_close(map);
    if (memcmp(origin.key, cache->key, HW_KEY_SIZE) != 0 ||
        origin.fork != hw_core_head(hold->reader.core).fork)
        return hw_fail(err, HW_EFORK, "%s: a cache of another log", cache->path);
    status = hw_replica_info(cache->env, cache->path, &info, err);
    if (status == HW_OK && info.seq == UINT64_MAX)
        status = hw_fail(err, HW_ENOTFOUND, "%s: nothing is in it yet", cache->path);
    if (status != HW_OK)
        return status;
    hw_mirror_status(hold->mirror, &now);
    if (now.connected != 0 && hold->entries != NULL && hw_lazy_is_outdated(hold->entries, info.seq))
        return hw_fail(err, HW_ENOTFOUND, "%s: too old to go on with", cache->path);
    status = cache_attach(cache, err);
    return status == HW_AGAIN
               ? hw_fail(err, HW_EBUSY, "%s: another process has it locked", cache->path)
               : status;
}

static enum hw_status replica_open(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;

    return hw_replica_open_lazy(cache->env, cache->vfs, hold->reader.core, cache->path, make, hold,
                                &hold->replica, err);
}

/* The filler must not look at a map that goes: it ends, and begins with the new one. */
static enum hw_status remake(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    enum hw_status status;

    cache_filler_stop(hold->filler);
    hold->filler = NULL;
    cache_detach(cache);
    status = remove_old(cache, err);
    if (status == HW_OK)
        status = cache_filler_start(cache, hold->mirror, &hold->filler, err);
    return status == HW_OK ? replica_open(hold, err) : status;
}

/* Out of reach the end of the log may be unknown: then all that is here is read. */
static enum hw_status entries_open(struct cache_hold *hold, struct hw_error *err)
{
    enum hw_status status = hw_lazy_entries_open(hold->reader.core, &hold->entries, err);

    return status == HW_EMISSING ? HW_OK : status;
}

/*
 * The entries that there are, but not the groups between them, and everything that comes.  A
 * snapshot that is made from now on comes as well, in so far as it differs.
 */
static void follow_from(struct cache_hold *hold, uint64_t seq)
{
    uint64_t length = hw_core_length(hold->reader.core);

    if (hold->entries != NULL) {
        hw_lazy_entries_tell(hold->entries, seq, length, want_range, hold);
        hw_replica_set_skip(hold->replica, hw_lazy_entries_skip, hold->entries);
    }
    hw_mirror_want_tail(hold->mirror, hold->entries != NULL ? length : seq);
}

static enum hw_status live_begin(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    enum hw_status status = hw_core_refresh(hold->reader.core, UINT64_MAX, err);
    bool is_used = atomic_load(&cache->shown) != NULL; /* taken over: connections are open */
    bool fits;

    if (status == HW_OK)
        status = entries_open(hold, err);
    if (status != HW_OK)
        return status;
    if (!is_used)
        status = take_up(hold, err);
    fits = !is_unfit(status);
    if (status == HW_OK)
        status = hw_lazy_map_begin(cache->map, err);
    if (status == HW_OK)
        status = replica_open(hold, err);
    if (!is_used && (!fits || status == HW_ECORRUPT || status == HW_EFORK))
        status = remake(hold, err);
    if (status == HW_OK && hw_replica_seq(hold->replica) == UINT64_MAX) {
        hw_replica_close(hold->replica);
        hold->replica = NULL;
        status = HW_END;
    }
    if (status == HW_END)
        status = hw_fail(err, HW_ENOTFOUND, "%s: the database is empty yet", cache->url);
    if (status != HW_OK)
        return status;
    follow_from(hold, hw_replica_seq(hold->replica) + 1);
    cache_mirror_lend(cache, hold->mirror);
    set_phase(cache, CACHE_LIVE);
    return HW_OK;
}

/* -------------------------------------------------------------------------------- applying */

/* Time counts, and not tries: whatever is new, or wanted, brings the next one. */
static bool is_absent_for_long(struct cache_hold *hold)
{
    uint64_t now = now_ns(hold->cache);

    if (hold->absent_ns == 0)
        hold->absent_ns = now;
    return now - hold->absent_ns >= (uint64_t)ABSENT_MS * NS_PER_MS;
}

/*
 * Apply what there is.  *wait_ns: until to look again, if nothing comes.  A failure is for good:
 * the state that readers see does not go on.
 */
static enum hw_status apply(struct cache_hold *hold, uint64_t *wait_ns, struct hw_error *err)
{
    enum hw_status status = hw_core_refresh(hold->reader.core, UINT64_MAX, err);

    while (status == HW_OK && goes_on(hold)) {
        status = hw_replica_step(hold->replica, err);
        if (cache_write_state(hold->cache) == CACHE_WRITE_ASKED)
            break; /* it may be enough for who asks */
    }
    *wait_ns = UINT64_MAX;
    if (status == HW_AGAIN)
        *wait_ns = (uint64_t)READERS_MS * NS_PER_MS;
    if (status != HW_EPRUNED)
        hold->absent_ns = 0;
    if (status >= 0)
        return HW_OK;
    /* What is not here comes with the next source, or when this one is back. */
    if (status == HW_EMISSING || status == HW_ETIMEOUT ||
        (status == HW_EPRUNED && !is_absent_for_long(hold)) || status == HW_ENOSPC ||
        status == HW_ENOMEM) {
        *wait_ns = (uint64_t)RETRY_MS * NS_PER_MS;
        cache_page_set_text(hold->cache->page, err->message);
        return HW_OK;
    }
    return status;
}

static enum hw_status write_step(struct cache_hold *hold, bool *stands_still, struct hw_error *err)
{
    struct hw_error failure = {0};

    *stands_still = cache_write_step(hold->cache, hold->replica, &failure);
    if (failure.status < 0)
        *err = failure;
    return failure.status;
}

/* While a connection of this process writes, nothing is applied. */
static enum hw_status write_or_apply(struct cache_hold *hold, uint64_t *wait_ns,
                                     struct hw_error *err)
{
    bool stands_still = false;
    enum hw_status status = write_step(hold, &stands_still, err);

    if (status == HW_OK && !stands_still)
        status = apply(hold, wait_ns, err);
    if (status == HW_OK && !stands_still) /* it may be enough now for who asked */
        status = write_step(hold, &stands_still, err);
    if (stands_still)
        *wait_ns = cache_write_state(hold->cache) == CACHE_WRITE_ENDED
                       ? (uint64_t)READERS_MS * NS_PER_MS
                       : UINT64_MAX;
    return status;
}

static enum hw_status work(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    enum hw_status status = HW_OK;

    while (status == HW_OK && goes_on(hold)) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        uint64_t wait_ns = UINT64_MAX;

        if (hold->replica == NULL && atomic_load(&cache->page->live) != 0)
            status = live_begin(hold, err);
        if (status == HW_OK && hold->replica != NULL)
            status = write_or_apply(hold, &wait_ns, err);
        if (wait_ns > until_wish_ends(hold))
            wait_ns = until_wish_ends(hold);
        if (status == HW_OK && goes_on(hold))
            hw_shared_wait(cache->news, seen, wait_ns);
    }
    if (status == HW_ECORRUPT || status == HW_EFORK || status == HW_EPRUNED) {
        struct hw_lazy_map *map = atomic_load(&cache->shown);

        hw_env_log(cache->env, HW_LOG_ERROR, "event=cache_broken dir=%s reason=\"%s\"", cache->dir,
                   err->message);
        if (map != NULL && hold->replica != NULL)
            hw_lazy_map_break(map); /* readers get an error, and the next opening makes it anew */
    }
    return status == HW_AGAIN ? HW_OK : status;
}

/* ---------------------------------------------------------------------------- begin and end */

/* Whether what was filled and applied is good after the next boot. */
static void settle(struct cache_hold *hold)
{
    struct hw_cache *cache = hold->cache;
    struct hw_error err = {0};
    int code;

    hw_replica_close(hold->replica); /* copies the WAL into the file, and syncs it */
    hold->replica = NULL;
    if (cache->map == NULL)
        return;
    code = cache->guard->pMethods->xSync(cache->guard, SQLITE_SYNC_NORMAL);
    if (code == SQLITE_OK && cache->env->ops->sync_dir(cache->env, cache->dir, &err) == HW_OK &&
        hw_lazy_map_end(cache->map, &err) == HW_OK)
        return;
    hw_env_log(cache->env, HW_LOG_WARN, "event=cache_unsettled dir=%s reason=\"%s\"", cache->dir,
               code == SQLITE_OK ? err.message : sqlite3_errstr(code));
}

static enum hw_status hold_begin(struct cache_hold *hold, struct hw_error *err)
{
    struct hw_cache *cache = hold->cache;
    enum hw_status status;

    atomic_store(&cache->page->holder, cache->env->ops->process_id(cache->env));
    atomic_store(&cache->page->yield, 0);
    atomic_store(&cache->page->writing, 0); /* of one that died */
    set_phase(cache, CACHE_STARTING);
    status = log_open(hold, err);
    if (status == HW_OK)
        set_phase(cache, CACHE_LOG);
    return status;
}

static void hold_end(struct cache_hold *hold)
{
    struct hw_cache *cache = hold->cache;

    atomic_store(&cache->page->phase, (uint32_t)CACHE_NOBODY);
    cache_mirror_lend(cache, NULL);
    cache_filler_stop(hold->filler);
    if (hold->replica != NULL)
        settle(hold);
    hw_lazy_entries_close(hold->entries);
    hw_core_close(hold->reader.core);
    hw_hub_mirror_close(hold->mirror);
    hw_hub_give_back(hold->hub);
    atomic_store(&cache->page->holder, 0);
    atomic_store(&cache->page->online, 0);
    cache_wake(cache);
}

static void fail_all(struct hw_cache *cache, enum hw_status status, const struct hw_error *err)
{
    hw_mutex_lock(&cache->mutex);
    cache->failure = *err;
    cache->failure.status = status;
    cache->failures++;
    hw_mutex_unlock(&cache->mutex);
    cache_page_set_text(cache->page, err->message);
    atomic_fetch_add(&cache->page->failures, 1);
    cache_wake(cache);
}

static void pause_after_failure(struct hw_cache *cache)
{
    uint64_t end = now_ns(cache) + (uint64_t)RETRY_MS * NS_PER_MS;

    for (;;) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        uint64_t now = now_ns(cache);

        if (now >= end || atomic_load(&cache->closing) != 0)
            break;
        hw_shared_wait(cache->news, seen, end - now);
    }
}

/* HW_EBROKEN: it has its name no more. */
static enum hw_status check_named(struct hw_cache *cache, struct hw_file *file,
                                  struct hw_error *err)
{
    struct hw_file_stat own, named;
    const struct hw_env_ops *ops = cache->env->ops;
    enum hw_status status = ops->stat_file(file, &own, err);

    if (status == HW_OK)
        status = ops->stat(cache->env, cache->lock_path, &named, err);
    if (status == HW_ENOTFOUND ||
        (status == HW_OK && (own.inode != named.inode || own.device != named.device)))
        return hw_fail(err, HW_EBROKEN, "%s: the cache was removed", cache->dir);
    return status;
}

/* One tenure, with the lock. */
static enum hw_status tenure(struct hw_cache *cache, struct hw_error *err)
{
    struct cache_hold hold = {.cache = cache};
    enum hw_status status = hold_begin(&hold, err);

    if (status == HW_OK)
        status = work(&hold, err);
    hold_end(&hold);
    return status == HW_AGAIN ? HW_OK : status;
}

/* The time of its last change tells when the cache was used last. */
static void mark_used(struct hw_file *lock)
{
    (void)lock->env->ops->write_at(lock, 0, "used\n", 5, NULL); /* else it goes a little sooner */
}

/*
 * The lock of `holder.lock`.  Who closes the cache looks at `waiting` after it has said so in
 * `closing`, and the other way round here: a thread that is interrupted waits for the lock, or has
 * just got it and goes no further.
 */
static enum hw_status lock_take(struct hw_cache *cache, struct hw_error *err)
{
    const struct hw_env_ops *ops = cache->env->ops;
    enum hw_status status = ops->open(
        cache->env, cache->lock_path,
        HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK, &cache->lock, err);

    if (status != HW_OK)
        return status;
    atomic_store(&cache->waiting, 1);
    status = atomic_load(&cache->closing) == 0 ? ops->lock(cache->lock, true, err) : HW_AGAIN;
    atomic_store(&cache->waiting, 0);
    if (status == HW_OK && atomic_load(&cache->closing) != 0)
        status = HW_AGAIN;
    return status == HW_OK ? check_named(cache, cache->lock, err) : status;
}

void *cache_keep(void *ctx)
{
    struct hw_cache *cache = ctx;

    while (atomic_load(&cache->closing) == 0) {
        struct hw_error err = {0};
        enum hw_status status = lock_take(cache, &err);

        if (status == HW_OK) {
            mark_used(cache->lock);
            status = tenure(cache, &err);
            mark_used(cache->lock);
        }
        cache->env->ops->close(cache->lock);
        cache->lock = NULL;
        if (status < 0) {
            fail_all(cache, status, &err);
            pause_after_failure(cache);
        }
    }
    return NULL;
}
