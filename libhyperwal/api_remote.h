/*
 * api_remote.h - a log that somebody else serves, as the files of the API see it
 *
 * The bytes go into a mirror: the directory of a replica, or one of our own that is gone after
 * close.  A hub fills it; who reads opens the directory like any log, and blocks that are not there
 * yet are asked for and waited for, with more of those behind them when they are read in order.
 */
#ifndef HW_API_REMOTE_H
#define HW_API_REMOTE_H

#include "apply/apply.h"
#include "hypercore/hypercore.h"
#include "hyperwal.h"
#include "node/hub.h"

struct hyperwal_node {
    struct hw_env *env;
    struct hw_hub *hub;     /* owned */
    char bound[HW_URL_MAX]; /* where it listens first; "" */
};

/* The code of a call about nodes, servers and names, and its words in *error, which may be NULL. */
int hw_api_told(char **error, enum hw_status status, const struct hw_error *err);

/* A node for one's own use, with the user's identity. */
enum hw_status hw_api_node_open(const char *identity_file, struct hyperwal_node **out,
                                struct hw_error *err) HW_MUST_CHECK;

struct hw_api_remote_options {
    struct hyperwal_node *node; /* borrowed; NULL: one of its own */
    const char *const *sources; /* URLs */
    size_t source_count;
    const char *dir;           /* of the mirror; NULL: a temporary one */
    const uint8_t *key;        /* the log that it must be; NULL: what the sources call it */
    bool is_known;             /* these sources had it before: begin without asking them */
    const uint8_t *replica_id; /* 16 bytes; NULL: no replica */
    bool (*go_on)(void *ctx);  /* asked while waiting; false: stop */
    void *ctx;
};

struct hw_api_remote;
/*
 * Make or continue the mirror, and wait until the length of the log is known; a mirror that knows
 * one already does not wait.  HW_ENOTFOUND, HW_EREFUSED, HW_ETIMEOUT: no source has it, and why.
 * HW_EFORK: another log than `key`.  HW_AGAIN: go_on() said stop.
 */
enum hw_status hw_api_remote_open(const struct hw_api_remote_options *options,
                                  struct hw_api_remote **out, struct hw_error *err) HW_MUST_CHECK;
void hw_api_remote_close(struct hw_api_remote *remote); /* NULL does nothing */
const char *hw_api_remote_dir(const struct hw_api_remote *remote);
struct hw_mirror *hw_api_remote_mirror(struct hw_api_remote *remote);

/* `core`, opened on the directory for reading, gets what it lacks from here. */
void hw_api_remote_attach(struct hw_api_remote *remote, struct hw_core *core);
/* Begin to fetch what leads to `target`.  Only speed depends on it: failures are met again. */
void hw_api_remote_want(struct hw_api_remote *remote, struct hw_core *core,
                        const struct hw_target *target);
void hw_api_remote_want_all(struct hw_api_remote *remote);
/*
 * The same for a replica that begins with the newest snapshot, and all that comes from then on.
 * HW_ENOTFOUND: there is none yet.
 */
enum hw_status hw_api_remote_want_live(struct hw_api_remote *remote, struct hw_core *core,
                                       struct hw_error *err) HW_MUST_CHECK;

/* The log of which key is the mirror in `dir`?  HW_ENOTFOUND: there is no mirror. */
enum hw_status hw_api_mirror_key(struct hw_env *env, const char *dir, uint8_t key[HW_KEY_SIZE],
                                 struct hw_error *err) HW_MUST_CHECK;

#endif
