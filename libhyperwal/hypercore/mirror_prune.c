/*
 * Giving up bytes of a mirror: bits first, then the room of the data.  A crash between leaves room
 * taken that no bit tells of; it is given back when its whole file goes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/mirror_internal.h"

struct prune {
    struct hw_core *core;
    bool (*keep)(void *ctx, uint64_t index);
    void *ctx;
    bool dry_run;
    uint64_t first_kept, freed;
    uint64_t start, end;    /* bytes to be given back: neighbours, not done yet */
    struct hw_buffer holes; /* {start u64, end u64} of this window */
    struct hw_buffer live;  /* numbers of the files with a block that stays, u64, ascending */
};

static void add_hole(struct prune *prune, uint64_t start, uint64_t size)
{
    prune->freed += size;
    if (start != prune->end) {
        hw_buffer_add(&prune->holes, &prune->start, sizeof(prune->start));
        hw_buffer_add(&prune->holes, &prune->end, sizeof(prune->end));
        prune->start = start;
    }
    prune->end = start + size;
}

static void add_live(struct prune *prune, uint64_t start, uint64_t size)
{
    uint64_t last = (start + (size == 0 ? 0 : size - 1)) / HW_MIRROR_DAT_SIZE;

    for (uint64_t number = start / HW_MIRROR_DAT_SIZE; number <= last; number++) {
        uint64_t before = UINT64_MAX;

        if (prune->live.size > 0)
            memcpy(&before, prune->live.bytes + prune->live.size - sizeof(before), sizeof(before));
        if (before != number)
            hw_buffer_add(&prune->live, &number, sizeof(number));
    }
}

/* One block that is held; *goes: not any more. */
static enum hw_status look_at_block(struct prune *prune, uint64_t index, bool *goes,
                                    struct hw_error *err)
{
    struct hw_core *core = prune->core;
    struct hw_node leaf;
    uint64_t start = 0;
    bool is_proven;
    enum hw_status status = hw_mirror_node(core, 2 * index, &leaf, &is_proven, err);

    if (status == HW_OK)
        status = hw_mirror_block_start(core, index, &start, err);
    *goes = !prune->keep(prune->ctx, index);
    if (*goes)
        prune->first_kept = index + 1;
    if (status == HW_ENOTFOUND)
        return HW_OK; /* a crash took its nodes: nobody can tell where it is */
    if (status != HW_OK)
        return status;
    if (*goes)
        add_hole(prune, start, leaf.size);
    else
        add_live(prune, start, leaf.size);
    core->mirror->next = index + 1;
    core->mirror->next_start = start + leaf.size;
    return HW_OK;
}

static enum hw_status punch(struct prune *prune, uint64_t start, uint64_t end, struct hw_error *err)
{
    struct hw_core *core = prune->core;

    while (start < end) {
        uint64_t at = start % HW_MIRROR_DAT_SIZE, part = HW_MIRROR_DAT_SIZE - at;
        enum hw_status status;

        if (part > end - start)
            part = end - start;
        status = hw_mirror_punch_data(core, start, part, err);
        if (status != HW_OK && status != HW_ENOTFOUND)
            return status;
        start += part;
    }
    return HW_OK;
}

static enum hw_status punch_all(struct prune *prune, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    add_hole(prune, UINT64_MAX, 0); /* close the last one */
    for (size_t at = 0; at < prune->holes.size && status == HW_OK; at += 16) {
        uint64_t hole[2];

        memcpy(hole, prune->holes.bytes + at, sizeof(hole));
        status = punch(prune, hole[0], hole[1], err);
    }
    hw_buffer_clear(&prune->holes);
    prune->start = prune->end = 0;
    return status;
}

/* The blocks whose bits lie in HW_MIRROR_LOOK bytes from `offset`. */
static enum hw_status prune_window(struct prune *prune, uint64_t offset, struct hw_error *err)
{
    struct hw_core *core = prune->core;
    uint8_t bytes[HW_MIRROR_LOOK];
    uint64_t first = 8 * offset, length = core->roots.length;
    size_t count =
        length - first < 8 * sizeof(bytes) ? (size_t)(length - first) : 8 * sizeof(bytes);
    size_t size = (count + 7) / 8;
    bool changed = false;
    enum hw_status status = hw_mirror_read_bits(core, offset, size, bytes, err);

    for (size_t i = 0; i < count && status == HW_OK; i++) {
        bool goes = false;

        if ((bytes[i / 8] >> i % 8 & 1) == 0)
            continue;
        status = look_at_block(prune, first + i, &goes, err);
        if (goes)
            bytes[i / 8] = (uint8_t)(bytes[i / 8] & ~(1U << i % 8));
        changed = changed || goes;
    }
    if (status == HW_OK && changed && !prune->dry_run) {
        status = hw_mirror_write_bits(core, offset, bytes, size, err);
        if (status == HW_OK)
            status = punch_all(prune, err);
    }
    hw_buffer_clear(&prune->holes);
    if (status == HW_OK && (prune->holes.failed || prune->live.failed))
        status = hw_fail(err, HW_ENOMEM, "%s: no memory for pruning", core->dir);
    return status;
}

/* --------------------------------------------------------------------------- whole files */

static int compare_numbers(const void *one, const void *other)
{
    uint64_t a, b;

    memcpy(&a, one, sizeof(a));
    memcpy(&b, other, sizeof(b));
    return a < b ? -1 : a > b;
}

static enum hw_status remove_dead(struct prune *prune, struct hw_error *err)
{
    struct hw_core *core = prune->core;
    struct hw_buffer numbers = {0};
    enum hw_status status = hw_mirror_list_dats(core->env, core->dir, &numbers, err);

    hw_mirror_drop_dats(core);
    for (size_t at = 0; status == HW_OK && at < numbers.size; at += sizeof(uint64_t)) {
        char *path = NULL;
        uint64_t number;

        if (prune->live.size > 0 &&
            bsearch(numbers.bytes + at, prune->live.bytes, prune->live.size / sizeof(uint64_t),
                    sizeof(uint64_t), compare_numbers) != NULL)
            continue;
        memcpy(&number, numbers.bytes + at, sizeof(number));
        path = hw_mirror_dat_path(core->dir, number);
        status = path == NULL ? hw_fail(err, HW_ENOMEM, "%s: no memory for pruning", core->dir)
                              : core->env->ops->remove(core->env, path, err);
        hw_free(path);
    }
    hw_buffer_release(&numbers);
    return status;
}

static enum hw_status run(struct prune *prune, struct hw_error *err)
{
    struct hw_core *core = prune->core;
    uint64_t size = (core->roots.length + 7) / 8;
    /* What is given up must not come back with the tail. */
    enum hw_status status = prune->dry_run ? HW_OK : hw_mirror_tail_retire(core, err);

    for (uint64_t offset = 0; offset < size && status == HW_OK; offset += HW_MIRROR_LOOK)
        status = prune_window(prune, offset, err);
    if (status != HW_OK || prune->dry_run)
        return status;
    if (prune->first_kept > core->mirror->first_kept) {
        core->mirror->first_kept = prune->first_kept;
        status = hw_mirror_write_info(core, err);
    }
    /* Files are closed below, and with them goes what a later sync would have to remember. */
    if (status == HW_OK)
        status = hw_mirror_sync_files(core, err);
    return status == HW_OK ? remove_dead(prune, err) : status;
}

enum hw_status hw_mirror_prune(struct hw_core *core, bool (*keep)(void *ctx, uint64_t index),
                               void *ctx, bool dry_run, uint64_t *freed, struct hw_error *err)
{
    struct prune prune = {.core = core, .keep = keep, .ctx = ctx, .dry_run = dry_run};
    enum hw_status status = dry_run ? HW_OK : hw_mirror_check_writable(core, err);

    if (status == HW_OK)
        status = run(&prune, err);
    if (status == HW_OK)
        *freed = prune.freed;
    hw_buffer_release(&prune.holes);
    hw_buffer_release(&prune.live);
    return status;
}
