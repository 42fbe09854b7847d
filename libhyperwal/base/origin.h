/*
 * base/origin.h - the id of a transaction that was written from afar
 *
 *     fence be64 | base be64 | log 4 | chance 4
 *
 * `fence` is the number of the lease under which it was sent (0: a server's own); `base` what it
 * was made on, a length of the log: the writer had applied the blocks below it and no others.  The
 * entry of the transaction in the log has the id; so the log says for ever whether it was
 * committed.  `log` is the beginning of that log's key: the database may have another log when it
 * is asked after, which cannot say so.
 */
#ifndef HW_BASE_ORIGIN_H
#define HW_BASE_ORIGIN_H

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"

enum {
    HW_ORIGIN_SIZE = 24,
    HW_ORIGIN_LOG_SIZE = 4,
    HW_ORIGIN_CHANCE_SIZE = 4,
    HW_ORIGIN_TEXT_SIZE = 2 * HW_ORIGIN_SIZE + 1,
};

struct hw_origin {
    uint8_t bytes[HW_ORIGIN_SIZE];
};

static inline uint64_t hw_origin_number(const uint8_t bytes[8])
{
    return (uint64_t)hw_get_be32(bytes) << 32 | hw_get_be32(bytes + 4);
}

static inline uint64_t hw_origin_fence(const struct hw_origin *origin)
{
    return hw_origin_number(origin->bytes);
}

static inline uint64_t hw_origin_base(const struct hw_origin *origin)
{
    return hw_origin_number(origin->bytes + 8);
}

/* Was it made for the log with this key? */
static inline bool hw_origin_is_of(const struct hw_origin *origin, const uint8_t *log_key)
{
    return memcmp(origin->bytes + 16, log_key, HW_ORIGIN_LOG_SIZE) == 0;
}

static inline struct hw_origin hw_origin_make(uint64_t fence, uint64_t base, const uint8_t *log_key,
                                              const uint8_t chance[HW_ORIGIN_CHANCE_SIZE])
{
    struct hw_origin origin;

    hw_put_be32(origin.bytes, (uint32_t)(fence >> 32));
    hw_put_be32(origin.bytes + 4, (uint32_t)fence);
    hw_put_be32(origin.bytes + 8, (uint32_t)(base >> 32));
    hw_put_be32(origin.bytes + 12, (uint32_t)base);
    memcpy(origin.bytes + 16, log_key, HW_ORIGIN_LOG_SIZE);
    memcpy(origin.bytes + 20, chance, HW_ORIGIN_CHANCE_SIZE);
    return origin;
}

#endif
