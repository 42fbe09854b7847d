/* hyperwal init: make the log, adopt the database. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1, OPTION_ADOPT };

static const struct option options[] = {
    {"adopt", no_argument, NULL, OPTION_ADOPT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void print_head(const char *path, const hyperwal_head *head, uint64_t seq, bool is_json)
{
    char text[KEY_TEXT];
    struct json json;

    if (!is_json) {
        printf("key %s\nseq %" PRIu64 "\n", key_text(head->key, text), seq);
        return;
    }
    json_begin(&json);
    json_text(&json, "path", path);
    json_key(&json, "key", head->key);
    json_key(&json, "discovery_key", head->discovery_key);
    json_seq(&json, "seq", seq);
    json_seq(&json, "snapshot_seq", head->snapshot_seq);
    json_number(&json, "page_size", head->page_size);
    json_number(&json, "pages", head->page_count);
    json_sum(&json, "sum", head->sum);
    json_end(&json);
}

static int adopt(const char *path, sqlite3 *db, bool is_json)
{
    hyperwal_head head = {0};
    uint64_t seq = HYPERWAL_SEQ_NONE;
    int code, result;

    /* An empty file gets its first page here; everything else is in WAL mode already. */
    code = sqlite3_exec(db, "PRAGMA journal_mode=WAL; SELECT count(*) FROM sqlite_schema", NULL,
                        NULL, NULL);
    if (code != SQLITE_OK) {
        (void)failure("%s: %s", path, sqlite3_errmsg(db));
        return code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? CORRUPT : FAILED;
    }
    result = database_wait_adopted(path, db, &head);
    if (result != DONE)
        return result;
    code = hyperwal_seq(db, NULL, &seq);
    if (code != SQLITE_OK)
        return failure_code(code, failure_words(db, code));
    print_head(path, &head, seq, is_json);
    return DONE;
}

/* The log beside the database is a copy, and the one that shall go on. */
static int take_over(const char *path)
{
    char *error = NULL;
    int code, result = DONE;

    if (!database_has_log(path))
        return failure("%s: has no log to adopt; without --adopt one is made", path);
    code = hyperwal_log_adopt(path, &error);
    if (code != SQLITE_OK)
        result = failure_code(code, error);
    sqlite3_free(error);
    return result;
}

static int init(const char *path, bool is_copy, bool is_json)
{
    sqlite3 *db = NULL;
    char *error = NULL;
    bool is_replica = false;
    int code, result = database_is_replica(path, &is_replica);

    if (result != DONE)
        return result;
    if (is_replica)
        return failure("%s: a replica; it has the log of its primary", path);
    if (database_has_log(path) && !is_copy)
        return failure("%s: has a log already, %s-hyper; `hyperwal status` shows it", path, path);
    result = database_check(path);
    if (result == DONE && is_copy)
        result = take_over(path);
    if (result != DONE)
        return result;
    code = hyperwal_open(path, 0, &db, &error);
    result = code == SQLITE_OK ? adopt(path, db, is_json) : failure_code(code, error);
    sqlite3_free(error);
    sqlite3_close_v2(db);
    return result;
}

/* DB is what a server is to call it. */
static int create(const char *url, bool is_json)
{
    unsigned char key[32];
    char text[KEY_TEXT];
    char *error = NULL;
    struct json json;
    int code = hyperwal_remote_create(url, 0, key, &error);
    int result = code == SQLITE_OK ? DONE : failure_code(code, error);

    sqlite3_free(error);
    if (result != DONE)
        return result == USAGE ? FAILED : result;
    if (!is_json) {
        printf("key %s\n", key_text(key, text));
        return DONE;
    }
    json_begin(&json);
    json_text(&json, "path", url);
    json_key(&json, "key", key);
    json_end(&json);
    return DONE;
}

static int run(int argc, char **argv)
{
    bool is_json = false, is_copy = false;
    int c;

    while ((c = option_next(&verb_init, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_ADOPT)
            is_copy = true;
        else
            is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_init, "needs one DB");
    stop_watch();
    if (source_is_remote(argv[optind]))
        return is_copy ? usage_error(&verb_init, "--adopt is for a database of this machine")
                       : create(argv[optind], is_json);
    return init(argv[optind], is_copy, is_json);
}

const struct verb verb_init = {
    .name = "init",
    .synopsis = "DB [--adopt] [--json]",
    .summary = "make the log of a database",
    .help =
        "Makes the directory DB-hyper with a new key pair and puts the whole database into the "
        "log\n"
        "as its first snapshot; the database may be in use meanwhile.  It is switched to WAL "
        "mode.\n"
        "Prints the log's public key and the seq of the state.  From then on open the database\n"
        "with the VFS `hyperwal`, or run `hyperwal serve DB` beside the application.\n\n"
        "If DB is a URL, the server there makes an empty database of that name, which takes the\n"
        "right to create.\n\n"
        "  --adopt  a log that was copied, or came back from a backup, goes on here, as a new\n"
        "           fork; make sure that the original is not written any more\n"
        "  --json   one object: path, key, discovery_key, seq, snapshot_seq, page_size, pages,\n"
        "           sum\n",
    .run = run,
};
