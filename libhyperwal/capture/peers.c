/* Who follows a log, and how far behind: hw_capture_peers(). */
#include "capture/capture.h"
#include "capture/internal.h"
#include "env/peer_table.h"

enum { LAG_BLOCKS_MAX = 4096 };

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

/* What followers lack, from the end of the log backwards. */
struct lag {
    uint64_t last; /* the newest state; UINT64_MAX: none was met yet */
    uint64_t entries, bytes;
    int64_t first_ms; /* when the first of them was committed */
};

static void lag_set(const struct lag *lag, int64_t now_ms, struct hw_capture_peer *peer)
{
    if (lag->last == UINT64_MAX || lag->last < peer->row.applied)
        return; /* blocks behind the last state, of a snapshot say, are no lag */
    peer->lag_blocks = lag->last + 1 - peer->row.applied;
    peer->lag_entries = lag->entries;
    peer->lag_bytes = lag->bytes;
    peer->lag_ms = now_ms < lag->first_ms ? 0 : now_ms - lag->first_ms;
}

/*
 * All at once, and not far back: peers say what they have applied, and however many of them say
 * that it is nothing, the status, which serving looks at too, must cost little.
 */
static void measure(struct hw_env *env, struct hw_core *core, struct hw_capture_peer *peers,
                    size_t count)
{
    uint64_t end = hw_core_length(core), start = end, oldest = end, size;
    int64_t now_ms = env->ops->realtime_ms(env);
    struct lag lag = {.last = UINT64_MAX};
    struct hw_buffer block = {0};
    struct hw_entry_header header;

    for (size_t i = 0; i < count; i++)
        oldest = peers[i].row.applied < oldest ? peers[i].row.applied : oldest;
    while (start > oldest && end - start < LAG_BLOCKS_MAX) {
        start--;
        if (peek(core, start, &block, &header) && is_state(&header)) {
            lag.last = lag.last == UINT64_MAX ? start : lag.last;
            lag.first_ms = header.time_ms;
            lag.entries++;
        }
        if (lag.last != UINT64_MAX && hw_core_block_size(core, start, &size, NULL) == HW_OK)
            lag.bytes += size;
        for (size_t i = 0; i < count; i++)
            if (peers[i].row.applied == start)
                lag_set(&lag, now_ms, &peers[i]);
    }
    if (lag.last == UINT64_MAX && start > oldest) { /* a large snapshot ends the log */
        lag.last = start - 1;
        lag.first_ms = now_ms;
    }
    for (size_t i = 0; i < count; i++)
        if (peers[i].row.applied < start)
            lag_set(&lag, now_ms, &peers[i]);
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
        measure(env, core, peers, count);
    hw_core_close(core);
    hw_shared_page_close(page);
    return count;
}
