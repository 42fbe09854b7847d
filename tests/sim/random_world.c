/* Implements the processes of sim/random_world.h: who acts, who dies, what they had open. */
#include "sim/random_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs/vfs.h"

/* As few bytes as the bound needs, so that one that changes changes one choice. */
static uint64_t take_choice(struct random_world *w, uint64_t bound)
{
    uint64_t value = 0;

    for (uint64_t reach = 1; reach < bound; reach <<= 8) {
        if (w->choices == w->choices_end)
            break;
        value = value << 8 | *w->choices++;
    }
    return value % bound;
}

uint64_t random_chance(struct random_world *w, uint64_t bound)
{
    uint64_t z;

    if (w->choices != NULL && bound != 0)
        return take_choice(w, bound);
    z = w->chance += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    z ^= z >> 31;
    return bound == 0 ? 0 : z % bound;
}

void random_fail(struct random_world *w, const char *format, ...)
{
    va_list arguments;

    if (w->failure[0] != '\0')
        return; /* the first one counts */
    va_start(arguments, format);
    (void)vsnprintf(w->failure, sizeof(w->failure), format, arguments);
    va_end(arguments);
}

void random_act_as(struct random_world *w, unsigned process)
{
    w->process = process;
    sim_set_process(w->sim, process);
}

/* The workers of other processes go on while one waits. */
static void let_others_run(void *ctx)
{
    struct random_world *w = ctx;
    unsigned process = w->process;

    for (unsigned other = 0; other < RANDOM_SHIM_PROCESSES; other++) {
        struct hw_error err;
        uint64_t deadline;

        if (other == process || w->captures[other] == NULL || sim_is_killed(w->sim, other))
            continue;
        random_act_as(w, other);
        if (hw_capture_step(w->captures[other], &deadline, &err) < 0)
            continue; /* it may be dying */
    }
    random_act_as(w, process);
}

/* ---------------------------------------------------------------------------- connections */

static const char *synchronous_of(struct random_world *w)
{
    switch (w->synchronous) {
    case RANDOM_OFF:
        return "OFF";
    case RANDOM_NORMAL:
        return "NORMAL";
    case RANDOM_FULL:
        return "FULL";
    case RANDOM_MIXED:
        break;
    }
    return random_chance(w, 2) == 0 ? "NORMAL" : "FULL";
}

static bool is_last(struct random_world *w, const struct random_connection *connection)
{
    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++)
        if (&w->connections[i] != connection && w->connections[i].db != NULL)
            return false;
    return true;
}

bool random_has_ended(const struct random_world *w)
{
    return w->failure[0] != '\0' || w->is_doubtful;
}

struct random_connection *random_open(struct random_world *w, unsigned process)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    struct random_connection *connection = NULL;
    const char *synchronous = synchronous_of(w);
    char text[128];

    for (unsigned i = 0; i < RANDOM_CONNECTIONS && connection == NULL; i++)
        if (w->connections[i].db == NULL)
            connection = &w->connections[i];
    if (w->has_savepoints && connection != NULL && is_last(w, connection) &&
        sim_file_exists(w->sim, "/app.db-wal"))
        w->is_doubtful = true;
    if (connection == NULL || w->is_doubtful)
        return NULL;
    random_act_as(w, process);
    *connection = (struct random_connection){.process = process};
    if (process < RANDOM_SHIM_PROCESSES) /* a process has a shim of its own */
        (void)snprintf(text, sizeof(text), "file:/app.db?vfs=hwsim%u", process);
    else
        (void)snprintf(text, sizeof(text), "file:/app.db?vfs=%s", sim_vfs(w->sim)->zName);
    if (sqlite3_open_v2(text, &connection->db, flags, NULL) != SQLITE_OK) {
        if (!random_is_down(w))
            random_fail(w, "cannot open: %s; %s", sqlite3_errmsg(connection->db),
                        hw_vfs_last_error());
        (void)sqlite3_close(connection->db); /* a failed open leaves an object to be closed */
        connection->db = NULL;
        return NULL;
    }
    random_prepare(w, connection->db);
    if (process < RANDOM_SHIM_PROCESSES && random_chance(w, 5) == 0) {
        (void)sqlite3_exec(connection->db, "PRAGMA hyperwal_durability=local", NULL, NULL, NULL);
        connection->is_local = true;
    }
    connection->is_full = strcmp(synchronous, "FULL") == 0;
    (void)snprintf(text, sizeof(text), "PRAGMA synchronous=%s", synchronous);
    (void)sqlite3_exec(connection->db, text, NULL, NULL, NULL);
    (void)sqlite3_exec(connection->db,
                       "SELECT count(*) FROM sqlite_schema; PRAGMA user_version;"
                       "SELECT count(*) FROM sqlite_schema",
                       NULL, NULL, NULL);
    if (process < RANDOM_SHIM_PROCESSES) /* that reads, so its worker can work */
        (void)sqlite3_file_control(connection->db, "main", HW_FCNTL_CAPTURE, &w->captures[process]);
    return connection;
}

static bool is_last_of_process(struct random_world *w, const struct random_connection *connection)
{
    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++)
        if (&w->connections[i] != connection && w->connections[i].db != NULL &&
            w->connections[i].process == connection->process)
            return false;
    return true;
}

void random_close(struct random_world *w, struct random_connection *connection)
{
    if (connection == NULL || connection->db == NULL)
        return;
    if (connection->process == RANDOM_FOREIGN && is_last(w, connection))
        w->may_have_gaps = true; /* it empties the WAL, logged or not */
    random_act_as(w, connection->process);
    if (sqlite3_get_autocommit(connection->db) == 0)
        (void)sqlite3_exec(connection->db, "ROLLBACK", NULL, NULL, NULL);
    if (connection->process < RANDOM_SHIM_PROCESSES && is_last_of_process(w, connection))
        w->captures[connection->process] = NULL;
    if (sqlite3_close(connection->db) != SQLITE_OK)
        random_fail(w, "a connection does not close: %s", sqlite3_errmsg(connection->db));
    *connection = (struct random_connection){0};
}

void random_close_process(struct random_world *w, unsigned process)
{
    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++)
        if (w->connections[i].db != NULL && w->connections[i].process == process)
            random_close(w, &w->connections[i]);
    random_follow_close(w, process);
}

struct random_connection *random_pick(struct random_world *w, bool of_shim)
{
    unsigned start = (unsigned)random_chance(w, RANDOM_CONNECTIONS);

    for (unsigned i = 0; i < RANDOM_CONNECTIONS; i++) {
        struct random_connection *connection = &w->connections[(start + i) % RANDOM_CONNECTIONS];

        if (connection->db != NULL && (!of_shim || connection->process < RANDOM_SHIM_PROCESSES)) {
            random_act_as(w, connection->process);
            return connection;
        }
    }
    return NULL;
}

/* ---------------------------------------------------------------------------------- deaths */

bool random_is_down(struct random_world *w)
{
    bool down = sim_has_crashed(w->sim);

    for (unsigned process = 0; process < RANDOM_PROCESSES; process++)
        down = down || sim_is_killed(w->sim, process);
    return down;
}

void random_arm(struct random_world *w, bool power, uint64_t within)
{
    struct sim_fault fault = {.kind = power ? SIM_CRASH : SIM_KILL};

    fault.at = 1 + random_chance(w, within);
    sim_set_fault(w->sim, &fault);
}

static enum sim_crash_mode choose_mode(struct random_world *w)
{
    if (w->synchronous == RANDOM_OFF) /* else SQLite itself promises nothing */
        return SIM_KEEP;
    return (enum sim_crash_mode)random_chance(w, SIM_CRASH_MODES);
}

bool random_bury(struct random_world *w)
{
    bool power = sim_has_crashed(w->sim);

    if (!random_is_down(w))
        return false;
    for (unsigned process = 0; process < RANDOM_PROCESSES; process++) {
        if (!power && !sim_is_killed(w->sim, process))
            continue;
        random_close_process(w, process);
        if (power)
            continue;
        sim_set_fault(w->sim, NULL);
        sim_kill(w->sim, process);
        w->totals.kills++;
    }
    sim_set_fault(w->sim, NULL);
    if (power) {
        sim_crash(w->sim, choose_mode(w));
        w->totals.crashes++;
        w->lost_power = true;
    }
    return power;
}

void random_reset(struct random_world *w, uint64_t seed)
{
    struct random_world fresh = {.sim = w->sim, .seed = seed, .chance = seed, .totals = w->totals};

    for (unsigned process = 0; process < RANDOM_PROCESSES; process++)
        random_close_process(w, process);
    w->totals.operations += sim_operation_count(w->sim);
    fresh.totals = w->totals;
    random_oracle_close(w);
    sim_reset(w->sim, seed);
    sim_set_idle(w->sim, let_others_run, w);
    (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed * 2 + 1) & 0x7fffffff, NULL);
    *w = fresh;
    random_act_as(w, 0);
}
