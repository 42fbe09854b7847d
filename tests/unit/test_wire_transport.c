/* Tests wire/transport_nng.c on sockets of this machine. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "env/bell.h"
#include "wire/transport.h"

static const uint64_t DEADLINE_NS = 20000000000; /* only a failure takes so long */

struct world {
    struct hw_env *env;
    struct hw_bell *bell;
    struct hw_transport *transport;
    char dir[256];
    char socket[300]; /* path of a socket in it */
    char bound[600];
    uint64_t random;
};

static uint64_t chance(struct world *world, uint64_t below)
{
    world->random = world->random * 6364136223846793005U + 1442695040888963407U;
    return (world->random >> 33) % below;
}

static void wake(void *ctx)
{
    hw_bell_ring(ctx);
}

static void ignore_watch(void *ctx, int watch)
{
    (void)ctx;
    (void)watch;
}

static int setup(void **state)
{
    static struct world world;
    const char *base = getenv("TMPDIR");

    world = (struct world){.env = hw_env_posix(), .random = 7};
    (void)snprintf(world.dir, sizeof(world.dir), "%s/hw-net-XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(world.dir) == NULL)
        return -1;
    (void)snprintf(world.socket, sizeof(world.socket), "%s/s", world.dir);
    *state = &world;
    if (hw_bell_open(world.env, &world.bell, NULL) != HW_OK)
        return -1;
    return hw_transport_nng_open(world.env, wake, world.bell, &world.transport, NULL);
}

static int teardown(void **state)
{
    struct world *world = *state;

    if (world->transport != NULL)
        world->transport->ops->free(world->transport);
    hw_bell_close(world->bell);
    (void)unlink(world->socket); /* its listener has done so, if it had one */
    return rmdir(world->dir);
}

/* The next event; the test fails if none comes in time. */
static void next_event(struct world *world, struct hw_transport_event *event)
{
    uint64_t end = world->env->ops->monotonic_ns(world->env) + DEADLINE_NS;

    while (world->transport->ops->next(world->transport, event) == HW_END) {
        uint64_t now = world->env->ops->monotonic_ns(world->env);

        assert_true(now < end);
        hw_bell_wait(world->bell, end - now, ignore_watch, NULL);
    }
}

static void listen_at(struct world *world, const char *url)
{
    struct hw_error err = {0};

    if (world->transport->ops->listen(world->transport, url, world->bound, sizeof(world->bound),
                                      &err) != HW_OK)
        fail_msg("%s", err.message);
}

/* Listen in the way that a scheme is listened to. */
static void listen_scheme(struct world *world, const char *scheme)
{
    char url[400];

    if (strcmp(scheme, "ipc") == 0)
        (void)snprintf(url, sizeof(url), "ipc://%s", world->socket);
    else
        (void)snprintf(url, sizeof(url), "tcp://127.0.0.1:0");
    listen_at(world, url);
}

/* Dial what was listened to; both ends. */
static void join(struct world *world, struct hw_connection **client, struct hw_connection **server)
{
    struct hw_transport_event event;

    *client = *server = NULL;
    assert_int_equal(world->transport->ops->dial(world->transport, world->bound, client, NULL),
                     HW_OK);
    while (*client == NULL || *server == NULL) {
        next_event(world, &event);
        if (event.kind == HW_EVENT_FAILED)
            fail_msg("%s", event.error.message);
        if (event.kind == HW_EVENT_CONNECTED) {
            assert_ptr_equal(event.user, client);
            *client = event.connection;
        } else {
            assert_int_equal(event.kind, HW_EVENT_ACCEPTED);
            *server = event.connection;
        }
        assert_true(event.address[0] != '\0');
    }
}

/* --------------------------------------------------------------------------------- streams */

enum { STREAM_SIZE = 8 << 20 };

struct end { /* one end of a connection: sends its own bytes and checks those of the other */
    struct hw_connection *connection;
    const uint8_t *out, *in;
    size_t sent, sending, received;
};

static void end_send(struct world *world, struct end *end)
{
    size_t most = chance(world, 4) == 0 ? 3000000 : 5000;

    end->sending = 1 + (size_t)chance(world, most);
    if (end->sending > STREAM_SIZE - end->sent)
        end->sending = STREAM_SIZE - end->sent;
    if (end->sending > 0)
        world->transport->ops->send(end->connection,
                                    (struct hw_slice){end->out + end->sent, end->sending});
}

static void end_event(struct world *world, struct end *end, const struct hw_transport_event *event)
{
    if (event->kind == HW_EVENT_SENT) {
        end->sent += end->sending;
        end_send(world, end);
    } else {
        assert_int_equal(event->kind, HW_EVENT_RECEIVED);
        assert_true(event->bytes.size > 0 && event->bytes.size <= HW_RECEIVE_SIZE);
        assert_true(event->bytes.size <= STREAM_SIZE - end->received);
        assert_memory_equal(event->bytes.bytes, end->in + end->received, event->bytes.size);
        end->received += event->bytes.size;
        world->transport->ops->receive(end->connection);
    }
}

static uint8_t *make_stream(struct world *world)
{
    uint8_t *bytes = hw_alloc(STREAM_SIZE);

    assert_non_null(bytes);
    world->env->ops->random(world->env, bytes, STREAM_SIZE);
    return bytes;
}

static void megabytes_cross_both_ways(struct world *world, const char *scheme)
{
    uint8_t *one = make_stream(world), *two = make_stream(world);
    struct end client = {.out = one, .in = two}, server = {.out = two, .in = one};
    struct hw_transport_event event;

    listen_scheme(world, scheme);
    join(world, &client.connection, &server.connection);
    world->transport->ops->set_user(client.connection, &client);
    world->transport->ops->set_user(server.connection, &server);
    world->transport->ops->receive(client.connection);
    world->transport->ops->receive(server.connection);
    end_send(world, &client);
    end_send(world, &server);
    while (client.received < STREAM_SIZE || server.received < STREAM_SIZE ||
           client.sent < STREAM_SIZE || server.sent < STREAM_SIZE) {
        next_event(world, &event);
        assert_true(event.user == &client || event.user == &server);
        end_event(world, event.user, &event);
    }
    world->transport->ops->close(client.connection);
    next_event(world, &event); /* the other end learns of it */
    assert_int_equal(event.kind, HW_EVENT_CLOSED);
    assert_ptr_equal(event.user, &server);
    assert_non_null(strstr(event.error.message, "closed by the remote"));
    world->transport->ops->close(server.connection);
    hw_free(one);
    hw_free(two);
}

static void megabytes_in_random_pieces_cross_tcp_both_ways(void **state)
{
    megabytes_cross_both_ways(*state, "tcp");
}

static void megabytes_in_random_pieces_cross_ipc_both_ways(void **state)
{
    megabytes_cross_both_ways(*state, "ipc");
}

/* Is there an event within this time? */
static bool event_within(struct world *world, uint64_t time_ns, struct hw_transport_event *event)
{
    uint64_t end = world->env->ops->monotonic_ns(world->env) + time_ns, now;

    while (world->transport->ops->next(world->transport, event) == HW_END) {
        now = world->env->ops->monotonic_ns(world->env);
        if (now >= end)
            return false;
        hw_bell_wait(world->bell, end - now, ignore_watch, NULL);
    }
    return true;
}

/* At most what the sockets hold is taken from the sender, until the reader reads. */
static void unread_bytes_stop(struct world *world, const char *scheme)
{
    enum { PIECE = 1 << 20, SOCKETS_HOLD = 16 << 20 };
    struct hw_transport_event event;
    struct hw_connection *client, *server;
    uint8_t *bytes = make_stream(world);
    size_t taken = 0;

    listen_scheme(world, scheme);
    join(world, &client, &server);
    world->transport->ops->send(client, (struct hw_slice){bytes, PIECE});
    while (event_within(world, 200000000, &event)) {
        assert_int_equal(event.kind, HW_EVENT_SENT);
        taken += PIECE;
        assert_true(taken < SOCKETS_HOLD);
        world->transport->ops->send(client, (struct hw_slice){bytes, PIECE});
    }
    taken += PIECE;
    for (size_t received = 0; received < taken;) {
        world->transport->ops->receive(server);
        do
            next_event(world, &event);
        while (event.kind == HW_EVENT_SENT);
        assert_int_equal(event.kind, HW_EVENT_RECEIVED);
        received += event.bytes.size;
    }
    hw_free(bytes);
}

static void a_reader_that_does_not_read_stops_the_sender(void **state)
{
    unread_bytes_stop(*state, "tcp");
}

static void hundreds_of_connections_live_beside_each_other(void **state)
{
    enum { COUNT = 300 };
    struct world *world = *state;
    struct hw_connection *clients[COUNT], *servers[COUNT];
    struct hw_transport_event event;
    uint8_t numbers[COUNT];
    bool seen[COUNT] = {false};

    listen_scheme(world, "tcp");
    for (unsigned i = 0; i < COUNT; i++) {
        numbers[i] = (uint8_t)i;
        join(world, &clients[i], &servers[i]);
        world->transport->ops->set_user(servers[i], &seen[i]);
        world->transport->ops->receive(servers[i]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        world->transport->ops->send(clients[i], (struct hw_slice){&numbers[i], 1});
    for (unsigned i = 0; i < 2 * COUNT; i++) {
        next_event(world, &event);
        if (event.kind == HW_EVENT_SENT)
            continue;
        assert_int_equal(event.kind, HW_EVENT_RECEIVED);
        assert_int_equal(event.bytes.size, 1);
        assert_int_equal(event.bytes.bytes[0], (uint8_t)((bool *)event.user - seen));
        *(bool *)event.user = true;
    }
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(seen[i]);
}

/* ------------------------------------------------------------------------------- the end */

static void nothing_is_told_of_a_connection_after_its_close(void **state)
{
    struct world *world = *state;
    struct hw_connection *client, *server;
    struct hw_transport_event event;
    uint8_t *bytes = make_stream(world);

    for (unsigned round = 0; round < 50; round++) {
        if (round == 0)
            listen_scheme(world, "tcp");
        join(world, &client, &server);
        world->transport->ops->receive(client);
        world->transport->ops->send(client, (struct hw_slice){bytes, STREAM_SIZE});
        world->transport->ops->receive(server);
        if (round % 2 == 0) { /* let something be under way, in the queue, or neither */
            next_event(world, &event);
            assert_ptr_equal(event.connection, server);
        }
        world->transport->ops->close(client);
        world->transport->ops->close(server);
        assert_int_equal(world->transport->ops->next(world->transport, &event), HW_END);
    }
    hw_free(bytes);
}

static void a_transport_is_freed_with_everything_under_way(void **state)
{
    struct world *world = *state;
    static const char *schemes[] = {"tcp", "ipc"};
    char bound[2][600];
    uint8_t *bytes = make_stream(world);
    struct hw_connection *clients[2], *servers[2];

    for (unsigned i = 0; i < 2; i++) {
        listen_scheme(world, schemes[i]);
        memcpy(bound[i], world->bound, sizeof(bound[i]));
        join(world, &clients[i], &servers[i]);
    }
    for (unsigned i = 0; i < 2; i++) {
        world->transport->ops->receive(clients[i]);
        world->transport->ops->send(servers[i], (struct hw_slice){bytes, STREAM_SIZE});
        world->transport->ops->receive(servers[i]);
    }
    for (unsigned i = 0; i < 30; i++) /* some will be accepted, and nobody looked */
        assert_int_equal(world->transport->ops->dial(world->transport, bound[i % 2], NULL, NULL),
                         HW_OK);
    world->transport->ops->free(world->transport);
    world->transport = NULL;
    hw_free(bytes);
}

/* A plain socket, connected to what is listened to. */
static int plain_socket(struct world *world)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(strrchr(world->bound, ':') + 1, NULL, 10));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void what_came_before_a_half_close_is_received(void **state)
{
    struct world *world = *state;
    struct hw_transport_event event;
    int fd;

    listen_scheme(world, "tcp");
    fd = plain_socket(world);
    assert_int_equal(send(fd, "last words", 10, 0), 10);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_ACCEPTED);
    world->transport->ops->receive(event.connection);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_RECEIVED);
    assert_int_equal(event.bytes.size, 10);
    world->transport->ops->receive(event.connection);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_CLOSED);
    world->transport->ops->receive(event.connection); /* nothing more is told */
    assert_false(event_within(world, 10000000, &event));
    assert_int_equal(close(fd), 0);
}

static void a_reset_by_the_remote_is_told_once(void **state)
{
    struct world *world = *state;
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    struct hw_transport_event event;
    uint8_t *bytes = make_stream(world);
    struct hw_connection *connection;
    int fd;

    listen_scheme(world, "tcp");
    fd = plain_socket(world);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_ACCEPTED);
    connection = event.connection;
    world->transport->ops->receive(event.connection);
    world->transport->ops->send(event.connection, (struct hw_slice){bytes, STREAM_SIZE});
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    assert_int_equal(close(fd), 0);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_CLOSED);
    assert_true(event.error.message[0] != '\0');
    assert_ptr_equal(event.connection, connection);
    assert_false(event_within(world, 10000000, &event));
    world->transport->ops->close(connection);
    hw_free(bytes);
}

/* ------------------------------------------------------------------------------- refusals */

static void expect_failure(struct world *world, const char *url, const char *words)
{
    struct hw_transport_event event;
    int user;

    assert_int_equal(world->transport->ops->dial(world->transport, url, &user, NULL), HW_OK);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_FAILED);
    assert_ptr_equal(event.user, &user);
    assert_null(event.connection);
    if (strstr(event.error.message, words) == NULL || strstr(event.error.message, url) == NULL)
        fail_msg("%s: not like '%s'", event.error.message, words);
}

static void a_dial_to_nobody_fails_with_the_reason(void **state)
{
    struct world *world = *state;
    char url[400];

    expect_failure(world, "tcp://127.0.0.1:1", "nobody listens there");
    (void)snprintf(url, sizeof(url), "ipc://%s", world->socket);
    expect_failure(world, url, "nobody listens there");
}

static void refused_url(struct world *world, const char *url)
{
    struct hw_error err = {0};
    char bound[64];

    assert_int_equal(
        world->transport->ops->listen(world->transport, url, bound, sizeof(bound), &err),
        HW_EMISUSE);
    assert_non_null(strstr(err.message, url));
    memset(&err, 0, sizeof(err));
    assert_int_equal(world->transport->ops->dial(world->transport, url, NULL, &err), HW_EMISUSE);
    assert_non_null(strstr(err.message, url));
}

static void a_url_of_another_kind_is_refused(void **state)
{
    refused_url(*state, "udp://127.0.0.1:4970");
    refused_url(*state, "tls+tcp://127.0.0.1:4970");
    refused_url(*state, "inproc://here");
    refused_url(*state, "127.0.0.1:4970");
    refused_url(*state, "");
}

static enum hw_status listen_status(struct world *world, const char *url, struct hw_error *err)
{
    char bound[600];

    memset(err, 0, sizeof(*err));
    return world->transport->ops->listen(world->transport, url, bound, sizeof(bound), err);
}

static void a_port_in_use_is_named(void **state)
{
    struct world *world = *state;
    struct hw_error err;

    listen_scheme(world, "tcp");
    assert_int_equal(listen_status(world, world->bound, &err), HW_EBUSY);
    assert_non_null(strstr(err.message, world->bound));
    assert_non_null(strstr(err.message, "another process listens there"));
    assert_int_equal(listen_status(world, "tcp://192.0.2.1:4970", &err), HW_EMISUSE);
    assert_non_null(strstr(err.message, "one of this machine"));
}

static void a_socket_file_that_nobody_answers_is_replaced(void **state)
{
    struct world *world = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct hw_connection *client, *server;
    struct hw_error err;
    char url[400];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_true(strlen(world->socket) < sizeof(address.sun_path));
    memcpy(address.sun_path, world->socket, strlen(world->socket) + 1);
    (void)snprintf(url, sizeof(url), "ipc://%s", world->socket);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(listen_status(world, url, &err), HW_EBUSY); /* it is alive */
    assert_int_equal(close(fd), 0);
    assert_int_equal(access(world->socket, F_OK), 0); /* as a killed process leaves it */
    listen_at(world, url);
    join(world, &client, &server);
}

static void a_file_is_not_taken_for_an_old_socket(void **state)
{
    struct world *world = *state;
    struct hw_file *file = NULL;
    struct hw_error err;
    char url[400];

    (void)snprintf(url, sizeof(url), "ipc://%s", world->socket);
    assert_int_equal(world->env->ops->open(world->env, world->socket,
                                           HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file,
                                           NULL),
                     HW_OK);
    world->env->ops->close(file);
    assert_int_equal(listen_status(world, url, &err), HW_EEXIST);
    assert_non_null(strstr(err.message, "file of that name"));
    assert_int_equal(access(world->socket, F_OK), 0);
    (void)snprintf(url, sizeof(url), "ipc://%s", world->dir);
    assert_int_equal(listen_status(world, url, &err), HW_EEXIST);
}

/* --------------------------------------------------------------------------------- limits */

static unsigned complaints; /* lines of the log */

static void count_lines(void *ctx, enum hw_log_level level, const char *line)
{
    (void)ctx;
    if (level >= HW_LOG_WARN && strstr(line, "event=accept_failed") != NULL)
        complaints++;
}

/* What earlier connections held is given back by a thread of nng, whenever it comes to it. */
static int take_all(int fd, int *taken, int count, int max)
{
    while (count < max && (taken[count] = dup(fd)) >= 0)
        count++;
    return count;
}

static void accepting_waits_until_there_are_descriptors_again(void **state)
{
    enum { FILLED = 96, TRIES = 16 };
    struct world *world = *state;
    struct hw_connection *client, *server;
    struct hw_transport_event event;
    struct rlimit old, low;
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fds[TRIES], filled[FILLED], count = 0, tries = 0;
    bool accepted = true;

    listen_scheme(world, "tcp");
    join(world, &client, &server); /* all that nng opens once is open */
    for (int i = 0; i < TRIES; i++)
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)fds[TRIES - 1] + 16;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    hw_env_posix_set_log(count_lines, NULL);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(strrchr(world->bound, ':') + 1, NULL, 10));
    while (accepted && tries < TRIES) { /* until none came free in between */
        count = take_all(fds[0], filled, count, FILLED);
        complaints = 0;
        assert_int_equal(connect(fds[tries++], (struct sockaddr *)&address, sizeof(address)), 0);
        accepted = event_within(world, 700000000, &event);
    }
    assert_false(accepted);
    hw_env_posix_set_log(NULL, NULL);
    while (count > 0)
        assert_int_equal(close(filled[--count]), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_in_range(complaints, 1, 5);
    next_event(world, &event);
    assert_int_equal(event.kind, HW_EVENT_ACCEPTED);
    for (int i = 0; i < TRIES; i++)
        assert_int_equal(close(fds[i]), 0);
}

static void no_more_connections_are_kept_than_are_allowed(void **state)
{
    enum { MORE = 3 };
    struct world *world = *state;
    struct hw_connection *client, *server;
    struct hw_transport_event event;
    struct rlimit limit;
    int fds[MORE];
    char byte;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_cur < HW_TRANSPORT_CONNECTIONS_MAX + 100)
        skip();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    listen_scheme(world, "tcp");
    for (unsigned i = 0; i < HW_TRANSPORT_CONNECTIONS_MAX; i += 2)
        join(world, &client, &server);
    assert_int_equal(world->transport->ops->dial(world->transport, world->bound, NULL, NULL),
                     HW_ELIMIT);
    for (unsigned i = 0; i < MORE; i++)
        fds[i] = plain_socket(world);
    assert_false(event_within(world, 50000000, &event));
    for (unsigned i = 0; i < MORE; i++) {
        assert_int_equal(recv(fds[i], &byte, 1, 0), 0); /* it was closed */
        assert_int_equal(close(fds[i]), 0);
    }
    world->transport->ops->close(client);
    world->transport->ops->close(server);
    join(world, &client, &server);
}

struct shortage {
    unsigned left; /* allocations that succeed */
    bool hit;
};

static bool allow_some(void *ctx, size_t size)
{
    struct shortage *shortage = ctx;

    (void)size;
    if (shortage->left > 0) {
        shortage->left--;
        return true;
    }
    shortage->hit = true;
    return false;
}

/* Listen, dial and take events until both ends are there, or something fails. */
static bool join_with_faults(struct world *world)
{
    struct hw_transport_event event;
    struct hw_error err;
    unsigned ends = 0;

    if (world->transport->ops->listen(world->transport, "tcp://127.0.0.1:0", world->bound,
                                      sizeof(world->bound), &err) != HW_OK)
        return err.status != HW_ENOMEM;
    if (world->transport->ops->dial(world->transport, world->bound, NULL, &err) != HW_OK)
        return err.status != HW_ENOMEM;
    while (ends < 2 && event_within(world, 100000000, &event)) {
        if (event.kind == HW_EVENT_FAILED)
            return event.error.status != HW_ENOMEM;
        ends += event.kind == HW_EVENT_ACCEPTED || event.kind == HW_EVENT_CONNECTED;
    }
    return ends == 2;
}

static void without_memory_a_call_fails_and_nothing_leaks(void **state)
{
    struct world *world = *state;
    struct shortage shortage;
    unsigned faults = 0;
    bool worked, leaked = false;

    world->transport->ops->free(world->transport);
    do {
        world->transport = NULL;
        shortage = (struct shortage){.left = faults++};
        hw_alloc_set_hook(allow_some, &shortage);
        worked = hw_transport_nng_open(world->env, wake, world->bell, &world->transport, NULL) ==
                     HW_OK &&
                 join_with_faults(world);
        if (world->transport != NULL)
            world->transport->ops->free(world->transport);
        leaked = leaked || hw_alloc_live() != 0;
        hw_alloc_set_hook(NULL, NULL);
    } while (shortage.hit && faults < 100);
    world->transport = NULL;
    assert_true(worked);
    assert_false(leaked);
    assert_in_range(faults, 5, 20);
}

/* nng cannot be used by a forked child: it is told so, and nothing of its parent is touched. */
static void a_forked_child_is_refused(void **state)
{
    struct world *world = *state;
    int code = 0;
    pid_t child;

    listen_scheme(world, "tcp");
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct hw_transport *transport = NULL;
        struct hw_error err = {0};
        enum hw_status status =
            hw_transport_nng_open(world->env, wake, world->bell, &transport, &err);

        world->transport->ops->free(world->transport);
        _exit(status == HW_EMISUSE && strstr(err.message, "fork") != NULL ? 7 : 1);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 7);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(megabytes_in_random_pieces_cross_tcp_both_ways),
        TEST(megabytes_in_random_pieces_cross_ipc_both_ways),
        TEST(a_reader_that_does_not_read_stops_the_sender),
        TEST(hundreds_of_connections_live_beside_each_other),
        TEST(nothing_is_told_of_a_connection_after_its_close),
        TEST(a_transport_is_freed_with_everything_under_way),
        TEST(what_came_before_a_half_close_is_received),
        TEST(a_reset_by_the_remote_is_told_once),
        TEST(a_dial_to_nobody_fails_with_the_reason),
        TEST(a_url_of_another_kind_is_refused),
        TEST(a_port_in_use_is_named),
        TEST(a_socket_file_that_nobody_answers_is_replaced),
        TEST(a_file_is_not_taken_for_an_old_socket),
        TEST(accepting_waits_until_there_are_descriptors_again),
        TEST(no_more_connections_are_kept_than_are_allowed),
        TEST(without_memory_a_call_fails_and_nothing_leaks),
        TEST(a_forked_child_is_refused),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
