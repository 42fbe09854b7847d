/*
 * A peer with bad intentions, for test_hostile.py.
 *
 *   hostile_peer attack HOST PORT KEY NAME CONNECTIONS SECONDS [CONNECTS-A-SECOND]
 *   hostile_peer replay HOST PORT KEY           records a handshake and says it again
 *   hostile_peer lie HOST PORT KEY HOW AFTER    a server between a follower and a real one
 *   hostile_peer list                           names of attacks and of lies
 *
 * Prints one JSON object: what was done, and what was done to it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "system/hostile_attacks.h"
#include "system/hostile_liar.h"

enum { CONNECTIONS_MAX = 8192, QUEUE_ENOUGH = 256 << 10, POLL_MS = 20, REPLAY_MS = 5000 };

struct field {
    const struct attack *attack;
    const struct target *target;
    struct wire *wires;
    struct pollfd *polls;
    unsigned count, rate;
    uint64_t start_ms, end_ms;
    uint64_t dialed, dial_failed, opened, linked, dropped, unanswered, sent, received;
};

/* ------------------------------------------------------------------------------ an attack */

/* The connection ended, by the remote or by us. */
static void account(struct field *field, struct wire *wire, bool by_remote)
{
    field->dropped += by_remote;
    field->opened += wire->was_open;
    field->linked += wire->was_linked;
    field->unanswered += !wire->was_heard;
    field->sent += wire->sent;
    field->received += wire->received;
    wire->is_counted = true;
}

static bool may_dial(const struct field *field, const struct wire *wire)
{
    uint64_t passed = now_ms() - field->start_ms;

    if (wire->fd >= 0 || (wire->was_dialed && (field->attack->flags & ATTACK_AGAIN) == 0))
        return false;
    return field->rate == 0 || field->dialed < field->rate * passed / 1000;
}

static void dial(struct field *field, struct wire *wire)
{
    if (!wire_dial(wire, field->target, NULL)) {
        field->dial_failed++;
        wire->was_dialed = wire->is_counted = true;
        return;
    }
    wire->was_dialed = true;
    wire->number = field->dialed++;
    if ((field->attack->flags & ATTACK_DEAF) != 0)
        wire_narrow(wire);
    if (field->attack->begin != NULL)
        field->attack->begin(wire);
}

/* Opens what the attack wants to be open, and then lets it act. */
static void lead(struct field *field, struct wire *wire)
{
    const struct attack *attack = field->attack;

    wire->was_linked = wire->was_linked || wire->core != NULL;
    if (wire->is_connecting || wire_queued(wire) > QUEUE_ENOUGH)
        return;
    if ((attack->flags & ATTACK_SHAKES) != 0 && !wire_is_open(wire))
        return;
    if ((attack->flags & ATTACK_LINKS) != 0 && !wire->has_asked) {
        wire->has_asked = true;
        if (!wire_open_core(wire, field->target->key, false))
            abort();
    }
    if ((attack->flags & ATTACK_LINKS) != 0 && wire->core == NULL)
        return;
    wire->is_deaf = (attack->flags & ATTACK_DEAF) != 0;
    if (attack->act != NULL)
        attack->act(wire, field->target);
}

/* False: nobody is there any more, and nobody will be. */
static bool round_of(struct field *field)
{
    unsigned alive = 0;
    bool hopes = field->rate > 0 || (field->attack->flags & ATTACK_AGAIN) != 0;

    for (unsigned i = 0; i < field->count; i++) {
        struct wire *wire = &field->wires[i];

        if (may_dial(field, wire))
            dial(field, wire);
        if (wire->fd >= 0)
            lead(field, wire);
        if (wire->fd < 0 && wire->was_dialed && !wire->is_counted)
            account(field, wire, false); /* the attack closed it */
        alive += wire->fd >= 0;
        field->polls[i] = (struct pollfd){.fd = wire->fd, .events = wire_events(wire)};
    }
    if (alive == 0 && !hopes)
        return false;
    (void)poll(field->polls, field->count, POLL_MS);
    for (unsigned i = 0; i < field->count; i++) {
        struct wire *wire = &field->wires[i];

        if (wire->fd < 0 || field->polls[i].revents == 0)
            continue;
        wire_move(wire, field->polls[i].revents);
        wire->was_linked = wire->was_linked || wire->core != NULL;
        if (wire->fd < 0)
            account(field, wire, true);
    }
    return true;
}

static void report(const struct field *field, const char *name)
{
    (void)printf(
        "{\"attack\":\"%s\",\"dialed\":%" PRIu64 ",\"dial_failed\":%" PRIu64 ",\"opened\":%" PRIu64
        ",\"linked\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"unanswered\":%" PRIu64
        ",\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"ms\":%" PRIu64 "}\n",
        name, field->dialed, field->dial_failed, field->opened, field->linked, field->dropped,
        field->unanswered, field->sent, field->received, now_ms() - field->start_ms);
}

static int attack(const struct target *target, const char *name, unsigned count, unsigned seconds,
                  unsigned rate)
{
    struct field field = {.attack = attack_find(name),
                          .target = target,
                          .count = count,
                          .rate = rate,
                          .start_ms = now_ms()};

    field.end_ms = field.start_ms + 1000 * (uint64_t)seconds;
    field.wires = hw_zalloc(count * sizeof(*field.wires));
    field.polls = hw_zalloc(count * sizeof(*field.polls));
    if (field.attack == NULL || field.wires == NULL || field.polls == NULL)
        return 1;
    for (unsigned i = 0; i < count; i++)
        field.wires[i].fd = -1;
    while (now_ms() < field.end_ms && round_of(&field))
        continue;
    for (unsigned i = 0; i < count; i++) {
        if (field.wires[i].fd < 0)
            continue;
        wire_close(&field.wires[i], false);
        account(&field, &field.wires[i], false);
    }
    report(&field, name);
    hw_free(field.wires);
    hw_free(field.polls);
    return 0;
}

/* --------------------------------------------------------------------------------- replay */

/* Until the remote closes, or `done` says that it is enough. */
static void converse(struct wire *wire, bool (*done)(const struct wire *wire))
{
    uint64_t end_ms = now_ms() + REPLAY_MS;

    while (wire->fd >= 0 && !done(wire) && now_ms() < end_ms) {
        struct pollfd poll_fd = {.fd = wire->fd, .events = wire_events(wire)};

        (void)poll(&poll_fd, 1, POLL_MS);
        if (poll_fd.revents != 0)
            wire_move(wire, poll_fd.revents);
    }
}

static bool is_shaken(const struct wire *wire)
{
    return wire_is_open(wire);
}

static bool is_linked(const struct wire *wire)
{
    return wire->core != NULL;
}

static bool is_never(const struct wire *wire)
{
    (void)wire;
    return false;
}

/*
 * What was said to the server in a good conversation is said again, first all at once and then with
 * the second part after the server's answer to the first.
 */
static int replay(const struct target *target)
{
    struct hw_buffer record = {0};
    struct wire wire;
    unsigned linked, dropped = 0, linked_again = 0;

    if (!wire_dial(&wire, target, NULL))
        return 1;
    wire.record = &record;
    converse(&wire, is_shaken);
    if (!wire_is_open(&wire) || !wire_open_core(&wire, target->key, false))
        return 1;
    converse(&wire, is_linked);
    linked = wire.core != NULL;
    wire_close(&wire, false);
    for (unsigned i = 0; i < 2; i++) {
        if (!wire_dial(&wire, target, NULL))
            return 1;
        hw_stream_sent(wire.stream, hw_stream_output(wire.stream).size); /* its own first word */
        wire_raw(&wire, record.bytes, record.size);
        wire.cut_at = i == 0 ? SIZE_MAX : FIRST_FRAME_SIZE;
        converse(&wire, i == 0 ? is_never : wire_is_heard);
        wire.cut_at = SIZE_MAX;
        converse(&wire, is_never);
        dropped += wire.fd < 0;
        linked_again += wire.core != NULL || wire.received > SECOND_FRAME_SIZE;
        wire_close(&wire, false);
    }
    (void)printf("{\"attack\":\"replay\",\"linked\":%u,\"dropped\":%u,\"linked_again\":%u}\n",
                 linked, dropped, linked_again);
    hw_buffer_release(&record);
    return 0;
}

/* ----------------------------------------------------------------------------------- main */

static bool read_target(char **words, struct target *out)
{
    unsigned byte;

    out->host = words[0];
    out->port = (unsigned)strtoul(words[1], NULL, 10);
    for (unsigned i = 0; i < HW_KEY_SIZE; i++) {
        if (sscanf(words[2] + 2 * i, "%2x", &byte) != 1)
            return false;
        out->key[i] = (uint8_t)byte;
    }
    return true;
}

int main(int count, char **words)
{
    struct rlimit files;
    struct target target;
    unsigned connections;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (count == 2 && strcmp(words[1], "list") == 0) {
        attacks_list();
        lies_list();
        return 0;
    }
    if (count >= 5 && read_target(words + 2, &target)) {
        if (strcmp(words[1], "replay") == 0)
            return replay(&target);
        if (strcmp(words[1], "lie") == 0 && count == 7)
            return lie(&target, words[5], (unsigned)strtoul(words[6], NULL, 10));
        connections = count >= 8 ? (unsigned)strtoul(words[6], NULL, 10) : 0;
        if (strcmp(words[1], "attack") == 0 && connections > 0 && connections <= CONNECTIONS_MAX)
            return attack(&target, words[5], connections, (unsigned)strtoul(words[7], NULL, 10),
                          count > 8 ? (unsigned)strtoul(words[8], NULL, 10) : 0);
    }
    (void)fprintf(stderr, "usage: hostile_peer attack|replay|lie HOST PORT KEY ...\n");
    return 2;
}
