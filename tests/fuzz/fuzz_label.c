/* The small bodies: `0 label, 1 gap or 2 genesis, u8 | body`. */
#include <stdlib.h>
#include <string.h>

#include "entry/entry.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_genesis genesis;
    struct hw_cursor cursor;
    struct hw_label label;
    struct hw_gap gap;

    if (size == 0)
        return 0;
    cursor = hw_cursor(bytes + 1, size - 1);
    switch (bytes[0] % 3) {
    case 0:
        if (hw_label_decode(&cursor, &label) == HW_OK && strlen(label.name) + 2 > size)
            abort();
        break;
    case 1:
        if (hw_gap_decode(&cursor, &gap) == HW_OK && strlen(gap.reason) > size)
            abort();
        break;
    default:
        if (hw_genesis_decode(&cursor, &genesis) == HW_OK &&
            !hw_entry_page_size_ok(genesis.page_size))
            abort();
        break;
    }
    return 0;
}
