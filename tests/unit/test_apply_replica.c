/* A replica follows a log: what readers see, who may have it, what a crash or a wrong log does. */
#include "unit/replica_fixture.h"

struct world {
    struct sim *sim;
    struct maker m;
    struct hw_replica *replica;
    struct hw_error err;
};

static void begin(struct world *w, uint32_t page_size)
{
    memset(w, 0, sizeof(*w));
    w->sim = sim_new(0);
    maker_open(&w->m, page_size);
    maker_commit(&w->m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB); CREATE INDEX i ON t(b);"
                        "INSERT INTO t(b) VALUES(randomblob(50))");
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

/* What a reader sees within its transaction. */
static int64_t digest(sqlite3 *db)
{
    sqlite3_stmt *stmt;
    int64_t value;

    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT count(*) * 1000003 + total(a * length(b)) FROM t",
                                        -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    value = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    return value;
}

static void every_transaction_is_seen_at_any_page_size(void **state)
{
    (void)state;
    for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
        struct world w;

        begin(&w, page_size);
        open_replica(&w);
        for (int i = 0; i < 12; i++) {
            maker_commit(&w.m, "INSERT INTO t(b) SELECT randomblob(abs(random()) % 2000)"
                               " FROM (VALUES(1),(2),(3))");
            if (i % 3 == 2)
                maker_commit(&w.m, "DELETE FROM t WHERE a % 4 = 0");
            follow(&w);
        }
        maker_commit(&w.m, "DELETE FROM t WHERE a % 5 > 0");
        follow(&w);
        maker_commit(&w.m, "VACUUM");
        follow(&w);
        end(&w);
    }
}

static void many_transactions_are_caught_up_with_at_once(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    for (int i = 0; i < 600; i++) {
        maker_commit(&w.m, i % 7 == 6 ? "DELETE FROM t WHERE a % 7 = 3"
                                      : "INSERT INTO t(b) VALUES(randomblob(300))");
    }
    follow(&w);
    end(&w);
}

static void a_transaction_of_many_blocks_is_seen_whole_or_not_at_all(void **state)
{
    struct world w;
    sqlite3 *reader;
    int64_t before;

    (void)state;
    begin(&w, 512);
    open_replica(&w);
    w.m.block_pages = 7;
    reader = reader_open(w.sim);
    before = digest(reader);
    run_sql(w.m.db, "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<9000)"
                    "INSERT INTO t(b) SELECT randomblob(700) FROM n");
    maker_log(&w.m, false, 0);
    assert_true(w.m.page_count > 8192); /* more pages than a batch holds */
    while (hw_replica_seq(w.replica) < w.m.seq) {
        assert_int_equal(digest(reader), before);
        assert_status(hw_replica_step(w.replica, &w.err), HW_OK, &w.err);
    }
    follow(&w);
    assert_int_equal(digest(reader), digest(w.m.db));
    w.m.block_pages = 3;
    maker_commit(&w.m, "DELETE FROM t WHERE a % 6 > 0");
    maker_commit(&w.m, "VACUUM");
    follow(&w);
    sqlite3_close(reader);
    end(&w);
}

static void a_read_transaction_of_any_length_keeps_its_snapshot(void **state)
{
    struct world w;
    sqlite3 *readers[4];
    int64_t seen[4];

    (void)state;
    begin(&w, 512);
    open_replica(&w);
    for (int i = 0; i < 4; i++) {
        readers[i] = reader_open(w.sim);
        run_sql(readers[i], "BEGIN");
        seen[i] = digest(readers[i]);
        for (int j = 0; j < 150; j++) {
            maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(1500));"
                               "UPDATE t SET b = zeroblob(9) WHERE a % 31 = 5");
            assert_true(catch_up(w.replica, &w.err) >= 0);
            for (int k = 0; k <= i && j % 25 == 0; k++)
                assert_int_equal(digest(readers[k]), seen[k]);
        }
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(digest(readers[i]), seen[i]);
        run_sql(readers[i], "COMMIT");
    }
    follow(&w);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(digest(readers[i]), digest(w.m.db));
        sqlite3_close(readers[i]);
    }
    end(&w);
}

static void the_wal_starts_over_when_readers_let_it(void **state)
{
    struct world w;
    size_t size = 0;

    (void)state;
    begin(&w, 512);
    open_replica(&w);
    for (int i = 0; i < 1500; i++) {
        maker_commit(&w.m, "UPDATE t SET b = randomblob(400)");
        assert_true(catch_up(w.replica, &w.err) == HW_END);
    }
    follow(&w);
    assert_non_null(sim_file_bytes(w.sim, REPLICA "-wal", &size));
    assert_true(size < 3000 * 536);
    end(&w);
}

/* Only a checkpoint makes the database file longer. */
static void who_is_behind_puts_the_checkpoint_off(void **state)
{
    struct world w;
    size_t before = 0, after = 0, wal = 0;

    (void)state;
    begin(&w, 512);
    open_replica(&w);
    follow(&w);
    assert_non_null(sim_file_bytes(w.sim, REPLICA, &before));
    for (int i = 0; i < 1500; i++)
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(200))");
    assert_status(hw_replica_step(w.replica, &w.err), HW_OK, &w.err);
    assert_non_null(sim_file_bytes(w.sim, REPLICA "-wal", &wal));
    assert_in_range(wal / 536, 1000, 2400);
    assert_non_null(sim_file_bytes(w.sim, REPLICA, &after));
    assert_int_equal(after, before);
    follow(&w);
    assert_non_null(sim_file_bytes(w.sim, REPLICA, &after));
    assert_true(after > before);
    end(&w);
}

static void publishing_pauses_for_readers_in_a_long_wal_and_then_goes_on_with_an_alarm(void **state)
{
    struct world w;
    sqlite3 *reader;
    int64_t seen;
    int pauses = 0;
    enum hw_status status = HW_OK;

    (void)state;
    begin(&w, 512);
    open_replica(&w);
    reader = reader_open(w.sim);
    run_sql(reader, "BEGIN");
    seen = digest(reader);
    for (int i = 0; i < 2500; i++) {
        maker_commit(&w.m, "UPDATE t SET b = randomblob(400)");
        for (;;) {
            status = hw_replica_step(w.replica, &w.err);
            if (status != HW_AGAIN)
                break;
            pauses++;
            sim_advance(w.sim, 100000000);
        }
        assert_status(status, HW_OK, &w.err);
    }
    assert_in_range(pauses, 1, 40);
    assert_true(sim_log_has(w.sim, "event=replica_wal_long"));
    assert_int_equal(digest(reader), seen);
    sqlite3_close(reader);
    follow(&w);
    end(&w);
}

static void labels_and_snapshots_move_the_seq_and_change_nothing(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    maker_label(&w.m, "before");
    follow(&w);
    maker_snapshot(&w.m);
    follow(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(1)");
    maker_label(&w.m, "after");
    follow(&w);
    end(&w);
}

static void a_replica_of_a_log_without_a_state_waits_for_one(void **state)
{
    struct world w = {0};

    (void)state;
    w.sim = sim_new(0);
    maker_open(&w.m, 4096);
    open_replica(&w);
    assert_int_equal(hw_replica_seq(w.replica), UINT64_MAX);
    assert_status(hw_replica_step(w.replica, &w.err), HW_END, &w.err);
    assert_false(sim_file_exists(w.sim, REPLICA));
    maker_commit(&w.m, "CREATE TABLE t(a)");
    follow(&w);
    end(&w);
}

static void a_replica_is_built_from_the_newest_snapshot(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    for (int i = 0; i < 30; i++)
        maker_commit(&w.m, "INSERT INTO t(b) SELECT randomblob(3000) FROM (VALUES(1),(2),(3))");
    maker_snapshot(&w.m);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(2)");
    open_replica(&w);
    follow(&w);
    end(&w);
}

/* ------------------------------------------------------------------------ whose it is */

static void only_one_follower_at_a_time_and_only_of_its_log(void **state)
{
    struct world w;
    struct maker other;
    struct hw_replica *second = NULL;

    (void)state;
    begin(&w, 4096);
    open_replica(&w);
    assert_int_equal(replica_open(w.sim, w.m.core, &second, &w.err), HW_EBUSY);
    close_replica(&w);
    maker_open(&other, 4096);
    assert_int_equal(replica_open(w.sim, other.core, &second, &w.err), HW_EFORK);
    assert_null(second);
    maker_close(&other);
    open_replica(&w);
    follow(&w);
    end(&w);
}

static void a_database_that_is_no_replica_is_not_touched(void **state)
{
    struct world w;
    struct hw_replica_info info;
    sqlite3 *db = NULL;

    (void)state;
    begin(&w, 4096);
    assert_int_equal(sqlite3_open_v2(REPLICA, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(w.sim)->zName),
                     SQLITE_OK);
    run_sql(db, "CREATE TABLE mine(a); INSERT INTO mine VALUES(5)");
    sqlite3_close(db);
    assert_int_equal(replica_open(w.sim, w.m.core, &w.replica, &w.err), HW_EEXIST);
    assert_false(sim_file_exists(w.sim, REPLICA "-hyper/replica"));
    assert_int_equal(hw_replica_info(sim_env(w.sim), REPLICA, &info, &w.err), HW_ENOTFOUND);
    end(&w);
}

static void a_stock_client_cannot_write_while_a_follower_is_at_work(void **state)
{
    struct world w;
    sqlite3 *db;

    (void)state;
    begin(&w, 4096);
    open_replica(&w);
    db = reader_open(w.sim);
    assert_int_equal(sqlite3_exec(db, "INSERT INTO t(b) VALUES(1)", NULL, NULL, NULL), SQLITE_BUSY);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL), SQLITE_BUSY);
    sqlite3_close(db);
    follow(&w);
    end(&w);
}

static void the_directory_tells_what_the_replica_is(void **state)
{
    struct world w;
    struct hw_replica_info info;

    (void)state;
    begin(&w, 4096);
    open_replica(&w);
    assert_status(hw_replica_set_source(w.replica, "/somewhere/app.db-hyper", &w.err), HW_OK,
                  &w.err);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(1)");
    follow(&w);
    assert_status(hw_replica_info(sim_env(w.sim), REPLICA, &info, &w.err), HW_OK, &w.err);
    assert_string_equal(info.source, "/somewhere/app.db-hyper");
    assert_memory_equal(info.key, hw_core_identity(w.m.core)->key, HW_KEY_SIZE);
    assert_int_equal(info.seq, w.m.seq);
    assert_int_equal(info.sum, w.m.sum);
    end(&w);
}

/* ---------------------------------------------------------------------------- reopening */

/* Nothing was repaired, cut or doubted. */
static void assert_was_known(struct world *w)
{
    assert_false(sim_log_has(w->sim, "event=replica_repair"));
    assert_false(sim_log_has(w->sim, "event=replica_cut"));
    assert_false(sim_log_has(w->sim, "event=replica_unknown"));
}

static void a_reopened_replica_goes_on_where_it_was(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    for (int i = 0; i < 20; i++) {
        open_replica(&w);
        if (i > 0)
            assert_int_equal(hw_replica_seq(w.replica), w.m.seq);
        for (int j = 0; j <= i; j++)
            maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        follow(&w);
        close_replica(&w);
    }
    assert_was_known(&w);
    end(&w);
}

static void a_replica_that_cannot_be_seen_keeps_the_wal_of_its_readers(void **state)
{
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_STAT, .at = 1};
    struct world w;
    sqlite3 *db;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    close_replica(&w);
    db = reader_open(w.sim);
    run_sql(db, "SELECT * FROM t");
    for (bool was_reached = true; was_reached; fault.at++) {
        sim_set_fault(w.sim, &fault);
        (void)!replica_open(w.sim, w.m.core, &w.replica, &w.err);
        was_reached = sim_fault_was_reached(w.sim);
        sim_set_fault(w.sim, NULL);
        assert_true(sim_file_exists(w.sim, REPLICA "-wal"));
        assert_true(sim_file_exists(w.sim, REPLICA "-hyper/replica"));
        close_replica(&w);
    }
    assert_true(fault.at > 3);
    open_replica(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    assert_int_equal(fingerprint(db), fingerprint(w.m.db));
    sqlite3_close(db);
    end(&w);
}

static void the_wal_that_a_client_deleted_is_known_by_its_closing_record(void **state)
{
    struct world w;
    sqlite3 *db;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    for (int i = 0; i < 5; i++) {
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        follow(&w);
        close_replica(&w);
        db = reader_open(w.sim);
        run_sql(db, "SELECT * FROM t");
        sqlite3_close(db);
        assert_false(sim_file_exists(w.sim, REPLICA "-wal"));
        open_replica(&w);
        assert_int_equal(hw_replica_seq(w.replica), w.m.seq);
    }
    assert_was_known(&w);
    end(&w);
}

/* A reader keeps the checkpoint of the close from copying, and so from syncing, any frame. */
static void a_closing_record_is_true_of_what_a_loss_of_power_leaves(void **state)
{
    struct world w;
    sqlite3 *reader;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    reader = reader_open(w.sim);
    run_sql(reader, "BEGIN; SELECT * FROM t");
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    close_replica(&w);
    sim_crash(w.sim, SIM_DROP);
    sqlite3_close(reader);
    open_replica(&w);
    follow(&w);
    end(&w);
}

/* The follower is killed; the test closes what it left behind. */
static void kill_follower(struct world *w)
{
    sim_kill(w->sim, SIM_ALL_PROCESSES);
    close_replica(w);
}

static void after_a_kill_the_end_of_the_wal_is_known(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    for (int i = 0; i < 10; i++) {
        open_replica(&w);
        if (i > 0)
            assert_int_equal(hw_replica_seq(w.replica), w.m.seq);
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        follow(&w);
        kill_follower(&w);
    }
    assert_was_known(&w);
    end(&w);
}

static void after_a_kill_and_a_client_that_deleted_the_wal_the_sum_tells_the_state(void **state)
{
    struct world w;
    sqlite3 *db;

    (void)state;
    begin(&w, 1024);
    for (int i = 0; i < 5; i++) {
        open_replica(&w);
        if (i > 0)
            assert_int_equal(hw_replica_seq(w.replica), w.m.seq);
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(3000))");
        follow(&w);
        kill_follower(&w);
        db = reader_open(w.sim);
        run_sql(db, "SELECT * FROM t");
        sqlite3_close(db);
        assert_false(sim_file_exists(w.sim, REPLICA "-wal"));
    }
    assert_was_known(&w);
    end(&w);
}

/* As after a loss of power that took the records and not the frames. */
static void an_end_without_a_record_is_cut_back_to_one_that_has_it(void **state)
{
    struct world w;
    size_t size = 0;
    uint8_t *position;
    const uint8_t *bytes;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    for (int i = 0; i < 3; i++) {
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        follow(&w);
    }
    bytes = sim_file_bytes(w.sim, REPLICA "-hyper/position", &size);
    position = hw_alloc(size);
    memcpy(position, bytes, size);
    for (int i = 0; i < 3; i++) {
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
        follow(&w);
    }
    kill_follower(&w);
    sim_file_put(w.sim, REPLICA "-hyper/position", position, size);
    hw_free(position);
    open_replica(&w);
    assert_true(sim_log_has(w.sim, "event=replica_cut"));
    assert_int_equal(hw_replica_seq(w.replica), w.m.seq - 3);
    follow(&w);
    assert_false(sim_log_has(w.sim, "event=replica_repair"));
    end(&w);
}

static void without_any_record_the_replica_is_repaired_under_its_readers(void **state)
{
    struct world w;
    sqlite3 *reader;
    int64_t seen;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    for (int i = 0; i < 9; i++)
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    kill_follower(&w);
    sim_file_remove(w.sim, REPLICA "-hyper/position");
    maker_commit(&w.m, "DELETE FROM t WHERE a < 5");
    reader = reader_open(w.sim);
    run_sql(reader, "BEGIN");
    seen = digest(reader);
    open_replica(&w);
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    assert_int_equal(digest(reader), seen);
    sqlite3_close(reader);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    end(&w);
}

static void what_a_stock_client_wrote_between_followers_is_undone(void **state)
{
    struct world w;
    sqlite3 *db;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    follow(&w);
    close_replica(&w);
    db = reader_open(w.sim);
    run_sql(db, "PRAGMA wal_autocheckpoint=0; BEGIN; SELECT * FROM t; DELETE FROM t; COMMIT");
    open_replica(&w);
    follow(&w);
    sqlite3_close(db);
    end(&w);
}

static void a_replica_whose_file_was_removed_is_built_again(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    close_replica(&w);
    sim_file_remove(w.sim, REPLICA);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(2000))");
    open_replica(&w);
    follow(&w);
    end(&w);
}

/* -------------------------------------------------------------------------- a wrong log */

static void a_wrong_state_sum_is_never_shown_and_repaired_from_a_snapshot(void **state)
{
    struct world w;
    sqlite3 *reader;
    int64_t seen;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    reader = reader_open(w.sim);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES('good')");
    seen = digest(w.m.db);
    run_sql(w.m.db, "INSERT INTO t(b) VALUES('sum is wrong')");
    maker_log(&w.m, false, 0x1234);
    assert_status(hw_replica_step(w.replica, &w.err), HW_OK, &w.err);
    assert_int_equal(digest(reader), seen);
    assert_int_equal(hw_replica_step(w.replica, &w.err), HW_ECORRUPT);
    assert_non_null(strstr(w.err.message, "state sum"));
    assert_int_equal(digest(reader), seen);
    maker_snapshot(&w.m);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES('after the snapshot')");
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    sqlite3_close(reader);
    end(&w);
}

static void a_page_changed_on_disk_is_found_when_it_is_touched(void **state)
{
    struct world w;
    enum hw_status status;

    (void)state;
    begin(&w, 1024);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(zeroblob(300))");
    maker_snapshot(&w.m);
    open_replica(&w);
    follow(&w);
    sim_file_flip(w.sim, REPLICA, (size_t)(w.m.page_count - 1) * 1024 + 900, 0x10);
    run_sql(w.m.db, "UPDATE t SET b = randomblob(500)");
    maker_log(&w.m, true, 0);
    status = catch_up(w.replica, &w.err);
    if (status == HW_ECORRUPT) /* the page was one that the update changed */
        status = catch_up(w.replica, &w.err);
    assert_status(status, HW_END, &w.err);
    follow(&w);
    end(&w);
}

static void a_gap_is_crossed_by_the_snapshot_that_follows_it(void **state)
{
    struct world w;
    sqlite3 *reader;
    int64_t seen;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    reader = reader_open(w.sim);
    seen = digest(reader);
    run_sql(w.m.db, "INSERT INTO t(b) VALUES(randomblob(1000))");
    maker_gap(&w.m);
    assert_status(catch_up(w.replica, &w.err), HW_END, &w.err);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(1000))");
    assert_status(catch_up(w.replica, &w.err), HW_END, &w.err);
    assert_int_equal(digest(reader), seen);
    maker_snapshot(&w.m);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(1000))");
    follow(&w);
    assert_int_equal(digest(reader), digest(w.m.db));
    sqlite3_close(reader);
    end(&w);
}

static bool keep_from(void *ctx, uint64_t index)
{
    return index == 0 || index >= *(uint64_t *)ctx;
}

static void behind_the_pruned_part_it_starts_over_from_a_snapshot(void **state)
{
    struct world w;
    uint64_t from, freed;

    (void)state;
    begin(&w, 1024);
    open_replica(&w);
    follow(&w);
    for (int i = 0; i < 20; i++)
        maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(1000))");
    from = hw_core_length(w.m.core);
    maker_snapshot(&w.m);
    maker_commit(&w.m, "INSERT INTO t(b) VALUES(randomblob(1000))");
    assert_status(hw_core_prune(w.m.core, keep_from, &from, false, &freed, &w.err), HW_OK, &w.err);
    follow(&w);
    assert_true(sim_log_has(w.sim, "event=replica_repaired"));
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_transaction_is_seen_at_any_page_size),
        cmocka_unit_test(many_transactions_are_caught_up_with_at_once),
        cmocka_unit_test(a_transaction_of_many_blocks_is_seen_whole_or_not_at_all),
        cmocka_unit_test(a_read_transaction_of_any_length_keeps_its_snapshot),
        cmocka_unit_test(the_wal_starts_over_when_readers_let_it),
        cmocka_unit_test(who_is_behind_puts_the_checkpoint_off),
        cmocka_unit_test(
            publishing_pauses_for_readers_in_a_long_wal_and_then_goes_on_with_an_alarm),
        cmocka_unit_test(labels_and_snapshots_move_the_seq_and_change_nothing),
        cmocka_unit_test(a_replica_of_a_log_without_a_state_waits_for_one),
        cmocka_unit_test(a_replica_is_built_from_the_newest_snapshot),
        cmocka_unit_test(only_one_follower_at_a_time_and_only_of_its_log),
        cmocka_unit_test(a_database_that_is_no_replica_is_not_touched),
        cmocka_unit_test(a_stock_client_cannot_write_while_a_follower_is_at_work),
        cmocka_unit_test(the_directory_tells_what_the_replica_is),
        cmocka_unit_test(a_reopened_replica_goes_on_where_it_was),
        cmocka_unit_test(a_replica_that_cannot_be_seen_keeps_the_wal_of_its_readers),
        cmocka_unit_test(the_wal_that_a_client_deleted_is_known_by_its_closing_record),
        cmocka_unit_test(a_closing_record_is_true_of_what_a_loss_of_power_leaves),
        cmocka_unit_test(after_a_kill_the_end_of_the_wal_is_known),
        cmocka_unit_test(after_a_kill_and_a_client_that_deleted_the_wal_the_sum_tells_the_state),
        cmocka_unit_test(an_end_without_a_record_is_cut_back_to_one_that_has_it),
        cmocka_unit_test(without_any_record_the_replica_is_repaired_under_its_readers),
        cmocka_unit_test(what_a_stock_client_wrote_between_followers_is_undone),
        cmocka_unit_test(a_replica_whose_file_was_removed_is_built_again),
        cmocka_unit_test(a_wrong_state_sum_is_never_shown_and_repaired_from_a_snapshot),
        cmocka_unit_test(a_page_changed_on_disk_is_found_when_it_is_touched),
        cmocka_unit_test(a_gap_is_crossed_by_the_snapshot_that_follows_it),
        cmocka_unit_test(behind_the_pruned_part_it_starts_over_from_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
