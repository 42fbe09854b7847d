/* Tests env/bell.c on real files, threads and processes. */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "env/bell.h"
#include "env/thread.h"

enum { LONG_NS = 2000000000 }; /* a deadline that only a failure reaches */

struct heard {
    int watches[64];
    unsigned count;
};

struct place {
    struct hw_env *env;
    struct hw_bell *bell;
    struct heard heard;
    char dir[256];
    char path[300];
};

static void hear(void *ctx, int watch)
{
    struct heard *heard = ctx;

    if (heard->count < 64)
        heard->watches[heard->count++] = watch;
}

/* How long it slept. */
static uint64_t nap(struct place *place, uint64_t timeout_ns)
{
    uint64_t start = place->env->ops->monotonic_ns(place->env);

    place->heard.count = 0;
    hw_bell_wait(place->bell, timeout_ns, hear, &place->heard);
    return place->env->ops->monotonic_ns(place->env) - start;
}

static void write_file(struct place *place, const char *path, const char *text)
{
    struct hw_file *file = NULL;

    assert_int_equal(place->env->ops->open(place->env, path,
                                           HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file,
                                           NULL),
                     HW_OK);
    assert_int_equal(place->env->ops->write_at(file, 0, text, strlen(text), NULL), HW_OK);
    place->env->ops->close(file);
}

static int setup(void **state)
{
    static struct place place;
    const char *base = getenv("TMPDIR");

    place = (struct place){.env = hw_env_posix()};
    (void)snprintf(place.dir, sizeof(place.dir), "%s/hw-bell-XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(place.dir) == NULL)
        return -1;
    (void)snprintf(place.path, sizeof(place.path), "%s/file", place.dir);
    *state = &place;
    return hw_bell_open(place.env, &place.bell, NULL) == HW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *place = *state;

    hw_bell_close(place->bell);
    (void)place->env->ops->remove(place->env, place->path, NULL); /* some tests leave it */
    return place->env->ops->remove_dir(place->env, place->dir, NULL) == HW_OK ? 0 : -1;
}

static void a_ring_before_the_sleep_is_kept_and_rings_once(void **state)
{
    struct place *place = *state;

    hw_bell_ring(place->bell);
    hw_bell_ring(place->bell);
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(place->heard.count, 0);
    assert_true(nap(place, 5000000) >= 5000000);
}

static void *ring_main(void *ctx)
{
    hw_bell_ring(ctx);
    return NULL;
}

static void another_thread_wakes_the_sleeper(void **state)
{
    struct place *place = *state;
    struct hw_thread thread;

    assert_int_equal(hw_thread_start(&thread, ring_main, place->bell, NULL), HW_OK);
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    hw_thread_join(&thread);
}

static struct hw_bell *signalled; /* the handler's */

static void on_signal(int number)
{
    (void)number;
    hw_bell_ring(signalled);
}

static void a_signal_handler_may_ring(void **state)
{
    struct place *place = *state;
    struct sigaction action = {.sa_handler = on_signal}, old;

    signalled = place->bell;
    assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
}

static void a_watched_file_rings_when_another_process_writes_it(void **state)
{
    struct place *place = *state;
    int watch = -5;
    pid_t child;

    write_file(place, place->path, "a");
    assert_int_equal(hw_bell_watch(place->bell, place->path, &watch, NULL), HW_OK);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        write_file(place, place->path, "b");
        _exit(0);
    }
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(place->heard.count, 1);
    assert_int_equal(place->heard.watches[0], watch);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void a_watched_directory_rings_for_new_names_only(void **state)
{
    struct place *place = *state;
    char moved[320];
    int watch = -5;

    (void)snprintf(moved, sizeof(moved), "%s.moved", place->path);
    write_file(place, place->path, "a");
    assert_int_equal(hw_bell_watch(place->bell, place->dir, &watch, NULL), HW_OK);
    write_file(place, place->path, "b");
    assert_true(nap(place, 5000000) >= 5000000);
    assert_int_equal(place->env->ops->rename(place->env, place->path, moved, NULL), HW_OK);
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(place->heard.count, 1);
    assert_int_equal(place->heard.watches[0], watch);
    write_file(place, place->path, "c");
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(place->heard.count, 1);
    assert_int_equal(place->env->ops->remove(place->env, moved, NULL), HW_OK);
}

static void a_watch_ends_with_unwatch_or_with_its_file(void **state)
{
    struct place *place = *state;
    int watch = -5, again = -6;

    write_file(place, place->path, "a");
    assert_int_equal(hw_bell_watch(place->bell, place->path, &watch, NULL), HW_OK);
    hw_bell_unwatch(place->bell, watch);
    write_file(place, place->path, "b");
    (void)nap(place, 5000000); /* that it has ended wakes once */
    assert_int_equal(place->heard.count, 0);

    assert_int_equal(hw_bell_watch(place->bell, place->path, &again, NULL), HW_OK);
    assert_int_equal(place->env->ops->remove(place->env, place->path, NULL), HW_OK);
    assert_true(nap(place, LONG_NS) < LONG_NS / 2);
    assert_int_equal(place->heard.count, 1);
    assert_int_equal(place->heard.watches[0], again);
    hw_bell_unwatch(place->bell, again);
    assert_int_equal(hw_bell_watch(place->bell, place->path, &watch, NULL), HW_ENOTFOUND);
}

static void many_watches_are_each_told(void **state)
{
    enum { COUNT = 50 };
    struct place *place = *state;
    char paths[COUNT][320];
    int watches[COUNT];
    unsigned told = 0;

    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "%s.%d", place->path, i);
        write_file(place, paths[i], "a");
        assert_int_equal(hw_bell_watch(place->bell, paths[i], &watches[i], NULL), HW_OK);
    }
    for (int i = 0; i < COUNT; i++)
        write_file(place, paths[i], "b");
    while (told < COUNT) {
        assert_true(nap(place, LONG_NS) < LONG_NS / 2);
        for (unsigned i = 0; i < place->heard.count; i++)
            assert_int_equal(place->heard.watches[i], watches[told + i]);
        told += place->heard.count;
    }
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(place->env->ops->remove(place->env, paths[i], NULL), HW_OK);
}

static bool refuse(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return false;
}

static void without_memory_there_is_no_bell(void **state)
{
    struct place *place = *state;
    struct hw_bell *bell = NULL;
    enum hw_status status;

    hw_alloc_set_hook(refuse, NULL);
    status = hw_bell_open(place->env, &bell, NULL);
    hw_alloc_set_hook(NULL, NULL);
    assert_int_equal(status, HW_ENOMEM);
    assert_null(bell);
    hw_bell_close(bell);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_ring_before_the_sleep_is_kept_and_rings_once),
        TEST(another_thread_wakes_the_sleeper),
        TEST(a_signal_handler_may_ring),
        TEST(a_watched_file_rings_when_another_process_writes_it),
        TEST(a_watched_directory_rings_for_new_names_only),
        TEST(a_watch_ends_with_unwatch_or_with_its_file),
        TEST(many_watches_are_each_told),
        TEST(without_memory_there_is_no_bell),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
