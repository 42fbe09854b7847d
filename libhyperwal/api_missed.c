/*
 * Implements the part of api_follow.h about changes of the primary that were missed, where all logs
 * are of this machine: those in between are kept beside the one that goes on now.
 */
#include <string.h>

#include "api_follow.h"
#include "base/alloc.h"
#include "hypercore/keep.h"

enum { READERS_WAIT_NS = 2000000 }; /* until old readers are asked again to leave the WAL */

enum hw_status hw_follow_before(struct hyperwal_log *log, uint8_t key[HW_KEY_SIZE],
                                struct hw_error *err)
{
    struct hw_switch switch_;
    enum hw_status status = hw_switch_read(log->core, HW_FOLLOW_SWITCH_SEQ, &switch_, err);

    if (status == HW_ENOTFOUND || (status == HW_OK && switch_.role != HW_SWITCH_CONTINUES))
        return HW_END;
    if (status == HW_OK)
        memcpy(key, switch_.key, HW_KEY_SIZE);
    return status;
}

enum hw_status hw_follow_kept_heir(struct hyperwal_log *log, const uint8_t own[HW_KEY_SIZE],
                                   struct hyperwal_log **out, struct hw_error *err)
{
    struct hyperwal_log *kept = NULL; /* owned; NULL: at `log` itself */
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < HW_FOLLOW_CHANGES_MAX; i++) {
        uint8_t older[HW_KEY_SIZE];
        char *dir;

        status = hw_follow_before(kept != NULL ? kept : log, older, err);
        if (status == HW_OK && memcmp(older, own, HW_KEY_SIZE) == 0) {
            *out = kept;
            return HW_OK;
        }
        hyperwal_log_close(kept);
        kept = NULL;
        if (status != HW_OK)
            break;
        dir = hw_keep_dir(log->dir, older);
        if (dir == NULL)
            return hw_fail(err, HW_ENOMEM, "%s: no memory to look for what it goes on from",
                           log->dir);
        status = hw_api_log_attach(dir, NULL, &kept, err);
        if (status != HW_OK)
            break; /* it is not kept */
    }
    hyperwal_log_close(kept);
    return status == HW_ENOMEM || status == HW_EIO ? status : HW_END; /* it may be kept */
}

/* Apply what is there of a kept log; what is not, the next one makes up for by a snapshot. */
static enum hw_status apply_kept(struct hyperwal_follower *follower, struct hyperwal_log *kept,
                                 hw_progress *progress, struct hw_error *err)
{
    struct hw_replica *replica = NULL;
    uint32_t nobody = 0;
    enum hw_status status = hw_replica_open(kept->env, hw_api_base_vfs(), kept->core,
                                            follower->path, progress, follower, &replica, err);

    while (status == HW_OK || status == HW_AGAIN) {
        if (status == HW_AGAIN)
            kept->env->ops->wait_word(kept->env, &nobody, 0, READERS_WAIT_NS);
        status = hw_follow_goes_on(follower) ? hw_replica_step(replica, err)
                                             : hw_fail(err, HW_EBUSY, "stopped");
    }
    hw_replica_close(replica);
    return status == HW_END || status == HW_EPRUNED || status == HW_EMISSING ? HW_OK : status;
}

enum hw_status hw_follow_missed(struct hyperwal_follower *follower, hw_progress *progress,
                                struct hw_error *err)
{
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < HW_FOLLOW_CHANGES_MAX && status == HW_OK; i++) {
        struct hyperwal_log *log = follower->log, *kept = NULL;
        struct hw_replica_info info;

        status = hw_replica_info(log->env, follower->path, &info, err);
        if (status != HW_OK)
            return status == HW_ENOTFOUND ? HW_OK : status; /* there is none yet */
        if (memcmp(info.key, hw_core_identity(log->core)->key, HW_KEY_SIZE) == 0)
            return HW_OK;
        status = hw_follow_kept_heir(log, info.key, &kept, err);
        if (status == HW_END || (status == HW_OK && kept == NULL))
            return HW_OK; /* who opens the replica sees how they stand */
        if (status == HW_OK)
            status = apply_kept(follower, kept, progress, err);
        hyperwal_log_close(kept);
    }
    return status;
}
