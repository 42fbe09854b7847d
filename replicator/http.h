/*
 * http.h - the status page and the metrics of a server, over HTTP
 *
 * nng's HTTP server takes the requests in threads of its own; each waits until the server's thread,
 * which alone knows the databases, has answered it:
 *
 *     GET ──▶ nng's thread: asked ──▶ queue, event ──▶ server's thread: http_work() ──▶ answer
 *
 * The queue is short: who comes when it is full gets 503 at once.  This is the only file of the
 * program that knows nng.
 */
#ifndef HYPERWAL_HTTP_H
#define HYPERWAL_HTTP_H

#include <stdbool.h>

struct http;

/* What is asked for, and what makes the answer: text from sqlite3_malloc(), NULL without memory. */
enum http_page { HTTP_STATUS, HTTP_JSON, HTTP_METRICS, HTTP_PAGES };
typedef char *http_answer(void *ctx, enum http_page page);

/*
 * Listen at `address`: [HOST:]PORT, HOST 127.0.0.1 if it is missing; port 0 takes a free one.
 * Others than this machine are let in only with `is_public`.  Says what is wrong; an exit code.
 */
int http_open(const char *address, bool is_public, struct http **out);
/* Readable when there is something to answer; -1 for NULL. */
int http_event(const struct http *http);
const char *http_url(const struct http *http);
void http_work(struct http *http, http_answer *answer, void *ctx);
/* Nothing is answered any more.  The listener stays until the process ends. */
void http_close(struct http *http);

#endif
