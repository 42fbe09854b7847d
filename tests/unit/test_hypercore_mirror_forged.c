/*
 * Files of a mirror whose checksums are right and whose content is not.  What is read is the log's,
 * or is not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror_internal.h"
#include "sim/sim.h"
#include "support/mirror_log.h"

enum { BLOCKS = 20 };

struct world {
    struct hw_error err;
    struct sim *sim;
    struct hw_env *env;
    struct hw_core *log;
};

static int setup(void **state)
{
    struct world *f = calloc(1, sizeof(*f));
    struct hw_core *mirror = NULL;
    struct hw_accepted accepted;
    uint64_t length;

    if (f == NULL)
        return 1;
    f->sim = sim_new(0);
    f->env = sim_env(f->sim);
    assert_ok(hw_core_create(f->env, NULL, &f->log, &f->err));
    assert_ok(core_log_append(f->log, BLOCKS, "note", &f->err));
    assert_ok(
        hw_core_create_mirror(f->env, "/mirror", hw_core_identity(f->log)->key, &mirror, &f->err));
    assert_ok(mirror_log_upgrade(f->log, mirror, &accepted, &f->err));
    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_ok(mirror_log_block(f->log, mirror, i, &accepted, &f->err));
    assert_ok(hw_core_sync(mirror, &length, &f->err));
    hw_core_close(mirror);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct world *f = *state;

    hw_core_close(f->log);
    assert_int_equal(sim_open_handles(f->sim), 0);
    sim_free(f->sim);
    free(f);
    return 0;
}

static struct hw_core *open_mirror(struct world *f, enum hw_core_mode mode)
{
    struct hw_core *core = NULL;

    assert_ok(hw_core_open(f->env, "/mirror", mode, UINT64_MAX, &core, &f->err));
    return core;
}

static void forge_node(struct world *f, uint64_t index, uint64_t size, uint8_t mask)
{
    uint8_t bytes[HW_MIRROR_NODE_SIZE], *copy;
    struct hw_node node;
    bool is_proven;
    size_t file_size;
    const uint8_t *file;

    sim_file_remove(f->sim, "/mirror/tail"); /* else it would be put right from there */
    file = sim_file_bytes(f->sim, "/mirror/nodes", &file_size);
    copy = malloc(file_size);
    memcpy(copy, file, file_size);
    assert_true(
        hw_mirror_node_decode(copy + index * HW_MIRROR_NODE_SIZE, index, &node, &is_proven));
    node.hash[3] ^= mask;
    if (size != 0)
        node.size = size;
    hw_mirror_node_encode(&node, is_proven, bytes);
    memcpy(copy + index * HW_MIRROR_NODE_SIZE, bytes, sizeof(bytes));
    sim_file_put(f->sim, "/mirror/nodes", copy, file_size);
    free(copy);
}

/* Blocks are the log's or not there; those up to `sound` are. */
static void assert_reads(struct world *f, struct hw_core *core, uint64_t sound)
{
    for (uint64_t i = 0; i < BLOCKS; i++) {
        enum hw_status status = core_log_check(core, i, &f->err);

        if (i < sound || status != HW_EMISSING)
            assert_ok(status);
    }
}

static bool count_calls(void *ctx, uint64_t checked, uint64_t length)
{
    assert_int_equal(length, BLOCKS);
    assert_in_range(checked, 0, BLOCKS);
    return --*(int *)ctx > 0;
}

static void verification_tells_how_far_it_is_and_can_be_stopped(void **state)
{
    struct world *f = *state;
    struct hw_core *core = open_mirror(f, HW_CORE_READ);
    int left = 100;

    assert_ok(hw_core_verify(core, count_calls, &left, &f->err));
    assert_int_equal(left, 98); /* at the start and at the end */
    left = 1;
    assert_int_equal(hw_core_verify(core, count_calls, &left, &f->err), HW_AGAIN);
    hw_core_close(core);
}

static void a_node_that_is_not_that_of_its_children_is_found(void **state)
{
    struct world *f = *state;
    struct hw_core *core;

    forge_node(f, 1, 0, 0x20);
    core = open_mirror(f, HW_CORE_READ);
    assert_status(hw_core_verify(core, NULL, NULL, &f->err), HW_ECORRUPT, &f->err);
    assert_non_null(strstr(f->err.message, "node 1 is not that of its children"));
    assert_reads(f, core, BLOCKS); /* leaves are what blocks are checked against */
    hw_core_close(core);
}

static void a_leaf_with_another_hash_or_size_makes_its_block_missing(void **state)
{
    static const uint64_t sizes[] = {0, 1, HW_BLOCK_SIZE_MAX + UINT64_C(1), UINT64_MAX / 2};
    struct world *f = *state;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct hw_core *core;

        forge_node(f, 10, sizes[i], 1);
        core = open_mirror(f, HW_CORE_READ);
        assert_status(core_log_check(core, 5, &f->err), HW_EMISSING, &f->err);
        assert_reads(f, core, 5);
        hw_core_close(core);
        forge_node(f, 10, 0, 1);
    }
}

/* Two subtrees that together have more bytes than there can be. */
static void sizes_that_cannot_be_tell_no_place(void **state)
{
    struct world *f = *state;
    struct hw_core *core;

    forge_node(f, 3, UINT64_MAX / 2, 0);
    forge_node(f, 9, UINT64_MAX / 2, 0);
    forge_node(f, 12, UINT64_MAX / 2, 0);
    core = open_mirror(f, HW_CORE_READ);
    assert_status(core_log_check(core, 7, &f->err), HW_EMISSING, &f->err);
    assert_reads(f, core, 4);
    hw_core_close(core);
}

static void a_mirror_file_of_another_key_is_corrupt(void **state)
{
    struct hw_mirror_info info = {.first_kept = 0};
    struct world *f = *state;
    struct hw_buffer bytes = {0};
    struct hw_core *core = NULL;
    const uint8_t *file;
    uint8_t *copy;
    size_t size;

    file = sim_file_bytes(f->sim, "/mirror/mirror", &size);
    copy = malloc(size);
    memcpy(copy, file, size);
    assert_ok(hw_mirror_info_decode((struct hw_slice){copy, size}, &info, &f->err));
    info.key[0] ^= 1;
    hw_mirror_info_encode(&info, &bytes);
    sim_file_put(f->sim, "/mirror/mirror", bytes.bytes, bytes.size);
    assert_status(hw_core_open(f->env, "/mirror", HW_CORE_READ, 0, &core, &f->err), HW_ECORRUPT,
                  &f->err);
    assert_non_null(strstr(f->err.message, "the manifest is not that of the key"));
    hw_buffer_release(&bytes);
    free(copy);
}

static void a_mirror_file_that_is_too_large_is_corrupt(void **state)
{
    static const uint8_t large[HW_MIRROR_FILE_MAX + 1];
    struct world *f = *state;
    struct hw_core *core = NULL;

    sim_file_put(f->sim, "/mirror/mirror", large, sizeof(large));
    assert_status(hw_core_open(f->env, "/mirror", HW_CORE_MIRROR, 0, &core, &f->err), HW_ECORRUPT,
                  &f->err);
    assert_non_null(strstr(f->err.message, "too large"));
}

/* Who signs was lost, and the head is there: it is learnt again with the next upgrade. */
static void a_head_without_a_manifest_does_not_verify(void **state)
{
    struct hw_mirror_info info = {.first_kept = 0};
    struct world *f = *state;
    struct hw_buffer bytes = {0};
    struct hw_core *core = NULL;
    enum hw_status status;

    memcpy(info.key, hw_core_identity(f->log)->key, sizeof(info.key));
    hw_mirror_info_encode(&info, &bytes);
    sim_file_put(f->sim, "/mirror/mirror", bytes.bytes, bytes.size);
    hw_buffer_release(&bytes);
    status = hw_core_open(f->env, "/mirror", HW_CORE_READ, 0, &core, &f->err);
    if (status == HW_OK)
        status = hw_core_verify(core, NULL, NULL, &f->err);
    assert_status(status, HW_ECORRUPT, &f->err);
    hw_core_close(core);
}

static bool keep_none(void *ctx, uint64_t index)
{
    (void)ctx;
    (void)index;
    return false;
}

static void files_that_only_look_like_data_are_left_alone(void **state)
{
    static const char *const names[] = {"/mirror/abcdefgh.dat", "/mirror/0000000x.dat",
                                        "/mirror/1.dat"};
    struct world *f = *state;
    struct hw_core *core;
    uint64_t freed = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        sim_file_put(f->sim, names[i], "mine", 4);
    core = open_mirror(f, HW_CORE_MIRROR);
    assert_ok(hw_core_prune(core, keep_none, NULL, false, &freed, &f->err));
    hw_core_close(core);
    assert_ok(hw_core_remove_mirror(f->env, "/mirror", &f->err));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_true(sim_file_exists(f->sim, names[i]));
}

int main(void)
{
#define SIM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIM(verification_tells_how_far_it_is_and_can_be_stopped),
        SIM(a_node_that_is_not_that_of_its_children_is_found),
        SIM(a_leaf_with_another_hash_or_size_makes_its_block_missing),
        SIM(sizes_that_cannot_be_tell_no_place),
        SIM(a_mirror_file_of_another_key_is_corrupt),
        SIM(a_mirror_file_that_is_too_large_is_corrupt),
        SIM(a_head_without_a_manifest_does_not_verify),
        SIM(files_that_only_look_like_data_are_left_alone),
    };

    return cmocka_run_group_tests_name("hypercore/mirror_forged", tests, NULL, NULL);
}
