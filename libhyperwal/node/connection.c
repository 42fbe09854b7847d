/*
 * Connections of the hub: what the transport tells goes into a peer, what the peer wants said goes
 * to the transport, one send and one receive at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "node/hub_internal.h"
#include "node/known.h"

enum {
    NS_PER_MS = 1000000,
    TOLD_AT_ONCE = 16,   /* drops for one reason that are told ... */
    TOLD_EACH_MS = 1000, /* ... and one more each */
    FLOOD_MS = 10000,    /* of those that were not told, the count */
    KIND_SIZE = 24,      /* bytes of a reason that tell it from others */
};

/* ------------------------------------------------------------------------ begin and end */

void conn_touch(struct hub_conn *conn)
{
    if (conn->is_touched)
        return;
    conn->is_touched = true;
    conn->next_touched = conn->hub->touched_conns;
    conn->hub->touched_conns = conn;
}

static void conn_untouch(struct hub_conn *conn)
{
    struct hub_conn **link = &conn->hub->touched_conns;

    if (!conn->is_touched)
        return;
    while (*link != conn)
        link = &(*link)->next_touched;
    *link = conn->next_touched;
    conn->is_touched = false;
}

void conn_doom(struct hub_conn *conn, const struct hw_error *why)
{
    if (!conn->is_doomed)
        conn->doom = *why;
    conn->is_doomed = true;
    conn_touch(conn);
}

static struct hub_conn *conn_new(struct hw_hub *hub, const char *address, struct hw_error *err)
{
    struct hub_conn *conn = hw_zalloc(sizeof(*conn));

    if (conn == NULL) {
        hw_fail(err, HW_ENOMEM, "no memory for a connection");
        return NULL;
    }
    conn->hub = hub;
    conn->born_ns = hub_now(hub);
    snprintf(conn->address, sizeof(conn->address), "%s", address);
    conn->next = hub->conns;
    hub->conns = conn;
    return conn;
}

static void conn_free(struct hub_conn *conn)
{
    struct hub_conn **link = &conn->hub->conns;

    conn_untouch(conn);
    turn_leave(conn);
    conn->hub->output_bytes -= conn->queued;
    while (*link != conn)
        link = &(*link)->next;
    *link = conn->next;
    hw_buffer_release(&conn->out);
    hw_free(conn->wanted);
    hw_free(conn);
}

enum hw_status conn_dial(struct hw_hub *hub, const struct hw_address *address,
                         struct hub_conn **out, struct hw_error *err)
{
    struct hub_wanted *wanted = hw_zalloc(sizeof(*wanted));
    struct hub_conn *conn = wanted != NULL ? conn_new(hub, address->dial, err) : NULL;
    enum hw_status status;

    if (conn == NULL) {
        hw_free(wanted);
        return hw_fail(err, HW_ENOMEM, "no memory for a connection");
    }
    memcpy(wanted->dial, address->dial, sizeof(wanted->dial));
    wanted->has_key = address->has_server;
    memcpy(wanted->key, address->server, sizeof(wanted->key));
    wanted->remembers = !address->has_key;
    conn->wanted = wanted;
    conn->is_outgoing = true;
    conn->deadline_ns = conn->born_ns + (uint64_t)HW_PEER_HANDSHAKE_MS * NS_PER_MS;
    hub_timer(hub, conn->deadline_ns);
    status = hub->transport->ops->dial(hub->transport, address->dial, conn, err);
    if (status != HW_OK) {
        conn_free(conn);
        return status;
    }
    *out = conn;
    return HW_OK;
}

static enum hw_status recognize(const struct hub_conn *conn, struct hw_error *err)
{
    struct hw_hub *hub = conn->hub;
    const struct hub_wanted *wanted = conn->wanted;
    const uint8_t *key = hw_peer_remote_key(conn->peer);
    struct hw_error unwritten;
    enum hw_status status;
    char is[2 * HW_KEY_SIZE + 1], was[2 * HW_KEY_SIZE + 1];

    if (wanted->has_key && memcmp(wanted->key, key, sizeof(wanted->key)) != 0) {
        hw_key_format(key, is);
        hw_key_format(wanted->key, was);
        return hw_fail(err, HW_EREFUSED,
                       "%s: another server than the one that was asked for: its key is %s, not %s",
                       wanted->dial, is, was);
    }
    if (wanted->has_key || hub->known_servers == NULL || hw_address_is_socket(wanted->dial))
        return HW_OK;
    status = hw_known_check(hub->env, hub->known_servers, wanted->dial, key, wanted->remembers,
                            &unwritten, err);
    if (unwritten.status != HW_OK)
        hw_env_log(hub->env, HW_LOG_WARN, "event=server_unwritten address=%s reason=\"%s\"",
                   wanted->dial, unwritten.message);
    return status;
}

/* Did it do what no honest peer does?  Connections that just end are nothing to warn of. */
static bool is_offence(const struct hub_conn *conn)
{
    enum hw_status why = conn->doom.status;

    if (why == HW_EPROTOCOL || why == HW_ETIMEOUT)
        return !conn->is_outgoing; /* of our sources the mirror tells */
    return conn->is_refused || why == HW_EPROOF || why == HW_ELIMIT;
}

/* Which of the things that are told: its first words, which are ours and not the peer's. */
static unsigned kind_of(const char *reason)
{
    unsigned hash = 5381;

    for (unsigned i = 0; i < KIND_SIZE && reason[i] != '\0'; i++)
        if (reason[i] < '0' || reason[i] > '9')
            hash = 33 * hash + (unsigned char)reason[i];
    return hash % HUB_REASONS;
}

/*
 * May it be told in the log?  Who comes again and again does not fill the disk: of a flood some
 * are told, and how many there were; and it does not hide what others do.
 */
static bool is_to_be_told(struct hw_hub *hub, const char *reason)
{
    uint64_t now = hub_now(hub), *told_ns = &hub->told_ns[kind_of(reason)];

    if (*told_ns < now)
        *told_ns = now;
    if (*told_ns - now < (uint64_t)TOLD_AT_ONCE * TOLD_EACH_MS * NS_PER_MS) {
        *told_ns += (uint64_t)TOLD_EACH_MS * NS_PER_MS;
        return true;
    }
    if (hub->untold_count++ == 0)
        hub->flood_end_ns = now + (uint64_t)FLOOD_MS * NS_PER_MS;
    hub_timer(hub, hub->flood_end_ns);
    return false;
}

enum hw_status conn_recognize(struct hub_conn *conn, struct hw_error *err)
{
    struct hw_error why = {0};
    enum hw_status status = recognize(conn, &why);
    char key[2 * HW_KEY_SIZE + 1];

    if (status == HW_OK)
        return HW_OK;
    hw_key_format(hw_peer_remote_key(conn->peer), key);
    if (is_to_be_told(conn->hub, why.message))
        hw_env_log(conn->hub->env, HW_LOG_ERROR,
                   "event=server_refused peer=%s address=%s reason=\"%s\"", key, conn->wanted->dial,
                   why.message);
    if (err != NULL)
        *err = why;
    return status;
}

enum hw_status conn_recognize_hearer(struct hub_conn *conn, struct hw_error *err)
{
    enum hw_status status;

    if (conn->wanted == NULL || conn->wanted->remembers)
        return HW_OK; /* that was seen to when it was dialed */
    conn->wanted->remembers = true;
    status = conn_recognize(conn, err);
    conn->wanted->remembers = status == HW_OK; /* else the next write asks again */
    return status;
}

void conn_tell_flood(struct hw_hub *hub)
{
    if (hub->untold_count > 0)
        hw_env_log(hub->env, HW_LOG_WARN,
                   "event=peers_flooded count=%" PRIu64 " reason=\"so many more were dropped or "
                   "refused within %d s\"",
                   hub->untold_count, FLOOD_MS / 1000);
    hub->untold_count = 0;
}

/* For a line of the log; names are the remote's words. */
static void make_printable(struct hw_slice name, char out[HW_NAME_MAX + 1])
{
    size_t size = name.size < HW_NAME_MAX ? name.size : HW_NAME_MAX;

    for (size_t i = 0; i < size; i++) {
        uint8_t c = name.bytes[i];

        out[i] = c < ' ' || c >= 0x7f || c == '"' || c == '\\' ? '?' : (char)c;
    }
    out[size] = '\0';
}

void conn_tell_refusal(struct hub_conn *conn, struct hw_slice name, const char *right,
                       const char *reason)
{
    char key[2 * HW_KEY_SIZE + 1], printable[HW_NAME_MAX + 1];

    conn->hub->counts.denied++;
    if (!is_to_be_told(conn->hub, reason))
        return;
    hw_key_format(hw_peer_remote_key(conn->peer), key);
    make_printable(name, printable);
    hw_env_log(conn->hub->env, HW_LOG_WARN,
               "event=access_refused peer=%s address=%s name=\"%s\" right=%s reason=\"%s\"", key,
               conn->address, printable, right, reason);
}

static void log_drop(struct hub_conn *conn)
{
    const uint8_t *key = conn->peer != NULL ? hw_peer_remote_key(conn->peer) : NULL;
    char text[2 * HW_KEY_SIZE + 1] = "";
    const char *event = conn->is_refused ? "peer_refused" : "peer_dropped";
    bool is_warning = is_offence(conn);

    if (is_warning && !is_to_be_told(conn->hub, conn->doom.message))
        return;
    if (key != NULL)
        hw_key_format(key, text);
    hw_env_log(conn->hub->env, is_warning ? HW_LOG_WARN : HW_LOG_INFO,
               "event=%s peer=%s address=%s reason=\"%s\"", event, text, conn->address,
               conn->doom.message);
}

/* Whose connection this was is told last: it may dial again. */
void conn_drop(struct hub_conn *conn)
{
    struct hw_hub *hub = conn->hub;
    struct hub_source *source = conn->source;
    struct hub_query *query = conn->query;
    struct hw_error why = conn->doom;

    if (query != NULL) {
        query->is_early = conn->peer != NULL && !conn->is_begun && why.status == HW_EIO;
        query->is_reached = conn->peer != NULL && !query->is_early;
    }
    /* It closed as soon as it knew who we are. */
    if (conn->is_outgoing && conn->is_begun && conn->links == NULL && why.status == HW_EIO &&
        (query != NULL || source != NULL))
        hw_fail(&why, HW_EREFUSED,
                "%s: closed the connection: perhaps it does not let us in (`hyperwal key' prints "
                "the key that its --allow wants), or cannot read the log now",
                conn->address);
    creations_forget(conn);
    conn->source = NULL;
    conn->query = NULL;
    if (source != NULL)
        source->conn = NULL;
    if (query != NULL)
        query->conn = NULL;
    if (conn->peer == NULL) {
        conn->is_abandoned = true; /* what is being dialed ends with the transport's event */
        conn->is_doomed = false;
        conn->deadline_ns = UINT64_MAX;
        conn_untouch(conn);
    } else {
        log_drop(conn);
        if (!conn->is_ready && !conn->is_outgoing)
            hub->counts.strangers--;
        if (conn->is_refused)
            hub->counts.refused++;
        else
            hub->counts.dropped++;
        while (conn->links != NULL)
            link_remove(conn->links);
        handovers_forget(conn);
        hub->transport->ops->close(conn->connection);
        hw_peer_free(conn->peer);
        conn_free(conn);
    }
    if (source != NULL)
        source_lost(source, &why);
    if (query != NULL)
        query_end(query, why.status, &why);
}

void conn_close_all(struct hw_hub *hub)
{
    struct hub_conn *next;

    for (struct hub_conn *conn = hub->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (!conn->is_doomed)
            hw_fail(&conn->doom, HW_EBROKEN, "this node ends");
        conn->is_doomed = true;
        if (conn->source != NULL)
            conn->source->is_ended = true;
        conn_drop(conn);
    }
}

void conn_free_all(struct hw_hub *hub)
{
    while (hub->conns != NULL)
        conn_free(hub->conns);
}

/* ------------------------------------------------------------------------------- events */

/* A peer for a connection that is there now. */
static enum hw_status conn_begin(struct hub_conn *conn, struct hw_connection *connection,
                                 struct hw_error *err)
{
    struct hw_hub *hub = conn->hub;
    struct hw_peer_host host = hub_host(hub);
    enum hw_status status =
        hw_peer_new(hub->env, conn->is_outgoing, &hub->identity, &host, &conn->peer, err);

    if (status != HW_OK)
        return status;
    hw_peer_set_user(conn->peer, conn);
    conn->connection = connection;
    conn->born_ns = hub_now(hub);
    hub->transport->ops->set_user(connection, conn);
    conn_touch(conn);
    return HW_OK;
}

/*
 * Too many in their handshake: the oldest goes.  One who means it is done within a few round trips,
 * so that those who only hold a place cannot keep others out.
 */
static void strangers_limit(struct hw_hub *hub)
{
    struct hub_conn *oldest = NULL;

    if (hub->counts.strangers < HW_HUB_STRANGERS_MAX)
        return;
    for (struct hub_conn *conn = hub->conns; conn != NULL; conn = conn->next)
        if (conn->peer != NULL && !conn->is_outgoing && !conn->is_ready)
            oldest = conn; /* new ones are put in front */
    if (oldest == NULL)
        return;
    hw_fail(&oldest->doom, HW_ELIMIT, "%u others are in their handshake, none for longer",
            hub->counts.strangers - 1);
    oldest->is_refused = true;
    conn_drop(oldest);
}

static unsigned conn_count(const struct hw_hub *hub)
{
    unsigned count = 0;

    for (const struct hub_conn *conn = hub->conns; conn != NULL; conn = conn->next)
        count++;
    return count;
}

/* All places are taken: of those who came in and have no log open the oldest goes. */
static void idlers_limit(struct hw_hub *hub)
{
    struct hub_conn *oldest = NULL;

    if (conn_count(hub) < HW_HUB_PEERS_MAX)
        return;
    for (struct hub_conn *conn = hub->conns; conn != NULL; conn = conn->next)
        if (conn->peer != NULL && !conn->is_outgoing && conn->is_ready && conn->links == NULL)
            oldest = conn;
    if (oldest == NULL)
        return;
    hw_fail(&oldest->doom, HW_ELIMIT, "it has no log open, and %d connections are too many",
            HW_HUB_PEERS_MAX);
    conn_drop(oldest);
}

static void accepted(struct hw_hub *hub, const struct hw_transport_event *event)
{
    struct hub_conn *conn = NULL;
    struct hw_error err = {0};
    enum hw_status status = HW_OK;

    access_look(hub);
    strangers_limit(hub);
    idlers_limit(hub);
    if (conn_count(hub) >= HW_HUB_PEERS_MAX)
        status = hw_fail(&err, HW_ELIMIT, "%d connections are open already", HW_HUB_PEERS_MAX);
    if (status == HW_OK)
        conn = conn_new(hub, event->address, &err);
    if (conn != NULL)
        status = conn_begin(conn, event->connection, &err);
    if (conn != NULL && status == HW_OK) {
        hub->counts.accepted++;
        hub->counts.strangers++;
        return;
    }
    if (conn != NULL)
        conn_free(conn);
    hub->counts.refused++;
    if (is_to_be_told(hub, err.message))
        hw_env_log(hub->env, HW_LOG_WARN, "event=peer_refused address=%s reason=\"%s\"",
                   event->address, err.message);
    hub->transport->ops->close(event->connection);
}

static void connected(struct hw_hub *hub, const struct hw_transport_event *event)
{
    struct hub_conn *conn = event->user;
    struct hw_error err = {0};

    if (conn->is_abandoned) {
        hub->transport->ops->close(event->connection);
        conn_free(conn);
        return;
    }
    if (conn->query != NULL)
        conn->query->is_met = true;
    if (conn_begin(conn, event->connection, &err) == HW_OK)
        return;
    hub->transport->ops->close(event->connection);
    conn->doom = err;
    conn_drop(conn);
    conn_free(conn);
}

static void dial_failed(const struct hw_transport_event *event)
{
    struct hub_conn *conn = event->user;

    if (!conn->is_abandoned) {
        conn->doom = event->error;
        conn_drop(conn);
    }
    conn_free(conn);
}

/* The log, or other links of a mirror, may have got something to do by what one of them said. */
static void touch_mirrors(struct hub_conn *conn)
{
    for (struct hub_link *l = conn->links; l != NULL; l = l->next_of_conn)
        if (l->log->mirror != NULL || log_is_behind(l))
            log_touch(l->log);
}

/* However many peers take nothing, what waits for all of them together stays within bounds. */
static void look_at_output(struct hub_conn *conn)
{
    struct hw_hub *hub = conn->hub;
    size_t queued = hw_peer_output(conn->peer).size;

    hub->output_bytes += queued - conn->queued;
    conn->queued = queued;
    hw_peer_set_room(conn->peer,
                     hub->output_bytes > HUB_OUTPUT_ENOUGH ? HUB_ROOM_SMALL : HW_LINK_OUTPUT_MAX);
}

void conn_received(struct hub_conn *conn, struct hw_slice bytes)
{
    struct hw_error err = {0};

    look_at_output(conn);
    touch_mirrors(conn);
    if (hw_peer_receive(conn->peer, bytes, &err) != HW_OK)
        conn_doom(conn, &err);
    touch_mirrors(conn);
    conn_touch(conn);
}

void conn_sent(struct hub_conn *conn)
{
    struct hw_error err = {0};
    size_t size = conn->sending;

    look_at_output(conn);
    conn->was_sent = false;
    conn->sending = 0;
    if (hw_peer_sent(conn->peer, size, &err) != HW_OK)
        conn_doom(conn, &err);
    writer_sent(conn);
    conn_touch(conn);
}

/* The work that it brings is done when it is this connection's turn. */
static void moved(struct hub_conn *conn, const struct hw_transport_event *event)
{
    if (event->kind == HW_EVENT_SENT) {
        conn->was_sent = true;
        conn->hub->counts.bytes_out += conn->sending;
    } else {
        conn->is_receiving = false;
        conn->input = event->bytes;
        conn->hub->counts.bytes_in += event->bytes.size;
    }
    turn_take(conn);
    conn_touch(conn);
}

static void event_handle(struct hw_hub *hub, const struct hw_transport_event *event)
{
    switch (event->kind) {
    case HW_EVENT_ACCEPTED:
        accepted(hub, event);
        break;
    case HW_EVENT_CONNECTED:
        connected(hub, event);
        break;
    case HW_EVENT_FAILED:
        dial_failed(event);
        break;
    case HW_EVENT_RECEIVED:
    case HW_EVENT_SENT:
        moved(event->user, event);
        break;
    case HW_EVENT_CLOSED:
        conn_doom(event->user, &event->error);
        break;
    }
}

void conn_events(struct hw_hub *hub, bool *had_any)
{
    struct hw_transport_event event;

    for (unsigned i = 0; i < HUB_EVENTS_A_ROUND; i++) {
        if (hub->transport->ops->next(hub->transport, &event) != HW_OK)
            return;
        *had_any = true;
        event_handle(hub, &event);
    }
}

/* -------------------------------------------------------------------------------- flush */

static void conn_send(struct hub_conn *conn)
{
    struct hw_slice output = hw_peer_output(conn->peer);
    struct hw_error err = {0};

    if (conn->sending != 0 || output.size == 0)
        return;
    if (output.size > HUB_SEND_MAX)
        output.size = HUB_SEND_MAX;
    /* A copy: the peer's output may move in memory while the transport reads it. */
    hw_buffer_clear(&conn->out);
    hw_buffer_add(&conn->out, output.bytes, output.size);
    if (conn->out.failed) {
        hw_buffer_release(&conn->out);
        hw_fail(&err, HW_ENOMEM, "no memory to send %zu bytes", output.size);
        conn_doom(conn, &err);
        return;
    }
    conn->sending = output.size;
    conn->hub->transport->ops->send(conn->connection,
                                    (struct hw_slice){conn->out.bytes, conn->out.size});
}

static void conn_flush_one(struct hub_conn *conn, uint64_t now)
{
    struct hw_error err = {0};

    if (conn->peer == NULL && conn->is_doomed)
        conn_drop(conn);
    if (conn->peer == NULL)
        return;
    if (!conn->is_doomed && conn->is_ready && !conn->is_begun) {
        conn->is_begun = true;
        if (conn->source != NULL)
            source_ready(conn->source);
        else if (conn->query != NULL)
            query_ready(conn->query);
    }
    if (!conn->is_doomed && hw_peer_tick(conn->peer, now, &conn->deadline_ns, &err) != HW_OK)
        conn_doom(conn, &err);
    if (!conn->is_doomed)
        conn_send(conn);
    if (conn->is_doomed) {
        conn_drop(conn);
        return;
    }
    hub_timer(conn->hub, conn->deadline_ns);
    look_at_output(conn);
    turn_take(conn); /* it may want input again */
    if (!conn->is_receiving && conn->input.size == 0 && hw_peer_wants_input(conn->peer)) {
        conn->is_receiving = true;
        conn->hub->transport->ops->receive(conn->connection);
    }
}

void conn_flush(struct hw_hub *hub, uint64_t now)
{
    while (hub->touched_conns != NULL) {
        struct hub_conn *conn = hub->touched_conns;

        conn_untouch(conn);
        conn_flush_one(conn, now);
    }
}

void conn_timers(struct hw_hub *hub, uint64_t now)
{
    struct hub_conn *next;

    if (hub->untold_count > 0 && now >= hub->flood_end_ns)
        conn_tell_flood(hub);
    else if (hub->untold_count > 0)
        hub_timer(hub, hub->flood_end_ns);
    for (struct hub_conn *conn = hub->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->deadline_ns > now) {
            hub_timer(hub, conn->deadline_ns);
        } else if (conn->peer != NULL) {
            conn_touch(conn);
        } else if (!conn->is_abandoned) {
            hw_fail(&conn->doom, HW_ETIMEOUT, "%s: no connection within %d s", conn->address,
                    HW_PEER_HANDSHAKE_MS / 1000);
            conn_drop(conn);
        }
    }
}
