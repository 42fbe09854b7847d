/* Blocks into a batch, a batch into the WAL. */
#include <assert.h>
#include <string.h>

#include "apply/replica_internal.h"
#include "base/alloc.h"

/* ------------------------------------------------------------------------- pages of a batch */

/* The page as it is with what the batch holds. */
static enum hw_status page_now(struct hw_replica *replica, uint32_t page_number, void *content,
                               struct hw_error *err)
{
    const uint8_t *held = hw_overlay_find(replica->overlay, page_number);

    if (held == NULL)
        return hw_replica_database_read(replica->db, page_number, content, err);
    memcpy(content, held, replica->page_size);
    return HW_OK;
}

static enum hw_status page_sum_out(struct hw_replica *replica, uint32_t page_number, uint64_t *sum,
                                   struct hw_error *err)
{
    enum hw_status status = page_now(replica, page_number, replica->scratch, err);

    if (status == HW_OK)
        *sum ^= hw_page_sum(page_number, replica->scratch, replica->page_size);
    return status;
}

/* Hand the previous images to the decoder, and take their sums out of the state. */
static enum hw_status take_previous(struct hw_replica *replica, uint32_t change_count,
                                    uint64_t *sum, struct hw_error *err)
{
    uint32_t old_count = replica->next.page_count;

    for (uint32_t i = 0; i < change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(replica->decoder, i, &needed);
        uint8_t *image = needed ? hw_transaction_previous(replica->decoder, i) : replica->scratch;
        enum hw_status status;

        if (hw_entry_is_lock_page(page, replica->page_size))
            return hw_fail(err, HW_ECORRUPT, "it has an image of the lock-byte page");
        if (page > old_count && needed)
            return hw_fail(err, HW_ECORRUPT, "it needs page %u of a database of %u pages",
                           (unsigned)page, (unsigned)old_count);
        if (page > old_count)
            continue;
        status = page_now(replica, page, image, err);
        if (status != HW_OK)
            return status;
        *sum ^= hw_page_sum(page, image, replica->page_size);
    }
    return HW_OK;
}

/* Pages that leave a shrinking database. */
static enum hw_status take_dropped(struct hw_replica *replica, uint32_t page_count, uint64_t *sum,
                                   struct hw_error *err)
{
    for (uint32_t page = page_count + 1; page <= replica->next.page_count; page++) {
        enum hw_status status = page_sum_out(replica, page, sum, err);
        if (status != HW_OK)
            return status;
    }
    return HW_OK;
}

/* How many pages of (from, to] there are, but for the lock-byte page. */
static uint32_t pages_between(uint32_t from, uint32_t to, uint32_t page_size)
{
    uint32_t lock_page = hw_lock_page(page_size);

    if (to <= from)
        return 0;
    return to - from - (lock_page > from && lock_page <= to ? 1 : 0);
}

/*
 * Before the first frame of a follower and of a round.  Frames may outlive a loss of power that
 * their records do not: a closing record must not be the newest one then.
 */
enum hw_status hw_replica_begin_round(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (!replica->round_recorded)
        status = hw_replica_record_now(replica, 0, err);
    if (status == HW_OK) {
        replica->round_recorded = true;
        status = hw_wal_writer_begin(replica->db->writer, err);
    }
    return status;
}

enum hw_status hw_replica_add_page(struct hw_replica *replica, uint32_t page_number,
                                   const void *content, struct hw_error *err)
{
    enum hw_status status = hw_replica_begin_round(replica, err);

    if (status == HW_OK)
        status = hw_wal_writer_add(replica->db->writer, page_number, content, err);
    if (status == HW_OK)
        replica->added++;
    return status;
}

/* The pages of the batch become frames that nobody sees yet. */
static enum hw_status spill(struct hw_replica *replica, struct hw_error *err)
{
    for (uint32_t i = 0; i < hw_overlay_count(replica->overlay); i++) {
        const uint8_t *content;
        uint32_t page = hw_overlay_page(replica->overlay, i, &content);
        enum hw_status status = HW_OK;

        if (page != 0)
            status = hw_replica_add_page(replica, page, content, err);
        if (status != HW_OK)
            return status;
    }
    hw_overlay_clear(replica->overlay);
    return HW_OK;
}

static enum hw_status put_images(struct hw_replica *replica, const struct hw_transaction *block,
                                 uint64_t *sum, uint32_t *grown, struct hw_error *err)
{
    enum hw_status status = hw_transaction_expand(replica->decoder, err);

    for (uint32_t i = 0; status == HW_OK && i < block->change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(replica->decoder, i, &needed);

        *sum ^= hw_page_sum(page, hw_transaction_image(replica->decoder, i), replica->page_size);
        if (page > replica->next.page_count)
            ++*grown;
    }
    return status;
}

/* ------------------------------------------------------------------------------- one block */

/*
 * The sums are right: the images become part of the batch.  It cannot fail: entries before this one
 * may be in the batch, and are shown even if this block is not taken.
 */
static void accept(struct hw_replica *replica, const struct hw_transaction *block)
{
    for (uint32_t i = 0; i < block->change_count; i++) {
        bool needed;
        uint32_t page = hw_transaction_page(replica->decoder, i, &needed);

        hw_overlay_put(replica->overlay, page, hw_transaction_image(replica->decoder, i));
    }
}

static enum hw_status check_sum(uint64_t got, uint64_t want, const char *when, struct hw_error *err)
{
    if (got == want)
        return HW_OK;
    return hw_fail(err, HW_ECORRUPT, "state sum %s it is %016llx, the log says %016llx", when,
                   (unsigned long long)got, (unsigned long long)want);
}

/* `cursor` is at the body. */
static enum hw_status take_transaction(struct hw_replica *replica,
                                       const struct hw_entry_header *header,
                                       struct hw_cursor *cursor, struct hw_error *err)
{
    struct hw_transaction block;
    uint64_t sum = replica->next.sum;
    uint32_t grown = header->starts ? 0 : replica->grown;
    uint32_t old_count = replica->next.page_count;
    enum hw_status status;

    if (header->starts == replica->in_entry)
        return hw_fail(err, HW_ECORRUPT, "its entry does not start or end where it should");
    if (header->starts && !header->ends && hw_overlay_count(replica->overlay) > 0)
        return HW_AGAIN; /* so that an abandoned entry takes no other with it */
    status = hw_transaction_decode(replica->decoder, cursor, replica->page_size, &block, err);
    if (status == HW_OK && block.page_count == 0)
        status = hw_fail(err, HW_ECORRUPT, "it leaves a database without pages");
    if (status == HW_OK)
        status = check_sum(sum, block.sum_before, "before", err);
    if (status != HW_OK)
        return status;
    if (block.change_count > hw_overlay_room(replica->overlay)) {
        if (!replica->in_entry)
            return HW_AGAIN;
        status = spill(replica, err);
    }
    if (status == HW_OK)
        status = hw_overlay_reserve(replica->overlay, block.change_count, err);
    if (status == HW_OK)
        status = take_previous(replica, block.change_count, &sum, err);
    if (status == HW_OK)
        status = put_images(replica, &block, &sum, &grown, err);
    if (status == HW_OK && header->ends)
        status = take_dropped(replica, block.page_count, &sum, err);
    if (status == HW_OK)
        status = check_sum(sum, block.sum_after, "after", err);
    if (status == HW_OK && header->ends &&
        grown != pages_between(old_count, block.page_count, replica->page_size))
        status = hw_fail(err, HW_ECORRUPT, "it grows the database without all the new pages");
    if (status != HW_OK)
        return status;
    accept(replica, &block);
    replica->next.sum = sum;
    replica->grown = grown;
    replica->in_entry = !header->ends;
    if (header->ends) {
        if (block.page_count < old_count)
            hw_overlay_drop_above(replica->overlay, block.page_count);
        replica->next.page_count = block.page_count;
        replica->next.seq = replica->next_block;
    }
    return HW_OK;
}

enum hw_status hw_replica_take_block(struct hw_replica *replica, struct hw_error *err)
{
    uint64_t seq = replica->next_block;
    struct hw_entry_header header;
    struct hw_cursor cursor;
    enum hw_status status;

    if (!replica->in_entry && replica->skip != NULL && replica->skip(replica->skip_ctx, seq)) {
        replica->next_block++;
        return HW_OK;
    }
    status = hw_core_read(replica->core, seq, &replica->block, err);
    if (status != HW_OK)
        return status;
    cursor = hw_cursor(replica->block.bytes, replica->block.size);
    status = hw_entry_header_decode(&cursor, seq, &header);
    if (status != HW_OK)
        status = hw_fail(err, status, "its header cannot be read");
    else if (header.type == HW_ENTRY_TRANSACTION)
        status = take_transaction(replica, &header, &cursor, err);
    else if (replica->in_entry)
        status = hw_fail(err, HW_ECORRUPT, "it interrupts the entry before it");
    else if (header.type == HW_ENTRY_GAP)
        return HW_END;
    if (status < 0)
        return hw_prefix(err, status, "block %llu", (unsigned long long)seq);
    if (status == HW_OK)
        replica->next_block++;
    return status;
}

/* ----------------------------------------------------------------------------------- batch */

enum hw_status hw_replica_record_now(struct hw_replica *replica, uint32_t flags,
                                     struct hw_error *err)
{
    struct hw_replica_record record = {
        .seq = replica->visible.seq,
        .sum = replica->visible.sum,
        .page_count = replica->visible.page_count,
        .at = hw_wal_writer_position(replica->db->writer),
        .flags = flags,
    };
    enum hw_status status = hw_positions_append(replica->positions, &record, err);

    if (status == HW_OK)
        status = hw_positions_sync(replica->positions, err);
    return status;
}

enum hw_status hw_replica_commit(struct hw_replica *replica, const struct hw_replica_state *state,
                                 struct hw_error *err)
{
    struct hw_wal_writer *writer = replica->db->writer;
    struct hw_replica_record record = {
        .seq = state->seq, .sum = state->sum, .page_count = state->page_count};
    enum hw_status status = hw_wal_writer_finish(writer, state->page_count, &record.at, err);

    if (status == HW_OK)
        status = hw_positions_append(replica->positions, &record, err);
    if (status == HW_OK)
        status = hw_wal_writer_publish(writer, err);
    if (status == HW_OK) {
        replica->visible = *state;
        replica->added = 0;
    }
    return status;
}

enum hw_status hw_replica_abandon(struct hw_replica *replica, struct hw_error *err)
{
    hw_overlay_clear(replica->overlay);
    replica->next = replica->visible;
    replica->next_block = replica->shown_seq + 1;
    replica->in_entry = false;
    replica->grown = 0;
    replica->added = 0;
    return hw_wal_writer_rollback(replica->db->writer, err);
}

/* A commit needs a frame: if no page changed but the size did, page 1 is written as it is. */
static enum hw_status add_first_page(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = hw_replica_database_read(replica->db, 1, replica->scratch, err);

    if (status == HW_OK)
        status = hw_replica_add_page(replica, 1, replica->scratch, err);
    return status;
}

enum hw_status hw_replica_flush(struct hw_replica *replica, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    assert(!replica->in_entry);
    if (replica->next.seq != replica->visible.seq) {
        status = spill(replica, err);
        if (status == HW_OK && replica->added == 0)
            status = add_first_page(replica, err);
        if (status == HW_OK)
            status = hw_replica_commit(replica, &replica->next, err);
    }
    if (status == HW_OK)
        replica->shown_seq = replica->next_block - 1;
    return status;
}
