/* The writer among stock SQLite connections: transactions of one database replayed into another. */
#include "unit/wal_fixture.h"

/*
 * `source` is written by SQLite; its committed frames are appended to `target`, a copy of it made
 * while it was empty, which stock connections read.
 */
struct pair {
    char *dir, *source_path, *target_path;
    uint32_t page_size;
    sqlite3 *source, *target;
    struct view from, to;
    struct hw_wal_writer *writer;
    uint32_t copied; /* frames of the source's WAL */
};

static void pair_open(struct pair *p, unsigned page_size)
{
    char *pragma = hw_format("PRAGMA page_size=%u", page_size);
    sqlite3 *db;

    memset(p, 0, sizeof(*p));
    p->page_size = page_size;
    p->dir = temp_dir();
    p->source_path = hw_format("%s/source.db", p->dir);
    p->target_path = hw_format("%s/target.db", p->dir);
    db = open_db(p->source_path);
    run(db, pragma);
    run(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
            "CREATE INDEX i ON t(b); INSERT INTO t(b) VALUES('first')");
    sqlite3_close(db);
    copy_file(p->source_path, p->target_path);
    p->source = open_db(p->source_path);
    p->target = open_db(p->target_path);
    run(p->source, "PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF; BEGIN IMMEDIATE; COMMIT");
    run(p->target, "PRAGMA wal_autocheckpoint=0; SELECT count(*) FROM t");
    view_open(&p->from, p->source_path);
    view_open(&p->to, p->target_path);
    assert_int_equal(view_lock(&p->to, HW_SHM_WRITE, true), SQLITE_OK);
    assert_int_equal(
        hw_wal_writer_open(p->to.file, p->to.index, p->to.wal, page_size, &p->writer, NULL), HW_OK);
    hw_free(pragma);
}

static void pair_close(struct pair *p)
{
    hw_wal_writer_close(p->writer);
    view_close(&p->from);
    view_close(&p->to);
    sqlite3_close(p->source);
    sqlite3_close(p->target);
    hw_free(p->source_path);
    hw_free(p->target_path);
    remove_dir(p->dir);
}

/* Add the frames that SQLite committed to the source since the last call; returns its size. */
static uint32_t add_new_frames(struct pair *p)
{
    struct hw_wal_index_header header = view_header(&p->from);
    uint8_t *content = hw_alloc(p->page_size);

    assert_true(header.max_frame > p->copied);
    while (p->copied < header.max_frame) {
        uint64_t offset = hw_wal_frame_offset(p->page_size, ++p->copied);
        uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE];

        read_bytes(p->from.wal, offset, bytes, sizeof(bytes));
        read_bytes(p->from.wal, offset + sizeof(bytes), content, p->page_size);
        assert_int_equal(
            hw_wal_writer_add(p->writer, hw_wal_frame_decode(bytes).page_number, content, NULL),
            HW_OK);
    }
    hw_free(content);
    return header.page_count;
}

static void replay(struct pair *p)
{
    struct hw_wal_position end, now;
    uint32_t page_count = add_new_frames(p);

    assert_int_equal(hw_wal_writer_finish(p->writer, page_count, &end, NULL), HW_OK);
    assert_int_equal(hw_wal_writer_publish(p->writer, NULL), HW_OK);
    now = hw_wal_writer_position(p->writer);
    assert_memory_equal(&now, &end, sizeof(end));
}

static char *dump(sqlite3 *db)
{
    sqlite3_stmt *stmt;
    char *text = NULL;

    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT count(*) || ':' || total(a) || ':' ||"
                                        " coalesce(group_concat(substr(hex(b), 1, 64)), '')"
                                        " FROM (SELECT * FROM t ORDER BY a)",
                                        -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    text = hw_strdup((const char *)sqlite3_column_text(stmt, 0));
    sqlite3_finalize(stmt);
    return text;
}

static void assert_same(struct pair *p)
{
    char *source = dump(p->source), *target = dump(p->target);

    assert_string_equal(source, target);
    assert_integrity(p->target);
    hw_free(source);
    hw_free(target);
}

/* The scan, that is recovery after a crash now, finds exactly what readers see. */
static void assert_recoverable(struct pair *p)
{
    struct hw_wal_extent extent;
    struct hw_wal_position now = hw_wal_writer_position(p->writer);

    assert_int_equal(hw_wal_scan(p->to.wal, &extent, NULL), HW_OK);
    assert_memory_equal(&extent.commit, &now, sizeof(now));
}

static void stock_connections_see_what_is_appended_at_any_page_size(void **state)
{
    (void)state;
    for (unsigned page_size = 512; page_size <= 65536; page_size *= 2) {
        struct pair p;

        pair_open(&p, page_size);
        for (int i = 0; i < 12; i++) {
            run(p.source, "INSERT INTO t(b) SELECT randomblob(abs(random()) % 3000)"
                          " FROM (VALUES(1),(2),(3),(4),(5))");
            if (i % 4 == 3)
                run(p.source, "DELETE FROM t WHERE a % 3 = 0");
            replay(&p);
            assert_same(&p);
            assert_recoverable(&p);
        }
        run(p.source, "DELETE FROM t WHERE a % 4 > 0");
        replay(&p);
        run(p.source, "VACUUM");
        replay(&p);
        assert_same(&p);
        assert_int_equal(number(p.source, "PRAGMA page_count"),
                         number(p.target, "PRAGMA page_count"));
        pair_close(&p);
    }
}

static void a_wal_of_several_regions_is_read_and_recovered_by_stock_sqlite(void **state)
{
    struct pair p;
    sqlite3 *copy;
    char *copy_path, *copy_wal, *wal;

    (void)state;
    pair_open(&p, 512);
    for (int i = 0; i < 30; i++) {
        run(p.source, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<60)"
                      "INSERT INTO t(b) SELECT randomblob(1500) FROM n");
        replay(&p);
    }
    assert_true(hw_wal_writer_position(p.writer).frame > 8158);
    assert_same(&p);
    assert_recoverable(&p);

    /* The same files without their index, as after a crash. */
    copy_path = hw_format("%s/copy.db", p.dir);
    copy_wal = hw_format("%s/copy.db-wal", p.dir);
    wal = hw_format("%s-wal", p.target_path);
    copy_file(p.source_path, copy_path); /* the same base file, and not open for a lock here */
    copy_file(wal, copy_wal);
    copy = open_db(copy_path);
    assert_int_equal(number(copy, "SELECT count(*) FROM t"),
                     number(p.source, "SELECT count(*) FROM t"));
    assert_integrity(copy);
    sqlite3_close(copy);
    hw_free(copy_path);
    hw_free(copy_wal);
    hw_free(wal);
    pair_close(&p);
}

static void a_read_transaction_keeps_its_snapshot_while_transactions_are_appended(void **state)
{
    struct pair p;
    sqlite3 *reader;
    char *before, *after;

    (void)state;
    pair_open(&p, 1024);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(500))");
    replay(&p);
    reader = open_db(p.target_path);
    run(reader, "BEGIN; SELECT count(*) FROM t");
    before = dump(reader);
    for (int i = 0; i < 300; i++) {
        run(p.source, "INSERT INTO t(b) VALUES(randomblob(2000)); ");
        replay(&p);
        if (i % 50 == 0) {
            after = dump(reader);
            assert_string_equal(before, after);
            hw_free(after);
            run(p.target, "PRAGMA wal_checkpoint");
        }
    }
    after = dump(reader);
    assert_string_equal(before, after);
    assert_integrity(reader);
    run(reader, "COMMIT");
    assert_same(&p);
    hw_free(before);
    hw_free(after);
    sqlite3_close(reader);
    pair_close(&p);
}

static void what_is_rolled_back_is_never_seen_and_leaves_no_trace(void **state)
{
    struct pair p;
    uint8_t *junk;
    struct hw_wal_position before, end, now;

    (void)state;
    pair_open(&p, 512);
    junk = hw_alloc(512);
    memset(junk, 0xa5, 512);
    for (int round = 0; round < 4; round++) {
        run(p.source, "INSERT INTO t(b) VALUES(randomblob(300))");
        replay(&p);
        before = hw_wal_writer_position(p.writer);
        for (uint32_t i = 0; i < (round == 3 ? 9000U : 200U); i++)
            assert_int_equal(hw_wal_writer_add(p.writer, i % 90 + 1, junk, NULL), HW_OK);
        if (round % 2)
            assert_int_equal(hw_wal_writer_finish(p.writer, 90, &end, NULL), HW_OK);
        assert_same(&p);
        assert_int_equal(hw_wal_writer_rollback(p.writer, NULL), HW_OK);
        now = hw_wal_writer_position(p.writer);
        assert_memory_equal(&now, &before, sizeof(now));
        assert_same(&p);
        assert_recoverable(&p);
    }
    run(p.source, "INSERT INTO t(b) SELECT randomblob(400) FROM t a, t b");
    replay(&p);
    assert_same(&p);
    hw_free(junk);
    pair_close(&p);
}

static void a_stock_writer_goes_on_after_a_writer_that_died_in_a_transaction(void **state)
{
    struct pair p;
    uint8_t junk[512];

    (void)state;
    pair_open(&p, 512);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(300))");
    replay(&p);
    memset(junk, 0x5a, sizeof(junk));
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(hw_wal_writer_add(p.writer, i % 20 + 1, junk, NULL), HW_OK);
    assert_int_equal(view_lock(&p.to, HW_SHM_WRITE, false), SQLITE_OK); /* as at its death */
    run(p.target, "INSERT INTO t(b) SELECT randomblob(400) FROM (VALUES(1),(2),(3),(4),(5),(6))");
    assert_int_equal(number(p.target, "SELECT count(*) FROM t"), 8);
    assert_integrity(p.target);
    run(p.target, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_integrity(p.target);
    pair_close(&p);
}

static void the_writer_takes_over_a_wal_that_sqlite_began(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p, 2048);
    hw_wal_writer_close(p.writer);
    p.writer = NULL;
    assert_int_equal(view_lock(&p.to, HW_SHM_WRITE, false), SQLITE_OK);
    /* The same statements on both sides make the same pages. */
    for (int i = 0; i < 20; i++) {
        run(p.source, "INSERT INTO t(b) VALUES(zeroblob(900))");
        run(p.target, "INSERT INTO t(b) VALUES(zeroblob(900))");
    }
    p.copied = view_header(&p.from).max_frame;
    assert_int_equal(view_header(&p.to).max_frame, p.copied);
    assert_int_equal(view_lock(&p.to, HW_SHM_WRITE, true), SQLITE_OK);
    assert_int_equal(hw_wal_writer_open(p.to.file, p.to.index, p.to.wal, 2048, &p.writer, NULL),
                     HW_OK);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(5000))");
    replay(&p);
    assert_same(&p);
    assert_recoverable(&p);
    pair_close(&p);
}

static void the_wal_starts_over_only_when_all_is_backfilled_and_nobody_reads_it(void **state)
{
    struct pair p;
    sqlite3 *reader;
    struct hw_wal_position old;

    (void)state;
    pair_open(&p, 1024);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 10; i++) {
            run(p.source, "INSERT INTO t(b) VALUES(randomblob(2000))");
            replay(&p);
        }
        old = hw_wal_writer_position(p.writer);
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_AGAIN); /* not backfilled */
        reader = open_db(p.target_path);
        run(reader, "BEGIN; SELECT count(*) FROM t");
        run(p.target, "PRAGMA wal_checkpoint");
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_AGAIN); /* read */
        assert_int_equal(hw_wal_writer_position(p.writer).frame, old.frame);
        sqlite3_close(reader);
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_OK);
        assert_int_equal(hw_wal_writer_position(p.writer).frame, 0);
        assert_memory_not_equal(hw_wal_writer_position(p.writer).salts, old.salts, 8);
        assert_same(&p);
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_OK); /* nothing to do */
        run(p.source, "UPDATE t SET b = randomblob(100) WHERE a % 7 = 1");
        replay(&p);
        assert_same(&p);
        assert_recoverable(&p);
    }
    pair_close(&p);
}

static void
a_reader_on_the_file_alone_outlives_a_restart_and_a_checkpoint_waits_for_it(void **state)
{
    struct pair p;
    sqlite3 *reader;
    char *before, *after;

    (void)state;
    pair_open(&p, 1024);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(2000))");
    replay(&p);
    run(p.target, "PRAGMA wal_checkpoint");
    assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_OK);
    reader = open_db(p.target_path);
    run(reader, "BEGIN; SELECT count(*) FROM t");
    before = dump(reader);
    for (int i = 0; i < 20; i++) {
        run(p.source, "UPDATE t SET b = randomblob(100 + a); INSERT INTO t(b) VALUES(1)");
        replay(&p);
        run(p.target, "PRAGMA wal_checkpoint");
    }
    after = dump(reader);
    assert_string_equal(before, after);
    run(reader, "COMMIT");
    assert_same(&p);
    hw_free(before);
    hw_free(after);
    sqlite3_close(reader);
    pair_close(&p);
}

/* What another process finds if ours is killed while it publishes the new round. */
static struct {
    struct sqlite3_io_methods methods;
    const struct sqlite3_io_methods *real;
    struct view *view;
    uint32_t backfilled; /* as of the last barrier */
} watched;

static void barrier_watched(sqlite3_file *file)
{
    uint32_t attempted;

    (void)!hw_wal_index_backfill(watched.view->index, &watched.backfilled, &attempted, NULL);
    watched.real->xShmBarrier(file);
}

static void a_new_round_is_seen_by_nobody_before_nothing_of_it_counts_as_backfilled(void **state)
{
    struct pair p;
    uint32_t attempted;

    (void)state;
    pair_open(&p, 1024);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(9000))");
    replay(&p);
    run(p.target, "PRAGMA wal_checkpoint");
    assert_int_equal(hw_wal_index_backfill(p.to.index, &watched.backfilled, &attempted, NULL),
                     HW_OK);
    assert_true(watched.backfilled > 0);
    watched.real = p.to.file->pMethods;
    watched.methods = *watched.real;
    watched.methods.xShmBarrier = barrier_watched;
    watched.view = &p.to;
    p.to.file->pMethods = &watched.methods;
    assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_OK);
    p.to.file->pMethods = watched.real;
    assert_int_equal(watched.backfilled, 0);
    run(p.source, "UPDATE t SET b = randomblob(100)");
    replay(&p);
    assert_same(&p);
    pair_close(&p);
}

static uint8_t *wal_copy(struct pair *p, size_t *size)
{
    uint8_t *bytes;

    *size = (size_t)hw_wal_frame_offset(p->page_size, hw_wal_writer_position(p->writer).frame + 1);
    bytes = hw_alloc(*size);
    read_bytes(p->to.wal, 0, bytes, *size);
    return bytes;
}

static void wal_write(struct pair *p, uint64_t offset, const void *bytes, size_t size)
{
    assert_int_equal(p->to.wal->env->ops->write_at(p->to.wal, offset, bytes, size, NULL), HW_OK);
}

static void a_wal_that_is_written_once_more_is_the_same_and_copied_again(void **state)
{
    (void)state;
    for (unsigned page_size = 512; page_size <= 65536; page_size *= 2) {
        struct pair p;
        uint8_t *before, *after;
        uint32_t backfilled, attempted;
        size_t size, size_after;

        pair_open(&p, page_size);
        assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_OK); /* nothing is there yet */
        for (int i = 0; i < 20; i++) {
            run(p.source, "INSERT INTO t(b) VALUES(randomblob(9000))");
            replay(&p);
        }
        run(p.target, "PRAGMA wal_checkpoint");
        before = wal_copy(&p, &size);
        assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_OK);
        after = wal_copy(&p, &size_after);
        assert_int_equal(size, size_after);
        assert_memory_equal(before, after, size);
        assert_int_equal(hw_wal_index_backfill(p.to.index, &backfilled, &attempted, NULL), HW_OK);
        assert_int_equal(backfilled, 0);
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_AGAIN);
        run(p.source, "UPDATE t SET b = randomblob(99)");
        replay(&p);
        assert_same(&p);
        assert_recoverable(&p);
        run(p.target, "PRAGMA wal_checkpoint");
        assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_OK);
        assert_same(&p);
        hw_free(before);
        hw_free(after);
        pair_close(&p);
    }
}

/* Bytes of a frame change as they do when the disk has lost what was written. */
static void frames_that_are_not_what_was_written_are_found(void **state)
{
    enum { FRAME_SIZE = HW_WAL_FRAME_HEADER_SIZE + 512 };
    static const uint8_t zeros[FRAME_SIZE];
    struct pair p;
    struct view other;
    uint8_t *good;
    size_t size;

    (void)state;
    pair_open(&p, 512);
    run(p.source, "INSERT INTO t(b) VALUES(randomblob(99000))");
    replay(&p);
    good = wal_copy(&p, &size);
    for (uint32_t frame = 1; frame <= hw_wal_writer_position(p.writer).frame; frame += 43) {
        uint64_t offset = hw_wal_frame_offset(512, frame);
        uint8_t byte = good[offset + 300] ^ 1;

        wal_write(&p, offset, zeros, FRAME_SIZE);
        assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_ECORRUPT);
        wal_write(&p, 0, good, size);
        wal_write(&p, offset + 300, &byte, 1);
        assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_ECORRUPT);
        wal_write(&p, 0, good, size);
        wal_write(&p, offset + 8, zeros, 16); /* SQLite before 3.50.2 does that */
        assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_OK);
        wal_write(&p, 0, good, size);
    }
    assert_int_equal(p.to.wal->env->ops->truncate(p.to.wal, size - 1, NULL), HW_OK);
    assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_ECORRUPT);
    wal_write(&p, 0, good, size);
    view_open(&other, p.target_path);
    assert_int_equal(view_lock(&other, HW_SHM_CKPT, true), SQLITE_OK);
    assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_AGAIN);
    assert_int_equal(view_lock(&other, HW_SHM_CKPT, false), SQLITE_OK);
    assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_OK);
    assert_same(&p);
    view_close(&other);
    hw_free(good);
    pair_close(&p);
}

static void calls_out_of_order_are_refused(void **state)
{
    struct pair p;
    struct hw_wal_position end;
    uint8_t page[512] = {0};

    (void)state;
    pair_open(&p, 512);
    assert_int_equal(hw_wal_writer_finish(p.writer, 3, &end, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_publish(p.writer, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_add(p.writer, 2, page, NULL), HW_OK);
    assert_int_equal(hw_wal_writer_publish(p.writer, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_restart(p.writer, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_renew(p.writer, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_finish(p.writer, 3, &end, NULL), HW_OK);
    assert_int_equal(hw_wal_writer_add(p.writer, 2, page, NULL), HW_EMISUSE);
    assert_int_equal(hw_wal_writer_rollback(p.writer, NULL), HW_OK);
    run(p.source, "INSERT INTO t(b) VALUES(2)");
    replay(&p);
    assert_same(&p);
    pair_close(&p);
}

static void an_index_that_does_not_fit_the_file_is_refused(void **state)
{
    struct pair p;
    struct hw_wal_writer *writer = NULL;
    struct hw_error err = {0};
    uint8_t salt = 0x77;

    (void)state;
    pair_open(&p, 512);
    run(p.source, "INSERT INTO t(b) VALUES(2)");
    replay(&p);
    assert_int_equal(hw_wal_writer_open(p.to.file, p.to.index, p.to.wal, 1024, &writer, &err),
                     HW_ECORRUPT);
    assert_null(writer);
    assert_int_equal(p.to.wal->env->ops->write_at(p.to.wal, 19, &salt, 1, NULL), HW_OK);
    assert_int_equal(hw_wal_writer_open(p.to.file, p.to.index, p.to.wal, 512, &writer, &err),
                     HW_ECORRUPT);
    assert_null(writer);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stock_connections_see_what_is_appended_at_any_page_size),
        cmocka_unit_test(a_wal_of_several_regions_is_read_and_recovered_by_stock_sqlite),
        cmocka_unit_test(a_read_transaction_keeps_its_snapshot_while_transactions_are_appended),
        cmocka_unit_test(what_is_rolled_back_is_never_seen_and_leaves_no_trace),
        cmocka_unit_test(a_stock_writer_goes_on_after_a_writer_that_died_in_a_transaction),
        cmocka_unit_test(the_writer_takes_over_a_wal_that_sqlite_began),
        cmocka_unit_test(the_wal_starts_over_only_when_all_is_backfilled_and_nobody_reads_it),
        cmocka_unit_test(
            a_reader_on_the_file_alone_outlives_a_restart_and_a_checkpoint_waits_for_it),
        cmocka_unit_test(a_new_round_is_seen_by_nobody_before_nothing_of_it_counts_as_backfilled),
        cmocka_unit_test(a_wal_that_is_written_once_more_is_the_same_and_copied_again),
        cmocka_unit_test(frames_that_are_not_what_was_written_are_found),
        cmocka_unit_test(calls_out_of_order_are_refused),
        cmocka_unit_test(an_index_that_does_not_fit_the_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
