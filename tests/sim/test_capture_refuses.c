/* What a worker refuses to those who ask, over the simulated disk. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "capture/capture.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { TIMEOUT_MS = 5000 };

struct world {
    struct sim *sim;
    sqlite3 *db;
    struct hw_capture *capture; /* borrowed from db */
    struct hw_error err;
};

static struct world world;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    world = (struct world){.sim = sim_new(1)};
    options.base = sim_vfs(world.sim);
    options.env = sim_env(world.sim);
    *state = &world;
    return hw_vfs_register(&options, NULL) == HW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct world *w = *state;
    unsigned open;

    (void)sqlite3_close(w->db); /* no statement is left */
    open = sim_open_handles(w->sim);
    hw_vfs_unregister("hwsim");
    sim_free(w->sim);
    return open == 0 ? 0 : -1;
}

/* A database with one table, all of it logged. */
static void begin(struct world *w, const char *uri)
{
    assert_int_equal(sqlite3_open_v2(uri, &w->db,
                                     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                                     NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(w->db,
                                  "CREATE TABLE t(a); INSERT INTO t VALUES(1);"
                                  "PRAGMA hyperwal_seq; PRAGMA hyperwal_snapshot",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_file_control(w->db, "main", HW_FCNTL_CAPTURE, &w->capture), SQLITE_OK);
}

static void states_beyond_the_log_cannot_be_kept(void **state)
{
    struct world *w = *state;
    struct hw_capture_status now;
    uint64_t freed = 7;

    begin(w, "file:/app.db?vfs=hwsim");
    hw_capture_status(w->capture, &now);
    assert_int_equal(hw_capture_prune(w->capture, now.length, false, TIMEOUT_MS, &freed, &w->err),
                     HW_ENOTFOUND);
    assert_non_null(strstr(w->err.message, "does not exist"));
    assert_int_equal(hw_capture_prune(w->capture, now.seq, true, TIMEOUT_MS, &freed, &w->err),
                     HW_OK);
}

static int open_with_log_of_another(struct world *w)
{
    (void)sqlite3_close(w->db);
    return sqlite3_open_v2("file:/b.db?vfs=hwsim&log=/a.db-hyper", &w->db,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
}

static void a_log_is_nobody_elses_although_its_position_cannot_be_read(void **state)
{
    static const struct sim_fault faults[] = {
        {.kind = SIM_EMFILE, .operations = SIM_OPEN, .path = "/position", .at = 1},
        {.kind = SIM_EIO, .operations = SIM_STAT, .path = "/position", .at = 1},
        {.kind = SIM_EIO, .operations = SIM_READ, .path = "/position", .at = 1},
        {.kind = SIM_EIO, .operations = SIM_STAT, .path = "/b.db", .at = 1, .for_ever = true},
    };
    struct world *w = *state;

    begin(w, "file:/a.db?vfs=hwsim");
    assert_int_equal(open_with_log_of_another(w), SQLITE_CANTOPEN);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        sim_set_fault(w->sim, &faults[i]);
        assert_int_equal(open_with_log_of_another(w), SQLITE_CANTOPEN);
        assert_true(sim_fault_was_reached(w->sim));
        sim_set_fault(w->sim, NULL);
    }
    assert_int_equal(open_with_log_of_another(w), SQLITE_CANTOPEN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(states_beyond_the_log_cannot_be_kept),
        TEST(a_log_is_nobody_elses_although_its_position_cannot_be_read),
    };

    return cmocka_run_group_tests_name("capture_refuses", tests, NULL, NULL);
}
