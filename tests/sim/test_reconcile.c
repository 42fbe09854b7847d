/*
 * What happened while nobody looked, and what users ask for, on one disk that can fail: older files
 * put back, foreign writers, files of the log's directory lost or damaged, a copied log; labels,
 * snapshots, pruning and the past.
 *
 * The oracle is SQLite: the fingerprint of the database at each seq, noted when it was current.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "apply/apply.h"
#include "capture/capture.h"
#include "hypercore/hypercore.h"
#include "sim/sim.h"
#include "vfs/vfs.h"

enum { STATES = 64 };

struct noted {
    uint64_t seq, fingerprint;
};

struct world {
    struct sim *sim;
    struct noted states[STATES];
    size_t state_count;
    bool restorable; /* all states were; a failure may keep the first snapshot away for a while */
    bool labelled;   /* label "here" was acknowledged, at this state: */
    uint64_t label_fingerprint;
    uint8_t *old_file; /* owned: bytes of an older database */
    size_t old_size;
};

static struct world world;

static int setup(void **state)
{
    struct hw_vfs_options options = {.name = "hwsim"};

    (void)state;
    world = (struct world){.sim = sim_new(0)};
    options.base = sim_vfs(world.sim);
    options.env = sim_env(world.sim);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    return 0;
}

static int teardown(void **state)
{
    unsigned open = sim_open_handles(world.sim);

    (void)state;
    free(world.old_file);
    hw_vfs_unregister("hwsim");
    sim_free(world.sim);
    return open == 0 ? 0 : -1;
}

static sqlite3 *open_uri(const char *uri)
{
    sqlite3 *db = NULL;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;

    if (sqlite3_open_v2(uri, &db, flags, NULL) == SQLITE_OK)
        return db;
    (void)sqlite3_close(db); /* a failed open leaves an object that holds nothing */
    return NULL;
}

static sqlite3 *open_database(void)
{
    sqlite3 *db = open_uri("file:/app.db?vfs=hwsim");

    if (db != NULL)
        (void)sqlite3_exec(db, "PRAGMA synchronous=FULL", NULL, NULL, NULL);
    return db;
}

static sqlite3 *open_stock(void)
{
    char uri[64];

    (void)snprintf(uri, sizeof(uri), "file:/app.db?vfs=%s", sim_vfs(world.sim)->zName);
    return open_uri(uri);
}

static bool execute(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Through the PRAGMA: it waits until this connection's last commit is in the log; -1: none is. */
static bool wait_logged(sqlite3 *db, uint64_t *seq)
{
    sqlite3_stmt *statement = NULL;
    sqlite3_int64 answer = -1;

    if (sqlite3_prepare_v2(db, "PRAGMA hyperwal_seq", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        answer = sqlite3_column_int64(statement, 0);
    else
        hw_env_log(sim_env(world.sim), HW_LOG_WARN, "test: not logged: %s", sqlite3_errmsg(db));
    (void)sqlite3_finalize(statement); /* repeats the error of the step */
    *seq = (uint64_t)answer;
    return answer >= 0;
}

static bool fingerprint_of(sqlite3 *db, uint64_t *fingerprint)
{
    char message[256];

    return sim_fingerprint(db, fingerprint, message);
}

/* A commit, and what the database is after it. */
static bool commit(sqlite3 *db, const char *sql)
{
    struct noted noted;

    if (!execute(db, sql) || !wait_logged(db, &noted.seq) ||
        !fingerprint_of(db, &noted.fingerprint) || world.state_count == STATES)
        return false;
    world.states[world.state_count++] = noted;
    return true;
}

static bool commit_some(sqlite3 *db, int first, int count)
{
    char sql[128];

    for (int i = first; i < first + count; i++) {
        (void)snprintf(sql, sizeof(sql), "INSERT INTO t VALUES(%d, randomblob(%d))", i,
                       i % 3 == 0 ? 9000 : 300);
        if (!commit(db, sql))
            return false;
    }
    return true;
}

static const char *create_table = "CREATE TABLE t(a INTEGER PRIMARY KEY, b)";

/* ------------------------------------------------------------------------------- the log */

static struct hw_core *open_log(void)
{
    struct hw_core *core = NULL;
    struct hw_error err = {0};

    if (hw_core_open(sim_env(world.sim), "/app.db-hyper", HW_CORE_READ, UINT64_MAX, &core, &err) !=
        HW_OK)
        fail_msg("log: %s", err.message);
    return core;
}

static uint64_t restore(struct hw_core *core, const struct hw_target *target)
{
    struct hw_error err = {0};
    struct hw_state reached;
    uint64_t fingerprint = 0;
    sqlite3 *db = NULL;

    sim_file_remove(world.sim, "/out.db");
    if (hw_restore(sim_env(world.sim), sim_vfs(world.sim), core, target, "/out.db", false, NULL,
                   NULL, &reached, &err) != HW_OK)
        fail_msg("restore: %s", err.message);
    assert_int_equal(
        sqlite3_open_v2("/out.db", &db, SQLITE_OPEN_READONLY, sim_vfs(world.sim)->zName),
        SQLITE_OK);
    assert_true(fingerprint_of(db, &fingerprint));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return fingerprint;
}

static uint64_t restore_seq(struct hw_core *core, uint64_t seq)
{
    struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = seq};

    return restore(core, &target);
}

/* A state before the first snapshot is complete cannot be restored, and says so. */
static bool is_before_the_first(struct hw_core *core, const struct hw_target *target)
{
    struct hw_error err = {0};
    struct hw_state state;

    return hw_state_resolve(core, target, &state, &err) == HW_ENOTFOUND &&
           strstr(err.message, "before the first state") != NULL;
}

static int count_entries(struct hw_core *core, enum hw_entry_type type)
{
    struct hw_entry_summary entry;
    uint64_t seq = 0;
    int count = 0;

    while (hw_entry_next(core, &seq, &entry, NULL) == HW_OK)
        count += entry.header.type == type;
    return count;
}

/* The log verifies, its head is the database, and `gaps` says how often they had to be rejoined. */
static void check_agreement(int gaps)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_error err = {0};
    uint64_t fingerprint = 0, seq = 0;
    struct hw_core *core;
    sqlite3 *db;

    assert_int_equal(hw_capture_count(), 0); /* whatever failed, nothing was left open */
    db = open_database();
    assert_non_null(db);
    assert_true(wait_logged(db, &seq));
    assert_true(fingerprint_of(db, &fingerprint));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    core = open_log();
    if (hw_core_verify(core, NULL, NULL, &err) != HW_OK ||
        hw_verify_deep(sim_env(world.sim), core, NULL, NULL, &err) != HW_OK)
        fail_msg("verify: %s", err.message);
    assert_true(restore(core, &head) == fingerprint);
    if (gaps >= 0)
        assert_int_equal(count_entries(core, HW_ENTRY_GAP), gaps);
    hw_core_close(core);
    if (sim_violation(world.sim) != NULL)
        fail_msg("%s", sim_violation(world.sim));
}

/* ----------------------------------------------------------------------- the older file */

static void keep_old_file(void)
{
    const uint8_t *bytes = sim_file_bytes(world.sim, "/app.db", &world.old_size);

    free(world.old_file);
    world.old_file = malloc(world.old_size);
    assert_non_null(world.old_file);
    memcpy(world.old_file, bytes, world.old_size);
}

/* A log of three states, then of six, and the file of the third put back. */
static void put_old_file_back(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();

    (void)ctx;
    world.state_count = 0;
    assert_non_null(db);
    assert_true(commit(db, create_table) && commit_some(db, 1, 3));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_false(sim_file_exists(sim, "/app.db-wal"));
    keep_old_file();
    db = open_database();
    assert_non_null(db);
    assert_true(commit_some(db, 4, 3));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    sim_file_put(sim, "/app.db", world.old_file, world.old_size);
}

static void open_and_commit(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();
    uint64_t seq;

    (void)sim;
    (void)ctx;
    if (db == NULL)
        return;
    (void)wait_logged(db, &seq); /* may fail: check() looks at what is there */
    (void)sqlite3_close(db);     /* its checkpoint may fail: the WAL stays */
}

static void check_rolled_forward(struct sim *sim, void *ctx)
{
    const struct noted *last = &world.states[world.state_count - 1];
    struct hw_core *core;

    (void)sim;
    (void)ctx;
    check_agreement(0);
    core = open_log();
    for (size_t i = 0; i < world.state_count; i++)
        assert_true(restore_seq(core, world.states[i].seq) == world.states[i].fingerprint);
    assert_true(restore(core, &(struct hw_target){.kind = HW_TARGET_HEAD}) == last->fingerprint);
    hw_core_close(core);
}

static void an_older_file_is_rolled_forward_to_the_log(void **state)
{
    (void)state;
    put_old_file_back(world.sim, NULL);
    open_and_commit(world.sim, NULL);
    assert_true(sim_log_has(world.sim, "event=rolled_forward"));
    check_rolled_forward(world.sim, NULL);
}

static void an_older_file_is_rolled_forward_through_any_crash(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL,
        .prepare = put_old_file_back,
        .run = open_and_commit,
        .check = check_rolled_forward,
    };

    (void)state;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

static void an_older_file_is_rolled_forward_through_any_error(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_ENOMEM,
        .prepare = put_old_file_back,
        .run = open_and_commit,
        .check = check_rolled_forward,
    };

    (void)state;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

/* ---------------------------------------------------------------------- foreign writers */

static void make_log_of_three(void)
{
    sqlite3 *db = open_database();

    assert_non_null(db);
    assert_true(commit(db, create_table) && commit_some(db, 1, 3));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void a_foreign_change_of_the_file_is_a_gap_that_is_named(void **state)
{
    struct hw_core *core;
    sqlite3 *db;

    (void)state;
    make_log_of_three();
    db = open_stock();
    assert_true(execute(db, "INSERT INTO t VALUES(100, 'foreign')"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK); /* checkpoints, deletes the WAL */
    db = open_database();
    assert_true(execute(db, "PRAGMA hyperwal_snapshot")); /* from here on states can be restored */
    assert_true(commit_some(db, 4, 2));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_true(sim_log_has(world.sim, "event=gap"));
    check_agreement(1);
    core = open_log();
    for (size_t i = 0; i < world.state_count; i++)
        assert_true(restore_seq(core, world.states[i].seq) == world.states[i].fingerprint);
    hw_core_close(core);
}

static void foreign_commits_in_the_wal_are_logged_without_a_gap(void **state)
{
    sqlite3 *stock, *db;
    uint64_t seq;

    (void)state;
    make_log_of_three();
    sim_set_process(world.sim, 1);
    stock = open_stock();
    assert_true(execute(stock, "PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES(100, 'one');"
                               "INSERT INTO t VALUES(101, 'two')"));
    sim_kill(world.sim, 1);
    (void)sqlite3_close(stock);
    sim_set_process(world.sim, 0);
    db = open_database();
    assert_true(wait_logged(db, &seq));
    assert_true(seq > world.states[world.state_count - 1].seq);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    check_agreement(0);
}

static void another_database_in_its_place_is_not_taken_for_the_old_one(void **state)
{
    sqlite3 *db;

    (void)state;
    make_log_of_three();
    sim_file_remove(world.sim, "/app.db");
    db = open_stock();
    assert_true(execute(db, "PRAGMA journal_mode=WAL; CREATE TABLE other(x);"
                            "INSERT INTO other VALUES(randomblob(20000))"));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    check_agreement(1);
    assert_true(sim_log_has(world.sim, "event=gap"));
}

static void a_database_that_lost_power_while_closed_badly_agrees(void **state)
{
    struct sim_fault lost = {.kind = SIM_CRASH, .at = 1};

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        sqlite3 *db;

        sim_reset(world.sim, seed);
        world.state_count = 0;
        db = open_database();
        assert_true(commit(db, create_table) && commit_some(db, 1, 5));
        sim_set_fault(world.sim, &lost);
        (void)sqlite3_close(db); /* the dead close before the machine is up again */
        sim_set_fault(world.sim, NULL);
        sim_crash(world.sim, (enum sim_crash_mode)(seed % SIM_CRASH_MODES));
        check_rolled_forward(world.sim, NULL);
    }
}

/* -------------------------------------------------------- files of the log's directory */

struct names {
    char names[16][64];
    int count;
};

static bool keep_name(void *ctx, const char *name)
{
    struct names *names = ctx;

    if (names->count < 16)
        (void)snprintf(names->names[names->count++], 64, "/app.db-hyper/%s", name);
    return true;
}

static struct names list_log_dir(void)
{
    struct names names = {0};

    assert_int_equal(
        sim_env(world.sim)->ops->list(sim_env(world.sim), "/app.db-hyper", keep_name, &names, NULL),
        HW_OK);
    return names;
}

/* What only saves work: the log does without, and no gap appears. */
static bool is_cache(const char *path)
{
    return strstr(path, "/sums") != NULL || strstr(path, "/position") != NULL ||
           strstr(path, "/shared") != NULL || strstr(path, "/worker.lock") != NULL;
}

static void files_that_only_save_work_may_be_lost(void **state)
{
    struct names names;
    int tried = 0;

    (void)state;
    make_log_of_three();
    names = list_log_dir();
    for (int i = 0; i < names.count; i++) {
        if (!is_cache(names.names[i]))
            continue;
        tried++;
        sim_file_remove(world.sim, names.names[i]);
        check_agreement(0);
    }
    assert_true(tried >= 3);
}

static void files_that_only_save_work_may_be_damaged(void **state)
{
    struct names names;

    (void)state;
    make_log_of_three();
    names = list_log_dir();
    for (int i = 0; i < names.count; i++) {
        size_t size = 0;

        if (!is_cache(names.names[i]) || sim_file_bytes(world.sim, names.names[i], &size) == NULL ||
            size == 0)
            continue;
        for (size_t offset = 0; offset < size; offset += size / 7 + 1) {
            size_t now = 0;

            (void)sim_file_bytes(world.sim, names.names[i], &now);
            if (offset < now)
                sim_file_flip(world.sim, names.names[i], offset, 0x10);
            check_agreement(0);
        }
        sim_file_truncate(world.sim, names.names[i], size / 2);
        check_agreement(0);
    }
}

static uint64_t log_length(void)
{
    struct hw_core *core = open_log();
    uint64_t length = hw_core_length(core);

    hw_core_close(core);
    return length;
}

static void a_copied_log_signs_nothing_until_it_is_adopted(void **state)
{
    uint8_t key[512];
    const uint8_t *bytes;
    size_t size = 0;
    uint64_t before;
    sqlite3 *db;

    (void)state;
    make_log_of_three();
    before = log_length();
    bytes = sim_file_bytes(world.sim, "/app.db-hyper/key", &size);
    assert_true(bytes != NULL && size <= sizeof(key));
    memcpy(key, bytes, size);
    sim_file_remove(world.sim, "/app.db-hyper/key");
    {
        struct hw_env *env = sim_env(world.sim);

        assert_int_equal(
            hw_env_replace_file(env, "/app.db-hyper/key", key, size, HW_OPEN_PRIVATE, NULL),
            HW_OK); /* another inode: as after a copy */
    }
    db = open_database();
    if (db != NULL) {
        uint64_t seq;

        (void)execute(db, "INSERT INTO t VALUES(50, 'x')"); /* allowed or refused */
        assert_false(wait_logged(db, &seq));
        (void)sqlite3_close(db);
    }
    assert_int_equal(log_length(), before);
    assert_int_equal(hw_core_adopt(sim_env(world.sim), "/app.db-hyper", NULL), HW_OK);
    check_agreement(-1);
    assert_true(log_length() >= before);
}

static void a_log_whose_key_others_can_read_is_refused(void **state)
{
    uint8_t key[512];
    const uint8_t *bytes;
    size_t size = 0;
    uint64_t before;
    sqlite3 *db;

    (void)state;
    make_log_of_three();
    before = log_length();
    bytes = sim_file_bytes(world.sim, "/app.db-hyper/key", &size);
    assert_true(bytes != NULL && size <= sizeof(key));
    memcpy(key, bytes, size);
    sim_file_remove(world.sim, "/app.db-hyper/key");
    sim_file_put(world.sim, "/app.db-hyper/key", key, size); /* mode 0644 */
    db = open_database();
    if (db != NULL) {
        (void)execute(db, "INSERT INTO t VALUES(50, 'x')");
        (void)sqlite3_close(db);
    }
    assert_int_equal(log_length(), before);
}

/* ------------------------------------------------------- labels, snapshots, pruning, past */

static void commit_label_snapshot_prune(struct sim *sim, void *ctx)
{
    sqlite3 *db = open_database();
    uint64_t seq;

    (void)sim;
    (void)ctx;
    world.state_count = 0;
    world.labelled = false;
    world.restorable = true;
    if (db == NULL)
        return;
    if (!commit(db, create_table) || !commit_some(db, 1, 3) ||
        !fingerprint_of(db, &world.label_fingerprint))
        goto done;
    world.labelled = execute(db, "PRAGMA hyperwal_label='here'");
    if (!commit_some(db, 4, 3) || !execute(db, "DELETE FROM t WHERE a % 2; VACUUM") ||
        !wait_logged(db, &seq))
        goto done;
    if (execute(db, "PRAGMA hyperwal_snapshot"))
        (void)commit_some(db, 20, 3);
done:
    (void)sqlite3_close(db); /* its checkpoint may fail: the WAL stays */
}

static void check_label_and_states(struct sim *sim, void *ctx)
{
    struct hw_target label = {.kind = HW_TARGET_LABEL, .label = "here"};
    struct hw_core *core;
    size_t size = 0;

    (void)ctx;
    assert_int_equal(hw_capture_count(), 0);
    if (sim_file_bytes(sim, "/app.db", &size) == NULL || size == 0)
        return; /* nothing was ever committed */
    check_agreement(0);
    core = open_log();
    for (size_t i = 0; i < world.state_count; i++) {
        struct hw_target target = {.kind = HW_TARGET_SEQ, .seq = world.states[i].seq};

        if (is_before_the_first(core, &target))
            world.restorable = false;
        else if (restore(core, &target) != world.states[i].fingerprint)
            fail_msg("seq %llu is not what it was", (unsigned long long)target.seq);
    }
    if (world.labelled && !is_before_the_first(core, &label))
        assert_true(restore(core, &label) == world.label_fingerprint);
    hw_core_close(core);
}

static void labels_and_snapshots_keep_every_state_restorable(void **state)
{
    (void)state;
    commit_label_snapshot_prune(world.sim, NULL);
    assert_true(world.labelled);
    assert_int_equal(world.state_count, 10);
    check_label_and_states(world.sim, NULL);
    assert_true(world.restorable);
}

static void labels_and_snapshots_survive_any_crash(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_CRASH | SIM_KILL,
        .stride = 3,
        .run = commit_label_snapshot_prune,
        .check = check_label_and_states,
    };

    (void)state;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

static void labels_and_snapshots_survive_any_error(void **state)
{
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_ENOMEM,
        .stride = 2,
        .run = commit_label_snapshot_prune,
        .check = check_label_and_states,
    };

    (void)state;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 50);
}

static void the_past_is_what_it_was(void **state)
{
    char uri[128];

    (void)state;
    commit_label_snapshot_prune(world.sim, NULL);
    for (size_t i = 0; i < world.state_count; i++) {
        uint64_t fingerprint = 0;
        sqlite3 *db = NULL;

        (void)snprintf(uri, sizeof(uri), "file:/app.db?vfs=hwsim&seq=%llu",
                       (unsigned long long)world.states[i].seq);
        assert_int_equal(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL),
                         SQLITE_OK);
        if (!fingerprint_of(db, &fingerprint))
            fail_msg("%s: %s", uri, sqlite3_errmsg(db));
        assert_true(fingerprint == world.states[i].fingerprint);
        assert_false(execute(db, "INSERT INTO t VALUES(99, 1)"));
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
    }
}

static void read_the_past(struct sim *sim, void *ctx)
{
    const struct noted *noted = &world.states[world.state_count / 2];
    uint64_t fingerprint = 0;
    sqlite3 *db = NULL;
    char uri[128];

    (void)sim;
    (void)snprintf(uri, sizeof(uri), "file:/app.db?vfs=hwsim&seq=%llu",
                   (unsigned long long)noted->seq);
    if (sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL) == SQLITE_OK &&
        fingerprint_of(db, &fingerprint) && fingerprint != noted->fingerprint)
        *(bool *)ctx = true; /* an answer, and a wrong one */
    (void)sqlite3_close(db);
}

static void prepare_past(struct sim *sim, void *ctx)
{
    *(bool *)ctx = false;
    commit_label_snapshot_prune(sim, NULL);
}

static void check_no_wrong_answer(struct sim *sim, void *ctx)
{
    (void)sim;
    assert_false(*(bool *)ctx);
}

static void the_past_is_never_read_wrong(void **state)
{
    bool wrong = false;
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_SHORT_READ | SIM_BIT_FLIP | SIM_ENOMEM,
        .path = "-hyper", /* not the scratch file of pages already checked */
        .prepare = prepare_past,
        .run = read_the_past,
        .check = check_no_wrong_answer,
        .ctx = &wrong,
    };

    (void)state;
    assert_true(sim_for_each_fault(world.sim, &scenario) > 20);
}

static void pruned_states_are_gone_and_the_kept_ones_are_not(void **state)
{
    struct hw_capture *capture = NULL;
    struct hw_error err = {0};
    uint64_t freed = 0, seq = 0;
    struct hw_core *core;
    sqlite3 *db = open_database();

    (void)state;
    assert_true(commit(db, create_table) && commit_some(db, 1, 4));
    assert_true(execute(db, "PRAGMA hyperwal_snapshot") && commit_some(db, 5, 3));
    (void)sqlite3_file_control(db, "main", HW_FCNTL_CAPTURE, &capture);
    assert_non_null(capture);
    seq = world.states[6].seq;
    if (hw_capture_prune(capture, seq, false, 5000, &freed, &err) != HW_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    core = open_log();
    for (size_t i = 6; i < world.state_count; i++)
        assert_true(restore_seq(core, world.states[i].seq) == world.states[i].fingerprint);
    {
        struct hw_target first = {.kind = HW_TARGET_SEQ, .seq = world.states[1].seq};
        struct hw_state reached;

        sim_file_remove(world.sim, "/out.db");
        assert_int_equal(hw_restore(sim_env(world.sim), sim_vfs(world.sim), core, &first, "/out.db",
                                    false, NULL, NULL, &reached, &err),
                         HW_EPRUNED);
        assert_false(sim_file_exists(world.sim, "/out.db"));
    }
    hw_core_close(core);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_older_file_is_rolled_forward_to_the_log),
        TEST(an_older_file_is_rolled_forward_through_any_crash),
        TEST(an_older_file_is_rolled_forward_through_any_error),
        TEST(a_foreign_change_of_the_file_is_a_gap_that_is_named),
        TEST(foreign_commits_in_the_wal_are_logged_without_a_gap),
        TEST(another_database_in_its_place_is_not_taken_for_the_old_one),
        TEST(a_database_that_lost_power_while_closed_badly_agrees),
        TEST(files_that_only_save_work_may_be_lost),
        TEST(files_that_only_save_work_may_be_damaged),
        TEST(a_copied_log_signs_nothing_until_it_is_adopted),
        TEST(a_log_whose_key_others_can_read_is_refused),
        TEST(labels_and_snapshots_keep_every_state_restorable),
        TEST(labels_and_snapshots_survive_any_crash),
        TEST(labels_and_snapshots_survive_any_error),
        TEST(the_past_is_what_it_was),
        TEST(the_past_is_never_read_wrong),
        TEST(pruned_states_are_gone_and_the_kept_ones_are_not),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("reconcile", tests, NULL, NULL);
}
