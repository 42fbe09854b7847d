/* Mirrors in a directory: readers beside the writer, damage, forks, pruning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env/thread.h"
#include "hypercore/mirror_internal.h"
#include "support/mirror_log.h"

/* A log in memory and its mirror in f->dir. */
static void make_log(struct core_log *f, unsigned length, struct hw_core **log,
                     struct hw_core **mirror)
{
    struct hw_accepted accepted;

    assert_ok(hw_core_create(f->env, NULL, log, &f->err));
    assert_ok(hw_core_create_mirror(f->env, f->dir, hw_core_identity(*log)->key, mirror, &f->err));
    if (length == 0)
        return;
    assert_ok(core_log_append(*log, length, "n", &f->err));
    assert_ok(mirror_log_upgrade(*log, *mirror, &accepted, &f->err));
}

static void give_blocks(struct core_log *f, struct hw_core *log, struct hw_core *mirror,
                        uint64_t start, uint64_t end)
{
    for (uint64_t i = start; i < end; i++) {
        struct hw_accepted accepted = {.has_block = false};

        assert_ok(mirror_log_block(log, mirror, i, &accepted, &f->err));
        assert_true(accepted.has_block);
    }
}

static void turn_bit(struct core_log *f, const char *name, uint64_t offset)
{
    struct hw_file *file = NULL;
    char path[128];
    uint8_t byte;

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_ok(f->env->ops->open(f->env, path, HW_OPEN_READ | HW_OPEN_WRITE, &file, &f->err));
    assert_ok(f->env->ops->read_at(file, offset, &byte, 1, &f->err));
    byte ^= 1;
    assert_ok(f->env->ops->write_at(file, offset, &byte, 1, &f->err));
    f->env->ops->close(file);
}

static void a_mirror_is_there_after_it_was_closed(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *again;
    struct hw_accepted accepted;
    uint64_t length = 0;

    make_log(f, 20, &log, &mirror);
    give_blocks(f, log, mirror, 3, 9);
    assert_ok(hw_core_sync(mirror, &length, &f->err));
    assert_int_equal(length, 20);
    hw_core_close(mirror);
    assert_status(
        hw_core_create_mirror(f->env, f->dir, hw_core_identity(log)->key, &again, &f->err),
        HW_EEXIST, &f->err);
    assert_status(hw_core_create(f->env, f->dir, &again, &f->err), HW_EEXIST, &f->err);
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_WRITE, UINT64_MAX, &again, &f->err),
                  HW_EREADONLY, &f->err);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err));
    assert_int_equal(hw_core_length(mirror), 20);
    for (uint64_t i = 0; i < 20; i++)
        assert_status(core_log_check(mirror, i, &f->err), i >= 3 && i < 9 ? HW_OK : HW_EMISSING,
                      &f->err);
    for (unsigned i = 0; i < 7; i++) { /* more heads than slots */
        assert_ok(core_log_append(log, 1, "n", &f->err));
        assert_ok(mirror_log_push(log, mirror, &accepted, &f->err));
        assert_false(accepted.has_manifest);
    }
    hw_core_close(mirror);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err));
    assert_int_equal(hw_core_length(mirror), 27);
    assert_ok(core_log_check(mirror, 26, &f->err));
    give_blocks(f, log, mirror, 0, 3);
    give_blocks(f, log, mirror, 9, 20);
    core_log_check_all(mirror, 27);
    hw_core_close(mirror);
    hw_core_close(log);
    assert_status(
        hw_core_open(f->env, "/nonexistent", HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err),
        HW_ENOTFOUND, &f->err);
}

static void a_reader_sees_what_arrives_when_it_looks(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *reader;
    struct hw_accepted accepted;
    uint64_t length;

    make_log(f, 0, &log, &mirror);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, 0, &reader, &f->err));
    assert_true(hw_core_is_mirror(reader));
    assert_int_equal(hw_core_length(reader), 0);
    for (uint64_t i = 0; i < 40; i++) {
        struct hw_core_head head, expected;

        assert_ok(core_log_append(log, 1, "n", &f->err));
        assert_ok(mirror_log_push(log, mirror, &accepted, &f->err));
        assert_int_equal(hw_core_length(reader), i);
        assert_ok(hw_core_refresh(reader, i + 1, &f->err));
        head = hw_core_head(reader);
        expected = hw_core_head(log);
        assert_int_equal(head.length, i + 1);
        assert_memory_equal(head.tree_hash, expected.tree_hash, HW_KEY_SIZE);
        assert_ok(core_log_check(reader, i, &f->err));
    }
    core_log_check_all(reader, 40);
    assert_ok(hw_core_verify(reader, NULL, NULL, &f->err));
    assert_status(hw_core_sync(reader, &length, &f->err), HW_EREADONLY, &f->err);
    assert_status(hw_core_batch_begin(reader, &f->err), HW_EREADONLY, &f->err);
    assert_status(hw_core_batch_begin(mirror, &f->err), HW_EREADONLY, &f->err);
    hw_core_close(reader);
    hw_core_close(mirror);
    hw_core_close(log);
}

enum { RACE_LENGTH = 3000 };

struct race { /* a reader that looks and reads until it saw the last block */
    struct core_log *f;
    struct hw_thread thread;
    enum hw_status status; /* of the first failure */
    uint64_t looks, heads;
};

static void *read_along(void *ctx)
{
    struct race *race = ctx;
    struct hw_core *reader = NULL;
    uint64_t length = 0, chance = 1;

    race->status = hw_core_open(race->f->env, race->f->dir, HW_CORE_READ, 0, &reader, NULL);
    while (race->status == HW_OK && length < RACE_LENGTH) {
        uint64_t before = length;

        race->status = hw_core_refresh(reader, UINT64_MAX, NULL);
        length = hw_core_length(reader);
        race->looks++;
        race->heads += length != before;
        if (length == 0 || race->status != HW_OK)
            continue;
        chance = chance * 6364136223846793005U + 1442695040888963407U;
        if (core_log_check(reader, length - 1, NULL) != HW_OK ||
            core_log_check(reader, (chance >> 33) % length, NULL) != HW_OK || length < before)
            race->status = HW_ECORRUPT;
    }
    hw_core_close(reader);
    return NULL;
}

static void a_reader_beside_the_writer_sees_whole_logs_only(void **state)
{
    struct core_log *f = *state;
    struct race race = {.f = f};
    struct hw_core *log, *mirror;
    struct hw_accepted accepted;

    make_log(f, 0, &log, &mirror);
    assert_ok(hw_thread_start(&race.thread, read_along, &race, &f->err));
    for (uint64_t i = 0; i < RACE_LENGTH; i++) {
        assert_ok(core_log_append(log, 1, "n", &f->err));
        assert_ok(mirror_log_push(log, mirror, &accepted, &f->err));
    }
    hw_thread_join(&race.thread);
    assert_status(race.status, HW_OK, &f->err);
    assert_true(race.heads > 1);
    hw_core_close(mirror);
    hw_core_close(log);
}

static void a_mirror_is_removed_without_what_lies_beside_it(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    struct hw_file_stat stat;
    char path[128];

    make_log(f, 10, &log, &mirror);
    give_blocks(f, log, mirror, 0, 10);
    hw_core_close(mirror);
    (void)snprintf(path, sizeof(path), "%s/position", f->dir);
    assert_ok(hw_env_replace_file(f->env, path, "p", 1, 0, &f->err));
    turn_bit(f, "mirror", 40);
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err),
                  HW_ECORRUPT, &f->err);
    assert_ok(hw_core_remove_mirror(f->env, f->dir, &f->err));
    assert_ok(hw_core_remove_mirror(f->env, f->dir, &f->err));
    assert_status(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err),
                  HW_ENOTFOUND, &f->err);
    assert_ok(f->env->ops->stat(f->env, path, &stat, &f->err));
    assert_ok(hw_core_create_mirror(f->env, f->dir, hw_core_identity(log)->key, &mirror, &f->err));
    assert_int_equal(hw_core_length(mirror), 0);
    assert_false(hw_core_has(mirror, 0));
    hw_core_close(mirror);
    hw_core_close(log);
}

struct fetch {
    struct core_log *f;
    struct hw_core *log, *mirror;
    unsigned calls;
    enum hw_status status; /* to give, instead of a block */
};

static enum hw_status fetch_block(void *ctx, uint64_t index, struct hw_error *err)
{
    struct fetch *fetch = ctx;
    struct hw_accepted accepted;

    fetch->calls++;
    if (fetch->status != HW_OK)
        return hw_fail(err, fetch->status, "nobody has block %llu", (unsigned long long)index);
    return mirror_log_block(fetch->log, fetch->mirror, index, &accepted, err);
}

static void a_fetcher_gets_what_is_missing(void **state)
{
    struct core_log *f = *state;
    struct hw_core *reader;
    struct fetch fetch = {.f = f};
    struct hw_buffer out = {0};

    make_log(f, 30, &fetch.log, &fetch.mirror);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, UINT64_MAX, &reader, &f->err));
    hw_core_set_fetcher(reader, &(struct hw_core_fetcher){fetch_block, &fetch});
    assert_ok(core_log_check(reader, 17, &f->err));
    assert_ok(core_log_check(reader, 17, &f->err));
    assert_int_equal(fetch.calls, 1);
    assert_ok(hw_core_read_head(reader, 3, 5, &out, &f->err));
    assert_int_equal(out.size, 5);
    assert_int_equal(fetch.calls, 2);
    fetch.status = HW_ETIMEOUT;
    assert_status(core_log_check(reader, 18, &f->err), HW_ETIMEOUT, &f->err);
    hw_core_set_fetcher(reader, NULL);
    assert_status(core_log_check(reader, 18, &f->err), HW_EMISSING, &f->err);
    hw_buffer_release(&out);
    hw_core_close(reader);
    hw_core_close(fetch.mirror);
    hw_core_close(fetch.log);
}

static void damaged_bytes_are_not_held_and_can_be_fetched_again(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;

    make_log(f, 10, &log, &mirror);
    give_blocks(f, log, mirror, 0, 10);
    hw_core_close(mirror);
    turn_bit(f, "00000000.dat", 37 + 10);                  /* block 2 */
    turn_bit(f, "nodes", 2 * 8 * HW_MIRROR_NODE_SIZE + 9); /* leaf of block 8 */
    turn_bit(f, "nodes", 5 * HW_MIRROR_NODE_SIZE);         /* of 2 and 3 */
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err));
    assert_true(hw_core_has(mirror, 2));
    assert_status(core_log_check(mirror, 2, &f->err), HW_EMISSING, &f->err);
    assert_false(hw_core_has(mirror, 2));
    assert_status(core_log_check(mirror, 8, &f->err), HW_EMISSING, &f->err);
    assert_ok(core_log_check(mirror, 4, &f->err));
    give_blocks(f, log, mirror, 2, 3);
    give_blocks(f, log, mirror, 8, 9);
    core_log_check_all(mirror, 10);
    assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
    hw_core_close(mirror);
    hw_core_close(log);
}

static void lost_nodes_are_asked_for_again(void **state)
{
    struct core_log *f = *state;

    for (uint64_t lost = 0; lost < 30; lost++) {
        struct hw_core *log, *mirror;

        make_log(f, 16, &log, &mirror);
        give_blocks(f, log, mirror, 0, 8);
        give_blocks(f, log, mirror, 12, 14);
        hw_core_close(mirror);
        turn_bit(f, "nodes", lost * HW_MIRROR_NODE_SIZE + 8);
        assert_ok(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err));
        for (uint64_t i = 0; i < 16; i++) {
            struct hw_accepted accepted = {.has_block = false};
            enum hw_status status = core_log_check(mirror, i, &f->err);

            if (status == HW_OK)
                continue;
            assert_status(status, HW_EMISSING, &f->err);
            assert_ok(mirror_log_block(log, mirror, i, &accepted, &f->err));
            assert_true(accepted.has_block);
        }
        core_log_check_all(mirror, 16);
        assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
        hw_core_close(mirror);
        hw_core_close(log);
        core_log_empty(f);
    }
}

static bool keep_odd(void *ctx, uint64_t index)
{
    (void)ctx;
    return index % 2 == 1;
}

static bool keep_none(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
    return false;
}

static void pruning_gives_room_back_and_readers_learn_it(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *reader;
    uint64_t freed = 0, dry = 0, before;

    make_log(f, 400, &log, &mirror);
    give_blocks(f, log, mirror, 0, 400);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, UINT64_MAX, &reader, &f->err));
    core_log_check_all(reader, 400);
    before = hw_core_stored_bytes(mirror);
    assert_ok(hw_core_prune(reader, keep_odd, NULL, true, &dry, &f->err));
    assert_status(hw_core_prune(reader, keep_odd, NULL, false, &dry, &f->err), HW_EREADONLY,
                  &f->err);
    core_log_check_all(reader, 400);
    assert_ok(hw_core_prune(mirror, keep_odd, NULL, false, &freed, &f->err));
    assert_int_equal(freed, dry);
    for (uint64_t i = 0; i < 400; i++) {
        enum hw_status expected = i % 2 == 1 ? HW_OK : HW_EMISSING;

        assert_status(core_log_check(mirror, i, &f->err), expected, &f->err);
        assert_status(core_log_check(reader, i, &f->err), expected, &f->err);
    }
    assert_ok(hw_core_prune(mirror, keep_none, NULL, false, &freed, &f->err));
    assert_true(hw_core_stored_bytes(mirror) + freed <= before);
    give_blocks(f, log, mirror, 7, 50); /* into a file made anew */
    assert_ok(core_log_check(reader, 49, &f->err));
    assert_ok(core_log_check(reader, 7, &f->err));
    hw_core_close(reader);
    hw_core_close(mirror);
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_MIRROR, UINT64_MAX, &mirror, &f->err));
    assert_int_equal(hw_core_first_kept(mirror), 400);
    assert_ok(core_log_check(mirror, 10, &f->err));
    hw_core_close(mirror);
    hw_core_close(log);
}

static void large_blocks_go_over_the_end_of_a_file(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    struct hw_accepted accepted;
    struct hw_buffer out = {0};
    size_t size = 13 << 20;
    uint8_t *block = calloc(1, size);
    uint64_t freed = 0;

    assert_non_null(block);
    make_log(f, 0, &log, &mirror);
    for (unsigned i = 0; i < 6; i++) {
        memset(block, (int)('a' + i), size);
        assert_ok(hw_core_batch_begin(log, &f->err));
        assert_ok(hw_core_batch_add(log, block, size, &f->err));
        assert_ok(hw_core_batch_commit(log, "", 0, &f->err));
        assert_ok(mirror_log_push(log, mirror, &accepted, &f->err));
    }
    assert_ok(hw_core_read(mirror, 4, &out, &f->err)); /* 52 to 65 MiB */
    memset(block, 'e', size);
    assert_int_equal(out.size, size);
    assert_memory_equal(out.bytes, block, size);
    assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
    assert_ok(hw_core_prune(mirror, keep_odd, NULL, false, &freed, &f->err));
    assert_int_equal(freed, 3 * size);
    assert_status(hw_core_read(mirror, 4, &out, &f->err), HW_EMISSING, &f->err);
    assert_ok(hw_core_read(mirror, 5, &out, &f->err));
    hw_buffer_release(&out);
    free(block);
    hw_core_close(mirror);
    hw_core_close(log);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, core_log_setup, core_log_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_mirror_is_there_after_it_was_closed),
        TEST(a_reader_sees_what_arrives_when_it_looks),
        TEST(a_reader_beside_the_writer_sees_whole_logs_only),
        TEST(a_mirror_is_removed_without_what_lies_beside_it),
        TEST(a_fetcher_gets_what_is_missing),
        TEST(damaged_bytes_are_not_held_and_can_be_fetched_again),
        TEST(lost_nodes_are_asked_for_again),
        TEST(pruning_gives_room_back_and_readers_learn_it),
        TEST(large_blocks_go_over_the_end_of_a_file),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror_disk", tests, NULL, NULL);
}
