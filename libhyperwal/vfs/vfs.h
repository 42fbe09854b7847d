/*
 * vfs/vfs.h - the shim that SQLite calls: VFS "hyperwal" on top of another one
 *
 *     SQLite ──▶ shim ──▶ base VFS (unix)
 *                  └────▶ capture (a primary), env/shared_page.h (a replica), apply (the past)
 *
 * Only the files of kind MAIN_DB and WAL are wrapped; journals and temporary files are opened by
 * the base VFS straight into SQLite's memory.  docs/man/hyperwal-uri.7 says what users see.
 */
#ifndef HW_VFS_VFS_H
#define HW_VFS_VFS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "env/env.h"

/*
 * How a database opened with listen=URL is served from within the process: a layer above knows.
 * `dir` is the directory of its log, which may be made only later.
 */
struct hw_vfs_listener {
    enum hw_status (*start)(const char *url, const char *name, const char *dir, void **handle,
                            struct hw_error *err);
    void (*stop)(void *handle);
    /* Where it is found, with the port that was taken; borrowed as long as the handle. */
    const char *(*address)(const void *handle);
};

struct hw_vfs_options {
    const char *name;  /* NULL: "hyperwal"; copied */
    sqlite3_vfs *base; /* NULL: the default VFS found now; borrowed for ever */
    struct hw_env *env;
    bool threaded; /* captures get a thread; false: steps run inside the calls (tests) */
    bool make_default;
    const struct hw_vfs_listener *listener; /* borrowed for ever; NULL: listen= is refused */
};

/*
 * Register; a name that is registered by us already is left as it is (HW_OK), but made the default
 * if that is asked for.  HW_EEXIST: the name belongs to another VFS.
 */
enum hw_status hw_vfs_register(const struct hw_vfs_options *options,
                               struct hw_error *err) HW_MUST_CHECK;
/* Take back a registration of ours and free it; no connection may be open.  For tests. */
void hw_vfs_unregister(const char *name);

/* SQLite's result code for a status: vague nowhere. */
int hw_vfs_code(enum hw_status status);

/* The words of the last failed open of this thread, "" if there was none. */
const char *hw_vfs_last_error(void);
/* Did that open fail because the log is damaged?  xOpen may only say SQLITE_CANTOPEN. */
bool hw_vfs_last_was_corrupt(void);

/* Result codes of our own, as include/hyperwal.h names them for users. */
enum {
    HW_VFS_UNCONFIRMED = SQLITE_ERROR | 200 << 8,
    HW_VFS_CORRUPT = SQLITE_CORRUPT | 200 << 8,
    HW_VFS_NOTARGET = SQLITE_NOTFOUND | 200 << 8,
};

/* File controls of our own, for api.c: the PRAGMAs answer the same. */
enum {
    HW_FCNTL_CAPTURE = 0x48570001, /* void *: struct hw_capture **, NULL for a replica */
    HW_FCNTL_REQUEST = 0x48570002, /* void *: struct hw_vfs_request */
};

/* What a user asks of one open database. */
struct hw_vfs_request {
    enum {
        HW_REQUEST_SEQ,      /* -> seq; waits for what this connection committed */
        HW_REQUEST_WAIT,     /* seq -> returns when a replica applied it */
        HW_REQUEST_SNAPSHOT, /* -> seq */
        HW_REQUEST_LABEL,    /* label -> seq */
        HW_REQUEST_PRUNE,    /* seq, dry_run -> freed */
        HW_REQUEST_STATUS,   /* -> text */
        HW_REQUEST_KEY,      /* -> text */
    } kind;
    uint64_t seq;
    uint64_t timeout_ms;
    const char *label; /* borrowed */
    bool dry_run;
    uint64_t freed;        /* bytes */
    char *text;            /* of sqlite3_malloc; owned by the caller */
    struct hw_error error; /* why the file control did not return SQLITE_OK */
};

#endif
