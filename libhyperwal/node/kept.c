/* Logs that were there before the one that is served, one after the other: log_serve_kept(). */
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "hypercore/keep.h"
#include "node/hub_internal.h"

enum { SWITCH_SEQ = 1, KEPT_MAX = 8 };

/* All that are kept lie beside the log that goes on now, which this one leads to. */
static const struct hub_log *newest(const struct hub_log *log, unsigned *before)
{
    for (*before = 0; log->heir != NULL; (*before)++)
        log = log->heir;
    return log;
}

static void serve(struct hub_log *log, const struct hub_log *first, const uint8_t key[HW_KEY_SIZE])
{
    struct hw_hub *hub = log->hub;
    char *dir = hw_keep_dir(first->dir, key);
    struct hw_file_stat stat;
    struct hub_log *kept = NULL;

    log->is_kept_missing = dir == NULL || hub->env->ops->stat(hub->env, dir, &stat, NULL) != HW_OK;
    if (!log->is_kept_missing && log_find_dir(hub, dir) == NULL)
        log->is_kept_missing = log_new(hub, dir, &kept, NULL) != HW_OK;
    if (kept != NULL) {
        kept->heir = log;
        log->kept = kept;
        log_look(kept, hub_now(hub));
    }
    hw_free(dir); /* without memory nobody is served it: followers begin with a snapshot */
}

void log_serve_kept(struct hub_log *log)
{
    struct hw_switch switch_;
    unsigned before;
    enum hw_status status;
    const struct hub_log *first = newest(log, &before);

    if (log->is_searched || first->names == NULL || before >= KEPT_MAX ||
        !hw_core_has(log->core, SWITCH_SEQ))
        return;
    log->is_searched = true;
    status = hw_switch_read(log->core, SWITCH_SEQ, &switch_, NULL);
    log->is_kept_missing = status != HW_OK && status != HW_ENOTFOUND; /* it may be one */
    if (status == HW_OK && switch_.role == HW_SWITCH_CONTINUES)
        serve(log, first, switch_.key);
}

void logs_seek_kept(struct hw_hub *hub)
{
    for (struct hub_log *log = hub->logs; log != NULL; log = log->next)
        if (log->is_kept_missing) {
            log->is_kept_missing = false;
            log->is_searched = false;
            log->deadline_ns = 0; /* by the loop: somebody's message is being read now */
            hub_timer(hub, 0);
            log_touch(log); /* so for a mirror */
        }
}
