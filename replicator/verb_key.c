/* hyperwal key: the public key of a log, or one's own among peers; and keys of servers. */
#include <stdio.h>
#include <stdlib.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1, OPTION_IDENTITY, OPTION_FORGET };

static const struct option options[] = {
    {"identity", required_argument, NULL, OPTION_IDENTITY},
    {"forget", required_argument, NULL, OPTION_FORGET},
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
static int print_identity(const char *file, bool is_json)
{
    char text[KEY_TEXT], brief[KEY_TEXT];
    unsigned char key[32];
    char *error = NULL;
    struct json json;
    int code = hyperwal_identity(file, key, &error), result = DONE;

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

/* A server that was made anew may be met again. */
static int forget(const char *url, bool is_json)
{
    unsigned count = 0;
    char *error = NULL;
    struct json json;
    int code = hyperwal_server_forget(url, &count, &error), result = DONE;

    if (code != SQLITE_OK) {
        result = failure_code(code, error);
    } else if (is_json) {
        json_begin(&json);
        json_text(&json, "server", url);
        json_number(&json, "forgotten", count);
        json_end(&json);
    } else if (count == 0) {
        result = failure("%s: no such server is known", url);
    }
    sqlite3_free(error);
    return result;
}

static int print_source(const char *src, bool is_json)
{
    char *path = source_path(src);
    int result = path != NULL ? print_key(path, is_json) : failure("no memory");

    free(path);
    return result;
}

static int run(int argc, char **argv)
{
    const char *identity = NULL, *forgotten = NULL;
    bool is_json = false;
    int c;

    while ((c = option_next(&verb_key, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_IDENTITY)
            identity = optarg;
        else if (c == OPTION_FORGET)
            forgotten = optarg;
        else
            is_json = true;
    }
    if (argc - optind > 1)
        return usage_error(&verb_key, "takes one SRC at most");
    if ((argc > optind) + (identity != NULL) + (forgotten != NULL) > 1)
        return usage_error(&verb_key, "SRC, --identity and --forget: one of them");
    if (forgotten != NULL)
        return forget(forgotten, is_json);
    return argc == optind ? print_identity(identity, is_json) : print_source(argv[optind], is_json);
}

const struct verb verb_key = {
    .name = "key",
    .synopsis = "[--identity FILE | --forget URL] [--json] [SRC]",
    .summary = "print the public key of a log, or one's own",
    .help =
        "The key names the log, and proves every entry of it.  The secret half never leaves the\n"
        "file `key` in the log's directory; a copy of the directory without that file is a\n"
        "read-only mirror.\n\n"
        "Without SRC: the key by which servers know this user, for their --allow and their files\n"
        "of authorized keys, in hexadecimal and in z-base-32; made if there is none.  It is in\n"
        "$HYPERWAL_IDENTITY, or in hyperwal/identity below $XDG_CONFIG_HOME or ~/.config.\n\n"
        "  --identity FILE  the same of another file\n"
        "  --forget URL     forget the key by which a server is known again: it was made anew\n"
        "  --json           one object: path, key, discovery_key; without SRC key, short; of\n"
        "                   --forget server, forgotten (how many keys)\n",
    .run = run,
};
