/* Tests what peers say to write from afar: two that mean well, and one that does not. */
#include "unit/peer_fixture.h"

static struct {
    unsigned count;
    struct hw_write_message last;
    char body[64];
    enum hw_status status; /* what the host says to it */
} heard[2];

static enum hw_status wrote(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                            const struct hw_write_message *message, struct hw_error *err)
{
    unsigned i = ctx == &heard[1];

    (void)peer, (void)replication;
    heard[i].count++;
    heard[i].last = *message;
    heard[i].body[0] = '\0';
    if (message->body.size > 0 && message->body.size < sizeof(heard[i].body))
        memcpy(heard[i].body, message->body.bytes, message->body.size);
    return heard[i].status == HW_OK ? HW_OK : hw_fail(err, heard[i].status, "not so");
}

static void connect_both(struct world *w)
{
    memset(heard, 0, sizeof(heard));
    w->a.wrote_ctx = &heard[0];
    w->b.wrote_ctx = &heard[1];
    w->a.wrote = w->b.wrote = wrote;
    world_follow(w, 5);
    world_run(w);
}

static void what_is_said_before_the_channel_is_open_comes_in_order(void **state)
{
    struct world *w = *state;
    struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = 7};
    struct hw_write_message question = {.type = HW_WRITE_QUESTION, .request = 8};

    connect_both(w);
    assert_peer_ok(hw_peer_write(w->a.peer, w->a.served[0], &lease, &w->err));
    assert_peer_ok(hw_peer_write(w->a.peer, w->a.served[0], &question, &w->err));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(heard[1].count, 2);
    assert_int_equal(heard[1].last.type, HW_WRITE_QUESTION);
    assert_int_equal(heard[1].last.request, 8);
}

static void answers_come_back(void **state)
{
    struct world *w = *state;
    struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = 7};
    struct hw_write_message busy = {.type = HW_WRITE_LEASED,
                                    .request = 7,
                                    .status = HW_WRITE_BUSY,
                                    .body = {(const uint8_t *)"later", 5}};

    connect_both(w);
    assert_peer_ok(hw_peer_write(w->a.peer, w->a.served[0], &lease, &w->err));
    world_run(w);
    assert_peer_ok(hw_peer_write(w->b.peer, w->b.served[0], &busy, &w->err));
    world_run(w);
    assert_int_equal(heard[0].count, 1);
    assert_int_equal(heard[0].last.status, HW_WRITE_BUSY);
    assert_memory_equal(heard[0].body, "later", 5);
}

static void too_much_before_the_channel_is_open_is_refused_and_harms_nothing(void **state)
{
    struct world *w = *state;
    struct hw_write_message m = {.type = HW_WRITE_QUESTION};
    enum hw_status status = HW_OK;
    unsigned count = 0;

    connect_both(w);
    while (status == HW_OK && count < 10000) {
        m.request = ++count;
        status = hw_peer_write(w->a.peer, w->a.served[0], &m, &w->err);
    }
    assert_int_equal(status, HW_ELIMIT);
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(heard[1].count, count - 1);
}

static void what_a_host_refuses_ends_the_connection(void **state)
{
    struct world *w = *state;
    struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = 7};

    connect_both(w);
    heard[1].status = HW_EPROTOCOL;
    assert_peer_ok(hw_peer_write(w->a.peer, w->a.served[0], &lease, &w->err));
    world_run(w);
    assert_int_equal(w->b.status, HW_EPROTOCOL);
    assert_string_equal(w->b.why.message, "not so");
}

static void a_log_that_is_not_linked_hears_nothing(void **state)
{
    struct world *w = *state;
    struct hw_write_message lease = {.type = HW_WRITE_LEASE, .request = 7};

    assert_peer_ok(side_add_log(w, &w->b, 5));
    assert_peer_ok(side_add_mirror(w, &w->a, &w->b, 0));
    assert_peer_ok(world_connect(w));
    assert_int_equal(hw_peer_write(w->a.peer, w->a.served[0], &lease, &w->err), HW_ENOTFOUND);
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    assert_int_equal(hw_peer_write(w->a.peer, w->a.served[0], &lease, &w->err), HW_ENOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_said_before_the_channel_is_open_comes_in_order,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(answers_come_back, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(
            too_much_before_the_channel_is_open_is_refused_and_harms_nothing, world_setup,
            world_teardown),
        cmocka_unit_test_setup_teardown(what_a_host_refuses_ends_the_connection, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(a_log_that_is_not_linked_hears_nothing, world_setup,
                                        world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
