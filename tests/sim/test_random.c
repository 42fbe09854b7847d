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

enum { RUNS_OF_A_TEST = 300, SECONDS_OF_A_SCENARIO = 120 };

static struct random_world world;

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
        random_run(&world, seed);
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

        random_run(&world, seed);
        hash = sim_trace_hash(world.sim);
        random_run(&world, seed);
        assert_true(sim_trace_hash(world.sim) == hash);
    }
}

static int setup(void **state)
{
    (void)state;
    return random_init(&world) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    random_release(&world);
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
