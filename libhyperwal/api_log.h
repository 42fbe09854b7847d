/*
 * api_log.h - what the files that implement hyperwal_log_* and hyperwal_follow_* share
 *
 * A log is read up to the durable length that its writer published.  Where nobody published one
 * since the machine started (no shared page, or one that says nothing yet and names no worker),
 * every complete batch counts: the writer syncs what it finds before it goes on.
 */
#ifndef HW_API_LOG_H
#define HW_API_LOG_H

#include <stdbool.h>

#include "apply/apply.h"
#include "env/peer_table.h"
#include "env/shared_page.h"
#include "hypercore/hypercore.h"
#include "hyperwal.h"

struct hw_api_remote;
struct hw_api_remote_options;
struct hyperwal_log {
    struct hw_env *env;
    char *dir;                    /* owned */
    struct hw_core *core;         /* owned */
    struct hw_shared_page *page;  /* owned; NULL: nobody made it yet */
    struct hw_api_remote *remote; /* owned; NULL: `dir` is all there is */
    struct hw_peer_table *peers;  /* owned; NULL: not looked at yet */
    bool is_mirror;               /* of somebody else's log */
    bool is_deaf;                 /* the page is our own memory: the directory may not be written */
    struct hw_error err;          /* of the last call that failed */
};

/* The VFS that reads and writes plain files, even where ours is the default one. */
sqlite3_vfs *hw_api_base_vfs(void);

/* SQLite's result code for a status; the two codes of our own for what is corrupt and not there. */
int hw_api_code(enum hw_status status);

/* Remember the failure of a call on `log`, if it is one, and give its code. */
int hw_api_log_result(struct hyperwal_log *log, enum hw_status status, const struct hw_error *err);

/* A copy of the message of `err` for the caller of an open function; `error` may be NULL. */
void hw_api_tell(char **error, const struct hw_error *err);

/* `path`, from hw_format(), or what it is a symbolic link to: a log is beside the file itself. */
enum hw_status hw_api_real_path(struct hw_env *env, const char *path, char **out,
                                struct hw_error *err) HW_MUST_CHECK;

/* The directory with the log that a local SRC names, from hw_format(). */
enum hw_status hw_api_log_dir(struct hw_env *env, const char *src, char **out,
                              struct hw_error *err) HW_MUST_CHECK;
/* Is there a file `dir`/`name`?  One that cannot be seen is a failure, and not a "no". */
enum hw_status hw_api_has_file(struct hw_env *env, const char *dir, const char *name, bool *out,
                               struct hw_error *err) HW_MUST_CHECK;

/*
 * Open the log in `dir` (moved), filled by `remote` (moved; NULL: a local one).
 */
enum hw_status hw_api_log_attach(char *dir, struct hw_api_remote *remote, struct hyperwal_log **out,
                                 struct hw_error *err) HW_MUST_CHECK;

/* hyperwal_log_open() with a status. */
enum hw_status hw_api_log_open(const char *src, struct hyperwal_log **out,
                               struct hw_error *err) HW_MUST_CHECK;

/* Open a log that is served elsewhere, through a mirror of it as `options` say. */
enum hw_status hw_api_log_open_remote(const struct hw_api_remote_options *options,
                                      struct hyperwal_log **out,
                                      struct hw_error *err) HW_MUST_CHECK;

/* Learn what was appended and published since. */
enum hw_status hw_api_log_refresh(struct hyperwal_log *log, struct hw_error *err) HW_MUST_CHECK;

/*
 * Make sure that there is a page to wait on: the shared one, made if it is missing, or one of our
 * own (is_deaf) where the directory may not be written; that one is never woken by the writer.  A
 * shared one that cannot be had for another reason is a failure: it says how far may be read.
 */
enum hw_status hw_api_log_listen(struct hyperwal_log *log, struct hw_error *err) HW_MUST_CHECK;

/* The first block of the newest complete snapshot's index; UINT64_MAX: there is none. */
enum hw_status hw_api_log_snapshot(struct hyperwal_log *log, uint64_t *seq,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
