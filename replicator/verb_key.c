/* hyperwal key: the public key of a log, or one's own among peers. */
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

/* The key by which servers know us, for their --allow. */
static int print_identity(bool is_json)
{
    char text[KEY_TEXT], brief[KEY_TEXT];
    unsigned char key[32];
    char *error = NULL;
    struct json json;
    int code = hyperwal_identity(NULL, key, &error), result = DONE;

    if (code != SQLITE_OK) {
        result = failure_code(code, error);
    } else if (!is_json) {
        printf("%s\n%s\n", key_text(key, text), key_short(key, brief));
    } else {
        json_begin(&json);
        json_key(&json, "key", key);
        json_text(&json, "short", key_short(key, brief));
        json_end(&json);
    }
    sqlite3_free(error);
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
    if (argc == optind)
        return print_identity(is_json);
    if (argc - optind != 1)
        return usage_error(&verb_key, "takes one SRC at most");
    return print_key(argv[optind], is_json);
}

const struct verb verb_key = {
    .name = "key",
    .synopsis = "[SRC] [--json]",
    .summary = "print the public key of a log, or one's own",
    .help =
        "The key names the log, and proves every entry of it.  The secret half never leaves the\n"
        "file `key` in the log's directory; a copy of the directory without that file is a\n"
        "read-only mirror.\n\n"
        "Without SRC: the key by which servers know this user, for their --allow, in hexadecimal\n"
        "and in z-base-32; made if there is none.  It is in $HYPERWAL_IDENTITY, or in "
        "hyperwal/identity\n"
        "below $XDG_CONFIG_HOME or ~/.config.\n\n"
        "  --json  one object: path, key, discovery_key; without SRC key, short\n",
    .run = run,
};
