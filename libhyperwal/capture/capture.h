/*
 * capture/capture.h - from committed transactions in the WAL to durable entries in the log
 *
 * One hw_capture per database and process, shared by all connections of the process.  One process
 * of the machine is the worker (OFD lock on worker.lock in the log's directory); the others only
 * wake it, and take over when it dies.  The truth about commits is the range of frames between the
 * last logged commit and mxFrame of the wal-index; how SQLite came to write them is not looked at.
 *
 *   shim                      capture                                    log
 *   unlock WRITE ──commit()──▶ wake ─▶ step: WAL frames ─▶ entries ─▶ batch, fdatasync ─▶ publish
 *   lock CKPT, READ(1..4) ───▶ gate: only what is logged may be checkpointed or overwritten
 *
 * Between frames and a durable entry the worker takes no SQLite lock, opens no connection and runs
 * no SQL.  A worker is a step function; a thread only loops over it (`threaded`), and without
 * threads whoever waits runs the step itself.
 *
 * Invariants 1 to 3 and 6 of docs/ARCHITECTURE.md live here.
 */
#ifndef HW_CAPTURE_CAPTURE_H
#define HW_CAPTURE_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "entry/entry.h"
#include "env/env.h"
#include "env/peer_table.h"
#include "env/shared_page.h"
#include "hypercore/hypercore.h"
#include "wal/wal.h"

struct hw_capture;

struct hw_capture_options {
    struct hw_env *env;  /* borrowed for ever */
    sqlite3_vfs *base;   /* the VFS below, borrowed for ever */
    const char *path;    /* full path of the database file, as the base VFS made it; copied */
    const char *name;    /* the pointer that xOpen of the base VFS needs; NULL: made from path */
    const char *log_dir; /* NULL: path + "-hyper"; copied */
    bool threaded;       /* start the worker's thread; false: steps are run by whoever waits */
    uint64_t wal_limit;  /* bytes; above it checkpoints and writers wait for the log; 0: default */
    uint64_t wal_cap;    /* bytes; above it a log that cannot be written is let go; 0: default */
};

/*
 * The capture of a database; the same object for every call with the same path in this process
 * (reference counted).  Makes the log's directory and the log if they are missing.  The database
 * need not exist or be in WAL mode yet: capture begins at hw_capture_ready().
 * A log that may not be written (of another database, a copy, a key that others can read) is an
 * error here and changes nothing.  One that is damaged, or a disk that is full, is an alarm: the
 * application goes on, and the WAL is kept up to its cap.
 */
enum hw_status hw_capture_open(const struct hw_capture_options *options, struct hw_capture **out,
                               struct hw_error *err) HW_MUST_CHECK;
/* Drops one reference; the last one lets the role go and stops the thread. */
void hw_capture_close(struct hw_capture *capture);

/* Captures that are open in this process; for tests that look for leaks. */
unsigned hw_capture_count(void);
/* Made before a fork, in the parent: here nothing of it may be used but close, which does
 * nothing. */
bool hw_capture_is_forked(const struct hw_capture *capture);
/* Told in a child right after the fork: all that are open are the parent's. */
void hw_capture_forked(void);

/* ------------------------------------------------------------------- what the shim tells */

/* A connection maps the wal-index: from now on nothing in the WAL may be deleted unseen. */
void hw_capture_mapped(struct hw_capture *capture);
/* It holds a read mark: SQLite has recovered the WAL, its index is valid. */
bool hw_capture_ready(struct hw_capture *capture); /* false: call again at the next read mark */
/*
 * It gives the wal-index back, and holds SHARED still, without which others may delete it.  With
 * the last one of this process what is committed gets into the log, within five seconds or when
 * somebody reads again, and capture lets go of the wal-index and of the role.
 */
void hw_capture_unmapped(struct hw_capture *capture);
/* The write lock was released: there may be a new commit.  Costs an increment, seldom a futex. */
void hw_capture_committed(struct hw_capture *capture);
/* Somebody who tells nobody may have committed. */
void hw_capture_look(struct hw_capture *capture);
/*
 * While `held`, somebody in this process has a read transaction open at any time, and ends none
 * before the log has reached the beginning of the next: so a program that asks no gate can begin
 * a new round of the WAL only when all of the old one is in the log.  Set it when all that was
 * committed after the first transaction began is in the log; clear it before the last one ends.
 */
void hw_capture_hold(struct hw_capture *capture, bool held);
/*
 * Before hw_capture_ready(): since before this capture was opened a read transaction has been open
 * that began when all before it was in the log.  What was copied into the file since is in the log,
 * and a round that was begun since is the next one.  The first comparison of the two is spared, if
 * this process has the worker's role from now until then: what another one does is not promised.
 */
void hw_capture_held_since(struct hw_capture *capture);
/*
 * A connection that holds WRITE synced the WAL, whose last frame header it wrote has these salts
 * and ends `size` bytes into the file: the worker need not sync so far again.  Not to be called for
 * the syncs of a checkpoint.
 */
void hw_capture_wal_synced(struct hw_capture *capture, const uint8_t salts[8], uint64_t size);
/*
 * A connection is about to write into the WAL at `offset`, in the round with these salts: what
 * somebody synced there and nobody committed, since he died or rolled it back, is overwritten.
 */
void hw_capture_wal_changed(struct hw_capture *capture, const uint8_t salts[8], uint64_t offset);
/*
 * A connection that holds WRITE (or is alone with the database) is about to write the header of the
 * WAL, with these salts: a new round begins.
 */
void hw_capture_new_round(struct hw_capture *capture, const uint8_t salts[8]);
/*
 * A connection wishes for exclusive locking mode: take the worker's role into this process, until
 * as many have left as came.  It has the locks of everybody until it is alone.
 * HW_EBUSY: another process has the role and did not yield in time.
 */
enum hw_status hw_capture_enter_exclusive(struct hw_capture *capture,
                                          struct hw_error *err) HW_MUST_CHECK;
void hw_capture_leave_exclusive(struct hw_capture *capture);
/*
 * One that entered was given EXCLUSIVE: nobody else has the database open, and there are no lock
 * calls until hw_capture_alone_end(), which comes before EXCLUSIVE is given back.  `has_shm`: it
 * had mapped the wal-index before and goes on using it; else SQLite keeps the index on its heap,
 * where nobody else sees it.
 */
void hw_capture_alone(struct hw_capture *capture, bool has_shm);
void hw_capture_alone_end(struct hw_capture *capture);
/*
 * By the one that is alone: it is about to write for the first time since, at this offset of the
 * WAL, in the round with these salts.  What is before that in the round was committed by others.
 */
void hw_capture_alone_writes(struct hw_capture *capture, const uint8_t salts[8], uint64_t offset);
/* By the one that is alone: it is about to cut the WAL, which may be empty by its wal-index now. */
void hw_capture_alone_emptied(struct hw_capture *capture);
/*
 * By the one that is alone: a commit is done, the WAL is written (and synced, or not) up to its
 * end.  `offset`: where in the WAL the connection wrote the commit frame of that; 0: it wrote none.
 */
void hw_capture_exclusive_committed(struct hw_capture *capture, uint64_t offset);
/* The last connection closes, EXCLUSIVE is held, the WAL will be deleted: note a clean close and
 * let go of the wal-index. */
void hw_capture_wal_deleted(struct hw_capture *capture);
/* A checkpoint through us has ended: note the fingerprint of the database file. */
void hw_capture_checkpointed(struct hw_capture *capture);

/* ------------------------------------------------------------------------------ the gate */

/* All doors give SQLite codes.  Waits are bounded. */

/*
 * Door 1, before the base's lock of CKPT: SQLITE_OK or SQLITE_BUSY.  `automatic`: SQLite's own
 * checkpoint right after a commit, which comes again at the next: it waits only when the WAL has
 * passed its limit.
 */
int hw_gate_checkpoint_lock(struct hw_capture *capture, bool automatic);
/* Door 2, CKPT_START: waits until the log is durable up to mxFrame.  False: it did not come so far:
 * let the next xFileSize fail with SQLITE_IOERR, never with BUSY. */
bool hw_gate_checkpoint_start(struct hw_capture *capture);
/* What a connection keeps between the two of door 3. */
struct hw_gate_pass {
    bool is_open;
    uint8_t salts[8]; /* the log was there */
    uint32_t frame;
    uint8_t salts_before[8]; /* of the wal-index */
};
/*
 * Door 3, after the base's exclusive lock of READ(1..4): false: give it back and say SQLITE_BUSY.
 * `connection` is the base file of the caller; `holds_checkpoint`: it has CKPT itself.  Never
 * waits.
 */
bool hw_gate_restart(struct hw_capture *capture, sqlite3_file *connection, bool holds_checkpoint,
                     struct hw_gate_pass *pass);
/* Before these locks are given back: was the WAL emptied? */
void hw_gate_restarted(struct hw_capture *capture, struct hw_gate_pass *pass);
/* After the base's lock of CKPT: false if somebody is restarting the WAL: give it back, BUSY. */
bool hw_gate_checkpoint_locked(struct hw_capture *capture, sqlite3_file *connection);
/* Door 4: is everything committed in the log?  Decides the answer to PERSIST_WAL, without
 * waiting. */
bool hw_gate_is_logged(struct hw_capture *capture);
/*
 * Before the base's lock of WRITE: the first writer after an open waits, bounded, until log and
 * database are known to agree: a database that fell behind its log is rolled forward before.
 */
void hw_gate_write_lock(struct hw_capture *capture);
/*
 * Before that: may anybody write?  SQLITE_BUSY: the log is being handed over just now.
 * SQLITE_READONLY: it was, and another primary goes on.
 */
int hw_gate_may_write(struct hw_capture *capture, struct hw_error *err);
/*
 * After the base's lock of WRITE: delays the writer, bounded, when the WAL has passed its limit,
 * and checkpoints: nobody else commits now, so only what is in the log is copied.
 */
void hw_gate_write_locked(struct hw_capture *capture);

/* ---------------------------------------------------------- what users ask (any thread) */

/* The end of the WAL at a commit: what a wait is for. */
struct hw_capture_target {
    bool is_known;
    uint8_t salts[8];
    uint32_t frame;
    uint64_t gaps; /* that the log was given before */
};
/* As of now.  Of a commit: while the connection still holds WRITE. */
void hw_capture_target(struct hw_capture *capture, struct hw_capture_target *target);
/*
 * Wait until everything up to `target` is durable in the log.  NULL, or one that is not known: all
 * that is committed when this is called.  *seq: of the last entry.  HW_ETIMEOUT after timeout_ms.
 * HW_EFORK: a gap took its place, since somebody emptied the WAL before it was logged.
 */
enum hw_status hw_capture_wait_target(struct hw_capture *capture,
                                      const struct hw_capture_target *target, uint64_t timeout_ms,
                                      uint64_t *seq, struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_capture_wait_logged(struct hw_capture *capture, uint64_t timeout_ms,
                                      uint64_t *seq, struct hw_error *err) HW_MUST_CHECK;
/*
 * The same, and until so many followers that count have confirmed it: durable, or applied.  *seq is
 * set as soon as it is known, before that UINT64_MAX.  HW_ETIMEOUT: the error says who is missing.
 */
enum hw_status hw_capture_wait_remote(struct hw_capture *capture,
                                      const struct hw_capture_target *target, unsigned replicas,
                                      bool applied, uint64_t timeout_ms, uint64_t *seq,
                                      struct hw_error *err) HW_MUST_CHECK;
/* Ask the worker, in whatever process, for a snapshot or a label; returns when it is durable. */
enum hw_status hw_capture_snapshot(struct hw_capture *capture, uint64_t timeout_ms, uint64_t *seq,
                                   struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_capture_label(struct hw_capture *capture, const char *name, uint64_t timeout_ms,
                                uint64_t *seq, struct hw_error *err) HW_MUST_CHECK;
/*
 * Ask for pruning: give up what is not needed to restore `keep_from_seq` and later.  *freed: bytes.
 */
enum hw_status hw_capture_prune(struct hw_capture *capture, uint64_t keep_from_seq, bool dry_run,
                                uint64_t timeout_ms, uint64_t *freed,
                                struct hw_error *err) HW_MUST_CHECK;

/*
 * Ask the worker of the log in `dir`, whoever that is, to end the log in favour of another one
 * with this key: writers wait, all that is committed is logged, and a switch is the last entry.
 * *seq: of that.  HW_EBUSY, HW_ETIMEOUT: a writer did not end in time, or nobody has the database
 * open; nothing was changed.  Asked again for the same key it answers the same.
 */
enum hw_status hw_capture_hand_over(struct hw_env *env, const char *dir, const uint8_t key[32],
                                    uint64_t timeout_ms, uint64_t *seq,
                                    struct hw_error *err) HW_MUST_CHECK;
/* The same without waiting: begin, and look for the answer; HW_AGAIN: there is none yet, HW_END:
 * none comes. */
enum hw_status hw_handover_post(struct hw_shared_page *page, const uint8_t key[32],
                                uint64_t timeout_ms, uint64_t *mail,
                                struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_handover_collect(struct hw_shared_page *page, uint64_t mail, uint64_t *seq,
                                   struct hw_error *err) HW_MUST_CHECK;

/* Commits whose wait for durability ended without it. */
void hw_capture_unconfirmed(struct hw_capture *capture, uint64_t seq);

struct hw_capture_status {
    char state[24];  /* starting, running, verifying, waiting, stopped, released */
    char alarm[256]; /* what is wrong, empty if nothing is */
    uint8_t key[32], discovery_key[32];
    uint64_t length, byte_length, fork;
    uint64_t seq;          /* of the last transaction; UINT64_MAX: none */
    uint64_t snapshot_seq; /* UINT64_MAX: none */
    uint64_t sum;
    uint32_t page_size, page_count;
    uint32_t lag_frames; /* committed frames not yet in the log */
    uint64_t wal_bytes;
    uint64_t log_bytes; /* on disk */
    uint64_t unconfirmed_count, unconfirmed_seq;
    int64_t unconfirmed_since_ms; /* 0: none */
    unsigned remote_waiters;      /* commits of this process that wait for followers now */
    uint64_t commits;             /* through the VFS, of all processes, since the boot */
    uint32_t worker_pid;          /* 0: nobody */
    bool is_worker;               /* this process */
};
void hw_capture_status(struct hw_capture *capture, struct hw_capture_status *out);

/*
 * The end of the log as it was published last, whichever process writes it.  Cheap, but one more
 * file is open from the first call on.  HW_ENOTFOUND: there is no state in it yet.
 */
struct hw_capture_end {
    uint64_t length;
    uint64_t seq; /* of the last transaction; UINT64_MAX: none */
    uint64_t sum;
    uint32_t page_count;
};
enum hw_status hw_capture_end(struct hw_capture *capture, struct hw_capture_end *out,
                              struct hw_error *err) HW_MUST_CHECK;

/* Where WAL and log stand.  Waits for nothing, not even for a batch that is being written. */
struct hw_capture_place {
    bool is_known;    /* the log can be written, and is known to be of this database */
    bool is_released; /* the WAL outgrew its cap: nothing is kept for the log */
    bool is_worker;   /* this process writes the log */
    uint32_t page_size;
    uint32_t wal_frames;    /* committed frames in this round of the WAL */
    uint32_t logged_frames; /* of these, so many are in the log */
    uint64_t commits;       /* through the VFS, as hw_capture_status says */
};
void hw_capture_place(struct hw_capture *capture, struct hw_capture_place *out);
const char *hw_capture_log_dir(const struct hw_capture *capture);

/* A follower, connected to a server of this machine or not any more. */
struct hw_capture_peer {
    struct hw_peer_row row;
    /*
     * What its replica does not show yet: up to the last state in the log.  Of one that is further
     * behind than 4,096 blocks, entries, bytes and time are those of so many.
     */
    uint64_t lag_blocks, lag_entries, lag_bytes;
    int64_t lag_ms; /* since the first of these was committed */
};
/*
 * The followers of the log in `dir`: up to HW_PEER_ROWS are filled.  None if nobody has followed it
 * since the boot.
 */
size_t hw_capture_peers(struct hw_env *env, const char *dir, struct hw_capture_peer *peers);

/* A log that begins with the state of another one. */
struct hw_beginning {
    struct hw_genesis genesis;
    struct hw_switch from;
    struct hw_wal_position at; /* the WAL ends here in that state: what is before is not logged */
    int64_t time_ms;
};
/*
 * Its first batch: genesis and switch.  `core` is empty, and open for writing.  The first worker
 * finds the database in that state, and makes a snapshot.
 */
enum hw_status hw_capture_begin_log(struct hw_core *core, const struct hw_beginning *begin,
                                    struct hw_error *err) HW_MUST_CHECK;

/*
 * One bounded piece of work, for tests and for captures without a thread: takes the role if it is
 * free, reconciles, logs a batch, answers a request, goes on with a snapshot.  HW_END: nothing to
 * do.  *deadline_ns: when it wants to be called again at the latest (UINT64_MAX: when woken).
 */
enum hw_status hw_capture_step(struct hw_capture *capture, uint64_t *deadline_ns,
                               struct hw_error *err) HW_MUST_CHECK;

#endif
