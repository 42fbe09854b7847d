/* A replica on a real disk: the stock shell reads it from another process, followers are killed. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit/replica_fixture.h"

enum { STATES = 60 };

struct world {
    char *dir, *path, *log_dir;
    struct maker m;
    uint64_t states[STATES], lengths[STATES];
};

static int setup(void **state)
{
    static struct world w;
    const char *root = getenv("TMPDIR");

    memset(&w, 0, sizeof(w));
    w.dir = hw_format("%s/hw-replica-XXXXXX", root != NULL ? root : "/tmp");
    assert_non_null(mkdtemp(w.dir));
    w.path = hw_format("%s/replica.db", w.dir);
    w.log_dir = hw_format("%s/log", w.dir);
    maker_open_in(&w.m, hw_env_posix(), w.log_dir, 1024);
    maker_commit(&w.m, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);"
                       "INSERT INTO t(b) VALUES(randomblob(50))");
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char *command = hw_format("rm -rf '%s'", w->dir);

    maker_close(&w->m);
    assert_int_equal(system(command), 0);
    hw_free(command);
    hw_free(w->log_dir);
    hw_free(w->path);
    hw_free(w->dir);
    return 0;
}

static enum hw_status open_here(struct world *w, struct hw_core *core, struct hw_replica **out,
                                struct hw_error *err)
{
    return hw_replica_open(hw_env_posix(), sqlite3_vfs_find("unix"), core, w->path, NULL, NULL, out,
                           err);
}

/* ------------------------------------------------------------------------- the stock shell */

struct shell {
    FILE *to, *from;
    pid_t pid;
};

static void shell_open(struct shell *shell, const char *path)
{
    int to[2], from[2];

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    shell->pid = fork();
    assert_true(shell->pid >= 0);
    if (shell->pid == 0) {
        (void)dup2(to[0], 0);
        (void)dup2(from[1], 1);
        (void)close(to[1]);
        (void)close(from[0]);
        (void)execlp("sqlite3", "sqlite3", "-batch", "-bail", path, (char *)NULL);
        _exit(127);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    shell->to = fdopen(to[1], "w");
    shell->from = fdopen(from[0], "r");
}

/* Statements that print one number. */
static long long ask(struct shell *shell, const char *sql)
{
    char line[128];

    assert_true(fprintf(shell->to, "%s\n", sql) > 0);
    assert_int_equal(fflush(shell->to), 0);
    if (fgets(line, sizeof(line), shell->from) == NULL)
        fail_msg("the shell ended at: %s", sql);
    return atoll(line);
}

static void shell_close(struct shell *shell)
{
    int status;

    (void)fclose(shell->to);
    (void)fclose(shell->from);
    assert_int_equal(waitpid(shell->pid, &status, 0), shell->pid);
    assert_int_equal(status, 0);
}

static void the_stock_shell_reads_while_transactions_are_applied(void **state)
{
    struct world *w = *state;
    struct hw_replica *replica = NULL;
    struct hw_error err = {0};
    struct shell shell;

    assert_status(open_here(w, w->m.core, &replica, &err), HW_OK, &err);
    shell_open(&shell, w->path);
    for (int round = 0; round < 3; round++) {
        long long seen = ask(&shell, "BEGIN; SELECT count(*) FROM t;");

        for (int i = 0; i < 400; i++) {
            maker_commit(&w->m, "INSERT INTO t(b) VALUES(randomblob(900));"
                                "UPDATE t SET b = zeroblob(9) WHERE a % 17 = 5");
            assert_status(catch_up(replica, &err), HW_END, &err);
            if (i % 100 == 0)
                assert_int_equal(ask(&shell, "SELECT count(*) FROM t;"), seen);
        }
        assert_int_equal(ask(&shell, "SELECT count(*) FROM t;"), seen);
        assert_int_equal(ask(&shell, "COMMIT; SELECT count(*) FROM t;"), seen + 400);
        assert_int_equal(ask(&shell, "SELECT count(*) FROM pragma_integrity_check"
                                     " WHERE integrity_check = 'ok';"),
                         1);
    }
    shell_close(&shell);
    hw_replica_close(replica);
}

/* ---------------------------------------------------------------------- kill -9, for real */

/* In the child: follow the log as it becomes longer; a byte for each state reached. */
static void follow_until_killed(struct world *w, int from, int report)
{
    struct hw_replica *replica = NULL;
    struct hw_core *core = NULL;
    struct hw_error err;

    if (hw_core_open(hw_env_posix(), w->log_dir, HW_CORE_READ, w->lengths[from], &core, &err) !=
            HW_OK ||
        open_here(w, core, &replica, &err) != HW_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        _exit(1);
    }
    for (int i = from; i < STATES; i++) {
        if (hw_core_refresh(core, w->lengths[i], &err) != HW_OK ||
            catch_up(replica, &err) != HW_END) {
            (void)fprintf(stderr, "%s\n", err.message);
            _exit(1);
        }
        if (write(report, "+", 1) != 1)
            _exit(1);
    }
    hw_replica_close(replica);
    _exit(0);
}

/* Let a follower come some states further, and kill it there; returns how far it came. */
static int kill_a_follower(struct world *w, int from, int steps)
{
    int report[2], status, reached = from - 1;
    char byte;
    pid_t pid;

    assert_int_equal(pipe(report), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(report[0]);
        follow_until_killed(w, from, report[1]);
    }
    (void)close(report[1]);
    while (steps-- > 0 && read(report[0], &byte, 1) == 1)
        reached++;
    (void)kill(pid, SIGKILL); /* it is somewhere in the steps after */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    while (read(report[0], &byte, 1) == 1)
        reached++;
    (void)close(report[0]);
    return reached;
}

/* The state that a stock reader sees: one of those from `least` on. */
static int state_seen(struct world *w, int least)
{
    sqlite3 *db = NULL;
    uint64_t seen;
    int found = -1;

    assert_int_equal(sqlite3_open_v2(w->path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    seen = fingerprint(db);
    for (int i = least; i < STATES && found < 0; i++) {
        if (w->states[i] == seen)
            found = i;
    }
    sqlite3_close(db);
    return found;
}

static void a_follower_killed_anywhere_left_what_it_reported_or_more(void **state)
{
    struct world *w = *state;
    struct hw_replica *replica = NULL;
    struct hw_error err = {0};
    int reached = 0;

    for (int i = 0; i < STATES; i++) {
        if (i > 0)
            maker_commit(&w->m, i % 9 == 8 ? "DELETE FROM t WHERE a % 3 = 0; VACUUM"
                                           : "INSERT INTO t(b) SELECT randomblob(900) FROM"
                                             " (VALUES(1),(2),(3),(4),(5),(6),(7),(8),(9))");
        w->states[i] = fingerprint(w->m.db);
        w->lengths[i] = hw_core_length(w->m.core);
    }
    for (int kills = 0; kills < 40 && reached < STATES - 1; kills++) {
        reached = kill_a_follower(w, reached, 1 + kills % 4);
        if (kills % 3 != 2) { /* else the next follower comes before any client */
            int seen = state_seen(w, reached < 0 ? 0 : reached);
            assert_true(seen >= 0);
            reached = seen;
        }
        if (reached < 0)
            reached = 0;
    }
    assert_status(open_here(w, w->m.core, &replica, &err), HW_OK, &err);
    assert_status(catch_up(replica, &err), HW_END, &err);
    hw_replica_close(replica);
    assert_int_equal(state_seen(w, STATES - 1), STATES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_stock_shell_reads_while_transactions_are_applied, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_follower_killed_anywhere_left_what_it_reported_or_more,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
