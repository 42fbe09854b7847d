/* Tests who may come in to a hub, and who keeps whom out, with real sockets of this machine. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node_fixture.h"

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
    assert_ok(hw_hub_allow(server, HW_RIGHT_READ, "*", hw_hub_identity(friend), &f->err));
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
    assert_ok(hw_hub_allow(server, HW_RIGHT_READ, "*", NULL, &f->err));
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
        TEST(who_is_not_allowed_is_refused_by_its_key),
        TEST(those_who_only_hold_a_place_keep_nobody_out),
        TEST(bytes_that_mean_nothing_end_the_connection_alone),
        TEST(hub_does_nothing_in_a_forked_child),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
