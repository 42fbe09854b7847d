/*
 * base/sqlite.h - the one place that chooses how SQLite is reached
 *
 * The library links libsqlite3.  The loadable extension must use the copy of SQLite of the
 * program that loads it, which it reaches only through the table that its entry point is given.
 */
#ifndef HW_BASE_SQLITE_H
#define HW_BASE_SQLITE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef HW_EXTENSION
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#include <sqlite3.h>
#pragma weak sqlite3_mutex_alloc /* an SQLite that is built without threads has neither */
#pragma weak sqlite3_mutex_free
#endif

/*
 * May several threads call this SQLite?  Not if it was built without mutexes, nor if the program
 * chose SQLITE_CONFIG_SINGLETHREAD, which sqlite3_threadsafe() does not tell: all mutexes are the
 * same one then, which does nothing.  Initializes SQLite, so that it cannot change any more.
 */
static inline bool hw_sqlite_has_threads(void)
{
    sqlite3_mutex *one, *other;
    bool result;

    if (sqlite3_threadsafe() == 0)
        return false;
    one = sqlite3_mutex_alloc(SQLITE_MUTEX_FAST);
    other = sqlite3_mutex_alloc(SQLITE_MUTEX_FAST);
    result = one != NULL && other != NULL && one != other;
    sqlite3_mutex_free(one);
    sqlite3_mutex_free(other);
    return result;
}

/*
 * The code of a call on `db` that failed.  Of a page that the system could not read SQLite says
 * that it is damaged; here it is SQLITE_IOERR_READ.
 */
static inline int hw_sqlite_failure(sqlite3 *db, int code)
{
    enum { FILES = 2 };
    static const int pointers[FILES] = {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER};

    if (db == NULL || (code & 0xff) != SQLITE_CORRUPT)
        return code;
    for (int i = 0; i < FILES; i++) {
        sqlite3_file *file = NULL;
        int last = 0;

        if (sqlite3_file_control(db, "main", pointers[i], &file) == SQLITE_OK && file != NULL &&
            file->pMethods != NULL &&
            file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &last) == SQLITE_OK &&
            (last == EIO || last == ENXIO || last == ERANGE))
            return SQLITE_IOERR_READ;
    }
    return code;
}

/*
 * xOpen of `base` for a file that is to be written.  If that fails SQLite's own VFS opens it for
 * reading alone: right for a file that may not be written.  Where a call only failed this time the
 * connection would never write, and whoever logs what others write would never do that: so it is
 * tried again, once, if it seems that the file may be written.
 */
static inline int hw_sqlite_open(sqlite3_vfs *base, const char *name, sqlite3_file *file, int flags,
                                 int *out_flags)
{
    int got_flags = flags, may_write = 0;
    int code = base->xOpen(base, name, file, flags, &got_flags);

    if (code == SQLITE_OK && name != NULL && flags & SQLITE_OPEN_READWRITE &&
        got_flags & SQLITE_OPEN_READONLY &&
        base->xAccess(base, name, SQLITE_ACCESS_READWRITE, &may_write) == SQLITE_OK && may_write) {
        (void)file->pMethods->xClose(file); /* nothing was read */
        file->pMethods = NULL;
        got_flags = flags;
        code = base->xOpen(base, name, file, flags, &got_flags);
    }
    if (out_flags != NULL)
        *out_flags = got_flags;
    return code;
}

/*
 * The same for the -shm of `path`, a name with its parameters, when the first xShmMap of `file`
 * gave `code`, a kind of SQLITE_READONLY: opened for reading alone it would stay so for all
 * connections of the process, as long as one of them has it.  Unmapped it is opened anew.  Not for
 * a file that has a region or a lock already: it would lose them.
 */
static inline int hw_sqlite_shm_again(sqlite3_vfs *base, const char *path, sqlite3_file *file,
                                      int size, int extend, void volatile **memory, int code)
{
    char *shm = sqlite3_mprintf("%s-shm", path);
    int may_write = 0;

    if (shm != NULL && !sqlite3_uri_boolean(path, "readonly_shm", 0) &&
        base->xAccess(base, shm, SQLITE_ACCESS_READWRITE, &may_write) == SQLITE_OK && may_write) {
        (void)file->pMethods->xShmUnmap(file, 0); /* as if it had not been */
        *memory = NULL;
        code = file->pMethods->xShmMap(file, 0, size, extend, memory);
    }
    sqlite3_free(shm);
    return code;
}

#endif
