/*
 * Databases that clients want made: the part of node/hub.h about creating.
 *
 *     peer asks ─▶ checked ─▶ waits ─▶ hw_hub_creation_next() ─▶ hw_hub_creation_done() ─▶ answer
 *
 * Making one takes files and syncs, so the loop does not do it: whoever embeds the hub is told that
 * something waits, makes and serves it in a thread of its own, and says so.
 */
#include <string.h>

#include "base/alloc.h"
#include "hypercore/manifest.h"
#include "node/hub_internal.h"

enum { WAITING_MAX = 16, WAITING_OF_ONE_MAX = 2 };

struct hub_creation {
    struct hub_creation *next;
    struct hub_conn *conn; /* NULL: it is gone; made all the same if that has begun */
    uint64_t id, request;
    bool is_taken;
    uint32_t page_size;
    char name[HW_NAME_MAX + 1];
};

/* --------------------------------------------------------------------------------- names */

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("._-+@=,", c) != NULL);
}

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);

    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

enum hw_status hw_creation_check(const char *name, uint32_t page_size, struct hw_error *err)
{
    static const char *const companions[] = {"-wal", "-shm", "-journal", "-hyper", ".tmp"};
    uint8_t key[HW_KEY_SIZE];
    size_t size = strlen(name);

    if (size == 0 || size > HW_NAME_MAX || name[0] == '.' || name[0] == '-')
        return hw_fail(err, HW_EMISUSE, "a name has 1 to %d bytes and begins with neither . nor -",
                       HW_NAME_MAX);
    for (size_t i = 0; i < size; i++)
        if (!is_plain(name[i]))
            return hw_fail(err, HW_EMISUSE,
                           "the name of a new database has letters, digits and ._-+@=, only, "
                           "unlike this one at byte %zu",
                           i + 1);
    for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]); i++)
        if (ends_with(name, companions[i]))
            return hw_fail(err, HW_EMISUSE, "files that end with %s stand beside databases",
                           companions[i]);
    if (hw_key_parse(name, key))
        return hw_fail(err, HW_EMISUSE, "a name that is a key means the log with that key");
    if (page_size != 0 &&
        (page_size < 512 || page_size > 65536 || (page_size & (page_size - 1)) != 0))
        return hw_fail(err, HW_EMISUSE, "a page has 512 to 65536 bytes, a power of two");
    return HW_OK;
}

/* ------------------------------------------------------------------------------- we are asked */

static void answer(struct hub_conn *conn, uint64_t request, enum hw_create_status made,
                   const uint8_t *key, const char *why)
{
    struct hw_hyperwal_created created = {.request = request, .status = made};
    struct hw_error err = {0};

    if (key != NULL)
        memcpy(created.key, key, HW_KEY_SIZE);
    created.why = (struct hw_slice){(const uint8_t *)why, why != NULL ? strlen(why) : 0};
    if (hw_peer_created(conn->peer, &created, &err) != HW_OK)
        conn_doom(conn, &err);
    conn_touch(conn);
}

static bool is_full(const struct hw_hub *hub, const struct hub_conn *conn)
{
    unsigned all = 0, own = 0;

    for (const struct hub_creation *c = hub->creations; c != NULL; c = c->next) {
        all++;
        own += c->conn == conn;
    }
    return all >= WAITING_MAX || own >= WAITING_OF_ONE_MAX;
}

/* HW_CREATE_MADE: it may be made. */
static enum hw_create_status consider(struct hw_hub *hub, struct hub_conn *conn, const char *name,
                                      uint32_t page_size, struct hw_error *err)
{
    struct hw_slice text = {(const uint8_t *)name, strlen(name)};

    if (hw_creation_check(name, page_size, err) != HW_OK)
        return HW_CREATE_BAD;
    if (access_demand(conn, text, HW_RIGHT_CREATE, err) != HW_OK)
        return HW_CREATE_REFUSED;
    if (hub->on_create == NULL) {
        (void)hw_fail(err, HW_EREFUSED, "this server makes no databases");
        return HW_CREATE_REFUSED;
    }
    if (log_find_name(hub, text) != NULL) {
        (void)hw_fail(err, HW_EEXIST, "there is a database of this name");
        return HW_CREATE_EXISTS;
    }
    if (is_full(hub, conn)) {
        (void)hw_fail(err, HW_ELIMIT, "too many databases are being made just now");
        return HW_CREATE_FAILED;
    }
    return HW_CREATE_MADE;
}

enum hw_status creation_asked(struct hub_conn *conn, const struct hw_hyperwal_create *create,
                              struct hw_error *err)
{
    struct hw_hub *hub = conn->hub;
    struct hub_creation *creation = hw_zalloc(sizeof(*creation)), **last = &hub->creations;
    struct hw_error why = {0};
    enum hw_create_status status;

    if (creation == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a new database");
    memcpy(creation->name, create->name.bytes, create->name.size);
    status = consider(hub, conn, strlen(creation->name) == create->name.size ? creation->name : "",
                      create->page_size, &why);
    if (status != HW_CREATE_MADE) {
        hw_free(creation);
        answer(conn, create->request, status, NULL, why.message);
        return HW_OK;
    }
    creation->conn = conn;
    creation->id = ++hub->last_creation;
    creation->request = create->request;
    creation->page_size = create->page_size;
    while (*last != NULL)
        last = &(*last)->next;
    *last = creation;
    hub->on_create(hub->on_create_ctx);
    return HW_OK;
}

static void creation_remove(struct hw_hub *hub, struct hub_creation *creation)
{
    struct hub_creation **at = &hub->creations;

    while (*at != creation)
        at = &(*at)->next;
    *at = creation->next;
    hw_free(creation);
}

void creations_forget(struct hub_conn *conn)
{
    struct hub_creation *next;

    for (struct hub_creation *c = conn->hub->creations; c != NULL; c = next) {
        next = c->next;
        if (c->conn != conn)
            continue;
        c->conn = NULL;
        if (!c->is_taken)
            creation_remove(conn->hub, c);
    }
}

void creations_release(struct hw_hub *hub)
{
    while (hub->creations != NULL)
        creation_remove(hub, hub->creations);
}

/* ------------------------------------------------------------------------ who makes them */

enum hw_status hw_hub_on_create(struct hw_hub *hub, void (*asked)(void *ctx), void *ctx,
                                struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    hub->on_create = asked;
    hub->on_create_ctx = ctx;
    hub_leave(hub);
    return HW_OK;
}

enum hw_status hw_hub_creation_next(struct hw_hub *hub, struct hw_hub_creation *out)
{
    struct hub_creation *creation;

    if (hub_enter(hub, NULL) != HW_OK)
        return HW_END;
    creation = hub->creations;
    while (creation != NULL && creation->is_taken)
        creation = creation->next;
    if (creation != NULL) {
        creation->is_taken = true;
        *out = (struct hw_hub_creation){.id = creation->id, .page_size = creation->page_size};
        memcpy(out->name, creation->name, sizeof(out->name));
    }
    hub_leave(hub);
    return creation != NULL ? HW_OK : HW_END;
}

void hw_hub_creation_done(struct hw_hub *hub, uint64_t id, const char *why)
{
    struct hub_creation *creation;
    struct hub_log *log;

    if (hub_enter(hub, NULL) != HW_OK)
        return;
    creation = hub->creations;
    while (creation != NULL && creation->id != id)
        creation = creation->next;
    if (creation != NULL && creation->conn != NULL) {
        const char *name = creation->name;

        log = log_find_name(hub, (struct hw_slice){(const uint8_t *)name, strlen(name)});
        if (why == NULL && (log == NULL || log->core == NULL))
            why = "it was made, and has no log yet";
        answer(creation->conn, creation->request, why == NULL ? HW_CREATE_MADE : HW_CREATE_FAILED,
               why == NULL ? hw_core_identity(log->core)->key : NULL, why);
    }
    if (creation != NULL)
        creation_remove(hub, creation);
    hub_leave(hub);
}

/* ------------------------------------------------------------------------------ we ask */

void creation_answered(struct hub_query *query, const struct hw_hyperwal_created *created)
{
    static const enum hw_status statuses[] = {HW_OK, HW_EEXIST, HW_EREFUSED, HW_EMISUSE, HW_EIO};
    struct hw_error err = {0};
    char why[HW_CREATE_WHY_MAX + 1] = "";

    if (created->status == HW_CREATE_MADE)
        memcpy(query->key, created->key, HW_KEY_SIZE);
    for (size_t i = 0; i < created->why.size; i++) /* a server's words, for a terminal */
        why[i] = (char)(created->why.bytes[i] >= 0x20 && created->why.bytes[i] < 0x7f
                            ? created->why.bytes[i]
                            : '?');
    if (created->status != HW_CREATE_MADE)
        (void)hw_fail(&err, statuses[created->status], "%s: no database \"%s\" was made: %s",
                      query->conn->address, query->address->name, why);
    query_end(query, statuses[created->status], &err);
}
