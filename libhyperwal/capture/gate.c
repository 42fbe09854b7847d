/*
 * The four doors of capture/capture.h: nothing is checkpointed, restarted or deleted before it is
 * in the log.  Doors wait for the log a bounded time or not at all.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

enum { CHECKPOINT_FRAMES = 1000 }; /* from how many on SQLite checkpoints after a commit */

enum hw_status hw_base_open(struct hw_capture *capture, sqlite3_file **out, struct hw_error *err)
{
    sqlite3_file *file = hw_zalloc((size_t)capture->base->szOsFile);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_MAIN_DB;
    int rc;

    if (file == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open it", capture->path);
    rc = hw_sqlite_open(capture->base, capture->filename, file, flags, NULL);
    if (rc != SQLITE_OK) {
        if (file->pMethods != NULL)
            file->pMethods->xClose(file); /* the contract of xOpen */
        hw_free(file);
        return hw_fail(err, HW_EIO, "%s: cannot open (SQLite code %d)", capture->path, rc);
    }
    *out = file;
    return HW_OK;
}

void hw_base_close(sqlite3_file *file)
{
    if (file == NULL)
        return;
    if (file->pMethods != NULL) {
        /* Other handles of the process go on using the -shm: never delete it from here. */
        if (file->pMethods->iVersion >= 2 && file->pMethods->xShmUnmap != NULL)
            (void)file->pMethods->xShmUnmap(file, 0);
        (void)file->pMethods->xClose(file); /* nothing was written through it */
    }
    hw_free(file);
}

enum hw_status hw_gate_open(struct hw_capture *capture, bool with_index, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    hw_mutex_lock(&capture->gate_mutex);
    if (with_index && capture->mapped == 0)
        status = HW_END;
    else if (capture->database == NULL)
        status = hw_base_open(capture, &capture->database, err);
    if (status == HW_OK && with_index && capture->gate_index == NULL) {
        struct hw_file_stat stat;

        status = hw_wal_index_shared(capture->database, &capture->gate_index, err);
        if (status == HW_EREADONLY && capture->database->pMethods->xShmUnmap != NULL)
            (void)capture->database->pMethods->xShmUnmap(capture->database, 0); /* opened anew */
        capture->shm_inode =
            capture->env->ops->stat(capture->env, capture->shm_path, &stat, NULL) == HW_OK
                ? stat.inode
                : 0; /* a base VFS that keeps it elsewhere */
    }
    if (status == HW_OK && with_index)
        atomic_store(&capture->ready, true); /* with the mutex: the last one may be leaving */
    hw_mutex_unlock(&capture->gate_mutex);
    return status;
}

void hw_gate_close_locked(struct hw_capture *capture)
{
    hw_wal_index_free(capture->gate_index);
    capture->gate_index = NULL;
    hw_base_close(capture->database);
    capture->database = NULL;
    capture->shm_inode = 0;
}

void hw_gate_close(struct hw_capture *capture)
{
    hw_mutex_lock(&capture->gate_mutex);
    hw_gate_close_locked(capture);
    hw_mutex_unlock(&capture->gate_mutex);
}

enum hw_status hw_gate_header(struct hw_capture *capture, struct hw_wal_index_header *out)
{
    enum hw_status status = HW_AGAIN;

    hw_mutex_lock(&capture->gate_mutex);
    if (capture->gate_index != NULL)
        status = hw_wal_index_read(capture->gate_index, out, NULL);
    hw_mutex_unlock(&capture->gate_mutex);
    return status;
}

bool hw_header_same_round(const struct hw_wal_index_header *header, const uint8_t salts[8])
{
    return memcmp(header->salts, salts, sizeof(header->salts)) == 0;
}

/* The position that means: the log is let go, the gate is open. */
static bool is_released(const struct hw_shared_position *position)
{
    return position->frame == UINT32_MAX;
}

/* Does the log reach `max_frame` of the round with these salts? */
static bool reaches(struct hw_capture *capture, const uint8_t salts[8], uint32_t max_frame)
{
    struct hw_shared_position position = hw_shared_position(capture->shared);

    if (is_released(&position))
        return true;
    if (position.seq == UINT64_MAX)
        return false; /* not adopted, or being checked */
    return max_frame == 0 || (memcmp(position.salts, salts, 8) == 0 && position.frame >= max_frame);
}

bool hw_gate_is_logged(struct hw_capture *capture)
{
    struct hw_wal_index_header header;

    if (hw_capture_is_private(capture)) {
        struct hw_shared_position position = hw_shared_position(capture->shared);
        bool logged;

        hw_fair_mutex_lock(&capture->step_mutex);
        header = capture->worker.private_header;
        logged = is_released(&position) || (!capture->worker.private_stale &&
                                            reaches(capture, header.salts, header.max_frame));
        hw_fair_mutex_unlock(&capture->step_mutex);
        return logged;
    }
    if (!atomic_load(&capture->ready)) {
        if (!atomic_load(&capture->blind))
            return true; /* nobody has read this WAL through us: nothing of ours can be lost */
        if (!hw_capture_ready(capture))
            return false; /* somebody writes it, and we cannot look */
    }
    if (hw_gate_header(capture, &header) != HW_OK)
        return false;
    return reaches(capture, header.salts, header.max_frame);
}

bool hw_gate_is_alarmed(struct hw_capture *capture)
{
    char alarm[HW_SHARED_TEXT_SIZE];

    hw_shared_alarm(capture->shared, alarm);
    return alarm[0] != '\0';
}

/* Wait, bounded, until all that is committed now is in the log. */
static bool wait_logged(struct hw_capture *capture)
{
    struct hw_env *env = capture->env;
    uint64_t deadline = env->ops->monotonic_ns(env) + GATE_WAIT_NS;

    while (!hw_gate_is_logged(capture)) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        uint64_t now = env->ops->monotonic_ns(env);

        if (now >= deadline || (capture->threaded && hw_gate_is_alarmed(capture)))
            return false;
        hw_shared_urge(capture->shared);
        if (!capture->threaded) {
            uint64_t next;
            enum hw_status status = hw_capture_step(capture, &next, NULL);

            if (status < 0 || (status == HW_END && next == UINT64_MAX))
                return hw_gate_is_logged(capture);
            continue;
        }
        if (!hw_gate_is_logged(capture))
            hw_shared_wait(capture->shared, seen, deadline - now);
    }
    return true;
}

/* The WAL's length, and whether that is beyond what checkpoints and writers wait for. */
static bool is_over_limit(const struct hw_capture *capture,
                          const struct hw_wal_index_header *header)
{
    uint64_t frame_size = HW_WAL_FRAME_HEADER_SIZE + (uint64_t)header->page_size;
    uint64_t limit = capture->wal_limit != 0 ? capture->wal_limit : WAL_LIMIT_FRAMES * frame_size;

    return header->max_frame * frame_size > limit;
}

/*
 * Has the WAL grown by a checkpoint's worth since `tried` was set?  If so it is set anew.  When a
 * long reader holds checkpoints back, only so often somebody waits in vain.
 */
static bool has_grown(atomic_uint *tried, uint32_t max_frame)
{
    uint32_t last = atomic_load(tried);

    if (max_frame >= last && max_frame - last < CHECKPOINT_FRAMES)
        return false;
    atomic_store(tried, max_frame);
    return true;
}

int hw_gate_checkpoint_lock(struct hw_capture *capture, bool automatic)
{
    struct hw_wal_index_header header;

    /* A shorter WAL SQLite leaves alone: then it is the application that asks, and we wait. */
    if (automatic && !hw_gate_is_logged(capture) && hw_gate_header(capture, &header) == HW_OK &&
        header.max_frame >= CHECKPOINT_FRAMES &&
        !(is_over_limit(capture, &header) && has_grown(&capture->waited_frame, header.max_frame)))
        return SQLITE_BUSY;
    return wait_logged(capture) ? SQLITE_OK : SQLITE_BUSY;
}

bool hw_gate_checkpoint_start(struct hw_capture *capture)
{
    return wait_logged(capture);
}

bool hw_gate_restart(struct hw_capture *capture, sqlite3_file *connection, bool holds_checkpoint,
                     struct hw_gate_pass *pass)
{
    struct hw_wal_index_header header;

    pass->is_open = false;
    if (!atomic_load(&capture->ready) || hw_gate_header(capture, &header) != HW_OK ||
        !reaches(capture, header.salts, header.max_frame))
        return false;
    if (!holds_checkpoint) {
        const sqlite3_io_methods *methods = connection->pMethods;

        /* Somebody inside a checkpoint may have read the header that a restart makes stale. */
        if (methods->xShmLock(connection, HW_SHM_CKPT, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
            SQLITE_OK)
            return false;
        (void)methods->xShmLock(connection, HW_SHM_CKPT, 1,
                                SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE); /* cannot fail */
    }
    hw_round_pass(capture, &header, pass);
    return true;
}

bool hw_gate_checkpoint_locked(struct hw_capture *capture, sqlite3_file *connection)
{
    const sqlite3_io_methods *methods = connection->pMethods;
    int slot = HW_SHM_READ0 + 4;

    (void)capture;
    /* A restart holds READ(1..4) exclusive: a shared lock of the last one tells. */
    if (methods->xShmLock(connection, slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) != SQLITE_OK)
        return false;
    (void)methods->xShmLock(connection, slot, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
    return true;
}

/* ------------------------------------------------------------ the WAL that grew too long */

/* A passive checkpoint through a connection of our own on the base VFS: the gate was asked
 * before. */
static void checkpoint_passive(struct hw_capture *capture)
{
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(capture->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE,
                             capture->base->zName);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "PRAGMA wal_checkpoint(PASSIVE)", NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        hw_env_log(capture->env, HW_LOG_WARN, "event=wal_over_limit db=%s checkpoint_code=%d",
                   capture->path, rc);
    (void)sqlite3_close(db); /* never the last one: the writer who asked is open */
}

void hw_gate_write_lock(struct hw_capture *capture)
{
    struct hw_env *env = capture->env;
    uint64_t now = 0, deadline = 0;

    while (atomic_load(&capture->ready) && !atomic_load(&capture->settled)) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        struct hw_shared_position position = hw_shared_position(capture->shared);

        now = env->ops->monotonic_ns(env);
        deadline = deadline == 0 ? now + SETTLE_WAIT_NS : deadline;
        if (position.seq != UINT64_MAX || is_released(&position) || now >= deadline ||
            hw_gate_is_alarmed(capture)) {
            atomic_store(&capture->settled, true); /* once is enough, in vain or not */
            return;
        }
        if (capture->threaded) {
            hw_shared_wait(capture->shared, seen, deadline - now);
        } else {
            uint64_t next;

            if (hw_capture_step(capture, &next, NULL) != HW_OK)
                atomic_store(&capture->settled, true);
        }
    }
}

void hw_gate_write_locked(struct hw_capture *capture)
{
    struct hw_wal_index_header header;

    if (!atomic_load(&capture->ready) || hw_gate_header(capture, &header) != HW_OK)
        return;
    if (!is_over_limit(capture, &header) ||
        !has_grown(&capture->checkpoint_frame, header.max_frame))
        return;
    if (!wait_logged(capture))
        return; /* the log cannot keep up: the application goes on, the WAL grows to its cap */
    if (hw_gate_header(capture, &header) == HW_OK) {
        uint32_t backfilled = 0, attempted = 0;
        enum hw_status status;

        hw_mutex_lock(&capture->gate_mutex);
        status = capture->gate_index == NULL
                     ? HW_AGAIN
                     : hw_wal_index_backfill(capture->gate_index, &backfilled, &attempted, NULL);
        hw_mutex_unlock(&capture->gate_mutex);
        if (status == HW_OK && backfilled < header.max_frame)
            checkpoint_passive(capture);
    }
}
