/* Implements node/lease.h, which has the picture of the states. */
#include "node/lease.h"

#include <assert.h>
#include <string.h>

static const uint64_t lease_ns = (uint64_t)HW_LEASE_MS * 1000000;

/* ----------------------------------------------------------------------------- clients */

static unsigned place(const struct hw_lease *lease, uint64_t id)
{
    unsigned i = 0;

    while (i < lease->count && lease->clients[i].id != id)
        i++;
    return i;
}

static struct hw_lease_client *find(struct hw_lease *lease, uint64_t id)
{
    unsigned i = place(lease, id);

    return i < lease->count ? &lease->clients[i] : NULL;
}

static void forget(struct hw_lease *lease, uint64_t id)
{
    struct hw_lease_client *client = find(lease, id);

    if (client == NULL)
        return;
    memmove(client, client + 1,
            (size_t)(lease->clients + lease->count - (client + 1)) * sizeof(*client));
    lease->count--;
}

/* Is there a place for one more?  Whoever neither waits nor holds the lease gives up its own. */
static bool make_room(struct hw_lease *lease)
{
    if (lease->count < HW_LEASE_CLIENTS_MAX)
        return true;
    for (unsigned i = 0; i < lease->count; i++) {
        if (!lease->clients[i].is_waiting && lease->clients[i].id != lease->holder) {
            forget(lease, lease->clients[i].id);
            return true;
        }
    }
    return false;
}

/* Behind all others, with what is known of it; NULL: there is no place. */
static struct hw_lease_client *at_the_end(struct hw_lease *lease, uint64_t id)
{
    struct hw_lease_client client = {.id = id}, *known = find(lease, id);

    if (known != NULL) {
        client = *known;
        forget(lease, id);
    } else if (!make_room(lease)) {
        return NULL;
    }
    lease->clients[lease->count] = client;
    return &lease->clients[lease->count++];
}

static struct hw_lease_client *first_waiting(struct hw_lease *lease)
{
    for (unsigned i = 0; i < lease->count; i++)
        if (lease->clients[i].is_waiting)
            return &lease->clients[i];
    return NULL;
}

/* ---------------------------------------------------------------------------- the moves */

/* The last holder may go on with its fence as long as nobody else has a newer one. */
static void become_free(struct hw_lease *lease, bool is_fence_spent)
{
    lease->state = HW_LEASE_FREE;
    if (is_fence_spent)
        lease->holder = 0;
    lease->is_granted_due = lease->is_recalled = lease->is_recall_due = lease->is_ending = false;
}

static void become_held(struct hw_lease *lease, struct hw_lease_client *client, uint64_t now_ns)
{
    assert(lease->state == HW_LEASE_FREE && lease->fence < UINT64_MAX);
    lease->state = HW_LEASE_HELD;
    lease->holder = client->id;
    lease->fence++;
    lease->expires_ns = now_ns + lease_ns;
    lease->is_granted_due = true;
    client->is_waiting = false;
}

/* What follows of itself from how things are now. */
static void settle(struct hw_lease *lease, uint64_t now_ns)
{
    struct hw_lease_client *next;

    /* Its holder would wait for ever for an answer that is not told. */
    if (lease->is_granted_due && lease->state == HW_LEASE_HELD)
        lease->expires_ns = now_ns + lease_ns;
    if (lease->state == HW_LEASE_HELD && now_ns >= lease->expires_ns)
        become_free(lease, false);
    next = first_waiting(lease);
    if (next == NULL)
        return;
    if (lease->state == HW_LEASE_FREE && lease->fence + 1 < lease->fence_limit) {
        become_held(lease, next, now_ns);
        next = first_waiting(lease);
    }
    if (lease->state != HW_LEASE_FREE && next != NULL && !lease->is_recalled)
        lease->is_recalled = lease->is_recall_due = true;
}

/* ------------------------------------------------------------------------------- calls */

void hw_lease_init(struct hw_lease *lease, uint64_t fence)
{
    *lease = (struct hw_lease){.fence = fence};
}

void hw_lease_set_limit(struct hw_lease *lease, uint64_t fence_limit, uint64_t now_ns)
{
    assert(fence_limit >= lease->fence_limit);
    lease->fence_limit = fence_limit;
    settle(lease, now_ns);
}

bool hw_lease_wants_limit(const struct hw_lease *lease, uint64_t reserve)
{
    return lease->fence_limit <= lease->fence || lease->fence_limit - lease->fence - 1 < reserve;
}

bool hw_lease_ask(struct hw_lease *lease, uint64_t id, uint64_t request, uint64_t now_ns)
{
    bool holds = lease->state == HW_LEASE_HELD && lease->holder == id;
    struct hw_lease_client *client;

    assert(id != 0);
    if (holds && !lease->is_recalled) {
        client = find(lease, id);
        assert(client != NULL);
        client->request = request;
        lease->expires_ns = now_ns + lease_ns;
        lease->is_granted_due = true;
        return true;
    }
    client = at_the_end(lease, id);
    if (client == NULL)
        return false;
    if (holds)
        become_free(lease, true);
    client->request = request;
    client->is_waiting = true;
    settle(lease, now_ns);
    return true;
}

bool hw_lease_must_wait(const struct hw_lease *lease, uint64_t id)
{
    unsigned i = place(lease, id);

    return lease->state != HW_LEASE_FREE && i < lease->count && lease->clients[i].is_waiting;
}

void hw_lease_release(struct hw_lease *lease, uint64_t id, uint64_t fence, uint64_t now_ns)
{
    struct hw_lease_client *client = find(lease, id);

    if (fence == 0 && client != NULL)
        client->is_waiting = false;
    else if (lease->state == HW_LEASE_HELD && lease->holder == id && lease->fence == fence)
        become_free(lease, true);
    settle(lease, now_ns);
}

void hw_lease_gone(struct hw_lease *lease, uint64_t id, uint64_t now_ns)
{
    if (lease->holder == id && lease->state == HW_LEASE_COMMITTING)
        lease->is_ending = true;
    else if (lease->holder == id)
        become_free(lease, true);
    forget(lease, id);
    settle(lease, now_ns);
}

void hw_lease_revoke(struct hw_lease *lease, uint64_t fence, uint64_t now_ns)
{
    if (lease->fence == fence && lease->state == HW_LEASE_COMMITTING)
        lease->is_ending = true;
    else if (lease->fence == fence)
        become_free(lease, true);
    settle(lease, now_ns);
}

bool hw_lease_commit_begin(struct hw_lease *lease, uint64_t id, uint64_t fence, uint64_t now_ns)
{
    settle(lease, now_ns);
    if (lease->state == HW_LEASE_COMMITTING || lease->holder != id || lease->fence != fence ||
        find(lease, id) == NULL)
        return false;
    lease->state = HW_LEASE_COMMITTING;
    return true;
}

void hw_lease_commit_end(struct hw_lease *lease, enum hw_lease_outcome outcome, uint64_t now_ns,
                         bool *kept)
{
    struct hw_lease_client *client = find(lease, lease->holder);

    assert(lease->state == HW_LEASE_COMMITTING);
    if (client != NULL && outcome == HW_LEASE_STALE)
        client->stale++;
    if (client != NULL && outcome == HW_LEASE_COMMITTED)
        client->stale = 0;
    *kept = !lease->is_recalled && !lease->is_ending;
    if (*kept) {
        lease->state = HW_LEASE_HELD;
        lease->expires_ns = now_ns + lease_ns;
    } else {
        become_free(lease, true);
    }
    settle(lease, now_ns);
}

void hw_lease_tick(struct hw_lease *lease, uint64_t now_ns)
{
    settle(lease, now_ns);
}

uint64_t hw_lease_deadline(const struct hw_lease *lease)
{
    return lease->state == HW_LEASE_HELD ? lease->expires_ns : UINT64_MAX;
}

bool hw_lease_next(struct hw_lease *lease, struct hw_lease_event *out)
{
    struct hw_lease_client *client = find(lease, lease->holder);

    if (client == NULL)
        return false; /* nobody is there to be told */
    *out = (struct hw_lease_event){.client = client->id, .fence = lease->fence};
    if (lease->is_granted_due) {
        lease->is_granted_due = false;
        out->kind = HW_LEASE_GRANTED;
        out->request = client->request;
        out->must_hold = client->stale >= HW_LEASE_STALE_MAX;
        if (out->must_hold) /* not again before it comes too late again */
            client->stale = HW_LEASE_STALE_MAX - 1;
        return true;
    }
    if (lease->is_recall_due) {
        lease->is_recall_due = false;
        out->kind = HW_LEASE_RECALLED;
        return true;
    }
    return false;
}
