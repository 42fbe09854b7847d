/*
 * Writing from afar, the client's side: the lease that a mirror's process has, and transactions
 * that go to the source it came from.
 *
 * A lease belongs to one link: with the link it is gone, and so is whatever waited for an answer.
 */
#include <string.h>

#include "node/hub_internal.h"

enum {
    NS_PER_MS = 1000000,
    LEASE_MS_MAX = 3600000,
    MARGIN_MS = 1000,        /* a lease is not begun with that is so near its end */
    KEPT_MS = 300,           /* longer than SQLite's busy handler sleeps between two tries */
    OUTPUT_ENOUGH = 4 << 20, /* bytes that wait: no more parts before some have gone */
};

static struct hub_link *source_link(const struct hw_mirror *mirror)
{
    for (struct hub_link *l = mirror->log->links; l != NULL; l = l->next_of_log)
        if (l->conn->source != NULL && l->conn->source->is_linked && !l->conn->is_doomed)
            return l;
    return NULL;
}

static enum hw_status send(struct hub_link *link, const struct hw_write_message *message,
                           struct hw_error *err)
{
    struct hw_mirror *mirror = link->log->mirror;
    static const struct hw_ack nothing;
    struct hw_peer *peer = link->conn->peer;
    enum hw_status status = HW_OK;

    /* So that the channel is opened with the replica's name, and not opened anew for it. */
    if (!link->has_named_itself)
        status = hw_peer_acknowledge(peer, link->log->replication, mirror->replica_id,
                                     mirror->told.received == UINT64_MAX ? &nothing : &mirror->told,
                                     err);
    link->has_named_itself = true;
    if (status == HW_OK)
        status = hw_peer_write(peer, link->log->replication, message, err);
    conn_touch(link->conn);
    return status;
}

static void forget_lease(struct hub_writer *writer)
{
    writer->fence = 0;
    writer->is_recalled = false;
}

static void give_back(struct hub_writer *writer)
{
    struct hw_write_message release = {.type = HW_WRITE_RELEASE, .fence = writer->fence};
    struct hw_error err = {0};

    if (writer->link != NULL && writer->fence != 0 && send(writer->link, &release, &err) != HW_OK)
        conn_doom(writer->link->conn, &err);
    forget_lease(writer);
}

/* ------------------------------------------------------------------- what the server says */

static bool is_asked(const struct hub_writer *writer, const struct hub_link *link, uint64_t request)
{
    return writer->is_asked && writer->link == link && writer->request == request;
}

/* How long it is good is the server's to say: its fence is looked at with each commit. */
static void leased(struct hub_link *link, const struct hw_write_message *m)
{
    struct hub_writer *writer = &link->log->mirror->writer;
    struct hw_write_message release = {.type = HW_WRITE_RELEASE, .fence = m->fence};
    uint64_t now = hub_now(link->log->hub);
    struct hw_error err = {0};

    if (is_asked(writer, link, m->request)) {
        writer->is_asked = false;
        if (m->status != HW_WRITE_OK)
            return;
        writer->fence = m->fence;
        writer->lease_ms = m->ms < LEASE_MS_MAX ? m->ms : LEASE_MS_MAX;
        writer->expires_ns = now + writer->lease_ms * NS_PER_MS;
        writer->length = m->length;
        writer->kept_ns = now + (uint64_t)KEPT_MS * NS_PER_MS;
        return;
    }
    /* Nobody waits for it any more. */
    if (m->status == HW_WRITE_OK && send(link, &release, &err) != HW_OK)
        conn_doom(link->conn, &err);
}

static void must_wait(struct hub_link *link, const struct hw_write_message *m)
{
    struct hub_writer *writer = &link->log->mirror->writer;

    if (!is_asked(writer, link, m->request))
        return;
    writer->must_wait = true;
    writer->told_ns = hub_now(link->log->hub);
    hub_wake(link->log->hub, &writer->word);
}

static void answered(struct hw_mirror *mirror, const struct hw_write_message *m)
{
    struct hub_writer *writer = &mirror->writer;
    size_t size = m->body.size < HW_WRITE_TEXT_MAX ? m->body.size : HW_WRITE_TEXT_MAX;

    if (!writer->is_waiting || m->request != writer->request)
        return;
    writer->answer = *m;
    writer->answer.body = (struct hw_slice){NULL, 0};
    if (size > 0)
        memcpy(writer->text, m->body.bytes, size);
    writer->text[size] = '\0';
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)writer->text[i] < ' ' || (unsigned char)writer->text[i] == 0x7f)
            writer->text[i] = '?'; /* somebody else's words */
    writer->has_answer = true;
    writer->is_waiting = false;
    hub_wake(mirror->hub, &writer->word);
}

enum hw_status writer_message(struct hub_link *link, const struct hw_write_message *m,
                              struct hw_error *err)
{
    struct hw_mirror *mirror = link->log->mirror;
    struct hub_writer *writer = &mirror->writer;

    switch ((int)m->type) {
    case HW_WRITE_LEASED:
        leased(link, m);
        answered(mirror, m);
        return HW_OK;
    case HW_WRITE_WAITS:
        must_wait(link, m);
        return HW_OK;
    case HW_WRITE_RECALL:
        if (link != writer->link || m->fence != writer->fence || writer->fence == 0)
            return HW_OK; /* of one that is over */
        writer->is_recalled = true;
        writer_due(mirror, hub_now(mirror->hub));
        return HW_OK;
    case HW_WRITE_COMMITTED:
    case HW_WRITE_OUTCOME:
        answered(mirror, m);
        return HW_OK;
    default:
        return hw_fail(err, HW_EPROTOCOL, "a server that asks as a client");
    }
}

void writer_unlinked(struct hub_link *link)
{
    struct hub_writer *writer = link->log->mirror == NULL ? NULL : &link->log->mirror->writer;

    if (writer == NULL || writer->link != link)
        return;
    writer->link = NULL;
    writer->is_waiting = writer->is_asked = false;
    forget_lease(writer);
    hub_wake(link->log->hub, &writer->word);
}

void writer_due(struct hw_mirror *mirror, uint64_t now)
{
    struct hub_writer *writer = &mirror->writer;

    if (!writer->is_recalled || writer->is_busy)
        return;
    if (now >= writer->kept_ns)
        give_back(writer);
    else
        hub_timer(mirror->hub, writer->kept_ns);
}

void writer_sent(struct hub_conn *conn)
{
    for (struct hub_link *l = conn->links; l != NULL; l = l->next_of_conn)
        if (l->log->mirror != NULL && l->log->mirror->writer.link == l &&
            l->log->mirror->writer.is_busy)
            hub_wake(conn->hub, &l->log->mirror->writer.word);
}

/* ------------------------------------------------------------------------ what we ask for */

/* HW_ETIMEOUT: no answer in time; HW_EIO: the link is gone. */
static enum hw_status await(struct hw_mirror *mirror, uint64_t deadline_ns, struct hw_error *err)
{
    struct hub_writer *writer = &mirror->writer;

    while (writer->is_waiting && hub_now(mirror->hub) < deadline_ns) {
        uint32_t seen = atomic_load(&writer->word);

        hub_sleep(mirror->hub, &writer->word, seen, deadline_ns);
    }
    if (writer->has_answer)
        return HW_OK;
    if (!writer->is_waiting)
        return hw_fail(err, HW_EIO, "the connection to the server ended before its answer");
    writer->is_waiting = false;
    return hw_fail(err, HW_ETIMEOUT, "no answer of the server in time");
}

static void expect(struct hub_writer *writer, struct hub_link *link)
{
    writer->link = link;
    writer->request++;
    writer->is_waiting = true;
    writer->has_answer = writer->is_asked = writer->must_wait = false;
    writer->text[0] = '\0';
}

static enum hw_status no_source(struct hw_mirror *mirror, struct hw_error *err)
{
    char problems[256];

    source_problems(mirror, problems, sizeof(problems));
    return hw_fail(err, HW_ETIMEOUT, "the server cannot be reached%s%s",
                   problems[0] != '\0' ? ": " : "", problems);
}

/* A source that is linked, before the deadline. */
static enum hw_status await_source(struct hw_mirror *mirror, uint64_t deadline_ns,
                                   struct hub_link **out, struct hw_error *err)
{
    while ((*out = source_link(mirror)) == NULL) {
        uint32_t seen = atomic_load(&mirror->news);

        if (hub_now(mirror->hub) >= deadline_ns)
            return no_source(mirror, err);
        hub_sleep(mirror->hub, &mirror->news, seen,
                  hub_now(mirror->hub) + (uint64_t)100 * NS_PER_MS < deadline_ns
                      ? hub_now(mirror->hub) + (uint64_t)100 * NS_PER_MS
                      : deadline_ns);
    }
    return HW_OK;
}

static enum hw_status no_lease(const struct hub_writer *writer, struct hw_error *err)
{
    switch ((int)writer->answer.status) {
    case HW_WRITE_REFUSED:
        return hw_fail(err, HW_EREFUSED, "%s", writer->text);
    case HW_WRITE_NOWHERE:
        return hw_fail(err, HW_EREADONLY, "%s", writer->text);
    case HW_WRITE_BUSY:
        return hw_fail(err, HW_EBUSY, "%s", writer->text);
    default:
        return hw_fail(err, HW_EIO, "the server gives no lease: %s", writer->text);
    }
}

/* A request is on its way, this one's or that of a call before. */
static enum hw_status ask(struct hw_mirror *mirror, uint64_t deadline_ns, struct hw_error *err)
{
    struct hub_writer *writer = &mirror->writer;
    struct hw_write_message lease = {.type = HW_WRITE_LEASE};
    struct hub_link *link = NULL;
    enum hw_status status;

    if (writer->is_asked) {
        writer->is_waiting = true;
        return HW_OK;
    }
    status = await_source(mirror, deadline_ns, &link, err);
    if (status == HW_OK)
        status = conn_recognize_hearer(link->conn, err);
    if (status != HW_OK)
        return status;
    forget_lease(writer);
    expect(writer, link);
    writer->is_asked = true;
    writer->asked_ns = hub_now(mirror->hub);
    lease.request = writer->request;
    status = send(link, &lease, err);
    if (status != HW_OK)
        writer->is_waiting = writer->is_asked = false;
    return status;
}

struct patience {
    uint64_t began_ns, answer_ns, turn_ns; /* when the call began; times to wait */
};

/* When to give up for this time.  Who asked long ago does not wait for the answer once more. */
static uint64_t patience_end(const struct hub_writer *writer, const struct patience *p)
{
    uint64_t turn = p->began_ns + p->turn_ns, answer = writer->asked_ns + p->answer_ns;

    if (writer->must_wait)
        return writer->told_ns > p->began_ns ? writer->told_ns + p->turn_ns : turn;
    return answer > turn ? answer : turn;
}

/* HW_EIO: the link is gone. */
static enum hw_status await_lease(struct hw_mirror *mirror, const struct patience *p,
                                  struct hw_error *err)
{
    struct hub_writer *writer = &mirror->writer;

    while (writer->is_waiting && hub_now(mirror->hub) < patience_end(writer, p)) {
        uint32_t seen = atomic_load(&writer->word);

        hub_sleep(mirror->hub, &writer->word, seen, patience_end(writer, p));
    }
    if (writer->has_answer && writer->answer.status != HW_WRITE_OK)
        return no_lease(writer, err);
    if (writer->has_answer && writer->fence != 0)
        return HW_OK;
    if (!writer->is_waiting)
        return hw_fail(err, HW_EIO, "the connection to the server ended before its answer");
    writer->is_waiting = false;
    return hw_fail(err, HW_EBUSY, writer->must_wait ? "others write" : "the server is silent");
}

static enum hw_status ask_lease(struct hw_mirror *mirror, const struct patience *p,
                                struct hw_error *err)
{
    uint64_t deadline_ns = p->began_ns + p->answer_ns;
    enum hw_status status;

    do {
        status = ask(mirror, deadline_ns, err);
        if (status == HW_OK)
            status = await_lease(mirror, p, err);
    } while (status == HW_EIO && mirror->writer.link == NULL && hub_now(mirror->hub) < deadline_ns);
    return status;
}

static bool has_lease(struct hw_mirror *mirror)
{
    const struct hub_writer *writer = &mirror->writer;
    uint64_t now = hub_now(mirror->hub);

    return writer->fence != 0 && writer->link != NULL &&
           (!writer->is_recalled || now < writer->kept_ns) &&
           now + (uint64_t)MARGIN_MS * NS_PER_MS < writer->expires_ns;
}

static enum hw_status begin(struct hw_mirror *mirror, const struct patience *p, uint64_t *fence,
                            uint64_t *length, struct hw_error *err)
{
    struct hub_writer *writer = &mirror->writer;
    enum hw_status status = HW_OK;

    if (writer->is_busy)
        return hw_fail(err, HW_EBUSY, "another connection of this process writes");
    writer->is_busy = true;
    if (!has_lease(mirror))
        status = ask_lease(mirror, p, err);
    if (status != HW_OK) {
        writer->is_busy = false;
        return status;
    }
    *length = hw_core_length(mirror->log->core);
    if (*length < writer->length)
        *length = writer->length;
    *fence = writer->fence;
    writer->kept_ns = 0;
    return HW_OK;
}

enum hw_status hw_mirror_write_begin(struct hw_mirror *mirror, uint64_t answer_ms, uint64_t turn_ms,
                                     uint64_t *fence, uint64_t *length, struct hw_error *err)
{
    struct hw_hub *hub = mirror->hub;
    enum hw_status status = hub_enter(hub, err);
    struct patience p = {.answer_ns = answer_ms * NS_PER_MS, .turn_ns = turn_ms * NS_PER_MS};

    if (status != HW_OK)
        return status;
    p.began_ns = hub_now(hub);
    status = begin(mirror, &p, fence, length, err);
    hub_leave(hub);
    return status;
}

void hw_mirror_write_end(struct hw_mirror *mirror)
{
    struct hw_hub *hub = mirror->hub;

    if (hub_enter(hub, NULL) != HW_OK)
        return;
    mirror->writer.is_busy = false;
    if (mirror->writer.is_recalled)
        give_back(&mirror->writer);
    hub_leave(hub);
}

/* --------------------------------------------------------------------------------- commit */

static struct hw_write_answer no_answer(enum hw_write_status status, const struct hw_error *err)
{
    struct hw_write_answer answer = {.status = status};
    size_t size = strlen(err->message);

    if (size > HW_WRITE_TEXT_MAX)
        size = HW_WRITE_TEXT_MAX;
    memcpy(answer.text, err->message, size);
    return answer;
}

static struct hw_write_answer answer_of(const struct hub_writer *writer)
{
    struct hw_write_answer answer = {.status = writer->answer.status, .seq = writer->answer.seq};

    memcpy(answer.text, writer->text, sizeof(answer.text));
    return answer;
}

/* All parts, no faster than they go. */
static enum hw_status send_parts(struct hw_mirror *mirror, uint64_t count,
                                 enum hw_status (*next)(void *ctx, struct hw_slice *part,
                                                        struct hw_error *err),
                                 void *ctx, uint64_t deadline_ns, struct hw_error *err)
{
    struct hub_writer *writer = &mirror->writer;
    struct hw_write_message part = {.type = HW_WRITE_PART, .request = writer->request};
    enum hw_status status = HW_OK;

    while (status == HW_OK && count > 0 && writer->is_waiting) {
        uint32_t seen = atomic_load(&writer->word);

        if (hub_now(mirror->hub) >= deadline_ns)
            return hw_fail(err, HW_ETIMEOUT, "the server does not take it");
        if (hw_peer_output(writer->link->conn->peer).size > OUTPUT_ENOUGH) {
            hub_sleep(mirror->hub, &writer->word, seen, deadline_ns);
            continue;
        }
        status = next(ctx, &part.body, err);
        if (status == HW_OK)
            status = send(writer->link, &part, err);
        count--;
    }
    if (status == HW_OK && count > 0 && !writer->has_answer)
        return hw_fail(err, HW_EIO, "the connection to the server ended before it had all");
    return status;
}

static struct hw_write_answer commit(struct hw_mirror *mirror, const struct hw_write_message *what,
                                     enum hw_status (*next)(void *ctx, struct hw_slice *part,
                                                            struct hw_error *err),
                                     void *ctx, uint64_t timeout_ms)
{
    struct hub_writer *writer = &mirror->writer;
    struct hw_write_message message = *what;
    uint64_t began_ns = hub_now(mirror->hub);
    uint64_t deadline_ns = began_ns + timeout_ms * NS_PER_MS;
    struct hw_error err = {0};
    enum hw_status status;

    if (writer->link == NULL || writer->fence != hw_origin_fence(&what->id)) {
        hw_fail(&err, HW_EIO, "the connection to the server, and the lease with it, is gone");
        return no_answer(HW_WRITE_LOST, &err);
    }
    expect(writer, writer->link);
    message.request = writer->request;
    status = send(writer->link, &message, &err);
    if (status == HW_OK)
        status = send_parts(mirror, what->part_count, next, ctx, deadline_ns, &err);
    if (status != HW_OK) {
        /* The server has a part of it: the end of the connection says that no more comes. */
        if (writer->link != NULL)
            conn_doom(writer->link->conn, &err);
        writer->is_waiting = false;
        return no_answer(HW_WRITE_LOST, &err);
    }
    status = await(mirror, deadline_ns, &err);
    if (status != HW_OK)
        return no_answer(HW_WRITE_UNKNOWN, &err);
    if (writer->answer.kept)
        writer->expires_ns = began_ns + writer->lease_ms * NS_PER_MS;
    else
        forget_lease(writer);
    return answer_of(writer);
}

struct hw_write_answer
hw_mirror_commit(struct hw_mirror *mirror, const struct hw_write_message *what,
                 enum hw_status (*next)(void *ctx, struct hw_slice *part, struct hw_error *err),
                 void *ctx, uint64_t timeout_ms)
{
    struct hw_hub *hub = mirror->hub;
    struct hw_write_answer answer;
    struct hw_error err = {0};

    if (hub_enter(hub, &err) != HW_OK)
        return no_answer(HW_WRITE_LOST, &err);
    answer = commit(mirror, what, next, ctx, timeout_ms);
    hub_leave(hub);
    return answer;
}

static struct hw_write_answer outcome(struct hw_mirror *mirror, const struct hw_origin *id,
                                      uint64_t timeout_ms)
{
    struct hub_writer *writer = &mirror->writer;
    uint64_t deadline_ns = hub_now(mirror->hub) + timeout_ms * NS_PER_MS;
    struct hw_write_message question = {.type = HW_WRITE_QUESTION, .id = *id};
    struct hub_link *link = NULL;
    struct hw_error err = {0};
    enum hw_status status;

    if (writer->is_busy) {
        hw_fail(&err, HW_EBUSY, "another connection of this process writes: ask again");
        return no_answer(HW_WRITE_UNKNOWN, &err);
    }
    status = await_source(mirror, deadline_ns, &link, &err);
    if (status == HW_OK) {
        writer->is_busy = true;
        if (writer->link != link || writer->fence == hw_origin_fence(id))
            forget_lease(writer); /* the question ends it */
        expect(writer, link);
        question.request = writer->request;
        status = send(link, &question, &err);
        if (status == HW_OK)
            status = await(mirror, deadline_ns, &err);
        writer->is_waiting = writer->is_busy = false;
        if (writer->is_recalled)
            give_back(writer);
    }
    return status == HW_OK ? answer_of(writer) : no_answer(HW_WRITE_UNKNOWN, &err);
}

struct hw_write_answer hw_mirror_outcome(struct hw_mirror *mirror, const struct hw_origin *id,
                                         uint64_t timeout_ms)
{
    struct hw_hub *hub = mirror->hub;
    struct hw_write_answer answer;
    struct hw_error err = {0};

    if (hub_enter(hub, &err) != HW_OK)
        return no_answer(HW_WRITE_UNKNOWN, &err);
    answer = outcome(mirror, id, timeout_ms);
    hub_leave(hub);
    return answer;
}
