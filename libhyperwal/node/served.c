/*
 * Logs that somebody else writes, served: looked at when their bell rings.
 *
 *     worker publishes ──▶ bell ──▶ log_look(): refresh ──▶ replication: push
 *     followers acknowledge ──▶ peer table ──▶ commits that wait
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "node/hub_internal.h"

enum { NS_PER_MS = 1000000 };
#define RETRY_MIN_NS   (100 * (uint64_t)NS_PER_MS)
#define RETRY_MAX_NS   (10000 * (uint64_t)NS_PER_MS)
#define REMOTE_WAIT_NS (1000 * (uint64_t)NS_PER_MS) /* a wait is said again within this time */

/* --------------------------------------------------------------------- what is there? */

/* As all readers: with no worker since the boot, all that is whole. */
uint64_t log_durable_limit(struct hw_shared_page *page)
{
    uint64_t durable = hw_shared_durable_length(page);

    return durable == 0 && hw_shared_worker(page) == 0 ? UINT64_MAX : durable;
}

enum hw_status log_stat(struct hub_log *log, struct hw_file_stat *out, struct hw_error *err)
{
    struct hw_env *env = log->hub->env;
    char path[1024];
    enum hw_status status;

    snprintf(path, sizeof(path), "%s/log", log->dir);
    status = env->ops->stat(env, path, out, err);
    if (status != HW_ENOTFOUND)
        return status;
    snprintf(path, sizeof(path), "%s/mirror", log->dir);
    return env->ops->stat(env, path, out, err);
}

static bool is_same_file(const struct hw_file_stat *one, const struct hw_file_stat *other)
{
    return one->device == other->device && one->inode == other->inode;
}

/* Another log is in its place, or none. */
static bool is_replaced(struct hub_log *log)
{
    struct hw_file_stat stat;
    enum hw_status status = log_stat(log, &stat, NULL);

    return status == HW_ENOTFOUND || (status == HW_OK && !is_same_file(&stat, &log->stat));
}

static enum hw_status bell_stat(struct hub_log *log, struct hw_file_stat *out, struct hw_error *err)
{
    char path[1024];

    snprintf(path, sizeof(path), "%s/bell", log->dir);
    return log->hub->env->ops->stat(log->hub->env, path, out, err);
}

/* Nobody will ring the bell that we hear. */
static bool is_deaf(struct hub_log *log)
{
    struct hw_file_stat stat;

    if (!log->has_watch)
        return false;
    return bell_stat(log, &stat, NULL) != HW_OK || !is_same_file(&stat, &log->bell);
}

/* Forget all that belonged to the directory's old files. */
static void log_forget(struct hub_log *log)
{
    hw_env_log(log->hub->env, HW_LOG_WARN, "event=log_replaced log=%s", log->dir);
    log_drop_core(log);
    if (log->has_watch)
        hw_bell_unwatch(log->hub->bell, log->watch);
    log->has_watch = false;
    hw_peer_table_close(log->table);
    hw_shared_page_close(log->page);
    log->table = NULL;
    log->page = NULL;
}

/* The page, and the watch of the bell in its directory. */
static enum hw_status log_watch(struct hub_log *log, struct hw_error *err)
{
    struct hw_hub *hub = log->hub;
    char path[1024];
    enum hw_status status = HW_OK;

    if (log->page == NULL)
        status = hw_shared_page_open(hub->env, log->dir, true, &log->page, err);
    if (status != HW_OK || log->has_watch || hub->bell == NULL)
        return status;
    status = hw_shared_watch(log->page, err);
    if (status != HW_OK)
        return status;
    snprintf(path, sizeof(path), "%s/bell", log->dir);
    status = bell_stat(log, &log->bell, err);
    if (status == HW_OK)
        status = hw_bell_watch(hub->bell, path, &log->watch, err);
    log->has_watch = status == HW_OK;
    return status;
}

static enum hw_status log_open(struct hub_log *log, struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = log_stat(log, &log->stat, err);

    if (status != HW_OK)
        return status;
    status = hw_core_open(log->hub->env, log->dir, HW_CORE_READ, log_durable_limit(log->page),
                          &core, err);
    if (status != HW_OK)
        return status;
    log->length = hw_core_length(core);
    status = log_set_core(log, core, false, err);
    if (status != HW_OK)
        hw_core_close(core);
    return status;
}

static enum hw_status log_refresh(struct hub_log *log, struct hw_error *err)
{
    uint64_t limit = log_durable_limit(log->page);
    enum hw_status status = HW_OK;

    if (limit != log->length && limit != UINT64_MAX)
        status = hw_core_refresh(log->core, limit, err);
    if (status != HW_OK)
        return status;
    if (hw_core_length(log->core) != log->length) {
        log->length = hw_core_length(log->core);
        hw_replication_grown(log->replication);
        log_touch(log);
    }
    return HW_OK;
}

void log_look(struct hub_log *log, uint64_t now)
{
    struct hw_env *env = log->hub->env;
    struct hw_error err = {0};
    enum hw_status status;

    log->deadline_ns = UINT64_MAX;
    if ((log->core != NULL && is_replaced(log) && !log_take_prune(log)) || is_deaf(log))
        log_forget(log);
    status = log_watch(log, &err);
    if (status == HW_OK)
        status = log->core == NULL ? log_open(log, &err) : log_refresh(log, &err);
    log->is_unreadable = status != HW_OK && status != HW_ENOTFOUND;
    if (status == HW_OK) {
        log->retry_ns = 0;
        log_serve_kept(log);
        log_urge_all(log, now);
        if (log->link_count != 0)
            hw_shared_want_length(log->page, log->length);
        return;
    }
    log_drop_core(log);
    if (status == HW_ENOTFOUND && log->has_watch)
        return; /* no log yet: its first batch rings */
    log->retry_ns = log->retry_ns == 0 ? RETRY_MIN_NS : 2 * log->retry_ns;
    if (log->retry_ns > RETRY_MAX_NS)
        log->retry_ns = RETRY_MAX_NS;
    log->deadline_ns = now + log->retry_ns;
    hub_timer(log->hub, log->deadline_ns);
    if (status != HW_ENOTFOUND)
        hw_env_log(env, HW_LOG_WARN, "event=log_unreadable log=%s reason=\"%s\"", log->dir,
                   err.message);
}

/* Without a bell: what a ring would tell. */
void logs_poll(struct hw_hub *hub, uint64_t now)
{
    uint64_t since;

    for (struct hub_log *log = hub->logs; log != NULL; log = log->next)
        if (log->mirror == NULL && log->core != NULL &&
            (hw_shared_durable_length(log->page) != log->length ||
             (!log->is_urged && hw_shared_remote_wait(log->page, &since) != 0 &&
              now < since + REMOTE_WAIT_NS)))
            log_look(log, now);
}

/* ----------------------------------------------------------------------------- urgency */

void log_urge(struct hub_link *link)
{
    struct hub_log *log = link->log;
    struct hw_error err = {0};

    if (link->is_urged == log->is_urged)
        return;
    link->is_urged = log->is_urged;
    if (hw_peer_urge(link->conn->peer, log->replication, log->is_urged, &err) != HW_OK)
        conn_doom(link->conn, &err);
    conn_touch(link->conn);
}

void log_urge_all(struct hub_log *log, uint64_t now)
{
    uint64_t since = 0;

    if (log->page == NULL || log->mirror != NULL)
        return;
    log->is_urged = hw_shared_remote_wait(log->page, &since) != 0 && now < since + REMOTE_WAIT_NS;
    if (log->is_urged) {
        log->deadline_ns =
            since + REMOTE_WAIT_NS; /* then nobody waits any more, or said so again */
        hub_timer(log->hub, log->deadline_ns);
    }
    for (struct hub_link *link = log->links; link != NULL; link = link->next_of_log)
        log_urge(link);
}

/* ----------------------------------------------------------------------- who follows */

static void row_fill(const struct hub_link *link, bool is_connected, struct hw_peer_row *row)
{
    const struct hub_conn *conn = link->conn;
    const uint8_t *key = hw_peer_remote_key(conn->peer);
    const struct hw_link *wire = hw_peer_link_of(conn->peer, link->log->replication);
    const struct hw_slice parts[] = {{key, HW_IDENTITY_KEY_SIZE},
                                     {link->replica_id, HW_REPLICA_ID_SIZE}};
    static const uint8_t zeros[HW_REPLICA_ID_SIZE];
    uint8_t hash[HW_HASH_SIZE];

    *row = (struct hw_peer_row){
        .process_id = is_connected ? conn->hub->process_id : 0,
        .counts = memcmp(link->replica_id, zeros, sizeof(zeros)) != 0,
        .received = link->ack.received,
        .durable = link->ack.durable,
        .applied = link->ack.applied,
        .since_ms = link->since_ms,
    };
    hw_hash(parts, 2, hash);
    memcpy(row->id, hash, sizeof(row->id));
    memcpy(row->key, key, sizeof(row->key));
    snprintf(row->address, sizeof(row->address), "%.*s", HW_PEER_ADDRESS_SIZE - 1, conn->address);
    row->length = link->ack.received;
    if (wire != NULL) {
        struct hw_link_status status;

        hw_link_status(wire, &status);
        row->length = status.remote_length;
    }
}

/* What a follower says cannot be true beyond what there is. */
static void ack_bound(struct hw_ack *ack, uint64_t length)
{
    if (ack->received > length)
        ack->received = length;
    if (ack->durable > ack->received)
        ack->durable = ack->received;
    if (ack->applied > length)
        ack->applied = length;
}

/*
 * What of it is about our history?  One that is still on another fork, or has more than was ever
 * published here, may hold other blocks in the place of ours.
 */
static struct hw_ack ack_of_ours(const struct hub_link *link, const struct hw_ack *ack)
{
    const struct hub_log *log = link->log;
    const struct hw_link *wire = hw_peer_link_of(link->conn->peer, log->replication);
    struct hw_core_head head = hw_core_head(log->core);
    uint64_t published = hw_shared_durable_length(log->page);
    struct hw_link_status status = {0};
    struct hw_ack out = *ack;

    if (wire != NULL)
        hw_link_status(wire, &status);
    if (published < head.length)
        published = head.length;
    if (wire == NULL || status.remote_fork != head.fork || ack->received > published)
        return (struct hw_ack){0, 0, 0};
    if (ack->applied > published)
        out.applied = 0;
    return out;
}

void log_acknowledged(struct hub_link *link, const struct hw_ack *ack)
{
    struct hub_log *log = link->log;
    struct hw_env *env = log->hub->env;
    struct hw_peer_row row;
    struct hw_error err = {0};
    enum hw_status status = HW_OK;

    if (log->page == NULL)
        return;
    link->ack = ack_of_ours(link, ack);
    link->has_ack = true;
    ack_bound(&link->ack, hw_core_length(log->core));
    row_fill(link, true, &row);
    if (log->table == NULL) {
        status = hw_peer_table_open(env, log->dir, true, &log->table, &err);
        if (status == HW_OK)
            status = hw_peer_table_set_fork(log->table, hw_core_head(log->core).fork, &err);
        if (status != HW_OK) {
            hw_peer_table_close(log->table);
            log->table = NULL;
        }
    }
    if (link->has_row) /* others may have taken it since */
        link->has_row = hw_peer_table_set(log->table, link->row, &row);
    if (status == HW_OK && !link->has_row) {
        status = hw_peer_table_claim(log->table, &row, &link->row, &err);
        link->has_row = status == HW_OK;
    }
    if (status != HW_OK) { /* commits that wait for it will say that nobody confirmed */
        hw_env_log(env, HW_LOG_WARN, "event=peer_uncounted address=%s reason=\"%s\"",
                   link->conn->address, err.message);
        return;
    }
    hw_shared_wake(log->page);
}

void log_unlinked(struct hub_link *link)
{
    struct hw_peer_row row;

    if (!link->has_row || link->log->table == NULL)
        return;
    row_fill(link, false, &row);
    (void)hw_peer_table_set(link->log->table, link->row, &row); /* false: another follower has it */
    hw_shared_wake(link->log->page);
}

/* -------------------------------------------------------------------- serve, unserve */

static enum hw_status name_add(struct hub_log *log, const char *name, struct hw_error *err)
{
    struct hub_name *n = hw_zalloc(sizeof(*n));

    if (n != NULL)
        n->name = hw_strdup(name);
    if (n == NULL || n->name == NULL) {
        hw_free(n);
        return hw_fail(err, HW_ENOMEM, "no memory to serve %s", name);
    }
    n->next = log->names;
    log->names = n;
    log->hub->served_count++;
    return HW_OK;
}

static struct hub_log *find_name(struct hw_hub *hub, const char *name)
{
    return log_find_name(hub, (struct hw_slice){(const uint8_t *)name, strlen(name)});
}

static enum hw_status serve(struct hw_hub *hub, const char *name, const char *dir,
                            struct hw_error *err)
{
    struct hub_log *named = find_name(hub, name), *log = log_find_dir(hub, dir);
    bool is_new = log == NULL;
    enum hw_status status = HW_OK;

    if (named != NULL && named == log)
        return HW_OK;
    if (named != NULL)
        return hw_fail(err, HW_EEXIST, "%s: the name is that of %s already", name, named->dir);
    if (name[0] == '\0' || strlen(name) > HW_NAME_MAX)
        return hw_fail(err, HW_EMISUSE, "%s: a name has 1 to %d bytes", name, HW_NAME_MAX);
    if (hub->served_count >= HW_HUB_SERVED_MAX)
        return hw_fail(err, HW_ELIMIT, "%d databases are served already", HW_HUB_SERVED_MAX);
    if (is_new) {
        status = hw_env_make_dir_of(hub->env, dir, NULL, err); /* capture finds it made */
        if (status == HW_OK || status == HW_EEXIST)
            status = log_new(hub, dir, &log, err);
    }
    if (status != HW_OK)
        return status;
    status = name_add(log, name, err);
    if (status == HW_OK && is_new)
        status = log_watch(log, err);
    if (status == HW_OK && log->mirror == NULL)
        log_look(log, hub_now(hub));
    else if (status != HW_OK && is_new)
        log_free(log);
    return status;
}

enum hw_status hw_hub_serve(struct hw_hub *hub, const char *name, const char *dir,
                            struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = serve(hub, name, dir, err);
    hub_leave(hub);
    return status;
}

void hw_hub_unserve(struct hw_hub *hub, const char *name)
{
    struct hub_log *log;

    if (hub_enter(hub, NULL) != HW_OK)
        return;
    log = find_name(hub, name);
    for (struct hub_name **at = log != NULL ? &log->names : NULL; at != NULL && *at != NULL;) {
        struct hub_name *n = *at;

        if (strcmp(n->name, name) == 0) {
            *at = n->next;
            hw_free(n->name);
            hw_free(n);
            hub->served_count--;
        } else {
            at = &n->next;
        }
    }
    if (log != NULL && log->names == NULL && log->mirror == NULL)
        log_free(log);
    hub_leave(hub);
}
