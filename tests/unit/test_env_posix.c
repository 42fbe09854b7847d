/* Tests env/env_posix.c on real files and real processes. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "env/env.h"
#include "env/thread.h"

struct place {
    struct hw_env *env;
    const struct hw_env_ops *ops;
    char dir[256];
    char path[300]; /* a file in it, not made yet */
};

static int setup(void **state)
{
    static struct place place;
    const char *base = getenv("TMPDIR");

    place = (struct place){.env = hw_env_posix(), .ops = hw_env_posix()->ops};
    (void)snprintf(place.dir, sizeof(place.dir), "%s/hw-env-XXXXXX", base == NULL ? "/tmp" : base);
    if (mkdtemp(place.dir) == NULL)
        return -1;
    (void)snprintf(place.path, sizeof(place.path), "%s/file", place.dir);
    *state = &place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;

    (void)place->ops->remove(place->env, place->path, NULL); /* some tests leave it */
    return place->ops->remove_dir(place->env, place->dir, NULL) == HW_OK ? 0 : -1;
}

/* The linker gives us the calls of env_posix.c: whether they are made, nothing else can show. */
int __wrap_fdatasync(int fd);
int __real_fdatasync(int fd);
int __wrap_fsync(int fd);
int __real_fsync(int fd);

static struct {
    unsigned files, dirs; /* calls */
    int file_fails;       /* errno of the next call; 0: none */
    int dir_fails;
} syncs;

static int taken(int *fails)
{
    int code = *fails;

    *fails = 0;
    errno = code;
    return code == 0 ? 0 : -1;
}

int __wrap_fdatasync(int fd)
{
    syncs.files++;
    return taken(&syncs.file_fails) == 0 ? __real_fdatasync(fd) : -1;
}

int __wrap_fsync(int fd)
{
    syncs.dirs++;
    return taken(&syncs.dir_fails) == 0 ? __real_fsync(fd) : -1;
}

static struct hw_file *make(struct place *place)
{
    struct hw_file *file = NULL;

    assert_int_equal(place->ops->open(place->env, place->path,
                                      HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE, &file, NULL),
                     HW_OK);
    return file;
}

static void bytes_written_are_read_again(void **state)
{
    struct place *place = *state;
    struct hw_file *file = make(place);
    struct hw_file_stat stat;
    char text[8];

    assert_int_equal(place->ops->write_at(file, 3, "abcde", 5, NULL), HW_OK);
    place->ops->start_sync(file, 0, 8);
    assert_int_equal(place->ops->sync(file, NULL), HW_OK);
    assert_int_equal(place->ops->read_at(file, 3, text, 5, NULL), HW_OK);
    assert_memory_equal(text, "abcde", 5);
    memset(text, 'x', sizeof(text));
    assert_int_equal(place->ops->read_at(file, 6, text, 4, NULL), HW_END);
    assert_memory_equal(text, "de\0\0", 4);
    assert_int_equal(place->ops->truncate(file, 4, NULL), HW_OK);
    assert_int_equal(place->ops->stat_file(file, &stat, NULL), HW_OK);
    assert_int_equal(stat.size, 4);
    assert_int_equal(place->ops->allocate(file, 8192, NULL), HW_OK);
    assert_int_equal(place->ops->stat_file(file, &stat, NULL), HW_OK);
    assert_int_equal(stat.size, 8192);
    place->ops->close(file);
}

static void punched_bytes_are_zero_and_take_no_room(void **state)
{
    enum { SIZE = 1 << 20 };
    static uint8_t bytes[SIZE];
    struct place *place = *state;
    struct hw_file *file = make(place);
    struct hw_file_stat before, after;
    uint8_t byte;

    memset(bytes, 'x', sizeof(bytes));
    assert_int_equal(place->ops->write_at(file, 0, bytes, SIZE, NULL), HW_OK);
    assert_int_equal(place->ops->sync(file, NULL), HW_OK);
    assert_int_equal(place->ops->stat_file(file, &before, NULL), HW_OK);
    assert_int_equal(place->ops->punch(file, 10, SIZE - 20, NULL), HW_OK);
    assert_int_equal(place->ops->punch(file, 10, 0, NULL), HW_OK);
    assert_int_equal(place->ops->stat_file(file, &after, NULL), HW_OK);
    assert_int_equal(after.size, SIZE);
    assert_int_equal(place->ops->read_at(file, 9, &byte, 1, NULL), HW_OK);
    assert_int_equal(byte, 'x');
    assert_int_equal(place->ops->read_at(file, 10, &byte, 1, NULL), HW_OK);
    if (byte == 0) { /* else the file system cannot do it */
        assert_true(after.allocated < before.allocated);
        assert_int_equal(place->ops->read_at(file, SIZE - 11, &byte, 1, NULL), HW_OK);
        assert_int_equal(byte, 0);
    }
    assert_int_equal(place->ops->read_at(file, SIZE - 10, &byte, 1, NULL), HW_OK);
    assert_int_equal(byte, 'x');
    place->ops->close(file);
}

static void open_flags_are_obeyed(void **state)
{
    struct place *place = *state;
    struct hw_file *file = NULL;
    struct hw_file_stat stat;
    struct hw_error err;

    assert_int_equal(place->ops->open(place->env, place->path, HW_OPEN_READ, &file, &err),
                     HW_ENOTFOUND);
    assert_non_null(strstr(err.message, place->path));
    assert_int_equal(
        place->ops->open(place->env, place->path,
                         HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_PRIVATE, &file,
                         NULL),
        HW_OK);
    assert_int_equal(place->ops->stat_file(file, &stat, NULL), HW_OK);
    assert_int_equal(stat.mode, 0600);
    place->ops->close(file);
    file = NULL;
    assert_int_equal(
        place->ops->open(place->env, place->path,
                         HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CREATE | HW_OPEN_EXCLUSIVE, &file,
                         NULL),
        HW_EEXIST);
    assert_null(file);
    assert_int_equal(place->ops->open(place->env, place->path, HW_OPEN_READ, &file, NULL), HW_OK);
    assert_int_equal(place->ops->write_at(file, 0, "x", 1, NULL), HW_EIO);
    place->ops->close(file);
    place->ops->close(NULL);
}

static bool count_name(void *ctx, const char *name)
{
    int *count = ctx;

    *count += strcmp(name, "file") == 0 || strcmp(name, "two") == 0 ? 1 : 100;
    return true;
}

static void directories_list_rename_and_remove(void **state)
{
    struct place *place = *state;
    char two[300];
    int count = 0;
    struct hw_file_stat stat;
    struct hw_file *file;

    (void)snprintf(two, sizeof(two), "%s/two", place->dir);
    place->ops->close(make(place));
    assert_int_equal(place->ops->make_dir(place->env, two, NULL), HW_OK);
    assert_int_equal(place->ops->make_dir(place->env, two, NULL), HW_EEXIST);
    assert_int_equal(place->ops->make_dir_as(place->env, two, 0700, NULL), HW_EEXIST);
    assert_int_equal(place->ops->stat(place->env, two, &stat, NULL), HW_OK);
    assert_true(stat.is_directory);
    assert_int_equal(place->ops->list(place->env, place->dir, count_name, &count, NULL), HW_OK);
    assert_int_equal(count, 2);
    assert_int_equal(place->ops->remove_dir(place->env, two, NULL), HW_OK);
    assert_int_equal(place->ops->make_dir_as(place->env, two, 0700, NULL), HW_OK);
    assert_int_equal(place->ops->stat(place->env, two, &stat, NULL), HW_OK);
    assert_int_equal(stat.mode & 0777, 0700);
    file = make(place);
    assert_int_equal(place->ops->copy_rights(file, two, NULL), HW_OK);
    assert_int_equal(place->ops->stat(place->env, place->path, &stat, NULL), HW_OK);
    assert_int_equal(stat.mode & 0777, 0700);
    assert_int_equal(place->ops->copy_rights(file, "nowhere", NULL), HW_ENOTFOUND);
    place->ops->close(file);
    assert_int_equal(place->ops->remove_dir(place->env, two, NULL), HW_OK);
    assert_int_equal(place->ops->rename(place->env, place->path, two, NULL), HW_OK);
    assert_int_equal(place->ops->stat(place->env, place->path, &stat, NULL), HW_ENOTFOUND);
    assert_int_equal(place->ops->rename(place->env, two, place->path, NULL), HW_OK);
    assert_int_equal(place->ops->sync_dir(place->env, place->dir, NULL), HW_OK);
    assert_int_equal(place->ops->remove(place->env, place->path, NULL), HW_OK);
    assert_int_equal(place->ops->remove(place->env, place->path, NULL), HW_ENOTFOUND);
    assert_int_equal(place->ops->list(place->env, two, count_name, &count, NULL), HW_ENOTFOUND);
}

/* How a child ended: its exit code, or 1000 plus the signal. */
static int wait_for(pid_t child)
{
    int status;

    if (waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static pid_t child_that_tries_the_lock(struct place *place, enum hw_status expected)
{
    pid_t child = fork();

    if (child == 0) {
        struct hw_file *file = NULL;
        enum hw_status status =
            place->ops->open(place->env, place->path, HW_OPEN_READ | HW_OPEN_WRITE, &file, NULL);

        if (status == HW_OK)
            status = place->ops->lock(file, false, NULL);
        _exit(status == expected ? 0 : 1);
    }
    return child;
}

static void lock_keeps_other_processes_out_until_it_is_let_go(void **state)
{
    struct place *place = *state;
    struct hw_file *file = make(place);

    assert_int_equal(place->ops->lock(file, false, NULL), HW_OK);
    assert_int_equal(wait_for(child_that_tries_the_lock(place, HW_EBUSY)), 0);
    place->ops->unlock(file);
    assert_int_equal(wait_for(child_that_tries_the_lock(place, HW_OK)), 0);
    assert_int_equal(place->ops->lock(file, true, NULL), HW_OK); /* the child died with it */
    place->ops->close(file);
    assert_int_equal(wait_for(child_that_tries_the_lock(place, HW_OK)), 0);
}

static void lock_belongs_to_the_handle_not_to_the_process(void **state)
{
    struct place *place = *state;
    struct hw_file *first = make(place), *second = make(place);

    assert_int_equal(place->ops->lock(first, false, NULL), HW_OK);
    assert_int_equal(place->ops->lock(second, false, NULL), HW_EBUSY);
    place->ops->close(second); /* a POSIX lock would be gone now */
    assert_int_equal(wait_for(child_that_tries_the_lock(place, HW_EBUSY)), 0);
    place->ops->close(first);
}

static void waiter_gets_the_lock_of_a_process_that_is_killed(void **state)
{
    struct place *place = *state;
    struct hw_file *file = make(place);
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        struct hw_file *mine = make(place);

        if (place->ops->lock(mine, false, NULL) == HW_OK)
            (void)!write(ready[1], "x", 1);
        for (;;)
            (void)pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(place->ops->lock(file, false, NULL), HW_EBUSY);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(place->ops->lock(file, true, NULL), HW_OK);
    assert_int_equal(wait_for(child), 1000 + SIGKILL);
    place->ops->close(file);
    (void)close(ready[0]);
    (void)close(ready[1]);
}

/* The mapping refers to the open file, and the lock belongs to that: who maps unlocks by hand. */
static void lock_of_a_mapped_file_outlives_its_close(void **state)
{
    struct place *place = *state;
    struct hw_file *first = make(place), *second = make(place);
    void *memory = NULL;

    assert_int_equal(place->ops->allocate(first, 4096, NULL), HW_OK);
    assert_int_equal(place->ops->lock(first, false, NULL), HW_OK);
    assert_int_equal(place->ops->map(first, 4096, &memory, NULL), HW_OK);
    place->ops->close(first);
    assert_int_equal(place->ops->lock(second, false, NULL), HW_EBUSY);
    place->ops->unmap(place->env, memory, 4096);
    assert_int_equal(place->ops->lock(second, false, NULL), HW_OK);
    place->ops->close(second);
}

static void *wait_for_lock(void *file)
{
    struct hw_file *mine = file;

    return mine->env->ops->lock(mine, true, NULL) == HW_OK ? file : NULL;
}

static void thread_that_waits_for_a_lock_can_be_ended(void **state)
{
    struct place *place = *state;
    struct hw_file *holder = make(place), *waiter = make(place);
    struct hw_thread thread;

    assert_int_equal(place->ops->lock(holder, false, NULL), HW_OK);
    assert_int_equal(hw_thread_start(&thread, wait_for_lock, waiter, NULL), HW_OK);
    hw_thread_interrupt(&thread);
    hw_thread_join(&thread); /* hangs if the wait cannot be ended */
    place->ops->close(waiter);
    place->ops->close(holder);
}

enum { DOOR_THREADS = 3, DOOR_ROUNDS = 2000, DOOR_SHUT = 200 };

struct passage {
    struct hw_door door;
    atomic_uint inside, passed;
};

static void *pass(void *ctx)
{
    struct passage *p = ctx;

    for (int i = 0; i < DOOR_ROUNDS; i++) {
        hw_door_enter(&p->door);
        atomic_fetch_add(&p->inside, 1);
        atomic_fetch_sub(&p->inside, 1);
        hw_door_leave(&p->door);
    }
    atomic_fetch_add(&p->passed, DOOR_ROUNDS);
    return NULL;
}

static void *shut_and_look(void *ctx)
{
    struct passage *p = ctx;
    intptr_t seen = 0;

    for (int i = 0; i < DOOR_SHUT; i++) {
        hw_door_shut(&p->door);
        seen += atomic_fetch_add(&p->inside, 1) != 0; /* neither one who passes nor the other */
        atomic_fetch_sub(&p->inside, 1);
        hw_door_open(&p->door);
    }
    return (void *)seen;
}

static void nobody_is_inside_while_the_door_is_shut(void **state)
{
    struct passage p = {.door = HW_DOOR_INIT};
    struct hw_thread threads[DOOR_THREADS];
    pthread_t shuts;
    void *seen = NULL;

    (void)state;
    for (int i = 0; i < DOOR_THREADS; i++)
        assert_int_equal(hw_thread_start(&threads[i], pass, &p, NULL), HW_OK);
    assert_int_equal(pthread_create(&shuts, NULL, shut_and_look, &p), 0);
    assert_null(shut_and_look(&p));
    assert_int_equal(pthread_join(shuts, &seen), 0);
    assert_null(seen);
    for (int i = 0; i < DOOR_THREADS; i++)
        hw_thread_join(&threads[i]);
    assert_int_equal(p.passed, DOOR_THREADS * DOOR_ROUNDS);
}

static void word_wakes_a_waiter_in_another_process(void **state)
{
    struct place *place = *state;
    struct hw_file *file = make(place);
    void *memory = NULL;
    _Atomic uint32_t *word;
    pid_t child;

    assert_int_equal(place->ops->allocate(file, 4096, NULL), HW_OK);
    assert_int_equal(place->ops->map(file, 4096, &memory, NULL), HW_OK);
    place->ops->close(file); /* the mapping lives on */
    word = memory;
    child = fork();
    if (child == 0) {
        (void)alarm(30); /* a child that nobody wakes ends, and the test fails */
        atomic_store(&word[1], 1);
        place->ops->wake_word(place->env, (uint32_t *)memory + 1);
        while (atomic_load(&word[0]) == 0)
            place->ops->wait_word(place->env, memory, 0, UINT64_MAX);
        _exit(0);
    }
    while (atomic_load(&word[1]) == 0)
        place->ops->wait_word(place->env, (uint32_t *)memory + 1, 0, UINT64_MAX);
    atomic_store(&word[0], 1);
    place->ops->wake_word(place->env, memory);
    assert_int_equal(wait_for(child), 0);
    place->ops->unmap(place->env, memory, 4096);
}

static void wait_ends_with_its_timeout_or_if_the_word_differs(void **state)
{
    struct place *place = *state;
    uint32_t word = 5;
    uint64_t start = place->ops->monotonic_ns(place->env);

    place->ops->wait_word(place->env, &word, 4, UINT64_MAX); /* differs: at once */
    place->ops->wait_word(place->env, &word, 5, 2000000);
    assert_true(place->ops->monotonic_ns(place->env) - start >= 2000000);
}

static void clock_identity_and_chance_answer(void **state)
{
    struct place *place = *state;
    uint8_t a[16], b[16];
    uint64_t first = place->ops->monotonic_ns(place->env);

    assert_true(place->ops->monotonic_ns(place->env) >= first);
    assert_true(place->ops->realtime_ms(place->env) > 1600000000000);
    place->ops->random(place->env, a, sizeof(a));
    place->ops->random(place->env, b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(place->ops->boot_id(place->env, a, NULL), HW_OK);
    assert_int_equal(place->ops->boot_id(place->env, b, NULL), HW_OK);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(place->ops->machine_id(place->env, a, NULL), HW_OK);
    assert_int_equal(place->ops->machine_id(place->env, b, NULL), HW_OK);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(hw_env_pid(place->ops->process_id(place->env)), getpid());
}

/* Without descriptors neither the machine nor the boot is another one: it cannot be told. */
static void an_id_that_cannot_be_read_is_a_failure(void **state)
{
    struct place *place = *state;
    struct hw_error boot_error = {0}, machine_error = {0};
    enum hw_status boot, machine;
    struct rlimit old, none;
    uint8_t id[16];

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    boot = place->ops->boot_id(place->env, id, &boot_error);
    machine = place->ops->machine_id(place->env, id, &machine_error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(boot, HW_EIO);
    assert_int_equal(machine, HW_EIO);
    assert_non_null(strstr(boot_error.message, "boot_id"));
    assert_non_null(strstr(machine_error.message, "machine-id"));
}

static void keep_line(void *ctx, enum hw_log_level level, const char *line)
{
    (void)snprintf(ctx, 64, "%d %s", (int)level, line);
}

static void log_goes_where_it_was_sent_and_nowhere_before(void **state)
{
    struct place *place = *state;
    char line[64] = "";

    hw_env_log(place->env, HW_LOG_WARN, "nobody listens");
    hw_env_posix_set_log(keep_line, line);
    hw_env_log(place->env, HW_LOG_WARN, "event=%s", "x");
    hw_env_posix_set_log(NULL, NULL);
    hw_env_log(place->env, HW_LOG_WARN, "event=%s", "y");
    assert_string_equal(line, "2 event=x");
}

static void sync_reaches_the_kernel_and_its_failure_the_caller(void **state)
{
    struct place *place = *state;
    struct hw_file *file = make(place);

    memset(&syncs, 0, sizeof(syncs));
    assert_int_equal(place->ops->sync(file, NULL), HW_OK);
    assert_int_equal(syncs.files, 1);
    syncs.file_fails = EIO; /* once: a second call would be told that all is well */
    assert_int_equal(place->ops->sync(file, NULL), HW_EIO);
    assert_int_equal(syncs.files, 2);
    syncs.file_fails = EINTR;
    assert_int_equal(place->ops->sync(file, NULL), HW_OK);
    assert_int_equal(syncs.files, 4);
    place->ops->close(file);

    assert_int_equal(place->ops->sync_dir(place->env, place->dir, NULL), HW_OK);
    assert_int_equal(syncs.dirs, 1);
    syncs.dir_fails = EIO;
    assert_int_equal(place->ops->sync_dir(place->env, place->dir, NULL), HW_EIO);
    assert_int_equal(syncs.dirs, 2);
}

static void replaced_file_leaves_no_temporary(void **state)
{
    struct place *place = *state;
    char text[8];
    size_t size;
    int count = 0;

    for (int i = 0; i < 2; i++)
        assert_int_equal(
            hw_env_replace_file(place->env, place->path, "text", 4, HW_OPEN_PRIVATE, NULL), HW_OK);
    assert_int_equal(hw_env_read_file(place->env, place->path, text, sizeof(text), &size, NULL),
                     HW_OK);
    assert_int_equal(size, 4);
    assert_int_equal(place->ops->list(place->env, place->dir, count_name, &count, NULL), HW_OK);
    assert_int_equal(count, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(bytes_written_are_read_again),
        TEST(punched_bytes_are_zero_and_take_no_room),
        TEST(open_flags_are_obeyed),
        TEST(directories_list_rename_and_remove),
        TEST(lock_keeps_other_processes_out_until_it_is_let_go),
        TEST(lock_belongs_to_the_handle_not_to_the_process),
        TEST(waiter_gets_the_lock_of_a_process_that_is_killed),
        TEST(lock_of_a_mapped_file_outlives_its_close),
        TEST(thread_that_waits_for_a_lock_can_be_ended),
        TEST(nobody_is_inside_while_the_door_is_shut),
        TEST(word_wakes_a_waiter_in_another_process),
        TEST(wait_ends_with_its_timeout_or_if_the_word_differs),
        TEST(clock_identity_and_chance_answer),
        TEST(an_id_that_cannot_be_read_is_a_failure),
        TEST(log_goes_where_it_was_sent_and_nowhere_before),
        TEST(sync_reaches_the_kernel_and_its_failure_the_caller),
        TEST(replaced_file_leaves_no_temporary),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
