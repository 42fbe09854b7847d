/*
 * wire/replication_internal.h - what the files of the replication share
 *
 *   replication.c    the log's side: wants, what changed, time
 *   link.c           a link: opening, what the remote says of itself
 *   link_serve.c     the remote's requests and wants, answered
 *   link_push.c      new blocks and lengths, told to those who did not ask
 *   link_fetch.c     our requests: what to ask whom, what takes too long
 *   link_data.c      answers to them, and blocks that came unasked
 *   link_reorg.c     a remote with a higher fork
 *   link_overtaken.c a remote that has more of a log of ours than we have
 *
 * A link whose sink failed, or whose remote has to go, is doomed: nothing more is sent to it, and
 * hw_link_receive() or hw_replication_tick() tells its owner.
 */
#ifndef HW_WIRE_REPLICATION_INTERNAL_H
#define HW_WIRE_REPLICATION_INTERNAL_H

#include "wire/link_bits.h"
#include "wire/replication.h"
#include "wire/wants.h"

#define HW_MS UINT64_C(1000000) /* nanoseconds */

enum {
    HW_URGENT_MAX = 4096,     /* blocks that somebody waits for */
    HW_REMOTE_WANTS_MAX = 64, /* ranges a remote may want to hear of */
    HW_WANT_BLOCKS = 1 << 21, /* blocks of the ranges that JavaScript peers want, and we too */
    HW_WANT_PAGES = HW_LINK_BITS_MAX / HW_WANT_BLOCKS,
    HW_WINDOW_START = 16,      /* requests in flight, at first */
    HW_WINDOW_MAX = 56,        /* the rest up to HW_LINK_IN_FLIGHT is for what is urgent */
    HW_WINDOW_BYTES = 4 << 20, /* of blocks in flight, as far as their size can be guessed */
    HW_REQUEST_MS = 10000,     /* then another link is asked */
    HW_REQUEST_MAX_MS = 60000, /* then too, even if the link answers other requests */
    HW_URGENT_MS = 2000,       /* then another link is asked as well */
    HW_LINK_SILENT_MS = 30000, /* no answer: dropped if there is another link */
    HW_LINK_DEAD_MS = 120000,  /* and even if there is none */
    HW_WANT_ANSWER_MS = 2000,  /* a want that is not answered by then will not be */
    HW_BROKEN_MS = 1000,       /* until our disk is tried again */
    HW_INVALID_MAX = 256,      /* requests and cancels without sense; more: drop */
    HW_USELESS_MAX = 1024,     /* answers to nothing; more: drop */
};

enum hw_request_kind {
    HW_ASKED_NOTHING, /* the place is free */
    HW_ASKED_BLOCK,
    HW_ASKED_UPGRADE,
    HW_ASKED_MANIFEST,
    HW_ASKED_REORG,
    HW_ASKED_PROOF,   /* of more than a log of ours has */
    HW_ASKED_HISTORY, /* of one that does not continue our own */
};
struct hw_link_request { /* one of ours */
    enum hw_request_kind kind;
    uint64_t id, fork;
    uint64_t block;
    uint64_t start, length; /* of an upgrade */
    uint64_t sent_ns;
};

struct hw_link {
    struct hw_replication *replication;
    struct hw_link *next;
    struct hw_link_sink sink;
    bool is_doomed;
    struct hw_error doom;

    /* What the remote told of itself. */
    bool is_synced; /* its first Sync came */
    struct hw_message_sync remote;
    uint64_t remote_length; /* of its Sync, or of what it pushed since */
    struct hw_link_bits bits;

    /* What we asked of it. */
    struct hw_link_request requests[HW_LINK_IN_FLIGHT];
    unsigned in_flight, window, answers;
    uint64_t cursor;           /* nothing below it is to be asked of this link */
    uint64_t idle_length;      /* below it there is nothing to ask of this link; UINT64_MAX: look */
    uint64_t answer_ns;        /* how long it takes to answer, smoothed */
    uint64_t last_answer_ns;   /* when */
    uint64_t waiting_since_ns; /* for any answer; 0: it owes none */
    uint64_t refused_length;   /* its length when it would not prove it */
    uint64_t late_length;      /* and when it did not in time */
    bool manifest_asked;
    uint32_t wants_sent, wants_answered; /* a bit a range of HW_WANT_BLOCKS */
    uint64_t want_sent_ns;
    unsigned useless;
    unsigned fork_claims;    /* of a higher fork that it did not show */
    uint64_t proof_asked_ns; /* of more than a log of ours has; 0: never */
    bool is_suspect;         /* what it said is false, or it has another history */
    struct hw_error suspicion;

    /* What it asked of us. */
    struct hw_proof_request *queue; /* owned, a ring; the capacity is a power of two */
    uint32_t queue_capacity, queue_first, queue_count;
    unsigned cancels_left; /* of requests that came, and were not cancelled */
    struct hw_message_want wants[HW_REMOTE_WANTS_MAX]; /* to be answered, in order */
    unsigned want_count;
    struct hw_want interests[HW_REMOTE_WANTS_MAX]; /* to be kept posted on */
    unsigned interest_count;
    unsigned invalid;

    /* What we tell it unasked. */
    bool is_live;
    uint64_t level;      /* live: the length of its tree, once it has read what was sent */
    uint64_t push_base;  /* live: and before the last upgrade that was pushed */
    uint64_t push_next;  /* live: the block after the last one pushed */
    uint64_t announced;  /* blocks below were announced */
    bool announce_due;   /* its output was full when there was something to tell */
    bool sync_due;       /* it pushed: tell it our length, but not each time */
    struct hw_want news; /* blocks that arrived, to be told in one Range */

    uint64_t blocks_sent, blocks_received, bytes_sent, bytes_received;
};

struct hw_reorg_work {    /* one at a time */
    struct hw_link *link; /* NULL: none is under way */
    bool has_begun;
    unsigned steps;
    struct hw_reorg reorg;
    struct hw_proof first; /* owned: the answer that began it */
};

struct hw_replication {
    struct hw_replication_options options;
    struct hw_link *links; /* owned by whoever opened them */
    uint64_t fork, length; /* of the core, as it was announced */
    uint64_t contiguous;   /* blocks from 0 on that are surely held */
    uint64_t whole_from;   /* a log of ours: all blocks from here on are held */
    bool has_manifest;
    uint64_t next_id;
    struct hw_link *upgrading; /* whom the upgrade under way was asked of; NULL: none */
    struct hw_reorg_work work;
    struct hw_link *proving;   /* of whom HW_ASKED_PROOF was asked; NULL: of nobody */
    struct hw_core_head shown; /* the most that was proven beyond our own: fork and length */

    struct hw_wants wants;
    uint64_t *urgent; /* owned, in the order of asking */
    unsigned urgent_count, urgent_capacity;
    uint64_t block_size; /* bytes, smoothed */
    bool scan_goes_on;   /* the search for blocks to ask for stopped in the middle */
    uint64_t broken_until_ns;

    struct hw_buffer scratch; /* messages are encoded here */
    struct hw_push_cache {    /* the last push, as it was encoded */
        bool has_block, has_upgrade;
        uint64_t block, levels, start, length;
        struct hw_buffer bytes; /* empty: none */
    } pushed;
};

static inline uint64_t hw_replication_now(const struct hw_replication *replication)
{
    return replication->options.env->ops->monotonic_ns(replication->options.env);
}

/* ------------------------------------------------------------------------------ link.c */

/* Send what is in `message`; nothing happens on a doomed link, a failure dooms it. */
void hw_link_send(struct hw_link *link, enum hw_message_type type, const struct hw_buffer *message);
void hw_link_doom(struct hw_link *link, const struct hw_error *err);
bool hw_link_output_is_full(struct hw_link *link);
void hw_link_send_sync(struct hw_link *link);
void hw_link_send_range(struct hw_link *link, uint64_t start, uint64_t length, bool drop);

/* ------------------------------------------------------------------------ link_serve.c */

enum hw_status hw_link_on_request(struct hw_link *link, struct hw_slice payload,
                                  struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_link_on_cancel(struct hw_link *link, struct hw_slice payload,
                                 struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_link_on_want(struct hw_link *link, struct hw_slice payload, bool is_unwant,
                               struct hw_error *err) HW_MUST_CHECK;
/* Answer what is queued while there is room in the output, and some of the wants. */
enum hw_status hw_link_answer(struct hw_link *link, struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------- link_push.c */

/* Tell the remote what we have, and how long we are: at the opening, and when we grew. */
void hw_link_announce(struct hw_link *link);
/* It has our tree: from now on what is new goes to it unasked. */
void hw_link_go_live(struct hw_link *link, uint64_t level);
/* The core has grown: push, or announce.  `from`: the link it came by, NULL: by our own doing. */
void hw_replication_tell_grown(struct hw_replication *replication, struct hw_link *from);
/* Blocks [start, end) are not held, whatever was thought. */
void hw_replication_lacks(struct hw_replication *replication, uint64_t start, uint64_t end);
/* A block arrived by `from`: push it, or announce it. */
void hw_replication_tell_block(struct hw_replication *replication, struct hw_link *from,
                               uint64_t block);
/* What was put off to be told once. */
void hw_link_flush(struct hw_link *link);
/* Is there something to flush? */
bool hw_link_has_news(const struct hw_link *link);

/* ------------------------------------------------------------------------ link_fetch.c */

/* Ask all links for what is missing. */
void hw_replication_fetch(struct hw_replication *replication);
/* A link that may be asked for what it has: it is of our fork and serves. */
bool hw_link_is_source(const struct hw_link *link);
/* Make room for a request; NULL: too many are in flight.  hw_link_ask() sends it. */
struct hw_link_request *hw_link_request_new(struct hw_link *link, enum hw_request_kind kind);
void hw_link_ask(struct hw_link *link, struct hw_link_request *request,
                 struct hw_proof_request *message);
/* It did not prove its length in time: it is asked again when nobody else can be. */
bool hw_link_is_late(const struct hw_link *link);
/* The place is free.  Unless it is answered, what it asked for may be asked again. */
void hw_link_request_end(struct hw_link *link, struct hw_link_request *request, bool is_answered);
/* Blocks from `block` on are looked at again: by all links, by one. */
void hw_replication_rewind(struct hw_replication *replication, uint64_t block);
void hw_link_rewind(struct hw_link *link, uint64_t block);
bool hw_replication_is_in_flight(const struct hw_replication *replication, uint64_t block);
/* Requests that wait too long.  *deadline_ns is lowered to when to look again. */
void hw_link_check_time(struct hw_link *link, uint64_t now_ns, uint64_t *deadline_ns);

/* ------------------------------------------------------------------------- link_data.c */

enum hw_status hw_link_on_data(struct hw_link *link, struct hw_slice payload,
                               struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_link_on_no_data(struct hw_link *link, struct hw_slice payload,
                                  struct hw_error *err) HW_MUST_CHECK;

/* ------------------------------------------------------------------------ link_reorg.c */

/* Begin with the highest of the links that are on a fork above ours. */
void hw_replication_reorg(struct hw_replication *replication);
enum hw_status hw_link_on_reorg_data(struct hw_link *link, struct hw_proof *proof,
                                     struct hw_error *err) HW_MUST_CHECK;
/* May it have a higher fork, and be asked for that? */
bool hw_link_is_above(const struct hw_link *link);
/* The remote would not answer: take what is certain. */
enum hw_status hw_link_on_reorg_refused(struct hw_link *link, struct hw_error *err) HW_MUST_CHECK;
void hw_replication_reorg_end(struct hw_replication *replication);

/* -------------------------------------------------------------------- link_overtaken.c */

/* Ask one of those who claim to have more of our log than we have, if it is time. */
void hw_replication_doubt(struct hw_replication *replication, uint64_t now_ns,
                          uint64_t *deadline_ns);
/* What it answered; the request has ended. */
enum hw_status hw_link_on_proof(struct hw_link *link, const struct hw_link_request *request,
                                const struct hw_proof *proof, struct hw_error *err) HW_MUST_CHECK;
/*
 * Its upgrade does not continue what we have, which is `why`: is it false, or signed all the same?
 * Nothing else is asked of it any more.
 */
enum hw_status hw_link_suspect(struct hw_link *link, const struct hw_error *why,
                               struct hw_error *err) HW_MUST_CHECK;
/* Its answer, NULL: none.  HW_EFORK: signed, and not ours.  HW_EPROOF.  HW_ENOMEM. */
enum hw_status hw_link_on_history(struct hw_link *link, const struct hw_proof *proof,
                                  struct hw_error *err) HW_MUST_CHECK;

#endif
