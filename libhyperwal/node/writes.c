/*
 * Writing from afar, the server's side: leases given and recalled, transactions taken in and handed
 * to the committer, answers.
 *
 *     link ──lease──▶ lease table ──event──▶ waits, leased, recall   (node/lease.h)
 *          ──commit, part...──▶ upload ──job──▶ committer ──▶ committed
 *          ──question──▶ fence taken away ──job──▶ committer ──▶ outcome
 *
 * One transaction at a time is taken in, that of the lease's holder: while its parts come and while
 * the committer has it, the lease is COMMITTING and does not change hands.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "node/committer.h"
#include "node/hub_internal.h"
#include "node/lease.h"

enum {
    NS_PER_MS = 1000000,
    UPLOAD_MS = 10000,      /* for the parts of a transaction, and 1 s more for each ... */
    UPLOAD_RATE = 64 << 10, /* ... bytes of them; of silence HW_LEASE_MS at the most */
    FENCES_RESERVE = 100,
    JOBS_MAX = 256,  /* for the committer; no question is taken beyond, and nobody held off */
    RETRY_MS = 1000, /* after fences could not be had */
    REST_MS = 20000, /* without anything to do the committer ends; its connection ends sooner */
    SPOOL_PATH_SIZE = 1024,
};

/* A transaction whose parts are coming. */
struct upload {
    struct hw_job *job; /* owned; NULL: none */
    uint64_t began_ns;
};

struct hub_writes {
    struct hub_log *log;            /* borrowed: the owner */
    char *path, *vfs;               /* owned: of the database */
    struct hw_committer *committer; /* owned; NULL: nobody wanted to write yet */
    struct hw_lease lease;
    bool is_raising;   /* a job that raises the limit of fences is under way ... */
    uint64_t raise_ns; /* ... and none is begun before */
    struct upload upload;
    unsigned jobs;          /* that the committer has */
    uint64_t used_ns;       /* when somebody last wrote, or asked to */
    bool is_resting;        /* the application closes the database: nobody writes */
    _Atomic uint32_t ended; /* counts jobs that are done; who puts off the writers sleeps on it */
};

/* ---------------------------------------------------------------------------- what is said */

static struct hub_link *link_of_client(const struct hub_log *log, uint64_t client)
{
    for (struct hub_link *l = log->links; l != NULL; l = l->next_of_log)
        if (l->write_client == client && client != 0)
            return l;
    return NULL;
}

static void say(struct hub_link *link, const struct hw_write_message *message)
{
    struct hw_error err = {0};

    if (link == NULL || link->conn->is_doomed)
        return;
    if (hw_peer_write(link->conn->peer, link->log->replication, message, &err) != HW_OK)
        conn_doom(link->conn, &err);
    conn_touch(link->conn);
}

static void say_no(struct hub_link *link, enum hw_write_type type, uint64_t request,
                   enum hw_write_status status, const char *why)
{
    struct hw_write_message message = {.type = type,
                                       .request = request,
                                       .status = status,
                                       .body = {(const uint8_t *)why, strlen(why)}};

    say(link, &message);
}

static void give_job(struct hub_writes *w, struct hw_job *job)
{
    w->jobs++;
    hw_committer_do(w->committer, job);
}

/*
 * When the transaction that is taken in has had all the time that it is given.  What came quickly
 * is no credit for who then says nothing: that is somebody who is gone, and others wait.
 */
static uint64_t upload_deadline(const struct hub_writes *w)
{
    const struct hw_job *job = w->upload.job;
    const struct hub_link *sender = job != NULL ? link_of_client(w->log, job->client) : NULL;
    uint64_t allowed_ns, heard_ns;

    if (sender == NULL) /* none is taken in: it ends with its link */
        return UINT64_MAX;
    allowed_ns = w->upload.began_ns +
                 (UPLOAD_MS + job->spool.size * 1000 / UPLOAD_RATE) * (uint64_t)NS_PER_MS;
    heard_ns = sender->conn->input.size > 0 ? hub_now(w->log->hub) /* it waits for its turn */
                                            : hw_peer_heard_ns(sender->conn->peer);
    heard_ns += (uint64_t)HW_LEASE_MS * NS_PER_MS;
    return allowed_ns < heard_ns ? allowed_ns : heard_ns;
}

/* What the lease table wants to be said. */
static void tell_events(struct hub_writes *w)
{
    struct hw_lease_event event;

    while (hw_lease_next(&w->lease, &event)) {
        struct hub_link *link = link_of_client(w->log, event.client);
        struct hw_write_message message = {.type = HW_WRITE_RECALL, .fence = event.fence};
        bool holds = event.must_hold && w->jobs < JOBS_MAX;
        struct hw_job *job = holds ? hw_zalloc(sizeof(*job)) : NULL;

        if (event.kind == HW_LEASE_GRANTED)
            message = (struct hw_write_message){.type = HW_WRITE_LEASED,
                                                .request = event.request,
                                                .fence = event.fence,
                                                .ms = HW_LEASE_MS,
                                                .length = w->log->length};
        if (job == NULL || event.kind != HW_LEASE_GRANTED) {
            hw_free(job);
            say(link, &message);
            continue;
        }
        job->kind = HW_JOB_HOLD; /* the answer is given when local writers are kept out */
        job->client = event.client;
        job->message = message;
        give_job(w, job);
    }
}

/* Deadlines, fences, events: after whatever changed the table. */
static void settle(struct hub_writes *w)
{
    if (w->is_resting)
        return;
    tell_events(w);
    if (!w->is_raising && hub_now(w->log->hub) >= w->raise_ns &&
        hw_lease_wants_limit(&w->lease, FENCES_RESERVE)) {
        struct hw_job *job = hw_zalloc(sizeof(*job));

        if (job != NULL) { /* else it is tried again at the next chance */
            job->kind = HW_JOB_FENCES;
            w->is_raising = true;
            give_job(w, job);
        }
    }
    hub_timer(w->log->hub, hw_lease_deadline(&w->lease));
    hub_timer(w->log->hub, upload_deadline(w));
}

/* ------------------------------------------------------------------------------ the upload */

/* The transaction that is taken in is not going to be one. */
static void upload_end(struct hub_writes *w, enum hw_write_status status, const char *why)
{
    struct hw_job *job = w->upload.job;
    bool kept = false;

    if (job == NULL)
        return;
    w->upload.job = NULL;
    hw_lease_commit_end(&w->lease, HW_LEASE_FAILED, hub_now(w->log->hub), &kept);
    say_no(link_of_client(w->log, job->client), HW_WRITE_COMMITTED, job->message.request, status,
           why);
    if (kept) /* it was told that it has not: so that nobody waits for it */
        hw_lease_revoke(&w->lease, w->lease.fence, hub_now(w->log->hub));
    hw_job_free(job);
    settle(w);
}

/* Its sender may try again. */
static void upload_drop(struct hub_writes *w, const char *why)
{
    struct hub_link *sender =
        w->upload.job != NULL ? link_of_client(w->log, w->upload.job->client) : NULL;

    if (sender != NULL)
        sender->is_committing = false;
    upload_end(w, HW_WRITE_LOST, why);
}

static enum hw_status commit_asked(struct hub_writes *w, struct hub_link *link,
                                   const struct hw_write_message *m, struct hw_error *err)
{
    uint64_t now = hub_now(w->log->hub);
    struct hw_job *job;

    if (m->request <= link->last_commit)
        return hw_fail(err, HW_EPROTOCOL, "commit %llu after %llu", (unsigned long long)m->request,
                       (unsigned long long)link->last_commit);
    if (link->is_committing)
        return hw_fail(err, HW_EPROTOCOL, "a commit before the answer to the last one");
    link->last_commit = m->request;
    /* Else nobody could say what became of it. */
    if (w->log->core != NULL && !hw_origin_is_of(&m->id, hw_core_identity(w->log->core)->key)) {
        say_no(link, HW_WRITE_COMMITTED, m->request, HW_WRITE_INVALID,
               "its id is that of another log's transaction");
        return HW_OK;
    }
    job = hw_zalloc(sizeof(*job));
    if (job == NULL) {
        say_no(link, HW_WRITE_COMMITTED, m->request, HW_WRITE_FAILED, "no memory");
        return HW_OK;
    }
    if (!hw_lease_commit_begin(&w->lease, link->write_client, hw_origin_fence(&m->id), now)) {
        hw_job_free(job);
        say_no(link, HW_WRITE_COMMITTED, m->request, HW_WRITE_LOST,
               "the lease is somebody else's by now, or has run out");
        settle(w);
        return HW_OK;
    }
    job->kind = HW_JOB_COMMIT;
    job->client = link->write_client;
    job->message = *m;
    job->message.body = (struct hw_slice){NULL, 0};
    w->upload = (struct upload){.job = job, .began_ns = now};
    link->is_committing = true;
    settle(w);
    return HW_OK;
}

static enum hw_status part_came(struct hub_writes *w, struct hub_link *link,
                                const struct hw_write_message *m, struct hw_error *err)
{
    struct hw_job *job = w->upload.job;
    char path[SPOOL_PATH_SIZE];
    struct hw_error why = {0};

    if (m->request != link->last_commit)
        return hw_fail(err, HW_EPROTOCOL, "a part of no commit");
    if (job == NULL || job->client != link->write_client)
        return HW_OK; /* of one that was refused meanwhile */
    (void)snprintf(path, sizeof(path), "%s/incoming", w->log->dir);
    if (hw_spool_add(&job->spool, w->log->hub->env, path, m->body, &why) != HW_OK) {
        link->is_committing = false;
        upload_end(w, HW_WRITE_FAILED, why.message);
    } else if (job->spool.count == job->message.part_count) {
        w->upload.job = NULL;
        give_job(w, job);
    }
    return HW_OK;
}

/* ------------------------------------------------------------------------------- the jobs */

static enum hw_lease_outcome outcome_of(enum hw_write_status status)
{
    if (status == HW_WRITE_OK)
        return HW_LEASE_COMMITTED;
    return status == HW_WRITE_STALE ? HW_LEASE_STALE : HW_LEASE_FAILED;
}

static void commit_done(struct hub_writes *w, struct hw_job *job)
{
    struct hub_link *link = link_of_client(w->log, job->client);
    const char *words = job->error.message;
    struct hw_write_message answer = {.type = HW_WRITE_COMMITTED,
                                      .request = job->message.request,
                                      .status = job->status,
                                      .seq = job->seq,
                                      .body = {(const uint8_t *)words, strlen(words)}};

    hw_lease_commit_end(&w->lease, outcome_of(job->status), hub_now(w->log->hub), &answer.kept);
    if (link != NULL)
        link->is_committing = false;
    if (job->status == HW_WRITE_OK) /* followers, and its sender, get the entry before the answer */
        log_look(w->log, hub_now(w->log->hub));
    say(link_of_client(w->log, job->client), &answer);
}

/* No fences can be had: nobody gets a lease, and all who wait learn why. */
static void fences_failed(struct hub_writes *w, const struct hw_error *why)
{
    uint64_t now = hub_now(w->log->hub);

    w->raise_ns = now + (uint64_t)RETRY_MS * NS_PER_MS;
    hw_env_log(w->log->hub->env, HW_LOG_WARN, "event=no_fences log=%s error=\"%s\"", w->log->dir,
               why->message);
    for (unsigned i = 0; i < w->lease.count; i++) {
        const struct hw_lease_client *client = &w->lease.clients[i];

        if (!client->is_waiting)
            continue;
        say_no(link_of_client(w->log, client->id), HW_WRITE_LEASED, client->request,
               HW_WRITE_FAILED, why->message);
        hw_lease_release(&w->lease, client->id, 0, now);
    }
}

/* A recall that came due meanwhile went out before the lease that it is of: it is said again. */
static void hold_done(struct hub_writes *w, struct hw_job *job)
{
    struct hub_link *link = link_of_client(w->log, job->client);
    struct hw_write_message recall = {.type = HW_WRITE_RECALL, .fence = job->message.fence};

    if (job->status == HW_WRITE_OK && job->length > job->message.length)
        job->message.length = job->length;
    say(link, &job->message);
    if (w->lease.is_recalled && w->lease.holder == job->client &&
        w->lease.fence == job->message.fence)
        say(link, &recall);
}

static void job_done(struct hub_writes *w, struct hw_job *job)
{
    uint64_t now = hub_now(w->log->hub);

    switch (job->kind) {
    case HW_JOB_FENCES:
        w->is_raising = false;
        if (job->status == HW_WRITE_OK) {
            if (w->lease.fence < job->fence && w->lease.state == HW_LEASE_FREE)
                w->lease.fence = job->fence;
            hw_lease_set_limit(&w->lease, job->fence_limit, now);
        } else {
            fences_failed(w, &job->error);
        }
        break;
    case HW_JOB_HOLD:
        hold_done(w, job);
        break;
    case HW_JOB_COMMIT:
        commit_done(w, job);
        break;
    case HW_JOB_QUESTION: {
        struct hw_write_message answer = {.type = HW_WRITE_OUTCOME,
                                          .request = job->message.request,
                                          .status = job->status,
                                          .seq = job->seq};

        log_look(w->log, now); /* a lease that is given now is for the head */
        say(link_of_client(w->log, job->client), &answer);
        break;
    }
    }
    hw_job_free(job);
}

/* -------------------------------------------------------------------------- what is asked */

static void question_asked(struct hub_writes *w, struct hub_link *link,
                           const struct hw_write_message *m)
{
    struct hw_job *job = w->jobs < JOBS_MAX ? hw_zalloc(sizeof(*job)) : NULL;
    uint64_t fence = hw_origin_fence(&m->id);

    if (job == NULL) {
        say_no(link, HW_WRITE_OUTCOME, m->request, HW_WRITE_UNKNOWN, "");
        return;
    }
    /* A commit with this fence that is still on its way must not come after the answer. */
    if (w->upload.job != NULL && hw_origin_fence(&w->upload.job->message.id) == fence)
        upload_drop(w, "somebody asked what became of it");
    hw_lease_revoke(&w->lease, fence, hub_now(w->log->hub));
    job->kind = HW_JOB_QUESTION;
    job->client = link->write_client;
    job->message = *m;
    give_job(w, job);
    settle(w);
}

static void lease_asked(struct hub_writes *w, struct hub_link *link,
                        const struct hw_write_message *m)
{
    struct hw_write_message waits = {.type = HW_WRITE_WAITS, .request = m->request};

    if (!hw_lease_ask(&w->lease, link->write_client, m->request, hub_now(w->log->hub)))
        say_no(link, HW_WRITE_LEASED, m->request, HW_WRITE_BUSY, "too many wait to write it");
    settle(w);
    if (hw_lease_must_wait(&w->lease, link->write_client))
        say(link, &waits);
}

/* Why this link may not write; HW_WRITE_OK: it may. */
static enum hw_write_status may_write(struct hub_link *link, const char **why)
{
    const uint8_t *key = hw_peer_remote_key(link->conn->peer);

    *why = "this identity may not write this database";
    if (link->conn->is_outgoing || (access_rights_to_log(link->log, key) & HW_RIGHT_WRITE) == 0)
        return HW_WRITE_REFUSED;
    if (link->log->writes != NULL)
        return HW_WRITE_OK;
    *why = hw_core_is_mirror(link->log->core)
               ? "this server has a copy of the log, and not the database"
               : "who serves this database takes no writes (beside listen=URL, access=FILE lets "
                 "those write who may)";
    return HW_WRITE_NOWHERE;
}

/* Why not just now. */
static enum hw_write_status is_put_off(const struct hub_writes *w, enum hw_write_type type,
                                       const char **why)
{
    if (!w->is_resting)
        return HW_WRITE_OK;
    *why = "the application that has the database closes it";
    switch ((int)type) {
    case HW_WRITE_COMMIT:
        return HW_WRITE_LOST;
    case HW_WRITE_QUESTION:
        return HW_WRITE_UNKNOWN;
    case HW_WRITE_RELEASE:
        return HW_WRITE_OK;
    default:
        return HW_WRITE_BUSY;
    }
}

static void log_refusal(struct hub_link *link, const char *why)
{
    char key[2 * HW_KEY_SIZE + 1];

    hw_key_format(hw_peer_remote_key(link->conn->peer), key);
    hw_env_log(link->conn->hub->env, HW_LOG_WARN,
               "event=write_refused peer=%s address=%s log=%s reason=\"%s\"", key,
               link->conn->address, link->log->dir, why);
}

static enum hw_status writes_begin(struct hub_writes *w, struct hw_error *err)
{
    struct hw_hub *hub = w->log->hub;

    if (w->committer != NULL)
        return HW_OK;
    return hw_committer_start(hub->env, hub->bell, w->vfs, w->path, w->log->dir, &w->committer,
                              err);
}

static void refuse(struct hub_link *link, const struct hw_write_message *m,
                   enum hw_write_status status, const char *why)
{
    if (m->type == HW_WRITE_LEASE) {
        if (!link->is_refusal_told && status != HW_WRITE_BUSY)
            log_refusal(link, why);
        link->is_refusal_told = link->is_refusal_told || status != HW_WRITE_BUSY;
        say_no(link, HW_WRITE_LEASED, m->request, status, why);
    } else if (m->type == HW_WRITE_COMMIT) {
        link->last_commit = m->request;
        say_no(link, HW_WRITE_COMMITTED, m->request, status, why);
    } else if (m->type == HW_WRITE_QUESTION) {
        say_no(link, HW_WRITE_OUTCOME, m->request, status, why);
    }
}

enum hw_status writes_message(struct hub_link *link, const struct hw_write_message *m,
                              struct hw_error *err)
{
    struct hub_writes *w = link->log->writes;
    const char *why = "";
    struct hw_error no = {0};
    enum hw_write_status status = may_write(link, &why);

    if (status == HW_WRITE_REFUSED)
        writes_refused(link, why); /* the right is gone, and the lease with it */
    if (status == HW_WRITE_OK)
        status = is_put_off(w, m->type, &why);
    if (status == HW_WRITE_OK && !w->is_resting && writes_begin(w, &no) != HW_OK) {
        status = HW_WRITE_FAILED;
        why = no.message;
    }
    if (status != HW_WRITE_OK) {
        refuse(link, m, status, why);
        return HW_OK;
    }
    if (w->committer != NULL)
        w->used_ns = hub_now(w->log->hub);
    if (link->write_client == 0)
        link->write_client = ++link->conn->hub->last_write_client;
    switch ((int)m->type) {
    case HW_WRITE_LEASE:
        lease_asked(w, link, m);
        return HW_OK;
    case HW_WRITE_RELEASE:
        hw_lease_release(&w->lease, link->write_client, m->fence, hub_now(w->log->hub));
        settle(w);
        return HW_OK;
    case HW_WRITE_COMMIT:
        return commit_asked(w, link, m, err);
    case HW_WRITE_PART:
        return part_came(w, link, m, err);
    case HW_WRITE_QUESTION:
        question_asked(w, link, m);
        return HW_OK;
    default:
        return hw_fail(err, HW_EPROTOCOL, "a client that answers as a server");
    }
}

/* ----------------------------------------------------------------------------------- life */

/*
 * Its lease is over, and what it has begun to send.  `why`: it is told so, also what becomes of a
 * transaction that is decided just now; NULL: it is gone.
 */
static void client_ends(struct hub_link *link, const char *why)
{
    struct hub_writes *w = link->log->writes;
    uint64_t client = link->write_client;
    bool is_sending;

    if (w == NULL || client == 0)
        return;
    is_sending = w->upload.job != NULL && w->upload.job->client == client;
    if (why == NULL)
        link->write_client = 0; /* before: nothing is said to it any more */
    if (is_sending)
        upload_end(w, HW_WRITE_REFUSED, why == NULL ? "" : why);
    if (why == NULL || is_sending || !link->is_committing) {
        link->write_client = 0;
        link->is_committing = false;
    }
    hw_lease_gone(&w->lease, client, hub_now(w->log->hub));
    settle(w);
}

void writes_unlinked(struct hub_link *link)
{
    client_ends(link, NULL);
}

void writes_refused(struct hub_link *link, const char *why)
{
    client_ends(link, why);
}

/* Nobody writes any more: the thread ends, whose connection was closed before. */
static void rest(struct hub_writes *w, uint64_t now)
{
    uint64_t end_ns = w->used_ns + (uint64_t)REST_MS * NS_PER_MS;

    if (w->jobs > 0 || w->lease.state != HW_LEASE_FREE)
        return;
    if (now < end_ns) {
        hub_timer(w->log->hub, end_ns);
        return;
    }
    hw_committer_stop(w->committer);
    w->committer = NULL;
}

void writes_work(struct hub_log *log, uint64_t now)
{
    struct hub_writes *w = log->writes;
    struct hw_job *job;

    if (w == NULL || w->committer == NULL)
        return;
    while ((job = hw_committer_done(w->committer)) != NULL) {
        w->jobs--;
        w->used_ns = now;
        job_done(w, job);
        hub_wake(log->hub, &w->ended);
    }
    if (now >= upload_deadline(w))
        upload_drop(w, "its parts came too slowly");
    hw_lease_tick(&w->lease, now);
    settle(w);
    rest(w, now);
}

void writes_rouse(struct hub_log *log)
{
    struct hw_job *job;

    if (log->writes == NULL || log->writes->is_resting || writes_begin(log->writes, NULL) != HW_OK)
        return;
    job = hw_zalloc(sizeof(*job));
    if (job == NULL)
        return;                  /* whoever waits for a worker will say that there is none */
    job->kind = HW_JOB_QUESTION; /* after nothing that was ever written, for nobody */
    log->writes->used_ns = hub_now(log->hub);
    give_job(log->writes, job);
}

void writes_free(struct hub_writes *w)
{
    if (w == NULL)
        return;
    hw_committer_stop(w->committer);
    hw_job_free(w->upload.job);
    hw_free(w->path);
    hw_free(w->vfs);
    hw_free(w);
}

static enum hw_status allow(struct hw_hub *hub, const char *name, const char *path, const char *vfs,
                            struct hw_error *err)
{
    struct hub_log *log =
        log_find_name(hub, (struct hw_slice){(const uint8_t *)name, strlen(name)});
    struct hub_writes *w;

    if (log == NULL || log->mirror != NULL)
        return hw_fail(err, HW_ENOTFOUND, "%s: not served, or only a copy", name);
    if (log->writes != NULL || hub->bell == NULL)
        return HW_OK;
    w = hw_zalloc(sizeof(*w));
    if (w != NULL) {
        w->log = log;
        w->path = hw_strdup(path);
        w->vfs = hw_strdup(vfs);
    }
    if (w == NULL || w->path == NULL || w->vfs == NULL) {
        writes_free(w);
        return hw_fail(err, HW_ENOMEM, "%s: no memory", name);
    }
    hw_lease_init(&w->lease, 0);
    log->writes = w;
    return HW_OK;
}

enum hw_status hw_hub_take_writes(struct hw_hub *hub, const char *name, const char *path,
                                  const char *vfs, struct hw_error *err)
{
    enum hw_status status = hub_enter(hub, err);

    if (status != HW_OK)
        return status;
    status = allow(hub, name, path, vfs, err);
    hub_leave(hub);
    return status;
}

/* What the committer has is brought to its end, and answered; *out is the caller's to stop. */
static void put_off(struct hub_writes *w, struct hw_committer **out)
{
    struct hw_hub *hub = w->log->hub;

    upload_drop(w, "the application that has the database closes it");
    if (w->committer != NULL)
        hw_committer_hurry(w->committer);
    while (w->jobs > 0) {
        uint32_t seen = atomic_load(&w->ended);

        hub_sleep(hub, &w->ended, seen, UINT64_MAX);
    }
    *out = w->committer;
    w->committer = NULL;
}

void hw_hub_rest_writes(struct hw_hub *hub, const char *name, bool rests)
{
    struct hw_slice wanted = {(const uint8_t *)name, strlen(name)};
    struct hw_committer *committer = NULL;
    struct hub_log *log;

    if (hub_enter(hub, NULL) != HW_OK)
        return;
    log = log_find_name(hub, wanted);
    if (log != NULL && log->writes != NULL && log->writes->is_resting != rests) {
        log->writes->is_resting = rests;
        log->writes->used_ns = hub_now(hub);
        if (rests)
            put_off(log->writes, &committer);
        else if (writes_begin(log->writes, NULL) == HW_OK) /* else the next who asks begins */
            settle(log->writes);
    }
    hub_leave(hub);
    hw_committer_stop(committer); /* outside: it closes its connection, and others are served */
}
