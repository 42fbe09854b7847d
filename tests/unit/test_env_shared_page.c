/* Tests env/shared_page.h: between processes made by fork, and on the simulated disk. */
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

#include "env/shared_page.h"
#include "env/thread.h"
#include "sim/sim.h"

struct world {
    struct sim *sim;
    struct hw_env *env;
    struct hw_shared_page *page;
};

static int setup(void **state)
{
    static struct world world;

    world = (struct world){.sim = sim_new(0)};
    world.env = sim_env(world.sim);
    if (world.env->ops->make_dir(world.env, "/log", NULL) != HW_OK ||
        hw_shared_page_open(world.env, "/log", true, &world.page, NULL) != HW_OK)
        return -1;
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    struct world *world = *state;

    hw_shared_page_close(world->page);
    sim_free(world->sim);
    return 0;
}

static struct hw_shared_page *open_again(struct world *world)
{
    struct hw_shared_page *page = NULL;

    assert_int_equal(hw_shared_page_open(world->env, "/log", true, &page, NULL), HW_OK);
    return page;
}

/* A process without descriptors must not take it for one of another boot, and begin it anew. */
static void a_page_whose_boot_cannot_be_told_stays_as_it_is(void **state)
{
    struct sim_fault fault = {
        .kind = SIM_EMFILE, .operations = SIM_OPEN, .path = "boot_id", .at = 1, .for_ever = true};
    struct world *world = *state;
    struct hw_shared_page *page = NULL;
    struct hw_error err = {0};

    hw_shared_set_durable_length(world->page, 7);
    hw_shared_set_worker(world->page, 42);
    sim_set_fault(world->sim, &fault);
    assert_int_equal(hw_shared_page_open(world->env, "/log", true, &page, &err), HW_EIO);
    assert_non_null(strstr(err.message, "boot_id"));
    sim_set_fault(world->sim, NULL);
    assert_int_equal(hw_shared_durable_length(world->page), 7);
    assert_int_equal(hw_shared_worker(world->page), 42);
    page = open_again(world);
    assert_int_equal(hw_shared_durable_length(page), 7);
    hw_shared_page_close(page);
}

static void new_page_knows_nothing(void **state)
{
    struct hw_shared_page *page = ((struct world *)*state)->page;
    char text[HW_SHARED_TEXT_SIZE];
    static const uint8_t salts[8] = {1};

    assert_int_equal(hw_shared_durable_length(page), 0);
    assert_true(hw_shared_position(page).seq == UINT64_MAX);
    assert_true(hw_shared_applied_seq(page) == UINT64_MAX);
    assert_int_equal(hw_shared_wal_synced(page, salts), 0);
    assert_int_equal(hw_shared_worker(page), 0);
    assert_false(hw_shared_is_wanted(page));
    assert_int_equal(hw_mailbox_posted(page), 0);
    hw_shared_alarm(page, text);
    assert_string_equal(text, "");
}

static void second_mapping_sees_what_the_first_wrote(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *other = open_again(world);
    struct hw_shared_position position = {.salts = {9, 8, 7}, .frame = 12, .seq = 34};
    char text[HW_SHARED_TEXT_SIZE];
    uint32_t news = hw_shared_wake_count(other);

    hw_shared_set_durable_length(world->page, 77);
    hw_shared_set_position(world->page, &position);
    hw_shared_set_wal_synced(world->page, position.salts, 4152);
    hw_shared_set_applied_seq(world->page, 5);
    hw_shared_set_alarm(world->page, "disk full");
    assert_int_equal(hw_shared_durable_length(other), 77);
    assert_int_equal(hw_shared_position(other).frame, 12);
    assert_int_equal(hw_shared_position(other).seq, 34);
    assert_memory_equal(hw_shared_position(other).salts, position.salts, 8);
    assert_int_equal(hw_shared_wal_synced(other, position.salts), 4152);
    assert_int_equal(hw_shared_wal_synced(other, (const uint8_t[8]){1}), 0);
    assert_int_equal(hw_shared_applied_seq(other), 5);
    assert_int_not_equal(hw_shared_wake_count(other), news);
    hw_shared_alarm(other, text);
    assert_string_equal(text, "disk full");
    hw_shared_page_close(other);
}

static void fork_that_ended_is_not_signed_any_more(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *other = open_again(world);
    uint32_t count = hw_shared_work_count(world->page);

    assert_true(hw_shared_may_sign(world->page, 0));
    hw_shared_end_fork(other, 2);
    hw_shared_end_fork(other, 1); /* less than what is known */
    assert_true(hw_shared_work_count(world->page) != count);
    assert_false(hw_shared_may_sign(world->page, 0));
    assert_false(hw_shared_may_sign(world->page, 2));
    assert_true(hw_shared_may_sign(world->page, 3));
    hw_shared_page_close(other);
}

static void page_of_another_boot_is_made_anew(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *page = NULL;

    hw_shared_set_durable_length(world->page, 77);
    hw_shared_page_close(world->page);
    world->page = NULL;
    assert_int_equal(world->env->ops->sync_dir(world->env, "/log", NULL), HW_OK);
    assert_int_equal(world->env->ops->sync_dir(world->env, "/", NULL), HW_OK);
    sim_crash(world->sim, SIM_KEEP);
    assert_int_equal(hw_shared_page_open(world->env, "/log", false, &page, NULL), HW_ENOTFOUND);
    world->page = open_again(world);
    assert_int_equal(hw_shared_durable_length(world->page), 0);
}

static void page_survives_a_killed_process(void **state)
{
    struct world *world = *state;

    hw_shared_set_durable_length(world->page, 77);
    sim_kill(world->sim, SIM_ALL_PROCESSES);
    hw_shared_set_durable_length(world->page, 99); /* the dead write into the void */
    hw_shared_page_close(world->page);
    world->page = open_again(world);
    assert_int_equal(hw_shared_durable_length(world->page), 77);
}

static void garbage_in_the_file_is_not_believed(void **state)
{
    struct world *world = *state;
    uint8_t garbage[HW_SHARED_PAGE_SIZE];

    hw_shared_page_close(world->page);
    world->page = NULL;
    sim_kill(world->sim, SIM_ALL_PROCESSES);
    sim_file_remove(world->sim, "/log/shared");
    for (size_t size = 0; size <= sizeof(garbage); size += 512) {
        memset(garbage, 0xa5, sizeof(garbage));
        sim_file_put(world->sim, "/log/shared", garbage, size);
        world->page = open_again(world);
        assert_int_equal(hw_shared_durable_length(world->page), 0);
        hw_shared_page_close(world->page);
        world->page = NULL;
        sim_file_remove(world->sim, "/log/shared");
    }
}

static void open_that_fails_leaves_nothing_open(void **state)
{
    struct world *world = *state;

    for (uint64_t at = 1;; at++) {
        struct sim_fault fault = {.kind = SIM_ENOMEM, .at = at};
        struct hw_shared_page *page = NULL;
        enum hw_status status;

        sim_set_fault(world->sim, &fault);
        status = hw_shared_page_open(world->env, "/log", true, &page, NULL);
        sim_set_fault(world->sim, NULL);
        assert_int_equal(sim_open_handles(world->sim), 0);
        if (!sim_fault_was_reached(world->sim)) {
            assert_int_equal(status, HW_OK);
            hw_shared_page_close(page);
            break;
        }
        assert_int_equal(status, HW_ENOMEM);
        assert_null(page);
    }
}

static void letter_is_answered_once(void **state)
{
    struct hw_shared_page *page = ((struct world *)*state)->page;
    struct hw_request request = {.kind = 3, .argument = 44, .text = "label"}, taken;
    struct hw_answer answer = {.status = HW_ENOTFOUND, .result = 55, .text = "no"}, got;
    uint64_t mail, worker_mail;

    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_END);
    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_OK);
    assert_int_equal(hw_mailbox_collect(page, mail, &got), HW_AGAIN);
    assert_int_not_equal(hw_mailbox_posted(page), 0);
    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_OK);
    assert_int_equal(taken.kind, 3);
    assert_int_equal(taken.argument, 44);
    assert_string_equal(taken.text, "label");
    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_END);
    hw_mailbox_answer(page, worker_mail, &answer);
    assert_int_equal(hw_mailbox_collect(page, mail, &got), HW_OK);
    assert_int_equal(got.status, HW_ENOTFOUND);
    assert_int_equal(got.result, 55);
    assert_string_equal(got.text, "no");
    assert_int_equal(hw_mailbox_collect(page, mail, &got), HW_END);
}

static void letter_taken_by_a_dead_worker_is_delivered_again(void **state)
{
    struct hw_shared_page *page = ((struct world *)*state)->page;
    struct hw_request request = {.kind = 3}, taken;
    uint64_t mail, worker_mail;

    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_OK);
    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_OK);
    hw_mailbox_repost(page);
    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_OK);
    assert_int_equal(worker_mail, mail);
}

static void mailbox_is_bounded_and_slots_of_the_dead_come_back(void **state)
{
    struct world *world = *state;
    struct hw_request request = {.kind = 1};
    uint64_t deadline = world->env->ops->monotonic_ns(world->env) + 1000000000;
    uint64_t mail;
    int count = 0;

    while (hw_mailbox_post(world->page, &request, deadline, &mail) == HW_OK)
        assert_true(++count < 100);
    assert_true(count >= 2);
    sim_advance(world->sim, 2000000000);
    assert_int_equal(hw_mailbox_post(world->page, &request, UINT64_MAX, &mail), HW_OK);
}

/* Those who ask are killed before they have their answers. */
static void answers_that_nobody_fetches_keep_nobody_out(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *page = world->page;
    struct hw_request request = {.kind = 1, .text = "first"}, taken;
    struct hw_answer answer = {.result = 7}, got;
    uint64_t first, mail, worker_mail;

    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &first), HW_OK);
    while (hw_mailbox_post(page, &request, UINT64_MAX, &mail) == HW_OK)
        continue;
    while (hw_mailbox_take(page, &taken, &worker_mail) == HW_OK)
        hw_mailbox_answer(page, worker_mail, &answer);
    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_AGAIN);
    sim_advance(world->sim, HW_MAILBOX_ABANDONED_MS * UINT64_C(1000000) + 1000000);
    (void)snprintf(request.text, sizeof(request.text), "second");
    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_OK);
    /* Who was only stopped for so long finds no answer, and does not take one that is another's. */
    assert_int_equal(hw_mailbox_collect(page, first, &got), HW_END);
    hw_mailbox_cancel(page, first);
    assert_int_equal(hw_mailbox_take(page, &taken, &worker_mail), HW_OK);
    assert_int_equal(worker_mail, mail);
    assert_string_equal(taken.text, "second");
    hw_mailbox_answer(page, first, &answer);
    assert_int_equal(hw_mailbox_collect(page, mail, &got), HW_AGAIN);
    answer.result = 8;
    hw_mailbox_answer(page, worker_mail, &answer);
    assert_int_equal(hw_mailbox_collect(page, first, &got), HW_END);
    assert_int_equal(hw_mailbox_collect(page, mail, &got), HW_OK);
    assert_int_equal(got.result, 8);
}

/* The worker is slow, who asked gives up, and the slot is another's meanwhile. */
static void late_answer_does_not_change_another_letter(void **state)
{
    struct hw_shared_page *page = ((struct world *)*state)->page;
    struct hw_request request = {.kind = 1, .text = "first"}, taken;
    struct hw_answer answer = {.text = "late"}, got;
    uint64_t first, second, first_taken, second_taken;

    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &first), HW_OK);
    assert_int_equal(hw_mailbox_take(page, &taken, &first_taken), HW_OK);
    hw_mailbox_cancel(page, first);
    (void)snprintf(request.text, sizeof(request.text), "second");
    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &second), HW_OK);
    hw_mailbox_answer(page, first_taken, &answer);
    assert_int_equal(hw_mailbox_take(page, &taken, &second_taken), HW_OK);
    assert_string_equal(taken.text, "second");
    hw_mailbox_answer(page, first_taken, &answer);
    assert_int_equal(hw_mailbox_collect(page, second, &got), HW_AGAIN);
}

static void cancelled_letter_is_not_delivered(void **state)
{
    struct hw_shared_page *page = ((struct world *)*state)->page;
    struct hw_request request = {.kind = 1}, taken;
    uint64_t mail;

    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_OK);
    hw_mailbox_cancel(page, mail);
    assert_int_equal(hw_mailbox_take(page, &taken, &mail), HW_END);
}

/* A worker that comes late finds the letters of those who died, or does not see a cancel. */
static void letter_past_its_deadline_is_not_delivered(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *page = world->page;
    uint64_t deadline = world->env->ops->monotonic_ns(world->env) + 1000000000;
    struct hw_request request = {.kind = 1, .text = "late"}, taken;
    struct hw_answer got;
    uint64_t first, second, mail;

    assert_int_equal(hw_mailbox_post(page, &request, deadline, &first), HW_OK);
    assert_int_equal(hw_mailbox_take(page, &taken, &mail), HW_OK);
    assert_true(hw_mailbox_is_wanted(page, first));
    assert_int_equal(hw_mailbox_post(page, &request, deadline, &second), HW_OK);
    assert_false(hw_mailbox_is_wanted(page, second)); /* not taken */
    sim_advance(world->sim, 2000000000);
    assert_false(hw_mailbox_is_wanted(page, first));
    hw_mailbox_repost(page);
    (void)snprintf(request.text, sizeof(request.text), "in time");
    assert_int_equal(hw_mailbox_post(page, &request, UINT64_MAX, &mail), HW_OK);
    assert_int_equal(hw_mailbox_take(page, &taken, &mail), HW_OK);
    assert_string_equal(taken.text, "in time");
    assert_int_equal(hw_mailbox_take(page, &taken, &mail), HW_END);
    assert_int_equal(hw_mailbox_posted(page), 0);
    assert_int_equal(hw_mailbox_collect(page, first, &got), HW_END);
    assert_int_equal(hw_mailbox_collect(page, second, &got), HW_END);
}

static void private_page_needs_no_file(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *page = NULL;
    uint64_t before = sim_operation_count(world->sim);

    assert_int_equal(hw_shared_page_open(world->env, NULL, true, &page, NULL), HW_OK);
    hw_shared_set_durable_length(page, 3);
    assert_int_equal(hw_shared_durable_length(page), 3);
    hw_shared_page_close(page);
    assert_int_equal(sim_operation_count(world->sim), before);
}

/* ------------------------------------------------------------------------ bell and waits */

static uint64_t bell_changed_ns(struct world *world)
{
    struct hw_file_stat stat;
    enum hw_status status = world->env->ops->stat(world->env, "/log/bell", &stat, NULL);

    assert_true(status == HW_OK || status == HW_ENOTFOUND);
    return status == HW_OK ? (uint64_t)stat.modified_ns : 0;
}

/* Does what the mapping `page` did write to the bell? */
static bool has_rung(struct world *world, uint64_t *last)
{
    uint64_t now = bell_changed_ns(world);
    bool rung = now != *last;

    *last = now;
    sim_advance(world->sim, 10000000);
    return rung;
}

static void bell_rings_from_the_first_watch_on(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *watcher = open_again(world);
    uint64_t last = 0;

    hw_shared_set_durable_length(world->page, 1);
    assert_false(has_rung(world, &last));
    assert_int_equal(hw_shared_watch(watcher, NULL), HW_OK);
    assert_true(has_rung(world, &last)); /* the file is there: it can be watched */
    hw_shared_page_close(watcher);
    for (uint64_t length = 2; length < 5; length++) {
        hw_shared_set_durable_length(world->page, length);
        assert_true(has_rung(world, &last));
    }
    hw_shared_set_applied_seq(world->page, 5); /* nothing that a server sends on */
    assert_false(has_rung(world, &last));
}

static void bell_that_cannot_be_rung_does_no_harm(void **state)
{
    struct world *world = *state;
    uint64_t last = 0;

    assert_int_equal(hw_shared_watch(world->page, NULL), HW_OK);
    (void)has_rung(world, &last);
    for (unsigned operation = SIM_OPEN; operation <= SIM_WRITE; operation <<= 1) {
        struct sim_fault fault = {.kind = SIM_EIO, .operations = operation, .at = 1};
        struct hw_shared_page *other = open_again(world);

        sim_set_fault(world->sim, &fault);
        hw_shared_set_durable_length(other, operation);
        sim_set_fault(world->sim, NULL);
        assert_int_equal(hw_shared_durable_length(world->page), operation);
        hw_shared_set_durable_length(other, operation);
        assert_true(has_rung(world, &last));
        hw_shared_page_close(other);
    }
}

static void page_without_a_directory_has_no_bell(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *page = NULL;

    assert_int_equal(hw_shared_page_open(world->env, NULL, true, &page, NULL), HW_OK);
    assert_int_equal(hw_shared_watch(page, NULL), HW_EMISUSE);
    hw_shared_set_durable_length(page, 3);
    hw_shared_page_close(page);
}

static void wait_for_followers_is_told_once_and_stays_known_a_while(void **state)
{
    struct world *world = *state;
    struct hw_shared_page *server = open_again(world);
    uint64_t last = 0, since, again;

    assert_int_equal(hw_shared_remote_wait(server, &since), 0);
    assert_int_equal(hw_shared_watch(server, NULL), HW_OK);
    (void)has_rung(world, &last);
    sim_advance(world->sim, 2000000000);
    hw_shared_set_remote_wait(world->page, 1);
    assert_true(has_rung(world, &last));
    assert_int_equal(hw_shared_remote_wait(server, &since), 1);
    hw_shared_set_remote_wait(world->page, 1);
    assert_false(has_rung(world, &last)); /* the server knows */
    assert_int_equal(hw_shared_remote_wait(server, &again), 1);
    assert_true(again > since);
    hw_shared_set_remote_wait(world->page, 2);
    assert_true(has_rung(world, &last));
    hw_shared_set_remote_wait(world->page, 1);
    assert_int_equal(hw_shared_remote_wait(server, &since), 2); /* both wait */
    sim_advance(world->sim, 2000000000);
    hw_shared_set_remote_wait(world->page, 1);
    assert_int_equal(hw_shared_remote_wait(server, &since), 1); /* that one is over */
    hw_shared_set_remote_wait(world->page, 0);
    assert_int_equal(hw_shared_remote_wait(server, &since), 0);
    hw_shared_page_close(server);
}

/* ------------------------------------------------------------------------ real processes */

enum { ROUNDS = 2000 };

static void *count_commits(void *ctx)
{
    struct hw_shared_page *page = ctx;

    for (int i = 0; i < ROUNDS; i++)
        hw_shared_commit(page);
    return NULL;
}

static bool has_all(void *ctx)
{
    return hw_shared_commits(ctx) >= 2 * (uint64_t)ROUNDS;
}

/* Without the second look at the count this sleeps for ever now and then. */
static void worker_that_sleeps_hears_every_commit(void **state)
{
    struct hw_shared_page *page = NULL;
    struct hw_thread threads[2];

    (void)state;
    assert_int_equal(hw_shared_page_open(hw_env_posix(), NULL, true, &page, NULL), HW_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(hw_thread_start(&threads[i], count_commits, page, NULL), HW_OK);
    while (!has_all(page)) {
        uint32_t seen = hw_shared_work_count(page);

        hw_shared_worker_sleep(page, seen, has_all, page, UINT64_MAX);
    }
    for (int i = 0; i < 2; i++)
        hw_thread_join(&threads[i]);
    assert_int_equal(hw_shared_commits(page), 2 * ROUNDS);
    hw_shared_page_close(page);
}

static void *want_when_asked(void *ctx)
{
    struct hw_shared_page *page = ctx;

    for (uint64_t length = 0; length < ROUNDS; length++) {
        while (hw_shared_durable_length(page) < length)
            hw_shared_wait(page, hw_shared_wake_count(page), 1000000);
        hw_shared_want_length(page, length);
    }
    return NULL;
}

/* A follower that was busy when the worker looked must not wait for the end of the delay. */
static void worker_that_delays_hears_who_waits(void **state)
{
    struct hw_env *env = hw_env_posix();
    uint64_t start = env->ops->monotonic_ns(env), minute = 60000000000;
    struct hw_shared_page *page = NULL;
    struct hw_thread thread;

    (void)state;
    assert_int_equal(hw_shared_page_open(env, NULL, true, &page, NULL), HW_OK);
    assert_int_equal(hw_thread_start(&thread, want_when_asked, page, NULL), HW_OK);
    for (uint64_t length = 1; length <= ROUNDS; length++) {
        uint32_t seen = hw_shared_work_count(page);

        while (!hw_shared_is_wanted(page)) {
            hw_shared_worker_sleep(page, seen, NULL, NULL, minute);
            seen = hw_shared_work_count(page);
        }
        hw_shared_set_durable_length(page, length);
    }
    hw_thread_join(&thread);
    assert_true(env->ops->monotonic_ns(env) - start < minute);
    hw_shared_page_close(page);
}

static void child_follows_the_length(struct hw_env *env, const char *dir)
{
    struct hw_shared_page *page = NULL;
    uint64_t length = 0;

    (void)alarm(60); /* a reader that nobody wakes ends, and the test fails */
    if (hw_shared_page_open(env, dir, false, &page, NULL) != HW_OK)
        _exit(1);
    while (length < ROUNDS) {
        uint32_t seen = hw_shared_wake_count(page);
        uint64_t now = hw_shared_durable_length(page);

        if (now < length)
            _exit(2);
        if (now == length)
            hw_shared_wait(page, seen, UINT64_MAX);
        length = now;
    }
    _exit(0);
}

static void reader_in_another_process_sees_the_length_grow(void **state)
{
    struct hw_env *env = hw_env_posix();
    struct hw_shared_page *page = NULL;
    const char *base = getenv("TMPDIR");
    char dir[200], path[256];
    int status;
    pid_t child;

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/hw-page-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(hw_shared_page_open(env, dir, true, &page, NULL), HW_OK);
    child = fork();
    if (child == 0)
        child_follows_the_length(env, dir);
    for (uint64_t length = 1; length <= ROUNDS; length++)
        hw_shared_set_durable_length(page, length);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hw_shared_page_close(page);
    (void)snprintf(path, sizeof(path), "%s/shared", dir);
    assert_int_equal(env->ops->remove(env, path, NULL), HW_OK);
    assert_int_equal(env->ops->remove_dir(env, dir, NULL), HW_OK);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(new_page_knows_nothing),
        TEST(a_page_whose_boot_cannot_be_told_stays_as_it_is),
        TEST(second_mapping_sees_what_the_first_wrote),
        TEST(fork_that_ended_is_not_signed_any_more),
        TEST(page_of_another_boot_is_made_anew),
        TEST(page_survives_a_killed_process),
        TEST(garbage_in_the_file_is_not_believed),
        TEST(open_that_fails_leaves_nothing_open),
        TEST(letter_is_answered_once),
        TEST(letter_taken_by_a_dead_worker_is_delivered_again),
        TEST(mailbox_is_bounded_and_slots_of_the_dead_come_back),
        TEST(answers_that_nobody_fetches_keep_nobody_out),
        TEST(late_answer_does_not_change_another_letter),
        TEST(cancelled_letter_is_not_delivered),
        TEST(letter_past_its_deadline_is_not_delivered),
        TEST(private_page_needs_no_file),
        TEST(bell_rings_from_the_first_watch_on),
        TEST(bell_that_cannot_be_rung_does_no_harm),
        TEST(page_without_a_directory_has_no_bell),
        TEST(wait_for_followers_is_told_once_and_stays_known_a_while),
        cmocka_unit_test(worker_that_sleeps_hears_every_commit),
        cmocka_unit_test(worker_that_delays_hears_who_waits),
        cmocka_unit_test(reader_in_another_process_sees_the_length_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
