/* Transaction blocks: coded against previous images, in any order, at any page size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "entry/entry.h"

enum { PAGE_SIZE = 4096 };

struct page {
    uint32_t number;
    bool has_previous;
    uint8_t *content, *previous;
};

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 2654435761U + 12345;
    *seed ^= *seed >> 15;
    *seed *= 2246822519U;
    *seed ^= *seed >> 13;
    return *seed;
}

static void fill(uint8_t *bytes, size_t size, uint32_t seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)next_random(&seed);
}

/* Pages whose new image is the previous one with a few bytes changed. */
static struct page *pages_new(uint32_t count, uint32_t page_size, uint32_t seed)
{
    struct page *pages = calloc(count, sizeof(*pages));

    for (uint32_t i = 0; i < count; i++) {
        pages[i].number = 1 + i * 3;
        pages[i].has_previous = next_random(&seed) % 3 != 0;
        pages[i].content = malloc(page_size);
        pages[i].previous = malloc(page_size);
        fill(pages[i].previous, page_size, seed + i);
        memcpy(pages[i].content, pages[i].previous, page_size);
        fill(pages[i].content + page_size / 2, 20, seed + i + 1000);
    }
    return pages;
}

static void pages_free(struct page *pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        free(pages[i].content);
        free(pages[i].previous);
    }
    free(pages);
}

static void add_all(struct hw_transaction_encoder *encoder, const struct page *pages,
                    uint32_t count, uint32_t stride)
{
    struct hw_error err;

    for (uint32_t start = 0; start < stride; start++)
        for (uint32_t i = start; i < count; i += stride)
            assert_int_equal(
                hw_transaction_encoder_add(encoder, pages[i].number, pages[i].content,
                                           pages[i].has_previous ? pages[i].previous : NULL, &err),
                HW_OK);
}

/* Decode a body and compare with `pages`; gives the previous images where they are asked for. */
static void check_body(const struct hw_buffer *body, const struct page *pages, uint32_t count,
                       uint32_t page_size)
{
    struct hw_transaction_decoder *decoder;
    struct hw_transaction transaction;
    struct hw_cursor cursor = hw_cursor(body->bytes, body->size);
    struct hw_error err;

    assert_int_equal(hw_transaction_decoder_new(&decoder, &err), HW_OK);
    assert_int_equal(hw_transaction_decode(decoder, &cursor, page_size, &transaction, &err), HW_OK);
    assert_int_equal(transaction.change_count, count);
    assert_int_equal(transaction.page_count, 100000);
    assert_true(transaction.sum_before == 5 && transaction.sum_after == 7);
    for (uint32_t i = 0; i < count; i++) {
        bool needs_previous;

        assert_int_equal(hw_transaction_page(decoder, i, &needs_previous), pages[i].number);
        assert_true(pages[i].has_previous || !needs_previous);
        assert_int_equal(hw_transaction_previous(decoder, i) != NULL, needs_previous);
        if (needs_previous)
            memcpy(hw_transaction_previous(decoder, i), pages[i].previous, page_size);
    }
    assert_int_equal(hw_transaction_expand(decoder, &err), HW_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_memory_equal(hw_transaction_image(decoder, i), pages[i].content, page_size);
    hw_transaction_decoder_free(decoder);
}

static const struct hw_transaction numbers = {
    .page_count = 100000, .sum_before = 5, .sum_after = 7};

static void images_come_back_at_every_page_size_and_in_any_order(void **state)
{
    (void)state;
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        for (uint32_t stride = 1; stride < 8; stride += 3) {
            uint32_t count = 7;
            struct page *pages = pages_new(count, page_size, page_size + stride);
            struct hw_transaction_encoder *encoder;
            struct hw_buffer body = {0};
            struct hw_error err;

            assert_int_equal(hw_transaction_encoder_new(page_size, &encoder, &err), HW_OK);
            add_all(encoder, pages, count, stride);
            assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_OK);
            check_body(&body, pages, count, page_size);
            hw_buffer_release(&body);
            hw_transaction_encoder_free(encoder);
            pages_free(pages, count);
        }
    }
}

static void changed_bytes_alone_make_a_small_block(void **state)
{
    struct page *pages = pages_new(2, PAGE_SIZE, 1);
    struct hw_transaction_encoder *encoder;
    struct hw_buffer body = {0};
    struct hw_error err;

    (void)state;
    pages[0].has_previous = pages[1].has_previous = true;
    assert_int_equal(hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err), HW_OK);
    add_all(encoder, pages, 2, 1);
    assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_OK);
    assert_in_range(body.size, 60, 130); /* 40 bytes changed */
    check_body(&body, pages, 2, PAGE_SIZE);
    hw_buffer_release(&body);
    hw_transaction_encoder_free(encoder);
    pages_free(pages, 2);
}

static void previous_images_that_do_not_help_are_not_asked_for(void **state)
{
    struct page *pages = pages_new(4, PAGE_SIZE, 1);
    struct hw_transaction_decoder *decoder;
    struct hw_transaction_encoder *encoder;
    struct hw_transaction transaction;
    struct hw_buffer body = {0};
    struct hw_cursor cursor;
    struct hw_error err;
    bool needs_previous;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        pages[i].has_previous = true;
        fill(pages[i].content, PAGE_SIZE, 77 + i);
    }
    assert_int_equal(hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err), HW_OK);
    add_all(encoder, pages, 4, 1);
    assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_OK);
    check_body(&body, pages, 4, PAGE_SIZE);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_transaction_decoder_new(&decoder, &err), HW_OK);
    assert_int_equal(hw_transaction_decode(decoder, &cursor, PAGE_SIZE, &transaction, &err), HW_OK);
    (void)hw_transaction_page(decoder, 0, &needs_previous);
    assert_false(needs_previous);
    hw_transaction_decoder_free(decoder);
    hw_buffer_release(&body);
    hw_transaction_encoder_free(encoder);
    pages_free(pages, 4);
}

static void full_block_takes_no_more_and_is_there_to_be_encoded(void **state)
{
    struct hw_transaction_encoder *encoder;
    struct hw_transaction_decoder *decoder;
    struct hw_transaction transaction;
    uint8_t page[PAGE_SIZE] = {1};
    struct hw_buffer body = {0};
    enum hw_status status = HW_OK;
    struct hw_cursor cursor;
    struct hw_error err;
    uint32_t count = 0;

    (void)state;
    assert_int_equal(hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err), HW_OK);
    while (status == HW_OK) {
        status = hw_transaction_encoder_add(encoder, count + 1, page, page, &err);
        count += status == HW_OK;
    }
    assert_int_equal(status, HW_ELIMIT);
    assert_int_equal(hw_transaction_encoder_count(encoder), count);
    assert_in_range(count, 64, HW_TRANSACTION_BYTES / PAGE_SIZE);
    assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_OK);
    cursor = hw_cursor(body.bytes, body.size);
    assert_int_equal(hw_transaction_decoder_new(&decoder, &err), HW_OK);
    assert_int_equal(hw_transaction_decode(decoder, &cursor, PAGE_SIZE, &transaction, &err), HW_OK);
    assert_int_equal(transaction.change_count, count);
    hw_transaction_encoder_clear(encoder);
    assert_int_equal(hw_transaction_encoder_add(encoder, 9, page, page, &err), HW_OK);
    hw_transaction_decoder_free(decoder);
    hw_transaction_encoder_free(encoder);
    hw_buffer_release(&body);
}

static void pages_that_cannot_be_are_refused(void **state)
{
    struct hw_transaction_encoder *encoder;
    uint8_t page[PAGE_SIZE] = {1};
    struct hw_buffer body = {0};
    struct hw_error err;

    (void)state;
    assert_int_equal(hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err), HW_OK);
    assert_int_equal(hw_transaction_encoder_add(encoder, 0, page, NULL, &err), HW_EMISUSE);
    assert_int_equal(hw_transaction_encoder_add(encoder, 262145, page, NULL, &err), HW_EMISUSE);
    assert_int_equal(hw_transaction_encoder_add(encoder, 7, page, NULL, &err), HW_OK);
    assert_int_equal(hw_transaction_encoder_add(encoder, 7, page, NULL, &err), HW_OK);
    assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_EMISUSE);
    assert_int_equal(body.size, 0);
    hw_transaction_encoder_free(encoder);
    hw_buffer_release(&body);
}

/* Decode and expand bytes that may be anything, with zeros as previous images. */
static enum hw_status try_body(const uint8_t *bytes, size_t size)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);
    struct hw_transaction_decoder *decoder;
    struct hw_transaction transaction;
    enum hw_status status;
    struct hw_error err;

    assert_int_equal(hw_transaction_decoder_new(&decoder, &err), HW_OK);
    status = hw_transaction_decode(decoder, &cursor, PAGE_SIZE, &transaction, &err);
    for (uint32_t i = 0; status == HW_OK && i < transaction.change_count; i++) {
        uint8_t *previous = hw_transaction_previous(decoder, i);

        if (previous != NULL)
            memset(previous, 0, PAGE_SIZE);
    }
    if (status == HW_OK)
        status = hw_transaction_expand(decoder, &err);
    hw_transaction_decoder_free(decoder);
    return status;
}

static void no_prefix_of_a_block_and_no_flipped_bit_in_its_frame_is_taken(void **state)
{
    struct page *pages = pages_new(3, PAGE_SIZE, 5);
    struct hw_transaction_encoder *encoder;
    struct hw_buffer body = {0};
    struct hw_error err;

    (void)state;
    for (int i = 0; i < 3; i++)
        memset(pages[i].previous, 0, PAGE_SIZE); /* as try_body has them */
    assert_int_equal(hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err), HW_OK);
    add_all(encoder, pages, 3, 1);
    assert_int_equal(hw_transaction_encode(encoder, &numbers, &body, &err), HW_OK);
    assert_int_equal(try_body(body.bytes, body.size), HW_OK);
    for (size_t size = 0; size < body.size; size += 1 + size / 64)
        assert_int_equal(try_body(body.bytes, size), HW_ECORRUPT);
    /* Behind page_count (5), two sums, the count and three numbers comes the frame. */
    for (size_t i = 5 + 16 + 1 + 3; i < body.size; i += 1 + i / 64) {
        body.bytes[i] ^= 0x04;
        assert_int_equal(try_body(body.bytes, body.size), HW_ECORRUPT);
        body.bytes[i] ^= 0x04;
    }
    hw_transaction_encoder_free(encoder);
    hw_buffer_release(&body);
    pages_free(pages, 3);
}

static bool fails_at(void *ctx, size_t size)
{
    long *left = ctx;

    (void)size;
    return (*left)-- != 0;
}

/* A whole round, both ways, with the allocation number `nth` failing; what was wrong with it. */
static enum hw_status round_with_failure(const struct page *pages, uint32_t count, long nth)
{
    struct hw_transaction_encoder *encoder = NULL;
    struct hw_transaction_decoder *decoder = NULL;
    struct hw_transaction transaction;
    struct hw_buffer body = {0};
    struct hw_cursor cursor;
    enum hw_status status;
    struct hw_error err;

    hw_alloc_set_hook(fails_at, &nth);
    status = hw_transaction_encoder_new(PAGE_SIZE, &encoder, &err);
    for (uint32_t i = count; status == HW_OK && i-- > 0;)
        status = hw_transaction_encoder_add(encoder, pages[i].number, pages[i].content,
                                            pages[i].previous, &err);
    if (status == HW_OK)
        status = hw_transaction_encode(encoder, &numbers, &body, &err);
    if (status == HW_OK)
        status = hw_transaction_decoder_new(&decoder, &err);
    if (status == HW_OK) {
        cursor = hw_cursor(body.bytes, body.size);
        status = hw_transaction_decode(decoder, &cursor, PAGE_SIZE, &transaction, &err);
    }
    for (uint32_t i = 0; status == HW_OK && i < count; i++)
        memcpy(hw_transaction_previous(decoder, i), pages[i].previous, PAGE_SIZE);
    if (status == HW_OK)
        status = hw_transaction_expand(decoder, &err);
    for (uint32_t i = 0; status == HW_OK && i < count; i++)
        assert_memory_equal(hw_transaction_image(decoder, i), pages[i].content, PAGE_SIZE);
    hw_transaction_encoder_free(encoder);
    hw_transaction_decoder_free(decoder);
    hw_buffer_release(&body);
    assert_int_equal(hw_alloc_live(), 0);
    hw_alloc_set_hook(NULL, NULL);
    return status;
}

static void every_failed_allocation_is_reported_and_leaks_nothing(void **state)
{
    struct page *pages = pages_new(20, PAGE_SIZE, 9);
    enum hw_status status = HW_ENOMEM;
    long nth = 0;

    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        pages[i].has_previous = true;
    for (; status != HW_OK && nth < 1000; nth++) {
        status = round_with_failure(pages, 20, nth);
        assert_true(status == HW_OK || status == HW_ENOMEM);
    }
    assert_in_range(nth, 10, 100);
    pages_free(pages, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_come_back_at_every_page_size_and_in_any_order),
        cmocka_unit_test(changed_bytes_alone_make_a_small_block),
        cmocka_unit_test(previous_images_that_do_not_help_are_not_asked_for),
        cmocka_unit_test(full_block_takes_no_more_and_is_there_to_be_encoded),
        cmocka_unit_test(pages_that_cannot_be_are_refused),
        cmocka_unit_test(no_prefix_of_a_block_and_no_flipped_bit_in_its_frame_is_taken),
        cmocka_unit_test(every_failed_allocation_is_reported_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
