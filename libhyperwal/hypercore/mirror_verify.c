/*
 * Checking a mirror: the head's signature, every parent whose children are held, every block that
 * is held.  What a crash took is not held, and so not wrong.
 */
#include <string.h>

#include "hypercore/mirror_internal.h"

enum { PROGRESS_EVERY = 1024 };

struct verify {
    struct hw_core *core;
    bool (*progress)(void *ctx, uint64_t checked, uint64_t length);
    void *ctx;
    struct hw_buffer block;
    struct hw_error *err;
};

static enum hw_status verify_head(struct verify *verify)
{
    struct hw_core *core = verify->core;
    struct hw_slice signature = {core->mirror->signature.bytes, core->mirror->signature.size};

    if (core->roots.length == 0)
        return HW_OK;
    if (!core->mirror->has_authority)
        return hw_fail(verify->err, HW_ECORRUPT, "%s/mirror: a head, and no manifest for it",
                       core->dir);
    return hw_authority_check(&core->mirror->authority, &core->roots, core->fork, signature,
                              verify->err);
}

/* A parent whose children are held is their hash. */
static enum hw_status verify_parent(struct verify *verify, uint64_t index)
{
    struct hw_core *core = verify->core;
    struct hw_node parent, left, right, made;
    bool is_proven;
    enum hw_status status;

    if (hw_flat_right_span(index) >= 2 * core->roots.length)
        return HW_OK;
    status = hw_mirror_node(core, index, &parent, &is_proven, verify->err);
    if (status == HW_OK)
        status = hw_mirror_node_proven(core, hw_flat_left_child(index), &left, verify->err);
    if (status == HW_OK)
        status = hw_mirror_node_proven(core, hw_flat_right_child(index), &right, verify->err);
    if (status != HW_OK)
        return status == HW_ENOTFOUND ? HW_OK : status;
    hw_node_parent(&left, &right, &made);
    if (memcmp(made.hash, parent.hash, HW_HASH_SIZE) != 0)
        return hw_fail(verify->err, HW_ECORRUPT, "%s/nodes: node %llu is not that of its children",
                       core->dir, (unsigned long long)index);
    return HW_OK;
}

static enum hw_status verify_block(struct verify *verify, uint64_t index)
{
    struct hw_core *core = verify->core;
    enum hw_status status = verify_parent(verify, 2 * index + 1);
    bool is_held = false;

    if (status == HW_OK)
        status = hw_core_is_held(core, index, &is_held, verify->err);
    if (status == HW_OK && is_held)
        status = hw_mirror_read_held(core, index, &verify->block, verify->err);
    if (status == HW_EMISSING)
        status = HW_OK; /* it was damaged, was said to be, and is not held any more */
    if (status != HW_OK || verify->progress == NULL || index % PROGRESS_EVERY != 0)
        return status;
    return verify->progress(verify->ctx, index, core->roots.length) ? HW_OK : HW_AGAIN;
}

enum hw_status hw_mirror_verify(struct hw_core *core,
                                bool (*progress)(void *ctx, uint64_t checked, uint64_t length),
                                void *ctx, struct hw_error *err)
{
    struct verify verify = {.core = core, .progress = progress, .ctx = ctx, .err = err};
    enum hw_status status = verify_head(&verify);

    for (uint64_t i = 0; i < core->roots.length && status == HW_OK; i++)
        status = verify_block(&verify, i);
    if (status == HW_OK && progress != NULL)
        (void)progress(ctx, core->roots.length, core->roots.length); /* there is nothing to stop */
    hw_buffer_release(&verify.block);
    return status;
}
