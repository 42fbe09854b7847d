/*
 * Frames that were committed and not yet logged, and are damaged on the disk: SQLite, which looks
 * at no checksum before the next recovery, goes on.  The log takes none for another page's, and
 * goes on when the file is whole again.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { PAGE_SIZE = 1024, FRAME_HEADER_SIZE = 24, FRAME_SIZE = FRAME_HEADER_SIZE + PAGE_SIZE };

struct world {
    struct sim *sim;
    sqlite3 *db;
    struct hw_capture *capture;
};

static struct world world;

static void execute(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
}

/* A transaction of several frames is in the WAL, and nobody has logged it. */
static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};
    struct world *w = &world;

    *w = (struct world){.sim = sim_new(1)};
    options.base = sim_vfs(w->sim);
    options.env = sim_env(w->sim);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    assert_int_equal(
        sqlite3_open_v2("/app.db", &w->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "hwsim"),
        SQLITE_OK);
    execute(w->db, "PRAGMA page_size=1024; PRAGMA wal_autocheckpoint=0;"
                   "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'first')");
    execute(w->db, "PRAGMA hyperwal_seq");
    assert_int_equal(sqlite3_file_control(w->db, "main", HW_FCNTL_CAPTURE, &w->capture), SQLITE_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unsigned open;

    (void)sqlite3_close(w->db);
    open = sim_open_handles(w->sim);
    hw_vfs_unregister("hwsim");
    sim_free(w->sim);
    return open == 0 ? 0 : -1;
}

/* The state that the log gives as its newest is the database. */
static void check_agreement(struct world *w, size_t byte, uint8_t mask)
{
    uint32_t page_size, page_count;
    struct hw_capture_status now;
    struct hw_error err;
    uint64_t sum;

    if (hw_database_sum(sim_vfs(w->sim), "/app.db", &page_size, &page_count, &sum, &err) != HW_OK)
        fail_msg("%s", err.message);
    hw_capture_status(w->capture, &now);
    if (now.sum != sum || now.page_count != page_count)
        fail_msg("byte %zu of a frame, changed by %02x: the log has another state", byte, mask);
}

/* Steps of the worker while the byte is wrong, then the file is whole again. */
static void damage(struct world *w, size_t at, uint8_t mask)
{
    uint64_t deadline;
    struct hw_error err;

    sim_file_flip(w->sim, "/app.db-wal", at, mask);
    for (int i = 0; i < 5; i++) {
        if (hw_capture_step(w->capture, &deadline, &err) < 0)
            sim_advance(w->sim, 300000000); /* an alarm; it tries again later */
    }
    sim_file_flip(w->sim, "/app.db-wal", at, mask);
}

/* A transaction of some frames; a byte of one of them is wrong.  False: it has no such frame. */
static bool commit_and_damage(struct world *w, size_t frame, size_t byte, uint8_t mask)
{
    size_t from, to;

    (void)sim_file_bytes(w->sim, "/app.db-wal", &from);
    execute(w->db, "BEGIN; INSERT INTO t(b) VALUES(zeroblob(2500));"
                   "UPDATE t SET b=b||'.' WHERE a=1; COMMIT");
    (void)sim_file_bytes(w->sim, "/app.db-wal", &to);
    if (from + frame * FRAME_SIZE >= to)
        return false;
    damage(w, from + frame * FRAME_SIZE + byte, mask);
    execute(w->db, "PRAGMA hyperwal_seq");
    check_agreement(w, byte, mask);
    return true;
}

static void a_damaged_frame_header_is_never_taken_for_another_pages(void **state)
{
    static const uint8_t masks[] = {0x01, 0x80};
    struct world *w = *state;

    for (size_t byte = 0; byte < FRAME_HEADER_SIZE; byte++) {
        for (size_t i = 0; i < sizeof(masks); i++)
            for (size_t frame = 0; commit_and_damage(w, frame, byte, masks[i]); frame++)
                execute(w->db, "DELETE FROM t WHERE a>1");
        execute(w->db, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_damaged_frame_header_is_never_taken_for_another_pages),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("damaged_wal", tests, NULL, NULL);
}
