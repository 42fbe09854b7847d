/* Implements served.h. */
#include "served.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "report.h"

enum { BUSY_MS = 2000 };       /* how long a program that is in a transaction is waited for */
enum { LOOK_MS_LIMIT = 8192 }; /* the last look is twice that after a write without a commit */
enum { ROUND_MS = 1000 };      /* of work, before somebody else has the thread */
enum { JUDGE_MS = 250 };
enum { SUSPECT_MS = 500 }; /* a commit through the VFS is counted by then */
/* After the start, if nobody wrote since; not at once, for programs may be started with us. */
enum { FIRST_REST_MS = 500 };
enum { RETRY_MS = 1000 }; /* after a database could not be put to rest, or be opened again */

struct served *served_find(struct served_list *list, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].path, path) == 0)
            return &list->items[i];
    return NULL;
}

struct served *served_find_link(struct served_list *list, const char *link)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].link != NULL && strcmp(list->items[i].link, link) == 0)
            return &list->items[i];
    return NULL;
}

static bool has_inode(const struct served_list *list, const struct stat *stat_)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].device == stat_->st_dev && list->items[i].inode == stat_->st_ino)
            return true;
    return false;
}

enum answer { NO, YES, UNKNOWN /* a call failed; why was said */ };

/* Is that an answer, and not a failure? */
static bool is_nothing(int error)
{
    return error == ENOENT || error == ENOTDIR;
}

/*
 * Does the file begin like a database?  Its descriptor is our own, and closing it drops every lock
 * that this process has on the file: so never of one that is served, by whatever name.
 */
static enum answer is_database(const char *path)
{
    char magic[16];
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = -1;

    if (file < 0 && is_nothing(errno))
        return NO;
    if (file >= 0)
        got = read(file, magic, sizeof(magic));
    if (got < 0)
        (void)failure("%s: cannot see whether it is a database: %s", path, strerror(errno));
    if (file >= 0)
        close(file);
    if (got < 0)
        return UNKNOWN;
    return got == (ssize_t)sizeof(magic) && memcmp(magic, "SQLite format 3", sizeof(magic)) == 0
               ? YES
               : NO;
}

/* Is there, or may there be, a file of that name in the directory of `file`, the end of `path`? */
static bool has_sibling(const char *path, const char *file, const char *name)
{
    char *sibling = sqlite3_mprintf("%.*s%s", (int)(file - path), path, name);
    bool is_free = sibling != NULL && access(sibling, F_OK) != 0 && errno == ENOENT;

    sqlite3_free(sibling);
    return !is_free;
}

/* The file's name, one word, unlike any other. */
static void name_make(const struct served_list *list, const char *path,
                      char out[SERVED_NAME_MAX + 8])
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    char base[SERVED_NAME_MAX + 1];
    bool is_changed = false;
    unsigned n = 2;

    snprintf(base, sizeof(base), "%s", file);
    for (size_t at = 0; base[at] != '\0'; at++) {
        if (base[at] != ' ' && (unsigned char)base[at] >= 0x20)
            continue;
        base[at] = '_';
        is_changed = true;
    }
    /* Rights are given to names: whose file is called so has it, whichever is found first. */
    if (is_changed && has_sibling(path, file, base))
        snprintf(out, sizeof(list->items->name), "%s-%u", base, n++);
    else
        snprintf(out, sizeof(list->items->name), "%s", base);
    for (unsigned i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, out) != 0)
            continue;
        snprintf(out, sizeof(list->items->name), "%s-%u", base, n++);
        i = (unsigned)-1; /* and look at all of them again */
    }
}

static void print_line(const struct served_list *list, const struct served *served,
                       const unsigned char key[32], bool is_json)
{
    char text[KEY_TEXT];
    struct json json;
    char *url = list->node != NULL ? hyperwal_node_url(list->node, served->name)
                                   : sqlite3_mprintf("hyper://%s", served->path);

    if (!is_json) {
        printf("%s %s %s\n", served->name, key_text(key, text), url != NULL ? url : served->path);
        fflush(stdout);
    } else {
        json_begin(&json);
        json_text(&json, "name", served->name);
        json_key(&json, "key", key);
        json_text(&json, "url", url);
        json_text(&json, "path", served->path);
        json_end(&json);
    }
    sqlite3_free(url);
}

/* Changes when another connection has committed. */
static int64_t data_version(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    int64_t version = -1;

    if (sqlite3_prepare_v2(db, "PRAGMA data_version", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        version = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement); /* without a row: -1, which is as good as no change */
    return version;
}

/* What the state of a database (hyperwal_status()) says. */
struct facts {
    uint64_t seq, commits, lag; /* of the log; through the VFS; frames not yet in the log */
    bool has_snapshot;
};

static uint64_t number_of(const char *json, const char *name)
{
    const char *field = strstr(json, name);

    return field != NULL ? strtoull(field + strlen(name), NULL, 10) : 0;
}

static struct facts facts_of(sqlite3 *db)
{
    struct facts facts = {0};
    char *json = NULL;

    if (hyperwal_status(db, NULL, &json) == SQLITE_OK && json != NULL)
        facts = (struct facts){
            .seq = number_of(json, "\"seq\":"),
            .commits = number_of(json, "\"commits\":"),
            .lag = number_of(json, "\"lag\":"),
            .has_snapshot = strstr(json, "\"snapshot_seq\":null") == NULL,
        };
    sqlite3_free(json);
    return facts;
}

/*
 * Somebody may have committed: through the VFS?  Its commits are counted, but a moment after they
 * can be seen: so one that is not counted is a suspicion at first.
 */
static void commit_note(struct served *served, uint64_t commits, bool has_committed)
{
    double now = seconds_now();

    if (commits != served->commits)
        served->suspect_since = 0;
    else if (served->suspect_since != 0 && now > served->suspect_since + SUSPECT_MS / 1000.0)
        served->is_foreign = true;
    else if (has_committed && served->suspect_since == 0)
        served->suspect_since = now;
    served->commits = commits;
}

/* First look at the database: it becomes ready for capture, and this connection holds SHARED. */
static int database_begin(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    bool is_wal = false;
    int code;

    sqlite3_busy_timeout(db, BUSY_MS);
    code = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return code;
    code = sqlite3_prepare_v2(db, "PRAGMA journal_mode=WAL", -1, &statement, NULL);
    if (code == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        const unsigned char *mode = sqlite3_column_text(statement, 0);

        is_wal = mode != NULL && strcmp((const char *)mode, "wal") == 0;
    }
    code = sqlite3_finalize(statement);
    if (code == SQLITE_OK && !is_wal)
        code = SQLITE_BUSY;
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    return code;
}

static int log_key(const char *path, unsigned char key[32], char **error)
{
    hyperwal_log *log = NULL;
    hyperwal_head head;
    int code = hyperwal_log_open(path, &log, error);

    if (code != SQLITE_OK)
        return code;
    code = hyperwal_log_head(log, &head);
    if (code == SQLITE_OK)
        memcpy(key, head.key, 32);
    else
        *error = sqlite3_mprintf("%s", hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    return code;
}

static bool is_again(int code)
{
    return (code & 0xff) == SQLITE_BUSY || (code & 0xff) == SQLITE_LOCKED;
}

/*
 * Marks are kept at any time: a first commit by a program without the VFS may be copied and its WAL
 * begun anew before anybody looks, and beside commits through the VFS it may not be told from them.
 */
static int marks_open(struct served *served)
{
    int code = SQLITE_OK;

    if (!served->has_sidecar)
        code = sidecar_open(&served->sidecar, served->path);
    served->has_sidecar = code == SQLITE_OK;
    return code;
}

static bool is_same_file(const struct served *served)
{
    struct stat stat_;

    return stat(served->path, &stat_) == 0 && stat_.st_dev == served->device &&
           stat_.st_ino == served->inode;
}

/* A call that failed says nothing.  Of a replica the log is served: its file may be another one. */
static bool is_at(const struct served *served, const char *path)
{
    struct stat stat_;

    if (stat(path, &stat_) != 0)
        return !is_nothing(errno);
    return served->is_replica || (stat_.st_dev == served->device && stat_.st_ino == served->inode);
}

bool served_is_there(const struct served *served)
{
    return is_at(served, served->path) && (served->link == NULL || is_at(served, served->link));
}

/* The database, through the VFS: from now on its log grows. */
static int served_connect(struct served *served, char **error)
{
    int code = hyperwal_open(served->path, 0, &served->db, error);

    if (code != SQLITE_OK)
        return code;
    if (sqlite3_db_readonly(served->db, "main") == 1) { /* nothing would be logged */
        *error = sqlite3_mprintf("%s: cannot be opened for writing", served->path);
        return SQLITE_CANTOPEN;
    }
    if (served->rest.db != NULL && is_same_file(served))
        code = hyperwal_hold(served->db, NULL, HYPERWAL_HELD_SINCE);
    if (code == SQLITE_OK)
        code = database_begin(served->db);
    if (code == SQLITE_OK) {
        served->version = data_version(served->db);
        code = marks_open(served);
    }
    if (code != SQLITE_OK)
        *error = sqlite3_mprintf("%s: %s", served->path, sqlite3_errmsg(served->db));
    return code;
}

static void served_disconnect(struct served *served)
{
    if (served->has_sidecar)
        sidecar_close(&served->sidecar);
    served->has_sidecar = false;
    sqlite3_close_v2(served->db);
    served->db = NULL;
}

static int database_serve(struct served *served, unsigned char key[32], char **error)
{
    int code = served_connect(served, error);
    uint64_t seq;

    if (code != SQLITE_OK)
        return code;
    /* If the log is slow to start, the first mark is planted later. */
    if (hyperwal_seq(served->db, NULL, &seq) == SQLITE_OK && served->has_sidecar)
        (void)sidecar_move(&served->sidecar, served->db);
    return log_key(served->path, key, error);
}

/* Open it and take the list's next place; *served has everything but that. */
static enum served_result served_open(struct served_list *list, struct served *served, bool is_json,
                                      int *result)
{
    unsigned char key[32];
    char *error = NULL;
    struct served *grown;
    int code = served->is_replica ? hyperwal_replica_info(served->path, 0, key, NULL, NULL, &error)
                                  : database_serve(served, key, &error);

    if (code == SQLITE_OK) {
        grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
        if (grown == NULL)
            code = SQLITE_NOMEM;
        else
            list->items = grown;
    }
    if (code == SQLITE_OK && list->node != NULL)
        code = hyperwal_node_serve(list->node, served->name, served->path, &error);
    if (code == SQLITE_OK) {
        served->is_fresh = true;
        served->rest_after = seconds_now() + FIRST_REST_MS / 1000.0;
        list->items[list->count++] = *served;
        print_line(list, served, key, is_json);
    } else if (!is_again(code)) {
        *result = failure_code(code, error);
    }
    sqlite3_free(error);
    return code == SQLITE_OK ? SERVED_ADDED : is_again(code) ? SERVED_AGAIN : SERVED_FAILED;
}

/* Its full path, and which file it is.  SERVED_ADDED: it may be looked into. */
static enum served_result file_find(struct served_list *list, const char *path, bool is_guess,
                                    struct served *served)
{
    struct stat stat_;
    bool is_there;

    served->path = path_full(path);
    if (served->path != NULL && served_find(list, served->path) != NULL)
        return SERVED_IGNORE;
    is_there = served->path != NULL && stat(served->path, &stat_) == 0;
    if (!is_there && is_guess && is_nothing(errno))
        return SERVED_IGNORE;
    if (!is_there) {
        (void)failure("%s: %s", path,
                      errno != ENOENT ? strerror(errno)
                                      : "no such database; make it first, by sqlite3 or the "
                                        "application");
        return SERVED_FAILED;
    }
    if (has_inode(list, &stat_) || (is_guess && !S_ISREG(stat_.st_mode)))
        return SERVED_IGNORE;
    served->device = stat_.st_dev;
    served->inode = stat_.st_ino;
    if (!is_guess || strcmp(served->path, path) == 0)
        return SERVED_ADDED;
    served->link = strdup(path);
    if (served->link != NULL)
        return SERVED_ADDED;
    (void)failure("no memory");
    return SERVED_FAILED;
}

/* Is it something to be served?  SERVED_ADDED: it may be opened. */
static enum served_result content_look(const struct served_list *list, const char *path,
                                       bool is_guess, struct served *served, int *result)
{
    enum answer answer = is_guess ? is_database(served->path) : YES;

    if (answer != YES)
        return answer == NO ? SERVED_IGNORE : SERVED_FAILED;
    *result = database_is_replica(served->path, &served->is_replica);
    if (*result != DONE)
        return SERVED_FAILED;
    if (is_guess && served->is_replica)
        return SERVED_IGNORE;
    if (served->is_replica && list->node == NULL) {
        *result = failure("%s: a replica; serve its primary's database, or --listen to serve its "
                          "log to others",
                          path);
        return SERVED_FAILED;
    }
    *result = served->is_replica ? DONE : database_check(served->path);
    return *result == DONE ? SERVED_ADDED : SERVED_FAILED;
}

enum served_result served_add(struct served_list *list, const char *path, bool is_guess,
                              bool is_json, int *result)
{
    struct served served = {.sidecar = {.lock = -1}};
    enum served_result added;

    *result = FAILED;
    added = file_find(list, path, is_guess, &served);
    if (added == SERVED_ADDED)
        added = content_look(list, path, is_guess, &served, result);
    if (added == SERVED_ADDED) {
        name_make(list, served.path, served.name);
        added = served_open(list, &served, is_json, result);
    }
    if (added != SERVED_ADDED) {
        served_disconnect(&served);
        free(served.path);
        free(served.link);
    }
    return added;
}

/* --------------------------------------------------------------------------------- looks */

static void look_later(struct served *served, int delay_ms)
{
    served->delay_ms = delay_ms > LOOK_MS_LIMIT ? 0 : delay_ms;
    served->look_after = seconds_now() + delay_ms / 1000.0;
}

/*
 * Who commits, and are marks needed?  Not asked for each commit.  Nor is anything asked that waits
 * for a step of the worker, as hyperwal_status() does: that can be a batch and its syncs.
 */
static void judge(struct served *served, bool has_committed)
{
    double now = seconds_now();
    hyperwal_wal wal;

    served->is_unjudged |= has_committed;
    if ((served->is_foreign && served->has_sidecar) || now < served->judge_after)
        return;
    if (hyperwal_wal_look(served->db, NULL, &wal) != SQLITE_OK)
        return;
    commit_note(served, wal.commits, served->is_unjudged);
    (void)marks_open(served); /* tried again at the next look */
    served->is_unjudged = false;
    served->judge_after = now + JUDGE_MS / 1000.0;
}

static void look(struct served *served)
{
    int64_t version = data_version(served->db);
    bool has_committed = version != served->version, is_written = served->is_written;

    (void)hyperwal_look(served->db, NULL); /* only a hint */
    judge(served, has_committed);
    served->is_written = false;
    served->version = version;
    if (is_written || has_committed)
        sidecar_wake(&served->sidecar);
    if (is_written)
        look_later(served, 1);
    else if (!has_committed)
        look_later(served, 2 * served->delay_ms);
    else if (!served->is_foreign && (served->is_unjudged || served->suspect_since != 0))
        look_later(served, SUSPECT_MS + 1);
    else
        served->delay_ms = 0;
}

/* ---------------------------------------------------------------------------------- rest */

static bool is_idle(const struct served *served)
{
    return !served->is_written && served->delay_ms == 0 &&
           (served->is_fresh || !served->has_sidecar || !served->sidecar.is_due);
}

/*
 * The mark of the rest is taken before the others go, and stands if the log has reached it.  While
 * a connection is open SQLite closes no descriptor of the file, so those of the others stay; if
 * nobody but programs with the VFS was ever seen to write, all are closed, and a new connection
 * takes the mark a moment later: rest_is_disturbed() then says whether anything came in between.
 */
static void rest_begin(const struct served_list *list, struct served *served)
{
    struct facts facts = facts_of(served->db);
    bool is_kept = served->is_foreign || served->suspect_since != 0;
    int code = SQLITE_BUSY;

    if (facts.has_snapshot) /* it gets the first one awake: closing would wait for it */
        code = rest_take(&served->rest, served->path);
    if (code == SQLITE_OK)
        code = hyperwal_wait(served->db, NULL, 0, 0);
    if (code == SQLITE_OK) {
        facts = facts_of(served->db);
        commit_note(served, facts.commits, false);
        served->rest_seq = facts.seq;
        served_disconnect(served);
        served->is_touched = false;
        if (!is_kept && rest_renew(&served->rest, served->path) != SQLITE_OK)
            served->is_touched = true; /* opened again, without a promise */
    } else {
        rest_leave(&served->rest);
        served->rest_after = seconds_now() + (served->is_fresh ? list->rest_s : RETRY_MS / 1000.0);
    }
    served->is_fresh = false;
}

/* Somebody wrote.  A failure is tried again; until then the rest keeps what is in the WAL. */
static void rest_end(const struct served_list *list, struct served *served)
{
    struct facts facts;
    char *error = NULL;
    int code;

    served->is_touched = false;
    if (!rest_is_disturbed(&served->rest, served->path))
        return;
    code = served_connect(served, &error);
    if (code == SQLITE_OK) {
        facts = facts_of(served->db);
        commit_note(served, facts.commits, facts.lag > 0 || facts.seq != served->rest_seq);
        served->is_written = true;
        if (!served->has_sidecar)
            rest_leave(&served->rest);
        served->rest_after = seconds_now() + list->rest_s;
    } else {
        served_disconnect(served);
        if (!is_again(code))
            (void)failure("%s; tried again", error != NULL ? error : sqlite3_errstr(code));
        served->is_touched = true;
        served->rest_after = seconds_now() + RETRY_MS / 1000.0;
    }
    sqlite3_free(error);
}

void served_touch(struct served *served, bool is_wal)
{
    served->is_fresh = false;
    if (served->db == NULL)
        served->is_touched = true;
    else if (is_wal)
        served->is_written = true;
    else
        sidecar_wake(&served->sidecar); /* a checkpoint, of who waits for our mark perhaps */
}

/* Marks of the sidecar are there again, or those of another server. */
static void move(struct served *served)
{
    int code = sidecar_move(&served->sidecar, served->db); /* fails: the old mark stands */

    if (served->rest.db != NULL && (code == SQLITE_OK || served->sidecar.is_others))
        rest_leave(&served->rest);
}

static void work(const struct served_list *list, struct served *served)
{
    double now = seconds_now();

    if (served->is_replica)
        return;
    if (served->db == NULL) {
        if (served->is_touched && now >= served->rest_after)
            rest_end(list, served);
        return;
    }
    if (served->is_written || (served->delay_ms != 0 && now >= served->look_after)) {
        if (served->is_written)
            served->rest_after = now + list->rest_s;
        look(served);
    }
    if (served->has_sidecar && served->sidecar.is_due && now >= served->sidecar.move_after)
        move(served);
    if (list->rest_s > 0 && served->rest.db == NULL && now >= served->rest_after && is_idle(served))
        rest_begin(list, served);
}

void served_work(struct served_list *list)
{
    double end = seconds_now() + ROUND_MS / 1000.0;
    bool has_rested = false;

    for (size_t i = 0; i < list->count && seconds_now() < end; i++) {
        struct served *served = &list->items[list->turn++ % list->count];
        bool was_open = served->db != NULL;

        work(list, served);
        has_rested |= was_open && served->db == NULL;
    }
    if (has_rested)
        (void)malloc_trim(0); /* what a database had is half a megabyte */
}

/* Seconds, from `now`, until the database wants to be looked at; negative: never. */
static double wait_of(const struct served_list *list, const struct served *served, double now)
{
    double least = -1, look_in = served->look_after - now;
    double move_in = served->sidecar.move_after - now, rest_in = served->rest_after - now;

    if (served->is_replica)
        return -1;
    if (served->db == NULL)
        return !served->is_touched ? -1 : rest_in > 0 ? rest_in : 0;
    if (served->is_written)
        return 0;
    if (served->delay_ms != 0)
        least = look_in > 0 ? look_in : 0;
    if (served->has_sidecar && served->sidecar.is_due && (least < 0 || move_in < least))
        least = move_in > 0 ? move_in : 0;
    if (list->rest_s > 0 && served->rest.db == NULL && is_idle(served) &&
        (least < 0 || rest_in < least))
        least = rest_in > 0 ? rest_in : 0;
    return least;
}

int served_wait(const struct served_list *list)
{
    double now = seconds_now(), least = -1;

    for (size_t i = 0; i < list->count; i++) {
        double wait = wait_of(list, &list->items[i], now);

        if (wait >= 0 && (least < 0 || wait < least))
            least = wait;
    }
    return least < 0 ? -1 : (int)(least * 1000) + 1;
}

/* ------------------------------------------------------------------------------- the end */

/*
 * What ends tidily leaves no WAL: that takes the last connection to be one through the VFS.  What
 * cannot be opened now leaves its WAL to the next start.
 */
static void close_resting(struct served *served)
{
    char *error = NULL;

    if (served_connect(served, &error) == SQLITE_OK)
        (void)hyperwal_wait(served->db, NULL, 0, BUSY_MS); /* the next start goes on, too */
    sqlite3_free(error);
}

void served_remove(struct served_list *list, struct served *served, bool is_tidy)
{
    size_t at = (size_t)(served - list->items);

    if (list->node != NULL)
        hyperwal_node_unserve(list->node, served->name);
    if (is_tidy && served->rest.db != NULL && served->db == NULL)
        close_resting(served);
    rest_leave(&served->rest);
    served_disconnect(served);
    free(served->path);
    free(served->link);
    free(served->named);
    list->count--;
    memmove(served, served + 1, (list->count - at) * sizeof(*served));
}

void served_release(struct served_list *list)
{
    while (list->count > 0)
        served_remove(list, &list->items[list->count - 1], false);
    free(list->items);
    list->items = NULL;
}
