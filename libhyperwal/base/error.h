/*
 * base/error.h - the words of a failure: filled once, by whoever sees it first
 *
 * `err` is the last parameter of a function that can fail and may be NULL.  A caller that knows
 * more puts its context in front: "replica.db: block 91: frame 3 at 12392: bad checksum".
 */
#ifndef HW_BASE_ERROR_H
#define HW_BASE_ERROR_H

#include <stdbool.h>

#include "base/status.h"

enum { HW_ERROR_SIZE = 480 };

struct hw_error {
    enum hw_status status;
    int os_errno; /* 0 if no system call was involved */
    char message[HW_ERROR_SIZE];
};

/* Fill *err (unless NULL) and return `status`. */
enum hw_status hw_fail(struct hw_error *err, enum hw_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * The same for a system call that just failed with `os_errno`: its text is added, and the status
 * is HW_ENOSPC, HW_ENOMEM, HW_ENOTFOUND, HW_EEXIST, HW_EBUSY or HW_EIO.
 */
enum hw_status hw_fail_errno(struct hw_error *err, int os_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put context and ": " in front of the message; returns `status`. */
enum hw_status hw_prefix(struct hw_error *err, enum hw_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Did the system say that this user may not (EACCES, EPERM, EROFS)?  No other try changes that. */
bool hw_error_is_forbidden(const struct hw_error *err);

#endif
