/*
 * capture/internal.h - the objects of capture, for the files of this folder only
 *
 * struct hw_capture is what a process has of a database; struct hw_worker is what the one worker of
 * the machine has besides, and lives inside of it.  The states of a worker:
 *
 *      IDLE ──▶ CHECKING ──▶ RUNNING ◀──▶ STALLED (the log cannot be written: try again)
 *       ▲           ▲           │            │
 *       │           ├───────────┘            ▼
 *       │           └──────────────────── RELEASED (the WAL outgrew its cap: the gate is open)
 *       └── the role or the wal-index is gone
 *
 * IDLE: no role, or nobody has made the wal-index valid yet.  CHECKING: the state sum of the
 * database is computed page by page, since nothing proves that log and database agree; the gate is
 * shut.  RUNNING: the log follows the WAL.
 *
 * Threads and mutexes.  `step` guards the worker; it is held during a step, never while sleeping.
 * `gate` guards the process's own view of the wal-index header, for the doors and for waiting.
 * Order: step before gate; SQLite's and the base VFS's own mutexes are taken inside both, and
 * nothing is called back from there.
 */
#ifndef HW_CAPTURE_INTERNAL_H
#define HW_CAPTURE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "capture/capture.h"
#include "entry/entry.h"
#include "env/shared_page.h"
#include "env/thread.h"
#include "hypercore/hypercore.h"
#include "wal/wal.h"

enum {
    BATCH_BYTES = 1 << 20,         /* a batch is closed when its blocks pass this */
    BATCH_FRAMES = 4096,           /* or when it passed so many frames */
    SYNC_INTERVAL_NS = 20000000,   /* between syncs, unless somebody waits */
    DUE_BYTES = 4 << 20,           /* or so many bytes of pages are pending */
    RETRY_NS = 200000000,          /* between tries when the log cannot be written */
    FRAME_BUFFER_SIZE = 128 << 10, /* bytes: frames read at once */
    CHECK_PAGES = 1024,            /* pages whose sums one step of CHECKING computes */
    SNAPSHOT_STEP_BYTES = 4 << 20, /* of pages that one step of a snapshot reads */
    SNAPSHOT_LOG_MIN = 16 << 20,   /* bytes of log that make a snapshot worth while */
    SNAPSHOT_RAW_MIN = 256 << 20,  /* bytes of raw pages to replay that do */
    SNAPSHOT_RAW_FACTOR = 4,       /* and so many times the database */
    SETTLE_WAIT_NS = 2000000000,   /* the first writer waits so long for reconciliation */
    GATE_WAIT_NS = 100000000,      /* a door waits so long for the log */
    WAL_LIMIT_FRAMES = 4000,       /* four times SQLite's autocheckpoint */
    WAL_CAP_DEFAULT = 1 << 30,     /* bytes */
};

enum worker_state { WORKER_IDLE, WORKER_CHECKING, WORKER_RUNNING, WORKER_STALLED, WORKER_RELEASED };

/* Who is alone has the wal-index that everybody uses, or one on SQLite's heap. */
enum alone { ALONE_NOBODY, ALONE_WITH_SHM, ALONE_WITHOUT_SHM };

enum request_kind {
    REQUEST_SNAPSHOT = 1,
    REQUEST_LABEL,
    REQUEST_PRUNE,
    REQUEST_PRUNE_DRY,
    REQUEST_HANDOVER
};

/* --------------------------------------------------------------------------------- sums.c */

/*
 * The 8-byte sum of every page as of the last entry: the file `sums`.  A batch's changes
 * wait in memory until the batch is durable; a transaction too large for that writes early, and an
 * abort then makes the file invalid.  It is a cache: whatever does not check is computed again.
 */
struct hw_sums;
enum hw_status hw_sums_open(struct hw_env *env, const char *dir, uint32_t page_size,
                            struct hw_sums **out, struct hw_error *err) HW_MUST_CHECK;
void hw_sums_close(struct hw_sums *sums);
/* Is the file that of `seq`, with these pages and this state sum?  Reads all of it. */
bool hw_sums_matches(struct hw_sums *sums, uint64_t seq, uint32_t page_count, uint64_t sum,
                     uint32_t lock_page);
enum hw_status hw_sums_get(struct hw_sums *sums, uint32_t page_number, uint64_t *out,
                           struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_sums_set(struct hw_sums *sums, uint32_t page_number, uint64_t sum,
                           struct hw_error *err) HW_MUST_CHECK;
/* The batch is durable.  A failure: the words stay in memory, and the next commit writes them. */
enum hw_status hw_sums_commit(struct hw_sums *sums, uint64_t seq,
                              struct hw_error *err) HW_MUST_CHECK;
/*
 * HW_ECORRUPT: changes had been written early, or those of the batch before not yet: the sums must
 * be computed again.
 */
enum hw_status hw_sums_abort(struct hw_sums *sums, struct hw_error *err) HW_MUST_CHECK;
void hw_sums_invalidate(struct hw_sums *sums); /* matches nothing until the next commit */

/* ----------------------------------------------------------------------------- position.c */

#define HW_SNAPSHOT_NEEDED ((uint64_t)1 << 60)

/* What the log says of the database at its newest batch: the note of the batch. */
struct hw_note {
    struct hw_wal_position at; /* of the WAL, up to where the log reaches */
    uint32_t page_count;
    uint64_t sum;
    uint64_t seq;          /* last block of the newest state-carrying entry; UINT64_MAX: none */
    uint64_t snapshot_seq; /* UINT64_MAX: none */
    uint64_t label_seq;
    uint64_t log_since, raw_since; /* bytes since the newest snapshot began, without groups */
                                   /* from HW_SNAPSHOT_NEEDED on: none serves the state now */
    uint64_t snapshot_bytes;       /* of the groups it lists */
    int64_t time_ms;
};
void hw_note_encode(const struct hw_note *note, struct hw_buffer *out);
enum hw_status hw_note_decode(struct hw_slice bytes, struct hw_note *out) HW_MUST_CHECK;

/* The file `position`: which file the database was when it last surely agreed with the log. */
struct hw_position_file {
    uint8_t boot_id[16];
    bool clean; /* the last connection closed through us: there is no WAL */
    uint64_t device, inode, size;
    int64_t modified_ns, changed_ns;
    char path[1024];
};
enum hw_status hw_position_read(struct hw_env *env, const char *dir, struct hw_position_file *out,
                                struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_position_write(struct hw_env *env, const char *dir,
                                 const struct hw_position_file *position,
                                 struct hw_error *err) HW_MUST_CHECK;
/* The database as it is now; `clean` as given. */
enum hw_status hw_position_take(struct hw_env *env, const char *path, bool clean,
                                struct hw_position_file *out, struct hw_error *err) HW_MUST_CHECK;
bool hw_position_same_file(const struct hw_position_file *a, const struct hw_position_file *b);

/* Make the position file say what the database file is now; a failure is only logged. */
void hw_position_note(struct hw_capture *capture, bool clean);

/* ------------------------------------------------------------------------------- objects */

/* A fuzzy snapshot in the making; groups below next_group are taken. */
struct snapshot_work {
    bool active;
    bool forced; /* somebody asked: begin one */
    uint32_t next_group;
    struct hw_snapshot_group *groups; /* owned, `capacity`: as this snapshot or the last has them */
    uint8_t *dirty;                   /* owned, `capacity`: changed since, or never taken */
    uint32_t capacity;
    uint64_t bytes; /* of its group blocks */
    uint64_t requests[HW_MAILBOX_SLOTS];
    uint32_t request_count; /* who awaits it; beyond the slots the first ones are overwritten */
    uint64_t log_at_start, raw_at_start;
};

struct hw_worker {
    enum worker_state state;
    bool has_role;
    struct hw_core *core;               /* owned; open while it has the role */
    struct hw_wal_index *index;         /* owned: of the capture's database, or private */
    struct hw_wal_index *private_index; /* owned: exclusive mode without shm */
    struct hw_wal_index_header private_header;
    bool private_stale;           /* something committed may be missing in it: look again */
    bool private_bounded;         /* who is alone has written: only this counts: */
    uint64_t private_end;         /* frames that begin before this offset are committed, */
    uint8_t private_salts[8];     /* in this round */
    uint64_t private_told;        /* the next private_end, not looked at yet; 0: none */
    struct hw_file *wal;          /* owned */
    uint64_t named_inode;         /* of the WAL whose name is durable; 0: none */
    struct hw_file_stat wal_stat; /* which file that is */
    struct hw_wal_header wal_header;
    struct hw_sums *sums;                   /* owned */
    struct hw_transaction_encoder *encoder; /* owned */
    struct hw_group_coder *coder;           /* owned */
    struct hw_buffer block, note_bytes;     /* owned */
    uint8_t *frames, *old_page;             /* owned: FRAME_BUFFER_SIZE or one frame; a page */
    uint32_t frames_first, frames_count;    /* which frames are in `frames` */
    size_t frames_capacity;
    uint8_t *group_pages; /* owned: HW_GROUP_PAGES pages */
    uint32_t page_size;
    struct hw_note note;              /* the log as it is durable */
    struct hw_wal_position logged_at; /* as the last batch said; note.at may be known better */
    uint32_t log_page_size;           /* of the genesis; 0: the log is empty */
    unsigned doubts; /* since the last batch: fingerprints are not trusted, then nothing is */
    uint32_t recovered_attempt; /* nBackfillAttempted as recovery left it; 0: it did not */
    bool distrust_file;         /* a checkpoint passed the gate: no old images from the file */
    bool is_others_turn;        /* a batch was just made: requests and snapshots have a step */
    uint64_t asked;             /* requests that are posted, due when the log is; 0: none */
    uint32_t asked_frame;       /* here, */
    uint8_t asked_salts[8];     /* in this round, or further */
    bool urgent;                /* somebody waits for what is pending */
    bool is_overtaken;          /* somebody proved to have more of the log: nothing is signed */
    bool alarmed;               /* the shared page shows an alarm of ours */
    uint64_t yield_since_ns;    /* another process has been asking for the role since; 0: no */
    uint64_t useless_since_ns;  /* it has the role and cannot work; 0: no */
    uint32_t useless_count;     /* the work count then */
    uint64_t last_sync_ns;
    uint64_t retry_ns; /* not before */
    /* CHECKING */
    struct hw_wal_index_header check_header;
    struct hw_wal_position check_at;
    uint32_t check_next; /* page */
    uint64_t check_sum;
    bool check_at_logged; /* at the place where the log ends by other evidence, not as of now */
    char check_reason[160];
    struct snapshot_work snapshot;
    bool is_ended; /* the log ended with a switch: nothing is added any more */
    struct {
        bool is_active;
        bool holds_write;         /* the WRITE lock of the wal-index, by the capture's own handle */
        uint64_t mail;            /* who asked */
        uint8_t key[HW_KEY_SIZE]; /* of the log that goes on */
        uint64_t deadline_ns;
    } handover;
};

struct hw_capture {
    struct hw_capture *next; /* registry */
    unsigned references;     /* registry */
    struct hw_env *env;
    sqlite3_vfs *base;
    char *shm_path;                  /* owned */
    char *path, *wal_path, *log_dir; /* owned */
    char *directory;                 /* owned: where the database is */
    sqlite3_filename filename;       /* owned: what xOpen of the base VFS wants */
    uint64_t wal_limit, wal_cap;
    uint32_t process_id; /* of the opener: another one means a fork */
    bool threaded;
    /* The WAL's length when a checkpoint of ours was tried, and when an automatic one waited. */
    atomic_uint checkpoint_frame, waited_frame;
    struct hw_shared_page *shared; /* owned */
    struct hw_file *lock_file;     /* owned: worker.lock, open for life */

    struct hw_mutex gate_mutex;
    unsigned mapped;        /* gate: connections here that have the wal-index mapped */
    uint64_t shm_inode;     /* gate: of the -shm that the handle has mapped; 0: unknown */
    sqlite3_file *database; /* gate: the base's handle, for the wal-index and old images */
    bool alone_seen;        /* gate: below is */
    struct hw_wal_index_header alone_header; /* gate: as who is alone with shm left the wal-index */
    struct hw_wal_index *gate_index;         /* gate */
    atomic_bool ready;                       /* the wal-index is valid: a connection reads */
    atomic_bool blind;                       /* it looks at the WAL, and we could not yet */
    atomic_bool unready;                     /* for a call failed: the thread tries again */
    atomic_bool settled;                     /* the first writer need not wait (any more) */
    atomic_uint exclusive;  /* connections of this process that entered exclusive mode */
    atomic_int alone;       /* enum alone: is one of them alone with the database? */
    atomic_bool held;       /* hw_capture_hold() */
    atomic_bool held_since; /* hw_capture_held_since(), while the role is kept; relied on once */

    struct hw_fair_mutex step_mutex; /* the thread wants it again and again */
    struct hw_worker worker;         /* step */

    struct hw_thread thread;
    bool thread_started;
    _Atomic uint32_t useful; /* a futex for the thread while nobody here reads */
    atomic_bool closing;
    atomic_uint_least64_t unconfirmed_count, unconfirmed_seq;
    atomic_int_least64_t unconfirmed_since_ms;

    struct hw_mutex reader_mutex;
    struct hw_core *reader; /* reader_mutex: of hw_capture_end(); owned; NULL: not asked yet */

    atomic_uint remote_waiters;
    struct hw_mutex peers_mutex;
    struct hw_peer_table *peers; /* peers_mutex: set once; owned; NULL: not opened yet */
};

/*
 * Does somebody in this process read, so that there is a wal-index to look at?  One that is alone
 * does, or has one of its own; one that only wishes to be has none.
 */
static inline bool hw_capture_can_work(const struct hw_capture *capture)
{
    return atomic_load(&capture->ready) || atomic_load(&capture->alone) != ALONE_NOBODY;
}

/* A connection of this process is alone with the database, and its wal-index cannot be seen. */
static inline bool hw_capture_is_private(const struct hw_capture *capture)
{
    return atomic_load(&capture->alone) == ALONE_WITHOUT_SHM;
}

/* -------------------------------------------------------------------------------- capture.c */

/* The thread, which sleeps as long as nobody here reads, looks whether somebody does. */
void hw_capture_wake_useful(struct hw_capture *capture);

/* --------------------------------------------------------------------------------- worker.c */

/* Take the role if it is free: HW_EBUSY if it is not.  Opens the log, makes it if it is missing. */
enum hw_status hw_worker_take_role(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
void hw_worker_drop_role(struct hw_capture *capture);
/* What of that is the log: worker->core, and what its last batch says of the database. */
enum hw_status hw_worker_open_core(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
void hw_worker_close_core(struct hw_worker *worker);
/* All may rely on what is in it, and what they asked before is due. */
void hw_worker_tell_opened(struct hw_capture *capture);
/* The buffers and coders for pages of `page_size` bytes. */
enum hw_status hw_worker_prepare(struct hw_capture *capture, uint32_t page_size,
                                 struct hw_error *err) HW_MUST_CHECK;
/* The WAL at its path is open in worker->wal; HW_ENOTFOUND if there is none. */
enum hw_status hw_worker_open_wal(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* HW_EIO: the wal-index that we look at is not the one that everybody else does. */
enum hw_status hw_worker_check_shm(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* Page as of frame `max_frame`. */
enum hw_status hw_worker_read_page(struct hw_capture *capture, uint32_t page_number,
                                   uint32_t max_frame, void *content, bool *from_file,
                                   struct hw_error *err) HW_MUST_CHECK;
/* Something does not fit: reconcile anew, and believe nothing but the sum. */
enum hw_status hw_worker_doubt(struct hw_capture *capture, const char *reason);
void hw_worker_set_state(struct hw_capture *capture, enum worker_state state);
/* Forget wal-index, WAL and database handles; the next ready() begins anew. */
void hw_worker_let_go(struct hw_capture *capture);
enum hw_status hw_worker_step(struct hw_capture *capture, uint64_t *deadline_ns,
                              struct hw_error *err) HW_MUST_CHECK;
/* The header of the wal-index as the worker sees it (shared, or private in exclusive mode). */
enum hw_status hw_worker_header(struct hw_capture *capture, struct hw_wal_index_header *out,
                                struct hw_error *err) HW_MUST_CHECK;
struct hw_wal_index *hw_worker_index(struct hw_worker *worker);
/* The wal-index that the connections share, in worker->index; HW_END: nobody has it yet. */
enum hw_status hw_worker_open_index(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* Begin to compare log and database.  HW_END: nobody here reads, there is no wal-index to see. */
enum hw_status hw_worker_reconcile(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
void hw_worker_publish(struct hw_capture *capture); /* durable length and position */
/* Nobody may rely on the log reaching anything: not adopted, or being checked. */
void hw_worker_publish_nothing(struct hw_capture *capture);
void hw_worker_alarm(struct hw_capture *capture, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void hw_worker_alarm_over(struct hw_capture *capture);
/*
 * Exclusive mode without shm: the private index has all that is committed.  Looks at the WAL only
 * if something may be missing; after a failure that is so still, and nothing counts as logged.
 */
enum hw_status hw_exclusive_look(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/*
 * Is the wal-index, whose header this is, in the round that a connection alone with shm knows of?
 * If not it is just emptying the WAL, and says so next.
 */
bool hw_exclusive_has_seen(struct hw_capture *capture, const struct hw_wal_index_header *header);
/* The worker's, before all else: what could not be looked at as it was committed. */
enum hw_status hw_exclusive_step(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
bool hw_header_same_round(const struct hw_wal_index_header *header, const uint8_t salts[8]);
/* The clamped time of a new entry. */
int64_t hw_worker_time(struct hw_capture *capture);
struct hw_entry_header hw_worker_entry(struct hw_capture *capture, enum hw_entry_type type);
/* Commit the batch with `note` and adopt it; on failure the batch is gone. */
enum hw_status hw_worker_commit(struct hw_capture *capture, const struct hw_note *note,
                                struct hw_error *err) HW_MUST_CHECK;

/* Follows the WAL into a new round; *pending: frames that are committed and not logged. */
enum hw_status hw_worker_pending(struct hw_capture *capture, struct hw_wal_index_header *header,
                                 uint32_t *pending, struct hw_error *err) HW_MUST_CHECK;

/* -------------------------------------------------------------------------------- stalled.c */

/*
 * STALLED and RELEASED: look whether the log can be written again, and let go of a WAL too long.
 * HW_END: not before *deadline_ns.
 */
enum hw_status hw_stalled_step(struct hw_capture *capture, uint64_t *deadline_ns,
                               struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- handover.c */

/* Somebody asks for it: what cannot be done at all fails at once. */
enum hw_status hw_handover_begin(struct hw_capture *capture, uint64_t mail,
                                 const struct hw_request *request,
                                 struct hw_error *err) HW_MUST_CHECK;
/*
 * Keep writers out.  HW_AGAIN: one is at work still, look again at *deadline_ns.  A failure was
 * told to whoever asked.
 */
enum hw_status hw_handover_keep_out(struct hw_capture *capture, uint64_t *deadline_ns,
                                    struct hw_error *err) HW_MUST_CHECK;
/* All is logged, and nobody writes: end the log.  A failure was told. */
enum hw_status hw_handover_end(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* It is not to be: writers go on. */
void hw_handover_give_up(struct hw_capture *capture, enum hw_status status,
                         const struct hw_error *err);
/* The worker lets go of the database. */
void hw_handover_let_go(struct hw_capture *capture);
/* Does the log end with a switch to another one?  Says so to all who write. */
enum hw_status hw_handover_look(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* Answer one who asks something of a log that ended.  HW_END: nobody does. */
enum hw_status hw_handover_answer(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;

/* ---------------------------------------------------------------------------------- batch.c */

/*
 * Log the transactions in (note.at, header.max_frame], or some of them.  HW_AGAIN: a checkpoint
 * passed the gate, do it again.  HW_ECORRUPT: log and database do not agree: check.
 */
enum hw_status hw_batch_run(struct hw_capture *capture, const struct hw_wal_index_header *header,
                            struct hw_error *err) HW_MUST_CHECK;

/*
 * Has somebody copied frames above `frame` into the database file, or begun to?  HW_END: yes.
 * SQLite's recovery leaves nBackfillAttempted at mxFrame though nobody attempted anything; what it
 * was when this worker began does not count.
 */
enum hw_status hw_worker_check_backfill(struct hw_capture *capture, uint32_t frame,
                                        struct hw_error *err) HW_MUST_CHECK;
/* The WAL is durable up to this frame, and so is its name. */
enum hw_status hw_worker_sync_wal(struct hw_capture *capture, uint32_t max_frame,
                                  struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------ reconcile.c */

enum hw_status hw_reconcile_begin(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* Start CHECKING, of the state as of note.at (which is a place in the WAL) or as of now. */
enum hw_status hw_check_begin(struct hw_capture *capture, const char *reason, bool at_logged,
                              struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_check_step(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
/* (b): write the entries after `seq` into the database, whose state is that of `seq`. */
enum hw_status hw_roll_forward(struct hw_capture *capture, uint64_t seq,
                               struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- snapshot.c */

void hw_snapshot_reset(struct hw_worker *worker); /* a started one is given up, nothing is reused */
/* Somebody asks for one; one in the making will do. */
void hw_snapshot_await(struct hw_worker *worker, uint64_t mail);
void hw_snapshot_touch(struct hw_worker *worker, uint32_t page_number); /* its group has changed */
bool hw_snapshot_is_due(const struct hw_worker *worker);
bool hw_snapshot_is_needed(
    const struct hw_worker *worker); /* without one nothing new is restored */
/* Will a reader of the snapshot in the making have this page's previous image? */
bool hw_snapshot_has_taken(const struct hw_worker *worker, uint32_t page_number);
/* HW_END: there is nothing to do. */
enum hw_status hw_snapshot_step(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;

/* -------------------------------------------------------------------------------- request.c */

/* Answer one request of the mailbox.  HW_END: there is none. */
enum hw_status hw_request_step(struct hw_capture *capture, struct hw_error *err) HW_MUST_CHECK;
void hw_request_answer(struct hw_capture *capture, uint64_t mail, enum hw_status status,
                       uint64_t result, const struct hw_error *failure);

/* --------------------------------------------------------------------------------- remote.c */

/* The table of followers, borrowed as long as the capture; NULL: nobody has ever followed. */
struct hw_peer_table *hw_remote_peers(struct hw_capture *capture);
/*
 * The worker's, as it begins: what was confirmed of another fork, or of more, means nothing.
 * HW_EIO: that cannot be noted, so the log may not be used.
 */
enum hw_status hw_remote_set_fork(struct hw_capture *capture, uint64_t fork,
                                  struct hw_error *err) HW_MUST_CHECK;

/* ---------------------------------------------------------------------------------- round.c */

/*
 * Was the WAL emptied when the log had reached `frame` of the round with `salts`, which was all of
 * it, so that its index has `empty_salts` now?
 */
bool hw_round_is_emptied_at(struct hw_capture *capture, const uint8_t salts[8], uint32_t frame,
                            const uint8_t empty_salts[8]);
/* Is `position` in the round that the WAL is in as of `header`, or all there was before? */
bool hw_round_is_at(struct hw_capture *capture, const struct hw_shared_position *position,
                    const struct hw_wal_index_header *header);
/* Door 3 is open: note what must be known if a restart comes of it. */
void hw_round_pass(struct hw_capture *capture, const struct hw_wal_index_header *header,
                   struct hw_gate_pass *pass);
/*
 * Did the round with `salts` begin when all of the WAL was before `at`, or while the worker runs
 * and this process holds the WAL?
 */
bool hw_round_follows(struct hw_capture *capture, const struct hw_wal_position *at,
                      const uint8_t salts[8]);
/* The same, and only if a connection of ours began it when the WAL was empty. */
bool hw_round_begins_at(struct hw_capture *capture, const uint8_t at_salts[8], uint32_t at_frame,
                        const uint8_t salts[8]);
/* Did a connection of ours begin it? */
bool hw_round_is_ours(struct hw_capture *capture, const uint8_t salts[8]);
/*
 * The worker runs and the WAL is in a new round, or at the beginning of one: note.at is that, if
 * all of the last one was logged; else the worker doubts.  HW_AGAIN: it is being begun.
 */
enum hw_status hw_round_follow(struct hw_capture *capture, const struct hw_wal_index_header *header,
                               struct hw_error *err) HW_MUST_CHECK;
/*
 * The worker runs and the WAL is empty: note.at is there then, if all was logged before; else the
 * worker doubts.  HW_AGAIN: somebody is about to say so.
 */
enum hw_status hw_round_follow_empty(struct hw_capture *capture,
                                     const struct hw_wal_index_header *header) HW_MUST_CHECK;

/* ----------------------------------------------------------------------------------- gate.c */

/* The log cannot be written: what is not in it will not be there in time. */
bool hw_gate_is_alarmed(struct hw_capture *capture);
/*
 * The process's own handle of the database and the header of its wal-index: then the capture is
 * ready.  HW_END: no connection here has that mapped.
 */
enum hw_status hw_gate_open(struct hw_capture *capture, bool with_index,
                            struct hw_error *err) HW_MUST_CHECK;
void hw_gate_close(struct hw_capture *capture);
void hw_gate_close_locked(struct hw_capture *capture); /* the caller holds `gate` */
enum hw_status hw_gate_header(struct hw_capture *capture, struct hw_wal_index_header *out);
enum hw_status hw_base_open(struct hw_capture *capture, sqlite3_file **out,
                            struct hw_error *err) HW_MUST_CHECK;
void hw_base_close(sqlite3_file *file);

#endif
