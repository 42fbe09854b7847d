/*
 * Random scenarios over the simulated disk: what the exhaustive tests do not combine.
 *
 * A test runs some hundreds; `tests/storm --runs N --seed S` as many as are wanted.  A seed makes a
 * scenario, the same one each time; the first thing wrong ends it, and says the seed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "sim/random_world.h"
#include "vfs/vfs.h"

enum { RUNS_OF_A_TEST = 300, SECONDS_OF_A_SCENARIO = 120 };

static struct random_world world;

/* --------------------------------------------------------------------------------- scenario */

static void configure(struct random_world *w)
{
    static const unsigned page_sizes[] = {512, 1024, 1024, 4096, 4096, 4096, 8192, 16384, 65536};
    static const int sector_sizes[] = {512, 4096, 4096, 4096, 16384};

    w->page_size = page_sizes[random_chance(w, sizeof(page_sizes) / sizeof(page_sizes[0]))];
    w->auto_vacuum = (unsigned)random_chance(w, 3);
    w->synchronous =
        random_chance(w, 8) == 0 ? (unsigned)RANDOM_OFF : 1 + (unsigned)random_chance(w, 3);
    w->has_foreign = random_chance(w, 4) == 0;
    w->has_savepoints = random_chance(w, 3) == 0;
    w->may_have_gaps = w->has_savepoints; /* a worker does not find its place by a false checksum */
    sim_set_sector_size(
        w->sim, sector_sizes[random_chance(w, sizeof(sector_sizes) / sizeof(sector_sizes[0]))]);
    sim_set_powersafe_overwrite(w->sim, random_chance(w, 4) > 0);
}

/* Somebody had the database before us. */
static void adopt_database(struct random_world *w)
{
    struct random_connection *stock = random_open(w, RANDOM_FOREIGN);
    char sql[80];

    if (stock == NULL)
        return;
    (void)snprintf(sql, sizeof(sql), "PRAGMA page_size=%u; PRAGMA auto_vacuum=%u", w->page_size,
                   w->auto_vacuum);
    (void)sqlite3_exec(stock->db, sql, NULL, NULL, NULL);
    stock->is_full = random_chance(w, 2) == 0; /* a journal's end lasts with EXTRA only */
    if (stock->is_full)
        (void)sqlite3_exec(stock->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    for (uint64_t i = random_chance(w, 6); i > 0 && w->failure[0] == '\0'; i--)
        random_commit(w, stock);
    random_close(w, stock);
    w->may_have_gaps = w->has_savepoints; /* there was no log */
}

static void open_one(struct random_world *w)
{
    unsigned process = (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES);

    if (w->has_foreign && w->count > 0 && random_chance(w, 4) == 0)
        process = RANDOM_FOREIGN;
    (void)random_open(w, process);
}

static void run_worker(struct random_world *w)
{
    unsigned process = (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES);
    struct hw_error err;
    uint64_t deadline;

    if (w->captures[process] == NULL)
        return;
    random_act_as(w, process);
    for (uint64_t i = 1 + random_chance(w, 4); i > 0; i--)
        if (hw_capture_step(w->captures[process], &deadline, &err) != HW_OK)
            break; /* nothing to do, or a failure, which is an alarm */
    random_note_length(w);
}

static void do_something(struct random_world *w)
{
    struct random_connection *any = random_pick(w, false);
    uint64_t what = random_chance(w, 40);

    if (any == NULL || what == 0) {
        open_one(w);
        return;
    }
    if (what == 1) {
        random_close(w, any);
    } else if (what <= 4) {
        random_checkpoint(w, any);
    } else if (what <= 6) {
        random_read(w, any);
    } else if (what <= 9) {
        run_worker(w);
    } else if (what <= 12) {
        random_follow(w, RANDOM_FOLLOWER);
    } else if (what <= 15) {
        random_follow(w, RANDOM_MIRROR);
    } else if (what <= 21) {
        struct random_connection *ours = random_pick(w, true);

        if (ours == NULL)
            return;
        if (what <= 18)
            random_wait_logged(w, ours);
        else if (what == 19)
            random_label(w, ours);
        else if (what == 20)
            random_snapshot(w, ours);
        else
            random_prune(w);
    } else if (what == 22) {
        sim_advance(w->sim, random_chance(w, 10) * 100000000U);
    } else if (what == 23) {
        random_restore(w);
    } else {
        random_commit(w, any);
    }
}

static void close_all(struct random_world *w)
{
    unsigned start = (unsigned)random_chance(w, RANDOM_PROCESSES);

    for (unsigned i = 0; i < RANDOM_PROCESSES; i++)
        random_close_process(w, (start + i) % RANDOM_PROCESSES);
}

/* Work, until the machine dies, or all have had enough. */
static void live(struct random_world *w)
{
    unsigned steps = 3 + (unsigned)random_chance(w, 40);
    unsigned dies_at = (unsigned)random_chance(w, steps + 2);
    bool power = random_chance(w, 3) > 0;

    for (uint64_t i = random_chance(w, 3); i > 0; i--)
        open_one(w);
    for (unsigned step = 0; step < steps && !random_has_ended(w); step++) {
        if (step == dies_at && !w->has_savepoints)
            random_arm(w, power, 1ULL << random_chance(w, 11));
        do_something(w);
        if (!random_is_down(w))
            continue;
        if (random_bury(w))
            return;
        random_settle(w);
    }
    if (random_chance(w, 3) == 0 && !w->has_savepoints)
        random_arm(w, true, 1ULL << random_chance(w, 8));
    close_all(w);
    (void)random_bury(w);
    sim_set_fault(w->sim, NULL);
}

/* The log's directory is taken over as if it were a copy. */
static void adopt_log(struct random_world *w)
{
    struct hw_error err = {0};

    random_act_as(w, 0);
    if (hw_core_adopt(sim_env(w->sim), "/app.db-hyper", &err) != HW_OK)
        random_fail(w, "adopt: %s", err.message);
}

static void run_scenario(struct random_world *w, uint64_t seed)
{
    random_reset(w, seed);
    random_oracle_open(w);
    configure(w);
    w->totals.scenarios++;
    if (random_chance(w, 5) == 0)
        adopt_database(w);
    for (uint64_t lives = 1 + random_chance(w, 3); lives > 0 && !random_has_ended(w); lives--) {
        live(w);
        if (!random_has_ended(w))
            random_check(w);
        if (!random_has_ended(w) && w->announced > 0 && random_chance(w, 15) == 0)
            adopt_log(w);
    }
    w->is_over = true;
    if (!random_has_ended(w))
        random_check_restore(w);
    for (unsigned process = RANDOM_FOLLOWER; process <= RANDOM_MIRROR; process++)
        if (!random_has_ended(w))
            random_check_follower(w, process);
    close_all(w);
    if (!random_has_ended(w) && (hw_capture_count() != 0 || sim_open_handles(w->sim) != 0))
        random_fail(w, "something was left open");
}

/* ------------------------------------------------------------------------------------ runs */

static void print_totals(const struct random_totals *totals)
{
    printf("%llu scenarios, %llu operations, %llu power losses, %llu kills, %llu commits, "
           "%llu refused, %llu checks, %llu restores, %llu gaps\n",
           (unsigned long long)totals->scenarios, (unsigned long long)totals->operations,
           (unsigned long long)totals->crashes, (unsigned long long)totals->kills,
           (unsigned long long)totals->commits, (unsigned long long)totals->busy,
           (unsigned long long)totals->checks, (unsigned long long)totals->restores,
           (unsigned long long)totals->gaps);
}

static void random_scenarios_end_well(void **state)
{
    const char *seed_text = getenv("HYPERWAL_SEED"), *runs_text = getenv("HYPERWAL_RUNS");
    const char *stride_text = getenv("HYPERWAL_STRIDE");
    uint64_t first = seed_text == NULL ? 1 : strtoull(seed_text, NULL, 0);
    uint64_t runs = runs_text == NULL ? RUNS_OF_A_TEST : strtoull(runs_text, NULL, 0);

    (void)state;
    if (runs_text == NULL && stride_text != NULL && strtoull(stride_text, NULL, 0) > 1)
        runs /= 4;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        if (runs_text != NULL) { /* so that whoever started us knows who died */
            printf("seed %llu\n", (unsigned long long)seed);
            (void)fflush(stdout);
        }
        (void)alarm(SECONDS_OF_A_SCENARIO);
        run_scenario(&world, seed);
        if (world.failure[0] != '\0') {
            print_totals(&world.totals);
            fail_msg("seed %llu: %s\nagain: tests/storm --runs 1 --seed %llu",
                     (unsigned long long)seed, world.failure, (unsigned long long)seed);
        }
    }
    (void)alarm(0);
    random_reset(&world, 1);
    print_totals(&world.totals);
}

static void a_seed_repeats_a_run_exactly(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        uint64_t hash;

        run_scenario(&world, seed);
        hash = sim_trace_hash(world.sim);
        run_scenario(&world, seed);
        assert_true(sim_trace_hash(world.sim) == hash);
    }
}

static int setup(void **state)
{
    (void)state;
    world.sim = sim_new(1);
    random_oracle_open(&world);
    for (unsigned process = 0; process < RANDOM_SHIM_PROCESSES; process++) {
        char name[16];
        struct hw_vfs_options options = {
            .name = name, .base = sim_vfs(world.sim), .env = sim_env(world.sim)};

        (void)snprintf(name, sizeof(name), "hwsim%u", process);
        if (hw_vfs_register(&options, NULL) != HW_OK)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    random_reset(&world, 1);
    random_oracle_close(&world);
    hw_vfs_unregister("hwsim0");
    hw_vfs_unregister("hwsim1");
    sim_free(world.sim);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_repeats_a_run_exactly),
        cmocka_unit_test(random_scenarios_end_well),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("random", tests, setup, teardown);
}
