/* Tests the lease of a database step by step; all ways through it are in test_node_lease_model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "node/lease.h"

enum { ALICE = 1, BOB = 2, CAROL = 3 };
static const uint64_t lease_ns = (uint64_t)HW_LEASE_MS * 1000000;

static struct hw_lease fresh(void)
{
    struct hw_lease lease;

    hw_lease_init(&lease, 41);
    hw_lease_set_limit(&lease, 1000, 0);
    return lease;
}

static void told(struct hw_lease *lease, enum hw_lease_event_kind kind, uint64_t client,
                 uint64_t fence)
{
    struct hw_lease_event event;

    assert_true(hw_lease_next(lease, &event));
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.client, client);
    assert_int_equal(event.fence, fence);
}

static void nothing_told(struct hw_lease *lease)
{
    struct hw_lease_event event;

    assert_false(hw_lease_next(lease, &event));
}

static void who_asks_first_gets_it_first_and_each_a_greater_fence(void **state)
{
    struct hw_lease lease = fresh();

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 7, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_ask(&lease, CAROL, 1, 0));
    assert_true(hw_lease_ask(&lease, BOB, 1, 0));
    told(&lease, HW_LEASE_RECALLED, ALICE, 42);
    nothing_told(&lease);
    hw_lease_release(&lease, ALICE, 41, 0);
    nothing_told(&lease);
    hw_lease_release(&lease, ALICE, 42, 0);
    told(&lease, HW_LEASE_GRANTED, CAROL, 43);
    told(&lease, HW_LEASE_RECALLED, CAROL, 43);
    hw_lease_gone(&lease, CAROL, 0);
    told(&lease, HW_LEASE_GRANTED, BOB, 44);
    nothing_told(&lease);
}

static void a_holder_that_nobody_recalls_keeps_it_from_commit_to_commit(void **state)
{
    struct hw_lease lease = fresh();
    uint64_t now = 0;
    bool kept;

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, now));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    for (unsigned i = 0; i < 5; i++) {
        now += lease_ns - 1;
        hw_lease_tick(&lease, now);
        assert_int_equal(hw_lease_deadline(&lease), now + 1);
        assert_true(hw_lease_commit_begin(&lease, ALICE, 42, now));
        assert_int_equal(hw_lease_deadline(&lease), UINT64_MAX);
        hw_lease_commit_end(&lease, HW_LEASE_COMMITTED, now, &kept);
        assert_true(kept);
    }
    now += 100 * lease_ns;
    assert_true(hw_lease_commit_begin(&lease, ALICE, 42, now)); /* nobody asked meanwhile */
}

static void who_is_recalled_has_one_commit_or_the_time_of_a_lease(void **state)
{
    struct hw_lease lease = fresh();
    bool kept;

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_ask(&lease, BOB, 1, 5));
    told(&lease, HW_LEASE_RECALLED, ALICE, 42);
    assert_true(hw_lease_commit_begin(&lease, ALICE, 42, lease_ns - 1));
    hw_lease_commit_end(&lease, HW_LEASE_COMMITTED, lease_ns, &kept);
    assert_false(kept);
    told(&lease, HW_LEASE_GRANTED, BOB, 43);
    assert_false(hw_lease_commit_begin(&lease, ALICE, 42, lease_ns));
    assert_true(hw_lease_ask(&lease, ALICE, 2, lease_ns));
    told(&lease, HW_LEASE_RECALLED, BOB, 43);
    hw_lease_tick(&lease, 2 * lease_ns - 1);
    nothing_told(&lease);
    hw_lease_tick(&lease, 2 * lease_ns);
    told(&lease, HW_LEASE_GRANTED, ALICE, 44);
    assert_false(hw_lease_commit_begin(&lease, BOB, 43, 2 * lease_ns));
}

static void asking_again_renews_the_lease_but_not_a_recalled_one(void **state)
{
    struct hw_lease lease = fresh();

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_ask(&lease, ALICE, 2, 9));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_int_equal(hw_lease_deadline(&lease), lease_ns + 9);
    assert_true(hw_lease_ask(&lease, BOB, 1, 10));
    told(&lease, HW_LEASE_RECALLED, ALICE, 42);
    assert_true(hw_lease_ask(&lease, ALICE, 3, 11));
    told(&lease, HW_LEASE_GRANTED, BOB, 43);
    told(&lease, HW_LEASE_RECALLED, BOB, 43);
    hw_lease_release(&lease, ALICE, 0, 12); /* its busy timeout ended */
    hw_lease_release(&lease, BOB, 43, 13);
    nothing_told(&lease);
    assert_false(hw_lease_commit_begin(&lease, BOB, 43, 14));
}

static void whoever_is_gone_in_its_commit_keeps_others_out_until_that_is_over(void **state)
{
    struct hw_lease lease = fresh();
    bool kept;

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_commit_begin(&lease, ALICE, 42, 1));
    hw_lease_gone(&lease, ALICE, 2);
    assert_true(hw_lease_ask(&lease, BOB, 1, 3));
    hw_lease_tick(&lease, 10 * lease_ns);
    nothing_told(&lease);
    hw_lease_commit_end(&lease, HW_LEASE_COMMITTED, 10 * lease_ns, &kept);
    assert_false(kept);
    told(&lease, HW_LEASE_GRANTED, BOB, 43);
}

static void a_fence_that_was_asked_about_commits_nothing_more(void **state)
{
    struct hw_lease lease = fresh();
    bool kept;

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    hw_lease_revoke(&lease, 41, 1);
    assert_true(hw_lease_commit_begin(&lease, ALICE, 42, 1));
    hw_lease_revoke(&lease, 42, 2);
    hw_lease_commit_end(&lease, HW_LEASE_COMMITTED, 3, &kept);
    assert_false(kept);
    assert_false(hw_lease_commit_begin(&lease, ALICE, 42, 4));
    assert_true(hw_lease_ask(&lease, ALICE, 2, 5));
    told(&lease, HW_LEASE_GRANTED, ALICE, 43);
    hw_lease_tick(&lease, 5 + lease_ns);
    hw_lease_revoke(&lease, 43, 5 + lease_ns); /* though it had expired */
    assert_false(hw_lease_commit_begin(&lease, ALICE, 43, 6 + lease_ns));
}

/* As when the application closes the database just then, and opens it again. */
static void a_lease_does_not_run_out_before_its_holder_is_told(void **state)
{
    struct hw_lease lease = fresh();

    (void)state;
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_ask(&lease, BOB, 1, 0));
    told(&lease, HW_LEASE_RECALLED, ALICE, 42);
    hw_lease_release(&lease, ALICE, 42, 1);
    hw_lease_tick(&lease, 1 + 2 * lease_ns);
    told(&lease, HW_LEASE_GRANTED, BOB, 43);
    hw_lease_tick(&lease, 3 * lease_ns);
    assert_int_equal(lease.state, HW_LEASE_HELD);
    hw_lease_tick(&lease, 1 + 3 * lease_ns);
    assert_int_equal(lease.state, HW_LEASE_FREE);
}

static void who_is_too_late_three_times_has_local_writers_held_off(void **state)
{
    struct hw_lease lease = fresh();
    struct hw_lease_event event;
    bool kept;

    (void)state;
    for (unsigned i = 0; i < HW_LEASE_STALE_MAX + 1; i++) {
        assert_true(hw_lease_ask(&lease, ALICE, i, i));
        assert_true(hw_lease_next(&lease, &event));
        assert_int_equal(event.request, i);
        assert_true(event.must_hold == (i == HW_LEASE_STALE_MAX));
        assert_true(hw_lease_commit_begin(&lease, ALICE, 42, i));
        hw_lease_commit_end(&lease, i < HW_LEASE_STALE_MAX ? HW_LEASE_STALE : HW_LEASE_COMMITTED, i,
                            &kept);
        assert_true(kept);
    }
    assert_true(hw_lease_ask(&lease, ALICE, 9, 9));
    assert_true(hw_lease_next(&lease, &event));
    assert_false(event.must_hold);
}

static void local_writers_are_held_off_once_for_each_commit_that_is_late(void **state)
{
    struct hw_lease lease = fresh();
    struct hw_lease_event event;
    bool kept;

    (void)state;
    for (unsigned i = 1; i <= 5; i++) {
        assert_true(hw_lease_ask(&lease, ALICE, i, i));
        assert_true(hw_lease_next(&lease, &event));
        assert_true(event.must_hold == (i > HW_LEASE_STALE_MAX));
        assert_true(hw_lease_ask(&lease, ALICE, i, i));
        assert_true(hw_lease_next(&lease, &event));
        assert_false(event.must_hold);
        assert_true(hw_lease_commit_begin(&lease, ALICE, 42, i));
        hw_lease_commit_end(&lease, HW_LEASE_STALE, i, &kept);
        assert_true(kept);
    }
}

static void without_fences_below_the_limit_all_wait(void **state)
{
    struct hw_lease lease;

    (void)state;
    hw_lease_init(&lease, 41);
    assert_true(hw_lease_wants_limit(&lease, 1));
    assert_true(hw_lease_ask(&lease, ALICE, 1, 0));
    nothing_told(&lease);
    hw_lease_set_limit(&lease, 43, 0);
    told(&lease, HW_LEASE_GRANTED, ALICE, 42);
    assert_true(hw_lease_wants_limit(&lease, 1));
    hw_lease_release(&lease, ALICE, 42, 0);
    assert_true(hw_lease_ask(&lease, BOB, 1, 0));
    nothing_told(&lease);
    hw_lease_set_limit(&lease, 100, 0);
    assert_false(hw_lease_wants_limit(&lease, 50));
    told(&lease, HW_LEASE_GRANTED, BOB, 43);
}

static void more_than_the_table_bears_are_turned_away_but_idle_ones_make_room(void **state)
{
    struct hw_lease lease = fresh();

    (void)state;
    for (uint64_t id = 1; id <= HW_LEASE_CLIENTS_MAX; id++)
        assert_true(hw_lease_ask(&lease, id, 1, 0));
    assert_false(hw_lease_ask(&lease, 1000, 1, 0));
    told(&lease, HW_LEASE_GRANTED, 1, 42);
    assert_false(hw_lease_ask(&lease, 1000, 1, 0)); /* one holds, all others wait */
    hw_lease_release(&lease, 5, 0, 0);
    assert_true(hw_lease_ask(&lease, 1000, 1, 0));
    assert_int_equal(lease.count, HW_LEASE_CLIENTS_MAX);
    assert_false(hw_lease_ask(&lease, 5, 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_asks_first_gets_it_first_and_each_a_greater_fence),
        cmocka_unit_test(a_holder_that_nobody_recalls_keeps_it_from_commit_to_commit),
        cmocka_unit_test(who_is_recalled_has_one_commit_or_the_time_of_a_lease),
        cmocka_unit_test(asking_again_renews_the_lease_but_not_a_recalled_one),
        cmocka_unit_test(whoever_is_gone_in_its_commit_keeps_others_out_until_that_is_over),
        cmocka_unit_test(a_fence_that_was_asked_about_commits_nothing_more),
        cmocka_unit_test(a_lease_does_not_run_out_before_its_holder_is_told),
        cmocka_unit_test(who_is_too_late_three_times_has_local_writers_held_off),
        cmocka_unit_test(local_writers_are_held_off_once_for_each_commit_that_is_late),
        cmocka_unit_test(without_fences_below_the_limit_all_wait),
        cmocka_unit_test(more_than_the_table_bears_are_turned_away_but_idle_ones_make_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
