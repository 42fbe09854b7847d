/*
 * Processes that write, serve, follow, read, snapshot and prune one database, and are killed at any
 * moment.
 *
 * A test is one or more rounds: a new database, some actors (storm_actor.c and the program), some
 * SIGKILLs with restarts, then the reckoning: every acknowledged commit is in the database and,
 * where its seq is known, exactly there in the log; there is no gap; the replicas are the primary,
 * page by page; any state that is restored keeps the invariant of storm_schema.h.
 *
 * HYPERWAL_SEED sets the plan (who is killed after how many microseconds; what the writers do),
 * though not what the kernel makes of it; HYPERWAL_KILLS the kills of a round.  A round that fails
 * prints its seed and leaves its directory.  tests/soak runs this for hours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hyperwal.h"
#include "storm_schema.h"

enum { ACTORS_MAX = 10, ACKS_MAX = 4096, RESTORES = 6, HANG_MS = 120000 };

/* What a round is made of. */
struct plan {
    const char *style;              /* of the writers: storm_actor.c */
    int processes, threads;         /* writers */
    int servers, keepers, replicas; /* readers: one for each replica and one for the primary */
    int kills;
    int gap_us;         /* at most, between two kills */
    int all_at_once;    /* of 100 kills, so many hit everybody at once */
    bool spares_server; /* it is not killed: others depend on it */
};

struct actor {
    char name[32];
    char seed[24], numbers[2][8];
    const char *arguments[10];
    bool takes_seed; /* arguments[3] is a new seed at each start */
    bool is_immune;
    pid_t pid; /* 0: not running */
    int in, out;
    char line[512]; /* the beginning of a line */
    size_t size;
};

struct ack {
    int writer;
    int64_t n;
    uint64_t seq;
};

static struct storm {
    const struct plan *plan;
    char directory[200], path[220];
    struct actor actors[ACTORS_MAX];
    int actor_count;
    uint64_t seed, chance;
    int64_t acknowledged[STORM_WRITERS];
    struct ack acks[ACKS_MAX]; /* those with a seq; the newest overwrite the oldest */
    uint64_t ack_count, acks_all;
    uint64_t reads, kills, keep, labels, ready;
    char bad[600]; /* the first thing that went wrong */
    bool is_done;
} storm;

/* A callback of the loop: recorded here, asserted in the test. */
__attribute__((format(printf, 1, 2))) static void bad(const char *format, ...)
{
    va_list arguments;

    if (storm.bad[0] != 0)
        return;
    va_start(arguments, format);
    (void)vsnprintf(storm.bad, sizeof(storm.bad), format, arguments);
    va_end(arguments);
}

static uint64_t now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t below(uint64_t limit)
{
    return storm_random(&storm.chance) % limit;
}

static bool is_slow(void) /* under a sanitizer */
{
    return getenv("HYPERWAL_STRIDE") != NULL;
}

/* --------------------------------------------------------------------------- actors */

static void actor_run(const struct actor *actor, const int in[2], const int out[2], pid_t parent)
{
    char *arguments[10], name[260];
    int error;

    (void)snprintf(name, sizeof(name), "%s/%s.err", storm.directory, actor->name);
    error = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0 ||
        dup2(error, STDERR_FILENO) < 0)
        _exit(126);
    memcpy(arguments, actor->arguments, sizeof(arguments)); /* execv() changes none of them */
    (void)execv(arguments[0], arguments);
    _exit(127);
}

static void actor_start(struct actor *actor)
{
    int in[2], out[2];
    pid_t parent = getpid();

    if (actor->takes_seed)
        (void)snprintf(actor->seed, sizeof(actor->seed), "%" PRIu64, storm_random(&storm.chance));
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    actor->pid = fork();
    assert_true(actor->pid >= 0);
    if (actor->pid == 0)
        actor_run(actor, in, out, parent);
    close(in[0]);
    close(out[1]);
    actor->in = in[1];
    actor->out = out[0];
    actor->size = 0;
}

static void said_start(const struct actor *actor, int writer, int64_t n)
{
    int64_t known = storm.acknowledged[writer];

    if (n < known || n > known + 1)
        bad("%s: writer %d finds commit %" PRId64 ", acknowledged was %" PRId64, actor->name,
            writer, n, known);
    storm.acknowledged[writer] = n; /* it may have been killed before it could say so */
}

static void said_ack(const struct actor *actor, int writer, int64_t n, uint64_t seq)
{
    if (n != storm.acknowledged[writer] + 1)
        bad("%s: writer %d says %" PRId64 " after %" PRId64, actor->name, writer, n,
            storm.acknowledged[writer]);
    storm.acknowledged[writer] = n;
    storm.acks_all++;
    if (seq != 0)
        storm.acks[storm.ack_count++ % ACKS_MAX] = (struct ack){writer, n, seq};
}

static void said(const struct actor *actor, const char *line)
{
    int64_t n;
    uint64_t seq;
    int writer;

    if (strncmp(line, "bad ", 4) == 0)
        bad("%s: %s", actor->name, line);
    else if (sscanf(line, "start %d %" SCNd64, &writer, &n) == 2 && writer < STORM_WRITERS)
        said_start(actor, writer, n);
    else if (sscanf(line, "ack %d %" SCNd64 " %" SCNu64, &writer, &n, &seq) == 3 &&
             writer < STORM_WRITERS)
        said_ack(actor, writer, n, seq);
    else if (sscanf(line, "keep %" SCNu64, &seq) == 1)
        storm.keep = seq > storm.keep ? seq : storm.keep;
    else if (strncmp(line, "label ", 6) == 0)
        storm.labels++;
    else if (strcmp(line, "read") == 0)
        storm.reads++;
    else if (strcmp(line, "ready") == 0)
        storm.ready++;
}

/* Take what is in the pipe; false at its end. */
static bool actor_listen(struct actor *actor)
{
    ssize_t size = read(actor->out, actor->line + actor->size, sizeof(actor->line) - actor->size);
    char *end;

    if (size <= 0)
        return false;
    actor->size += (size_t)size;
    while ((end = memchr(actor->line, '\n', actor->size)) != NULL) {
        size_t used = (size_t)(end - actor->line) + 1;

        *end = 0;
        said(actor, actor->line);
        actor->size -= used;
        memmove(actor->line, actor->line + used, actor->size);
    }
    if (actor->size == sizeof(actor->line)) /* a long line of the program: not for us */
        actor->size = 0;
    return true;
}

/* It ended or was told to: hear the rest, and how it ended. */
static int actor_end(struct actor *actor)
{
    int status = 0;

    while (actor_listen(actor))
        ;
    close(actor->in);
    close(actor->out);
    (void)waitpid(actor->pid, &status, 0);
    actor->pid = 0;
    return status;
}

static void actor_kill(struct actor *actor)
{
    int status;

    (void)kill(actor->pid, SIGKILL);
    status = actor_end(actor);
    storm.kills++;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        bad("%s ended by itself: status %#x", actor->name, (unsigned)status);
}

/* Listen to all until then. */
static void listen_until(uint64_t end_us)
{
    while (storm.bad[0] == 0) {
        struct pollfd fds[ACTORS_MAX];
        uint64_t now = now_us();
        struct timespec wait = {0};

        if (now >= end_us)
            return;
        wait.tv_sec = (time_t)((end_us - now) / 1000000);
        wait.tv_nsec = (long)((end_us - now) % 1000000) * 1000;
        for (int i = 0; i < storm.actor_count; i++)
            fds[i] =
                (struct pollfd){storm.actors[i].pid != 0 ? storm.actors[i].out : -1, POLLIN, 0};
        if (ppoll(fds, (nfds_t)storm.actor_count, &wait, NULL) <= 0)
            continue;
        for (int i = 0; i < storm.actor_count; i++) {
            struct actor *actor = &storm.actors[i];

            if (actor->pid != 0 && fds[i].revents != 0 && !actor_listen(actor))
                bad("%s ended by itself: status %#x", actor->name, (unsigned)actor_end(actor));
        }
    }
}

static void wait_until_ready(void)
{
    uint64_t before = storm.ready, deadline = now_us() + (uint64_t)HANG_MS * 1000;

    while (storm.ready == before && storm.bad[0] == 0 && now_us() < deadline)
        listen_until(now_us() + 1000);
    if (storm.ready == before)
        bad("serve is not ready");
}

/* -------------------------------------------------------------------------- a round */

static struct actor *actor_add(const char *name, int number, const char *program)
{
    struct actor *actor = &storm.actors[storm.actor_count++];

    assert_true(storm.actor_count <= ACTORS_MAX);
    *actor = (struct actor){.arguments = {program}};
    (void)snprintf(actor->name, sizeof(actor->name), "%s-%d", name, number);
    return actor;
}

#define ACTOR   HW_BUILD_DIR "/tests/storm_actor"
#define PROGRAM HW_BUILD_DIR "/hyperwal"

static const char *replica_path(int number)
{
    static char paths[ACTORS_MAX][240];

    (void)snprintf(paths[number], sizeof(paths[number]), "%s/replica-%d.db", storm.directory,
                   number);
    return paths[number];
}

static void add_helper(const char *role, int number, const char *path)
{
    struct actor *actor = actor_add(role, number, ACTOR);

    actor->arguments[1] = role;
    actor->arguments[2] = path;
    actor->arguments[3] = actor->seed;
    actor->takes_seed = true;
}

static void add_actors(const struct plan *plan)
{
    struct actor *actor;

    for (int i = 0; i < plan->servers; i++) {
        actor = actor_add("serve", i, PROGRAM);
        actor->arguments[1] = "serve";
        actor->arguments[2] = storm.path;
        actor->is_immune = plan->spares_server;
    }
    for (int i = 0; i < plan->processes; i++) {
        add_helper("write", i, storm.path);
        actor = &storm.actors[storm.actor_count - 1];
        (void)snprintf(actor->numbers[0], sizeof(actor->numbers[0]), "%d", i * plan->threads);
        (void)snprintf(actor->numbers[1], sizeof(actor->numbers[1]), "%d", plan->threads);
        actor->arguments[4] = actor->numbers[0];
        actor->arguments[5] = actor->numbers[1];
        actor->arguments[6] = plan->style;
    }
    for (int i = 0; i < plan->keepers; i++)
        add_helper("keep", i, storm.path);
    for (int i = 0; i < plan->replicas; i++) {
        actor = actor_add("follow", i, PROGRAM);
        actor->arguments[1] = "follow";
        actor->arguments[2] = storm.path;
        actor->arguments[3] = replica_path(i);
        add_helper("read", i, replica_path(i));
    }
    if (plan->replicas > 0)
        add_helper("read", ACTORS_MAX, storm.path);
}

static sqlite3 *open_stock(const char *path, int flags)
{
    sqlite3 *db = NULL;

    if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK)
        fail_msg("%s: %s", path, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_busy_timeout(db, 10000), SQLITE_OK);
    return db;
}

static void run_program(const char *verb, const char *first, const char *second, const char *third)
{
    struct actor *actor = actor_add(verb, 0, PROGRAM);
    int status;

    actor->arguments[1] = verb;
    actor->arguments[2] = first;
    actor->arguments[3] = second;
    actor->arguments[4] = third;
    actor_start(actor);
    status = actor_end(actor);
    storm.actor_count--;
    if (status != 0)
        fail_msg("hyperwal %s %s: status %#x", verb, first, (unsigned)status);
}

static void make_database(void)
{
    static const int page_sizes[] = {512, 1024, 4096, 4096, 16384};
    char *message = NULL, pragmas[100];
    sqlite3 *db = open_stock(storm.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);

    (void)snprintf(pragmas, sizeof(pragmas), "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d;",
                   page_sizes[below(5)], (int)below(3));
    if (sqlite3_exec(db, pragmas, NULL, NULL, &message) != SQLITE_OK ||
        sqlite3_exec(db, STORM_SCHEMA, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    run_program("init", storm.path, NULL, NULL);
}

static struct actor *victim(void)
{
    struct actor *actor;

    do
        actor = &storm.actors[below((uint64_t)storm.actor_count)];
    while (actor->is_immune);
    return actor;
}

/* One kill, or one of everybody, and the restarts. */
static void strike(const struct plan *plan)
{
    if ((int)below(100) >= plan->all_at_once) {
        struct actor *actor = victim();

        actor_kill(actor);
        actor_start(actor);
        return;
    }
    for (int i = 0; i < storm.actor_count; i++)
        if (!storm.actors[i].is_immune)
            (void)kill(storm.actors[i].pid, SIGKILL);
    for (int i = 0; i < storm.actor_count; i++)
        if (!storm.actors[i].is_immune)
            actor_kill(&storm.actors[i]);
    for (int i = 0; i < storm.actor_count; i++)
        if (!storm.actors[i].is_immune)
            actor_start(&storm.actors[i]);
}

static void ask_to_end(struct actor *actor)
{
    close(actor->in);
    actor->in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (!actor->takes_seed)
        (void)kill(actor->pid, SIGTERM);
}

static void expect_end(struct actor *actor)
{
    int status = actor->pid == 0 ? 0 : actor_end(actor);

    /* the program may not yet have asked for signals */
    if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM))
        bad("%s does not end well: status %#x", actor->name, (unsigned)status);
}

/* Everybody ends, asked or killed; on whom others depend, last. */
static void end_all(void)
{
    bool is_harsh = below(2) == 0;

    for (int i = storm.actor_count; i-- > 0;) {
        struct actor *actor = &storm.actors[i];

        if (actor->pid == 0 || actor->is_immune)
            continue;
        if (is_harsh)
            actor_kill(actor);
        else
            ask_to_end(actor);
    }
    for (int i = storm.actor_count; i-- > 0;)
        if (!storm.actors[i].is_immune)
            expect_end(&storm.actors[i]);
    for (int i = storm.actor_count; i-- > 0;) {
        if (storm.actors[i].pid != 0)
            ask_to_end(&storm.actors[i]);
        expect_end(&storm.actors[i]);
    }
    storm.actor_count = 0;
}

/* ------------------------------------------------------------------------- reckoning */

static void assert_consistent(sqlite3 *db, const char *what)
{
    sqlite3_stmt *statement = NULL;
    char why[200];

    storm_check(db, why, sizeof(why));
    if (why[0] != 0)
        fail_msg("%s: %s", what, why);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL), 0);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0)
        fail_msg("%s: integrity: %s", what, (const char *)sqlite3_column_text(statement, 0));
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
}

static int64_t counter(sqlite3 *db, int writer)
{
    char sql[80];

    (void)snprintf(sql, sizeof(sql), "SELECT n FROM counter WHERE writer=%d", writer);
    return storm_number(db, sql);
}

static void check_database(void)
{
    char *message = NULL;
    sqlite3 *db = NULL;
    uint64_t seq;

    if (hyperwal_open(storm.path, 0, &db, &message) != SQLITE_OK)
        fail_msg("%s", message);
    assert_consistent(db, "database");
    for (int writer = 0; writer < STORM_WRITERS; writer++) {
        int64_t n = counter(db, writer), known = storm.acknowledged[writer];

        if (n < known || n > known + 1)
            fail_msg("writer %d: commit %" PRId64 " was acknowledged, the database has %" PRId64,
                     writer, known, n);
    }
    if (hyperwal_seq(db, NULL, &seq) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static unsigned char *image(const char *path, sqlite3_int64 *size)
{
    sqlite3 *db = open_stock(path, SQLITE_OPEN_READONLY);
    unsigned char *bytes = sqlite3_serialize(db, "main", size, 0);

    if (bytes == NULL)
        fail_msg("%s: %s", path, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return bytes;
}

static void check_replica(const char *replica)
{
    sqlite3_int64 size, replica_size;
    unsigned char *bytes, *replica_bytes;
    sqlite3 *db;

    run_program("follow", storm.path, replica, "--once");
    run_program("verify", replica, NULL, NULL);
    db = open_stock(replica, SQLITE_OPEN_READONLY);
    assert_consistent(db, replica);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    bytes = image(storm.path, &size);
    replica_bytes = image(replica, &replica_size);
    assert_int_equal(size, replica_size);
    assert_memory_equal(bytes, replica_bytes, (size_t)size);
    sqlite3_free(bytes);
    sqlite3_free(replica_bytes);
}

/* The state of `seq`; writer's counter must be n, unless writer is negative. */
static void check_restore(hyperwal_log *log, uint64_t seq, int writer, int64_t n)
{
    hyperwal_target target = {.kind = HYPERWAL_SEQ, .seq = seq};
    char out[240];
    sqlite3 *db;
    int code;

    (void)snprintf(out, sizeof(out), "%s/restored.db", storm.directory);
    (void)unlink(out);
    code = hyperwal_restore(log, &target, out, 0, NULL, NULL, NULL);
    if (code == HYPERWAL_NOTARGET && seq < storm.keep)
        return; /* pruned */
    if (code != SQLITE_OK)
        fail_msg("restore of %" PRIu64 " (pruned before %" PRIu64 "): %s", seq, storm.keep,
                 hyperwal_log_errmsg(log));
    db = open_stock(out, SQLITE_OPEN_READWRITE); /* its close leaves no WAL behind */
    assert_consistent(db, "restored database");
    if (writer >= 0 && counter(db, writer) != n)
        fail_msg("restored seq %" PRIu64 ": writer %d has %" PRId64 ", it had %" PRId64, seq,
                 writer, counter(db, writer), n);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    (void)unlink(out);
}

static void check_log(void)
{
    hyperwal_log *log = NULL;
    hyperwal_entry entry;
    uint64_t next = 0, some[RESTORES] = {0}, count = 0;
    int code;

    run_program("verify", storm.path, "--deep", NULL);
    assert_int_equal(hyperwal_log_open(storm.path, &log, NULL), SQLITE_OK);
    while ((code = hyperwal_log_next(log, &next, &entry)) == SQLITE_OK) {
        if (strcmp(entry.type, "gap") == 0)
            fail_msg("a gap at %" PRIu64 ": %s", entry.seq, entry.text);
        if (strcmp(entry.type, "transaction") == 0 && below(++count) < RESTORES)
            some[count <= RESTORES ? count - 1 : below(RESTORES)] = entry.seq;
    }
    assert_int_equal(code, SQLITE_DONE);
    for (int i = 0; i < RESTORES; i++) {
        uint64_t kept = storm.ack_count < ACKS_MAX ? storm.ack_count : ACKS_MAX;

        if (some[i] != 0)
            check_restore(log, some[i], -1, 0);
        if (kept != 0) {
            const struct ack *ack = &storm.acks[below(kept)];

            check_restore(log, ack->seq, ack->writer, ack->n);
        }
    }
    hyperwal_log_close(log);
}

static void assert_good(void)
{
    if (storm.bad[0] != 0)
        fail_msg("%s", storm.bad);
}

static void round_run(const struct plan *plan, uint64_t seed)
{
    const char *place = getenv("TMPDIR"), *kills = getenv("HYPERWAL_KILLS");
    int count = kills != NULL ? (int)strtol(kills, NULL, 10) : plan->kills / (is_slow() ? 4 : 1);
    uint64_t gap_us = (uint64_t)plan->gap_us * (is_slow() ? 5 : 1), patience;

    storm = (struct storm){.plan = plan, .seed = seed, .chance = seed};
    (void)snprintf(storm.directory, sizeof(storm.directory), "%s/hyperwal-storm-XXXXXX",
                   place != NULL ? place : "/tmp");
    assert_non_null(mkdtemp(storm.directory));
    (void)snprintf(storm.path, sizeof(storm.path), "%s/app.db", storm.directory);
    make_database();
    add_actors(plan);
    for (int i = 0; i < storm.actor_count; i++) {
        actor_start(&storm.actors[i]);
        if (storm.actors[i].is_immune)
            wait_until_ready();
    }
    while (count-- > 0 && storm.bad[0] == 0) {
        listen_until(now_us() + 1000 + below(gap_us));
        if (storm.bad[0] == 0)
            strike(plan);
    }
    listen_until(now_us() + gap_us);
    patience = now_us() + 1000 * (uint64_t)HANG_MS / 2;
    while (storm.acks_all == 0 && storm.bad[0] == 0 && now_us() < patience) /* a busy machine */
        listen_until(now_us() + gap_us);
    assert_good();
    end_all();
    assert_good();
    check_database();
    for (int i = 0; i < plan->replicas; i++)
        check_replica(replica_path(i));
    check_log();
    print_message("seed %" PRIu64 ": %" PRIu64 " kills, %" PRIu64 " commits acknowledged, %" PRIu64
                  " reads, %" PRIu64 " labels\n",
                  seed, storm.kills, storm.acks_all, storm.reads, storm.labels);
    assert_true(storm.acks_all > 0);
    storm.is_done = true;
}

/* ----------------------------------------------------------------------------- tests */

static uint64_t first_seed(void)
{
    const char *seed = getenv("HYPERWAL_SEED");

    return seed != NULL ? strtoull(seed, NULL, 10) : 1;
}

static int teardown(void **state)
{
    char command[300];

    (void)state;
    for (int i = 0; i < storm.actor_count; i++)
        if (storm.actors[i].pid != 0) {
            (void)kill(storm.actors[i].pid, SIGKILL);
            (void)waitpid(storm.actors[i].pid, NULL, 0);
            close(storm.actors[i].in);
            close(storm.actors[i].out);
        }
    if (!storm.is_done) {
        print_error("HYPERWAL_SEED=%" PRIu64 "; everything is in %s\n", first_seed(),
                    storm.directory);
        return 0;
    }
    (void)snprintf(command, sizeof(command), "rm -rf %s", storm.directory);
    return system(command);
}

/* A round that went well leaves nothing for the next one. */
static void rounds_run(void **state, const struct plan *plans, int count, uint64_t salt)
{
    for (int i = 0; i < count; i++) {
        if (i > 0)
            assert_int_equal(teardown(state), 0);
        round_run(&plans[i], first_seed() * 1000 + salt * 10 + (uint64_t)i);
    }
}

static void killed_writers_lose_no_acknowledged_commit(void **state)
{
    static const struct plan plans[] = {
        {.style = "vo", .processes = 3, .threads = 1, .kills = 50, .gap_us = 120000},
        {.style = "vol", .processes = 2, .threads = 1, .kills = 20, .gap_us = 120000},
        {.style = "vo",
         .processes = 2,
         .threads = 1,
         .kills = 20,
         .gap_us = 200000,
         .all_at_once = 100},
    };

    rounds_run(state, plans, 3, 1);
}

static void a_killed_worker_has_a_successor_and_nothing_is_missing(void **state)
{
    static const struct plan plan = {.style = "vo",
                                     .processes = 1,
                                     .threads = 1,
                                     .servers = 2,
                                     .keepers = 1,
                                     .kills = 60,
                                     .gap_us = 120000,
                                     .all_at_once = 5};

    rounds_run(state, &plan, 1, 2);
}

static void killed_followers_go_on_and_readers_see_only_whole_transactions(void **state)
{
    static const struct plan plan = {.style = "vo",
                                     .processes = 1,
                                     .threads = 1,
                                     .servers = 1,
                                     .replicas = 2,
                                     .kills = 60,
                                     .gap_us = 150000,
                                     .all_at_once = 5};

    rounds_run(state, &plan, 1, 3);
    assert_true(storm.reads > 0);
}

static void threads_write_in_turn_and_are_killed_together(void **state)
{
    static const struct plan plans[] = {
        {.style = "vo", .processes = 2, .threads = 3, .kills = 15, .gap_us = 200000},
        {.style = "vf", .processes = 1, .threads = 3, .kills = 10, .gap_us = 200000},
        {.style = "vn", .processes = 1, .threads = 3, .servers = 1, .kills = 15, .gap_us = 200000},
        {.style = "vol", .processes = 1, .threads = 4, .kills = 10, .gap_us = 200000},
    };

    rounds_run(state, plans, 4, 4);
}

static void killed_programs_without_the_vfs_lose_nothing_that_serve_watches(void **state)
{
    static const struct plan plan = {.style = "so",
                                     .processes = 2,
                                     .threads = 1,
                                     .servers = 1,
                                     .replicas = 1,
                                     .kills = 30,
                                     .gap_us = 150000,
                                     .spares_server = true};

    rounds_run(state, &plan, 1, 5);
}

static void an_exclusive_writer_that_is_killed_loses_nothing(void **state)
{
    static const struct plan plan = {
        .style = "vox", .processes = 1, .threads = 1, .kills = 20, .gap_us = 150000};

    rounds_run(state, &plan, 1, 6);
}

static void everybody_is_killed_at_any_moment_and_nothing_is_lost(void **state)
{
    static const struct plan plan = {.style = "vo",
                                     .processes = 2,
                                     .threads = 1,
                                     .servers = 1,
                                     .keepers = 1,
                                     .replicas = 2,
                                     .kills = 70,
                                     .gap_us = 150000,
                                     .all_at_once = 10};

    rounds_run(state, &plan, 1, 7);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(killed_writers_lose_no_acknowledged_commit, teardown),
        cmocka_unit_test_teardown(a_killed_worker_has_a_successor_and_nothing_is_missing, teardown),
        cmocka_unit_test_teardown(killed_followers_go_on_and_readers_see_only_whole_transactions,
                                  teardown),
        cmocka_unit_test_teardown(threads_write_in_turn_and_are_killed_together, teardown),
        cmocka_unit_test_teardown(killed_programs_without_the_vfs_lose_nothing_that_serve_watches,
                                  teardown),
        cmocka_unit_test_teardown(an_exclusive_writer_that_is_killed_loses_nothing, teardown),
        cmocka_unit_test_teardown(everybody_is_killed_at_any_moment_and_nothing_is_lost, teardown),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
