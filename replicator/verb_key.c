/* hyperwal key: the public key of a log. */
#include <stdio.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1 };

static const struct option options[] = {
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int print_key(const char *src, bool is_json)
{
    unsigned char key[32];
    hyperwal_head head = {0};
    hyperwal_log *log = NULL;
    char *error = NULL;
    char text[KEY_TEXT];
    struct json json;
    int code, result = DONE;

    code = hyperwal_replica_info(src, 0, key, NULL, NULL, NULL); /* also if its log is gone */
    if (code != SQLITE_OK) {
        code = hyperwal_log_open(src, &log, &error);
        if (code != SQLITE_OK) {
            result = failure_code(code, error);
            goto done;
        }
        code = hyperwal_log_head(log, &head);
        if (code != SQLITE_OK) {
            result = failure_code(code, hyperwal_log_errmsg(log));
            goto done;
        }
        for (int i = 0; i < 32; i++)
            key[i] = head.key[i];
    }
    if (!is_json) {
        printf("%s\n", key_text(key, text));
    } else {
        json_begin(&json);
        json_text(&json, "path", src);
        json_key(&json, "key", key);
        if (log != NULL)
            json_key(&json, "discovery_key", head.discovery_key);
        json_end(&json);
    }
done:
    sqlite3_free(error);
    hyperwal_log_close(log);
    return result;
}

static int run(int argc, char **argv)
{
    bool is_json = false;
    int c;

    while ((c = option_next(&verb_key, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(
            &verb_key, "needs one SRC; a key of one's own is for peers of a network, which this "
                       "build does not have");
    return print_key(argv[optind], is_json);
}

const struct verb verb_key = {
    .name = "key",
    .synopsis = "SRC [--json]",
    .summary = "print the public key of a log",
    .help =
        "The key names the log, and proves every entry of it.  The secret half never leaves the\n"
        "file `key` in the log's directory; a copy of the directory without that file is a\n"
        "read-only mirror.\n\n"
        "  --json  one object: path, key, discovery_key\n",
    .run = run,
};
