/*
 * The check of capture/internal.h: the state sum of the database, page by page, while commits go on
 * and the gate is shut; and what follows from it.  It is that of the log's newest state: go on.  At
 * the place where the log ends by other evidence it is not: look at the state as of now.  Of an
 * earlier entry: the database is rolled forward.  Of none: a gap entry says so, and a snapshot
 * begins anew.
 */
#include <stdio.h>
#include <string.h>

#include "capture/internal.h"

static enum hw_status find_page_count(struct hw_capture *capture,
                                      const struct hw_wal_index_header *header, uint32_t *out,
                                      struct hw_error *err)
{
    sqlite3_int64 size = 0;
    int rc;

    if (header->max_frame > 0) {
        *out = header->page_count;
        return HW_OK;
    }
    rc = capture->database->pMethods->xFileSize(capture->database, &size);
    if (rc != SQLITE_OK)
        return hw_fail(err, HW_EIO, "%s: cannot tell its size (SQLite code %d)", capture->path, rc);
    *out = (uint32_t)((uint64_t)size / capture->worker.page_size);
    return HW_OK;
}

/* The state as of now, whatever it is. */
static enum hw_status place_now(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    memcpy(worker->check_at.salts, worker->check_header.salts, sizeof(worker->check_at.salts));
    worker->check_at.frame = worker->check_header.max_frame;
    memcpy(worker->check_at.checksum, worker->check_header.frame_checksum,
           sizeof(worker->check_at.checksum));
    return find_page_count(capture, &worker->check_header, &worker->check_header.page_count, err);
}

enum hw_status hw_check_begin(struct hw_capture *capture, const char *reason, bool at_logged,
                              struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status;

    if (worker->check_reason != reason)
        (void)snprintf(worker->check_reason, sizeof(worker->check_reason), "%s", reason);
    hw_snapshot_reset(worker);
    atomic_store(&capture->held_since, false); /* from now on the sum tells */
    hw_worker_publish_nothing(capture);        /* the gate is shut */
    status = hw_worker_header(capture, &worker->check_header, err);
    if (status != HW_OK)
        return status;
    worker->check_at_logged = at_logged;
    if (at_logged) {
        worker->check_at = worker->note.at;
        worker->check_header.page_count = worker->note.page_count;
    } else {
        status = place_now(capture, err);
    }
    if (status == HW_OK && worker->check_header.page_count == 0)
        return HW_AGAIN;
    if (status == HW_OK && worker->check_header.max_frame > 0)
        status = hw_worker_open_wal(capture, err);
    if (status != HW_OK)
        return status;
    worker->frames_count = 0;
    hw_sums_invalidate(worker->sums);
    worker->check_next = 1;
    worker->check_sum = 0;
    worker->distrust_file = false;
    hw_worker_set_state(capture, WORKER_CHECKING);
    hw_env_log(capture->env, HW_LOG_INFO, "event=check_started db=%s pages=%u reason=\"%s\"",
               capture->path, worker->check_header.page_count, worker->check_reason);
    return HW_OK;
}

/* The WAL is not any more what it was when the check began: it says nothing. */
static bool check_is_outrun(struct hw_capture *capture, const struct hw_wal_index_header *header)
{
    struct hw_worker *worker = &capture->worker;

    if (!hw_header_same_round(header, worker->check_at.salts) &&
        (worker->check_at.frame > 0 || header->max_frame == 0 ||
         !hw_round_follows(capture, &worker->check_at, header->salts)))
        return true; /* else an empty WAL began: the file is still the state */
    return header->max_frame < worker->check_at.frame;
}

/*
 * Frames after the place of the check were copied into the file, or soon are: who is at door 2
 * waits for us, and has said already how far it wants to go.
 */
static bool check_is_disturbed(struct hw_capture *capture)
{
    return hw_worker_check_backfill(capture, capture->worker.check_at.frame, NULL) != HW_OK;
}

/*
 * Somebody moved on.  If it was by a new round of the WAL, the old one may have ended where the log
 * does; then the file is that state until the new round is copied, and its sum can tell.
 */
static enum hw_status check_anew(struct hw_capture *capture,
                                 const struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;

    if (worker->check_at_logged && !hw_header_same_round(header, worker->check_at.salts))
        return hw_reconcile_begin(capture, err);
    return hw_check_begin(capture, worker->check_reason, false, err);
}

/* Invariant 2 for a state that is adopted: it must not be lost once the log begins with it. */
static enum hw_status sync_state(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    int rc = capture->database->pMethods->xSync(capture->database, SQLITE_SYNC_NORMAL);

    if (rc != SQLITE_OK)
        return hw_fail(err, HW_EIO, "%s: cannot sync (SQLite code %d)", capture->path, rc);
    if (worker->check_at.frame == 0) /* a journal whose removal is lost would roll the file back */
        return capture->env->ops->sync_dir(capture->env, capture->directory, err);
    memcpy(worker->wal_header.salts, worker->check_at.salts, sizeof(worker->wal_header.salts));
    return hw_worker_sync_wal(capture, worker->check_at.frame, err);
}

/* Who waits for a commit must know that the log goes on without it. */
static void tell_gap(struct hw_capture *capture, const struct hw_note *after)
{
    const struct hw_wal_position *before = &capture->worker.logged_at;
    struct hw_shared_gap gap = {
        .before.frame = before->frame,
        .after = {.frame = after->at.frame, .seq = after->seq},
    };

    memcpy(gap.before.salts, before->salts, sizeof(gap.before.salts));
    memcpy(gap.after.salts, after->at.salts, sizeof(gap.after.salts));
    hw_shared_add_gap(capture->shared, &gap);
}

/* A batch of one block: genesis or gap.  The state as of check_at is that of its seq. */
static enum hw_status add_state(struct hw_capture *capture, enum hw_entry_type type,
                                struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_entry_header header = hw_worker_entry(capture, type);
    struct hw_note note = worker->note;
    enum hw_status status = sync_state(capture, err);

    if (status == HW_OK)
        status = hw_core_batch_begin(worker->core, err);
    if (status != HW_OK)
        return status;
    note.at = worker->check_at;
    note.page_count = worker->check_header.page_count;
    note.sum = worker->check_sum;
    note.seq = hw_core_batch_next(worker->core);
    note.log_since = HW_SNAPSHOT_NEEDED; /* an older snapshot does not serve what comes */
    note.time_ms = header.time_ms;
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, note.seq, &worker->block);
    if (type == HW_ENTRY_GENESIS) {
        struct hw_genesis genesis = {
            .format_version = HW_FORMAT_VERSION,
            .page_size = worker->page_size,
            .page_count = note.page_count,
            .sum = note.sum,
        };

        capture->env->ops->random(capture->env, genesis.database_id, sizeof(genesis.database_id));
        hw_genesis_encode(&genesis, &worker->block);
    } else {
        struct hw_gap gap = {
            .from_sum = worker->note.sum,
            .to_sum = note.sum,
            .from_page_count = worker->note.page_count,
            .to_page_count = note.page_count,
        };

        (void)snprintf(gap.reason, sizeof(gap.reason), "%s", worker->check_reason);
        hw_gap_encode(&gap, &worker->block);
        hw_env_log(capture->env, HW_LOG_ERROR,
                   "event=gap db=%s seq=%llu from_seq=%llu reason=\"%s\"", capture->path,
                   (unsigned long long)note.seq, (unsigned long long)worker->note.seq, gap.reason);
    }
    if (worker->block.failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for an entry", capture->path);
    else
        status = hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    worker->log_page_size = worker->page_size;
    if (type == HW_ENTRY_GAP)
        tell_gap(capture, &note);
    status = hw_worker_commit(capture, &note, err);
    if (status == HW_OK)
        worker->snapshot.forced = true;
    return status;
}

/* The newest entry at which the database had this state; HW_END if there is none. */
static enum hw_status find_state(struct hw_capture *capture, uint64_t sum, uint32_t page_count,
                                 uint64_t *seq, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = HW_OK;

    for (uint64_t i = hw_core_length(worker->core); i-- > 0 && status == HW_OK;) {
        struct hw_entry_header header;
        struct hw_transaction transaction = {0};
        struct hw_genesis genesis;
        struct hw_cursor cursor;
        bool found = false;

        status = hw_core_read(worker->core, i, &worker->block, err);
        if (status == HW_EPRUNED || status == HW_ECORRUPT) { /* no rolling forward over this */
            status = HW_OK;
            break;
        }
        if (status != HW_OK)
            break; /* a disk that fails for a moment must not make a gap */
        cursor = hw_cursor(worker->block.bytes, worker->block.size);
        if (hw_entry_header_decode(&cursor, i, &header) != HW_OK || header.type == HW_ENTRY_GAP)
            break;
        if (header.type == HW_ENTRY_TRANSACTION && header.ends &&
            hw_transaction_peek(&cursor, worker->page_size, &transaction) == HW_OK)
            found = transaction.sum_after == sum && transaction.page_count == page_count;
        if (header.type == HW_ENTRY_GENESIS && hw_genesis_decode(&cursor, &genesis) == HW_OK)
            found = genesis.sum == sum && genesis.page_count == page_count;
        if (found) {
            *seq = i;
            return HW_OK;
        }
    }
    return status == HW_OK ? HW_END : status;
}

/* All pages are summed: what does the log say of this state? */
static enum hw_status conclude(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    bool is_same = hw_core_length(worker->core) > 0 && worker->check_sum == worker->note.sum &&
                   worker->check_header.page_count == worker->note.page_count;
    struct hw_wal_index_header header;
    uint64_t seq = 0;
    enum hw_status status = hw_worker_check_shm(capture, err);

    if (status == HW_OK)
        status = hw_worker_header(capture, &header, err);
    if (status != HW_OK) /* it is being written just now; the check stays what it is */
        return status;
    if (check_is_outrun(capture, &header) || (!is_same && check_is_disturbed(capture)))
        return check_anew(capture, &header, err);
    if (hw_core_length(worker->core) == 0) {
        status = add_state(capture, HW_ENTRY_GENESIS, err);
    } else if (is_same) {
        worker->note.at = worker->check_at;
        status = hw_sums_commit(worker->sums, worker->note.seq, err);
    } else if (worker->check_at_logged) {
        return hw_check_begin(capture, worker->check_reason, false, err);
    } else {
        status = find_state(capture, worker->check_sum, worker->check_header.page_count, &seq, err);
        if (status == HW_OK && worker->private_index == NULL) {
            status = hw_roll_forward(capture, seq, err);
            if (status == HW_OK)
                return hw_check_begin(capture, "rolled forward to the log", false, err);
        }
        if (status == HW_END || status == HW_EBUSY || status == HW_OK)
            status = add_state(capture, HW_ENTRY_GAP, err);
    }
    if (status != HW_OK)
        return status;
    if (worker->check_at.frame > 0) {
        uint8_t bytes[HW_WAL_HEADER_SIZE];

        status = capture->env->ops->read_at(worker->wal, 0, bytes, sizeof(bytes), err);
        if (status == HW_OK && hw_wal_header_decode(bytes, &worker->wal_header) != HW_OK)
            return hw_check_begin(capture, worker->check_reason, false, err);
        if (status != HW_OK)
            return status < 0 ? status : hw_check_begin(capture, worker->check_reason, false, err);
    }
    hw_worker_set_state(capture, WORKER_RUNNING);
    hw_position_note(capture, false);
    hw_worker_publish(capture);
    hw_worker_alarm_over(capture);
    return HW_OK;
}

enum hw_status hw_check_step(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t page_count = worker->check_header.page_count;
    uint32_t lock_page = hw_lock_page(worker->page_size);
    bool from_file;

    for (uint32_t i = 0; i < CHECK_PAGES && worker->check_next <= page_count; i++) {
        uint32_t page = worker->check_next++;
        uint64_t sum;
        enum hw_status status;

        if (page == lock_page)
            continue;
        status = hw_worker_read_page(capture, page, worker->check_at.frame, worker->old_page,
                                     &from_file, err);
        if (status != HW_OK)
            return status;
        sum = hw_page_sum(page, worker->old_page, worker->page_size);
        worker->check_sum ^= sum;
        status = hw_sums_set(worker->sums, page, sum, err);
        if (status != HW_OK)
            return status;
    }
    return worker->check_next <= page_count ? HW_OK : conclude(capture, err);
}
