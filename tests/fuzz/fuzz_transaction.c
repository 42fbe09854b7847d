/* The body of a transaction block: `page size's exponent less 9, u8 | body`. */
#include <stdlib.h>
#include <string.h>

#include "entry/entry.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct hw_transaction_decoder *decoder; /* kept: what is left in it must not matter */
    struct hw_transaction transaction;
    struct hw_cursor cursor;
    struct hw_error err;
    uint32_t page_size;
    volatile uint8_t sink = 0;

    if (size == 0 || (decoder == NULL && hw_transaction_decoder_new(&decoder, &err) != HW_OK))
        return 0;
    page_size = 512U << bytes[0] % 8;
    cursor = hw_cursor(bytes + 1, size - 1);
    if (hw_transaction_decode(decoder, &cursor, page_size, &transaction, &err) != HW_OK)
        return 0;
    for (uint32_t i = 0; i < transaction.change_count; i++) {
        uint8_t *previous = hw_transaction_previous(decoder, i);

        if (previous != NULL)
            memset(previous, 0, page_size);
    }
    if (hw_transaction_expand(decoder, &err) != HW_OK)
        return 0;
    for (uint32_t i = 0, before = 0; i < transaction.change_count; i++) {
        bool needs_previous;
        uint32_t number = hw_transaction_page(decoder, i, &needs_previous);
        const uint8_t *image = hw_transaction_image(decoder, i);

        if (number <= before || number > transaction.page_count)
            abort(); /* a caller relies on it */
        before = number;
        sink = (uint8_t)(sink ^ image[0] ^ image[page_size - 1]);
    }
    return 0;
}
