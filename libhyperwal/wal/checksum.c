/* The running checksum of SQLite's WAL: two 32-bit sums over pairs of words. */
#include "wal/wal.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

struct pair {
    uint32_t first, second;
};

static inline struct pair load_pair(const uint8_t *bytes, bool swap)
{
    struct pair pair;

    memcpy(&pair, bytes, sizeof(pair)); /* callers give any alignment */
    if (swap) {
        pair.first = __builtin_bswap32(pair.first);
        pair.second = __builtin_bswap32(pair.second);
    }
    return pair;
}

/*
 * The sums depend on each other at each step, so what can be had early is added first: that leaves
 * one addition a word on the critical path.  `swap` is a constant at both call sites.
 */
static inline void checksum_words(const uint8_t *bytes, size_t size, bool swap, uint32_t sum[2])
{
    uint32_t s1 = sum[0], s2 = sum[1];
    const uint8_t *end = bytes + size;

    for (; end - bytes >= 32; bytes += 32) {
        for (size_t at = 0; at < 32; at += 8) {
            struct pair pair = load_pair(bytes + at, swap);
            s1 = (s1 + pair.first) + s2;
            s2 = (s2 + pair.second) + s1;
        }
    }
    for (; bytes < end; bytes += 8) {
        struct pair pair = load_pair(bytes, swap);
        s1 = (s1 + pair.first) + s2;
        s2 = (s2 + pair.second) + s1;
    }
    sum[0] = s1;
    sum[1] = s2;
}

void hw_wal_checksum(bool big_endian, const void *bytes, size_t size, uint32_t sum[2])
{
    assert(size % 8 == 0);
    if (big_endian == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__))
        checksum_words(bytes, size, false, sum);
    else
        checksum_words(bytes, size, true, sum);
}
