/* Tests the life of databases in memory: who holds a place, and what is left when anybody ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim.h"
#include "vfs/memory.h"

enum { VICTIM = 1, SURVIVOR = 2, DEAD = 3, LATER = 4 };

static const char directory[] = "/memory/hyperwal-1000";

struct world {
    struct sim *sim;
    struct hw_error err;
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(0)};
    *state = &world;
    return setenv("HYPERWAL_MEMORY_DIR", "/memory/", 1);
}

static int teardown(void **state)
{
    struct world *w = *state;

    sim_free(w->sim);
    return unsetenv("HYPERWAL_MEMORY_DIR");
}

static void begin(struct world *w)
{
    struct hw_env *env = sim_env(w->sim);

    sim_reset(w->sim, 0);
    assert_int_equal(env->ops->make_dir(env, "/memory", &w->err), HW_OK);
}

static enum hw_status join(struct world *w, unsigned process, const char *name, bool create,
                           struct hw_memory_place **out)
{
    sim_set_process(w->sim, process);
    return hw_memory_join(sim_env(w->sim), sqlite3_vfs_find(NULL), name, create, out, &w->err);
}

static void leave(struct world *w, unsigned process, struct hw_memory_place *place)
{
    sim_set_process(w->sim, process);
    hw_memory_leave(place);
}

/* The database gets a content; has it one? */
static void mark(struct world *w, const struct hw_memory_place *place)
{
    struct hw_env *env = sim_env(w->sim);
    struct hw_file *file = NULL;

    assert_int_equal(env->ops->open(env, hw_memory_filename(place),
                                    HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, &w->err),
                     HW_OK);
    env->ops->close(file);
}

static bool is_marked(struct world *w, const struct hw_memory_place *place)
{
    return sim_file_exists(w->sim, hw_memory_filename(place));
}

static bool count_name(void *ctx, const char *name)
{
    *(unsigned *)ctx += strcmp(name, "lock") != 0;
    return true;
}

/* Files and directories beside the lock. */
static unsigned left(struct world *w)
{
    struct hw_env *env = sim_env(w->sim);
    unsigned count = 0;

    sim_set_process(w->sim, LATER);
    assert_int_equal(env->ops->list(env, directory, count_name, &count, &w->err), HW_OK);
    return count;
}

/* --------------------------------------------------------------------------------- one by one */

static void a_place_lasts_until_the_last_holder_leaves(void **state)
{
    struct world *w = *state;
    struct hw_memory_place *one = NULL, *two = NULL;

    begin(w);
    assert_int_equal(join(w, 1, "/d/app.db", true, &one), HW_OK);
    mark(w, one);
    assert_int_equal(join(w, 2, "/d/app.db", false, &two), HW_OK);
    assert_string_equal(hw_memory_filename(one), hw_memory_filename(two));
    assert_non_null(strstr(hw_memory_filename(one), "/app.db"));
    leave(w, 1, one);
    assert_true(is_marked(w, two));
    leave(w, 2, two);
    assert_int_equal(left(w), 0);
    assert_int_equal(join(w, 1, "/d/app.db", false, &one), HW_ENOTFOUND);
    assert_int_equal(join(w, 1, "/d/app.db", true, &one), HW_OK);
    assert_false(is_marked(w, one));
    leave(w, 1, one);
}

static void two_holders_in_a_process_are_two(void **state)
{
    struct world *w = *state;
    struct hw_memory_place *one = NULL, *two = NULL;

    begin(w);
    assert_int_equal(join(w, 1, "/app.db", true, &one), HW_OK);
    mark(w, one);
    assert_int_equal(join(w, 1, "/app.db", true, &two), HW_OK);
    leave(w, 1, one);
    assert_true(is_marked(w, two));
    leave(w, 1, two);
    assert_int_equal(left(w), 0);
}

static void names_of_other_directories_are_other_databases(void **state)
{
    struct world *w = *state;
    struct hw_memory_place *one = NULL, *two = NULL;

    begin(w);
    assert_int_equal(join(w, 1, "/a/app.db", true, &one), HW_OK);
    assert_int_equal(join(w, 1, "/b/app.db", true, &two), HW_OK);
    assert_string_not_equal(hw_memory_filename(one), hw_memory_filename(two));
    leave(w, 1, one);
    assert_int_equal(left(w), 2);
    leave(w, 1, two);
}

struct holder {
    struct world *w;
    struct hw_file *lock;
    unsigned waits;
};

static void let_the_lock_go(void *ctx)
{
    struct holder *holder = ctx;

    if (++holder->waits == 3) {
        sim_env(holder->w->sim)->ops->close(holder->lock);
        holder->lock = NULL;
    }
}

static void who_joins_waits_for_who_sweeps_and_not_for_ever(void **state)
{
    struct world *w = *state;
    struct hw_env *env = sim_env(w->sim);
    struct hw_memory_place *place = NULL;
    struct holder holder = {.w = w};

    begin(w);
    assert_int_equal(join(w, 1, "/app.db", true, &place), HW_OK);
    leave(w, 1, place);
    sim_set_process(w->sim, SURVIVOR);
    assert_int_equal(env->ops->open(env, "/memory/hyperwal-1000/lock", HW_OPEN_READ | HW_OPEN_WRITE,
                                    &holder.lock, &w->err),
                     HW_OK);
    assert_int_equal(env->ops->lock(holder.lock, false, &w->err), HW_OK);
    assert_int_equal(join(w, 1, "/app.db", true, &place), HW_EBUSY);
    sim_set_idle(w->sim, let_the_lock_go, &holder);
    assert_int_equal(join(w, 1, "/app.db", true, &place), HW_OK);
    assert_int_equal(holder.waits, 3);
    sim_set_idle(w->sim, NULL, NULL);
    leave(w, 1, place);
}

/* ------------------------------------------------------------------------------- every moment */

struct cast {
    struct hw_memory_place *survivor, *dead;
};

/* One place is held, one is of a process that died. */
static void prepare(struct world *w, struct cast *cast)
{
    begin(w);
    assert_int_equal(join(w, SURVIVOR, "/held.db", true, &cast->survivor), HW_OK);
    mark(w, cast->survivor);
    assert_int_equal(join(w, DEAD, "/dead.db", true, &cast->dead), HW_OK);
    mark(w, cast->dead);
    sim_kill(w->sim, DEAD);
}

/* Whatever fails, who gets in finds what is right. */
static void come_and_go(struct world *w)
{
    struct hw_memory_place *held = NULL, *dead = NULL, *fresh = NULL;
    bool dead_ok = join(w, VICTIM, "/dead.db", true, &dead) == HW_OK;
    bool held_ok = join(w, VICTIM, "/held.db", false, &held) == HW_OK;
    bool fresh_ok = join(w, VICTIM, "/fresh.db", true, &fresh) == HW_OK;

    assert_true(!held_ok || is_marked(w, held));
    assert_true(!dead_ok || !is_marked(w, dead));
    assert_true(!fresh_ok || !is_marked(w, fresh));
    leave(w, VICTIM, dead);
    leave(w, VICTIM, held);
    leave(w, VICTIM, fresh);
}

static void check_after(struct world *w, const struct cast *cast)
{
    struct hw_memory_place *place = NULL;

    assert_true(is_marked(w, cast->survivor));
    assert_int_equal(join(w, LATER, "/held.db", false, &place), HW_OK);
    assert_true(is_marked(w, place));
    leave(w, LATER, place);
    assert_int_equal(left(w), 2); /* the survivor's place and its holders */
    assert_int_equal(join(w, LATER, "/dead.db", true, &place), HW_OK);
    assert_false(is_marked(w, place));
    leave(w, LATER, place);
    assert_int_equal(join(w, LATER, "/fresh.db", true, &place), HW_OK);
    assert_false(is_marked(w, place));
    leave(w, LATER, place);
    leave(w, SURVIVOR, cast->survivor);
    assert_int_equal(left(w), 0);
}

static bool try_with(struct world *w, enum sim_fault_kind kind, uint64_t at)
{
    struct sim_fault fault = {.kind = kind, .at = at};
    struct cast cast = {NULL, NULL};
    bool reached;

    prepare(w, &cast);
    sim_set_fault(w->sim, &fault);
    come_and_go(w);
    reached = sim_fault_was_reached(w->sim);
    sim_set_fault(w->sim, NULL);
    if (reached && kind == SIM_KILL)
        sim_kill(w->sim, VICTIM);
    check_after(w, &cast);
    leave(w, DEAD, cast.dead); /* only what it has in this process */
    return reached;
}

static void whatever_ends_or_fails_the_living_keep_theirs_and_the_dead_go(void **state)
{
    static const enum sim_fault_kind kinds[] = {SIM_KILL, SIM_EIO, SIM_ENOSPC, SIM_EMFILE,
                                                SIM_ENOMEM};
    struct world *w = *state;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        uint64_t at = 1;

        while (try_with(w, kinds[i], at))
            at++;
        assert_true(at > 10);
        printf("fault %u: %llu places\n", (unsigned)kinds[i], (unsigned long long)at - 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_place_lasts_until_the_last_holder_leaves),
        TEST(two_holders_in_a_process_are_two),
        TEST(names_of_other_directories_are_other_databases),
        TEST(who_joins_waits_for_who_sweeps_and_not_for_ever),
        TEST(whatever_ends_or_fails_the_living_keep_theirs_and_the_dead_go),
    };

    return cmocka_run_group_tests_name("vfs_memory", tests, NULL, NULL);
}
