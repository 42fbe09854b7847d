/* Implements create.h. */
#include "create.h"

#include <errno.h>
#include <fcntl.h>
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

/* Take the name.  Nobody has the file open: so our own descriptor costs no locks. */
static const char *file_make(const char *path)
{
    static const char *const leftovers[] = {"-wal", "-journal", "-hyper"};
    int file;

    for (size_t i = 0; i < sizeof(leftovers) / sizeof(leftovers[0]); i++)
        if (is_there(path, leftovers[i]))
            return "something of an older database of this name is there";
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (file < 0)
        return errno == EEXIST ? "a file of this name is there" : strerror(errno);
    close(file);
    return NULL;
}

/* An empty database in WAL mode, and its log. */
static const char *content_make(const char *path, unsigned page_size)
{
    sqlite3 *db = NULL;
    char sql[96];
    int code = hyperwal_open(path, 0, &db, NULL);

    sqlite3_snprintf(sizeof(sql), sql, "PRAGMA page_size=%u; PRAGMA journal_mode=WAL",
                     page_size != 0 ? page_size : 4096);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close_v2(db);
    return code == SQLITE_OK ? NULL : sqlite3_errstr(code);
}

static const char *make(struct served_list *list, const char *path, unsigned page_size,
                        bool is_json)
{
    const char *why = file_make(path);
    int result;

    if (why != NULL)
        return why;
    why = content_make(path, page_size);
    if (why == NULL && served_add(list, path, false, is_json, &result) != SERVED_ADDED)
        why = "it was made, and could not be served";
    return why;
}

void creator_work(struct creator *creator, struct served_list *list, const char *directory,
                  size_t most, bool is_json)
{
    hyperwal_creation wish;
    uint64_t count;

    if (read(creator->event, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    while (hyperwal_node_creation(creator->node, &wish) == SQLITE_OK) {
        const char *why = "this server has no directory for new databases";
        char *path = NULL;

        if (directory != NULL)
            why = list->count >= most ? "this server has as many databases as it may (create-limit)"
                                      : NULL;
        if (why == NULL && strlen(wish.name) > SERVED_NAME_MAX)
            why = "the name is too long for a file of this server";
        if (why == NULL && asprintf(&path, "%s/%s", directory, wish.name) < 0)
            why = "no memory";
        if (why == NULL)
            why = make(list, path, wish.page_size, is_json);
        if (why != NULL)
            (void)failure("%s: wished for, and not made: %s", wish.name, why);
        hyperwal_node_created(creator->node, wish.id, why);
        free(path);
    }
}
