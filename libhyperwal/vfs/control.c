/* Implements the file controls of vfs/shim.h: all are passed down, some mean something here. */
#include "vfs/shim.h"

static int below_control(struct hw_shim_file *file, int op, void *argument)
{
    return file->layer.below->pMethods->xFileControl(file->layer.below, op, argument);
}

/* After a failure SQLite does not call its WAL hook, which would have begun a checkpoint. */
static void remember_checkpoint(struct hw_shim_file *file, const struct hw_capture_status *now)
{
    enum { AUTOCHECKPOINT_FRAMES = 1000, FRAME_HEADER_SIZE = 24 };
    uint64_t frame_size = (uint64_t)now->page_size + FRAME_HEADER_SIZE;

    file->checkpoint_due = now->wal_bytes / frame_size >= AUTOCHECKPOINT_FRAMES;
}

/* As long as the connection's durability wants it to. */
static enum hw_status wait_durable(struct hw_shim_file *file, uint64_t *seq, struct hw_error *error)
{
    bool remote = file->durability >= HW_DURABILITY_REMOTE;
    enum hw_status status;

    if (!remote)
        status = hw_capture_wait_target(file->capture, &file->target, file->timeout_ms, seq, error);
    else
        status = hw_capture_wait_remote(file->capture, &file->target, file->replicas,
                                        file->durability == HW_DURABILITY_REMOTE_APPLY,
                                        file->timeout_ms, seq, error);
    if (status == HW_OK)
        return HW_OK;
    return hw_prefix(error, status, "committed locally, but not confirmed %s within %llu ms",
                     remote ? "by followers" : "in the log", (unsigned long long)file->timeout_ms);
}

/* A commit of this connection is done; it may have to wait for the log, and for followers. */
static int committed(struct hw_shim_file *file)
{
    struct hw_error error = {0};
    struct hw_capture_status now;
    uint64_t seq = UINT64_MAX;

    if (file->shm_shared == 0 && !file->frames_alone) {
        file->needs_wal = true; /* by a rollback journal: the log adopts the database afterwards */
        return SQLITE_OK;
    }
    if (file->frames_alone) {
        file->frames_alone = false;
        hw_shim_checkpoint_end(file);
        hw_capture_exclusive_committed(file->capture, file->commit_offset);
        file->commit_offset = 0;
        file->target.is_known = false;
    }
    if (file->durability == HW_DURABILITY_ASYNC || wait_durable(file, &seq, &error) == HW_OK)
        return SQLITE_OK;
    hw_capture_status(file->capture, &now);
    hw_capture_unconfirmed(file->capture, seq != UINT64_MAX ? seq : now.seq);
    remember_checkpoint(file, &now);
    hw_shim_tell(file->path, HW_VFS_UNCONFIRMED, &error);
    return file->continue_on_timeout ? SQLITE_OK : HW_VFS_UNCONFIRMED;
}

/*
 * Door 2: the checkpointer knows how far it wants to go.  A commit that SQLite told not of, since
 * that of a database attached before was an error, is told with the next one.
 */
static void checkpoint_start(struct hw_shim_file *file)
{
    struct hw_error error = {0};

    if (!hw_shim_is_untold(file) && hw_gate_checkpoint_start(file->capture)) {
        file->checkpoint_wrote = true;
        return;
    }
    file->checkpoint_refused = true;
    (void)hw_fail(&error, HW_ETIMEOUT,
                  "the log is behind, so the WAL cannot be copied into the database yet: the "
                  "checkpoint fails and is done later");
    hw_shim_tell(file->path, SQLITE_IOERR, &error);
}

static int vfs_name(struct hw_shim_file *file, char **out)
{
    char *name;

    (void)below_control(file, SQLITE_FCNTL_VFSNAME, out); /* one that has no name leaves it NULL */
    name = *out == NULL ? sqlite3_mprintf("%s", file->shim->name)
                        : sqlite3_mprintf("%s/%z", file->shim->name, *out);
    *out = name;
    return name == NULL ? SQLITE_NOMEM : SQLITE_OK;
}

/* What a primary adds to the file control that was passed down with `code`. */
static int primary_control(struct hw_shim_file *file, int op, void *argument, int code)
{
    switch (op) {
    case SQLITE_FCNTL_COMMIT_PHASETWO: {
        int ours = committed(file);

        file->just_committed = true; /* a checkpoint that comes next is SQLite's automatic one */
        return ours == SQLITE_OK ? code : ours;
    }
    case SQLITE_FCNTL_CKPT_START:
        checkpoint_start(file);
        return code;
    case SQLITE_FCNTL_CKPT_DONE:
        file->checkpoint_refused = false;
        return code;
    case SQLITE_FCNTL_PERSIST_WAL: {
        int *persist = argument;

        /* The last close would delete a WAL that is not all in the log. */
        if (code == SQLITE_OK && *persist == 0 &&
            (hw_shim_is_untold(file) || !hw_gate_is_logged(file->capture)))
            *persist = 1;
        return code;
    }
    default:
        return code;
    }
}

int hw_shim_file_control(sqlite3_file *sqlite_file, int op, void *argument)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    bool query = op == SQLITE_FCNTL_PERSIST_WAL && *(int *)argument < 0;
    int code;

    if (op == SQLITE_FCNTL_VFSNAME)
        return vfs_name(file, argument);
    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    switch (op) {
    case HW_FCNTL_CAPTURE:
        *(struct hw_capture **)argument = file->capture;
        return SQLITE_OK;
    case HW_FCNTL_FILE:
        *(struct hw_shim_file **)argument = file;
        return SQLITE_OK;
    case HW_FCNTL_REQUEST:
        return hw_shim_request(file, argument);
    case SQLITE_FCNTL_PRAGMA:
        file->just_committed = false;
        code = hw_shim_pragma(file, argument);
        if (code != SQLITE_NOTFOUND)
            return code;
        break;
    case SQLITE_FCNTL_BUSYHANDLER: {
        void **handler = argument;

        file->busy = (int (*)(void *))(uintptr_t)handler[0]; /* two void *: SQLite's own ABI */
        file->busy_ctx = handler[1];
        break;
    }
    case SQLITE_FCNTL_PDB:
        file->db = file->shared_cache ? NULL : *(sqlite3 **)argument;
        break;
    default:
        break;
    }
    code = below_control(file, op, argument);
    if (file->role != HW_SHIM_PRIMARY || (op == SQLITE_FCNTL_PERSIST_WAL && !query))
        return code;
    return primary_control(file, op, argument, code);
}
