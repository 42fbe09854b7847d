/* What others have of the old log, and to catch up with it: a part of api_promote.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api_promote.h"
#include "base/alloc.h"

enum {
    HAND_OVER_MS = 5000, /* for writers to end their transactions */
    ASK_MS = 4000,       /* for a peer to answer */
    STEP_MS = 200,
    PATIENCE_MS = 15000, /* without a block that came */
    ALONE_MS = 1000,     /* the same, if nobody is there who could send one */
};

/* What a peer says of the log that the replica followed. */
struct peer_state {
    bool is_primary; /* it writes the log, or may */
    bool is_mirror;  /* of this machine: a replica's */
    bool is_other;   /* it serves another log by that name */
    uint64_t length, fork;
};

/* The first number, or string, of this name in a state: those of the log come before its peers'. */
static const char *field(const char *json, const char *name)
{
    const char *at = strstr(json, name);

    return at == NULL ? NULL : at + strlen(name);
}

static bool state_parse(const char *json, const uint8_t key[HW_KEY_SIZE], struct peer_state *out)
{
    const char *role = field(json, "\"role\":"), *length = field(json, "\"length\":");
    const char *named = field(json, "\"key\":\""), *fork = field(json, "\"fork\":");
    char hex[2 * HW_KEY_SIZE + 1];

    if (role == NULL || length == NULL || named == NULL || fork == NULL)
        return false;
    hw_key_format(key, hex);
    *out = (struct peer_state){
        .is_primary = strncmp(role, "\"primary\"", 9) == 0,
        .is_other = strncmp(named, hex, strlen(hex)) != 0,
        .length = strtoull(length, NULL, 10),
        .fork = strtoull(fork, NULL, 10),
    };
    return true;
}

/* A dial that ended so found nobody.  Else it is of this system, and tells nothing of the other. */
static bool found_nobody(const struct hw_error *why)
{
    return why->os_errno == 0 &&
           (why->status == HW_EREFUSED || why->status == HW_ETIMEOUT || why->status == HW_EIO ||
            why->status == HW_ENOTFOUND || why->status == HW_EMISUSE); /* has no such address */
}

/*
 * HW_END: nobody is there, or somebody who says that he has no such log.  A failure: we could not
 * ask, or somebody is there who does not say how the log is.
 */
static enum hw_status ask(struct hw_promotion *p, const struct hw_address *address,
                          struct peer_state *out, struct hw_error *err)
{
    struct hw_buffer text = {0};
    struct hw_error why = {0};
    bool is_there = false;
    enum hw_status status = HW_OK;

    if (p->node == NULL)
        status = hw_api_node_open(NULL, &p->node, err);
    if (status != HW_OK)
        return status;
    status = hw_hub_ask(p->node->hub, address, ASK_MS, &text, &is_there, &why);
    if (status == HW_OK)
        hw_buffer_add_u8(&text, 0);
    if (text.failed)
        status = hw_fail(&why, HW_ENOMEM, "no memory to ask a peer");
    else if (status == HW_OK && !state_parse((const char *)text.bytes, p->info.key, out))
        status = hw_fail(&why, HW_EPROTOCOL, "%s: its answer means nothing", address->dial);
    hw_buffer_release(&text);
    if (is_there ? status == HW_ENOTFOUND : status != HW_OK && found_nobody(&why))
        return HW_END;
    if (status != HW_OK && err != NULL)
        *err = why;
    return status;
}

/*
 * A log of this machine: does somebody write it now?  Without a lock file nobody does; one that
 * cannot be opened or locked for another reason tells nothing.
 */
static enum hw_status is_written(struct hw_env *env, const char *dir, bool *is,
                                 struct hw_error *err)
{
    char *path = hw_format("%s/worker.lock", dir);
    struct hw_file *lock = NULL;
    enum hw_status status;

    if (path == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a path");
    status =
        env->ops->open(env, path, HW_OPEN_READ | HW_OPEN_WRITE | HW_OPEN_CLOSE_ON_FORK, &lock, err);
    *is = false;
    if (status == HW_OK) {
        status = env->ops->lock(lock, false, err);
        *is = status == HW_EBUSY;
    }
    env->ops->close(lock);
    hw_free(path);
    return *is || status == HW_ENOTFOUND ? HW_OK : status;
}

/* A log of this machine.  HW_END: it is gone. */
static enum hw_status look_here(struct hw_promotion *p, const char *dir, struct peer_state *out,
                                struct hw_error *err)
{
    struct hw_core *core = NULL;
    bool is_primary = false;
    enum hw_status status = hw_core_open(p->env, dir, HW_CORE_READ, UINT64_MAX, &core, err);

    if (status == HW_ENOTFOUND)
        return HW_END;
    if (status == HW_OK)
        status = is_written(p->env, dir, &is_primary, err);
    if (status == HW_OK)
        *out = (struct peer_state){
            .is_primary = is_primary,
            .is_mirror = hw_core_is_mirror(core),
            .is_other = memcmp(hw_core_identity(core)->key, p->info.key, HW_KEY_SIZE) != 0,
            .length = hw_core_length(core),
            .fork = hw_core_head(core).fork,
        };
    hw_core_close(core);
    return status;
}

/* HW_END: it does not count.  Where it cannot be told whether it goes on, somebody has to say. */
static enum hw_status look(struct hw_promotion *p, const char *peer, struct peer_state *out,
                           struct hw_error *err)
{
    struct hw_address address;
    bool is_remote = hw_address_is_remote(peer);
    enum hw_status status = is_remote ? hw_address_parse(peer, &address, err) : HW_OK;

    if (status != HW_OK)
        return status;
    status = is_remote ? ask(p, &address, out, err) : look_here(p, peer, out, err);
    if (status >= 0)
        return status;
    if (p->is_forced)
        return HW_END;
    return hw_prefix(err, status,
                     "%s: whether the primary is there and goes on cannot be told: mend what is in "
                     "the way, or use --force",
                     peer);
}

/* The most that anybody has who answers; *who has it. */
static enum hw_status look_at_all(struct hw_promotion *p, struct peer_state *most, const char **who,
                                  struct hw_error *err)
{
    enum hw_status status = HW_OK;

    *most = (struct peer_state){.length = 0};
    *who = NULL;
    for (unsigned i = 0; i < p->peer_count; i++) {
        struct peer_state state;

        status = look(p, p->peers[i], &state, err);
        if (status == HW_END)
            continue;
        if (status != HW_OK)
            return status;
        if (state.is_other && !p->is_forced)
            return hw_fail(err, HW_EBUSY,
                           "%s: serves another log by that name: somebody goes on already; follow "
                           "it, or use --force",
                           p->peers[i]);
        if (state.is_other)
            continue;
        if (state.is_primary && !p->is_forced && p->from == NULL)
            return hw_fail(err, HW_EBUSY,
                           "%s: the primary is there and answers; --from %s takes over without "
                           "loss; --force promotes all the same, and the two go on apart",
                           p->peers[i], p->peers[i]);
        if (*who == NULL || state.fork > most->fork ||
            (state.fork == most->fork && state.length > most->length)) {
            *most = state;
            *who = p->peers[i];
        }
    }
    return HW_OK;
}

/* --------------------------------------------------------------------------- catching up */

static enum hw_status follow_open(struct hw_promotion *p, hyperwal_follower **out,
                                  struct hw_error *err)
{
    unsigned count = p->peer_count < HW_HUB_SOURCES_MAX ? p->peer_count : HW_HUB_SOURCES_MAX;
    char *error = NULL;
    int code;

    if (count > 1 && !hw_address_is_remote(p->peers[0]))
        count = 1;
    code = hyperwal_follow_sources(p->node, p->peers, count, p->path, p->progress, p->progress_ctx,
                                   out, &error);
    if (code != SQLITE_OK)
        (void)hw_fail(err, code == SQLITE_BUSY ? HW_EBUSY : HW_EIO, "%s",
                      error != NULL ? error : "cannot be followed");
    sqlite3_free(error);
    return code == SQLITE_OK ? HW_OK : code == SQLITE_BUSY ? HW_EBUSY : HW_EIO;
}

/* Apply all there is; ends when nothing comes any more, or `length` blocks are applied. */
static enum hw_status follow(struct hw_promotion *p, hyperwal_follower *follower, uint64_t length,
                             struct hw_error *err)
{
    uint64_t patience = (length > 0 ? PATIENCE_MS : ALONE_MS) * 1000000ULL;
    uint64_t since = p->env->ops->monotonic_ns(p->env);

    for (;;) {
        int code = hyperwal_follow_step(follower, STEP_MS);
        uint64_t seq = hyperwal_follow_seq(follower), now = p->env->ops->monotonic_ns(p->env);

        if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_BUSY &&
            code != HYPERWAL_CORRUPT) /* which the next step repairs */
            return hw_fail(err, code == SQLITE_INTERRUPT ? HW_AGAIN : HW_EIO, "%s: %s", p->path,
                           hyperwal_follow_errmsg(follower));
        if (code == SQLITE_OK)
            since = now;
        else if (hyperwal_follow_lag(follower) == 0 && seq != HYPERWAL_SEQ_NONE &&
                 seq + 1 >= length)
            return HW_OK;
        else if (now - since >= patience)
            return HW_END;
        if (p->progress != NULL && p->progress(p->progress_ctx, seq + 1, length) == 0)
            return hw_fail(err, HW_AGAIN, "stopped");
    }
}

/* There is no log any more where the replica was fed from, on this machine. */
static bool is_source_gone(struct hw_promotion *p)
{
    struct peer_state state;

    return !hw_address_is_remote(p->peers[0]) && look_here(p, p->peers[0], &state, NULL) == HW_END;
}

enum hw_status hw_promotion_catch_up(struct hw_promotion *p, struct hw_error *err)
{
    hyperwal_follower *follower = NULL;
    struct peer_state most;
    const char *who;
    uint64_t lag;
    enum hw_status status = look_at_all(p, &most, &who, err);

    if (status != HW_OK)
        return status;
    if (p->peer_count == 0 && p->is_forced)
        return HW_OK;
    if (p->peer_count == 0)
        return hw_fail(err, HW_EBUSY,
                       "%s: it does not say where it was fed from, so nobody can be asked whether "
                       "the primary goes on; name others with --also, or use --force",
                       p->path);
    status = follow_open(p, &follower, err);
    if (status != HW_OK && status != HW_EBUSY &&
        (p->is_forced || (who == NULL && is_source_gone(p))))
        return HW_OK;    /* what is here is what there is */
    if (status != HW_OK) /* blocks of the mirror may wait to be applied, whoever is there */
        return status;
    status = follow(p, follower, who != NULL ? most.length : 0, err);
    lag = hyperwal_follow_lag(follower);
    hyperwal_follow_close(follower);
    if (status != HW_END || p->is_forced)
        return status == HW_END ? HW_OK : status;
    return hw_fail(err, HW_EBUSY,
                   "%s: %llu blocks of the log are not here, and %s; --force promotes it without "
                   "them",
                   p->path, (unsigned long long)lag,
                   who != NULL ? who : "nobody answers who has them");
}

/* ----------------------------------------------------------------------------- handing over */

/* With a connection of ours that reads somebody has the role of its worker. */
static enum hw_status open_writer(const struct hw_promotion *p, sqlite3 **db, struct hw_error *err)
{
    char *error = NULL;
    enum hw_status status = HW_OK;
    int code = hyperwal_open(p->from, SQLITE_OPEN_READWRITE, db, &error);

    if (code == SQLITE_OK)
        code = sqlite3_exec(*db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if (code != SQLITE_OK)
        status =
            hw_fail(err, HW_EIO, "%s: %s", p->from, error != NULL ? error : sqlite3_errmsg(*db));
    sqlite3_free(error);
    return status;
}

/*
 * A database of this machine: whoever writes it does it; if nobody has it open, we do.  So, too, if
 * who had it open went away without an answer, as a server does whose database comes to rest.
 */
static enum hw_status hand_over_local(struct hw_promotion *p, const uint8_t key[HW_KEY_SIZE],
                                      uint64_t *seq, struct hw_error *err)
{
    char *dir = NULL;
    sqlite3 *db = NULL;
    bool has_worker = false;
    enum hw_status status = hw_api_log_dir(p->env, p->from, &dir, err);

    if (status == HW_OK)
        status = is_written(p->env, dir, &has_worker, err);
    if (status == HW_OK && !has_worker)
        status = open_writer(p, &db, err);
    if (status == HW_OK)
        status = hw_capture_hand_over(p->env, dir, key, HAND_OVER_MS, seq, err);
    if (status == HW_ETIMEOUT && has_worker &&
        is_written(p->env, dir, &has_worker, NULL) == HW_OK && !has_worker) {
        status = open_writer(p, &db, err);
        if (status == HW_OK)
            status = hw_capture_hand_over(p->env, dir, key, HAND_OVER_MS, seq, err);
    }
    (void)sqlite3_close(db); /* nothing was prepared on it */
    hw_free(dir);
    return status;
}

static enum hw_status hand_over(struct hw_promotion *p, const uint8_t key[HW_KEY_SIZE],
                                uint64_t *seq, struct hw_error *err)
{
    struct hw_address address;
    enum hw_status status;

    if (!hw_address_is_remote(p->from))
        return hand_over_local(p, key, seq, err);
    status = hw_address_parse(p->from, &address, err);
    if (status == HW_OK && p->node == NULL)
        status = hw_api_node_open(NULL, &p->node, err);
    if (status == HW_OK)
        status =
            hw_hub_hand_over(p->node->hub, &address, key, 2 * (uint64_t)HAND_OVER_MS, seq, err);
    return status;
}

static enum hw_status look_at_from(struct hw_promotion *p, struct peer_state *out,
                                   struct hw_error *err)
{
    struct hw_address address;
    char *dir = NULL;
    enum hw_status status;

    if (hw_address_is_remote(p->from)) {
        status = hw_address_parse(p->from, &address, err);
        return status == HW_OK ? ask(p, &address, out, err) : status;
    }
    status = hw_api_log_dir(p->env, p->from, &dir, err);
    if (status == HW_OK)
        status = look_here(p, dir, out, err);
    if (status == HW_OK && !out->is_mirror) /* also while nobody has it open */
        out->is_primary = true;
    hw_free(dir);
    return status;
}

/* A log that was ended stays so: it has to be the one that the replica follows, whoever forces. */
static enum hw_status check_from(struct hw_promotion *p, struct hw_error *err)
{
    struct peer_state state = {.length = 0};
    enum hw_status status = hw_replica_info(p->env, p->path, &p->info, err);

    if (status == HW_OK)
        status = look_at_from(p, &state, err);
    if (status == HW_END)
        return hw_fail(err, HW_ENOTFOUND,
                       "%s: nobody there answers who has the log that %s follows", p->from,
                       p->path);
    if (status != HW_OK)
        return status;
    if (state.is_other)
        return hw_fail(err, HW_EEXIST,
                       "%s: has another log than the one that %s follows, and is left as it is",
                       p->from, p->path);
    if (!state.is_primary)
        return hw_fail(err, HW_EREADONLY, "%s: is not the primary of the log that %s follows",
                       p->from, p->path);
    return HW_OK;
}

/* Two at once would take what the other one has half made for what is left of one that died. */
static enum hw_status prepare(struct hw_promotion *p, uint8_t key[HW_KEY_SIZE],
                              struct hw_error *err)
{
    struct hw_file *lock = NULL;
    enum hw_status status = hw_replica_lock(p->env, p->path, &lock, err);

    if (status == HW_OK)
        status = hw_promotion_prepare(p, key, err);
    p->env->ops->close(lock);
    return status;
}

enum hw_status hw_promotion_hand_over(struct hw_promotion *p, struct hw_error *err)
{
    hyperwal_follower *follower = NULL;
    uint8_t key[HW_KEY_SIZE];
    uint64_t seq = 0;
    enum hw_status status = check_from(p, err);

    if (status == HW_OK)
        status = prepare(p, key, err);
    if (status == HW_OK)
        status = hand_over(p, key, &seq, err);
    if (status != HW_OK)
        return status;
    /* From here on the old primary has ended: what is missing is asked for until it is here. */
    status = follow_open(p, &follower, err);
    if (status == HW_OK) {
        status = follow(p, follower, seq + 1, err);
        hyperwal_follow_close(follower);
    }
    if (status == HW_END)
        status =
            hw_fail(err, HW_ETIMEOUT, "blocks up to seq %llu do not come", (unsigned long long)seq);
    if (status != HW_OK)
        return hw_prefix(err, status,
                         "%s has ended its log, and waits for %s to go on: call this again when it "
                         "can be reached",
                         p->from, p->path);
    return HW_OK;
}
