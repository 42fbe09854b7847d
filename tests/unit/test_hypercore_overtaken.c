/* Logs of which somebody has more than they have themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypercore/overtaken.h"
#include "sim/sim.h"
#include "support/core_log.h"

/* -------------------------------------------------------------------------------- the proof */

struct shown {
    struct hw_core *longer, *shorter;
    struct hw_proof proof;
    struct hw_error err;
};

/* The whole log shows what it signed to a reader of its first blocks. */
static void show(struct core_log *f, unsigned length, unsigned limit, struct shown *out)
{
    const struct hw_proof_request request = {
        .id = 1, .has_upgrade = true, .upgrade_length = length};

    *out = (struct shown){.longer = NULL};
    core_log_empty(f);
    assert_ok(hw_core_create(f->env, f->dir, &out->longer, &f->err));
    for (unsigned i = 0; i < length; i++)
        assert_ok(core_log_append(out->longer, 1, "n", &f->err));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, limit, &out->shorter, &f->err));
    assert_int_equal(hw_core_length(out->shorter), limit);
    assert_ok(hw_core_prove(out->longer, &request, &out->proof, &f->err));
}

static void show_over(struct shown *shown)
{
    hw_proof_release(&shown->proof);
    hw_core_close(shown->shorter);
    hw_core_close(shown->longer);
}

static void a_longer_tree_that_was_signed_is_shown(void **state)
{
    struct core_log *f = *state;

    for (unsigned length = 2; length < 20; length++) {
        struct shown shown;
        uint64_t proven = 0;

        show(f, length, length / 2, &shown);
        assert_ok(hw_overtaken_check(shown.shorter, &shown.proof, &proven, &f->err));
        assert_int_equal(proven, length);
        show_over(&shown);
    }
}

/* Change one thing of the proof; what is expected then. */
static void check_changed(struct core_log *f, struct shown *shown, enum hw_status expected)
{
    uint64_t proven = 77;

    assert_status(hw_overtaken_check(shown->shorter, &shown->proof, &proven, &f->err), expected,
                  &f->err);
    assert_int_equal(proven, 77);
}

static void what_was_not_signed_shows_nothing(void **state)
{
    struct core_log *f = *state;
    struct shown shown;
    struct hw_node *node;

    show(f, 13, 5, &shown);
    shown.proof.fork = 1; /* it was signed for fork 0 */
    check_changed(f, &shown, HW_EPROOF);
    shown.proof.fork = 0;
    shown.proof.signature.bytes[20] ^= 1;
    check_changed(f, &shown, HW_EPROOF);
    shown.proof.signature.bytes[20] ^= 1;
    node = (struct hw_node *)(void *)shown.proof.upgrade_nodes.buffer.bytes;
    node->hash[3] ^= 1;
    check_changed(f, &shown, HW_EPROOF);
    node->hash[3] ^= 1;
    shown.proof.upgrade_length = 14;
    check_changed(f, &shown, HW_EPROOF);
    shown.proof.upgrade_length = 0;
    check_changed(f, &shown, HW_EPROTOCOL);
    shown.proof.upgrade_length = 13;
    shown.proof.upgrade_start = 5;
    check_changed(f, &shown, HW_EPROTOCOL);
    shown.proof.upgrade_start = 0;
    shown.proof.has_block = true;
    check_changed(f, &shown, HW_EPROTOCOL);
    shown.proof.has_block = false;
    shown.proof.has_upgrade = false;
    check_changed(f, &shown, HW_EPROTOCOL);
    show_over(&shown);
}

/* --------------------------------------------------------------------------------- the file */

static void make_log(struct core_log *f, unsigned length)
{
    struct hw_core *core = NULL;

    assert_ok(hw_core_create(f->env, f->dir, &core, &f->err));
    assert_ok(core_log_append(core, length, "n", &f->err));
    hw_core_close(core);
}

static void check_open(struct core_log *f, enum hw_status expected, uint64_t fork)
{
    struct hw_core *core = NULL;

    assert_status(hw_core_open(f->env, f->dir, HW_CORE_WRITE, 0, &core, &f->err), expected,
                  &f->err);
    if (expected == HW_OK)
        assert_int_equal(hw_core_head(core).fork, fork);
    hw_core_close(core);
}

static void an_overtaken_log_is_read_and_not_written(void **state)
{
    struct core_log *f = *state;
    const struct hw_overtaken same = {.fork = 0, .length = 10}, more = {.fork = 0, .length = 11};
    struct hw_core *core = NULL;

    make_log(f, 10);
    assert_ok(hw_overtaken_write(f->env, f->dir, &same, &f->err));
    check_open(f, HW_OK, 0); /* it has as much itself */
    assert_ok(hw_overtaken_write(f->env, f->dir, &more, &f->err));
    check_open(f, HW_EFORK, 0);
    assert_non_null(strstr(f->err.message, "11 blocks of fork 0, here are 10 of fork 0"));
    assert_ok(hw_core_open(f->env, f->dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    core_log_check_all(core, 10);
    hw_core_close(core);
}

static void it_is_adopted_above_the_fork_that_was_shown(void **state)
{
    struct core_log *f = *state;
    struct hw_overtaken more = {.fork = 0, .length = 11}, there;

    make_log(f, 10);
    assert_ok(hw_overtaken_write(f->env, f->dir, &more, &f->err));
    assert_ok(hw_core_adopt(f->env, f->dir, &f->err));
    check_open(f, HW_OK, 1);
    more = (struct hw_overtaken){.fork = 7, .length = 1};
    assert_ok(hw_overtaken_write(f->env, f->dir, &more, &f->err));
    check_open(f, HW_EFORK, 0);
    assert_ok(hw_core_adopt(f->env, f->dir, &f->err));
    check_open(f, HW_OK, 8);
    assert_int_equal(hw_overtaken_read(f->env, f->dir, &there, NULL), HW_ENOTFOUND);
}

static void the_most_that_was_shown_is_kept(void **state)
{
    struct core_log *f = *state;
    const struct hw_overtaken high = {.fork = 3, .length = 2, .peer = {9}};
    const struct hw_overtaken low = {.fork = 2, .length = 900}, more = {.fork = 3, .length = 3};
    struct hw_overtaken there = {.fork = 0};

    assert_ok(hw_overtaken_write(f->env, f->dir, &high, &f->err));
    assert_ok(hw_overtaken_write(f->env, f->dir, &low, &f->err));
    assert_ok(hw_overtaken_read(f->env, f->dir, &there, &f->err));
    assert_memory_equal(&there, &high, sizeof(there));
    assert_ok(hw_overtaken_write(f->env, f->dir, &more, &f->err));
    assert_ok(hw_overtaken_read(f->env, f->dir, &there, &f->err));
    assert_memory_equal(&there, &more, sizeof(there));
}

static void a_damaged_file_is_an_error_and_not_a_permission(void **state)
{
    struct core_log *f = *state;
    const struct hw_overtaken more = {.fork = 4, .length = 11};
    struct hw_file *file = NULL;
    struct hw_overtaken there;
    char path[128];

    make_log(f, 10);
    (void)snprintf(path, sizeof(path), "%s/overtaken", f->dir);
    for (uint64_t at = 0; at < 72; at++) {
        uint8_t byte;

        assert_ok(hw_overtaken_write(f->env, f->dir, &more, &f->err));
        assert_ok(f->env->ops->open(f->env, path, HW_OPEN_READ | HW_OPEN_WRITE, &file, &f->err));
        assert_ok(f->env->ops->read_at(file, at, &byte, 1, &f->err));
        byte ^= 1;
        assert_ok(f->env->ops->write_at(file, at, &byte, 1, &f->err));
        f->env->ops->close(file);
        assert_status(hw_overtaken_read(f->env, f->dir, &there, &f->err), HW_ECORRUPT, &f->err);
        check_open(f, HW_ECORRUPT, 0);
        assert_status(hw_core_adopt(f->env, f->dir, &f->err), HW_ECORRUPT, &f->err);
        assert_ok(hw_overtaken_remove(f->env, f->dir, &f->err));
        check_open(f, HW_OK, 0);
    }
}

/* ------------------------------------------------------------------- whatever may fail */

static const struct hw_overtaken shown_once = {.fork = 5, .length = 3};

static void prepare_log(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    (void)ctx;
    assert_status(hw_core_create(sim_env(sim), "/log", &core, &err), HW_OK, &err);
    assert_status(core_log_append(core, 10, "n", &err), HW_OK, &err);
    hw_core_close(core);
}

static void prepare_overtaken(struct sim *sim, void *ctx)
{
    struct hw_error err = {0};

    prepare_log(sim, ctx);
    assert_status(hw_overtaken_write(sim_env(sim), "/log", &shown_once, &err), HW_OK, &err);
}

static void run_adopt(struct sim *sim, void *ctx)
{
    *(bool *)ctx = hw_core_adopt(sim_env(sim), "/log", NULL) == HW_OK;
}

/* Either nothing is signed, or under a fork above; and adopting again is possible. */
static void check_adopted(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    enum hw_status status = hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err);

    if (status != HW_OK) {
        assert_status(status, HW_EFORK, &err);
        assert_false(*(bool *)ctx);
        assert_status(hw_core_adopt(sim_env(sim), "/log", &err), HW_OK, &err);
        assert_status(hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err), HW_OK,
                      &err);
    }
    assert_true(hw_core_head(core).fork > shown_once.fork);
    core_log_check_all(core, 10);
    hw_core_close(core);
}

static void run_write(struct sim *sim, void *ctx)
{
    *(bool *)ctx = hw_overtaken_write(sim_env(sim), "/log", &shown_once, NULL) == HW_OK;
}

static void check_written(struct sim *sim, void *ctx)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    enum hw_status status = hw_core_open(sim_env(sim), "/log", HW_CORE_WRITE, 0, &core, &err);

    hw_core_close(core);
    if (status != HW_OK || *(bool *)ctx)
        assert_status(status, HW_EFORK, &err);
}

static void run_write_lower(struct sim *sim, void *ctx)
{
    const struct hw_overtaken lower = {.fork = 4, .length = 900};

    *(bool *)ctx = hw_overtaken_write(sim_env(sim), "/log", &lower, NULL) == HW_OK;
}

static void check_highest(struct sim *sim, void *ctx)
{
    struct hw_overtaken there = {.fork = 0};
    struct hw_error err = {0};

    (void)ctx;
    assert_status(hw_overtaken_read(sim_env(sim), "/log", &there, &err), HW_OK, &err);
    assert_memory_equal(&there, &shown_once, sizeof(there));
}

static void run_faults(void **state, void (*prepare)(struct sim *, void *),
                       void (*run)(struct sim *, void *), void (*check)(struct sim *, void *))
{
    struct sim *sim = sim_new(0);
    bool is_done = false;
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL | SIM_EIO | SIM_EMFILE | SIM_ENOSPC | SIM_ENOMEM,
        .prepare = prepare,
        .run = run,
        .check = check,
        .ctx = &is_done,
    };

    (void)state;
    assert_true(sim_for_each_fault(sim, &scenario) > 10);
    sim_free(sim);
}

static void adopting_may_fail_anywhere(void **state)
{
    run_faults(state, prepare_overtaken, run_adopt, check_adopted);
}

static void what_was_shown_is_durable_once_it_is_written(void **state)
{
    run_faults(state, prepare_log, run_write, check_written);
}

static void one_that_cannot_be_read_is_not_replaced_by_a_lower_one(void **state)
{
    run_faults(state, prepare_overtaken, run_write_lower, check_highest);
}

int main(int argc, char **argv)
{
#define REAL(name) cmocka_unit_test_setup_teardown(name, core_log_setup, core_log_teardown)
    const struct CMUnitTest tests[] = {
        REAL(a_longer_tree_that_was_signed_is_shown),
        REAL(what_was_not_signed_shows_nothing),
        REAL(an_overtaken_log_is_read_and_not_written),
        REAL(it_is_adopted_above_the_fork_that_was_shown),
        REAL(the_most_that_was_shown_is_kept),
        REAL(a_damaged_file_is_an_error_and_not_a_permission),
        cmocka_unit_test(adopting_may_fail_anywhere),
        cmocka_unit_test(what_was_shown_is_durable_once_it_is_written),
        cmocka_unit_test(one_that_cannot_be_read_is_not_replaced_by_a_lower_one),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("hypercore/overtaken", tests, NULL, NULL);
}
