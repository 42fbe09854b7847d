/* Tests node/hub.h with real threads and sockets of this machine. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env/peer_table.h"
#include "node_fixture.h"

static uint64_t deadline(const struct place *f)
{
    return f->env->ops->monotonic_ns(f->env) + MS(PLACE_WAIT_MS);
}

/* Waits without a busy loop where there is no event to wait for: on a word that nobody wakes. */
static void pause_ms(const struct place *f, unsigned ms)
{
    uint32_t word = 0;

    f->env->ops->wait_word(f->env, &word, 0, MS(ms));
}

/* ------------------------------------------------------------------------------ mirrors */

static void mirror_has_what_the_server_has_and_what_comes(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 40);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 40, PLACE_WAIT_MS, &f->err));
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 40);
    for (unsigned i = 0; i < 20; i++) {
        place_append(f, 1);
        place_await_blocks(f, "b", 40 + i, 41 + i);
    }
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void reader_of_a_mirror_gets_what_it_lacks_when_it_reads_it(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], dir[128];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    struct hw_core *core = NULL;
    struct hw_core_fetcher fetcher = {.fetch = hw_mirror_fetch};

    place_make_log(f);
    place_append(f, 500);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 500, PLACE_WAIT_MS, &f->err));
    (void)snprintf(dir, sizeof(dir), "%s/b", f->dir);
    assert_ok(hw_core_open(f->env, dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    assert_false(hw_core_has(core, 250));
    assert_status(core_log_check(core, 250, &f->err), HW_EMISSING, &f->err);
    fetcher.ctx = mirror;
    hw_core_set_fetcher(core, &fetcher);
    assert_ok(core_log_check(core, 250, &f->err));
    assert_ok(core_log_check(core, 499, &f->err));
    assert_ok(core_log_check(core, 0, &f->err));
    assert_false(hw_core_has(core, 100)); /* and nothing else */
    hw_core_close(core);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static bool keep_late(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= 100;
}

static void block_that_was_pruned_everywhere_is_said_to_be(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    uint64_t freed;

    place_make_log(f);
    for (unsigned i = 0; i < 20; i++)
        place_append(f, 10);
    assert_ok(hw_core_prune(f->core, keep_late, NULL, false, &freed, &f->err));
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 200, PLACE_WAIT_MS, &f->err));
    assert_status(hw_mirror_fetch(mirror, 50, &f->err), HW_EPRUNED, &f->err);
    assert_ok(hw_mirror_fetch(mirror, 150, &f->err));
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void mirror_goes_on_where_it_was_after_a_restart(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_mirror_status status;
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 100);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 100);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);

    place_append(f, 10);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 110);
    hw_mirror_status(mirror, &status);
    assert_int_equal(status.length, 110);
    assert_in_range(status.bytes_received, 1, 10 * 300); /* the new ones alone */
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void tail_may_be_wanted_from_beyond_what_is_known(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_mirror_status status;
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    uint64_t end = deadline(f);

    place_make_log(f);
    place_append(f, 100);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 90); /* before its length is known */
    place_await_blocks(f, "b", 90, 100);
    do {
        hw_mirror_status(mirror, &status);
        pause_ms(f, 1);
    } while (status.wanted != 0 && f->env->ops->monotonic_ns(f->env) < end);
    assert_int_equal(status.wanted, 0);
    hw_mirror_want_tail(mirror, 200); /* nor there yet */
    place_append(f, 1);
    assert_ok(hw_mirror_wait_length(mirror, 101, PLACE_WAIT_MS, &f->err));
    hw_mirror_status(mirror, &status);
    assert_int_equal(status.wanted, 0);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void directory_has_one_mirror_of_one_log(void **state)
{
    struct place *f = *state;
    const char *urls[] = {"tcp://127.0.0.1:1"};
    struct hw_mirror_options options = {0};
    struct hw_hub *first = place_hub(f), *second = place_hub(f);
    struct hw_mirror *mirror, *other = NULL;
    char dir[128];

    place_make_log(f);
    mirror = place_mirror(f, first, "b", urls, 1);
    (void)snprintf(dir, sizeof(dir), "%s/b", f->dir);
    options.dir = dir;
    memcpy(options.key, hw_core_identity(f->core)->key, HW_KEY_SIZE);
    assert_status(hw_hub_mirror_open(second, &options, &other, &f->err), HW_EBUSY, &f->err);
    hw_hub_mirror_close(mirror);
    options.key[0] ^= 1;
    assert_status(hw_hub_mirror_open(second, &options, &other, &f->err), HW_EFORK, &f->err);
    options.dir = f->a;
    assert_status(hw_hub_mirror_open(second, &options, &other, &f->err), HW_EEXIST, &f->err);
    assert_null(other);
    hw_hub_close(second);
    hw_hub_close(first);
}

static void interrupt_ends_a_fetch(void **state)
{
    struct place *f = *state;
    const char *urls[] = {"tcp://127.0.0.1:1"};
    struct hw_hub *client = place_hub(f);
    struct hw_mirror_status status;
    struct hw_mirror *mirror;
    uint64_t end = deadline(f);

    place_make_log(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_interrupt(mirror); /* also one that comes just before */
    assert_status(hw_mirror_fetch(mirror, 0, &f->err), HW_AGAIN, &f->err);
    assert_status(hw_mirror_wait_length(mirror, 1, 50, &f->err), HW_ETIMEOUT, &f->err);
    do {
        hw_mirror_status(mirror, &status);
        pause_ms(f, 1);
    } while (strstr(status.problem, "127.0.0.1:1") == NULL &&
             f->env->ops->monotonic_ns(f->env) < end);
    assert_non_null(strstr(status.problem, "127.0.0.1:1"));
    assert_int_equal(status.connected, 0);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
}

static void sockets_of_this_machine_and_web_sockets_do_as_well(void **state)
{
    struct place *f = *state;
    char urls[2][HW_URL_MAX], ipc[128];
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 300);
    server = place_hub(f);
    assert_ok(hw_hub_serve(server, "a.db", f->a, &f->err));
    (void)snprintf(ipc, sizeof(ipc), "ipc://%s/socket", f->dir);
    assert_ok(hw_hub_listen(server, ipc, urls[0], &f->err));
    assert_ok(hw_hub_listen(server, "ws://127.0.0.1:0/hyper", urls[1], &f->err));
    client = place_hub(f);
    for (unsigned i = 0; i < 2; i++) {
        const char *url = urls[i];

        mirror = place_mirror(f, client, i == 0 ? "b" : "c", &url, 1);
        hw_mirror_want_tail(mirror, 0);
        place_await_blocks(f, i == 0 ? "b" : "c", 0, 300);
        hw_hub_mirror_close(mirror);
    }
    hw_hub_close(client);
    hw_hub_close(server);
}

/* ------------------------------------------------------------------------------ sources */

static void mirror_comes_back_to_a_server_that_was_gone(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], again[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 5);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 5);
    hw_hub_close(server);
    place_append(f, 5);
    server = place_hub(f);
    assert_ok(hw_hub_serve(server, "a.db", f->a, &f->err));
    assert_ok(hw_hub_listen(server, url, again, &f->err));
    assert_string_equal(again, url);
    place_await_blocks(f, "b", 5, 10);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void second_source_serves_on_when_the_first_is_gone(void **state)
{
    struct place *f = *state;
    char url[2][HW_URL_MAX];
    const char *urls[] = {url[0], url[1]};
    struct hw_hub *servers[2], *client;
    struct hw_mirror *mirror;

    place_make_log(f);
    place_append(f, 30);
    servers[0] = place_server(f, url[0]);
    servers[1] = place_server(f, url[1]);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 2);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 30);
    hw_hub_close(servers[0]);
    place_append(f, 30);
    place_await_blocks(f, "b", 30, 60);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(servers[1]);
}

static void mirror_serves_what_it_has_to_another_mirror(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], middle_url[HW_URL_MAX], dir[128];
    const char *urls[] = {url}, *middle_urls[] = {middle_url};
    struct hw_hub *server, *middle, *last;
    struct hw_mirror *mirror, *second;

    place_make_log(f);
    place_append(f, 20);
    server = place_server(f, url);
    middle = place_hub(f);
    mirror = place_mirror(f, middle, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    (void)snprintf(dir, sizeof(dir), "%s/b", f->dir);
    assert_ok(hw_hub_serve(middle, "a.db", dir, &f->err));
    assert_ok(hw_hub_listen(middle, "tcp://127.0.0.1:0", middle_url, &f->err));
    last = place_hub(f);
    second = place_mirror(f, last, "c", middle_urls, 1);
    hw_mirror_want_tail(second, 0);
    assert_ok(hw_mirror_wait_length(second, 20, PLACE_WAIT_MS, &f->err));
    place_await_blocks(f, "c", 0, 20);
    place_append(f, 20);
    place_await_blocks(f, "c", 20, 40);
    hw_hub_close(server); /* what the middle has is there without the first */
    hw_hub_mirror_close(second);
    hw_hub_mirror_close(mirror); /* served on, read-only */
    second = place_mirror(f, last, "d", middle_urls, 1);
    hw_mirror_want_tail(second, 0);
    place_await_blocks(f, "d", 0, 40);
    hw_hub_mirror_close(second);
    hw_hub_close(last);
    hw_hub_close(middle);
}

/* ------------------------------------------------------------------------------- served */

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
    assert_ok(hw_hub_ask(client, &address, PLACE_WAIT_MS, &json, &f->err));
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

/* ------------------------------------------------------------------------------- access */

static void await_counts(struct place *f, struct hw_hub *hub, unsigned peers, uint64_t refused,
                         struct hw_hub_counts *counts)
{
    uint64_t end = deadline(f);

    do {
        hw_hub_counts(hub, counts);
        pause_ms(f, 1);
    } while ((counts->peers != peers || counts->refused < refused) &&
             f->env->ops->monotonic_ns(f->env) < end);
}

static void who_is_not_allowed_is_refused_by_its_key(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *friend, *stranger;
    struct hw_mirror *mirror, *refused;
    struct hw_hub_counts counts;

    place_make_log(f);
    place_append(f, 4);
    server = place_hub(f);
    friend = place_hub(f);
    stranger = place_hub(f);
    assert_status(hw_hub_listen(server, "tcp://0.0.0.0:0", url, &f->err), HW_EREFUSED, &f->err);
    assert_ok(hw_hub_allow(server, hw_hub_identity(friend), &f->err));
    assert_ok(hw_hub_serve(server, "a.db", f->a, &f->err));
    assert_ok(hw_hub_listen(server, "tcp://127.0.0.1:0", url, &f->err));
    refused = place_mirror(f, stranger, "b", urls, 1);
    mirror = place_mirror(f, friend, "c", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "c", 0, 4);
    await_counts(f, server, 1, 1, &counts);
    assert_true(counts.refused >= 1);
    assert_status(hw_mirror_wait_length(refused, 1, 100, &f->err), HW_ETIMEOUT, &f->err);
    hw_hub_mirror_close(refused);
    assert_ok(hw_hub_allow(server, NULL, &f->err));
    refused = place_mirror(f, stranger, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(refused, 4, PLACE_WAIT_MS, &f->err));
    hw_hub_mirror_close(refused);
    hw_hub_mirror_close(mirror);
    hw_hub_close(stranger);
    hw_hub_close(friend);
    hw_hub_close(server);
}

static int connect_raw(const char *url)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10));
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)(void *)&address, sizeof(address)), 0);
    return fd;
}

static void those_who_only_hold_a_place_keep_nobody_out(void **state)
{
    enum { HALF_OPEN = 300 };
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    struct hw_hub_counts counts;
    int fds[HALF_OPEN];

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    for (unsigned i = 0; i < HALF_OPEN; i++)
        fds[i] = connect_raw(url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, 4, PLACE_WAIT_MS, &f->err));
    hw_hub_counts(server, &counts);
    assert_true(counts.strangers <= HW_HUB_STRANGERS_MAX);
    assert_true(counts.refused >= HALF_OPEN - HW_HUB_STRANGERS_MAX);
    for (unsigned i = 0; i < HALF_OPEN; i++)
        (void)close(fds[i]);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void bytes_that_mean_nothing_end_the_connection_alone(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], byte;
    const char *urls[] = {url};
    static const char nonsense[] = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    int fd;

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 4);
    fd = connect_raw(url);
    assert_int_equal(write(fd, nonsense, sizeof(nonsense)), sizeof(nonsense));
    assert_true(read(fd, &byte, 1) <= 0); /* closed by the server */
    (void)close(fd);
    place_append(f, 1);
    place_await_blocks(f, "b", 4, 5);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

static void hub_does_nothing_in_a_forked_child(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    int status;
    pid_t child;

    place_make_log(f);
    place_append(f, 4);
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    hw_mirror_want_tail(mirror, 0);
    place_await_blocks(f, "b", 0, 4);
    child = fork();
    if (child == 0) {
        bool is_right = hw_mirror_fetch(mirror, 0, NULL) == HW_EMISUSE &&
                        hw_hub_serve(server, "c.db", f->a, NULL) == HW_EMISUSE;

        hw_hub_mirror_close(mirror);
        hw_hub_close(client);
        hw_hub_close(server);
        _exit(is_right ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    place_append(f, 4);
    place_await_blocks(f, "b", 4, 8);
    hw_hub_mirror_close(mirror);
    hw_hub_close(client);
    hw_hub_close(server);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(mirror_has_what_the_server_has_and_what_comes),
        TEST(reader_of_a_mirror_gets_what_it_lacks_when_it_reads_it),
        TEST(block_that_was_pruned_everywhere_is_said_to_be),
        TEST(mirror_goes_on_where_it_was_after_a_restart),
        TEST(tail_may_be_wanted_from_beyond_what_is_known),
        TEST(directory_has_one_mirror_of_one_log),
        TEST(interrupt_ends_a_fetch),
        TEST(sockets_of_this_machine_and_web_sockets_do_as_well),
        TEST(mirror_comes_back_to_a_server_that_was_gone),
        TEST(second_source_serves_on_when_the_first_is_gone),
        TEST(mirror_serves_what_it_has_to_another_mirror),
        TEST(log_that_is_made_later_is_served_then),
        TEST(log_that_takes_the_place_of_another_is_served),
        TEST(followers_go_over_to_a_higher_fork),
        TEST(server_answers_what_it_is_asked),
        TEST(followers_confirm_what_they_have),
        TEST(who_is_not_allowed_is_refused_by_its_key),
        TEST(those_who_only_hold_a_place_keep_nobody_out),
        TEST(bytes_that_mean_nothing_end_the_connection_alone),
        TEST(hub_does_nothing_in_a_forked_child),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
