/* Filling the holes of a lazy replica, group by group: apply/lazy.h. */
#include <string.h>

#include "apply/lazy.h"
#include "apply/replay.h"
#include "base/alloc.h"

enum { WRITE_SIZE = 65536 }; /* SQLite's unix VFS takes 131,071 bytes a call at the most */

struct hw_lazy_filler {
    struct hw_core *core;       /* borrowed */
    struct hw_lazy_map *map;    /* borrowed */
    struct hw_replay_plan plan; /* owned */
    struct hw_replay replay;    /* owned */
    uint32_t loaded;            /* group in replay.group_pages; UINT32_MAX: none */
    uint32_t page_count;        /* of it */
};

static enum hw_status no_pages(void *ctx, uint32_t page_number, void *content, struct hw_error *err)
{
    (void)ctx, (void)content;
    return hw_fail(err, HW_EMISUSE, "page %u of a replay without pages", (unsigned)page_number);
}

static enum hw_status no_writes(void *ctx, uint32_t page_number, const void *content,
                                struct hw_error *err)
{
    (void)ctx, (void)content;
    return hw_fail(err, HW_EMISUSE, "page %u of a replay without pages", (unsigned)page_number);
}

static enum hw_status no_cut(void *ctx, uint32_t page_count, struct hw_error *err)
{
    (void)ctx;
    return hw_fail(err, HW_EMISUSE, "%u pages of a replay without pages", (unsigned)page_count);
}

enum hw_status hw_lazy_filler_open(struct hw_core *core, struct hw_lazy_map *map,
                                   struct hw_lazy_filler **out, struct hw_error *err)
{
    static const struct hw_replay_pages pages = {NULL, no_pages, no_writes, no_cut};
    struct hw_lazy_origin origin = hw_lazy_map_origin(map);
    struct hw_lazy_filler *filler = hw_zalloc(sizeof(*filler));
    enum hw_status status = HW_OK;

    if (filler == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for page groups");
    filler->core = core;
    filler->map = map;
    filler->loaded = UINT32_MAX;
    if (hw_core_head(core).fork != origin.fork)
        status =
            hw_fail(err, HW_EFORK, "the log has gone over to fork %llu, the cache is of %llu",
                    (unsigned long long)hw_core_head(core).fork, (unsigned long long)origin.fork);
    if (status == HW_OK)
        status = hw_block_genesis(core, &filler->plan.genesis, err);
    if (status == HW_OK && filler->plan.genesis.page_size != origin.page_size)
        status = hw_fail(err, HW_ECORRUPT, "pages of %u bytes, the log has %u",
                         (unsigned)origin.page_size, (unsigned)filler->plan.genesis.page_size);
    if (status == HW_OK && origin.group_count > 0)
        status = hw_replay_plan_snapshot(core, origin.index_seq, &filler->plan, err);
    if (status == HW_OK && filler->plan.snapshot.group_count != origin.group_count)
        status = hw_fail(err, HW_ECORRUPT, "a snapshot of %u page groups, the cache has %u",
                         (unsigned)filler->plan.snapshot.group_count, (unsigned)origin.group_count);
    if (status == HW_OK)
        status = hw_replay_init(&filler->replay, core, &filler->plan, &pages, false, err);
    if (status != HW_OK) {
        hw_lazy_filler_close(filler);
        return status;
    }
    *out = filler;
    return HW_OK;
}

void hw_lazy_filler_close(struct hw_lazy_filler *filler)
{
    if (filler == NULL)
        return;
    hw_replay_release(&filler->replay);
    hw_replay_plan_release(&filler->plan);
    hw_free(filler);
}

uint64_t hw_lazy_filler_block(const struct hw_lazy_filler *filler, uint32_t group)
{
    return filler->plan.groups[group].block_seq;
}

enum hw_status hw_lazy_filler_load(struct hw_lazy_filler *filler, uint32_t group,
                                   struct hw_error *err)
{
    enum hw_status status;

    /* Blocks of another fork may be other groups, which look the same. */
    if (hw_core_head(filler->core).fork != hw_lazy_map_origin(filler->map).fork)
        return hw_fail(err, HW_EFORK, "the log has gone over to another fork");
    filler->loaded = UINT32_MAX;
    status = hw_replay_group_read(&filler->replay, group, &filler->page_count, err);
    if (status == HW_OK)
        filler->loaded = group;
    return status;
}

/* Pages [first, end) of the loaded group. */
static enum hw_status store_run(struct hw_lazy_filler *filler, uint32_t first, uint32_t end,
                                hw_lazy_write *put, void *ctx, struct hw_error *err)
{
    size_t page_size = filler->replay.page_size;
    const uint8_t *bytes = filler->replay.group_pages + first * page_size;
    size_t left = (end - first) * page_size;
    uint64_t offset = ((uint64_t)filler->loaded * HW_GROUP_PAGES + first) * page_size;
    enum hw_status status = HW_OK;

    while (status == HW_OK && left > 0) {
        size_t part = left < WRITE_SIZE ? left : WRITE_SIZE;

        status = put(ctx, offset, bytes, part, err);
        bytes += part;
        offset += part;
        left -= part;
    }
    return status;
}

enum hw_status hw_lazy_filler_store(struct hw_lazy_filler *filler, hw_lazy_write *put, void *ctx,
                                    struct hw_error *err)
{
    uint64_t present = hw_lazy_group(filler->map, filler->loaded);
    enum hw_status status = HW_OK;
    uint32_t first = 0;

    for (uint32_t i = 0; status == HW_OK && i <= filler->page_count; i++) {
        if (i < filler->page_count && (present >> i & 1) == 0)
            continue;
        if (i > first)
            status = store_run(filler, first, i, put, ctx, err);
        first = i + 1;
    }
    /* Pages that the group has not got come from entries, should there be any. */
    if (status == HW_OK)
        hw_lazy_mark_group(filler->map, filler->loaded);
    return status;
}

/* ------------------------------------------------------------------------------ the entries */

struct hw_lazy_entries {
    struct hw_replay_plan plan; /* owned: of the newest snapshot; lists nothing if there is none */
};

enum hw_status hw_lazy_entries_open(struct hw_core *core, struct hw_lazy_entries **out,
                                    struct hw_error *err)
{
    struct hw_lazy_entries *entries = hw_zalloc(sizeof(*entries));
    struct hw_snapshot snapshot;
    uint64_t index_seq;
    enum hw_status status;

    if (entries == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to look at a log");
    status = hw_block_genesis(core, &entries->plan.genesis, err);
    if (status == HW_OK)
        status = hw_replay_newest_snapshot(core, &index_seq, &snapshot, err);
    if (status == HW_OK)
        status = hw_replay_plan_snapshot(core, index_seq, &entries->plan, err);
    if (status == HW_ENOTFOUND)
        status = HW_OK;
    if (status != HW_OK) {
        hw_lazy_entries_close(entries);
        return status;
    }
    *out = entries;
    return HW_OK;
}

void hw_lazy_entries_close(struct hw_lazy_entries *entries)
{
    if (entries == NULL)
        return;
    hw_replay_plan_release(&entries->plan);
    hw_free(entries);
}

bool hw_lazy_entries_skip(void *entries, uint64_t seq)
{
    return hw_replay_plan_lists(&((struct hw_lazy_entries *)entries)->plan, seq);
}

void hw_lazy_entries_tell(struct hw_lazy_entries *entries, uint64_t start, uint64_t end,
                          hw_block_range *each, void *ctx)
{
    for (uint64_t seq = start; seq < end; seq++) {
        if (!hw_replay_plan_lists(&entries->plan, seq))
            continue;
        if (seq > start)
            each(ctx, start, seq);
        start = seq + 1;
    }
    if (end > start)
        each(ctx, start, end);
}

bool hw_lazy_is_outdated(const struct hw_lazy_entries *entries, uint64_t seq)
{
    return entries->plan.listed != NULL && entries->plan.snapshot.least_base > seq;
}
