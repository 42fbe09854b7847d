/*
 * A log that we serve was pruned by its worker, which wrote the file `log` anew: its links stay,
 * and are told what is gone.
 */
#include <string.h>

#include "node/hub_internal.h"

enum { RANGES_MAX = 1024 }; /* told to each link; more: the links are opened anew */

/* Is the directory's log the one that we have open, with fewer blocks? */
static bool is_pruned(const struct hub_log *log, const struct hw_core *now)
{
    struct hw_core_head before = hw_core_head(log->core), after = hw_core_head(now);

    return memcmp(hw_core_identity(log->core)->key, hw_core_identity(now)->key, HW_KEY_SIZE) == 0 &&
           after.fork == before.fork && after.length >= before.length &&
           hw_core_first_kept(now) > hw_core_first_kept(log->core);
}

/* The first block from `start` on that is held, or is not; `end` if there is none. */
static enum hw_status find(struct hw_core *core, uint64_t start, uint64_t end, bool held,
                           uint64_t *found)
{
    *found = end;
    while (start < end && *found == end) {
        uint64_t checked;
        enum hw_status status = hw_core_find(core, start, end, held, found, &checked, NULL);

        if (status != HW_OK || checked <= start)
            return status;
        start = checked;
    }
    return HW_OK;
}

/* False: it is too much, or cannot be read. */
static bool tell(struct hub_log *log)
{
    uint64_t end = hw_core_first_kept(log->core), at, stop;
    enum hw_status status = find(log->core, 0, end, false, &at);

    for (unsigned told = 0; status == HW_OK && at < end; told++) {
        if (told == RANGES_MAX)
            return false;
        status = find(log->core, at, end, true, &stop);
        if (status == HW_OK) {
            hw_replication_dropped(log->replication, at, stop - at);
            status = find(log->core, stop, end, false, &at);
        }
    }
    return status == HW_OK;
}

bool log_take_prune(struct hub_log *log)
{
    struct hw_env *env = log->hub->env;
    struct hw_file_stat stat;
    struct hw_core *now = NULL;
    bool is_taken = false;

    if (log->page == NULL || hw_core_is_mirror(log->core) || log_stat(log, &stat, NULL) != HW_OK)
        return false;
    if (hw_core_open(env, log->dir, HW_CORE_READ, log_durable_limit(log->page), &now, NULL) !=
        HW_OK)
        return false;
    if (is_pruned(log, now) && hw_core_refresh_kept(log->core, NULL) == HW_OK) {
        is_taken = tell(log);
        log->stat = stat; /* of before the look: a later change is seen again */
        log_touch(log);
        hw_env_log(env, HW_LOG_INFO, "event=log_pruned log=%s first_kept=%llu", log->dir,
                   (unsigned long long)hw_core_first_kept(log->core));
    }
    hw_core_close(now);
    return is_taken;
}
