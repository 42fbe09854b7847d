/* Tests the model of the simulated network: order, delay, room, cuts and silence. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "sim/sim.h"
#include "sim/sim_net.h"

enum { MS = 1000000 };
#define URL "tcp://server:1"

struct world {
    struct sim *sim;
    struct sim_net *net;
    struct hw_transport *server, *client;
    struct hw_connection *in, *out; /* the two ends */
};

static struct world world;

static int setup_seeded(uint64_t seed)
{
    world = (struct world){.sim = sim_new(seed)};
    world.net = sim_net_new(sim_env(world.sim), seed);
    world.server = sim_net_host(world.net, "server");
    world.client = sim_net_host(world.net, "client");
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_seeded(7);
}

static int teardown(void **state)
{
    (void)state;
    world.server->ops->free(world.server);
    world.client->ops->free(world.client);
    sim_net_free(world.net);
    sim_free(world.sim);
    return 0;
}

static struct hw_transport_event next(struct hw_transport *transport)
{
    struct hw_transport_event event;

    assert_int_equal(transport->ops->next(transport, &event), HW_OK);
    return event;
}

static void nothing(struct hw_transport *transport)
{
    struct hw_transport_event event;

    assert_int_equal(transport->ops->next(transport, &event), HW_END);
}

/* What is due by time happens. */
static void wait(void)
{
    uint64_t deadline = sim_net_deadline(world.net);
    struct hw_env *env = sim_env(world.sim);
    uint64_t now = env->ops->monotonic_ns(env);

    assert_true(deadline != UINT64_MAX);
    if (deadline > now)
        sim_advance(world.sim, deadline - now);
}

static void join(void)
{
    struct hw_transport_event event;
    char bound[64];
    int user;

    assert_int_equal(world.server->ops->listen(world.server, URL, bound, sizeof(bound), NULL),
                     HW_OK);
    assert_string_equal(bound, URL);
    assert_int_equal(world.client->ops->dial(world.client, URL, &user, NULL), HW_OK);
    while (world.in == NULL || world.out == NULL) { /* each with a delay of its own */
        wait();
        if (world.in == NULL && world.server->ops->next(world.server, &event) == HW_OK) {
            assert_int_equal(event.kind, HW_EVENT_ACCEPTED);
            world.in = event.connection;
        }
        if (world.out == NULL && world.client->ops->next(world.client, &event) == HW_OK) {
            assert_int_equal(event.kind, HW_EVENT_CONNECTED);
            assert_ptr_equal(event.user, &user);
            world.out = event.connection;
        }
    }
    nothing(world.server);
    nothing(world.client);
}

static void send_text(struct hw_transport *from, struct hw_connection *connection, const char *text)
{
    from->ops->send(connection, (struct hw_slice){(const uint8_t *)text, strlen(text)});
}

static void bytes_arrive_in_order_in_pieces_after_a_delay(void **state)
{
    struct hw_transport_event event;
    char got[64] = "";
    size_t size = 0;

    (void)state;
    sim_net_set_delay(world.net, 5 * MS, 10 * MS);
    sim_net_set_piece(world.net, 3);
    join();
    send_text(world.client, world.out, "bytes of some length");
    assert_int_equal(next(world.client).kind, HW_EVENT_SENT);
    world.server->ops->receive(world.in);
    nothing(world.server); /* not yet */
    wait();
    while (size < 20) {
        event = next(world.server);
        assert_int_equal(event.kind, HW_EVENT_RECEIVED);
        assert_true(event.bytes.size > 0 && event.bytes.size <= 3);
        memcpy(got + size, event.bytes.bytes, event.bytes.size);
        size += event.bytes.size;
        nothing(world.server); /* one receive, one event */
        world.server->ops->receive(world.in);
    }
    assert_string_equal(got, "bytes of some length");
    nothing(world.server);
}

static void sender_waits_for_room(void **state)
{
    unsigned pieces = 0;

    (void)state;
    sim_net_set_capacity(world.net, 4);
    join();
    send_text(world.client, world.out, "ten bytes.");
    nothing(world.client);
    while (world.client->ops->next(world.client, &(struct hw_transport_event){0}) == HW_END) {
        world.server->ops->receive(world.in);
        assert_int_equal(next(world.server).kind, HW_EVENT_RECEIVED);
        pieces++;
    }
    assert_true(pieces >= 2);
}

static void connection_is_cut_at_the_byte(void **state)
{
    struct hw_transport_event event;
    size_t size = 0;

    (void)state;
    join();
    sim_net_cut_after(world.net, 7);
    send_text(world.client, world.out, "more than seven");
    for (;;) {
        world.server->ops->receive(world.in);
        event = next(world.server);
        if (event.kind != HW_EVENT_RECEIVED)
            break;
        size += event.bytes.size;
    }
    assert_int_equal(event.kind, HW_EVENT_CLOSED);
    assert_int_equal(event.error.status, HW_EIO);
    assert_int_equal(size, 7);
    assert_int_equal(sim_net_cuts(world.net), 1);
    assert_int_equal(next(world.client).kind, HW_EVENT_SENT);
    world.client->ops->receive(world.out);
    assert_int_equal(next(world.client).kind, HW_EVENT_CLOSED);
    world.client->ops->close(world.out);
    world.server->ops->close(world.in);
    assert_int_equal(sim_net_connections(world.net), 0);
}

static void closed_end_is_told_to_who_waits(void **state)
{
    (void)state;
    join();
    world.client->ops->close(world.out);
    nothing(world.server); /* nobody asked */
    world.server->ops->receive(world.in);
    assert_int_equal(next(world.server).kind, HW_EVENT_CLOSED);
    nothing(world.client);
}

static void silent_host_hears_and_says_nothing_and_comes_back(void **state)
{
    (void)state;
    join();
    sim_net_set_silent(world.net, world.client, true);
    send_text(world.server, world.in, "hello");
    assert_int_equal(next(world.server).kind, HW_EVENT_SENT); /* into the machine's buffers */
    world.client->ops->receive(world.out);
    nothing(world.client);
    assert_true(sim_net_deadline(world.net) == UINT64_MAX);
    sim_net_set_silent(world.net, world.client, false);
    assert_int_equal(next(world.client).kind, HW_EVENT_RECEIVED);
}

static void dial_to_nobody_fails_and_ports_are_given(void **state)
{
    struct hw_transport_event event;
    struct hw_error err;
    char bound[64];
    int user;

    (void)state;
    assert_int_equal(world.client->ops->dial(world.client, "tcp://x:1", &user, &err), HW_OK);
    event = next(world.client);
    assert_int_equal(event.kind, HW_EVENT_FAILED);
    assert_ptr_equal(event.user, &user);
    assert_int_equal(event.error.status, HW_EIO);
    assert_int_equal(sim_net_connections(world.net), 0);
    assert_int_equal(
        world.server->ops->listen(world.server, "tcp://x:0", bound, sizeof(bound), &err), HW_OK);
    assert_string_not_equal(bound, "tcp://x:0");
    assert_int_equal(world.server->ops->listen(world.server, bound, bound, sizeof(bound), &err),
                     HW_EBUSY);
}

/* Many connections with chance in all that they do. */
static uint64_t run(uint64_t seed)
{
    static const char text[] = "the same bytes over each of them, some dozens of them in all";
    struct hw_transport_event event;
    unsigned count = 0;
    uint64_t hash;
    char bound[64];

    (void)setup_seeded(seed);
    sim_net_set_delay(world.net, 0, 50 * MS);
    sim_net_set_piece(world.net, 5);
    sim_net_set_cuts(world.net, 200);
    assert_int_equal(world.server->ops->listen(world.server, URL, bound, sizeof(bound), NULL),
                     HW_OK);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(world.client->ops->dial(world.client, URL, NULL, NULL), HW_OK);
    while (sim_net_deadline(world.net) != UINT64_MAX) {
        wait();
        while (world.client->ops->next(world.client, &event) == HW_OK)
            if (event.kind == HW_EVENT_CONNECTED) {
                count++;
                send_text(world.client, event.connection, text);
            }
        while (world.server->ops->next(world.server, &event) == HW_OK)
            if (event.kind == HW_EVENT_CLOSED)
                world.server->ops->close(event.connection);
            else
                world.server->ops->receive(event.connection);
    }
    assert_int_equal(count, 16);
    assert_true(sim_net_cuts(world.net) > 0);
    hash = sim_net_trace_hash(world.net);
    (void)teardown(NULL);
    return hash;
}

static void same_seed_gives_the_same_run(void **state)
{
    (void)state;
    assert_true(run(1) == run(1));
    assert_true(run(1) != run(2));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bytes_arrive_in_order_in_pieces_after_a_delay, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(sender_waits_for_room, setup, teardown),
        cmocka_unit_test_setup_teardown(connection_is_cut_at_the_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_end_is_told_to_who_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(silent_host_hears_and_says_nothing_and_comes_back, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(dial_to_nobody_fails_and_ports_are_given, setup, teardown),
        cmocka_unit_test(same_seed_gives_the_same_run),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
