/* One page as a reader sees it. */
#include "wal/index.h"

#include <assert.h>
#include <string.h>

static enum hw_status read_from_wal(struct hw_file *wal, uint32_t page_size, uint32_t frame,
                                    void *content, struct hw_error *err)
{
    uint64_t offset = hw_wal_frame_offset(page_size, frame) + HW_WAL_FRAME_HEADER_SIZE;
    enum hw_status status = wal->env->ops->read_at(wal, offset, content, page_size, err);

    if (status == HW_END)
        return hw_fail(err, HW_ECORRUPT,
                       "wal: ends before frame %u at offset %llu, which the wal-index names",
                       (unsigned)frame, (unsigned long long)offset);
    return status;
}

static enum hw_status read_from_database(sqlite3_file *database, uint32_t page_size,
                                         uint32_t page_number, void *content, struct hw_error *err)
{
    int64_t offset = (int64_t)(page_number - 1) * page_size;
    int code = database->pMethods->xRead(database, content, (int)page_size, offset);

    if (code == SQLITE_OK || code == SQLITE_IOERR_SHORT_READ) /* the rest is zeros then */
        return HW_OK;
    return hw_wal_fail_sqlite(err, code, "database: read a page");
}

enum hw_status hw_wal_read_page(sqlite3_file *database, struct hw_wal_index *index,
                                struct hw_file *wal, uint32_t page_size, uint32_t page_number,
                                uint32_t max_frame, void *content, bool *from_file,
                                struct hw_error *err)
{
    uint32_t frame = 0;
    enum hw_status status;

    assert(page_number > 0);
    status = hw_wal_index_lookup(index, page_number, max_frame, &frame, err);
    if (status == HW_OK && frame != 0)
        status = read_from_wal(wal, page_size, frame, content, err);
    else if (status == HW_OK)
        status = read_from_database(database, page_size, page_number, content, err);
    if (status != HW_OK)
        return hw_prefix(err, status, "page %u", (unsigned)page_number);
    if (from_file != NULL)
        *from_file = frame == 0;
    return HW_OK;
}
