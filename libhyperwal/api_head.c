/* Implements what include/hyperwal.h tells of a log as a whole: its head, and who follows it. */
#include <assert.h>
#include <string.h>

#include "api_log.h"
#include "api_remote.h"
#include "base/alloc.h"
#include "entry/entry.h"
#include "env/peer_table.h"

enum { AFTER_BLOCKS_MAX = 100000 };
enum { HEADER_BYTES_MAX = 64 }; /* an entry header, and with a block 0 the genesis */

/* --------------------------------------------------------------------------------- head */

/* Header of block `seq`, and for block 0 the genesis (may be NULL). */
static enum hw_status block_peek(struct hyperwal_log *log, uint64_t seq,
                                 struct hw_entry_header *header, struct hw_genesis *genesis,
                                 struct hw_error *err)
{
    struct hw_buffer bytes = {0};
    struct hw_cursor cursor;
    enum hw_status status;

    status = hw_core_read_head(log->core, seq, HEADER_BYTES_MAX + sizeof(*genesis), &bytes, err);
    if (status != HW_OK)
        goto done;
    cursor = hw_cursor(bytes.bytes, bytes.size);
    status = hw_entry_header_decode(&cursor, seq, header);
    if (status == HW_OK && genesis != NULL)
        status = hw_genesis_decode(&cursor, genesis);
    if (status == HW_EVERSION)
        (void)hw_fail(err, status, "%s: block %llu: written by a newer version: upgrade", log->dir,
                      (unsigned long long)seq);
    else if (status != HW_OK)
        (void)hw_fail(err, status, "%s: block %llu: not an entry of hyperwal", log->dir,
                      (unsigned long long)seq);
done:
    hw_buffer_release(&bytes);
    return status;
}

enum hw_status hw_api_log_snapshot(struct hyperwal_log *log, uint64_t *seq, struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_entry_summary entry;
    uint64_t last = hw_entry_last(log->core);
    enum hw_status status;

    *seq = UINT64_MAX;
    if (last == UINT64_MAX)
        return HW_OK;
    status = block_peek(log, last, &header, NULL, err);
    if (status != HW_OK)
        return status;
    *seq = header.snapshot_seq;
    if (header.type != HW_ENTRY_SNAPSHOT || !header.ends)
        return HW_OK;
    status = hw_entry_next(log->core, &last, &entry, err); /* it is the newest one itself */
    if (status == HW_OK)
        *seq = entry.first_seq;
    return status < 0 ? status : HW_OK;
}

/* The newest entry that says what the database is, from the end backwards. */
static enum hw_status head_state(struct hyperwal_log *log, hyperwal_head *head,
                                 struct hw_error *err)
{
    struct hw_entry_summary entry;
    enum hw_status status;

    head->seq = HYPERWAL_SEQ_NONE;
    for (uint64_t end = head->length; end > 0;) {
        uint64_t seq = end - 1;

        status = hw_entry_next(log->core, &seq, &entry, err);
        if (status == HW_EPRUNED || status == HW_EMISSING || status == HW_END) {
            end--;
            continue;
        }
        if (status != HW_OK)
            return status;
        if (entry.header.type == HW_ENTRY_TRANSACTION || entry.header.type == HW_ENTRY_GENESIS ||
            entry.header.type == HW_ENTRY_GAP) {
            head->seq = entry.seq;
            head->time_ms = entry.header.time_ms;
            head->page_count = entry.page_count;
            head->sum = entry.sum;
            return HW_OK;
        }
        end = entry.first_seq < end ? entry.first_seq : end - 1;
    }
    return HW_OK;
}

static void head_page(struct hyperwal_log *log, hyperwal_head *head)
{
    char alarm[HW_SHARED_TEXT_SIZE];

    if (log->page == NULL)
        return;
    head->worker_pid = hw_env_pid(hw_shared_worker(log->page));
    hw_shared_alarm(log->page, alarm);
    alarm[sizeof(alarm) - 1] = '\0';
    memcpy(head->alarm, alarm, sizeof(head->alarm));
}

int hyperwal_log_head(hyperwal_log *log, hyperwal_head *out)
{
    hyperwal_head head = {0};
    struct hw_entry_header header;
    struct hw_genesis genesis = {0};
    struct hw_core_head core;
    struct hw_error err = {0};
    bool has_key = false;
    enum hw_status status = hw_api_log_refresh(log, &err);

    if (status == HW_OK)
        status = hw_api_has_file(log->env, log->dir, "key", &has_key, &err);
    if (status != HW_OK)
        return hw_api_log_result(log, status, &err);
    head.has_key = has_key;
    core = hw_core_head(log->core);
    memcpy(head.key, hw_core_identity(log->core)->key, sizeof(head.key));
    memcpy(head.discovery_key, hw_core_identity(log->core)->discovery_key,
           sizeof(head.discovery_key));
    memcpy(head.tree_hash, core.tree_hash, sizeof(head.tree_hash));
    head.length = core.length;
    head.byte_length = core.byte_length;
    head.fork = core.fork;
    head.first_kept = hw_core_first_kept(log->core);
    head.stored_bytes = hw_core_stored_bytes(log->core);
    head.seq = head.snapshot_seq = HYPERWAL_SEQ_NONE;
    if (head.length > 0) {
        status = block_peek(log, 0, &header, &genesis, &err);
        if (status == HW_OK)
            status = hw_api_log_snapshot(log, &head.snapshot_seq, &err);
        if (status == HW_OK)
            status = head_state(log, &head, &err);
        if (status < 0)
            return hw_api_log_result(log, status, &err);
        head.page_size = genesis.page_size;
    }
    head_page(log, &head);
    *out = head;
    return SQLITE_OK;
}

/* ------------------------------------------------------------------------------- followers */

static uint64_t seq_of(uint64_t length)
{
    return length == 0 ? HYPERWAL_SEQ_NONE : length - 1;
}

int hyperwal_log_peer(hyperwal_log *log, unsigned *row, hyperwal_peer *peer)
{
    struct hw_error err = {0};
    struct hw_peer_row found;
    enum hw_status status = HW_OK;

    static_assert(sizeof(peer->address) >= sizeof(found.address), "every address fits");
    if (log->peers == NULL)
        status = hw_peer_table_open(log->env, log->dir, false, &log->peers, &err);
    if (status == HW_ENOTFOUND)
        return SQLITE_DONE; /* nobody ever followed */
    if (status != HW_OK)
        return hw_api_log_result(log, status, &err);
    while (*row < HW_PEER_ROWS && !hw_peer_table_get(log->peers, *row, &found))
        ++*row;
    if (*row >= HW_PEER_ROWS)
        return SQLITE_DONE;
    ++*row;
    *peer = (hyperwal_peer){.is_connected = found.process_id != 0,
                            .length = found.length,
                            .received_seq = seq_of(found.received),
                            .durable_seq = seq_of(found.durable),
                            .applied_seq = seq_of(found.applied),
                            .since_ms = found.since_ms};
    memcpy(peer->key, found.key, sizeof(peer->key));
    memcpy(peer->address, found.address, sizeof(found.address));
    peer->address[sizeof(peer->address) - 1] = '\0';
    return SQLITE_OK;
}

/* A state-carrying entry after `seq`? */
static bool is_state(enum hw_entry_type type)
{
    return type == HW_ENTRY_TRANSACTION || type == HW_ENTRY_GENESIS || type == HW_ENTRY_GAP;
}

int hyperwal_log_after(hyperwal_log *log, uint64_t seq, uint64_t *entries, uint64_t *bytes,
                       int64_t *first_time_ms)
{
    uint64_t first = seq == HYPERWAL_SEQ_NONE ? 0 : seq + 1, end = hw_core_length(log->core);

    *entries = *bytes = 0;
    *first_time_ms = 0;
    if (end > first && end - first > AFTER_BLOCKS_MAX)
        end = first + AFTER_BLOCKS_MAX;
    for (uint64_t at = first; at < end; at++) {
        struct hw_entry_header header;
        uint64_t size;

        if (hw_core_block_size(log->core, at, &size, NULL) == HW_OK)
            *bytes += size;
        if (block_peek(log, at, &header, NULL, NULL) != HW_OK) /* given up, or not held */
            continue;
        if (!is_state(header.type) || !header.ends)
            continue;
        ++*entries;
        if (*first_time_ms == 0)
            *first_time_ms = header.time_ms;
    }
    return SQLITE_OK;
}
