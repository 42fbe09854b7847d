/*
 * Implements hyperwal_look(), hyperwal_wal_look(), hyperwal_hold() and hyperwal_touch() of
 * include/hyperwal.h: about programs that do not use the VFS.
 */
#include "capture/capture.h"
#include "hyperwal.h"
#include "vfs/vfs.h"

/* NULL for a replica and for a database of the past. */
static int capture_of(sqlite3 *db, const char *schema, struct hw_capture **out)
{
    *out = NULL;
    return db == NULL ? SQLITE_MISUSE : sqlite3_file_control(db, schema, HW_FCNTL_CAPTURE, out);
}

int hyperwal_look(sqlite3 *db, const char *schema)
{
    struct hw_capture *capture;
    int code = capture_of(db, schema, &capture);

    if (code == SQLITE_OK && capture != NULL)
        hw_capture_look(capture);
    return code;
}

int hyperwal_hold(sqlite3 *db, const char *schema, int held)
{
    struct hw_capture *capture;
    int code = capture_of(db, schema, &capture);

    if (code != SQLITE_OK || capture == NULL)
        return code;
    if (held == HYPERWAL_HELD_SINCE)
        hw_capture_held_since(capture);
    else
        hw_capture_hold(capture, held != HYPERWAL_NOT_HELD);
    return code;
}

int hyperwal_wal_look(sqlite3 *db, const char *schema, hyperwal_wal *wal)
{
    struct hw_capture *capture;
    struct hw_capture_place place;
    int code = capture_of(db, schema, &capture);

    if (code != SQLITE_OK || capture == NULL)
        return code == SQLITE_OK ? SQLITE_MISUSE : code;
    hw_capture_place(capture, &place);
    *wal = (hyperwal_wal){
        .log = place.is_released ? HYPERWAL_LOG_RELEASED
               : !place.is_known ? HYPERWAL_LOG_NOWHERE
               : place.is_worker ? HYPERWAL_LOG_HERE
                                 : HYPERWAL_LOG_ELSEWHERE,
        .page_size = place.page_size,
        .frames = place.wal_frames,
        .logged_frames = place.logged_frames,
        .commits = place.commits,
    };
    return SQLITE_OK;
}

int hyperwal_touch(sqlite3 *db)
{
    struct hw_error err = {0};
    enum hw_status status = hw_vfs_touch(db, &err);

    if (status != HW_OK)
        sqlite3_log(hw_vfs_code(status), "hyperwal: %s", err.message);
    return hw_vfs_code(status);
}
