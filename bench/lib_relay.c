/* Implements bench/lib_relay.h: one process, ppoll(), at most eight connections. */
#include "lib_relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS_MAX = 8, CHUNK = 64 << 10, WAITING_MAX = 64 << 20 };

struct piece { /* what is under way */
    struct piece *next;
    uint64_t due_ns;
    size_t size;
    char bytes[];
};

struct way { /* towards one end */
    struct piece *first, **last;
    size_t size;
};

struct relay {
    int listener, in, out;
    unsigned port;
    uint64_t delay_ns;
    int ends[2 * PAIRS_MAX];        /* 2i the one who came, 2i + 1 the one we dialed; -1: free */
    struct way ways[2 * PAIRS_MAX]; /* to that end */
    uint64_t bytes[2];              /* up, down */
};

static struct sockaddr_in loopback(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void pair_accept(struct relay *relay)
{
    struct sockaddr_in address = loopback(relay->port);
    int yes = 1, from = accept(relay->listener, NULL, NULL), to = socket(AF_INET, SOCK_STREAM, 0);

    for (unsigned i = 0; from >= 0 && to >= 0 && i < PAIRS_MAX; i++) {
        if (relay->ends[2 * i] >= 0)
            continue;
        if (connect(to, (struct sockaddr *)&address, sizeof(address)) != 0)
            break;
        (void)setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        (void)setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
        relay->ends[2 * i] = from;
        relay->ends[2 * i + 1] = to;
        return;
    }
    close(from);
    close(to);
}

static void way_clear(struct way *way)
{
    while (way->first != NULL) {
        struct piece *next = way->first->next;

        free(way->first);
        way->first = next;
    }
    *way = (struct way){0};
}

static void pair_close(struct relay *relay, unsigned end)
{
    close(relay->ends[end]);
    close(relay->ends[end ^ 1]);
    relay->ends[end] = relay->ends[end ^ 1] = -1;
    way_clear(&relay->ways[end]);
    way_clear(&relay->ways[end ^ 1]);
}

static bool write_all(int to, const char *bytes, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(to, bytes + done, size - done);

        if (wrote <= 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

static void keep_back(struct relay *relay, unsigned to, const char *bytes, size_t size)
{
    struct way *way = &relay->ways[to];
    struct piece *piece = malloc(sizeof(*piece) + size);

    if (piece == NULL)
        bench_die("relay: no memory");
    piece->next = NULL;
    piece->due_ns = bench_now_ns() + relay->delay_ns;
    piece->size = size;
    memcpy(piece->bytes, bytes, size);
    if (way->first == NULL)
        way->last = &way->first;
    *way->last = piece;
    way->last = &piece->next;
    way->size += size;
}

static void pass_on(struct relay *relay, unsigned end)
{
    static char bytes[CHUNK];
    ssize_t size = read(relay->ends[end], bytes, sizeof(bytes));

    if (size > 0 && relay->delay_ns > 0)
        keep_back(relay, end ^ 1, bytes, (size_t)size);
    else if (size > 0 && !write_all(relay->ends[end ^ 1], bytes, (size_t)size))
        size = -1;
    if (size <= 0) {
        pair_close(relay, end);
        return;
    }
    relay->bytes[end & 1] += (uint64_t)size;
}

/* What is due goes out; false: nothing else is under way.  *pause: until it is due. */
static bool deliver(struct relay *relay, struct timespec *pause)
{
    uint64_t now = bench_now_ns(), next = UINT64_MAX;

    for (unsigned i = 0; i < 2 * PAIRS_MAX; i++) {
        struct way *way = &relay->ways[i];

        while (way->first != NULL && way->first->due_ns <= now) {
            struct piece *piece = way->first;

            if (!write_all(relay->ends[i], piece->bytes, piece->size)) {
                pair_close(relay, i);
                break;
            }
            way->first = piece->next;
            way->size -= piece->size;
            free(piece);
        }
        if (way->first != NULL && way->first->due_ns < next)
            next = way->first->due_ns;
    }
    if (next == UINT64_MAX)
        return false;
    *pause =
        (struct timespec){(time_t)((next - now) / 1000000000), (long)((next - now) % 1000000000)};
    return true;
}

static void body(void *ctx, int in, int out)
{
    struct relay *relay = ctx;

    relay->port = (unsigned)bench_hear(in);
    for (;;) {
        struct pollfd fds[2 + 2 * PAIRS_MAX] = {{in, POLLIN, 0}, {relay->listener, POLLIN, 0}};
        struct timespec pause;
        bool is_under_way;

        for (unsigned i = 0; i < 2 * PAIRS_MAX; i++)
            fds[2 + i] = (struct pollfd){
                relay->ways[i ^ 1].size < WAITING_MAX ? relay->ends[i] : -1, POLLIN, 0};
        is_under_way = deliver(relay, &pause);
        if (ppoll(fds, 2 + 2 * PAIRS_MAX, is_under_way ? &pause : NULL, NULL) < 0 && errno != EINTR)
            bench_die("ppoll: %s", strerror(errno));
        if (fds[0].revents != 0) {
            uint64_t ask;

            if (read(in, &ask, sizeof(ask)) != sizeof(ask))
                return; /* the other side has ended it */
            bench_tell(out, relay->bytes[0]);
            bench_tell(out, relay->bytes[1]);
            relay->bytes[0] = relay->bytes[1] = 0;
        }
        if (fds[1].revents != 0)
            pair_accept(relay);
        for (unsigned i = 0; i < 2 * PAIRS_MAX; i++)
            if (fds[2 + i].revents != 0 && relay->ends[i] == fds[2 + i].fd)
                pass_on(relay, i);
    }
}

void bench_relay_prepare(struct bench_relay *relay)
{
    bench_relay_prepare_far(relay, 0);
}

void bench_relay_prepare_far(struct bench_relay *relay, unsigned one_way_ms)
{
    struct relay own = {.delay_ns = one_way_ms * UINT64_C(1000000)};
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);

    memset(own.ends, 0xff, sizeof(own.ends));
    own.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (own.listener < 0 || bind(own.listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(own.listener, 16) != 0 ||
        getsockname(own.listener, (struct sockaddr *)&address, &size) != 0)
        bench_die("relay: %s", strerror(errno));
    relay->port = ntohs(address.sin_port);
    bench_child_start(&relay->child, body, &own);
    close(own.listener);
}

void bench_relay_connect(struct bench_relay *relay, unsigned port)
{
    bench_tell(relay->child.to, port);
}

void bench_relay_count(struct bench_relay *relay, uint64_t *up, uint64_t *down)
{
    bench_tell(relay->child.to, 0);
    *up = bench_hear(relay->child.from);
    *down = bench_hear(relay->child.from);
}

void bench_relay_stop(struct bench_relay *relay)
{
    bench_child_join(&relay->child);
}
