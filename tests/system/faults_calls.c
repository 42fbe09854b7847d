/* Implements faults_calls.h. */
#include "system/faults_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <sqlite3.h>

#include "base/alloc.h"
#include "system/faults_list.h"

static struct {
    atomic_int kind;
    atomic_uint seen;  /* of that kind, by all threads */
    atomic_uint first; /* 0: none fails */
    atomic_uint count;
} plan;

static bool fails(enum faults_kind kind)
{
    unsigned first = atomic_load(&plan.first), n;

    if (first == 0 || atomic_load(&plan.kind) != (int)kind)
        return false;
    n = atomic_fetch_add(&plan.seen, 1) + 1;
    return n >= first && n - first < atomic_load(&plan.count);
}

void faults_begin(enum faults_kind kind, unsigned first, unsigned count)
{
    atomic_store(&plan.first, 0);
    atomic_store(&plan.kind, (int)kind);
    atomic_store(&plan.seen, 0);
    atomic_store(&plan.count, count);
    atomic_store(&plan.first, first);
}

bool faults_end(void)
{
    bool was_reached = atomic_load(&plan.seen) >= atomic_load(&plan.first);

    atomic_store(&plan.first, 0);
    return was_reached;
}

static bool allow(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return !fails(FAULTS_MEMORY);
}

/* ------------------------------------------------------------------------ calls of the library */

/* Does this call fail?  errno is set then; `full`: it takes room on the disk. */
static bool refused(int error, bool full)
{
    if (full && fails(FAULTS_SPACE)) {
        errno = ENOSPC;
        return true;
    }
    if (!fails(FAULTS_CALLS))
        return false;
    errno = error;
    return true;
}

/* Declares what the linker has under the name, and defines what it calls in its place. */
#define WRAP(result, name, parameters, arguments, failure, error, full)                            \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        return refused(error, full) ? (failure) : __real_##name arguments;                         \
    }
FAULTS_LIST(WRAP)
WRAP(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset), MAP_FAILED, ENOMEM, false)
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), -1, EMFILE, false)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if ((flags & O_CREAT) != 0)
        mode = va_arg(args, mode_t);
    va_end(args);
    return refused(EMFILE, (flags & O_CREAT) != 0) ? -1 : __real_open(path, flags, mode);
}

/* Locks alone; nothing else that the library does with it can fail. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;
    void *argument;

    va_start(args, command);
    argument = va_arg(args, void *);
    va_end(args);
    if (command == F_OFD_SETLK && ((struct flock *)argument)->l_type != F_UNLCK &&
        refused(ENOLCK, false))
        return -1;
    return __real_fcntl(fd, command, argument);
}

/* --------------------------------------------------------------------------- calls of SQLite */

static int sqlite_open(const char *path, int flags, int mode)
{
    return refused(EMFILE, (flags & O_CREAT) != 0) ? -1 : __real_open(path, flags, mode);
}

static ssize_t sqlite_pread(int fd, void *to, size_t size, off_t at)
{
    return __wrap_pread(fd, to, size, at);
}

static ssize_t sqlite_pwrite(int fd, const void *from, size_t size, off_t at)
{
    return __wrap_pwrite(fd, from, size, at);
}

static int sqlite_ftruncate(int fd, off_t size)
{
    return __wrap_ftruncate(fd, size);
}

static const struct {
    const char *name;
    sqlite3_syscall_ptr call;
} sqlite_calls[] = {
    {"open", (sqlite3_syscall_ptr)sqlite_open},
    {"pread", (sqlite3_syscall_ptr)sqlite_pread},
    {"pread64", (sqlite3_syscall_ptr)sqlite_pread},
    {"pwrite", (sqlite3_syscall_ptr)sqlite_pwrite},
    {"pwrite64", (sqlite3_syscall_ptr)sqlite_pwrite},
    {"ftruncate", (sqlite3_syscall_ptr)sqlite_ftruncate},
};

void faults_install(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find("unix");

    for (size_t i = 0; i < sizeof(sqlite_calls) / sizeof(sqlite_calls[0]); i++)
        (void)vfs->xSetSystemCall(vfs, sqlite_calls[i].name, sqlite_calls[i].call);
    hw_alloc_set_hook(allow, NULL);
}

void faults_remove(void)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find("unix");

    for (size_t i = 0; i < sizeof(sqlite_calls) / sizeof(sqlite_calls[0]); i++)
        (void)vfs->xSetSystemCall(vfs, sqlite_calls[i].name, NULL);
    hw_alloc_set_hook(NULL, NULL);
}
