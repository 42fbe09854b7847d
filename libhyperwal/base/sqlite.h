/*
 * base/sqlite.h - the one place that chooses how SQLite is reached
 *
 * The library links libsqlite3.  The loadable extension must use the copy of SQLite of the
 * program that loads it, which it reaches only through the table that its entry point is given.
 */
#ifndef HW_BASE_SQLITE_H
#define HW_BASE_SQLITE_H

#ifdef HW_EXTENSION
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#include <sqlite3.h>
#endif

#endif
