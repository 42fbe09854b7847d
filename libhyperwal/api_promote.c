/* Implements hyperwal_promote() of include/hyperwal.h. */
#include "api_promote.h"

#include <string.h>

#include "base/alloc.h"
#include "hypercore/keep.h"

enum { SWITCH_SEQ = 1 };

/* ---------------------------------------------------------------------------- the old log */

/* The log that the replica followed, as far as it is here; NULL: it is not. */
static enum hw_status old_open(struct hw_promotion *p, struct hw_core **out, struct hw_error *err)
{
    const char *dir = p->dir;
    bool is_here = false;
    enum hw_status status = hw_keep_mirror_back(p->env, dir, p->info.key, err);

    *out = NULL;
    if (status == HW_OK)
        status = hw_api_has_file(p->env, dir, "mirror", &is_here, err);
    if (status == HW_OK && !is_here && !hw_address_is_remote(p->info.source)) {
        dir = p->info.source;
        status = hw_api_has_file(p->env, dir, "log", &is_here, err);
    }
    if (status != HW_OK || !is_here)
        return status;
    return hw_core_open(p->env, dir, HW_CORE_READ, UINT64_MAX, out, err);
}

/* Its last word: does it name the log in `next`? */
static enum hw_status names_next(struct hw_promotion *p, bool *names, struct hw_error *err)
{
    struct hw_switch last = {.seq = 0};
    struct hw_core *old = NULL;
    uint8_t key[HW_KEY_SIZE];
    enum hw_status status = hw_keep_key(p->env, p->next, HW_KEEP_LOG, key, err);

    *names = false;
    if (status == HW_OK)
        status = old_open(p, &old, err);
    if (status == HW_OK && old != NULL && hw_core_length(old) > 0) {
        status = hw_switch_read(old, hw_core_length(old) - 1, &last, err);
        *names = status == HW_OK && last.role == HW_SWITCH_CONTINUED &&
                 memcmp(last.key, key, HW_KEY_SIZE) == 0;
        if (status == HW_ENOTFOUND || status == HW_EMISSING) /* no switch, or not here */
            status = HW_OK;
    }
    hw_core_close(old);
    return status;
}

/* --------------------------------------------------------------------------- the new log */

/* What of a log in `next` is to be removed; the first failure ends it. */
struct leftovers {
    struct hw_env *env;
    const char *dir;
    bool keeps_key; /* and with it the file `log`, which says whose it is */
    enum hw_status status;
    struct hw_error *err;
};

static bool remove_one(void *ctx, const char *name)
{
    struct leftovers *leftovers = ctx;
    char *path;

    if (leftovers->keeps_key && (strcmp(name, "key") == 0 || strcmp(name, "log") == 0))
        return true;
    path = hw_format("%s/%s", leftovers->dir, name);
    if (path == NULL)
        leftovers->status = hw_fail(leftovers->err, HW_ENOMEM, "no memory for a path");
    else
        leftovers->status = leftovers->env->ops->remove(leftovers->env, path, leftovers->err);
    hw_free(path);
    return leftovers->status == HW_OK;
}

static enum hw_status remove_all(struct hw_promotion *p, bool keeps_key, struct hw_error *err)
{
    struct leftovers leftovers = {p->env, p->next, keeps_key, HW_OK, err};
    enum hw_status status = p->env->ops->list(p->env, p->next, remove_one, &leftovers, err);

    return status == HW_OK ? leftovers.status : status;
}

/*
 * An earlier call may have left the key that the old primary knows by now, and have begun the log:
 * nobody has seen a block of it, and the state may be another one since.  So they are removed, and
 * what is left, wherever this is cut off, is that key.
 */
static enum hw_status next_open_empty(struct hw_promotion *p, struct hw_core **out,
                                      struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_open(p->env, p->next, HW_CORE_WRITE, UINT64_MAX, &core, err);

    if (status == HW_ECORRUPT || (status == HW_OK && hw_core_length(core) > 0)) {
        hw_core_close(core);
        core = NULL;
        status = remove_all(p, true, err);
        if (status == HW_OK)
            status = hw_core_open(p->env, p->next, HW_CORE_WRITE, UINT64_MAX, &core, err);
    }
    if (status == HW_OK)
        *out = core;
    return status;
}

/*
 * A copy, or the volume or the machine is another one since.  If the old primary goes by its key it
 * is needed; and two who have it would write two histories, so somebody has to say that the
 * original is gone, as with any log.  HW_END: nobody knows it.
 */
static enum hw_status next_adopt(struct hw_promotion *p, struct hw_core **out, struct hw_error *err)
{
    bool is_named = false;
    enum hw_status status = names_next(p, &is_named, err);

    if (status != HW_OK || !is_named)
        return status == HW_OK ? HW_END : status;
    if (!p->is_forced)
        return hw_fail(err, HW_EFORK,
                       "%s: the log that the old primary handed over to was begun elsewhere, and "
                       "copied or moved here: --force goes on with it if the original is gone",
                       p->next);
    status = remove_all(p, true, err);
    if (status == HW_OK)
        status = hw_core_adopt(p->env, p->next, err);
    return status == HW_OK ? next_open_empty(p, out, err) : status;
}

/* The log that is to go on, without a block. */
static enum hw_status next_open(struct hw_promotion *p, struct hw_core **out, struct hw_error *err)
{
    bool is_left = false;
    enum hw_status status = next_open_empty(p, out, err);

    if (status == HW_EFORK) {
        status = next_adopt(p, out, err);
        if (status != HW_END)
            return status;
    } else if (status != HW_ENOTFOUND && status != HW_ECORRUPT) {
        return status; /* one that cannot be read now stays */
    }
    /* Half made, a copy that nobody knows, or damaged down to its key: made anew. */
    status = hw_env_exists(p->env, p->next, &is_left, err);
    if (status == HW_OK && is_left)
        status = remove_all(p, false, err);
    if (status == HW_OK && is_left)
        status = p->env->ops->remove_dir(p->env, p->next, err);
    return status == HW_OK ? hw_core_create(p->env, p->next, out, err) : status;
}

enum hw_status hw_promotion_prepare(struct hw_promotion *p, uint8_t key[HW_KEY_SIZE],
                                    struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = next_open(p, &core, err);

    if (status == HW_OK)
        memcpy(key, hw_core_identity(core)->key, HW_KEY_SIZE);
    hw_core_close(core);
    return status;
}

enum hw_status hw_promotion_decide(struct hw_promotion *p, struct hw_error *err)
{
    struct hw_core *core = NULL;
    int64_t now = p->env->ops->realtime_ms(p->env);
    enum hw_status status = next_open(p, &core, err);

    if (p->begin.time_ms < now) /* else a clock was wrong: time does not go back */
        p->begin.time_ms = now;
    if (status == HW_OK)
        status = hw_capture_begin_log(core, &p->begin, err);
    hw_core_close(core);
    if (status == HW_OK)
        status = p->env->ops->rename(p->env, p->next, p->ready, err);
    if (status == HW_OK)
        status = p->env->ops->sync_dir(p->env, p->dir, err);
    return status;
}

/* The new log gets into its place.  Without one, an open would make a log of another database. */
static enum hw_status put_in_place(struct hw_promotion *p, struct hw_error *err)
{
    bool is_left = false, is_moved = false;
    enum hw_status status = hw_api_has_file(p->env, p->ready, "log", &is_left, err);

    if (status == HW_OK && is_left)
        return hw_keep_move(p->env, p->ready, p->dir, HW_KEEP_LOG, err);
    if (status == HW_OK)
        status = hw_api_has_file(p->env, p->dir, "log", &is_moved, err);
    if (status == HW_OK && !is_moved)
        status = hw_fail(err, HW_ECORRUPT, "%s: the log that is to go on is neither here nor in %s",
                         p->dir, p->ready);
    return status;
}

enum hw_status hw_promotion_finish(struct hw_promotion *p, struct hw_error *err)
{
    bool is_replica = false, is_left = false;
    enum hw_status status = hw_api_has_file(p->env, p->dir, "replica", &is_replica, err);

    if (status == HW_OK && is_replica) {
        status = hw_keep(p->env, p->dir, HW_KEEP_MIRROR, err); /* if it is there */
        if (status == HW_OK) /* what it says of lengths is not for readers of the new log */
            status = hw_replica_strip(p->env, p->path, err);
        if (status == HW_OK)
            status = put_in_place(p, err);
        if (status == HW_OK)
            status = hw_replica_release(p->env, p->path, err);
    }
    if (status == HW_OK)
        status = hw_env_exists(p->env, p->ready, &is_left, err);
    if (status == HW_OK && is_left)
        status = p->env->ops->remove_dir(p->env, p->ready, err);
    return status;
}

/* ------------------------------------------------------------------- the state that goes over */

static enum hw_status genesis_of(struct hw_promotion *p, struct hw_core *old, struct hw_error *err)
{
    struct hw_buffer block = {0};
    struct hw_entry_header header;
    struct hw_cursor cursor;
    enum hw_status status;

    p->env->ops->random(p->env, p->begin.genesis.database_id, sizeof(p->begin.genesis.database_id));
    if (old == NULL)
        return HW_OK;
    status = hw_core_read(old, 0, &block, err);
    if (status == HW_OK) {
        struct hw_genesis genesis;

        cursor = hw_cursor(block.bytes, block.size);
        status = hw_entry_header_decode(&cursor, 0, &header);
        if (status == HW_OK)
            status = hw_genesis_decode(&cursor, &genesis);
        if (status == HW_OK) /* it is the same database */
            memcpy(p->begin.genesis.database_id, genesis.database_id, sizeof(genesis.database_id));
        else
            status = hw_fail(err, status, "%s: the old log has no genesis", p->path);
    }
    hw_buffer_release(&block);
    return status;
}

/* What the database is, and is it what the replica's record says? */
static enum hw_status state_take(struct hw_promotion *p, struct hw_error *err)
{
    struct hw_entry_summary entry;
    struct hw_core *old = NULL;
    uint32_t page_size, page_count;
    uint64_t sum, seq;
    enum hw_status status =
        hw_database_sum(hw_api_base_vfs(), p->path, &page_size, &page_count, &sum, err);

    if (status == HW_ENOTFOUND)
        status = HW_EMISSING; /* it is a replica, whose file was removed */
    if (status != HW_OK)
        return status;
    if (p->info.seq == UINT64_MAX || sum != p->info.sum || page_count != p->info.page_count)
        return hw_fail(err, HW_ECORRUPT,
                       "%s: its state sum is %016llx, and not that of a state of the log, "
                       "%016llx; follow again, which repairs it, before it is made a primary",
                       p->path, (unsigned long long)sum, (unsigned long long)p->info.sum);
    p->begin.genesis = (struct hw_genesis){.format_version = HW_FORMAT_VERSION,
                                           .page_size = page_size,
                                           .page_count = page_count,
                                           .sum = sum};
    p->begin.from = (struct hw_switch){.role = HW_SWITCH_CONTINUES,
                                       .fork = p->info.fork,
                                       .seq = p->info.seq,
                                       .page_count = page_count,
                                       .sum = sum};
    memcpy(p->begin.from.key, p->info.key, HW_KEY_SIZE);
    p->begin.at = p->info.at;
    status = old_open(p, &old, err);
    if (status == HW_OK)
        status = genesis_of(p, old, err);
    seq = p->info.seq;
    if (status == HW_OK && old != NULL && hw_entry_next(old, &seq, &entry, NULL) == HW_OK)
        p->begin.time_ms = entry.header.time_ms;
    hw_core_close(old);
    return status;
}

/* ------------------------------------------------------------------------------ promotion */

/* A primary that continues another log: somebody has done it before. */
static enum hw_status already(struct hw_promotion *p, hyperwal_promotion *out, struct hw_error *err)
{
    struct hw_core *core = NULL;
    struct hw_switch switch_;
    enum hw_status status = hw_core_open(p->env, p->dir, HW_CORE_READ, UINT64_MAX, &core, err);

    if (status == HW_OK)
        status = hw_switch_read(core, SWITCH_SEQ, &switch_, err);
    if (status == HW_OK) {
        memcpy(out->key, hw_core_identity(core)->key, sizeof(out->key));
        memcpy(out->old_key, switch_.key, sizeof(out->old_key));
        out->old_seq = switch_.seq;
        out->old_fork = switch_.fork;
    } else if (status == HW_ENOTFOUND) {
        status = hw_fail(err, HW_EEXIST, "%s: not a replica", p->path);
    }
    hw_core_close(core);
    return status;
}

static enum hw_status promote_locked(struct hw_promotion *p, struct hw_error *err)
{
    bool is_decided = false;
    enum hw_status status = hw_env_exists(p->env, p->ready, &is_decided, err);

    if (status == HW_OK && !is_decided) {
        status = hw_replica_info(p->env, p->path, &p->info, err);
        if (status == HW_OK)
            status = state_take(p, err);
        if (status == HW_OK)
            status = hw_promotion_decide(p, err);
    }
    return status == HW_OK ? hw_promotion_finish(p, err) : status;
}

/* The URLs of the replica's sources, and the others. */
static enum hw_status peers_take(struct hw_promotion *p, const char *const *peers, unsigned count,
                                 struct hw_error *err)
{
    char *rest = NULL;
    enum hw_status status = hw_replica_info(p->env, p->path, &p->info, err);

    if (status != HW_OK) /* without its sources nobody is asked whether the primary is there */
        return status;
    p->sources = hw_strdup(p->info.source);
    if (p->sources == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to promote it", p->path);
    if (!hw_address_is_remote(p->info.source)) { /* a directory, whose name may have blanks */
        if (p->sources[0] != '\0')
            p->peers[p->peer_count++] = p->sources;
    } else {
        for (char *one = strtok_r(p->sources, " ", &rest);
             one != NULL && p->peer_count < HW_HUB_SOURCES_MAX; one = strtok_r(NULL, " ", &rest))
            p->peers[p->peer_count++] = one;
    }
    p->source_count = p->peer_count;
    if (p->from != NULL && hw_address_is_remote(p->from) &&
        (p->peer_count == 0 || hw_address_is_remote(p->peers[0]))) {
        bool is_known = false;

        for (unsigned i = 0; i < p->peer_count; i++)
            is_known = is_known || strcmp(p->peers[i], p->from) == 0;
        if (!is_known)
            p->peers[p->peer_count++] = p->from;
    }
    for (unsigned i = 0; i < count; i++) {
        if (p->peer_count == HW_PROMOTION_PEERS_MAX)
            return hw_fail(err, HW_EMISUSE, "more than %d peers", HW_PROMOTION_PEERS_MAX);
        if (!hw_address_is_remote(peers[i]))
            return hw_fail(err, HW_EMISUSE, "%s: a peer is named by a URL", peers[i]);
        p->peers[p->peer_count++] = peers[i];
    }
    return HW_OK;
}

static enum hw_status promote(struct hw_promotion *p, const char *const *peers, unsigned count,
                              hyperwal_promotion *out, struct hw_error *err)
{
    struct hw_file *lock = NULL;
    bool is_replica = false, is_decided = false;
    enum hw_status status = hw_api_has_file(p->env, p->dir, "replica", &is_replica, err);

    if (status == HW_OK)
        status = hw_env_exists(p->env, p->ready, &is_decided, err);
    if (status == HW_OK && is_replica) {
        if (!is_decided)
            status = peers_take(p, peers, count, err);
        if (status == HW_OK && !is_decided)
            status = hw_promotion_catch_up(p, err);
        if (status == HW_OK && !is_decided && p->from != NULL)
            status = hw_promotion_hand_over(p, err);
        if (status == HW_OK)
            status = hw_replica_lock(p->env, p->path, &lock, err);
        if (status == HW_OK)
            status = promote_locked(p, err);
        p->env->ops->close(lock);
    } else if (status == HW_OK && is_decided) {
        status = hw_promotion_finish(p, err);
    }
    return status == HW_OK ? already(p, out, err) : status;
}

static enum hw_status begin(struct hw_promotion *p, const char *path, struct hw_error *err)
{
    sqlite3_vfs *vfs = hw_api_base_vfs();

    p->env = hw_env_posix();
    p->path = hw_zalloc((size_t)vfs->mxPathname + 1);
    if (p->path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to promote it", path);
    if ((vfs->xFullPathname(vfs, path, vfs->mxPathname + 1, p->path) & 0xff) != SQLITE_OK)
        return hw_fail(err, HW_EIO, "%s: its full path cannot be had", path);
    p->dir = hw_format("%s-hyper", p->path);
    p->next = hw_format("%s-hyper/next", p->path);
    p->ready = hw_format("%s-hyper/%s", p->path, HW_REPLICA_PROMOTED);
    if (p->dir == NULL || p->next == NULL || p->ready == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to promote it", path);
    return HW_OK;
}

int hyperwal_promote(const char *path, const char *from, const char *const *peers,
                     unsigned peer_count, unsigned flags, hyperwal_progress progress, void *ctx,
                     hyperwal_promotion *out, char **error)
{
    struct hw_promotion p = {.from = from,
                             .is_forced = (flags & HYPERWAL_PROMOTE_FORCE) != 0,
                             .progress = progress,
                             .progress_ctx = ctx};
    hyperwal_promotion done = {.old_fork = 0};
    struct hw_error err = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (path == NULL || (peer_count > 0 && peers == NULL))
        return SQLITE_MISUSE;
    status = begin(&p, path, &err);
    if (status == HW_OK)
        status = promote(&p, peers, peer_count, &done, &err);
    hyperwal_node_close(p.node);
    hw_free(p.sources);
    hw_free(p.ready);
    hw_free(p.next);
    hw_free(p.dir);
    hw_free(p.path);
    if (status == HW_OK && out != NULL)
        *out = done;
    if (status != HW_OK)
        hw_api_tell(error, &err);
    return hw_api_code(status);
}
