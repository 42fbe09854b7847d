/*
 * Replications on bad days: links cut at any message, sources that lie, stall, or lack what they
 * announced, our own disk full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/proof.h"
#include "support/link_net.h"

static const uint8_t *key_of(struct link_net *net, unsigned node)
{
    return hw_core_identity(net->nodes[node].core)->key;
}

/* ------------------------------------------------------------------------------------- cuts */

/* primary, two mirrors, a third that reads from both; and all four grow together. */
static void build_diamond(struct link_net *net, uint64_t seed, unsigned blocks)
{
    unsigned primary;

    link_net_reset(net, seed);
    primary = link_net_primary(net, blocks);
    for (unsigned i = 0; i < 3; i++)
        (void)link_net_mirror(net, key_of(net, primary), i == 1 ? 5 : 0);
}

static const unsigned diamond[4][2] = {{0, 1}, {0, 2}, {1, 3}, {2, 3}};

static void connect_missing(struct link_net *net)
{
    for (unsigned i = 0; i < 4; i++) {
        if (i >= net->pair_count || !net->pairs[i].is_open)
            (void)link_net_connect(net, diamond[i][0], diamond[i][1]);
    }
}

static void a_link_cut_at_any_message_loses_nothing(void **state)
{
    struct link_net *net = *state;
    uint64_t cut = 0;

    for (bool was_reached = true; was_reached; cut++) {
        unsigned primary, mirror;

        link_net_reset(net, 1 + cut);
        primary = link_net_primary(net, 40);
        mirror = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, primary, mirror);
        was_reached = false;
        for (unsigned round = 0; round < 6; round++) {
            while (link_net_step(net)) {
                if (net->delivered == cut + 1 && !was_reached) {
                    was_reached = true;
                    link_net_cut(net, 0);
                    (void)link_net_connect(net, primary, mirror);
                }
            }
            link_net_append(net, primary, 1 + round);
        }
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
    }
    assert_true(cut > 100);
}

static void random_cuts_and_growth_end_in_equal_logs(void **state)
{
    struct link_net *net = *state;

    for (uint64_t seed = 1; seed <= 60; seed++) {
        build_diamond(net, seed, 30);
        for (unsigned step = 0; step < 1500; step++) {
            uint64_t dice = link_net_chance(net, 100);

            connect_missing(net);
            if (dice < 2)
                link_net_cut(net, (unsigned)link_net_chance(net, 4));
            else if (dice < 6)
                link_net_append(net, 0, 1 + (unsigned)link_net_chance(net, 6));
            else if (dice < 9)
                link_net_tick(net);
            else
                (void)link_net_step(net);
        }
        connect_missing(net);
        link_net_run(net);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(net->pairs[i].why, HW_OK);
        link_net_check(net, 1, 0, 0);
        link_net_check(net, 2, 0, 5);
        link_net_check(net, 3, 0, 0);
    }
}

/* ------------------------------------------------------------------------------ bad sources */

enum bad { BAD_LIES, BAD_STALLS, BAD_REFUSES, BAD_KINDS };
struct bad_source {
    enum bad kind;
    unsigned pair, side; /* messages to this end come from the bad one */
    unsigned spared;     /* answers that are right, first */
};

/* The last byte of its blocks is changed. */
static void spoil(struct link_message *message)
{
    struct hw_proof proof = {0};

    if (hw_proof_decode((struct hw_slice){message->payload.bytes, message->payload.size}, &proof,
                        NULL) != HW_OK)
        return;
    if (proof.has_block && proof.block.size > 0)
        proof.block.bytes[proof.block.size - 1] ^= 1;
    else if (proof.has_upgrade && proof.signature.size > 0)
        proof.signature.bytes[proof.signature.size - 1] ^= 1;
    hw_buffer_clear(&message->payload);
    hw_proof_encode(&proof, &message->payload);
    hw_proof_release(&proof);
}

static void refuse(struct link_message *message)
{
    struct hw_cursor cursor = hw_cursor(message->payload.bytes, message->payload.size);
    struct hw_message_no_data no_data = {.reason = HW_REASON_NOT_AVAILABLE};

    (void)hw_cursor_uint(&cursor);
    no_data.request = hw_cursor_uint(&cursor);
    message->type = HW_MESSAGE_NO_DATA;
    hw_buffer_clear(&message->payload);
    hw_message_no_data_encode(&no_data, &message->payload);
}

static bool look_bad(void *ctx, struct link_end *to, struct link_message *message)
{
    struct bad_source *bad = ctx;

    if (to->pair != bad->pair || to->side != bad->side || message->type != HW_MESSAGE_DATA)
        return true;
    if (bad->spared > 0) {
        bad->spared--;
        return true;
    }
    if (bad->kind == BAD_LIES)
        spoil(message);
    if (bad->kind == BAD_REFUSES)
        refuse(message);
    return bad->kind != BAD_STALLS;
}

static void one_good_source_is_enough(void **state)
{
    struct link_net *net = *state;

    for (unsigned i = 0; i < 60; i++) {
        struct bad_source bad = {.kind = (enum bad)(i % BAD_KINDS), .side = 1, .spared = i / 3};
        unsigned primary, first, reader;

        link_net_reset(net, i + 1);
        primary = link_net_primary(net, 300);
        first = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, primary, first);
        link_net_run(net);
        reader = link_net_mirror(net, key_of(net, primary), 0);
        bad.pair = link_net_connect(net, i % 2 == 0 ? primary : first, reader);
        (void)link_net_connect(net, i % 2 == 0 ? first : primary, reader);
        net->look = look_bad;
        net->ctx = &bad;
        link_net_run(net);
        for (unsigned s = 0; s < 40; s++) { /* what a stalling one was asked goes to the other */
            link_net_advance(net, 1000);
            link_net_run(net);
        }
        link_net_check(net, reader, primary, 0);
        if (bad.kind == BAD_LIES && net->pairs[bad.pair].why != HW_OK)
            assert_int_equal(net->pairs[bad.pair].why, HW_EPROOF);
        net->look = NULL;
    }
}

static void a_source_that_lies_is_dropped(void **state)
{
    struct link_net *net = *state;
    struct bad_source bad = {.kind = BAD_LIES, .side = 1, .spared = 5};
    unsigned primary = link_net_primary(net, 50);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);

    bad.pair = link_net_connect(net, primary, mirror);
    net->look = look_bad;
    net->ctx = &bad;
    link_net_run(net);
    assert_int_equal(net->pairs[bad.pair].why, HW_EPROOF);
    assert_true(net->nodes[mirror].arrived < 6);
    net->look = NULL;
    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

static void a_push_that_lies_is_dropped(void **state)
{
    struct link_net *net = *state;
    struct bad_source bad = {.kind = BAD_LIES, .side = 1};
    unsigned primary = link_net_primary(net, 50);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);

    bad.pair = link_net_connect(net, primary, mirror);
    link_net_run(net);
    net->look = look_bad;
    net->ctx = &bad;
    link_net_append(net, primary, 2);
    link_net_run(net);
    assert_int_equal(net->pairs[bad.pair].why, HW_EPROOF);
    assert_int_equal(hw_core_length(net->nodes[mirror].core), 50);
    net->look = NULL;
}

static void the_only_source_that_stalls_is_dropped_in_the_end(void **state)
{
    struct link_net *net = *state;
    struct bad_source bad = {.kind = BAD_STALLS, .side = 1, .spared = 3};
    unsigned primary = link_net_primary(net, 50);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);

    bad.pair = link_net_connect(net, primary, mirror);
    net->look = look_bad;
    net->ctx = &bad;
    link_net_run(net);
    for (unsigned s = 0; s < 110; s += 10)
        link_net_advance(net, 10000);
    assert_true(net->pairs[bad.pair].is_open);
    link_net_advance(net, 20000);
    assert_false(net->pairs[bad.pair].is_open);
    assert_int_equal(net->pairs[bad.pair].why, HW_ETIMEOUT);
    net->look = NULL;
}

static void a_pruned_block_is_known_not_to_come(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 100);
    unsigned first = link_net_mirror(net, key_of(net, primary), 50);
    unsigned reader = link_net_mirror(net, key_of(net, primary), 0);
    struct hw_replication *replication = net->nodes[reader].replication;

    assert_int_equal(hw_replication_availability(replication, 7), HW_BLOCK_NO_LINK);
    (void)link_net_connect(net, primary, first);
    link_net_run(net);
    (void)link_net_connect(net, first, reader);
    assert_int_equal(hw_replication_availability(replication, 7), HW_BLOCK_COMING);
    link_net_run(net);
    assert_int_equal(hw_replication_availability(replication, 7), HW_BLOCK_NOBODY);
    assert_int_equal(hw_replication_availability(replication, 51), HW_BLOCK_HELD);
    hw_replication_dropped(net->nodes[first].replication, 60, 5);
    link_net_run(net);
    link_net_check(net, reader, primary, 50);
}

static void a_full_disk_is_waited_out(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 400);
    struct hw_core *core = NULL;
    unsigned mirror, pair;

    assert_status(
        hw_core_create_mirror(sim_env(net->sim), "/m", key_of(net, primary), &core, &net->err),
        HW_OK, &net->err);
    mirror = link_net_add(net, core, true);
    hw_replication_want_tail(net->nodes[mirror].replication, 0);
    pair = link_net_connect(net, primary, mirror);
    for (unsigned i = 0; i < 30; i++)
        (void)link_net_step(net);
    sim_set_space(net->sim, 0);
    for (unsigned i = 0; i < 10; i++) {
        link_net_run(net);
        link_net_append(net, primary, 2);
        link_net_advance(net, 700);
    }
    assert_true(net->nodes[mirror].broken > 1);
    assert_true(net->pairs[pair].is_open);
    sim_set_space(net->sim, UINT64_MAX);
    link_net_advance(net, 1100);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    link_net_append(net, primary, 2);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

/* ---------------------------------------------------------------------------- failing reads */

/* The log grows by a block, and a read of it fails when the server looks what is new. */
static void grow_with_fault(struct link_net *net, struct hw_core *writer, unsigned server,
                            uint64_t read)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_READ, .path = "/log/", .at = read};
    struct link_node *node = &net->nodes[server];

    assert_status(core_log_append(writer, 1, "n", &net->err), HW_OK, &net->err);
    assert_status(hw_core_refresh(node->core, UINT64_MAX, &net->err), HW_OK, &net->err);
    sim_set_fault(net->sim, &fault);
    hw_replication_grown(node->replication);
    link_net_run(net);
}

static void a_read_that_fails_is_no_block_that_is_missing(void **state)
{
    struct link_net *net = *state;
    bool was_reached = true;

    for (uint64_t read = 1; was_reached; read++) {
        struct hw_core *writer = NULL, *core = NULL;
        unsigned server, mirror;

        link_net_reset(net, read);
        assert_status(hw_core_create(sim_env(net->sim), "/log", &writer, &net->err), HW_OK,
                      &net->err);
        assert_status(core_log_append(writer, 20, "n", &net->err), HW_OK, &net->err);
        assert_status(
            hw_core_open(sim_env(net->sim), "/log", HW_CORE_READ, UINT64_MAX, &core, &net->err),
            HW_OK, &net->err);
        server = link_net_add(net, core, false);
        mirror = link_net_mirror(net, key_of(net, server), 0);
        (void)link_net_connect(net, server, mirror);
        link_net_run(net);
        for (unsigned i = 0; i < 3; i++) { /* the first time the mirror asks what else there is */
            grow_with_fault(net, writer, server, read);
            was_reached = sim_fault_was_reached(net->sim);
            sim_set_fault(net->sim, NULL);
            if (!net->pairs[net->pair_count - 1].is_open)
                (void)link_net_connect(net, server, mirror);
            link_net_run(net);
            link_net_check(net, mirror, server, 0);
        }
        hw_core_close(writer);
    }
}

/* --------------------------------------------------------------------------------- no memory */

struct hook {
    uint64_t left;
    bool was_reached;
};

static bool allow(void *ctx, size_t size)
{
    struct hook *hook = ctx;

    (void)size;
    if (hook->left == 0)
        return true;
    if (--hook->left > 0)
        return true;
    hook->was_reached = true;
    return false;
}

static void a_failed_allocation_costs_a_link_at_most(void **state)
{
    struct link_net *net = *state;
    struct hook hook = {.was_reached = true};

    for (uint64_t n = 1; hook.was_reached; n++) {
        unsigned primary, mirror;

        link_net_reset(net, n);
        primary = link_net_primary(net, 20);
        mirror = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, primary, mirror);
        hook = (struct hook){.left = n};
        hw_alloc_set_hook(allow, &hook);
        while (link_net_step(net))
            ;
        hw_alloc_set_hook(NULL, NULL);
        if (!net->pairs[0].is_open)
            (void)link_net_connect(net, primary, mirror);
        link_net_append(net, primary, 3);
        link_net_run(net);
        link_net_advance(net, 5000);
        link_net_run(net);
        if (!net->pairs[0].is_open)
            (void)link_net_connect(net, primary, mirror);
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
    }
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(a_link_cut_at_any_message_loses_nothing),
        net_test(random_cuts_and_growth_end_in_equal_logs),
        net_test(one_good_source_is_enough),
        net_test(a_source_that_lies_is_dropped),
        net_test(a_push_that_lies_is_dropped),
        net_test(the_only_source_that_stalls_is_dropped_in_the_end),
        net_test(a_pruned_block_is_known_not_to_come),
        net_test(a_full_disk_is_waited_out),
        net_test(a_read_that_fails_is_no_block_that_is_missing),
        net_test(a_failed_allocation_costs_a_link_at_most),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication_faults", tests, NULL, NULL);
}
