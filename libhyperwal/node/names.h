/*
 * node/names.h - this user's own names for databases: petnames
 *
 * A small SQLite database, names.db of hw_config_path(), opened for single questions:
 *
 *     names       name | key of the log, 32 bytes or NULL | path or NULL | added
 *     addresses   name | rank from 0 | URL
 *
 * A petname is what this user calls a log: the key says which one it is, the addresses where it may
 * be had, in the order in which they are tried.  What a server calls it is part of each address,
 * and may be something else.  With a path it is a database of this machine.
 *
 * Threads and processes: any number of them, each with its own struct hw_names.
 */
#ifndef HW_NODE_NAMES_H
#define HW_NODE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "env/env.h"
#include "hypercore/hypercore.h"

enum { HW_NAMES_URLS_MAX = 16, HW_PETNAME_MAX = 128 };

struct hw_name {
    const char *name;
    bool has_key;
    uint8_t key[HW_KEY_SIZE];
    const char *path;        /* full; NULL: none */
    const char *const *urls; /* as hw_address_parse() takes them */
    size_t url_count;
};

/* Is it one?  HW_EMISUSE says why not: a slash, a control character, something that means else. */
enum hw_status hw_petname_check(const char *name, struct hw_error *err) HW_MUST_CHECK;

struct hw_names;
/*
 * The registry at `path`, or the user's if that is NULL; made if `writes`.  HW_ENOTFOUND: there is
 * none, so there are no names.  HW_EVERSION: made by a later version; HW_ECORRUPT, HW_EBUSY.
 */
enum hw_status hw_names_open(struct hw_env *env, const char *path, bool writes,
                             struct hw_names **out, struct hw_error *err) HW_MUST_CHECK;
void hw_names_close(struct hw_names *names); /* NULL does nothing */

/* HW_EEXIST: there is one of this name already, and not `replaces`.  HW_EMISUSE: malformed. */
enum hw_status hw_names_put(struct hw_names *names, const struct hw_name *name, bool replaces,
                            struct hw_error *err) HW_MUST_CHECK;
/* HW_ENOTFOUND, with the names that are near. */
enum hw_status hw_names_remove(struct hw_names *names, const char *name,
                               struct hw_error *err) HW_MUST_CHECK;
/* *out is the caller's: hw_free() frees all of it at once.  HW_ENOTFOUND, as for remove. */
enum hw_status hw_names_find(struct hw_names *names, const char *name, struct hw_name **out,
                             struct hw_error *err) HW_MUST_CHECK;
/* All of them, in order; `name` is borrowed for the call.  Stops if it returns false. */
enum hw_status hw_names_each(struct hw_names *names,
                             bool (*each)(void *ctx, const struct hw_name *name), void *ctx,
                             struct hw_error *err) HW_MUST_CHECK;
/* ", perhaps `orders' or `order2'", or "": what somebody may have meant who wrote `name`. */
void hw_names_near(struct hw_names *names, const char *name, char *out, size_t size);

#endif
