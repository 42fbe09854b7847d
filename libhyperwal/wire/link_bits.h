/*
 * wire/link_bits.h - which blocks the other side of a link has, as far as it told
 *
 *     0 ............ prefix | page | page | page ...       2048 pages of HW_BITS_PAGE blocks
 *     has all of these      | none, all, or a bit a block
 *
 * Nothing of it is believed: it only says whom to ask.  Memory is bounded by the pages; of what
 * lies beyond them only the prefix is remembered.
 */
#ifndef HW_WIRE_LINK_BITS_H
#define HW_WIRE_LINK_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum { HW_BITS_PAGE = 32768 }; /* blocks: 4 KiB of bits */

struct hw_link_bits { /* all-zero: it has nothing */
    uint64_t prefix;  /* blocks */
    uint32_t **pages; /* owned; NULL: none of them; a mark: all of them */
    uint32_t page_count;
};

void hw_link_bits_release(struct hw_link_bits *bits);
bool hw_link_bits_has(const struct hw_link_bits *bits, uint64_t block);
/* The first block in [start, end) that it has; `end` if there is none. */
uint64_t hw_link_bits_next(const struct hw_link_bits *bits, uint64_t start, uint64_t end);
/* Blocks [start, end) it has, or has not any more.  HW_ENOMEM: what is known is still true. */
enum hw_status hw_link_bits_set(struct hw_link_bits *bits, uint64_t start,
                                uint64_t end) HW_MUST_CHECK;
enum hw_status hw_link_bits_clear(struct hw_link_bits *bits, uint64_t start,
                                  uint64_t end) HW_MUST_CHECK;
/* Words of 32 bits, little endian, from block `start`, a multiple of 32. */
enum hw_status hw_link_bits_put(struct hw_link_bits *bits, uint64_t start,
                                struct hw_slice words) HW_MUST_CHECK;

#endif
