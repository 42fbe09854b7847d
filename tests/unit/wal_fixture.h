/*
 * wal_fixture.h - a database on SQLite's unix VFS, its wal-index and its WAL, as the tests of wal/
 * need them
 */
#ifndef HW_TEST_WAL_FIXTURE_H
#define HW_TEST_WAL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "wal/wal.h"

/* A database file opened below any connection, with its wal-index and its WAL. */
struct view {
    const char *name; /* owned, from sqlite3_create_filename */
    sqlite3_file *file;
    struct hw_wal_index *index;
    struct hw_file *wal;
};

static inline char *temp_dir(void)
{
    const char *root = getenv("TMPDIR");
    char *path = hw_format("%s/hw-wal-XXXXXX", root != NULL ? root : "/tmp");

    assert_non_null(path);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void remove_dir(char *dir)
{
    char *command = hw_format("rm -rf '%s'", dir);

    assert_int_equal(system(command), 0);
    hw_free(command);
    hw_free(dir);
}

static inline sqlite3 *open_db(const char *path)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "unix"),
                     SQLITE_OK);
    return db;
}

static inline void run(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static inline int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int64_t value;

    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    if (sqlite3_step(stmt) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static inline void assert_integrity(sqlite3 *db)
{
    assert_int_equal(number(db, "SELECT count(*) FROM pragma_integrity_check"
                                " WHERE integrity_check = 'ok'"),
                     1);
}

static inline void view_open(struct view *view, const char *path)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find("unix");
    char *journal = hw_format("%s-journal", path), *wal = hw_format("%s-wal", path);

    view->name = sqlite3_create_filename(path, journal, wal, 0, NULL);
    assert_non_null(view->name);
    view->file = hw_zalloc((size_t)vfs->szOsFile);
    assert_int_equal(
        vfs->xOpen(vfs, view->name, view->file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE, NULL),
        SQLITE_OK);
    assert_int_equal(view->file->pMethods->xLock(view->file, SQLITE_LOCK_SHARED), SQLITE_OK);
    assert_int_equal(hw_wal_index_shared(view->file, &view->index, NULL), HW_OK);
    assert_int_equal(hw_env_posix()->ops->open(hw_env_posix(), wal, HW_OPEN_READ | HW_OPEN_WRITE,
                                               &view->wal, NULL),
                     HW_OK);
    hw_free(journal);
    hw_free(wal);
}

static inline void view_close(struct view *view)
{
    hw_wal_index_free(view->index);
    view->wal->env->ops->close(view->wal);
    (void)view->file->pMethods->xShmUnmap(view->file, 0);
    (void)view->file->pMethods->xUnlock(view->file, SQLITE_LOCK_NONE);
    (void)view->file->pMethods->xClose(view->file);
    hw_free(view->file);
    sqlite3_free_filename(view->name);
}

static inline int view_lock(struct view *view, int slot, bool lock)
{
    return view->file->pMethods->xShmLock(
        view->file, slot, 1, (lock ? SQLITE_SHM_LOCK : SQLITE_SHM_UNLOCK) | SQLITE_SHM_EXCLUSIVE);
}

static inline struct hw_wal_index_header view_header(struct view *view)
{
    struct hw_wal_index_header header;

    assert_int_equal(hw_wal_index_read(view->index, &header, NULL), HW_OK);
    return header;
}

static inline void read_bytes(struct hw_file *file, uint64_t offset, void *bytes, size_t size)
{
    assert_int_equal(file->env->ops->read_at(file, offset, bytes, size, NULL), HW_OK);
}

/* Copy a file that no connection has open. */
static inline void copy_file(const char *from, const char *to)
{
    char *command = hw_format("cp '%s' '%s'", from, to);

    assert_int_equal(system(command), 0);
    hw_free(command);
}

#endif
