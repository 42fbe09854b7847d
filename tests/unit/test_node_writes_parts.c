/* Tests transactions from afar that are interrupted while their parts are on their way. */
#include "writes_fixture.h"

#include "node/lease.h"

/* Almost 8 MiB, more than a client keeps for sending. */
static const char large[] =
    "UPDATE n SET k = 5; CREATE TABLE large(b); WITH RECURSIVE r(x) AS (VALUES(1) UNION ALL SELECT "
    "x + 1 FROM r WHERE x < 1900) INSERT INTO large SELECT randomblob(4000) FROM r";

struct cut_off {
    struct transaction t;
    struct server *server;
};

/* A server, and a client whose large transaction `next` gives part by part, and interrupts. */
static struct hw_write_answer
commit_amid(struct place *f, struct server *s, struct client *c, struct cut_off *cut,
            enum hw_status (*next)(void *ctx, struct hw_slice *part, struct hw_error *err))
{
    struct hw_write_message commit;

    server_start(f, s, "tcp://127.0.0.1:0");
    client_start(f, c, s, "c");
    client_begin(f, c);
    transaction_make(&cut->t, s->db, large, length_now(s));
    assert_true(cut->t.count > 6);
    commit = message_of(c, &cut->t);
    return hw_mirror_commit(c->mirror, &commit, next, cut, SOON_MS);
}

/* The last part, megabytes behind the first, does not go before the right to write is gone. */
static enum hw_status part_of_the_cut_off(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    static const char rules[] = "read * any\n";
    struct hw_slice text = {(const uint8_t *)rules, sizeof(rules) - 1};
    struct cut_off *cut = ctx;

    if (cut->t.next + 1 == cut->t.count)
        assert_int_equal(hw_hub_set_rules(cut->server->hub, text, err), HW_OK);
    return next_part(&cut->t, body, err);
}

/* It is certain that it is not committed, so this is said, and at once. */
static void who_loses_the_right_amid_the_parts_is_told_what_became_of_them(void **state)
{
    struct server s;
    struct client c;
    struct cut_off cut = {.server = &s};
    struct hw_write_answer answer = commit_amid(*state, &s, &c, &cut, part_of_the_cut_off);

    assert_int_equal(answer.status, HW_WRITE_REFUSED);
    transaction_free(&cut.t);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(value(s.db), 0);
    client_stop(&c);
    server_stop(&s);
}

/* The server cannot have what was never sent: not committed, and no doubt about it. */
static enum hw_status part_of_the_lost(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    struct cut_off *cut = ctx;

    if (cut->t.next == 1)
        hw_hub_close(cut->server->hub);
    return next_part(&cut->t, body, err);
}

static void a_connection_that_ends_amid_the_parts_leaves_no_doubt(void **state)
{
    struct server s;
    struct client c;
    struct cut_off cut = {.server = &s};
    struct hw_write_answer answer = commit_amid(*state, &s, &c, &cut, part_of_the_lost);

    assert_true(cut.t.next < cut.t.count); /* else nobody knows what it has */
    assert_int_equal(answer.status, HW_WRITE_LOST);
    transaction_free(&cut.t);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(value(s.db), 0);
    client_stop(&c);
    assert_int_equal(sqlite3_close(s.db), SQLITE_OK);
}

/* The server's clock, which can go on by itself. */
static struct hw_env late_env; /* as long as the hub that a failed test leaves behind */
static struct hw_env_ops late_ops;
static _Atomic uint64_t late_ns;

static uint64_t late_clock(struct hw_env *env)
{
    return hw_env_posix()->ops->monotonic_ns(env) + atomic_load(&late_ns);
}

struct silent {
    struct cut_off cut;
    struct client *other;
    enum hw_status other_began;
};

/* After the last but one; its own loop stands still meanwhile, as if the machine were gone. */
static enum hw_status part_of_the_silent(void *ctx, struct hw_slice *body, struct hw_error *err)
{
    struct silent *silent = ctx;
    struct client *other = silent->other;
    enum hw_status status = HW_EBUSY;

    if (silent->cut.t.next + 1 < silent->cut.t.count)
        return next_part(&silent->cut.t, body, err);
    for (int i = 0; i < 3 && status == HW_EBUSY; i++) { /* what it sent may still be on its way */
        uint8_t key[HW_KEY_SIZE];

        atomic_fetch_add(&late_ns, MS(HW_LEASE_MS));
        status = hw_hub_resolve(other->hub, &silent->cut.server->address, TIMEOUT_MS, key, err);
        if (status == HW_OK) /* so the server has looked at its clock */
            status = hw_mirror_write_begin(other->mirror, TIMEOUT_MS, 1000, &other->fence,
                                           &other->length, err);
    }
    silent->other_began = status;
    return next_part(&silent->cut.t, body, err);
}

/* However much it sent before. */
static void
who_falls_silent_amid_the_parts_keeps_others_waiting_no_longer_than_a_lease(void **state)
{
    struct place *f = *state;
    struct hw_env *env = f->env;
    struct server s;
    struct client c, other;
    struct silent silent = {.cut = {.server = &s}, .other = &other};
    struct hw_write_message commit;
    struct hw_write_answer answer;

    late_ops = *f->env->ops;
    late_ops.monotonic_ns = late_clock;
    late_env = (struct hw_env){.ops = &late_ops};
    f->env = &late_env;
    server_start(f, &s, "tcp://127.0.0.1:0");
    f->env = env;
    client_start(f, &c, &s, "c");
    client_start(f, &other, &s, "d");
    client_begin(f, &c);
    transaction_make(&silent.cut.t, s.db, large, length_now(&s));
    commit = message_of(&c, &silent.cut.t);
    answer = hw_mirror_commit(c.mirror, &commit, part_of_the_silent, &silent, TIMEOUT_MS);
    assert_int_equal(silent.other_began, HW_OK);
    assert_int_equal(answer.status, HW_WRITE_LOST);
    hw_mirror_write_end(c.mirror);
    answer = client_commit(&s, &other, increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_OK);
    hw_mirror_write_end(other.mirror);
    assert_int_equal(value(s.db), 1);
    transaction_free(&silent.cut.t);
    client_stop(&other);
    client_stop(&c);
    server_stop(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            who_loses_the_right_amid_the_parts_is_told_what_became_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(a_connection_that_ends_amid_the_parts_leaves_no_doubt,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            who_falls_silent_amid_the_parts_keeps_others_waiting_no_longer_than_a_lease, setup,
            teardown),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("writes_parts", tests, NULL, NULL);
}
