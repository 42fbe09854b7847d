/*
 * Implements hyperwal_follow_* of include/hyperwal.h.
 *
 * A follower sleeps on the shared page of its log's directory: the worker rings there when more of
 * the log is durable, the hub when more of a remote one has come, and so does
 * hyperwal_follow_interrupt().  While it reads it may also wait for a block that is under way.
 */
#include <stdatomic.h>
#include <string.h>

#include "api_follow.h"
#include "base/alloc.h"
#include "hypercore/keep.h"
#include "node/place.h"

enum {
    READERS_WAIT_NS = 2000000,   /* until old readers are asked again to leave the WAL */
    ABSENT_WAIT_NS = 1000000000, /* until sources that lack a block are asked again */
    ABSENT_MAX = 10,             /* so often, before it is an error */
};

static bool follow_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct hyperwal_follower *follower = ctx;

    if (atomic_load(&follower->is_interrupted) != 0)
        return false;
    return follower->progress == NULL ||
           follower->progress(follower->progress_ctx, done, total) != 0;
}

bool hw_follow_goes_on(void *follower)
{
    return follow_progress(follower, 0, 0);
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

/* What is known before the replica is opened.  Asked once: all that follows has to agree. */
struct standing {
    struct hw_replica_info info; /* if it is a replica */
    bool is_replica, has_file;
    bool is_from_elsewhere; /* it came from another log, and has nothing of this one yet */
};

static enum hw_status standing_of(struct hyperwal_follower *follower, struct standing *out,
                                  struct hw_error *err)
{
    struct hw_env *env = follower->log->env;
    const uint8_t *key = hw_core_identity(follower->log->core)->key;
    enum hw_status status = hw_replica_info(env, follower->path, &out->info, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    out->is_replica = status == HW_OK;
    out->is_from_elsewhere =
        out->is_replica && (memcmp(out->info.key, key, HW_KEY_SIZE) != 0 ||
                            (out->info.base.epoch != 0 && out->info.seq == out->info.base.seq));
    return hw_env_exists(env, follower->path, &out->has_file, err);
}

static bool is_skipped(void *ctx, uint64_t block)
{
    const struct hyperwal_follower *follower = ctx;

    for (unsigned i = 0; i < follower->skip_count; i++)
        if (block >= follower->skips[i].start && block < follower->skips[i].end)
            return true;
    return false;
}

struct groups { /* of a snapshot, and the entries that come after its oldest group, at the end */
    struct hyperwal_follower *follower;
    uint64_t next; /* up to here it was decided */
    uint64_t start, end;
    bool has_last;
};

/* The range before this one was of groups: what lies before it is wanted, it is not. */
static void group_range(void *ctx, uint64_t start, uint64_t end)
{
    struct groups *groups = ctx;
    struct hyperwal_follower *follower = groups->follower;

    if (groups->has_last && groups->start >= groups->next &&
        follower->skip_count < HW_FOLLOW_SKIPS_MAX) {
        if (groups->start > groups->next)
            (void)!hw_mirror_want(follower->mirror, groups->next, groups->start, NULL);
        follower->skips[follower->skip_count++] =
            (struct hw_follow_range){groups->start, groups->end};
        groups->next = groups->end;
    }
    groups->has_last = true;
    groups->start = start;
    groups->end = end;
}

/*
 * The replica goes on from the state in which the log began: the snapshot that was made of it then
 * is not fetched.
 */
static enum hw_status want_after_move(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct groups groups = {.follower = follower};
    uint64_t seq = hw_replica_seq(follower->replica);
    struct hw_error why;
    enum hw_status status;

    if (seq == UINT64_MAX) { /* it is compared with a snapshot */
        status = hw_api_remote_want_live(follower->log->remote, follower->log->core, &why);
        return status == HW_ENOTFOUND ? HW_OK : hw_prefix(err, status, "%s", why.message);
    }
    groups.next = seq + 1;
    follower->skip_count = 0;
    if (hw_state_blocks(follower->log->core, &head, group_range, &groups, &why) != HW_OK)
        groups.next = seq + 1; /* no snapshot yet, or out of reach: then in order */
    hw_replica_set_skip(follower->replica, is_skipped, follower);
    hw_mirror_want_tail(follower->mirror, groups.next);
    return HW_OK;
}

/* What has to be fetched for a replica as it is. */
static enum hw_status want_blocks(struct hyperwal_follower *follower,
                                  const struct standing *standing, struct hw_error *err)
{
    struct hyperwal_log *log = follower->log;

    if (follower->mirror == NULL)
        return HW_OK;
    if (standing->is_from_elsewhere)
        return hw_mirror_want(follower->mirror, 0, 2,
                              err); /* genesis and switch; more comes later */
    (void)!hw_mirror_want(follower->mirror, 0, 2,
                          NULL); /* the switch is for others who come late */
    if (!standing->is_replica || standing->info.seq == UINT64_MAX || !standing->has_file)
        return hw_api_remote_want_live(log->remote, log->core, err);
    hw_mirror_want_tail(follower->mirror, standing->info.seq + 1);
    return HW_OK;
}

/* HW_OK: the replica is there already, or the log has a snapshot to make it from. */
static enum hw_status can_begin(struct hyperwal_follower *follower, const struct standing *standing,
                                struct hw_error *err)
{
    uint64_t snapshot;
    enum hw_status status;

    /* What is there opens without a look at the end of the log, which may be out of reach. */
    if (standing->is_replica && standing->has_file)
        return HW_OK;
    status = hw_api_log_snapshot(follower->log, &snapshot, err);
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
    struct standing standing = {0};
    enum hw_status status;

    if (follower->replica != NULL)
        return HW_OK;
    status = standing_of(follower, &standing, err);
    if (status == HW_OK)
        status = can_begin(follower, &standing, err);
    if (status == HW_OK)
        status = want_blocks(follower, &standing, err);
    if (status != HW_OK)
        return status;
    status = hw_replica_open(log->env, hw_api_base_vfs(), log->core, follower->path,
                             follow_progress, follower, &follower->replica, err);
    if (status != HW_OK)
        return status;
    status = hw_replica_set_source(follower->replica, follower->source, err);
    if (status == HW_OK && follower->mirror != NULL && standing.is_from_elsewhere)
        status = want_after_move(follower, err);
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

/* `log` goes on from the database's own log, or from others that do and are kept beside it. */
static enum hw_status demote_by_path(const char *path, const char *dir, struct hyperwal_log *log,
                                     struct hw_error *err)
{
    struct hyperwal_log *kept = NULL;
    uint8_t own[HW_KEY_SIZE];
    enum hw_status status = hw_keep_key(hw_env_posix(), dir, HW_KEEP_LOG, own, err);

    if (status == HW_OK)
        status = hw_follow_kept_heir(log, own, &kept, err);
    if (status == HW_OK || status == HW_END)
        status = hw_follow_demote(path, dir, kept != NULL ? kept : log, err);
    hyperwal_log_close(kept);
    return status;
}

/*
 * A log of its own is in the way of a replica of `heir`: that of an old primary, whose place
 * another one took, or what is left of one that became a replica just before it was killed.
 */
static enum hw_status log_gives_way(const char *path, const char *dir, struct hyperwal_log *heir,
                                    struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    bool has_log = false, is_replica = false;
    enum hw_status status = hw_follow_check_promotion(path, dir, err);

    if (status == HW_OK)
        status = hw_api_has_file(env, dir, "log", &has_log, err);
    if (status == HW_OK)
        status = hw_api_has_file(env, dir, "replica", &is_replica, err);
    if (status != HW_OK || !has_log)
        return status;
    if (is_replica)
        return hw_keep(env, dir, HW_KEEP_LOG, err);
    return heir != NULL ? demote_by_path(path, dir, heir, err)
                        : hw_follow_demote_by_name(follower, path, err);
}

static enum hw_status open_local(struct hyperwal_follower *follower, const char *src,
                                 struct hw_error *err)
{
    char *dir = NULL, *full = NULL, *beside = NULL;
    enum hw_status status = hw_api_log_dir(hw_env_posix(), src, &dir, err);

    if (status == HW_OK)
        status = full_path(dir, &follower->source, err);
    if (status != HW_OK) {
        hw_free(dir);
        return status;
    }
    status = hw_api_log_attach(dir, NULL, &follower->log, err);
    if (status == HW_OK)
        status = full_path(follower->path, &full, err);
    if (status == HW_OK) {
        beside = hw_format("%s-hyper", full);
        status = beside == NULL ? hw_fail(err, HW_ENOMEM, "no memory to follow a log")
                                : log_gives_way(full, beside, follower->log, follower, err);
    }
    if (status == HW_OK)
        status = hw_follow_missed(follower, follow_progress, err);
    hw_free(beside);
    hw_free(full);
    return status;
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

static enum hw_status sources_keep(struct hyperwal_follower *follower, const char *const *sources,
                                   unsigned count, struct hw_error *err)
{
    if (count > HW_HUB_SOURCES_MAX)
        return hw_fail(err, HW_EMISUSE, "%u sources, and %d are the most", count,
                       (int)HW_HUB_SOURCES_MAX);
    for (unsigned i = 0; i < count; i++) {
        follower->sources[i] = hw_strdup(sources[i]);
        if (follower->sources[i] == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
        follower->source_count = i + 1;
    }
    return HW_OK;
}

/*
 * The id by which servers know this replica again, kept in its directory: a new one only where
 * there is none, for it takes the place of the old one for good.
 */
static enum hw_status replica_id_read(struct hw_env *env, const char *dir, uint8_t id[16],
                                      struct hw_error *err)
{
    char *path = hw_format("%s/id", dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    status = hw_env_read_file(env, path, id, 16, &size, err);
    hw_free(path);
    if (status != HW_OK && status != HW_ENOTFOUND && status != HW_ELIMIT) /* that is no id */
        return status;
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

/* There is no replica: is nothing else in its place? */
static enum hw_status check_free(struct hyperwal_follower *follower, const char *dir,
                                 struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    bool has_log = false, has_database = false;
    enum hw_status status = hw_api_has_file(env, dir, "log", &has_log, err);

    if (status == HW_OK)
        status = hw_env_exists(env, follower->path, &has_database, err);
    if (status == HW_OK && has_log)
        status = hw_fail(err, HW_EEXIST,
                         "%s: a database with a log of its own, not a replica, nor one that the "
                         "log there goes on from",
                         follower->path);
    else if (status == HW_OK && has_database)
        status = hw_fail(err, HW_EEXIST,
                         "%s: a database, but not a replica: choose another name or remove it",
                         follower->path);
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
    bool has_mirror = false;
    uint8_t mirror_key[HW_KEY_SIZE];
    enum hw_status status = hw_replica_info(env, follower->path, &info, err);

    *has_key = *is_same = false;
    if (status == HW_OK) {
        memcpy(key, info.key, HW_KEY_SIZE);
        *has_key = true;
        *is_same = strcmp(info.source, follower->source) == 0;
    } else if (status == HW_ENOTFOUND) {
        status = check_free(follower, dir, err);
    }
    if (status == HW_OK && !follower->has_heir) /* else it was just moved */
        status = hw_follow_mirror_back(follower, *has_key ? key : NULL, err);
    if (status == HW_OK)
        status = hw_api_has_file(env, dir, "mirror", &has_mirror, err);
    if (status != HW_OK)
        return status;
    if (!has_mirror) {
        *is_same = false;
        return HW_OK;
    }
    /* If it is another one's, of one that goes on from the replica's: whoever opens it sees. */
    status = hw_api_mirror_key(env, dir, mirror_key, err);
    memcpy(key, mirror_key, HW_KEY_SIZE);
    *has_key = true;
    return status;
}

static enum hw_status open_mirror(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hw_api_remote_options options = {.node = follower->node,
                                            .sources = follower->sources,
                                            .source_count = follower->source_count,
                                            .dir = follower->dir,
                                            .go_on = hw_follow_goes_on,
                                            .ctx = follower};
    struct hw_env *env = hw_env_posix();
    struct hw_api_remote *remote = NULL;
    uint8_t key[HW_KEY_SIZE], id[16];
    bool has_key;
    char *dir = hw_strdup(follower->dir);
    enum hw_status status;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    status = look_at(follower, dir, key, &has_key, &options.is_known, err);
    if (status == HW_OK)
        status = replica_id_read(env, dir, id, err);
    if (follower->has_heir) { /* the name may be that of one that goes on from this one */
        memcpy(key, follower->heir_key, HW_KEY_SIZE);
        has_key = options.is_known = true;
    }
    if (has_key)
        options.key = key;
    else if (follower->has_name_key)
        options.key = follower->name_key;
    options.replica_id = id;
    if (status == HW_OK)
        status = hw_api_remote_open(&options, &remote, err);
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

static enum hw_status open_remote(struct hyperwal_follower *follower, const char *const *sources,
                                  unsigned count, struct hw_error *err)
{
    char *full = NULL;
    enum hw_status status = full_path(follower->path, &full, err);

    if (status != HW_OK)
        return status;
    follower->source = sources_join(sources, count);
    follower->dir = hw_format("%s-hyper", full);
    if (follower->source == NULL || follower->dir == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    if (status == HW_OK)
        status = sources_keep(follower, sources, count, err);
    if (status == HW_OK)
        status = log_gives_way(full, follower->dir, NULL, follower, err);
    if (status == HW_OK)
        status = open_mirror(follower, err);
    if (status == HW_EFORK) /* another one has the name: one that goes on from ours? */
        status = hw_follow_look_for_heir(follower, err);
    if (status == HW_END)
        status = open_mirror(follower, err);
    hw_free(full);
    return status;
}

/* All addresses of what was named, at most as many as a mirror has sources. */
struct sources {
    struct hw_place places[HW_HUB_SOURCES_MAX]; /* owned */
    unsigned place_count;
    const char *urls[HW_HUB_SOURCES_MAX]; /* borrowed from the places */
    unsigned count;
};

static enum hw_status sources_add(struct hyperwal_follower *follower, struct sources *sources,
                                  const char *name, unsigned count, struct hw_error *err)
{
    struct hw_place *place = &sources->places[sources->place_count];
    enum hw_status status = HW_OK;

    if (sources->place_count == HW_HUB_SOURCES_MAX)
        return hw_fail(err, HW_EMISUSE, "%u sources, and %d are the most", count,
                       (int)HW_HUB_SOURCES_MAX);
    status = hw_place_find(hw_env_posix(), name, place, err);
    if (status != HW_OK)
        return status;
    sources->place_count++;
    if (!place->is_remote && count > 1)
        return hw_fail(err, HW_EMISUSE, "%s: of several sources each has to be a URL, or a petname",
                       name);
    for (size_t i = 0; i < place->count && sources->count < HW_HUB_SOURCES_MAX; i++)
        sources->urls[sources->count++] = place->urls[i];
    if (place->has_key && place->petname != NULL && !follower->has_name_key) {
        follower->has_name_key = true;
        memcpy(follower->name_key, place->key, HW_KEY_SIZE);
        follower->petname = hw_strdup(place->petname);
        if (follower->petname == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    }
    return HW_OK;
}

static enum hw_status open_sources(struct hyperwal_follower *follower, const char *const *names,
                                   unsigned count, struct hw_error *err)
{
    struct sources *sources = hw_zalloc(sizeof(*sources));
    enum hw_status status = HW_OK;

    if (sources == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    for (unsigned i = 0; i < count && status == HW_OK; i++)
        status = sources_add(follower, sources, names[i], count, err);
    if (status == HW_OK && !sources->places[0].is_remote)
        status = open_local(follower, names[0], err);
    else if (status == HW_OK)
        status = open_remote(follower, sources->urls, sources->count, err);
    for (unsigned i = 0; i < sources->place_count; i++)
        hw_place_release(&sources->places[i]);
    hw_free(sources);
    return status;
}

/* The log is open: the replica, too, if there is one or can be. */
static enum hw_status begin(struct hyperwal_follower *follower, struct hw_error *err)
{
    enum hw_status status = hw_api_log_listen(follower->log, err);

    if (status == HW_OK)
        status = hw_api_log_refresh(follower->log, err);
    return status == HW_OK ? replica_begin(follower, err) : status;
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
    follower->node = node;
    follower->path = hw_strdup(path);
    if (follower->path == NULL) {
        status = hw_fail(&err, HW_ENOMEM, "no memory to follow a log");
        goto fail;
    }
    status = open_sources(follower, sources, source_count, &err);
    if (status == HW_OK)
        status = begin(follower, &err);
    if (status != HW_OK && status != HW_END)
        goto fail;
    if (follower->has_heir)
        hw_follow_rename(follower);
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
    for (unsigned i = 0; i < follower->source_count; i++)
        hw_free((char *)(uintptr_t)follower->sources[i]);
    hw_free(follower->petname);
    hw_free(follower->dir);
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
    if (status != HW_EPRUNED || follower->mirror == NULL)
        return status;
    if (++follower->absent > ABSENT_MAX) {
        follower->absent = 0; /* who goes on all the same waits as long once more */
        return status;
    }
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

/* From the log that was followed to the one that goes on from it. */
static enum hw_status move(struct hyperwal_follower *follower, struct hw_error *err)
{
    enum hw_status status;

    atomic_store(&follower->is_moving, 1);
    while (atomic_load(&follower->interrupters) != 0)
        ; /* for the moment that waking takes */
    hw_follow_leave(follower);
    status = hw_follow_keep(follower, err); /* or the rest, of which an earlier step failed */
    if (status == HW_OK)
        status = open_mirror(follower, err);
    if (status == HW_OK)
        status = begin(follower, err);
    if (status >= 0)
        hw_follow_rename(follower);
    if (status < 0)
        hw_follow_leave(follower); /* the next step tries again */
    else
        atomic_store(&follower->is_moving, 0);
    return status;
}

int hyperwal_follow_step(hyperwal_follower *follower, unsigned timeout_ms)
{
    struct hyperwal_log *log;
    struct hw_env *env = hw_env_posix();
    struct hw_error err = {0};
    uint64_t deadline = env->ops->monotonic_ns(env) + (uint64_t)timeout_ms * 1000000U;

    for (;;) {
        enum hw_status status = follower->log != NULL ? HW_OK : move(follower, &err);
        uint64_t now, wait_ns, again_ns = 0;
        uint32_t seen;

        if (atomic_exchange(&follower->is_interrupted, 0) != 0)
            return SQLITE_INTERRUPT;
        if (status < 0)
            return follow_result(follower, status, &err);
        log = follower->log;
        seen = hw_shared_wake_count(log->page);
        status = follow_apply(follower, &again_ns, &err);
        if (status != HW_OK && hw_follow_has_heir(follower, status == HW_EPRUNED)) {
            status = move(follower, &err);
            if (status >= 0)
                continue;
        }
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
    /* Either we see that it is between two logs, or it waits for us before it closes one. */
    atomic_fetch_add(&follower->interrupters, 1);
    if (atomic_load(&follower->is_moving) == 0) {
        if (follower->mirror != NULL)
            hw_mirror_interrupt(follower->mirror);
        hw_shared_wake(follower->log->page);
    }
    atomic_fetch_sub(&follower->interrupters, 1);
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
    uint64_t length = follower->log != NULL ? hw_core_length(follower->log->core) : 0;
    uint64_t published = follower->log != NULL ? hw_shared_durable_length(follower->log->page) : 0;
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
    return follower->log != NULL ? follower->log->dir : follower->dir;
}
