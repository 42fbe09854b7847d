/* Implements sidecar.h. */
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "hold.h"
#include "report.h"

enum { BUSY_MS = 100 };
enum { WAIT_MS = 50 };           /* at a time, for the log; then look again */
enum { LENGTH_LIMIT = 8 << 20 }; /* bytes of frames: beyond, writers are kept out at all */
/* In such limits: from when on they are so again after each commit, and from when on for longer. */
enum { LENGTH_MOST = 3, LENGTH_LONG = 4 };
enum { COPY_PART = 2, LAG_PART = 8 }; /* of it: worth a copy; more than can be logged in a hold */
enum { HOLD_MS = 5, HOLD_LONG = 16 }; /* writers are kept out for so long, at most so many times */
enum { SAMPLE_PART = 4, SAMPLE_MS = 250 }; /* of it, and time: enough to judge writers by */
enum { PULSES_MS = 400 };                  /* for holds in a row; then others have their turn */
enum { STUCK_MS = 2000 }; /* a log that does not get on for so long is not waited for */
/*
 * After a hold writers are left alone: for long while there is little beyond the limit, and always
 * for longer than SQLite's busy handler sleeps between the tries (1, 2 and 5 ms) that it makes
 * during one hold: so a wait meets one hold, and is over 8 ms after it began.
 */
enum { REST_MS_LEAST = 9, REST_MS_MOST = 500 };
enum { ROUNDS = 4, LITTLE_FRAMES = 64 }; /* before a hold: until little is left to do under it */
enum { PACE_MS = 20, HURRY_MS = 2, RETRY_MS = 1000, COPY_MS = 100 };
enum { SETTLE_MS_LIMIT = 8192 }; /* after something happened it is looked after for twice that */

static int exec(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* A read transaction at the end of the WAL as of now. */
static int mark_take(sqlite3 *db)
{
    int code = exec(db, "BEGIN");

    if (code != SQLITE_OK)
        return code;
    code = exec(db, "SELECT count(*) FROM sqlite_schema");
    if (code != SQLITE_OK)
        (void)exec(db, "ROLLBACK"); /* nothing was begun that could be lost */
    return code;
}

static void mark_leave(sqlite3 *db)
{
    if (sqlite3_get_autocommit(db) == 0)
        (void)exec(db, "ROLLBACK"); /* a read transaction cannot fail to end */
}

/* The read transactions are about to end. */
static void hold_leave(struct sidecar *sidecar)
{
    if (sidecar->holds)
        (void)hyperwal_hold(sidecar->marks[0], NULL, 0); /* fails for no database of ours */
    sidecar->holds = false;
}

/* A connection past the VFS: it asks no gate, and nobody waits for what it does but this thread. */
static int plain_open(const char *path, sqlite3 **out)
{
    int code = sqlite3_open_v2(path, out, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE, NULL);

    /* SQLite opens the WAL at the first read; before, a checkpoint has nothing to do. */
    return code == SQLITE_OK ? exec(*out, "SELECT count(*) FROM sqlite_schema") : code;
}

int sidecar_open(struct sidecar *sidecar, const char *path)
{
    char *lock = sqlite3_mprintf("%s-hyper/sidecar.lock", path);
    int code;

    *sidecar =
        (struct sidecar){.is_due = true, .lock = -1, .settle_ms = PACE_MS, .limit = LENGTH_LIMIT};
    sidecar->path = sqlite3_mprintf("%s", path);
    code = lock != NULL && sidecar->path != NULL ? SQLITE_OK : SQLITE_NOMEM;
    if (code == SQLITE_OK) {
        sidecar->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (sidecar->lock < 0)
            code = SQLITE_CANTOPEN;
    }
    sqlite3_free(lock);
    for (int i = 0; i < 2 && code == SQLITE_OK; i++) {
        code = hyperwal_open(path, 0, &sidecar->marks[i], NULL);
        if (code == SQLITE_OK)
            sqlite3_busy_timeout(sidecar->marks[i], BUSY_MS);
    }
    /* After those through the VFS: the database is in WAL mode, and not the last to be closed. */
    if (code == SQLITE_OK)
        code = plain_open(path, &sidecar->copier);
    if (code == SQLITE_OK)
        code = plain_open(path, &sidecar->writer);
    if (code != SQLITE_OK)
        sidecar_close(sidecar);
    return code;
}

static void holds_tell(const struct sidecar *sidecar)
{
    if (sidecar->hold_count > 0)
        fprintf(stderr,
                "hyperwal: event=writers_held db=%s times=%u longest_ms=%.2f total_ms=%.1f\n",
                sidecar->path, sidecar->hold_count, 1000 * sidecar->hold_longest,
                1000 * sidecar->hold_total);
}

void sidecar_close(struct sidecar *sidecar)
{
    holds_tell(sidecar);
    hold_leave(sidecar);
    sqlite3_close_v2(sidecar->writer);
    sqlite3_close_v2(sidecar->copier);
    sidecar->writer = sidecar->copier = NULL;
    for (int i = 0; i < 2; i++) {
        sqlite3_close_v2(sidecar->marks[i]);
        sidecar->marks[i] = NULL;
    }
    if (sidecar->lock >= 0)
        close(sidecar->lock);
    sidecar->lock = -1;
    sidecar->has_lock = false;
    sqlite3_free(sidecar->path);
    sidecar->path = NULL;
    sidecar->hold_count = 0;
}

/* ------------------------------------------------------------------------- marks and copies */

static void swap(struct sidecar *sidecar)
{
    sqlite3 *first = sidecar->marks[0];

    sidecar->marks[0] = sidecar->marks[1];
    sidecar->marks[1] = first;
}

/* Copy what may be copied: frames in the WAL, and how many of them are in the database now. */
static int checkpoint(sqlite3 *db, int *frames, int *copied)
{
    return sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, frames, copied);
}

/* The log has all that is committed now. */
static int log_wait(sqlite3 *db, unsigned wait_ms)
{
    return hyperwal_wait(db, NULL, 0, wait_ms);
}

/*
 * The next read transaction: the log reaches its beginning before the last one ends.  Under a
 * `hold`, NULL: none, nothing is committed after its beginning either.
 */
static int mark_next(struct sidecar *sidecar, sqlite3 *db, unsigned wait_ms, struct hold *hold)
{
    int code = mark_take(sidecar->marks[1]);

    if (code == SQLITE_OK)
        code = log_wait(db, wait_ms);
    if (code == SQLITE_OK && hold != NULL && !hold_is_held(hold))
        code = SQLITE_BUSY;
    if (code == SQLITE_OK)
        swap(sidecar);
    mark_leave(sidecar->marks[1]);
    return code;
}

/* --------------------------------------------------------------------- writers are kept out */

/* So long after a hold writers are left alone, with `bytes` too much in the WAL. */
static double rest_after(const struct sidecar *sidecar, double bytes)
{
    double part = bytes / sidecar->limit - 1; /* 1: twice the limit */

    return part > 1 ? REST_MS_LEAST / 1000.0
                    : (REST_MS_MOST - part * (REST_MS_MOST - REST_MS_LEAST)) / 1000;
}

/*
 * Writers are kept out so long.  A WAL beyond LENGTH_LONG means that this was not enough for a
 * disk that slow, or for writers that fast: then the WAL is not to grow on for ever.
 */
static double hold_limit(const struct sidecar *sidecar, double bytes)
{
    double factor = bytes / sidecar->limit / LENGTH_LONG;

    factor = factor < 1 ? 1 : factor * factor;
    return HOLD_MS / 1000.0 * (factor > HOLD_LONG ? HOLD_LONG : factor);
}

static void hold_over(struct sidecar *sidecar, struct hold *hold, double bytes)
{
    double held = hold_end(hold);

    sidecar->hold_count++;
    sidecar->hold_total += held;
    if (held > sidecar->hold_longest)
        sidecar->hold_longest = held;
    sidecar->rest_until = seconds_now() + rest_after(sidecar, bytes);
}

/* Copy all, if nobody else does and no reader is in the way; *all: so many frames; -1: one was. */
static int copy_rest(struct sidecar *sidecar, struct hold *hold, int *all)
{
    int frames = 0, copied = 0, code;

    while ((code = checkpoint(sidecar->copier, &frames, &copied)) == SQLITE_BUSY &&
           hold_is_held(hold))
        hold_nap();
    *all = code == SQLITE_OK && frames == copied ? frames : -1;
    return code == SQLITE_OK && !hold_is_held(hold) ? SQLITE_BUSY : code;
}

/*
 * Nobody commits while the last frames are logged and copied: then all of the WAL is in the log,
 * and its `*all` frames in the database; -1: a reader is in the way.  marks[0] is at its end.
 * SQLITE_BUSY: the time was over.
 */
static int all_copy(struct sidecar *sidecar, sqlite3 *db, struct hold *hold, int *all)
{
    hyperwal_wal wal;
    int code = log_wait(db, hold_left_ms(hold));

    if (code == SQLITE_OK)
        code = mark_next(sidecar, db, 0, hold);
    if (code == SQLITE_OK)
        code = hyperwal_wal_look(db, NULL, &wal);
    if (code == SQLITE_OK)
        sidecar->frames = (int)wal.frames;
    return code == SQLITE_OK ? copy_rest(sidecar, hold, all) : code;
}

/* Until somebody has committed, but not for long. */
static void commit_await(sqlite3 *db, const hyperwal_wal *before)
{
    double until = seconds_now() + REST_MS_LEAST / 1000.0;
    hyperwal_wal now;

    do
        hold_nap();
    while (seconds_now() < until && hyperwal_wal_look(db, NULL, &now) == SQLITE_OK &&
           now.frames == before->frames);
}

/* Writers wait for nothing if the log does not get on. */
static bool log_gets_on(struct sidecar *sidecar, const hyperwal_wal *wal)
{
    double now = seconds_now();

    if (wal->logged_frames != sidecar->logged_frames || wal->logged_frames == wal->frames)
        sidecar->logged = now;
    sidecar->logged_frames = wal->logged_frames;
    return now - sidecar->logged < STUCK_MS / 1000.0;
}

/* How much of the WAL is too much, in bytes; not what a reader has kept, of whom we know. */
static double wal_excess(struct sidecar *sidecar, const hyperwal_wal *wal)
{
    if ((int)wal->frames < sidecar->tried_frames)
        sidecar->tried_frames = 0; /* a new round */
    return ((double)wal->frames - sidecar->tried_frames) * wal->page_size;
}

static bool is_far_behind(const struct sidecar *sidecar, const hyperwal_wal *wal)
{
    return (double)(wal->frames - wal->logged_frames) * wal->page_size > sidecar->limit / LAG_PART;
}

/*
 * Do writers write faster than the log?  They are slowed down only then: a log that catches up
 * after something kept it from being written needs no help.  It counts as catching up if it will
 * have done so before the WAL has grown by a quarter.  Once they do they do until a new round
 * begins: slowed down they look as if they did not.
 */
static bool writers_outrun(struct sidecar *sidecar, const hyperwal_wal *wal)
{
    struct sidecar_sample *last = &sidecar->sample;
    double now = seconds_now(), lag = (double)wal->frames - wal->logged_frames;
    double written = (double)wal->frames - last->frames;
    double gain = (double)wal->logged_frames - last->logged_frames - written;

    if (written < 0 || last->time <= 0) { /* a new round, or the first look */
        *last = (struct sidecar_sample){now, wal->frames, wal->logged_frames};
        sidecar->is_outrun = false;
        return false;
    }
    if (written * wal->page_size < sidecar->limit / SAMPLE_PART ||
        now < last->time + SAMPLE_MS / 1000.0)
        return sidecar->is_outrun; /* nothing to judge by */
    if (gain <= 0 || written * lag / gain > wal->frames / 4.0)
        sidecar->is_outrun = true;
    *last = (struct sidecar_sample){now, wal->frames, wal->logged_frames};
    return sidecar->is_outrun;
}

/* Is it worth while to keep writers out? */
static bool is_worth_it(struct sidecar *sidecar, const hyperwal_wal *wal)
{
    bool gets_on = log_gets_on(sidecar, wal), outrun = writers_outrun(sidecar, wal);

    return wal_excess(sidecar, wal) > sidecar->limit && gets_on &&
           (outrun || !is_far_behind(sidecar, wal)) && seconds_now() >= sidecar->rest_until;
}

/* ------------------------------------------------------------- this process is the worker */

static int hold_step(struct sidecar *sidecar, sqlite3 *db, unsigned wait_ms)
{
    int code = mark_next(sidecar, db, wait_ms, NULL);

    if (code == SQLITE_OK && !sidecar->holds)
        sidecar->holds = hyperwal_hold(db, NULL, 1) == SQLITE_OK;
    return code;
}

/* Log and copy while others write, until little is left. */
static int most_copy(struct sidecar *sidecar, sqlite3 *db)
{
    int left = INT_MAX, frames = 0, copied = 0, code;

    for (int i = 0; i < ROUNDS; i++) {
        code = hold_step(sidecar, db, WAIT_MS);
        if (code == SQLITE_OK)
            code = checkpoint(sidecar->copier, &frames, &copied);
        if (code != SQLITE_OK)
            return code;
        if (frames - copied <= LITTLE_FRAMES || frames - copied > left / 2)
            break;
        left = frames - copied;
    }
    return SQLITE_OK;
}

/*
 * Keep writers out while the rest is logged and copied, as far as time allows.  If all is, marks[0]
 * goes to READ(0), and the next writer begins a new round if no other reader is in the way.
 */
static int hold_restart(struct sidecar *sidecar, sqlite3 *db, double bytes, bool *is_done)
{
    struct hold hold;
    int all = -1;
    int code = hold_begin(&hold, sidecar->writer, hold_limit(sidecar, bytes));

    if (code != SQLITE_OK)
        return code;
    code = all_copy(sidecar, db, &hold, &all);
    if (code == SQLITE_OK && all >= 0)
        code = mark_next(sidecar, db, 0, &hold);
    hold_over(sidecar, &hold, bytes);
    *is_done = code == SQLITE_OK;
    if (*is_done)
        sidecar->tried_frames = sidecar->frames; /* a reader that stays is not to cost more */
    return SQLITE_OK;
}

/*
 * Begin a new round.  If the WAL is far too long, so that it must not become longer whatever the
 * log's speed is, writers are kept out each time again as soon as one of them has committed: a
 * single one still waits for one hold at a time.
 */
static int wal_shorten(struct sidecar *sidecar, sqlite3 *db, double bytes)
{
    double until = seconds_now() + PULSES_MS / 1000.0;
    hyperwal_wal wal;
    bool is_done = false;
    int code = hyperwal_wal_look(db, NULL, &wal);

    while (code == SQLITE_OK && !is_done && seconds_now() < until) {
        if (!is_far_behind(sidecar, &wal))
            code = most_copy(sidecar, db);
        if (code == SQLITE_OK || code == SQLITE_BUSY)
            code = hold_restart(sidecar, db, bytes, &is_done);
        if (bytes < LENGTH_MOST * sidecar->limit)
            break;
        if (code == SQLITE_OK && !is_done)
            code = hyperwal_wal_look(db, NULL, &wal);
        if (code == SQLITE_OK && !is_done)
            commit_await(db, &wal);
    }
    return code;
}

/* Copy up to the mark. */
static int hold_copy(struct sidecar *sidecar, sqlite3 *db)
{
    int frames = 0, copied = 0;
    int code = checkpoint(sidecar->copier, &frames, &copied);

    if (code != SQLITE_OK)
        return code;
    sidecar->copied = seconds_now();
    /* READ(0) keeps nobody from a new round. */
    return frames == copied ? hold_step(sidecar, db, WAIT_MS) : SQLITE_OK;
}

static int hold_move(struct sidecar *sidecar, sqlite3 *db, const hyperwal_wal *wal)
{
    bool is_long = is_worth_it(sidecar, wal);
    int code = hold_step(sidecar, db, is_long ? REST_MS_LEAST : WAIT_MS);

    if (code == SQLITE_OK && (double)wal->frames * wal->page_size >= sidecar->limit / COPY_PART &&
        seconds_now() >= sidecar->copied + COPY_MS / 1000.0)
        code = hold_copy(sidecar, db);
    if ((code == SQLITE_OK || code == SQLITE_BUSY) && is_long && sidecar->holds)
        code = wal_shorten(sidecar, db, wal_excess(sidecar, wal));
    return code;
}

/* --------------------------------------------------------- another process is the worker */

/*
 * A commit that changes nothing, by `writer`, which holds WRITE.  If all of the WAL was in the
 * database when its transaction began, and no other reader is in the way, it begins a new round.
 * The reader leaves the WAL for that, and comes back to READ(0) or below the new frame: so nobody
 * can copy the new frame before there is a mark at it.
 */
static int frame_write(sqlite3 *writer, sqlite3 *reader)
{
    int code;

    mark_leave(reader); /* it has none yet at the first time */
    code = mark_take(reader);
    return code == SQLITE_OK ? hyperwal_touch(writer) : code;
}

/*
 * Write a frame of our own and put the mark at it.  The transaction of marks[1] may begin the new
 * round if all `copied` frames are still all there are.  Whatever happens, marks[0] has a mark.
 */
static int mark_plant(struct sidecar *sidecar, sqlite3 *db, int copied)
{
    sqlite3 *reader = sidecar->marks[0], *writer = sidecar->marks[1];
    hyperwal_wal wal;
    int code = exec(writer, "BEGIN IMMEDIATE");

    if (code != SQLITE_OK)
        return code;
    code = hyperwal_wal_look(db, NULL, &wal);
    if (code == SQLITE_OK && copied >= 0 && wal.frames != (unsigned)copied)
        code = SQLITE_BUSY; /* somebody committed just before: not at READ(0) */
    if (code == SQLITE_OK)
        code = log_wait(db, BUSY_MS); /* has all there is, for nobody commits now */
    if (code == SQLITE_OK)
        code = frame_write(writer, reader);
    mark_leave(writer);
    if (code == SQLITE_OK)
        code = mark_take(writer);
    if (code == SQLITE_OK)
        code = log_wait(db, BUSY_MS); /* until then the reader keeps the frame from being copied */
    if (code == SQLITE_OK)
        code = hyperwal_wal_look(db, NULL, &wal);
    if (code == SQLITE_OK) {
        swap(sidecar);
        mark_leave(reader);
        sidecar->frames = (int)wal.frames;
    } else {
        mark_leave(writer);
        if (sqlite3_get_autocommit(reader) != 0)
            (void)mark_take(reader); /* as good as can be: the next move tries again */
    }
    return code;
}

/* Move up to the end, which is beyond the mark: so the new mark is not at READ(0) either. */
static int mark_move(struct sidecar *sidecar, sqlite3 *db)
{
    int frames = 0, copied = 0;
    int code = mark_take(sidecar->marks[1]);

    if (code == SQLITE_OK)
        code = checkpoint(sidecar->copier, &frames, &copied);
    if (code == SQLITE_OK)
        code = log_wait(db, WAIT_MS);
    if (code == SQLITE_OK) {
        swap(sidecar);
        sidecar->frames = frames;
    }
    mark_leave(sidecar->marks[1]);
    return code;
}

/* The mark is where it should be; is the WAL longer than it should be? */
static int wal_limit(struct sidecar *sidecar, sqlite3 *db, const hyperwal_wal *wal)
{
    double bytes = wal_excess(sidecar, wal);
    struct hold hold;
    int all = -1, code;

    if (!is_worth_it(sidecar, wal))
        return SQLITE_OK;
    code = hold_begin(&hold, sidecar->writer, hold_limit(sidecar, bytes));
    if (code != SQLITE_OK)
        return code;
    code = all_copy(sidecar, db, &hold, &all);
    hold_over(sidecar, &hold, bytes);
    if (code == SQLITE_OK && all >= 0)
        code = mark_plant(sidecar, db, all);
    if (code == SQLITE_OK)
        sidecar->tried_frames = sidecar->frames; /* a reader that stays is not to cost more */
    return code == SQLITE_BUSY ? SQLITE_OK : code;
}

/* ---------------------------------------------------------------------- who is the worker */

/* Become the one who has the marks; has_lock or is_others says who it is, neither: nobody knows. */
static void lock_take(struct sidecar *sidecar)
{
    if (sidecar->has_lock)
        return;
    sidecar->has_lock = flock(sidecar->lock, LOCK_EX | LOCK_NB) == 0;
    sidecar->is_others = !sidecar->has_lock && errno == EWOULDBLOCK;
}

/* The worker is another process, whose gate has not heard of our hold: as the header says. */
static int frame_move(struct sidecar *sidecar, sqlite3 *db, const hyperwal_wal *wal)
{
    int frames = 0, copied = 0;
    int code;

    if (sidecar->holds)
        sidecar->frames = 0; /* it may be at READ(0) */
    hold_leave(sidecar);
    if (sidecar->frames == 0)
        return mark_plant(sidecar, db, -1);
    code = checkpoint(sidecar->copier, &frames, &copied);
    if (code == SQLITE_OK && frames > sidecar->frames)
        code = mark_move(sidecar, db);
    return code == SQLITE_OK || code == SQLITE_BUSY ? wal_limit(sidecar, db, wal) : code;
}

void sidecar_wake(struct sidecar *sidecar)
{
    double soon = seconds_now() + PACE_MS / 1000.0;

    sidecar->is_due = true;
    sidecar->settle_ms = PACE_MS;
    if (sidecar->move_after > soon)
        sidecar->move_after = soon;
}

int sidecar_move(struct sidecar *sidecar, sqlite3 *db)
{
    int code = SQLITE_BUSY, pace_ms = PACE_MS;
    hyperwal_wal wal;

    lock_take(sidecar);
    if (!sidecar->has_lock) {
        sidecar->is_due = !sidecar->is_others;
        sidecar->move_after = seconds_now() + RETRY_MS / 1000.0;
        return sidecar->is_others ? SQLITE_BUSY : SQLITE_IOERR_LOCK;
    }
    if (hyperwal_wal_look(db, NULL, &wal) != SQLITE_OK)
        wal.log = HYPERWAL_LOG_NOWHERE;
    switch (wal.log) {
    case HYPERWAL_LOG_HERE:
        code = hold_move(sidecar, db, &wal);
        /* A checkpoint of somebody who may wait for our mark, and keep writers waiting. */
        pace_ms = code == SQLITE_BUSY ? HURRY_MS : code != SQLITE_OK ? RETRY_MS : PACE_MS;
        break;
    case HYPERWAL_LOG_ELSEWHERE:
        code = frame_move(sidecar, db, &wal);
        pace_ms = code == SQLITE_OK ? COPY_MS : RETRY_MS;
        break;
    case HYPERWAL_LOG_RELEASED: /* so is the WAL: a gap will name what is missing */
        hold_leave(sidecar);
        mark_leave(sidecar->marks[0]);
        sidecar->frames = 0;
        pace_ms = RETRY_MS;
        break;
    default: /* while the database is compared with the log, waiting is in vain */
        pace_ms = RETRY_MS;
        break;
    }
    sidecar->is_due = code != SQLITE_OK || sidecar->settle_ms < SETTLE_MS_LIMIT;
    if (code == SQLITE_OK && sidecar->settle_ms > pace_ms)
        pace_ms = sidecar->settle_ms;
    if (sidecar->settle_ms < SETTLE_MS_LIMIT)
        sidecar->settle_ms *= 2;
    sidecar->move_after = seconds_now() + pace_ms / 1000.0;
    return code;
}
