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
static enum hw_status look_at_slots(struct hw_core *core, uint64_t start, unsigned count,
                                    bool out[LOOK], struct hw_error *err)
{
    uint8_t bytes[LOOK * HW_SLOT_SIZE];
    enum hw_status status = hw_tree_file_read_range(&core->tree, start, count, bytes, err);

    for (unsigned i = 0; i < count && status == HW_OK; i++)
        out[i] = slot_is_held(bytes + (size_t)i * HW_SLOT_SIZE);
    return status;
}

enum hw_status hw_core_is_held(struct hw_core *core, uint64_t index, bool *out,
                               struct hw_error *err)
{
    struct hw_slot slot;
    enum hw_status status;

    *out = false;
    if (index >= core->roots.length)
        return HW_OK;
    if (core->mirror != NULL)
        return hw_mirror_bit(core, index, out, err);
    status = hw_tree_file_slot(&core->tree, index, &slot, err);
    *out = status == HW_OK && slot.segment != 0 && !slot.is_pruned;
    return status;
}

bool hw_core_has(struct hw_core *core, uint64_t index)
{
    bool is_held;

    return hw_core_is_held(core, index, &is_held, NULL) == HW_OK && is_held;
}

enum hw_status hw_core_find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                            uint64_t *found, uint64_t *checked, struct hw_error *err)
{
    uint64_t there = core->roots.length < end ? core->roots.length : end;
    bool bits[LOOK];
    unsigned count = LOOK;
    enum hw_status status;

    if (core->mirror != NULL)
        return hw_mirror_find(core, start, end, held, found, checked, err);
    *found = end;
    *checked = start;
    if (start >= there) { /* beyond the log nothing is held */
        if (held)
            *checked = end;
        else if (start < end)
            *found = start;
        return HW_OK;
    }
    if (there - start < count)
        count = (unsigned)(there - start);
    status = look_at_slots(core, start, count, bits, err);
    if (status != HW_OK)
        return status;
    for (unsigned i = 0; i < count; i++) {
        if (bits[i] == held) {
            *found = *checked = start + i;
            return HW_OK;
        }
    }
    *checked = start + count;
    if (*checked == there && there < end && !held)
        *found = there;
    else if (*checked == there && held)
        *checked = end;
    return HW_OK;
}

enum hw_status hw_core_bits(struct hw_core *core, uint64_t start, size_t count, uint32_t *out,
                            struct hw_error *err)
{
    bool bits[LOOK];

    if (core->mirror != NULL)
        return hw_mirror_bits(core, start, count, out, err);
    memset(out, 0, count * sizeof(*out));
    for (uint64_t done = 0; done < 32 * (uint64_t)count; done += LOOK) {
        uint64_t block = start + done, left = 32 * (uint64_t)count - done;
        unsigned part = left < LOOK ? (unsigned)left : LOOK;
        enum hw_status status;

        if (block >= core->roots.length)
            break;
        if (core->roots.length - block < part)
            part = (unsigned)(core->roots.length - block);
        status = look_at_slots(core, block, part, bits, err);
        if (status != HW_OK)
            return status;
        for (unsigned i = 0; i < part; i++)
            out[(done + i) / 32] |= (bits[i] ? UINT32_C(1) : 0) << (done + i) % 32;
    }
    return HW_OK;
}
