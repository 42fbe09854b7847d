/*
 * Implements the asking of wire/replication.h: what to ask whom, and what takes too long.
 *
 * Each link looks for blocks from its cursor on: everything below it is held, asked for, or not at
 * the remote.  Whatever changes that for a block sets cursors back to it.
 */
#include "wire/replication_internal.h"

enum {
    SCAN_MAX = 256,         /* looks for the next block at once; then the next tick goes on */
    ANSWER_LATE_MS = 10000, /* added for one that did not answer */
    WINDOW_MIN = 2,
};

/* ------------------------------------------------------------------------------- requests */

bool hw_link_is_source(const struct hw_link *link)
{
    return !link->is_doomed && !link->is_suspect && link->is_synced && link->remote.is_uploading &&
           link->remote.fork == link->replication->fork;
}

struct hw_link_request *hw_link_request_new(struct hw_link *link, enum hw_request_kind kind)
{
    for (unsigned i = 0; i < HW_LINK_IN_FLIGHT; i++) {
        if (link->requests[i].kind != HW_ASKED_NOTHING)
            continue;
        link->requests[i] = (struct hw_link_request){
            .kind = kind,
            .id = ++link->replication->next_id,
            .fork = link->replication->fork,
            .sent_ns = hw_replication_now(link->replication),
        };
        if (link->waiting_since_ns == 0)
            link->waiting_since_ns = link->requests[i].sent_ns;
        link->in_flight++;
        return &link->requests[i];
    }
    return NULL;
}

void hw_link_ask(struct hw_link *link, struct hw_link_request *request,
                 struct hw_proof_request *message)
{
    struct hw_buffer *scratch = &link->replication->scratch;

    message->id = request->id;
    message->fork = request->fork;
    hw_buffer_clear(scratch);
    hw_proof_request_encode(message, scratch);
    hw_link_send(link, HW_MESSAGE_REQUEST, scratch);
}

void hw_replication_rewind(struct hw_replication *replication, uint64_t block)
{
    for (struct hw_link *link = replication->links; link != NULL; link = link->next)
        hw_link_rewind(link, block);
}

void hw_link_rewind(struct hw_link *link, uint64_t block)
{
    if (link->cursor > block)
        link->cursor = block;
    link->idle_length = UINT64_MAX;
}

void hw_link_request_end(struct hw_link *link, struct hw_link_request *request, bool is_answered)
{
    enum hw_request_kind kind = request->kind;

    if (kind == HW_ASKED_NOTHING)
        return;
    request->kind = HW_ASKED_NOTHING;
    link->in_flight--;
    if (kind == HW_ASKED_BLOCK && !is_answered)
        hw_replication_rewind(link->replication, request->block);
    if (kind == HW_ASKED_UPGRADE)
        link->replication->upgrading = NULL;
    if (kind == HW_ASKED_PROOF)
        link->replication->proving = NULL;
}

bool hw_replication_is_in_flight(const struct hw_replication *replication, uint64_t block)
{
    for (const struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (link->in_flight == 0)
            continue;
        for (unsigned i = 0; i < HW_LINK_IN_FLIGHT; i++) {
            if (link->requests[i].kind == HW_ASKED_BLOCK && link->requests[i].block == block)
                return true;
        }
    }
    return false;
}

/* -------------------------------------------------------------------------------- upgrades */

static bool may_upgrade(const struct hw_link *link)
{
    return hw_link_is_source(link) && link->remote_length > link->replication->length &&
           link->refused_length != link->remote_length;
}

bool hw_link_is_late(const struct hw_link *link)
{
    return link->late_length == link->remote_length;
}

static struct hw_link *best_to_upgrade(struct hw_replication *replication, bool is_late)
{
    struct hw_link *best = NULL;

    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (may_upgrade(link) && hw_link_is_late(link) == is_late &&
            link->in_flight < HW_LINK_IN_FLIGHT &&
            (best == NULL || link->answer_ns < best->answer_ns))
            best = link;
    }
    return best;
}

static void ask_upgrade(struct hw_replication *replication)
{
    struct hw_link *best;
    struct hw_link_request *request;
    struct hw_proof_request message = {.has_upgrade = true};

    if (replication->upgrading != NULL)
        return;
    best = best_to_upgrade(replication, false);
    if (best == NULL)
        best = best_to_upgrade(replication, true);
    if (best == NULL)
        return;
    request = hw_link_request_new(best, HW_ASKED_UPGRADE);
    request->start = message.upgrade_start = replication->length;
    request->length = message.upgrade_length = best->remote_length - replication->length;
    message.wants_manifest = !replication->has_manifest && best->remote.has_manifest;
    replication->upgrading = best;
    hw_link_ask(best, request, &message);
}

/* Of an empty log nothing but the manifest can be had. */
static void ask_manifest(struct hw_link *link)
{
    struct hw_proof_request message = {.wants_manifest = true};
    struct hw_link_request *request;

    if (link->replication->has_manifest || link->manifest_asked || !hw_link_is_source(link) ||
        !link->remote.has_manifest || link->remote_length > 0)
        return;
    request = hw_link_request_new(link, HW_ASKED_MANIFEST);
    if (request == NULL)
        return;
    link->manifest_asked = true;
    hw_link_ask(link, request, &message);
}

/* ---------------------------------------------------------------------------------- blocks */

static bool can_give(const struct hw_link *link, uint64_t block)
{
    return hw_link_is_source(link) && block < link->remote_length &&
           hw_link_bits_has(&link->bits, block);
}

static bool ask_block(struct hw_link *link, uint64_t block)
{
    struct hw_replication *replication = link->replication;
    struct hw_proof_request message = {.has_block = true, .block_index = block};
    struct hw_link_request *request;

    if (hw_core_missing_nodes(replication->options.core, 2 * block, &message.block_nodes, NULL) !=
        HW_OK)
        return false; /* our own disk: the next answer tells */
    request = hw_link_request_new(link, HW_ASKED_BLOCK);
    if (request == NULL)
        return false;
    request->block = block;
    hw_link_ask(link, request, &message);
    return true;
}

/* What it has of the range is not known: ask, once. */
static void send_want(struct hw_link *link, uint64_t block)
{
    uint64_t page = block / HW_WANT_BLOCKS;
    struct hw_message_want want = {.start = page * HW_WANT_BLOCKS, .length = HW_WANT_BLOCKS};
    struct hw_buffer *scratch = &link->replication->scratch;

    if (page >= HW_WANT_PAGES || (link->wants_sent & UINT32_C(1) << page) != 0)
        return;
    link->wants_sent |= UINT32_C(1) << page;
    link->want_sent_ns = hw_replication_now(link->replication);
    hw_buffer_clear(scratch);
    hw_message_want_encode(&want, scratch);
    hw_link_send(link, HW_MESSAGE_WANT, scratch);
}

/* Blocks that can be asked of it lie below. */
static uint64_t reach(const struct hw_link *link)
{
    return link->remote_length < link->replication->length ? link->remote_length
                                                           : link->replication->length;
}

/* The lowest block at or after the cursor that is wanted, not held, not asked for, and there. */
static bool next_block(struct hw_link *link, uint64_t *out)
{
    struct hw_replication *replication = link->replication;
    struct hw_core *core = replication->options.core;
    uint64_t limit = reach(link);

    for (unsigned i = 0; i < SCAN_MAX; i++) {
        struct hw_want range;
        uint64_t checked, there;

        if (!hw_wants_next(&replication->wants, link->cursor, limit, &range)) {
            link->idle_length = limit;
            return false;
        }
        if (hw_core_find(core, range.start, range.end, false, &link->cursor, &checked, NULL) !=
            HW_OK)
            link->cursor = range.start; /* asked for, and then the error is met again, and told */
        if (link->cursor >= range.end) {
            link->cursor = checked > range.start ? checked : range.end;
            continue;
        }
        there = hw_link_bits_next(&link->bits, link->cursor, range.end);
        if (there > link->cursor) {
            send_want(link, link->cursor);
            link->cursor = there;
            continue;
        }
        if (!hw_replication_is_in_flight(replication, there)) {
            *out = there;
            link->cursor = there + 1;
            return true;
        }
        link->cursor = there + 1;
    }
    replication->scan_goes_on = true;
    return false;
}

static bool has_room(const struct hw_link *link, unsigned window)
{
    return link->in_flight == 0 ||
           (link->in_flight < window &&
            (link->in_flight + 1) * link->replication->block_size <= HW_WINDOW_BYTES);
}

/* The link that has the block, has room, and answers fastest. */
static struct hw_link *best_for(struct hw_replication *replication, uint64_t block)
{
    struct hw_link *best = NULL;

    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (!hw_link_is_source(link) || block >= link->remote_length)
            continue;
        if (!hw_link_bits_has(&link->bits, block))
            send_want(link, block);
        else if (link->in_flight < HW_LINK_IN_FLIGHT &&
                 (best == NULL || link->answer_ns < best->answer_ns))
            best = link;
    }
    return best;
}

static void ask_urgent(struct hw_replication *replication)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < replication->urgent_count; i++) {
        uint64_t block = replication->urgent[i];
        struct hw_link *link;

        if (hw_core_has(replication->options.core, block))
            continue;
        replication->urgent[kept++] = block;
        if (block >= replication->length || hw_replication_is_in_flight(replication, block))
            continue;
        link = best_for(replication, block);
        if (link != NULL)
            (void)ask_block(link, block); /* no room, then later */
    }
    replication->urgent_count = kept;
}

static void ask_blocks(struct hw_link *link)
{
    uint64_t block;

    if (!hw_link_is_source(link))
        return;
    while (has_room(link, link->window) && next_block(link, &block)) {
        if (!ask_block(link, block)) {
            if (link->cursor > block)
                link->cursor = block;
            return;
        }
    }
}

/* The fastest first, so that it gets what is lowest. */
static struct hw_link *next_fastest(struct hw_replication *replication, const struct hw_link *after)
{
    struct hw_link *best = NULL;

    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (!hw_link_is_source(link) || !has_room(link, link->window) ||
            link->idle_length == reach(link)) /* nothing to ask since it was last looked at */
            continue;
        if (after != NULL &&
            (link->answer_ns < after->answer_ns ||
             (link->answer_ns == after->answer_ns && (uintptr_t)link <= (uintptr_t)after)))
            continue;
        if (best == NULL || link->answer_ns < best->answer_ns ||
            (link->answer_ns == best->answer_ns && (uintptr_t)link < (uintptr_t)best))
            best = link;
    }
    return best;
}

void hw_replication_fetch(struct hw_replication *replication)
{
    if (!replication->options.fetches || replication->broken_until_ns != 0)
        return;
    hw_replication_reorg(replication);
    ask_upgrade(replication);
    if (!replication->has_manifest) {
        for (struct hw_link *link = replication->links; link != NULL; link = link->next)
            ask_manifest(link);
    }
    if (replication->length == 0)
        return;
    if (replication->urgent_count > 0)
        ask_urgent(replication);
    replication->scan_goes_on = false;
    for (struct hw_link *link = next_fastest(replication, NULL); link != NULL;
         link = next_fastest(replication, link))
        ask_blocks(link);
}

/* ------------------------------------------------------------------------------------ time */

static bool others_can(const struct hw_link *link, const struct hw_link_request *request)
{
    for (const struct hw_link *other = link->replication->links; other != NULL;
         other = other->next) {
        if (other == link)
            continue;
        if (request->kind == HW_ASKED_BLOCK ? can_give(other, request->block)
                                            : may_upgrade(other) && !hw_link_is_late(other))
            return true;
    }
    return false;
}

static void cancel(struct hw_link *link, struct hw_link_request *request)
{
    struct hw_buffer *scratch = &link->replication->scratch;
    uint64_t cursor = link->cursor;

    hw_buffer_clear(scratch);
    hw_buffer_add_uint(scratch, request->id);
    hw_link_send(link, HW_MESSAGE_CANCEL, scratch);
    if (request->kind == HW_ASKED_UPGRADE)
        link->late_length = link->remote_length;
    hw_link_request_end(link, request, false);
    link->cursor = cursor; /* the others go back to the block, not this one */
    link->window = link->window / 2 > WINDOW_MIN ? link->window / 2 : WINDOW_MIN;
    link->answer_ns += ANSWER_LATE_MS * HW_MS;
}

static bool is_urgent(const struct hw_replication *replication, uint64_t block)
{
    for (unsigned i = 0; i < replication->urgent_count; i++) {
        if (replication->urgent[i] == block)
            return true;
    }
    return false;
}

/* How long it may wait for its answer, if another link can be asked. */
static uint64_t patience_ns(const struct hw_link *link, const struct hw_link_request *request)
{
    if (request->kind == HW_ASKED_UPGRADE || is_urgent(link->replication, request->block))
        return HW_URGENT_MS * HW_MS; /* somebody waits, or all do */
    return HW_REQUEST_MS * HW_MS;
}

static void lower(uint64_t *deadline_ns, uint64_t ns)
{
    if (*deadline_ns > ns)
        *deadline_ns = ns;
}

/* Nothing at all was answered: then it is dropped. */
static void check_silence(struct hw_link *link, bool has_other, uint64_t now_ns,
                          uint64_t *deadline_ns)
{
    uint64_t end =
        link->waiting_since_ns + (has_other ? HW_LINK_SILENT_MS : HW_LINK_DEAD_MS) * HW_MS;
    struct hw_error err;

    if (now_ns < end) {
        lower(deadline_ns, end);
        return;
    }
    (void)hw_fail(&err, HW_ETIMEOUT, "no answer to any request for %llu s",
                  (unsigned long long)((now_ns - link->waiting_since_ns) / (1000 * HW_MS)));
    hw_link_doom(link, &err);
}

/* Another link may be on a higher fork in earnest; else an answer that comes late will do. */
static void check_reorg(struct hw_link *link, struct hw_link_request *request, uint64_t now_ns,
                        uint64_t *deadline_ns)
{
    uint64_t end = request->sent_ns + HW_REQUEST_MS * HW_MS;
    bool has_other = false;

    for (const struct hw_link *other = link->replication->links; other != NULL; other = other->next)
        has_other =
            has_other || (other != link && hw_link_is_above(other) && !hw_link_is_late(other));
    if (!has_other)
        return;
    if (now_ns < end) {
        lower(deadline_ns, end);
        return;
    }
    hw_link_request_end(link, request, false);
    link->late_length = link->remote_length;
    link->fork_claims++;
    if (link->replication->work.link == link)
        hw_replication_reorg_end(link->replication);
}

/* What is not proven in time is as good as false; of a mere claim others may be asked then. */
static void check_proof(struct hw_link *link, struct hw_link_request *request, uint64_t now_ns,
                        uint64_t *deadline_ns)
{
    uint64_t end = request->sent_ns + HW_REQUEST_MS * HW_MS;

    if (now_ns < end) {
        lower(deadline_ns, end);
        return;
    }
    hw_link_request_end(link, request, false);
    link->waiting_since_ns = 0;
    if (link->is_suspect)
        hw_link_doom(link, &link->suspicion);
}

void hw_link_check_time(struct hw_link *link, uint64_t now_ns, uint64_t *deadline_ns)
{
    bool has_other = false;

    if (link->waiting_since_ns == 0)
        return;
    for (const struct hw_link *other = link->replication->links; other != NULL; other = other->next)
        has_other = has_other || (other != link && hw_link_is_source(other) &&
                                  other->remote_length >= link->remote_length);
    for (unsigned i = 0; i < HW_LINK_IN_FLIGHT && link->in_flight > 0; i++) {
        struct hw_link_request *request = &link->requests[i];
        uint64_t end;

        if (request->kind == HW_ASKED_REORG) {
            check_reorg(link, request, now_ns, deadline_ns);
            continue;
        }
        if (request->kind == HW_ASKED_PROOF || request->kind == HW_ASKED_HISTORY) {
            check_proof(link, request, now_ns, deadline_ns);
            continue;
        }
        if ((request->kind != HW_ASKED_BLOCK && request->kind != HW_ASKED_UPGRADE) ||
            !others_can(link, request))
            continue;
        /* As long as it answers others, this one may just be behind them. */
        end = request->sent_ns > link->last_answer_ns ? request->sent_ns : link->last_answer_ns;
        end += patience_ns(link, request);
        if (end > request->sent_ns + HW_REQUEST_MAX_MS * HW_MS)
            end = request->sent_ns + HW_REQUEST_MAX_MS * HW_MS;
        if (now_ns >= end)
            cancel(link, request);
        else
            lower(deadline_ns, end);
    }
    if (link->waiting_since_ns != 0)
        check_silence(link, has_other, now_ns, deadline_ns);
}
