/* A segment: its header, its records with and without their checksums. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "hypercore/segment.h"

struct memory_file {
    struct hw_file file;
    const uint8_t *bytes;
    size_t size;
};

static enum hw_status memory_read_at(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                     struct hw_error *err)
{
    struct memory_file *memory = (struct memory_file *)file;
    size_t there = offset < memory->size ? memory->size - (size_t)offset : 0;

    (void)err;
    memset(buf, 0, size);
    if (there > 0)
        memcpy(buf, memory->bytes + offset, there < size ? there : size);
    return there < size ? HW_END : HW_OK;
}

/* A record's blocks lie within its data and fill it. */
static void check_record(const struct hw_record *record)
{
    struct hw_slice sizes = record->sizes;
    uint32_t used = 0;

    if (record->data.size != record->data_size || record->note.size > HW_NOTE_SIZE_MAX)
        abort();
    for (uint32_t i = 0; i < record->count; i++) {
        uint32_t size = 0;

        if (!hw_record_next_size(record, &sizes, i, used, &size) || size > record->data_size - used)
            abort();
        used += size;
    }
    if (used != record->data_size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct hw_env_ops ops = {.read_at = memory_read_at};
    struct hw_env env = {.ops = &ops};
    struct memory_file memory = {.file.env = &env, .bytes = bytes, .size = size};
    struct hw_segment_scan scan = {.offset = 0};
    struct hw_segment_header header;
    struct hw_record record;

    if (size > 0 && hw_record_decode(bytes, size, &record)) {
        struct hw_record head;

        check_record(&record);
        if (!hw_record_head_decode(bytes, size, &head) || head.count != record.count)
            abort();
    }
    if (size < HW_SEGMENT_HEADER_SIZE)
        return 0;
    if (hw_segment_header_decode(bytes, &header, NULL) == HW_OK &&
        hw_segment_number(header.identity) > HW_SEGMENT_NUMBER_MAX)
        abort();
    hw_segment_scan_start(&scan, &memory.file, HW_SEGMENT_HEADER_SIZE,
                          bytes + HW_SEGMENT_HEADER_SIZE - HW_SEGMENT_CHAIN_SIZE);
    while (hw_segment_scan_next(&scan, &record, NULL) == HW_OK)
        check_record(&record);
    if (scan.offset > size)
        abort();
    hw_segment_scan_release(&scan);
    return 0;
}
