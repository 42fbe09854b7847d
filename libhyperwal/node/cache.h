/*
 * node/cache.h - the cache of a remote database on this machine, shared by all its processes
 *
 *      CACHE/                $HYPERWAL_CACHE, or $XDG_CACHE_HOME/hyperwal, or ~/.cache/hyperwal
 *        README              what this is
 *        names/              which log a URL was, when it was asked last
 *        KEY/                one a log
 *          db, db-wal, db-shm    the database with holes, its WAL and index
 *          db-hyper/             the log as far as it came (a mirror), and what a replica has
 *          present               which pages are in the file (apply/lazy.h)
 *          cache                 what the processes tell each other (node/cache_page.h)
 *          holder.lock           whose lock makes a process the holder
 *
 * In every process that has a cache open, a thread waits for the lock of `holder.lock`.  The one
 * that has it is the *holder*: it opens the mirror at the process's hub, starts a second thread
 * that fetches what anybody on the machine waits for and fills the holes, and applies the entries
 * of the log to the cache's WAL as they come.  When the holder dies another one has the lock at
 * once.
 *
 *     reader, any process ──wanted bit, ring──▶ filler ──▶ mirror ──▶ source
 *              ▲────────────── mark, ring ───────┘
 *     source ──push──▶ mirror ──ring──▶ applier ──▶ WAL ──▶ every reader's next transaction
 *
 * The applier has the WRITE lock of the cache's WAL for as long as it is the holder.  A connection
 * of the holder's process that may write the database asks for it (below).
 *
 * Threads: all functions from any thread.  Nothing here survives a fork: a child opens anew.
 */
#ifndef HW_NODE_CACHE_H
#define HW_NODE_CACHE_H

#include "node/hub.h"
#include "vfs/vfs.h"

/* For vfs/vfs.h: databases whose names are URLs. */
const struct hw_vfs_remotes *hw_cache_remotes(void);

/* ------------------------------------------------------- for a connection that writes */

/*
 * Make this process the holder, if it is not: the one that is gives its role up when it can.
 * HW_EBUSY: connections of it write, for turn_ms or longer; who calls again soon gets the role
 * after them.  HW_ETIMEOUT: it does not give it up, or the log cannot be opened.
 */
enum hw_status hw_cache_take_role(struct hw_cache *cache, uint64_t timeout_ms, uint64_t turn_ms,
                                  struct hw_error *err) HW_MUST_CHECK;
/*
 * The mirror through which this process, the holder, fetches; for messages on its links.  Valid
 * until hw_cache_mirror_release(), during which time the role is kept.  HW_EBUSY: not the holder.
 */
enum hw_status hw_cache_mirror_hold(struct hw_cache *cache, struct hw_mirror **out,
                                    struct hw_error *err) HW_MUST_CHECK;
void hw_cache_mirror_release(struct hw_cache *cache);

/* What readers of the cache see. */
struct hw_cache_state {
    uint64_t seq; /* last block of the newest transaction */
    uint64_t sum;
    uint32_t page_count, page_size;
};

/*
 * Apply everything below log length `length` (0: what there is), then let the WRITE lock of the
 * cache's WAL go, so that the calling connection can take it.  The applier stands still until
 * hw_cache_write_end().  One at a time: HW_EBUSY.  HW_ETIMEOUT: the entries did not come, and the
 * applier goes on.  *out is the state that the connection will build on.
 */
enum hw_status hw_cache_write_begin(struct hw_cache *cache, uint64_t length, uint64_t timeout_ms,
                                    struct hw_cache_state *out, struct hw_error *err) HW_MUST_CHECK;
/*
 * The connection gave the WRITE lock back.  `committed`: what it committed is entry `seq` of the
 * log, with this state after it: the frames stay, and the entry is not applied again.  NULL:
 * nothing was committed; frames that say otherwise are cut off.  HW_ECORRUPT: the WAL has another
 * end than what was committed: the cache is broken, and readers are told.
 */
enum hw_status hw_cache_write_end(struct hw_cache *cache, const struct hw_cache_state *committed,
                                  struct hw_error *err) HW_MUST_CHECK;

#endif
