/*
 * vfs/shim.h - inside the shim: its objects and who knows whom
 *
 *   hw_shim              one registered VFS
 *     └ hw_shim_database     one database file in this process, in a list by path
 *         ├ hw_capture           its capture, if it is a primary
 *         ├ hw_shim_listen       each listen=URL that it is served at
 *         └ hw_shim_file         each open MAIN_DB of it; the base's file follows in memory
 *              └ hw_shim_file        the WAL of the same connection
 *
 * A hw_shim_file belongs to its connection, which serializes calls.  The list of databases, their
 * reference counts and lists of files are guarded by one mutex, never held across a call to the
 * base VFS or to capture.
 *
 * POSIX locks: nothing here opens the database file or its -shm but through the base VFS, which
 * keeps a closed descriptor open while the process holds a lock of that file.
 */
#ifndef HW_VFS_SHIM_H
#define HW_VFS_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "capture/capture.h"
#include "env/env.h"
#include "vfs/layer.h"
#include "vfs/memory.h"
#include "vfs/uri.h"
#include "vfs/vfs.h"

struct hw_shim {
    sqlite3_vfs vfs;      /* first: what SQLite holds */
    char magic[16];       /* second: tells a shim of another copy of this library */
    sqlite3_vfs *base;    /* borrowed for ever */
    struct hw_shim *next; /* of the grounds */
    struct hw_env *env;
    const struct hw_vfs_listener *listener; /* borrowed for ever; or NULL */
    const struct hw_vfs_remotes *remotes;   /* likewise */
    struct hw_shim *cache;                  /* owned: the VFS of files with holes; or NULL */
    bool threaded;
    char name[64];
};

struct hw_shim_file;

struct hw_shim_database {
    struct hw_shim_database *next; /* in the list */
    struct hw_shim_file *files;    /* those of role PRIMARY; borrowed */
    struct hw_shim *shim;
    char *path;                    /* as the base VFS made it; owned */
    char *memory_name;             /* owned: what the user calls a database in memory; else NULL */
    struct hw_memory_place *place; /* owned: that holds its files; NULL: not in memory */
    unsigned references;           /* files that hold it ... */
    unsigned guests;               /* ... and those of them that are not the application's */
    struct hw_file *claim;      /* locked: no other copy of SQLite in this process has the file */
    char *claim_path;           /* owned */
    struct hw_capture *capture; /* one reference; NULL while there is none */
    struct hw_shim_listen *listens; /* owned; changed with the mutex of listen.c held as well */
};

enum hw_shim_role {
    HW_SHIM_PLAIN,   /* nothing is captured: read-only, immutable, no locks */
    HW_SHIM_PRIMARY, /* commits go to the log */
    HW_SHIM_REPLICA, /* somebody else writes it */
    HW_SHIM_WAL,     /* the WAL of a primary */
    HW_SHIM_REMOTE,  /* the cache of a database elsewhere */
    HW_SHIM_REMOTE_WAL,
};

struct hw_shim_file {
    struct hw_layer layer; /* first */
    struct hw_shim *shim;
    struct hw_shim_database *database; /* one reference, or NULL */
    struct hw_capture *capture;        /* borrowed from `database`; NULL: no primary */
    const char *path;                  /* SQLite's or the place's, lives until xClose */
    enum hw_shim_role role;
    unsigned generation; /* of the process: a child after fork has another one */
    bool fork_told;      /* the log line about that is out */
    bool is_guest;       /* a connection of ours: hw_vfs_guest_open() */

    /* Locks that this connection holds. */
    int lock;               /* SQLITE_LOCK_... of the database file */
    uint16_t shm_shared;    /* a bit for each slot */
    uint16_t shm_exclusive; /* likewise */

    /* A primary's connection. */
    struct hw_shim_file *next; /* database->files */
    const char *wal_name;      /* the very pointer that this connection opens its WAL with */
    bool ready;                /* capture knows that the WAL is recovered */
    bool shm_mapped;           /* SQLite asked for the wal-index */
    bool shm_leaving;          /* it gave it back; capture is told when EXCLUSIVE ends */
    bool needs_wal;            /* the file may not be in WAL mode: look when nothing is locked */
    bool exclusive_entered;    /* capture knows of exclusive locking mode */
    bool exclusive_wanted;     /* the last PRAGMA locking_mode said exclusive */
    bool is_alone;             /* entered, with EXCLUSIVE: capture knows that, too */
    bool alone_wrote;          /* and wrote into the WAL since */
    bool just_committed;       /* nothing happened since its last commit */
    bool frames_alone;         /* WAL frames were written without shm locks since the last commit */
    uint64_t commit_offset;   /* where in the WAL a commit frame is that SQLite told not of; or 0 */
    bool checkpoint_wrote;    /* since the last hw_capture_checkpointed() */
    bool checkpoint_due;      /* commits were not confirmed, so SQLite's own did not run */
    bool wal_deleted;         /* capture was told, and no WAL was begun since */
    bool checkpoint_refused;  /* door 2 failed: the next xFileSize fails */
    struct hw_gate_pass door; /* while it holds the locks of a restart */
    struct hw_capture_target target; /* of its last commit, if one has to wait */
    enum hw_durability durability;
    unsigned replicas; /* that confirm */
    uint64_t timeout_ms;
    bool continue_on_timeout;

    bool shared_cache; /* the file serves several connections */
    sqlite3 *db;       /* borrowed, NULL if unknown or not the only one */
    int (*busy)(void *ctx);
    void *busy_ctx;

    /* A remote database. */
    struct hw_cache *cache;      /* one reference; NULL: of this machine */
    const char *cache_name;      /* owned: of sqlite3_create_filename(), for the file below */
    struct hw_shim_write *write; /* owned; NULL: it does not write just now */
    bool is_writable;            /* opened so */
    struct hw_origin last_write; /* of the last transaction that was sent; zeros: none */

    /* A WAL. */
    struct hw_shim_file *main; /* of the same connection; borrowed, outlives it; or NULL */
    uint8_t wal_salts[8];      /* of the last frame header written */
    uint64_t wal_end;          /* bytes up to which this connection wrote frames of that round; */
                               /* with a commit: not what it had undone before behind it */
};

static inline struct hw_shim_file *hw_shim_file(sqlite3_file *file)
{
    return (struct hw_shim_file *)file;
}

static inline struct hw_shim *hw_shim(sqlite3_vfs *vfs)
{
    return (struct hw_shim *)vfs;
}

/* ------------------------------------------------------------------------------ shim.c */

/* Say it to sqlite3_log and to the thread's last error. */
void hw_shim_tell(const char *path, int code, const struct hw_error *error);
/* Tell why an open failed, and give its code. */
int hw_shim_open_failed(const char *name, enum hw_status status, const struct hw_error *error);
/* Is this a file from before a fork?  Tells it once. */
bool hw_shim_is_forked(struct hw_shim_file *file);

/* Around a fork: nobody is in the middle of a registration, which waits for SQLite's mutexes. */
void hw_shim_registration_lock(void);
void hw_shim_registration_unlock(void);

/* ---------------------------------------------------------------------------- ground.c */

unsigned hw_shim_generation(void); /* changes in a child after fork */
void hw_shim_watch_forks(void);    /* from the first call on */
/* xOpen of a VFS that is a hw_shim, and the size of its files. */
int hw_ground_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                   int *out_flags);
int hw_ground_file_size(const sqlite3_vfs *base);

/* -------------------------------------------------------------------------- database.c */

/*
 * file->database becomes that of `path`, made if it is not in the list.  HW_EBUSY: another copy of
 * SQLite in this process has it open; HW_EMISUSE: this process has it in memory.
 */
enum hw_status hw_shim_database_open(struct hw_shim_file *file, const char *path,
                                     struct hw_error *err) HW_MUST_CHECK;
/*
 * The same of the database in memory that the user calls `name`; file->path becomes its path, which
 * is one of memory.h.  Also what hw_memory_join() answers.
 */
enum hw_status hw_shim_database_open_memory(struct hw_shim_file *file, const char *name,
                                            bool create, struct hw_error *err) HW_MUST_CHECK;
/*
 * SQLite's name of a journal or a WAL becomes that of the file: another one for a database in
 * memory that this process has open, else the same.  Borrowed as long as that is open.
 */
const char *hw_shim_database_file_name(struct hw_shim *shim, const char *name);
/* Open its capture, or take part in it. */
enum hw_status hw_shim_database_capture(struct hw_shim_database *database, const struct hw_uri *uri,
                                        struct hw_error *err) HW_MUST_CHECK;
/* `file` is a connection of a primary. */
void hw_shim_database_join(struct hw_shim_database *database, struct hw_shim_file *file);
/* The connection that opens its WAL by this very pointer, or NULL. */
struct hw_shim_file *hw_shim_database_of_wal(struct hw_shim *shim, const char *wal_name);
/* Around a fork: the list stands still.  The child must not hold its parent's claims, and its
 * parent's databases are none of its own. */
void hw_shim_database_before_fork(void);
void hw_shim_database_forked(bool in_child);
/* Drop the reference of `file`, and leave the list of files. */
void hw_shim_database_leave(struct hw_shim_file *file);
/* SQLite deletes a WAL; of a wal-index on the heap nothing else tells that. */
void hw_shim_database_wal_deleted(struct hw_shim *shim, const char *wal_name);

/* Put `listen` in front of those of the database, whose first becomes *next.  listen.c holds its
 * mutex. */
void hw_shim_database_add_listen(struct hw_shim_database *database, struct hw_shim_listen *listen,
                                 struct hw_shim_listen **next);

/* ----------------------------------------------------------------------------- guest.c */

bool hw_shim_opens_guest(void); /* this thread opens one */
void hw_shim_guest_prepare_fork(void);
void hw_shim_guest_forked(bool is_child);

/* ---------------------------------------------------------------------------- listen.c */

/*
 * Serve the database, which has a capture, as `uri` says until the application's last connection of
 * it closes; a second call with the same URL does nothing.
 */
enum hw_status hw_shim_listen(struct hw_shim_database *database, const struct hw_uri *uri,
                              struct hw_error *err) HW_MUST_CHECK;
/* Call `each` with each address that the database is served at. */
void hw_shim_listen_each(struct hw_shim_database *database,
                         void (*each)(void *ctx, const char *address), void *ctx);
/* All with the lock, which comes before that of the list of databases. */
void hw_shim_listen_rest(struct hw_shim_database *database, bool rests);
void hw_shim_listen_stop(struct hw_shim *shim, struct hw_shim_listen *listens);
void hw_shim_listen_lock(void);
void hw_shim_listen_unlock(void);
void hw_shim_listen_forked(void); /* in a child: the lock is free, and nothing is served */

/* ------------------------------------------------------------------------------ file.c */

/* The methods of a file whose file below is open. */
void hw_shim_file_wrap(struct hw_shim_file *file);

/* ------------------------------------------------------------------------------ lock.c */

int hw_shim_file_lock(sqlite3_file *file, int level);
int hw_shim_file_unlock(sqlite3_file *file, int level);
int hw_shim_file_shm_map(sqlite3_file *file, int region, int size, int extend,
                         void volatile **memory);
int hw_shim_file_shm_lock(sqlite3_file *file, int first, int count, int flags);
int hw_shim_file_shm_unmap(sqlite3_file *file, int delete_flag);
/* Capture lets go of the wal-index, if it was not told yet: before SHARED is given back. */
void hw_shim_shm_left(struct hw_shim_file *file);
/* The checkpoint that door 2 let in is over, if there was one. */
void hw_shim_checkpoint_end(struct hw_shim_file *file);
/* SQLite is about to delete the WAL, with EXCLUSIVE held. */
void hw_shim_wal_deleted(struct hw_shim_file *file);
/* PRAGMA locking_mode = exclusive (or normal): HW_EBUSY, HW_EMISUSE. */
enum hw_status hw_shim_exclusive(struct hw_shim_file *file, bool wanted,
                                 struct hw_error *err) HW_MUST_CHECK;
/* The connection is closed: capture need not think of its locking mode any more. */
void hw_shim_exclusive_leave(struct hw_shim_file *file);
/* Bytes are about to be written into `wal`; SQLITE_IOERR_WRITE: not in this state. */
int hw_shim_wal_write(struct hw_shim_file *wal, const uint8_t *bytes, int size, int64_t offset);
void hw_shim_wal_synced(struct hw_shim_file *wal);
/* Writing or syncing it failed: SQLite takes the transaction back. */
void hw_shim_wal_failed(struct hw_shim_file *wal);
/* Did a connection without shm write a commit frame, and nobody knows whether it counts? */
bool hw_shim_is_untold(const struct hw_shim_file *file);

/* --------------------------------------------------------------------------- control.c */

int hw_shim_file_control(sqlite3_file *file, int op, void *argument);

/* ---------------------------------------------------------------------------- pragma.c */

/* FCNTL_PRAGMA; SQLITE_NOTFOUND: not ours. */
int hw_shim_pragma(struct hw_shim_file *file, char **arguments);

/* --------------------------------------------------------------------------- request.c */

/* HW_FCNTL_REQUEST. */
int hw_shim_request(struct hw_shim_file *file, struct hw_vfs_request *request);

/* -------------------------------------------------------------------------- internal.c */

enum hw_header_state {
    HW_HEADER_EMPTY,
    HW_HEADER_WAL,
    HW_HEADER_OTHER,
    HW_HEADER_UNKNOWN, /* it cannot be read: SQLite will say so when it tries */
};
/* What the header of the file says, without a lock: a hint. */
enum hw_header_state hw_internal_header(struct hw_shim_file *file);
/*
 * Put the database into WAL mode by a short-lived connection of the base VFS.  HW_EBUSY: somebody
 * uses it, try again later.
 */
enum hw_status hw_internal_switch(struct hw_shim_file *file, struct hw_error *err) HW_MUST_CHECK;
/*
 * Begin to read through the shim, so that the WAL is recovered and capture is ready as long as
 * *out, the caller's to close, is open.  HW_EBUSY: somebody had all of it locked for timeout_ms.
 */
enum hw_status hw_internal_read(struct hw_shim_file *file, uint64_t timeout_ms, sqlite3 **out,
                                struct hw_error *err) HW_MUST_CHECK;

/* A passive checkpoint through the shim; what it cannot do is left to the next one. */
void hw_internal_checkpoint(struct hw_shim_file *file);

/* ------------------------------------------------------------------------------ remote.c */

/* Is it the name of a database elsewhere? */
bool hw_shim_is_remote(const struct hw_shim *shim, const char *name);
/*
 * Open it as `file`, whose fields shim_open() has filled.  SQLITE_CANTOPEN with words, and the file
 * without methods.
 */
int hw_shim_remote_open(struct hw_shim *shim, const char *name, struct hw_shim_file *file,
                        int flags, int *out_flags);
/* xFullPathname of such a name. */
int hw_shim_remote_full_pathname(struct hw_shim *shim, const char *name, int size, char *out);
/* The WAL of such a connection. */
int hw_shim_remote_open_wal(struct hw_shim *shim, struct hw_shim_file *file,
                            struct hw_shim_file *main, int flags, int *out_flags);
/* xAccess of a name that begins like the database's: of its journal or WAL. */
int hw_shim_remote_access(struct hw_shim *shim, const char *name, int flags, int *out);
void hw_shim_remote_close(struct hw_shim_file *file); /* after the file below */
/* --------------------------------------------------------------------------- lazy_file.c */

/* xOpen of the VFS of files with holes, which is a struct hw_shim without capture. */
int hw_lazy_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags);
int hw_lazy_file_size(const sqlite3_vfs *base); /* bytes of sqlite3_file that it needs */
void hw_vfs_lazy_forked(void);                  /* in a child: the list is empty */

/* ------------------------------------------------------------------------- past_file.c */

/*
 * Open the state that `uri` names as an immutable file: of the log of `path`, or of `cache` (moved;
 * NULL: none).  Fills *file, or leaves pMethods NULL.
 */
int hw_past_file_open(struct hw_shim *shim, const char *path, const struct hw_uri *uri,
                      struct hw_cache *cache, sqlite3_file *file, int *out_flags);
int hw_past_file_size(void); /* bytes of sqlite3_file that it needs */

/* ------------------------------------------------------------------------ remote_write.c */

/* A connection of a remote database takes the wal-index's WRITE lock, or gives it back. */
int hw_shim_remote_write_lock(struct hw_shim_file *file);
int hw_shim_remote_write_unlock(struct hw_shim_file *file);
/* It writes into the WAL: where that is the commit, the server decides. */
/*
 * The code for SQLite of a call of the cache that ended with `code`: after the server's yes a
 * failure is HW_VFS_UNKNOWN, for it does not undo what the server has.
 */
int hw_shim_remote_passed(struct hw_shim_file *main, int code);
int hw_shim_remote_wal_write(struct hw_shim_file *wal, const uint8_t *bytes, int size,
                             int64_t offset);
/* PRAGMA hyperwal_transaction: `text` names one, NULL: the last of this connection. */
int hw_shim_remote_outcome(struct hw_shim_file *file, const char *text, char **out);

/* ----------------------------------------------------------------------- replica_file.c */

/* Is there PATH-hyper/replica?  A primary would make a log of its own there: a doubt is no "no". */
enum hw_status hw_shim_is_replica(struct hw_shim *shim, const char *path, bool *out,
                                  struct hw_error *err) HW_MUST_CHECK;
/* Last seq applied; UINT64_MAX: none. */
enum hw_status hw_shim_replica_seq(struct hw_shim_file *file, uint64_t *seq,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Until `seq` is applied; HW_ETIMEOUT. */
enum hw_status hw_shim_replica_wait(struct hw_shim_file *file, uint64_t seq, uint64_t timeout_ms,
                                    struct hw_error *err) HW_MUST_CHECK;

#endif
