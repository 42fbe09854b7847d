/* Tests mirrors and their sources of node/hub.h, with real threads and sockets of this machine. */
#include "node_fixture.h"

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

static bool keep_last(void *ctx, uint64_t index)
{
    (void)ctx;
    return index >= 5000;
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

/* As `hyperwal log` does of a log whose first part is gone. */
static void blocks_that_nobody_has_leave_room_for_others(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirror;
    enum hw_status status;
    uint64_t freed;

    enum { PRUNED = 5000 };
    place_make_log(f);
    place_append(f, PRUNED + 10);
    assert_ok(hw_core_prune(f->core, keep_last, NULL, false, &freed, &f->err));
    server = place_server(f, url);
    client = place_hub(f);
    mirror = place_mirror(f, client, "b", urls, 1);
    assert_ok(hw_mirror_wait_length(mirror, PRUNED + 10, PLACE_WAIT_MS, &f->err));
    for (uint64_t i = 0; i < PRUNED; i++)
        assert_status(hw_mirror_fetch(mirror, i, &f->err), HW_EPRUNED, &f->err);
    assert_ok(hw_mirror_fetch(mirror, PRUNED, &f->err));
    for (uint64_t i = 0; i < PRUNED; i++)
        assert_status(hw_mirror_ask(mirror, i, &f->err), HW_EPRUNED, &f->err);
    status = hw_mirror_ask(mirror, PRUNED + 1, &f->err);
    assert_true(status == HW_OK || status == HW_AGAIN);
    place_await_blocks(f, "b", PRUNED + 1, PRUNED + 2);
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

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(mirror_has_what_the_server_has_and_what_comes),
        TEST(reader_of_a_mirror_gets_what_it_lacks_when_it_reads_it),
        TEST(block_that_was_pruned_everywhere_is_said_to_be),
        TEST(blocks_that_nobody_has_leave_room_for_others),
        TEST(mirror_goes_on_where_it_was_after_a_restart),
        TEST(tail_may_be_wanted_from_beyond_what_is_known),
        TEST(directory_has_one_mirror_of_one_log),
        TEST(interrupt_ends_a_fetch),
        TEST(sockets_of_this_machine_and_web_sockets_do_as_well),
        TEST(mirror_comes_back_to_a_server_that_was_gone),
        TEST(second_source_serves_on_when_the_first_is_gone),
        TEST(mirror_serves_what_it_has_to_another_mirror),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
