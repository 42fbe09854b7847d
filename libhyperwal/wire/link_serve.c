/*
 * Implements the serving side of wire/replication.h: requests and wants of the remote.
 *
 * Each request is answered once, in the order they came, and none while the output is full: then
 * they wait in a ring, up to HW_LINK_REQUESTS_MAX.  To look an id up there takes time, so that what
 * makes us do it for nothing has an end: an honest remote has no two requests with one id waiting,
 * and cancels each request once at most.
 */
#include <string.h>

#include "base/alloc.h"
#include "wire/replication_internal.h"

enum {
    CANCELS_MAX =
        2 * HW_LINK_REQUESTS_MAX, /* saved up: more than any peer has requests in flight */
    PIECES_AT_ONCE = 4,           /* of the answers to wants */
    BITFIELD_WORDS = 2048,        /* of one message: 65,536 blocks */
    SCRATCH_KEPT_MAX = 1 << 20,   /* bytes: a larger one is given back */
};

/* ------------------------------------------------------------------------------- the ring */

static struct hw_proof_request *queue_at(struct hw_link *link, uint32_t i)
{
    return &link->queue[(link->queue_first + i) & (link->queue_capacity - 1)];
}

/* Where the request waits; queue_count: nowhere. */
static uint32_t queue_find(struct hw_link *link, uint64_t id)
{
    uint32_t at = 0;

    while (at < link->queue_count && queue_at(link, at)->id != id)
        at++;
    return at;
}

static enum hw_status queue_grow(struct hw_link *link, struct hw_error *err)
{
    uint32_t capacity = link->queue_capacity == 0 ? 32 : 2 * link->queue_capacity; /* power of 2 */
    struct hw_proof_request *queue = hw_alloc(capacity * sizeof(*queue));

    if (queue == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for %u requests of a peer", (unsigned)capacity);
    for (uint32_t i = 0; i < link->queue_count; i++)
        queue[i] = *queue_at(link, i);
    hw_free(link->queue);
    link->queue = queue;
    link->queue_capacity = capacity;
    link->queue_first = 0;
    return HW_OK;
}

/* What an honest remote does not say; nobody says much of it. */
static enum hw_status note_invalid(struct hw_link *link, struct hw_error *err)
{
    if (++link->invalid > HW_INVALID_MAX)
        return hw_fail(err, HW_EPROTOCOL, "more than %d requests that make no sense",
                       HW_INVALID_MAX);
    return HW_OK;
}

/* A second request with the id of one that waits replaces it. */
static enum hw_status queue_put(struct hw_link *link, const struct hw_proof_request *request,
                                struct hw_error *err)
{
    uint32_t at = queue_find(link, request->id);

    if (at < link->queue_count) {
        *queue_at(link, at) = *request;
        return note_invalid(link, err);
    }
    if (link->queue_count == HW_LINK_REQUESTS_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d requests wait for an answer",
                       HW_LINK_REQUESTS_MAX);
    if (link->queue_count == link->queue_capacity) {
        enum hw_status status = queue_grow(link, err);

        if (status != HW_OK)
            return status;
    }
    *queue_at(link, link->queue_count++) = *request;
    return HW_OK;
}

static void queue_remove(struct hw_link *link, uint32_t at)
{
    for (uint32_t i = at; i + 1 < link->queue_count; i++)
        *queue_at(link, i) = *queue_at(link, i + 1);
    link->queue_count--;
}

/* --------------------------------------------------------------------------------- answers */

static void send_no_data(struct hw_link *link, uint64_t id, uint64_t reason)
{
    struct hw_message_no_data no_data = {.request = id, .reason = reason};
    struct hw_buffer *scratch = &link->replication->scratch;

    hw_buffer_clear(scratch);
    hw_message_no_data_encode(&no_data, scratch);
    hw_link_send(link, HW_MESSAGE_NO_DATA, scratch);
}

static void send_data(struct hw_link *link, const struct hw_proof *proof)
{
    struct hw_buffer *scratch = &link->replication->scratch;

    hw_buffer_clear(scratch);
    hw_proof_encode(proof, scratch);
    hw_link_send(link, HW_MESSAGE_DATA, scratch);
    if (proof->has_block) {
        link->blocks_sent++;
        link->bytes_sent += proof->block.size;
    }
    if (scratch->capacity > SCRATCH_KEPT_MAX)
        hw_buffer_release(scratch);
}

/* Given whatever else is asked: nothing can be checked without it.  False: we have none. */
static bool send_manifest(struct hw_link *link, const struct hw_proof_request *request)
{
    struct hw_proof proof = {.id = request->id, .fork = request->fork, .has_manifest = true};
    bool has = hw_core_manifest(link->replication->options.core, &proof.manifest, NULL) == HW_OK &&
               !proof.manifest.failed && proof.manifest.size > 0;

    if (has)
        send_data(link, &proof);
    hw_proof_release(&proof);
    return has;
}

/* `why` is what hw_core_prove() said. */
static void refuse(struct hw_link *link, const struct hw_proof_request *request, enum hw_status why)
{
    struct hw_replication *replication = link->replication;
    bool is_invalid = why == HW_EPROTOCOL;

    if (is_invalid)
        link->invalid++;
    if (request->wants_manifest && send_manifest(link, request))
        return;
    /* It would ask again at once, and in the end nothing more, if it did not know. */
    if (!is_invalid && why != HW_EFORK && request->has_block) {
        hw_link_send_range(link, request->block_index, 1, true);
        hw_replication_lacks(replication, request->block_index, request->block_index + 1);
    }
    send_no_data(link, request->id, is_invalid ? HW_REASON_INVALID : HW_REASON_NOT_AVAILABLE);
}

static enum hw_status answer(struct hw_link *link, const struct hw_proof_request *request,
                             struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_proof proof = {0};
    enum hw_status status = HW_EFORK;

    if (request->fork == replication->fork)
        status = hw_core_prove(replication->options.core, request, &proof, err);
    /* A block refused is taken for one that is gone for good, and is not: let it dial again. */
    if (status == HW_ENOMEM || status == HW_EIO)
        return status;
    if (status != HW_OK) {
        refuse(link, request, status);
        if (link->invalid > HW_INVALID_MAX)
            return hw_fail(err, HW_EPROTOCOL, "more than %d requests that nobody can answer",
                           HW_INVALID_MAX);
        return HW_OK;
    }
    if (proof.has_manifest && proof.manifest.size == 0) { /* we do not know it yet */
        proof.has_manifest = false;
        if (!proof.has_block && !proof.has_hash && !proof.has_upgrade && !proof.has_seek)
            status = HW_EMISSING;
    }
    if (status == HW_OK)
        send_data(link, &proof);
    else
        refuse(link, request, status);
    /* With this answer it has our tree. */
    if (proof.has_upgrade && link->is_synced && link->remote.allows_push &&
        link->remote.fork == replication->fork)
        hw_link_go_live(link, replication->length);
    hw_proof_release(&proof);
    return HW_OK;
}

enum hw_status hw_link_on_request(struct hw_link *link, struct hw_slice payload,
                                  struct hw_error *err)
{
    struct hw_proof_request request;
    enum hw_status status = hw_proof_request_decode(payload, &request, err);

    if (status != HW_OK)
        return status;
    if (link->cancels_left < CANCELS_MAX)
        link->cancels_left++;
    if (link->queue_count == 0 && !hw_link_output_is_full(link))
        return answer(link, &request, err);
    return queue_put(link, &request, err);
}

enum hw_status hw_link_on_cancel(struct hw_link *link, struct hw_slice payload,
                                 struct hw_error *err)
{
    uint64_t id;
    uint32_t at;
    enum hw_status status = hw_message_cancel_decode(payload, &id, err);

    if (status != HW_OK)
        return status;
    if (link->cancels_left == 0)
        return note_invalid(link, err);
    link->cancels_left--;
    at = queue_find(link, id);
    if (at < link->queue_count)
        queue_remove(link, at);
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- wants */

static void send_bitfield(struct hw_link *link, uint64_t start, const uint32_t *words, size_t count)
{
    struct hw_buffer *scratch = &link->replication->scratch;

    hw_buffer_clear(scratch);
    hw_message_bitfield_encode(start, words, count, scratch);
    hw_link_send(link, HW_MESSAGE_BITFIELD, scratch);
}

/* One piece of the answer to the first want.  *is_done: it is answered. */
static enum hw_status answer_want(struct hw_link *link, bool *is_done, struct hw_error *err)
{
    struct hw_replication *replication = link->replication;
    struct hw_core *core = replication->options.core;
    struct hw_message_want *want = &link->wants[0];
    uint64_t end = want->start + want->length, checked, found;
    uint32_t words[BITFIELD_WORDS];
    size_t count;
    bool is_empty = true;
    enum hw_status status;

    *is_done = true;
    if (end > replication->length)
        end = replication->length;
    if (want->start >= end)
        return HW_OK;
    if (want->any) {
        status = hw_core_find(core, want->start, end, true, &found, &checked, err);
        if (status != HW_OK)
            return status;
        if (found < end)
            hw_link_send_range(link, found, 1, false);
        want->length -= checked - want->start;
        want->start = checked;
        *is_done = found < end || checked >= end;
        return HW_OK;
    }
    if (replication->contiguous >= end) {
        hw_link_send_range(link, 0, replication->contiguous, false);
        return HW_OK;
    }
    if (!hw_core_is_mirror(core) && want->start >= replication->whole_from) {
        hw_link_send_range(link, want->start, end - want->start, false);
        return HW_OK;
    }
    count = (size_t)((end - want->start + 31) / 32);
    if (count > BITFIELD_WORDS)
        count = BITFIELD_WORDS;
    status = hw_core_bits(core, want->start, count, words, err);
    if (status != HW_OK)
        return status;
    for (size_t i = 0; i < count && is_empty; i++)
        is_empty = words[i] == 0;
    /* The last piece is sent even if it is empty: so the remote knows that it was answered. */
    if (!is_empty || want->start + 32 * (uint64_t)count >= end)
        send_bitfield(link, want->start, words, count);
    *is_done = want->start + 32 * (uint64_t)count >= end;
    if (!*is_done) {
        want->start += 32 * (uint64_t)count;
        want->length -= 32 * (uint64_t)count;
    }
    return HW_OK;
}

static void interest_set(struct hw_link *link, uint64_t start, uint64_t end, bool on)
{
    for (unsigned i = 0; i < link->interest_count; i++) {
        if (link->interests[i].start != start || link->interests[i].end != end)
            continue;
        if (!on)
            link->interests[i] = link->interests[--link->interest_count];
        return;
    }
    if (on && link->interest_count < HW_REMOTE_WANTS_MAX)
        link->interests[link->interest_count++] = (struct hw_want){start, end};
}

enum hw_status hw_link_on_want(struct hw_link *link, struct hw_slice payload, bool is_unwant,
                               struct hw_error *err)
{
    struct hw_message_want want;
    enum hw_status status = hw_message_want_decode(payload, &want, err);

    if (status != HW_OK)
        return status;
    if (want.length > HW_WANT_BLOCKS || want.start > HW_TREE_LENGTH_MAX)
        return HW_OK; /* JavaScript peers ignore it too */
    interest_set(link, want.start, want.start + want.length, !is_unwant);
    if (is_unwant)
        return HW_OK;
    if (!want.any) { /* words are answered */
        want.length += want.start % 32;
        want.start -= want.start % 32;
    }
    if (link->want_count == HW_REMOTE_WANTS_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d wants wait for an answer",
                       HW_REMOTE_WANTS_MAX);
    link->wants[link->want_count++] = want;
    return hw_link_answer(link, err);
}

enum hw_status hw_link_answer(struct hw_link *link, struct hw_error *err)
{
    while (link->queue_count > 0 && !link->is_doomed && !hw_link_output_is_full(link)) {
        struct hw_proof_request request = *queue_at(link, 0);
        enum hw_status status;

        link->queue_first = (link->queue_first + 1) % link->queue_capacity;
        link->queue_count--;
        status = answer(link, &request, err);
        if (status != HW_OK)
            return status;
    }
    /* To look at the blocks of a log takes time, which others want too. */
    for (unsigned i = 0; i < PIECES_AT_ONCE && link->want_count > 0 && !link->is_doomed &&
                         !hw_link_output_is_full(link);
         i++) {
        bool is_done;
        enum hw_status status = answer_want(link, &is_done, err);

        if (status != HW_OK)
            return status;
        if (is_done) {
            link->want_count--;
            memmove(link->wants, link->wants + 1, link->want_count * sizeof(link->wants[0]));
        }
    }
    return HW_OK;
}
