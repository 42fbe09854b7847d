/* Implements rest.h. */
#include "rest.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BUSY_MS = 100 };
enum { TICK_NS = 20000000 }; /* at least one tick of the clock that files get their times from */

/* A file that is not there has a stamp of zeros. */
static struct rest_stamp stamp_of(const char *path, const char *suffix)
{
    struct rest_stamp stamp = {0};
    struct stat stat_;
    char *full = NULL;

    if (asprintf(&full, "%s%s", path, suffix) < 0)
        return stamp;
    if (stat(full, &stat_) == 0)
        stamp = (struct rest_stamp){stat_.st_ino, stat_.st_size, stat_.st_mtim};
    free(full);
    return stamp;
}

static bool is_same(const struct rest_stamp *a, const struct rest_stamp *b)
{
    return a->inode == b->inode && a->size == b->size && a->modified.tv_sec == b->modified.tv_sec &&
           a->modified.tv_nsec == b->modified.tv_nsec;
}

static bool is_before(const struct rest_stamp *stamp, const struct timespec *now)
{
    long long age = ((long long)now->tv_sec - stamp->modified.tv_sec) * 1000000000LL +
                    (now->tv_nsec - stamp->modified.tv_nsec);

    return age > TICK_NS;
}

int rest_take(struct rest *rest, const char *path)
{
    struct timespec now = {0};
    sqlite3 *db = NULL;
    int code;

    *rest = (struct rest){.file = stamp_of(path, ""), .wal = stamp_of(path, "-wal")};
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail */
    rest->is_old = is_before(&rest->file, &now) && is_before(&rest->wal, &now);
    code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_db_config(db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 0, 0);
    if (code == SQLITE_OK) /* if it is the last one to close, it must not ask no gate */
        code = sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_busy_timeout(db, BUSY_MS);
    if (code == SQLITE_OK) /* this pragma begins to read, and needs no schema */
        code = sqlite3_exec(db, "BEGIN; PRAGMA user_version", NULL, NULL, NULL);
    if (code == SQLITE_OK)
        (void)sqlite3_db_release_memory(db);
    rest->db = db;
    if (code != SQLITE_OK)
        rest_leave(rest);
    return code;
}

void rest_leave(struct rest *rest)
{
    sqlite3_close_v2(rest->db); /* rolls back */
    rest->db = NULL;
}

bool rest_is_disturbed(const struct rest *rest, const char *path)
{
    struct rest_stamp file = stamp_of(path, ""), wal = stamp_of(path, "-wal");

    return rest->db == NULL || !rest->is_old || !is_same(&file, &rest->file) ||
           !is_same(&wal, &rest->wal);
}

int rest_renew(struct rest *rest, const char *path)
{
    const struct rest then = *rest;
    int code;

    rest_leave(rest);
    code = rest_take(rest, path);
    if (code != SQLITE_OK)
        return code;
    rest->is_old &= then.is_old;
    rest->file = then.file;
    rest->wal = then.wal;
    if (!rest_is_disturbed(rest, path))
        return SQLITE_OK;
    rest_leave(rest);
    return SQLITE_BUSY;
}
