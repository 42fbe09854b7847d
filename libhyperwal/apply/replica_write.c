/*
 * A connection writes into the replica's WAL: what it commits is an entry of the log already, and
 * must become the replica's state without being applied.
 *
 *   FOLLOWING ── give ──▶ GIVEN ── take ──▶ FOLLOWING
 *                          │ the connection has WRITE, commits, gives it back
 *                          ▼
 *            crash: the end of the WAL has no record, and is cut back to the one that has
 */
#include <string.h>

#include "apply/replica_internal.h"

enum hw_status hw_replica_give_write(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status;

    if (replica->db == NULL || replica->db->writer == NULL || replica->needs_repair)
        return hw_fail(err, HW_EBUSY, "%s: its state is not known yet", replica->path);
    status = hw_replica_abandon(replica, err);
    /* What a crash is to find must be recorded: the connection's frames have no record. */
    if (status == HW_OK)
        status = hw_replica_record_now(replica, 0, err);
    if (status != HW_OK)
        return status;
    replica->given_at = hw_wal_writer_position(replica->db->writer);
    hw_replica_database_unlock(replica->db);
    return HW_OK;
}

/* Did the end of the WAL stay where it was? */
static bool is_unmoved(const struct hw_replica *replica, const struct hw_wal_index_header *header)
{
    const struct hw_wal_position *at = &replica->given_at;

    if (header->max_frame != at->frame)
        return false;
    return at->frame == 0 ||
           (memcmp(header->salts, at->salts, sizeof(at->salts)) == 0 &&
            memcmp(header->frame_checksum, at->checksum, sizeof(at->checksum)) == 0);
}

/* The connection's frames stand for the entry: record where they end. */
static enum hw_status absorb(struct hw_replica *replica, const struct hw_state *committed,
                             struct hw_error *err)
{
    struct hw_replica_record record = {
        .seq = committed->seq,
        .sum = committed->sum,
        .page_count = committed->page_count,
        .at = hw_wal_writer_position(replica->db->writer),
    };
    enum hw_status status = hw_positions_append(replica->positions, &record, err);

    if (status != HW_OK)
        return status;
    replica->visible = (struct hw_replica_state){
        .seq = committed->seq, .sum = committed->sum, .page_count = committed->page_count};
    replica->next = replica->visible;
    replica->shown_seq = committed->seq;
    replica->next_block = committed->seq + 1;
    hw_shared_set_applied_seq(replica->shared, replica->shown_seq);
    return HW_OK;
}

static enum hw_status cut_off(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_replica_record at = {.seq = replica->visible.seq,
                                   .sum = replica->visible.sum,
                                   .page_count = replica->visible.page_count,
                                   .at = replica->given_at};
    enum hw_status status = HW_AGAIN;

    if (replica->given_at.frame > 0)
        status = hw_replica_database_cut(replica->db, &at, false, err);
    if (status == HW_AGAIN)
        return hw_fail(err, HW_ECORRUPT, "%s: the WAL has a transaction that the log has not",
                       replica->path);
    return status;
}

enum hw_status hw_replica_take_write(struct hw_replica *replica, const struct hw_state *committed,
                                     struct hw_error *err)
{
    struct hw_wal_index_header header;
    enum hw_status status = hw_replica_database_lock(replica->db, &header, err);
    bool moved;

    if (status != HW_OK)
        return status;
    moved = !is_unmoved(replica, &header);
    if (moved && committed != NULL && header.page_count != committed->page_count)
        status =
            hw_fail(err, HW_ECORRUPT, "%s: the WAL ends with %u pages, the log says %u",
                    replica->path, (unsigned)header.page_count, (unsigned)committed->page_count);
    if (status == HW_OK && moved && committed == NULL)
        status = cut_off(replica, err);
    if (status == HW_OK)
        status = hw_replica_database_attach(replica->db, err);
    if (status != HW_OK) {
        hw_replica_database_unlock(replica->db);
        return status;
    }
    replica->round_recorded = false; /* the connection may have begun another round */
    return moved && committed != NULL ? absorb(replica, committed, err) : HW_OK;
}
