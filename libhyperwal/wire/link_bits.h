/*
 * wire/link_bits.h - which blocks the other side of a link has, as far as it told
 *
 *     0 ............ prefix | page | page | page ... | run   run     run ...
 *     has all of these      | none, all, or a bit a  | beyond HW_LINK_BITS_MAX:
 *                           | block of HW_BITS_PAGE  | has all of each
 *
 * Nothing of it is believed: it only says whom to ask.  Memory is bounded by 2048 pages and
 * HW_BITS_RUNS runs.  Of more runs the highest are remembered: a long log that was pruned has one,
 * which grows at its end.
 */
#ifndef HW_WIRE_LINK_BITS_H
#define HW_WIRE_LINK_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum {
    HW_BITS_PAGE = 32768, /* blocks: 4 KiB of bits */
    HW_BITS_RUNS = 32,
};

struct hw_bits_run {
    uint64_t start, end;
};
struct hw_link_bits { /* all-zero: it has nothing */
    uint64_t prefix;  /* blocks */
    uint32_t **pages; /* owned; NULL: none of them; a mark: all of them */
    uint32_t page_count;
    uint32_t run_count;
    struct hw_bits_run runs[HW_BITS_RUNS]; /* ascending, with gaps between them */
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
/*
 * Words of 32 bits, little endian, from block `start`, a multiple of 32.  Those of blocks beyond
 * HW_LINK_BITS_MAX are not looked at.
 */
enum hw_status hw_link_bits_put(struct hw_link_bits *bits, uint64_t start,
                                struct hw_slice words) HW_MUST_CHECK;

#endif
