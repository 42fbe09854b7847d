/* Implements hyperwal_look() of include/hyperwal.h: the WAL may have grown. */
#include "capture/capture.h"
#include "hyperwal.h"
#include "vfs/vfs.h"

int hyperwal_look(sqlite3 *db, const char *schema)
{
    struct hw_capture *capture = NULL;
    int code;

    if (db == NULL)
        return SQLITE_MISUSE;
    code = sqlite3_file_control(db, schema, HW_FCNTL_CAPTURE, &capture);
    if (code != SQLITE_OK)
        return code;
    if (capture != NULL) /* a replica and a database of the past have none */
        hw_capture_committed(capture);
    return SQLITE_OK;
}
