/*
 * node_fixture.h - places with logs, hubs that serve and mirror them, over loopback
 *
 * A place is one directory under /tmp with a log `a` that the test appends to as capture does, and
 * room for mirrors.  Waits end with an event, or fail the test after a minute.
 */
#ifndef NODE_FIXTURE_H
#define NODE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env/shared_page.h"
#include "hypercore/mirror.h"
#include "node/hub.h"
#include "support/core_log.h"

enum { PLACE_WAIT_MS = 60000 };
#define MS(n) ((uint64_t)(n)*1000000)

struct place {
    struct hw_env *env;
    char dir[64];
    char a[128];                 /* the log */
    struct hw_core *core;        /* open for writing */
    struct hw_shared_page *page; /* of the log */
    struct hw_error err;
};

static int place_setup(void **state)
{
    struct place *f = calloc(1, sizeof(*f));

    if (f == NULL)
        return 1;
    f->env = hw_env_posix();
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/hw-node-XXXXXX");
    if (mkdtemp(f->dir) == NULL)
        return 1;
    (void)snprintf(f->a, sizeof(f->a), "%s/a", f->dir);
    *state = f;
    return 0;
}

static int place_remove(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
    (void)stat;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static int place_teardown(void **state)
{
    struct place *f = *state;

    hw_core_close(f->core);
    hw_shared_page_close(f->page);
    (void)nftw(f->dir, place_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static inline void place_make_log(struct place *f)
{
    assert_ok(hw_core_create(f->env, f->a, &f->core, &f->err));
    assert_ok(hw_shared_page_open(f->env, f->a, true, &f->page, &f->err));
    hw_shared_set_worker(f->page, f->env->ops->process_id(f->env));
}

/* One batch of `count` blocks, published as a worker does it. */
static inline void place_append(struct place *f, unsigned count)
{
    assert_ok(core_log_append(f->core, count, "", &f->err));
    hw_shared_set_durable_length(f->page, hw_core_length(f->core));
}

static inline struct hw_hub *place_hub(struct place *f)
{
    struct hw_hub_options options = {.env = f->env, .threaded = true};
    struct hw_hub *hub = NULL;

    hw_identity_random(f->env, &options.identity);
    assert_ok(hw_hub_open(&options, &hub, &f->err));
    return hub;
}

/* A hub that serves the log as "a.db" on a port that is free. */
static inline struct hw_hub *place_server(struct place *f, char url[HW_URL_MAX])
{
    struct hw_hub *hub = place_hub(f);

    assert_ok(hw_hub_serve(hub, "a.db", f->a, &f->err));
    assert_ok(hw_hub_listen(hub, "tcp://127.0.0.1:0", url, &f->err));
    return hub;
}

static inline void place_address(struct place *f, const char *listen, const char *name,
                                 struct hw_address *out)
{
    char url[HW_URL_MAX + HW_NAME_MAX];

    (void)snprintf(url, sizeof(url), "%s/%s", listen, name);
    assert_ok(hw_address_parse(url, out, &f->err));
}

/* A mirror `name` of the place's log from these listeners. */
static inline struct hw_mirror *place_mirror(struct place *f, struct hw_hub *hub, const char *name,
                                             const char *const *urls, size_t count)
{
    struct hw_address sources[HW_HUB_SOURCES_MAX];
    char dir[128];
    struct hw_mirror_options options = {.dir = dir, .sources = sources, .source_count = count};
    struct hw_mirror *mirror = NULL;

    (void)snprintf(dir, sizeof(dir), "%s/%.16s", f->dir, name);
    for (size_t i = 0; i < count; i++)
        place_address(f, urls[i], "a.db", &sources[i]);
    memcpy(options.key, hw_core_identity(f->core)->key, HW_KEY_SIZE);
    memset(options.replica_id, name[0], sizeof(options.replica_id));
    assert_ok(hw_hub_mirror_open(hub, &options, &mirror, &f->err));
    return mirror;
}

/* Somebody else's look at the mirror's directory: all blocks of [start, end) are there. */
static inline void place_await_blocks(struct place *f, const char *name, uint64_t start,
                                      uint64_t end)
{
    uint64_t deadline = f->env->ops->monotonic_ns(f->env) + MS(PLACE_WAIT_MS);
    struct hw_shared_page *page = NULL;
    struct hw_core *core = NULL;
    char dir[128];

    (void)snprintf(dir, sizeof(dir), "%s/%.16s", f->dir, name);
    assert_ok(hw_shared_page_open(f->env, dir, true, &page, &f->err));
    assert_ok(hw_core_open(f->env, dir, HW_CORE_READ, UINT64_MAX, &core, &f->err));
    for (uint64_t i = start; i < end;) {
        uint32_t seen = hw_shared_wake_count(page);

        assert_ok(hw_core_refresh(core, UINT64_MAX, &f->err));
        if (i < hw_core_length(core) && hw_core_has(core, i)) {
            assert_ok(core_log_check(core, i, &f->err));
            i++;
            continue;
        }
        if (f->env->ops->monotonic_ns(f->env) > deadline)
            fail_msg("block %llu of %s did not come", (unsigned long long)i, name);
        hw_shared_wait(page, seen, MS(100));
    }
    hw_core_close(core);
    hw_shared_page_close(page);
}

static inline uint64_t deadline(const struct place *f)
{
    return f->env->ops->monotonic_ns(f->env) + MS(PLACE_WAIT_MS);
}

/* Waits without a busy loop where there is no event to wait for: on a word that nobody wakes. */
static inline void pause_ms(const struct place *f, unsigned ms)
{
    uint32_t word = 0;

    f->env->ops->wait_word(f->env, &word, 0, MS(ms));
}

#endif
