/*
 * wire/hyperwal_channel.h - what hyperwal peers say beyond Hypercore: names, state, acks
 *
 * Two kinds of channel of the protocol "hyperwal/1", beside hypercore/alpha on the same connection:
 *
 *   id empty          one a connection: names and states of what the remote serves
 *   id discovery key  one a log: how far a follower is; only where the log's hypercore channel is
 *                     open already, which has proven the key
 *
 * handshake   version uint 1 | flags uint 0 | replica id 16 (zeros: not a replica)
 *
 *   connection  0 lookup   request uint | name string
 *               1 found    request uint | status uint (0 found, 1 unknown, 2 refused) | key 32 if 0
 *               2 list     request uint
 *               3 names    request uint | count uint | (name string | key 32)...
 *               4 ask      request uint | name string
 *               5 state    request uint | status uint | JSON object, a string, if 0
 *               6 create   request uint | name string | page size uint, 0: as the server likes
 *               7 created  request uint | status uint | key 32 if 0, else why string
 *               8 handover request uint | name string | key 32
 *               9 handed   request uint | status uint (0 to 2 as found; 3 it could not be done) |
 *                          seq uint, if 0 | why not, a string, if 3
 *   log         0 ack      received uint | durable uint | applied uint       lengths: seq + 1
 *               1 urge     flags uint: 1 durability is waited for: sync what comes at once
 *
 * Messages in and out as bytes; trailing bytes are ignored, unknown types too.
 */
#ifndef HW_WIRE_HYPERWAL_CHANNEL_H
#define HW_WIRE_HYPERWAL_CHANNEL_H

#include "base/buffer.h"
#include "base/error.h"
#include "hypercore/hypercore.h"

#define HW_HYPERWAL_PROTOCOL "hyperwal/1"

enum { HW_REPLICA_ID_SIZE = 16, HW_NAMES_MAX = 4096, HW_STATE_TEXT_MAX = 512 << 10 };
enum { HW_CREATE_WHY_MAX = 200 }; /* bytes */
enum { HW_HANDED_TEXT_MAX = 300 };

enum hw_hyperwal_type {
    HW_HYPERWAL_LOOKUP,
    HW_HYPERWAL_FOUND,
    HW_HYPERWAL_LIST,
    HW_HYPERWAL_NAMES,
    HW_HYPERWAL_ASK,
    HW_HYPERWAL_STATE,
    HW_HYPERWAL_CREATE,
    HW_HYPERWAL_CREATED,
    HW_HYPERWAL_HANDOVER,
    HW_HYPERWAL_HANDED,
};
enum hw_hyperwal_log_type { HW_HYPERWAL_ACK, HW_HYPERWAL_URGE };

enum hw_lookup_status { HW_LOOKUP_FOUND, HW_LOOKUP_UNKNOWN, HW_LOOKUP_REFUSED };

struct hw_hyperwal_handshake {
    uint64_t version, flags;
    uint8_t replica_id[HW_REPLICA_ID_SIZE];
};
struct hw_hyperwal_query { /* lookup, ask; list has no name */
    uint64_t request;
    struct hw_slice name; /* borrowed from the payload */
};
struct hw_hyperwal_found {
    uint64_t request;
    enum hw_lookup_status status;
    uint8_t key[HW_KEY_SIZE];
};
struct hw_hyperwal_state {
    uint64_t request;
    enum hw_lookup_status status;
    struct hw_slice json; /* borrowed from the payload */
};
struct hw_hyperwal_create {
    uint64_t request;
    struct hw_slice name; /* borrowed from the payload */
    uint32_t page_size;   /* bytes; 0: as the server likes */
};
enum hw_create_status {
    HW_CREATE_MADE,
    HW_CREATE_EXISTS,  /* a database has that name */
    HW_CREATE_REFUSED, /* no right, or the server makes none for anybody */
    HW_CREATE_BAD,     /* no name or page size for a database */
    HW_CREATE_FAILED,  /* disk, limits */
};
struct hw_hyperwal_created {
    uint64_t request;
    enum hw_create_status status;
    uint8_t key[HW_KEY_SIZE];
    struct hw_slice why; /* borrowed from the payload; unless it was made */
};
/* The log that you call `name` is to end: the one with `key` goes on. */
struct hw_hyperwal_handover {
    uint64_t request;
    struct hw_slice name; /* borrowed from the payload */
    uint8_t key[HW_KEY_SIZE];
};
struct hw_hyperwal_handed {
    uint64_t request;
    enum { HW_HANDED_DONE, HW_HANDED_UNKNOWN, HW_HANDED_REFUSED, HW_HANDED_FAILED } status;
    uint64_t seq;         /* of the last block, the switch; if done */
    struct hw_slice text; /* why not, if it failed; borrowed from the payload */
};
struct hw_ack { /* blocks: a length covers all seqs below it */
    uint64_t received, durable, applied;
};
struct hw_name_entry {
    struct hw_slice name; /* borrowed */
    uint8_t key[HW_KEY_SIZE];
};

void hw_hyperwal_handshake_encode(const struct hw_hyperwal_handshake *handshake,
                                  struct hw_buffer *out);
void hw_hyperwal_query_encode(const struct hw_hyperwal_query *query, bool has_name,
                              struct hw_buffer *out);
void hw_hyperwal_found_encode(const struct hw_hyperwal_found *found, struct hw_buffer *out);
void hw_hyperwal_state_encode(const struct hw_hyperwal_state *state, struct hw_buffer *out);
void hw_hyperwal_create_encode(const struct hw_hyperwal_create *create, struct hw_buffer *out);
/* A reason that is too long is cut. */
void hw_hyperwal_created_encode(const struct hw_hyperwal_created *created, struct hw_buffer *out);
void hw_hyperwal_names_begin(uint64_t request, size_t count, struct hw_buffer *out);
void hw_hyperwal_names_add(const struct hw_name_entry *entry, struct hw_buffer *out);
void hw_hyperwal_handover_encode(const struct hw_hyperwal_handover *handover,
                                 struct hw_buffer *out);
void hw_hyperwal_handed_encode(const struct hw_hyperwal_handed *handed, struct hw_buffer *out);
void hw_ack_encode(const struct hw_ack *ack, struct hw_buffer *out);
void hw_urge_encode(bool durable, struct hw_buffer *out);

/* All: HW_EPROTOCOL; HW_EVERSION for a handshake of another version: that ends only the channel. */
enum hw_status hw_hyperwal_handshake_decode(struct hw_slice bytes,
                                            struct hw_hyperwal_handshake *out,
                                            struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_query_decode(struct hw_slice payload, bool has_name,
                                        struct hw_hyperwal_query *out,
                                        struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_found_decode(struct hw_slice payload, struct hw_hyperwal_found *out,
                                        struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_state_decode(struct hw_slice payload, struct hw_hyperwal_state *out,
                                        struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_create_decode(struct hw_slice payload, struct hw_hyperwal_create *out,
                                         struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_created_decode(struct hw_slice payload, struct hw_hyperwal_created *out,
                                          struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_names_decode(struct hw_slice payload, uint64_t *request, size_t *count,
                                        struct hw_cursor *entries,
                                        struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_names_next(struct hw_cursor *entries, struct hw_name_entry *out,
                                      struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_handover_decode(struct hw_slice payload,
                                           struct hw_hyperwal_handover *out,
                                           struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_hyperwal_handed_decode(struct hw_slice payload, struct hw_hyperwal_handed *out,
                                         struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_ack_decode(struct hw_slice payload, struct hw_ack *out,
                             struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_urge_decode(struct hw_slice payload, bool *durable,
                              struct hw_error *err) HW_MUST_CHECK;

#endif
