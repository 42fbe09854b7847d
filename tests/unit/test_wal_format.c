/* Checksum, headers and scan of WAL files, against files that SQLite wrote. */
#include "unit/wal_fixture.h"

#include "base/bytes.h"

static void reference_checksum(bool big_endian, const uint8_t *p, size_t size, uint32_t sum[2])
{
    for (size_t i = 0; i < size; i += 8) {
        sum[0] += (big_endian ? hw_get_be32(p + i) : hw_get_le32(p + i)) + sum[1];
        sum[1] += (big_endian ? hw_get_be32(p + i + 4) : hw_get_le32(p + i + 4)) + sum[0];
    }
}

static void the_checksum_is_the_one_of_the_format_for_any_size_and_alignment(void **state)
{
    uint8_t bytes[4200];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 167 + (i >> 3) * 13);
    for (size_t start = 0; start < 8; start++) {
        for (size_t size = 0; size <= 4096; size += start == 0 ? 8 : 520) {
            for (int big_endian = 0; big_endian < 2; big_endian++) {
                uint32_t got[2] = {7, 11}, want[2] = {7, 11};
                hw_wal_checksum(big_endian, bytes + start, size, got);
                reference_checksum(big_endian, bytes + start, size, want);
                assert_memory_equal(got, want, sizeof(got));
            }
        }
    }
}

static void a_header_survives_encode_and_decode_and_no_flipped_bit_does(void **state)
{
    struct hw_wal_header header = {
        .page_size = 4096, .checkpoint_sequence = 77, .salts = {1, 2, 3}};
    struct hw_wal_header got;
    uint8_t bytes[HW_WAL_HEADER_SIZE];

    (void)state;
    hw_wal_header_encode(&header, bytes);
    assert_int_equal(hw_wal_header_decode(bytes, &got), HW_OK);
    assert_int_equal(got.page_size, 4096);
    assert_int_equal(got.checkpoint_sequence, 77);
    assert_memory_equal(got.salts, header.salts, sizeof(got.salts));
    for (size_t bit = 0; bit < sizeof(bytes) * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_int_not_equal(hw_wal_header_decode(bytes, &got), HW_OK);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

static void a_header_of_another_format_version_is_named_as_such(void **state)
{
    struct hw_wal_header header = {.page_size = 512}, got;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    uint32_t sum[2] = {0, 0};

    (void)state;
    hw_wal_header_encode(&header, bytes);
    hw_put_be32(bytes + 4, 3007001);
    hw_wal_checksum(false, bytes, 24, sum);
    hw_put_be32(bytes + 24, sum[0]);
    hw_put_be32(bytes + 28, sum[1]);
    assert_int_equal(hw_wal_header_decode(bytes, &got), HW_EVERSION);
}

struct scenario {
    char *dir, *path, *wal_path;
    sqlite3 *db;
};

static int setup(void **state)
{
    struct scenario *s = hw_zalloc(sizeof(*s));

    s->dir = temp_dir();
    s->path = hw_format("%s/a.db", s->dir);
    s->wal_path = hw_format("%s/a.db-wal", s->dir);
    s->db = open_db(s->path);
    run(s->db, "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
               "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);");
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scenario *s = *state;

    sqlite3_close(s->db);
    hw_free(s->path);
    hw_free(s->wal_path);
    remove_dir(s->dir);
    hw_free(s);
    return 0;
}

static struct hw_file *open_file(const char *path)
{
    struct hw_file *file;

    assert_int_equal(hw_env_posix()->ops->open(hw_env_posix(), path,
                                               HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file,
                                               NULL),
                     HW_OK);
    return file;
}

static void scan_finds_the_end_that_the_index_publishes(void **state)
{
    struct scenario *s = *state;
    struct view view;

    view_open(&view, s->path);
    for (int i = 0; i < 40; i++) {
        struct hw_wal_extent extent;
        struct hw_wal_index_header header;

        run(s->db, "INSERT INTO t(b) VALUES(randomblob(700))");
        header = view_header(&view);
        assert_int_equal(hw_wal_scan(view.wal, &extent, NULL), HW_OK);
        assert_int_equal(extent.commit.frame, header.max_frame);
        assert_int_equal(extent.page_count, header.page_count);
        assert_memory_equal(extent.commit.checksum, header.frame_checksum, 8);
        assert_memory_equal(extent.commit.salts, header.salts, 8);
        assert_int_equal(extent.header.page_size, header.page_size);
    }
    view_close(&view);
}

static void scan_of_any_prefix_ends_at_a_whole_commit(void **state)
{
    struct scenario *s = *state;
    struct hw_file *wal, *copy;
    struct hw_file_stat stat;
    char *copy_path = hw_format("%s/copy", s->dir);
    uint8_t *bytes;
    uint32_t last = 0;

    for (int i = 0; i < 4; i++)
        run(s->db, "INSERT INTO t(b) VALUES(randomblob(1500))");
    wal = open_file(s->wal_path);
    copy = open_file(copy_path);
    assert_int_equal(wal->env->ops->stat_file(wal, &stat, NULL), HW_OK);
    bytes = hw_alloc(stat.size);
    read_bytes(wal, 0, bytes, stat.size);

    for (uint64_t size = 0; size <= stat.size; size += 8) {
        struct hw_wal_extent extent;

        assert_int_equal(copy->env->ops->truncate(copy, 0, NULL), HW_OK);
        if (size > 0)
            assert_int_equal(copy->env->ops->write_at(copy, 0, bytes, size, NULL), HW_OK);
        assert_int_equal(hw_wal_scan(copy, &extent, NULL), HW_OK);
        assert_true(extent.commit.frame >= last && extent.commit.frame <= extent.live_frames);
        assert_true(extent.live_frames == 0 ||
                    hw_wal_frame_offset(512, extent.live_frames + 1) <= size);
        last = extent.commit.frame;
        if (last > 0) {
            uint8_t frame[HW_WAL_FRAME_HEADER_SIZE];
            read_bytes(copy, hw_wal_frame_offset(512, last), frame, sizeof(frame));
            assert_int_equal(hw_wal_frame_decode(frame).commit_size, extent.page_count);
        }
    }
    assert_true(last > 4);
    hw_free(bytes);
    hw_free(copy_path);
    wal->env->ops->close(wal);
    copy->env->ops->close(copy);
}

static void a_changed_byte_ends_the_scan_before_its_frame(void **state)
{
    struct scenario *s = *state;
    struct hw_file *copy;
    struct hw_file_stat stat;
    char *copy_path = hw_format("%s/copy", s->dir);
    struct hw_wal_extent whole;

    run(s->db, "INSERT INTO t(b) VALUES(randomblob(3000))");
    copy_file(s->wal_path, copy_path);
    copy = open_file(copy_path);
    assert_int_equal(copy->env->ops->stat_file(copy, &stat, NULL), HW_OK);
    assert_int_equal(hw_wal_scan(copy, &whole, NULL), HW_OK);
    for (uint64_t at = HW_WAL_HEADER_SIZE; at < stat.size; at += 131) {
        struct hw_wal_extent extent;
        uint8_t byte;

        read_bytes(copy, at, &byte, 1);
        byte ^= 0x40;
        assert_int_equal(copy->env->ops->write_at(copy, at, &byte, 1, NULL), HW_OK);
        assert_int_equal(hw_wal_scan(copy, &extent, NULL), HW_OK);
        assert_int_equal(extent.live_frames, (at - HW_WAL_HEADER_SIZE) / 536);
        byte ^= 0x40;
        assert_int_equal(copy->env->ops->write_at(copy, at, &byte, 1, NULL), HW_OK);
    }
    hw_free(copy_path);
    copy->env->ops->close(copy);
}

static void frames_of_an_older_round_are_not_live(void **state)
{
    struct scenario *s = *state;
    struct hw_wal_extent extent;
    struct hw_file *wal;

    run(s->db, "INSERT INTO t(b) VALUES(randomblob(9000))");
    run(s->db, "PRAGMA wal_checkpoint(RESTART)");
    run(s->db, "UPDATE t SET b = zeroblob(3) WHERE a = 0; INSERT INTO t(b) VALUES(1)");
    wal = open_file(s->wal_path);
    assert_int_equal(hw_wal_scan(wal, &extent, NULL), HW_OK);
    assert_true(extent.live_frames > 0 && extent.live_frames < 10);
    assert_int_equal(extent.commit.frame, extent.live_frames);
    wal->env->ops->close(wal);
}

static bool allow_none(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return false;
}

static void a_scan_without_memory_fails_and_says_so(void **state)
{
    struct scenario *s = *state;
    struct hw_wal_extent extent = {.live_frames = 99};
    struct hw_error err = {0};
    struct hw_file *wal = open_file(s->wal_path);

    hw_alloc_set_hook(allow_none, NULL);
    assert_int_equal(hw_wal_scan(wal, &extent, &err), HW_ENOMEM);
    hw_alloc_set_hook(NULL, NULL);
    assert_int_equal(extent.live_frames, 99);
    assert_non_null(strstr(err.message, "memory"));
    wal->env->ops->close(wal);
}

static void a_mark_comes_back_and_no_other_page_is_one(void **state)
{
    static const uint32_t sizes[] = {512, 4096, 65536};
    static uint8_t page[65536];
    struct hw_origin origin =
                         hw_origin_make(7, 8, (const uint8_t *)"log!", (const uint8_t *)"luck"),
                     out;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        hw_wal_mark_encode(&origin, page, sizes[i]);
        assert_true(hw_wal_mark_decode(page, sizes[i], &out));
        assert_memory_equal(out.bytes, origin.bytes, HW_ORIGIN_SIZE);
        page[0] = 0x0d; /* a leaf of a b-tree */
        assert_false(hw_wal_mark_decode(page, sizes[i], &out));
        hw_wal_mark_encode(&origin, page, sizes[i]);
        page[sizes[i] - 1] = 1;
        assert_false(hw_wal_mark_decode(page, sizes[i], &out));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_the_one_of_the_format_for_any_size_and_alignment),
        cmocka_unit_test(a_header_survives_encode_and_decode_and_no_flipped_bit_does),
        cmocka_unit_test(a_header_of_another_format_version_is_named_as_such),
        cmocka_unit_test_setup_teardown(scan_finds_the_end_that_the_index_publishes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(scan_of_any_prefix_ends_at_a_whole_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_byte_ends_the_scan_before_its_frame, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(frames_of_an_older_round_are_not_live, setup, teardown),
        cmocka_unit_test_setup_teardown(a_scan_without_memory_fails_and_says_so, setup, teardown),
        cmocka_unit_test(a_mark_comes_back_and_no_other_page_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
