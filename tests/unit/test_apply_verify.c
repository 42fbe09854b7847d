/* Deep verification accepts every honest log and finds each kind of lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/apply.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static enum hw_status verify(struct log_builder *log, struct hw_error *err)
{
    return hw_verify_deep(sim_env(machine), log->core, NULL, NULL, err);
}

static void assert_verifies(struct log_builder *log)
{
    struct hw_error err;

    if (verify(log, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sim_open_handles(machine), 0);
}

static void assert_finds(struct log_builder *log, const char *message)
{
    struct hw_error err;

    assert_int_equal(verify(log, &err), HW_ECORRUPT);
    if (strstr(err.message, message) == NULL)
        fail_msg("'%s' is not in '%s'", message, err.message);
    assert_int_equal(sim_open_handles(machine), 0);
}

static void honest_logs_verify(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct log_builder *log =
            log_builder_new(sim_env(machine), 512, seed % 3 == 0 ? 0 : 200, seed);

        assert_verifies(log);
        log_mix(log, 30);
        assert_verifies(log);
        if (!log->in_snapshot)
            (void)log_gap(log, "first", log->page_count);
        log_mix(log, 20);
        assert_verifies(log);
        if (!log->in_snapshot)
            (void)log_gap(log, "second", log->page_count);
        (void)log_snapshot(log, false);
        log_mix(log, 10);
        assert_verifies(log);
        log_builder_free(log);
    }
}

static void transaction_that_does_not_continue_the_state_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);

    (void)state;
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 3, 100);
    log->sum ^= 1;
    {
        /* By hand: a block with no pages, whose sums begin elsewhere. */
        uint8_t body[18] = {100, 0};

        memset(body + 1, 0x11, 16);
        (void)log_raw(log, HW_ENTRY_TRANSACTION, body, sizeof(body));
    }
    assert_finds(log, "does not continue");
    log_builder_free(log);
}

static void transaction_whose_pages_do_not_make_its_sum_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    uint8_t body[18] = {100};

    (void)state;
    (void)log_snapshot(log, false);
    hw_put_le64(body + 1, log->sum);
    hw_put_le64(body + 9, log->sum ^ 1); /* no pages, and yet another state */
    (void)log_raw(log, HW_ENTRY_TRANSACTION, body, sizeof(body));
    assert_finds(log, "after the transaction");
    log_builder_free(log);
}

static uint64_t add_switch(struct log_builder *log, struct hw_switch what)
{
    struct hw_buffer body = {0};
    uint64_t seq;

    what.page_count = log->page_count;
    memset(what.key, 0x5a, sizeof(what.key));
    hw_switch_encode(&what, &body);
    seq = log_raw(log, HW_ENTRY_SWITCH, body.bytes, body.size);
    hw_buffer_release(&body);
    return seq;
}

static void switches_verify_where_they_belong_and_nowhere_else(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    struct hw_entry_summary entry;
    struct hw_error err;
    uint64_t seq;

    (void)state;
    seq = add_switch(log, (struct hw_switch){
                              .role = HW_SWITCH_CONTINUES, .fork = 2, .seq = 70, .sum = log->sum});
    assert_int_equal(seq, 1);
    assert_int_equal(hw_entry_next(log->core, &seq, &entry, &err), HW_OK);
    assert_true(entry.has_switch && entry.sum == log->sum && entry.page_count == 100);
    assert_string_equal(entry.text,
                        "continues "
                        "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
                        " at seq 70 of fork 2");
    (void)log_snapshot(log, false);
    seq = log_transaction(log, 3, 100);
    assert_verifies(log);
    (void)add_switch(log,
                     (struct hw_switch){.role = HW_SWITCH_CONTINUED, .seq = seq, .sum = log->sum});
    assert_verifies(log);
    (void)log_label(log, "after the end");
    assert_finds(log, "ended with the switch");
    log_builder_free(log);

    log = log_builder_new(sim_env(machine), 512, 100, 1);
    (void)add_switch(
        log, (struct hw_switch){.role = HW_SWITCH_CONTINUED, .seq = 0, .sum = log->sum ^ 1});
    assert_finds(log, "not at the state before it");
    log_builder_free(log);

    log = log_builder_new(sim_env(machine), 512, 100, 1);
    (void)log_snapshot(log, false);
    (void)add_switch(log,
                     (struct hw_switch){.role = HW_SWITCH_CONTINUES, .seq = 9, .sum = log->sum});
    assert_finds(log, "not behind the genesis");
    log_builder_free(log);
}

static void group_that_is_not_the_state_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);

    (void)state;
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 3, 100);
    log->pages[512 * 70] ^= 1; /* a page that no transaction writes */
    log_snapshot_group(log);
    log_snapshot_group(log);
    assert_finds(log, "page 71 in a group");
    log_builder_free(log);
}

static void snapshot_with_another_sum_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    struct hw_snapshot snapshot = {
        .page_size = 512, .page_count = 100, .group_count = 2, .groups_here = 2};
    struct hw_buffer body = {0};

    (void)state;
    log_snapshot_group(log);
    log_snapshot_group(log);
    snapshot.sum = log->sum ^ 1;
    hw_snapshot_encode(&snapshot, 3, log->groups, &body);
    (void)log_raw(log, HW_ENTRY_SNAPSHOT, body.bytes, body.size);
    assert_finds(log, "its state sum is not that of the state it was taken from");
    hw_buffer_release(&body);
    log_builder_free(log);
}

static void header_that_names_another_label_or_snapshot_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 1);

    (void)state;
    (void)log_label(log, "one");
    log->label_seq = UINT64_MAX; /* forgotten */
    (void)log_transaction(log, 1, 3);
    assert_finds(log, "does not name the newest label");
    log_builder_free(log);

    log = log_builder_new(sim_env(machine), 512, 100, 1);
    (void)log_snapshot(log, false);
    log->snapshot_seq = UINT64_MAX;
    (void)log_transaction(log, 1, 100);
    assert_finds(log, "does not name the newest snapshot");
    log_builder_free(log);
}

static void time_that_goes_back_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 1);

    (void)state;
    (void)log_transaction(log, 1, 3);
    log->time_ms -= 5000;
    (void)log_transaction(log, 1, 3);
    assert_finds(log, "time is before");
    log_builder_free(log);
}

static bool count_and_stop(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *seen = ctx;

    (void)total;
    *seen = done;
    return done < 3;
}

static void verification_can_be_stopped(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 1);
    struct hw_error err;
    uint64_t seen = 0;

    (void)state;
    for (int i = 0; i < 10; i++)
        (void)log_transaction(log, 1, 3);
    assert_int_equal(hw_verify_deep(sim_env(machine), log->core, count_and_stop, &seen, &err),
                     HW_AGAIN);
    assert_int_equal(seen, 3);
    log_builder_free(log);
}

/* ------------------------------------------------------------------------------ database files */

/* Of the file alone, once a checkpoint has brought everything there. */
static uint64_t sum_of_file(sqlite3 *db)
{
    const uint8_t *bytes;
    uint64_t sum = 0;
    size_t size;

    assert_int_equal(sqlite3_exec(db, "PRAGMA wal_checkpoint(truncate)", NULL, NULL, NULL),
                     SQLITE_OK);
    bytes = sim_file_bytes(machine, "sum.db", &size);
    for (uint32_t p = 1; (size_t)p * 4096 <= size; p++)
        sum ^= hw_page_sum(p, bytes + (size_t)(p - 1) * 4096, 4096);
    return sum;
}

static void sum_of_a_database_counts_wal_and_file(void **state)
{
    static const char *const steps[] = {
        "CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(30000))",
        "PRAGMA journal_mode=wal",
        "INSERT INTO t VALUES(randomblob(30000)); UPDATE t SET x=randomblob(100) WHERE rowid=1",
        "INSERT INTO t VALUES(randomblob(9000)); PRAGMA wal_checkpoint",
        /* Some pages in the file alone, some in a WAL that was started again. */
        "INSERT INTO t VALUES(zeroblob(9000)); PRAGMA wal_checkpoint; UPDATE t SET x=1",
        "DELETE FROM t; VACUUM",
    };
    uint32_t page_size, page_count;
    uint64_t sum;
    struct hw_error err;
    sqlite3 *db;

    (void)state;
    assert_int_equal(sqlite3_open_v2("sum.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(machine)->zName),
                     SQLITE_OK);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        assert_int_equal(sqlite3_exec(db, steps[i], NULL, NULL, NULL), SQLITE_OK);
        if (hw_database_sum(sim_vfs(machine), "sum.db", &page_size, &page_count, &sum, &err) !=
            HW_OK)
            fail_msg("step %d: %s", (int)i, err.message);
        assert_int_equal(page_size, 4096);
        assert_true(sum == sum_of_file(db));
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(
        hw_database_sum(sim_vfs(machine), "missing.db", &page_size, &page_count, &sum, &err),
        HW_ENOTFOUND);
    assert_false(sim_file_exists(machine, "missing.db"));
}

static void sum_of_a_database_that_a_crash_left_counts_its_wal(void **state)
{
    uint32_t page_size, page_count;
    uint64_t sum, closed;
    struct hw_error err;
    sqlite3 *db;

    (void)state;
    assert_int_equal(sqlite3_open_v2("left.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(machine)->zName),
                     SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA journal_mode=wal; CREATE TABLE t(x);"
                                  "INSERT INTO t VALUES(randomblob(30000))",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(
        hw_database_sum(sim_vfs(machine), "left.db", &page_size, &page_count, &sum, &err), HW_OK);
    assert_int_equal(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(
        hw_database_sum(sim_vfs(machine), "left.db", &page_size, &page_count, &closed, &err),
        HW_OK);
    assert_true(closed == sum);
    assert_true(sim_file_exists(machine, "left.db-wal")); /* looking moved no frame */
}

static bool keep_some(void *ctx, uint64_t index)
{
    const bool *keep = ctx;

    return keep[index];
}

/*
 * Of the snapshot before the oldest one kept the index lies among the entries that are kept, which
 * begin with the last state before that.  Its groups do not.
 */
static void index_whose_groups_were_pruned_is_passed(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    bool keep[64];
    uint64_t base, freed;
    struct hw_error err;

    (void)state;
    (void)log_transaction(log, 3, 100);
    log_snapshot_group(log);
    base = log_transaction(log, 3, 100);
    (void)log_snapshot(log, false);
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 3, 100);
    for (unsigned i = 0; i < 64; i++)
        keep[i] = i == 0 || i >= base;
    assert_int_equal(hw_core_prune(log->core, keep_some, keep, false, &freed, &err), HW_OK);
    assert_int_equal(hw_core_first_kept(log->core), base);
    assert_verifies(log);
    log_builder_free(log);
}

/* A group that did not change is listed again with a newer base; it must not be given up. */
static void newest_snapshot_without_an_old_group_is_found(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    bool keep[64];
    uint64_t base, index, freed;
    struct hw_error err;

    (void)state;
    index = log_snapshot(log, false);
    base = log_transaction(log, 1, 100);
    (void)log_snapshot(log, true);
    assert_true(log->groups[0].block_seq < index || log->groups[1].block_seq < index);
    for (unsigned i = 0; i < 64; i++)
        keep[i] =
            i == 0 || i >= base || i == log->groups[0].block_seq || i == log->groups[1].block_seq;
    assert_int_equal(hw_core_prune(log->core, keep_some, keep, false, &freed, &err), HW_OK);
    assert_verifies(log);
    for (unsigned i = 1; i < base; i++)
        keep[i] = false;
    assert_int_equal(hw_core_prune(log->core, keep_some, keep, false, &freed, &err), HW_OK);
    assert_finds(log, "lists blocks that were pruned");
    log_builder_free(log);
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
        cmocka_unit_test(honest_logs_verify),
        cmocka_unit_test(transaction_that_does_not_continue_the_state_is_found),
        cmocka_unit_test(transaction_whose_pages_do_not_make_its_sum_is_found),
        cmocka_unit_test(switches_verify_where_they_belong_and_nowhere_else),
        cmocka_unit_test(group_that_is_not_the_state_is_found),
        cmocka_unit_test(snapshot_with_another_sum_is_found),
        cmocka_unit_test(header_that_names_another_label_or_snapshot_is_found),
        cmocka_unit_test(time_that_goes_back_is_found),
        cmocka_unit_test(verification_can_be_stopped),
        cmocka_unit_test(index_whose_groups_were_pruned_is_passed),
        cmocka_unit_test(newest_snapshot_without_an_old_group_is_found),
        cmocka_unit_test(sum_of_a_database_counts_wal_and_file),
        cmocka_unit_test(sum_of_a_database_that_a_crash_left_counts_its_wal),
    };

    return cmocka_run_group_tests(tests, machine_up, machine_down);
}
