/*
 * wire/wants.h - blocks that are wanted: disjoint ranges in order, and all from some block on
 */
#ifndef HW_WIRE_WANTS_H
#define HW_WIRE_WANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { HW_WANTS_MAX = 4096 }; /* ranges */

struct hw_want { /* blocks [start, end) */
    uint64_t start, end;
};
struct hw_wants {           /* all-zero but for the tail: nothing is wanted */
    struct hw_want *ranges; /* owned */
    size_t count, capacity;
    uint64_t tail; /* and all from here on; UINT64_MAX: none */
};

void hw_wants_release(struct hw_wants *wants);
/* HW_ENOMEM, HW_ELIMIT. */
enum hw_status hw_wants_add(struct hw_wants *wants, uint64_t start, uint64_t end) HW_MUST_CHECK;
void hw_wants_clear(struct hw_wants *wants); /* all but the tail */
/* The first range that begins at or after `from`, or its rest from there, below `limit`. */
bool hw_wants_next(const struct hw_wants *wants, uint64_t from, uint64_t limit,
                   struct hw_want *out);
/* Forget the ranges of which `needed` says no. */
void hw_wants_keep(struct hw_wants *wants, bool (*needed)(void *ctx, struct hw_want range),
                   void *ctx);

#endif
