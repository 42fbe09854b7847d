/*
 * Implements the receiving side of wire/replication.h: answers to our requests, and blocks that
 * came unasked.
 *
 * An answer may be true and of no use: between the question and it, another peer was faster.  So
 * what does not fit our length any more is left out before it is checked; what is checked and false
 * costs the remote its connection.
 */
#include <string.h>

#include "wire/replication_internal.h"

static struct hw_link_request *find(struct hw_link *link, uint64_t id)
{
    for (unsigned i = 0; i < HW_LINK_IN_FLIGHT && id != 0; i++) {
        if (link->requests[i].kind != HW_ASKED_NOTHING && link->requests[i].id == id)
            return &link->requests[i];
    }
    return NULL;
}

static void note_answer(struct hw_link *link, const struct hw_link_request *request)
{
    uint64_t now = hw_replication_now(link->replication), took = now - request->sent_ns;

    link->answer_ns = link->answer_ns == 0 ? took : (7 * link->answer_ns + took) / 8;
    link->last_answer_ns = now;
    link->waiting_since_ns = link->in_flight > 1 ? now : 0;
    if (++link->answers >= link->window) { /* a whole window was answered: dare more */
        link->answers = 0;
        link->window += link->window / 4 + 1;
        if (link->window > HW_WINDOW_MAX)
            link->window = HW_WINDOW_MAX;
    }
}

/* Of no use to us; nobody sends many of these. */
static enum hw_status useless(struct hw_link *link, struct hw_error *err)
{
    if (++link->useless > HW_USELESS_MAX)
        return hw_fail(err, HW_EPROTOCOL, "more than %d answers to nothing", HW_USELESS_MAX);
    return HW_OK;
}

/* Our own disk: it is not the remote's fault, and tried again later. */
static void broken(struct hw_replication *replication, const struct hw_error *err)
{
    replication->broken_until_ns = hw_replication_now(replication) + HW_BROKEN_MS * HW_MS;
    if (replication->options.broken != NULL)
        replication->options.broken(replication->options.ctx, err);
}

static void tell_owner(struct hw_replication *replication, const struct hw_accepted *accepted)
{
    const struct hw_replication_options *options = &replication->options;

    if (accepted->has_upgrade && options->upgraded != NULL)
        options->upgraded(options->ctx, replication->length);
    if (accepted->has_block && options->arrived != NULL)
        options->arrived(options->ctx, accepted->block);
}

/* It was taken: all who should know are told. */
static void take_in(struct hw_link *link, const struct hw_proof *proof,
                    const struct hw_accepted *accepted, bool was_asked)
{
    struct hw_replication *replication = link->replication;
    uint64_t before = replication->length;

    if (was_asked)
        link->useless = 0;
    replication->has_manifest = replication->has_manifest || accepted->has_manifest;
    replication->length = hw_core_length(replication->options.core);
    if (link->remote_length < replication->length && accepted->has_upgrade)
        link->remote_length = replication->length;
    if (accepted->has_block) {
        link->blocks_received++;
        link->bytes_received += proof->block.size;
        replication->block_size = (7 * replication->block_size + proof->block.size) / 8;
    }
    tell_owner(replication, accepted);
    if (accepted->has_upgrade)
        hw_replication_tell_grown(replication, link);
    if (accepted->has_block && !(accepted->has_upgrade && accepted->block >= before))
        hw_replication_tell_block(replication, link, accepted->block);
    if (!was_asked)
        link->sync_due = link->sync_due || accepted->has_upgrade;
    else if (accepted->has_upgrade || accepted->has_manifest)
        hw_link_send_sync(link);
}

/* HW_EPROOF is the remote's; what is ours to bear is HW_OK. */
static enum hw_status accept(struct hw_link *link, const struct hw_proof *proof, bool was_asked,
                             struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_accepted accepted = {.has_block = false};
    struct hw_error why = {.status = HW_OK};
    enum hw_status status = hw_core_accept(replication->options.core, proof, &accepted, &why);

    if (status == HW_OK) {
        take_in(link, proof, &accepted, was_asked);
        return HW_OK;
    }
    if (status == HW_EFORK)
        return useless(link, err);
    why.status = status;
    if (status == HW_EPROOF && proof->has_upgrade && replication->length > 0)
        return hw_link_suspect(link, &why, err);
    if (status == HW_EPROOF || status == HW_EPROTOCOL || status == HW_ENOMEM) {
        if (err != NULL)
            *err = why;
        return status;
    }
    broken(replication, &why);
    return HW_OK;
}

/* --------------------------------------------------------------------------------- unasked */

static bool is_wanted(const struct hw_replication *replication, uint64_t block)
{
    struct hw_want range;

    for (unsigned i = 0; i < replication->urgent_count; i++) {
        if (replication->urgent[i] == block)
            return true;
    }
    return hw_wants_next(&replication->wants, block, block + 1, &range);
}

/* What it shows that the remote has, whether or not we can take it. */
static enum hw_status note_unasked(struct hw_link *link, const struct hw_proof *proof,
                                   struct hw_error *err)
{
    if (proof->has_upgrade) {
        uint64_t start = proof->upgrade_start, length = proof->upgrade_length;

        if (start > HW_TREE_LENGTH_MAX || length > HW_TREE_LENGTH_MAX - start)
            return hw_fail(err, HW_EPROTOCOL, "an upgrade beyond any log");
        if (link->remote_length < start + length)
            link->remote_length = start + length;
    }
    if (proof->has_block && proof->block_index < link->remote_length) {
        if (hw_link_bits_set(&link->bits, proof->block_index, proof->block_index + 1) != HW_OK)
            return hw_fail(err, HW_ENOMEM, "no memory for what a peer has");
        hw_link_rewind(link, proof->block_index);
    }
    return HW_OK;
}

/*
 * A push, or the answer to a request that was given up.  One that does not fit is no fault: another
 * peer may have been faster.  It is asked for what it showed to have.
 */
static enum hw_status on_unasked(struct hw_link *link, struct hw_proof *proof, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    enum hw_status status;
    uint64_t levels;

    if (proof->id != 0) {
        status = useless(link, err);
        if (status != HW_OK)
            return status;
        link->last_answer_ns = hw_replication_now(replication); /* late, but alive */
        link->waiting_since_ns = link->in_flight > 0 ? link->last_answer_ns : 0;
    }
    if (proof->fork != replication->fork || replication->work.link == link || link->is_suspect)
        return HW_OK;
    status = note_unasked(link, proof, err);
    if (status != HW_OK || replication->broken_until_ns != 0)
        return status;
    if (proof->has_upgrade)
        return proof->upgrade_start == replication->length ? accept(link, proof, false, err)
                                                           : HW_OK;
    /* Without an upgrade the block must hang on a node that we hold. */
    if (!proof->has_block || proof->block_index >= replication->length ||
        !is_wanted(replication, proof->block_index) ||
        hw_core_has(replication->options.core, proof->block_index) ||
        hw_core_missing_nodes(replication->options.core, 2 * proof->block_index, &levels, NULL) !=
            HW_OK ||
        levels > hw_nodes_count(&proof->target_nodes))
        return HW_OK;
    return accept(link, proof, false, err);
}

/* --------------------------------------------------------------------------------- answers */

/* The remote has not got it, or will not say: somebody else is asked. */
static enum hw_status refused(struct hw_link *link, struct hw_link_request *request,
                              struct hw_error *err)
{
    struct hw_link_request was = *request;
    enum hw_status status = HW_OK;

    hw_link_request_end(link, request, false);
    if (was.kind == HW_ASKED_REORG)
        return hw_link_on_reorg_refused(link, err);
    if (was.kind == HW_ASKED_HISTORY)
        return hw_link_on_history(link, NULL, err);
    if (was.kind == HW_ASKED_UPGRADE)
        link->refused_length = link->remote_length;
    if (was.kind == HW_ASKED_BLOCK && was.fork == link->replication->fork)
        status = hw_link_bits_clear(&link->bits, was.block, was.block + 1);
    if (status != HW_OK)
        return hw_fail(err, status, "no memory for what a peer has");
    return HW_OK;
}

/* Is it what was asked for?  Not more: what was not asked has not to be looked at. */
static bool fits(const struct hw_link_request *request, const struct hw_proof *proof)
{
    if (proof->fork != request->fork || proof->has_seek)
        return false;
    if (request->kind == HW_ASKED_BLOCK)
        return proof->has_block && proof->block_index == request->block && !proof->has_upgrade &&
               !proof->has_hash;
    if (request->kind == HW_ASKED_UPGRADE)
        return proof->has_upgrade && !proof->has_block && !proof->has_hash;
    return proof->has_manifest && !proof->has_block && !proof->has_hash && !proof->has_upgrade;
}

static enum hw_status on_answer(struct hw_link *link, struct hw_link_request *request,
                                struct hw_proof *proof, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_link_request was = *request;
    enum hw_status status;

    if (was.kind == HW_ASKED_PROOF) {
        hw_link_request_end(link, request, true);
        return hw_link_on_proof(link, &was, proof, err);
    }
    if (was.kind == HW_ASKED_HISTORY) {
        hw_link_request_end(link, request, true);
        link->is_suspect = was.fork == replication->fork; /* else we moved in between */
        return link->is_suspect ? hw_link_on_history(link, proof, err) : HW_OK;
    }
    if (was.kind == HW_ASKED_REORG) {
        if (proof->fork != was.fork)
            return refused(link, request, err);
        hw_link_request_end(link, request, true);
        return hw_link_on_reorg_data(link, proof, err);
    }
    if (was.fork != replication->fork) { /* we moved to another fork in between */
        hw_link_request_end(link, request, false);
        return HW_OK;
    }
    if (!fits(&was, proof)) {
        status = HW_OK;
        /* The manifest alone, where more was asked, is of use all the same. */
        if (proof->has_manifest && proof->fork == was.fork && !proof->has_block &&
            !proof->has_hash && !proof->has_upgrade && !replication->has_manifest)
            status = accept(link, proof, true, err);
        return status == HW_OK ? refused(link, request, err) : status;
    }
    hw_link_request_end(link, request, true);
    if (replication->broken_until_ns != 0 ||
        (was.kind == HW_ASKED_UPGRADE && proof->upgrade_start != replication->length) ||
        (was.kind == HW_ASKED_BLOCK && hw_core_has(replication->options.core, was.block)))
        return HW_OK; /* somebody else was faster, or all is looked at again later */
    status = accept(link, proof, true, err);
    if (status != HW_OK && was.kind == HW_ASKED_BLOCK)
        hw_replication_rewind(replication, was.block);
    return status;
}

enum hw_status hw_link_on_data(struct hw_link *link, struct hw_slice payload, struct hw_error *err)
{
    struct hw_link_request *request;
    struct hw_proof proof = {0};
    enum hw_status status;

    if (!link->replication->options.fetches && link->replication->proving != link)
        return useless(link, err);
    status = hw_proof_decode(payload, &proof, err);
    if (status != HW_OK)
        return status;
    request = find(link, proof.id);
    if (request == NULL && !link->replication->options.fetches) {
        status = useless(link, err);
    } else if (request != NULL) {
        note_answer(link, request);
        status = on_answer(link, request, &proof, err);
    } else {
        status = on_unasked(link, &proof, err);
    }
    hw_proof_release(&proof);
    return status;
}

enum hw_status hw_link_on_no_data(struct hw_link *link, struct hw_slice payload,
                                  struct hw_error *err)
{
    struct hw_message_no_data no_data;
    struct hw_link_request *request;
    enum hw_status status = hw_message_no_data_decode(payload, &no_data, err);

    if (status != HW_OK)
        return status;
    request = find(link, no_data.request);
    if (request == NULL)
        return useless(link, err);
    note_answer(link, request);
    return refused(link, request, err);
}
