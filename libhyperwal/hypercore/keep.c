/* Implements hypercore/keep.h. */
#include "hypercore/keep.h"

#include <string.h>

#include "base/alloc.h"
#include "hypercore/log_file.h"
#include "hypercore/mirror.h"
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
    if (status == HW_OK) {
        status = hw_mirror_info_decode((struct hw_slice){bytes, size}, &info, err);
        if (status != HW_OK)
            status = hw_prefix(err, status, "%s", path);
    }
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

/*
 * Files other than the marker, which goes last.  The first goes first: without it nobody signs what
 * is left of a log as if that were all, or opens what is left of a mirror.
 */
static const char *const parts[2][5] = {
    {"key", "tree", "overtaken", NULL},
    {"head", "nodes", "have", "tail", NULL},
};

static bool is_part(const char *name, enum hw_keep_what what)
{
    for (const char *const *part = parts[what]; *part != NULL; part++)
        if (strcmp(name, *part) == 0)
            return true;
    return ends_with(name, what == HW_KEEP_LOG ? ".seg" : ".dat");
}

struct names {
    enum hw_keep_what what;
    bool has_first;
    struct hw_buffer list; /* owned; the others, each with its zero */
};

static bool name_take(void *ctx, const char *name)
{
    struct names *names = ctx;

    if (strcmp(name, parts[names->what][0]) == 0)
        names->has_first = true;
    else if (is_part(name, names->what))
        hw_buffer_add(&names->list, name, strlen(name) + 1);
    return true;
}

static enum hw_status names_read(struct hw_env *env, const char *dir, struct names *out,
                                 struct hw_error *err)
{
    enum hw_status status = env->ops->list(env, dir, name_take, out, err);

    if (status == HW_OK && out->list.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to move it", dir);
    return status;
}

/* The name at `at` of a list, and the place of the next; NULL: that was all. */
static const char *name_next(const struct hw_buffer *list, size_t *at)
{
    const char *name;

    if (*at >= list->size)
        return NULL;
    name = (const char *)list->bytes + *at;
    *at += strlen(name) + 1;
    return name;
}

static enum hw_status has_file(struct hw_env *env, const char *dir, const char *name, bool *out,
                               struct hw_error *err)
{
    char *path = hw_format("%s/%s", dir, name);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to look for its %s", dir, name);
    status = hw_env_exists(env, path, out, err);
    hw_free(path);
    return status;
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

/* The directory that `dir` is in; the caller frees it.  NULL: no memory. */
static char *directory_above(const char *dir)
{
    const char *slash = strrchr(dir, '/');

    return slash == NULL ? hw_strdup(".")
                         : hw_format("%.*s", slash == dir ? 1 : (int)(slash - dir), dir);
}

/* The directory, for those who may enter `from`, and its name in the one above. */
static enum hw_status make_dir(struct hw_env *env, const char *dir, const char *from,
                               struct hw_error *err)
{
    char *above = directory_above(dir);
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

/* All but the marker, and synced. */
static enum hw_status move_parts(struct hw_env *env, const char *from, const char *to,
                                 const struct names *names, struct hw_error *err)
{
    /* If they are there by a move that was not synced, a power loss must not make it the last. */
    enum hw_status status = env->ops->sync_dir(env, from, err);
    const char *name;
    size_t at = 0;

    if (status == HW_OK && names->has_first)
        status = move_file(env, from, to, parts[names->what][0], err);
    while (status == HW_OK && (name = name_next(&names->list, &at)) != NULL)
        status = move_file(env, from, to, name, err);
    return status == HW_OK ? sync_both(env, from, to, err) : status;
}

static enum hw_status move_marker(struct hw_env *env, const char *from, const char *to,
                                  enum hw_keep_what what, struct hw_error *err)
{
    enum hw_status status = move_file(env, from, to, marker(what), err);

    return status == HW_OK ? sync_both(env, from, to, err) : status;
}

enum hw_status hw_keep_move(struct hw_env *env, const char *from, const char *to,
                            enum hw_keep_what what, struct hw_error *err)
{
    struct names names = {.what = what};
    enum hw_status status = names_read(env, from, &names, err);

    if (status == HW_OK)
        status = make_dir(env, to, from, err);
    if (status == HW_OK)
        status = move_parts(env, from, to, &names, err);
    if (status == HW_OK)
        status = move_marker(env, from, to, what, err);
    hw_buffer_release(&names.list);
    return status;
}

/* -------------------------------------------------------------------------- where it is kept */

/* Directories beside `base` that have the name of one where something of it is kept. */
struct kept {
    const char *base;      /* borrowed: without the directory above */
    struct hw_buffer list; /* owned; names, each with its zero */
};

static bool kept_take(void *ctx, const char *name)
{
    struct kept *kept = ctx;
    size_t size = strlen(kept->base);

    if (strncmp(name, kept->base, size) == 0 && name[size] == '.' &&
        strspn(name + size + 1, "0123456789abcdef") == NAME_DIGITS &&
        name[size + 1 + NAME_DIGITS] == '\0')
        hw_buffer_add(&kept->list, name, strlen(name) + 1);
    return true;
}

static enum hw_status sync_if_there(struct hw_env *env, const char *dir, struct hw_error *err)
{
    enum hw_status status = env->ops->sync_dir(env, dir, err);

    return status == HW_ENOTFOUND ? HW_OK : status;
}

static enum hw_status sync_kept(struct hw_env *env, const char *above, const char *name,
                                struct hw_error *err)
{
    char *path = hw_format("%s/%s", above, name);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s/%s: no memory to sync it", above, name);
    status = sync_if_there(env, path, err);
    hw_free(path);
    return status;
}

/*
 * Nothing is here.  If an earlier call moved it, that one may have ended before it was synced, and
 * where to nobody can tell any more.
 */
static enum hw_status sync_again(struct hw_env *env, const char *dir, struct hw_error *err)
{
    const char *slash = strrchr(dir, '/'), *name;
    struct kept kept = {.base = slash == NULL ? dir : slash + 1};
    char *above = directory_above(dir);
    enum hw_status status = HW_OK;
    size_t at = 0;

    if (above != NULL)
        status = env->ops->list(env, above, kept_take, &kept, err);
    if (status == HW_ENOTFOUND)
        status = HW_OK; /* then there is nothing */
    if (above == NULL || kept.list.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to look for what is kept of it", dir);
    while (status == HW_OK && (name = name_next(&kept.list, &at)) != NULL)
        status = sync_kept(env, above, name, err);
    hw_buffer_release(&kept.list);
    hw_free(above);
    return status == HW_OK ? sync_if_there(env, dir, err) : status;
}

enum hw_status hw_keep(struct hw_env *env, const char *dir, enum hw_keep_what what,
                       struct hw_error *err)
{
    uint8_t key[HW_KEY_SIZE];
    char *to;
    enum hw_status status = hw_keep_key(env, dir, what, key, err);

    if (status == HW_ENOTFOUND)
        return sync_again(env, dir, err);
    if (status != HW_OK)
        return status;
    to = hw_keep_dir(dir, key);
    status = to == NULL ? hw_fail(err, HW_ENOMEM, "%s: no memory to keep it", dir)
                        : hw_keep_move(env, dir, to, what, err);
    hw_free(to);
    return status;
}

/* -------------------------------------------------------------------------------- and back */

/* Where the mirror is kept that is in `dir`, or else that of the log `key`; NULL: none is meant. */
static enum hw_status mirror_place(struct hw_env *env, const char *dir, const uint8_t *key,
                                   char **out, struct hw_error *err)
{
    uint8_t own[HW_KEY_SIZE];
    enum hw_status status = mirror_key(env, dir, own, err);

    if (status == HW_OK)
        key = own;
    else if (status != HW_ENOTFOUND)
        return status;
    *out = key == NULL ? NULL : hw_keep_dir(dir, key);
    return key != NULL && *out == NULL
               ? hw_fail(err, HW_ENOMEM, "%s: no memory to look for its mirror", dir)
               : HW_OK;
}

/* The mirror here has a file of that name, too: it was made anew, and is not half of that one. */
static enum hw_status have_both(struct hw_env *env, const char *dir, const struct names *kept,
                                bool *out, struct hw_error *err)
{
    enum hw_status status = HW_OK;
    const char *name;
    size_t at = 0;

    *out = false;
    if (kept->has_first)
        status = has_file(env, dir, parts[kept->what][0], out, err);
    while (status == HW_OK && !*out && (name = name_next(&kept->list, &at)) != NULL)
        status = has_file(env, dir, name, out, err);
    return status;
}

/* One of the two has the marker. */
static enum hw_status bring_back(struct hw_env *env, const char *kept, const char *dir,
                                 bool has_marker, struct hw_error *err)
{
    struct names names = {.what = HW_KEEP_MIRROR};
    bool is_other = false;
    enum hw_status status = names_read(env, kept, &names, err);

    if (status == HW_OK && has_marker)
        status = have_both(env, dir, &names, &is_other, err);
    else if (status == HW_OK && names.has_first)       /* nothing came back yet */
        status = hw_core_remove_mirror(env, dir, err); /* one that was begun */
    if (status == HW_OK && !is_other)
        status = move_parts(env, kept, dir, &names, err);
    if (status == HW_OK && !has_marker)
        status = move_marker(env, kept, dir, HW_KEEP_MIRROR, err);
    if (status == HW_OK && !is_other)
        (void)env->ops->remove_dir(env, kept, NULL); /* stays if something else is in it */
    hw_buffer_release(&names.list);
    return status;
}

/* Who has this lock feeds the mirror (node/mirror.c).  HW_END: somebody has. */
static enum hw_status mirror_lock(struct hw_env *env, const char *dir, struct hw_file **out,
                                  struct hw_error *err)
{
    char *path = hw_format("%s/mirror.lock", dir);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to lock it", dir);
    status = env->ops->open(
        env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK, out, err);
    if (status == HW_OK)
        status = env->ops->lock(*out, false, err);
    hw_free(path);
    return status == HW_EBUSY ? HW_END : status;
}

static enum hw_status back_locked(struct hw_env *env, const char *kept, const char *dir,
                                  struct hw_error *err)
{
    bool is_here = false, is_kept = false;
    enum hw_status status = has_file(env, dir, marker(HW_KEEP_MIRROR), &is_here, err);

    if (status == HW_OK)
        status = has_file(env, kept, marker(HW_KEEP_MIRROR), &is_kept, err);
    /* With two of them one was made anew; without any, what there may be is of none. */
    return status == HW_OK && is_here != is_kept ? bring_back(env, kept, dir, is_here, err)
                                                 : status;
}

enum hw_status hw_keep_mirror_back(struct hw_env *env, const char *dir, const uint8_t *key,
                                   struct hw_error *err)
{
    struct hw_file *lock = NULL;
    bool has_kept = false;
    char *kept = NULL;
    enum hw_status status = mirror_place(env, dir, key, &kept, err);

    if (status == HW_OK && kept != NULL)
        status = hw_env_exists(env, kept, &has_kept, err);
    if (status == HW_OK && has_kept)
        status = make_dir(env, dir, NULL, err);
    if (status == HW_OK && has_kept)
        status = mirror_lock(env, dir, &lock, err);
    if (status == HW_OK && has_kept)
        status = back_locked(env, kept, dir, err);
    env->ops->close(lock);
    hw_free(kept);
    return status == HW_END ? HW_OK : status;
}
