/*
 * Implements the pushing of wire/replication.h: what is new goes to who did not ask.
 *
 *     ASKED   Range and Sync say what there is; the remote asks
 *       │ ▲   proven to have our tree: its Sync has our length, or we answered its upgrade
 *       ▼ │   its output is full, or it is on another fork
 *     LIVE    Data with request 0: the first block of what is new carries the upgrade
 *
 * What a live remote holds follows from what was sent, whether or not it took it: one that did not
 * (another peer was faster, its disk was full) finds that a push does not fit, and asks; with the
 * answer it is level again, as messages come in order.
 */
#include "wire/replication_internal.h"

enum {
    RUNS_MAX = 16,  /* ranges in one announcement; a remote that wants to know more says so */
    FINDS_MAX = 64, /* bounded searches for one announcement */
    CACHE_KEPT_MAX = 1 << 20, /* bytes: a larger one is given back */
    TOLD_AT_THE_END = 256, /* JavaScript peers too tell of such a distance from the end unasked */
};

/* --------------------------------------------------------------------------- announcements */

/* What is surely held from 0 on grows with the log. */
static enum hw_status look_contiguous(struct hw_replication *replication, struct hw_error *err)
{
    struct hw_core *core = replication->options.core;

    if (!hw_core_is_mirror(core)) {
        if (replication->whole_from < hw_core_first_kept(core))
            replication->whole_from = hw_core_first_kept(core);
        if (replication->contiguous >= replication->whole_from)
            replication->contiguous = replication->length;
    }
    for (unsigned i = 0; i < FINDS_MAX && replication->contiguous < replication->length; i++) {
        uint64_t found, checked;
        enum hw_status status = hw_core_find(core, replication->contiguous, replication->length,
                                             false, &found, &checked, err);

        if (status != HW_OK)
            return status;
        if (found < replication->length) {
            replication->contiguous = found;
            return HW_OK;
        }
        if (checked <= replication->contiguous)
            return HW_OK;
        replication->contiguous = checked;
    }
    return HW_OK;
}

void hw_replication_lacks(struct hw_replication *replication, uint64_t start, uint64_t end)
{
    if (replication->contiguous > start)
        replication->contiguous = start;
    if (replication->whole_from < end)
        replication->whole_from = end;
}

/* Ranges of what is held in [start, length). */
static enum hw_status announce_runs(struct hw_link *link, uint64_t start, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_core *core = replication->options.core;
    uint64_t end = replication->length, run = 0;
    bool in_run = false;
    unsigned runs = 0;

    for (unsigned i = 0; i < FINDS_MAX && runs < RUNS_MAX && start < end; i++) {
        uint64_t found, checked;
        enum hw_status status = hw_core_find(core, start, end, !in_run, &found, &checked, err);

        if (status != HW_OK)
            return status;
        if (found >= end && checked <= start)
            break;
        start = found < end ? found : checked;
        if (in_run && (found < end || start >= end)) {
            hw_link_send_range(link, run, start - run, false);
            runs++;
            in_run = false;
        } else if (!in_run && found < end) {
            run = start;
            in_run = true;
        }
    }
    return HW_OK;
}

static enum hw_status announce(struct hw_link *link, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    uint64_t start = link->announced;
    enum hw_status status = look_contiguous(replication, err);

    if (status != HW_OK)
        return status;
    if (replication->contiguous >= replication->length) {
        if (replication->length > 0)
            hw_link_send_range(link, 0, replication->length, false);
    } else {
        if (start == 0 && replication->contiguous > 0) {
            start = replication->contiguous;
            hw_link_send_range(link, 0, start, false);
        }
        if (hw_core_is_mirror(replication->options.core)) {
            status = announce_runs(link, start, err);
        } else {
            if (start < replication->whole_from)
                start = replication->whole_from;
            if (start < replication->length)
                hw_link_send_range(link, start, replication->length - start, false);
        }
    }
    link->announced = replication->length;
    link->announce_due = false;
    return status;
}

void hw_link_announce(struct hw_link *link)
{
    struct hw_error err = {.status = HW_OK};

    /* What it was not told of, it would take for missing: let it dial again. */
    if (announce(link, &err) != HW_OK)
        hw_link_doom(link, &err);
}

static void announce_grown(struct hw_link *link)
{
    if (hw_link_output_is_full(link)) {
        link->announce_due = true;
        return;
    }
    hw_link_announce(link);
    hw_link_send_sync(link);
}

/* ----------------------------------------------------------------------------------- pushes */

void hw_link_go_live(struct hw_link *link, uint64_t level)
{
    if (link->announce_due || link->is_doomed)
        return; /* the announcement brings it here again */
    link->is_live = true;
    link->level = link->push_base = link->push_next = level;
}

/*
 * How many levels above block `block` there is a node that a reader has who was given the upgrade
 * from `base` blocks, and the block `known` with its proof (UINT64_MAX: none): the nodes beside the
 * way from the one up to where it meets the way from the other.
 */
static uint64_t levels_to_known(uint64_t block, uint64_t known, uint64_t length)
{
    uint64_t at = 2 * block, levels = 0;

    for (;;) {
        uint64_t parent = hw_flat_parent(at);

        if (hw_flat_right_span(parent) >= 2 * length) /* `at` is a root */
            return levels;
        if (known != UINT64_MAX && hw_flat_left_span(parent) <= 2 * known)
            return levels;
        at = parent;
        levels++;
    }
}

/* Fill the cache with the push of this block (or none) to a link of that state. */
static enum hw_status encode_push(struct hw_replication *replication, const struct hw_link *link,
                                  const uint64_t *block, struct hw_error *err)
{
    struct hw_push_cache *cache = &replication->pushed;
    struct hw_push_cache wanted = {.has_block = block != NULL,
                                   .has_upgrade = link->level < replication->length,
                                   .length = replication->length,
                                   .bytes = cache->bytes};
    struct hw_proof_request request = {.fork = replication->fork};
    struct hw_proof proof = {0};
    enum hw_status status;

    if (wanted.has_upgrade)
        wanted.start = link->level;
    if (block != NULL) {
        uint64_t base = wanted.has_upgrade ? link->level : link->push_base;
        uint64_t known = link->push_next == *block && *block > base ? *block - 1 : base - 1;

        wanted.block = *block;
        wanted.levels = wanted.has_upgrade && *block >= base
                            ? 0
                            : levels_to_known(*block, known, replication->length);
    }
    if (cache->bytes.size > 0 && cache->has_block == wanted.has_block &&
        cache->has_upgrade == wanted.has_upgrade && cache->block == wanted.block &&
        cache->levels == wanted.levels && cache->start == wanted.start &&
        cache->length == wanted.length)
        return HW_OK;
    *cache = wanted;
    hw_buffer_clear(&cache->bytes);
    request.has_block = wanted.has_block;
    request.block_index = wanted.block;
    request.block_nodes = wanted.levels;
    request.has_upgrade = wanted.has_upgrade;
    request.upgrade_start = wanted.start;
    request.upgrade_length = wanted.length - wanted.start;
    request.wants_manifest = wanted.has_upgrade && wanted.start == 0;
    status = hw_core_prove(replication->options.core, &request, &proof, err);
    if (status == HW_OK && proof.has_manifest && proof.manifest.size == 0)
        proof.has_manifest = false;
    if (status == HW_OK) {
        hw_proof_encode(&proof, &cache->bytes);
        if (cache->bytes.failed) {
            hw_buffer_release(&cache->bytes);
            status = hw_fail(err, HW_ENOMEM, "no memory for a block to push");
        }
    }
    hw_proof_release(&proof);
    return status;
}

/* `block` NULL: the upgrade alone.  What cannot be pushed is announced. */
static void push(struct hw_link *link, const uint64_t *block)
{
    struct hw_replication *replication = link->replication;

    if (hw_link_output_is_full(link) || encode_push(replication, link, block, NULL) != HW_OK) {
        link->is_live = false;
        link->announce_due = true;
        return;
    }
    hw_link_send(link, HW_MESSAGE_DATA, &replication->pushed.bytes);
    if (link->level < replication->length) {
        link->push_base = link->push_next = link->level;
        link->level = replication->length;
    }
    if (block == NULL)
        return;
    link->push_next = *block + 1;
    if (link->announced == *block)
        link->announced = *block + 1;
    link->blocks_sent++;
}

/* Blocks below are not for it: it had a tree that covers them. */
static uint64_t first_to_push(const struct hw_link *link)
{
    return link->level < link->replication->length ? link->level : link->push_base;
}

/* Whether a block is held cannot be read just now. */
static void announce_instead(struct hw_replication *replication, const struct hw_link *from)
{
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        link->announce_due = link->announce_due || (link->is_live && link != from);
        link->is_live = link->is_live && link == from;
    }
}

void hw_replication_tell_grown(struct hw_replication *replication, struct hw_link *from)
{
    struct hw_core *core = replication->options.core;
    uint64_t first = replication->length;

    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (link == from && link->is_live)
            hw_link_go_live(link, replication->length); /* it told us */
        else if (link->is_live && link->level < first)
            first = link->level;
        else if (!link->is_live && link != from)
            announce_grown(link);
    }
    for (uint64_t block = first; block < replication->length; block++) {
        bool is_held, any = false;

        if (hw_core_is_held(core, block, &is_held, NULL) != HW_OK)
            announce_instead(replication, from);

        for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
            if (!link->is_live || link == from || block < first_to_push(link))
                continue;
            any = true;
            if (is_held && !hw_link_bits_has(&link->bits, block))
                push(link, &block);
        }
        if (!any)
            break;
    }
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (link->is_live && link->level < replication->length)
            push(link, NULL);
        if (link->announce_due)
            hw_link_flush(link);
    }
    if (replication->pushed.bytes.capacity > CACHE_KEPT_MAX)
        hw_buffer_release(&replication->pushed.bytes);
}

static bool is_interested(const struct hw_link *link, uint64_t block)
{
    if (block + TOLD_AT_THE_END >= link->replication->length)
        return true;
    for (unsigned i = 0; i < link->interest_count; i++) {
        if (block >= link->interests[i].start && block < link->interests[i].end)
            return true;
    }
    return false;
}

static void tell_news(struct hw_link *link)
{
    struct hw_want news = link->news;

    link->news = (struct hw_want){0, 0};
    if (news.end > news.start)
        hw_link_send_range(link, news.start, news.end - news.start, false);
}

void hw_replication_tell_block(struct hw_replication *replication, struct hw_link *from,
                               uint64_t block)
{
    (void)look_contiguous(replication, NULL); /* it stays less than there is, and no more */
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (link == from || !link->is_synced || link->remote.fork != replication->fork ||
            hw_link_bits_has(&link->bits, block))
            continue;
        if (link->is_live && block >= link->push_base && link->level == replication->length) {
            push(link, &block);
            continue;
        }
        if (!is_interested(link, block))
            continue;
        if (link->news.end != block || link->news.end == link->news.start) {
            tell_news(link);
            link->news.start = block;
        }
        link->news.end = block + 1;
    }
}

bool hw_link_has_news(const struct hw_link *link)
{
    return link->news.end > link->news.start || link->sync_due;
}

void hw_link_flush(struct hw_link *link)
{
    if (link->is_doomed || hw_link_output_is_full(link))
        return;
    tell_news(link);
    if (link->announce_due)
        announce_grown(link);
    if (link->sync_due)
        hw_link_send_sync(link);
}
