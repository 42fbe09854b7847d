/*
 * From the first connection of this process that maps the wal-index to the last one that gives it
 * back: in between, and never else, capture may look at it.
 *
 *     mapped ──▶ read mark: ready ──▶ ... ──▶ the last one: all is logged ──▶ let go ──▶ unmapped
 *                                        └──▶ EXCLUSIVE, the WAL is deleted ──┘
 *
 * A connection holds SHARED while it has the wal-index mapped, and that alone keeps the last close
 * of another process from deleting WAL and wal-index.  Our own handle holds nothing.  If it kept
 * the mapping longer than the last connection, SQLite would give a deleted wal-index to the next
 * one of this process: it would not see what others commit, and write over it.
 */
#include <assert.h>

#include "capture/internal.h"

enum { END_WAIT_MS = 5000 }; /* the last one that reads waits so long for the log */

void hw_capture_mapped(struct hw_capture *capture)
{
    hw_mutex_lock(&capture->gate_mutex);
    capture->mapped++;
    if (!atomic_load(&capture->ready))
        atomic_store(&capture->blind, true);
    hw_mutex_unlock(&capture->gate_mutex);
}

/* As long as somebody has it mapped: the last one may have gone meanwhile. */
static void set_blind(struct hw_capture *capture)
{
    hw_mutex_lock(&capture->gate_mutex);
    if (capture->mapped > 0)
        atomic_store(&capture->blind, true);
    hw_mutex_unlock(&capture->gate_mutex);
}

bool hw_capture_ready(struct hw_capture *capture)
{
    struct hw_error err;
    enum hw_status status;

    if (atomic_load(&capture->ready))
        return true;
    status = hw_gate_open(capture, true, &err);
    if (status == HW_END) {
        atomic_store(&capture->unready, false); /* whoever read has gone */
        return false;
    }
    if (status != HW_OK) {
        set_blind(capture);
        if (hw_shared_worker(capture->shared) == 0)
            hw_shared_set_alarm(capture->shared, err.message); /* until somebody has the role */
        if (!atomic_exchange(&capture->unready, true)) {
            hw_env_log(capture->env, HW_LOG_ERROR, "event=wal_index_unreadable db=%s error=\"%s\"",
                       capture->path, err.message);
            hw_shared_ring(capture->shared); /* whoever read may not come again */
            hw_capture_wake_useful(capture);
        }
        return false;
    }
    atomic_store(&capture->blind, false);
    atomic_store(&capture->unready, false);
    hw_shared_ring(capture->shared);
    hw_capture_wake_useful(capture);
    return true;
}

/* ------------------------------------------------------------------------------- the end */

/*
 * The first snapshot of a log, or one that somebody asked for, is worth a moment before this
 * process goes: without it nothing can be restored.  The caller holds `step`.
 */
static void finish_snapshot(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_env *env = capture->env;
    uint64_t deadline = env->ops->monotonic_ns(env) + END_WAIT_MS * 1000000ULL;
    uint64_t next;

    while (worker->has_role && worker->state == WORKER_RUNNING &&
           (worker->snapshot.forced || hw_snapshot_is_needed(worker)) &&
           env->ops->monotonic_ns(env) < deadline)
        if (hw_worker_step(capture, &next, NULL) != HW_OK)
            break;
}

/*
 * Nothing of the WAL is looked at any more, and nobody begins before it is ready again.  The caller
 * holds `step` and `gate`.
 */
static void let_go(struct hw_capture *capture)
{
    atomic_store(&capture->ready, false);
    atomic_store(&capture->settled, false);
    atomic_store(&capture->blind, false);
    atomic_store(&capture->unready, false);
    atomic_store(&capture->held_since, false);
    hw_worker_let_go(capture);
    hw_gate_close_locked(capture);
}

/* Nobody else here reads: what is committed gets into the log, within a bound. */
static void bring_to_end(struct hw_capture *capture)
{
    struct hw_error err;
    uint64_t seq;

    if (atomic_load(&capture->ready) &&
        hw_capture_wait_logged(capture, hw_gate_is_alarmed(capture) ? 0 : END_WAIT_MS, &seq,
                               &err) != HW_OK)
        hw_env_log(capture->env, HW_LOG_WARN, /* the WAL has it: the next who reads goes on */
                   "event=closed_behind db=%s error=\"%s\"", capture->path, err.message);
    hw_fair_mutex_lock(&capture->step_mutex);
    finish_snapshot(capture);
    hw_fair_mutex_unlock(&capture->step_mutex);
}

/* The caller has it mapped no more, but if it is the last one it is counted still: false. */
static bool leave_others(struct hw_capture *capture)
{
    bool is_last;

    hw_mutex_lock(&capture->gate_mutex);
    assert(capture->mapped > 0);
    is_last = capture->mapped == 1;
    if (!is_last)
        capture->mapped--;
    hw_mutex_unlock(&capture->gate_mutex);
    return !is_last;
}

/*
 * It is for who can see what is committed.  A thread that has nothing else to do lets it go, in a
 * moment, for somebody may come who reads.
 */
static bool is_role_for_others(const struct hw_capture *capture)
{
    bool thread_sees_to_it = capture->threaded && capture->worker.state == WORKER_IDLE;

    return !thread_sees_to_it && atomic_load(&capture->alone) == ALONE_NOBODY;
}

void hw_capture_unmapped(struct hw_capture *capture)
{
    bool was_last, is_others_turn = false;

    if (leave_others(capture))
        return;
    bring_to_end(capture);
    hw_fair_mutex_lock(&capture->step_mutex);
    hw_mutex_lock(&capture->gate_mutex);
    was_last = --capture->mapped == 0; /* unless somebody came meanwhile */
    if (was_last) {
        is_others_turn = atomic_load(&capture->ready); /* who have the WAL that was not deleted */
        let_go(capture);
    }
    hw_mutex_unlock(&capture->gate_mutex);
    if (was_last && is_role_for_others(capture))
        hw_worker_drop_role(capture);
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (is_others_turn)
        hw_shared_ring(capture->shared); /* the thread looks whether it is useful still */
}

/* ---------------------------------------------------- the database as the log knows it */

/*
 * The end of the log is known to be a state of this database, in the WAL as it is now.  If not (the
 * worker could not look, or looks still, or others emptied the WAL), nothing may say that the file
 * as it is now agrees with the log.
 */
static bool is_reconciled(struct hw_capture *capture)
{
    struct hw_shared_position position = hw_shared_position(capture->shared);
    struct hw_wal_index_header header;

    if (hw_capture_is_private(capture))
        return position.seq != UINT64_MAX && position.frame != UINT32_MAX;
    return hw_gate_header(capture, &header) == HW_OK && hw_round_is_at(capture, &position, &header);
}

void hw_capture_wal_deleted(struct hw_capture *capture)
{
    bool logged = is_reconciled(capture) && hw_gate_is_logged(capture);

    hw_fair_mutex_lock(&capture->step_mutex);
    finish_snapshot(capture);
    hw_mutex_lock(&capture->gate_mutex);
    let_go(capture);
    hw_mutex_unlock(&capture->gate_mutex);
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (logged)
        hw_position_note(capture, true);
}

void hw_capture_checkpointed(struct hw_capture *capture)
{
    if (is_reconciled(capture))
        hw_position_note(capture, false);
}
