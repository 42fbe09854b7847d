/* Implements served.h. */
#include "served.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "report.h"

enum { BUSY_MS = 2000 };       /* how long a program that is in a transaction is waited for */
enum { LOOK_MS_LIMIT = 8192 }; /* the last look is twice that after a write without a commit */

struct served *served_find(struct served_list *list, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i].path, path) == 0)
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

/*
 * Does the file begin like a database?  Its descriptor is our own, and closing it drops every lock
 * that this process has on the file: so never of one that is served, by whatever name.
 */
static bool is_database(const char *path)
{
    char magic[16];
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool found;

    if (file < 0)
        return false;
    found = read(file, magic, sizeof(magic)) == (ssize_t)sizeof(magic) &&
            memcmp(magic, "SQLite format 3", sizeof(magic)) == 0;
    close(file);
    return found;
}

/* The file's name, one word, unlike any other. */
static void name_make(const struct served_list *list, const char *path, char out[64])
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    char base[48];
    size_t size;

    snprintf(base, sizeof(base), "%s", file);
    for (size = 0; base[size] != '\0'; size++)
        if (base[size] == ' ' || (unsigned char)base[size] < 0x20)
            base[size] = '_';
    snprintf(out, 64, "%s", base);
    for (unsigned n = 2, i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, out) != 0)
            continue;
        snprintf(out, 64, "%s-%u", base, n++);
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

/* The database, through the VFS: from now on its log grows. */
static int database_serve(struct served *served, unsigned char key[32], char **error)
{
    int code = hyperwal_open(served->path, 0, &served->db, error);

    if (code == SQLITE_OK) {
        code = database_begin(served->db);
        if (code == SQLITE_OK)
            code = sidecar_open(&served->sidecar, served->path);
        if (code != SQLITE_OK)
            *error = sqlite3_mprintf("%s: %s", served->path, sqlite3_errmsg(served->db));
    }
    if (code == SQLITE_OK) {
        uint64_t seq;

        /* If the log is slow to start, the first mark is planted later. */
        if (hyperwal_seq(served->db, NULL, &seq) == SQLITE_OK)
            (void)sidecar_move(&served->sidecar, served->db);
        code = log_key(served->path, key, error);
    }
    return code;
}

/* Open it and take the list's next place; *served has everything but that. */
static enum served_result served_open(struct served_list *list, struct served *served,
                                      bool is_replica, bool is_json, int *result)
{
    unsigned char key[32];
    char *error = NULL;
    struct served *grown;
    int code = is_replica ? hyperwal_replica_info(served->path, 0, key, NULL, NULL, &error)
                          : database_serve(served, key, &error);

    if (code == SQLITE_OK && list->node != NULL)
        code = hyperwal_node_serve(list->node, served->name, served->path, &error);
    if (code == SQLITE_OK) {
        grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
        if (grown == NULL)
            code = SQLITE_NOMEM;
        else
            list->items = grown;
    }
    if (code == SQLITE_OK) {
        list->items[list->count++] = *served;
        print_line(list, served, key, is_json);
    } else if (!is_again(code)) {
        *result = failure_code(code, error);
    }
    sqlite3_free(error);
    return code == SQLITE_OK ? SERVED_ADDED : is_again(code) ? SERVED_AGAIN : SERVED_FAILED;
}

enum served_result served_add(struct served_list *list, const char *path, bool is_guess,
                              bool is_json, int *result)
{
    struct served served = {.sidecar = {.lock = -1}};
    enum served_result added = SERVED_FAILED;
    bool is_replica;
    struct stat stat_;

    *result = FAILED;
    if (is_guess && (stat(path, &stat_) != 0 || !S_ISREG(stat_.st_mode)))
        return SERVED_IGNORE;
    served.path = path_full(path);
    if (served.path == NULL) {
        (void)failure("%s: no such database", path);
        return SERVED_FAILED;
    }
    if (served_find(list, served.path) != NULL ||
        (stat(served.path, &stat_) == 0 && has_inode(list, &stat_)) ||
        (is_guess && (!is_database(served.path) || database_is_replica(served.path)))) {
        added = SERVED_IGNORE;
        goto done;
    }
    is_replica = database_is_replica(served.path);
    if (is_replica && list->node == NULL) {
        (void)failure(
            "%s: a replica; serve its primary's database, or --listen to serve its log to "
            "others",
            path);
        goto done;
    }
    *result = is_replica ? DONE : database_check(served.path);
    if (*result != DONE || stat(served.path, &stat_) != 0)
        goto done;
    served.device = stat_.st_dev;
    served.inode = stat_.st_ino;
    name_make(list, served.path, served.name);
    added = served_open(list, &served, is_replica, is_json, result);
done:
    if (added != SERVED_ADDED) {
        sidecar_close(&served.sidecar);
        sqlite3_close_v2(served.db);
        free(served.path);
    }
    return added;
}

/* --------------------------------------------------------------------------------- looks */

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

static void look_later(struct served *served, int delay_ms)
{
    served->delay_ms = delay_ms > LOOK_MS_LIMIT ? 0 : delay_ms;
    served->look_after = seconds_now() + delay_ms / 1000.0;
}

static void look(struct served *served)
{
    int64_t version = data_version(served->db);

    (void)hyperwal_look(served->db, NULL); /* only a hint */
    if (served->is_written) {
        served->is_written = false;
        served->version = version;
        sidecar_wake(&served->sidecar);
        look_later(served, 1);
    } else if (version != served->version) {
        sidecar_wake(&served->sidecar);
        served->delay_ms = 0;
    } else {
        look_later(served, 2 * served->delay_ms);
    }
}

void served_work(struct served_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        struct served *served = &list->items[i];
        double now = seconds_now();

        if (served->db == NULL)
            continue;
        if (served->is_written || (served->delay_ms != 0 && now >= served->look_after))
            look(served);
        if (served->sidecar.is_due && now >= served->sidecar.move_after)
            (void)sidecar_move(&served->sidecar, served->db); /* the old mark stands: again later */
    }
}

int served_wait(const struct served_list *list)
{
    double now = seconds_now(), least = -1;

    for (size_t i = 0; i < list->count; i++) {
        const struct served *served = &list->items[i];
        double look_in = served->look_after - now, move_in = served->sidecar.move_after - now;

        if (served->db == NULL)
            continue;
        if (served->is_written)
            return 0;
        if (served->delay_ms != 0 && (least < 0 || look_in < least))
            least = look_in > 0 ? look_in : 0;
        if (served->sidecar.is_due && (least < 0 || move_in < least))
            least = move_in > 0 ? move_in : 0;
    }
    return least < 0 ? -1 : (int)(least * 1000) + 1;
}

/* ------------------------------------------------------------------------------- the end */

void served_remove(struct served_list *list, struct served *served)
{
    size_t at = (size_t)(served - list->items);

    if (list->node != NULL)
        hyperwal_node_unserve(list->node, served->name);
    sidecar_close(&served->sidecar);
    sqlite3_close_v2(served->db);
    free(served->path);
    list->count--;
    memmove(served, served + 1, (list->count - at) * sizeof(*served));
}

void served_release(struct served_list *list)
{
    while (list->count > 0)
        served_remove(list, &list->items[list->count - 1]);
    free(list->items);
    list->items = NULL;
}
