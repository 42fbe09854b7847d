/*
 * vfs/vfs.h - the shim that SQLite calls: VFS "hyperwal" on top of another one
 *
 *     SQLite ──▶ shim ──▶ ground ──▶ base VFS (unix)
 *                  └────▶ capture (a primary), env/shared_page.h (a replica), apply (the past)
 *
 * Only the files of kind MAIN_DB and WAL are wrapped; journals and temporary files are opened by
 * the base VFS straight into SQLite's memory.  docs/man/hyperwal-uri.7 says what users see.
 */
#ifndef HW_VFS_VFS_H
#define HW_VFS_VFS_H

#include <stdbool.h>
#include <stdint.h>

#include "apply/lazy.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/origin.h"
#include "base/sqlite.h"
#include "env/env.h"
#include "env/thread.h"

/* A database that is opened with listen=URL; all borrowed for the call. */
struct hw_vfs_served {
    const char *url, *name;
    const char *dir;    /* of its log, which may be made only later */
    const char *path;   /* of the database ... */
    const char *vfs;    /* ... and the VFS through which it is written */
    const char *access; /* rules that say who may write; NULL: nobody writes from afar */
};

/* How it is served from within the process: a layer above knows. */
struct hw_vfs_listener {
    enum hw_status (*start)(const struct hw_vfs_served *served, void **handle,
                            struct hw_error *err);
    /*
     * True: who writes from afar is put off; when this returns no connection for them is open.
     * False: they may come again.
     */
    void (*rest)(void *handle, bool rests);
    void (*stop)(void *handle);
    /* Where it is found, with the port that was taken; borrowed as long as the handle. */
    const char *(*address)(const void *handle);
    void (*forked)(void); /* in a child: everything belongs to the parent; may be NULL */
};

/* ------------------------------------------- connections in the application's process */

/*
 * A connection of our own in a process whose application has the database open is a guest: the
 * database is served as long as the application has it open, whatever guests there are.
 */
int hw_vfs_guest_open(const char *uri, sqlite3 **db, int flags, const char *vfs);
/*
 * A guest's thread is between the two whenever it is in SQLite or holds a lock: a fork waits until
 * it is not, and keeps it out meanwhile.  Else the child would find SQLite's mutexes and the locks
 * of a database held by nobody that is there.
 */
void hw_vfs_guest_enter(void);
void hw_vfs_guest_leave(void);

/* ------------------------------------------------------------------- databases elsewhere */

/*
 * A database file with holes that this process has open.  While it is attached, whoever opens
 * `path` through the VFS `cache` (below) reads and writes it through the map; others must not.
 */
struct hw_vfs_lazy {
    struct hw_vfs_lazy *next; /* the list's */
    const char *path;         /* borrowed while attached, as what follows */
    struct hw_lazy_map *map;
    struct hw_mutex filling; /* guards: a page is written and marked, or filled and marked */
    /* Until the page is there.  The error says what is missing and why it does not come. */
    enum hw_status (*need)(void *ctx, uint32_t page_number, struct hw_error *err);
    void (*ring)(void *ctx); /* groups are wanted that were not before */
    void *ctx;
};
void hw_vfs_lazy_attach(struct hw_vfs_lazy *lazy);
void hw_vfs_lazy_detach(struct hw_vfs_lazy *lazy); /* no file of it is open */

struct hw_cache; /* the cache of a remote database in this process: node/cache.h */

struct hw_vfs_remote {     /* what is to be opened */
    const char *name;      /* the URL, or another name that stands for one */
    sqlite3_vfs *base;     /* for its files, borrowed for ever */
    sqlite3_vfs *cache;    /* the same, with holes filled: "hyperwal-cache" */
    uint64_t timeout_ms;   /* without anything coming */
    uint64_t cache_max;    /* of all caches; 0: as the environment says, or the default */
    bool hydrate;          /* fetch all of it in the background */
    bool past;             /* only its log is wanted */
    bool creates;          /* the server is asked to make it, if it has none of this name */
    const uint8_t *server; /* identity key of the one that is to answer; NULL: the known one */
};

struct hw_cache_status {
    uint8_t key[HW_KEY_SIZE];
    char source[512];              /* its URL */
    bool is_online;                /* a source is connected */
    char problem[256];             /* why not; "" */
    uint64_t length;               /* of the log as far as is known, blocks */
    uint64_t seq, sum;             /* what readers see; seq UINT64_MAX: nothing */
    uint32_t page_size;            /* 0: not known yet */
    uint64_t pages, pages_present; /* of the database as readers see it, and here; about now */
    uint64_t bytes_received;       /* of blocks, since the present holder began */
    uint32_t holder;               /* process id */
};

/* ------- and written */

struct hw_vfs_base {                 /* what a connection that writes builds on, or has committed */
    uint8_t log[HW_ORIGIN_LOG_SIZE]; /* of its key */
    uint64_t fence;                  /* of the lease */
    uint64_t seq;                    /* last block of the newest transaction; UINT64_MAX: none */
    uint64_t sum;
    uint32_t page_size, page_count;
};
struct hw_vfs_outgoing { /* a transaction for the server */
    struct hw_origin origin;
    uint64_t sum_before, sum_after;
    uint32_t page_count; /* of the database after it */
    uint64_t part_count;
    /* The next body of a transaction block, borrowed until the next call. */
    enum hw_status (*next)(void *ctx, struct hw_slice *body, struct hw_error *err);
    void *ctx;
};
enum hw_vfs_verdict {
    HW_VERDICT_COMMITTED,
    HW_VERDICT_LATE,    /* surely not: others were first; try again */
    HW_VERDICT_REFUSED, /* surely not: not allowed here */
    HW_VERDICT_WRONG,   /* surely not: it does not fit the server's database */
    HW_VERDICT_FAILED,  /* surely not: the server cannot */
    HW_VERDICT_UNKNOWN, /* perhaps */
};
struct hw_vfs_answer {
    enum hw_vfs_verdict verdict;
    uint64_t seq;   /* COMMITTED: the last block of its entry */
    char text[256]; /* why not */
};

/*
 * What the VFS asks of the layer that knows the network; all may be called by any thread.  `forked`
 * is told in a child: everything belongs to the parent.
 */
struct hw_vfs_remotes {
    /* Is `name` one that open() takes?  After locate() it is, if it begins like one. */
    bool (*is_remote)(const char *name);
    /*
     * What hyper:NAME or hyper:PATH means: *path (hw_free()) if that is a file of this machine,
     * NULL if it is elsewhere.
     */
    enum hw_status (*locate)(const char *name, char **path, struct hw_error *err);
    /*
     * Take part in the cache: its database can be opened when this returns.  HW_ENOTFOUND,
     * HW_EREFUSED, HW_ETIMEOUT, HW_EMISUSE: why not.
     */
    enum hw_status (*open)(const struct hw_vfs_remote *remote, struct hw_cache **out,
                           struct hw_error *err);
    void (*close)(struct hw_cache *cache);
    const char *(*path)(const struct hw_cache *cache); /* of its database file */
    void (*status)(struct hw_cache *cache, struct hw_cache_status *out);
    /* Until `seq` is visible; HW_ETIMEOUT. */
    enum hw_status (*wait)(struct hw_cache *cache, uint64_t seq, uint64_t timeout_ms,
                           struct hw_error *err);
    /* A reader of its log that fetches what it lacks; closed before the cache. */
    enum hw_status (*log)(struct hw_cache *cache, struct hw_core **out, void **handle,
                          struct hw_error *err);
    void (*log_close)(void *handle); /* and the core; NULL does nothing */
    /*
     * The server's lease, the cache at the head that it names, and the cache's WRITE lock free for
     * the calling connection.  HW_EBUSY: others write, or the server is silent for answer_ms: who
     * comes again soon keeps its place in the line; HW_EREFUSED, HW_EREADONLY: may not be;
     * HW_ETIMEOUT: nobody can be reached.
     */
    enum hw_status (*write_begin)(struct hw_cache *cache, uint64_t answer_ms,
                                  struct hw_vfs_base *out, struct hw_error *err);
    void (*commit)(struct hw_cache *cache, const struct hw_vfs_outgoing *outgoing,
                   uint64_t timeout_ms, struct hw_vfs_answer *out);
    /* The connection gave WRITE back; NULL: it committed nothing. */
    enum hw_status (*write_end)(struct hw_cache *cache, const struct hw_vfs_base *committed,
                                struct hw_error *err);
    /* What became of it?  FAILED: it was not committed, and will not be. */
    void (*outcome)(struct hw_cache *cache, const struct hw_origin *origin, uint64_t timeout_ms,
                    struct hw_vfs_answer *out);
    void (*forked)(void);
};

struct hw_vfs_options {
    const char *name;  /* NULL: "hyperwal"; copied */
    sqlite3_vfs *base; /* NULL: the ground of the default VFS found now; borrowed for ever */
    struct hw_env *env;
    bool threaded; /* captures get a thread; false: steps run inside the calls (tests) */
    bool make_default;
    const struct hw_vfs_listener *listener; /* borrowed for ever; NULL: listen= is refused */
    const struct hw_vfs_remotes *remotes;   /* likewise; NULL: names of remote databases are */
};

/*
 * Register; a name that is registered by us already is left as it is (HW_OK), but made the default
 * if that is asked for.  HW_EEXIST: the name belongs to another VFS.
 */
enum hw_status hw_vfs_register(const struct hw_vfs_options *options,
                               struct hw_error *err) HW_MUST_CHECK;
/*
 * On top of `base`, the system's: what the library opens database files through in place of it, so
 * that a forked child can open them anew.  Not registered, lives for ever, has the name of `base`.
 * NULL: no memory, or base is NULL.
 */
sqlite3_vfs *hw_vfs_ground(sqlite3_vfs *base);
/* Take back a registration of ours and free it; no connection may be open.  For tests. */
void hw_vfs_unregister(const char *name);

/* SQLite's result code for a status: vague nowhere. */
int hw_vfs_code(enum hw_status status);

/*
 * Where, beside SQLite's own log, the words of each failure go that a connection is told a mere
 * code of; NULL: nowhere.  From any thread, at the time of the failure.
 */
void hw_vfs_set_words(void (*sink)(const char *path, const char *words));
/* The words of the last failed open of this thread, "" if there was none. */
const char *hw_vfs_last_error(void);
/* Did that open fail because the log is damaged?  xOpen may only say SQLITE_CANTOPEN. */
bool hw_vfs_last_was_corrupt(void);

/* Result codes of our own, as include/hyperwal.h names them for users. */
enum {
    HW_VFS_UNCONFIRMED = SQLITE_ERROR | 200 << 8,
    HW_VFS_CORRUPT = SQLITE_CORRUPT | 200 << 8,
    HW_VFS_NOTARGET = SQLITE_NOTFOUND | 200 << 8,
    HW_VFS_UNKNOWN = SQLITE_IOERR | 201 << 8,
};

/* File controls of our own, for api.c: the PRAGMAs answer the same. */
enum {
    HW_FCNTL_CAPTURE = 0x48570001, /* void *: struct hw_capture **, NULL for a replica */
    HW_FCNTL_REQUEST = 0x48570002, /* void *: struct hw_vfs_request */
    HW_FCNTL_FILE = 0x48570003,    /* void *: the shim's own object; for files of vfs/ alone */
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

/* ------------------------------------------------------- transactions that come from afar */

/*
 * A transaction that somebody else made is committed through `db`, a connection of ours to a
 * primary that does nothing else: SQLite's own lock is held, the frames are ours.
 *
 *     hold ──▶ commit ──▶ let_go ──▶ logged
 */
struct hw_vfs_head { /* what the database is, and the log says of it */
    uint64_t length;
    uint64_t seq; /* of the last transaction; UINT64_MAX: none */
    uint64_t sum;
    uint32_t page_size, page_count;
};
/*
 * Take the write lock, by the connection's busy timeout, and wait until all that was committed is
 * in the log.  HW_EBUSY, HW_ETIMEOUT: the log did not come so far; nothing is held then.
 */
enum hw_status hw_vfs_hold(sqlite3 *db, uint64_t timeout_ms, struct hw_vfs_head *head,
                           struct hw_error *err) HW_MUST_CHECK;
void hw_vfs_let_go(sqlite3 *db);

struct hw_vfs_commit {
    struct hw_origin origin;
    uint64_t sum_before, sum_after;
    uint32_t page_count; /* of the database after it */
    /* Blocks below this one changed nothing, from the base of `origin` on; 0: nobody looked. */
    uint64_t unchanged_to;
    /* The next body of a transaction block, borrowed until the next call.  HW_END: no more. */
    enum hw_status (*next)(void *ctx, struct hw_slice *body, struct hw_error *err);
    void *ctx;
};
/*
 * While held.  HW_AGAIN: it was not made on what the database is now.  HW_ECORRUPT: it is no
 * transaction of this database.  In every case but HW_OK nobody sees anything of it; but if
 * *is_perhaps, a crash may bring it to light.
 */
enum hw_status hw_vfs_commit(sqlite3 *db, const struct hw_vfs_head *head,
                             const struct hw_vfs_commit *commit, bool *is_perhaps,
                             struct hw_error *err) HW_MUST_CHECK;
/*
 * While `db` has the write lock, wrote nothing, and all that is committed is in the log: append a
 * commit that changes nothing, in a new round if one can begin.  In any case but HW_EMISUSE, which
 * is that it has not the lock, the transaction is over then.
 */
enum hw_status hw_vfs_touch(sqlite3 *db, struct hw_error *err) HW_MUST_CHECK;
/* All that was committed when this is called is durable in the log.  HW_ETIMEOUT. */
enum hw_status hw_vfs_logged(sqlite3 *db, uint64_t timeout_ms, struct hw_error *err) HW_MUST_CHECK;

#endif
