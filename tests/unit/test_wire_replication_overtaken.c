/* Logs of which their followers have more: they came back from a backup, or lost their end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/log_file.h"
#include "hypercore/mirror.h"
#include "support/link_net.h"

/*
 * Node 0: a log of `common` blocks that went on to `whole`.  Node 1: its copy, made at `common`
 * and open for reading; if it is adopted it went on to `whole` under fork 1.  Both as the server of
 * a signer has them.
 */
static void make_two(struct link_net *net, unsigned common, unsigned whole, bool adopted)
{
    struct hw_env *env = sim_env(net->sim);
    struct hw_core *core = NULL;

    assert_status(hw_core_create(env, "/a", &core, &net->err), HW_OK, &net->err);
    if (common > 0)
        assert_status(core_log_append(core, common, "n", &net->err), HW_OK, &net->err);
    hw_core_close(core);
    link_net_copy_log(net, "/a", "/b");
    assert_status(hw_core_open(env, "/a", HW_CORE_WRITE, UINT64_MAX, &core, &net->err), HW_OK,
                  &net->err);
    assert_status(core_log_append(core, whole - common, "n", &net->err), HW_OK, &net->err);
    (void)link_net_add(net, core, false);
    if (adopted) {
        assert_status(hw_core_adopt(env, "/b", &net->err), HW_OK, &net->err);
        assert_status(hw_core_open(env, "/b", HW_CORE_WRITE, UINT64_MAX, &core, &net->err), HW_OK,
                      &net->err);
        link_net_append_other(net, core, whole - common);
    } else {
        assert_status(hw_core_open(env, "/b", HW_CORE_READ, UINT64_MAX, &core, &net->err), HW_OK,
                      &net->err);
    }
    (void)link_net_add(net, core, false);
}

/* A mirror of node 0; `tail` as in link_net_mirror(). */
static unsigned follow(struct link_net *net, unsigned node, uint64_t tail)
{
    unsigned mirror = link_net_mirror(net, hw_core_identity(net->nodes[node].core)->key, tail);
    unsigned pair = link_net_connect(net, node, mirror);

    link_net_run(net);
    link_net_cut(net, pair);
    return mirror;
}

static void check_shown(struct link_net *net, unsigned node, uint64_t count, uint64_t fork,
                        uint64_t length)
{
    assert_int_equal(net->nodes[node].overtaken, count);
    assert_int_equal(net->nodes[node].shown_fork, fork);
    assert_int_equal(net->nodes[node].shown_length, length);
}

static void a_follower_that_has_more_proves_it(void **state)
{
    struct link_net *net = *state;

    for (unsigned common = 0; common < 20; common++) {
        unsigned mirror, pair;

        link_net_reset(net, common + 1);
        make_two(net, common, common + 7, false);
        mirror = follow(net, 0, common % 2 == 0 ? 0 : common + 5);
        pair = link_net_connect(net, 1, mirror);
        link_net_run(net);
        check_shown(net, 1, 1, 0, common + 7);
        assert_true(net->pairs[pair].is_open);
        assert_int_equal(hw_core_length(net->nodes[mirror].core), common + 7);
        check_shown(net, 0, 0, 0, 0);
    }
}

static void what_was_shown_once_is_not_asked_for_again(void **state)
{
    struct link_net *net = *state;
    unsigned mirrors[4], asked = 0;

    make_two(net, 3, 10, false);
    for (unsigned i = 0; i < 4; i++)
        mirrors[i] = follow(net, 0, 0);
    link_net_append(net, 0, 5);
    mirrors[3] = follow(net, 0, 0); /* this one has 15 */
    for (unsigned i = 0; i < 4; i++) {
        unsigned pair = link_net_connect(net, 1, mirrors[i]);

        link_net_run(net);
        asked += net->pairs[pair].ends[1].counts[HW_MESSAGE_REQUEST];
    }
    check_shown(net, 1, 2, 0, 15);
    assert_int_equal(asked, 2);
}

/*
 * The copy is in the place of the log, and signed `count` blocks of its own before anybody told
 * it.  The node.
 */
static unsigned go_on_unasked(struct link_net *net, unsigned count)
{
    struct hw_env *env = sim_env(net->sim);
    struct hw_core *core = NULL;
    struct hw_log_file log;

    assert_status(hw_log_file_read(env, "/b", &log, &net->err), HW_OK, &net->err);
    assert_status(hw_log_file_locate(env, "/b", &log, &net->err), HW_OK, &net->err);
    assert_status(hw_log_file_write(env, "/b", &log, &net->err), HW_OK, &net->err);
    assert_status(hw_core_open(env, "/b", HW_CORE_WRITE, UINT64_MAX, &core, &net->err), HW_OK,
                  &net->err);
    link_net_append_other(net, core, count);
    return link_net_add(net, core, false);
}

static void another_history_is_told_by_a_follower_that_has_more(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, node, pair;

    make_two(net, 5, 12, false);
    mirror = follow(net, 0, 0);
    node = go_on_unasked(net, 3);
    pair = link_net_connect(net, node, mirror);
    link_net_run(net);
    check_shown(net, node, 1, 0, 12); /* although its first 8 blocks are not ours */
    assert_true(net->pairs[pair].is_open);
    link_net_check(net, mirror, 0, 0);
}

static void a_follower_keeps_its_blocks_and_says_why(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, node, pair;

    make_two(net, 5, 12, false);
    mirror = follow(net, 0, 0);
    node = go_on_unasked(net, 30);
    pair = link_net_connect(net, node, mirror);
    link_net_run(net);
    check_shown(net, node, 0, 0, 0);
    assert_false(net->pairs[pair].is_open);
    assert_int_equal(net->pairs[pair].why, HW_EFORK);
    assert_non_null(strstr(net->err.message, "does not continue the 12 that we have"));
    link_net_check(net, mirror, 0, 0);
}

/* Of equal length, both say nothing that the other does not believe. */
static void a_follower_finds_another_history_of_its_length_at_the_first_push(void **state)
{
    struct link_net *net = *state;

    for (unsigned common = 1; common < 12; common++) {
        unsigned mirror, node, pair;

        link_net_reset(net, common);
        make_two(net, common, 12, false);
        mirror = follow(net, 0, 0);
        node = go_on_unasked(net, 12 - common);
        pair = link_net_connect(net, node, mirror);
        link_net_run(net);
        assert_true(net->pairs[pair].is_open);
        link_net_append_other(net, net->nodes[node].core, 1 + common % 3);
        hw_replication_grown(net->nodes[node].replication);
        link_net_run(net);
        assert_false(net->pairs[pair].is_open);
        assert_int_equal(net->pairs[pair].why, HW_EFORK);
        link_net_check(net, mirror, 0, 0);
    }
}

/* What nobody asked for is changed; answers are as they should be. */
static bool forge_pushes(void *ctx, struct link_end *to, struct link_message *message)
{
    struct hw_cursor cursor = hw_cursor(message->payload.bytes, message->payload.size);

    (void)ctx;
    (void)hw_cursor_uint(&cursor); /* flags */
    if (to->side == 1 && message->type == HW_MESSAGE_DATA && hw_cursor_uint(&cursor) == 0)
        message->payload.bytes[message->payload.size - 5] ^= 1; /* the signature */
    return true;
}

static void who_changes_a_push_has_no_other_history_to_hide_behind(void **state)
{
    struct link_net *net = *state;

    for (unsigned length = 1; length < 20; length++) {
        unsigned primary, mirror, pair;

        link_net_reset(net, length);
        primary = link_net_primary(net, length);
        mirror = link_net_mirror(net, hw_core_identity(net->nodes[primary].core)->key, 0);
        pair = link_net_connect(net, primary, mirror);
        link_net_run(net);
        net->look = forge_pushes;
        link_net_append(net, primary, 2);
        link_net_run(net);
        net->look = NULL;
        assert_false(net->pairs[pair].is_open);
        assert_int_equal(net->pairs[pair].why, HW_EPROOF);
        assert_int_equal(hw_core_length(net->nodes[mirror].core), length);
    }
}

/* Answers to the mirror are changed. */
static bool forge_to_mirror(void *ctx, struct link_end *to, struct link_message *message)
{
    (void)ctx;
    if (to->side == 1 && message->type == HW_MESSAGE_DATA && message->payload.size > 40)
        message->payload.bytes[message->payload.size - 5] ^= 1; /* the signature */
    return true;
}

static void who_lies_is_told_from_who_has_another_history(void **state)
{
    struct link_net *net = *state;

    for (unsigned is_silent = 0; is_silent < 2; is_silent++) {
        unsigned mirror, pair;

        link_net_reset(net, 1 + is_silent);
        make_two(net, 5, 12, false);
        mirror = follow(net, 0, 0);
        link_net_append(net, 0, 3);
        net->look = forge_to_mirror;
        pair = link_net_connect(net, 0, mirror);
        while (is_silent == 1 && net->pairs[pair].ends[0].counts[HW_MESSAGE_REQUEST] == 0)
            assert_true(link_net_step(net));
        net->pairs[pair].ends[0].is_deaf = is_silent == 1; /* to what it is asked next */
        link_net_run(net);
        link_net_advance(net, 11000);
        link_net_run(net);
        assert_false(net->pairs[pair].is_open);
        assert_int_equal(net->pairs[pair].why, HW_EPROOF);
        assert_int_equal(hw_core_length(net->nodes[mirror].core), 12);
        net->look = NULL;
    }
}

/* One allocation fails, after the proof of its history has come. */
struct shortage {
    unsigned answers, left;
};

static bool fails_once(void *ctx, size_t size)
{
    struct shortage *shortage = ctx;

    (void)size;
    if (shortage->answers < 2 || shortage->left == 0)
        return true;
    return --shortage->left > 0;
}

static bool count_answers(void *ctx, struct link_end *to, struct link_message *message)
{
    struct shortage *shortage = ctx;

    if (to->side == 1 && message->type == HW_MESSAGE_DATA)
        shortage->answers++;
    return true;
}

static void without_memory_nobody_is_taken_for_a_liar(void **state)
{
    struct link_net *net = *state;
    bool was_reached = true;

    for (unsigned nth = 1; was_reached; nth++) {
        struct shortage shortage = {.left = nth};
        unsigned mirror, node, pair;

        link_net_reset(net, nth);
        make_two(net, 5, 12, false);
        mirror = follow(net, 0, 0);
        node = go_on_unasked(net, 30);
        net->look = count_answers;
        net->ctx = &shortage;
        pair = link_net_connect(net, node, mirror);
        hw_alloc_set_hook(fails_once, &shortage);
        link_net_run(net);
        hw_alloc_set_hook(NULL, NULL);
        net->look = NULL;
        was_reached = shortage.left == 0;
        assert_true(shortage.answers >= 2);
        assert_int_not_equal(net->pairs[pair].why, HW_EPROOF);
    }
}

static void a_higher_fork_is_shown(void **state)
{
    struct link_net *net = *state;
    unsigned mirror;

    make_two(net, 6, 9, true);
    mirror = follow(net, 1, 0); /* of the adopted copy */
    link_net_append(net, 0, 100);
    (void)link_net_connect(net, 0, mirror);
    link_net_run(net);
    check_shown(net, 0, 1, 1, 9); /* however long we are */
}

/* ------------------------------------------------------------------------------------ liars */

static void claim(struct link_net *net, unsigned pair, uint64_t fork, uint64_t length)
{
    const struct hw_message_sync sync = {
        .can_upgrade = true, .is_uploading = true, .fork = fork, .length = length};
    struct hw_buffer message = {0};

    hw_message_sync_encode(&sync, &message);
    link_net_inject(&net->pairs[pair].ends[0], HW_MESSAGE_SYNC, message.bytes, message.size);
    hw_buffer_release(&message);
}

static unsigned asked(struct link_net *net, unsigned pair)
{
    return net->pairs[pair].ends[1].counts[HW_MESSAGE_REQUEST];
}

static void a_claim_alone_does_nothing(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10), pair;
    unsigned mirror = link_net_mirror(net, hw_core_identity(net->nodes[0].core)->key, 0);

    pair = link_net_connect(net, primary, mirror);
    link_net_run(net);
    for (unsigned i = 0; i < 30; i++) { /* the mirror refuses: it has no such length */
        claim(net, pair, i % 3, 1000 + i);
        link_net_run(net);
    }
    assert_int_equal(asked(net, pair), 1);
    link_net_advance(net, 61000);
    link_net_run(net);
    assert_int_equal(asked(net, pair), 2);
    check_shown(net, primary, 0, 0, 0);
    link_net_append(net, primary, 3); /* and all goes on */
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
}

static void one_that_never_proves_its_claim_holds_up_nobody(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, silent, pair, other;

    make_two(net, 4, 9, false);
    mirror = follow(net, 0, 0);
    silent = link_net_mirror(net, hw_core_identity(net->nodes[0].core)->key, 0);
    pair = link_net_connect(net, 1, silent);
    link_net_run(net);
    net->pairs[pair].ends[1].is_deaf = true;
    claim(net, pair, 0, 1 << 20);
    link_net_run(net);
    other = link_net_connect(net, 1, mirror);
    link_net_run(net);
    check_shown(net, 1, 0, 0, 0); /* one at a time */
    link_net_advance(net, 10001);
    link_net_run(net);
    check_shown(net, 1, 1, 0, 9);
    assert_true(net->pairs[pair].is_open);
    assert_true(net->pairs[other].is_open);
}

/* Answers to the primary are changed. */
static bool forge(void *ctx, struct link_end *to, struct link_message *message)
{
    (void)ctx;
    if (to->side == 0 && message->type == HW_MESSAGE_DATA && message->payload.size > 40)
        message->payload.bytes[message->payload.size - 5] ^= 1; /* the signature */
    return true;
}

static void who_gives_a_false_proof_is_dropped(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, pair;

    make_two(net, 4, 9, false);
    mirror = follow(net, 0, 0);
    net->look = forge;
    pair = link_net_connect(net, 1, mirror);
    link_net_run(net);
    check_shown(net, 1, 0, 0, 0);
    assert_false(net->pairs[pair].is_open);
    assert_int_equal(net->pairs[pair].why, HW_EPROOF);
    net->look = NULL;
    pair = link_net_connect(net, 1, mirror);
    link_net_run(net);
    check_shown(net, 1, 1, 0, 9);
}

static void a_proof_of_what_we_have_by_now_is_none(void **state)
{
    struct link_net *net = *state;
    unsigned mirror;

    make_two(net, 4, 9, false);
    mirror = follow(net, 0, 0);
    link_net_append(net, 0, 3);
    (void)link_net_connect(net, 0, mirror);
    link_net_run(net);
    check_shown(net, 0, 0, 0, 0);
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(a_follower_that_has_more_proves_it),
        net_test(what_was_shown_once_is_not_asked_for_again),
        net_test(another_history_is_told_by_a_follower_that_has_more),
        net_test(a_follower_keeps_its_blocks_and_says_why),
        net_test(a_follower_finds_another_history_of_its_length_at_the_first_push),
        net_test(who_changes_a_push_has_no_other_history_to_hide_behind),
        net_test(who_lies_is_told_from_who_has_another_history),
        net_test(without_memory_nobody_is_taken_for_a_liar),
        net_test(a_higher_fork_is_shown),
        net_test(a_claim_alone_does_nothing),
        net_test(one_that_never_proves_its_claim_holds_up_nobody),
        net_test(who_gives_a_false_proof_is_dropped),
        net_test(a_proof_of_what_we_have_by_now_is_none),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication_overtaken", tests, NULL, NULL);
}
