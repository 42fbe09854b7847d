/* Tests what a peer may do with which name, and what becomes of it when the rules change. */
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node_fixture.h"

/* Lines of the library's log with a word in them; guarded by being counted up only. */
static _Atomic unsigned refusals, drops, unreads, loads;
static pthread_mutex_t last_mutex = PTHREAD_MUTEX_INITIALIZER; /* hubs have a thread each */
static char last_refusal[1024];                                /* last_mutex */

static void note_line(void *ctx, enum hw_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    if (strstr(line, "event=access_refused") != NULL) {
        (void)pthread_mutex_lock(&last_mutex); /* neither fails with a plain one */
        (void)snprintf(last_refusal, sizeof(last_refusal), "%s", line);
        (void)pthread_mutex_unlock(&last_mutex);
        atomic_fetch_add(&refusals, 1);
    }
    if (strstr(line, "event=peer_refused") != NULL)
        atomic_fetch_add(&drops, 1);
    if (strstr(line, "event=access_unread") != NULL)
        atomic_fetch_add(&unreads, 1);
    if (strstr(line, "event=access_loaded") != NULL)
        atomic_fetch_add(&loads, 1);
}

static bool last_says(const char *words)
{
    bool does;

    (void)pthread_mutex_lock(&last_mutex);
    does = strstr(last_refusal, words) != NULL;
    (void)pthread_mutex_unlock(&last_mutex);
    return does;
}

static void await(const struct place *f, const _Atomic unsigned *counter, unsigned more_than)
{
    uint64_t end = deadline(f);

    while (atomic_load(counter) <= more_than) {
        if (f->env->ops->monotonic_ns(f->env) > end)
            fail_msg("no line of the log came");
        pause_ms(f, 1);
    }
}

static void keys_path(const struct place *f, char out[128])
{
    (void)snprintf(out, 128, "%s/authorized_keys", f->dir);
}

/* As an editor does it: a new file in the place of the old one. */
static void keys_replace(struct place *f, const char *format, const struct hw_hub *hub)
{
    char path[128], text[512], key[2 * HW_KEY_SIZE + 1] = "";

    keys_path(f, path);
    if (hub != NULL)
        hw_key_format(hw_hub_identity(hub), key);
    (void)snprintf(text, sizeof(text), "%s %s\n", format, key);
    assert_ok(hw_env_replace_file(f->env, path, text, strlen(text), HW_OPEN_PRIVATE, &f->err));
}

static void assert_resolves(struct place *f, struct hw_hub *hub, const char *url, const char *name,
                            enum hw_status wanted)
{
    struct hw_address address;
    uint8_t key[HW_KEY_SIZE];

    place_address(f, url, name, &address);
    assert_status(hw_hub_resolve(hub, &address, PLACE_WAIT_MS, key, &f->err), wanted, &f->err);
    if (wanted == HW_OK)
        assert_memory_equal(key, hw_core_identity(f->core)->key, sizeof(key));
}

static void names_without_a_right_are_refused_whether_they_exist_or_not(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], key[2 * HW_KEY_SIZE + 1];
    struct hw_hub *server, *client;
    struct hw_address address;
    struct hw_buffer text = {0};
    unsigned before = atomic_load(&refusals);

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    hw_key_format(hw_hub_identity(client), key);
    assert_ok(hw_hub_serve(server, "b.db", f->a, &f->err));
    assert_ok(hw_hub_allow(server, HW_RIGHT_WRITE, "b*,n*", hw_hub_identity(client), &f->err));
    assert_resolves(f, client, url, "b.db", HW_OK);
    assert_int_equal(atomic_load(&refusals), before);
    assert_resolves(f, client, url, "a.db", HW_EREFUSED);
    await(f, &refusals, before);
    assert_true(last_says(key));
    assert_true(last_says("name=\"a.db\" right=read"));
    assert_resolves(f, client, url, "missing%22%C3", HW_EREFUSED);
    assert_resolves(f, client, url, "nothing", HW_ENOTFOUND);
    place_address(f, url, "a.db", &address);
    assert_status(hw_hub_ask(client, &address, PLACE_WAIT_MS, &text, NULL, &f->err), HW_EREFUSED,
                  &f->err);
    place_address(f, url, "b.db", &address);
    assert_ok(hw_hub_ask(client, &address, PLACE_WAIT_MS, &text, NULL, &f->err));
    hw_buffer_release(&text);
    assert_int_equal(hw_hub_rights(server, hw_hub_identity(client), "b.db"),
                     HW_RIGHT_READ | HW_RIGHT_WRITE);
    assert_int_equal(hw_hub_rights(server, hw_hub_identity(server), "x"), HW_RIGHTS_ALL);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void log_is_given_to_those_who_may_read_one_of_its_names(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *friend, *other;
    struct hw_mirror *mirror, *refused;
    unsigned before = atomic_load(&refusals);

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    friend = place_hub(f);
    other = place_hub(f);
    assert_ok(hw_hub_serve(server, "b.db", f->a, &f->err));
    assert_ok(hw_hub_allow(server, HW_RIGHT_READ, "b.db", hw_hub_identity(friend), &f->err));
    assert_ok(hw_hub_allow(server, HW_RIGHT_READ, "c.db", hw_hub_identity(other), &f->err));
    mirror = place_mirror(f, friend, "c", urls, 1);
    refused = place_mirror(f, other, "d", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 4, PLACE_WAIT_MS, &f->err));
    await(f, &refusals, before); /* who is in, but not for this one */
    assert_true(last_says("right=read"));
    assert_status(hw_mirror_wait_length(refused, 1, 1, &f->err), HW_ETIMEOUT, &f->err);
    hw_hub_mirror_close(refused);
    hw_hub_mirror_close(mirror);
    hw_hub_close(other);
    hw_hub_close(friend);
    hw_hub_close(server);
}

static void followers_are_told_of_to_those_who_may_write(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *reader, *writer;
    struct hw_mirror *mirror;
    struct hw_address address;
    struct hw_buffer text = {0};

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    reader = place_hub(f);
    writer = place_hub(f);
    assert_ok(hw_hub_allow(server, HW_RIGHT_READ, "*", NULL, &f->err));
    assert_ok(hw_hub_allow(server, HW_RIGHT_WRITE, "*", hw_hub_identity(writer), &f->err));
    mirror = place_mirror(f, reader, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 4, PLACE_WAIT_MS, &f->err));
    place_address(f, url, "a.db", &address);
    assert_ok(hw_hub_ask(reader, &address, PLACE_WAIT_MS, &text, NULL, &f->err));
    hw_buffer_add_u8(&text, 0);
    assert_non_null(strstr((char *)text.bytes, "\"peers\":[],\"peer_count\":1"));
    hw_buffer_clear(&text);
    assert_ok(hw_hub_ask(writer, &address, PLACE_WAIT_MS, &text, NULL, &f->err));
    hw_buffer_add_u8(&text, 0);
    assert_non_null(strstr((char *)text.bytes, "\"peers\":[{\"address\""));
    hw_buffer_release(&text);
    hw_hub_mirror_close(mirror);
    hw_hub_close(writer);
    hw_hub_close(reader);
    hw_hub_close(server);
}

static void who_loses_a_right_loses_the_link_and_may_come_back(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], path[128];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    unsigned before, dropped;

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    keys_path(f, path);
    keys_replace(f, "read a.db", client);
    assert_ok(hw_hub_authorize(server, path, &f->err));
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 4);

    before = atomic_load(&refusals);
    keys_replace(f, "read other.db", client); /* nobody calls: the directory rings */
    await(f, &refusals, before);
    place_append(f, 1);
    keys_replace(f, "read a.db", client);
    place_await_blocks(f, "b", 4, 5); /* it dials again */

    dropped = atomic_load(&drops);
    keys_replace(f, "# nobody", NULL);
    await(f, &drops, dropped);
    place_append(f, 1);
    keys_replace(f, "read a.db", client);
    place_await_blocks(f, "b", 5, 6);

    dropped = atomic_load(&drops);
    assert_int_equal(unlink(path), 0); /* that is no rule, not everybody */
    await(f, &drops, dropped);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void another_file_takes_the_place_of_the_first(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], path[128], other[160], gone[160];
    struct hw_hub *server, *client;
    unsigned before;

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    keys_path(f, path);
    (void)snprintf(other, sizeof(other), "%s.first", path);
    (void)snprintf(gone, sizeof(gone), "%s.gone", path);
    keys_replace(f, "read other.db", client);
    assert_int_equal(rename(path, other), 0);
    assert_ok(hw_hub_authorize(server, other, &f->err));
    assert_resolves(f, client, url, "a.db", HW_EREFUSED);

    /* What cannot be read changes nothing. */
    assert_status(hw_hub_authorize_instead(server, gone, &f->err), HW_ENOTFOUND, &f->err);
    keys_replace(f, "read a.db nonsense", NULL);
    assert_status(hw_hub_authorize_instead(server, path, &f->err), HW_EMISUSE, &f->err);
    assert_resolves(f, client, url, "a.db", HW_EREFUSED);
    keys_replace(f, "read a.db", client);
    assert_ok(hw_hub_authorize_instead(server, path, &f->err));
    assert_resolves(f, client, url, "a.db", HW_OK);

    before = atomic_load(&loads); /* from now on this one is looked at, and the first is not */
    assert_int_equal(unlink(other), 0);
    keys_replace(f, "read other.db", client);
    await(f, &loads, before);
    assert_resolves(f, client, url, "a.db", HW_EREFUSED);
    hw_hub_close(client);
    hw_hub_close(server);
}

/* An environment in which a file cannot be opened for some time: from the `first` time on. */
static struct {
    struct hw_env env;
    struct hw_env_ops ops;
    char path[128];
    atomic_uint opens, first, count;
} failing;

static enum hw_status failing_open(struct hw_env *env, const char *path, unsigned flags,
                                   struct hw_file **out, struct hw_error *err)
{
    if (strcmp(path, failing.path) == 0 &&
        atomic_fetch_add(&failing.opens, 1) - atomic_load(&failing.first) <
            atomic_load(&failing.count))
        return hw_fail(err, HW_EIO, "%s: cannot be read", path);
    return hw_env_posix()->ops->open(env, path, flags, out, err);
}

/* A server that reads its rules there. */
static struct hw_hub *failing_server(struct place *f, char url[HW_URL_MAX], unsigned first,
                                     unsigned count)
{
    struct hw_hub *server;

    failing.ops = *hw_env_posix()->ops;
    failing.ops.open = failing_open;
    failing.env.ops = &failing.ops;
    atomic_store(&failing.opens, 0);
    atomic_store(&failing.first, first);
    atomic_store(&failing.count, count);
    keys_path(f, failing.path);
    f->env = &failing.env;
    server = place_server(f, url);
    f->env = hw_env_posix();
    return server;
}

static void another_file_is_taken_as_it_was_when_it_was_found_good(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], other[160];
    struct hw_hub *server, *client;

    place_make_log(f);
    place_append(f, 4);
    client = place_hub(f);
    server = failing_server(f, url, 1, UINT_MAX / 2);
    (void)snprintf(other, sizeof(other), "%s.first", failing.path);
    keys_replace(f, "read other.db", client);
    assert_int_equal(rename(failing.path, other), 0);
    assert_ok(hw_hub_authorize(server, other, &f->err));
    keys_replace(f, "read a.db", client);
    assert_ok(hw_hub_authorize_instead(server, failing.path, &f->err));
    assert_resolves(f, client, url, "a.db", HW_OK);
    hw_hub_close(client);
    hw_hub_close(server);
}

/* As with too many files open: nothing rings when they are closed. */
static void file_that_cannot_be_read_just_now_is_read_soon(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    unsigned refused, unread = atomic_load(&unreads);

    place_make_log(f);
    place_append(f, 4);
    client = place_hub(f);
    server = failing_server(f, url, 1, 3);
    keys_replace(f, "read a.db", client);
    assert_ok(hw_hub_authorize(server, failing.path, &f->err));
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 4);

    refused = atomic_load(&refusals);
    keys_replace(f, "read other.db", client);
    await(f, &refusals, refused);
    assert_int_equal(atomic_load(&unreads), unread + 1);
    assert_true(atomic_load(&failing.opens) >= 5);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void bad_file_changes_nothing_and_is_told_once(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], path[128];
    struct hw_hub *server, *client;
    unsigned before = atomic_load(&unreads), loaded;

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    keys_path(f, path);
    assert_status(hw_hub_authorize(server, path, &f->err), HW_ENOTFOUND, &f->err);
    keys_replace(f, "read a.db nonsense", NULL);
    assert_status(hw_hub_authorize(server, path, &f->err), HW_EMISUSE, &f->err);
    assert_non_null(strstr(f->err.message, "authorized_keys: line 1: not a key"));
    keys_replace(f, "read a.db", client);
    assert_int_equal(chmod(path, 0620), 0);
    assert_status(hw_hub_authorize(server, path, &f->err), HW_EREADONLY, &f->err);
    assert_non_null(strstr(f->err.message, "chmod go-w"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(hw_hub_authorize(server, path, &f->err));
    assert_status(hw_hub_authorize(server, path, &f->err), HW_EMISUSE, &f->err);
    assert_resolves(f, client, url, "a.db", HW_OK);

    keys_replace(f, "reed a.db", client);
    await(f, &unreads, before);
    assert_status(hw_hub_reload_access(server, &f->err), HW_EMISUSE, &f->err);
    assert_resolves(f, client, url, "a.db", HW_OK);
    assert_int_equal(atomic_load(&unreads), before + 1);
    loaded = atomic_load(&loads);
    keys_replace(f, "read b.db", client);
    await(f, &loads, loaded);
    assert_resolves(f, client, url, "a.db", HW_EREFUSED);
    hw_hub_close(client);
    hw_hub_close(server);
}

static int setup(void **state)
{
    int result = place_setup(state);

    hw_env_posix_set_log(note_line, NULL);
    return result;
}

static int teardown(void **state)
{
    hw_env_posix_set_log(NULL, NULL);
    return place_teardown(state);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(names_without_a_right_are_refused_whether_they_exist_or_not),
        TEST(log_is_given_to_those_who_may_read_one_of_its_names),
        TEST(followers_are_told_of_to_those_who_may_write),
        TEST(who_loses_a_right_loses_the_link_and_may_come_back),
        TEST(another_file_takes_the_place_of_the_first),
        TEST(another_file_is_taken_as_it_was_when_it_was_found_good),
        TEST(file_that_cannot_be_read_just_now_is_read_soon),
        TEST(bad_file_changes_nothing_and_is_told_once),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
