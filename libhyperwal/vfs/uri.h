/* vfs/uri.h - the parameters that hyperwal understands in a database's URI */
#ifndef HW_VFS_URI_H
#define HW_VFS_URI_H

#include <stdbool.h>
#include <stdint.h>

#include "apply/apply.h"
#include "base/error.h"

/* What a commit waits for, in the order of strength. */
enum hw_durability {
    HW_DURABILITY_ASYNC,        /* nothing: it is in the WAL */
    HW_DURABILITY_LOCAL,        /* durable in the log */
    HW_DURABILITY_REMOTE,       /* and at `replicas` followers */
    HW_DURABILITY_REMOTE_APPLY, /* and visible in the replicas of so many */
};

struct hw_uri {
    const char *log_dir; /* borrowed from the name; NULL: not given */
    bool memory;         /* storage=memory: database and log, see memory.h */
    enum hw_durability durability;
    const char *listen; /* borrowed from the name; NULL: not given */
    const char *access; /* likewise */
    uint64_t replicas;  /* that confirm a commit, where it waits for followers */
    uint64_t timeout_ms;
    bool continue_on_timeout;
    bool past; /* seq, time or label is given: `target` says which state */
    struct hw_target target;
    bool pass_through;  /* immutable or nolock: nothing to capture */
    bool hydrate;       /* a remote database: fetch all of it in the background */
    uint64_t cache_max; /* bytes of all caches; 0: not given */
    bool has_server;    /* a remote database: from the server with this identity key alone */
    uint8_t server[32];
    const char *refused; /* the first parameter given that a remote database has not; or NULL */
};

/*
 * `name` is what SQLite gave to xOpen for a main database.  HW_EMISUSE names the parameter, its
 * value and what is allowed.
 */
enum hw_status hw_uri_parse(const char *name, struct hw_uri *out,
                            struct hw_error *err) HW_MUST_CHECK;

/* "async", "local", "remote" or "remote_apply". */
enum hw_status hw_durability_parse(const char *text, enum hw_durability *out,
                                   struct hw_error *err) HW_MUST_CHECK;
/* May a commit wait for so many?  HW_EMISUSE says why not. */
enum hw_status hw_durability_check(enum hw_durability durability, uint64_t replicas,
                                   struct hw_error *err) HW_MUST_CHECK;
const char *hw_durability_name(enum hw_durability durability);

/* Decimal digits alone.  HW_EMISUSE: anything else, or too large. */
enum hw_status hw_number_parse(const char *text, uint64_t *out, struct hw_error *err) HW_MUST_CHECK;

#endif
