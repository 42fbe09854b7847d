/*
 * The states STALLED and RELEASED of capture/internal.h: the log cannot be opened or written.  The
 * WAL keeps what is committed, up to its cap; then the gate is open, and stays so until the
 * database is compared with the log again.
 */
#include <assert.h>
#include <stdio.h>

#include "base/alloc.h"
#include "capture/internal.h"

enum { PROBE_SIZE = 1 << 20 };
enum { REPAIR_RETRY = 25 }; /* times RETRY_NS: a damaged log waits for its operator */

static uint64_t now_ns(struct hw_capture *capture)
{
    return capture->env->ops->monotonic_ns(capture->env);
}

static void open_gate(struct hw_capture *capture)
{
    struct hw_shared_position released = {.frame = UINT32_MAX, .seq = UINT64_MAX};

    hw_shared_set_position(capture->shared, &released);
}

/* Is there room again?  A file as large as a batch, synced, beside the log. */
static enum hw_status probe(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_env *env = capture->env;
    struct hw_file *file = NULL;
    uint8_t *zeros;
    char *path;
    enum hw_status status;

    path = hw_format("%s/probe", capture->log_dir);
    zeros = hw_zalloc(PROBE_SIZE);
    if (path == NULL || zeros == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory to probe the disk", capture->log_dir);
        goto done;
    }
    status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, err);
    if (status != HW_OK)
        goto done;
    status = env->ops->write_at(file, 0, zeros, PROBE_SIZE, err);
    if (status == HW_OK)
        status = env->ops->sync(file, err);
    env->ops->close(file);
    (void)env->ops->remove(env, path, NULL); /* overwritten the next time */
done:
    hw_free(path);
    hw_free(zeros);
    return status;
}

/* The log as it is on the disk: a poisoned core says nothing any more. */
static enum hw_status reopen(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    /* Of a log that was overtaken it is not room that it lacks. */
    enum hw_status status = worker->is_overtaken ? HW_OK : probe(capture, err);

    worker->retry_ns = now_ns(capture) + RETRY_NS;
    if (status != HW_OK)
        return status;
    hw_worker_close_core(worker);
    status = hw_worker_open_core(capture, err);
    if (status == HW_OK)
        status = hw_remote_set_fork(capture, hw_core_head(worker->core).fork, err);
    if (status != HW_OK) {
        hw_worker_close_core(worker);
        worker->retry_ns = now_ns(capture) + (uint64_t)REPAIR_RETRY * RETRY_NS;
    }
    return status;
}

/*
 * What passed the open gate is in no log, so nothing is believed but the sum of the database as it
 * is now.  Until that is begun the WAL must not grow any more than before.
 */
static enum hw_status resume(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status;

    (void)snprintf(worker->check_reason, sizeof(worker->check_reason), "%s",
                   "the log could not be written, and the WAL outgrew its cap");
    worker->doubts = 2;
    status = hw_worker_reconcile(capture, err);
    assert(status != HW_OK || worker->state == WORKER_CHECKING);
    if (status != HW_OK)
        open_gate(capture);
    return status;
}

/* The log was opened again, and can be written. */
static enum hw_status go_on(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    hw_worker_tell_opened(capture);
    if (worker->state == WORKER_RELEASED && !worker->is_ended && hw_capture_can_work(capture))
        return resume(capture, err);
    hw_worker_set_state(capture, WORKER_IDLE);
    hw_worker_publish_nothing(capture);
    if (!worker->is_ended) /* else WRITE is held on: what was committed now would be in no log */
        hw_worker_let_go(capture);
    return HW_OK;
}

static bool is_over_cap(struct hw_capture *capture)
{
    struct hw_wal_index_header header;

    return (hw_capture_is_private(capture) || hw_worker_open_index(capture, NULL) == HW_OK) &&
           hw_worker_index(&capture->worker) != NULL &&
           hw_worker_header(capture, &header, NULL) == HW_OK &&
           (uint64_t)header.max_frame * (HW_WAL_FRAME_HEADER_SIZE + header.page_size) >
               capture->wal_cap;
}

enum hw_status hw_stalled_step(struct hw_capture *capture, uint64_t *deadline_ns,
                               struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status;

    *deadline_ns = worker->retry_ns;
    if (now_ns(capture) < worker->retry_ns)
        return HW_END;
    status = reopen(capture, err);
    *deadline_ns = worker->retry_ns;
    if (status == HW_OK)
        return go_on(capture, err);
    if (worker->state == WORKER_STALLED && is_over_cap(capture)) {
        hw_worker_set_state(capture, WORKER_RELEASED);
        open_gate(capture);
        hw_worker_alarm(capture,
                        "the WAL passed its cap of %llu bytes while the log could not be written: "
                        "commits from now on are not in the log; a gap will name them (%s)",
                        (unsigned long long)capture->wal_cap, err->message);
    }
    return HW_END;
}
