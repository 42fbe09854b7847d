/* A whole block as it lies in a log: `seq, u8 | block`. */
#include <stdlib.h>

#include "entry/entry.h"
#include "fuzz/fuzz.h"

static void try_body(const struct hw_entry_header *header, struct hw_cursor *cursor, uint64_t seq)
{
    struct hw_transaction transaction;
    struct hw_snapshot snapshot;
    struct hw_group group;

    /* The numbers alone, as a walk over the log reads them from the first bytes of a block. */
    if (header->type == HW_ENTRY_TRANSACTION) {
        if (hw_transaction_peek(cursor, 4096, &transaction) == HW_OK &&
            transaction.change_count > HW_TRANSACTION_BYTES / 4096)
            abort();
    } else if (header->type == HW_ENTRY_GROUP) {
        if (hw_group_peek(cursor, seq, 4096, &group) == HW_OK && group.base_seq >= seq)
            abort();
    } else if (header->type == HW_ENTRY_SNAPSHOT) {
        if (hw_snapshot_peek(cursor, seq, &snapshot) == HW_OK &&
            snapshot.least_base > snapshot.greatest_base)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_entry_header header;
    struct hw_cursor cursor;

    if (size == 0)
        return 0;
    cursor = hw_cursor(bytes + 1, size - 1);
    if (hw_entry_header_decode(&cursor, bytes[0], &header) != HW_OK)
        return 0;
    if ((header.snapshot_seq != UINT64_MAX && header.snapshot_seq >= bytes[0]) ||
        (header.label_seq != UINT64_MAX && header.label_seq >= bytes[0]) || header.time_ms < 0)
        abort();
    try_body(&header, &cursor, bytes[0]);
    return 0;
}
