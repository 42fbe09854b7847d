/*
 * Implements the ground of vfs/shim.h: what the library opens database files through, so that a
 * forked child can open anew what its parent has open.
 *
 *     shim, capture, replicas, caches ──▶ ground ──▶ unix
 *
 * The unix VFS keeps in memory which locks the process has on a file, one record a file.  A child
 * inherits the memory but not the locks: a connection that it opened would find SHARED taken and
 * lock nothing, and its parent, closing last, would delete the WAL under it.  So before a child
 * opens its first file all of its parent's are let go: their claims in that memory are dropped.
 *
 * And what another thread was in the middle of when the process forked never ends in the child.  So
 * fork() waits until no thread is locking anything below, or in a mutex that all of SQLite shares.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "capture/capture.h"
#include "env/thread.h"
#include "vfs/shim.h"

enum { REGION_SIZE = 32768 }; /* bytes: of the wal-index, as SQLite maps it */

struct ground_file {
    struct hw_layer layer;    /* first */
    struct ground_file *next; /* of those that are open; mu: mutex */
    unsigned generation;      /* of the process that opened it */
    atomic_bool is_mapped;    /* the wal-index; threads of ours share connections */
    bool is_let_go;           /* in a child: nothing but closing is done below any more */
};

#define GATE_INIT PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
static pthread_rwlock_t gate = GATE_INIT; /* who locks below passes; a fork shuts it */

static struct hw_mutex mutex = HW_MUTEX_INIT; /* guards what follows */
static struct ground_file *files;
static unsigned let_go_in; /* the generation that let go of its parent's files */

static atomic_uint generation; /* forks since this code was loaded */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/*
 * In the order in which SQLite takes them: the name of a temporary file is made of random bytes
 * with VFS1 held, and who needs the first random byte looks for a VFS, which is MASTER's, with PRNG
 * held.  STATIC_OPEN is not among them: it is held while a shared cache opens a file, which can
 * take long.
 */
static const int mutex_kinds[] = {
    SQLITE_MUTEX_STATIC_VFS1, SQLITE_MUTEX_STATIC_PRNG, SQLITE_MUTEX_STATIC_MASTER,
    SQLITE_MUTEX_STATIC_LRU,  SQLITE_MUTEX_STATIC_PMEM, SQLITE_MUTEX_STATIC_MEM,
};
enum { MUTEX_COUNT = sizeof(mutex_kinds) / sizeof(mutex_kinds[0]) };
static sqlite3_mutex *mutexes[MUTEX_COUNT]; /* NULL: SQLite has none */

/* ---------------------------------------------------------------------------------- forks */

unsigned hw_shim_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

static void leave_mutexes(void)
{
    for (int i = MUTEX_COUNT; i-- > 0;)
        if (mutexes[i] != NULL)
            sqlite3_mutex_leave(mutexes[i]);
}

static void before_fork(void)
{
    hw_shim_database_before_fork();
    hw_shim_registration_lock();
    (void)pthread_rwlock_wrlock(&gate); /* fails only where it is held already */
    hw_mutex_lock(&mutex);
    for (int i = 0; i < MUTEX_COUNT; i++)
        if (mutexes[i] != NULL)
            sqlite3_mutex_enter(mutexes[i]);
}

static void after_fork_in_parent(void)
{
    leave_mutexes();
    hw_mutex_unlock(&mutex);
    (void)pthread_rwlock_unlock(&gate);
    hw_shim_registration_unlock();
    hw_shim_database_forked(false);
}

/* The child must not hold its parent's claims, and its parent's databases are none of its own. */
static void after_fork_in_child(void)
{
    leave_mutexes();
    hw_mutex_unlock(&mutex);
    (void)pthread_rwlock_unlock(&gate); /* for tools that count locks */
    gate = (pthread_rwlock_t)GATE_INIT; /* those who wait for it are not here */
    atomic_fetch_add(&generation, 1);
    hw_shim_registration_unlock();
    hw_shim_database_forked(true);
    hw_shim_listen_forked(); /* a fork does not wait for a network */
    hw_vfs_lazy_forked();
    hw_capture_forked();
}

static void watch_forks(void)
{
    if (hw_sqlite_has_threads())
        for (int i = 0; i < MUTEX_COUNT; i++)
            mutexes[i] = sqlite3_mutex_alloc(mutex_kinds[i]);
    (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); /* or no memory */
}

void hw_shim_watch_forks(void)
{
    (void)pthread_once(&fork_once, watch_forks);
}

/* --------------------------------------------------------------------- what the parent had */

static struct ground_file *ground_file(sqlite3_file *file)
{
    return (struct ground_file *)file;
}

static bool is_inherited(const struct ground_file *file)
{
    return file->generation != hw_shim_generation() && !file->is_let_go &&
           file->layer.methods.xShmMap != NULL; /* else its locks are no POSIX locks */
}

/*
 * The regions of the wal-index that it has mapped.  SQLite looks into them without asking, and
 * should find nothing in those of its parent's connections rather than no memory.
 */
static size_t list_regions(struct ground_file *file, void **out, size_t capacity)
{
    size_t count = 0;

    for (void volatile *region = NULL; file->is_mapped && count < capacity; count++) {
        if (file->layer.below->pMethods->xShmMap(file->layer.below, (int)count, REGION_SIZE, 0,
                                                 &region) != SQLITE_OK ||
            region == NULL)
            break;
        out[count] = (void *)(uintptr_t)region;
    }
    return count;
}

/* The caller holds `mutex`. */
static void let_go_of_all(void)
{
    enum { REGIONS_MAX = 4096 }; /* of all files: WALs of 64 GiB, with pages of 4 KiB */
    void **regions = hw_alloc(REGIONS_MAX * sizeof(*regions)); /* owned; or NULL */
    size_t count = 0;

    for (struct ground_file *f = files; f != NULL && regions != NULL; f = f->next)
        if (is_inherited(f))
            count += list_regions(f, regions + count, REGIONS_MAX - count);
    for (struct ground_file *f = files; f != NULL; f = f->next) {
        if (!is_inherited(f))
            continue;
        if (f->is_mapped)
            (void)f->layer.below->pMethods->xShmUnmap(f->layer.below,
                                                      0); /* drops memory, and cannot fail */
        (void)f->layer.below->pMethods->xUnlock(f->layer.below,
                                                SQLITE_LOCK_NONE); /* nothing was locked */
        f->is_mapped = false;
        f->is_let_go = true;
    }
    for (size_t i = 0; i < count; i++)
        hw_env_posix_fill_hole(regions[i], REGION_SIZE);
    hw_free(regions);
    let_go_in = hw_shim_generation();
}

/* ------------------------------------------------------------------------ what is locked */

static void enter(void)
{
    (void)pthread_rwlock_rdlock(&gate); /* too many readers: there are not so many threads */
}

static void leave(void)
{
    (void)pthread_rwlock_unlock(&gate);
}

static int ground_close(sqlite3_file *sqlite_file)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    hw_mutex_lock(&mutex);
    for (struct ground_file **at = &files; *at != NULL; at = &(*at)->next) {
        if (*at == file) {
            *at = file->next;
            break;
        }
    }
    hw_mutex_unlock(&mutex);
    enter();
    code = file->layer.below->pMethods->xClose(file->layer.below);
    leave();
    sqlite_file->pMethods = NULL;
    return code;
}

static int ground_lock(sqlite3_file *sqlite_file, int level)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return SQLITE_IOERR_LOCK;
    enter();
    code = file->layer.below->pMethods->xLock(file->layer.below, level);
    leave();
    return code;
}

static int ground_unlock(sqlite3_file *sqlite_file, int level)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return SQLITE_OK;
    enter();
    code = file->layer.below->pMethods->xUnlock(file->layer.below, level);
    leave();
    return code;
}

static int ground_check_reserved_lock(sqlite3_file *sqlite_file, int *out)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return SQLITE_IOERR_CHECKRESERVEDLOCK;
    enter();
    code = file->layer.below->pMethods->xCheckReservedLock(file->layer.below, out);
    leave();
    return code;
}

static int ground_shm_map(sqlite3_file *sqlite_file, int region, int size, int extend,
                          void volatile **memory)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return SQLITE_IOERR_SHMMAP;
    enter();
    code = file->layer.below->pMethods->xShmMap(file->layer.below, region, size, extend, memory);
    leave();
    file->is_mapped = true; /* at least it has begun */
    return code;
}

static int ground_shm_lock(sqlite3_file *sqlite_file, int first, int count, int flags)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return flags & SQLITE_SHM_UNLOCK ? SQLITE_OK : SQLITE_IOERR_SHMLOCK;
    enter();
    code = file->layer.below->pMethods->xShmLock(file->layer.below, first, count, flags);
    leave();
    return code;
}

static int ground_shm_unmap(sqlite3_file *sqlite_file, int delete_flag)
{
    struct ground_file *file = ground_file(sqlite_file);
    int code;

    if (file->is_let_go)
        return SQLITE_OK;
    file->is_mapped = false;
    enter();
    code = file->layer.below->pMethods->xShmUnmap(file->layer.below, delete_flag);
    leave();
    return code;
}

static void fill_methods(struct ground_file *file)
{
    sqlite3_io_methods *methods = &file->layer.methods;

    hw_layer_fill(&file->layer);
    methods->xClose = ground_close;
    methods->xLock = ground_lock;
    methods->xUnlock = ground_unlock;
    methods->xCheckReservedLock = ground_check_reserved_lock;
    if (methods->xShmMap != NULL)
        methods->xShmMap = ground_shm_map;
    if (methods->xShmLock != NULL)
        methods->xShmLock = ground_shm_lock;
    if (methods->xShmUnmap != NULL)
        methods->xShmUnmap = ground_shm_unmap;
}

/* ------------------------------------------------------------------------------- the VFS */

int hw_ground_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *sqlite_file, int flags,
                   int *out_flags)
{
    struct ground_file *file = ground_file(sqlite_file);
    sqlite3_vfs *base = hw_shim(vfs)->base;
    int code;

    if (name == NULL || !(flags & SQLITE_OPEN_MAIN_DB))
        return base->xOpen(base, name, sqlite_file, flags, out_flags);
    hw_shim_watch_forks();
    hw_mutex_lock(&mutex);
    if (let_go_in != hw_shim_generation())
        let_go_of_all();
    hw_mutex_unlock(&mutex);
    hw_layer_init(&file->layer, sizeof(*file));
    code = hw_layer_open(&file->layer, base, name, flags, out_flags);
    if (code != SQLITE_OK)
        return code;
    fill_methods(file);
    hw_mutex_lock(&mutex);
    file->generation = hw_shim_generation();
    file->next = files;
    files = file;
    hw_mutex_unlock(&mutex);
    return SQLITE_OK;
}

int hw_ground_file_size(const sqlite3_vfs *base)
{
    return (int)sizeof(struct ground_file) + base->szOsFile;
}
