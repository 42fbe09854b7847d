/*
 * watch.h - what happens in the directories of served databases
 *
 * A directory is watched for new databases if it was named; that of every served database is
 * watched, too: a program that does not use the VFS tells nobody when it commits, but it writes to
 * the WAL.  One inotify instance, one watch a directory.
 */
#ifndef HYPERWAL_WATCH_H
#define HYPERWAL_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "late.h"
#include "served.h"

struct watched {
    char *path;          /* full, owned */
    int watch;           /* -1: it is not there, or cannot be watched */
    bool is_open_to_new; /* databases that appear in it are served */
};

struct watch {
    struct served_list *served; /* borrowed */
    struct watched *items;      /* owned */
    size_t count;
    int inotify;
    bool is_json;          /* how the lines of new databases look */
    struct late_list late; /* what is tried again */
};

int watch_open(struct watch *watch, struct served_list *served, bool is_json);
void watch_close(struct watch *watch);
/* Watch the directory of the database with this full path. */
int watch_beside(struct watch *watch, const char *path);
/*
 * Take in databases of this directory, from the next watch_scan() on.  If it is watched already but
 * is another one by now, that is watched.
 */
int watch_directory(struct watch *watch, const char *path);
/* New databases of the directory with this full path are not taken in any more. */
void watch_shut(struct watch *watch, const char *path);
bool watch_is_open(const struct watch *watch, const char *path, size_t size);
/* Both at once; what failed is said, and tried again. */
void watch_take(struct watch *watch, const char *path, void (*each)(void *ctx), void *ctx);
/* Look for databases in all open directories; `each` is called after every one that was added. */
void watch_scan(struct watch *watch, void (*each)(void *ctx), void *ctx);
/*
 * A file of an open directory, by its full path, that may be a database: is it served now?  What
 * failed is tried again.
 */
bool watch_guess(struct watch *watch, const char *path);
void watch_read(struct watch *watch); /* the events that there are */

#endif
