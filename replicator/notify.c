/* Implements notify.h. */
#include "notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "program.h"
#include "report.h"

enum { START_TELL_MS = 1000, START_MORE_MS = 60000 }; /* each second: a minute more, please */

static bool address_make(const char *name, struct sockaddr_un *address, socklen_t *size)
{
    size_t length = strlen(name);

    if ((name[0] != '/' && name[0] != '@') || length < 2 || length >= sizeof(address->sun_path))
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, name, length);
    if (name[0] == '@')
        address->sun_path[0] = '\0';
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (name[0] == '/'));
    return true;
}

/* Microseconds of $WATCHDOG_USEC, if they are meant for this process; in milliseconds, half. */
static int watchdog_half(void)
{
    const char *pid = getenv("WATCHDOG_PID"), *usec = getenv("WATCHDOG_USEC");
    uint64_t number;

    if (pid != NULL && (!number_parse(pid, &number) || number != (uint64_t)getpid()))
        return 0;
    if (usec == NULL || !number_parse(usec, &number) || number == 0)
        return 0;
    number = number / 2000 + 1;
    return number > 60000 ? 60000 : (int)number;
}

void notify_open(struct notify *notify)
{
    const char *name = getenv("NOTIFY_SOCKET");
    const struct timeval limit = {.tv_sec = 1};
    struct sockaddr_un address;
    socklen_t size;

    *notify = (struct notify){.socket = -1};
    if (name == NULL)
        return;
    if (!address_make(name, &address, &size)) {
        (void)failure("NOTIFY_SOCKET=%s: neither a path nor a name with @; nobody is notified",
                      name);
        return;
    }
    notify->socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->socket < 0 ||
        setsockopt(notify->socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
        connect(notify->socket, (const struct sockaddr *)&address, size) != 0) {
        (void)failure("NOTIFY_SOCKET=%s: %s; nobody is notified", name, strerror(errno));
        notify_close(notify);
        return;
    }
    notify->watchdog_ms = watchdog_half();
}

void notify_close(struct notify *notify)
{
    if (notify->socket >= 0)
        close(notify->socket);
    notify->socket = -1;
}

static void tell(const struct notify *notify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void tell(const struct notify *notify, const char *format, ...)
{
    char text[512];
    va_list args;
    int size;

    if (notify->socket < 0)
        return;
    va_start(args, format);
    size = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (size > 0 && (size_t)size < sizeof(text))
        (void)send(notify->socket, text, (size_t)size, MSG_NOSIGNAL); /* as the header says */
}

void notify_starting(struct notify *notify, size_t count)
{
    double now = seconds_now();

    (void)notify_alive(notify);
    if (now < notify->told_after)
        return;
    notify->told_after = now + START_TELL_MS / 1000.0;
    tell(notify, "EXTEND_TIMEOUT_USEC=%d000\nSTATUS=opening databases: %zu so far",
         (int)START_MORE_MS, count);
}

void notify_ready(struct notify *notify, size_t count)
{
    tell(notify, "READY=1\nSTATUS=serving %zu database%s", count, count == 1 ? "" : "s");
}

void notify_status(struct notify *notify, size_t count)
{
    tell(notify, "STATUS=serving %zu database%s", count, count == 1 ? "" : "s");
}

void notify_reloading(struct notify *notify)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    tell(notify, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reading the configuration again",
         (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

void notify_stopping(struct notify *notify)
{
    tell(notify, "STOPPING=1\nSTATUS=closing databases");
}

int notify_alive(struct notify *notify)
{
    double now = seconds_now();

    if (notify->socket < 0 || notify->watchdog_ms == 0)
        return -1;
    if (now >= notify->alive_after) {
        tell(notify, "WATCHDOG=1");
        notify->alive_after = now + notify->watchdog_ms / 1000.0;
    }
    return (int)((notify->alive_after - now) * 1000) + 1;
}
