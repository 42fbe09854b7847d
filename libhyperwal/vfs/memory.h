/*
 * vfs/memory.h - databases in memory (storage=memory): ordinary files on a tmpfs, and their life
 *
 *   ROOT/hyperwal-UID/lock                   held by who joins, leaves or sweeps
 *                     HASH/NAME              the place of a database; NAME-wal, NAME-shm,
 *                                            NAME-journal and NAME-hyper/ beside it
 *                     HASH.holders/RANDOM    one for each holder, locked as long as it lives
 *                     HASH.RANDOM.gone/      a place that nobody has any more, being removed
 *
 * HASH is of the full path that the user named, NAME its last component; ROOT is the environment's
 * HYPERWAL_MEMORY_DIR, or /dev/shm, or XDG_RUNTIME_DIR, and has to be in memory.
 *
 * A place is there while a living process holds it.  The last one that leaves removes it, and
 * whoever joins any place removes those whose holders all died.  So all that a kill leaves at any
 * moment is a place without a living holder, or one that is gone already.
 *
 * Invariants: 1. With `lock` held, a place that is to be found by its name has a living holder, or
 *                is of holders that died.
 *             2. A place is continued only by who joins it while it has a living holder.
 */
#ifndef HW_VFS_MEMORY_H
#define HW_VFS_MEMORY_H

#include <stdbool.h>

#include "base/error.h"
#include "base/sqlite.h"
#include "env/env.h"

struct hw_memory_place; /* a holder of a place */

/*
 * `base` is the VFS below, whose full paths are meant.
 * Hold the place of the database `name`, a full path, and make it if it is not there and `create`
 * is set; else HW_ENOTFOUND.  HW_EREFUSED: the directory is not this user's alone.  HW_EMISUSE:
 * there is no tmpfs.  HW_EBUSY: another process joins, leaves or sweeps, and does not end.
 */
enum hw_status hw_memory_join(struct hw_env *env, sqlite3_vfs *base, const char *name, bool create,
                              struct hw_memory_place **out, struct hw_error *err) HW_MUST_CHECK;
/*
 * Its database file, of sqlite3_create_filename(), so that it has a journal and a WAL as well.
 * Borrowed until the holder leaves.
 */
const char *hw_memory_filename(const struct hw_memory_place *place);
/* The last one removes the place.  NULL does nothing.  Not for a child after fork. */
void hw_memory_leave(struct hw_memory_place *place);

#endif
