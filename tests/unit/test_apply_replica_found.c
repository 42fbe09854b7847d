/* What a follower finds when it opens a replica that was left by a kill, or changed by others. */
#include "unit/replica_fixture.h"

struct world {
    struct sim *sim;
    struct maker m;
    struct hw_replica *replica;
    struct hw_error err;
};

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->sim = sim_new(0);
    maker_open(&w->m, 1024);
    maker_commit(&w->m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
                        "INSERT INTO t(b) VALUES(randomblob(5000))");
}

static void open_replica(struct world *w)
{
    assert_status(replica_open(w->sim, w->m.core, &w->replica, &w->err), HW_OK, &w->err);
}

static void close_replica(struct world *w)
{
    hw_replica_close(w->replica);
    w->replica = NULL;
}

/* The follower is killed; the test closes what it left behind. */
static void kill_follower(struct world *w)
{
    sim_kill(w->sim, SIM_ALL_PROCESSES);
    close_replica(w);
}

static void follow(struct world *w)
{
    assert_status(catch_up(w->replica, &w->err), HW_END, &w->err);
    assert_int_equal(hw_replica_sum(w->replica), w->m.sum);
    assert_int_equal(hw_replica_seq(w->replica), hw_core_length(w->m.core) - 1);
    assert_replica_is_primary(w->sim, &w->m);
}

static void end(struct world *w)
{
    close_replica(w);
    assert_null(sim_violation(w->sim));
    assert_int_equal(sim_open_handles(w->sim), 0);
    maker_close(&w->m);
    sim_free(w->sim);
}

/* A stock program, whose close puts its WAL into the file and deletes it. */
static void write_by_stock_client(struct world *w, const char *sql)
{
    sqlite3 *db = reader_open(w->sim);

    run_sql(db, sql);
    sqlite3_close(db);
    assert_false(sim_file_exists(w->sim, REPLICA "-wal"));
}

static uint8_t *copy_of(struct sim *sim, const char *path, size_t *size)
{
    const uint8_t *bytes = sim_file_bytes(sim, path, size);
    uint8_t *copy = hw_alloc(*size);

    assert_non_null(copy);
    memcpy(copy, bytes, *size);
    return copy;
}

/* Reads of the replica's files, most of which are of one page. */
static uint64_t reads_of_file(struct world *w)
{
    return sim_count(w->sim, SIM_READ, REPLICA);
}

/* ------------------------------------------------------------------------ written by others */

static void what_a_stock_client_wrote_after_a_kill_is_undone(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    open_replica(&w);
    follow(&w);
    kill_follower(&w);
    write_by_stock_client(&w, "INSERT INTO t(b) VALUES('mine')");
    open_replica(&w);
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    end(&w);
}

/* The WAL was just started over: the newest record is again one without frames. */
static void what_a_stock_client_wrote_after_a_kill_behind_a_checkpoint_is_undone(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    open_replica(&w);
    for (int i = 0; i < 60; i++)
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(50000))");
    follow(&w);
    kill_follower(&w);
    write_by_stock_client(&w, "DELETE FROM t WHERE a < 20");
    open_replica(&w);
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    end(&w);
}

static void a_file_put_back_with_its_old_time_is_found(void **state)
{
    struct hw_file_stat old;
    struct world w;
    uint8_t *copy;
    size_t size;

    (void)state;
    begin(&w);
    open_replica(&w);
    follow(&w);
    close_replica(&w);
    write_by_stock_client(&w, "SELECT * FROM t");
    copy = copy_of(w.sim, REPLICA, &size);
    assert_status(sim_env(w.sim)->ops->stat(sim_env(w.sim), REPLICA, &old, &w.err), HW_OK, &w.err);
    open_replica(&w);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(5000)");
    follow(&w);
    close_replica(&w);
    sim_file_put(w.sim, REPLICA, copy, size);
    sim_file_set_modified(w.sim, REPLICA, old.modified_ns);
    sim_file_remove(w.sim, REPLICA "-wal");
    open_replica(&w);
    follow(&w);
    assert_false(sim_log_has(w.sim, "event=replica_unknown")); /* its own older state: a record */
    hw_free(copy);
    end(&w);
}

/* Reading all of a large file takes long: who did nothing wrong need not wait for it. */
static void a_file_that_nobody_touched_is_not_read_whole(void **state)
{
    uint64_t pages, before;
    struct world w;

    (void)state;
    begin(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(900000))");
    maker_snapshot(&w.m);
    pages = w.m.page_count;
    before = reads_of_file(&w);
    open_replica(&w); /* makes the file */
    assert_true(reads_of_file(&w) - before < pages / 2);
    for (int i = 0; i < 3; i++) {
        before = reads_of_file(&w);
        if (i == 1)
            close_replica(&w);
        else
            kill_follower(&w);
        open_replica(&w);
        assert_true(reads_of_file(&w) - before < pages / 2);
    }
    follow(&w);
    end(&w);
}

/* ------------------------------------------------------------------- an end without a record */

/*
 * A stock client checkpointed frames whose records the loss of power then took.  What is left is a
 * state; under a WAL cut back to an older record the same file would be a mixture of two.
 */
static void an_end_without_a_record_that_is_in_the_file_stays_what_readers_see(void **state)
{
    struct world w;
    sqlite3 *db;
    uint64_t last;
    uint8_t *position;
    size_t size;

    (void)state;
    begin(&w);
    maker_commit(&w.m, "WITH RECURSIVE n(i) AS (VALUES(2) UNION ALL SELECT i+1 FROM n WHERE i<50)"
                       "INSERT INTO t SELECT i, randomblob(900) FROM n");
    open_replica(&w);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(5000) WHERE a = 1");
    follow(&w);
    position = copy_of(w.sim, REPLICA "-hyper/position", &size);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(900) WHERE a > 9 OR a = 1");
    follow(&w);
    last = fingerprint(w.m.db);
    db = reader_open(w.sim);
    run_sql(db, "PRAGMA wal_checkpoint");
    sim_crash(w.sim, SIM_KEEP);
    sqlite3_close(db);
    close_replica(&w);
    sim_file_put(w.sim, REPLICA "-hyper/position", position, size);
    hw_free(position);
    maker_commit(&w.m, "DELETE FROM t WHERE a = 30");
    open_replica(&w);
    db = reader_open(w.sim);
    assert_int_equal(fingerprint(db), last);
    sqlite3_close(db);
    follow(&w);
    assert_false(sim_log_has(w.sim, "event=replica_cut"));
    end(&w);
}

static void an_end_without_a_record_is_not_cut_off_under_its_readers(void **state)
{
    struct world w;
    sqlite3 *reader;
    uint64_t last;
    uint8_t *position;
    size_t size;

    (void)state;
    begin(&w);
    open_replica(&w);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(5000)");
    follow(&w);
    position = copy_of(w.sim, REPLICA "-hyper/position", &size);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(5000)");
    follow(&w);
    last = fingerprint(w.m.db);
    kill_follower(&w);
    sim_file_put(w.sim, REPLICA "-hyper/position", position, size);
    hw_free(position);
    reader = reader_open(w.sim);
    run_sql(reader, "BEGIN; SELECT * FROM t");
    open_replica(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(5000))");
    follow(&w);
    assert_int_equal(fingerprint(reader), last);
    assert_false(sim_log_has(w.sim, "event=replica_cut"));
    sqlite3_close(reader);
    end(&w);
}

/* Else the same without a stock client: the file would have what no record tells of. */
static void a_close_whose_records_are_not_durable_leaves_the_file_alone(void **state)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .path = "position", .at = 1};
    struct world w;
    uint8_t *before;
    size_t size, size_now;

    (void)state;
    begin(&w);
    open_replica(&w);
    follow(&w);
    maker_commit(&w.m, "UPDATE t SET b = randomblob(5000)");
    follow(&w);
    before = copy_of(w.sim, REPLICA, &size);
    sim_set_fault(w.sim, &fault);
    close_replica(&w);
    assert_true(sim_fault_was_reached(w.sim));
    sim_set_fault(w.sim, NULL);
    assert_memory_equal(sim_file_bytes(w.sim, REPLICA, &size_now), before, size);
    assert_int_equal(size_now, size);
    hw_free(before);
    open_replica(&w);
    follow(&w);
    end(&w);
}

/* ------------------------------------------------------------------------ what a repair sees */

static void copy_database(sqlite3 *to, sqlite3 *from)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");

    assert_non_null(backup);
    assert_int_equal(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    assert_int_equal(sqlite3_backup_finish(backup), SQLITE_OK);
}

/*
 * The log jumps back to a state before a VACUUM.  Its last pages are in the WAL, in frames that no
 * reader sees any more and no checkpoint will copy again.
 */
static void a_repair_that_grows_the_database_writes_all_of_its_new_pages(void **state)
{
    struct world w;
    sqlite3 *old, *reader;

    (void)state;
    begin(&w);
    open_replica(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(90000))");
    follow(&w);
    assert_int_equal(sqlite3_open(":memory:", &old), SQLITE_OK);
    copy_database(old, w.m.db);
    maker_commit(&w.m, "DELETE FROM t WHERE a > 1; VACUUM");
    follow(&w);
    reader = reader_open(w.sim);
    run_sql(reader, "PRAGMA wal_checkpoint; BEGIN; SELECT * FROM t"); /* the WAL goes on after it */
    copy_database(w.m.db, old);
    sqlite3_close(old);
    maker_gap(&w.m);
    maker_snapshot(&w.m);
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    run_sql(reader, "COMMIT; PRAGMA wal_checkpoint");
    sqlite3_close(reader);
    assert_replica_is_primary(w.sim, &w.m);
    for (int i = 0; i < 30; i++)
        maker_commit(&w.m, "UPDATE t SET b = randomblob(40000) WHERE a = 1");
    follow(&w);
    close_replica(&w);
    assert_replica_is_primary(w.sim, &w.m);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_stock_client_wrote_after_a_kill_is_undone),
        cmocka_unit_test(what_a_stock_client_wrote_after_a_kill_behind_a_checkpoint_is_undone),
        cmocka_unit_test(a_file_put_back_with_its_old_time_is_found),
        cmocka_unit_test(a_file_that_nobody_touched_is_not_read_whole),
        cmocka_unit_test(an_end_without_a_record_that_is_in_the_file_stays_what_readers_see),
        cmocka_unit_test(an_end_without_a_record_is_not_cut_off_under_its_readers),
        cmocka_unit_test(a_close_whose_records_are_not_durable_leaves_the_file_alone),
        cmocka_unit_test(a_repair_that_grows_the_database_writes_all_of_its_new_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
