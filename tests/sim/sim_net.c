/* Implements sim/sim_net.h. */
#include "sim/sim_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY_START = 256 << 10, FIRST_PORT = 40000 };

struct chunk { /* bytes on their way */
    struct chunk *next;
    uint64_t arrives_ns;
    size_t size, taken;
    uint8_t bytes[];
};

/* One end.  Lives until its owner closes it. */
struct hw_connection {
    struct hw_connection *next;   /* of the net */
    struct sim_host *host;        /* borrowed */
    struct hw_connection *remote; /* NULL: it is closed or cut */
    uint64_t id;
    void *user;
    bool is_unborn; /* ACCEPTED, CONNECTED or FAILED is still to be told */
    bool is_dialed;
    uint64_t born_ns;           /* when that is due */
    bool is_receiving;          /* the owner waits for bytes */
    struct hw_slice left;       /* of what is being sent, borrowed from the owner */
    bool is_sending;            /* SENT is owed */
    bool is_over;               /* no byte comes after those that are on their way */
    struct hw_error error;      /* why */
    struct chunk *first, *last; /* bytes that come */
    size_t coming;              /* bytes */
    uint8_t *received;          /* owned: bytes of the last RECEIVED */
};

struct listener {
    struct listener *next;
    struct sim_host *host;
    char url[256];
};

struct sim_host {
    struct hw_transport base; /* the first field */
    struct sim_net *net;
    struct sim_host *next;
    bool is_silent;
    char name[64];
};

struct sim_net {
    struct hw_env *env;
    uint64_t chance, next_id, trace;
    unsigned next_port, cuts;
    uint64_t delay_min_ns, delay_max_ns;
    size_t piece, capacity;
    uint64_t cut_left, cut_mean; /* 0: no cut */
    uint64_t bytes;
    struct sim_host *hosts;
    struct listener *listeners;
    struct hw_connection *connections;
};

/* --------------------------------------------------------------------- chance, time, memory */

static void *get(size_t size)
{
    void *memory = calloc(1, size);

    if (memory == NULL)
        abort();
    return memory;
}

/* From 0 up to below `n`. */
static uint64_t chance(struct sim_net *net, uint64_t n)
{
    net->chance ^= net->chance << 13;
    net->chance ^= net->chance >> 7;
    net->chance ^= net->chance << 17;
    return n == 0 ? 0 : (net->chance * 0x2545f4914f6cdd1dU >> 11) % n;
}

static uint64_t now_ns(const struct sim_net *net)
{
    return net->env->ops->monotonic_ns(net->env);
}

static uint64_t arrival(struct sim_net *net)
{
    return now_ns(net) + net->delay_min_ns + chance(net, net->delay_max_ns - net->delay_min_ns + 1);
}

static void trace(struct sim_net *net, uint64_t what)
{
    net->trace = (net->trace ^ what) * 0x100000001b3U;
}

static struct sim_host *as_host(struct hw_transport *transport)
{
    return (struct sim_host *)transport;
}

/* ------------------------------------------------------------------------------ connections */

static struct hw_connection *connection_new(struct sim_host *host, void *user, bool is_dialed)
{
    struct hw_connection *connection = get(sizeof(*connection));

    connection->host = host;
    connection->user = user;
    connection->id = host->net->next_id++;
    connection->is_dialed = is_dialed;
    connection->is_unborn = true;
    connection->born_ns = arrival(host->net);
    connection->next = host->net->connections;
    host->net->connections = connection;
    return connection;
}

static void drop_coming(struct hw_connection *connection)
{
    struct chunk *next;

    for (struct chunk *chunk = connection->first; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    connection->first = connection->last = NULL;
    connection->coming = 0;
}

static void end(struct hw_connection *connection, const char *why)
{
    connection->remote = NULL;
    connection->is_over = true;
    (void)hw_fail(&connection->error, HW_EIO, "%s", why);
}

static void connection_free(struct hw_connection *connection)
{
    struct hw_connection **at = &connection->host->net->connections;

    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    drop_coming(connection);
    free(connection->received);
    free(connection);
}

/* Both ends, and what is on its way. */
static void cut(struct hw_connection *connection)
{
    struct hw_connection *remote = connection->remote;

    drop_coming(connection);
    end(connection, "cut");
    if (remote == NULL)
        return;
    drop_coming(remote);
    end(remote, "cut");
}

/* Take in what there is room for of what is being sent. */
static void move_bytes(struct hw_connection *connection)
{
    struct sim_net *net = connection->host->net;
    struct hw_connection *remote = connection->remote;

    while (remote != NULL && connection->left.size > 0 && remote->coming < net->capacity) {
        size_t room = net->capacity - remote->coming;
        size_t size = connection->left.size < room ? connection->left.size : room;
        struct chunk *chunk = get(sizeof(*chunk) + size);

        memcpy(chunk->bytes, connection->left.bytes, size);
        chunk->size = size;
        chunk->arrives_ns = arrival(net);
        if (remote->last != NULL && remote->last->arrives_ns > chunk->arrives_ns)
            chunk->arrives_ns = remote->last->arrives_ns;
        *(remote->last == NULL ? &remote->first : &remote->last->next) = chunk;
        remote->last = chunk;
        remote->coming += size;
        connection->left.bytes += size;
        connection->left.size -= size;
    }
}

/* ------------------------------------------------------------------------------- what is due */

static bool is_silent(const struct hw_connection *connection)
{
    return connection->host->is_silent ||
           (connection->remote != NULL && connection->remote->host->is_silent);
}

/* When has this end something to tell its owner?  UINT64_MAX: not by time alone. */
static uint64_t due_ns(const struct hw_connection *connection)
{
    if (connection->is_unborn)
        return is_silent(connection) ? UINT64_MAX : connection->born_ns;
    if (connection->is_sending && (connection->left.size == 0 || connection->is_over))
        return 0;
    if (!connection->is_receiving || is_silent(connection))
        return UINT64_MAX;
    if (connection->first != NULL)
        return connection->first->arrives_ns;
    return connection->is_over ? 0 : UINT64_MAX;
}

uint64_t sim_net_deadline(const struct sim_net *net)
{
    uint64_t deadline = UINT64_MAX;

    for (const struct hw_connection *c = net->connections; c != NULL; c = c->next) {
        uint64_t due = due_ns(c);

        deadline = due < deadline ? due : deadline;
    }
    return deadline;
}

/* One of those that are due, by chance. */
static struct hw_connection *choose(struct sim_host *host)
{
    struct sim_net *net = host->net;
    struct hw_connection *chosen = NULL;
    uint64_t now = now_ns(net), count = 0;

    for (struct hw_connection *c = net->connections; c != NULL; c = c->next)
        if (c->host == host && due_ns(c) <= now && chance(net, ++count) == 0)
            chosen = c;
    return chosen;
}

static void plan_cut(struct sim_net *net)
{
    net->cut_left = net->cut_mean == 0 ? 0 : 1 + chance(net, 2 * net->cut_mean);
}

static void tell_bytes(struct hw_connection *connection, struct hw_transport_event *out)
{
    struct sim_net *net = connection->host->net;
    struct chunk *chunk = connection->first;
    size_t size = chunk->size - chunk->taken;

    if (size > net->piece)
        size = net->piece;
    size -= (size_t)chance(net, 2) * (size_t)chance(net, size);
    if (net->cut_left > 0 && size > net->cut_left)
        size = (size_t)net->cut_left;
    free(connection->received);
    connection->received = get(size);
    memcpy(connection->received, chunk->bytes + chunk->taken, size);
    out->kind = HW_EVENT_RECEIVED;
    out->bytes = (struct hw_slice){connection->received, size};
    connection->is_receiving = false;
    connection->coming -= size;
    net->bytes += size;
    chunk->taken += size;
    if (chunk->taken == chunk->size) {
        connection->first = chunk->next;
        if (connection->first == NULL)
            connection->last = NULL;
        free(chunk);
    }
    if (connection->remote != NULL)
        move_bytes(connection->remote);
    if (net->cut_left == 0)
        return;
    net->cut_left -= size;
    if (net->cut_left == 0) {
        net->cuts++;
        cut(connection);
        plan_cut(net);
    }
}

static void tell_birth(struct hw_connection *connection, struct hw_transport_event *out)
{
    connection->is_unborn = false;
    if (!connection->is_dialed) {
        out->kind = HW_EVENT_ACCEPTED;
    } else if (connection->is_over) {
        out->kind = HW_EVENT_FAILED;
        out->error = connection->error;
        out->connection = NULL;
        connection_free(connection);
    } else {
        out->kind = HW_EVENT_CONNECTED;
    }
}

static enum hw_status net_next(struct hw_transport *transport, struct hw_transport_event *out)
{
    struct sim_host *host = as_host(transport);
    struct hw_connection *connection = choose(host);

    if (connection == NULL)
        return HW_END;
    *out = (struct hw_transport_event){.connection = connection, .user = connection->user};
    (void)snprintf(out->address, sizeof(out->address), "sim:%s:%llu", host->name,
                   (unsigned long long)connection->id);
    trace(host->net, connection->id);
    if (connection->is_unborn) {
        tell_birth(connection, out);
    } else if (connection->is_sending && connection->left.size == 0) {
        out->kind = HW_EVENT_SENT;
        connection->is_sending = false;
    } else if (connection->first != NULL && connection->is_receiving) {
        tell_bytes(connection, out);
    } else {
        out->kind = HW_EVENT_CLOSED;
        out->error = connection->error;
        connection->is_sending = connection->is_receiving = false;
    }
    trace(host->net, (uint64_t)out->kind << 32 | out->bytes.size);
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- ops */

static struct listener *find_listener(const struct sim_net *net, const char *url)
{
    for (struct listener *l = net->listeners; l != NULL; l = l->next)
        if (strcmp(l->url, url) == 0)
            return l;
    return NULL;
}

static enum hw_status net_listen(struct hw_transport *transport, const char *url, char *bound,
                                 size_t bound_size, struct hw_error *err)
{
    struct sim_host *host = as_host(transport);
    struct sim_net *net = host->net;
    size_t size = strlen(url);
    struct listener *listener;

    if (size + 8 > sizeof(listener->url))
        return hw_fail(err, HW_EMISUSE, "%s: too long", url);
    if (find_listener(net, url) != NULL)
        return hw_fail(err, HW_EBUSY, "%s: another listens there", url);
    listener = get(sizeof(*listener));
    if (size > 2 && strcmp(url + size - 2, ":0") == 0)
        (void)snprintf(listener->url, sizeof(listener->url), "%.*s:%u", (int)size - 2, url,
                       net->next_port++);
    else
        (void)snprintf(listener->url, sizeof(listener->url), "%s", url);
    listener->host = host;
    listener->next = net->listeners;
    net->listeners = listener;
    (void)snprintf(bound, bound_size, "%s", listener->url);
    return HW_OK;
}

static enum hw_status net_dial(struct hw_transport *transport, const char *url, void *user,
                               struct hw_error *err)
{
    struct sim_host *host = as_host(transport);
    const struct listener *listener = find_listener(host->net, url);
    struct hw_connection *own = connection_new(host, user, true), *theirs;

    (void)err;
    if (listener == NULL) {
        end(own, "nobody listens there");
        return HW_OK;
    }
    theirs = connection_new(listener->host, NULL, false);
    own->remote = theirs;
    theirs->remote = own;
    return HW_OK;
}

static void net_set_user(struct hw_connection *connection, void *user)
{
    connection->user = user;
}

static void net_receive(struct hw_connection *connection)
{
    if (connection->is_receiving)
        abort(); /* one at a time */
    connection->is_receiving = true;
}

static void net_send(struct hw_connection *connection, struct hw_slice bytes)
{
    if (connection->is_sending || bytes.size == 0)
        abort(); /* one at a time, and something */
    connection->is_sending = true;
    connection->left = bytes;
    move_bytes(connection);
}

/* What is on its way arrives, or does not: as the machine's buffers were. */
static void net_close(struct hw_connection *connection)
{
    struct hw_connection *remote = connection->remote;

    if (remote != NULL) {
        end(remote, "closed by the remote");
        if (chance(connection->host->net, 2) == 0)
            drop_coming(remote);
    }
    connection_free(connection);
}

static void net_free(struct hw_transport *transport)
{
    struct sim_host *host = as_host(transport), **at = &host->net->hosts;
    struct listener **l = &host->net->listeners;

    for (struct hw_connection *next, *c = host->net->connections; c != NULL; c = next) {
        next = c->next;
        if (c->host == host)
            net_close(c);
    }
    while (*l != NULL) {
        struct listener *listener = *l;

        if (listener->host == host) {
            *l = listener->next;
            free(listener);
        } else {
            l = &listener->next;
        }
    }
    while (*at != host)
        at = &(*at)->next;
    *at = host->next;
    free(host);
}

static const struct hw_transport_ops net_ops = {
    .next = net_next,
    .listen = net_listen,
    .dial = net_dial,
    .set_user = net_set_user,
    .receive = net_receive,
    .send = net_send,
    .close = net_close,
    .free = net_free,
};

/* ----------------------------------------------------------------------------------- the net */

struct sim_net *sim_net_new(struct hw_env *env, uint64_t seed)
{
    struct sim_net *net = get(sizeof(*net));

    net->env = env;
    net->chance = seed == 0 ? 1 : seed;
    net->trace = 0xcbf29ce484222325U;
    net->next_port = FIRST_PORT;
    net->piece = HW_RECEIVE_SIZE;
    net->capacity = CAPACITY_START;
    for (unsigned i = 0; i < 16; i++)
        (void)chance(net, 2); /* small seeds differ at once */
    return net;
}

void sim_net_free(struct sim_net *net)
{
    if (net == NULL)
        return;
    if (net->hosts != NULL)
        abort(); /* a transport lives */
    free(net);
}

struct hw_transport *sim_net_host(struct sim_net *net, const char *name)
{
    struct sim_host *host = get(sizeof(*host));

    host->base.ops = &net_ops;
    host->net = net;
    host->next = net->hosts;
    net->hosts = host;
    (void)snprintf(host->name, sizeof(host->name), "%s", name);
    return &host->base;
}

void sim_net_set_delay(struct sim_net *net, uint64_t min_ns, uint64_t max_ns)
{
    net->delay_min_ns = min_ns;
    net->delay_max_ns = max_ns < min_ns ? min_ns : max_ns;
}

void sim_net_set_piece(struct sim_net *net, size_t size)
{
    net->piece = size == 0 || size > HW_RECEIVE_SIZE ? HW_RECEIVE_SIZE : size;
}

void sim_net_set_capacity(struct sim_net *net, size_t size)
{
    net->capacity = size == 0 ? 1 : size;
}

void sim_net_cut_after(struct sim_net *net, uint64_t bytes)
{
    net->cut_left = bytes;
}

void sim_net_set_cuts(struct sim_net *net, uint64_t mean_bytes)
{
    net->cut_mean = mean_bytes;
    plan_cut(net);
}

void sim_net_cut_host(struct sim_net *net, struct hw_transport *host)
{
    for (struct hw_connection *c = net->connections; c != NULL; c = c->next)
        if (&c->host->base == host)
            cut(c);
}

void sim_net_set_silent(struct sim_net *net, struct hw_transport *host, bool silent)
{
    (void)net;
    as_host(host)->is_silent = silent;
}

uint64_t sim_net_bytes(const struct sim_net *net)
{
    return net->bytes;
}

unsigned sim_net_cuts(const struct sim_net *net)
{
    return net->cuts;
}

unsigned sim_net_connections(const struct sim_net *net)
{
    unsigned count = 0;

    for (const struct hw_connection *c = net->connections; c != NULL; c = c->next)
        count++;
    return count;
}

uint64_t sim_net_trace_hash(const struct sim_net *net)
{
    return net->trace;
}
