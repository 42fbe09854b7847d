/*
 * wire/message.h - the messages of the channel hypercore/alpha, one after the other as bytes
 *
 * Request and Data are in hypercore/proof.h, since they carry proofs.  The others are here.
 * Trailing bytes are ignored, as newer peers may add some.  Source: hypercore 11.37.
 */
#ifndef HW_WIRE_MESSAGE_H
#define HW_WIRE_MESSAGE_H

#include "base/buffer.h"
#include "base/error.h"

#define HW_CORE_PROTOCOL       "hypercore/alpha"
#define HW_CORE_PROTOCOL_ALIAS "hypercore"

enum hw_message_type {
    HW_MESSAGE_SYNC,
    HW_MESSAGE_REQUEST,
    HW_MESSAGE_CANCEL,
    HW_MESSAGE_DATA,
    HW_MESSAGE_NO_DATA,
    HW_MESSAGE_WANT,
    HW_MESSAGE_UNWANT,
    HW_MESSAGE_BITFIELD,
    HW_MESSAGE_RANGE,
    HW_MESSAGE_EXTENSION,
};

struct hw_message_sync {
    bool can_upgrade, is_uploading, is_downloading, has_manifest, allows_push;
    uint64_t fork, length, remote_length;
};
enum { HW_REASON_NONE, HW_REASON_NOT_AVAILABLE, HW_REASON_INVALID };
struct hw_message_no_data {
    uint64_t request, reason;
};
struct hw_message_want { /* and unwant */
    uint64_t start, length;
    bool any; /* one block of the range is enough */
};
struct hw_message_bitfield {
    uint64_t start;        /* block, a multiple of 32 */
    struct hw_slice words; /* 4 bytes each, little endian; borrowed from the payload */
};
struct hw_message_range {
    bool drop; /* no longer held */
    uint64_t start, length;
};
struct hw_handshake { /* of the channel */
    bool has_seeks;
    uint8_t capability[32];
};

void hw_message_sync_encode(const struct hw_message_sync *sync, struct hw_buffer *out);
void hw_message_no_data_encode(const struct hw_message_no_data *no_data, struct hw_buffer *out);
void hw_message_want_encode(const struct hw_message_want *want, struct hw_buffer *out);
void hw_message_bitfield_encode(uint64_t start, const uint32_t *words, size_t count,
                                struct hw_buffer *out);
void hw_message_range_encode(const struct hw_message_range *range, struct hw_buffer *out);
void hw_handshake_encode(const struct hw_handshake *handshake, struct hw_buffer *out);

/* All: HW_EPROTOCOL. */
enum hw_status hw_message_sync_decode(struct hw_slice payload, struct hw_message_sync *out,
                                      struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_message_cancel_decode(struct hw_slice payload, uint64_t *request,
                                        struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_message_no_data_decode(struct hw_slice payload, struct hw_message_no_data *out,
                                         struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_message_want_decode(struct hw_slice payload, struct hw_message_want *out,
                                      struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_message_bitfield_decode(struct hw_slice payload, struct hw_message_bitfield *out,
                                          struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_message_range_decode(struct hw_slice payload, struct hw_message_range *out,
                                       struct hw_error *err) HW_MUST_CHECK;
enum hw_status hw_handshake_decode(struct hw_slice bytes, struct hw_handshake *out,
                                   struct hw_error *err) HW_MUST_CHECK;

/*
 * What proves on this connection that the sender knows the core's key.  `is_initiator`: the sender
 * is the one who connected.
 */
void hw_capability(bool is_initiator, const uint8_t handshake_hash[64], const uint8_t key[32],
                   uint8_t out[32]);

#endif
