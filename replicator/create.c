/* Implements create.h. */
#include "create.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

/* In the node's thread. */
static void asked(void *ctx)
{
    const struct creator *creator = ctx;
    const uint64_t one = 1;

    (void)!write(creator->event, &one, sizeof(one)); /* fails only if it is readable anyway */
}

int creator_open(struct creator *creator, hyperwal_node *node)
{
    *creator = (struct creator){.node = node, .event = -1};
    if (node == NULL)
        return DONE;
    creator->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (creator->event < 0)
        return failure("cannot wait for wishes: %s", strerror(errno));
    return hyperwal_node_on_create(node, asked, creator) == SQLITE_OK
               ? DONE
               : failure("cannot wait for wishes");
}

void creator_close(struct creator *creator)
{
    if (creator->event < 0)
        return;
    (void)hyperwal_node_on_create(creator->node, NULL, NULL); /* nobody is called any more */
    close(creator->event);
    creator->event = -1;
}

static bool is_there(const char *path, const char *suffix)
{
    struct stat stat_;
    char *full = NULL;
    bool there = true; /* without memory: do not make anything */

    if (asprintf(&full, "%s%s", path, suffix) >= 0)
        there = lstat(full, &stat_) == 0 || errno != ENOENT;
    free(full);
    return there;
}

/* Take the name; *made is the file.  Nobody has it open: our own descriptor costs no locks. */
static const char *file_make(const char *path, struct stat *made)
{
    static const char *const leftovers[] = {"-wal", "-journal", "-hyper"};
    const char *why = NULL;
    int file;

    for (size_t i = 0; i < sizeof(leftovers) / sizeof(leftovers[0]); i++)
        if (is_there(path, leftovers[i]))
            return "something of an older database of this name is there";
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return errno == EEXIST ? "a file of this name is there" : strerror(errno);
    if (fstat(file, made) != 0) {
        why = strerror(errno);
        (void)unlink(path); /* the failure is told anyhow; what is left is named the next time */
    }
    close(file);
    return why;
}

/* How long the file is that the suffix makes of the path; 0: it is not there; -1: who knows. */
static off_t size_of(const char *path, const char *suffix)
{
    struct stat stat_;
    char *full = NULL;
    off_t size = -1;

    if (asprintf(&full, "%s%s", path, suffix) < 0)
        return -1;
    if (stat(full, &stat_) == 0)
        size = stat_.st_size;
    else if (errno == ENOENT)
        size = 0;
    free(full);
    return size;
}

static int remove_one(const char *path, const struct stat *stat_, int type, struct FTW *at)
{
    (void)stat_;
    (void)type;
    (void)at;
    (void)remove(path); /* as the caller says */
    return 0;
}

/*
 * Give the name back, after a failure: all that is there was made by us since the file was.  Not if
 * another program has found the file and written to it.
 */
static void content_remove(const char *path, const struct stat *made, unsigned page_size)
{
    static const char *const suffixes[] = {"-hyper", "-wal", "-shm", "-journal", ""};
    struct stat now;

    if (stat(path, &now) != 0 || now.st_ino != made->st_ino || now.st_dev != made->st_dev ||
        now.st_size > (off_t)page_size || size_of(path, "-wal") != 0 ||
        size_of(path, "-journal") != 0)
        return;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        char *full = NULL;

        if (asprintf(&full, "%s%s", path, suffixes[i]) < 0)
            continue;
        /* Most are not there; what is left is named when somebody wishes for it again. */
        (void)nftw(full, remove_one, 8, FTW_DEPTH | FTW_PHYS);
        free(full);
    }
}

/* An empty database in WAL mode, and its log. */
static int content_make(const char *path, unsigned page_size)
{
    sqlite3 *db = NULL;
    char sql[96];
    int code = hyperwal_open(path, 0, &db, NULL);

    sqlite3_snprintf(sizeof(sql), sql, "PRAGMA page_size=%u; PRAGMA journal_mode=WAL", page_size);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close_v2(db);
    return code;
}

static const char *make(struct watch *watch, const char *path, unsigned page_size)
{
    struct stat made;
    const char *why = file_make(path, &made);
    int code;

    if (why != NULL)
        return why;
    code = content_make(path, page_size);
    if (code != SQLITE_OK) {
        if ((code & 0xff) != SQLITE_BUSY) /* else somebody uses it already */
            content_remove(path, &made, page_size);
        return sqlite3_errstr(code);
    }
    return watch_guess(watch, path) ? NULL : "it was made, and is served later";
}

void creator_work(struct creator *creator, struct watch *watch, const char *directory, size_t most)
{
    hyperwal_creation wish;
    uint64_t count;

    if (read(creator->event, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    while (hyperwal_node_creation(creator->node, &wish) == SQLITE_OK) {
        const char *why = "this server has no directory for new databases";
        char *path = NULL;

        if (directory != NULL)
            why = watch->served->count >= most
                      ? "this server has as many databases as it may (create-limit)"
                      : NULL;
        if (why == NULL && strlen(wish.name) > SERVED_NAME_MAX)
            why = "the name is too long for a file of this server";
        if (why == NULL && asprintf(&path, "%s/%s", directory, wish.name) < 0)
            why = "no memory";
        if (why == NULL)
            why = make(watch, path, wish.page_size != 0 ? wish.page_size : 4096);
        if (why != NULL)
            (void)failure("%s: wished for, and not made: %s", wish.name, why);
        hyperwal_node_created(creator->node, wish.id, why);
        free(path);
    }
}
