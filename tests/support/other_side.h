/*
 * tests/support/other_side.h - transactions as somebody else makes them, to be written from afar
 *
 * The other side is a copy of the database in memory: SQL changes it, and what differs is encoded.
 */
#ifndef HW_TESTS_SUPPORT_OTHER_SIDE_H
#define HW_TESTS_SUPPORT_OTHER_SIDE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/sqlite.h"
#include "entry/entry.h"
#include "vfs/vfs.h"

enum { PARTS_MAX = 16 };

struct image { /* a whole database */
    uint8_t *bytes;
    uint32_t page_size, page_count;
};

struct transaction {
    struct image before, after;
    struct hw_buffer parts[PARTS_MAX];
    unsigned count, next;
    uint32_t page_limit; /* 0: none; no page above it is encoded */
    uint64_t sum_after;  /* of what was encoded */
    struct hw_vfs_commit commit;
};

static inline struct image image_of(sqlite3 *db)
{
    sqlite3_int64 size = 0;
    struct image image = {.bytes = sqlite3_serialize(db, "main", &size, 0)};

    assert_non_null(image.bytes);
    image.page_size = (uint32_t)image.bytes[16] << 8 | image.bytes[17];
    if (image.page_size == 1)
        image.page_size = 65536;
    image.page_count = (uint32_t)((uint64_t)size / image.page_size);
    return image;
}

static inline const uint8_t *page_of(const struct image *image, uint32_t page)
{
    return page > image->page_count ? NULL : image->bytes + (size_t)(page - 1) * image->page_size;
}

static inline uint64_t sum_of(const struct image *image)
{
    uint64_t sum = 0;

    for (uint32_t page = 1; page <= image->page_count; page++)
        sum ^= hw_page_sum(page, page_of(image, page), image->page_size);
    return sum;
}

/* The same database after `sql`; in memory SQLite has no WAL, so two bytes of the header differ. */
static inline struct image changed(const struct image *before, const char *sql)
{
    sqlite3_int64 size = (sqlite3_int64)before->page_size * before->page_count;
    uint8_t *bytes = sqlite3_malloc64((sqlite3_uint64)size);
    sqlite3 *db = NULL;
    struct image after;

    memcpy(bytes, before->bytes, (size_t)size);
    bytes[18] = bytes[19] = 1;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_deserialize(db, "main", bytes, size, size,
                            SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE),
        SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    after = image_of(db);
    after.bytes[18] = after.bytes[19] = 2;
    sqlite3_close(db);
    return after;
}

static inline void part_end(struct transaction *t, struct hw_transaction_encoder *encoder,
                            uint64_t *sum, uint64_t sum_after)
{
    struct hw_transaction block = {
        .page_count = t->after.page_count, .sum_before = *sum, .sum_after = sum_after};

    assert_true(t->count < PARTS_MAX);
    assert_int_equal(hw_transaction_encode(encoder, &block, &t->parts[t->count++], NULL), HW_OK);
    hw_transaction_encoder_clear(encoder);
    *sum = sum_after;
}

static inline void encode(struct transaction *t)
{
    uint64_t begin = sum_of(&t->before), sum = begin;
    struct hw_transaction_encoder *encoder;
    uint32_t size = t->before.page_size;

    assert_int_equal(hw_transaction_encoder_new(size, &encoder, NULL), HW_OK);
    for (uint32_t page = 1; page <= t->after.page_count; page++) {
        const uint8_t *old = page_of(&t->before, page), *now = page_of(&t->after, page);

        if ((old != NULL && memcmp(old, now, size) == 0) ||
            (t->page_limit != 0 && page > t->page_limit))
            continue;
        if (hw_transaction_encoder_add(encoder, page, now, old, NULL) == HW_ELIMIT) {
            part_end(t, encoder, &begin, sum);
            assert_int_equal(hw_transaction_encoder_add(encoder, page, now, old, NULL), HW_OK);
        }
        sum ^= hw_page_sum(page, now, size) ^ (old == NULL ? 0 : hw_page_sum(page, old, size));
    }
    for (uint32_t page = t->after.page_count + 1; page <= t->before.page_count; page++)
        sum ^= hw_page_sum(page, page_of(&t->before, page), size);
    part_end(t, encoder, &begin, sum);
    t->sum_after = sum;
    hw_transaction_encoder_free(encoder);
}

static inline enum hw_status next_part(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    struct transaction *t = ctx;

    (void)err;
    if (t->next == t->count)
        return HW_END;
    *body = (struct hw_slice){t->parts[t->next].bytes, t->parts[t->next].size};
    t->next++;
    return HW_OK;
}

/* What `sql` does to the database as it is now, made on a log of `base` blocks. */
static inline void transaction_make(struct transaction *t, sqlite3 *db, const char *sql,
                                    uint64_t base)
{
    static uint32_t chance;

    chance++;
    *t = (struct transaction){.before = image_of(db)};
    t->after = changed(&t->before, sql);
    encode(t);
    t->commit = (struct hw_vfs_commit){
        .origin = hw_origin_make(1, base, (const uint8_t *)"log!", (const uint8_t *)&chance),
        .sum_before = sum_of(&t->before),
        .sum_after = sum_of(&t->after),
        .page_count = t->after.page_count,
        .next = next_part,
        .ctx = t,
    };
}

static inline void transaction_free(struct transaction *t)
{
    sqlite3_free(t->before.bytes);
    sqlite3_free(t->after.bytes);
    for (unsigned i = 0; i < PARTS_MAX; i++) /* a test may have taken some out of the count */
        hw_buffer_release(&t->parts[i]);
    *t = (struct transaction){.count = 0};
}

#endif
