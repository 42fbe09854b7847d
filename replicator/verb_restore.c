/* hyperwal restore: the database as it was. */
#include <inttypes.h>
#include <stdio.h>

#include "program.h"
#include "report.h"

enum { OPTION_SEQ = 1, OPTION_TIME, OPTION_LABEL, OPTION_FORCE, OPTION_JSON };

static const struct option options[] = {
    {"seq", required_argument, NULL, OPTION_SEQ},
    {"time", required_argument, NULL, OPTION_TIME},
    {"label", required_argument, NULL, OPTION_LABEL},
    {"force", no_argument, NULL, OPTION_FORCE},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct wishes {
    hyperwal_target target;
    int targets; /* how many were named */
    bool is_forced, is_json;
};

static int target_option(int c, struct wishes *wishes)
{
    hyperwal_target *target = &wishes->target;

    wishes->targets++;
    if (c == OPTION_SEQ) {
        target->kind = HYPERWAL_SEQ;
        if (!number_parse(optarg, &target->seq))
            return usage_error(&verb_restore, "--seq %s: not a seq", optarg);
    } else if (c == OPTION_TIME) {
        target->kind = HYPERWAL_TIME;
        if (hyperwal_time_parse(optarg, &target->time_ms) != SQLITE_OK)
            return usage_error(&verb_restore,
                               "--time %s: not a time; write 2026-11-22T10:00:00Z (UTC), or "
                               "milliseconds since 1970",
                               optarg);
    } else {
        target->kind = HYPERWAL_LABEL;
        target->label = optarg;
    }
    return wishes->targets == 1
               ? DONE
               : usage_error(&verb_restore, "only one of --seq, --time and --label");
}

static void print_reached(const char *out, const hyperwal_entry *reached, bool is_json,
                          double seconds)
{
    char when[TIME_TEXT];
    struct json json;

    if (!is_json) {
        printf("%s: seq %" PRIu64 " of %s, %" PRIu32 " pages, state sum %016" PRIx64 "; %.2f s\n",
               out, reached->seq, time_text(reached->time_ms, when), reached->db_pages,
               reached->sum, seconds);
        return;
    }
    json_begin(&json);
    json_text(&json, "path", out);
    json_number(&json, "seq", reached->seq);
    json_time(&json, "time", reached->time_ms);
    json_number(&json, "pages", reached->db_pages);
    json_sum(&json, "sum", reached->sum);
    json_end(&json);
}

static int restore(const char *src, const char *out, const struct wishes *wishes)
{
    hyperwal_entry reached = {0};
    hyperwal_log *log = NULL;
    struct progress progress;
    char *error = NULL;
    int code, result = DONE;

    code = hyperwal_log_open(src, &log, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    progress_begin(&progress, "restoring", true);
    code =
        hyperwal_restore(log, &wishes->target, out, wishes->is_forced ? HYPERWAL_RESTORE_FORCE : 0,
                         report_progress, &progress, &reached);
    progress_end(&progress);
    if (code == SQLITE_OK)
        print_reached(out, &reached, wishes->is_json, seconds_now() - progress.started);
    else
        result = failure_code(code, stop_asked() ? "stopped; nothing was changed"
                                                 : hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    return result;
}

static int run(int argc, char **argv)
{
    struct wishes wishes = {0};
    int c;

    while ((c = option_next(&verb_restore, argc, argv, options)) != -1) {
        int result = DONE;

        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_FORCE)
            wishes.is_forced = true;
        else if (c == OPTION_JSON)
            wishes.is_json = true;
        else
            result = target_option(c, &wishes);
        if (result != DONE)
            return result;
    }
    if (argc - optind != 2)
        return usage_error(&verb_restore, "needs SRC and OUT");
    if (argv[optind + 1][0] == '\0')
        return usage_error(&verb_restore, "OUT is empty");
    stop_watch();
    return restore(argv[optind], argv[optind + 1], &wishes);
}

const struct verb verb_restore = {
    .name = "restore",
    .synopsis = "SRC OUT [--seq N | --time T | --label NAME] [--force] [--json]",
    .summary = "write the database as it was at a seq, time or label",
    .help =
        "Writes the newest state, or the one asked for, to the new file OUT: complete, synced and\n"
        "compared with the state sum that the log carries, or not at all.  Prints what it "
        "reached;\n"
        "ends with 4 if there is no such state.\n\n"
        "  --seq N       after the entry that block N belongs to\n"
        "  --time T      after the last commit not later (2026-11-22T10:00:00Z)\n"
        "  --label NAME  at the newest label of that name\n"
        "  --force       replace an OUT that exists and that nobody has open\n"
        "  --json        one object: path, seq, time, pages, sum\n",
    .run = run,
};
