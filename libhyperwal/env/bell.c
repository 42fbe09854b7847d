/* Implements env/bell.h on Linux. */
#include "env/bell.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
    EVENTS_SIZE = 4096, /* bytes of watches read at once; what is left rings at the next wait */
    FILE_EVENTS = IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF, /* ATTRIB: unlinked */
    DIRECTORY_EVENTS = IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF,
};

struct hw_bell {
    struct hw_env *env;
    int rings; /* eventfd */
    /* inotify, made with the first watch, by any thread: a user has few; -1: not yet */
    _Atomic int watches;
};

enum hw_status hw_bell_open(struct hw_env *env, struct hw_bell **out, struct hw_error *err)
{
    struct hw_bell *bell = hw_alloc(sizeof(*bell));
    int rings;

    if (bell == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a bell");
    rings = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rings < 0) {
        int saved = errno;

        hw_free(bell);
        return hw_fail_errno(err, saved, "cannot make an eventfd");
    }
    bell->env = env;
    bell->rings = rings;
    atomic_init(&bell->watches, -1);
    *out = bell;
    return HW_OK;
}

void hw_bell_close(struct hw_bell *bell)
{
    if (bell == NULL)
        return;
    (void)close(bell->rings); /* nothing of them was to be kept */
    if (bell->watches >= 0)
        (void)close(bell->watches);
    hw_free(bell);
}

void hw_bell_ring(struct hw_bell *bell)
{
    uint64_t one = 1;
    int saved = errno; /* a signal handler must leave it as it was */

    if (write(bell->rings, &one, sizeof(one)) < 0) {
        /* Only if it has rung 2^64 times and nobody came: it rings. */
    }
    errno = saved;
}

static enum hw_status open_watches(struct hw_bell *bell, struct hw_error *err)
{
    if (bell->watches >= 0)
        return HW_OK;
    bell->watches = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (bell->watches >= 0)
        return HW_OK;
    if (errno == EMFILE)
        return hw_fail(err, HW_ELIMIT,
                       "cannot watch files: too many open files, or too many watchers of this "
                       "user: raise fs.inotify.max_user_instances");
    return hw_fail_errno(err, errno, "cannot watch files");
}

enum hw_status hw_bell_watch(struct hw_bell *bell, const char *path, int *watch,
                             struct hw_error *err)
{
    struct hw_file_stat stat;
    enum hw_status status = open_watches(bell, err);
    int made;

    if (status == HW_OK)
        status = bell->env->ops->stat(bell->env, path, &stat, err);
    if (status != HW_OK)
        return status;
    made =
        inotify_add_watch(bell->watches, path, stat.is_directory ? DIRECTORY_EVENTS : FILE_EVENTS);
    if (made < 0 && errno == ENOSPC)
        return hw_fail(err, HW_ELIMIT, "%s: cannot watch it: raise fs.inotify.max_user_watches",
                       path);
    if (made < 0)
        return hw_fail_errno(err, errno, "%s: cannot watch it", path);
    *watch = made;
    return HW_OK;
}

void hw_bell_unwatch(struct hw_bell *bell, int watch)
{
    (void)inotify_rm_watch(bell->watches, watch); /* fails if the file is gone: the watch too */
}

/* Tell the watches that rang, each once as long as they come in a row. */
static void tell_watches(struct hw_bell *bell, void (*each)(void *ctx, int watch), void *ctx)
{
    char events[EVENTS_SIZE] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t size = read(bell->watches, events, sizeof(events));
    struct inotify_event event;
    int last = -2;

    for (ssize_t at = 0; at < size; at += (ssize_t)sizeof(event) + (ssize_t)event.len) {
        int watch;

        memcpy(&event, events + at, sizeof(event));
        watch = event.mask & IN_Q_OVERFLOW ? -1 : event.wd;
        if (watch != last && !(event.mask & IN_IGNORED))
            each(ctx, watch);
        last = watch;
    }
}

void hw_bell_wait(struct hw_bell *bell, uint64_t timeout_ns, void (*each)(void *ctx, int watch),
                  void *ctx)
{
    struct pollfd polled[2] = {{.fd = bell->rings, .events = POLLIN},
                               {.fd = bell->watches, .events = POLLIN}}; /* -1 is left out */
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000U),
                               .tv_nsec = (long)(timeout_ns % 1000000000U)};
    uint64_t count;

    if (ppoll(polled, 2, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL) <= 0)
        return; /* time is up, or a signal */
    if (polled[0].revents != 0 && read(bell->rings, &count, sizeof(count)) < 0) {
        /* Nothing else reads it; were it empty, we woke for nothing. */
    }
    if (polled[1].revents != 0)
        tell_watches(bell, each, ctx);
}
