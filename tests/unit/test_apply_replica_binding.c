/* A replica passes from one log to another that continues it. */
#include "unit/replica_fixture.h"

#include "hypercore/keep.h"

struct world {
    struct sim *sim, *log_sim; /* the logs are on a machine of their own, which has no faults */
    struct maker old, next;    /* the primary that was, and the one that goes on */
    struct hw_error err;
};

/* A primary that goes on from the state of `old`: another log, with a switch behind its genesis. */
static void maker_continue(struct maker *m, struct hw_env *env, const char *dir,
                           const struct maker *old)
{
    struct hw_genesis genesis = {.format_version = HW_FORMAT_VERSION,
                                 .page_size = old->page_size,
                                 .page_count = old->page_count,
                                 .sum = old->sum};
    struct hw_switch switch_ = {.role = HW_SWITCH_CONTINUES,
                                .seq = old->seq,
                                .page_count = old->page_count,
                                .sum = old->sum};
    sqlite3_int64 size = (sqlite3_int64)old->page_size * old->page_count;
    uint8_t *image = sqlite3_malloc64((sqlite3_uint64)size), *copy;
    struct hw_buffer body = {0};
    struct hw_error err = {0};

    *m = *old;
    assert_non_null(image);
    memcpy(image, old->image, (size_t)size);
    m->image = image;
    copy = sqlite3_malloc64((sqlite3_uint64)size);
    assert_non_null(copy);
    memcpy(copy, image, (size_t)size);
    copy[18] = copy[19] = 1; /* in memory there is no WAL */
    assert_int_equal(sqlite3_open(":memory:", &m->db), SQLITE_OK);
    assert_int_equal(
        sqlite3_deserialize(m->db, "main", copy, size, size,
                            SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE),
        SQLITE_OK);
    m->snapshot_seq = UINT64_MAX;
    assert_status(hw_core_create(env, dir, &m->core, &err), HW_OK, &err);
    memcpy(switch_.key, hw_core_identity(old->core)->key, HW_KEY_SIZE);
    maker_begin(m);
    hw_genesis_encode(&genesis, &body);
    maker_add_block(m, HW_ENTRY_GENESIS, true, true, &body);
    hw_buffer_clear(&body);
    hw_switch_encode(&switch_, &body);
    maker_add_block(m, HW_ENTRY_SWITCH, true, true, &body);
    maker_end(m);
    m->seq = 0;
    hw_buffer_release(&body);
}

static void begin(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->sim = sim_new(0);
    w->log_sim = sim_new(7);
    maker_open_in(&w->old, sim_env(w->log_sim), "/old", 1024);
    maker_commit(&w->old, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
                          "INSERT INTO t(b) VALUES(randomblob(5000))");
    maker_commit(&w->old, "INSERT INTO t(b) VALUES(randomblob(900))");
}

static void end(struct world *w)
{
    assert_null(sim_violation(w->sim));
    assert_int_equal(sim_open_handles(w->sim), 0);
    maker_close(&w->old);
    if (w->next.core != NULL)
        maker_close(&w->next);
    sim_free(w->sim);
    sim_free(w->log_sim);
}

static void follow(struct world *w, struct maker *m)
{
    struct hw_replica *replica = NULL;

    assert_status(replica_open(w->sim, m->core, &replica, &w->err), HW_OK, &w->err);
    assert_status(catch_up(replica, &w->err), HW_END, &w->err);
    assert_int_equal(hw_replica_sum(replica), m->sum);
    assert_replica_is_primary(w->sim, m);
    hw_replica_close(replica);
}

static bool was_repaired(struct world *w)
{
    return sim_log_has(w->sim, "event=replica_repair") ||
           sim_log_has(w->sim, "event=replica_unknown");
}

static void replica_in_the_state_of_the_switch_goes_on_without_a_snapshot(void **state)
{
    struct hw_replica_info info;
    struct world w;

    (void)state;
    begin(&w);
    follow(&w, &w.old);
    maker_continue(&w.next, sim_env(w.log_sim), "/next", &w.old);
    follow(&w, &w.next); /* nothing new yet: the record is that of the old log */
    follow(&w, &w.next);
    maker_commit(&w.next, "INSERT INTO t(b) VALUES(randomblob(3000))");
    follow(&w, &w.next);
    follow(&w, &w.next);
    assert_false(was_repaired(&w));
    assert_status(hw_replica_info(sim_env(w.sim), REPLICA, &info, &w.err), HW_OK, &w.err);
    assert_memory_equal(info.key, hw_core_identity(w.next.core)->key, HW_KEY_SIZE);
    assert_int_equal(info.seq, w.next.seq);
    assert_int_equal(info.base.epoch, 1);
    end(&w);
}

static void replica_that_moved_twice_goes_on(void **state)
{
    struct world w;
    struct maker third;

    (void)state;
    begin(&w);
    follow(&w, &w.old);
    maker_continue(&w.next, sim_env(w.log_sim), "/next", &w.old);
    maker_commit(&w.next, "DELETE FROM t WHERE a=1");
    follow(&w, &w.next);
    maker_continue(&third, sim_env(w.log_sim), "/third", &w.next);
    follow(&w, &third);
    maker_commit(&third, "INSERT INTO t(b) VALUES(randomblob(3000))");
    follow(&w, &third);
    assert_false(was_repaired(&w));
    maker_close(&third);
    end(&w);
}

static void replica_behind_or_ahead_is_compared_with_a_snapshot(void **state)
{
    for (int ahead = 0; ahead < 2; ahead++) {
        struct world w;

        (void)state;
        begin(&w);
        if (ahead == 0)
            follow(&w, &w.old);
        maker_commit(&w.old, "INSERT INTO t(b) VALUES(randomblob(700))");
        maker_continue(&w.next, sim_env(w.log_sim), "/next", &w.old);
        maker_commit(&w.next, "INSERT INTO t(b) VALUES(randomblob(100))");
        if (ahead != 0) {
            maker_commit(&w.old, "UPDATE t SET b=randomblob(1000)");
            follow(&w, &w.old);
        }
        maker_snapshot(&w.next);
        follow(&w, &w.next);
        assert_true(sim_log_has(w.sim, ahead != 0 ? "was=ahead" : "was=behind"));
        assert_true(was_repaired(&w));
        end(&w);
    }
}

static void log_that_continues_another_one_is_refused(void **state)
{
    struct hw_replica *replica = NULL;
    struct maker other;
    struct world w;

    (void)state;
    begin(&w);
    follow(&w, &w.old);
    maker_open(&other, 1024);
    maker_commit(&other, "CREATE TABLE x(a)");
    maker_continue(&w.next, sim_env(w.log_sim), "/next", &other);
    assert_int_equal(replica_open(w.sim, w.next.core, &replica, &w.err), HW_EFORK);
    assert_non_null(strstr(w.err.message, "does not continue"));
    maker_commit(&w.old, "INSERT INTO t(b) VALUES(1)");
    follow(&w, &w.old);
    maker_close(&other);
    end(&w);
}

/* --------------------------------------------------------------------------------- faults */

static void prepare(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_replica *replica = NULL;
    struct hw_core *core = NULL;

    assert_status(
        hw_core_open(sim_env(w->log_sim), "/old", HW_CORE_READ, UINT64_MAX, &core, &w->err), HW_OK,
        &w->err);
    assert_status(replica_open(sim, core, &replica, &w->err), HW_OK, &w->err);
    assert_status(catch_up(replica, &w->err), HW_END, &w->err);
    hw_replica_close(replica);
    hw_core_close(core);
}

static void move(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_replica *replica = NULL;

    for (int i = 0; i < 2 && replica == NULL; i++)
        if (replica_open(sim, w->next.core, &replica, &w->err) == HW_OK)
            (void)!catch_up(replica, &w->err);
    hw_replica_close(replica);
}

static void check(struct sim *sim, void *ctx)
{
    struct world *w = ctx;
    struct hw_replica *replica = NULL;

    assert_status(replica_open(sim, w->next.core, &replica, &w->err), HW_OK, &w->err);
    assert_status(catch_up(replica, &w->err), HW_END, &w->err);
    assert_int_equal(hw_replica_sum(replica), w->next.sum);
    hw_replica_close(replica);
    assert_replica_is_primary(sim, &w->next);
    assert_null(sim_violation(sim));
    assert_int_equal(sim_open_handles(sim), 0);
}

static void move_that_fails_or_is_cut_off_anywhere_is_made_by_the_next_follower(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_CRASH | SIM_KILL,
        .seed = 3,
        .stride = 5,
        .prepare = prepare,
        .run = move,
        .check = check,
    };
    struct world w;

    (void)state;
    begin(&w);
    maker_continue(&w.next, sim_env(w.log_sim), "/next", &w.old);
    maker_commit(&w.next, "INSERT INTO t(b) VALUES(randomblob(3000))");
    maker_snapshot(&w.next);
    scenario.ctx = &w;
    assert_true(sim_for_each_fault(w.sim, &scenario) > 20);
    end(&w);
}

/* ------------------------------------------------------- from and to a log of its own */

static void database_with_a_log_becomes_a_replica_and_one_again(void **state)
{
    struct hw_switch switch_;
    struct hw_replica_info info;
    enum hw_relation relation;
    struct world w;

    (void)state;
    begin(&w);
    follow(&w, &w.old);
    maker_continue(&w.next, sim_env(w.log_sim), "/next", &w.old);
    assert_status(hw_replica_info(sim_env(w.sim), REPLICA, &info, &w.err), HW_OK, &w.err);
    assert_status(hw_replica_relation(w.next.core, &info, &relation, &switch_, &w.err), HW_OK,
                  &w.err);
    assert_int_equal(relation, HW_RELATION_EQUAL);
    assert_int_equal(switch_.seq, w.old.seq);

    assert_status(hw_replica_release(sim_env(w.sim), REPLICA, &w.err), HW_OK, &w.err);
    sim_crash(w.sim, SIM_DROP); /* it stays so */
    assert_int_equal(hw_replica_info(sim_env(w.sim), REPLICA, &info, &w.err), HW_ENOTFOUND);
    /* As a primary closes it. */
    sim_file_remove(w.sim, REPLICA "-wal");

    assert_status(hw_replica_adopt(sim_env(w.sim), REPLICA, hw_core_identity(w.next.core)->key,
                                   &switch_, true, &w.err),
                  HW_OK, &w.err);
    sim_crash(w.sim, SIM_DROP);
    maker_commit(&w.next, "INSERT INTO t(b) VALUES(randomblob(3000))");
    follow(&w, &w.next);
    assert_false(was_repaired(&w));
    end(&w);
}

static void replica_that_is_followed_is_locked(void **state)
{
    struct hw_replica *replica = NULL;
    struct hw_file *lock = NULL;
    struct world w;

    (void)state;
    begin(&w);
    assert_status(replica_open(w.sim, w.old.core, &replica, &w.err), HW_OK, &w.err);
    assert_int_equal(hw_replica_lock(sim_env(w.sim), REPLICA, &lock, &w.err), HW_EBUSY);
    hw_replica_close(replica);
    assert_status(hw_replica_lock(sim_env(w.sim), REPLICA, &lock, &w.err), HW_OK, &w.err);
    assert_int_equal(replica_open(w.sim, w.old.core, &replica, &w.err), HW_EBUSY);
    sim_env(w.sim)->ops->close(lock);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replica_in_the_state_of_the_switch_goes_on_without_a_snapshot),
        cmocka_unit_test(replica_that_moved_twice_goes_on),
        cmocka_unit_test(replica_behind_or_ahead_is_compared_with_a_snapshot),
        cmocka_unit_test(log_that_continues_another_one_is_refused),
        cmocka_unit_test(move_that_fails_or_is_cut_off_anywhere_is_made_by_the_next_follower),
        cmocka_unit_test(database_with_a_log_becomes_a_replica_and_one_again),
        cmocka_unit_test(replica_that_is_followed_is_locked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
