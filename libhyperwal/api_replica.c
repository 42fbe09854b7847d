/* Implements hyperwal_replica_info() of include/hyperwal.h. */
#include <string.h>

#include "api_log.h"
#include "base/alloc.h"

/* Is `sum` the state after one of the entries that a live follower may just be at? */
static enum hw_status log_has_sum(const char *path, uint64_t from, uint64_t to, uint64_t sum,
                                  bool *found, struct hw_error *err)
{
    struct hyperwal_log *log = NULL;
    struct hw_entry_summary entry;
    enum hw_status status = hw_api_log_open(path, &log, err);

    *found = false;
    for (uint64_t seq = from; status == HW_OK && !*found && seq <= to;) {
        uint64_t first = seq;

        status = hw_entry_next(log->core, &seq, &entry, err);
        if (status == HW_OK)
            *found = entry.page_count != 0 && entry.sum == sum;
        else if ((status == HW_EPRUNED || status == HW_EMISSING) && seq > first)
            status = HW_OK; /* given up, or never had: no state of now */
    }
    hyperwal_log_close(log);
    return status == HW_END || status == HW_ENOTFOUND ? HW_OK : status; /* the end, or no log */
}

/* The sum of the file is that of the record, or of an entry applied while we were looking. */
static enum hw_status replica_verify(struct hw_env *env, const char *path,
                                     struct hw_replica_info *info, struct hw_error *err)
{
    struct hw_replica_info after;
    uint32_t page_size, page_count;
    uint64_t sum = 0;
    bool found;
    enum hw_status status;

    status = hw_database_sum(hw_api_base_vfs(), path, &page_size, &page_count, &sum, err);
    if (status == HW_ENOTFOUND)
        status = HW_EMISSING; /* it is a replica, whose file was removed */
    if (status != HW_OK)
        return status;
    if (sum == info->sum)
        return HW_OK;
    status = hw_replica_info(env, path, &after, err);
    if (status != HW_OK)
        return status;
    /* The record comes before the pages: what is visible may be one batch behind it. */
    found = sum == after.sum;
    if (!found)
        status =
            log_has_sum(path, info->seq > 4096 ? info->seq - 4096 : 0, after.seq, sum, &found, err);
    if (status != HW_OK)
        return status;
    if (found) {
        info->sum = sum;
        return HW_OK;
    }
    return hw_fail(
        err, HW_ECORRUPT,
        "%s: state sum %016llx, and the log says %016llx at seq %llu: not the state that "
        "was committed; remove the file and follow again",
        path, (unsigned long long)sum, (unsigned long long)after.sum,
        (unsigned long long)after.seq);
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
