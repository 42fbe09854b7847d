/* Tests the fair mutex of env/thread.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "env/thread.h"

enum { TURNS = 100, WORKERS = 2, ASKERS = 3 };

static struct {
    struct hw_fair_mutex fair;
    atomic_bool is_over;
    atomic_uint rounds; /* of those that work in a loop */
    unsigned inside;    /* guarded by fair */
    unsigned collisions;
    unsigned turns;
} world;

/* Holds the mutex nearly all of the time. */
static void *work(void *ctx)
{
    struct timespec step = {.tv_nsec = 200000};

    (void)ctx;
    while (!atomic_load(&world.is_over)) {
        hw_fair_mutex_lock(&world.fair);
        world.collisions += world.inside++ != 0;
        (void)nanosleep(&step, NULL);
        atomic_fetch_add(&world.rounds, 1);
        world.inside--;
        hw_fair_mutex_unlock(&world.fair);
    }
    return NULL;
}

static void *ask(void *ctx)
{
    (void)ctx;
    for (unsigned i = 0; i < TURNS; i++) {
        hw_fair_mutex_lock(&world.fair);
        world.collisions += world.inside++ != 0;
        world.turns++;
        world.inside--;
        hw_fair_mutex_unlock(&world.fair);
    }
    return NULL;
}

static int setup(void **state)
{
    (void)state;
    hw_fair_mutex_init(&world.fair);
    atomic_store(&world.is_over, false);
    atomic_store(&world.rounds, 0);
    world.turns = world.collisions = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hw_fair_mutex_release(&world.fair);
    return 0;
}

/* With one of POSIX's some hundred rounds go by for each turn. */
static void who_waits_comes_after_the_round_that_is_at_work(void **state)
{
    struct hw_thread worker;

    (void)state;
    assert_int_equal(hw_thread_start(&worker, work, NULL, NULL), HW_OK);
    while (atomic_load(&world.rounds) == 0)
        continue;
    (void)ask(NULL);
    assert_in_range(atomic_load(&world.rounds), 1, 4 * TURNS);
    atomic_store(&world.is_over, true);
    hw_thread_join(&worker);
}

static void one_at_a_time_is_inside(void **state)
{
    struct hw_thread workers[WORKERS], askers[ASKERS];

    (void)state;
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(hw_thread_start(&workers[i], work, NULL, NULL), HW_OK);
    for (unsigned i = 0; i < ASKERS; i++)
        assert_int_equal(hw_thread_start(&askers[i], ask, NULL, NULL), HW_OK);
    for (unsigned i = 0; i < ASKERS; i++)
        hw_thread_join(&askers[i]);
    atomic_store(&world.is_over, true);
    for (unsigned i = 0; i < WORKERS; i++)
        hw_thread_join(&workers[i]);
    assert_int_equal(world.turns, ASKERS * TURNS);
    assert_int_equal(world.collisions, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_waits_comes_after_the_round_that_is_at_work, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(one_at_a_time_is_inside, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
