/* Implements base/error.h and base/status.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hw_status_name(enum hw_status status)
{
    switch (status) {
    case HW_OK:
        return "HW_OK";
    case HW_END:
        return "HW_END";
    case HW_AGAIN:
        return "HW_AGAIN";
    case HW_ENOMEM:
        return "HW_ENOMEM";
    case HW_EIO:
        return "HW_EIO";
    case HW_ENOSPC:
        return "HW_ENOSPC";
    case HW_ECORRUPT:
        return "HW_ECORRUPT";
    case HW_EPROTOCOL:
        return "HW_EPROTOCOL";
    case HW_EPROOF:
        return "HW_EPROOF";
    case HW_EFORK:
        return "HW_EFORK";
    case HW_EVERSION:
        return "HW_EVERSION";
    case HW_EBUSY:
        return "HW_EBUSY";
    case HW_ELIMIT:
        return "HW_ELIMIT";
    case HW_EMISUSE:
        return "HW_EMISUSE";
    case HW_EBROKEN:
        return "HW_EBROKEN";
    case HW_ENOTFOUND:
        return "HW_ENOTFOUND";
    case HW_EPRUNED:
        return "HW_EPRUNED";
    case HW_EEXIST:
        return "HW_EEXIST";
    case HW_EREADONLY:
        return "HW_EREADONLY";
    case HW_ETIMEOUT:
        return "HW_ETIMEOUT";
    case HW_EMISSING:
        return "HW_EMISSING";
    case HW_EREFUSED:
        return "HW_EREFUSED";
    }
    return "HW_UNKNOWN";
}

enum hw_status hw_fail(struct hw_error *err, enum hw_status status, const char *format, ...)
{
    if (err != NULL) {
        va_list args;

        err->status = status;
        err->os_errno = 0;
        va_start(args, format);
        (void)vsnprintf(err->message, sizeof(err->message), format, args); /* truncation is fine */
        va_end(args);
    }
    return status;
}

static enum hw_status status_of_errno(int os_errno)
{
    switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
        return HW_ENOSPC;
    case ENOMEM:
        return HW_ENOMEM;
    case ENOENT:
    case ENOTDIR:
        return HW_ENOTFOUND;
    case EEXIST:
    case ENOTEMPTY:
        return HW_EEXIST;
    case EAGAIN:
    case EBUSY:
        return HW_EBUSY;
    default:
        return HW_EIO;
    }
}

enum hw_status hw_fail_errno(struct hw_error *err, int os_errno, const char *format, ...)
{
    enum hw_status status = status_of_errno(os_errno);

    if (err != NULL) {
        char text[128] = "";
        va_list args;
        int used;

        va_start(args, format);
        used = vsnprintf(err->message, sizeof(err->message), format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof(err->message))
            (void)snprintf(err->message + used, sizeof(err->message) - (size_t)used, ": %s",
                           strerror_r(os_errno, text, sizeof(text)));
        err->status = status;
        err->os_errno = os_errno;
    }
    return status;
}

enum hw_status hw_prefix(struct hw_error *err, enum hw_status status, const char *format, ...)
{
    if (err != NULL) {
        char old[HW_ERROR_SIZE];
        va_list args;
        int used;

        memcpy(old, err->message, sizeof(old));
        va_start(args, format);
        used = vsnprintf(err->message, sizeof(err->message), format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof(err->message))
            (void)snprintf(err->message + used, sizeof(err->message) - (size_t)used, ": %.400s",
                           old);
    }
    return status;
}

bool hw_error_is_forbidden(const struct hw_error *err)
{
    return err->os_errno == EACCES || err->os_errno == EPERM || err->os_errno == EROFS;
}
