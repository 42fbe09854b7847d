/* From frames of the WAL to transaction entries: hw_batch_run() of capture/internal.h. */
#include <assert.h>
#include <string.h>

#include "capture/internal.h"

/* One transaction in the making. */
struct maker {
    struct hw_capture *capture;
    struct hw_worker *worker;
    struct hw_note note;   /* as it will be when this transaction is durable */
    struct hw_note before; /* as it was after the one before */
    uint32_t commit_frame, commit_size;
    uint32_t last, last_size;  /* newest commit frame of the index, and its size of the database */
    uint64_t block_sum_before; /* of the block in the making */
    bool started;              /* a block of this entry was added */
    bool has_origin;           /* it was written from afar */
    struct hw_origin origin;
    int64_t time_ms;
};

/* ---------------------------------------------------------------------------------- frames */

static size_t frame_size(const struct hw_worker *worker)
{
    return HW_WAL_FRAME_HEADER_SIZE + (size_t)worker->page_size;
}

/* Frame `frame` (from 1): its header and page, borrowed until the next call. */
static enum hw_status frame_get(struct hw_capture *capture, uint32_t frame, uint32_t last,
                                const uint8_t **out, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t room = (uint32_t)(worker->frames_capacity / frame_size(worker));
    enum hw_status status;

    if (worker->frames_count == 0 || frame < worker->frames_first ||
        frame - worker->frames_first >= worker->frames_count) {
        uint32_t count = last - frame + 1 < room ? last - frame + 1 : room;

        worker->frames_count = 0;
        status =
            capture->env->ops->read_at(worker->wal, hw_wal_frame_offset(worker->page_size, frame),
                                       worker->frames, count * frame_size(worker), err);
        if (status == HW_END)
            return hw_fail(err, HW_ECORRUPT, "%s ends before frame %u, which is committed",
                           capture->wal_path, frame + count - 1);
        if (status != HW_OK)
            return status;
        worker->frames_first = frame;
        worker->frames_count = count;
    }
    *out = worker->frames + (frame - worker->frames_first) * frame_size(worker);
    return HW_OK;
}

/* Would the frame have its checksum if it committed nothing?  `sum` is that of all before it. */
static bool was_no_commit(const struct hw_worker *worker, const uint8_t *bytes,
                          const uint32_t sum[2])
{
    struct hw_wal_frame header = hw_wal_frame_decode(bytes);
    uint32_t other[2] = {sum[0], sum[1]};
    uint8_t start[8] = {0};

    memcpy(start, bytes, 4);
    hw_wal_checksum(worker->wal_header.big_endian, start, sizeof(start), other);
    hw_wal_checksum(worker->wal_header.big_endian, bytes + HW_WAL_FRAME_HEADER_SIZE,
                    worker->page_size, other);
    return other[0] == header.checksum[0] && other[1] == header.checksum[1];
}

/*
 * The checksum of a frame does not fit: is its header still what the index says?  Else it would be
 * logged as another page, or a database of any size as committed.
 */
static enum hw_status check_damaged(struct maker *maker, const uint8_t *bytes, uint32_t frame,
                                    const uint32_t sum[2], struct hw_error *err)
{
    struct hw_wal_frame header = hw_wal_frame_decode(bytes);
    uint32_t page = 0;
    enum hw_status status = hw_wal_index_page(hw_worker_index(maker->worker), frame, &page, err);

    if (status != HW_OK)
        return status;
    if (page != header.page_number)
        return hw_fail(err, HW_ECORRUPT, "%s: frame %u names page %u, the index page %u",
                       maker->capture->wal_path, frame, header.page_number, page);
    if (frame == maker->last ? header.commit_size != maker->last_size
                             : header.commit_size != 0 && was_no_commit(maker->worker, bytes, sum))
        return hw_fail(err, HW_ECORRUPT, "%s: damaged frame %u says that it commits %u pages",
                       maker->capture->wal_path, frame, header.commit_size);
    return HW_OK;
}

/*
 * Frames of a committed transaction whose checksums do not go on are damage, and what SQLite shows
 * is what we log.  Frames without any are a known slip of SQLite before 3.50.2 (a savepoint rolled
 * back after a spill): its recovery would lose them, the log does not.
 */
static enum hw_status check_frame(struct maker *maker, const uint8_t *bytes, uint32_t frame,
                                  struct hw_error *err)
{
    const struct hw_worker *worker = maker->worker;
    struct hw_wal_frame header = hw_wal_frame_decode(bytes);
    uint32_t *sum = maker->note.at.checksum, before[2] = {sum[0], sum[1]};
    bool unsummed = !header.has_checksum;
    enum hw_status status = HW_OK;

    if (!unsummed && memcmp(header.salts, maker->note.at.salts, sizeof(header.salts)) != 0)
        return hw_fail(err, HW_ECORRUPT, "%s: frame %u is of another round than the index says",
                       maker->capture->wal_path, frame);
    if (!unsummed) {
        hw_wal_checksum(worker->wal_header.big_endian, bytes, 8, sum);
        hw_wal_checksum(worker->wal_header.big_endian, bytes + HW_WAL_FRAME_HEADER_SIZE,
                        worker->page_size, sum);
    }
    if (unsummed || sum[0] != header.checksum[0] || sum[1] != header.checksum[1]) {
        status = check_damaged(maker, bytes, frame, before, err);
        hw_env_log(maker->capture->env, HW_LOG_WARN,
                   "event=wal_checksum file=%s frame=%u offset=%llu", maker->capture->wal_path,
                   frame, (unsigned long long)hw_wal_frame_offset(worker->page_size, frame));
    }
    if (!unsummed) {
        sum[0] = header.checksum[0];
        sum[1] = header.checksum[1];
    }
    return status;
}

/* Does the frame after the commit frame repeat it, as SQLite pads to the sector without PSOW? */
static enum hw_status is_padding(struct maker *maker, uint32_t frame, uint32_t last, bool *out,
                                 struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    const uint8_t *bytes;
    struct hw_wal_frame one, two;
    enum hw_status status;

    *out = false;
    if (frame + 1 > last)
        return HW_OK;
    status = frame_get(maker->capture, frame, last, &bytes, err);
    if (status != HW_OK)
        return status;
    one = hw_wal_frame_decode(bytes);
    memcpy(worker->old_page, bytes + HW_WAL_FRAME_HEADER_SIZE, worker->page_size);
    status = frame_get(maker->capture, frame + 1, last, &bytes, err);
    if (status != HW_OK)
        return status;
    two = hw_wal_frame_decode(bytes);
    *out = one.page_number == two.page_number && one.commit_size == two.commit_size &&
           memcmp(worker->old_page, bytes + HW_WAL_FRAME_HEADER_SIZE, worker->page_size) == 0;
    return HW_OK;
}

/* Find the commit frame of the transaction that begins at `first`, checking frames on the way. */
static enum hw_status find_commit(struct maker *maker, uint32_t first, uint32_t last,
                                  struct hw_error *err)
{
    const uint8_t *bytes;
    enum hw_status status;
    bool padding = true;

    for (uint32_t frame = first; frame <= last; frame++) {
        struct hw_wal_frame header;

        status = frame_get(maker->capture, frame, last, &bytes, err);
        if (status != HW_OK)
            return status;
        header = hw_wal_frame_decode(bytes);
        status = check_frame(maker, bytes, frame, err);
        if (status != HW_OK)
            return status;
        if (header.commit_size == 0)
            continue;
        maker->commit_frame = frame;
        maker->commit_size = header.commit_size;
        status = is_padding(maker, frame, last, &padding, err);
        if (status != HW_OK || !padding)
            return status;
    }
    if (maker->commit_frame >= first)
        return HW_OK; /* padding up to the end */
    return hw_fail(err, HW_ECORRUPT,
                   "%s: no commit frame in %u..%u, which the index calls committed",
                   maker->capture->wal_path, first, last);
}

/* ---------------------------------------------------------------------------------- blocks */

static enum hw_status add_block(struct maker *maker, bool ends, struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    uint64_t seq = hw_core_batch_next(worker->core);
    struct hw_transaction transaction = {
        .page_size = worker->page_size,
        .page_count = maker->commit_size,
        .sum_before = maker->block_sum_before,
        .sum_after = maker->note.sum,
    };
    struct hw_entry_header header = hw_worker_entry(maker->capture, HW_ENTRY_TRANSACTION);
    enum hw_status status;

    header.time_ms = maker->time_ms;
    header.starts = !maker->started;
    header.ends = ends;
    header.has_origin = maker->has_origin && !maker->started;
    header.origin = maker->origin;
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, seq, &worker->block);
    status = hw_transaction_encode(worker->encoder, &transaction, &worker->block, err);
    if (status == HW_OK)
        status = hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
    if (status != HW_OK)
        return status;
    hw_transaction_encoder_clear(worker->encoder);
    maker->started = true;
    maker->block_sum_before = maker->note.sum;
    maker->note.log_since += worker->block.size;
    if (ends)
        maker->note.seq = seq;
    return HW_OK;
}

/* The image of the page before this transaction, in worker->old_page, if a reader will have it. */
static enum hw_status get_previous(struct maker *maker, uint32_t page_number, uint64_t *old_sum,
                                   const uint8_t **previous, struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    bool from_file = false;
    enum hw_status status;

    *previous = NULL;
    *old_sum = 0;
    if (page_number > maker->before.page_count)
        return HW_OK; /* whatever WAL and file still hold of it: it was not part of the database */
    status = hw_sums_get(worker->sums, page_number, old_sum, err);
    if (status != HW_OK || !hw_snapshot_has_taken(worker, page_number))
        return status;
    status = hw_worker_read_page(maker->capture, page_number, maker->before.at.frame,
                                 worker->old_page, &from_file, err);
    if (status != HW_OK)
        return status;
    if (from_file && worker->distrust_file)
        return HW_OK;
    if (hw_page_sum(page_number, worker->old_page, worker->page_size) != *old_sum) {
        if (from_file) {
            worker->distrust_file = true; /* perhaps a checkpoint passed the gate: see below */
            return HW_OK;
        }
        return hw_fail(err, HW_ECORRUPT, "page %u is not what the log says it was", page_number);
    }
    *previous = worker->old_page;
    return HW_OK;
}

static enum hw_status add_page(struct maker *maker, uint32_t page_number, const uint8_t *content,
                               struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    uint64_t new_sum = hw_page_sum(page_number, content, worker->page_size);
    uint64_t old_sum;
    const uint8_t *previous;
    enum hw_status status = get_previous(maker, page_number, &old_sum, &previous, err);

    if (status != HW_OK)
        return status;
    status = hw_transaction_encoder_add(worker->encoder, page_number, content, previous, err);
    if (status == HW_ELIMIT) {
        status = add_block(maker, false, err);
        if (status == HW_OK)
            status =
                hw_transaction_encoder_add(worker->encoder, page_number, content, previous, err);
    }
    if (status == HW_OK)
        status = hw_sums_set(worker->sums, page_number, new_sum, err);
    if (status != HW_OK)
        return status;
    hw_snapshot_touch(worker, page_number);
    maker->note.sum ^= old_sum ^ new_sum;
    maker->note.raw_since += worker->page_size;
    return HW_OK;
}

/* Pages that the database gained and the transaction did not write: as a reader sees them now. */
static enum hw_status add_unwritten(struct maker *maker, struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    uint32_t lock_page = hw_lock_page(worker->page_size);
    enum hw_status status = HW_OK;

    for (uint32_t page = maker->before.page_count + 1;
         page <= maker->commit_size && status == HW_OK; page++) {
        uint32_t frame = 0;
        bool from_file;

        if (page == lock_page)
            continue;
        status =
            hw_wal_index_lookup(hw_worker_index(worker), page, maker->commit_frame, &frame, err);
        if (status != HW_OK || frame > maker->before.at.frame)
            continue; /* written: it is in already */
        /* The group buffer is free here: a snapshot fills it only between two batches. */
        status = hw_worker_read_page(maker->capture, page, maker->before.at.frame,
                                     worker->group_pages, &from_file, err);
        if (status == HW_OK)
            status = add_page(maker, page, worker->group_pages, err);
    }
    return status;
}

/* Pages that the database lost leave the state sum. */
static enum hw_status drop_pages(struct maker *maker, struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    uint32_t lock_page = hw_lock_page(worker->page_size);
    enum hw_status status = HW_OK;

    if (maker->commit_size != maker->before.page_count && maker->commit_size > 0)
        hw_snapshot_touch(worker, maker->commit_size);
    for (uint32_t page = maker->commit_size + 1;
         page <= maker->before.page_count && status == HW_OK; page++) {
        uint64_t old_sum;

        if (page == lock_page)
            continue;
        status = hw_sums_get(worker->sums, page, &old_sum, err);
        if (status != HW_OK)
            break;
        maker->note.sum ^= old_sum;
        hw_snapshot_touch(worker, page);
        status = hw_sums_set(worker->sums, page, 0, err);
    }
    return status;
}

static enum hw_status add_transaction(struct maker *maker, uint32_t last, struct hw_error *err)
{
    struct hw_worker *worker = maker->worker;
    uint32_t first = maker->note.at.frame + 1;
    uint32_t lock_page = hw_lock_page(worker->page_size);
    enum hw_status status = find_commit(maker, first, last, err);

    for (uint32_t frame = first; frame <= maker->commit_frame && status == HW_OK; frame++) {
        uint32_t newest = 0, page;
        const uint8_t *bytes;

        status = frame_get(maker->capture, frame, last, &bytes, err);
        if (status != HW_OK)
            break;
        page = hw_wal_frame_decode(bytes).page_number;
        if (page > maker->commit_size || page == lock_page)
            continue; /* of a rolled back savepoint: beyond the database */
        if (page == 0)
            return hw_fail(err, HW_ECORRUPT, "%s: frame %u names page 0", maker->capture->wal_path,
                           frame);
        status =
            hw_wal_index_lookup(hw_worker_index(worker), page, maker->commit_frame, &newest, err);
        if (status == HW_OK && newest == frame)
            status = add_page(maker, page, bytes + HW_WAL_FRAME_HEADER_SIZE, err);
        else if (frame == first) /* written again in this transaction */
            maker->has_origin = hw_wal_mark_decode(bytes + HW_WAL_FRAME_HEADER_SIZE,
                                                   worker->page_size, &maker->origin);
    }
    if (status == HW_OK)
        status = add_unwritten(maker, err);
    if (status == HW_OK)
        status = drop_pages(maker, err);
    if (status == HW_OK)
        status = add_block(maker, true, err);
    if (status != HW_OK)
        return status;
    maker->note.at.frame = maker->commit_frame;
    maker->note.page_count = maker->commit_size;
    maker->note.time_ms = maker->time_ms;
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- batch */

/*
 * Invariant 2: the frames are durable before the log says that they were committed.  So is the name
 * of their file, which SQLite syncs only with the file's first sync.
 */
enum hw_status hw_worker_sync_wal(struct hw_capture *capture, uint32_t max_frame,
                                  struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_env *env = capture->env;
    uint64_t end = hw_wal_frame_offset(worker->page_size, max_frame + 1);
    enum hw_status status;

    if (hw_shared_wal_synced(capture->shared, worker->wal_header.salts) >= end)
        return HW_OK;
    status = env->ops->sync(worker->wal, err);
    if (status != HW_OK || worker->named_inode == worker->wal_stat.inode)
        return status;
    status = env->ops->sync_dir(env, capture->directory, err);
    if (status == HW_OK)
        worker->named_inode = worker->wal_stat.inode;
    return status;
}

void hw_capture_wal_changed(struct hw_capture *capture, const uint8_t salts[8], uint64_t offset)
{
    if (hw_shared_wal_synced(capture->shared, salts) > offset)
        hw_shared_set_wal_synced(capture->shared, salts, offset);
}

enum hw_status hw_worker_check_backfill(struct hw_capture *capture, uint32_t frame,
                                        struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t backfilled, attempted;
    enum hw_status status;

    if (worker->private_index != NULL)
        return HW_OK; /* exclusive mode: the only writer is inside of this process, behind door 2 */
    status = hw_wal_index_backfill(worker->index, &backfilled, &attempted, err);
    if (status != HW_OK)
        return status;
    if (attempted != worker->recovered_attempt)
        worker->recovered_attempt = 0;
    return backfilled > frame || (attempted > frame && worker->recovered_attempt == 0) ? HW_END
                                                                                       : HW_OK;
}

/* Did somebody checkpoint past the gate while old images were read? */
static enum hw_status check_gate(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header header;
    enum hw_status status = hw_worker_header(capture, &header, err);

    if (status != HW_OK)
        return status;
    if (!hw_header_same_round(&header, worker->note.at.salts))
        return hw_fail(err, HW_ECORRUPT, "the WAL was restarted before it was logged");
    return hw_worker_check_backfill(capture, worker->note.at.frame, err);
}

static enum hw_status abandon(struct hw_capture *capture, enum hw_status status,
                              struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status aborted;
    struct hw_error ignored;

    hw_core_batch_abort(worker->core);
    hw_transaction_encoder_clear(worker->encoder);
    aborted = hw_sums_abort(worker->sums, &ignored);
    if (aborted != HW_OK && status >= 0) {
        *err = ignored;
        return aborted;
    }
    return status;
}

enum hw_status hw_batch_run(struct hw_capture *capture, const struct hw_wal_index_header *header,
                            struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    bool distrusted = worker->distrust_file;
    struct maker maker = {
        .capture = capture,
        .worker = worker,
        .note = worker->note,
        .time_ms = hw_worker_time(capture),
        .last = header->max_frame,
        .last_size = header->page_count,
    };
    enum hw_status status = hw_worker_sync_wal(capture, header->max_frame, err);

    worker->frames_count = 0; /* what was read before may have been a rolled back transaction */
    if (status == HW_OK)
        status = hw_core_batch_begin(worker->core, err);
    if (status != HW_OK)
        return status;
    do {
        maker.before = maker.note;
        maker.block_sum_before = maker.note.sum;
        maker.started = maker.has_origin = false;
        maker.commit_frame = 0;
        status = add_transaction(&maker, header->max_frame, err);
    } while (status == HW_OK && maker.note.at.frame < header->max_frame &&
             hw_core_batch_bytes(worker->core) < BATCH_BYTES &&
             maker.note.at.frame - worker->note.at.frame < BATCH_FRAMES);
    if (status == HW_OK)
        status = check_gate(capture, err);
    if (status == HW_END && !distrusted) { /* once more, with old images from the WAL alone */
        worker->distrust_file = true;
        return abandon(capture, HW_AGAIN, err);
    }
    if (status == HW_END)
        status = HW_OK;
    if (status == HW_OK && worker->distrust_file && !distrusted)
        status = hw_fail(err, HW_ECORRUPT, "a page of the file is not what the log says it was");
    if (status != HW_OK)
        return abandon(capture, status, err);
    status = hw_worker_commit(capture, &maker.note, err);
    if (status != HW_OK)
        return abandon(capture, status, err);
    worker->distrust_file = false;
    return HW_OK;
}
