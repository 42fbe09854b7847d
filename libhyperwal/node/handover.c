/*
 * A primary that ends its log because another one goes on: what a peer asks goes to the worker of
 * the database, in whatever process, and the answer back when it is there.
 */
#include <string.h>

#include "base/alloc.h"
#include "capture/capture.h"
#include "node/hub_internal.h"

enum { NS_PER_MS = 1000000, WRITERS_MS = 5000, HANDOVERS_MAX = 16 };
#define LOOK_NS (10 * (uint64_t)NS_PER_MS) /* the mailbox has no bell */

struct hub_handover {
    struct hub_handover *next;
    struct hub_conn *conn;
    uint64_t request;
    struct hw_shared_page *page; /* owned */
    uint64_t mail;
    uint64_t deadline_ns;
};

static void answer(struct hub_conn *conn, const struct hw_hyperwal_handed *handed)
{
    struct hw_error err = {0};

    if (hw_peer_handed(conn->peer, handed, &err) == HW_OK)
        conn_touch(conn);
    else if (err.status != HW_ENOTFOUND)
        conn_doom(conn, &err);
}

static void answer_failed(struct hub_conn *conn, uint64_t request, const struct hw_error *why)
{
    struct hw_hyperwal_handed handed = {.request = request, .status = HW_HANDED_FAILED};

    handed.text.bytes = (const uint8_t *)why->message;
    handed.text.size = strnlen(why->message, HW_HANDED_TEXT_MAX);
    answer(conn, &handed);
}

static void handover_free(struct hub_handover *handover)
{
    hw_shared_page_close(handover->page);
    hw_free(handover);
}

static unsigned count(const struct hw_hub *hub)
{
    unsigned found = 0;

    for (const struct hub_handover *h = hub->handovers; h != NULL; h = h->next)
        found++;
    return found;
}

static enum hw_status begin(struct hub_conn *conn, struct hub_log *log,
                            const struct hw_hyperwal_handover *asked, struct hw_error *err)
{
    struct hw_hub *hub = conn->hub;
    struct hub_handover *handover;
    enum hw_status status;

    if (hw_core_is_mirror(log->core))
        return hw_fail(err, HW_EREADONLY, "this is not its primary");
    if (count(hub) >= HANDOVERS_MAX)
        return hw_fail(err, HW_EBUSY, "too many logs are being handed over");
    handover = hw_zalloc(sizeof(*handover));
    if (handover == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to hand over a log");
    status = hw_shared_page_open(hub->env, log->dir, true, &handover->page, err);
    if (status == HW_OK)
        status = hw_handover_post(handover->page, asked->key, WRITERS_MS, &handover->mail, err);
    if (status != HW_OK) {
        handover_free(handover);
        return status;
    }
    writes_rouse(log);
    handover->conn = conn;
    handover->request = asked->request;
    handover->deadline_ns = hub_now(hub) + (WRITERS_MS + 1000) * (uint64_t)NS_PER_MS;
    handover->next = hub->handovers;
    hub->handovers = handover;
    hub_timer(hub, hub_now(hub) + LOOK_NS);
    return HW_OK;
}

void handover_asked(struct hub_conn *conn, const struct hw_hyperwal_handover *asked)
{
    struct hw_hyperwal_handed handed = {.request = asked->request, .status = HW_HANDED_UNKNOWN};
    struct hub_log *log = log_find_name(conn->hub, asked->name);
    struct hw_error err = {0};

    if (access_demand(conn, asked->name, HW_RIGHT_PROMOTE, NULL) != HW_OK) {
        handed.status = HW_HANDED_REFUSED;
        answer(conn, &handed);
    } else if (log_may_be_hidden(conn->hub, asked->name)) {
        (void)hw_fail(&err, HW_EIO, "its log cannot be read now"); /* it only fills err */
        answer_failed(conn, asked->request, &err);
    } else if (log == NULL || log->core == NULL) {
        answer(conn, &handed);
    } else if (begin(conn, log, asked, &err) != HW_OK) {
        answer_failed(conn, asked->request, &err);
    }
}

/* HW_AGAIN: not yet. */
static enum hw_status look(struct hub_handover *handover, uint64_t now)
{
    struct hw_hyperwal_handed handed = {.request = handover->request};
    struct hw_error err = {0};
    enum hw_status status = hw_handover_collect(handover->page, handover->mail, &handed.seq, &err);

    if (status == HW_AGAIN && now < handover->deadline_ns)
        return HW_AGAIN;
    if (status == HW_AGAIN || status == HW_END) {
        hw_mailbox_cancel(handover->page, handover->mail);
        (void)hw_fail(&err, HW_ETIMEOUT,
                      "nobody who writes the database answered in time; if its log ended all the "
                      "same, the next call goes on from there");
    }
    if (status == HW_OK)
        answer(handover->conn, &handed);
    else
        answer_failed(handover->conn, handover->request, &err);
    return status;
}

void handovers_look(struct hw_hub *hub, uint64_t now)
{
    struct hub_handover **at = &hub->handovers;

    while (*at != NULL) {
        struct hub_handover *handover = *at;

        if (look(handover, now) == HW_AGAIN) {
            hub_timer(hub, now + LOOK_NS);
            at = &handover->next;
        } else {
            *at = handover->next;
            handover_free(handover);
        }
    }
}

void handovers_forget(struct hub_conn *conn)
{
    struct hub_handover **at = &conn->hub->handovers;

    while (*at != NULL) {
        struct hub_handover *handover = *at;

        if (handover->conn == conn) {
            *at = handover->next;
            hw_mailbox_cancel(handover->page, handover->mail);
            handover_free(handover);
        } else {
            at = &handover->next;
        }
    }
}

void handover_told(struct hub_conn *conn, const struct hw_hyperwal_handed *told)
{
    struct hub_query *query = conn->query;
    const char *name = query != NULL ? query->address->name : "";
    struct hw_error err = {0};

    if (query == NULL || query->heir_key == NULL || query->request != told->request)
        return;
    switch (told->status) {
    case HW_HANDED_DONE:
        query->seq = told->seq;
        break;
    case HW_HANDED_UNKNOWN:
        hw_fail(&err, HW_ENOTFOUND, "%s: knows no database \"%s\"", conn->address, name);
        break;
    case HW_HANDED_REFUSED:
        hw_fail(&err, HW_EREFUSED, "%s: gives us no right to promote another \"%s\"", conn->address,
                name);
        break;
    case HW_HANDED_FAILED:
        hw_fail(&err, HW_EBUSY, "%s: %.*s", conn->address, (int)told->text.size,
                (const char *)told->text.bytes);
        for (char *c = err.message; *c != '\0'; c++)
            if ((unsigned char)*c < 0x20)
                *c = '?'; /* the server's words go to a terminal */
        break;
    }
    query_end(query, err.status, &err);
}
