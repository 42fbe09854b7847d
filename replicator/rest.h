/*
 * rest.h - what is left of a served database that nobody uses
 *
 * A database that is served has several connections, a thread, and what a worker needs: fourteen
 * descriptors and half a megabyte.  When nothing has happened to it for a while all of that is
 * closed but one connection, which does not go through the VFS and keeps a read transaction open:
 * three descriptors and some kilobytes.  That is enough to keep the promise of sidecar.h:
 *
 *   log  ━━━━━━━━━━━━━━━━━━━▶ all is logged
 *   WAL  ────────────────────┤ the mark; nobody copies what comes after it, nobody closes last
 *
 * If all of the WAL is in the database, the mark is READ(0): then a new round may be begun, of
 * which nobody copies a frame.  So whatever others do, what the log does not have stays in the WAL
 * until inotify has told us and the database is opened again, with HYPERWAL_HELD_SINCE.
 *
 * Events of our own last moves come after the rest began.  Stamps of the two files tell them from
 * those of others; one so young that a later write could have the same time is not believed.
 */
#ifndef HYPERWAL_REST_H
#define HYPERWAL_REST_H

#include <hyperwal.h>
#include <stdbool.h>
#include <sys/stat.h>

struct rest_stamp {
    ino_t inode;
    off_t size;
    struct timespec modified;
};

struct rest {
    sqlite3 *db;                 /* owned; NULL: it does not rest */
    struct rest_stamp file, wal; /* when the rest began */
    bool is_old;                 /* so old that the same stamp is the same content */
};

/*
 * Begin: a read transaction at the end of the WAL.  Look then whether the log has reached it; if
 * not, rest_leave().
 */
int rest_take(struct rest *rest, const char *path);
/*
 * When all other connections of this process are closed: the same with a new one, after which no
 * descriptor but its three is left.  Not SQLITE_OK: somebody wrote meanwhile, and it does not rest.
 */
int rest_renew(struct rest *rest, const char *path);
void rest_leave(struct rest *rest);
/* Could somebody have written to the database since? */
bool rest_is_disturbed(const struct rest *rest, const char *path);

#endif
