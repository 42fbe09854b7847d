/* Where caches lie, and which log a URL means: node/cache.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/crypto.h"
#include "hypercore/manifest.h"
#include "node/cache_internal.h"

enum { NAME_FILE_MAX = 1024, KNOWN_MS = 2000, HASH_DIGITS = 32 };

static const char readme[] =
    "Caches of remote SQLite databases, made by hyperwal: one directory a log.  The databases "
    "have\n"
    "holes, which hyperwal fills when they are read: do not open them with anything else.  "
    "Nothing\n"
    "here is the only copy of anything: all of it may be removed while nobody uses it.\n";

/* ------------------------------------------------------------------------------- places */

/* Owned by the caller; NULL with *err. */
static char *root_path(struct hw_error *err)
{
    const char *own = getenv("HYPERWAL_CACHE"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char *path;

    if (own != NULL && own[0] == '/')
        path = hw_strdup(own);
    else if (own != NULL && own[0] != '\0') {
        (void)hw_fail(err, HW_EMISUSE, "HYPERWAL_CACHE in the environment: '%s' is no full path",
                      own);
        return NULL;
    } else if (cache != NULL && cache[0] == '/')
        path = hw_format("%s/hyperwal", cache);
    else if (home != NULL && home[0] == '/')
        path = hw_format("%s/.cache/hyperwal", home);
    else {
        (void)hw_fail(err, HW_ENOTFOUND,
                      "no place for the caches of remote databases: set HYPERWAL_CACHE or HOME");
        return NULL;
    }
    if (path == NULL)
        (void)hw_fail(err, HW_ENOMEM, "no memory for a path");
    return path;
}

/* The directory and those on the way.  What is there already is no failure. */
static enum hw_status make_dirs(struct hw_env *env, char *path, struct hw_error *err)
{
    enum hw_status status;

    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)env->ops->make_dir_as(env, path, 0700, NULL); /* the last one will tell */
        *slash = '/';
    }
    status = env->ops->make_dir_as(env, path, 0700, err);
    return status == HW_EEXIST ? HW_OK : status;
}

static enum hw_status make_dir_in(struct hw_env *env, const char *dir, const char *name, char **out,
                                  struct hw_error *err)
{
    char *path = hw_format("%s/%s", dir, name);
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    status = make_dirs(env, path, err);
    if (status != HW_OK) {
        hw_free(path);
        return status;
    }
    *out = path;
    return HW_OK;
}

enum hw_status cache_root(struct hw_env *env, char **out, struct hw_error *err)
{
    char *root = root_path(err), *path;
    struct hw_file_stat stat;
    enum hw_status status;

    if (root == NULL)
        return err == NULL ? HW_ENOTFOUND : err->status;
    status = make_dirs(env, root, err);
    if (status != HW_OK) {
        hw_free(root);
        return hw_prefix(err, status, "the place for caches of remote databases");
    }
    path = hw_format("%s/README", root);
    if (path != NULL && env->ops->stat(env, path, &stat, NULL) != HW_OK)
        (void)!hw_env_replace_file(env, path, readme, sizeof(readme) - 1, 0, NULL); /* for people */
    hw_free(path);
    *out = root;
    return HW_OK;
}

enum hw_status cache_dir_make(struct hw_env *env, const char *root, const uint8_t key[HW_KEY_SIZE],
                              char **out, struct hw_error *err)
{
    char hex[2 * HW_KEY_SIZE + 1];
    char *dir = NULL, *mirror = NULL;
    enum hw_status status;

    hw_key_format(key, hex);
    status = make_dir_in(env, root, hex, &dir, err);
    if (status == HW_OK)
        status = make_dir_in(env, dir, "db-hyper", &mirror, err);
    hw_free(mirror);
    if (status == HW_OK)
        *out = dir;
    else
        hw_free(dir);
    return status;
}

/* ------------------------------------------------------------------------------ names */

static char *name_path(struct hw_env *env, const char *root, const char *url, struct hw_error *err)
{
    struct hw_slice part = {(const uint8_t *)url, strlen(url)};
    uint8_t hash[HW_HASH_SIZE];
    char hex[2 * HW_HASH_SIZE + 1];
    char *dir = NULL, *path;

    hw_crypto_init();
    hw_hash(&part, 1, hash);
    hw_key_format(hash, hex);
    if (make_dir_in(env, root, "names", &dir, err) != HW_OK)
        return NULL;
    path = hw_format("%s/%.*s", dir, (int)HASH_DIGITS, hex);
    hw_free(dir);
    if (path == NULL)
        (void)hw_fail(err, HW_ENOMEM, "no memory for a path");
    return path;
}

/* The file: the key in hex digits and the URL, a line each. */
static bool name_read(struct hw_env *env, const char *path, const char *url,
                      uint8_t key[HW_KEY_SIZE])
{
    char text[NAME_FILE_MAX + 1] = {0};
    size_t size = 0, digits = 2 * (size_t)HW_KEY_SIZE;
    uint8_t read[HW_KEY_SIZE];

    if (hw_env_read_file(env, path, text, NAME_FILE_MAX, &size, NULL) != HW_OK || size < digits + 2)
        return false;
    if (text[digits] != '\n' || text[size - 1] != '\n')
        return false;
    text[digits] = text[size - 1] = '\0';
    if (!hw_key_parse(text, read) || strcmp(text + digits + 1, url) != 0)
        return false;
    memcpy(key, read, HW_KEY_SIZE);
    return true;
}

static void name_write(struct hw_env *env, const char *path, const char *url,
                       const uint8_t key[HW_KEY_SIZE])
{
    char hex[2 * HW_KEY_SIZE + 1];
    char *text;

    hw_key_format(key, hex);
    text = hw_format("%s\n%s\n", hex, url);
    if (text != NULL && strlen(text) <= NAME_FILE_MAX)
        (void)!hw_env_replace_file(env, path, text, strlen(text), 0, NULL); /* asked again then */
    hw_free(text);
}

/* The first that answers tells, whatever it says. */
static enum hw_status ask(const struct hw_place *place, uint64_t timeout_ms,
                          uint8_t key[HW_KEY_SIZE], bool *reached, struct hw_error *err)
{
    struct hw_hub *hub = NULL;
    enum hw_status status = hw_hub_borrow(&hub, err);

    if (status != HW_OK)
        return status;
    status = HW_ETIMEOUT;
    for (size_t i = 0; i < place->count && status != HW_OK && !*reached; i++)
        status = hw_hub_find_key(hub, &place->addresses[i], timeout_ms, key, reached, err);
    hw_hub_give_back(hub);
    return status;
}

/* The server has no such name: perhaps we may have it made.  No: the first error is the better. */
static enum hw_status create(const struct hw_place *place, uint8_t key[HW_KEY_SIZE],
                             struct hw_error *err)
{
    struct hw_error why = {0};
    struct hw_hub *hub = NULL;
    enum hw_status status = hw_hub_borrow(&hub, &why);

    if (status != HW_OK)
        return HW_ENOTFOUND;
    status = hw_hub_create(hub, &place->addresses[0], 0, CACHE_CONNECT_MS, key, &why);
    if (status == HW_EEXIST) { /* another one was faster */
        bool reached = false;

        status = hw_hub_find_key(hub, &place->addresses[0], CACHE_CONNECT_MS, key, &reached, &why);
    }
    hw_hub_give_back(hub);
    if (status == HW_OK || status == HW_EREFUSED)
        return status == HW_OK ? HW_OK : HW_ENOTFOUND;
    return hw_fail(err, status, "it cannot be made there: %s", why.message);
}

enum hw_status cache_resolve(struct hw_env *env, const char *root, const char *name,
                             const struct hw_place *place, bool creates, uint8_t key[HW_KEY_SIZE],
                             struct hw_error *err)
{
    uint8_t known[HW_KEY_SIZE], asked[HW_KEY_SIZE];
    bool is_known, reached = false;
    char *path;
    enum hw_status status;

    if (place->has_key) {
        memcpy(key, place->key, HW_KEY_SIZE);
        return HW_OK;
    }
    path = name_path(env, root, name, err);
    if (path == NULL)
        return err == NULL ? HW_EIO : err->status;
    is_known = name_read(env, path, name, known);
    status = ask(place, is_known ? KNOWN_MS : CACHE_CONNECT_MS, asked, &reached, err);
    if (status == HW_ENOTFOUND && creates && place->count > 0)
        status = create(place, asked, err);
    if (status == HW_OK) {
        memcpy(key, asked, HW_KEY_SIZE);
        if (!is_known || memcmp(known, asked, HW_KEY_SIZE) != 0)
            name_write(env, path, name, asked);
    } else if (is_known && !reached) {
        memcpy(key, known, HW_KEY_SIZE); /* out of reach: the log that it was */
        status = HW_OK;
    }
    hw_free(path);
    return status;
}
