/*
 * node/ledger.h - what the log of a database says of transactions that came from afar
 *
 *     id: base, log          the log's own ── blocks from `base` on: the id, or another change
 *                            another's ────── the log that was here before it (its switch), and
 *                                             so on; of that the blocks that this one goes on from
 *
 * A log that goes on with the state of another one (a change of primary) has the transactions of
 * that one in its first state, and none of their ids.  The other one may be kept beside it
 * (hypercore/keep.h), as far as it was known here.
 *
 * Threads: one at a time.
 */
#ifndef HW_NODE_LEDGER_H
#define HW_NODE_LEDGER_H

#include "base/buffer.h"
#include "base/origin.h"
#include "env/env.h"
#include "env/shared_page.h"
#include "hypercore/hypercore.h"

struct hw_ledger {
    struct hw_env *env;          /* borrowed */
    const char *dir;             /* borrowed: of the log */
    struct hw_shared_page *page; /* owned, as all that follows; NULL: not open yet */
    struct hw_core *core;
    uint32_t page_size; /* as its genesis says; 0: not read yet */
    struct hw_buffer block;
};

/* It is as it was made: it opens what it needs. */
void hw_ledger_close(struct hw_ledger *ledger);
/*
 * What became of the transaction with this id?  HW_OK: *seq is its last block, in the log that the
 * id is of.  HW_END: it is not in the history of this database, and will not be: another change is
 * where it would be.  HW_AGAIN: it is not there, and nothing else is.  Else it is not known:
 * HW_ENOTFOUND where the logs that are here do not say it.
 */
enum hw_status hw_ledger_find(struct hw_ledger *ledger, const struct hw_origin *id, uint64_t *seq,
                              struct hw_error *err) HW_MUST_CHECK;
/* The first block from `from` on, not above `to`, that changes the database, or cannot be read. */
uint64_t hw_ledger_unchanged_end(struct hw_ledger *ledger, uint64_t from, uint64_t to);

#endif
