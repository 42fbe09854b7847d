/* Files in memory keep the contract of env/env.h, as far as a log needs it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "hypercore/storage_memory.h"
#include "sim/sim.h"

enum { CHUNK = 65536 }; /* of storage_memory.c: holes are given back in these */

struct world {
    struct sim *sim;
    struct hw_env *outer, *env;
    struct hw_error err;
};

static struct world world;

static int setup(void **state)
{
    world.sim = sim_new(1);
    world.outer = sim_env(world.sim);
    world.env = hw_storage_memory_new(world.outer);
    *state = &world;
    return world.env == NULL;
}

static int teardown(void **state)
{
    (void)state;
    hw_storage_memory_free(world.env);
    sim_free(world.sim);
    return 0;
}

static struct hw_file *make(struct world *f, const char *path)
{
    struct hw_file *file = NULL;

    assert_int_equal(
        f->env->ops->open(f->env, path, HW_OPEN_CREATE | HW_OPEN_WRITE, &file, &f->err), HW_OK);
    return file;
}

static void a_file_is_made_once_if_that_is_asked(void **state)
{
    struct world *f = *state;
    struct hw_file *file = make(f, "m/one"), *again = NULL;

    assert_int_equal(f->env->ops->open(f->env, "m/one",
                                       HW_OPEN_CREATE | HW_OPEN_EXCLUSIVE | HW_OPEN_WRITE, &again,
                                       &f->err),
                     HW_EEXIST);
    assert_null(again);
    f->env->ops->close(file);
    f->env->ops->close(NULL);
}

static void what_is_punched_reads_as_zero_and_takes_no_room(void **state)
{
    static uint8_t bytes[3 * CHUNK], expected[3 * CHUNK], found[3 * CHUNK];
    struct world *f = *state;
    struct hw_file *file = make(f, "m/holes");
    struct hw_file_stat stat;

    memset(bytes, 7, sizeof(bytes));
    memset(expected, 7, sizeof(expected));
    assert_int_equal(f->env->ops->write_at(file, 0, bytes, sizeof(bytes), &f->err), HW_OK);
    assert_int_equal(f->env->ops->punch(file, 100, 50, &f->err), HW_OK);
    memset(expected + 100, 0, 50);
    assert_int_equal(f->env->ops->punch(file, CHUNK - 10, CHUNK + 20, &f->err), HW_OK);
    memset(expected + CHUNK - 10, 0, CHUNK + 20);
    assert_int_equal(f->env->ops->punch(file, CHUNK + 5, 5, &f->err), HW_OK);   /* a hole already */
    assert_int_equal(f->env->ops->punch(file, 5 * CHUNK, 100, &f->err), HW_OK); /* beyond it */
    assert_int_equal(f->env->ops->read_at(file, 0, found, sizeof(found), &f->err), HW_OK);
    assert_memory_equal(found, expected, sizeof(expected));
    assert_int_equal(f->env->ops->stat_file(file, &stat, &f->err), HW_OK);
    assert_int_equal(stat.size, sizeof(bytes));
    assert_int_equal(stat.allocated, 2 * CHUNK);
    f->env->ops->close(file);
}

static bool count_one(void *ctx, const char *name)
{
    (void)name;
    return ++*(unsigned *)ctx < 2;
}

static void names_of_one_directory_are_listed_until_it_is_enough(void **state)
{
    static const char *const names[] = {"m/a", "m/b", "m/c", "n/a", "ma", "m/d/a"};
    struct world *f = *state;
    unsigned count = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        f->env->ops->close(make(f, names[i]));
    assert_int_equal(f->env->ops->list(f->env, "m", count_one, &count, &f->err), HW_OK);
    assert_int_equal(count, 2);
}

static void nothing_is_shared_and_locks_are_not_contested(void **state)
{
    struct world *f = *state;
    struct hw_file *file = make(f, "m/alone");
    void *memory = NULL;

    assert_int_equal(f->env->ops->lock(file, false, &f->err), HW_OK);
    f->env->ops->unlock(file);
    assert_int_equal(f->env->ops->map(file, 4096, &memory, &f->err), HW_EMISUSE);
    assert_null(memory);
    f->env->ops->unmap(f->env, NULL, 0);
    f->env->ops->close(file);
}

static void clock_and_identity_are_those_of_the_world_around(void **state)
{
    struct world *f = *state;
    uint8_t ours[16], theirs[16];
    uint32_t word = 1;
    uint64_t before = f->outer->ops->monotonic_ns(f->outer);

    assert_in_range(f->env->ops->monotonic_ns(f->env), before, before + 1000000);
    assert_in_range(f->env->ops->realtime_ms(f->env) - f->outer->ops->realtime_ms(f->outer) + 5, 0,
                    5);
    assert_int_equal(f->env->ops->process_id(f->env), f->outer->ops->process_id(f->outer));
    assert_int_equal(f->env->ops->boot_id(f->env, ours, NULL), HW_OK);
    assert_int_equal(f->outer->ops->boot_id(f->outer, theirs, NULL), HW_OK);
    assert_memory_equal(ours, theirs, sizeof(ours));
    assert_int_equal(f->env->ops->machine_id(f->env, ours, NULL), HW_OK);
    assert_int_equal(f->outer->ops->machine_id(f->outer, theirs, NULL), HW_OK);
    assert_memory_equal(ours, theirs, sizeof(ours));
    f->env->ops->wake_word(f->env, &word);
    f->env->ops->wait_word(f->env, &word, 1, 5000000);
    assert_true(f->outer->ops->monotonic_ns(f->outer) >= before + 5000000);
    hw_env_log(f->env, HW_LOG_WARN, "event=seen number=%d", 7);
    assert_true(sim_log_has(f->sim, "event=seen number=7"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_made_once_if_that_is_asked),
        TEST(what_is_punched_reads_as_zero_and_takes_no_room),
        TEST(names_of_one_directory_are_listed_until_it_is_enough),
        TEST(nothing_is_shared_and_locks_are_not_contested),
        TEST(clock_and_identity_are_those_of_the_world_around),
    };

    return cmocka_run_group_tests_name("hypercore/storage_memory", tests, NULL, NULL);
}
