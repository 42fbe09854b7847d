/* Implements vfs/vfs.h: the VFS object, and what happens when a file is opened. */
#include "vfs/shim.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"

static const char shim_magic[16] = "hyperwal shim 1"; /* with the zero byte */

static struct hw_mutex registration = HW_MUTEX_INIT; /* one register or unregister at a time */
static struct hw_shim *grounds;                      /* mu: registration */

/*
 * A failed xOpen has no object left to ask, and SQLite asks from the same thread.  Aligned like a
 * pointer: GNU ld 2.40 begins the read-only data with it, and if that is the last word of a page
 * that is not there the program cannot be started.
 */
static _Thread_local _Alignas(8) char last_error[HW_ERROR_SIZE];
static _Thread_local bool last_was_corrupt;

const char *hw_vfs_last_error(void)
{
    return last_error;
}

bool hw_vfs_last_was_corrupt(void)
{
    return last_was_corrupt;
}

static void (*_Atomic words_sink)(const char *path, const char *words);

void hw_vfs_set_words(void (*sink)(const char *path, const char *words))
{
    atomic_store(&words_sink, sink);
}

void hw_shim_tell(const char *path, int code, const struct hw_error *error)
{
    void (*sink)(const char *path, const char *words) = atomic_load(&words_sink);

    (void)snprintf(last_error, sizeof(last_error), "%s", error->message); /* the same size */
    sqlite3_log(code, "hyperwal: %s: %s", path, error->message);
    if (sink != NULL)
        sink(path, error->message);
}

int hw_vfs_code(enum hw_status status)
{
    switch (status) {
    case HW_OK:
        return SQLITE_OK;
    case HW_END:
        return SQLITE_DONE;
    case HW_AGAIN:
    case HW_EBUSY:
    case HW_ETIMEOUT:
        return SQLITE_BUSY;
    case HW_ENOMEM:
        return SQLITE_NOMEM;
    case HW_EIO:
    case HW_EBROKEN:
        return SQLITE_IOERR;
    case HW_ENOSPC:
        return SQLITE_FULL;
    case HW_ECORRUPT:
    case HW_EPROOF:
        return HW_VFS_CORRUPT;
    case HW_ENOTFOUND:
    case HW_EPRUNED:
    case HW_EFORK: /* a target within a gap; a copied log is told by its words */
        return HW_VFS_NOTARGET;
    case HW_ELIMIT:
        return SQLITE_TOOBIG;
    case HW_EMISUSE:
        return SQLITE_MISUSE;
    case HW_EMISSING:
        return SQLITE_CANTOPEN;
    case HW_EREFUSED:
        return SQLITE_PERM;
    case HW_EREADONLY:
        return SQLITE_READONLY;
    case HW_EPROTOCOL:
    case HW_EVERSION:
    case HW_EEXIST:
        return SQLITE_ERROR;
    }
    return SQLITE_ERROR;
}

bool hw_shim_is_forked(struct hw_shim_file *file)
{
    if (file->generation == hw_shim_generation())
        return false;
    if (!file->fork_told) {
        file->fork_told = true;
        sqlite3_log(SQLITE_IOERR,
                    "hyperwal: %s: this connection was opened before fork(): open a new one in the "
                    "child",
                    file->path);
    }
    return true;
}

/* ------------------------------------------------------------------------------ xOpen */

/* The code of an open that failed: what SQLite's callers expect there. */
static int open_code(enum hw_status status)
{
    switch (hw_vfs_code(status)) {
    case SQLITE_NOMEM:
        return SQLITE_NOMEM;
    case SQLITE_FULL:
        return SQLITE_FULL;
    default:
        return SQLITE_CANTOPEN;
    }
}

int hw_shim_open_failed(const char *name, enum hw_status status, const struct hw_error *error)
{
    last_was_corrupt = hw_vfs_code(status) == HW_VFS_CORRUPT;
    hw_shim_tell(name, open_code(status), error);
    return open_code(status);
}

static enum hw_status refuse_listen(const struct hw_uri *uri, const char *why, struct hw_error *err)
{
    if (uri->listen == NULL)
        return HW_OK;
    return hw_fail(err, HW_EMISUSE, "URI parameter listen: '%s': %s", uri->listen, why);
}

/* What this connection is to its database, and what it needs for that. */
static enum hw_status take_role(struct hw_shim_file *file, const struct hw_uri *uri, int flags,
                                struct hw_error *err)
{
    bool is_replica = false;
    enum hw_status status;

    file->role = HW_SHIM_PLAIN;
    if (uri->pass_through)
        return HW_OK;
    status = hw_shim_is_replica(file->shim, file->path, &is_replica, err);
    if (status != HW_OK)
        return status;
    if (is_replica) {
        file->role = HW_SHIM_REPLICA;
        return refuse_listen(uri,
                             "this is a replica: its follower serves it (`hyperwal follow "
                             "--listen URL`)",
                             err);
    }
    if (flags & SQLITE_OPEN_READONLY)
        return refuse_listen(uri, "this connection is read-only: one that writes can serve it",
                             err);
    if (file->layer.below->pMethods->iVersion < 2 || file->layer.below->pMethods->xShmMap == NULL)
        return hw_fail(err, HW_EMISUSE, "the VFS below, '%s', has no shared memory for a WAL",
                       file->shim->base->zName);
    status = hw_shim_database_capture(file->database, uri, err);
    if (status == HW_OK && uri->listen != NULL)
        status = hw_shim_listen(file->database, uri, err);
    if (status != HW_OK)
        return status;
    file->role = HW_SHIM_PRIMARY;
    file->capture = file->database->capture;
    file->durability = uri->durability;
    file->replicas = (unsigned)uri->replicas;
    file->timeout_ms = uri->timeout_ms;
    file->continue_on_timeout = uri->continue_on_timeout;
    return HW_OK;
}

/* A database with content and another journal mode is switched now if nobody uses it. */
static enum hw_status begin_wal(struct hw_shim_file *file, struct hw_error *err)
{
    enum hw_status status;

    /* Looked at again when this connection has no lock: a hot journal may take a header of WAL mode
     * back, an empty database gets its first page, a busy one is free then. */
    file->needs_wal = true;
    if (hw_internal_header(file) != HW_HEADER_OTHER)
        return HW_OK;
    status = hw_internal_switch(file, err);
    return status == HW_EBUSY ? HW_OK : status;
}

/* The database that this connection is of; one in memory has its files elsewhere. */
static enum hw_status open_database(struct hw_shim_file *file, const char *name,
                                    const struct hw_uri *uri, int flags, struct hw_error *err)
{
    if (!uri->memory)
        return hw_shim_database_open(file, name, err);
    return hw_shim_database_open_memory(file, name, (flags & SQLITE_OPEN_CREATE) != 0, err);
}

static int open_main(struct hw_shim *shim, const char *name, struct hw_shim_file *file, int flags,
                     int *out_flags)
{
    struct hw_uri uri;
    struct hw_error error = {0};
    enum hw_status status = hw_uri_parse(name, &uri, &error);
    int got_flags = flags;
    int code;

    if (status == HW_OK && uri.past)
        return hw_past_file_open(shim, name, &uri, NULL, &file->layer.file, out_flags);
    if (status == HW_OK)
        status = open_database(file, name, &uri, flags, &error);
    if (status != HW_OK)
        goto failed;
    code = hw_layer_open(&file->layer, shim->base, file->path, flags, &got_flags);
    if (code != SQLITE_OK) {
        hw_shim_database_leave(file);
        return code;
    }
    status = take_role(file, &uri, got_flags, &error);
    if (status == HW_OK && file->role == HW_SHIM_PRIMARY)
        status = begin_wal(file, &error);
    if (status != HW_OK) {
        (void)file->layer.below->pMethods->xClose(
            file->layer.below); /* `error` says what went wrong */
        hw_shim_database_leave(file);
        goto failed;
    }
    if (file->role == HW_SHIM_PRIMARY) {
        file->wal_name = sqlite3_filename_wal(name);
        hw_shim_database_join(file->database, file);
    }
    if (file->role == HW_SHIM_REPLICA)
        got_flags = (got_flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
    if (out_flags != NULL)
        *out_flags = got_flags;
    hw_shim_file_wrap(file);
    return SQLITE_OK;
failed:
    return hw_shim_open_failed(name, status, &error);
}

static int open_wal(struct hw_shim *shim, struct hw_shim_file *file, struct hw_shim_file *main,
                    int flags, int *out_flags)
{
    const char *wal_name = sqlite3_filename_wal(main->path); /* `name`, or that in memory */
    int code = hw_layer_open(&file->layer, shim->base, wal_name, flags, out_flags);

    if (code != SQLITE_OK)
        return code;
    file->role = HW_SHIM_WAL;
    file->main = main;
    file->capture = main->capture; /* which `main` holds, and SQLite closes the WAL first */
    hw_shim_file_wrap(file);
    return SQLITE_OK;
}

/* A journal, a WAL that nobody captures, a temporary file. */
static int open_other(struct hw_shim *shim, const char *name, sqlite3_file *file, int flags,
                      int *out_flags)
{
    if (name != NULL && flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL))
        name = hw_shim_database_file_name(shim, name);
    return shim->base->xOpen(shim->base, name, file, flags, out_flags);
}

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *sqlite_file, int flags,
                     int *out_flags)
{
    struct hw_shim *shim = hw_shim(vfs);
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    struct hw_shim_file *main = NULL;

    if (name != NULL && flags & SQLITE_OPEN_WAL)
        main = hw_shim_database_of_wal(shim, name);
    if (name == NULL || (main == NULL && !(flags & SQLITE_OPEN_MAIN_DB)))
        return open_other(shim, name, sqlite_file, flags, out_flags);

    hw_layer_init(&file->layer, sizeof(*file)); /* no xClose unless we get through */
    file->shim = shim;
    file->path = name;
    file->generation = hw_shim_generation();
    file->is_guest = hw_shim_opens_guest();
    file->shared_cache = (flags & SQLITE_OPEN_SHAREDCACHE) != 0;
    if (main != NULL && main->cache != NULL)
        return hw_shim_remote_open_wal(shim, file, main, flags, out_flags);
    if (main != NULL)
        return open_wal(shim, file, main, flags, out_flags);
    last_error[0] = '\0';
    last_was_corrupt = false;
    if (hw_shim_is_remote(shim, name))
        return hw_shim_remote_open(shim, name, file, flags, out_flags);
    return open_main(shim, name, file, flags, out_flags);
}

/* ------------------------------------------------------- the other methods: passed down */

static int shim_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    struct hw_shim *shim = hw_shim(vfs);

    if (hw_shim_is_remote(shim, name))
        return SQLITE_IOERR_DELETE_NOENT; /* its cache keeps its files */
    hw_shim_database_wal_deleted(shim, name);
    return shim->base->xDelete(shim->base, hw_shim_database_file_name(shim, name), sync_dir);
}

static int shim_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    if (hw_shim_is_remote(hw_shim(vfs), name))
        return hw_shim_remote_access(hw_shim(vfs), name, flags, out);
    return base->xAccess(base, hw_shim_database_file_name(hw_shim(vfs), name), flags, out);
}

static int shim_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    if (hw_shim_is_remote(hw_shim(vfs), name))
        return hw_shim_remote_full_pathname(hw_shim(vfs), name, size, out);
    return base->xFullPathname(base, name, size, out);
}

static void *shim_dl_open(sqlite3_vfs *vfs, const char *name)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xDlOpen(base, name);
}

static void shim_dl_error(sqlite3_vfs *vfs, int size, char *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    base->xDlError(base, size, out);
}

static void (*shim_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xDlSym(base, handle, symbol);
}

static void shim_dl_close(sqlite3_vfs *vfs, void *handle)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    base->xDlClose(base, handle);
}

static int shim_randomness(sqlite3_vfs *vfs, int size, char *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xRandomness(base, size, out);
}

static int shim_sleep(sqlite3_vfs *vfs, int microseconds)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xSleep(base, microseconds);
}

static int shim_current_time(sqlite3_vfs *vfs, double *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xCurrentTime(base, out);
}

static int shim_get_last_error(sqlite3_vfs *vfs, int size, char *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;
    int code = base->xGetLastError == NULL ? 0 : base->xGetLastError(base, size, out);

    if (size > 0 && out != NULL && last_error[0] != '\0')
        (void)snprintf(out, (size_t)size, "%s", last_error); /* cut to what there is room for */
    return code;
}

static int shim_current_time_int64(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xCurrentTimeInt64(base, out);
}

static int shim_set_system_call(sqlite3_vfs *vfs, const char *name, sqlite3_syscall_ptr call)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xSetSystemCall(base, name, call);
}

static sqlite3_syscall_ptr shim_get_system_call(sqlite3_vfs *vfs, const char *name)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xGetSystemCall(base, name);
}

static const char *shim_next_system_call(sqlite3_vfs *vfs, const char *name)
{
    sqlite3_vfs *base = hw_shim(vfs)->base;

    return base->xNextSystemCall(base, name);
}

/* -------------------------------------------------------------------------- registration */

/* No method that the VFS below lacks: SQLite looks which ones are there. */
static void fill_vfs(struct hw_shim *shim)
{
    const sqlite3_vfs *base = shim->base;
    sqlite3_vfs *vfs = &shim->vfs;
    int file_size = (int)sizeof(struct hw_shim_file) + hw_lazy_file_size(base);

    *vfs = (sqlite3_vfs){
        .iVersion = base->iVersion < 3 ? base->iVersion : 3,
        .szOsFile = file_size > hw_past_file_size() ? file_size : hw_past_file_size(),
        .mxPathname = base->mxPathname,
        .zName = shim->name,
        .pAppData = vfs, /* itself: so that another copy of this code may look behind it */
        .xOpen = shim_open,
        .xDelete = shim_delete,
        .xAccess = shim_access,
        .xFullPathname = shim_full_pathname,
        .xDlOpen = base->xDlOpen == NULL ? NULL : shim_dl_open,
        .xDlError = base->xDlError == NULL ? NULL : shim_dl_error,
        .xDlSym = base->xDlSym == NULL ? NULL : shim_dl_sym,
        .xDlClose = base->xDlClose == NULL ? NULL : shim_dl_close,
        .xRandomness = shim_randomness,
        .xSleep = shim_sleep,
        .xCurrentTime = base->xCurrentTime == NULL ? NULL : shim_current_time,
        .xGetLastError = shim_get_last_error,
    };
    if (base->iVersion >= 2 && base->xCurrentTimeInt64 != NULL)
        vfs->xCurrentTimeInt64 = shim_current_time_int64;
    if (base->iVersion >= 3 && base->xSetSystemCall != NULL)
        vfs->xSetSystemCall = shim_set_system_call;
    if (base->iVersion >= 3 && base->xGetSystemCall != NULL)
        vfs->xGetSystemCall = shim_get_system_call;
    if (base->iVersion >= 3 && base->xNextSystemCall != NULL)
        vfs->xNextSystemCall = shim_next_system_call;
}

static bool is_ours(const sqlite3_vfs *vfs)
{
    return vfs != NULL && vfs->xOpen == shim_open;
}

/* Registered by another copy of this library: the extension in a program that links the library. */
static bool is_hyperwal(const sqlite3_vfs *vfs)
{
    return vfs->pAppData == vfs &&
           memcmp(((const struct hw_shim *)vfs)->magic, shim_magic, sizeof(shim_magic)) == 0;
}

static void shim_free(struct hw_shim *shim)
{
    if (shim->cache != NULL)
        (void)sqlite3_vfs_unregister(&shim->cache->vfs); /* one that is not there: nothing */
    hw_free(shim->cache);
    hw_free(shim);
}

/* NAME-cache: what the files of remote databases are opened through. */
static int register_cache(struct hw_shim *shim)
{
    struct hw_shim *cache;

    if (shim->remotes == NULL)
        return SQLITE_OK;
    cache = hw_zalloc(sizeof(*cache));
    if (cache == NULL)
        return SQLITE_NOMEM;
    shim->cache = cache;
    cache->base = shim->base;
    cache->env = shim->env;
    (void)snprintf(cache->name, sizeof(cache->name), "%.50s-cache", shim->name);
    fill_vfs(cache);
    cache->vfs.xOpen = hw_lazy_open;
    cache->vfs.szOsFile = hw_lazy_file_size(cache->base);
    return sqlite3_vfs_register(&cache->vfs, 0);
}

/* The caller holds `registration`. */
static sqlite3_vfs *ground_of(sqlite3_vfs *base)
{
    struct hw_shim *ground = grounds;

    while (ground != NULL && ground->base != base)
        ground = ground->next;
    if (ground != NULL)
        return &ground->vfs;
    ground = hw_zalloc(sizeof(*ground));
    if (ground == NULL)
        return NULL;
    ground->base = base;
    fill_vfs(ground);
    ground->vfs.zName = base->zName;
    ground->vfs.xOpen = hw_ground_open;
    ground->vfs.szOsFile = hw_ground_file_size(base);
    ground->next = grounds;
    grounds = ground;
    return &ground->vfs;
}

sqlite3_vfs *hw_vfs_ground(sqlite3_vfs *base)
{
    sqlite3_vfs *ground;

    if (base == NULL)
        return NULL;
    hw_mutex_lock(&registration);
    ground = ground_of(base);
    hw_mutex_unlock(&registration);
    return ground;
}

static sqlite3_vfs *default_ground(void)
{
    sqlite3_vfs *base = sqlite3_vfs_find(NULL);

    if (base == NULL)
        return NULL;
    if (is_ours(base))
        return hw_shim(base)->base; /* never on top of itself */
    return ground_of(base);
}

static enum hw_status register_new(const struct hw_vfs_options *options, const char *name,
                                   struct hw_error *err)
{
    sqlite3_vfs *base = options->base != NULL ? options->base : default_ground();
    struct hw_shim *shim; /* lives until unregistered: not SQLite's memory, it outlives shutdown */
    int code;

    if (base == NULL)
        return hw_fail(err, HW_ENOTFOUND, "SQLite has no VFS to build on");
    if (strlen(name) >= sizeof(shim->name))
        return hw_fail(err, HW_ELIMIT, "the name '%s' of a VFS is too long", name);
    shim = hw_zalloc(sizeof(*shim));
    if (shim == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to register the VFS");
    memcpy(shim->magic, shim_magic, sizeof(shim_magic));
    shim->base = base;
    shim->env = options->env;
    shim->listener = options->listener;
    shim->remotes = options->remotes;
    shim->threaded = options->threaded;
    memcpy(shim->name, name, strlen(name) + 1);
    fill_vfs(shim);
    code = register_cache(shim);
    if (code == SQLITE_OK)
        code = sqlite3_vfs_register(&shim->vfs, options->make_default);
    if (code != SQLITE_OK) {
        shim_free(shim);
        return hw_fail(err, HW_ENOMEM, "SQLite refused the VFS '%s': %s", name,
                       sqlite3_errstr(code));
    }
    return HW_OK;
}

void hw_shim_registration_lock(void)
{
    hw_mutex_lock(&registration);
}

void hw_shim_registration_unlock(void)
{
    hw_mutex_unlock(&registration);
}

enum hw_status hw_vfs_register(const struct hw_vfs_options *options, struct hw_error *err)
{
    const char *name = options->name != NULL ? options->name : "hyperwal";
    enum hw_status status = HW_OK;
    sqlite3_vfs *found;

    hw_mutex_lock(&registration);
    found = sqlite3_vfs_find(name); /* initializes SQLite, too */
    if (found == NULL)
        status = register_new(options, name, err);
    else if (!is_ours(found) && !is_hyperwal(found))
        status = hw_fail(err, HW_EEXIST, "another VFS has the name '%s'", name);
    else if (options->make_default && sqlite3_vfs_register(found, 1) != SQLITE_OK)
        status = hw_fail(err, HW_ENOMEM, "SQLite refused to make '%s' the default VFS", name);
    hw_mutex_unlock(&registration);
    return status;
}

void hw_vfs_unregister(const char *name)
{
    sqlite3_vfs *found;

    hw_mutex_lock(&registration);
    found = sqlite3_vfs_find(name);
    if (is_ours(found)) {
        (void)sqlite3_vfs_unregister(found); /* fails only before sqlite3_initialize() */
        shim_free(hw_shim(found));
    }
    hw_mutex_unlock(&registration);
}
