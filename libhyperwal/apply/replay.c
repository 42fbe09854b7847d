/* Implements apply/replay.h: the replay itself. */
#include "apply/replay.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

enum hw_status hw_replay_init(struct hw_replay *replay, struct hw_core *core,
                              const struct hw_replay_plan *plan,
                              const struct hw_replay_pages *pages, bool summed,
                              struct hw_error *err)
{
    struct hw_replay made = {.core = core,
                             .plan = plan,
                             .pages = *pages,
                             .page_size = plan->genesis.page_size,
                             .next_seq = plan->first_seq,
                             .exact = plan->from_empty,
                             .summed = summed || plan->from_empty};
    enum hw_status status;

    status = hw_transaction_decoder_new(&made.decoder, err);
    if (status == HW_OK)
        status = hw_group_coder_new(&made.coder, err);
    if (status != HW_OK)
        goto fail;
    made.group_pages = hw_alloc((size_t)HW_GROUP_PAGES * made.page_size);
    made.page = hw_alloc(made.page_size);
    if (made.group_pages == NULL || made.page == NULL) {
        status = hw_fail(err, HW_ENOMEM, "replay: no memory for a page group");
        goto fail;
    }
    *replay = made;
    return HW_OK;

fail:
    hw_replay_release(&made);
    return status;
}

void hw_replay_release(struct hw_replay *replay)
{
    if (replay == NULL)
        return;
    hw_transaction_decoder_free(replay->decoder);
    hw_group_coder_free(replay->coder);
    hw_buffer_release(&replay->block);
    hw_buffer_release(&replay->group_block);
    hw_free(replay->group_pages);
    hw_free(replay->page);
    replay->decoder = NULL;
    replay->coder = NULL;
    replay->group_pages = replay->page = NULL;
}

/* ------------------------------------------------------------------------------------- the size */

void hw_replay_grow(struct hw_replay *replay, uint32_t page_count)
{
    if (page_count <= replay->page_count)
        return;
    if (replay->summed) {
        memset(replay->page, 0, replay->page_size);
        for (uint64_t p = (uint64_t)replay->page_count + 1; p <= page_count; p++)
            replay->sum ^= hw_page_sum((uint32_t)p, replay->page, replay->page_size);
    }
    replay->page_count = page_count;
}

/* Pages above page_count leave the state, and its sum. */
static enum hw_status shrink(struct hw_replay *replay, uint32_t page_count, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (page_count >= replay->page_count)
        return HW_OK;
    for (uint64_t p = (uint64_t)page_count + 1; replay->summed && p <= replay->page_count; p++) {
        status = replay->pages.read(replay->pages.ctx, (uint32_t)p, replay->page, err);
        if (status != HW_OK)
            return status;
        replay->sum ^= hw_page_sum((uint32_t)p, replay->page, replay->page_size);
    }
    status = replay->pages.cut(replay->pages.ctx, page_count, err);
    if (status == HW_OK)
        replay->page_count = page_count;
    return status;
}

/* --------------------------------------------------------------------------------------- groups */

enum hw_status hw_replay_group_load(struct hw_replay *replay, uint32_t group,
                                    struct hw_buffer *block, struct hw_cursor *body,
                                    struct hw_error *err)
{
    const struct hw_replay_plan *plan = replay->plan;
    struct hw_entry_header header;
    enum hw_status status;

    assert(group < plan->snapshot.group_count);
    status = hw_block_read(replay->core, plan->groups[group].block_seq, block, &header, body, err);
    if (status != HW_OK)
        return hw_prefix(err, status, "page group %u of the snapshot at seq %llu", group,
                         (unsigned long long)plan->index_seq);
    if (header.type != HW_ENTRY_GROUP)
        return hw_fail(
            err, HW_ECORRUPT, "block %llu: not a page group, as the snapshot at seq %llu says",
            (unsigned long long)plan->groups[group].block_seq, (unsigned long long)plan->index_seq);
    return HW_OK;
}

enum hw_status hw_replay_group_expand(const struct hw_replay_plan *plan, uint32_t group,
                                      struct hw_group_coder *coder, struct hw_cursor body,
                                      uint8_t *pages, uint32_t *page_count, struct hw_error *err)
{
    const struct hw_snapshot_group *listed = &plan->groups[group];
    struct hw_group read;
    enum hw_status status;

    status = hw_group_decode(coder, &body, listed->block_seq, plan->genesis.page_size, &read, pages,
                             err);
    if (status != HW_OK)
        return hw_prefix(err, status, "block %llu", (unsigned long long)listed->block_seq);
    if (read.group != group || read.base_seq > listed->base_seq ||
        (uint64_t)group * HW_GROUP_PAGES + read.page_count > UINT32_MAX)
        return hw_fail(err, HW_ECORRUPT,
                       "block %llu: page group %u of seq %llu, listed as group %u of seq %llu",
                       (unsigned long long)listed->block_seq, read.group,
                       (unsigned long long)read.base_seq, group,
                       (unsigned long long)listed->base_seq);
    *page_count = read.page_count;
    return HW_OK;
}

enum hw_status hw_replay_group_read(struct hw_replay *replay, uint32_t group, uint32_t *page_count,
                                    struct hw_error *err)
{
    struct hw_cursor body;
    enum hw_status status;

    /* Not into replay->block: a transaction may be waiting there for an old image of this group. */
    status = hw_replay_group_load(replay, group, &replay->group_block, &body, err);
    if (status != HW_OK)
        return status;
    return hw_replay_group_expand(replay->plan, group, replay->coder, body, replay->group_pages,
                                  page_count, err);
}

enum hw_status hw_replay_settle(struct hw_replay *replay, struct hw_error *err)
{
    const struct hw_snapshot *snapshot = &replay->plan->snapshot;
    enum hw_status status;

    if (replay->exact)
        return HW_OK;
    hw_replay_grow(replay, snapshot->page_count);
    status = shrink(replay, snapshot->page_count, err);
    /* Also where nothing was seen to shrink: groups may have been taken while there was more. */
    if (status == HW_OK)
        status = replay->pages.cut(replay->pages.ctx, snapshot->page_count, err);
    if (status != HW_OK)
        return status;
    if (replay->summed && replay->sum != snapshot->sum)
        return hw_fail(err, HW_ECORRUPT,
                       "snapshot at seq %llu: its pages have state sum %016llx, it says %016llx",
                       (unsigned long long)replay->plan->index_seq, (unsigned long long)replay->sum,
                       (unsigned long long)snapshot->sum);
    replay->sum = snapshot->sum;
    replay->summed = true;
    replay->exact = true;
    return HW_OK;
}

/* --------------------------------------------------------------------------------- transactions */

/* Has the snapshot this page already as of entry `seq` or later? */
static bool is_held(const struct hw_replay *replay, uint32_t page_number, uint64_t seq)
{
    uint32_t group = (page_number - 1) / HW_GROUP_PAGES;

    return !replay->exact && group < replay->plan->snapshot.group_count &&
           replay->plan->groups[group].base_seq >= seq;
}

static enum hw_status check_sum(const struct hw_replay *replay, uint64_t seq, const char *when,
                                uint64_t recorded, struct hw_error *err)
{
    if (!replay->exact || replay->sum == recorded)
        return HW_OK;
    return hw_fail(err, HW_ECORRUPT,
                   "block %llu: state sum %s the transaction is %016llx, the log says %016llx",
                   (unsigned long long)seq, when, (unsigned long long)replay->sum,
                   (unsigned long long)recorded);
}

/* The images before, of the pages that need them. */
static enum hw_status read_previous(struct hw_replay *replay, uint64_t seq, uint32_t change_count,
                                    struct hw_error *err)
{
    for (uint32_t i = 0; i < change_count; i++) {
        uint8_t *previous = hw_transaction_previous(replay->decoder, i);
        enum hw_status status;
        uint32_t page_number;
        bool needed;

        if (previous == NULL)
            continue;
        page_number = hw_transaction_page(replay->decoder, i, &needed);
        if (is_held(replay, page_number, seq))
            return hw_fail(err, HW_ECORRUPT,
                           "block %llu: page %u is a difference to an image that the snapshot at "
                           "seq %llu no longer has",
                           (unsigned long long)seq, page_number,
                           (unsigned long long)replay->plan->index_seq);
        status = replay->pages.read(replay->pages.ctx, page_number, previous, err);
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* One new image takes the place of the old one. */
static enum hw_status write_page(struct hw_replay *replay, uint32_t i, struct hw_error *err)
{
    const uint8_t *image = hw_transaction_image(replay->decoder, i);
    const uint8_t *old = hw_transaction_previous(replay->decoder, i);
    enum hw_status status = HW_OK;
    bool needed;
    uint32_t page_number = hw_transaction_page(replay->decoder, i, &needed);

    if (!replay->exact)
        hw_replay_grow(replay, page_number);
    if (replay->summed) {
        if (old == NULL) {
            status = replay->pages.read(replay->pages.ctx, page_number, replay->page, err);
            old = replay->page;
        }
        if (status == HW_OK)
            replay->sum ^= hw_page_sum(page_number, old, replay->page_size) ^
                           hw_page_sum(page_number, image, replay->page_size);
    }
    if (status == HW_OK)
        status = replay->pages.write(replay->pages.ctx, page_number, image, err);
    return status;
}

static enum hw_status begin_block(struct hw_replay *replay, uint64_t seq, bool starts,
                                  const struct hw_transaction *transaction, struct hw_error *err)
{
    enum hw_status status;

    if (starts == replay->in_entry)
        return hw_fail(err, HW_ECORRUPT, "block %llu: does not continue its entry",
                       (unsigned long long)seq);
    if (!starts && transaction->sum_before != replay->entry_sum)
        return hw_fail(err, HW_ECORRUPT, "block %llu: its state sum does not continue the last one",
                       (unsigned long long)seq);
    status = starts ? check_sum(replay, seq, "before", transaction->sum_before, err) : HW_OK;
    if (status == HW_OK && replay->exact)
        hw_replay_grow(replay, transaction->page_count);
    return status;
}

static enum hw_status replay_transaction(struct hw_replay *replay, uint64_t seq,
                                         const struct hw_entry_header *header,
                                         struct hw_cursor *body, struct hw_error *err)
{
    struct hw_transaction transaction;
    enum hw_status status =
        hw_transaction_decode(replay->decoder, body, replay->page_size, &transaction, err);

    if (status == HW_OK)
        status = begin_block(replay, seq, header->starts, &transaction, err);
    if (status == HW_OK)
        status = read_previous(replay, seq, transaction.change_count, err);
    if (status == HW_OK)
        status = hw_transaction_expand(replay->decoder, err);
    for (uint32_t i = 0; status == HW_OK && i < transaction.change_count; i++) {
        bool needed;

        if (!is_held(replay, hw_transaction_page(replay->decoder, i, &needed), seq))
            status = write_page(replay, i, err);
    }
    replay->in_entry = !header->ends;
    replay->entry_sum = transaction.sum_after;
    if (status != HW_OK || !header->ends)
        return status;
    if (replay->exact)
        status = shrink(replay, transaction.page_count, err);
    return status == HW_OK ? check_sum(replay, seq, "after", transaction.sum_after, err) : status;
}

enum hw_status hw_replay_block(struct hw_replay *replay, struct hw_error *err)
{
    uint64_t seq = replay->next_seq;
    struct hw_entry_header header;
    struct hw_cursor body;
    enum hw_status status = HW_OK;

    if (!replay->exact && seq > replay->plan->snapshot.greatest_base)
        status = hw_replay_settle(replay, err);
    if (status == HW_OK && hw_replay_plan_lists(replay->plan, seq)) {
        replay->next_seq++;
        return HW_OK;
    }
    if (status == HW_OK)
        status = hw_block_read(replay->core, seq, &replay->block, &header, &body, err);
    if (status != HW_OK)
        return status;
    if (header.type == HW_ENTRY_GAP)
        return hw_fail(err, HW_EFORK, "seq %llu: a gap", (unsigned long long)seq);
    if (header.type == HW_ENTRY_TRANSACTION) {
        status = replay_transaction(replay, seq, &header, &body, err);
        if (status != HW_OK)
            return hw_prefix(err, status, "seq %llu", (unsigned long long)seq);
    }
    replay->next_seq++;
    return HW_OK;
}

enum hw_status hw_replay_finish(struct hw_replay *replay, struct hw_error *err)
{
    const struct hw_state *target = &replay->plan->target;
    enum hw_status status = hw_replay_settle(replay, err);

    if (status != HW_OK)
        return status;
    if (replay->in_entry || replay->sum != target->sum || replay->page_count != target->page_count)
        return hw_fail(err, HW_ECORRUPT,
                       "seq %llu: reached a state of %u pages with sum %016llx, the log says %u "
                       "pages and %016llx",
                       (unsigned long long)target->seq, replay->page_count,
                       (unsigned long long)replay->sum, target->page_count,
                       (unsigned long long)target->sum);
    return HW_OK;
}

enum hw_status hw_replay_scratch(struct hw_env *env, struct hw_file **out, struct hw_error *err)
{
    static const char *const places[] = {"/var/tmp", "/tmp", "."};
    enum hw_status status = HW_EIO;
    struct hw_file *file = NULL;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        uint64_t name;
        char path[64];

        env->ops->random(env, &name, sizeof(name));
        (void)snprintf(path, sizeof(path), "%s/hyperwal-%016llx", places[i],
                       (unsigned long long)name);
        status = env->ops->open(env, path,
                                HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_EXCLUSIVE |
                                    HW_OPEN_PRIVATE,
                                &file, err);
        if (status != HW_OK)
            continue;
        /* Without a name from now on: the bytes go when the file is closed, however that comes. */
        status = env->ops->remove(env, path, err);
        if (status == HW_OK) {
            *out = file;
            return HW_OK;
        }
        file->env->ops->close(file);
    }
    return hw_prefix(err, status, "no place for a scratch file");
}
