/* The beginning of a log that continues another one: hw_capture_begin_log(). */
#include <assert.h>

#include "capture/internal.h"

static enum hw_status add(struct hw_core *core, enum hw_entry_type type, int64_t time_ms,
                          const struct hw_buffer *body, struct hw_error *err)
{
    struct hw_entry_header header = {.type = type,
                                     .starts = true,
                                     .ends = true,
                                     .time_ms = time_ms,
                                     .snapshot_seq = UINT64_MAX,
                                     .label_seq = UINT64_MAX};
    struct hw_buffer block = {0};
    enum hw_status status;

    hw_entry_header_encode(&header, hw_core_batch_next(core), &block);
    hw_buffer_add(&block, body->bytes, body->size);
    if (body->failed || block.failed)
        status = hw_fail(err, HW_ENOMEM, "no memory for the first entries of a log");
    else
        status = hw_core_batch_add(core, block.bytes, block.size, err);
    hw_buffer_release(&block);
    return status;
}

static enum hw_status commit(struct hw_core *core, const struct hw_beginning *begin,
                             struct hw_error *err)
{
    struct hw_note note = {.at = begin->at,
                           .page_count = begin->genesis.page_count,
                           .sum = begin->genesis.sum,
                           .seq = 0,
                           .snapshot_seq = UINT64_MAX,
                           .label_seq = UINT64_MAX,
                           .log_since = HW_SNAPSHOT_NEEDED,
                           .time_ms = begin->time_ms};
    struct hw_buffer bytes = {0};
    enum hw_status status;

    hw_note_encode(&note, &bytes);
    if (bytes.failed)
        status = hw_fail(err, HW_ENOMEM, "no memory for the note of a log");
    else
        status = hw_core_batch_commit(core, bytes.bytes, bytes.size, err);
    hw_buffer_release(&bytes);
    return status;
}

enum hw_status hw_capture_begin_log(struct hw_core *core, const struct hw_beginning *begin,
                                    struct hw_error *err)
{
    struct hw_buffer body = {0};
    enum hw_status status;

    assert(hw_core_length(core) == 0 && begin->from.role == HW_SWITCH_CONTINUES);
    assert(begin->genesis.sum == begin->from.sum);
    status = hw_core_batch_begin(core, err);
    if (status != HW_OK)
        return status;
    hw_genesis_encode(&begin->genesis, &body);
    status = add(core, HW_ENTRY_GENESIS, begin->time_ms, &body, err);
    hw_buffer_clear(&body);
    hw_switch_encode(&begin->from, &body);
    if (status == HW_OK)
        status = add(core, HW_ENTRY_SWITCH, begin->time_ms, &body, err);
    if (status == HW_OK)
        status = commit(core, begin, err);
    if (status != HW_OK)
        hw_core_batch_abort(core);
    hw_buffer_release(&body);
    return status;
}
