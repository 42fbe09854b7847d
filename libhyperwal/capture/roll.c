/*
 * Rolling the database forward to the log: case (b) of the reconciliation.  The database is a true
 * prefix of what the log has (a restored older file, commits that the disk forgot), and gets the
 * rest as an ordinary writer would write it.
 */
#include <string.h>

#include "capture/internal.h"

struct roller {
    struct hw_capture *capture;
    struct hw_worker *worker;
    struct hw_wal_writer *writer;           /* owned */
    struct hw_transaction_decoder *decoder; /* owned */
};

/* One block of a transaction into the WAL; the one that ends it commits. */
static enum hw_status roll_block(struct roller *roller, uint64_t seq, struct hw_error *err)
{
    struct hw_worker *worker = roller->worker;
    struct hw_entry_header header;
    struct hw_transaction transaction;
    struct hw_cursor cursor;
    enum hw_status status = hw_core_read(worker->core, seq, &worker->block, err);

    if (status != HW_OK)
        return status;
    cursor = hw_cursor(worker->block.bytes, worker->block.size);
    status = hw_entry_header_decode(&cursor, seq, &header);
    if (status != HW_OK || header.type != HW_ENTRY_TRANSACTION)
        return status;
    status = hw_transaction_decode(roller->decoder, &cursor, worker->page_size, &transaction, err);
    for (uint32_t i = 0; i < transaction.change_count && status == HW_OK; i++) {
        bool needed, from_file;
        uint32_t page = hw_transaction_page(roller->decoder, i, &needed);

        if (needed)
            status = hw_worker_read_page(
                roller->capture, page, hw_wal_writer_position(roller->writer).frame,
                hw_transaction_previous(roller->decoder, i), &from_file, err);
    }
    if (status == HW_OK)
        status = hw_transaction_expand(roller->decoder, err);
    for (uint32_t i = 0; i < transaction.change_count && status == HW_OK; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(roller->decoder, i, &needed);

        status =
            hw_wal_writer_add(roller->writer, page, hw_transaction_image(roller->decoder, i), err);
    }
    if (status == HW_OK && header.ends) {
        struct hw_wal_position end;

        status = hw_wal_writer_finish(roller->writer, transaction.page_count, &end, err);
        if (status == HW_OK)
            status = hw_wal_writer_publish(roller->writer, err);
    }
    return status;
}

/* The caller holds WRITE; the database must still be in the state that was checked. */
static enum hw_status roll(struct hw_capture *capture, uint64_t seq, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct roller roller = {.capture = capture, .worker = worker};
    struct hw_wal_index_header header;
    enum hw_status status = hw_worker_header(capture, &header, err);

    if (status != HW_OK)
        return status;
    if (!hw_header_same_round(&header, worker->check_at.salts) ||
        header.max_frame != worker->check_at.frame)
        return hw_fail(err, HW_EBUSY, "the database was written before it was rolled forward");
    status = hw_transaction_decoder_new(&roller.decoder, err);
    if (status == HW_OK)
        status = hw_worker_open_wal(capture, err);
    if (status == HW_OK)
        status = hw_wal_writer_open(capture->database, worker->index, worker->wal,
                                    worker->page_size, &roller.writer, err);
    for (uint64_t i = seq + 1; i < hw_core_length(worker->core) && status == HW_OK; i++)
        status = roll_block(&roller, i, err);
    if (status == HW_OK)
        status = capture->env->ops->sync(worker->wal, err);
    hw_wal_writer_close(roller.writer);
    hw_transaction_decoder_free(roller.decoder);
    return status;
}

/* HW_EBUSY: somebody else writes.  A lock that fails otherwise tells nothing of the database. */
static enum hw_status lock_failed(struct hw_capture *capture, int rc, struct hw_error *err)
{
    if ((rc & 0xff) == SQLITE_BUSY)
        return hw_fail(err, HW_EBUSY, "%s: another connection is writing", capture->path);
    return hw_fail(err, HW_EIO, "%s: cannot be locked to be rolled forward (SQLite code %d)",
                   capture->path, rc);
}

enum hw_status hw_roll_forward(struct hw_capture *capture, uint64_t seq, struct hw_error *err)
{
    const sqlite3_io_methods *methods = capture->database->pMethods;
    enum hw_status status;
    int rc = methods->xLock(capture->database, SQLITE_LOCK_SHARED);

    if (rc != SQLITE_OK)
        return lock_failed(capture, rc, err);
    rc = methods->xShmLock(capture->database, HW_SHM_WRITE, 1,
                           SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (rc != SQLITE_OK) {
        status = lock_failed(capture, rc, err);
    } else {
        status = roll(capture, seq, err);
        hw_env_log(capture->env, HW_LOG_WARN, "event=rolled_forward db=%s from_seq=%llu status=%s",
                   capture->path, (unsigned long long)seq, hw_status_name(status));
        (void)methods->xShmLock(capture->database, HW_SHM_WRITE, 1,
                                SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE); /* cannot fail */
    }
    (void)methods->xUnlock(capture->database, SQLITE_LOCK_NONE);
    return status;
}
