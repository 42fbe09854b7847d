/* Implements sidecar.h. */
#include "sidecar.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "report.h"

enum { BUSY_MS = 100, WAL_LIMIT = 8 << 20, RESTART_TRIES = 3 };
enum { LAG_LIMIT = 2000 };     /* frames: with more to log writers would wait too long */
enum { WAL_LITTLE = 4 << 20 }; /* bytes of the file: nothing to copy before */
enum { PACE_MS = 20, HURRY_MS = 2, RETRY_MS = 1000, COPY_MS = 100 };
enum { SETTLE_MS_LIMIT = 8192 };  /* after something happened it is looked after for twice that */
enum { LOG_MS = 4, HELD_MS = 7 }; /* how long writers are kept out for the log, and for all */
enum { REST_FACTOR = 100 };       /* and how much longer not, after that */

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

int sidecar_open(struct sidecar *sidecar, const char *path)
{
    char *lock = sqlite3_mprintf("%s-hyper/sidecar.lock", path);
    int code;

    *sidecar = (struct sidecar){.is_due = true, .lock = -1, .settle_ms = PACE_MS};
    sidecar->wal_path = sqlite3_mprintf("%s-wal", path);
    code = lock != NULL && sidecar->wal_path != NULL ? SQLITE_OK : SQLITE_NOMEM;
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
    if (code != SQLITE_OK)
        sidecar_close(sidecar);
    return code;
}

void sidecar_close(struct sidecar *sidecar)
{
    hold_leave(sidecar);
    for (int i = 0; i < 2; i++) {
        sqlite3_close_v2(sidecar->marks[i]);
        sidecar->marks[i] = NULL;
    }
    if (sidecar->lock >= 0)
        close(sidecar->lock);
    sidecar->lock = -1;
    sidecar->has_lock = false;
    sqlite3_free(sidecar->wal_path);
    sidecar->wal_path = NULL;
}

/* --------------------------------------------------------- another process is the worker */

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

static int number_of(sqlite3 *db, const char *sql, int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    bool has_row = false;

    if (code == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        *number = sqlite3_column_int64(statement, 0);
        has_row = true;
    }
    if (code == SQLITE_OK)
        code = sqlite3_finalize(statement);
    return code == SQLITE_OK && !has_row ? SQLITE_ERROR : code;
}

/*
 * A commit that changes nothing, by `writer`, which holds WRITE.  If all of the WAL was in the
 * database when its transaction began, and no other reader is in the way, it begins a new round.
 * The reader leaves the WAL for that, and comes back to READ(0) or below the new frame: so nobody
 * can copy the new frame before there is a mark at it.
 */
static int frame_write(sqlite3 *writer, sqlite3 *reader)
{
    char sql[64];
    int64_t version = 0;
    int code;

    mark_leave(reader); /* it has none yet at the first time */
    code = mark_take(reader);
    if (code == SQLITE_OK)
        code = number_of(writer, "PRAGMA user_version", &version);
    if (code != SQLITE_OK)
        return code;
    sqlite3_snprintf(sizeof(sql), sql, "PRAGMA user_version=%lld", (long long)version);
    code = exec(writer, sql);
    return code == SQLITE_OK ? exec(writer, "COMMIT") : code;
}

/*
 * Write a frame of our own and put the mark at it.  The transaction of marks[1] may begin the new
 * round if all `copied` frames are still all there are.  Whatever happens, marks[0] has a mark.
 */
static int mark_plant(struct sidecar *sidecar, sqlite3 *db, int copied)
{
    sqlite3 *reader = sidecar->marks[0], *writer = sidecar->marks[1];
    int frames_now = 0, copied_now = 0, code;
    uint64_t seq;

    code = exec(writer, "BEGIN IMMEDIATE");
    if (code != SQLITE_OK)
        return code;
    code = checkpoint(db, &frames_now, &copied_now);
    if (code == SQLITE_OK && copied >= 0 && (frames_now != copied || copied_now != copied))
        code = SQLITE_BUSY; /* somebody committed just before: not at READ(0) */
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq); /* of all there is, for nobody commits now */
    if (code == SQLITE_OK)
        code = frame_write(writer, reader);
    mark_leave(writer);
    if (code == SQLITE_OK)
        code = mark_take(writer);
    if (code == SQLITE_OK) {
        swap(sidecar);
        mark_leave(reader);
        code = checkpoint(db, &sidecar->frames, &copied_now);
    } else if (sqlite3_get_autocommit(reader) != 0) {
        (void)mark_take(reader); /* as good as can be: the next move tries again */
    }
    return code;
}

/* Move up to the end, which is beyond the mark: so the new mark is not at READ(0) either. */
static int mark_move(struct sidecar *sidecar, sqlite3 *db)
{
    int frames = 0, copied = 0;
    uint64_t seq;
    int code = mark_take(sidecar->marks[1]);

    if (code == SQLITE_OK)
        code = checkpoint(db, &frames, &copied);
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq); /* the log has reached the new mark */
    if (code != SQLITE_OK) {
        mark_leave(sidecar->marks[1]);
        return code;
    }
    swap(sidecar);
    mark_leave(sidecar->marks[1]);
    sidecar->frames = frames;
    return SQLITE_OK;
}

/*
 * Hold the writers back for a moment, until all of the WAL is in the log and in the database, and
 * marks[0] is at its end.  *copied: so many frames.
 */
static int all_copy(struct sidecar *sidecar, sqlite3 *db, int *copied)
{
    sqlite3 *reader = sidecar->marks[0], *writer = sidecar->marks[1];
    int frames = 0;
    uint64_t seq;
    int code = exec(writer, "BEGIN IMMEDIATE"); /* its own mark is at the end, too */

    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq);
    if (code == SQLITE_OK) {
        mark_leave(reader);
        code = mark_take(reader);
    }
    if (code == SQLITE_OK)
        code = checkpoint(db, &frames, copied);
    if (code == SQLITE_OK && frames != *copied)
        code = SQLITE_BUSY; /* another reader holds it back */
    if (sqlite3_get_autocommit(reader) != 0)
        (void)mark_take(reader); /* while the writer still has a mark */
    mark_leave(writer);
    return code;
}

/* Frames that are committed and not in the log; -1: not known. */
static int64_t log_lag(const char *status)
{
    const char *lag = strstr(status, "\"lag\":");

    return lag != NULL ? strtoll(lag + 6, NULL, 10) : -1;
}

/* The mark is where it should be; is the WAL longer than it should be? */
static int wal_limit(struct sidecar *sidecar, sqlite3 *db)
{
    int64_t page_size = 0, lag = -1;
    char *status = NULL;
    int copied = 0, code;

    code = number_of(db, "PRAGMA page_size", &page_size);
    if (sidecar->frames < sidecar->tried_frames)
        sidecar->tried_frames = 0; /* a new round */
    if (code != SQLITE_OK || (sidecar->frames - sidecar->tried_frames) * page_size < WAL_LIMIT)
        return code;
    if (hyperwal_status(db, NULL, &status) == SQLITE_OK && status != NULL)
        lag = log_lag(status);
    sqlite3_free(status);
    if (lag < 0 || lag > LAG_LIMIT)
        return SQLITE_OK; /* writers would wait too long for the log */
    for (int tries = 0; tries < RESTART_TRIES; tries++) {
        code = all_copy(sidecar, db, &copied);
        if (code == SQLITE_OK)
            code = mark_plant(sidecar, db, copied);
        if (code != SQLITE_BUSY)
            break;
    }
    if (code == SQLITE_OK && sidecar->frames >= copied)
        sidecar->tried_frames = sidecar->frames; /* a reader that stays is not to cost more */
    return code;
}

/* ------------------------------------------------------------- this process is the worker */

/* The next read transaction: the log reaches its beginning before the last one ends. */
static int hold_step(struct sidecar *sidecar, sqlite3 *db)
{
    uint64_t seq;
    int code = mark_take(sidecar->marks[1]);

    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq);
    if (code != SQLITE_OK) {
        mark_leave(sidecar->marks[1]);
        return code;
    }
    swap(sidecar);
    mark_leave(sidecar->marks[1]);
    if (!sidecar->holds)
        sidecar->holds = hyperwal_hold(db, NULL, 1) == SQLITE_OK;
    return SQLITE_OK;
}

static void rest_a_moment(void)
{
    const struct timespec moment = {.tv_nsec = 200000};

    (void)nanosleep(&moment, NULL);
}

/* Writers are kept out since `begin`: copy all, if nobody else does and no reader is in the way. */
static int copy_rest(sqlite3 *db, double begin)
{
    int frames = 0, copied = 0, code;

    while ((code = checkpoint(db, &frames, &copied)) == SQLITE_BUSY &&
           seconds_now() - begin < HELD_MS / 1000.0)
        rest_a_moment();
    return code;
}

/*
 * Nobody commits while the last frames are logged and copied; then marks[0] is at READ(0), and the
 * next writer begins a new round if no other reader is in the way.
 */
static int hold_restart(struct sidecar *sidecar, sqlite3 *db)
{
    sqlite3 *reader = sidecar->marks[0], *writer = sidecar->marks[1];
    double begin;
    int code = exec(writer, "BEGIN IMMEDIATE");

    if (code != SQLITE_OK)
        return code;
    begin = seconds_now();
    code = hyperwal_wait(db, NULL, 0, LOG_MS);
    if (code == SQLITE_OK) {
        mark_leave(reader);
        code = copy_rest(db, begin);
        if (mark_take(reader) != SQLITE_OK)
            hold_leave(sidecar);
    }
    mark_leave(writer);
    sidecar->rest_until = seconds_now() + REST_FACTOR * (seconds_now() - begin);
    return code;
}

/* Copy up to the mark, and begin a new round if the WAL has become long. */
static int hold_copy(struct sidecar *sidecar, sqlite3 *db)
{
    int64_t page_size = 0;
    int frames = 0, copied = 0;
    int code = checkpoint(db, &frames, &copied);

    if (code == SQLITE_OK)
        code = number_of(db, "PRAGMA page_size", &page_size);
    if (code != SQLITE_OK)
        return code;
    sidecar->copied = seconds_now();
    if (frames < sidecar->tried_frames)
        sidecar->tried_frames = 0; /* a new round */
    if (frames == copied)
        return hold_step(sidecar, db); /* at READ(0) now, which keeps nobody from a new round */
    if ((frames - sidecar->tried_frames) * page_size < WAL_LIMIT ||
        seconds_now() < sidecar->rest_until)
        return SQLITE_OK;
    code = hold_step(sidecar, db); /* little is left to log */
    if (code == SQLITE_OK)
        code = hold_restart(sidecar, db);
    if (code == SQLITE_OK)
        sidecar->tried_frames = frames; /* a reader that stays is not to cost more */
    return code;
}

static int hold_move(struct sidecar *sidecar, sqlite3 *db)
{
    struct stat wal;
    int code = hold_step(sidecar, db);

    if (code == SQLITE_OK && stat(sidecar->wal_path, &wal) == 0 && wal.st_size >= WAL_LITTLE &&
        seconds_now() >= sidecar->copied + COPY_MS / 1000.0)
        code = hold_copy(sidecar, db);
    return code;
}

/* ---------------------------------------------------------------------- who is the worker */

enum log_state { LOG_ELSEWHERE, LOG_HERE, LOG_LET_GO, LOG_NOT_NOW };

/* While the database is compared with the log, waiting is in vain. */
static enum log_state log_state(sqlite3 *db)
{
    enum log_state state = LOG_NOT_NOW;
    char *json = NULL;

    if (hyperwal_status(db, NULL, &json) != SQLITE_OK || json == NULL)
        state = LOG_NOT_NOW;
    else if (strstr(json, "\"state\":\"running\"") != NULL)
        state = LOG_HERE;
    else if (strstr(json, "\"state\":\"standby\"") != NULL)
        state = LOG_ELSEWHERE;
    else if (strstr(json, "\"state\":\"released\"") != NULL)
        state = LOG_LET_GO;
    sqlite3_free(json);
    return state;
}

/* Become the one who has the marks. */
static bool lock_take(struct sidecar *sidecar)
{
    if (!sidecar->has_lock)
        sidecar->has_lock = flock(sidecar->lock, LOCK_EX | LOCK_NB) == 0;
    return sidecar->has_lock;
}

/* The worker is another process, whose gate has not heard of our hold: as the header says. */
static int frame_move(struct sidecar *sidecar, sqlite3 *db)
{
    int frames = 0, copied = 0;
    int code = checkpoint(db, &frames, &copied);

    if (sidecar->holds)
        sidecar->frames = 0; /* it may be at READ(0) */
    hold_leave(sidecar);
    if (code == SQLITE_OK && sidecar->frames == 0)
        code = mark_plant(sidecar, db, -1);
    else if (code == SQLITE_OK && frames > sidecar->frames)
        code = mark_move(sidecar, db);
    return code == SQLITE_OK ? wal_limit(sidecar, db) : code;
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

    if (!lock_take(sidecar)) {
        sidecar->is_due = false;
        return SQLITE_BUSY;
    }
    switch (log_state(db)) {
    case LOG_HERE:
        code = hold_move(sidecar, db);
        /* A checkpoint of somebody who may wait for our mark, and keep writers waiting. */
        pace_ms = code == SQLITE_BUSY ? HURRY_MS : code != SQLITE_OK ? RETRY_MS : PACE_MS;
        break;
    case LOG_ELSEWHERE:
        code = frame_move(sidecar, db);
        pace_ms = code == SQLITE_OK ? COPY_MS : RETRY_MS;
        break;
    case LOG_LET_GO: /* so is the WAL: a gap will name what is missing */
        hold_leave(sidecar);
        mark_leave(sidecar->marks[0]);
        sidecar->frames = 0;
        pace_ms = RETRY_MS;
        break;
    case LOG_NOT_NOW:
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
