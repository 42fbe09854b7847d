/* Mirrors in memory: what a log proves to one, what is forged, and what it proves to the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/mirror_internal.h"
#include "support/mirror_log.h"

static void give_upgrade(struct core_log *f, struct hw_core *from, struct hw_core *to)
{
    struct hw_accepted accepted = {.has_block = true};
    bool is_first = hw_core_length(to) == 0;

    assert_ok(mirror_log_upgrade(from, to, &accepted, &f->err));
    assert_true(accepted.has_upgrade);
    assert_false(accepted.has_block);
    assert_int_equal(accepted.has_manifest, is_first);
    assert_int_equal(hw_core_length(to), hw_core_length(from));
}

static void give_block(struct core_log *f, struct hw_core *from, struct hw_core *to, uint64_t index)
{
    struct hw_accepted accepted = {.has_upgrade = true};
    bool had = hw_core_has(to, index);

    assert_ok(mirror_log_block(from, to, index, &accepted, &f->err));
    assert_int_equal(accepted.has_block, !had);
    assert_int_equal(accepted.block, index);
    assert_false(accepted.has_upgrade);
    assert_true(hw_core_has(to, index));
    assert_ok(core_log_check(to, index, &f->err));
}

static void make_mirror(struct core_log *f, struct hw_core *log, struct hw_core **mirror)
{
    assert_ok(hw_core_create_mirror(f->env, NULL, hw_core_identity(log)->key, mirror, &f->err));
}

static void make_log(struct core_log *f, unsigned length, struct hw_core **log,
                     struct hw_core **mirror)
{
    assert_ok(hw_core_create(f->env, NULL, log, &f->err));
    if (length > 0)
        assert_ok(core_log_append(*log, length, "n", &f->err));
    make_mirror(f, *log, mirror);
}

static void same_head(struct hw_core *one, struct hw_core *other)
{
    struct hw_core_head a = hw_core_head(one), b = hw_core_head(other);

    assert_int_equal(a.length, b.length);
    assert_int_equal(a.byte_length, b.byte_length);
    assert_int_equal(a.fork, b.fork);
    assert_memory_equal(a.tree_hash, b.tree_hash, HW_KEY_SIZE);
}

/* ------------------------------------------------------------------------------- true answers */

static void a_mirror_takes_an_upgrade_and_blocks_in_any_order(void **state)
{
    static const uint64_t order[] = {12, 0, 7, 6, 3, 11, 1, 12, 9};
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    uint64_t size;

    make_log(f, 13, &log, &mirror);
    assert_true(hw_core_is_mirror(mirror));
    assert_false(hw_core_is_mirror(log));
    assert_memory_equal(hw_core_identity(mirror)->discovery_key,
                        hw_core_identity(log)->discovery_key, HW_KEY_SIZE);
    give_upgrade(f, log, mirror);
    same_head(log, mirror);
    assert_status(core_log_check(mirror, 4, &f->err), HW_EMISSING, &f->err);
    assert_status(hw_core_block_size(mirror, 4, &size, &f->err), HW_EMISSING, &f->err);
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        give_block(f, log, mirror, order[i]);
    assert_status(core_log_check(mirror, 4, &f->err), HW_EMISSING, &f->err);
    assert_status(core_log_check(mirror, 13, &f->err), HW_ENOTFOUND, &f->err);
    assert_ok(hw_core_block_size(mirror, 2, &size, &f->err)); /* came along with block 3 */
    assert_int_equal(size, 74);
    assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
    hw_core_close(mirror);
    hw_core_close(log);
}

static void a_block_that_comes_with_its_upgrade_is_taken_at_once(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;

    make_log(f, 0, &log, &mirror);
    for (uint64_t i = 0; i < 50; i++) {
        struct hw_accepted accepted = {.has_block = false};

        assert_ok(core_log_append(log, 1, "n", &f->err));
        assert_ok(mirror_log_push(log, mirror, &accepted, &f->err));
        assert_true(accepted.has_block && accepted.has_upgrade);
        assert_int_equal(accepted.block, i);
        same_head(log, mirror);
    }
    core_log_check_all(mirror, 50);
    assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
    hw_core_close(mirror);
    hw_core_close(log);
}

static void a_mirror_serves_another_mirror_what_it_holds(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *second;
    struct hw_accepted accepted;
    struct hw_buffer one = {0}, other = {0};

    make_log(f, 21, &log, &mirror);
    make_mirror(f, log, &second);
    give_upgrade(f, log, mirror);
    give_block(f, log, mirror, 5);
    give_block(f, log, mirror, 20);
    give_upgrade(f, mirror, second);
    same_head(log, second);
    give_block(f, mirror, second, 5);
    give_block(f, mirror, second, 20);
    assert_status(mirror_log_block(mirror, second, 9, &accepted, &f->err), HW_EMISSING, &f->err);
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

static uint64_t next_chance(uint64_t *chance)
{
    *chance = *chance * 6364136223846793005U + 1442695040888963407U;
    return *chance >> 33;
}

/* What a mirror may say to a request: the truth, or that it does not hold what it takes. */
static void ask_some(struct core_log *f, struct hw_core *from, struct hw_core *to, uint64_t index)
{
    struct hw_accepted accepted;
    enum hw_status status = mirror_log_block(from, to, index, &accepted, &f->err);

    if (status == HW_EMISSING)
        return;
    assert_status(status, HW_OK, &f->err);
    assert_ok(core_log_check(to, index, &f->err));
}

static void any_order_between_a_log_and_two_mirrors_ends_in_the_same_log(void **state)
{
    struct core_log *f = *state;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct hw_core *log, *mirror, *second;
        uint64_t chance = seed;

        make_log(f, 1, &log, &mirror);
        make_mirror(f, log, &second);
        for (unsigned i = 0; i < 400; i++) {
            uint64_t what = next_chance(&chance) % 8;

            if (what == 0 && hw_core_length(log) < 120)
                assert_ok(
                    core_log_append(log, (unsigned)(1 + next_chance(&chance) % 9), "n", &f->err));
            else if (what == 1 && hw_core_length(log) > hw_core_length(mirror))
                give_upgrade(f, log, mirror);
            else if (what == 2 && hw_core_length(mirror) > hw_core_length(second)) {
                struct hw_accepted accepted;
                enum hw_status status = mirror_log_upgrade(mirror, second, &accepted, &f->err);

                assert_true(status == HW_OK || status == HW_EMISSING);
            } else if (what <= 5 && hw_core_length(mirror) > 0)
                ask_some(f, log, mirror, next_chance(&chance) % hw_core_length(mirror));
            else if (hw_core_length(second) > 0)
                ask_some(f, mirror, second, next_chance(&chance) % hw_core_length(second));
        }
        if (hw_core_length(mirror) < hw_core_length(log))
            give_upgrade(f, log, mirror);
        for (uint64_t i = 0; i < hw_core_length(log); i++)
            give_block(f, log, mirror, i);
        if (hw_core_length(second) < hw_core_length(mirror))
            give_upgrade(f, mirror, second);
        for (uint64_t i = hw_core_length(log); i > 0; i--)
            give_block(f, mirror, second, i - 1);
        core_log_check_all(second, hw_core_length(log));
        same_head(log, second);
        assert_ok(hw_core_verify(second, NULL, NULL, &f->err));
        hw_core_close(second);
        hw_core_close(mirror);
        hw_core_close(log);
    }
}

/* --------------------------------------------------------------------------- false answers */

/* The answer with one bit turned; what accept says of it. */
static enum hw_status accept_turned(struct hw_core *mirror, struct hw_buffer *encoded, size_t bit,
                                    struct hw_accepted *accepted)
{
    struct hw_proof proof = {0};
    enum hw_status status;

    encoded->bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    status = hw_proof_decode((struct hw_slice){encoded->bytes, encoded->size}, &proof, NULL);
    if (status == HW_OK)
        status = hw_core_accept(mirror, &proof, accepted, NULL);
    encoded->bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    hw_proof_release(&proof);
    return status;
}

static void a_forged_answer_leaves_nothing_behind(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    const struct hw_proof_request start = {
        .has_upgrade = true, .upgrade_length = 5, .wants_manifest = true};
    const struct hw_proof_request request = {.has_block = true,
                                             .block_index = 6,
                                             .has_upgrade = true,
                                             .upgrade_start = 5,
                                             .upgrade_length = 4};
    struct hw_buffer encoded = {0};
    struct hw_proof proof = {0}, first = {0};
    struct hw_accepted accepted;
    size_t refused = 0;

    make_log(f, 5, &log, &mirror);
    assert_ok(hw_core_prove(log, &start, &first, &f->err));
    assert_ok(hw_core_accept(mirror, &first, &accepted, &f->err));
    assert_ok(core_log_append(log, 4, "n", &f->err));
    assert_ok(hw_core_prove(log, &request, &proof, &f->err));
    hw_proof_encode(&proof, &encoded);
    hw_proof_release(&proof);
    for (size_t bit = 0; bit < 8 * encoded.size; bit++) {
        enum hw_status status = accept_turned(mirror, &encoded, bit, &accepted);

        if (status == HW_OK && accepted.has_upgrade) { /* a bit of no weight: that of the id, say */
            assert_ok(core_log_check(mirror, 6, &f->err));
            same_head(log, mirror);
            hw_core_close(mirror);
            make_mirror(f, log, &mirror);
            assert_ok(hw_core_accept(mirror, &first, &accepted, &f->err));
            continue;
        }
        refused++;
        assert_int_equal(hw_core_length(mirror), 5);
        for (uint64_t i = 0; i < 9; i++)
            assert_false(hw_core_has(mirror, i));
    }
    assert_true(refused > 8 * encoded.size * 9 / 10);
    hw_proof_release(&first);
    hw_buffer_release(&encoded);
    hw_core_close(mirror);
    hw_core_close(log);
}

/*
 * A hash binds the sum of the sizes of its two children: the shares that come with an answer about
 * the hash of a node are anybody's, and must not tell where a block lies.
 */
static void sizes_that_only_were_said_do_not_place_blocks(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror, *second;
    struct hw_proof_request request = {.has_hash = true, .hash_index = 1};
    struct hw_accepted accepted;
    struct hw_proof proof = {0};
    struct hw_node *nodes;
    uint64_t size;

    make_log(f, 8, &log, &mirror);
    make_mirror(f, log, &second);
    give_upgrade(f, log, mirror);
    assert_ok(hw_core_missing_nodes(mirror, 1, &request.hash_nodes, &f->err));
    assert_int_equal(request.hash_nodes, 2);
    assert_ok(hw_core_prove(log, &request, &proof, &f->err));
    nodes = (struct hw_node *)(void *)proof.target_nodes.buffer.bytes;
    assert_int_equal(nodes[0].index, 1);
    assert_int_equal(nodes[1].index, 5);
    nodes[0].size += 7; /* 0 and 37 bytes */
    nodes[1].size -= 7;
    assert_ok(hw_core_accept(mirror, &proof, &accepted, &f->err)); /* the hashes are true */
    hw_proof_release(&proof);

    give_upgrade(f, mirror, second);
    request = (struct hw_proof_request){.has_hash = true, .hash_index = 1, .hash_nodes = 2};
    assert_status(hw_core_prove(mirror, &request, &proof, &f->err), HW_EMISSING, &f->err);
    give_block(f, log, mirror, 3);
    assert_ok(hw_core_block_size(mirror, 2, &size, &f->err));
    assert_int_equal(size, 74);
    for (uint64_t i = 8; i > 0; i--)
        give_block(f, log, mirror, i - 1);
    core_log_check_all(mirror, 8);
    assert_ok(hw_core_verify(mirror, NULL, NULL, &f->err));
    hw_core_close(second);
    hw_core_close(mirror);
    hw_core_close(log);
}

static void an_empty_upgrade_does_not_tell_who_signs(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    struct hw_proof proof = {.has_upgrade = true};
    struct hw_accepted accepted = {.has_upgrade = true};

    make_log(f, 3, &log, &mirror);
    assert_ok(hw_core_accept(mirror, &proof, &accepted, &f->err));
    assert_false(accepted.has_upgrade || accepted.has_block || accepted.has_manifest);
    give_upgrade(f, log, mirror);
    hw_core_close(mirror);
    hw_core_close(log);
}

/* ---------------------------------------------------------------------------- what is held */

static void check_bits(struct hw_core *core, const bool *expected, uint64_t length)
{
    uint32_t words[8] = {0};
    uint64_t checked;

    assert_int_equal(hw_core_bits(core, 0, 8, words, NULL), HW_OK);
    for (uint64_t i = 0; i < 256; i++) {
        bool held = i < length && expected[i];

        assert_int_equal(hw_core_has(core, i), held);
        assert_int_equal(words[i / 32] >> i % 32 & 1, held);
        for (int wanted = 0; wanted < 2; wanted++) {
            uint64_t at = i, found;

            while (at < 256 && (at < length && expected[at]) != (wanted != 0))
                at++;
            assert_int_equal(hw_core_find(core, i, 256, wanted != 0, &found, &checked, NULL),
                             HW_OK);
            assert_int_equal(found, at);
        }
    }
}

static bool keep_some(void *ctx, uint64_t index)
{
    (void)ctx;
    return index % 7 != 2 || index > 150;
}

static void has_find_and_bits_tell_the_same_of_logs_and_mirrors(void **state)
{
    struct core_log *f = *state;
    struct hw_core *log, *mirror;
    bool kept[200], fetched[200] = {false};
    uint64_t freed = 0;

    make_log(f, 200, &log, &mirror);
    give_upgrade(f, log, mirror);
    for (uint64_t i = 0; i < 200; i++) {
        kept[i] = true;
        if (i * i % 11 != 3 && (i < 60 || i > 120)) {
            give_block(f, log, mirror, i);
            fetched[i] = true;
        }
    }
    check_bits(log, kept, 200);
    check_bits(mirror, fetched, 200);
    assert_ok(hw_core_prune(log, keep_some, NULL, false, &freed, &f->err));
    assert_ok(hw_core_prune(mirror, keep_some, NULL, false, &freed, &f->err));
    for (uint64_t i = 0; i < 200; i++) {
        kept[i] = keep_some(NULL, i);
        fetched[i] = fetched[i] && kept[i];
        assert_status(core_log_check(mirror, i, &f->err), fetched[i] ? HW_OK : HW_EMISSING,
                      &f->err);
    }
    check_bits(log, kept, 200);
    check_bits(mirror, fetched, 200);
    assert_int_equal(hw_core_first_kept(mirror), 143);
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
        cmocka_unit_test_setup_teardown(
            any_order_between_a_log_and_two_mirrors_ends_in_the_same_log, core_log_setup,
            core_log_teardown),
        cmocka_unit_test_setup_teardown(a_forged_answer_leaves_nothing_behind, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(sizes_that_only_were_said_do_not_place_blocks,
                                        core_log_setup, core_log_teardown),
        cmocka_unit_test_setup_teardown(an_empty_upgrade_does_not_tell_who_signs, core_log_setup,
                                        core_log_teardown),
        cmocka_unit_test_setup_teardown(has_find_and_bits_tell_the_same_of_logs_and_mirrors,
                                        core_log_setup, core_log_teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/mirror", tests, NULL, NULL);
}
