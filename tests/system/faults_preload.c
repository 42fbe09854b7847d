/*
 * A library to be loaded before all others into a program whose calls of the operating system are
 * to fail (tests/system/test_serve_faults.py).  The file that HW_FAULTS names says which, and
 * counts: four words, kind (1 any call, 2 what takes room, 3 one call at one place), seen, first
 * (0: none fails), count; and for kind 3 the name of the call and the end of the file's path.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "system/faults_list.h"

enum { ANY = 1, ROOM = 2, PLACE = 3 };

static struct plan {
    _Atomic uint32_t kind, seen, first, count;
    char call[24], place[88]; /* end with a zero */
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

/* Is it the place whose calls fail?  So asked only if the kind is PLACE. */
static bool is_path_of_place(const char *path)
{
    size_t size = strlen(path), end = strlen(plan->place);

    return size >= end && strcmp(path + size - end, plan->place) == 0;
}

static bool is_descriptor_of_place(int fd)
{
    char link[64], path[4096];
    ssize_t size;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof(path) - 1);
    path[size < 0 ? 0 : size] = '\0';
    return is_path_of_place(path);
}

#define FIRST_OF(first, ...) first
#define FIRST(...)           FIRST_OF(__VA_ARGS__, 0)
#define IS_PLACE(at)                                                                               \
    (plan != NULL && atomic_load(&plan->kind) == PLACE &&                                          \
     _Generic((at), int                                                                            \
              : is_descriptor_of_place, default                                                    \
              : is_path_of_place)(at))

/* Does this call fail?  errno is set then. */
static bool refused(const char *call, bool is_place, int error, bool takes_room)
{
    uint32_t first = plan == NULL ? 0 : atomic_load(&plan->first), kind, n;

    if (first == 0)
        return false;
    kind = atomic_load(&plan->kind);
    if (kind != ANY && !(kind == ROOM && takes_room) &&
        !(kind == PLACE && is_place && strncmp(call, plan->call, strlen(plan->call)) == 0))
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
        if (refused(#name, IS_PLACE(FIRST arguments), error, full))                                \
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
BETWEEN(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EIO, false)
BETWEEN(int, ftruncate64, (int fd, off64_t size), (fd, size), -1, EIO, false)
BETWEEN(int, stat64, (const char *path, struct stat64 *out), (path, out), -1, EIO, false)
BETWEEN(int, lstat64, (const char *path, struct stat64 *out), (path, out), -1, EIO, false)
BETWEEN(int, fstat64, (int fd, struct stat64 *out), (fd, out), -1, EIO, false)

static int open_by(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...);

    if (refused("open", IS_PLACE(path), EMFILE, (flags & O_CREAT) != 0))
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

/* These fail at a place alone. */
#define BETWEEN_AT_PLACE(result, name, parameters, arguments, at, failure, error)                  \
    __attribute__((visibility("default"))) result name parameters;                                 \
    result name parameters                                                                         \
    {                                                                                              \
        result(*next) parameters;                                                                  \
                                                                                                   \
        if (IS_PLACE(at) && refused(#name, true, error, false))                                    \
            return failure;                                                                        \
        real(#name, &next);                                                                        \
        return next arguments;                                                                     \
    }

BETWEEN_AT_PLACE(char *, realpath, (const char *path, char *out), (path, out), path, NULL, EIO)
BETWEEN_AT_PLACE(int, flock, (int fd, int operation), (fd, operation), fd, -1, ENOLCK)
BETWEEN_AT_PLACE(int, inotify_add_watch, (int fd, const char *path, uint32_t mask),
                 (fd, path, mask), path, -1, ENOSPC)
BETWEEN_AT_PLACE(int, scandir,
                 (const char *path, struct dirent ***out, int (*filter)(const struct dirent *),
                  int (*order)(const struct dirent **, const struct dirent **)),
                 (path, out, filter, order), path, -1, EMFILE)
BETWEEN_AT_PLACE(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size), fd, -1, EIO)
