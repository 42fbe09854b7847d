/* hyperwal promote: make a replica the primary. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1, OPTION_FORCE, OPTION_FROM, OPTION_ALSO };
enum { PEERS_MAX = 16 };

static const struct option options[] = {
    {"force", no_argument, NULL, OPTION_FORCE},
    {"from", required_argument, NULL, OPTION_FROM},
    {"also", required_argument, NULL, OPTION_ALSO},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct promote_wishes {
    const char *path, *from;
    const char *peers[PEERS_MAX];
    unsigned peer_count;
    bool is_forced, is_json;
};

static void print_promotion(const struct promote_wishes *wishes, const hyperwal_promotion *done)
{
    char key[KEY_TEXT], old[KEY_TEXT], kept[4096];
    struct stat stat_;
    struct json json;
    int size =
        snprintf(kept, sizeof(kept), "%s-hyper.%.16s", wishes->path, key_text(done->old_key, old));
    bool is_kept = size > 0 && size < (int)sizeof(kept) && stat(kept, &stat_) == 0;

    if (!wishes->is_json) {
        printf("key %s\ncontinues %s at seq %" PRIu64 "\n", key_text(done->key, key), old,
               done->old_seq);
        if (is_kept)
            printf("kept %s\n", kept);
        return;
    }
    json_begin(&json);
    json_text(&json, "path", wishes->path);
    json_key(&json, "key", done->key);
    json_key(&json, "old_key", done->old_key);
    json_seq(&json, "old_seq", done->old_seq);
    json_number(&json, "old_fork", done->old_fork);
    json_text(&json, "kept", is_kept ? kept : NULL);
    json_end(&json);
}

/* Followers that begin, and restores, need the first snapshot of the new log. */
static int first_snapshot(const char *path)
{
    sqlite3 *db = NULL;
    hyperwal_head head;
    int result = database_open(path, &db);

    if (result == DONE)
        result = database_wait_adopted(path, db, &head);
    sqlite3_close_v2(db);
    return result;
}

static int promote(const struct promote_wishes *wishes)
{
    hyperwal_promotion done;
    struct progress progress;
    char *error = NULL;
    int code, result;

    progress_begin(&progress, "catching up", false);
    code = hyperwal_promote(wishes->path, wishes->from, wishes->peers, wishes->peer_count,
                            wishes->is_forced ? HYPERWAL_PROMOTE_FORCE : 0, report_progress,
                            &progress, &done, &error);
    progress_end(&progress);
    result = code == SQLITE_OK ? DONE : failure_code(code, error);
    sqlite3_free(error);
    if (result == DONE)
        result = first_snapshot(wishes->path);
    if (result == DONE)
        print_promotion(wishes, &done);
    return result;
}

static int run(int argc, char **argv)
{
    struct promote_wishes wishes = {.path = NULL};
    int c;

    while ((c = option_next(&verb_promote, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_FORCE)
            wishes.is_forced = true;
        else if (c == OPTION_FROM)
            wishes.from = optarg;
        else if (c == OPTION_JSON)
            wishes.is_json = true;
        else if (wishes.peer_count < PEERS_MAX)
            wishes.peers[wishes.peer_count++] = optarg;
        else
            return usage_error(&verb_promote, "too many --also");
    }
    if (argc - optind != 1)
        return usage_error(&verb_promote, "needs one REPLICA");
    if (wishes.from != NULL && wishes.is_forced)
        return usage_error(&verb_promote, "--from hands over without loss, --force does without");
    wishes.path = argv[optind];
    stop_watch();
    return promote(&wishes);
}

const struct verb verb_promote = {
    .name = "promote",
    .synopsis = "REPLICA [--from SRC] [--also URL]... [--force] [--json]",
    .summary = "make a replica the primary",
    .help =
        "Gives REPLICA, which nobody follows just now, a log of its own with a new key: it names "
        "the\n"
        "old log and the seq that it continues, so that followers of the old one go on with it.  "
        "From\n"
        "then on open REPLICA with the VFS, or serve it.  What was mirrored of the old log is kept "
        "in\n"
        "REPLICA-hyper.KEY.  Before, everything is applied that can be had from where REPLICA was\n"
        "fed; if somebody who can be reached has more, or the primary itself answers, nothing is\n"
        "done.  Interrupted anywhere, it is still a replica, and a second call goes on.\n\n"
        "  --from SRC   the primary, a URL or a path: it ends its log, everything is applied, and\n"
        "               REPLICA goes on without loss; until then the primary stays the primary\n"
        "  --also URL   somebody else who may have more of the old log\n"
        "  --force      promote it without what others have\n"
        "  --json       one object: path, key, old_key, old_seq, old_fork, kept (a directory)\n",
    .run = run,
};
