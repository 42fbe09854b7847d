/* Implements the followers of sim/random_world.h: of the log, and of a mirror of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/random_world.h"
#include "support/mirror_log.h"

static const char *path_of(unsigned process)
{
    return process == RANDOM_MIRROR ? "/copy.db" : "/replica.db";
}

void random_follow_close(struct random_world *w, unsigned process)
{
    struct random_replica *replica = &w->replicas[process];

    random_act_as(w, process);
    hw_replica_close(replica->replica);
    hw_core_close(replica->read);
    hw_core_close(replica->mirror);
    hw_core_close(replica->log);
    *replica = (struct random_replica){0};
}

/* A failure that nothing explains. */
static bool failed(struct random_world *w, const char *what, enum hw_status status,
                   const struct hw_error *err)
{
    if (status == HW_OK)
        return false;
    if (!random_is_down(w))
        random_fail(w, "%s: %s: %s", what, hw_status_name(status), err->message);
    return true;
}

/* ------------------------------------------------------------------------------- the mirror */

static enum hw_status open_mirror(struct random_world *w, struct random_replica *replica,
                                  struct hw_error *err)
{
    struct hw_env *env = sim_env(w->sim);
    enum hw_status status;

    status = hw_core_open(env, "/copy.db-hyper", HW_CORE_MIRROR, 0, &replica->mirror, err);
    if (status == HW_ENOTFOUND)
        status = hw_core_create_mirror(env, "/copy.db-hyper", hw_core_identity(replica->log)->key,
                                       &replica->mirror, err);
    if (status != HW_OK || random_is_down(w))
        return status;
    if (hw_core_length(replica->mirror) < w->mirror_synced)
        random_fail(w, "the mirror has %llu blocks, %llu were synced",
                    (unsigned long long)hw_core_length(replica->mirror),
                    (unsigned long long)w->mirror_synced);
    return HW_OK;
}

/* A reader did not find it: it was not fetched yet, or its bytes are damaged. */
static enum hw_status fetch(void *ctx, uint64_t index, struct hw_error *err)
{
    struct random_replica *replica = ctx;
    struct hw_accepted accepted;
    struct hw_buffer block = {0};
    bool is_here = hw_core_has(replica->mirror, index) &&
                   hw_core_read(replica->mirror, index, &block, NULL) == HW_OK;

    hw_buffer_release(&block);
    if (is_here)
        return HW_OK;
    if (!hw_core_has(replica->log, index))
        return hw_fail(err, HW_EPRUNED, "nobody has block %llu", (unsigned long long)index);
    return mirror_log_block(replica->log, replica->mirror, index, &accepted, err);
}

/* Blocks that the log has and the mirror has not, some of them, in any order. */
static enum hw_status fetch_blocks(struct random_world *w, struct random_replica *replica, bool all,
                                   struct hw_error *err)
{
    uint64_t length = hw_core_length(replica->mirror);
    uint64_t start = length == 0 ? 0 : random_chance(w, length);
    enum hw_status status = HW_OK;

    for (uint64_t i = 0; i < length && status == HW_OK; i++) {
        uint64_t index = (start + i) % length;
        struct hw_accepted accepted;

        if (hw_core_has(replica->mirror, index) || !hw_core_has(replica->log, index) ||
            (!all && random_chance(w, 8) == 0))
            continue;
        status = mirror_log_block(replica->log, replica->mirror, index, &accepted, err);
    }
    return status;
}

static void feed_mirror(struct random_world *w, struct random_replica *replica, bool all)
{
    struct hw_error err = {0};
    struct hw_accepted accepted;
    enum hw_status status = HW_OK;
    uint64_t length;

    if (replica->mirror == NULL && failed(w, "mirror", open_mirror(w, replica, &err), &err))
        return;
    length = hw_core_length(replica->log);
    if (hw_core_head(replica->mirror).fork < hw_core_head(replica->log).fork) {
        status = mirror_log_reorg(replica->log, replica->mirror, &err);
        w->mirror_synced = 0; /* of this fork nothing is */
    }
    while (status == HW_OK && hw_core_length(replica->mirror) < length && random_chance(w, 6) > 0 &&
           hw_core_has(replica->log, hw_core_length(replica->mirror)) &&
           hw_core_length(replica->mirror) + 1 == length)
        status = mirror_log_push(replica->log, replica->mirror, &accepted, &err);
    if (status == HW_OK && hw_core_length(replica->mirror) < length)
        status = mirror_log_upgrade(replica->log, replica->mirror, &accepted, &err);
    if (status == HW_OK)
        status = fetch_blocks(w, replica, all, &err);
    if (status == HW_OK && (all || random_chance(w, 2) == 0)) {
        status = hw_core_sync(replica->mirror, &length, &err);
        if (status == HW_OK && !random_is_down(w))
            w->mirror_synced = length;
    }
    (void)failed(w, "feeding the mirror", status, &err);
}

/* --------------------------------------------------------------------------------- following */

static bool open_log(struct random_world *w, struct random_replica *replica, bool all)
{
    uint64_t limit = all ? UINT64_MAX : w->announced;
    struct hw_error err = {0};
    enum hw_status status;

    if (replica->log == NULL)
        status = hw_core_open(sim_env(w->sim), "/app.db-hyper", HW_CORE_READ, limit, &replica->log,
                              &err);
    else
        status = hw_core_refresh(replica->log, limit, &err);
    if (status == HW_EPRUNED && !w->is_over) {
        random_follow_close(w, w->process); /* it looks again when it knows of the new length */
        return false;
    }
    return !failed(w, "a follower's log", status, &err);
}

static struct hw_core *open_source(struct random_world *w, unsigned process, bool all)
{
    struct random_replica *replica = &w->replicas[process];
    struct hw_core_fetcher fetcher = {.fetch = fetch, .ctx = replica};
    struct hw_error err = {0};
    enum hw_status status;

    if (!open_log(w, replica, all && w->is_over))
        return NULL;
    if (process != RANDOM_MIRROR)
        return replica->log;
    feed_mirror(w, replica, all);
    if (random_is_down(w) || w->failure[0] != '\0')
        return NULL;
    if (replica->read == NULL)
        status = hw_core_open(sim_env(w->sim), "/copy.db-hyper", HW_CORE_READ, UINT64_MAX,
                              &replica->read, &err);
    else
        status = hw_core_refresh(replica->read, UINT64_MAX, &err);
    if (failed(w, "reading the mirror", status, &err))
        return NULL;
    hw_core_set_fetcher(replica->read, &fetcher);
    return replica->read;
}

/* What a stock reader of the replica sees is a state that was committed. */
static void check_reader(struct random_world *w, unsigned process)
{
    sqlite3 *db = NULL;
    uint64_t fingerprint = 0;
    char message[256];

    if (!sim_file_exists(w->sim, path_of(process)) || w->pending != NULL)
        return;
    random_act_as(w, RANDOM_FOREIGN);
    if (sqlite3_open_v2(path_of(process), &db, SQLITE_OPEN_READWRITE, sim_vfs(w->sim)->zName) ==
            SQLITE_OK &&
        sim_fingerprint(db, &fingerprint, message)) {
        if (random_find_state(w, fingerprint, 0) < 0)
            random_fail(w, "a reader of %s sees what was never committed", path_of(process));
    } else if (!random_is_down(w)) {
        random_fail(w, "a reader of %s: %s", path_of(process), sqlite3_errmsg(db));
    }
    (void)sqlite3_close(db); /* no statement is left */
}

/* Step `steps` times or to the head; HW_END: there it is. */
static enum hw_status follow(struct random_world *w, unsigned process, bool all, unsigned steps)
{
    struct random_replica *replica = &w->replicas[process];
    enum hw_status status = HW_OK;
    struct hw_error err = {0};
    struct hw_core *source;

    random_act_as(w, process);
    source = open_source(w, process, all);
    if (source == NULL)
        return HW_AGAIN;
    if (replica->replica == NULL)
        status = hw_replica_open(sim_env(w->sim), sim_vfs(w->sim), source, path_of(process), NULL,
                                 NULL, &replica->replica, &err);
    for (unsigned i = 0; i < steps && status == HW_OK; i++)
        status = hw_replica_step(replica->replica, &err);
    if (status == HW_EMISSING && process == RANDOM_MIRROR)
        return HW_AGAIN; /* damaged, or not fetched */
    if (status == HW_EPRUNED || (status == HW_ENOTFOUND && replica->replica == NULL && !all))
        return HW_AGAIN;
    if (status != HW_END && status != HW_AGAIN)
        (void)failed(w, path_of(process), status, &err);
    return status;
}

void random_follow(struct random_world *w, unsigned process)
{
    if (w->announced == 0 || w->count == 0)
        return;
    (void)follow(w, process, random_chance(w, 3) > 0, 1 + (unsigned)random_chance(w, 20));
    if (!random_is_down(w) && random_chance(w, 3) == 0)
        check_reader(w, process);
    if (!random_is_down(w) && random_chance(w, 5) == 0)
        random_follow_close(w, process);
}

/* ------------------------------------------------------------------------------------ bytes */

/* All pages as a reader sees them, of sqlite3_malloc; NULL: an error. */
static uint8_t *image_of(struct random_world *w, const char *path, sqlite3_int64 *size)
{
    uint8_t *image = NULL;
    sqlite3 *db = NULL;

    random_act_as(w, RANDOM_FOREIGN);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, sim_vfs(w->sim)->zName) == SQLITE_OK)
        image = sqlite3_serialize(db, "main", size, 0);
    if (image == NULL)
        random_fail(w, "%s cannot be read: %s", path, sqlite3_errmsg(db));
    (void)sqlite3_close(db); /* no statement is left */
    return image;
}

void random_check_follower(struct random_world *w, unsigned process)
{
    sqlite3_int64 size = 0, copy_size = 0;
    uint8_t *image = NULL, *copy = NULL;
    enum hw_status status = HW_OK;

    if (w->announced == 0 || w->count == 0)
        return;
    for (unsigned tries = 0; tries < 9 && status != HW_END; tries++)
        status = follow(w, process, true, 100000);
    if (status != HW_END)
        random_fail(w, "%s does not come to the head: %s", path_of(process),
                    hw_status_name(status));
    random_follow_close(w, process);
    if (w->failure[0] != '\0')
        return;
    image = image_of(w, "/app.db", &size);
    copy = image_of(w, path_of(process), &copy_size);
    if (image != NULL && copy != NULL &&
        (size != copy_size || memcmp(image, copy, (size_t)size) != 0))
        random_fail(w, "%s has other bytes than the primary", path_of(process));
    sqlite3_free(image);
    sqlite3_free(copy);
}
