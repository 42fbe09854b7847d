/* Implements the part of api_follow.h about logs that go on from ours. */
#include <string.h>

#include "api_follow.h"
#include "base/alloc.h"
#include "hypercore/keep.h"
#include "node/names.h"

enum {
    RESOLVE_MS = 5000,
    PATIENCE_MS = 3000, /* for sources that still have more of the old log */
};
#define AGAIN_NS (60 * (uint64_t)1000000000) /* a log in between may be had by then */

/*
 * The first blocks of a log that nobody follows here, through a mirror that is gone afterwards.
 * `by_name`: it has the source's name, and is not one that is kept there.
 */
static enum hw_status heir_open(struct hyperwal_follower *follower, const char *source,
                                const uint8_t key[HW_KEY_SIZE], bool by_name,
                                struct hyperwal_log **out, struct hw_error *err)
{
    struct hw_api_remote_options options = {.node = follower->node,
                                            .sources = &source,
                                            .source_count = 1,
                                            .key = key,
                                            .is_known = !by_name,
                                            .go_on = hw_follow_goes_on,
                                            .ctx = follower};

    return hw_api_log_open_remote(&options, out, err);
}

/* The replica as it is; one that is not made yet is one of the log that the petname names. */
static enum hw_status own_info(struct hyperwal_follower *follower, struct hw_replica_info *out,
                               struct hw_error *err)
{
    enum hw_status status = hw_replica_info(hw_env_posix(), follower->path, out, err);

    if (status != HW_ENOTFOUND || !follower->has_name_key)
        return status;
    *out = (struct hw_replica_info){.seq = UINT64_MAX};
    memcpy(out->key, follower->name_key, HW_KEY_SIZE);
    return HW_OK;
}

/*
 * The log that goes on from `own`, on the way to the one that has the source's name: that one, or
 * one that it goes on from, which the source keeps.  `key`: of the first, then of the one found.
 * HW_END: the first goes on from none, or not from ours; HW_EMISSING: it goes on from one that the
 * source has not got, or has not come so far as to say it, so nobody can tell.
 */
static enum hw_status heir_find(struct hyperwal_follower *follower, const char *source,
                                const uint8_t own[HW_KEY_SIZE], uint8_t key[HW_KEY_SIZE],
                                struct hyperwal_log **out, struct hw_error *err)
{
    for (unsigned i = 0; i < HW_FOLLOW_CHANGES_MAX; i++) {
        struct hyperwal_log *log = NULL;
        uint8_t older[HW_KEY_SIZE];
        char hex[2 * HW_KEY_SIZE + 1];
        struct hw_error why = {0};
        enum hw_status status = heir_open(follower, source, key, i == 0, &log, &why);

        if (status == HW_OK && hw_core_length(log->core) <= HW_FOLLOW_SWITCH_SEQ)
            status = hw_fail(
                &why, HW_EMISSING, "%s: what the log there goes on from cannot be told: it has %s",
                source, hw_core_length(log->core) == 0 ? "no block" : "one block alone");
        if (status == HW_OK)
            status = hw_follow_before(log, older, &why);
        if (status == HW_OK && memcmp(older, own, HW_KEY_SIZE) == 0) {
            *out = log;
            return HW_OK;
        }
        hyperwal_log_close(log);
        hw_key_format(key, hex);
        if (status == HW_AGAIN || (status != HW_OK && i == 0))
            *err = why;
        if (status == HW_AGAIN || status == HW_END || (status != HW_OK && i == 0))
            return status;
        if (status != HW_OK)
            return hw_fail(err, HW_EMISSING,
                           "%s: the log there goes on from %s, and what that one goes on from "
                           "cannot be told: %.80s",
                           source, hex, why.message);
        memcpy(key, older, HW_KEY_SIZE);
    }
    return HW_END;
}

/*
 * How does the log to go over to stand to our replica, on the way to `key`, which `source` has?
 * `key` becomes that of the log.
 */
static enum hw_status heir_look(struct hyperwal_follower *follower, const char *source,
                                uint8_t key[HW_KEY_SIZE], enum hw_relation *relation,
                                struct hw_error *err)
{
    struct hyperwal_log *log = NULL;
    struct hw_replica_info info;
    struct hw_switch switch_;
    enum hw_status status = own_info(follower, &info, err);

    if (status == HW_OK)
        status = heir_find(follower, source, info.key, key, &log, err);
    if (status == HW_OK)
        status = hw_replica_relation(log->core, &info, relation, &switch_, err);
    if (status == HW_END) {
        *relation = HW_RELATION_STRANGER;
        status = HW_OK;
    }
    hyperwal_log_close(log);
    return status;
}

static void heir_take(struct hyperwal_follower *follower, const uint8_t key[HW_KEY_SIZE])
{
    follower->has_heir = true;
    follower->has_stranger = false;
    memcpy(follower->heir_key, key, HW_KEY_SIZE);
    follower->behind_ns = 0;
}

/* Told once; looked at again at `again_ns`. */
static void stranger_tell(struct hyperwal_follower *follower, const char *source,
                          const uint8_t key[HW_KEY_SIZE], uint64_t again_ns, const char *why)
{
    char hex[2 * HW_KEY_SIZE + 1];
    bool is_told = follower->has_stranger && memcmp(follower->stranger_key, key, HW_KEY_SIZE) == 0;

    follower->has_stranger = true;
    follower->stranger_again_ns = again_ns;
    memcpy(follower->stranger_key, key, HW_KEY_SIZE);
    if (is_told)
        return;
    hw_key_format(key, hex);
    hw_env_log(hw_env_posix(), HW_LOG_WARN,
               "event=source_has_another_log path=%s source=%s key=%s reason=\"%s\"",
               follower->path, source, hex, why);
}

static uint64_t now_ns(void)
{
    struct hw_env *env = hw_env_posix();

    return env->ops->monotonic_ns(env);
}

static bool is_known_stranger(const struct hyperwal_follower *follower,
                              const uint8_t key[HW_KEY_SIZE])
{
    return follower->has_stranger && memcmp(follower->stranger_key, key, HW_KEY_SIZE) == 0 &&
           now_ns() < follower->stranger_again_ns;
}

/*
 * Blocks before the switch are still to come, while somebody has them: then nothing of the heir's
 * snapshot has to be fetched.
 */
static bool waits_for_more(struct hyperwal_follower *follower,
                           const struct hw_mirror_status *mirror)
{
    uint64_t now = now_ns();

    if (follower->behind_ns == 0)
        follower->behind_ns = now;
    return now - follower->behind_ns < PATIENCE_MS * 1000000ULL ||
           (mirror->connected > 0 && hyperwal_follow_lag(follower) > 0);
}

bool hw_follow_has_heir(struct hyperwal_follower *follower, bool is_hopeless)
{
    enum hw_relation relation = HW_RELATION_STRANGER;
    struct hw_mirror_status mirror;
    struct hw_error err = {0};
    const char *source;
    uint8_t key[HW_KEY_SIZE];
    enum hw_status status;

    if (follower->mirror == NULL || follower->replica == NULL)
        return false;
    hw_mirror_status(follower->mirror, &mirror);
    if (!mirror.has_moved || is_known_stranger(follower, mirror.moved_key))
        return false;
    source = follower->sources[mirror.moved_source];
    memcpy(key, mirror.moved_key, HW_KEY_SIZE);
    status = heir_look(follower, source, key, &relation, &err);
    if (status == HW_EMISSING)
        stranger_tell(follower, source, mirror.moved_key, now_ns() + AGAIN_NS, err.message);
    if (status != HW_OK)
        return false; /* asked again when it is dialed again */
    if (relation == HW_RELATION_STRANGER) {
        stranger_tell(follower, source, mirror.moved_key, UINT64_MAX,
                      "it does not go on from the log that is followed here");
        return false;
    }
    if (relation == HW_RELATION_BEHIND && !is_hopeless && waits_for_more(follower, &mirror))
        return false;
    heir_take(follower, key);
    return true;
}

int hyperwal_follow_stranger(hyperwal_follower *follower, unsigned char key[32])
{
    if (!follower->has_stranger)
        return HYPERWAL_STRANGER_NONE;
    memcpy(key, follower->stranger_key, HW_KEY_SIZE);
    return follower->stranger_again_ns == UINT64_MAX ? HYPERWAL_STRANGER
                                                     : HYPERWAL_STRANGER_PERHAPS;
}

void hw_follow_rename(struct hyperwal_follower *follower)
{
    struct hw_env *env = hw_env_posix();
    struct hw_names *names = NULL;
    struct hw_name *name = NULL;
    struct hw_error err = {0};
    enum hw_status status;

    if (follower->petname == NULL)
        return;
    status = hw_names_open(env, NULL, true, &names, &err);
    if (status == HW_OK)
        status = hw_names_find(names, follower->petname, &name, &err);
    if (status == HW_OK && name->has_key &&
        memcmp(name->key, follower->name_key, HW_KEY_SIZE) == 0) { /* nobody else changed it */
        memcpy(name->key, follower->heir_key, HW_KEY_SIZE);
        status = hw_names_put(names, name, true, &err);
    }
    if (status == HW_OK)
        memcpy(follower->name_key, follower->heir_key, HW_KEY_SIZE);
    else if (status != HW_ENOTFOUND) /* it is followed all the same */
        hw_env_log(env, HW_LOG_WARN, "event=petname_not_changed name=%s reason=\"%s\"",
                   follower->petname, err.message);
    hw_free(name);
    hw_names_close(names);
}

void hw_follow_leave(struct hyperwal_follower *follower)
{
    hw_replica_close(follower->replica);
    hyperwal_log_close(follower->log);
    follower->replica = NULL;
    follower->log = NULL;
    follower->mirror = NULL;
    follower->absent = 0;
}

enum hw_status hw_follow_keep(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hw_env *env = hw_env_posix();
    uint8_t key[HW_KEY_SIZE];
    enum hw_status status = hw_keep_key(env, follower->dir, HW_KEEP_MIRROR, key, err);

    if (status == HW_OK && memcmp(key, follower->heir_key, HW_KEY_SIZE) == 0)
        return HW_OK; /* it is there already */
    return status == HW_OK || status == HW_ENOTFOUND
               ? hw_keep(env, follower->dir, HW_KEEP_MIRROR, err)
               : status;
}

enum hw_status hw_follow_mirror_back(struct hyperwal_follower *follower, const uint8_t *key,
                                     struct hw_error *err)
{
    if (key == NULL && follower->has_name_key)
        key = follower->name_key;
    return hw_keep_mirror_back(hw_env_posix(), follower->dir, key, err);
}

enum hw_status hw_follow_check_promotion(const char *path, const char *dir, struct hw_error *err)
{
    char *promoted = hw_format("%s/%s", dir, HW_REPLICA_PROMOTED);
    bool is_decided = false;
    enum hw_status status;

    if (promoted == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to follow a log");
    status = hw_env_exists(hw_env_posix(), promoted, &is_decided, err);
    hw_free(promoted);
    if (status == HW_OK && is_decided)
        status =
            hw_fail(err, HW_EBUSY,
                    "%s: it is being made a primary; `hyperwal promote` goes on with that", path);
    return status;
}

/* Which log has the name of one of our sources, other than the one that is here? */
static enum hw_status resolve(struct hyperwal_node *node, const char *source,
                              const uint8_t own[HW_KEY_SIZE], uint8_t key[HW_KEY_SIZE],
                              struct hw_error *err)
{
    struct hw_address address;
    enum hw_status status = hw_address_parse(source, &address, err);

    if (status == HW_OK)
        status = hw_hub_resolve(node->hub, &address, RESOLVE_MS, key, err);
    if (status == HW_OK && memcmp(own, key, HW_KEY_SIZE) == 0)
        status = HW_AGAIN;
    return status;
}

static enum hw_status look_at_sources(struct hyperwal_follower *follower,
                                      struct hyperwal_node *node, struct hw_error *err)
{
    struct hw_replica_info info;
    enum hw_status status = own_info(follower, &info, err), looked = HW_OK;

    for (unsigned i = 0; i < follower->source_count && status == HW_OK; i++) {
        enum hw_relation relation = HW_RELATION_STRANGER;
        uint8_t key[HW_KEY_SIZE];
        struct hw_error why = {0};

        looked = resolve(node, follower->sources[i], info.key, key, &why);
        if (looked == HW_OK)
            looked = heir_look(follower, follower->sources[i], key, &relation, &why);
        if (looked == HW_EMISSING)
            *err = why;
        if (looked != HW_OK || relation == HW_RELATION_STRANGER)
            continue;
        heir_take(follower, key);
        status = hw_follow_keep(follower, err);
        return status == HW_OK ? HW_END : status;
    }
    return status == HW_OK && err->status == HW_EMISSING ? HW_EMISSING : status;
}

enum hw_status hw_follow_look_for_heir(struct hyperwal_follower *follower, struct hw_error *err)
{
    struct hyperwal_node *own = NULL;
    struct hw_error first = *err, more = {0};
    enum hw_status status = HW_OK;

    if (follower->node == NULL)
        status = hw_api_node_open(NULL, &own, &more);
    if (status == HW_OK)
        status = look_at_sources(follower, follower->node != NULL ? follower->node : own, &more);
    hyperwal_node_close(own);
    if (status == HW_END)
        return status;
    *err = first;
    if (status == HW_EMISSING)
        (void)hw_fail(err, HW_EFORK, "%s", more.message); /* returned below */
    return HW_EFORK;
}

/* *err: why none of them is one. */
static enum hw_status demote_to_any(struct hyperwal_follower *follower, struct hyperwal_node *node,
                                    const char *path, struct hw_error *err)
{
    uint8_t own[HW_KEY_SIZE], key[HW_KEY_SIZE];
    enum hw_status status = hw_keep_key(hw_env_posix(), follower->dir, HW_KEEP_LOG, own, err);

    for (unsigned i = 0; i < follower->source_count; i++) {
        struct hyperwal_log *heir = NULL;

        if (status != HW_OK && i == 0)
            return status;
        status = resolve(node, follower->sources[i], own, key, err);
        if (status == HW_AGAIN)
            status = hw_fail(err, HW_EEXIST,
                             "%s: a database with a log of its own, not a replica: it is the "
                             "primary of what %s serves",
                             path, follower->sources[i]);
        if (status == HW_OK)
            status = heir_find(follower, follower->sources[i], own, key, &heir, err);
        if (status == HW_END)
            status = hw_fail(err, HW_EEXIST,
                             "%s: a database with a log of its own, not a replica, and the log "
                             "there does not go on from it",
                             path);
        if (status == HW_OK)
            status = hw_follow_demote(path, follower->dir, heir, err);
        hyperwal_log_close(heir);
        if (status == HW_OK) {
            heir_take(follower, key);
            return HW_OK;
        }
    }
    return status;
}

enum hw_status hw_follow_demote_by_name(struct hyperwal_follower *follower, const char *path,
                                        struct hw_error *err)
{
    struct hyperwal_node *own = NULL;
    enum hw_status status = HW_OK;

    if (follower->node == NULL)
        status = hw_api_node_open(NULL, &own, err);
    if (status == HW_OK)
        status = demote_to_any(follower, follower->node != NULL ? follower->node : own, path, err);
    hyperwal_node_close(own);
    return status;
}
