/* A state as a new file: hw_restore() of apply/apply.h. */
#include <string.h>

#include "apply/replay.h"
#include "base/alloc.h"

enum { WRITE_OUT_BYTES = 8 << 20 }; /* begun at once, beside reading and expanding */

/* Where a restore writes, and what it has done. */
struct output {
    struct hw_env *env;   /* borrowed */
    struct hw_file *file; /* owned */
    uint32_t page_size;
    hw_progress *progress; /* may be NULL */
    void *progress_ctx;
    uint64_t done, total; /* bytes */
    uint64_t written_out; /* bytes from the start that the system was told to write out */
};

/* ---------------------------------------------------------------------------- pages in the file */

static enum hw_status output_read(void *ctx, uint32_t page_number, void *content,
                                  struct hw_error *err)
{
    struct output *output = ctx;
    uint64_t offset = (uint64_t)(page_number - 1) * output->page_size;
    enum hw_status status;

    status = output->env->ops->read_at(output->file, offset, content, output->page_size, err);
    return status == HW_END ? HW_OK : status; /* beyond the end are zeros */
}

static enum hw_status output_write(void *ctx, uint32_t page_number, const void *content,
                                   struct hw_error *err)
{
    struct output *output = ctx;
    uint64_t offset = (uint64_t)(page_number - 1) * output->page_size;

    return output->env->ops->write_at(output->file, offset, content, output->page_size, err);
}

static enum hw_status output_cut(void *ctx, uint32_t page_count, struct hw_error *err)
{
    struct output *output = ctx;

    return output->env->ops->truncate(output->file, (uint64_t)page_count * output->page_size, err);
}

static enum hw_status advance(void *ctx, uint64_t bytes, struct hw_error *err)
{
    struct output *output = ctx;

    output->done += bytes;
    if (output->progress == NULL ||
        output->progress(output->progress_ctx, output->done, output->total))
        return HW_OK;
    return hw_fail(err, HW_AGAIN, "stopped");
}

/* The same for groups, whose bytes lie one after the other. */
static enum hw_status advance_group(void *ctx, uint64_t bytes, struct hw_error *err)
{
    struct output *output = ctx;
    uint64_t end = output->done + bytes;

    if (end - output->written_out >= WRITE_OUT_BYTES) {
        output->env->ops->start_sync(output->file, output->written_out, end - output->written_out);
        output->written_out = end;
    }
    return advance(ctx, bytes, err);
}

/* The whole state into output->file, summed on the way and synced. */
static enum hw_status write_state(struct output *output, struct hw_core *core,
                                  const struct hw_replay_plan *plan, struct hw_error *err)
{
    struct hw_replay_pages pages = {output, output_read, output_write, output_cut};
    struct hw_replay replay = {0};
    enum hw_status status = hw_replay_init(&replay, core, plan, &pages, true, err);

    if (status != HW_OK)
        return status;
    output->page_size = plan->genesis.page_size;
    output->total = plan->snapshot.group_count * (uint64_t)HW_GROUP_PAGES * output->page_size;
    if (plan->target.seq >= plan->first_seq)
        output->total += (plan->target.seq - plan->first_seq + 1) * output->page_size;
    status = hw_replay_groups(&replay, output->file, advance_group, output, err);
    while (status == HW_OK && replay.next_seq <= plan->target.seq) {
        status = hw_replay_block(&replay, err);
        if (status == HW_OK)
            status = advance(output, output->page_size, err);
    }
    if (status == HW_OK)
        status = hw_replay_finish(&replay, err);
    if (status == HW_OK)
        status = output->env->ops->truncate(
            output->file, (uint64_t)plan->target.page_count * output->page_size, err);
    if (status == HW_OK)
        status = output->env->ops->sync(output->file, err);
    hw_replay_release(&replay);
    return status;
}

/* --------------------------------------------------------------------------- what is in the way */

static const char *const leftovers[] = {"-wal", "-journal", "-shm"};
enum { LEFTOVER_COUNT = 3, PATH_MAX_SIZE = 4096 };

static enum hw_status path_join(char out[PATH_MAX_SIZE], const char *path, const char *suffix,
                                struct hw_error *err)
{
    size_t size = strlen(path), suffix_size = strlen(suffix) + 1;

    if (size + suffix_size > PATH_MAX_SIZE)
        return hw_fail(err, HW_ELIMIT, "%.60s...: too long a path", path);
    memcpy(out, path, size);
    memcpy(out + size, suffix, suffix_size);
    return HW_OK;
}

/* HW_EEXIST if `path` is there. */
static enum hw_status refuse_existing(struct hw_env *env, const char *path, const char *remedy,
                                      struct hw_error *err)
{
    struct hw_file_stat found;
    enum hw_status status = env->ops->stat(env, path, &found, err);

    if (status == HW_ENOTFOUND)
        return HW_OK;
    return status == HW_OK ? hw_fail(err, HW_EEXIST, "%s exists: %s", path, remedy) : status;
}

/*
 * A file renamed beside a stale -wal would show the old database: none of the three may be there.
 */
static enum hw_status refuse_leftovers(struct hw_env *env, const char *out_path,
                                       struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (int i = 0; status == HW_OK && i < LEFTOVER_COUNT; i++) {
        char path[PATH_MAX_SIZE];

        status = path_join(path, out_path, leftovers[i], err);
        if (status == HW_OK)
            status = refuse_existing(env, path, "it belongs to another database at this path", err);
    }
    return status;
}

static enum hw_status remove_leftovers(struct hw_env *env, const char *out_path,
                                       struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (int i = 0; status == HW_OK && i < LEFTOVER_COUNT; i++) {
        char path[PATH_MAX_SIZE];

        status = path_join(path, out_path, leftovers[i], err);
        if (status == HW_OK)
            status = env->ops->remove(env, path, err);
        if (status == HW_ENOTFOUND)
            status = HW_OK;
    }
    return status;
}

/* The directory of `path`, "." if it names none. */
static void directory_of(const char *path, char out[PATH_MAX_SIZE])
{
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);

    memcpy(out, path, size);
    if (size == 0)
        out[size++] = '.';
    out[size] = '\0';
}

static enum hw_status sync_directory(struct hw_env *env, const char *path, struct hw_error *err)
{
    char directory[PATH_MAX_SIZE];

    directory_of(path, directory);
    return env->ops->sync_dir(env, directory, err);
}

static enum hw_status sql_fail(struct hw_error *err, int rc, const char *path, const char *doing,
                               sqlite3 *db)
{
    rc &= 0xff;
    if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
        return hw_fail(err, HW_EBUSY, "%s: it is open elsewhere: close it first", path);
    if (rc == SQLITE_NOTADB)
        return hw_fail(err, HW_EEXIST, "%s: exists and is not a database: remove it first", path);
    return hw_fail(err, rc == SQLITE_NOMEM ? HW_ENOMEM : HW_EIO, "%s: cannot %s: %s", path, doing,
                   db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
}

/*
 * Fold the old database into one file and keep it locked EXCLUSIVE in *out: nobody has it open
 * then, and nobody can begin to write it before the new one stands in its place.
 */
static enum hw_status fold_old(sqlite3_vfs *base, const char *path, sqlite3 **out,
                               struct hw_error *err)
{
    static const char *const steps[] = {
        "PRAGMA locking_mode=EXCLUSIVE",
        "PRAGMA journal_mode=DELETE", /* needs everybody else to be gone; removes -wal and -shm */
        "BEGIN EXCLUSIVE",
    };
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, base == NULL ? NULL : base->zName);
    enum hw_status status = HW_OK;

    for (size_t i = 0; rc == SQLITE_OK && i < sizeof(steps) / sizeof(steps[0]); i++)
        rc = sqlite3_exec(db, steps[i], NULL, NULL, NULL);
    if (rc != SQLITE_OK) {
        status = sql_fail(err, rc, path, "fold the old database", db);
        (void)sqlite3_close(db); /* nothing is prepared on it */
        return status;
    }
    *out = db;
    return HW_OK;
}

/* ------------------------------------------------------------------------------------ the whole */

/* `tmp` becomes `out_path`, with what was there out of the way. */
static enum hw_status put_in_place(struct hw_env *env, sqlite3_vfs *base, const char *tmp,
                                   const char *out_path, bool force, struct hw_error *err)
{
    struct hw_file_stat found;
    sqlite3 *old = NULL; /* owned */
    enum hw_status status = env->ops->stat(env, out_path, &found, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status; /* it may be there, and in use */
    if (status == HW_OK && !force)
        return refuse_existing(env, out_path, "it was made meanwhile", err);
    if (status == HW_OK && (found.is_directory || found.is_special))
        return hw_fail(err, HW_EEXIST, "%s: not a file: choose another name", out_path);
    if (status == HW_OK)
        status = fold_old(base, out_path, &old, err);
    else
        status = HW_OK;
    if (status == HW_OK && force)
        status = remove_leftovers(env, out_path, err);
    else if (status == HW_OK)
        status = refuse_leftovers(env, out_path, err);
    /* The leftovers must be gone for good before the new file has the name they belong to. */
    if (status == HW_OK && force)
        status = sync_directory(env, out_path, err);
    if (status == HW_OK)
        status = env->ops->rename(env, tmp, out_path, err);
    if (status == HW_OK)
        status = sync_directory(env, out_path, err);
    if (old != NULL)
        (void)sqlite3_close(old); /* its file has no name any more */
    return status;
}

/* Is the open file still the one at `path`?  Another restore may have given it another name. */
static enum hw_status check_named(struct hw_file *file, const char *path, bool *is_named,
                                  struct hw_error *err)
{
    struct hw_file_stat held, named;
    enum hw_status status = file->env->ops->stat_file(file, &held, err);

    if (status != HW_OK)
        return status;
    status = file->env->ops->stat(file->env, path, &named, err);
    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    *is_named = status == HW_OK && held.inode == named.inode && held.device == named.device;
    return HW_OK;
}

static enum hw_status open_locked(struct output *output, const char *tmp, struct hw_error *err)
{
    const struct hw_env_ops *ops = output->env->ops;
    enum hw_status status = ops->open(
        output->env, tmp, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
        &output->file, err);

    if (status == HW_ENOTFOUND) /* not what was asked for is missing, but where to put it */
        status = hw_fail(err, HW_EIO, "%s: its directory is not there: make it first", tmp);
    if (status != HW_OK)
        return status;
    status = ops->lock(output->file, false, err);
    if (status == HW_EBUSY)
        status = hw_fail(err, HW_EBUSY, "%s: another restore is writing it", tmp);
    return status;
}

static enum hw_status open_output(struct output *output, const char *tmp, struct hw_error *err)
{
    const struct hw_env_ops *ops = output->env->ops;
    bool is_named = false;
    enum hw_status status = HW_OK;

    while (status == HW_OK && !is_named) {
        ops->close(output->file); /* it was finished before we had the lock, and is not ours */
        output->file = NULL;
        status = open_locked(output, tmp, err);
        if (status == HW_OK)
            status = check_named(output->file, tmp, &is_named, err);
    }
    if (status == HW_OK)
        status = ops->truncate(output->file, 0, err); /* left by one that did not end */
    if (status != HW_OK) {
        ops->close(output->file);
        output->file = NULL;
    }
    return status;
}

/* It is for those alone who may read the file that it is to replace, if there is one. */
static enum hw_status take_rights(struct output *output, const char *out_path, struct hw_error *err)
{
    bool is_there = false;
    enum hw_status status = hw_env_exists(output->env, out_path, &is_there, err);

    return status == HW_OK && is_there ? output->env->ops->copy_rights(output->file, out_path, err)
                                       : status;
}

enum hw_status hw_restore(struct hw_env *env, sqlite3_vfs *base, struct hw_core *core,
                          const struct hw_target *target, const char *out_path, bool force,
                          hw_progress *progress, void *ctx, struct hw_state *reached,
                          struct hw_error *err)
{
    struct output output = {.env = env, .progress = progress, .progress_ctx = ctx};
    struct hw_replay_plan plan = {0};
    char tmp[PATH_MAX_SIZE];
    enum hw_status status = path_join(tmp, out_path, ".tmp", err);

    if (status == HW_OK && !force)
        status = refuse_existing(env, out_path, "move it away, or replace it with --force", err);
    if (status == HW_OK && !force)
        status = refuse_leftovers(env, out_path, err);
    if (status == HW_OK)
        status = hw_replay_plan_make(core, target, &plan, err);
    if (status == HW_OK)
        status = open_output(&output, tmp, err);
    if (status != HW_OK)
        goto done;

    status = take_rights(&output, out_path, err);
    if (status == HW_OK)
        status = write_state(&output, core, &plan, err);
    if (status == HW_OK)
        status = put_in_place(env, base, tmp, out_path, force, err);
    if (status != HW_OK)
        (void)env->ops->remove(env, tmp, NULL); /* the failure above is what matters */
    env->ops->close(output.file);
    if (status == HW_OK)
        *reached = plan.target;

done:
    hw_replay_plan_release(&plan);
    return status;
}
