/* Who follows a log, and how far behind: hw_capture_peers(). */
#include "capture/capture.h"
#include "capture/internal.h"
#include "env/peer_table.h"

enum { LAG_BLOCKS_MAX = 100000 };

static bool is_state(const struct hw_entry_header *header)
{
    return header->ends && (header->type == HW_ENTRY_TRANSACTION ||
                            header->type == HW_ENTRY_GENESIS || header->type == HW_ENTRY_GAP);
}

/* Look at the header of one block.  False: it cannot be had. */
static bool peek(struct hw_core *core, uint64_t index, struct hw_buffer *block,
                 struct hw_entry_header *header)
{
    struct hw_cursor cursor;

    if (hw_core_read_head(core, index, HW_ENTRY_PEEK_SIZE, block, NULL) != HW_OK)
        return false;
    cursor = hw_cursor(block->bytes, block->size);
    return hw_entry_header_decode(&cursor, index, header) == HW_OK;
}

static void measure(struct hw_env *env, struct hw_core *core, struct hw_capture_peer *peer)
{
    uint64_t from = peer->row.applied, end = hw_core_length(core), bytes = 0, size;
    int64_t first_ms = 0, now = env->ops->realtime_ms(env);
    struct hw_buffer block = {0};
    struct hw_entry_header header;

    if (end > from && end - from > LAG_BLOCKS_MAX)
        end = from + LAG_BLOCKS_MAX; /* far behind is all that anybody wants to know */
    for (uint64_t i = from; i < end; i++) {
        if (hw_core_block_size(core, i, &size, NULL) == HW_OK)
            bytes += size;
        if (!peek(core, i, &block, &header) || !is_state(&header))
            continue;
        peer->lag_entries++;
        peer->lag_blocks = i + 1 - from;
        peer->lag_bytes = bytes; /* blocks behind the last state, of a snapshot say, are no lag */
        first_ms = first_ms == 0 ? header.time_ms : first_ms;
    }
    peer->lag_ms = first_ms == 0 || now < first_ms ? 0 : now - first_ms;
    hw_buffer_release(&block);
}

static size_t list(struct hw_peer_table *table, struct hw_capture_peer *peers)
{
    size_t count = 0;

    for (unsigned i = 0; i < HW_PEER_ROWS; i++) {
        struct hw_capture_peer peer = {0};

        if (hw_peer_table_get(table, i, &peer.row))
            peers[count++] = peer;
    }
    return count;
}

size_t hw_capture_peers(struct hw_env *env, const char *dir, struct hw_capture_peer *peers)
{
    struct hw_peer_table *table = NULL;
    struct hw_shared_page *page = NULL;
    struct hw_core *core = NULL;
    size_t count;

    if (hw_peer_table_open(env, dir, false, &table, NULL) != HW_OK)
        return 0;
    count = list(table, peers);
    hw_peer_table_close(table);
    if (count == 0 || hw_shared_page_open(env, dir, false, &page, NULL) != HW_OK)
        return count;
    if (hw_core_open(env, dir, HW_CORE_READ, hw_shared_durable_length(page), &core, NULL) == HW_OK)
        for (size_t i = 0; i < count; i++)
            measure(env, core, &peers[i]);
    hw_core_close(core);
    hw_shared_page_close(page);
    return count;
}
