/* hyperwal name: this user's own names for logs, and the names that a server has. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1, OPTION_REPLACE, OPTION_NO_LOOKUP };
enum { URLS_MAX = 16 };

static const struct option options[] = {
    {"replace", no_argument, NULL, OPTION_REPLACE},
    {"no-lookup", no_argument, NULL, OPTION_NO_LOOKUP},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct name_wishes {
    bool is_json, replaces, is_offline;
};

/* ------------------------------------------------------------------------------ printing */

static void print_json(const hyperwal_name *name)
{
    struct json json, urls = {0};

    json_begin(&json);
    json_text(&json, "name", name->name);
    if (name->has_key)
        json_key(&json, "key", name->key);
    else
        json_text(&json, "key", NULL);
    json_text(&json, "path", name->path);
    json_raw(&json, "urls", "[");
    for (unsigned i = 0; i < name->url_count; i++)
        json_item(&urls, name->urls[i]);
    putchar(']');
    json_end(&json);
}

/* NAME KEY WHERE..., with a - for a key that is not known. */
static void print_text(const hyperwal_name *name)
{
    char key[KEY_TEXT];

    words_print(name->name);
    printf(" %s", name->has_key ? key_text(name->key, key) : "-");
    if (name->path != NULL) {
        putchar(' ');
        words_print(name->path);
    }
    for (unsigned i = 0; i < name->url_count; i++) {
        putchar(' ');
        words_print(name->urls[i]);
    }
    putchar('\n');
}

static int print_name(void *ctx, const hyperwal_name *name)
{
    const bool *is_json = ctx;

    if (*is_json)
        print_json(name);
    else
        print_text(name);
    return 1;
}

/* ------------------------------------------------------------------------------- the verb */

static int told(int code, char *error)
{
    int result = code == SQLITE_OK ? DONE : failure_code(code, error);

    sqlite3_free(error);
    return result;
}

static int list(char **words, int count, bool is_json)
{
    char *error = NULL;
    int code;

    if (count > 1)
        return usage_error(&verb_name, "list takes one URL of a server at most");
    if (count == 0)
        code = hyperwal_name_list(print_name, &is_json, &error);
    else
        code = hyperwal_remote_names(words[0], print_name, &is_json, &error);
    return told(code, error);
}

static int remove_names(char **words, int count)
{
    int result = DONE;

    if (count == 0)
        return usage_error(&verb_name, "remove needs a NAME");
    for (int i = 0; i < count; i++) {
        char *error = NULL;
        int code = hyperwal_name_remove(words[i], &error);

        if (told(code, error) != DONE)
            result = FAILED; /* said; the others go on */
    }
    return result;
}

/* What `add` was told about a name. */
struct added {
    hyperwal_name name;
    const char *urls[URLS_MAX];
    char *made[URLS_MAX]; /* owned: URLs of servers, with the key behind */
    char *path;           /* owned */
};

static void added_release(struct added *added)
{
    for (int i = 0; i < URLS_MAX; i++)
        free(added->made[i]);
    free(added->path);
}

static int add_path(struct added *added, const char *text)
{
    hyperwal_log *log = NULL;

    if (added->path != NULL)
        return usage_error(&verb_name, "add takes one PATH at most");
    added->path = path_full(text);
    if (added->path == NULL)
        return failure("%s: %s", text, strerror(errno));
    added->name.path = added->path;
    if (added->name.has_key || hyperwal_log_open(added->path, &log, NULL) != SQLITE_OK)
        return DONE; /* its log may be made later */
    hyperwal_log_key(log, added->name.key);
    added->name.has_key = 1;
    hyperwal_log_close(log);
    return DONE;
}

static bool is_url(const char *text)
{
    return strstr(text, "://") != NULL && strncmp(text, "hyper:///", 9) != 0;
}

/* A server's URL, where the key is known, is one of the log there. */
static int add_url(struct added *added, const char *url)
{
    unsigned at = added->name.url_count;
    bool is_server = strncmp(url, "hyper://", 8) == 0 && strchr(url + 8, '/') == NULL;
    int host_size = (int)strcspn(url, "?"); /* ?server= comes behind the name */
    char key[KEY_TEXT];

    if (at == URLS_MAX)
        return usage_error(&verb_name, "at most %d URLs", (int)URLS_MAX);
    if (is_server && !added->name.has_key)
        return usage_error(&verb_name, "%s: of which database? %s/NAME, or its KEY before the URL",
                           url, url);
    if (is_server && asprintf(&added->made[at], "%.*s/%s%s", host_size, url,
                              key_text(added->name.key, key), url + host_size) < 0) {
        added->made[at] = NULL;
        return failure("no memory");
    }
    added->urls[at] = is_server ? added->made[at] : url;
    added->name.url_count++;
    return DONE;
}

/* Which log do they mean?  The first that answers tells. */
static int look_up(struct added *added)
{
    char *error = NULL;
    int code = SQLITE_OK, result;

    if (added->name.has_key || added->name.url_count == 0)
        return DONE;
    for (unsigned i = 0; i < added->name.url_count; i++) {
        sqlite3_free(error);
        error = NULL;
        code = hyperwal_remote_key(added->urls[i], added->name.key, &error);
        if (code == SQLITE_OK)
            break;
    }
    added->name.has_key = code == SQLITE_OK;
    result = told(code, error);
    if (result != DONE)
        (void)failure("%s: not added; with --no-lookup it is, without a key", added->name.name);
    return result;
}

static int add(char **words, int count, const struct name_wishes *wishes)
{
    struct added added = {.name = {.name = words[0]}};
    bool is_json = wishes->is_json;
    char *error = NULL;
    int code, result = DONE;

    if (count < 2)
        return usage_error(&verb_name, "add needs a NAME and a KEY, URL or PATH");
    added.name.urls = added.urls;
    for (int i = 1; i < count && result == DONE; i++) {
        if (!added.name.has_key && hyperwal_key_parse(words[i], added.name.key) == SQLITE_OK)
            added.name.has_key = 1;
        else
            result = is_url(words[i]) ? add_url(&added, words[i]) : add_path(&added, words[i]);
    }
    if (result == DONE && !wishes->is_offline)
        result = look_up(&added);
    if (result == DONE) {
        code = hyperwal_name_add(&added.name, wishes->replaces, &error);
        result = told(code, error);
    }
    if (result == DONE)
        (void)print_name(&is_json, &added.name);
    added_release(&added);
    return result;
}

static int run(int argc, char **argv)
{
    struct name_wishes wishes = {0};
    const char *what;
    int c;

    while ((c = option_next(&verb_name, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        wishes.is_json |= c == OPTION_JSON;
        wishes.replaces |= c == OPTION_REPLACE;
        wishes.is_offline |= c == OPTION_NO_LOOKUP;
    }
    what = optind < argc ? argv[optind] : "";
    argv += optind + 1;
    argc -= optind + 1;
    if (strcmp(what, "add") == 0)
        return add(argv, argc, &wishes);
    if (strcmp(what, "list") == 0)
        return list(argv, argc, wishes.is_json);
    if (strcmp(what, "remove") == 0)
        return remove_names(argv, argc);
    return usage_error(&verb_name, "%s%sadd, list or remove?", what, what[0] != '\0' ? ": " : "");
}

const struct verb verb_name = {
    .name = "name",
    .synopsis = "add|list|remove [--replace] [--no-lookup] [--json] [NAME] [KEY|URL|PATH]...",
    .summary = "one's own names for logs, and those of a server",
    .help =
        "  name add NAME URL...      NAME is what is served there; which log that is, is asked "
        "once\n"
        "  name add NAME KEY URL...  NAME is the log of this key, which is served there; a URL "
        "may\n"
        "                            then be that of a server alone, hyper://HOST[:PORT]\n"
        "  name add NAME PATH [URL]...\n"
        "                            NAME is a database of this machine, else what is served "
        "there\n"
        "  name list                 all of them\n"
        "  name list URL             what a server has for us: hyper://HOST[:PORT],\n"
        "                            ws://HOST:PORT/PATH or ipc://SOCKET\n"
        "  name remove NAME...\n\n"
        "Wherever there is SRC, hyper:NAME, and NAME if there is no such file, stand for it.  The\n"
        "names are in $HYPERWAL_NAMES, or in hyperwal/names.db below $XDG_CONFIG_HOME or "
        "~/.config.\n\n"
        "  --replace    take a NAME that there is already\n"
        "  --no-lookup  ask nobody which log it is: what the server calls so is taken\n"
        "  --json       of add and list an object each: name, key, path, urls\n",
    .run = run,
};
