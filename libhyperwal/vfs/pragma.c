/* Implements the PRAGMAs of vfs/shim.h.  SQLite asks at prepare: what they do is done by then. */
#include <string.h>

#include "vfs/shim.h"

enum { TIMEOUT_UNKNOWN_MS = 5000, SLICE_MS = 10 };

/* The answer of a PRAGMA is one row of one column, of an error its message. */
static int answer(char **arguments, int code, char *text)
{
    arguments[0] = text;
    return text == NULL && code == SQLITE_OK ? SQLITE_NOMEM : code;
}

static int fail(char **arguments, enum hw_status status, const struct hw_error *error)
{
    return answer(arguments, hw_vfs_code(status), sqlite3_mprintf("%s", error->message));
}

/* No entry is -1: a row is needed, since clients expect the column of a PRAGMA to have a name. */
static int answer_seq(char **arguments, uint64_t seq)
{
    if (seq == UINT64_MAX)
        return answer(arguments, SQLITE_OK, sqlite3_mprintf("-1"));
    return answer(arguments, SQLITE_OK, sqlite3_mprintf("%llu", (unsigned long long)seq));
}

static int ask(struct hw_shim_file *file, struct hw_vfs_request *request, char **arguments)
{
    int code = hw_shim_request(file, request);

    if (code != SQLITE_OK)
        return answer(arguments, code, sqlite3_mprintf("%s", request->error.message));
    if (request->text != NULL)
        return answer(arguments, SQLITE_OK, request->text);
    return answer_seq(arguments, request->seq);
}

/*
 * The connection's busy timeout in milliseconds, 0 if it has none or a handler of its own.  SQLite
 * nests a statement in the preparation of another itself, to read a schema.
 */
static uint64_t busy_timeout(struct hw_shim_file *file)
{
    sqlite3_stmt *statement = NULL;
    int timeout = 0;

    if (file->db == NULL)
        return TIMEOUT_UNKNOWN_MS;
    if (sqlite3_prepare_v2(file->db, "PRAGMA busy_timeout", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        timeout = sqlite3_column_int(statement, 0);
    (void)sqlite3_finalize(statement); /* what it answered is all that counts */
    return timeout > 0 ? (uint64_t)timeout : 0;
}

static int pragma_wait(struct hw_shim_file *file, char **arguments)
{
    struct hw_vfs_request request = {.kind = HW_REQUEST_WAIT};
    struct hw_error error = {0};
    enum hw_status status;
    int code;

    if (arguments[2] == NULL)
        return answer(arguments, SQLITE_ERROR, sqlite3_mprintf("use: PRAGMA hyperwal_wait = SEQ"));
    status = hw_number_parse(arguments[2], &request.seq, &error);
    if (status != HW_OK)
        return fail(arguments, hw_prefix(&error, status, "hyperwal_wait"), &error);
    request.timeout_ms = busy_timeout(file);
    if (request.timeout_ms > 0 || file->busy == NULL)
        return ask(file, &request, arguments);
    for (;;) { /* a busy handler of the application says how long */
        code = hw_shim_request(file, &request);
        if (code != SQLITE_BUSY || file->busy(file->busy_ctx) == 0)
            break;
        request.timeout_ms = SLICE_MS;
    }
    return code == SQLITE_OK
               ? answer_seq(arguments, request.seq)
               : answer(arguments, code, sqlite3_mprintf("%s", request.error.message));
}

static int pragma_durability(struct hw_shim_file *file, char **arguments)
{
    enum hw_durability durability = file->durability;
    struct hw_error error = {0};
    enum hw_status status = HW_OK;

    if (file->role != HW_SHIM_PRIMARY)
        status = hw_fail(&error, HW_EREADONLY, "this connection does not write: no durability");
    else if (arguments[2] != NULL)
        status = hw_durability_parse(arguments[2], &durability, &error);
    if (status == HW_OK && arguments[2] != NULL)
        status = hw_durability_check(durability, file->replicas, &error);
    if (status != HW_OK)
        return fail(arguments, status, &error);
    file->durability = durability;
    return answer(arguments, SQLITE_OK,
                  sqlite3_mprintf("%s", hw_durability_name(file->durability)));
}

static int pragma_label(struct hw_shim_file *file, char **arguments)
{
    struct hw_vfs_request request = {
        .kind = HW_REQUEST_LABEL, .timeout_ms = file->timeout_ms, .label = arguments[2]};

    if (request.label == NULL || *request.label == '\0')
        return answer(arguments, SQLITE_ERROR,
                      sqlite3_mprintf("use: PRAGMA hyperwal_label = 'NAME'"));
    return ask(file, &request, arguments);
}

static int hyperwal_pragma(struct hw_shim_file *file, const char *name, char **arguments)
{
    static const struct {
        const char *name;
        unsigned request;
    } queries[] = {{"seq", HW_REQUEST_SEQ},
                   {"snapshot", HW_REQUEST_SNAPSHOT},
                   {"status", HW_REQUEST_STATUS},
                   {"key", HW_REQUEST_KEY}};
    struct hw_vfs_request request = {.timeout_ms = file->timeout_ms};

    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        if (sqlite3_stricmp(name, queries[i].name) != 0)
            continue;
        if (arguments[2] != NULL)
            return answer(arguments, SQLITE_ERROR,
                          sqlite3_mprintf("hyperwal_%s takes no value", queries[i].name));
        request.kind = queries[i].request;
        return ask(file, &request, arguments);
    }
    if (sqlite3_stricmp(name, "wait") == 0)
        return pragma_wait(file, arguments);
    if (sqlite3_stricmp(name, "durability") == 0)
        return pragma_durability(file, arguments);
    if (sqlite3_stricmp(name, "label") == 0)
        return pragma_label(file, arguments);
    if (sqlite3_stricmp(name, "transaction") == 0) {
        char *text = NULL;
        int code = hw_shim_remote_outcome(file, arguments[2], &text);

        return answer(arguments, code, text);
    }
    return answer(arguments, SQLITE_ERROR,
                  sqlite3_mprintf("unknown PRAGMA hyperwal_%s: there are hyperwal_seq, "
                                  "hyperwal_key, hyperwal_status, hyperwal_durability, "
                                  "hyperwal_wait, hyperwal_snapshot, hyperwal_label and "
                                  "hyperwal_transaction",
                                  name));
}

/* The log is made from the WAL: there is no other journal mode for a primary. */
static int journal_mode(char **arguments)
{
    static const char *const others[] = {"delete", "truncate", "persist", "memory", "off"};

    for (size_t i = 0; arguments[2] != NULL && i < sizeof(others) / sizeof(others[0]); i++) {
        if (sqlite3_stricmp(arguments[2], others[i]) == 0)
            return answer(
                arguments, SQLITE_ERROR,
                sqlite3_mprintf("journal_mode=%s: a database with a hyperwal log stays in "
                                "WAL mode; open it without vfs=hyperwal to leave it",
                                others[i]));
    }
    return SQLITE_NOTFOUND;
}

static int locking_mode(struct hw_shim_file *file, char **arguments)
{
    struct hw_error error = {0};
    enum hw_status status;
    bool exclusive = arguments[2] != NULL && sqlite3_stricmp(arguments[2], "exclusive") == 0;

    if (!exclusive && (arguments[2] == NULL || sqlite3_stricmp(arguments[2], "normal") != 0))
        return SQLITE_NOTFOUND;
    status = hw_shim_exclusive(file, exclusive, &error);
    return status == HW_OK ? SQLITE_NOTFOUND : fail(arguments, status, &error);
}

int hw_shim_pragma(struct hw_shim_file *file, char **arguments)
{
    const char *name = arguments[1];

    if (sqlite3_strnicmp(name, "hyperwal_", 9) == 0)
        return hyperwal_pragma(file, name + 9, arguments);
    if (file->role == HW_SHIM_REMOTE && sqlite3_stricmp(name, "locking_mode") == 0 &&
        arguments[2] != NULL && sqlite3_stricmp(arguments[2], "exclusive") == 0)
        return answer(arguments, SQLITE_ERROR,
                      sqlite3_mprintf("locking_mode=exclusive: nobody has a remote database for "
                                      "itself"));
    if (file->role != HW_SHIM_PRIMARY)
        return SQLITE_NOTFOUND;
    if (sqlite3_stricmp(name, "journal_mode") == 0)
        return journal_mode(arguments);
    if (sqlite3_stricmp(name, "locking_mode") == 0)
        return locking_mode(file, arguments);
    return SQLITE_NOTFOUND;
}
