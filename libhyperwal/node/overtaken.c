/*
 * A peer proved that the log's key signed more than there is here: the log came back from a backup,
 * or lost its end.  Its signer is stopped, at once and for later opens.
 *
 *     proof ──▶ is it more than the directory has now? ──▶ shared page: the fork has ended
 *                                                      ──▶ the file `overtaken`
 *                                                      ──▶ alarm
 */
#include <stdio.h>
#include <string.h>

#include "node/hub_internal.h"

#define RETRY_NS (1000 * (uint64_t)1000000)

static const uint8_t *key_of_link(const struct hub_log *log, const struct hw_link *link)
{
    for (const struct hub_link *l = log->links; l != NULL; l = l->next_of_log)
        if (hw_peer_has_link(l->conn->peer, link))
            return hw_peer_remote_key(l->conn->peer);
    return NULL;
}

void log_overtaken(void *ctx, const struct hw_link *link, uint64_t fork, uint64_t length)
{
    struct hub_log *log = ctx;
    const uint8_t *key = key_of_link(log, link);

    log->shown = (struct hw_overtaken){.fork = fork, .length = length};
    if (key != NULL)
        memcpy(log->shown.peer, key, sizeof(log->shown.peer));
    log->is_shown = true;
    log->is_stopped = false;
    log->shown_ns = 0;
    log_touch(log);
}

/* As the directory is now: another server may have sent what we have not looked at yet. */
static enum hw_status head_now(const struct hub_log *log, struct hw_core_head *out,
                               struct hw_error *err)
{
    struct hw_core *core = NULL;
    enum hw_status status = hw_core_open(log->hub->env, log->dir, HW_CORE_READ,
                                         log_durable_limit(log->page), &core, err);

    if (status != HW_OK)
        return status;
    *out = hw_core_head(core);
    hw_core_close(core);
    return HW_OK;
}

static void stop_signer(struct hub_log *log, const struct hw_core_head *head)
{
    char key[2 * HW_KEY_SIZE + 1];

    hw_key_format(log->shown.peer, key);
    hw_shared_end_fork(log->page, log->shown.fork);
    hw_env_log(log->hub->env, HW_LOG_ERROR,
               "event=overtaken log=%s fork=%llu length=%llu peer=%s own_fork=%llu own_length=%llu",
               log->dir, (unsigned long long)log->shown.fork, (unsigned long long)log->shown.length,
               key, (unsigned long long)head->fork, (unsigned long long)head->length);
    log->is_stopped = true;
}

static void raise_alarm(const struct hub_log *log, const struct hw_core_head *head)
{
    char text[HW_SHARED_TEXT_SIZE];

    (void)snprintf(
        text, sizeof(text),
        "a follower has %llu blocks of fork %llu, here are %llu of fork %llu: nothing is "
        "signed; restore the log, or stop its writers and adopt it (hyperwal init "
        "--adopt)",
        (unsigned long long)log->shown.length, (unsigned long long)log->shown.fork,
        (unsigned long long)head->length, (unsigned long long)head->fork);
    hw_shared_set_alarm(log->page, text);
}

static void try_again(struct hub_log *log, uint64_t now, const struct hw_error *why)
{
    hw_env_log(log->hub->env, HW_LOG_ERROR, "event=overtaken_unwritten log=%s reason=\"%s\"",
               log->dir, why->message);
    log->shown_ns = now + RETRY_NS;
    hub_timer(log->hub, log->shown_ns);
}

void overtaken_settle(struct hub_log *log, uint64_t now)
{
    struct hw_core_head head = {0};
    struct hw_error err = {0};
    enum hw_status status;

    if (!log->is_shown || log->page == NULL)
        return;
    if (now < log->shown_ns) {
        hub_timer(log->hub, log->shown_ns);
        return;
    }
    status = head_now(log, &head, &err);
    if (status == HW_OK && !hw_overtaken_is_above(log->shown.fork, log->shown.length, &head)) {
        log->is_shown = false;
        log_look(log, now); /* that is how we were behind */
        return;
    }
    if (status == HW_OK && !log->is_stopped)
        stop_signer(log, &head);
    if (status == HW_OK)
        status = hw_overtaken_write(log->hub->env, log->dir, &log->shown, &err);
    if (status == HW_OK || status == HW_ENOTFOUND)
        log->is_shown = false;
    else
        try_again(log, now, &err);
    if (log->is_stopped)
        raise_alarm(log, &head);
}
