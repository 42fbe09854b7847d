/*
 * network.h - what `hyperwal serve` and `follow` listen at, and whom they let in
 */
#ifndef HYPERWAL_NETWORK_H
#define HYPERWAL_NETWORK_H

#include <hyperwal.h>
#include <stdbool.h>
#include <stddef.h>

enum { NETWORK_URLS_MAX = 16, NETWORK_ALLOW_MAX = 256 };

/* As given on the command line; borrowed from it. */
struct network_wishes {
    const char *listen[NETWORK_URLS_MAX];
    const char *allow[NETWORK_ALLOW_MAX];
    size_t listen_count, allow_count;
    const char *identity; /* a file; NULL: the user's */
};
/* False: more than there is room for. */
bool network_add_listen(struct network_wishes *wishes, const char *url);
bool network_add_allow(struct network_wishes *wishes, const char *who);

/*
 * Open a node that listens and lets in what the wishes say; *node stays NULL if they are empty.
 * Says what is wrong; returns an exit code.
 */
int network_open(const struct network_wishes *wishes, hyperwal_node **node);
/* One more, later. */
int network_allow(hyperwal_node *node, const char *who);
int network_listen(hyperwal_node *node, const char *url);

#endif
