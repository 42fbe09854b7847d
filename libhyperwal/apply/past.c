/*
 * A read-only view of one state: hw_past_open() of apply/apply.h.
 *
 * The pages that entries after the snapshot changed are laid into a scratch file at their places,
 * with one bit a page in memory; every other page is in its group, of which the last few expanded
 * are kept.  Without such entries there is no scratch file.
 */
#include <string.h>

#include "apply/replay.h"
#include "base/alloc.h"

enum { CACHE_BYTES = 2 << 20, CACHE_GROUPS_MAX = 16 };

struct cached_group {
    uint32_t group;
    uint32_t page_count; /* 0: empty */
    uint64_t used;       /* tick of the last use */
    uint8_t *pages;      /* owned; room for HW_GROUP_PAGES */
};

struct hw_past {
    struct hw_env *env;         /* borrowed */
    struct hw_replay_plan plan; /* owned */
    struct hw_replay replay;    /* owned */
    struct hw_file *scratch;    /* owned; NULL until a page is written */
    uint8_t *written;           /* owned; bit p-1: page p is in the scratch file */
    size_t written_size;        /* bytes */
    uint32_t group_pages;       /* pages above this are not taken from their groups */
    struct cached_group cache[CACHE_GROUPS_MAX];
    uint32_t cache_groups; /* how many are used */
    uint64_t tick;
};

static bool is_written(const struct hw_past *past, uint32_t page_number)
{
    size_t byte = (page_number - 1) / 8;

    return byte < past->written_size && (past->written[byte] >> ((page_number - 1) % 8) & 1) != 0;
}

static enum hw_status mark_written(struct hw_past *past, uint32_t page_number, struct hw_error *err)
{
    size_t byte = (page_number - 1) / 8;

    if (byte >= past->written_size) {
        size_t size = past->written_size < 64 ? 64 : past->written_size;
        uint8_t *larger;

        while (size <= byte)
            size *= 2;
        larger = hw_realloc(past->written, size);
        if (larger == NULL)
            return hw_fail(err, HW_ENOMEM, "past state: no memory for %zu bytes", size);
        memset(larger + past->written_size, 0, size - past->written_size);
        past->written = larger;
        past->written_size = size;
    }
    past->written[byte] |= (uint8_t)(1 << (page_number - 1) % 8);
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- the groups */

static struct cached_group *find_cached(struct hw_past *past, uint32_t group)
{
    for (uint32_t i = 0; i < past->cache_groups; i++)
        if (past->cache[i].page_count > 0 && past->cache[i].group == group)
            return &past->cache[i];
    return NULL;
}

static struct cached_group *oldest_cached(struct hw_past *past)
{
    struct cached_group *oldest = &past->cache[0];

    for (uint32_t i = 1; i < past->cache_groups; i++)
        if (past->cache[i].used < oldest->used)
            oldest = &past->cache[i];
    return oldest;
}

/* NULL: *status says why not. */
static struct cached_group *expand_group(struct hw_past *past, uint32_t group,
                                         enum hw_status *status, struct hw_error *err)
{
    struct cached_group *slot = oldest_cached(past);
    size_t page_size = past->replay.page_size;
    uint32_t page_count;
    uint8_t *pages;

    if (slot->pages == NULL)
        slot->pages = hw_alloc(HW_GROUP_PAGES * page_size);
    if (slot->pages == NULL) {
        *status = hw_fail(err, HW_ENOMEM, "past state: no memory for a page group");
        return NULL;
    }
    *status = hw_replay_group_read(&past->replay, group, &page_count, err);
    if (*status != HW_OK)
        return NULL;
    pages = past->replay.group_pages; /* take what was expanded, give the old room for the next */
    past->replay.group_pages = slot->pages;
    *slot = (struct cached_group){.group = group, .page_count = page_count, .pages = pages};
    return slot;
}

static enum hw_status read_from_group(struct hw_past *past, uint32_t page_number, void *content,
                                      struct hw_error *err)
{
    uint32_t group = (page_number - 1) / HW_GROUP_PAGES;
    uint32_t place = (page_number - 1) % HW_GROUP_PAGES;
    size_t page_size = past->replay.page_size;
    enum hw_status status = HW_OK;
    struct cached_group *cached;

    if (page_number > past->group_pages || group >= past->plan.snapshot.group_count) {
        memset(content, 0, page_size);
        return HW_OK;
    }
    cached = find_cached(past, group);
    if (cached == NULL)
        cached = expand_group(past, group, &status, err);
    if (cached == NULL)
        return status;
    cached->used = ++past->tick;
    if (place < cached->page_count)
        memcpy(content, cached->pages + place * page_size, page_size);
    else
        memset(content, 0, page_size);
    return HW_OK;
}

/* ------------------------------------------------------------------- pages, as the replay wants */

static enum hw_status past_page_read(void *ctx, uint32_t page_number, void *content,
                                     struct hw_error *err)
{
    struct hw_past *past = ctx;
    size_t page_size = past->replay.page_size;
    enum hw_status status;

    if (!is_written(past, page_number))
        return read_from_group(past, page_number, content, err);
    status = past->env->ops->read_at(past->scratch, (page_number - 1) * (uint64_t)page_size,
                                     content, page_size, err);
    return status == HW_END ? hw_fail(err, HW_EIO, "past state: the scratch file was cut") : status;
}

static enum hw_status past_page_write(void *ctx, uint32_t page_number, const void *content,
                                      struct hw_error *err)
{
    struct hw_past *past = ctx;
    size_t page_size = past->replay.page_size;
    enum hw_status status = HW_OK;

    if (past->scratch == NULL)
        status = hw_replay_scratch(past->env, &past->scratch, err);
    if (status != HW_OK)
        return status;
    status = past->env->ops->write_at(past->scratch, (page_number - 1) * (uint64_t)page_size,
                                      content, page_size, err);
    return status == HW_OK ? mark_written(past, page_number, err) : status;
}

static enum hw_status past_cut(void *ctx, uint32_t page_count, struct hw_error *err)
{
    struct hw_past *past = ctx;

    (void)err;
    for (uint64_t p = (uint64_t)page_count + 1; p <= past->written_size * 8; p++)
        past->written[(p - 1) / 8] &= (uint8_t) ~(1 << (p - 1) % 8);
    /* Pages given up do not come back from their groups, should the database grow again. */
    if (past->group_pages > page_count)
        past->group_pages = page_count;
    return HW_OK;
}

/* ------------------------------------------------------------------------------------ the view */

void hw_past_close(struct hw_past *past)
{
    if (past == NULL)
        return;
    if (past->scratch != NULL)
        past->env->ops->close(past->scratch);
    hw_replay_release(&past->replay);
    hw_replay_plan_release(&past->plan);
    for (int i = 0; i < CACHE_GROUPS_MAX; i++)
        hw_free(past->cache[i].pages);
    hw_free(past->written);
    hw_free(past);
}

enum hw_status hw_past_open(struct hw_env *env, struct hw_core *core,
                            const struct hw_target *target, struct hw_past **out,
                            struct hw_error *err)
{
    struct hw_past *past = hw_zalloc(sizeof(*past));
    struct hw_replay_pages pages = {past, past_page_read, past_page_write, past_cut};
    enum hw_status status;

    if (past == NULL)
        return hw_fail(err, HW_ENOMEM, "past state: no memory");
    past->env = env;
    past->group_pages = UINT32_MAX;
    status = hw_replay_plan_make(core, target, &past->plan, err);
    if (status == HW_OK)
        status = hw_replay_init(&past->replay, core, &past->plan, &pages, false, err);
    if (status != HW_OK)
        goto fail;
    past->cache_groups = CACHE_BYTES / (HW_GROUP_PAGES * past->replay.page_size);
    if (past->cache_groups < 2)
        past->cache_groups = 2;
    if (past->cache_groups > CACHE_GROUPS_MAX)
        past->cache_groups = CACHE_GROUPS_MAX;
    while (status == HW_OK && past->replay.next_seq <= past->plan.target.seq)
        status = hw_replay_block(&past->replay, err);
    if (status == HW_OK)
        status = hw_replay_finish(&past->replay, err);
    if (status != HW_OK)
        goto fail;
    *out = past;
    return HW_OK;

fail:
    hw_past_close(past);
    return status;
}

struct hw_state hw_past_state(const struct hw_past *past)
{
    return past->plan.target;
}

enum hw_status hw_past_read(struct hw_past *past, uint32_t page_number, void *content,
                            struct hw_error *err)
{
    if (page_number == 0)
        return hw_fail(err, HW_EMISUSE, "pages are counted from 1");
    if (page_number > past->plan.target.page_count)
        return HW_END;
    return past_page_read(past, page_number, content, err);
}
