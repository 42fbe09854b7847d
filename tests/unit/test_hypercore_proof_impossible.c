/*
 * Answers with numbers that cannot be: each is a true answer but for one change, and each is
 * refused before anything is stored.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/core_internal.h"
#include "hypercore/flat_tree.h"
#include "sim/sim.h"
#include "support/mirror_log.h"

enum { BLOCKS = 9 }; /* roots: node 7 over blocks 0 to 7, node 16 for block 8 */

struct world {
    struct hw_error err;
    struct sim *sim;
    struct hw_env *env;
    struct hw_core *log, *mirror;
};

static int setup(void **state)
{
    struct world *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->sim = sim_new(0);
    f->env = sim_env(f->sim);
    assert_ok(hw_core_create(f->env, "/log", &f->log, &f->err));
    assert_ok(core_log_append(f->log, BLOCKS, "note", &f->err));
    assert_ok(hw_core_create_mirror(f->env, "/mirror", hw_core_identity(f->log)->key, &f->mirror,
                                    &f->err));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct world *f = *state;

    hw_core_close(f->log);
    hw_core_close(f->mirror);
    assert_int_equal(sim_open_handles(f->sim), 0);
    sim_free(f->sim);
    free(f);
    return 0;
}

static struct hw_node *node_of(struct hw_nodes *nodes, size_t i)
{
    assert_true(i < hw_nodes_count(nodes));
    return (struct hw_node *)(void *)nodes->buffer.bytes + i;
}

static void add_node(struct hw_nodes *nodes, uint64_t index, uint64_t size)
{
    struct hw_node node = {.index = index, .size = size};

    hw_nodes_add(nodes, &node);
    assert_false(nodes->buffer.failed);
}

/* ----------------------------------------------------------------------------- the changes */

static void a_block_beyond_any_log(struct hw_proof *proof)
{
    proof->block_index = HW_TREE_LENGTH_MAX;
}

static void an_upgrade_from_beyond_any_log(struct hw_proof *proof)
{
    proof->upgrade_start = HW_TREE_LENGTH_MAX + 1;
}

static void an_upgrade_to_beyond_any_log(struct hw_proof *proof)
{
    proof->upgrade_length = HW_TREE_LENGTH_MAX + 1;
}

static void a_sibling_of_all_bytes_there_can_be(struct hw_proof *proof)
{
    node_of(&proof->target_nodes, 0)->size = UINT64_MAX;
}

static void a_root_of_all_bytes_there_can_be(struct hw_proof *proof)
{
    node_of(&proof->upgrade_nodes, 0)->size = UINT64_MAX;
}

static void a_sought_byte_that_is_elsewhere(struct hw_proof *proof)
{
    add_node(&proof->seek_nodes, 1000, 5);
}

static void a_next_root_of_all_bytes_there_can_be(struct hw_proof *proof)
{
    add_node(&proof->additional_nodes, 18, UINT64_MAX); /* the sibling of block 8 */
}

static void a_root_further_on_of_all_bytes_there_can_be(struct hw_proof *proof)
{
    add_node(&proof->additional_nodes, 18, 1);
    add_node(&proof->additional_nodes, 20, UINT64_MAX);
}

static void a_root_that_does_not_follow(struct hw_proof *proof)
{
    add_node(&proof->additional_nodes, 100, 1);
}

/* --------------------------------------------------------------------------------- the tests */

static void impossible_numbers_in_an_answer_are_refused(void **state)
{
    static void (*const changes[])(struct hw_proof * proof) = {
        a_block_beyond_any_log,
        an_upgrade_from_beyond_any_log,
        an_upgrade_to_beyond_any_log,
        a_sibling_of_all_bytes_there_can_be,
        a_root_of_all_bytes_there_can_be,
        a_sought_byte_that_is_elsewhere,
        a_next_root_of_all_bytes_there_can_be,
        a_root_further_on_of_all_bytes_there_can_be,
        a_root_that_does_not_follow,
    };
    struct hw_proof_request request = {.has_block = true,
                                       .block_index = 3,
                                       .has_upgrade = true,
                                       .upgrade_length = BLOCKS,
                                       .wants_manifest = true};
    struct world *f = *state;
    struct hw_accepted accepted;
    struct hw_proof proof = {0};

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        assert_ok(hw_core_prove(f->log, &request, &proof, &f->err));
        changes[i](&proof);
        assert_status(hw_core_accept(f->mirror, &proof, &accepted, &f->err), HW_EPROOF, &f->err);
        assert_int_equal(hw_core_length(f->mirror), 0);
        assert_false(hw_core_has(f->mirror, 3));
        hw_proof_release(&proof);
    }
    assert_ok(hw_core_prove(f->log, &request, &proof, &f->err));
    assert_ok(hw_core_accept(f->mirror, &proof, &accepted, &f->err));
    assert_true(accepted.has_block && accepted.has_upgrade);
    hw_proof_release(&proof);
}

/* A log whose manifest says what its first 6 blocks are. */
static void an_upgrade_that_is_not_the_prologue_is_refused(void **state)
{
    struct world *f = *state;

    for (uint64_t length = 5; length <= 7; length++) {
        struct hw_proof_request request = {.has_upgrade = true, .upgrade_length = length};
        struct hw_manifest manifest;
        struct hw_core *mirror = NULL;
        struct hw_accepted accepted;
        struct hw_proof proof = {0};
        uint8_t key[HW_HASH_SIZE];

        hw_manifest_default(f->log->public_key, &manifest);
        manifest.has_prologue = true;
        manifest.prologue_length = 6;
        memset(manifest.prologue_hash, 7, sizeof(manifest.prologue_hash));
        assert_ok(hw_core_prove(f->log, &request, &proof, &f->err));
        hw_buffer_clear(&proof.manifest);
        hw_manifest_encode(&manifest, &proof.manifest);
        proof.has_manifest = true;
        hw_manifest_key((struct hw_slice){proof.manifest.bytes, proof.manifest.size}, key);
        assert_ok(hw_core_create_mirror(f->env, NULL, key, &mirror, &f->err));
        assert_status(hw_core_accept(mirror, &proof, &accepted, &f->err), HW_EPROOF, &f->err);
        if (length == 5)
            assert_non_null(strstr(f->err.message, "does not cover the prologue"));
        if (length == 6)
            assert_non_null(strstr(f->err.message, "other blocks than the prologue"));
        hw_core_close(mirror);
        hw_proof_release(&proof);
    }
}

/* The log goes on under fork 1, and with other blocks. */
static void begin_a_fork(struct world *f)
{
    assert_ok(hw_core_rotate(f->log, 1, &f->err));
    assert_ok(core_log_append(f->log, 2, "note", &f->err));
}

static void a_fork_whose_block_leads_nowhere_is_refused(void **state)
{
    struct hw_proof_request request = {
        .fork = 1, .has_upgrade = true, .upgrade_length = BLOCKS + 2, .wants_manifest = true};
    struct world *f = *state;
    struct hw_proof_reader reader;
    struct hw_accepted accepted;
    struct hw_proof proof = {0};
    struct hw_reorg reorg = {0};

    assert_ok(mirror_log_upgrade(f->log, f->mirror, &accepted, &f->err));
    begin_a_fork(f);
    assert_ok(hw_core_reader(f->mirror, &reader, &f->err));
    assert_ok(hw_core_prove(f->log, &request, &proof, &f->err));
    proof.has_hash = true;
    proof.hash_index = 0;
    add_node(&proof.target_nodes, 0, 1);
    assert_status(hw_reorg_begin(&reader, &proof, &reorg, &f->err), HW_EPROOF, &f->err);
    assert_non_null(strstr(f->err.message, "leads to no root"));
    hw_proof_release(&proof);

    assert_ok(hw_core_prove(f->log, &request, &proof, &f->err));
    assert_ok(hw_reorg_begin(&reader, &proof, &reorg, &f->err));
    proof.fork = 2;
    assert_status(hw_reorg_feed(&reader, &reorg, &proof, &f->err), HW_EFORK, &f->err);
    reorg.is_done = false;
    assert_status(hw_core_reorg(f->mirror, &reorg, (struct hw_slice){NULL, 0},
                                (struct hw_slice){NULL, 0}, &f->err),
                  HW_EMISUSE, &f->err);
    reorg.is_done = true;
    assert_status(hw_core_reorg(f->mirror, &reorg,
                                (struct hw_slice){proof.signature.bytes, 1 << 20},
                                (struct hw_slice){NULL, 0}, &f->err),
                  HW_ELIMIT, &f->err);
    hw_reorg_release(&reorg);
    hw_proof_release(&proof);
    assert_int_equal(hw_core_head(f->mirror).fork, 0);
}

static void an_answer_of_a_fork_that_was_left_is_no_news(void **state)
{
    struct hw_proof_request request = {.has_block = true, .block_index = 1, .block_nodes = 3};
    struct world *f = *state;
    struct hw_accepted accepted = {.has_block = true};
    struct hw_proof late = {0};

    assert_ok(mirror_log_upgrade(f->log, f->mirror, &accepted, &f->err));
    assert_ok(hw_core_prove(f->log, &request, &late, &f->err));
    begin_a_fork(f);
    assert_ok(mirror_log_reorg(f->log, f->mirror, &f->err));
    assert_int_equal(hw_core_head(f->mirror).fork, 1);
    assert_ok(hw_core_accept(f->mirror, &late, &accepted, &f->err));
    assert_false(accepted.has_block);
    assert_false(hw_core_has(f->mirror, 1));
    hw_proof_release(&late);
}

static void a_mirror_says_what_is_beyond_its_log(void **state)
{
    struct world *f = *state;
    struct hw_accepted accepted;
    uint64_t levels = 7, size;
    struct hw_buffer out = {0};

    assert_ok(mirror_log_upgrade(f->log, f->mirror, &accepted, &f->err));
    assert_ok(hw_core_missing_nodes(f->mirror, 2 * UINT64_C(1000), &levels, &f->err));
    assert_int_equal(levels, 0);
    assert_status(hw_core_block_size(f->mirror, BLOCKS, &size, &f->err), HW_ENOTFOUND, &f->err);
    assert_status(hw_core_read(f->mirror, BLOCKS, &out, &f->err), HW_ENOTFOUND, &f->err);
    assert_ok(hw_core_refresh(f->mirror, 0, &f->err)); /* it knows */
    assert_int_equal(hw_core_length(f->mirror), BLOCKS);
}

int main(void)
{
#define SIM(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        SIM(impossible_numbers_in_an_answer_are_refused),
        SIM(an_upgrade_that_is_not_the_prologue_is_refused),
        SIM(a_fork_whose_block_leads_nowhere_is_refused),
        SIM(an_answer_of_a_fork_that_was_left_is_no_news),
        SIM(a_mirror_says_what_is_beyond_its_log),
    };

    return cmocka_run_group_tests_name("hypercore/proof_impossible", tests, NULL, NULL);
}
