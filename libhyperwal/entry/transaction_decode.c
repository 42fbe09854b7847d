/* The decoder of transaction blocks of entry/entry.h; transaction_encode.c has the layout. */
#include <assert.h>

#include "base/alloc.h"
#include "entry/delta.h"
#include "entry/entry.h"

enum { NO_PREVIOUS = -1 };

struct change {
    uint32_t page_number;
    int32_t previous; /* index into previous, or NO_PREVIOUS */
};

struct hw_transaction_decoder {
    uint32_t page_size;
    uint32_t change_count, previous_count;
    struct change *changes;                                      /* owned */
    uint8_t *images;                                             /* owned; change_count pages */
    uint8_t *previous;                                           /* owned; previous_count pages */
    size_t changes_capacity, images_capacity, previous_capacity; /* bytes */
    struct hw_slice frame;          /* borrowed from decode to expand */
    struct hw_delta_decoder *delta; /* owned */
};

enum hw_status hw_transaction_decoder_new(struct hw_transaction_decoder **out, struct hw_error *err)
{
    struct hw_transaction_decoder *decoder = hw_zalloc(sizeof(*decoder));
    enum hw_status status;

    if (decoder == NULL)
        return hw_fail(err, HW_ENOMEM, "transaction decoder: no memory");
    status = hw_delta_decoder_new(&decoder->delta, err);
    if (status != HW_OK) {
        hw_free(decoder);
        return status;
    }
    *out = decoder;
    return HW_OK;
}

void hw_transaction_decoder_free(struct hw_transaction_decoder *decoder)
{
    if (decoder == NULL)
        return;
    hw_delta_decoder_free(decoder->delta);
    hw_free(decoder->changes);
    hw_free(decoder->images);
    hw_free(decoder->previous);
    hw_free(decoder);
}

/*
 * `memory` if it has `size` bytes, else a larger block in its place, without the content.  NULL: no
 * memory, and `memory` is as it was.
 */
static void *enlarge(void *memory, size_t *capacity, size_t size)
{
    size_t rounded = 4096;
    void *larger;

    if (size <= *capacity && memory != NULL)
        return memory;
    while (rounded < size)
        rounded *= 2;
    larger = hw_alloc(rounded);
    if (larger == NULL)
        return NULL;
    hw_free(memory);
    *capacity = rounded;
    return larger;
}

static bool changes_reserve(struct hw_transaction_decoder *decoder, uint32_t count)
{
    struct change *changes =
        enlarge(decoder->changes, &decoder->changes_capacity, count * sizeof(*changes));

    if (changes != NULL)
        decoder->changes = changes;
    return changes != NULL;
}

static bool pages_reserve(uint8_t **pages, size_t *capacity, size_t size)
{
    uint8_t *memory = enlarge(*pages, capacity, size);

    if (memory != NULL)
        *pages = memory;
    return memory != NULL;
}

/* The page numbers, ascending and within the database.  False: they are not. */
static bool changes_decode(struct hw_transaction_decoder *decoder, struct hw_cursor *cursor,
                           uint32_t page_count, uint32_t change_count)
{
    uint64_t number = 0;

    decoder->previous_count = 0;
    for (uint32_t i = 0; i < change_count; i++) {
        uint64_t step = hw_cursor_uint(cursor);
        bool has_previous = step & 1;

        step >>= 1;
        if (cursor->failed || step == 0 || step > page_count - number)
            return false;
        number += step;
        if (hw_entry_is_lock_page((uint32_t)number, decoder->page_size))
            return false;
        decoder->changes[i] = (struct change){
            .page_number = (uint32_t)number,
            .previous = has_previous ? (int32_t)decoder->previous_count : NO_PREVIOUS};
        decoder->previous_count += has_previous;
    }
    return true;
}

enum hw_status hw_transaction_peek(struct hw_cursor *cursor, uint32_t page_size,
                                   struct hw_transaction *out)
{
    uint64_t page_count = hw_cursor_uint(cursor);
    uint64_t sum_before = hw_cursor_le64(cursor), sum_after = hw_cursor_le64(cursor);
    uint64_t change_count = hw_cursor_uint(cursor);

    assert(hw_entry_page_size_ok(page_size));
    if (cursor->failed || page_count > UINT32_MAX ||
        change_count > HW_TRANSACTION_BYTES / page_size)
        return HW_ECORRUPT;
    *out = (struct hw_transaction){.page_size = page_size,
                                   .page_count = (uint32_t)page_count,
                                   .sum_before = sum_before,
                                   .sum_after = sum_after,
                                   .change_count = (uint32_t)change_count};
    return HW_OK;
}

enum hw_status hw_transaction_decode(struct hw_transaction_decoder *decoder,
                                     struct hw_cursor *cursor, uint32_t page_size,
                                     struct hw_transaction *out, struct hw_error *err)
{
    struct hw_transaction transaction;

    decoder->change_count = 0;
    decoder->page_size = page_size;
    /* Each number takes a byte at least: more than are left cannot be there. */
    if (hw_transaction_peek(cursor, page_size, &transaction) != HW_OK ||
        transaction.change_count > hw_cursor_left(cursor))
        return hw_fail(err, HW_ECORRUPT, "transaction: bad beginning");
    if (!changes_reserve(decoder, transaction.change_count))
        return hw_fail(err, HW_ENOMEM, "transaction: no memory for page numbers");
    if (!changes_decode(decoder, cursor, transaction.page_count, transaction.change_count))
        return hw_fail(err, HW_ECORRUPT, "transaction: bad page number");
    decoder->frame = (struct hw_slice){cursor->next, hw_cursor_left(cursor)};
    if (!pages_reserve(&decoder->previous, &decoder->previous_capacity,
                       (size_t)decoder->previous_count * page_size) ||
        !pages_reserve(&decoder->images, &decoder->images_capacity,
                       (size_t)transaction.change_count * page_size))
        return hw_fail(err, HW_ENOMEM, "transaction: no memory for %u pages",
                       transaction.change_count);
    decoder->change_count = transaction.change_count;
    *out = transaction;
    return HW_OK;
}

uint32_t hw_transaction_page(const struct hw_transaction_decoder *decoder, uint32_t i,
                             bool *needs_previous)
{
    assert(i < decoder->change_count);
    *needs_previous = decoder->changes[i].previous != NO_PREVIOUS;
    return decoder->changes[i].page_number;
}

uint8_t *hw_transaction_previous(struct hw_transaction_decoder *decoder, uint32_t i)
{
    assert(i < decoder->change_count);
    if (decoder->changes[i].previous == NO_PREVIOUS)
        return NULL;
    return decoder->previous + (size_t)decoder->changes[i].previous * decoder->page_size;
}

enum hw_status hw_transaction_expand(struct hw_transaction_decoder *decoder, struct hw_error *err)
{
    struct hw_slice prefix = {decoder->previous,
                              (size_t)decoder->previous_count * decoder->page_size};
    size_t size = (size_t)decoder->change_count * decoder->page_size;
    enum hw_status status;

    if (size == 0 && decoder->frame.size == 0)
        return HW_OK;
    if (size == 0)
        return hw_fail(err, HW_ECORRUPT, "transaction: bytes after the end");
    status = hw_delta_expand(decoder->delta, prefix, decoder->frame, decoder->images, size, err);
    return status == HW_OK ? HW_OK : hw_prefix(err, status, "transaction");
}

const uint8_t *hw_transaction_image(const struct hw_transaction_decoder *decoder, uint32_t i)
{
    assert(i < decoder->change_count);
    return decoder->images + (size_t)i * decoder->page_size;
}
