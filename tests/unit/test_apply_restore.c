/* Any state of a log as a file: each equal to what the database was, or nothing at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static struct hw_target at(uint64_t seq)
{
    return (struct hw_target){.kind = HW_TARGET_SEQ, .seq = seq};
}

static enum hw_status restore(struct log_builder *log, uint64_t seq, bool force,
                              struct hw_state *reached, struct hw_error *err)
{
    struct hw_target target = at(seq);

    return hw_restore(sim_env(machine), sim_vfs(machine), log->core, &target, "out.db", force, NULL,
                      NULL, reached, err);
}

static void check_file(const struct log_builder *log, const struct log_state *state)
{
    size_t size;
    const uint8_t *bytes = sim_file_bytes(machine, "out.db", &size);

    assert_int_equal(size, (size_t)state->page_count * log->page_size);
    assert_memory_equal(bytes, state->pages, size);
    assert_false(sim_file_exists(machine, "out.db.tmp"));
}

/* Restore each block's state from `first` on, and compare. */
static void check_all(struct log_builder *log, uint64_t first)
{
    for (uint64_t seq = first; seq < hw_core_length(log->core); seq++) {
        const struct log_state *expected = log_state_at(log, seq);
        struct hw_state reached;
        struct hw_error err;

        if (restore(log, seq, false, &reached, &err) != HW_OK)
            fail_msg("seq %d: %s", (int)seq, err.message);
        assert_int_equal(reached.seq, expected->seq);
        assert_int_equal(reached.time_ms, expected->time_ms);
        assert_int_equal(reached.page_count, expected->page_count);
        assert_true(reached.sum == expected->sum);
        check_file(log, expected);
        sim_file_remove(machine, "out.db");
    }
}

static void every_state_after_the_first_snapshot_comes_back(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 200, 7);
    uint64_t first;

    (void)state;
    first = log_snapshot(log, false);
    for (int i = 0; i < 8; i++)
        (void)log_transaction(log, 1 + (uint32_t)i * 3, 195 + (uint32_t)i * 9);
    (void)log_transaction(log, 4, 70);  /* shrinks */
    (void)log_transaction(log, 4, 300); /* and grows again */
    (void)log_label(log, "here");
    (void)log_transaction(log, 2, 300);
    check_all(log, first);
    check_all(log, 0); /* no transaction came before the snapshot: genesis itself is there too */
    log_builder_free(log);
}

static void database_adopted_empty_needs_no_snapshot(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 4096, 0, 3);

    (void)state;
    (void)log_transaction(log, 1, 2);
    (void)log_transaction(log, 2, 300); /* of several blocks */
    (void)log_transaction(log, 9, 280);
    check_all(log, 0);
    log_builder_free(log);
}

static void states_around_fuzzy_snapshots_come_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct log_builder *log = log_builder_new(sim_env(machine), 512, 300, seed);
        uint64_t first = log_snapshot(log, false);

        log_mix(log, 50);
        (void)log_snapshot(log, false);
        (void)log_transaction(log, 3, log->page_count);
        check_all(log, first);
        log_builder_free(log);
    }
}

static void snapshot_of_many_batches_comes_back_and_its_damage_is_named(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 65536, 300, 5);
    struct hw_snapshot snapshot = {
        .page_size = 65536, .page_count = 300, .group_count = 5, .groups_here = 5};
    struct hw_buffer body = {0};
    struct hw_state reached;
    struct hw_error err;

    (void)state;
    (void)log_snapshot(log, false);
    check_all(log, 6);

    /* An index that takes one group for another. */
    snapshot.sum = log->sum;
    log->groups[3] = log->groups[2];
    hw_snapshot_encode(&snapshot, 7, log->groups, &body);
    log->snapshot_seq = log_raw(log, HW_ENTRY_SNAPSHOT, body.bytes, body.size);
    assert_int_equal(restore(log, 7, false, &reached, &err), HW_ECORRUPT);
    assert_non_null(strstr(err.message, "listed as group 3"));
    assert_false(sim_file_exists(machine, "out.db"));
    hw_buffer_release(&body);
    log_builder_free(log);
}

static void states_between_the_bases_of_a_fuzzy_snapshot_need_an_older_one(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 300, 5);
    uint64_t last_before, greatest;
    struct hw_state reached;
    struct hw_error err;

    (void)state;
    log_snapshot_group(log);
    last_before = log_transaction(log, 5, 300);
    log_snapshot_group(log);
    greatest = log_transaction(log, 5, 300);
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 5, 300);
    assert_int_equal(restore(log, last_before, false, &reached, &err), HW_ENOTFOUND);
    assert_non_null(strstr(err.message, "before the first state"));
    check_all(log, greatest);
    log_builder_free(log);
}

static void file_that_exists_or_has_leftovers_is_not_touched(void **state)
{
    static const char *const paths[] = {"out.db", "out.db-wal", "out.db-journal", "out.db-shm"};
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 5);
    struct hw_state reached;
    struct hw_error err;
    uint64_t seq = log_transaction(log, 1, 5);

    (void)state;
    for (int i = 0; i < 4; i++) {
        sim_file_put(machine, paths[i], "old", 3);
        assert_int_equal(restore(log, seq, false, &reached, &err), HW_EEXIST);
        assert_non_null(strstr(err.message, paths[i]));
        assert_true(sim_file_exists(machine, paths[i]));
        assert_true(i == 0 || !sim_file_exists(machine, "out.db"));
        sim_file_remove(machine, paths[i]);
    }
    log_builder_free(log);
}

/* A database in WAL mode with something in its WAL. */
static sqlite3 *old_database(void)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open_v2("out.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(machine)->zName),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA journal_mode=wal; CREATE TABLE old(x);"
                                  "INSERT INTO old VALUES(1)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    return db;
}

static void forced_restore_replaces_a_database_that_nobody_has_open(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 5);
    uint64_t seq = log_transaction(log, 1, 5);
    sqlite3 *db = old_database();
    struct hw_state reached;
    struct hw_error err;

    (void)state;
    assert_int_equal(restore(log, seq, true, &reached, &err), HW_EBUSY);
    assert_true(sim_file_exists(machine, "out.db-wal"));
    assert_false(sim_file_exists(machine, "out.db.tmp"));
    assert_int_equal(sqlite3_exec(db, "INSERT INTO old VALUES(2)", NULL, NULL, NULL), SQLITE_OK);

    /* As a crash leaves it: nobody has it open, but the WAL is there. */
    assert_int_equal(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_true(sim_file_exists(machine, "out.db-wal"));
    assert_int_equal(restore(log, seq, true, &reached, &err), HW_OK);
    check_file(log, log_state_at(log, seq));
    assert_false(sim_file_exists(machine, "out.db-wal"));
    assert_false(sim_file_exists(machine, "out.db-shm"));
    assert_false(sim_file_exists(machine, "out.db-journal"));

    /* And where nothing is. */
    sim_file_remove(machine, "out.db");
    assert_int_equal(restore(log, seq, true, &reached, &err), HW_OK);
    check_file(log, log_state_at(log, seq));
    sim_file_remove(machine, "out.db");
    log_builder_free(log);
}

static void what_was_restored_is_there_when_power_is_lost(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 5);
    uint64_t seq = log_transaction(log, 1, 5);
    struct hw_state reached;
    struct hw_error err;

    (void)state;
    for (int force = 0; force < 2; force++) {
        if (force == 1)
            assert_int_equal(sqlite3_close(old_database()), SQLITE_OK);
        assert_int_equal(restore(log, seq, force == 1, &reached, &err), HW_OK);
        sim_crash(machine, SIM_DROP);
        check_file(log, log_state_at(log, seq));
        sim_file_remove(machine, "out.db");
    }
    log_builder_free(log);
}

static void forced_restore_does_not_replace_what_it_cannot_see(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 5);
    /* But for the two looks that tell whether out.db.tmp is still what was opened. */
    struct sim_fault fault = {
        .kind = SIM_EIO, .operations = SIM_STAT, .path = "out.db", .at = 3, .for_ever = true};
    uint64_t seq = log_transaction(log, 1, 5);
    sqlite3 *db = old_database();
    struct hw_state reached;
    struct hw_error err;

    (void)state;
    sim_set_fault(machine, &fault);
    assert_int_equal(restore(log, seq, true, &reached, &err), HW_EIO);
    sim_set_fault(machine, NULL);
    assert_true(sim_file_exists(machine, "out.db-wal"));
    assert_false(sim_file_exists(machine, "out.db.tmp"));
    assert_int_equal(sqlite3_exec(db, "INSERT INTO old VALUES(2)", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_file_remove(machine, "out.db");
    log_builder_free(log);
}

static void forced_restore_refuses_to_replace_what_is_no_database(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 5);
    uint64_t seq = log_transaction(log, 1, 5);
    struct hw_state reached;
    struct hw_error err;
    char text[2000];

    (void)state;
    memset(text, 'x', sizeof(text));
    sim_file_put(machine, "out.db", text, sizeof(text));
    assert_int_equal(restore(log, seq, true, &reached, &err), HW_EEXIST);
    assert_non_null(strstr(err.message, "not a database"));
    sim_file_remove(machine, "out.db");
    log_builder_free(log);
}

static bool stop_half_way(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *last = ctx;

    *last = done;
    return done < total / 2;
}

/* Another restore comes to its end between our open and our lock. */
static struct hw_env_ops beside;

static enum hw_status lock_late(struct hw_file *file, bool wait, struct hw_error *err)
{
    if (sim_file_exists(machine, "out.db.tmp") && !sim_file_exists(machine, "out.db"))
        (void)!beside.rename(sim_env(machine), "out.db.tmp", "out.db", NULL);
    return beside.lock(file, wait, err);
}

static void restore_that_ended_beside_ours_keeps_its_file(void **state)
{
    static const char other[] = "what another restore made";
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 60, 7);
    const struct hw_env_ops *ops = sim_env(machine)->ops;
    struct hw_env_ops late = *ops;
    struct hw_state reached;
    struct hw_error err = {0};
    uint64_t seq = log_snapshot(log, false);
    const uint8_t *bytes;
    size_t size;

    (void)state;
    beside = *ops;
    late.lock = lock_late;
    sim_file_put(machine, "out.db.tmp", other, sizeof(other));
    sim_env(machine)->ops = &late;
    assert_int_equal(restore(log, seq, false, &reached, &err), HW_EEXIST);
    sim_env(machine)->ops = ops;
    bytes = sim_file_bytes(machine, "out.db", &size);
    assert_int_equal(size, sizeof(other));
    assert_memory_equal(bytes, other, size);
    assert_false(sim_file_exists(machine, "out.db.tmp"));
    sim_file_remove(machine, "out.db");
    log_builder_free(log);
}

static void stopped_restore_leaves_nothing(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 300, 5);
    struct hw_target target = {.kind = HW_TARGET_HEAD};
    struct hw_state reached;
    struct hw_error err;
    uint64_t done = 0;

    (void)state;
    (void)log_snapshot(log, false);
    assert_int_equal(hw_restore(sim_env(machine), sim_vfs(machine), log->core, &target, "out.db",
                                false, stop_half_way, &done, &reached, &err),
                     HW_AGAIN);
    assert_in_range(done, 1, 300 * 512);
    assert_false(sim_file_exists(machine, "out.db"));
    assert_false(sim_file_exists(machine, "out.db.tmp"));
    log_builder_free(log);
}

static void wrong_sum_is_corrupt_and_no_file_is_made(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 5);
    struct hw_state reached;
    struct hw_error err;
    uint64_t good;

    (void)state;
    (void)log_snapshot(log, false);
    good = log_transaction(log, 2, 100);
    log->pages[0] ^= 1; /* the next one differs from an image that the log never had */
    log->sum ^= hw_page_sum(1, log->pages, 512);
    log->pages[0] ^= 1;
    log->sum ^= hw_page_sum(1, log->pages, 512);
    log->pages[0] ^= 1;
    (void)log_transaction(log, 90, 100);
    assert_int_equal(restore(log, hw_core_length(log->core) - 1, false, &reached, &err),
                     HW_ECORRUPT);
    assert_false(sim_file_exists(machine, "out.db"));
    assert_int_equal(restore(log, good, false, &reached, &err), HW_OK);
    sim_file_remove(machine, "out.db");
    log_builder_free(log);
}

/* ------------------------------------------------------------------------------------- faults */

static struct log_builder *faulty_log;
static enum hw_status faulty_status;
static bool faulty_force;

/* Left of a database whose file somebody removed; its WAL would be taken for the new one's. */
static void faulty_prepare(struct sim *sim, void *ctx)
{
    (void)ctx;
    sim_file_put(sim, "out.db-wal", "old", 3);
    sim_file_put(sim, "out.db-journal", "old", 3);
}

static void faulty_run(struct sim *sim, void *ctx)
{
    struct hw_state reached;
    struct hw_error err;

    (void)sim;
    (void)ctx;
    faulty_status =
        restore(faulty_log, hw_core_length(faulty_log->core) - 1, faulty_force, &reached, &err);
}

/* The whole file or none; and none is the answer only to a failure. */
static void faulty_check(struct sim *sim, void *ctx)
{
    (void)ctx;
    if (sim_file_exists(sim, "out.db")) {
        size_t size;
        const struct log_state *state = log_state_at(faulty_log, UINT64_MAX - 1);
        const uint8_t *bytes = sim_file_bytes(sim, "out.db", &size);

        assert_int_equal(size, (size_t)state->page_count * faulty_log->page_size);
        assert_memory_equal(bytes, state->pages, size);
        assert_false(sim_file_exists(sim, "out.db-wal"));
        assert_false(sim_file_exists(sim, "out.db-journal"));
        sim_file_remove(sim, "out.db");
    } else {
        assert_int_not_equal(faulty_status, HW_OK);
    }
    if (sim_file_exists(sim, "out.db.tmp"))
        sim_file_remove(sim, "out.db.tmp"); /* the next restore would overwrite it as well */
}

static void restore_that_fails_or_crashes_anywhere_leaves_a_whole_file_or_none(void **state)
{
    struct sim_scenario scenario = {.faults =
                                        SIM_EIO | SIM_ENOSPC | SIM_CRASH | SIM_KILL | SIM_ENOMEM,
                                    .run = faulty_run,
                                    .check = faulty_check};

    (void)state;
    faulty_log = log_builder_new(sim_env(machine), 512, 150, 5);
    (void)log_snapshot(faulty_log, false);
    (void)log_transaction(faulty_log, 2, 160);
    (void)log_transaction(faulty_log, 2, 140);
    assert_in_range(sim_for_each_fault(machine, &scenario), 50, 5000);
    scenario.prepare = faulty_prepare;
    faulty_force = true;
    assert_in_range(sim_for_each_fault(machine, &scenario), 50, 5000);
    faulty_force = false;
    log_builder_free(faulty_log);
}

static int machine_up(void **state)
{
    (void)state;
    machine = sim_new(0);
    return 0;
}

static int machine_down(void **state)
{
    (void)state;
    sim_free(machine);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_after_the_first_snapshot_comes_back),
        cmocka_unit_test(database_adopted_empty_needs_no_snapshot),
        cmocka_unit_test(states_around_fuzzy_snapshots_come_back),
        cmocka_unit_test(snapshot_of_many_batches_comes_back_and_its_damage_is_named),
        cmocka_unit_test(states_between_the_bases_of_a_fuzzy_snapshot_need_an_older_one),
        cmocka_unit_test(file_that_exists_or_has_leftovers_is_not_touched),
        cmocka_unit_test(forced_restore_replaces_a_database_that_nobody_has_open),
        cmocka_unit_test(what_was_restored_is_there_when_power_is_lost),
        cmocka_unit_test(forced_restore_does_not_replace_what_it_cannot_see),
        cmocka_unit_test(forced_restore_refuses_to_replace_what_is_no_database),
        cmocka_unit_test(restore_that_ended_beside_ours_keeps_its_file),
        cmocka_unit_test(stopped_restore_leaves_nothing),
        cmocka_unit_test(wrong_sum_is_corrupt_and_no_file_is_made),
        cmocka_unit_test(restore_that_fails_or_crashes_anywhere_leaves_a_whole_file_or_none),
    };

    return cmocka_run_group_tests(tests, machine_up, machine_down);
}
