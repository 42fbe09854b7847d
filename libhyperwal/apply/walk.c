/* Blocks and entries as they lie in the log: hw_entry_next() of apply/apply.h. */
#include <stdio.h>
#include <string.h>

#include "apply/replay.h"

static enum hw_status decode_header(uint64_t seq, const struct hw_buffer *buffer,
                                    struct hw_entry_header *header, struct hw_cursor *body,
                                    struct hw_error *err)
{
    enum hw_status status;

    if (buffer->size == 0)
        return hw_fail(err, HW_ECORRUPT, "block %llu: empty", (unsigned long long)seq);
    *body = hw_cursor(buffer->bytes, buffer->size);
    status = hw_entry_header_decode(body, seq, header);
    if (status == HW_EVERSION)
        return hw_fail(err, status,
                       "block %llu: of a type that this version does not know: upgrade",
                       (unsigned long long)seq);
    if (status != HW_OK)
        return hw_fail(err, status, "block %llu: bad entry header", (unsigned long long)seq);
    return HW_OK;
}

enum hw_status hw_block_read(struct hw_core *core, uint64_t seq, struct hw_buffer *buffer,
                             struct hw_entry_header *header, struct hw_cursor *body,
                             struct hw_error *err)
{
    enum hw_status status = hw_core_read(core, seq, buffer, err);

    return status == HW_OK ? decode_header(seq, buffer, header, body, err) : status;
}

enum hw_status hw_block_peek(struct hw_core *core, uint64_t seq, struct hw_buffer *buffer,
                             struct hw_entry_header *header, struct hw_cursor *body,
                             struct hw_error *err)
{
    enum hw_status status = hw_core_read_head(core, seq, HW_ENTRY_PEEK_SIZE, buffer, err);

    return status == HW_OK ? decode_header(seq, buffer, header, body, err) : status;
}

enum hw_status hw_block_genesis(struct hw_core *core, struct hw_genesis *out, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    struct hw_entry_header header;
    struct hw_cursor body;
    enum hw_status status;

    if (hw_core_length(core) == 0)
        return hw_fail(err, HW_ENOTFOUND, "the log is empty: nothing was captured yet");
    status = hw_block_read(core, 0, &buffer, &header, &body, err);
    if (status != HW_OK)
        goto done;
    status = header.type == HW_ENTRY_GENESIS ? hw_genesis_decode(&body, out) : HW_ECORRUPT;
    if (status == HW_EVERSION)
        status = hw_fail(err, status, "block 0: a newer format of entries: upgrade");
    else if (status != HW_OK)
        status = hw_fail(err, status, "block 0: not the genesis of a hyperwal log");

done:
    hw_buffer_release(&buffer);
    return status;
}

/* What a body's numbers add to the summary of its entry. */
static enum hw_status summary_add(struct hw_core *core, uint32_t page_size, uint64_t seq,
                                  const struct hw_entry_header *header, struct hw_cursor *body,
                                  struct hw_entry_summary *out, struct hw_error *err)
{
    struct hw_transaction transaction = {0};
    struct hw_snapshot snapshot = {0};
    struct hw_group group = {0};
    enum hw_status status = HW_OK;
    uint64_t bytes;

    if (header->type == HW_ENTRY_TRANSACTION) {
        status = hw_transaction_peek(body, page_size, &transaction);
        out->pages += transaction.change_count;
        out->page_count = transaction.page_count;
        out->sum = transaction.sum_after;
    } else if (header->type == HW_ENTRY_GROUP) {
        status = hw_group_peek(body, seq, page_size, &group);
        out->pages += group.page_count;
    } else if (header->type == HW_ENTRY_SNAPSHOT) {
        status = hw_snapshot_peek(body, seq, &snapshot);
        out->page_count = snapshot.page_count;
        out->sum = snapshot.sum;
    }
    if (status != HW_OK)
        return hw_fail(err, status, "block %llu: bad numbers", (unsigned long long)seq);
    status = hw_core_block_size(core, seq, &bytes, err);
    if (status == HW_OK)
        out->bytes += bytes;
    return status;
}

static void summary_add_switch(const struct hw_switch *switch_, struct hw_entry_summary *out)
{
    char key[2 * HW_KEY_SIZE + 1];

    hw_key_format(switch_->key, key);
    out->page_count = switch_->page_count;
    out->sum = switch_->sum;
    out->has_switch = true;
    out->switch_ = *switch_;
    (void)snprintf(out->text, sizeof(out->text), "%s %s at seq %llu of fork %llu",
                   switch_->role == HW_SWITCH_CONTINUES ? "continues" : "continued by", key,
                   (unsigned long long)switch_->seq, (unsigned long long)switch_->fork);
}

/* Small entries are read whole: their texts are longer than what a peek gives. */
static enum hw_status summary_add_small(struct hw_core *core, uint64_t seq,
                                        struct hw_entry_summary *out, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    struct hw_entry_header header;
    struct hw_genesis genesis;
    struct hw_cursor body;
    struct hw_label label;
    struct hw_switch switch_;
    struct hw_gap gap;
    enum hw_status status = hw_block_read(core, seq, &buffer, &header, &body, err);

    if (status != HW_OK)
        goto done;
    if (header.type == HW_ENTRY_GENESIS) {
        status = hw_genesis_decode(&body, &genesis);
        if (status == HW_OK) {
            out->page_count = genesis.page_count;
            out->sum = genesis.sum;
        }
    } else if (header.type == HW_ENTRY_LABEL) {
        status = hw_label_decode(&body, &label);
        if (status == HW_OK)
            memcpy(out->text, label.name, sizeof(label.name));
    } else if (header.type == HW_ENTRY_GAP) {
        status = hw_gap_decode(&body, &gap);
        if (status == HW_OK) {
            out->page_count = gap.to_page_count;
            out->sum = gap.to_sum;
            memcpy(out->text, gap.reason, sizeof(gap.reason));
        }
    } else if (header.type == HW_ENTRY_SWITCH) {
        status = hw_switch_decode(&body, &switch_);
        if (status == HW_OK)
            summary_add_switch(&switch_, out);
    }
    if (status != HW_OK)
        status = hw_fail(err, status, "block %llu: bad body", (unsigned long long)seq);

done:
    hw_buffer_release(&buffer);
    return status;
}

static bool is_small(enum hw_entry_type type)
{
    return type == HW_ENTRY_GENESIS || type == HW_ENTRY_LABEL || type == HW_ENTRY_GAP ||
           type == HW_ENTRY_SWITCH;
}

/* The block that starts the entry of block *seq. */
static enum hw_status entry_start(struct hw_core *core, uint64_t *seq, struct hw_buffer *buffer,
                                  struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_cursor body;
    enum hw_status status = hw_block_peek(core, *seq, buffer, &header, &body, err);

    while (status == HW_OK && !header.starts) {
        if (*seq == 0)
            return hw_fail(err, HW_ECORRUPT, "block 0: continues an entry");
        --*seq;
        status = hw_block_peek(core, *seq, buffer, &header, &body, err);
    }
    return status;
}

/* From the first block of an entry to its last.  HW_END: the log ends within it. */
static enum hw_status entry_sum_up(struct hw_core *core, uint32_t page_size, uint64_t first,
                                   struct hw_buffer *buffer, struct hw_entry_summary *out,
                                   struct hw_error *err)
{
    enum hw_status status = HW_OK;
    struct hw_cursor body;

    *out = (struct hw_entry_summary){.first_seq = first, .seq = first};
    while (true) {
        struct hw_entry_header header;

        if (out->seq >= hw_core_length(core))
            return HW_END;
        status = hw_block_peek(core, out->seq, buffer, &header, &body, err);
        if (status != HW_OK)
            return status;
        if (header.starts != (out->seq == first) ||
            (out->seq > first && header.type != out->header.type))
            return hw_fail(err, HW_ECORRUPT, "block %llu: does not continue its entry",
                           (unsigned long long)out->seq);
        out->header = header;
        status = summary_add(core, page_size, out->seq, &header, &body, out, err);
        if (status == HW_OK && is_small(header.type))
            status = summary_add_small(core, out->seq, out, err);
        if (status != HW_OK || header.ends)
            break;
        out->seq++;
    }
    out->raw_bytes = (uint64_t)out->pages * page_size;
    return status;
}

enum hw_status hw_entry_next(struct hw_core *core, uint64_t *seq, struct hw_entry_summary *out,
                             struct hw_error *err)
{
    struct hw_entry_summary summary;
    struct hw_buffer buffer = {0};
    struct hw_genesis genesis;
    uint64_t first = *seq;
    enum hw_status status;

    if (*seq >= hw_core_length(core))
        return HW_END;
    status = hw_block_genesis(core, &genesis, err);
    if (status == HW_OK)
        status = entry_start(core, &first, &buffer, err);
    if (status == HW_OK)
        status = entry_sum_up(core, genesis.page_size, first, &buffer, &summary, err);
    if (status == HW_OK && summary.seq < *seq) /* that one ended before: the caller would turn */
        status =
            hw_fail(err, HW_ECORRUPT, "block %llu: continues no entry", (unsigned long long)*seq);
    if (status == HW_OK) {
        *out = summary;
        *seq = summary.seq + 1;
    } else if (hw_block_is_absent(status)) {
        ++*seq;
    }
    hw_buffer_release(&buffer);
    return status;
}

uint64_t hw_entry_last(struct hw_core *core)
{
    struct hw_buffer byte = {0};
    uint64_t seq = hw_core_length(core) - 1; /* UINT64_MAX for an empty log */

    if (hw_core_is_mirror(core)) {
        while (seq != UINT64_MAX && hw_core_read_head(core, seq, 1, &byte, NULL) == HW_EMISSING)
            seq--;
    }
    hw_buffer_release(&byte);
    return seq;
}
