/*
 * Implements hyperwal_follow_* and hyperwal_replica_info of include/hyperwal.h.
 *
 * A follower sleeps on the log's shared page and nowhere else: the worker rings there when more of
 * the log is durable, and so does hyperwal_follow_interrupt().
 */
#include <stdatomic.h>
#include <string.h>

#include "api_log.h"
#include "base/alloc.h"

enum { READERS_WAIT_NS = 2000000 }; /* until old readers are asked again to leave the WAL */

struct hyperwal_follower {
    struct hyperwal_log *log;   /* owned */
    struct hw_replica *replica; /* owned; NULL: the log has no snapshot to begin with yet */
    char *path;                 /* owned */
    hyperwal_progress progress;
    void *progress_ctx;
    uint64_t applied_length; /* blocks of the log that are applied, as of the last HW_END */
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

/* The replica remembers where its log is, by the full path. */
static enum hw_status source_note(struct hyperwal_follower *follower, struct hw_error *err)
{
    sqlite3_vfs *vfs = hw_api_base_vfs();
    char *full = hw_zalloc((size_t)vfs->mxPathname + 1);
    enum hw_status status;

    if (full == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    if ((vfs->xFullPathname(vfs, follower->log->dir, vfs->mxPathname + 1, full) & 0xff) !=
        SQLITE_OK)
        status = hw_fail(err, HW_EIO, "%s: its full path cannot be had", follower->log->dir);
    else
        status = hw_replica_set_source(follower->replica, full, err);
    hw_free(full);
    return status;
}

/* HW_END: nothing to begin with yet. */
static enum hw_status replica_begin(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;
    uint64_t snapshot;
    enum hw_status status;

    if (follower->replica != NULL)
        return HW_OK;
    status = hw_api_log_snapshot(log, &snapshot, err);
    if (status != HW_OK)
        return status;
    if (snapshot == UINT64_MAX)
        return HW_END;
    status = hw_replica_open(log->env, hw_api_base_vfs(), log->core, follower->path,
                             follow_progress, follower, &follower->replica, err);
    if (status != HW_OK)
        return status;
    status = source_note(follower, err);
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

int hyperwal_follow_open(const char *src, const char *path, hyperwal_progress progress, void *ctx,
                         hyperwal_follower **out, char **error)
{
    struct hyperwal_follower *follower = NULL;
    struct hw_error err = {0};
    int code;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (src == NULL || path == NULL || out == NULL)
        return SQLITE_MISUSE;
    follower = hw_zalloc(sizeof(*follower));
    if (follower == NULL) {
        hw_fail(&err, HW_ENOMEM, "no memory to follow a log");
        hw_api_tell(error, &err);
        return SQLITE_NOMEM;
    }
    follower->progress = progress;
    follower->progress_ctx = ctx;
    code = hyperwal_log_open(src, &follower->log, error);
    if (code != SQLITE_OK)
        goto fail;
    follower->path = hw_strdup(path);
    if (follower->path == NULL) {
        status = hw_fail(&err, HW_ENOMEM, "no memory to follow a log");
        goto fail_status;
    }
    status = hw_api_log_listen(follower->log, &err);
    if (status == HW_OK)
        status = hw_api_log_refresh(follower->log, &err);
    if (status == HW_OK)
        status = replica_begin(follower, &err);
    if (status != HW_OK && status != HW_END)
        goto fail_status;
    *out = follower;
    return SQLITE_OK;

fail_status:
    hw_api_tell(error, &err);
    code = hw_api_code(status);
fail:
    hyperwal_follow_close(follower);
    return code;
}

void hyperwal_follow_close(hyperwal_follower *follower)
{
    if (follower == NULL)
        return;
    hw_replica_close(follower->replica);
    hyperwal_log_close(follower->log);
    hw_free(follower->path);
    hw_free(follower);
}

/*
 * Apply all that is durable now.  HW_OK: something was applied.  HW_END: there was nothing.
 * HW_AGAIN: readers are in the way, or the caller was interrupted.
 */
static enum hw_status follow_apply(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;
    uint64_t before;
    enum hw_status status = hw_api_log_refresh(log, err);

    if (status != HW_OK)
        return status;
    before = follower->replica != NULL ? hw_replica_seq(follower->replica) : UINT64_MAX;
    status = replica_begin(follower, err);
    while (status == HW_OK && atomic_load(&follower->is_interrupted) == 0)
        status = hw_replica_step(follower->replica, err);
    if (status == HW_END && follower->replica != NULL)
        follower->applied_length = hw_core_length(log->core);
    if (status < 0)
        return status;
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
        uint64_t now, wait_ns;

        if (atomic_exchange(&follower->is_interrupted, 0) != 0)
            return SQLITE_INTERRUPT;
        status = follow_apply(follower, &err);
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
        if (status == HW_AGAIN && wait_ns > READERS_WAIT_NS)
            wait_ns = READERS_WAIT_NS;
        hw_shared_want_length(log->page, hw_core_length(log->core));
        hw_shared_wait(log->page, seen, wait_ns);
    }
}

void hyperwal_follow_interrupt(hyperwal_follower *follower)
{
    atomic_store(&follower->is_interrupted, 1);
    hw_shared_wake(follower->log->page);
}

uint64_t hyperwal_follow_seq(hyperwal_follower *follower)
{
    return follower->replica != NULL ? hw_replica_seq(follower->replica) : HYPERWAL_SEQ_NONE;
}

uint64_t hyperwal_follow_lag(hyperwal_follower *follower)
{
    uint64_t length = hw_core_length(follower->log->core);
    uint64_t published = hw_shared_durable_length(follower->log->page);
    uint64_t seq = hyperwal_follow_seq(follower);
    uint64_t applied = seq != HYPERWAL_SEQ_NONE ? seq + 1 : 0;

    /* Snapshots and labels change nothing in a replica, so its seq stays behind them. */
    if (applied < follower->applied_length)
        applied = follower->applied_length;
    if (published > length)
        length = published;
    return length > applied ? length - applied : 0;
}

const char *hyperwal_follow_errmsg(hyperwal_follower *follower)
{
    return follower->err.message;
}

/* ----------------------------------------------------------------------- replica's info */

/* Is `sum` the state after one of the entries that a live follower may just be at? */
static bool log_has_sum(const char *path, uint64_t from, uint64_t to, uint64_t sum)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    bool found = false;

    if (hyperwal_log_open(path, &log, NULL) != SQLITE_OK)
        return false;
    for (uint64_t seq = from; !found && seq <= to;) {
        if (hyperwal_log_next(log, &seq, &entry) != SQLITE_OK)
            break;
        found = entry.db_pages != 0 && entry.sum == sum;
    }
    hyperwal_log_close(log);
    return found;
}

/* The sum of the file is that of the record, or of an entry applied while we were looking. */
static enum hw_status replica_verify(struct hw_env *env, const char *path,
                                     struct hw_replica_info *info, struct hw_error *err)
{
    struct hw_replica_info after;
    uint32_t page_size, page_count;
    uint64_t sum = 0;
    enum hw_status status;

    status = hw_database_sum(hw_api_base_vfs(), path, &page_size, &page_count, &sum, err);
    if (status != HW_OK)
        return status;
    if (sum == info->sum)
        return HW_OK;
    status = hw_replica_info(env, path, &after, err);
    if (status != HW_OK)
        return status;
    /* The record comes before the pages: what is visible may be one batch behind it. */
    if (sum == after.sum ||
        log_has_sum(path, info->seq > 4096 ? info->seq - 4096 : 0, after.seq, sum)) {
        info->sum = sum;
        return HW_OK;
    }
    return hw_fail(
        err, HW_ECORRUPT,
        "%s: state sum %016llx, and the log says %016llx at seq %llu: not the state that "
        "was committed; remove the file and follow again",
        path, (unsigned long long)sum, (unsigned long long)after.sum,
        (unsigned long long)after.seq);
}

int hyperwal_replica_info(const char *path, int verify, unsigned char key[32],
                          uint64_t *applied_seq, uint64_t *sum, char **error)
{
    struct hw_env *env = hw_env_posix();
    struct hw_replica_info info;
    struct hw_error err = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    status = hw_replica_info(env, path, &info, &err);
    if (status == HW_OK && verify != 0)
        status = replica_verify(env, path, &info, &err);
    if (status != HW_OK) {
        hw_api_tell(error, &err);
        return status == HW_ENOTFOUND ? SQLITE_NOTFOUND : hw_api_code(status);
    }
    if (key != NULL)
        memcpy(key, info.key, HW_KEY_SIZE);
    if (applied_seq != NULL)
        *applied_seq = info.seq;
    if (sum != NULL)
        *sum = info.sum;
    return SQLITE_OK;
}
