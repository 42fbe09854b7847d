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
    const char *allow[NETWORK_ALLOW_MAX]; /* who may read */
    const char *allow_write[NETWORK_ALLOW_MAX];
    size_t listen_count, allow_count, allow_write_count;
    const char *identity;        /* a file; NULL: the user's */
    const char *authorized_keys; /* likewise */
};
/* False: more than there is room for. */
bool network_add_listen(struct network_wishes *wishes, const char *url);
bool network_add_allow(struct network_wishes *wishes, const char *who);
bool network_add_allow_write(struct network_wishes *wishes, const char *who);

/*
 * Open a node that listens and lets in what the wishes say; *node stays NULL if they are empty.
 * Says what is wrong; returns an exit code.
 */
int network_open(const struct network_wishes *wishes, hyperwal_node **node);
/* Later: let in whom the wishes name now, and of those that they named before nobody else. */
int network_allow(hyperwal_node *node, const struct network_wishes *wishes);
int network_reload(hyperwal_node *node); /* read the file of authorized keys again */
int network_listen(hyperwal_node *node, const char *url);

#endif
