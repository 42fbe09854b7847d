/*
 * Implements the files with holes of vfs/vfs.h: a VFS below ours, through which the database file
 * of a lazy replica is read and written by everybody, whose own VFS below is the system's.
 *
 *     user's connection ──▶ shim ──┐
 *     applier ─────────────────────┴──▶ file with holes ──▶ unix ──▶ KEY/db
 *                                          ▲ map: has / mark        │
 *     filler ──────────────────────────────┴──── guard ─────────────┘
 *
 * A read waits until its pages are there.  A write, which only a checkpoint of the applier does,
 * marks its pages after they were written.  No memory is mapped: a hole would read as zeros.
 */
#include <string.h>

#include "env/thread.h"
#include "vfs/shim.h"

enum { AHEAD_GROUPS_MAX = 64 };

struct lazy_file {
    struct hw_layer layer;    /* first */
    struct hw_vfs_lazy *lazy; /* borrowed: its owner outlives the file */
    uint32_t page_size;
    uint32_t run_end; /* last group of a run that is read in order */
    uint32_t ahead;   /* groups wanted beyond it */
};

static struct hw_mutex mutex = HW_MUTEX_INIT; /* guards the list */
static struct hw_vfs_lazy *attached;

void hw_vfs_lazy_attach(struct hw_vfs_lazy *lazy)
{
    hw_mutex_lock(&mutex);
    lazy->next = attached;
    attached = lazy;
    hw_mutex_unlock(&mutex);
}

void hw_vfs_lazy_detach(struct hw_vfs_lazy *lazy)
{
    hw_mutex_lock(&mutex);
    for (struct hw_vfs_lazy **at = &attached; *at != NULL; at = &(*at)->next) {
        if (*at == lazy) {
            *at = lazy->next;
            break;
        }
    }
    hw_mutex_unlock(&mutex);
}

void hw_vfs_lazy_forked(void)
{
    hw_mutex_init(&mutex);
    attached = NULL; /* the parent's */
}

static struct hw_vfs_lazy *find(const char *path)
{
    struct hw_vfs_lazy *lazy;

    hw_mutex_lock(&mutex);
    for (lazy = attached; lazy != NULL && strcmp(lazy->path, path) != 0; lazy = lazy->next)
        ;
    hw_mutex_unlock(&mutex);
    return lazy;
}

static struct lazy_file *lazy_of(sqlite3_file *file)
{
    return (struct lazy_file *)file;
}

/* ------------------------------------------------------------------------------- the holes */

/*
 * Who goes through the groups in order finds the next ones under way, twice as many each time.
 * What lies behind, or was there already, is an inner page of a tree and changes nothing.
 */
static void read_ahead(struct lazy_file *file, uint32_t group, bool was_absent)
{
    struct hw_lazy_map *map = file->lazy->map;
    uint32_t count = hw_lazy_map_origin(map).group_count;
    bool is_new = false;

    if (group == file->run_end + 1) {
        file->run_end = group;
        file->ahead = file->ahead == 0 ? 1 : 2 * file->ahead;
        if (file->ahead > AHEAD_GROUPS_MAX)
            file->ahead = AHEAD_GROUPS_MAX;
    } else if (was_absent && group != file->run_end) {
        file->run_end = group;
        file->ahead = 0;
    } else {
        return;
    }
    for (uint32_t g = group + 1; g <= group + file->ahead && g < count; g++) {
        if (hw_lazy_group(map, g) != UINT64_MAX && hw_lazy_want(map, g))
            is_new = true;
    }
    if (is_new)
        file->lazy->ring(file->lazy->ctx);
}

/* All pages that these bytes touch are there when this returns SQLITE_OK. */
static int need(struct lazy_file *file, uint64_t offset, uint64_t size)
{
    struct hw_vfs_lazy *lazy = file->lazy;
    uint32_t first = (uint32_t)(offset / file->page_size) + 1;
    uint32_t last = (uint32_t)((offset + size - 1) / file->page_size) + 1;
    struct hw_error error = {0};

    if (hw_lazy_map_is_broken(lazy->map)) {
        (void)hw_fail(&error, HW_EBROKEN,
                      "the cache does not fit its log any more: close all connections to it and "
                      "open it again");
        hw_shim_tell(lazy->path, SQLITE_IOERR_READ, &error);
        return SQLITE_IOERR_READ;
    }
    for (uint32_t page = first; page <= last; page++) {
        bool was_absent = !hw_lazy_has(lazy->map, page);
        enum hw_status status;

        read_ahead(file, (page - 1) / HW_GROUP_PAGES, was_absent);
        if (!was_absent)
            continue;
        status = lazy->need(lazy->ctx, page, &error);
        if (status != HW_OK) {
            hw_shim_tell(lazy->path, SQLITE_IOERR_READ, &error);
            return status == HW_ENOMEM ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_READ;
        }
    }
    return SQLITE_OK;
}

static int lazy_read(sqlite3_file *sqlite_file, void *out, int size, sqlite3_int64 offset)
{
    struct lazy_file *file = lazy_of(sqlite_file);
    int code = need(file, (uint64_t)offset, (uint64_t)size);

    return code == SQLITE_OK
               ? file->layer.below->pMethods->xRead(file->layer.below, out, size, offset)
               : code;
}

/* A checkpoint's: whole pages, and none of the filler's at the same time. */
static int lazy_write(sqlite3_file *sqlite_file, const void *bytes, int size, sqlite3_int64 offset)
{
    struct lazy_file *file = lazy_of(sqlite_file);
    uint64_t end = (uint64_t)offset + (uint64_t)size;
    int code;

    hw_mutex_lock(&file->lazy->filling);
    code = file->layer.below->pMethods->xWrite(file->layer.below, bytes, size, offset);
    if (code == SQLITE_OK && (uint64_t)offset % file->page_size == 0) {
        for (uint64_t at = (uint64_t)offset; at + file->page_size <= end; at += file->page_size)
            hw_lazy_mark(file->lazy->map, (uint32_t)(at / file->page_size) + 1);
    }
    hw_mutex_unlock(&file->lazy->filling);
    return code;
}

static int lazy_truncate(sqlite3_file *sqlite_file, sqlite3_int64 size)
{
    struct lazy_file *file = lazy_of(sqlite_file);
    int code;

    hw_mutex_lock(&file->lazy->filling);
    hw_lazy_mark_above(file->lazy->map, (uint32_t)((uint64_t)size / file->page_size));
    code = file->layer.below->pMethods->xTruncate(file->layer.below, size);
    hw_mutex_unlock(&file->lazy->filling);
    return code;
}

static int lazy_control(sqlite3_file *file, int op, void *argument)
{
    sqlite3_file *below = lazy_of(file)->layer.below;

    /* A file made larger in chunks would look like a larger database; memory is not mapped. */
    if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE)
        return SQLITE_OK;
    if (op == SQLITE_FCNTL_MMAP_SIZE)
        return SQLITE_NOTFOUND;
    return below->pMethods->xFileControl(below, op, argument);
}

static void fill_methods(struct lazy_file *file)
{
    sqlite3_io_methods *methods = &file->layer.methods;

    hw_layer_fill(&file->layer);
    methods->iVersion = 2; /* no xFetch */
    methods->xFetch = NULL;
    methods->xUnfetch = NULL;
    methods->xRead = lazy_read;
    methods->xWrite = lazy_write;
    methods->xTruncate = lazy_truncate;
    methods->xFileControl = lazy_control;
}

/* ------------------------------------------------------------------------------- the VFS */

int hw_lazy_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *sqlite_file, int flags,
                 int *out_flags)
{
    struct lazy_file *file = lazy_of(sqlite_file);
    sqlite3_vfs *base = hw_shim(vfs)->base;
    struct hw_vfs_lazy *lazy =
        name != NULL && (flags & SQLITE_OPEN_MAIN_DB) != 0 ? find(name) : NULL;
    int code;

    if (lazy == NULL)
        return base->xOpen(base, name, sqlite_file, flags, out_flags);
    hw_layer_init(&file->layer, sizeof(*file));
    file->lazy = lazy;
    file->page_size = hw_lazy_map_origin(lazy->map).page_size;
    file->run_end = UINT32_MAX - 1;
    code = hw_layer_open(&file->layer, base, name, flags, out_flags);
    if (code == SQLITE_OK)
        fill_methods(file);
    return code;
}

int hw_lazy_file_size(const sqlite3_vfs *base)
{
    return (int)sizeof(struct lazy_file) + base->szOsFile;
}
