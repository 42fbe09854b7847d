/* What threads of the application want of a mirror: blocks, a length, its state. */
#include <stdio.h>
#include <string.h>

#include "node/hub_internal.h"

enum { NS_PER_MS = 1000000 };
#define SILENCE_NS (30000 * (uint64_t)NS_PER_MS) /* with nothing coming in, a fetch gives up */

/* ------------------------------------------------------------------------------- waiting */

/* Sleep until there is news or the deadline.  HW_AGAIN: interrupted. */
static enum hw_status await(struct hw_mirror *mirror, uint64_t block, uint64_t deadline_ns)
{
    struct hub_waiter self = {.next = mirror->waiters, .block = block};
    struct hub_waiter **at = &mirror->waiters;
    uint32_t seen = atomic_load(&mirror->news);

    if (atomic_exchange(&mirror->is_interrupted, 0) != 0)
        return HW_AGAIN;
    mirror->waiters = &self;
    hub_sleep(mirror->hub, &mirror->news, seen, deadline_ns);
    while (*at != &self)
        at = &(*at)->next;
    *at = self.next;
    return HW_OK;
}

void hw_mirror_interrupt(struct hw_mirror *mirror)
{
    struct hw_env *env = mirror->hub->env;

    atomic_store(&mirror->is_interrupted, 1);
    atomic_fetch_add(&mirror->news, 1);
    env->ops->wake_word(env, hub_word(&mirror->news));
}

/* Has every source that is connected opened the log, so that what they have is known? */
static bool sources_settled(const struct hw_mirror *mirror)
{
    for (size_t i = 0; i < mirror->source_count; i++)
        if (mirror->sources[i].conn != NULL && !mirror->sources[i].is_linked)
            return false;
    return true;
}

/*
 * Who asks for it did not find it.  If it seems to be here, it has come in between, or its bytes
 * are damaged, which the core learns by reading it.
 */
static bool is_here(struct hw_mirror *mirror, uint64_t index)
{
    struct hw_core *core = mirror->log->core;

    return hw_core_has(core, index) && hw_core_read(core, index, &mirror->scratch, NULL) == HW_OK;
}

/* It is not asked for any more, unless another thread waits for it. */
static void give_up(struct hw_mirror *mirror, uint64_t index)
{
    for (const struct hub_waiter *w = mirror->waiters; w != NULL; w = w->next) {
        if (w->block == index)
            return;
    }
    hw_replication_unwant_now(mirror->log->replication, index);
}

static enum hw_status fetch(struct hw_mirror *mirror, uint64_t index, struct hw_error *err)
{
    struct hub_log *log = mirror->log;
    uint64_t began = hub_now(mirror->hub);
    enum hw_status status = HW_OK;
    char problems[256];

    while (!is_here(mirror, index)) {
        uint64_t now = hub_now(mirror->hub), since = began;

        if (mirror->arrived_ns > since)
            since = mirror->arrived_ns;
        if (now - since >= SILENCE_NS && now >= since) {
            source_problems(mirror, problems, sizeof(problems));
            return hw_fail(err, HW_ETIMEOUT, "block %llu: nothing came for 30 s%s%s",
                           (unsigned long long)index, problems[0] != '\0' ? ": " : "", problems);
        }
        status = hw_replication_want_now(log->replication, index, err);
        if (status != HW_OK)
            return status;
        log_touch(log);
        if (hw_replication_availability(log->replication, index) == HW_BLOCK_NOBODY &&
            sources_settled(mirror))
            return hw_fail(err, HW_EPRUNED, "block %llu: no source that is connected has it",
                           (unsigned long long)index);
        if (!mirror->hub->threaded)
            return hw_fail(err, HW_EMISSING, "block %llu: asked for", (unsigned long long)index);
        if (await(mirror, index, since + SILENCE_NS) == HW_AGAIN) {
            hw_fail(err, HW_AGAIN, "interrupted while block %llu was fetched",
                    (unsigned long long)index);
            return HW_AGAIN;
        }
    }
    return HW_OK;
}

enum hw_status hw_mirror_fetch(void *ctx, uint64_t index, struct hw_error *err)
{
    struct hw_mirror *mirror = ctx;
    struct hw_hub *hub = mirror->hub;
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = fetch(mirror, index, err);
    if (status != HW_OK && status != HW_EMISSING) /* the latter: it is to come while others work */
        give_up(mirror, index);
    hub_leave(hub);
    return status;
}

enum hw_status hw_mirror_wait_length(struct hw_mirror *mirror, uint64_t length, uint64_t timeout_ms,
                                     struct hw_error *err)
{
    struct hw_hub *hub = mirror->hub;
    enum hw_status status = hub_enter(hub, err);
    uint64_t deadline;
    char problems[300];

    if (status != HW_OK)
        return status;
    deadline = hub_now(hub) + timeout_ms * NS_PER_MS;
    while (status == HW_OK && hw_core_length(mirror->log->core) < length) {
        if (!hub->threaded || hub_now(hub) >= deadline) {
            source_problems(mirror, problems, sizeof(problems));
            status = hw_fail(err, HW_ETIMEOUT, "%s",
                             problems[0] != '\0' ? problems : "nothing came of the log");
        } else if (await(mirror, UINT64_MAX, deadline) == HW_AGAIN) {
            hw_fail(err, HW_AGAIN, "interrupted while waiting for the log");
            status = HW_AGAIN;
        }
    }
    hub_leave(hub);
    return status;
}

/* -------------------------------------------------------------------------------- wants */

enum hw_status hw_mirror_ask(struct hw_mirror *mirror, uint64_t index, struct hw_error *err)
{
    enum hw_status status = hub_enter(mirror->hub, err);

    if (status != HW_OK)
        return status;
    if (is_here(mirror, index))
        goto done;
    status = hw_replication_want_now(mirror->log->replication, index, err);
    if (status == HW_OK || status == HW_ELIMIT) { /* others go first: come again */
        log_touch(mirror->log);
        switch (hw_replication_availability(mirror->log->replication, index)) {
        case HW_BLOCK_HELD:
        case HW_BLOCK_COMING:
            status = HW_AGAIN;
            break;
        case HW_BLOCK_NOBODY:
            status = sources_settled(mirror) ? HW_EPRUNED : HW_AGAIN;
            if (status == HW_EPRUNED)
                give_up(mirror, index);
            break;
        case HW_BLOCK_NO_LINK:
            status = HW_EMISSING;
            break;
        }
        if (status < 0)
            (void)hw_fail(err, status, "block %llu: %s", (unsigned long long)index,
                          status == HW_EPRUNED ? "no source that is connected has it"
                                               : "no source is connected");
    }
done:
    hub_leave(mirror->hub);
    return status;
}

enum hw_status hw_mirror_want(struct hw_mirror *mirror, uint64_t start, uint64_t end,
                              struct hw_error *err)
{
    enum hw_status status = hub_enter(mirror->hub, err);

    if (status != HW_OK)
        return status;
    status = hw_replication_want(mirror->log->replication, start, end, err);
    log_touch(mirror->log);
    hub_leave(mirror->hub);
    return status;
}

void hw_mirror_want_tail(struct hw_mirror *mirror, uint64_t start)
{
    if (hub_enter(mirror->hub, NULL) != HW_OK)
        return;
    hw_replication_want_tail(mirror->log->replication, start);
    if (start != mirror->tail) {
        mirror->tail = start;
        mirror->complete = start == UINT64_MAX ? 0 : start;
        mirror->durable = mirror->is_dirty ? 0 : mirror->complete;
    }
    log_touch(mirror->log);
    hub_leave(mirror->hub);
}

/*
 * Called for each commit that is applied, so it neither waits for the loop nor wakes it each time:
 * only if somebody waits for it, or the loop knows of nothing that it will have to tell.
 */
void hw_mirror_applied(struct hw_mirror *mirror, uint64_t length)
{
    struct hw_hub *hub = mirror->hub;

    atomic_store(&mirror->applied, length);
    if (atomic_exchange(&mirror->is_applied, 1) != 0 && atomic_load(&mirror->is_hasty) == 0)
        return;
    atomic_store(&hub->has_applied, 1);
    if (hub->bell != NULL)
        hw_bell_ring(hub->bell);
}

/* ------------------------------------------------------------------------------- status */

void hw_mirror_status(struct hw_mirror *mirror, struct hw_mirror_status *out)
{
    struct hw_core_head head;
    size_t tried = 0;

    *out = (struct hw_mirror_status){0};
    if (hub_enter(mirror->hub, NULL) != HW_OK)
        return;
    head = hw_core_head(mirror->log->core);
    out->length = head.length;
    out->fork = head.fork;
    if (mirror->tail != UINT64_MAX && head.length > mirror->complete)
        out->wanted = head.length - mirror->complete;
    for (size_t i = 0; i < mirror->source_count; i++) {
        const struct hub_source *source = &mirror->sources[i];
        const struct hw_link *link =
            source->is_linked ? hw_peer_link_of(source->conn->peer, mirror->log->replication)
                              : NULL;
        struct hw_link_status told;

        out->connected += source->is_linked;
        tried += source->is_linked || source->problem[0] != '\0';
        if (link == NULL)
            continue;
        hw_link_status(link, &told);
        out->told += told.is_synced;
        if (told.remote_length > out->remote_length)
            out->remote_length = told.remote_length;
    }
    out->has_failed = out->connected == 0 && tried == mirror->source_count;
    out->bytes_received = mirror->bytes_received;
    out->has_moved = mirror->has_moved;
    memcpy(out->moved_key, mirror->moved_key, HW_KEY_SIZE);
    out->moved_source = mirror->moved_source;
    if (mirror->broken.status != HW_OK)
        snprintf(out->problem, sizeof(out->problem), "%.200s", mirror->broken.message);
    else if (out->connected == 0)
        source_problems(mirror, out->problem, sizeof(out->problem));
    hub_leave(mirror->hub);
}
