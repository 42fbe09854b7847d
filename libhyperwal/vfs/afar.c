/*
 * Transactions that come from afar, for vfs/vfs.h: decoded, checked against the database, and
 * appended to its WAL while a connection of SQLite holds the write lock.
 *
 *    BEGIN IMMEDIATE ─▶ log has all ─▶ parts: decode, check ─▶ frames ─▶ wal-index ─▶ COMMIT
 *                                          └── wrong ──▶ frames forgotten ──▶ ROLLBACK
 *
 * To the connection its transaction is empty.  A crash before the last frame is written leaves
 * frames that no recovery takes for a transaction; after it the transaction is there, and its first
 * frame has its id (hw_wal_mark_encode()), which the worker puts into the log.
 */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "entry/entry.h"
#include "vfs/shim.h"
#include "wal/wal.h"

enum {
    RESTART_FRAMES = 1000, /* as SQLite's automatic checkpoint: a WAL of so many may begin anew */
};

/* What is needed to append one transaction. */
struct appender {
    struct hw_shim_file *file; /* borrowed */
    const struct hw_vfs_head *head;
    const struct hw_vfs_commit *commit;
    struct hw_wal_index *index; /* owned, as all that follows */
    struct hw_file *wal;
    struct hw_wal_writer *writer;
    struct hw_transaction_decoder *decoder;
    uint8_t *page;
    uint32_t visible; /* frame up to which readers see the WAL */
    uint32_t last;    /* page that was added last; 0: none */
    uint32_t grown;   /* pages that the database did not have */
    uint64_t sum;
    bool is_marked;
};

static enum hw_status no_transaction(struct hw_error *err, const char *why)
{
    return hw_fail(err, HW_ECORRUPT, "not a transaction of this database: %s", why);
}

/* ---------------------------------------------------------------------------- the pages */

static enum hw_status read_page(struct appender *a, uint32_t page, void *content,
                                struct hw_error *err)
{
    return hw_wal_read_page(a->file->layer.below, a->index, a->wal, a->head->page_size, page,
                            a->visible, content, NULL, err);
}

/* Images before: for the decoder, and out of the sum. */
static enum hw_status take_previous(struct appender *a, const struct hw_transaction *block,
                                    struct hw_error *err)
{
    for (uint32_t i = 0; i < block->change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(a->decoder, i, &needed);
        uint8_t *image = needed ? hw_transaction_previous(a->decoder, i) : a->page;
        enum hw_status status;

        if (page <= a->last)
            return no_transaction(err, "its pages do not ascend");
        a->last = page;
        if (page > a->head->page_count && needed)
            return no_transaction(err, "it changes a page that is not there");
        if (page > a->head->page_count)
            continue;
        status = read_page(a, page, image, err);
        if (status != HW_OK)
            return status;
        a->sum ^= hw_page_sum(page, image, a->head->page_size);
    }
    return HW_OK;
}

/* A first page that SQLite would not take for that of a database in WAL mode, or of this size. */
static bool is_first_page(const uint8_t *image, uint32_t page_size)
{
    uint32_t size = (uint32_t)image[16] << 8 | image[17];

    return memcmp(image, "SQLite format 3", 16) == 0 && (size == 1 ? 65536 : size) == page_size &&
           image[18] == 2 && image[19] == 2;
}

/* Before the first frame: it may be that of a new round. */
static void tell_round(struct appender *a)
{
    struct hw_wal_position start = hw_wal_writer_position(a->writer);

    if (start.frame == 0)
        hw_capture_new_round(a->file->capture, start.salts);
}

static enum hw_status add_frame(struct appender *a, uint32_t page, const void *content,
                                struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (!a->is_marked) {
        tell_round(a);
        hw_wal_mark_encode(&a->commit->origin, a->page, a->head->page_size);
        status = hw_wal_writer_add(a->writer, page, a->page, err);
        a->is_marked = status == HW_OK;
    }
    return status == HW_OK ? hw_wal_writer_add(a->writer, page, content, err) : status;
}

static enum hw_status put_images(struct appender *a, const struct hw_transaction *block,
                                 struct hw_error *err)
{
    enum hw_status status = hw_transaction_expand(a->decoder, err);

    for (uint32_t i = 0; status == HW_OK && i < block->change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(a->decoder, i, &needed);
        const uint8_t *image = hw_transaction_image(a->decoder, i);

        if (page == 1 && !is_first_page(image, a->head->page_size))
            return no_transaction(err, "its first page is not that of a database in WAL mode");
        a->sum ^= hw_page_sum(page, image, a->head->page_size);
        a->grown += page > a->head->page_count;
        status = add_frame(a, page, image, err);
    }
    return status;
}

static enum hw_status take_block(struct appender *a, struct hw_slice body, struct hw_error *err)
{
    struct hw_cursor cursor = hw_cursor(body.bytes, body.size);
    struct hw_transaction block;
    enum hw_status status =
        hw_transaction_decode(a->decoder, &cursor, a->head->page_size, &block, err);

    if (status == HW_OK && block.page_count != a->commit->page_count)
        status = no_transaction(err, "its parts are of different sizes");
    if (status == HW_OK && block.sum_before != a->sum)
        status = no_transaction(err, "its parts do not continue each other");
    if (status == HW_OK)
        status = take_previous(a, &block, err);
    return status == HW_OK ? put_images(a, &block, err) : status;
}

/* Pages that leave a shrinking database leave the sum. */
static enum hw_status take_dropped(struct appender *a, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (uint32_t page = a->commit->page_count + 1; page <= a->head->page_count && status == HW_OK;
         page++) {
        status = read_page(a, page, a->page, err);
        if (status == HW_OK)
            a->sum ^= hw_page_sum(page, a->page, a->head->page_size);
    }
    return status;
}

/* How many pages the database gains, but for the lock-byte page. */
static uint32_t pages_gained(const struct appender *a)
{
    uint32_t from = a->head->page_count, to = a->commit->page_count;
    uint32_t lock_page = hw_lock_page(a->head->page_size);

    if (to <= from)
        return 0;
    return to - from - (lock_page > from && lock_page <= to ? 1 : 0);
}

/* ---------------------------------------------------------------------------- the frames */

static enum hw_status take_all(struct appender *a, struct hw_error *err)
{
    struct hw_slice body;
    enum hw_status status;

    while ((status = a->commit->next(a->commit->ctx, &body, err)) == HW_OK) {
        status = take_block(a, body, err);
        if (status != HW_OK)
            return status;
    }
    if (status != HW_END)
        return status;
    status = take_dropped(a, err);
    if (status == HW_OK && a->grown != pages_gained(a))
        status = no_transaction(err, "pages that the database gains are missing");
    if (status == HW_OK && a->sum != a->commit->sum_after)
        status = no_transaction(err, "its state sum is another");
    if (status == HW_OK && !a->is_marked) { /* it only drops pages; a commit needs a frame */
        uint8_t *first = hw_alloc(a->head->page_size);

        if (first == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory for a page");
        status = read_page(a, 1, first, err);
        if (status == HW_OK)
            status = add_frame(a, 1, first, err);
        hw_free(first);
    }
    return status;
}

/* Make the frames a commit, if `status` is HW_OK; else they are forgotten. */
static enum hw_status publish(struct appender *a, enum hw_status status, uint32_t page_count,
                              bool *is_perhaps, struct hw_error *err)
{
    struct hw_wal_position end;
    struct hw_error ignored;

    if (status == HW_OK)
        status = hw_wal_writer_finish(a->writer, page_count, &end, err);
    if (status == HW_OK) {
        status = hw_wal_writer_publish(a->writer, err);
        *is_perhaps = status != HW_OK;
    }
    /* What cannot be taken out of the index lies above the last frame: the next writer does it. */
    if (status != HW_OK && hw_wal_writer_rollback(a->writer, &ignored) != HW_OK)
        hw_env_log(a->file->shim->env, HW_LOG_WARN,
                   "event=wal_index_not_cleaned db=%s error=\"%s\"", a->file->path,
                   ignored.message);
    return status;
}

/* The WAL begins anew where that is possible: nobody else may ever write to this database. */
static void restart(struct appender *a, uint32_t least_frames)
{
    struct hw_error ignored;

    if (hw_wal_writer_position(a->writer).frame < least_frames)
        return;
    if (hw_wal_writer_restart(a->writer, &ignored) == HW_OK)
        a->visible = 0; /* all of it is in the file */
}

static enum hw_status appender_open(struct appender *a, struct hw_error *err)
{
    struct hw_env *env = a->file->shim->env;
    char *path = hw_format("%s-wal", a->file->path);
    enum hw_status status = HW_OK;

    a->page = hw_alloc(a->head->page_size);
    if (path == NULL || a->page == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory to append to the WAL");
    if (status == HW_OK)
        status = hw_transaction_decoder_new(&a->decoder, err);
    if (status == HW_OK)
        status = hw_wal_index_shared(a->file->layer.below, &a->index, err);
    if (status == HW_OK)
        status = env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE, &a->wal, err);
    hw_free(path);
    /* Locks and syncs go through the shim, so that the gate has its say in a restart. */
    if (status == HW_OK)
        status = hw_wal_writer_open(&a->file->layer.file, a->index, a->wal, a->head->page_size,
                                    &a->writer, err);
    if (status == HW_OK)
        a->visible = hw_wal_writer_position(a->writer).frame;
    return status;
}

static void appender_close(struct appender *a)
{
    struct hw_env *env = a->file->shim->env;

    hw_wal_writer_close(a->writer);
    env->ops->close(a->wal);
    hw_wal_index_free(a->index);
    hw_transaction_decoder_free(a->decoder);
    hw_free(a->page);
}

/* ------------------------------------------------------------------------- the connection */

static enum hw_status shim_file(sqlite3 *db, struct hw_shim_file **out, struct hw_error *err)
{
    struct hw_shim_file *file = NULL;

    if (sqlite3_file_control(db, "main", HW_FCNTL_FILE, &file) != SQLITE_OK ||
        file->role != HW_SHIM_PRIMARY)
        return hw_fail(err, HW_EREADONLY, "not a primary's connection");
    *out = file;
    return HW_OK;
}

static enum hw_status run(sqlite3 *db, const char *sql, struct hw_error *err)
{
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);

    switch (code & 0xff) {
    case SQLITE_OK:
        return HW_OK;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return hw_fail(err, HW_EBUSY, "the database is locked");
    case SQLITE_NOMEM:
        return hw_fail(err, HW_ENOMEM, "no memory");
    case SQLITE_FULL:
        return hw_fail(err, HW_ENOSPC, "no room on the disk");
    default:
        return hw_fail(err, HW_EIO, "%s: %s", sql, sqlite3_errmsg(db));
    }
}

/* What SQLite says in the transaction: an empty WAL has an index that does not. */
static enum hw_status number_of(sqlite3 *db, const char *sql, uint32_t *out, struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);

    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    *out = code == SQLITE_ROW ? (uint32_t)sqlite3_column_int64(statement, 0) : 0;
    (void)sqlite3_finalize(statement); /* `code` says what went wrong */
    return code == SQLITE_ROW ? HW_OK : hw_fail(err, HW_EIO, "%s: %s", sql, sqlite3_errmsg(db));
}

static enum hw_status head_now(sqlite3 *db, struct hw_shim_file *file, struct hw_vfs_head *out,
                               struct hw_error *err)
{
    struct hw_capture_end end;
    uint32_t page_size, page_count;
    enum hw_status status = number_of(db, "PRAGMA page_size", &page_size, err);

    if (status == HW_OK)
        status = number_of(db, "PRAGMA page_count", &page_count, err);
    if (status == HW_OK)
        status = hw_capture_end(file->capture, &end, err);
    if (status == HW_ENOTFOUND || (status == HW_OK && end.page_count == 0))
        return hw_fail(err, HW_EBUSY, "there is no log yet");
    if (status == HW_OK && end.page_count != page_count)
        return hw_fail(err, HW_EBUSY, "the log is not at the newest commit yet");
    if (status != HW_OK)
        return status;
    *out = (struct hw_vfs_head){.length = end.length,
                                .seq = end.seq,
                                .sum = end.sum,
                                .page_size = page_size,
                                .page_count = end.page_count};
    return HW_OK;
}

enum hw_status hw_vfs_hold(sqlite3 *db, uint64_t timeout_ms, struct hw_vfs_head *head,
                           struct hw_error *err)
{
    struct hw_shim_file *file = NULL;
    uint64_t seq;
    enum hw_status status = shim_file(db, &file, err);

    if (status == HW_OK)
        status = run(db, "BEGIN IMMEDIATE", err);
    if (status != HW_OK)
        return status;
    status = hw_capture_wait_logged(file->capture, timeout_ms, &seq, err);
    if (status == HW_OK)
        status = head_now(db, file, head, err);
    if (status != HW_OK)
        hw_vfs_let_go(db);
    return status;
}

void hw_vfs_let_go(sqlite3 *db)
{
    /* It changed nothing that it knows of: this only gives the locks back.  Not ROLLBACK: there
     * SQLite takes over the wal-index header as it is, and would believe in the pages that it has.
     */
    if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

enum hw_status hw_vfs_commit(sqlite3 *db, const struct hw_vfs_head *head,
                             const struct hw_vfs_commit *commit, bool *is_perhaps,
                             struct hw_error *err)
{
    struct appender a = {.head = head, .commit = commit, .sum = head->sum};
    uint64_t base = hw_origin_base(&commit->origin);
    enum hw_status status = shim_file(db, &a.file, err);

    *is_perhaps = false;
    if (status != HW_OK)
        return status;
    if (commit->sum_before != head->sum || base > head->length ||
        (head->seq != UINT64_MAX && head->seq >= base && head->seq >= commit->unchanged_to))
        return hw_fail(err, HW_AGAIN, "somebody else committed before it");
    status = appender_open(&a, err);
    if (status == HW_OK) {
        restart(&a, RESTART_FRAMES);
        status = publish(&a, take_all(&a, err), commit->page_count, is_perhaps, err);
    }
    appender_close(&a);
    return status;
}

/* The first page once more, as it is. */
static enum hw_status take_first(struct appender *a, struct hw_error *err)
{
    enum hw_status status = read_page(a, 1, a->page, err);

    if (status == HW_OK) {
        tell_round(a);
        status = hw_wal_writer_add(a->writer, 1, a->page, err);
    }
    return status;
}

enum hw_status hw_vfs_touch(sqlite3 *db, struct hw_error *err)
{
    struct hw_vfs_head head;
    struct appender a = {.head = &head};
    bool is_perhaps = false; /* nobody asks for it */
    enum hw_status status = shim_file(db, &a.file, err);

    if (status == HW_OK && !(a.file->shm_exclusive & 1U << HW_SHM_WRITE))
        return hw_fail(err, HW_EMISUSE, "not in a transaction of BEGIN IMMEDIATE");
    if (status == HW_OK)
        status = head_now(db, a.file, &head, err);
    if (status == HW_OK) {
        status = appender_open(&a, err);
        if (status == HW_OK) {
            restart(&a, 1);
            status = publish(&a, take_first(&a, err), head.page_count, &is_perhaps, err);
        }
        appender_close(&a);
    }
    hw_vfs_let_go(db);
    return status;
}

enum hw_status hw_vfs_logged(sqlite3 *db, uint64_t timeout_ms, struct hw_error *err)
{
    struct hw_shim_file *file = NULL;
    uint64_t seq;
    enum hw_status status = shim_file(db, &file, err);

    return status == HW_OK ? hw_capture_wait_logged(file->capture, timeout_ms, &seq, err) : status;
}
