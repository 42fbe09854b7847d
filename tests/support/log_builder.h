/*
 * support/log_builder.h - logs made by hand, with the states they mean remembered
 *
 * A model of a database in memory changes by chance from a seed; every change becomes an entry of a
 * log in memory, coded as capture codes it, and the bytes of the state after it are kept.  So a
 * test can ask of any seq what a restore must give.  Any failure is a failed assertion.
 */
#ifndef SUPPORT_LOG_BUILDER_H
#define SUPPORT_LOG_BUILDER_H

#include <stdbool.h>
#include <stdint.h>

#include "entry/entry.h"
#include "env/env.h"
#include "hypercore/hypercore.h"

enum { LOG_PAGES_MAX = 1024, LOG_STATES_MAX = 512 };

struct log_state {
    uint64_t seq; /* last block of its entry */
    int64_t time_ms;
    uint32_t page_count;
    uint64_t sum;
    uint8_t *pages; /* owned */
};

struct log_builder {
    struct hw_core *core; /* owned */
    uint32_t page_size;
    uint64_t chance;
    int64_t time_ms; /* of the last block; each entry adds 1000 */
    uint64_t snapshot_seq, label_seq;
    uint8_t *pages; /* owned; the database now */
    uint32_t page_count;
    uint64_t sum;
    struct log_state states[LOG_STATES_MAX];
    uint32_t state_count;
    /* A snapshot being made: groups below `taken` have their block. */
    bool in_snapshot;
    uint32_t taken;
    struct hw_snapshot_group groups[LOG_PAGES_MAX / HW_GROUP_PAGES];
    uint64_t touched[LOG_PAGES_MAX / HW_GROUP_PAGES]; /* seq of the last change of each group */
    struct hw_transaction_encoder *encoder;           /* owned */
    struct hw_group_coder *coder;                     /* owned */
    struct hw_buffer block;                           /* owned */
};

/* A log whose genesis adopts a database of page_count pages (0: none yet). */
struct log_builder *log_builder_new(struct hw_env *env, uint32_t page_size, uint32_t page_count,
                                    uint64_t seed);
void log_builder_free(struct log_builder *log);

uint64_t log_random(struct log_builder *log, uint64_t bound);

/* A transaction that changes about `changes` pages and the size to page_count; seq of its end. */
uint64_t log_transaction(struct log_builder *log, uint32_t changes, uint32_t page_count);
/* The group that comes next, of the snapshot that this begins if none is being made. */
void log_snapshot_group(struct log_builder *log);
/* The remaining groups and the index; its seq.  `reuse`: groups that did not change are not taken
 * anew (only with no group taken yet). */
uint64_t log_snapshot(struct log_builder *log, bool reuse);
uint64_t log_label(struct log_builder *log, const char *name);
/* Transactions of all kinds, labels and groups of snapshots, as chance will. */
void log_mix(struct log_builder *log, int rounds);
/* The database changes behind the log's back. */
uint64_t log_gap(struct log_builder *log, const char *reason, uint32_t page_count);
/* A block of this type with this body, whatever it is. */
uint64_t log_raw(struct log_builder *log, enum hw_entry_type type, const void *body, size_t size);
uint64_t log_raw_part(struct log_builder *log, enum hw_entry_type type, bool starts, bool ends,
                      const void *body, size_t size);

/* The last state at or before block `seq`. */
const struct log_state *log_state_at(const struct log_builder *log, uint64_t seq);

#endif
