/* Implements wire/wants.h. */
#include "wire/wants.h"

#include <string.h>

#include "base/alloc.h"

void hw_wants_release(struct hw_wants *wants)
{
    hw_free(wants->ranges);
    *wants = (struct hw_wants){.tail = UINT64_MAX};
}

void hw_wants_clear(struct hw_wants *wants)
{
    wants->count = 0;
}

/* The first range that ends at or after `block`. */
static size_t find(const struct hw_wants *wants, uint64_t block)
{
    size_t low = 0, high = wants->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (wants->ranges[middle].end < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum hw_status insert(struct hw_wants *wants, size_t at, struct hw_want range)
{
    if (wants->count == HW_WANTS_MAX)
        return HW_ELIMIT;
    if (wants->count == wants->capacity) {
        size_t capacity = wants->capacity == 0 ? 16 : 2 * wants->capacity;
        struct hw_want *ranges = hw_realloc(wants->ranges, capacity * sizeof(*ranges));

        if (ranges == NULL)
            return HW_ENOMEM;
        wants->ranges = ranges;
        wants->capacity = capacity;
    }
    memmove(wants->ranges + at + 1, wants->ranges + at,
            (wants->count - at) * sizeof(*wants->ranges));
    wants->ranges[at] = range;
    wants->count++;
    return HW_OK;
}

enum hw_status hw_wants_add(struct hw_wants *wants, uint64_t start, uint64_t end)
{
    size_t first = find(wants, start), last = first;

    if (start >= end)
        return HW_OK;
    while (last < wants->count && wants->ranges[last].start <= end) {
        if (wants->ranges[last].start < start)
            start = wants->ranges[last].start;
        if (wants->ranges[last].end > end)
            end = wants->ranges[last].end;
        last++;
    }
    if (first == last)
        return insert(wants, first, (struct hw_want){start, end});
    wants->ranges[first] = (struct hw_want){start, end};
    memmove(wants->ranges + first + 1, wants->ranges + last,
            (wants->count - last) * sizeof(*wants->ranges));
    wants->count -= last - first - 1;
    return HW_OK;
}

bool hw_wants_next(const struct hw_wants *wants, uint64_t from, uint64_t limit, struct hw_want *out)
{
    size_t at = find(wants, from);
    struct hw_want found = {UINT64_MAX, UINT64_MAX};

    if (at < wants->count && wants->ranges[at].end == from)
        at++;
    if (at < wants->count)
        found = wants->ranges[at];
    if (found.start < from)
        found.start = from;
    if (wants->tail != UINT64_MAX && (wants->tail <= found.start || from >= wants->tail)) {
        found.start = from > wants->tail ? from : wants->tail;
        found.end = UINT64_MAX;
    }
    if (found.end > limit)
        found.end = limit;
    if (found.start >= found.end)
        return false;
    *out = found;
    return true;
}

void hw_wants_keep(struct hw_wants *wants, bool (*needed)(void *ctx, struct hw_want range),
                   void *ctx)
{
    size_t kept = 0;

    for (size_t i = 0; i < wants->count; i++) {
        if (needed(ctx, wants->ranges[i]))
            wants->ranges[kept++] = wants->ranges[i];
    }
    wants->count = kept;
}
