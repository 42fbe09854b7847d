/*
 * All that can happen between two remote writers, a local one and the server of a database, with
 * node/lease.c as it is and the small model of lease_world.h around it: breadth first, each state
 * once; so that every order of messages and steps is tried, and every crash between two of them.
 *
 * Invariants, looked at in every state:
 *   1. History is serial: each transaction is there once, right after the state it was made on.
 *   2. What was acknowledged is in the log, and stays there.
 *   3. What was refused, or answered with "not committed", is not in the history and never will be.
 *   4. A commit begins only with the newest fence; no fence is given away twice.
 *   5. A lease that ran out is not held any more.
 *   6. Whoever is alone with its database is never refused.
 *   7. Nobody is stuck: where nothing can happen any more, everybody has got all its answers.
 * The last tests take away one rule each, and see that the model notices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lease_world.h"

/* ------------------------------------------------------------------------------- search */

struct known { /* a state that was seen; its place is its number */
    uint64_t hash[2];
    uint32_t parent;
    uint32_t action;
};
static struct {
    struct known *states;
    size_t count, capacity;
    uint32_t *table; /* numbers + 1 */
    size_t table_size;
} seen;

/* Xorshift and multiply, twice: that two of some million states share 128 bits is no risk. */
static void hash_world(const struct world *w, uint64_t out[2])
{
    uint64_t a = 0x9e3779b97f4a7c15, b = 0xc2b2ae3d27d4eb4f, word = 0;

    for (size_t i = 0; i < sizeof(*w); i += sizeof(word)) {
        size_t left = sizeof(*w) - i;

        memcpy(&word, (const uint8_t *)w + i, left < sizeof(word) ? left : sizeof(word));
        a = (a ^ word) * 0xff51afd7ed558ccd;
        a ^= a >> 31;
        b = (b + word) * 0xc4ceb9fe1a85ec53;
        b ^= b >> 29;
    }
    out[0] = a;
    out[1] = b;
}

static void *need(void *memory)
{
    assert_non_null(memory);
    return memory;
}

static void table_grow(void)
{
    size_t size = seen.table_size == 0 ? 1 << 16 : 2 * seen.table_size;

    free(seen.table);
    seen.table = need(calloc(size, sizeof(*seen.table)));
    seen.table_size = size;
    for (size_t n = 0; n < seen.count; n++) {
        size_t i = seen.states[n].hash[0] & (size - 1);

        while (seen.table[i] != 0)
            i = (i + 1) & (size - 1);
        seen.table[i] = (uint32_t)n + 1;
    }
}

static bool is_new(const struct world *w, uint32_t parent, uint32_t action)
{
    struct known state = {.parent = parent, .action = action};
    size_t i;

    if (2 * seen.count >= seen.table_size)
        table_grow();
    hash_world(w, state.hash);
    i = state.hash[0] & (seen.table_size - 1);
    for (; seen.table[i] != 0; i = (i + 1) & (seen.table_size - 1))
        if (memcmp(seen.states[seen.table[i] - 1].hash, state.hash, sizeof(state.hash)) == 0)
            return false;
    if (seen.count == seen.capacity) {
        seen.capacity = seen.capacity == 0 ? 1 << 16 : 2 * seen.capacity;
        seen.states = need(realloc(seen.states, seen.capacity * sizeof(*seen.states)));
    }
    seen.states[seen.count++] = state;
    seen.table[i] = (uint32_t)seen.count;
    return true;
}

static void print_way(uint32_t state)
{
    if (state == 0)
        return;
    print_way(seen.states[state].parent);
    print_error(" %u", (unsigned)seen.states[state].action);
}

struct level {
    struct world *worlds;
    uint32_t *numbers;
    size_t count, capacity;
};

static void level_add(struct level *level, const struct world *w)
{
    if (level->count == level->capacity) {
        level->capacity = level->capacity == 0 ? 1024 : 2 * level->capacity;
        level->worlds = need(realloc(level->worlds, level->capacity * sizeof(*level->worlds)));
        level->numbers = need(realloc(level->numbers, level->capacity * sizeof(*level->numbers)));
    }
    level->worlds[level->count] = *w;
    level->numbers[level->count++] = (uint32_t)seen.count - 1;
}

/* All states that follow from one. */
static void follow(const struct world *from, uint32_t number, struct level *next)
{
    bool has_any = false;

    for (unsigned action = 0; action < ACTIONS && violation == NULL; action++) {
        struct world w = *from;

        if (!act(&w, action))
            continue;
        has_any = true;
        check(&w);
        if (is_new(&w, number, action))
            level_add(next, &w);
        violation_at = (uint32_t)seen.count - 1;
    }
    if (!has_any) {
        check_end(from);
        violation_at = number;
    }
}

static struct world first_world(void)
{
    struct world w;

    memset(&w, 0, sizeof(w));
    w.cuts = (uint8_t)setting->cuts;
    w.crashes = (uint8_t)setting->crashes;
    w.client_crashes = (uint8_t)setting->client_crashes;
    w.failures = (uint8_t)setting->failures;
    w.duplicates = (uint8_t)setting->duplicates;
    w.locals = (uint8_t)setting->locals;
    w.expiries = (uint8_t)setting->expiries;
    for (unsigned c = 0; c < setting->clients; c++)
        w.clients[c].left = (uint8_t)setting->transactions;
    server_start(&w);
    return w;
}

/* Every state that can be reached; returns what is wrong with one of them, or NULL. */
static const char *explore(const struct setting *what, size_t *count)
{
    struct level level = {0}, next = {0};
    struct world w;

    setting = what;
    violation = NULL;
    seen.count = 0;
    if (seen.table != NULL)
        memset(seen.table, 0, seen.table_size * sizeof(*seen.table));
    w = first_world();
    (void)is_new(&w, 0, 0);
    level_add(&level, &w);
    while (level.count > 0 && violation == NULL) {
        struct level done = level;

        for (size_t i = 0; i < level.count && violation == NULL; i++)
            follow(&level.worlds[i], level.numbers[i], &next);
        level = next;
        next = done;
        next.count = 0;
    }
    *count = seen.count;
    free(level.worlds);
    free(level.numbers);
    free(next.worlds);
    free(next.numbers);
    return violation;
}

static void holds_in(const struct setting *what, size_t count_min)
{
    size_t count;
    const char *wrong = explore(what, &count);

    if (wrong != NULL) {
        print_error("%s, after:", wrong);
        print_way(violation_at);
        print_error("\n");
    }
    assert_null(wrong);
    print_message("%zu states\n", count);
    assert_true(count >= count_min); /* the model did not shrink to nothing */
}

static void is_noticed(const struct setting *what, const char *wrong)
{
    size_t count;
    const char *got = explore(what, &count);

    if (got == NULL)
        print_error("nobody noticed: %s\n", wrong);
    assert_non_null(got);
    assert_string_equal(got, wrong);
}

static int forget_all(void **state)
{
    (void)state;
    free(seen.states);
    free(seen.table);
    memset(&seen, 0, sizeof(seen));
    return 0;
}

/* --------------------------------------------------------------------------------- tests */

/* More of everything, if the environment asks for it: some minutes. */
static unsigned or_more(unsigned few, unsigned many)
{
    return getenv("HYPERWAL_MODEL") != NULL ? many : few;
}

static void two_writers_and_a_local_one_are_serial(void **state)
{
    struct setting what = {.clients = 2, .transactions = 2, .locals = 1};

    (void)state;
    what.expiries = or_more(0, 1);
    holds_in(&what, 10000);
}

static void cuts_and_repeated_commits_lose_and_double_nothing(void **state)
{
    struct setting what = {.clients = 2, .transactions = 1, .locals = 1, .duplicates = 1};

    (void)state;
    what.cuts = or_more(1, 2);
    holds_in(&what, 10000);
}

static void crashes_of_the_server_lose_nothing_that_was_acknowledged(void **state)
{
    struct setting what = {.clients = 2, .transactions = 1, .locals = 1};

    (void)state;
    what.crashes = or_more(1, 2);
    holds_in(&what, 10000);
}

static void cuts_and_crashes_together_are_survived(void **state)
{
    struct setting what = {.clients = 2, .transactions = 1, .cuts = 1, .crashes = 1};

    (void)state;
    what.duplicates = or_more(0, 1);
    holds_in(&what, 10000);
}

static void dead_clients_and_full_disks_stop_nobody_else(void **state)
{
    struct setting what = {
        .clients = 2, .transactions = 1, .locals = 1, .client_crashes = 1, .failures = 1};

    (void)state;
    what.cuts = or_more(0, 1);
    holds_in(&what, 10000);
}

static void leases_that_run_out_stop_nobody(void **state)
{
    struct setting what = {.clients = 2, .transactions = 1, .expiries = 2};

    (void)state;
    what.locals = or_more(0, 1);
    holds_in(&what, 1000);
}

static void one_writer_meets_everything_at_once(void **state)
{
    struct setting what = {
        .clients = 1, .transactions = 2, .locals = 1, .crashes = 1, .expiries = 1, .duplicates = 1};

    (void)state;
    what.failures = or_more(0, 1);
    what.cuts = or_more(1, 2);
    holds_in(&what, 10000);
}

static void who_is_alone_is_never_refused(void **state)
{
    (void)state;
    holds_in(&(struct setting){.clients = 1, .transactions = 4, .expiries = 3, .duplicates = 2},
             100);
}

static void the_model_notices_a_missing_rule(void **state)
{
    (void)state;
    is_noticed(
        &(struct setting){.clients = 2, .transactions = 1, .no_base_check = true, .locals = 1},
        "a transaction was committed on another state than it was made on");
    is_noticed(&(struct setting){.clients = 1, .transactions = 1, .no_revocation = true, .cuts = 1},
               "a refused transaction is in the history");
    is_noticed(
        &(struct setting){.clients = 2, .transactions = 1, .no_fence_file = true, .crashes = 1},
        "a fence was given away twice");
    is_noticed(
        &(struct setting){.clients = 2, .transactions = 1, .expiries = 1, .no_fence_check = true},
        "a commit began with an old fence");
    is_noticed(
        &(struct setting){.clients = 1, .transactions = 1, .answers_early = true, .crashes = 1},
        "an acknowledged transaction is not in the log");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_writers_and_a_local_one_are_serial),
        cmocka_unit_test(cuts_and_repeated_commits_lose_and_double_nothing),
        cmocka_unit_test(crashes_of_the_server_lose_nothing_that_was_acknowledged),
        cmocka_unit_test(cuts_and_crashes_together_are_survived),
        cmocka_unit_test(dead_clients_and_full_disks_stop_nobody_else),
        cmocka_unit_test(leases_that_run_out_stop_nobody),
        cmocka_unit_test(one_writer_meets_everything_at_once),
        cmocka_unit_test(who_is_alone_is_never_refused),
        cmocka_unit_test(the_model_notices_a_missing_rule),
    };

    return cmocka_run_group_tests(tests, NULL, forget_all);
}
