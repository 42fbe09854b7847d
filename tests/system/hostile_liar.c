/* Implements system/hostile_liar.h. */
#include "system/hostile_liar.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"

enum { PAIRS_MAX = 64, HUGE_BLOCK = 12 << 20, ENDLESS_LENGTH = 1 << 30 };

enum { TO_CORE, TO_BASE };

/* What the follower said before the real server had opened: each with its payload behind it. */
struct waiting {
    unsigned to;
    uint64_t type;
    size_t size;
};

struct lie {
    const char *name;
    bool (*tell)(struct hw_proof *proof); /* false: nothing that it could alter */
};

struct pair {
    struct wire follower, server; /* user: the pair */
    const struct target *target;
    const struct lie *lie;
    unsigned after, passed;
    struct hw_buffer waiting;
    bool wants_core, wants_base; /* the follower opened it; not yet opened at the server */
};

/* ----------------------------------------------------------------------------------- lies */

static bool nodes_lie(struct hw_nodes *nodes)
{
    if (hw_nodes_count(nodes) == 0)
        return false;
    ((struct hw_node *)(void *)nodes->buffer.bytes)->hash[5] ^= 1;
    return true;
}

static bool lie_block(struct hw_proof *proof)
{
    if (!proof->has_block || proof->block.size == 0)
        return false;
    proof->block.bytes[any_below(proof->block.size)] ^= 1;
    return true;
}

static bool lie_empty_block(struct hw_proof *proof)
{
    bool can = proof->has_block && proof->block.size > 0;

    hw_buffer_clear(&proof->block);
    return can;
}

static bool lie_huge_block(struct hw_proof *proof)
{
    uint8_t *more = proof->has_block ? hw_buffer_extend(&proof->block, HUGE_BLOCK) : NULL;

    if (more != NULL)
        memset(more, 0, HUGE_BLOCK);
    return more != NULL;
}

static bool lie_index(struct hw_proof *proof)
{
    proof->block_index++;
    return proof->has_block;
}

static bool lie_nodes(struct hw_proof *proof)
{
    return nodes_lie(&proof->target_nodes) || nodes_lie(&proof->upgrade_nodes);
}

static bool lie_signature(struct hw_proof *proof)
{
    if (!proof->has_upgrade || proof->signature.size == 0)
        return false;
    proof->signature.bytes[proof->signature.size - 3] ^= 1;
    return true;
}

static bool lie_length(struct hw_proof *proof)
{
    proof->upgrade_length++;
    return proof->has_upgrade;
}

static bool lie_manifest(struct hw_proof *proof)
{
    if (!proof->has_manifest || proof->manifest.size == 0)
        return false;
    proof->manifest.bytes[proof->manifest.size - 1] ^= 1; /* of the signer's key */
    return true;
}

static const struct lie lies[] = {
    {"block", lie_block},
    {"empty-block", lie_empty_block},
    {"huge-block", lie_huge_block},
    {"index", lie_index},
    {"nodes", lie_nodes},
    {"signature", lie_signature},
    {"length", lie_length},
    {"manifest", lie_manifest},
    {"silence", NULL},
    {"endless", NULL},
    {"fork", NULL},
};

static bool is_lie(const struct pair *pair, const char *name)
{
    return strcmp(pair->lie->name, name) == 0;
}

void lies_list(void)
{
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
        (void)printf("lie %s\n", lies[i].name);
}

/* ------------------------------------------------------------------------- passing it on */

static void pass(struct hw_channel *channel, uint64_t type, struct hw_slice payload)
{
    if (channel != NULL && hw_channel_send(channel, type, payload, NULL) != HW_OK)
        abort();
}

/* The follower speaks: to the real server, as soon as that listens. */
static void from_follower(struct wire *wire, struct hw_channel *channel, uint64_t type,
                          struct hw_slice payload)
{
    struct pair *pair = wire->user;
    struct waiting waiting = {TO_CORE, type, payload.size};
    struct hw_channel *out = pair->server.core;

    if (channel == wire->base) {
        waiting.to = TO_BASE;
        out = pair->server.base;
    } else if (channel != wire->core) {
        return;
    }
    if (out != NULL) {
        pass(out, type, payload);
        return;
    }
    hw_buffer_add(&pair->waiting, &waiting, sizeof(waiting));
    hw_buffer_add(&pair->waiting, payload.bytes, payload.size);
}

static void send_waiting(struct pair *pair, struct hw_channel *channel, unsigned to)
{
    struct hw_buffer kept = {0};
    struct hw_cursor cursor = hw_cursor(pair->waiting.bytes, pair->waiting.size);

    while (hw_cursor_left(&cursor) > 0) {
        struct waiting waiting;
        const uint8_t *payload;

        memcpy(&waiting, hw_cursor_bytes(&cursor, sizeof(waiting)), sizeof(waiting));
        payload = hw_cursor_bytes(&cursor, waiting.size);
        if (waiting.to == to) {
            pass(channel, waiting.type, (struct hw_slice){payload, waiting.size});
        } else {
            hw_buffer_add(&kept, &waiting, sizeof(waiting));
            hw_buffer_add(&kept, payload, waiting.size);
        }
    }
    hw_buffer_release(&pair->waiting);
    pair->waiting = kept;
}

static void server_opened(struct wire *wire, struct hw_channel *channel)
{
    struct pair *pair = wire->user;

    if (channel == wire->core)
        send_waiting(pair, channel, TO_CORE);
    else if (channel == wire->base)
        send_waiting(pair, channel, TO_BASE);
}

/* Data on its way, altered. */
static void pass_data(struct pair *pair, struct hw_slice payload)
{
    struct hw_proof proof = {0};
    struct hw_buffer altered = {0};

    if (hw_proof_decode(payload, &proof, NULL) == HW_OK && pair->passed >= pair->after &&
        pair->lie->tell != NULL && pair->lie->tell(&proof)) {
        hw_proof_encode(&proof, &altered);
        pass(pair->follower.core, HW_MESSAGE_DATA, (struct hw_slice){altered.bytes, altered.size});
    } else if (!is_lie(pair, "silence") || pair->passed < pair->after) {
        pass(pair->follower.core, HW_MESSAGE_DATA, payload);
    }
    pair->passed++;
    hw_proof_release(&proof);
    hw_buffer_release(&altered);
}

/* It has a log that is longer than any, or a newer fork of it. */
static void pass_sync(struct pair *pair, struct hw_slice payload)
{
    struct hw_message_sync sync;
    struct hw_buffer altered = {0};

    if (hw_message_sync_decode(payload, &sync, NULL) != HW_OK)
        return;
    if (is_lie(pair, "endless"))
        sync.length += ENDLESS_LENGTH;
    if (is_lie(pair, "fork"))
        sync.fork += 7;
    hw_message_sync_encode(&sync, &altered);
    pass(pair->follower.core, HW_MESSAGE_SYNC, (struct hw_slice){altered.bytes, altered.size});
    hw_buffer_release(&altered);
}

static void from_server(struct wire *wire, struct hw_channel *channel, uint64_t type,
                        struct hw_slice payload)
{
    struct pair *pair = wire->user;

    if (pair->follower.fd < 0)
        return;
    if (channel == wire->base)
        pass(pair->follower.base, type, payload);
    else if (type == HW_MESSAGE_DATA)
        pass_data(pair, payload);
    else if (type == HW_MESSAGE_SYNC)
        pass_sync(pair, payload);
    else
        pass(pair->follower.core, type, payload);
}

/* What the follower opens is opened on both sides; its log's hyperwal channel is refused. */
static void follower_asked(struct wire *wire, struct hw_slice protocol, struct hw_slice id)
{
    struct pair *pair = wire->user;

    if (protocol.size != strlen(HW_HYPERWAL_PROTOCOL)) {
        pair->wants_core = wire_open_core(wire, pair->target->key, false);
    } else if (id.size == 0) {
        pair->wants_base = wire_open_hyperwal(wire, NULL);
    }
}

/* ----------------------------------------------------------------------------------- life */

static bool pair_begin(struct pair *pair, int fd)
{
    struct wire_host follower = {.asked = follower_asked, .message = from_follower};
    struct wire_host server = {.opened = server_opened, .message = from_server};

    if (!wire_take(&pair->follower, fd, &follower))
        return false;
    if (!wire_dial(&pair->server, pair->target, &server)) {
        wire_close(&pair->follower, false);
        return false;
    }
    pair->follower.user = pair->server.user = pair;
    pair->passed = 0;
    pair->wants_core = pair->wants_base = false;
    return true;
}

static void pair_lead(struct pair *pair)
{
    if (pair->server.fd < 0 && pair->follower.fd >= 0)
        wire_close(&pair->follower, false);
    if (pair->follower.fd < 0) {
        wire_close(&pair->server, false);
        hw_buffer_release(&pair->waiting);
        return;
    }
    if (!wire_is_open(&pair->server))
        return;
    if (pair->wants_core)
        (void)wire_open_core(&pair->server, pair->target->key, false);
    if (pair->wants_base)
        (void)wire_open_hyperwal(&pair->server, NULL);
    pair->wants_core = pair->wants_base = false;
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 16) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return -1;
    (void)printf("{\"port\":%u}\n", (unsigned)ntohs(address.sin_port));
    (void)fflush(stdout);
    return fd;
}

static void accept_one(int listener, struct pair *pairs)
{
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        return;
    for (unsigned i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].follower.fd >= 0)
            continue;
        (void)pair_begin(&pairs[i], fd);
        return;
    }
    close(fd);
}

static void pairs_run(int listener, struct pair *pairs)
{
    struct pollfd polls[1 + 2 * PAIRS_MAX];

    for (;;) {
        polls[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (unsigned i = 0; i < 2 * PAIRS_MAX; i++) {
            struct wire *wire = i % 2 == 0 ? &pairs[i / 2].follower : &pairs[i / 2].server;

            polls[1 + i] = (struct pollfd){.fd = wire->fd, .events = wire_events(wire)};
        }
        if (poll(polls, 1 + 2 * PAIRS_MAX, -1) < 0)
            return;
        for (unsigned i = 0; i < 2 * PAIRS_MAX; i++) {
            struct wire *wire = i % 2 == 0 ? &pairs[i / 2].follower : &pairs[i / 2].server;

            if (wire->fd >= 0 && polls[1 + i].revents != 0)
                wire_move(wire, polls[1 + i].revents);
        }
        for (unsigned i = 0; i < PAIRS_MAX; i++)
            pair_lead(&pairs[i]);
        if (polls[0].revents != 0)
            accept_one(listener, pairs);
    }
}

int lie(const struct target *target, const char *how, unsigned after)
{
    static struct pair pairs[PAIRS_MAX];
    const struct lie *chosen = NULL;
    int listener = listen_somewhere();

    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++)
        if (strcmp(lies[i].name, how) == 0)
            chosen = &lies[i];
    if (chosen == NULL || listener < 0)
        return 1;
    for (unsigned i = 0; i < PAIRS_MAX; i++) {
        pairs[i].follower.fd = pairs[i].server.fd = -1;
        pairs[i].target = target;
        pairs[i].lie = chosen;
        pairs[i].after = after;
    }
    pairs_run(listener, pairs);
    return 1;
}
