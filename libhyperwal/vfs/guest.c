/* Implements the guests of vfs/vfs.h: connections of ours in the application's process. */
#include "env/thread.h"
#include "vfs/shim.h"

static struct hw_door door = HW_DOOR_INIT; /* inside: threads of guests in SQLite */

/* xOpen is called within sqlite3_open_v2(), and has no other way to know for whom. */
static _Thread_local bool opens_guest;

bool hw_shim_opens_guest(void)
{
    return opens_guest;
}

int hw_vfs_guest_open(const char *uri, sqlite3 **db, int flags, const char *vfs)
{
    bool before = opens_guest;
    int code;

    opens_guest = true;
    code = sqlite3_open_v2(uri, db, flags, vfs);
    opens_guest = before;
    return code;
}

void hw_vfs_guest_enter(void)
{
    hw_door_enter(&door);
}

void hw_vfs_guest_leave(void)
{
    hw_door_leave(&door);
}

void hw_shim_guest_prepare_fork(void)
{
    hw_door_shut(&door);
}

void hw_shim_guest_forked(bool is_child)
{
    if (is_child)
        hw_door_init(&door);
    else
        hw_door_open(&door);
}
