/* Who follows a log, and how far behind: hw_capture_peers(). */
#include "capture/capture.h"
#include "capture/internal.h"
#include "env/peer_table.h"

enum { LAG_BLOCKS_COUNTED = 10000 };

static uint64_t bytes_from(struct hw_core *core, uint64_t from, uint64_t length)
{
    uint64_t bytes = 0, size;

    if (length - from > LAG_BLOCKS_COUNTED)
        return UINT64_MAX;
    for (uint64_t i = from; i < length; i++) {
        if (hw_core_block_size(core, i, &size, NULL) != HW_OK)
            return UINT64_MAX;
        bytes += size;
    }
    return bytes;
}

static int64_t age_of(struct hw_env *env, struct hw_core *core, uint64_t index)
{
    struct hw_entry_header header;
    struct hw_buffer block = {0};
    int64_t now = env->ops->realtime_ms(env), age = -1;

    if (hw_core_read_head(core, index, HW_ENTRY_PEEK_SIZE, &block, NULL) == HW_OK) {
        struct hw_cursor cursor = hw_cursor(block.bytes, block.size);

        if (hw_entry_header_decode(&cursor, index, &header) == HW_OK)
            age = now > header.time_ms ? now - header.time_ms : 0;
    }
    hw_buffer_release(&block);
    return age;
}

static void measure(struct hw_env *env, struct hw_core *core, struct hw_capture_peer *peer)
{
    uint64_t length = hw_core_length(core), applied = peer->row.applied;

    if (applied >= length)
        return; /* as we know the log: it may have grown since */
    peer->lag_blocks = length - applied;
    peer->lag_bytes = bytes_from(core, applied, length);
    peer->lag_ms = age_of(env, core, applied);
}

static size_t list(struct hw_peer_table *table, struct hw_capture_peer *peers)
{
    size_t count = 0;

    for (unsigned i = 0; i < HW_PEER_ROWS; i++) {
        struct hw_capture_peer peer = {0};

        if (hw_peer_table_get(table, i, &peer.row) && peer.row.process_id != 0)
            peers[count++] = peer;
    }
    return count;
}

size_t hw_capture_peers(struct hw_env *env, const char *dir, struct hw_core *core,
                        struct hw_capture_peer *peers)
{
    struct hw_peer_table *table = NULL;
    struct hw_shared_page *page = NULL;
    struct hw_core *own = NULL;
    size_t count;

    if (hw_peer_table_open(env, dir, false, &table, NULL) != HW_OK)
        return 0; /* nobody has ever served it since the boot */
    count = list(table, peers);
    hw_peer_table_close(table);
    if (count > 0 && core == NULL && hw_shared_page_open(env, dir, false, &page, NULL) == HW_OK) {
        if (hw_core_open(env, dir, HW_CORE_READ, hw_shared_durable_length(page), &own, NULL) ==
            HW_OK)
            core = own;
        hw_shared_page_close(page);
    }
    for (size_t i = 0; i < count; i++) {
        peers[i].lag_bytes = core == NULL ? UINT64_MAX : 0;
        peers[i].lag_ms = core == NULL ? -1 : 0;
        if (core != NULL)
            measure(env, core, &peers[i]);
    }
    hw_core_close(own);
    return count;
}
