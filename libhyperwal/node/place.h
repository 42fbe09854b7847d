/*
 * node/place.h - what a user named: a database of this machine, or one that is served somewhere
 *
 *   hyper://HOST/NAME, tcp://... ws://... ipc://...   served there (wire/address.h)
 *   hyper:NAME           a petname, if it is one (node/names.h); else as the next
 *   hyper:PATH           a path; hyper:///FULL/PATH the same
 *   TEXT                 a path; but if there is no such file, and it is a petname, that
 *
 * A petname with a path is that path if there is something, else its addresses.
 */
#ifndef HW_NODE_PLACE_H
#define HW_NODE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "env/env.h"
#include "wire/address.h"

struct hw_place { /* all zero: nothing */
    bool is_remote;
    char *petname; /* owned; NULL: it was named otherwise */
    char *path;    /* owned; of this machine, if not is_remote */
    bool has_key;  /* that a petname or an address says which log it is */
    uint8_t key[HW_KEY_SIZE];
    struct hw_address *addresses; /* owned; if is_remote, the first one is to be tried first */
    char **urls;                  /* owned, as they; they have no key that has_key does not tell */
    size_t count;
    char hint[160]; /* for an error that there is nothing at `path`: names that are near; "" */
};
void hw_place_release(struct hw_place *place);

/*
 * Where is what the user calls `text`?  Nothing is connected to, and a path need not exist.
 * HW_EMISUSE: a malformed URL.  Other failures are of the registry of names, or of the look whether
 * there is such a file: it is not taken for missing then.
 */
enum hw_status hw_place_find(struct hw_env *env, const char *text, struct hw_place *out,
                             struct hw_error *err) HW_MUST_CHECK;

#endif
