/*
 * node/cache_page.h - what the processes that have one cache open tell each other
 *
 * The file `cache` of 4096 bytes in the cache's directory, mapped by all; never synced, made anew
 * after a boot.  News are told by the shared page of the mirror beside it (env/shared_page.h), on
 * which everybody sleeps: the hub bumps it when blocks come, and who changes something here does.
 *
 *   byte 0  magic, version, byte order, boot id
 *       32  holder      process id of the one that fetches, fills and applies; 0: nobody
 *       36  phase       enum cache_phase, of the holder
 *       40  generation  bumped before the database is removed and made anew
 *       44  live        1: somebody wants the database, not the log alone
 *       48  hydrate     1: somebody wants all of it
 *       52  yield       process id of who asks for the holder's role; 0: nobody
 *       56  online      1: a source is connected
 *       60  failures    times that a holder could not begin
 *       64  since_ns    when `online` changed, ns since boot
 *       72  progress    bumped when something came: who waits goes on waiting
 *       80  length      of the log, blocks
 *       88  received    bytes of blocks that came to this holder
 *       96  turn        of the two texts
 *      100  writing     1: connections of the holder's process write, or wait for others who do
 *      128  requests    64 words: block + 1 in the upper 52 bits, how many are wanted in the lower
 *                       11, bit 11: cannot be had now.  0: free
 *     1024  texts       two of 480 bytes: what is wrong
 *
 * Private to node/.
 */
#ifndef HW_NODE_CACHE_PAGE_H
#define HW_NODE_CACHE_PAGE_H

#include <stdatomic.h>

#include "base/error.h"
#include "env/env.h"

enum { CACHE_PAGE_SIZE = 4096, CACHE_REQUESTS = 64, CACHE_REQUEST_AHEAD_MAX = 1024 };

enum cache_phase {
    CACHE_NOBODY,
    CACHE_STARTING, /* nothing is known of the log yet */
    CACHE_LOG,      /* its blocks can be asked for */
    CACHE_LIVE,     /* the database can be opened */
};

struct cache_page {
    uint8_t magic[8];
    uint8_t version[4];
    uint32_t order;
    uint8_t boot[16];
    _Atomic uint32_t holder, phase, generation, live, hydrate, yield, online, failures;
    _Atomic uint64_t since_ns, progress, length, received;
    _Atomic uint32_t turn, writing;
    uint8_t zeros[24];
    _Atomic uint64_t requests[CACHE_REQUESTS];
    uint8_t more_zeros[384];
    _Atomic uint64_t texts[2][HW_ERROR_SIZE / 8];
};

/* Map `dir`/cache, made if it is missing or of another boot. */
enum hw_status cache_page_open(struct hw_env *env, const char *dir, struct cache_page **out,
                               struct hw_error *err) HW_MUST_CHECK;
void cache_page_close(struct hw_env *env, struct cache_page *page); /* NULL does nothing */

/* What is wrong now; "" if nothing is.  One process at a time sets it. */
void cache_page_set_text(struct cache_page *page, const char *text);
void cache_page_text(const struct cache_page *page, char out[HW_ERROR_SIZE]);

/* A request of `count` blocks from `block` on, in a slot: HW_AGAIN if all are taken. */
enum hw_status cache_request_post(struct cache_page *page, uint64_t block, uint64_t count,
                                  unsigned *slot, uint64_t *word) HW_MUST_CHECK;
static inline uint64_t cache_request_block(uint64_t word)
{
    return (word >> 12) - 1;
}
static inline uint64_t cache_request_count(uint64_t word)
{
    return word & 0x7ff;
}
enum { CACHE_REQUEST_REFUSED = 0x800 };

#endif
