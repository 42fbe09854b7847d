/* Nodes, bits and data of a mirror, each at the place that its index gives. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

enum {
    ORDER_KEPT = 64 << 10, /* bytes of memory for putting nodes in order that are not given back */
};

/* ---------------------------------------------------------------------------------- files */

static enum hw_status open_one(struct hw_core *core, const char *name, unsigned flags,
                               struct hw_file **out, struct hw_error *err)
{
    char *path = hw_format("%s/%s", core->dir, name);
    enum hw_status status = HW_OK;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open the mirror", core->dir);
    /* That of another mirror, which an earlier crash left, must not come back after the next. */
    if ((flags & HW_OPEN_CREATE) != 0)
        status = core->env->ops->remove(core->env, path, err);
    if (status == HW_OK || status == HW_ENOTFOUND)
        status = core->env->ops->open(core->env, path, flags, out, err);
    if (status == HW_ENOTFOUND)
        status = hw_fail(err, HW_ECORRUPT,
                         "%s: missing: remove the mirror's files, it is fetched again", path);
    hw_free(path);
    return status;
}

enum hw_status hw_mirror_files_open(struct hw_core *core, bool create, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    unsigned flags = HW_OPEN_READ;
    enum hw_status status;

    if (core->mode == HW_CORE_MIRROR)
        flags |= HW_OPEN_WRITE;
    if (create)
        flags |= HW_OPEN_CREATE;
    status = open_one(core, "head", flags, &mirror->head, err);
    if (status == HW_OK)
        status = open_one(core, "nodes", flags, &mirror->nodes, err);
    if (status == HW_OK)
        status = open_one(core, "have", flags, &mirror->have, err);
    if (status == HW_OK)
        status = hw_mirror_tail_open(core, create, err);
    mirror->page_at = UINT64_MAX;
    return status;
}

void hw_mirror_files_close(struct hw_core *core)
{
    const struct hw_env_ops *ops = core->env->ops;

    hw_mirror_drop_dats(core);
    hw_mirror_tail_close(core);
    ops->close(core->mirror->head);
    ops->close(core->mirror->nodes);
    ops->close(core->mirror->have);
    core->mirror->head = core->mirror->nodes = core->mirror->have = NULL;
}

/* ---------------------------------------------------------------------------------- nodes */

static struct hw_mirror_cached *cached(struct hw_core_mirror *mirror, uint64_t index)
{
    /* Neighbours and their parents go to different places, and so do the levels above. */
    return &mirror->cache[(index + (index >> 8) + (index >> 16)) & (HW_MIRROR_CACHE - 1)];
}

static void keep_cached(struct hw_core_mirror *mirror, const struct hw_node *node, bool is_proven)
{
    *cached(mirror, node->index) =
        (struct hw_mirror_cached){.node = *node, .is_held = true, .is_proven = is_proven};
}

void hw_mirror_forget_nodes(struct hw_core *core)
{
    for (unsigned i = 0; i < HW_MIRROR_CACHE; i++)
        core->mirror->cache[i].is_held = core->mirror->cache[i].is_missing = false;
    core->mirror->next = UINT64_MAX;
}

static enum hw_status not_held(struct hw_core *core, uint64_t index, struct hw_error *err)
{
    return hw_fail(err, HW_ENOTFOUND, "%s: node %llu is not held", core->dir,
                   (unsigned long long)index);
}

static bool find_root(const struct hw_roots *roots, uint64_t index, struct hw_node *out)
{
    for (unsigned i = 0; i < roots->count; i++) {
        if (roots->nodes[i].index == index) {
            *out = roots->nodes[i];
            return true;
        }
    }
    return false;
}

enum hw_status hw_mirror_node(struct hw_core *core, uint64_t index, struct hw_node *out,
                              bool *is_proven, struct hw_error *err)
{
    struct hw_mirror_cached *known = cached(core->mirror, index);
    uint8_t bytes[HW_MIRROR_NODE_SIZE];
    enum hw_status status;

    *is_proven = true;
    if (find_root(&core->roots, index, out))
        return HW_OK;
    if (known->is_held && known->node.index == index) {
        *out = known->node;
        *is_proven = known->is_proven;
        return HW_OK;
    }
    if (index >= 2 * HW_TREE_LENGTH_MAX || (known->is_missing && known->node.index == index))
        return not_held(core, index, err);
    status = core->env->ops->read_at(core->mirror->nodes, index * HW_MIRROR_NODE_SIZE, bytes,
                                     sizeof(bytes), err);
    if (status < 0)
        return status;
    if (!hw_mirror_node_decode(bytes, index, out, is_proven)) {
        /* Asked for often, until it comes. */
        if (core->mode == HW_CORE_MIRROR)
            *known = (struct hw_mirror_cached){.node = {.index = index}, .is_missing = true};
        return not_held(core, index, err);
    }
    keep_cached(core->mirror, out, *is_proven);
    return HW_OK;
}

enum hw_status hw_mirror_node_any(void *ctx, uint64_t index, struct hw_node *out,
                                  struct hw_error *err)
{
    struct hw_core *core = ctx;
    bool is_proven;

    /* An answer that was stored only in part may have left some beyond. */
    if (hw_flat_right_span(index) >= 2 * core->roots.length)
        return not_held(core, index, err);
    return hw_mirror_node(core, index, out, &is_proven, err);
}

enum hw_status hw_mirror_node_proven(void *ctx, uint64_t index, struct hw_node *out,
                                     struct hw_error *err)
{
    struct hw_core *core = ctx;
    struct hw_node node;
    bool is_proven;
    enum hw_status status;

    if (hw_flat_right_span(index) >= 2 * core->roots.length)
        return not_held(core, index, err);
    status = hw_mirror_node(core, index, &node, &is_proven, err);
    if (status == HW_OK && !is_proven)
        return not_held(core, index, err);
    if (status == HW_OK)
        *out = node;
    return status;
}

static int compare_nodes(const void *one, const void *other)
{
    const struct hw_mirror_cached *a = one, *b = other;

    return a->node.index < b->node.index ? -1 : a->node.index > b->node.index;
}

static bool same_node(const struct hw_node *one, const struct hw_node *other)
{
    return one->index == other->index && one->size == other->size &&
           memcmp(one->hash, other->hash, HW_HASH_SIZE) == 0;
}

/* Is this already there, as good or better? */
static enum hw_status is_stored(struct hw_core *core, const struct hw_mirror_cached *item,
                                bool *out, struct hw_error *err)
{
    const struct hw_mirror_cached *known = cached(core->mirror, item->node.index);
    struct hw_node held;
    bool is_proven = false;
    enum hw_status status;

    *out = known->is_held && known->is_proven && same_node(&known->node, &item->node);
    if (*out || item->is_proven)
        return HW_OK;
    status = hw_mirror_node(core, item->node.index, &held, &is_proven, err);
    *out = status == HW_OK && is_proven && memcmp(held.hash, item->node.hash, HW_HASH_SIZE) == 0;
    return status == HW_ENOTFOUND ? HW_OK : status;
}

enum hw_status hw_mirror_write_nodes(struct hw_core *core, const struct hw_mirror_cached *items,
                                     size_t count, struct hw_error *err)
{
    uint8_t bytes[HW_MIRROR_RUN_MAX * HW_MIRROR_NODE_SIZE];
    enum hw_status status;

    for (size_t i = 0; i < count; i++)
        hw_mirror_node_encode(&items[i].node, items[i].is_proven, bytes + i * HW_MIRROR_NODE_SIZE);
    core->mirror->nodes_dirty = true;
    status =
        core->env->ops->write_at(core->mirror->nodes, items[0].node.index * HW_MIRROR_NODE_SIZE,
                                 bytes, count * HW_MIRROR_NODE_SIZE, err);
    if (status != HW_OK) {
        hw_mirror_forget_nodes(core); /* what is there now is on the disk only */
        hw_mirror_tail_spoil(core);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        keep_cached(core->mirror, &items[i].node, items[i].is_proven);
        hw_mirror_tail_node(core, &items[i].node, items[i].is_proven);
    }
    return HW_OK;
}

static enum hw_status write_sorted(struct hw_core *core, const struct hw_mirror_cached *items,
                                   size_t count, struct hw_error *err)
{
    size_t first = 0, end = 0; /* of the run */
    enum hw_status status = HW_OK;

    for (size_t i = 0; i < count && status == HW_OK; i++) {
        bool stored = false;

        assert(items[i].node.index < 2 * HW_TREE_LENGTH_MAX);
        if (end > first && items[i].node.index == items[end - 1].node.index)
            continue; /* met twice */
        status = is_stored(core, &items[i], &stored, err);
        if (status != HW_OK || stored)
            continue;
        if (end > first && end == i && end - first < HW_MIRROR_RUN_MAX &&
            items[i].node.index == items[end - 1].node.index + 1) {
            end++;
            continue;
        }
        if (end > first)
            status = hw_mirror_write_nodes(core, items + first, end - first, err);
        first = i;
        end = i + 1;
    }
    if (status == HW_OK && end > first)
        status = hw_mirror_write_nodes(core, items + first, end - first, err);
    return status;
}

static bool is_doubted(const struct hw_mirror_doubt *doubt, uint64_t index)
{
    for (unsigned i = 0; i < doubt->count; i++) {
        if (doubt->indices[i] == index)
            return true;
    }
    return doubt->all;
}

enum hw_status hw_mirror_put_nodes(struct hw_core *core, const struct hw_nodes *nodes,
                                   const struct hw_mirror_doubt *doubt, struct hw_error *err)
{
    struct hw_buffer *order = &core->mirror->order;
    size_t count = hw_nodes_count(nodes);
    struct hw_mirror_cached *items;
    enum hw_status status = HW_OK;

    if (count == 0)
        return HW_OK;
    hw_buffer_clear(order);
    items = (struct hw_mirror_cached *)(void *)hw_buffer_extend(order, count * sizeof(*items));
    if (items == NULL) {
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for %zu nodes", core->dir, count);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        items[i] = (struct hw_mirror_cached){.node = *hw_nodes_at(nodes, i), .is_held = true};
        items[i].is_proven = !is_doubted(doubt, items[i].node.index);
    }
    qsort(items, count, sizeof(*items), compare_nodes);
    status = write_sorted(core, items, count, err);
done:
    if (status != HW_OK || order->capacity > ORDER_KEPT)
        hw_buffer_release(order);
    return status;
}

enum hw_status hw_mirror_cut_nodes(struct hw_core *core, uint64_t length, struct hw_error *err)
{
    static const uint8_t nothing[HW_MIRROR_NODE_SIZE];
    uint64_t at = 2 * length;
    enum hw_status status;

    hw_mirror_forget_nodes(core);
    core->mirror->nodes_dirty = true;
    status = core->env->ops->truncate(core->mirror->nodes, at * HW_MIRROR_NODE_SIZE, err);
    /* Parents left of the cut that reach beyond it. */
    for (unsigned level = 0; level < 54 && status == HW_OK; level++) {
        at = hw_flat_parent(at);
        if (at < 2 * length)
            status = core->env->ops->write_at(core->mirror->nodes, at * HW_MIRROR_NODE_SIZE,
                                              nothing, sizeof(nothing), err);
    }
    return status;
}

/* ----------------------------------------------------------------------------------- bits */

static enum hw_status read_bits(struct hw_core *core, uint64_t offset, size_t size, uint8_t *out,
                                struct hw_error *err)
{
    const struct hw_env_ops *ops = core->env->ops;
    struct hw_file *file = core->mirror->have;
    enum hw_status status = ops->read_at(file, offset, out, size, err);
    struct hw_file_stat stat;
    uint64_t there;

    if (status != HW_END)
        return status;
    /* Bits are written back with their neighbours: is this really where the file ends? */
    status = ops->stat_file(file, &stat, err);
    if (status != HW_OK)
        return status;
    memset(out, 0, size);
    there = stat.size > offset ? stat.size - offset : 0;
    if (there == 0)
        return HW_OK;
    status = ops->read_at(file, offset, out, there < size ? (size_t)there : size, err);
    if (status == HW_END)
        status = hw_fail(err, HW_EIO, "%s/have: shrank while it was read", core->dir);
    return status;
}

/* What the page holds is not what is in the file any more, or may not be. */
static void forget_page(struct hw_core *core)
{
    core->mirror->page_at = UINT64_MAX;
}

enum hw_status hw_mirror_read_bits(struct hw_core *core, uint64_t offset, size_t size, uint8_t *out,
                                   struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    uint64_t page_at = offset - offset % HW_MIRROR_PAGE;

    if (core->mode != HW_CORE_MIRROR || offset - page_at + size > HW_MIRROR_PAGE)
        return read_bits(core, offset, size, out, err);
    if (mirror->page_at != page_at) {
        enum hw_status status;

        forget_page(core);
        status = read_bits(core, page_at, HW_MIRROR_PAGE, mirror->page, err);
        if (status != HW_OK)
            return status;
        mirror->page_at = page_at;
    }
    memcpy(out, mirror->page + (offset - page_at), size);
    return HW_OK;
}

enum hw_status hw_mirror_bit(struct hw_core *core, uint64_t block, bool *out, struct hw_error *err)
{
    uint8_t byte = 0;
    enum hw_status status = hw_mirror_read_bits(core, block / 8, 1, &byte, err);

    *out = status == HW_OK && (byte >> block % 8 & 1) != 0;
    return status;
}

enum hw_status hw_mirror_set_bit(struct hw_core *core, uint64_t block, bool value,
                                 struct hw_error *err)
{
    uint8_t byte = 0, changed;
    enum hw_status status = hw_mirror_read_bits(core, block / 8, 1, &byte, err);

    if (status != HW_OK)
        return status;
    changed = (uint8_t)((byte & ~(1U << block % 8)) | (value ? 1U : 0U) << block % 8);
    if (changed == byte)
        return HW_OK;
    return hw_mirror_write_bits(core, block / 8, &changed, 1, err);
}

enum hw_status hw_mirror_write_bits(struct hw_core *core, uint64_t offset, const uint8_t *bytes,
                                    size_t size, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    enum hw_status status;

    mirror->have_dirty = true;
    status = core->env->ops->write_at(mirror->have, offset, bytes, size, err);
    if (status == HW_OK && mirror->page_at <= offset && offset < mirror->page_at + HW_MIRROR_PAGE &&
        size <= mirror->page_at + HW_MIRROR_PAGE - offset)
        memcpy(mirror->page + (offset - mirror->page_at), bytes, size);
    else
        forget_page(core);
    return status;
}

enum hw_status hw_mirror_cut_bits(struct hw_core *core, uint64_t length, struct hw_error *err)
{
    uint8_t byte = 0;
    enum hw_status status = hw_mirror_read_bits(core, length / 8, 1, &byte, err);

    if (status != HW_OK)
        return status;
    forget_page(core);
    core->mirror->have_dirty = true;
    byte = (uint8_t)(byte & ((1U << length % 8) - 1));
    if (length % 8 != 0) /* first: the other bits of this byte are to stay wherever this ends */
        status = core->env->ops->write_at(core->mirror->have, length / 8, &byte, 1, err);
    if (status == HW_OK)
        status = core->env->ops->truncate(core->mirror->have, (length + 7) / 8, err);
    return status;
}

/* ----------------------------------------------------------------------------------- data */

char *hw_mirror_dat_path(const char *dir, uint64_t number)
{
    return hw_format("%s/%08llu.dat", dir, (unsigned long long)number);
}

void hw_mirror_drop_dats(struct hw_core *core)
{
    for (unsigned i = 0; i < HW_MIRROR_DATS_OPEN; i++) {
        core->env->ops->close(core->mirror->dats[i].file);
        core->mirror->dats[i] = (struct hw_mirror_dat){.file = NULL};
    }
}

/* A place for one more open file: a free one, or that of the one not used for longest. */
static enum hw_status free_dat(struct hw_core *core, struct hw_mirror_dat **out,
                               struct hw_error *err)
{
    struct hw_mirror_dat *oldest = &core->mirror->dats[0];
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < HW_MIRROR_DATS_OPEN; i++) {
        struct hw_mirror_dat *at = &core->mirror->dats[i];

        if (at->file == NULL || (oldest->file != NULL && at->used < oldest->used))
            oldest = at;
    }
    if (oldest->is_dirty) /* what we do not remember, the next sync would not cover */
        status = core->env->ops->sync(oldest->file, err);
    if (status != HW_OK)
        return hw_core_poison(core, status);
    core->env->ops->close(oldest->file);
    *oldest = (struct hw_mirror_dat){.file = NULL};
    *out = oldest;
    return HW_OK;
}

/* The file with this number, open; made if it is missing and `create`. */
static enum hw_status find_dat(struct hw_core *core, uint64_t number, bool create,
                               struct hw_mirror_dat **out, struct hw_error *err)
{
    unsigned flags = core->mode == HW_CORE_MIRROR ? HW_OPEN_READ | HW_OPEN_WRITE : HW_OPEN_READ;
    struct hw_mirror_dat *dat = &core->mirror->dats[0];
    struct hw_file *file = NULL;
    char *path;
    enum hw_status status;

    for (unsigned i = 0; i < HW_MIRROR_DATS_OPEN; i++) {
        if (core->mirror->dats[i].file != NULL && core->mirror->dats[i].number == number) {
            *out = &core->mirror->dats[i];
            (*out)->used = ++core->mirror->ticks;
            return HW_OK;
        }
    }
    path = hw_mirror_dat_path(core->dir, number);
    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open a file", core->dir);
    status = core->env->ops->open(core->env, path, flags, &file, err);
    if (status == HW_ENOTFOUND && create) {
        core->mirror->names_dirty = true;
        status = core->env->ops->open(core->env, path, flags | HW_OPEN_CREATE, &file, err);
    }
    hw_free(path);
    if (status != HW_OK)
        return status;
    status = free_dat(core, &dat, err);
    if (status != HW_OK) {
        core->env->ops->close(file);
        return status;
    }
    *dat = (struct hw_mirror_dat){.file = file, .number = number, .used = ++core->mirror->ticks};
    *out = dat;
    return HW_OK;
}

enum hw_status hw_mirror_read_data(struct hw_core *core, uint64_t offset, size_t size, uint8_t *out,
                                   struct hw_error *err)
{
    while (size > 0) {
        uint64_t at = offset % HW_MIRROR_DAT_SIZE;
        size_t part = HW_MIRROR_DAT_SIZE - at < size ? (size_t)(HW_MIRROR_DAT_SIZE - at) : size;
        struct hw_mirror_dat *dat = NULL;
        enum hw_status status = find_dat(core, offset / HW_MIRROR_DAT_SIZE, false, &dat, err);

        if (status == HW_OK)
            status = core->env->ops->read_at(dat->file, at, out, part, err);
        if (status < 0)
            return status;
        offset += part;
        out += part;
        size -= part;
    }
    return HW_OK;
}

enum hw_status hw_mirror_write_data(struct hw_core *core, uint64_t offset, struct hw_slice data,
                                    struct hw_error *err)
{
    if (data.size > 0 && (offset + data.size - 1) / HW_MIRROR_DAT_SIZE > HW_MIRROR_DAT_NUMBER_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: byte %llu is beyond what a mirror can hold", core->dir,
                       (unsigned long long)offset);
    while (data.size > 0) {
        uint64_t at = offset % HW_MIRROR_DAT_SIZE;
        size_t part =
            HW_MIRROR_DAT_SIZE - at < data.size ? (size_t)(HW_MIRROR_DAT_SIZE - at) : data.size;
        struct hw_mirror_dat *dat = NULL;
        enum hw_status status = find_dat(core, offset / HW_MIRROR_DAT_SIZE, true, &dat, err);

        if (status != HW_OK)
            return status;
        dat->is_dirty = true;
        status = core->env->ops->write_at(dat->file, at, data.bytes, part, err);
        if (status != HW_OK)
            return status;
        offset += part;
        data.bytes += part;
        data.size -= part;
    }
    return HW_OK;
}

enum hw_status hw_mirror_punch_data(struct hw_core *core, uint64_t offset, uint64_t size,
                                    struct hw_error *err)
{
    struct hw_mirror_dat *dat = NULL;
    enum hw_status status = find_dat(core, offset / HW_MIRROR_DAT_SIZE, false, &dat, err);

    if (status != HW_OK)
        return status;
    dat->is_dirty = true;
    return core->env->ops->punch(dat->file, offset % HW_MIRROR_DAT_SIZE, size, err);
}

/* ----------------------------------------------------------------------------------- sync */

static bool add_number(void *ctx, const char *name)
{
    uint64_t number = 0;

    if (strlen(name) != 12 || strcmp(name + 8, ".dat") != 0)
        return true;
    for (unsigned i = 0; i < 8; i++) {
        if (name[i] < '0' || name[i] > '9')
            return true;
        number = 10 * number + (uint64_t)(name[i] - '0');
    }
    hw_buffer_add(ctx, &number, sizeof(number));
    return true;
}

enum hw_status hw_mirror_list_dats(struct hw_env *env, const char *dir, struct hw_buffer *out,
                                   struct hw_error *err)
{
    enum hw_status status = env->ops->list(env, dir, add_number, out, err);

    if (status == HW_OK && out->failed)
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for the names of files", dir);
    return status;
}

/* What a writer left that was killed is in the page cache, and nobody knows where. */
static enum hw_status sync_inherited(struct hw_core *core, struct hw_error *err)
{
    struct hw_buffer numbers = {0};
    enum hw_status status = hw_mirror_list_dats(core->env, core->dir, &numbers, err);

    for (size_t at = 0; status == HW_OK && at < numbers.size; at += sizeof(uint64_t)) {
        struct hw_mirror_dat *dat = NULL;
        uint64_t number;

        memcpy(&number, numbers.bytes + at, sizeof(number));
        status = find_dat(core, number, false, &dat, err);
        if (status == HW_OK)
            status = core->env->ops->sync(dat->file, err);
    }
    hw_buffer_release(&numbers);
    core->mirror->dats_dirty = status != HW_OK;
    return status;
}

static enum hw_status sync_one(struct hw_core *core, struct hw_file *file, bool *dirty,
                               struct hw_error *err)
{
    enum hw_status status;

    if (!*dirty)
        return HW_OK;
    status = core->env->ops->sync(file, err);
    if (status == HW_OK)
        *dirty = false;
    return status;
}

/* All of it is on its way when the first one waits: then one commit of a journal does for all. */
static void start_sync(struct hw_core *core)
{
    const struct hw_core_mirror *mirror = core->mirror;
    const struct hw_env_ops *ops = core->env->ops;

    for (unsigned i = 0; i < HW_MIRROR_DATS_OPEN; i++) {
        if (mirror->dats[i].is_dirty)
            ops->start_sync(mirror->dats[i].file, 0, HW_MIRROR_DAT_SIZE);
    }
    if (mirror->nodes_dirty)
        ops->start_sync(mirror->nodes, 0, INT64_MAX);
    if (mirror->have_dirty)
        ops->start_sync(mirror->have, 0, INT64_MAX);
    if (mirror->head_dirty)
        ops->start_sync(mirror->head, 0, INT64_MAX);
}

enum hw_status hw_mirror_sync_files(struct hw_core *core, struct hw_error *err)
{
    struct hw_core_mirror *mirror = core->mirror;
    enum hw_status status = HW_OK;

    start_sync(core);
    if (mirror->dats_dirty)
        status = sync_inherited(core, err);
    for (unsigned i = 0; i < HW_MIRROR_DATS_OPEN && status == HW_OK; i++)
        status = sync_one(core, mirror->dats[i].file, &mirror->dats[i].is_dirty, err);
    if (status == HW_OK)
        status = sync_one(core, mirror->nodes, &mirror->nodes_dirty, err);
    if (status == HW_OK)
        status = sync_one(core, mirror->have, &mirror->have_dirty, err);
    if (status == HW_OK && mirror->names_dirty) {
        status = core->env->ops->sync_dir(core->env, core->dir, err);
        mirror->names_dirty = status != HW_OK;
    }
    if (status == HW_OK)
        status = sync_one(core, mirror->head, &mirror->head_dirty, err);
    if (status != HW_OK)
        return hw_core_poison(core, status);
    mirror->pinned = mirror->slot;
    hw_mirror_tail_restart(core);
    return HW_OK;
}
