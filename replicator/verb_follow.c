/* hyperwal follow: keep a replica. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "network.h"
#include "program.h"
#include "report.h"

enum {
    OPTION_ONCE = 1,
    OPTION_ALSO,
    OPTION_LISTEN,
    OPTION_ALLOW,
    OPTION_KEYS,
    OPTION_NAME,
    OPTION_JSON
};
enum { STEP_MS = 3600 * 1000, CATCH_UP_MS = 200, RETRY_MS = 1000 };
enum { SOURCES_MAX = 16 };

static const struct option options[] = {
    {"once", no_argument, NULL, OPTION_ONCE},
    {"also", required_argument, NULL, OPTION_ALSO},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"allow", required_argument, NULL, OPTION_ALLOW},
    {"authorized-keys", required_argument, NULL, OPTION_KEYS},
    {"name", required_argument, NULL, OPTION_NAME},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct follow_wishes {
    const char *sources[SOURCES_MAX];
    unsigned source_count;
    const char *path; /* the replica */
    const char *name; /* under which its log is served */
    struct network_wishes network;
    bool is_once, is_json;
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

/*
 * A call failed, or the disk is full, or the log that goes on from ours is out of reach in the
 * midst of the change to it: that ends by itself, or once somebody has made room.
 */
static bool may_pass(int code)
{
    switch (code & 0xff) {
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_CANTOPEN:
    case SQLITE_BUSY:
        return true;
    default:
        return false;
    }
}

/* Before the next try; a signal ends it. */
static void rest(void)
{
    const struct timespec time = {.tv_sec = RETRY_MS / 1000};

    (void)nanosleep(&time, NULL); /* cut short by the signal that is looked for next */
}

/* What is there to wait for, if the verb has time?  NULL: nothing. */
static const char *cure_of(int code, const struct follow_wishes *wishes)
{
    if (may_pass(code))
        return "trying again";
    /* A block that no source has now may come with another one. */
    if (code == HYPERWAL_NOTARGET && source_is_remote(wishes->sources[0]))
        return "waiting for a source that has it";
    return NULL;
}

/* A damaged replica is rebuilt by the next step.  Everything else ends the verb. */
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

static int follow_live(hyperwal_follower *follower, const struct follow_wishes *wishes)
{
    bool was_live = false, was_corrupt = false;
    int code = hyperwal_follow_step(follower, 0), before = SQLITE_OK;
    const char *cure;

    for (;; before = code, code = hyperwal_follow_step(follower, STEP_MS)) {
        if (stop_asked())
            return DONE;
        cure = cure_of(code, wishes);
        if (cure != NULL) {
            if (code != before) /* said, and no reason to end with its exit code */
                (void)failure("%s; %s", hyperwal_follow_errmsg(follower), cure);
            rest();
            continue;
        }
        if (is_failure(code)) {
            int result = step_failed(follower, code);

            if (result != DONE || (was_corrupt && code == HYPERWAL_CORRUPT))
                return result != DONE ? result : CORRUPT; /* no repair helps: the log is bad */
            was_corrupt = code == HYPERWAL_CORRUPT;
        } else if (code == SQLITE_OK) {
            was_corrupt = false;
        }
        if (!was_live && !was_corrupt && hyperwal_follow_lag(follower) == 0 &&
            hyperwal_follow_seq(follower) != HYPERWAL_SEQ_NONE) {
            was_live = true;
            print_event("live", wishes->path, hyperwal_follow_seq(follower), wishes->is_json);
        }
    }
}

/* Seqs of another log, which it may come from, mean nothing here. */
static bool is_of(hyperwal_follower *follower, const hyperwal_head *target)
{
    unsigned char key[32];
    hyperwal_log *log = NULL;

    if (hyperwal_log_open(hyperwal_follow_log_dir(follower), &log, NULL) != SQLITE_OK)
        return false;
    hyperwal_log_key(log, key);
    hyperwal_log_close(log);
    return memcmp(key, target->key, sizeof(key)) == 0;
}

/* Does ours lead to the log whose head is aimed at?  Which one that is, and why not, was said. */
static int check_way(hyperwal_follower *follower, const struct follow_wishes *wishes,
                     const hyperwal_head *target)
{
    const char *path = wishes->path;
    unsigned char key[32];
    int stranger = hyperwal_follow_stranger(follower, key);

    if (stranger == HYPERWAL_STRANGER_NONE || memcmp(key, target->key, sizeof(key)) != 0 ||
        is_of(follower, target))
        return DONE;
    if (stranger == HYPERWAL_STRANGER_PERHAPS)
        return failure("%s: the source has another log now, and cannot tell whether it goes on "
                       "from the one that is followed here",
                       path);
    return failure("%s: the source has another log now; if it is the right one, remove %s and "
                   "%s-hyper, and follow again",
                   path, path, path);
}

/*
 * Up to the head as of the start.  Its fork matters: a replica may be further on one that was left.
 */
static int follow_once(hyperwal_follower *follower, const struct follow_wishes *wishes,
                       const hyperwal_head *target)
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
        } else if (seq != HYPERWAL_SEQ_NONE && seq >= target->seq &&
                   hyperwal_follow_fork(follower) >= target->fork && is_of(follower, target)) {
            print_event("done", wishes->path, seq, wishes->is_json);
            return DONE;
        }
        if (check_way(follower, wishes, target) != DONE)
            return FAILED;
        if (stop_asked())
            return failure("%s: stopped before the head", wishes->path);
        code = hyperwal_follow_step(follower, CATCH_UP_MS); /* readers may be in the way */
    }
}

/* The state that --once stops at, by the first source that tells. */
static int head_find(const struct follow_wishes *wishes, hyperwal_head *head)
{
    hyperwal_log *log = NULL;
    const char *src = wishes->sources[0];
    char *error = NULL;
    int code = hyperwal_log_open(src, &log, &error);
    int result = DONE;

    for (unsigned i = 1; code != SQLITE_OK && i < wishes->source_count; i++) {
        sqlite3_free(error);
        src = wishes->sources[i];
        code = hyperwal_log_open(src, &log, &error);
    }
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    code = hyperwal_log_head(log, head);
    if (code != SQLITE_OK) {
        result = failure_code(code, hyperwal_log_errmsg(log));
    } else if (head->snapshot_seq == HYPERWAL_SEQ_NONE) {
        (void)failure("%s: the log has no complete snapshot yet; the primary makes one when it is "
                      "opened, `hyperwal init` waits for it",
                      src);
        result = NO_TARGET;
    }
    hyperwal_log_close(log);
    return result;
}

/* Others may follow from here: print where. */
static int serve_further(hyperwal_node *node, hyperwal_follower *follower,
                         const struct follow_wishes *wishes)
{
    const char *slash = strrchr(wishes->path, '/');
    const char *name = wishes->name != NULL ? wishes->name
                       : slash != NULL      ? slash + 1
                                            : wishes->path;
    unsigned char key[32] = {0};
    hyperwal_log *log = NULL;
    char *error = NULL, *url = NULL, text[KEY_TEXT];
    struct json json;
    int code, result = DONE;

    code = hyperwal_node_serve(node, name, hyperwal_follow_log_dir(follower), &error);
    if (code == SQLITE_OK)
        code = hyperwal_log_open(hyperwal_follow_log_dir(follower), &log, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        goto done;
    }
    hyperwal_log_key(log, key);
    url = hyperwal_node_url(node, name);
    if (wishes->is_json) {
        json_begin(&json);
        json_text(&json, "event", "serving");
        json_text(&json, "name", name);
        json_key(&json, "key", key);
        json_text(&json, "url", url);
        json_text(&json, "path", wishes->path);
        json_end(&json);
    } else {
        printf("%s %s %s\n", name, key_text(key, text), url != NULL ? url : "");
        fflush(stdout);
    }
done:
    sqlite3_free(url);
    sqlite3_free(error);
    hyperwal_log_close(log);
    return result;
}

static int follow_with(hyperwal_node *node, const struct follow_wishes *wishes)
{
    hyperwal_follower *follower = NULL;
    struct progress progress;
    hyperwal_head target = {0};
    char *error = NULL;
    int code, result = DONE;

    if (wishes->is_once) {
        result = head_find(wishes, &target);
        if (result != DONE)
            return result;
    }
    progress_begin(&progress, "making the replica", true);
    code = hyperwal_follow_sources(node, wishes->sources, wishes->source_count, wishes->path,
                                   report_progress, &progress, &follower, &error);
    progress_end(&progress);
    if (code != SQLITE_OK) {
        result = stop_asked() ? DONE : failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    stop_interrupts(follower);
    if (node != NULL)
        result = serve_further(node, follower, wishes);
    if (result == DONE)
        result = wishes->is_once ? follow_once(follower, wishes, &target)
                                 : follow_live(follower, wishes);
    stop_interrupts(NULL);
    hyperwal_follow_close(follower);
    return result;
}

static int follow(const struct follow_wishes *wishes)
{
    hyperwal_node *node = NULL;
    int result = network_open(&wishes->network, &node);

    if (result == DONE)
        result = follow_with(node, wishes);
    hyperwal_node_close(node);
    return result;
}

/* DONE, or what usage_error() gave. */
static int take_option(int c, struct follow_wishes *wishes)
{
    bool fits = true;

    switch (c) {
    case OPTION_ONCE:
        wishes->is_once = true;
        break;
    case OPTION_ALSO:
        fits = wishes->source_count < SOURCES_MAX;
        if (fits)
            wishes->sources[wishes->source_count++] = optarg;
        break;
    case OPTION_LISTEN:
        fits = network_add_listen(&wishes->network, optarg);
        break;
    case OPTION_ALLOW:
        fits = network_add_allow(&wishes->network, optarg);
        break;
    case OPTION_KEYS:
        wishes->network.authorized_keys = optarg;
        break;
    case OPTION_NAME:
        wishes->name = optarg;
        break;
    default:
        wishes->is_json = true;
    }
    return fits ? DONE : usage_error(&verb_follow, "too many --also, --listen or --allow");
}

static int run(int argc, char **argv)
{
    struct follow_wishes wishes = {.source_count = 1};
    int c;

    while ((c = option_next(&verb_follow, argc, argv, options)) != -1) {
        int result = c == OPTION_HELP || c == OPTION_BAD ? DONE : take_option(c, &wishes);

        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (result != DONE)
            return result;
    }
    if (argc - optind != 2)
        return usage_error(&verb_follow, "needs SRC and REPLICA");
    if ((wishes.network.allow_count > 0 || wishes.name != NULL) && wishes.network.listen_count == 0)
        return usage_error(&verb_follow, "--allow and --name need --listen");
    wishes.sources[0] = argv[optind];
    wishes.path = argv[optind + 1];
    stop_watch();
    return follow(&wishes);
}

const struct verb verb_follow = {
    .name = "follow",
    .synopsis = "SRC REPLICA [--also SRC]... [--once] [--listen URL]... [--allow KEY|any]... "
                "[--authorized-keys FILE] [--name NAME] [--json]",
    .summary = "keep a read-only replica that is always up to date",
    .help =
        "Makes the database REPLICA from the log of SRC, or goes on where it stopped, and applies\n"
        "every transaction as soon as it is durable in the log, until SIGINT or SIGTERM.  Any\n"
        "SQLite may read REPLICA meanwhile, and nobody can write to it.\n\n"
        "SRC is a database or log of this machine, or a URL: hyper://HOST[:PORT]/NAME (also\n"
        "tcp://), ws://HOST:PORT/PATH/NAME or ipc://SOCKET/NAME, where NAME is what the server\n"
        "calls it or the log's key.  What comes is checked against the key before it is used.\n\n"
        "  --also SRC       another URL of the same log; the best is used, and the others if it "
        "fails\n"
        "  --once           stop at the head that the log has at the start\n"
        "  --listen URL     serve the log further, as far as it is here, as `hyperwal serve` does\n"
        "  --allow KEY|any  who may come in there\n"
        "  --authorized-keys FILE\n"
        "                   the same for single names, as `hyperwal serve` has it\n"
        "  --name NAME      what it is called there; the file name of REPLICA\n"
        "  --json           one object an event: event (live, or done with --once), path, seq; "
        "with\n"
        "                   --listen first event (serving), name, key, url, path\n",
    .run = run,
};
