/*
 * Mirrors: logs of others that grow by what comes from the sources.
 *
 *     source ──▶ replication ──▶ core ──▶ shared page ──▶ readers of the directory
 *        ▲                         │
 *        └── acknowledgement ◀── sync, at once or lazily
 */
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"

enum { NS_PER_MS = 1000000, SYNC_BYTES = 4 << 20 };
#define SYNC_NS  (1000 * (uint64_t)NS_PER_MS) /* until what came is synced, with nobody waiting */
#define ACK_NS   (10 * (uint64_t)NS_PER_MS)   /* likewise, until it is told */
#define RETRY_NS (1000 * (uint64_t)NS_PER_MS) /* after a failed sync */

/* ------------------------------------------------------------------- what comes to pass */

void mirror_arrived(void *ctx, uint64_t block)
{
    struct hw_mirror *mirror = ctx;

    (void)block;
    mirror->has_news = true;
    mirror->is_dirty = true;
    mirror->arrived_ns = hub_now(mirror->hub);
    log_touch(mirror->log);
}

void mirror_upgraded(void *ctx, uint64_t length)
{
    mirror_arrived(ctx, length);
}

void mirror_broken(void *ctx, const struct hw_error *err)
{
    struct hw_mirror *mirror = ctx;

    mirror->broken = *err;
    mirror->is_dirty = true; /* if the core is poisoned, the next sync opens it anew */
    hw_env_log(mirror->hub->env, HW_LOG_ERROR, "event=mirror_broken log=%s reason=\"%s\"",
               mirror->log->dir, err->message);
}

/* ---------------------------------------------------------------------------- the work */

void mirror_wake(struct hw_mirror *mirror)
{
    if (mirror->waiters != NULL)
        hub_wake(mirror->hub, &mirror->news);
}

static void mirror_publish(struct hw_mirror *mirror)
{
    struct hub_log *log = mirror->log;
    uint64_t length = hw_core_length(log->core);

    if (length != mirror->published) {
        mirror->published = length;
        hw_shared_set_durable_length(log->page, length);
    } else if (mirror->has_news) {
        hw_shared_wake(log->page); /* blocks came that somebody may wait for */
    }
    log->length = length;
}

/* Up to where the tail is held without a hole. */
static void mirror_advance(struct hw_mirror *mirror)
{
    struct hw_core_head head = hw_core_head(mirror->log->core);
    uint64_t length = head.length;

    if (head.fork != mirror->fork) { /* blocks may have been replaced: look again */
        mirror->fork = head.fork;
        mirror->complete = mirror->tail == UINT64_MAX ? 0 : mirror->tail;
        mirror->durable = 0;
        mirror->told.received = UINT64_MAX; /* what was told so far was of the other fork */
    }
    mirror->check_ns = UINT64_MAX;
    if (mirror->tail == UINT64_MAX || !trust_check(mirror, length))
        return;
    while (mirror->complete < length) {
        uint64_t checked, missing;

        if (hw_core_find(mirror->log->core, mirror->complete, length, false, &missing, &checked,
                         NULL) != HW_OK) {
            mirror->check_ns = hub_now(mirror->hub) + HUB_UNREADABLE_NS;
            break;
        }
        mirror->complete = missing < length ? missing : checked;
        if (missing < length)
            break;
    }
}

/*
 * After a failed sync nobody knows what is on the disk: the directory is opened anew, which reads
 * it, and the sources are dialed again.
 */
static enum hw_status mirror_reopen(struct hw_mirror *mirror, struct hw_error *err)
{
    struct hub_log *log = mirror->log;
    struct hw_core *core = NULL;
    enum hw_status status =
        hw_core_open(mirror->hub->env, log->dir, HW_CORE_MIRROR, UINT64_MAX, &core, err);

    if (status == HW_OK)
        status = log_replace_core(log, core, err);
    if (status != HW_OK) {
        hw_core_close(core);
        return status;
    }
    hw_replication_want_tail(log->replication, mirror->tail);
    trust_lose(mirror);
    mirror->complete = mirror->tail == UINT64_MAX ? 0 : mirror->tail;
    mirror->durable = 0;
    mirror->is_dirty = true;
    mirror->has_news = true;
    return HW_OK;
}

static void mirror_sync(struct hw_mirror *mirror, uint64_t now)
{
    uint64_t length = 0;
    struct hw_error err = {0};
    enum hw_status status = hw_core_sync(mirror->log->core, &length, &err);

    bool is_reopened = status == HW_EBROKEN;

    if (is_reopened)
        status = mirror_reopen(mirror, &err);
    else if (status != HW_OK)
        trust_note_lost(mirror); /* at once, for whoever comes after us */
    if (status != HW_OK) {
        mirror_broken(mirror, &err);
        mirror->sync_ns = now + RETRY_NS;
        return;
    }
    mirror->broken = (struct hw_error){0};
    mirror->is_dirty = is_reopened; /* what is on the disk is to be synced still */
    if (is_reopened) {
        mirror->sync_ns = now;
        return;
    }
    mirror->synced_bytes = mirror->bytes_received;
    mirror->sync_ns = UINT64_MAX;
}

static void count_bytes(struct hw_mirror *mirror)
{
    uint64_t bytes = mirror->bytes_of_closed;

    for (size_t i = 0; i < mirror->source_count; i++) {
        struct hub_source *source = &mirror->sources[i];
        const struct hw_link *link =
            source->is_linked ? hw_peer_link_of(source->conn->peer, mirror->log->replication)
                              : NULL;

        if (link != NULL) {
            struct hw_link_status status;

            hw_link_status(link, &status);
            source->bytes = status.bytes_received;
        }
        bytes += source->bytes;
    }
    mirror->bytes_received = bytes;
}

/*
 * Syncs that nobody waits for leave the loop four fifths of its time, however many mirrors there
 * are and however slow the disk.
 */
static void mirror_sync_lazily(struct hw_mirror *mirror, uint64_t now)
{
    struct hw_hub *hub = mirror->hub;
    uint64_t end;

    if (now < hub->sync_free_ns) {
        mirror->sync_ns = hub->sync_free_ns;
        return;
    }
    mirror_sync(mirror, now);
    end = hub_now(hub);
    hub->sync_free_ns = end + 4 * (end - now);
}

static void mirror_sync_due(struct hw_mirror *mirror, uint64_t now)
{
    bool is_much = mirror->bytes_received - mirror->synced_bytes >= SYNC_BYTES;
    bool is_broken = mirror->broken.status != HW_OK;

    if (mirror->is_dirty && mirror->sync_ns == UINT64_MAX)
        mirror->sync_ns = now + SYNC_NS;
    if (mirror->is_dirty && mirror->is_urged && !is_broken)
        mirror_sync(mirror, now);
    else if (mirror->is_dirty && ((is_much && !is_broken) || mirror->sync_ns <= now))
        mirror_sync_lazily(mirror, now);
    if (!mirror->is_dirty)
        mirror->durable = mirror->complete;
}

void mirrors_applied(struct hw_hub *hub)
{
    if (atomic_exchange(&hub->has_applied, 0) == 0)
        return;
    for (struct hub_log *log = hub->logs; log != NULL; log = log->next)
        if (log->mirror != NULL && atomic_load(&log->mirror->is_applied) != 0)
            log_touch(log);
}

static struct hw_ack ack_now(struct hw_mirror *mirror)
{
    uint64_t length = hw_core_length(mirror->log->core);

    return (struct hw_ack){
        .received =
            mirror->complete < length ? mirror->complete : length, /* not the tail's start */
        .durable = mirror->durable < length ? mirror->durable : length,
        .applied = atomic_load(&mirror->applied),
    };
}

/* One message to each server, if there is something new to tell and it is time. */
static void mirror_acknowledge(struct hw_mirror *mirror, uint64_t now)
{
    bool is_due = mirror->is_urged || mirror->ack_ns <= now;
    struct hw_ack ack;

    if (is_due || mirror->ack_ns == UINT64_MAX) /* before looking: what is applied later rings */
        atomic_store(&mirror->is_applied, 0);
    ack = ack_now(mirror);
    if (memcmp(&ack, &mirror->told, sizeof(ack)) == 0) {
        if (is_due)
            mirror->ack_ns = UINT64_MAX;
        return;
    }
    if (mirror->ack_ns == UINT64_MAX)
        mirror->ack_ns = now + ACK_NS;
    if (!is_due)
        return;
    mirror->ack_ns = UINT64_MAX;
    mirror->told = ack;
    for (size_t i = 0; i < mirror->source_count; i++) {
        struct hub_conn *conn = mirror->sources[i].conn;
        struct hw_error err = {0};

        if (!mirror->sources[i].is_linked)
            continue;
        if (hw_peer_acknowledge(conn->peer, mirror->log->replication, mirror->replica_id, &ack,
                                &err) != HW_OK)
            conn_doom(conn, &err);
        conn_touch(conn);
    }
}

static bool is_urged(const struct hw_mirror *mirror)
{
    for (size_t i = 0; i < mirror->source_count; i++) {
        const struct hub_source *source = &mirror->sources[i];
        const struct hub_link *link =
            source->is_linked ? link_find(source->conn, mirror->log) : NULL;

        if (link != NULL && link->urges)
            return true;
    }
    return false;
}

/* Is there somebody who would find what he waits for, or that it will not come? */
static bool is_awaited(const struct hw_mirror *mirror)
{
    for (const struct hub_waiter *w = mirror->waiters; w != NULL; w = w->next) {
        enum hw_availability where;

        if (w->block == UINT64_MAX) {
            if (mirror->has_news)
                return true;
            continue;
        }
        where = hw_replication_availability(mirror->log->replication, w->block);
        if (where == HW_BLOCK_HELD || where == HW_BLOCK_NOBODY)
            return true;
    }
    return false;
}

void mirror_work(struct hw_mirror *mirror, uint64_t now)
{
    mirror->is_urged = is_urged(mirror);
    atomic_store(&mirror->is_hasty, mirror->is_urged);
    count_bytes(mirror);
    mirror_publish(mirror);
    mirror_advance(mirror);
    mirror_sync_due(mirror, now);
    mirror_acknowledge(mirror, now);
    if (is_awaited(mirror))
        mirror_wake(mirror);
    mirror->has_news = false;
    mirror->due_ns = mirror->sync_ns < mirror->ack_ns ? mirror->sync_ns : mirror->ack_ns;
    if (mirror->check_ns < mirror->due_ns)
        mirror->due_ns = mirror->check_ns;
    hub_timer(mirror->hub, mirror->due_ns);
}

/* -------------------------------------------------------------------------- open, close */

static enum hw_status lock_take(struct hw_mirror *mirror, const char *dir, struct hw_error *err)
{
    struct hw_env *env = mirror->hub->env;
    char *path = hw_format("%s/mirror.lock", dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to follow", dir);
    status = env->ops->open(env, path,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                            &mirror->lock, err);
    if (status == HW_OK)
        status = env->ops->lock(mirror->lock, false, err);
    if (status == HW_EBUSY)
        hw_fail(err, HW_EBUSY, "%s: another process fetches this log", dir);
    hw_free(path);
    return status;
}

static enum hw_status core_open(struct hw_mirror *mirror, const char *dir,
                                const uint8_t key[HW_KEY_SIZE], struct hw_core **out,
                                struct hw_error *err)
{
    struct hw_env *env = mirror->hub->env;
    char text[2 * HW_KEY_SIZE + 1];
    enum hw_status status = hw_core_open(env, dir, HW_CORE_MIRROR, UINT64_MAX, out, err);

    if (status == HW_ENOTFOUND)
        return hw_core_create_mirror(env, dir, key, out, err);
    if (status != HW_OK)
        return status;
    if (memcmp(hw_core_identity(*out)->key, key, HW_KEY_SIZE) == 0)
        return HW_OK;
    hw_key_format(hw_core_identity(*out)->key, text);
    hw_core_close(*out);
    *out = NULL;
    return hw_fail(err, HW_EFORK, "%s: holds blocks of another log, %s", dir, text);
}

static enum hw_status log_attach(struct hw_mirror *mirror, const char *dir, struct hw_error *err)
{
    struct hw_hub *hub = mirror->hub;
    struct hub_log *log = log_find_dir(hub, dir);
    enum hw_status status = HW_OK;

    if (log != NULL && log->mirror != NULL)
        return hw_fail(err, HW_EBUSY, "%s: this log is fetched already", dir);
    if (log == NULL)
        status = log_new(hub, dir, &log, err);
    if (status != HW_OK)
        return status;
    if (log->page == NULL)
        status = hw_shared_page_open(hub->env, dir, true, &log->page, err);
    if (status != HW_OK) {
        if (log->names == NULL)
            log_free(log);
        return status;
    }
    log_drop_core(log); /* it was open for reading alone */
    log->mirror = mirror;
    mirror->log = log;
    return HW_OK;
}

static void mirror_free(struct hw_mirror *mirror)
{
    struct hub_log *log = mirror->log;

    if (log != NULL) {
        log_drop_core(log);
        log->mirror = NULL;
        if (log->names == NULL)
            log_free(log);
        else
            log_look(log, hub_now(mirror->hub));
    }
    if (mirror->lock != NULL)
        mirror->hub->env->ops->close(mirror->lock);
    hw_buffer_release(&mirror->scratch);
    hw_free(mirror);
}

static struct hw_mirror *mirror_new(struct hw_hub *hub, const struct hw_mirror_options *options,
                                    struct hw_error *err)
{
    struct hw_mirror *mirror = hw_zalloc(sizeof(*mirror));

    if (mirror == NULL) {
        hw_fail(err, HW_ENOMEM, "%s: no memory to follow", options->dir);
        return NULL;
    }
    mirror->hub = hub;
    mirror->tail = UINT64_MAX;
    mirror->sync_ns = mirror->ack_ns = mirror->check_ns = mirror->due_ns = UINT64_MAX;
    mirror->told.received = UINT64_MAX; /* nothing was told */
    memcpy(mirror->replica_id, options->replica_id, sizeof(mirror->replica_id));
    mirror->source_count = options->source_count;
    for (size_t i = 0; i < options->source_count; i++) {
        mirror->sources[i].mirror = mirror;
        mirror->sources[i].address = options->sources[i];
    }
    return mirror;
}

static enum hw_status mirror_open(struct hw_hub *hub, const struct hw_mirror_options *options,
                                  struct hw_mirror **out, struct hw_error *err)
{
    struct hw_mirror *mirror = mirror_new(hub, options, err); /* owned */
    struct hw_core *core = NULL;                              /* owned */
    enum hw_status status;

    if (mirror == NULL)
        return HW_ENOMEM;
    status = hw_env_make_dir_of(hub->env, options->dir, NULL, err);
    if (status == HW_OK || status == HW_EEXIST)
        status = lock_take(mirror, options->dir, err);
    if (status == HW_OK)
        status = core_open(mirror, options->dir, options->key, &core, err);
    if (status == HW_OK)
        status = log_attach(mirror, options->dir, err);
    if (status != HW_OK)
        goto fail;
    /* What an earlier process left is told as durable only once it is. */
    mirror->is_dirty = hw_core_length(core) != 0;
    trust_load(mirror, hw_core_length(core));
    mirror->fork = hw_core_head(core).fork;
    mirror->published = UINT64_MAX;
    status = log_set_core(mirror->log, core, true, err);
    if (status != HW_OK)
        goto fail;
    mirror_publish(mirror);
    source_dial_due(mirror, hub_now(hub));
    *out = mirror;
    return HW_OK;

fail:
    hw_core_close(core);
    mirror_free(mirror);
    return status;
}

enum hw_status hw_hub_mirror_open(struct hw_hub *hub, const struct hw_mirror_options *options,
                                  struct hw_mirror **out, struct hw_error *err)
{
    enum hw_status status;

    if (options->source_count > HW_HUB_SOURCES_MAX)
        return hw_fail(err, HW_EMISUSE, "%zu sources, and %d are the most", options->source_count,
                       HW_HUB_SOURCES_MAX);
    status = hub_enter(hub, err);
    if (status != HW_OK)
        return status;
    status = mirror_open(hub, options, out, err);
    hub_leave(hub);
    return status;
}

void hw_hub_mirror_close(struct hw_mirror *mirror)
{
    struct hw_hub *hub;

    if (mirror == NULL || hub_enter(mirror->hub, NULL) != HW_OK)
        return;
    hub = mirror->hub;
    if (mirror->is_dirty)
        mirror_sync(mirror, hub_now(hub));
    if (!mirror->is_dirty)
        mirror->durable = mirror->complete;
    sources_close(mirror);
    mirror_free(mirror);
    hub_leave(hub);
}
