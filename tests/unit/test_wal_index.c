/* The wal-index read beside SQLite: what it says is what the frames say. */
#include "unit/wal_fixture.h"

struct scenario {
    char *dir, *path;
    sqlite3 *db;
    struct view view;
};

static void begin(struct scenario *s, unsigned page_size)
{
    char *pragma = hw_format("PRAGMA page_size=%u", page_size);

    s->dir = temp_dir();
    s->path = hw_format("%s/a.db", s->dir);
    s->db = open_db(s->path);
    run(s->db, pragma);
    run(s->db, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF;"
               "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);");
    view_open(&s->view, s->path);
    hw_free(pragma);
}

static void end(struct scenario *s)
{
    view_close(&s->view);
    sqlite3_close(s->db);
    hw_free(s->path);
    remove_dir(s->dir);
}

/* Frame of each page by walking the frames themselves, against lookup, at `max_frame`. */
static void assert_lookup_fits(struct view *view, uint32_t page_size, uint32_t max_frame,
                               uint32_t page_count)
{
    uint32_t *newest = hw_zalloc((page_count + 2) * sizeof(*newest));

    for (uint32_t frame = 1; frame <= max_frame; frame++) {
        uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE];
        struct hw_wal_frame decoded;

        read_bytes(view->wal, hw_wal_frame_offset(page_size, frame), bytes, sizeof(bytes));
        decoded = hw_wal_frame_decode(bytes);
        if (decoded.page_number <= page_count)
            newest[decoded.page_number] = frame;
    }
    for (uint32_t page = 1; page <= page_count + 1; page++) {
        uint32_t frame;
        assert_int_equal(hw_wal_index_lookup(view->index, page, max_frame, &frame, NULL), HW_OK);
        if (frame > 0) {
            uint32_t back = 0;

            assert_int_equal(hw_wal_index_page(view->index, frame, &back, NULL), HW_OK);
            assert_int_equal(back, page);
        }
        assert_int_equal(frame, newest[page]);
    }
    hw_free(newest);
}

static void lookup_finds_the_newest_frame_at_any_page_size(void **state)
{
    (void)state;
    for (unsigned page_size = 512; page_size <= 65536; page_size *= 2) {
        struct scenario s;
        struct hw_wal_index_header header;
        uint32_t middle;

        begin(&s, page_size);
        run(s.db, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<150)"
                  "INSERT INTO t SELECT i, randomblob(1000) FROM n");
        middle = view_header(&s.view).max_frame;
        run(s.db, "UPDATE t SET b = randomblob(900) WHERE a % 3 = 0");
        header = view_header(&s.view);
        assert_int_equal(header.page_size, page_size);
        assert_true(header.max_frame > middle && middle > 0);
        assert_lookup_fits(&s.view, page_size, header.max_frame, header.page_count);
        assert_lookup_fits(&s.view, page_size, middle, header.page_count);
        end(&s);
    }
}

static void lookup_crosses_regions_of_the_index(void **state)
{
    struct scenario s;
    struct hw_wal_index_header header;

    (void)state;
    begin(&s, 512);
    for (int i = 0; i < 5; i++)
        run(s.db, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<900)"
                  "INSERT INTO t(b) SELECT randomblob(900) FROM n");
    header = view_header(&s.view);
    assert_true(header.max_frame > 8158 + 10);
    assert_lookup_fits(&s.view, 512, header.max_frame, header.page_count);
    assert_lookup_fits(&s.view, 512, 4062, header.page_count);
    assert_lookup_fits(&s.view, 512, 4063, header.page_count);
    end(&s);
}

static void a_page_is_read_from_the_wal_and_after_a_checkpoint_from_the_file(void **state)
{
    struct scenario s;
    struct hw_wal_index_header header;
    uint8_t first[4096], second[4096];
    uint32_t backfilled, attempted;
    bool from_file;

    (void)state;
    begin(&s, 4096);
    run(s.db, "INSERT INTO t(b) VALUES(randomblob(9000))");
    header = view_header(&s.view);
    for (uint32_t page = 1; page <= header.page_count; page++) {
        assert_int_equal(hw_wal_read_page(s.view.file, s.view.index, s.view.wal, 4096, page,
                                          header.max_frame, first, &from_file, NULL),
                         HW_OK);
        assert_false(from_file);
    }
    assert_int_equal(hw_wal_index_backfill(s.view.index, &backfilled, &attempted, NULL), HW_OK);
    assert_int_equal(backfilled, 0);
    run(s.db, "PRAGMA wal_checkpoint");
    assert_int_equal(hw_wal_index_backfill(s.view.index, &backfilled, &attempted, NULL), HW_OK);
    assert_int_equal(backfilled, header.max_frame);
    assert_int_equal(attempted, header.max_frame);
    assert_int_equal(hw_wal_read_page(s.view.file, s.view.index, s.view.wal, 4096,
                                      header.page_count, 0, second, &from_file, NULL),
                     HW_OK);
    assert_true(from_file);
    assert_memory_equal(first, second, sizeof(first));
    /* Beyond the end of the file there are zeros. */
    memset(first, 0, sizeof(first));
    assert_int_equal(hw_wal_read_page(s.view.file, s.view.index, s.view.wal, 4096,
                                      header.page_count + 5, 0, second, &from_file, NULL),
                     HW_OK);
    assert_memory_equal(first, second, sizeof(first));
    end(&s);
}

static void an_index_that_nobody_made_is_not_yet_valid(void **state)
{
    struct scenario s;
    struct hw_wal_index *index;
    struct hw_wal_index_header header;
    uint32_t frame;

    (void)state;
    begin(&s, 4096);
    assert_int_equal(hw_wal_index_private(&index, NULL), HW_OK);
    assert_int_equal(hw_wal_index_read(index, &header, NULL), HW_AGAIN);
    assert_int_equal(hw_wal_index_lookup(index, 1, 0, &frame, NULL), HW_OK);
    assert_int_equal(frame, 0);
    hw_wal_index_free(index);
    end(&s);
}

static void a_private_index_answers_like_the_shared_one(void **state)
{
    struct scenario s;
    struct view view;
    struct hw_wal_index_header header;
    struct hw_wal_index *index;

    (void)state;
    begin(&s, 512);
    run(s.db, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<3000)"
              "INSERT INTO t(b) SELECT randomblob(900) FROM n");
    header = view_header(&s.view);
    assert_true(header.max_frame > 4062);
    assert_int_equal(hw_wal_index_private(&index, NULL), HW_OK);
    for (uint32_t frame = 1; frame <= header.max_frame; frame++) {
        uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE];

        read_bytes(s.view.wal, hw_wal_frame_offset(512, frame), bytes, sizeof(bytes));
        assert_int_equal(
            hw_wal_index_insert(index, frame, hw_wal_frame_decode(bytes).page_number, NULL), HW_OK);
    }
    assert_int_equal(hw_wal_index_publish(index, &header, NULL), HW_OK);
    view = s.view;
    view.index = index;
    assert_lookup_fits(&view, 512, view_header(&view).max_frame, header.page_count);

    /* Frames above the published end are forgotten, those up to it are not. */
    header.max_frame = 4100;
    assert_int_equal(hw_wal_index_publish(index, &header, NULL), HW_OK);
    assert_int_equal(hw_wal_index_cleanup(index, NULL), HW_OK);
    assert_lookup_fits(&view, 512, 4100, header.page_count);
    hw_wal_index_free(index);
    end(&s);
}

static int allowed;

static bool allow_some(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return allowed-- > 0;
}

static void a_private_index_without_memory_fails_and_can_be_tried_again(void **state)
{
    enum hw_status status = HW_ENOMEM;

    (void)state;
    for (int limit = 0; limit < 100 && status != HW_OK; limit++) {
        struct hw_wal_index *index = NULL;
        uint32_t frame = 0;

        allowed = limit;
        hw_alloc_set_hook(allow_some, NULL);
        status = hw_wal_index_private(&index, NULL);
        if (status == HW_OK)
            status = hw_wal_index_insert(index, 1, 7, NULL);
        hw_alloc_set_hook(NULL, NULL);
        assert_true(status == HW_OK || status == HW_ENOMEM);
        if (index != NULL) {
            assert_int_equal(hw_wal_index_insert(index, 1, 7, NULL), HW_OK);
            assert_int_equal(hw_wal_index_lookup(index, 7, 1, &frame, NULL), HW_OK);
            assert_int_equal(frame, 1);
        }
        hw_wal_index_free(index);
    }
    assert_int_equal(status, HW_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookup_finds_the_newest_frame_at_any_page_size),
        cmocka_unit_test(lookup_crosses_regions_of_the_index),
        cmocka_unit_test(a_page_is_read_from_the_wal_and_after_a_checkpoint_from_the_file),
        cmocka_unit_test(an_index_that_nobody_made_is_not_yet_valid),
        cmocka_unit_test(a_private_index_answers_like_the_shared_one),
        cmocka_unit_test(a_private_index_without_memory_fails_and_can_be_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
