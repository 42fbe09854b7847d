/*
 * replica_fixture.h - a log in memory, made from a database in memory as capture would make it, and
 * a replica of it on the simulated disk
 */
#ifndef HW_TEST_REPLICA_FIXTURE_H
#define HW_TEST_REPLICA_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "sim/sim.h"

#define assert_status(got, want, err)                                                              \
    do {                                                                                           \
        enum hw_status status_ = (got);                                                            \
        if (status_ != (want))                                                                     \
            fail_msg("%s, not %s: %s", hw_status_name(status_), hw_status_name(want),              \
                     (err)->message);                                                              \
    } while (0)

static inline void run_sql(sqlite3 *db, const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static inline uint64_t fingerprint(sqlite3 *db)
{
    uint64_t hash = 0;
    char message[256];

    if (!sim_fingerprint(db, &hash, message))
        fail_msg("%s", message);
    return hash;
}

/* ------------------------------------------------------------------------------------ log */

struct maker {
    sqlite3 *db; /* the primary */
    struct hw_core *core;
    uint32_t page_size, page_count;
    uint8_t *image; /* of the last entry, page_count pages */
    uint64_t sum;
    uint64_t seq; /* of the last entry with a state */
    uint64_t snapshot_seq;
    int64_t time_ms;
    size_t block_pages; /* a transaction is split after so many; 0: as the encoder wants */
};

static inline uint64_t sum_of(const uint8_t *image, uint32_t page_count, uint32_t page_size)
{
    uint64_t sum = 0;

    for (uint32_t page = 1; page <= page_count; page++)
        sum ^= hw_page_sum(page, image + (size_t)(page - 1) * page_size, page_size);
    return sum;
}

static inline void maker_add_block(struct maker *m, enum hw_entry_type type, bool starts, bool ends,
                                   const struct hw_buffer *body)
{
    struct hw_entry_header header = {.type = type,
                                     .starts = starts,
                                     .ends = ends,
                                     .time_ms = m->time_ms,
                                     .snapshot_seq = m->snapshot_seq,
                                     .label_seq = UINT64_MAX};
    struct hw_buffer block = {0};
    struct hw_error err = {0};

    hw_entry_header_encode(&header, hw_core_batch_next(m->core), &block);
    hw_buffer_add(&block, body->bytes, body->size);
    assert_false(block.failed);
    assert_status(hw_core_batch_add(m->core, block.bytes, block.size, &err), HW_OK, &err);
    hw_buffer_release(&block);
}

static inline void maker_begin(struct maker *m)
{
    struct hw_error err = {0};

    m->time_ms += 1000;
    assert_status(hw_core_batch_begin(m->core, &err), HW_OK, &err);
}

static inline void maker_end(struct maker *m)
{
    struct hw_error err = {0};

    assert_status(hw_core_batch_commit(m->core, NULL, 0, &err), HW_OK, &err);
}

/* A log in `dir`; NULL: in memory. */
static inline void maker_open_in(struct maker *m, struct hw_env *env, const char *dir,
                                 uint32_t page_size)
{
    struct hw_genesis genesis = {.format_version = HW_FORMAT_VERSION, .page_size = page_size};
    struct hw_buffer body = {0};
    struct hw_error err = {0};
    char *pragma = hw_format("PRAGMA page_size=%u", (unsigned)page_size);

    *m = (struct maker){.page_size = page_size, .snapshot_seq = UINT64_MAX, .time_ms = 1000000};
    assert_int_equal(
        sqlite3_open_v2(":memory:", &m->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL),
        SQLITE_OK);
    run_sql(m->db, pragma);
    assert_status(hw_core_create(env, dir, &m->core, &err), HW_OK, &err);
    maker_begin(m);
    hw_genesis_encode(&genesis, &body);
    maker_add_block(m, HW_ENTRY_GENESIS, true, true, &body);
    maker_end(m);
    hw_buffer_release(&body);
    hw_free(pragma);
}

static inline void maker_open(struct maker *m, uint32_t page_size)
{
    maker_open_in(m, hw_env_posix(), NULL, page_size);
}

static inline void maker_close(struct maker *m)
{
    hw_core_close(m->core);
    sqlite3_close(m->db);
    sqlite3_free(m->image);
}

/* The primary as it would be on disk in WAL mode. */
static inline uint8_t *maker_image(struct maker *m, uint32_t *page_count)
{
    sqlite3_int64 size = 0;
    uint8_t *image = sqlite3_serialize(m->db, "main", &size, 0);

    assert_non_null(image);
    image[18] = image[19] = 2;
    *page_count = (uint32_t)(size / m->page_size);
    return image;
}

struct block_sums {
    uint64_t before, after;
};

static inline void maker_encode(struct maker *m, struct hw_transaction_encoder *encoder,
                                uint32_t page_count, struct block_sums sums, bool starts, bool ends)
{
    struct hw_transaction transaction = {
        .page_count = page_count, .sum_before = sums.before, .sum_after = sums.after};
    struct hw_buffer body = {0};
    struct hw_error err = {0};

    assert_status(hw_transaction_encode(encoder, &transaction, &body, &err), HW_OK, &err);
    maker_add_block(m, HW_ENTRY_TRANSACTION, starts, ends, &body);
    hw_transaction_encoder_clear(encoder);
    hw_buffer_release(&body);
}

/* Log the change since the last entry; `wrong` is XORed into the last sum. */
static inline void maker_log(struct maker *m, bool whole, uint64_t wrong)
{
    struct hw_transaction_encoder *encoder;
    struct hw_error err = {0};
    uint32_t page_count;
    uint8_t *image = maker_image(m, &page_count);
    struct block_sums sums = {m->sum, m->sum};
    bool starts = true;

    assert_status(hw_transaction_encoder_new(m->page_size, &encoder, &err), HW_OK, &err);
    maker_begin(m);
    for (uint32_t page = 1; page <= page_count; page++) {
        const uint8_t *now = image + (size_t)(page - 1) * m->page_size, *old = NULL;
        enum hw_status status;

        if (page <= m->page_count)
            old = m->image + (size_t)(page - 1) * m->page_size;
        if (old != NULL && memcmp(old, now, m->page_size) == 0)
            continue;
        status = HW_ELIMIT;
        if (m->block_pages == 0 || hw_transaction_encoder_count(encoder) < m->block_pages)
            status = hw_transaction_encoder_add(encoder, page, now, whole ? NULL : old, &err);
        if (status == HW_ELIMIT) {
            maker_encode(m, encoder, page_count, sums, starts, false);
            starts = false;
            sums.before = sums.after;
            status = hw_transaction_encoder_add(encoder, page, now, whole ? NULL : old, &err);
        }
        assert_status(status, HW_OK, &err);
        if (old != NULL)
            sums.after ^= hw_page_sum(page, old, m->page_size);
        sums.after ^= hw_page_sum(page, now, m->page_size);
    }
    for (uint32_t page = page_count + 1; page <= m->page_count; page++)
        sums.after ^= hw_page_sum(page, m->image + (size_t)(page - 1) * m->page_size, m->page_size);
    sums.after ^= wrong;
    maker_encode(m, encoder, page_count, sums, starts, true);
    m->seq = hw_core_batch_next(m->core) - 1;
    maker_end(m);
    hw_transaction_encoder_free(encoder);
    sqlite3_free(m->image);
    m->image = image;
    m->page_count = page_count;
    m->sum = sum_of(image, page_count, m->page_size);
    assert_true(wrong != 0 || m->sum == sums.after);
}

static inline void maker_commit(struct maker *m, const char *sql)
{
    run_sql(m->db, sql);
    maker_log(m, false, 0);
}

/* A snapshot of the last entry's state. */
static inline void maker_snapshot(struct maker *m)
{
    uint32_t groups = (m->page_count + HW_GROUP_PAGES - 1) / HW_GROUP_PAGES;
    struct hw_snapshot_group *list = hw_zalloc(groups * sizeof(*list));
    struct hw_snapshot snapshot = {.page_size = m->page_size,
                                   .page_count = m->page_count,
                                   .sum = m->sum,
                                   .least_base = m->seq,
                                   .greatest_base = m->seq,
                                   .group_count = groups,
                                   .groups_here = groups};
    struct hw_group_coder *coder;
    struct hw_buffer body = {0};
    struct hw_error err = {0};
    uint64_t index_seq;

    assert_status(hw_group_coder_new(&coder, &err), HW_OK, &err);
    maker_begin(m);
    for (uint32_t i = 0; i < groups; i++) {
        uint32_t left = m->page_count - i * HW_GROUP_PAGES;
        struct hw_group group = {.page_size = m->page_size,
                                 .group = i,
                                 .page_count = left < HW_GROUP_PAGES ? left : HW_GROUP_PAGES,
                                 .base_seq = m->seq};
        list[i].block_seq = hw_core_batch_next(m->core);
        list[i].base_seq = m->seq;
        hw_buffer_clear(&body);
        assert_status(hw_group_encode(coder, &group, list[i].block_seq,
                                      m->image + (size_t)i * HW_GROUP_PAGES * m->page_size, &body,
                                      &err),
                      HW_OK, &err);
        maker_add_block(m, HW_ENTRY_GROUP, true, true, &body);
    }
    hw_buffer_clear(&body);
    index_seq = hw_core_batch_next(m->core);
    hw_snapshot_encode(&snapshot, index_seq, list, &body);
    maker_add_block(m, HW_ENTRY_SNAPSHOT, true, true, &body);
    maker_end(m);
    m->snapshot_seq = index_seq;
    hw_group_coder_free(coder);
    hw_buffer_release(&body);
    hw_free(list);
}

/* The change since the last entry is not in the log. */
static inline void maker_gap(struct maker *m)
{
    struct hw_gap gap = {.from_sum = m->sum, .from_page_count = m->page_count, .reason = "test"};
    struct hw_buffer body = {0};

    sqlite3_free(m->image);
    m->image = maker_image(m, &m->page_count);
    m->sum = sum_of(m->image, m->page_count, m->page_size);
    gap.to_sum = m->sum;
    gap.to_page_count = m->page_count;
    maker_begin(m);
    hw_gap_encode(&gap, &body);
    maker_add_block(m, HW_ENTRY_GAP, true, true, &body);
    m->seq = hw_core_batch_next(m->core) - 1;
    maker_end(m);
    hw_buffer_release(&body);
}

static inline void maker_label(struct maker *m, const char *name)
{
    struct hw_label label = {{0}};
    struct hw_buffer body = {0};

    strncpy(label.name, name, sizeof(label.name) - 1);
    maker_begin(m);
    hw_label_encode(&label, &body);
    maker_add_block(m, HW_ENTRY_LABEL, true, true, &body);
    maker_end(m);
    hw_buffer_release(&body);
}

/* -------------------------------------------------------------------------------- replica */

#define REPLICA "/replica.db"

static inline enum hw_status replica_open(struct sim *sim, struct hw_core *core,
                                          struct hw_replica **out, struct hw_error *err)
{
    return hw_replica_open(sim_env(sim), sim_vfs(sim), core, REPLICA, NULL, NULL, out, err);
}

/* Step until all is applied. */
static inline enum hw_status catch_up(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (int i = 0; i < 100000 && status == HW_OK; i++)
        status = hw_replica_step(replica, err);
    return status;
}

static inline sqlite3 *reader_open(struct sim *sim)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open_v2(REPLICA, &db, SQLITE_OPEN_READWRITE, sim_vfs(sim)->zName),
                     SQLITE_OK);
    run_sql(db, "PRAGMA cache_size=4");
    return db;
}

static inline void assert_replica_is_primary(struct sim *sim, struct maker *m)
{
    sqlite3 *db = reader_open(sim);
    char message[256];

    assert_int_equal(fingerprint(db), fingerprint(m->db));
    sqlite3_close(db);
    if (!sim_integrity_ok(sim_vfs(sim)->zName, REPLICA, message))
        fail_msg("%s", message);
}

#endif
