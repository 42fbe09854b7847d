/* hyperwal verify: is everything what was signed? */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "program.h"
#include "report.h"

enum { OPTION_DEEP = 1, OPTION_JSON };

static const struct option options[] = {
    {"deep", no_argument, NULL, OPTION_DEEP},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int print_log(hyperwal_log *log, const char *src, bool is_deep, bool is_json, double seconds)
{
    char key[KEY_TEXT], size[SIZE_TEXT];
    hyperwal_head head;
    struct json json;
    int code = hyperwal_log_head(log, &head);

    if (code != SQLITE_OK)
        return failure_code(code, hyperwal_log_errmsg(log));
    if (!is_json) {
        printf("ok: %" PRIu64 " blocks, %s, signed by %s%s; %.1f s\n", head.length,
               size_text(head.byte_length, size), key_text(head.key, key),
               is_deep ? ", replayed" : "", seconds);
        return DONE;
    }
    json_begin(&json);
    json_text(&json, "path", source_is_remote(src) ? src : hyperwal_log_dir(log));
    json_bool(&json, "ok", true);
    json_text(&json, "what", "log");
    json_bool(&json, "deep", is_deep);
    json_key(&json, "key", head.key);
    json_number(&json, "length", head.length);
    json_number(&json, "byte_length", head.byte_length);
    json_seq(&json, "seq", head.seq);
    json_sum(&json, "sum", head.sum);
    json_end(&json);
    return DONE;
}

static int verify_log(const char *src, bool is_deep, bool is_json)
{
    struct progress progress;
    hyperwal_log *log = NULL;
    char *error = NULL;
    int code, result;

    code = hyperwal_log_open(src, &log, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    progress_begin(&progress, is_deep ? "verifying and replaying" : "verifying", false);
    code = hyperwal_log_verify(log, is_deep ? HYPERWAL_VERIFY_DEEP : 0, report_progress, &progress);
    progress_end(&progress);
    if (code == SQLITE_OK)
        result = print_log(log, src, is_deep, is_json, seconds_now() - progress.started);
    else
        result = failure_code(code, stop_asked() ? "stopped" : hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    return result;
}

static int print_replica(const char *path, const unsigned char key[32], uint64_t seq, uint64_t sum,
                         bool is_json)
{
    struct json json;

    if (!is_json) {
        printf("ok: the file is what the log says, seq %" PRIu64 ", state sum %016" PRIx64 "\n",
               seq, sum);
        return DONE;
    }
    json_begin(&json);
    json_text(&json, "path", path);
    json_bool(&json, "ok", true);
    json_text(&json, "what", "replica");
    json_key(&json, "key", key);
    json_seq(&json, "seq", seq);
    json_sum(&json, "sum", sum);
    json_end(&json);
    return DONE;
}

static int verify(const char *src, bool is_deep, bool is_json)
{
    unsigned char key[32];
    uint64_t seq, sum;
    char *error = NULL;
    int code = hyperwal_replica_info(src, 1, key, &seq, &sum, &error);
    int result;

    if (code == SQLITE_NOTFOUND) {
        result = verify_log(src, is_deep, is_json);
    } else if (code != SQLITE_OK) {
        result = failure_code(code, error);
    } else {
        result = print_replica(src, key, seq, sum, is_json);
        if (result == DONE && is_deep) /* of the log that it was fed from */
            result = verify_log(src, true, is_json);
    }
    sqlite3_free(error);
    return result;
}

static int run(int argc, char **argv)
{
    bool is_deep = false, is_json = false;
    char *src;
    int c, result;

    while ((c = option_next(&verb_verify, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_DEEP)
            is_deep = true;
        else
            is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_verify, "needs one SRC");
    src = source_path(argv[optind]);
    if (src == NULL)
        return failure("no memory");
    stop_watch();
    result = verify(src, is_deep, is_json);
    free(src);
    return result;
}

const struct verb verb_verify = {
    .name = "verify",
    .synopsis = "SRC [--deep] [--json]",
    .summary = "check signatures, hashes and states",
    .help =
        "Of a log: every block, hash, root and signature, and that every entry can be read.\n"
        "Of a replica: that its content has the state sum that the log names.\n"
        "Ends with 3 and the place of the first thing that is wrong.\n\n"
        "  --deep  replay everything: every snapshot against the transactions before it, every\n"
        "          state sum; of a replica also the log that it was fed from\n"
        "  --json  one object: path, ok, what, key, seq, sum; of a log deep, length, byte_length\n",
    .run = run,
};
