/* The loadable extension: registers the VFS in the SQLite of the program that loads it. */
#include "base/sqlite.h"

#undef SQLITE_EXTENSION_INIT3
#define SQLITE_EXTENSION_INIT3
SQLITE_EXTENSION_INIT1
