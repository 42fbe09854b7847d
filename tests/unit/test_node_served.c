/* Tests what node/hub.h says of served logs, with real threads and sockets of this machine. */
#include <unistd.h>

#include "env/peer_table.h"
#include "hypercore/overtaken.h"
#include "node_fixture.h"

static void log_that_is_made_later_is_served_then(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server = place_server(f, url), *client = place_hub(f);
    struct hw_address address;
    struct hw_mirror *mirror;
    uint8_t key[HW_KEY_SIZE];

    place_address(f, url, "a.db", &address);
    assert_status(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err), HW_ENOTFOUND,
                  &f->err);
    place_make_log(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_append(f, 3);
    place_await_blocks(f, "b", 0, 3);
    assert_ok(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err));
    assert_memory_equal(key, hw_core_identity(f->core)->key, HW_KEY_SIZE);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

/* The name leads to this key, within a minute. */
static void await_key(struct place *f, struct hw_hub *client, const char *url, const uint8_t *key)
{
    struct hw_address address;
    uint8_t found[HW_KEY_SIZE] = {0};
    uint64_t end = deadline(f);

    place_address(f, url, "a.db", &address);
    while (memcmp(found, key, HW_KEY_SIZE) != 0) {
        if (f->env->ops->monotonic_ns(f->env) > end)
            fail_msg("the name does not lead to the new key");
        if (hw_hub_resolve(client, &address, PLACE_WAIT_MS, found, &f->err) != HW_OK)
            memset(found, 0, sizeof(found));
        pause_ms(f, 5);
    }
}

static void log_that_takes_the_place_of_another_is_served(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 3);
    server = place_server(f, url);
    client = place_hub(f);
    await_key(f, client, url, hw_core_identity(f->core)->key);
    hw_core_close(f->core);
    hw_shared_page_close(f->page);
    f->core = NULL;
    f->page = NULL;
    (void)nftw(f->a, place_remove, 16, FTW_DEPTH | FTW_PHYS);
    place_make_log(f);
    place_append(f, 5);
    await_key(f, client, url, hw_core_identity(f->core)->key);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 5);
    place_append(f, 5);
    place_await_blocks(f, "b", 5, 10);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void followers_go_over_to_a_higher_fork(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    struct hw_mirror_status status;
    uint64_t end = deadline(f);

    place_make_log(f);
    place_append(f, 30);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 30);
    hw_core_close(f->core);
    f->core = NULL;
    assert_ok(hw_core_adopt(f->env, f->a, &f->err));
    assert_ok(hw_core_open(f->env, f->a, HW_CORE_WRITE, UINT64_MAX, &f->core, &f->err));
    assert_true(hw_core_head(f->core).fork > 0);
    place_append(f, 10);
    do {
        hw_mirror_status(mirror, &status);
        pause_ms(f, 2);
    } while (status.fork != hw_core_head(f->core).fork && f->env->ops->monotonic_ns(f->env) < end);
    assert_int_equal(status.fork, hw_core_head(f->core).fork);
    place_await_blocks(f, "b", 0, 40);
    place_append(f, 10);
    place_await_blocks(f, "b", 40, 50);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

struct copying {
    const char *from, *to;
};

/* Content alone: the key file and what tells a copy from the original stay as they are. */
static bool copy_one(void *ctx, const char *name)
{
    const struct copying *copying = ctx;
    static uint8_t bytes[1 << 20];
    char from[256], to[256];
    FILE *in, *out;
    size_t size;

    if (strcmp(name, "tree") != 0 && strstr(name, ".seg") == NULL)
        return true;
    (void)snprintf(from, sizeof(from), "%s/%s", copying->from, name);
    (void)snprintf(to, sizeof(to), "%s/%s", copying->to, name);
    in = fopen(from, "r");
    out = fopen(to, "w");
    if (in == NULL || out == NULL)
        return false;
    while ((size = fread(bytes, 1, sizeof(bytes), in)) > 0)
        (void)fwrite(bytes, 1, size, out);
    return fclose(in) == 0 && fclose(out) == 0;
}

static void log_that_was_put_back_is_not_written_on(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], again[HW_URL_MAX], backup[128], shared[160];
    const char *urls[] = {url};
    struct copying save = {f->a, backup}, restore = {backup, f->a};
    struct hw_overtaken overtaken = {0};
    struct hw_mirror_status status;
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    uint64_t end = deadline(f);

    (void)snprintf(backup, sizeof(backup), "%s/backup", f->dir);
    (void)snprintf(shared, sizeof(shared), "%s/shared", f->a);
    assert_ok(f->env->ops->make_dir(f->env, backup, &f->err));
    place_make_log(f);
    place_append(f, 30);
    assert_ok(f->env->ops->list(f->env, f->a, copy_one, &save, &f->err));
    place_append(f, 10);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 40);
    hw_hub_close(server);

    hw_core_close(f->core);
    f->core = NULL;
    hw_shared_page_close(f->page);
    assert_ok(f->env->ops->list(f->env, f->a, copy_one, &restore, &f->err));
    assert_ok(f->env->ops->remove(f->env, shared, &f->err)); /* as after a boot */
    assert_ok(hw_shared_page_open(f->env, f->a, true, &f->page, &f->err));
    server = place_hub(f);
    assert_ok(hw_hub_serve(server, "a.db", f->a, &f->err));
    assert_ok(hw_hub_listen(server, url, again, &f->err));
    while (hw_overtaken_read(f->env, f->a, &overtaken, &f->err) == HW_ENOTFOUND &&
           f->env->ops->monotonic_ns(f->env) < end)
        pause_ms(f, 2);
    assert_int_equal(overtaken.length, 40);
    assert_memory_equal(overtaken.peer, hw_hub_identity(client), HW_IDENTITY_KEY_SIZE);
    assert_status(hw_core_open(f->env, f->a, HW_CORE_WRITE, UINT64_MAX, &f->core, &f->err),
                  HW_EFORK, &f->err);
    assert_ok(hw_core_adopt(f->env, f->a, &f->err));
    assert_ok(hw_core_open(f->env, f->a, HW_CORE_WRITE, UINT64_MAX, &f->core, &f->err));
    place_append(f, 5);
    do {
        hw_mirror_status(mirror, &status);
        pause_ms(f, 2);
    } while (status.fork != hw_core_head(f->core).fork && f->env->ops->monotonic_ns(f->env) < end);
    place_await_blocks(f, "b", 0, 35);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static bool keep_late(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= 100 || index % 40 == 0;
}

static void log_that_is_pruned_while_it_is_served_keeps_its_followers(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_hub_counts counts;
    struct hw_mirror *mirror;
    uint64_t freed;

    place_make_log(f);
    for (unsigned i = 0; i < 20; i++)
        place_append(f, 10);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 190);
    place_await_blocks(f, "b", 190, 200);
    assert_ok(hw_mirror_fetch(mirror, 60, &f->err));
    assert_ok(hw_core_prune(f->core, keep_late, NULL, false, &freed, &f->err));
    place_append(f, 1); /* rings */
    place_await_blocks(f, "b", 200, 201);
    assert_status(hw_mirror_fetch(mirror, 50, &f->err), HW_EPRUNED, &f->err);
    assert_ok(hw_mirror_fetch(mirror, 150, &f->err));
    assert_ok(hw_mirror_fetch(mirror, 40, &f->err)); /* one that stayed among those that went */
    hw_hub_counts(server, &counts);
    assert_int_equal(counts.accepted, 1);
    assert_int_equal(counts.dropped, 0);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void server_answers_what_it_is_asked(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], text[2 * HW_KEY_SIZE + 1], wanted[2 * HW_KEY_SIZE + 16];
    struct hw_hub *server, *client;
    struct hw_address address;
    struct hw_buffer json = {0};
    uint8_t key[HW_KEY_SIZE];

    place_make_log(f);
    place_append(f, 7);
    server = place_server(f, url);
    client = place_hub(f);
    assert_status(hw_hub_serve(server, "a.db", f->dir, &f->err), HW_EEXIST, &f->err);
    assert_ok(hw_hub_serve(server, "other name", f->a, &f->err));
    place_address(f, url, "other%20name", &address);
    assert_ok(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err));
    assert_memory_equal(key, hw_core_identity(f->core)->key, HW_KEY_SIZE);
    place_address(f, url, "unknown", &address);
    assert_status(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err), HW_ENOTFOUND,
                  &f->err);
    assert_non_null(strstr(f->err.message, "\"unknown\""));
    hw_key_format(hw_core_identity(f->core)->key, text);
    place_address(f, url, text, &address);
    assert_ok(hw_hub_ask(client, &address, PLACE_WAIT_MS, &json, NULL, &f->err));
    hw_buffer_add_u8(&json, 0);
    (void)snprintf(wanted, sizeof(wanted), "\"key\":\"%s\"", text);
    assert_non_null(strstr((const char *)json.bytes, wanted));
    assert_non_null(strstr((const char *)json.bytes, "\"length\":7,"));
    hw_buffer_release(&json);
    hw_hub_unserve(server, "other name");
    place_address(f, url, "other%20name", &address);
    assert_status(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err), HW_ENOTFOUND,
                  &f->err);
    place_address(f, "tcp://127.0.0.1:1", "a.db", &address);
    assert_true(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err) < 0);
    hw_hub_close(client);
    hw_hub_close(server);
}

/* Whoever asks for it just then gets no answer: "unknown" would be one. */
static void log_that_cannot_be_read_now_is_not_unknown(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], text[2 * HW_KEY_SIZE + 1], log[160], aside[160];
    struct hw_hub *server, *client;
    struct hw_address address;
    struct hw_buffer json = {0};
    uint8_t key[HW_KEY_SIZE];
    const char *const names[] = {"a.db", text};

    place_make_log(f);
    place_append(f, 3);
    hw_key_format(hw_core_identity(f->core)->key, text);
    (void)snprintf(log, sizeof(log), "%s/log", f->a);
    (void)snprintf(aside, sizeof(aside), "%s/aside", f->a);
    assert_int_equal(rename(log, aside), 0);
    assert_int_equal(symlink("log", log), 0); /* to itself: it cannot be opened */
    server = place_server(f, url);
    client = place_hub(f);
    for (size_t i = 0; i < 2; i++) {
        bool was_reached = false;

        place_address(f, url, names[i], &address);
        assert_status(hw_hub_ask(client, &address, PLACE_WAIT_MS, &json, &was_reached, &f->err),
                      HW_EREFUSED, &f->err);
        assert_true(was_reached);
    }
    place_address(f, url, "a.db", &address);
    assert_status(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err), HW_EREFUSED,
                  &f->err);
    place_address(f, url, "b.db", &address);
    assert_status(hw_hub_resolve(client, &address, PLACE_WAIT_MS, key, &f->err), HW_ENOTFOUND,
                  &f->err);
    assert_int_equal(rename(aside, log), 0);
    await_key(f, client, url, hw_core_identity(f->core)->key);
    hw_buffer_release(&json);
    hw_hub_close(client);
    hw_hub_close(server);
}

/* Has somebody confirmed that much, within a minute? */
static void await_confirmed(struct place *f, uint64_t length, bool applied, unsigned count)
{
    struct hw_peer_table *table = NULL;
    uint64_t end = deadline(f);

    assert_ok(hw_peer_table_open(f->env, f->a, true, &table, &f->err));
    while (hw_peer_table_confirmed(table, length, applied) < count) {
        uint32_t seen = hw_shared_wake_count(f->page);

        if (f->env->ops->monotonic_ns(f->env) > end)
            fail_msg("length %llu is not confirmed", (unsigned long long)length);
        if (hw_peer_table_confirmed(table, length, applied) < count)
            hw_shared_wait(f->page, seen, MS(1000));
    }
    hw_peer_table_close(table);
}

static void followers_confirm_what_they_have(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *clients[2];
    struct hw_mirror *mirrors[2];
    struct hw_hub_peer peers[4];
    size_t count;

    place_make_log(f);
    place_append(f, 10);
    server = place_server(f, url);
    for (unsigned i = 0; i < 2; i++) {
        clients[i] = place_hub(f);
        mirrors[i] = place_mirror(f, clients[i], i == 0 ? "b" : "c", urls, 1);
        hw_mirror_want_tail(mirrors[i], 0);
    }
    await_confirmed(f, 10, false, 2);
    hw_mirror_applied(mirrors[0], 10);
    await_confirmed(f, 10, true, 1);
    count = hw_hub_peers(server, "a.db", peers, 4);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        bool is_first =
            memcmp(peers[i].key, hw_hub_identity(clients[0]), HW_IDENTITY_KEY_SIZE) == 0;

        assert_true(peers[i].has_ack && !peers[i].is_outgoing);
        assert_int_equal(peers[i].received, 10);
        assert_int_equal(peers[i].durable, 10);
        assert_int_equal(peers[i].applied, is_first ? 10 : 0);
    }
    hw_shared_set_remote_wait(f->page, 1); /* then they sync at once */
    place_append(f, 1);
    await_confirmed(f, 11, false, 2);
    for (unsigned i = 0; i < 2; i++) {
        hw_hub_mirror_close(mirrors[i]);
        hw_hub_close(clients[i]);
    }
    hw_hub_close(server);
}

static void logs_that_could_not_be_watched_are_not_counted(void **state)
{
    struct place *f = *state;
    struct hw_hub *hub = place_hub(f);
    char bell[160];

    (void)snprintf(bell, sizeof(bell), "%s/bell", f->a);
    (void)mkdir(f->a, 0777); /* may be there */
    assert_int_equal(mkdir(bell, 0777), 0);
    for (int i = 0; i <= HW_HUB_SERVED_MAX; i++)
        assert_true(hw_hub_serve(hub, "a.db", f->a, &f->err) < 0);
    assert_int_equal(rmdir(bell), 0);
    assert_ok(hw_hub_serve(hub, "a.db", f->a, &f->err));
    hw_hub_close(hub);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(log_that_is_made_later_is_served_then),
        TEST(log_that_takes_the_place_of_another_is_served),
        TEST(followers_go_over_to_a_higher_fork),
        TEST(log_that_was_put_back_is_not_written_on),
        TEST(log_that_is_pruned_while_it_is_served_keeps_its_followers),
        TEST(server_answers_what_it_is_asked),
        TEST(log_that_cannot_be_read_now_is_not_unknown),
        TEST(followers_confirm_what_they_have),
        TEST(logs_that_could_not_be_watched_are_not_counted),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
