/* Implements hypercore/keep.h. */
#include "hypercore/keep.h"

#include <string.h>

#include "base/alloc.h"
#include "hypercore/log_file.h"
#include "hypercore/mirror_file.h"

enum { NAME_DIGITS = 16, INFO_SIZE_MAX = 64 + 16384 + 8 };

char *hw_keep_dir(const char *dir, const uint8_t key[HW_KEY_SIZE])
{
    char hex[2 * HW_KEY_SIZE + 1];

    hw_key_format(key, hex);
    return hw_format("%s.%.*s", dir, (int)NAME_DIGITS, hex);
}

static enum hw_status mirror_key(struct hw_env *env, const char *dir, uint8_t key[HW_KEY_SIZE],
                                 struct hw_error *err)
{
    char *path = hw_format("%s/mirror", dir);
    uint8_t *bytes = hw_alloc(INFO_SIZE_MAX);
    struct hw_mirror_info info;
    size_t size = 0;
    enum hw_status status;

    if (path == NULL || bytes == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to look at a mirror", dir);
    else
        status = hw_env_read_file(env, path, bytes, INFO_SIZE_MAX, &size, err);
    if (status == HW_OK)
        status = hw_mirror_info_decode((struct hw_slice){bytes, size}, &info, err);
    if (status == HW_OK)
        memcpy(key, info.key, HW_KEY_SIZE);
    hw_free(bytes);
    hw_free(path);
    return status;
}

enum hw_status hw_keep_key(struct hw_env *env, const char *dir, enum hw_keep_what what,
                           uint8_t key[HW_KEY_SIZE], struct hw_error *err)
{
    struct hw_log_file log;
    enum hw_status status;

    if (what == HW_KEEP_MIRROR)
        return mirror_key(env, dir, key, err);
    status = hw_log_file_read(env, dir, &log, err);
    if (status == HW_OK)
        memcpy(key, log.key, HW_KEY_SIZE);
    return status;
}

/* ------------------------------------------------------------------------------------ moving */

static const char *marker(enum hw_keep_what what)
{
    return what == HW_KEEP_LOG ? "log" : "mirror";
}

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);

    return size > end_size && strcmp(name + size - end_size, end) == 0;
}

/* A file of the log, other than its marker. */
static bool is_part(const char *name, enum hw_keep_what what)
{
    static const char *const parts[2][5] = {
        {"key", "tree", "overtaken", NULL},
        {"head", "nodes", "have", "tail", NULL},
    };
    const char *const *part = parts[what];

    for (; *part != NULL; part++)
        if (strcmp(name, *part) == 0)
            return true;
    return ends_with(name, what == HW_KEEP_LOG ? ".seg" : ".dat");
}

struct names {
    enum hw_keep_what what;
    struct hw_buffer list; /* owned; each with its zero */
};

static bool name_take(void *ctx, const char *name)
{
    struct names *names = ctx;

    if (is_part(name, names->what))
        hw_buffer_add(&names->list, name, strlen(name) + 1);
    return true;
}

static enum hw_status move_file(struct hw_env *env, const char *from, const char *to,
                                const char *name, struct hw_error *err)
{
    char *old = hw_format("%s/%s", from, name), *new = hw_format("%s/%s", to, name);
    bool is_taken = false;
    enum hw_status status;

    if (old == NULL || new == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to move it", from);
    else
        status = hw_env_exists(env, new, &is_taken, err);
    if (status == HW_OK && is_taken)
        status = hw_fail(err, HW_EEXIST, "%s: is in the way of %s: move it away", new, old);
    else if (status == HW_OK)
        status = env->ops->rename(env, old, new, err);
    hw_free(old);
    hw_free(new);
    return status;
}

/* The directory, for those who may enter `from`, and its name in the one above. */
static enum hw_status make_dir(struct hw_env *env, const char *dir, const char *from,
                               struct hw_error *err)
{
    const char *slash = strrchr(dir, '/');
    char *above = slash == NULL ? hw_strdup(".")
                                : hw_format("%.*s", slash == dir ? 1 : (int)(slash - dir), dir);
    enum hw_status status;

    if (above == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to make it", dir);
    status = hw_env_make_dir_of(env, dir, from, err);
    if (status == HW_OK || status == HW_EEXIST)
        status = env->ops->sync_dir(env, above, err);
    hw_free(above);
    return status;
}

static enum hw_status sync_both(struct hw_env *env, const char *from, const char *to,
                                struct hw_error *err)
{
    enum hw_status status = env->ops->sync_dir(env, to, err); /* rather twice than nowhere */

    return status == HW_OK ? env->ops->sync_dir(env, from, err) : status;
}

enum hw_status hw_keep_move(struct hw_env *env, const char *from, const char *to,
                            enum hw_keep_what what, struct hw_error *err)
{
    struct names names = {.what = what};
    enum hw_status status = env->ops->list(env, from, name_take, &names, err);

    if (status == HW_OK && names.list.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to move it", from);
    if (status == HW_OK)
        status = make_dir(env, to, from, err);
    for (size_t at = 0; status == HW_OK && at < names.list.size;) {
        const char *name = (const char *)names.list.bytes + at;

        status = move_file(env, from, to, name, err);
        at += strlen(name) + 1;
    }
    if (status == HW_OK)
        status = sync_both(env, from, to, err);
    if (status == HW_OK)
        status = move_file(env, from, to, marker(what), err);
    if (status == HW_OK)
        status = sync_both(env, from, to, err);
    hw_buffer_release(&names.list);
    return status;
}

enum hw_status hw_keep(struct hw_env *env, const char *dir, enum hw_keep_what what,
                       struct hw_error *err)
{
    uint8_t key[HW_KEY_SIZE];
    char *to;
    enum hw_status status = hw_keep_key(env, dir, what, key, err);

    if (status == HW_ENOTFOUND)
        return HW_OK;
    if (status != HW_OK)
        return status;
    to = hw_keep_dir(dir, key);
    status = to == NULL ? hw_fail(err, HW_ENOMEM, "%s: no memory to keep it", dir)
                        : hw_keep_move(env, dir, to, what, err);
    hw_free(to);
    return status;
}
