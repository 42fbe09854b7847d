/*
 * Which round of the WAL follows which: what the log needs to know to go on from the end of one at
 * the beginning of the next.
 *
 *     round A, logged up to its end ──▶ emptied ──▶ round B, not logged yet
 *          door: A's end, and the     │        │    round: the salts of the wal-index before,
 *          salts of the wal-index then┘        └    and B's
 *
 * The wal-index of an empty WAL has salts that no other emptying gave it, so the two records of the
 * shared page fit together only if nobody committed in between.  They are made by connections of
 * ours while they hold WRITE; what programs without hyperwal do leaves none.
 *
 * Who is alone with the database (exclusive.c) takes no locks, and leaves the same records: what
 * the WAL was before it is known, for only it changes that.  A wal-index on SQLite's heap has salts
 * that nobody sees; those of the round that begins stand for them.
 */
#include <string.h>

#include "capture/internal.h"

static bool same_salts(const uint8_t a[8], const uint8_t b[8])
{
    return memcmp(a, b, 8) == 0;
}

bool hw_round_is_emptied_at(struct hw_capture *capture, const uint8_t salts[8], uint32_t frame,
                            const uint8_t empty_salts[8])
{
    struct hw_shared_door door = hw_shared_door(capture->shared);

    if (frame == 0 && same_salts(salts, empty_salts))
        return true;
    return same_salts(door.empty_salts, empty_salts) && same_salts(door.salts, salts) &&
           door.frame == frame;
}

bool hw_round_is_at(struct hw_capture *capture, const struct hw_shared_position *position,
                    const struct hw_wal_index_header *header)
{
    if (position->seq == UINT64_MAX || position->frame == UINT32_MAX)
        return false; /* not adopted, being checked, or let go */
    if (header->max_frame > 0)
        return hw_header_same_round(header, position->salts);
    return hw_round_is_emptied_at(capture, position->salts, position->frame, header->salts);
}

void hw_round_pass(struct hw_capture *capture, const struct hw_wal_index_header *header,
                   struct hw_gate_pass *pass)
{
    struct hw_shared_position position = hw_shared_position(capture->shared);

    memcpy(pass->salts, position.salts, sizeof(pass->salts));
    pass->frame = position.frame;
    pass->is_open = hw_round_is_at(capture, &position, header) &&
                    (header->max_frame == 0 || position.frame == header->max_frame);
    memcpy(pass->salts_before, header->salts, sizeof(pass->salts_before));
}

void hw_gate_restarted(struct hw_capture *capture, struct hw_gate_pass *pass)
{
    struct hw_shared_door door = {.frame = pass->frame};
    struct hw_wal_index_header header;

    if (!pass->is_open)
        return;
    pass->is_open = false;
    if (hw_gate_header(capture, &header) != HW_OK || header.max_frame != 0 ||
        hw_header_same_round(&header, pass->salts_before))
        return; /* it was only looked whether a restart is possible */
    memcpy(door.salts, pass->salts, sizeof(door.salts));
    memcpy(door.empty_salts, header.salts, sizeof(door.empty_salts));
    hw_shared_set_door(capture->shared, &door);
}

/*
 * The one that is alone without shm begins the round with these salts.  Was the WAL empty before,
 * or all of it in the log?  Then `empty_salts` are those that it had in between.
 */
static bool private_emptied(struct hw_capture *capture, const uint8_t salts[8],
                            uint8_t empty_salts[8])
{
    struct hw_shared_position position = hw_shared_position(capture->shared);
    struct hw_shared_door door = {.frame = position.frame};
    struct hw_wal_index_header header = {0};
    enum hw_status status;

    hw_fair_mutex_lock(&capture->step_mutex);
    status = hw_exclusive_look(capture, NULL);
    header = capture->worker.private_header;
    hw_fair_mutex_unlock(&capture->step_mutex);
    if (status != HW_OK)
        return false;
    memcpy(empty_salts, header.max_frame == 0 ? header.salts : salts, sizeof(header.salts));
    if (header.max_frame == 0)
        return true;
    if (position.seq == UINT64_MAX || position.frame != header.max_frame ||
        !hw_header_same_round(&header, position.salts))
        return false;
    memcpy(door.salts, position.salts, sizeof(door.salts));
    memcpy(door.empty_salts, salts, sizeof(door.empty_salts));
    hw_shared_set_door(capture->shared, &door);
    return true;
}

void hw_capture_new_round(struct hw_capture *capture, const uint8_t salts[8])
{
    struct hw_shared_round round = {.is_known = false};
    struct hw_wal_index_header header;

    hw_capture_alone_emptied(capture);
    memcpy(round.salts, salts, sizeof(round.salts));
    if (hw_capture_is_private(capture)) {
        round.is_known = private_emptied(capture, salts, round.empty_salts);
    } else if (hw_gate_header(capture, &header) == HW_OK && header.max_frame == 0) {
        round.is_known = true;
        memcpy(round.empty_salts, header.salts, sizeof(round.empty_salts));
    }
    hw_shared_set_round(capture->shared, &round);
}

bool hw_round_begins_at(struct hw_capture *capture, const uint8_t at_salts[8], uint32_t at_frame,
                        const uint8_t salts[8])
{
    struct hw_shared_round round = hw_shared_round(capture->shared);

    return same_salts(round.salts, salts) && round.is_known &&
           hw_round_is_emptied_at(capture, at_salts, at_frame, round.empty_salts);
}

bool hw_round_follows(struct hw_capture *capture, const struct hw_wal_position *at,
                      const uint8_t salts[8])
{
    if (capture->worker.state == WORKER_RUNNING && atomic_load(&capture->held))
        return true; /* whoever began it */
    return hw_round_begins_at(capture, at->salts, at->frame, salts);
}

bool hw_round_is_ours(struct hw_capture *capture, const uint8_t salts[8])
{
    struct hw_shared_round round = hw_shared_round(capture->shared);

    return same_salts(round.salts, salts);
}

/* Is somebody inside of a restart?  What it means is noted before the locks are given back. */
static bool is_restarting(struct hw_capture *capture, const struct hw_wal_index_header *header)
{
    const sqlite3_io_methods *methods = capture->database->pMethods;
    int slot = HW_SHM_READ0 + 4;

    if (hw_capture_is_private(capture))
        return false; /* its index has the new round only when that was noted */
    if (atomic_load(&capture->alone) == ALONE_WITH_SHM && !hw_exclusive_has_seen(capture, header))
        return true;
    if (methods->xShmLock(capture->database, slot, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) !=
        SQLITE_OK)
        return true;
    (void)methods->xShmLock(capture->database, slot, 1,
                            SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED); /* cannot fail */
    return false;
}

enum hw_status hw_round_follow_empty(struct hw_capture *capture,
                                     const struct hw_wal_index_header *header)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_position *at = &worker->note.at;

    if (at->frame == 0 && hw_header_same_round(header, at->salts))
        return HW_OK;
    if (hw_header_same_round(header, at->salts))
        return hw_worker_doubt(capture, "the WAL lost what had been committed in it");
    if (is_restarting(capture, header))
        return HW_AGAIN;
    if (!atomic_load(&capture->held) &&
        !hw_round_is_emptied_at(capture, at->salts, at->frame, header->salts))
        return hw_worker_doubt(capture, "the WAL was emptied by a program without hyperwal");
    *at = (struct hw_wal_position){.frame = 0};
    memcpy(at->salts, header->salts, sizeof(at->salts));
    hw_worker_publish(capture);
    return HW_OK;
}

/* note.at is the beginning of the round that the WAL is in. */
static enum hw_status begin_round(struct hw_capture *capture,
                                  const struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    struct hw_wal_position *at = &worker->note.at;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    enum hw_status status = capture->env->ops->read_at(worker->wal, 0, bytes, sizeof(bytes), err);

    if (status != HW_OK)
        return status == HW_END ? HW_AGAIN : status;
    if (hw_wal_header_decode(bytes, &worker->wal_header) != HW_OK ||
        !hw_header_same_round(header, worker->wal_header.salts))
        return HW_AGAIN; /* it is being restarted again */
    memcpy(at->salts, header->salts, sizeof(at->salts));
    at->frame = 0;
    memcpy(at->checksum, worker->wal_header.checksum, sizeof(at->checksum));
    worker->frames_count = 0;
    return HW_OK;
}

/* The WAL began a new round.  Through the gate: just follow.  Past it: nothing is known. */
enum hw_status hw_round_follow(struct hw_capture *capture, const struct hw_wal_index_header *header,
                               struct hw_error *err)
{
    struct hw_worker *worker = &capture->worker;
    bool same = hw_header_same_round(header, worker->note.at.salts);
    bool allowed = same || hw_round_follows(capture, &worker->note.at, header->salts);
    enum hw_status status = hw_worker_open_wal(capture, err);

    if (status != HW_OK)
        return status;
    if (!allowed)
        return hw_worker_doubt(capture, "the WAL was restarted by a program without hyperwal");
    return begin_round(capture, header, err);
}
