/* A log that was there before the one that is served: log_serve_kept(). */
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "hypercore/keep.h"
#include "node/hub_internal.h"

enum { SWITCH_SEQ = 1 };

static void serve(struct hub_log *log, const uint8_t key[HW_KEY_SIZE])
{
    struct hw_hub *hub = log->hub;
    char *dir = hw_keep_dir(log->dir, key);
    struct hw_file_stat stat;
    struct hub_log *kept = NULL;

    if (dir != NULL && hub->env->ops->stat(hub->env, dir, &stat, NULL) == HW_OK &&
        log_find_dir(hub, dir) == NULL && log_new(hub, dir, &kept, NULL) == HW_OK) {
        kept->heir = log;
        log->kept = kept;
        log_look(kept, hub_now(hub));
    }
    hw_free(dir); /* without memory nobody is served it: followers begin with a snapshot */
}

void log_serve_kept(struct hub_log *log)
{
    struct hw_switch switch_;

    if (log->is_searched || log->names == NULL || hw_core_length(log->core) <= SWITCH_SEQ)
        return;
    log->is_searched = true;
    if (hw_switch_read(log->core, SWITCH_SEQ, &switch_, NULL) == HW_OK &&
        switch_.role == HW_SWITCH_CONTINUES)
        serve(log, switch_.key);
}
