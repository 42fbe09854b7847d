/* Implements the replica's side of vfs/shim.h: what its follower tells through the shared page. */
#include "apply/apply.h"
#include "base/alloc.h"
#include "env/shared_page.h"
#include "vfs/shim.h"

enum hw_status hw_shim_is_replica(struct hw_shim *shim, const char *path, bool *out,
                                  struct hw_error *err)
{
    char *name = hw_format("%s-hyper/replica", path);
    enum hw_status status;

    if (name == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory to see if it is a replica", path);
    status = hw_env_exists(shim->env, name, out, err);
    hw_free(name);
    return status;
}

/* NULL in *out: no follower is at work. */
static enum hw_status open_page(struct hw_shim_file *file, struct hw_shared_page **out,
                                struct hw_error *err)
{
    char *dir = hw_format("%s-hyper", file->path);
    enum hw_status status;

    *out = NULL;
    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to ask the follower");
    status = hw_shared_page_open(file->shim->env, dir, false, out, err);
    hw_free(dir);
    return status == HW_ENOTFOUND ? HW_OK : status;
}

static enum hw_status seq_now(struct hw_shim_file *file, struct hw_shared_page *page, uint64_t *seq,
                              struct hw_error *err)
{
    struct hw_replica_info info;
    enum hw_status status;

    *seq = page == NULL ? UINT64_MAX : hw_shared_applied_seq(page);
    if (*seq != UINT64_MAX)
        return HW_OK;
    status = hw_replica_info(file->shim->env, file->path, &info, err);
    if (status == HW_OK)
        *seq = info.seq;
    return status;
}

enum hw_status hw_shim_replica_seq(struct hw_shim_file *file, uint64_t *seq, struct hw_error *err)
{
    struct hw_shared_page *page;
    enum hw_status status = open_page(file, &page, err);

    if (status == HW_OK)
        status = seq_now(file, page, seq, err);
    hw_shared_page_close(page);
    return status;
}

/* One look; if `seq` is not applied yet, sleep for a while.  HW_AGAIN: look once more. */
static enum hw_status look(struct hw_shim_file *file, uint64_t seq, uint64_t left_ns,
                           uint64_t *applied, struct hw_error *err)
{
    enum { SLICE_NS = 100000000 }; /* a follower may come, die, or be replaced meanwhile */
    struct hw_env *env = file->shim->env;
    struct hw_shared_page *page;
    enum hw_status status = open_page(file, &page, err);
    uint64_t slice = left_ns < SLICE_NS ? left_ns : SLICE_NS;
    uint32_t seen;

    if (status != HW_OK)
        return status;
    seen = page == NULL ? 0 : hw_shared_wake_count(page);
    status = seq_now(file, page, applied, err);
    if (status == HW_OK && (*applied == UINT64_MAX || *applied < seq)) {
        status = HW_AGAIN;
        if (page != NULL) {
            hw_shared_wait(page, seen, slice);
        } else {
            uint32_t word = 0; /* nobody wakes it: a sleep that ends by itself */

            env->ops->wait_word(env, &word, 0, slice);
        }
    }
    hw_shared_page_close(page);
    return status;
}

enum hw_status hw_shim_replica_wait(struct hw_shim_file *file, uint64_t seq, uint64_t timeout_ms,
                                    struct hw_error *err)
{
    struct hw_env *env = file->shim->env;
    uint64_t deadline = env->ops->monotonic_ns(env) + timeout_ms * 1000000;
    uint64_t left_ns = timeout_ms * 1000000;
    uint64_t applied;
    enum hw_status status;

    for (;;) {
        uint64_t now;

        status = look(file, seq, left_ns, &applied, err);
        if (status != HW_AGAIN)
            return status;
        if (left_ns == 0)
            break; /* that was the last look */
        now = env->ops->monotonic_ns(env);
        left_ns = now < deadline ? deadline - now : 0;
    }
    return hw_fail(err, HW_ETIMEOUT,
                   "seq %llu is not applied yet, the replica is at %lld: is its follower running?",
                   (unsigned long long)seq, applied == UINT64_MAX ? -1LL : (long long)applied);
}
