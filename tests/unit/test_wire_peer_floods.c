/* Tests wire/peer.h: remotes that ask for too much, or do not take what they asked for. */
#include "unit/peer_raw.h"

static void thousands_of_channels_are_too_many(void **state)
{
    struct world *w = *state;
    struct raw raw;
    char id[16];
    size_t before;

    raw_connect(w, &raw, &w->b);
    before = memory();
    for (unsigned i = 0; i < 3000 && w->b.status == HW_OK; i++) {
        (void)snprintf(id, sizeof(id), "%u", i);
        if (raw_open(&raw, "no/such/protocol", text(id), text("")) != HW_OK)
            break;
        raw_run(w, &raw, &w->b);
    }
    assert_int_equal(w->b.status, HW_ELIMIT);
    assert_int_equal(raw.rejected_count, HW_PEER_REJECTS_MAX);
    assert_true(memory() < before + (256 << 10));
    raw_release(&raw);
}

static void unknown_logs_are_too_many_some_time(void **state)
{
    struct world *w = *state;
    struct raw raw;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    for (unsigned i = 0; i < 1000 && w->b.status == HW_OK; i++) {
        memset(raw.key, (int)i, sizeof(raw.key));
        raw.key[0] = (uint8_t)(i >> 8);
        assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
        raw_run(w, &raw, &w->b);
    }
    assert_int_equal(w->b.status, HW_ELIMIT);
    assert_int_equal(w->b.linked, 0);
    raw_release(&raw);
}

static void log_may_be_opened_and_closed_for_ever(void **state)
{
    struct world *w = *state;
    size_t before = 0;
    struct raw raw;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
    for (unsigned i = 0; i < 2000; i++) {
        assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
        raw_run(w, &raw, &w->b);
        assert_non_null(raw.opened);
        hw_channel_close(raw.opened);
        raw_run(w, &raw, &w->b);
        before = i == 10 ? memory() : before;
    }
    assert_int_equal(w->b.linked, 2000);
    assert_int_equal(w->b.unlinked, 2000);
    assert_int_equal(w->b.status, HW_OK);
    assert_true(memory() < before + 65536);
    raw_release(&raw);
}

/* A log of large blocks at b, and its channel open with the raw remote. */
static void raw_join_large_log(struct world *w, struct raw *raw, unsigned blocks, size_t size)
{
    assert_peer_ok(side_add_large_log(w, &w->b, blocks, size));
    raw_connect(w, raw, &w->b);
    memcpy(raw->key, side_key(&w->b), HW_KEY_SIZE);
    assert_peer_ok(raw_open_log(raw, HW_CORE_PROTOCOL));
    raw_run(w, raw, &w->b);
    assert_non_null(raw->opened);
}

/* Channel 1: type and payload, `count` times over in a batch, `batches` of them. */
static void raw_flood(struct world *w, struct raw *raw, struct hw_slice message, unsigned count,
                      unsigned batches)
{
    struct hw_buffer batch = {0};

    hw_buffer_add(&batch, "\0\0\1", 3);
    for (unsigned i = 0; i < count; i++) {
        hw_buffer_add_uint(&batch, message.size);
        hw_buffer_add(&batch, message.bytes, message.size);
    }
    while (batches-- > 0 && w->b.status == HW_OK) {
        raw_frame(w, raw, batch.bytes, batch.size);
        raw_run(w, raw, &w->b);
    }
    hw_buffer_release(&batch);
}

static void reader_that_never_reads_costs_little_and_is_dropped(void **state)
{
    struct world *w = *state;
    struct hw_buffer frame = {0};
    struct raw raw;
    size_t before, output;
    uint64_t deadline, now = 0;

    raw_join_large_log(w, &raw, 64, 1 << 20);
    before = memory();
    raw.is_deaf = true;
    for (unsigned i = 0; i < 1500 && w->b.status == HW_OK; i++) { /* requests of a block each */
        hw_buffer_clear(&frame);
        hw_buffer_add(&frame, "\1\1\1", 3);
        hw_buffer_add_uint(&frame, i + 1);
        hw_buffer_add(&frame, "\0", 1);
        hw_buffer_add_uint(&frame, i % 64);
        hw_buffer_add(&frame, "\0", 1);
        raw_frame(w, &raw, frame.bytes, frame.size);
        raw_run(w, &raw, &w->b);
    }
    hw_buffer_release(&frame);
    output = hw_peer_output(w->b.peer).size;
    assert_int_equal(w->b.status, HW_OK);
    assert_true(output > (1 << 20) && output < (3 << 20));
    assert_true(memory() < before + (6 << 20));
    now = w->env->ops->monotonic_ns(w->env) + (uint64_t)HW_PEER_STUCK_MS * FIXTURE_MS;
    assert_int_equal(hw_peer_tick(w->b.peer, now, &deadline, &w->err), HW_ETIMEOUT);
    raw_release(&raw);
}

static void answers_wait_where_there_is_little_room(void **state)
{
    struct world *w = *state;
    struct raw raw;

    raw_join_large_log(w, &raw, 64, 1000);
    hw_peer_set_room(w->b.peer, 16 << 10);
    raw.is_deaf = true;
    for (unsigned i = 0; i < 100; i++) {
        uint8_t request[] = {1, 1, 1, (uint8_t)(i + 1), 0, (uint8_t)(i % 64), 0};

        raw_frame(w, &raw, request, sizeof(request));
    }
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.status, HW_OK);
    assert_true(hw_peer_output(w->b.peer).size < (19 << 10));
    raw.is_deaf = false;
    raw.message_count = 0;
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.status, HW_OK);
    assert_int_equal(raw.message_count, 100); /* each is answered in the end */
    raw_release(&raw);
}

static void flood_of_requests_is_stopped(void **state)
{
    struct hw_buffer batch = {0};
    struct world *w = *state;
    struct raw raw;
    size_t before;

    raw_join_large_log(w, &raw, 64, 1 << 16);
    before = memory();
    raw.is_deaf = true;
    hw_buffer_add(&batch, "\0\0\1", 3);
    for (unsigned i = 0; i < HW_MUX_BATCH_MAX; i++) { /* each of its own, all in one frame */
        hw_buffer_add(&batch, "\12\1\1\xfe", 4);
        hw_buffer_add_le32(&batch, i + 1);
        hw_buffer_add(&batch, "\0", 1);
        hw_buffer_add_uint(&batch, i % 64);
        hw_buffer_add(&batch, "\0", 1);
    }
    raw_frame(w, &raw, batch.bytes, batch.size);
    hw_buffer_release(&batch);
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.status, HW_ELIMIT);
    assert_true(hw_peer_output(w->b.peer).size < (3 << 20));
    assert_true(memory() < before + (10 << 20));
    raw_release(&raw);
}

/* Small questions with large or many answers; the answers of a batch are all that may come. */
static void flood_of_small_messages_is_stopped(void **state)
{
    static const struct {
        uint8_t bytes[12];
        size_t size;
    } messages[] = {
        {{0, 15, 0, 0, 0}, 5},                            /* Sync of a shorter log: answered */
        {{5, 0, 0xfe, 0, 0, 0x20, 0}, 7},                 /* Want of everything */
        {{1, 16, 1, 0}, 4},                               /* the manifest */
        {{1, 8, 1, 0, 0, 40}, 6},                         /* an upgrade */
        {{1, 1, 1, 0, 0xfe, 0xff, 0xff, 0xff, 0, 0}, 10}, /* a block far beyond the end */
        {{2, 7}, 2},                                      /* Cancel of nothing */
        {{8, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff}, 8},     /* it has very much */
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        struct raw raw;
        size_t before;

        w->b.ready = 0;
        raw_join_large_log(w, &raw, 64, 100);
        before = memory();
        raw.is_deaf = true;
        raw_flood(w, &raw, (struct hw_slice){messages[i].bytes, messages[i].size}, HW_MUX_BATCH_MAX,
                  100);
        assert_true(hw_peer_output(w->b.peer).size < (2 << 20));
        assert_true(memory() < before + (size_t)HW_PEER_OUTPUT_MAX * 2);
        raw_release(&raw);
        side_release(&w->b);
        w->b.status = HW_OK;
    }
}

static void flood_of_questions_is_stopped(void **state)
{
    static const uint8_t question[] = {4, 1, 5, 'l', 'o', 'g', ' ', '0'}; /* ask */
    struct hw_buffer handshake = {0};
    struct world *w = *state;
    struct raw raw;
    size_t before;

    assert_peer_ok(side_add_log(w, &w->b, 1));
    w->b.state_size = 200000;
    raw_connect(w, &raw, &w->b);
    hw_hyperwal_handshake_encode(&(struct hw_hyperwal_handshake){.version = 1}, &handshake);
    assert_peer_ok(raw_open(&raw, HW_HYPERWAL_PROTOCOL, (struct hw_slice){NULL, 0},
                            (struct hw_slice){handshake.bytes, handshake.size}));
    hw_buffer_release(&handshake);
    raw_run(w, &raw, &w->b);
    before = memory();
    raw_flood(w, &raw, (struct hw_slice){question, sizeof(question)}, 20, 1);
    assert_int_equal(w->b.status, HW_OK); /* few may be asked at once, */
    assert_int_equal(raw.message_count, 20);
    raw.is_deaf = true;
    raw_flood(w, &raw, (struct hw_slice){question, sizeof(question)}, HW_MUX_BATCH_MAX, 1);
    assert_int_equal(w->b.status, HW_ELIMIT); /* not for ever */
    assert_true(hw_peer_output(w->b.peer).size < (2 << 20));
    assert_true(memory() < before + (8 << 20));
    raw_release(&raw);
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        world_test(thousands_of_channels_are_too_many),
        world_test(unknown_logs_are_too_many_some_time),
        world_test(log_may_be_opened_and_closed_for_ever),
        world_test(reader_that_never_reads_costs_little_and_is_dropped),
        world_test(answers_wait_where_there_is_little_room),
        world_test(flood_of_requests_is_stopped),
        world_test(flood_of_small_messages_is_stopped),
        world_test(flood_of_questions_is_stopped),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
