/* Implements system/hostile_wire.h. */
#include "system/hostile_wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"

enum { READ_SIZE = 64 << 10, READS_A_MOVE = 8 };

uint64_t now_ms(void)
{
    return hw_env_posix()->ops->monotonic_ns(hw_env_posix()) / 1000000;
}

void any_bytes(void *out, size_t size)
{
    hw_env_posix()->ops->random(hw_env_posix(), out, size);
}

uint64_t any_below(uint64_t end)
{
    uint64_t value;

    any_bytes(&value, sizeof(value));
    return value % end;
}

/* ------------------------------------------------------------------------------- mux host */

static enum hw_status on_send(void *ctx, struct hw_slice head, struct hw_slice body,
                              struct hw_error *err)
{
    struct wire *wire = ctx;

    return hw_stream_send_parts(wire->stream, head, body, err);
}

static enum hw_status on_asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                               struct hw_error *err)
{
    struct wire *wire = ctx;

    (void)err;
    if (wire->host.asked != NULL)
        wire->host.asked(wire, protocol, id);
    return HW_OK;
}

static enum hw_status on_opened(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                                struct hw_error *err)
{
    struct wire *wire = ctx;

    (void)handshake, (void)err;
    if (hw_channel_protocol(channel).size != strlen(HW_HYPERWAL_PROTOCOL))
        wire->core = channel;
    else if (hw_channel_id(channel).size == 0)
        wire->base = channel;
    else
        wire->log = channel;
    if (wire->host.opened != NULL)
        wire->host.opened(wire, channel);
    return HW_OK;
}

static enum hw_status on_message(void *ctx, struct hw_channel *channel, uint64_t type,
                                 struct hw_slice payload, struct hw_error *err)
{
    struct wire *wire = ctx;

    struct hw_message_sync sync;

    (void)err;
    if (channel == wire->core && type == HW_MESSAGE_SYNC &&
        hw_message_sync_decode(payload, &sync, NULL) == HW_OK)
        wire->length = sync.length;
    if (wire->host.message != NULL)
        wire->host.message(wire, channel, type, payload);
    return HW_OK;
}

static void on_closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct wire *wire = ctx;

    (void)was_rejected;
    wire->core = wire->core == channel ? NULL : wire->core;
    wire->base = wire->base == channel ? NULL : wire->base;
    wire->log = wire->log == channel ? NULL : wire->log;
}

/* ----------------------------------------------------------------------------------- life */

static bool begin(struct wire *wire, int fd, bool is_initiator, const struct wire_host *host)
{
    struct hw_mux_host mux_host = {.ctx = wire,
                                   .send = on_send,
                                   .asked = on_asked,
                                   .opened = on_opened,
                                   .message = on_message,
                                   .closed = on_closed};
    struct hw_identity identity;
    int on = 1;

    *wire = (struct wire){
        .fd = fd, .is_initiator = is_initiator, .flip_at = SIZE_MAX, .cut_at = SIZE_MAX};
    if (host != NULL)
        wire->host = *host;
    hw_identity_random(hw_env_posix(), &identity);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
        hw_stream_new(hw_env_posix(), is_initiator, &identity, NULL, &wire->stream, NULL) !=
            HW_OK ||
        hw_mux_new(&mux_host, &wire->mux, NULL) != HW_OK) {
        wire_close(wire, false);
        return false;
    }
    return true;
}

bool wire_dial(struct wire *wire, const struct target *target, const struct wire_host *host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)target->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    wire->fd = -1;
    if (fd < 0 || inet_pton(AF_INET, target->host, &address.sin_addr) != 1) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (!begin(wire, fd, true, host))
        return false;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno != EINPROGRESS) {
        wire_close(wire, false);
        return false;
    }
    wire->is_connecting = true;
    return true;
}

bool wire_take(struct wire *wire, int fd, const struct wire_host *host)
{
    return begin(wire, fd, false, host);
}

void wire_narrow(struct wire *wire)
{
    int size = 64 << 10;

    (void)setsockopt(wire->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

void wire_close(struct wire *wire, bool with_reset)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (wire->fd < 0)
        return;
    if (with_reset)
        (void)setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(wire->fd);
    wire->fd = -1;
    hw_mux_free(wire->mux);
    hw_stream_free(wire->stream);
    hw_buffer_release(&wire->out);
    wire->mux = NULL;
    wire->stream = NULL;
    wire->core = wire->base = wire->log = NULL;
}

/* ---------------------------------------------------------------------------------- bytes */

size_t wire_queued(const struct wire *wire)
{
    return wire->fd < 0 ? 0
                        : wire->out.size - wire->out_start + hw_stream_output(wire->stream).size;
}

bool wire_is_open(const struct wire *wire)
{
    return wire->fd >= 0 && hw_stream_is_open(wire->stream);
}

bool wire_is_heard(const struct wire *wire)
{
    return wire->was_heard;
}

short wire_events(const struct wire *wire)
{
    short events = wire->is_deaf && wire_is_open(wire) ? 0 : POLLIN;

    if (wire->is_connecting || (wire_queued(wire) > 0 && wire->sent < wire->cut_at))
        events |= POLLOUT;
    return events;
}

void wire_raw(struct wire *wire, const void *bytes, size_t size)
{
    hw_buffer_add(&wire->out, bytes, size);
}

/* What the stream has to say comes after what is in `out`. */
static void collect(struct wire *wire)
{
    struct hw_slice output = hw_stream_output(wire->stream);

    if (wire->out_start == wire->out.size) {
        hw_buffer_clear(&wire->out);
        wire->out_start = 0;
    }
    if (output.size == 0)
        return;
    hw_buffer_add(&wire->out, output.bytes, output.size);
    hw_stream_sent(wire->stream, output.size);
}

static void flip(struct wire *wire)
{
    uint64_t at = (uint64_t)wire->flip_at;

    if (wire->flip_at == SIZE_MAX || at < wire->sent ||
        at - wire->sent >= wire->out.size - wire->out_start)
        return;
    wire->out.bytes[wire->out_start + (at - wire->sent)] ^= 0x10;
    wire->flip_at = SIZE_MAX;
}

static void write_some(struct wire *wire)
{
    size_t size;
    ssize_t done;

    collect(wire);
    if (wire->out.failed)
        abort();
    flip(wire);
    size = wire->out.size - wire->out_start;
    if (size > wire->cut_at - wire->sent)
        size = wire->cut_at - wire->sent;
    if (size == 0)
        return;
    done = send(wire->fd, wire->out.bytes + wire->out_start, size, MSG_NOSIGNAL);
    if (done > 0) {
        if (wire->record != NULL)
            hw_buffer_add(wire->record, wire->out.bytes + wire->out_start, (size_t)done);
        wire->out_start += (size_t)done;
        wire->sent += (uint64_t)done;
    } else if (done < 0 && errno != EAGAIN && errno != EINTR) {
        wire_close(wire, false);
    }
}

static void understand(struct wire *wire, const uint8_t *bytes, size_t size)
{
    struct hw_slice message;
    enum hw_status status;

    wire->was_heard = true;
    wire->received += size;
    if (wire->is_broken)
        return;
    status = hw_stream_put(wire->stream, (struct hw_slice){bytes, size}, NULL);
    while (status == HW_OK) {
        status = hw_stream_next(wire->stream, &message, NULL);
        if (status == HW_OK)
            status = hw_mux_receive(wire->mux, message, NULL);
    }
    wire->was_open = wire->was_open || hw_stream_is_open(wire->stream);
    wire->is_broken = status < 0;
}

/* False: the other side has ended it. */
static bool read_some(struct wire *wire)
{
    static uint8_t bytes[READ_SIZE];

    for (unsigned i = 0; i < READS_A_MOVE; i++) {
        ssize_t done = recv(wire->fd, bytes, sizeof(bytes), 0);

        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (done <= 0)
            return false;
        understand(wire, bytes, (size_t)done);
        if (wire->is_deaf && wire_is_open(wire))
            return true;
    }
    return true;
}

void wire_move(struct wire *wire, short events)
{
    if ((events & POLLOUT) != 0)
        wire->is_connecting = false;
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !read_some(wire)) {
        wire_close(wire, false);
        return;
    }
    if (!wire->is_connecting && wire->sent < wire->cut_at)
        write_some(wire);
}

/* ------------------------------------------------------------------------------- messages */

void wire_frame(struct wire *wire, const void *bytes, size_t size)
{
    if (hw_stream_send(wire->stream, (struct hw_slice){bytes, size}, NULL) != HW_OK)
        abort();
}

static bool open_channel(struct wire *wire, const char *protocol, struct hw_slice id,
                         struct hw_buffer *handshake)
{
    struct hw_channel *channel;
    struct hw_slice name = {(const uint8_t *)protocol, strlen(protocol)};
    enum hw_status status =
        hw_mux_open(wire->mux, name, id, (struct hw_slice){handshake->bytes, handshake->size}, wire,
                    &channel, NULL);

    hw_buffer_release(handshake);
    return status == HW_OK;
}

bool wire_open_core(struct wire *wire, const uint8_t key[HW_KEY_SIZE], bool lies)
{
    struct hw_handshake handshake = {0};
    struct hw_buffer bytes = {0};
    uint8_t id[HW_KEY_SIZE];

    hw_discovery_key(key, id);
    hw_capability(wire->is_initiator, hw_stream_handshake_hash(wire->stream), key,
                  handshake.capability);
    handshake.capability[7] ^= lies;
    hw_handshake_encode(&handshake, &bytes);
    return open_channel(wire, HW_CORE_PROTOCOL, (struct hw_slice){id, sizeof(id)}, &bytes);
}

bool wire_open_hyperwal(struct wire *wire, const uint8_t *key)
{
    struct hw_hyperwal_handshake handshake = {.version = 1};
    struct hw_buffer bytes = {0};
    uint8_t id[HW_KEY_SIZE];

    if (key != NULL) {
        hw_discovery_key(key, id);
        any_bytes(handshake.replica_id, sizeof(handshake.replica_id));
    }
    hw_hyperwal_handshake_encode(&handshake, &bytes);
    return open_channel(wire, HW_HYPERWAL_PROTOCOL,
                        (struct hw_slice){id, key != NULL ? sizeof(id) : 0}, &bytes);
}

void wire_say(struct hw_channel *channel, uint64_t type, struct hw_buffer *payload)
{
    if (payload->failed ||
        hw_channel_send(channel, type, (struct hw_slice){payload->bytes, payload->size}, NULL) !=
            HW_OK)
        abort();
    hw_buffer_clear(payload);
}
