/* The small bodies: `0 label, 1 gap, 2 genesis or 3 switch, u8 | body`. */
#include <stdlib.h>
#include <string.h>

#include "entry/entry.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_genesis genesis;
    struct hw_cursor cursor;
    struct hw_label label;
    struct hw_switch switch_;
    struct hw_gap gap;

    if (size == 0)
        return 0;
    cursor = hw_cursor(bytes + 1, size - 1);
    switch (bytes[0] % 4) {
    case 0:
        if (hw_label_decode(&cursor, &label) == HW_OK && strlen(label.name) + 2 > size)
            abort();
        break;
    case 1:
        if (hw_gap_decode(&cursor, &gap) == HW_OK && strlen(gap.reason) > size)
            abort();
        break;
    case 3:
        if (hw_switch_decode(&cursor, &switch_) == HW_OK) {
            struct hw_buffer once = {0}, again = {0};

            /* Numbers may have been longer than they need be; what was taken means the same. */
            hw_switch_encode(&switch_, &once);
            cursor = hw_cursor(once.bytes, once.size);
            if (once.failed || once.size > size - 1 || hw_switch_decode(&cursor, &switch_) != HW_OK)
                abort();
            hw_switch_encode(&switch_, &again);
            if (again.size != once.size || memcmp(again.bytes, once.bytes, once.size) != 0)
                abort();
            hw_buffer_release(&once);
            hw_buffer_release(&again);
        }
        break;
    default:
        if (hw_genesis_decode(&cursor, &genesis) == HW_OK &&
            !hw_entry_page_size_ok(genesis.page_size))
            abort();
        break;
    }
    return 0;
}
