/* Tests the model of the simulated disk: what a crash, a kill and each fault leave. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "sim/sim.h"

struct world {
    struct sim *sim;
    struct hw_env *env;
    const struct hw_env_ops *ops;
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(0)};
    world.env = sim_env(world.sim);
    world.ops = world.env->ops;
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;
    unsigned open = sim_open_handles(world->sim);

    sim_free(world->sim);
    return open == 0 ? 0 : -1;
}

static struct hw_file *make(struct world *world, const char *path)
{
    struct hw_file *file = NULL;

    assert_int_equal(world->ops->open(world->env, path,
                                      HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, NULL),
                     HW_OK);
    return file;
}

static void make_with(struct world *world, const char *path, const char *text)
{
    struct hw_file *file = make(world, path);

    assert_int_equal(world->ops->write_at(file, 0, text, strlen(text), NULL), HW_OK);
    assert_int_equal(world->ops->sync(file, NULL), HW_OK);
    world->ops->close(file);
    assert_int_equal(world->ops->sync_dir(world->env, "/", NULL), HW_OK);
}

static bool has(struct world *world, const char *path, const char *text)
{
    size_t size;
    const uint8_t *bytes = sim_file_bytes(world->sim, path, &size);

    return bytes != NULL && size == strlen(text) && memcmp(bytes, text, size) == 0;
}

static void synced_bytes_survive_and_others_are_dropped(void **state)
{
    struct world *world = *state;
    struct hw_file *file = make(world, "/f");

    assert_int_equal(world->ops->write_at(file, 0, "durable", 7, NULL), HW_OK);
    assert_int_equal(world->ops->sync(file, NULL), HW_OK);
    assert_int_equal(world->ops->sync_dir(world->env, "/", NULL), HW_OK);
    assert_int_equal(world->ops->write_at(file, 0, "lost", 4, NULL), HW_OK);
    assert_true(has(world, "/f", "lostble"));
    sim_crash(world->sim, SIM_DROP);
    world->ops->close(file);
    assert_true(has(world, "/f", "durable"));
}

static void everything_survives_a_crash_that_keeps(void **state)
{
    struct world *world = *state;
    struct hw_file *file = make(world, "/f");

    assert_int_equal(world->ops->write_at(file, 0, "kept", 4, NULL), HW_OK);
    assert_int_equal(world->ops->truncate(file, 3, NULL), HW_OK);
    sim_crash(world->sim, SIM_KEEP);
    world->ops->close(file);
    assert_true(has(world, "/f", "kep"));
}

static void names_not_synced_are_dropped(void **state)
{
    struct world *world = *state;

    make_with(world, "/old", "x");
    world->ops->close(make(world, "/new"));
    assert_int_equal(world->ops->rename(world->env, "/old", "/moved", NULL), HW_OK);
    sim_crash(world->sim, SIM_DROP);
    assert_true(sim_file_exists(world->sim, "/old"));
    assert_false(sim_file_exists(world->sim, "/moved"));
    assert_false(sim_file_exists(world->sim, "/new"));
    assert_int_equal(world->ops->remove(world->env, "/old", NULL), HW_OK);
    sim_crash(world->sim, SIM_DROP);
    assert_true(sim_file_exists(world->sim, "/old"));
}

/* The order of changes in one directory is kept: never the second without the first. */
static void crash_keeps_a_beginning_of_the_names(void **state)
{
    struct world *world = *state;
    unsigned seen = 0;

    for (uint64_t seed = 1; seed <= 40; seed++) {
        bool first, second;

        sim_reset(world->sim, seed);
        world->ops->close(make(world, "/first"));
        world->ops->close(make(world, "/second"));
        sim_crash(world->sim, SIM_RANDOM);
        first = sim_file_exists(world->sim, "/first");
        second = sim_file_exists(world->sim, "/second");
        assert_true(first || !second);
        seen |= 1U << (first + second);
    }
    assert_int_equal(seen, 7);
}

/* Of 4 sectors each of the 16 patterns of old and new is possible, and nothing else. */
static void torn_write_is_torn_at_sectors(void **state)
{
    struct world *world = *state;
    static uint8_t old[2048], new[2048];
    unsigned patterns = 0;

    memset(old, 'o', sizeof(old));
    memset(new, 'n', sizeof(new));
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct hw_file *file;
        const uint8_t *bytes;
        unsigned pattern = 0;
        size_t size;

        sim_reset(world->sim, seed);
        sim_file_put(world->sim, "/f", old, sizeof(old));
        file = make(world, "/f");
        assert_int_equal(world->ops->write_at(file, 0, new, sizeof(new), NULL), HW_OK);
        sim_crash(world->sim, SIM_TORN);
        world->ops->close(file);
        bytes = sim_file_bytes(world->sim, "/f", &size);
        for (unsigned i = 0; i < 4; i++) {
            bool is_new = bytes[i * 512] == 'n';

            assert_memory_equal(bytes + i * 512, is_new ? new : old, 512);
            pattern |= (unsigned)is_new << i;
        }
        patterns |= 1U << pattern;
    }
    assert_int_equal(patterns, 0xffff);
}

static void failed_sync_forgets_the_writes_that_readers_still_see(void **state)
{
    struct world *world = *state;
    struct sim_fault fault = {.kind = SIM_EIO, .operations = SIM_SYNC, .at = 1};
    struct hw_file *file;

    make_with(world, "/f", "old");
    file = make(world, "/f");
    sim_set_fault(world->sim, &fault);
    assert_int_equal(world->ops->write_at(file, 0, "new", 3, NULL), HW_OK);
    assert_int_equal(world->ops->sync(file, NULL), HW_EIO);
    assert_true(has(world, "/f", "new"));
    assert_int_equal(world->ops->sync(file, NULL), HW_OK); /* and yet: */
    world->ops->close(file);
    sim_crash(world->sim, SIM_KEEP);
    assert_true(has(world, "/f", "old"));
}

static void full_disk_takes_what_fits(void **state)
{
    struct world *world = *state;
    struct hw_file *file = make(world, "/f");
    struct hw_error err;

    sim_set_space(world->sim, 5);
    assert_int_equal(world->ops->write_at(file, 0, "123", 3, &err), HW_OK);
    assert_int_equal(world->ops->write_at(file, 3, "456", 3, &err), HW_ENOSPC);
    assert_non_null(strstr(err.message, "/f"));
    assert_int_equal(world->ops->allocate(file, 100, NULL), HW_ENOSPC);
    assert_int_equal(world->ops->write_at(file, 0, "abc", 3, NULL), HW_OK); /* no growth */
    assert_int_equal(world->ops->truncate(file, 0, NULL), HW_OK);
    assert_int_equal(world->ops->write_at(file, 0, "12345", 5, NULL), HW_OK);
    world->ops->close(file);
}

static void dead_handles_fail_and_can_be_closed(void **state)
{
    struct world *world = *state;
    struct hw_file *file = make(world, "/f");
    struct hw_file_stat stat;
    char byte;

    sim_kill(world->sim, 0);
    assert_int_equal(world->ops->write_at(file, 0, "x", 1, NULL), HW_EIO);
    assert_int_equal(world->ops->read_at(file, 0, &byte, 1, NULL), HW_EIO);
    assert_int_equal(world->ops->sync(file, NULL), HW_EIO);
    assert_int_equal(world->ops->truncate(file, 0, NULL), HW_EIO);
    assert_int_equal(world->ops->allocate(file, 10, NULL), HW_EIO);
    assert_int_equal(world->ops->stat_file(file, &stat, NULL), HW_EIO);
    assert_int_equal(world->ops->lock(file, false, NULL), HW_EIO);
    assert_int_equal(sim_open_handles(world->sim), 0);
    world->ops->close(file);
    assert_true(sim_file_exists(world->sim, "/f"));
}

static void lock_of_a_killed_process_is_free(void **state)
{
    struct world *world = *state;
    struct hw_file *dead = make(world, "/f"), *living;

    assert_int_equal(world->ops->lock(dead, false, NULL), HW_OK);
    sim_set_process(world->sim, 1);
    living = make(world, "/f");
    assert_int_equal(world->ops->lock(living, true, NULL), HW_EBUSY);
    sim_kill(world->sim, 0);
    assert_int_equal(world->ops->lock(living, false, NULL), HW_OK);
    world->ops->close(dead); /* takes nothing with it */
    sim_set_process(world->sim, 2);
    dead = make(world, "/f");
    assert_int_equal(world->ops->lock(dead, false, NULL), HW_EBUSY);
    world->ops->close(dead);
    world->ops->close(living);
}

static void crash_comes_where_it_was_planned(void **state)
{
    struct world *world = *state;
    struct sim_fault fault = {.kind = SIM_CRASH, .operations = SIM_WRITE, .at = 2};
    struct hw_file *file = make(world, "/f");
    uint8_t before[16], after[16];

    assert_int_equal(world->ops->boot_id(world->env, before, NULL), HW_OK);
    sim_set_fault(world->sim, &fault);
    assert_int_equal(world->ops->write_at(file, 0, "a", 1, NULL), HW_OK);
    assert_int_equal(world->ops->write_at(file, 1, "b", 1, NULL), HW_EIO);
    assert_true(sim_has_crashed(world->sim));
    assert_int_equal(world->ops->write_at(file, 1, "c", 1, NULL), HW_EIO);
    assert_int_equal(world->ops->make_dir(world->env, "/d", NULL), HW_EIO);
    world->ops->close(file);
    sim_set_fault(world->sim, NULL);
    sim_crash(world->sim, SIM_KEEP);
    assert_int_equal(world->ops->boot_id(world->env, after, NULL), HW_OK);
    assert_memory_not_equal(before, after, sizeof(before));
    assert_true(has(world, "/f", "a"));
    assert_int_equal(world->ops->make_dir(world->env, "/d", NULL), HW_OK);
}

static void reads_can_be_short_or_flipped(void **state)
{
    struct world *world = *state;
    struct sim_fault fault = {.kind = SIM_BIT_FLIP, .at = 1, .path = "f"};
    struct hw_file *file;
    char text[9] = {0};
    int flipped = 0;

    make_with(world, "/f", "12345678");
    file = make(world, "/f");
    sim_set_fault(world->sim, &fault);
    assert_int_equal(world->ops->read_at(file, 0, text, 8, NULL), HW_OK);
    for (int i = 0; i < 8; i++)
        flipped += __builtin_popcount((unsigned)(text[i] ^ "12345678"[i]));
    assert_int_equal(flipped, 1);
    fault.kind = SIM_SHORT_READ;
    sim_set_fault(world->sim, &fault);
    assert_int_equal(world->ops->read_at(file, 0, text, 8, NULL), HW_END);
    assert_int_equal(text[7], 0);
    assert_int_equal(world->ops->read_at(file, 0, text, 8, NULL), HW_OK);
    assert_string_equal(text, "12345678");
    world->ops->close(file);
}

static void mapped_bytes_are_shared_and_seen_by_reads(void **state)
{
    struct world *world = *state;
    struct hw_file *file = make(world, "/f");
    void *first = NULL, *second = NULL;
    char byte;

    assert_int_equal(world->ops->allocate(file, 4096, NULL), HW_OK);
    assert_int_equal(world->ops->map(file, 4096, &first, NULL), HW_OK);
    assert_int_equal(world->ops->map(file, 4096, &second, NULL), HW_OK);
    ((char *)first)[100] = 'x';
    assert_int_equal(((char *)second)[100], 'x');
    assert_int_equal(world->ops->read_at(file, 100, &byte, 1, NULL), HW_OK);
    assert_int_equal(byte, 'x');
    assert_int_equal(world->ops->write_at(file, 101, "y", 1, NULL), HW_OK);
    assert_int_equal(((char *)first)[101], 'y');
    world->ops->close(file);
    assert_int_equal(((char *)second)[100], 'x');
    world->ops->unmap(world->env, first, 4096);
    world->ops->unmap(world->env, second, 4096);
}

/* As Linux has it: the mapping refers to the open file, and the lock belongs to that. */
static void lock_of_a_mapped_file_outlives_its_close(void **state)
{
    struct world *world = *state;
    struct hw_file *first = make(world, "/f"), *second = make(world, "/f");
    void *memory = NULL;

    assert_int_equal(world->ops->allocate(first, 4096, NULL), HW_OK);
    assert_int_equal(world->ops->lock(first, false, NULL), HW_OK);
    assert_int_equal(world->ops->map(first, 4096, &memory, NULL), HW_OK);
    world->ops->close(first);
    assert_int_equal(world->ops->lock(second, false, NULL), HW_EBUSY);
    world->ops->unmap(world->env, memory, 4096);
    assert_int_equal(world->ops->lock(second, false, NULL), HW_OK);
    world->ops->close(second);
}

static void opening_what_sqlite_has_open_is_seen(void **state)
{
    struct world *world = *state;
    sqlite3 *db = NULL;
    struct hw_file *file;

    assert_int_equal(sqlite3_open_v2("/app.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                     sim_vfs(world->sim)->zName),
                     SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(a)", NULL, NULL, NULL),
        SQLITE_OK);
    world->ops->close(make(world, "/app.db-wal"));
    assert_null(sim_violation(world->sim));
    file = make(world, "/app.db");
    assert_non_null(sim_violation(world->sim));
    world->ops->close(file);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void operations_are_counted_by_kind_and_path(void **state)
{
    struct world *world = *state;

    make_with(world, "/one", "x");
    make_with(world, "/two", "x");
    assert_int_equal(sim_count(world->sim, SIM_SYNC, NULL), 2);
    assert_int_equal(sim_count(world->sim, SIM_SYNC, "one"), 1);
    assert_int_equal(sim_count(world->sim, SIM_SYNC | SIM_WRITE, "one"), 2);
    assert_int_equal(sim_count(world->sim, SIM_RENAME, NULL), 0);
}

static void allocate_twice(struct sim *sim, void *ctx)
{
    int *failures = ctx;

    (void)sim;
    for (int i = 0; i < 2; i++) {
        void *memory = hw_alloc(1);

        *failures += memory == NULL;
        hw_free(memory);
    }
}

static void check_nothing(struct sim *sim, void *ctx)
{
    (void)sim;
    (void)ctx;
}

static void each_allocation_fails_once(void **state)
{
    struct world *world = *state;
    int failures = 0;
    struct sim_scenario scenario = {
        .faults = SIM_ENOMEM, .run = allocate_twice, .check = check_nothing, .ctx = &failures};

    assert_int_equal(unsetenv("HYPERWAL_STRIDE"), 0); /* every allocation is wanted here */
    assert_int_equal(sim_for_each_fault(world->sim, &scenario), 3);
    assert_int_equal(failures, 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(synced_bytes_survive_and_others_are_dropped),
        TEST(everything_survives_a_crash_that_keeps),
        TEST(names_not_synced_are_dropped),
        TEST(crash_keeps_a_beginning_of_the_names),
        TEST(torn_write_is_torn_at_sectors),
        TEST(failed_sync_forgets_the_writes_that_readers_still_see),
        TEST(full_disk_takes_what_fits),
        TEST(dead_handles_fail_and_can_be_closed),
        TEST(lock_of_a_killed_process_is_free),
        TEST(crash_comes_where_it_was_planned),
        TEST(reads_can_be_short_or_flipped),
        TEST(mapped_bytes_are_shared_and_seen_by_reads),
        TEST(lock_of_a_mapped_file_outlives_its_close),
        TEST(opening_what_sqlite_has_open_is_seen),
        TEST(operations_are_counted_by_kind_and_path),
        TEST(each_allocation_fails_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
