/* Remotes that break the rules: what they can make us keep and do has an end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/flat_tree.h"
#include "hypercore/proof.h"
#include "support/link_net.h"

static const uint8_t *key_of(struct link_net *net, unsigned node)
{
    return hw_core_identity(net->nodes[node].core)->key;
}

/* A remote that is written by the test: its messages are injected, what it gets is looked at. */
struct stranger {
    struct link_net *net;
    unsigned node, pair;
    struct link_end *to;   /* the honest end */
    struct link_end *from; /* what is sent to the stranger */
};

/* Its own replication is of another log, and deaf: what it says is all the test's. */
static void stranger_connect(struct link_net *net, unsigned victim, struct stranger *out)
{
    out->net = net;
    out->node = link_net_primary(net, 0);
    out->pair = link_net_connect(net, victim, out->node);
    out->to = &net->pairs[out->pair].ends[0];
    out->from = &net->pairs[out->pair].ends[1];
    out->from->is_deaf = true;
    link_net_run(net);
}

static void say_sync(struct stranger *stranger, uint64_t fork, uint64_t length, bool allows_push)
{
    struct hw_message_sync sync = {.can_upgrade = true,
                                   .is_uploading = true,
                                   .is_downloading = true,
                                   .has_manifest = true,
                                   .allows_push = allows_push,
                                   .fork = fork,
                                   .length = length};
    struct hw_buffer bytes = {0};

    hw_message_sync_encode(&sync, &bytes);
    link_net_inject(stranger->to, HW_MESSAGE_SYNC, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
}

static void say_request(struct stranger *stranger, const struct hw_proof_request *request)
{
    struct hw_buffer bytes = {0};

    hw_proof_request_encode(request, &bytes);
    link_net_inject(stranger->to, HW_MESSAGE_REQUEST, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
}

static void say_range(struct stranger *stranger, uint64_t start, uint64_t length, bool drop)
{
    struct hw_message_range range = {.drop = drop, .start = start, .length = length};
    struct hw_buffer bytes = {0};

    hw_message_range_encode(&range, &bytes);
    link_net_inject(stranger->to, HW_MESSAGE_RANGE, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
}

static void say_want(struct stranger *stranger, uint64_t start, uint64_t length)
{
    struct hw_message_want want = {.start = start, .length = length};
    struct hw_buffer bytes = {0};

    hw_message_want_encode(&want, &bytes);
    link_net_inject(stranger->to, HW_MESSAGE_WANT, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
}

/* The next message to the stranger of this type, and all before it gone; NULL: there is none. */
static struct link_message *next_to(struct stranger *stranger, uint64_t type)
{
    struct link_end *end = stranger->from;

    while (end->first != NULL && end->first->type != type) {
        struct link_message *message = end->first;

        end->first = message->next;
        if (end->first == NULL)
            end->last = NULL;
        end->bytes -= message->payload.size;
        link_net_forget(message);
    }
    return end->first;
}

static unsigned count_to(struct stranger *stranger, uint64_t type)
{
    unsigned count = 0;

    for (struct link_message *at = stranger->from->first; at != NULL; at = at->next)
        count += at->type == type;
    return count;
}

static bool is_open(struct stranger *stranger)
{
    return stranger->net->pairs[stranger->pair].is_open;
}

static void every_request_is_answered_once(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 20);
    struct stranger stranger;

    stranger_connect(net, primary, &stranger);
    for (unsigned id = 1; id <= 200; id++) {
        struct hw_proof_request request = {.id = id, .has_block = true};

        request.block_index = id % 20;
        request.fork = id % 7 == 0; /* another fork than ours */
        say_request(&stranger, &request);
    }
    link_net_run(net);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_DATA), 200 - 28);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_NO_DATA), 28);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_RANGE), 1); /* that of the opening */
}

static void requests_that_nobody_can_answer_end_the_link(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 20);
    struct stranger stranger;

    stranger_connect(net, primary, &stranger);
    for (unsigned id = 1; id <= 200; id++) {
        struct hw_proof_request request = {.id = id, .has_block = true, .block_index = 1000 + id};

        if (id % 3 == 1)
            request = (struct hw_proof_request){
                .id = id, .has_upgrade = true, .upgrade_start = 5, .upgrade_length = UINT64_MAX};
        if (id % 3 == 2)
            request = (struct hw_proof_request){
                .id = id, .has_hash = true, .hash_index = UINT64_MAX, .hash_nodes = id};
        say_request(&stranger, &request);
    }
    link_net_run(net);
    assert_true(is_open(&stranger));
    assert_int_equal(count_to(&stranger, HW_MESSAGE_NO_DATA), 200);
    for (unsigned id = 1; id <= 200; id++)
        say_request(&stranger, &(struct hw_proof_request){
                                   .id = id, .has_block = true, .block_index = 20 + id});
    link_net_run(net);
    assert_false(is_open(&stranger));
    assert_int_equal(net->pairs[stranger.pair].why, HW_EPROTOCOL);
}

static void a_manifest_is_given_whatever_else_was_asked(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 20);
    struct stranger stranger;
    struct link_message *message;
    struct hw_proof proof = {0};

    stranger_connect(net, primary, &stranger);
    say_request(
        &stranger,
        &(struct hw_proof_request){
            .id = 4, .fork = 9, .has_upgrade = true, .upgrade_length = 99, .wants_manifest = true});
    link_net_run(net);
    message = next_to(&stranger, HW_MESSAGE_DATA);
    assert_non_null(message);
    assert_status(hw_proof_decode((struct hw_slice){message->payload.bytes, message->payload.size},
                                  &proof, &net->err),
                  HW_OK, &net->err);
    assert_int_equal(proof.id, 4);
    assert_true(proof.has_manifest && !proof.has_upgrade);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_NO_DATA), 0);
    hw_proof_release(&proof);
}

static void a_flood_of_requests_that_reads_no_answer_ends(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 2000);
    struct stranger stranger;
    unsigned sent = 0;
    bool was_full = false;

    stranger_connect(net, primary, &stranger);
    while (is_open(&stranger) && sent < 100000) {
        say_request(&stranger, &(struct hw_proof_request){.id = sent + 1,
                                                          .has_block = true,
                                                          .block_index = sent % 2000,
                                                          .block_nodes = 4});
        sent++;
        (void)link_net_step(net);
        if (is_open(&stranger)) {
            was_full = was_full || hw_link_is_full(stranger.to->link);
            assert_true(stranger.from->bytes < HW_LINK_OUTPUT_MAX + 1000);
        }
    }
    assert_true(was_full);
    assert_int_equal(net->pairs[stranger.pair].why, HW_ELIMIT);
}

static void waiting_requests_are_answered_when_there_is_room(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 2000);
    struct stranger stranger;
    unsigned sent = 0, answered = 0;
    struct link_message *message;

    stranger_connect(net, primary, &stranger);
    while (!hw_link_is_full(stranger.to->link)) {
        say_request(&stranger, &(struct hw_proof_request){.id = sent + 1,
                                                          .has_block = true,
                                                          .block_index = sent % 2000,
                                                          .block_nodes = 4});
        sent++;
        link_net_run(net);
    }
    link_net_inject(stranger.to, HW_MESSAGE_CANCEL, "\1", 1); /* answered long ago */
    link_net_run(net);
    while ((message = next_to(&stranger, HW_MESSAGE_DATA)) != NULL) {
        answered++;
        stranger.from->first = message->next;
        if (message->next == NULL)
            stranger.from->last = NULL;
        stranger.from->bytes -= message->payload.size;
        link_net_forget(message);
        assert_status(hw_link_drained(stranger.to->link, &net->err), HW_OK, &net->err);
    }
    assert_int_equal(answered, sent);
}

static void say_cancel(struct stranger *stranger, uint64_t id)
{
    struct hw_buffer bytes = {0};

    hw_buffer_add_uint(&bytes, id);
    link_net_inject(stranger->to, HW_MESSAGE_CANCEL, bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
}

/* Requests that wait in the queue of the honest end: `count` of them.  All ids up to the result. */
static unsigned fill_queue(struct stranger *stranger, unsigned count)
{
    struct hw_link_status status = {.unanswered = 0};
    unsigned id = 0;

    while (status.unanswered < count) {
        id++;
        say_request(stranger,
                    &(struct hw_proof_request){
                        .id = id, .has_block = true, .block_index = id % 2000, .block_nodes = 4});
        link_net_run(stranger->net);
        hw_link_status(stranger->to->link, &status);
    }
    return id;
}

/* Each looks for its request among those that wait, which takes its time. */
static void a_flood_of_cancels_of_nothing_ends(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 2000), requests, sent = 0;
    struct stranger stranger;

    stranger_connect(net, primary, &stranger);
    requests = fill_queue(&stranger, 2000);
    while (is_open(&stranger) && sent < 100000) {
        say_cancel(&stranger, 1000000 + sent++);
        (void)link_net_step(net);
    }
    assert_int_equal(net->pairs[stranger.pair].why, HW_EPROTOCOL);
    assert_true(sent < requests + 1000);
}

static void a_flood_of_requests_that_replace_each_other_ends(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 2000), last, sent = 0;
    struct stranger stranger;

    stranger_connect(net, primary, &stranger);
    last = fill_queue(&stranger, 2000);
    while (is_open(&stranger) && sent++ < 100000) {
        say_request(&stranger, &(struct hw_proof_request){.id = last, .has_block = true});
        (void)link_net_step(net);
    }
    assert_int_equal(net->pairs[stranger.pair].why, HW_EPROTOCOL);
    assert_true(sent < 1000);
}

/* Its cancels cross our answers, or find their requests waiting; for as long as it likes. */
static void who_cancels_each_request_once_is_served_for_ever(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 2000), last;
    struct stranger stranger;
    struct hw_link_status status;

    stranger_connect(net, primary, &stranger);
    last = fill_queue(&stranger, 2000);
    for (unsigned id = last - 4000; id <= last; id++) /* all that it can have in flight */
        say_cancel(&stranger, id);
    link_net_run(net);
    hw_link_status(stranger.to->link, &status);
    assert_int_equal(status.unanswered, 0);
    for (unsigned id = last + 1; id < last + 10000; id++) {
        say_request(&stranger, &(struct hw_proof_request){.id = id, .has_block = true});
        say_cancel(&stranger, id);
        link_net_run(net);
    }
    assert_true(is_open(&stranger));
}

static void a_peer_that_reads_nothing_is_not_pushed_to_for_ever(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    unsigned pair = link_net_connect(net, primary, mirror);
    struct stranger stranger;

    link_net_run(net);
    stranger_connect(net, primary, &stranger);
    say_sync(&stranger, 0, 10, true);
    link_net_run(net);
    for (unsigned i = 0; i < 300; i++) {
        link_net_append(net, primary, 50);
        link_net_run(net);
        assert_true(stranger.from->bytes < HW_LINK_OUTPUT_MAX + 1000);
    }
    link_net_check(net, mirror, primary, 0);
    assert_true(net->pairs[pair].is_open);
}

static void what_a_peer_says_it_has_costs_little(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    struct stranger stranger;
    static uint8_t bitfield[5000];

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    stranger_connect(net, mirror, &stranger);
    say_range(&stranger, 0, UINT64_MAX, false);
    say_range(&stranger, UINT64_MAX, UINT64_MAX, false);
    say_range(&stranger, HW_TREE_LENGTH_MAX - 1, UINT64_MAX, true);
    say_range(&stranger, 5, UINT64_MAX, true);
    say_range(&stranger, 77, 1, false);
    say_range(&stranger, 1, UINT64_MAX, false);
    for (uint64_t i = 0; i < 3000; i++)
        say_range(&stranger, i * 32768 + 17, 3, i % 3 == 0);
    memset(bitfield, 0x5a, sizeof(bitfield));
    for (unsigned i = 0; i < 100; i++) {
        struct hw_buffer bytes = {0};

        hw_buffer_add_uint(&bytes, i % 2 == 0 ? UINT64_MAX - 31 * i : (uint64_t)i << (i % 50));
        hw_buffer_add_uint(&bytes, 1000);
        hw_buffer_add(&bytes, bitfield, 4000);
        link_net_inject(stranger.to, HW_MESSAGE_BITFIELD, bytes.bytes, bytes.size);
        hw_buffer_release(&bytes);
    }
    say_sync(&stranger, 0, HW_TREE_LENGTH_MAX, false);
    for (unsigned i = 0; i < 50; i++)
        say_want(&stranger, (uint64_t)i << i, UINT64_C(1) << (i % 22));
    link_net_run(net);
    assert_true(is_open(&stranger));
    /* Asked for the upgrade that it claims to have, it gave none: others are not hurt. */
    link_net_append(net, primary, 3);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    say_sync(&stranger, 0, HW_TREE_LENGTH_MAX + 1, false);
    link_net_run(net);
    assert_int_equal(net->pairs[stranger.pair].why, HW_EPROTOCOL);
}

/* No stranger at all: a primary that commits all the time, and gives up what is a week old. */
static void blocks_of_a_very_long_log_that_was_pruned_can_be_had(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), UINT64_MAX);
    struct hw_replication *replication = net->nodes[mirror].replication;
    const uint64_t length = UINT64_C(3) * HW_LINK_BITS_MAX, kept = length - 60000;
    struct stranger stranger;

    stranger_connect(net, mirror, &stranger);
    say_sync(&stranger, 0, length, false);
    say_range(&stranger, 0, 2, false);
    say_range(&stranger, kept, length - kept, false);
    link_net_run(net);
    assert_int_equal(hw_replication_availability(replication, kept), HW_BLOCK_COMING);
    assert_int_equal(hw_replication_availability(replication, length - 1), HW_BLOCK_COMING);
    assert_int_equal(hw_replication_availability(replication, kept - 1), HW_BLOCK_NOBODY);
    say_sync(&stranger, 0, length + 3, false);
    say_range(&stranger, length, 3, false);
    say_range(&stranger, 2, kept + 100 - 2, true);
    link_net_run(net);
    assert_int_equal(hw_replication_availability(replication, kept), HW_BLOCK_NOBODY);
    assert_int_equal(hw_replication_availability(replication, kept + 100), HW_BLOCK_COMING);
    assert_int_equal(hw_replication_availability(replication, length + 2), HW_BLOCK_COMING);
    assert_true(is_open(&stranger));
}

static void an_upgrade_that_never_comes_is_asked_of_another(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), UINT64_MAX);
    struct stranger stranger;

    stranger_connect(net, mirror, &stranger);
    say_sync(&stranger, 0, 1 << 20, false);
    link_net_run(net);
    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    assert_int_equal(hw_core_length(net->nodes[mirror].core), 0);
    for (unsigned s = 0; s < 12; s++) {
        link_net_advance(net, 1000);
        link_net_run(net);
    }
    link_net_check(net, mirror, primary, 10);
}

/* As a JavaScript reader is: then all has to be asked for. */
static bool forbid_push(void *ctx, struct link_end *to, struct link_message *message)
{
    (void)ctx;
    (void)to;
    if (message->type == HW_MESSAGE_SYNC)
        message->payload.bytes[0] &= 0x0f;
    return true;
}

/* Each request that lies in the queue to it is answered so.  How many there are. */
static unsigned refuse_all(struct stranger *stranger)
{
    unsigned count = 0;

    for (struct link_message *at = stranger->from->first; at != NULL; at = at->next) {
        struct hw_slice payload = {at->payload.bytes, at->payload.size};
        struct hw_proof_request request;
        struct hw_buffer bytes = {0};

        if (at->type != HW_MESSAGE_REQUEST)
            continue;
        count++;
        assert_status(hw_proof_request_decode(payload, &request, &stranger->net->err), HW_OK,
                      &stranger->net->err);
        hw_message_no_data_encode(&(struct hw_message_no_data){.request = request.id}, &bytes);
        link_net_inject(stranger->to, HW_MESSAGE_NO_DATA, bytes.bytes, bytes.size);
        hw_buffer_release(&bytes);
    }
    return count;
}

/* It would not prove its length; adopted, it has the same length under another fork. */
static void what_was_refused_of_one_fork_is_asked_of_the_next(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10), count;
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    struct stranger stranger;

    stranger_connect(net, mirror, &stranger);
    say_sync(&stranger, 0, 20, false);
    link_net_run(net);
    count = refuse_all(&stranger);
    assert_true(count > 0);
    link_net_run(net);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_REQUEST), count);
    say_sync(&stranger, 1, 20, false);
    link_net_run(net);
    assert_int_equal(count_to(&stranger, HW_MESSAGE_REQUEST), count + 1);
}

/* The first request is lost, and later a cancel of it comes. */
static bool lose_one(void *ctx, struct link_end *to, struct link_message *message)
{
    bool *is_lost = ctx;

    (void)forbid_push(NULL, to, message);
    if (message->type != HW_MESSAGE_REQUEST || *is_lost)
        return true;
    *is_lost = true;
    return false;
}

static void an_upgrade_that_never_comes_is_asked_again_when_the_other_goes_away(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    unsigned pairs[2], asked[2], first;
    bool is_lost = true;

    net->look = lose_one;
    net->ctx = &is_lost;
    for (unsigned i = 0; i < 2; i++)
        pairs[i] = link_net_connect(net, primary, mirror);
    link_net_run(net);
    is_lost = false;
    for (unsigned i = 0; i < 2; i++) {
        net->pairs[pairs[i]].ends[0].is_deaf = true;
        asked[i] = net->pairs[pairs[i]].ends[0].counts[HW_MESSAGE_REQUEST];
    }
    link_net_append(net, primary, 1);
    link_net_run(net);
    first = net->pairs[pairs[0]].ends[0].first != NULL ? 0 : 1;
    net->pairs[pairs[first]].ends[0].is_deaf = false;
    link_net_run(net);
    assert_true(is_lost);
    link_net_advance(net, 3000);
    link_net_run(net);
    assert_int_equal(net->pairs[pairs[first]].ends[0].counts[HW_MESSAGE_REQUEST], asked[first]);
    assert_int_equal(net->pairs[pairs[first]].ends[0].counts[HW_MESSAGE_CANCEL], 1);
    assert_non_null(net->pairs[pairs[1 - first]].ends[0].first);
    link_net_cut(net, pairs[1 - first]);
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    net->look = NULL;
}

static void a_fork_that_is_only_claimed_holds_up_nobody(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    struct stranger stranger;

    net->look = forbid_push;
    stranger_connect(net, mirror, &stranger);
    say_sync(&stranger, 99, 1000, false);
    link_net_run(net);
    (void)link_net_connect(net, primary, mirror);
    for (unsigned i = 0; i < 20; i++) {
        link_net_run(net);
        link_net_check(net, mirror, primary, 0);
        link_net_append(net, primary, 3);
        link_net_advance(net, 1000);
    }
    link_net_run(net);
    link_net_check(net, mirror, primary, 0);
    net->look = NULL;
}

static void wants_of_everything_wait_for_room(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 300);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 250);
    struct stranger stranger;

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    stranger_connect(net, mirror, &stranger);
    for (unsigned i = 0; i < 60000 && is_open(&stranger); i++) {
        say_want(&stranger, 0, 1 << 21);
        (void)link_net_step(net);
        assert_true(stranger.from->bytes < HW_LINK_OUTPUT_MAX + 10000);
    }
    assert_int_equal(net->pairs[stranger.pair].why, HW_ELIMIT);
}

static void answers_to_nothing_end_the_link(void **state)
{
    struct link_net *net = *state;
    unsigned primary = link_net_primary(net, 10);
    unsigned mirror = link_net_mirror(net, key_of(net, primary), 0);
    struct stranger stranger;
    struct hw_proof_request request = {
        .has_block = true, .block_index = 3, .block_nodes = 3, .id = 77777};
    struct hw_proof proof = {0};
    struct hw_buffer bytes = {0};

    (void)link_net_connect(net, primary, mirror);
    link_net_run(net);
    assert_status(hw_core_prove(net->nodes[primary].core, &request, &proof, &net->err), HW_OK,
                  &net->err);
    hw_proof_encode(&proof, &bytes);
    stranger_connect(net, mirror, &stranger);
    say_sync(&stranger, 0, 10, false);
    for (unsigned i = 0; i < 3000; i++)
        link_net_inject(stranger.to, HW_MESSAGE_DATA, bytes.bytes, bytes.size);
    link_net_run(net);
    assert_int_equal(net->pairs[stranger.pair].why, HW_EPROTOCOL);
    hw_buffer_release(&bytes);
    hw_proof_release(&proof);
}

/* Whatever bytes come, in whatever order: the mirror goes on with the honest one. */
static void noise_hurts_nobody(void **state)
{
    struct link_net *net = *state;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        unsigned primary, mirror;
        struct stranger stranger;

        link_net_reset(net, seed);
        primary = link_net_primary(net, 30);
        mirror = link_net_mirror(net, key_of(net, primary), 0);
        (void)link_net_connect(net, primary, mirror);
        for (unsigned i = 0; i < 200; i++) {
            uint8_t bytes[24];
            size_t size = link_net_chance(net, sizeof(bytes));

            if (i == 0 || !is_open(&stranger))
                stranger_connect(net, mirror, &stranger);
            for (size_t j = 0; j < size; j++)
                bytes[j] = (uint8_t)link_net_chance(net, j < 2 ? 32 : 12);
            link_net_inject(stranger.to, (enum hw_message_type)link_net_chance(net, 10), bytes,
                            size);
            if (i % 20 == 0)
                link_net_append(net, primary, 1);
            link_net_run(net);
            if (net->node_count > 50) /* each stranger takes a node */
                break;
        }
        for (unsigned s = 0; s < 12; s++) {
            link_net_advance(net, 1000);
            link_net_run(net);
        }
        link_net_check(net, mirror, primary, 0);
    }
}

#define net_test(name) cmocka_unit_test_setup_teardown(name, link_net_setup, link_net_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        net_test(every_request_is_answered_once),
        net_test(requests_that_nobody_can_answer_end_the_link),
        net_test(a_manifest_is_given_whatever_else_was_asked),
        net_test(a_flood_of_requests_that_reads_no_answer_ends),
        net_test(waiting_requests_are_answered_when_there_is_room),
        net_test(a_flood_of_cancels_of_nothing_ends),
        net_test(a_flood_of_requests_that_replace_each_other_ends),
        net_test(who_cancels_each_request_once_is_served_for_ever),
        net_test(a_peer_that_reads_nothing_is_not_pushed_to_for_ever),
        net_test(what_a_peer_says_it_has_costs_little),
        net_test(blocks_of_a_very_long_log_that_was_pruned_can_be_had),
        net_test(an_upgrade_that_never_comes_is_asked_of_another),
        net_test(what_was_refused_of_one_fork_is_asked_of_the_next),
        net_test(an_upgrade_that_never_comes_is_asked_again_when_the_other_goes_away),
        net_test(a_fork_that_is_only_claimed_holds_up_nobody),
        net_test(wants_of_everything_wait_for_room),
        net_test(answers_to_nothing_end_the_link),
        net_test(noise_hurts_nobody),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/replication_hostile", tests, NULL, NULL);
}
