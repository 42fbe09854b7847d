/* The state sum of entry/entry.h; the only file that knows xxHash. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"
#include "entry/entry.h"

uint64_t hw_page_sum(uint32_t page_number, const void *content, uint32_t page_size)
{
    XXH3_state_t state;
    uint8_t number[4];

    if (hw_entry_is_lock_page(page_number, page_size))
        return 0;
    hw_put_le32(number, page_number);
    /* Streaming hashes the concatenation without copying the page behind its number. */
    (void)XXH3_64bits_reset(&state);
    (void)XXH3_64bits_update(&state, number, sizeof(number));
    (void)XXH3_64bits_update(&state, content, page_size);
    return XXH3_64bits_digest(&state);
}
