/* Implements env/env.h on Linux. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "env/env.h"
#include "env/thread.h"

struct posix_file {
    struct hw_file file;
    int fd;
    struct posix_file *next_on_fork; /* mu: fork_mutex; of those that a child must not keep */
    bool close_on_fork;
    char path[]; /* for messages */
};

static struct posix_file *posix(struct hw_file *file)
{
    return (struct posix_file *)file;
}

/* Guards closed_on_fork.  No other one is taken with it held: a fork takes it after all others. */
static struct hw_mutex fork_mutex = HW_MUTEX_INIT;
static struct posix_file *closed_on_fork;         /* mu: fork_mutex */
static struct hw_mutex log_mutex = HW_MUTEX_INIT; /* guards log_sink, and one line at a time */
static pthread_once_t once = PTHREAD_ONCE_INIT;

#define INIT_NAMESPACE 0xEFFFFFFC /* PROC_PID_INIT_INO of Linux: that of the system itself */

static uint32_t namespace_bits; /* of process ids */

/*
 * Containers that share a volume have processes of the same number, often 1.  The inodes of their
 * namespaces follow each other, so that the rest of a division tells a thousand of them apart.
 */
static void namespace_find(void)
{
    struct stat stat_now;

    namespace_bits = 0;
    if (stat("/proc/self/ns/pid", &stat_now) == 0 && stat_now.st_ino != INIT_NAMESPACE)
        namespace_bits = (uint32_t)(1 + stat_now.st_ino % 1023) << HW_ENV_PID_BITS;
}

static void fork_prepare(void)
{
    hw_mutex_lock(&fork_mutex);
}

static void fork_parent(void)
{
    hw_mutex_unlock(&fork_mutex);
}

static void fork_child(void)
{
    for (struct posix_file *file = closed_on_fork; file != NULL; file = file->next_on_fork) {
        (void)close(file->fd); /* the parent has its own */
        file->fd = -1;
    }
    closed_on_fork = NULL;
    hw_mutex_unlock(&fork_mutex);
    hw_mutex_init(&log_mutex); /* a thread that was writing a line is not here */
    namespace_find();
}

static void begin(void)
{
    namespace_find();
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child); /* fails without memory only */
}

/* Both with fork_mutex held, and with the open or close that belongs to it. */
static void fork_list_add(struct posix_file *file)
{
    file->next_on_fork = closed_on_fork;
    closed_on_fork = file;
}

static void fork_list_remove(const struct posix_file *file)
{
    for (struct posix_file **link = &closed_on_fork; *link != NULL; link = &(*link)->next_on_fork)
        if (*link == file) {
            *link = file->next_on_fork;
            break;
        }
}

/* An errno. */
static int open_descriptor(struct posix_file *file, int os_flags, mode_t mode)
{
    do
        file->fd = open(file->path, os_flags, mode);
    while (file->fd < 0 && errno == EINTR);
    return file->fd < 0 ? errno : 0;
}

/*
 * The same with a fork before it, or after it, and never in the middle: a child that got the
 * descriptor and does not know of it would keep a lock alive that the parent takes later.
 */
static int open_between_forks(struct posix_file *file, int os_flags, mode_t mode)
{
    int os_errno;

    hw_mutex_lock(&fork_mutex);
    os_errno = open_descriptor(file, os_flags, mode);
    if (os_errno == 0)
        fork_list_add(file);
    hw_mutex_unlock(&fork_mutex);
    return os_errno;
}

static void close_descriptor(struct posix_file *file)
{
    if (file->fd >= 0)
        (void)close(file->fd); /* what had to be durable was synced */
}

static enum hw_status posix_open(struct hw_env *env, const char *path, unsigned flags,
                                 struct hw_file **out, struct hw_error *err)
{
    int os_flags = (flags & HW_OPEN_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC, os_errno;
    mode_t mode = flags & HW_OPEN_PRIVATE ? 0600 : 0644;
    struct posix_file *file;
    size_t path_size = strlen(path) + 1;

    if (flags & HW_OPEN_CREATE)
        os_flags |= O_CREAT | (flags & HW_OPEN_EXCLUSIVE ? O_EXCL : 0);
    file = hw_alloc(sizeof(*file) + path_size);
    if (file == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to open it", path);
    file->file.env = env;
    file->close_on_fork = (flags & HW_OPEN_CLOSE_ON_FORK) != 0;
    memcpy(file->path, path, path_size);
    os_errno = file->close_on_fork ? open_between_forks(file, os_flags, mode)
                                   : open_descriptor(file, os_flags, mode);
    if (os_errno != 0) {
        hw_free(file);
        return hw_fail_errno(err, os_errno, "%s: cannot open", path);
    }
    *out = &file->file;
    return HW_OK;
}

static void posix_close(struct hw_file *file)
{
    if (file == NULL)
        return;
    if (posix(file)->close_on_fork) {
        hw_mutex_lock(&fork_mutex);
        fork_list_remove(posix(file));
        close_descriptor(posix(file));
        hw_mutex_unlock(&fork_mutex);
    } else {
        close_descriptor(posix(file));
    }
    hw_free(file);
}

static enum hw_status posix_read_at(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                                    struct hw_error *err)
{
    uint8_t *next = buf;

    while (size > 0) {
        ssize_t got = pread(posix(file)->fd, next, size, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hw_fail_errno(err, errno, "%s: cannot read %zu bytes at %llu", posix(file)->path,
                                 size, (unsigned long long)offset);
        if (got == 0) {
            memset(next, 0, size);
            return HW_END;
        }
        next += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return HW_OK;
}

static enum hw_status posix_write_at(struct hw_file *file, uint64_t offset, const void *buf,
                                     size_t size, struct hw_error *err)
{
    const uint8_t *next = buf;

    while (size > 0) {
        ssize_t put = pwrite(posix(file)->fd, next, size, (off_t)offset);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return hw_fail_errno(err, errno, "%s: cannot write %zu bytes at %llu",
                                 posix(file)->path, size, (unsigned long long)offset);
        next += put;
        offset += (uint64_t)put;
        size -= (size_t)put;
    }
    return HW_OK;
}

static enum hw_status posix_sync(struct hw_file *file, struct hw_error *err)
{
    int rc;

    do
        rc = fdatasync(posix(file)->fd);
    while (rc != 0 && errno == EINTR);
    return rc == 0 ? HW_OK : hw_fail_errno(err, errno, "%s: cannot sync", posix(file)->path);
}

static void posix_start_sync(struct hw_file *file, uint64_t offset, uint64_t size)
{
    /* This flag alone takes no error away from the sync that follows. */
    (void)sync_file_range(posix(file)->fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
}

static enum hw_status posix_truncate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    int rc;

    do
        rc = ftruncate(posix(file)->fd, (off_t)size);
    while (rc != 0 && errno == EINTR);
    if (rc != 0)
        return hw_fail_errno(err, errno, "%s: cannot truncate to %llu", posix(file)->path,
                             (unsigned long long)size);
    return HW_OK;
}

static enum hw_status posix_allocate(struct hw_file *file, uint64_t size, struct hw_error *err)
{
    int rc;

    do
        rc = posix_fallocate(posix(file)->fd, 0, (off_t)size);
    while (rc == EINTR);
    if (rc != 0)
        return hw_fail_errno(err, rc, "%s: cannot reserve %llu bytes", posix(file)->path,
                             (unsigned long long)size);
    return HW_OK;
}

static enum hw_status posix_punch(struct hw_file *file, uint64_t offset, uint64_t size,
                                  struct hw_error *err)
{
    int rc;

    if (size == 0)
        return HW_OK;
    do {
        rc = fallocate(posix(file)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                       (off_t)size);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        return hw_fail_errno(err, errno, "%s: cannot give back %llu bytes at %llu",
                             posix(file)->path, (unsigned long long)size,
                             (unsigned long long)offset);
    return HW_OK;
}

static void stat_convert(const struct stat *from, struct hw_file_stat *to)
{
    *to = (struct hw_file_stat){
        .device = from->st_dev,
        .inode = from->st_ino,
        .size = (uint64_t)from->st_size,
        .allocated = (uint64_t)from->st_blocks * 512,
        .modified_ns = from->st_mtim.tv_sec * 1000000000LL + from->st_mtim.tv_nsec,
        .changed_ns = from->st_ctim.tv_sec * 1000000000LL + from->st_ctim.tv_nsec,
        .mode = from->st_mode & 07777,
        .owner = from->st_uid,
        .is_directory = S_ISDIR(from->st_mode),
        .is_special = !S_ISDIR(from->st_mode) && !S_ISREG(from->st_mode),
        .is_foreign = from->st_uid != 0 && from->st_uid != geteuid(),
    };
}

static enum hw_status posix_stat_file(struct hw_file *file, struct hw_file_stat *out,
                                      struct hw_error *err)
{
    struct stat st;

    if (fstat(posix(file)->fd, &st) != 0)
        return hw_fail_errno(err, errno, "%s: cannot stat", posix(file)->path);
    stat_convert(&st, out);
    return HW_OK;
}

static enum hw_status posix_lock(struct hw_file *file, bool wait, struct hw_error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int rc, old;

    if (wait) /* see hw_thread_interrupt() */
        (void)pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    do
        rc = fcntl(posix(file)->fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
    while (rc != 0 && errno == EINTR);
    if (wait)
        (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    if (rc == 0)
        return HW_OK;
    if (errno == EAGAIN || errno == EACCES)
        return hw_fail(err, HW_EBUSY, "%s: locked by another process", posix(file)->path);
    return hw_fail_errno(err, errno, "%s: cannot lock", posix(file)->path);
}

static void posix_unlock(struct hw_file *file)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    (void)fcntl(posix(file)->fd, F_OFD_SETLK, &lock); /* releasing what we hold cannot fail */
}

static enum hw_status posix_map(struct hw_file *file, size_t size, void **out, struct hw_error *err)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, posix(file)->fd, 0);

    if (memory == MAP_FAILED)
        return hw_fail_errno(err, errno, "%s: cannot map %zu bytes", posix(file)->path, size);
    *out = memory;
    return HW_OK;
}

static void posix_unmap(struct hw_env *env, void *memory, size_t size)
{
    (void)env;
    if (memory != NULL)
        (void)munmap(memory, size); /* fails only for arguments that map() did not give */
}

void hw_env_posix_fill_hole(void *address, size_t size)
{
    void *memory = mmap(address, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (memory != MAP_FAILED && memory != address)
        (void)munmap(memory, size); /* an old kernel that mapped it elsewhere */
}

static enum hw_status posix_stat(struct hw_env *env, const char *path, struct hw_file_stat *out,
                                 struct hw_error *err)
{
    struct stat st;

    (void)env;
    if (stat(path, &st) != 0)
        return hw_fail_errno(err, errno, "%s: cannot stat", path);
    stat_convert(&st, out);
    return HW_OK;
}

static enum hw_status posix_stat_link(struct hw_env *env, const char *path,
                                      struct hw_file_stat *out, struct hw_error *err)
{
    struct stat st;

    (void)env;
    if (lstat(path, &st) != 0)
        return hw_fail_errno(err, errno, "%s: cannot stat", path);
    stat_convert(&st, out);
    return HW_OK;
}

static bool posix_is_in_memory(struct hw_env *env, const char *path)
{
    struct statfs fs;
    struct stat st;

    (void)env;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && statfs(path, &fs) == 0 &&
           (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

static enum hw_status posix_rename(struct hw_env *env, const char *from, const char *to,
                                   struct hw_error *err)
{
    (void)env;
    return rename(from, to) == 0 ? HW_OK
                                 : hw_fail_errno(err, errno, "%s: cannot rename to %s", from, to);
}

/* Without the right to give files away the group may go, and then its rights are another's. */
static enum hw_status posix_copy_rights(struct hw_file *file, const char *path,
                                        struct hw_error *err)
{
    int fd = posix(file)->fd;
    struct stat st;
    mode_t mode;

    if (stat(path, &st) != 0)
        return hw_fail_errno(err, errno, "%s: cannot stat", path);
    mode = st.st_mode & 0777;
    if (fchown(fd, st.st_uid, st.st_gid) != 0 && fchown(fd, (uid_t)-1, st.st_gid) != 0)
        mode &= 0707;
    return fchmod(fd, mode) == 0 ? HW_OK
                                 : hw_fail_errno(err, errno, "%s: cannot give it the rights of %s",
                                                 posix(file)->path, path);
}

static enum hw_status posix_remove(struct hw_env *env, const char *path, struct hw_error *err)
{
    (void)env;
    return unlink(path) == 0 ? HW_OK : hw_fail_errno(err, errno, "%s: cannot remove", path);
}

static enum hw_status posix_make_dir_as(struct hw_env *env, const char *path, unsigned mode,
                                        struct hw_error *err)
{
    (void)env;
    return mkdir(path, (mode_t)mode) == 0 ? HW_OK
                                          : hw_fail_errno(err, errno, "%s: cannot make", path);
}

static enum hw_status posix_make_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    return posix_make_dir_as(env, path, 0755, err);
}

static enum hw_status posix_remove_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    (void)env;
    return rmdir(path) == 0 ? HW_OK : hw_fail_errno(err, errno, "%s: cannot remove", path);
}

static enum hw_status posix_list(struct hw_env *env, const char *path,
                                 bool (*each)(void *ctx, const char *name), void *ctx,
                                 struct hw_error *err)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    int saved = 0;

    (void)env;
    if (dir == NULL)
        return hw_fail_errno(err, errno, "%s: cannot list", path);
    for (;;) {
        errno = 0;
        entry = readdir(dir);
        if (entry == NULL) {
            saved = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!each(ctx, entry->d_name))
            break;
    }
    (void)closedir(dir); /* only read */
    return saved == 0 ? HW_OK : hw_fail_errno(err, saved, "%s: cannot list", path);
}

static enum hw_status posix_sync_dir(struct hw_env *env, const char *path, struct hw_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc, saved;

    (void)env;
    if (fd < 0)
        return hw_fail_errno(err, errno, "%s: cannot open the directory", path);
    rc = fsync(fd);
    saved = errno;
    (void)close(fd); /* only read */
    return rc == 0 ? HW_OK : hw_fail_errno(err, saved, "%s: cannot sync the directory", path);
}

static uint64_t posix_monotonic_ns(struct hw_env *env)
{
    struct timespec now;

    (void)env;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static int64_t posix_realtime_ms(struct hw_env *env)
{
    struct timespec now;

    (void)env;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void posix_random(struct hw_env *env, void *buf, size_t size)
{
    uint8_t *next = buf;

    (void)env;
    while (size > 0) {
        ssize_t got = getrandom(next, size, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            abort(); /* no randomness: a key made now would be worthless */
        next += got;
        size -= (size_t)got;
    }
}

/* Hex digits of an id file, other characters skipped; missing digits are zero. */
static enum hw_status read_id(const char *path, uint8_t out[16], struct hw_error *err)
{
    char text[64] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    unsigned digits = 0;
    ssize_t got;
    int saved;

    memset(out, 0, 16);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return HW_OK; /* a machine without this file: all zero */
    if (fd < 0)
        return hw_fail_errno(err, errno, "%s: cannot open", path);
    got = read(fd, text, sizeof(text) - 1);
    saved = errno;
    (void)close(fd); /* nothing was written */
    if (got < 0)
        return hw_fail_errno(err, saved, "%s: cannot read", path);
    for (const char *p = text; *p != '\0' && digits < 32; p++) {
        unsigned value;

        if (*p >= '0' && *p <= '9')
            value = (unsigned)(*p - '0');
        else if (*p >= 'a' && *p <= 'f')
            value = (unsigned)(*p - 'a' + 10);
        else
            continue;
        out[digits / 2] |= (uint8_t)(value << (digits % 2 == 0 ? 4 : 0));
        digits++;
    }
    return HW_OK;
}

static enum hw_status posix_machine_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    (void)env;
    return read_id("/etc/machine-id", out, err);
}

static enum hw_status posix_boot_id(struct hw_env *env, uint8_t out[16], struct hw_error *err)
{
    (void)env;
    return read_id("/proc/sys/kernel/random/boot_id", out, err);
}

static uint32_t posix_process_id(struct hw_env *env)
{
    (void)env;
    return (uint32_t)getpid() | namespace_bits;
}

static uint32_t posix_user_id(struct hw_env *env)
{
    (void)env;
    return (uint32_t)geteuid();
}

static void posix_wait_word(struct hw_env *env, uint32_t *word, uint32_t expected,
                            uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000U),
                               .tv_nsec = (long)(timeout_ns % 1000000000U)};

    (void)env;
    /* Every outcome (woken, changed before, timeout, signal) means the same: look again. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT, expected, timeout_ns == UINT64_MAX ? NULL : &timeout,
                  NULL, 0);
}

static void posix_wake_word(struct hw_env *env, uint32_t *word)
{
    (void)env;
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0); /* gives a count */
}

struct log_sink {
    void (*line)(void *ctx, enum hw_log_level level, const char *line);
    void *ctx;
};

static struct log_sink log_sink; /* mu: log_mutex */

void hw_env_posix_set_log(void (*sink)(void *ctx, enum hw_log_level level, const char *line),
                          void *ctx)
{
    (void)pthread_once(&once, begin); /* cannot fail with a valid object */
    hw_mutex_lock(&log_mutex);
    log_sink = (struct log_sink){.line = sink, .ctx = ctx};
    hw_mutex_unlock(&log_mutex);
}

static void posix_log(struct hw_env *env, enum hw_log_level level, const char *line)
{
    (void)env;
    hw_mutex_lock(&log_mutex);
    if (log_sink.line != NULL)
        log_sink.line(log_sink.ctx, level, line);
    hw_mutex_unlock(&log_mutex);
}

static const struct hw_env_ops posix_ops = {
    .open = posix_open,
    .read_at = posix_read_at,
    .write_at = posix_write_at,
    .sync = posix_sync,
    .start_sync = posix_start_sync,
    .truncate = posix_truncate,
    .allocate = posix_allocate,
    .punch = posix_punch,
    .stat_file = posix_stat_file,
    .copy_rights = posix_copy_rights,
    .lock = posix_lock,
    .unlock = posix_unlock,
    .map = posix_map,
    .unmap = posix_unmap,
    .close = posix_close,
    .stat = posix_stat,
    .stat_link = posix_stat_link,
    .is_in_memory = posix_is_in_memory,
    .rename = posix_rename,
    .remove = posix_remove,
    .make_dir = posix_make_dir,
    .make_dir_as = posix_make_dir_as,
    .remove_dir = posix_remove_dir,
    .list = posix_list,
    .sync_dir = posix_sync_dir,
    .monotonic_ns = posix_monotonic_ns,
    .realtime_ms = posix_realtime_ms,
    .random = posix_random,
    .machine_id = posix_machine_id,
    .boot_id = posix_boot_id,
    .process_id = posix_process_id,
    .user_id = posix_user_id,
    .wait_word = posix_wait_word,
    .wake_word = posix_wake_word,
    .log = posix_log,
};

struct hw_env *hw_env_posix(void)
{
    static struct hw_env env = {.ops = &posix_ops};

    /* Before all others of this library: what is registered first prepares a fork last, and the
     * layers above open files with their locks held. */
    (void)pthread_once(&once, begin); /* cannot fail with a valid object */
    return &env;
}
