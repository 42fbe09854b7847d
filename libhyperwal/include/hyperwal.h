/*
 * hyperwal.h - SQLite databases whose every committed transaction is an entry of a signed log
 *
 * A program registers the VFS once, opens its databases through it, and goes on using SQLite as
 * before.  Everything else here is for those who want more: read-your-writes on a replica,
 * replicas, restores, and the log itself.
 *
 *     hyperwal_register(0);
 *     hyperwal_open("app.db", 0, &db, NULL);      or sqlite3_open_v2("file:app.db?vfs=hyperwal"...)
 *     ... sqlite3_exec(db, ...) ...
 *
 * Conventions.  Functions return SQLITE_OK or an SQLite result code unless they say otherwise;
 * those that take `char **error` put a message there (free with sqlite3_free(); may be NULL).
 * Strings are UTF-8.  A seq is the index of a block of the log, from 0.  Times are milliseconds
 * since 1970 UTC.  Handles may be used by one thread at a time, different handles by different
 * threads.
 *
 * SRC, where a log is read, is the path of a database, of its log directory, hyper:PATH or
 * hyper:///full/path; a petname, or hyper:PETNAME; or the URL of a log that somebody serves:
 * hyper://HOST[:PORT]/NAME, where NAME is what the server calls it or the log's key;
 * ws://HOST:PORT/PATH/NAME; ipc://SOCKET/NAME.
 */
#ifndef HYPERWAL_H
#define HYPERWAL_H

#include <sqlite3.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HYPERWAL_API __attribute__((visibility("default")))
#else
#define HYPERWAL_API
#endif

#define HYPERWAL_SEQ_NONE UINT64_MAX /* there is no such entry */

/*
 * Extended result code of a statement whose commit stands locally but was not confirmed within
 * `timeout` (durability local, remote or remote_apply, on_timeout=error).  The connection is
 * usable, autocommit is back on.
 */
#define HYPERWAL_UNCONFIRMED (SQLITE_ERROR | (200 << 8))

/*
 * Extended result code of a commit to a remote database whose server could not be heard any more,
 * or whose cache failed after the server's answer: it is committed, or it is not.  The connection
 * is usable, the transaction is over here.  PRAGMA hyperwal_transaction gives its id, and with
 * `= 'ID'` what became of it.
 */
#define HYPERWAL_UNKNOWN (SQLITE_IOERR | (201 << 8))

/* Errors of this library alone: what a verb of the program turns into its exit codes 3 and 4. */
#define HYPERWAL_CORRUPT  (SQLITE_CORRUPT | (200 << 8))  /* verification failed or data corrupt */
#define HYPERWAL_NOTARGET (SQLITE_NOTFOUND | (200 << 8)) /* the seq, time, label does not exist */

HYPERWAL_API const char *hyperwal_version(void); /* "0.1.0" */

/* ------------------------------------------------------------------------- databases */

enum { HYPERWAL_DEFAULT_VFS = 1 };

/* Register the VFS "hyperwal" on top of the default one; again is harmless. */
HYPERWAL_API int hyperwal_register(unsigned flags);

/*
 * Where the library's event lines go ("event=worker_started ..."); level 0 debug to 3 error.  The
 * sink is called in any thread, with locks held: it must not call SQLite or this library.
 */
HYPERWAL_API void hyperwal_set_log(void (*sink)(void *ctx, int level, const char *line), void *ctx);

/*
 * Open `path` (a file name or a "file:" URI with hyperwal's parameters) for reading and writing,
 * created if it is missing, with a busy timeout of 5 s.  Close with sqlite3_close_v2().
 */
HYPERWAL_API int hyperwal_open(const char *path, int sqlite_flags, sqlite3 **db, char **error);

/*
 * The functions below take a connection opened through the VFS and the name of one of its databases
 * ("main" or NULL, or an ATTACHed one).
 */

/* seq of the last commit of this database that is in the log; waits for this connection's last. */
HYPERWAL_API int hyperwal_seq(sqlite3 *db, const char *schema, uint64_t *seq);
/* On a replica: return when `seq` is applied; SQLITE_BUSY after timeout_ms. */
HYPERWAL_API int hyperwal_wait(sqlite3 *db, const char *schema, uint64_t seq, unsigned timeout_ms);
/* Emit a snapshot, or a label, now; *seq (may be NULL) is its entry. */
HYPERWAL_API int hyperwal_snapshot(sqlite3 *db, const char *schema, uint64_t *seq);
HYPERWAL_API int hyperwal_label(sqlite3 *db, const char *schema, const char *name, uint64_t *seq);
/*
 * Give up what is not needed to restore keep_from_seq and everything after it.  *freed: bytes of
 * files; with dry_run != 0 nothing is changed.
 */
HYPERWAL_API int hyperwal_prune(sqlite3 *db, const char *schema, uint64_t keep_from_seq,
                                int dry_run, uint64_t *freed);
/*
 * Somebody who does not use the VFS may have committed: look at the WAL soon.  Costs nothing if
 * there is nothing new, and waits for nothing.
 */
HYPERWAL_API int hyperwal_look(sqlite3 *db, const char *schema);
/*
 * With held != 0 the caller promises that connections of this process keep a read transaction open
 * at any time, and end none before the log has reached the beginning of the next one.  Then a round
 * of the WAL that a program without the VFS begins needs no check.  Say so when the log has reached
 * what was committed after the first transaction began, and take it back before the last one ends.
 *
 * HYPERWAL_HELD_SINCE, said before the first read of a connection that opened the database anew in
 * this process, promises the same of the time before: a read transaction began when all before it
 * was in the log, and is open still.  Then nothing need be compared with the log, if this process
 * is the one that writes it from then on.
 */
enum { HYPERWAL_NOT_HELD, HYPERWAL_HELD, HYPERWAL_HELD_SINCE };
HYPERWAL_API int hyperwal_hold(sqlite3 *db, const char *schema, int held);

/* Who writes the log of a database. */
enum {
    HYPERWAL_LOG_NOWHERE, /* nobody just now: it cannot be written, or is being compared with the
                             database */
    HYPERWAL_LOG_HERE,    /* this process */
    HYPERWAL_LOG_ELSEWHERE,
    HYPERWAL_LOG_RELEASED, /* nobody, for so long that the WAL is not kept for it any more */
};
typedef struct hyperwal_wal {
    int log; /* HYPERWAL_LOG_... */
    unsigned page_size;
    unsigned frames;            /* committed, in this round of the WAL */
    unsigned logged_frames;     /* of these, so many are in the log */
    unsigned long long commits; /* through the VFS, since somebody has the database open */
} hyperwal_wal;
/* Where WAL and log stand now; waits for nothing. */
HYPERWAL_API int hyperwal_wal_look(sqlite3 *db, const char *schema, hyperwal_wal *wal);
/*
 * Ends a transaction of BEGIN IMMEDIATE on the main database that wrote nothing, when the log has
 * all that is committed, by a commit that changes nothing: so the WAL has a frame of its own, the
 * first of a new round if one can begin.  No writer from afar is late because of it.
 */
HYPERWAL_API int hyperwal_touch(sqlite3 *db);
/* The state as one JSON object, as `hyperwal status --json`; free with sqlite3_free(). */
HYPERWAL_API int hyperwal_status(sqlite3 *db, const char *schema, char **json);

/* ------------------------------------------------------------------------------- logs */

typedef struct hyperwal_log hyperwal_log; /* a log opened for reading */

HYPERWAL_API int hyperwal_log_open(const char *src, hyperwal_log **log, char **error);
HYPERWAL_API void hyperwal_log_close(hyperwal_log *log);
HYPERWAL_API const char *hyperwal_log_errmsg(hyperwal_log *log); /* of the last failed call */
HYPERWAL_API const char *hyperwal_log_dir(hyperwal_log *log);
HYPERWAL_API void hyperwal_log_key(hyperwal_log *log, unsigned char key[32]);

typedef struct hyperwal_head {
    unsigned char key[32], discovery_key[32];
    unsigned char tree_hash[32];
    uint64_t length, byte_length, fork;
    uint64_t first_kept;   /* blocks below are pruned, but for single ones */
    uint64_t stored_bytes; /* on disk */
    uint64_t snapshot_seq; /* newest complete snapshot; HYPERWAL_SEQ_NONE */
    uint64_t seq;          /* last transaction (or adopted state); HYPERWAL_SEQ_NONE */
    int64_t time_ms;       /* of that */
    uint32_t page_size, page_count;
    uint64_t sum;
    unsigned worker_pid; /* the process that writes the log; 0: none known */
    int has_key;         /* 0: a mirror, the secret key is not there */
    char alarm[256];     /* what is wrong at the primary; "" if nothing is */
} hyperwal_head;
/* The head as of now; picks up what was appended since. */
HYPERWAL_API int hyperwal_log_head(hyperwal_log *log, hyperwal_head *head);

typedef struct hyperwal_entry {
    uint64_t seq; /* last block */
    uint64_t blocks;
    const char *type; /* genesis transaction group snapshot label gap switch pruned */
    int64_t time_ms;
    uint32_t pages;     /* page images in it */
    uint64_t raw_bytes; /* of those images */
    uint64_t bytes;     /* of the blocks */
    uint32_t db_pages;  /* pages of the database after it; 0 where it does not say */
    uint64_t sum;       /* state sum after it */
    char text[208];     /* name of a label, reason of a gap, which log a switch names */
} hyperwal_entry;
/*
 * The entry with block *seq; *seq becomes the first block of the next.  SQLITE_DONE beyond the end.
 */
HYPERWAL_API int hyperwal_log_next(hyperwal_log *log, uint64_t *seq, hyperwal_entry *entry);

/* Wait until the log is longer than `length` blocks; SQLITE_BUSY after timeout_ms. */
HYPERWAL_API int hyperwal_log_wait(hyperwal_log *log, uint64_t length, unsigned timeout_ms);

/*
 * Who follows the log of SRC, a primary or something that is served on this machine: one follower a
 * call, *row from 0.  SQLITE_DONE: that was all.  Followers that left stay listed for a while.
 */
typedef struct hyperwal_peer {
    unsigned char key[32]; /* its identity */
    char address[64];
    int is_connected;
    uint64_t length;                                 /* of its log, in blocks */
    uint64_t received_seq, durable_seq, applied_seq; /* HYPERWAL_SEQ_NONE: none */
    int64_t since_ms;                                /* connected since */
} hyperwal_peer;
HYPERWAL_API int hyperwal_log_peer(hyperwal_log *log, unsigned *row, hyperwal_peer *peer);
/*
 * What is in the log after block `seq`: entries with a state, bytes of blocks, and the time of the
 * first such entry, 0 if there is none.  Counts no more than 100,000 blocks.
 */
HYPERWAL_API int hyperwal_log_after(hyperwal_log *log, uint64_t seq, uint64_t *entries,
                                    uint64_t *bytes, int64_t *first_time_ms);

/*
 * A log's directory that was copied, or came back from a backup, is not written to, lest one key
 * signs two histories.  Adopt: this copy is the one that goes on, as a new fork.  SQLITE_BUSY: it
 * is in use.
 */
HYPERWAL_API int hyperwal_log_adopt(const char *src, char **error);

/* Return 0 to stop; done and total in one unit (bytes or blocks). */
typedef int (*hyperwal_progress)(void *ctx, uint64_t done, uint64_t total);

enum { HYPERWAL_VERIFY_DEEP = 1 };
/* Tree, signatures and entries; deep: replay everything.  HYPERWAL_CORRUPT with errmsg. */
HYPERWAL_API int hyperwal_log_verify(hyperwal_log *log, unsigned flags, hyperwal_progress progress,
                                     void *ctx);

/* --------------------------------------------------------------------- restore, follow */

/* Which state: a zeroed struct is the head. */
typedef struct hyperwal_target {
    enum { HYPERWAL_HEAD, HYPERWAL_SEQ, HYPERWAL_TIME, HYPERWAL_LABEL } kind;
    uint64_t seq;
    int64_t time_ms;
    const char *label;
} hyperwal_target;

/* "2026-11-22T10:00:00Z" and the like, or milliseconds since 1970; SQLITE_MISUSE if neither. */
HYPERWAL_API int hyperwal_time_parse(const char *text, int64_t *time_ms);

enum { HYPERWAL_RESTORE_FORCE = 1 };
/*
 * Write the database as of `target` to `out`, which must not exist unless FORCE.  *reached (may be
 * NULL): the seq and time that it has.  HYPERWAL_NOTARGET, HYPERWAL_CORRUPT.
 */
HYPERWAL_API int hyperwal_restore(hyperwal_log *log, const hyperwal_target *target, const char *out,
                                  unsigned flags, hyperwal_progress progress, void *ctx,
                                  hyperwal_entry *reached);

typedef struct hyperwal_follower hyperwal_follower;

/* Make or continue the replica `path` of the log of `src`. */
HYPERWAL_API int hyperwal_follow_open(const char *src, const char *path, hyperwal_progress progress,
                                      void *ctx, hyperwal_follower **follower, char **error);
/*
 * Apply what there is and wait up to timeout_ms for more: SQLITE_OK something was applied,
 * SQLITE_DONE all is applied and the time is over.  Errors are in errmsg; after HYPERWAL_CORRUPT
 * the next call repairs the replica from a snapshot.
 */
HYPERWAL_API int hyperwal_follow_step(hyperwal_follower *follower, unsigned timeout_ms);
/* From any thread or signal handler: the waiting step returns soon with SQLITE_INTERRUPT. */
HYPERWAL_API void hyperwal_follow_interrupt(hyperwal_follower *follower);
HYPERWAL_API uint64_t hyperwal_follow_seq(hyperwal_follower *follower);
/* The fork of the log that hyperwal_follow_seq() is of. */
HYPERWAL_API uint64_t hyperwal_follow_fork(hyperwal_follower *follower);
HYPERWAL_API uint64_t hyperwal_follow_lag(hyperwal_follower *follower); /* blocks not yet applied */
HYPERWAL_API const char *hyperwal_follow_errmsg(hyperwal_follower *follower);
/*
 * Does a source have another log under the name, `key`, that does not go on from the one followed
 * here (steps wait for one that does), or of which that cannot be told (they look again)?
 */
enum { HYPERWAL_STRANGER_NONE, HYPERWAL_STRANGER, HYPERWAL_STRANGER_PERHAPS };
HYPERWAL_API int hyperwal_follow_stranger(hyperwal_follower *follower, unsigned char key[32]);
HYPERWAL_API void hyperwal_follow_close(hyperwal_follower *follower);

/*
 * The same from several sources of one log; the best is used, and the others when it fails.  With a
 * node (may be NULL) the connections are its own, and it can serve the replica's log further.
 */
typedef struct hyperwal_node hyperwal_node;
HYPERWAL_API int hyperwal_follow_sources(hyperwal_node *node, const char *const *sources,
                                         unsigned source_count, const char *path,
                                         hyperwal_progress progress, void *ctx,
                                         hyperwal_follower **follower, char **error);
/* The directory with the log that this replica is fed from: what a node can serve. */
HYPERWAL_API const char *hyperwal_follow_log_dir(hyperwal_follower *follower);

/*
 * Is `path` a replica, and of what?  SQLITE_NOTFOUND: no.  *applied_seq: last one applied.  If
 * `verify` is not 0 the state sum is computed from the file: both are those of the file then, which
 * is in the recorded state, or in one near it if a follower is at work or was killed.
 * HYPERWAL_CORRUPT: it is in neither.
 */
HYPERWAL_API int hyperwal_replica_info(const char *path, int verify, unsigned char key[32],
                                       uint64_t *applied_seq, uint64_t *sum, char **error);

/* ----------------------------------------------------------------------------- failover */

typedef struct hyperwal_promotion {
    unsigned char key[32];     /* of the log that goes on */
    unsigned char old_key[32]; /* of the log that the replica followed */
    uint64_t old_seq;          /* its seq of the state that goes over */
    uint64_t old_fork;
} hyperwal_promotion;

enum { HYPERWAL_PROMOTE_FORCE = 1 };
/*
 * Make the replica `path`, which nobody follows just now, the primary: a new log, which names the
 * old one and the seq that it continues.  What was mirrored of the old log is kept beside it.
 * `peers` are URLs of others that have the old log, besides those that the replica was fed from:
 * all that can be reached are caught up with.  SQLITE_BUSY: one of them has more, or the primary
 * answers, and FORCE was not given.  Without FORCE it fails as well where that cannot be told: the
 * primary's log is on this machine and cannot be opened, say, or somebody is at its address who
 * does not let us in or does not answer.  With `from`, where the primary is, that one ends its log
 * and hands over without loss; if it does not, it stays the primary.  A database at `from` that has
 * another log than `path` follows is left as it is, also with FORCE.  After a crash call it again:
 * until it is done `path` is still a replica.
 */
HYPERWAL_API int hyperwal_promote(const char *path, const char *from, const char *const *peers,
                                  unsigned peer_count, unsigned flags, hyperwal_progress progress,
                                  void *ctx, hyperwal_promotion *out, char **error);

/* ------------------------------------------------------------------------------ network */

/*
 * A node serves logs to followers, and to any other Hypercore peer; one thread of its own.
 * `identity_file`: the key that tells this node from others, made if it is missing; NULL: the
 * user's.  SQLITE_CANTOPEN: it cannot be made or opened.
 */
HYPERWAL_API int hyperwal_node_open(const char *identity_file, hyperwal_node **node, char **error);
HYPERWAL_API void hyperwal_node_close(hyperwal_node *node);
/*
 * Who may come in, to read all that is served: an identity key (64 hex digits or z-base-32), or
 * "any".  Without any rule everybody who reaches a listener of this machine alone may read.  The
 * node's own identity may do all.
 */
HYPERWAL_API int hyperwal_node_allow(hyperwal_node *node, const char *who, char **error);
enum { HYPERWAL_READ = 1, HYPERWAL_WRITE = 2, HYPERWAL_CREATE = 4, HYPERWAL_PROMOTE = 8 };
/*
 * The same for other rights, which include reading, and for the names that fit these patterns:
 * "app-*,!app-secret".  SQLITE_MISUSE: a malformed pattern.
 */
HYPERWAL_API int hyperwal_node_grant(hyperwal_node *node, const char *who, unsigned rights,
                                     const char *names, char **error);
/*
 * The same as text, a rule a line as in the file below, in place of all that calls gave before:
 * those who lost a right are cut off.
 */
HYPERWAL_API int hyperwal_node_set_rules(hyperwal_node *node, const char *rules, char **error);
/*
 * Rules from a file (hyperwal(1), AUTHORIZED KEYS); NULL: the user's, which may be missing.  It is
 * read again when it changes, and those who lost a right are cut off.
 */
HYPERWAL_API int hyperwal_node_authorize(hyperwal_node *node, const char *path, char **error);
/* Read the file of rules now.  An error leaves all as it was. */
HYPERWAL_API int hyperwal_node_reload(hyperwal_node *node, char **error);
/*
 * tcp://HOST[:PORT], ws://HOST:PORT/PATH, ipc://PATH.  *bound (may be NULL; sqlite3_free()): with
 * the port that was taken.  SQLITE_PERM: others than this machine could come in, and nobody was
 * allowed.
 */
HYPERWAL_API int hyperwal_node_listen(hyperwal_node *node, const char *url, char **bound,
                                      char **error);
/*
 * Serve the log of SRC (local) under a name; stop.  A database whose log lies beside it is written
 * by those with the right, too; this process may have it open itself.
 */
HYPERWAL_API int hyperwal_node_serve(hyperwal_node *node, const char *name, const char *src,
                                     char **error);
HYPERWAL_API void hyperwal_node_unserve(hyperwal_node *node, const char *name);
/*
 * The URL under which others find what is served as `name`, at the first listener; sqlite3_free().
 * NULL: the node does not listen.
 */
HYPERWAL_API char *hyperwal_node_url(hyperwal_node *node, const char *name);

/* The public key of an identity file (NULL: the user's), made if it is missing. */
HYPERWAL_API int hyperwal_identity(const char *identity_file, unsigned char key[32], char **error);

/*
 * Databases that clients with the right to create (hyperwal_node_grant()) want made.  `asked` is
 * called in the node's thread when there is one, and must only wake up who makes it: takes it with
 * hyperwal_node_creation() (SQLITE_DONE: there is none), makes the database with its log, serves it
 * under its name, and says so with hyperwal_node_created(); `why` not, NULL if it was made.  The
 * name has been checked: it is a plain file name.
 */
typedef struct hyperwal_creation {
    uint64_t id;
    unsigned page_size; /* 0: as you like */
    char name[129];
} hyperwal_creation;
HYPERWAL_API int hyperwal_node_on_create(hyperwal_node *node, void (*asked)(void *ctx), void *ctx);
HYPERWAL_API int hyperwal_node_creation(hyperwal_node *node, hyperwal_creation *creation);
HYPERWAL_API void hyperwal_node_created(hyperwal_node *node, uint64_t id, const char *why);
/*
 * Have the server of `url` (hyper://HOST/NAME and the like) make an empty database of that name, in
 * WAL mode and with a log, with pages of page_size bytes (0: the server's default).  SQLITE_DONE:
 * it is there already; SQLITE_PERM: you may not; SQLITE_CANTOPEN: the server could not.  `key` (may
 * be NULL): of the log, if SQLITE_OK.
 */
HYPERWAL_API int hyperwal_remote_create(const char *url, unsigned page_size, unsigned char key[32],
                                        char **error);

/*
 * What a server says of one of its databases, at a URL or a petname, as JSON; sqlite3_free() it.
 */
HYPERWAL_API int hyperwal_remote_status(const char *url, char **json, char **error);

/* -------------------------------------------------------------------------------- names */

/*
 * A petname: this user's own name for a log.  Wherever there is SRC, hyper:NAME and, if there is no
 * file NAME, also NAME stand for it.
 */
typedef struct hyperwal_name {
    const char *name;
    int has_key; /* `key` says which log it is */
    unsigned char key[32];
    const char *path;        /* full, of a database of this machine; NULL: none */
    const char *const *urls; /* where it is served, at most 16, in the order to try them */
    unsigned url_count;
} hyperwal_name;
/* SQLITE_CONSTRAINT: there is such a name, and not `replaces`.  SQLITE_MISUSE: malformed. */
HYPERWAL_API int hyperwal_name_add(const hyperwal_name *name, int replaces, char **error);
/* SQLITE_CANTOPEN: there is none; the message has those that are near. */
HYPERWAL_API int hyperwal_name_remove(const char *name, char **error);
/* All of them in order, borrowed for the call of `each`, which returns 0 to stop. */
HYPERWAL_API int hyperwal_name_list(int (*each)(void *ctx, const hyperwal_name *name), void *ctx,
                                    char **error);
/*
 * What a server (hyper://HOST[:PORT], ws://HOST:PORT/PATH, ipc://SOCKET) has for us, with the URL
 * of each.  Names are the server's words: of any bytes.
 */
HYPERWAL_API int hyperwal_remote_names(const char *url,
                                       int (*each)(void *ctx, const hyperwal_name *name), void *ctx,
                                       char **error);
/* Which log a server calls so. */
HYPERWAL_API int hyperwal_remote_key(const char *url, unsigned char key[32], char **error);
/* 64 hex digits or 52 characters of z-base-32; SQLITE_MISUSE: neither. */
HYPERWAL_API int hyperwal_key_parse(const char *text, unsigned char key[32]);
/* Forget the key by which a server is known again.  *count: entries that were there. */
HYPERWAL_API int hyperwal_server_forget(const char *url, unsigned *count, char **error);
/*
 * What is SRC?  *where, for sqlite3_free(): a path of this machine, or the URL that is tried first;
 * *is_remote tells which.  The path need not exist.
 */
HYPERWAL_API int hyperwal_find(const char *src, char **where, int *is_remote, char **error);

#ifdef __cplusplus
}
#endif

#endif
