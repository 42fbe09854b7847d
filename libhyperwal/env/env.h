/*
 * env/env.h - the one seam to the outside: files, memory shared between processes, time, chance
 *
 * Everything the library wants from the system.  Two worlds implement it: env_posix.c, and
 * tests/sim/sim_disk.c, which fails, tears, forgets and repeats by a seed.  The contract is
 * stricter than POSIX (no short reads, no EINTR), so that only env_posix.c knows those.
 *
 * Threads: an hw_env may be used by all threads at once, an hw_file by one at a time.
 *
 * Never open the database file or its -shm through here: closing any descriptor of a file drops
 * all POSIX locks of the process on it.  The base VFS of SQLite is the way to those two.
 */
#ifndef HW_ENV_ENV_H
#define HW_ENV_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"

enum hw_log_level { HW_LOG_DEBUG, HW_LOG_INFO, HW_LOG_WARN, HW_LOG_ERROR };

enum {
    HW_OPEN_READ = 1, /* always */
    HW_OPEN_WRITE = 2,
    HW_OPEN_CREATE = 4,         /* make it if it is missing */
    HW_OPEN_EXCLUSIVE = 8,      /* with CREATE: HW_EEXIST if it is there */
    HW_OPEN_CLOSE_ON_FORK = 32, /* a forked child has it closed: it must not keep our lock alive */
    HW_OPEN_PRIVATE = 16,       /* with CREATE: mode 0600, else 0644 less umask */
};

/* What tells a file from another, and whether it was touched. */
struct hw_file_stat {
    uint64_t device, inode;
    uint64_t size;      /* bytes */
    uint64_t allocated; /* bytes that it takes, without its holes */
    int64_t modified_ns, changed_ns;
    uint32_t mode;  /* permission bits */
    uint32_t owner; /* user id */
    bool is_directory;
    bool is_special; /* neither a file nor a directory: a device, a pipe, a socket */
    bool is_foreign; /* its owner is neither who runs this process nor root */
};

struct hw_env;
struct hw_file {
    struct hw_env *env; /* implementations put their own fields after this one */
};

struct hw_env {
    const struct hw_env_ops *ops; /* implementations put their own fields after this one */
};

struct hw_env_ops {
    enum hw_status (*open)(struct hw_env *env, const char *path, unsigned flags,
                           struct hw_file **out, struct hw_error *err);
    /* All of it; HW_END: the file ends before `size` (what is there was read, the rest is zero). */
    enum hw_status (*read_at)(struct hw_file *file, uint64_t offset, void *buf, size_t size,
                              struct hw_error *err);
    enum hw_status (*write_at)(struct hw_file *file, uint64_t offset, const void *buf, size_t size,
                               struct hw_error *err);
    enum hw_status (*sync)(struct hw_file *file, struct hw_error *err); /* as fdatasync */
    /* Begin to write these bytes out, so that a sync to come waits less.  Promises nothing. */
    void (*start_sync)(struct hw_file *file, uint64_t offset, uint64_t size);
    enum hw_status (*truncate)(struct hw_file *file, uint64_t size, struct hw_error *err);
    /* Reserve room up to `size` bytes, so that later syncs need not extend the file. */
    enum hw_status (*allocate)(struct hw_file *file, uint64_t size, struct hw_error *err);
    /*
     * Give the room of these bytes back: they read as zero from now on, or, where the file system
     * cannot do it, as they were.  The size of the file stays.
     */
    enum hw_status (*punch)(struct hw_file *file, uint64_t offset, uint64_t size,
                            struct hw_error *err);
    enum hw_status (*stat_file)(struct hw_file *file, struct hw_file_stat *out,
                                struct hw_error *err);
    /* Give it the mode of the file `path`, and as far as we may its owner and group. */
    enum hw_status (*copy_rights)(struct hw_file *file, const char *path, struct hw_error *err);
    /* Exclusive lock of the open file (OFD): HW_EBUSY if taken and !wait.  Gone with the handle. */
    enum hw_status (*lock)(struct hw_file *file, bool wait, struct hw_error *err);
    void (*unlock)(struct hw_file *file);
    /* Share the first `size` bytes with every process that maps them.  Lives beyond close. */
    enum hw_status (*map)(struct hw_file *file, size_t size, void **out, struct hw_error *err);
    void (*unmap)(struct hw_env *env, void *memory, size_t size);
    void (*close)(struct hw_file *file); /* NULL does nothing */

    enum hw_status (*stat)(struct hw_env *env, const char *path, struct hw_file_stat *out,
                           struct hw_error *err); /* HW_ENOTFOUND */
    /* The same of a symbolic link itself, which is_special. */
    enum hw_status (*stat_link)(struct hw_env *env, const char *path, struct hw_file_stat *out,
                                struct hw_error *err);
    /* Is it a directory of a file system that lives in memory (tmpfs, ramfs)? */
    bool (*is_in_memory)(struct hw_env *env, const char *path);
    enum hw_status (*rename)(struct hw_env *env, const char *from, const char *to,
                             struct hw_error *err);
    enum hw_status (*remove)(struct hw_env *env, const char *path, struct hw_error *err);
    enum hw_status (*make_dir)(struct hw_env *env, const char *path, struct hw_error *err);
    /* The same with that mode, less the umask, instead of 0755. */
    enum hw_status (*make_dir_as)(struct hw_env *env, const char *path, unsigned mode,
                                  struct hw_error *err);
    enum hw_status (*remove_dir)(struct hw_env *env, const char *path, struct hw_error *err);
    /* Calls `each` with every name in the directory but "." and ".."; stops if it returns false. */
    enum hw_status (*list)(struct hw_env *env, const char *path,
                           bool (*each)(void *ctx, const char *name), void *ctx,
                           struct hw_error *err);
    enum hw_status (*sync_dir)(struct hw_env *env, const char *path, struct hw_error *err);

    uint64_t (*monotonic_ns)(struct hw_env *env); /* since boot: the same clock in all processes */
    int64_t (*realtime_ms)(struct hw_env *env);   /* since 1970; for people, never for decisions */
    void (*random)(struct hw_env *env, void *buf, size_t size);
    /* All zero on a machine without one.  One that cannot be read now is a failure, no other id. */
    enum hw_status (*machine_id)(struct hw_env *env, uint8_t out[16], struct hw_error *err);
    enum hw_status (*boot_id)(struct hw_env *env, uint8_t out[16], struct hw_error *err);
    /* Of all processes that can meet over a file here no other one's; hw_env_pid(). */
    uint32_t (*process_id)(struct hw_env *env);
    uint32_t (*user_id)(struct hw_env *env); /* whose files ours are */

    /*
     * Sleep while *word == expected, in memory that may be shared between processes, until it is
     * woken or timeout_ns passed (0: at once; UINT64_MAX: for ever).  May return early.
     */
    void (*wait_word)(struct hw_env *env, uint32_t *word, uint32_t expected, uint64_t timeout_ns);
    void (*wake_word)(struct hw_env *env, uint32_t *word); /* all who wait */

    void (*log)(struct hw_env *env, enum hw_log_level level, const char *line);
};

/*
 * The system itself; one per process, never freed.  Its process ids are the numbers that processes
 * have in their own PID namespaces, and above them, from bit 22 on, which namespace that is.
 */
struct hw_env *hw_env_posix(void);

#define HW_ENV_PID_BITS 22 /* Linux gives no number of more */

/* The process's number where it lives, for people. */
static inline uint32_t hw_env_pid(uint32_t process_id)
{
    return process_id & ((1U << HW_ENV_PID_BITS) - 1);
}

/* Zeros of this process alone where no memory is mapped; else nothing happens. */
void hw_env_posix_fill_hole(void *address, size_t size);

/*
 * Where its log lines go, one at a time; NULL: nowhere (the start).  Safe at any time but from the
 * sink.
 */
void hw_env_posix_set_log(void (*sink)(void *ctx, enum hw_log_level level, const char *line),
                          void *ctx);

/* One event, one line: "event=worker_started db=app.db".  Formats only if somebody listens. */
void hw_env_log(struct hw_env *env, enum hw_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Make `dir`, which has the content of the database `path` (NULL: `dir` without its "-hyper"): who
 * may not read the one may not enter the other.  As make_dir if the database is not there yet.
 */
enum hw_status hw_env_make_dir_of(struct hw_env *env, const char *dir, const char *path,
                                  struct hw_error *err) HW_MUST_CHECK;

/* Is something at `path`?  Only HW_ENOTFOUND is a no: what cannot be seen may be there. */
enum hw_status hw_env_exists(struct hw_env *env, const char *path, bool *out,
                             struct hw_error *err) HW_MUST_CHECK;
/* Make names durable that were made, renamed or removed beside `path`. */
enum hw_status hw_env_sync_names(struct hw_env *env, const char *path,
                                 struct hw_error *err) HW_MUST_CHECK;
/* A whole small file at once.  HW_ELIMIT: larger than `capacity`. */
enum hw_status hw_env_read_file(struct hw_env *env, const char *path, void *buf, size_t capacity,
                                size_t *size, struct hw_error *err) HW_MUST_CHECK;
/*
 * The same into `out` (owned by the caller), as large as it is.  Another process may replace the
 * file meanwhile: what is read is all of the one or all of the other.
 */
enum hw_status hw_env_read_text(struct hw_env *env, const char *path, size_t max,
                                struct hw_buffer *out, struct hw_error *err) HW_MUST_CHECK;
/* HW_EREADONLY: others than who runs this process, and root, may write it, `and_so` (a clause). */
enum hw_status hw_env_check_ours(const char *path, const struct hw_file_stat *stat,
                                 const char *and_so, struct hw_error *err) HW_MUST_CHECK;
/* Write `path` so that it has the old content or the new one after a crash: tmp, sync, rename. */
enum hw_status hw_env_replace_file(struct hw_env *env, const char *path, const void *buf,
                                   size_t size, unsigned open_flags,
                                   struct hw_error *err) HW_MUST_CHECK;

#endif
