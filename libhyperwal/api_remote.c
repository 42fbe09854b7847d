/* Implements api_remote.h. */
#include "api_remote.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    CONNECT_MS = 10000,     /* for a source to answer, and again for its log's length to come */
    EMPTY_MS = 1000,        /* for a log that is empty to begin */
    SLICE_MS = 100,         /* between two looks whether somebody wants us to stop */
    AHEAD_BLOCKS_MAX = 512, /* fetched ahead of a reader that goes in order */
};

struct range { /* blocks [start, end) */
    uint64_t start, end;
};

struct hw_api_remote {
    struct hw_env *env;
    struct hyperwal_node *node; /* `owned_node`, or borrowed */
    struct hyperwal_node *owned_node;
    struct hw_mirror *mirror; /* owned */
    char *dir;                /* owned */
    bool is_temporary;
    bool is_live;         /* a replica is fed */
    struct hw_core *core; /* borrowed: who is attached */
    uint64_t last_fetch, ahead, ahead_end;
    struct range *later; /* owned: for which the mirror had no room yet */
    size_t later_count, later_next, later_capacity;
};

/* ---------------------------------------------------------------------- temporary directory */

struct names {
    struct hw_env *env;
    const char *dir;
};

static bool remove_one(void *ctx, const char *name)
{
    struct names *names = ctx;
    char *path = hw_format("%s/%s", names->dir, name);

    if (path != NULL)
        (void)names->env->ops->remove(names->env, path, NULL); /* what stays, stays */
    hw_free(path);
    return true;
}

static void temporary_remove(struct hw_env *env, const char *dir)
{
    struct names names = {env, dir};

    (void)env->ops->list(env, dir, remove_one, &names, NULL);
    (void)env->ops->remove_dir(env, dir, NULL); /* a directory in /tmp that we could not remove */
}

static enum hw_status temporary_make(struct hw_env *env, char **out, struct hw_error *err)
{
    const char *places[] = {getenv("TMPDIR"), "/var/tmp", "/tmp", "."};
    enum hw_status status = HW_EIO;

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        uint64_t number;
        char *dir;

        if (places[i] == NULL || places[i][0] == '\0')
            continue;
        env->ops->random(env, &number, sizeof(number));
        dir = hw_format("%s/hyperwal-%016llx", places[i], (unsigned long long)number);
        if (dir == NULL)
            return hw_fail(err, HW_ENOMEM, "no memory for a path");
        status = env->ops->make_dir_as(env, dir, 0700, err);
        if (status == HW_OK) {
            *out = dir;
            return HW_OK;
        }
        hw_free(dir);
    }
    return hw_prefix(err, status, "no place for what comes over the network");
}

/* --------------------------------------------------------------------------------- opening */

enum hw_status hw_api_mirror_key(struct hw_env *env, const char *dir, uint8_t key[HW_KEY_SIZE],
                                 struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_open(env, dir, HW_CORE_READ, UINT64_MAX, &core, err);

    if (status == HW_OK && !hw_core_is_mirror(core))
        status = hw_fail(err, HW_EEXIST, "%s: a log of our own, not a mirror", dir);
    if (status == HW_OK)
        memcpy(key, hw_core_identity(core)->key, HW_KEY_SIZE);
    hw_core_close(core);
    return status;
}

static enum hw_status same_key(const char *url, const uint8_t *a, const uint8_t *b,
                               struct hw_error *err)
{
    char is[2 * HW_KEY_SIZE + 1], wanted[2 * HW_KEY_SIZE + 1];

    if (memcmp(a, b, HW_KEY_SIZE) == 0)
        return HW_OK;
    hw_key_format(a, is);
    hw_key_format(b, wanted);
    return hw_fail(err, HW_EFORK, "%s: the log %s; the log here is %s", url, is, wanted);
}

/* Of which log do the sources speak?  The first that answers tells. */
static enum hw_status key_find(struct hw_api_remote *remote,
                               const struct hw_api_remote_options *options,
                               const struct hw_address *addresses, uint8_t key[HW_KEY_SIZE],
                               struct hw_error *err)
{
    bool is_known = options->key != NULL;
    enum hw_status status = HW_OK;

    if (is_known)
        memcpy(key, options->key, HW_KEY_SIZE);
    for (size_t i = 0; i < options->source_count && status == HW_OK; i++) {
        if (!addresses[i].has_key)
            continue;
        if (is_known)
            status = same_key(options->sources[i], addresses[i].key, key, err);
        else
            memcpy(key, addresses[i].key, HW_KEY_SIZE);
        is_known = true;
    }
    if (status != HW_OK || options->is_known)
        return status;
    for (size_t i = 0; i < options->source_count; i++) {
        uint8_t named[HW_KEY_SIZE];

        if (addresses[i].has_key)
            return HW_OK;
        if (options->go_on != NULL && !options->go_on(options->ctx))
            return hw_fail(err, HW_AGAIN, "stopped");
        status = hw_hub_resolve(remote->node->hub, &addresses[i], CONNECT_MS, named, err);
        if (status != HW_OK)
            continue;
        if (is_known)
            return same_key(options->sources[i], named, key, err);
        memcpy(key, named, HW_KEY_SIZE);
        return HW_OK;
    }
    /* Out of reach now; they are asked for the log we know when they come back. */
    return is_known && status == HW_ETIMEOUT ? HW_OK : status;
}

/*
 * Until the log's length is here, with its signature.  An empty log has none; that it is empty is
 * what all who are connected said, and not what nobody said yet: they may be far away.
 */
static enum hw_status length_wait(struct hw_api_remote *remote,
                                  const struct hw_api_remote_options *options, struct hw_error *err)
{
    struct hw_env *env = remote->env;
    uint64_t begin = env->ops->monotonic_ns(env), empty_since = 0;

    for (;;) {
        struct hw_mirror_status now;
        uint64_t time, limit_ms;
        enum hw_status status = hw_mirror_wait_length(remote->mirror, 1, SLICE_MS, err);

        if (status != HW_ETIMEOUT)
            return status;
        if (options->go_on != NULL && !options->go_on(options->ctx))
            return hw_fail(err, HW_AGAIN, "stopped");
        hw_mirror_status(remote->mirror, &now);
        time = env->ops->monotonic_ns(env);
        if (now.connected == 0 || now.told < now.connected || now.remote_length > 0)
            empty_since = 0;
        else if (empty_since == 0)
            empty_since = time;
        if (empty_since != 0 && time - empty_since >= EMPTY_MS * 1000000ULL)
            return HW_OK;
        limit_ms = now.connected > 0 ? 2 * CONNECT_MS : CONNECT_MS;
        if (time - begin >= limit_ms * 1000000ULL)
            return hw_fail(err, HW_ETIMEOUT, "%s: nobody gives the log: %s", options->sources[0],
                           now.problem[0] != '\0' ? now.problem
                           : now.connected > 0    ? "a source answers, but its length does not come"
                                                  : "no source answers");
    }
}

static enum hw_status mirror_open(struct hw_api_remote *remote,
                                  const struct hw_api_remote_options *options,
                                  struct hw_address *addresses, struct hw_error *err)
{
    struct hw_mirror_options mirror = {
        .dir = remote->dir, .sources = addresses, .source_count = options->source_count};
    enum hw_status status = key_find(remote, options, addresses, mirror.key, err);

    if (status != HW_OK)
        return status;
    if (options->replica_id != NULL)
        memcpy(mirror.replica_id, options->replica_id, sizeof(mirror.replica_id));
    status = hw_hub_mirror_open(remote->node->hub, &mirror, &remote->mirror, err);
    return status == HW_OK ? length_wait(remote, options, err) : status;
}

enum hw_status hw_api_remote_open(const struct hw_api_remote_options *options,
                                  struct hw_api_remote **out, struct hw_error *err)
{
    struct hw_api_remote *remote = hw_zalloc(sizeof(*remote));
    struct hw_address *addresses = hw_zalloc(options->source_count * sizeof(*addresses) + 1);
    enum hw_status status = HW_OK;

    if (remote == NULL || addresses == NULL) {
        status = hw_fail(err, HW_ENOMEM, "no memory for a remote log");
        goto done;
    }
    remote->env = hw_env_posix();
    remote->last_fetch = UINT64_MAX;
    remote->is_live = options->replica_id != NULL;
    if (options->source_count == 0 || options->source_count > HW_HUB_SOURCES_MAX)
        status = hw_fail(err, HW_EMISUSE, "1 to %d sources, not %zu", (int)HW_HUB_SOURCES_MAX,
                         options->source_count);
    for (size_t i = 0; status == HW_OK && i < options->source_count; i++)
        status = hw_address_parse(options->sources[i], &addresses[i], err);
    if (status == HW_OK && options->node == NULL)
        status = hw_api_node_open(NULL, &remote->owned_node, err);
    if (status != HW_OK)
        goto done;
    remote->node = options->node != NULL ? options->node : remote->owned_node;
    if (options->dir != NULL) {
        remote->dir = hw_strdup(options->dir);
        if (remote->dir == NULL)
            status = hw_fail(err, HW_ENOMEM, "no memory for a remote log");
    } else {
        status = temporary_make(remote->env, &remote->dir, err);
        remote->is_temporary = status == HW_OK;
    }
    if (status == HW_OK)
        status = mirror_open(remote, options, addresses, err);

done:
    hw_free(addresses);
    if (status != HW_OK)
        hw_api_remote_close(remote);
    else
        *out = remote;
    return status;
}

void hw_api_remote_close(struct hw_api_remote *remote)
{
    if (remote == NULL)
        return;
    hw_hub_mirror_close(remote->mirror);
    hyperwal_node_close(remote->owned_node);
    if (remote->is_temporary)
        temporary_remove(remote->env, remote->dir);
    hw_free(remote->later);
    hw_free(remote->dir);
    hw_free(remote);
}

const char *hw_api_remote_dir(const struct hw_api_remote *remote)
{
    return remote->dir;
}

struct hw_mirror *hw_api_remote_mirror(struct hw_api_remote *remote)
{
    return remote->mirror;
}

/* -------------------------------------------------------------------------------- fetching */

static void want_range(void *ctx, uint64_t start, uint64_t end)
{
    struct hw_api_remote *remote = ctx;
    size_t capacity = remote->later_capacity == 0 ? 64 : 2 * remote->later_capacity;
    struct range *larger;

    if (remote->later_count == 0 && hw_mirror_want(remote->mirror, start, end, NULL) != HW_ELIMIT)
        return; /* what could not be noted is fetched one by one */
    if (remote->later_count == remote->later_capacity) {
        larger = hw_realloc(remote->later, capacity * sizeof(*larger));
        if (larger == NULL)
            return;
        remote->later = larger;
        remote->later_capacity = capacity;
    }
    remote->later[remote->later_count++] = (struct range){start, end};
}

/* The mirror has room again for some of what it had none for. */
static void want_later(struct hw_api_remote *remote)
{
    while (remote->later_next < remote->later_count) {
        const struct range *next = &remote->later[remote->later_next];

        if (hw_mirror_want(remote->mirror, next->start, next->end, NULL) != HW_OK)
            return;
        remote->later_next++;
    }
    remote->later_next = remote->later_count = 0;
}

struct live {
    struct hw_api_remote *remote;
    uint64_t last_start; /* of the range told last: the entries after the snapshot */
};

static void want_live(void *ctx, uint64_t start, uint64_t end)
{
    struct live *live = ctx;

    want_range(live->remote, start, end);
    live->last_start = start;
}

enum hw_status hw_api_remote_want_live(struct hw_api_remote *remote, struct hw_core *core,
                                       struct hw_error *err)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct live live = {.remote = remote};
    enum hw_status status;

    remote->later_next = remote->later_count = 0;
    status = hw_state_blocks(core, &head, want_live, &live, err);
    if (status == HW_OK)
        hw_mirror_want_tail(remote->mirror, live.last_start);
    return status;
}

/*
 * What the replica needs next was given up, so it will go on from a snapshot: have that under way
 * before it reads it.  The core is in the middle of a read; a second one looks.
 */
static void start_over(struct hw_api_remote *remote)
{
    struct hw_core_fetcher fetcher = {hw_mirror_fetch, remote->mirror};
    struct hw_core *core = NULL;

    if (hw_core_open(remote->env, remote->dir, HW_CORE_READ, UINT64_MAX, &core, NULL) != HW_OK)
        return; /* fetched one by one then */
    hw_core_set_fetcher(core, &fetcher);
    (void)!hw_api_remote_want_live(remote, core, NULL);
    hw_core_close(core);
}

/* Who reads in order finds the next blocks under way; twice as many each time he does. */
static enum hw_status remote_fetch(void *ctx, uint64_t index, struct hw_error *err)
{
    struct hw_api_remote *remote = ctx;
    bool is_next = remote->last_fetch != UINT64_MAX && index > remote->last_fetch &&
                   index <= remote->ahead_end;
    uint64_t length = hw_core_length(remote->core), end;
    enum hw_status status;

    remote->ahead = !is_next ? 1 : 2 * remote->ahead;
    if (remote->ahead > AHEAD_BLOCKS_MAX)
        remote->ahead = AHEAD_BLOCKS_MAX;
    end = length - index > remote->ahead ? index + remote->ahead : length;
    if (end > index + 1)
        (void)!hw_mirror_want(remote->mirror, index + 1, end, NULL); /* fetched alone otherwise */
    remote->last_fetch = index;
    remote->ahead_end = end;
    want_later(remote);
    status = hw_mirror_fetch(remote->mirror, index, err);
    if (status == HW_EPRUNED && remote->is_live)
        start_over(remote);
    return status;
}

void hw_api_remote_attach(struct hw_api_remote *remote, struct hw_core *core)
{
    struct hw_core_fetcher fetcher = {remote_fetch, remote};

    remote->core = core;
    hw_core_set_fetcher(core, &fetcher);
}

void hw_api_remote_want(struct hw_api_remote *remote, struct hw_core *core,
                        const struct hw_target *target)
{
    (void)!hw_state_blocks(core, target, want_range, remote, NULL);
}

void hw_api_remote_want_all(struct hw_api_remote *remote)
{
    want_range(remote, 0, hw_core_length(remote->core));
}
