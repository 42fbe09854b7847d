/* What capture says of itself: hw_capture_status(), hw_capture_end(), hw_capture_place(). */
#include <stdio.h>
#include <string.h>

#include "capture/internal.h"

static void fill_from_core(struct hw_core *core, struct hw_capture_status *out)
{
    struct hw_core_head head = hw_core_head(core);
    const struct hw_core_identity *identity = hw_core_identity(core);
    struct hw_note note;

    memcpy(out->key, identity->key, sizeof(out->key));
    memcpy(out->discovery_key, identity->discovery_key, sizeof(out->discovery_key));
    out->length = head.length;
    out->byte_length = head.byte_length;
    out->fork = head.fork;
    out->log_bytes = hw_core_stored_bytes(core);
    if (head.length > 0 && hw_note_decode(hw_core_note(core), &note) == HW_OK) {
        out->seq = note.seq;
        out->snapshot_seq = note.snapshot_seq;
        out->sum = note.sum;
        out->page_count = note.page_count;
    }
}

static void fill_from_wal(struct hw_capture *capture, struct hw_capture_status *out)
{
    struct hw_shared_position position = hw_shared_position(capture->shared);
    struct hw_wal_index_header header;
    struct hw_file_stat stat;

    if (capture->env->ops->stat(capture->env, capture->wal_path, &stat, NULL) == HW_OK)
        out->wal_bytes = stat.size;
    if (hw_gate_header(capture, &header) != HW_OK)
        return;
    out->lag_frames = header.max_frame;
    if (hw_header_same_round(&header, position.salts))
        out->lag_frames = header.max_frame > position.frame ? header.max_frame - position.frame : 0;
    if (header.page_size != 0)
        out->page_size = header.page_size;
}

void hw_capture_place(struct hw_capture *capture, struct hw_capture_place *out)
{
    struct hw_shared_position position = hw_shared_position(capture->shared);
    struct hw_wal_index_header header;
    bool has_header = hw_gate_header(capture, &header) == HW_OK;

    *out = (struct hw_capture_place){
        .is_released = position.frame == UINT32_MAX,
        .is_worker = hw_shared_worker(capture->shared) == capture->process_id,
        .commits = hw_shared_commits(capture->shared),
    };
    out->is_known = has_header && !out->is_released && position.seq != UINT64_MAX &&
                    !hw_gate_is_alarmed(capture);
    if (!has_header)
        return;
    out->page_size = header.page_size;
    out->wal_frames = header.max_frame;
    if (hw_header_same_round(&header, position.salts)) /* else it is behind by a round */
        out->logged_frames = position.frame < header.max_frame ? position.frame : header.max_frame;
}

static const char *state_name(struct hw_capture *capture, bool has_role, enum worker_state state)
{
    if (!has_role)
        return hw_shared_worker(capture->shared) != 0 ? "standby" : "waiting";
    switch (state) {
    case WORKER_IDLE:
        return "starting";
    case WORKER_CHECKING:
        return "checking";
    case WORKER_RUNNING:
        return "running";
    case WORKER_STALLED:
        return "stalled";
    case WORKER_RELEASED:
        return "released";
    }
    return "unknown";
}

void hw_capture_status(struct hw_capture *capture, struct hw_capture_status *out)
{
    struct hw_core *core = NULL;
    bool has_role;

    *out = (struct hw_capture_status){.seq = UINT64_MAX, .snapshot_seq = UINT64_MAX};
    hw_fair_mutex_lock(&capture->step_mutex);
    has_role = capture->worker.has_role;
    (void)snprintf(out->state, sizeof(out->state), "%s",
                   state_name(capture, has_role, capture->worker.state));
    if (has_role && capture->worker.core != NULL) {
        fill_from_core(capture->worker.core, out);
        out->page_size = capture->worker.log_page_size;
    }
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (!has_role &&
        hw_core_open(capture->env, capture->log_dir, HW_CORE_READ,
                     hw_shared_durable_length(capture->shared), &core, NULL) == HW_OK) {
        fill_from_core(core, out);
        hw_core_close(core);
    }
    fill_from_wal(capture, out);
    hw_shared_alarm(capture->shared, out->alarm);
    out->commits = hw_shared_commits(capture->shared);
    out->worker_pid = hw_env_pid(hw_shared_worker(capture->shared));
    out->is_worker = has_role;
    out->unconfirmed_count = atomic_load(&capture->unconfirmed_count);
    out->unconfirmed_seq = atomic_load(&capture->unconfirmed_seq);
    out->unconfirmed_since_ms = atomic_load(&capture->unconfirmed_since_ms);
    out->remote_waiters = atomic_load(&capture->remote_waiters);
}

/* The reader knows all that is published.  A log that was adopted or pruned is opened anew. */
static enum hw_status reader_refresh(struct hw_capture *capture, struct hw_error *err)
{
    uint64_t limit = hw_shared_durable_length(capture->shared);

    if (capture->reader != NULL && hw_core_refresh_kept(capture->reader, NULL) == HW_OK &&
        hw_core_refresh(capture->reader, limit, NULL) == HW_OK)
        return HW_OK;
    hw_core_close(capture->reader);
    capture->reader = NULL;
    return hw_core_open(capture->env, capture->log_dir, HW_CORE_READ, limit, &capture->reader, err);
}

static enum hw_status end_of(struct hw_capture *capture, struct hw_core *core,
                             struct hw_capture_end *out, struct hw_error *err)
{
    struct hw_note note;

    if (hw_core_length(core) == 0 || hw_note_decode(hw_core_note(core), &note) != HW_OK)
        return hw_fail(err, HW_ENOTFOUND, "%s: there is nothing in the log yet", capture->path);
    *out = (struct hw_capture_end){.length = hw_core_length(core),
                                   .seq = note.seq,
                                   .sum = note.sum,
                                   .page_count = note.page_count};
    return HW_OK;
}

enum hw_status hw_capture_end(struct hw_capture *capture, struct hw_capture_end *out,
                              struct hw_error *err)
{
    enum hw_status status = HW_OK;
    bool has_role;

    hw_fair_mutex_lock(&capture->step_mutex);
    has_role = capture->worker.has_role && capture->worker.core != NULL;
    if (has_role)
        status = end_of(capture, capture->worker.core, out, err);
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (has_role)
        return status;
    hw_mutex_lock(&capture->reader_mutex);
    status = reader_refresh(capture, err);
    if (status == HW_OK)
        status = end_of(capture, capture->reader, out, err);
    hw_mutex_unlock(&capture->reader_mutex);
    return status;
}
