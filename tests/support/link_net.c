/* Implements support/link_net.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror.h"
#include "support/link_net.h"

enum { STEPS_MAX = 2000000 };

uint64_t link_net_chance(struct link_net *net, uint64_t bound)
{
    net->chance ^= net->chance << 13; /* xorshift64: Marsaglia 2003 */
    net->chance ^= net->chance >> 7;
    net->chance ^= net->chance << 17;
    return net->chance % bound;
}

/* ------------------------------------------------------------------------------------ pipes */

void link_net_forget(struct link_message *message)
{
    hw_buffer_release(&message->payload);
    free(message);
}

static void drop_queue(struct link_end *end)
{
    while (end->first != NULL) {
        struct link_message *message = end->first;

        end->first = message->next;
        link_net_forget(message);
    }
    end->last = NULL;
    end->bytes = 0;
}

void link_net_inject(struct link_end *end, enum hw_message_type type, const void *bytes,
                     size_t size)
{
    struct link_message *message = calloc(1, sizeof(*message));

    if (message == NULL)
        abort();
    message->type = type;
    hw_buffer_add(&message->payload, bytes, size);
    if (end->last == NULL)
        end->first = message;
    else
        end->last->next = message;
    end->last = message;
    end->bytes += size;
}

static struct link_end *other_end(struct link_end *end)
{
    return &end->net->pairs[end->pair].ends[1 - end->side];
}

static enum hw_status sink_send(void *ctx, enum hw_message_type type, struct hw_slice head,
                                struct hw_slice body, struct hw_error *err)
{
    struct link_end *to = other_end(ctx);
    struct hw_buffer whole = {0};

    (void)err;
    hw_buffer_add(&whole, head.bytes, head.size);
    if (body.size > 0)
        hw_buffer_add(&whole, body.bytes, body.size);
    link_net_inject(to, type, whole.bytes, whole.size);
    hw_buffer_release(&whole);
    return HW_OK;
}

static size_t sink_queued(void *ctx)
{
    return other_end(ctx)->bytes;
}

/* ------------------------------------------------------------------------------------ nodes */

static void on_arrived(void *ctx, uint64_t block)
{
    struct link_node *node = ctx;

    (void)block;
    node->arrived++;
}

static void on_upgraded(void *ctx, uint64_t length)
{
    struct link_node *node = ctx;

    node->upgraded++;
    node->last_length = length;
}

static void on_broken(void *ctx, const struct hw_error *err)
{
    struct link_node *node = ctx;

    (void)err;
    node->broken++;
}

static void on_overtaken(void *ctx, const struct hw_link *link, uint64_t fork, uint64_t length)
{
    struct link_node *node = ctx;

    (void)link;
    node->overtaken++;
    node->shown_fork = fork;
    node->shown_length = length;
}

unsigned link_net_add(struct link_net *net, struct hw_core *core, bool fetches)
{
    struct link_node *node = &net->nodes[net->node_count];
    struct hw_replication_options options = {
        .env = sim_env(net->sim),
        .core = core,
        .fetches = fetches,
        .arrived = on_arrived,
        .upgraded = on_upgraded,
        .broken = on_broken,
        .overtaken = hw_core_is_mirror(core) ? NULL : on_overtaken,
        .ctx = node,
    };

    assert_true(net->node_count < LINK_NET_NODES);
    *node = (struct link_node){.net = net, .core = core};
    assert_status(hw_replication_new(&options, &node->replication, &net->err), HW_OK, &net->err);
    return net->node_count++;
}

unsigned link_net_primary(struct link_net *net, unsigned blocks)
{
    struct hw_core *core = NULL;

    assert_status(hw_core_create(sim_env(net->sim), NULL, &core, &net->err), HW_OK, &net->err);
    if (blocks > 0)
        assert_status(core_log_append(core, blocks, "n", &net->err), HW_OK, &net->err);
    return link_net_add(net, core, false);
}

unsigned link_net_mirror(struct link_net *net, const uint8_t key[HW_KEY_SIZE], uint64_t tail)
{
    struct hw_core *core = NULL;
    unsigned node;

    assert_status(hw_core_create_mirror(sim_env(net->sim), NULL, key, &core, &net->err), HW_OK,
                  &net->err);
    node = link_net_add(net, core, true);
    hw_replication_want_tail(net->nodes[node].replication, tail);
    return node;
}

void link_net_append(struct link_net *net, unsigned node, unsigned count)
{
    assert_status(core_log_append(net->nodes[node].core, count, "n", &net->err), HW_OK, &net->err);
    hw_replication_grown(net->nodes[node].replication);
}

/* ------------------------------------------------------------------------------------ pairs */

unsigned link_net_connect(struct link_net *net, unsigned a, unsigned b)
{
    unsigned index = 0;
    struct link_pair *pair;

    while (index < net->pair_count && net->pairs[index].is_open)
        index++;
    assert_true(index < LINK_NET_PAIRS);
    if (index == net->pair_count)
        net->pair_count++;
    pair = &net->pairs[index];
    *pair = (struct link_pair){.is_open = true};
    for (unsigned side = 0; side < 2; side++)
        pair->ends[side] =
            (struct link_end){.net = net, .node = side == 0 ? a : b, .pair = index, .side = side};
    for (unsigned side = 0; side < 2; side++) {
        struct link_end *end = &pair->ends[side];
        struct hw_link_sink sink = {.ctx = end, .send = sink_send, .queued = sink_queued};

        assert_status(hw_link_open(net->nodes[end->node].replication, &sink, &end->link, &net->err),
                      HW_OK, &net->err);
    }
    return index;
}

void link_net_cut(struct link_net *net, unsigned index)
{
    struct link_pair *pair = &net->pairs[index];

    if (!pair->is_open)
        return;
    pair->is_open = false;
    for (unsigned side = 0; side < 2; side++) {
        hw_link_close(pair->ends[side].link);
        pair->ends[side].link = NULL;
    }
    drop_queue(&pair->ends[0]);
    drop_queue(&pair->ends[1]);
}

static void cut_for(struct link_net *net, unsigned index, enum hw_status why)
{
    net->pairs[index].why = why;
    link_net_cut(net, index);
}

/* Any of those to which something can be delivered, with the same chance. */
static struct link_end *pick(struct link_net *net)
{
    struct link_end *found = NULL;
    unsigned count = 0;

    for (unsigned i = 0; i < 2 * net->pair_count; i++) {
        struct link_end *end = &net->pairs[i / 2].ends[i % 2];

        if (!net->pairs[i / 2].is_open || end->first == NULL || end->is_deaf)
            continue;
        if (link_net_chance(net, ++count) == 0)
            found = end;
    }
    return found;
}

static enum hw_status deliver(struct link_net *net, struct link_end *end,
                              struct link_message *message)
{
    struct link_end *sender = other_end(end);
    bool was_full = end->bytes > HW_LINK_OUTPUT_MAX;
    enum hw_status status = HW_OK;

    end->bytes -= message->payload.size;
    if (net->look == NULL || net->look(net->ctx, end, message)) {
        end->counts[message->type & 15]++;
        status = hw_link_receive(end->link, message->type,
                                 (struct hw_slice){message->payload.bytes, message->payload.size},
                                 &net->err);
    }
    if (status == HW_OK && was_full && end->bytes <= HW_LINK_OUTPUT_MAX)
        status = hw_link_drained(sender->link, &net->err);
    return status;
}

bool link_net_step(struct link_net *net)
{
    struct link_end *end = pick(net);
    struct link_message *message;
    enum hw_status status;

    if (end == NULL)
        return false;
    message = end->first;
    end->first = message->next;
    if (end->first == NULL)
        end->last = NULL;
    net->delivered++;
    status = deliver(net, end, message);
    link_net_forget(message);
    if (status != HW_OK)
        cut_for(net, end->pair, status);
    return true;
}

void link_net_tick(struct link_net *net)
{
    struct hw_env *env = sim_env(net->sim);

    for (unsigned i = 0; i < net->node_count; i++) {
        struct hw_link *dropped = NULL;
        uint64_t deadline_ns;

        while (hw_replication_tick(net->nodes[i].replication, env->ops->monotonic_ns(env), &dropped,
                                   &deadline_ns, &net->err) == HW_OK) {
            for (unsigned p = 0; p < net->pair_count; p++) {
                if (net->pairs[p].is_open && (net->pairs[p].ends[0].link == dropped ||
                                              net->pairs[p].ends[1].link == dropped))
                    cut_for(net, p, net->err.status);
            }
        }
    }
}

void link_net_run(struct link_net *net)
{
    uint64_t before;
    unsigned steps = 0;

    do {
        before = net->delivered;
        while (link_net_step(net)) {
            assert_true(++steps < STEPS_MAX);
            if (link_net_chance(net, 8) == 0)
                link_net_tick(net);
        }
        link_net_tick(net);
    } while (net->delivered != before || pick(net) != NULL);
}

void link_net_advance(struct link_net *net, uint64_t ms)
{
    sim_advance(net->sim, ms * 1000000);
    link_net_tick(net);
}

/* -------------------------------------------------------------------------------------- net */

void link_net_reset(struct link_net *net, uint64_t seed)
{
    for (unsigned i = 0; i < net->pair_count; i++)
        link_net_cut(net, i);
    for (unsigned i = 0; i < net->node_count; i++) {
        hw_replication_free(net->nodes[i].replication);
        hw_core_close(net->nodes[i].core);
    }
    net->node_count = net->pair_count = 0;
    net->delivered = 0;
    net->look = NULL;
    net->seed = seed;
    net->chance = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    sim_reset(net->sim, seed);
}

int link_net_setup(void **state)
{
    struct link_net *net = calloc(1, sizeof(*net));

    if (net == NULL)
        return 1;
    net->sim = sim_new(1);
    link_net_reset(net, 1);
    *state = net;
    return 0;
}

int link_net_teardown(void **state)
{
    struct link_net *net = *state;

    link_net_reset(net, 1);
    sim_free(net->sim);
    free(net);
    return 0;
}

void link_net_check(struct link_net *net, unsigned node, unsigned primary, uint64_t start)
{
    struct hw_core_head want = hw_core_head(net->nodes[primary].core);
    struct hw_core_head got = hw_core_head(net->nodes[node].core);

    if (got.length != want.length)
        print_error("seed %llu: node %u\n", (unsigned long long)net->seed, node);
    assert_int_equal(got.length, want.length);
    assert_int_equal(got.fork, want.fork);
    assert_int_equal(got.byte_length, want.byte_length);
    assert_memory_equal(got.tree_hash, want.tree_hash, HW_KEY_SIZE);
    for (uint64_t i = start; i < want.length; i++) {
        struct hw_buffer one = {0}, other = {0};

        if (!hw_core_has(net->nodes[node].core, i))
            print_error("seed %llu: node %u lacks block %llu\n", (unsigned long long)net->seed,
                        node, (unsigned long long)i);
        assert_status(hw_core_read(net->nodes[primary].core, i, &one, &net->err), HW_OK, &net->err);
        assert_status(hw_core_read(net->nodes[node].core, i, &other, &net->err), HW_OK, &net->err);
        assert_int_equal(one.size, other.size);
        if (one.size > 0)
            assert_memory_equal(one.bytes, other.bytes, one.size);
        hw_buffer_release(&one);
        hw_buffer_release(&other);
    }
}

/* ------------------------------------------------------------------------ second histories */

struct copy {
    struct link_net *net;
    const char *from, *to;
};

static bool copy_file(void *ctx, const char *name)
{
    struct copy *copy = ctx;
    char from[64], to[64];
    const uint8_t *bytes;
    uint8_t *own;
    size_t size;

    (void)snprintf(from, sizeof(from), "%s/%s", copy->from, name);
    (void)snprintf(to, sizeof(to), "%s/%s", copy->to, name);
    bytes = sim_file_bytes(copy->net->sim, from, &size);
    own = test_malloc(size + 1);
    memcpy(own, bytes, size);
    if (hw_env_replace_file(sim_env(copy->net->sim), to, own, size, HW_OPEN_PRIVATE,
                            &copy->net->err) != HW_OK)
        copy->net->err.status = HW_EIO; /* what opens the copy fails */
    test_free(own);
    return true;
}

void link_net_copy_log(struct link_net *net, const char *from, const char *to)
{
    struct hw_env *env = sim_env(net->sim);
    struct copy copy = {net, from, to};

    assert_status(env->ops->make_dir(env, to, &net->err), HW_OK, &net->err);
    assert_status(env->ops->list(env, from, copy_file, &copy, &net->err), HW_OK, &net->err);
}

void link_net_append_other(struct link_net *net, struct hw_core *core, unsigned count)
{
    assert_status(hw_core_batch_begin(core, &net->err), HW_OK, &net->err);
    for (unsigned i = 0; i < count; i++)
        assert_status(hw_core_batch_add(core, "other", 1 + i % 5, &net->err), HW_OK, &net->err);
    assert_status(hw_core_batch_commit(core, "", 0, &net->err), HW_OK, &net->err);
}
