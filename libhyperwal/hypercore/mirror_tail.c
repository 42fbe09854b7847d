/*
 * The tail of a mirror: what was accepted since everything was synced, in one file that one write
 * and one fdatasync make durable.  Its bytes are written once before they are used, so that no sync
 * has to tell the file system of them, and then used again and again, each time under a new salt.
 */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum {
    HEADER = HW_MIRROR_TAIL_HEADER_SIZE,
    BEFORE = HEADER + 4,   /* bytes of the news before the first item */
    AFTER = 8,             /* the sum */
    FILL = 64 << 10,       /* bytes that are written at once to make it larger */
    NEWS_KEPT = 128 << 10, /* bytes of memory for the news that are not given back */
};

/* ---------------------------------------------------------------------------------- files */

static enum hw_status open_file(struct hw_core *core, const char *path, unsigned flags,
                                struct hw_error *err)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    struct hw_file *file = NULL;
    struct hw_file_stat stat;
    enum hw_status status =
        core->env->ops->open(core->env, path, HW_OPEN_READ | HW_OPEN_WRITE | flags, &file, err);

    if (status != HW_OK)
        return status;
    status = core->env->ops->stat_file(file, &stat, err);
    if (status != HW_OK) {
        core->env->ops->close(file);
        return status;
    }
    tail->file = file;
    tail->capacity = stat.size;
    return HW_OK;
}

enum hw_status hw_mirror_tail_open(struct hw_core *core, bool create, struct hw_error *err)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    enum hw_status status;
    char *path;

    tail->first_size = HW_MIRROR_TAIL_FIRST;
    tail->size = HW_MIRROR_TAIL_SIZE;
    if (core->mode != HW_CORE_MIRROR || core->memory != NULL)
        return HW_OK; /* what is in memory has no syncs to spare */
    path = hw_format("%s/tail", core->dir);
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open the mirror", core->dir);
    /* That of a mirror that was here before must not be taken for ours. */
    status = create ? core->env->ops->remove(core->env, path, err) : open_file(core, path, 0, err);
    hw_free(path);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

void hw_mirror_tail_close(struct hw_core *core)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;

    core->env->ops->close(tail->file);
    hw_buffer_release(&tail->news);
    *tail = (struct hw_mirror_tail){.file = NULL};
}

/* ---------------------------------------------------------------------------------- news */

static void clear_news(struct hw_mirror_tail *tail)
{
    tail->has_head = false;
    if (tail->news.failed || tail->news.capacity > NEWS_KEPT)
        hw_buffer_release(&tail->news);
    else
        hw_buffer_clear(&tail->news);
}

void hw_mirror_tail_spoil(struct hw_core *core)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;

    tail->is_based = false;
    clear_news(tail);
}

static void add_item(struct hw_core *core, const struct hw_mirror_item *item)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;

    if (!tail->is_based)
        return;
    if (tail->news.size == 0)
        hw_buffer_extend(&tail->news, BEFORE);
    if (tail->news.size + item->data.size <= HW_MIRROR_NEWS_MAX)
        hw_mirror_item_encode(item, &core->mirror->scratch, &tail->news);
    else
        tail->news.failed = true;
    if (tail->news.failed) /* too much at once; or no memory, and then it takes more syncs */
        hw_mirror_tail_spoil(core);
}

void hw_mirror_tail_node(struct hw_core *core, const struct hw_node *node, bool is_proven)
{
    struct hw_mirror_item item = {.kind = HW_MIRROR_NODE, .is_proven = is_proven};

    item.node = *node;
    add_item(core, &item);
}

void hw_mirror_tail_block(struct hw_core *core, uint64_t block, uint64_t start,
                          struct hw_slice data)
{
    struct hw_mirror_item item = {
        .kind = HW_MIRROR_BLOCK, .block = block, .start = start, .data = data};

    add_item(core, &item);
}

void hw_mirror_tail_head(struct hw_core *core)
{
    core->mirror->tail.has_head = core->mirror->tail.is_based;
}

/* ---------------------------------------------------------------------------------- sync */

/* Once a record, however often it moved. */
static void add_head(struct hw_core *core)
{
    struct hw_core_mirror *mirror = core->mirror;
    struct hw_mirror_item item = {
        .kind = HW_MIRROR_HEAD,
        .head = {.generation = mirror->generation,
                 .fork = core->fork,
                 .roots = core->roots,
                 .signature = {mirror->signature.bytes, mirror->signature.size}},
    };

    add_item(core, &item);
    mirror->tail.has_head = false;
}

/* The news as a record, behind a header if it is the first; *chain: with it. */
static void seal(struct hw_core *core, struct hw_mirror_chain *chain)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    struct hw_buffer *news = &tail->news;
    uint8_t salt[16];

    *chain = tail->chain;
    if (tail->end == 0) {
        core->env->ops->random(core->env, salt, sizeof(salt));
        hw_mirror_tail_begin(core->fork, salt, news->bytes);
        *chain = hw_mirror_chain_begin(news->bytes, core->identity.key);
    }
    hw_put_le32(news->bytes + HEADER, (uint32_t)(news->size - BEFORE));
    *chain =
        hw_mirror_chain_next(chain, (struct hw_slice){news->bytes + HEADER, news->size - HEADER});
    hw_buffer_add(news, chain->hash, AFTER);
}

enum hw_status hw_mirror_tail_sync(struct hw_core *core, bool *done, struct hw_error *err)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    const struct hw_env_ops *ops = core->env->ops;
    struct hw_mirror_chain chain;
    size_t skipped = tail->end == 0 ? 0 : HEADER;
    uint64_t end;
    enum hw_status status;

    *done = tail->is_based && tail->news.size == 0 && !tail->has_head;
    if (*done)
        return HW_OK;
    if (tail->has_head)
        add_head(core);
    if (!tail->is_based || tail->news.size == 0)
        return HW_OK;
    end = tail->end + (tail->news.size - skipped) + AFTER;
    tail->was_short = end > tail->capacity;
    if (tail->was_short)
        return HW_OK;
    seal(core, &chain);
    if (tail->news.failed) {
        hw_mirror_tail_spoil(core);
        return HW_OK;
    }
    tail->is_void = false;
    status = ops->write_at(tail->file, tail->end, tail->news.bytes + skipped,
                           tail->news.size - skipped, NULL);
    if (status != HW_OK) { /* the other files may bear more */
        hw_mirror_tail_spoil(core);
        return HW_OK;
    }
    status = ops->sync(tail->file, err);
    if (status != HW_OK)
        return hw_core_poison(core, status);
    tail->end = end;
    tail->chain = chain;
    clear_news(tail);
    *done = true;
    return HW_OK;
}

void hw_mirror_tail_restart(struct hw_core *core)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;

    clear_news(tail);
    tail->is_based = core->memory == NULL;
    tail->end = 0;
}

/* ---------------------------------------------------------------------------------- larger */

static enum hw_status make_file(struct hw_core *core)
{
    char *path = hw_format("%s/tail", core->dir);
    enum hw_status status = HW_ENOMEM;

    if (path != NULL)
        status = open_file(core, path, HW_OPEN_CREATE, NULL);
    hw_free(path);
    if (status == HW_OK)
        core->mirror->names_dirty = true;
    return status;
}

static enum hw_status fill(struct hw_core *core, uint64_t size)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    uint8_t *zeros = hw_zalloc(FILL);
    enum hw_status status = zeros == NULL ? HW_ENOMEM : HW_OK;

    for (uint64_t at = tail->capacity; at < size && status == HW_OK;) {
        size_t part = size - at < FILL ? (size_t)(size - at) : FILL;

        status = core->env->ops->write_at(tail->file, at, zeros, part, NULL);
        at += part;
    }
    hw_free(zeros);
    if (status == HW_OK)
        status = core->env->ops->sync(tail->file, NULL);
    return status;
}

void hw_mirror_tail_grow(struct hw_core *core)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    uint64_t size = tail->capacity < tail->first_size ? tail->first_size : 2 * tail->capacity;
    enum hw_status status = HW_OK;

    if (!tail->was_short || size > tail->size)
        return;
    tail->was_short = false;
    if (tail->file == NULL)
        status = make_file(core);
    if (status == HW_OK)
        status = fill(core, size);
    if (status == HW_OK && core->mirror->names_dirty) {
        status = core->env->ops->sync_dir(core->env, core->dir, NULL);
        core->mirror->names_dirty = status != HW_OK;
    }
    if (status == HW_OK)
        tail->capacity = size;
}

/* -------------------------------------------------------------------------------- retire */

enum hw_status hw_mirror_tail_retire(struct hw_core *core, struct hw_error *err)
{
    static const uint8_t nothing[HEADER];
    struct hw_mirror_tail *tail = &core->mirror->tail;
    enum hw_status status = hw_mirror_sync_files(core, err);

    hw_mirror_tail_spoil(core);
    if (status != HW_OK || tail->is_void || tail->capacity < HEADER)
        return status;
    status = core->env->ops->write_at(tail->file, 0, nothing, sizeof(nothing), err);
    if (status != HW_OK)
        return status;
    status = core->env->ops->sync(tail->file, err);
    tail->is_void = status == HW_OK;
    return status == HW_OK ? HW_OK : hw_core_poison(core, status);
}

/* -------------------------------------------------------------------------------- replay */

/*
 * Written although it may be there: after a sync that failed it may be in the page cache alone, and
 * what is not written, the next sync does not write.
 */
static enum hw_status store_node(struct hw_core *core, const struct hw_mirror_item *item,
                                 struct hw_error *err)
{
    struct hw_mirror_cached node = {
        .node = item->node, .is_held = true, .is_proven = item->is_proven};
    struct hw_node held;
    bool is_proven = false;
    enum hw_status status = HW_OK;

    if (!item->is_proven)
        status = hw_mirror_node(core, item->node.index, &held, &is_proven, err);
    if (status != HW_OK && status != HW_ENOTFOUND)
        return status;
    /* Better was known when the writer ended, and never synced. */
    if (is_proven && memcmp(held.hash, item->node.hash, HW_HASH_SIZE) == 0)
        node = (struct hw_mirror_cached){.node = held, .is_held = true, .is_proven = true};
    return hw_mirror_write_nodes(core, &node, 1, err);
}

static enum hw_status store_block(struct hw_core *core, const struct hw_mirror_item *item,
                                  struct hw_error *err)
{
    uint8_t byte = 0;
    enum hw_status status = hw_mirror_write_data(core, item->start, item->data, err);

    if (status == HW_OK)
        status = hw_mirror_read_bits(core, item->block / 8, 1, &byte, err);
    byte = (uint8_t)(byte | 1U << item->block % 8);
    if (status == HW_OK)
        status = hw_mirror_write_bits(core, item->block / 8, &byte, 1, err);
    return status;
}

static enum hw_status store_item(struct hw_core *core, const struct hw_mirror_item *item,
                                 struct hw_error *err)
{
    switch (item->kind) {
    case HW_MIRROR_NODE:
        return store_node(core, item, err);
    case HW_MIRROR_BLOCK:
        return store_block(core, item, err);
    case HW_MIRROR_HEAD:
        break;
    }
    if (item->head.fork != core->fork || item->head.roots.length <= core->roots.length)
        return HW_OK; /* the one we have is as new */
    return hw_mirror_write_head(core, core->fork, &item->head.roots, item->head.signature, err);
}

static enum hw_status store_record(struct hw_core *core, struct hw_slice items,
                                   struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(items.bytes, items.size);
    struct hw_mirror_item item = {.kind = HW_MIRROR_NODE};
    enum hw_status status;

    while ((status = hw_mirror_item_decode(&cursor, &item, err)) == HW_OK) {
        status = store_item(core, &item, err);
        if (status != HW_OK)
            break;
    }
    return status == HW_END ? HW_OK : status;
}

/* `size` bytes at `offset` into the news.  HW_END: the file has fewer. */
static enum hw_status read_part(struct hw_core *core, uint64_t offset, size_t size,
                                struct hw_error *err)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    enum hw_status status;

    if (tail->capacity < size || tail->capacity - size < offset)
        return HW_END;
    hw_buffer_clear(&tail->news);
    if (hw_buffer_extend(&tail->news, size) == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to read the tail of the mirror", core->dir);
    status = core->env->ops->read_at(tail->file, offset, tail->news.bytes, size, err);
    if (status == HW_END) /* what was synced must not be taken for lost */
        status = hw_fail(err, HW_EIO, "%s/tail: shrank while it was read", core->dir);
    return status;
}

/* Store the record at `*at`, and go behind it.  HW_END: there is none. */
static enum hw_status replay_record(struct hw_core *core, uint64_t *at,
                                    struct hw_mirror_chain *chain, struct hw_error *err)
{
    const struct hw_buffer *news = &core->mirror->tail.news;
    struct hw_mirror_chain next;
    size_t size;
    enum hw_status status = read_part(core, *at, 4, err);

    if (status != HW_OK)
        return status;
    size = hw_get_le32(news->bytes);
    if (size == 0 || size > HW_MIRROR_RECORD_MAX)
        return HW_END;
    status = read_part(core, *at, 4 + size + AFTER, err);
    if (status != HW_OK)
        return status;
    next = hw_mirror_chain_next(chain, (struct hw_slice){news->bytes, 4 + size});
    if (memcmp(next.hash, news->bytes + 4 + size, AFTER) != 0)
        return HW_END;
    status = store_record(core, (struct hw_slice){news->bytes + 4, size}, err);
    if (status != HW_OK)
        return hw_prefix(err, status, "%s/tail, offset %llu", core->dir, (unsigned long long)*at);
    *chain = next;
    *at += 4 + size + AFTER;
    return HW_OK;
}

enum hw_status hw_mirror_tail_replay(struct hw_core *core, struct hw_error *err)
{
    struct hw_mirror_tail *tail = &core->mirror->tail;
    struct hw_mirror_chain chain;
    uint64_t at = HEADER, fork = 0;
    enum hw_status status = read_part(core, 0, HEADER, err);

    if (status == HW_OK && (!hw_mirror_tail_decode(tail->news.bytes, &fork) || fork != core->fork))
        status = HW_END;
    if (status == HW_OK)
        chain = hw_mirror_chain_begin(tail->news.bytes, core->identity.key);
    while (status == HW_OK)
        status = replay_record(core, &at, &chain, err);
    clear_news(tail);
    if (status != HW_END || at == HEADER)
        return status == HW_END ? HW_OK : status;
    hw_env_log(core->env, HW_LOG_DEBUG, "event=mirror_tail_replayed log=%s bytes=%llu", core->dir,
               (unsigned long long)at);
    return hw_mirror_tail_retire(core, err);
}
