/*
 * served.h - the databases that `hyperwal serve` keeps open
 *
 * Each is open through the VFS, so that this process is the worker of its log, or stands by for
 * one. The connection has read once: it holds SHARED, and no other program's last close deletes
 * the WAL.
 */
#ifndef HYPERWAL_SERVED_H
#define HYPERWAL_SERVED_H

#include <hyperwal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sidecar.h"

struct served {
    char *path; /* full, owned */
    char name[64];
    sqlite3 *db; /* owned; NULL: a replica, whose log is served to others */
    struct sidecar sidecar;
    bool is_written;   /* somebody wrote to the WAL: not looked at yet */
    int64_t version;   /* data_version when we looked after the last write to the WAL */
    int delay_ms;      /* until the next look, doubled each time; 0: no more looks */
    double look_after; /* seconds_now() of the next look */
    dev_t device;      /* which file it was when it was opened */
    ino_t inode;
};

struct served_list {
    struct served *items; /* owned */
    size_t count;
    hyperwal_node *node; /* borrowed; serves them to others; NULL: no network */
};

/* What became of served_add(). */
enum served_result {
    SERVED_ADDED,
    SERVED_AGAIN,  /* somebody is writing to it just now: try again */
    SERVED_IGNORE, /* not a database, a replica, or served already; nothing was said */
    SERVED_FAILED, /* what is wrong was said */
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
 * due.
 */
void served_work(struct served_list *list);
/* Milliseconds until there is something to do; -1: nothing until the next write. */
int served_wait(const struct served_list *list);
/* The served database with this full path; NULL. */
struct served *served_find(struct served_list *list, const char *path);
void served_remove(struct served_list *list, struct served *served);
void served_release(struct served_list *list);

#endif
