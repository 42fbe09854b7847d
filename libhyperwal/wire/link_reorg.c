/*
 * Implements the higher forks of wire/replication.h.
 *
 *   a remote's Sync has a fork above ours ─▶ ask for its whole tree ─▶ is it signed?
 *      ─▶ ask for nodes until the first difference is found ─▶ hw_core_reorg()
 *
 * Forks below ours are ignored: their peers will ask us.
 */
#include "wire/replication_internal.h"

enum {
    STEPS_MAX = 128, /* questions for the first difference: a tree has fewer levels */
};

void hw_replication_reorg_end(struct hw_replication *replication)
{
    struct hw_reorg_work *work = &replication->work;

    hw_reorg_release(&work->reorg);
    hw_proof_release(&work->first);
    *work = (struct hw_reorg_work){.link = NULL};
}

bool hw_link_is_above(const struct hw_link *link)
{
    return !link->is_doomed && !link->is_suspect && link->is_synced && link->remote.is_uploading &&
           link->remote.fork > link->replication->fork && link->remote_length > 0 &&
           link->refused_length != link->remote_length && link->in_flight < HW_LINK_IN_FLIGHT;
}

/* Who claimed in vain has to wait until the others were asked, as often as it did so. */
static struct hw_link *best_above(struct hw_replication *replication, bool is_late)
{
    struct hw_link *best = NULL;

    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (hw_link_is_above(link) && hw_link_is_late(link) == is_late &&
            (best == NULL || link->fork_claims < best->fork_claims ||
             (link->fork_claims == best->fork_claims && link->remote.fork > best->remote.fork)))
            best = link;
    }
    return best;
}

void hw_replication_reorg(struct hw_replication *replication)
{
    struct hw_link *best;
    struct hw_link_request *request;
    struct hw_proof_request message = {.has_upgrade = true};

    if (replication->work.link != NULL)
        return;
    best = best_above(replication, false);
    if (best == NULL)
        best = best_above(replication, true);
    if (best == NULL)
        return;
    request = hw_link_request_new(best, HW_ASKED_REORG);
    request->fork = best->remote.fork;
    message.upgrade_length = best->remote_length;
    message.wants_manifest = !replication->has_manifest && best->remote.has_manifest;
    replication->work.link = best;
    hw_link_ask(best, request, &message);
}

/* Nothing that was asked or told under the old fork counts any more. */
static void move_to(struct hw_replication *replication, uint64_t length_before)
{
    struct hw_core_head head = hw_core_head(replication->options.core);
    uint64_t common = replication->work.reorg.common;

    replication->fork = head.fork;
    replication->length = head.length;
    replication->has_manifest = true;
    if (replication->contiguous > common)
        replication->contiguous = common;
    hw_buffer_release(&replication->pushed.bytes);
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        for (unsigned i = 0; i < HW_LINK_IN_FLIGHT; i++) {
            if (link->requests[i].kind == HW_ASKED_BLOCK ||
                link->requests[i].kind == HW_ASKED_UPGRADE)
                hw_link_request_end(link, &link->requests[i], false);
        }
        link->is_live = false;
        hw_link_rewind(link, 0);
        link->news = (struct hw_want){0, 0};
        if (link->announced > common)
            link->announced = common;
        if (length_before > common)
            hw_link_send_range(link, common, length_before - common, true);
        hw_link_send_sync(link);
    }
}

static enum hw_status adopt(struct hw_link *link, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_reorg_work *work = &replication->work;
    struct hw_slice signature = {work->first.signature.bytes, work->first.signature.size};
    struct hw_slice manifest = {work->first.manifest.bytes, work->first.manifest.size};
    uint64_t before = replication->length;
    struct hw_error why = {.status = HW_OK};
    enum hw_status status;

    work->reorg.is_done = true; /* if not, fewer blocks are kept than both forks have: no harm */
    status = hw_core_reorg(replication->options.core, &work->reorg, signature, manifest, &why);
    if (status == HW_OK) {
        move_to(replication, before);
        hw_replication_reorg_end(replication);
        if (replication->options.upgraded != NULL)
            replication->options.upgraded(replication->options.ctx, replication->length);
        return HW_OK;
    }
    hw_replication_reorg_end(replication);
    if (status == HW_EPROOF || status == HW_EPROTOCOL || status == HW_ENOMEM) {
        if (err != NULL)
            *err = why;
        return status;
    }
    replication->broken_until_ns = hw_replication_now(replication) + HW_BROKEN_MS * HW_MS;
    if (replication->options.broken != NULL)
        replication->options.broken(replication->options.ctx, &why);
    return HW_OK;
}

/* Adopt, or ask for the next node. */
static enum hw_status step(struct hw_link *link, struct hw_error *err)
{
    struct hw_reorg_work *work = &link->replication->work;
    struct hw_proof_request message = {.has_hash = true};
    struct hw_link_request *request;
    uint64_t block;

    if (work->reorg.is_done || ++work->steps > STEPS_MAX)
        return adopt(link, err);
    block = hw_link_bits_next(&link->bits, work->reorg.want_start, work->reorg.want_end);
    if (block >= work->reorg.want_end)
        block = work->reorg.want_start;
    message.hash_index = 2 * block;
    message.hash_nodes = work->reorg.want_nodes;
    request = hw_link_request_new(link, HW_ASKED_REORG);
    if (request == NULL)
        return adopt(link, err); /* what is certain by now will do */
    request->fork = work->reorg.fork;
    hw_link_ask(link, request, &message);
    return HW_OK;
}

enum hw_status hw_link_on_reorg_data(struct hw_link *link, struct hw_proof *proof,
                                     struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_reorg_work *work = &replication->work;
    struct hw_proof_reader reader;
    enum hw_status status;

    if (work->link != link)
        return HW_OK;
    status = hw_core_reader(replication->options.core, &reader, err);
    if (status == HW_OK && work->has_begun) {
        status = hw_reorg_feed(&reader, &work->reorg, proof, err);
    } else if (status == HW_OK) {
        work->first = *proof; /* moved: the manifest of what follows borrows from it */
        *proof = (struct hw_proof){0};
        status = hw_reorg_begin(&reader, &work->first, &work->reorg, err);
        work->has_begun = status == HW_OK;
    }
    if (status != HW_OK) {
        hw_replication_reorg_end(replication);
        return status;
    }
    return step(link, err);
}

enum hw_status hw_link_on_reorg_refused(struct hw_link *link, struct hw_error *err)
{
    struct hw_reorg_work *work = &link->replication->work;

    if (work->link != link)
        return HW_OK;
    if (work->has_begun)
        return adopt(link, err);
    link->refused_length = link->remote_length;
    link->fork_claims++;
    hw_replication_reorg_end(link->replication);
    return HW_OK;
}
