/* Tests wire/write_message.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire/write_message.h"

static const struct hw_write_message samples[] = {
    {.type = HW_WRITE_LEASE, .request = 300},
    {.type = HW_WRITE_LEASED, .request = 1, .fence = 1ULL << 40, .ms = 10000, .length = 77},
    {.type = HW_WRITE_LEASED,
     .request = 2,
     .status = HW_WRITE_NOWHERE,
     .body = {(const uint8_t *)"only a copy", 11}},
    {.type = HW_WRITE_RELEASE, .fence = 5},
    {.type = HW_WRITE_RECALL, .fence = 70000},
    {.type = HW_WRITE_COMMIT,
     .request = 3,
     .sum_before = UINT64_MAX,
     .sum_after = 1,
     .page_count = UINT32_MAX,
     .part_count = HW_WRITE_PARTS_MAX},
    {.type = HW_WRITE_PART, .request = 3, .body = {(const uint8_t *)"abcdefgh", 8}},
    {.type = HW_WRITE_COMMITTED, .request = 3, .kept = true, .seq = 1000000},
    {.type = HW_WRITE_COMMITTED, .request = 3, .status = HW_WRITE_STALE},
    {.type = HW_WRITE_QUESTION, .request = 4},
    {.type = HW_WRITE_OUTCOME, .request = 4, .seq = 9},
    {.type = HW_WRITE_OUTCOME, .request = 4, .status = HW_WRITE_NOT},
    {.type = HW_WRITE_WAITS, .request = 1ULL << 33},
};
enum { SAMPLES = sizeof(samples) / sizeof(samples[0]) };

static struct hw_slice content(const struct hw_buffer *buffer)
{
    assert_false(buffer->failed);
    return (struct hw_slice){buffer->bytes, buffer->size};
}

static void check_same(const struct hw_write_message *a, const struct hw_write_message *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->request, b->request);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->fence, b->fence);
    assert_int_equal(a->ms, b->ms);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->sum_before, b->sum_before);
    assert_int_equal(a->sum_after, b->sum_after);
    assert_int_equal(a->page_count, b->page_count);
    assert_int_equal(a->part_count, b->part_count);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->kept, b->kept);
    assert_int_equal(a->body.size, b->body.size);
    if (a->body.size > 0)
        assert_memory_equal(a->body.bytes, b->body.bytes, a->body.size);
    assert_memory_equal(a->id.bytes, b->id.bytes, HW_ORIGIN_SIZE);
}

static void messages_come_back_and_no_prefix_of_them_does(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SAMPLES; i++) {
        struct hw_write_message m = samples[i], out;
        struct hw_buffer buffer = {0};
        struct hw_slice bytes;
        struct hw_error err;

        if (m.type == HW_WRITE_COMMIT || m.type == HW_WRITE_QUESTION)
            m.id = hw_origin_make(3, 9, (const uint8_t *)"log!", (const uint8_t *)"luck");
        hw_write_message_encode(&m, &buffer);
        bytes = content(&buffer);
        assert_int_equal(hw_write_message_decode(m.type, bytes, &out, &err), HW_OK);
        check_same(&m, &out);
        while (bytes.size-- > 0)
            assert_int_equal(hw_write_message_decode(m.type, bytes, &out, &err), HW_EPROTOCOL);
        hw_buffer_add_u8(&buffer, 9); /* of a later version */
        assert_int_equal(hw_write_message_decode(m.type, content(&buffer), &out, &err), HW_OK);
        check_same(&m, &out);
        hw_buffer_release(&buffer);
    }
}

static void numbers_beyond_their_bounds_are_malformed(void **state)
{
    static const struct hw_write_message wrong[] = {
        {.type = HW_WRITE_COMMIT, .page_count = 0, .part_count = 1},
        {.type = HW_WRITE_COMMIT, .page_count = 1ULL << 32, .part_count = 1},
        {.type = HW_WRITE_COMMIT, .page_count = 1, .part_count = 0},
        {.type = HW_WRITE_COMMIT, .page_count = 1, .part_count = HW_WRITE_PARTS_MAX + 1},
        {.type = HW_WRITE_LEASED, .status = HW_WRITE_STATUS_COUNT},
        {.type = HW_WRITE_OUTCOME, .status = HW_WRITE_STATUS_COUNT},
    };
    struct hw_buffer buffer = {0};
    struct hw_write_message out;
    struct hw_error err;

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        hw_buffer_clear(&buffer);
        hw_write_message_encode(&wrong[i], &buffer);
        assert_int_equal(hw_write_message_decode(wrong[i].type, content(&buffer), &out, &err),
                         HW_EPROTOCOL);
    }
    hw_buffer_clear(&buffer);
    hw_buffer_add_uint(&buffer, 1);
    hw_buffer_add_uint(&buffer, HW_WRITE_PART_MAX + 1);
    assert_non_null(hw_buffer_extend(&buffer, HW_WRITE_PART_MAX + 1));
    assert_int_equal(hw_write_message_decode(HW_WRITE_PART, content(&buffer), &out, &err),
                     HW_EPROTOCOL);
    hw_buffer_release(&buffer);
}

static void words_that_are_too_long_are_cut(void **state)
{
    uint8_t text[HW_WRITE_TEXT_MAX + 50] = {'x'};
    struct hw_write_message m = {
        .type = HW_WRITE_LEASED, .status = HW_WRITE_BUSY, .body = {text, sizeof(text)}};
    struct hw_write_message out;
    struct hw_buffer buffer = {0};
    struct hw_error err;

    (void)state;
    hw_write_message_encode(&m, &buffer);
    assert_int_equal(hw_write_message_decode(m.type, content(&buffer), &out, &err), HW_OK);
    assert_int_equal(out.body.size, HW_WRITE_TEXT_MAX);
    hw_buffer_release(&buffer);
}

static void an_id_says_its_lease_and_what_it_was_made_on(void **state)
{
    struct hw_origin id = hw_origin_make(0x0102030405060708, UINT64_MAX - 1,
                                         (const uint8_t *)"1234", (const uint8_t *)"5678");

    (void)state;
    assert_int_equal(id.bytes[0], 1);
    assert_int_equal(hw_origin_fence(&id), 0x0102030405060708);
    assert_true(hw_origin_base(&id) == UINT64_MAX - 1);
    assert_memory_equal(id.bytes + 16, "12345678", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_back_and_no_prefix_of_them_does),
        cmocka_unit_test(numbers_beyond_their_bounds_are_malformed),
        cmocka_unit_test(words_that_are_too_long_are_cut),
        cmocka_unit_test(an_id_says_its_lease_and_what_it_was_made_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
