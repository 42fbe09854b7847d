/* Which state a target means, and from which snapshot to come to it: hw_state_resolve(). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply/replay.h"
#include "base/alloc.h"

/* -------------------------------------------------------------------------------- state at seq */

/* The state that block `seq` completes.  HW_END: it completes none. */
static enum hw_status state_of_block(const struct hw_genesis *genesis, uint64_t seq,
                                     const struct hw_entry_header *header, struct hw_cursor *body,
                                     struct hw_state *out)
{
    struct hw_state state = {
        .seq = seq, .time_ms = header->time_ms, .page_size = genesis->page_size};
    struct hw_transaction transaction;
    enum hw_status status;

    if (header->type == HW_ENTRY_GENESIS && seq == 0) {
        state.page_count = genesis->page_count;
        state.sum = genesis->sum;
    } else if (header->type == HW_ENTRY_TRANSACTION && header->ends) {
        status = hw_transaction_peek(body, genesis->page_size, &transaction);
        if (status != HW_OK)
            return status;
        state.page_count = transaction.page_count;
        state.sum = transaction.sum_after;
    } else if (header->type == HW_ENTRY_GAP) {
        (void)hw_cursor_le64(body);
        state.sum = hw_cursor_le64(body);
        (void)hw_cursor_uint(body);
        state.page_count = (uint32_t)hw_cursor_uint(body);
        if (body->failed)
            return HW_ECORRUPT;
    } else {
        return HW_END;
    }
    *out = state;
    return HW_OK;
}

/* The last block before the index at `seq` that is no group of it. */
static uint64_t block_before_index(struct hw_core *core, const struct hw_genesis *genesis,
                                   uint64_t seq)
{
    struct hw_replay_plan plan = {.genesis = *genesis};

    if (hw_replay_plan_snapshot(core, seq, &plan, NULL) != HW_OK)
        return seq - 1; /* looked at one by one then */
    seq--;
    while (seq > 0 && hw_replay_plan_lists(&plan, seq))
        seq--;
    hw_replay_plan_release(&plan);
    return seq;
}

/*
 * The block to look at next for who goes back from `seq`, which completes no state.  A group says
 * as of which state it was made, and between that and itself there are only others of its kind:
 * in a mirror they would have to be fetched to be seen.
 */
static uint64_t block_before(struct hw_core *core, const struct hw_genesis *genesis, uint64_t seq,
                             const struct hw_entry_header *header, struct hw_cursor body)
{
    struct hw_group group;

    if (header->type == HW_ENTRY_SNAPSHOT && header->starts)
        return block_before_index(core, genesis, seq);
    if (header->type == HW_ENTRY_GROUP &&
        hw_group_peek(&body, seq, genesis->page_size, &group) == HW_OK && group.base_seq < seq)
        return group.base_seq;
    return seq - 1;
}

static enum hw_status state_before(struct hw_core *core, const struct hw_genesis *genesis,
                                   uint64_t seq, struct hw_state *out, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    enum hw_status status;

    for (;;) {
        struct hw_entry_header header;
        struct hw_cursor body;

        status = hw_block_peek(core, seq, &buffer, &header, &body, err);
        if (status != HW_OK)
            break;
        status = state_of_block(genesis, seq, &header, &body, out);
        if (status == HW_OK)
            break;
        if (status != HW_END || seq == 0) {
            status = hw_fail(err, HW_ECORRUPT, "block %llu: bad numbers", (unsigned long long)seq);
            break;
        }
        seq = block_before(core, genesis, seq, &header, body);
    }
    hw_buffer_release(&buffer);
    return status;
}

enum hw_status hw_state_at(struct hw_core *core, uint64_t seq, struct hw_state *out,
                           struct hw_error *err)
{
    struct hw_genesis genesis;
    enum hw_status status = hw_block_genesis(core, &genesis, err);

    return status == HW_OK ? state_before(core, &genesis, seq, out, err) : status;
}

/* -------------------------------------------------------------------------------------- targets */

static enum hw_status seq_by_time(struct hw_core *core, int64_t time_ms, uint64_t *seq,
                                  struct hw_error *err)
{
    uint64_t low = hw_core_first_kept(core), high = hw_core_length(core);
    int64_t first_time = -1;
    struct hw_buffer buffer = {0};
    enum hw_status status = HW_OK;
    bool found = false;
    char asked[32], first[32];

    /* Times never go back, so the last block that is not later can be searched for. */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct hw_entry_header header;
        struct hw_cursor body;

        status = hw_block_peek(core, middle, &buffer, &header, &body, err);
        if (hw_block_is_absent(status)) {
            low = middle + 1; /* what was given up lies before what is kept */
            continue;
        }
        if (status != HW_OK)
            goto done;
        if (header.time_ms <= time_ms) {
            found = true;
            *seq = middle;
            low = middle + 1;
        } else {
            first_time = header.time_ms;
            high = middle;
        }
    }
    status = HW_OK;
    if (!found) {
        hw_time_format(time_ms, asked);
        hw_time_format(first_time, first);
        status = hw_fail(err, HW_ENOTFOUND, "%s is before the first entry that is kept, at %s",
                         asked, first_time < 0 ? "no time" : first);
    }

done:
    hw_buffer_release(&buffer);
    return status;
}

static enum hw_status seq_by_label(struct hw_core *core, const char *label, uint64_t *seq,
                                   struct hw_error *err)
{
    uint64_t next = hw_entry_last(core);
    struct hw_buffer buffer = {0};
    enum hw_status status = HW_OK;
    bool found = false;

    while (!found && next != UINT64_MAX) {
        uint64_t here = next;
        struct hw_entry_header header;
        struct hw_label read;
        struct hw_cursor body;

        status = hw_block_read(core, here, &buffer, &header, &body, err);
        if (status != HW_OK)
            break;
        next = header.label_seq;
        if (header.type != HW_ENTRY_LABEL)
            continue;
        status = hw_label_decode(&body, &read);
        if (status != HW_OK) {
            status = hw_fail(err, status, "block %llu: bad label", (unsigned long long)here);
            break;
        }
        if (strcmp(read.name, label) == 0) {
            *seq = here;
            found = true;
        }
    }
    hw_buffer_release(&buffer);
    if (hw_block_is_absent(status))
        return hw_fail(err, status, "no label '%s' among the entries that are kept", label);
    if (status == HW_OK && !found)
        return hw_fail(err, HW_ENOTFOUND, "there is no label '%s' in the log", label);
    return status;
}

/* The newest block that a target allows. */
static enum hw_status target_block(struct hw_core *core, const struct hw_target *target,
                                   uint64_t *seq, struct hw_error *err)
{
    uint64_t length = hw_core_length(core);
    uint64_t last = hw_entry_last(core);

    if (length == 0)
        return hw_fail(err, HW_ENOTFOUND, "the log is empty: nothing was captured yet");
    if (last == UINT64_MAX)
        return hw_fail(err, HW_EMISSING, "the mirror has no block of the log yet");
    switch (target->kind) {
    case HW_TARGET_HEAD:
        *seq = last;
        return HW_OK;
    case HW_TARGET_SEQ:
        if (target->seq >= length)
            return hw_fail(err, HW_ENOTFOUND, "seq %llu is beyond the log, which has 0 to %llu",
                           (unsigned long long)target->seq, (unsigned long long)(length - 1));
        *seq = target->seq;
        return HW_OK;
    case HW_TARGET_TIME:
        return seq_by_time(core, target->time_ms, seq, err);
    case HW_TARGET_LABEL:
        return seq_by_label(core, target->label, seq, err);
    }
    return hw_fail(err, HW_EMISUSE, "a target of kind %d", (int)target->kind);
}

/* ----------------------------------------------------------------------------------------- plan */

/* First index block of the newest complete snapshot; UINT64_MAX: there is none. */
static enum hw_status newest_snapshot(struct hw_core *core, uint64_t *seq, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    struct hw_entry_header header;
    struct hw_cursor body;
    uint64_t block = hw_entry_last(core);
    enum hw_status status = hw_block_peek(core, block, &buffer, &header, &body, err);

    /* The last block may itself end an index; every other one tells by its header. */
    if (status == HW_OK && header.type == HW_ENTRY_SNAPSHOT && header.ends) {
        while (status == HW_OK && !header.starts && block > 0)
            status = hw_block_peek(core, --block, &buffer, &header, &body, err);
        *seq = block;
    } else {
        *seq = header.snapshot_seq;
    }
    hw_buffer_release(&buffer);
    return status;
}

enum hw_status hw_replay_newest_snapshot(struct hw_core *core, uint64_t *index_seq,
                                         struct hw_snapshot *out, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    struct hw_entry_header header;
    struct hw_snapshot snapshot;
    struct hw_cursor body;
    uint64_t seq = UINT64_MAX;
    enum hw_status status = HW_OK;

    if (hw_entry_last(core) == UINT64_MAX)
        return hw_fail(err, HW_ENOTFOUND, "the log has no block yet");
    status = newest_snapshot(core, &seq, err);
    if (status == HW_OK && seq == UINT64_MAX)
        status = hw_fail(err, HW_ENOTFOUND, "the log has no complete snapshot yet");
    if (status == HW_OK)
        status = hw_block_peek(core, seq, &buffer, &header, &body, err);
    if (status == HW_OK &&
        (header.type != HW_ENTRY_SNAPSHOT || hw_snapshot_peek(&body, seq, &snapshot) != HW_OK))
        status = hw_fail(err, HW_ECORRUPT, "block %llu: not the index of a snapshot",
                         (unsigned long long)seq);
    if (status == HW_OK) {
        *index_seq = seq;
        *out = snapshot;
    }
    hw_buffer_release(&buffer);
    return status;
}

/* The neighbourhood of a target among the snapshots, newest first. */
struct choice {
    uint64_t index_seq; /* of the newest that serves the target; UINT64_MAX: none */
    struct hw_snapshot snapshot;
    uint64_t later_base; /* greatest base of the next newer one; UINT64_MAX: none */
    bool pruned;         /* older ones were given up */
};

static enum hw_status choose_snapshot(struct hw_core *core, uint64_t target_seq,
                                      struct choice *choice, struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    uint64_t seq = UINT64_MAX;
    enum hw_status status = newest_snapshot(core, &seq, err);

    *choice = (struct choice){.index_seq = UINT64_MAX, .later_base = UINT64_MAX};
    while (status == HW_OK && seq != UINT64_MAX) {
        struct hw_entry_header header;
        struct hw_snapshot snapshot;
        struct hw_cursor body;

        status = hw_block_peek(core, seq, &buffer, &header, &body, err);
        if (hw_block_is_absent(status)) {
            choice->pruned = true;
            status = HW_OK;
            break;
        }
        if (status != HW_OK)
            break;
        if (header.type != HW_ENTRY_SNAPSHOT || hw_snapshot_peek(&body, seq, &snapshot) != HW_OK) {
            status = hw_fail(err, HW_ECORRUPT, "block %llu: not the index of a snapshot",
                             (unsigned long long)seq);
            break;
        }
        if (snapshot.greatest_base <= target_seq) {
            choice->index_seq = seq;
            choice->snapshot = snapshot;
            break;
        }
        choice->later_base = snapshot.greatest_base;
        seq = header.snapshot_seq;
    }
    hw_buffer_release(&buffer);
    return status;
}

/* HW_EFORK, naming it, if a gap lies in blocks first .. last, which are not groups of the plan. */
static enum hw_status refuse_gap(struct hw_core *core, const struct hw_replay_plan *plan,
                                 uint64_t first, uint64_t last, uint64_t later_base,
                                 struct hw_error *err)
{
    struct hw_buffer buffer = {0};
    enum hw_status status = HW_OK;
    struct hw_gap gap;
    char again[64] = "and no snapshot has followed it yet";

    for (uint64_t seq = first; status == HW_OK && seq <= last; seq++) {
        struct hw_entry_header header;
        struct hw_cursor body;

        if (hw_replay_plan_lists(plan, seq))
            continue;
        status = hw_block_peek(core, seq, &buffer, &header, &body, err);
        if (status != HW_OK || header.type != HW_ENTRY_GAP)
            continue;
        status = hw_block_read(core, seq, &buffer, &header, &body, err);
        if (status != HW_OK)
            break;
        if (later_base != UINT64_MAX)
            (void)snprintf(again, sizeof(again), "states can be restored again from seq %llu on",
                           (unsigned long long)later_base);
        if (hw_gap_decode(&body, &gap) != HW_OK)
            status = hw_fail(err, HW_ECORRUPT, "block %llu: bad gap", (unsigned long long)seq);
        else
            status = hw_fail(err, HW_EFORK, "seq %llu lies in the gap at seq %llu (%s); %s",
                             (unsigned long long)last, (unsigned long long)seq, gap.reason, again);
    }
    hw_buffer_release(&buffer);
    return status;
}

/* No snapshot serves the target: why? */
static enum hw_status refuse_target(struct hw_core *core, const struct hw_replay_plan *plan,
                                    uint64_t seq, const struct choice *choice, struct hw_error *err)
{
    enum hw_status status;

    if (choice->pruned || hw_core_first_kept(core) > 1)
        return hw_fail(
            err, HW_EPRUNED, "seq %llu was given up by pruning; states are kept from seq %llu on",
            (unsigned long long)seq,
            (unsigned long long)(choice->later_base == UINT64_MAX ? hw_core_first_kept(core)
                                                                  : choice->later_base));
    status = refuse_gap(core, plan, 1, seq, choice->later_base, err);
    if (status != HW_OK)
        return status;
    if (choice->later_base == UINT64_MAX)
        return hw_fail(err, HW_ENOTFOUND,
                       "the log has no complete snapshot yet: wait until capture has made one");
    return hw_fail(
        err, HW_ENOTFOUND,
        "seq %llu is before the first state, at seq %llu, where the database was adopted",
        (unsigned long long)seq, (unsigned long long)choice->later_base);
}

/* A way to the state at block `seq`. */
static enum hw_status plan_for(struct hw_core *core, uint64_t seq, struct hw_replay_plan *plan,
                               struct hw_error *err)
{
    struct choice choice;
    enum hw_status status = choose_snapshot(core, seq, &choice, err);

    if (status != HW_OK)
        return status;
    if (choice.index_seq != UINT64_MAX) {
        status = hw_replay_plan_snapshot(core, choice.index_seq, plan, err);
        if (status == HW_OK && !hw_core_is_mirror(core))
            status = hw_replay_plan_check(core, plan, err);
        if (status == HW_EPRUNED) { /* older than those that pruning kept */
            choice.pruned = true;
            return refuse_target(core, plan, seq, &choice, err);
        }
        if (status != HW_OK)
            return status;
    } else if (plan->genesis.page_count == 0 && hw_core_first_kept(core) <= 1 && !choice.pruned) {
        plan->from_empty = true;
        plan->first_seq = 1;
    } else {
        return refuse_target(core, plan, seq, &choice, err);
    }
    return refuse_gap(core, plan, plan->first_seq, seq, choice.later_base, err);
}

/* In the order of numbers, each once. */
static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static enum hw_status list_groups(struct hw_replay_plan *plan, struct hw_error *err)
{
    uint32_t count = plan->snapshot.group_count;
    uint64_t *listed = hw_alloc(count * sizeof(*listed));

    if (listed == NULL)
        return hw_fail(err, HW_ENOMEM, "block %llu: no memory for %u page groups",
                       (unsigned long long)plan->index_seq, count);
    for (uint32_t i = 0; i < count; i++)
        listed[i] = plan->groups[i].block_seq;
    qsort(listed, count, sizeof(*listed), by_number);
    plan->listed = listed;
    return HW_OK;
}

enum hw_status hw_replay_plan_check(struct hw_core *core, const struct hw_replay_plan *plan,
                                    struct hw_error *err)
{
    uint64_t first = hw_core_first_kept(core);
    struct hw_buffer byte = {0};
    enum hw_status status = HW_OK;

    for (uint32_t i = 0; status == HW_OK && i < plan->snapshot.group_count; i++)
        if (plan->groups[i].block_seq < first)
            status = hw_core_read_head(core, plan->groups[i].block_seq, 1, &byte, err);
    hw_buffer_release(&byte);
    return status;
}

bool hw_replay_plan_lists(const struct hw_replay_plan *plan, uint64_t seq)
{
    return plan->listed != NULL && seq < plan->index_seq &&
           bsearch(&seq, plan->listed, plan->snapshot.group_count, sizeof(seq), by_number) != NULL;
}

enum hw_status hw_replay_plan_snapshot(struct hw_core *core, uint64_t index_seq,
                                       struct hw_replay_plan *out, struct hw_error *err)
{
    struct hw_snapshot_group *here = NULL, *groups = NULL;
    struct hw_buffer buffer = {0};
    struct hw_snapshot part = {0}, whole = {0};
    uint32_t count = 0;
    enum hw_status status;

    here = hw_alloc(HW_SNAPSHOT_GROUPS_MAX * sizeof(*here));
    if (here == NULL) {
        status = hw_fail(err, HW_ENOMEM, "block %llu: no memory for the index of a snapshot",
                         (unsigned long long)index_seq);
        goto done;
    }
    for (uint64_t seq = index_seq;; seq++) {
        struct hw_snapshot_group *larger;
        struct hw_entry_header header;
        struct hw_cursor body;

        status = hw_block_read(core, seq, &buffer, &header, &body, err);
        if (status != HW_OK)
            goto done;
        if (header.type != HW_ENTRY_SNAPSHOT || header.starts != (seq == index_seq) ||
            hw_snapshot_decode(&body, seq, &part, here) != HW_OK || part.first_group != count ||
            part.page_size != out->genesis.page_size) {
            status = hw_fail(err, HW_ECORRUPT, "block %llu: bad index of a snapshot",
                             (unsigned long long)seq);
            goto done;
        }
        larger = hw_realloc(groups, (count + (size_t)part.groups_here) * sizeof(*groups));
        if (larger == NULL) {
            status = hw_fail(err, HW_ENOMEM, "block %llu: no memory for %u page groups",
                             (unsigned long long)seq, part.group_count);
            goto done;
        }
        groups = larger;
        memcpy(groups + count, here, part.groups_here * sizeof(*groups));
        count += part.groups_here;
        if (seq == index_seq)
            whole = part;
        if (header.ends)
            break;
    }
    if (count != whole.group_count) {
        status = hw_fail(err, HW_ECORRUPT, "block %llu: a snapshot of %u groups lists %u",
                         (unsigned long long)index_seq, whole.group_count, count);
        goto done;
    }
    whole.groups_here = count;
    out->index_seq = index_seq;
    out->first_seq = whole.least_base + 1;
    out->snapshot = whole;
    out->groups = groups;
    status = list_groups(out, err);
    if (status == HW_OK)
        groups = NULL;
    else
        out->groups = NULL;

done:
    hw_free(here);
    hw_free(groups);
    hw_buffer_release(&buffer);
    return status;
}

enum hw_status hw_replay_plan_make(struct hw_core *core, const struct hw_target *target,
                                   struct hw_replay_plan *out, struct hw_error *err)
{
    struct hw_replay_plan plan = {.index_seq = UINT64_MAX};
    uint64_t seq = 0;
    enum hw_status status = hw_block_genesis(core, &plan.genesis, err);

    if (status == HW_OK)
        status = target_block(core, target, &seq, err);
    if (status == HW_OK)
        status = state_before(core, &plan.genesis, seq, &plan.target, err);
    if (status == HW_OK)
        status = plan_for(core, seq, &plan, err);
    if (status == HW_OK)
        *out = plan;
    else
        hw_replay_plan_release(&plan);
    return status;
}

void hw_replay_plan_release(struct hw_replay_plan *plan)
{
    if (plan == NULL)
        return;
    hw_free(plan->groups);
    hw_free(plan->listed);
    plan->groups = NULL;
    plan->listed = NULL;
}

enum hw_status hw_state_resolve(struct hw_core *core, const struct hw_target *target,
                                struct hw_state *out, struct hw_error *err)
{
    struct hw_replay_plan plan = {0};
    enum hw_status status;

    /* The head is a state even while nothing leads to it yet: status tells it at any time. */
    if (target->kind == HW_TARGET_HEAD) {
        uint64_t last = 0;

        status = target_block(core, target, &last, err);
        return status == HW_OK ? hw_state_at(core, last, out, err) : status;
    }
    status = hw_replay_plan_make(core, target, &plan, err);
    if (status == HW_OK)
        *out = plan.target;
    hw_replay_plan_release(&plan);
    return status;
}

/* -------------------------------------------------------------------------------- its blocks */

static int by_block(const void *a, const void *b)
{
    const struct hw_snapshot_group *x = a, *y = b;

    return x->block_seq < y->block_seq ? -1 : x->block_seq > y->block_seq;
}

/* Blocks of groups that lie side by side are one range. */
static void tell_groups(struct hw_replay_plan *plan, hw_block_range *each, void *ctx)
{
    struct hw_snapshot_group *groups = plan->groups;
    uint32_t count = plan->snapshot.group_count;

    if (count > 0) /* a snapshot of no groups has no list */
        qsort(groups, count, sizeof(*groups), by_block);
    for (uint32_t i = 0, first = 0; i < count; i++) {
        if (i + 1 < count && groups[i + 1].block_seq <= groups[i].block_seq + 1)
            continue;
        each(ctx, groups[first].block_seq, groups[i].block_seq + 1);
        first = i + 1;
    }
}

enum hw_status hw_state_blocks(struct hw_core *core, const struct hw_target *target,
                               hw_block_range *each, void *ctx, struct hw_error *err)
{
    struct hw_replay_plan plan = {.index_seq = UINT64_MAX};
    struct choice choice = {.index_seq = UINT64_MAX};
    uint64_t seq = 0;
    enum hw_status status = hw_block_genesis(core, &plan.genesis, err);

    if (status == HW_OK)
        status = target_block(core, target, &seq, err);
    if (status == HW_OK)
        status = choose_snapshot(core, seq, &choice, err);
    if (status == HW_OK && choice.index_seq == UINT64_MAX && plan.genesis.page_count > 0)
        status =
            hw_fail(err, HW_ENOTFOUND, "no snapshot leads to seq %llu", (unsigned long long)seq);
    if (status == HW_OK && choice.index_seq != UINT64_MAX)
        status = hw_replay_plan_snapshot(core, choice.index_seq, &plan, err);
    if (status == HW_OK) {
        tell_groups(&plan, each, ctx);
        each(ctx, choice.index_seq == UINT64_MAX ? 1 : plan.first_seq, seq + 1);
    }
    hw_replay_plan_release(&plan);
    return status;
}
