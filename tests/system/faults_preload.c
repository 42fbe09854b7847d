/*
 * A library to be loaded before all others into a program whose calls of the operating system are
 * to fail (tests/system/test_serve_faults.py).  The file that HW_FAULTS names says which, and
 * counts: four words, kind (1 any call, 2 what takes room), seen, first (0: none fails), count.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "system/faults_list.h"

enum { ANY = 1, ROOM = 2 };

static struct plan {
    _Atomic uint32_t kind, seen, first, count;
} * plan;

/* The next one of that name; looked up again each time, for tests have time. */
static void real(const char *name, void *out)
{
    void *address = dlsym(RTLD_NEXT, name);

    memcpy(out, &address, sizeof(address));
}

static __attribute__((constructor)) void begin(void)
{
    const char *path = getenv("HW_FAULTS");
    int (*real_open)(const char *, int, ...);
    void *memory;
    int fd;

    if (path == NULL)
        return;
    real("open", &real_open);
    fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    memory = mmap(NULL, sizeof(*plan), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        abort();
    (void)close(fd);
    plan = memory;
}

/* Does this call fail?  errno is set then. */
static bool refused(int error, bool takes_room)
{
    uint32_t first = plan == NULL ? 0 : atomic_load(&plan->first), kind, n;

    if (first == 0)
        return false;
    kind = atomic_load(&plan->kind);
    if (kind != ANY && !(kind == ROOM && takes_room))
        return false;
    n = atomic_fetch_add(&plan->seen, 1) + 1;
    if (n < first || n - first >= atomic_load(&plan->count))
        return false;
    errno = kind == ROOM ? ENOSPC : error;
    return true;
}

#define BETWEEN(result, name, parameters, arguments, failure, error, full)                         \
    __attribute__((visibility("default"))) result name parameters;                                 \
    result name parameters                                                                         \
    {                                                                                              \
        result(*next) parameters;                                                                  \
                                                                                                   \
        if (refused(error, full))                                                                  \
            return failure;                                                                        \
        real(#name, &next);                                                                        \
        return next arguments;                                                                     \
    }
FAULTS_LIST(BETWEEN)

/* SQLite calls those with the longer names, which are the same on machines of 64 bits. */
BETWEEN(ssize_t, pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at), -1, EIO,
        false)
BETWEEN(ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t at),
        (fd, from, size, at), -1, EIO, true)
BETWEEN(int, ftruncate64, (int fd, off64_t size), (fd, size), -1, EIO, false)
BETWEEN(int, stat64, (const char *path, struct stat64 *out), (path, out), -1, EIO, false)
BETWEEN(int, lstat64, (const char *path, struct stat64 *out), (path, out), -1, EIO, false)
BETWEEN(int, fstat64, (int fd, struct stat64 *out), (fd, out), -1, EIO, false)

static int open_by(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...);

    if (refused(EMFILE, (flags & O_CREAT) != 0))
        return -1;
    real(name, &next);
    return next(path, flags, mode);
}

#define OPEN(name)                                                                                 \
    __attribute__((visibility("default"))) int name(const char *path, int flags, ...)              \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        va_list args;                                                                              \
                                                                                                   \
        va_start(args, flags);                                                                     \
        if ((flags & O_CREAT) != 0)                                                                \
            mode = va_arg(args, mode_t);                                                           \
        va_end(args);                                                                              \
        return open_by(#name, path, flags, mode);                                                  \
    }

OPEN(open)
OPEN(open64)
