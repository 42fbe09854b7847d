/* Implements the hub of node/hub.h: the loop, and the way in and out of it. */
#include "node/hub.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "node/hub_internal.h"

enum { RANG_MAX = 64 };

/* -------------------------------------------------------------------------------- mutex */

static void hub_lock(struct hw_hub *hub)
{
    hw_mutex_lock(&hub->door);
    hw_mutex_lock(&hub->mutex);
    hw_mutex_unlock(&hub->door);
}

enum hw_status hub_enter(struct hw_hub *hub, struct hw_error *err)
{
    if (hub->env->ops->process_id(hub->env) != hub->process_id)
        return hw_fail(err, HW_EMISUSE,
                       "this process was forked from the one that serves and follows; open anew");
    hub_lock(hub);
    return HW_OK;
}

static void hub_ring(void *ctx)
{
    struct hw_hub *hub = ctx;

    if (hub->bell != NULL)
        hw_bell_ring(hub->bell);
}

void hub_leave(struct hw_hub *hub)
{
    hw_mutex_unlock(&hub->mutex);
    hub_ring(hub);
}

uint64_t hub_now(struct hw_hub *hub)
{
    return hub->env->ops->monotonic_ns(hub->env);
}

void hub_timer(struct hw_hub *hub, uint64_t deadline_ns)
{
    if (deadline_ns < hub->next_ns)
        hub->next_ns = deadline_ns;
}

void hub_sleep(struct hw_hub *hub, _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns)
{
    uint64_t now = hub_now(hub);
    uint64_t wait_ns = deadline_ns == UINT64_MAX ? UINT64_MAX
                       : deadline_ns > now       ? deadline_ns - now
                                                 : 0;

    hub_leave(hub);
    hub->env->ops->wait_word(hub->env, hub_word(word), seen, wait_ns);
    hub_lock(hub);
}

void hub_wake(struct hw_hub *hub, _Atomic uint32_t *word)
{
    atomic_fetch_add(word, 1);
    hub->env->ops->wake_word(hub->env, hub_word(word));
}

/* --------------------------------------------------------------------------------- loop */

/* HW_END: nothing happened. */
static enum hw_status hub_round(struct hw_hub *hub)
{
    bool had_any = false;
    uint64_t now;

    conn_events(hub, &had_any);
    had_any = turns_take(hub) || had_any;
    now = hub_now(hub);
    if (!hub->threaded)
        logs_poll(hub, now);
    mirrors_applied(hub);
    for (struct hub_log *log = hub->logs; log != NULL; log = log->next)
        if (log->writes != NULL)
            writes_work(log, now);
    if (hub->all_rang) {
        log_rang(hub, -1);
        access_rang(hub, -1);
    }
    hub->all_rang = false;
    if (now >= hub->next_ns) {
        hub->next_ns = UINT64_MAX;
        conn_timers(hub, now);
        log_timers(hub, now);
        handovers_look(hub, now);
        access_due(hub, now);
        had_any = true;
    }
    while (hub->touched_logs != NULL || hub->touched_conns != NULL) {
        had_any = true;
        log_flush(hub, now);
        conn_flush(hub, now);
    }
    return had_any ? HW_OK : HW_END;
}

/* Watches that rang while the loop slept; its own, so no mutex. */
struct rang {
    int watches[RANG_MAX];
    unsigned count;
    bool all;
};

static void note_ring(void *ctx, int watch)
{
    struct rang *rang = ctx;

    if (watch < 0 || rang->count == RANG_MAX)
        rang->all = true;
    else
        rang->watches[rang->count++] = watch;
}

static void *loop_main(void *ctx)
{
    struct hw_hub *hub = ctx;
    struct rang rang = {.all = true};

    for (;;) {
        uint64_t now, wait_ns;

        hub_lock(hub);
        if (hub->is_ending)
            break;
        hub->all_rang = rang.all;
        for (unsigned i = 0; i < rang.count && !rang.all; i++) {
            log_rang(hub, rang.watches[i]);
            access_rang(hub, rang.watches[i]);
        }
        rang = (struct rang){0};
        if (hub_round(hub) == HW_OK) {
            wait_ns = 0; /* there may be more */
        } else {
            now = hub_now(hub);
            wait_ns = hub->next_ns == UINT64_MAX ? UINT64_MAX
                      : hub->next_ns > now       ? hub->next_ns - now
                                                 : 0;
        }
        hw_mutex_unlock(&hub->mutex);
        hw_bell_wait(hub->bell, wait_ns, note_ring, &rang);
    }
    hw_mutex_unlock(&hub->mutex);
    return NULL;
}

enum hw_status hw_hub_step(struct hw_hub *hub, uint64_t *deadline_ns, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    assert(!hub->threaded);
    status = hub_round(hub);
    *deadline_ns = hub->next_ns;
    hub_leave(hub);
    return status;
}

/* -------------------------------------------------------------------------- open, close */

static void hub_free(struct hw_hub *hub)
{
    conn_close_all(hub);
    while (hub->logs != NULL)
        log_free(hub->logs);
    if (hub->transport != NULL)
        hub->transport->ops->free(hub->transport);
    conn_free_all(hub);
    creations_release(hub);
    access_release(&hub->access);
    hw_free(hub->known_servers);
    hw_bell_close(hub->bell);
    hw_mutex_release(&hub->mutex);
    hw_mutex_release(&hub->door);
    memset(hub->identity.secret_key, 0, sizeof(hub->identity.secret_key));
    hw_free(hub);
}

enum hw_status hw_hub_open(const struct hw_hub_options *options, struct hw_hub **out,
                           struct hw_error *err)
{
    struct hw_hub *hub = hw_zalloc(sizeof(*hub)); /* owned */
    enum hw_status status = HW_OK;

    if (hub == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a node");
    hub->env = options->env;
    hub->identity = options->identity;
    hub->threaded = options->threaded;
    hub->process_id = hub->env->ops->process_id(hub->env);
    hub->next_ns = UINT64_MAX;
    hw_mutex_init(&hub->mutex);
    hw_mutex_init(&hub->door);
    if (options->known_servers != NULL) {
        hub->known_servers = hw_strdup(options->known_servers);
        if (hub->known_servers == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for a node");
    }
    if (status == HW_OK && (hub->threaded || options->transport == NULL))
        status = hw_bell_open(hub->env, &hub->bell, err);
    if (status != HW_OK)
        goto fail;
    if (options->transport != NULL)
        hub->transport = options->transport;
    else
        status = hw_transport_nng_open(hub->env, hub_ring, hub, &hub->transport, err);
    if (status != HW_OK)
        goto fail;
    if (hub->threaded)
        status = hw_thread_start(&hub->thread, loop_main, hub, err);
    if (status != HW_OK)
        goto fail;
    *out = hub;
    return HW_OK;

fail:
    if (options->transport != NULL)
        hub->transport = NULL; /* it stays the caller's */
    hub_free(hub);
    return status;
}

enum hw_status hw_hub_open_for_user(struct hw_env *env, const char *identity_file,
                                    struct hw_hub **out, struct hw_error *err)
{
    struct hw_hub_options options = {.env = env, .threaded = true};
    char *known = NULL; /* owned */
    enum hw_status status = hw_identity_load(env, identity_file, &options.identity, err);

    if (status != HW_OK)
        return status;
    status = hw_config_path("known_servers", "HYPERWAL_KNOWN_SERVERS", &known, err);
    if (status == HW_ENOTFOUND)
        status = HW_OK; /* nowhere to write them: as if all were met for the first time */
    options.known_servers = known;
    if (status == HW_OK)
        status = hw_hub_open(&options, out, err);
    hw_wipe(&options.identity, sizeof(options.identity));
    hw_free(known);
    return status;
}

void hw_hub_close(struct hw_hub *hub)
{
    if (hub == NULL || hub_enter(hub, NULL) != HW_OK)
        return; /* a forked child: its thread and its sockets are the parent's */
    hub->is_ending = true;
    hub_leave(hub);
    if (hub->threaded)
        hw_thread_join(&hub->thread);
    hub_free(hub);
}

const uint8_t *hw_hub_identity(const struct hw_hub *hub)
{
    return hub->identity.public_key;
}

/* ------------------------------------------------------------------------------- status */

size_t hw_hub_peers(struct hw_hub *hub, const char *name, struct hw_hub_peer *peers,
                    size_t capacity)
{
    struct hw_slice wanted = {(const uint8_t *)name, strlen(name)};
    struct hub_log *log;
    size_t count = 0;

    if (hub_enter(hub, NULL) != HW_OK)
        return 0;
    log = log_find_name(hub, wanted);
    for (struct hub_link *l = log != NULL ? log->links : NULL; l != NULL && count < capacity;
         l = l->next_of_log) {
        const struct hw_link *link = hw_peer_link_of(l->conn->peer, log->replication);
        const uint8_t *key = hw_peer_remote_key(l->conn->peer);
        struct hw_hub_peer *peer = &peers[count++];

        *peer = (struct hw_hub_peer){.is_outgoing = l->conn->is_outgoing, .has_ack = l->has_ack};
        if (key != NULL)
            memcpy(peer->key, key, sizeof(peer->key));
        memcpy(peer->address, l->conn->address, sizeof(peer->address));
        if (link != NULL) {
            struct hw_link_status status;

            hw_link_status(link, &status);
            peer->length = status.remote_length;
        }
        peer->received = l->ack.received;
        peer->durable = l->ack.durable;
        peer->applied = l->ack.applied;
    }
    hub_leave(hub);
    return count;
}

void hw_hub_counts(struct hw_hub *hub, struct hw_hub_counts *out)
{
    *out = (struct hw_hub_counts){0};
    if (hub_enter(hub, NULL) != HW_OK)
        return;
    *out = hub->counts;
    for (const struct hub_conn *conn = hub->conns; conn != NULL; conn = conn->next) {
        if (conn->peer == NULL)
            continue;
        out->peers++;
        out->output_bytes += hw_peer_output(conn->peer).size;
        for (const struct hub_link *l = conn->links; l != NULL; l = l->next_of_conn)
            out->links++;
    }
    hub_leave(hub);
}
