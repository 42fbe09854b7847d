/* What of a log is held, and who signs it: the public face of both kinds of core. */
#include <string.h>

#include "hypercore/mirror_internal.h"

enum { LOOK = 512 }; /* slots looked at in one call */

enum hw_status hw_core_manifest(struct hw_core *core, struct hw_buffer *out, struct hw_error *err)
{
    if (core->mirror != NULL)
        hw_buffer_add(out, core->mirror->manifest.bytes, core->mirror->manifest.size);
    else
        hw_buffer_add(out, core->log.manifest, core->log.manifest_size);
    if (out->failed)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for the manifest", core->dir);
    return HW_OK;
}

uint64_t hw_core_first_kept(const struct hw_core *core)
{
    return core->mirror != NULL ? core->mirror->first_kept : core->log.first_kept;
}

enum hw_status hw_core_refresh_kept(struct hw_core *core, struct hw_error *err)
{
    struct hw_log_file log;
    enum hw_status status;

    if (core->mirror != NULL || core->mode == HW_CORE_WRITE)
        return HW_OK;
    status = hw_log_file_read(core->env, core->dir, &log, err);
    if (status != HW_OK)
        return status;
    if (memcmp(log.key, core->log.key, sizeof(log.key)) != 0)
        return hw_fail(err, HW_EFORK, "%s: another log is in its place", core->dir);
    core->log = log;
    return HW_OK;
}

static bool slot_is_held(const uint8_t bytes[HW_SLOT_SIZE])
{
    struct hw_slot slot;

    hw_slot_decode(bytes, &slot);
    return slot.segment != 0 && !slot.is_pruned;
}

/* Bits of the `count` blocks from `start`, at most LOOK, all within the log. */
static void look_at_slots(struct hw_core *core, uint64_t start, unsigned count, bool out[LOOK])
{
    uint8_t bytes[LOOK * HW_SLOT_SIZE];

    /* What cannot be read is not held. */
    if (hw_tree_file_read_range(&core->tree, start, count, bytes, NULL) != HW_OK)
        memset(bytes, 0, sizeof(bytes));
    for (unsigned i = 0; i < count; i++)
        out[i] = slot_is_held(bytes + (size_t)i * HW_SLOT_SIZE);
}

bool hw_core_has(struct hw_core *core, uint64_t index)
{
    struct hw_slot slot;

    if (core->mirror != NULL)
        return hw_mirror_has(core, index);
    return index < core->roots.length &&
           hw_tree_file_slot(&core->tree, index, &slot, NULL) == HW_OK && slot.segment != 0 &&
           !slot.is_pruned;
}

uint64_t hw_core_find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                      uint64_t *checked)
{
    uint64_t there = core->roots.length < end ? core->roots.length : end;
    bool bits[LOOK];
    unsigned count = LOOK;

    if (core->mirror != NULL)
        return hw_mirror_find(core, start, end, held, checked);
    if (start >= there) { /* beyond the log nothing is held */
        *checked = held ? end : start;
        return held || start >= end ? end : start;
    }
    if (there - start < count)
        count = (unsigned)(there - start);
    look_at_slots(core, start, count, bits);
    for (unsigned i = 0; i < count; i++) {
        if (bits[i] == held) {
            *checked = start + i;
            return start + i;
        }
    }
    *checked = start + count;
    if (*checked == there && there < end && !held)
        return there;
    if (*checked == there && held)
        *checked = end;
    return end;
}

void hw_core_bits(struct hw_core *core, uint64_t start, size_t count, uint32_t *out)
{
    bool bits[LOOK];

    if (core->mirror != NULL) {
        hw_mirror_bits(core, start, count, out);
        return;
    }
    memset(out, 0, count * sizeof(*out));
    for (uint64_t done = 0; done < 32 * (uint64_t)count; done += LOOK) {
        uint64_t block = start + done, left = 32 * (uint64_t)count - done;
        unsigned part = left < LOOK ? (unsigned)left : LOOK;

        if (block >= core->roots.length)
            break;
        if (core->roots.length - block < part)
            part = (unsigned)(core->roots.length - block);
        look_at_slots(core, block, part, bits);
        for (unsigned i = 0; i < part; i++)
            out[(done + i) / 32] |= (bits[i] ? UINT32_C(1) : 0) << (done + i) % 32;
    }
}
