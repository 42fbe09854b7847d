/* Implements vfs/memory.h. */
#include "vfs/memory.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "hypercore/hypercore.h"

enum {
    HASH_DIGITS = 32, /* of the name of a place: 128 bits */
    LOCK_TRIES = 10000,
    LOCK_PAUSE_NS = 1000000,
    DEPTH_MAX = 16, /* of directories in a place */
};

static const char holders_suffix[] = ".holders", gone_suffix[] = ".gone";

struct hw_memory_place {
    struct hw_env *env;
    char *directory;       /* owned: ROOT/hyperwal-UID */
    char *hash;            /* owned */
    char *claim_path;      /* owned */
    struct hw_file *claim; /* owned: locked while we hold the place */
    const char *filename;  /* owned: of sqlite3_create_filename() */
};

static enum hw_status no_memory(struct hw_error *err)
{
    return hw_fail(err, HW_ENOMEM, "no memory to open a database in memory");
}

/* ------------------------------------------------------------------------ the directory */

/* Without links and slashes at its end: SQLite will take the paths of our files for full ones. */
static char *full_root(sqlite3_vfs *base, const char *root)
{
    size_t size = (size_t)base->mxPathname + 1;
    char *full = hw_alloc(size);
    int code = full == NULL ? SQLITE_NOMEM : base->xFullPathname(base, root, (int)size, full);

    if (full != NULL && (code & 0xff) != SQLITE_OK) { /* SQLITE_OK_SYMLINK is fine */
        hw_free(full);
        return hw_strdup(root); /* opening it will say what is wrong with it */
    }
    for (size = full == NULL ? 0 : strlen(full); size > 1 && full[size - 1] == '/'; size--)
        full[size - 1] = '\0';
    return full;
}

/* Where memory is: *out is owned by the caller. */
static enum hw_status find_root(struct hw_env *env, sqlite3_vfs *base, char **out,
                                struct hw_error *err)
{
    const char *own = getenv("HYPERWAL_MEMORY_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");
    const char *root = "/dev/shm";
    struct hw_file_stat stat;
    enum hw_status status;

    if (own != NULL && own[0] != '\0')
        root = own;
    else if (!env->ops->is_in_memory(env, root) && runtime != NULL && runtime[0] == '/')
        root = runtime;
    if (root[0] != '/')
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter storage: '%s' of HYPERWAL_MEMORY_DIR is not a full path",
                       root);
    if (!env->ops->is_in_memory(env, root))
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter storage: '%s'%s is not a directory on a tmpfs, which a "
                       "database in memory needs: mount one, and name it in HYPERWAL_MEMORY_DIR",
                       root, root == own ? " of HYPERWAL_MEMORY_DIR" : "");
    status = env->ops->stat(env, root, &stat, err);
    if (status != HW_OK)
        return status;
    if ((stat.mode & 022) != 0 && (stat.mode & 01000) == 0)
        return hw_fail(err, HW_EREFUSED,
                       "%s: others may replace what is in it: set its sticky bit, or name another "
                       "directory in HYPERWAL_MEMORY_DIR",
                       root);
    *out = full_root(base, root);
    return *out == NULL ? no_memory(err) : HW_OK;
}

/* ROOT/hyperwal-UID, made and looked at: somebody else may have been first. */
static enum hw_status find_directory(struct hw_env *env, sqlite3_vfs *base, char **out,
                                     struct hw_error *err)
{
    uint32_t user = env->ops->user_id(env);
    char *root = NULL, *path = NULL;
    struct hw_file_stat stat;
    enum hw_status status = find_root(env, base, &root, err);

    if (status != HW_OK)
        return status;
    path = hw_format("%s/hyperwal-%u", root, user);
    hw_free(root);
    if (path == NULL)
        return no_memory(err);
    status = env->ops->make_dir_as(env, path, 0700, err);
    if (status == HW_OK || status == HW_EEXIST)
        status = env->ops->stat_link(env, path, &stat, err);
    if (status == HW_OK && (!stat.is_directory || stat.owner != user || (stat.mode & 077) != 0))
        status = hw_fail(err, HW_EREFUSED,
                         "%s: is not a directory of this user alone (mode 0700): remove it, or "
                         "name another tmpfs in HYPERWAL_MEMORY_DIR",
                         path);
    if (status != HW_OK) {
        hw_free(path);
        return status;
    }
    *out = path;
    return HW_OK;
}

/* Does the path still name the file that is open?  Programs that tidy up take files from there. */
static bool is_named(struct hw_env *env, const char *path, struct hw_file *file)
{
    struct hw_file_stat own, named;

    return env->ops->stat_file(file, &own, NULL) == HW_OK &&
           env->ops->stat(env, path, &named, NULL) == HW_OK && own.inode == named.inode &&
           own.device == named.device;
}

/* Nobody else joins, leaves or sweeps until *out is closed. */
static enum hw_status lock_directory(struct hw_env *env, const char *directory,
                                     struct hw_file **out, struct hw_error *err)
{
    unsigned flags =
        HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_PRIVATE | HW_OPEN_CLOSE_ON_FORK;
    char *path = hw_format("%s/lock", directory);
    enum hw_status status = path == NULL ? no_memory(err) : HW_EBUSY;
    uint32_t nobody = 0;

    for (int i = 0; i < LOCK_TRIES && status == HW_EBUSY; i++) {
        struct hw_file *file = NULL;

        if (i > 0)
            env->ops->wait_word(env, &nobody, 0, LOCK_PAUSE_NS);
        status = env->ops->open(env, path, flags, &file, err);
        if (status == HW_OK)
            status = env->ops->lock(file, false, err);
        if (status == HW_OK && is_named(env, path, file)) {
            *out = file;
            hw_free(path);
            return HW_OK;
        }
        if (status == HW_OK)
            status = hw_fail(err, HW_EBUSY, "%s: was removed just now", path);
        env->ops->close(file);
    }
    hw_free(path);
    return status;
}

/* -------------------------------------------------------------------------------- sweeping */

struct walk {
    struct hw_env *env;
    const char *directory;
    bool is_held; /* there is a holder who lives, or may live */
    unsigned depth;
};

/* Look at one holder: a file that is not locked is of a process that died. */
static bool look_at_holder(void *ctx, const char *name)
{
    struct walk *walk = ctx;
    struct hw_env *env = walk->env;
    struct hw_file *file = NULL;
    char *path = hw_format("%s/%s", walk->directory, name);
    enum hw_status status = HW_ENOMEM;

    if (path != NULL)
        status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK,
                                &file, NULL);
    if (status == HW_OK)
        status = env->ops->lock(file, false, NULL);
    if (status == HW_OK)
        status = env->ops->remove(env, path, NULL);
    env->ops->close(file);
    hw_free(path);
    walk->is_held = status != HW_OK && status != HW_ENOTFOUND;
    return !walk->is_held;
}

static bool remove_entry(void *ctx, const char *name)
{
    const struct walk *walk = ctx;
    struct hw_env *env = walk->env;
    char *path = hw_format("%s/%s", walk->directory, name);
    struct walk inner = {.env = env, .directory = path, .depth = walk->depth + 1};
    struct hw_file_stat stat;

    if (path == NULL)
        return false;
    if (env->ops->stat_link(env, path, &stat, NULL) != HW_OK || !stat.is_directory) {
        (void)env->ops->remove(env, path, NULL); /* what stays is found by the next sweep */
    } else if (inner.depth < DEPTH_MAX) {
        (void)env->ops->list(env, path, remove_entry, &inner, NULL);
        (void)env->ops->remove_dir(env, path, NULL);
    }
    hw_free(path);
    return true;
}

static void remove_tree(struct hw_env *env, const char *path)
{
    struct walk walk = {.env = env, .directory = path};

    (void)env->ops->list(env, path, remove_entry, &walk, NULL);
    (void)env->ops->remove_dir(env, path, NULL);
}

static void random_name(struct hw_env *env, char out[17])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[8];

    env->ops->random(env, bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[16] = '\0';
}

/*
 * Remove the place if nobody holds it.  By a rename first: who has its files open, a server or a
 * follower, makes no new ones in a place that goes on under the name.
 */
static enum hw_status sweep_place(struct hw_env *env, const char *directory, const char *hash,
                                  struct hw_error *err)
{
    char random[17];
    char *home = hw_format("%s/%s", directory, hash);
    char *holders = hw_format("%s/%s%s", directory, hash, holders_suffix);
    char *gone;
    struct walk walk = {.env = env, .directory = holders};
    enum hw_status status = HW_ENOMEM;

    random_name(env, random);
    gone = hw_format("%s/%s.%s%s", directory, hash, random, gone_suffix);
    if (home == NULL || holders == NULL || gone == NULL) {
        (void)no_memory(err);
        goto done;
    }
    status = env->ops->list(env, holders, look_at_holder, &walk, err);
    if (status == HW_OK && walk.is_held)
        goto done;
    if (status == HW_OK || status == HW_ENOTFOUND)
        status = env->ops->rename(env, home, gone, err);
    if (status == HW_ENOTFOUND)
        status = HW_OK; /* a kill came before it was made, or after it was gone */
    else if (status == HW_OK)
        remove_tree(env, gone);
    if (status == HW_OK)
        (void)env->ops->remove_dir(env, holders, NULL); /* an empty one does no harm */
done:
    hw_free(home);
    hw_free(holders);
    hw_free(gone);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);

    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static bool sweep_entry(void *ctx, const char *name)
{
    const struct walk *walk = ctx;
    size_t digits = strspn(name, "0123456789abcdef");
    char hash[HASH_DIGITS + 1];
    char *path;

    if (digits != HASH_DIGITS)
        return true; /* not of ours: the lock */
    memcpy(hash, name, HASH_DIGITS);
    hash[HASH_DIGITS] = '\0';
    if (ends_with(name, gone_suffix)) {
        path = hw_format("%s/%s", walk->directory, name);
        if (path != NULL)
            remove_tree(walk->env, path);
        hw_free(path);
    } else if (name[HASH_DIGITS] == '\0' || strcmp(name + HASH_DIGITS, holders_suffix) == 0) {
        (void)sweep_place(walk->env, walk->directory, hash, NULL); /* the next sweep looks again */
    }
    return true;
}

/* ----------------------------------------------------------------------- joining, leaving */

static void place_free(struct hw_memory_place *place)
{
    if (place == NULL)
        return;
    if (place->filename != NULL)
        sqlite3_free_filename((char *)(uintptr_t)place->filename); /* char * before SQLite 3.44 */
    hw_free(place->directory);
    hw_free(place->hash);
    hw_free(place->claim_path);
    hw_free(place);
}

static enum hw_status fill_names(struct hw_memory_place *place, const char *name,
                                 struct hw_error *err)
{
    struct hw_slice slice = {(const uint8_t *)name, strlen(name)};
    const char *slash = strrchr(name, '/');
    char hex[2 * HW_HASH_SIZE + 1], random[17];
    uint8_t hash[HW_HASH_SIZE];
    char *path, *journal, *wal;

    hw_crypto_init();
    hw_hash(&slice, 1, hash);
    hw_key_format(hash, hex);
    random_name(place->env, random);
    place->hash = hw_format("%.*s", (int)HASH_DIGITS, hex);
    place->claim_path =
        hw_format("%s/%.*s%s/%s", place->directory, (int)HASH_DIGITS, hex, holders_suffix, random);
    path = hw_format("%s/%.*s/%s", place->directory, (int)HASH_DIGITS, hex,
                     slash == NULL ? name : slash + 1);
    journal = path == NULL ? NULL : hw_format("%s-journal", path);
    wal = path == NULL ? NULL : hw_format("%s-wal", path);
    if (journal != NULL && wal != NULL)
        place->filename = sqlite3_create_filename(path, journal, wal, 0, NULL);
    hw_free(path);
    hw_free(journal);
    hw_free(wal);
    return place->hash == NULL || place->claim_path == NULL || place->filename == NULL
               ? no_memory(err)
               : HW_OK;
}

static enum hw_status make_dir(struct hw_env *env, char *path, struct hw_error *err)
{
    enum hw_status status =
        path == NULL ? no_memory(err) : env->ops->make_dir_as(env, path, 0700, err);

    hw_free(path);
    return status == HW_EEXIST ? HW_OK : status;
}

/* Be a holder before there is a place: a kill in between leaves a holder that died. */
static enum hw_status hold(struct hw_memory_place *place, struct hw_error *err)
{
    struct hw_env *env = place->env;
    unsigned flags = HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_EXCLUSIVE |
                     HW_OPEN_PRIVATE | HW_OPEN_CLOSE_ON_FORK;
    enum hw_status status =
        make_dir(env, hw_format("%s/%s%s", place->directory, place->hash, holders_suffix), err);

    if (status == HW_OK)
        status = env->ops->open(env, place->claim_path, flags, &place->claim, err);
    if (status == HW_OK)
        status = env->ops->lock(place->claim, false, err);
    if (status == HW_OK)
        status = make_dir(env, hw_format("%s/%s", place->directory, place->hash), err);
    return status;
}

/* With the directory locked. */
static void let_go(struct hw_memory_place *place)
{
    struct hw_env *env = place->env;

    if (place->claim == NULL)
        return;
    (void)env->ops->remove(env, place->claim_path, NULL); /* unlocked it counts as dead */
    env->ops->close(place->claim);
    place->claim = NULL;
}

/* With the directory locked. */
static enum hw_status join(struct hw_memory_place *place, bool create, struct hw_error *err)
{
    struct hw_env *env = place->env;
    struct walk walk = {.env = env, .directory = place->directory};
    char *home = hw_format("%s/%s", place->directory, place->hash);
    struct hw_file_stat stat;
    enum hw_status status = home == NULL ? no_memory(err) : HW_OK;

    if (status == HW_OK) /* what died here must be gone, or it would be continued */
        status = sweep_place(env, place->directory, place->hash, err);
    if (status == HW_OK)
        (void)env->ops->list(env, place->directory, sweep_entry, &walk, NULL);
    if (status == HW_OK && !create)
        status = env->ops->stat(env, home, &stat, err);
    hw_free(home);
    if (status == HW_ENOTFOUND && !create)
        return hw_fail(err, status, "no process has a database of this name in memory");
    if (status == HW_OK)
        status = hold(place, err);
    if (status != HW_OK) {
        let_go(place);
        (void)sweep_place(env, place->directory, place->hash, NULL);
    }
    return status;
}

enum hw_status hw_memory_join(struct hw_env *env, sqlite3_vfs *base, const char *name, bool create,
                              struct hw_memory_place **out, struct hw_error *err)
{
    struct hw_memory_place *place = hw_zalloc(sizeof(*place));
    struct hw_file *lock = NULL;
    enum hw_status status = place == NULL ? no_memory(err) : HW_OK;

    if (status == HW_OK) {
        place->env = env;
        status = find_directory(env, base, &place->directory, err);
    }
    if (status == HW_OK)
        status = fill_names(place, name, err);
    if (status == HW_OK)
        status = lock_directory(env, place->directory, &lock, err);
    if (status == HW_OK)
        status = join(place, create, err);
    env->ops->close(lock);
    if (status != HW_OK) {
        place_free(place);
        return status;
    }
    *out = place;
    return HW_OK;
}

const char *hw_memory_filename(const struct hw_memory_place *place)
{
    return place->filename;
}

void hw_memory_leave(struct hw_memory_place *place)
{
    struct hw_file *lock = NULL;
    enum hw_status status;

    if (place == NULL)
        return;
    status = lock_directory(place->env, place->directory, &lock, NULL);
    let_go(place);
    if (status == HW_OK) /* else the next sweep finds a place without holders */
        (void)sweep_place(place->env, place->directory, place->hash, NULL);
    place->env->ops->close(lock);
    place_free(place);
}
