/* What other threads and processes ask of the worker: labels, snapshots, pruning. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

void hw_request_answer(struct hw_capture *capture, uint64_t mail, enum hw_status status,
                       uint64_t result, const struct hw_error *failure)
{
    struct hw_answer answer = {.status = status, .result = result};

    if (failure != NULL && status != HW_OK) {
        size_t size = strnlen(failure->message, sizeof(answer.text) - 1);

        memcpy(answer.text, failure->message, size);
    }
    hw_mailbox_answer(capture->shared, mail, &answer);
}

static enum hw_status add_label(struct hw_capture *capture, const char *name, uint64_t *seq,
                                struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_entry_header header = hw_worker_entry(capture, HW_ENTRY_LABEL);
    struct hw_note note = worker->note;
    struct hw_label label = {0};
    enum hw_status status = hw_core_batch_begin(worker->core, err);

    if (status != HW_OK)
        return status;
    memcpy(label.name, name, strnlen(name, HW_LABEL_SIZE_MAX));
    note.label_seq = hw_core_batch_next(worker->core);
    note.time_ms = header.time_ms;
    hw_buffer_clear(&worker->block);
    hw_entry_header_encode(&header, note.label_seq, &worker->block);
    hw_label_encode(&label, &worker->block);
    if (worker->block.failed)
        status = hw_fail(err, HW_ENOMEM, "no memory for a label");
    else
        status = hw_core_batch_add(worker->core, worker->block.bytes, worker->block.size, err);
    if (status != HW_OK) {
        hw_core_batch_abort(worker->core);
        return status;
    }
    note.log_since += worker->block.size;
    status = hw_worker_commit(capture, &note, err);
    *seq = note.label_seq;
    return status;
}

/* ----------------------------------------------------------------------------------- prune */

enum { SWITCH_SEQ = 1 };

/*
 * What has to stay: everything from `first` on, block 0, and the blocks in `listed`; and the switch
 * that says which log this one goes on from, by which followers of that one know it.
 */
struct keep {
    uint64_t oldest_base; /* last block of the entry whose state the oldest snapshot begins with */
    uint64_t first;       /* block of that entry: what a state is, its entry says */
    uint64_t *listed;     /* owned, ascending once complete */
    size_t count, capacity;
    bool has_switch;
};

static bool keep_block(void *ctx, uint64_t index)
{
    const struct keep *keep = ctx;
    size_t low = 0, high = keep->count;

    if (index == 0 || index >= keep->first || (index == SWITCH_SEQ && keep->has_switch))
        return true;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (keep->listed[middle] < index)
            low = middle + 1;
        else
            high = middle;
    }
    return low < keep->count && keep->listed[low] == index;
}

static enum hw_status keep_list(struct keep *keep, uint64_t seq, struct hw_error *err)
{
    if (keep->count == keep->capacity) {
        size_t capacity = keep->capacity == 0 ? 256 : 2 * keep->capacity;
        uint64_t *listed = hw_realloc(keep->listed, capacity * sizeof(*listed));

        if (listed == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory for the list of blocks to keep");
        keep->listed = listed;
        keep->capacity = capacity;
    }
    keep->listed[keep->count++] = seq;
    return HW_OK;
}

/* One block of the index of the snapshot at `seq`: list its groups' blocks.  *ends: it is the
 * last. */
static enum hw_status keep_snapshot_block(struct hw_capture *capture, struct keep *keep,
                                          uint64_t seq, struct hw_snapshot_group *groups,
                                          struct hw_snapshot *index, uint64_t *older, bool *ends,
                                          struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_entry_header header;
    struct hw_cursor cursor;
    enum hw_status status = hw_core_read(worker->core, seq, &worker->block, err);

    if (status != HW_OK)
        return status;
    cursor = hw_cursor(worker->block.bytes, worker->block.size);
    status = hw_entry_header_decode(&cursor, seq, &header);
    if (status == HW_OK && header.type != HW_ENTRY_SNAPSHOT)
        status = HW_ECORRUPT;
    if (status == HW_OK)
        status = hw_snapshot_decode(&cursor, seq, index, groups);
    if (status != HW_OK)
        return hw_fail(err, status, "block %llu is not the index of a snapshot",
                       (unsigned long long)seq);
    for (uint32_t i = 0; i < index->groups_here && status == HW_OK; i++)
        status = keep_list(keep, groups[i].block_seq, err);
    *older = header.snapshot_seq;
    *ends = header.ends;
    return status;
}

static int compare_seqs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The state of the oldest base is there only with its whole entry. */
static enum hw_status keep_entry(struct hw_capture *capture, struct keep *keep,
                                 struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    enum hw_status status = HW_OK;

    keep->first = keep->oldest_base;
    while (keep->first > 0) {
        struct hw_entry_header header;
        struct hw_cursor cursor;

        status = hw_core_read(worker->core, keep->first, &worker->block, err);
        if (status == HW_EPRUNED) { /* by an older version, that did not keep it */
            keep->first = keep->oldest_base + 1;
            return HW_OK;
        }
        if (status != HW_OK)
            return status;
        cursor = hw_cursor(worker->block.bytes, worker->block.size);
        status = hw_entry_header_decode(&cursor, keep->first, &header);
        if (status != HW_OK)
            return hw_fail(err, status, "block %llu is not an entry",
                           (unsigned long long)keep->first);
        if (header.starts)
            break;
        keep->first--;
    }
    return status;
}

static enum hw_status keep_switch(struct hw_capture *capture, struct keep *keep,
                                  struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_entry_header header;
    struct hw_cursor cursor;
    enum hw_status status = HW_END;

    if (hw_core_length(worker->core) > SWITCH_SEQ)
        status = hw_core_read(worker->core, SWITCH_SEQ, &worker->block, err);
    if (status != HW_OK) /* an earlier pruning gave it up: of an older version, or it is none */
        return status == HW_END || status == HW_EPRUNED ? HW_OK : status;
    cursor = hw_cursor(worker->block.bytes, worker->block.size);
    status = hw_entry_header_decode(&cursor, SWITCH_SEQ, &header);
    if (status != HW_OK)
        return hw_fail(err, status, "block %d is not an entry", SWITCH_SEQ);
    keep->has_switch = header.type == HW_ENTRY_SWITCH;
    return HW_OK;
}

/* Walk the snapshots from the newest back to the one that serves `from_seq`. */
static enum hw_status plan(struct hw_capture *capture, uint64_t from_seq, struct keep *keep,
                           struct hw_error *err)
{
    struct hw_snapshot_group *groups = hw_alloc(HW_SNAPSHOT_GROUPS_MAX * sizeof(*groups));
    uint64_t seq = capture->worker.note.snapshot_seq;
    struct hw_snapshot index = {0};
    enum hw_status status = HW_OK;

    if (groups == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to read a snapshot's index");
    while (seq != UINT64_MAX) {
        uint64_t older = UINT64_MAX;
        bool ends = false;

        for (uint64_t block = seq; !ends && status == HW_OK; block++) {
            uint64_t before = UINT64_MAX;

            status = keep_snapshot_block(capture, keep, block, groups, &index, &before, &ends, err);
            if (block == seq)
                older = before;
        }
        if (status != HW_OK)
            break;
        keep->oldest_base = index.least_base;
        if (index.greatest_base <= from_seq)
            break;
        seq = older;
        if (seq != UINT64_MAX &&
            hw_core_read(capture->worker.core, seq, &capture->worker.block, NULL) == HW_EPRUNED)
            break; /* an earlier pruning went as far */
    }
    if (status == HW_OK && (seq == UINT64_MAX || index.greatest_base > from_seq))
        keep->oldest_base = 0; /* no snapshot serves it: all is needed */
    if (status == HW_OK)
        status = keep_entry(capture, keep, err);
    if (status == HW_OK)
        status = keep_switch(capture, keep, err);
    if (keep->count > 0)
        qsort(keep->listed, keep->count, sizeof(*keep->listed), compare_seqs);
    hw_free(groups);
    return status;
}

static enum hw_status prune(struct hw_capture *capture, uint64_t from_seq, bool dry_run,
                            uint64_t *freed, struct hw_error *err)
{
    struct hw_core *core = capture->worker.core;
    struct keep keep = {0};
    enum hw_status status;

    *freed = 0;
    if (from_seq >= hw_core_length(core))
        return hw_fail(err, HW_ENOTFOUND, "seq %llu does not exist: the log has 0..%llu",
                       (unsigned long long)from_seq, (unsigned long long)hw_core_length(core) - 1);
    status = plan(capture, from_seq, &keep, err);
    if (status == HW_OK && keep.first > 0)
        status = hw_core_prune(core, keep_block, &keep, dry_run, freed, err);
    hw_free(keep.listed);
    return status;
}

enum hw_status hw_request_step(struct hw_capture *capture, struct hw_error *err)
{
    struct hw_request request;
    uint64_t result = 0;
    uint64_t mail;
    enum hw_status status = hw_mailbox_take(capture->shared, &request, &mail);

    if (status != HW_OK)
        return HW_END;
    switch ((enum request_kind)request.kind) {
    case REQUEST_LABEL:
        status = add_label(capture, request.text, &result, err);
        break;
    case REQUEST_SNAPSHOT:
        /* One in the making will do: it ends with the state that it finds at its end. */
        hw_snapshot_await(&capture->worker, mail);
        return HW_OK; /* answered when it is durable */
    case REQUEST_HANDOVER:
        status = hw_handover_begin(capture, mail, &request, err);
        if (status == HW_OK)
            return HW_OK; /* answered when it is done */
        break;
    case REQUEST_PRUNE:
    case REQUEST_PRUNE_DRY:
        status = prune(capture, request.argument, request.kind == REQUEST_PRUNE_DRY, &result, err);
        break;
    default:
        status = hw_fail(err, HW_EVERSION, "a request of unknown kind %u", request.kind);
        break;
    }
    hw_request_answer(capture, mail, status, result, err);
    /* The asker has the failure.  Only one that says something of the log itself is ours too. */
    return status == HW_EIO || status == HW_ENOSPC || status == HW_EBROKEN ? status : HW_OK;
}
