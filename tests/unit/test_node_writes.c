/* Tests writing from afar through hubs: a server with a database, clients with mirrors of it. */
#include "writes_fixture.h"

#include <pthread.h>

#include "node/lease.h"

static void a_lone_writer_commits_again_and_again_under_one_lease(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    uint64_t fence = 0, seq = 0;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    for (unsigned i = 1; i <= 20; i++) {
        struct hw_write_answer answer;

        client_begin(f, &c);
        assert_true(fence == 0 || c.fence == fence);
        fence = c.fence;
        answer = client_commit(&s, &c, increment, NULL);
        if (answer.status != HW_WRITE_OK)
            fail_msg("%u: %s", (unsigned)answer.status, answer.text);
        assert_true(answer.seq > seq);
        seq = answer.seq;
        assert_ok(hw_mirror_wait_length(c.mirror, seq + 1, TIMEOUT_MS, &f->err));
        hw_mirror_write_end(c.mirror);
        assert_int_equal(value(s.db), i);
    }
    client_stop(&c);
    server_stop(&s);
}

static void large_transactions_come_in_parts_and_through_a_file(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_write_answer answer;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    answer = client_commit(&s, &c,
                           "CREATE TABLE large(b); WITH RECURSIVE r(x) AS (VALUES(1) UNION ALL "
                           "SELECT x + 1 FROM r WHERE x < 700) INSERT INTO large SELECT "
                           "randomblob(4000) FROM r",
                           NULL);
    if (answer.status != HW_WRITE_OK)
        fail_msg("%u: %s", (unsigned)answer.status, answer.text);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(sqlite3_exec(s.db, "PRAGMA integrity_check", NULL, NULL, NULL), SQLITE_OK);
    client_stop(&c);
    server_stop(&s);
}

static void a_lease_goes_from_one_client_to_the_next_when_it_is_wanted(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c[2];

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c[0], &s, "c");
    client_start(f, &c[1], &s, "d");
    for (unsigned i = 0; i < 10; i++) {
        struct client *one = &c[i % 2];
        struct hw_write_answer answer;

        client_begin(f, one);
        answer = client_commit(&s, one, increment, NULL);
        if (answer.status != HW_WRITE_OK)
            fail_msg("%u: %s", (unsigned)answer.status, answer.text);
        hw_mirror_write_end(one->mirror);
    }
    assert_int_equal(value(s.db), 10);
    assert_true(c[0].fence != c[1].fence);
    client_stop(&c[0]);
    client_stop(&c[1]);
    server_stop(&s);
}

/* A local writer is quicker. */
static void client_is_late(struct place *f, struct server *s, struct client *c,
                           struct hw_origin *id)
{
    struct hw_write_message commit = {.type = HW_WRITE_COMMIT};
    struct hw_write_answer answer;
    struct transaction t;

    client_begin(f, c);
    transaction_make(&t, s->db, increment, length_now(s));
    commit.id =
        hw_origin_make(c->fence, hw_origin_base(&t.commit.origin), c->key, (const uint8_t *)"luck");
    commit.sum_before = t.commit.sum_before;
    commit.sum_after = t.commit.sum_after;
    commit.page_count = t.commit.page_count;
    commit.part_count = t.count;
    assert_int_equal(sqlite3_exec(s->db, increment, NULL, NULL, NULL), SQLITE_OK);
    answer = hw_mirror_commit(c->mirror, &commit, next_part, &t, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_STALE);
    hw_mirror_write_end(c->mirror);
    transaction_free(&t);
    if (id != NULL)
        *id = commit.id;
}

/* Nobody could say later what became of it: it is refused before it is written. */
static void a_transaction_with_the_id_of_another_log_is_refused(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct transaction t;
    struct hw_write_message commit;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    transaction_make(&t, s.db, increment, length_now(&s));
    commit = message_of(&c, &t);
    commit.id.bytes[16] ^= 1;
    assert_int_equal(hw_mirror_commit(c.mirror, &commit, next_part, &t, TIMEOUT_MS).status,
                     HW_WRITE_INVALID);
    assert_int_equal(value(s.db), 0);
    hw_mirror_write_end(c.mirror);
    transaction_free(&t);
    client_begin(f, &c);
    assert_int_equal(client_commit(&s, &c, increment, NULL).status, HW_WRITE_OK);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(value(s.db), 1);
    client_stop(&c);
    server_stop(&s);
}

static void whoever_is_late_is_told_so_and_commits_with_the_next_try(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_origin id;
    struct hw_write_answer answer;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_is_late(f, &s, &c, &id);
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    client_begin(f, &c);
    answer = client_commit(&s, &c, increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_OK);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(value(s.db), 2);
    client_stop(&c);
    server_stop(&s);
}

/* As serve does it beside an application. */
static void touch(struct server *s)
{
    struct hw_error err;

    assert_int_equal(sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(hw_vfs_logged(s->db, TIMEOUT_MS, &err), HW_OK);
    assert_int_equal(hw_vfs_touch(s->db, &err), HW_OK);
    assert_int_not_equal(sqlite3_get_autocommit(s->db), 0);
    assert_int_equal(hw_vfs_touch(s->db, &err), HW_EMISUSE); /* it has no lock */
}

static void commits_that_change_nothing_make_nobody_late(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_write_message commit;
    struct hw_write_answer answer, asked;
    struct transaction t;
    uint64_t base;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    base = length_now(&s);
    transaction_make(&t, s.db, increment, base);
    commit = message_of(&c, &t);
    touch(&s);
    touch(&s);
    answer = hw_mirror_commit(c.mirror, &commit, next_part, &t, TIMEOUT_MS);
    if (answer.status != HW_WRITE_OK)
        fail_msg("%u: %s", (unsigned)answer.status, answer.text);
    assert_true(answer.seq > base + 1);
    hw_mirror_write_end(c.mirror);
    asked = hw_mirror_outcome(c.mirror, &commit.id, TIMEOUT_MS);
    assert_int_equal(asked.status, HW_WRITE_OK);
    assert_int_equal(asked.seq, answer.seq);
    transaction_free(&t);
    assert_int_equal(value(s.db), 1);
    /* But what was changed and changed back was changed. */
    client_begin(f, &c);
    transaction_make(&t, s.db, increment, length_now(&s));
    commit = message_of(&c, &t);
    assert_int_equal(sqlite3_exec(s.db, "UPDATE n SET k = 7", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(s.db, "UPDATE n SET k = 1", NULL, NULL, NULL), SQLITE_OK);
    answer = hw_mirror_commit(c.mirror, &commit, next_part, &t, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_STALE);
    hw_mirror_write_end(c.mirror);
    transaction_free(&t);
    client_stop(&c);
    server_stop(&s);
}

static void what_became_of_a_transaction_can_be_asked_after_the_server_came_back(void **state)
{
    struct place *f = *state;
    struct hw_origin id, other;
    struct server s;
    struct client c;
    struct hw_write_answer answer;
    char url[HW_URL_MAX];
    uint64_t seq, fence;

    server_start(f, &s, "tcp://127.0.0.1:0");
    memcpy(url, s.url, sizeof(url));
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    answer = client_commit(&s, &c, increment, &id);
    assert_int_equal(answer.status, HW_WRITE_OK);
    seq = answer.seq;
    fence = c.fence;
    hw_mirror_write_end(c.mirror);
    other = id;
    other.bytes[HW_ORIGIN_SIZE - 1] ^= 1;
    server_stop(&s);
    server_start(f, &s, url);
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_OK);
    assert_int_equal(answer.seq, seq);
    answer = hw_mirror_outcome(c.mirror, &other, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    client_begin(f, &c);
    assert_true(c.fence > fence); /* also across a restart */
    hw_mirror_write_end(c.mirror);
    client_stop(&c);
    server_stop(&s);
}

/* A hub that serves the same database beside the server's. */
static void second_server_start(struct place *f, struct server *s, const struct server *first)
{
    char dir[160];

    *s = *first;
    (void)snprintf(dir, sizeof(dir), "%s-hyper", s->path);
    s->hub = place_hub(f);
    assert_ok(hw_hub_allow(s->hub, HW_RIGHT_READ | HW_RIGHT_WRITE, "*", NULL, &f->err));
    assert_ok(hw_hub_serve(s->hub, "app.db", dir, &f->err));
    assert_ok(hw_hub_take_writes(s->hub, "app.db", s->path, vfs_name, &f->err));
    assert_ok(hw_hub_listen(s->hub, "tcp://127.0.0.1:0", s->url, &f->err));
    place_address(f, s->url, "app.db", &s->address);
}

/* Also if the other server had it all along, and its lease is good. */
static void what_one_server_says_is_not_committed_no_other_one_commits(void **state)
{
    struct place *f = *state;
    struct server s, second;
    struct client c, asks;
    struct transaction t;
    struct hw_write_message commit;
    struct hw_write_answer answer;

    server_start(f, &s, "tcp://127.0.0.1:0");
    second_server_start(f, &second, &s);
    client_start(f, &c, &s, "c");
    client_start(f, &asks, &second, "d");
    client_begin(f, &c);
    transaction_make(&t, s.db, increment, length_now(&s));
    commit = message_of(&c, &t);
    answer = hw_mirror_outcome(asks.mirror, &commit.id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    answer = hw_mirror_commit(c.mirror, &commit, next_part, &t, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_STALE);
    hw_mirror_write_end(c.mirror);
    transaction_free(&t);
    answer = hw_mirror_outcome(asks.mirror, &commit.id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    client_begin(f, &c);
    answer = client_commit(&s, &c, increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_OK);
    hw_mirror_write_end(c.mirror);
    assert_int_equal(value(s.db), 1);
    client_stop(&asks);
    client_stop(&c);
    hw_hub_close(second.hub);
    server_stop(&s);
}

/* All bytes of a file from `offset` on, put at the same offset of another one. */
static void copy_from(const char *from, const char *to, long offset)
{
    char bytes[4096];
    size_t size;
    FILE *in = fopen(from, "rb"), *out = fopen(to, offset == 0 ? "wb" : "r+b");

    assert_non_null(in);
    assert_non_null(out);
    assert_int_equal(fseek(in, offset, SEEK_SET), 0);
    assert_int_equal(fseek(out, offset, SEEK_SET), 0);
    while ((size = fread(bytes, 1, sizeof(bytes), in)) > 0)
        assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(in), 0);
    assert_int_equal(fclose(out), 0);
}

/* A copy of the database and its WAL as they are now, which SQLite recovers. */
static sqlite3 *recovered(const struct server *s, const char *path)
{
    char wal[160], to[160];
    sqlite3 *db = NULL;

    (void)snprintf(wal, sizeof(wal), "%s-wal", s->path);
    (void)snprintf(to, sizeof(to), "%s-wal", path);
    copy_from(s->path, path, 0);
    copy_from(wal, to, 0);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    return db;
}

/* Its writer was killed when it was in the WAL and before anybody could see it there. */
static void what_is_not_committed_does_not_come_back_with_a_recovery(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_origin id;
    struct hw_write_answer answer;
    char path[128], from[160], to[160];
    sqlite3 *db;
    FILE *wal;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c); /* it is linked */
    hw_mirror_write_end(c.mirror);
    id = hw_origin_make(c.fence, length_now(&s), c.key, (const uint8_t *)"luck");
    (void)snprintf(path, sizeof(path), "%s/copy.db", f->dir);
    (void)snprintf(from, sizeof(from), "%s-wal", path);
    (void)snprintf(to, sizeof(to), "%s-wal", s.path);
    wal = fopen(to, "rb");
    assert_non_null(wal);
    assert_int_equal(fseek(wal, 0, SEEK_END), 0);
    db = recovered(&s, path);
    assert_int_equal(sqlite3_exec(db, increment, NULL, NULL, NULL), SQLITE_OK);
    copy_from(from, to, ftell(wal));
    assert_int_equal(fclose(wal), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    db = recovered(&s, path);
    assert_int_equal(value(db), 1); /* as it would be if all were killed now */
    assert_int_equal(sqlite3_close(db), SQLITE_OK);

    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    db = recovered(&s, path);
    assert_int_equal(value(db), 0);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    client_stop(&c);
    server_stop(&s);
}

/* Neither a log that lost its end, nor another one that the database has by now. */
static void what_a_log_cannot_know_is_unknown(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_origin id;
    struct hw_write_answer answer;
    uint64_t length;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    hw_mirror_write_end(c.mirror);
    length = length_now(&s);
    id = hw_origin_make(c.fence, length + 1, c.key, (const uint8_t *)"luck");
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_UNKNOWN);
    id = hw_origin_make(c.fence, length, c.key, (const uint8_t *)"luck");
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_NOT);
    id.bytes[HW_ORIGIN_SIZE - HW_ORIGIN_CHANCE_SIZE - 1] ^= 1;
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_UNKNOWN);
    client_stop(&c);
    server_stop(&s);
}

static void a_server_that_is_gone_leaves_a_commit_unknown_or_undone(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_write_answer answer;
    struct hw_hub *hub;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    client_begin(f, &c);
    hub = s.hub;
    hw_hub_close(hub);
    answer = client_commit(&s, &c, increment, NULL);
    assert_true(answer.status == HW_WRITE_UNKNOWN || answer.status == HW_WRITE_LOST);
    assert_int_equal(value(s.db), 0);
    hw_mirror_write_end(c.mirror);
    client_stop(&c);
    assert_int_equal(sqlite3_close(s.db), SQLITE_OK);
}

/* A try ends when the server has said that others write; who tries again has kept its place. */
static void who_has_to_wait_is_told_and_keeps_its_place_in_the_line(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c[3];
    struct hw_write_answer answer;
    enum hw_status status = HW_EBUSY;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c[0], &s, "c");
    client_start(f, &c[1], &s, "d");
    client_start(f, &c[2], &s, "e");
    client_begin(f, &c[0]);
    for (int i = 1; i < 3; i++)
        assert_status(
            hw_mirror_write_begin(c[i].mirror, TIMEOUT_MS, 1, &c[i].fence, &c[i].length, &f->err),
            HW_EBUSY, &f->err);
    answer = client_commit(&s, &c[0], increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_OK);
    hw_mirror_write_end(c[0].mirror);
    client_begin(f, &c[1]);
    answer = client_commit(&s, &c[1], increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_OK);
    hw_mirror_write_end(c[1].mirror);
    for (int i = 0; i < 10000 && status == HW_EBUSY; i++)
        status =
            hw_mirror_write_begin(c[2].mirror, TIMEOUT_MS, 1, &c[2].fence, &c[2].length, &f->err);
    assert_ok(status);
    assert_int_equal(c[1].fence, c[0].fence + 1);
    assert_int_equal(c[2].fence, c[1].fence + 1);
    hw_mirror_write_end(c[2].mirror);
    for (int i = 0; i < 3; i++)
        client_stop(&c[i]);
    server_stop(&s);
}

/* Who was told to wait and does not come again holds up nobody. */
static void lease_that_nobody_comes_for_goes_on_to_the_next(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c[3];
    enum hw_status status;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c[0], &s, "c");
    client_start(f, &c[1], &s, "d");
    client_start(f, &c[2], &s, "e");
    client_begin(f, &c[0]);
    status = hw_mirror_write_begin(c[1].mirror, TIMEOUT_MS, 1, &c[1].fence, &c[1].length, &f->err);
    assert_status(status, HW_EBUSY, &f->err);
    hw_mirror_write_end(c[0].mirror);
    client_begin(f, &c[2]);
    assert_int_equal(c[2].fence, c[0].fence + 2);
    hw_mirror_write_end(c[2].mirror);
    for (int i = 0; i < 3; i++)
        client_stop(&c[i]);
    server_stop(&s);
}

/* Its lease is told only when local writers are held off, and others may want it by then. */
static void who_was_late_again_and_again_gives_the_lease_back_to_who_waits(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c[3];

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c[0], &s, "c");
    client_start(f, &c[1], &s, "d");
    client_start(f, &c[2], &s, "e");
    for (unsigned i = 0; i < HW_LEASE_STALE_MAX; i++)
        client_is_late(f, &s, &c[0], NULL);
    client_begin(f, &c[1]);
    for (unsigned i = 0; i < 3; i += 2)
        assert_status(
            hw_mirror_write_begin(c[i].mirror, TIMEOUT_MS, 1, &c[i].fence, &c[i].length, &f->err),
            HW_EBUSY, &f->err);
    hw_mirror_write_end(c[1].mirror);
    client_begin(f, &c[0]);
    hw_mirror_write_end(c[0].mirror); /* without a commit */
    assert_ok(
        hw_mirror_write_begin(c[2].mirror, SOON_MS, SOON_MS, &c[2].fence, &c[2].length, &f->err));
    assert_int_equal(c[2].fence, c[0].fence + 1);
    hw_mirror_write_end(c[2].mirror);
    for (int i = 0; i < 3; i++)
        client_stop(&c[i]);
    server_stop(&s);
}

/* Files are opened only while it is open. */
static struct {
    sqlite3_vfs vfs;
    int (*open)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
    pthread_mutex_t mutex;
} gate = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int gate_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *got)
{
    (void)pthread_mutex_lock(&gate.mutex);
    (void)pthread_mutex_unlock(&gate.mutex);
    return gate.open(vfs, name, file, flags, got);
}

static void questions_that_come_faster_than_answers_are_not_kept_without_end(void **state)
{
    enum { QUESTIONS = 1000 };
    struct hw_vfs_options options = {
        .name = vfs_name, .base = &gate.vfs, .env = hw_env_posix(), .threaded = true};
    struct place *f = *state;
    struct hw_origin id;
    struct server s;
    struct client c;
    struct hw_write_answer answer;

    gate.vfs = *sqlite3_vfs_find(NULL);
    gate.open = gate.vfs.xOpen;
    gate.vfs.xOpen = gate_open;
    hw_vfs_unregister(vfs_name);
    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    id = hw_origin_make(1, 0, c.key, (const uint8_t *)"luck");
    client_begin(f, &c); /* it is linked */
    hw_mirror_write_end(c.mirror);
    (void)pthread_mutex_lock(&gate.mutex);
    for (unsigned i = 0; i < QUESTIONS; i++) {
        answer = hw_mirror_outcome(c.mirror, &id, 0);
        assert_int_equal(answer.status, HW_WRITE_UNKNOWN);
    }
    answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    assert_int_equal(answer.status, HW_WRITE_UNKNOWN);
    assert_string_equal(answer.text, ""); /* the server's answer */
    (void)pthread_mutex_unlock(&gate.mutex);
    do /* the others come first */
        answer = hw_mirror_outcome(c.mirror, &id, TIMEOUT_MS);
    while (answer.status == HW_WRITE_UNKNOWN && answer.text[0] == '\0');
    assert_int_equal(answer.status, HW_WRITE_NOT);
    client_stop(&c);
    server_stop(&s);
    hw_vfs_unregister(vfs_name);
}

static void who_may_not_write_is_refused_and_a_copy_takes_no_writes(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    char dir[160], url[HW_URL_MAX];
    struct server copy;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c");
    copy.hub = place_hub(f);
    assert_ok(hw_hub_allow(copy.hub, HW_RIGHT_READ, "*", NULL, &f->err));
    (void)snprintf(dir, sizeof(dir), "%s-hyper", s.path);
    assert_ok(hw_hub_serve(copy.hub, "app.db", dir, &f->err));
    assert_ok(hw_hub_listen(copy.hub, "tcp://127.0.0.1:0", url, &f->err));
    place_address(f, url, "app.db", &copy.address);
    client_stop(&c);
    client_start(f, &c, &copy, "d");
    assert_status(
        hw_mirror_write_begin(c.mirror, TIMEOUT_MS, TIMEOUT_MS, &c.fence, &c.length, &f->err),
        HW_EREFUSED, &f->err);
    assert_ok(hw_hub_allow(copy.hub, HW_RIGHT_READ | HW_RIGHT_WRITE, "*", NULL, &f->err));
    assert_status(
        hw_mirror_write_begin(c.mirror, TIMEOUT_MS, TIMEOUT_MS, &c.fence, &c.length, &f->err),
        HW_EREADONLY, &f->err);
    client_stop(&c);
    hw_hub_close(copy.hub);
    server_stop(&s);
}

static void server_that_is_written_to_is_known_from_then_on(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c;
    struct hw_address address;
    char path[160], url[HW_URL_MAX + 80], key[2 * HW_KEY_SIZE + 1], text[512];
    struct hw_hub_options hub = {.env = f->env, .threaded = true, .known_servers = path};
    struct hw_mirror_options options = {.sources = &address, .source_count = 1};
    size_t size = 0;

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c, &s, "c"); /* to learn the log's key */
    assert_ok(hw_hub_resolve(c.hub, &s.address, TIMEOUT_MS, options.key, &f->err));
    client_stop(&c);
    (void)snprintf(path, sizeof(path), "%s/known", f->dir);
    hw_key_format(options.key, key);
    (void)snprintf(url, sizeof(url), "%s/%s", s.url, key);
    assert_ok(hw_address_parse(url, &address, &f->err));
    hw_identity_random(f->env, &hub.identity);
    assert_ok(hw_hub_open(&hub, &c.hub, &f->err));
    (void)snprintf(text, sizeof(text), "%s/d", f->dir);
    options.dir = text;
    assert_ok(hw_hub_mirror_open(c.hub, &options, &c.mirror, &f->err));
    assert_ok(hw_mirror_wait_length(c.mirror, 1, TIMEOUT_MS, &f->err));
    assert_status(hw_env_read_file(f->env, path, text, sizeof(text), &size, &f->err), HW_ENOTFOUND,
                  &f->err); /* the log proves itself */
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 2; i++) /* and at the second time, too */
        assert_status(
            hw_mirror_write_begin(c.mirror, TIMEOUT_MS, TIMEOUT_MS, &c.fence, &c.length, &f->err),
            HW_EIO, &f->err);
    assert_non_null(strstr(f->err.message, "cannot tell whether"));
    assert_int_equal(remove(path), 0);
    client_begin(f, &c);
    assert_ok(hw_env_read_file(f->env, path, text, sizeof(text), &size, &f->err));
    assert_int_equal(strncmp(text, s.url, strlen(s.url)), 0);
    hw_mirror_write_end(c.mirror);
    client_stop(&c);
    server_stop(&s);
}

static void who_loses_the_right_to_write_loses_the_lease_at_once(void **state)
{
    struct place *f = *state;
    struct server s;
    struct client c[2];
    struct hw_write_answer answer;
    struct hw_slice rules;
    char text[256], key[2 * HW_KEY_SIZE + 1];

    server_start(f, &s, "tcp://127.0.0.1:0");
    client_start(f, &c[0], &s, "c");
    client_start(f, &c[1], &s, "d");
    client_begin(f, &c[0]); /* and it does not end */
    hw_key_format(hw_hub_identity(c[1].hub), key);
    (void)snprintf(text, sizeof(text), "read * any\nwrite app.db %s\n", key);
    rules = (struct hw_slice){(const uint8_t *)text, strlen(text)};
    assert_ok(hw_hub_set_rules(s.hub, rules, &f->err));
    assert_ok(
        hw_mirror_write_begin(c[1].mirror, SOON_MS, SOON_MS, &c[1].fence, &c[1].length, &f->err));
    answer = client_commit(&s, &c[0], increment, NULL);
    assert_int_equal(answer.status, HW_WRITE_REFUSED);
    answer = client_commit(&s, &c[1], increment, NULL);
    if (answer.status != HW_WRITE_OK)
        fail_msg("%u: %s", (unsigned)answer.status, answer.text);
    hw_mirror_write_end(c[0].mirror);
    hw_mirror_write_end(c[1].mirror);
    assert_int_equal(value(s.db), 1);
    client_stop(&c[0]);
    client_stop(&c[1]);
    server_stop(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_lone_writer_commits_again_and_again_under_one_lease,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(large_transactions_come_in_parts_and_through_a_file, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_lease_goes_from_one_client_to_the_next_when_it_is_wanted,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_transaction_with_the_id_of_another_log_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(whoever_is_late_is_told_so_and_commits_with_the_next_try,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(commits_that_change_nothing_make_nobody_late, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            what_became_of_a_transaction_can_be_asked_after_the_server_came_back, setup, teardown),
        cmocka_unit_test_setup_teardown(what_one_server_says_is_not_committed_no_other_one_commits,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_committed_does_not_come_back_with_a_recovery,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_log_cannot_know_is_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_is_gone_leaves_a_commit_unknown_or_undone,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_to_wait_is_told_and_keeps_its_place_in_the_line,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(lease_that_nobody_comes_for_goes_on_to_the_next, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            who_was_late_again_and_again_gives_the_lease_back_to_who_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(
            questions_that_come_faster_than_answers_are_not_kept_without_end, setup, teardown),
        cmocka_unit_test_setup_teardown(who_may_not_write_is_refused_and_a_copy_takes_no_writes,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(server_that_is_written_to_is_known_from_then_on, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_loses_the_right_to_write_loses_the_lease_at_once, setup,
                                        teardown),
    };

    if (argc > 1) /* one test, by name or pattern */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("writes", tests, NULL, NULL);
}
