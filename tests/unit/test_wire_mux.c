/*
 * Channels over one stream: every order in which opens, closes, answers and messages can meet, and
 * peers that break the rules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "unit/mux_fixture.h"

struct two {
    struct end *a, *b;
};

static int setup(void **state)
{
    struct two *f = calloc(1, sizeof(*f));

    f->a = end_new(true);
    f->b = end_new(true);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct two *f = *state;

    end_free(f->a);
    end_free(f->b);
    free(f);
    return 0;
}

/* The frame that goes out next has these bytes. */
static void expect_bytes(struct end *end, const void *bytes, size_t size)
{
    struct hw_buffer frame = end_take(end);

    assert_int_equal(frame.size, size);
    assert_memory_equal(frame.bytes, bytes, size);
    free(frame.bytes);
}

static void drop_frames(struct end *end)
{
    struct hw_buffer frame = end_take(end);

    while (frame.bytes != NULL) {
        free(frame.bytes);
        frame = end_take(end);
    }
}

/* An open by a remote that is only bytes: number, protocol "p", a one-letter id. */
static enum hw_status remote_opens(struct end *end, uint8_t number, char id)
{
    const uint8_t frame[] = {0, 1, number, 1, 'p', 1, (uint8_t)id};

    return give(end, frame, sizeof(frame));
}

/* ---------------------------------------------------------------------------- good orders */

static void a_channel_is_open_when_both_sides_have_opened(void **state)
{
    struct two *f = *state;
    struct hw_channel *ours = open_channel(f->a, "p", "1");

    assert_false(hw_channel_is_open(ours));
    assert_ptr_equal(hw_channel_user(ours), f->a);
    assert_true(pass_one(f->a, f->b));
    expect_story(f->b, "asked p/1, opened p/1 hi");
    assert_true(hw_channel_is_open(f->b->latest));
    assert_true(pass_one(f->b, f->a));
    expect_story(f->a, "opened p/1 yes");
    assert_true(hw_channel_is_open(ours));
    say(ours, 3, "one");
    say(ours, 300, "");
    say(f->b->latest, 0, "two");
    pass_all(f->a, f->b);
    expect_story(f->b, "message p/1 3:one, message p/1 300:");
    expect_story(f->a, "message p/1 0:two");
    hw_channel_close(ours);
    pass_all(f->a, f->b);
    expect_story(f->b, "closed p/1");
    expect_story(f->a, "");
}

static void messages_right_after_an_open_are_not_lost(void **state)
{
    struct two *f = *state;
    struct hw_channel *ours = open_channel(f->a, "p", "1");

    say(ours, 0, "early");
    say(ours, 1, "bird");
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1, opened p/1 hi, message p/1 0:early, message p/1 1:bird");
}

static void opens_that_cross_are_one_channel(void **state)
{
    struct two *f = *state;
    struct hw_channel *ours = open_channel(f->a, "p", "1"), *theirs;

    theirs = open_channel(f->b, "p", "1");
    pass_all(f->a, f->b);
    expect_story(f->a, "opened p/1 hi");
    expect_story(f->b, "opened p/1 hi");
    say(ours, 0, "a");
    say(theirs, 0, "b");
    pass_all(f->a, f->b);
    expect_story(f->a, "message p/1 0:b");
    expect_story(f->b, "message p/1 0:a");
}

static void a_channel_is_its_protocol_and_its_id(void **state)
{
    struct two *f = *state;
    struct hw_channel *channel = NULL;

    (void)open_channel(f->a, "p", "1");
    (void)open_channel(f->a, "p", "2");
    (void)open_channel(f->a, "p", "");
    (void)open_channel(f->a, "p1", "");
    assert_int_equal(hw_mux_open(f->a->mux, text("p"), text("2"), text(""), NULL, &channel, NULL),
                     HW_EEXIST);
    pass_all(f->a, f->b);
    expect_story(f->a, "opened p/1 yes, opened p/2 yes, opened p/ yes, opened p1/ yes");
    assert_int_equal(hw_mux_open(f->b->mux, text("p1"), text(""), text(""), NULL, &channel, NULL),
                     HW_EEXIST);
}

static void who_is_not_at_home_rejects_and_may_be_asked_again(void **state)
{
    struct two *f = *state;

    f->b->accepts = false;
    (void)open_channel(f->a, "p", "1");
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1");
    expect_story(f->a, "rejected p/1");
    f->b->accepts = true;
    (void)open_channel(f->a, "p", "1");
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1, opened p/1 hi");
    expect_story(f->a, "opened p/1 yes");
}

static void numbers_are_the_lowest_that_are_free(void **state)
{
    struct two *f = *state;
    struct hw_channel *channels[4];

    for (unsigned i = 0; i < 4; i++)
        channels[i] = open_channel(f->a, "p", (const char *[]){"1", "2", "3", "4"}[i]);
    pass_all(f->a, f->b);
    hw_channel_close(channels[2]);
    hw_channel_close(channels[1]);
    expect_bytes(f->a, "\x00\x03\x03", 3);
    expect_bytes(f->a, "\x00\x03\x02", 3);
    (void)open_channel(f->a, "q", "5");
    expect_bytes(f->a, "\x00\x01\x02\x01q\x01\x35hi", 9);
    (void)open_channel(f->a, "q", "6");
    expect_bytes(f->a, "\x00\x01\x03\x01q\x01\x36hi", 9);
    (void)open_channel(f->a, "q", "");
    expect_bytes(f->a, "\x00\x01\x05\x01q\x00hi", 8);
}

static void the_same_channel_can_be_opened_again_and_again(void **state)
{
    struct two *f = *state;

    for (unsigned i = 0; i < 50; i++) {
        struct hw_channel *ours = open_channel(f->a, "p", "1");

        if (i % 3 == 0)
            pass_all(f->a, f->b); /* else all of it is on its way at once */
        say(ours, 0, "x");
        hw_channel_close(ours);
    }
    f->b->story[0] = f->a->story[0] = '\0';
    pass_all(f->a, f->b);
    (void)open_channel(f->a, "p", "1");
    f->a->story[0] = f->b->story[0] = '\0';
    pass_all(f->a, f->b);
    expect_story(f->a, "opened p/1 yes");
    expect_story(f->b, "asked p/1, opened p/1 hi");
    expect_bytes(f->a, NULL, 0);
}

/* ---------------------------------------------------------------------------- crossings */

static void a_close_before_the_answer_keeps_its_number_until_then(void **state)
{
    struct two *f = *state;

    hw_channel_close(open_channel(f->a, "p", "1"));
    (void)open_channel(f->a, "p", "2"); /* the answer to number 1 is still to come */
    assert_true(pass_one(f->a, f->b) && pass_one(f->a, f->b));
    expect_story(f->b, "asked p/1, opened p/1 hi, closed p/1");
    expect_bytes(f->a, "\x00\x01\x02\x01p\x01\x32hi", 9);
    assert_int_equal(remote_opens(f->b, 2, '2'), HW_OK);
    pass_all(f->a, f->b);
    assert_null(strstr(f->a->story, "p/1"));
    (void)open_channel(f->a, "p", "3");
    expect_bytes(f->a, "\x00\x01\x01\x01p\x01\x33hi", 9);
}

static void a_close_before_a_reject_frees_its_number_then(void **state)
{
    struct two *f = *state;

    f->b->accepts = false;
    hw_channel_close(open_channel(f->a, "p", "1"));
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1");
    expect_story(f->a, "");
    (void)open_channel(f->a, "p", "1");
    expect_bytes(f->a, "\x00\x01\x01\x01p\x01\x31hi", 9);
}

static void a_channel_closed_and_opened_again_before_the_answer_is_open(void **state)
{
    struct two *f = *state;
    struct hw_channel *again;

    hw_channel_close(open_channel(f->a, "p", "1"));
    again = open_channel(f->a, "p", "1");
    say(again, 0, "second");
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1, opened p/1 hi, closed p/1, asked p/1, opened p/1 hi, "
                       "message p/1 0:second");
    expect_story(f->a, "opened p/1 yes");
    assert_true(hw_channel_is_open(again));
}

static void an_answer_to_a_closed_channel_is_answered_by_another_close(void **state)
{
    struct two *f = *state;

    hw_channel_close(open_channel(f->a, "p", "1"));
    drop_frames(f->a);
    assert_int_equal(remote_opens(f->a, 1, '1'), HW_OK);
    expect_bytes(f->a, "\x00\x03\x01", 3);
    expect_story(f->a, "");
    assert_int_equal(give(f->a, "\x01\x00zzz", 5), HW_OK); /* what it says there is dropped */
    expect_story(f->a, "");
    assert_int_equal(remote_opens(f->a, 1, '1'), HW_OK); /* its number is free again */
    expect_story(f->a, "asked p/1, opened p/1 ");
}

static void closes_that_cross_are_one(void **state)
{
    struct two *f = *state;
    struct hw_channel *ours = open_channel(f->a, "p", "1");

    pass_all(f->a, f->b);
    f->a->story[0] = f->b->story[0] = '\0';
    hw_channel_close(ours);
    hw_channel_close(f->b->latest);
    (void)open_channel(f->a, "p", "1");
    pass_all(f->a, f->b);
    expect_story(f->a, "opened p/1 yes");
    expect_story(f->b, "asked p/1, opened p/1 hi");
}

static void messages_of_a_closed_channel_are_dropped(void **state)
{
    struct two *f = *state;
    struct hw_channel *ours = open_channel(f->a, "p", "1");

    pass_all(f->a, f->b);
    f->a->story[0] = f->b->story[0] = '\0';
    say(f->b->latest, 0, "late");
    hw_channel_close(ours);
    pass_all(f->a, f->b);
    expect_story(f->a, "");
    expect_story(f->b, "closed p/1");
    assert_int_equal(give(f->a, "\x01\x00zzz", 5), HW_OK);
    assert_int_equal(give(f->a, "\xfd\x00\x04\x00zzz", 7), HW_OK);
    assert_int_equal(give(f->a, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00zzz", 13), HW_OK);
    expect_story(f->a, "");
}

static void a_second_open_of_an_open_channel_is_rejected(void **state)
{
    struct two *f = *state;

    assert_int_equal(remote_opens(f->a, 1, '1'), HW_OK);
    drop_frames(f->a);
    assert_int_equal(remote_opens(f->a, 2, '1'), HW_OK);
    expect_bytes(f->a, "\x00\x02\x02", 3);
    expect_story(f->a, "asked p/1, opened p/1 ");
    assert_int_equal(give(f->a, "\x02\x00zzz", 5), HW_OK);
    expect_story(f->a, "");
}

/* ---------------------------------------------------------------------------- callbacks */

static void close_it(struct end *end, struct hw_channel *channel)
{
    (void)end;
    hw_channel_close(channel);
}

static void open_it_again(struct end *end, struct hw_channel *channel)
{
    end->hooks.closed = NULL;
    assert_true(hw_channel_id(channel).size == 1); /* alive until the host returns */
    assert_int_equal(hw_mux_open(end->mux, hw_channel_protocol(channel), hw_channel_id(channel),
                                 text("back"), end, &end->latest, NULL),
                     HW_OK);
}

static void a_host_may_close_a_channel_when_it_opens(void **state)
{
    struct two *f = *state;

    f->b->hooks.opened = close_it;
    (void)open_channel(f->a, "p", "1");
    pass_all(f->a, f->b);
    expect_story(f->b, "asked p/1, opened p/1 hi");
    expect_story(f->a, "opened p/1 yes, closed p/1");
}

static void a_host_may_close_a_channel_within_a_batch(void **state)
{
    struct two *f = *state;

    f->a->hooks.message = close_it;
    assert_int_equal(remote_opens(f->a, 1, '1'), HW_OK);
    assert_int_equal(remote_opens(f->a, 2, '2'), HW_OK);
    f->a->story[0] = '\0';
    assert_int_equal(give(f->a, "\x00\x00\x01\x02\x00x\x02\x00y\x00\x02\x02\x00z", 14), HW_OK);
    expect_story(f->a, "message p/1 0:x, message p/2 0:z");
}

static void a_host_may_open_the_successor_of_a_closed_channel_at_once(void **state)
{
    struct two *f = *state;

    f->b->accepts = false;
    f->a->hooks.closed = open_it_again;
    (void)open_channel(f->a, "p", "1");
    assert_true(pass_one(f->a, f->b) && pass_one(f->b, f->a)); /* rejected */
    f->b->accepts = true;
    pass_all(f->a, f->b);
    expect_story(f->a, "rejected p/1, opened p/1 yes");
    f->a->hooks.closed = open_it_again;
    hw_channel_close(f->b->latest);
    pass_all(f->a, f->b);
    expect_story(f->a, "closed p/1, opened p/1 yes");
    expect_story(f->b, "asked p/1, asked p/1, opened p/1 back, asked p/1, opened p/1 back");
}

/* ---------------------------------------------------------------------------- batches */

static void a_batch_may_mix_channels_opens_and_closes(void **state)
{
    struct two *f = *state;
    static const char batch[] =
        "\x00\x00"
        "\x00\x06\x01\x01\x01p\x01\x31"                 /* open 1 */
        "\x00\x01\x02\x05x\x02\x05y"                    /* two messages on it */
        "\x00\x00\x06\x01\x02\x01p\x01\x32\x02\x03\x01" /* open 2, close 1 */
        "\x00\x02\x01\x06"                              /* an empty message */
        "\x00\x01\x02\x05z"                             /* of a closed one */
        "\x00\x00\x06\x01\x01\x01p\x01\x33";            /* 1 is free again */

    assert_int_equal(give(f->a, batch, sizeof(batch) - 1), HW_OK);
    expect_story(f->a, "asked p/1, opened p/1 , message p/1 5:x, message p/1 5:y, asked p/2, "
                       "opened p/2 , closed p/1, message p/2 6:, asked p/3, opened p/3 ");
}

struct bad_frame {
    const char *what;
    const char *bytes;
    size_t size;
    enum hw_status status;
};

static const struct bad_frame frames[] = {
    {"nothing but a channel", "\x01", 1, HW_EPROTOCOL},
    {"half a channel", "\xfd\x01", 2, HW_EPROTOCOL},
    {"half a type", "\x01\xfe\x01\x00", 4, HW_EPROTOCOL},
    {"control without a type", "\x00", 1, HW_EPROTOCOL},
    {"a later control", "\x00\x04 what", 7, HW_OK},
    {"a far later control", "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10, HW_OK},
    {"an empty batch of no channel", "\x00\x00", 2, HW_EPROTOCOL},
    {"an empty batch", "\x00\x00\x01", 3, HW_OK},
    {"empty entries", "\x00\x00\x01\x00\x02\x00\x03\x00\x00", 9, HW_OK},
    {"a switch to nothing", "\x00\x00\x01\x00", 4, HW_EPROTOCOL},
    {"an entry beyond the end", "\x00\x00\x01\x05\x00x", 6, HW_EPROTOCOL},
    {"an entry of 2^64 - 1 bytes", "\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00", 13,
     HW_EPROTOCOL},
    {"half an entry's type", "\x00\x00\x01\x01\xfd", 5, HW_EPROTOCOL},
    {"a batch in a batch", "\x00\x00\x00\x03\x00\x00\x01", 7, HW_EPROTOCOL},
    {"an open of nothing", "\x00\x01", 2, HW_EPROTOCOL},
    {"an open without an id", "\x00\x01\x01\x01p", 5, HW_EPROTOCOL},
    {"an open of a name beyond the end", "\x00\x01\x01\xfd\xff\xffp\x00", 8, HW_EPROTOCOL},
    {"an open of a name of 2^64 - 1 bytes", "\x00\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xffp\x00",
     14, HW_EPROTOCOL},
    {"an open as number 0", "\x00\x01\x00\x01p\x00", 6, HW_EPROTOCOL},
    {"an open that leaves a number out", "\x00\x01\x03\x01p\x00", 6, HW_EPROTOCOL},
    {"an open of a number in use", "\x00\x01\x01\x01p\x00", 6, HW_EPROTOCOL},
    {"an open of a number beyond all", "\x00\x01\xfd\x01\x04\x01p\x00", 8, HW_ELIMIT},
    {"an open of number 2^64 - 1", "\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01p\x00", 14,
     HW_ELIMIT},
    {"a long form of a short number", "\x00\x01\xfd\x02\x00\x01p\x00", 8, HW_OK},
    {"a reject of nothing", "\x00\x02", 2, HW_EPROTOCOL},
    {"a reject of number 0", "\x00\x02\x00", 3, HW_EPROTOCOL},
    {"a reject of an open channel", "\x00\x02\x01", 3, HW_EPROTOCOL},
    {"a reject of a stranger", "\x00\x02\x09", 3, HW_EPROTOCOL},
    {"a close of nothing", "\x00\x03", 2, HW_EPROTOCOL},
    {"a close of number 0", "\x00\x03\x00", 3, HW_OK},
    {"a close of a stranger", "\x00\x03\x09", 3, HW_OK},
    {"a sign of life", "", 0, HW_OK},
};

static void bad_frames_end_the_mux_and_strange_ones_do_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        const struct bad_frame *at = &frames[i];
        struct end *end = end_new(true);
        struct hw_channel *channel = NULL;
        enum hw_status status;

        assert_int_equal(remote_opens(end, 1, '1'), HW_OK);
        status = give(end, at->bytes, at->size);
        if (status != at->status)
            fail_msg("%s: %s, not %s", at->what, hw_status_name(status),
                     hw_status_name(at->status));
        assert_int_equal(give(end, "", 0), at->status); /* a failure is final */
        if (status != HW_OK) {
            assert_int_equal(
                hw_mux_open(end->mux, text("q"), text(""), text(""), NULL, &channel, NULL), status);
            assert_int_equal(hw_channel_send(end->latest, 0, text("x"), NULL), status);
            hw_channel_close(end->latest);
        }
        end_free(end);
    }
}

static void every_prefix_of_a_frame_is_borne(void **state)
{
    static const char open_frame[] = "\x00\x01\x01\x01p\x01\x31handshake";
    static const char batch[] = "\x00\x00\x00\x06\x01\x01\x01p\x01\x31\x00\x01\x02\x05x\x00\x01\x02"
                                "\x05y\x00\x00\x02\x03\x01";

    (void)state;
    for (size_t size = 1; size < sizeof(batch); size++) {
        struct end *end = end_new(true);
        enum hw_status status = give(end, batch, size);

        assert_true(status == HW_OK || status == HW_EPROTOCOL);
        end_free(end);
        if (size >= sizeof(open_frame))
            continue;
        end = end_new(true);
        assert_int_equal(give(end, open_frame, size), size < 7 ? HW_EPROTOCOL : HW_OK);
        end_free(end);
    }
}

/* ---------------------------------------------------------------------------- limits */

static void names_beyond_the_limits_are_rejected_unasked(void **state)
{
    struct two *f = *state;
    struct hw_channel *channel = NULL;
    char name[HW_MUX_HANDSHAKE_MAX + 2];
    struct hw_slice long_name = {(const uint8_t *)name, HW_MUX_PROTOCOL_MAX + 1};
    struct hw_slice long_handshake = {(const uint8_t *)name, HW_MUX_HANDSHAKE_MAX + 1};
    struct hw_buffer frame = {0};

    memset(name, 'n', sizeof(name));
    assert_int_equal(hw_mux_open(f->a->mux, long_name, text(""), text(""), NULL, &channel, NULL),
                     HW_ELIMIT);
    assert_int_equal(hw_mux_open(f->a->mux, text("p"), long_name, text(""), NULL, &channel, NULL),
                     HW_ELIMIT);
    assert_int_equal(
        hw_mux_open(f->a->mux, text("p"), text(""), long_handshake, NULL, &channel, NULL),
        HW_ELIMIT);
    long_name.size--;
    long_handshake.size--;
    assert_int_equal(
        hw_mux_open(f->a->mux, long_name, long_name, long_handshake, NULL, &channel, NULL), HW_OK);
    pass_all(f->a, f->b);
    assert_true(hw_channel_is_open(channel));
    f->b->story[0] = '\0';
    for (unsigned way = 0; way < 3; way++) {
        hw_buffer_clear(&frame);
        hw_buffer_add(&frame, "\x00\x01\x02", 3);
        for (unsigned part = 0; part < 2; part++) {
            hw_buffer_add_uint(&frame, way == part ? 65 : 1);
            hw_buffer_add(&frame, name, way == part ? 65 : 1);
        }
        hw_buffer_add(&frame, name, way == 2 ? HW_MUX_HANDSHAKE_MAX + 1 : 1);
        assert_int_equal(give(f->b, frame.bytes, frame.size), HW_OK);
        expect_bytes(f->b, "\x00\x02\x02", 3);
    }
    expect_story(f->b, "");
    hw_buffer_release(&frame);
}

static void a_peer_that_opens_thousands_of_channels_is_dropped(void **state)
{
    (void)state;
    for (unsigned accepts = 0; accepts < 2; accepts++) {
        struct end *end = end_new(accepts);
        enum hw_status status = HW_OK;
        unsigned count = 0;

        while (status == HW_OK) {
            uint8_t frame[] = {0, 1, 0xfd, 0, 0, 1, 'p', 2, 0, 0};

            count++;
            hw_put_le16(frame + 3, (uint16_t)count);
            hw_put_le16(frame + 8, (uint16_t)count);
            end->story[0] = '\0';
            status = give(end, frame, sizeof(frame));
        }
        assert_int_equal(status, HW_ELIMIT);
        assert_int_equal(count, HW_MUX_CHANNELS_MAX + 1);
        end_free(end);
    }
}

/* Whatever is opened, closed or refused: one frame makes us say only so much. */
static void a_batch_that_opens_and_closes_for_ever_is_dropped(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 2; way++) {
        static const char cycles[2][12] = {
            "\x06\x01\x01\x01p\x01\x31\x02\x03\x01", /* open, close */
            "\x06\x01\x02\x01p\x01\x31"};            /* of what is open */
        const size_t sizes[2] = {10, 7};
        struct hw_buffer batch = {0};
        struct end *end = end_new(true);

        if (way == 1)
            assert_int_equal(remote_opens(end, 1, '1'), HW_OK);
        hw_buffer_add(&batch, "\0\0\0", 3);
        for (unsigned i = 0; i < 100000; i++)
            hw_buffer_add(&batch, cycles[way], sizes[way]);
        assert_int_equal(give(end, batch.bytes, batch.size), HW_ELIMIT);
        assert_true(end->last <= HW_MUX_CHANNELS_MAX + 1);
        hw_buffer_release(&batch);
        end_free(end);
    }
}

/* All of a frame is worked off in one call, so that it may not ask for any amount of work. */
static void a_batch_has_no_more_than_so_many_messages(void **state)
{
    static const char entries[2][4] = {"\x02\x05x", "\x00\x02"}; /* a message; another channel */
    const size_t sizes[2] = {3, 2};

    (void)state;
    for (unsigned way = 0; way < 2; way++) {
        struct hw_buffer batch = {0};
        struct end *end = end_new(true);

        hw_buffer_add(&batch, "\0\0\2", 3);
        for (unsigned i = 0; i < HW_MUX_BATCH_MAX; i++)
            hw_buffer_add(&batch, entries[way], sizes[way]);
        assert_int_equal(give(end, batch.bytes, batch.size), HW_OK);
        assert_int_equal(give(end, batch.bytes, batch.size), HW_OK); /* each frame for itself */
        hw_buffer_add(&batch, entries[way], sizes[way]);
        assert_int_equal(give(end, batch.bytes, batch.size), HW_ELIMIT);
        hw_buffer_release(&batch);
        end_free(end);
    }
}

static void we_open_no_more_than_the_limit_either(void **state)
{
    struct two *f = *state;
    struct hw_channel *channels[HW_MUX_CHANNELS_MAX], *more = NULL;
    char id[16];

    for (unsigned i = 0; i < HW_MUX_CHANNELS_MAX; i++) {
        (void)snprintf(id, sizeof(id), "%u", i);
        channels[i] = open_channel(f->a, "p", id);
    }
    assert_int_equal(hw_mux_open(f->a->mux, text("q"), text(""), text(""), NULL, &more, NULL),
                     HW_ELIMIT);
    pass_all(f->a, f->b);
    assert_true(hw_channel_is_open(channels[HW_MUX_CHANNELS_MAX - 1]));
    hw_channel_close(channels[700]);
    (void)open_channel(f->a, "q", "");
    pass_all(f->a, f->b);
    assert_true(hw_channel_is_open(f->a->latest));
}

/* ---------------------------------------------------------------------------- failures */

static void what_a_host_returns_is_final(void **state)
{
    struct two *f = *state;

    f->a->asked_status = HW_EPROOF;
    assert_int_equal(remote_opens(f->a, 1, '1'), HW_EPROOF);
    assert_int_equal(give(f->a, "", 0), HW_EPROOF);
    assert_int_equal(remote_opens(f->b, 1, '1'), HW_OK);
    f->b->message_status = HW_ENOSPC;
    assert_int_equal(give(f->b, "\x00\x00\x01\x02\x00x\x02\x00y", 9), HW_ENOSPC);
    assert_null(strstr(f->b->story, "0:y")); /* the rest of the batch is not told */
    assert_int_equal(give(f->b, "", 0), HW_ENOSPC);
}

static void an_open_that_could_not_be_sent_did_not_happen(void **state)
{
    struct two *f = *state;
    struct hw_channel *channel = NULL;

    f->a->send_status = HW_ENOMEM;
    assert_int_equal(hw_mux_open(f->a->mux, text("p"), text("1"), text(""), NULL, &channel, NULL),
                     HW_ENOMEM);
    f->a->send_status = HW_OK;
    channel = open_channel(f->a, "p", "1");
    pass_all(f->a, f->b);
    assert_true(hw_channel_is_open(channel));
    f->a->send_status = HW_ENOMEM;
    assert_int_equal(hw_channel_send(channel, 0, text("x"), NULL), HW_ENOMEM);
    f->a->send_status = HW_OK;
    say(channel, 0, "y");
    pass_all(f->a, f->b);
    assert_non_null(strstr(f->b->story, "message p/1 0:y"));
}

static void a_close_that_could_not_be_sent_ends_the_mux(void **state)
{
    struct two *f = *state;
    struct hw_channel *channel = open_channel(f->a, "p", "1");

    pass_all(f->a, f->b);
    f->a->send_status = HW_ENOMEM;
    hw_channel_close(channel);
    f->a->send_status = HW_OK;
    assert_int_equal(give(f->a, "", 0), HW_ENOMEM);
    assert_int_equal(hw_mux_open(f->a->mux, text("p"), text("1"), text(""), NULL, &channel, NULL),
                     HW_ENOMEM);
}

struct countdown {
    long left; /* allocations that succeed; < 0: all */
    bool failed;
};

static bool allow(void *ctx, size_t size)
{
    struct countdown *countdown = ctx;

    (void)size;
    countdown->failed |= countdown->left == 0;
    if (countdown->left == 0)
        return false;
    countdown->left -= countdown->left > 0;
    return true;
}

/* Twenty channels, asked for by us and by the other; the status at the end. */
static enum hw_status many_channels(struct end *end, unsigned *opened)
{
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < 10 && status == HW_OK; i++) {
        struct hw_channel *channel = NULL;
        char id[2] = {(char)('a' + i), '\0'};

        status = hw_mux_open(end->mux, text("p"), text(id), text(""), NULL, &channel, NULL);
        *opened += status == HW_OK;
        if (status == HW_OK)
            status = remote_opens(end, (uint8_t)(i + 1), (char)('A' + i));
    }
    return status;
}

static void a_failed_allocation_leaves_the_mux_usable_or_final(void **state)
{
    struct countdown countdown = {.failed = true};
    long at = 0;

    (void)state;
    for (; countdown.failed; at++) {
        struct end *end;
        struct hw_channel *channel = NULL;
        unsigned opened = 0;
        enum hw_status status;

        countdown = (struct countdown){.left = -1};
        hw_alloc_set_hook(allow, &countdown);
        end = end_new(true);
        countdown.left = at;
        status = many_channels(end, &opened);
        assert_int_equal(status, countdown.failed ? HW_ENOMEM : HW_OK);
        countdown.left = -1;
        status = give(end, "", 0); /* final, or as if nothing had been */
        assert_int_equal(hw_mux_open(end->mux, text("z"), text(""), text(""), NULL, &channel, NULL),
                         status);
        end_free(end);
        assert_int_equal(hw_alloc_live(), 0);
        hw_alloc_set_hook(NULL, NULL);
    }
    assert_true(at > 20);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_channel_is_open_when_both_sides_have_opened),
        TEST(messages_right_after_an_open_are_not_lost),
        TEST(opens_that_cross_are_one_channel),
        TEST(a_channel_is_its_protocol_and_its_id),
        TEST(who_is_not_at_home_rejects_and_may_be_asked_again),
        TEST(numbers_are_the_lowest_that_are_free),
        TEST(the_same_channel_can_be_opened_again_and_again),
        TEST(a_close_before_the_answer_keeps_its_number_until_then),
        TEST(a_close_before_a_reject_frees_its_number_then),
        TEST(a_channel_closed_and_opened_again_before_the_answer_is_open),
        TEST(an_answer_to_a_closed_channel_is_answered_by_another_close),
        TEST(closes_that_cross_are_one),
        TEST(messages_of_a_closed_channel_are_dropped),
        TEST(a_second_open_of_an_open_channel_is_rejected),
        TEST(a_host_may_close_a_channel_when_it_opens),
        TEST(a_host_may_close_a_channel_within_a_batch),
        TEST(a_host_may_open_the_successor_of_a_closed_channel_at_once),
        TEST(a_batch_may_mix_channels_opens_and_closes),
        TEST(bad_frames_end_the_mux_and_strange_ones_do_not),
        TEST(every_prefix_of_a_frame_is_borne),
        TEST(names_beyond_the_limits_are_rejected_unasked),
        TEST(a_peer_that_opens_thousands_of_channels_is_dropped),
        TEST(a_batch_that_opens_and_closes_for_ever_is_dropped),
        TEST(a_batch_has_no_more_than_so_many_messages),
        TEST(we_open_no_more_than_the_limit_either),
        TEST(what_a_host_returns_is_final),
        TEST(an_open_that_could_not_be_sent_did_not_happen),
        TEST(a_close_that_could_not_be_sent_ends_the_mux),
        TEST(a_failed_allocation_leaves_the_mux_usable_or_final),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/mux", tests, NULL, NULL);
}
