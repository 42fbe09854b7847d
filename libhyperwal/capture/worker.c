/* The worker of capture/internal.h: its role, its handles, and what one step does. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"
#include "hypercore/overtaken.h"

enum { YIELD_TIMEOUT_MS = 3000, HEADER_RETRY_NS = 1000000 };

static const char *const state_names[] = {"starting", "checking", "running", "stalled", "released"};

static const unsigned state_moves[] HW_DEBUG_ONLY = {
    [WORKER_IDLE] = 1U << WORKER_IDLE | 1U << WORKER_CHECKING | 1U << WORKER_RUNNING,
    [WORKER_CHECKING] =
        1U << WORKER_IDLE | 1U << WORKER_CHECKING | 1U << WORKER_RUNNING | 1U << WORKER_STALLED,
    [WORKER_RUNNING] = 1U << WORKER_IDLE | 1U << WORKER_CHECKING | 1U << WORKER_STALLED,
    [WORKER_STALLED] = 1U << WORKER_IDLE | 1U << WORKER_RELEASED,
    [WORKER_RELEASED] = 1U << WORKER_IDLE | 1U << WORKER_CHECKING,
};

void hw_worker_set_state(struct hw_capture *capture, enum worker_state state)
{
    struct hw_worker *worker = &capture->worker;

    assert(state_moves[worker->state] >> state & 1);
    if (worker->state != state)
        hw_env_log(capture->env, HW_LOG_DEBUG, "event=worker_state db=%s from=%s to=%s",
                   capture->path, state_names[worker->state], state_names[state]);
    worker->state = state;
}

void hw_worker_alarm(struct hw_capture *capture, const char *format, ...)
{
    char text[HW_SHARED_TEXT_SIZE], old[HW_SHARED_TEXT_SIZE];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args); /* cut is fine */
    va_end(args);
    hw_shared_alarm(capture->shared, old);
    if (!capture->worker.alarmed || strcmp(old, text) != 0) /* once, not at every retry */
        hw_env_log(capture->env, HW_LOG_ERROR, "event=alarm db=%s text=\"%s\"", capture->path,
                   text);
    capture->worker.alarmed = true;
    hw_shared_set_alarm(capture->shared, text);
}

void hw_worker_alarm_over(struct hw_capture *capture)
{
    char text[HW_SHARED_TEXT_SIZE];

    hw_shared_alarm(capture->shared, text); /* it may be that of a worker that died */
    capture->worker.alarmed = false;
    if (text[0] == '\0')
        return;
    hw_shared_set_alarm(capture->shared, "");
    hw_env_log(capture->env, HW_LOG_INFO, "event=alarm_over db=%s", capture->path);
}

/* ------------------------------------------------------------------------------------ role */

/* The page size of the log, from its genesis. */
static enum hw_status read_genesis(struct hw_worker *worker, struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_genesis genesis;
    struct hw_cursor cursor;
    enum hw_status status = hw_core_read(worker->core, 0, &worker->block, err);

    if (status != HW_OK)
        return status;
    cursor = hw_cursor(worker->block.bytes, worker->block.size);
    status = hw_entry_header_decode(&cursor, 0, &header);
    if (status == HW_OK)
        status =
            header.type == HW_ENTRY_GENESIS ? hw_genesis_decode(&cursor, &genesis) : HW_ECORRUPT;
    if (status != HW_OK)
        return hw_fail(err, status, "block 0 is not the genesis of a hyperwal log");
    worker->log_page_size = genesis.page_size;
    return HW_OK;
}

/*
 * A server heard a peer prove to have more of the log: whatever is signed under this fork from now
 * on would make two histories.
 */
static enum hw_status check_fork(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_core_head head = hw_core_head(capture->worker.core);

    if (hw_shared_may_sign(capture->shared, head.fork))
        return HW_OK;
    capture->worker.is_overtaken = true;
    if (hw_overtaken_allows(capture->env, capture->log_dir, &head, err) == HW_EFORK)
        return HW_EFORK;
    return hw_fail(err, HW_EFORK,
                   "%s: a follower has more of fork %llu than there is here: stop its writers and "
                   "adopt the log (hyperwal init --adopt)",
                   capture->log_dir, (unsigned long long)head.fork);
}

enum hw_status hw_worker_open_core(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_overtaken overtaken;
    enum hw_status status;

    worker->is_overtaken = false;
    worker->log_page_size = 0;
    worker->note =
        (struct hw_note){.seq = UINT64_MAX, .snapshot_seq = UINT64_MAX, .label_seq = UINT64_MAX};
    status =
        hw_core_open(capture->env, capture->log_dir, HW_CORE_WRITE, UINT64_MAX, &worker->core, err);
    if (status == HW_ENOTFOUND)
        status = hw_core_create(capture->env, capture->log_dir, &worker->core, err);
    worker->is_overtaken =
        status == HW_EFORK && hw_overtaken_read(capture->env, capture->log_dir, &overtaken, NULL) ==
                                  HW_OK; /* or it is a copy */
    if (status == HW_OK)
        status = check_fork(capture, err);
    if (status != HW_OK || hw_core_length(worker->core) == 0)
        return status;
    status = hw_note_decode(hw_core_note(worker->core), &worker->note);
    if (status != HW_OK)
        status =
            hw_fail(err, status, "%s: the note of the last batch cannot be read", capture->log_dir);
    worker->logged_at = worker->note.at;
    if (status == HW_OK)
        status = read_genesis(worker, err);
    return status == HW_OK ? hw_handover_look(capture, err) : status;
}

void hw_worker_close_core(struct hw_worker *worker)
{
    hw_core_close(worker->core);
    worker->core = NULL;
    worker->is_ended = false; /* that was said of the log which was open */
}

void hw_worker_tell_opened(struct hw_capture *capture)
{
    hw_shared_set_durable_length(capture->shared, hw_core_length(capture->worker.core));
    hw_mailbox_repost(capture->shared);
}

void hw_worker_publish_nothing(struct hw_capture *capture)
{
    struct hw_shared_position nothing = {.seq = UINT64_MAX};

    hw_shared_set_position(capture->shared, &nothing);
}

/* The log is there and cannot be used as it is; who may write it is not in doubt. */
static bool is_damage(const struct hw_worker *worker, enum hw_status status)
{
    return status == HW_ECORRUPT || status == HW_EPROOF || status == HW_EIO ||
           status == HW_ENOSPC || status == HW_EBROKEN ||
           (status == HW_EFORK && worker->is_overtaken);
}

enum hw_status hw_worker_take_role(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = HW_OK;

    if (worker->has_role)
        return HW_OK;
    status = capture->env->ops->lock(capture->lock_file, false, err);
    if (status != HW_OK)
        return status;
    status = hw_worker_open_core(capture, err);
    if (status == HW_OK)
        status = hw_remote_set_fork(capture, hw_core_head(worker->core).fork, err);
    if (status != HW_OK) {
        hw_worker_close_core(worker);
        if (!is_damage(worker, status)) {
            capture->env->ops->unlock(capture->lock_file);
            return status;
        }
    }
    worker->has_role = true;
    hw_worker_publish_nothing(capture);
    hw_shared_set_worker(capture->shared, capture->process_id);
    if (status != HW_OK) { /* the application comes first: the WAL keeps what is committed */
        worker->state = WORKER_STALLED;
        worker->retry_ns = capture->env->ops->monotonic_ns(capture->env) + RETRY_NS;
        hw_worker_alarm(capture, "the log cannot be opened: %s", err->message);
        return HW_OK;
    }
    if (!worker->is_ended)
        hw_worker_alarm_over(capture); /* what one that died could not do is tried anew */
    hw_worker_tell_opened(capture);
    hw_env_log(capture->env, HW_LOG_INFO, "event=worker_started db=%s length=%llu", capture->path,
               (unsigned long long)hw_core_length(worker->core));
    return HW_OK;
}

void hw_worker_let_go(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;

    hw_snapshot_reset(worker);
    hw_handover_let_go(capture);
    /* Of a log that cannot be used there is nothing to begin anew: it is looked at again first. */
    if (worker->state == WORKER_CHECKING || worker->state == WORKER_RUNNING)
        hw_worker_set_state(capture, WORKER_IDLE);
    if (worker->has_role && worker->state != WORKER_RELEASED)
        hw_worker_publish_nothing(capture);
    hw_wal_index_free(worker->index);
    hw_wal_index_free(worker->private_index);
    worker->index = worker->private_index = NULL;
    worker->private_header = (struct hw_wal_index_header){0};
    worker->private_stale = true;
    capture->env->ops->close(worker->wal);
    worker->wal = NULL;
    worker->named_inode = 0; /* the next WAL may get the same number */
    worker->frames_count = 0;
}

static void release_buffers(struct hw_worker *worker)
{
    hw_sums_close(worker->sums);
    hw_transaction_encoder_free(worker->encoder);
    hw_group_coder_free(worker->coder);
    hw_buffer_release(&worker->block);
    hw_buffer_release(&worker->note_bytes);
    hw_free(worker->frames);
    hw_free(worker->old_page);
    hw_free(worker->group_pages);
    worker->sums = NULL;
    worker->encoder = NULL;
    worker->coder = NULL;
    worker->frames = worker->old_page = worker->group_pages = NULL;
    worker->page_size = 0;
}

void hw_worker_drop_role(struct hw_capture *capture)
{
    struct hw_worker *worker = &capture->worker;

    hw_worker_let_go(capture);
    release_buffers(worker);
    atomic_store(&capture->held_since, false); /* the next time may be after another's */
    if (worker->has_role) {
        hw_shared_set_worker(capture->shared, 0);
        hw_worker_close_core(worker);
        worker->has_role = false;
        worker->state = WORKER_IDLE;
    }
    if (capture->lock_file != NULL) /* the thread may have it without having the role yet */
        capture->env->ops->unlock(capture->lock_file);
    if (capture->shared != NULL)
        hw_shared_wake(capture->shared);
}

/* --------------------------------------------------------------------------------- handles */

enum hw_status hw_worker_prepare(struct hw_capture *capture, uint32_t page_size,
                                 struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    size_t frame_size = HW_WAL_FRAME_HEADER_SIZE + (size_t)page_size;
    enum hw_status status;

    if (worker->page_size == page_size)
        return HW_OK;
    release_buffers(worker);
    worker->frames_capacity = frame_size > FRAME_BUFFER_SIZE ? frame_size : FRAME_BUFFER_SIZE;
    worker->frames = hw_alloc(worker->frames_capacity);
    worker->old_page = hw_alloc(page_size);
    worker->group_pages = hw_alloc((size_t)HW_GROUP_PAGES * page_size);
    if (worker->frames == NULL || worker->old_page == NULL || worker->group_pages == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for pages of %u bytes", capture->path,
                         page_size);
    else
        status = hw_sums_open(capture->env, capture->log_dir, page_size, &worker->sums, err);
    if (status == HW_OK)
        status = hw_transaction_encoder_new(page_size, &worker->encoder, err);
    if (status == HW_OK)
        status = hw_group_coder_new(&worker->coder, err);
    if (status != HW_OK) {
        release_buffers(worker);
        return status;
    }
    worker->page_size = page_size;
    return HW_OK;
}

struct hw_wal_index *hw_worker_index(struct hw_worker *worker)
{
    return worker->private_index != NULL ? worker->private_index : worker->index;
}

enum hw_status hw_worker_header(struct hw_capture *capture, struct hw_wal_index_header *out,
                                struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    if (worker->private_index != NULL) {
        *out = worker->private_header;
        return HW_OK;
    }
    return hw_wal_index_read(worker->index, out, err);
}

enum hw_status hw_worker_open_wal(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_env *env = capture->env;
    struct hw_file_stat stat;
    enum hw_status status = env->ops->stat(env, capture->wal_path, &stat, err);

    if (status != HW_OK)
        return status;
    if (worker->wal != NULL && stat.inode == worker->wal_stat.inode &&
        stat.device == worker->wal_stat.device)
        return HW_OK;
    env->ops->close(worker->wal);
    worker->wal = NULL;
    worker->frames_count = 0;
    status =
        env->ops->open(env, capture->wal_path, HW_OPEN_READ | HW_OPEN_WRITE, &worker->wal, err);
    if (status != HW_OK)
        return status;
    return env->ops->stat_file(worker->wal, &worker->wal_stat, err);
}

enum hw_status hw_worker_read_page(struct hw_capture *capture, uint32_t page_number,
                                   uint32_t max_frame, void *content, bool *from_file,
                                   struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    return hw_wal_read_page(capture->database, hw_worker_index(worker), worker->wal,
                            worker->page_size, page_number, max_frame, content, from_file, err);
}

/* --------------------------------------------------------------------------------- entries */

int64_t hw_worker_time(struct hw_capture *capture)
{
    int64_t now = capture->env->ops->realtime_ms(capture->env);

    return now > capture->worker.note.time_ms ? now : capture->worker.note.time_ms;
}

struct hw_entry_header hw_worker_entry(struct hw_capture *capture, enum hw_entry_type type)
{
    const struct hw_note *note = &capture->worker.note;

    return (struct hw_entry_header){
        .type = type,
        .starts = true,
        .ends = true,
        .time_ms = hw_worker_time(capture),
        .snapshot_seq = note->snapshot_seq,
        .label_seq = note->label_seq,
    };
}

void hw_worker_publish(struct hw_capture *capture)
{
    const struct hw_note *note = &capture->worker.note;
    struct hw_shared_position position = {.frame = note->at.frame, .seq = note->seq};

    memcpy(position.salts, note->at.salts, sizeof(position.salts));
    hw_shared_publish(capture->shared, &position, hw_core_length(capture->worker.core));
}

enum hw_status hw_worker_commit(struct hw_capture *capture, const struct hw_note *note,
                                struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = HW_OK;

    hw_note_encode(note, &worker->note_bytes);
    if (worker->note_bytes.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for a note", capture->path);
    if (status == HW_OK)
        status = check_fork(capture, err);
    if (status == HW_OK && worker->is_ended)
        status = hw_fail(err, HW_EREADONLY, "%s: its log was handed over", capture->path);
    if (status == HW_OK)
        status = hw_core_batch_commit(worker->core, worker->note_bytes.bytes,
                                      worker->note_bytes.size, err);
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    worker->note = *note;
    worker->logged_at = note->at;
    worker->doubts = 0;
    worker->last_sync_ns = capture->env->ops->monotonic_ns(capture->env);
    if (worker->sums != NULL && hw_sums_commit(worker->sums, note->seq, err) != HW_OK)
        hw_env_log(capture->env,
                   HW_LOG_WARN, /* the next batch writes them, or the next open does */
                   "event=sums_not_written db=%s error=\"%s\"", capture->path, err->message);
    hw_worker_publish(capture);
    return HW_OK;
}

/* ------------------------------------------------------------------------------------ step */

static uint64_t now_ns(struct hw_capture *capture)
{
    return capture->env->ops->monotonic_ns(capture->env);
}

enum hw_status hw_worker_doubt(struct hw_capture *capture, const char *reason)
{
    struct hw_worker *worker = &capture->worker;

    (void)snprintf(worker->check_reason, sizeof(worker->check_reason), "%s", reason);
    worker->doubts++;
    hw_snapshot_reset(worker);
    hw_worker_set_state(capture, WORKER_IDLE);
    hw_worker_publish_nothing(capture);
    return HW_OK;
}

/* The log cannot be written: keep the WAL, raise the alarm, and begin anew from what is durable. */
static void stall(struct hw_capture *capture, const struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    hw_worker_alarm(capture, "the log cannot be written: %s", err->message);
    if (worker->state == WORKER_CHECKING || worker->state == WORKER_RUNNING)
        hw_worker_set_state(capture, WORKER_STALLED);
    worker->retry_ns = now_ns(capture) + RETRY_NS;
}

enum hw_status hw_worker_open_index(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = HW_OK;

    if (worker->index != NULL)
        return HW_OK;
    hw_mutex_lock(&capture->gate_mutex);
    status = capture->database == NULL || capture->mapped == 0
                 ? HW_END
                 : hw_wal_index_shared(capture->database, &worker->index, err);
    hw_mutex_unlock(&capture->gate_mutex);
    return status;
}

enum hw_status hw_worker_check_shm(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_file_stat stat;

    if (capture->shm_inode == 0 || capture->worker.private_index != NULL ||
        (capture->env->ops->stat(capture->env, capture->shm_path, &stat, NULL) == HW_OK &&
         stat.inode == capture->shm_inode))
        return HW_OK;
    return hw_fail(err, HW_EIO,
                   "%s is not the file that this process has open: somebody removed it; close all "
                   "connections to the database and open them again",
                   capture->shm_path);
}

/* What is committed and not logged; also follows the WAL into a new round. */
enum hw_status hw_worker_pending(struct hw_capture *capture, struct hw_wal_index_header *header,
                                 uint32_t *pending, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = hw_worker_header(capture, header, err);

    *pending = 0;
    if (status != HW_OK)
        return status;
    if (header->max_frame == 0)
        return hw_round_follow_empty(capture, header);
    if (worker->note.at.frame == 0 || !hw_header_same_round(header, worker->note.at.salts)) {
        status = hw_round_follow(capture, header, err);
        if (status != HW_OK || worker->state != WORKER_RUNNING)
            return status;
    }
    if (header->max_frame < worker->note.at.frame)
        return hw_worker_doubt(capture, "the WAL became shorter");
    *pending = header->max_frame - worker->note.at.frame;
    if (*pending > 0)
        status = hw_worker_check_shm(capture, err);
    if (*pending > 0 && status == HW_OK)
        status = hw_worker_open_wal(capture, err);
    return status;
}

static bool is_due(const struct hw_capture *capture, uint32_t pending, uint64_t now)
{
    const struct hw_worker *worker = &capture->worker;

    return worker->urgent || now - worker->last_sync_ns >= SYNC_INTERVAL_NS ||
           (uint64_t)pending * worker->page_size >= DUE_BYTES;
}

/*
 * A failure while running: disagreement is checked, anything else stalls the log.  Either may take
 * long: nobody is kept from writing for a handover meanwhile.
 */
static enum hw_status settle(struct hw_capture *capture, enum hw_status status,
                             struct hw_error *err)
{
    if (status >= 0)
        return status;
    hw_handover_give_up(capture, status, err);
    if (status == HW_ECORRUPT)
        return hw_worker_doubt(capture, err->message);
    stall(capture, err);
    return HW_OK;
}

/*
 * Requests are served when all that was committed before they were seen is in the log, however fast
 * others commit.  One that comes later, or in the place of one that was given up, begins anew.
 */
static bool is_asked(struct hw_worker *worker, uint64_t posted,
                     const struct hw_wal_index_header *header, uint32_t pending)
{
    if (worker->asked != posted) {
        worker->asked = posted;
        worker->asked_frame = header->max_frame;
        memcpy(worker->asked_salts, header->salts, sizeof(worker->asked_salts));
    }
    return pending == 0 || (posted != 0 && (worker->note.at.frame >= worker->asked_frame ||
                                            !hw_header_same_round(header, worker->asked_salts)));
}

/* What is done between two batches. */
static enum hw_status step_between(struct hw_capture *capture, bool asked, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status;

    worker->is_others_turn = false;
    if (asked) {
        worker->asked = 0; /* the next one is due later */
        status = hw_request_step(capture, err);
        if (status != HW_END)
            return status;
    }
    return worker->handover.is_active ? HW_END : hw_snapshot_step(capture, err);
}

static enum hw_status step_running(struct hw_capture *capture, uint64_t *deadline_ns,
                                   struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header header;
    uint64_t now = now_ns(capture);
    uint32_t pending = 0;
    uint64_t posted = hw_mailbox_posted(capture->shared);
    bool is_alone = false, due, asked;
    enum hw_status status = check_fork(capture, err);

    if (status == HW_OK && worker->handover.is_active) {
        enum hw_status locked = hw_handover_keep_out(capture, deadline_ns, err);

        if (locked < 0)
            return HW_OK; /* whoever asked was told */
        is_alone = locked == HW_OK;
        worker->urgent = true;
    }

    if (status == HW_OK)
        status = hw_worker_pending(capture, &header, &pending, err);
    if (status == HW_AGAIN) {
        *deadline_ns = now + HEADER_RETRY_NS;
        return HW_END;
    }
    if (status == HW_OK && worker->state != WORKER_RUNNING) {
        hw_fail(err, HW_EBUSY, "%s is compared with its log first", capture->path);
        hw_handover_give_up(capture, HW_EBUSY, err);
        return HW_OK;
    }
    if (status != HW_OK)
        return settle(capture, status, err);
    if (is_alone && pending == 0) {
        status = hw_handover_end(capture, err);
        return status == HW_ETIMEOUT ? HW_OK : settle(capture, status, err);
    }
    worker->urgent = hw_shared_take_urgent(capture->shared) || worker->urgent ||
                     hw_shared_is_wanted(capture->shared) || posted != 0;
    due = pending > 0 && is_due(capture, pending, now);
    asked = is_asked(worker, posted, &header, pending);
    if (due && !worker->is_others_turn) {
        status = hw_batch_run(capture, &header, err);
        worker->is_others_turn = status == HW_OK;
        return status == HW_AGAIN ? HW_OK : settle(capture, status, err);
    }
    if (pending == 0)
        worker->urgent = false;
    status = step_between(capture, asked, err);
    if (status != HW_END)
        return settle(capture, status, err);
    if (due)
        return HW_OK; /* there was nothing else to do */
    if (worker->handover.is_active && pending == 0)
        return HW_END; /* the writer that is at work, and *deadline_ns */

    if (pending == 0) { /* idle: a descriptor less */
        capture->env->ops->close(worker->wal);
        worker->wal = NULL;
        worker->frames_count = 0;
    }
    *deadline_ns = pending > 0 ? worker->last_sync_ns + SYNC_INTERVAL_NS : UINT64_MAX;
    return HW_END;
}

/*
 * Somebody else asks for the role: let it go and stand back, but not for ever.  What a connection
 * that is alone commits nobody else can see: while there is one here the role stays here.
 */
static bool yields(struct hw_capture *capture, uint64_t *deadline_ns)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t asker = hw_shared_yield(capture->shared);
    uint64_t now = now_ns(capture);

    if (asker == 0 || asker == capture->process_id) {
        worker->yield_since_ns = 0;
        return false;
    }
    if (worker->yield_since_ns == 0)
        worker->yield_since_ns = now;
    if (now - worker->yield_since_ns > YIELD_TIMEOUT_MS * 1000000ULL) {
        hw_shared_set_yield(capture->shared, 0); /* the asker died */
        worker->yield_since_ns = 0;
        return false;
    }
    if (atomic_load(&capture->alone) != ALONE_NOBODY)
        return false;
    hw_worker_drop_role(capture);
    *deadline_ns = now + RETRY_NS / 4;
    return true;
}

/*
 * A process in which nobody reads cannot see what another one commits: it does not take the role,
 * and does not keep it.  A moment is left to the connection for which the database was just opened.
 */
static bool is_useless(struct hw_capture *capture, uint64_t *deadline_ns)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t count = hw_shared_work_count(capture->shared);
    uint64_t now = now_ns(capture);

    if (!capture->threaded || hw_capture_can_work(capture)) {
        worker->useless_since_ns = 0;
        return false;
    }
    if (worker->has_role && worker->useless_since_ns == 0) {
        worker->useless_since_ns = now;
        worker->useless_count = count;
    }
    if (worker->has_role && now - worker->useless_since_ns < RETRY_NS &&
        worker->useless_count == count) {
        *deadline_ns = worker->useless_since_ns + RETRY_NS;
        return true;
    }
    worker->useless_since_ns = 0;
    hw_worker_drop_role(capture); /* or the lock alone, which the thread waited for */
    return true;
}

enum hw_status hw_worker_reconcile(struct hw_capture *capture, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (!hw_capture_can_work(capture))
        return HW_END;
    if (!hw_capture_is_private(capture))
        status = hw_worker_open_index(capture, err);
    return status == HW_OK ? hw_reconcile_begin(capture, err) : status;
}

enum hw_status hw_worker_step(struct hw_capture *capture, uint64_t *deadline_ns,
                              struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_error local;
    enum hw_status status;

    if (err == NULL)
        err = &local;
    *deadline_ns = UINT64_MAX;
    if (hw_capture_is_forked(capture))
        return HW_END;
    if (yields(capture, deadline_ns) || is_useless(capture, deadline_ns))
        return HW_END;
    status = hw_worker_take_role(capture, err);
    if (status == HW_EBUSY)
        return HW_END;
    if (status == HW_OK && worker->is_ended)
        return hw_handover_answer(capture, err);
    if (status == HW_OK)
        status = hw_exclusive_step(capture, err);
    if (status == HW_OK) {
        switch (worker->state) {
        case WORKER_IDLE:
            status = hw_worker_reconcile(capture, err);
            break;
        case WORKER_CHECKING:
            status = hw_check_step(capture, err);
            if (status < 0) {
                stall(capture, err);
                status = HW_OK;
            }
            break;
        case WORKER_RUNNING:
            return step_running(capture, deadline_ns, err);
        case WORKER_STALLED:
        case WORKER_RELEASED:
            status = hw_stalled_step(capture, deadline_ns, err);
            break;
        }
    }
    if (status == HW_AGAIN) {
        *deadline_ns = now_ns(capture) + HEADER_RETRY_NS;
        return HW_END;
    }
    if (status < 0) {
        hw_worker_alarm(capture, "the log is not kept: %s", err->message);
        *deadline_ns = now_ns(capture) + RETRY_NS;
    }
    return status;
}
