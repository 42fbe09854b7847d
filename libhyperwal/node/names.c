/* Implements node/names.h. */
#include "node/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buffer.h"
#include "base/sqlite.h"
#include "hypercore/manifest.h"
#include "node/hub.h"
#include "wire/address.h"

enum { VERSION = 1, APPLICATION_ID = 0x68776e6d, BUSY_MS = 5000, NEAR_MAX = 3, NEAR_STEPS = 2 };

struct hw_names {
    struct hw_env *env;
    sqlite3 *db; /* owned */
    char *path;  /* owned */
};

static const char SCHEMA[] =
    "CREATE TABLE names(name TEXT PRIMARY KEY NOT NULL,"
    " key BLOB CHECK(key IS NULL OR length(key) = 32), path TEXT, added_ms INTEGER NOT NULL);"
    "CREATE TABLE addresses(name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,"
    " rank INTEGER NOT NULL, url TEXT NOT NULL, PRIMARY KEY(name, rank));";

/* -------------------------------------------------------------------------------- SQLite */

static enum hw_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return HW_EBUSY;
    case SQLITE_NOMEM:
        return HW_ENOMEM;
    case SQLITE_FULL:
        return HW_ENOSPC;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return HW_ECORRUPT;
    case SQLITE_READONLY:
    case SQLITE_PERM:
        return HW_EREADONLY;
    default:
        return HW_EIO;
    }
}

static enum hw_status fail_sqlite(const struct hw_names *names, int code, struct hw_error *err)
{
    int failure = hw_sqlite_failure(names->db, code);

    return hw_fail(err, status_of(failure), "%s: %s", names->path,
                   names->db != NULL && failure == code ? sqlite3_errmsg(names->db)
                                                        : sqlite3_errstr(failure));
}

static enum hw_status run(struct hw_names *names, const char *sql, struct hw_error *err)
{
    int code = sqlite3_exec(names->db, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? HW_OK : fail_sqlite(names, code, err);
}

static enum hw_status prepare(struct hw_names *names, const char *sql, const char *name,
                              sqlite3_stmt **out, struct hw_error *err)
{
    int code = sqlite3_prepare_v2(names->db, sql, -1, out, NULL);

    if (code == SQLITE_OK && name != NULL)
        code = sqlite3_bind_text(*out, 1, name, -1, SQLITE_TRANSIENT);
    return code == SQLITE_OK ? HW_OK : fail_sqlite(names, code, err);
}

/* HW_OK: a row; HW_END: there is no more. */
static enum hw_status step(struct hw_names *names, sqlite3_stmt *statement, struct hw_error *err)
{
    int code = sqlite3_step(statement);

    if (code == SQLITE_ROW)
        return HW_OK;
    return code == SQLITE_DONE ? HW_END : fail_sqlite(names, code, err);
}

/* *out: NULL if it is NULL there; else it may take memory to have it in UTF-8. */
static enum hw_status read_text(struct hw_names *names, sqlite3_stmt *statement, int column,
                                const char **out, struct hw_error *err)
{
    bool is_null = sqlite3_column_type(statement, column) == SQLITE_NULL;

    *out = (const char *)sqlite3_column_text(statement, column);
    return *out != NULL || is_null ? HW_OK : fail_sqlite(names, SQLITE_NOMEM, err);
}

static enum hw_status read_number(struct hw_names *names, const char *sql, int *out,
                                  struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    enum hw_status status = prepare(names, sql, NULL, &statement, err);

    if (status == HW_OK)
        status = step(names, statement, err);
    if (status == HW_OK)
        *out = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement); /* its failure was told by the step */
    return status == HW_END ? hw_fail(err, HW_ECORRUPT, "%s: no answer", names->path) : status;
}

/* ------------------------------------------------------------------------------- opening */

/* Ours is the default VFS of some processes, and no place for this. */
static const char *plain_vfs(void)
{
    const sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

    return vfs != NULL && strcmp(vfs->zName, "hyperwal") == 0 ? "unix" : NULL;
}

static enum hw_status check_version(struct hw_names *names, int *version, struct hw_error *err)
{
    int tables = 0, id = 0;
    enum hw_status status = read_number(names, "PRAGMA user_version", version, err);

    if (status == HW_OK)
        status = read_number(names, "PRAGMA application_id", &id, err);
    if (status == HW_OK)
        status = read_number(names, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (status != HW_OK)
        return status;
    if (tables > 0 && id != APPLICATION_ID)
        return hw_fail(err, HW_ECORRUPT, "%s: a database, but not one of names", names->path);
    if (*version > VERSION)
        return hw_fail(err, HW_EVERSION, "%s: made by a later version (%d; this one knows %d)",
                       names->path, *version, VERSION);
    return HW_OK;
}

/* Two who make it at once: the second one finds it made. */
static enum hw_status make(struct hw_names *names, struct hw_error *err)
{
    char sql[128];
    int version = 0;
    enum hw_status status = run(names, "BEGIN IMMEDIATE", err);

    if (status != HW_OK)
        return status;
    status = check_version(names, &version, err);
    if (status == HW_OK && version == 0) {
        (void)snprintf(sql, sizeof(sql), "PRAGMA application_id=%d; PRAGMA user_version=%d;",
                       APPLICATION_ID, VERSION);
        status = run(names, SCHEMA, err);
        if (status == HW_OK)
            status = run(names, sql, err);
    }
    if (status == HW_OK)
        status = run(names, "COMMIT", err);
    if (status != HW_OK)
        (void)sqlite3_exec(names->db, "ROLLBACK", NULL, NULL, NULL); /* it is told already */
    return status;
}

static enum hw_status open_database(struct hw_names *names, bool writes, struct hw_error *err)
{
    int flags = SQLITE_OPEN_READWRITE | (writes ? SQLITE_OPEN_CREATE : 0);
    int code = sqlite3_open_v2(names->path, &names->db, flags | SQLITE_OPEN_FULLMUTEX, plain_vfs());
    int version = 0;
    enum hw_status status = HW_OK;

    if (code != SQLITE_OK)
        return fail_sqlite(names, code, err);
    (void)sqlite3_busy_timeout(names->db, BUSY_MS); /* cannot fail on an open database */
    /* One transaction: somebody may make the tables while we look. */
    status = run(names, "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; BEGIN", err);
    if (status == HW_OK) {
        status = check_version(names, &version, err);
        (void)sqlite3_exec(names->db, "COMMIT", NULL, NULL, NULL); /* nothing was written */
    }
    if (status == HW_OK && version == 0) {
        status = writes ? make(names, err)
                        : hw_fail(err, HW_ENOTFOUND, "%s: has no names yet", names->path);
        /* Another one that is in it just now keeps it from that; it is for speed, and for later. */
        if (status == HW_OK)
            (void)sqlite3_exec(names->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
    }
    return status;
}

enum hw_status hw_names_open(struct hw_env *env, const char *path, bool writes,
                             struct hw_names **out, struct hw_error *err)
{
    struct hw_names *names = hw_zalloc(sizeof(*names));
    struct hw_file_stat stat;
    enum hw_status status = HW_OK;

    if (names == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to look up a name");
    names->env = env;
    if (path == NULL) {
        status = hw_config_path("names.db", "HYPERWAL_NAMES", &names->path, err);
    } else {
        names->path = hw_strdup(path);
        if (names->path == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory to look up a name");
    }
    if (status == HW_OK && writes)
        hw_config_make_parents(env, names->path);
    else if (status == HW_OK)
        status = env->ops->stat(env, names->path, &stat, err);
    if (status == HW_OK)
        status = open_database(names, writes, err);
    if (status != HW_OK) {
        hw_names_close(names);
        return status;
    }
    *out = names;
    return HW_OK;
}

void hw_names_close(struct hw_names *names)
{
    if (names == NULL)
        return;
    (void)sqlite3_close(names->db); /* all statements are finalized */
    hw_free(names->path);
    hw_free(names);
}

/* ------------------------------------------------------------------------------ checking */

enum hw_status hw_petname_check(const char *name, struct hw_error *err)
{
    uint8_t key[HW_KEY_SIZE];
    size_t size = strlen(name);

    if (size == 0 || size > HW_PETNAME_MAX)
        return hw_fail(err, HW_EMISUSE, "a name has 1 to %d bytes", HW_PETNAME_MAX);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return hw_fail(err, HW_EMISUSE, "a name with a control character in it");
    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return hw_fail(err, HW_EMISUSE, "%s: a path, and no name: a name has no / in it", name);
    if (strncmp(name, "hyper:", 6) == 0 || strncmp(name, "file:", 5) == 0)
        return hw_fail(err, HW_EMISUSE, "%s: a name is written without %.*s here", name,
                       name[0] == 'h' ? 6 : 5, name);
    if (strpbrk(name, "?#%") != NULL)
        return hw_fail(err, HW_EMISUSE, "%s: ? # and %% mean something in a URI, so not in a name",
                       name);
    if (hw_key_parse(name, key))
        return hw_fail(err, HW_EMISUSE, "%s: a key, and no name", name);
    return HW_OK;
}

static enum hw_status check(const struct hw_name *name, struct hw_error *err)
{
    enum hw_status status = hw_petname_check(name->name, err);

    if (status == HW_OK && name->url_count > HW_NAMES_URLS_MAX)
        return hw_fail(err, HW_ELIMIT, "%s: at most %d addresses", name->name, HW_NAMES_URLS_MAX);
    for (size_t i = 0; status == HW_OK && i < name->url_count; i++) {
        struct hw_address address;

        status = hw_address_parse(name->urls[i], &address, err);
    }
    if (status == HW_OK && name->path != NULL && name->path[0] != '/')
        return hw_fail(err, HW_EMISUSE, "%s: its path begins with /", name->name);
    if (status == HW_OK && name->path == NULL && name->url_count == 0)
        return hw_fail(err, HW_EMISUSE, "%s: neither an address nor a path", name->name);
    return status;
}

/* ------------------------------------------------------------------------------- writing */

/* What is not bound would be NULL: a name without its key, or without its path. */
static enum hw_status bind_row(struct hw_names *names, sqlite3_stmt *statement,
                               const struct hw_name *name, struct hw_error *err)
{
    int code = SQLITE_OK;

    if (name->has_key)
        code = sqlite3_bind_blob(statement, 2, name->key, HW_KEY_SIZE, SQLITE_TRANSIENT);
    if (code == SQLITE_OK && name->path != NULL)
        code = sqlite3_bind_text(statement, 3, name->path, -1, SQLITE_TRANSIENT);
    if (code == SQLITE_OK)
        code = sqlite3_bind_int64(statement, 4, names->env->ops->realtime_ms(names->env));
    return code == SQLITE_OK ? HW_OK : fail_sqlite(names, code, err);
}

static enum hw_status put_row(struct hw_names *names, const struct hw_name *name, bool replaces,
                              struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    enum hw_status status =
        prepare(names, "DELETE FROM names WHERE name = ?1", name->name, &statement, err);

    if (status == HW_OK && replaces)
        status = step(names, statement, err);
    (void)sqlite3_finalize(statement);
    statement = NULL;
    if (status >= 0)
        status =
            prepare(names, "INSERT INTO names VALUES(?1, ?2, ?3, ?4)", name->name, &statement, err);
    if (status == HW_OK)
        status = bind_row(names, statement, name, err);
    if (status == HW_OK)
        status = step(names, statement, err);
    if (status < 0 && sqlite3_extended_errcode(names->db) == SQLITE_CONSTRAINT_PRIMARYKEY)
        status =
            hw_fail(err, HW_EEXIST,
                    "%s: there is such a name already, and it was not to be replaced", name->name);
    (void)sqlite3_finalize(statement);
    return status == HW_END ? HW_OK : status;
}

static enum hw_status put_address(struct hw_names *names, const struct hw_name *name, size_t rank,
                                  struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    int code = SQLITE_OK;
    enum hw_status status =
        prepare(names, "INSERT INTO addresses VALUES(?1, ?2, ?3)", name->name, &statement, err);

    if (status == HW_OK) {
        code = sqlite3_bind_int64(statement, 2, (sqlite3_int64)rank);
        if (code == SQLITE_OK)
            code = sqlite3_bind_text(statement, 3, name->urls[rank], -1, SQLITE_TRANSIENT);
        status = code == SQLITE_OK ? step(names, statement, err) : fail_sqlite(names, code, err);
    }
    (void)sqlite3_finalize(statement);
    return status == HW_END ? HW_OK : status;
}

enum hw_status hw_names_put(struct hw_names *names, const struct hw_name *name, bool replaces,
                            struct hw_error *err)
{
    enum hw_status status = check(name, err);

    if (status == HW_OK)
        status = run(names, "BEGIN IMMEDIATE", err);
    if (status != HW_OK)
        return status;
    status = put_row(names, name, replaces, err);
    for (size_t i = 0; status == HW_OK && i < name->url_count; i++)
        status = put_address(names, name, i, err);
    if (status == HW_OK)
        status = run(names, "COMMIT", err);
    if (status != HW_OK)
        (void)sqlite3_exec(names->db, "ROLLBACK", NULL, NULL, NULL); /* it is told already */
    return status;
}

static enum hw_status not_found(struct hw_names *names, const char *name, struct hw_error *err)
{
    char near[HW_ERROR_SIZE / 2];

    hw_names_near(names, name, near, sizeof(near));
    return hw_fail(err, HW_ENOTFOUND, "%s: no such name%s", name, near);
}

enum hw_status hw_names_remove(struct hw_names *names, const char *name, struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    enum hw_status status =
        prepare(names, "DELETE FROM names WHERE name = ?1", name, &statement, err);

    if (status == HW_OK)
        status = step(names, statement, err);
    (void)sqlite3_finalize(statement);
    if (status != HW_END)
        return status;
    return sqlite3_changes(names->db) > 0 ? HW_OK : not_found(names, name, err);
}

/* ------------------------------------------------------------------------------- reading */

/* A name as it is built: its text, path and URLs, each with its zero, one behind the other. */
struct found {
    struct hw_buffer text;
    bool has_key, has_path;
    uint8_t key[HW_KEY_SIZE];
    size_t url_count;
};

static void add_text(struct hw_buffer *out, const void *text)
{
    hw_buffer_add(out, text, strlen(text) + 1);
}

/* One block with the struct, its array of URLs and all texts. */
static struct hw_name *pack(const struct found *found)
{
    size_t array = found->url_count * sizeof(char *);
    struct hw_name *name = NULL;
    const char **urls;
    char *text;

    if (!found->text.failed)
        name = hw_zalloc(sizeof(*name) + array + found->text.size + 1);
    if (name == NULL)
        return NULL;
    urls = (const char **)(void *)(name + 1);
    text = (char *)(urls + found->url_count);
    memcpy(text, found->text.bytes, found->text.size);
    name->has_key = found->has_key;
    memcpy(name->key, found->key, sizeof(name->key));
    name->name = text;
    text += strlen(text) + 1;
    if (found->has_path) {
        name->path = text;
        text += strlen(text) + 1;
    }
    for (size_t i = 0; i < found->url_count; i++) {
        urls[i] = text;
        text += strlen(text) + 1;
    }
    name->urls = urls;
    name->url_count = found->url_count;
    return name;
}

static enum hw_status read_urls(struct hw_names *names, const char *name, struct found *found,
                                struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    enum hw_status status = prepare(
        names, "SELECT url FROM addresses WHERE name = ?1 ORDER BY rank", name, &statement, err);

    while (status == HW_OK) {
        const char *url;

        status = step(names, statement, err);
        if (status == HW_OK)
            status = read_text(names, statement, 0, &url, err);
        if (status != HW_OK)
            break;
        if (url == NULL || found->url_count == HW_NAMES_URLS_MAX)
            status = hw_fail(err, HW_ECORRUPT, "%s: impossible addresses of %s", names->path, name);
        else
            add_text(&found->text, url);
        found->url_count++;
    }
    (void)sqlite3_finalize(statement);
    return status == HW_END ? HW_OK : status;
}

/* The name of the row that the statement (name, key, path) is at. */
static enum hw_status read_row(struct hw_names *names, sqlite3_stmt *statement,
                               struct hw_name **out, struct hw_error *err)
{
    struct found found = {.has_key = false};
    const char *name = NULL, *path = NULL;
    int key_size = sqlite3_column_bytes(statement, 1);
    enum hw_status status = read_text(names, statement, 0, &name, err);

    if (status == HW_OK)
        status = read_text(names, statement, 2, &path, err);
    if (status != HW_OK)
        return status;
    if (name == NULL || (key_size != 0 && key_size != HW_KEY_SIZE))
        return hw_fail(err, HW_ECORRUPT, "%s: an impossible name", names->path);
    if (key_size != 0)
        memcpy(found.key, sqlite3_column_blob(statement, 1), HW_KEY_SIZE);
    found.has_key = key_size != 0;
    found.has_path = path != NULL;
    add_text(&found.text, name);
    if (path != NULL)
        add_text(&found.text, path);
    status = read_urls(names, name, &found, err);
    if (status == HW_OK) {
        *out = pack(&found);
        if (*out == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for a name");
    }
    if (status == HW_OK) {
        status = check(*out, err); /* others may write this file, too */
        if (status != HW_OK) {
            hw_free(*out);
            *out = NULL;
            status = hw_prefix(err, HW_ECORRUPT, "%s", names->path);
        }
    }
    hw_buffer_release(&found.text);
    return status;
}

enum hw_status hw_names_find(struct hw_names *names, const char *name, struct hw_name **out,
                             struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    enum hw_status status =
        prepare(names, "SELECT name, key, path FROM names WHERE name = ?1", name, &statement, err);

    if (status == HW_OK)
        status = step(names, statement, err);
    if (status == HW_OK)
        status = read_row(names, statement, out, err);
    (void)sqlite3_finalize(statement);
    return status == HW_END ? not_found(names, name, err) : status;
}

enum hw_status hw_names_each(struct hw_names *names,
                             bool (*each)(void *ctx, const struct hw_name *name), void *ctx,
                             struct hw_error *err)
{
    sqlite3_stmt *statement = NULL;
    bool goes_on = true;
    enum hw_status status =
        prepare(names, "SELECT name, key, path FROM names ORDER BY name", NULL, &statement, err);

    while (status == HW_OK && goes_on) {
        struct hw_name *name = NULL;

        status = step(names, statement, err);
        if (status == HW_OK)
            status = read_row(names, statement, &name, err);
        if (status == HW_OK)
            goes_on = each(ctx, name);
        hw_free(name);
    }
    (void)sqlite3_finalize(statement);
    return status == HW_END ? HW_OK : status;
}

/* ---------------------------------------------------------------------------------- near */

/* Characters to put in, take out or change, to come from one to the other. */
static size_t distance(const char *one, const char *other)
{
    size_t row[HW_PETNAME_MAX + 1], size = strlen(other);

    if (size > HW_PETNAME_MAX)
        return SIZE_MAX;
    for (size_t j = 0; j <= size; j++)
        row[j] = j;
    for (size_t i = 1; one[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= size; j++) {
            size_t best = diagonal + (one[i - 1] != other[j - 1]);

            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[size];
}

struct near {
    const char *name;
    char *out;
    size_t size, used;
    unsigned count;
};

static bool add_near(void *ctx, const struct hw_name *name)
{
    struct near *near = ctx;
    size_t shorter = strlen(near->name);
    int written;

    if (strlen(name->name) < shorter)
        shorter = strlen(name->name);
    if (distance(near->name, name->name) > NEAR_STEPS &&
        (shorter < 3 || strncmp(near->name, name->name, shorter) != 0))
        return true;
    written = snprintf(near->out + near->used, near->size - near->used, "%s`%s'",
                       near->count == 0 ? "; perhaps " : " or ", name->name);
    if (written < 0 || (size_t)written >= near->size - near->used) {
        near->out[near->used] = '\0';
        return false;
    }
    near->used += (size_t)written;
    return ++near->count < NEAR_MAX;
}

void hw_names_near(struct hw_names *names, const char *name, char *out, size_t size)
{
    struct near near = {.name = name, .out = out, .size = size};

    out[0] = '\0';
    if (hw_names_each(names, add_near, &near, NULL) != HW_OK)
        out[0] = '\0'; /* a hint that cannot be had is none */
}
