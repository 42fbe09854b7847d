/* Which state a seq, a time or a label means, and what is said where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "apply/apply.h"
#include "sim/sim.h"
#include "support/log_builder.h"

static struct sim *machine;

static enum hw_status by_seq(struct log_builder *log, uint64_t seq, struct hw_state *out,
                             struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = seq};

    return hw_state_resolve(log->core, &target, out, err);
}

static enum hw_status by_time(struct log_builder *log, int64_t time_ms, struct hw_state *out,
                              struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_TIME, .time_ms = time_ms};

    return hw_state_resolve(log->core, &target, out, err);
}

static enum hw_status by_label(struct log_builder *log, const char *name, struct hw_state *out,
                               struct hw_error *err)
{
    struct hw_target target = {.kind = HW_TARGET_LABEL, .label = name};

    return hw_state_resolve(log->core, &target, out, err);
}

static void seq_means_the_last_state_at_or_before_it(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 4096, 0, 1);
    struct hw_state found;
    struct hw_error err;

    (void)state;
    (void)log_transaction(log, 1, 300); /* of several blocks */
    (void)log_label(log, "a");
    (void)log_transaction(log, 1, 310);
    (void)log_snapshot(log, false);
    for (uint64_t seq = 0; seq < hw_core_length(log->core); seq++) {
        const struct log_state *expected = log_state_at(log, seq);

        assert_int_equal(by_seq(log, seq, &found, &err), HW_OK);
        assert_int_equal(found.seq, expected->seq);
        assert_int_equal(found.page_count, expected->page_count);
        assert_int_equal(found.time_ms, expected->time_ms);
        assert_true(found.sum == expected->sum);
        assert_int_equal(found.page_size, 4096);
    }
    assert_int_equal(by_seq(log, hw_core_length(log->core), &found, &err), HW_ENOTFOUND);
    assert_non_null(strstr(err.message, "which has 0 to"));
    log_builder_free(log);
}

static void time_means_the_last_entry_that_is_not_later(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 1);
    int64_t start = log->time_ms;
    struct hw_state found;
    struct hw_error err;

    (void)state;
    for (int i = 0; i < 20; i++)
        (void)log_transaction(log, 1, 5);
    for (int i = 0; i <= 20; i++) {
        assert_int_equal(by_time(log, start + i * 1000, &found, &err), HW_OK);
        assert_int_equal(found.seq, i);
        assert_int_equal(by_time(log, start + i * 1000 + 999, &found, &err), HW_OK);
        assert_int_equal(found.seq, i);
    }
    assert_int_equal(by_time(log, INT64_MAX, &found, &err), HW_OK);
    assert_int_equal(found.seq, 20);
    assert_int_equal(by_time(log, start - 1, &found, &err), HW_ENOTFOUND);
    log_builder_free(log);
}

static void label_means_the_state_when_the_newest_of_that_name_was_set(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 0, 1);
    struct hw_state found;
    struct hw_error err;
    uint64_t once, twice;

    (void)state;
    assert_int_equal(by_label(log, "once", &found, &err), HW_ENOTFOUND);
    once = log_transaction(log, 1, 5);
    (void)log_label(log, "once");
    (void)log_label(log, "twice");
    twice = log_transaction(log, 1, 5);
    (void)log_label(log, "twice");
    assert_int_equal(by_label(log, "once", &found, &err), HW_OK);
    assert_int_equal(found.seq, once);
    (void)log_transaction(log, 1, 5);
    assert_int_equal(by_label(log, "once", &found, &err), HW_OK);
    assert_int_equal(found.seq, once);
    assert_int_equal(by_label(log, "twice", &found, &err), HW_OK);
    assert_int_equal(found.seq, twice);
    assert_int_equal(by_label(log, "onc", &found, &err), HW_ENOTFOUND);
    assert_non_null(strstr(err.message, "'onc'"));
    log_builder_free(log);
}

static void head_is_told_before_any_snapshot_leads_to_it(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 70, 1);
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    uint64_t seq = log_transaction(log, 3, 71);
    struct hw_state found;
    struct hw_error err;

    (void)state;
    assert_int_equal(hw_state_resolve(log->core, &head, &found, &err), HW_OK);
    assert_int_equal(found.seq, seq);
    assert_true(found.sum == log->sum);
    assert_int_equal(by_seq(log, seq, &found, &err), HW_ENOTFOUND);
    assert_non_null(strstr(err.message, "no complete snapshot yet"));
    log_builder_free(log);
}

static void states_in_a_gap_are_refused_and_the_gap_is_named(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    uint64_t before, gap, within, index, after;
    struct hw_state found;
    struct hw_error err;

    (void)state;
    (void)log_snapshot(log, false);
    before = log_transaction(log, 3, 100);
    gap = log_gap(log, "somebody wrote past the VFS", 100);
    within = log_transaction(log, 3, 100);
    assert_int_equal(by_seq(log, within, &found, &err), HW_EFORK);
    assert_non_null(strstr(err.message, "no snapshot has followed"));
    index = log_snapshot(log, false);
    after = log_transaction(log, 3, 100);

    assert_int_equal(by_seq(log, before, &found, &err), HW_OK);
    assert_int_equal(by_seq(log, gap, &found, &err), HW_EFORK);
    assert_non_null(strstr(err.message, "somebody wrote past the VFS"));
    assert_int_equal(by_seq(log, within, &found, &err), HW_OK); /* all groups were taken then */
    assert_int_equal(by_seq(log, index, &found, &err), HW_OK);
    assert_int_equal(by_seq(log, after, &found, &err), HW_OK);
    assert_int_equal(found.seq, after);
    log_builder_free(log);
}

static bool keep_from(void *ctx, uint64_t index)
{
    const uint64_t *from = ctx;

    return index == 0 || index >= *from;
}

static void pruned_states_are_told_apart_from_those_that_never_were(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    uint64_t old, from, freed;
    struct hw_state found;
    struct hw_error err;

    (void)state;
    (void)log_snapshot(log, false);
    old = log_transaction(log, 3, 100);
    from = log_transaction(log, 3, 100);
    (void)log_snapshot(log, false);
    (void)log_transaction(log, 3, 100);
    assert_int_equal(hw_core_prune(log->core, keep_from, &from, false, &freed, &err), HW_OK);
    if (hw_core_first_kept(log->core) != from)
        skip(); /* this storage gives nothing up */
    assert_int_equal(by_seq(log, old, &found, &err), HW_EPRUNED);
    assert_int_equal(by_seq(log, from, &found, &err), HW_OK);
    assert_int_equal(by_label(log, "never", &found, &err), HW_ENOTFOUND);
    assert_int_equal(by_time(log, 0, &found, &err), HW_ENOTFOUND);
    log_builder_free(log);
}

/* Pruning keeps the entries after the oldest base; an index among them may have lost its groups. */
static void a_snapshot_without_its_groups_is_none(void **state)
{
    struct log_builder *log = log_builder_new(sim_env(machine), 512, 100, 1);
    uint64_t base, after, freed;
    struct hw_state found;
    struct hw_error err;

    (void)state;
    (void)log_transaction(log, 3, 100);
    log_snapshot_group(log);
    base = log_transaction(log, 3, 100);
    (void)log_snapshot(log, false);
    log_snapshot_group(log);
    after = log_transaction(log, 3, 100);
    (void)log_snapshot(log, false);
    assert_int_equal(hw_core_prune(log->core, keep_from, &base, false, &freed, &err), HW_OK);
    assert_int_equal(by_seq(log, base, &found, &err), HW_EPRUNED);
    assert_non_null(strstr(err.message, "given up by pruning; states are kept from seq"));
    assert_int_equal(by_seq(log, after, &found, &err), HW_OK);
    log_builder_free(log);
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
        cmocka_unit_test(seq_means_the_last_state_at_or_before_it),
        cmocka_unit_test(time_means_the_last_entry_that_is_not_later),
        cmocka_unit_test(label_means_the_state_when_the_newest_of_that_name_was_set),
        cmocka_unit_test(head_is_told_before_any_snapshot_leads_to_it),
        cmocka_unit_test(states_in_a_gap_are_refused_and_the_gap_is_named),
        cmocka_unit_test(pruned_states_are_told_apart_from_those_that_never_were),
        cmocka_unit_test(a_snapshot_without_its_groups_is_none),
    };

    return cmocka_run_group_tests(tests, machine_up, machine_down);
}
