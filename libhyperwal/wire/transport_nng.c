/*
 * Implements wire/transport.h over the byte streams of nng 1.5: TCP, IPC and WebSocket.
 *
 * A job is one asynchronous operation of nng.  Its callback, which runs in a thread of nng, puts it
 * into the queue and wakes the owner; all else is done by the owner in next().  A job is in the
 * queue at most once, so the queue needs no memory of its own.
 *
 *     IDLE ──start──▶ under way ──callback──▶ queued ──next()──▶ IDLE
 *
 * Traps of nng 1.5 that this file knows: a stale socket file is removed by its listener, but so
 * would be a file that is no socket; a send of a stream may be partial; a forked child must not
 * call it at all; to close a WebSocket listener waits for ever if a connection is in the middle of
 * its upgrade then (close holds the lock that the upgrade needs to end).
 */
#include <arpa/inet.h>
#include <assert.h>
#include <nng/nng.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "env/thread.h"
#include "wire/transport.h"

enum {
    DIAL_MS = 10000,
    LISTENER_END_MS = 1000, /* for a WebSocket listener to end; then it is left behind */
    ACCEPT_PAUSE_MS = 200,  /* after a failed accept: descriptors may be free again then */
    SEND_CHUNK = 256 << 10, /* bytes given to nng at once: WebSocket copies them */
};

struct job {
    struct nng_transport *transport;
    nng_aio *aio;
    void *owner; /* the listener, dial or connection */
    enum { JOB_ACCEPT, JOB_DIAL, JOB_RECEIVE, JOB_SEND } kind;
    bool is_queued;   /* mu: transport */
    struct job *next; /* mu: transport */
};

struct listener {
    struct job accept;
    nng_stream_listener *listener;
    struct listener *next;
    bool is_pausing; /* the job sleeps after a failed accept */
    char url[];
};

struct dial {
    struct job job;
    nng_stream_dialer *dialer;
    struct dial *next;
    void *user;
    char url[];
};

struct hw_connection {
    struct nng_transport *transport;
    struct hw_connection *previous, *next;
    nng_stream *stream;
    void *user;
    struct job receive, send;
    struct hw_slice left;         /* still to be sent, borrowed; empty: no send is under way */
    bool is_receiving, is_closed; /* CLOSED was told: nothing follows */
    char address[128];
    uint8_t in[HW_RECEIVE_SIZE];
};

struct nng_transport {
    struct hw_transport transport;
    struct hw_env *env;
    void (*wake)(void *ctx);
    void *ctx;
    uint32_t process;
    struct listener *listeners;
    struct dial *dials;
    struct hw_connection *connections;
    unsigned count; /* connections and dials */
    struct hw_mutex mutex;
    struct job *first, **last; /* mu: jobs that ended, in order */
};

static struct nng_transport *as_nng(struct hw_transport *transport)
{
    return (struct nng_transport *)transport;
}

/* -------------------------------------------------------------------------------- failures */

static enum hw_status status_of(int code)
{
    switch (code) {
    case NNG_ENOMEM:
    case NNG_ENOFILES: /* of this process: it tells nothing of the other side */
        return HW_ENOMEM;
    case NNG_ETIMEDOUT:
        return HW_ETIMEOUT;
    case NNG_EADDRINUSE:
        return HW_EBUSY;
    case NNG_ECONNREFUSED:
    case NNG_EPERM:
        return HW_EREFUSED;
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
    case NNG_ENOTSUP:
        return HW_EMISUSE;
    case NNG_ENOENT:
        return HW_ENOTFOUND;
    default:
        return HW_EIO;
    }
}

/* What to do about it, where there is something. */
static const char *remedy_of(int code)
{
    switch (code) {
    case NNG_EADDRINUSE:
        return "; another process listens there: end it, or choose another port or path";
    case NNG_EPERM:
        return "; ports below 1024 and other people's folders need more rights";
    case NNG_EADDRINVAL:
        return "; is the address one of this machine, and a path at most 100 bytes long?";
    case NNG_ENOFILES:
        return "; raise the limit of open files (ulimit -n)";
    case NNG_ECONNREFUSED:
    case NNG_ENOENT:
        return "; nobody listens there";
    default:
        return "";
    }
}

static enum hw_status fail_nng(struct hw_error *err, int code, const char *url, const char *what)
{
    return hw_fail(err, status_of(code), "%s: cannot %s: %s%s", url, what, nng_strerror(code),
                   remedy_of(code));
}

/* A name may resolve later, so it is no misuse to have it. */
static enum hw_status fail_connect(struct hw_error *err, int code, const char *url)
{
    if (code != NNG_EADDRINVAL && code != NNG_EAGAIN)
        return fail_nng(err, code, url, "connect");
    return hw_fail(err, HW_EIO, "%s: cannot connect: the host's name does not resolve", url);
}

/* ------------------------------------------------------------------------------------ jobs */

/* Runs in a thread of nng. */
static void job_ended(void *ctx)
{
    struct job *job = ctx;
    struct nng_transport *transport = job->transport;

    hw_mutex_lock(&transport->mutex);
    assert(!job->is_queued);
    job->is_queued = true;
    job->next = NULL;
    *transport->last = job;
    transport->last = &job->next;
    hw_mutex_unlock(&transport->mutex);
    transport->wake(transport->ctx);
}

static struct job *job_take(struct nng_transport *transport)
{
    struct job *job;

    hw_mutex_lock(&transport->mutex);
    job = transport->first;
    if (job != NULL) {
        transport->first = job->next;
        if (transport->first == NULL)
            transport->last = &transport->first;
        job->is_queued = false;
    }
    hw_mutex_unlock(&transport->mutex);
    return job;
}

static int job_init(struct job *job, struct nng_transport *transport, void *owner)
{
    job->transport = transport;
    job->owner = owner;
    return nng_aio_alloc(&job->aio, job_ended, job);
}

/* End it: waits for a callback that runs, after which none comes. */
static void job_stop(struct job *job)
{
    struct nng_transport *transport = job->transport;

    if (job->aio == NULL)
        return;
    nng_aio_stop(job->aio);
    hw_mutex_lock(&transport->mutex);
    if (job->is_queued) {
        struct job **link = &transport->first;

        while (*link != job)
            link = &(*link)->next;
        *link = job->next;
        if (*link == NULL)
            transport->last = link;
        job->is_queued = false;
    }
    hw_mutex_unlock(&transport->mutex);
}

static void job_release(struct job *job)
{
    job_stop(job);
    if (job->aio != NULL)
        nng_aio_free(job->aio);
    job->aio = NULL;
}

/* A stream that was made, and that nobody looked at before the job was stopped. */
static void stream_drop(struct job *job)
{
    nng_stream *stream = NULL;

    if (job->aio != NULL && nng_aio_result(job->aio) == 0)
        stream = nng_aio_get_output(job->aio, 0);
    if (stream != NULL)
        nng_stream_free(stream);
}

/* ----------------------------------------------------------------------------- connections */

static void connection_name(struct hw_connection *connection, const char *fallback)
{
    nng_sockaddr address;
    char host[INET6_ADDRSTRLEN] = "";
    char *out = connection->address;
    size_t size = sizeof(connection->address);
    int pid;

    if (nng_stream_get_addr(connection->stream, NNG_OPT_REMADDR, &address) != 0)
        address.s_family = NNG_AF_UNSPEC;
    if (address.s_family == NNG_AF_INET) {
        (void)inet_ntop(AF_INET, &address.s_in.sa_addr, host, sizeof(host));
        (void)snprintf(out, size, "%s:%u", host, (unsigned)ntohs(address.s_in.sa_port));
    } else if (address.s_family == NNG_AF_INET6) {
        (void)inet_ntop(AF_INET6, &address.s_in6.sa_addr, host, sizeof(host));
        (void)snprintf(out, size, "[%s]:%u", host, (unsigned)ntohs(address.s_in6.sa_port));
    } else if (nng_stream_get_int(connection->stream, NNG_OPT_IPC_PEER_PID, &pid) == 0) {
        (void)snprintf(out, size, "process %d", pid);
    } else {
        (void)snprintf(out, size, "%.*s", (int)size - 1, fallback);
    }
}

static void connection_free(struct hw_connection *connection)
{
    if (connection->stream != NULL)
        nng_stream_close(connection->stream);
    job_release(&connection->receive);
    job_release(&connection->send);
    if (connection->stream != NULL)
        nng_stream_free(connection->stream);
    hw_free(connection);
}

/* `stream` is moved, whatever happens. */
static enum hw_status connection_new(struct nng_transport *transport, nng_stream *stream,
                                     const char *url, struct hw_connection **out,
                                     struct hw_error *err)
{
    struct hw_connection *connection = hw_alloc(sizeof(*connection));

    if (connection == NULL) {
        nng_stream_free(stream);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a connection", url);
    }
    memset(connection, 0,
           offsetof(struct hw_connection, in)); /* the rest costs memory if touched */
    connection->transport = transport;
    connection->stream = stream;
    connection->receive.kind = JOB_RECEIVE;
    connection->send.kind = JOB_SEND;
    if (job_init(&connection->receive, transport, connection) != 0 ||
        job_init(&connection->send, transport, connection) != 0) {
        connection_free(connection);
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a connection", url);
    }
    connection_name(connection, url);
    connection->next = transport->connections;
    if (connection->next != NULL)
        connection->next->previous = connection;
    transport->connections = connection;
    transport->count++;
    *out = connection;
    return HW_OK;
}

static void connection_set_user(struct hw_connection *connection, void *user)
{
    connection->user = user;
}

static void connection_receive(struct hw_connection *connection)
{
    nng_iov iov = {.iov_buf = connection->in, .iov_len = sizeof(connection->in)};

    assert(!connection->is_receiving);
    if (connection->is_closed)
        return;
    connection->is_receiving = true;
    (void)nng_aio_set_iov(connection->receive.aio, 1, &iov); /* one part always fits */
    nng_stream_recv(connection->stream, connection->receive.aio);
}

static void send_more(struct hw_connection *connection)
{
    /* nng does not write to it. */
    nng_iov iov = {.iov_buf = (void *)(uintptr_t)connection->left.bytes,
                   .iov_len = connection->left.size};

    if (iov.iov_len > SEND_CHUNK)
        iov.iov_len = SEND_CHUNK;
    (void)nng_aio_set_iov(connection->send.aio, 1, &iov);
    nng_stream_send(connection->stream, connection->send.aio);
}

static void connection_send(struct hw_connection *connection, struct hw_slice bytes)
{
    assert(bytes.size > 0 && connection->left.size == 0);
    if (connection->is_closed)
        return;
    connection->left = bytes;
    send_more(connection);
}

static void connection_close(struct hw_connection *connection)
{
    struct nng_transport *transport = connection->transport;

    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        transport->connections = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    transport->count--;
    connection_free(connection);
}

/* --------------------------------------------------------------------------------- listen */

static enum hw_status check_scheme(const char *url, struct hw_error *err)
{
    if (strncmp(url, "tcp://", 6) == 0 || strncmp(url, "ipc://", 6) == 0 ||
        strncmp(url, "ws://", 5) == 0)
        return HW_OK;
    return hw_fail(err, HW_EMISUSE,
                   "%s: not an address: write tcp://HOST:PORT, ipc://PATH or "
                   "ws://HOST:PORT/PATH",
                   url);
}

/* The listener takes away what it finds under its name if nobody answers: only a socket may go. */
static enum hw_status check_socket_file(struct hw_env *env, const char *url, struct hw_error *err)
{
    struct hw_file_stat stat;

    if (strncmp(url, "ipc://", 6) != 0 || env->ops->stat(env, url + 6, &stat, NULL) != HW_OK ||
        stat.is_special)
        return HW_OK;
    return hw_fail(err, HW_EEXIST, "%s: there is a %s of that name: choose another for the socket",
                   url, stat.is_directory ? "folder" : "file");
}

/* A WebSocket listener that ends, in a thread of its own since that may never be done. */
struct ending {
    struct hw_env *env;
    nng_stream_listener *listener;
    uint32_t is_done; /* atomic, and waited on; set last, but for the wake */
    uint32_t owners;  /* atomic: the thread, and who waits for it; the last one frees this */
};

static bool ending_is_done(struct ending *ending)
{
    return __atomic_load_n(&ending->is_done, __ATOMIC_ACQUIRE) != 0;
}

static void ending_leave(struct ending *ending)
{
    if (__atomic_sub_fetch(&ending->owners, 1, __ATOMIC_ACQ_REL) == 0)
        hw_free(ending);
}

static void *ending_main(void *ctx)
{
    struct ending *ending = ctx;

    nng_stream_listener_close(ending->listener);
    nng_stream_listener_free(ending->listener);
    __atomic_store_n(&ending->is_done, 1, __ATOMIC_RELEASE);
    ending->env->ops->wake_word(ending->env, &ending->is_done);
    ending_leave(ending);
    return NULL;
}

static void websocket_end(struct hw_env *env, struct listener *listener)
{
    uint64_t start = env->ops->monotonic_ns(env), now;
    uint64_t end = start + LISTENER_END_MS * UINT64_C(1000000);
    struct ending *ending = hw_alloc(sizeof(*ending));
    struct hw_thread thread;

    if (ending != NULL)
        *ending = (struct ending){.env = env, .listener = listener->listener, .owners = 2};
    if (ending == NULL || hw_thread_start(&thread, ending_main, ending, NULL) != HW_OK) {
        hw_free(ending);
        hw_env_log(env, HW_LOG_WARN, "event=listener_left url=%s: no memory to end it",
                   listener->url);
        return;
    }
    for (now = start; !ending_is_done(ending) && now < end; now = env->ops->monotonic_ns(env))
        env->ops->wait_word(env, &ending->is_done, 0, end - now);
    if (ending_is_done(ending))
        hw_thread_join(&thread);
    else
        hw_env_log(env, HW_LOG_WARN,
                   "event=listener_left url=%s: a connection in its upgrade keeps it from ending",
                   listener->url);
    ending_leave(ending);
}

static void listener_free(struct listener *listener)
{
    bool is_websocket = strncmp(listener->url, "ws://", 5) == 0;

    if (listener->listener != NULL && !is_websocket)
        nng_stream_listener_close(listener->listener);
    job_stop(&listener->accept);
    if (!listener->is_pausing)
        stream_drop(&listener->accept);
    if (listener->listener != NULL && is_websocket)
        websocket_end(listener->accept.transport->env, listener);
    job_release(&listener->accept);
    if (listener->listener != NULL && !is_websocket)
        nng_stream_listener_free(listener->listener);
    hw_free(listener);
}

/* The URL with the port that the system chose. */
static void bound_url(const struct listener *listener, char *bound, size_t size)
{
    const char *host = strstr(listener->url, "://") + 3;
    const char *path = host + strcspn(host, "/");
    const char *colon = path;
    int port;

    while (colon > host && *colon != ':' && *colon != ']')
        colon--;
    if (strncmp(listener->url, "ipc://", 6) == 0 || *colon != ':' ||
        nng_stream_listener_get_int(listener->listener, NNG_OPT_TCP_BOUND_PORT, &port) != 0)
        (void)snprintf(bound, size, "%s", listener->url);
    else
        (void)snprintf(bound, size, "%.*s:%d%s", (int)(colon - listener->url), listener->url, port,
                       path);
}

static enum hw_status transport_listen(struct hw_transport *base, const char *url, char *bound,
                                       size_t bound_size, struct hw_error *err)
{
    struct nng_transport *transport = as_nng(base);
    struct listener *listener;
    enum hw_status status = check_scheme(url, err);
    int code;

    if (status == HW_OK)
        status = check_socket_file(transport->env, url, err);
    if (status != HW_OK)
        return status;
    listener = hw_zalloc(sizeof(*listener) + strlen(url) + 1);
    if (listener == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to listen", url);
    memcpy(listener->url, url, strlen(url) + 1);
    listener->accept.kind = JOB_ACCEPT;
    code = job_init(&listener->accept, transport, listener);
    if (code == 0)
        code = nng_stream_listener_alloc(&listener->listener, url);
    if (code == 0) {
        /* A socket of this machine has no such option. */
        (void)nng_stream_listener_set_bool(listener->listener, NNG_OPT_TCP_NODELAY, true);
        code = nng_stream_listener_listen(listener->listener);
    }
    if (code != 0) {
        listener_free(listener);
        return fail_nng(err, code, url, "listen");
    }
    bound_url(listener, bound, bound_size);
    listener->next = transport->listeners;
    transport->listeners = listener;
    nng_stream_listener_accept(listener->listener, listener->accept.aio);
    return HW_OK;
}

/* Nobody is told of a failed accept but the log; the listener goes on after a pause. */
static void accept_later(struct listener *listener, const char *why)
{
    hw_env_log(listener->accept.transport->env, HW_LOG_WARN,
               "event=accept_failed url=%s pause_ms=%d: %s", listener->url, ACCEPT_PAUSE_MS, why);
    listener->is_pausing = true;
    nng_sleep_aio(ACCEPT_PAUSE_MS, listener->accept.aio);
}

static enum hw_status accept_ended(struct listener *listener, struct hw_transport_event *out)
{
    struct nng_transport *transport = listener->accept.transport;
    int code = nng_aio_result(listener->accept.aio);
    struct hw_connection *connection = NULL;
    nng_stream *stream;
    struct hw_error err;

    if (listener->is_pausing) {
        listener->is_pausing = false;
        nng_stream_listener_accept(listener->listener, listener->accept.aio);
        return HW_END;
    }
    if (code != 0) {
        if (code != NNG_ECLOSED && code != NNG_ECANCELED)
            accept_later(listener, nng_strerror(code));
        return HW_END;
    }
    stream = nng_aio_get_output(listener->accept.aio, 0);
    if (transport->count >= HW_TRANSPORT_CONNECTIONS_MAX) {
        nng_stream_free(stream);
        hw_env_log(transport->env, HW_LOG_WARN,
                   "event=connection_refused url=%s: %d connections are open already",
                   listener->url, HW_TRANSPORT_CONNECTIONS_MAX);
    } else if (connection_new(transport, stream, listener->url, &connection, &err) != HW_OK) {
        accept_later(listener, err.message);
        return HW_END;
    }
    nng_stream_listener_accept(listener->listener, listener->accept.aio);
    if (connection == NULL)
        return HW_END;
    out->kind = HW_EVENT_ACCEPTED;
    out->connection = connection;
    memcpy(out->address, connection->address, sizeof(out->address));
    return HW_OK;
}

/* ----------------------------------------------------------------------------------- dial */

static void dial_free(struct dial *dial)
{
    if (dial->dialer != NULL)
        nng_stream_dialer_close(dial->dialer);
    job_release(&dial->job);
    if (dial->dialer != NULL)
        nng_stream_dialer_free(dial->dialer);
    hw_free(dial);
}

static enum hw_status transport_dial(struct hw_transport *base, const char *url, void *user,
                                     struct hw_error *err)
{
    struct nng_transport *transport = as_nng(base);
    struct dial *dial;
    int code;

    if (check_scheme(url, err) != HW_OK)
        return HW_EMISUSE;
    if (transport->count >= HW_TRANSPORT_CONNECTIONS_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: not dialed: %d connections are open already", url,
                       HW_TRANSPORT_CONNECTIONS_MAX);
    dial = hw_zalloc(sizeof(*dial) + strlen(url) + 1);
    if (dial == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to dial", url);
    memcpy(dial->url, url, strlen(url) + 1);
    dial->user = user;
    dial->job.kind = JOB_DIAL;
    code = job_init(&dial->job, transport, dial);
    if (code == 0)
        code = nng_stream_dialer_alloc(&dial->dialer, url);
    if (code != 0) {
        dial_free(dial);
        return fail_nng(err, code, url, "dial");
    }
    /* A socket of this machine has no such option. */
    (void)nng_stream_dialer_set_bool(dial->dialer, NNG_OPT_TCP_NODELAY, true);
    nng_aio_set_timeout(dial->job.aio, DIAL_MS);
    dial->next = transport->dials;
    transport->dials = dial;
    transport->count++;
    nng_stream_dialer_dial(dial->dialer, dial->job.aio);
    return HW_OK;
}

static enum hw_status dial_ended(struct dial *dial, struct hw_transport_event *out)
{
    struct nng_transport *transport = dial->job.transport;
    int code = nng_aio_result(dial->job.aio);
    struct dial **link = &transport->dials;
    enum hw_status status;

    while (*link != dial)
        link = &(*link)->next;
    *link = dial->next;
    transport->count--;
    out->user = dial->user;
    if (code != 0)
        status = fail_connect(&out->error, code, dial->url);
    else
        status = connection_new(transport, nng_aio_get_output(dial->job.aio, 0), dial->url,
                                &out->connection, &out->error);
    if (status == HW_OK) {
        out->connection->user = dial->user;
        memcpy(out->address, out->connection->address, sizeof(out->address));
    }
    out->kind = status == HW_OK ? HW_EVENT_CONNECTED : HW_EVENT_FAILED;
    dial_free(dial);
    return HW_OK;
}

/* --------------------------------------------------------------------------------- events */

static enum hw_status told_closed(struct hw_connection *connection, int code,
                                  struct hw_transport_event *out)
{
    connection->is_closed = true;
    out->kind = HW_EVENT_CLOSED;
    out->connection = connection;
    out->user = connection->user;
    if (code == NNG_ECONNSHUT || code == NNG_ECLOSED)
        (void)hw_fail(&out->error, HW_EIO, "%s: closed by the remote", connection->address);
    else
        (void)hw_fail(&out->error, status_of(code), "%s: connection lost: %s", connection->address,
                      nng_strerror(code));
    return HW_OK;
}

static enum hw_status receive_ended(struct hw_connection *connection,
                                    struct hw_transport_event *out)
{
    int code = nng_aio_result(connection->receive.aio);

    connection->is_receiving = false;
    if (connection->is_closed)
        return HW_END;
    if (code != 0)
        return told_closed(connection, code, out);
    out->kind = HW_EVENT_RECEIVED;
    out->connection = connection;
    out->user = connection->user;
    out->bytes = (struct hw_slice){connection->in, nng_aio_count(connection->receive.aio)};
    return HW_OK;
}

static enum hw_status send_ended(struct hw_connection *connection, struct hw_transport_event *out)
{
    int code = nng_aio_result(connection->send.aio);
    size_t sent = nng_aio_count(connection->send.aio);

    if (connection->is_closed)
        return HW_END;
    if (code != 0)
        return told_closed(connection, code, out);
    assert(sent <= connection->left.size);
    connection->left.bytes += sent;
    connection->left.size -= sent;
    if (connection->left.size > 0) {
        send_more(connection);
        return HW_END;
    }
    out->kind = HW_EVENT_SENT;
    out->connection = connection;
    out->user = connection->user;
    return HW_OK;
}

static enum hw_status transport_next(struct hw_transport *base, struct hw_transport_event *out)
{
    enum hw_status status = HW_END;
    struct job *job;

    *out = (struct hw_transport_event){0};
    while (status == HW_END && (job = job_take(as_nng(base))) != NULL)
        switch (job->kind) {
        case JOB_ACCEPT:
            status = accept_ended(job->owner, out);
            break;
        case JOB_DIAL:
            status = dial_ended(job->owner, out);
            break;
        case JOB_RECEIVE:
            status = receive_ended(job->owner, out);
            break;
        case JOB_SEND:
            status = send_ended(job->owner, out);
            break;
        }
    return status;
}

/* ------------------------------------------------------------------------- the transport */

static void transport_free(struct hw_transport *base)
{
    struct nng_transport *transport = as_nng(base);
    struct listener *listener;
    struct dial *dial;

    /* In a forked child the threads of nng are not there: to wait for them would be for ever. */
    if (transport->env->ops->process_id(transport->env) != transport->process)
        return;
    while ((listener = transport->listeners) != NULL) {
        transport->listeners = listener->next;
        listener_free(listener);
    }
    while ((dial = transport->dials) != NULL) {
        transport->dials = dial->next;
        job_stop(&dial->job);
        stream_drop(&dial->job);
        dial_free(dial);
    }
    while (transport->connections != NULL)
        connection_close(transport->connections);
    hw_mutex_release(&transport->mutex);
    hw_free(transport);
}

static const struct hw_transport_ops nng_ops = {
    .next = transport_next,
    .listen = transport_listen,
    .dial = transport_dial,
    .set_user = connection_set_user,
    .receive = connection_receive,
    .send = connection_send,
    .close = connection_close,
    .free = transport_free,
};

/* nng ends a process that uses it, forks, and uses it again in the child. */
static enum hw_status check_fork(uint32_t process, struct hw_error *err)
{
    static _Atomic uint32_t first; /* process that used nng first; 0: none yet */
    uint32_t expected = 0;

    if (atomic_compare_exchange_strong(&first, &expected, process) || expected == process)
        return HW_OK;
    return hw_fail(err, HW_EMISUSE,
                   "the network was used before this process was forked from process %u: it can "
                   "be used again after exec",
                   (unsigned)expected);
}

enum hw_status hw_transport_nng_open(struct hw_env *env, void (*wake)(void *ctx), void *ctx,
                                     struct hw_transport **out, struct hw_error *err)
{
    uint32_t process = env->ops->process_id(env);
    struct nng_transport *transport;
    enum hw_status status = check_fork(process, err);

    if (status != HW_OK)
        return status;
    transport = hw_zalloc(sizeof(*transport));
    if (transport == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the network");
    transport->transport.ops = &nng_ops;
    transport->env = env;
    transport->wake = wake;
    transport->ctx = ctx;
    transport->process = process;
    transport->last = &transport->first;
    hw_mutex_init(&transport->mutex);
    *out = &transport->transport;
    return HW_OK;
}
