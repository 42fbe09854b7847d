/* Questions to a server, each over a connection of its own: which log is this, and how is it? */
#include <stdio.h>
#include <string.h>

#include "node/hub_internal.h"

enum {
    NS_PER_MS = 1000000,
    NAMES_SHOWN = 8,
    PAUSE_NS = 50000000,      /* before it is asked again, with as much of chance; doubled ... */
    PAUSE_NS_MAX = 400000000, /* ... up to here: about a second in all */
};

void query_end(struct hub_query *query, enum hw_status status, const struct hw_error *err)
{
    struct hub_conn *conn = query->conn;
    struct hw_error done = {0};

    if (query->is_done)
        return;
    query->is_done = true;
    query->status = status;
    query->err = *err;
    query->conn = NULL;
    if (conn != NULL) {
        conn->query = NULL;
        hw_fail(&done, HW_END, "answered");
        conn_doom(conn, &done);
    }
    hub_wake(query->hub, &query->word);
}

void query_list(struct hub_query *query, const struct hw_error *err)
{
    query->err = *err;
    query->is_listing = true;
    if (hw_peer_list(query->conn->peer, &query->request, NULL) == HW_OK)
        conn_touch(query->conn);
    else
        query_end(query, err->status, err);
}

/* Names are the server's words, and go to a terminal: what steers one is not shown. */
static void make_harmless(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;

        if (c < 0x20 || c >= 0x7f)
            *text = '?';
    }
}

/* One more of all; NULL: that was the last. */
static void name_keep(struct hub_query *query, const struct hw_name_entry *entry)
{
    struct hw_error err = {0};

    if (entry != NULL && memchr(entry->name.bytes, 0, entry->name.size) == NULL) {
        hw_buffer_add(query->out, entry->key, HW_KEY_SIZE);
        hw_buffer_add(query->out, entry->name.bytes, entry->name.size);
        hw_buffer_add_u8(query->out, 0);
    }
    if (entry != NULL)
        return;
    if (query->out->failed)
        hw_fail(&err, HW_ENOMEM, "no memory for the names of a server");
    query_end(query, err.status, &err);
}

void query_named(struct hub_query *query, const struct hw_name_entry *entry)
{
    char *message = query->err.message;
    size_t size = strlen(message), room = sizeof(query->err.message) - size;
    struct hw_error err;

    if (query->is_names) {
        name_keep(query, entry);
        return;
    }
    if (entry != NULL && query->name_count < NAMES_SHOWN) {
        bool is_last = query->name_count == NAMES_SHOWN - 1;

        (void)snprintf(message + size, room, "%s%.*s%s",
                       query->name_count == 0 ? "; it has " : ", ", (int)entry->name.size,
                       (const char *)entry->name.bytes, is_last ? ", ..." : "");
        make_harmless(message + size);
        query->name_count++;
    }
    if (entry != NULL)
        return;
    if (query->name_count == 0)
        (void)snprintf(message + size, room, "; it has none");
    err = query->err;
    query_end(query, err.status, &err);
}

void query_ready(struct hub_query *query)
{
    struct hw_peer *peer = query->conn->peer;
    struct hw_error err = {0};
    enum hw_status status;

    query->is_reached = true;
    query->is_listing = query->is_names;
    if (query->is_names)
        status = hw_peer_list(peer, &query->request, &err);
    else if (query->is_create)
        status =
            hw_peer_create(peer, query->address->name, query->page_size, &query->request, &err);
    else if (query->heir_key != NULL)
        status =
            hw_peer_hand_over(peer, query->address->name, query->heir_key, &query->request, &err);
    else if (query->is_ask)
        status = hw_peer_ask(peer, query->address->name, &query->request, &err);
    else
        status = hw_peer_lookup(peer, query->address->name, &query->request, &err);
    if (status != HW_OK)
        conn_doom(query->conn, &err);
}

static enum hw_status query_once(struct hub_query *query, uint64_t deadline, uint64_t timeout_ms,
                                 struct hw_error *err)
{
    struct hw_hub *hub = query->hub;
    enum hw_status status;

    query->is_done = query->is_early = query->is_listing = query->is_reached = false;
    query->name_count = 0;
    if (query->out != NULL && query->is_names)
        hw_buffer_clear(query->out);
    status = conn_dial(hub, query->address, &query->conn, err);
    if (status != HW_OK)
        return status;
    query->conn->query = query;
    while (!query->is_done && hub_now(hub) < deadline)
        hub_sleep(hub, &query->word, atomic_load(&query->word), deadline);
    if (!query->is_done) {
        hw_fail(&query->err, HW_ETIMEOUT, "%s: no answer within %llu ms", query->address->dial,
                (unsigned long long)timeout_ms);
        query->is_reached = false;
        query_end(query, HW_ETIMEOUT, &query->err);
    }
    if (query->status != HW_OK && err != NULL)
        *err = query->err;
    return query->status;
}

/* A server turns away some of those who come all at once: they try again, each a little later. */
static enum hw_status query_run(struct hub_query *query, uint64_t timeout_ms, struct hw_error *err)
{
    struct hw_hub *hub = query->hub;
    uint64_t deadline = hub_now(hub) + timeout_ms * NS_PER_MS;
    enum hw_status status;

    if (!hub->threaded)
        return hw_fail(err, HW_EMISUSE, "a node without a thread cannot wait for an answer");
    for (uint64_t pause_ns = PAUSE_NS;; pause_ns *= 2) {
        uint64_t chance, end;

        status = query_once(query, deadline, timeout_ms, err);
        hub->env->ops->random(hub->env, &chance, sizeof(chance));
        end = hub_now(hub) + pause_ns + chance % pause_ns;
        if (status == HW_OK || !query->is_early || pause_ns > PAUSE_NS_MAX || end >= deadline)
            return status;
        while (hub_now(hub) < end)
            hub_sleep(hub, &query->word, atomic_load(&query->word), end);
    }
}

static enum hw_status query(struct hw_hub *hub, struct hub_query *query, uint64_t timeout_ms,
                            struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    query->hub = hub;
    status = query_run(query, timeout_ms, err);
    hub_leave(hub);
    return status;
}

enum hw_status hw_hub_find_key(struct hw_hub *hub, const struct hw_address *address,
                               uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE], bool *reached,
                               struct hw_error *err)
{
    struct hub_query lookup = {.address = address};
    enum hw_status status;

    *reached = false;
    if (address->has_key) {
        memcpy(key, address->key, HW_KEY_SIZE);
        return HW_OK;
    }
    status = query(hub, &lookup, timeout_ms, err);
    *reached = status == HW_OK || lookup.is_reached;
    if (status == HW_OK)
        memcpy(key, lookup.key, HW_KEY_SIZE);
    return status;
}

enum hw_status hw_hub_resolve(struct hw_hub *hub, const struct hw_address *address,
                              uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE], struct hw_error *err)
{
    bool reached;

    return hw_hub_find_key(hub, address, timeout_ms, key, &reached, err);
}

enum hw_status hw_hub_ask(struct hw_hub *hub, const struct hw_address *address, uint64_t timeout_ms,
                          struct hw_buffer *out, bool *reached, struct hw_error *err)
{
    struct hub_query ask = {.address = address, .is_ask = true, .out = out};
    struct hw_address named = *address;
    enum hw_status status;

    if (address->has_key) { /* servers know their logs by key, too */
        hw_key_format(address->key, named.name);
        ask.address = &named;
    }
    status = query(hub, &ask, timeout_ms, err);
    if (reached != NULL)
        *reached = ask.is_met;
    return status;
}

enum hw_status hw_hub_list(struct hw_hub *hub, const struct hw_address *server, uint64_t timeout_ms,
                           bool (*each)(void *ctx, const char *name,
                                        const uint8_t key[HW_KEY_SIZE]),
                           void *ctx, struct hw_error *err)
{
    struct hw_buffer found = {0};
    struct hub_query list = {.address = server, .is_names = true, .out = &found};
    enum hw_status status = query(hub, &list, timeout_ms, err);
    bool goes_on = true;

    for (size_t at = 0; status == HW_OK && goes_on && at < found.size;) {
        const char *name = (const char *)found.bytes + at + HW_KEY_SIZE;

        goes_on = each(ctx, name, found.bytes + at);
        at += HW_KEY_SIZE + strlen(name) + 1;
    }
    hw_buffer_release(&found);
    return status;
}

enum hw_status hw_hub_create(struct hw_hub *hub, const struct hw_address *address,
                             uint32_t page_size, uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE],
                             struct hw_error *err)
{
    struct hub_query create = {.address = address, .is_create = true, .page_size = page_size};
    enum hw_status status;

    if (address->has_key)
        return hw_fail(err, HW_EMISUSE, "a new database needs a name; its key is made with it");
    status = hw_creation_check(address->name, page_size, err);
    if (status == HW_OK)
        status = query(hub, &create, timeout_ms, err);
    if (status == HW_OK)
        memcpy(key, create.key, HW_KEY_SIZE);
    return status;
}

enum hw_status hw_hub_hand_over(struct hw_hub *hub, const struct hw_address *address,
                                const uint8_t key[HW_KEY_SIZE], uint64_t timeout_ms, uint64_t *seq,
                                struct hw_error *err)
{
    struct hub_query asked = {.address = address, .heir_key = key};
    struct hw_address named = *address;
    enum hw_status status;

    if (address->has_key) {
        hw_key_format(address->key, named.name);
        asked.address = &named;
    }
    status = query(hub, &asked, timeout_ms, err);
    if (status == HW_OK)
        *seq = asked.seq;
    return status;
}
