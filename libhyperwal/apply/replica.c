/*
 * A replica: open, step, close.
 *
 *                 ┌─────────── nothing in the log yet ──┐
 *   UNBUILT ──────┴─▶ FOLLOWING ──▶ NEEDS REPAIR ───────┴─▶ FOLLOWING
 *     restore          sum wrong, pruned, gap, unknown state at open,
 *                      another fork of the log that has not got our state
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply/replay.h"
#include "apply/replica_internal.h"
#include "base/alloc.h"

/* ------------------------------------------------------------------------- whose replica */

static char *file_in(const char *dir, const char *name)
{
    return hw_format("%s/%s", dir, name);
}

enum hw_status hw_replica_set_source(struct hw_replica *replica, const char *source,
                                     struct hw_error *err)
{
    struct hw_replica_info info;
    enum hw_status status = hw_replica_binding_read(replica->env, replica->dir, &info, err);

    if (status != HW_OK || strcmp(info.source, source) == 0)
        return status;
    if (strchr(source, '\n') != NULL || strlen(source) >= sizeof(info.source))
        return HW_OK; /* a name that cannot be told to people is not told */
    (void)snprintf(info.source, sizeof(info.source), "%s", source);
    return hw_replica_binding_write(replica->env, replica->dir, &info, err);
}

/* -------------------------------------------------------------------------------- opening */

static enum hw_status full_path(sqlite3_vfs *base, const char *path, char **out,
                                struct hw_error *err)
{
    char *full = hw_zalloc((size_t)base->mxPathname + 1);
    int code;

    if (full == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory");
    code = base->xFullPathname(base, path, base->mxPathname + 1, full);
    if (code != SQLITE_OK && code != (SQLITE_OK | (2 << 8))) { /* SQLITE_OK_SYMLINK */
        hw_free(full);
        return hw_fail(err, HW_EIO, "%s: no full path (SQLite code %d)", path, code);
    }
    *out = full;
    return HW_OK;
}

static enum hw_status fail_foreign(struct hw_replica *replica, struct hw_error *err)
{
    return hw_fail(err, HW_EEXIST,
                   "%s: a database, but not a replica: choose another name or remove it",
                   replica->path);
}

/* A database that is not ours, or a log's directory, is never touched. */
static enum hw_status check_free(struct hw_replica *replica, struct hw_error *err)
{
    char *log = file_in(replica->dir, "log");
    bool has_log = false, has_database = false;
    enum hw_status status = HW_OK;

    if (log == NULL)
        status = hw_fail(err, HW_ENOMEM, "replica: no memory");
    if (status == HW_OK)
        status = hw_env_exists(replica->env, log, &has_log, err);
    if (status == HW_OK)
        status = hw_env_exists(replica->env, replica->path, &has_database, err);
    if (status == HW_OK && has_log)
        status = hw_fail(err, HW_EEXIST, "%s: a database with a log of its own, not a replica",
                         replica->path);
    else if (status == HW_OK && has_database)
        status = fail_foreign(replica, err);
    hw_free(log);
    return status;
}

/* Make or check the binding, with the follower's lock held. */
static enum hw_status bind(struct hw_replica *replica, struct hw_error *err)
{
    const uint8_t *key = hw_core_identity(replica->core)->key;
    struct hw_replica_info info = {.fork = hw_core_head(replica->core).fork};
    enum hw_status status = hw_replica_binding_read(replica->env, replica->dir, &info, err);

    if (status == HW_ENOTFOUND) {
        status = check_free(replica, err);
        memcpy(info.key, key, HW_KEY_SIZE);
        if (status == HW_OK)
            status = hw_replica_binding_write(replica->env, replica->dir, &info, err);
    } else if (status == HW_OK && memcmp(info.key, key, HW_KEY_SIZE) != 0) {
        status = hw_replica_move(replica->env, replica->path, replica->core, &info, err);
    }
    if (status != HW_OK)
        return status;
    replica->fork = info.fork;
    replica->origin = info.base;
    return HW_OK;
}

static enum hw_status make_dir(struct hw_env *env, const char *dir, struct hw_error *err)
{
    enum hw_status status = hw_env_make_dir_of(env, dir, NULL, err);

    if (status == HW_ENOTFOUND) /* no target that somebody asked for */
        return hw_fail(err, HW_EIO, "%s: its directory is not there: make it first", dir);
    return status == HW_EEXIST ? HW_OK : status; /* another follower was faster */
}

/* Its log is there already: nothing of another one may come into it. */
static enum hw_status check_promotion(struct hw_replica *replica, struct hw_error *err)
{
    char *path = file_in(replica->dir, HW_REPLICA_PROMOTED);
    bool is_decided = false;
    enum hw_status status = HW_OK;

    if (path == NULL)
        status = hw_fail(err, HW_ENOMEM, "replica: no memory");
    else
        status = hw_env_exists(replica->env, path, &is_decided, err);
    if (status == HW_OK && is_decided)
        status = hw_fail(err, HW_EBUSY,
                         "%s: it is being made a primary; `hyperwal promote` goes on with that",
                         replica->path);
    hw_free(path);
    return status;
}

static enum hw_status dir_open(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_env *env = replica->env;
    char *path = file_in(replica->dir, "follower.lock");
    bool is_there = false;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory");
    status = hw_env_exists(env, replica->dir, &is_there, err);
    if (status == HW_OK && !is_there) {
        status = check_free(replica, err);
        if (status == HW_OK)
            status = make_dir(env, replica->dir, err);
    }
    if (status == HW_OK)
        status = env->ops->open(
            env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
            &replica->lock, err);
    if (status == HW_OK && env->ops->lock(replica->lock, false, err) != HW_OK)
        status = hw_fail(err, HW_EBUSY, "%s: another follower has it open", replica->path);
    hw_free(path);
    if (status == HW_OK)
        status = check_promotion(replica, err);
    if (status == HW_OK)
        status = bind(replica, err);
    if (status == HW_OK)
        status = hw_shared_page_open(env, replica->dir, true, &replica->shared, err);
    if (status == HW_OK)
        status =
            hw_positions_open(env, replica->dir, replica->origin.epoch, &replica->positions, err);
    return status;
}

/* The genesis says how large pages are.  HW_END: the log is empty. */
static enum hw_status genesis_read(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_genesis genesis;
    uint32_t capacity;
    enum hw_status status;

    if (replica->page_size != 0)
        return HW_OK;
    if (hw_core_length(replica->core) == 0)
        return HW_END;
    status = hw_block_genesis(replica->core, &genesis, err);
    if (status != HW_OK)
        return status;
    capacity = HW_TRANSACTION_BYTES / genesis.page_size;
    status = hw_overlay_new(genesis.page_size, capacity, &replica->overlay, err);
    if (status == HW_OK) {
        replica->scratch = hw_alloc(genesis.page_size);
        if (replica->scratch == NULL)
            status = hw_fail(err, HW_ENOMEM, "replica: no memory for a page");
    }
    if (status == HW_OK)
        status = hw_transaction_decoder_new(&replica->decoder, err);
    if (status == HW_OK) {
        replica->page_size = genesis.page_size;
        return HW_OK;
    }
    hw_overlay_free(replica->overlay);
    hw_free(replica->scratch);
    replica->overlay = NULL;
    replica->scratch = NULL;
    return status;
}

static void show_seq(struct hw_replica *replica)
{
    hw_shared_set_applied_seq(replica->shared, replica->shown_seq);
}

/* There is no database whose state could be known. */
static void state_forget(struct hw_replica *replica)
{
    replica->visible = (struct hw_replica_state){.seq = UINT64_MAX};
    replica->next = replica->visible;
    replica->shown_seq = UINT64_MAX;
    replica->needs_repair = false;
    replica->is_in_doubt = true;
}

static enum hw_status database_open(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_wal_index_header header;
    enum hw_status status = hw_replica_database_open(
        replica->env, replica->base, replica->path, replica->page_size, &replica->db, &header, err);

    if (status == HW_OK)
        status = hw_replica_locate(replica, &header, err);
    if (status == HW_OK)
        status = hw_replica_database_attach(replica->db, err);
    if (status != HW_OK) {
        hw_replica_database_close(replica->db);
        replica->db = NULL;
        state_forget(replica);
        return status;
    }
    replica->checkpoint_at = HW_REPLICA_CHECKPOINT_FRAMES;
    replica->wal_limit = HW_REPLICA_WAL_LIMIT;
    replica->round_recorded = false;
    if (header.max_frame == 0)
        replica->is_in_doubt = false;
    show_seq(replica);
    return HW_OK;
}

/*
 * Nobody has the database: a -wal or -shm beside it is of one that was removed.  It must be gone
 * for good before the new file has the name that it belongs to.
 */
static enum hw_status remove_leftovers(struct hw_replica *replica, struct hw_error *err)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal"};
    enum hw_status status = HW_OK;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes) && status == HW_OK; i++) {
        char *path = hw_format("%s%s", replica->path, suffixes[i]);
        if (path == NULL)
            return hw_fail(err, HW_ENOMEM, "replica: no memory");
        status = replica->env->ops->remove(replica->env, path, err);
        if (status == HW_ENOTFOUND)
            status = HW_OK;
        hw_free(path);
    }
    return status == HW_OK ? hw_env_sync_names(replica->env, replica->path, err) : status;
}

/* More may have come since the record was made. */
static enum hw_status make_lazily(struct hw_replica *replica,
                                  const struct hw_replica_record *record, struct hw_error *err)
{
    struct hw_replica_record reached = *record;
    struct hw_state state;
    enum hw_status status = replica->make(replica->make_ctx, replica->path, &state, err);

    if (status != HW_OK || state.seq == record->seq)
        return status;
    reached.seq = state.seq;
    reached.sum = state.sum;
    reached.page_count = state.page_count;
    status = hw_positions_append(replica->positions, &reached, err);
    if (status == HW_OK)
        status = hw_positions_sync(replica->positions, err);
    return status;
}

/* Did a build that failed come as far as to put the file in its place? */
static bool is_in_place(struct hw_replica *replica, enum hw_status failure)
{
    bool is_there = true;

    if (failure == HW_EEXIST)
        return false; /* another's, which came meanwhile */
    return hw_env_exists(replica->env, replica->path, &is_there, NULL) != HW_OK || is_there;
}

/* There is no file.  HW_END: nothing to build from yet.  HW_AGAIN: `progress` said to stop. */
static enum hw_status build(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_HEAD};
    struct hw_replica_record record = {0};
    struct hw_state state;
    enum hw_status status = hw_state_resolve(replica->core, &target, &state, err);

    if (status == HW_ENOTFOUND || status == HW_EFORK)
        return HW_END;
    if (status != HW_OK)
        return status;
    if (state.page_count == 0)
        return HW_END;
    status = remove_leftovers(replica, err);
    if (status == HW_OK)
        status = hw_positions_reset(replica->positions, err);
    /* The record first: a file without one would have to be compared with the log. */
    record.seq = state.seq;
    record.sum = state.sum;
    record.page_count = state.page_count;
    if (status == HW_OK)
        status = hw_positions_append(replica->positions, &record, err);
    if (status == HW_OK)
        status = hw_positions_sync(replica->positions, err);
    target = (struct hw_target){.kind = HW_TARGET_SEQ, .seq = state.seq};
    if (status == HW_OK && replica->make != NULL)
        status = make_lazily(replica, &record, err);
    else if (status == HW_OK)
        status = hw_restore(replica->env, replica->base, replica->core, &target, replica->path,
                            false, replica->progress, replica->progress_ctx, &state, err);
    replica->has_built = status == HW_OK || is_in_place(replica, status);
    if (status == HW_ENOTFOUND || status == HW_EFORK)
        return HW_END; /* no snapshot to build from yet */
    /* And again: one that is older than the file would not be believed. */
    if (status == HW_OK && replica->make == NULL)
        status = hw_positions_append(replica->positions, &record, err);
    if (status == HW_OK)
        status = database_open(replica, err);
    return status;
}

/*
 * A database that only cannot be seen now must not lose the WAL beside it.  One that was built and
 * not opened, because a call failed, is not built again: it has readers, and its own record.
 */
static enum hw_status open_or_build(struct hw_replica *replica, bool is_ours, struct hw_error *err)
{
    bool is_there = false;
    enum hw_status status = hw_env_exists(replica->env, replica->path, &is_there, err);

    if (status != HW_OK)
        return status;
    if (is_there && !is_ours)
        return fail_foreign(replica, err);
    return is_there ? database_open(replica, err) : build(replica, err);
}

/* Opens `replica`, which is moved, with what the caller filled in. */
static enum hw_status open_filled(struct hw_replica *replica, const char *path,
                                  struct hw_replica **out, struct hw_error *err)
{
    enum hw_status status;

    state_forget(replica);
    status = full_path(replica->base, path, &replica->path, err);
    if (status == HW_OK) {
        replica->dir = hw_format("%s-hyper", replica->path);
        if (replica->dir == NULL)
            status = hw_fail(err, HW_ENOMEM, "%s: no memory to follow", path);
    }
    if (status == HW_OK)
        status = dir_open(replica, err);
    if (status == HW_OK)
        status = genesis_read(replica, err);
    if (status == HW_OK)
        status = open_or_build(replica, true, err);
    if (status < 0) {
        hw_replica_close(replica);
        return status;
    }
    *out = replica;
    return HW_OK;
}

enum hw_status hw_replica_open(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                               const char *path, hw_progress *progress, void *ctx,
                               struct hw_replica **out, struct hw_error *err)
{
    struct hw_replica *replica = hw_zalloc(sizeof(*replica));

    if (replica == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to follow", path);
    replica->env = env;
    replica->base = base;
    replica->core = core;
    replica->progress = progress;
    replica->progress_ctx = ctx;
    return open_filled(replica, path, out, err);
}

enum hw_status hw_replica_open_lazy(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                                    const char *path, hw_replica_make *make, void *ctx,
                                    struct hw_replica **out, struct hw_error *err)
{
    struct hw_replica *replica = hw_zalloc(sizeof(*replica));

    if (replica == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to follow", path);
    replica->env = env;
    replica->base = base;
    replica->core = core;
    replica->make = make;
    replica->make_ctx = ctx;
    return open_filled(replica, path, out, err);
}

/* ------------------------------------------------------------------------- what is durable */

/*
 * Frames are lost, and what readers see is no state any more.  A recovery ends before those frames:
 * no end there may be taken for the state of a file into which later frames were copied.  *err
 * says what happened already.
 */
static enum hw_status forget_ends(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = hw_positions_reset(replica->positions, err);

    if (status != HW_OK)
        return status;
    hw_env_log(replica->env, HW_LOG_WARN,
               "event=replica_repair_due path=%s block=%llu reason=lost_frames", replica->path,
               (unsigned long long)replica->next_block);
    replica->visible.seq = UINT64_MAX;
    replica->next = replica->visible;
    replica->round_recorded = false;
    replica->needs_repair = true;
    replica->repair_from = 0;
    replica->is_in_doubt = false;
    return HW_ECORRUPT;
}

/* HW_AGAIN: somebody checkpoints, and it cannot be done now. */
static enum hw_status sync_wal(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = replica->is_in_doubt ? hw_wal_writer_renew(replica->db->writer, err)
                                                 : replica->env->ops->sync(replica->db->wal, err);

    replica->is_in_doubt = status != HW_OK;
    if (status == HW_ECORRUPT && replica->make == NULL)
        status = forget_ends(replica, err);
    return status < 0 ? hw_prefix(err, status, "%s", replica->path) : status;
}

/*
 * Copy the WAL into the file.  SQLite syncs the WAL before, and the file if it was all: which is
 * enough for what no sync has failed for.
 */
static enum hw_status checkpoint(struct hw_replica *replica, bool *complete, struct hw_error *err)
{
    enum hw_status status = replica->is_in_doubt ? sync_wal(replica, err) : HW_OK;

    *complete = false;
    if (status == HW_OK) {
        status = hw_replica_database_checkpoint(replica->db, complete, err);
        replica->is_in_doubt = status != HW_OK;
    }
    return status == HW_AGAIN ? HW_OK : status;
}

/* Before a record that a loss of power may need is overwritten by another one. */
static enum hw_status sync_if_due(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (!hw_positions_is_half_unsynced(replica->positions))
        return HW_OK;
    status = sync_wal(replica, err);
    if (status == HW_OK)
        status = hw_positions_sync(replica->positions, err);
    return status == HW_AGAIN ? HW_OK : status; /* half of the ring is left */
}

/* -------------------------------------------------------------------------------- closing */

/*
 * Leave a WAL that is in the file, and a record that says so.  It is written last: found without a
 * WAL it means that some client has deleted it, and not that a loss of power took the frames.  What
 * fails here only makes the next start look longer.
 */
static void settle(struct hw_replica *replica)
{
    bool complete;
    enum hw_status status = hw_replica_abandon(replica, NULL);

    if (status == HW_OK)
        status = hw_positions_sync(replica->positions, NULL);
    if (status == HW_OK)
        status = checkpoint(replica, &complete, NULL);
    if (status == HW_OK)
        status = sync_wal(replica, NULL);
    if (status == HW_OK)
        (void)!hw_replica_record_now(replica, HW_RECORD_CLOSED, NULL);
}

void hw_replica_close(struct hw_replica *replica)
{
    if (replica == NULL)
        return;
    if (replica->db != NULL && replica->db->writer != NULL && !replica->needs_repair)
        settle(replica);
    hw_replica_database_close(replica->db);
    hw_positions_close(replica->positions);
    hw_shared_page_close(replica->shared);
    if (replica->lock != NULL)
        replica->env->ops->close(replica->lock);
    hw_overlay_free(replica->overlay);
    hw_transaction_decoder_free(replica->decoder);
    hw_buffer_release(&replica->block);
    hw_free(replica->scratch);
    hw_free(replica->dir);
    hw_free(replica->path);
    hw_free(replica);
}

void hw_replica_set_skip(struct hw_replica *replica, bool (*skip)(void *ctx, uint64_t block),
                         void *ctx)
{
    replica->skip = skip;
    replica->skip_ctx = ctx;
}

uint64_t hw_replica_seq(const struct hw_replica *replica)
{
    return replica->shown_seq;
}

uint64_t hw_replica_sum(const struct hw_replica *replica)
{
    return replica->visible.sum;
}

struct hw_state hw_replica_state(const struct hw_replica *replica)
{
    return (struct hw_state){.seq = replica->visible.seq,
                             .page_size = replica->page_size,
                             .page_count = replica->visible.page_count,
                             .sum = replica->visible.sum};
}

uint64_t hw_replica_fork(const struct hw_replica *replica)
{
    return replica->fork;
}

/* ------------------------------------------------------------------------------- the WAL */

static uint32_t wal_frames(const struct hw_replica *replica)
{
    return hw_wal_writer_position(replica->db->writer).frame;
}

/* Checkpoint, and start the WAL over if all of it is in the file and nobody reads it. */
static enum hw_status shorten(struct hw_replica *replica, struct hw_error *err)
{
    bool complete;
    enum hw_status status = hw_positions_sync(replica->positions, err);

    if (status == HW_OK)
        status = checkpoint(replica, &complete, err);
    if (status == HW_OK)
        status = complete ? hw_wal_writer_restart(replica->db->writer, err) : HW_AGAIN;
    if (status == HW_OK) {
        replica->round_recorded = false;
        replica->checkpoint_at = HW_REPLICA_CHECKPOINT_FRAMES;
        if (replica->wal_limit != HW_REPLICA_WAL_LIMIT)
            hw_shared_set_alarm(replica->shared, "");
        replica->wal_limit = HW_REPLICA_WAL_LIMIT;
        replica->pause_end_ns = 0;
        status = hw_replica_begin_round(replica, err); /* now, and not when a commit waits for it */
    }
    return status;
}

/* After publishing, so that nobody waits for a checkpoint to see a commit. */
static enum hw_status checkpoint_if_due(struct hw_replica *replica, struct hw_error *err)
{
    uint32_t frames = wal_frames(replica);
    enum hw_status status;

    if (frames < replica->checkpoint_at)
        return HW_OK;
    /* Who is behind soon writes the same pages again: fewer rounds write and sync less. */
    if (replica->next_block < hw_core_length(replica->core) && frames < HW_REPLICA_CATCH_UP_FRAMES)
        return HW_OK;
    status = shorten(replica, err);
    if (status != HW_AGAIN)
        return status;
    replica->checkpoint_at = frames + HW_REPLICA_CHECKPOINT_FRAMES;
    return HW_OK;
}

/* HW_AGAIN: publishing pauses, so that readers leave the WAL. */
static enum hw_status pause_if_long(struct hw_replica *replica, struct hw_error *err)
{
    uint64_t now = replica->env->ops->monotonic_ns(replica->env);
    uint32_t frames = wal_frames(replica);
    enum hw_status status;

    if (frames < replica->wal_limit)
        return HW_OK;
    status = shorten(replica, err);
    if (status != HW_AGAIN)
        return status;
    if (replica->pause_end_ns == 0)
        replica->pause_end_ns = now + HW_REPLICA_PAUSE_MS * 1000000ULL;
    if (now < replica->pause_end_ns)
        return HW_AGAIN;
    /* The readers stay: going on matters more than the size of the file. */
    replica->pause_end_ns = 0;
    replica->wal_limit = frames + HW_REPLICA_WAL_LIMIT;
    hw_env_log(replica->env, HW_LOG_WARN, "event=replica_wal_long path=%s frames=%u", replica->path,
               (unsigned)frames);
    hw_shared_set_alarm(replica->shared,
                        "the replica's WAL grows: a reader has been in a transaction for long");
    return HW_OK;
}

/* ------------------------------------------------------------------------------- one step */

/* Fill the batch.  HW_OK: there is no more, or it is full. */
static enum hw_status fill(struct hw_replica *replica, struct hw_error *err)
{
    uint32_t enough = HW_REPLICA_BATCH_BYTES / replica->page_size;
    uint64_t length = hw_core_length(replica->core);

    for (uint32_t blocks = 0;; blocks++) {
        enum hw_status status;

        if (replica->next_block >= length)
            return HW_OK;
        if (!replica->in_entry &&
            (blocks >= HW_REPLICA_BATCH_BLOCKS || hw_overlay_count(replica->overlay) >= enough))
            return HW_OK;
        status = hw_replica_take_block(replica, err);
        if (status == HW_AGAIN)
            return HW_OK;
        if (status != HW_OK)
            return status;
    }
}

static enum hw_status repair(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = hw_replica_repair(replica, err);

    if (status == HW_OK)
        show_seq(replica);
    return status;
}

/* A block could not be taken with an empty batch. */
static enum hw_status give_way(struct hw_replica *replica, enum hw_status status,
                               struct hw_error *err)
{
    if ((status != HW_END && status != HW_EPRUNED && status != HW_ECORRUPT) ||
        (status == HW_ECORRUPT && replica->make != NULL))
        return status;
    hw_env_log(replica->env, HW_LOG_WARN, "event=replica_repair_due path=%s block=%llu reason=%s",
               replica->path, (unsigned long long)replica->next_block, hw_status_name(status));
    replica->needs_repair = true;
    replica->repair_from = status == HW_ECORRUPT ? 0 : replica->next_block;
    return status == HW_ECORRUPT ? hw_prefix(err, status, "%s", replica->path)
                                 : repair(replica, err);
}

static enum hw_status advance(struct hw_replica *replica, struct hw_error *err)
{
    uint64_t before = replica->shown_seq;
    enum hw_status status = fill(replica, err), undone;

    if (status != HW_OK || replica->in_entry) {
        /* Entries before the one in question are whole: they may be seen. */
        if (status != HW_OK && !replica->in_entry && replica->next_block > before + 1) {
            status = hw_replica_flush(replica, err);
        } else {
            undone = hw_replica_abandon(replica, err);
            if (undone != HW_OK)
                return undone;
            return status == HW_OK ? HW_END : give_way(replica, status, err);
        }
    } else {
        status = hw_replica_flush(replica, err);
    }
    if (status != HW_OK) {
        undone = hw_replica_abandon(replica, NULL);
        return undone == HW_OK ? hw_prefix(err, status, "%s", replica->path) : undone;
    }
    if (replica->shown_seq == before)
        return HW_END;
    show_seq(replica);
    return HW_OK;
}

/* HW_END: the log, as it is now, has not got the state that the replica has. */
static enum hw_status find_own_state(struct hw_replica *replica, struct hw_error *err)
{
    const struct hw_replica_state *own = &replica->visible;
    struct hw_state state;
    enum hw_status status;

    if (own->seq >= hw_core_length(replica->core))
        return HW_END;
    status = hw_state_at(replica->core, own->seq, &state, err);
    if (hw_block_is_absent(status))
        return HW_END; /* cannot be told: the repair compares all pages */
    if (status != HW_OK)
        return status;
    return state.seq == own->seq && state.sum == own->sum && state.page_count == own->page_count
               ? HW_OK
               : HW_END;
}

/*
 * A log that was taken over as a copy goes on as another fork, from an earlier block perhaps: are
 * we still on it?  The new fork is recorded once the replica has a state of it.
 */
static enum hw_status follow_fork(struct hw_replica *replica, struct hw_error *err)
{
    uint64_t fork = hw_core_head(replica->core).fork;
    struct hw_replica_info info;
    enum hw_status status = HW_OK;

    if (fork == replica->fork)
        return HW_OK;
    if (replica->make != NULL)
        return hw_fail(err, HW_EFORK, "%s: the log has gone over to fork %llu", replica->path,
                       (unsigned long long)fork);
    if (replica->db != NULL && !replica->needs_repair) {
        status = hw_replica_abandon(replica, err);
        if (status == HW_OK)
            status = find_own_state(replica, err);
        if (status == HW_OK) { /* what followed it may be other blocks now */
            replica->shown_seq = replica->visible.seq;
            replica->next_block = replica->visible.seq + 1;
        }
    }
    if (status == HW_END || replica->needs_repair) {
        if (!replica->needs_repair)
            hw_env_log(replica->env, HW_LOG_WARN, "event=replica_diverged path=%s seq=%llu",
                       replica->path, (unsigned long long)replica->visible.seq);
        replica->needs_repair = true;
        replica->repair_from = 0;
        status = repair(replica, err);
    }
    if (status == HW_OK)
        status = hw_replica_binding_read(replica->env, replica->dir, &info, err);
    if (status == HW_OK) {
        info.fork = fork;
        status = hw_replica_binding_write(replica->env, replica->dir, &info, err);
    }
    if (status == HW_OK)
        replica->fork = fork;
    return status;
}

enum hw_status hw_replica_step(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = genesis_read(replica, err);

    /* Before the fork is looked at: it may be a state of the one that was left. */
    if (status == HW_OK && replica->db == NULL)
        return open_or_build(replica, replica->has_built, err);
    if (status == HW_OK)
        status = follow_fork(replica, err);
    if (status == HW_OK)
        status = sync_if_due(replica, err);
    if (status != HW_OK)
        return status;
    if (replica->needs_repair)
        return repair(replica, err);
    status = pause_if_long(replica, err);
    if (status == HW_OK)
        status = advance(replica, err);
    if (status == HW_OK || status == HW_END) {
        enum hw_status checkpointed = checkpoint_if_due(replica, err);
        if (checkpointed != HW_OK)
            return checkpointed;
    }
    return status;
}
