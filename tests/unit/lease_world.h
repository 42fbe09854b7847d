/*
 * tests/unit/lease_world.h - what the model of the lease is made of: a state, and the steps from it
 *
 *    client ──up──▶ link ──▶ lease ──▶ commit: check, append, log ──▶ answer
 *       ▲                                  ▲ local writer, crash of the server, loss of power
 *       └──────────── down ◀───────────────┘
 *
 * node/lease.c is the real one; everything else is as small as it can be.  A cut is seen by the
 * client at once, by the server later or never; until then what the client had sent still arrives.
 * Each message and each step of a commit is a step of its own.
 */
#ifndef HW_TESTS_UNIT_LEASE_WORLD_H
#define HW_TESTS_UNIT_LEASE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "node/lease.h"

enum {
    CLIENTS = 2,
    QUEUE = 5,
    HISTORY = 8,
    FENCES_AT_ONCE = 3,
    ATTEMPTS = 3,   /* of a client */
    LOCAL_TXN = 16, /* the first transaction of the local writer; those of client c: 8 * c ... */
    LEASE_SLOTS = 6,
};

enum message_type { ASK, RELEASE, COMMIT, QUESTION, LEASED, RECALL, COMMITTED, REFUSED, OUTCOME };
struct message {
    uint8_t type, fence, txn, base;
    uint8_t flag; /* COMMITTED, REFUSED: the lease is kept; OUTCOME: it was committed */
};
struct queue {
    uint8_t count;
    struct message messages[QUEUE];
};
struct link {
    uint8_t id;       /* 0: none */
    uint8_t next_txn; /* commits of lesser ones came already */
    uint8_t is_cut;   /* the client does not hear it any more */
    struct queue up, down;
};
enum phase { IDLE, ASKED, WRITING, SENT, UNKNOWN, ASKING, GONE };
struct client {
    uint8_t phase, fence, is_recalled;
    uint8_t view; /* length of the history that it has seen */
    uint8_t attempt, txn, txn_fence, txn_base;
    uint8_t left; /* transactions to be done */
    uint8_t generation;
    struct link link, old;
};
enum stage { NO_JOB, CHECK, APPEND, LOG };

struct world {
    struct client clients[CLIENTS];
    uint8_t length, logged, history[HISTORY];
    uint8_t is_down, fence_limit;
    struct {
        uint8_t state, holder, fence, flags, count;
        struct {
            uint8_t id, stale, is_waiting;
        } clients[LEASE_SLOTS];
    } lease;
    uint8_t stage, job_link, job_txn, job_base;
    uint8_t question_link;
    struct message question;
    uint8_t cuts, crashes, client_crashes, failures, duplicates, locals; /* that may still come */
    uint8_t expiries; /* of leases of clients that are there: those of others always end */
    uint32_t acknowledged, refused; /* transactions, a bit each */
    uint32_t fences;                /* given away, a bit each */
};

/* What is tried, and which rule is left out. */
struct setting {
    unsigned clients, transactions, cuts, crashes, client_crashes, failures, duplicates, locals;
    unsigned expiries;
    bool no_base_check, no_revocation, no_fence_file, answers_early, no_fence_check, takes_twice;
};

static const uint64_t lease_ns = (uint64_t)HW_LEASE_MS * 1000000;
static const struct setting *setting;
static const char *violation; /* of the state that was just made; NULL: none */
static uint32_t violation_at; /* its number */

static void claim(bool is_true, const char *what)
{
    if (!is_true && violation == NULL)
        violation = what;
}

/* ------------------------------------------------------------------------------ messages */

static void put(struct queue *queue, struct message message)
{
    claim(queue->count < QUEUE, "the model: a queue is too short");
    if (queue->count < QUEUE)
        queue->messages[queue->count++] = message;
}

static struct message take(struct queue *queue)
{
    struct message message = queue->messages[0];

    memmove(queue->messages, queue->messages + 1, (QUEUE - 1) * sizeof(message));
    queue->messages[QUEUE - 1] = (struct message){0};
    queue->count--;
    return message;
}

static struct link *find_link(struct world *w, uint64_t id)
{
    for (unsigned c = 0; c < CLIENTS && id != 0; c++) {
        if (w->clients[c].link.id == id)
            return &w->clients[c].link;
        if (w->clients[c].old.id == id)
            return &w->clients[c].old;
    }
    return NULL;
}

static void answer(struct world *w, uint64_t id, struct message message)
{
    struct link *link = find_link(w, id);

    if (link != NULL && !link->is_cut)
        put(&link->down, message);
}

/* ---------------------------------------------------------------------- the lease, packed */

static void lease_unpack(const struct world *w, struct hw_lease *lease)
{
    uint8_t flags = w->lease.flags;

    hw_lease_init(lease, w->lease.fence);
    lease->state = (enum hw_lease_state)w->lease.state;
    lease->holder = w->lease.holder;
    lease->fence_limit = w->fence_limit;
    lease->expires_ns = lease->state == HW_LEASE_HELD ? lease_ns : 0;
    lease->is_recalled = flags & 1;
    lease->is_ending = flags & 2;
    lease->count = w->lease.count;
    for (unsigned i = 0; i < lease->count; i++)
        lease->clients[i] = (struct hw_lease_client){.id = w->lease.clients[i].id,
                                                     .stale = w->lease.clients[i].stale,
                                                     .is_waiting = w->lease.clients[i].is_waiting};
}

/* What the lease has to say goes out, and how it is now is kept. */
static void lease_pack(struct world *w, struct hw_lease *lease)
{
    struct hw_lease_event event;

    while (hw_lease_next(lease, &event)) {
        if (event.kind == HW_LEASE_GRANTED) {
            struct message leased = {
                .type = LEASED, .fence = (uint8_t)event.fence, .base = w->logged};
            bool is_new = (w->fences & 1U << event.fence) == 0;

            claim(is_new || event.client == w->lease.holder, "a fence was given away twice");
            w->fences |= 1U << event.fence;
            answer(w, event.client, leased);
        } else {
            answer(w, event.client,
                   (struct message){.type = RECALL, .fence = (uint8_t)event.fence});
        }
        w->lease.holder = (uint8_t)event.client;
    }
    memset(&w->lease, 0, sizeof(w->lease));
    w->lease.state = (uint8_t)lease->state;
    w->lease.holder = (uint8_t)lease->holder;
    w->lease.fence = (uint8_t)lease->fence;
    w->lease.flags = (uint8_t)(lease->is_recalled | lease->is_ending << 1);
    claim(lease->count <= LEASE_SLOTS, "the model: too few places for the lease's clients");
    w->lease.count = (uint8_t)(lease->count < LEASE_SLOTS ? lease->count : LEASE_SLOTS);
    for (unsigned i = 0; i < w->lease.count; i++) {
        w->lease.clients[i].id = (uint8_t)lease->clients[i].id;
        w->lease.clients[i].stale =
            lease->clients[i].stale < 4 ? (uint8_t)lease->clients[i].stale : 4;
        w->lease.clients[i].is_waiting = lease->clients[i].is_waiting;
    }
    if (hw_lease_wants_limit(lease, 1)) { /* the file is written anew */
        w->fence_limit = (uint8_t)(w->fence_limit + FENCES_AT_ONCE);
        lease_unpack(w, lease);
        hw_lease_set_limit(lease, w->fence_limit, 0);
        lease_pack(w, lease);
    }
}

/* -------------------------------------------------------------------------------- server */

static bool is_in_history(const struct world *w, uint8_t txn, uint8_t base)
{
    return base < w->length && w->history[base] == txn;
}

static void job_end(struct world *w, enum message_type type, enum hw_lease_outcome outcome)
{
    struct hw_lease lease;
    bool kept;

    lease_unpack(w, &lease);
    hw_lease_commit_end(&lease, outcome, 0, &kept);
    answer(w, w->job_link,
           (struct message){.type = (uint8_t)type, .txn = w->job_txn, .flag = kept});
    lease_pack(w, &lease);
    w->stage = NO_JOB;
    w->job_link = w->job_txn = w->job_base = 0;
}

static void job_step(struct world *w)
{
    switch (w->stage) {
    case CHECK: /* the write lock is taken; the log gets all there is */
        w->logged = w->length;
        if (w->job_base == w->length || setting->no_base_check)
            w->stage = APPEND;
        else
            job_end(w, REFUSED, HW_LEASE_STALE);
        break;
    case APPEND:
        claim(w->length < HISTORY, "the model: the history is too short");
        if (w->length < HISTORY)
            w->history[w->length++] = w->job_txn;
        w->stage = LOG;
        if (setting->answers_early)
            job_end(w, COMMITTED, HW_LEASE_COMMITTED);
        break;
    default:
        w->logged = w->length;
        job_end(w, COMMITTED, HW_LEASE_COMMITTED);
        break;
    }
}

/* Each commit of a link has a greater request number than the one before: it is looked at once. */
static void commit_arrived(struct world *w, struct hw_lease *lease, struct link *from,
                           struct message message)
{
    uint8_t link = from->id;
    bool is_newest = w->lease.fence == message.fence;

    if (message.txn < from->next_txn && !setting->takes_twice)
        return;
    from->next_txn = (uint8_t)(message.txn + 1);
    if (hw_lease_commit_begin(lease, link, message.fence, 0) ||
        (setting->no_fence_check && w->stage == NO_JOB)) {
        claim(is_newest, "a commit began with an old fence");
        claim(w->stage == NO_JOB, "two commits at once");
        lease->state = HW_LEASE_COMMITTING;
        w->stage = CHECK;
        w->job_link = link;
        w->job_txn = message.txn;
        w->job_base = message.base;
    } else {
        answer(w, link, (struct message){.type = REFUSED, .txn = message.txn});
    }
}

static bool server_receive(struct world *w, struct link *link)
{
    struct message message = link->up.messages[0];
    struct hw_lease lease;

    if (link->up.count == 0 || (message.type == QUESTION && w->question_link != 0))
        return false;
    (void)take(&link->up);
    lease_unpack(w, &lease);
    if (message.type == ASK)
        claim(hw_lease_ask(&lease, link->id, 0, 0), "the table is full");
    else if (message.type == RELEASE)
        hw_lease_release(&lease, link->id, message.fence, 0);
    else if (message.type == COMMIT)
        commit_arrived(w, &lease, link, message);
    if (message.type == QUESTION) {
        if (!setting->no_revocation)
            hw_lease_revoke(&lease, message.fence, 0);
        w->question = message;
        w->question_link = link->id;
    }
    lease_pack(w, &lease);
    return true;
}

/* By the thread that commits, so never during a commit. */
static void question_answer(struct world *w)
{
    struct message *q = &w->question;
    bool is_committed;

    w->logged = w->length;
    is_committed = is_in_history(w, q->txn, q->base); /* the entry has its id */
    answer(w, w->question_link,
           (struct message){.type = OUTCOME, .txn = q->txn, .flag = is_committed});
    w->question_link = 0;
    memset(q, 0, sizeof(*q));
}

static void server_sees_cut(struct world *w, struct link *link)
{
    struct hw_lease lease;

    lease_unpack(w, &lease);
    hw_lease_gone(&lease, link->id, 0);
    memset(link, 0, sizeof(*link));
    lease_pack(w, &lease);
}

static void server_start(struct world *w)
{
    struct hw_lease lease;
    uint8_t limit = setting->no_fence_file ? 0 : w->fence_limit;

    w->is_down = 0;
    w->logged = w->length; /* before anything is answered */
    w->fence_limit = (uint8_t)(limit + FENCES_AT_ONCE);
    w->lease.fence = limit;
    lease_unpack(w, &lease);
    lease_pack(w, &lease);
}

/* ------------------------------------------------------------------------------- clients */

static void client_cut(struct client *c)
{
    c->old = c->link;
    c->old.is_cut = 1;
    memset(&c->old.down, 0, sizeof(c->old.down));
    memset(&c->link, 0, sizeof(c->link));
    c->fence = c->is_recalled = 0;
    if (c->phase == SENT || c->phase == ASKING)
        c->phase = UNKNOWN;
    else if (c->phase != GONE && c->phase != UNKNOWN)
        c->phase = IDLE;
}

static void server_crash(struct world *w, bool loses_power)
{
    if (loses_power)
        w->length = w->logged;
    memset(w->history + w->length, 0, HISTORY - w->length);
    memset(&w->lease, 0, sizeof(w->lease));
    w->is_down = 1;
    w->stage = NO_JOB;
    w->job_link = w->job_txn = w->job_base = w->question_link = 0;
    memset(&w->question, 0, sizeof(w->question));
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (w->clients[i].link.id != 0)
            client_cut(&w->clients[i]);
        memset(&w->clients[i].old, 0, sizeof(w->clients[i].old));
    }
}

/* The transaction is over: a lease that others wait for goes back. */
static void client_done(struct client *c)
{
    c->phase = IDLE;
    if (c->is_recalled && c->fence != 0)
        put(&c->link.up, (struct message){.type = RELEASE, .fence = c->fence});
    if (c->is_recalled)
        c->fence = c->is_recalled = 0;
}

static void client_learns(struct world *w, struct client *c, bool is_committed)
{
    if (is_committed) {
        w->acknowledged |= 1U << c->txn;
        c->left--;
        if (c->view <= c->txn_base)
            c->view = (uint8_t)(c->txn_base + 1);
    } else {
        w->refused |= 1U << c->txn;
        if (c->attempt >= ATTEMPTS)
            c->left = 0; /* it gives up */
    }
}

static void client_receive(struct world *w, struct client *c)
{
    struct message message = take(&c->link.down);

    switch (message.type) {
    case LEASED:
        c->fence = message.fence;
        c->is_recalled = 0;
        if (c->view < message.base)
            c->view = message.base;
        if (c->phase == ASKED)
            c->phase = WRITING;
        break;
    case RECALL:
        if (message.fence != c->fence)
            break;
        c->is_recalled = 1;
        if (c->phase == IDLE)
            client_done(c);
        break;
    case COMMITTED:
    case REFUSED:
        if (c->phase != SENT || message.txn != c->txn)
            break; /* the answer to one that was sent twice */
        client_learns(w, c, message.type == COMMITTED);
        if (!message.flag)
            c->fence = c->is_recalled = 0;
        client_done(c);
        break;
    default:
        if (c->phase == ASKING && message.txn == c->txn) {
            client_learns(w, c, message.flag != 0);
            client_done(c);
        }
        break;
    }
}

static bool client_goes_on(struct world *w, unsigned index)
{
    struct client *c = &w->clients[index];

    if (c->phase == IDLE && c->left > 0) {
        c->phase = c->fence != 0 ? WRITING : ASKED;
        if (c->fence == 0)
            put(&c->link.up, (struct message){.type = ASK});
        return true;
    }
    if (c->phase == WRITING) {
        c->txn = (uint8_t)(8 * index + c->attempt++);
        c->txn_fence = c->fence;
        c->txn_base = c->view;
        put(&c->link.up,
            (struct message){.type = COMMIT, .fence = c->fence, .txn = c->txn, .base = c->view});
        c->phase = SENT;
        return true;
    }
    if (c->phase != UNKNOWN)
        return false;
    put(&c->link.up,
        (struct message){
            .type = QUESTION, .fence = c->txn_fence, .txn = c->txn, .base = c->txn_base});
    c->phase = ASKING;
    return true;
}

/* ------------------------------------------------------------------------------- actions */

enum action {
    CLIENT_GOES_ON,
    CLIENT_RECEIVES,
    CLIENT_LOOKS, /* its cache follows the log */
    CLIENT_CONNECTS,
    CLIENT_CUT,
    CLIENT_DIES,
    CLIENT_REPEATS, /* its commit arrives twice */
    CLIENT_ROLLS_BACK,
    SERVER_RECEIVES,
    SERVER_RECEIVES_OLD,
    SERVER_SEES_CUT,
    CLIENT_ACTIONS,
    JOB_STEP = CLIENTS * CLIENT_ACTIONS,
    JOB_FAILS,
    QUESTION_ANSWER,
    TIME_PASSES,
    SERVER_CRASH,
    SERVER_LOSES_POWER,
    SERVER_START,
    LOCAL_COMMIT,
    WORKER_LOGS,
    ACTIONS,
};

static bool spend(uint8_t *budget)
{
    if (*budget == 0)
        return false;
    --*budget;
    return true;
}

static bool client_connects(struct world *w, unsigned index)
{
    struct client *c = &w->clients[index];

    if (c->link.id != 0 || w->is_down || c->generation == 3 ||
        (c->left == 0 && c->phase != UNKNOWN))
        return false;
    c->link.id = (uint8_t)(1 + index + CLIENTS * c->generation++);
    return true;
}

static bool client_dies(struct world *w, struct client *c)
{
    if (!spend(&w->client_crashes))
        return false;
    c->phase = GONE;
    client_cut(c);
    c->left = 0;
    return true;
}

static bool client_repeats(struct world *w, struct client *c)
{
    if (c->phase != SENT || c->link.up.count == QUEUE || !spend(&w->duplicates))
        return false;
    put(&c->link.up,
        (struct message){
            .type = COMMIT, .fence = c->txn_fence, .txn = c->txn, .base = c->txn_base});
    return true;
}

static bool client_act(struct world *w, unsigned index, unsigned action)
{
    struct client *c = &w->clients[index];
    bool is_linked = c->link.id != 0;

    if (action == CLIENT_CONNECTS)
        return client_connects(w, index);
    if (action == SERVER_RECEIVES)
        return is_linked && server_receive(w, &c->link);
    if (action == SERVER_RECEIVES_OLD)
        return c->old.id != 0 && server_receive(w, &c->old);
    if (action == SERVER_SEES_CUT) {
        if (c->old.id == 0)
            return false;
        server_sees_cut(w, &c->old);
        return true;
    }
    if (!is_linked)
        return false;
    switch (action) {
    case CLIENT_GOES_ON:
        return client_goes_on(w, index);
    case CLIENT_RECEIVES:
        if (c->link.down.count > 0)
            client_receive(w, c);
        else
            return false;
        return true;
    case CLIENT_LOOKS:
        if (c->view >= w->logged || c->phase == SENT)
            return false;
        c->view = w->logged;
        return true;
    case CLIENT_CUT:
        if (c->old.id != 0 || !spend(&w->cuts))
            return false;
        client_cut(c);
        return true;
    case CLIENT_DIES:
        return c->old.id == 0 && client_dies(w, c);
    case CLIENT_REPEATS:
        return client_repeats(w, c);
    case CLIENT_ROLLS_BACK: /* and does not want to write any more */
        if (c->phase != WRITING)
            return false;
        c->left--;
        client_done(c);
        return true;
    default:
        return false;
    }
}

static bool time_passes(struct world *w)
{
    const struct link *holder = find_link(w, w->lease.holder);
    struct hw_lease lease;
    uint64_t fence = w->lease.fence;

    if (w->is_down || w->lease.state != HW_LEASE_HELD)
        return false;
    if (holder != NULL && !holder->is_cut && !spend(&w->expiries))
        return false;
    lease_unpack(w, &lease);
    hw_lease_tick(&lease, lease_ns);
    claim(lease.state == HW_LEASE_FREE || lease.fence > fence, "a lease outlived its time");
    lease_pack(w, &lease);
    return true;
}

static bool local_commit(struct world *w)
{
    if (w->stage > CHECK || w->length == HISTORY || !spend(&w->locals))
        return false; /* the server holds the write lock */
    w->history[w->length++] = (uint8_t)(LOCAL_TXN + w->locals);
    return true;
}

static bool server_act(struct world *w, unsigned action)
{
    switch (action) {
    case JOB_STEP:
        if (w->stage != NO_JOB)
            job_step(w);
        else
            return false;
        return true;
    case JOB_FAILS: /* no disk, no memory: before the transaction is there */
        if (w->stage == NO_JOB || w->stage == LOG || !spend(&w->failures))
            return false;
        job_end(w, REFUSED, HW_LEASE_FAILED);
        return true;
    case QUESTION_ANSWER:
        if (w->question_link == 0 || w->stage != NO_JOB)
            return false;
        question_answer(w);
        return true;
    case TIME_PASSES:
        return time_passes(w);
    case SERVER_CRASH:
    case SERVER_LOSES_POWER:
        if (w->is_down || !spend(&w->crashes))
            return false;
        server_crash(w, action == SERVER_LOSES_POWER);
        return true;
    case SERVER_START:
        if (!w->is_down)
            return false;
        server_start(w);
        return true;
    case LOCAL_COMMIT:
        return local_commit(w);
    default:
        if (w->logged == w->length)
            return false;
        w->logged = w->length;
        return true;
    }
}

static bool act(struct world *w, unsigned action)
{
    if (action < JOB_STEP)
        return client_act(w, action / CLIENT_ACTIONS, action % CLIENT_ACTIONS);
    return server_act(w, action);
}

static void check(const struct world *w)
{
    uint32_t there = 0, logged = 0;

    for (unsigned i = 0; i < w->length; i++) {
        uint32_t bit = 1U << w->history[i];

        claim((there & bit) == 0, "a transaction was committed twice");
        there |= bit;
        if (i < w->logged)
            logged |= bit;
        for (unsigned c = 0; c < CLIENTS; c++)
            claim(w->history[i] != w->clients[c].txn || w->clients[c].attempt == 0 ||
                      w->clients[c].txn_base == i,
                  "a transaction was committed on another state than it was made on");
    }
    claim((w->acknowledged & ~logged) == 0, "an acknowledged transaction is not in the log");
    claim((w->refused & there) == 0, "a refused transaction is in the history");
    if (setting->clients == 1 &&
        setting->locals + setting->failures + setting->cuts + setting->crashes == 0)
        claim(w->refused == 0, "whoever is alone was refused");
}

/* Nothing can happen any more. */
static void check_end(const struct world *w)
{
    for (unsigned c = 0; c < CLIENTS; c++) {
        const struct client *client = &w->clients[c];

        if (client->phase != GONE && client->generation < 3)
            claim(client->phase == IDLE && client->left == 0, "a client is stuck");
    }
}

#endif
