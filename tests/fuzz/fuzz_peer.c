/*
 * A whole connection.  The first byte chooses: an even one, and the rest are bytes of a stranger;
 * an odd one, and they are frames (size u16, bytes) of a remote that has shaken hands and opened
 *
 *     1  hyperwal/1 of the connection      2  a log that we serve       3  hyperwal/1 of that log
 *     4  a log that we mirror
 *
 * It never takes what we say, so that the limit of the output is met, too.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "hypercore/manifest.h"
#include "hypercore/mirror.h"
#include "wire/mux.h"
#include "wire/peer.h"
#include "wire/stream.h"

static struct hw_env_ops ops; /* the system's, but chance and time are always the same */
static struct hw_env *env;
static uint64_t chance;
static struct hw_core *log_core, *mirror_core;

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void fixed_random(struct hw_env *self, void *buf, size_t size)
{
    uint8_t *bytes = buf;

    (void)self;
    for (size_t i = 0; i < size; i++) {
        chance = chance * 6364136223846793005U + 1442695040888963407U;
        bytes[i] = (uint8_t)(chance >> 33);
    }
}

static uint64_t fixed_time(struct hw_env *self)
{
    (void)self;
    return 1000000;
}

/* What lives as long as the process: a log of a few blocks, and the mirror of another. */
static void begin(void)
{
    static struct hw_env fixed;
    uint8_t key[HW_KEY_SIZE] = {7};

    chance = 1;
    if (env != NULL)
        return;
    ops = *hw_env_posix()->ops;
    ops.random = fixed_random;
    ops.monotonic_ns = fixed_time;
    fixed.ops = &ops;
    env = &fixed;
    check(hw_core_create(env, NULL, &log_core, NULL) == HW_OK);
    check(hw_core_batch_begin(log_core, NULL) == HW_OK);
    for (unsigned i = 0; i < 20; i++)
        check(hw_core_batch_add(log_core, key, i, NULL) == HW_OK);
    check(hw_core_batch_commit(log_core, "", 0, NULL) == HW_OK);
    check(hw_core_create_mirror(env, NULL, key, &mirror_core, NULL) == HW_OK);
}

struct host {
    struct hw_replication *served, *mirror;
    unsigned links;
};

static bool is_key_of(struct hw_replication *replication, const uint8_t *discovery_key)
{
    return memcmp(hw_core_identity(hw_replication_core(replication))->discovery_key, discovery_key,
                  HW_KEY_SIZE) == 0;
}

static struct hw_replication *find(void *ctx, struct hw_peer *peer, const uint8_t *discovery_key)
{
    struct host *host = ctx;

    (void)peer;
    if (is_key_of(host->served, discovery_key))
        return host->served;
    return is_key_of(host->mirror, discovery_key) ? host->mirror : NULL;
}

static void linked(void *ctx, struct hw_peer *peer, struct hw_replication *replication)
{
    struct host *host = ctx;

    check(hw_peer_link_of(peer, replication) != NULL && ++host->links <= 2);
}

static void unlinked(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                     bool was_rejected)
{
    struct host *host = ctx;

    check(hw_peer_link_of(peer, replication) == NULL);
    if (!was_rejected)
        check(host->links-- > 0);
}

static enum hw_lookup_status state(void *ctx, struct hw_peer *peer, struct hw_slice name,
                                   struct hw_buffer *out)
{
    (void)ctx, (void)peer;
    check(name.size <= 128);
    hw_buffer_add(out, name.bytes, name.size);
    return HW_LOOKUP_FOUND;
}

static void acknowledged(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                         const uint8_t *replica_id, const struct hw_ack *ack)
{
    (void)ctx, (void)replica_id, (void)ack; /* what it says may be anything */
    check(hw_peer_link_of(peer, replication) != NULL);
}

/* ------------------------------------------------------------------------------ the remote */

static enum hw_status raw_send(void *ctx, struct hw_slice head, struct hw_slice body,
                               struct hw_error *err)
{
    return hw_stream_send_parts(ctx, head, body, err);
}

/* Handshake messages go from one to the other until there are none. */
static void shake_hands(struct hw_peer *peer, struct hw_stream *stream)
{
    struct hw_slice message, output = hw_stream_output(stream);

    while (output.size > 0) {
        check(hw_peer_receive(peer, output, NULL) == HW_OK);
        hw_stream_sent(stream, output.size);
        output = hw_peer_output(peer);
        check(hw_stream_put(stream, output, NULL) == HW_OK);
        check(hw_peer_sent(peer, output.size, NULL) == HW_OK);
        check(hw_stream_next(stream, &message, NULL) == HW_END);
        output = hw_stream_output(stream);
    }
    check(hw_peer_remote_key(peer) != NULL);
}

static void open_channel(struct hw_mux *mux, const char *protocol, const uint8_t *id,
                         struct hw_buffer *handshake)
{
    struct hw_channel *channel;

    check(hw_mux_open(mux, (struct hw_slice){(const uint8_t *)protocol, strlen(protocol)},
                      (struct hw_slice){id, id == NULL ? 0 : HW_KEY_SIZE},
                      (struct hw_slice){handshake->bytes, handshake->size}, NULL, &channel,
                      NULL) == HW_OK);
}

static void open_log(struct hw_mux *mux, struct hw_stream *stream, struct hw_core *core)
{
    const struct hw_core_identity *identity = hw_core_identity(core);
    struct hw_handshake handshake = {.has_seeks = true};
    struct hw_buffer bytes = {0};

    hw_capability(true, hw_stream_handshake_hash(stream), identity->key, handshake.capability);
    hw_handshake_encode(&handshake, &bytes);
    open_channel(mux, HW_CORE_PROTOCOL, identity->discovery_key, &bytes);
    hw_buffer_release(&bytes);
}

static void open_all(struct hw_mux *mux, struct hw_stream *stream)
{
    struct hw_hyperwal_handshake handshake = {.version = 1};
    struct hw_buffer bytes = {0};

    hw_hyperwal_handshake_encode(&handshake, &bytes);
    open_channel(mux, HW_HYPERWAL_PROTOCOL, NULL, &bytes);
    open_log(mux, stream, log_core);
    open_channel(mux, HW_HYPERWAL_PROTOCOL, hw_core_identity(log_core)->discovery_key, &bytes);
    open_log(mux, stream, mirror_core);
    hw_buffer_release(&bytes);
}

/* What we want is told to the remote, which does not care. */
static void use_links(struct hw_peer *peer, const struct host *host)
{
    static const uint8_t id[HW_REPLICA_ID_SIZE] = {1};
    struct hw_ack ack = {.received = 3};
    uint64_t request, deadline;

    check(hw_peer_lookup(peer, "app.db", &request, NULL) == HW_OK);
    check(hw_peer_acknowledge(peer, host->mirror, id, &ack, NULL) == HW_OK);
    check(hw_peer_urge(peer, host->served, true, NULL) == HW_OK);
    check(hw_peer_tick(peer, 2000000, &deadline, NULL) == HW_OK);
}

static void feed_frames(struct hw_peer *peer, const struct host *host, struct hw_cursor input)
{
    struct hw_mux_host mux_host = {.send = raw_send};
    struct hw_identity identity;
    struct hw_stream *stream;
    enum hw_status status;
    struct hw_mux *mux;

    hw_identity_random(env, &identity);
    check(hw_stream_new(env, true, &identity, NULL, &stream, NULL) == HW_OK);
    mux_host.ctx = stream;
    check(hw_mux_new(&mux_host, &mux, NULL) == HW_OK);
    shake_hands(peer, stream);
    open_all(mux, stream);
    status = hw_peer_receive(peer, hw_stream_output(stream), NULL);
    check(status == HW_OK && host->links == 2);
    hw_stream_sent(stream, hw_stream_output(stream).size);
    use_links(peer, host);
    while (status == HW_OK && hw_cursor_left(&input) >= 2) {
        size_t size = hw_cursor_u8(&input);

        size |= (size_t)hw_cursor_u8(&input) << 8;
        size = size < hw_cursor_left(&input) ? size : hw_cursor_left(&input);
        check(hw_stream_send(stream, (struct hw_slice){input.next, size}, NULL) == HW_OK);
        input.next += size;
        status = hw_peer_receive(peer, hw_stream_output(stream), NULL);
        hw_stream_sent(stream, hw_stream_output(stream).size);
        check(hw_peer_output(peer).size <= HW_PEER_OUTPUT_MAX);
    }
    if (status == HW_OK)
        status = hw_peer_sent(peer, hw_peer_output(peer).size, NULL);
    if (status != HW_OK)
        check(hw_peer_receive(peer, (struct hw_slice){NULL, 0}, NULL) == status);
    hw_mux_free(mux);
    hw_stream_free(stream);
}

static struct hw_replication *replicate(struct hw_core *core, bool fetches)
{
    struct hw_replication_options options = {.env = env, .core = core, .fetches = fetches};
    struct hw_replication *replication;

    check(hw_replication_new(&options, &replication, NULL) == HW_OK);
    return replication;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct host host = {.links = 0};
    struct hw_peer_host peer_host = {
        .ctx = &host,
        .find = find,
        .linked = linked,
        .unlinked = unlinked,
        .state = state,
        .acknowledged = acknowledged,
    };
    struct hw_identity identity;
    struct hw_peer *peer;

    if (size == 0)
        return 0;
    begin();
    host.served = replicate(log_core, false);
    host.mirror = replicate(mirror_core, true);
    hw_replication_want_tail(host.mirror, 0);
    hw_identity_random(env, &identity);
    check(hw_peer_new(env, false, &identity, &peer_host, &peer, NULL) == HW_OK);
    if (bytes[0] % 2 == 1)
        feed_frames(peer, &host, hw_cursor(bytes + 1, size - 1));
    else if (hw_peer_receive(peer, (struct hw_slice){bytes + 1, size - 1}, NULL) == HW_OK)
        check(hw_peer_remote_key(peer) == NULL); /* nobody guesses a handshake */
    hw_peer_free(peer);
    check(host.links == 0);
    hw_replication_free(host.served);
    hw_replication_free(host.mirror);
    return 0;
}
