/* Implements hold.h. */
#include "hold.h"

#include <sched.h>
#include <time.h>

#include "report.h"

enum { TAKE_MS = 100, NAP_US = 500 }; /* how long others' commits are waited for, and how often */

static struct timespec time_of(double seconds)
{
    time_t whole = (time_t)seconds;

    return (struct timespec){.tv_sec = whole, .tv_nsec = (long)((seconds - (double)whole) * 1e9)};
}

void hold_nap(void)
{
    const struct timespec nap = {.tv_nsec = NAP_US * 1000L};

    (void)nanosleep(&nap, NULL);
}

/* By tries of our own: what SQLite's busy handler sleeps would count as time held. */
static int lock_take(sqlite3 *writer, double *begin)
{
    double give_up = seconds_now() + TAKE_MS / 1000.0;
    int code;

    for (;;) {
        *begin = seconds_now();
        code = sqlite3_exec(writer, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        if (code != SQLITE_BUSY || *begin >= give_up)
            return code;
        hold_nap();
    }
}

/* On a busy machine the end of the hold would come late; where it is not allowed, so it does. */
static void priority_raise(void)
{
    const struct sched_param least = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};

    (void)pthread_setschedparam(pthread_self(), SCHED_FIFO, &least);
}

static void *hold_main(void *ctx)
{
    struct hold *hold = ctx;
    struct timespec until;
    double begin;
    int code;

    priority_raise();
    code = lock_take(hold->writer, &begin);

    pthread_mutex_lock(&hold->mutex);
    hold->begin = begin;
    hold->code = code;
    hold->state = code == SQLITE_OK ? HOLD_HELD : HOLD_OVER;
    pthread_cond_broadcast(&hold->changed);
    until = time_of(begin + hold->limit);
    while (hold->state == HOLD_HELD && !hold->is_done)
        if (pthread_cond_timedwait(&hold->changed, &hold->mutex, &until) != 0)
            break;           /* the time is over */
    hold->state = HOLD_OVER; /* first, so that nobody takes what comes then for held */
    pthread_mutex_unlock(&hold->mutex);
    if (sqlite3_get_autocommit(hold->writer) == 0)
        (void)sqlite3_exec(hold->writer, "ROLLBACK", NULL, NULL, NULL); /* nothing was written */
    hold->end = seconds_now();                                          /* read after the join */
    return NULL;
}

static void objects_release(struct hold *hold)
{
    pthread_cond_destroy(&hold->changed);
    pthread_mutex_destroy(&hold->mutex);
}

int hold_begin(struct hold *hold, sqlite3 *writer, double limit)
{
    pthread_condattr_t clock;
    int code;

    *hold = (struct hold){.writer = writer, .limit = limit};
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&hold->mutex, NULL);
    pthread_cond_init(&hold->changed, &clock);
    pthread_condattr_destroy(&clock);
    if (pthread_create(&hold->thread, NULL, hold_main, hold) != 0) {
        objects_release(hold);
        return SQLITE_NOMEM;
    }
    pthread_mutex_lock(&hold->mutex);
    while (hold->state == HOLD_TAKING)
        pthread_cond_wait(&hold->changed, &hold->mutex);
    code = hold->code;
    pthread_mutex_unlock(&hold->mutex);
    if (code != SQLITE_OK) {
        pthread_join(hold->thread, NULL);
        objects_release(hold);
    }
    return code;
}

bool hold_is_held(struct hold *hold)
{
    bool is_held;

    pthread_mutex_lock(&hold->mutex);
    is_held = hold->state == HOLD_HELD;
    pthread_mutex_unlock(&hold->mutex);
    return is_held;
}

unsigned hold_left_ms(struct hold *hold)
{
    double left = hold->begin + hold->limit - seconds_now(); /* begin does not change any more */

    return left > 0 ? 1 + (unsigned)(left * 1000) : 0;
}

double hold_end(struct hold *hold)
{
    pthread_mutex_lock(&hold->mutex);
    hold->is_done = true;
    pthread_cond_broadcast(&hold->changed);
    pthread_mutex_unlock(&hold->mutex);
    pthread_join(hold->thread, NULL);
    objects_release(hold);
    return hold->end - hold->begin;
}
