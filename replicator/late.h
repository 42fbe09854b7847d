/*
 * late.h - what could not be served yet, and is tried again
 *
 * A call that failed says nothing about a file: not that it is no database, and not that it will
 * never be served.  So its path is kept here and tried again at a pace, slower each time; its own
 * events do not make that sooner, for our tries make events, too, unless somebody changed it.
 *
 *     late_begin() ── what is tried, and what failure() is told ── late_end(): kept, or forgotten
 *
 * What is wrong is said once, and again when it is something else.
 */
#ifndef HYPERWAL_LATE_H
#define HYPERWAL_LATE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum late_kind {
    LATE_FOUND,     /* a file of an open directory */
    LATE_NAMED,     /* a database of the configuration */
    LATE_DIRECTORY, /* to be watched, and looked into */
    LATE_GONE,      /* was served and removed: as the configuration has it, or the link to it */
};

enum late_outcome {
    LATE_DONE, /* or there is nothing to do any more */
    LATE_BUSY, /* somebody is in a transaction: sooner than after a failure */
    LATE_FAILED,
};

struct late_stamp { /* tells one state of a file from the next */
    ino_t inode;
    off_t size;
    struct timespec modified;
};

struct late {
    enum late_kind kind;
    char *path;              /* owned */
    char *said;              /* owned; NULL: nothing */
    double after;            /* in seconds_now(): not to be tried before */
    double tried;            /* when that was */
    double pause;            /* between the last try and the next */
    struct late_stamp stamp; /* of the file, before it was tried */
};

struct late_list {
    struct late *items; /* owned */
    size_t count;
    bool has_more;           /* than there is room for: look at all directories again */
    double more_after;       /* then */
    struct late_stamp stamp; /* of what is being tried */
    char *words;             /* what failure() was told meanwhile; owned */
};

void late_release(struct late_list *list);
/* May it be tried now?  Asked when something happened to it. */
bool late_may_try(struct late_list *list, enum late_kind kind, const char *path);
/* One that is due, from malloc(), to be tried at once; NULL: none. */
char *late_next(struct late_list *list, enum late_kind *kind);
/* For something nothing can be kept here: all directories are looked at again. */
void late_miss(struct late_list *list);
/* Is it time to look at all directories again?  That is asked once. */
bool late_takes_more(struct late_list *list);
/*
 * Files appeared, whose paths may be others than those that are kept: databases of the
 * configuration, and those that were removed, are tried soon if they have changed.
 */
void late_stir(struct late_list *list);
double late_wait(const struct late_list *list); /* seconds until something is due; < 0: nothing */

void late_begin(struct late_list *list, const char *path);
void late_end(struct late_list *list, enum late_kind kind, const char *path,
              enum late_outcome outcome);

#endif
