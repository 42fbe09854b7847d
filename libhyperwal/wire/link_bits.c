/* Implements wire/link_bits.h. */
#include "wire/link_bits.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/replication.h"

enum { PAGE_WORDS = HW_BITS_PAGE / 32, PAGES_MAX = HW_LINK_BITS_MAX / HW_BITS_PAGE };

static uint32_t everything; /* its address marks a page of which all blocks are there */

static void page_free(uint32_t *page)
{
    if (page != &everything)
        hw_free(page);
}

void hw_link_bits_release(struct hw_link_bits *bits)
{
    for (uint32_t i = 0; i < bits->page_count; i++)
        page_free(bits->pages[i]);
    hw_free(bits->pages);
    *bits = (struct hw_link_bits){0};
}

static enum hw_status grow(struct hw_link_bits *bits, uint32_t page_count)
{
    uint32_t count = bits->page_count == 0 ? 8 : bits->page_count;
    uint32_t **pages;

    if (page_count <= bits->page_count)
        return HW_OK;
    while (count < page_count)
        count *= 2;
    pages = hw_realloc(bits->pages, count * sizeof(*pages));
    if (pages == NULL)
        return HW_ENOMEM;
    for (uint32_t i = bits->page_count; i < count; i++)
        pages[i] = NULL;
    bits->pages = pages;
    bits->page_count = count;
    return HW_OK;
}

/* Of a page that has bits of its own. */
static enum hw_status page_open(struct hw_link_bits *bits, uint32_t index, uint32_t **out)
{
    uint32_t *page = bits->pages[index];

    if (page == NULL || page == &everything) {
        uint32_t *made = hw_alloc(PAGE_WORDS * sizeof(*made));

        if (made == NULL)
            return HW_ENOMEM;
        memset(made, page == NULL ? 0 : 0xff, PAGE_WORDS * sizeof(*made));
        bits->pages[index] = page = made;
    }
    *out = page;
    return HW_OK;
}

/* ------------------------------------------------------------------------------------- runs */

/* The first run that ends after `block`. */
static uint32_t run_find(const struct hw_link_bits *bits, uint64_t block)
{
    uint32_t at = 0;

    while (at < bits->run_count && bits->runs[at].end <= block)
        at++;
    return at;
}

/* Put `run` in the place of the runs [first, last), all of which it is to replace. */
static void run_replace(struct hw_link_bits *bits, uint32_t first, uint32_t last,
                        struct hw_bits_run run)
{
    if (first == last && bits->run_count == HW_BITS_RUNS) { /* the lowest one is forgotten */
        if (first == 0)
            return;
        first--;
        memmove(bits->runs, bits->runs + 1, first * sizeof(*bits->runs));
        bits->runs[first] = run;
        return;
    }
    memmove(bits->runs + first + 1, bits->runs + last,
            (bits->run_count - last) * sizeof(*bits->runs));
    bits->runs[first] = run;
    bits->run_count = bits->run_count + 1 - (last - first);
}

static void runs_set(struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    uint32_t first = start > 0 ? run_find(bits, start - 1) : 0, last = first;

    for (; last < bits->run_count && bits->runs[last].start <= end; last++) {
        if (bits->runs[last].start < start)
            start = bits->runs[last].start;
        if (bits->runs[last].end > end)
            end = bits->runs[last].end;
    }
    run_replace(bits, first, last, (struct hw_bits_run){start, end});
}

static void runs_clear(struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    uint32_t first = run_find(bits, start), last;

    if (first < bits->run_count && bits->runs[first].start < start) {
        struct hw_bits_run cut = bits->runs[first];

        bits->runs[first++].end = start;
        if (cut.end > end) {
            run_replace(bits, first, first, (struct hw_bits_run){end, cut.end});
            return;
        }
    }
    last = first;
    while (last < bits->run_count && bits->runs[last].end <= end)
        last++;
    if (last < bits->run_count && bits->runs[last].start < end)
        bits->runs[last].start = end;
    memmove(bits->runs + first, bits->runs + last, (bits->run_count - last) * sizeof(*bits->runs));
    bits->run_count -= last - first;
}

static uint64_t runs_next(const struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    uint32_t at = run_find(bits, start);

    if (at < bits->run_count && bits->runs[at].start > start)
        start = bits->runs[at].start;
    return at < bits->run_count && start < end ? start : end;
}

/* ------------------------------------------------------------------------------------ pages */

bool hw_link_bits_has(const struct hw_link_bits *bits, uint64_t block)
{
    uint64_t index = block / HW_BITS_PAGE;
    const uint32_t *page;

    if (block < bits->prefix)
        return true;
    if (block >= HW_LINK_BITS_MAX)
        return runs_next(bits, block, block + 1) == block;
    if (index >= bits->page_count)
        return false;
    page = bits->pages[index];
    if (page == NULL || page == &everything)
        return page != NULL;
    return (page[block % HW_BITS_PAGE / 32] >> (block % 32) & 1) != 0;
}

/* In one page, from `start` to its end; HW_BITS_PAGE: none. */
static uint32_t page_next(const uint32_t *page, uint32_t start)
{
    uint32_t word = start / 32;
    uint32_t bits = page[word] & (UINT32_MAX << (start % 32));

    while (bits == 0) {
        if (++word == PAGE_WORDS)
            return HW_BITS_PAGE;
        bits = page[word];
    }
    return 32 * word + (uint32_t)__builtin_ctz(bits);
}

static uint64_t pages_next(const struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    while (start < end) {
        uint64_t index = start / HW_BITS_PAGE, base = index * HW_BITS_PAGE;
        const uint32_t *page;
        uint32_t found;

        if (index >= bits->page_count)
            return end;
        page = bits->pages[index];
        if (page == &everything)
            return start;
        found = page == NULL ? HW_BITS_PAGE : page_next(page, (uint32_t)(start - base));
        start = base + found;
        if (found < HW_BITS_PAGE)
            return start < end ? start : end;
    }
    return end;
}

uint64_t hw_link_bits_next(const struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    uint64_t pages_end = end < HW_LINK_BITS_MAX ? end : HW_LINK_BITS_MAX, found;

    if (start < bits->prefix)
        return start < end ? start : end;
    found = pages_next(bits, start, pages_end);
    return found < pages_end ? found : runs_next(bits, start, end);
}

/* ---------------------------------------------------------------------------------- changes */

/* Make blocks [start, end) of one page what `on` says. */
static enum hw_status page_fill(struct hw_link_bits *bits, uint32_t index, uint32_t start,
                                uint32_t end, bool on)
{
    uint32_t *page = bits->pages[index];
    enum hw_status status;

    if (page == (on ? &everything : NULL))
        return HW_OK;
    if (start == 0 && end == HW_BITS_PAGE) {
        page_free(page);
        bits->pages[index] = on ? &everything : NULL;
        return HW_OK;
    }
    status = page_open(bits, index, &page);
    if (status != HW_OK)
        return status;
    for (uint32_t i = start; i < end;) {
        uint32_t count = 32 - i % 32;
        uint32_t mask;

        if (count > end - i)
            count = end - i;
        mask = (count == 32 ? UINT32_MAX : (UINT32_C(1) << count) - 1) << (i % 32);
        page[i / 32] = on ? page[i / 32] | mask : page[i / 32] & ~mask;
        i += count;
    }
    return HW_OK;
}

static enum hw_status fill(struct hw_link_bits *bits, uint64_t start, uint64_t end, bool on)
{
    enum hw_status status = HW_OK;
    uint64_t limit = on ? HW_LINK_BITS_MAX : (uint64_t)bits->page_count * HW_BITS_PAGE;

    if (start < end && end > HW_LINK_BITS_MAX) {
        uint64_t first = start > HW_LINK_BITS_MAX ? start : HW_LINK_BITS_MAX;

        if (on)
            runs_set(bits, first, end);
        else
            runs_clear(bits, first, end);
    }
    if (end > limit)
        end = limit;
    if (start >= end)
        return HW_OK;
    status = grow(bits, (uint32_t)((end + HW_BITS_PAGE - 1) / HW_BITS_PAGE));
    while (start < end && status == HW_OK) {
        uint64_t index = start / HW_BITS_PAGE, base = index * HW_BITS_PAGE;
        uint64_t stop = end < base + HW_BITS_PAGE ? end : base + HW_BITS_PAGE;

        status =
            page_fill(bits, (uint32_t)index, (uint32_t)(start - base), (uint32_t)(stop - base), on);
        start = stop;
    }
    return status;
}

enum hw_status hw_link_bits_set(struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    if (start > bits->prefix)
        return fill(bits, start, end, true);
    if (end > bits->prefix)
        bits->prefix = end;
    return HW_OK;
}

enum hw_status hw_link_bits_clear(struct hw_link_bits *bits, uint64_t start, uint64_t end)
{
    if (start < bits->prefix) {
        uint64_t prefix = bits->prefix;
        enum hw_status status = HW_OK;

        if (end < prefix)
            status = fill(bits, end, prefix, true);
        bits->prefix = start; /* less than the truth if there was no memory */
        if (status != HW_OK)
            return status;
    }
    return fill(bits, start, end, false);
}

enum hw_status hw_link_bits_put(struct hw_link_bits *bits, uint64_t start, struct hw_slice words)
{
    uint64_t count = words.size / 4;
    enum hw_status status;

    assert(start % 32 == 0);
    if (start >= HW_LINK_BITS_MAX)
        return HW_OK;
    if (count > (HW_LINK_BITS_MAX - start) / 32)
        count = (HW_LINK_BITS_MAX - start) / 32;
    status = hw_link_bits_clear(bits, start, start + 32 * count);
    if (status != HW_OK)
        return status;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t word = hw_get_le32(words.bytes + 4 * i), *page;
        uint64_t block = start + 32 * i;

        if (word == 0)
            continue;
        if (word == UINT32_MAX) { /* a prefix, and whole pages, cost nothing */
            status = hw_link_bits_set(bits, block, block + 32);
        } else {
            status = grow(bits, (uint32_t)(block / HW_BITS_PAGE) + 1);
            if (status == HW_OK)
                status = page_open(bits, (uint32_t)(block / HW_BITS_PAGE), &page);
            if (status == HW_OK)
                page[block % HW_BITS_PAGE / 32] = word;
        }
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}
