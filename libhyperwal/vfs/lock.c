/*
 * Implements the locks of vfs/shim.h: what a connection holds tells capture when a transaction is
 * over, and the doors of the gate stand at the locks of a checkpoint.
 *
 * A connection and exclusive locking mode:
 *
 *             PRAGMA exclusive: entered                     EXCLUSIVE
 *   NORMAL ───────────────────────────▶ WANTED ───────────────────────────────▶ ALONE
 *      ▲                                  │ ▲        EXCLUSIVE given back          │
 *      │             PRAGMA normal, close │ └──────────────────────────────────────┤
 *      └──────────────────────────────────┴────── the same, after PRAGMA normal ───┘
 *
 * WANTED and ALONE are both `exclusive_entered`, and ALONE is `is_alone` besides.  WANTED are as
 * many as like, and have the locks of everybody; ALONE is one.  A connection may come to ALONE
 * without the PRAGMA (PRAGMA locking_mode without a schema also means databases attached later);
 * then it enters at its first frame.
 */
#include <string.h>

#include "vfs/shim.h"
#include "wal/wal.h"

enum { SLOT_COUNT = 8, READ1 = HW_SHM_READ0 + 1, RESTART_SLOTS = 4 };

static uint16_t slots(int first, int count)
{
    return (uint16_t)(((1U << count) - 1) << first);
}

static bool holds(const struct hw_shim_file *file, int slot)
{
    return (file->shm_exclusive & 1U << slot) != 0;
}

/* -------------------------------------------------------------------------- exclusive mode */

static void become_alone(struct hw_shim_file *file)
{
    if (file->is_alone)
        return;
    file->is_alone = true;
    file->alone_wrote = false;
    file->commit_offset = 0;
    hw_capture_alone(file->capture, file->shm_mapped);
}

/* EXCLUSIVE is about to be given back. */
static void end_alone(struct hw_shim_file *file)
{
    if (!file->is_alone)
        return;
    file->is_alone = false;
    file->frames_alone = false; /* those that are left were taken back */
    hw_capture_alone_end(file->capture);
}

void hw_shim_exclusive_leave(struct hw_shim_file *file)
{
    end_alone(file);
    if (!file->exclusive_entered)
        return;
    file->exclusive_entered = false;
    hw_capture_leave_exclusive(file->capture);
}

/* ---------------------------------------------------------------------- the database file */

int hw_shim_file_lock(sqlite3_file *sqlite_file, int level)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    /* A replica's WAL is the follower's, who notes what it means before it is backfilled: no
     * connection may checkpoint and delete it at its close, or keep it for itself. */
    if ((file->role == HW_SHIM_REPLICA || file->role == HW_SHIM_REMOTE) &&
        level > SQLITE_LOCK_SHARED)
        return SQLITE_BUSY;
    code = file->layer.below->pMethods->xLock(file->layer.below, level);
    if (code == SQLITE_OK && level > file->lock)
        file->lock = level;
    if (code == SQLITE_OK && file->exclusive_entered && file->lock == SQLITE_LOCK_EXCLUSIVE)
        become_alone(file);
    return code;
}

/* Nothing is locked: a database that is not in WAL mode can be switched now. */
static void switch_now(struct hw_shim_file *file)
{
    struct hw_error error = {0};
    enum hw_header_state header = hw_internal_header(file);
    enum hw_status status = HW_OK;

    if (header == HW_HEADER_EMPTY || header == HW_HEADER_UNKNOWN)
        return; /* look again when there is something */
    if (header == HW_HEADER_OTHER)
        status = hw_internal_switch(file, &error);
    if (status == HW_OK)
        file->needs_wal = false;
    else if (status != HW_EBUSY)
        hw_shim_tell(file->path, SQLITE_ERROR, &error); /* and try again next time */
}

int hw_shim_file_unlock(sqlite3_file *sqlite_file, int level)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    bool forked = hw_shim_is_forked(file);
    int code;

    if (!forked && file->role == HW_SHIM_PRIMARY && level < SQLITE_LOCK_EXCLUSIVE &&
        file->lock == SQLITE_LOCK_EXCLUSIVE) {
        hw_shim_checkpoint_end(file);
        end_alone(file);
        if (!file->exclusive_wanted)
            hw_shim_exclusive_leave(file);
    }
    if (!forked && file->shm_leaving && level < SQLITE_LOCK_EXCLUSIVE)
        hw_shim_shm_left(file);
    code = file->layer.below->pMethods->xUnlock(file->layer.below, level);
    if (code == SQLITE_OK && level < file->lock)
        file->lock = level;
    if (!forked && file->needs_wal && file->lock == SQLITE_LOCK_NONE)
        switch_now(file);
    return code;
}

enum hw_status hw_shim_exclusive(struct hw_shim_file *file, bool wanted, struct hw_error *err)
{
    enum hw_status status;

    if (wanted && !file->exclusive_entered) {
        if (hw_internal_header(file) != HW_HEADER_WAL)
            return hw_fail(err, HW_EMISUSE,
                           "locking_mode=exclusive needs a database in WAL mode: run PRAGMA "
                           "journal_mode=WAL first");
        status = hw_capture_enter_exclusive(file->capture, err);
        if (status != HW_OK)
            return status;
        file->exclusive_entered = true;
        if (file->lock == SQLITE_LOCK_EXCLUSIVE) /* it had it without the PRAGMA, and wrote not */
            become_alone(file);
    }
    file->exclusive_wanted = wanted;
    if (!wanted && file->lock != SQLITE_LOCK_EXCLUSIVE)
        hw_shim_exclusive_leave(file);
    return HW_OK;
}

/* ---------------------------------------------------------------------------- the WAL file */

/* Frames without a write lock in the wal-index: this connection is alone with the database. */
static int frame_alone(struct hw_shim_file *main)
{
    struct hw_error error = {0};
    enum hw_status status;

    if (!main->exclusive_entered) {
        status = hw_capture_enter_exclusive(main->capture, &error);
        if (status != HW_OK) { /* the transaction rolls back */
            hw_shim_tell(main->path, SQLITE_IOERR_WRITE, &error);
            return SQLITE_IOERR_WRITE;
        }
        main->exclusive_entered = true;
        main->exclusive_wanted = true;
    }
    become_alone(main);
    main->frames_alone = true;
    main->wal_deleted = false;
    return SQLITE_OK;
}

/* The first write of one that is alone: the header of the WAL, or that of a frame. */
static void first_alone(struct hw_shim_file *main, const uint8_t *bytes, uint64_t offset)
{
    bool is_frame = offset >= HW_WAL_HEADER_SIZE;

    main->alone_wrote = true;
    hw_capture_alone_writes(main->capture, bytes + (is_frame ? 8 : 16), is_frame ? offset : 0);
}

/*
 * A frame's header.  What is begun behind a commit frame says that this counts; what is written
 * over it, that it was taken back (or it is SQLite, which writes the headers of a commit once more,
 * the last one last).
 */
static void note_commit(struct hw_shim_file *main, const uint8_t *bytes, uint64_t offset)
{
    if (hw_wal_frame_decode(bytes).commit_size != 0) {
        main->commit_offset = offset;
        return;
    }
    if (hw_shim_is_untold(main) && offset > main->commit_offset)
        hw_capture_exclusive_committed(main->capture, main->commit_offset);
    main->commit_offset = 0;
}

bool hw_shim_is_untold(const struct hw_shim_file *file)
{
    return file->is_alone && !file->shm_mapped && file->commit_offset != 0;
}

void hw_shim_wal_failed(struct hw_shim_file *wal)
{
    if (!wal->main->checkpoint_refused) /* that syncs, too, and SQLite takes nothing back then */
        wal->main->commit_offset = 0;
}

/* A frame's header, or its page, or a part of that. */
static void note_frame(struct hw_shim_file *wal, const uint8_t *bytes, int size, uint64_t begin)
{
    struct hw_shim_file *main = wal->main;
    uint64_t end = begin + (uint64_t)size;

    if (size == HW_WAL_FRAME_HEADER_SIZE) {
        bool commits = hw_wal_frame_decode(bytes).commit_size != 0;

        /* What others wrote in between are whole commits; behind a commit is what was undone. */
        if (memcmp(wal->wal_salts, bytes + 8, sizeof(wal->wal_salts)) != 0 ||
            begin >= wal->wal_end || commits)
            wal->wal_end = end;
        memcpy(wal->wal_salts, bytes + 8, sizeof(wal->wal_salts));
        note_commit(main, bytes, begin);
    } else if (begin == wal->wal_end) {
        wal->wal_end = end; /* the page after its header, or the rest of a split write */
    }
    hw_capture_wal_changed(main->capture, wal->wal_salts, begin);
}

int hw_shim_wal_write(struct hw_shim_file *wal, const uint8_t *bytes, int size, int64_t offset)
{
    struct hw_shim_file *main = wal->main;
    uint64_t begin = (uint64_t)offset;

    if (!main->frames_alone && main->lock == SQLITE_LOCK_EXCLUSIVE && !holds(main, HW_SHM_WRITE)) {
        int code = frame_alone(main);

        if (code != SQLITE_OK)
            return code;
    }
    if (begin < HW_WAL_HEADER_SIZE) {
        wal->wal_end = 0; /* a new round */
        if (begin == 0 && size == HW_WAL_HEADER_SIZE)
            hw_capture_new_round(main->capture, bytes + 16);
    } else {
        note_frame(wal, bytes, size, begin);
    }
    if (main->is_alone && !main->alone_wrote)
        first_alone(main, bytes, begin);
    return SQLITE_OK;
}

void hw_shim_wal_synced(struct hw_shim_file *wal)
{
    if (wal->wal_end > 0 && holds(wal->main, HW_SHM_WRITE) && !holds(wal->main, HW_SHM_CKPT))
        hw_capture_wal_synced(wal->capture, wal->wal_salts, wal->wal_end);
}

/* --------------------------------------------------------------------------- the wal-index */

int hw_shim_file_shm_map(sqlite3_file *sqlite_file, int region, int size, int extend,
                         void volatile **memory)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    bool is_first = !file->shm_mapped && file->shm_shared == 0 && file->shm_exclusive == 0;
    int code;

    if (hw_shim_is_forked(file))
        return SQLITE_IOERR;
    if (file->role == HW_SHIM_PRIMARY && !file->shm_mapped && !file->shm_leaving)
        hw_capture_mapped(file->capture);
    file->shm_mapped = true;
    file->shm_leaving = false;
    file->wal_deleted = false;
    code = file->layer.below->pMethods->xShmMap(file->layer.below, region, size, extend, memory);
    if ((code & 0xff) == SQLITE_READONLY && is_first)
        code = hw_sqlite_shm_again(file->shim->base,
                                   file->cache_name != NULL ? file->cache_name : file->path,
                                   file->layer.below, size, extend, memory, code);
    return file->role == HW_SHIM_REMOTE ? hw_shim_remote_passed(file, code) : code;
}

void hw_shim_shm_left(struct hw_shim_file *file)
{
    if (file->shm_leaving) {
        /* The log may be behind: nobody waits for more than SHARED, not even for what is left of a
         * try for EXCLUSIVE. */
        (void)file->layer.below->pMethods->xUnlock(file->layer.below, SQLITE_LOCK_SHARED);
        hw_capture_unmapped(file->capture);
    }
    file->shm_leaving = false;
}

int hw_shim_file_shm_unmap(sqlite3_file *sqlite_file, int delete_flag)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);

    if (file->layer.below->pMethods->xShmUnmap == NULL)
        return SQLITE_OK;
    if (hw_shim_is_forked(file))
        return file->layer.below->pMethods->xShmUnmap(file->layer.below, 0);
    if (file->role == HW_SHIM_PRIMARY) {
        hw_shim_checkpoint_end(file);
        if (delete_flag)
            hw_shim_wal_deleted(file);
        file->shm_leaving |= file->shm_mapped;
        if (file->lock != SQLITE_LOCK_EXCLUSIVE) /* which nobody is to wait for, either */
            hw_shim_shm_left(file);
    }
    file->shm_mapped = false;
    file->ready = false;
    return file->layer.below->pMethods->xShmUnmap(file->layer.below, delete_flag);
}

void hw_shim_wal_deleted(struct hw_shim_file *file)
{
    if (file->wal_deleted)
        return;
    file->wal_deleted = true;
    hw_shim_checkpoint_end(file);
    hw_capture_wal_deleted(file->capture);
}

void hw_shim_checkpoint_end(struct hw_shim_file *file)
{
    if (!file->checkpoint_wrote)
        return;
    file->checkpoint_wrote = false;
    hw_capture_checkpointed(file->capture);
}

static int below_lock(struct hw_shim_file *file, int first, int count, int flags)
{
    return file->layer.below->pMethods->xShmLock(file->layer.below, first, count, flags);
}

/* Take back a lock that the gate does not allow. */
static int refuse(struct hw_shim_file *file, int first, int count)
{
    int code = below_lock(file, first, count, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);

    return code == SQLITE_OK ? SQLITE_BUSY : code;
}

static int lock_exclusive(struct hw_shim_file *file, int first, int count, int flags)
{
    int code;

    if (first == HW_SHM_WRITE && !holds(file, HW_SHM_CKPT)) {
        struct hw_error error = {0};

        /* Who has no read mark recovers the WAL, and writes nothing. */
        code = file->shm_shared == 0 ? SQLITE_OK : hw_gate_may_write(file->capture, &error);
        if (code == SQLITE_READONLY)
            hw_shim_tell(file->path, code, &error);
        if (code != SQLITE_OK)
            return code;
        hw_gate_write_lock(file->capture);
    }
    if (first == HW_SHM_CKPT && count == 1) {
        code = hw_gate_checkpoint_lock(file->capture, file->just_committed); /* door 1 */
        file->just_committed = false;
        if (code != SQLITE_OK)
            return code;
    }
    code = below_lock(file, first, count, flags);
    if (code != SQLITE_OK)
        return code;
    if (first == HW_SHM_WRITE && !holds(file, HW_SHM_CKPT))
        hw_gate_write_locked(file->capture); /* but not the one who does the checkpoint */
    if (first == HW_SHM_CKPT && count == 1 &&
        !hw_gate_checkpoint_locked(file->capture, file->layer.below))
        return refuse(file, first, count);
    if (first == READ1 && count == RESTART_SLOTS &&
        !hw_gate_restart(file->capture, file->layer.below, holds(file, HW_SHM_CKPT),
                         &file->door)) /* door 3 */
        return refuse(file, first, count);
    return SQLITE_OK;
}

/* Tell capture what an unlocking meant; `given_back` are exclusive slots, or shared ones. */
static void after_unlock(struct hw_shim_file *file, uint16_t given_back, bool is_exclusive)
{
    if (is_exclusive && given_back & 1U << HW_SHM_WRITE)
        hw_capture_committed(file->capture);
    if (file->checkpoint_due && file->shm_shared == 0 && file->shm_exclusive == 0) {
        file->checkpoint_due = false;
        hw_internal_checkpoint(file);
    }
}

static int shm_unlock(struct hw_shim_file *file, int first, int count, int flags, bool ours)
{
    bool is_exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    uint16_t *held = is_exclusive ? &file->shm_exclusive : &file->shm_shared;
    int code;

    if (ours && is_exclusive && first == HW_SHM_CKPT)
        hw_shim_checkpoint_end(file);
    if (ours && is_exclusive && first == READ1 && count == RESTART_SLOTS)
        hw_gate_restarted(file->capture, &file->door);
    if (ours && is_exclusive && first == HW_SHM_WRITE && file->durability != HW_DURABILITY_ASYNC)
        hw_capture_target(file->capture, &file->target);
    if (file->write != NULL && is_exclusive && first == HW_SHM_WRITE)
        code = hw_shim_remote_write_unlock(file);
    else
        code = below_lock(file, first, count, flags);
    *held &= (uint16_t)~slots(first, count);
    if (ours)
        after_unlock(file, slots(first, count), is_exclusive);
    return code;
}

int hw_shim_file_shm_lock(sqlite3_file *sqlite_file, int first, int count, int flags)
{
    struct hw_shim_file *file = hw_shim_file(sqlite_file);
    bool is_exclusive = (flags & SQLITE_SHM_EXCLUSIVE) != 0;
    bool forked = hw_shim_is_forked(file);
    bool ours = file->role == HW_SHIM_PRIMARY && !forked;
    int code;

    if (file->layer.below->pMethods->xShmLock == NULL)
        return SQLITE_IOERR_SHMLOCK;
    if (flags & SQLITE_SHM_UNLOCK)
        return shm_unlock(file, first, count, flags, ours);
    if (forked)
        return SQLITE_IOERR;
    /* The applier alone copies the WAL into the file, and knows what was filled meanwhile.  (Two
     * slots at once are a recovery's.) */
    if (file->role == HW_SHIM_REMOTE && is_exclusive && first == HW_SHM_CKPT && count == 1)
        return SQLITE_BUSY;
    /* And it alone begins the WAL anew; SQLite goes on without that. */
    if (file->role == HW_SHIM_REMOTE && is_exclusive && first == READ1 && count == RESTART_SLOTS)
        return SQLITE_BUSY;
    /* Whoever writes reads, too; who does not recovers, and that is the applier's. */
    if (file->role == HW_SHIM_REMOTE && is_exclusive && first == HW_SHM_WRITE && count == 1 &&
        file->shm_shared >> HW_SHM_READ0 != 0) {
        code = hw_shim_remote_write_lock(file);
        if (code == SQLITE_OK)
            file->shm_exclusive |= slots(first, count);
        return code;
    }
    if (first != HW_SHM_CKPT)
        file->just_committed = false;
    code = ours && is_exclusive ? lock_exclusive(file, first, count, flags)
                                : below_lock(file, first, count, flags);
    if (code != SQLITE_OK)
        return code;
    if (is_exclusive)
        file->shm_exclusive |= slots(first, count);
    else
        file->shm_shared |= slots(first, count);
    if (ours && !is_exclusive && !file->ready && first >= HW_SHM_READ0) {
        file->ready = hw_capture_ready(file->capture);
    }
    return SQLITE_OK;
}
