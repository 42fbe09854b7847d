/* What a remote has and what is wanted, against sets that are too simple to be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/alloc.h"
#include "wire/link_bits.h"
#include "wire/replication.h"
#include "wire/wants.h"

enum { UNIVERSE = 3 * HW_BITS_PAGE + 77 };

static uint64_t chance_state;

static uint64_t chance(uint64_t bound)
{
    chance_state ^= chance_state << 13; /* xorshift64: Marsaglia 2003 */
    chance_state ^= chance_state >> 7;
    chance_state ^= chance_state << 17;
    return chance_state % bound;
}

/* A place that is often at the edge of something. */
static uint64_t place(void)
{
    uint64_t at = chance(4) == 0 ? chance(4) * HW_BITS_PAGE + chance(3) : chance(UNIVERSE);

    return at < UNIVERSE ? at : UNIVERSE;
}

static void check_bits(const struct hw_link_bits *bits, const bool *model)
{
    for (uint64_t i = 0; i < UNIVERSE; i++)
        assert_true(hw_link_bits_has(bits, i) == model[i]);
    for (unsigned n = 0; n < 50; n++) {
        uint64_t start = place(), end = place(), expected = start;

        while (expected < end && !model[expected])
            expected++;
        if (start > end)
            expected = end;
        assert_int_equal(hw_link_bits_next(bits, start, end), expected);
    }
}

static void bits_are_what_was_told(void **state)
{
    static bool model[UNIVERSE];
    static uint8_t words[4 * (UNIVERSE / 32)];

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct hw_link_bits bits = {0};

        chance_state = seed;
        memset(model, 0, sizeof(model));
        for (unsigned step = 0; step < 60; step++) {
            uint64_t start = place(), end = place(), count;

            if (start > end)
                start = end;
            switch (chance(3)) {
            case 0:
                assert_int_equal(hw_link_bits_set(&bits, start, end), HW_OK);
                memset(model + start, 1, end - start);
                break;
            case 1:
                assert_int_equal(hw_link_bits_clear(&bits, start, end), HW_OK);
                memset(model + start, 0, end - start);
                break;
            default:
                start -= start % 32;
                count = chance((UNIVERSE - start) / 32 + 1);
                for (uint64_t i = 0; i < 4 * count; i++)
                    words[i] = chance(2) == 0 ? 0xff : (uint8_t)chance(256);
                assert_int_equal(
                    hw_link_bits_put(&bits, start, (struct hw_slice){words, 4 * count}), HW_OK);
                for (uint64_t i = 0; i < 32 * count; i++)
                    model[start + i] = (words[i / 8] >> (i % 8) & 1) != 0;
            }
            if (step % 10 == 9)
                check_bits(&bits, model);
        }
        hw_link_bits_release(&bits);
    }
}

static void bits_far_away_cost_nothing(void **state)
{
    struct hw_link_bits bits = {0};

    (void)state;
    assert_int_equal(hw_link_bits_set(&bits, 1, UINT64_MAX), HW_OK);
    assert_true(hw_link_bits_has(&bits, HW_LINK_BITS_MAX - 1));
    assert_true(hw_link_bits_has(&bits, HW_LINK_BITS_MAX));
    assert_true(hw_link_bits_has(&bits, UINT64_MAX - 1));
    assert_false(hw_link_bits_has(&bits, 0));
    assert_int_equal(hw_link_bits_set(&bits, 0, UINT64_MAX), HW_OK);
    assert_true(hw_link_bits_has(&bits, UINT64_MAX - 1));
    assert_int_equal(hw_link_bits_clear(&bits, 1000, UINT64_MAX), HW_OK);
    assert_false(hw_link_bits_has(&bits, 1000));
    assert_true(hw_link_bits_has(&bits, 999));
    assert_int_equal(hw_link_bits_next(&bits, 1000, UINT64_MAX), UINT64_MAX);
    hw_link_bits_release(&bits);
}

/* Around the last page: so few changes that no run is forgotten. */
static void bits_beyond_the_pages_are_what_was_told(void **state)
{
    enum { PLACES = 2 * HW_BITS_RUNS, STEP = 3, BASE = HW_LINK_BITS_MAX - 10 * STEP - 1 };

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct hw_link_bits bits = {0};
        bool model[PLACES * STEP] = {false};

        chance_state = seed;
        for (unsigned step = 0; step < 60; step++) {
            uint64_t start = STEP * chance(PLACES), end = start + STEP * chance(9);
            bool on = chance(2) == 0, from_zero = chance(20) == 0;

            if (end > PLACES * STEP)
                end = PLACES * STEP;
            if (from_zero)
                start = 0;
            if (on)
                assert_int_equal(hw_link_bits_set(&bits, from_zero ? 0 : BASE + start, BASE + end),
                                 HW_OK);
            else
                assert_int_equal(
                    hw_link_bits_clear(&bits, from_zero ? 0 : BASE + start, BASE + end), HW_OK);
            memset(model + start, on, end - start);
            for (uint64_t i = 0; i < PLACES * STEP; i++)
                assert_true(hw_link_bits_has(&bits, BASE + i) == model[i]);
            for (unsigned n = 0; n < 20; n++) {
                uint64_t from = chance(PLACES * STEP), to = chance(PLACES * STEP), found = from;

                while (found < to && !model[found])
                    found++;
                assert_int_equal(hw_link_bits_next(&bits, BASE + from, BASE + to),
                                 BASE + (from < to ? found : to));
            }
        }
        hw_link_bits_release(&bits);
    }
}

static void of_too_many_runs_the_highest_are_remembered(void **state)
{
    struct hw_link_bits bits = {0};
    const uint64_t base = HW_LINK_BITS_MAX, count = HW_BITS_RUNS + 10;

    (void)state;
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(hw_link_bits_set(&bits, base + 10 * i, base + 10 * i + 5), HW_OK);
    assert_int_equal(hw_link_bits_set(&bits, base, base + 1), HW_OK);
    for (uint64_t i = 0; i < count; i++)
        assert_true(hw_link_bits_has(&bits, base + 10 * i + 4) == (i >= 10));
    /* A hole in the middle makes one more. */
    assert_int_equal(hw_link_bits_clear(&bits, base + 202, base + 203), HW_OK);
    assert_int_equal(hw_link_bits_next(&bits, 0, UINT64_MAX), base + 110);
    assert_true(hw_link_bits_has(&bits, base + 201));
    assert_false(hw_link_bits_has(&bits, base + 202));
    assert_true(hw_link_bits_has(&bits, base + 203));
    /* And so does one in the lowest, whose lower part is forgotten. */
    assert_int_equal(hw_link_bits_clear(&bits, base + 112, base + 113), HW_OK);
    assert_int_equal(hw_link_bits_next(&bits, 0, UINT64_MAX), base + 113);
    assert_int_equal(hw_link_bits_clear(&bits, base + 120, UINT64_MAX), HW_OK);
    assert_int_equal(hw_link_bits_next(&bits, base + 115, UINT64_MAX), UINT64_MAX);
    hw_link_bits_release(&bits);
}

/* -------------------------------------------------------------------------------------- wants */

enum { WANTED = 400 };

static bool is_even(void *ctx, struct hw_want range)
{
    (void)ctx;
    return range.start % 2 == 0;
}

static void check_wants(const struct hw_wants *wants, const bool *model, uint64_t limit)
{
    bool found[WANTED] = {false};
    struct hw_want range;
    uint64_t from = 0;

    while (hw_wants_next(wants, from, limit, &range)) {
        assert_true(range.start >= from && range.start < range.end && range.end <= limit);
        for (uint64_t i = range.start; i < range.end; i++)
            found[i] = true;
        from = range.end;
    }
    for (uint64_t i = 0; i < limit; i++)
        assert_true(found[i] == (model[i] || i >= wants->tail));
    for (uint64_t i = 0; i < limit; i++)
        assert_true(hw_wants_next(wants, i, i + 1, &range) == found[i]);
}

static void wants_are_what_was_added(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct hw_wants wants = {.tail = UINT64_MAX};
        bool model[WANTED] = {false};

        chance_state = seed;
        for (unsigned step = 0; step < 40; step++) {
            uint64_t start = chance(WANTED), end = start + chance(30);

            if (end > WANTED)
                end = WANTED;
            assert_int_equal(hw_wants_add(&wants, start, end), HW_OK);
            for (uint64_t i = start; i < end; i++)
                model[i] = true;
            if (chance(10) == 0)
                wants.tail = chance(2) == 0 ? UINT64_MAX : chance(WANTED);
            check_wants(&wants, model, 1 + chance(WANTED));
        }
        hw_wants_clear(&wants);
        memset(model, 0, sizeof(model));
        check_wants(&wants, model, WANTED);
        hw_wants_release(&wants);
    }
}

static void wants_have_a_limit_and_can_be_thinned(void **state)
{
    struct hw_wants wants = {.tail = UINT64_MAX};
    struct hw_want range;

    (void)state;
    for (uint64_t i = 0; i < HW_WANTS_MAX; i++)
        assert_int_equal(hw_wants_add(&wants, 5 * i, 5 * i + 2), HW_OK);
    assert_int_equal(hw_wants_add(&wants, 5 * HW_WANTS_MAX, 5 * HW_WANTS_MAX + 1), HW_ELIMIT);
    assert_int_equal(hw_wants_add(&wants, 0, 4), HW_OK); /* one that only grows */
    hw_wants_keep(&wants, is_even, NULL);
    assert_int_equal(wants.count, HW_WANTS_MAX / 2);
    assert_true(hw_wants_next(&wants, 4, UINT64_MAX, &range));
    assert_int_equal(range.start, 10);
    hw_wants_release(&wants);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_are_what_was_told),
        cmocka_unit_test(bits_far_away_cost_nothing),
        cmocka_unit_test(bits_beyond_the_pages_are_what_was_told),
        cmocka_unit_test(of_too_many_runs_the_highest_are_remembered),
        cmocka_unit_test(wants_are_what_was_added),
        cmocka_unit_test(wants_have_a_limit_and_can_be_thinned),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("wire/sets", tests, NULL, NULL);
}
