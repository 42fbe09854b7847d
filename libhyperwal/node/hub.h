/*
 * node/hub.h - what a process serves and follows over the network
 *
 * A hub has one thread, its loop, which owns the transport, the peers, and the replications: logs
 * that are served (a core open for reading; the worker may be another process, whose bell wakes us)
 * and mirrors (a core that grows). All functions below only hand a command to the loop, or look at
 * what it published.
 *
 *      app thread ──command──▶ loop ◀──event── transport
 *                               ▲ └─ bytes ──▶
 *                               └── bell of each served log (env/bell.h)
 *
 * Mirrors: the loop fetches what is wanted from the sources, the best of them first, publishes the
 * length in the shared page of the mirror's directory and wakes who waits there.  Readers open the
 * directory like any log.  A source that cannot be reached is dialed again after 0.1 s, doubling up
 * to 10 s, with chance; a link that lasted less than a second does not begin that anew.  One that
 * gave a false proof is left alone for ten minutes.
 *
 * Who may come in: without any rule, everybody who can reach a listener that only this machine can
 * reach, to read; other listeners need a rule.  The hub's own identity may do all.  Rules come by
 * calls and from a file (node/rules.h).  Refusals are logged with key, name and reason.
 *
 * Whom we dial by a name is known again by its key (node/known.h), before anything is asked: a
 * server with another key is not spoken to.  An address with the log's own key in place of a name
 * writes nothing there, as the log proves itself; one with ?server=KEY asks for that very server.
 *
 * Threads: functions from any thread, except where said; hw_hub_step() only without a thread.
 */
#ifndef HW_NODE_HUB_H
#define HW_NODE_HUB_H

#include "base/buffer.h"
#include "env/env.h"
#include "hypercore/hypercore.h"
#include "node/rules.h"
#include "wire/address.h"
#include "wire/noise.h"
#include "wire/transport.h"
#include "wire/write_message.h"

enum {
    HW_HUB_PEERS_MAX = 1024,    /* connections; more are refused */
    HW_HUB_STRANGERS_MAX = 128, /* of them still in their handshake */
    HW_HUB_SERVED_MAX = 4096,   /* logs */
    HW_HUB_SOURCES_MAX = 16,    /* of a mirror */
};

struct hw_hub;
struct hw_hub_options {
    struct hw_env *env;
    struct hw_identity identity;    /* copied */
    struct hw_transport *transport; /* moved; NULL: nng */
    bool threaded;                  /* false: the caller steps (tests) */
    const char *known_servers;      /* a file (node/known.h), copied; NULL: any server will do */
};
enum hw_status hw_hub_open(const struct hw_hub_options *options, struct hw_hub **out,
                           struct hw_error *err) HW_MUST_CHECK;
/*
 * A hub with a thread, for this user: with its identity, of `identity_file` or, if that is NULL, of
 * its own place, and with the servers it knows, hw_config_path("known_servers").
 */
enum hw_status hw_hub_open_for_user(struct hw_env *env, const char *identity_file,
                                    struct hw_hub **out, struct hw_error *err) HW_MUST_CHECK;
/*
 * Ends everything; mirrors are closed before.  NULL does nothing, and so does a hub in a forked
 * child, where all its functions fail.
 */
void hw_hub_close(struct hw_hub *hub);
const uint8_t *hw_hub_identity(const struct hw_hub *hub);

/*
 * Where a file of this user lies: where the environment variable says, else beside that of
 * $HYPERWAL_IDENTITY, else in $XDG_CONFIG_HOME/hyperwal or ~/.config/hyperwal.  *out is the
 * caller's, hw_free().  HW_ENOTFOUND: nowhere.
 */
enum hw_status hw_config_path(const char *name, const char *variable, char **out,
                              struct hw_error *err) HW_MUST_CHECK;
/* The directories on its way; those that are there already are no failure, the open will tell. */
void hw_config_make_parents(struct hw_env *env, char *path);

/*
 * The identity of this user, kept in a file with mode 0600: `path`, or if that is NULL that of
 * hw_config_path("identity"); made if it is missing.  HW_EREADONLY: others can read it.  Nobody
 * goes without: where it cannot be kept that is a failure, and never HW_ENOTFOUND.
 */
enum hw_status hw_identity_load(struct hw_env *env, const char *path, struct hw_identity *out,
                                struct hw_error *err) HW_MUST_CHECK;

/*
 * Rules end the default above.  Rights are bits of node/rules.h, patterns are spelled as there; key
 * NULL: anybody.  HW_EMISUSE: a malformed pattern.
 */
enum hw_status hw_hub_allow(struct hw_hub *hub, unsigned rights, const char *patterns,
                            const uint8_t *identity_key, struct hw_error *err) HW_MUST_CHECK;
/* All rules that came by calls, anew, as text: who lost a right is cut off.  HW_EMISUSE: a line. */
enum hw_status hw_hub_set_rules(struct hw_hub *hub, struct hw_slice text,
                                struct hw_error *err) HW_MUST_CHECK;
/*
 * Rules from a file, `path`, or if that is NULL of hw_config_path("authorized_keys"), which may be
 * missing.  It is read again when it changes, and by hw_hub_reload_access(): then those who lost a
 * right lose their links.  One that is malformed by then, or that others may write, changes nothing
 * and is logged as an error; one that is gone has no rules.  HW_EREADONLY: others may write it;
 * HW_EMISUSE names the line.  Once for a hub.
 */
enum hw_status hw_hub_authorize(struct hw_hub *hub, const char *path,
                                struct hw_error *err) HW_MUST_CHECK;
/*
 * Rules from this file in place of those of the file that there was, which is not looked at any
 * more.  HW_ENOTFOUND: there is no such file; what else is wrong, as above; then all is as before.
 */
enum hw_status hw_hub_authorize_instead(struct hw_hub *hub, const char *path,
                                        struct hw_error *err) HW_MUST_CHECK;
/* HW_OK: it was read; else why it was not, and all is as before. */
enum hw_status hw_hub_reload_access(struct hw_hub *hub, struct hw_error *err) HW_MUST_CHECK;
/* What may this identity do with `name`?  Bits of node/rules.h. */
unsigned hw_hub_rights(struct hw_hub *hub, const uint8_t *identity_key, const char *name);
/*
 * Listen at a URL of the transport; `bound` gets it with the port that was taken.  HW_EREFUSED: it
 * can be reached from other machines, and there is no rule.
 */
enum hw_status hw_hub_listen(struct hw_hub *hub, const char *url, char bound[HW_URL_MAX],
                             struct hw_error *err) HW_MUST_CHECK;

/*
 * Serve the log (or mirror) in directory `dir` under `name`.  If the directory has no log yet it is
 * served as soon as it has.  HW_EEXIST: the name is taken by another directory.
 */
enum hw_status hw_hub_serve(struct hw_hub *hub, const char *name, const char *dir,
                            struct hw_error *err) HW_MUST_CHECK;
void hw_hub_unserve(struct hw_hub *hub, const char *name); /* links are closed */
/*
 * What is served as `name` is the log of the database `path`, which clients with the right may
 * write: they get leases, and their transactions are committed through the VFS named `vfs` (the
 * shim's).  HW_ENOTFOUND: not served, or a mirror.
 */
enum hw_status hw_hub_take_writes(struct hw_hub *hub, const char *name, const char *path,
                                  const char *vfs, struct hw_error *err) HW_MUST_CHECK;

/*
 * True: nobody writes it from afar until it is said otherwise; what had come is committed and
 * answered when this returns, and the committer's connection closed.  Not in the hub's thread.
 */
void hw_hub_rest_writes(struct hw_hub *hub, const char *name, bool rests);

/* ------------------------------------------------------------------------------ creation */

/* Is this a name, and a page size (0: any), for a new database?  HW_EMISUSE: why not. */
enum hw_status hw_creation_check(const char *name, uint32_t page_size,
                                 struct hw_error *err) HW_MUST_CHECK;
/*
 * From now on clients with the right to create may have databases made.  `asked` is called in the
 * hub's thread, with locks held, and only wakes somebody up, who then takes each wish, makes the
 * database, serves it under its name, and tells.  NULL: no more.
 */
enum hw_status hw_hub_on_create(struct hw_hub *hub, void (*asked)(void *ctx), void *ctx,
                                struct hw_error *err) HW_MUST_CHECK;
struct hw_hub_creation {
    uint64_t id;
    uint32_t page_size; /* 0: any */
    char name[HW_NAME_MAX + 1];
};
enum hw_status hw_hub_creation_next(struct hw_hub *hub, struct hw_hub_creation *out); /* HW_END */
/* `why` it could not be made; NULL: it was. */
void hw_hub_creation_done(struct hw_hub *hub, uint64_t id, const char *why);
/*
 * Have a server make an empty database under the name of `address`; *key is that of its log.
 * HW_EEXIST, HW_EREFUSED, HW_EMISUSE (the name, the page size), HW_EIO (the server failed).
 */
enum hw_status hw_hub_create(struct hw_hub *hub, const struct hw_address *address,
                             uint32_t page_size, uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE],
                             struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------------- mirrors */

struct hw_mirror;
struct hw_mirror_options {
    const char *dir; /* made if it is missing */
    uint8_t key[HW_KEY_SIZE];
    const struct hw_address *sources; /* copied */
    size_t source_count;
    uint8_t replica_id[16]; /* told to servers with acknowledgements; zeros: none */
};
/*
 * What a server calls `address` is which log?  The calling thread waits.  HW_ENOTFOUND,
 * HW_EREFUSED, HW_ETIMEOUT; HW_EPROTOCOL: the server has no names.
 */
enum hw_status hw_hub_resolve(struct hw_hub *hub, const struct hw_address *address,
                              uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE],
                              struct hw_error *err) HW_MUST_CHECK;
/* The same; of a failure *reached tells whether it is the server's answer, or none came. */
enum hw_status hw_hub_find_key(struct hw_hub *hub, const struct hw_address *address,
                               uint64_t timeout_ms, uint8_t key[HW_KEY_SIZE], bool *reached,
                               struct hw_error *err) HW_MUST_CHECK;
/*
 * State of one database of a server, JSON, added to *out.  *reached, unless NULL: somebody took our
 * connection, whatever came of it; of HW_ENOTFOUND: the server says that it has none of that name.
 */
enum hw_status hw_hub_ask(struct hw_hub *hub, const struct hw_address *address, uint64_t timeout_ms,
                          struct hw_buffer *out, bool *reached, struct hw_error *err) HW_MUST_CHECK;

/*
 * All names of a server that we may read, and the keys of their logs; `each` is called in the
 * calling thread, and false ends it.  Names are the server's words, of any bytes but zero.
 */
enum hw_status hw_hub_list(struct hw_hub *hub, const struct hw_address *server, uint64_t timeout_ms,
                           bool (*each)(void *ctx, const char *name,
                                        const uint8_t key[HW_KEY_SIZE]),
                           void *ctx, struct hw_error *err) HW_MUST_CHECK;

/*
 * Ask the server to end the log in favour of the one with `key`, as hw_capture_hand_over(); it
 * takes the right to promote.  *seq: of its last entry.
 */
enum hw_status hw_hub_hand_over(struct hw_hub *hub, const struct hw_address *address,
                                const uint8_t key[HW_KEY_SIZE], uint64_t timeout_ms, uint64_t *seq,
                                struct hw_error *err) HW_MUST_CHECK;

/*
 * Make or continue the mirror in a directory.  HW_EBUSY: another process writes it.  HW_EFORK: it
 * is a mirror of another log.  HW_EEXIST: a log of our own.
 */
enum hw_status hw_hub_mirror_open(struct hw_hub *hub, const struct hw_mirror_options *options,
                                  struct hw_mirror **out, struct hw_error *err) HW_MUST_CHECK;
void hw_hub_mirror_close(struct hw_mirror *mirror); /* synced; NULL does nothing */
/* Wait until it knows a signed tree of at least `length` blocks.  The error names each source. */
enum hw_status hw_mirror_wait_length(struct hw_mirror *mirror, uint64_t length, uint64_t timeout_ms,
                                     struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_mirror_want(struct hw_mirror *mirror, uint64_t start, uint64_t end,
                              struct hw_error *err) HW_MUST_CHECK;
void hw_mirror_want_tail(struct hw_mirror *mirror, uint64_t start); /* all from there on */
/*
 * For struct hw_core_fetcher, ctx the mirror: asks for the block, and blocks the calling thread
 * until it is there.  HW_EPRUNED: no source that is connected has it.  HW_ETIMEOUT: nothing came
 * for 30 s.  HW_AGAIN: hw_mirror_interrupt().  HW_EMISSING: asked for, and the hub has no thread.
 */
enum hw_status hw_mirror_fetch(void *mirror, uint64_t index, struct hw_error *err);
void hw_mirror_interrupt(struct hw_mirror *mirror); /* any thread, signal handlers */
/* Tell the servers that readers of the replica see everything below `length`. */
void hw_mirror_applied(struct hw_mirror *mirror, uint64_t length);

/*
 * Ask for a block before all others, and do not wait for it.  HW_OK: it is held; HW_AGAIN: it is on
 * its way; HW_EMISSING: no source is connected; HW_EPRUNED: none that is connected has it.
 */
enum hw_status hw_mirror_ask(struct hw_mirror *mirror, uint64_t index,
                             struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------- writing through a mirror */

/* What became of something that a server was asked; of a commit: see enum hw_write_status. */
struct hw_write_answer {
    enum hw_write_status status;
    uint64_t seq;                     /* OK: last block of the transaction's entry */
    char text[HW_WRITE_TEXT_MAX + 1]; /* why not */
};
/*
 * Begin to write: the lease of the log's database is asked for from the source that is linked, if
 * it is not held any more.  *fence is its number, *length what the log has at least by now.  One
 * at a time.  HW_EBUSY: another thread writes; or others do, and turn_ms after the source said so
 * it is not our turn yet; or the source is silent.  Then the request stays in the source's line,
 * and the next call goes on waiting.  HW_EREFUSED: not allowed; HW_EREADONLY: the source has not
 * got the database; HW_ETIMEOUT: within answer_ms none could be reached; HW_EIO: it went away.
 */
enum hw_status hw_mirror_write_begin(struct hw_mirror *mirror, uint64_t answer_ms, uint64_t turn_ms,
                                     uint64_t *fence, uint64_t *length,
                                     struct hw_error *err) HW_MUST_CHECK;
/* The lease is kept, unless it was recalled: then it goes back. */
void hw_mirror_write_end(struct hw_mirror *mirror);
/*
 * Between the two: `commit` has all but the request's number; `next` gives part_count parts, each
 * borrowed until it is called again.  Waits for the answer, as long as the source says it lives.
 */
struct hw_write_answer
hw_mirror_commit(struct hw_mirror *mirror, const struct hw_write_message *commit,
                 enum hw_status (*next)(void *ctx, struct hw_slice *part, struct hw_error *err),
                 void *ctx, uint64_t timeout_ms);
/* What became of this one?  UNKNOWN: or nobody can say it now. */
struct hw_write_answer hw_mirror_outcome(struct hw_mirror *mirror, const struct hw_origin *id,
                                         uint64_t timeout_ms);

struct hw_mirror_status {
    uint64_t length, fork;
    uint64_t remote_length;  /* the most that a connected source told of */
    uint64_t wanted;         /* blocks still to come */
    unsigned connected;      /* sources */
    unsigned told;           /* of these, who said how long the log is there; 0 is told, too */
    bool has_failed;         /* none is connected, and each was tried and lost */
    uint64_t bytes_received; /* of blocks */
    char problem[256];       /* why no source is connected; "" */
    /*
     * A source, by the name under which it was this log, has another one now: that of a primary
     * that took over, perhaps.
     */
    bool has_moved;
    uint8_t moved_key[HW_KEY_SIZE];
    size_t moved_source;
};
void hw_mirror_status(struct hw_mirror *mirror, struct hw_mirror_status *out);

/* ------------------------------------------------------------------------------- status */

struct hw_hub_peer {
    uint8_t key[HW_IDENTITY_KEY_SIZE]; /* identity */
    char address[128];
    bool is_outgoing;
    uint64_t length; /* of the named log at the remote */
    bool has_ack;
    uint64_t received, durable, applied; /* lengths */
};
/* Peers linked to the log or mirror `name` (of hw_hub_serve) now; up to `capacity` are filled. */
size_t hw_hub_peers(struct hw_hub *hub, const char *name, struct hw_hub_peer *peers,
                    size_t capacity);

struct hw_hub_counts { /* for tests and metrics */
    unsigned peers, strangers, links;
    uint64_t accepted, refused, dropped; /* connections since open */
    uint64_t denied;                     /* what those who are in asked for and may not have */
    uint64_t bytes_in, bytes_out;
    size_t output_bytes; /* waiting */
};
void hw_hub_counts(struct hw_hub *hub, struct hw_hub_counts *out);

/* One round of the loop without sleeping; *deadline_ns: when the next is due.  HW_END: idle. */
enum hw_status hw_hub_step(struct hw_hub *hub, uint64_t *deadline_ns,
                           struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------- listen= of a database */

/* The process's own node, made at the first use and ended with the last; for vfs/vfs.h. */
struct hw_vfs_listener;
const struct hw_vfs_listener *hw_hub_listener(void);
/* The hub of that node, for whoever else needs one; given back with hw_hub_give_back(). */
enum hw_status hw_hub_borrow(struct hw_hub **out, struct hw_error *err) HW_MUST_CHECK;
void hw_hub_give_back(struct hw_hub *hub);
void hw_hub_process_forked(void); /* in a child: that node is the parent's */

#endif
