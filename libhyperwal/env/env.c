/* Implements the helpers of env/env.h that every world shares. */
#include "env/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

void hw_env_log(struct hw_env *env, enum hw_log_level level, const char *format, ...)
{
    char line[1024];
    va_list args;

    if (env->ops->log == NULL)
        return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args); /* a long line is cut */
    va_end(args);
    env->ops->log(env, level, line);
}

enum hw_status hw_env_make_dir_of(struct hw_env *env, const char *dir, const char *path,
                                  struct hw_error *err)
{
    static const char end[] = "-hyper";
    size_t size = strlen(dir), end_size = sizeof(end) - 1;
    struct hw_file_stat stat;
    char *beside = NULL;
    enum hw_status status = HW_ENOTFOUND;
    unsigned mode;

    if (path == NULL && size > end_size && strcmp(dir + size - end_size, end) == 0) {
        beside = hw_format("%.*s", (int)(size - end_size), dir);
        if (beside == NULL)
            return hw_fail(err, HW_ENOMEM, "%s: no memory to make it", dir);
        path = beside;
    }
    if (path != NULL)
        status = env->ops->stat(env, path, &stat, err);
    hw_free(beside);
    if (status == HW_ENOTFOUND)
        return env->ops->make_dir(env, dir, err);
    if (status != HW_OK)
        return status;
    mode = 0700 | (stat.mode & 066) | (stat.mode & 044) >> 2; /* who may read may enter */
    return env->ops->make_dir_as(env, dir, mode, err);
}

enum hw_status hw_env_exists(struct hw_env *env, const char *path, bool *out, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = env->ops->stat(env, path, &stat, err);

    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    *out = status == HW_OK;
    return HW_OK;
}

/* Opens a file of at most `max` bytes; the caller closes *file. */
static enum hw_status open_small(struct hw_env *env, const char *path, size_t max,
                                 struct hw_file **file, size_t *size, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = env->ops->open(env, path, HW_OPEN_READ, file, err);

    if (status != HW_OK)
        return status;
    status = env->ops->stat_file(*file, &stat, err);
    if (status == HW_OK && stat.size > max)
        status = hw_fail(err, HW_ELIMIT, "%s: %llu bytes where at most %zu belong", path,
                         (unsigned long long)stat.size, max);
    if (status != HW_OK)
        env->ops->close(*file);
    else
        *size = (size_t)stat.size;
    return status;
}

static enum hw_status read_small(struct hw_file *file, const char *path, void *buf, size_t size,
                                 struct hw_error *err)
{
    enum hw_status status = file->env->ops->read_at(file, 0, buf, size, err);

    if (status == HW_END)
        status = hw_fail(err, HW_EIO, "%s: shrank while it was read", path);
    file->env->ops->close(file);
    return status;
}

enum hw_status hw_env_read_file(struct hw_env *env, const char *path, void *buf, size_t capacity,
                                size_t *size, struct hw_error *err)
{
    struct hw_file *file = NULL;
    size_t found;
    enum hw_status status = open_small(env, path, capacity, &file, &found, err);

    if (status == HW_OK)
        status = read_small(file, path, buf, found, err);
    if (status == HW_OK)
        *size = found;
    return status;
}

enum hw_status hw_env_read_text(struct hw_env *env, const char *path, size_t max,
                                struct hw_buffer *out, struct hw_error *err)
{
    struct hw_file *file = NULL;
    uint8_t *text;
    size_t size;
    enum hw_status status = open_small(env, path, max, &file, &size, err);

    hw_buffer_clear(out);
    if (status != HW_OK || size == 0) {
        if (status == HW_OK)
            env->ops->close(file);
        return status;
    }
    text = hw_buffer_extend(out, size);
    if (text == NULL) {
        env->ops->close(file);
        return hw_fail(err, HW_ENOMEM, "%s: no memory to read it", path);
    }
    return read_small(file, path, text, size, err);
}

enum hw_status hw_env_check_ours(const char *path, const struct hw_file_stat *stat,
                                 const char *and_so, struct hw_error *err)
{
    if (stat->is_foreign)
        return hw_fail(err, HW_EREADONLY, "%s: another user owns it%s; chown it", path, and_so);
    if ((stat->mode & 022) != 0)
        return hw_fail(err, HW_EREADONLY, "%s: others may write it (mode %03o)%s; chmod go-w it",
                       path, (unsigned)(stat->mode & 0777), and_so);
    return HW_OK;
}

/* The directory part of `path`, "." if it has none; owned by the caller. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return hw_strdup(".");
    return hw_format("%.*s", slash == path ? 1 : (int)(slash - path), path);
}

enum hw_status hw_env_sync_names(struct hw_env *env, const char *path, struct hw_error *err)
{
    char *directory = directory_of(path);
    enum hw_status status;

    if (directory == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to sync its directory", path);
    status = env->ops->sync_dir(env, directory, err);
    hw_free(directory);
    return status;
}

enum hw_status hw_env_replace_file(struct hw_env *env, const char *path, const void *buf,
                                   size_t size, unsigned open_flags, struct hw_error *err)
{
    char *temporary = hw_format("%s.tmp", path);
    char *directory = directory_of(path);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (temporary == NULL || directory == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to replace it", path);
        goto done;
    }
    status = env->ops->open(env, temporary,
                            HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | open_flags, &file, err);
    if (status != HW_OK)
        goto done;
    status = env->ops->truncate(file, 0, err);
    if (status == HW_OK)
        status = env->ops->write_at(file, 0, buf, size, err);
    if (status == HW_OK)
        status = env->ops->sync(file, err);
    env->ops->close(file);
    if (status == HW_OK)
        status = env->ops->rename(env, temporary, path, err);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, directory, err);
done:
    hw_free(temporary);
    hw_free(directory);
    return status;
}
