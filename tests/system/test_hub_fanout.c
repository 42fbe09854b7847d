/*
 * Two hundred followers of one log, each over a connection of its own: all get all of it, in
 * bounded memory, and one that does not read holds up nobody.
 */
#include "unit/node_fixture.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FOLLOWERS = 200, BLOCKS = 100, MEMORY_MAX = 400 << 10 /* KiB, of both sides together */ };

static long peak_kib(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

static void two_hundred_followers_hold(void **state)
{
    struct place *f = *state;
    char url[HW_URL_MAX], names[FOLLOWERS][8];
    const char *urls[] = {url};
    struct hw_hub *server, *client;
    struct hw_mirror *mirrors[FOLLOWERS];
    struct hw_hub_counts counts;
    uint64_t began;

    place_make_log(f);
    place_append(f, 10);
    server = place_server(f, url);
    client = place_hub(f);
    for (unsigned i = 0; i < FOLLOWERS; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "f%u", i);
        mirrors[i] = place_mirror(f, client, names[i], urls, 1);
        hw_mirror_want_tail(mirrors[i], 0);
    }
    for (unsigned i = 0; i < FOLLOWERS; i++)
        place_await_blocks(f, names[i], 0, 10);
    hw_hub_counts(server, &counts);
    assert_int_equal(counts.links, FOLLOWERS);
    began = f->env->ops->monotonic_ns(f->env);
    for (unsigned i = 0; i < BLOCKS; i++)
        place_append(f, 1);
    for (unsigned i = 0; i < FOLLOWERS; i++)
        place_await_blocks(f, names[i], 10, 10 + BLOCKS);
    print_message("# %d blocks reached %d followers within %llu ms; peak %ld MiB\n", BLOCKS,
                  FOLLOWERS,
                  (unsigned long long)(f->env->ops->monotonic_ns(f->env) - began) / 1000000,
                  peak_kib() / 1024);
    hw_hub_counts(server, &counts);
    assert_int_equal(counts.dropped, 0);
    assert_true(peak_kib() < MEMORY_MAX);
    for (unsigned i = 0; i < FOLLOWERS; i++)
        hw_hub_mirror_close(mirrors[i]);
    hw_hub_close(client);
    hw_hub_close(server);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
    const struct CMUnitTest tests[] = {
        TEST(two_hundred_followers_hold),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
