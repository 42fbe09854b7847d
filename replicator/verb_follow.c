/* hyperwal follow: keep a replica. */
#include <inttypes.h>
#include <stdio.h>

#include "program.h"
#include "report.h"

enum { OPTION_ONCE = 1, OPTION_LISTEN, OPTION_JSON };
enum { STEP_MS = 3600 * 1000, CATCH_UP_MS = 200 };

static const struct option options[] = {
    {"once", no_argument, NULL, OPTION_ONCE},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void print_event(const char *event, const char *path, uint64_t seq, bool is_json)
{
    struct json json;

    if (!is_json) {
        printf("%s: %s at seq %" PRIu64 "\n", path, event, seq);
        fflush(stdout);
        return;
    }
    json_begin(&json);
    json_text(&json, "event", event);
    json_text(&json, "path", path);
    json_seq(&json, "seq", seq);
    json_end(&json);
}

/* A damaged replica is rebuilt by the next step; everything else ends the verb. */
static int step_failed(hyperwal_follower *follower, int code)
{
    if (code != HYPERWAL_CORRUPT)
        return failure_code(code, hyperwal_follow_errmsg(follower));
    (void)failure("%s; repairing", hyperwal_follow_errmsg(follower));
    return DONE;
}

static bool is_failure(int code)
{
    return code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_INTERRUPT;
}

static int follow_live(hyperwal_follower *follower, const char *path, bool is_json)
{
    bool was_live = false, was_corrupt = false;
    int code = hyperwal_follow_step(follower, 0);

    for (;;) {
        if (stop_asked())
            return DONE;
        if (is_failure(code)) {
            int result = step_failed(follower, code);

            if (result != DONE || was_corrupt) /* the repair did not help: the log itself is bad */
                return result != DONE ? result : CORRUPT;
            was_corrupt = true;
        } else if (code == SQLITE_OK) {
            was_corrupt = false;
        }
        if (!was_live && !was_corrupt && hyperwal_follow_lag(follower) == 0 &&
            hyperwal_follow_seq(follower) != HYPERWAL_SEQ_NONE) {
            was_live = true;
            print_event("live", path, hyperwal_follow_seq(follower), is_json);
        }
        code = hyperwal_follow_step(follower, STEP_MS);
    }
}

/* Up to the head as of the start, which is `target`. */
static int follow_once(hyperwal_follower *follower, const char *path, uint64_t target, bool is_json)
{
    bool was_corrupt = false;
    int code = hyperwal_follow_step(follower, 0);

    for (;;) {
        uint64_t seq = hyperwal_follow_seq(follower);

        if (is_failure(code)) {
            int result = step_failed(follower, code);

            if (result != DONE || was_corrupt)
                return result != DONE ? result : CORRUPT;
            was_corrupt = true;
        } else if (seq != HYPERWAL_SEQ_NONE && seq >= target) {
            print_event("done", path, seq, is_json);
            return DONE;
        }
        if (stop_asked())
            return failure("%s: stopped before the head", path);
        code = hyperwal_follow_step(follower, CATCH_UP_MS); /* readers may be in the way */
    }
}

/* The state that --once stops at. */
static int head_seq(const char *src, uint64_t *seq)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    char *error = NULL;
    int code = hyperwal_log_open(src, &log, &error);
    int result = DONE;

    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    code = hyperwal_log_head(log, &head);
    if (code != SQLITE_OK) {
        result = failure_code(code, hyperwal_log_errmsg(log));
    } else if (head.snapshot_seq == HYPERWAL_SEQ_NONE) {
        (void)failure("%s: the log has no complete snapshot yet; the primary makes one when it is "
                      "opened, `hyperwal init` waits for it",
                      src);
        result = NO_TARGET;
    }
    *seq = head.seq;
    hyperwal_log_close(log);
    return result;
}

static int follow(const char *src, const char *path, bool is_once, bool is_json)
{
    hyperwal_follower *follower = NULL;
    struct progress progress;
    uint64_t target = 0;
    char *error = NULL;
    int code, result;

    if (is_once) {
        result = head_seq(src, &target);
        if (result != DONE)
            return result;
    }
    progress_begin(&progress, "making the replica", true);
    code = hyperwal_follow_open(src, path, report_progress, &progress, &follower, &error);
    progress_end(&progress);
    if (code != SQLITE_OK) {
        result = stop_asked() ? DONE : failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    stop_interrupts(follower);
    result = is_once ? follow_once(follower, path, target, is_json)
                     : follow_live(follower, path, is_json);
    stop_interrupts(NULL);
    hyperwal_follow_close(follower);
    return result;
}

static int run(int argc, char **argv)
{
    bool is_once = false, is_json = false;
    int c;

    while ((c = option_next(&verb_follow, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_LISTEN)
            return usage_error(&verb_follow, "--listen: this build has no network");
        if (c == OPTION_ONCE)
            is_once = true;
        else
            is_json = true;
    }
    if (argc - optind != 2)
        return usage_error(&verb_follow, "needs SRC and REPLICA");
    stop_watch();
    return follow(argv[optind], argv[optind + 1], is_once, is_json);
}

const struct verb verb_follow = {
    .name = "follow",
    .synopsis = "SRC REPLICA [--once] [--json]",
    .summary = "keep a read-only replica that is always up to date",
    .help =
        "Makes the database REPLICA from the log of SRC, or goes on where it stopped, and applies\n"
        "every transaction as soon as it is durable in the log, until SIGINT or SIGTERM.  Any\n"
        "SQLite may read REPLICA meanwhile, and nobody can write to it.\n\n"
        "  --once  stop at the head that the log has at the start\n"
        "  --json  one object an event: event (live, or done with --once), path, seq\n\n"
        "SRC is on this machine: this build has no network.\n",
    .run = run,
};
