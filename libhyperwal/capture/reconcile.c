/*
 * Do log and database agree?  Asked when a worker begins, and when something says that they do
 * not.
 *
 * Evidence says at which place of the WAL, as it is now, the log ends: the frame that the log's
 * note names is there, or a round of the WAL began when all before it was in the log and in the
 * file.  If the database file is known as well (it is as it was at the last checkpoint or close
 * through us, or a reader that was there all the time kept foreign frames out of it), nothing is
 * read.  Else check.c computes the state sum of the database at that
 * place, while commits go on in the WAL and the gate is shut.
 */
#include <string.h>

#include "capture/internal.h"

/* ------------------------------------------------------------------------------- evidence */

/* The header of the WAL, into the worker's.  *is_there false: there is none, or another round's. */
static enum hw_status read_wal_header(struct hw_capture *capture, const uint8_t salts[8],
                                      bool *is_there, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    enum hw_status status = hw_worker_open_wal(capture, err);

    *is_there = false;
    if (status == HW_OK)
        status = capture->env->ops->read_at(worker->wal, 0, bytes, sizeof(bytes), err);
    if (status != HW_OK) /* what cannot be read says nothing; what is not there does */
        return status == HW_ENOTFOUND || status == HW_END ? HW_OK : status;
    *is_there = hw_wal_header_decode(bytes, &worker->wal_header) == HW_OK &&
                memcmp(worker->wal_header.salts, salts, sizeof(worker->wal_header.salts)) == 0;
    return HW_OK;
}

/*
 * The frame that the log ends with is in the WAL, as the log's note has it.  Not *surely: it has no
 * checksum (batch.c has why), then the last one before it that has one says so.
 */
static enum hw_status find_frame(struct hw_capture *capture, bool *is_there, bool *surely,
                                 struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    const struct hw_wal_position *at = &worker->note.at;
    struct hw_wal_frame frame;
    enum hw_status status = read_wal_header(capture, at->salts, is_there, err);

    *surely = true;
    if (status != HW_OK || !*is_there)
        return status;
    for (uint32_t number = at->frame; number > 0; number--) {
        uint64_t offset = hw_wal_frame_offset(worker->page_size, number);
        uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE];

        status = capture->env->ops->read_at(worker->wal, offset, bytes, sizeof(bytes), err);
        if (status != HW_OK) {
            *is_there = false;
            return status == HW_END ? HW_OK : status;
        }
        frame = hw_wal_frame_decode(bytes);
        if (frame.has_checksum) {
            *is_there = memcmp(frame.checksum, at->checksum, sizeof(at->checksum)) == 0 &&
                        memcmp(frame.salts, at->salts, sizeof(at->salts)) == 0;
            return HW_OK;
        }
        *surely = false;
    }
    *is_there = at->frame == 0 ||
                memcmp(worker->wal_header.checksum, at->checksum, sizeof(at->checksum)) == 0;
    return HW_OK;
}

/* The database file is what it was when we last knew, and no power was lost since. */
static bool file_is_same(struct hw_capture *capture, bool *clean)
{
    struct hw_position_file then, now;

    *clean = false;
    if (hw_position_read(capture->env, capture->log_dir, &then, NULL) != HW_OK ||
        hw_position_take(capture->env, capture->path, false, &now, NULL) != HW_OK)
        return false;
    *clean = then.clean;
    return hw_position_same_file(&then, &now) &&
           (then.clean || memcmp(then.boot_id, now.boot_id, sizeof(now.boot_id)) == 0);
}

/* Go on from the beginning of the round that the WAL is in. */
static enum hw_status begin_round(struct hw_capture *capture,
                                  const struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_position *at = &worker->note.at;
    bool is_there;

    if (header->max_frame > 0) {
        enum hw_status status = read_wal_header(capture, header->salts, &is_there, err);

        if (status != HW_OK || !is_there)
            return status == HW_OK ? HW_AGAIN : status;
        memcpy(at->checksum, worker->wal_header.checksum, sizeof(at->checksum));
    }
    memcpy(at->salts, header->salts, sizeof(at->salts));
    at->frame = 0;
    return HW_OK;
}

/* The page size of the database as it is now. */
static enum hw_status find_page_size(struct hw_capture *capture,
                                     const struct hw_wal_index_header *header, uint32_t *out,
                                     struct hw_error *err)
{
    uint8_t bytes[100];
    uint32_t page_size = header->page_size;
    int rc;

    if (header->max_frame == 0) {
        rc = capture->database->pMethods->xRead(capture->database, bytes, sizeof(bytes), 0);
        if (rc == SQLITE_IOERR_SHORT_READ)
            return HW_AGAIN; /* a database without a page: the first transaction brings it */
        if (rc != SQLITE_OK)
            return hw_fail(err, HW_EIO, "%s: cannot read its header (SQLite code %d)",
                           capture->path, rc);
        page_size = (uint32_t)bytes[16] << 8 | bytes[17];
        page_size = page_size == 1 ? HW_PAGE_SIZE_MAX : page_size;
    }
    if (page_size < HW_PAGE_SIZE_MIN || page_size > HW_PAGE_SIZE_MAX ||
        (page_size & (page_size - 1)) != 0)
        return hw_fail(err, HW_ECORRUPT, "%s: not an SQLite database (page size %u)", capture->path,
                       page_size);
    *out = page_size;
    return HW_OK;
}

/*
 * Where in the WAL as it is now the log ends, by evidence: note.at is that place, if *chain.  If
 * *trusted the database file is known as well, else the sum at that place must tell.
 */
static enum hw_status find_place(struct hw_capture *capture,
                                 const struct hw_wal_index_header *header, bool *chain,
                                 bool *trusted, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t backfilled = 0, attempted = 0;
    bool held = atomic_load(&capture->held_since);
    bool clean, ours, surely = false, same_file = file_is_same(capture, &clean) || held;
    enum hw_status status = HW_OK;

    if (worker->private_index == NULL)
        status = hw_wal_index_backfill(worker->index, &backfilled, &attempted, err);
    if (status != HW_OK)
        return status;
    worker->recovered_attempt = backfilled == 0 && attempted <= header->max_frame ? attempted : 0;
    if (header->max_frame > 0 && hw_header_same_round(header, worker->note.at.salts)) {
        *chain = false;
        if (header->max_frame >= worker->note.at.frame)
            status = find_frame(capture, chain, &surely, err);
        *trusted = *chain && surely && same_file;
        return status;
    }
    if (held)
        ours = true;
    else if (header->max_frame == 0) /* logged frames may be gone: recovery refused the WAL */
        ours = clean || worker->note.at.frame == 0;
    else
        ours = clean ? hw_round_is_ours(capture, header->salts)
                     : hw_round_follows(capture, &worker->note.at, header->salts);
    *chain = backfilled == 0; /* the file is what it was before this round */
    *trusted = *chain && ours && same_file;
    return *chain ? begin_round(capture, header, err) : HW_OK;
}

enum hw_status hw_reconcile_begin(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header header;
    uint32_t page_size = 0;
    bool chain = false, trusted = false;
    enum hw_status status = hw_worker_check_shm(capture, err);

    if (status == HW_OK)
        status = hw_worker_header(capture, &header, err);
    if (status == HW_OK)
        status = find_page_size(capture, &header, &page_size, err);
    if (status != HW_OK)
        return status;
    if (worker->log_page_size != 0 && worker->log_page_size != page_size)
        return hw_fail(err, HW_EFORK,
                       "%s is the log of a database with pages of %u bytes, %s has %u: it is "
                       "another database; move the log's directory away to begin a new log",
                       capture->log_dir, worker->log_page_size, capture->path, page_size);
    status = hw_worker_prepare(capture, page_size, err);
    if (status != HW_OK)
        return status;
    if (hw_core_length(worker->core) == 0)
        return hw_check_begin(capture, "adopted", false, err);

    status = find_place(capture, &header, &chain, &trusted, err);
    if (status != HW_OK)
        return status;
    atomic_store(&capture->held_since, false); /* of the time before: said once, true once */
    if (!trusted || worker->doubts ||
        !hw_sums_matches(worker->sums, worker->note.seq, worker->note.page_count, worker->note.sum,
                         hw_lock_page(page_size)))
        return hw_check_begin(capture,
                              worker->doubts > 0 ? worker->check_reason
                                                 : "opened after an unclean end or foreign changes",
                              chain && worker->doubts < 2, err);
    hw_worker_set_state(capture, WORKER_RUNNING);
    hw_position_note(capture, false);
    hw_worker_publish(capture);
    hw_worker_alarm_over(capture);
    return HW_OK;
}
