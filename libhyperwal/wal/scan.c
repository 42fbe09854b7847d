/*
 * How much of a WAL file is live.  A frame is live if it names a page, has the salts of the header,
 * and its checksum continues that of everything before it; the first that is not ends the log.
 * What follows is an older round or a torn write: normal, not damage.
 */
#include "wal/wal.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

bool hw_wal_frame_continues(const struct hw_wal_header *header, const uint8_t *bytes,
                            uint32_t sum[2])
{
    struct hw_wal_frame frame = hw_wal_frame_decode(bytes);
    uint32_t next[2] = {sum[0], sum[1]};

    if (frame.page_number == 0 || memcmp(frame.salts, header->salts, sizeof(frame.salts)) != 0)
        return false;
    hw_wal_checksum(header->big_endian, bytes, 8, next);
    hw_wal_checksum(header->big_endian, bytes + HW_WAL_FRAME_HEADER_SIZE, header->page_size, next);
    if (next[0] != frame.checksum[0] || next[1] != frame.checksum[1])
        return false;
    memcpy(sum, next, sizeof(next));
    return true;
}

static enum hw_status scan_header(struct hw_file *file, struct hw_wal_header *out,
                                  struct hw_error *err)
{
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    enum hw_status status = file->env->ops->read_at(file, 0, bytes, sizeof(bytes), err);

    if (status != HW_OK)
        return status;
    status = hw_wal_header_decode(bytes, out);
    if (status == HW_EVERSION)
        return hw_fail(err, status,
                       "wal header: format version %u is not 3007000: upgrade hyperwal",
                       (unsigned)hw_get_be32(bytes + 4));
    return status;
}

enum hw_status hw_wal_scan(struct hw_file *file, struct hw_wal_extent *out, struct hw_error *err)
{
    struct hw_wal_extent extent = {0};
    uint32_t sum[2];
    uint8_t *frame = NULL; /* owned */
    size_t frame_size;
    enum hw_status status = scan_header(file, &extent.header, err);

    if (status != HW_OK)
        goto done;
    memcpy(sum, extent.header.checksum, sizeof(sum));
    memcpy(extent.commit.salts, extent.header.salts, sizeof(extent.commit.salts));
    memcpy(extent.commit.checksum, sum, sizeof(sum));

    frame_size = HW_WAL_FRAME_HEADER_SIZE + extent.header.page_size;
    frame = hw_alloc(frame_size);
    if (frame == NULL) {
        status =
            hw_fail(err, HW_ENOMEM, "wal scan: no memory for a frame of %zu bytes", frame_size);
        goto done;
    }
    while (extent.live_frames < UINT32_MAX - 1) { /* ends with the file: each pass reads further */
        uint64_t offset = hw_wal_frame_offset(extent.header.page_size, extent.live_frames + 1);

        status = file->env->ops->read_at(file, offset, frame, frame_size, err);
        if (status != HW_OK || !hw_wal_frame_continues(&extent.header, frame, sum))
            break;
        extent.live_frames++;
        if (hw_get_be32(frame + 4) != 0) {
            extent.commit.frame = extent.live_frames;
            memcpy(extent.commit.checksum, sum, sizeof(sum));
            extent.page_count = hw_get_be32(frame + 4);
        }
    }
    assert(extent.commit.frame <= extent.live_frames);

done:
    hw_free(frame);
    if (status < 0)
        return status;
    *out = extent;
    return HW_OK;
}
