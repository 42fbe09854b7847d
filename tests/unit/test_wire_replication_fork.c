/* Logs that were adopted, and go on under a higher fork. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "hypercore/mirror.h"
#include "support/link_net.h"

static const uint8_t *key_of(struct link_net *net, unsigned node)
{
    return hw_core_identity(net->nodes[node].core)->key;
}

/*
 * Two nodes: a log of `common` blocks that went on to `first`, and a copy of it, made at `common`,
 * that was adopted and went on to `second` under fork 1.
 */
static void make_fork(struct link_net *net, unsigned common, unsigned first, unsigned second)
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
    if (first > common)
        assert_status(core_log_append(core, first - common, "n", &net->err), HW_OK, &net->err);
    (void)link_net_add(net, core, false);

    assert_status(hw_core_adopt(env, "/b", &net->err), HW_OK, &net->err);
    assert_status(hw_core_open(env, "/b", HW_CORE_WRITE, UINT64_MAX, &core, &net->err), HW_OK,
                  &net->err);
    if (second > common)
        link_net_append_other(net, core, second - common);
    (void)link_net_add(net, core, false);
}

static void a_mirror_moves_to_a_higher_fork(void **state)
{
    struct link_net *net = *state;
    static const unsigned sizes[][3] = {{5, 16, 16}, {8, 16, 12},  {16, 16, 16}, {1, 2, 3},
                                        {0, 7, 4},   {13, 21, 50}, {20, 33, 21}, {6, 9, 6}};

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned mirror, second, kept = 0;

        link_net_reset(net, i + 1);
        make_fork(net, sizes[i][0], sizes[i][1], sizes[i][2]);
        mirror = link_net_mirror(net, key_of(net, 0), 0);
        second = link_net_mirror(net, key_of(net, 0), 0);
        (void)link_net_connect(net, 0, mirror);
        (void)link_net_connect(net, mirror, second);
        link_net_run(net);
        link_net_check(net, second, 0, 0);
        (void)link_net_connect(net, 1, mirror);
        link_net_run(net);
        link_net_check(net, mirror, 1, 0);
        link_net_check(net, second, 1, hw_core_length(net->nodes[1].core)); /* its tree */
        (void)link_net_connect(net, 1, second);
        link_net_run(net);
        link_net_check(net, second, 1, 0);
        kept = sizes[i][2] - sizes[i][0]; /* only what differs was fetched again */
        assert_true(net->nodes[mirror].arrived <= sizes[i][1] + kept);
        link_net_append_other(net, net->nodes[1].core, 3);
        hw_replication_grown(net->nodes[1].replication);
        link_net_run(net);
        link_net_check(net, mirror, 1, 0);
        link_net_check(net, second, 1, 0);
        /* The lower one is ignored from now on. */
        link_net_append(net, 0, 60);
        link_net_run(net);
        link_net_check(net, mirror, 1, 0);
    }
}

static void an_empty_mirror_starts_on_any_fork(void **state)
{
    struct link_net *net = *state;
    unsigned mirror;

    make_fork(net, 10, 20, 17);
    mirror = link_net_mirror(net, key_of(net, 0), 0);
    (void)link_net_connect(net, 1, mirror);
    link_net_run(net);
    link_net_check(net, mirror, 1, 0);
    link_net_append_other(net, net->nodes[1].core, 3);
    hw_replication_grown(net->nodes[1].replication);
    link_net_run(net);
    link_net_check(net, mirror, 1, 0);
}

/* Cut at every message of the change: in the end it is on one of the two, whole. */
static void a_change_of_fork_that_is_cut_is_taken_up_again(void **state)
{
    struct link_net *net = *state;
    bool was_reached = true;

    for (uint64_t cut = 1; was_reached; cut++) {
        unsigned mirror, pair;
        uint64_t before;

        link_net_reset(net, cut);
        make_fork(net, 21, 30, 29);
        mirror = link_net_mirror(net, key_of(net, 0), 0);
        (void)link_net_connect(net, 0, mirror);
        link_net_run(net);
        pair = link_net_connect(net, 1, mirror);
        before = net->delivered;
        was_reached = false;
        while (link_net_step(net) && !was_reached)
            was_reached = net->delivered == before + cut;
        link_net_cut(net, pair);
        if (hw_core_head(net->nodes[mirror].core).fork == 0)
            link_net_check(net, mirror, 0, 0);
        (void)link_net_connect(net, 1, mirror);
        link_net_run(net);
        link_net_check(net, mirror, 1, 0);
    }
}

/* The mirror alone feeds others, with all of the new fork: also what both had. */
static void a_mirror_that_moved_serves_the_whole_log(void **state)
{
    struct link_net *net = *state;

    for (unsigned common = 0; common < 40; common++) {
        unsigned mirror, third, pairs[2];

        link_net_reset(net, common + 1);
        make_fork(net, common, common + 5, common + 1 + common * 7 % 13);
        mirror = link_net_mirror(net, key_of(net, 0), 0);
        for (unsigned i = 0; i < 2; i++) {
            pairs[i] = link_net_connect(net, i, mirror);
            link_net_run(net);
            link_net_check(net, mirror, i, 0);
            link_net_cut(net, pairs[i]);
        }
        third = link_net_mirror(net, key_of(net, 0), 0);
        (void)link_net_connect(net, mirror, third);
        link_net_run(net);
        link_net_check(net, third, 1, 0);
    }
}

/* A mirror of node 0, with all of it. */
static unsigned follow_first(struct link_net *net)
{
    unsigned mirror = link_net_mirror(net, key_of(net, 0), 0);
    unsigned pair = link_net_connect(net, 0, mirror);

    link_net_run(net);
    link_net_check(net, mirror, 0, 0);
    link_net_cut(net, pair);
    return mirror;
}

/* A pair of `node` and the mirror on which nothing gets to the node until it hears again. */
static unsigned connect_stopped(struct link_net *net, unsigned node, unsigned mirror)
{
    unsigned pair = link_net_connect(net, node, mirror);

    net->pairs[pair].ends[0].is_deaf = true;
    link_net_run(net);
    return pair;
}

static bool was_asked(const struct link_net *net, unsigned pair)
{
    for (struct link_message *at = net->pairs[pair].ends[0].first; at != NULL; at = at->next) {
        if (at->type == HW_MESSAGE_REQUEST)
            return true;
    }
    return false;
}

/* Nothing is appended meanwhile: there is no other reason to ask again. */
static void an_answer_that_comes_late_is_enough_for_an_idle_log(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, pair;

    make_fork(net, 10, 20, 17);
    mirror = follow_first(net);
    pair = connect_stopped(net, 1, mirror);
    assert_true(was_asked(net, pair));
    for (unsigned i = 0; i < 4; i++) {
        link_net_advance(net, 11000);
        link_net_run(net);
    }
    net->pairs[pair].ends[0].is_deaf = false;
    link_net_run(net);
    assert_true(net->pairs[pair].is_open);
    link_net_check(net, mirror, 1, 0);
}

static void who_was_late_is_asked_again_when_the_other_goes_away(void **state)
{
    struct link_net *net = *state;
    unsigned mirror, pairs[2], late;

    make_fork(net, 10, 20, 17);
    mirror = follow_first(net);
    pairs[0] = connect_stopped(net, 1, mirror);
    pairs[1] = connect_stopped(net, 1, mirror);
    late = was_asked(net, pairs[0]) ? 0 : 1;
    assert_false(was_asked(net, pairs[1 - late]));
    link_net_advance(net, 11000);
    link_net_run(net);
    assert_true(was_asked(net, pairs[1 - late]));
    net->pairs[pairs[late]].ends[0].is_deaf = false;
    link_net_run(net); /* the answer is none to a request of now */
    link_net_check(net, mirror, 0, 0);
    link_net_cut(net, pairs[1 - late]);
    link_net_run(net);
    link_net_check(net, mirror, 1, 0);
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(a_mirror_moves_to_a_higher_fork),
        net_test(an_empty_mirror_starts_on_any_fork),
        net_test(a_change_of_fork_that_is_cut_is_taken_up_again),
        net_test(a_mirror_that_moved_serves_the_whole_log),
        net_test(an_answer_that_comes_late_is_enough_for_an_idle_log),
        net_test(who_was_late_is_asked_again_when_the_other_goes_away),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication_fork", tests, NULL, NULL);
}
