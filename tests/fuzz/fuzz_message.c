/* The small messages of the channel hypercore/alpha: the first byte picks one. */
#include <stdlib.h>

#include "fuzz/fuzz.h"
#include "wire/message.h"

static void sync_again(struct hw_slice bytes)
{
    struct hw_message_sync one, other;
    struct hw_buffer again = {0};

    if (hw_message_sync_decode(bytes, &one, NULL) != HW_OK)
        return;
    hw_message_sync_encode(&one, &again);
    if (again.failed ||
        hw_message_sync_decode((struct hw_slice){again.bytes, again.size}, &other, NULL) != HW_OK ||
        other.length != one.length || other.fork != one.fork)
        abort();
    hw_buffer_release(&again);
}

static void range_again(struct hw_slice bytes)
{
    struct hw_message_range one, other;
    struct hw_buffer again = {0};

    if (hw_message_range_decode(bytes, &one, NULL) != HW_OK)
        return;
    hw_message_range_encode(&one, &again);
    if (again.failed ||
        hw_message_range_decode((struct hw_slice){again.bytes, again.size}, &other, NULL) !=
            HW_OK ||
        other.start != one.start || other.length != one.length || other.drop != one.drop)
        abort();
    hw_buffer_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_slice rest = {bytes + 1, size - 1};
    struct hw_message_no_data no_data;
    struct hw_message_want want;
    struct hw_message_bitfield bitfield;
    struct hw_handshake handshake;
    uint64_t request;

    if (size == 0)
        return 0;
    switch (bytes[0] % 7) {
    case 0:
        sync_again(rest);
        break;
    case 1:
        range_again(rest);
        break;
    case 2:
        (void)hw_message_no_data_decode(rest, &no_data, NULL); /* any outcome will do */
        break;
    case 3:
        (void)hw_message_want_decode(rest, &want, NULL); /* likewise */
        break;
    case 4:
        if (hw_message_bitfield_decode(rest, &bitfield, NULL) == HW_OK &&
            (bitfield.words.size > rest.size || bitfield.words.size % 4 != 0))
            abort();
        break;
    case 5:
        (void)hw_handshake_decode(rest, &handshake, NULL); /* likewise */
        break;
    default:
        (void)hw_message_cancel_decode(rest, &request, NULL); /* likewise */
        break;
    }
    return 0;
}
