/*
 * Implements hyperwal_follow_* of include/hyperwal.h.
 *
 * A follower sleeps on the shared page of its log's directory: the worker rings there when more of
 * the log is durable, the hub when more of a remote one has come, and so does
 * hyperwal_follow_interrupt().  While it reads it may also wait for a block that is under way.
 */
#include <stdatomic.h>
#include <string.h>

#include "api_log.h"
#include "api_remote.h"
#include "base/alloc.h"

enum {
    READERS_WAIT_NS = 2000000,   /* until old readers are asked again to leave the WAL */
    ABSENT_WAIT_NS = 1000000000, /* until sources that lack a block are asked again */
    ABSENT_MAX = 10,             /* so often, before it is an error */
};

struct hyperwal_follower {
    struct hyperwal_log *log;   /* owned */
    struct hw_replica *replica; /* owned; NULL: the log has no snapshot to begin with yet */
    char *path;                 /* owned */
    char *source;               /* owned: what the replica is to remember */
    struct hw_mirror *mirror;   /* borrowed from the log; NULL: a log of this machine */
    hyperwal_progress progress;
    void *progress_ctx;
    unsigned absent; /* times in a row that no source had a block */
    _Atomic int is_interrupted;
    struct hw_error err;
};

static bool follow_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct hyperwal_follower *follower = ctx;

    if (atomic_load(&follower->is_interrupted) != 0)
        return false;
    return follower->progress == NULL ||
           follower->progress(follower->progress_ctx, done, total) != 0;
}

static bool follow_goes_on(void *ctx)
{
    return follow_progress(ctx, 0, 0);
}

static enum hw_status full_path(const char *path, char **out, struct hw_error *err)
{
    sqlite3_vfs *vfs = hw_api_base_vfs();
    char *full = hw_zalloc((size_t)vfs->mxPathname + 1);

    if (full == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    if ((vfs->xFullPathname(vfs, path, vfs->mxPathname + 1, full) & 0xff) != SQLITE_OK) {
        hw_free(full);
        return hw_fail(err, HW_EIO, "%s: its full path cannot be had", path);
    }
    *out = full;
    return HW_OK;
}

/* What has to be fetched for a replica as it is. */
static enum hw_status want_blocks(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;
    struct hw_replica_info info;
    struct hw_file_stat stat;

    if (follower->mirror == NULL)
        return HW_OK;
    if (hw_replica_info(log->env, follower->path, &info, NULL) != HW_OK || info.seq == UINT64_MAX ||
        log->env->ops->stat(log->env, follower->path, &stat, NULL) != HW_OK)
        return hw_api_remote_want_live(log->remote, log->core, err);
    hw_mirror_want_tail(follower->mirror, info.seq + 1);
    return hw_mirror_want(follower->mirror, 0, 1, err);
}

/* HW_OK: the replica is there already, or the log has a snapshot to make it from. */
static enum hw_status can_begin(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hw_replica_info info;
    struct hw_file_stat stat;
    struct hyperwal_log *log = follower->log;
    uint64_t snapshot;
    enum hw_status status;

    /* What is there opens without a look at the end of the log, which may be out of reach. */
    if (hw_replica_info(log->env, follower->path, &info, NULL) == HW_OK &&
        log->env->ops->stat(log->env, follower->path, &stat, NULL) == HW_OK)
        return HW_OK;
    status = hw_api_log_snapshot(log, &snapshot, err);
    if (status == HW_OK && snapshot == UINT64_MAX)
        status = HW_END;
    if (status == HW_END && follower->mirror != NULL)
        hw_mirror_want_tail(follower->mirror, 0);
    return status;
}

/* HW_END: nothing to begin with yet. */
static enum hw_status replica_begin(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;
    enum hw_status status;

    if (follower->replica != NULL)
        return HW_OK;
    status = can_begin(follower, err);
    if (status == HW_OK)
        status = want_blocks(follower, err);
    if (status != HW_OK)
        return status;
    status = hw_replica_open(log->env, hw_api_base_vfs(), log->core, follower->path,
                             follow_progress, follower, &follower->replica, err);
    if (status != HW_OK)
        return status;
    status = hw_replica_set_source(follower->replica, follower->source, err);
    if (status != HW_OK) {
        hw_replica_close(follower->replica);
        follower->replica = NULL;
    }
    return status;
}

static int follow_result(struct hyperwal_follower *follower, enum hw_status status,
                         const struct hw_error *err)
{
    if (status < 0)
        follower->err = *err;
    return hw_api_code(status);
}

/* --------------------------------------------------------------------------------- opening */

static enum hw_status open_local(struct hyperwal_follower *follower, const char *src,
                                 struct hw_error *err)
{
    char *dir = NULL;
    enum hw_status status = hw_api_log_dir(hw_env_posix(), src, &dir, err);

    if (status == HW_OK)
        status = full_path(dir, &follower->source, err);
    if (status != HW_OK) {
        hw_free(dir);
        return status;
    }
    return hw_api_log_attach(dir, NULL, &follower->log, err);
}

/* All URLs, as one line for the replica to remember. */
static char *sources_join(const char *const *sources, unsigned count)
{
    char *all = hw_strdup(sources[0]);

    for (unsigned i = 1; i < count && all != NULL; i++) {
        char *longer = hw_format("%s %s", all, sources[i]);

        hw_free(all);
        all = longer;
    }
    return all;
}

/* The id by which servers know this replica again, kept in its directory. */
static enum hw_status replica_id_read(struct hw_env *env, const char *dir, uint8_t id[16],
                                      struct hw_error *err)
{
    char *path = hw_format("%s/id", dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    status = hw_env_read_file(env, path, id, 16, &size, NULL);
    hw_free(path);
    if (status != HW_OK || size != 16)
        env->ops->random(env, id, 16);
    return HW_OK;
}

static enum hw_status replica_id_write(struct hw_env *env, const char *dir, const uint8_t id[16],
                                       struct hw_error *err)
{
    char *path = hw_format("%s/id", dir);
    uint8_t old[17];
    size_t size = 0;
    enum hw_status status = HW_OK;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    if (hw_env_read_file(env, path, old, sizeof(old), &size, NULL) != HW_OK || size != 16 ||
        memcmp(old, id, 16) != 0)
        status = hw_env_replace_file(env, path, id, 16, 0, err);
    hw_free(path);
    return status;
}

/*
 * What is at `path` already?  *has_key and the key of its log, if it is a replica or has a mirror;
 * *is_same: it was fed from these sources before.
 */
static enum hw_status look_at(struct hyperwal_follower *follower, const char *dir, uint8_t key[],
                              bool *has_key, bool *is_same, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    struct hw_replica_info info;
    struct hw_file_stat stat;
    uint8_t mirror_key[HW_KEY_SIZE];
    enum hw_status status = hw_replica_info(env, follower->path, &info, err);

    *has_key = *is_same = false;
    if (status == HW_OK) {
        memcpy(key, info.key, HW_KEY_SIZE);
        *has_key = true;
        *is_same = strcmp(info.source, follower->source) == 0;
    } else if (status != HW_ENOTFOUND) {
        return status;
    } else if (hw_api_has_file(env, dir, "log")) {
        return hw_fail(err, HW_EEXIST, "%s: a database with a log of its own, not a replica",
                       follower->path);
    } else if (env->ops->stat(env, follower->path, &stat, NULL) == HW_OK) {
        return hw_fail(err, HW_EEXIST,
                       "%s: a database, but not a replica: choose another name or remove it",
                       follower->path);
    }
    if (!hw_api_has_file(env, dir, "mirror")) {
        *is_same = false;
        return HW_OK;
    }
    status = hw_api_mirror_key(env, dir, mirror_key, err);
    if (status == HW_OK && *has_key && memcmp(mirror_key, key, HW_KEY_SIZE) != 0)
        status = hw_fail(err, HW_EFORK, "%s: the replica and %s are of different logs",
                         follower->path, dir);
    memcpy(key, mirror_key, HW_KEY_SIZE);
    *has_key = true;
    return status;
}

static enum hw_status open_mirror(struct hyperwal_follower *follower,
                                  struct hw_api_remote_options *options, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    struct hw_api_remote *remote = NULL;
    uint8_t key[HW_KEY_SIZE], id[16];
    bool has_key;
    char *dir = hw_strdup(options->dir);
    enum hw_status status;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    status = look_at(follower, dir, key, &has_key, &options->is_known, err);
    if (status == HW_OK)
        status = replica_id_read(env, dir, id, err);
    options->key = has_key ? key : NULL;
    options->replica_id = id;
    if (status == HW_OK)
        status = hw_api_remote_open(options, &remote, err);
    if (status == HW_OK)
        status = replica_id_write(env, dir, id, err);
    if (status != HW_OK) {
        hw_api_remote_close(remote);
        hw_free(dir);
        return status;
    }
    status = hw_api_log_attach(dir, remote, &follower->log, err);
    if (status == HW_OK)
        follower->mirror = hw_api_remote_mirror(remote);
    return status;
}

static enum hw_status open_remote(struct hyperwal_follower *follower, hyperwal_node *node,
                                  const char *const *sources, unsigned count, struct hw_error *err)
{
    struct hw_api_remote_options options = {.node = node,
                                            .sources = sources,
                                            .source_count = count,
                                            .go_on = follow_goes_on,
                                            .ctx = follower};
    char *full = NULL, *dir = NULL;
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < count && status == HW_OK; i++)
        if (!hw_address_is_remote(sources[i]))
            status =
                hw_fail(err, HW_EMISUSE, "%s: of several sources each has to be a URL", sources[i]);
    if (status == HW_OK)
        status = full_path(follower->path, &full, err);
    if (status != HW_OK)
        return status;
    follower->source = sources_join(sources, count);
    dir = hw_format("%s-hyper", full);
    options.dir = dir;
    if (follower->source == NULL || dir == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    else
        status = open_mirror(follower, &options, err);
    hw_free(full);
    hw_free(dir);
    return status;
}

int hyperwal_follow_sources(hyperwal_node *node, const char *const *sources, unsigned source_count,
                            const char *path, hyperwal_progress progress, void *ctx,
                            hyperwal_follower **out, char **error)
{
    struct hyperwal_follower *follower = NULL;
    struct hw_error err = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (sources == NULL || source_count == 0 || sources[0] == NULL || path == NULL || out == NULL)
        return SQLITE_MISUSE;
    follower = hw_zalloc(sizeof(*follower));
    if (follower == NULL) {
        status = hw_fail(&err, HW_ENOMEM, "no memory to follow a log");
        goto fail;
    }
    follower->progress = progress;
    follower->progress_ctx = ctx;
    follower->path = hw_strdup(path);
    if (follower->path == NULL) {
        status = hw_fail(&err, HW_ENOMEM, "no memory to follow a log");
        goto fail;
    }
    if (source_count == 1 && !hw_address_is_remote(sources[0]))
        status = open_local(follower, sources[0], &err);
    else
        status = open_remote(follower, node, sources, source_count, &err);
    if (status == HW_OK)
        status = hw_api_log_listen(follower->log, &err);
    if (status == HW_OK)
        status = hw_api_log_refresh(follower->log, &err);
    if (status == HW_OK)
        status = replica_begin(follower, &err);
    if (status != HW_OK && status != HW_END)
        goto fail;
    *out = follower;
    return SQLITE_OK;

fail:
    hw_api_tell(error, &err);
    hyperwal_follow_close(follower);
    /* A file or a server that is missing is no target that somebody asked for. */
    return status == HW_EIO || status == HW_ENOTFOUND ? SQLITE_CANTOPEN : hw_api_code(status);
}

int hyperwal_follow_open(const char *src, const char *path, hyperwal_progress progress, void *ctx,
                         hyperwal_follower **out, char **error)
{
    return hyperwal_follow_sources(NULL, &src, 1, path, progress, ctx, out, error);
}

void hyperwal_follow_close(hyperwal_follower *follower)
{
    if (follower == NULL)
        return;
    hw_replica_close(follower->replica);
    hyperwal_log_close(follower->log);
    hw_free(follower->source);
    hw_free(follower->path);
    hw_free(follower);
}

/* --------------------------------------------------------------------------------- applying */

static void tell_applied(struct hyperwal_follower *follower)
{
    uint64_t seq = follower->replica != NULL ? hw_replica_seq(follower->replica) : UINT64_MAX;

    if (follower->mirror != NULL && seq != UINT64_MAX)
        hw_mirror_applied(follower->mirror, seq + 1);
}

/*
 * Not an end: a block is not here yet.  *wait_ns: when to look again, if nothing comes.  A block
 * that no source has may come with another source; one that is late, any time.
 */
static enum hw_status absent(struct hyperwal_follower *follower, enum hw_status status,
                             uint64_t *wait_ns)
{
    if (status == HW_EMISSING || (status == HW_ETIMEOUT && follower->mirror != NULL))
        return HW_END;
    if (status != HW_EPRUNED || follower->mirror == NULL || ++follower->absent > ABSENT_MAX)
        return status;
    *wait_ns = ABSENT_WAIT_NS;
    return HW_AGAIN;
}

/*
 * The next block is not here, and nobody is connected who could be asked: to wait for it on the
 * page keeps the time that the caller gave.
 */
static bool is_out_of_reach(struct hyperwal_follower *follower)
{
    struct hw_core *core = follower->log->core;
    struct hw_mirror_status now;
    uint64_t next;

    if (follower->mirror == NULL || follower->replica == NULL)
        return false;
    next = hw_replica_seq(follower->replica) + 1; /* 0: no state yet */
    if (next == 0 || next >= hw_core_length(core) || hw_core_has(core, next))
        return false;
    hw_mirror_status(follower->mirror, &now);
    return now.connected == 0;
}

/*
 * Apply all that is durable now.  HW_OK: something was applied.  HW_END: there was nothing.
 * HW_AGAIN: readers are in the way, or the caller was interrupted.
 */
static enum hw_status follow_apply(struct hyperwal_follower *follower, uint64_t *wait_ns,
                                   struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;
    uint64_t before;
    enum hw_status status = hw_api_log_refresh(log, err);

    if (status != HW_OK)
        return status;
    *wait_ns = READERS_WAIT_NS;
    before = follower->replica != NULL ? hw_replica_seq(follower->replica) : UINT64_MAX;
    status = replica_begin(follower, err);
    while (status == HW_OK && atomic_load(&follower->is_interrupted) == 0)
        status = is_out_of_reach(follower) ? HW_END : hw_replica_step(follower->replica, err);
    if (status >= 0)
        tell_applied(follower);
    if (status < 0)
        return absent(follower, status, wait_ns);
    follower->absent = 0;
    if (follower->replica != NULL && hw_replica_seq(follower->replica) != before)
        return HW_OK;
    return status == HW_END ? HW_END : HW_AGAIN;
}

int hyperwal_follow_step(hyperwal_follower *follower, unsigned timeout_ms)
{
    struct hyperwal_log *log = follower->log;
    struct hw_env *env = log->env;
    struct hw_error err = {0};
    uint64_t deadline = env->ops->monotonic_ns(env) + (uint64_t)timeout_ms * 1000000U;

    for (;;) {
        uint32_t seen = hw_shared_wake_count(log->page);
        enum hw_status status;
        uint64_t now, wait_ns, again_ns = 0;

        if (atomic_exchange(&follower->is_interrupted, 0) != 0)
            return SQLITE_INTERRUPT;
        status = follow_apply(follower, &again_ns, &err);
        if (status == HW_OK || status < 0)
            return follow_result(follower, status, &err);
        now = env->ops->monotonic_ns(env);
        if (atomic_load(&follower->is_interrupted) != 0)
            continue;
        if (now >= deadline)
            return SQLITE_DONE;
        if (log->is_deaf) {
            status = hw_fail(&err, HW_EREADONLY,
                             "%s: may not be written, so nobody can wake a follower here; follow "
                             "with --once, or give write permission",
                             log->dir);
            return follow_result(follower, status, &err);
        }
        wait_ns = deadline - now;
        if (status == HW_AGAIN && wait_ns > again_ns)
            wait_ns = again_ns;
        hw_shared_want_length(log->page, hw_core_length(log->core));
        hw_shared_wait(log->page, seen, wait_ns);
    }
}

void hyperwal_follow_interrupt(hyperwal_follower *follower)
{
    atomic_store(&follower->is_interrupted, 1);
    if (follower->mirror != NULL)
        hw_mirror_interrupt(follower->mirror);
    hw_shared_wake(follower->log->page);
}

uint64_t hyperwal_follow_seq(hyperwal_follower *follower)
{
    return follower->replica != NULL ? hw_replica_seq(follower->replica) : HYPERWAL_SEQ_NONE;
}

uint64_t hyperwal_follow_fork(hyperwal_follower *follower)
{
    return follower->replica != NULL ? hw_replica_fork(follower->replica) : 0;
}

uint64_t hyperwal_follow_lag(hyperwal_follower *follower)
{
    uint64_t length = hw_core_length(follower->log->core);
    uint64_t published = hw_shared_durable_length(follower->log->page);
    uint64_t seq = hyperwal_follow_seq(follower);
    uint64_t applied = seq != HYPERWAL_SEQ_NONE ? seq + 1 : 0;

    if (published > length)
        length = published;
    return length > applied ? length - applied : 0;
}

const char *hyperwal_follow_errmsg(hyperwal_follower *follower)
{
    return follower->err.message;
}

const char *hyperwal_follow_log_dir(hyperwal_follower *follower)
{
    return follower->log->dir;
}
