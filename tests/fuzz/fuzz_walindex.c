/*
 * A wal-index: two regions of shared memory that hold the input, as a broken or hostile process
 * could leave them.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "wal/wal.h"

enum { REGION_SIZE = 32768, REGIONS = 2 };

struct shared_file {
    sqlite3_file file;
    uint64_t regions[REGIONS][REGION_SIZE / 8];
};

static int shared_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
    struct shared_file *shared = (struct shared_file *)file;

    (void)size;
    (void)extend;
    *out = region < REGIONS ? shared->regions[region] : NULL;
    return region < REGIONS || !extend ? SQLITE_OK : SQLITE_IOERR_SHMSIZE;
}

static void shared_barrier(sqlite3_file *file)
{
    (void)file;
}

static void look(struct hw_wal_index *index, uint32_t page, uint32_t max_frame)
{
    struct hw_error err;
    uint32_t frame = 0, found = 0;

    if (hw_wal_index_lookup(index, page, max_frame, &frame, &err) == HW_OK && frame > max_frame)
        abort();
    if (frame > 0 && (hw_wal_index_page(index, frame, &found, &err) != HW_OK || found != page))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const sqlite3_io_methods methods = {
        .iVersion = 2, .xShmMap = shared_map, .xShmBarrier = shared_barrier};
    static struct shared_file shared;
    struct hw_wal_index *index;
    struct hw_wal_index_header header = {0};
    uint32_t backfilled, attempted;
    struct hw_error err;

    memset(&shared, 0, sizeof(shared));
    shared.file.pMethods = &methods;
    memcpy(shared.regions, bytes, size < sizeof(shared.regions) ? size : sizeof(shared.regions));
    if (hw_wal_index_shared(&shared.file, &index, &err) != HW_OK)
        return 0;
    if (hw_wal_index_read(index, &header, &err) == HW_OK && header.page_size > HW_PAGE_SIZE_MAX)
        abort();
    if (hw_wal_index_backfill(index, &backfilled, &attempted, &err) != HW_OK)
        abort();
    for (uint32_t page = 0; page < 40; page++) {
        look(index, page * page, header.max_frame);
        look(index, page, 4062);
        look(index, page, 8158);
        look(index, page, UINT32_MAX - page);
    }
    /* A writer must end with an answer, too, and what it publishes can be read. */
    if (hw_wal_index_insert(index, header.max_frame % 8158 + 1, 7, &err) == HW_OK) {
        header.max_frame = header.max_frame % 8158 + 1;
        if (hw_wal_index_publish(index, &header, &err) != HW_OK ||
            hw_wal_index_read(index, &header, &err) != HW_OK)
            abort();
        look(index, 7, header.max_frame);
        if (hw_wal_index_cleanup(index, &err) != HW_OK)
            abort();
    }
    hw_wal_index_free(index);
    return 0;
}
