/*
 * Implements the writing of remote databases of vfs/shim.h: the lease comes with SQLite's write
 * lock, and the server decides where SQLite writes the commit frame.
 *
 *     xShmLock(WRITE) ─▶ lease, cache at the head ─▶ frames ... ─▶ commit frame ─▶ xShmLock(unlock)
 *                                                                     │  ▲
 *                                        header kept, page in hand:   ▼  │ yes: header, page
 *                                        all final images are known  server
 *                                                                     │ no: an error, and SQLite
 *                                                                     ▼ rolls back
 *
 * SQLite writes a frame's header, then its page.  Of one transaction frames may be written over
 * (the cache spilled), their headers again (with checksums), and the commit frame more than once
 * (padding to a sector): what comes after the server's yes in one tenure of the lock is passed.
 * Then it syncs the WAL and puts the frames into the wal-index.  Any of that may fail, and SQLite
 * rolls back; but it is committed, so no such failure is told as itself.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "entry/entry.h"
#include "vfs/shim.h"
#include "wal/wal.h"

enum {
    LEASE_MS = 1000,   /* for the server to answer; then SQLite's busy handler has its say */
    COMMIT_MS = 20000, /* for the server's answer, if the link does not tell that it is gone ... */
    PART_MS = 1000,    /* ... and so much more for each part */
    OUTCOME_MS = 10000,
};
#define UNWRITTEN UINT32_MAX /* a new page that has no frame: as a reader sees it */

struct hw_shim_write {
    struct hw_vfs_base base;
    struct hw_wal_index *index; /* owned */
    uint32_t max_frame;         /* of the wal-index, when the lock was taken */
    bool has_header;            /* of a commit frame, which is not written yet */
    uint8_t header[HW_WAL_FRAME_HEADER_SIZE];
    int64_t header_at;
    bool is_committed; /* at the server */
    struct hw_vfs_base committed;
};

/* A page of the transaction, and the frame that has it as it will be. */
struct change {
    uint32_t page, frame;
};

/* The transaction, on its way to the server. */
struct outgoing {
    struct hw_shim_file *wal, *main; /* borrowed, as all but what is said */
    struct hw_shim_write *write;
    struct hw_file *file;                   /* owned: the WAL, for reading */
    struct hw_transaction_encoder *encoder; /* owned */
    struct change *changes;                 /* owned; ascending by page */
    uint32_t count, capacity;
    uint32_t commit_frame, commit_size;
    const uint8_t *last_page; /* the commit frame's */
    uint8_t *content, *old;   /* owned */
    struct hw_buffer part;    /* owned */
    uint32_t next;            /* change */
    uint64_t sum;             /* after those before it */
    uint64_t dropped;         /* sum of the pages that leave the database */
};

static int tell(struct hw_shim_file *file, int code, const struct hw_error *error)
{
    hw_shim_tell(file->path, code, error);
    return code;
}

/* ----------------------------------------------------------------------------- the changes */

static enum hw_status add_change(struct outgoing *o, uint32_t page, uint32_t frame,
                                 struct hw_error *err)
{
    if (page == 0 || page > o->commit_size || page == hw_lock_page(o->write->base.page_size))
        return HW_OK; /* of a savepoint that was rolled back */
    if (o->count == o->capacity) {
        uint32_t capacity = o->capacity == 0 ? 64 : 2 * o->capacity;
        struct change *grown = hw_realloc(o->changes, capacity * sizeof(*grown));

        if (grown == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory for a transaction of %u frames", o->count);
        o->changes = grown;
        o->capacity = capacity;
    }
    o->changes[o->count++] = (struct change){.page = page, .frame = frame};
    return HW_OK;
}

static int by_page_and_frame(const void *a, const void *b)
{
    const struct change *one = a, *other = b;

    if (one->page != other->page)
        return one->page < other->page ? -1 : 1;
    return one->frame < other->frame ? -1 : one->frame > other->frame;
}

/* The last frame of each page. */
static void keep_last(struct outgoing *o)
{
    uint32_t kept = 0;

    if (o->count == 0)
        return;
    qsort(o->changes, o->count, sizeof(*o->changes), by_page_and_frame);
    for (uint32_t i = 0; i < o->count; i++)
        if (i + 1 == o->count || o->changes[i + 1].page != o->changes[i].page)
            o->changes[kept++] = o->changes[i];
    o->count = kept;
}

static bool has_page(const struct outgoing *o, uint32_t count, uint32_t page)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (o->changes[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && o->changes[low].page == page;
}

static enum hw_status read_wal(struct outgoing *o, uint32_t frame, unsigned skip, void *out,
                               int size, struct hw_error *err)
{
    int64_t at = (int64_t)hw_wal_frame_offset(o->write->base.page_size, frame) + skip;
    int code = o->wal->layer.below->pMethods->xRead(o->wal->layer.below, out, size, at);

    return code == SQLITE_OK ? HW_OK
                             : hw_fail(err, HW_EIO, "frame %u of the cache's WAL cannot be read",
                                       (unsigned)frame);
}

static enum hw_status collect(struct outgoing *o, struct hw_error *err)
{
    uint8_t header[HW_WAL_FRAME_HEADER_SIZE];
    enum hw_status status = HW_OK;
    uint32_t written;

    for (uint32_t frame = o->write->max_frame + 1; frame < o->commit_frame && status == HW_OK;
         frame++) {
        status = read_wal(o, frame, 0, header, sizeof(header), err);
        if (status == HW_OK)
            status = add_change(o, hw_get_be32(header), frame, err);
    }
    if (status == HW_OK)
        status = add_change(o, hw_get_be32(o->write->header), o->commit_frame, err);
    keep_last(o);
    written = o->count;
    for (uint32_t page = o->write->base.page_count + 1; page <= o->commit_size && status == HW_OK;
         page++)
        if (!has_page(o, written, page))
            status = add_change(o, page, UNWRITTEN, err);
    keep_last(o);
    return status;
}

/* The page as it was before. */
static enum hw_status read_old(struct outgoing *o, uint32_t page, uint8_t *out,
                               struct hw_error *err)
{
    return hw_wal_read_page(o->main->layer.below, o->write->index, o->file,
                            o->write->base.page_size, page, o->write->max_frame, out, NULL, err);
}

static enum hw_status read_new(struct outgoing *o, const struct change *change, uint8_t *out,
                               struct hw_error *err)
{
    uint32_t page_size = o->write->base.page_size;

    if (change->frame == UNWRITTEN)
        return read_old(o, change->page, out, err);
    if (change->frame != o->commit_frame)
        return read_wal(o, change->frame, HW_WAL_FRAME_HEADER_SIZE, out, (int)page_size, err);
    memcpy(out, o->last_page, page_size);
    return HW_OK;
}

/* ------------------------------------------------------------------------------- the parts */

/* As many pages from o->next on as a block bears are in the encoder. */
static enum hw_status fill_block(struct outgoing *o, struct hw_error *err)
{
    uint32_t page_size = o->write->base.page_size;

    hw_transaction_encoder_clear(o->encoder);
    for (; o->next < o->count; o->next++) {
        const struct change *change = &o->changes[o->next];
        bool is_old = change->page <= o->write->base.page_count;
        enum hw_status status = read_new(o, change, o->content, err);

        if (status == HW_OK && is_old)
            status = read_old(o, change->page, o->old, err);
        if (status == HW_OK)
            status = hw_transaction_encoder_add(o->encoder, change->page, o->content,
                                                is_old ? o->old : NULL, err);
        if (status == HW_ELIMIT && hw_transaction_encoder_count(o->encoder) > 0)
            return HW_OK;
        if (status != HW_OK)
            return status;
        o->sum ^= hw_page_sum(change->page, o->content, page_size);
        if (is_old)
            o->sum ^= hw_page_sum(change->page, o->old, page_size);
    }
    o->sum ^= o->dropped;
    return HW_OK;
}

/* Pages that leave a shrinking database. */
static enum hw_status sum_dropped(struct outgoing *o, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (uint32_t page = o->commit_size + 1; page <= o->write->base.page_count && status == HW_OK;
         page++) {
        status = read_old(o, page, o->old, err);
        if (status == HW_OK)
            o->dropped ^= hw_page_sum(page, o->old, o->write->base.page_size);
    }
    return status;
}

/* How many parts there will be, and the state sum after them. */
static enum hw_status measure(struct outgoing *o, struct hw_vfs_outgoing *out, struct hw_error *err)
{
    enum hw_status status = sum_dropped(o, err);

    o->next = 0;
    o->sum = o->write->base.sum;
    while (status == HW_OK && o->next < o->count) {
        status = fill_block(o, err);
        out->part_count++;
    }
    out->sum_after = o->sum;
    o->next = 0;
    o->sum = o->write->base.sum;
    return status;
}

static enum hw_status next_part(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    struct outgoing *o = ctx;
    struct hw_transaction block = {.page_count = o->commit_size, .sum_before = o->sum};
    enum hw_status status = fill_block(o, err);

    block.sum_after = o->sum;
    hw_buffer_clear(&o->part);
    if (status == HW_OK)
        status = hw_transaction_encode(o->encoder, &block, &o->part, err);
    *body = (struct hw_slice){o->part.bytes, o->part.size};
    return status;
}

/* ------------------------------------------------------------------------------- deciding */

static enum hw_status outgoing_open(struct outgoing *o, struct hw_error *err)
{
    struct hw_env *env = o->main->shim->env;
    uint32_t page_size = o->write->base.page_size;
    enum hw_status status = HW_OK;

    o->content = hw_alloc(page_size);
    o->old = hw_alloc(page_size);
    if (o->content == NULL || o->old == NULL)
        status = hw_fail(err, HW_ENOMEM, "no memory for a page");
    if (status == HW_OK)
        status = hw_transaction_encoder_new(page_size, &o->encoder, err);
    if (status == HW_OK)
        status = env->ops->open(env, sqlite3_filename_wal(o->main->cache_name), HW_OPEN_READ,
                                &o->file, err);
    return status;
}

static void outgoing_close(struct outgoing *o)
{
    struct hw_env *env = o->main->shim->env;

    env->ops->close(o->file);
    hw_transaction_encoder_free(o->encoder);
    hw_buffer_release(&o->part);
    hw_free(o->changes);
    hw_free(o->content);
    hw_free(o->old);
}

static void origin_format(const struct hw_origin *origin, char out[HW_ORIGIN_TEXT_SIZE])
{
    for (unsigned i = 0; i < HW_ORIGIN_SIZE; i++)
        (void)snprintf(out + (size_t)2 * i, 3, "%02x", origin->bytes[i]);
}

/*
 * SQLite's code for a no.  Not SQLITE_BUSY itself: that would leave the transaction of a COMMIT
 * open, on a state that is not the newest any more.
 */
static int code_of(const struct hw_vfs_answer *answer, const struct hw_origin *origin,
                   struct hw_error *error)
{
    char id[HW_ORIGIN_TEXT_SIZE];

    switch (answer->verdict) {
    case HW_VERDICT_COMMITTED:
        return SQLITE_OK;
    case HW_VERDICT_LATE:
        (void)hw_fail(error, HW_EBUSY, "not committed, try again: %s", answer->text);
        return SQLITE_BUSY_SNAPSHOT;
    case HW_VERDICT_REFUSED:
        (void)hw_fail(error, HW_EREFUSED, "not committed: %s", answer->text);
        return SQLITE_READONLY;
    case HW_VERDICT_WRONG:
        (void)hw_fail(error, HW_ECORRUPT, "not committed: %s", answer->text);
        return HW_VFS_CORRUPT;
    case HW_VERDICT_FAILED:
        (void)hw_fail(error, HW_EIO, "not committed: the server: %s", answer->text);
        return SQLITE_IOERR_WRITE;
    case HW_VERDICT_UNKNOWN:
        break;
    }
    origin_format(origin, id);
    (void)hw_fail(error, HW_EIO,
                  "not known whether it is committed: %s; ask with PRAGMA hyperwal_transaction = "
                  "'%s'",
                  answer->text, id);
    return HW_VFS_UNKNOWN;
}

static int send(struct outgoing *o, struct hw_error *error)
{
    struct hw_shim_write *write = o->write;
    struct hw_vfs_outgoing out = {
        .sum_before = write->base.sum, .page_count = o->commit_size, .next = next_part, .ctx = o};
    struct hw_vfs_answer answer = {.verdict = HW_VERDICT_FAILED};
    uint8_t chance[HW_ORIGIN_CHANCE_SIZE];
    enum hw_status status = outgoing_open(o, error);

    if (status == HW_OK)
        status = collect(o, error);
    if (status == HW_OK)
        status = measure(o, &out, error);
    if (status != HW_OK)
        return status == HW_ENOMEM ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_WRITE;
    o->main->shim->env->ops->random(o->main->shim->env, chance, sizeof(chance));
    out.origin = hw_origin_make(write->base.fence, write->base.seq + 1, write->base.log, chance);
    o->main->last_write = out.origin;
    o->main->shim->remotes->commit(o->main->cache, &out, COMMIT_MS + PART_MS * out.part_count,
                                   &answer);
    if (answer.verdict == HW_VERDICT_COMMITTED) {
        write->is_committed = true;
        write->committed = (struct hw_vfs_base){.fence = write->base.fence,
                                                .seq = answer.seq,
                                                .sum = out.sum_after,
                                                .page_size = write->base.page_size,
                                                .page_count = o->commit_size};
    }
    return code_of(&answer, &out.origin, error);
}

/* The page after the header of a commit frame: everything is known, and nobody sees it yet. */
static int decide(struct hw_shim_file *wal, const uint8_t *page)
{
    struct hw_shim_file *main = wal->main;
    struct hw_shim_write *write = main->write;
    uint64_t frame_size = HW_WAL_FRAME_HEADER_SIZE + (uint64_t)write->base.page_size;
    struct outgoing o = {
        .wal = wal,
        .main = main,
        .write = write,
        .last_page = page,
        .commit_size = hw_get_be32(write->header + 4),
        .commit_frame =
            (uint32_t)(((uint64_t)write->header_at - HW_WAL_HEADER_SIZE) / frame_size) + 1,
    };
    struct hw_error error = {0};
    int code = send(&o, &error);

    outgoing_close(&o);
    return code == SQLITE_OK ? SQLITE_OK : tell(main, code, &error);
}

/* ------------------------------------------------------------------------------ the writes */

int hw_shim_remote_passed(struct hw_shim_file *main, int code)
{
    struct hw_error error = {0};

    if (code == SQLITE_OK || main->write == NULL || !main->write->is_committed)
        return code;
    (void)hw_fail(&error, HW_EIO,
                  "committed at the server as seq %llu, but the cache cannot be written (SQLite "
                  "code %d)",
                  (unsigned long long)main->write->committed.seq, code);
    return tell(main, HW_VFS_UNKNOWN, &error);
}

static int below_write(struct hw_shim_file *wal, const void *bytes, int size, int64_t offset)
{
    return hw_shim_remote_passed(
        wal->main, wal->layer.below->pMethods->xWrite(wal->layer.below, bytes, size, offset));
}

int hw_shim_remote_wal_write(struct hw_shim_file *wal, const uint8_t *bytes, int size,
                             int64_t offset)
{
    struct hw_shim_write *write = wal->main->write;
    int code;

    if (write == NULL)
        return SQLITE_READONLY; /* nobody writes it without the lock */
    if (size == HW_WAL_FRAME_HEADER_SIZE && !write->is_committed && hw_get_be32(bytes + 4) != 0) {
        memcpy(write->header, bytes, sizeof(write->header));
        write->header_at = offset;
        write->has_header = true;
        return SQLITE_OK;
    }
    if (!write->has_header)
        return below_write(wal, bytes, size, offset);
    write->has_header = false;
    if (size != (int)write->base.page_size || offset != write->header_at + HW_WAL_FRAME_HEADER_SIZE)
        return SQLITE_IOERR_WRITE; /* no SQLite writes a frame so */
    code = decide(wal, bytes);
    if (code == SQLITE_OK)
        code = below_write(wal, write->header, sizeof(write->header), write->header_at);
    return code == SQLITE_OK ? below_write(wal, bytes, size, offset) : code;
}

/* -------------------------------------------------------------------------------- the lock */

static void write_free(struct hw_shim_file *file)
{
    hw_wal_index_free(file->write->index);
    hw_free(file->write);
    file->write = NULL;
}

static void give_back(struct hw_shim_file *file)
{
    struct hw_shim_write *write = file->write;
    struct hw_error error = {0};

    if (file->shim->remotes->write_end(file->cache, write->is_committed ? &write->committed : NULL,
                                       &error) != HW_OK)
        hw_shim_tell(file->path, SQLITE_IOERR, &error); /* who reads next learns it, too */
    write_free(file);
}

static int no_lease(struct hw_shim_file *file, enum hw_status status, struct hw_error *error)
{
    switch ((int)status) {
    case HW_EBUSY:
        return SQLITE_BUSY; /* SQLite's own words are the right ones */
    case HW_EREFUSED:
    case HW_EREADONLY:
        return tell(file, SQLITE_READONLY, error);
    case HW_ENOMEM:
        return SQLITE_IOERR_NOMEM;
    default:
        return tell(file, SQLITE_IOERR_SHMLOCK, error);
    }
}

int hw_shim_remote_write_lock(struct hw_shim_file *file)
{
    struct hw_wal_index_header header;
    struct hw_error error = {0};
    enum hw_status status;
    int code;

    file->write = hw_zalloc(sizeof(*file->write));
    if (file->write == NULL)
        return SQLITE_IOERR_NOMEM;
    status = hw_wal_index_shared(file->layer.below, &file->write->index, &error);
    if (status == HW_OK)
        status =
            file->shim->remotes->write_begin(file->cache, LEASE_MS, &file->write->base, &error);
    if (status != HW_OK) {
        write_free(file);
        return no_lease(file, status, &error);
    }
    code = file->layer.below->pMethods->xShmLock(file->layer.below, HW_SHM_WRITE, 1,
                                                 SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (code == SQLITE_OK) {
        status = hw_wal_index_read(file->write->index, &header, &error);
        if (status == HW_OK) {
            file->write->max_frame = header.max_frame;
            return SQLITE_OK;
        }
        (void)file->layer.below->pMethods->xShmLock(file->layer.below, HW_SHM_WRITE, 1,
                                                    SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
        code = SQLITE_BUSY;
    }
    give_back(file);
    return code;
}

int hw_shim_remote_write_unlock(struct hw_shim_file *file)
{
    int code = file->layer.below->pMethods->xShmLock(file->layer.below, HW_SHM_WRITE, 1,
                                                     SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);

    give_back(file);
    return code;
}

/* ---------------------------------------------------------------------------- the question */

static bool origin_parse(const char *text, struct hw_origin *out)
{
    static const char digits[] = "0123456789abcdef";

    if (strlen(text) != HW_ORIGIN_TEXT_SIZE - 1)
        return false;
    for (unsigned i = 0; i < 2 * HW_ORIGIN_SIZE; i++) {
        const char *at = strchr(digits, text[i]);

        if (at == NULL)
            return false;
        out->bytes[i / 2] = (uint8_t)(out->bytes[i / 2] << 4 | (at - digits));
    }
    return true;
}

static char *outcome_text(const struct hw_vfs_answer *answer)
{
    if (answer->verdict == HW_VERDICT_COMMITTED)
        return sqlite3_mprintf("committed %llu", (unsigned long long)answer->seq);
    if (answer->verdict == HW_VERDICT_FAILED)
        return sqlite3_mprintf("not committed");
    return sqlite3_mprintf(answer->text[0] == '\0' ? "unknown" : "unknown: %s", answer->text);
}

int hw_shim_remote_outcome(struct hw_shim_file *file, const char *text, char **out)
{
    static const struct hw_origin none;
    struct hw_origin origin = {{0}};
    struct hw_vfs_answer answer;
    char id[HW_ORIGIN_TEXT_SIZE];

    if (file->role != HW_SHIM_REMOTE) {
        *out = sqlite3_mprintf("this database is here: its transactions need not be asked after");
        return SQLITE_ERROR;
    }
    if (text == NULL) {
        origin_format(&file->last_write, id);
        *out = sqlite3_mprintf("%s", memcmp(&file->last_write, &none, sizeof(none)) == 0 ? "" : id);
        return *out == NULL ? SQLITE_NOMEM : SQLITE_OK;
    }
    if (!origin_parse(text, &origin)) {
        *out = sqlite3_mprintf("hyperwal_transaction: an id has %d hex digits",
                               HW_ORIGIN_TEXT_SIZE - 1);
        return SQLITE_ERROR;
    }
    file->shim->remotes->outcome(file->cache, &origin, OUTCOME_MS, &answer);
    *out = outcome_text(&answer);
    return *out == NULL ? SQLITE_NOMEM : SQLITE_OK;
}
