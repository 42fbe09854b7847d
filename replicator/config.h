/*
 * config.h - the settings of `hyperwal serve`: from a file, and from the command line
 *
 *     # a comment: a line that begins with #
 *     directory = /srv/databases
 *     listen    = tcp://0.0.0.0:4970
 *     allow     = 8a1f...
 *
 * A line is KEY = VALUE; the value is the rest of the line without blanks at its ends.  What is
 * a list may be set several times; anything else set twice is an error, as is a key that
 * does not exist.  The command line wins: its values replace those of the file, and its lists are
 * added to the file's.  Paths in a file begin with /: nobody knows where a server was started.
 */
#ifndef HYPERWAL_CONFIG_H
#define HYPERWAL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "network.h"

enum { CONFIG_SIZE_MAX = 1 << 20, CONFIG_PATHS_MAX = 4096 };

struct config_list {
    char **items; /* owned, and what they point to */
    size_t count;
};

struct config {
    struct config_list databases, directories;
    struct config_list listen, allow, allow_write;
    char *identity; /* owned, like all below; NULL: not set */
    char *authorized_keys;
    char *http; /* where the status page is */
    unsigned is_http_public;
    unsigned create_most; /* databases: clients may have no more made when so many are served */
    unsigned rest_s;      /* without a write, until little is left open of a database; 0: never */
    unsigned stop_s;      /* for closing them all */
    unsigned given;       /* bits of single settings that were set, by their place in the table */
};

void config_release(struct config *config);
/* One more at the end; FAILED: no memory, as was said. */
int config_list_add(struct config_list *list, const char *value);
void config_list_cut(struct config_list *list); /* the last one */
/* Set one key, as a line of a file does.  Says what is wrong, after `where`; an exit code. */
int config_set(struct config *config, const char *where, const char *key, const char *value);
/* Read a file.  USAGE: a line is wrong; FAILED: it cannot be read. */
int config_read(struct config *config, const char *path);
/* Add the `given` settings, of the command line, and defaults for what neither has. */
int config_merge(struct config *config, const struct config *given);
/* The file that is read if nothing is named: from malloc(); NULL: there is none. */
char *config_default_path(void);
/* Print all settings as a file would have them. */
void config_print(const struct config *config);

#endif
