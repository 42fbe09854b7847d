/* Tests wire/peer.h: remotes of another kind, liars, wrong bytes, no memory. */
#include "unit/peer_raw.h"

/* -------------------------------------------------------------------- other kinds of peers */

static void hypercore_peer_of_another_kind_is_plain(void **state)
{
    static const uint8_t id[HW_REPLICA_ID_SIZE] = {1};
    struct hw_ack ack = {.received = 1};
    struct world *w = *state;
    struct raw raw;
    uint64_t request;

    assert_peer_ok(side_add_log(w, &w->a, 3));
    raw_connect(w, &raw, &w->a);
    raw.accepts_logs = true;
    memcpy(raw.key, side_key(&w->a), HW_KEY_SIZE);
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    raw_run(w, &raw, &w->a);
    assert_int_equal(w->a.linked, 1);
    assert_true(raw.message_count > 0);

    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err));
    raw_run(w, &raw, &w->a);
    assert_int_equal(w->a.plain, 1);
    assert_int_equal(raw.asked, 2); /* it is not asked again and again */
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err));
    assert_int_equal(hw_peer_lookup(w->a.peer, "x", &request, &w->err), HW_EPROTOCOL);
    raw_run(w, &raw, &w->a);
    assert_int_equal(raw.asked, 2);
    assert_int_equal(w->a.status, HW_OK);
    raw_release(&raw);
}

static void questions_to_a_plain_peer_end_in_is_plain(void **state)
{
    struct world *w = *state;
    struct raw raw;
    uint64_t request;

    raw_connect(w, &raw, &w->a);
    assert_peer_ok(hw_peer_lookup(w->a.peer, "x", &request, &w->err));
    assert_peer_ok(hw_peer_ask(w->a.peer, "x", &request, &w->err));
    raw_run(w, &raw, &w->a);
    assert_int_equal(w->a.plain, 1);
    assert_int_equal(w->a.found_count, 0);
    raw_release(&raw);
}

static void other_version_of_our_channel_is_not_spoken(void **state)
{
    static const uint8_t replica_id[HW_REPLICA_ID_SIZE] = {1};
    struct hw_ack ack = {.received = 1};
    struct hw_buffer handshake = {0};
    struct world *w = *state;
    uint8_t id[HW_KEY_SIZE];
    struct raw raw;
    uint64_t request;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
    hw_discovery_key(raw.key, id);
    hw_hyperwal_handshake_encode(&(struct hw_hyperwal_handshake){.version = 2}, &handshake);
    assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
    for (size_t size = 0; size <= sizeof(id); size += sizeof(id)) {
        assert_peer_ok(raw_open(&raw, HW_HYPERWAL_PROTOCOL, (struct hw_slice){id, size},
                                (struct hw_slice){handshake.bytes, handshake.size}));
        raw_run(w, &raw, &w->b);
        assert_int_equal(raw.closed_count, size == 0 ? 1 : 2);
    }
    hw_buffer_release(&handshake);
    assert_int_equal(w->b.status, HW_OK);
    assert_int_equal(w->b.linked, 1);
    assert_int_equal(w->b.plain, 1);
    assert_int_equal(hw_peer_lookup(w->b.peer, "x", &request, &w->err), HW_EPROTOCOL);
    assert_peer_ok(hw_peer_acknowledge(w->b.peer, w->b.served[0], replica_id, &ack, &w->err));
    raw_release(&raw);
}

static void log_is_found_under_the_alias_of_its_protocol(void **state)
{
    struct world *w = *state;
    struct raw raw;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
    assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL_ALIAS));
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.linked, 1);
    assert_true(raw.message_count > 0);
    assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL)); /* once is enough */
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.linked, 1);
    assert_int_equal(raw.rejected_count, 1);
    assert_int_equal(w->b.status, HW_OK);
    raw_release(&raw);
}

/* ------------------------------------------------------------------------------- liars */

static void remote_without_the_key_gets_nothing(void **state)
{
    struct world *w = *state;
    uint8_t id[HW_KEY_SIZE];
    struct raw raw;

    for (unsigned kind = 0; kind < 4; kind++) {
        struct hw_slice handshake = {NULL, 0};
        uint8_t bytes[33] = {0};

        if (w->b.served_count == 0)
            assert_peer_ok(side_add_log(w, &w->b, 3));
        w->b.ready = 0;
        raw_connect(w, &raw, &w->b);
        memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
        hw_discovery_key(raw.key, id);
        raw.reflects = true;
        if (kind == 1)
            handshake = (struct hw_slice){bytes, sizeof(bytes)}; /* zeros */
        else if (kind == 2)
            handshake = (struct hw_slice){bytes, 32}; /* too short; and 3: nothing */
        if (kind == 0)
            assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
        else
            assert_peer_ok(
                raw_open(&raw, HW_CORE_PROTOCOL, (struct hw_slice){id, sizeof(id)}, handshake));
        raw_run(w, &raw, &w->b);
        assert_int_equal(w->b.status, HW_EPROTOCOL);
        assert_int_equal(w->b.linked, 0);
        assert_int_equal(raw.message_count, 0);
        side_disconnect(&w->b);
        raw_release(&raw);
    }
}

static void acknowledgements_need_the_log_channel_first(void **state)
{
    struct hw_buffer handshake = {0};
    struct world *w = *state;
    uint8_t id[HW_KEY_SIZE];
    struct raw raw;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
    hw_discovery_key(raw.key, id);
    hw_hyperwal_handshake_encode(&(struct hw_hyperwal_handshake){.version = 1}, &handshake);
    for (unsigned i = 0; i < 2; i++) {
        assert_peer_ok(raw_open(&raw, HW_HYPERWAL_PROTOCOL, (struct hw_slice){id, sizeof(id)},
                                (struct hw_slice){handshake.bytes, handshake.size}));
        raw_run(w, &raw, &w->b);
        assert_int_equal(raw.rejected_count, 1);
        assert_int_equal(raw.opened_count, i * 2);
        if (i == 0)
            assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
        raw_run(w, &raw, &w->b);
    }
    assert_int_equal(w->b.status, HW_OK);
    hw_buffer_release(&handshake);
    raw_release(&raw);
}

/* Whatever is sent on a channel that is not open changes nothing. */
static void messages_of_channels_that_are_not_open_are_dropped(void **state)
{
    static const uint8_t frame[] = {1, 1, 1, 1, 0, 0}, far[] = {200, 0, 1, 2, 3};
    struct world *w = *state;
    struct raw raw;

    assert_peer_ok(side_add_log(w, &w->b, 3));
    raw_connect(w, &raw, &w->b);
    memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
    for (unsigned i = 0; i < 1000; i++) {
        raw_frame(w, &raw, frame, sizeof(frame));
        raw_frame(w, &raw, far, sizeof(far));
    }
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.status, HW_OK);
    assert_int_equal(hw_peer_output(w->b.peer).size, 0);
    assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
    raw_run(w, &raw, &w->b);
    assert_int_equal(w->b.linked, 1);
    raw_release(&raw);
}

static void malformed_messages_drop_the_peer(void **state)
{
    static const struct {
        bool is_hyperwal;
        uint8_t bytes[8];
        size_t size;
    } cases[] = {
        {false, {1}, 1},              /* ends before its type */
        {false, {1, 0}, 2},           /* a Sync of nothing */
        {false, {1, 1, 0xff}, 3},     /* a Request */
        {false, {1, 5, 0}, 3},        /* a Want */
        {false, {0, 1, 9}, 3},        /* an open */
        {false, {0, 0, 1, 0xfd}, 4},  /* a batch */
        {true, {1, 0}, 2},            /* a lookup without a request */
        {true, {1, 0, 1, 200}, 4},    /* whose name is longer than it */
        {true, {1, 1, 1, 0, 3}, 5},   /* an answer without a key */
        {true, {1, 1, 1, 7}, 4},      /* a status that is none */
        {true, {1, 3, 1, 250, 0}, 5}, /* names that are not there */
        {true, {1, 5, 1, 0, 9}, 5},   /* a state likewise */
    };
    struct hw_buffer handshake = {0};
    struct world *w = *state;
    struct raw raw;

    hw_hyperwal_handshake_encode(&(struct hw_hyperwal_handshake){.version = 1}, &handshake);
    assert_peer_ok(side_add_log(w, &w->b, 3));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        w->b.ready = 0;
        raw_connect(w, &raw, &w->b);
        memcpy(raw.key, side_key(&w->b), HW_KEY_SIZE);
        if (cases[i].is_hyperwal)
            assert_peer_ok(raw_open(&raw, HW_HYPERWAL_PROTOCOL, (struct hw_slice){NULL, 0},
                                    (struct hw_slice){handshake.bytes, handshake.size}));
        else
            assert_peer_ok(raw_open_log(&raw, HW_CORE_PROTOCOL));
        raw_run(w, &raw, &w->b);
        assert_int_equal(raw.opened_count, 1);
        raw_frame(w, &raw, cases[i].bytes, cases[i].size);
        raw_run(w, &raw, &w->b);
        if (w->b.status != HW_EPROTOCOL)
            print_error("case %zu\n", i);
        assert_int_equal(w->b.status, HW_EPROTOCOL);
        side_disconnect(&w->b);
        raw_release(&raw);
    }
    hw_buffer_release(&handshake);
}

/* ------------------------------------------------------------------------- wrong bytes */

static void bytes_of_others_are_no_handshake(void **state)
{
    static const char *const greetings[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\xff\xff\xff\xff\xff\xff\xff\xff",
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
        assert_peer_ok(side_connect(w, &w->b));
        assert_int_equal(hw_peer_receive(w->b.peer, text(greetings[i]), &w->err), HW_EPROTOCOL);
        assert_int_equal(hw_peer_output(w->b.peer).size, 0); /* and nothing is said */
        side_disconnect(&w->b);
    }
    assert_int_equal(w->b.ready, 0);
}

static void stranger_makes_us_keep_little(void **state)
{
    struct world *w = *state;
    uint8_t *bytes = calloc(1, HW_RECEIVE_SIZE);
    size_t before;

    assert_non_null(bytes);
    bytes[0] = 0xff; /* a frame of 1023 bytes, that never comes as a handshake */
    bytes[1] = 0x03;
    assert_peer_ok(side_connect(w, &w->b));
    before = memory();
    for (unsigned i = 0; i < 1000; i++)
        assert_peer_ok(hw_peer_receive(w->b.peer, (struct hw_slice){bytes + i, 1}, &w->err));
    assert_true(memory() < before + 4096);
    assert_int_equal(hw_peer_receive(w->b.peer, (struct hw_slice){bytes, HW_RECEIVE_SIZE}, &w->err),
                     HW_EPROTOCOL);
    assert_true(memory() < before + 8192);
    free(bytes);
}

static void oversized_frame_is_refused_before_it_comes(void **state)
{
    static const uint8_t length[3] = {0xff, 0xff, 0xff};
    struct world *w = *state;
    struct raw raw;
    size_t before;

    raw_connect(w, &raw, &w->b);
    before = memory();
    assert_int_equal(hw_peer_receive(w->b.peer, (struct hw_slice){length, sizeof(length)}, &w->err),
                     HW_ELIMIT);
    assert_true(memory() < before + 4096);
    raw_release(&raw);
}

/* Every byte of both directions, one at a time, is altered: nothing wrong is taken. */
static void altered_byte_is_noticed(void **state)
{
    struct world *w = *state;
    unsigned noticed = 0, runs = 0;
    uint64_t total[2];

    world_follow(w, 4);
    world_run(w);
    total[0] = w->ab.count;
    total[1] = w->ba.count;
    world_release(w);
    for (unsigned direction = 0; direction < 2; direction++) {
        for (uint64_t at = direction; at < total[direction]; at += at < 400 ? 1 : 7) {
            uint64_t blocks;

            world_follow(w, 4);
            (direction == 0 ? &w->ab : &w->ba)->flip_at = at;
            w->ab.flip_mask = w->ba.flip_mask = (uint8_t)(1U << at % 8);
            world_run(w);
            blocks = mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0));
            assert_true(blocks <= 4);
            noticed += !world_is_well(w) || blocks < 4;
            runs++;
            if (w->a.status != HW_OK && w->a.status != HW_EPROTOCOL)
                assert_int_equal(w->a.status, HW_ELIMIT);
            if (w->b.status != HW_OK && w->b.status != HW_EPROTOCOL)
                assert_int_equal(w->b.status, HW_ELIMIT);
            world_release(w);
        }
    }
    /* What is not noticed yet waits for the rest of a frame that was made longer. */
    assert_true(noticed >= runs - 8);
}

/* The connection is cut after every byte, and a second one goes on. */
static void connection_may_be_cut_at_any_byte(void **state)
{
    struct world *w = *state;
    uint64_t total;

    world_follow(w, 6);
    world_run(w);
    total = w->ab.count + w->ba.count;
    world_release(w);
    for (uint64_t at = 0; at < total; at += at < 600 ? 1 : 5) {
        world_follow(w, 6);
        w->cut_at = at;
        world_run(w);
        assert_true(world_is_well(w));
        world_disconnect(w);
        w->cut_at = UINT64_MAX;
        assert_peer_ok(world_connect(w));
        assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
        world_run(w);
        assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)), 6);
        world_release(w);
    }
}

/* -------------------------------------------------------------------------- no memory */

struct allocations {
    uint64_t count, fail_at;
};

static bool allow(void *ctx, size_t size)
{
    struct allocations *allocations = ctx;

    (void)size;
    return ++allocations->count != allocations->fail_at;
}

/* Each allocation fails once: the peer ends or goes on, and nothing is lost or freed twice. */
static void allocation_that_fails_is_borne(void **state)
{
    static const uint8_t id[HW_REPLICA_ID_SIZE] = {1};
    struct hw_ack ack = {.received = 2};
    struct allocations allocations = {.fail_at = 1};
    struct world *w = *state;
    bool reached = true;
    uint64_t request;

    for (; reached; allocations.fail_at++) {
        enum hw_status status;

        allocations.count = 0;
        hw_alloc_set_hook(allow, &allocations);
        status = side_add_log(w, &w->b, 3);
        if (status == HW_OK)
            status = side_add_mirror(w, &w->a, &w->b, 0);
        if (status == HW_OK)
            status = world_connect(w);
        if (status == HW_OK)
            status = hw_peer_link(w->a.peer, w->a.served[0], &w->err);
        if (status == HW_OK)
            status = hw_peer_lookup(w->a.peer, "log 0", &request, &w->err);
        if (status == HW_OK)
            status = hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err);
        if (status == HW_OK)
            world_run(w);
        reached = allocations.count >= allocations.fail_at;
        world_release(w);
        assert_int_equal(hw_alloc_live(), 0);
        hw_alloc_set_hook(NULL, NULL);
        if (status != HW_OK)
            assert_int_equal(status, HW_ENOMEM);
    }
    assert_true(allocations.fail_at > 20);
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        world_test(hypercore_peer_of_another_kind_is_plain),
        world_test(questions_to_a_plain_peer_end_in_is_plain),
        world_test(other_version_of_our_channel_is_not_spoken),
        world_test(log_is_found_under_the_alias_of_its_protocol),
        world_test(remote_without_the_key_gets_nothing),
        world_test(acknowledgements_need_the_log_channel_first),
        world_test(messages_of_channels_that_are_not_open_are_dropped),
        world_test(malformed_messages_drop_the_peer),
        world_test(bytes_of_others_are_no_handshake),
        world_test(stranger_makes_us_keep_little),
        world_test(oversized_frame_is_refused_before_it_comes),
        world_test(altered_byte_is_noticed),
        world_test(connection_may_be_cut_at_any_byte),
        world_test(allocation_that_fails_is_borne),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
