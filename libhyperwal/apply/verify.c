/*
 * Deep verification: hw_verify_deep() of apply/apply.h.
 *
 * Two passes.  The first goes over the numbers of all blocks that are kept: entries are whole,
 * times do not go back, back references are right, and each state sum continues the one before it,
 * from genesis and across gaps.  The second replays, from the first snapshot of each stretch
 * between gaps, all that follows into a scratch file; every page group and every index on the way
 * is compared with the state reached.
 */
#include <string.h>

#include "apply/replay.h"
#include "base/alloc.h"

struct verify {
    struct hw_env *env;   /* borrowed */
    struct hw_core *core; /* borrowed */
    uint64_t first, length;
    hw_progress *progress; /* may be NULL */
    void *progress_ctx;
    struct hw_genesis genesis;
    struct hw_buffer buffer; /* owned */
};

/* Told in blocks of both passes. */
static enum hw_status advance(struct verify *verify, uint64_t pass, uint64_t seq,
                              struct hw_error *err)
{
    uint64_t count = verify->length - verify->first;

    if (verify->progress == NULL ||
        verify->progress(verify->progress_ctx, pass * count + (seq + 1 - verify->first), 2 * count))
        return HW_OK;
    return hw_fail(err, HW_AGAIN, "stopped");
}

/* ----------------------------------------------------------------------------- pass 1: numbers */

struct chain {
    int64_t time_ms;
    uint64_t snapshot_seq, label_seq; /* newest; known once `linked` */
    uint64_t index_start;
    bool linked;
    bool in_entry;
    enum hw_entry_type type;
    bool summed; /* `sum` and page_count are those of the last state */
    bool ended;  /* by a switch to another log */
    uint64_t sum;
    uint32_t page_count;
};

static enum hw_status wrong(uint64_t seq, const char *what, struct hw_error *err)
{
    return hw_fail(err, HW_ECORRUPT, "seq %llu: %s", (unsigned long long)seq, what);
}

static enum hw_status chain_header(struct chain *chain, uint64_t seq,
                                   const struct hw_entry_header *header, struct hw_error *err)
{
    if (chain->ended)
        return wrong(seq, "the log ended with the switch before it", err);
    if (header->time_ms < chain->time_ms)
        return wrong(seq, "its time is before that of the block before", err);
    if (header->starts == chain->in_entry || (chain->in_entry && header->type != chain->type))
        return wrong(seq, "does not continue its entry", err);
    if (chain->linked && header->snapshot_seq != chain->snapshot_seq)
        return wrong(seq, "does not name the newest snapshot", err);
    if (chain->linked && header->label_seq != chain->label_seq)
        return wrong(seq, "does not name the newest label", err);
    if (header->starts)
        chain->index_start = seq;
    chain->linked = true;
    chain->snapshot_seq = header->snapshot_seq;
    chain->label_seq = header->label_seq;
    chain->time_ms = header->time_ms;
    chain->in_entry = !header->ends;
    chain->type = header->type;
    if (header->type == HW_ENTRY_SNAPSHOT && header->ends)
        chain->snapshot_seq = chain->index_start;
    if (header->type == HW_ENTRY_LABEL)
        chain->label_seq = seq;
    return HW_OK;
}

static enum hw_status chain_transaction(struct chain *chain, uint32_t page_size, uint64_t seq,
                                        struct hw_cursor *body, struct hw_error *err)
{
    struct hw_transaction transaction;

    if (hw_transaction_peek(body, page_size, &transaction) != HW_OK)
        return wrong(seq, "bad numbers of a transaction", err);
    if (chain->summed && transaction.sum_before != chain->sum)
        return wrong(seq, "its state sum does not continue that of the transaction before", err);
    chain->summed = true;
    chain->sum = transaction.sum_after;
    chain->page_count = transaction.page_count;
    return HW_OK;
}

/* The index says what state its groups and the entries make: was that the state then? */
static enum hw_status chain_snapshot(struct verify *verify, uint64_t seq, struct hw_cursor *body,
                                     struct hw_error *err)
{
    struct hw_snapshot snapshot;
    struct hw_state state;
    enum hw_status status;

    if (hw_snapshot_peek(body, seq, &snapshot) != HW_OK)
        return wrong(seq, "bad numbers of a snapshot", err);
    if (snapshot.page_size != verify->genesis.page_size)
        return wrong(seq, "a snapshot of another page size", err);
    status = hw_state_at(verify->core, snapshot.greatest_base, &state, err);
    if (hw_block_is_absent(status))
        return HW_OK; /* its entry is not kept: the replay checks the pages themselves */
    if (status == HW_OK && (state.sum != snapshot.sum || state.page_count != snapshot.page_count))
        return wrong(seq, "its state sum is not that of the state it was taken from", err);
    return status;
}

static enum hw_status chain_gap(struct chain *chain, uint64_t seq, struct hw_cursor *body,
                                struct hw_error *err)
{
    struct hw_gap gap;

    if (hw_gap_decode(body, &gap) != HW_OK)
        return wrong(seq, "bad gap", err);
    if (chain->summed && (gap.from_sum != chain->sum || gap.from_page_count != chain->page_count))
        return wrong(seq, "the gap does not begin at the state before it", err);
    chain->summed = true;
    chain->sum = gap.to_sum;
    chain->page_count = gap.to_page_count;
    return HW_OK;
}

static enum hw_status chain_switch(struct chain *chain, uint64_t seq, struct hw_cursor *body,
                                   struct hw_error *err)
{
    struct hw_switch switch_;

    if (hw_switch_decode(body, &switch_) != HW_OK)
        return wrong(seq, "bad switch", err);
    if (switch_.role == HW_SWITCH_CONTINUES && seq != 1)
        return wrong(seq, "a switch from another log that is not behind the genesis", err);
    if (switch_.role == HW_SWITCH_CONTINUED && switch_.seq >= seq)
        return wrong(seq, "a switch at a state that is not before it", err);
    if (chain->summed && (switch_.sum != chain->sum || switch_.page_count != chain->page_count))
        return wrong(seq, "the switch is not at the state before it", err);
    chain->ended = switch_.role == HW_SWITCH_CONTINUED;
    return HW_OK;
}

static enum hw_status chain_block(struct verify *verify, struct chain *chain, uint64_t seq,
                                  struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_cursor body;
    struct hw_label label;
    enum hw_status status;

    /* Whole, for it is to be proven that it can be read; the replay does the same a second time. */
    status = hw_block_read(verify->core, seq, &verify->buffer, &header, &body, err);
    if (status != HW_OK)
        return status;
    status = chain_header(chain, seq, &header, err);
    if (status != HW_OK)
        return status;
    switch (header.type) {
    case HW_ENTRY_GENESIS:
        if (seq != 0)
            return wrong(seq, "a second genesis", err);
        chain->summed = true;
        chain->sum = verify->genesis.sum;
        chain->page_count = verify->genesis.page_count;
        return HW_OK;
    case HW_ENTRY_TRANSACTION:
        return chain_transaction(chain, verify->genesis.page_size, seq, &body, err);
    case HW_ENTRY_SNAPSHOT:
        return chain_snapshot(verify, seq, &body, err);
    case HW_ENTRY_LABEL:
        return hw_label_decode(&body, &label) == HW_OK ? HW_OK : wrong(seq, "bad label", err);
    case HW_ENTRY_GAP:
        return chain_gap(chain, seq, &body, err);
    case HW_ENTRY_SWITCH:
        return chain_switch(chain, seq, &body, err);
    case HW_ENTRY_GROUP:
        break;
    }
    return HW_OK;
}

static enum hw_status check_chain(struct verify *verify, struct hw_error *err)
{
    struct chain chain = {0};
    enum hw_status status = HW_OK;

    for (uint64_t seq = verify->first; status == HW_OK && seq < verify->length; seq++) {
        status = chain_block(verify, &chain, seq, err);
        if (status == HW_OK)
            status = advance(verify, 0, seq, err);
    }
    if (status == HW_OK && chain.in_entry)
        status = wrong(verify->length - 1, "the log ends within an entry", err);
    return status;
}

/* --------------------------------------------------------------------- pass 2: a scratch file */

struct scratch {
    struct hw_file *file; /* owned */
    uint32_t page_size;
};

static enum hw_status scratch_read(void *ctx, uint32_t page_number, void *content,
                                   struct hw_error *err)
{
    struct scratch *scratch = ctx;
    enum hw_status status = scratch->file->env->ops->read_at(
        scratch->file, (uint64_t)(page_number - 1) * scratch->page_size, content,
        scratch->page_size, err);

    return status == HW_END ? HW_OK : status; /* beyond the end are zeros */
}

static enum hw_status scratch_write(void *ctx, uint32_t page_number, const void *content,
                                    struct hw_error *err)
{
    struct scratch *scratch = ctx;

    return scratch->file->env->ops->write_at(scratch->file,
                                             (uint64_t)(page_number - 1) * scratch->page_size,
                                             content, scratch->page_size, err);
}

static enum hw_status scratch_cut(void *ctx, uint32_t page_count, struct hw_error *err)
{
    struct scratch *scratch = ctx;

    return scratch->file->env->ops->truncate(scratch->file,
                                             (uint64_t)page_count * scratch->page_size, err);
}

/* ------------------------------------------------------------- pass 2: groups against the state */

/*
 * Bit i: page i of the group was changed by an entry in (base, before), or may have been by one
 * that was given up.
 */
static enum hw_status changed_since(struct verify *verify, uint32_t group, uint64_t base,
                                    uint64_t before, uint64_t *out, struct hw_error *err)
{
    struct hw_transaction_decoder *decoder = NULL;
    enum hw_status status = hw_transaction_decoder_new(&decoder, err);

    *out = base + 1 < verify->first ? UINT64_MAX : 0;
    for (uint64_t seq = base + 1; *out != UINT64_MAX && status == HW_OK && seq < before; seq++) {
        struct hw_transaction transaction = {0};
        struct hw_entry_header header;
        struct hw_cursor body;

        status = hw_block_read(verify->core, seq, &verify->buffer, &header, &body, err);
        if (status != HW_OK || header.type != HW_ENTRY_TRANSACTION)
            continue;
        status =
            hw_transaction_decode(decoder, &body, verify->genesis.page_size, &transaction, err);
        for (uint32_t i = 0; status == HW_OK && i < transaction.change_count; i++) {
            bool needed;
            uint32_t page = hw_transaction_page(decoder, i, &needed) - 1;

            if (page / HW_GROUP_PAGES == group)
                *out |= UINT64_C(1) << page % HW_GROUP_PAGES;
        }
    }
    hw_transaction_decoder_free(decoder);
    return status;
}

/*
 * The images in replay->group_pages are those of a state at `base`; the replay has just come to
 * block `now`.  Pages that differ must have been changed in between.
 */
static enum hw_status compare_group(struct verify *verify, struct hw_replay *replay, uint32_t group,
                                    uint32_t page_count, uint64_t base, uint64_t now,
                                    struct hw_error *err)
{
    uint64_t changed = 0;
    bool known = false;

    for (uint32_t i = 0; i < page_count; i++) {
        uint64_t page_number = (uint64_t)group * HW_GROUP_PAGES + i + 1;
        const uint8_t *image = replay->group_pages + (size_t)i * replay->page_size;
        enum hw_status status;

        if (page_number > replay->page_count)
            break; /* the database has shrunk since */
        if (hw_entry_is_lock_page((uint32_t)page_number, replay->page_size))
            continue;
        status = replay->pages.read(replay->pages.ctx, (uint32_t)page_number, replay->page, err);
        if (status != HW_OK)
            return status;
        if (memcmp(image, replay->page, replay->page_size) == 0)
            continue;
        if (!known) {
            status = changed_since(verify, group, base, now, &changed, err);
            if (status != HW_OK)
                return status;
            known = true;
        }
        if ((changed >> i & 1) == 0)
            return hw_fail(err, HW_ECORRUPT,
                           "seq %llu: page %llu in a group of the state at seq %llu is not that of "
                           "the transactions",
                           (unsigned long long)now, (unsigned long long)page_number,
                           (unsigned long long)base);
    }
    return HW_OK;
}

static enum hw_status check_group(struct verify *verify, struct hw_replay *replay, uint64_t seq,
                                  struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_cursor body;
    struct hw_group group;
    enum hw_status status;

    status = hw_block_read(verify->core, seq, &verify->buffer, &header, &body, err);
    if (status == HW_OK)
        status = hw_group_decode(replay->coder, &body, seq, replay->page_size, &group,
                                 replay->group_pages, err);
    if (status != HW_OK)
        return hw_prefix(err, status, "seq %llu", (unsigned long long)seq);
    return compare_group(verify, replay, group.group, group.page_count, group.base_seq, seq, err);
}

/*
 * Groups with a base of their own were compared when they came by; those that an index lists again
 * with a newer base are compared here.
 */
static enum hw_status check_index(struct verify *verify, struct hw_replay *replay, uint64_t seq,
                                  struct hw_error *err)
{
    struct hw_replay_plan listed = {.genesis = verify->genesis};
    const struct hw_replay_plan *own = replay->plan;
    enum hw_status status = hw_replay_plan_snapshot(verify->core, seq, &listed, err);

    replay->plan = &listed; /* whose groups hw_replay_group_read() is to read */
    for (uint32_t group = 0; status == HW_OK && group < listed.snapshot.group_count; group++) {
        const struct hw_snapshot_group *entry = &listed.groups[group];
        struct hw_entry_header header;
        struct hw_group numbers;
        struct hw_cursor body;
        uint32_t page_count;

        status =
            hw_block_peek(verify->core, entry->block_seq, &verify->buffer, &header, &body, err);
        if (status != HW_OK)
            break;
        if (header.type != HW_ENTRY_GROUP ||
            hw_group_peek(&body, entry->block_seq, replay->page_size, &numbers) != HW_OK ||
            numbers.group != group || numbers.base_seq > entry->base_seq) {
            status = wrong(seq, "lists a block that is not the group it says", err);
            break;
        }
        if (numbers.base_seq == entry->base_seq)
            continue;
        status = hw_replay_group_read(replay, group, &page_count, err);
        if (status == HW_OK)
            status = compare_group(verify, replay, group, page_count, entry->base_seq, seq, err);
    }
    replay->plan = own;
    hw_replay_plan_release(&listed);
    return status;
}

/* ------------------------------------------------------------------------ pass 2: the stretches */

/* Are all groups there that the index lists? */
static enum hw_status is_whole(struct verify *verify, uint64_t index_seq, bool *out,
                               struct hw_error *err)
{
    struct hw_replay_plan listed = {.genesis = verify->genesis};
    enum hw_status status = hw_replay_plan_snapshot(verify->core, index_seq, &listed, err);

    if (status == HW_OK)
        status = hw_replay_plan_check(verify->core, &listed, err);
    hw_replay_plan_release(&listed);
    *out = !hw_block_is_absent(status);
    return *out ? status : HW_OK;
}

/*
 * The first snapshot in blocks [from, ...) of states at or after `from`.  Of one older than those
 * that pruning kept the index may be there, among the entries that are kept, without its groups.
 * HW_END: there is none.
 */
static enum hw_status find_start(struct verify *verify, uint64_t *from, uint64_t *index_seq,
                                 struct hw_error *err)
{
    uint64_t broken = UINT64_MAX;

    for (uint64_t seq = *from; seq < verify->length; seq++) {
        struct hw_entry_header header;
        struct hw_snapshot snapshot;
        struct hw_cursor body;
        bool whole = true;
        enum hw_status status =
            hw_block_peek(verify->core, seq, &verify->buffer, &header, &body, err);

        if (status != HW_OK)
            return status;
        if (header.type == HW_ENTRY_GAP)
            *from = seq; /* what lies before cannot be replayed */
        if (header.type != HW_ENTRY_SNAPSHOT || !header.starts)
            continue;
        if (hw_snapshot_peek(&body, seq, &snapshot) != HW_OK)
            return wrong(seq, "bad numbers of a snapshot", err);
        /* The base of the oldest snapshot kept may be the entry before the first that is kept. */
        if (snapshot.least_base + (*from == verify->first) < *from)
            continue;
        *index_seq = seq;
        status = is_whole(verify, seq, &whole, err);
        if (status != HW_OK || whole)
            return status;
        broken = seq;
    }
    if (broken != UINT64_MAX && !hw_core_is_mirror(verify->core))
        return wrong(broken, "lists blocks that were pruned, and no snapshot that is whole follows",
                     err);
    return HW_END;
}

/* Progress is told in blocks, and groups are blocks that come by later. */
static enum hw_status no_advance(void *ctx, uint64_t bytes, struct hw_error *err)
{
    (void)ctx;
    (void)bytes;
    (void)err;
    return HW_OK;
}

/* Block next_seq, with what it says about the state before it compared first.  HW_END: a gap. */
static enum hw_status check_block(struct verify *verify, struct hw_replay *replay,
                                  struct hw_error *err)
{
    uint64_t seq = replay->next_seq;
    struct hw_entry_header header;
    struct hw_cursor body;
    enum hw_status status;

    status = hw_block_peek(verify->core, seq, &verify->buffer, &header, &body, err);
    if (status == HW_OK && header.type == HW_ENTRY_GAP)
        return HW_END;
    if (status == HW_OK && replay->exact && header.type == HW_ENTRY_GROUP)
        status = check_group(verify, replay, seq, err);
    /* Those before the one that the replay began with are not kept. */
    if (status == HW_OK && replay->exact && header.type == HW_ENTRY_SNAPSHOT && header.starts &&
        (replay->plan->from_empty || seq > replay->plan->index_seq))
        status = check_index(verify, replay, seq, err);
    if (status == HW_OK)
        status = hw_replay_block(replay, err);
    return status == HW_OK ? advance(verify, 1, seq, err) : status;
}

/* Replay from the plan's start to the next gap or the end; *next is the block there. */
static enum hw_status check_stretch(struct verify *verify, const struct hw_replay_plan *plan,
                                    uint64_t *next, struct hw_error *err)
{
    struct scratch scratch = {.page_size = plan->genesis.page_size};
    struct hw_replay_pages pages = {&scratch, scratch_read, scratch_write, scratch_cut};
    struct hw_replay replay = {0};
    enum hw_status status = hw_replay_init(&replay, verify->core, plan, &pages, true, err);

    if (status == HW_OK)
        status = hw_replay_scratch(verify->env, &scratch.file, err);
    if (status == HW_OK)
        status = hw_replay_groups(&replay, scratch.file, no_advance, NULL, err);
    while (status == HW_OK && replay.next_seq < verify->length)
        status = check_block(verify, &replay, err);
    if (status == HW_END)
        status = HW_OK;
    if (status == HW_OK)
        status = hw_replay_settle(&replay, err);
    *next = replay.next_seq;
    if (scratch.file != NULL)
        verify->env->ops->close(scratch.file);
    hw_replay_release(&replay);
    return status;
}

static enum hw_status check_content(struct verify *verify, struct hw_error *err)
{
    uint64_t from = verify->first;
    enum hw_status status = HW_OK;

    while (status == HW_OK && from < verify->length) {
        struct hw_replay_plan plan = {.genesis = verify->genesis, .index_seq = UINT64_MAX};

        if (from == 0 && verify->genesis.page_count == 0) {
            plan.from_empty = true;
            plan.first_seq = 1;
        } else {
            uint64_t index_seq = 0;

            status = find_start(verify, &from, &index_seq, err);
            if (status == HW_OK)
                status = hw_replay_plan_snapshot(verify->core, index_seq, &plan, err);
        }
        if (status == HW_OK)
            status = check_stretch(verify, &plan, &from, err);
        hw_replay_plan_release(&plan);
    }
    return status == HW_END ? HW_OK : status; /* no snapshot follows: nothing to replay */
}

/* Of a mirror nobody knows what was pruned elsewhere: the first block after the last absent one. */
static enum hw_status tail_start(struct hw_core *core, uint64_t *first, struct hw_error *err)
{
    struct hw_buffer byte = {0};
    uint64_t seq = hw_core_length(core);
    enum hw_status status = HW_OK;

    while (status == HW_OK && seq > 0)
        status = hw_core_read_head(core, --seq, 1, &byte, err);
    hw_buffer_release(&byte);
    *first = hw_block_is_absent(status) ? seq + 1 : seq;
    if (hw_block_is_absent(status) && seq + 1 < hw_core_length(core))
        return HW_OK;
    return status;
}

enum hw_status hw_verify_deep(struct hw_env *env, struct hw_core *core, hw_progress *progress,
                              void *ctx, struct hw_error *err)
{
    struct verify verify = {.env = env,
                            .core = core,
                            .first = hw_core_first_kept(core),
                            .length = hw_core_length(core),
                            .progress = progress,
                            .progress_ctx = ctx};
    enum hw_status status;

    if (verify.length == 0)
        return HW_OK;
    status = hw_block_genesis(core, &verify.genesis, err);
    if (status == HW_OK && hw_core_is_mirror(core))
        status = tail_start(core, &verify.first, err);
    if (status == HW_OK)
        status = check_chain(&verify, err);
    if (status == HW_OK)
        status = check_content(&verify, err);
    hw_buffer_release(&verify.buffer);
    return status;
}
