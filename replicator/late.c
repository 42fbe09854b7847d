/* Implements late.h. */
#include "late.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "report.h"

enum { FOUND_MOST = 4096 }; /* as many as can be served at all */
enum { BUSY_MS_LEAST = 500, BUSY_MS_MOST = 4000 };
enum { FAILED_MS_LEAST = 1000, FAILED_MS_MOST = 30000 };

static void item_release(struct late *item)
{
    free(item->path);
    free(item->said);
}

void late_release(struct late_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        item_release(&list->items[i]);
    free(list->items);
    free(list->words);
    *list = (struct late_list){0};
}

static struct late *find(const struct late_list *list, enum late_kind kind, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].kind == kind && strcmp(list->items[i].path, path) == 0)
            return &list->items[i];
    return NULL;
}

/* All zero: that cannot be told, or it is not there. */
static struct late_stamp stamp_of(const char *path)
{
    struct stat stat_;

    if (stat(path, &stat_) != 0)
        return (struct late_stamp){0};
    return (struct late_stamp){stat_.st_ino, stat_.st_size, stat_.st_mtim};
}

static bool is_same(const struct late_stamp *one, const struct late_stamp *other)
{
    return one->inode == other->inode && one->size == other->size &&
           one->modified.tv_sec == other->modified.tv_sec &&
           one->modified.tv_nsec == other->modified.tv_nsec;
}

static bool item_may_try(struct late *item)
{
    double soon;
    struct late_stamp stamp;

    if (seconds_now() >= item->after)
        return true;
    soon = item->tried + FAILED_MS_LEAST / 1000.0;
    if (item->after <= soon)
        return false;
    stamp = stamp_of(item->path);
    if (!is_same(&stamp, &item->stamp))
        item->after = soon;
    return false;
}

bool late_may_try(struct late_list *list, enum late_kind kind, const char *path)
{
    struct late *item = list->count > 0 ? find(list, kind, path) : NULL;

    return item == NULL || item_may_try(item);
}

void late_stir(struct late_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].kind == LATE_NAMED || list->items[i].kind == LATE_GONE)
            (void)item_may_try(&list->items[i]);
}

char *late_next(struct late_list *list, enum late_kind *kind)
{
    double now = seconds_now();
    char *path;

    for (size_t i = 0; i < list->count; i++) {
        struct late *item = &list->items[i];

        if (now < item->after)
            continue;
        *kind = item->kind;
        path = strdup(item->path);
        if (path != NULL)
            return path;
        item->after = now + FAILED_MS_LEAST / 1000.0;
    }
    return NULL;
}

void late_miss(struct late_list *list)
{
    list->has_more = true;
    list->more_after = seconds_now() + FAILED_MS_MOST / 1000.0;
}

bool late_takes_more(struct late_list *list)
{
    if (!list->has_more || seconds_now() < list->more_after)
        return false;
    list->has_more = false;
    return true;
}

double late_wait(const struct late_list *list)
{
    double now = seconds_now(), least = list->has_more ? list->more_after - now : -1;

    if (list->has_more && least < 0)
        least = 0;
    for (size_t i = 0; i < list->count; i++) {
        double wait = list->items[i].after > now ? list->items[i].after - now : 0;

        if (least < 0 || wait < least)
            least = wait;
    }
    return least;
}

/* ------------------------------------------------------------------------------ the tries */

void late_begin(struct late_list *list, const char *path)
{
    list->stamp = stamp_of(path);
    failure_keep(&list->words);
}

/* A new one; NULL: there is no room, and all directories will be looked at again. */
static struct late *item_new(struct late_list *list, enum late_kind kind, const char *path)
{
    struct late *grown = NULL;
    char *copy = strdup(path);

    if (copy != NULL && (kind != LATE_FOUND || list->count < FOUND_MOST))
        grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
    if (grown == NULL) {
        free(copy);
        late_miss(list);
        return NULL;
    }
    list->items = grown;
    grown += list->count++;
    *grown = (struct late){.kind = kind, .path = copy};
    return grown;
}

/* Say what is new of it. */
static void say(struct late *item, char *words)
{
    if (words == NULL || (item->said != NULL && strcmp(item->said, words) == 0)) {
        free(words);
        return;
    }
    fputs(words, stderr);
    free(item->said);
    item->said = words;
}

static void keep(struct late *item, const struct late_stamp *stamp, enum late_outcome outcome)
{
    double least = (outcome == LATE_BUSY ? BUSY_MS_LEAST : FAILED_MS_LEAST) / 1000.0;
    double most = (outcome == LATE_BUSY ? BUSY_MS_MOST : FAILED_MS_MOST) / 1000.0;

    item->pause = is_same(stamp, &item->stamp) ? 2 * item->pause : 0;
    item->stamp = *stamp;
    if (item->pause < least)
        item->pause = least;
    if (item->pause > most)
        item->pause = most;
    item->tried = seconds_now();
    item->after = item->tried + item->pause;
}

void late_end(struct late_list *list, enum late_kind kind, const char *path,
              enum late_outcome outcome)
{
    struct late *item = find(list, kind, path);
    char *words;

    failure_keep(NULL);
    words = list->words;
    list->words = NULL;
    if (outcome == LATE_DONE) {
        if (words != NULL)
            fputs(words, stderr);
        free(words);
        if (item != NULL) {
            item_release(item);
            *item = list->items[--list->count];
        }
        return;
    }
    if (item == NULL)
        item = item_new(list, kind, path);
    if (item == NULL) {
        if (words != NULL && list->count < FOUND_MOST) /* else it is one of thousands */
            fputs(words, stderr);
        free(words);
        return;
    }
    keep(item, &list->stamp, outcome);
    say(item, words);
}
