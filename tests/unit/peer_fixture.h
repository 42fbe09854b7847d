/*
 * unit/peer_fixture.h - two peers in one thread, and a remote that does what a peer never would
 *
 *     side a, who dialed  ◀── bytes in pieces, counted, cut or altered by the test ──▶  side b
 *
 * Hosts only record; the test asserts.
 */
#ifndef UNIT_PEER_FIXTURE_H
#define UNIT_PEER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "hypercore/manifest.h"
#include "hypercore/mirror.h"
#include "sim/sim.h"
#include "support/core_log.h"
#include "wire/address.h"
#include "wire/mux.h"
#include "wire/peer.h"
#include "wire/stream.h"
#include "wire/transport.h"

enum { SIDE_LOGS_MAX = 8, FIXTURE_MS = 1000000 };

struct side {
    struct hw_peer *peer;
    enum hw_status status; /* of the call that ended it */
    struct hw_error why;
    struct hw_replication *served[SIDE_LOGS_MAX]; /* found by their keys; owned, with their cores */
    unsigned served_count;
    bool names_all, refuses; /* the host's answers */
    size_t state_size;

    unsigned ready, linked, unlinked, rejected, plain; /* calls of the host */
    struct hw_hyperwal_found found;
    unsigned found_count;
    uint64_t told_request;
    enum hw_lookup_status told_status;
    size_t told_size;
    unsigned told_count, named_count, named_end_count;
    char last_name[HW_NAME_MAX + 1];
    struct hw_ack ack;
    uint8_t ack_id[HW_REPLICA_ID_SIZE];
    unsigned ack_count, urge_count;
    bool urged;
    enum hw_status (*wrote)(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                            const struct hw_write_message *message, struct hw_error *err);
    void *wrote_ctx;
};

/* What happens to the bytes of one direction. */
struct line {
    uint64_t count;   /* bytes that went */
    uint64_t flip_at; /* the byte whose bits are turned; UINT64_MAX: none */
    uint8_t flip_mask;
};

struct world {
    struct sim *sim;
    struct hw_env *env;
    struct side a, b;
    struct line ab, ba;
    size_t piece;    /* bytes that go at once; 0: what there is */
    uint64_t cut_at; /* bytes in both directions, after which nothing goes; UINT64_MAX: never */
    struct hw_error err;
};

#define assert_peer_ok(call) assert_status(call, HW_OK, &w->err)

/* ---------------------------------------------------------------------------------- host */

static inline enum hw_status side_ready(void *ctx, struct hw_peer *peer, struct hw_error *err)
{
    struct side *side = ctx;

    (void)peer;
    side->ready++;
    return side->refuses ? hw_fail(err, HW_EREFUSED, "not you") : HW_OK;
}

static inline struct hw_replication *side_find(void *ctx, struct hw_peer *peer,
                                               const uint8_t discovery_key[HW_KEY_SIZE])
{
    struct side *side = ctx;

    (void)peer;
    for (unsigned i = 0; i < side->served_count; i++)
        if (memcmp(hw_core_identity(hw_replication_core(side->served[i]))->discovery_key,
                   discovery_key, HW_KEY_SIZE) == 0)
            return side->served[i];
    return NULL;
}

static inline void side_linked(void *ctx, struct hw_peer *peer, struct hw_replication *replication)
{
    struct side *side = ctx;

    (void)peer, (void)replication;
    side->linked++;
}

static inline void side_unlinked(void *ctx, struct hw_peer *peer,
                                 struct hw_replication *replication, bool was_rejected)
{
    struct side *side = ctx;

    (void)peer, (void)replication;
    side->unlinked++;
    side->rejected += was_rejected;
}

/* "log N" is what is served N-th; "secret" is refused. */
static inline enum hw_lookup_status side_lookup(void *ctx, struct hw_peer *peer,
                                                struct hw_slice name, uint8_t key[HW_KEY_SIZE])
{
    struct side *side = ctx;
    unsigned i = name.size == 5 ? (unsigned)(name.bytes[4] - '0') : SIDE_LOGS_MAX;

    (void)peer;
    if (name.size == 6 && memcmp(name.bytes, "secret", 6) == 0)
        return HW_LOOKUP_REFUSED;
    if (name.size != 5 || memcmp(name.bytes, "log ", 4) != 0 || i >= side->served_count)
        return HW_LOOKUP_UNKNOWN;
    memcpy(key, hw_core_identity(hw_replication_core(side->served[i]))->key, HW_KEY_SIZE);
    return HW_LOOKUP_FOUND;
}

static inline void side_list(void *ctx, struct hw_peer *peer,
                             void (*add)(void *list_ctx, const struct hw_name_entry *entry),
                             void *list_ctx)
{
    struct side *side = ctx;
    char name[16];

    (void)peer;
    for (unsigned i = 0; i < side->served_count; i++) {
        struct hw_name_entry entry;

        (void)snprintf(name, sizeof(name), "log %u", i);
        entry.name = (struct hw_slice){(const uint8_t *)name, strlen(name)};
        memcpy(entry.key, hw_core_identity(hw_replication_core(side->served[i]))->key, HW_KEY_SIZE);
        add(list_ctx, &entry);
    }
}

static inline enum hw_lookup_status side_state(void *ctx, struct hw_peer *peer,
                                               struct hw_slice name, struct hw_buffer *out)
{
    struct side *side = ctx;
    uint8_t key[HW_KEY_SIZE];
    enum hw_lookup_status status = side_lookup(ctx, peer, name, key);
    uint8_t *json;

    if (status != HW_LOOKUP_FOUND)
        return status;
    json = hw_buffer_extend(out, side->state_size);
    if (json != NULL)
        memset(json, ' ', side->state_size);
    if (json != NULL && side->state_size >= 2) {
        json[0] = '{';
        json[side->state_size - 1] = '}';
    }
    return HW_LOOKUP_FOUND;
}

static inline void side_found(void *ctx, struct hw_peer *peer,
                              const struct hw_hyperwal_found *found)
{
    struct side *side = ctx;

    (void)peer;
    side->found = *found;
    side->found_count++;
}

static inline void side_told(void *ctx, struct hw_peer *peer, const struct hw_hyperwal_state *state)
{
    struct side *side = ctx;

    (void)peer;
    side->told_request = state->request;
    side->told_status = state->status;
    side->told_size = state->json.size;
    side->told_count++;
}

static inline void side_named(void *ctx, struct hw_peer *peer, uint64_t request,
                              const struct hw_name_entry *entry)
{
    struct side *side = ctx;

    (void)peer, (void)request;
    if (entry == NULL) {
        side->named_end_count++;
        return;
    }
    (void)snprintf(side->last_name, sizeof(side->last_name), "%.*s", (int)entry->name.size,
                   (const char *)entry->name.bytes);
    side->named_count++;
}

static inline void side_is_plain(void *ctx, struct hw_peer *peer)
{
    struct side *side = ctx;

    (void)peer;
    side->plain++;
}

static inline void side_acknowledged(void *ctx, struct hw_peer *peer,
                                     struct hw_replication *replication,
                                     const uint8_t replica_id[HW_REPLICA_ID_SIZE],
                                     const struct hw_ack *ack)
{
    struct side *side = ctx;

    (void)peer, (void)replication;
    memcpy(side->ack_id, replica_id, HW_REPLICA_ID_SIZE);
    side->ack = *ack;
    side->ack_count++;
}

static inline void side_urged(void *ctx, struct hw_peer *peer, struct hw_replication *replication,
                              bool durable)
{
    struct side *side = ctx;

    (void)peer, (void)replication;
    side->urged = durable;
    side->urge_count++;
}

static inline enum hw_status side_wrote(void *ctx, struct hw_peer *peer,
                                        struct hw_replication *replication,
                                        const struct hw_write_message *message,
                                        struct hw_error *err)
{
    struct side *side = ctx;

    return side->wrote == NULL ? HW_OK
                               : side->wrote(side->wrote_ctx, peer, replication, message, err);
}

/* ---------------------------------------------------------------------------------- life */

static inline enum hw_status side_connect(struct world *w, struct side *side)
{
    struct hw_peer_host host = {
        .ctx = side,
        .ready = side_ready,
        .find = side_find,
        .linked = side_linked,
        .unlinked = side_unlinked,
        .lookup = side_lookup,
        .list = side_list,
        .state = side_state,
        .found = side_found,
        .told = side_told,
        .named = side_named,
        .is_plain = side_is_plain,
        .acknowledged = side_acknowledged,
        .urged = side_urged,
        .wrote = side_wrote,
    };
    struct hw_identity identity;

    hw_identity_random(w->env, &identity);
    side->status = HW_OK;
    return hw_peer_new(w->env, side == &w->a, &identity, &host, &side->peer, &w->err);
}

static inline void side_disconnect(struct side *side)
{
    hw_peer_free(side->peer);
    side->peer = NULL;
}

static inline enum hw_status world_connect(struct world *w)
{
    enum hw_status status = side_connect(w, &w->a);

    w->ab = w->ba = (struct line){.flip_at = UINT64_MAX};
    return status == HW_OK ? side_connect(w, &w->b) : status;
}

static inline void world_disconnect(struct world *w)
{
    side_disconnect(&w->a);
    side_disconnect(&w->b);
}

static inline struct hw_core *world_core(const struct side *side, unsigned i)
{
    return hw_replication_core(side->served[i]);
}

static inline enum hw_status side_serve(struct world *w, struct side *side, struct hw_core *core,
                                        bool fetches)
{
    struct hw_replication_options options = {.env = w->env, .core = core, .fetches = fetches};
    enum hw_status status =
        hw_replication_new(&options, &side->served[side->served_count], &w->err);

    if (status == HW_OK)
        side->served_count++;
    else
        hw_core_close(core);
    return status;
}

/* A log of `length` blocks in memory. */
static inline enum hw_status side_add_log(struct world *w, struct side *side, unsigned length)
{
    struct hw_core *core;
    enum hw_status status = hw_core_create(w->env, NULL, &core, &w->err);

    if (status != HW_OK)
        return status;
    if (length > 0)
        status = core_log_append(core, length, "", &w->err);
    if (status != HW_OK) {
        hw_core_close(core);
        return status;
    }
    return side_serve(w, side, core, false);
}

/* One of large blocks. */
static inline enum hw_status side_add_large_log(struct world *w, struct side *side, unsigned length,
                                                size_t size)
{
    uint8_t *block = calloc(1, size);
    struct hw_core *core;
    enum hw_status status = hw_core_create(w->env, NULL, &core, &w->err);

    if (block == NULL)
        abort();
    if (status == HW_OK)
        status = hw_core_batch_begin(core, &w->err);
    for (unsigned i = 0; i < length && status == HW_OK; i++) {
        memset(block, (int)i, size < 16 ? size : 16);
        status = hw_core_batch_add(core, block, size, &w->err);
    }
    if (status == HW_OK)
        status = hw_core_batch_commit(core, "", 0, &w->err);
    free(block);
    return status == HW_OK ? side_serve(w, side, core, false) : status;
}

/* A mirror in memory of the i-th log of the other side, which wants everything. */
static inline enum hw_status side_add_mirror(struct world *w, struct side *side,
                                             const struct side *of, unsigned i)
{
    struct hw_core *core;
    enum hw_status status = hw_core_create_mirror(
        w->env, NULL, hw_core_identity(world_core(of, i))->key, &core, &w->err);

    if (status == HW_OK)
        status = side_serve(w, side, core, true);
    if (status == HW_OK)
        hw_replication_want_tail(side->served[side->served_count - 1], 0);
    return status;
}

static inline void side_release(struct side *side)
{
    side_disconnect(side);
    while (side->served_count > 0) {
        struct hw_core *core = world_core(side, --side->served_count);

        hw_replication_free(side->served[side->served_count]);
        hw_core_close(core);
    }
}

static inline void world_release(struct world *w)
{
    side_release(&w->a);
    side_release(&w->b);
}

static inline int world_setup(void **state)
{
    static struct world world;

    world = (struct world){.cut_at = UINT64_MAX, .sim = sim_new(0)};
    world.env = sim_env(world.sim);
    *state = &world;
    return 0;
}

static inline int world_teardown(void **state)
{
    struct world *w = *state;

    world_release(w);
    sim_free(w->sim);
    return 0;
}

/* --------------------------------------------------------------------------------- bytes */

static inline void side_fail(struct side *side, enum hw_status status, const struct hw_error *err)
{
    if (status == HW_OK || side->status != HW_OK)
        return;
    side->status = status;
    side->why = *err;
}

/* The bytes that go now, altered as the line is.  The caller frees them. */
static inline uint8_t *line_take(struct line *line, struct hw_slice output)
{
    uint8_t *bytes = malloc(output.size);

    if (bytes == NULL)
        abort();
    memcpy(bytes, output.bytes, output.size);
    if (line->flip_at >= line->count && line->flip_at - line->count < output.size)
        bytes[line->flip_at - line->count] ^= line->flip_mask;
    line->count += output.size;
    return bytes;
}

/* Some bytes from one to the other; false: there were none, or they are not wanted. */
static inline bool world_move(struct world *w, struct side *from, struct side *to)
{
    struct line *line = from == &w->a ? &w->ab : &w->ba;
    struct hw_slice output;
    uint64_t gone = w->ab.count + w->ba.count;
    uint8_t *bytes;

    if (from->peer == NULL || to->peer == NULL || from->status != HW_OK || to->status != HW_OK ||
        !hw_peer_wants_input(to->peer) || gone >= w->cut_at)
        return false;
    output = hw_peer_output(from->peer);
    if (w->piece > 0 && output.size > w->piece)
        output.size = w->piece;
    if (output.size > w->cut_at - gone)
        output.size = (size_t)(w->cut_at - gone);
    if (output.size == 0)
        return false;
    bytes = line_take(line, output);
    side_fail(from, hw_peer_sent(from->peer, output.size, &w->err), &w->err);
    side_fail(to, hw_peer_receive(to->peer, (struct hw_slice){bytes, output.size}, &w->err),
              &w->err);
    free(bytes);
    return true;
}

/* Until nothing moves; what is due by now is done, too. */
static inline void world_run(struct world *w)
{
    bool moved = true;

    while (moved) {
        moved = world_move(w, &w->a, &w->b);
        moved = world_move(w, &w->b, &w->a) || moved;
    }
}

static inline bool world_is_well(const struct world *w)
{
    return w->a.status == HW_OK && w->b.status == HW_OK;
}

/* Blocks of the mirror that are held, all of them as they should be; UINT64_MAX: one is not. */
static inline uint64_t mirror_blocks(struct world *w, struct hw_core *mirror, struct hw_core *of)
{
    struct hw_buffer got = {0}, wanted = {0};
    uint64_t count = 0;

    for (uint64_t i = 0; i < hw_core_length(mirror); i++) {
        if (!hw_core_has(mirror, i))
            continue;
        if (hw_core_read(mirror, i, &got, &w->err) != HW_OK ||
            hw_core_read(of, i, &wanted, &w->err) != HW_OK || got.size != wanted.size ||
            memcmp(got.bytes, wanted.bytes, got.size) != 0) {
            count = UINT64_MAX;
            break;
        }
        count++;
    }
    hw_buffer_release(&got);
    hw_buffer_release(&wanted);
    return count;
}

/* A log of `length` blocks at b, a mirror of it at a, connected and linked by a. */
static inline void world_follow(struct world *w, unsigned length)
{
    assert_peer_ok(side_add_log(w, &w->b, length));
    assert_peer_ok(side_add_mirror(w, &w->a, &w->b, 0));
    assert_peer_ok(world_connect(w));
    assert_peer_ok(hw_peer_link(w->a.peer, w->a.served[0], &w->err));
}

#endif
