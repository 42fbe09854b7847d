/* Implements env/env.h over the simulated disk. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

enum { LOG_SIZE_MAX = 1 << 20 };

struct env_file {
    struct hw_file file;
    struct sim_handle *handle; /* owned */
};

static struct sim *sim_of(struct hw_env *env)
{
    return ((struct sim_env *)env)->sim;
}

static struct sim_handle *handle_of(struct hw_file *file)
{
    return ((struct env_file *)file)->handle;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);

    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* What env.h forbids: closing this descriptor would drop the process's locks on the file. */
static void watch_open(struct sim *sim, const struct sim_handle *opened)
{
    bool is_database = false;

    for (const struct sim_handle *other = opened->inode->handles; other; other = other->next)
        is_database |=
            other->is_database && other->process == opened->process && !sim_is_dead(other);
    if (is_database || ends_with(opened->path, "-shm"))
        (void)snprintf(sim->violation, sizeof(sim->violation),
                       "%s: opened by a descriptor of our own while SQLite may hold locks on it",
                       opened->path);
}

static enum hw_status env_open(struct hw_env *env, const char *path, unsigned flags,
                               struct hw_file **out, struct hw_error *err)
{
    struct sim *sim = sim_of(env);
    char full[SIM_PATH_SIZE];
    struct sim_outcome outcome;
    struct sim_handle *handle = NULL;
    struct env_file *file;
    int os_errno;

    sim_path(full, path);
    outcome = sim_begin(sim, NULL, SIM_OPEN, full, flags, 0);
    os_errno = outcome.verdict == SIM_FAIL ? outcome.os_errno : sim_open(sim, full, flags, &handle);
    if (os_errno != 0)
        return hw_fail_errno(err, os_errno, "%s: cannot open", path);
    watch_open(sim, handle);
    file = sim_allocate(sizeof(*file));
    file->file.env = env;
    file->handle = handle;
    *out = &file->file;
    return HW_OK;
}

static void env_close(struct hw_file *file)
{
    if (file == NULL)
        return;
    sim_map_keep_lock(handle_of(file));
    sim_close(handle_of(file));
    free(file);
}

static enum hw_status env_read_at(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                  struct hw_error *err)
{
    int os_errno;

    switch (sim_read(handle_of(file), offset, buf, size, &os_errno)) {
    case SIM_FAIL:
        return hw_fail_errno(err, os_errno, "%s: cannot read %zu bytes at %llu",
                             handle_of(file)->path, size, (unsigned long long)offset);
    case SIM_CUT:
        return HW_END;
    case SIM_GO:
    case SIM_FLIP:
        break;
    }
    return HW_OK;
}

static enum hw_status answer(struct hw_error *err, const struct hw_file *file, int os_errno,
                             const char *what)
{
    const struct env_file *mine = (const struct env_file *)file;

    return os_errno == 0 ? HW_OK
                         : hw_fail_errno(err, os_errno, "%s: cannot %s", mine->handle->path, what);
}

static enum hw_status env_write_at(struct hw_file *file, uint64_t offset, const void *buf,
                                   size_t size, struct hw_error *err)
{
    return answer(err, file, sim_write(handle_of(file), offset, buf, size), "write");
}

static enum hw_status env_sync(struct hw_file *file, struct hw_error *err)
{
    return answer(err, file, sim_sync(handle_of(file)), "sync");
}

/* Nothing: a crash may find bytes written out or not in any case. */
static void env_start_sync(struct hw_file *file, uint64_t offset, uint64_t size)
{
    (void)file;
    (void)offset;
    (void)size;
}

static enum hw_status env_truncate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    return answer(err, file, sim_truncate(handle_of(file), size), "truncate");
}

static enum hw_status env_allocate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    return answer(err, file, sim_allocate_file(handle_of(file), size), "reserve room");
}

/* Zeros over what is there, which a crash may tear like any write. */
static enum hw_status env_punch(struct hw_file *file, uint64_t offset, uint64_t size,
                                struct hw_error *err)
{
    struct sim_handle *handle = handle_of(file);
    uint64_t end = handle->inode->now.size;
    uint8_t *zeros;
    int os_errno;

    if (offset >= end || size == 0)
        return HW_OK;
    if (size > end - offset)
        size = end - offset;
    zeros = sim_allocate((size_t)size);
    memset(zeros, 0, (size_t)size);
    os_errno = sim_write(handle, offset, zeros, (size_t)size);
    free(zeros);
    return answer(err, file, os_errno, "punch a hole");
}

static enum hw_status env_stat_file(struct hw_file *file, struct hw_file_stat *out,
                                    struct hw_error *err)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome = sim_begin(handle->sim, handle, SIM_STAT, handle->path, 0, 0);

    if (outcome.verdict == SIM_FAIL)
        return hw_fail_errno(err, outcome.os_errno, "%s: cannot stat", handle->path);
    sim_stat(handle->sim, handle->inode, out);
    return HW_OK;
}

/* Nobody can let go while we wait in this only thread: a wait fails like a try. */
static enum hw_status env_lock(struct hw_file *file, bool wait, struct hw_error *err)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome = sim_begin(handle->sim, handle, SIM_LOCK, handle->path, wait, 0);

    if (outcome.verdict == SIM_FAIL)
        return hw_fail_errno(err, outcome.os_errno, "%s: cannot lock", handle->path);
    if (wait && handle->inode->env_lock != NULL && handle->inode->env_lock != handle)
        sim_wait(handle->sim, 1000000);
    if (handle->inode->env_lock != NULL && handle->inode->env_lock != handle)
        return hw_fail(err, HW_EBUSY, "%s: locked by another process", handle->path);
    handle->inode->env_lock = handle;
    return HW_OK;
}

static void env_unlock(struct hw_file *file)
{
    struct sim_handle *handle = handle_of(file);

    if (sim_begin(handle->sim, handle, SIM_UNLOCK, handle->path, 0, 0).verdict == SIM_FAIL)
        return; /* dead: the lock went with it, or goes with sim_crash() */
    if (handle->inode->env_lock == handle)
        handle->inode->env_lock = NULL;
}

static enum hw_status env_map(struct hw_file *file, size_t size, void **out, struct hw_error *err)
{
    struct sim_handle *handle = handle_of(file);
    struct sim_outcome outcome = sim_begin(handle->sim, handle, SIM_MAP, handle->path, 0, size);

    if (outcome.verdict == SIM_FAIL)
        return hw_fail_errno(err, outcome.os_errno, "%s: cannot map", handle->path);
    *out = sim_map_memory(handle->sim, handle->inode, 0, size);
    if (*out == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: cannot map", handle->path);
    handle->sim->maps[handle->sim->map_count - 1].handle = handle;
    return HW_OK;
}

static void env_unmap(struct hw_env *env, void *memory, size_t size)
{
    sim_unmap_memory(sim_of(env), memory, size);
}

static enum hw_status env_stat(struct hw_env *env, const char *path, struct hw_file_stat *out,
                               struct hw_error *err)
{
    struct sim *sim = sim_of(env);
    char full[SIM_PATH_SIZE];
    struct sim_outcome outcome;
    const struct sim_inode *inode;

    sim_path(full, path);
    outcome = sim_begin(sim, NULL, SIM_STAT, full, 0, 0);
    if (outcome.verdict == SIM_FAIL)
        return hw_fail_errno(err, outcome.os_errno, "%s: cannot stat", path);
    inode = sim_find(sim, full);
    if (inode == NULL)
        return hw_fail_errno(err, ENOENT, "%s: cannot stat", path);
    sim_stat(sim, inode, out);
    return HW_OK;
}

/* The world is one file system, and has no links. */
static bool env_is_in_memory(struct hw_env *env, const char *path)
{
    char full[SIM_PATH_SIZE];
    const struct sim_inode *inode;

    sim_path(full, path);
    inode = sim_find(sim_of(env), full);
    return inode != NULL && inode->is_directory;
}

static enum hw_status env_rename(struct hw_env *env, const char *from, const char *to,
                                 struct hw_error *err)
{
    struct sim *sim = sim_of(env);
    char full_from[SIM_PATH_SIZE], full_to[SIM_PATH_SIZE];
    struct sim_outcome outcome;
    int os_errno;

    sim_path(full_from, from);
    sim_path(full_to, to);
    outcome = sim_begin(sim, NULL, SIM_RENAME, full_to, 0, 0);
    os_errno = outcome.verdict == SIM_FAIL ? outcome.os_errno : sim_rename(sim, full_from, full_to);
    return os_errno == 0 ? HW_OK
                         : hw_fail_errno(err, os_errno, "%s: cannot rename to %s", from, to);
}

/* The operations that have nothing but a path. */
static enum hw_status on_path(struct hw_env *env, const char *path, enum sim_operation operation,
                              bool is_directory, struct hw_error *err)
{
    struct sim *sim = sim_of(env);
    char full[SIM_PATH_SIZE];
    struct sim_outcome outcome;
    int os_errno = 0;

    sim_path(full, path);
    outcome = sim_begin(sim, NULL, operation, full, 0, 0);
    if (outcome.verdict == SIM_FAIL)
        os_errno = outcome.os_errno;
    else if (operation == SIM_REMOVE)
        os_errno = sim_remove(sim, full, is_directory);
    else if (operation == SIM_MAKE_DIR)
        os_errno = sim_make_dir(sim, full);
    else
        os_errno = sim_sync_dir(sim, full);
    return os_errno == 0 ? HW_OK
                         : hw_fail_errno(err, os_errno, "%s: cannot remove, make or sync", path);
}

static enum hw_status env_remove(struct hw_env *env, const char *path, struct hw_error *err)
{
    return on_path(env, path, SIM_REMOVE, false, err);
}

static enum hw_status env_remove_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    return on_path(env, path, SIM_REMOVE, true, err);
}

static enum hw_status env_copy_rights(struct hw_file *file, const char *path, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = file->env->ops->stat(file->env, path, &stat, err);

    if (status == HW_OK)
        handle_of(file)->inode->mode = stat.mode;
    return status;
}

static enum hw_status env_make_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    return on_path(env, path, SIM_MAKE_DIR, true, err);
}

static enum hw_status env_make_dir_as(struct hw_env *env, const char *path, unsigned mode,
                                      struct hw_error *err)
{
    enum hw_status status = env_make_dir(env, path, err);
    char full[SIM_PATH_SIZE];

    sim_path(full, path);
    if (status == HW_OK)
        sim_find(sim_of(env), full)->mode = mode;
    return status;
}

static enum hw_status env_sync_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    return on_path(env, path, SIM_SYNC_DIR, true, err);
}

/* The names are collected first: `each` may remove what it is told. */
static void list_names(struct sim *sim, const char *path, bool (*each)(void *ctx, const char *name),
                       void *ctx)
{
    size_t count = 0;
    char **names = sim_allocate(sim->now.count * sizeof(*names));
    bool goes_on = true;

    for (size_t i = 0; i < sim->now.count; i++) {
        char parent[SIM_PATH_SIZE];
        const char *name = sim->now.items[i].path;

        sim_parent(parent, name);
        if (name[1] != '\0' && strcmp(parent, path) == 0)
            names[count++] = sim_copy_text(strrchr(name, '/') + 1);
    }
    for (size_t i = 0; i < count; i++) {
        goes_on = goes_on && each(ctx, names[i]);
        free(names[i]);
    }
    free(names);
}

static enum hw_status env_list(struct hw_env *env, const char *path,
                               bool (*each)(void *ctx, const char *name), void *ctx,
                               struct hw_error *err)
{
    struct sim *sim = sim_of(env);
    char full[SIM_PATH_SIZE];
    struct sim_outcome outcome;
    const struct sim_inode *inode;

    sim_path(full, path);
    outcome = sim_begin(sim, NULL, SIM_LIST, full, 0, 0);
    inode = sim_find(sim, full);
    if (outcome.verdict == SIM_FAIL)
        return hw_fail_errno(err, outcome.os_errno, "%s: cannot list", path);
    if (inode == NULL || !inode->is_directory)
        return hw_fail_errno(err, inode == NULL ? ENOENT : ENOTDIR, "%s: cannot list", path);
    list_names(sim, full, each, ctx);
    return HW_OK;
}

static uint64_t env_monotonic_ns(struct hw_env *env)
{
    return sim_of(env)->now_ns += 100; /* a loop that waits for a time comes to an end */
}

static int64_t env_realtime_ms(struct hw_env *env)
{
    return 1700000000000 + (int64_t)(sim_of(env)->now_ns / 1000000) + sim_of(env)->clock_ms;
}

static void env_random(struct hw_env *env, void *buf, size_t size)
{
    sim_random(sim_of(env), buf, size);
}

/* They are read from files. */
static enum hw_status begin_id(struct hw_env *env, const char *path, struct hw_error *err)
{
    struct sim_outcome outcome = sim_begin(sim_of(env), NULL, SIM_OPEN, path, 0, 0);

    return outcome.verdict == SIM_FAIL
               ? hw_fail_errno(err, outcome.os_errno, "%s: cannot open", path)
               : HW_OK;
}

static enum hw_status env_machine_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    memset(out, 0x5a, 16);
    return begin_id(env, "/etc/machine-id", err);
}

static enum hw_status env_boot_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    memset(out, 0, 16);
    memcpy(out, &sim_of(env)->boot, sizeof(sim_of(env)->boot));
    return begin_id(env, "/proc/sys/kernel/random/boot_id", err);
}

static uint32_t env_process_id(struct hw_env *env)
{
    const struct sim *sim = sim_of(env);
    unsigned generation = sim->generations[sim->process] - sim->first_generations[sim->process];

    if (sim->is_dead[sim->process])
        generation--; /* the dead one runs on until the driver notices: it is no forked child */
    return 1000 + sim->process + SIM_PROCESS_COUNT * generation;
}

static uint32_t env_user_id(struct hw_env *env)
{
    (void)env;
    return SIM_USER;
}

static void env_wait_word(struct hw_env *env, uint32_t *word, uint32_t expected,
                          uint64_t timeout_ns)
{
    if (*(volatile uint32_t *)word == expected)
        sim_wait(sim_of(env), timeout_ns == UINT64_MAX ? 1000000000U : timeout_ns);
}

static void env_wake_word(struct hw_env *env, uint32_t *word)
{
    (void)env;
    (void)word; /* nobody sleeps in a world of one thread */
}

static void env_log(struct hw_env *env, enum hw_log_level level, const char *line)
{
    struct sim *sim = sim_of(env);
    size_t old = sim->log.size, size = strlen(line);

    if (sim->prints)
        (void)fprintf(stderr, "sim log %d %s\n", (int)level, line);
    if (old + size + 2 > LOG_SIZE_MAX)
        return; /* what is said after a megabyte is not looked at */
    if (old > 0)
        sim->log.bytes[old - 1] = '\n'; /* where the text ended */
    sim_bytes_resize(&sim->log, old + size + 1);
    memcpy(sim->log.bytes + old, line, size + 1);
}

static const struct hw_env_ops env_ops = {
    .open = env_open,
    .read_at = env_read_at,
    .write_at = env_write_at,
    .sync = env_sync,
    .start_sync = env_start_sync,
    .truncate = env_truncate,
    .allocate = env_allocate,
    .punch = env_punch,
    .stat_file = env_stat_file,
    .copy_rights = env_copy_rights,
    .lock = env_lock,
    .unlock = env_unlock,
    .map = env_map,
    .unmap = env_unmap,
    .close = env_close,
    .stat = env_stat,
    .stat_link = env_stat,
    .is_in_memory = env_is_in_memory,
    .rename = env_rename,
    .remove = env_remove,
    .make_dir = env_make_dir,
    .make_dir_as = env_make_dir_as,
    .remove_dir = env_remove_dir,
    .list = env_list,
    .sync_dir = env_sync_dir,
    .monotonic_ns = env_monotonic_ns,
    .realtime_ms = env_realtime_ms,
    .random = env_random,
    .machine_id = env_machine_id,
    .boot_id = env_boot_id,
    .process_id = env_process_id,
    .user_id = env_user_id,
    .wait_word = env_wait_word,
    .wake_word = env_wake_word,
    .log = env_log,
};

void sim_env_init(struct sim *sim)
{
    sim->env = (struct sim_env){.env = {.ops = &env_ops}, .sim = sim};
}

struct hw_env *sim_env(struct sim *sim)
{
    return &sim->env.env;
}
