/*
 * Who may come in, and what for: the part of node/hub.h about access.
 *
 * Rules come by calls and from a file.  The file is read when it is not the one that was read last:
 * looked at when its directory or itself rings, and before a connection is accepted, for the day on
 * which the system has no watches left.  One that cannot be read now is tried again soon.
 */
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"

#define NOT_LET_IN "this identity is not among those let in"

/* ----------------------------------------------------------------------------- decisions */

static bool is_own(const struct hw_hub *hub, const uint8_t *key)
{
    return memcmp(hub->identity.public_key, key, HW_IDENTITY_KEY_SIZE) == 0;
}

unsigned access_rights(const struct hw_hub *hub, const uint8_t *key, struct hw_slice name)
{
    const struct hub_access *access = &hub->access;

    if (is_own(hub, key))
        return HW_RIGHTS_ALL;
    if (!access->has_rules)
        return HW_RIGHT_READ;
    return hw_rules_rights(&access->given, key, name) | hw_rules_rights(&access->filed, key, name);
}

static struct hw_slice slice_of(const char *text)
{
    return (struct hw_slice){(const uint8_t *)text, strlen(text)};
}

unsigned access_rights_to_log(const struct hub_log *log, const uint8_t *key)
{
    unsigned all = 0;

    while (log->heir != NULL)
        log = log->heir;
    if (log->names == NULL) /* a mirror that nobody named */
        return access_rights(log->hub, key, slice_of(""));
    for (const struct hub_name *n = log->names; n != NULL; n = n->next)
        all |= access_rights(log->hub, key, slice_of(n->name));
    return all;
}

static bool has_name(const struct hub_log *log, struct hw_slice name)
{
    for (const struct hub_name *n = log->names; n != NULL; n = n->next)
        if (strlen(n->name) == name.size && memcmp(n->name, name.bytes, name.size) == 0)
            return true;
    return false;
}

/* Whom we dialed is not let in by the default: that is for those who reach our listeners. */
static bool is_outside(const struct hub_conn *conn)
{
    return conn->is_outgoing && !conn->hub->access.has_rules &&
           !is_own(conn->hub, hw_peer_remote_key(conn->peer));
}

unsigned access_rights_of_remote(const struct hub_conn *conn, struct hw_slice name)
{
    const uint8_t *key = hw_peer_remote_key(conn->peer);
    struct hub_log *log;

    if (is_outside(conn))
        return 0;
    log = log_find_name(conn->hub, name);
    return log != NULL && !has_name(log, name) ? access_rights_to_log(log, key)
                                               : access_rights(conn->hub, key, name);
}

static bool may_link(const struct hub_conn *conn, const struct hub_log *log)
{
    if (conn->source != NULL && conn->source->mirror == log->mirror)
        return true; /* it is where we have it from */
    return !is_outside(conn) &&
           (access_rights_to_log(log, hw_peer_remote_key(conn->peer)) & HW_RIGHT_READ) != 0;
}

static bool may_enter(const struct hub_conn *conn)
{
    const struct hub_access *access = &conn->hub->access;
    const uint8_t *key = hw_peer_remote_key(conn->peer);

    return !access->has_rules || is_own(conn->hub, key) || hw_rules_know(&access->given, key) ||
           hw_rules_know(&access->filed, key);
}

enum hw_status access_enter(struct hub_conn *conn, struct hw_error *err)
{
    return may_enter(conn) ? HW_OK : hw_fail(err, HW_EREFUSED, NOT_LET_IN);
}

enum hw_status access_demand(struct hub_conn *conn, struct hw_slice name, enum hw_right right,
                             struct hw_error *err)
{
    const char *word = hw_right_name(right);
    struct hw_error own = {0};

    if ((access_rights_of_remote(conn, name) & right) != 0)
        return HW_OK;
    hw_fail(&own, HW_EREFUSED, "no rule gives this identity the right to %s it", word);
    conn_tell_refusal(conn, name, word, own.message);
    if (err != NULL)
        *err = own;
    return HW_EREFUSED;
}

bool access_may_link(struct hub_conn *conn, const struct hub_log *log)
{
    if (may_link(conn, log))
        return true;
    conn_tell_refusal(conn, slice_of(log->names != NULL ? log->names->name : ""), "read",
                      "no rule gives this identity the right to read it");
    return false;
}

/* -------------------------------------------------------------------------- rights lost */

static void unlink_log(struct hub_link *link)
{
    struct hub_conn *conn = link->conn;
    struct hub_log *log = link->log;

    conn_tell_refusal(conn, slice_of(log->names != NULL ? log->names->name : ""), "read",
                      "the right to read it was taken back");
    hw_peer_unlink(conn->peer, log->replication);
    if (link_find(conn, log) == link)
        link_remove(link);
    conn_touch(conn);
}

static bool may_write(const struct hub_link *link)
{
    const uint8_t *key = hw_peer_remote_key(link->conn->peer);

    return (access_rights_to_log(link->log, key) & HW_RIGHT_WRITE) != 0;
}

/* It may still read; the lease that it has is for others now. */
static void end_writes(struct hub_link *link)
{
    static const char why[] = "the right to write it was taken back";
    const struct hub_log *log = link->log;

    conn_tell_refusal(link->conn, slice_of(log->names != NULL ? log->names->name : ""), "write",
                      why);
    writes_refused(link, why);
}

/* There are new rules: who is here against them goes. */
static void apply(struct hw_hub *hub)
{
    for (struct hub_conn *conn = hub->conns; conn != NULL; conn = conn->next) {
        struct hub_link *next;

        if (conn->peer == NULL || !conn->is_ready || conn->is_doomed)
            continue;
        if (!conn->is_outgoing && !may_enter(conn)) {
            struct hw_error err = {0};

            hw_fail(&err, HW_EREFUSED, "its rights were taken back");
            conn->is_refused = true;
            conn_doom(conn, &err);
            continue;
        }
        for (struct hub_link *link = conn->links; link != NULL; link = next) {
            next = link->next_of_conn;
            if (!may_link(conn, link->log))
                unlink_log(link);
            else if (link->write_client != 0 && !may_write(link))
                end_writes(link);
        }
    }
}

/* ------------------------------------------------------------------------------ the file */

static bool is_same(const struct hw_file_stat *one, const struct hw_file_stat *other)
{
    return one->device == other->device && one->inode == other->inode && one->size == other->size &&
           one->modified_ns == other->modified_ns && one->changed_ns == other->changed_ns;
}

/* No file is no rules.  *stat is what it was before it was read. */
static enum hw_status file_read(struct hw_env *env, const char *path, struct hw_rules *rules,
                                struct hw_file_stat *stat, bool *is_there, struct hw_error *err)
{
    struct hw_buffer text = {0};
    enum hw_status status = env->ops->stat(env, path, stat, err);

    *is_there = status == HW_OK;
    *rules = (struct hw_rules){0};
    if (status == HW_ENOTFOUND)
        return HW_OK;
    if (status != HW_OK)
        return status;
    if (stat->is_directory || stat->is_special)
        return hw_fail(err, HW_EMISUSE, "%s: not a file", path);
    status = hw_env_check_ours(path, stat, ", and so may let anybody in", err);
    if (status != HW_OK)
        return status;
    status = hw_env_read_text(env, path, HW_RULES_TEXT_MAX, &text, err);
    if (status == HW_OK) {
        status = hw_rules_decode((struct hw_slice){text.bytes, text.size}, rules, err);
        if (status != HW_OK)
            (void)hw_prefix(err, status, "%s", path);
    }
    hw_buffer_release(&text);
    return status;
}

/* Without a watch it is looked at before a connection is accepted. */
static void file_watch(struct hub_access *access, struct hw_bell *bell)
{
    char *slash = strrchr(access->path, '/');
    int watch;

    if (bell == NULL)
        return;
    if (!access->has_dir_watch) {
        enum hw_status status;

        if (slash != NULL)
            *slash = '\0';
        status = hw_bell_watch(bell,
                               slash == NULL           ? "."
                               : slash == access->path ? "/"
                                                       : access->path,
                               &access->dir_watch, NULL);
        if (slash != NULL)
            *slash = '/';
        access->has_dir_watch = status == HW_OK;
    }
    if (!access->is_there || hw_bell_watch(bell, access->path, &watch, NULL) != HW_OK)
        return;
    if (access->has_watch && access->watch != watch)
        hw_bell_unwatch(bell, access->watch);
    access->has_watch = true;
    access->watch = watch;
}

static void file_take(struct hw_hub *hub, const struct hw_rules *rules)
{
    struct hub_access *access = &hub->access;

    hw_rules_release(&access->filed);
    access->filed = *rules;
    access->has_rules = access->has_rules || access->is_there;
    hw_env_log(hub->env, HW_LOG_INFO, "event=access_loaded file=%s rules=%zu", access->path,
               rules->count);
    apply(hub);
}

/* It is known what is in the file, be it good or bad: reading it again tells nothing new. */
static bool is_told(enum hw_status status, bool is_there)
{
    return status == HW_OK ||
           (is_there && (status == HW_EMISUSE || status == HW_ELIMIT || status == HW_EREADONLY));
}

static enum hw_status file_load(struct hw_hub *hub, struct hw_error *err)
{
    struct hub_access *access = &hub->access;
    struct hw_rules rules;
    struct hw_file_stat stat;
    bool is_there;
    enum hw_status status;

    /* The watch first: what is written from here on rings. */
    file_watch(access, hub->bell);
    status = file_read(hub->env, access->path, &rules, &stat, &is_there, err);
    access->is_unread = !is_told(status, is_there);
    if (access->is_unread) { /* nothing rings for it: it may be that rights were taken back */
        access->again_ns = hub_now(hub) + HUB_UNREADABLE_NS;
        hub_timer(hub, access->again_ns);
        return status;
    }
    access->is_there = is_there;
    if (is_there)
        access->stat = stat; /* also of a bad one, which is not read again until it changes */
    if (status != HW_OK)
        return status;
    file_watch(access, hub->bell);
    file_take(hub, &rules);
    return HW_OK;
}

static bool is_as_it_was(struct hw_hub *hub)
{
    const struct hub_access *access = &hub->access;
    struct hw_file_stat stat;
    enum hw_status status;

    if (access->is_unread)
        return false;
    status = hub->env->ops->stat(hub->env, access->path, &stat, NULL);
    return access->is_there ? status == HW_OK && is_same(&stat, &access->stat)
                            : status == HW_ENOTFOUND;
}

void access_look(struct hw_hub *hub)
{
    struct hub_access *access = &hub->access;
    bool was_unread = access->is_unread;
    struct hw_error err = {0};
    enum hw_status status;

    if (access->path == NULL || is_as_it_was(hub))
        return;
    status = file_load(hub, &err);
    if (status != HW_OK && !(was_unread && access->is_unread)) /* that was told */
        hw_env_log(hub->env, HW_LOG_ERROR,
                   "event=access_unread file=%s reason=\"%s; the rules are as they were\"",
                   access->path, err.message);
}

void access_rang(struct hw_hub *hub, int watch)
{
    const struct hub_access *access = &hub->access;

    if (watch < 0 || (access->has_watch && access->watch == watch) ||
        (access->has_dir_watch && access->dir_watch == watch))
        access_look(hub);
}

void access_due(struct hw_hub *hub, uint64_t now)
{
    const struct hub_access *access = &hub->access;

    if (!access->is_unread)
        return;
    if (access->again_ns <= now)
        access_look(hub);
    else
        hub_timer(hub, access->again_ns);
}

void access_release(struct hub_access *access)
{
    hw_rules_release(&access->given);
    hw_rules_release(&access->filed);
    hw_free(access->path);
}

/* ------------------------------------------------------------------------------- calls */

enum hw_status hw_hub_allow(struct hw_hub *hub, unsigned rights, const char *patterns,
                            const uint8_t *identity_key, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = hw_rules_add(&hub->access.given, rights, slice_of(patterns), identity_key, err);
    if (status == HW_OK)
        hub->access.has_rules = true;
    hub_leave(hub);
    return status;
}

enum hw_status hw_hub_set_rules(struct hw_hub *hub, struct hw_slice text, struct hw_error *err)
{
    struct hw_rules rules;
    enum hw_status status = hw_rules_decode(text, &rules, err);

    if (status != HW_OK)
        return status;
    status = hub_enter(hub, err);
    if (status != HW_OK) {
        hw_rules_release(&rules);
        return status;
    }
    hw_rules_release(&hub->access.given);
    hub->access.given = rules;
    hub->access.has_rules = true;
    apply(hub);
    hub_leave(hub);
    return HW_OK;
}

static enum hw_status authorize(struct hw_hub *hub, const char *path, struct hw_error *err)
{
    struct hub_access *access = &hub->access;
    enum hw_status status = HW_OK;

    if (access->path != NULL)
        return hw_fail(err, HW_EMISUSE, "%s is the file of rules already", access->path);
    if (path == NULL) {
        status = hw_config_path("authorized_keys", "HYPERWAL_AUTHORIZED_KEYS", &access->path, err);
    } else {
        access->path = hw_strdup(path);
        if (access->path == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for the path of the rules");
    }
    if (status != HW_OK)
        return path == NULL && status == HW_ENOTFOUND ? HW_OK : status; /* no place: no rules */
    status = file_load(hub, err);
    if (status == HW_OK && path != NULL && !access->is_there)
        status = hw_fail(err, HW_ENOTFOUND, "%s: there is no such file", path);
    if (status != HW_OK) {
        hw_free(access->path);
        access->path = NULL;
        access->is_there = access->is_unread = false;
    }
    return status;
}

enum hw_status hw_hub_authorize(struct hw_hub *hub, const char *path, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = authorize(hub, path, err);
    hub_leave(hub);
    return status;
}

/* Watches of the old file stay: when they ring, the new one is looked at in vain. */
static enum hw_status authorize_instead(struct hw_hub *hub, const char *path, struct hw_error *err)
{
    struct hub_access *access = &hub->access;
    struct hw_rules rules;
    struct hw_file_stat stat;
    bool is_there;
    char *copy = NULL;
    enum hw_status status = file_read(hub->env, path, &rules, &stat, &is_there, err);

    if (status == HW_OK && !is_there)
        status = hw_fail(err, HW_ENOTFOUND, "%s: there is no such file", path);
    if (status == HW_OK) {
        copy = hw_strdup(path);
        if (copy == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for the path of the rules");
    }
    if (status != HW_OK) {
        hw_rules_release(&rules);
        return status;
    }
    hw_free(access->path);
    access->path = copy;
    access->stat = stat;
    access->is_there = true;
    access->is_unread = false;
    access->has_watch = access->has_dir_watch = false;
    file_watch(access, hub->bell);
    file_take(hub, &rules);
    access_look(hub); /* what was written before the watch did not ring */
    return HW_OK;
}

enum hw_status hw_hub_authorize_instead(struct hw_hub *hub, const char *path, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = authorize_instead(hub, path, err);
    hub_leave(hub);
    return status;
}

enum hw_status hw_hub_reload_access(struct hw_hub *hub, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    if (hub->access.path != NULL)
        status = file_load(hub, err);
    hub_leave(hub);
    return status;
}

unsigned hw_hub_rights(struct hw_hub *hub, const uint8_t *identity_key, const char *name)
{
    unsigned rights;

    if (hub_enter(hub, NULL) != HW_OK)
        return 0;
    rights = access_rights(hub, identity_key, slice_of(name));
    hub_leave(hub);
    return rights;
}

enum hw_status hw_hub_listen(struct hw_hub *hub, const char *url, char bound[HW_URL_MAX],
                             struct hw_error *err)
{
    char taken[HW_URL_MAX];
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    if (!hub->access.has_rules && !hw_address_is_local(url))
        status = hw_fail(err, HW_EREFUSED,
                         "%s: other machines can reach it, and nobody was allowed in; allow "
                         "identity keys, or any",
                         url);
    else
        status = hub->transport->ops->listen(hub->transport, url, taken, sizeof(taken), err);
    hub_leave(hub);
    if (status == HW_OK && bound != NULL)
        memcpy(bound, taken, sizeof(taken));
    return status;
}
