/* Page groups and snapshot indexes: `0 group or 1 index, u8 | seq, u8 | body`. */
#include <stdlib.h>
#include <string.h>

#include "entry/entry.h"
#include "fuzz/fuzz.h"

static struct hw_snapshot_group groups[HW_SNAPSHOT_GROUPS_MAX], again[HW_SNAPSHOT_GROUPS_MAX];

static void try_group(const uint8_t *bytes, size_t size, uint64_t seq)
{
    static uint8_t pages[HW_GROUP_PAGES * 512];
    static struct hw_group_coder *coder;
    struct hw_cursor cursor = hw_cursor(bytes, size);
    struct hw_group group;
    struct hw_error err;

    if (coder == NULL && hw_group_coder_new(&coder, &err) != HW_OK)
        return;
    if (hw_group_decode(coder, &cursor, seq, 512, &group, pages, &err) != HW_OK)
        return;
    if (group.base_seq >= seq || group.page_count == 0 || group.page_count > HW_GROUP_PAGES)
        abort(); /* a caller relies on it */
}

static void try_index(const uint8_t *bytes, size_t size, uint64_t seq)
{
    struct hw_cursor cursor = hw_cursor(bytes, size);
    struct hw_snapshot snapshot, second;
    struct hw_buffer buffer = {0};

    if (hw_snapshot_decode(&cursor, seq, &snapshot, groups) != HW_OK)
        return;
    for (uint32_t i = 0; i < snapshot.groups_here; i++)
        if (groups[i].block_seq >= seq || groups[i].base_seq > snapshot.greatest_base)
            abort(); /* a caller relies on it */
    /* What was taken can be written again, and means the same. */
    hw_snapshot_encode(&snapshot, seq, groups, &buffer);
    cursor = hw_cursor(buffer.bytes, buffer.size);
    if (buffer.failed || hw_snapshot_decode(&cursor, seq, &second, again) != HW_OK ||
        memcmp(groups, again, snapshot.groups_here * sizeof(*groups)) != 0)
        abort();
    hw_buffer_release(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 2)
        return 0;
    if (bytes[0] % 2 == 0)
        try_group(bytes + 2, size - 2, bytes[1]);
    else
        try_index(bytes + 2, size - 2, bytes[1]);
    return 0;
}
