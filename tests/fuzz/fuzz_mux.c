/*
 * Frames of a peer, each after its size and a byte of mood, for a host that accepts some channels,
 * opens and closes some itself, and checks that what it is told makes sense.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wire/mux.h"

struct host {
    struct hw_mux *mux;
    long sent, limit;       /* frames: a peer gets an answer to what it sends, and no more */
    long live;              /* channels that we hold */
    uint8_t mood;           /* changes with every frame */
    struct hw_channel *own; /* one that was opened by us, or NULL */
};

static enum hw_status send(void *ctx, struct hw_slice head, struct hw_slice body,
                           struct hw_error *err)
{
    struct host *host = ctx;

    if (head.size == 0 || (body.size > 0 && body.bytes == NULL) || ++host->sent > host->limit)
        abort();
    return (host->mood & 0xc0) == 0xc0 ? hw_fail(err, HW_ENOMEM, "no memory") : HW_OK;
}

static enum hw_status asked(void *ctx, struct hw_slice protocol, struct hw_slice id,
                            struct hw_error *err)
{
    struct host *host = ctx;
    struct hw_channel *channel = NULL;
    enum hw_status status;

    if (protocol.size > HW_MUX_PROTOCOL_MAX || id.size > HW_MUX_ID_MAX)
        abort();
    if ((host->mood & 3) == 0)
        return HW_OK;
    status = hw_mux_open(host->mux, protocol, id, id, host, &channel, err);
    if (status == HW_EEXIST)
        abort(); /* why were we asked? */
    host->live += status == HW_OK;
    return status;
}

static void close_it(struct host *host, struct hw_channel *channel)
{
    if (channel == host->own)
        host->own = NULL;
    host->live--;
    hw_channel_close(channel);
}

static enum hw_status opened(void *ctx, struct hw_channel *channel, struct hw_slice handshake,
                             struct hw_error *err)
{
    struct host *host = ctx;

    (void)err;
    if (!hw_channel_is_open(channel) || hw_channel_user(channel) != host ||
        handshake.size > HW_MUX_HANDSHAKE_MAX)
        abort();
    if ((host->mood & 12) == 12)
        close_it(host, channel);
    return HW_OK;
}

static enum hw_status message(void *ctx, struct hw_channel *channel, uint64_t type,
                              struct hw_slice payload, struct hw_error *err)
{
    struct host *host = ctx;

    if (!hw_channel_is_open(channel))
        abort();
    if (payload.size > 0 && payload.bytes[0] == 'c')
        close_it(host, channel);
    else if (type == 7)
        return hw_channel_send(channel, type, payload, err);
    return HW_OK;
}

static void closed(void *ctx, struct hw_channel *channel, bool was_rejected)
{
    struct host *host = ctx;

    if (was_rejected == hw_channel_is_open(channel) || --host->live < 0)
        abort();
    if (channel == host->own)
        host->own = NULL;
}

static void open_own(struct host *host)
{
    static const struct hw_slice protocol = {(const uint8_t *)"p", 1},
                                 id = {(const uint8_t *)"1", 1};

    if (hw_mux_open(host->mux, protocol, id, id, host, &host->own, NULL) == HW_OK)
        host->live++;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);
    struct host host = {.limit = 2 * (long)size + 8};
    struct hw_mux_host calls = {.ctx = &host,
                                .send = send,
                                .asked = asked,
                                .opened = opened,
                                .message = message,
                                .closed = closed};
    enum hw_status status = HW_OK;

    if (hw_mux_new(&calls, &host.mux, NULL) != HW_OK)
        return 0;
    while (status == HW_OK && hw_cursor_left(&cursor) > 2) {
        size_t length = hw_cursor_u8(&cursor);
        const uint8_t *frame;

        host.mood = hw_cursor_u8(&cursor);
        if (length > hw_cursor_left(&cursor))
            length = hw_cursor_left(&cursor);
        frame = hw_cursor_bytes(&cursor, length);
        if ((host.mood & 0x10) != 0 && host.own == NULL)
            open_own(&host);
        else if ((host.mood & 0x20) != 0 && host.own != NULL)
            close_it(&host, host.own);
        status = hw_mux_receive(host.mux, (struct hw_slice){frame, length}, NULL);
        if (host.live > HW_MUX_CHANNELS_MAX)
            abort();
    }
    hw_mux_free(host.mux);
    return 0;
}
