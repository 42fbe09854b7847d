/*
 * The identity file of node/hub.h: 64 hex digits of the seed of an Ed25519 pair, and a newline,
 * which a copy by hand may lack.
 *
 * Who makes it holds the file's lock until it is synced, so two who start at once agree, and a file
 * that a crash left short was never used by anybody.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "node/hub_internal.h"

enum { SEED_SIZE = 32, DIGITS = 2 * SEED_SIZE, TEXT_SIZE = DIGITS + 1 };

enum hw_status hw_config_path(const char *name, const char *variable, char **out,
                              struct hw_error *err)
{
    const char *own = getenv(variable), *identity = getenv("HYPERWAL_IDENTITY");
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    const char *slash = identity != NULL ? strrchr(identity, '/') : NULL;
    char *path;

    if (own != NULL && own[0] != '\0')
        path = hw_strdup(own);
    else if (slash != NULL)
        path = hw_format("%.*s/%s", (int)(slash - identity), identity, name);
    else if (identity != NULL && identity[0] != '\0')
        path = hw_strdup(name);
    else if (config != NULL && config[0] == '/')
        path = hw_format("%s/hyperwal/%s", config, name);
    else if (home != NULL && home[0] == '/')
        path = hw_format("%s/.config/hyperwal/%s", home, name);
    else
        return hw_fail(err, HW_ENOTFOUND, "no place for %s of this user: set %s or HOME", name,
                       variable);
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the path of %s", name);
    *out = path;
    return HW_OK;
}

void hw_config_make_parents(struct hw_env *env, char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)env->ops->make_dir(env, path, NULL);
        *slash = '/';
    }
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool seed_parse(const char *text, uint8_t seed[SEED_SIZE])
{
    for (size_t i = 0; i < SEED_SIZE; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        seed[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* What a crash may leave of one that was being made: nothing, some of its digits, zeros. */
static bool is_unfinished(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (digit(text[i]) < 0 && text[i] != '\0')
            return false;
    }
    return size < DIGITS;
}

static enum hw_status seed_make(struct hw_env *env, struct hw_file *file, const char *path,
                                uint8_t seed[SEED_SIZE], struct hw_error *err)
{
    char text[TEXT_SIZE + 1];
    char *dir;
    enum hw_status status;

    env->ops->random(env, seed, SEED_SIZE);
    hw_key_format(seed, text);
    text[TEXT_SIZE - 1] = '\n';
    status = env->ops->write_at(file, 0, text, TEXT_SIZE, err);
    hw_wipe(text, sizeof(text));
    if (status == HW_OK)
        status = env->ops->sync(file, err);
    if (status != HW_OK)
        return status;
    dir = hw_strdup(path);
    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to make it", path);
    if (strrchr(dir, '/') != NULL) {
        *strrchr(dir, '/') = '\0';
        status = env->ops->sync_dir(env, dir[0] != '\0' ? dir : "/", err);
    }
    hw_free(dir);
    return status;
}

static enum hw_status seed_load(struct hw_env *env, struct hw_file *file, const char *path,
                                uint8_t seed[SEED_SIZE], struct hw_error *err)
{
    struct hw_file_stat stat;
    char text[DIGITS];
    size_t size;
    enum hw_status status = env->ops->lock(file, true, err);

    if (status == HW_OK)
        status = env->ops->stat_file(file, &stat, err);
    if (status != HW_OK)
        return status;
    if ((stat.mode & 077) != 0)
        return hw_fail(err, HW_EREADONLY,
                       "%s: others can read this secret key (mode %03o); chmod 600 it", path,
                       (unsigned)(stat.mode & 0777));
    size = stat.size < DIGITS ? (size_t)stat.size : DIGITS;
    if (size > 0)
        status = env->ops->read_at(file, 0, text, size, err);
    if (status == HW_OK && is_unfinished(text, size))
        status = seed_make(env, file, path, seed, err);
    else if (status == HW_OK && (size < DIGITS || !seed_parse(text, seed)))
        status = hw_fail(err, HW_ECORRUPT,
                         "%s: not an identity, which is 64 hex digits; restore it from a copy, or "
                         "remove it to get a new one",
                         path);
    hw_wipe(text, sizeof(text));
    return status;
}

enum hw_status hw_identity_load(struct hw_env *env, const char *path, struct hw_identity *out,
                                struct hw_error *err)
{
    char *own = NULL; /* owned */
    struct hw_file *file = NULL;
    uint8_t seed[SEED_SIZE];
    enum hw_status status = HW_OK;

    if (path == NULL)
        status = hw_config_path("identity", "HYPERWAL_IDENTITY", &own, err);
    else
        own = hw_strdup(path);
    if (status == HW_OK && own == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to open it", path);
    if (status != HW_OK)
        goto done;
    hw_config_make_parents(env, own);
    status = env->ops->open(
        env, own, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_PRIVATE, &file, err);
    if (status != HW_OK) {
        status = hw_prefix(err, status, "no identity (HYPERWAL_IDENTITY=FILE has it elsewhere)");
        goto done;
    }
    status = seed_load(env, file, own, seed, err);
    if (status == HW_OK)
        hw_identity_from_seed(seed, out);
    env->ops->close(file);
done:
    if (status == HW_ENOTFOUND) { /* of what was to be made it is no answer */
        status = HW_EIO;
        if (err != NULL)
            err->status = status;
    }
    hw_wipe(seed, sizeof(seed));
    hw_free(own);
    return status;
}
