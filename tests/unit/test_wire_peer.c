/* Tests wire/peer.h: two peers that mean well. */
#include "unit/peer_fixture.h"

static void peers_shake_hands_and_know_each_other(void **state)
{
    struct world *w = *state;

    assert_peer_ok(world_connect(w));
    assert_null(hw_peer_remote_key(w->a.peer));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(w->a.ready, 1);
    assert_int_equal(w->b.ready, 1);
    assert_memory_not_equal(hw_peer_remote_key(w->a.peer), hw_peer_remote_key(w->b.peer),
                            HW_IDENTITY_KEY_SIZE);
    assert_int_equal(hw_peer_output(w->a.peer).size, 0);
}

static void stranger_is_refused_by_the_host(void **state)
{
    struct world *w = *state;

    w->b.refuses = true;
    assert_peer_ok(world_connect(w));
    world_run(w);
    assert_int_equal(w->b.status, HW_EREFUSED);
    assert_string_equal(w->b.why.message, "not you");
    assert_int_equal(hw_peer_receive(w->b.peer, (struct hw_slice){NULL, 0}, &w->err), HW_EREFUSED);
    assert_false(hw_peer_wants_input(w->b.peer));
}

static void log_is_followed_over_a_link(void **state)
{
    struct world *w = *state;
    struct hw_link_status status;

    world_follow(w, 50);
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(w->a.linked, 1);
    assert_int_equal(w->b.linked, 1);
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)), 50);
    for (unsigned i = 0; i < 20; i++) {
        assert_peer_ok(core_log_append(world_core(&w->b, 0), 1 + i % 3, "", &w->err));
        hw_replication_grown(w->b.served[0]);
        world_run(w);
    }
    assert_true(world_is_well(w));
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)),
                     hw_core_length(world_core(&w->b, 0)));
    hw_link_status(hw_peer_link_of(w->b.peer, w->b.served[0]), &status);
    assert_true(status.is_live);
    assert_true(hw_peer_has_link(w->b.peer, hw_peer_link_of(w->b.peer, w->b.served[0])));
    assert_false(hw_peer_has_link(w->a.peer, hw_peer_link_of(w->b.peer, w->b.served[0])));
}

static void bytes_may_come_in_pieces_of_any_size(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 5, 17, 64, 1000, 1024, 1025, 5000};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        w->piece = pieces[i];
        world_follow(w, 30);
        world_run(w);
        assert_true(world_is_well(w));
        assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)), 30);
        world_release(w);
    }
}

static void link_may_be_asked_for_before_the_handshake_and_within_it(void **state)
{
    struct world *w = *state;

    world_follow(w, 3); /* links before a byte went */
    assert_int_equal(hw_peer_link(w->a.peer, w->a.served[0], &w->err), HW_EEXIST);
    assert_null(hw_peer_link_of(w->a.peer, w->a.served[0]));
    world_run(w);
    assert_non_null(hw_peer_link_of(w->a.peer, w->a.served[0]));
}

static void both_may_link_at_once(void **state)
{
    struct world *w = *state;

    world_follow(w, 10);
    assert_peer_ok(hw_peer_link(w->b.peer, w->b.served[0], &w->err));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(w->a.linked, 1);
    assert_int_equal(w->b.linked, 1);
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)), 10);
}

static void several_logs_share_a_connection(void **state)
{
    struct world *w = *state;

    assert_peer_ok(world_connect(w));
    for (unsigned i = 0; i < 5; i++) {
        assert_peer_ok(side_add_log(w, &w->b, 10 + i));
        assert_peer_ok(side_add_mirror(w, &w->a, &w->b, i));
        assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[i], &w->err));
    }
    world_run(w);
    assert_true(world_is_well(w));
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(mirror_blocks(w, world_core(&w->a, i), world_core(&w->b, i)), 10 + i);

    hw_peer_unlink(w->a.peer, w->a.served[2]);
    world_run(w);
    assert_int_equal(w->a.unlinked, 0); /* it knows */
    assert_int_equal(w->b.unlinked, 1);
    assert_null(hw_peer_link_of(w->b.peer, w->b.served[2]));
    for (unsigned i = 0; i < 5; i++) {
        assert_peer_ok(core_log_append(world_core(&w->b, i), 1, "", &w->err));
        hw_replication_grown(w->b.served[i]);
    }
    world_run(w);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(mirror_blocks(w, world_core(&w->a, i), world_core(&w->b, i)),
                         10 + i + (i != 2));

    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[2], &w->err)); /* and again */
    world_run(w);
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 2), world_core(&w->b, 2)), 13);
    side_disconnect(&w->b);
    assert_int_equal(w->b.unlinked, 6);
}

static void logs_go_both_ways_over_one_connection(void **state)
{
    struct world *w = *state;

    assert_peer_ok(side_add_log(w, &w->a, 20));
    assert_peer_ok(side_add_log(w, &w->b, 30));
    assert_peer_ok(side_add_mirror(w, &w->a, &w->b, 0));
    assert_peer_ok(side_add_mirror(w, &w->b, &w->a, 0));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[1], &w->err));
    assert_peer_ok(hw_peer_link(w->b.peer, w->b.served[1], &w->err));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 1), world_core(&w->b, 0)), 30);
    assert_int_equal(mirror_blocks(w, world_core(&w->b, 1), world_core(&w->a, 0)), 20);
}

/* Both have more to say than either takes at once: nobody waits for the other. */
static void large_logs_go_both_ways_at_once(void **state)
{
    struct world *w = *state;

    w->piece = 65536;
    assert_peer_ok(side_add_large_log(w, &w->a, 20, 1 << 20));
    assert_peer_ok(side_add_large_log(w, &w->b, 20, 1 << 20));
    assert_peer_ok(side_add_mirror(w, &w->a, &w->b, 0));
    assert_peer_ok(side_add_mirror(w, &w->b, &w->a, 0));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[1], &w->err));
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 1), world_core(&w->b, 0)), 20);
    assert_int_equal(mirror_blocks(w, world_core(&w->b, 1), world_core(&w->a, 0)), 20);
}

static void largest_block_goes_over(void **state)
{
    struct world *w = *state;

    w->piece = 65536;
    assert_peer_ok(side_add_large_log(w, &w->b, 2, HW_BLOCK_SIZE_MAX));
    assert_peer_ok(side_add_mirror(w, &w->a, &w->b, 0));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(mirror_blocks(w, world_core(&w->a, 0), world_core(&w->b, 0)), 2);
}

/* Of two logs that are wanted over one connection, neither waits for the end of the other. */
static void links_take_turns(void **state)
{
    struct world *w = *state;
    struct hw_link_status first = {.blocks_sent = 0}, second = first;

    w->piece = 65536;
    assert_peer_ok(world_connect(w));
    for (unsigned i = 0; i < 2; i++) {
        assert_peer_ok(side_add_large_log(w, &w->b, 60, 1 << 18));
        assert_peer_ok(side_add_mirror(w, &w->a, &w->b, i));
        assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[i], &w->err));
    }
    while (first.blocks_sent + second.blocks_sent < 60 && world_is_well(w)) {
        bool moved = world_move(w, &w->a, &w->b);

        assert_true(world_move(w, &w->b, &w->a) || moved);
        if (hw_peer_link_of(w->b.peer, w->b.served[0]) != NULL)
            hw_link_status(hw_peer_link_of(w->b.peer, w->b.served[0]), &first);
        if (hw_peer_link_of(w->b.peer, w->b.served[1]) != NULL)
            hw_link_status(hw_peer_link_of(w->b.peer, w->b.served[1]), &second);
    }
    assert_true(first.blocks_sent >= 15 && second.blocks_sent >= 15);
}

static void log_that_the_remote_has_not_got_is_rejected(void **state)
{
    struct world *w = *state;

    world_follow(w, 3);
    w->b.served_count = 0; /* it hides it */
    world_run(w);
    w->b.served_count = 1;
    assert_true(world_is_well(w));
    assert_int_equal(w->a.linked, 0);
    assert_int_equal(w->a.unlinked, 1);
    assert_int_equal(w->a.rejected, 1);
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    world_run(w);
    assert_int_equal(w->a.linked, 1);
}

static void names_are_looked_up(void **state)
{
    struct world *w = *state;
    uint64_t first, second, third;

    assert_peer_ok(side_add_log(w, &w->b, 1));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_lookup(w->a.peer, "log 0", &first, &w->err)); /* before the handshake */
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(w->a.found_count, 1);
    assert_int_equal(w->a.found.request, first);
    assert_int_equal(w->a.found.status, HW_LOOKUP_FOUND);
    assert_memory_equal(w->a.found.key, hw_core_identity(world_core(&w->b, 0))->key, HW_KEY_SIZE);
    assert_peer_ok(hw_peer_lookup(w->a.peer, "nothing", &second, &w->err));
    world_run(w);
    assert_int_equal(w->a.found.request, second);
    assert_int_equal(w->a.found.status, HW_LOOKUP_UNKNOWN);
    assert_peer_ok(hw_peer_lookup(w->a.peer, "secret", &third, &w->err));
    world_run(w);
    assert_int_equal(w->a.found.request, third);
    assert_int_equal(w->a.found.status, HW_LOOKUP_REFUSED);
    assert_int_equal(w->a.plain, 0);

    assert_peer_ok(hw_peer_lookup(w->b.peer, "log 0", &first, &w->err)); /* the other way */
    world_run(w);
    assert_int_equal(w->b.found_count, 1);
    assert_int_equal(w->b.found.status, HW_LOOKUP_UNKNOWN);
}

static void many_questions_wait_for_the_handshake_up_to_a_limit(void **state)
{
    struct world *w = *state;
    enum hw_status status = HW_OK;
    uint64_t request;
    char name[HW_NAME_MAX + 2];
    unsigned count = 0;

    assert_peer_ok(world_connect(w));
    while (status == HW_OK) {
        status = hw_peer_ask(w->a.peer, "log 0", &request, &w->err);
        count += status == HW_OK;
    }
    assert_int_equal(status, HW_ELIMIT);
    world_run(w);
    assert_true(world_is_well(w));
    assert_int_equal(w->a.told_count, count);
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = 0;
    assert_int_equal(hw_peer_lookup(w->a.peer, name, &request, &w->err), HW_ELIMIT);
}

static void names_and_states_are_told(void **state)
{
    struct world *w = *state;
    uint64_t request;

    for (unsigned i = 0; i < 3; i++)
        assert_peer_ok(side_add_log(w, &w->b, 1));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_list(w->a.peer, &request, &w->err));
    world_run(w);
    assert_int_equal(w->a.named_count, 3);
    assert_int_equal(w->a.named_end_count, 1);
    assert_string_equal(w->a.last_name, "log 2");

    w->b.state_size = 300000;
    assert_peer_ok(hw_peer_ask(w->a.peer, "log 1", &request, &w->err));
    world_run(w);
    assert_int_equal(w->a.told_request, request);
    assert_int_equal(w->a.told_status, HW_LOOKUP_FOUND);
    assert_int_equal(w->a.told_size, 300000);
    w->b.state_size = HW_STATE_TEXT_MAX + 1; /* not a part of it instead */
    assert_peer_ok(hw_peer_ask(w->a.peer, "log 1", &request, &w->err));
    world_run(w);
    assert_int_equal(w->a.told_status, HW_LOOKUP_REFUSED);
    assert_peer_ok(hw_peer_ask(w->a.peer, "nothing", &request, &w->err));
    world_run(w);
    assert_int_equal(w->a.told_status, HW_LOOKUP_UNKNOWN);
    assert_int_equal(w->a.told_count, 3);
    assert_true(world_is_well(w));
}

static void follower_tells_how_far_it_is(void **state)
{
    static const uint8_t id[HW_REPLICA_ID_SIZE] = {1, 2, 3};
    struct hw_ack ack = {.received = 5, .durable = 4, .applied = 3};
    struct world *w = *state;

    world_follow(w, 7);
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err)); /* waits */
    world_run(w);
    assert_int_equal(w->b.ack_count, 1);
    assert_int_equal(w->b.ack.received, 5);
    assert_int_equal(w->b.ack.durable, 4);
    assert_int_equal(w->b.ack.applied, 3);
    assert_memory_equal(w->b.ack_id, id, sizeof(id));
    ack = (struct hw_ack){.received = 8, .durable = UINT64_MAX, .applied = 7};
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err));
    world_run(w);
    assert_int_equal(w->b.ack_count, 2);
    assert_int_equal(w->b.ack.received, 8); /* there is no more: the host has to know that */
    assert_true(w->b.ack.durable == UINT64_MAX);
    assert_true(world_is_well(w));

    hw_peer_unlink(w->a.peer, w->a.served[0]);
    assert_int_equal(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err),
                     HW_ENOTFOUND);
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err));
    world_run(w);
    assert_int_equal(w->b.ack_count, 3);
    assert_true(world_is_well(w));
}

static void server_urges_who_acknowledges(void **state)
{
    static const uint8_t id[HW_REPLICA_ID_SIZE] = {9};
    struct hw_ack ack = {.received = 1};
    struct world *w = *state;

    world_follow(w, 2);
    world_run(w);
    assert_peer_ok(hw_peer_urge(w->b.peer, w->b.served[0], true, &w->err));
    world_run(w);
    assert_int_equal(w->a.urge_count, 0); /* it has not acknowledged anything yet */
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id, &ack, &w->err));
    world_run(w);
    assert_int_equal(w->a.urge_count, 1);
    assert_true(w->a.urged);
    assert_peer_ok(hw_peer_urge(w->b.peer, w->b.served[0], true, &w->err)); /* it knows */
    world_run(w);
    assert_int_equal(w->a.urge_count, 1);
    assert_peer_ok(hw_peer_urge(w->b.peer, w->b.served[0], false, &w->err));
    world_run(w);
    assert_int_equal(w->a.urge_count, 2);
    assert_false(w->a.urged);
    assert_true(world_is_well(w));
}

/* Each follows the other, and both name themselves, whoever opens the channel first. */
static void both_sides_may_acknowledge(void **state)
{
    static const uint8_t id_a[HW_REPLICA_ID_SIZE] = {1}, id_b[HW_REPLICA_ID_SIZE] = {2};
    struct hw_ack ack = {.received = 1};
    struct world *w = *state;

    world_follow(w, 2);
    world_run(w);
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id_a, &ack, &w->err));
    world_run(w);
    assert_peer_ok(hw_peer_acknowledge(w->b.peer, w->b.served[0], id_b, &ack, &w->err));
    world_run(w);
    assert_memory_equal(w->a.ack_id, id_b, sizeof(id_b));
    ack.received = 2;
    assert_peer_ok(hw_peer_acknowledge(w->a.peer, w->a.served[0], id_a, &ack, &w->err));
    world_run(w);
    assert_int_equal(w->b.ack.received, 2);
    assert_memory_equal(w->b.ack_id, id_a, sizeof(id_a));
    assert_true(world_is_well(w));
}

/* -------------------------------------------------------------------------------- time */

static uint64_t now(const struct world *w)
{
    return w->env->ops->monotonic_ns(w->env);
}

/* Tick when they want it, carry what they say, for so long; the number of ticks. */
static unsigned pass(struct world *w, uint64_t ms, bool carry)
{
    uint64_t end = now(w) + ms * FIXTURE_MS, a = 0, b = 0;
    unsigned ticks = 0;

    while (world_is_well(w)) {
        side_fail(&w->a, hw_peer_tick(w->a.peer, now(w), &a, &w->err), &w->err);
        side_fail(&w->b, hw_peer_tick(w->b.peer, now(w), &b, &w->err), &w->err);
        ticks++;
        if (carry)
            world_run(w);
        a = a < b ? a : b;
        if (a > end)
            break;
        sim_advance(w->sim, a > now(w) ? a - now(w) : 0);
    }
    return ticks;
}

static void idle_connection_is_kept_alive_at_little_cost(void **state)
{
    struct world *w = *state;

    world_follow(w, 2);
    world_run(w);
    assert_true(pass(w, UINT64_C(3600000), true) < 1000); /* an hour */
    assert_true(world_is_well(w));
    assert_true(w->ab.count < 360 * 20 + 5000);
}

static void handshake_has_a_deadline(void **state)
{
    struct world *w = *state;
    uint64_t begin = now(w);

    assert_peer_ok(world_connect(w));
    (void)pass(w, 60000, false);
    assert_true(w->a.status == HW_ETIMEOUT || w->b.status == HW_ETIMEOUT);
    assert_int_equal((now(w) - begin) / FIXTURE_MS, HW_PEER_HANDSHAKE_MS);
}

static void remote_that_fell_silent_is_dropped(void **state)
{
    struct world *w = *state;
    uint64_t begin;

    world_follow(w, 2);
    world_run(w);
    (void)pass(w, 20000, true);
    begin = now(w);
    (void)pass(w, 600000, false);
    assert_true(w->a.status == HW_ETIMEOUT || w->b.status == HW_ETIMEOUT);
    assert_true(now(w) - begin <= (uint64_t)HW_PEER_SILENCE_MS * FIXTURE_MS);
}

static void remote_that_takes_nothing_is_dropped(void **state)
{
    struct world *w = *state;
    uint64_t begin;

    assert_peer_ok(world_connect(w));
    world_run(w); /* no sign of life was seen, so that silence alone is none */
    assert_peer_ok(hw_peer_list(w->a.peer, &(uint64_t){0}, &w->err));
    begin = now(w);
    (void)pass(w, 600000, false);
    assert_int_equal(w->a.status, HW_ETIMEOUT);
    assert_non_null(strstr(w->a.why.message, "took nothing"));
    assert_int_equal((now(w) - begin) / FIXTURE_MS, HW_PEER_STUCK_MS);
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        world_test(peers_shake_hands_and_know_each_other),
        world_test(stranger_is_refused_by_the_host),
        world_test(log_is_followed_over_a_link),
        world_test(bytes_may_come_in_pieces_of_any_size),
        world_test(link_may_be_asked_for_before_the_handshake_and_within_it),
        world_test(both_may_link_at_once),
        world_test(several_logs_share_a_connection),
        world_test(logs_go_both_ways_over_one_connection),
        world_test(large_logs_go_both_ways_at_once),
        world_test(largest_block_goes_over),
        world_test(links_take_turns),
        world_test(log_that_the_remote_has_not_got_is_rejected),
        world_test(names_are_looked_up),
        world_test(many_questions_wait_for_the_handshake_up_to_a_limit),
        world_test(names_and_states_are_told),
        world_test(follower_tells_how_far_it_is),
        world_test(server_urges_who_acknowledges),
        world_test(both_sides_may_acknowledge),
        world_test(idle_connection_is_kept_alive_at_little_cost),
        world_test(handshake_has_a_deadline),
        world_test(remote_that_fell_silent_is_dropped),
        world_test(remote_that_takes_nothing_is_dropped),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
