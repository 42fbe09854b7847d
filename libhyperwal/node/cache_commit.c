/*
 * Connections that write a remote database: what vfs/vfs.h asks, said to the server.
 *
 *     role of the holder ──▶ lease ──▶ WRITE lock of the cache ──▶ commit ... ──▶ all given back
 */
#include <stdio.h>
#include <string.h>

#include "node/cache_internal.h"

enum {
    TURN_MS = 100,  /* for others to end, once it is known that they write ... */
    ROLE_MS = 2000, /* ... for this process to begin to hold ... */
    HEAD_MS = 1000, /* ... for the entries up to the head, and to apply them: see remote_write.c */
};

static void answer_no(struct hw_vfs_answer *out, enum hw_vfs_verdict verdict, const char *text)
{
    *out = (struct hw_vfs_answer){.verdict = verdict};
    (void)snprintf(out->text, sizeof(out->text), "%s", text);
}

static uint32_t own_id(const struct hw_cache *cache)
{
    return cache->env->ops->process_id(cache->env);
}

static void role_end(struct hw_cache *cache)
{
    if (atomic_fetch_sub(&cache->writers, 1) != 1)
        return;
    if (atomic_load(&cache->page->holder) == own_id(cache))
        atomic_store(&cache->page->writing, 0); /* if one began just now, others wait longer */
    cache_wake(cache);
}

/* Somebody of this process comes again for it, soon. */
static bool is_wished_for(const struct hw_cache *cache)
{
    return cache->env->ops->monotonic_ns(cache->env) < atomic_load(&cache->wish_ns);
}

/*
 * Who waited for the role writes before it is given away again.  Who has it and finds that another
 * process asked for it lets that one go first.
 */
static enum hw_status role_begin(struct hw_cache *cache, struct hw_mirror **mirror,
                                 struct hw_error *err)
{
    uint32_t yield = atomic_load(&cache->page->yield);
    uint32_t holder = atomic_load(&cache->page->holder);
    enum hw_status status;

    if (holder == own_id(cache) && yield != 0 && yield != holder &&
        atomic_load(&cache->writers) == 0 && !is_wished_for(cache))
        return hw_fail(err, HW_EBUSY, "it is the turn of process %u", (unsigned)yield);
    atomic_fetch_add(&cache->writers, 1);
    status = hw_cache_take_role(cache, ROLE_MS, TURN_MS, err);
    holder = atomic_load(&cache->page->holder);
    if (status == HW_ETIMEOUT && holder != 0)
        status = HW_EBUSY; /* it does not let go, or ours is on its way */
    if (status == HW_OK)
        status = hw_cache_mirror_hold(cache, mirror, err);
    if (status != HW_OK) {
        role_end(cache);
        return status;
    }
    atomic_store(&cache->page->writing, 1);
    atomic_store(&cache->wish_ns, 0);
    return HW_OK;
}

enum hw_status cache_commit_begin(struct hw_cache *cache, uint64_t answer_ms,
                                  struct hw_vfs_base *out, struct hw_error *err)
{
    struct hw_mirror *mirror = NULL;
    struct hw_cache_state state;
    uint64_t fence = 0, length = 0;
    enum hw_status status = role_begin(cache, &mirror, err);

    if (status != HW_OK)
        return status;
    status = hw_mirror_write_begin(mirror, answer_ms, TURN_MS, &fence, &length, err);
    if (status == HW_OK) {
        status = hw_cache_write_begin(cache, length, HEAD_MS, &state, err);
        if (status == HW_ETIMEOUT) /* on its way: SQLite's busy handler says how long that may be */
            status = HW_EBUSY;
        if (status != HW_OK)
            hw_mirror_write_end(mirror);
    }
    if (status != HW_OK) {
        hw_cache_mirror_release(cache);
        role_end(cache);
        return status;
    }
    *out = (struct hw_vfs_base){.fence = fence,
                                .seq = state.seq,
                                .sum = state.sum,
                                .page_size = state.page_size,
                                .page_count = state.page_count};
    memcpy(out->log, cache->key, sizeof(out->log));
    return HW_OK;
}

static enum hw_vfs_verdict verdict_of(enum hw_write_status status)
{
    switch (status) {
    case HW_WRITE_OK:
        return HW_VERDICT_COMMITTED;
    case HW_WRITE_REFUSED:
    case HW_WRITE_NOWHERE:
        return HW_VERDICT_REFUSED;
    case HW_WRITE_BUSY:
    case HW_WRITE_STALE:
    case HW_WRITE_LOST:
        return HW_VERDICT_LATE;
    case HW_WRITE_INVALID:
        return HW_VERDICT_WRONG;
    case HW_WRITE_FAILED:
    case HW_WRITE_NOT:
        return HW_VERDICT_FAILED;
    case HW_WRITE_UNKNOWN:
    case HW_WRITE_STATUS_COUNT:
        break;
    }
    return HW_VERDICT_UNKNOWN;
}

void cache_commit_send(struct hw_cache *cache, const struct hw_vfs_outgoing *outgoing,
                       uint64_t timeout_ms, struct hw_vfs_answer *out)
{
    struct hw_write_message commit = {.type = HW_WRITE_COMMIT,
                                      .id = outgoing->origin,
                                      .sum_before = outgoing->sum_before,
                                      .sum_after = outgoing->sum_after,
                                      .page_count = outgoing->page_count,
                                      .part_count = outgoing->part_count};
    struct hw_mirror *mirror = NULL;
    struct hw_write_answer answer;
    struct hw_error err = {0};

    if (hw_cache_mirror_hold(cache, &mirror, &err) != HW_OK) {
        answer_no(out, HW_VERDICT_LATE, err.message);
        return;
    }
    answer = hw_mirror_commit(mirror, &commit, outgoing->next, outgoing->ctx, timeout_ms);
    hw_cache_mirror_release(cache);
    answer_no(out, verdict_of(answer.status), answer.text);
    out->seq = answer.seq;
}

enum hw_status cache_commit_end(struct hw_cache *cache, const struct hw_vfs_base *committed,
                                struct hw_error *err)
{
    struct hw_mirror *mirror = NULL;
    struct hw_cache_state state = {0};
    enum hw_status status;

    if (committed != NULL)
        state = (struct hw_cache_state){.seq = committed->seq,
                                        .sum = committed->sum,
                                        .page_count = committed->page_count,
                                        .page_size = committed->page_size};
    status = hw_cache_write_end(cache, committed == NULL ? NULL : &state, err);
    if (hw_cache_mirror_hold(cache, &mirror, NULL) == HW_OK) {
        hw_mirror_write_end(mirror);
        hw_cache_mirror_release(cache);
    }
    hw_cache_mirror_release(cache); /* of cache_commit_begin() */
    role_end(cache);
    return status;
}

void cache_commit_outcome(struct hw_cache *cache, const struct hw_origin *origin,
                          uint64_t timeout_ms, struct hw_vfs_answer *out)
{
    struct hw_mirror *mirror = NULL;
    struct hw_write_answer answer;
    struct hw_error err = {0};
    enum hw_status status = hw_cache_take_role(cache, timeout_ms, timeout_ms, &err);

    if (status == HW_OK)
        status = hw_cache_mirror_hold(cache, &mirror, &err);
    if (status != HW_OK) {
        answer_no(out, HW_VERDICT_UNKNOWN, err.message);
        return;
    }
    answer = hw_mirror_outcome(mirror, origin, timeout_ms);
    hw_cache_mirror_release(cache);
    if (answer.status == HW_WRITE_OK)
        answer_no(out, HW_VERDICT_COMMITTED, "");
    else
        answer_no(out, answer.status == HW_WRITE_NOT ? HW_VERDICT_FAILED : HW_VERDICT_UNKNOWN,
                  answer.text);
    out->seq = answer.seq;
}
