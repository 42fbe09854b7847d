/*
 * The loadable extension: registers the VFS in the SQLite of the program that loads it.
 *
 *     sqlite3 -cmd '.load hyperwal' ...         or sqlite3_load_extension(db, "hyperwal", ...)
 *
 * It stays loaded when the connection that loaded it closes, since the VFS does.  With
 * HYPERWAL_DEFAULT=1 in the environment the VFS becomes the default one, for clients that can
 * choose none.  With HYPERWAL_LOG=stderr events, and the words behind error codes, are written to
 * standard error, for programs that cannot ask SQLite for its log.
 */
#include "base/sqlite.h"

#undef SQLITE_EXTENSION_INIT3
#define SQLITE_EXTENSION_INIT3
SQLITE_EXTENSION_INIT1

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env/env.h"
#include "node/cache.h"
#include "node/hub.h"
#include "vfs/vfs.h"

#define ENTRY_POINT __attribute__((visibility("default")))

enum { OLDEST_SQLITE = 3032000 }; /* the first with every call of sqlite3ext.h that is used here */

ENTRY_POINT int sqlite3_hyperwal_init(sqlite3 *db, char **message, const sqlite3_api_routines *api);
ENTRY_POINT int sqlite3_extension_init(sqlite3 *db, char **message,
                                       const sqlite3_api_routines *api);

static void event_line(void *ctx, enum hw_log_level level, const char *line)
{
    (void)ctx;
    if (level >= HW_LOG_INFO)
        fprintf(stderr, "hyperwal: %s\n", line);
}

static void words_line(const char *path, const char *words)
{
    fprintf(stderr, "hyperwal: %s: %s\n", path, words);
}

/* NULL: fine. */
static const char *set_log(void)
{
    const char *wanted = getenv("HYPERWAL_LOG");

    if (wanted == NULL || wanted[0] == '\0')
        return NULL;
    if (strcmp(wanted, "stderr") != 0)
        return "HYPERWAL_LOG can only be stderr";
    hw_env_posix_set_log(event_line, NULL);
    hw_vfs_set_words(words_line);
    return NULL;
}

static int init(char **message)
{
    const char *wanted = getenv("HYPERWAL_DEFAULT");
    struct hw_vfs_options options = {
        .env = hw_env_posix(),
        .threaded = hw_sqlite_has_threads(),
        .make_default = wanted != NULL && strcmp(wanted, "1") == 0,
        .listener = hw_hub_listener(),
        .remotes = hw_cache_remotes(),
    };
    struct hw_error error = {0};
    const char *wrong = set_log();

    if (wrong != NULL) {
        *message = sqlite3_mprintf("hyperwal: %s", wrong);
        return SQLITE_ERROR;
    }
    if (sqlite3_libversion_number() < OLDEST_SQLITE) {
        *message = sqlite3_mprintf("hyperwal needs SQLite 3.32 or later, this is %s",
                                   sqlite3_libversion());
        return SQLITE_ERROR;
    }
    if (hw_vfs_register(&options, &error) != HW_OK) {
        *message = sqlite3_mprintf("hyperwal: %s", error.message);
        return SQLITE_ERROR;
    }
    return SQLITE_OK_LOAD_PERMANENTLY;
}

int sqlite3_hyperwal_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    (void)db;
    /* One copy of this library serves one copy of SQLite: its calls go through one table. */
    if (sqlite3_api != NULL && sqlite3_api != api) {
        *message = api->mprintf("hyperwal is in use by another copy of SQLite in this process");
        return SQLITE_ERROR;
    }
    SQLITE_EXTENSION_INIT2(api)
    return init(message);
}

/* What SQLite looks for when the file has another name. */
int sqlite3_extension_init(sqlite3 *db, char **message, const sqlite3_api_routines *api)
{
    return sqlite3_hyperwal_init(db, message, api);
}
