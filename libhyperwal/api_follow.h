/*
 * api_follow.h - a follower, and how it passes to a log that goes on from the one it follows
 *
 * A primary that took over has a log of its own, the heir, and serves it by the name that the old
 * one had.  A source that calls another log by our name makes the follower look at that one: if its
 * switch names our log, and our state is the one that went over, the follower leaves the old log's
 * mirror where it is kept, begins one of the heir's, and the replica moves (hw_replica_move()).
 */
#ifndef HW_API_FOLLOW_H
#define HW_API_FOLLOW_H

#include <stdatomic.h>

#include "api_log.h"
#include "api_remote.h"

enum { HW_FOLLOW_SKIPS_MAX = 64 };

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
    uint64_t behind_ns; /* when the heir was first seen while blocks of our log were missing; 0 */
    struct hw_error err;
};

/*
 * Is there a log to go over to, now that all of ours is applied that can be had?  Then it is in
 * heir_key.
 */
bool hw_follow_has_heir(struct hyperwal_follower *follower);
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
/* The same with the log that the first source that answers calls by its name. */
enum hw_status hw_follow_demote_by_name(struct hyperwal_follower *follower, const char *path,
                                        struct hw_error *err) HW_MUST_CHECK;
/* The replica went over: its petname, if it was named so, means the heir from now on. */
void hw_follow_rename(struct hyperwal_follower *follower);
/* Close what is open of the log that was followed. */
void hw_follow_leave(struct hyperwal_follower *follower);
/* Its mirror makes room for the next one. */
enum hw_status hw_follow_keep(struct hyperwal_follower *follower,
                              struct hw_error *err) HW_MUST_CHECK;

#endif
