/*
 * The writer: frames appended and published as an SQLite connection does it.
 *
 *            add                finish              publish
 *   IDLE ──────────▶ ADDING ──────────▶ FINISHED ──────────▶ IDLE
 *     ▲───────────────┴── rollback ───────┘
 *
 * The newest frame waits in the buffer without a checksum, because only the next call tells whether
 * it is the commit frame.  The commit frame is written by publish alone: until then a crash leaves
 * frames that no recovery takes for a transaction.
 */
#include "wal/index.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

enum { BUFFER_SIZE = 65536 }; /* bytes a write, unless one frame is larger */

enum state { IDLE, ADDING, FINISHED };

struct hw_wal_writer {
    sqlite3_file *database;     /* borrowed */
    struct hw_wal_index *index; /* borrowed */
    struct hw_file *wal;        /* borrowed */
    enum state state;
    struct hw_wal_header file_header;   /* of this round; in the file unless header_due */
    bool header_due;                    /* the round begins with the next frame */
    struct hw_wal_index_header visible; /* what readers see */
    uint32_t frame;                     /* the last frame added; visible.max_frame if IDLE */
    uint32_t checksum[2];               /* running, after the last frame that has its checksum */
    bool is_open;                       /* the last frame in the buffer has no checksum yet */
    uint32_t page_count;                /* FINISHED: of the database after the transaction */
    uint8_t *buffer;                    /* owned: frames not yet in the file */
    size_t buffer_size, buffer_capacity;
};

static size_t frame_size(const struct hw_wal_writer *writer)
{
    return HW_WAL_FRAME_HEADER_SIZE + (size_t)writer->file_header.page_size;
}

/* Choose salts that no earlier round of this file had, and the header that goes with them. */
static void round_begin(struct hw_wal_writer *writer)
{
    struct hw_wal_header *header = &writer->file_header;
    struct hw_env *env = writer->wal->env;
    uint8_t bytes[HW_WAL_HEADER_SIZE];

    if (hw_get_le64(header->salts) == 0)
        env->ops->random(env, header->salts, 4);
    hw_put_be32(header->salts, hw_get_be32(header->salts) + 1);
    env->ops->random(env, header->salts + 4, 4);
    header->checkpoint_sequence++;
    header->big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    hw_wal_header_encode(header, bytes);
    header->checksum[0] = hw_get_be32(bytes + 24);
    header->checksum[1] = hw_get_be32(bytes + 28);

    writer->visible.max_frame = 0;
    writer->visible.page_size = header->page_size;
    writer->visible.big_endian_checksum = header->big_endian;
    memcpy(writer->visible.salts, header->salts, sizeof(header->salts));
    memcpy(writer->visible.frame_checksum, header->checksum, sizeof(header->checksum));
    memcpy(writer->checksum, header->checksum, sizeof(header->checksum));
    writer->frame = 0;
    writer->header_due = true;
}

/* Take over the end of the WAL as the index has it. */
static enum hw_status round_adopt(struct hw_wal_writer *writer, uint32_t page_size,
                                  struct hw_error *err)
{
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    struct hw_wal_header header = {0};
    enum hw_status status;

    status = hw_wal_index_read(writer->index, &writer->visible, err);
    if (status != HW_OK)
        return status;
    status = writer->wal->env->ops->read_at(writer->wal, 0, bytes, sizeof(bytes), err);
    if (status == HW_OK)
        status = hw_wal_header_decode(bytes, &header);
    if (status < 0)
        return status == HW_EVERSION ? hw_fail(err, status, "wal header: unknown format version")
                                     : status;
    writer->file_header = header;
    if (writer->visible.max_frame == 0) {
        writer->file_header.page_size = page_size;
        round_begin(writer);
        return HW_OK;
    }
    if (status == HW_END || memcmp(header.salts, writer->visible.salts, sizeof(header.salts)) != 0)
        return hw_fail(err, HW_ECORRUPT, "wal header: not the round that the wal-index describes");
    if (header.page_size != page_size || writer->visible.page_size != page_size)
        return hw_fail(err, HW_ECORRUPT, "wal header: pages of %u bytes, expected %u",
                       (unsigned)header.page_size, (unsigned)page_size);
    writer->frame = writer->visible.max_frame;
    memcpy(writer->checksum, writer->visible.frame_checksum, sizeof(writer->checksum));
    return HW_OK;
}

enum hw_status hw_wal_writer_open(sqlite3_file *database, struct hw_wal_index *index,
                                  struct hw_file *wal, uint32_t page_size,
                                  struct hw_wal_writer **out, struct hw_error *err)
{
    struct hw_wal_writer *writer = hw_zalloc(sizeof(*writer));
    enum hw_status status = HW_OK;

    assert(page_size >= HW_PAGE_SIZE_MIN && page_size <= HW_PAGE_SIZE_MAX);
    if (writer == NULL)
        return hw_fail(err, HW_ENOMEM, "wal writer: no memory");
    writer->database = database;
    writer->index = index;
    writer->wal = wal;
    writer->buffer_capacity = HW_WAL_FRAME_HEADER_SIZE + page_size;
    if (writer->buffer_capacity < BUFFER_SIZE)
        writer->buffer_capacity = BUFFER_SIZE;
    writer->buffer = hw_alloc(writer->buffer_capacity);
    if (writer->buffer == NULL)
        status = hw_fail(err, HW_ENOMEM, "wal writer: no memory");
    if (status == HW_OK)
        status = round_adopt(writer, page_size, err);
    if (status != HW_OK) {
        hw_wal_writer_close(writer);
        return status;
    }
    *out = writer;
    return HW_OK;
}

void hw_wal_writer_close(struct hw_wal_writer *writer)
{
    if (writer == NULL)
        return;
    hw_free(writer->buffer);
    hw_free(writer);
}

static struct hw_wal_position position_of(const struct hw_wal_writer *writer, uint32_t frame,
                                          const uint32_t checksum[2])
{
    struct hw_wal_position position = {.frame = frame, .checksum = {checksum[0], checksum[1]}};

    memcpy(position.salts, writer->file_header.salts, sizeof(position.salts));
    return position;
}

struct hw_wal_position hw_wal_writer_position(const struct hw_wal_writer *writer)
{
    return position_of(writer, writer->visible.max_frame, writer->visible.frame_checksum);
}

/*
 * The header of a new round.  Synced before any frame of the round: frames of the old round that
 * are still in the file would else be replayed, after a power loss, over a newer database.  For the
 * same reason the database itself is durable first, whoever checkpointed it.
 */
static enum hw_status write_header(struct hw_wal_writer *writer, struct hw_error *err)
{
    const struct hw_env_ops *ops = writer->wal->env->ops;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    enum hw_status status;
    int code = writer->database->pMethods->xSync(writer->database, SQLITE_SYNC_NORMAL);

    if (code != SQLITE_OK)
        return hw_wal_fail_sqlite(err, code, "database: sync before the WAL starts over");
    hw_wal_header_encode(&writer->file_header, bytes);
    status = ops->write_at(writer->wal, 0, bytes, sizeof(bytes), err);
    if (status == HW_OK)
        status = ops->sync(writer->wal, err);
    if (status == HW_OK)
        writer->header_due = false;
    return status;
}

/* Give the last frame in the buffer its commit field and its checksum. */
static void frame_seal(struct hw_wal_writer *writer, uint32_t commit_size)
{
    uint8_t *frame = writer->buffer + writer->buffer_size - frame_size(writer);
    bool big_endian = writer->file_header.big_endian;

    assert(writer->is_open);
    hw_put_be32(frame + 4, commit_size);
    hw_wal_checksum(big_endian, frame, 8, writer->checksum);
    hw_wal_checksum(big_endian, frame + HW_WAL_FRAME_HEADER_SIZE, writer->file_header.page_size,
                    writer->checksum);
    hw_put_be32(frame + 16, writer->checksum[0]);
    hw_put_be32(frame + 20, writer->checksum[1]);
    writer->is_open = false;
}

/* Write what is in the buffer: sealed frames, the last of which is writer->frame. */
static enum hw_status buffer_flush(struct hw_wal_writer *writer, struct hw_error *err)
{
    uint32_t count = (uint32_t)(writer->buffer_size / frame_size(writer));
    uint64_t offset = hw_wal_frame_offset(writer->file_header.page_size, writer->frame - count + 1);
    enum hw_status status = writer->wal->env->ops->write_at(writer->wal, offset, writer->buffer,
                                                            writer->buffer_size, err);

    assert(!writer->is_open);
    if (status == HW_OK)
        writer->buffer_size = 0;
    return status;
}

enum hw_status hw_wal_writer_begin(struct hw_wal_writer *writer, struct hw_error *err)
{
    return writer->header_due ? write_header(writer, err) : HW_OK;
}

enum hw_status hw_wal_writer_add(struct hw_wal_writer *writer, uint32_t page_number,
                                 const void *content, struct hw_error *err)
{
    enum hw_status status;
    uint8_t *frame;

    assert(page_number > 0);
    if (writer->state == FINISHED)
        return hw_fail(err, HW_EMISUSE, "wal writer: publish or roll back first");
    if (writer->frame >= INT32_MAX)
        return hw_fail(err, HW_ELIMIT, "wal writer: too many frames");
    status = hw_wal_writer_begin(writer, err);
    if (status == HW_OK && writer->is_open)
        frame_seal(writer, 0);
    if (status == HW_OK && writer->buffer_size + frame_size(writer) > writer->buffer_capacity)
        status = buffer_flush(writer, err);
    if (status == HW_OK)
        status = hw_wal_index_insert(writer->index, writer->frame + 1, page_number, err);
    if (status != HW_OK)
        return status;

    frame = writer->buffer + writer->buffer_size;
    hw_put_be32(frame, page_number);
    memcpy(frame + 8, writer->file_header.salts, sizeof(writer->file_header.salts));
    memcpy(frame + HW_WAL_FRAME_HEADER_SIZE, content, writer->file_header.page_size);
    writer->buffer_size += frame_size(writer);
    writer->is_open = true;
    writer->frame++;
    writer->state = ADDING;
    return HW_OK;
}

enum hw_status hw_wal_writer_finish(struct hw_wal_writer *writer, uint32_t page_count,
                                    struct hw_wal_position *end, struct hw_error *err)
{
    assert(page_count > 0);
    if (writer->state != ADDING || !writer->is_open)
        return hw_fail(err, HW_EMISUSE, "wal writer: no page to commit");
    frame_seal(writer, page_count);
    writer->page_count = page_count;
    writer->state = FINISHED;
    *end = position_of(writer, writer->frame, writer->checksum);
    return HW_OK;
}

enum hw_status hw_wal_writer_publish(struct hw_wal_writer *writer, struct hw_error *err)
{
    struct hw_wal_index_header next = writer->visible;
    enum hw_status status = HW_OK;

    if (writer->state != FINISHED)
        return hw_fail(err, HW_EMISUSE, "wal writer: nothing is finished");
    if (writer->buffer_size > 0)
        status = buffer_flush(writer, err);
    next.max_frame = writer->frame;
    next.page_count = writer->page_count;
    memcpy(next.frame_checksum, writer->checksum, sizeof(next.frame_checksum));
    if (status == HW_OK)
        status = hw_wal_index_publish(writer->index, &next, err);
    if (status != HW_OK)
        return status;
    writer->visible = next;
    writer->state = IDLE;
    return HW_OK;
}

enum hw_status hw_wal_writer_rollback(struct hw_wal_writer *writer, struct hw_error *err)
{
    writer->buffer_size = 0;
    writer->is_open = false;
    writer->frame = writer->visible.max_frame;
    memcpy(writer->checksum, writer->visible.frame_checksum, sizeof(writer->checksum));
    writer->state = IDLE;
    return hw_wal_index_cleanup(writer->index, err);
}

/* --------------------------------------------------------------------------------- renew */

static int shm_lock(struct hw_wal_writer *writer, int slot, int count, int flags)
{
    return writer->database->pMethods->xShmLock(writer->database, slot, count,
                                                flags | SQLITE_SHM_EXCLUSIVE);
}

/* The checksum up to a frame that was read again. */
struct running_sum {
    uint32_t sum[2];
    bool is_known; /* not after a frame without one, a slip of SQLite before 3.50.2 */
};

/* Do the frames in the buffer go on from *running, each from the one before it? */
static bool frames_fit(const struct hw_wal_writer *writer, uint32_t count,
                       struct running_sum *running)
{
    bool fits = true;

    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *bytes = writer->buffer + i * frame_size(writer);
        struct hw_wal_frame frame = hw_wal_frame_decode(bytes);

        if (frame.page_number == 0)
            fits = false;
        else if (frame.has_checksum && running->is_known &&
                 !hw_wal_frame_continues(&writer->file_header, bytes, running->sum))
            fits = false;
        memcpy(running->sum, frame.checksum, sizeof(running->sum));
        running->is_known = frame.has_checksum;
    }
    return fits;
}

/* All that can be written again is, also behind frames that do not fit. */
static enum hw_status frames_renew(struct hw_wal_writer *writer, bool *fit, struct hw_error *err)
{
    const struct hw_env_ops *ops = writer->wal->env->ops;
    struct running_sum running = {.is_known = true};
    uint32_t max_frame = writer->visible.max_frame, count;

    *fit = true;
    memcpy(running.sum, writer->file_header.checksum, sizeof(running.sum));
    for (uint32_t first = 1; first <= max_frame; first += count) {
        uint64_t offset = hw_wal_frame_offset(writer->file_header.page_size, first);
        enum hw_status status;

        count = (uint32_t)(writer->buffer_capacity / frame_size(writer));
        if (count > max_frame - first + 1)
            count = max_frame - first + 1;
        status = ops->read_at(writer->wal, offset, writer->buffer, count * frame_size(writer), err);
        if (status < 0)
            return status;
        if (status == HW_END || !frames_fit(writer, count, &running))
            *fit = false;
        else
            status =
                ops->write_at(writer->wal, offset, writer->buffer, count * frame_size(writer), err);
        if (status < 0)
            return status;
    }
    if (running.is_known && memcmp(running.sum, writer->visible.frame_checksum, 8) != 0)
        *fit = false;
    return HW_OK;
}

/* With CKPT held: no frame is copied on the word of a sync that says nothing of it. */
static enum hw_status renew_locked(struct hw_wal_writer *writer, struct hw_error *err)
{
    const struct hw_env_ops *ops = writer->wal->env->ops;
    uint8_t header[HW_WAL_HEADER_SIZE];
    enum hw_status status;
    bool fit = true;

    hw_wal_header_encode(&writer->file_header, header);
    status = ops->write_at(writer->wal, 0, header, sizeof(header), err);
    if (status == HW_OK)
        status = frames_renew(writer, &fit, err);
    if (status == HW_OK)
        status = ops->sync(writer->wal, err);
    if (status == HW_OK)
        status = hw_wal_index_reset_backfill(writer->index, err);
    if (status == HW_OK && !fit)
        return hw_fail(err, HW_ECORRUPT, "wal: of %u frames some are not what was written",
                       (unsigned)writer->visible.max_frame);
    return status;
}

enum hw_status hw_wal_writer_renew(struct hw_wal_writer *writer, struct hw_error *err)
{
    enum hw_status status;
    int code;

    if (writer->state != IDLE)
        return hw_fail(err, HW_EMISUSE, "wal writer: renew within a transaction");
    if (writer->visible.max_frame == 0)
        return HW_OK; /* the header is written and synced with the first frame */
    code = shm_lock(writer, HW_SHM_CKPT, 1, SQLITE_SHM_LOCK);
    if (code != SQLITE_OK)
        return hw_wal_fail_sqlite(err, code, "wal: lock checkpoints out");
    status = renew_locked(writer, err);
    (void)shm_lock(writer, HW_SHM_CKPT, 1, SQLITE_SHM_UNLOCK); /* our own: cannot fail */
    return status;
}

/* ------------------------------------------------------------------------------- restart */

/* With CKPT and READ(1..4) held: nobody reads the WAL, nobody copies from it. */
static enum hw_status restart_locked(struct hw_wal_writer *writer, struct hw_error *err)
{
    struct hw_wal_header old_header = writer->file_header;
    struct hw_wal_index_header old_visible = writer->visible;
    uint32_t backfilled, attempted;
    enum hw_status status;

    status = hw_wal_index_backfill(writer->index, &backfilled, &attempted, err);
    if (status != HW_OK)
        return status;
    if (backfilled < writer->visible.max_frame)
        return hw_fail(err, HW_AGAIN, "wal: %u of %u frames are checkpointed", (unsigned)backfilled,
                       (unsigned)writer->visible.max_frame);
    /*
     * In this order: who is killed in between leaves a round that is copied again, and not one
     * whose first frames count as copied.
     */
    status = hw_wal_index_reset_checkpoint(writer->index, err);
    if (status != HW_OK)
        return status;
    round_begin(writer);
    status = hw_wal_index_publish(writer->index, &writer->visible, err);
    if (status != HW_OK) { /* only a mapping that went away: nothing was stored */
        writer->file_header = old_header;
        writer->visible = old_visible;
        writer->header_due = false;
        writer->frame = old_visible.max_frame;
        memcpy(writer->checksum, old_visible.frame_checksum, sizeof(writer->checksum));
    }
    return status;
}

enum hw_status hw_wal_writer_restart(struct hw_wal_writer *writer, struct hw_error *err)
{
    enum hw_status status;
    int code;

    if (writer->state != IDLE)
        return hw_fail(err, HW_EMISUSE, "wal writer: restart within a transaction");
    if (writer->visible.max_frame == 0)
        return HW_OK;
    code = shm_lock(writer, HW_SHM_CKPT, 1, SQLITE_SHM_LOCK);
    if (code != SQLITE_OK)
        return hw_wal_fail_sqlite(err, code, "wal: lock checkpoints out");
    code = shm_lock(writer, HW_SHM_READ0 + 1, 4, SQLITE_SHM_LOCK);
    if (code == SQLITE_OK) {
        status = restart_locked(writer, err);
        (void)shm_lock(writer, HW_SHM_READ0 + 1, 4, SQLITE_SHM_UNLOCK); /* own locks: cannot fail */
    } else {
        status = hw_wal_fail_sqlite(err, code, "wal: wait for readers to leave");
    }
    (void)shm_lock(writer, HW_SHM_CKPT, 1, SQLITE_SHM_UNLOCK);
    return status;
}
