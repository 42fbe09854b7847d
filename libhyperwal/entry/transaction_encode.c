/*
 * The encoder of transaction blocks of entry/entry.h.
 *
 *   body: page_count uint | sum_before le64 | sum_after le64 | change_count uint |
 *         change_count times uint (step from the number before << 1 | has previous) | zstd frame
 *
 * A page whose previous image was handed in loses the mark if the frame turned out smaller without
 * any prefix: then no reader has to look for old images.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "entry/delta.h"
#include "entry/entry.h"

/*
 * Bytes of pages in a block that we make.  Blocks of this size compress rewritten tables better
 * than full ones (0.15 to 0.19 against 0.22: the old image is nearer), and keep the memory small.
 */
enum { BLOCK_BYTES = 512 << 10 };
enum { FIRST_PAGES = 8, NO_PREVIOUS = -1 };
/* A prefix that leaves more than 1/PAYS of the raw bytes may do harm: the plain frame is tried. */
enum { PAYS = 4 };

struct change {
    uint32_t page_number;
    int32_t image;    /* index into images */
    int32_t previous; /* index into previous, or NO_PREVIOUS */
};

/* Pages side by side. */
struct images {
    uint8_t *bytes; /* owned */
    uint32_t count, capacity;
};

struct hw_transaction_encoder {
    uint32_t page_size, change_max;
    uint32_t change_capacity, change_count;
    struct change *changes; /* owned */
    struct images images, previous;
    uint8_t *scratch;               /* owned; one page */
    bool ascending;                 /* so far the numbers came in order */
    struct hw_delta_encoder *delta; /* owned */
};

enum hw_status hw_transaction_encoder_new(uint32_t page_size, struct hw_transaction_encoder **out,
                                          struct hw_error *err)
{
    struct hw_transaction_encoder *encoder = hw_zalloc(sizeof(*encoder));
    enum hw_status status;

    assert(hw_entry_page_size_ok(page_size));
    if (encoder == NULL)
        return hw_fail(err, HW_ENOMEM, "transaction encoder: no memory");
    encoder->page_size = page_size;
    encoder->change_max = BLOCK_BYTES / page_size;
    encoder->ascending = true;
    encoder->scratch = hw_alloc(page_size);
    if (encoder->scratch == NULL) {
        status = hw_fail(err, HW_ENOMEM, "transaction encoder: no memory for a page");
        goto fail;
    }
    status = hw_delta_encoder_new(&encoder->delta, err);
    if (status != HW_OK)
        goto fail;
    *out = encoder;
    return HW_OK;

fail:
    hw_transaction_encoder_free(encoder);
    return status;
}

void hw_transaction_encoder_free(struct hw_transaction_encoder *encoder)
{
    if (encoder == NULL)
        return;
    hw_delta_encoder_free(encoder->delta);
    hw_free(encoder->scratch);
    hw_free(encoder->changes);
    hw_free(encoder->images.bytes);
    hw_free(encoder->previous.bytes);
    hw_free(encoder);
}

void hw_transaction_encoder_clear(struct hw_transaction_encoder *encoder)
{
    encoder->change_count = 0;
    encoder->images.count = 0;
    encoder->previous.count = 0;
    encoder->ascending = true;
}

uint32_t hw_transaction_encoder_count(const struct hw_transaction_encoder *encoder)
{
    return encoder->change_count;
}

/* The capacity after `capacity`: doubled, within what a block may hold. */
static uint32_t grown(const struct hw_transaction_encoder *encoder, uint32_t capacity)
{
    uint32_t next = capacity == 0 ? FIRST_PAGES : capacity * 2;

    return next > encoder->change_max ? encoder->change_max : next;
}

static bool images_reserve(const struct hw_transaction_encoder *encoder, struct images *images)
{
    uint32_t capacity = grown(encoder, images->capacity);
    uint8_t *bytes;

    if (images->count < images->capacity)
        return true;
    bytes = hw_realloc(images->bytes, (size_t)capacity * encoder->page_size);
    if (bytes == NULL)
        return false;
    images->bytes = bytes;
    images->capacity = capacity;
    return true;
}

static bool changes_reserve(struct hw_transaction_encoder *encoder)
{
    uint32_t capacity = grown(encoder, encoder->change_capacity);
    struct change *changes;

    if (encoder->change_count < encoder->change_capacity)
        return true;
    changes = hw_realloc(encoder->changes, capacity * sizeof(*changes));
    if (changes == NULL)
        return false;
    encoder->changes = changes;
    encoder->change_capacity = capacity;
    return true;
}

static void images_add(struct images *images, uint32_t page_size, const void *content)
{
    memcpy(images->bytes + (size_t)images->count * page_size, content, page_size);
    images->count++;
}

enum hw_status hw_transaction_encoder_add(struct hw_transaction_encoder *encoder,
                                          uint32_t page_number, const void *content,
                                          const void *previous, struct hw_error *err)
{
    uint32_t count = encoder->change_count;

    if (page_number == 0 || hw_entry_is_lock_page(page_number, encoder->page_size))
        return hw_fail(err, HW_EMISUSE, "page %u cannot be part of a transaction", page_number);
    if (count == encoder->change_max)
        return hw_fail(err, HW_ELIMIT, "a transaction block holds %u pages", encoder->change_max);
    if (!changes_reserve(encoder) || !images_reserve(encoder, &encoder->images) ||
        (previous != NULL && !images_reserve(encoder, &encoder->previous)))
        return hw_fail(err, HW_ENOMEM, "transaction encoder: no memory for %u pages", count + 1);

    if (count > 0 && encoder->changes[count - 1].page_number >= page_number)
        encoder->ascending = false;
    encoder->changes[count] = (struct change){
        .page_number = page_number,
        .image = (int32_t)count,
        .previous = previous == NULL ? NO_PREVIOUS : (int32_t)encoder->previous.count};
    encoder->change_count++;
    images_add(&encoder->images, encoder->page_size, content);
    if (previous != NULL)
        images_add(&encoder->previous, encoder->page_size, previous);
    return HW_OK;
}

static int by_page_number(const void *left, const void *right)
{
    uint32_t a = ((const struct change *)left)->page_number;
    uint32_t b = ((const struct change *)right)->page_number;

    return (a > b) - (a < b);
}

static int32_t *slot_of(struct change *change, bool previous)
{
    return previous ? &change->previous : &change->image;
}

/*
 * Bring the images (or the previous ones) into the order of the changes, in place: what change i
 * has at slot s goes to the slot i's rank, and who had that one takes s.  `owner` tells, for each
 * slot, which change it belongs to; scratch space of one number per change.
 */
static void images_arrange(struct hw_transaction_encoder *encoder, bool previous, uint32_t *owner)
{
    struct images *images = previous ? &encoder->previous : &encoder->images;
    size_t page_size = encoder->page_size;
    uint32_t rank = 0;

    for (uint32_t i = 0; i < encoder->change_count; i++) {
        int32_t slot = *slot_of(&encoder->changes[i], previous);

        if (slot != NO_PREVIOUS)
            owner[slot] = i;
    }
    for (uint32_t i = 0; i < encoder->change_count; i++) {
        uint32_t slot = (uint32_t)*slot_of(&encoder->changes[i], previous);
        uint8_t *here, *there;

        if ((int32_t)slot == NO_PREVIOUS)
            continue;
        here = images->bytes + rank * page_size;
        there = images->bytes + slot * page_size;
        if (slot != rank) {
            memcpy(encoder->scratch, here, page_size);
            memcpy(here, there, page_size);
            memcpy(there, encoder->scratch, page_size);
            owner[slot] = owner[rank];
            *slot_of(&encoder->changes[owner[slot]], previous) = (int32_t)slot;
            *slot_of(&encoder->changes[i], previous) = (int32_t)rank;
            owner[rank] = i;
        }
        rank++;
    }
}

/* Changes and images ascending by page number. */
static enum hw_status arrange(struct hw_transaction_encoder *encoder, struct hw_error *err)
{
    uint32_t count = encoder->change_count;
    uint32_t *owner;

    if (encoder->ascending)
        return HW_OK;
    owner = hw_alloc(count * sizeof(*owner));
    if (owner == NULL)
        return hw_fail(err, HW_ENOMEM, "transaction encoder: no memory to sort %u pages", count);
    qsort(encoder->changes, count, sizeof(*encoder->changes), by_page_number);
    images_arrange(encoder, false, owner);
    images_arrange(encoder, true, owner);
    hw_free(owner);
    encoder->ascending = true;
    return HW_OK;
}

/* The body up to the frame. */
static void head_encode(const struct hw_transaction_encoder *encoder,
                        const struct hw_transaction *transaction, bool with_previous,
                        struct hw_buffer *out)
{
    uint32_t before = 0;

    hw_buffer_add_uint(out, transaction->page_count);
    hw_buffer_add_le64(out, transaction->sum_before);
    hw_buffer_add_le64(out, transaction->sum_after);
    hw_buffer_add_uint(out, encoder->change_count);
    for (uint32_t i = 0; i < encoder->change_count; i++) {
        const struct change *change = &encoder->changes[i];
        bool has_previous = with_previous && change->previous != NO_PREVIOUS;

        hw_buffer_add_uint(out, (uint64_t)(change->page_number - before) << 1 | has_previous);
        before = change->page_number;
    }
}

/* Head and frame.  HW_END: larger than size_max; *out is as it was. */
static enum hw_status body_encode(struct hw_transaction_encoder *encoder,
                                  const struct hw_transaction *transaction, bool with_previous,
                                  size_t size_max, struct hw_buffer *out, struct hw_error *err)
{
    struct hw_slice content = {encoder->images.bytes,
                               (size_t)encoder->images.count * encoder->page_size};
    struct hw_slice prefix = {encoder->previous.bytes,
                              (size_t)encoder->previous.count * encoder->page_size};
    size_t start = out->size, head_size;
    enum hw_status status;

    if (!with_previous)
        prefix = (struct hw_slice){NULL, 0};
    head_encode(encoder, transaction, with_previous, out);
    head_size = out->size - start;
    if (out->failed) {
        status = hw_fail(err, HW_ENOMEM, "transaction encoder: no memory for page numbers");
    } else if (content.size == 0) {
        return HW_OK;
    } else if (head_size >= size_max) {
        status = HW_END;
    } else {
        status = hw_delta_compress(encoder->delta, prefix, content, size_max - head_size, out, err);
    }
    if (status != HW_OK) {
        out->size = start;
        out->failed = false;
    }
    return status;
}

enum hw_status hw_transaction_encode(struct hw_transaction_encoder *encoder,
                                     const struct hw_transaction *transaction,
                                     struct hw_buffer *out, struct hw_error *err)
{
    size_t start = out->size, raw_size, size;
    enum hw_status status = arrange(encoder, err);

    if (status != HW_OK)
        return status;
    for (uint32_t i = 1; i < encoder->change_count; i++)
        if (encoder->changes[i].page_number == encoder->changes[i - 1].page_number)
            return hw_fail(err, HW_EMISUSE, "page %u twice in one transaction block",
                           encoder->changes[i].page_number);

    status = body_encode(encoder, transaction, encoder->previous.count > 0, SIZE_MAX, out, err);
    if (status != HW_OK)
        return status;
    size = out->size - start;
    raw_size = (size_t)encoder->change_count * encoder->page_size;
    if (encoder->previous.count == 0 || size <= raw_size / PAYS)
        return HW_OK;

    /* Try without: behind the first one, and only if it is not larger. */
    status = body_encode(encoder, transaction, false, size, out, err);
    if (status == HW_OK) {
        size_t plain = out->size - start - size;

        memmove(out->bytes + start, out->bytes + start + size, plain);
        out->size = start + plain;
    }
    return HW_OK; /* no memory for the attempt: the first one is good */
}
