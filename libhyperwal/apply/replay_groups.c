/*
 * All groups of a snapshot into a file: hw_replay_groups() of apply/replay.h.
 *
 * Expanding costs as much as reading, hashing and writing together, so the two go side by side, a
 * batch of groups at a time, in one extra thread:
 *
 *     this thread    write batch 1, read batch 3     write batch 2, read batch 4   ...
 *     the other      expand batch 2                  expand batch 3                ...
 *
 * The thread lives for one batch and is joined before anything it worked on is looked at.  The
 * first batch is expanded here: what allocates, allocates then, and a small database starts no
 * thread.
 */
#include "apply/replay.h"
#include "base/alloc.h"
#include "base/sqlite.h"
#include "env/thread.h"

enum { BATCH_BYTES = 2 << 20, BATCH_GROUPS_MAX = 64 };

struct batch {
    const struct hw_replay_plan *plan;         /* borrowed */
    struct hw_group_coder *coder;              /* borrowed; used by one thread at a time */
    uint32_t first, count;                     /* groups */
    struct hw_buffer blocks[BATCH_GROUPS_MAX]; /* owned */
    struct hw_cursor bodies[BATCH_GROUPS_MAX]; /* into blocks */
    uint8_t *pages;                            /* owned; HW_GROUP_PAGES a group */
    uint32_t page_counts[BATCH_GROUPS_MAX];
    uint64_t sums[BATCH_GROUPS_MAX];
    enum hw_status status; /* of the expansion */
    struct hw_error err;
};

static uint32_t batch_groups(uint32_t page_size)
{
    uint32_t groups = BATCH_BYTES / (HW_GROUP_PAGES * page_size);

    return groups == 0 ? 1 : groups > BATCH_GROUPS_MAX ? BATCH_GROUPS_MAX : groups;
}

static enum hw_status batch_init(struct batch *batch, struct hw_replay *replay,
                                 struct hw_error *err)
{
    size_t size = (size_t)batch_groups(replay->page_size) * HW_GROUP_PAGES * replay->page_size;

    batch->plan = replay->plan;
    batch->coder = replay->coder;
    batch->pages = hw_alloc(size);
    return batch->pages == NULL ? hw_fail(err, HW_ENOMEM, "no memory for page groups") : HW_OK;
}

static void batch_release(struct batch *batch)
{
    for (int i = 0; i < BATCH_GROUPS_MAX; i++)
        hw_buffer_release(&batch->blocks[i]);
    hw_free(batch->pages);
}

/* The blocks of the groups from `first` on; count 0 behind the last. */
static enum hw_status batch_load(struct batch *batch, struct hw_replay *replay, uint32_t first,
                                 struct hw_error *err)
{
    uint32_t left = replay->plan->snapshot.group_count - first;
    uint32_t most = batch_groups(replay->page_size);
    enum hw_status status = HW_OK;

    batch->first = first;
    batch->count = left < most ? left : most;
    for (uint32_t i = 0; status == HW_OK && i < batch->count; i++)
        status = hw_replay_group_load(replay, first + i, &batch->blocks[i], &batch->bodies[i], err);
    return status;
}

static uint8_t *group_pages(const struct batch *batch, uint32_t i)
{
    return batch->pages + (size_t)i * HW_GROUP_PAGES * batch->plan->genesis.page_size;
}

static void *batch_expand(void *ctx)
{
    struct batch *batch = ctx;
    uint32_t page_size = batch->plan->genesis.page_size;

    batch->status = HW_OK;
    for (uint32_t i = 0; batch->status == HW_OK && i < batch->count; i++) {
        uint8_t *pages = group_pages(batch, i);
        uint32_t before = (batch->first + i) * HW_GROUP_PAGES;

        batch->status =
            hw_replay_group_expand(batch->plan, batch->first + i, batch->coder, batch->bodies[i],
                                   pages, &batch->page_counts[i], &batch->err);
        batch->sums[i] = 0;
        for (uint32_t p = 0; batch->status == HW_OK && p < batch->page_counts[i]; p++)
            batch->sums[i] ^= hw_page_sum(before + 1 + p, pages + (size_t)p * page_size, page_size);
    }
    return NULL;
}

/* An expanded batch: its pages go to their places, and into the sum. */
static enum hw_status
batch_write(const struct batch *batch, struct hw_replay *replay, struct hw_file *file,
            enum hw_status (*advance)(void *ctx, uint64_t bytes, struct hw_error *err), void *ctx,
            struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (uint32_t i = 0; status == HW_OK && i < batch->count; i++) {
        uint32_t before = (batch->first + i) * HW_GROUP_PAGES;
        size_t size = (size_t)batch->page_counts[i] * replay->page_size;

        hw_replay_grow(replay, before); /* only behind a group that is not full */
        replay->sum ^= batch->sums[i];
        replay->page_count = before + batch->page_counts[i];
        status = file->env->ops->write_at(file, (uint64_t)before * replay->page_size,
                                          group_pages(batch, i), size, err);
        if (status == HW_OK)
            status = advance(ctx, size, err);
    }
    return status;
}

enum hw_status hw_replay_groups(struct hw_replay *replay, struct hw_file *file,
                                enum hw_status (*advance)(void *ctx, uint64_t bytes,
                                                          struct hw_error *err),
                                void *ctx, struct hw_error *err)
{
    struct batch *batches = hw_zalloc(2 * sizeof(*batches)); /* owned */
    struct batch *expanding, *other;
    enum hw_status status;

    if (batches == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for page groups");
    expanding = &batches[0];
    other = &batches[1]; /* expanded before and to be written, then loaded with what comes next */
    status = batch_init(expanding, replay, err);
    if (status == HW_OK)
        status = batch_init(other, replay, err);
    if (status == HW_OK)
        status = batch_load(expanding, replay, 0, err);
    while (status == HW_OK && expanding->count > 0) {
        struct batch *expanded = expanding;
        struct hw_thread thread;
        bool threaded = expanding->first > 0 && hw_sqlite_has_threads() &&
                        hw_thread_start(&thread, batch_expand, expanding, NULL) == HW_OK;

        if (!threaded)
            (void)batch_expand(expanding);
        status = batch_write(other, replay, file, advance, ctx, err);
        if (status == HW_OK)
            status = batch_load(other, replay, expanding->first + expanding->count, err);
        if (threaded)
            hw_thread_join(&thread);
        if (status == HW_OK && expanded->status != HW_OK) {
            status = expanded->status;
            if (err != NULL)
                *err = expanded->err;
        }
        /* What was just expanded is written in the next round, while the other one is expanded. */
        expanding = other;
        other = expanded;
    }
    if (status == HW_OK)
        status = batch_write(other, replay, file, advance, ctx, err);
    batch_release(&batches[0]);
    batch_release(&batches[1]);
    hw_free(batches);
    return status;
}
