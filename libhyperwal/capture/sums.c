/* Implements the page sums of capture/internal.h.  The file's format is in docs/FORMAT.md. */
#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/internal.h"

/*
 *   byte 0       4         8          12     16    24     32
 *        | magic | version | pagesize | zero | seq | zero | 8 bytes a page, from page 1 ...
 *
 * Little-endian.  The XOR of the pages' words must be the state sum of `seq`, which the note in the
 * log has: a file that was half written does not match.
 */
enum {
    MAGIC = 0x53555348,
    VERSION = 1,
    HEADER_SIZE = 32,
    PENDING_MAX = 1 << 16, /* changes a batch keeps in memory */
    CHUNK_WORDS = 8192,
};

struct pending {
    uint32_t page_number; /* 0: the slot is free */
    uint64_t sum;
};

struct hw_sums {
    struct hw_env *env;
    struct hw_file *file; /* owned */
    uint32_t page_size;
    bool wrote_early;
    bool is_behind;          /* of a batch that is durable some words are pending still */
    struct pending *pending; /* owned: open addressing, 2 * PENDING_MAX slots at most */
    uint32_t pending_count, pending_capacity;
};

enum hw_status hw_sums_open(struct hw_env *env, const char *dir, uint32_t page_size,
                            struct hw_sums **out, struct hw_error *err)
{
    struct hw_sums *sums = hw_zalloc(sizeof(*sums));
    enum hw_status status = HW_OK;
    char *path = NULL;

    if (sums == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the page sums");
    sums->env = env;
    sums->page_size = page_size;
    sums->pending_capacity = 1024;
    sums->pending = hw_zalloc(sums->pending_capacity * sizeof(*sums->pending));
    path = hw_format("%s/sums", dir);
    if (sums->pending == NULL || path == NULL) {
        status = hw_fail(err, HW_ENOMEM, "no memory for the page sums");
        goto done;
    }
    status =
        env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &sums->file, err);
done:
    hw_free(path);
    if (status != HW_OK) {
        hw_sums_close(sums);
        return status;
    }
    *out = sums;
    return HW_OK;
}

void hw_sums_close(struct hw_sums *sums)
{
    if (sums == NULL)
        return;
    sums->env->ops->close(sums->file);
    hw_free(sums->pending);
    hw_free(sums);
}

static uint64_t word_offset(uint32_t page_number)
{
    return HEADER_SIZE + ((uint64_t)page_number - 1) * 8;
}

static enum hw_status word_read(struct hw_sums *sums, uint32_t page_number, uint64_t *out,
                                struct hw_error *err)
{
    uint8_t bytes[8] = {0};
    enum hw_status status;

    status =
        sums->env->ops->read_at(sums->file, word_offset(page_number), bytes, sizeof(bytes), err);
    if (status < 0)
        return status;
    *out = hw_get_le64(bytes); /* beyond the end of the file: zero, which no page matches */
    return HW_OK;
}

static enum hw_status word_write(struct hw_sums *sums, uint32_t page_number, uint64_t sum,
                                 struct hw_error *err)
{
    uint8_t bytes[8];

    hw_put_le64(bytes, sum);
    return sums->env->ops->write_at(sums->file, word_offset(page_number), bytes, sizeof(bytes),
                                    err);
}

bool hw_sums_matches(struct hw_sums *sums, uint64_t seq, uint32_t page_count, uint64_t sum,
                     uint32_t lock_page)
{
    uint8_t header[HEADER_SIZE];
    uint8_t *chunk = NULL;
    uint64_t total = 0;
    bool matches = false;

    if (sums->env->ops->read_at(sums->file, 0, header, sizeof(header), NULL) != HW_OK ||
        hw_get_le32(header) != MAGIC || hw_get_le32(header + 4) != VERSION ||
        hw_get_le32(header + 8) != sums->page_size || hw_get_le64(header + 16) != seq)
        return false;
    chunk = hw_alloc(CHUNK_WORDS * 8);
    if (chunk == NULL)
        return false;
    for (uint64_t first = 1; first <= page_count; first += CHUNK_WORDS) {
        uint64_t count =
            page_count - first + 1 < CHUNK_WORDS ? page_count - first + 1 : CHUNK_WORDS;

        if (sums->env->ops->read_at(sums->file, word_offset((uint32_t)first), chunk, count * 8,
                                    NULL) != HW_OK)
            goto done;
        for (uint64_t i = 0; i < count; i++)
            if (first + i != lock_page)
                total ^= hw_get_le64(chunk + 8 * i);
    }
    matches = total == sum;
done:
    hw_free(chunk);
    return matches;
}

static struct pending *pending_find(struct hw_sums *sums, uint32_t page_number)
{
    uint32_t mask = sums->pending_capacity - 1;
    uint32_t i = (page_number * 2654435761U) & mask;

    while (sums->pending[i].page_number != 0 && sums->pending[i].page_number != page_number)
        i = (i + 1) & mask;
    return &sums->pending[i];
}

enum hw_status hw_sums_get(struct hw_sums *sums, uint32_t page_number, uint64_t *out,
                           struct hw_error *err)
{
    const struct pending *found = pending_find(sums, page_number);

    if (found->page_number == page_number) {
        *out = found->sum;
        return HW_OK;
    }
    return word_read(sums, page_number, out, err);
}

static void pending_clear(struct hw_sums *sums)
{
    if (sums->pending_count > 0)
        memset(sums->pending, 0, sums->pending_capacity * sizeof(*sums->pending));
    sums->pending_count = 0;
}

static enum hw_status pending_grow(struct hw_sums *sums)
{
    struct pending *old = sums->pending;
    uint32_t old_capacity = sums->pending_capacity;
    struct pending *bigger = hw_zalloc(2 * (size_t)old_capacity * sizeof(*bigger));

    if (bigger == NULL)
        return HW_ENOMEM;
    sums->pending = bigger;
    sums->pending_capacity = 2 * old_capacity;
    for (uint32_t i = 0; i < old_capacity; i++)
        if (old[i].page_number != 0)
            *pending_find(sums, old[i].page_number) = old[i];
    hw_free(old);
    return HW_OK;
}

static enum hw_status header_write(struct hw_sums *sums, uint32_t magic, uint64_t seq,
                                   struct hw_error *err)
{
    uint8_t header[HEADER_SIZE] = {0};

    hw_put_le32(header, magic);
    hw_put_le32(header + 4, VERSION);
    hw_put_le32(header + 8, sums->page_size);
    hw_put_le64(header + 16, seq);
    return sums->env->ops->write_at(sums->file, 0, header, sizeof(header), err);
}

static enum hw_status pending_write(struct hw_sums *sums, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (uint32_t i = 0; i < sums->pending_capacity && status == HW_OK; i++)
        if (sums->pending[i].page_number != 0)
            status = word_write(sums, sums->pending[i].page_number, sums->pending[i].sum, err);
    if (status == HW_OK)
        pending_clear(sums);
    return status;
}

enum hw_status hw_sums_set(struct hw_sums *sums, uint32_t page_number, uint64_t sum,
                           struct hw_error *err)
{
    struct pending *found;
    enum hw_status status;

    if (sums->pending_count >= PENDING_MAX) {
        status = header_write(sums, 0, 0, err); /* a crash from here on leaves an invalid file */
        if (status == HW_OK)
            status = pending_write(sums, err);
        if (status != HW_OK)
            return status;
        sums->wrote_early = true;
    }
    if (2 * sums->pending_count >= sums->pending_capacity && pending_grow(sums) != HW_OK)
        return hw_fail(err, HW_ENOMEM, "no memory for changed page sums");
    found = pending_find(sums, page_number);
    if (found->page_number == 0)
        sums->pending_count++;
    *found = (struct pending){.page_number = page_number, .sum = sum};
    return HW_OK;
}

/*
 * What cannot be written stays pending: the file's header is that of an older seq until the next
 * commit writes all of it, and whoever asks here has the words.
 */
enum hw_status hw_sums_commit(struct hw_sums *sums, uint64_t seq, struct hw_error *err)
{
    enum hw_status status = pending_write(sums, err);

    if (status == HW_OK)
        status = header_write(sums, MAGIC, seq, err);
    sums->wrote_early = false;
    sums->is_behind = sums->pending_count > 0;
    return status;
}

enum hw_status hw_sums_abort(struct hw_sums *sums, struct hw_error *err)
{
    bool early = sums->wrote_early, behind = sums->is_behind;

    pending_clear(sums);
    sums->wrote_early = sums->is_behind = false;
    if (early)
        return hw_fail(err, HW_ECORRUPT,
                       "the sums of a large transaction were written, it was not");
    if (behind)
        return hw_fail(err, HW_ECORRUPT, "page sums could not be written, and are lost");
    return HW_OK;
}

void hw_sums_invalidate(struct hw_sums *sums)
{
    if (sums == NULL)
        return;
    pending_clear(sums);
    sums->wrote_early = sums->is_behind = false;
    (void)header_write(sums, 0, 0, NULL); /* if it fails the content does not match either */
}
