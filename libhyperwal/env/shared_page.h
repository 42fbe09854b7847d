/*
 * env/shared_page.h - counters that the processes of one machine share about one log or replica
 *
 * One file `shared` of 4096 bytes in the log's directory, mapped by everybody who writes, captures,
 * follows or reads it.  It is never synced: after a boot, or if it does not check, it is made anew.
 * What must survive is in the log.
 *
 *   byte 0  magic, version, boot id              fixed once valid
 *       24  delaying        1: the worker sleeps with commits to log, who wants them must ring
 *       28  watched         1: somebody watches the file `bell`
 *       32  remote          two times, ns since boot: followers were last waited for to have a
 *                           commit durable; to have it applied
 *       48  first_fork      the log is not to be signed under a fork below this one
 *       56  handover        1: another log is about to go on from this one, 2: it does
 *       64  news            futex word: bumped after anything here changed that somebody awaits
 *       68  work            futex word: the worker sleeps on it
 *       72  idle            1: the worker sleeps, a committer must ring
 *       76  urgent          1: somebody waits, the worker must not delay its sync
 *       80  yield           process id that asks for the worker's role, 0: nobody
 *       84  worker          process id of the worker, 0: none (for people; the lock decides)
 *       88  durable_length  blocks of the log that every reader may read
 *       96  wanted_length   somebody waits for the log to be at least so long
 *      104  applied_seq     of a replica, plus 1; 0: none
 *      112  committed       write locks released since the page was made
 *      120  positions       each a generation and two slots: up to where the log reaches; where it
 *                           reached when the WAL was emptied through door 3; the round of the WAL
 *                           that began last; up to where the WAL is synced; the newest gap
 *      512  alarm           what is wrong, empty if nothing is
 *     1024  mailbox         requests of other processes to the worker
 *
 * Memory order: durable_length is stored with release after the log's fdatasync and loaded with
 * acquire before a block is read.  The bell is Dekker's: a committer counts and then looks at idle,
 * the worker sets idle and then looks at the count; both sequentially consistent.  A position is
 * written to the slot that nobody reads, then the generation moves; a reader that saw it move reads
 * again.  Any process may die at any point: nothing is waited for without a second look at who
 * holds the worker's lock.
 *
 * Threads: all functions may be called from any thread; hw_shared_wake() also from a signal
 * handler.
 */
#ifndef HW_ENV_SHARED_PAGE_H
#define HW_ENV_SHARED_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "env/env.h"

enum { HW_SHARED_PAGE_SIZE = 4096, HW_SHARED_TEXT_SIZE = 256 };

struct hw_shared_page; /* this process's mapping of the file */

/*
 * Map `dir`/shared.  With `create` it is made if it is missing, and made anew if it is of another
 * boot or version or damaged; without, that is HW_ENOTFOUND: nobody is at work here.
 * `dir` NULL: a page of the caller's own memory.
 */
enum hw_status hw_shared_page_open(struct hw_env *env, const char *dir, bool create,
                                   struct hw_shared_page **out, struct hw_error *err) HW_MUST_CHECK;
void hw_shared_page_close(struct hw_shared_page *page); /* NULL does nothing */
struct hw_env *hw_shared_env(const struct hw_shared_page *page);

/* News: read the count, look whether what you wait for is there, then wait on the count. */
uint32_t hw_shared_wake_count(struct hw_shared_page *page);
void hw_shared_wait(struct hw_shared_page *page, uint32_t seen, uint64_t timeout_ns);
void hw_shared_wake(struct hw_shared_page *page);

/*
 * Who cannot wait on the page because it waits for much else (env/bell.h) watches the file
 * `dir`/bell instead, which is there when this returns: from the first call on it is written to
 * whenever the durable length was set, and when somebody begins to wait for followers.  Look at
 * both once more after the watch has begun.  HW_EMISUSE: a page without a directory has no bell.
 */
enum hw_status hw_shared_watch(struct hw_shared_page *page, struct hw_error *err) HW_MUST_CHECK;

/*
 * Somebody waits for followers to confirm a commit: 1 durable, 2 applied; 0: nobody any more.  Who
 * goes on waiting says it again within a second.
 */
void hw_shared_set_remote_wait(struct hw_shared_page *page, unsigned level);
/* The highest level asked for within a second of the last time, *since_ns; 0: never. */
unsigned hw_shared_remote_wait(struct hw_shared_page *page, uint64_t *since_ns);

uint64_t hw_shared_durable_length(struct hw_shared_page *page);
void hw_shared_set_durable_length(struct hw_shared_page *page, uint64_t length); /* and wakes */
/*
 * A follower has `length` blocks and waits for more: the worker will not delay its sync, nor goes
 * on delaying it.  An idle worker sleeps on.
 */
void hw_shared_want_length(struct hw_shared_page *page, uint64_t length);
bool hw_shared_is_wanted(struct hw_shared_page *page);

/*
 * The log is being handed over to another one: nobody begins to write any more until it is known
 * whether it was.  Or it was: nobody ever does.  Told by the worker.
 */
enum hw_handover { HW_HANDOVER_NONE, HW_HANDOVER_CLOSING, HW_HANDOVER_DONE };
void hw_shared_set_handover(struct hw_shared_page *page, enum hw_handover handover);
enum hw_handover hw_shared_handover(struct hw_shared_page *page);

/* Up to where in the WAL the log reaches. */
struct hw_shared_position {
    uint8_t salts[8];
    uint32_t frame;
    uint64_t seq; /* of the last state-carrying entry; UINT64_MAX: none yet */
};
struct hw_shared_position hw_shared_position(struct hw_shared_page *page);
void hw_shared_set_position(struct hw_shared_page *page, const struct hw_shared_position *position);
/* Both, and wakes: who sees the position sees the length that goes with it. */
void hw_shared_publish(struct hw_shared_page *page, const struct hw_shared_position *position,
                       uint64_t durable_length);

/*
 * The salts that the wal-index has while the WAL is empty name an emptying: each one makes new
 * ones, and who writes the first frame need not use them.
 */

/* A connection of ours emptied the WAL when the log reached to here, which was all of it. */
struct hw_shared_door {
    uint8_t salts[8];
    uint32_t frame;
    uint8_t empty_salts[8]; /* of the wal-index after it */
};
struct hw_shared_door hw_shared_door(struct hw_shared_page *page);
void hw_shared_set_door(struct hw_shared_page *page, const struct hw_shared_door *door);

/* A connection of ours began a round of the WAL, which was empty, with `salts`. */
struct hw_shared_round {
    uint8_t salts[8];
    bool is_known;          /* what the wal-index was before */
    uint8_t empty_salts[8]; /* that */
};
struct hw_shared_round hw_shared_round(struct hw_shared_page *page);
void hw_shared_set_round(struct hw_shared_page *page, const struct hw_shared_round *round);

/* The newest gap entry: the log went from `before` to `after`, without what is between. */
struct hw_shared_gap {
    struct hw_shared_position before; /* its seq is not kept */
    struct hw_shared_position after;  /* seq: the entry's */
};
/* How many there were since the page was made; if any, *newest is set. */
uint64_t hw_shared_gaps(struct hw_shared_page *page, struct hw_shared_gap *newest);
void hw_shared_add_gap(struct hw_shared_page *page, const struct hw_shared_gap *gap);

/* The WAL is synced up to `size` bytes of the round with these salts; 0 if another round. */
uint64_t hw_shared_wal_synced(struct hw_shared_page *page, const uint8_t salts[8]);
void hw_shared_set_wal_synced(struct hw_shared_page *page, const uint8_t salts[8], uint64_t size);

/* A committer tells; wakes the worker if it sleeps. */
void hw_shared_commit(struct hw_shared_page *page);
uint64_t hw_shared_commits(struct hw_shared_page *page);
/* The same for a commit that somebody else made: it is not counted. */
void hw_shared_look(struct hw_shared_page *page);
/* Make the worker look now and not delay its sync. */
void hw_shared_urge(struct hw_shared_page *page);
bool hw_shared_take_urgent(struct hw_shared_page *page); /* and clears it */
/*
 * The worker sleeps until a ring after it had read `seen`, or timeout_ns passed.  With `is_needed`
 * it announces that it is idle, so that the next commit rings, and asks once more before sleeping;
 * with NULL commits do not wake it, only rings and followers.  May return early.
 */
uint32_t hw_shared_work_count(struct hw_shared_page *page);
void hw_shared_worker_sleep(struct hw_shared_page *page, uint32_t seen,
                            bool (*is_needed)(void *ctx), void *ctx, uint64_t timeout_ns);
void hw_shared_ring(struct hw_shared_page *page); /* wake the worker */
void hw_shared_set_worker(struct hw_shared_page *page, uint32_t process_id);
uint32_t hw_shared_worker(struct hw_shared_page *page);
/* Ask the worker, if it is another process, to let the role go to `process_id` (0: no more). */
void hw_shared_set_yield(struct hw_shared_page *page, uint32_t process_id);
uint32_t hw_shared_yield(struct hw_shared_page *page);

/* Applied seq of a replica; UINT64_MAX: none. */
uint64_t hw_shared_applied_seq(struct hw_shared_page *page);
void hw_shared_set_applied_seq(struct hw_shared_page *page, uint64_t seq); /* and wakes */

/*
 * Somebody proved to have more of the log than it has itself: nothing is to be signed under `fork`,
 * or one below, any more.  Wakes the worker.
 */
void hw_shared_end_fork(struct hw_shared_page *page, uint64_t fork);
bool hw_shared_may_sign(struct hw_shared_page *page, uint64_t fork);

/* What is wrong now, for all processes to see; "" if nothing is. */
void hw_shared_set_alarm(struct hw_shared_page *page, const char *text);
void hw_shared_alarm(struct hw_shared_page *page, char out[HW_SHARED_TEXT_SIZE]);

/* ------------------------------------------------------------------------------- mailbox */

/*
 *   FREE ─▶ FILLING ─▶ POSTED ─▶ TAKEN ─▶ DONE ─▶ FREE
 *                        ▲_________│                     a worker that died: posted again
 *
 * A slot whose deadline passed is anybody's: its owner died or gave up.  So is an answer that
 * nobody fetches for ten seconds.  `mail` names one use of one slot.
 */
enum { HW_MAILBOX_SLOTS = 4, HW_MAILBOX_ABANDONED_MS = 10000 };
struct hw_request {
    uint32_t kind;
    uint64_t argument;
    char text[HW_SHARED_TEXT_SIZE];
};
struct hw_answer {
    enum hw_status status;
    uint64_t result;
    char text[HW_SHARED_TEXT_SIZE]; /* the message of a failure */
};

/* HW_AGAIN: all slots are taken. */
enum hw_status hw_mailbox_post(struct hw_shared_page *page, const struct hw_request *request,
                               uint64_t deadline_ns, uint64_t *mail) HW_MUST_CHECK;
/*
 * HW_AGAIN: not answered yet.  HW_OK: *answer is filled and the slot is free again.  HW_END: it was
 * given up, or collected before.
 */
enum hw_status hw_mailbox_collect(struct hw_shared_page *page, uint64_t mail,
                                  struct hw_answer *answer) HW_MUST_CHECK;
void hw_mailbox_cancel(struct hw_shared_page *page, uint64_t mail);
/* The worker's side.  HW_END: nothing is posted that is waited for; what is not is given up. */
enum hw_status hw_mailbox_take(struct hw_shared_page *page, struct hw_request *request,
                               uint64_t *mail) HW_MUST_CHECK;
/* Of one that is taken and not answered: is it waited for yet? */
bool hw_mailbox_is_wanted(struct hw_shared_page *page, uint64_t mail);
/* 0: nothing is posted.  Else a number that is another one when other requests are. */
uint64_t hw_mailbox_posted(struct hw_shared_page *page);
/* What was given up meanwhile needs no answer, and gets none. */
void hw_mailbox_answer(struct hw_shared_page *page, uint64_t mail, const struct hw_answer *answer);
void hw_mailbox_repost(struct hw_shared_page *page); /* a new worker: what the old one had taken */

#endif
