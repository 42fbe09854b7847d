/* Implements node/ledger.h: one log block by block, the logs before it by their switches. */
#include "node/ledger.h"

#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "entry/entry.h"
#include "hypercore/keep.h"

enum {
    SWITCH_SEQ = 1,
    LOGS_MAX = 8, /* before this one, that are asked */
};

struct block {
    struct hw_entry_header header;
    bool is_unchanging; /* no transaction, or one without an id after which all is as before */
};

void hw_ledger_close(struct hw_ledger *ledger)
{
    hw_core_close(ledger->core);
    hw_shared_page_close(ledger->page);
    hw_buffer_release(&ledger->block);
    ledger->core = NULL;
    ledger->page_size = 0;
    ledger->page = NULL;
}

static enum hw_status refresh(struct hw_ledger *ledger, struct hw_error *err)
{
    enum hw_status status = HW_OK;

    if (ledger->page == NULL)
        status = hw_shared_page_open(ledger->env, ledger->dir, true, &ledger->page, err);
    if (status != HW_OK)
        return status;
    if (ledger->core == NULL)
        return hw_core_open(ledger->env, ledger->dir, HW_CORE_READ,
                            hw_shared_durable_length(ledger->page), &ledger->core, err);
    return hw_core_refresh(ledger->core, hw_shared_durable_length(ledger->page), err);
}

/* The log as it is now; another one may have come in the place of the one that is open. */
static enum hw_status look(struct hw_ledger *ledger, struct hw_error *err)
{
    enum hw_status status = refresh(ledger, err);

    if (status == HW_OK)
        return HW_OK;
    hw_ledger_close(ledger);
    return refresh(ledger, err);
}

/* --------------------------------------------------------------------------------- blocks */

/* The header of block `seq`; its body is at the cursor. */
static enum hw_status read_header(struct hw_ledger *ledger, uint64_t seq, struct hw_cursor *cursor,
                                  struct hw_entry_header *header, struct hw_error *err)
{
    enum hw_status status =
        hw_core_read_head(ledger->core, seq, HW_ENTRY_PEEK_SIZE, &ledger->block, err);

    if (status != HW_OK)
        return status;
    *cursor = hw_cursor(ledger->block.bytes, ledger->block.size);
    status = hw_entry_header_decode(cursor, seq, header);
    return status == HW_OK ? HW_OK : hw_fail(err, status, "block %llu", (unsigned long long)seq);
}

static enum hw_status read_page_size(struct hw_ledger *ledger, struct hw_error *err)
{
    struct hw_entry_header header;
    struct hw_genesis genesis;
    struct hw_cursor cursor;
    enum hw_status status;

    if (ledger->page_size != 0)
        return HW_OK;
    status = read_header(ledger, 0, &cursor, &header, err);
    if (status == HW_OK)
        status =
            header.type == HW_ENTRY_GENESIS ? hw_genesis_decode(&cursor, &genesis) : HW_ECORRUPT;
    if (status == HW_OK)
        ledger->page_size = genesis.page_size;
    return status == HW_OK ? HW_OK : hw_fail(err, status, "block 0");
}

static enum hw_status read_block(struct hw_ledger *ledger, uint64_t seq, struct block *out,
                                 struct hw_error *err)
{
    struct hw_transaction transaction;
    struct hw_cursor cursor;
    enum hw_status status = read_page_size(ledger, err);

    if (status == HW_OK)
        status = read_header(ledger, seq, &cursor, &out->header, err);
    if (status != HW_OK)
        return status;
    out->is_unchanging =
        (out->header.type == HW_ENTRY_SWITCH && seq == SWITCH_SEQ) || /* whence the log came */
        out->header.type == HW_ENTRY_GENESIS || out->header.type == HW_ENTRY_GROUP ||
        out->header.type == HW_ENTRY_SNAPSHOT || out->header.type == HW_ENTRY_LABEL;
    if (out->header.type != HW_ENTRY_TRANSACTION || !out->header.starts || !out->header.ends)
        return HW_OK;
    status = hw_transaction_peek(&cursor, ledger->page_size, &transaction);
    if (status != HW_OK)
        return hw_fail(err, status, "block %llu", (unsigned long long)seq);
    out->is_unchanging = transaction.sum_before == transaction.sum_after && !out->header.has_origin;
    return HW_OK;
}

/* --------------------------------------------------------------------------- transactions */

/* In the first `length` blocks of the open log, which the id is of.  As hw_ledger_find(). */
static enum hw_status search(struct hw_ledger *ledger, const struct hw_origin *id, uint64_t length,
                             uint64_t *seq, struct hw_error *err)
{
    uint64_t base = hw_origin_base(id);
    struct block block;

    if (base > length || length > hw_core_length(ledger->core))
        return hw_fail(err, HW_ENOTFOUND, "the log is shorter than it was");
    for (uint64_t at = base; at < length; at++) {
        enum hw_status status = read_block(ledger, at, &block, err);

        if (status != HW_OK)
            return status;
        if (!block.is_unchanging && block.header.type != HW_ENTRY_TRANSACTION)
            return hw_fail(err, HW_ENOTFOUND, "the log has a gap there");
        if (block.header.has_origin &&
            memcmp(block.header.origin.bytes, id->bytes, sizeof(id->bytes)) == 0) {
            while (status == HW_OK && !block.header.ends)
                status = read_block(ledger, ++at, &block, err);
            *seq = at;
            return status;
        }
        if (!block.is_unchanging)
            return HW_END;
    }
    return HW_AGAIN;
}

static enum hw_status open_kept(const struct hw_ledger *newest, const uint8_t key[HW_KEY_SIZE],
                                struct hw_ledger *out, struct hw_error *err)
{
    char *dir = hw_keep_dir(newest->dir, key);
    enum hw_status status = HW_ENOMEM;

    *out = (struct hw_ledger){.env = newest->env};
    if (dir == NULL)
        return hw_fail(err, status, "no memory for the path of a log");
    status = hw_core_open(newest->env, dir, HW_CORE_READ, UINT64_MAX, &out->core, err);
    if (status == HW_OK && memcmp(hw_core_identity(out->core)->key, key, HW_KEY_SIZE) != 0)
        status = hw_fail(err, HW_ENOTFOUND, "%s: it is another log's", dir);
    hw_free(dir);
    return status;
}

/*
 * In a log before this one.  What it had beyond the state that was taken over is not in the history
 * of the database, whatever whoever has more of it says.
 */
static enum hw_status search_before(struct hw_ledger *ledger, const struct hw_origin *id,
                                    uint64_t *seq, struct hw_error *err)
{
    struct hw_ledger kept = {.core = NULL};
    struct hw_core *core = ledger->core;
    struct hw_switch from;
    bool is_found = false;
    enum hw_status status = HW_OK;

    for (unsigned i = 0; i < LOGS_MAX && status == HW_OK && !is_found; i++) {
        status = hw_switch_read(core, SWITCH_SEQ, &from, err);
        if (status == HW_OK && from.role != HW_SWITCH_CONTINUES)
            status = HW_ENOTFOUND;
        if (status != HW_OK)
            break;
        is_found = hw_origin_is_of(id, from.key);
        if (is_found && hw_origin_base(id) > from.seq) {
            status = HW_END;
            break;
        }
        hw_ledger_close(&kept);
        status = open_kept(ledger, from.key, &kept, err);
        core = kept.core;
    }
    if (status == HW_OK && is_found && hw_core_head(core).fork != from.fork)
        status = HW_ENOTFOUND; /* its blocks may be others than those that were taken over */
    if (status == HW_OK)
        status = is_found ? search(&kept, id, from.seq + 1, seq, err) : HW_ENOTFOUND;
    if (status == HW_AGAIN)
        status = HW_END; /* no more of that log will be in the history */
    hw_ledger_close(&kept);
    return status == HW_ENOTFOUND
               ? hw_fail(err, status, "the log that it was sent to is not known here")
               : status;
}

enum hw_status hw_ledger_find(struct hw_ledger *ledger, const struct hw_origin *id, uint64_t *seq,
                              struct hw_error *err)
{
    enum hw_status status = look(ledger, err);

    if (status != HW_OK)
        return status;
    if (hw_origin_is_of(id, hw_core_identity(ledger->core)->key))
        return search(ledger, id, hw_core_length(ledger->core), seq, err);
    return search_before(ledger, id, seq, err);
}

uint64_t hw_ledger_unchanged_end(struct hw_ledger *ledger, uint64_t from, uint64_t to)
{
    struct block block = {.is_unchanging = true};
    uint64_t at = from;
    enum hw_status status = look(ledger, NULL);

    while (status == HW_OK && at <= to) {
        status = read_block(ledger, at, &block, NULL);
        if (status != HW_OK || !block.is_unchanging)
            break;
        at++;
    }
    return at; /* what cannot be looked at is as good as changed */
}
