/*
 * Where a mirror gets its log from.
 *
 *     WAITING ──deadline──▶ DIALING ──▶ CONNECTED ──channel open──▶ LINKED
 *        ▲                     │            │                          │
 *        └── backoff, or ten ◀─┴────────────┴──────────────────────────┘
 *            minutes after a false proof
 */
#include <stdio.h>
#include <string.h>

#include "node/hub_internal.h"

enum { NS_PER_MS = 1000000 };
#define BACKOFF_MIN_NS (100 * (uint64_t)NS_PER_MS)
#define BACKOFF_MAX_NS (10000 * (uint64_t)NS_PER_MS)
#define LASTING_NS     (1000 * (uint64_t)NS_PER_MS)   /* a link that ends sooner is a failure */
#define ANSWER_NS      (10000 * (uint64_t)NS_PER_MS)  /* for which log has the name */
#define BAN_NS         (600000 * (uint64_t)NS_PER_MS) /* for a false proof */

/*
 * The name may mean another log by now: one that goes on from ours.  Asked each time, since a
 * server that keeps the old one gives it, too.
 */
static void ask_name(struct hub_source *source)
{
    const struct hw_address *address = &source->address;

    source->is_asked = source->is_rejected = false;
    if (!address->has_key)
        source->is_asked =
            hw_peer_lookup(source->conn->peer, address->name, &source->request, NULL) == HW_OK;
}

void source_ready(struct hub_source *source)
{
    struct hw_error err = {0};

    ask_name(source);
    if (hw_peer_link(source->conn->peer, source->mirror->log->replication, &err) != HW_OK)
        conn_doom(source->conn, &err);
}

/* It has no answer for us, or none any more: what is it still connected for? */
static void answered(struct hub_source *source)
{
    struct hw_error err = {0};

    source->is_asked = false;
    if (!source->is_rejected)
        return;
    hw_fail(&err, HW_ENOTFOUND, "%s: has not got this log, or not for us", source->conn->address);
    conn_doom(source->conn, &err);
}

void source_found(struct hub_source *source, const struct hw_hyperwal_found *answer)
{
    struct hw_mirror *mirror = source->mirror;
    size_t index = (size_t)(source - mirror->sources);
    const uint8_t *key = hw_core_identity(mirror->log->core)->key;

    if (!source->is_asked || (answer != NULL && answer->request != source->request))
        return;
    if (answer != NULL && answer->status == HW_LOOKUP_FOUND) {
        if (memcmp(answer->key, key, HW_KEY_SIZE) != 0) {
            mirror->has_moved = true;
            mirror->moved_source = index;
            memcpy(mirror->moved_key, answer->key, HW_KEY_SIZE);
            mirror->has_news = true;
            hw_shared_wake(mirror->log->page); /* who applies sleeps there */
            log_touch(mirror->log);
        } else if (mirror->has_moved && mirror->moved_source == index) {
            mirror->has_moved = false;
        }
    }
    answered(source);
}

bool source_rejected(struct hub_source *source)
{
    source->is_rejected = source->is_asked;
    if (source->is_rejected) {
        source->deadline_ns = hub_now(source->mirror->hub) + ANSWER_NS;
        hub_timer(source->mirror->hub, source->deadline_ns);
    }
    return !source->is_rejected;
}

void source_linked(struct hub_source *source)
{
    source->is_linked = true;
    source->deadline_ns = hub_now(source->mirror->hub) + LASTING_NS;
    source->problem[0] = '\0';
    source->mirror->told.received = UINT64_MAX; /* this one knows nothing of us yet */
    source->mirror->has_news = true;            /* who waits may go on */
    log_touch(source->mirror->log);
}

/* Half of it is certain, the other half by chance: those who were cut off together come apart. */
static uint64_t backoff_next(struct hub_source *source)
{
    struct hw_env *env = source->mirror->hub->env;
    uint64_t chance = 0;

    source->backoff_ns = source->backoff_ns == 0 ? BACKOFF_MIN_NS : 2 * source->backoff_ns;
    if (source->backoff_ns > BACKOFF_MAX_NS)
        source->backoff_ns = BACKOFF_MAX_NS;
    env->ops->random(env, &chance, sizeof(chance));
    return source->backoff_ns / 2 + chance % (source->backoff_ns / 2);
}

void source_lost(struct hub_source *source, const struct hw_error *why)
{
    struct hw_mirror *mirror = source->mirror;

    if (source->is_linked && hub_now(mirror->hub) >= source->deadline_ns) {
        source->backoff_ns = 0;
        source->is_forked = false;
    }
    source->conn = NULL;
    source->is_linked = source->is_asked = source->is_rejected = false;
    mirror->bytes_of_closed += source->bytes;
    source->bytes = 0;
    snprintf(source->problem, sizeof(source->problem), "%.150s", why->message);
    mirror->has_news = true; /* who waits may learn why */
    log_touch(mirror->log);
    if (why->status == HW_EPROOF) {
        hw_env_log(mirror->hub->env, HW_LOG_ERROR,
                   "event=source_banned log=%s address=%s minutes=10 reason=\"%s\"",
                   mirror->log->dir, source->address.dial, why->message);
        source->deadline_ns = hub_now(mirror->hub) + BAN_NS;
    } else {
        bool is_forked = why->status == HW_EFORK && !source->is_forked;

        if (source->backoff_ns == 0 || is_forked) /* once, not each time it is dialed in vain */
            hw_env_log(mirror->hub->env, HW_LOG_WARN,
                       "event=source_lost log=%s address=%s reason=\"%s\"", mirror->log->dir,
                       source->address.dial, why->message);
        source->is_forked = source->is_forked || is_forked;
        source->deadline_ns = hub_now(mirror->hub) + backoff_next(source);
    }
    hub_timer(mirror->hub, source->deadline_ns);
}

void source_dial_due(struct hw_mirror *mirror, uint64_t now)
{
    for (size_t i = 0; i < mirror->source_count; i++) {
        struct hub_source *source = &mirror->sources[i];
        struct hw_error err = {0};

        if (source->conn != NULL && source->is_rejected && source->deadline_ns <= now)
            answered(source);
        if (source->conn != NULL || source->is_ended)
            continue;
        if (source->deadline_ns > now) {
            hub_timer(mirror->hub, source->deadline_ns);
            continue;
        }
        if (conn_dial(mirror->hub, &source->address, &source->conn, &err) != HW_OK)
            source_lost(source, &err);
        else
            source->conn->source = source;
    }
}

void sources_close(struct hw_mirror *mirror)
{
    for (size_t i = 0; i < mirror->source_count; i++) {
        struct hub_source *source = &mirror->sources[i];
        struct hub_conn *conn = source->conn;

        source->is_ended = true;
        if (conn == NULL)
            continue;
        conn->source = NULL;
        source->conn = NULL;
        source->is_linked = false;
        hw_fail(&conn->doom, HW_END, "not followed any more");
        conn_drop(conn);
    }
}

void source_problems(const struct hw_mirror *mirror, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < mirror->source_count && used < size; i++) {
        const struct hub_source *source = &mirror->sources[i];
        int n;

        if (source->is_linked)
            continue;
        n = snprintf(out + used, size - used, "%s%s", used != 0 ? "; " : "",
                     source->problem[0] != '\0' ? source->problem : source->address.dial);
        if (n > 0)
            used += (size_t)n;
    }
}
