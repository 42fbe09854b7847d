/*
 * Snapshots, made while commits go on: a group is read between two batches, as of the last logged
 * frame, and the index at the end says which state each group has.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

static uint32_t group_of(uint32_t page_number)
{
    return (page_number - 1) / HW_GROUP_PAGES;
}

static uint32_t groups_in(uint32_t page_count)
{
    return page_count == 0 ? 0 : group_of(page_count) + 1;
}

void hw_snapshot_reset(struct hw_worker *worker)
{
    struct snapshot_work *work = &worker->snapshot;
    struct snapshot_work anew = {.forced = work->forced || work->active,
                                 .request_count = work->request_count};

    memcpy(anew.requests, work->requests, sizeof(anew.requests));
    hw_free(work->groups);
    hw_free(work->dirty);
    *work = anew;
}

/* More than there are slots: the first ones were given up. */
void hw_snapshot_await(struct hw_worker *worker, uint64_t mail)
{
    struct snapshot_work *work = &worker->snapshot;

    work->forced = true;
    work->requests[work->request_count++ % HW_MAILBOX_SLOTS] = mail;
}

void hw_snapshot_touch(struct hw_worker *worker, uint32_t page_number)
{
    uint32_t group = group_of(page_number);

    if (group < worker->snapshot.capacity)
        worker->snapshot.dirty[group] = 1;
}

bool hw_snapshot_has_taken(const struct hw_worker *worker, uint32_t page_number)
{
    return !worker->snapshot.active || group_of(page_number) < worker->snapshot.next_group;
}

bool hw_snapshot_is_needed(const struct hw_worker *worker)
{
    return worker->note.log_since >= HW_SNAPSHOT_NEEDED;
}

bool hw_snapshot_is_due(const struct hw_worker *worker)
{
    const struct hw_note *note = &worker->note;
    uint64_t least =
        note->snapshot_bytes > SNAPSHOT_LOG_MIN ? note->snapshot_bytes : SNAPSHOT_LOG_MIN;
    uint64_t raw = (uint64_t)note->page_count * worker->page_size * SNAPSHOT_RAW_FACTOR;

    if (note->seq == UINT64_MAX)
        return false;
    if (hw_snapshot_is_needed(worker) || worker->snapshot.forced)
        return true;
    if (raw < SNAPSHOT_RAW_MIN)
        raw = SNAPSHOT_RAW_MIN;
    return note->log_since > least ||
           (note->raw_since > raw && note->log_since > note->snapshot_bytes / 2);
}

/* Room to remember `count` groups; new ones count as changed. */
static enum hw_status grow(struct snapshot_work *work, uint32_t count, struct hw_error *err)
{
    uint32_t capacity = count + count / 4 + 16;
    struct hw_snapshot_group *groups;
    uint8_t *dirty;

    if (count <= work->capacity)
        return HW_OK;
    groups = hw_realloc(work->groups, capacity * sizeof(*groups));
    if (groups != NULL)
        work->groups = groups;
    dirty = hw_realloc(work->dirty, capacity);
    if (dirty != NULL)
        work->dirty = dirty;
    if (groups == NULL || dirty == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a snapshot of %u groups", count);
    memset(dirty + work->capacity, 1, capacity - work->capacity);
    work->capacity = capacity;
    return HW_OK;
}

/*
 * The frame as of which the file and the WAL together are the logged state.  A writer restarts the
 * WAL only when all of it is logged and copied: then that is the file alone.
 */
static enum hw_status logged_frame(struct hw_capture *capture, uint32_t *frame,
                                   struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_index_header header;
    enum hw_status status = hw_worker_header(capture, &header, err);

    if (status != HW_OK)
        return status;
    *frame = header.max_frame > 0 && hw_header_same_round(&header, worker->note.at.salts)
                 ? worker->note.at.frame
                 : 0;
    return *frame > 0 ? hw_worker_open_wal(capture, err) : HW_OK;
}

/*
 * Read the pages of `group` as of `frame` and check them against their sums.
 */
static enum hw_status read_group(struct hw_capture *capture, uint32_t group, uint32_t frame,
                                 uint32_t *count, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint32_t first = group * HW_GROUP_PAGES + 1;
    uint32_t left = worker->note.page_count - first + 1;
    uint32_t lock_page = hw_lock_page(worker->page_size);
    enum hw_status status;

    *count = left < HW_GROUP_PAGES ? left : HW_GROUP_PAGES;
    for (uint32_t i = 0; i < *count; i++) {
        uint8_t *page = worker->group_pages + (size_t)i * worker->page_size;
        uint64_t sum;
        bool from_file;

        if (first + i == lock_page) {
            memset(page, 0, worker->page_size);
            continue;
        }
        status = hw_worker_read_page(capture, first + i, frame, page, &from_file, err);
        if (status == HW_OK)
            status = hw_sums_get(worker->sums, first + i, &sum, err);
        if (status != HW_OK)
            return status;
        if (hw_page_sum(first + i, page, worker->page_size) != sum)
            return hw_fail(err, HW_ECORRUPT, "page %u is not what the log says it is", first + i);
    }
    return HW_OK;
}

static enum hw_status add_group(struct hw_capture *capture, uint32_t group, struct hw_note *note,
                                struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct snapshot_work *work = &worker->snapshot;
    uint64_t seq = hw_core_batch_next(worker->core);
    struct hw_entry_header header = hw_worker_entry(capture, HW_ENTRY_GROUP);
    struct hw_group what = {.page_size = worker->page_size, .group = group, .base_seq = note->seq};
    uint32_t before = 0, after = 0;
    enum hw_status status;

    if (work->dirty[group] == 0) { /* the old image is this state's too */
        work->groups[group].base_seq = note->seq;
        return HW_OK;
    }
    header.time_ms = note->time_ms;
    status = logged_frame(capture, &before, err);
    if (status == HW_OK)
        status = read_group(capture, group, before, &what.page_count, err);
    if (status == HW_ECORRUPT && logged_frame(capture, &after, NULL) == HW_OK && after != before)
        return HW_AGAIN; /* the WAL was restarted while it was read */
    if (status != HW_OK)
        return status;
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, seq, &worker->block);
    status = hw_group_encode(worker->coder, &what, seq, worker->group_pages, &worker->block, err);
    if (status == HW_OK)
        status = hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
    if (status != HW_OK)
        return status;
    work->groups[group] = (struct hw_snapshot_group){.block_seq = seq, .base_seq = note->seq};
    work->bytes += worker->block.size; /* not of log_since: no snapshot is a reason for the next */
    return HW_OK;
}

/* Some groups more, as one batch.  What is taken counts only once the batch is durable. */
static enum hw_status take_groups(struct hw_capture *capture, uint32_t group_count,
                                  struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct snapshot_work *work = &worker->snapshot;
    struct hw_note note = worker->note;
    uint64_t group_bytes = (uint64_t)HW_GROUP_PAGES * worker->page_size;
    uint32_t first = work->next_group, next = first;
    enum hw_status status = grow(work, group_count, err);

    note.time_ms = hw_worker_time(capture); /* of the whole batch: no block is older than another */
    if (status == HW_OK)
        status = hw_core_batch_begin(worker->core, err);
    if (status != HW_OK)
        return status;
    while (status == HW_OK && next < group_count &&
           (next == first || (next - first) * group_bytes < SNAPSHOT_STEP_BYTES))
        status = add_group(capture, next++, &note, err);
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    if (hw_core_batch_bytes(worker->core) == 0)
        hw_core_batch_abort(worker->core); /* all of them are reused */
    else
        status = hw_worker_commit(capture, &note, err);
    if (status != HW_OK)
        return status;
    memset(work->dirty + first, 0, next - first);
    work->next_group = next;
    return HW_OK;
}

static enum hw_status add_index_block(struct hw_capture *capture, const struct hw_snapshot *index,
                                      int64_t time_ms, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    uint64_t seq = hw_core_batch_next(worker->core);
    struct hw_entry_header header = hw_worker_entry(capture, HW_ENTRY_SNAPSHOT);

    header.time_ms = time_ms;
    header.starts = index->first_group == 0;
    header.ends = index->first_group + index->groups_here == index->group_count;
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, seq, &worker->block);
    hw_snapshot_encode(index, seq, worker->snapshot.groups + index->first_group, &worker->block);
    if (worker->block.failed)
        return hw_fail(err, HW_ENOMEM, "no memory for the index of a snapshot");
    return hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
}

static enum hw_status finish(struct hw_capture *capture, uint32_t group_count, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct snapshot_work *work = &worker->snapshot;
    struct hw_note note = worker->note;
    struct hw_snapshot index = {
        .page_size = worker->page_size,
        .page_count = note.page_count,
        .sum = note.sum,
        .least_base = note.seq,
        .greatest_base = note.seq,
        .group_count = group_count,
    };
    enum hw_status status = hw_core_batch_begin(worker->core, err);

    if (status != HW_OK)
        return status;
    for (uint32_t i = 0; i < group_count; i++)
        if (work->groups[i].base_seq < index.least_base)
            index.least_base = work->groups[i].base_seq;
    note.snapshot_seq = hw_core_batch_next(worker->core);
    note.time_ms = hw_worker_time(capture);
    while (index.first_group < group_count && status == HW_OK) {
        uint32_t left = group_count - index.first_group;

        index.groups_here = left < HW_SNAPSHOT_GROUPS_MAX ? left : HW_SNAPSHOT_GROUPS_MAX;
        status = add_index_block(capture, &index, note.time_ms, err);
        index.first_group += index.groups_here;
    }
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    note.log_since -= work->log_at_start;
    note.raw_since -= work->raw_at_start;
    note.snapshot_bytes = work->bytes > note.snapshot_bytes / 2 ? work->bytes : note.snapshot_bytes;
    status = hw_worker_commit(capture, &note, err);
    if (status != HW_OK)
        return status;
    work->active = false;
    work->forced = false;
    hw_env_log(capture->env, HW_LOG_INFO, "event=snapshot db=%s seq=%llu groups=%u bytes=%llu",
               capture->path, (unsigned long long)note.snapshot_seq, group_count,
               (unsigned long long)work->bytes);
    for (uint32_t i = 0; i < work->request_count && i < HW_MAILBOX_SLOTS; i++)
        hw_request_answer(capture, work->requests[i], HW_OK, note.snapshot_seq, NULL);
    work->request_count = 0;
    return HW_OK;
}

enum hw_status hw_snapshot_step(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct snapshot_work *work = &worker->snapshot;
    uint32_t group_count;
    enum hw_status status;

    if (!work->active) {
        if (!hw_snapshot_is_due(worker))
            return HW_END;
        work->active = true;
        work->next_group = 0;
        work->bytes = 0;
        work->log_at_start = worker->note.log_since;
        work->raw_at_start = worker->note.raw_since;
    }
    /* A database that shrank meanwhile: transactions in between build on the groups it had. */
    group_count = groups_in(worker->note.page_count);
    if (group_count < work->next_group)
        group_count = work->next_group;
    if (work->next_group < group_count)
        status = take_groups(capture, group_count, err);
    else
        status = finish(capture, group_count, err);
    if (status < 0 && status != HW_ECORRUPT)
        work->active = false;                    /* begun anew when the log can be written */
    return status == HW_AGAIN ? HW_END : status; /* again after the next commit, as of that */
}
