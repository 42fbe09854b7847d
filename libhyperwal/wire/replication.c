/* Implements the log's side of wire/replication.h: wants, what changed, time. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/replication_internal.h"

enum { BLOCK_SIZE_START = 4096 }; /* bytes: what a block is thought to have, at first */

enum hw_status hw_replication_new(const struct hw_replication_options *options,
                                  struct hw_replication **out, struct hw_error *err)
{
    struct hw_replication *replication = hw_zalloc(sizeof(*replication));
    struct hw_core_head head = hw_core_head(options->core);
    struct hw_buffer manifest = {0};
    enum hw_status status;

    if (replication == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to replicate a log");
    status = hw_core_manifest(options->core, &manifest, err);
    if (status != HW_OK) {
        hw_free(replication);
        return status;
    }
    replication->options = *options;
    replication->fork = head.fork;
    replication->length = head.length;
    replication->has_manifest = manifest.size > 0;
    replication->wants.tail = UINT64_MAX;
    replication->block_size = BLOCK_SIZE_START;
    hw_buffer_release(&manifest);
    *out = replication;
    return HW_OK;
}

void hw_replication_free(struct hw_replication *replication)
{
    if (replication == NULL)
        return;
    assert(replication->links == NULL);
    hw_wants_release(&replication->wants);
    hw_free(replication->urgent);
    hw_buffer_release(&replication->scratch);
    hw_buffer_release(&replication->pushed.bytes);
    hw_free(replication);
}

struct hw_core *hw_replication_core(const struct hw_replication *replication)
{
    return replication->options.core;
}

void hw_replication_grown(struct hw_replication *replication)
{
    struct hw_core_head head = hw_core_head(replication->options.core);

    if (head.fork == replication->fork && head.length == replication->length)
        return;
    if (head.fork != replication->fork) { /* adopted: what was pushed is of the old one */
        hw_buffer_release(&replication->pushed.bytes);
        for (struct hw_link *link = replication->links; link != NULL; link = link->next)
            link->is_live = false;
    }
    replication->fork = head.fork;
    replication->length = head.length;
    hw_replication_tell_grown(replication, NULL);
}

void hw_replication_dropped(struct hw_replication *replication, uint64_t start, uint64_t length)
{
    hw_replication_lacks(replication, start, start + length);
    for (struct hw_link *link = replication->links; link != NULL; link = link->next)
        hw_link_send_range(link, start, length, true);
}

/* --------------------------------------------------------------------------------- wants */

/* Is a block of the range still missing? */
static bool is_needed(void *ctx, struct hw_want range)
{
    struct hw_replication *replication = ctx;

    while (range.start < range.end && range.end <= replication->length) {
        uint64_t found, checked;

        if (hw_core_find(replication->options.core, range.start, range.end, false, &found, &checked,
                         NULL) != HW_OK ||
            found < range.end || checked <= range.start)
            return true;
        range.start = checked;
    }
    return range.start < range.end;
}

enum hw_status hw_replication_want(struct hw_replication *replication, uint64_t start, uint64_t end,
                                   struct hw_error *err)
{
    enum hw_status status = hw_wants_add(&replication->wants, start, end);

    if (status == HW_ELIMIT) { /* perhaps most of them came long ago */
        hw_wants_keep(&replication->wants, is_needed, replication);
        status = hw_wants_add(&replication->wants, start, end);
    }
    if (status != HW_OK)
        return hw_fail(err, status, "too many ranges of blocks are wanted at once");
    hw_replication_rewind(replication, start);
    hw_replication_fetch(replication);
    return HW_OK;
}

/* Who still waits for one of them looks when it learns that nobody has it, and says so again. */
static void forget_nobodys(struct hw_replication *replication)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < replication->urgent_count; i++) {
        uint64_t block = replication->urgent[i];
        enum hw_availability where = hw_replication_availability(replication, block);

        if (where != HW_BLOCK_HELD && where != HW_BLOCK_NOBODY)
            replication->urgent[kept++] = block;
    }
    replication->urgent_count = kept;
}

enum hw_status hw_replication_want_now(struct hw_replication *replication, uint64_t block,
                                       struct hw_error *err)
{
    for (unsigned i = 0; i < replication->urgent_count; i++) {
        if (replication->urgent[i] == block)
            return HW_OK;
    }
    if (replication->urgent_count == HW_URGENT_MAX)
        forget_nobodys(replication);
    if (replication->urgent_count == HW_URGENT_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d blocks are waited for", HW_URGENT_MAX);
    if (replication->urgent_count == replication->urgent_capacity) {
        unsigned capacity =
            replication->urgent_capacity == 0 ? 16 : 2 * replication->urgent_capacity;
        uint64_t *urgent = hw_realloc(replication->urgent, capacity * sizeof(*urgent));

        if (urgent == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory for a block that is waited for");
        replication->urgent = urgent;
        replication->urgent_capacity = capacity;
    }
    replication->urgent[replication->urgent_count++] = block;
    hw_replication_fetch(replication);
    return HW_OK;
}

void hw_replication_unwant_now(struct hw_replication *replication, uint64_t block)
{
    for (unsigned i = 0; i < replication->urgent_count; i++) {
        if (replication->urgent[i] != block)
            continue;
        replication->urgent_count--;
        memmove(replication->urgent + i, replication->urgent + i + 1,
                (replication->urgent_count - i) * sizeof(*replication->urgent));
        return;
    }
}

void hw_replication_want_tail(struct hw_replication *replication, uint64_t start)
{
    bool allowed_push = replication->wants.tail != UINT64_MAX;

    if (replication->wants.tail == start)
        return;
    replication->wants.tail = start;
    hw_replication_rewind(replication, start);
    if (allowed_push != (start != UINT64_MAX)) { /* whether blocks may come unasked is new */
        for (struct hw_link *link = replication->links; link != NULL; link = link->next)
            hw_link_send_sync(link);
    }
    hw_replication_fetch(replication);
}

void hw_replication_unwant(struct hw_replication *replication)
{
    hw_wants_clear(&replication->wants);
    replication->urgent_count = 0;
}

/* May this link have it, or come to have it? */
static bool may_come(const struct hw_link *link, uint64_t block, uint64_t now_ns)
{
    uint64_t page = block / HW_WANT_BLOCKS;
    uint32_t bit;

    if (link->is_doomed)
        return false;
    if (!link->is_synced)
        return true;
    if (!hw_link_is_source(link)) /* a higher fork is being looked at */
        return link->remote.is_uploading && link->remote.fork > link->replication->fork;
    if (hw_link_bits_has(&link->bits, block))
        return block < link->remote_length;
    if (block >= link->remote_length || page >= HW_WANT_PAGES)
        return false;
    bit = UINT32_C(1) << page;
    if ((link->wants_sent & bit) == 0)
        return true; /* to be asked, once the block is wanted */
    return (link->wants_answered & bit) == 0 &&
           now_ns < link->want_sent_ns + HW_WANT_ANSWER_MS * HW_MS;
}

enum hw_availability hw_replication_availability(struct hw_replication *replication, uint64_t block)
{
    uint64_t now_ns = hw_replication_now(replication);
    bool has_link = false;

    if (hw_core_has(replication->options.core, block))
        return HW_BLOCK_HELD;
    if (hw_replication_is_in_flight(replication, block))
        return HW_BLOCK_COMING;
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (may_come(link, block, now_ns))
            return HW_BLOCK_COMING;
        has_link = has_link || !link->is_doomed;
    }
    return has_link ? HW_BLOCK_NOBODY : HW_BLOCK_NO_LINK;
}

/* ----------------------------------------------------------------------------------- time */

/* Wants whose answer is overdue: availability changes then. */
static void check_wants(const struct hw_link *link, uint64_t now_ns, uint64_t *deadline_ns)
{
    uint64_t end = link->want_sent_ns + HW_WANT_ANSWER_MS * HW_MS;

    if ((link->wants_sent & ~link->wants_answered) != 0 && now_ns<end && * deadline_ns> end)
        *deadline_ns = end;
}

enum hw_status hw_replication_tick(struct hw_replication *replication, uint64_t now_ns,
                                   struct hw_link **dropped, uint64_t *deadline_ns,
                                   struct hw_error *err)
{
    *deadline_ns = UINT64_MAX;
    if (replication->broken_until_ns != 0 && now_ns >= replication->broken_until_ns) {
        replication->broken_until_ns = 0;
        hw_replication_rewind(replication, 0);
    }
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        struct hw_error why = {.status = HW_OK};

        if (link->want_count > 0 && hw_link_answer(link, &why) != HW_OK)
            hw_link_doom(link, &why);
        if (link->want_count > 0 && !link->is_doomed && !hw_link_output_is_full(link))
            *deadline_ns = now_ns;
        hw_link_flush(link);
        hw_link_check_time(link, now_ns, deadline_ns);
        check_wants(link, now_ns, deadline_ns);
    }
    hw_replication_fetch(replication);
    hw_replication_doubt(replication, now_ns, deadline_ns);
    for (struct hw_link *link = replication->links; link != NULL; link = link->next) {
        if (!link->is_doomed)
            continue;
        if (err != NULL)
            *err = link->doom;
        *dropped = link;
        return HW_OK;
    }
    if (replication->broken_until_ns != 0 && *deadline_ns > replication->broken_until_ns)
        *deadline_ns = replication->broken_until_ns;
    if (replication->scan_goes_on)
        *deadline_ns = now_ns;
    return HW_END;
}
