/*
 * Exclusive locking mode: connections that wish for it, and the one that is alone with the
 * database.
 *
 * Without shared memory SQLite keeps the wal-index on its heap, so ours is built from the WAL
 * itself, at each commit, by the thread that committed:
 *
 *     found when it became alone │ committed since, as SQLite told │ begun, or taken back
 *     ───────────────────────────┴─────────────────────────────────┼─────────────────────
 *                                                             private_end
 *
 * Until it writes, all counts that SQLite's recovery would take; from then on a frame that looks
 * committed may be of a transaction whose sync failed, and what was told alone counts.
 */
#include <assert.h>
#include <string.h>

#include "capture/internal.h"

enum { ROLE_WAIT_NS = 2000000000, ROLE_SLICE_NS = 50000000 };

/* ------------------------------------------------------------------------- the private index */

/* Begin a new index if the WAL is in another round than the one we have. */
static enum hw_status follow_header(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header *mine = &worker->private_header;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    enum hw_status status = hw_worker_open_wal(capture, err);

    if (status == HW_OK)
        status = capture->env->ops->read_at(worker->wal, 0, bytes, sizeof(bytes), err);
    if (status == HW_OK)
        status = hw_wal_header_decode(bytes, &worker->wal_header);
    if (status == HW_END || status == HW_ENOTFOUND)
        return HW_END; /* no WAL, or an empty one: nothing is committed in it */
    if (status != HW_OK)
        return hw_fail(err, status, "%s: its header cannot be read", capture->wal_path);
    if (worker->private_index != NULL && mine->page_size != 0 &&
        memcmp(mine->salts, worker->wal_header.salts, sizeof(mine->salts)) == 0)
        return HW_OK;
    hw_wal_index_free(worker->private_index);
    worker->private_index = NULL;
    status = hw_wal_index_private(&worker->private_index, err);
    if (status != HW_OK)
        return status;
    *mine = (struct hw_wal_index_header){.page_size = worker->wal_header.page_size,
                                         .big_endian_checksum = worker->wal_header.big_endian};
    memcpy(mine->salts, worker->wal_header.salts, sizeof(mine->salts));
    memcpy(mine->frame_checksum, worker->wal_header.checksum, sizeof(mine->frame_checksum));
    return hw_wal_index_publish(worker->private_index, mine, err);
}

/*
 * Is the frame in `worker->frames` the next one?  Then *sum has taken it in.  What this process
 * committed is, whatever its checksum: SQLite before 3.50.2 leaves it out, or begins it from a
 * wrong one, after it took back what it had spilled.
 */
static bool frame_continues(const struct hw_worker *worker, const struct hw_wal_frame *frame,
                            bool is_committed, uint32_t sum[2])
{
    const struct hw_wal_index_header *mine = &worker->private_header;

    if (frame->page_number == 0)
        return false;
    if (!frame->has_checksum)
        return is_committed;
    hw_wal_checksum(worker->wal_header.big_endian, worker->frames, 8, sum);
    hw_wal_checksum(worker->wal_header.big_endian, worker->frames + HW_WAL_FRAME_HEADER_SIZE,
                    mine->page_size, sum);
    if (memcmp(frame->salts, mine->salts, sizeof(mine->salts)) != 0 ||
        (!is_committed && memcmp(frame->checksum, sum, sizeof(frame->checksum)) != 0))
        return false;
    memcpy(sum, frame->checksum, sizeof(frame->checksum));
    return true;
}

/* Index the frames of the round in private_header, as far as they are committed. */
static enum hw_status scan_frames(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header next = worker->private_header;
    uint64_t end = hw_header_same_round(&next, worker->private_salts) ? worker->private_end : 0;
    uint32_t sum[2];
    enum hw_status status = hw_worker_prepare(capture, next.page_size, err);

    if (status == HW_OK)
        status = hw_wal_index_cleanup(worker->private_index, err);
    memcpy(sum, next.frame_checksum, sizeof(sum));
    worker->frames_count = 0; /* the buffer is used here */
    for (uint32_t number = next.max_frame + 1; status == HW_OK; number++) {
        uint64_t at = hw_wal_frame_offset(next.page_size, number);
        size_t size = HW_WAL_FRAME_HEADER_SIZE + (size_t)next.page_size;
        struct hw_wal_frame frame;

        if (worker->private_bounded && at >= end)
            break; /* it may be taken back still, or was */
        status = capture->env->ops->read_at(worker->wal, at, worker->frames, size, err);
        if (status != HW_OK)
            break;
        frame = hw_wal_frame_decode(worker->frames);
        if (!frame_continues(worker, &frame, at < end, sum))
            break;
        status = hw_wal_index_insert(worker->private_index, number, frame.page_number, err);
        if (status == HW_OK && frame.commit_size != 0) {
            next.max_frame = number;
            next.page_count = frame.commit_size;
            memcpy(next.frame_checksum, sum, sizeof(sum));
            status = hw_wal_index_publish(worker->private_index, &next, err);
            worker->private_header = next;
        }
    }
    if (status < 0)
        return status;
    if (hw_wal_frame_offset(next.page_size, next.max_frame + 1) < end)
        return hw_fail(err, HW_EIO, "%s ends before what was committed in it", capture->wal_path);
    return HW_OK;
}

static enum hw_status scan(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = hw_gate_open(capture, false, err);

    if (status == HW_OK && worker->private_index == NULL)
        status = hw_wal_index_private(&worker->private_index, err);
    if (status == HW_OK)
        status = follow_header(capture, err);
    if (status == HW_END && worker->private_told == 0)
        return HW_OK;
    if (status == HW_END)
        return hw_fail(err, HW_EIO, "%s: something was committed in it, and it is empty",
                       capture->wal_path);
    if (status != HW_OK)
        return status;
    if (worker->private_told != 0) { /* in this round: none begins before that was looked at */
        worker->private_end = worker->private_told;
        memcpy(worker->private_salts, worker->private_header.salts, sizeof(worker->private_salts));
        worker->private_told = 0;
    }
    return scan_frames(capture, err);
}

enum hw_status hw_exclusive_look(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status;

    if (!hw_capture_is_private(capture) || !worker->private_stale)
        return HW_OK;
    status = scan(capture, err);
    worker->private_stale = status != HW_OK;
    return status;
}

enum hw_status hw_exclusive_step(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    bool was_stale = worker->private_stale;
    enum hw_status status;

    if (worker->state == WORKER_STALLED)
        return HW_OK; /* it lets go of the index before it goes on, and looks then */
    status = hw_exclusive_look(capture, err);
    if (status == HW_OK && was_stale && worker->alarmed && worker->state == WORKER_RUNNING)
        hw_worker_alarm_over(capture);
    return status;
}

/* ------------------------------------------------------------------------- the shared index */

/* Until the one that is alone calls this again, only it changes the wal-index. */
static void see_index(struct hw_capture *capture)
{
    struct hw_wal_index_header header = {0};
    bool seen = hw_gate_header(capture, &header) == HW_OK;

    hw_mutex_lock(&capture->gate_mutex);
    capture->alone_header = header;
    capture->alone_seen = seen;
    hw_mutex_unlock(&capture->gate_mutex);
}

bool hw_exclusive_has_seen(struct hw_capture *capture, const struct hw_wal_index_header *header)
{
    bool seen;

    hw_mutex_lock(&capture->gate_mutex);
    seen = !capture->alone_seen || hw_header_same_round(header, capture->alone_header.salts);
    hw_mutex_unlock(&capture->gate_mutex);
    return seen;
}

/* --------------------------------------------------------------------------------- events */

static enum hw_status fail_handed_over(struct hw_capture *capture, struct hw_error *err)
{
    return hw_fail(err, HW_EBUSY, "%s: its log is handed over to another primary", capture->path);
}

enum hw_status hw_capture_enter_exclusive(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_env *env = capture->env;
    uint64_t deadline = env->ops->monotonic_ns(env) + ROLE_WAIT_NS;
    enum hw_status status;

    if (hw_gate_may_write(capture, err) != SQLITE_OK)
        return fail_handed_over(capture, err);
    hw_shared_set_yield(capture->shared, capture->process_id);
    for (;;) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        uint64_t now = env->ops->monotonic_ns(env);

        hw_fair_mutex_lock(&capture->step_mutex);
        status = hw_worker_take_role(capture, err);
        /* Asked again, with the mutex: nobody is asked once the connection is alone. */
        if (status == HW_OK && (capture->worker.is_ended || capture->worker.handover.is_active))
            status = fail_handed_over(capture, err);
        if (status == HW_OK) {
            atomic_fetch_add(&capture->exclusive, 1);
            hw_capture_wake_useful(capture);
        }
        hw_fair_mutex_unlock(&capture->step_mutex);
        if (status != HW_EBUSY || now >= deadline)
            break;
        hw_shared_wait(capture->shared, seen,
                       deadline - now < ROLE_SLICE_NS ? deadline - now : ROLE_SLICE_NS);
    }
    hw_shared_set_yield(capture->shared, 0);
    return status;
}

void hw_capture_leave_exclusive(struct hw_capture *capture)
{
    unsigned before = atomic_fetch_sub(&capture->exclusive, 1);

    assert(before > 0);
    (void)before;
}

void hw_capture_alone(struct hw_capture *capture, bool has_shm)
{
    assert(atomic_load(&capture->exclusive) > 0);
    hw_fair_mutex_lock(&capture->step_mutex);
    if (!has_shm) {
        hw_worker_let_go(capture); /* of a wal-index that nobody uses now */
        capture->worker.private_bounded = false;
        capture->worker.private_told = capture->worker.private_end = 0;
    }
    if (has_shm)
        see_index(capture);
    atomic_store(&capture->alone, has_shm ? ALONE_WITH_SHM : ALONE_WITHOUT_SHM);
    hw_fair_mutex_unlock(&capture->step_mutex);
    hw_shared_ring(capture->shared);
    hw_capture_wake_useful(capture);
    /* Its first frame may overwrite what others copied into the file, and knocks at no door. */
    if (has_shm)
        (void)hw_gate_checkpoint_start(capture); /* in vain: then the state is checked */
}

void hw_capture_alone_end(struct hw_capture *capture)
{
    hw_fair_mutex_lock(&capture->step_mutex);
    if (hw_capture_is_private(capture))
        hw_worker_let_go(capture); /* the private index is of no use any more */
    atomic_store(&capture->alone, ALONE_NOBODY);
    hw_fair_mutex_unlock(&capture->step_mutex);
}

void hw_capture_alone_writes(struct hw_capture *capture, const uint8_t salts[8], uint64_t offset)
{
    struct hw_worker *worker = &capture->worker;

    if (!hw_capture_is_private(capture))
        return;
    hw_fair_mutex_lock(&capture->step_mutex);
    worker->private_bounded = true;
    worker->private_end = offset;
    memcpy(worker->private_salts, salts, sizeof(worker->private_salts));
    hw_fair_mutex_unlock(&capture->step_mutex);
}

void hw_capture_alone_emptied(struct hw_capture *capture)
{
    struct hw_gate_pass pass = {.is_open = false};

    if (atomic_load(&capture->alone) != ALONE_WITH_SHM)
        return;
    if (capture->alone_seen)
        hw_round_pass(capture, &capture->alone_header, &pass);
    hw_gate_restarted(capture, &pass);
    see_index(capture);
}

void hw_capture_exclusive_committed(struct hw_capture *capture, uint64_t offset)
{
    if (hw_capture_is_private(capture)) {
        struct hw_error err;
        enum hw_status status;

        hw_fair_mutex_lock(&capture->step_mutex);
        if (offset > 0)
            capture->worker.private_told = offset + 1;
        capture->worker.private_stale = true;
        status = hw_exclusive_look(capture, &err);
        hw_fair_mutex_unlock(&capture->step_mutex);
        if (status < 0) /* the worker tries again */
            hw_env_log(capture->env, HW_LOG_ERROR, "event=wal_unreadable db=%s error=\"%s\"",
                       capture->path, err.message);
    } else {
        see_index(capture);
    }
    hw_shared_commit(capture->shared);
}
