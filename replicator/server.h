/*
 * server.h - the process behind `hyperwal serve`
 *
 * One thread sleeps on signals and on inotify; the library's own threads do the work.
 *
 *   SIGTERM, SIGINT   close all databases and end; what takes longer than stop-timeout is left as
 *                     it is, which loses nothing: the next start goes on from the WAL
 *   SIGHUP            read the configuration again; a file with a mistake changes nothing
 */
#ifndef HYPERWAL_SERVER_H
#define HYPERWAL_SERVER_H

#include <stdbool.h>

#include "config.h"

struct server_options {
    const char *config_path;    /* NULL: there is no file */
    const struct config *given; /* of the command line */
    bool is_json;
};
/* Serve until a signal; `config` is what both make together, moved.  Returns an exit code. */
int server_run(const struct server_options *options, struct config *config);

#endif
