/* Implements http.h. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <nng/nng.h>
#include <nng/supplemental/http/http.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "program.h"

enum { WAITING_MAX = 16 };

static const struct {
    const char *path, *type;
} pages[HTTP_PAGES] = {
    [HTTP_STATUS] = {"/", "text/html; charset=utf-8"},
    [HTTP_JSON] = {"/status.json", "application/json"},
    [HTTP_METRICS] = {"/metrics", "text/plain; version=0.0.4; charset=utf-8"},
};

struct handler { /* what nng gives back with a request */
    struct http *http;
    enum http_page page;
};

struct http {
    nng_http_server *server;
    struct handler handlers[HTTP_PAGES];
    int event;
    char url[96];
    pthread_mutex_t mutex; /* guards what follows */
    struct waiting {
        nng_aio *aio;
        enum http_page page;
    } waiting[WAITING_MAX];
    unsigned count;
    bool is_closed;
};

/* ------------------------------------------------------------------------------- answers */

static void finish(nng_aio *aio, nng_http_res *res)
{
    nng_aio_set_output(aio, 0, res); /* nng frees it */
    nng_aio_finish(aio, 0);
}

static void refuse(nng_aio *aio, uint16_t status)
{
    nng_http_res *res = NULL;

    if (nng_http_res_alloc_error(&res, status) == 0)
        finish(aio, res);
    else
        nng_aio_finish(aio, NNG_ENOMEM);
}

static void respond(nng_aio *aio, enum http_page page, const char *text)
{
    nng_http_res *res = NULL;

    if (text == NULL || nng_http_res_alloc(&res) != 0) {
        refuse(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE);
    } else if (nng_http_res_set_header(res, "Content-Type", pages[page].type) != 0 ||
               nng_http_res_set_header(res, "Cache-Control", "no-store") != 0 ||
               nng_http_res_set_header(res, "X-Content-Type-Options", "nosniff") != 0 ||
               nng_http_res_set_header(res, "Content-Security-Policy",
                                       "default-src 'none'; style-src 'unsafe-inline'") != 0 ||
               nng_http_res_copy_data(res, text, strlen(text)) != 0) {
        nng_http_res_free(res);
        refuse(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE);
    } else {
        finish(aio, res);
    }
}

/* In a thread of nng. */
static void asked(nng_aio *aio)
{
    const struct handler *handler = nng_http_handler_get_data(nng_aio_get_input(aio, 1));
    struct http *http = handler->http;
    const uint64_t one = 1;
    bool is_taken;

    pthread_mutex_lock(&http->mutex);
    is_taken = !http->is_closed && http->count < WAITING_MAX;
    if (is_taken)
        http->waiting[http->count++] = (struct waiting){aio, handler->page};
    pthread_mutex_unlock(&http->mutex);
    if (is_taken)
        (void)!write(http->event, &one, sizeof(one)); /* fails only if it is readable anyway */
    else
        refuse(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE);
}

void http_work(struct http *http, http_answer *answer, void *ctx)
{
    struct waiting waiting[WAITING_MAX];
    uint64_t events;
    unsigned count;

    (void)!read(http->event, &events, sizeof(events)); /* of how many we see by the queue */
    pthread_mutex_lock(&http->mutex);
    count = http->count;
    memcpy(waiting, http->waiting, count * sizeof(waiting[0]));
    http->count = 0;
    pthread_mutex_unlock(&http->mutex);
    for (unsigned i = 0; i < count; i++) {
        char *text = answer != NULL ? answer(ctx, waiting[i].page) : NULL;

        respond(waiting[i].aio, waiting[i].page, text);
        sqlite3_free(text);
    }
}

/* --------------------------------------------------------------------------------- start */

static bool is_local(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

/* [HOST:]PORT */
static int address_parse(const char *address, bool is_public, char host[64], unsigned *port)
{
    const char *colon = strrchr(address, ':');
    const char *digits = colon != NULL ? colon + 1 : address;
    size_t size = colon != NULL ? (size_t)(colon - address) : 0;
    uint64_t number;

    if (!number_parse(digits, &number) || number > 65535 || size >= 64 ||
        (colon != NULL && size == 0)) {
        (void)failure("--http %s: an address is [HOST:]PORT", address);
        return USAGE;
    }
    snprintf(host, 64, "%.*s", (int)size, address);
    if (size == 0)
        snprintf(host, 64, "127.0.0.1");
    if (!is_local(host) && !is_public) {
        (void)failure("--http %s: others than this machine could see it; --http-public allows that",
                      address);
        return USAGE;
    }
    *port = (unsigned)number;
    return DONE;
}

static int handlers_add(struct http *http)
{
    for (int i = 0; i < HTTP_PAGES; i++) {
        nng_http_handler *handler = NULL;
        int code = nng_http_handler_alloc(&handler, pages[i].path, asked);

        http->handlers[i] = (struct handler){http, (enum http_page)i};
        if (code == 0)
            code = nng_http_handler_set_data(handler, &http->handlers[i], NULL);
        if (code == 0)
            code = nng_http_server_add_handler(http->server, handler);
        if (code != 0) {
            nng_http_handler_free(handler);
            return code;
        }
    }
    return 0;
}

static int listen_at(struct http *http, const char *host, unsigned port)
{
    nng_sockaddr bound;
    nng_url *url = NULL;
    int code;

    snprintf(http->url, sizeof(http->url), "http://%s:%u", host, port);
    code = nng_url_parse(&url, http->url);
    if (code == 0)
        code = nng_http_server_hold(&http->server, url);
    if (code == 0)
        code = handlers_add(http);
    if (code == 0)
        code = nng_http_server_start(http->server);
    if (code == 0 && port == 0 && nng_http_server_get_addr(http->server, &bound) == 0)
        snprintf(http->url, sizeof(http->url), "http://%s:%u", host,
                 (unsigned)ntohs(bound.s_family == NNG_AF_INET6 ? bound.s_in6.sa_port
                                                                : bound.s_in.sa_port));
    if (url != NULL)
        nng_url_free(url);
    return code;
}

int http_open(const char *address, bool is_public, struct http **out)
{
    struct http *http;
    char host[64];
    unsigned port = 0;
    int code, result = address_parse(address, is_public, host, &port);

    if (result != DONE)
        return result;
    http = calloc(1, sizeof(*http));
    if (http == NULL)
        return failure("no memory");
    pthread_mutex_init(&http->mutex, NULL);
    http->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    code = http->event < 0 ? NNG_ESYSERR : listen_at(http, host, port);
    if (code != 0) {
        (void)failure("--http %s: %s", address, nng_strerror(code));
        if (http->event >= 0)
            close(http->event);
        if (http->server != NULL)
            nng_http_server_release(http->server); /* and its handlers, which are not called */
        free(http);
        return FAILED;
    }
    *out = http;
    return DONE;
}

int http_event(const struct http *http)
{
    return http != NULL ? http->event : -1;
}

const char *http_url(const struct http *http)
{
    return http->url;
}

void http_close(struct http *http)
{
    if (http == NULL)
        return;
    pthread_mutex_lock(&http->mutex);
    http->is_closed = true;
    pthread_mutex_unlock(&http->mutex);
    http_work(http, NULL, NULL);
}
