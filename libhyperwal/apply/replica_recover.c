/*
 * Where a replica is when it is opened, and how it comes back from a state that does not fit.
 *
 *   end of the WAL has a record ───────────────────────────▶ there
 *   no WAL, the newest record says so, file not newer ─────▶ there
 *   no WAL: a client checkpointed and deleted it ──────────▶ the record with the file's state sum
 *   end without a record, an earlier end has one ──────────▶ cut back to it, if its sum is right
 *   else ──────────────────────────────────────────────────▶ repair: compare with the log's state
 */
#include <string.h>

#include "apply/replica_internal.h"
#include "base/alloc.h"

static void state_set(struct hw_replica *replica, const struct hw_replica_record *record)
{
    replica->visible = (struct hw_replica_state){
        .seq = record->seq, .sum = record->sum, .page_count = record->page_count};
    replica->next = replica->visible;
    replica->shown_seq = record->seq;
    replica->next_block = record->seq + 1;
    /* What a closing record tells was synced before it. */
    replica->is_in_doubt = (record->flags & HW_RECORD_CLOSED) == 0;
}

/* The record of the end that the index shows, NULL if there is none. */
static const struct hw_replica_record *find_end(const struct hw_replica_record *records,
                                                uint32_t count,
                                                const struct hw_wal_index_header *header)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct hw_replica_record *record = &records[i];
        if (record->at.frame == header->max_frame && record->seq != UINT64_MAX &&
            memcmp(record->at.salts, header->salts, sizeof(header->salts)) == 0 &&
            memcmp(record->at.checksum, header->frame_checksum, 8) == 0 &&
            record->page_count == header->page_count)
            return record;
    }
    return NULL;
}

/* Does the WAL have a commit at the record's end, with its checksum? */
static bool is_in_wal(struct hw_replica_database *db, const struct hw_replica_record *record)
{
    uint8_t bytes[HW_WAL_FRAME_HEADER_SIZE];
    struct hw_wal_frame frame;

    if (db->env->ops->read_at(db->wal, hw_wal_frame_offset(db->page_size, record->at.frame), bytes,
                              sizeof(bytes), NULL) != HW_OK)
        return false;
    frame = hw_wal_frame_decode(bytes);
    return frame.commit_size == record->page_count &&
           memcmp(frame.checksum, record->at.checksum, sizeof(frame.checksum)) == 0 &&
           memcmp(frame.salts, record->at.salts, sizeof(frame.salts)) == 0;
}

/* The newest record that the WAL has, and that lies before the end that has none.  HW_END: none. */
static enum hw_status cut_back(struct hw_replica *replica, const struct hw_replica_record *records,
                               uint32_t count, const struct hw_wal_index_header *header,
                               struct hw_error *err)
{
    const struct hw_replica_record *found = NULL;
    enum hw_status status;

    for (uint32_t i = 0; i < count && found == NULL; i++) {
        const struct hw_replica_record *record = &records[i];
        if (record->at.frame > 0 && record->at.frame < header->max_frame &&
            record->seq != UINT64_MAX &&
            memcmp(record->at.salts, header->salts, sizeof(header->salts)) == 0 &&
            is_in_wal(replica->db, record))
            found = record;
    }
    if (found == NULL)
        return HW_END;
    /* A stock client may have checkpointed; a cache has none, and outlives no loss of power. */
    status = hw_replica_database_cut(replica->db, found, replica->make == NULL, err);
    if (status == HW_AGAIN)
        return HW_END;
    if (status != HW_OK)
        return status;
    hw_env_log(replica->env, HW_LOG_WARN, "event=replica_cut path=%s frames=%u to=%u seq=%llu",
               replica->path, (unsigned)header->max_frame, (unsigned)found->at.frame,
               (unsigned long long)found->seq);
    state_set(replica, found);
    return HW_OK;
}

/*
 * Is the database file what it was when the newest record was made?  A follower makes it after its
 * own last write to the file.  Not by the time of the last write, which copies and archives bring
 * back with an older file: nobody sets the time of the last change.
 */
static bool file_is_as_recorded(struct hw_replica *replica)
{
    const struct hw_env_ops *ops = replica->env->ops;
    struct hw_file_stat file;
    int64_t recorded_ns = 0;

    if (replica->make != NULL)
        return true; /* holes were filled, and stock programs do not open it */
    return ops->stat(replica->env, replica->path, &file, NULL) == HW_OK &&
           hw_positions_modified(replica->positions, &recorded_ns, NULL) == HW_OK &&
           file.changed_ns <= recorded_ns;
}

/*
 * Is there no frame after this record, and no write by others?  A closing one is the last of its
 * follower.  One at frame 0 was durable before its round had frames: either the round's header is
 * still there, and frames that ever reached the database file would be there with it, or no power
 * was lost since.
 */
static bool is_last(struct hw_replica *replica, const struct hw_replica_record *record)
{
    struct hw_replica_database *db = replica->db;
    uint8_t bytes[HW_WAL_HEADER_SIZE];
    struct hw_wal_header header;

    if (record->seq == UINT64_MAX || !file_is_as_recorded(replica))
        return false;
    if ((record->flags & HW_RECORD_CLOSED) != 0)
        return true;
    if (record->at.frame != 0)
        return false;
    if (record->boot == hw_positions_boot(replica->positions))
        return true;
    return db->env->ops->read_at(db->wal, 0, bytes, sizeof(bytes), NULL) == HW_OK &&
           hw_wal_header_decode(bytes, &header) == HW_OK &&
           memcmp(header.salts, record->at.salts, sizeof(header.salts)) == 0 &&
           memcmp(header.checksum, record->at.checksum, sizeof(header.checksum)) == 0;
}

/* There are no frames: the state is in the database file alone.  HW_END: none that is known. */
static enum hw_status locate_file(struct hw_replica *replica,
                                  const struct hw_replica_record *records, uint32_t count,
                                  struct hw_error *err)
{
    const struct hw_replica_record *newest = count > 0 ? &records[0] : NULL;
    uint64_t sum = 0;
    uint32_t page_count = 0;
    bool has_sum = false;

    if (newest == NULL)
        return HW_END;
    if (is_last(replica, newest)) {
        state_set(replica, newest);
        return HW_OK;
    }
    if (replica->make != NULL)
        return HW_END;
    for (uint32_t i = 0; i < count; i++) {
        const struct hw_replica_record *record = &records[i];
        if (record->seq == UINT64_MAX)
            continue;
        if (!has_sum || record->page_count != page_count) {
            enum hw_status status;
            if (has_sum && i >= 64)
                continue; /* reading the file for each size of it has an end */
            status = hw_replica_database_sum(replica->db, record->page_count, &sum, err);
            if (status != HW_OK)
                return status;
            page_count = record->page_count;
            has_sum = true;
        }
        if (sum == record->sum) {
            state_set(replica, record);
            return HW_OK;
        }
    }
    return HW_END;
}

enum hw_status hw_replica_locate(struct hw_replica *replica,
                                 const struct hw_wal_index_header *header, struct hw_error *err)
{
    struct hw_replica_record *records = NULL;
    const struct hw_replica_record *found;
    uint32_t count = 0;
    enum hw_status status = hw_positions_load(replica->positions, &records, &count, err);

    if (status != HW_OK)
        return status;
    for (uint32_t i = 0; i < count; i++)
        hw_record_rebase(&records[i], &replica->origin);
    if (header->max_frame == 0) {
        status = locate_file(replica, records, count, err);
    } else {
        found = find_end(records, count, header);
        if (found != NULL)
            state_set(replica, found);
        else
            status = cut_back(replica, records, count, header, err);
    }
    if (status == HW_END && replica->make != NULL)
        status = hw_fail(err, HW_ECORRUPT, "%s: nothing tells which state it has", replica->path);
    if (status == HW_END) {
        hw_env_log(replica->env, HW_LOG_WARN, "event=replica_unknown_state path=%s frames=%u",
                   replica->path, (unsigned)header->max_frame);
        replica->visible.page_count = header->max_frame > 0 ? header->page_count : 0;
        replica->needs_repair = true;
        status = HW_OK;
    }
    hw_free(records);
    return status;
}

/* --------------------------------------------------------------------------------- repair */

/*
 * Is the page beyond the end that readers see?  What it had before the database became smaller can
 * still be found in the WAL, in a frame that was checkpointed and left out: who reads it next to a
 * larger size gets zeros from the file.  Without frames the file is all there is.
 */
static bool is_beyond_end(const struct hw_replica *replica, uint32_t page)
{
    return page > replica->visible.page_count &&
           hw_wal_writer_position(replica->db->writer).frame > 0;
}

/* Add the pages that differ from the state that `past` shows; *sum is that of all its pages. */
static enum hw_status add_differing(struct hw_replica *replica, struct hw_past *past,
                                    uint8_t *wanted, uint64_t *sum, struct hw_error *err)
{
    struct hw_state state = hw_past_state(past);

    for (uint32_t page = 1; page <= state.page_count; page++) {
        enum hw_status status;

        if (hw_entry_is_lock_page(page, replica->page_size))
            continue;
        if (replica->progress != NULL && page % HW_GROUP_PAGES == 1 &&
            !replica->progress(replica->progress_ctx, (uint64_t)(page - 1) * replica->page_size,
                               (uint64_t)state.page_count * replica->page_size))
            return HW_AGAIN;
        status = hw_past_read(past, page, wanted, err);
        if (status == HW_END)
            status = hw_fail(err, HW_ECORRUPT, "the log has no page %u", (unsigned)page);
        if (status == HW_OK)
            status = hw_replica_database_read(replica->db, page, replica->scratch, err);
        if (status == HW_OK)
            *sum ^= hw_page_sum(page, wanted, replica->page_size);
        /* Page 1 always, so that there is a frame to commit with. */
        if (status == HW_OK && (page == 1 || is_beyond_end(replica, page) ||
                                memcmp(wanted, replica->scratch, replica->page_size) != 0))
            status = hw_replica_add_page(replica, page, wanted, err);
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* One transaction from whatever the replica is to the state of `past`. */
static enum hw_status go_to(struct hw_replica *replica, struct hw_past *past, struct hw_error *err)
{
    struct hw_state target = hw_past_state(past);
    struct hw_replica_state state = {
        .seq = target.seq, .sum = target.sum, .page_count = target.page_count};
    uint8_t *wanted = hw_alloc(replica->page_size);
    uint64_t sum = 0;
    enum hw_status status, undone;

    if (wanted == NULL)
        return hw_fail(err, HW_ENOMEM, "%s: no memory for a page", replica->path);
    status = add_differing(replica, past, wanted, &sum, err);
    if (status == HW_OK && sum != target.sum)
        status = hw_fail(err, HW_ECORRUPT, "state sum %016llx at seq %llu, the log says %016llx",
                         (unsigned long long)sum, (unsigned long long)target.seq,
                         (unsigned long long)target.sum);
    if (status == HW_OK)
        status = hw_replica_commit(replica, &state, err);
    hw_free(wanted);
    if (status != HW_OK) {
        undone = hw_replica_abandon(replica, NULL);
        return undone == HW_OK ? status : undone;
    }
    replica->next = state;
    replica->shown_seq = state.seq;
    replica->next_block = state.seq + 1;
    return HW_OK;
}

enum hw_status hw_replica_repair(struct hw_replica *replica, struct hw_error *err)
{
    struct hw_target head = {.kind = HW_TARGET_HEAD};
    struct hw_past *past = NULL;
    enum hw_status status = hw_past_open(replica->env, replica->core, &head, &past, err);

    if (status == HW_ENOTFOUND || status == HW_EFORK)
        return HW_END; /* no snapshot since the gap, or none at all: wait for one */
    if (status == HW_OK &&
        (hw_past_state(past).page_count == 0 || hw_past_state(past).seq < replica->repair_from))
        status = HW_END;
    if (status == HW_OK)
        status = go_to(replica, past, err);
    hw_past_close(past);
    if (status < 0)
        return hw_prefix(err, status, "%s: repair", replica->path);
    if (status != HW_OK)
        return status;
    replica->needs_repair = false;
    hw_env_log(replica->env, HW_LOG_WARN, "event=replica_repaired path=%s seq=%llu", replica->path,
               (unsigned long long)replica->visible.seq);
    return HW_OK;
}
