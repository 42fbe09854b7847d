/*
 * env/thread.h - threads and mutexes, thin over POSIX
 *
 * The library starts only the threads that docs/ARCHITECTURE.md names.
 */
#ifndef HW_ENV_THREAD_H
#define HW_ENV_THREAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"

struct hw_mutex {
    pthread_mutex_t mutex;
};

#define HW_MUTEX_INIT                                                                              \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER                                                                  \
    }

void hw_mutex_init(struct hw_mutex *mutex);
void hw_mutex_lock(struct hw_mutex *mutex);
void hw_mutex_unlock(struct hw_mutex *mutex);
void hw_mutex_release(struct hw_mutex *mutex);

/*
 * A mutex that goes to whoever waited: a thread that gives it back and wants it again at once, as
 * one that works in a loop, comes after the one that waits.  (POSIX's mutexes go to who is there
 * first, and that is the one that runs.)
 */
struct hw_fair_mutex {
    struct hw_mutex next; /* held by the one that waits for `mutex`; never while holding that */
    struct hw_mutex mutex;
};

void hw_fair_mutex_init(struct hw_fair_mutex *fair);
void hw_fair_mutex_lock(struct hw_fair_mutex *fair);
void hw_fair_mutex_unlock(struct hw_fair_mutex *fair);
void hw_fair_mutex_release(struct hw_fair_mutex *fair);

/*
 * A door that many pass, each leaving it again, until somebody shuts it: that one waits until all
 * have left, and keeps out who comes.  Not entered twice by one thread.
 */
struct hw_door {
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t moved;
    unsigned inside;
    bool is_shut;
};

#define HW_DOOR_INIT                                                                               \
    {                                                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false                              \
    }

void hw_door_init(struct hw_door *door); /* in a child after a fork: nobody is inside */
void hw_door_enter(struct hw_door *door);
void hw_door_leave(struct hw_door *door);
void hw_door_shut(struct hw_door *door); /* one at a time, others wait */
void hw_door_open(struct hw_door *door);

struct hw_thread {
    pthread_t thread;
};

/* Start `main(ctx)` with all signals blocked: they belong to the application. */
enum hw_status hw_thread_start(struct hw_thread *thread, void *(*main)(void *), void *ctx,
                               struct hw_error *err) HW_MUST_CHECK;
/*
 * End the thread if it waits, or comes to wait, in hw_env_ops.lock: the only place where that is
 * safe, and the only wait that nothing else can end.  The thread does not run on; join it.
 */
void hw_thread_interrupt(struct hw_thread *thread);
void hw_thread_join(struct hw_thread *thread);

#endif
