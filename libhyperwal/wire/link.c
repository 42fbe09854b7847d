/* Implements the links of wire/replication.h: opening them, and what the remote says of itself. */
#include <assert.h>

#include "base/alloc.h"
#include "wire/replication_internal.h"

/* -------------------------------------------------------------------------------- sending */

void hw_link_doom(struct hw_link *link, const struct hw_error *err)
{
    if (link->is_doomed)
        return;
    link->is_doomed = true;
    link->doom = *err;
    link->is_live = false;
}

void hw_link_send(struct hw_link *link, enum hw_message_type type, const struct hw_buffer *message)
{
    struct hw_error err = {.status = HW_OK};
    enum hw_status status;

    if (link->is_doomed)
        return;
    if (message->failed)
        status = hw_fail(&err, HW_ENOMEM, "no memory for a message to a peer");
    else
        status =
            link->sink.send(link->sink.ctx, type, (struct hw_slice){message->bytes, message->size},
                            (struct hw_slice){NULL, 0}, &err);
    if (status != HW_OK) {
        err.status = status;
        hw_link_doom(link, &err);
    }
}

bool hw_link_output_is_full(struct hw_link *link)
{
    return link->sink.queued(link->sink.ctx) > HW_LINK_OUTPUT_MAX;
}

void hw_link_send_sync(struct hw_link *link)
{
    struct hw_replication *replication = link->replication;
    struct hw_message_sync sync = {
        .can_upgrade = replication->fork == link->remote.fork,
        .is_uploading = true,
        .is_downloading = true, /* a JavaScript peer would close a channel where nobody does */
        .has_manifest = replication->has_manifest,
        .allows_push = replication->options.fetches && replication->wants.tail != UINT64_MAX,
        .fork = replication->fork,
        .length = replication->length,
        .remote_length = replication->fork == link->remote.fork ? link->remote.length : 0,
    };

    link->sync_due = false;
    hw_buffer_clear(&replication->scratch);
    hw_message_sync_encode(&sync, &replication->scratch);
    hw_link_send(link, HW_MESSAGE_SYNC, &replication->scratch);
}

void hw_link_send_range(struct hw_link *link, uint64_t start, uint64_t length, bool drop)
{
    struct hw_message_range range = {.drop = drop, .start = start, .length = length};
    struct hw_buffer *scratch = &link->replication->scratch;

    hw_buffer_clear(scratch);
    hw_message_range_encode(&range, scratch);
    hw_link_send(link, HW_MESSAGE_RANGE, scratch);
}

/* ------------------------------------------------------------------------- open and close */

enum hw_status hw_link_open(struct hw_replication *replication, const struct hw_link_sink *sink,
                            struct hw_link **out, struct hw_error *err)
{
    struct hw_link *link = hw_zalloc(sizeof(*link));

    if (link == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a peer's link");
    link->replication = replication;
    link->sink = *sink;
    link->window = HW_WINDOW_START;
    link->refused_length = link->late_length = link->idle_length = UINT64_MAX;
    link->next = replication->links;
    replication->links = link;
    hw_link_send_sync(link);
    hw_link_announce(link);
    if (link->is_doomed) {
        enum hw_status status = link->doom.status;

        if (err != NULL)
            *err = link->doom;
        hw_link_close(link);
        return status;
    }
    *out = link;
    return HW_OK;
}

void hw_link_close(struct hw_link *link)
{
    struct hw_replication *replication;
    struct hw_link **at;

    if (link == NULL)
        return;
    replication = link->replication;
    at = &replication->links;
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    for (unsigned i = 0; i < HW_LINK_IN_FLIGHT; i++)
        hw_link_request_end(link, &link->requests[i], false);
    if (replication->work.link == link)
        hw_replication_reorg_end(replication);
    hw_link_bits_release(&link->bits);
    hw_free(link->queue);
    hw_free(link);
    hw_replication_fetch(replication);
}

/* ------------------------------------------------------------------ what the remote tells */

static enum hw_status no_memory(struct hw_error *err)
{
    return hw_fail(err, HW_ENOMEM, "no memory for what a peer has");
}

/* The remote is on another fork than it was: what it told is about a log that is gone. */
static void forget(struct hw_link *link)
{
    hw_link_bits_release(&link->bits);
    link->wants_sent = link->wants_answered = 0;
    link->refused_length = link->late_length = UINT64_MAX;
    link->is_live = false;
}

static enum hw_status on_sync(struct hw_link *link, struct hw_slice payload, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_message_sync sync;
    enum hw_status status = hw_message_sync_decode(payload, &sync, err);

    if (status != HW_OK)
        return status;
    if (sync.length > HW_TREE_LENGTH_MAX)
        return hw_fail(err, HW_EPROTOCOL, "sync about %llu blocks",
                       (unsigned long long)sync.length);
    if (link->is_synced && sync.fork != link->remote.fork)
        forget(link);
    if (sync.length < link->remote_length && /* not if a Range came before the Sync */
        hw_link_bits_clear(&link->bits, sync.length, UINT64_MAX) != HW_OK)
        return no_memory(err);
    if (sync.length != link->remote_length)
        link->refused_length = UINT64_MAX;
    link->is_synced = true;
    link->remote = sync;
    link->remote_length = sync.length;

    if (sync.fork != replication->fork || !sync.allows_push || sync.length > replication->length)
        link->is_live = false;
    if (sync.fork != replication->fork || link->is_live)
        return HW_OK;
    if (sync.length < replication->length && hw_link_output_is_full(link))
        link->sync_due = true; /* one answer is enough for all that it says meanwhile */
    else if (sync.length < replication->length)
        hw_link_send_sync(link); /* it waits for that before it asks */
    else if (sync.length == replication->length && sync.allows_push)
        hw_link_go_live(link, sync.length);
    return HW_OK;
}

/* Was a want of ours answered by what is now known of blocks up to `end`? */
static void mark_answered(struct hw_link *link, uint64_t start, uint64_t end)
{
    uint64_t page = start / HW_WANT_BLOCKS;

    for (; page < HW_WANT_PAGES && page * HW_WANT_BLOCKS < end; page++) {
        uint64_t page_end = (page + 1) * HW_WANT_BLOCKS;

        if (end >= (link->remote_length < page_end ? link->remote_length : page_end))
            link->wants_answered |= UINT32_C(1) << page;
    }
}

static enum hw_status on_range(struct hw_link *link, struct hw_slice payload, struct hw_error *err)
{
    struct hw_message_range range;
    enum hw_status status = hw_message_range_decode(payload, &range, err);
    uint64_t end;

    if (status != HW_OK || !link->replication->options.fetches)
        return status;
    if (range.start > HW_TREE_LENGTH_MAX)
        return HW_OK; /* of no log */
    end = range.length < HW_TREE_LENGTH_MAX ? range.start + range.length : HW_TREE_LENGTH_MAX;
    if (range.drop)
        status = hw_link_bits_clear(&link->bits, range.start, end);
    else
        status = hw_link_bits_set(&link->bits, range.start, end);
    if (status != HW_OK)
        return no_memory(err);
    mark_answered(link, range.start, end);
    if (!range.drop)
        hw_link_rewind(link, range.start);
    return HW_OK;
}

static enum hw_status on_bitfield(struct hw_link *link, struct hw_slice payload,
                                  struct hw_error *err)
{
    struct hw_message_bitfield bitfield;
    enum hw_status status = hw_message_bitfield_decode(payload, &bitfield, err);

    if (status != HW_OK || !link->replication->options.fetches)
        return status;
    if (bitfield.start % 32 != 0 || bitfield.start > HW_TREE_LENGTH_MAX)
        return HW_OK; /* JavaScript peers ignore it too */
    if (hw_link_bits_put(&link->bits, bitfield.start, bitfield.words) != HW_OK)
        return no_memory(err);
    mark_answered(link, bitfield.start, bitfield.start + 8 * bitfield.words.size);
    hw_link_rewind(link, bitfield.start);
    return HW_OK;
}

static enum hw_status dispatch(struct hw_link *link, uint64_t type, struct hw_slice payload,
                               struct hw_error *err)
{
    switch (type) {
    case HW_MESSAGE_SYNC:
        return on_sync(link, payload, err);
    case HW_MESSAGE_REQUEST:
        return hw_link_on_request(link, payload, err);
    case HW_MESSAGE_CANCEL:
        return hw_link_on_cancel(link, payload, err);
    case HW_MESSAGE_DATA:
        return hw_link_on_data(link, payload, err);
    case HW_MESSAGE_NO_DATA:
        return hw_link_on_no_data(link, payload, err);
    case HW_MESSAGE_WANT:
        return hw_link_on_want(link, payload, false, err);
    case HW_MESSAGE_UNWANT:
        return hw_link_on_want(link, payload, true, err);
    case HW_MESSAGE_BITFIELD:
        return on_bitfield(link, payload, err);
    case HW_MESSAGE_RANGE:
        return on_range(link, payload, err);
    default:
        return HW_OK; /* extensions, and what newer peers may say */
    }
}

static enum hw_status doomed(const struct hw_link *link, struct hw_error *err)
{
    if (err != NULL)
        *err = link->doom;
    return link->doom.status;
}

enum hw_status hw_link_receive(struct hw_link *link, uint64_t type, struct hw_slice payload,
                               struct hw_error *err)
{
    enum hw_status status;

    if (link->is_doomed)
        return doomed(link, err);
    status = dispatch(link, type, payload, err);
    if (status != HW_OK)
        return status;
    if (type != HW_MESSAGE_REQUEST)
        hw_replication_fetch(link->replication);
    return link->is_doomed ? doomed(link, err) : HW_OK;
}

enum hw_status hw_link_drained(struct hw_link *link, struct hw_error *err)
{
    enum hw_status status;

    if (link->is_doomed)
        return doomed(link, err);
    status = hw_link_answer(link, err);
    if (status != HW_OK)
        return status;
    hw_link_flush(link);
    return link->is_doomed ? doomed(link, err) : HW_OK;
}

bool hw_link_is_full(const struct hw_link *link)
{
    return link->queue_count >= HW_LINK_REQUESTS_MAX / 4 ||
           link->want_count >= HW_REMOTE_WANTS_MAX / 2;
}

void hw_link_status(const struct hw_link *link, struct hw_link_status *out)
{
    *out = (struct hw_link_status){
        .remote_length = link->remote_length,
        .remote_fork = link->remote.fork,
        .is_synced = link->is_synced,
        .is_live = link->is_live,
        .in_flight = link->in_flight,
        .unanswered = link->queue_count + link->want_count + (link->announce_due ? 1 : 0),
        .blocks_sent = link->blocks_sent,
        .blocks_received = link->blocks_received,
        .bytes_sent = link->bytes_sent,
        .bytes_received = link->bytes_received,
    };
}
