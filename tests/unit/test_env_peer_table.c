/* Tests env/peer_table.h: on the simulated disk, and between processes made by fork. */
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "env/peer_table.h"
#include "env/thread.h"
#include "sim/sim.h"

struct world {
    struct sim *sim;
    struct hw_env *env;
    struct hw_peer_table *table;
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(0)};
    world.env = sim_env(world.sim);
    if (world.env->ops->make_dir(world.env, "/log", NULL) != HW_OK ||
        hw_peer_table_open(world.env, "/log", true, &world.table, NULL) != HW_OK)
        return -1;
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    hw_peer_table_close(world->table);
    sim_free(world->sim);
    return 0;
}

static struct hw_peer_table *open_again(struct world *world)
{
    struct hw_peer_table *table = NULL;

    assert_int_equal(hw_peer_table_open(world->env, "/log", true, &table, NULL), HW_OK);
    return table;
}

/* Follower `name`, connected to process 7, that has `length` blocks in all respects. */
static struct hw_peer_row follower(unsigned name, uint64_t length)
{
    struct hw_peer_row row = {.process_id = 7,
                              .counts = true,
                              .length = length,
                              .received = length,
                              .durable = length,
                              .applied = length,
                              .since_ms = 1000};

    (void)snprintf((char *)row.id, sizeof(row.id), "follower %u", name);
    (void)snprintf(row.address, sizeof(row.address), "127.0.0.1:%u", name);
    row.key[0] = (uint8_t)name;
    return row;
}

static unsigned claim(struct hw_peer_table *table, const struct hw_peer_row *row)
{
    unsigned index = HW_PEER_ROWS;

    assert_int_equal(hw_peer_table_claim(table, row, &index, NULL), HW_OK);
    assert_true(index < HW_PEER_ROWS);
    return index;
}

static unsigned connected(struct hw_peer_table *table)
{
    struct hw_peer_row row;
    unsigned count = 0;

    for (unsigned i = 0; i < HW_PEER_ROWS; i++)
        count += hw_peer_table_get(table, i, &row) && row.process_id != 0;
    return count;
}

static void new_table_is_empty(void **state)
{
    struct hw_peer_table *table = ((struct world *)*state)->table;
    struct hw_peer_row row;

    for (unsigned i = 0; i <= HW_PEER_ROWS; i++)
        assert_false(hw_peer_table_get(table, i, &row));
    assert_int_equal(hw_peer_table_confirmed(table, 0, false), 0);
}

static void table_that_nobody_made_is_not_found(void **state)
{
    struct world *world = *state;
    struct hw_peer_table *table = NULL;

    assert_int_equal(world->env->ops->make_dir(world->env, "/other", NULL), HW_OK);
    assert_int_equal(hw_peer_table_open(world->env, "/other", false, &table, NULL), HW_ENOTFOUND);
    assert_null(table);
    assert_false(sim_file_exists(world->sim, "/other/peers"));
}

static void another_process_sees_what_was_claimed_and_set(void **state)
{
    struct world *world = *state;
    struct hw_peer_table *other = open_again(world);
    struct hw_peer_row row = follower(1, 10), got;
    unsigned index = claim(world->table, &row);

    assert_true(hw_peer_table_get(other, index, &got));
    assert_memory_equal(got.id, row.id, sizeof(row.id));
    assert_memory_equal(got.key, row.key, sizeof(row.key));
    assert_string_equal(got.address, row.address);
    assert_int_equal(got.process_id, 7);
    assert_true(got.counts);
    row.length = 30;
    row.received = 25;
    row.durable = 20;
    row.applied = 15;
    assert_true(hw_peer_table_set(world->table, index, &row));
    assert_true(hw_peer_table_get(other, index, &got));
    assert_int_equal(got.length, 30);
    assert_int_equal(got.received, 25);
    assert_int_equal(got.durable, 20);
    assert_int_equal(got.applied, 15);
    assert_int_equal(got.since_ms, 1000);
    hw_peer_table_close(other);
}

static void confirmed_counts_followers_that_count(void **state)
{
    struct hw_peer_table *table = ((struct world *)*state)->table;

    for (unsigned i = 0; i < 4; i++) {
        struct hw_peer_row row = follower(i, 10 + i);

        row.applied = 5 + i;
        row.counts = i != 3;
        (void)claim(table, &row);
    }
    assert_int_equal(hw_peer_table_confirmed(table, 10, false), 3);
    assert_int_equal(hw_peer_table_confirmed(table, 11, false), 2);
    assert_int_equal(hw_peer_table_confirmed(table, 13, false), 0);
    assert_int_equal(hw_peer_table_confirmed(table, 7, true), 1);
    assert_int_equal(hw_peer_table_confirmed(table, 8, true), 0);
}

static void follower_that_comes_back_gets_its_row_and_what_it_confirmed(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 50), other = follower(2, 60), got;
    unsigned index = claim(world->table, &row), again;

    (void)claim(world->table, &other);
    row.process_id = 0;
    assert_true(hw_peer_table_set(world->table, index, &row));
    assert_int_equal(hw_peer_table_confirmed(world->table, 50, false), 2);
    row = follower(1, 0); /* it has told nothing on this connection yet */
    again = claim(world->table, &row);
    assert_int_equal(again, index);
    assert_true(hw_peer_table_get(world->table, index, &got));
    assert_int_equal(got.durable, 50);
    assert_int_equal(got.process_id, 7);
    row.durable = 40; /* an old message */
    assert_true(hw_peer_table_set(world->table, index, &row));
    assert_int_equal(hw_peer_table_confirmed(world->table, 50, false), 2);
}

static void follower_of_two_servers_counts_once(void **state)
{
    struct world *world = *state;
    struct hw_peer_table *second = open_again(world);
    struct hw_peer_row row = follower(1, 10), by_second = row, got;
    unsigned index = claim(world->table, &row);

    by_second.process_id = 8;
    assert_int_equal(claim(second, &by_second), index);
    row.durable = 20; /* the first one still hears from it */
    row.process_id = 0;
    assert_true(hw_peer_table_set(world->table, index, &row));
    assert_int_equal(hw_peer_table_confirmed(second, 20, false), 1);
    assert_true(hw_peer_table_get(second, index, &got));
    assert_int_equal(got.process_id, 8); /* to which it is connected all the same */
    hw_peer_table_close(second);
}

static void rows_of_a_closed_server_are_not_connected(void **state)
{
    struct world *world = *state;
    struct hw_peer_table *server = open_again(world);
    struct hw_peer_row row = follower(1, 10), mine = follower(2, 10);

    (void)claim(server, &row);
    (void)claim(world->table, &mine);
    assert_int_equal(connected(world->table), 2);
    hw_peer_table_close(server);
    assert_int_equal(connected(world->table), 1);
    assert_int_equal(hw_peer_table_confirmed(world->table, 10, false), 2);
}

static void rows_of_a_killed_server_are_not_connected(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10);
    struct hw_peer_table *server, *late;

    sim_set_process(world->sim, 1);
    server = open_again(world);
    (void)claim(server, &row);
    sim_set_process(world->sim, 0);
    hw_peer_table_bury(world->table);
    assert_int_equal(connected(world->table), 1);
    sim_kill(world->sim, 1);
    hw_peer_table_bury(world->table);
    assert_int_equal(connected(world->table), 0);
    assert_int_equal(hw_peer_table_confirmed(world->table, 10, false), 1);
    sim_set_process(world->sim, 1);
    hw_peer_table_close(server);
    sim_set_process(world->sim, 0);
    late = open_again(world);
    assert_int_equal(connected(late), 0);
    hw_peer_table_close(late);
}

/* The file as another process has it mapped. */
struct mapping {
    struct hw_file *file;
    void *memory;
};

enum { MAPPING_SIZE = 4096 + 256 * HW_PEER_ROWS };
enum { SEQUENCE = 0, FLAGS = 15, APPLIED = 19, SERVER = 22, WRITER = 31 }; /* words of a row */

static struct mapping map(struct world *world)
{
    const struct hw_env_ops *ops = world->env->ops;
    struct mapping mapping = {0};

    assert_int_equal(
        ops->open(world->env, "/log/peers", HW_OPEN_READ | HW_OPEN_WRITE, &mapping.file, NULL),
        HW_OK);
    assert_int_equal(ops->map(mapping.file, MAPPING_SIZE, &mapping.memory, NULL), HW_OK);
    return mapping;
}

static void unmap(struct world *world, struct mapping *mapping)
{
    world->env->ops->unmap(world->env, mapping->memory, MAPPING_SIZE);
    world->env->ops->close(mapping->file);
}

static uint64_t *word(const struct mapping *mapping, unsigned index, unsigned number)
{
    return (uint64_t *)mapping->memory + (4096 + 256 * (size_t)index) / 8 + number;
}

/* As a writer leaves a row that is stopped or killed before it wrote a word. */
static void stop_writing(struct world *world, unsigned index, uint64_t writer)
{
    struct mapping mapping = map(world);

    *word(&mapping, index, SEQUENCE) += 1;
    *word(&mapping, index, WRITER) = writer;
    unmap(world, &mapping);
}

static uint64_t server_of(struct world *world, unsigned index)
{
    struct mapping mapping = map(world);
    uint64_t server = *word(&mapping, index, SERVER);

    unmap(world, &mapping);
    return server;
}

static void row_that_a_server_stopped_writing_can_be_read(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10), got;
    struct hw_peer_table *server;
    unsigned index;

    sim_set_process(world->sim, 1);
    server = open_again(world);
    index = claim(server, &row);
    sim_set_process(world->sim, 0);
    stop_writing(world, index, server_of(world, index));
    assert_true(hw_peer_table_get(world->table, index, &got));
    assert_int_equal(got.process_id, 7);
    assert_int_equal(hw_peer_table_confirmed(world->table, 10, false), 1);
    sim_kill(world->sim, 1);
    hw_peer_table_close(server);
    hw_peer_table_bury(world->table);
    assert_int_equal(hw_peer_table_confirmed(world->table, 10, false), 1);
    assert_true(hw_peer_table_get(world->table, index, &got));
    assert_int_equal(got.process_id, 0);
}

/* Its flags go first, when a row gets another follower: nobody has it until all is written. */
static void row_half_another_followers_is_nobodys(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10), other = follower(2, 3), got;
    unsigned index = claim(world->table, &row);
    struct mapping mapping = map(world);

    stop_writing(world, index, 2);
    ((uint32_t *)(void *)word(&mapping, index, FLAGS))[1] = 0;
    *word(&mapping, index, APPLIED) = 99;
    unmap(world, &mapping);
    assert_false(hw_peer_table_get(world->table, index, &got));
    assert_int_equal(hw_peer_table_confirmed(world->table, 1, true), 0);
    assert_int_equal(claim(world->table, &other),
                     index); /* at once: 2 has `peers` locked, or died */
    assert_int_equal(hw_peer_table_confirmed(world->table, 3, true), 1);
    assert_int_equal(hw_peer_table_confirmed(world->table, 4, true), 0);
}

static void row_that_somebody_died_writing_can_be_written(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10), got;
    unsigned index = claim(world->table, &row);
    const uint64_t dead[] = {0, 2, 12345};

    for (size_t i = 0; i < sizeof(dead) / sizeof(dead[0]); i++) {
        stop_writing(world, index, dead[i]);
        row.durable++;
        assert_true(hw_peer_table_set(world->table, index, &row));
        assert_true(hw_peer_table_get(world->table, index, &got));
        assert_int_equal(got.durable, row.durable);
    }
}

/* It would write what is old by then: nobody takes the row from it, and nobody waits for long. */
static void row_of_a_writer_that_lives_stays_its(void **state)
{
    enum { SHORT_NS = 900000000, LONG_NS = 1200000000 };
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10);
    unsigned index = claim(world->table, &row);
    uint64_t server = server_of(world, index), begin, took;
    struct mapping mapping;

    stop_writing(world, index, server);
    row.durable = 20;
    begin = world->env->ops->monotonic_ns(world->env);
    assert_false(hw_peer_table_set(world->table, index, &row));
    took = world->env->ops->monotonic_ns(world->env) - begin;
    assert_in_range(took, SHORT_NS, LONG_NS);
    assert_int_equal(hw_peer_table_claim(world->table, &row, &index, NULL), HW_ETIMEOUT);
    assert_int_equal(hw_peer_table_set_fork(world->table, 1, NULL), HW_ETIMEOUT);
    assert_int_equal(hw_peer_table_set_length(world->table, 5, NULL), HW_ETIMEOUT);
    assert_int_equal(hw_peer_table_confirmed(world->table, 10, false), 1);
    mapping = map(world);
    *word(&mapping, index, WRITER) = 0; /* it went on */
    unmap(world, &mapping);
    assert_true(hw_peer_table_set(world->table, index, &row));
    assert_int_equal(hw_peer_table_confirmed(world->table, 20, false), 1);
    assert_int_equal(hw_peer_table_set_fork(world->table, 1, NULL), HW_OK);
    assert_int_equal(hw_peer_table_confirmed(world->table, 1, false), 0);
}

/* The table was made anew, or its rows have other servers by now. */
static void files_of_dead_servers_are_removed(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10);
    struct hw_peer_table *late;

    (void)claim(world->table, &row);
    sim_file_put(world->sim, "/log/peers.00000000000000ab", "", 0);
    sim_file_put(world->sim, "/log/peers.other", "", 0);
    late = open_again(world);
    assert_false(sim_file_exists(world->sim, "/log/peers.00000000000000ab"));
    assert_true(sim_file_exists(world->sim, "/log/peers.other"));
    assert_int_equal(connected(late), 1); /* ours lives */
    hw_peer_table_close(late);
}

static void follower_257_gets_the_row_of_who_left_longest_ago(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row, got;
    unsigned index;

    for (unsigned i = 0; i < HW_PEER_ROWS; i++) {
        row = follower(i, i);
        assert_int_equal(claim(world->table, &row), i);
    }
    row = follower(1000, 5);
    assert_int_equal(hw_peer_table_claim(world->table, &row, &index, NULL), HW_ELIMIT);
    for (unsigned i = 0; i < 3; i++) { /* 30 leaves, then 20, then 10 */
        row = follower(30 - 10 * i, 30);
        row.process_id = 0;
        assert_true(hw_peer_table_set(world->table, 30 - 10 * i, &row));
        sim_advance(world->sim, 1000);
    }
    row = follower(1000, 5);
    assert_int_equal(claim(world->table, &row), 30);
    assert_true(hw_peer_table_get(world->table, 30, &got));
    assert_int_equal(got.durable, 5); /* nothing of the other's */
    row = follower(30, 99);
    assert_false(hw_peer_table_set(world->table, 30, &row)); /* it lost its row */
    assert_int_equal(claim(world->table, &row), 20);
}

static void full_table_of_a_killed_server_is_free(void **state)
{
    struct world *world = *state;
    struct hw_peer_table *server;
    struct hw_peer_row row;

    sim_set_process(world->sim, 1);
    server = open_again(world);
    for (unsigned i = 0; i < HW_PEER_ROWS; i++) {
        row = follower(i, i);
        (void)claim(server, &row);
    }
    sim_kill(world->sim, 1);
    hw_peer_table_close(server);
    sim_set_process(world->sim, 0);
    row = follower(1000, 5);
    (void)claim(world->table, &row);
    assert_int_equal(connected(world->table), 1);
}

static void another_fork_empties_the_table(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 100), got;
    unsigned index = claim(world->table, &row);

    assert_int_equal(hw_peer_table_set_fork(world->table, 0, NULL), HW_OK);
    assert_int_equal(hw_peer_table_confirmed(world->table, 100, false), 1);
    assert_int_equal(hw_peer_table_set_fork(world->table, 1, NULL), HW_OK);
    assert_false(hw_peer_table_get(world->table, index, &got));
    assert_int_equal(hw_peer_table_confirmed(world->table, 0, false), 0);
    assert_false(hw_peer_table_set(world->table, index, &row));
    row = follower(1, 3);
    (void)claim(world->table, &row);
    assert_int_equal(hw_peer_table_confirmed(world->table, 4, false), 0);
}

static void who_confirmed_more_than_there_is_counts_no_more(void **state)
{
    struct world *world = *state;
    struct hw_peer_row more = follower(1, 100), as_much = follower(2, 99), got;
    unsigned first = claim(world->table, &more), second = claim(world->table, &as_much);

    assert_int_equal(hw_peer_table_set_length(world->table, 100, NULL), HW_OK);
    assert_int_equal(hw_peer_table_confirmed(world->table, 99, false), 2);
    /* It lost a block, and makes another one. */
    assert_int_equal(hw_peer_table_set_length(world->table, 99, NULL), HW_OK);
    assert_false(hw_peer_table_get(world->table, first, &got));
    assert_true(hw_peer_table_get(world->table, second, &got));
    assert_int_equal(hw_peer_table_confirmed(world->table, 100, false), 0);
    assert_int_equal(hw_peer_table_confirmed(world->table, 99, false), 1);
}

static void table_of_another_boot_is_made_anew(void **state)
{
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 100);
    struct hw_peer_table *table = NULL;

    (void)claim(world->table, &row);
    hw_peer_table_close(world->table);
    world->table = NULL;
    assert_int_equal(world->env->ops->sync_dir(world->env, "/log", NULL), HW_OK);
    assert_int_equal(world->env->ops->sync_dir(world->env, "/", NULL), HW_OK);
    sim_crash(world->sim, SIM_KEEP);
    assert_int_equal(hw_peer_table_open(world->env, "/log", false, &table, NULL), HW_ENOTFOUND);
    world->table = open_again(world);
    assert_int_equal(hw_peer_table_confirmed(world->table, 0, false), 0);
}

static void garbage_in_the_file_is_not_believed(void **state)
{
    struct world *world = *state;
    static uint8_t garbage[80000];

    memset(garbage, 0xa5, sizeof(garbage));
    hw_peer_table_close(world->table);
    world->table = NULL;
    sim_kill(world->sim, SIM_ALL_PROCESSES);
    for (size_t size = 0; size <= sizeof(garbage); size += 4000) {
        sim_file_remove(world->sim, "/log/peers");
        sim_file_put(world->sim, "/log/peers", garbage, size);
        world->table = open_again(world);
        assert_int_equal(hw_peer_table_confirmed(world->table, 0, false), 0);
        hw_peer_table_close(world->table);
        world->table = NULL;
    }
}

static void faults_leave_nothing_open(void **state)
{
    static const enum sim_fault_kind kinds[] = {SIM_ENOMEM, SIM_EIO, SIM_EMFILE};
    struct world *world = *state;
    struct hw_peer_row row = follower(1, 10);

    hw_peer_table_close(world->table);
    world->table = NULL;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (uint64_t at = 1;; at++) {
            struct sim_fault fault = {.kind = kinds[k], .at = at};
            struct hw_peer_table *table = NULL;
            enum hw_status status;
            unsigned index;

            sim_set_fault(world->sim, &fault);
            status = hw_peer_table_open(world->env, "/log", true, &table, NULL);
            if (status == HW_OK)
                status = hw_peer_table_claim(table, &row, &index, NULL);
            hw_peer_table_close(table);
            sim_set_fault(world->sim, NULL);
            assert_int_equal(sim_open_handles(world->sim), 0);
            if (!sim_fault_was_reached(world->sim)) {
                assert_int_equal(status, HW_OK);
                break;
            }
        }
    }
}

/* ------------------------------------------------------------------------ real processes */

enum { PROCESSES = 4, ROUNDS = 5000, OWN = 20, STOP_US = 30000 };

/* One server of four, that claims and moves followers of its own and one that all of them have. */
static void serve(const char *dir, unsigned number)
{
    struct hw_peer_table *table = NULL;
    unsigned index[OWN], shared = 0;
    struct hw_peer_row row;

    (void)alarm(60);
    if (hw_peer_table_open(hw_env_posix(), dir, true, &table, NULL) != HW_OK)
        _exit(1);
    for (unsigned i = 0; i < OWN; i++) {
        row = follower(1 + number * OWN + i, 1);
        if (hw_peer_table_claim(table, &row, &index[i], NULL) != HW_OK)
            _exit(2);
    }
    for (uint64_t length = 1; length <= ROUNDS; length++) {
        row = follower(0, length);
        if (length % 50 == 1 && hw_peer_table_claim(table, &row, &shared, NULL) != HW_OK)
            _exit(3);
        if (!hw_peer_table_set(table, shared, &row))
            _exit(4);
        for (unsigned i = 0; i < OWN; i++) {
            row = follower(1 + number * OWN + i, length);
            if (!hw_peer_table_set(table, index[i], &row))
                _exit(5);
        }
    }
    if (number % 2 == 0) /* the others are gone without a word */
        hw_peer_table_close(table);
    _exit(0);
}

static void servers_in_many_processes_share_the_table(void **state)
{
    const char *base = getenv("TMPDIR");
    struct hw_peer_table *table = NULL;
    struct hw_env *env = hw_env_posix();
    char dir[200], path[256];
    pid_t children[PROCESSES];
    unsigned least = 0;

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/hw-peers-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(hw_peer_table_open(env, dir, true, &table, NULL), HW_OK);
    for (unsigned i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] == 0)
            serve(dir, i);
    }
    for (unsigned i = 0; hw_peer_table_confirmed(table, ROUNDS, true) < PROCESSES * OWN + 1 &&
                         waitpid(children[0], NULL, WNOHANG) == 0;
         i = (i + 1) % PROCESSES) {
        unsigned now;

        (void)kill(children[i], SIGSTOP); /* often in the midst of a row */
        (void)usleep(STOP_US);
        now = hw_peer_table_confirmed(table, ROUNDS / 2, true);
        (void)kill(children[i], SIGCONT);
        assert_true(now >= least); /* nothing that was confirmed is taken back */
        least = now;
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = 0;

        if (waitpid(children[i], &status, 0) == children[i])
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(hw_peer_table_confirmed(table, ROUNDS, true), PROCESSES * OWN + 1);
    hw_peer_table_bury(table);
    assert_int_equal(connected(table), 0);
    hw_peer_table_close(table);
    (void)snprintf(path, sizeof(path), "%s/peers", dir);
    assert_int_equal(env->ops->remove(env, path, NULL), HW_OK);
    assert_int_equal(env->ops->remove_dir(env, dir, NULL), HW_OK); /* no leftovers of the dead */
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(new_table_is_empty),
        TEST(table_that_nobody_made_is_not_found),
        TEST(another_process_sees_what_was_claimed_and_set),
        TEST(confirmed_counts_followers_that_count),
        TEST(follower_that_comes_back_gets_its_row_and_what_it_confirmed),
        TEST(follower_of_two_servers_counts_once),
        TEST(rows_of_a_closed_server_are_not_connected),
        TEST(rows_of_a_killed_server_are_not_connected),
        TEST(row_that_a_server_stopped_writing_can_be_read),
        TEST(row_half_another_followers_is_nobodys),
        TEST(row_that_somebody_died_writing_can_be_written),
        TEST(row_of_a_writer_that_lives_stays_its),
        TEST(files_of_dead_servers_are_removed),
        TEST(follower_257_gets_the_row_of_who_left_longest_ago),
        TEST(full_table_of_a_killed_server_is_free),
        TEST(another_fork_empties_the_table),
        TEST(who_confirmed_more_than_there_is_counts_no_more),
        TEST(table_of_another_boot_is_made_anew),
        TEST(garbage_in_the_file_is_not_believed),
        TEST(faults_leave_nothing_open),
        cmocka_unit_test(servers_in_many_processes_share_the_table),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
