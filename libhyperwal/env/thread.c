/* Implements env/thread.h. */
#include "env/thread.h"

#include <assert.h>
#include <signal.h>

#include "base/alloc.h"

enum { STACK_SIZE = 256 * 1024 }; /* bytes: a worker keeps its buffers on the heap */

void hw_mutex_init(struct hw_mutex *mutex)
{
    int rc = pthread_mutex_init(&mutex->mutex, NULL);

    assert(rc == 0);
    (void)rc; /* fails only for attributes we do not use */
}

void hw_mutex_lock(struct hw_mutex *mutex)
{
    int rc = pthread_mutex_lock(&mutex->mutex);

    assert(rc == 0);
    (void)rc;
}

void hw_mutex_unlock(struct hw_mutex *mutex)
{
    int rc = pthread_mutex_unlock(&mutex->mutex);

    assert(rc == 0);
    (void)rc;
}

void hw_mutex_release(struct hw_mutex *mutex)
{
    (void)pthread_mutex_destroy(&mutex->mutex); /* fails only if it is locked: our own mistake */
}

void hw_fair_mutex_init(struct hw_fair_mutex *fair)
{
    hw_mutex_init(&fair->next);
    hw_mutex_init(&fair->mutex);
}

void hw_fair_mutex_lock(struct hw_fair_mutex *fair)
{
    hw_mutex_lock(&fair->next);
    hw_mutex_lock(&fair->mutex);
    hw_mutex_unlock(&fair->next);
}

void hw_fair_mutex_unlock(struct hw_fair_mutex *fair)
{
    hw_mutex_unlock(&fair->mutex);
}

void hw_fair_mutex_release(struct hw_fair_mutex *fair)
{
    hw_mutex_release(&fair->mutex);
    hw_mutex_release(&fair->next);
}

/* A mutex and a condition without attributes: no call on them fails. */
void hw_door_init(struct hw_door *door)
{
    *door = (struct hw_door)HW_DOOR_INIT;
}

void hw_door_enter(struct hw_door *door)
{
    (void)pthread_mutex_lock(&door->mutex);
    while (door->is_shut)
        (void)pthread_cond_wait(&door->moved, &door->mutex);
    door->inside++;
    (void)pthread_mutex_unlock(&door->mutex);
}

void hw_door_leave(struct hw_door *door)
{
    (void)pthread_mutex_lock(&door->mutex);
    assert(door->inside > 0);
    door->inside--;
    (void)pthread_cond_broadcast(&door->moved);
    (void)pthread_mutex_unlock(&door->mutex);
}

void hw_door_shut(struct hw_door *door)
{
    (void)pthread_mutex_lock(&door->mutex);
    while (door->is_shut) /* by another thread */
        (void)pthread_cond_wait(&door->moved, &door->mutex);
    door->is_shut = true;
    while (door->inside > 0)
        (void)pthread_cond_wait(&door->moved, &door->mutex);
    (void)pthread_mutex_unlock(&door->mutex);
}

void hw_door_open(struct hw_door *door)
{
    (void)pthread_mutex_lock(&door->mutex);
    door->is_shut = false;
    (void)pthread_cond_broadcast(&door->moved);
    (void)pthread_mutex_unlock(&door->mutex);
}

struct start {
    void *(*main)(void *);
    void *ctx;
};

/* Cancellation is on only where hw_env_ops.lock waits: everywhere else it would leave a mess. */
static void *thread_main(void *argument)
{
    struct start start = *(struct start *)argument;
    int old;

    hw_free(argument);
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old); /* cannot fail */
    return start.main(start.ctx);
}

enum hw_status hw_thread_start(struct hw_thread *thread, void *(*main)(void *), void *ctx,
                               struct hw_error *err)
{
    struct start *start = hw_alloc(sizeof(*start)); /* moved to the thread */
    pthread_attr_t attr;
    sigset_t all, old;
    int rc;

    if (start == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to start a thread");
    *start = (struct start){.main = main, .ctx = ctx};
    rc = pthread_attr_init(&attr);
    if (rc != 0) {
        hw_free(start);
        return hw_fail_errno(err, rc, "thread attributes");
    }
    (void)pthread_attr_setstacksize(&attr, STACK_SIZE); /* refused: the default is larger */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* cannot fail with valid arguments */
    rc = pthread_create(&thread->thread, &attr, thread_main, start);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    if (rc != 0) {
        hw_free(start);
        return hw_fail_errno(err, rc, "start a thread");
    }
    return HW_OK;
}

void hw_thread_interrupt(struct hw_thread *thread)
{
    (void)pthread_cancel(thread->thread); /* fails only for a thread that has ended */
}

void hw_thread_join(struct hw_thread *thread)
{
    (void)pthread_join(thread->thread, NULL); /* fails only for a thread that was never started */
}
