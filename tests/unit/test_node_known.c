/* Tests node/known.h: servers are written down once, and known again whatever happens meanwhile. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/known.h"
#include "node_fixture.h"
#include "sim/sim.h"

static const uint8_t first[HW_IDENTITY_KEY_SIZE] = {1}, second[HW_IDENTITY_KEY_SIZE] = {2};

static void known_path(const struct place *f, char out[128])
{
    (void)snprintf(out, 128, "%s/in/a/folder/known_servers", f->dir);
}

static enum hw_status meet(struct place *f, const char *path, const char *address,
                           const uint8_t *key)
{
    struct hw_error unwritten;
    enum hw_status status = hw_known_check(f->env, path, address, key, true, &unwritten, &f->err);

    assert_int_equal(unwritten.status, HW_OK);
    return status;
}

static void put(struct place *f, const char *path, const char *text)
{
    assert_ok(hw_env_replace_file(f->env, path, text, strlen(text), HW_OPEN_PRIVATE, &f->err));
}

static void get(struct place *f, const char *path, char *out, size_t size)
{
    size_t got = 0;

    assert_ok(hw_env_read_file(f->env, path, out, size - 1, &got, &f->err));
    out[got] = '\0';
}

static void server_is_written_at_the_first_contact_and_known_again(void **state)
{
    struct place *f = *state;
    struct hw_error unwritten;
    struct hw_file_stat stat;
    char path[128], text[1024];
    unsigned count = 9;

    known_path(f, path);
    assert_ok(hw_known_check(f->env, path, "tcp://h:1", first, false, &unwritten, &f->err));
    assert_int_equal(f->env->ops->stat(f->env, path, &stat, NULL), HW_ENOTFOUND);
    assert_ok(meet(f, path, "tcp://h:1", first));
    assert_ok(f->env->ops->stat(f->env, path, &stat, &f->err));
    assert_int_equal(stat.mode & 0777, 0600);
    assert_ok(meet(f, path, "tcp://h:1", first));
    assert_ok(meet(f, path, "tcp://h:2", second));
    assert_ok(meet(f, path, "tcp://H:1", first)); /* hosts are the same in capitals */
    get(f, path, text, sizeof(text));
    assert_ptr_equal(strstr(text, "tcp://h:1 0100000000"), text);
    assert_non_null(strstr(text, "Z\ntcp://h:2 0200000000"));

    assert_status(meet(f, path, "tcp://h:1", second), HW_EREFUSED, &f->err);
    assert_non_null(strstr(f->err.message, "0200000000"));
    assert_non_null(strstr(f->err.message, "hyperwal key --forget tcp://h:1"));
    assert_non_null(strstr(f->err.message, "known_servers:1"));
    assert_status(hw_known_check(f->env, path, "tcp://h:1", second, false, &unwritten, &f->err),
                  HW_EREFUSED, &f->err);

    assert_ok(hw_known_forget(f->env, path, "tcp://h:1", &count, &f->err));
    assert_int_equal(count, 1);
    assert_ok(meet(f, path, "tcp://h:1", second));
    assert_ok(hw_known_forget(f->env, path, "tcp://h:3", &count, &f->err));
    assert_int_equal(count, 0);
}

static void what_people_write_there_is_kept_and_counts(void **state)
{
    struct place *f = *state;
    char path[128], text[1024];
    unsigned count;

    known_path(f, path);
    assert_ok(meet(f, path, "tcp://h:1", first));
    put(f, path,
        "# mine\n\n  tcp://a:1\tyryyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"
        "ws://b:2/Path 0200000000000000000000000000000000000000000000000000000000000000 2026 the "
        "proxy");
    assert_ok(meet(f, path, "tcp://a:1", first));
    assert_status(meet(f, path, "tcp://a:1", second), HW_EREFUSED, &f->err);
    assert_ok(meet(f, path, "ws://B:2/Path", second));
    assert_ok(meet(f, path, "ws://b:2/path", first)); /* paths are not the same in capitals */
    get(f, path, text, sizeof(text));
    assert_ptr_equal(strstr(text, "# mine\n\n  tcp://a:1\t"), text);
    assert_non_null(strstr(text, "the proxy\nws://b:2/path 01"));
    assert_ok(hw_known_forget(f->env, path, "tcp://a:1", &count, &f->err));
    assert_int_equal(count, 1);
    get(f, path, text, sizeof(text));
    assert_ptr_equal(strstr(text, "# mine\n\nws://b:2/Path"), text);
    /* Two keys of one address, while it moves from one to the other. */
    put(f, path,
        "tcp://a:1 0100000000000000000000000000000000000000000000000000000000000000\n"
        "tcp://a:1 0200000000000000000000000000000000000000000000000000000000000000\n");
    assert_ok(meet(f, path, "tcp://a:1", first));
    assert_ok(meet(f, path, "tcp://a:1", second));
}

static void file_that_cannot_be_believed_lets_nobody_through(void **state)
{
    struct place *f = *state;
    char path[128];

    known_path(f, path);
    assert_ok(meet(f, path, "tcp://h:1", first));
    assert_int_equal(chmod(path, 0620), 0);
    assert_status(meet(f, path, "tcp://h:1", first), HW_EREADONLY, &f->err);
    assert_non_null(strstr(f->err.message, "cannot tell whether tcp://h:1"));
    assert_int_equal(chmod(path, 0600), 0);
    put(f, path, "tcp://h:1 00\n");
    assert_status(meet(f, path, "tcp://h:1", first), HW_EMISUSE, &f->err);
    assert_non_null(strstr(f->err.message, "known_servers: line 1"));
    put(f, path, "tcp://h:1");
    assert_status(meet(f, path, "tcp://h:2", first), HW_EMISUSE, &f->err);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_true(meet(f, path, "tcp://h:1", first) < 0);
    assert_int_equal(rmdir(path), 0);
}

static void no_place_to_write_is_told_and_keeps_nobody_out(void **state)
{
    struct place *f = *state;
    struct hw_error unwritten;
    struct hw_file_stat stat;
    struct hw_file *lock = NULL;
    char path[128], lock_path[160];

    assert_ok(hw_known_check(f->env, "/dev/null", "tcp://h:1", first, true, &unwritten, &f->err));
    assert_int_equal(unwritten.status, HW_OK);
    assert_ok(f->env->ops->stat(f->env, "/dev/null", &stat, &f->err));
    assert_true(stat.is_special);
    /* Nobody lets go of the lock. */
    known_path(f, path);
    assert_ok(meet(f, path, "tcp://h:1", first));
    (void)snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
    assert_ok(f->env->ops->open(f->env, lock_path, HW_OPEN_READ | HW_OPEN_WRITE, &lock, &f->err));
    assert_ok(f->env->ops->lock(lock, false, &f->err));
    assert_ok(hw_known_check(f->env, path, "tcp://h:2", first, true, &unwritten, &f->err));
    assert_int_equal(unwritten.status, HW_EBUSY);
    assert_ok(hw_known_check(f->env, path, "tcp://h:1", first, true, &unwritten, &f->err));
    assert_int_equal(unwritten.status, HW_OK);
    f->env->ops->close(lock);
}

/* Between the look at the file and its reading another process writes it anew, and longer. */
static enum hw_status stat_before_another_writes(struct hw_env *env, const char *path,
                                                 struct hw_file_stat *out, struct hw_error *err)
{
    enum { LINES = 40 };
    static const char line[] =
        "tcp://other:1 0300000000000000000000000000000000000000000000000000000000000000 now\n";
    char text[LINES * sizeof(line)] = "";
    struct hw_env *posix = hw_env_posix();
    enum hw_status status = posix->ops->stat(posix, path, out, err);

    (void)env;
    for (unsigned i = 0; i < LINES; i++)
        memcpy(text + i * strlen(line), line, strlen(line));
    if (hw_env_replace_file(posix, path, text, strlen(text), HW_OPEN_PRIVATE, err) != HW_OK)
        return HW_EIO;
    return status;
}

static void file_that_grows_between_two_looks_is_read_whole(void **state)
{
    struct place *f = *state;
    struct hw_env_ops ops = *f->env->ops;
    struct hw_env growing = {&ops};
    struct hw_error unwritten;
    char path[128];

    known_path(f, path);
    assert_ok(meet(f, path, "tcp://h:1", first));
    ops.stat = stat_before_another_writes;
    assert_status(
        hw_known_check(&growing, path, "tcp://other:1", first, false, &unwritten, &f->err),
        HW_EREFUSED, &f->err);
}

static enum hw_status stat_of_another_user(struct hw_env *env, const char *path,
                                           struct hw_file_stat *out, struct hw_error *err)
{
    struct hw_env *posix = hw_env_posix();
    enum hw_status status = posix->ops->stat(posix, path, out, err);

    (void)env;
    assert_false(out->is_foreign);
    out->is_foreign = true;
    return status;
}

static void file_of_another_user_lets_nobody_through(void **state)
{
    struct place *f = *state;
    struct hw_env_ops ops = *f->env->ops;
    struct hw_env foreign = {&ops};
    struct hw_error unwritten;
    char path[128];

    known_path(f, path);
    assert_ok(meet(f, path, "tcp://h:1", first));
    ops.stat = stat_of_another_user;
    assert_status(hw_known_check(&foreign, path, "tcp://h:1", first, false, &unwritten, &f->err),
                  HW_EREADONLY, &f->err);
    assert_non_null(strstr(f->err.message, "another user owns it"));
}

enum { RACERS = 5, SERVERS = 6 };

/* Where the disk is slow one may find the lock taken for all of its time: it meets again. */
static enum hw_status meet_surely(struct place *f, const char *path, const char *address,
                                  const uint8_t *key)
{
    struct hw_error unwritten;
    enum hw_status status;

    do
        status = hw_known_check(f->env, path, address, key, true, &unwritten, &f->err);
    while (status == HW_OK && unwritten.status == HW_EBUSY);
    return status == HW_OK ? unwritten.status : status;
}

/* Each meets servers of its own, and one that all meet, each with another key. */
static int race(struct place *f, const char *path, unsigned racer)
{
    uint8_t key[HW_IDENTITY_KEY_SIZE] = {(uint8_t)racer};
    char address[64];

    for (unsigned i = 0; i < SERVERS; i++) {
        (void)snprintf(address, sizeof(address), "tcp://h%u:%u", racer, i);
        if (meet_surely(f, path, address, key) != HW_OK)
            return 2;
    }
    return meet_surely(f, path, "tcp://all:1", key) == HW_OK ? 0 : 1;
}

static void processes_at_once_lose_nothing_and_agree(void **state)
{
    struct place *f = *state;
    char path[128], address[64];
    unsigned winners = 0;
    pid_t children[RACERS];

    known_path(f, path);
    for (unsigned r = 0; r < RACERS; r++) {
        children[r] = fork();
        assert_true(children[r] >= 0);
        if (children[r] == 0)
            _exit(race(f, path, r));
    }
    for (unsigned r = 0; r < RACERS; r++) {
        int status;

        assert_int_equal(waitpid(children[r], &status, 0), children[r]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        winners += WEXITSTATUS(status) == 0;
    }
    assert_int_equal(winners, 1);
    for (unsigned r = 0; r < RACERS; r++) {
        for (unsigned i = 0; i < SERVERS; i++) {
            const uint8_t other[HW_IDENTITY_KEY_SIZE] = {99};

            (void)snprintf(address, sizeof(address), "tcp://h%u:%u", r, i);
            assert_status(meet(f, path, address, other), HW_EREFUSED, &f->err);
        }
    }
}

static _Noreturn void write_until_killed(struct place *f, const char *path, unsigned k, int out)
{
    for (unsigned i = 0;; i++) {
        struct hw_error unwritten;
        char address[64];

        (void)snprintf(address, sizeof(address), "tcp://h%u:%u", k, i);
        if (hw_known_check(f->env, path, address, first, true, &unwritten, NULL) != HW_OK ||
            write(out, "x", 1) != 1)
            _exit(1);
    }
}

/* The child tells by a byte that it wrote one more, and is killed in the midst of the next. */
static void killed_writer_leaves_a_whole_file_that_others_go_on_with(void **state)
{
    enum { KILLS = 12 };
    struct place *f = *state;
    char path[128], address[64];
    const uint8_t other[HW_IDENTITY_KEY_SIZE] = {99};

    known_path(f, path);
    for (unsigned k = 0; k < KILLS; k++) {
        int ends[2], status;
        char byte;
        unsigned written = 0;
        pid_t child;

        assert_int_equal(pipe(ends), 0);
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
            write_until_killed(f, path, k, ends[1]);
        (void)close(ends[1]);
        while (written <= k && read(ends[0], &byte, 1) == 1)
            written++;
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        (void)close(ends[0]);
        for (unsigned i = 0; i < written; i++) {
            (void)snprintf(address, sizeof(address), "tcp://h%u:%u", k, i);
            assert_status(meet(f, path, address, other), HW_EREFUSED, &f->err);
        }
    }
}

/* ---------------------------------------------------------------------- the simulated disk */

static void prepare(struct sim *sim, void *ctx)
{
    struct hw_error unwritten;

    (void)ctx;
    assert_int_equal(sim_env(sim)->ops->make_dir(sim_env(sim), "/d", NULL), HW_OK);
    assert_int_equal(sim_env(sim)->ops->sync_dir(sim_env(sim), "/", NULL), HW_OK);
    assert_int_equal(
        hw_known_check(sim_env(sim), "/d/known", "tcp://old:1", first, true, &unwritten, NULL),
        HW_OK);
}

struct meeting {
    enum hw_status status, unwritten;
};

static void meet_one_more(struct sim *sim, void *ctx)
{
    struct meeting *meeting = ctx;
    struct hw_error unwritten = {.status = HW_EIO};

    meeting->status =
        hw_known_check(sim_env(sim), "/d/known", "tcp://new:1", second, true, &unwritten, NULL);
    meeting->unwritten = unwritten.status;
}

/* What could not be written may be there after all: a failed sync says nothing. */
static void check_old_is_known(struct sim *sim, void *ctx)
{
    const struct meeting *meeting = ctx;
    struct hw_error unwritten;

    assert_int_equal(
        hw_known_check(sim_env(sim), "/d/known", "tcp://old:1", second, false, &unwritten, NULL),
        HW_EREFUSED);
    if (meeting->status == HW_OK && meeting->unwritten == HW_OK)
        assert_int_equal(
            hw_known_check(sim_env(sim), "/d/known", "tcp://new:1", first, false, &unwritten, NULL),
            HW_EREFUSED);
    assert_int_equal(sim_open_handles(sim), 0);
    *(struct meeting *)ctx = (struct meeting){HW_EIO, HW_EIO};
}

static void failures_of_the_disk_forget_nobody(void **state)
{
    struct sim *sim = sim_new(0);
    struct meeting meeting = {HW_EIO, HW_EIO};
    struct sim_scenario scenario = {
        .faults = SIM_EIO | SIM_ENOSPC | SIM_EMFILE | SIM_CRASH | SIM_KILL | SIM_ENOMEM,
        .prepare = prepare,
        .run = meet_one_more,
        .check = check_old_is_known,
        .ctx = &meeting,
    };

    (void)state;
    for (scenario.seed = 1; scenario.seed <= 5; scenario.seed++)
        assert_true(sim_for_each_fault(sim, &scenario) > 30);
    sim_free(sim);
}

/* ------------------------------------------------------------------------------- the hub */

static struct hw_hub *hub_with(struct place *f, const char *path)
{
    struct hw_hub_options options = {.env = f->env, .threaded = true, .known_servers = path};
    struct hw_hub *hub = NULL;

    hw_identity_random(f->env, &options.identity);
    assert_ok(hw_hub_open(&options, &hub, &f->err));
    return hub;
}

static enum hw_status resolve(struct place *f, struct hw_hub *hub, const char *listen,
                              const char *name)
{
    struct hw_address address;
    uint8_t key[HW_KEY_SIZE];

    place_address(f, listen, name, &address);
    return hw_hub_resolve(hub, &address, PLACE_WAIT_MS, key, &f->err);
}

static void changed_server_is_asked_nothing(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], path[128], pinned[128], key[2 * HW_KEY_SIZE + 1];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_hub_counts counts;
    struct hw_mirror *mirror;
    unsigned count;

    place_make_log(f);
    place_append(f, 4);
    known_path(f, path);
    server = place_server(f, url);
    client = hub_with(f, path);
    assert_ok(resolve(f, client, url, "a.db"));
    assert_status(meet(f, path, url, first), HW_EREFUSED, &f->err); /* it is written */
    hw_hub_close(server);

    server = place_hub(f); /* another identity at the same address */
    assert_ok(hw_hub_serve(server, "a.db", f->a, &f->err));
    assert_ok(hw_hub_listen(server, url, url, &f->err));
    assert_status(resolve(f, client, url, "a.db"), HW_EREFUSED, &f->err);
    assert_non_null(strstr(f->err.message, "another server"));
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_status(hw_mirror_wait_length(mirror, 1, 200, &f->err), HW_ETIMEOUT, &f->err);
    assert_non_null(strstr(f->err.message, "another server"));
    hw_hub_counts(server, &counts);
    assert_int_equal(counts.links, 0);

    hw_key_format(hw_hub_identity(server), key); /* who is named is no stranger */
    (void)snprintf(pinned, sizeof(pinned), "a.db?server=%s", key);
    assert_ok(resolve(f, client, url, pinned));
    hw_key_format(hw_hub_identity(client), key);
    (void)snprintf(pinned, sizeof(pinned), "a.db?server=%s", key);
    assert_status(resolve(f, client, url, pinned), HW_EREFUSED, &f->err);
    assert_non_null(strstr(f->err.message, "asked for"));

    assert_ok(hw_known_forget(f->env, path, url, &count, &f->err));
    assert_ok(hw_mirror_wait_length(mirror, 4, PLACE_WAIT_MS, &f->err)); /* it dials again */
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void log_named_by_its_key_writes_nobody_down(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], path[128], key[2 * HW_KEY_SIZE + 1];
    struct hw_hub *server, *client;
    struct hw_address source;
    struct hw_mirror_options options = {.sources = &source, .source_count = 1};
    struct hw_mirror *mirror = NULL;
    struct hw_file_stat stat;
    char dir[128];

    place_make_log(f);
    place_append(f, 4);
    known_path(f, path);
    server = place_server(f, url);
    client = hub_with(f, path);
    hw_key_format(hw_core_identity(f->core)->key, key);
    place_address(f, url, key, &source);
    memcpy(options.key, source.key, HW_KEY_SIZE);
    (void)snprintf(dir, sizeof(dir), "%s/b", f->dir);
    options.dir = dir;
    assert_ok(hw_hub_mirror_open(client, &options, &mirror, &f->err));
    assert_ok(hw_mirror_wait_length(mirror, 4, PLACE_WAIT_MS, &f->err));
    assert_int_equal(f->env->ops->stat(f->env, path, &stat, NULL), HW_ENOTFOUND);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(server_is_written_at_the_first_contact_and_known_again),
        TEST(what_people_write_there_is_kept_and_counts),
        TEST(file_that_cannot_be_believed_lets_nobody_through),
        TEST(no_place_to_write_is_told_and_keeps_nobody_out),
        TEST(file_that_grows_between_two_looks_is_read_whole),
        TEST(file_of_another_user_lets_nobody_through),
        TEST(processes_at_once_lose_nothing_and_agree),
        TEST(killed_writer_leaves_a_whole_file_that_others_go_on_with),
        cmocka_unit_test(failures_of_the_disk_forget_nobody),
        TEST(changed_server_is_asked_nothing),
        TEST(log_named_by_its_key_writes_nobody_down),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
