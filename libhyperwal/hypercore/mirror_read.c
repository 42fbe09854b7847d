/* Blocks of a mirror, and what is held. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

static_assert((int)HW_MIRROR_LOOK == (int)HW_MIRROR_PAGE, "a look does not go beyond a page");

enum {
    TRIES = 3,   /* looks at what is written meanwhile */
    FETCHES = 3, /* times that somebody is asked for a block */
};

enum hw_status hw_mirror_block_start(struct hw_core *core, uint64_t index, uint64_t *out,
                                     struct hw_error *err)
{
    uint64_t roots[HW_TREE_ROOTS_MAX], start = 0;
    unsigned count;

    if (index == core->roots.length) {
        *out = core->roots.byte_length;
        return HW_OK;
    }
    if (index == core->mirror->next) {
        *out = core->mirror->next_start;
        return HW_OK;
    }
    count = hw_flat_full_roots(index, roots);
    for (unsigned i = 0; i < count; i++) {
        struct hw_node node;
        bool is_proven = false;
        enum hw_status status = hw_mirror_node(core, roots[i], &node, &is_proven, err);

        if (status == HW_OK && !is_proven)
            status = hw_fail(err, HW_ENOTFOUND, "%s: the size of node %llu is not known", core->dir,
                             (unsigned long long)roots[i]);
        if (status != HW_OK)
            return status;
        if (node.size > UINT64_MAX - start)
            return hw_fail(err, HW_ENOTFOUND, "%s: sizes that cannot be", core->dir);
        start += node.size;
    }
    *out = start;
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- read */

static enum hw_status missing(struct hw_core *core, uint64_t index, struct hw_error *err)
{
    return hw_fail(err, HW_EMISSING, "%s: block %llu was not fetched yet", core->dir,
                   (unsigned long long)index);
}

/* The whole block, checked.  HW_ENOTFOUND, HW_END: it is not there as it should be. */
static enum hw_status read_once(struct hw_core *core, uint64_t index, struct hw_buffer *out,
                                struct hw_error *err)
{
    struct hw_node leaf, found;
    uint64_t start = 0;
    bool is_proven;
    enum hw_status status = hw_mirror_node(core, 2 * index, &leaf, &is_proven, err);

    if (status == HW_OK)
        status = hw_mirror_block_start(core, index, &start, err);
    if (status != HW_OK)
        return status;
    if (leaf.size > HW_BLOCK_SIZE_MAX)
        return HW_END;
    hw_buffer_clear(out);
    if (hw_buffer_extend(out, (size_t)leaf.size) == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a block of %llu bytes", core->dir,
                       (unsigned long long)leaf.size);
    status = hw_mirror_read_data(core, start, (size_t)leaf.size, out->bytes, err);
    if (status != HW_OK)
        return status;
    hw_node_leaf(index, (struct hw_slice){out->bytes, out->size}, &found);
    if (memcmp(found.hash, leaf.hash, HW_HASH_SIZE) != 0)
        return HW_END;
    core->mirror->next = index + 1;
    core->mirror->next_start = start + leaf.size;
    return HW_OK;
}

enum hw_status hw_mirror_read_held(struct hw_core *core, uint64_t index, struct hw_buffer *out,
                                   struct hw_error *err)
{
    bool held = false;
    enum hw_status status = hw_mirror_bit(core, index, &held, err);

    if (status != HW_OK)
        return status;
    if (!held)
        return missing(core, index, err);
    for (unsigned i = 0; i < TRIES; i++) {
        status = read_once(core, index, out, err);
        if (status != HW_ENOTFOUND && status != HW_END)
            return status;
        hw_mirror_forget_nodes(core);
        if (core->mode == HW_CORE_READ)
            hw_mirror_drop_dats(core); /* pruned, and made anew, by the one who writes */
    }
    hw_env_log(core->env, HW_LOG_WARN, "event=mirror_block_damaged log=%s block=%llu", core->dir,
               (unsigned long long)index);
    if (core->mode == HW_CORE_MIRROR && !core->is_poisoned)
        (void)hw_mirror_set_bit(core, index, false, NULL); /* else it is found again */
    return missing(core, index, err);
}

enum hw_status hw_mirror_read(struct hw_core *core, uint64_t index, size_t size,
                              struct hw_buffer *out, struct hw_error *err)
{
    const struct hw_core_fetcher *fetcher = &core->mirror->fetcher;
    enum hw_status status;

    if (index >= core->roots.length)
        return hw_fail(err, HW_ENOTFOUND, "%s: block %llu is not there, the log has %llu",
                       core->dir, (unsigned long long)index,
                       (unsigned long long)core->roots.length);
    status = hw_mirror_read_held(core, index, out, err);
    for (unsigned i = 0; i < FETCHES && status == HW_EMISSING && fetcher->fetch != NULL; i++) {
        status = fetcher->fetch(fetcher->ctx, index, err);
        if (status != HW_OK)
            return status;
        status = hw_mirror_read_held(core, index, out, err);
    }
    /* Also a part comes from a block that was checked: after a crash it may be a hole. */
    if (status == HW_OK && size < out->size)
        out->size = size;
    return status;
}

enum hw_status hw_mirror_block_size(struct hw_core *core, uint64_t index, uint64_t *out,
                                    struct hw_error *err)
{
    struct hw_node leaf;
    enum hw_status status;

    if (index >= core->roots.length)
        return hw_fail(err, HW_ENOTFOUND, "%s: block %llu is not there, the log has %llu",
                       core->dir, (unsigned long long)index,
                       (unsigned long long)core->roots.length);
    status = hw_mirror_node_proven(core, 2 * index, &leaf, err);
    if (status == HW_ENOTFOUND)
        return hw_fail(err, HW_EMISSING, "%s: the size of block %llu is not known yet", core->dir,
                       (unsigned long long)index);
    if (status == HW_OK)
        *out = leaf.size;
    return status;
}

/* ------------------------------------------------------------------------------ what is held */

enum hw_status hw_mirror_find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                              uint64_t *found, uint64_t *checked, struct hw_error *err)
{
    uint8_t bytes[HW_MIRROR_LOOK];
    uint64_t first = start - start % 8, stop = first;
    enum hw_status status = HW_OK;

    *found = end;
    *checked = start;
    /* Up to where a page ends, which the one who writes it has at hand. */
    stop += UINT64_C(8) * (HW_MIRROR_LOOK - first / 8 % HW_MIRROR_LOOK);
    if (stop > end)
        stop = end;
    if (stop > first)
        status = hw_mirror_read_bits(core, first / 8, (size_t)(stop - first + 7) / 8, bytes, err);
    if (status != HW_OK)
        return status;
    for (uint64_t at = start; at < stop; at++) {
        uint8_t byte = bytes[(at - first) / 8];

        if (byte == (held ? 0 : 0xff) && at % 8 == 0 && stop - at >= 8 &&
            at + 8 <= core->roots.length) {
            at += 7; /* all eight are of the other kind */
            continue;
        }
        if ((at < core->roots.length && (byte >> at % 8 & 1) != 0) == held) {
            *found = *checked = at;
            return HW_OK;
        }
    }
    *checked = stop;
    return HW_OK;
}

enum hw_status hw_mirror_bits(struct hw_core *core, uint64_t start, size_t count, uint32_t *out,
                              struct hw_error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t block = start + 32 * (uint64_t)i;
        uint8_t bytes[4] = {0};
        enum hw_status status = HW_OK;

        if (block < core->roots.length)
            status = hw_mirror_read_bits(core, block / 8, sizeof(bytes), bytes, err);
        if (status != HW_OK)
            return status;
        out[i] = hw_get_le32(bytes);
        if (block < core->roots.length && core->roots.length - block < 32)
            out[i] &= (UINT32_C(1) << (core->roots.length - block)) - 1;
    }
    return HW_OK;
}

/* ---------------------------------------------------------------------------------- figures */

struct sum { /* of the sizes of a mirror's files */
    const struct hw_core *core;
    uint64_t bytes;
};

/* A replica has files of its own beside those. */
static bool is_ours(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strcmp(name, "mirror") == 0 || strcmp(name, "head") == 0 || strcmp(name, "nodes") == 0 ||
           strcmp(name, "have") == 0 || strcmp(name, "tail") == 0 ||
           (dot != NULL && strcmp(dot, ".dat") == 0);
}

static bool add_file(void *ctx, const char *name)
{
    struct sum *sum = ctx;
    const struct hw_env_ops *ops = sum->core->env->ops;
    struct hw_file_stat stat;
    char *path;

    if (!is_ours(name))
        return true;
    path = hw_format("%s/%s", sum->core->dir, name);
    if (path != NULL && ops->stat(sum->core->env, path, &stat, NULL) == HW_OK)
        sum->bytes += stat.allocated < stat.size ? stat.allocated : stat.size;
    hw_free(path);
    return true;
}

uint64_t hw_mirror_stored_bytes(const struct hw_core *core)
{
    struct sum sum = {.core = core};

    /* A figure for people: less is better than nothing. */
    (void)core->env->ops->list(core->env, core->dir, add_file, &sum, NULL);
    return sum.bytes;
}
