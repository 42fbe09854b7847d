/* Implements the checks of sim/random_world.h: after a death, and at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/random_world.h"

enum { CHECKER = 6 }; /* a process of its own, that is never killed */

int random_find_state(struct random_world *w, uint64_t fingerprint, unsigned floor)
{
    for (unsigned i = w->count + 1; i-- > floor;)
        if (w->states[i].fingerprint == fingerprint)
            return (int)i;
    return -1;
}

/* What was under way when its process died may be there. */
static void settle_pending(struct random_world *w)
{
    if (w->pending == NULL)
        return;
    w->acknowledged = w->count;
    random_acknowledge(w, w->pending);
    free(w->pending);
    w->pending = NULL;
    w->has_unsettled = w->count > w->acknowledged;
}

static int check_floor(struct random_world *w, uint64_t fingerprint, unsigned floor,
                       const char *when)
{
    int index = -1;

    if (w->has_unsettled && floor > w->acknowledged)
        floor = w->acknowledged;
    index = random_find_state(w, fingerprint, floor);
    if (index < 0 && fingerprint == w->ghost)
        w->is_doubtful = true; /* as SQLite alone would have it; its seq is not known to us */
    else if (index < 0)
        random_fail(w, "%s: the database is in state %d, may be in %u to %u", when,
                    random_find_state(w, fingerprint, 0), floor, w->count);
    return index;
}

/* History is what the database shows, if it may show that. */
static void accept(struct random_world *w, uint64_t fingerprint, unsigned floor, const char *when)
{
    int index = check_floor(w, fingerprint, floor, when);

    if (index < 0)
        return;
    if (w->has_unsettled && (unsigned)index == w->acknowledged && w->count > w->acknowledged)
        w->ghost = w->states[w->count].fingerprint;
    random_forget_after(w, (unsigned)index);
    w->has_unsettled = false;
}

void random_settle(struct random_world *w)
{
    struct random_connection *connection = NULL;
    uint64_t fingerprint = 0;
    char message[256];

    if (w->pending == NULL)
        return;
    for (unsigned i = 0; i < RANDOM_CONNECTIONS && connection == NULL; i++)
        if (w->connections[i].db != NULL && !w->connections[i].is_reading)
            connection = &w->connections[i];
    if (connection == NULL) {
        random_close(w, &w->connections[0]); /* so that there is room */
        connection = random_open(w, 0);
    }
    if (connection == NULL)
        return;
    random_act_as(w, connection->process);
    if (!sim_fingerprint(connection->db, &fingerprint, message))
        random_fail(w, "after a kill: %s", message);
    else {
        settle_pending(w);
        accept(w, fingerprint, w->count, "after a kill");
    }
}

static void check_integrity(struct random_world *w, sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    const char *text = NULL;

    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        text = (const char *)sqlite3_column_text(statement, 0);
    if (text == NULL || strcmp(text, "ok") != 0)
        random_fail(w, "integrity: %s", text != NULL ? text : sqlite3_errmsg(db));
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
}

/*
 * A connection after all were dead.  Its first read sees at least what SQLite promised; once log
 * and database agree, what was in the log as well.  NULL: it died or failed.
 */
static struct random_connection *recover(struct random_world *w)
{
    struct random_connection *connection =
        random_open(w, (unsigned)random_chance(w, RANDOM_SHIM_PROCESSES));
    uint64_t fingerprint = 0, seq;
    struct hw_error err = {0};
    char message[256];

    if (connection == NULL)
        return NULL;
    if (!sim_fingerprint(connection->db, &fingerprint, message)) {
        if (!random_is_down(w))
            random_fail(w, "recovery: %s", message);
        return NULL;
    }
    settle_pending(w);
    check_floor(w, fingerprint, w->lost_power ? w->durable : w->count, "the first read");
    if (w->count > 0 && w->captures[connection->process] != NULL && w->failure[0] == '\0' &&
        !random_is_down(w) && sim_file_exists(w->sim, "/app.db-hyper/log") &&
        hw_capture_wait_logged(w->captures[connection->process], 5000, &seq, &err) != HW_OK &&
        w->announced > 0 && !random_is_down(w))
        random_fail(w, "not logged after recovery: %s", err.message);
    if (random_is_down(w) || !sim_fingerprint(connection->db, &fingerprint, message) ||
        random_is_down(w))
        return NULL;
    accept(w, fingerprint, w->lost_power ? w->floor : w->count, "after recovery");
    return connection;
}

/* Recovery is begun, and power is lost in it. */
static void crash_in_recovery(struct random_world *w)
{
    struct random_connection *connection;

    random_arm(w, true, 1ULL << random_chance(w, 11));
    connection = recover(w);
    if (connection != NULL)
        random_wait_logged(w, connection);
    random_note_length(w);
    for (unsigned process = 0; process < RANDOM_PROCESSES; process++)
        random_close_process(w, process);
    (void)random_bury(w);
    sim_set_fault(w->sim, NULL);
}

/* ---------------------------------------------------------------------------------- the log */

static struct hw_core *open_log(struct random_world *w)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    random_act_as(w, CHECKER);
    if (hw_core_open(sim_env(w->sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) !=
        HW_OK)
        random_fail(w, "the log: %s", err.message);
    return core;
}

static enum hw_status restore(struct random_world *w, struct hw_core *core,
                              const struct hw_target *target, uint64_t *fingerprint,
                              struct hw_error *err)
{
    struct hw_state reached;
    enum hw_status status;
    sqlite3 *db = NULL;
    char message[256];

    sim_file_remove(w->sim, "/out.db");
    sim_file_remove(w->sim, "/out.db-wal");
    sim_file_remove(w->sim, "/out.db-shm");
    w->totals.restores++;
    status = hw_restore(sim_env(w->sim), sim_vfs(w->sim), core, target, "/out.db", false, NULL,
                        NULL, &reached, err);
    if (status != HW_OK)
        return status;
    if (sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(w->sim)->zName) !=
            SQLITE_OK ||
        !sim_fingerprint(db, fingerprint, message))
        random_fail(w, "what was restored does not open: %s", sqlite3_errmsg(db));
    (void)sqlite3_close(db); /* no statement is left */
    return HW_OK;
}

static unsigned count_gaps(struct hw_core *core)
{
    struct hw_entry_summary entry;
    struct hw_error err;
    unsigned count = 0;
    uint64_t seq = hw_core_first_kept(core);

    for (;;) {
        enum hw_status status = hw_entry_next(core, &seq, &entry, &err);

        if (status == HW_OK)
            count += entry.header.type == HW_ENTRY_GAP;
        else if (status != HW_EPRUNED)
            return count;
    }
}

static void check_log(struct random_world *w)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_core *core = open_log(w);
    struct hw_error err = {0};
    uint64_t restored = 0;
    unsigned gaps;

    if (core == NULL)
        return;
    if (hw_core_length(core) < w->announced)
        random_fail(w, "the log has %llu blocks, %llu were announced",
                    (unsigned long long)hw_core_length(core), (unsigned long long)w->announced);
    if (hw_core_verify(core, NULL, NULL, &err) != HW_OK)
        random_fail(w, "verify: %s", err.message);
    else if (hw_verify_deep(sim_env(w->sim), core, NULL, NULL, &err) != HW_OK)
        random_fail(w, "verify deep: %s", err.message);
    else if (restore(w, core, &head, &restored, &err) != HW_OK)
        random_fail(w, "restore of the head: %s", err.message);
    else if (restored != w->states[w->count].fingerprint)
        random_fail(w, "the restored head is not the database, but state %d of %u",
                    random_find_state(w, restored, 0), w->count);
    gaps = count_gaps(core);
    if (gaps > 0 && !w->may_have_gaps)
        random_fail(w, "%u gaps that nothing explains", gaps);
    w->totals.gaps += gaps;
    hw_core_close(core);
}

/* May a state of this seq not be there any more? */
static bool may_be_gone(struct random_world *w, uint64_t seq, enum hw_status status,
                        const struct hw_error *err)
{
    if (status == HW_EPRUNED)
        return seq < w->pruned_below;
    if (status == HW_EFORK)
        return w->may_have_gaps;
    return status == HW_ENOTFOUND && strstr(err->message, "before the first state") != NULL;
}

void random_check_restore(struct random_world *w)
{
    struct hw_core *core;

    if (w->count == 0)
        return;
    core = open_log(w);
    for (unsigned tries = 0; tries < 3 && core != NULL; tries++) {
        unsigned index = (unsigned)random_chance(w, w->count + 1);
        struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = w->states[index].seq};
        struct hw_error err = {0};
        uint64_t restored = 0;
        enum hw_status status;

        if (target.seq == UINT64_MAX)
            continue;
        status = restore(w, core, &target, &restored, &err);
        if (status == HW_OK && restored != w->states[index].fingerprint)
            random_fail(w, "seq %llu restores to state %d, not %u", (unsigned long long)target.seq,
                        random_find_state(w, restored, 0), index);
        else if (status != HW_OK && !may_be_gone(w, target.seq, status, &err))
            random_fail(w, "restore of seq %llu: %s", (unsigned long long)target.seq, err.message);
    }
    hw_core_close(core);
}

/* ------------------------------------------------------------------------- a restored file */

#define KEPT "/kept.db" /* replaced again and again; whole at any time */

static void check_kept(struct random_world *w)
{
    sqlite3 *db = NULL;
    uint64_t fingerprint = 0;
    char message[256] = "";

    if (!sim_file_exists(w->sim, KEPT))
        return;
    random_act_as(w, CHECKER);
    if (sqlite3_open_v2(KEPT, &db, SQLITE_OPEN_READWRITE, sim_vfs(w->sim)->zName) != SQLITE_OK ||
        !sim_fingerprint(db, &fingerprint, message))
        random_fail(w, "a restored file cannot be read: %s", message);
    else if (random_find_state(w, fingerprint, 0) < 0)
        random_fail(w, "a restored file has a state that never was");
    (void)sqlite3_close(db); /* no statement is left */
}

void random_restore(struct random_world *w)
{
    unsigned index = (unsigned)random_chance(w, w->count + 1);
    struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = w->states[index].seq};
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    struct hw_state reached;
    enum hw_status status;

    if (w->announced == 0 || target.seq == UINT64_MAX || target.seq >= w->announced)
        return;
    random_act_as(w, RANDOM_FOLLOWER);
    status =
        hw_core_open(sim_env(w->sim), "/app.db-hyper", HW_CORE_READ, w->announced, &core, &err);
    if (status == HW_OK) {
        w->totals.restores++;
        status = hw_restore(sim_env(w->sim), sim_vfs(w->sim), core, &target, KEPT, true, NULL, NULL,
                            &reached, &err);
    }
    hw_core_close(core);
    if (random_is_down(w) || status == HW_OK)
        return;
    if (status != HW_EPRUNED && !may_be_gone(w, target.seq, status, &err) && status != HW_ENOTFOUND)
        random_fail(w, "restore of seq %llu: %s", (unsigned long long)target.seq, err.message);
}

/* ---------------------------------------------------------------------------------- all */

void random_check(struct random_world *w)
{
    struct random_connection *connection;

    w->totals.checks++;
    if (hw_capture_count() != 0)
        random_fail(w, "a capture was left open");
    if (sim_open_handles(w->sim) != 0)
        random_fail(w, "%u files were left open", sim_open_handles(w->sim));
    if (random_chance(w, 3) == 0 && !w->has_savepoints)
        crash_in_recovery(w);
    if (w->failure[0] != '\0')
        return;
    connection = recover(w);
    if (connection == NULL || random_has_ended(w))
        return;
    w->lost_power = false;
    check_integrity(w, connection->db);
    random_wait_logged(w, connection);
    for (unsigned process = 0; process < RANDOM_PROCESSES; process++)
        random_close_process(w, process);
    if (w->count > 0 && w->failure[0] == '\0')
        check_log(w);
    check_kept(w);
    if (sim_violation(w->sim) != NULL)
        random_fail(w, "%s", sim_violation(w->sim));
}
