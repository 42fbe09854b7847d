/*
 * api_follow.h - a follower, and how it passes to a log that goes on from the one it follows
 *
 * A primary that took over has a log of its own, the heir, and serves it by the name that the old
 * one had.  A source that calls another log by our name makes the follower look at that one: if its
 * switch names our log, and our state is the one that went over, the follower leaves the old log's
 * mirror where it is kept, begins one of the heir's, and the replica moves (hw_replica_move()).
 *
 * If several changes of the primary were missed, the log with our name goes on from another one
 * that is not ours.  That one is kept where the new one is, and served by its key; so is the one
 * before.  The first of them whose switch names our log is the heir then, and the next is found
 * from there.
 *
 *      ours ◀──switch── kept ◀──switch── kept ◀──switch── the one that has the name
 *             the heir, now
 */
#ifndef HW_API_FOLLOW_H
#define HW_API_FOLLOW_H

#include <stdatomic.h>

#include "api_log.h"
#include "api_remote.h"

enum {
    HW_FOLLOW_SKIPS_MAX = 64,
    HW_FOLLOW_CHANGES_MAX = 16, /* of the primary, that may have been missed */
    HW_FOLLOW_SWITCH_SEQ = 1,   /* where a log says which one it goes on from */
};

struct hyperwal_follower {
    struct hyperwal_node *node; /* borrowed; NULL: each mirror has one of its own */
    struct hyperwal_log *log;   /* owned; NULL: between two logs, and the second cannot be had */
    struct hw_replica *replica; /* owned; NULL: the log has no snapshot to begin with yet */
    char *path;                 /* owned */
    char *dir;                  /* owned; path-hyper; NULL: a log of this machine */
    char *source;               /* owned: what the replica is to remember */
    const char *sources[HW_HUB_SOURCES_MAX]; /* owned; URLs */
    unsigned source_count;
    char *petname;     /* owned; by which a source was named; NULL: none was */
    bool has_name_key; /* a petname says which log a new replica is to be of: */
    uint8_t name_key[HW_KEY_SIZE];
    struct hw_mirror *mirror; /* borrowed from the log; NULL: a log of this machine */
    hyperwal_progress progress;
    void *progress_ctx;
    unsigned absent; /* times in a row that no source had a block */
    _Atomic int is_interrupted;
    _Atomic int is_moving, interrupters; /* see hyperwal_follow_interrupt() */
    struct hw_follow_range {
        uint64_t start, end;
    } skips[HW_FOLLOW_SKIPS_MAX]; /* blocks that need not be had */
    unsigned skip_count;
    bool has_heir; /* the log to follow from now on: */
    uint8_t heir_key[HW_KEY_SIZE];
    bool has_stranger; /* a log that has our name and does not go on from ours; told once */
    uint8_t stranger_key[HW_KEY_SIZE];
    uint64_t stranger_again_ns; /* when to look at it again */
    uint64_t behind_ns; /* when the heir was first seen while blocks of our log were missing; 0 */
    struct hw_error err;
};

/*
 * Is there a log to go over to, now that all of ours is applied that can be had?  Then it is in
 * heir_key.  `is_hopeless`: nobody gives what is missing.
 */
bool hw_follow_has_heir(struct hyperwal_follower *follower, bool is_hopeless);
bool hw_follow_goes_on(void *follower); /* nobody wants it to stop */
/*
 * At the start.  HW_EBUSY: it is being made a primary, whose log may be in `dir` already; nothing
 * of what is there may be moved for a follower.
 */
enum hw_status hw_follow_check_promotion(const char *path, const char *dir,
                                         struct hw_error *err) HW_MUST_CHECK;
/*
 * At the start: none of the sources has the log that is here.  HW_END: one of them has its heir,
 * and the way is free.  Else *err, as it is or with more.
 */
enum hw_status hw_follow_look_for_heir(struct hyperwal_follower *follower,
                                       struct hw_error *err) HW_MUST_CHECK;
/*
 * At the start: the database `path` has a log of its own, in `dir`.  If `heir`, the log that is to
 * be followed, goes on from that one it becomes a replica, and its log is kept beside it with all
 * that came after the switch.  HW_EEXIST: it does not.  HW_EBUSY: a program has it open.
 */
enum hw_status hw_follow_demote(const char *path, const char *dir, struct hyperwal_log *heir,
                                struct hw_error *err) HW_MUST_CHECK;
/*
 * The same with the log that the first source that answers calls by its name, or one that this one
 * goes on from; heir_key says which.
 */
enum hw_status hw_follow_demote_by_name(struct hyperwal_follower *follower, const char *path,
                                        struct hw_error *err) HW_MUST_CHECK;
/* The log that `log` goes on from.  HW_END: from none. */
enum hw_status hw_follow_before(struct hyperwal_log *log, uint8_t key[HW_KEY_SIZE],
                                struct hw_error *err) HW_MUST_CHECK;
/*
 * The log that goes on from `own`, among those that are kept beside `log`, which goes on from them;
 * *out is the caller's, NULL if it is `log`.  HW_END: none of them.
 */
enum hw_status hw_follow_kept_heir(struct hyperwal_log *log, const uint8_t own[HW_KEY_SIZE],
                                   struct hyperwal_log **out, struct hw_error *err) HW_MUST_CHECK;
/*
 * The replica is of a log of this machine, from which follower->log goes on by way of others that
 * are kept beside it: it passes through those, so that the last one is what is left to go over to.
 */
enum hw_status hw_follow_missed(struct hyperwal_follower *follower, hw_progress *progress,
                                struct hw_error *err) HW_MUST_CHECK;
/* The replica went over: its petname, if it was named so, means the heir from now on. */
void hw_follow_rename(struct hyperwal_follower *follower);
/* Close what is open of the log that was followed. */
void hw_follow_leave(struct hyperwal_follower *follower);
/* Its mirror makes room for the heir's, if that is not there yet; goes on where a call failed. */
enum hw_status hw_follow_keep(struct hyperwal_follower *follower,
                              struct hw_error *err) HW_MUST_CHECK;
/*
 * At the start: the mirror of the replica's log, `key` (NULL: there is no replica yet), is in its
 * place again if it made room for an heir's that was never there.
 */
enum hw_status hw_follow_mirror_back(struct hyperwal_follower *follower, const uint8_t *key,
                                     struct hw_error *err) HW_MUST_CHECK;

#endif
