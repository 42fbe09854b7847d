/* What peers ask of the hub: who may come in, which logs there are, what followers say. */
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"

/* -------------------------------------------------------------------------------- links */

struct hub_link *link_find(const struct hub_conn *conn, const struct hub_log *log)
{
    for (struct hub_link *l = conn->links; l != NULL; l = l->next_of_conn)
        if (l->log == log)
            return l;
    return NULL;
}

void link_remove(struct hub_link *link)
{
    struct hub_link **at = &link->conn->links;

    writes_unlinked(link);
    writer_unlinked(link);
    while (*at != link)
        at = &(*at)->next_of_conn;
    *at = link->next_of_conn;
    at = &link->log->links;
    while (*at != link)
        at = &(*at)->next_of_log;
    *at = link->next_of_log;
    link->log->link_count--;
    log_unlinked(link);
    log_touch(link->log);
    hw_free(link);
}

static void linked(void *ctx, struct hw_peer *peer, struct hw_replication *replication)
{
    struct hw_hub *hub = ctx;
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_of(hub, replication);
    struct hub_link *link;
    struct hw_error err = {0};

    if (log == NULL || link_find(conn, log) != NULL)
        return;
    link = hw_zalloc(sizeof(*link));
    if (link == NULL) {
        hw_fail(&err, HW_ENOMEM, "no memory for one more log over this connection");
        conn_doom(conn, &err);
        return;
    }
    link->conn = conn;
    link->log = log;
    link->since_ms = hub->env->ops->realtime_ms(hub->env);
    link->next_of_conn = conn->links;
    conn->links = link;
    link->next_of_log = log->links;
    log->links = link;
    log->link_count++;
    if (conn->source != NULL && conn->source->mirror == log->mirror)
        source_linked(conn->source);
    else
        log_urge(link);
    if (log->mirror == NULL && log->page != NULL)
        hw_shared_want_length(log->page, log->length);
    log_touch(log);
    conn_touch(conn);
}

static void unlinked(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                     bool was_rejected)
{
    struct hw_hub *hub = ctx;
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_of(hub, replication);
    struct hub_link *link = log != NULL ? link_find(conn, log) : NULL;
    struct hw_error err = {0};

    if (link != NULL)
        link_remove(link);
    if (conn->source == NULL || log == NULL || conn->source->mirror != log->mirror)
        return;
    if (was_rejected && !source_rejected(conn->source))
        return;
    if (was_rejected)
        hw_fail(&err, HW_ENOTFOUND, "%s: has not got this log, or not for us", conn->address);
    else
        hw_fail(&err, HW_EPROTOCOL, "%s: closed the log", conn->address);
    conn_doom(conn, &err);
}

/* ------------------------------------------------------------------------------ answers */

static enum hw_status ready(void *ctx, struct hw_peer *peer, struct hw_error *err)
{
    struct hw_hub *hub = ctx;
    struct hub_conn *conn = hw_peer_user(peer);
    char key[2 * HW_KEY_SIZE + 1];
    enum hw_status status = conn->is_outgoing ? conn_recognize(conn, err) : access_enter(conn, err);

    if (status != HW_OK) {
        conn->is_refused = !conn->is_outgoing;
        return status;
    }
    if (!conn->is_outgoing)
        hub->counts.strangers--;
    conn->is_ready = true;
    hw_key_format(hw_peer_remote_key(peer), key);
    hw_env_log(hub->env, HW_LOG_INFO, "event=peer_connected peer=%s address=%s direction=%s", key,
               conn->address, conn->is_outgoing ? "out" : "in");
    conn_touch(conn);
    return HW_OK;
}

static struct hw_replication *find(void *ctx, struct hw_peer *peer,
                                   const uint8_t discovery_key[HW_KEY_SIZE])
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_find_key(conn, discovery_key);

    if (log == NULL)
        logs_seek_kept(ctx);
    return log != NULL && access_may_link(conn, log) ? log->replication : NULL;
}

/*
 * Who may not read a name is told so whether there is such a name or not.  HW_LOOKUP_FOUND: *out is
 * a log with a core.  Of one that cannot be read now nothing is said, for "unknown" is an answer,
 * with which a replica is promoted beside its primary: the connection ends.
 */
static enum hw_lookup_status find_name(struct hub_conn *conn, struct hw_slice name,
                                       struct hub_log **out)
{
    struct hw_error err = {0};

    if (access_demand(conn, name, HW_RIGHT_READ, NULL) != HW_OK)
        return HW_LOOKUP_REFUSED;
    *out = log_find_name(conn->hub, name);
    if (*out != NULL && (*out)->core != NULL)
        return HW_LOOKUP_FOUND;
    if (!log_may_be_hidden(conn->hub, name))
        return HW_LOOKUP_UNKNOWN;
    hw_fail(&err, HW_EIO, "it asks for a log that cannot be read now");
    conn_doom(conn, &err);
    return HW_LOOKUP_REFUSED; /* which is not sent any more */
}

static enum hw_lookup_status lookup(void *ctx, struct hw_peer *peer, struct hw_slice name,
                                    uint8_t key[HW_KEY_SIZE])
{
    struct hub_log *log = NULL;
    enum hw_lookup_status status = find_name(hw_peer_user(peer), name, &log);

    (void)ctx;
    if (status == HW_LOOKUP_FOUND)
        memcpy(key, hw_core_identity(log->core)->key, HW_KEY_SIZE);
    return status;
}

static void list(void *ctx, struct hw_peer *peer,
                 void (*add)(void *list_ctx, const struct hw_name_entry *entry), void *list_ctx)
{
    struct hw_hub *hub = ctx;
    const struct hub_conn *conn = hw_peer_user(peer);

    for (const struct hub_log *log = hub->logs; log != NULL; log = log->next) {
        for (const struct hub_name *n = log->names; n != NULL && log->core != NULL; n = n->next) {
            struct hw_name_entry entry = {.name = {(const uint8_t *)n->name, strlen(n->name)}};

            if ((access_rights_of_remote(conn, entry.name) & HW_RIGHT_READ) == 0)
                continue;
            memcpy(entry.key, hw_core_identity(log->core)->key, HW_KEY_SIZE);
            add(list_ctx, &entry);
        }
    }
}

static enum hw_lookup_status state(void *ctx, struct hw_peer *peer, struct hw_slice name,
                                   struct hw_buffer *out)
{
    const struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = NULL;
    enum hw_lookup_status status = find_name(hw_peer_user(peer), name, &log);

    (void)ctx;
    if (status == HW_LOOKUP_FOUND)
        state_write(log, name, (access_rights_of_remote(conn, name) & HW_RIGHT_WRITE) != 0, out);
    return status;
}

/* -------------------------------------------------------------------- what we asked for */

static enum hw_status lookup_status(enum hw_lookup_status status, const struct hub_conn *conn,
                                    const char *name, struct hw_error *err)
{
    switch (status) {
    case HW_LOOKUP_FOUND:
        return HW_OK;
    case HW_LOOKUP_UNKNOWN:
        return hw_fail(err, HW_ENOTFOUND, "%s: knows no database \"%s\"", conn->address, name);
    case HW_LOOKUP_REFUSED:
        return hw_fail(err, HW_EREFUSED, "%s: does not let us have \"%s\"", conn->address, name);
    }
    return hw_fail(err, HW_EPROTOCOL, "%s: an answer that means nothing", conn->address);
}

static void found(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_found *answer)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_query *query = conn->query;
    struct hw_error err = {0};
    enum hw_status status;

    (void)ctx;
    if (conn->source != NULL)
        source_found(conn->source, answer);
    if (query == NULL || query->is_ask || query->is_create || query->heir_key != NULL ||
        query->is_listing || query->request != answer->request)
        return;
    status = lookup_status(answer->status, conn, query->address->name, &err);
    if (status == HW_OK)
        memcpy(query->key, answer->key, HW_KEY_SIZE);
    if (status == HW_ENOTFOUND)
        query_list(query, &err);
    else
        query_end(query, status, &err);
}

static void told(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_state *answer)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_query *query = conn->query;
    struct hw_error err = {0};
    enum hw_status status;

    (void)ctx;
    if (query == NULL || !query->is_ask || query->request != answer->request)
        return;
    status = lookup_status(answer->status, conn, query->address->name, &err);
    if (status == HW_OK) {
        hw_buffer_add(query->out, answer->json.bytes, answer->json.size);
        if (query->out->failed)
            status = hw_fail(&err, HW_ENOMEM, "no memory for the state of a database");
    }
    query_end(query, status, &err);
}

static void named(void *ctx, struct hw_peer *peer, uint64_t request,
                  const struct hw_name_entry *entry)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_query *query = conn->query;

    (void)ctx;
    if (query != NULL && query->is_listing && query->request == request)
        query_named(query, entry);
}

static void handover(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_handover *asked)
{
    (void)ctx;
    handover_asked(hw_peer_user(peer), asked);
}

static void handed(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_handed *answer)
{
    (void)ctx;
    handover_told(hw_peer_user(peer), answer);
}

static void is_plain(void *ctx, struct hw_peer *peer)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hw_error err = {0};

    (void)ctx;
    if (conn->source != NULL)
        source_found(conn->source, NULL);
    if (conn->query == NULL)
        return;
    hw_fail(&err, HW_EPROTOCOL,
            "%s: a Hypercore peer that has no names; put the log's key in place of the name",
            conn->address);
    query_end(conn->query, HW_EPROTOCOL, &err);
}

static void acknowledged(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                         const uint8_t replica_id[HW_REPLICA_ID_SIZE], const struct hw_ack *ack)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_of(ctx, replication);
    struct hub_link *link = log != NULL ? link_find(conn, log) : NULL;

    if (link == NULL)
        return;
    memcpy(link->replica_id, replica_id, HW_REPLICA_ID_SIZE);
    log_acknowledged(link, ack);
}

static void urged(void *ctx, struct hw_peer *peer, struct hw_replication *replication, bool durable)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_of(ctx, replication);
    struct hub_link *link = log != NULL ? link_find(conn, log) : NULL;

    if (link == NULL || conn->source == NULL || conn->source->mirror != log->mirror)
        return;
    link->urges = durable;
    log_touch(log);
}

/* Clients say it to the server of a database, a server to a client. */
static enum hw_status wrote(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                            const struct hw_write_message *message, struct hw_error *err)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_log *log = log_of(ctx, replication);
    struct hub_link *link = log != NULL ? link_find(conn, log) : NULL;

    if (link == NULL)
        return HW_OK;
    return log->mirror != NULL && conn->source != NULL ? writer_message(link, message, err)
                                                       : writes_message(link, message, err);
}

static enum hw_status create(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_create *wish,
                             struct hw_error *err)
{
    (void)ctx;
    return creation_asked(hw_peer_user(peer), wish, err);
}

static void created(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_created *answer)
{
    struct hub_conn *conn = hw_peer_user(peer);
    struct hub_query *query = conn->query;

    (void)ctx;
    if (query != NULL && query->is_create && query->request == answer->request)
        creation_answered(query, answer);
}

struct hw_peer_host hub_host(struct hw_hub *hub)
{
    return (struct hw_peer_host){
        .ctx = hub,
        .ready = ready,
        .find = find,
        .linked = linked,
        .unlinked = unlinked,
        .lookup = lookup,
        .list = list,
        .state = state,
        .create = create,
        .created = created,
        .found = found,
        .told = told,
        .named = named,
        .handover = handover,
        .handed = handed,
        .is_plain = is_plain,
        .acknowledged = acknowledged,
        .urged = urged,
        .wrote = wrote,
    };
}
