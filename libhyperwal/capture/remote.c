/* Waits for followers: the commits of all connections look at one table and sleep on one word. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "capture/internal.h"
#include "env/peer_table.h"

/* While it waits, a commit repeats that it does, for servers that begin meanwhile. */
enum { REPEAT_NS = 400000000, REASON_SIZE = 160 };

struct hw_peer_table *hw_remote_peers(struct hw_capture *capture)
{
    struct hw_peer_table *peers;

    hw_mutex_lock(&capture->peers_mutex);
    if (capture->peers == NULL &&
        hw_peer_table_open(capture->env, capture->log_dir, false, &capture->peers, NULL) != HW_OK)
        capture->peers = NULL; /* no server has made it yet: looked for at the next news */
    peers = capture->peers;
    hw_mutex_unlock(&capture->peers_mutex);
    return peers;
}

enum hw_status hw_remote_set_fork(struct hw_capture *capture, uint64_t fork, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    hw_mutex_lock(&capture->peers_mutex);
    if (capture->peers == NULL)
        status = hw_peer_table_open(capture->env, capture->log_dir, false, &capture->peers, err);
    hw_mutex_unlock(&capture->peers_mutex);
    if (status == HW_OK)
        status = hw_peer_table_set_fork(capture->peers, fork, err);
    if (status == HW_OK)
        status =
            hw_peer_table_set_length(capture->peers, hw_core_length(capture->worker.core), err);
    if (status == HW_OK || status == HW_ENOTFOUND || status == HW_ENOMEM)
        return status == HW_ENOTFOUND ? HW_OK : status; /* not found: nobody has ever followed */
    return hw_prefix(err, HW_EIO, "what followers have confirmed");
}

/* What is missing, in the words of who has to find out. */
static void explain(struct hw_peer_table *peers, uint64_t seq, unsigned replicas, bool applied,
                    char out[REASON_SIZE])
{
    unsigned connected = 0, confirmed = 0;
    struct hw_peer_row row;

    if (peers != NULL) {
        hw_peer_table_bury(peers); /* those whose server died */
        confirmed = hw_peer_table_confirmed(peers, seq + 1, applied);
        for (unsigned i = 0; i < HW_PEER_ROWS; i++)
            connected += hw_peer_table_get(peers, i, &row) && row.counts && row.process_id != 0;
    }
    if (connected == 0 && confirmed == 0)
        (void)snprintf(out, REASON_SIZE,
                       "no follower is connected (%u must confirm seq %" PRIu64 ")", replicas, seq);
    else
        (void)snprintf(out, REASON_SIZE, "%u of %u followers %s seq %" PRIu64 ", %u %s connected",
                       confirmed, replicas, applied ? "applied" : "confirmed", seq, connected,
                       connected == 1 ? "is" : "are");
}

static enum hw_status wait_confirmed(struct hw_capture *capture, uint64_t seq, unsigned replicas,
                                     bool applied, uint64_t deadline, struct hw_error *err)
{
    char reason[REASON_SIZE];

    for (;;) {
        uint32_t seen = hw_shared_wake_count(capture->shared);
        struct hw_peer_table *peers = hw_remote_peers(capture);
        uint64_t now;

        if (peers != NULL && hw_peer_table_confirmed(peers, seq + 1, applied) >= replicas)
            return HW_OK;
        now = capture->env->ops->monotonic_ns(capture->env);
        if (now >= deadline) {
            explain(peers, seq, replicas, applied, reason);
            return hw_fail(err, HW_ETIMEOUT, "%s: %s", capture->path, reason);
        }
        hw_shared_set_remote_wait(capture->shared, applied ? 2 : 1);
        hw_shared_wait(capture->shared, seen,
                       deadline - now < REPEAT_NS ? deadline - now : REPEAT_NS);
    }
}

enum hw_status hw_capture_wait_remote(struct hw_capture *capture,
                                      const struct hw_capture_target *target, unsigned replicas,
                                      bool applied, uint64_t timeout_ms, uint64_t *seq,
                                      struct hw_error *err)
{
    uint64_t deadline = capture->env->ops->monotonic_ns(capture->env) + timeout_ms * 1000000U;
    enum hw_status status;

    *seq = UINT64_MAX;
    atomic_fetch_add(&capture->remote_waiters, 1);
    /* Now, so that the server hands on what the worker logs meanwhile with the right urgency. */
    hw_shared_set_remote_wait(capture->shared, applied ? 2 : 1);
    status = hw_capture_wait_target(capture, target, timeout_ms, seq, err);
    if (status == HW_OK && *seq != UINT64_MAX)
        status = wait_confirmed(capture, *seq, replicas, applied, deadline, err);
    atomic_fetch_sub(&capture->remote_waiters, 1);
    return status;
}
