/* The pages of a batch: an open hash of page numbers over an array of pages. */
#include <assert.h>
#include <string.h>

#include "apply/replica_internal.h"
#include "base/alloc.h"

enum { EMPTY = 0 };

struct hw_overlay {
    uint32_t page_size, capacity;
    uint32_t count;     /* pages put, dropped ones too */
    uint32_t allocated; /* pages there is memory for */
    uint32_t slot_count;
    uint32_t *slots;   /* owned: index + 1 into the arrays below, or EMPTY */
    uint32_t *numbers; /* owned: page number, 0 if it was dropped */
    uint8_t *pages;    /* owned */
};

enum hw_status hw_overlay_new(uint32_t page_size, uint32_t capacity, struct hw_overlay **out,
                              struct hw_error *err)
{
    struct hw_overlay *overlay = hw_zalloc(sizeof(*overlay));

    assert(capacity > 0);
    if (overlay == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory for a batch");
    overlay->page_size = page_size;
    overlay->capacity = capacity;
    overlay->slot_count = 64;
    while (overlay->slot_count < 2 * capacity)
        overlay->slot_count *= 2;
    overlay->slots = hw_zalloc(overlay->slot_count * sizeof(*overlay->slots));
    overlay->numbers = hw_alloc(capacity * sizeof(*overlay->numbers));
    if (overlay->slots == NULL || overlay->numbers == NULL) {
        hw_overlay_free(overlay);
        return hw_fail(err, HW_ENOMEM, "replica: no memory for a batch");
    }
    *out = overlay;
    return HW_OK;
}

void hw_overlay_free(struct hw_overlay *overlay)
{
    if (overlay == NULL)
        return;
    hw_free(overlay->slots);
    hw_free(overlay->numbers);
    hw_free(overlay->pages);
    hw_free(overlay);
}

void hw_overlay_clear(struct hw_overlay *overlay)
{
    if (overlay->count > 0)
        memset(overlay->slots, 0, overlay->slot_count * sizeof(*overlay->slots));
    overlay->count = 0;
}

uint32_t hw_overlay_count(const struct hw_overlay *overlay)
{
    return overlay->count;
}

uint32_t hw_overlay_room(const struct hw_overlay *overlay)
{
    return overlay->capacity - overlay->count;
}

/* The slot of the page, or the free one where it belongs. */
static uint32_t slot_find(const struct hw_overlay *overlay, uint32_t page_number)
{
    uint32_t mask = overlay->slot_count - 1;
    uint32_t slot = page_number * 2654435761U & mask;

    while (overlay->slots[slot] != EMPTY &&
           overlay->numbers[overlay->slots[slot] - 1] != page_number)
        slot = (slot + 1) & mask; /* ends: at most half of the slots are taken */
    return slot;
}

const uint8_t *hw_overlay_find(const struct hw_overlay *overlay, uint32_t page_number)
{
    uint32_t slot = slot_find(overlay, page_number);

    if (overlay->slots[slot] == EMPTY)
        return NULL;
    return overlay->pages + (size_t)(overlay->slots[slot] - 1) * overlay->page_size;
}

enum hw_status hw_overlay_reserve(struct hw_overlay *overlay, uint32_t count, struct hw_error *err)
{
    uint32_t needed = overlay->count + count, wanted = overlay->allocated;
    uint8_t *pages;

    assert(count <= hw_overlay_room(overlay));
    if (needed <= overlay->allocated)
        return HW_OK;
    if (wanted == 0)
        wanted = 8;
    while (wanted < needed)
        wanted *= 2;
    if (wanted > overlay->capacity)
        wanted = overlay->capacity;
    pages = hw_realloc(overlay->pages, (size_t)wanted * overlay->page_size);
    if (pages == NULL)
        return hw_fail(err, HW_ENOMEM, "replica: no memory for %u pages", (unsigned)wanted);
    overlay->pages = pages;
    overlay->allocated = wanted;
    return HW_OK;
}

void hw_overlay_put(struct hw_overlay *overlay, uint32_t page_number, const void *content)
{
    uint32_t slot = slot_find(overlay, page_number);

    assert(page_number > 0);
    if (overlay->slots[slot] == EMPTY) {
        assert(overlay->count < overlay->allocated);
        overlay->numbers[overlay->count++] = page_number;
        overlay->slots[slot] = overlay->count;
    }
    memcpy(overlay->pages + (size_t)(overlay->slots[slot] - 1) * overlay->page_size, content,
           overlay->page_size);
}

void hw_overlay_drop_above(struct hw_overlay *overlay, uint32_t page_count)
{
    for (uint32_t i = 0; i < overlay->count; i++) {
        if (overlay->numbers[i] > page_count)
            overlay->numbers[i] = 0; /* its slot stays taken, so that others are still found */
    }
}

uint32_t hw_overlay_page(const struct hw_overlay *overlay, uint32_t i, const uint8_t **content)
{
    assert(i < overlay->count);
    *content = overlay->pages + (size_t)i * overlay->page_size;
    return overlay->numbers[i];
}
