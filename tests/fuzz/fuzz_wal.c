/* A WAL file: hw_wal_scan() of any bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fuzz/fuzz.h"
#include "wal/wal.h"

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
    memcpy(buf, memory->bytes + (there > 0 ? offset : 0), there < size ? there : size);
    return there < size ? HW_END : HW_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct hw_env_ops ops = {.read_at = memory_read_at};
    struct hw_env env = {.ops = &ops};
    struct memory_file memory = {.file.env = &env, .bytes = bytes, .size = size};
    struct hw_wal_extent extent;
    struct hw_origin origin;
    struct hw_error err;

    if (size >= HW_PAGE_SIZE_MIN && hw_wal_mark_decode(bytes, HW_PAGE_SIZE_MIN, &origin) &&
        memcmp(bytes + 16, origin.bytes, sizeof(origin.bytes)) != 0)
        abort();
    if (size == 0 || hw_wal_scan(&memory.file, &extent, &err) != HW_OK)
        return 0;
    if (extent.commit.frame > extent.live_frames ||
        (extent.live_frames > 0 &&
         hw_wal_frame_offset(extent.header.page_size, extent.live_frames + 1) > size))
        abort();
    if ((extent.commit.frame == 0) != (extent.page_count == 0))
        abort();
    if (extent.commit.frame > 0) {
        const uint8_t *last =
            bytes + hw_wal_frame_offset(extent.header.page_size, extent.commit.frame);
        if (hw_wal_frame_decode(last).commit_size != extent.page_count)
            abort();
    }
    return 0;
}
