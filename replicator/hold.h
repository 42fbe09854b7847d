/*
 * hold.h - keep writers out for a moment whose length nothing else decides
 *
 * What is done meanwhile ends in fdatasync(), and takes what the disk takes.  So the write lock is
 * in the hands of a thread that waits for nothing but its orders and the clock: it gives the lock
 * back when it is told to, or when the time is over, whatever the caller is doing then.
 *
 *     caller   begin ──▶ log, copy ... ──▶ is_held? ──▶ end
 *     thread     BEGIN IMMEDIATE ━━━━━ held ━━━━━ ROLLBACK, at the latest after `limit`
 *
 * What the caller finds after a step it has found under the lock only if the hold is still on.
 */
#ifndef HYPERWAL_HOLD_H
#define HYPERWAL_HOLD_H

#include <hyperwal.h>
#include <pthread.h>
#include <stdbool.h>

struct hold {
    sqlite3 *writer; /* borrowed: the thread's until hold_end() */
    pthread_t thread;
    pthread_mutex_t mutex;  /* guards what follows */
    pthread_cond_t changed; /* state or is_done */
    enum hold_state { HOLD_TAKING, HOLD_HELD, HOLD_OVER } state;
    bool is_done;
    int code;     /* of taking the lock */
    double limit; /* seconds */
    double begin; /* seconds_now() before the lock was taken */
    double end;   /* and after it was given back */
};

/*
 * Take the write lock for at most `limit` seconds by `writer`, a connection without a transaction
 * and without a busy handler, which is not used otherwise until hold_end().  It does not go
 * through the VFS, whose gate may keep whoever takes the lock waiting.  SQLITE_BUSY: others had
 * the lock all the time.  Unless SQLITE_OK is returned there is nothing to end.
 */
int hold_begin(struct hold *hold, sqlite3 *writer, double limit);
/* Nobody has committed since hold_begin(). */
bool hold_is_held(struct hold *hold);
/* How much of the time is left, in milliseconds. */
unsigned hold_left_ms(struct hold *hold);
/* The lock is free when this returns.  How long it was held at most, in seconds. */
double hold_end(struct hold *hold);
/* Half a millisecond, for who waits for something that tells nobody. */
void hold_nap(void);

#endif
