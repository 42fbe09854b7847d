/*
 * What the tests of writing from afar have in common: a server with a database that an application
 * beside it writes, and clients with mirrors of it.
 */
#ifndef HW_TESTS_UNIT_WRITES_FIXTURE_H
#define HW_TESTS_UNIT_WRITES_FIXTURE_H

#include "node_fixture.h"

#include "capture/capture.h"
#include "support/other_side.h"

enum { TIMEOUT_MS = 20000, SOON_MS = 5000 }; /* soon: before a lease is over of itself */

struct server {
    struct hw_hub *hub;
    sqlite3 *db; /* a local writer */
    char path[128], url[HW_URL_MAX];
    struct hw_address address;
};

struct client {
    struct hw_hub *hub;
    struct hw_mirror *mirror;
    uint8_t key[HW_KEY_SIZE]; /* of the log */
    uint64_t fence, length;
};

static const char vfs_name[] = "hwwrites";

static inline int setup(void **state)
{
    struct hw_vfs_options options = {.name = vfs_name, .env = hw_env_posix(), .threaded = true};

    assert_int_equal(hw_vfs_register(&options, NULL), HW_OK);
    return place_setup(state);
}

static inline int teardown(void **state)
{
    hw_vfs_unregister(vfs_name);
    return place_teardown(state);
}

static inline void server_start(struct place *f, struct server *s, const char *url)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    char dir[160];

    (void)snprintf(s->path, sizeof(s->path), "%s/app.db", f->dir);
    (void)snprintf(dir, sizeof(dir), "%s-hyper", s->path);
    assert_int_equal(sqlite3_open_v2(s->path, &s->db, flags, vfs_name), SQLITE_OK);
    assert_int_equal(sqlite3_busy_timeout(s->db, 10000), SQLITE_OK);
    assert_int_equal(sqlite3_exec(s->db,
                                  "CREATE TABLE IF NOT EXISTS n(k); INSERT INTO n SELECT 0 WHERE "
                                  "NOT EXISTS(SELECT * FROM n)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    s->hub = place_hub(f);
    assert_ok(hw_hub_allow(s->hub, HW_RIGHT_READ | HW_RIGHT_WRITE, "*", NULL, &f->err));
    assert_ok(hw_hub_serve(s->hub, "app.db", dir, &f->err));
    assert_ok(hw_hub_take_writes(s->hub, "app.db", s->path, vfs_name, &f->err));
    assert_ok(hw_hub_listen(s->hub, url, s->url, &f->err));
    place_address(f, s->url, "app.db", &s->address);
}

static inline void server_stop(struct server *s)
{
    hw_hub_close(s->hub);
    assert_int_equal(sqlite3_close(s->db), SQLITE_OK);
}

static inline void client_start(struct place *f, struct client *c, const struct server *s,
                                const char *name)
{
    struct hw_mirror_options options = {.sources = &s->address, .source_count = 1};
    char dir[128];

    c->hub = place_hub(f);
    (void)snprintf(dir, sizeof(dir), "%s/%s", f->dir, name);
    options.dir = dir;
    memset(options.replica_id, name[0], sizeof(options.replica_id));
    assert_ok(hw_hub_resolve(c->hub, &s->address, TIMEOUT_MS, options.key, &f->err));
    memcpy(c->key, options.key, sizeof(c->key));
    assert_ok(hw_hub_mirror_open(c->hub, &options, &c->mirror, &f->err));
}

static inline void client_stop(struct client *c)
{
    hw_hub_mirror_close(c->mirror);
    hw_hub_close(c->hub);
}

static inline void client_begin(struct place *f, struct client *c)
{
    assert_ok(
        hw_mirror_write_begin(c->mirror, TIMEOUT_MS, TIMEOUT_MS, &c->fence, &c->length, &f->err));
}

static inline uint64_t length_now(struct server *s)
{
    struct hw_capture_status status;
    struct hw_capture *capture = NULL;
    uint64_t seq;

    assert_int_equal(sqlite3_file_control(s->db, "main", HW_FCNTL_CAPTURE, &capture), SQLITE_OK);
    assert_int_equal(hw_capture_wait_logged(capture, TIMEOUT_MS, &seq, NULL), HW_OK);
    hw_capture_status(capture, &status);
    return status.length;
}

static inline struct hw_write_message message_of(const struct client *c,
                                                 const struct transaction *t)
{
    return (struct hw_write_message){
        .type = HW_WRITE_COMMIT,
        .id = hw_origin_make(c->fence, hw_origin_base(&t->commit.origin), c->key,
                             t->commit.origin.bytes + HW_ORIGIN_SIZE - HW_ORIGIN_CHANCE_SIZE),
        .sum_before = t->commit.sum_before,
        .sum_after = t->commit.sum_after,
        .page_count = t->commit.page_count,
        .part_count = t->count,
    };
}

/* What `sql` does now, sent under the client's lease. */
static inline struct hw_write_answer client_commit(struct server *s, struct client *c,
                                                   const char *sql, struct hw_origin *id)
{
    struct hw_write_message commit;
    struct hw_write_answer answer;
    struct transaction t;

    transaction_make(&t, s->db, sql, length_now(s));
    commit = message_of(c, &t);
    if (id != NULL)
        *id = commit.id;
    answer = hw_mirror_commit(c->mirror, &commit, next_part, &t, TIMEOUT_MS);
    transaction_free(&t);
    return answer;
}

static inline int64_t value(sqlite3 *db)
{
    sqlite3_stmt *statement = NULL;
    int64_t out = -1;

    if (sqlite3_prepare_v2(db, "SELECT k FROM n", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
        out = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return out;
}

static const char increment[] = "UPDATE n SET k = k + 1";

#endif
