/* The channels of hyperwal/1: names, states, and how far followers are. */
#include <string.h>

#include "base/alloc.h"
#include "wire/peer_internal.h"

static const struct hw_slice protocol = {(const uint8_t *)HW_HYPERWAL_PROTOCOL,
                                         sizeof(HW_HYPERWAL_PROTOCOL) - 1};

static enum hw_status open_channel(struct hw_peer *peer, struct hw_slice id,
                                   const uint8_t *replica_id, void *user, struct hw_channel **out,
                                   struct hw_error *err)
{
    struct hw_hyperwal_handshake handshake = {.version = 1, .flags = PEER_FLAG_WRITES};

    if (replica_id != NULL)
        memcpy(handshake.replica_id, replica_id, sizeof(handshake.replica_id));
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_handshake_encode(&handshake, &peer->scratch);
    if (peer->scratch.failed)
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a channel");
    return hw_mux_open(peer->mux, protocol, id, peer_content(&peer->scratch), user, out, err);
}

static enum hw_status open_base(struct hw_peer *peer, struct hw_error *err)
{
    return open_channel(peer, (struct hw_slice){NULL, 0}, NULL, peer, &peer->base, err);
}

enum hw_status peer_log_open(struct peer_link *link, struct hw_error *err)
{
    const struct hw_core_identity *identity =
        hw_core_identity(hw_replication_core(link->replication));

    return open_channel(link->peer, (struct hw_slice){identity->discovery_key, HW_KEY_SIZE},
                        link->own_id, link, &link->log, err);
}

enum hw_status peer_hyperwal_asked(struct hw_peer *peer, struct hw_slice id, struct hw_error *err)
{
    struct peer_link *link;

    if (id.size == 0)
        return open_base(peer, err);
    link = peer_link_find_id(peer, id);
    if (link == NULL || link->link == NULL)
        return HW_END; /* only who has proven the key may say something about the log */
    return peer_log_open(link, err);
}

static void become_plain(struct hw_peer *peer)
{
    if (peer->is_plain)
        return;
    peer->is_plain = true;
    peer_base_free(peer);
    if (peer->host.is_plain != NULL)
        peer->host.is_plain(peer->host.ctx, peer);
}

/* -------------------------------------------------------------------------- we ask */

/* What is asked besides a name. */
struct wish {
    uint32_t page_size; /* of what is to be made */
    const uint8_t *key; /* of the log that is to go on */
};

static void question_encode(enum hw_hyperwal_type type, uint64_t request, struct hw_slice name,
                            const struct wish *wish, struct hw_buffer *out)
{
    const struct hw_hyperwal_query query = {request, name};
    const struct hw_hyperwal_create create = {request, name, wish != NULL ? wish->page_size : 0};
    struct hw_hyperwal_handover handover = {.request = request, .name = name};

    if (wish != NULL && wish->key != NULL)
        memcpy(handover.key, wish->key, HW_KEY_SIZE);
    if (type == HW_HYPERWAL_CREATE)
        hw_hyperwal_create_encode(&create, out);
    else if (type == HW_HYPERWAL_HANDOVER)
        hw_hyperwal_handover_encode(&handover, out);
    else
        hw_hyperwal_query_encode(&query, type != HW_HYPERWAL_LIST, out);
}

static enum hw_status question_new(enum hw_hyperwal_type type, uint64_t request, const char *name,
                                   const struct wish *wish, struct peer_question **out,
                                   struct hw_error *err)
{
    struct peer_question *question = hw_zalloc(sizeof(*question));
    struct hw_slice text = {(const uint8_t *)name, name != NULL ? strlen(name) : 0};

    if (question != NULL) {
        question->type = type;
        question_encode(type, request, text, wish, &question->payload);
    }
    if (question == NULL || question->payload.failed) {
        if (question != NULL)
            hw_buffer_release(&question->payload);
        hw_free(question);
        return hw_fail(err, HW_ENOMEM, "peer: no memory for a question");
    }
    *out = question;
    return HW_OK;
}

static void question_free(struct peer_question *question)
{
    hw_buffer_release(&question->payload);
    hw_free(question);
}

/* The first one that waits is taken out of the list. */
static void drop_question(struct hw_peer *peer)
{
    struct peer_question *question = peer->questions;

    peer->questions = question->next;
    peer->question_count--;
    question_free(question);
}

static enum hw_status ask_all(struct hw_peer *peer, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    while (status == HW_OK && peer->questions != NULL) {
        status = hw_channel_send(peer->base, peer->questions->type,
                                 peer_content(&peer->questions->payload), err);
        if (status == HW_OK)
            drop_question(peer);
    }
    return status;
}

enum hw_status peer_base_ready(struct hw_peer *peer, struct hw_error *err)
{
    if (peer->questions == NULL)
        return HW_OK;
    if (peer->base == NULL)
        return open_base(peer, err);
    return hw_channel_is_open(peer->base) ? ask_all(peer, err) : HW_OK;
}

static enum hw_status ask(struct hw_peer *peer, enum hw_hyperwal_type type, const char *name,
                          const struct wish *wish, uint64_t *request, struct hw_error *err)
{
    struct peer_question *question = NULL, **last = &peer->questions;
    enum hw_status status;

    if (peer->is_plain)
        return hw_fail(err, HW_EPROTOCOL, "peer: it knows no names: a Hypercore peer only");
    if (name != NULL && strlen(name) > HW_NAME_MAX)
        return hw_fail(err, HW_ELIMIT, "peer: a name of more than %d bytes", HW_NAME_MAX);
    if (peer->question_count == PEER_QUESTIONS_MAX)
        return hw_fail(err, HW_ELIMIT, "peer: %d questions wait already", PEER_QUESTIONS_MAX);
    status = question_new(type, peer->last_request + 1, name, wish, &question, err);
    if (status != HW_OK)
        return status;
    *request = ++peer->last_request;
    while (*last != NULL)
        last = &(*last)->next;
    *last = question;
    peer->question_count++;
    return peer->is_open ? peer_base_ready(peer, err) : HW_OK;
}

enum hw_status hw_peer_lookup(struct hw_peer *peer, const char *name, uint64_t *request,
                              struct hw_error *err)
{
    return ask(peer, HW_HYPERWAL_LOOKUP, name, NULL, request, err);
}

enum hw_status hw_peer_ask(struct hw_peer *peer, const char *name, uint64_t *request,
                           struct hw_error *err)
{
    return ask(peer, HW_HYPERWAL_ASK, name, NULL, request, err);
}

enum hw_status hw_peer_list(struct hw_peer *peer, uint64_t *request, struct hw_error *err)
{
    return ask(peer, HW_HYPERWAL_LIST, NULL, NULL, request, err);
}

enum hw_status hw_peer_create(struct hw_peer *peer, const char *name, uint32_t page_size,
                              uint64_t *request, struct hw_error *err)
{
    const struct wish wish = {.page_size = page_size};

    return ask(peer, HW_HYPERWAL_CREATE, name, &wish, request, err);
}

enum hw_status hw_peer_hand_over(struct hw_peer *peer, const char *name,
                                 const uint8_t key[HW_KEY_SIZE], uint64_t *request,
                                 struct hw_error *err)
{
    const struct wish wish = {.key = key};

    return ask(peer, HW_HYPERWAL_HANDOVER, name, &wish, request, err);
}

/* ---------------------------------------------------------------------- we are asked */

enum hw_status hw_peer_handed(struct hw_peer *peer, const struct hw_hyperwal_handed *handed,
                              struct hw_error *err)
{
    if (peer->base == NULL || !hw_channel_is_open(peer->base))
        return hw_fail(err, HW_ENOTFOUND, "peer: nobody is there to hear the answer");
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_handed_encode(handed, &peer->scratch);
    return peer_send_scratch(peer, peer->base, HW_HYPERWAL_HANDED, err);
}

static enum hw_status asked_handover(struct hw_peer *peer, struct hw_slice payload,
                                     struct hw_error *err)
{
    struct hw_hyperwal_handover handover;
    enum hw_status status = hw_hyperwal_handover_decode(payload, &handover, err);

    if (status == HW_OK && peer->host.handover != NULL)
        peer->host.handover(peer->host.ctx, peer, &handover);
    return status;
}

static enum hw_status answer_lookup(struct hw_peer *peer, const struct peer_query *query,
                                    struct hw_error *err)
{
    struct hw_hyperwal_found found = {.request = query->request, .status = HW_LOOKUP_UNKNOWN};

    if (peer->host.lookup != NULL)
        found.status = peer->host.lookup(
            peer->host.ctx, peer, (struct hw_slice){query->name, query->name_size}, found.key);
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_found_encode(&found, &peer->scratch);
    return peer_send_scratch(peer, peer->base, HW_HYPERWAL_FOUND, err);
}

static enum hw_status answer_state(struct hw_peer *peer, const struct peer_query *query,
                                   struct hw_error *err)
{
    struct hw_hyperwal_state state = {.request = query->request, .status = HW_LOOKUP_UNKNOWN};
    struct hw_buffer json = {0};

    if (peer->host.state != NULL)
        state.status = peer->host.state(peer->host.ctx, peer,
                                        (struct hw_slice){query->name, query->name_size}, &json);
    if (json.failed || json.size > HW_STATE_TEXT_MAX)
        state.status = HW_LOOKUP_REFUSED; /* half of it would be none */
    state.json = peer_content(&json);
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_state_encode(&state, &peer->scratch);
    hw_buffer_release(&json);
    return peer_send_scratch(peer, peer->base, HW_HYPERWAL_STATE, err);
}

struct name_list {
    size_t count;
    struct hw_buffer entries;
};

static void list_add(void *ctx, const struct hw_name_entry *entry)
{
    struct name_list *list = ctx;

    if (list->count == HW_NAMES_MAX || entry->name.size > HW_NAME_MAX)
        return;
    hw_hyperwal_names_add(entry, &list->entries);
    list->count++;
}

static enum hw_status answer_list(struct hw_peer *peer, const struct peer_query *query,
                                  struct hw_error *err)
{
    struct name_list list = {.count = 0};

    if (peer->host.list != NULL)
        peer->host.list(peer->host.ctx, peer, list_add, &list);
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_names_begin(query->request, list.count, &peer->scratch);
    hw_buffer_add(&peer->scratch, list.entries.bytes, list.entries.size);
    if (list.entries.failed)
        peer->scratch.failed = true;
    hw_buffer_release(&list.entries);
    return peer_send_scratch(peer, peer->base, HW_HYPERWAL_NAMES, err);
}

static enum hw_status answer(struct hw_peer *peer, const struct peer_query *query,
                             struct hw_error *err)
{
    if (query->type == HW_HYPERWAL_LOOKUP)
        return answer_lookup(peer, query, err);
    if (query->type == HW_HYPERWAL_ASK)
        return answer_state(peer, query, err);
    return answer_list(peer, query, err);
}

/* Answers wait for room in the output; of questions that wait there are few. */
static enum hw_status asked(struct hw_peer *peer, enum hw_hyperwal_type type,
                            struct hw_slice payload, struct hw_error *err)
{
    struct peer_query *query = &peer->queries[peer->query_count];
    struct hw_hyperwal_query decoded;
    enum hw_status status;

    status = hw_hyperwal_query_decode(payload, type != HW_HYPERWAL_LIST, &decoded, err);
    if (status != HW_OK)
        return status;
    if (peer->query_count == PEER_QUERIES_MAX)
        return hw_fail(err, HW_ELIMIT, "peer: it asks on and on, and does not take the answers");
    *query = (struct peer_query){
        .type = type, .request = decoded.request, .name_size = decoded.name.size};
    if (decoded.name.size > 0)
        memcpy(query->name, decoded.name.bytes, decoded.name.size);
    peer->query_count++;
    return peer_base_drained(peer, err);
}

enum hw_status peer_base_drained(struct hw_peer *peer, struct hw_error *err)
{
    enum hw_status status = HW_OK;
    unsigned done = 0;

    if (peer->base == NULL)
        peer->query_count = 0; /* nobody is there to hear the answers */
    while (status == HW_OK && done < peer->query_count && peer_queued(peer) < peer->room)
        status = answer(peer, &peer->queries[done++], err);
    peer->query_count -= done;
    if (done > 0)
        memmove(peer->queries, peer->queries + done, peer->query_count * sizeof(peer->queries[0]));
    return status;
}

static enum hw_status receive_create(struct hw_peer *peer, struct hw_slice payload,
                                     struct hw_error *err)
{
    struct hw_hyperwal_create create;
    enum hw_status status = hw_hyperwal_create_decode(payload, &create, err);
    struct hw_hyperwal_created no = {.status = HW_CREATE_REFUSED};

    if (status != HW_OK || peer->base == NULL)
        return status;
    if (peer->host.create != NULL)
        return peer->host.create(peer->host.ctx, peer, &create, err);
    no.request = create.request;
    return hw_peer_created(peer, &no, err);
}

enum hw_status hw_peer_created(struct hw_peer *peer, const struct hw_hyperwal_created *created,
                               struct hw_error *err)
{
    if (peer->base == NULL || !hw_channel_is_open(peer->base))
        return HW_OK;
    hw_buffer_clear(&peer->scratch);
    hw_hyperwal_created_encode(created, &peer->scratch);
    return peer_send_scratch(peer, peer->base, HW_HYPERWAL_CREATED, err);
}

/* ------------------------------------------------------------------- base: life, messages */

enum hw_status peer_base_opened(struct hw_peer *peer, struct hw_slice handshake,
                                struct hw_error *err)
{
    struct hw_hyperwal_handshake theirs;
    enum hw_status status = hw_hyperwal_handshake_decode(handshake, &theirs, err);

    if (status == HW_EVERSION) {
        hw_channel_close(peer->base);
        peer->base = NULL;
        become_plain(peer);
        return HW_OK;
    }
    if (status != HW_OK)
        return status;
    peer->keeps_alive = true; /* as all of this kind do */
    return ask_all(peer, err);
}

void peer_base_closed(struct hw_peer *peer, bool was_rejected)
{
    peer->base = NULL;
    if (was_rejected || peer->questions != NULL)
        become_plain(peer);
}

void peer_base_free(struct hw_peer *peer)
{
    while (peer->questions != NULL)
        drop_question(peer);
}

/* Only what answers a question of ours is of interest. */
static bool is_ours(const struct hw_peer *peer, uint64_t request)
{
    return request > 0 && request <= peer->last_request;
}

static enum hw_status receive_found(struct hw_peer *peer, struct hw_slice payload,
                                    struct hw_error *err)
{
    struct hw_hyperwal_found found;
    enum hw_status status = hw_hyperwal_found_decode(payload, &found, err);

    if (status == HW_OK && is_ours(peer, found.request) && peer->host.found != NULL)
        peer->host.found(peer->host.ctx, peer, &found);
    return status;
}

static enum hw_status receive_state(struct hw_peer *peer, struct hw_slice payload,
                                    struct hw_error *err)
{
    struct hw_hyperwal_state state;
    enum hw_status status = hw_hyperwal_state_decode(payload, &state, err);

    if (status == HW_OK && is_ours(peer, state.request) && peer->host.told != NULL)
        peer->host.told(peer->host.ctx, peer, &state);
    return status;
}

static enum hw_status receive_handed(struct hw_peer *peer, struct hw_slice payload,
                                     struct hw_error *err)
{
    struct hw_hyperwal_handed handed;
    enum hw_status status = hw_hyperwal_handed_decode(payload, &handed, err);

    if (status == HW_OK && is_ours(peer, handed.request) && peer->host.handed != NULL)
        peer->host.handed(peer->host.ctx, peer, &handed);
    return status;
}

static enum hw_status receive_names(struct hw_peer *peer, struct hw_slice payload,
                                    struct hw_error *err)
{
    struct hw_name_entry entry;
    struct hw_cursor entries;
    uint64_t request;
    size_t count;
    enum hw_status status = hw_hyperwal_names_decode(payload, &request, &count, &entries, err);

    if (status != HW_OK || !is_ours(peer, request) || peer->host.named == NULL)
        return status;
    while (status == HW_OK && count-- > 0) {
        status = hw_hyperwal_names_next(&entries, &entry, err);
        if (status == HW_OK)
            peer->host.named(peer->host.ctx, peer, request, &entry);
    }
    if (status == HW_OK)
        peer->host.named(peer->host.ctx, peer, request, NULL);
    return status;
}

static enum hw_status receive_created(struct hw_peer *peer, struct hw_slice payload,
                                      struct hw_error *err)
{
    struct hw_hyperwal_created created;
    enum hw_status status = hw_hyperwal_created_decode(payload, &created, err);

    if (status == HW_OK && is_ours(peer, created.request) && peer->host.created != NULL)
        peer->host.created(peer->host.ctx, peer, &created);
    return status;
}

enum hw_status peer_base_message(struct hw_peer *peer, uint64_t type, struct hw_slice payload,
                                 struct hw_error *err)
{
    switch (type) {
    case HW_HYPERWAL_LOOKUP:
    case HW_HYPERWAL_LIST:
    case HW_HYPERWAL_ASK:
        return asked(peer, (enum hw_hyperwal_type)type, payload, err);
    case HW_HYPERWAL_CREATE:
        return receive_create(peer, payload, err);
    case HW_HYPERWAL_CREATED:
        return receive_created(peer, payload, err);
    case HW_HYPERWAL_FOUND:
        return receive_found(peer, payload, err);
    case HW_HYPERWAL_NAMES:
        return receive_names(peer, payload, err);
    case HW_HYPERWAL_STATE:
        return receive_state(peer, payload, err);
    case HW_HYPERWAL_HANDOVER:
        return asked_handover(peer, payload, err);
    case HW_HYPERWAL_HANDED:
        return receive_handed(peer, payload, err);
    default:
        return HW_OK; /* of a later version */
    }
}

/* ----------------------------------------------------------------------- one log's channel */

static enum hw_status send_ack(struct peer_link *link, struct hw_error *err)
{
    struct hw_peer *peer = link->peer;
    enum hw_status status;

    hw_buffer_clear(&peer->scratch);
    hw_ack_encode(&link->ack, &peer->scratch);
    status = peer_send_scratch(peer, link->log, HW_HYPERWAL_ACK, err);
    if (status == HW_OK)
        link->has_ack = false;
    return status;
}

static enum hw_status send_urge(struct peer_link *link, struct hw_error *err)
{
    struct hw_peer *peer = link->peer;
    enum hw_status status;

    hw_buffer_clear(&peer->scratch);
    hw_urge_encode(link->urge, &peer->scratch);
    status = peer_send_scratch(peer, link->log, HW_HYPERWAL_URGE, err);
    if (status == HW_OK)
        link->has_urge = false;
    return status;
}

enum hw_status peer_log_flush(struct peer_link *link, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (link->link == NULL || link->log_was_refused || link->peer->is_plain)
        return HW_OK;
    if (link->log == NULL)
        return link->has_ack ? peer_log_open(link, err) : HW_OK;
    if (!hw_channel_is_open(link->log))
        return HW_OK;
    if (link->has_ack)
        status = send_ack(link, err);
    if (status == HW_OK && link->has_urge)
        status = send_urge(link, err);
    return status;
}

enum hw_status hw_peer_acknowledge(struct hw_peer *peer, struct hw_replication *replication,
                                   const uint8_t replica_id[HW_REPLICA_ID_SIZE],
                                   const struct hw_ack *ack, struct hw_error *err)
{
    struct peer_link *link = peer_link_find(peer, replication);

    if (link == NULL)
        return hw_fail(err, HW_ENOTFOUND, "peer: this log is not linked");
    if (link->log != NULL && memcmp(link->own_id, replica_id, sizeof(link->own_id)) != 0) {
        hw_channel_close(link->log); /* opened by the other side before we had a name */
        link->log = NULL;
    }
    memcpy(link->own_id, replica_id, sizeof(link->own_id));
    link->ack = *ack;
    link->has_ack = true;
    return peer_log_flush(link, err);
}

enum hw_status hw_peer_urge(struct hw_peer *peer, struct hw_replication *replication, bool durable,
                            struct hw_error *err)
{
    struct peer_link *link = peer_link_find(peer, replication);

    if (link == NULL)
        return hw_fail(err, HW_ENOTFOUND, "peer: this log is not linked");
    link->has_urge = link->has_urge || link->urge != durable;
    link->urge = durable;
    return peer_log_flush(link, err);
}

enum hw_status peer_log_opened(struct peer_link *link, struct hw_slice handshake,
                               struct hw_error *err)
{
    struct hw_hyperwal_handshake theirs;
    enum hw_status status = hw_hyperwal_handshake_decode(handshake, &theirs, err);

    if (status == HW_EVERSION) {
        hw_channel_close(link->log);
        peer_log_closed(link, true);
        return HW_OK;
    }
    if (status != HW_OK)
        return status;
    memcpy(link->remote_id, theirs.replica_id, sizeof(link->remote_id));
    link->remote_writes = (theirs.flags & PEER_FLAG_WRITES) != 0;
    link->peer->keeps_alive = true;
    link->has_urge = link->urge; /* who opens it knows nothing of what was told before */
    status = peer_log_flush(link, err);
    return status == HW_OK ? peer_write_opened(link, err) : status;
}

void peer_log_closed(struct peer_link *link, bool was_rejected)
{
    link->log = NULL;
    hw_buffer_release(&link->early);
    if (!was_rejected)
        return;
    link->log_was_refused = true;
    if (link->peer->base == NULL || !hw_channel_is_open(link->peer->base))
        become_plain(link->peer);
}

static enum hw_status receive_ack(struct peer_link *link, struct hw_slice payload,
                                  struct hw_error *err)
{
    struct hw_peer *peer = link->peer;
    struct hw_ack ack;
    enum hw_status status = hw_ack_decode(payload, &ack, err);

    if (status != HW_OK || peer->host.acknowledged == NULL)
        return status;
    peer->host.acknowledged(peer->host.ctx, peer, link->replication, link->remote_id, &ack);
    return HW_OK;
}

enum hw_status peer_log_message(struct peer_link *link, uint64_t type, struct hw_slice payload,
                                struct hw_error *err)
{
    struct hw_peer *peer = link->peer;
    bool durable;
    enum hw_status status;

    if (type == HW_HYPERWAL_ACK)
        return receive_ack(link, payload, err);
    if (type != HW_HYPERWAL_URGE)
        return peer_write_message(link, type, payload, err);
    status = hw_urge_decode(payload, &durable, err);
    if (status == HW_OK && peer->host.urged != NULL)
        peer->host.urged(peer->host.ctx, peer, link->replication, durable);
    return status;
}
