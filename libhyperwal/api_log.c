/* Implements the logs' part of include/hyperwal.h: opening, walking, waiting, verifying. */
#include "api_log.h"

#include <assert.h>
#include <string.h>

#include "api_remote.h"
#include "base/alloc.h"
#include "entry/entry.h"
#include "node/place.h"
#include "vfs/vfs.h"

/* ------------------------------------------------------------------------------- errors */

int hw_api_code(enum hw_status status)
{
    switch (status) {
    case HW_OK:
        return SQLITE_OK;
    case HW_END:
        return SQLITE_DONE;
    case HW_AGAIN: /* a progress function said stop */
        return SQLITE_INTERRUPT;
    case HW_ENOMEM:
        return SQLITE_NOMEM;
    case HW_EIO:
    case HW_EBROKEN:
        return SQLITE_IOERR;
    case HW_ENOSPC:
        return SQLITE_FULL;
    case HW_ECORRUPT:
    case HW_EPROOF:
        return HYPERWAL_CORRUPT;
    case HW_EBUSY:
    case HW_ETIMEOUT:
        return SQLITE_BUSY;
    case HW_EMISSING:
        return SQLITE_CANTOPEN;
    case HW_EREFUSED:
        return SQLITE_PERM;
    case HW_ELIMIT:
        return SQLITE_TOOBIG;
    case HW_EMISUSE:
        return SQLITE_MISUSE;
    case HW_ENOTFOUND:
    case HW_EPRUNED:
        return HYPERWAL_NOTARGET;
    case HW_EREADONLY:
        return SQLITE_READONLY;
    case HW_EPROTOCOL:
    case HW_EFORK:
    case HW_EVERSION:
    case HW_EEXIST:
        break;
    }
    return SQLITE_ERROR;
}

int hw_api_log_result(struct hyperwal_log *log, enum hw_status status, const struct hw_error *err)
{
    if (status < 0)
        log->err = *err;
    return hw_api_code(status);
}

void hw_api_tell(char **error, const struct hw_error *err)
{
    if (error != NULL)
        *error = sqlite3_mprintf("%s", err->message); /* NULL if there is no memory: allowed */
}

sqlite3_vfs *hw_api_base_vfs(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

    if (vfs != NULL && strcmp(vfs->zName, "hyperwal") == 0)
        vfs = sqlite3_vfs_find("unix");
    return hw_vfs_ground(vfs);
}

/* ------------------------------------------------------------------------- where is it? */

enum hw_status hw_api_has_file(struct hw_env *env, const char *dir, const char *name, bool *out,
                               struct hw_error *err)
{
    char *path = hw_format("%s/%s", dir, name);
    struct hw_file_stat stat = {.is_directory = false};
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to look for its %s", dir, name);
    status = env->ops->stat(env, path, &stat, err);
    hw_free(path);
    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    *out = status == HW_OK && !stat.is_directory;
    return HW_OK;
}

/* A log of ours, or a mirror of somebody else's. */
static enum hw_status has_log(struct hw_env *env, const char *dir, bool *out, struct hw_error *err)
{
    enum hw_status status = hw_api_has_file(env, dir, "log", out, err);

    return status == HW_OK && !*out ? hw_api_has_file(env, dir, "mirror", out, err) : status;
}

/*
 * The log of a replica: what it mirrors, or where it was fed from if that is on this machine and
 * still there.  `beside` is its directory.
 */
static enum hw_status replica_source(struct hw_env *env, const char *path, const char *beside,
                                     char **dir, struct hw_error *err)
{
    struct hw_replica_info info;
    bool has_mirror = false, has_source = false;
    enum hw_status status = hw_replica_info(env, path, &info, err);

    if (status == HW_OK)
        status = hw_api_has_file(env, beside, "mirror", &has_mirror, err);
    if (status == HW_OK && !hw_address_is_remote(info.source))
        status = has_log(env, info.source, &has_source, err);
    if (status != HW_OK)
        return status;
    if (has_mirror && !has_source)
        *dir = hw_strdup(beside);
    else if (has_source)
        *dir = hw_strdup(info.source);
    else
        return hw_fail(err, HW_EIO,
                       "%s: a replica, whose log was in %s and is not there now; name the log's "
                       "directory instead",
                       path, info.source);
    return *dir != NULL ? HW_OK : hw_fail(err, HW_ENOMEM, "no memory to open a log");
}

enum hw_status hw_api_real_path(struct hw_env *env, const char *path, char **out,
                                struct hw_error *err)
{
    sqlite3_vfs *vfs = hw_api_base_vfs();
    struct hw_file_stat stat;
    char *full = NULL;
    enum hw_status status = env->ops->stat_link(env, path, &stat, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    if (status == HW_ENOTFOUND || !stat.is_special) {
        *out = hw_strdup(path);
        return *out != NULL ? HW_OK : hw_fail(err, HW_ENOMEM, "no memory to open a log");
    }
    full = hw_zalloc((size_t)vfs->mxPathname + 1);
    if (full == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open a log");
    if ((vfs->xFullPathname(vfs, path, vfs->mxPathname + 1, full) & 0xff) != SQLITE_OK) {
        hw_free(full);
        return hw_fail(err, HW_EIO, "%s: a symbolic link that cannot be followed", path);
    }
    *out = full;
    return HW_OK;
}

/* A directory that was named itself. */
static enum hw_status take_dir(const char *path, char **out, struct hw_error *err)
{
    char *dir = hw_strdup(path);
    size_t size;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open a log");
    size = strlen(dir);
    while (size > 1 && dir[size - 1] == '/')
        dir[--size] = '\0';
    *out = dir;
    return HW_OK;
}

/* The log of what is at `path`; `hint` follows the error that there is nothing. */
static enum hw_status log_dir_of(struct hw_env *env, const char *path, const char *hint, char **out,
                                 struct hw_error *err)
{
    char *beside = NULL; /* the log's directory beside a database, owned */
    char *real = NULL;   /* the database, owned */
    bool is_dir = false, has_own = false, is_replica = false, has_any = false;
    enum hw_status status = has_log(env, path, &is_dir, err);

    if (status != HW_OK)
        return status;
    if (is_dir)
        return take_dir(path, out, err);
    status = hw_api_real_path(env, path, &real, err);
    if (status != HW_OK)
        return status;
    beside = hw_format("%s-hyper", real);
    if (beside == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to open a log");
    if (status == HW_OK)
        status = hw_api_has_file(env, beside, "log", &has_own, err);
    if (status == HW_OK)
        status = hw_api_has_file(env, beside, "replica", &is_replica, err);
    if (status == HW_OK)
        status = has_log(env, beside, &has_any, err);
    if (status == HW_OK && !has_own && is_replica) {
        status = replica_source(env, real, beside, out, err);
    } else if (status == HW_OK && has_any) {
        *out = beside;
        beside = NULL;
    } else if (status == HW_OK) {
        status = hw_fail(err, HW_EIO,
                         "%s: no log here: neither this nor %s is a log directory; `hyperwal init` "
                         "makes one%s",
                         path, beside, hint);
    }
    hw_free(beside);
    hw_free(real);
    return status;
}

enum hw_status hw_api_log_dir(struct hw_env *env, const char *src, char **out, struct hw_error *err)
{
    struct hw_place place = {0};
    enum hw_status status = hw_place_find(env, src, &place, err);

    if (status != HW_OK)
        return status;
    if (place.is_remote)
        status = hw_fail(err, HW_EMISUSE, "%s: served elsewhere; name a log of this machine", src);
    else
        status = log_dir_of(env, place.path, place.hint, out, err);
    hw_place_release(&place);
    return status;
}

/* ----------------------------------------------------------------------------- refresh */

/* How far may be read; see the header.  What a mirror has was signed, and is checked. */
static uint64_t durable_limit(const struct hyperwal_log *log)
{
    uint64_t durable;

    if (log->page == NULL || log->is_mirror)
        return UINT64_MAX;
    durable = hw_shared_durable_length(log->page);
    return durable == 0 && hw_shared_worker(log->page) == 0 ? UINT64_MAX : durable;
}

/* A worker that started after us made the page: from then on its word counts. */
static enum hw_status page_look(struct hyperwal_log *log, struct hw_error *err)
{
    struct hw_error why = {0};
    enum hw_status status;

    if (log->page != NULL && !log->is_deaf)
        return HW_OK;
    if (log->is_deaf)
        return HW_OK; /* not ours to map: batches are complete or not there */
    status = hw_shared_page_open(log->env, log->dir, false, &log->page, &why);
    /* Without it, or without the right to map it, complete batches are what there is. */
    if (status == HW_OK || status == HW_ENOTFOUND || hw_error_is_forbidden(&why))
        return HW_OK;
    if (err != NULL)
        *err = why;
    return status;
}

enum hw_status hw_api_log_refresh(struct hyperwal_log *log, struct hw_error *err)
{
    enum hw_status status = page_look(log, err);

    if (status != HW_OK)
        return status;
    return hw_core_refresh(log->core, durable_limit(log), err);
}

enum hw_status hw_api_log_listen(struct hyperwal_log *log, struct hw_error *err)
{
    struct hw_error why = {0};
    enum hw_status status;

    if (log->page != NULL)
        return HW_OK;
    status = hw_shared_page_open(log->env, log->dir, true, &log->page, &why);
    if (status == HW_OK)
        return HW_OK;
    if (!hw_error_is_forbidden(&why)) {
        if (err != NULL)
            *err = why;
        return status;
    }
    log->is_deaf = true;
    return hw_shared_page_open(log->env, NULL, true, &log->page, err);
}

/* -------------------------------------------------------------------------- open, close */

enum hw_status hw_api_log_attach(char *dir, struct hw_api_remote *remote, struct hyperwal_log **out,
                                 struct hw_error *err)
{
    struct hyperwal_log *log = hw_zalloc(sizeof(*log));
    bool is_own = false;
    enum hw_status status;

    if (log == NULL) {
        hw_free(dir);
        hw_api_remote_close(remote);
        return hw_fail(err, HW_ENOMEM, "no memory to open a log");
    }
    log->env = hw_env_posix();
    log->dir = dir;
    log->remote = remote;
    status = hw_api_has_file(log->env, dir, "log", &is_own, err);
    log->is_mirror = !is_own;
    if (status == HW_OK)
        status = page_look(log, err);
    if (status == HW_OK)
        status = hw_core_open(log->env, dir, HW_CORE_READ, durable_limit(log), &log->core, err);
    if (status != HW_OK) {
        hyperwal_log_close(log);
        return status;
    }
    if (remote != NULL)
        hw_api_remote_attach(remote, log->core);
    *out = log;
    return HW_OK;
}

enum hw_status hw_api_log_open_remote(const struct hw_api_remote_options *options,
                                      struct hyperwal_log **out, struct hw_error *err)
{
    struct hw_api_remote *remote = NULL;
    char *dir;
    enum hw_status status = hw_api_remote_open(options, &remote, err);

    if (status != HW_OK)
        return status;
    dir = hw_strdup(hw_api_remote_dir(remote));
    if (dir == NULL) {
        hw_api_remote_close(remote);
        return hw_fail(err, HW_ENOMEM, "no memory to open a log");
    }
    return hw_api_log_attach(dir, remote, out, err);
}

enum hw_status hw_api_log_open(const char *src, struct hyperwal_log **out, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    struct hw_place place = {0};
    char *dir = NULL;
    enum hw_status status = hw_place_find(env, src, &place, err);

    if (status != HW_OK)
        return status;
    if (place.is_remote) {
        struct hw_api_remote_options options = {.sources = (const char *const *)place.urls,
                                                .source_count = place.count,
                                                .key = place.has_key ? place.key : NULL};

        status = hw_api_log_open_remote(&options, out, err); /* its mirror is gone afterwards */
    } else {
        status = log_dir_of(env, place.path, place.hint, &dir, err);
        if (status == HW_OK)
            status = hw_api_log_attach(dir, NULL, out, err);
    }
    hw_place_release(&place);
    return status;
}

int hyperwal_log_open(const char *src, hyperwal_log **out, char **error)
{
    struct hw_error err = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (src == NULL || out == NULL)
        return SQLITE_MISUSE;
    status = hw_api_log_open(src, out, &err);
    if (status == HW_OK)
        return SQLITE_OK;
    hw_api_tell(error, &err);
    /* A file that is missing is no target that somebody asked for. */
    return status == HW_EIO || status == HW_ENOTFOUND ? SQLITE_CANTOPEN : hw_api_code(status);
}

void hyperwal_log_close(hyperwal_log *log)
{
    if (log == NULL)
        return;
    hw_core_close(log->core);
    hw_peer_table_close(log->peers);
    hw_shared_page_close(log->page);
    hw_api_remote_close(log->remote);
    hw_free(log->dir);
    hw_free(log);
}

const char *hyperwal_log_errmsg(hyperwal_log *log)
{
    return log->err.message;
}

void hyperwal_log_key(hyperwal_log *log, unsigned char key[32])
{
    memcpy(key, hw_core_identity(log->core)->key, HW_KEY_SIZE);
}

const char *hyperwal_log_dir(hyperwal_log *log)
{
    return log->dir;
}

/*
 * The file `position` names the database that the log was made of, as a file of this machine.
 * Without it the next worker compares the database with the log page by page, and finds its place
 * again.
 */
static enum hw_status position_forget(struct hw_env *env, const char *dir, struct hw_error *err)
{
    char *path = hw_format("%s/position", dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to adopt a log");
    status = env->ops->remove(env, path, err);
    hw_free(path);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

int hyperwal_log_adopt(const char *src, char **error)
{
    struct hw_env *env = hw_env_posix();
    struct hw_file *lock = NULL; /* of the worker: nobody writes the log meanwhile */
    struct hw_error err = {0};
    char *dir = NULL, *path = NULL;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (src == NULL)
        return SQLITE_MISUSE;
    status = hw_api_log_dir(env, src, &dir, &err);
    if (status != HW_OK)
        goto done;
    path = hw_format("%s/worker.lock", dir);
    if (path == NULL) {
        status = hw_fail(&err, HW_ENOMEM, "no memory to adopt a log");
        goto done;
    }
    status = env->ops->open(env, path,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                            &lock, &err);
    if (status == HW_OK)
        status = env->ops->lock(lock, false, &err);
    if (status == HW_OK) {
        status = position_forget(env, dir, &err);
        if (status == HW_OK)
            status = hw_core_adopt(env, dir, &err);
    } else if (status == HW_EBUSY) {
        (void)hw_prefix(&err, status, "%s: a program writes this log", dir);
    }
done:
    if (status != HW_OK)
        hw_api_tell(error, &err);
    env->ops->close(lock);
    hw_free(path);
    hw_free(dir);
    return hw_api_code(status);
}

/* ------------------------------------------------------------------------------ entries */

static const char *type_name(enum hw_entry_type type)
{
    switch (type) {
    case HW_ENTRY_GENESIS:
        return "genesis";
    case HW_ENTRY_TRANSACTION:
        return "transaction";
    case HW_ENTRY_GROUP:
        return "group";
    case HW_ENTRY_SNAPSHOT:
        return "snapshot";
    case HW_ENTRY_LABEL:
        return "label";
    case HW_ENTRY_GAP:
        return "gap";
    case HW_ENTRY_SWITCH:
        return "switch";
    }
    return "unknown";
}

static_assert(sizeof(((hyperwal_entry *)0)->text) >= sizeof(((struct hw_entry_summary *)0)->text),
              "every text fits");

static void entry_fill(hyperwal_entry *out, const struct hw_entry_summary *in)
{
    *out = (hyperwal_entry){
        .seq = in->seq,
        .blocks = in->seq - in->first_seq + 1,
        .type = type_name(in->header.type),
        .time_ms = in->header.time_ms,
        .pages = in->pages,
        .raw_bytes = in->raw_bytes,
        .bytes = in->bytes,
        .db_pages = in->page_count,
        .sum = in->sum,
    };
    memcpy(out->text, in->text, sizeof(in->text));
    out->text[sizeof(in->text) - 1] = '\0';
}

static bool is_absent(enum hw_status status)
{
    return status == HW_EPRUNED || status == HW_EMISSING;
}

/* Blocks that were given up, or that a mirror has not got, from `first` on, as one line. */
static enum hw_status absent_run(struct hyperwal_log *log, uint64_t first, enum hw_status why,
                                 uint64_t *seq, hyperwal_entry *entry)
{
    struct hw_entry_summary summary;

    while (*seq < hw_core_length(log->core)) {
        uint64_t next = *seq;

        if (hw_entry_next(log->core, &next, &summary, NULL) != why || next <= *seq)
            break;
        *seq = next;
    }
    *entry = (hyperwal_entry){
        .seq = *seq - 1, .blocks = *seq - first, .type = why == HW_EPRUNED ? "pruned" : "missing"};
    return HW_OK; /* what ended the run, be it a failure, is met again by the next call */
}

int hyperwal_log_next(hyperwal_log *log, uint64_t *seq, hyperwal_entry *entry)
{
    struct hw_entry_summary summary;
    struct hw_error err = {0};
    uint64_t first = *seq;
    enum hw_status status;

    status = hw_entry_next(log->core, seq, &summary, &err);
    if (is_absent(status) && *seq > first)
        status = absent_run(log, first, status, seq, entry);
    else if (status == HW_OK)
        entry_fill(entry, &summary);
    return hw_api_log_result(log, status, &err);
}

int hyperwal_log_wait(hyperwal_log *log, uint64_t length, unsigned timeout_ms)
{
    struct hw_error err = {0};
    uint64_t deadline = log->env->ops->monotonic_ns(log->env) + (uint64_t)timeout_ms * 1000000U;
    enum hw_status status = hw_api_log_listen(log, &err);

    while (status == HW_OK) {
        uint32_t seen = hw_shared_wake_count(log->page);
        uint64_t now;

        status = hw_api_log_refresh(log, &err);
        if (status != HW_OK || hw_core_length(log->core) > length)
            break;
        now = log->env->ops->monotonic_ns(log->env);
        if (now >= deadline) {
            status = hw_fail(&err, HW_ETIMEOUT, "%s: still %llu blocks after %u ms", log->dir,
                             (unsigned long long)hw_core_length(log->core), timeout_ms);
            break;
        }
        hw_shared_want_length(log->page, length);
        hw_shared_wait(log->page, seen, deadline - now);
    }
    return hw_api_log_result(log, status, &err);
}

/* ------------------------------------------------------------------------------- verify */

struct progress {
    hyperwal_progress told;
    void *ctx;
};

static bool progress_pass(void *ctx, uint64_t done, uint64_t total)
{
    const struct progress *progress = ctx;

    return progress->told == NULL || progress->told(progress->ctx, done, total) != 0;
}

/* Every entry can be read, whole and in order. */
static enum hw_status verify_entries(struct hyperwal_log *log, struct hw_error *err)
{
    struct hw_entry_summary entry;
    int64_t time_ms = 0;
    uint64_t seq = 0;

    for (;;) {
        uint64_t first = seq;
        enum hw_status status = hw_entry_next(log->core, &seq, &entry, err);

        if (status == HW_END)
            return HW_OK;
        if (is_absent(status) && seq > first)
            continue;
        if (status != HW_OK)
            return status;
        if (entry.first_seq != first && first >= hw_core_first_kept(log->core))
            return hw_fail(err, HW_ECORRUPT, "%s: block %llu: an entry begins before it", log->dir,
                           (unsigned long long)first);
        if (entry.header.time_ms < time_ms)
            return hw_fail(err, HW_ECORRUPT, "%s: block %llu: its time goes back", log->dir,
                           (unsigned long long)first);
        time_ms = entry.header.time_ms;
    }
}

int hyperwal_log_verify(hyperwal_log *log, unsigned flags, hyperwal_progress progress, void *ctx)
{
    struct progress pass = {progress, ctx};
    struct hw_error err = {0};
    enum hw_status status = hw_api_log_refresh(log, &err);

    /* What is not here yet is fetched by reading it. */
    if (status == HW_OK && log->remote != NULL) {
        hw_api_remote_want_all(log->remote);
        status = verify_entries(log, &err);
    }
    if (status == HW_OK)
        status = hw_core_verify(log->core, progress_pass, &pass, &err);
    if (status == HW_OK)
        status = verify_entries(log, &err);
    if (status == HW_OK && (flags & HYPERWAL_VERIFY_DEEP) != 0)
        status = hw_verify_deep(log->env, log->core, progress_pass, &pass, &err);
    return hw_api_log_result(log, status, &err);
}

/* ------------------------------------------------------------------------------ restore */

int hyperwal_time_parse(const char *text, int64_t *time_ms)
{
    return text != NULL && hw_time_parse(text, time_ms, NULL) == HW_OK ? SQLITE_OK : SQLITE_MISUSE;
}

static struct hw_target target_of(const hyperwal_target *target)
{
    struct hw_target out = {0};

    out.kind = HW_TARGET_HEAD;
    if (target == NULL)
        return out;
    out.seq = target->seq;
    out.time_ms = target->time_ms;
    out.label = target->label;
    if (target->kind == HYPERWAL_SEQ)
        out.kind = HW_TARGET_SEQ;
    else if (target->kind == HYPERWAL_TIME)
        out.kind = HW_TARGET_TIME;
    else if (target->kind == HYPERWAL_LABEL)
        out.kind = HW_TARGET_LABEL;
    return out;
}

/* An older state in the place of the database would be rolled forward by the log beside it. */
static enum hw_status refuse_own(const struct hyperwal_log *log, const struct hw_target *target,
                                 const char *out, struct hw_error *err)
{
    struct hw_file_stat own, beside;
    char *dir;
    enum hw_status status;

    if (target->kind == HW_TARGET_HEAD || log->is_mirror)
        return HW_OK;
    dir = hw_format("%s-hyper", out);
    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to restore a database");
    status = log->env->ops->stat(log->env, dir, &beside, err);
    hw_free(dir);
    if (status == HW_ENOTFOUND)
        return HW_OK;
    if (status == HW_OK)
        status = log->env->ops->stat(log->env, log->dir, &own, err);
    if (status == HW_OK && own.inode == beside.inode && own.device == beside.device)
        status = hw_fail(err, HW_EEXIST,
                         "%s: its log would bring it to the newest state again when it is opened: "
                         "restore to another file, and put that into the database as a new "
                         "transaction, by `.restore FILE` of sqlite3 with the VFS or beside "
                         "`hyperwal serve`",
                         out);
    return status;
}

int hyperwal_restore(hyperwal_log *log, const hyperwal_target *target, const char *out,
                     unsigned flags, hyperwal_progress progress, void *ctx, hyperwal_entry *reached)
{
    struct progress pass = {progress, ctx};
    struct hw_target wanted = target_of(target);
    struct hw_entry_summary entry;
    struct hw_state state = {0};
    struct hw_error err = {0};
    enum hw_status status = hw_api_log_refresh(log, &err);

    if (status == HW_OK)
        status = refuse_own(log, &wanted, out, &err);
    if (status == HW_OK && log->remote != NULL)
        hw_api_remote_want(log->remote, log->core, &wanted);
    if (status == HW_OK)
        status =
            hw_restore(log->env, hw_api_base_vfs(), log->core, &wanted, out,
                       (flags & HYPERWAL_RESTORE_FORCE) != 0, progress_pass, &pass, &state, &err);
    if (status == HW_OK && reached != NULL) {
        uint64_t seq = state.seq;

        if (hw_entry_next(log->core, &seq, &entry, NULL) == HW_OK)
            entry_fill(reached, &entry);
        else
            *reached = (hyperwal_entry){.blocks = 1, .type = "transaction"};
        reached->seq = state.seq;
        reached->time_ms = state.time_ms;
        reached->db_pages = state.page_count;
        reached->sum = state.sum;
    }
    if (status == HW_EFORK) { /* the target lies in a gap: there is no such state */
        (void)hw_api_log_result(log, status, &err);
        return HYPERWAL_NOTARGET;
    }
    return hw_api_log_result(log, status, &err);
}
