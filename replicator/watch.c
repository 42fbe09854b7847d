/* Implements watch.h. */
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "program.h"

enum { EVENT_BUFFER = 16 * (sizeof(struct inotify_event) + NAME_MAX + 1) };

int watch_open(struct watch *watch, struct served_list *served, bool is_json)
{
    *watch = (struct watch){.served = served, .is_json = is_json};
    watch->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch->inotify < 0)
        return failure("cannot watch files: %s%s", strerror(errno),
                       errno == EMFILE ? "; raise fs.inotify.max_user_instances, or the limit of "
                                         "open files (LimitNOFILE=, ulimit -n)"
                                       : "");
    return DONE;
}

void watch_close(struct watch *watch)
{
    for (size_t i = 0; i < watch->count; i++)
        free(watch->items[i].path);
    free(watch->items);
    late_release(&watch->late);
    if (watch->inotify >= 0)
        close(watch->inotify);
    *watch = (struct watch){.inotify = -1};
}

/* -------------------------------------------------------------------------- directories */

static bool ends_with(const char *name, const char *suffix)
{
    size_t size = strlen(name), suffix_size = strlen(suffix);

    return size > suffix_size && strcmp(name + size - suffix_size, suffix) == 0;
}

/* Files that SQLite and we keep beside a database. */
static bool is_companion(const char *name)
{
    return name[0] == '.' || ends_with(name, "-wal") || ends_with(name, "-shm") ||
           ends_with(name, "-journal") || ends_with(name, "-hyper") || ends_with(name, ".tmp");
}

/* NULL: why not was said.  Valid until the next one is added. */
static struct watched *add(struct watch *watch, const char *path, bool is_open_to_new)
{
    const uint32_t mask = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                          IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
    struct watched *item;
    int number = inotify_add_watch(watch->inotify, path, mask);

    if (number < 0) {
        (void)failure("%s: cannot watch it: %s%s", path, strerror(errno),
                      errno == ENOSPC ? "; raise fs.inotify.max_user_watches" : "");
        return NULL;
    }
    for (size_t i = 0; i < watch->count; i++) {
        item = &watch->items[i];
        if (item->watch != number && strcmp(item->path, path) != 0)
            continue;
        if (item->watch >= 0 && item->watch != number) /* another directory has its path by now */
            (void)inotify_rm_watch(watch->inotify, item->watch);
        item->watch = number;
        item->is_open_to_new |= is_open_to_new;
        return item;
    }
    item = realloc(watch->items, (watch->count + 1) * sizeof(*item));
    if (item != NULL) {
        watch->items = item;
        item += watch->count;
        *item = (struct watched){strdup(path), number, is_open_to_new};
    }
    if (item == NULL || item->path == NULL) {
        (void)failure("no memory");
        return NULL;
    }
    watch->count++;
    return item;
}

int watch_beside(struct watch *watch, const char *path)
{
    char *directory = strdup(path), *slash;
    int result;

    if (directory == NULL)
        return failure("no memory");
    slash = strrchr(directory, '/');
    slash[slash == directory ? 1 : 0] = '\0';
    result = add(watch, directory, false) != NULL ? DONE : FAILED;
    free(directory);
    return result;
}

/* NULL: why not was said. */
static struct watched *directory_add(struct watch *watch, const char *path)
{
    struct watched *added = NULL;
    char *full = path_full(path);

    if (full == NULL)
        (void)failure("%s: %s", path, strerror(errno));
    else
        added = add(watch, full, true);
    free(full);
    return added;
}

int watch_directory(struct watch *watch, const char *path)
{
    return directory_add(watch, path) != NULL ? DONE : FAILED;
}

void watch_shut(struct watch *watch, const char *path)
{
    for (size_t i = 0; i < watch->count; i++)
        if (strcmp(watch->items[i].path, path) == 0)
            watch->items[i].is_open_to_new = false;
}

bool watch_is_open(const struct watch *watch, const char *path, size_t size)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->items[i].is_open_to_new && strlen(watch->items[i].path) == size &&
            memcmp(watch->items[i].path, path, size) == 0)
            return true;
    return false;
}

/*
 * A link leads to a file whose commits make events elsewhere.  Also if it is served already: it may
 * be that its directory could not be watched.
 */
static int watch_behind(struct watch *watch, const char *link)
{
    const struct served *served = served_find_link(watch->served, link);

    return served != NULL ? watch_beside(watch, served->path) : DONE;
}

bool watch_guess(struct watch *watch, const char *path)
{
    enum served_result added;
    enum late_outcome outcome;
    int result;

    if (!late_may_try(&watch->late, LATE_FOUND, path))
        return false;
    late_begin(&watch->late, path);
    added = served_add(watch->served, path, true, watch->is_json, &result);
    outcome = added == SERVED_AGAIN ? LATE_BUSY : added == SERVED_FAILED ? LATE_FAILED : LATE_DONE;
    if (outcome == LATE_DONE && watch_behind(watch, path) != DONE)
        outcome = LATE_FAILED;
    late_end(&watch->late, LATE_FOUND, path, outcome);
    return added == SERVED_ADDED;
}

/* A file of an open directory that may be, or have become, a database. */
static bool guess(struct watch *watch, const char *directory, const char *name)
{
    char *path = NULL;
    bool is_added;

    if (is_companion(name))
        return false;
    if (asprintf(&path, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name) < 0) {
        late_miss(&watch->late);
        return false;
    }
    is_added = watch_guess(watch, path);
    free(path);
    return is_added;
}

struct listing {
    struct dirent **names; /* owned */
    int count;             /* -1: it failed, which was said */
};

static struct listing listing_make(const char *directory)
{
    struct listing listing = {NULL, 0};

    listing.count = scandir(directory, &listing.names, NULL, alphasort);
    if (listing.count < 0)
        (void)failure("%s: %s", directory, strerror(errno));
    return listing;
}

static void listing_guess(struct watch *watch, const char *directory, struct listing *listing,
                          void (*each)(void *ctx), void *ctx)
{
    for (int i = 0; i < listing->count; i++) {
        if (guess(watch, directory, listing->names[i]->d_name) && each != NULL)
            each(ctx);
        free(listing->names[i]);
    }
    free(listing->names);
}

static void scan(struct watch *watch, const char *directory, void (*each)(void *ctx), void *ctx)
{
    struct listing listing;

    if (!late_may_try(&watch->late, LATE_DIRECTORY, directory))
        return;
    late_begin(&watch->late, directory);
    listing = listing_make(directory);
    late_end(&watch->late, LATE_DIRECTORY, directory,
             listing.count < 0 ? LATE_FAILED : LATE_DONE); /* others go on */
    listing_guess(watch, directory, &listing, each, ctx);
}

void watch_take(struct watch *watch, const char *path, void (*each)(void *ctx), void *ctx)
{
    struct listing listing = {NULL, -1};
    const struct watched *added; /* moves when a link is found that leads to another directory */
    const char *directory;       /* does not */

    late_begin(&watch->late, path);
    added = directory_add(watch, path); /* first, lest one appears in between */
    directory = added != NULL ? added->path : NULL;
    if (directory != NULL)
        listing = listing_make(directory);
    late_end(&watch->late, LATE_DIRECTORY, path, listing.count < 0 ? LATE_FAILED : LATE_DONE);
    listing_guess(watch, directory, &listing, each, ctx);
}

void watch_scan(struct watch *watch, void (*each)(void *ctx), void *ctx)
{
    for (size_t i = 0; i < watch->count; i++)
        if (watch->items[i].is_open_to_new)
            scan(watch, watch->items[i].path, each, ctx);
}

/* -------------------------------------------------------------------------------- events */

/*
 * `path`: it, or the link through which it was found.  What shall be served comes back, perhaps; of
 * a file of an open directory there are events then.
 */
static void gone(struct watch *watch, struct served *served, const char *path)
{
    const char *awaited = served->named != NULL ? served->named : served->link;

    (void)failure("%s: removed or renamed; no longer served", path);
    if (awaited != NULL) {
        late_begin(&watch->late, awaited);
        late_end(&watch->late, LATE_GONE, awaited, LATE_FAILED);
    }
    served_remove(watch->served, served, false);
}

/* Of some nobody knows what they were. */
static void lost(struct watch *watch)
{
    for (size_t i = watch->served->count; i > 0; i--) {
        struct served *served = &watch->served->items[i - 1];

        served_touch(served, true);
        if (!served_is_there(served))
            gone(watch, served, served->path);
    }
    for (size_t i = 0; i < watch->count; i++)
        if (watch->items[i].is_open_to_new &&
            late_may_try(&watch->late, LATE_DIRECTORY, watch->items[i].path))
            watch_take(watch, watch->items[i].path, NULL, NULL);
}

static bool is_below(const char *path, const char *directory)
{
    size_t size = strlen(directory);

    return strncmp(path, directory, size) == 0 && path[size] == '/';
}

/*
 * What is at this path now is another directory, or nothing.  So is all that was in it: it is
 * dropped, and the directory is taken anew, when there is one.
 */
static void directory_gone(struct watch *watch, size_t at)
{
    struct watched *item = &watch->items[at];
    const char *path = item->path; /* `item` moves when directories are added */
    bool is_open_to_new = item->is_open_to_new;

    (void)inotify_rm_watch(watch->inotify, item->watch); /* the system may have done that */
    item->watch = -1;
    for (size_t i = watch->served->count; i > 0; i--) {
        struct served *served = &watch->served->items[i - 1];
        bool is_in = is_below(served->path, path);

        if (!is_in && (served->link == NULL || !is_below(served->link, path)))
            continue;
        if (!served_is_there(served) ||
            (is_in && !is_open_to_new && watch_beside(watch, served->path) != DONE))
            gone(watch, served, is_in ? served->path : served->link);
    }
    if (is_open_to_new)
        watch_take(watch, path, NULL, NULL);
}

/* Something happened to `name` in `directory`. */
static void event(struct watch *watch, const struct watched *directory, const char *name,
                  uint32_t mask)
{
    const uint32_t moved = IN_DELETE | IN_MOVED_FROM | IN_CREATE | IN_MOVED_TO;
    struct served *served, *linked;
    char *path = NULL;
    bool is_wal = ends_with(name, "-wal"), is_journal = ends_with(name, "-journal");
    size_t size = strlen(name) - (is_wal ? 4 : is_journal ? 8 : 0);

    if (asprintf(&path, "%s/%.*s", strcmp(directory->path, "/") == 0 ? "" : directory->path,
                 (int)size, name) < 0) {
        lost(watch);
        return;
    }
    linked = is_wal || is_journal ? NULL : served_find_link(watch->served, path);
    if (linked != NULL && !served_is_there(linked))
        gone(watch, linked, path);
    served = served_find(watch->served, path);
    /* An event may be older than the file that is served. */
    if (served != NULL && !is_wal && !is_journal && (mask & moved) != 0 &&
        !served_is_there(served)) {
        gone(watch, served, path);
        served = NULL;
    }
    if (served == NULL && (mask & (IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE)) != 0)
        late_stir(&watch->late);
    if (served != NULL && is_wal)
        served_touch(served, true);
    else if (served != NULL && !is_journal)
        served_touch(served, false);
    else if (served == NULL && directory->is_open_to_new && !is_wal &&
             !is_companion(strrchr(path, '/') + 1))
        (void)watch_guess(watch, path);
    free(path);
}

void watch_read(struct watch *watch)
{
    const uint32_t self = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED;
    _Alignas(struct inotify_event) char buffer[EVENT_BUFFER];
    ssize_t size = read(watch->inotify, buffer, sizeof(buffer));

    for (char *p = buffer; p < buffer + size;) {
        const struct inotify_event *one = (const void *)p;

        p += sizeof(*one) + one->len;
        if ((one->mask & IN_Q_OVERFLOW) != 0) {
            lost(watch);
            continue;
        }
        for (size_t i = 0; i < watch->count; i++) {
            if (watch->items[i].watch != one->wd)
                continue;
            if (one->len > 0)
                event(watch, &watch->items[i], one->name, one->mask);
            else if ((one->mask & self) != 0)
                directory_gone(watch, i);
            break;
        }
    }
}
