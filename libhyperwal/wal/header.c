/* Headers of the WAL file and of its frames. */
#include "wal/wal.h"

#include <string.h>

#include "base/bytes.h"

enum { MAGIC = 0x377f0682, FORMAT_VERSION = 3007000, SUMMED_SIZE = 24 };

enum hw_status hw_wal_header_decode(const uint8_t bytes[HW_WAL_HEADER_SIZE],
                                    struct hw_wal_header *out)
{
    struct hw_wal_header header = {0};
    uint32_t magic = hw_get_be32(bytes), page_size = hw_get_be32(bytes + 8);

    if ((magic & ~1U) != MAGIC)
        return HW_END;
    if (page_size < HW_PAGE_SIZE_MIN || page_size > HW_PAGE_SIZE_MAX ||
        (page_size & (page_size - 1)) != 0)
        return HW_END;
    header.big_endian = magic & 1;
    header.page_size = page_size;
    header.checkpoint_sequence = hw_get_be32(bytes + 12);
    memcpy(header.salts, bytes + 16, sizeof(header.salts));
    hw_wal_checksum(header.big_endian, bytes, SUMMED_SIZE, header.checksum);
    if (header.checksum[0] != hw_get_be32(bytes + 24) ||
        header.checksum[1] != hw_get_be32(bytes + 28))
        return HW_END;
    if (hw_get_be32(bytes + 4) != FORMAT_VERSION)
        return HW_EVERSION;
    *out = header;
    return HW_OK;
}

void hw_wal_header_encode(const struct hw_wal_header *header, uint8_t out[HW_WAL_HEADER_SIZE])
{
    uint32_t sum[2] = {0, 0};

    hw_put_be32(out, MAGIC | (header->big_endian ? 1U : 0U));
    hw_put_be32(out + 4, FORMAT_VERSION);
    hw_put_be32(out + 8, header->page_size);
    hw_put_be32(out + 12, header->checkpoint_sequence);
    memcpy(out + 16, header->salts, sizeof(header->salts));
    hw_wal_checksum(header->big_endian, out, SUMMED_SIZE, sum);
    hw_put_be32(out + 24, sum[0]);
    hw_put_be32(out + 28, sum[1]);
}

struct hw_wal_frame hw_wal_frame_decode(const uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE])
{
    static const uint8_t nothing[16];
    struct hw_wal_frame frame = {
        .page_number = hw_get_be32(bytes),
        .commit_size = hw_get_be32(bytes + 4),
        .checksum = {hw_get_be32(bytes + 16), hw_get_be32(bytes + 20)},
        .has_checksum = memcmp(bytes + 8, nothing, sizeof(nothing)) != 0,
    };

    memcpy(frame.salts, bytes + 8, sizeof(frame.salts));
    return frame;
}
