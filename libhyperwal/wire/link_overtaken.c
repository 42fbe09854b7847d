/*
 * Implements wire/replication.h for a log of ours that somebody claims to have more of.
 *
 *   a remote's Sync tells of more than we have ─▶ ask for the whole tree ─▶ is it signed by us?
 *      ─▶ options.overtaken()
 *
 * And for a mirror of which somebody has another history:
 *
 *   its upgrade does not continue ours ─▶ ask for the whole tree ─▶ is it signed, and not ours?
 *      ─▶ yes: HW_EFORK, the signer has two; no: HW_EPROOF, it lied
 *
 * A claim alone does nothing.  One link is asked at a time, each once a minute, from 0: so the
 * remote needs no more than its roots, and what we have ourselves does not matter.
 */
#include <string.h>

#include "hypercore/overtaken.h"
#include "wire/replication_internal.h"

enum {
    ASK_AGAIN_MS = 60000, /* the same link */
};

/* Does the remote tell of more than we have, and than was shown already? */
static bool claims_more(const struct hw_link *link)
{
    const struct hw_replication *replication = link->replication;
    const struct hw_core_head own = {.fork = replication->fork, .length = replication->length};

    return !link->is_doomed && link->is_synced && link->remote.is_uploading &&
           link->remote.length > 0 &&
           hw_overtaken_is_above(link->remote.fork, link->remote.length, &own) &&
           hw_overtaken_is_above(link->remote.fork, link->remote.length, &replication->shown);
}

static uint64_t due_ns(const struct hw_link *link)
{
    return link->proof_asked_ns == 0 ? 0 : link->proof_asked_ns + ASK_AGAIN_MS * HW_MS;
}

void hw_replication_doubt(struct hw_replication *replication, uint64_t now_ns,
                          uint64_t *deadline_ns)
{
    struct hw_link *first = NULL;
    struct hw_link_request *request;
    struct hw_proof_request message = {.has_upgrade = true};

    if (replication->options.overtaken == NULL || replication->proving != NULL)
        return;
    for (struct hw_link *link = replication->links; link != NULL; link = link->next)
        if (claims_more(link) && (first == NULL || due_ns(link) <= due_ns(first)))
            first = link; /* of those never asked the one that came first */
    if (first == NULL)
        return;
    if (due_ns(first) > now_ns) {
        if (*deadline_ns > due_ns(first))
            *deadline_ns = due_ns(first);
        return;
    }
    request = hw_link_request_new(first, HW_ASKED_PROOF);
    if (request == NULL)
        return; /* nothing else is asked, so that this cannot be */
    first->proof_asked_ns = request->sent_ns;
    request->fork = first->remote.fork;
    message.upgrade_length = first->remote.length;
    replication->proving = first;
    hw_link_ask(first, request, &message);
    if (*deadline_ns > request->sent_ns + HW_REQUEST_MS * HW_MS)
        *deadline_ns = request->sent_ns + HW_REQUEST_MS * HW_MS;
}

enum hw_status hw_link_on_proof(struct hw_link *link, const struct hw_link_request *request,
                                const struct hw_proof *proof, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    const struct hw_core_head own = {.fork = replication->fork, .length = replication->length};
    uint64_t length = 0;
    enum hw_status status;

    if (proof->fork != request->fork || !proof->has_upgrade)
        return HW_OK; /* it moved to another fork, or thinks better of it */
    status = hw_overtaken_check(replication->options.core, proof, &length, err);
    if (status != HW_OK)
        return status;
    if (!hw_overtaken_is_above(proof->fork, length, &own))
        return HW_OK; /* by now we have as much */
    replication->shown = (struct hw_core_head){.fork = proof->fork, .length = length};
    replication->options.overtaken(replication->options.ctx, link, proof->fork, length);
    return HW_OK;
}

enum hw_status hw_link_suspect(struct hw_link *link, const struct hw_error *why,
                               struct hw_error *err)
{
    /* To our length: its roots there are ours, or those of another history. */
    struct hw_proof_request message = {.has_upgrade = true,
                                       .upgrade_length = link->replication->length};
    struct hw_link_request *request;

    if (link->is_suspect)
        return HW_OK; /* it was asked */
    link->is_suspect = true;
    link->suspicion = *why;
    for (unsigned i = 0; i < HW_LINK_IN_FLIGHT; i++)
        hw_link_request_end(link, &link->requests[i], false);
    request = hw_link_request_new(link, HW_ASKED_HISTORY);
    if (request == NULL)
        return hw_link_on_history(link, NULL, err);
    hw_link_ask(link, request, &message);
    return HW_OK;
}

/* Does the proof, an upgrade from 0, lead through the very tree that we have? */
static bool is_ours(struct hw_core *core, const struct hw_proof *proof)
{
    struct hw_proof_reader reader;

    if (hw_core_reader(core, &reader, NULL) != HW_OK ||
        proof->upgrade_length != reader.roots.length)
        return false; /* we have grown since it was asked for */
    for (unsigned i = 0; i < reader.roots.count; i++) {
        const struct hw_node *own = &reader.roots.nodes[i];
        const struct hw_node *node = hw_nodes_find(&proof->upgrade_nodes, own->index);

        if (node == NULL || memcmp(node->hash, own->hash, sizeof(own->hash)) != 0)
            return false;
    }
    return true;
}

enum hw_status hw_link_on_history(struct hw_link *link, const struct hw_proof *proof,
                                  struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    uint64_t length = 0;
    enum hw_status status = HW_EPROOF;

    if (proof != NULL && proof->fork == replication->fork)
        status = hw_overtaken_check(replication->options.core, proof, &length, err);
    if (status == HW_OK && is_ours(replication->options.core, proof))
        status = HW_EPROOF;  /* what continues our own tree is known to be false */
    if (status == HW_ENOMEM) /* ours: it tells nothing of the remote */
        return status;
    if (status != HW_OK) {
        if (err != NULL)
            *err = link->suspicion;
        return HW_EPROOF;
    }
    return hw_fail(err, HW_EFORK,
                   "its log of %llu blocks does not continue the %llu that we have of fork %llu, "
                   "though both are signed: was it restored from an older copy, and written on "
                   "without `hyperwal init --adopt`?",
                   (unsigned long long)length, (unsigned long long)replication->length,
                   (unsigned long long)replication->fork);
}
