/* hyperwal snapshot, label and prune: what is asked of a database's worker. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1, OPTION_KEEP, OPTION_DRY_RUN };

static const struct option plain_options[] = {
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void print_seq(const char *path, const char *name, const char *value, uint64_t seq,
                      bool is_json)
{
    struct json json;

    if (!is_json) {
        printf("%" PRIu64 "\n", seq);
        return;
    }
    json_begin(&json);
    json_text(&json, "path", path);
    if (name != NULL)
        json_text(&json, name, value);
    json_number(&json, "seq", seq);
    json_end(&json);
}

static int finish(sqlite3 *db, int code)
{
    int result = code == SQLITE_OK ? DONE : failure_code(code, failure_words(db, code));

    sqlite3_close_v2(db);
    return result;
}

/* ------------------------------------------------------------------------------ snapshot */

static int run_snapshot(int argc, char **argv)
{
    bool is_json = false;
    sqlite3 *db = NULL;
    uint64_t seq = 0;
    int code, result, c;

    while ((c = option_next(&verb_snapshot, argc, argv, plain_options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_snapshot, "needs one DB");
    result = database_open(argv[optind], &db);
    if (result != DONE)
        return result;
    code = hyperwal_snapshot(db, NULL, &seq);
    if (code == SQLITE_OK)
        print_seq(argv[optind], NULL, NULL, seq, is_json);
    return finish(db, code);
}

const struct verb verb_snapshot = {
    .name = "snapshot",
    .synopsis = "DB [--json]",
    .summary = "put a snapshot into the log now",
    .help = "Later restores and new replicas begin there.  Snapshots are also made without asking; "
            "this\n"
            "is for the moment before something that is to be undone quickly.  Prints its seq.\n\n"
            "  --json  one object: path, seq\n",
    .run = run_snapshot,
};

/* --------------------------------------------------------------------------------- label */

static int run_label(int argc, char **argv)
{
    bool is_json = false;
    sqlite3 *db = NULL;
    uint64_t seq = 0;
    int code, result, c;

    while ((c = option_next(&verb_label, argc, argv, plain_options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        is_json = true;
    }
    if (argc - optind != 2)
        return usage_error(&verb_label, "needs DB and NAME");
    if (argv[optind + 1][0] == '\0' || strlen(argv[optind + 1]) > 200)
        return usage_error(&verb_label, "a NAME has 1 to 200 bytes");
    result = database_open(argv[optind], &db);
    if (result != DONE)
        return result;
    code = hyperwal_label(db, NULL, argv[optind + 1], &seq);
    if (code == SQLITE_OK)
        print_seq(argv[optind], "name", argv[optind + 1], seq, is_json);
    return finish(db, code);
}

const struct verb verb_label = {
    .name = "label",
    .synopsis = "DB NAME [--json]",
    .summary = "give the state of now a name",
    .help = "`hyperwal restore --label NAME` finds it again; of several with one name the newest\n"
            "counts.  Prints its seq.\n\n"
            "  --json  one object: path, name, seq\n",
    .run = run_label,
};

/* --------------------------------------------------------------------------------- prune */

static const struct option prune_options[] = {
    {"keep", required_argument, NULL, OPTION_KEEP},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* The seq that `keep` names in the log of `path`. */
static int keep_seq(const char *path, const char *keep, uint64_t *seq)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    char *error = NULL;
    int code = hyperwal_log_open(path, &log, &error);
    int result = DONE;

    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    code = point_parse(log, keep, seq);
    if (code == SQLITE_OK && *seq == HYPERWAL_SEQ_NONE)
        *seq = 0; /* everything is later: nothing is to be given up */
    if (code == SQLITE_OK)
        code = hyperwal_log_head(log, &head);
    if (code == SQLITE_MISUSE)
        result = usage_error(&verb_prune, "--keep %s: neither a seq nor a time", keep);
    else if (code != SQLITE_OK)
        result = failure_code(code, hyperwal_log_errmsg(log));
    else if (*seq >= head.length)
        result = failure_code(HYPERWAL_NOTARGET, "--keep: the log does not reach so far");
    hyperwal_log_close(log);
    return result;
}

static void print_freed(const char *path, uint64_t keep, uint64_t freed, bool is_dry, bool is_json)
{
    char size[SIZE_TEXT];
    struct json json;

    if (!is_json) {
        printf("%s %s; seq %" PRIu64 " and later can be restored\n",
               is_dry ? "would free" : "freed", size_text(freed, size), keep);
        return;
    }
    json_begin(&json);
    json_text(&json, "path", path);
    json_number(&json, "keep", keep);
    json_number(&json, "freed", freed);
    json_bool(&json, "dry_run", is_dry);
    json_end(&json);
}

static int prune(const char *path, const char *keep, bool is_dry, bool is_json)
{
    sqlite3 *db = NULL;
    uint64_t seq = 0, freed = 0;
    int code, result = database_open(path, &db);

    if (result != DONE)
        return result;
    result = keep_seq(path, keep, &seq);
    if (result != DONE) {
        sqlite3_close_v2(db);
        return result;
    }
    code = hyperwal_prune(db, NULL, seq, is_dry ? 1 : 0, &freed);
    if (code == SQLITE_OK)
        print_freed(path, seq, freed, is_dry, is_json);
    return finish(db, code);
}

static int run_prune(int argc, char **argv)
{
    bool is_json = false, is_dry = false;
    const char *keep = NULL;
    int c;

    while ((c = option_next(&verb_prune, argc, argv, prune_options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_KEEP)
            keep = optarg;
        else if (c == OPTION_DRY_RUN)
            is_dry = true;
        else
            is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_prune, "needs one DB");
    if (keep == NULL)
        return usage_error(&verb_prune, "needs --keep: from which seq or time on states stay");
    return prune(argv[optind], keep, is_dry, is_json);
}

const struct verb verb_prune = {
    .name = "prune",
    .synopsis = "DB --keep SEQ|TIME [--dry-run] [--json]",
    .summary = "give up the history before a seq or time",
    .help =
        "Deletes what is not needed to restore the state at SEQ or TIME and every later one.  The\n"
        "hashes and signatures of what is deleted stay, so that the rest can still be verified.\n\n"
        "  --keep SEQ|TIME  the oldest state that must stay (2026-11-22T10:00:00Z)\n"
        "  --dry-run        say what would be freed, change nothing\n"
        "  --json           one object: path, keep, freed (bytes), dry_run\n",
    .run = run_prune,
};
