/* A thread that forks just when another opens or closes a file that a child must not keep. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "env/env.h"

enum { FORK_NS = 200000000 }; /* a fork that is let through is over by then */

enum moment { AT_OPEN = 1, AT_CLOSE = 2 };

static struct {
    struct hw_env *env;
    char dir[64], path[80];
    enum moment moment; /* at which the other thread forks; 0: none is left */
    pthread_t forker;
    sem_t has_forked;
    int fd;      /* of the file; -1: not opened yet */
    int outcome; /* of the child: 0 if it had the file closed */
} place;

static void *fork_once(void *unused)
{
    pid_t child = fork();
    int status = -1;

    if (child == 0)
        _exit(fcntl(place.fd, F_GETFD) < 0 && errno == EBADF ? 0 : 1);
    (void)sem_post(&place.has_forked);
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status))
        place.outcome = WEXITSTATUS(status);
    return unused;
}

/* Let the other thread fork now, if nothing keeps it from that. */
static void come_to(enum moment moment)
{
    struct timespec until;

    if (place.moment != moment)
        return;
    place.moment = 0;
    if (pthread_create(&place.forker, NULL, fork_once, NULL) != 0)
        abort();
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += FORK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)sem_timedwait(&place.has_forked, &until); /* either way is right */
}

/* The linker gives us the calls of env_posix.c. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    int mode = 0, fd;

    if ((flags & O_CREAT) != 0) {
        va_start(arguments, flags);
        mode = va_arg(arguments, int);
        va_end(arguments);
    }
    fd = __real_open(path, flags, mode);
    if (fd >= 0 && strcmp(path, place.path) == 0) {
        place.fd = fd;
        come_to(AT_OPEN);
    }
    return fd;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (fd >= 0 && fd == place.fd)
        come_to(AT_CLOSE);
    return __real_close(fd);
}

static int setup(void **state)
{
    (void)state;
    memset(&place, 0, sizeof(place));
    place.env = hw_env_posix();
    place.fd = -1;
    place.outcome = -1;
    (void)snprintf(place.dir, sizeof(place.dir), "/tmp/hw-fork-XXXXXX");
    if (mkdtemp(place.dir) == NULL || sem_init(&place.has_forked, 0, 0) != 0)
        return -1;
    (void)snprintf(place.path, sizeof(place.path), "%s/file", place.dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)sem_destroy(&place.has_forked);
    (void)place.env->ops->remove(place.env, place.path, NULL);
    return place.env->ops->remove_dir(place.env, place.dir, NULL) == HW_OK ? 0 : -1;
}

static struct hw_file *make(void)
{
    struct hw_file *file = NULL;

    assert_int_equal(
        place.env->ops->open(place.env, place.path,
                             HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_CLOSE_ON_FORK,
                             &file, NULL),
        HW_OK);
    return file;
}

static void a_child_of_a_fork_amid_an_open_has_the_file_closed(void **state)
{
    struct hw_file *file;

    (void)state;
    place.moment = AT_OPEN;
    file = make();
    assert_int_equal(pthread_join(place.forker, NULL), 0);
    assert_int_equal(place.outcome, 0);
    place.env->ops->close(file);
}

static void a_child_of_a_fork_amid_a_close_has_the_file_closed(void **state)
{
    struct hw_file *file = make();

    (void)state;
    place.moment = AT_CLOSE;
    place.env->ops->close(file);
    assert_int_equal(pthread_join(place.forker, NULL), 0);
    assert_int_equal(place.outcome, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_child_of_a_fork_amid_an_open_has_the_file_closed),
        TEST(a_child_of_a_fork_amid_a_close_has_the_file_closed),
    };

    return cmocka_run_group_tests_name("env/fork", tests, NULL, NULL);
}
