/*
 * Implements the file of vfs/shim.h that is a state of the past: pages come out of the log as they
 * are read, and nothing can be written.  It says that it is immutable, so SQLite neither locks it
 * nor looks for a journal, and reads a database in WAL mode without one.
 */
#include <stdio.h>
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "env/shared_page.h"
#include "vfs/shim.h"

struct past_file {
    sqlite3_file file; /* first */
    struct hw_shim *shim;
    const char *path; /* SQLite's, lives until xClose */
    struct hw_core *core;
    struct hw_memory_place *place; /* owned: of a database in memory; else NULL */
    struct hw_cache *cache;        /* one reference: whose log it is; NULL: of this machine */
    void *handle;                  /* of `core`, if the cache gave it */
    struct hw_past *past;
    struct hw_state state;
    uint8_t *page;        /* owned: the last page that was read in part */
    uint32_t page_number; /* of it; 0: none */
    unsigned generation;
};

int hw_past_file_size(void)
{
    return (int)sizeof(struct past_file);
}

static struct past_file *past(sqlite3_file *file)
{
    return (struct past_file *)file;
}

static void past_release(struct past_file *file)
{
    if (file->past != NULL)
        hw_past_close(file->past);
    if (file->cache != NULL && file->generation == hw_shim_generation()) {
        file->shim->remotes->log_close(file->handle);
        file->shim->remotes->close(file->cache);
    } else if (file->cache == NULL) {
        hw_core_close(file->core);
    }
    if (file->generation == hw_shim_generation())
        hw_memory_leave(file->place);
    hw_free(file->page);
    file->file.pMethods = NULL;
}

static int past_close(sqlite3_file *file)
{
    past_release(past(file));
    return SQLITE_OK;
}

static int told(struct past_file *file, enum hw_status status, int code,
                const struct hw_error *error)
{
    if (status == HW_ENOMEM)
        return SQLITE_IOERR_NOMEM;
    hw_shim_tell(file->path, code, error);
    return code;
}

/* `size` bytes within one page. */
static int read_page(struct past_file *file, uint32_t number, size_t begin, void *out, size_t size)
{
    struct hw_error error = {0};
    enum hw_status status;

    if (size == file->state.page_size) {
        status = hw_past_read(file->past, number, out, &error);
        return status == HW_OK ? SQLITE_OK : told(file, status, SQLITE_IOERR_READ, &error);
    }
    if (file->page_number != number) {
        file->page_number = 0;
        status = hw_past_read(file->past, number, file->page, &error);
        if (status != HW_OK)
            return told(file, status, SQLITE_IOERR_READ, &error);
        file->page_number = number;
    }
    memcpy(out, file->page + begin, size);
    return SQLITE_OK;
}

static int past_read(sqlite3_file *sqlite_file, void *out, int size, sqlite3_int64 offset)
{
    struct past_file *file = past(sqlite_file);
    uint64_t end = (uint64_t)file->state.page_count * file->state.page_size;
    uint64_t next = (uint64_t)offset;
    uint8_t *bytes = out;
    size_t left = (size_t)size;

    if (file->generation != hw_shim_generation())
        return SQLITE_IOERR;
    while (left > 0 && next < end) {
        size_t begin = (size_t)(next % file->state.page_size);
        size_t part = file->state.page_size - begin;
        int code;

        if (part > left)
            part = left;
        code = read_page(file, (uint32_t)(next / file->state.page_size) + 1, begin, bytes, part);
        if (code != SQLITE_OK)
            return code;
        bytes += part;
        next += part;
        left -= part;
    }
    memset(bytes, 0, left);
    return left == 0 ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int past_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 offset)
{
    (void)file, (void)bytes, (void)size, (void)offset;
    return SQLITE_READONLY;
}

static int past_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    (void)file, (void)size;
    return SQLITE_READONLY;
}

static int past_sync(sqlite3_file *file, int flags)
{
    (void)file, (void)flags;
    return SQLITE_OK;
}

static int past_file_size(sqlite3_file *sqlite_file, sqlite3_int64 *out)
{
    const struct past_file *file = past(sqlite_file);

    *out = (sqlite3_int64)file->state.page_count * (sqlite3_int64)file->state.page_size;
    return SQLITE_OK;
}

static int past_lock(sqlite3_file *file, int level)
{
    (void)file;
    return level > SQLITE_LOCK_SHARED ? SQLITE_READONLY : SQLITE_OK;
}

static int past_unlock(sqlite3_file *file, int level)
{
    (void)file, (void)level;
    return SQLITE_OK;
}

static int past_check_reserved_lock(sqlite3_file *file, int *out)
{
    (void)file;
    *out = 0;
    return SQLITE_OK;
}

static int past_pragma(const struct past_file *file, char **arguments)
{
    if (sqlite3_strnicmp(arguments[1], "hyperwal_", 9) != 0)
        return SQLITE_NOTFOUND;
    if (sqlite3_stricmp(arguments[1], "hyperwal_seq") == 0 && arguments[2] == NULL) {
        arguments[0] = sqlite3_mprintf("%llu", (unsigned long long)file->state.seq);
        return arguments[0] == NULL ? SQLITE_NOMEM : SQLITE_OK;
    }
    arguments[0] = sqlite3_mprintf("this is a read-only view of the past: of hyperwal's PRAGMAs it "
                                   "has only hyperwal_seq");
    return SQLITE_ERROR;
}

static int past_control(sqlite3_file *sqlite_file, int op, void *argument)
{
    struct past_file *file = past(sqlite_file);

    switch (op) {
    case SQLITE_FCNTL_VFSNAME:
        *(char **)argument = sqlite3_mprintf("%s/past", file->shim->name);
        return *(char **)argument == NULL ? SQLITE_NOMEM : SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA:
        return past_pragma(file, argument);
    default:
        return SQLITE_NOTFOUND;
    }
}

static int past_sector_size(sqlite3_file *file)
{
    (void)file;
    return 4096;
}

static int past_device_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_IMMUTABLE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = past_close,
    .xRead = past_read,
    .xWrite = past_write,
    .xTruncate = past_truncate,
    .xSync = past_sync,
    .xFileSize = past_file_size,
    .xLock = past_lock,
    .xUnlock = past_unlock,
    .xCheckReservedLock = past_check_reserved_lock,
    .xFileControl = past_control,
    .xSectorSize = past_sector_size,
    .xDeviceCharacteristics = past_device_characteristics,
};

static enum hw_status is_there(struct hw_env *env, const char *dir, const char *name, bool *out,
                               struct hw_error *err)
{
    char *path = hw_format("%s/%s", dir, name);
    enum hw_status status = path == NULL ? hw_fail(err, HW_ENOMEM, "no memory for a path")
                                         : hw_env_exists(env, path, out, err);

    hw_free(path);
    return status;
}

/*
 * A replica has the log that it was last fed from; one that was fed over a network has it beside
 * it, as far as it came.
 */
static enum hw_status is_elsewhere(struct hw_shim *shim, const char *path, const char *beside,
                                   struct hw_replica_info *info, bool *out, struct hw_error *err)
{
    bool has_source = false, has_mirror = false;
    enum hw_status status = hw_replica_info(shim->env, path, info, err);

    *out = false;
    if (status == HW_ENOTFOUND || (status == HW_OK && info->source[0] == '\0'))
        return HW_OK;
    if (status == HW_OK && !hw_shim_is_remote(shim, info->source))
        status = is_there(shim->env, info->source, "log", &has_source, err);
    if (status == HW_OK)
        status = is_there(shim->env, beside, "mirror", &has_mirror, err);
    *out = has_source || !has_mirror;
    return status;
}

/* The directory of the log of `path`, from hw_alloc(). */
static enum hw_status log_directory(struct hw_shim *shim, const char *path,
                                    const struct hw_uri *uri, char **out, struct hw_error *err)
{
    struct hw_replica_info info;
    bool elsewhere = false;
    char *beside = hw_format("%s-hyper", path);
    enum hw_status status = HW_OK;

    if (beside == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to open the log");
    if (uri->log_dir == NULL)
        status = is_elsewhere(shim, path, beside, &info, &elsewhere, err);
    if (status == HW_OK && uri->log_dir == NULL && !elsewhere) {
        *out = beside;
        return HW_OK;
    }
    hw_free(beside);
    if (status != HW_OK)
        return status;
    *out = hw_strdup(uri->log_dir != NULL ? uri->log_dir : info.source);
    return *out != NULL ? HW_OK : hw_fail(err, HW_ENOMEM, "no memory to open the log");
}

/* The log of a database in memory is there while somebody has that open; so do we, from now on. */
static enum hw_status join_memory(struct past_file *file, struct hw_error *err)
{
    return hw_memory_join(file->shim->env, file->shim->base, file->path, false, &file->place, err);
}

/* What the writer published is durable; where nobody writes, everything complete is. */
static enum hw_status read_limit(struct hw_env *env, const char *dir, uint64_t *limit,
                                 struct hw_error *err)
{
    struct hw_shared_page *page = NULL;
    struct hw_error why = {0};
    enum hw_status status = hw_shared_page_open(env, dir, false, &page, &why);

    *limit = UINT64_MAX;
    if (status == HW_OK) {
        if (hw_shared_worker(page) != 0)
            *limit = hw_shared_durable_length(page);
        hw_shared_page_close(page);
    } else if (status != HW_ENOTFOUND && !hw_error_is_forbidden(&why)) {
        *err = why;
        return status;
    }
    return HW_OK;
}

static enum hw_status open_core(struct hw_shim *shim, const char *path, const struct hw_uri *uri,
                                struct hw_core **out, struct hw_error *err)
{
    char *dir = NULL;
    uint64_t limit = 0;
    enum hw_status status = log_directory(shim, path, uri, &dir, err);

    if (status == HW_OK)
        status = read_limit(shim->env, dir, &limit, err);
    if (status == HW_OK)
        status = hw_core_open(shim->env, dir, HW_CORE_READ, limit, out, err);
    hw_free(dir);
    return status;
}

int hw_past_file_open(struct hw_shim *shim, const char *path, const struct hw_uri *uri,
                      struct hw_cache *cache, sqlite3_file *sqlite_file, int *out_flags)
{
    struct past_file *file = past(sqlite_file);
    struct hw_error error = {0};
    enum hw_status status;

    *file = (struct past_file){
        .shim = shim, .path = path, .cache = cache, .generation = hw_shim_generation()};
    if (cache != NULL) {
        status = shim->remotes->log(cache, &file->core, &file->handle, &error);
    } else {
        status = uri->memory ? join_memory(file, &error) : HW_OK;
        if (status == HW_OK)
            status = open_core(shim, file->place == NULL ? path : hw_memory_filename(file->place),
                               uri, &file->core, &error);
    }
    if (status == HW_OK)
        status = hw_past_open(shim->env, file->core, &uri->target, &file->past, &error);
    if (status == HW_OK) {
        file->state = hw_past_state(file->past);
        file->page = hw_alloc(file->state.page_size);
        if (file->page == NULL)
            status = hw_fail(&error, HW_ENOMEM, "no memory for a page");
    }
    if (status != HW_OK) {
        past_release(file);
        hw_shim_tell(path, SQLITE_CANTOPEN, &error);
        return status == HW_ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
    }
    file->file.pMethods = &methods;
    if (out_flags != NULL)
        *out_flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB;
    return SQLITE_OK;
}
