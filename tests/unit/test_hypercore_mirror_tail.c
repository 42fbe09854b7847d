/* The tail of a mirror: what it spares, what comes back from it, and what must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "hypercore/mirror_internal.h"
#include "sim/sim.h"
#include "support/mirror_log.h"

#define TAIL "/mirror/tail"
enum { HEADER = HW_MIRROR_TAIL_HEADER_SIZE };

struct world {
    struct sim *sim, *keys;
    struct hw_core *log, *mirror;
    struct hw_error err;
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(3), .keys = sim_new(4)};
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *f = *state;

    hw_core_close(f->mirror);
    hw_core_close(f->log);
    sim_free(f->sim);
    sim_free(f->keys);
    return 0;
}

static void make(struct world *f)
{
    assert_ok(hw_core_create(sim_env(f->keys), NULL, &f->log, &f->err));
    assert_ok(hw_core_create_mirror(sim_env(f->sim), "/mirror", hw_core_identity(f->log)->key,
                                    &f->mirror, &f->err));
}

static void open_again(struct world *f)
{
    assert_ok(
        hw_core_open(sim_env(f->sim), "/mirror", HW_CORE_MIRROR, UINT64_MAX, &f->mirror, &f->err));
}

static void power_loss(struct world *f)
{
    sim_crash(f->sim, SIM_DROP);
    hw_core_close(f->mirror);
    f->mirror = NULL;
}

static void push(struct world *f)
{
    struct hw_accepted accepted = {.has_block = false};

    assert_ok(core_log_append(f->log, 1, "n", &f->err));
    assert_ok(mirror_log_push(f->log, f->mirror, &accepted, &f->err));
    assert_true(accepted.has_block && accepted.has_upgrade);
}

static void sync_mirror(struct world *f)
{
    uint64_t length = 0;

    assert_ok(hw_core_sync(f->mirror, &length, &f->err));
    assert_int_equal(length, hw_core_length(f->mirror));
}

/* With a tail that has no record yet. */
static void make_tail(struct world *f)
{
    make(f);
    for (unsigned i = 0; i < 2; i++) {
        push(f);
        sync_mirror(f);
    }
    assert_true(sim_file_exists(f->sim, TAIL));
}

static void a_sync_is_one_write_and_one_sync_of_one_file(void **state)
{
    struct world *f = *state;

    make_tail(f);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t operations, syncs = sim_count(f->sim, SIM_SYNC, TAIL);

        for (unsigned k = 0; k <= i % 3; k++)
            push(f);
        operations = sim_operation_count(f->sim);
        sync_mirror(f);
        assert_int_equal(sim_operation_count(f->sim), operations + 2);
        assert_int_equal(sim_count(f->sim, SIM_SYNC, TAIL), syncs + 1);
        sync_mirror(f); /* there is nothing to do */
        assert_int_equal(sim_operation_count(f->sim), operations + 2);
    }
    power_loss(f);
    open_again(f);
    core_log_check_all(f->mirror, 2 + 7 + 14 + 18);
}

static void a_full_tail_grows_and_is_begun_anew_under_another_salt(void **state)
{
    struct world *f = *state;
    uint8_t salt[16] = {0};
    unsigned salts = 0;
    size_t size = 0;

    make_tail(f);
    f->mirror->mirror->tail.size = 128 << 10;
    for (unsigned i = 0; i < 700; i++) {
        const uint8_t *bytes;

        push(f);
        sync_mirror(f);
        bytes = sim_file_bytes(f->sim, TAIL, &size);
        if (memcmp(salt, bytes + 8, sizeof(salt)) != 0)
            salts++;
        memcpy(salt, bytes + 8, sizeof(salt));
    }
    assert_int_equal(size, 128 << 10);
    assert_in_range(salts, 3, 20);
    power_loss(f);
    open_again(f);
    core_log_check_all(f->mirror, 702);
    assert_ok(hw_core_verify(f->mirror, NULL, NULL, &f->err));
}

static bool keep_even(void *ctx, uint64_t index)
{
    (void)ctx;
    return index % 2 == 0;
}

static void what_was_given_up_does_not_come_back(void **state)
{
    struct world *f = *state;
    uint64_t freed = 0;

    make_tail(f);
    for (unsigned i = 0; i < 10; i++)
        push(f);
    sync_mirror(f);
    assert_ok(hw_core_prune(f->mirror, keep_even, NULL, false, &freed, &f->err));
    power_loss(f);
    open_again(f);
    for (uint64_t i = 0; i < 12; i++)
        assert_int_equal(hw_core_has(f->mirror, i), i % 2 == 0);
}

/* Bytes of a tail under another one's key, or of another fork, or changed. */
static void what_is_not_of_this_mirror_is_not_taken(void **state)
{
    static const size_t changed[] = {0, 8, 24, HEADER, HEADER + 4, HEADER + 100};
    struct world *f = *state;

    make_tail(f);
    for (unsigned i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
        uint64_t before = hw_core_length(f->mirror);
        struct hw_accepted accepted;

        push(f);
        sync_mirror(f);
        sim_crash(f->sim, SIM_DROP);
        sim_file_flip(f->sim, TAIL, changed[i], 1);
        hw_core_close(f->mirror);
        open_again(f);
        assert_int_equal(hw_core_length(f->mirror), before);
        assert_ok(mirror_log_push(f->log, f->mirror, &accepted, &f->err));
        sync_mirror(f);
        power_loss(f);
        open_again(f);
        core_log_check_all(f->mirror, before + 1);
        push(f);
        sync_mirror(f);
    }
}

static void a_new_mirror_takes_nothing_of_one_before(void **state)
{
    struct world *f = *state;

    make_tail(f);
    push(f);
    sync_mirror(f);
    hw_core_close(f->mirror);
    f->mirror = NULL;
    sim_file_remove(f->sim, "/mirror/mirror"); /* as far as a removal came */
    hw_core_close(f->log);
    f->log = NULL;
    make(f);
    assert_false(sim_file_exists(f->sim, TAIL));
    power_loss(f);
    open_again(f);
    assert_int_equal(hw_core_length(f->mirror), 0);
    hw_core_close(f->mirror);
    f->mirror = NULL;
    assert_ok(hw_core_remove_mirror(sim_env(f->sim), "/mirror", &f->err));
}

static void large_blocks_go_past_the_tail(void **state)
{
    static uint8_t block[HW_MIRROR_NEWS_MAX / 3];
    struct world *f = *state;
    struct hw_accepted accepted;
    uint64_t first;

    make_tail(f);
    for (unsigned i = 0; i < 5; i++) {
        first = hw_core_length(f->log);
        for (unsigned k = 0; k < i; k++) {
            assert_ok(hw_core_batch_begin(f->log, &f->err));
            block[0] = (uint8_t)(k + 7 * i);
            assert_ok(hw_core_batch_add(f->log, block, sizeof(block), &f->err));
            assert_ok(hw_core_batch_commit(f->log, "n", 1, &f->err));
            assert_ok(mirror_log_push(f->log, f->mirror, &accepted, &f->err));
            assert_true(f->mirror->mirror->tail.news.size <= HW_MIRROR_RECORD_MAX);
        }
        sync_mirror(f);
        power_loss(f);
        open_again(f);
        assert_int_equal(hw_core_length(f->mirror), first + i);
        for (uint64_t k = first; k < first + i; k++) {
            struct hw_buffer out = {0};

            assert_ok(hw_core_read(f->mirror, k, &out, &f->err));
            assert_int_equal(out.size, sizeof(block));
            hw_buffer_release(&out);
        }
        sync_mirror(f);
    }
}

/* Until they come; it is asked for them again and again. */
static void nodes_that_are_missing_are_looked_for_once(void **state)
{
    struct world *f = *state;
    struct hw_accepted accepted;
    uint64_t reads, missing = 0;

    make(f);
    assert_ok(core_log_append(f->log, 40, "n", &f->err));
    assert_ok(mirror_log_upgrade(f->log, f->mirror, &accepted, &f->err));
    assert_ok(hw_core_missing_nodes(f->mirror, 2 * 17, &missing, &f->err));
    assert_int_equal(missing, 5);
    reads = sim_count(f->sim, SIM_READ, "/mirror/nodes");
    assert_ok(hw_core_missing_nodes(f->mirror, 2 * 17, &missing, &f->err));
    assert_int_equal(missing, 5);
    assert_int_equal(sim_count(f->sim, SIM_READ, "/mirror/nodes"), reads);
    assert_ok(mirror_log_block(f->log, f->mirror, 17, &accepted, &f->err));
    assert_true(accepted.has_block);
    assert_ok(hw_core_missing_nodes(f->mirror, 2 * 17, &missing, &f->err));
    assert_int_equal(missing, 0);
    assert_ok(hw_core_missing_nodes(f->mirror, 2 * 16, &missing, &f->err));
    assert_int_equal(missing, 0);
    assert_ok(core_log_check(f->mirror, 17, &f->err));
}

/* Whatever a record says, the rest of the machine is not harmed by it. */
static void a_record_that_cannot_be_is_refused(void **state)
{
    struct world *f = *state;
    struct hw_mirror_chain chain;
    uint8_t bytes[HEADER + 4 + 30 + 8] = {0}, salt[16] = {0};
    struct hw_core *core = NULL;

    make_tail(f);
    hw_core_close(f->mirror);
    f->mirror = NULL;
    hw_mirror_tail_begin(0, salt, bytes);
    hw_put_le32(bytes + HEADER, 30);
    bytes[HEADER + 4] = 2; /* a block that begins where bytes end */
    hw_put_le64(bytes + HEADER + 13, UINT64_MAX - 3);
    hw_put_le32(bytes + HEADER + 21, 9);
    chain = hw_mirror_chain_begin(bytes, hw_core_identity(f->log)->key);
    chain = hw_mirror_chain_next(&chain, (struct hw_slice){bytes + HEADER, 34});
    memcpy(bytes + HEADER + 34, chain.hash, 8);
    sim_file_put(f->sim, TAIL, bytes, sizeof(bytes));
    assert_status(
        hw_core_open(sim_env(f->sim), "/mirror", HW_CORE_MIRROR, UINT64_MAX, &core, &f->err),
        HW_ECORRUPT, &f->err);
    assert_non_null(strstr(f->err.message, "/mirror/tail"));
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_sync_is_one_write_and_one_sync_of_one_file),
        TEST(a_full_tail_grows_and_is_begun_anew_under_another_salt),
        TEST(what_was_given_up_does_not_come_back),
        TEST(what_is_not_of_this_mirror_is_not_taken),
        TEST(a_new_mirror_takes_nothing_of_one_before),
        TEST(large_blocks_go_past_the_tail),
        TEST(nodes_that_are_missing_are_looked_for_once),
        TEST(a_record_that_cannot_be_is_refused),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror_tail", tests, NULL, NULL);
}
