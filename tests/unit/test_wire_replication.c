/* Replications that follow each other: pairs, chains, live and late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "support/link_net.h"

static const uint8_t *key_of(struct link_net *net, unsigned node)
{
    return hw_core_identity(net->nodes[node].core)->key;
}

static struct hw_link_status status_of(struct link_net *net, unsigned pair, unsigned side)
{
    struct hw_link_status status;

    hw_link_status(net->pairs[pair].ends[side].link, &status);
    return status;
}

static void a_mirror_fetches_the_whole_log(void **state)
{
    struct link_net *net = *state;

    for (unsigned blocks = 0; blocks < 70; blocks++) {
        unsigned primary, mirror;

        link_net_reset(net, blocks + 1);
        primary = link_net_primary(net, blocks);
        mirror = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, primary, mirror);
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
        assert_int_equal(net->nodes[mirror].arrived, blocks);
    }
}

static void a_level_mirror_is_pushed_to(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 13);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    unsigned pair = link_net_connect(net, primary, mirror);
    unsigned requests;

    link_net_run(net);
    assert_true(status_of(net, pair, 0).is_live);
    requests = net->pairs[pair].ends[0].counts[HW_MESSAGE_REQUEST];
    for (unsigned i = 0; i < 60; i++) {
        link_net_append(net, primary, 1 + i % 9);
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
    }
    for (unsigned i = 0; i < 60; i++) /* many at once, not read in between */
        link_net_append(net, primary, 1 + i % 9);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    assert_int_equal(net->pairs[pair].ends[0].counts[HW_MESSAGE_REQUEST], requests);
    assert_true(status_of(net, pair, 0).is_live);
}

static void an_empty_log_is_followed_from_its_first_block(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 0);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    link_net_append(net, primary, 1);
    link_net_append(net, primary, 3);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

static void a_chain_of_mirrors_relays_what_is_pushed(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 20);
    unsigned nodes[4] = {primary};

    for (unsigned i = 1; i < 4; i++) {
        nodes[i] = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, nodes[i - 1], nodes[i]);
    }
    link_net_run(net);
    for (unsigned i = 1; i < 4; i++)
        link_net_check(net, nodes[i], primary, 0);
    for (unsigned i = 0; i < 40; i++) {
        unsigned requests = 0;

        for (unsigned p = 0; p < 3; p++)
            requests += net->pairs[p].ends[0].counts[HW_MESSAGE_REQUEST];
        link_net_append(net, primary, 1 + i % 5);
        link_net_run(net);
        for (unsigned k = 1; k < 4; k++)
            link_net_check(net, nodes[k], primary, 0);
        for (unsigned p = 0; p < 3; p++)
            requests -= net->pairs[p].ends[0].counts[HW_MESSAGE_REQUEST];
        assert_int_equal(requests, 0);
    }
}

static void a_late_mirror_takes_the_tail_only(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 500);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 450);

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    link_net_append(net, primary, 7);
    link_net_run(net);
    link_net_check(net, mirror, primary, 450);
    assert_int_equal(net->nodes[mirror].arrived, 57);
    assert_false(hw_core_has(net->nodes[mirror].core, 449));

    assert_status(hw_replication_want_now(net->nodes[mirror].replication, 33, &net->err), HW_OK,
                  &net->err);
    assert_status(hw_replication_want(net->nodes[mirror].replication, 100, 140, &net->err), HW_OK,
                  &net->err);
    assert_int_equal(hw_replication_availability(net->nodes[mirror].replication, 33),
                     HW_BLOCK_COMING);
    link_net_run(net);
    assert_int_equal(hw_replication_availability(net->nodes[mirror].replication, 33),
                     HW_BLOCK_HELD);
    assert_int_equal(net->nodes[mirror].arrived, 57 + 41);
    for (uint64_t i = 100; i < 140; i++)
        assert_status(core_log_check(net->nodes[mirror].core, i, &net->err), HW_OK, &net->err);
}

static void a_mirror_that_wants_no_tail_is_told_and_not_pushed_to(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 9);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), UINT64_MAX);
    unsigned pair = link_net_connect(net, primary, mirror);

    link_net_run(net);
    link_net_append(net, primary, 4);
    link_net_run(net);
    assert_int_equal(hw_core_length(net->nodes[mirror].core), 13);
    assert_int_equal(net->nodes[mirror].arrived, 0);
    assert_false(status_of(net, pair, 0).is_live);
}

static void a_mirror_reads_from_a_mirror_with_holes_what_it_has(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 400);
    unsigned first = link_net_mirror(net, key_of(net, primary), 390);
    unsigned second, pair = link_net_connect(net, primary, first);

    assert_status(hw_replication_want(net->nodes[first].replication, 64, 100, &net->err), HW_OK,
                  &net->err);
    link_net_run(net);
    link_net_cut(net, pair);
    second = link_net_mirror(net, key_of(net, primary), 0);
    (void)link_net_connect(net, first, second);
    link_net_run(net);
    assert_int_equal(hw_core_length(net->nodes[second].core), 400);
    for (uint64_t i = 0; i < 400; i++)
        assert_int_equal(hw_core_has(net->nodes[second].core, i), i >= 390 || (i >= 64 && i < 100));
    assert_int_equal(hw_replication_availability(net->nodes[second].replication, 5),
                     HW_BLOCK_NOBODY);
    /* What the first gets later goes on to the second. */
    (void)link_net_connect(net, primary, first);
    assert_status(hw_replication_want(net->nodes[first].replication, 0, 390, &net->err), HW_OK,
                  &net->err);
    link_net_run(net);
    link_net_check(net, first, primary, 0);
    link_net_check(net, second, primary, 0);
}

/* Who waited for them may have given up without a word. */
static void blocks_that_nobody_has_leave_room_for_others_that_are_waited_for(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 5000);
    unsigned first = link_net_mirror(net, key_of(net, primary), 4990);
    unsigned second, pair = link_net_connect(net, primary, first);
    struct hw_replication *replication;

    link_net_run(net);
    link_net_cut(net, pair);
    second = link_net_mirror(net, key_of(net, primary), UINT64_MAX);
    replication = net->nodes[second].replication;
    (void)link_net_connect(net, first, second);
    link_net_run(net);
    for (uint64_t i = 0; i < 4990; i++)
        assert_status(hw_replication_want_now(replication, i, &net->err), HW_OK, &net->err);
    assert_status(hw_replication_want_now(replication, 4995, &net->err), HW_OK, &net->err);
    link_net_run(net);
    assert_true(hw_core_has(net->nodes[second].core, 4995));
    /* One that is not waited for any more is not fetched from who has it later. */
    assert_status(hw_replication_want_now(replication, 4, &net->err), HW_OK, &net->err);
    assert_status(hw_replication_want_now(replication, 5, &net->err), HW_OK, &net->err);
    hw_replication_unwant_now(replication, 4);
    hw_replication_unwant_now(replication, 4);
    (void)link_net_connect(net, primary, second);
    link_net_run(net);
    assert_false(hw_core_has(net->nodes[second].core, 4));
    assert_true(hw_core_has(net->nodes[second].core, 5));
}

static void a_mirror_comes_back_with_what_it_has(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 30);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    unsigned pair;

    for (unsigned i = 0; i < 20; i++) {
        pair = link_net_connect(net, primary, mirror);
        link_net_run(net);
        link_net_append(net, primary, i % 4);
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
        link_net_cut(net, pair);
        assert_int_equal(hw_replication_availability(net->nodes[mirror].replication, 99999),
                         HW_BLOCK_NO_LINK);
        link_net_append(net, primary, i % 3);
    }
}

static void many_blocks_are_fetched_from_two_sources(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 3000);
    unsigned first = link_net_mirror(net, key_of(net, primary), 0);
    unsigned second, one, other;

    (void)link_net_connect(net, primary, first);
    link_net_run(net);
    second = link_net_mirror(net, key_of(net, primary), 0);
    one = link_net_connect(net, second, primary);
    other = link_net_connect(net, second, first);
    link_net_run(net);
    link_net_check(net, second, primary, 0);
    assert_true(status_of(net, one, 0).blocks_received > 300);
    assert_true(status_of(net, other, 0).blocks_received > 300);
    assert_int_equal(
        status_of(net, one, 0).blocks_received + status_of(net, other, 0).blocks_received, 3000);
}

/* Both push, and one is always late. */
static void a_mirror_of_two_that_push_keeps_both(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirrors[3], pairs[4];

    for (unsigned i = 0; i < 3; i++)
        mirrors[i] = link_net_mirror(net, key_of(net, primary), 0);
    pairs[0] = link_net_connect(net, primary, mirrors[0]);
    pairs[1] = link_net_connect(net, primary, mirrors[1]);
    pairs[2] = link_net_connect(net, mirrors[0], mirrors[2]);
    pairs[3] = link_net_connect(net, mirrors[1], mirrors[2]);
    link_net_run(net);
    for (unsigned i = 0; i < 3000; i++) {
        link_net_append(net, primary, 1);
        if (i % 5 == 0)
            link_net_run(net);
    }
    link_net_run(net);
    for (unsigned i = 0; i < 3; i++)
        link_net_check(net, mirrors[i], primary, 0);
    for (unsigned i = 0; i < 4; i++)
        assert_true(net->pairs[pairs[i]].is_open);
}

static void ranges_that_came_do_not_count_as_wanted(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 12000);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), UINT64_MAX);
    struct hw_replication *replication = net->nodes[mirror].replication;

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    for (uint64_t i = 0; i < 6000; i++) {
        assert_status(hw_replication_want(replication, 2 * i, 2 * i + 1, &net->err), HW_OK,
                      &net->err);
        if (i % 100 == 0)
            link_net_run(net);
    }
    link_net_run(net);
    assert_int_equal(net->nodes[mirror].arrived, 6000);
    hw_replication_unwant(replication);
    assert_status(hw_replication_want(replication, 0, 12000, &net->err), HW_OK, &net->err);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

/* As a JavaScript reader is. */
static bool forbid_push(void *ctx, struct link_end *to, struct link_message *message)
{
    unsigned *pushed = ctx;

    (void)to;
    if (message->type == HW_MESSAGE_SYNC)
        message->payload.bytes[0] &= 0x0f;
    if (message->type == HW_MESSAGE_DATA && message->payload.bytes[1] == 0)
        ++*pushed;
    return true;
}

static void who_forbids_pushes_is_told_and_asks(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 13), pushed = 0;
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    unsigned pair = link_net_connect(net, primary, mirror);

    net->look = forbid_push;
    net->ctx = &pushed;
    for (unsigned i = 0; i < 100; i++) {
        link_net_append(net, primary, 1 + i % 5);
        if (i % 3 == 0)
            link_net_run(net);
    }
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    assert_int_equal(pushed, 0);
    assert_false(status_of(net, pair, 0).is_live);
    net->look = NULL;
}

static void append_large(struct link_net *net, unsigned node, size_t size)
{
    struct hw_core *core = net->nodes[node].core;
    uint8_t *block = test_malloc(size);

    for (size_t i = 0; i < size; i++)
        block[i] = (uint8_t)(i * 31 >> 3);
    assert_status(hw_core_batch_begin(core, &net->err), HW_OK, &net->err);
    assert_status(hw_core_batch_add(core, block, size, &net->err), HW_OK, &net->err);
    assert_status(hw_core_batch_commit(core, "", 0, &net->err), HW_OK, &net->err);
    hw_replication_grown(net->nodes[node].replication);
    test_free(block);
}

static void the_largest_blocks_pass(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 3);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);

    for (unsigned i = 0; i < 2; i++) {
        append_large(net, primary, HW_BLOCK_SIZE_MAX);
        link_net_append(net, primary, 2);
    }
    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    append_large(net, primary, HW_BLOCK_SIZE_MAX); /* pushed */
    link_net_append(net, primary, 2);              /* while that fills the output */
    append_large(net, primary, 1 << 20);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(a_mirror_fetches_the_whole_log),
        net_test(a_level_mirror_is_pushed_to),
        net_test(an_empty_log_is_followed_from_its_first_block),
        net_test(a_chain_of_mirrors_relays_what_is_pushed),
        net_test(a_late_mirror_takes_the_tail_only),
        net_test(a_mirror_that_wants_no_tail_is_told_and_not_pushed_to),
        net_test(a_mirror_reads_from_a_mirror_with_holes_what_it_has),
        net_test(blocks_that_nobody_has_leave_room_for_others_that_are_waited_for),
        net_test(a_mirror_comes_back_with_what_it_has),
        net_test(many_blocks_are_fetched_from_two_sources),
        net_test(who_forbids_pushes_is_told_and_asks),
        net_test(the_largest_blocks_pass),
        net_test(a_mirror_of_two_that_push_keeps_both),
        net_test(ranges_that_came_do_not_count_as_wanted),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication", tests, NULL, NULL);
}
