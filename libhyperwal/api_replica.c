/* Implements hyperwal_replica_info() of include/hyperwal.h. */
#include <string.h>

#include "api_log.h"
#include "base/alloc.h"

enum { LOOK_BACK = 4096 }; /* blocks before the record among which the file's state is looked for */

/* The entry from `from` to `to` after which the state has `sum`.  HW_END: there is none. */
static enum hw_status find_sum(const char *path, uint64_t from, uint64_t to, uint64_t sum,
                               uint64_t *found, struct hw_error *err)
{
    struct hyperwal_log *log = NULL;
    struct hw_entry_summary entry = {0};
    enum hw_status status = hw_api_log_open(path, &log, err);
    bool is_it = false;

    for (uint64_t seq = from; status == HW_OK && !is_it;) {
        uint64_t first = seq;

        status = seq <= to ? hw_entry_next(log->core, &seq, &entry, err) : HW_END;
        if (status == HW_OK)
            is_it = entry.page_count != 0 && entry.sum == sum;
        else if ((status == HW_EPRUNED || status == HW_EMISSING) && seq > first)
            status = HW_OK; /* given up, or never had: no state of now */
    }
    hyperwal_log_close(log);
    if (status == HW_OK)
        *found = entry.seq;
    return status == HW_ENOTFOUND ? HW_END : status; /* no log */
}

/*
 * The sum of the file is not that of the record `info`.  It may be in the state of a later one that
 * came meanwhile, or of an earlier one: a record comes before the pages that it tells of, and a
 * loss of power may have left it without them.  But where a follower has ended in good order, and
 * none came since, the file is as it says.  *info becomes what was found.
 */
static enum hw_status find_state(struct hw_env *env, const char *path, uint64_t sum,
                                 struct hw_replica_info *info, struct hw_error *err)
{
    uint64_t from = info->seq > LOOK_BACK ? info->seq - LOOK_BACK : 0;
    struct hw_replica_info after;
    enum hw_status status = hw_replica_info(env, path, &after, err);

    if (status != HW_OK)
        return status;
    if (sum == after.sum) {
        *info = after;
        return HW_OK;
    }
    status = HW_END;
    if (!after.is_closed || after.record != info->record)
        status = find_sum(path, from, after.seq, sum, &info->seq, err);
    if (status == HW_OK)
        info->sum = sum;
    if (status != HW_END)
        return status;
    return hw_fail(
        err, HW_ECORRUPT,
        "%s: state sum %016llx, and the log says %016llx at seq %llu: not the state that "
        "was committed; remove the file and follow again",
        path, (unsigned long long)sum, (unsigned long long)after.sum,
        (unsigned long long)after.seq);
}

/* *info becomes the state that the file is in. */
static enum hw_status replica_verify(struct hw_env *env, const char *path,
                                     struct hw_replica_info *info, struct hw_error *err)
{
    uint32_t page_size, page_count;
    uint64_t sum = 0;
    enum hw_status status =
        hw_database_sum(hw_api_base_vfs(), path, &page_size, &page_count, &sum, err);

    if (status == HW_ENOTFOUND)
        status = HW_EMISSING; /* it is a replica, whose file was removed */
    if (status != HW_OK || sum == info->sum)
        return status;
    return find_state(env, path, sum, info, err);
}

int hyperwal_replica_info(const char *path, int verify, unsigned char key[32],
                          uint64_t *applied_seq, uint64_t *sum, char **error)
{
    struct hw_env *env = hw_env_posix();
    struct hw_replica_info info;
    struct hw_error err = {0};
    char *real = NULL; /* owned */
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    status = hw_api_real_path(env, path, &real, &err);
    if (status == HW_OK)
        status = hw_replica_info(env, real, &info, &err);
    if (status == HW_OK && verify != 0)
        status = replica_verify(env, real, &info, &err);
    hw_free(real);
    if (status != HW_OK) {
        hw_api_tell(error, &err);
        return status == HW_ENOTFOUND ? SQLITE_NOTFOUND : hw_api_code(status);
    }
    if (key != NULL)
        memcpy(key, info.key, HW_KEY_SIZE);
    if (applied_seq != NULL)
        *applied_seq = info.seq;
    if (sum != NULL)
        *sum = info.sum;
    return SQLITE_OK;
}
