/*
 * node/hub_internal.h - what the files of the hub share; nothing outside this folder includes it
 *
 *     hub ──▶ conn   one a connection: transport below, peer above; or a dial under way
 *      ├────▶ log    one a directory: core, shared page, replication; served, a mirror or both
 *      └────▶ query  somebody waits for a server's answer
 *
 *     link = conn x log, while the log's channel is open
 *
 * One mutex guards all of it.  The loop holds it while it works and not while it sleeps; everybody
 * else holds it for one call and rings the bell.  What changed in a call is marked (hub_touch_*)
 * and flushed at the end of the loop's round: no callback of a peer or replication frees or sends.
 *
 * Deadlines: each object has one, hub->next_ns is the least of them or earlier.
 */
#ifndef HW_NODE_HUB_INTERNAL_H
#define HW_NODE_HUB_INTERNAL_H

#include <stdatomic.h>

#include "env/bell.h"
#include "env/peer_table.h"
#include "env/shared_page.h"
#include "env/thread.h"
#include "hypercore/mirror.h"
#include "hypercore/overtaken.h"
#include "node/hub.h"
#include "node/rules.h"
#include "wire/peer.h"
#include "wire/replication.h"

enum {
    HUB_EVENTS_A_ROUND = 256,
    HUB_REASONS = 16,             /* for drops, that are counted apart */
    HUB_SEND_MAX = 256 << 10,     /* bytes of one send */
    HUB_OUTPUT_ENOUGH = 64 << 20, /* bytes that wait for all peers: above it ... */
    HUB_ROOM_SMALL = 64 << 10,    /* ... fewer wait for each */
};
#define HUB_UNREADABLE_NS ((uint64_t)100000000) /* until what could not be read is read again */

struct hub_creation;
struct hub_log;
struct hub_conn;
struct hub_source;
struct hub_query;
struct hub_writes;
struct hub_handover;

/* A channel of a log that is open over a connection. */
struct hub_link {
    struct hub_conn *conn;
    struct hub_log *log;
    struct hub_link *next_of_log;  /* in log->links */
    struct hub_link *next_of_conn; /* in conn->links */
    bool is_urged;                 /* we told this follower that somebody waits */
    bool urges;                    /* the server told us so */
    bool has_ack, has_row;
    uint8_t replica_id[HW_REPLICA_ID_SIZE];
    struct hw_ack ack; /* the follower's newest */
    unsigned row;      /* in the peer table, if has_row */
    int64_t since_ms;
    uint64_t write_client; /* its number in the table of leases; 0: none */
    uint64_t last_commit;  /* request */
    bool is_committing;    /* and has no answer yet */
    bool is_refusal_told;  /* that it may not write is in the log */
    bool has_named_itself; /* a client: the server knows our replica */
};

/* Who is to answer at an address. */
struct hub_wanted {
    char dial[HW_URL_MAX];
    bool has_key, remembers;
    uint8_t key[HW_IDENTITY_KEY_SIZE];
};

struct hub_conn {
    struct hw_hub *hub;
    struct hub_conn *next;            /* in hub->conns */
    struct hub_conn *next_touched;    /* in hub->touched_conns */
    struct hw_connection *connection; /* NULL: still being dialed */
    struct hw_peer *peer;             /* owned; NULL: still being dialed */
    struct hub_link *links;
    struct hub_source *source; /* whose connection it is; NULL: not a source's */
    struct hub_query *query;   /* likewise */
    char address[128];
    struct hub_wanted *wanted; /* owned; whom we dialed; NULL: it came to us */
    bool is_outgoing, is_touched, is_receiving;
    bool is_ready;     /* we know who it is */
    bool is_begun;     /* its source or query has been told */
    bool is_refused;   /* it may not come in */
    bool is_doomed;    /* to be dropped in this round */
    bool is_abandoned; /* nobody wants what is being dialed */
    struct hw_error doom;
    size_t sending;        /* bytes that the transport has, 0: none */
    bool was_sent;         /* they went, and the peer does not know it yet */
    struct hw_slice input; /* bytes that came and were not looked at; the transport's */
    size_t queued;         /* its part of hub->output_bytes */
    bool is_in_line;
    struct hub_conn *next_in_line; /* in hub->line */
    uint64_t cost_ns, cost_at_ns;  /* work it made us do, as remembered at that time */
    struct hw_buffer out;          /* what the transport sends now */
    uint64_t born_ns, deadline_ns;
};

struct hub_name {
    struct hub_name *next;
    char *name; /* owned */
};

struct hub_log {
    struct hw_hub *hub;
    struct hub_log *next;           /* in hub->logs */
    struct hub_log *next_touched;   /* in hub->touched_logs */
    char *dir;                      /* owned */
    uint64_t dir_device, dir_inode; /* 0: not known */
    bool is_touched, has_watch;
    int watch;
    struct hw_file_stat bell; /* what is watched */
    struct hub_name *names;   /* owned; none: only a mirror, or kept */
    struct hub_log *kept;     /* of a log that goes on from another one: that one, as kept */
    struct hub_log *heir;     /* of a kept one: the log that goes on */
    struct hw_mirror *mirror;
    struct hw_shared_page *page;        /* owned; NULL: not yet to be had */
    struct hw_core *core;               /* owned; NULL: there is no log yet */
    uint64_t length;                    /* of the core, as it was announced */
    bool is_searched;                   /* what it goes on from, if it does, was looked for ... */
    bool is_kept_missing;               /* ... and was not there, or not to be had */
    struct hw_file_stat stat;           /* of what tells it from another log in its place */
    struct hw_replication *replication; /* owned; as `core` */
    struct hw_peer_table *table;        /* owned; NULL: no follower has acknowledged yet */
    struct hub_link *links;
    unsigned link_count;
    bool is_urged;             /* a commit waits for followers */
    uint64_t retry_ns;         /* between the last two tries to open it; 0: it opened */
    bool is_unreadable;        /* the last try failed, and not because there is no log */
    uint64_t deadline_ns;      /* when to look at it again, of itself */
    uint64_t tick_ns;          /* when the replication wants to know the time */
    struct hw_overtaken shown; /* what a peer proved to have of it */
    bool is_shown;             /* that is still to be dealt with ... */
    uint64_t shown_ns;         /* ... not before this time */
    bool is_stopped;           /* the signer knows of it */
    struct hub_writes *writes; /* owned; NULL: nobody writes it from afar */
};

struct hub_source {
    struct hw_mirror *mirror;
    struct hw_address address;
    struct hub_conn *conn; /* NULL: to be dialed at deadline_ns */
    bool is_linked;
    bool is_ended;    /* not to be dialed any more */
    bool is_forked;   /* it has another history than we, which was told */
    bool is_asked;    /* which log it calls by the address's name; no answer yet */
    bool is_rejected; /* it has not got our log; the connection lives for that answer */
    uint64_t request;
    uint64_t bytes; /* of blocks, over the link it has */
    uint64_t backoff_ns, deadline_ns;
    char problem[160]; /* "": none */
};

/* A thread that waits for a block (or, UINT64_MAX, for anything): on hw_mirror.news. */
struct hub_waiter {
    struct hub_waiter *next;
    uint64_t block;
};

/*
 * Who writes through a mirror.
 *
 *           asked, leased                  write_end
 *   NONE ──────────────────▶ busy, fence ─────────────▶ fence, kept until it is recalled, runs out,
 *    │                        ▲                          or the link is gone
 *    │ asked, must wait       │ asks again, soon
 *    └──────────▶ asked ──leased──▶ fence, kept for a moment though it is recalled
 *
 * Who has to wait does not sleep here for long: SQLite's busy handler has its say, and comes again.
 * Its request stays where it is in the server's line.
 */
struct hub_writer {
    struct hub_link *link; /* of the lease, and of what waits for an answer; NULL: none */
    uint64_t fence;        /* 0: no lease */
    uint64_t lease_ms, expires_ns;
    bool is_busy, is_recalled;
    bool is_asked;  /* a lease, with `request` ... */
    bool must_wait; /* ... and the server said, at told_ns, that others have it */
    uint64_t asked_ns, told_ns;
    uint64_t length;  /* of the log, when the lease was given */
    uint64_t kept_ns; /* until when a lease that nobody has used yet is not given back; 0: used */
    uint64_t request; /* the last one */
    bool is_waiting;  /* for the answer to it */
    bool has_answer;
    struct hw_write_message answer; /* its body is not used */
    char text[HW_WRITE_TEXT_MAX + 1];
    _Atomic uint32_t word; /* who waits sleeps on it, outside the mutex */
};

struct hw_mirror {
    struct hw_hub *hub;
    struct hub_log *log;
    struct hw_file *lock; /* owned */
    struct hub_source sources[HW_HUB_SOURCES_MAX];
    size_t source_count;
    uint8_t replica_id[HW_REPLICA_ID_SIZE];
    struct hub_waiter *waiters;
    _Atomic uint32_t news;           /* who waits sleeps on it, outside the mutex */
    _Atomic uint32_t is_interrupted; /* until somebody who waits sees it */
    uint64_t tail;                   /* hw_mirror_want_tail(); UINT64_MAX: none */
    uint64_t published;              /* length in the shared page */
    uint64_t fork;                   /* of which `complete` and `durable` speak */
    uint64_t complete;               /* blocks [tail, complete) are held */
    uint64_t durable;                /* of them, those that are synced */
    uint64_t unchecked_end;      /* blocks below it must be read before they count as complete, */
    uint64_t unstored_from;      /* and those from here on stored again */
    uint64_t check_ns;           /* when to go on with that; UINT64_MAX: nothing to go on with */
    struct hw_buffer scratch;    /* a block that is checked */
    uint64_t synced_bytes;       /* of bytes_received */
    uint64_t sync_ns;            /* when to sync; UINT64_MAX: nothing to */
    uint64_t ack_ns;             /* when to acknowledge; UINT64_MAX: nothing new */
    uint64_t due_ns;             /* the least of the three */
    _Atomic uint64_t applied;    /* what hw_mirror_applied() was told, outside the mutex */
    _Atomic uint32_t is_applied; /* it was told something since the loop last took it */
    _Atomic uint32_t is_hasty;   /* is_urged, for hw_mirror_applied() */
    struct hw_ack told;          /* what the servers know */
    uint64_t arrived_ns;         /* when something last came */
    uint64_t bytes_received, bytes_of_closed; /* of blocks; from links that are closed */
    struct hub_writer writer;
    bool has_news, is_dirty, is_urged; /* is_dirty: something came since the last sync */
    struct hw_error broken;            /* what our own disk said last */
    bool has_moved;                    /* a source calls another log by our name: */
    uint8_t moved_key[HW_KEY_SIZE];
    size_t moved_source;
};

struct hub_query {
    struct hw_hub *hub;
    const struct hw_address *address; /* borrowed from the caller that waits */
    bool is_ask, is_create;
    bool is_names; /* all names of a server; to *out, each its key, and then text with a zero */
    uint32_t page_size;      /* of what is to be made */
    const uint8_t *heir_key; /* borrowed; the log is to end in favour of this one; NULL: no */
    uint64_t seq;            /* of its end */
    struct hub_conn *conn;   /* NULL: ended */
    uint64_t request;
    bool is_done;
    bool is_early;   /* the connection was closed before it could be asked */
    bool is_reached; /* a connection was there: what it ended with is the server's answer */
    bool is_met;     /* at one of the tries somebody took the connection */
    enum hw_status status;
    struct hw_error err;
    bool is_listing;     /* the name is unknown there: which ones are known? */
    unsigned name_count; /* told so far */
    uint8_t key[HW_KEY_SIZE];
    struct hw_buffer *out; /* of the caller */
    _Atomic uint32_t word; /* who waits sleeps on it */
};

/* Who may do what: by calls, and by a file that is looked at again when it changes. */
struct hub_access {
    bool has_rules; /* false: the default of node/hub.h */
    struct hw_rules given, filed;
    char *path; /* owned; NULL: no file */
    bool is_there;
    struct hw_file_stat stat; /* of the file as it was read, if is_there */
    bool is_unread;           /* what is there now could not be read ... */
    uint64_t again_ns;        /* ... and is to be read at this time */
    bool has_watch, has_dir_watch;
    int watch, dir_watch;
};

struct hw_hub {
    struct hw_env *env;
    struct hw_identity identity;
    struct hw_transport *transport; /* owned */
    struct hw_bell *bell;           /* owned; NULL if it has no thread */
    bool threaded, is_ending;
    uint32_t process_id; /* a forked child must not touch any of this */
    struct hw_thread thread;
    /*
     * `mutex` guards all that follows and hangs from here.  Who wants it holds `door` first: so the
     * loop, which comes back at once, lets in who waits.
     */
    struct hw_mutex mutex, door;
    struct hub_conn *conns, *touched_conns;
    struct hub_conn *line, *line_last; /* heavy ones with work to do, the next one first */
    struct hub_log *logs, *touched_logs;
    struct hw_hub_counts counts;
    size_t output_bytes;           /* that wait for peers, as of the last look at each */
    uint64_t told_ns[HUB_REASONS]; /* so far in the future as many drops were told */
    uint64_t untold_count;         /* of drops, until ... */
    uint64_t flood_end_ns;
    unsigned served_count;
    struct hub_creation *creations; /* owned: wanted by clients, the first one first */
    uint64_t last_creation;
    void (*on_create)(void *ctx); /* NULL: nobody makes any */
    void *on_create_ctx;
    uint64_t last_write_client;
    struct hub_handover *handovers;
    struct hub_access access;
    char *known_servers;          /* owned; NULL: any server will do */
    _Atomic uint32_t has_applied; /* some mirror is_applied; outside the mutex */
    bool all_rang;
    uint64_t sync_free_ns; /* no lazy sync of a mirror before */
    uint64_t next_ns;      /* when the loop must look at the deadlines */
};

/* --------------------------------------------------------------------------------- hub.c */

/* HW_EMISUSE: this is a forked child, where the hub does not live. */
enum hw_status hub_enter(struct hw_hub *hub, struct hw_error *err) HW_MUST_CHECK;
void hub_leave(struct hw_hub *hub); /* and rings */
uint64_t hub_now(struct hw_hub *hub);
void hub_timer(struct hw_hub *hub, uint64_t deadline_ns);
/* As the system's calls want it. */
static inline uint32_t *hub_word(_Atomic uint32_t *word)
{
    return (uint32_t *)(uintptr_t)word;
}
/* Sleep outside the mutex while *word is `seen`; called, and returns, inside. */
void hub_sleep(struct hw_hub *hub, _Atomic uint32_t *word, uint32_t seen, uint64_t deadline_ns);
void hub_wake(struct hw_hub *hub, _Atomic uint32_t *word); /* counts it up */

/* -------------------------------------------------------------------------- connection.c */

/* `address` is copied. */
enum hw_status conn_dial(struct hw_hub *hub, const struct hw_address *address,
                         struct hub_conn **out, struct hw_error *err) HW_MUST_CHECK;
/* Is it who was dialed?  HW_EREFUSED, and a line in the log. */
enum hw_status conn_recognize(struct hub_conn *conn, struct hw_error *err) HW_MUST_CHECK;
/*
 * The same before it is sent what others must not see: from now on it is known, also if it was
 * dialed for a log by its key, which proves what it says and not who hears us.
 */
enum hw_status conn_recognize_hearer(struct hub_conn *conn, struct hw_error *err) HW_MUST_CHECK;
void conn_touch(struct hub_conn *conn);
/* To be dropped at the end of the round. */
void conn_doom(struct hub_conn *conn, const struct hw_error *why);
/* At once, outside of any callback of its peer. */
void conn_drop(struct hub_conn *conn);
void conn_tell_flood(struct hw_hub *hub); /* how many drops the log was not told of */
/* One line that the remote did not get what it asked for, unless it is one of a flood. */
void conn_tell_refusal(struct hub_conn *conn, struct hw_slice name, const char *right,
                       const char *reason);
void conn_close_all(struct hw_hub *hub);
void conn_free_all(struct hw_hub *hub); /* what was still dialed when the transport ended */
void conn_events(struct hw_hub *hub, bool *had_any);
void conn_flush(struct hw_hub *hub, uint64_t now); /* all that were touched */
void conn_timers(struct hw_hub *hub, uint64_t now);

/* What the transport told, when its turn has come. */
void conn_received(struct hub_conn *conn, struct hw_slice bytes);
void conn_sent(struct hub_conn *conn);

/* ------------------------------------------------------------------------------- turn.c */

/* It has something to do: done now, unless it has made us work a lot: then it waits in line. */
void turn_take(struct hub_conn *conn);
void turn_leave(struct hub_conn *conn);
/* Some of the work of those in line; true: there is more. */
bool turns_take(struct hw_hub *hub);

/* --------------------------------------------------------------------------- handover.c */

/* Somebody wants the log to end, who needs the right to promote. */
void handover_asked(struct hub_conn *conn, const struct hw_hyperwal_handover *asked);
void handovers_look(struct hw_hub *hub, uint64_t now); /* for answers */
void handovers_forget(struct hub_conn *conn);          /* of one that closes: it is not done */
/* The answer to our own. */
void handover_told(struct hub_conn *conn, const struct hw_hyperwal_handed *answer);

/* ------------------------------------------------------------------------------- host.c */

struct hw_peer_host hub_host(struct hw_hub *hub);
struct hub_link *link_find(const struct hub_conn *conn, const struct hub_log *log);
void link_remove(struct hub_link *link);

/* -------------------------------------------------------------------------------- log.c */

/* The log of this directory, or NULL; one that two names lead to is found by both. */
struct hub_log *log_find_dir(struct hw_hub *hub, const char *dir);
/*
 * A hub may serve a log and mirror it, too, for a cache of its own process.  Whom we dialed for a
 * mirror means that one; who comes in, what is served.
 */
struct hub_log *log_find_key(const struct hub_conn *conn, const uint8_t discovery_key[HW_KEY_SIZE]);
struct hub_log *log_find_name(struct hw_hub *hub, struct hw_slice name);
/* Not found under that name, or without a core: can it be one that cannot be read now? */
bool log_may_be_hidden(struct hw_hub *hub, struct hw_slice name);
struct hub_log *log_of(struct hw_hub *hub, const struct hw_replication *replication);
enum hw_status log_new(struct hw_hub *hub, const char *dir, struct hub_log **out,
                       struct hw_error *err) HW_MUST_CHECK;
void log_free(struct hub_log *log);
/* Give the log a core, which is moved if this succeeds. */
enum hw_status log_set_core(struct hub_log *log, struct hw_core *core, bool fetches,
                            struct hw_error *err) HW_MUST_CHECK;
/* The same for one that has a core, which is closed. */
enum hw_status log_replace_core(struct hub_log *log, struct hw_core *core,
                                struct hw_error *err) HW_MUST_CHECK;
void log_drop_core(struct hub_log *log); /* links are closed */
void log_close_links(struct hub_log *log);
void log_touch(struct hub_log *log);
bool log_is_behind(const struct hub_link *link);  /* the remote has, or says so, more of it */
void log_flush(struct hw_hub *hub, uint64_t now); /* all that were touched */
void log_timers(struct hw_hub *hub, uint64_t now);
void log_rang(struct hw_hub *hub, int watch);

/* ----------------------------------------------------------------------------- served.c */

/* Look at the directory of a log that is not our own mirror: is there more of it? */
void log_look(struct hub_log *log, uint64_t now);
/*
 * The file that is written anew when another log takes the place of this one, when the log gets a
 * higher fork, or is pruned.
 */
enum hw_status log_stat(struct hub_log *log, struct hw_file_stat *out,
                        struct hw_error *err) HW_MUST_CHECK;
/*
 * If the log goes on from another one that is kept beside it, that one is served as well, by its
 * key alone, and so is the one before that: for followers who have not got all of them.
 */
void log_serve_kept(struct hub_log *log);
/* A log was asked for that is not here: those that were kept and missing are looked for anew. */
void logs_seek_kept(struct hw_hub *hub);
uint64_t log_durable_limit(struct hw_shared_page *page); /* blocks that may be read */
void logs_poll(struct hw_hub *hub, uint64_t now);        /* for a hub without a thread */
void log_acknowledged(struct hub_link *link, const struct hw_ack *ack);
void log_unlinked(struct hub_link *link);
void log_urge(struct hub_link *link);
void log_urge_all(struct hub_log *log, uint64_t now);

/* ----------------------------------------------------------------------------- pruned.c */

/* The log's file was replaced: only because the log was pruned?  Then the links know by now. */
bool log_take_prune(struct hub_log *log);

/* -------------------------------------------------------------------------- overtaken.c */

/* A peer proved more of our log, whatever that means: looked at in overtaken_settle(). */
void log_overtaken(void *ctx, const struct hw_link *link, uint64_t fork, uint64_t length);
/* May drop the log's core. */
void overtaken_settle(struct hub_log *log, uint64_t now);

/* ----------------------------------------------------------------------------- mirror.c */

void mirror_arrived(void *ctx, uint64_t block);
void mirror_upgraded(void *ctx, uint64_t length);
void mirror_broken(void *ctx, const struct hw_error *err);
/* Publish, sync, acknowledge, wake; what is due at a later time is told to hub_timer(). */
void mirror_work(struct hw_mirror *mirror, uint64_t now);
void mirror_wake(struct hw_mirror *mirror); /* all who wait in it look again */
void mirrors_applied(struct hw_hub *hub);   /* touches those whose readers applied something */

/* ------------------------------------------------------------------------------ trust.c */

/* At the open: what of the blocks below `length` was checked in this boot? */
void trust_load(struct hw_mirror *mirror, uint64_t length);
void trust_note_lost(struct hw_mirror *mirror); /* a sync failed: for the next process */
void trust_lose(struct hw_mirror *mirror);      /* and the core was opened anew */
/* Move `complete` over blocks that must be read first, up to `end`.  False: not there yet. */
bool trust_check(struct hw_mirror *mirror, uint64_t end);

/* ----------------------------------------------------------------------------- source.c */

void source_dial_due(struct hw_mirror *mirror, uint64_t now);
void source_ready(struct hub_source *source);
/* Its answer to which log has the name; NULL: there will be none. */
void source_found(struct hub_source *source, const struct hw_hyperwal_found *answer);
/* It refused our log; false: let it live until it has told which one it calls by the name. */
bool source_rejected(struct hub_source *source);
void source_linked(struct hub_source *source);
/* Its connection is gone, or the dial failed. */
void source_lost(struct hub_source *source, const struct hw_error *why);
void sources_close(struct hw_mirror *mirror); /* for good */
/* Why there is no source, each with its reason. */
void source_problems(const struct hw_mirror *mirror, char *out, size_t size);

/* ------------------------------------------------------------------------------ query.c */

void query_ready(struct hub_query *query);
void query_end(struct hub_query *query, enum hw_status status, const struct hw_error *err);
/* The server does not know the name: ask it for those that it knows, and end with *err and them. */
void query_list(struct hub_query *query, const struct hw_error *err);
void query_named(struct hub_query *query, const struct hw_name_entry *entry); /* NULL: no more */

/* ------------------------------------------------------------------------------ writer.c */

/* A server says something to who writes through a mirror. */
enum hw_status writer_message(struct hub_link *link, const struct hw_write_message *message,
                              struct hw_error *err) HW_MUST_CHECK;
void writer_unlinked(struct hub_link *link);
void writer_sent(struct hub_conn *conn); /* there may be room for more */
void writer_due(struct hw_mirror *mirror, uint64_t now);

/* ------------------------------------------------------------------------------ writes.c */

/* A client says something of writing from afar.  A failure drops it. */
enum hw_status writes_message(struct hub_link *link, const struct hw_write_message *message,
                              struct hw_error *err) HW_MUST_CHECK;
/* It is gone, and its lease with it; or it may write no more, which who sends parts is told. */
void writes_unlinked(struct hub_link *link);
void writes_refused(struct hub_link *link, const char *why);
/*
 * Have the database open for a while, so that it has a worker: one that nobody writes rests, and
 * has none.  If it is not ours to open, somebody else has it.
 */
void writes_rouse(struct hub_log *log);
void writes_work(struct hub_log *log, uint64_t now); /* what is done, and what is due */
void writes_free(struct hub_writes *writes);         /* NULL does nothing */

/* ----------------------------------------------------------------------------- create.c */

/* A client wants a database: answered now, or when it was made. */
enum hw_status creation_asked(struct hub_conn *conn, const struct hw_hyperwal_create *create,
                              struct hw_error *err) HW_MUST_CHECK;
void creation_answered(struct hub_query *query, const struct hw_hyperwal_created *created);
void creations_forget(struct hub_conn *conn); /* it is gone */
void creations_release(struct hw_hub *hub);

/* ----------------------------------------------------------------------------- access.c */

/* What may this identity do with what is, or would be, served as `name`?  Bits of enum hw_right. */
unsigned access_rights(const struct hw_hub *hub, const uint8_t *key, struct hw_slice name);
/* With what is served here: what any of its names gives. */
unsigned access_rights_to_log(const struct hub_log *log, const uint8_t *key);
/* What may the remote of a connection do with what it calls `name`: a name, or a key in hex? */
unsigned access_rights_of_remote(const struct hub_conn *conn, struct hw_slice name);
/* May the remote come in at all?  HW_EREFUSED. */
enum hw_status access_enter(struct hub_conn *conn, struct hw_error *err) HW_MUST_CHECK;
/*
 * HW_EREFUSED, and a line in the log, unless the remote has this right to what it calls `name`,
 * whether we know it or not.
 */
enum hw_status access_demand(struct hub_conn *conn, struct hw_slice name, enum hw_right right,
                             struct hw_error *err) HW_MUST_CHECK;
/* May the remote have this log?  No: that was logged. */
bool access_may_link(struct hub_conn *conn, const struct hub_log *log);
void access_look(struct hw_hub *hub); /* read the file again if it is another one now */
void access_rang(struct hw_hub *hub, int watch);
void access_due(struct hw_hub *hub, uint64_t now); /* and tells hub_timer() */
void access_release(struct hub_access *access);

/* ------------------------------------------------------------------------------ state.c */

/* What a log is, as JSON, added to *out; the followers of others are for those with_peers only. */
void state_write(struct hub_log *log, struct hw_slice name, bool with_peers, struct hw_buffer *out);

#endif
