/*
 * node/cache_internal.h - what the files of a cache share; nothing outside this folder includes it
 *
 *   cache.c         the caches of this process: open, wait, read, close
 *   cache_dir.c     where they lie, and which log a URL means
 *   cache_bound.c   those that were not used for longest are removed
 *   cache_page.c    what processes tell each other
 *   cache_hold.c    the thread that is the holder or waits to be: mirror, applier
 *   cache_commit.c  their leases, commits and questions, for the VFS
 *   cache_write.c   connections that write: who has the role, the WRITE lock
 *   cache_fill.c    the holder's second thread: fetches and fills
 *
 *                  lock of holder.lock          log known            database made
 *     WAITING ────────────────────▶ STARTING ───────────▶ LOG ───────────────────▶ LIVE
 *        ▲                             │                   │  yield, close, failure  │
 *        └─────────────────────────────┴───────────────────┴─────────────────────────┘
 */
#ifndef HW_NODE_CACHE_INTERNAL_H
#define HW_NODE_CACHE_INTERNAL_H

#include <stdatomic.h>

#include "apply/lazy.h"
#include "env/shared_page.h"
#include "env/thread.h"
#include "node/cache.h"
#include "node/cache_page.h"
#include "node/place.h"
#include "wire/address.h"

enum {
    CACHE_CONNECT_MS = 10000, /* for a source to answer, where nothing is known yet */
    CACHE_GRACE_MS = 2000,    /* out of reach for so long: a reader is not kept waiting */
    CACHE_SLICE_MS = 200,     /* between two looks of who waits for somebody who may be dead */
    CACHE_WISH_MS = 300,      /* longer than SQLite's busy handler sleeps between two tries */
};

/*
 * A connection that writes and the keeper, under the mutex:
 *
 *   IDLE ──connection──▶ ASKED ──keeper, when it has applied so much──▶ GIVEN
 *    ▲                     │ time over                                    │ connection
 *    └─────────────────────┴────────── keeper took it back ◀── ENDED ◀────┘
 */
enum cache_write_state {
    CACHE_WRITE_IDLE,
    CACHE_WRITE_ASKED,
    CACHE_WRITE_GIVEN,
    CACHE_WRITE_ENDED
};
struct cache_write {
    enum cache_write_state state;
    uint64_t length;               /* ASKED: blocks to be applied before */
    struct hw_cache_state base;    /* GIVEN */
    struct hw_cache_state outcome; /* ENDED: what was committed, if has_outcome */
    bool has_outcome;
    struct hw_error result; /* of the last tenure */
};

struct hw_cache {
    struct hw_cache *next; /* registry */
    unsigned references;   /* registry's mutex */
    struct hw_env *env;
    sqlite3_vfs *base, *vfs; /* for files; the same with holes filled */
    char *dir;               /* owned, as all paths: KEY */
    char *path, *mirror_dir, *map_path, *lock_path;
    char *url;                    /* where it is first looked for */
    struct hw_address *addresses; /* owned */
    size_t address_count;
    uint8_t key[HW_KEY_SIZE];
    uint64_t timeout_ms;

    struct hw_shared_page *news; /* owned: of the mirror */
    struct cache_page *page;     /* owned */

    struct hw_mutex mutex;   /* guards what follows up to `keeper` */
    struct hw_lazy_map *map; /* owned; NULL: the database is not there yet */
    struct hw_vfs_lazy lazy; /* attached while `map` is there */
    sqlite3_file *guard;     /* owned: SHARED on the database; the filler writes through it */
    const char *guard_name;  /* owned, of sqlite3_create_filename() */
    _Atomic(struct hw_lazy_map *) shown; /* `map`, once all of the above is there */
    struct hw_error failure;             /* why this process could not begin to hold, and */
    uint32_t failures;                   /* how often: of the last time */
    struct cache_write write;
    struct hw_mirror *mirror; /* the keeper's, while it holds and may lend it; or NULL */
    unsigned mirror_uses;     /* the keeper does not end before they do */
    _Atomic uint32_t writers; /* connections that have, or waited for, the role: it is kept */
    _Atomic uint64_t wish_ns; /* until when it is kept for who waited in vain; 0: for nobody */

    struct hw_thread keeper;
    struct hw_file *lock;     /* owned, the keeper's: what is left when it was interrupted */
    _Atomic uint32_t closing; /* the last user left */
    _Atomic uint32_t waiting; /* the keeper waits for `lock`, and for nothing else */
};

/* ------------------------------------------------------------------------------ cache.c */

void cache_wake(struct hw_cache *cache); /* everybody who sleeps looks again */
/*
 * Map the pages and guard the file, if that was not done yet.  HW_ENOTFOUND: there is nothing that
 * can be trusted; HW_AGAIN: it is being made anew just now.
 */
enum hw_status cache_attach(struct hw_cache *cache, struct hw_error *err) HW_MUST_CHECK;
void cache_detach(struct hw_cache *cache); /* nobody of this process has files of it open */
/* A fetcher for a core of this cache's mirror, in any thread and process. */
struct cache_reader {
    struct hw_cache *cache;
    struct hw_core *core;
    uint64_t last, ahead, ahead_end; /* blocks read in order */
};
enum hw_status cache_fetch(void *reader, uint64_t block, struct hw_error *err);
/* Why nothing comes, as far as is known. */
void cache_problem(struct hw_cache *cache, char out[HW_ERROR_SIZE]);

/* ------------------------------------------------------------------------ cache_write.c */

/* The keeper's side: give the WRITE lock, or take it back.  True: nothing may be applied now. */
bool cache_write_step(struct hw_cache *cache, struct hw_replica *replica, struct hw_error *err);
enum cache_write_state cache_write_state(struct hw_cache *cache);
/* From now on the mirror may be borrowed; NULL: not any more, once all have given it back. */
void cache_mirror_lend(struct hw_cache *cache, struct hw_mirror *mirror);

/* ----------------------------------------------------------------------- cache_commit.c */

/* For vfs/vfs.h. */
enum hw_status cache_commit_begin(struct hw_cache *cache, uint64_t answer_ms,
                                  struct hw_vfs_base *out, struct hw_error *err) HW_MUST_CHECK;
void cache_commit_send(struct hw_cache *cache, const struct hw_vfs_outgoing *outgoing,
                       uint64_t timeout_ms, struct hw_vfs_answer *out);
enum hw_status cache_commit_end(struct hw_cache *cache, const struct hw_vfs_base *committed,
                                struct hw_error *err) HW_MUST_CHECK;
void cache_commit_outcome(struct hw_cache *cache, const struct hw_origin *origin,
                          uint64_t timeout_ms, struct hw_vfs_answer *out);

/* -------------------------------------------------------------------------- cache_dir.c */

/* CACHE, made if it is missing; owned by the caller. */
enum hw_status cache_root(struct hw_env *env, char **out, struct hw_error *err) HW_MUST_CHECK;
/* CACHE/KEY and what is in it, made if it is missing. */
enum hw_status cache_dir_make(struct hw_env *env, const char *root, const uint8_t key[HW_KEY_SIZE],
                              char **out, struct hw_error *err) HW_MUST_CHECK;
/* The log that `name` means: asked for, or remembered where nobody can be asked. */
enum hw_status cache_resolve(struct hw_env *env, const char *root, const char *name,
                             const struct hw_place *place, bool creates, uint8_t key[HW_KEY_SIZE],
                             struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------ cache_bound.c */

/* Until all caches take `max` bytes at the most (0: as the environment says, or the default). */
void cache_bound(struct hw_env *env, const char *root, uint64_t max);

/* ------------------------------------------------------------------------- cache_hold.c */

void *cache_keep(void *cache); /* the keeper thread */

/* ------------------------------------------------------------------------- cache_fill.c */

struct cache_filler;
enum hw_status cache_filler_start(struct hw_cache *cache, struct hw_mirror *mirror,
                                  struct cache_filler **out, struct hw_error *err) HW_MUST_CHECK;
void cache_filler_stop(struct cache_filler *filler); /* NULL does nothing */

#endif
