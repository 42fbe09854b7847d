/*
 * An old primary becomes a follower of the one that took over: hw_follow_demote() of api_follow.h.
 *
 *   1. all that was committed is in its log; the WAL is folded into the file, which is what the
 *      log says: else somebody wrote meanwhile, and it begins again
 *   2. what it committed after the switch is taken back in the file (the log has it, and an open as
 *      a primary would roll it forward again)
 *   3. the file `replica` is there: from now on it is a replica
 *   4. its log is moved to where it is kept
 */
#include <string.h>

#include "api_follow.h"
#include "base/alloc.h"
#include "hypercore/keep.h"

enum { TRIES = 3 }; /* while somebody writes */

struct demotion {
    struct hw_env *env;
    const char *path, *dir;
    struct hw_replica_info own; /* the newest state of its own log, as that of a replica */
    struct hw_switch switch_;   /* of the log that goes on */
    enum hw_relation relation;
    bool is_ended; /* its log ended with a switch: nothing may be added */
};

static enum hw_status wrong(int code, const char *message, const char *path, struct hw_error *err)
{
    return hw_fail(err, (code & 0xff) == SQLITE_BUSY ? HW_EBUSY : HW_EIO, "%s: %s", path, message);
}

/* What was committed, and is not in the log yet, gets there: by an open as a primary. */
static enum hw_status log_rest(const struct demotion *d, struct hw_error *err)
{
    sqlite3 *db = NULL;
    char *error = NULL;
    uint64_t seq;
    int code = hyperwal_open(d->path, SQLITE_OPEN_READWRITE, &db, &error);
    enum hw_status status = HW_OK;

    if (code != SQLITE_OK) {
        status = wrong(code, error != NULL ? error : "cannot be opened", d->path, err);
        sqlite3_free(error);
        return status;
    }
    code = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq);
    if (code != SQLITE_OK)
        status = hw_fail(err, HW_EIO, "%s: its commits cannot be added to its log: %s", d->path,
                         sqlite3_errmsg(db));
    (void)sqlite3_close(db); /* nothing was prepared on it */
    return status;
}

/* The WAL is in the file and gone, so that nobody has the database open. */
static enum hw_status fold(const struct demotion *d, struct hw_error *err)
{
    char *wal = hw_format("%s-wal", d->path);
    bool has_wal = false;
    sqlite3 *db = NULL;
    enum hw_status status = HW_OK;
    int code = sqlite3_open_v2(d->path, &db, SQLITE_OPEN_READWRITE, hw_api_base_vfs()->zName);

    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        status = wrong(code, sqlite3_errmsg(db), d->path, err);
    (void)sqlite3_close(db); /* nothing was prepared on it */
    if (wal == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory", d->path);
    else if (status == HW_OK)
        status = hw_env_exists(d->env, wal, &has_wal, err);
    if (status == HW_OK && has_wal)
        status = hw_fail(err, HW_EBUSY, "%s: a program has it open: stop it first", d->path);
    hw_free(wal);
    return status;
}

/* What cannot be read may be the switch: an open as a primary would write after it. */
static enum hw_status take_end(struct demotion *d, struct hw_core *core, struct hw_error *err)
{
    struct hw_switch last;
    enum hw_status status = hw_switch_read(core, hw_core_length(core) - 1, &last, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    d->is_ended = status == HW_OK && last.role == HW_SWITCH_CONTINUED;
    return HW_OK;
}

static enum hw_status own_state(struct demotion *d, struct hw_error *err)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_core *core = NULL;
    struct hw_state state;
    enum hw_status status = hw_core_open(d->env, d->dir, HW_CORE_READ, UINT64_MAX, &core, err);

    if (status == HW_OK)
        status = hw_state_resolve(core, &head, &state, err);
    if (status == HW_OK) {
        memcpy(d->own.key, hw_core_identity(core)->key, HW_KEY_SIZE);
        d->own.seq = state.seq;
        d->own.sum = state.sum;
        d->own.page_count = state.page_count;
        d->own.fork = hw_core_head(core).fork;
        status = take_end(d, core, err);
    }
    hw_core_close(core);
    return status;
}

/*
 * HW_OK: the file is in the state of the switch.  HW_END: it cannot be brought there; it is
 * compared with the new log when it is followed.
 */
static enum hw_status go_back(const struct demotion *d, struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = d->switch_.seq};
    struct hw_core *core = NULL;
    struct hw_state reached;
    enum hw_status status;

    if (d->relation == HW_RELATION_EQUAL)
        return HW_OK;
    if (d->relation != HW_RELATION_AHEAD || d->own.fork != d->switch_.fork)
        return HW_END;
    status = hw_core_open(d->env, d->dir, HW_CORE_READ, UINT64_MAX, &core, err);
    if (status == HW_OK)
        status = hw_restore(d->env, hw_api_base_vfs(), core, &target, d->path, true, NULL, NULL,
                            &reached, err);
    hw_core_close(core);
    if (status == HW_ENOTFOUND || status == HW_EPRUNED || status == HW_EFORK)
        return HW_END;
    return status == HW_OK && reached.sum != d->switch_.sum ? HW_END : status;
}

/*
 * A stock program may have written where nobody captures any more.  HW_AGAIN: what it wrote can be
 * added to the log.
 */
static enum hw_status check_logged(const struct demotion *d, struct hw_error *err)
{
    uint32_t page_size, page_count;
    uint64_t sum;
    enum hw_status status =
        hw_database_sum(hw_api_base_vfs(), d->path, &page_size, &page_count, &sum, err);

    if (status != HW_OK || sum == d->own.sum)
        return status;
    if (!d->is_ended)
        return HW_AGAIN;
    return hw_fail(err, HW_EEXIST,
                   "%s: it was written to after its log was handed over: save it under another "
                   "name, and remove it",
                   d->path);
}

static enum hw_status become_replica(struct demotion *d, const uint8_t key[HW_KEY_SIZE],
                                     struct hw_error *err)
{
    char *kept = hw_keep_dir(d->dir, d->own.key);
    enum hw_status status = go_back(d, err);
    bool is_equal = status == HW_OK;

    if (status == HW_END)
        status = HW_OK;
    if (kept == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory", d->path);
    if (status == HW_OK)
        status = hw_replica_adopt(d->env, d->path, key, &d->switch_, is_equal, err);
    if (status == HW_OK)
        status = hw_keep(d->env, d->dir, HW_KEEP_LOG, err);
    if (status == HW_OK)
        hw_env_log(d->env, HW_LOG_WARN,
                   "event=primary_became_replica path=%s kept=%s seq=%llu switch_seq=%llu tail=%s",
                   d->path, kept, (unsigned long long)d->own.seq,
                   (unsigned long long)d->switch_.seq,
                   d->relation == HW_RELATION_AHEAD ? "yes" : "no");
    hw_free(kept);
    return status;
}

/* Nobody captures the database meanwhile. */
static enum hw_status lock(const struct demotion *d, struct hw_file **out, struct hw_error *err)
{
    char *path = hw_format("%s/worker.lock", d->dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory", d->path);
    status = d->env->ops->open(
        d->env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK, out,
        err);
    if (status == HW_OK && d->env->ops->lock(*out, false, err) != HW_OK)
        status = hw_fail(err, HW_EBUSY, "%s: a program has it open: stop it first", d->path);
    hw_free(path);
    return status;
}

static enum hw_status demote_locked(struct demotion *d, struct hyperwal_log *heir,
                                    struct hw_error *err)
{
    enum hw_status status = fold(d, err);

    if (status == HW_OK)
        status = own_state(d, err);
    if (status == HW_OK)
        status = check_logged(d, err);
    if (status == HW_OK)
        status = hw_replica_relation(heir->core, &d->own, &d->relation, &d->switch_, err);
    if (status == HW_OK)
        status = become_replica(d, hw_core_identity(heir->core)->key, err);
    return status;
}

static enum hw_status log_and_demote(struct demotion *d, struct hyperwal_log *heir,
                                     struct hw_error *err)
{
    struct hw_file *file = NULL;
    enum hw_status status = d->is_ended ? HW_OK : log_rest(d, err);

    if (status == HW_OK)
        status = lock(d, &file, err);
    if (status == HW_OK)
        status = demote_locked(d, heir, err);
    d->env->ops->close(file);
    return status;
}

enum hw_status hw_follow_demote(const char *path, const char *dir, struct hyperwal_log *heir,
                                struct hw_error *err)
{
    struct demotion d = {.env = hw_env_posix(), .path = path, .dir = dir};
    enum hw_status status = own_state(&d, err);

    if (status == HW_OK)
        status = hw_replica_relation(heir->core, &d.own, &d.relation, &d.switch_, err);
    if (status == HW_OK && d.relation == HW_RELATION_STRANGER)
        status = hw_fail(err, HW_EEXIST,
                         "%s: a database with a log of its own, not a replica, and the log there "
                         "does not go on from it",
                         path);
    if (status == HW_OK)
        status = log_and_demote(&d, heir, err);
    for (int i = 1; status == HW_AGAIN && i < TRIES; i++)
        status = log_and_demote(&d, heir, err);
    if (status == HW_AGAIN)
        status = hw_fail(err, HW_EBUSY, "%s: a program writes to it: stop it first", path);
    return status;
}
