/* The note of a batch: what the worker keeps in the log for itself. */
#include <stdlib.h>
#include <string.h>

#include "capture/internal.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_buffer first = {0}, second = {0};
    struct hw_note note, again;

    if (hw_note_decode((struct hw_slice){.bytes = bytes, .size = size}, &note) != HW_OK)
        return 0;
    hw_note_encode(&note, &first);
    if (hw_note_decode((struct hw_slice){.bytes = first.bytes, .size = first.size}, &again) !=
        HW_OK)
        abort(); /* what was read can be written and read again */
    hw_note_encode(&again, &second);
    if (first.size != second.size || memcmp(first.bytes, second.bytes, first.size) != 0)
        abort();
    hw_buffer_release(&first);
    hw_buffer_release(&second);
    return 0;
}
