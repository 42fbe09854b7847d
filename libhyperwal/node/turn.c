/*
 * Whose turn it is: who makes the loop work a lot waits behind those who do not.
 *
 *     event ──▶ light: at once           heavy: behind the others, in pieces, a few ms a round
 *
 * What a connection cost is forgotten with time, an eighth of a second for each second: so who uses
 * less than an eighth of the loop never waits, and who asks for thousands of blocks at a time
 * delays by at most a few of its answers those who wait for one push.
 */
#include "node/hub_internal.h"

enum {
    TURN_BYTES = 2 << 10, /* of what came, looked at in one turn: some hundred requests */
    HEAVY_NS = 1000000,   /* of work that is not yet forgotten */
    ROUND_NS = 4000000,   /* for all who are heavy, in a round of the loop */
    FORGET_SHIFT = 3,     /* 1/8 */
};

static bool has_work(const struct hub_conn *conn)
{
    return conn->peer != NULL && !conn->is_doomed &&
           (conn->was_sent || (conn->input.size > 0 && hw_peer_wants_input(conn->peer)));
}

static void forget(struct hub_conn *conn, uint64_t now)
{
    uint64_t forgotten = (now - conn->cost_at_ns) >> FORGET_SHIFT;

    conn->cost_ns = forgotten < conn->cost_ns ? conn->cost_ns - forgotten : 0;
    conn->cost_at_ns = now;
}

static void wait_in_line(struct hub_conn *conn)
{
    struct hw_hub *hub = conn->hub;

    if (conn->is_in_line)
        return;
    conn->is_in_line = true;
    conn->next_in_line = NULL;
    if (hub->line_last != NULL)
        hub->line_last->next_in_line = conn;
    else
        hub->line = conn;
    hub->line_last = conn;
}

void turn_leave(struct hub_conn *conn)
{
    struct hw_hub *hub = conn->hub;
    struct hub_conn *previous = NULL;

    if (!conn->is_in_line)
        return;
    for (struct hub_conn *at = hub->line; at != conn; at = at->next_in_line)
        previous = at;
    if (previous != NULL)
        previous->next_in_line = conn->next_in_line;
    else
        hub->line = conn->next_in_line;
    if (hub->line_last == conn)
        hub->line_last = previous;
    conn->is_in_line = false;
}

/* One piece of its work; the time after it. */
static uint64_t turn(struct hub_conn *conn, uint64_t now)
{
    uint64_t end;

    forget(conn, now);
    if (conn->was_sent) {
        conn_sent(conn);
    } else {
        struct hw_slice piece = conn->input;

        if (piece.size > TURN_BYTES && !conn->is_outgoing)
            piece.size = TURN_BYTES;
        conn->input.bytes += piece.size;
        conn->input.size -= piece.size;
        conn_received(conn, piece);
    }
    end = hub_now(conn->hub);
    conn->cost_ns += end - now;
    conn->cost_at_ns = end;
    return end;
}

void turn_take(struct hub_conn *conn)
{
    uint64_t now = hub_now(conn->hub);

    forget(conn, now);
    while (!conn->is_in_line && conn->cost_ns < HEAVY_NS && has_work(conn))
        now = turn(conn, now);
    if (has_work(conn))
        wait_in_line(conn);
}

bool turns_take(struct hw_hub *hub)
{
    uint64_t now = hub_now(hub), end = now + ROUND_NS;

    while (hub->line != NULL && now < end) {
        struct hub_conn *conn = hub->line;

        turn_leave(conn);
        if (has_work(conn))
            now = turn(conn, now);
        if (has_work(conn))
            wait_in_line(conn);
    }
    return hub->line != NULL;
}
