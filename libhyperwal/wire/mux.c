/* Implements wire/mux.h. */
#include "wire/mux.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

enum control { CONTROL_BATCH, CONTROL_OPEN, CONTROL_REJECT, CONTROL_CLOSE };

enum {
    UINT_MAX_SIZE = 9, /* bytes of the longest compact integer */
    OPEN_HEAD_MAX = 2 + 3 * UINT_MAX_SIZE + HW_MUX_PROTOCOL_MAX + HW_MUX_ID_MAX,
    TABLE_START = 8,
};

enum channel_state {
    ASKING,  /* our open went out */
    OPEN,    /* and the other's came */
    CLOSING, /* we closed before it was answered: only its number still lives */
};

struct hw_channel {
    struct hw_mux *mux; /* borrowed */
    enum channel_state state;
    void *user;      /* the host's */
    uint32_t local;  /* our number */
    uint32_t remote; /* theirs, when OPEN */
    uint64_t order;  /* of our opens: answers come in it */
    size_t protocol_size, id_size;
    uint8_t protocol[HW_MUX_PROTOCOL_MAX];
    uint8_t id[HW_MUX_ID_MAX];
};

struct table { /* channels by number; [0] is number 1 */
    struct hw_channel **slots;
    uint32_t count, capacity; /* count: the largest number that was ever used */
};

struct hw_mux {
    struct hw_mux_host host;
    struct table local;  /* owns the channels */
    struct table remote; /* borrows them */
    uint32_t lowest;     /* no number below it is free on our side */
    uint64_t next_order;
    struct hw_buffer head;  /* of a message in two parts */
    enum hw_status failure; /* HW_OK, or what ended the mux */
    bool is_receiving;
    uint32_t
        opens_in_frame; /* each of the other's opens is answered, so that it must not be cheap */
};

struct pair { /* what a channel is about */
    struct hw_slice protocol, id;
};

static enum hw_status fail(struct hw_mux *mux, enum hw_status status)
{
    if (mux->failure == HW_OK)
        mux->failure = status;
    return status;
}

static enum hw_status failed_before(const struct hw_mux *mux, struct hw_error *err)
{
    return hw_fail(err, mux->failure, "mux: ended by an earlier failure");
}

static size_t put_uint(uint8_t *at, uint64_t value)
{
    struct hw_buffer buffer = {.bytes = at, .capacity = UINT_MAX_SIZE};

    hw_buffer_add_uint(&buffer, value); /* has the room, so it allocates nothing */
    return buffer.size;
}

static size_t put_bytes(uint8_t *at, struct hw_slice bytes)
{
    size_t size = put_uint(at, bytes.size);

    if (bytes.size > 0)
        memcpy(at + size, bytes.bytes, bytes.size);
    return size + bytes.size;
}

static enum hw_status send_control(struct hw_mux *mux, enum control type, uint32_t number,
                                   struct hw_error *err)
{
    uint8_t head[2 + UINT_MAX_SIZE] = {0, (uint8_t)type};
    size_t size = 2 + put_uint(head + 2, number);

    return mux->host.send(mux->host.ctx, (struct hw_slice){head, size}, (struct hw_slice){NULL, 0},
                          err);
}

/* ---------------------------------------------------------------------------- tables */

static enum hw_status table_grow(struct table *table, uint32_t count, struct hw_error *err)
{
    uint32_t capacity = table->capacity < TABLE_START ? TABLE_START : 2 * table->capacity;
    struct hw_channel **slots;

    assert(count <= table->capacity + 1); /* by one at a time */
    if (count <= table->capacity)
        return HW_OK;
    slots = hw_realloc(table->slots, capacity * sizeof(struct hw_channel *));
    if (slots == NULL)
        return hw_fail(err, HW_ENOMEM, "mux: no memory for %u channels", capacity);
    memset(slots + table->capacity, 0, (capacity - table->capacity) * sizeof(struct hw_channel *));
    table->slots = slots;
    table->capacity = capacity;
    return HW_OK;
}

/* NULL: nobody has this number. */
static struct hw_channel *table_get(const struct table *table, uint64_t number)
{
    return number == 0 || number > table->count ? NULL : table->slots[number - 1];
}

/* The lowest number that is free on our side; there is a slot for it. */
static enum hw_status free_number(struct hw_mux *mux, uint32_t *out, struct hw_error *err)
{
    uint32_t number = mux->lowest + 1;
    enum hw_status status;

    while (table_get(&mux->local, number) != NULL)
        number++;
    mux->lowest = number - 1;
    if (number > HW_MUX_CHANNELS_MAX)
        return hw_fail(err, HW_ELIMIT, "mux: %d channels are open, more cannot be",
                       HW_MUX_CHANNELS_MAX);
    status = table_grow(&mux->local, number, err);
    if (status == HW_OK)
        *out = number;
    return status;
}

static bool slice_is(struct hw_slice slice, const uint8_t *bytes, size_t size)
{
    return slice.size == size && (size == 0 || memcmp(slice.bytes, bytes, size) == 0);
}

static bool is_about(const struct hw_channel *channel, const struct pair *pair)
{
    return slice_is(pair->protocol, channel->protocol, channel->protocol_size) &&
           slice_is(pair->id, channel->id, channel->id_size);
}

/* Ours for this pair, asking or open, or NULL. */
static struct hw_channel *find_live(const struct hw_mux *mux, const struct pair *pair)
{
    for (uint32_t i = 0; i < mux->local.count; i++) {
        struct hw_channel *channel = mux->local.slots[i];

        if (channel != NULL && channel->state != CLOSING && is_about(channel, pair))
            return channel;
    }
    return NULL;
}

/* Our oldest open of this pair that has no answer yet, or NULL. */
static struct hw_channel *find_unanswered(const struct hw_mux *mux, const struct pair *pair)
{
    struct hw_channel *oldest = NULL;

    for (uint32_t i = 0; i < mux->local.count; i++) {
        struct hw_channel *channel = mux->local.slots[i];

        if (channel != NULL && channel->state != OPEN && is_about(channel, pair) &&
            (oldest == NULL || channel->order < oldest->order))
            oldest = channel;
    }
    return oldest;
}

/* Its numbers are free; the memory is the caller's. */
static void unlink_channel(struct hw_channel *channel)
{
    struct hw_mux *mux = channel->mux;

    if (channel->state == OPEN)
        mux->remote.slots[channel->remote - 1] = NULL;
    mux->local.slots[channel->local - 1] = NULL;
    if (channel->local - 1 < mux->lowest)
        mux->lowest = channel->local - 1;
}

static void drop_channel(struct hw_channel *channel)
{
    unlink_channel(channel);
    hw_free(channel);
}

/* The remote ended it: forget it first, so that the host can open its successor at once. */
static void tell_closed(struct hw_channel *channel, bool was_rejected)
{
    struct hw_mux *mux = channel->mux;

    unlink_channel(channel);
    mux->host.closed(mux->host.ctx, channel, was_rejected);
    hw_free(channel);
}

/* ---------------------------------------------------------------------------- our side */

enum hw_status hw_mux_new(const struct hw_mux_host *host, struct hw_mux **out, struct hw_error *err)
{
    struct hw_mux *mux = hw_zalloc(sizeof(*mux));

    if (mux == NULL)
        return hw_fail(err, HW_ENOMEM, "mux: no memory");
    mux->host = *host;
    *out = mux;
    return HW_OK;
}

void hw_mux_free(struct hw_mux *mux)
{
    if (mux == NULL)
        return;
    assert(!mux->is_receiving);
    for (uint32_t i = 0; i < mux->local.count; i++)
        hw_free(mux->local.slots[i]);
    hw_free(mux->local.slots);
    hw_free(mux->remote.slots);
    hw_buffer_release(&mux->head);
    hw_free(mux);
}

static enum hw_status send_open(struct hw_mux *mux, uint32_t number, const struct pair *pair,
                                struct hw_slice handshake, struct hw_error *err)
{
    uint8_t head[OPEN_HEAD_MAX] = {0, CONTROL_OPEN};
    size_t size = 2;

    size += put_uint(head + size, number);
    size += put_bytes(head + size, pair->protocol);
    size += put_bytes(head + size, pair->id);
    return mux->host.send(mux->host.ctx, (struct hw_slice){head, size}, handshake, err);
}

/* Do they fit the limits that both sides keep? */
static bool is_bearable(const struct pair *pair, struct hw_slice handshake)
{
    return pair->protocol.size <= HW_MUX_PROTOCOL_MAX && pair->id.size <= HW_MUX_ID_MAX &&
           handshake.size <= HW_MUX_HANDSHAKE_MAX;
}

static struct hw_channel *new_channel(struct hw_mux *mux, uint32_t number, const struct pair *pair,
                                      void *user)
{
    struct hw_channel *channel = hw_zalloc(sizeof(*channel));

    if (channel == NULL)
        return NULL;
    channel->mux = mux;
    channel->user = user;
    channel->local = number;
    channel->protocol_size = pair->protocol.size;
    channel->id_size = pair->id.size;
    if (pair->protocol.size > 0)
        memcpy(channel->protocol, pair->protocol.bytes, pair->protocol.size);
    if (pair->id.size > 0)
        memcpy(channel->id, pair->id.bytes, pair->id.size);
    return channel;
}

enum hw_status hw_mux_open(struct hw_mux *mux, struct hw_slice protocol, struct hw_slice id,
                           struct hw_slice handshake, void *user, struct hw_channel **out,
                           struct hw_error *err)
{
    const struct pair pair = {protocol, id};
    struct hw_channel *channel;
    uint32_t number = 0;
    enum hw_status status;

    if (mux->failure != HW_OK)
        return failed_before(mux, err);
    if (!is_bearable(&pair, handshake))
        return hw_fail(err, HW_ELIMIT, "mux: a name or handshake of a channel is too long");
    if (find_live(mux, &pair) != NULL)
        return hw_fail(err, HW_EEXIST, "mux: this channel is open already");
    status = free_number(mux, &number, err);
    if (status != HW_OK)
        return status;
    channel = new_channel(mux, number, &pair, user);
    if (channel == NULL)
        return hw_fail(err, HW_ENOMEM, "mux: no memory for a channel");
    status = send_open(mux, number, &pair, handshake, err);
    if (status != HW_OK) {
        hw_free(channel);
        return status;
    }
    channel->order = mux->next_order++;
    mux->local.slots[number - 1] = channel;
    if (mux->local.count < number)
        mux->local.count = number;
    *out = channel;
    return HW_OK;
}

void *hw_channel_user(const struct hw_channel *channel)
{
    return channel->user;
}

struct hw_slice hw_channel_protocol(const struct hw_channel *channel)
{
    return (struct hw_slice){channel->protocol, channel->protocol_size};
}

struct hw_slice hw_channel_id(const struct hw_channel *channel)
{
    return (struct hw_slice){channel->id, channel->id_size};
}

bool hw_channel_is_open(const struct hw_channel *channel)
{
    return channel->state == OPEN;
}

enum hw_status hw_channel_send(struct hw_channel *channel, uint64_t type, struct hw_slice payload,
                               struct hw_error *err)
{
    struct hw_mux *mux = channel->mux;
    uint8_t head[2 * UINT_MAX_SIZE];
    size_t size;

    if (mux->failure != HW_OK)
        return failed_before(mux, err);
    size = put_uint(head, channel->local);
    size += put_uint(head + size, type);
    return mux->host.send(mux->host.ctx, (struct hw_slice){head, size}, payload, err);
}

enum hw_status hw_channel_send_parts(struct hw_channel *channel, uint64_t type,
                                     struct hw_slice head, struct hw_slice body,
                                     struct hw_error *err)
{
    struct hw_mux *mux = channel->mux;

    if (mux->failure != HW_OK)
        return failed_before(mux, err);
    hw_buffer_clear(&mux->head);
    hw_buffer_add_uint(&mux->head, channel->local);
    hw_buffer_add_uint(&mux->head, type);
    hw_buffer_add(&mux->head, head.bytes, head.size);
    if (mux->head.failed)
        return hw_fail(err, HW_ENOMEM, "mux: no memory for a message");
    return mux->host.send(mux->host.ctx, (struct hw_slice){mux->head.bytes, mux->head.size}, body,
                          err);
}

void hw_channel_close(struct hw_channel *channel)
{
    struct hw_mux *mux = channel->mux;
    enum hw_status status = HW_OK;

    if (mux->failure == HW_OK)
        status = send_control(mux, CONTROL_CLOSE, channel->local, NULL);
    if (status != HW_OK)
        (void)fail(mux, status); /* the other side does not know: there is no going on */
    if (channel->state == OPEN) {
        drop_channel(channel);
    } else {
        channel->state = CLOSING;
        channel->user = NULL;
    }
}

/* ---------------------------------------------------------------------------- their side */

/* Both have opened. */
static enum hw_status join(struct hw_mux *mux, struct hw_channel *channel, uint32_t remote,
                           struct hw_slice handshake, struct hw_error *err)
{
    enum hw_status status;

    if (channel->state == CLOSING) {
        /*
         * Our close went out before this open came.  The other side may have seen it too early to
         * find a channel, and then believes that there is one: say it again.
         */
        status = send_control(mux, CONTROL_CLOSE, channel->local, err);
        drop_channel(channel);
        return status;
    }
    channel->state = OPEN;
    channel->remote = remote;
    mux->remote.slots[remote - 1] = channel;
    return mux->host.opened(mux->host.ctx, channel, handshake, err);
}

/* May the remote call a channel so? */
static enum hw_status claim_number(struct hw_mux *mux, uint64_t remote, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (remote > HW_MUX_CHANNELS_MAX)
        return hw_fail(err, HW_ELIMIT, "mux: the peer opens more than %d channels",
                       HW_MUX_CHANNELS_MAX);
    if (remote == 0 || remote > (uint64_t)mux->remote.count + 1 ||
        table_get(&mux->remote, remote) != NULL)
        return hw_fail(err, HW_EPROTOCOL, "mux: the peer opens a channel as %u, which is not free",
                       (unsigned)remote);
    if (remote > mux->remote.count) {
        status = table_grow(&mux->remote, (uint32_t)remote, err);
        if (status == HW_OK)
            mux->remote.count = (uint32_t)remote;
    }
    return status;
}

static struct hw_slice cursor_slice(struct hw_cursor *cursor)
{
    uint64_t size = hw_cursor_uint(cursor);
    const uint8_t *bytes = NULL;

    if (size > hw_cursor_left(cursor))
        cursor->failed = true;
    else
        bytes = hw_cursor_bytes(cursor, (size_t)size);
    return (struct hw_slice){bytes, bytes == NULL ? 0 : (size_t)size};
}

static enum hw_status receive_open(struct hw_mux *mux, struct hw_cursor *cursor,
                                   struct hw_error *err)
{
    uint64_t remote = hw_cursor_uint(cursor);
    struct hw_slice protocol = cursor_slice(cursor), id = cursor_slice(cursor);
    const struct pair pair = {protocol, id};
    struct hw_slice handshake = {cursor->next, hw_cursor_left(cursor)};
    struct hw_channel *channel;
    enum hw_status status;

    if (cursor->failed)
        return hw_fail(err, HW_EPROTOCOL, "mux: an open that ends too early");
    if (++mux->opens_in_frame > HW_MUX_CHANNELS_MAX)
        return hw_fail(err, HW_ELIMIT, "mux: the peer opens more than %d channels in one frame",
                       HW_MUX_CHANNELS_MAX);
    status = claim_number(mux, remote, err);
    if (status != HW_OK)
        return status;
    if (!is_bearable(&pair, handshake))
        return send_control(mux, CONTROL_REJECT, (uint32_t)remote, err);
    channel = find_unanswered(mux, &pair);
    if (channel == NULL && find_live(mux, &pair) == NULL) {
        status = mux->host.asked(mux->host.ctx, protocol, id, err);
        if (status != HW_OK)
            return status;
        channel = find_unanswered(mux, &pair);
    }
    if (channel == NULL)
        return send_control(mux, CONTROL_REJECT, (uint32_t)remote, err);
    return join(mux, channel, (uint32_t)remote, handshake, err);
}

static enum hw_status receive_reject(struct hw_mux *mux, struct hw_cursor *cursor,
                                     struct hw_error *err)
{
    uint64_t local = hw_cursor_uint(cursor);
    struct hw_channel *channel = table_get(&mux->local, local);

    if (cursor->failed || channel == NULL || channel->state == OPEN)
        return hw_fail(err, HW_EPROTOCOL, "mux: the peer rejects a channel that waits for nothing");
    if (channel->state == CLOSING)
        drop_channel(channel);
    else
        tell_closed(channel, true);
    return HW_OK;
}

static enum hw_status receive_close(struct hw_mux *mux, struct hw_cursor *cursor,
                                    struct hw_error *err)
{
    uint64_t remote = hw_cursor_uint(cursor);
    struct hw_channel *channel = table_get(&mux->remote, remote);

    if (cursor->failed)
        return hw_fail(err, HW_EPROTOCOL, "mux: a close that ends too early");
    if (channel != NULL) /* else: ours crossed it */
        tell_closed(channel, false);
    return HW_OK;
}

static enum hw_status receive_control(struct hw_mux *mux, uint64_t type, struct hw_cursor *cursor,
                                      struct hw_error *err)
{
    switch (type) {
    case CONTROL_BATCH:
        return hw_fail(err, HW_EPROTOCOL, "mux: a batch in a batch");
    case CONTROL_OPEN:
        return receive_open(mux, cursor, err);
    case CONTROL_REJECT:
        return receive_reject(mux, cursor, err);
    case CONTROL_CLOSE:
        return receive_close(mux, cursor, err);
    default:
        return HW_OK; /* of a later version */
    }
}

/* What stands after the number of the channel: a type and a payload, up to the end. */
static enum hw_status receive_entry(struct hw_mux *mux, uint64_t remote, uint64_t type,
                                    struct hw_cursor *cursor, struct hw_error *err)
{
    struct hw_slice payload = {cursor->next, hw_cursor_left(cursor)};
    struct hw_channel *channel;

    if (cursor->failed)
        return hw_fail(err, HW_EPROTOCOL, "mux: a message that ends before its type");
    if (remote == 0)
        return receive_control(mux, type, cursor, err);
    channel = table_get(&mux->remote, remote);
    if (channel == NULL)
        return HW_OK; /* closed while it was on its way */
    return mux->host.message(mux->host.ctx, channel, type, payload, err);
}

static enum hw_status receive_batch(struct hw_mux *mux, struct hw_cursor *cursor,
                                    struct hw_error *err)
{
    uint64_t remote = hw_cursor_uint(cursor);
    enum hw_status status = HW_OK;
    unsigned count = 0;

    while (status == HW_OK && !cursor->failed && hw_cursor_left(cursor) > 0) {
        struct hw_slice bytes = cursor_slice(cursor);
        struct hw_cursor entry = hw_cursor(bytes.bytes, bytes.size);

        if (cursor->failed)
            break;
        if (++count > HW_MUX_BATCH_MAX)
            return hw_fail(err, HW_ELIMIT, "mux: a batch of more than %d messages",
                           HW_MUX_BATCH_MAX);
        if (bytes.size == 0) {
            remote = hw_cursor_uint(cursor);
        } else {
            uint64_t type = hw_cursor_uint(&entry);

            status = receive_entry(mux, remote, type, &entry, err);
        }
        if (status == HW_OK && mux->failure != HW_OK)
            status = failed_before(mux, err);
    }
    if (status == HW_OK && cursor->failed)
        status = hw_fail(err, HW_EPROTOCOL, "mux: a batch that ends within an entry");
    return status;
}

enum hw_status hw_mux_receive(struct hw_mux *mux, struct hw_slice frame, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(frame.bytes, frame.size);
    uint64_t remote, type;
    enum hw_status status;

    assert(!mux->is_receiving);
    if (mux->failure != HW_OK)
        return failed_before(mux, err);
    if (frame.size == 0)
        return HW_OK;
    mux->is_receiving = true;
    mux->opens_in_frame = 0;
    remote = hw_cursor_uint(&cursor);
    type = hw_cursor_uint(&cursor);
    if (!cursor.failed && remote == 0 && type == CONTROL_BATCH)
        status = receive_batch(mux, &cursor, err);
    else
        status = receive_entry(mux, remote, type, &cursor, err);
    mux->is_receiving = false;
    if (status == HW_OK && mux->failure != HW_OK)
        status = failed_before(mux, err);
    return status == HW_OK ? HW_OK : fail(mux, status);
}
