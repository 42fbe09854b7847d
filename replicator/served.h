/*
 * served.h - the databases that `hyperwal serve` keeps open
 *
 *      AWAKE ──── nothing happened for rest_s, and all is in the log ───▶ RESTING
 *        ▲                                                                   │
 *        └─────────────── somebody wrote to the database or its WAL ─────────┘
 *
 * Awake: open through the VFS, so that this process is the worker of its log, or stands by for one.
 * The connection has read once: it holds SHARED, and no other program's last close deletes the WAL.
 * Marks for programs without the VFS (sidecar.h) are kept.  Resting: rest.h.  Going either way
 * there is always a connection that holds a read mark.
 */
#ifndef HYPERWAL_SERVED_H
#define HYPERWAL_SERVED_H

#include <hyperwal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "rest.h"
#include "sidecar.h"

enum { SERVED_NAME_MAX = 120 }; /* bytes of a file's name that are part of what it is called */

struct served {
    char *path;  /* full, owned */
    char *link;  /* found through this file of an open directory; owned; NULL: as it is */
    char *named; /* so the configuration has it; owned; NULL: it does not */
    char name[SERVED_NAME_MAX + 8];
    bool is_replica;  /* its log is served to others: there is nothing to open */
    sqlite3 *db;      /* owned; NULL: it is a replica, or rests */
    bool has_sidecar; /* while awake: marks are kept for programs without the VFS */
    struct sidecar sidecar;
    struct rest rest;     /* is left when the sidecar has a mark of its own again */
    bool is_foreign;      /* a program without the VFS has committed */
    bool is_unjudged;     /* there was a commit, and nobody looked whose it was */
    double judge_after;   /* seconds_now(): not before */
    double suspect_since; /* seconds_now() of a commit that may be one; 0: there is none */
    uint64_t commits;     /* through the VFS, as of the last look */
    bool has_head;        /* of its log, as it was when it rested already */
    hyperwal_head head;
    uint64_t rest_seq; /* of the log, when it began to rest */
    bool is_touched;   /* somebody wrote to the database or the WAL: not looked at while it rests */
    bool is_fresh;     /* nothing was written to it since it was opened at the start */
    double rest_after; /* in seconds_now(): not to rest before */
    bool is_written;   /* somebody wrote to the WAL: not looked at yet */
    int64_t version;   /* data_version when we looked after the last write to the WAL */
    int delay_ms;      /* until the next look, doubled each time; 0: no more looks */
    double look_after; /* seconds_now() of the next look */
    dev_t device;      /* which file it was when it was opened */
    ino_t inode;
};

struct served_list {
    unsigned rest_s;      /* without events, until a database rests; 0: never */
    struct served *items; /* owned */
    size_t count;
    size_t turn;         /* whose turn it is: it goes round */
    hyperwal_node *node; /* borrowed; serves them to others; NULL: no network */
};

/* What became of served_add(). */
enum served_result {
    SERVED_ADDED,
    SERVED_AGAIN,  /* somebody is writing to it just now: try again */
    SERVED_IGNORE, /* not a database, a replica, or served already; nothing was said */
    SERVED_FAILED, /* it, or a call to see what it is; what is wrong was said */
};

/*
 * Open `path` and print its line (NAME KEY URL, or an object).  With `is_guess` a file that is no
 * database, or none yet, is ignored.  A replica that is named is served too if there is a network.
 * *result: the exit code of a failure.
 */
enum served_result served_add(struct served_list *list, const char *path, bool is_guess,
                              bool is_json, int *result);
/*
 * Tell the log about programs that do not use the VFS.  A commit can be seen only after its last
 * write to the WAL, and in between lies an fsync: so after each write we look, and look again at
 * growing intervals until there was a commit, or for some seconds.  Also moves read marks that are
 * due.  About a second at the most: then the others' turn comes with the next call.
 */
void served_work(struct served_list *list);
/* A file of it was written: the database, or (is_wal) its WAL. */
void served_touch(struct served *served, bool is_wal);
/* Milliseconds until there is something to do; -1: nothing until the next write. */
int served_wait(const struct served_list *list);
/* The served database with this full path; NULL. */
struct served *served_find(struct served_list *list, const char *path);
/* The one that was found through this link; NULL. */
struct served *served_find_link(struct served_list *list, const char *link);
/* May the file that was opened still be where it was, and where the link leads to? */
bool served_is_there(const struct served *served);
/* `is_tidy`: the WAL of a database at rest goes, too; that takes some milliseconds. */
void served_remove(struct served_list *list, struct served *served, bool is_tidy);
void served_release(struct served_list *list);

#endif
