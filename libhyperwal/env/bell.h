/*
 * env/bell.h - one thread sleeps; others ring, and so do files that somebody writes
 *
 * The way in which one thread waits for its own process and for the workers of any number of logs
 * in other processes, without polling: an eventfd and an inotify.
 *
 * Threads: one waits, watches and unwatches; anybody rings.
 */
#ifndef HW_ENV_BELL_H
#define HW_ENV_BELL_H

#include "base/error.h"
#include "env/env.h"

struct hw_bell;

enum hw_status hw_bell_open(struct hw_env *env, struct hw_bell **out,
                            struct hw_error *err) HW_MUST_CHECK;
void hw_bell_close(struct hw_bell *bell); /* NULL does nothing */
void hw_bell_ring(struct hw_bell *bell);  /* any thread; signal handlers */
/*
 * Ring, and tell *watch, whenever the file `path` is written to, or removed, which ends the watch;
 * or, if it is a directory, whenever a name appears in it.  Watching one file twice gives the same
 * watch twice, and one unwatch ends it.  One thread at a time, which need not be the one that
 * waits: that one may hear a bell's first watch only after the next ring.  HW_ENOTFOUND; HW_ELIMIT:
 * the system's limit of watches.
 */
enum hw_status hw_bell_watch(struct hw_bell *bell, const char *path, int *watch,
                             struct hw_error *err) HW_MUST_CHECK;
void hw_bell_unwatch(struct hw_bell *bell, int watch); /* one that ended: nothing */
/*
 * Sleep until it rings or timeout_ns passed (UINT64_MAX: for ever); may return early.  `each` is
 * told the watches that rang, -1: some were lost, all may have.  A ring while nobody sleeps is kept
 * for the next sleep.
 */
void hw_bell_wait(struct hw_bell *bell, uint64_t timeout_ns, void (*each)(void *ctx, int watch),
                  void *ctx);

#endif
