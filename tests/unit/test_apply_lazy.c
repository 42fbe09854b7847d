/* Replicas with holes: the map of what is there, the first state, and the filling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/lazy.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static const struct hw_lazy_origin origin = {
    .fork = 3, .index_seq = 99, .page_size = 4096, .group_count = 70};

static struct hw_lazy_map *map_made(void)
{
    struct hw_lazy_map *map = NULL;
    struct hw_error err = {0};

    if (hw_lazy_map_create(sim_env(machine), "present", &origin, &map, &err) != HW_OK)
        fail_msg("%s", err.message);
    return map;
}

static enum hw_status map_opened(struct hw_lazy_map **out)
{
    *out = NULL;
    return hw_lazy_map_open(sim_env(machine), "present", out, NULL);
}

/* ---------------------------------------------------------------------------------- the map */

static void a_map_tells_which_pages_are_there(void **state)
{
    struct hw_lazy_map *map = map_made(), *other = NULL;

    (void)state;
    assert_int_equal(hw_lazy_absent(map), 70 * 64);
    assert_false(hw_lazy_has(map, 1));
    hw_lazy_mark(map, 1);
    hw_lazy_mark(map, 65);
    assert_int_equal(map_opened(&other), HW_OK); /* another process */
    assert_true(hw_lazy_has(other, 1));
    assert_false(hw_lazy_has(other, 2));
    assert_true(hw_lazy_has(other, 65));
    assert_true(hw_lazy_has(other, 70 * 64 + 1)); /* beyond the map nothing is absent */
    assert_int_equal(hw_lazy_group(other, 1), 1);
    hw_lazy_mark(map, UINT32_MAX);
    hw_lazy_mark_group(map, 5);
    assert_int_equal(hw_lazy_group(other, 5), UINT64_MAX);
    assert_int_equal(hw_lazy_absent(map), 69 * 64 - 2);
    assert_int_equal(hw_lazy_next_absent(map, 5), 6);
    hw_lazy_mark_above(map, 64 * 3 + 10);
    assert_false(hw_lazy_has(other, 64 * 3 + 10));
    assert_true(hw_lazy_has(other, 64 * 3 + 11));
    assert_true(hw_lazy_has(other, 70 * 64));
    assert_int_equal(hw_lazy_next_absent(map, 4), UINT32_MAX);
    assert_int_equal(hw_lazy_map_origin(other).fork, 3);
    assert_int_equal(hw_lazy_map_origin(other).index_seq, 99);
    hw_lazy_map_close(map);
    hw_lazy_map_close(other);
}

static void a_group_is_wanted_until_it_is_there_or_cannot_be_had(void **state)
{
    struct hw_lazy_map *map = map_made();

    (void)state;
    assert_int_equal(hw_lazy_next_wanted(map, 0), UINT32_MAX);
    assert_true(hw_lazy_want(map, 0));
    assert_false(hw_lazy_want(map, 0));
    assert_true(hw_lazy_want(map, 33));
    assert_true(hw_lazy_want(map, 69));
    assert_int_equal(hw_lazy_next_wanted(map, 0), 0);
    assert_int_equal(hw_lazy_next_wanted(map, 1), 33);
    assert_int_equal(hw_lazy_next_wanted(map, 34), 69);
    assert_int_equal(hw_lazy_next_wanted(map, 70), UINT32_MAX);
    hw_lazy_unwant(map, 33);
    assert_int_equal(hw_lazy_next_wanted(map, 1), 69);
    hw_lazy_refuse(map, 69);
    assert_int_equal(hw_lazy_next_wanted(map, 1), UINT32_MAX);
    assert_true(hw_lazy_take_refused(map, 69));
    assert_false(hw_lazy_take_refused(map, 69)); /* told once */
    hw_lazy_map_close(map);
}

static void a_map_is_trusted_in_its_boot_or_after_a_good_end(void **state)
{
    struct hw_lazy_map *map = map_made(), *other = NULL;

    (void)state;
    hw_lazy_mark(map, 7);
    assert_int_equal(hw_lazy_map_begin(map, NULL), HW_OK);
    sim_crash(machine, SIM_KEEP);
    hw_lazy_map_close(map);
    assert_int_equal(map_opened(&other), HW_ENOTFOUND); /* power was lost in the middle */

    map = map_made();
    hw_lazy_mark(map, 7);
    assert_int_equal(sim_env(machine)->ops->sync_dir(sim_env(machine), ".", NULL), HW_OK);
    assert_int_equal(hw_lazy_map_end(map, NULL), HW_OK);
    sim_crash(machine, SIM_DROP);
    hw_lazy_map_close(map);
    assert_int_equal(map_opened(&other), HW_OK);
    assert_true(hw_lazy_has(other, 7));
    assert_int_equal(hw_lazy_map_begin(other, NULL), HW_OK);
    sim_crash(machine, SIM_DROP);
    hw_lazy_map_close(other);
    assert_int_equal(map_opened(&other), HW_ENOTFOUND);
}

static void prepare_map(struct sim *sim, void *ctx)
{
    struct hw_lazy_map **map = ctx;

    *map = map_made();
    assert_int_equal(hw_lazy_map_begin(*map, NULL), HW_OK);
    assert_int_equal(sim_env(sim)->ops->sync_dir(sim_env(sim), ".", NULL), HW_OK);
    hw_lazy_mark(*map, 7);
}

static void end_map(struct sim *sim, void *ctx)
{
    struct hw_lazy_map **map = ctx;

    (void)sim;
    (void)!hw_lazy_map_end(*map, NULL);
}

/* A page whose bit is lost would be filled with what it was before. */
static void check_map(struct sim *sim, void *ctx)
{
    struct hw_lazy_map **map = ctx, *other = NULL;

    (void)sim;
    hw_lazy_map_close(*map);
    if (map_opened(&other) == HW_OK)
        assert_true(hw_lazy_has(other, 7));
    hw_lazy_map_close(other);
}

static void a_map_with_a_good_end_has_its_bits_wherever_power_is_lost(void **state)
{
    struct hw_lazy_map *map = NULL;
    struct sim_scenario scenario = {
        .faults = SIM_CRASH,
        .prepare = prepare_map,
        .run = end_map,
        .check = check_map,
        .ctx = &map,
    };

    (void)state;
    for (scenario.seed = 1; scenario.seed <= 20; scenario.seed++)
        assert_true(sim_for_each_fault(machine, &scenario) > 5);
}

static void a_map_that_is_broken_or_damaged_is_not_opened(void **state)
{
    static const uint64_t offsets[] = {0, 8, 12, 16, 20, 24, 32, 40, 87, 90};
    struct hw_lazy_map *map = map_made(), *other = NULL;
    struct hw_file *file = NULL;
    struct hw_env *env = sim_env(machine);

    (void)state;
    hw_lazy_map_break(map);
    assert_true(hw_lazy_map_is_broken(map));
    hw_lazy_map_close(map);
    assert_int_equal(map_opened(&other), HW_ENOTFOUND);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        hw_lazy_map_close(map_made());
        assert_int_equal(env->ops->open(env, "present", HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL),
                         HW_OK);
        assert_int_equal(env->ops->write_at(file, offsets[i], "\x5a", 1, NULL), HW_OK);
        env->ops->close(file);
        assert_int_equal(map_opened(&other), HW_ENOTFOUND);
    }
    hw_lazy_map_close(map_made());
    assert_int_equal(env->ops->open(env, "present", HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL),
                     HW_OK);
    assert_int_equal(env->ops->truncate(file, 4096 + 70 * 8, NULL), HW_OK); /* too short */
    assert_int_equal(map_opened(&other), HW_ENOTFOUND);
    assert_int_equal(env->ops->truncate(file, 10, NULL), HW_OK);
    assert_int_equal(map_opened(&other), HW_ENOTFOUND);
    env->ops->close(file);
}

/* --------------------------------------------------------------------------- the first state */

static enum hw_status write_file(void *ctx, uint64_t offset, const void *bytes, size_t size,
                                 struct hw_error *err)
{
    struct hw_file *file = ctx;

    return file->env->ops->write_at(file, offset, bytes, size, err);
}

/* Pages that are there are those of the state; with `all`, after every hole was filled. */
static void check_database(struct log_builder *log, const struct log_state *expected, bool all)
{
    struct hw_env *env = sim_env(machine);
    struct hw_lazy_map *map = NULL;
    struct hw_lazy_filler *filler = NULL;
    struct hw_file *file = NULL;
    struct hw_error err = {0};
    uint8_t *page = test_malloc(log->page_size);
    uint32_t there = 0;

    assert_int_equal(map_opened(&map), HW_OK);
    assert_int_equal(env->ops->open(env, "db", HW_OPEN_READ | HW_OPEN_WRITE, &file, &err), HW_OK);
    if (all) {
        assert_int_equal(hw_lazy_filler_open(log->core, map, &filler, &err), HW_OK);
        for (uint32_t g = hw_lazy_next_absent(map, 0); g != UINT32_MAX;
             g = hw_lazy_next_absent(map, g)) {
            if (hw_lazy_filler_load(filler, g, &err) != HW_OK ||
                hw_lazy_filler_store(filler, write_file, file, &err) != HW_OK)
                fail_msg("group %u: %s", (unsigned)g, err.message);
        }
        hw_lazy_filler_close(filler);
        assert_int_equal(hw_lazy_absent(map), 0);
    }
    for (uint32_t p = 1; p <= expected->page_count; p++) {
        if (!hw_lazy_has(map, p) || hw_entry_is_lock_page(p, log->page_size))
            continue;
        there++;
        assert_int_equal(
            env->ops->read_at(file, (uint64_t)(p - 1) * log->page_size, page, log->page_size, &err),
            HW_OK);
        assert_memory_equal(page, expected->pages + (size_t)(p - 1) * log->page_size,
                            log->page_size);
    }
    assert_true(hw_lazy_has(map, 1));
    assert_true(there > 0 && (!all || there == expected->page_count));
    env->ops->close(file);
    hw_lazy_map_close(map);
    test_free(page);
}

static void remove_database(void)
{
    static const char *const names[] = {"db", "db.tmp", "present", "present.tmp"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (sim_file_exists(machine, names[i]))
            sim_file_remove(machine, names[i]);
}

struct told {
    unsigned ranges;
    uint64_t blocks;
};

static void tell(void *ctx, uint64_t start, uint64_t end)
{
    struct told *told = ctx;

    told->ranges++;
    told->blocks += end - start;
}

static void the_newest_state_is_built_with_holes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        struct log_builder *log = log_builder_new(sim_env(machine), 512, 400, seed);
        struct told told = {0};
        struct hw_state reached;
        struct hw_error err = {0};
        const struct log_state *expected;

        log_mix(log, 30);
        (void)log_snapshot(log, false);
        log_mix(log, (int)(seed % 12));
        (void)log_transaction(log, 3, log->page_count);
        if (hw_lazy_build(sim_env(machine), log->core, "db", "present", tell, &told, &reached,
                          &err) != HW_OK)
            fail_msg("seed %u: %s", (unsigned)seed, err.message);
        expected = log_state_at(log, hw_core_length(log->core) - 1);
        assert_int_equal(reached.seq, expected->seq);
        assert_int_equal(reached.page_count, expected->page_count);
        assert_true(reached.sum == expected->sum);
        assert_true(told.ranges > 0 && told.blocks < hw_core_length(log->core) + 10);
        check_database(log, expected, false);
        check_database(log, expected, true);
        remove_database();
        log_builder_free(log);
        assert_int_equal(sim_open_handles(machine), 0);
    }
}

static void a_database_that_began_empty_has_no_holes(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 4096, 0, 3);
    struct hw_state reached;
    struct hw_error err = {0};

    (void)state;
    assert_int_equal(
        hw_lazy_build(sim_env(machine), log->core, "db", "present", NULL, NULL, &reached, &err),
        HW_ENOTFOUND); /* nothing yet */
    remove_database();
    (void)log_transaction(log, 9, 280);
    assert_int_equal(
        hw_lazy_build(sim_env(machine), log->core, "db", "present", NULL, NULL, &reached, &err),
        HW_OK);
    check_database(log, log_state_at(log, reached.seq), true);
    log_builder_free(log);
}

static void entries_are_told_from_the_groups_between_them(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 300, 4);
    struct hw_lazy_entries *entries = NULL;
    struct hw_error err = {0};
    struct told told = {0};
    uint64_t index, first;

    (void)state;
    first = log_transaction(log, 3, 300);
    index = log_snapshot(log, false);
    (void)log_transaction(log, 3, 300);
    assert_int_equal(hw_lazy_entries_open(log->core, &entries, &err), HW_OK);
    assert_false(hw_lazy_entries_skip(entries, first));
    for (uint64_t seq = first + 1; seq < index; seq++)
        assert_true(hw_lazy_entries_skip(entries, seq));
    assert_false(hw_lazy_entries_skip(entries, index));
    assert_false(hw_lazy_entries_skip(entries, index + 1));
    hw_lazy_entries_tell(entries, 0, hw_core_length(log->core), tell, &told);
    assert_int_equal(told.blocks, hw_core_length(log->core) - (index - first - 1));
    assert_true(hw_lazy_is_outdated(entries, first - 1));
    assert_false(hw_lazy_is_outdated(entries, first));
    hw_lazy_entries_close(entries);
    log_builder_free(log);
}

/* ------------------------------------------------------------------------------------ faults */

struct faulty {
    struct log_builder *log;
    bool ended; /* in good order */
};

/* A build, two groups filled as a reader wants them, and a good end. */
static void faulty_run(struct sim *sim, void *ctx)
{
    struct faulty *faulty = ctx;
    struct hw_env *env = sim_env(sim);
    struct hw_lazy_map *map = NULL;
    struct hw_lazy_filler *filler = NULL;
    struct hw_file *file = NULL;
    struct hw_state reached;
    enum hw_status status = hw_lazy_build(env, faulty->log->core, "db", "present", tell,
                                          &(struct told){0}, &reached, NULL);

    faulty->ended = false;
    if (status == HW_OK)
        status = map_opened(&map);
    if (status == HW_OK)
        status = env->ops->open(env, "db", HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL);
    if (status == HW_OK)
        status = hw_lazy_filler_open(faulty->log->core, map, &filler, NULL);
    for (uint32_t g = 1; g <= 2 && status == HW_OK; g++) {
        status = hw_lazy_filler_load(filler, g, NULL);
        if (status == HW_OK)
            status = hw_lazy_filler_store(filler, write_file, file, NULL);
    }
    if (status == HW_OK)
        status = env->ops->sync(file, NULL);
    if (status == HW_OK)
        status = env->ops->sync_dir(env, ".", NULL);
    if (status == HW_OK)
        status = hw_lazy_map_end(map, NULL);
    faulty->ended = status == HW_OK;
    hw_lazy_filler_close(filler);
    env->ops->close(file);
    hw_lazy_map_close(map);
}

/* What the map calls present is right, if it can be opened at all. */
static void faulty_check(struct sim *sim, void *ctx)
{
    struct faulty *faulty = ctx;
    struct hw_lazy_map *map = NULL;

    if (sim_file_exists(sim, "present") && sim_file_exists(sim, "db") &&
        map_opened(&map) == HW_OK) {
        hw_lazy_map_close(map);
        check_database(faulty->log,
                       log_state_at(faulty->log, hw_core_length(faulty->log->core) - 1), false);
    } else {
        assert_false(faulty->ended);
    }
    remove_database();
}

static void a_build_that_fails_or_dies_anywhere_leaves_no_wrong_page(void **state)
{
    struct faulty faulty = {0};
    struct sim_scenario scenario = {.faults =
                                        SIM_EIO | SIM_ENOSPC | SIM_CRASH | SIM_KILL | SIM_ENOMEM,
                                    .run = faulty_run,
                                    .check = faulty_check,
                                    .ctx = &faulty};

    (void)state;
    faulty.log = log_builder_new(sim_env(machine), 512, 250, 5);
    (void)log_snapshot(faulty.log, false);
    (void)log_transaction(faulty.log, 6, 250);
    (void)log_transaction(faulty.log, 4, 240);
    assert_in_range(sim_for_each_fault(machine, &scenario), 50, 5000);
    log_builder_free(faulty.log);
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
        cmocka_unit_test_setup_teardown(a_map_tells_which_pages_are_there, machine_up,
                                        machine_down),
        cmocka_unit_test_setup_teardown(a_group_is_wanted_until_it_is_there_or_cannot_be_had,
                                        machine_up, machine_down),
        cmocka_unit_test_setup_teardown(a_map_is_trusted_in_its_boot_or_after_a_good_end,
                                        machine_up, machine_down),
        cmocka_unit_test_setup_teardown(a_map_with_a_good_end_has_its_bits_wherever_power_is_lost,
                                        machine_up, machine_down),
        cmocka_unit_test_setup_teardown(a_map_that_is_broken_or_damaged_is_not_opened, machine_up,
                                        machine_down),
        cmocka_unit_test_setup_teardown(the_newest_state_is_built_with_holes, machine_up,
                                        machine_down),
        cmocka_unit_test_setup_teardown(a_database_that_began_empty_has_no_holes, machine_up,
                                        machine_down),
        cmocka_unit_test_setup_teardown(entries_are_told_from_the_groups_between_them, machine_up,
                                        machine_down),
        cmocka_unit_test_setup_teardown(a_build_that_fails_or_dies_anywhere_leaves_no_wrong_page,
                                        machine_up, machine_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
