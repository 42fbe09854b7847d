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

static void decode_others(uint8_t which, struct hw_slice bytes)
{
    struct hw_message_no_data no_data = {.request = 0};
    struct hw_message_want want = {.start = 0};
    struct hw_message_bitfield bitfield = {.start = 0};
    struct hw_handshake handshake = {.has_seeks = false};
    uint64_t request = 0;
    enum hw_status status;

    if (which == 2)
        status = hw_message_no_data_decode(bytes, &no_data, NULL);
    else if (which == 3)
        status = hw_message_want_decode(bytes, &want, NULL);
    else if (which == 4)
        status = hw_message_bitfield_decode(bytes, &bitfield, NULL);
    else if (which == 5)
        status = hw_handshake_decode(bytes, &handshake, NULL);
    else
        status = hw_message_cancel_decode(bytes, &request, NULL);
    if (status != HW_OK && (status != HW_EPROTOCOL || bitfield.words.size > 0))
        abort();
    if (bitfield.words.size > bytes.size || bitfield.words.size % 4 != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct hw_slice rest = {bytes + 1, size - 1};

    if (size == 0)
        return 0;
    if (bytes[0] % 7 == 0)
        sync_again(rest);
    else if (bytes[0] % 7 == 1)
        range_again(rest);
    else
        decode_others(bytes[0] % 7, rest);
    return 0;
}
