/*
 * The sidecar of `hyperwal serve` (replicator/sidecar.c) over the simulated disk: strangers with
 * stock SQLite write, checkpoint in all modes and read for long, between any two steps of the
 * sidecar; its time with the write lock is over at any moment; processes and the machine die.
 *
 * Instead of replicator/hold.c there is a hold here that a seed ends; time is the simulator's.
 * What must come out: as long as the sidecar has its marks nothing that was committed is missing in
 * the log, so there is no gap, whatever the strangers do; and the log's last state is the database.
 *
 *      process 0   the server: sidecar and, mostly, worker
 *      process 1   in some scenarios: a program with the VFS, whose worker is at work
 *      process 2   strangers
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "../replicator/hold.h"
#include "../replicator/report.h"
#include "../replicator/sidecar.h"
#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { LOG_MS = 10000 };
enum { SERVER, WORKER, STRANGER, CHECKER, STRANGERS = 3 };

static struct world {
    struct sim *sim;
    uint64_t chance;
    char failure[400];
    sqlite3 *db;      /* the server's; NULL: it does not run */
    sqlite3 *through; /* of process 1; NULL: it is not there */
    struct sidecar sidecar;
    sqlite3 *strangers[STRANGERS];
    unsigned process; /* that acts now */
    unsigned count;   /* rows that were acknowledged: 1 to count */
    bool has_pending; /* the next one may be there, too: its writer died */
    /*
     * A writer died between its commit frame and the wal-index: nobody saw the transaction, and it
     * is there when the index is made anew, unless somebody has written since.
     */
    bool has_ghost;
    bool may_have_gap; /* a stranger acted while nobody protected the log */
    bool is_inside;    /* a stranger acts: not again inside of itself */
    bool is_moving;    /* the same of the sidecar */
    uint64_t moves, holds, rounds, commits, deaths, gaps;
} w;

static uint64_t chance(uint64_t bound)
{
    uint64_t z = w.chance += 0x9e3779b97f4a7c15U; /* as in sim_world.c */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return (z ^ (z >> 31)) % bound;
}

static void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void wrong(const char *format, ...)
{
    va_list arguments;

    if (w.failure[0] != '\0')
        return;
    va_start(arguments, format);
    (void)vsnprintf(w.failure, sizeof(w.failure), format, arguments);
    va_end(arguments);
}

static void act_as(unsigned process)
{
    w.process = process;
    sim_set_process(w.sim, process);
}

static bool is_dead(unsigned process)
{
    return sim_has_crashed(w.sim) || sim_is_killed(w.sim, process);
}

/* ----------------------------------------------------------------------------- strangers */

static bool is_protected(void)
{
    return w.db != NULL && !is_dead(SERVER) && (w.sidecar.holds || w.sidecar.frames > 0);
}

static sqlite3 *open_as(unsigned process, const char *vfs)
{
    char text[96];
    sqlite3 *db = NULL;

    act_as(process);
    (void)snprintf(text, sizeof(text), "file:/app.db?vfs=%s", vfs);
    if (sqlite3_open_v2(text, &db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI |
                            SQLITE_OPEN_PRIVATECACHE,
                        NULL) == SQLITE_OK)
        return db;
    (void)sqlite3_close(db); /* a failed open leaves an object to be closed */
    return NULL;
}

static void stranger_open(sqlite3 **db)
{
    char text[96];

    *db = open_as(STRANGER, sim_vfs(w.sim)->zName);
    if (*db == NULL)
        return;
    (void)snprintf(text, sizeof(text), "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=%u",
                   (unsigned)chance(3) == 0 ? 1000U : 1 + (unsigned)chance(30));
    (void)sqlite3_exec(*db, text, NULL, NULL, NULL);
    (void)sqlite3_busy_timeout(*db, chance(2) == 0 ? 0 : 200);
}

/* Rows are numbered by one, so that a state that never was is seen in any copy. */
static void stranger_commit(sqlite3 *db)
{
    char text[200];
    int code;

    if (w.has_pending || sqlite3_get_autocommit(db) == 0)
        return;
    (void)snprintf(text, sizeof(text),
                   "BEGIN IMMEDIATE; INSERT INTO t VALUES(%u, randomblob(%u));"
                   "UPDATE t SET b = randomblob(20) WHERE a = %u; COMMIT",
                   w.count + 1, 1 + (unsigned)chance(chance(8) == 0 ? 30000 : 900),
                   1 + (unsigned)chance(w.count + 1));
    code = sqlite3_exec(db, text, NULL, NULL, NULL);
    if (code == SQLITE_OK && !is_dead(STRANGER)) {
        w.count++;
        w.commits++;
        w.has_ghost = false;
        return;
    }
    w.has_pending = is_dead(STRANGER);
    if (code == SQLITE_CONSTRAINT && w.has_ghost) {
        w.count++;
        w.has_ghost = false;
    } else if (!w.has_pending && code != SQLITE_BUSY) {
        wrong("a stranger cannot commit: %s", sqlite3_errmsg(db));
    }
    if (sqlite3_get_autocommit(db) == 0)
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

static void stranger_read(sqlite3 *db)
{
    if (sqlite3_get_autocommit(db) == 0)
        (void)sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    else
        (void)sqlite3_exec(db, "BEGIN; SELECT count(*) FROM t", NULL, NULL, NULL);
}

static void stranger_act(void)
{
    sqlite3 **db = &w.strangers[chance(STRANGERS)];
    unsigned before = w.process;

    if (is_dead(STRANGER) || w.is_inside)
        return;
    w.is_inside = true;
    w.may_have_gap = w.may_have_gap || !is_protected();
    act_as(STRANGER);
    if (*db == NULL) {
        stranger_open(db);
    } else if (chance(20) == 0) {
        (void)sqlite3_close(*db);
        *db = NULL;
    } else if (chance(6) == 0) {
        (void)sqlite3_wal_checkpoint_v2(*db, NULL, (int)chance(4), NULL, NULL);
    } else if (db == &w.strangers[0]) {
        stranger_read(*db);
    } else {
        stranger_commit(*db);
    }
    if (!is_protected() && !sim_has_crashed(w.sim))
        w.may_have_gap = true; /* the server died while the stranger waited, and was at work */
    act_as(before);
    w.is_inside = false;
}

/* Between two steps of the server. */
static void others_act(void)
{
    if (is_protected() && w.failure[0] == '\0')
        for (uint64_t i = chance(4); i > 0; i--)
            stranger_act();
}

/* ---------------------------------------------------- what the sidecar has of the program */

double seconds_now(void)
{
    struct hw_env *env = sim_env(w.sim);

    return (double)env->ops->monotonic_ns(env) * 1e-9;
}

void hold_nap(void)
{
    sim_advance(w.sim, 500000);
    others_act();
}

static struct hold *current; /* while there is one */

static void hold_over(struct hold *hold)
{
    if (hold->state == HOLD_HELD)
        (void)sqlite3_exec(hold->writer, "ROLLBACK", NULL, NULL, NULL);
    hold->state = HOLD_OVER;
}

static void hold_passes(struct hold *hold)
{
    if (hold->state == HOLD_HELD && chance(12) == 0)
        hold_over(hold);
    others_act();
}

int hold_begin(struct hold *hold, sqlite3 *writer, double limit)
{
    int code;

    others_act();
    *hold = (struct hold){.writer = writer, .limit = limit};
    code = sqlite3_exec(writer, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return code;
    hold->state = HOLD_HELD;
    current = hold;
    w.holds++;
    hold_passes(hold);
    return SQLITE_OK;
}

bool hold_is_held(struct hold *hold)
{
    hold_passes(hold);
    return hold->state == HOLD_HELD;
}

unsigned hold_left_ms(struct hold *hold)
{
    hold_passes(hold);
    return hold->state == HOLD_HELD ? 5 : 0;
}

double hold_end(struct hold *hold)
{
    hold_passes(hold);
    hold_over(hold);
    current = NULL;
    sim_advance(w.sim, 5000000);
    return 0.005;
}

/* A statement of the sidecar is about to run. */
static int statement_begins(unsigned mask, void *ctx, void *p, void *x)
{
    (void)mask;
    (void)ctx;
    (void)p;
    (void)x;
    if (w.process == SERVER && current != NULL)
        hold_passes(current);
    else if (w.process == SERVER)
        others_act();
    return 0;
}

/* The worker of process 1. */
static void worker_act(void)
{
    unsigned before = w.process;
    struct hw_capture *capture = NULL;
    struct hw_error err;
    uint64_t deadline;

    if (w.through == NULL || is_dead(WORKER))
        return;
    act_as(WORKER);
    if (sqlite3_file_control(w.through, "main", HW_FCNTL_CAPTURE, &capture) == SQLITE_OK &&
        capture != NULL && hw_capture_step(capture, &deadline, &err) < 0)
        capture = NULL; /* it may be dying */
    act_as(before);
}

static void move(void)
{
    if (w.is_moving)
        return;
    w.is_moving = true;
    sidecar_wake(&w.sidecar);
    (void)sidecar_move(&w.sidecar, w.db); /* the old mark stands, or it is dead */
    w.is_moving = false;
}

/* Somebody waits: the others go on. */
static void idle(void *ctx)
{
    unsigned before = w.process;

    (void)ctx;
    if (before == STRANGER && is_protected()) {
        act_as(SERVER);
        move();
    } else if (before == SERVER) {
        others_act();
    }
    worker_act();
    act_as(before);
}

/* -------------------------------------------------------------------------------- server */

static void server_close(void)
{
    if (w.db == NULL)
        return;
    act_as(SERVER);
    w.sidecar.hold_count = 0; /* which it would tell */
    sidecar_close(&w.sidecar);
    (void)sqlite3_close_v2(w.db);
    w.db = NULL;
    current = NULL;
}

static bool server_open(void)
{
    const char *stock = sim_vfs(w.sim)->zName;
    uint64_t seq;

    w.db = open_as(SERVER, "hwside0");
    if (w.db == NULL)
        return false;
    w.sidecar = (struct sidecar){.lock = -1, .has_lock = true, .is_due = true, .settle_ms = 20};
    w.sidecar.limit = (double)(4096 << chance(5));
    w.sidecar.marks[0] = open_as(SERVER, "hwside0");
    w.sidecar.marks[1] = open_as(SERVER, "hwside0");
    (void)sqlite3_exec(w.db, "PRAGMA journal_mode=WAL; SELECT count(*) FROM sqlite_schema", NULL,
                       NULL, NULL);
    w.sidecar.copier = open_as(SERVER, stock);
    w.sidecar.writer = open_as(SERVER, stock);
    for (int i = 0; i < 2; i++)
        (void)sqlite3_trace_v2(w.sidecar.marks[i], SQLITE_TRACE_STMT, statement_begins, NULL);
    (void)sqlite3_exec(w.sidecar.copier, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    (void)hyperwal_seq(w.db, NULL, &seq); /* or the first mark is later */
    for (int i = 0; i < 50 && !is_protected() && !is_dead(SERVER); i++) {
        sim_advance(w.sim, 100000000);
        worker_act();
        move();
    }
    if (!is_protected() && !is_dead(SERVER)) {
        char *json = NULL;

        (void)hyperwal_status(w.db, NULL, &json);
        wrong("the server does not get its first mark: %s", json);
        sqlite3_free(json);
    }
    return !is_dead(SERVER);
}

static void server_act(void)
{
    unsigned frames = 0;
    hyperwal_wal wal;

    if (w.db == NULL || is_dead(SERVER))
        return;
    act_as(SERVER);
    if (hyperwal_wal_look(w.db, NULL, &wal) == SQLITE_OK)
        frames = wal.frames;
    sim_advance(w.sim, chance(10) * 20000000);
    (void)hyperwal_look(w.db, NULL);
    move();
    w.moves++;
    if (hyperwal_wal_look(w.db, NULL, &wal) == SQLITE_OK && wal.frames < frames)
        w.rounds++;
}

/* ---------------------------------------------------------------------------------- check */

static unsigned rows_of(sqlite3 *db, unsigned *greatest)
{
    sqlite3_stmt *statement = NULL;
    unsigned count = 0;

    *greatest = 1; /* and no rows: wrong */
    if (sqlite3_prepare_v2(db, "SELECT count(*), coalesce(max(a), 0) FROM t", -1, &statement,
                           NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        count = (unsigned)sqlite3_column_int(statement, 0);
        *greatest = (unsigned)sqlite3_column_int(statement, 1);
    }
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    return count;
}

/* What is in the database is what was acknowledged, and at most one more. */
static void check_rows(sqlite3 *db)
{
    unsigned greatest, count = rows_of(db, &greatest);

    if (count != greatest || count < w.count || count > w.count + (w.has_pending || w.has_ghost))
        wrong("%u rows up to %u, %u acknowledged (%s)", count, greatest, w.count,
              sqlite3_errmsg(db));
    w.has_ghost = count == w.count && (w.has_pending || w.has_ghost);
    w.count = count;
    w.has_pending = false;
}

static bool restore(struct hw_core *core, const struct hw_target *target, uint64_t *fingerprint)
{
    struct hw_state reached;
    struct hw_error err = {0};
    unsigned greatest;
    sqlite3 *db = NULL;
    char message[256] = "";
    enum hw_status status;

    sim_file_remove(w.sim, "/out.db");
    status = hw_restore(sim_env(w.sim), sim_vfs(w.sim), core, target, "/out.db", false, NULL, NULL,
                        &reached, &err);
    if (status == HW_EFORK || status == HW_ENOTFOUND)
        return false; /* in a gap, or before the first snapshot */
    if (status != HW_OK ||
        sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(w.sim)->zName) != SQLITE_OK ||
        !sim_fingerprint(db, fingerprint, message))
        wrong("restore: %s %s", err.message, message);
    else if (rows_of(db, &greatest) != greatest)
        wrong("a state of the log has a row that is not the next one");
    (void)sqlite3_close(db); /* no statement is left */
    return status == HW_OK;
}

static void check_entries(struct hw_core *core)
{
    struct hw_entry_summary entry;
    struct hw_error err;
    uint64_t seq = 0, fingerprint;

    while (hw_entry_next(core, &seq, &entry, &err) == HW_OK) {
        struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = seq - 1};

        w.gaps += entry.header.type == HW_ENTRY_GAP;
        if (entry.header.type == HW_ENTRY_GAP && !w.may_have_gap)
            wrong("a gap although the server had its marks");
        if (entry.header.type == HW_ENTRY_TRANSACTION && chance(30) == 0)
            (void)restore(core, &target, &fingerprint);
    }
}

static void check_log(uint64_t fingerprint)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_core *core = NULL;
    struct hw_error err = {0};
    uint64_t restored = 0;

    act_as(CHECKER);
    if (hw_core_open(sim_env(w.sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) !=
        HW_OK) {
        wrong("the log: %s", err.message);
        return;
    }
    if (hw_verify_deep(sim_env(w.sim), core, NULL, NULL, &err) != HW_OK)
        wrong("verify: %s", err.message);
    else if (!restore(core, &head, &restored))
        wrong("the head is not restored");
    else if (restored != fingerprint)
        wrong("the log's last state is not the database");
    check_entries(core);
    hw_core_close(core);
}

/* Somebody died, or it is the end; the server runs and nobody writes. */
static void check(bool with_log)
{
    uint64_t fingerprint = 0, seq;
    char message[256] = "";

    act_as(SERVER);
    check_rows(w.db);
    if (!with_log || w.failure[0] != '\0')
        return;
    for (int i = 0; i < STRANGERS; i++) {
        act_as(STRANGER);
        (void)sqlite3_close(w.strangers[i]);
        w.strangers[i] = NULL;
    }
    act_as(SERVER);
    /* What the server planted meanwhile may not be in the log when the snapshot is. */
    if (hyperwal_snapshot(w.db, NULL, &seq) != SQLITE_OK ||
        hyperwal_wait(w.db, NULL, 0, LOG_MS) != SQLITE_OK ||
        !sim_fingerprint(w.db, &fingerprint, message))
        wrong("the end is not logged: %s %s", sqlite3_errmsg(w.db), message);
    else
        check_log(fingerprint);
}

/* ------------------------------------------------------------------------------- scenario */

static void all_close(void)
{
    server_close();
    for (int i = 0; i < STRANGERS; i++) {
        act_as(STRANGER);
        (void)sqlite3_close(w.strangers[i]);
        w.strangers[i] = NULL;
    }
    act_as(WORKER);
    (void)sqlite3_close(w.through);
    w.through = NULL;
}

static void arm(void)
{
    static const char *const paths[] = {NULL, NULL, "app.db-wal", "app.db-hyper", "app.db"};
    struct sim_fault fault = {
        .kind = chance(3) == 0 ? SIM_CRASH : SIM_KILL,
        .path = paths[chance(5)],
        .at = 1 + chance(1U << chance(11)),
    };

    sim_set_fault(w.sim, &fault);
}

/* Who is dead is closed, and the server is there again before anybody does something. */
static void bury(void)
{
    bool is_crash = sim_has_crashed(w.sim), server_died = is_dead(SERVER);

    w.deaths++;
    sim_set_fault(w.sim, NULL);
    if (is_crash) {
        all_close();
        sim_crash(w.sim, (enum sim_crash_mode)chance(SIM_CRASH_MODES));
    } else if (server_died) {
        server_close();
        sim_kill(w.sim, SERVER);
    } else if (is_dead(STRANGER)) {
        for (int i = 0; i < STRANGERS; i++) {
            act_as(STRANGER);
            (void)sqlite3_close(w.strangers[i]);
            w.strangers[i] = NULL;
        }
        sim_kill(w.sim, STRANGER);
    } else {
        act_as(WORKER);
        (void)sqlite3_close(w.through);
        w.through = NULL;
        sim_kill(w.sim, WORKER);
    }
    if (w.db == NULL && chance(6) == 0 && !is_crash)
        for (uint64_t i = chance(6); i > 0; i--)
            stranger_act(); /* nobody protects the log meanwhile */
    if (w.db == NULL && !server_open())
        wrong("the server does not come back: %s", hw_vfs_last_error());
    if (w.failure[0] == '\0')
        check(false);
}

static void work(void)
{
    unsigned steps = 20 + (unsigned)chance(120);

    for (unsigned i = 0; i < steps && w.failure[0] == '\0'; i++) {
        if (chance(25) == 0)
            arm();
        if (chance(8) == 0)
            worker_act();
        if (chance(3) == 0)
            server_act();
        else
            stranger_act();
        if (is_dead(SERVER) || is_dead(STRANGER) || is_dead(WORKER))
            bury();
    }
    sim_set_fault(w.sim, NULL);
}

static void begin(uint64_t seed)
{
    char text[160];

    sim_reset(w.sim, seed);
    sim_set_idle(w.sim, idle, NULL);
    w = (struct world){.sim = w.sim,
                       .chance = seed * 0x2545f4914f6cdd1dU,
                       .moves = w.moves,
                       .holds = w.holds,
                       .rounds = w.rounds,
                       .commits = w.commits,
                       .deaths = w.deaths,
                       .gaps = w.gaps};
    stranger_open(&w.strangers[1]);
    (void)snprintf(text, sizeof(text),
                   "PRAGMA page_size=%u; PRAGMA journal_mode=WAL;"
                   "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)",
                   512U << chance(4));
    if (sqlite3_exec(w.strangers[1], text, NULL, NULL, NULL) != SQLITE_OK)
        wrong("no database");
}

static void run(uint64_t seed)
{
    begin(seed);
    if (chance(4) == 0) {
        w.through = open_as(WORKER, "hwside1");
        (void)sqlite3_exec(w.through, "SELECT count(*) FROM t", NULL, NULL, NULL);
    }
    if (!server_open())
        wrong("the server does not start: %s", hw_vfs_last_error());
    work();
    if (w.failure[0] == '\0')
        check(true);
    all_close();
    if (w.failure[0] == '\0' && (hw_capture_count() != 0 || sim_open_handles(w.sim) != 0))
        wrong("something was left open");
    if (w.failure[0] == '\0' && sim_violation(w.sim) != NULL)
        wrong("%s", sim_violation(w.sim));
}

static void nothing_is_missing_in_the_log_whatever_strangers_do(void **state)
{
    const char *seed_text = getenv("HYPERWAL_SEED"), *runs_text = getenv("HYPERWAL_RUNS");
    uint64_t first = seed_text == NULL ? 1 : strtoull(seed_text, NULL, 0);
    uint64_t runs = runs_text == NULL ? 150 : strtoull(runs_text, NULL, 0);

    (void)state;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        run(seed);
        if (w.failure[0] != '\0')
            fail_msg("seed %llu: %s\nagain: HYPERWAL_RUNS=1 HYPERWAL_SEED=%llu "
                     "test_sidecar_random",
                     (unsigned long long)seed, w.failure, (unsigned long long)seed);
    }
    print_message("%llu moves, %llu holds, %llu rounds, %llu commits, %llu deaths, %llu gaps\n",
                  (unsigned long long)w.moves, (unsigned long long)w.holds,
                  (unsigned long long)w.rounds, (unsigned long long)w.commits,
                  (unsigned long long)w.deaths, (unsigned long long)w.gaps);
    assert_true(runs < 100 || (w.holds > runs && w.rounds > 0 && w.deaths > 0));
}

static int setup(void **state)
{
    (void)state;
    w.sim = sim_new(1);
    for (unsigned process = 0; process < 2; process++) {
        char name[16];
        struct hw_vfs_options options = {
            .name = name, .base = sim_vfs(w.sim), .env = sim_env(w.sim)};

        (void)snprintf(name, sizeof(name), "hwside%u", process);
        if (hw_vfs_register(&options, NULL) != HW_OK)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hw_vfs_unregister("hwside0");
    hw_vfs_unregister("hwside1");
    sim_free(w.sim);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_missing_in_the_log_whatever_strangers_do),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
