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
 * Marks alone would let the WAL grow for ever.  When it passes WAL_LIMIT we take the write lock for
 * a moment, copy what is left, and write the first frame of the next round ourselves: a commit that
 * sets user_version to what it is.  That restart goes through the gate of the VFS, so the log knows
 * of it.
 *
 * A reader that comes when all of the WAL is in the database gets no mark but READ(0), and lets
 * others restart the WAL.  So the first mark is planted at a frame of our own that nobody could
 * copy yet, and a mark moves only to a frame above the one it is at, which nobody can have copied
 * either.
 *
 * Marks of two servers would keep each other from restarting the WAL: the lock of the file
 * `sidecar.lock` in the log's directory decides which one has them.  The other one tries again
 * whenever somebody writes to the WAL.
 */
#ifndef HYPERWAL_SIDECAR_H
#define HYPERWAL_SIDECAR_H

#include <hyperwal.h>
#include <stdbool.h>

struct sidecar {
    sqlite3 *marks[2]; /* owned; marks[0] has the read transaction that counts */
    int lock;          /* descriptor of sidecar.lock; -1: not open */
    bool has_lock;
    double moved;     /* when, in seconds_now() */
    bool is_due;      /* somebody wrote to the WAL since */
    int frames;       /* in the WAL when the mark was taken, or a few more; 0: no mark in it yet */
    int tried_frames; /* length of the WAL when a restart was tried; 0: not in this round */
};

/* Open the two connections; the first move, which is due at once, plants the mark. */
int sidecar_open(struct sidecar *sidecar, const char *path);
void sidecar_close(struct sidecar *sidecar);
/*
 * Move the mark up to the end of the WAL, and restart the WAL if it has grown too long.  `db` is a
 * third connection through the VFS, without a transaction.  Waits for the log, bounded.
 * SQLITE_BUSY: another program was in the way, or the log is not being written yet; the old mark
 * stands, and is_due says whether to try again.
 */
int sidecar_move(struct sidecar *sidecar, sqlite3 *db);

#endif
