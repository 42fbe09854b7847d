/* hyperwal log: one line an entry. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "program.h"
#include "report.h"

enum { OPTION_FROM = 1, OPTION_TO, OPTION_JSON };

static const struct option options[] = {
    {"from", required_argument, NULL, OPTION_FROM},
    {"to", required_argument, NULL, OPTION_TO},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void print_json(const hyperwal_entry *entry)
{
    struct json json;

    json_begin(&json);
    json_number(&json, "seq", entry->seq);
    json_number(&json, "blocks", entry->blocks);
    json_text(&json, "type", entry->type);
    json_time(&json, "time", entry->time_ms);
    json_number(&json, "pages", entry->pages);
    json_number(&json, "raw_bytes", entry->raw_bytes);
    json_number(&json, "bytes", entry->bytes);
    json_number(&json, "db_pages", entry->db_pages);
    json_sum(&json, "sum", entry->sum);
    if (entry->text[0] != '\0')
        json_text(&json,
                  strcmp(entry->type, "gap") == 0      ? "reason"
                  : strcmp(entry->type, "switch") == 0 ? "switch"
                                                       : "name",
                  entry->text);
    json_end(&json);
}

static void print_line(const hyperwal_entry *entry)
{
    char when[TIME_TEXT];

    if (strcmp(entry->type, "pruned") == 0) {
        printf("%10" PRIu64 " %-11s %" PRIu64 " blocks\n", entry->seq, entry->type, entry->blocks);
        return;
    }
    printf("%10" PRIu64 " %-11s %s %6" PRIu32 " %10" PRIu64 " %9" PRIu64 " %016" PRIx64 "%s",
           entry->seq, entry->type, time_text(entry->time_ms, when), entry->pages, entry->raw_bytes,
           entry->bytes, entry->sum, entry->text[0] != '\0' ? " " : "");
    words_print(entry->text);
    putchar('\n');
}

static int walk(hyperwal_log *log, uint64_t from, uint64_t to, bool is_json)
{
    hyperwal_entry entry;
    int code = SQLITE_OK;

    if (!is_json)
        printf("%10s %-11s %-24s %6s %10s %9s %s\n", "seq", "type", "time", "pages", "raw bytes",
               "bytes", "state sum");
    for (uint64_t seq = from; seq <= to && !stop_asked() && ferror(stdout) == 0;) {
        code = hyperwal_log_next(log, &seq, &entry);
        if (code != SQLITE_OK)
            break;
        if (entry.seq - entry.blocks + 1 > to)
            break;
        if (is_json)
            print_json(&entry);
        else
            print_line(&entry);
    }
    return code == SQLITE_OK || code == SQLITE_DONE ? DONE
                                                    : failure_code(code, hyperwal_log_errmsg(log));
}

/* The end of the range that `text` names; without it `otherwise`. */
static int range_end(hyperwal_log *log, const char *text, uint64_t *seq)
{
    int code;

    if (text == NULL)
        return DONE;
    code = point_parse(log, text, seq);
    if (code == SQLITE_MISUSE)
        return usage_error(&verb_log, "%s: neither a seq nor a time", text);
    return code == SQLITE_OK ? DONE : failure_code(code, hyperwal_log_errmsg(log));
}

static int print_range(hyperwal_log *log, const char *from_text, const char *to_text, bool is_json)
{
    uint64_t from = 0, to = UINT64_MAX, number;
    int result = range_end(log, from_text, &from);

    if (result != DONE)
        return result;
    /* A time names the last entry before it; the range begins with the one after that. */
    if (from_text != NULL && !(number_parse(from_text, &number) && number == from))
        from = from == HYPERWAL_SEQ_NONE ? 0 : from + 1;
    result = range_end(log, to_text, &to);
    if (result != DONE)
        return result;
    if (to_text != NULL && to == HYPERWAL_SEQ_NONE) /* everything is later */
        return DONE;
    return walk(log, from, to, is_json);
}

static int run(int argc, char **argv)
{
    const char *from = NULL, *to = NULL;
    hyperwal_log *log = NULL;
    bool is_json = false;
    char *error = NULL;
    int code, result, c;

    while ((c = option_next(&verb_log, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_FROM)
            from = optarg;
        else if (c == OPTION_TO)
            to = optarg;
        else
            is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_log, "needs one SRC");
    stop_watch();
    code = hyperwal_log_open(argv[optind], &log, &error);
    result = code == SQLITE_OK ? print_range(log, from, to, is_json) : failure_code(code, error);
    sqlite3_free(error);
    hyperwal_log_close(log);
    return result;
}

const struct verb verb_log = {
    .name = "log",
    .synopsis = "SRC [--from SEQ|TIME] [--to SEQ|TIME] [--json]",
    .summary = "list the entries of a log",
    .help =
        "One line an entry: seq, type, time of the commit, page images in it, their bytes, bytes\n"
        "in the log, and the state sum of the database after it.\n\n"
        "  --from SEQ|TIME  begin there (2026-11-22T10:00:00Z, or a seq)\n"
        "  --to SEQ|TIME    end there\n"
        "  --json           one object a line: seq, blocks, type, time, pages, raw_bytes, bytes,\n"
        "                   db_pages, sum; of a label also name, of a gap reason,\n"
        "                   of a switch the words in switch\n",
    .run = run,
};
