/*
 * create.h - databases that clients want made
 *
 * The node tells in its own thread that there is a wish; the server's thread makes the database in
 * its first directory, serves it, and says so.  What is made is never put over what is there: not
 * over a file, nor beside a log or WAL that an older database of the name left.  What was made in
 * part is removed; what is whole and could not be served yet is tried again (late.h).
 */
#ifndef HYPERWAL_CREATE_H
#define HYPERWAL_CREATE_H

#include <hyperwal.h>
#include <stdbool.h>
#include <stddef.h>

#include "watch.h"

struct creator {
    hyperwal_node *node; /* borrowed */
    int event;           /* readable when there is a wish; -1: nobody may wish */
};

/* `node` may be NULL. */
int creator_open(struct creator *creator, hyperwal_node *node);
void creator_close(struct creator *creator);
/* Make what is wished for, in `directory`, unless `most` databases are served already. */
void creator_work(struct creator *creator, struct watch *watch, const char *directory, size_t most);

#endif
