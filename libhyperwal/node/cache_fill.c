/*
 * The holder's second thread: blocks that somebody on this machine waits for, and holes that are to
 * be filled (node/cache.h).
 *
 * It sleeps on the mirror's shared page, which is bumped by who wants something and by the hub when
 * something came.  It waits for no single block: what is not here is asked for, and looked at again
 * at the next news.
 */
#include <string.h>

#include "base/alloc.h"
#include "node/cache_internal.h"

enum { NS_PER_MS = 1000000, HYDRATE_GROUPS = 32 };
enum { NOBODY_MS = 1000, FORGET_MS = 10000, ABSENCES = 256 };
enum { HYDRATE_AGAIN_MS = 10000 }; /* until groups that could not be filled are tried again */

/* A block that no source has. */
struct absence {
    uint64_t block;
    uint64_t since_ns; /* so it is since then */
    uint64_t asked_ns; /* when it was asked for last; 0: there is none */
};

struct cache_filler {
    struct hw_cache *cache; /* borrowed, as the next */
    struct hw_mirror *mirror;
    struct hw_core *core;           /* owned: reads the mirror, and fetches nothing */
    struct hw_lazy_filler *filler;  /* owned; NULL: the database is not there yet */
    uint64_t asked[CACHE_REQUESTS]; /* the word whose blocks were asked for, in each slot */
    struct absence absences[ABSENCES];
    size_t connected;  /* sources, at the last look */
    uint32_t hydrated; /* groups below were looked at ... */
    uint64_t again_ns; /* ... and some not filled, which is tried again then; 0: none */
    struct hw_thread thread;
    _Atomic uint32_t stopping;
};

static uint64_t now_ns(const struct cache_filler *fill)
{
    return fill->cache->env->ops->monotonic_ns(fill->cache->env);
}

/* ---------------------------------------------------------------------------- what is told */

static void tell(struct cache_filler *fill)
{
    struct cache_page *page = fill->cache->page;
    struct hw_mirror_status now;
    uint32_t online;

    hw_mirror_status(fill->mirror, &now);
    online = now.connected > 0;
    if (atomic_exchange(&page->online, online) != online) {
        atomic_store(&page->since_ns, now_ns(fill));
        if (online)
            cache_page_set_text(page, "");
    }
    if (now.connected != fill->connected) /* who comes now may have them */
        memset(fill->absences, 0, sizeof(fill->absences));
    fill->connected = now.connected;
    if (now.problem[0] != '\0')
        cache_page_set_text(page, now.problem);
    if (atomic_exchange(&page->received, now.bytes_received) != now.bytes_received)
        atomic_fetch_add(&page->progress, 1);
    atomic_store(&page->length, now.length);
}

/* Nobody has been connected for so long that it is no use to wait. */
static bool is_out_of_reach(struct cache_filler *fill)
{
    struct cache_page *page = fill->cache->page;

    return atomic_load(&page->online) == 0 &&
           now_ns(fill) - atomic_load(&page->since_ns) >= (uint64_t)CACHE_GRACE_MS * NS_PER_MS;
}

/*
 * Nobody has it, for now: a source that tells how long its log is may only then tell which blocks
 * of it it has.  True: that has lasted.  What nobody has asked for lately is forgotten.
 */
static bool is_nobodys(struct cache_filler *fill, uint64_t block)
{
    uint64_t now = now_ns(fill);
    struct absence *place = &fill->absences[0]; /* its own, or else who was asked for longest ago */

    for (unsigned i = 0; i < ABSENCES; i++) {
        struct absence *a = &fill->absences[i];

        if (a->block == block && a->asked_ns != 0) {
            place = a;
            break;
        }
        if (a->asked_ns < place->asked_ns)
            place = a;
    }
    if (place->block != block && place->asked_ns != 0 &&
        now - place->asked_ns < (uint64_t)NOBODY_MS * NS_PER_MS)
        return false; /* there is no room: its turn comes when those are refused */
    if (place->block != block || now - place->asked_ns >= (uint64_t)FORGET_MS * NS_PER_MS)
        *place = (struct absence){.block = block, .since_ns = now};
    place->asked_ns = now;
    return now - place->since_ns >= (uint64_t)NOBODY_MS * NS_PER_MS;
}

/* Ask for a block.  False, with a text for those who wait: it does not come. */
static bool ask(struct cache_filler *fill, uint64_t block)
{
    struct hw_error err = {0};
    enum hw_status status = hw_mirror_ask(fill->mirror, block, &err);

    if (status >= 0)
        return true;
    if (status == HW_EMISSING && !is_out_of_reach(fill))
        return true; /* a source may be back soon */
    if (status == HW_EPRUNED && !is_nobodys(fill, block))
        return true;
    if (status != HW_EMISSING) /* of that one the text is there: why no source is connected */
        cache_page_set_text(fill->cache->page, err.message);
    return false;
}

/* ---------------------------------------------------------------------------------- blocks */

static bool serve_request(struct cache_filler *fill, unsigned slot)
{
    _Atomic uint64_t *request = &fill->cache->page->requests[slot];
    uint64_t word = atomic_load(request), block = cache_request_block(word);

    if (word == 0 || (word & CACHE_REQUEST_REFUSED) != 0)
        return false;
    if (hw_core_has(fill->core, block)) {
        (void)atomic_compare_exchange_strong(request, &word, 0); /* else it is another by now */
        cache_wake(fill->cache);
        return false;
    }
    if (!ask(fill, block)) {
        (void)atomic_compare_exchange_strong(request, &word, word | CACHE_REQUEST_REFUSED);
        cache_wake(fill->cache);
        return false;
    }
    if (fill->asked[slot] != word && cache_request_count(word) > 1)
        (void)!hw_mirror_want(fill->mirror, block + 1, block + cache_request_count(word), NULL);
    fill->asked[slot] = word;
    return true;
}

/* ---------------------------------------------------------------------------------- groups */

static enum hw_status guard_write(void *ctx, uint64_t offset, const void *bytes, size_t size,
                                  struct hw_error *err)
{
    struct hw_cache *cache = ctx;
    int code = cache->guard->pMethods->xWrite(cache->guard, bytes, (int)size, (int64_t)offset);

    if (code == SQLITE_OK)
        return HW_OK;
    return hw_fail(err, (code & 0xff) == SQLITE_FULL ? HW_ENOSPC : HW_EIO,
                   "%s: cannot be written (SQLite code %d)", cache->path, code);
}

/* HW_AGAIN: its block is under way.  A failure is for those who wait for it. */
static enum hw_status fill_group(struct cache_filler *fill, uint32_t group, struct hw_error *err)
{
    struct hw_cache *cache = fill->cache;
    uint64_t block = hw_lazy_filler_block(fill->filler, group);
    enum hw_status status;

    if (!hw_core_has(fill->core, block))
        return ask(fill, block) ? HW_AGAIN : HW_EMISSING;
    status = hw_lazy_filler_load(fill->filler, group, err);
    if (status == HW_EMISSING) /* it was damaged, and is fetched again */
        return ask(fill, block) ? HW_AGAIN : status;
    if (status != HW_OK) {
        cache_page_set_text(cache->page, err->message);
        return status;
    }
    hw_mutex_lock(&cache->lazy.filling);
    status = hw_lazy_filler_store(fill->filler, guard_write, cache, err);
    hw_mutex_unlock(&cache->lazy.filling);
    if (status != HW_OK)
        cache_page_set_text(cache->page, err->message);
    return status;
}

/* Nobody waits for one that is to be there in the background: it must not be left out for good. */
static void put_off(struct cache_filler *fill, uint32_t group)
{
    hw_lazy_refuse(fill->cache->map, group);
    if (group < fill->hydrated)
        fill->again_ns = now_ns(fill) + (uint64_t)HYDRATE_AGAIN_MS * NS_PER_MS;
}

/* True: something is under way. */
static bool serve_groups(struct cache_filler *fill)
{
    struct hw_lazy_map *map = fill->cache->map;
    bool waits = false;

    for (uint32_t group = hw_lazy_next_wanted(map, 0); group != UINT32_MAX;
         group = hw_lazy_next_wanted(map, group + 1)) {
        struct hw_error err = {0};
        enum hw_status status = HW_OK;

        if (hw_lazy_group(map, group) != UINT64_MAX)
            status = fill_group(fill, group, &err);
        if (status == HW_AGAIN) {
            waits = true;
            continue;
        }
        if (status == HW_OK)
            hw_lazy_unwant(map, group);
        else
            put_off(fill, group);
        cache_wake(fill->cache);
    }
    return waits;
}

/* At the end it begins anew, if there is a reason to. */
static uint32_t hydrate_next(struct cache_filler *fill)
{
    struct hw_lazy_map *map = fill->cache->map;
    uint32_t group = hw_lazy_next_absent(map, fill->hydrated);

    if (group != UINT32_MAX || fill->again_ns == 0 || now_ns(fill) < fill->again_ns)
        return group;
    fill->again_ns = 0;
    return hw_lazy_next_absent(map, 0);
}

/* How long to sleep if nothing comes. */
static uint64_t until_again(const struct cache_filler *fill)
{
    uint64_t now = now_ns(fill);

    if (fill->again_ns == 0)
        return UINT64_MAX;
    return fill->again_ns > now ? fill->again_ns - now : (uint64_t)HYDRATE_AGAIN_MS * NS_PER_MS;
}

/* All of it in the background: a few groups at a time, while nobody waits for any. */
static bool hydrate(struct cache_filler *fill)
{
    struct hw_lazy_map *map = fill->cache->map;
    bool wants = false;

    if (atomic_load(&fill->cache->page->hydrate) == 0 || is_out_of_reach(fill))
        return false;
    for (int i = 0; i < HYDRATE_GROUPS; i++) {
        uint32_t group = hydrate_next(fill);

        if (group == UINT32_MAX)
            break;
        fill->hydrated = group + 1;
        wants = hw_lazy_want(map, group) || wants;
    }
    return wants;
}

/* The groups of the snapshot that the database was made from, once it is there. */
static bool filler_ready(struct cache_filler *fill)
{
    struct hw_cache *cache = fill->cache;
    struct hw_error err = {0};

    if (fill->filler != NULL)
        return true;
    if (atomic_load(&cache->shown) == NULL)
        return false;
    if (hw_lazy_filler_open(fill->core, cache->map, &fill->filler, &err) == HW_OK)
        return true;
    if (err.status == HW_EMISSING)
        (void)ask(fill, hw_lazy_map_origin(cache->map).index_seq); /* lost since it was read */
    cache_page_set_text(cache->page, err.message);
    return false;
}

/* --------------------------------------------------------------------------------- the loop */

/* True: something is under way, whose news may be missed. */
static bool look(struct cache_filler *fill)
{
    bool waits = false;

    if (hw_core_refresh(fill->core, UINT64_MAX, NULL) != HW_OK)
        return true; /* the hub is writing it: once more, soon */
    for (unsigned slot = 0; slot < CACHE_REQUESTS; slot++)
        waits = serve_request(fill, slot) || waits;
    if (filler_ready(fill)) {
        waits = serve_groups(fill) || waits;
        if (!waits && hydrate(fill))
            waits = serve_groups(fill);
    }
    return waits;
}

static void *run(void *ctx)
{
    struct cache_filler *fill = ctx;
    struct hw_cache *cache = fill->cache;

    for (;;) {
        uint32_t seen = hw_shared_wake_count(cache->news); /* before all that a wake tells of */
        bool waits;

        if (atomic_load(&fill->stopping) != 0)
            break;
        tell(fill); /* before: who is woken below finds it told */
        waits = look(fill);
        hw_shared_wait(cache->news, seen,
                       waits ? (uint64_t)CACHE_SLICE_MS * NS_PER_MS : until_again(fill));
    }
    return NULL;
}

enum hw_status cache_filler_start(struct hw_cache *cache, struct hw_mirror *mirror,
                                  struct cache_filler **out, struct hw_error *err)
{
    struct cache_filler *fill = hw_zalloc(sizeof(*fill));
    enum hw_status status;

    if (fill == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to fetch a database");
    fill->cache = cache;
    fill->mirror = mirror;
    for (unsigned i = 0; i < CACHE_REQUESTS; i++)
        atomic_store(&cache->page->requests[i], 0); /* who still waits asks again */
    atomic_store(&cache->page->online, 0);
    atomic_store(&cache->page->since_ns, now_ns(fill));
    status =
        hw_core_open(cache->env, cache->mirror_dir, HW_CORE_READ, UINT64_MAX, &fill->core, err);
    if (status == HW_OK)
        status = hw_thread_start(&fill->thread, run, fill, err);
    if (status != HW_OK) {
        hw_core_close(fill->core);
        hw_free(fill);
        return status;
    }
    *out = fill;
    return HW_OK;
}

void cache_filler_stop(struct cache_filler *filler)
{
    if (filler == NULL)
        return;
    atomic_store(&filler->stopping, 1);
    cache_wake(filler->cache);
    hw_thread_join(&filler->thread);
    hw_lazy_filler_close(filler->filler);
    hw_core_close(filler->core);
    hw_free(filler);
}
