/* Mirrors: what a log proves to one, and what it proves to the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror_internal.h"
#include "support/core_log.h"

/* Ask `from` for an upgrade to its length, if it is longer. */
static void give_upgrade(struct core_log *f, struct hw_core *from, struct hw_core *to)
{
    struct hw_proof_request request = {
        .fork = hw_core_head(from).fork,
        .has_upgrade = true,
        .upgrade_start = hw_core_length(to),
        .upgrade_length = hw_core_length(from) - hw_core_length(to),
        .wants_manifest = hw_core_length(to) == 0,
    };
    struct hw_accepted accepted = {.has_block = true};
    struct hw_proof proof = {0};

    if (request.upgrade_length == 0)
        return;
    assert_ok(hw_core_prove(from, &request, &proof, &f->err));
    assert_ok(hw_core_accept(to, &proof, &accepted, &f->err));
    assert_true(accepted.has_upgrade);
    assert_false(accepted.has_block);
    assert_int_equal(accepted.has_manifest, request.wants_manifest);
    assert_int_equal(hw_core_length(to), hw_core_length(from));
    hw_proof_release(&proof);
}

/* Ask `from` for a block; what it says. */
static enum hw_status ask_block(struct core_log *f, struct hw_core *from, struct hw_core *to,
                                uint64_t index, struct hw_proof *out)
{
    struct hw_proof_request request = {
        .fork = hw_core_head(from).fork, .has_block = true, .block_index = index};

    assert_ok(hw_core_missing_nodes(to, 2 * index, &request.block_nodes, &f->err));
    return hw_core_prove(from, &request, out, &f->err);
}

static void give_block(struct core_log *f, struct hw_core *from, struct hw_core *to, uint64_t index)
{
    struct hw_accepted accepted = {.has_upgrade = true};
    struct hw_proof proof = {0};
    bool had = hw_core_has(to, index);

    assert_ok(ask_block(f, from, to, index, &proof));
    assert_ok(hw_core_accept(to, &proof, &accepted, &f->err));
    assert_int_equal(accepted.has_block, !had);
    assert_int_equal(accepted.block, index);
    assert_false(accepted.has_upgrade);
    assert_true(hw_core_has(to, index));
    assert_ok(core_log_check(to, index, &f->err));
    hw_proof_release(&proof);
}

static void make_log(struct core_log *f, unsigned length, struct hw_core **log,
                     struct hw_core **mirror)
{
    assert_ok(hw_core_create(f->env, NULL, log, &f->err));
    if (length > 0)
        assert_ok(core_log_append(*log, length, "n", &f->err));
    assert_ok(hw_core_create_mirror(f->env, NULL, hw_core_identity(*log)->key, mirror, &f->err));
}

static void same_head(struct hw_core *one, struct hw_core *other)
{
    struct hw_core_head a = hw_core_head(one), b = hw_core_head(other);

    assert_int_equal(a.length, b.length);
    assert_int_equal(a.byte_length, b.byte_length);
    assert_int_equal(a.fork, b.fork);
    assert_memory_equal(a.tree_hash, b.tree_hash, HW_KEY_SIZE);
}

static void a_mirror_takes_an_upgrade_and_blocks_in_any_order(void **state)
{
    static const uint64_t order[] = {12, 0, 7, 6, 3, 11, 1, 12, 9};
    struct core_log *f = *state;
    struct hw_core *log, *mirror;

    make_log(f, 13, &log, &mirror);
    assert_true(hw_core_is_mirror(mirror));
    assert_false(hw_core_is_mirror(log));
    assert_memory_equal(hw_core_identity(mirror)->discovery_key,
                        hw_core_identity(log)->discovery_key, HW_KEY_SIZE);
    give_upgrade(f, log, mirror);
    same_head(log, mirror);
    assert_status(core_log_check(mirror, 4, &f->err), HW_EMISSING, &f->err);
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        give_block(f, log, mirror, order[i]);
    assert_status(core_log_check(mirror, 4, &f->err), HW_EMISSING, &f->err);
    assert_status(core_log_check(mirror, 13, &f->err), HW_ENOTFOUND, &f->err);
    hw_core_close(mirror);
    hw_core_close(log);
}

static void a_block_that_comes_with_its_upgrade_is_taken_at_once(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;

    make_log(f, 0, &log, &mirror);
    for (uint64_t i = 0; i < 50; i++) {
        struct hw_proof_request request = {.has_block = true,
                                           .block_index = i,
                                           .has_upgrade = true,
                                           .upgrade_start = i,
                                           .upgrade_length = 1,
                                           .wants_manifest = i == 0};
        struct hw_accepted accepted = {.has_block = false};
        struct hw_proof proof = {0};

        assert_ok(core_log_append(log, 1, "n", &f->err));
        assert_ok(hw_core_prove(log, &request, &proof, &f->err));
        assert_ok(hw_core_accept(mirror, &proof, &accepted, &f->err));
        assert_true(accepted.has_block && accepted.has_upgrade);
        same_head(log, mirror);
        hw_proof_release(&proof);
    }
    core_log_check_all(mirror, 50);
    hw_core_close(mirror);
    hw_core_close(log);
}

static void a_mirror_serves_another_mirror_what_it_holds(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *second;
    struct hw_proof proof = {0};
    struct hw_buffer one = {0}, other = {0};

    make_log(f, 21, &log, &mirror);
    assert_ok(hw_core_create_mirror(f->env, NULL, hw_core_identity(log)->key, &second, &f->err));
    give_upgrade(f, log, mirror);
    give_block(f, log, mirror, 5);
    give_block(f, log, mirror, 20);
    give_upgrade(f, mirror, second);
    same_head(log, second);
    give_block(f, mirror, second, 5);
    give_block(f, mirror, second, 20);
    assert_status(ask_block(f, mirror, second, 9, &proof), HW_EMISSING, &f->err);
    assert_ok(hw_core_manifest(log, &one, &f->err));
    assert_ok(hw_core_manifest(second, &other, &f->err));
    assert_int_equal(one.size, other.size);
    assert_memory_equal(one.bytes, other.bytes, one.size);
    hw_buffer_release(&one);
    hw_buffer_release(&other);
    hw_core_close(second);
    hw_core_close(mirror);
    hw_core_close(log);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_mirror_takes_an_upgrade_and_blocks_in_any_order,
                                        core_log_setup, core_log_teardown),
        cmocka_unit_test_setup_teardown(a_block_that_comes_with_its_upgrade_is_taken_at_once,
                                        core_log_setup, core_log_teardown),
        cmocka_unit_test_setup_teardown(a_mirror_serves_another_mirror_what_it_holds,
                                        core_log_setup, core_log_teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror", tests, NULL, NULL);
}
