/* Databases and points of a log as the command line names them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"
#include "report.h"

enum { HEADER_SIZE = 100 };
enum {
    WAIT_MS = 100,    /* between two looks at the alarm and at signals, while blocks arrive */
    ALARM_LOOKS = 10, /* so many without a block: it is no old alarm, and will not pass soon */
};

static const char read_sql[] = "SELECT count(*) FROM sqlite_schema";

/* ---------------------------------------------------------------------------------- paths */

char *path_full(const char *path)
{
    char *full = realpath(path, NULL);
    char *copy, *slash, *directory;

    if (full != NULL || errno != ENOENT)
        return full;
    /* The file is not there yet: its directory must be. */
    copy = strdup(path);
    if (copy == NULL)
        return NULL;
    slash = strrchr(copy, '/');
    if (slash != NULL)
        *slash = '\0';
    directory = realpath(slash == NULL ? "." : slash == copy ? "/" : copy, NULL);
    if (directory != NULL && asprintf(&full, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory,
                                      slash == NULL ? path : slash + 1) < 0)
        full = NULL;
    free(directory);
    free(copy);
    return full;
}

static bool is_beside(const char *path, const char *suffix)
{
    struct stat stat_;
    char *beside = NULL;
    bool found;

    if (asprintf(&beside, "%s%s", path, suffix) < 0)
        return false;
    found = stat(beside, &stat_) == 0 && stat_.st_size > 0;
    free(beside);
    return found;
}

bool database_has_log(const char *path)
{
    char *full = path_full(path); /* it is beside the file that a symbolic link leads to */
    bool found = is_beside(full != NULL ? full : path, "-hyper/log");

    free(full);
    return found;
}

bool source_is_remote(const char *src)
{
    char *where = NULL;
    int is_remote = 0;

    if (hyperwal_find(src, &where, &is_remote, NULL) != SQLITE_OK)
        return false; /* who opens it will say what is wrong */
    sqlite3_free(where);
    return is_remote != 0;
}

char *source_path(const char *src)
{
    char *where = NULL, *path;
    int is_remote = 0;

    if (hyperwal_find(src, &where, &is_remote, NULL) != SQLITE_OK)
        return strdup(src);
    path = strdup(is_remote ? src : where);
    sqlite3_free(where);
    return path;
}

int database_is_replica(const char *path, bool *out)
{
    char *error = NULL;
    int code = hyperwal_replica_info(path, 0, NULL, NULL, NULL, &error), result = DONE;

    *out = code == SQLITE_OK;
    if (code != SQLITE_OK && code != SQLITE_NOTFOUND)
        result = failure_code(code, error);
    sqlite3_free(error);
    return result;
}

/* ----------------------------------------------------------------------------- is it sane? */

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Does the file have the size that its header says?  Only if nothing beside it may complete it. */
static int size_check(const char *path, const unsigned char *header, uint64_t size)
{
    uint32_t page_size = (uint32_t)header[16] << 8 | header[17];
    uint32_t page_count = be32(header + 28);

    if (page_size == 1)
        page_size = 65536;
    if (page_size < 512 || (page_size & (page_size - 1)) != 0) {
        (void)failure("%s: byte 16: page size %u: not an SQLite database, or damaged; try the "
                      "sqlite3 shell's .recover",
                      path, page_size);
        return CORRUPT;
    }
    if (is_beside(path, "-wal") || is_beside(path, "-journal"))
        return DONE;
    if (size % page_size != 0) {
        (void)failure("%s: %" PRIu64 " bytes are no whole number of pages of %u bytes: truncated; "
                      "restore it from a backup, or try the sqlite3 shell's .recover",
                      path, size, page_size);
        return CORRUPT;
    }
    /* The count is only valid if the writer was no ancient one that did not keep it. */
    if (memcmp(header + 24, header + 92, 4) == 0 && page_count > size / page_size) {
        (void)failure("%s: has %" PRIu64 " pages, and its header says %u: truncated; restore it "
                      "from a backup, or try the sqlite3 shell's .recover",
                      path, size / page_size, page_count);
        return CORRUPT;
    }
    return DONE;
}

static int content_check(const char *path, int file, uint64_t size)
{
    unsigned char header[HEADER_SIZE] = {0};
    ssize_t got = pread(file, header, sizeof(header), 0);

    if (got < 0)
        return failure("%s: cannot read it: %s", path, strerror(errno));
    if (size == 0)
        return DONE; /* an empty file is an empty database */
    if (got < HEADER_SIZE || memcmp(header, "SQLite format 3", 16) != 0) {
        (void)failure(
            "%s: byte 0: not an SQLite database, or an encrypted one; only plain SQLite 3 "
            "databases can be logged",
            path);
        return CORRUPT;
    }
    return size_check(path, header, size);
}

static int directory_check(const char *path)
{
    char *copy = strdup(path);
    char *slash;
    int result = DONE;

    if (copy == NULL)
        return failure("no memory");
    slash = strrchr(copy, '/');
    if (slash != NULL)
        slash[slash == copy ? 1 : 0] = '\0';
    if (access(slash != NULL ? copy : ".", W_OK) != 0)
        result = failure("%s: the log is made beside the database, and this directory may not be "
                         "written: %s",
                         slash != NULL ? copy : ".", strerror(errno));
    free(copy);
    return result;
}

int database_check(const char *path)
{
    struct stat stat_;
    int file, result;

    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return errno == ENOENT
                   ? failure("%s: no such database; make it first, by sqlite3 or the application",
                             path)
                   : failure("%s: cannot open it: %s", path, strerror(errno));
    if (fstat(file, &stat_) != 0)
        result = failure("%s: %s", path, strerror(errno));
    else if (!S_ISREG(stat_.st_mode))
        result = failure("%s: not a file", path);
    else
        result = content_check(path, file, (uint64_t)stat_.st_size);
    close(file);
    if (result == DONE && access(path, W_OK) != 0)
        result = failure("%s: may not be written: %s", path, strerror(errno));
    return result == DONE ? directory_check(path) : result;
}

/* An application goes on without a damaged log; who wants something of it is told at once. */
static int log_check(const char *path)
{
    hyperwal_log *log = NULL;
    char *error = NULL;
    int code = hyperwal_log_open(path, &log, &error);
    int result = code == SQLITE_OK ? DONE : failure_code(code, error);

    hyperwal_log_close(log);
    sqlite3_free(error);
    return result;
}

int database_open(const char *path, sqlite3 **db)
{
    char *error = NULL;
    bool is_replica = false;
    int code, result = DONE;

    if (strncmp(path, "file:", 5) != 0) {
        if (source_is_remote(path))
            return failure("%s: a URL; ask this where the database is, by its path", path);
        result = database_is_replica(path, &is_replica);
        if (result != DONE)
            return result;
        if (is_replica)
            return failure("%s: a replica; ask this of the primary's database", path);
        if (!database_has_log(path))
            return failure("%s: has no log; `hyperwal init` makes one", path);
        result = database_check(path);
        if (result == DONE)
            result = log_check(path);
        if (result != DONE)
            return result;
    }
    code = hyperwal_open(path, 0, db, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
    } else {
        /* Capture begins when somebody reads. */
        code = sqlite3_exec(*db, read_sql, NULL, NULL, NULL);
        if (code != SQLITE_OK) {
            (void)failure("%s: %s", path, sqlite3_errmsg(*db));
            result = code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? CORRUPT : FAILED;
        } else if (sqlite3_db_readonly(*db, "main") == 1) { /* and may be written, as was checked */
            result = failure("%s: cannot be opened for writing", path);
        }
        if (result != DONE) {
            sqlite3_close_v2(*db);
            *db = NULL;
        }
    }
    sqlite3_free(error);
    return result;
}

int database_wait_adopted(const char *path, sqlite3 *db, hyperwal_head *head)
{
    struct progress progress;
    unsigned alarmed = 0, unread = 0; /* looks */
    hyperwal_log *log = NULL;
    char *error = NULL;
    int code, result = DONE;

    code = hyperwal_log_open(path, &log, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    progress_begin(&progress, "taking the first snapshot", false);
    /* Capture begins when somebody reads: again in the loop, if a call failed at the first time. */
    while (result == DONE) {
        code = hyperwal_log_head(log, head);
        if (code != SQLITE_OK || head->snapshot_seq != HYPERWAL_SEQ_NONE)
            break;
        alarmed = head->alarm[0] != '\0' ? alarmed + 1 : 0;
        if (alarmed >= ALARM_LOOKS) {
            result = failure("%s: %s", path, head->alarm);
            break;
        }
        /* One group of 64 pages is one block. */
        if (report_progress(&progress, head->length, head->page_count / 64 + 3) == 0) {
            result = failure("%s: stopped; the log is there, the next open goes on", path);
            break;
        }
        code = hyperwal_log_wait(log, head->length, WAIT_MS);
        if (code != SQLITE_OK && code != SQLITE_BUSY)
            break;
        if (code == SQLITE_OK)
            alarmed = unread = 0; /* it goes on */
        else if (sqlite3_exec(db, read_sql, NULL, NULL, NULL) == SQLITE_OK)
            unread = 0;
        else if (++unread >= ALARM_LOOKS)
            result = failure("%s: %s", path, sqlite3_errmsg(db));
    }
    progress_end(&progress);
    if (result == DONE && code != SQLITE_OK)
        result = failure_code(code, hyperwal_log_errmsg(log));
    hyperwal_log_close(log);
    return result;
}

/* --------------------------------------------------------------------------------- points */

bool number_parse(const char *text, uint64_t *number)
{
    char *end = NULL;
    unsigned long long value;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || value > INT64_MAX)
        return false;
    *number = value;
    return true;
}

/* The first block of the entry that holds `seq`, and its time. */
static int entry_time(hyperwal_log *log, uint64_t seq, hyperwal_entry *entry)
{
    uint64_t next = seq;

    return hyperwal_log_next(log, &next, entry);
}

/* The last entry that is not later than `time_ms`: times never go back, so halve the range. */
static int time_find(hyperwal_log *log, int64_t time_ms, uint64_t *seq)
{
    hyperwal_head head;
    hyperwal_entry entry;
    uint64_t low, high; /* everything below low is not later, everything from high on is */
    int code = hyperwal_log_head(log, &head);

    if (code != SQLITE_OK)
        return code;
    *seq = HYPERWAL_SEQ_NONE;
    low = head.first_kept;
    high = head.length;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        code = entry_time(log, middle, &entry);
        if (code != SQLITE_OK)
            return code;
        if (strcmp(entry.type, "pruned") == 0) {
            low = entry.seq + 1;
        } else if (entry.time_ms <= time_ms) {
            *seq = entry.seq;
            low = entry.seq + 1;
        } else {
            high = middle;
        }
    }
    return SQLITE_OK;
}

int point_parse(hyperwal_log *log, const char *text, uint64_t *seq)
{
    const uint64_t least_time = 100000000000; /* milliseconds: March 1973; no log is so long */
    int64_t time_ms;
    int code;

    if (number_parse(text, seq) && *seq < least_time)
        return SQLITE_OK;
    code = hyperwal_time_parse(text, &time_ms);
    return code == SQLITE_OK ? time_find(log, time_ms, seq) : code;
}
