/* The clock of day jumps: times in the log never go back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "capture/capture.h"
#include "entry/entry.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { HOUR_MS = 3600000, STEPS = 1000 };

static struct sim *sim;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    (void)state;
    sim = sim_new(0);
    options.base = sim_vfs(sim);
    options.env = sim_env(sim);
    return hw_vfs_register(&options, NULL) == HW_OK ? 0 : 1;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(sim);

    (void)state;
    hw_vfs_unregister("hwsim");
    sim_free(sim);
    return open == 0 ? 0 : -1;
}

static struct hw_capture *capture_of(sqlite3 *db)
{
    struct hw_capture *capture = NULL;

    assert_int_equal(sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    return capture;
}

/* And what follows from it: the worker does all that is due. */
static void run(sqlite3 *db, const char *sql)
{
    uint64_t seq, deadline = 0;
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(hw_capture_wait_logged(capture_of(db), 1000, &seq, NULL), HW_OK);
    for (int i = 0; i < STEPS; i++)
        if (hw_capture_step(capture_of(db), &deadline, NULL) != HW_OK)
            break;
}

/* How many blocks are of this type; none has a time before that of the block before. */
static unsigned check_times(enum hw_entry_type type)
{
    struct hw_buffer block = {0};
    struct hw_core *core = NULL;
    int64_t before = 0;
    unsigned count = 0;

    assert_int_equal(
        hw_core_open(sim_env(sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, NULL), HW_OK);
    for (uint64_t i = 0; i < hw_core_length(core); i++) {
        struct hw_entry_header header;
        struct hw_cursor cursor;

        assert_int_equal(hw_core_read(core, i, &block, NULL), HW_OK);
        cursor = hw_cursor(block.bytes, block.size);
        assert_int_equal(hw_entry_header_decode(&cursor, i, &header), HW_OK);
        if (header.time_ms < before)
            fail_msg("block %u is %d ms older than the one before", (unsigned)i,
                     (int)(before - header.time_ms));
        before = header.time_ms;
        count += header.type == type;
    }
    hw_buffer_release(&block);
    hw_core_close(core);
    return count;
}

static sqlite3 *begin(void)
{
    sqlite3 *db = NULL;

    assert_int_equal(
        sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "hwsim"),
        SQLITE_OK);
    run(db, "PRAGMA page_size=512; CREATE TABLE t(a INTEGER PRIMARY KEY, b);"
            "INSERT INTO t VALUES(1, zeroblob(90000))"); /* several groups */
    return db;
}

static void after_a_snapshot_that_takes_no_page(void **state)
{
    sqlite3 *db = begin();

    (void)state;
    run(db, "PRAGMA hyperwal_snapshot");
    sim_set_clock(sim, 2 * HOUR_MS);
    run(db, "PRAGMA hyperwal_snapshot");
    sim_set_clock(sim, HOUR_MS);
    run(db, "INSERT INTO t VALUES(2, 2)");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_true(check_times(HW_ENTRY_SNAPSHOT) >= 2);
}

/* The clock is set back at each of the moments at which somebody looks at it. */
static void whenever_it_is_set_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        sqlite3 *db;

        sim_reset(sim, i);
        db = begin();
        for (unsigned j = 0; j < 6; j++) {
            sim_set_clock(sim, j == i ? 0 : (int64_t)(j + 1) * HOUR_MS);
            run(db, j % 2 == 0 ? "UPDATE t SET b = zeroblob(80000)" : "PRAGMA hyperwal_snapshot");
            sim_set_clock(sim, (int64_t)j * HOUR_MS / 2);
            run(db, "PRAGMA hyperwal_label='x'");
        }
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        assert_true(check_times(HW_ENTRY_GROUP) >= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(after_a_snapshot_that_takes_no_page, setup, teardown),
        cmocka_unit_test_setup_teardown(whenever_it_is_set_back, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
