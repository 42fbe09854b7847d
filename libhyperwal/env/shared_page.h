/*
 * env/shared_page.h - counters that the processes of one machine share about one log or replica
 *
 * One file `shared` of 4096 bytes in the log's directory, mapped by everybody who writes, captures,
 * follows or reads it.  It is never synced: after a boot, or if it does not check, whoever has the
 * worker's lock makes it anew.  What must survive is in the log.
 *
 *   byte 0   magic, version, boot id          fixed once valid
 *       64   wake         futex word: bumped whenever anything below changed that somebody awaits
 *       68   flags        urgent, yield: requests to the worker
 *       72   worker       process id of the worker, 0: none (for people; the lock decides)
 *       80   durable_length   blocks of the log that every reader may read        release/acquire
 *       88   wanted_length    somebody waits for the log to be longer than this - 1
 *       96   log position     under a sequence lock: salts and frame up to which the log reaches
 *      128   counters         committed, logged, applied, unconfirmed
 *     1024   mailbox          requests of other processes to the worker (label, snapshot, prune)
 *
 * Memory order: durable_length is stored with release after the log's fdatasync, and loaded with
 * acquire before a block is read; `wake` is bumped with a full barrier after the change it tells of.
 * Any process may die at any point: nothing here is ever waited for without a timeout or a second
 * look at who holds the worker's lock.
 */
#ifndef HW_ENV_SHARED_PAGE_H
#define HW_ENV_SHARED_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "env/env.h"

enum { HW_SHARED_PAGE_SIZE = 4096, HW_MAILBOX_TEXT_SIZE = 224 };

struct hw_shared_page; /* this process's mapping of the file */

/* Up to where in the WAL the log (or, on a replica, the applied state) reaches. */
struct hw_shared_position {
    uint8_t salts[8];
    uint32_t frame;
    uint64_t seq; /* last block of the entry at that frame; UINT64_MAX: none yet */
};

/*
 * Map `dir`/shared, made if `create`.  A page of another boot or version, or a damaged one, is reset
 * if `create`, else HW_ENOTFOUND: nobody is at work here.  `memory` (dir NULL): private to the caller.
 */
enum hw_status hw_shared_page_open(struct hw_env *env, const char *dir, bool create,
                                   struct hw_shared_page **out, struct hw_error *err) HW_MUST_CHECK;
void hw_shared_page_close(struct hw_shared_page *page);

uint64_t hw_shared_durable_length(struct hw_shared_page *page);
void hw_shared_set_durable_length(struct hw_shared_page *page, uint64_t length); /* and wakes */
struct hw_shared_position hw_shared_position(struct hw_shared_page *page);
void hw_shared_set_position(struct hw_shared_page *page, const struct hw_shared_position *position);

/* The word to wait on: read it, look whether what you wait for is there, then wait on the value. */
uint32_t hw_shared_wake_count(struct hw_shared_page *page);
void hw_shared_wait(struct hw_shared_page *page, uint32_t seen, uint64_t timeout_ns);
void hw_shared_wake(struct hw_shared_page *page);

/* Tell the worker that a follower waits for a log longer than `length`: it will not delay its sync. */
void hw_shared_want_length(struct hw_shared_page *page, uint64_t length);
bool hw_shared_is_wanted(struct hw_shared_page *page, uint64_t durable_length);

/* Applied seq of a replica; UINT64_MAX: none. */
uint64_t hw_shared_applied_seq(struct hw_shared_page *page);
void hw_shared_set_applied_seq(struct hw_shared_page *page, uint64_t seq); /* and wakes */

#endif
