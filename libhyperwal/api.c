/* Implements the databases' part of include/hyperwal.h. */
#include "hyperwal.h"

#include <stdatomic.h>
#include <string.h>

#include "capture/capture.h"
#include "env/env.h"
#include "env/thread.h"
#include "node/cache.h"
#include "node/hub.h"
#include "vfs/vfs.h"

_Static_assert(HYPERWAL_UNCONFIRMED == HW_VFS_UNCONFIRMED, "one code, two names");
_Static_assert(HYPERWAL_CORRUPT == HW_VFS_CORRUPT, "one code, two names");
_Static_assert(HYPERWAL_NOTARGET == HW_VFS_NOTARGET, "one code, two names");
_Static_assert(HYPERWAL_UNKNOWN == HW_VFS_UNKNOWN, "one code, two names");

enum { BUSY_TIMEOUT_MS = 5000, REQUEST_TIMEOUT_MS = 10000, LONG_TIMEOUT_MS = 3600000 };

const char *hyperwal_version(void)
{
    return HW_VERSION;
}

int hyperwal_register(unsigned flags)
{
    struct hw_vfs_options options = {
        .env = hw_env_posix(),
        .threaded = hw_sqlite_has_threads(),
        .make_default = (flags & HYPERWAL_DEFAULT_VFS) != 0,
        .listener = hw_hub_listener(),
        .remotes = hw_cache_remotes(),
    };
    struct hw_error error = {0};
    enum hw_status status;

    if ((flags & ~(unsigned)HYPERWAL_DEFAULT_VFS) != 0)
        return SQLITE_MISUSE;
    status = hw_vfs_register(&options, &error);
    if (status != HW_OK)
        sqlite3_log(hw_vfs_code(status), "hyperwal: %s", error.message);
    return hw_vfs_code(status);
}

static struct hw_mutex log_mutex = HW_MUTEX_INIT; /* one hyperwal_set_log() at a time */
static struct {
    void (*line)(void *ctx, int level, const char *line);
    void *ctx;
} user_sink;

static void log_line(void *ctx, enum hw_log_level level, const char *line)
{
    (void)ctx;
    user_sink.line(user_sink.ctx, (int)level, line);
}

void hyperwal_set_log(void (*sink)(void *ctx, int level, const char *line), void *ctx)
{
    hw_mutex_lock(&log_mutex);
    hw_env_posix_set_log(NULL, NULL); /* nobody looks at user_sink now */
    user_sink.line = sink;
    user_sink.ctx = ctx;
    if (sink != NULL)
        hw_env_posix_set_log(log_line, NULL);
    hw_mutex_unlock(&log_mutex);
}

int hyperwal_open(const char *path, int sqlite_flags, sqlite3 **db, char **error)
{
    int flags = sqlite_flags == 0 ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : sqlite_flags;
    char words[480] = "";
    int code = hyperwal_register(0);

    *db = NULL;
    if (error != NULL)
        *error = NULL;
    if (code == SQLITE_OK)
        code = sqlite3_open_v2(path, db, flags | SQLITE_OPEN_URI, "hyperwal");
    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(*db, BUSY_TIMEOUT_MS);
    if (code == SQLITE_OK)
        return SQLITE_OK;
    if (*db != NULL && sqlite3_extended_errcode(*db) != SQLITE_OK)
        code = sqlite3_extended_errcode(*db);
    if ((code & 0xff) == SQLITE_CANTOPEN && hw_vfs_last_was_corrupt())
        code = HYPERWAL_CORRUPT;
    strncpy(words, hw_vfs_last_error(), sizeof(words) - 1);
    if (error != NULL)
        *error = sqlite3_mprintf("%s: %s%s%s", path,
                                 *db == NULL ? sqlite3_errstr(code) : sqlite3_errmsg(*db),
                                 words[0] == '\0' ? "" : ": ", words);
    (void)sqlite3_close_v2(*db); /* nothing was prepared on it */
    *db = NULL;
    return code;
}

/* ----------------------------------------------------------------------- one database */

static int ask(sqlite3 *db, const char *schema, struct hw_vfs_request *request)
{
    int code = sqlite3_file_control(db, schema, (int)HW_FCNTL_REQUEST, request);

    if (code == SQLITE_NOTFOUND)
        return SQLITE_MISUSE; /* not a connection of this VFS */
    if (code != SQLITE_OK && request->error.message[0] != '\0')
        sqlite3_log(code, "hyperwal: %s", request->error.message);
    return code;
}

int hyperwal_seq(sqlite3 *db, const char *schema, uint64_t *seq)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_SEQ, .timeout_ms = REQUEST_TIMEOUT_MS};
    int code = ask(db, schema, &request);

    if (code == SQLITE_OK)
        *seq = request.seq;
    return code;
}

int hyperwal_wait(sqlite3 *db, const char *schema, uint64_t seq, unsigned timeout_ms)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_WAIT, .seq = seq, .timeout_ms = timeout_ms};

    return ask(db, schema, &request);
}

int hyperwal_snapshot(sqlite3 *db, const char *schema, uint64_t *seq)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_SNAPSHOT, .timeout_ms = LONG_TIMEOUT_MS};
    int code = ask(db, schema, &request);

    if (code == SQLITE_OK && seq != NULL)
        *seq = request.seq;
    return code;
}

int hyperwal_label(sqlite3 *db, const char *schema, const char *name, uint64_t *seq)
{
    struct hw_vfs_request request = {
        .kind = HW_REQUEST_LABEL, .timeout_ms = REQUEST_TIMEOUT_MS, .label = name};
    int code;

    if (name == NULL || *name == '\0')
        return SQLITE_MISUSE;
    code = ask(db, schema, &request);
    if (code == SQLITE_OK && seq != NULL)
        *seq = request.seq;
    return code;
}

int hyperwal_prune(sqlite3 *db, const char *schema, uint64_t keep_from_seq, int dry_run,
                   uint64_t *freed)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_PRUNE,
                                     .timeout_ms = LONG_TIMEOUT_MS,
                                     .seq = keep_from_seq,
                                     .dry_run = dry_run != 0};
    int code = ask(db, schema, &request);

    if (code == SQLITE_OK && freed != NULL)
        *freed = request.freed;
    return code;
}

int hyperwal_status(sqlite3 *db, const char *schema, char **json)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_STATUS};
    int code = ask(db, schema, &request);

    if (code == SQLITE_OK)
        *json = request.text;
    return code;
}
