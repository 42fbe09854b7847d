/* The wal-index by SQLite's rules: header, hash tables, checkpoint information. */
#include "wal/index.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"

enum {
    INDEX_VERSION = 3007000,
    CHECKPOINT_WORD = 24, /* nBackfill, aReadMark[5], locks (2 words), nBackfillAttempted, unused */
    READ_MARK_WORD = CHECKPOINT_WORD + 1,
    ATTEMPTED_WORD = CHECKPOINT_WORD + 8,
    PAGES_WORD_FIRST = 34, /* region 0: where page numbers begin */
    SLOTS_WORD = 4096,
};

static const uint32_t read_mark_unused = 0xffffffff;

struct hw_wal_index {
    sqlite3_file *file; /* borrowed; NULL: regions are our own memory */
    uint32_t **regions; /* owned array; shared: addresses that stay valid until xShmUnmap */
    uint32_t region_count;
};

static inline uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

enum hw_status hw_wal_fail_sqlite(struct hw_error *err, int code, const char *what)
{
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return hw_fail(err, HW_ENOMEM, "%s: no memory (SQLite code %d)", what, code);
    case SQLITE_FULL:
        return hw_fail(err, HW_ENOSPC, "%s: no space (SQLite code %d)", what, code);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return hw_fail(err, HW_AGAIN, "%s: locked by another (SQLite code %d)", what, code);
    case SQLITE_READONLY:
        return hw_fail(err, HW_EREADONLY, "%s: not writable (SQLite code %d)", what, code);
    default:
        return hw_fail(err, HW_EIO, "%s: SQLite code %d", what, code);
    }
}

/* ------------------------------------------------------------------------------- regions */

static enum hw_status index_new(sqlite3_file *file, struct hw_wal_index **out, struct hw_error *err)
{
    struct hw_wal_index *index = hw_zalloc(sizeof(*index));

    if (index == NULL)
        return hw_fail(err, HW_ENOMEM, "wal-index: no memory");
    index->file = file;
    *out = index;
    return HW_OK;
}

enum hw_status hw_wal_index_shared(sqlite3_file *file, struct hw_wal_index **out,
                                   struct hw_error *err)
{
    void volatile *memory = NULL;
    int code;

    if (file->pMethods == NULL || file->pMethods->iVersion < 2 || file->pMethods->xShmMap == NULL)
        return hw_fail(err, HW_EMISUSE, "wal-index: this file has no shared memory");
    code =
        file->pMethods->xShmMap(file, 0, HW_INDEX_REGION_SIZE, 0, &memory); /* xShmLock needs it */
    if (code != SQLITE_OK)
        return hw_wal_fail_sqlite(err, code, "wal-index: open shared memory");
    return index_new(file, out, err);
}

enum hw_status hw_wal_index_private(struct hw_wal_index **out, struct hw_error *err)
{
    return index_new(NULL, out, err);
}

void hw_wal_index_free(struct hw_wal_index *index)
{
    if (index == NULL)
        return;
    if (index->file == NULL) {
        for (uint32_t i = 0; i < index->region_count; i++)
            hw_free(index->regions[i]);
    }
    hw_free(index->regions);
    hw_free(index);
}

/* Get region `number` from SQLite or from the heap; NULL: it does not exist. */
static enum hw_status region_acquire(struct hw_wal_index *index, uint32_t number, bool extend,
                                     uint32_t **out, struct hw_error *err)
{
    void volatile *memory = NULL;
    int code;

    *out = NULL;
    if (index->file == NULL) {
        if (!extend)
            return HW_OK;
        *out = hw_zalloc(HW_INDEX_REGION_SIZE);
        return *out != NULL ? HW_OK : hw_fail(err, HW_ENOMEM, "wal-index: no memory for a region");
    }
    code = index->file->pMethods->xShmMap(index->file, (int)number, HW_INDEX_REGION_SIZE, extend,
                                          &memory);
    if (code != SQLITE_OK)
        return hw_wal_fail_sqlite(err, code, "wal-index: map a region");
    *out = (uint32_t *)(uintptr_t)memory; /* every access below is an atomic word */
    return HW_OK;
}

/* Make room in the cache of addresses for region `number`. */
static enum hw_status cache_grow(struct hw_wal_index *index, uint32_t number, struct hw_error *err)
{
    uint32_t count = (number | 15) + 1;
    uint32_t **regions;

    if (number < index->region_count)
        return HW_OK;
    regions = hw_realloc(index->regions, count * sizeof(*regions));
    if (regions == NULL)
        return hw_fail(err, HW_ENOMEM, "wal-index: no memory for %u regions", (unsigned)count);
    memset(regions + index->region_count, 0, (count - index->region_count) * sizeof(*regions));
    index->regions = regions;
    index->region_count = count;
    return HW_OK;
}

/* HW_END: the region does not exist, and was not to be made. */
static enum hw_status region_get(struct hw_wal_index *index, uint32_t number, bool extend,
                                 uint32_t **out, struct hw_error *err)
{
    enum hw_status status;
    uint32_t *region;

    if (number < index->region_count && index->regions[number] != NULL) {
        *out = index->regions[number];
        return HW_OK;
    }
    status = region_acquire(index, number, extend, &region, err);
    if (status != HW_OK)
        return status;
    if (region == NULL)
        return HW_END;
    status = cache_grow(index, number, err);
    if (status != HW_OK) {
        if (index->file == NULL)
            hw_free(region);
        return status;
    }
    index->regions[number] = region;
    *out = region;
    return HW_OK;
}

static void barrier(struct hw_wal_index *index)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (index->file != NULL)
        index->file->pMethods->xShmBarrier(index->file);
}

/* -------------------------------------------------------------------------------- header */

static void header_from_words(const uint32_t words[HW_INDEX_HEADER_WORDS],
                              struct hw_wal_index_header *out)
{
    uint8_t flags[4];
    uint16_t size;

    memcpy(flags, &words[3], sizeof(flags));
    memcpy(&size, flags + 2, sizeof(size));
    *out = (struct hw_wal_index_header){
        .change = words[2],
        .big_endian_checksum = flags[1] != 0,
        .page_size = (size & 0xfe00U) + ((size & 1U) << 16),
        .max_frame = words[4],
        .page_count = words[5],
        .frame_checksum = {words[6], words[7]},
    };
    memcpy(out->salts, &words[8], sizeof(out->salts));
}

static void header_to_words(const struct hw_wal_index_header *header,
                            uint32_t words[HW_INDEX_HEADER_WORDS])
{
    uint16_t size = (uint16_t)((header->page_size & 0xff00U) | (header->page_size >> 16));
    uint8_t flags[4] = {1 /* isInit */, header->big_endian_checksum};
    uint32_t sum[2] = {0, 0};

    memcpy(flags + 2, &size, sizeof(size));
    words[0] = INDEX_VERSION;
    words[1] = 0;
    words[2] = header->change;
    memcpy(&words[3], flags, sizeof(flags));
    words[4] = header->max_frame;
    words[5] = header->page_count;
    words[6] = header->frame_checksum[0];
    words[7] = header->frame_checksum[1];
    memcpy(&words[8], header->salts, sizeof(header->salts));
    hw_wal_checksum(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, words, 40, sum);
    words[10] = sum[0];
    words[11] = sum[1];
}

enum hw_status hw_wal_index_read(struct hw_wal_index *index, struct hw_wal_index_header *out,
                                 struct hw_error *err)
{
    uint32_t one[HW_INDEX_HEADER_WORDS], two[HW_INDEX_HEADER_WORDS], sum[2] = {0, 0};
    uint8_t flags[4];
    uint32_t *region;
    enum hw_status status = region_get(index, 0, false, &region, err);

    if (status == HW_END)
        return hw_fail(err, HW_AGAIN, "wal-index: not made yet");
    if (status != HW_OK)
        return status;
    for (int i = 0; i < HW_INDEX_HEADER_WORDS; i++)
        one[i] = load(region + i);
    barrier(index); /* writers store copy two first: equal copies in this order are one version */
    for (int i = 0; i < HW_INDEX_HEADER_WORDS; i++)
        two[i] = load(region + HW_INDEX_HEADER_WORDS + i);
    memcpy(flags, &one[3], sizeof(flags));
    hw_wal_checksum(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, one, 40, sum);
    if (memcmp(one, two, sizeof(one)) != 0 || flags[0] == 0 || sum[0] != one[10] ||
        sum[1] != one[11])
        return hw_fail(err, HW_AGAIN, "wal-index: header is not valid now");
    if (one[0] != INDEX_VERSION)
        return hw_fail(err, HW_EVERSION, "wal-index: version %u is not %d: upgrade hyperwal",
                       (unsigned)one[0], INDEX_VERSION);
    header_from_words(one, out);
    return HW_OK;
}

enum hw_status hw_wal_index_publish(struct hw_wal_index *index,
                                    const struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_wal_index_header next = *header;
    uint32_t words[HW_INDEX_HEADER_WORDS];
    uint32_t *region;
    enum hw_status status = region_get(index, 0, true, &region, err);

    if (status != HW_OK)
        return status;
    next.change = load(region + 2) + 1;
    header_to_words(&next, words);
    for (int i = 0; i < HW_INDEX_HEADER_WORDS; i++)
        store(region + HW_INDEX_HEADER_WORDS + i, words[i]);
    barrier(index);
    for (int i = 0; i < HW_INDEX_HEADER_WORDS; i++)
        store(region + i, words[i]);
    return HW_OK;
}

/* ---------------------------------------------------------------------------- hash tables */

struct hash_table {
    uint32_t *pages;      /* page numbers of the frames first_frame + 1 ... */
    uint16_t *slots;      /* index into pages, from 1; 0: free */
    uint32_t first_frame; /* frames before this table */
    uint32_t capacity;    /* frames it holds */
};

static uint32_t region_of_frame(uint32_t frame)
{
    return (frame + HW_INDEX_FRAMES - HW_INDEX_FRAMES_FIRST - 1) / HW_INDEX_FRAMES;
}

static uint32_t slot_of_page(uint32_t page_number)
{
    return page_number * 383 % HW_INDEX_SLOTS;
}

static enum hw_status table_get(struct hw_wal_index *index, uint32_t number, bool extend,
                                struct hash_table *out, struct hw_error *err)
{
    uint32_t *region;
    enum hw_status status = region_get(index, number, extend, &region, err);

    if (status != HW_OK)
        return status;
    out->slots = (uint16_t *)(region + SLOTS_WORD);
    if (number == 0) {
        out->pages = region + PAGES_WORD_FIRST;
        out->first_frame = 0;
        out->capacity = HW_INDEX_FRAMES_FIRST;
    } else {
        out->pages = region;
        out->first_frame = HW_INDEX_FRAMES_FIRST + (number - 1) * HW_INDEX_FRAMES;
        out->capacity = HW_INDEX_FRAMES;
    }
    return HW_OK;
}

/* The newest frame of the page in one table, 0 if none.  HW_ECORRUPT: a chain without an end. */
static enum hw_status table_lookup(const struct hash_table *table, uint32_t page_number,
                                   uint32_t max_frame, uint32_t *frame, struct hw_error *err)
{
    uint32_t slot = slot_of_page(page_number);
    uint32_t found = 0;

    for (uint32_t probes = 0; probes < HW_INDEX_SLOTS; probes++) {
        uint32_t entry = __atomic_load_n(table->slots + slot, __ATOMIC_ACQUIRE);
        if (entry == 0) {
            *frame = found;
            return HW_OK;
        }
        if (entry <= table->capacity && table->first_frame + entry <= max_frame &&
            load(table->pages + entry - 1) == page_number && table->first_frame + entry > found)
            found = table->first_frame + entry;
        slot = (slot + 1) % HW_INDEX_SLOTS;
    }
    return hw_fail(err, HW_ECORRUPT, "wal-index: no free slot in the table of frames after %u",
                   (unsigned)table->first_frame);
}

enum hw_status hw_wal_index_lookup(struct hw_wal_index *index, uint32_t page_number,
                                   uint32_t max_frame, uint32_t *frame, struct hw_error *err)
{
    uint32_t found = 0;

    for (uint32_t number = max_frame == 0 ? 0 : region_of_frame(max_frame) + 1; number > 0;) {
        struct hash_table table;
        enum hw_status status = table_get(index, --number, false, &table, err);
        if (status == HW_END)
            return hw_fail(err, HW_ECORRUPT, "wal-index: region %u of frame %u is missing",
                           (unsigned)number, (unsigned)max_frame);
        if (status == HW_OK)
            status = table_lookup(&table, page_number, max_frame, &found, err);
        if (status != HW_OK)
            return status;
        if (found != 0)
            break;
    }
    *frame = found;
    return HW_OK;
}

enum hw_status hw_wal_index_page(struct hw_wal_index *index, uint32_t frame, uint32_t *page_number,
                                 struct hw_error *err)
{
    struct hash_table table;
    enum hw_status status = table_get(index, region_of_frame(frame), false, &table, err);

    if (status == HW_END)
        return hw_fail(err, HW_ECORRUPT, "wal-index: the region of frame %u is missing",
                       (unsigned)frame);
    if (status == HW_OK)
        *page_number = load(table.pages + (frame - table.first_frame - 1));
    return status;
}

/* Drop all entries of the table above frame `max_frame`, which it holds. */
static void table_cleanup(const struct hash_table *table, uint32_t max_frame)
{
    uint32_t keep = max_frame - table->first_frame;

    for (uint32_t slot = 0; slot < HW_INDEX_SLOTS; slot++) {
        if (__atomic_load_n(table->slots + slot, __ATOMIC_RELAXED) > keep)
            __atomic_store_n(table->slots + slot, (uint16_t)0, __ATOMIC_RELEASE);
    }
    for (uint32_t i = keep; i < table->capacity; i++)
        store(table->pages + i, 0);
}

enum hw_status hw_wal_index_cleanup(struct hw_wal_index *index, struct hw_error *err)
{
    struct hash_table table;
    uint32_t max_frame;
    uint32_t *region;
    enum hw_status status = region_get(index, 0, true, &region, err);

    if (status != HW_OK)
        return status;
    max_frame = load(region + 4);
    if (max_frame == 0)
        return HW_OK; /* the insert of frame 1 clears its table, as of each table's first frame */
    status = table_get(index, region_of_frame(max_frame), false, &table, err);
    if (status == HW_END)
        return hw_fail(err, HW_ECORRUPT, "wal-index: region of frame %u is missing",
                       (unsigned)max_frame);
    if (status != HW_OK)
        return status;
    table_cleanup(&table, max_frame);
    return HW_OK;
}

static void table_clear(const struct hash_table *table)
{
    for (uint32_t slot = 0; slot < HW_INDEX_SLOTS; slot++)
        __atomic_store_n(table->slots + slot, (uint16_t)0, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < table->capacity; i++)
        store(table->pages + i, 0);
}

enum hw_status hw_wal_index_insert(struct hw_wal_index *index, uint32_t frame, uint32_t page_number,
                                   struct hw_error *err)
{
    struct hash_table table;
    uint32_t entry, slot;
    enum hw_status status;

    assert(frame > 0 && page_number > 0);
    status = table_get(index, region_of_frame(frame), true, &table, err);
    if (status != HW_OK)
        return status;
    entry = frame - table.first_frame;
    if (entry == 1)
        table_clear(&table);
    if (load(table.pages + entry - 1) != 0) {
        /* Left by a writer that died, or rolled back, before it committed. */
        status = hw_wal_index_cleanup(index, err);
        if (status != HW_OK)
            return status;
    }
    slot = slot_of_page(page_number);
    for (uint32_t left = entry; __atomic_load_n(table.slots + slot, __ATOMIC_RELAXED) != 0;
         slot = (slot + 1) % HW_INDEX_SLOTS) {
        if (left-- == 0)
            return hw_fail(err, HW_ECORRUPT, "wal-index: too many entries before frame %u",
                           (unsigned)frame);
    }
    store(table.pages + entry - 1, page_number);
    __atomic_store_n(table.slots + slot, (uint16_t)entry, __ATOMIC_RELEASE);
    return HW_OK;
}

/* ------------------------------------------------------------------ checkpoint information */

enum hw_status hw_wal_index_backfill(struct hw_wal_index *index, uint32_t *backfilled,
                                     uint32_t *attempted, struct hw_error *err)
{
    uint32_t *region;
    enum hw_status status = region_get(index, 0, false, &region, err);

    if (status == HW_END)
        return hw_fail(err, HW_AGAIN, "wal-index: not made yet");
    if (status != HW_OK)
        return status;
    *backfilled = __atomic_load_n(region + CHECKPOINT_WORD, __ATOMIC_ACQUIRE);
    *attempted = __atomic_load_n(region + ATTEMPTED_WORD, __ATOMIC_ACQUIRE);
    return HW_OK;
}

enum hw_status hw_wal_index_reset_backfill(struct hw_wal_index *index, struct hw_error *err)
{
    uint32_t *region;
    enum hw_status status = region_get(index, 0, true, &region, err);

    if (status == HW_OK)
        __atomic_store_n(region + CHECKPOINT_WORD, 0, __ATOMIC_RELEASE);
    return status;
}

enum hw_status hw_wal_index_reset_checkpoint(struct hw_wal_index *index, struct hw_error *err)
{
    uint32_t *region;
    enum hw_status status = region_get(index, 0, true, &region, err);

    if (status != HW_OK)
        return status;
    __atomic_store_n(region + CHECKPOINT_WORD, 0, __ATOMIC_RELEASE);
    store(region + ATTEMPTED_WORD, 0);
    store(region + READ_MARK_WORD + 1, 0);
    for (int i = 2; i < HW_INDEX_READ_MARKS; i++)
        store(region + READ_MARK_WORD + i, read_mark_unused);
    return HW_OK;
}
