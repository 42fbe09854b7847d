/*
 * faults_list.h - the calls of the operating system that tests make fail: CALL(result, name,
 * parameters, arguments, what it returns when it fails, errno, whether it takes room on the disk)
 *
 * open and fcntl, which take what they take, are with those who use the list; so is what only one
 * of them has.
 */
#ifndef HW_TESTS_FAULTS_LIST_H
#define HW_TESTS_FAULTS_LIST_H

/* clang-format off */
#define FAULTS_LIST(CALL)                                                                          \
    CALL(ssize_t, pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at), -1, EIO,   \
         false)                                                                                    \
    CALL(ssize_t, pwrite, (int fd, const void *from, size_t size, off_t at),                       \
         (fd, from, size, at), -1, EIO, true)                                                      \
    CALL(int, fdatasync, (int fd), (fd), -1, EIO, false)                                           \
    CALL(int, fsync, (int fd), (fd), -1, EIO, false)                                               \
    CALL(int, ftruncate, (int fd, off_t size), (fd, size), -1, EIO, false)                         \
    CALL(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), -1, EIO,  \
         true)                                                                                     \
    CALL(int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size), errno, EIO, true)   \
    CALL(int, rename, (const char *from, const char *to), (from, to), -1, EIO, true)               \
    CALL(int, unlink, (const char *path), (path), -1, EIO, false)                                  \
    CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, EIO, true)                 \
    CALL(int, stat, (const char *path, struct stat *out), (path, out), -1, EIO, false)             \
    CALL(int, lstat, (const char *path, struct stat *out), (path, out), -1, EIO, false)            \
    CALL(int, fstat, (int fd, struct stat *out), (fd, out), -1, EIO, false)
/* clang-format on */

#endif
