/* Implements notes and the position file of capture/internal.h; docs/FORMAT.md has their bytes. */
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

enum { NOTE_VERSION = 1, POSITION_MAGIC = 0x534f5048, POSITION_VERSION = 1 };
enum { POSITION_SIZE = 16 + 16 + 8 + 40 + 1024 };

/* Distance back from `seq`, so that it is short; 0: none. */
static uint64_t distance(uint64_t seq, uint64_t back)
{
    return back == UINT64_MAX ? 0 : seq - back + 1;
}

static bool undistance(uint64_t seq, uint64_t coded, uint64_t *out)
{
    *out = coded == 0 ? UINT64_MAX : seq - (coded - 1);
    return coded == 0 || coded - 1 <= seq;
}

/* The newest of what a note names: the base of the distances. */
static uint64_t newest(const struct hw_note *note)
{
    uint64_t base = 0;

    if (note->seq != UINT64_MAX)
        base = note->seq;
    if (note->snapshot_seq != UINT64_MAX && note->snapshot_seq > base)
        base = note->snapshot_seq;
    if (note->label_seq != UINT64_MAX && note->label_seq > base)
        base = note->label_seq;
    return base;
}

void hw_note_encode(const struct hw_note *note, struct hw_buffer *out)
{
    uint64_t base = newest(note);

    hw_buffer_clear(out);
    hw_buffer_add_u8(out, NOTE_VERSION);
    hw_buffer_add(out, note->at.salts, sizeof(note->at.salts));
    hw_buffer_add_le32(out, note->at.checksum[0]);
    hw_buffer_add_le32(out, note->at.checksum[1]);
    hw_buffer_add_le64(out, note->sum);
    hw_buffer_add_uint(out, note->at.frame);
    hw_buffer_add_uint(out, note->page_count);
    hw_buffer_add_uint(out, base);
    hw_buffer_add_uint(out, distance(base, note->seq));
    hw_buffer_add_uint(out, distance(base, note->snapshot_seq));
    hw_buffer_add_uint(out, distance(base, note->label_seq));
    hw_buffer_add_uint(out, note->log_since);
    hw_buffer_add_uint(out, note->raw_since);
    hw_buffer_add_uint(out, note->snapshot_bytes);
    hw_buffer_add_uint(out, (uint64_t)note->time_ms);
}

enum hw_status hw_note_decode(struct hw_slice bytes, struct hw_note *out)
{
    struct hw_cursor cursor = hw_cursor(bytes.bytes, bytes.size);
    struct hw_note note = {0};
    const uint8_t *salts;
    uint64_t base;
    bool valid;

    if (hw_cursor_u8(&cursor) != NOTE_VERSION)
        return cursor.failed ? HW_ECORRUPT : HW_EVERSION;
    salts = hw_cursor_bytes(&cursor, sizeof(note.at.salts));
    if (salts == NULL)
        return HW_ECORRUPT;
    memcpy(note.at.salts, salts, sizeof(note.at.salts));
    note.at.checksum[0] = hw_cursor_le32(&cursor);
    note.at.checksum[1] = hw_cursor_le32(&cursor);
    note.sum = hw_cursor_le64(&cursor);
    note.at.frame = (uint32_t)hw_cursor_uint(&cursor);
    note.page_count = (uint32_t)hw_cursor_uint(&cursor);
    base = hw_cursor_uint(&cursor);
    valid = undistance(base, hw_cursor_uint(&cursor), &note.seq);
    valid = undistance(base, hw_cursor_uint(&cursor), &note.snapshot_seq) && valid;
    valid = undistance(base, hw_cursor_uint(&cursor), &note.label_seq) && valid;
    note.log_since = hw_cursor_uint(&cursor);
    note.raw_since = hw_cursor_uint(&cursor);
    note.snapshot_bytes = hw_cursor_uint(&cursor);
    note.time_ms = (int64_t)hw_cursor_uint(&cursor);
    if (cursor.failed || !valid)
        return HW_ECORRUPT;
    *out = note;
    return HW_OK;
}

enum hw_status hw_position_take(struct hw_env *env, const char *path, bool clean,
                                struct hw_position_file *out, struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = env->ops->stat(env, path, &stat, err);
    size_t size = strlen(path);

    if (status != HW_OK)
        return status;
    *out = (struct hw_position_file){
        .clean = clean,
        .device = stat.device,
        .inode = stat.inode,
        .size = stat.size,
        .modified_ns = stat.modified_ns,
        .changed_ns = stat.changed_ns,
    };
    status = env->ops->boot_id(env, out->boot_id, err);
    if (status != HW_OK)
        return status;
    if (size >= sizeof(out->path))
        size = sizeof(out->path) - 1; /* only compared and shown */
    memcpy(out->path, path, size);
    return HW_OK;
}

bool hw_position_same_file(const struct hw_position_file *a, const struct hw_position_file *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}

static char *position_path(const char *dir)
{
    return hw_format("%s/position", dir);
}

enum hw_status hw_position_write(struct hw_env *env, const char *dir,
                                 const struct hw_position_file *position, struct hw_error *err)
{
    uint8_t bytes[POSITION_SIZE] = {0};
    char *path = position_path(dir);
    struct hw_file *file = NULL;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the position file");
    hw_put_le32(bytes, POSITION_MAGIC);
    hw_put_le32(bytes + 4, POSITION_VERSION);
    memcpy(bytes + 16, position->boot_id, 16);
    bytes[32] = position->clean;
    hw_put_le64(bytes + 40, position->device);
    hw_put_le64(bytes + 48, position->inode);
    hw_put_le64(bytes + 56, position->size);
    hw_put_le64(bytes + 64, (uint64_t)position->modified_ns);
    hw_put_le64(bytes + 72, (uint64_t)position->changed_ns);
    memcpy(bytes + 80, position->path, sizeof(position->path));
    /* One write, no sync: a torn or lost record does not check, and then the sums are computed. */
    hw_put_le64(bytes + 8, hw_page_sum(1, bytes + 16, POSITION_SIZE - 16));
    status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, err);
    if (status == HW_OK) {
        status = env->ops->write_at(file, 0, bytes, sizeof(bytes), err);
        env->ops->close(file);
    }
    hw_free(path);
    return status;
}

enum hw_status hw_position_read(struct hw_env *env, const char *dir, struct hw_position_file *out,
                                struct hw_error *err)
{
    uint8_t bytes[POSITION_SIZE];
    char *path = position_path(dir);
    size_t size = 0;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the position file");
    status = hw_env_read_file(env, path, bytes, sizeof(bytes), &size, err);
    hw_free(path);
    if (status != HW_OK)
        return status;
    if (size != sizeof(bytes) || hw_get_le32(bytes) != POSITION_MAGIC ||
        hw_get_le32(bytes + 4) != POSITION_VERSION ||
        hw_get_le64(bytes + 8) != hw_page_sum(1, bytes + 16, POSITION_SIZE - 16))
        return hw_fail(err, HW_ENOTFOUND, "%s/position: not a whole record", dir);
    *out = (struct hw_position_file){
        .clean = bytes[32] != 0,
        .device = hw_get_le64(bytes + 40),
        .inode = hw_get_le64(bytes + 48),
        .size = hw_get_le64(bytes + 56),
        .modified_ns = (int64_t)hw_get_le64(bytes + 64),
        .changed_ns = (int64_t)hw_get_le64(bytes + 72),
    };
    memcpy(out->boot_id, bytes + 16, sizeof(out->boot_id));
    memcpy(out->path, bytes + 80, sizeof(out->path));
    out->path[sizeof(out->path) - 1] = '\0';
    return HW_OK;
}

void hw_position_note(struct hw_capture *capture, bool clean)
{
    struct hw_position_file position;
    struct hw_error err;
    enum hw_status status;

    status = hw_position_take(capture->env, capture->path, clean, &position, &err);
    if (status == HW_OK)
        status = hw_position_write(capture->env, capture->log_dir, &position, &err);
    if (status != HW_OK) /* it only saves work at the next open */
        hw_env_log(capture->env, HW_LOG_WARN, "event=position_not_written db=%s error=\"%s\"",
                   capture->path, err.message);
}
