/*
 * page.h - what a server says of itself: a page for people, JSON, and metrics for Prometheus
 *
 * A database has a bounded number of lines: of followers only the first FOLLOWERS_SHOWN have lines
 * of their own.  Of a database at rest the log is read once, unless it is served to others.
 */
#ifndef HYPERWAL_PAGE_H
#define HYPERWAL_PAGE_H

#include "http.h"
#include "served.h"

/* The text of a page, from sqlite3_malloc(); NULL: no memory. */
char *page_make(struct served_list *list, enum http_page page);

#endif
