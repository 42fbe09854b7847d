/* Connections of this process that write into a cache: node/cache.h. */
#include "node/cache_internal.h"

enum { NS_PER_MS = 1000000 };

static uint64_t now_ns(const struct hw_cache *cache)
{
    return cache->env->ops->monotonic_ns(cache->env);
}

/* Sleep until there is news after `seen`, not for long.  False: the deadline has passed. */
static bool sleep_until(struct hw_cache *cache, uint32_t seen, uint64_t deadline_ns)
{
    uint64_t now = now_ns(cache), slice = (uint64_t)CACHE_SLICE_MS * NS_PER_MS;

    if (now >= deadline_ns)
        return false;
    hw_shared_wait(cache->news, seen, deadline_ns - now < slice ? deadline_ns - now : slice);
    return true;
}

static bool is_holder(struct hw_cache *cache)
{
    return atomic_load(&cache->page->holder) == cache->env->ops->process_id(cache->env);
}

/* ---------------------------------------------------------------------------------- the role */

static void ask_for_role(struct hw_cache *cache)
{
    atomic_store(&cache->wish_ns, now_ns(cache) + (uint64_t)CACHE_WISH_MS * NS_PER_MS);
    if (atomic_exchange(&cache->page->yield, cache->env->ops->process_id(cache->env)) == 0)
        cache_wake(cache);
}

enum hw_status hw_cache_take_role(struct hw_cache *cache, uint64_t timeout_ms, uint64_t turn_ms,
                                  struct hw_error *err)
{
    uint64_t begin = now_ns(cache), deadline = begin + timeout_ms * NS_PER_MS;
    uint64_t turn = begin + turn_ms * NS_PER_MS;
    char why[HW_ERROR_SIZE];

    for (;;) {
        uint32_t seen = hw_shared_wake_count(cache->news);
        bool is_ours = is_holder(cache), others_write;

        if (is_ours && atomic_load(&cache->page->phase) == CACHE_LIVE)
            return HW_OK;
        if (!is_ours)
            ask_for_role(cache);
        others_write = !is_ours && atomic_load(&cache->page->writing) != 0;
        if (others_write && now_ns(cache) >= turn)
            return hw_fail(err, HW_EBUSY, "process %u writes",
                           (unsigned)atomic_load(&cache->page->holder));
        if (!sleep_until(cache, seen, others_write && turn < deadline ? turn : deadline) &&
            now_ns(cache) >= deadline)
            break;
    }
    cache_problem(cache, why);
    return hw_fail(err, HW_ETIMEOUT, "process %u has the cache in its hands%s%s",
                   (unsigned)atomic_load(&cache->page->holder), why[0] != '\0' ? ": " : "", why);
}

void cache_mirror_lend(struct hw_cache *cache, struct hw_mirror *mirror)
{
    hw_mutex_lock(&cache->mutex);
    cache->mirror = mirror;
    while (mirror == NULL && cache->mirror_uses > 0) {
        uint32_t seen = hw_shared_wake_count(cache->news);

        hw_mutex_unlock(&cache->mutex);
        hw_shared_wait(cache->news, seen, (uint64_t)CACHE_SLICE_MS * NS_PER_MS);
        hw_mutex_lock(&cache->mutex);
    }
    hw_mutex_unlock(&cache->mutex);
}

enum hw_status hw_cache_mirror_hold(struct hw_cache *cache, struct hw_mirror **out,
                                    struct hw_error *err)
{
    enum hw_status status = HW_OK;

    hw_mutex_lock(&cache->mutex);
    if (cache->mirror == NULL) {
        status = hw_fail(err, HW_EBUSY, "this process does not fetch the log");
    } else {
        cache->mirror_uses++;
        *out = cache->mirror;
    }
    hw_mutex_unlock(&cache->mutex);
    return status;
}

void hw_cache_mirror_release(struct hw_cache *cache)
{
    hw_mutex_lock(&cache->mutex);
    cache->mirror_uses--;
    hw_mutex_unlock(&cache->mutex);
    cache_wake(cache);
}

/* ---------------------------------------------------------------------- the connection's side */

enum hw_status hw_cache_write_begin(struct hw_cache *cache, uint64_t length, uint64_t timeout_ms,
                                    struct hw_cache_state *out, struct hw_error *err)
{
    uint64_t deadline = now_ns(cache) + timeout_ms * NS_PER_MS;
    struct cache_write *write = &cache->write;
    enum hw_status status = HW_OK;
    bool goes_on = true;

    hw_mutex_lock(&cache->mutex);
    if (write->state != CACHE_WRITE_IDLE || cache->mirror == NULL)
        status = hw_fail(err, HW_EBUSY, "%s",
                         cache->mirror == NULL ? "this process does not hold the cache"
                                               : "another connection writes");
    if (status == HW_OK) {
        write->state = CACHE_WRITE_ASKED;
        write->length = length;
        write->result = (struct hw_error){0};
        cache_wake(cache);
    }
    while (status == HW_OK && write->state == CACHE_WRITE_ASKED) {
        uint32_t seen = hw_shared_wake_count(cache->news);

        hw_mutex_unlock(&cache->mutex);
        goes_on = sleep_until(cache, seen, deadline);
        hw_mutex_lock(&cache->mutex);
        if (!goes_on && write->state == CACHE_WRITE_ASKED) {
            write->state = CACHE_WRITE_IDLE;
            status = hw_fail(err, HW_ETIMEOUT, "the entries below block %llu did not come in time",
                             (unsigned long long)length);
        }
    }
    if (status == HW_OK && write->state == CACHE_WRITE_IDLE) { /* the keeper could not */
        status = write->result.status;
        if (err != NULL)
            *err = write->result;
    }
    if (status == HW_OK)
        *out = write->base;
    hw_mutex_unlock(&cache->mutex);
    return status;
}

enum hw_status hw_cache_write_end(struct hw_cache *cache, const struct hw_cache_state *committed,
                                  struct hw_error *err)
{
    struct cache_write *write = &cache->write;
    enum hw_status status;

    hw_mutex_lock(&cache->mutex);
    write->has_outcome = committed != NULL;
    if (committed != NULL)
        write->outcome = *committed;
    write->state = CACHE_WRITE_ENDED;
    cache_wake(cache);
    while (write->state == CACHE_WRITE_ENDED) {
        uint32_t seen = hw_shared_wake_count(cache->news);

        hw_mutex_unlock(&cache->mutex);
        (void)sleep_until(cache, seen, UINT64_MAX); /* that deadline does not pass */
        hw_mutex_lock(&cache->mutex);
    }
    status = write->result.status;
    if (status != HW_OK && err != NULL)
        *err = write->result;
    hw_mutex_unlock(&cache->mutex);
    return status;
}

/* -------------------------------------------------------------------------- the keeper's side */

enum cache_write_state cache_write_state(struct hw_cache *cache)
{
    enum cache_write_state state;

    hw_mutex_lock(&cache->mutex);
    state = cache->write.state;
    hw_mutex_unlock(&cache->mutex);
    return state;
}

static void give(struct hw_cache *cache, struct hw_replica *replica)
{
    struct cache_write *write = &cache->write;
    struct hw_state state = hw_replica_state(replica);

    if (write->length != 0 && hw_replica_seq(replica) + 1 < write->length)
        return; /* not yet */
    write->state = CACHE_WRITE_IDLE;
    if (hw_replica_give_write(replica, &write->result) != HW_OK)
        return;
    write->base = (struct hw_cache_state){.seq = state.seq,
                                          .sum = state.sum,
                                          .page_count = state.page_count,
                                          .page_size = state.page_size};
    write->state = CACHE_WRITE_GIVEN;
}

static enum hw_status take_back(struct hw_cache *cache, struct hw_replica *replica,
                                struct hw_error *err)
{
    struct cache_write *write = &cache->write;
    struct hw_state committed = {.seq = write->outcome.seq,
                                 .sum = write->outcome.sum,
                                 .page_count = write->outcome.page_count,
                                 .page_size = write->outcome.page_size};
    enum hw_status status =
        hw_replica_take_write(replica, write->has_outcome ? &committed : NULL, err);

    if (status == HW_EBUSY)
        return status; /* another connection recovers or tries its luck: again, soon */
    write->result = status == HW_OK ? (struct hw_error){0} : *err;
    write->state = CACHE_WRITE_IDLE;
    return status;
}

bool cache_write_step(struct hw_cache *cache, struct hw_replica *replica, struct hw_error *err)
{
    enum cache_write_state before, after;
    enum hw_status status = HW_OK;

    hw_mutex_lock(&cache->mutex);
    before = cache->write.state;
    if (before == CACHE_WRITE_ASKED)
        give(cache, replica);
    else if (before == CACHE_WRITE_ENDED)
        status = take_back(cache, replica, err);
    after = cache->write.state;
    hw_mutex_unlock(&cache->mutex);
    if (after != before) /* else it is no news, and would wake us, too, again and again */
        cache_wake(cache);
    if (status == HW_OK || status == HW_EBUSY)
        err->status = HW_OK;
    return after == CACHE_WRITE_GIVEN || after == CACHE_WRITE_ENDED;
}
