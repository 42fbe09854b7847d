/*
 * Implements the remote databases of vfs/shim.h: a name that is no file becomes the cache of a
 * database elsewhere, whose files SQLite gets to see under that name.
 *
 *     "hyper://host/name"          the name that SQLite has        ──▶ CACHE/KEY/db
 *     "hyper://host/name-wal"      by the pointer, as any WAL      ──▶ CACHE/KEY/db-wal
 *     "hyper://host/name-journal"  is never there
 *
 * To SQLite it is a database in WAL mode that somebody else writes, too; what a connection commits
 * goes to the server first (remote_write.c).
 */
#include <string.h>

#include "base/alloc.h"
#include "vfs/shim.h"

enum { PARAMETERS_MAX = 32 };

bool hw_shim_is_remote(const struct hw_shim *shim, const char *name)
{
    return shim->remotes != NULL && name != NULL && shim->remotes->is_remote(name);
}

/* -------------------------------------------------------------------- names with parameters */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place: %XX becomes the byte. */
static void percent_decode(char *text)
{
    char *out = text;

    for (const char *p = text; *p != '\0'; p++) {
        int high = *p == '%' ? hex_digit(p[1]) : -1;
        int low = high >= 0 ? hex_digit(p[2]) : -1;

        if (low > 0 || (low == 0 && high > 0)) { /* not a zero byte */
            *out++ = (char)(high << 4 | low);
            p += 2;
        } else {
            *out++ = *p;
        }
    }
    *out = '\0';
}

/*
 * SQLite parses the parameters of "file:" names alone.  A bare one carries them in itself: *out is
 * the same name with its parameters told apart, of sqlite3_create_filename().
 */
static enum hw_status split_bare(const char *name, const char **out, struct hw_error *err)
{
    const char *parameters[2 * PARAMETERS_MAX];
    char *copy = hw_strdup(name); /* owned */
    char *next = copy == NULL ? NULL : strchr(copy, '?');
    enum hw_status status = HW_OK;
    int count = 0;

    if (copy == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open it");
    while (next != NULL && status == HW_OK) {
        char *key = next + 1, *value;

        *next = '\0';
        next = strchr(key, '&');
        if (next != NULL)
            *next = '\0';
        value = strchr(key, '=');
        if (value != NULL)
            *value++ = '\0';
        if (*key == '\0') {
            continue;
        } else if (count == PARAMETERS_MAX) {
            status = hw_fail(err, HW_EMISUSE, "more than %d parameters", (int)PARAMETERS_MAX);
        } else {
            percent_decode(key);
            if (value != NULL)
                percent_decode(value);
            parameters[2 * count] = key;
            parameters[2 * count + 1] = value == NULL ? "" : value;
            count++;
        }
    }
    if (status == HW_OK) {
        *out = sqlite3_create_filename(copy, "", "", count, parameters);
        if (*out == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory to open it");
    }
    hw_free(copy);
    return status;
}

/* ------------------------------------------------------------------------------- opening */

static enum hw_status check(const struct hw_shim *shim, const struct hw_uri *uri, int flags,
                            struct hw_error *err)
{
    if (!shim->threaded)
        return hw_fail(err, HW_EMISUSE,
                       "this SQLite has no threads, which a remote database needs: use "
                       "`hyperwal follow` for a replica");
    if (uri->refused != NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter %s: a remote database has no such thing: leave it out",
                       uri->refused);
    if (flags & (SQLITE_OPEN_DELETEONCLOSE | SQLITE_OPEN_MEMORY))
        return hw_fail(err, HW_EMISUSE, "a remote database is no temporary file");
    return HW_OK;
}

/* The files of the cache below `file`, which has a reference of it. */
static enum hw_status open_files(struct hw_shim_file *file, struct hw_error *err)
{
    struct hw_shim *shim = file->shim;
    const char *path = shim->remotes->path(file->cache);
    char *journal = hw_format("%s-journal", path), *wal = hw_format("%s-wal", path);
    sqlite3_vfs *vfs = &shim->cache->vfs;
    enum hw_status status = HW_OK;
    int code;

    if (journal != NULL && wal != NULL)
        file->cache_name = sqlite3_create_filename(path, journal, wal, 0, NULL);
    hw_free(journal);
    hw_free(wal);
    if (file->cache_name == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open it");
    status = hw_shim_database_open(file, path, err);
    if (status != HW_OK)
        return status;
    code = hw_layer_open(&file->layer, vfs, file->cache_name,
                         SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, NULL);
    if (code != SQLITE_OK) {
        hw_shim_database_leave(file);
        file->database = NULL;
        status = hw_fail(err, HW_EIO, "%s: cannot be opened (SQLite code %d)", path, code);
    }
    return status;
}

static enum hw_status open_cache(struct hw_shim_file *file, const char *url,
                                 const struct hw_uri *uri, int flags, struct hw_error *err)
{
    struct hw_shim *shim = file->shim;
    struct hw_vfs_remote remote = {.name = url,
                                   .base = shim->base,
                                   .cache = &shim->cache->vfs,
                                   .timeout_ms = uri->timeout_ms,
                                   .cache_max = uri->cache_max,
                                   .hydrate = uri->hydrate,
                                   .past = uri->past,
                                   .creates = (flags & SQLITE_OPEN_CREATE) != 0 && !uri->past,
                                   .server = uri->has_server ? uri->server : NULL};
    enum hw_status status = check(shim, uri, flags, err);

    return status == HW_OK ? shim->remotes->open(&remote, &file->cache, err) : status;
}

int hw_shim_remote_open(struct hw_shim *shim, const char *name, struct hw_shim_file *file,
                        int flags, int *out_flags)
{
    bool is_bare = strchr(name, '?') != NULL;
    const char *split = NULL; /* owned */
    struct hw_error error = {0};
    struct hw_uri uri = {0};
    enum hw_status status = HW_OK;
    int code = SQLITE_OK;

    if (is_bare)
        status = split_bare(name, &split, &error);
    if (status == HW_OK)
        status = hw_uri_parse(is_bare ? split : name, &uri, &error);
    if (status == HW_OK)
        status = open_cache(file, is_bare ? split : name, &uri, flags, &error);
    if (status == HW_OK && uri.past) {
        code = hw_past_file_open(shim, name, &uri, file->cache, &file->layer.file, out_flags);
        goto done;
    }
    if (status == HW_OK)
        status = open_files(file, &error);
    if (status != HW_OK) {
        hw_shim_remote_close(file);
        code = hw_shim_open_failed(name, status, &error);
        goto done;
    }
    file->role = HW_SHIM_REMOTE;
    file->timeout_ms = uri.timeout_ms;
    file->wal_name = sqlite3_filename_wal(name);
    hw_shim_database_join(file->database, file);
    hw_shim_file_wrap(file);
    file->is_writable = (flags & SQLITE_OPEN_READWRITE) != 0;
    if (out_flags != NULL)
        *out_flags = flags & ~SQLITE_OPEN_CREATE;
done:
    if (split != NULL)
        sqlite3_free_filename((char *)(uintptr_t)split); /* char * before SQLite 3.44 */
    return code;
}

void hw_shim_remote_close(struct hw_shim_file *file)
{
    if (file->cache_name != NULL)
        sqlite3_free_filename((char *)(uintptr_t)file->cache_name);
    file->cache_name = NULL;
    if (file->cache != NULL && file->generation == hw_shim_generation())
        file->shim->remotes->close(file->cache);
    file->cache = NULL;
}

/* A name of a database elsewhere is as full as it can be; of a file here it becomes the path. */
int hw_shim_remote_full_pathname(struct hw_shim *shim, const char *name, int size, char *out)
{
    struct hw_error error = {0};
    char *copy = hw_strdup(name), *path = NULL; /* owned */
    char *parameters = copy == NULL ? NULL : strchr(copy, '?');
    enum hw_status status = HW_OK;
    int code = SQLITE_OK;

    if (parameters != NULL)
        *parameters = '\0';
    if (copy == NULL)
        status = hw_fail(&error, HW_ENOMEM, "no memory to open it");
    else
        status = shim->remotes->locate(copy, &path, &error);
    if (status == HW_OK && path != NULL && parameters != NULL)
        status = hw_fail(&error, HW_EMISUSE,
                         "a database of this machine takes its parameters as in file:%s", name);
    if (status != HW_OK)
        code = hw_shim_open_failed(name, status, &error);
    else if (path != NULL)
        code = shim->base->xFullPathname(shim->base, path, size, out);
    else if (strlen(name) >= (size_t)size)
        code = SQLITE_CANTOPEN;
    else
        memcpy(out, name, strlen(name) + 1);
    hw_free(copy);
    hw_free(path);
    return code;
}

/* ------------------------------------------------------------------------- its other files */

int hw_shim_remote_open_wal(struct hw_shim *shim, struct hw_shim_file *file,
                            struct hw_shim_file *main, int flags, int *out_flags)
{
    const char *name = sqlite3_filename_wal(main->cache_name);
    int code = hw_layer_open(&file->layer, shim->base, name, flags, out_flags);

    if (code != SQLITE_OK)
        return code;
    file->role = HW_SHIM_REMOTE_WAL;
    file->main = main;
    hw_shim_file_wrap(file);
    return SQLITE_OK;
}

int hw_shim_remote_access(struct hw_shim *shim, const char *name, int flags, int *out)
{
    struct hw_shim_file *main = hw_shim_database_of_wal(shim, name);

    *out = 0;
    if (main == NULL || main->cache_name == NULL)
        return SQLITE_OK;
    return shim->base->xAccess(shim->base, sqlite3_filename_wal(main->cache_name), flags, out);
}
