/*
 * notify.h - tell the service manager how the server is
 *
 * systemd's protocol for services of Type=notify: datagrams of NAME=VALUE lines to the socket that
 * $NOTIFY_SOCKET names, a path or, with @ in front, a name without a file.  Without the variable
 * nothing is sent.  Nobody is waited for longer than a second, and a manager that does not read is
 * not our failure.  Source: sd_notify(3) and sd_watchdog_enabled(3).
 */
#ifndef HYPERWAL_NOTIFY_H
#define HYPERWAL_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>

struct notify {
    int socket;         /* -1: nobody to tell */
    int watchdog_ms;    /* between two signs of life; 0: nobody waits for them */
    double alive_after; /* seconds_now() of the next one */
    double told_after;  /* the next line about a start that takes long is not sent before */
};

void notify_open(struct notify *notify);
void notify_close(struct notify *notify);
/* Databases are still being opened: more time is asked for, and said why. */
void notify_starting(struct notify *notify, size_t count);
void notify_ready(struct notify *notify, size_t count); /* so many databases; also after a reload */
void notify_reloading(struct notify *notify);
void notify_stopping(struct notify *notify);
void notify_status(struct notify *notify, size_t count);
/* Send a sign of life if it is due; milliseconds until the next; -1: never. */
int notify_alive(struct notify *notify);

#endif
