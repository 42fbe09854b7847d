/* Implements the directories of the simulated disk: names, and changes of names not yet synced. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

void sim_path(char out[SIM_PATH_SIZE], const char *path)
{
    size_t size = 0;

    if (path[0] == '.' && (path[1] == '/' || path[1] == '\0'))
        path++;
    out[size++] = '/';
    for (; *path != '\0'; path++) {
        if (*path == '/' && out[size - 1] == '/')
            continue;
        if (size + 1 >= SIM_PATH_SIZE)
            abort(); /* a test with such a name is to be rewritten */
        out[size++] = *path;
    }
    if (size > 1 && out[size - 1] == '/')
        size--;
    out[size] = '\0';
}

void sim_parent(char out[SIM_PATH_SIZE], const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t size = (size_t)(slash - path);

    assert(slash != NULL);
    if (size == 0)
        size = 1; /* the root */
    memcpy(out, path, size);
    out[size] = '\0';
}

/* ----------------------------------------------------------------------------- sets of names */

static struct sim_name *names_find(struct sim_names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i].path, path) == 0)
            return &names->items[i];
    return NULL;
}

static void names_set(struct sim_names *names, const char *path, struct sim_inode *inode)
{
    struct sim_name *name = names_find(names, path);

    if (name != NULL) {
        name->inode = inode;
        return;
    }
    names->items =
        sim_grow(names->items, &names->capacity, names->count + 1, sizeof(*names->items));
    names->items[names->count++] = (struct sim_name){.path = sim_copy_text(path), .inode = inode};
}

static void names_drop(struct sim_names *names, struct sim_name *name)
{
    free(name->path);
    *name = names->items[--names->count];
}

static void names_clear(struct sim_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i].path);
    free(names->items);
    *names = (struct sim_names){0};
}

static void names_copy(const struct sim_names *from, struct sim_names *to)
{
    names_clear(to);
    for (size_t i = 0; i < from->count; i++)
        names_set(to, from->items[i].path, from->items[i].inode);
}

/* ----------------------------------------------------------------------------------- changes */

static void change_apply(struct sim_names *names, const struct sim_name_change *change)
{
    struct sim_name *from = change->from == NULL ? NULL : names_find(names, change->from);

    /* A name that meanwhile means another file stays. */
    if (from != NULL && (change->to == NULL || from->inode == change->inode))
        names_drop(names, from);
    if (change->to != NULL)
        names_set(names, change->to, change->inode);
}

static void change_release(struct sim_name_change *change)
{
    free(change->from);
    free(change->to);
}

static void change_add(struct sim *sim, const char *from, const char *to, struct sim_inode *inode)
{
    struct sim_name_change change = {
        .from = from == NULL ? NULL : sim_copy_text(from),
        .to = to == NULL ? NULL : sim_copy_text(to),
        .inode = inode,
    };

    sim->changes =
        sim_grow(sim->changes, &sim->change_capacity, sim->change_count + 1, sizeof(change));
    sim->changes[sim->change_count++] = change;
    change_apply(&sim->now, &change);
}

/* The directory whose sync makes the change durable: of a rename, where the file comes to be. */
static void change_directory(char out[SIM_PATH_SIZE], const struct sim_name_change *change)
{
    sim_parent(out, change->to != NULL ? change->to : change->from);
}

static void changes_release(struct sim *sim)
{
    for (size_t i = 0; i < sim->change_count; i++)
        change_release(&sim->changes[i]);
    free(sim->changes);
    sim->changes = NULL;
    sim->change_count = sim->change_capacity = 0;
}

/* -------------------------------------------------------------------------------- operations */

struct sim_inode *sim_find(struct sim *sim, const char *path)
{
    const struct sim_name *name = names_find(&sim->now, path);

    return name == NULL ? NULL : name->inode;
}

void sim_names_add(struct sim *sim, const char *path, struct sim_inode *inode)
{
    change_add(sim, NULL, path, inode);
}

void sim_names_put(struct sim *sim, const char *path, struct sim_inode *inode)
{
    struct sim_name_change change = {.inode = inode};
    char *text = sim_copy_text(path);

    if (inode == NULL)
        change.from = text;
    else
        change.to = text;
    change_apply(&sim->now, &change);
    change_apply(&sim->durable, &change);
    free(text);
}

static bool is_inside(const char *path, const char *directory)
{
    size_t size = strlen(directory);

    if (size == 1) /* the root */
        return path[1] != '\0';
    return strncmp(path, directory, size) == 0 && path[size] == '/';
}

/* One change for each name: a kill sees all of them or none, but a crash may tear them apart. */
static void rename_inside(struct sim *sim, const char *from, const char *to)
{
    size_t count = sim->now.count;
    struct sim_name *names = sim_allocate((count + 1) * sizeof(*names));

    for (size_t i = 0; i < count; i++)
        names[i] =
            (struct sim_name){sim_copy_text(sim->now.items[i].path), sim->now.items[i].inode};
    for (size_t i = 0; i < count; i++) {
        char path[2 * SIM_PATH_SIZE];

        (void)snprintf(path, sizeof(path), "%s%s", to,
                       is_inside(names[i].path, from) ? names[i].path + strlen(from) : "");
        if (is_inside(names[i].path, from))
            change_add(sim, names[i].path, path, names[i].inode);
        free(names[i].path);
    }
    free(names);
}

int sim_rename(struct sim *sim, const char *from, const char *to)
{
    struct sim_inode *inode = sim_find(sim, from);
    const struct sim_inode *there = sim_find(sim, to);
    char parent[SIM_PATH_SIZE];

    sim_parent(parent, to);
    if (inode == NULL || sim_find(sim, parent) == NULL)
        return ENOENT;
    if (there != NULL && there->is_directory)
        return EISDIR;
    inode->changed_ns = (int64_t)sim->now_ns;
    change_add(sim, from, to, inode);
    if (inode->is_directory)
        rename_inside(sim, from, to);
    return 0;
}

int sim_remove(struct sim *sim, const char *path, bool is_directory)
{
    const struct sim_inode *inode = sim_find(sim, path);

    if (inode == NULL)
        return ENOENT;
    if (inode->is_directory != is_directory)
        return is_directory ? ENOTDIR : EISDIR;
    if (is_directory)
        for (size_t i = 0; i < sim->now.count; i++)
            if (is_inside(sim->now.items[i].path, path))
                return ENOTEMPTY;
    if (sim->space != UINT64_MAX)
        sim->space += inode->now.size;
    change_add(sim, path, NULL, NULL);
    return 0;
}

int sim_make_dir(struct sim *sim, const char *path)
{
    char parent[SIM_PATH_SIZE];
    const struct sim_inode *directory;

    if (sim_find(sim, path) != NULL)
        return EEXIST;
    sim_parent(parent, path);
    directory = sim_find(sim, parent);
    if (directory == NULL || !directory->is_directory)
        return ENOENT;
    sim_names_add(sim, path, sim_inode_new(sim, 0755, true));
    return 0;
}

int sim_sync_dir(struct sim *sim, const char *path)
{
    const struct sim_inode *directory = sim_find(sim, path);
    char parent[SIM_PATH_SIZE];
    size_t kept = 0;

    if (directory == NULL)
        return ENOENT;
    if (!directory->is_directory)
        return ENOTDIR;
    for (size_t i = 0; i < sim->change_count; i++) {
        struct sim_name_change *change = &sim->changes[i];

        change_directory(parent, change);
        if (strcmp(parent, path) == 0) {
            change_apply(&sim->durable, change);
            change_release(change);
        } else {
            sim->changes[kept++] = *change;
        }
    }
    sim->change_count = kept;
    return 0;
}

/* ------------------------------------------------------------------------------------- crash */

/* A file is there only if its directory is. */
static void names_drop_orphans(struct sim_names *names)
{
    char parent[SIM_PATH_SIZE];
    bool again = true;

    while (again) {
        again = false;
        for (size_t i = 0; i < names->count; i++) {
            sim_parent(parent, names->items[i].path);
            if (names_find(names, parent) != NULL)
                continue;
            names_drop(names, &names->items[i]);
            again = true;
            break;
        }
    }
}

/* File systems keep the order of changes in one directory: a crash keeps a beginning of them. */
static bool change_survives(struct sim *sim, size_t index, const size_t *limits)
{
    char mine[SIM_PATH_SIZE], other[SIM_PATH_SIZE];
    size_t first = index; /* the limit of a directory stands at its first change */

    change_directory(mine, &sim->changes[index]);
    for (size_t i = index; i-- > 0;) {
        change_directory(other, &sim->changes[i]);
        if (strcmp(mine, other) == 0)
            first = i;
    }
    return index < first + limits[first];
}

void sim_names_crash(struct sim *sim, enum sim_crash_mode mode)
{
    size_t count = sim->change_count;
    size_t *limits = sim_allocate((count + 1) * sizeof(*limits));
    bool *survives = sim_allocate(count + 1);

    for (size_t i = 0; i < count; i++)
        limits[i] = (size_t)sim_chance(sim, count - i + 1);
    for (size_t i = 0; i < count; i++)
        survives[i] = mode == SIM_KEEP || (mode != SIM_DROP && change_survives(sim, i, limits));
    for (size_t i = 0; i < count; i++)
        if (survives[i])
            change_apply(&sim->durable, &sim->changes[i]);
    free(limits);
    free(survives);
    changes_release(sim);
    names_drop_orphans(&sim->durable);
    names_copy(&sim->durable, &sim->now);
}

void sim_disk_start(struct sim *sim)
{
    sim_names_put(sim, "/", sim_inode_new(sim, 0755, true));
}

void sim_names_release(struct sim *sim)
{
    names_clear(&sim->now);
    names_clear(&sim->durable);
    changes_release(sim);
}
