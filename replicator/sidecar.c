/* Implements sidecar.h. */
#include "sidecar.h"

#include <stdint.h>

#include "report.h"

enum { BUSY_MS = 100, WAL_LIMIT = 8 << 20 };

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

int sidecar_open(struct sidecar *sidecar, const char *path)
{
    int code = SQLITE_OK;

    *sidecar = (struct sidecar){.moved = seconds_now()};
    for (int i = 0; i < 2 && code == SQLITE_OK; i++) {
        code = hyperwal_open(path, 0, &sidecar->marks[i], NULL);
        if (code == SQLITE_OK)
            sqlite3_busy_timeout(sidecar->marks[i], BUSY_MS);
    }
    if (code == SQLITE_OK)
        code = mark_take(sidecar->marks[0]);
    if (code != SQLITE_OK)
        sidecar_close(sidecar);
    return code;
}

void sidecar_close(struct sidecar *sidecar)
{
    for (int i = 0; i < 2; i++) {
        sqlite3_close_v2(sidecar->marks[i]);
        sidecar->marks[i] = NULL;
    }
}

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
 * The writer's part of a restart.  `writer` holds WRITE, and read the database when all of the WAL was
 * in it: its transaction is at READ(0), so its first frame begins a new round if no other reader is
 * in the way.  Its other connection is then let go from the WAL and put on READ(0) too.
 */
static int restart(sqlite3 *writer, sqlite3 *reader)
{
    char sql[64];
    int64_t version = 0;
    int code;

    mark_leave(reader);
    code = mark_take(reader);
    if (code == SQLITE_OK)
        code = number_of(writer, "PRAGMA user_version", &version);
    if (code != SQLITE_OK)
        return code;
    sqlite3_snprintf(sizeof(sql), sql, "PRAGMA user_version=%lld", (long long)version);
    code = exec(writer, sql);
    return code == SQLITE_OK ? exec(writer, "COMMIT") : code;
}

/* marks[0] is at the end of the log.  Whatever happens, one of the two has a mark at the end. */
static int wal_restart(struct sidecar *sidecar, sqlite3 *db)
{
    sqlite3 *reader = sidecar->marks[0], *writer = sidecar->marks[1];
    int frames = 0, copied = 0, frames_now = 0, copied_now = 0, code;
    uint64_t seq;

    code = checkpoint(db, &frames, &copied);
    if (code != SQLITE_OK || frames != copied)
        return code != SQLITE_OK ? code : SQLITE_BUSY; /* another reader holds it back */
    code = exec(writer, "BEGIN IMMEDIATE");
    if (code != SQLITE_OK)
        return code;
    /* Nobody commits now.  As many frames as before: nobody did since all were copied either. */
    code = checkpoint(db, &frames_now, &copied_now);
    if (code == SQLITE_OK && (frames_now != frames || copied_now != copied))
        code = SQLITE_BUSY;
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq);
    if (code == SQLITE_OK)
        code = restart(writer, reader);
    mark_leave(writer);
    if (code == SQLITE_OK)
        code = mark_take(writer); /* in the new round, while the reader is still on READ(0) */
    if (code == SQLITE_OK) {
        swap(sidecar);
        mark_leave(sidecar->marks[1]);
    } else if (sqlite3_get_autocommit(reader) != 0) {
        (void)mark_take(reader); /* as good as can be: the next move tries again */
    }
    return code;
}

int sidecar_move(struct sidecar *sidecar, sqlite3 *db)
{
    int frames = 0, copied = 0, code;
    int64_t page_size = 0;
    uint64_t seq;

    sidecar->moved = seconds_now();
    sidecar->is_due = false;
    code = mark_take(sidecar->marks[1]);
    if (code == SQLITE_OK)
        code = hyperwal_seq(db, NULL, &seq); /* the log has reached the new mark */
    if (code != SQLITE_OK) {
        mark_leave(sidecar->marks[1]);
        sidecar->is_due = true;
        return code;
    }
    swap(sidecar);
    mark_leave(sidecar->marks[1]);
    code = checkpoint(db, &frames, &copied);
    if (code == SQLITE_OK)
        code = number_of(db, "PRAGMA page_size", &page_size);
    if (frames < sidecar->tried_frames)
        sidecar->tried_frames = 0; /* a new round */
    if (code != SQLITE_OK || (frames - sidecar->tried_frames) * page_size < WAL_LIMIT)
        return code;
    sidecar->tried_frames = frames; /* a reader that stays is not to cost a commit each time */
    return wal_restart(sidecar, db);
}
