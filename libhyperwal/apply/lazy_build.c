/*
 * The first state of a lazy replica: hw_lazy_build() of apply/lazy.h.
 *
 * What entries changed after the snapshot goes into the file, and so do the groups that hold the
 * images which those entries are differences to.  All else stays a hole.
 */
#include <string.h>

#include "apply/lazy.h"
#include "apply/replay.h"
#include "base/alloc.h"

struct build {
    struct hw_env *env;         /* borrowed */
    struct hw_file *file;       /* owned */
    struct hw_lazy_map *map;    /* owned */
    struct hw_replay_plan plan; /* owned */
    struct hw_replay replay;    /* owned */
    struct hw_lazy_filler *filler;
    hw_block_range *ahead;
    void *ahead_ctx;
};

/* ------------------------------------------------------------------------ pages in the file */

static enum hw_status write_bytes(void *ctx, uint64_t offset, const void *bytes, size_t size,
                                  struct hw_error *err)
{
    struct build *build = ctx;

    return build->env->ops->write_at(build->file, offset, bytes, size, err);
}

static enum hw_status page_read(void *ctx, uint32_t page_number, void *content,
                                struct hw_error *err)
{
    struct build *build = ctx;
    size_t page_size = build->plan.genesis.page_size;
    enum hw_status status = HW_OK;

    if (!hw_lazy_has(build->map, page_number)) {
        status = hw_lazy_filler_load(build->filler, (page_number - 1) / HW_GROUP_PAGES, err);
        if (status == HW_OK)
            status = hw_lazy_filler_store(build->filler, write_bytes, build, err);
    }
    if (status == HW_OK)
        status = build->env->ops->read_at(build->file, (page_number - 1) * (uint64_t)page_size,
                                          content, page_size, err);
    return status == HW_END ? HW_OK : status; /* beyond the end are zeros */
}

static enum hw_status page_write(void *ctx, uint32_t page_number, const void *content,
                                 struct hw_error *err)
{
    struct build *build = ctx;
    size_t page_size = build->plan.genesis.page_size;
    enum hw_status status = build->env->ops->write_at(
        build->file, (page_number - 1) * (uint64_t)page_size, content, page_size, err);

    if (status == HW_OK)
        hw_lazy_mark(build->map, page_number);
    return status;
}

static enum hw_status pages_cut(void *ctx, uint32_t page_count, struct hw_error *err)
{
    struct build *build = ctx;

    hw_lazy_mark_above(build->map, page_count);
    return build->env->ops->truncate(build->file,
                                     (uint64_t)page_count * build->plan.genesis.page_size, err);
}

/* ------------------------------------------------------------------------------- what comes */

/* Groups whose images the transaction in `body` needs. */
static void tell_groups(struct build *build, uint64_t seq, struct hw_cursor *body, uint8_t *told)
{
    struct hw_transaction transaction;

    if (hw_transaction_decode(build->replay.decoder, body, build->plan.genesis.page_size,
                              &transaction, NULL) != HW_OK)
        return; /* the replay will say so */
    for (uint32_t i = 0; i < transaction.change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(build->replay.decoder, i, &needed);
        uint32_t group = (page - 1) / HW_GROUP_PAGES;
        const struct hw_snapshot_group *listed = &build->plan.groups[group];

        if (group >= build->plan.snapshot.group_count || listed->base_seq >= seq ||
            (told[group / 8] >> group % 8 & 1) != 0)
            continue;
        told[group / 8] |= (uint8_t)(1 << group % 8);
        build->ahead(build->ahead_ctx, listed->block_seq, listed->block_seq + 1);
    }
}

/* So that what the replay needs is under way at once, and not one group after the other. */
static enum hw_status tell_ahead(struct build *build, struct hw_core *core, struct hw_error *err)
{
    uint32_t group_count = build->plan.snapshot.group_count;
    uint8_t *told;
    enum hw_status status = HW_OK;

    if (build->ahead == NULL || build->plan.from_empty)
        return HW_OK;
    told = hw_zalloc(group_count / 8 + 1);
    if (told == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a bit a page group");
    for (uint64_t seq = build->plan.first_seq; seq <= build->plan.target.seq; seq++)
        if (!hw_replay_plan_lists(&build->plan, seq))
            build->ahead(build->ahead_ctx, seq, seq + 1);
    if (group_count > 0)
        build->ahead(build->ahead_ctx, build->plan.groups[0].block_seq,
                     build->plan.groups[0].block_seq + 1);
    for (uint64_t seq = build->plan.first_seq; status == HW_OK && seq <= build->plan.target.seq;
         seq++) {
        struct hw_entry_header header;
        struct hw_cursor body;

        if (hw_replay_plan_lists(&build->plan, seq))
            continue;
        status = hw_block_read(core, seq, &build->replay.block, &header, &body, err);
        if (status == HW_OK && header.type == HW_ENTRY_TRANSACTION)
            tell_groups(build, seq, &body, told);
    }
    hw_free(told);
    return status;
}

/* --------------------------------------------------------------------------------- the whole */

static enum hw_status begin(struct build *build, struct hw_core *core, const char *file_path,
                            const char *map_path, struct hw_error *err)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_replay_pages pages = {build, page_read, page_write, pages_cut};
    struct hw_lazy_origin origin = {.fork = hw_core_head(core).fork};
    const struct hw_env_ops *ops = build->env->ops;
    enum hw_status status = hw_replay_plan_make(core, &head, &build->plan, err);

    if (status == HW_OK && build->plan.target.page_count == 0)
        status = hw_fail(err, HW_ENOTFOUND, "the database is empty yet");
    if (status != HW_OK)
        return status;
    memcpy(origin.key, hw_core_identity(core)->key, HW_KEY_SIZE);
    origin.index_seq = build->plan.from_empty ? UINT64_MAX : build->plan.index_seq;
    origin.page_size = build->plan.genesis.page_size;
    origin.group_count = build->plan.from_empty ? 0 : build->plan.snapshot.group_count;
    status = ops->open(build->env, file_path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE,
                       &build->file, err);
    if (status == HW_OK)
        status = ops->truncate(build->file, 0, err); /* left by one that did not end */
    if (status == HW_OK)
        status = hw_lazy_map_create(build->env, map_path, &origin, &build->map, err);
    if (status == HW_OK)
        status = hw_lazy_filler_open(core, build->map, &build->filler, err);
    if (status == HW_OK)
        status = hw_replay_init(&build->replay, core, &build->plan, &pages, false, err);
    return status;
}

static enum hw_status replay_all(struct build *build, struct hw_core *core, struct hw_error *err)
{
    const struct hw_state *target = &build->plan.target;
    enum hw_status status = tell_ahead(build, core, err);

    while (status == HW_OK && build->replay.next_seq <= target->seq)
        status = hw_replay_block(&build->replay, err);
    if (status == HW_OK)
        status = hw_replay_finish(&build->replay, err);
    /* SQLite looks at the first page before anybody may wait for it. */
    if (status == HW_OK)
        status = page_read(build, 1, build->replay.page, err);
    if (status == HW_OK)
        status = build->env->ops->truncate(build->file,
                                           (uint64_t)target->page_count * target->page_size, err);
    return status;
}

static void build_release(struct build *build)
{
    hw_lazy_filler_close(build->filler);
    hw_replay_release(&build->replay);
    hw_replay_plan_release(&build->plan);
    hw_lazy_map_close(build->map);
    if (build->file != NULL)
        build->env->ops->close(build->file);
}

enum hw_status hw_lazy_build(struct hw_env *env, struct hw_core *core, const char *path,
                             const char *map_path, hw_block_range *ahead, void *ctx,
                             struct hw_state *reached, struct hw_error *err)
{
    struct build build = {.env = env, .ahead = ahead, .ahead_ctx = ctx};
    char *file_tmp = hw_format("%s.tmp", path), *map_tmp = hw_format("%s.tmp", map_path);
    enum hw_status status;

    if (file_tmp == NULL || map_tmp == NULL)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for a path", path);
    else
        status = begin(&build, core, file_tmp, map_tmp, err);
    if (status == HW_OK)
        status = replay_all(&build, core, err);
    if (status == HW_OK)
        *reached = build.plan.target;
    build_release(&build);
    /* The map last: without it the database is made anew, whatever there is of it. */
    if (status == HW_OK)
        status = env->ops->rename(env, file_tmp, path, err);
    if (status == HW_OK)
        status = env->ops->rename(env, map_tmp, map_path, err);
    hw_free(file_tmp);
    hw_free(map_tmp);
    return status;
}
