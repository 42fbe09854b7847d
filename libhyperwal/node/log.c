/* The logs of the hub, one a directory: found, opened, closed, flushed. */
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"

/* -------------------------------------------------------------------------------- found */

struct hub_log *log_find_dir(struct hw_hub *hub, const char *dir)
{
    struct hub_log *log = hub->logs;
    struct hw_file_stat stat;

    while (log != NULL && strcmp(log->dir, dir) != 0)
        log = log->next;
    if (log != NULL || hub->env->ops->stat(hub->env, dir, &stat, NULL) != HW_OK)
        return log;
    for (log = hub->logs; log != NULL; log = log->next)
        if (log->dir_inode == stat.inode && log->dir_device == stat.device)
            return log; /* another way to it */
    return NULL;
}

static bool has_key(const struct hub_log *log, const uint8_t discovery_key[HW_KEY_SIZE])
{
    return log->core != NULL &&
           memcmp(hw_core_identity(log->core)->discovery_key, discovery_key, HW_KEY_SIZE) == 0;
}

struct hub_log *log_find_key(const struct hub_conn *conn, const uint8_t discovery_key[HW_KEY_SIZE])
{
    const struct hw_mirror *wanted = conn->source != NULL ? conn->source->mirror : NULL;
    struct hub_log *found = NULL;

    for (struct hub_log *log = conn->hub->logs; log != NULL; log = log->next) {
        if (!has_key(log, discovery_key))
            continue;
        if (log->mirror == wanted)
            return log;
        if (found == NULL || (found->names == NULL && log->names != NULL))
            found = log;
    }
    return found;
}

static bool is_name(const struct hub_log *log, struct hw_slice name)
{
    char key[2 * HW_KEY_SIZE + 1];

    for (const struct hub_name *n = log->names; n != NULL; n = n->next)
        if (strlen(n->name) == name.size && memcmp(n->name, name.bytes, name.size) == 0)
            return true;
    if (log->names == NULL || log->core == NULL || name.size != 2 * (size_t)HW_KEY_SIZE)
        return false;
    hw_key_format(hw_core_identity(log->core)->key, key);
    return memcmp(key, name.bytes, name.size) == 0;
}

struct hub_log *log_find_name(struct hw_hub *hub, struct hw_slice name)
{
    struct hub_log *log = hub->logs;

    while (log != NULL && !is_name(log, name))
        log = log->next;
    return log;
}

static bool is_hidden(const struct hub_log *log)
{
    return log->names != NULL && log->core == NULL && log->is_unreadable;
}

bool log_may_be_hidden(struct hw_hub *hub, struct hw_slice name)
{
    const struct hub_log *log = log_find_name(hub, name);

    if (log != NULL || name.size != 2 * (size_t)HW_KEY_SIZE)
        return log != NULL && is_hidden(log);
    for (log = hub->logs; log != NULL; log = log->next)
        if (is_hidden(log)) /* nobody knows its key just now */
            return true;
    return false;
}

struct hub_log *log_of(struct hw_hub *hub, const struct hw_replication *replication)
{
    struct hub_log *log = hub->logs;

    while (log != NULL && log->replication != replication)
        log = log->next;
    return log;
}

/* ------------------------------------------------------------------------ begin and end */

enum hw_status log_new(struct hw_hub *hub, const char *dir, struct hub_log **out,
                       struct hw_error *err)
{
    struct hub_log *log = hw_zalloc(sizeof(*log));
    struct hw_file_stat stat;

    if (log == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to serve it", dir);
    if (hub->env->ops->stat(hub->env, dir, &stat, NULL) == HW_OK) {
        log->dir_device = stat.device;
        log->dir_inode = stat.inode;
    }
    log->dir = hw_strdup(dir);
    if (log->dir == NULL) {
        hw_free(log);
        return hw_fail(err, HW_ENOMEM, "%s: no memory to serve it", dir);
    }
    log->hub = hub;
    log->deadline_ns = UINT64_MAX;
    log->next = hub->logs;
    hub->logs = log;
    *out = log;
    return HW_OK;
}

static void log_untouch(struct hub_log *log)
{
    struct hub_log **at = &log->hub->touched_logs;

    if (!log->is_touched)
        return;
    while (*at != log)
        at = &(*at)->next_touched;
    *at = log->next_touched;
    log->is_touched = false;
}

void log_free(struct hub_log *log)
{
    struct hub_log **at = &log->hub->logs;

    if (log->kept != NULL)
        log_free(log->kept);
    if (log->heir != NULL)
        log->heir->kept = NULL;
    log_drop_core(log);
    writes_free(log->writes);
    log_untouch(log);
    while (*at != log)
        at = &(*at)->next;
    *at = log->next;
    while (log->names != NULL) {
        struct hub_name *name = log->names;

        log->names = name->next;
        log->hub->served_count--;
        hw_free(name->name);
        hw_free(name);
    }
    if (log->has_watch && log->hub->bell != NULL)
        hw_bell_unwatch(log->hub->bell, log->watch);
    hw_peer_table_close(log->table);
    hw_shared_page_close(log->page);
    hw_free(log->dir);
    hw_free(log);
}

void log_close_links(struct hub_log *log)
{
    while (log->links != NULL) {
        struct hub_link *link = log->links;
        struct hub_conn *conn = link->conn;
        struct hw_error err = {0};

        hw_peer_unlink(conn->peer, log->replication);
        if (link_find(conn, log) == link)
            link_remove(link);
        hw_fail(&err, HW_END, "%s: opened anew", log->dir);
        if (conn->source != NULL && conn->source->mirror == log->mirror)
            conn_doom(conn, &err);
        conn_touch(conn);
    }
}

static enum hw_status replication_new(struct hub_log *log, struct hw_core *core, bool fetches,
                                      struct hw_replication **out, struct hw_error *err)
{
    const struct hw_replication_options options = {
        .env = log->hub->env,
        .core = core,
        .fetches = fetches,
        .arrived = fetches ? mirror_arrived : NULL,
        .upgraded = fetches ? mirror_upgraded : NULL,
        .broken = fetches ? mirror_broken : NULL,
        .overtaken = hw_core_is_mirror(core) ? NULL : log_overtaken,
        .ctx = fetches ? (void *)log->mirror : (void *)log,
    };

    return hw_replication_new(&options, out, err);
}

enum hw_status log_set_core(struct hub_log *log, struct hw_core *core, bool fetches,
                            struct hw_error *err)
{
    enum hw_status status = replication_new(log, core, fetches, &log->replication, err);

    if (status != HW_OK)
        return status;
    log->core = core;
    log_touch(log);
    return HW_OK;
}

enum hw_status log_replace_core(struct hub_log *log, struct hw_core *core, struct hw_error *err)
{
    struct hw_replication *replication = NULL;
    enum hw_status status = replication_new(log, core, log->mirror != NULL, &replication, err);

    if (status != HW_OK)
        return status;
    log_drop_core(log);
    log->core = core;
    log->replication = replication;
    log_touch(log);
    return HW_OK;
}

/* Channels that are being opened have no link yet: the peers know them by the replication. */
void log_drop_core(struct hub_log *log)
{
    if (log->core == NULL)
        return;
    log_close_links(log);
    for (struct hub_conn *conn = log->hub->conns; conn != NULL; conn = conn->next)
        if (conn->peer != NULL)
            hw_peer_unlink(conn->peer, log->replication);
    hw_replication_free(log->replication);
    hw_core_close(log->core);
    log->replication = NULL;
    log->core = NULL;
    log->is_urged = false;
    log->is_shown = false; /* whoever has more proves it again */
    log->is_searched = false;
    if (log->kept != NULL) /* the next log here may go on from another one */
        log_free(log->kept);
}

/* -------------------------------------------------------------------------------- flush */

bool log_is_behind(const struct hub_link *link)
{
    const struct hw_link *wire = hw_peer_link_of(link->conn->peer, link->log->replication);
    struct hw_link_status status;

    if (wire == NULL)
        return false;
    hw_link_status(wire, &status);
    return status.remote_length > link->log->length ||
           status.remote_fork > hw_core_head(link->log->core).fork;
}

void log_touch(struct hub_log *log)
{
    if (log->is_touched)
        return;
    log->is_touched = true;
    log->next_touched = log->hub->touched_logs;
    log->hub->touched_logs = log;
}

/* The one whose link the replication wants dropped; the hub may have had no memory to note it. */
static void drop_link(struct hub_log *log, const struct hw_link *dropped,
                      const struct hw_error *why)
{
    for (struct hub_conn *conn = log->hub->conns; conn != NULL; conn = conn->next) {
        struct hub_link *link;

        if (conn->peer == NULL || !hw_peer_has_link(conn->peer, dropped))
            continue;
        conn_doom(conn, why); /* before unlinked() says that it was closed */
        hw_peer_unlink(conn->peer, log->replication);
        link = link_find(conn, log);
        if (link != NULL)
            link_remove(link);
        return;
    }
}

static void log_flush_one(struct hub_log *log, uint64_t now)
{
    struct hw_link *dropped;
    struct hw_error err = {0};
    uint64_t deadline = UINT64_MAX;

    if (log->is_shown)
        overtaken_settle(log, now);
    if (log->replication == NULL)
        return;
    if (log->mirror != NULL) {
        mirror_work(log->mirror, now);
        log_serve_kept(log);
    }
    while (hw_replication_tick(log->replication, now, &dropped, &deadline, &err) == HW_OK)
        drop_link(log, dropped, &err);
    log->tick_ns = deadline;
    hub_timer(log->hub, deadline);
    for (struct hub_link *l = log->links; l != NULL; l = l->next_of_log)
        conn_touch(l->conn);
}

void log_flush(struct hw_hub *hub, uint64_t now)
{
    while (hub->touched_logs != NULL) {
        struct hub_log *log = hub->touched_logs;

        log_untouch(log);
        log_flush_one(log, now);
    }
}

void log_timers(struct hw_hub *hub, uint64_t now)
{
    for (struct hub_log *log = hub->logs; log != NULL; log = log->next) {
        if (log->mirror != NULL) {
            source_dial_due(log->mirror, now);
            writer_due(log->mirror, now);
            if (log->mirror->due_ns <= now)
                log_touch(log);
            else
                hub_timer(hub, log->mirror->due_ns);
        } else if (log->deadline_ns <= now) {
            log_look(log, now);
        } else {
            hub_timer(hub, log->deadline_ns);
        }
        writes_work(log, now);
        if (log->replication != NULL && (log->tick_ns <= now || log->is_shown))
            log_touch(log);
        else if (log->replication != NULL)
            hub_timer(hub, log->tick_ns);
    }
}

void log_rang(struct hw_hub *hub, int watch)
{
    uint64_t now = hub_now(hub);

    for (struct hub_log *log = hub->logs; log != NULL; log = log->next)
        if (log->mirror == NULL && (watch < 0 || (log->has_watch && log->watch == watch)))
            log_look(log, now);
}
