/*
 * Long random histories of one log: a writer that appends, prunes, dies and loses power; readers
 * that look on; and the promises that hold after each step.  The seed names a history.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/core_internal.h"
#include "sim/sim.h"
#include "support/core_log.h"

enum { READERS = 3, STEPS = 250, HISTORIES = 12 };

struct history {
    struct sim *sim;
    struct hw_env *env;
    struct hw_error err;
    uint64_t random;
    struct hw_core *writer;
    struct hw_core *readers[READERS]; /* NULL: closed */
    uint64_t published;               /* blocks that are known to be durable */
    uint64_t kept_from;               /* blocks below may be pruned */
};

static int setup(void **state)
{
    struct history *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->sim = sim_new(0);
    f->env = sim_env(f->sim);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct history *f = *state;

    hw_alloc_set_hook(NULL, NULL);
    sim_free(f->sim);
    free(f);
    return 0;
}

static uint64_t below(struct history *f, uint64_t bound)
{
    f->random = f->random * 6364136223846793005U + 1442695040888963407U;
    return (f->random >> 33) % bound;
}

static bool keep(void *ctx, uint64_t index)
{
    return index % 11 == 0 || index >= *(const uint64_t *)ctx;
}

static void open_writer(struct history *f)
{
    if (f->writer != NULL)
        return;
    assert_ok(hw_core_open(f->env, "/log", HW_CORE_WRITE, 0, &f->writer, &f->err));
    f->writer->segment_size = 4000;
    assert_true(hw_core_length(f->writer) >= f->published);
    f->published = hw_core_length(f->writer);
}

static void do_append(struct history *f)
{
    open_writer(f);
    assert_ok(core_log_append(f->writer, (unsigned)below(f, 9), "note", &f->err));
    f->published = hw_core_length(f->writer);
}

static void do_prune(struct history *f)
{
    uint64_t freed;

    open_writer(f);
    if (f->published > 40)
        f->kept_from += below(f, f->published - f->kept_from);
    assert_ok(hw_core_prune(f->writer, keep, &f->kept_from, false, &freed, &f->err));
}

static void do_abort(struct history *f)
{
    uint8_t block[CORE_LOG_BLOCK_MAX] = {0};

    open_writer(f);
    assert_ok(hw_core_batch_begin(f->writer, &f->err));
    for (uint64_t i = below(f, 20); i > 0; i--)
        assert_ok(hw_core_batch_add(f->writer, block, (size_t)below(f, 300), &f->err));
    hw_core_batch_abort(f->writer);
}

static void do_look(struct history *f)
{
    struct hw_core **reader = &f->readers[below(f, READERS)];

    if (*reader != NULL && below(f, 8) == 0) {
        hw_core_close(*reader);
        *reader = NULL;
    }
    if (*reader == NULL)
        assert_ok(hw_core_open(f->env, "/log", HW_CORE_READ, f->published, reader, &f->err));
    else
        assert_ok(hw_core_refresh(*reader, f->published, &f->err));
    assert_int_equal(hw_core_length(*reader), f->published);
    for (unsigned i = 0; i < 10 && f->published > 0; i++) {
        uint64_t index = below(f, f->published);
        enum hw_status status = core_log_check(*reader, index, &f->err);

        if (status != HW_EPRUNED || keep(&f->kept_from, index))
            assert_status(status, HW_OK, &f->err);
    }
}

/* The machine, or only the writer, dies; with `append` in the middle of something. */
static void do_die(struct history *f, bool power)
{
    struct sim_fault fault = {.kind = power ? SIM_CRASH : SIM_KILL, .at = 1 + below(f, 12)};
    uint64_t freed;

    open_writer(f);
    sim_set_fault(f->sim, &fault);
    if (core_log_append(f->writer, (unsigned)below(f, 9), "lost?", NULL) == HW_OK)
        f->published = hw_core_length(f->writer);
    if (below(f, 3) == 0) /* it gives up no more than the last whole run did */
        (void)(hw_core_prune(f->writer, keep, &f->kept_from, false, &freed, NULL) == HW_OK);
    sim_set_fault(f->sim, NULL);
    hw_core_close(f->writer);
    f->writer = NULL;
    for (int i = 0; i < READERS; i++) { /* one process holds all of them */
        hw_core_close(f->readers[i]);
        f->readers[i] = NULL;
    }
    if (power)
        sim_crash(f->sim, (enum sim_crash_mode)below(f, SIM_CRASH_MODES));
    else
        sim_kill(f->sim, SIM_ALL_PROCESSES);
}

static void do_step(struct history *f)
{
    uint64_t choice = below(f, 100);

    if (choice < 50) {
        do_append(f);
    } else if (choice < 82) {
        do_look(f);
    } else if (choice < 86) {
        do_prune(f);
    } else if (choice < 90) {
        do_abort(f);
    } else if (choice < 94) {
        hw_core_close(f->writer);
        f->writer = NULL;
    } else {
        do_die(f, choice < 97);
    }
}

static void check_end(struct history *f)
{
    open_writer(f);
    assert_ok(hw_core_verify(f->writer, NULL, NULL, &f->err));
    for (uint64_t i = 0; i < f->published; i++) {
        enum hw_status status = core_log_check(f->writer, i, &f->err);

        if (status != HW_EPRUNED || keep(&f->kept_from, i))
            assert_status(status, HW_OK, &f->err);
    }
}

static void every_history_keeps_what_was_durable(void **state)
{
    struct history *f = *state;

    for (uint64_t seed = 1; seed <= HISTORIES; seed++) {
        sim_reset(f->sim, seed);
        f->random = seed;
        f->published = f->kept_from = 0;
        assert_ok(hw_core_create(f->env, "/log", &f->writer, &f->err));
        f->writer->segment_size = 4000;
        for (unsigned step = 0; step < STEPS; step++)
            do_step(f);
        check_end(f);
        hw_core_close(f->writer);
        f->writer = NULL;
        for (int i = 0; i < READERS; i++) {
            hw_core_close(f->readers[i]);
            f->readers[i] = NULL;
        }
        assert_true(f->published > 300);
        assert_int_equal(sim_open_handles(f->sim), 0);
    }
}

/* ----------------------------------------------------------------------------- allocations */

static bool count_allocation(void *ctx, size_t size)
{
    (void)size;
    (*(unsigned *)ctx)++;
    return true;
}

static void a_steady_append_allocates_nothing(void **state)
{
    struct history *f = *state;
    unsigned count = 0;

    hw_alloc_set_hook(count_allocation, &count);
    assert_ok(hw_core_create(f->env, "/log", &f->writer, &f->err));
    for (unsigned i = 0; i < 100; i++) /* buffers grow to what these batches need */
        assert_ok(core_log_append(f->writer, 5, "note", &f->err));
    assert_true(count > 0);
    count = 0;
    for (unsigned i = 0; i < 300; i++)
        assert_ok(core_log_append(f->writer, 5, "note", &f->err));
    assert_int_equal(count, 0);
    hw_core_close(f->writer);
    f->writer = NULL;
    assert_int_equal(hw_alloc_live(), 0);
    hw_alloc_set_hook(NULL, NULL);
}

static void a_log_holds_three_files_open_at_most(void **state)
{
    struct history *f = *state;

    assert_ok(hw_core_create(f->env, "/log", &f->writer, &f->err));
    f->writer->segment_size = 2000;
    for (unsigned i = 0; i < 30; i++)
        assert_ok(core_log_append(f->writer, 5, "note", &f->err));
    for (uint64_t i = 0; i < 150; i += 7) {
        assert_ok(core_log_check(f->writer, i * 13 % 150, &f->err));
        assert_in_range(sim_open_handles(f->sim), 2, 3);
    }
    hw_core_close(f->writer);
    f->writer = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_history_keeps_what_was_durable),
        TEST(a_steady_append_allocates_nothing),
        TEST(a_log_holds_three_files_open_at_most),
    };

    return cmocka_run_group_tests_name("hypercore/core_random", tests, NULL, NULL);
}
