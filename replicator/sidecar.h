/*
 * sidecar.h - protect the log of a database whose programs do not use the VFS
 *
 * Such a program asks no gate before it checkpoints the WAL or writes it again from its start.
 * What holds it back are SQLite's own read marks: frames above the oldest mark are not copied into
 * the database, and a WAL with a mark in it is not restarted.  So a read transaction is kept open
 * at or below the end of the log, and moved up as the log grows:
 *
 *       WAL  ──────────┬───────────────┬────────────▶ commits of others
 *                      │ old mark      │ new mark
 *       log  ━━━━━━━━━━━━━━━━▶         then the log reaches the new mark, and the old one goes
 *
 * Marks alone would let the WAL grow for ever.  When it is too long we log and copy what there is,
 * and then keep writers out while the rest is: for a few milliseconds, whatever it takes (hold.h),
 * and the more often the longer the WAL is.  So it is bounded, also if writers are faster than the
 * log or never rest, and a wait for the write lock is too.
 *
 * A reader that comes when all of the WAL is in the database gets no mark but READ(0): it lets the
 * next writer begin a new round, and lets nobody copy a frame of that.  So the log, which has all
 * of the old round, misses nothing of the new one: the worker in this process is told so
 * (hyperwal_hold()) and follows.  The same way we get out of the way of a program that wants to
 * restart or truncate the WAL.
 *
 * A worker in another process asks its gate alone.  Then READ(0) is avoided: the first mark is
 * planted at a frame of our own, which nobody could copy yet, a mark moves only to a frame above
 * the one it is at, and a new round is begun by us: a commit that changes nothing
 * (hyperwal_touch()), so that no writer from afar is late because of it; that restart goes through
 * the gate of the VFS.
 *
 * Marks of two servers would keep each other from restarting the WAL: the lock of the file
 * `sidecar.lock` in the log's directory decides which one has them.  The other one tries again
 * whenever somebody writes to the WAL.
 */
#ifndef HYPERWAL_SIDECAR_H
#define HYPERWAL_SIDECAR_H

#include <hyperwal.h>
#include <stdbool.h>

struct sidecar_sample { /* of the WAL */
    double time;
    unsigned frames, logged_frames;
};

struct sidecar {
    sqlite3 *marks[2]; /* owned; marks[0] has the read transaction that counts */
    sqlite3 *copier;   /* owned; past the VFS: copies up to the mark; never has a transaction */
    sqlite3 *writer;   /* owned; past the VFS: keeps writers out, and writes nothing */
    int lock;          /* descriptor of sidecar.lock; -1: not open */
    bool has_lock;
    bool is_others;    /* another server has the lock */
    bool holds;        /* marks[0] counts, and the worker here was told */
    bool is_due;       /* somebody wrote to the WAL or the database since */
    int settle_ms;     /* to the move after the next: the last one may have come too early */
    double move_after; /* in seconds_now(), like the next two */
    double rest_until; /* writers are not kept out before */
    double copied;     /* when we last copied frames */
    char *path;        /* owned */
    double limit;      /* bytes of frames: a WAL that is longer is to become shorter */
    int frames;        /* with the worker elsewhere: in the WAL when the mark was taken; 0: none */
    int tried_frames;  /* length of the WAL when a restart was tried; 0: not in this round */
    unsigned logged_frames; /* when we last looked */
    double logged;          /* when that was seen to grow */
    struct sidecar_sample sample;
    bool is_outrun;      /* writers have written faster than the log since the round began */
    unsigned hold_count; /* how often writers were kept out; then, in seconds: */
    double hold_longest, hold_total;
};

/* Open the two connections; the first move, which is due at once, plants the mark. */
int sidecar_open(struct sidecar *sidecar, const char *path);
void sidecar_close(struct sidecar *sidecar);
/*
 * Somebody wrote to the WAL or the database.  That is seen before the commit or the checkpoint is
 * complete, so the mark is moved again at growing intervals, for some seconds.
 */
void sidecar_wake(struct sidecar *sidecar);
/*
 * Move the mark up to the end of the WAL, and have the WAL restarted if it has grown too long.
 * `db` is a third connection through the VFS, without a transaction.  Waits for the log, bounded.
 * SQLITE_BUSY: another program was in the way, or the log is not being written yet; the old mark
 * stands, and is_due says whether to try again.  It does after failures, too.
 */
int sidecar_move(struct sidecar *sidecar, sqlite3 *db);

#endif
