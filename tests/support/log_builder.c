/* Implements support/log_builder.h. */
#include "support/log_builder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

uint64_t log_random(struct log_builder *log, uint64_t bound)
{
    log->chance ^= log->chance << 13; /* xorshift64: Marsaglia 2003 */
    log->chance ^= log->chance >> 7;
    log->chance ^= log->chance << 17;
    return log->chance % bound;
}

static uint8_t *page_at(struct log_builder *log, uint32_t page_number)
{
    return log->pages + (size_t)(page_number - 1) * log->page_size;
}

static uint64_t sum_of_all(struct log_builder *log)
{
    uint64_t sum = 0;

    for (uint32_t p = 1; p <= log->page_count; p++)
        sum ^= hw_page_sum(p, page_at(log, p), log->page_size);
    return sum;
}

/* ------------------------------------------------------------------------------------- blocks */

static void block_begin(struct log_builder *log, enum hw_entry_type type, bool starts, bool ends)
{
    struct hw_entry_header header = {.type = type,
                                     .starts = starts,
                                     .ends = ends,
                                     .time_ms = log->time_ms,
                                     .snapshot_seq = log->snapshot_seq,
                                     .label_seq = log->label_seq};

    hw_buffer_clear(&log->block);
    hw_entry_header_encode(&header, hw_core_batch_next(log->core), &log->block);
}

static void block_add(struct log_builder *log)
{
    struct hw_error err;

    assert_false(log->block.failed);
    assert_int_equal(hw_core_batch_add(log->core, log->block.bytes, log->block.size, &err), HW_OK);
}

static void batch_begin(struct log_builder *log)
{
    struct hw_error err;

    log->time_ms += 1000;
    assert_int_equal(hw_core_batch_begin(log->core, &err), HW_OK);
}

/* seq of the last block added. */
static uint64_t batch_commit(struct log_builder *log)
{
    struct hw_error err;

    assert_int_equal(hw_core_batch_commit(log->core, "", 0, &err), HW_OK);
    return hw_core_length(log->core) - 1;
}

static void remember_state(struct log_builder *log, uint64_t seq)
{
    struct log_state *state = &log->states[log->state_count++];
    size_t size = (size_t)log->page_count * log->page_size;

    assert_in_range(log->state_count, 1, LOG_STATES_MAX);
    *state = (struct log_state){.seq = seq,
                                .time_ms = log->time_ms,
                                .page_count = log->page_count,
                                .sum = log->sum,
                                .pages = malloc(size + 1)};
    memcpy(state->pages, log->pages, size);
}

const struct log_state *log_state_at(const struct log_builder *log, uint64_t seq)
{
    uint32_t i = log->state_count;

    while (i > 0 && log->states[i - 1].seq > seq)
        i--;
    assert_in_range(i, 1, LOG_STATES_MAX);
    return &log->states[i - 1];
}

/* ------------------------------------------------------------------------------- life and death */

struct log_builder *log_builder_new(struct hw_env *env, uint32_t page_size, uint32_t page_count,
                                    uint64_t seed)
{
    struct log_builder *log = calloc(1, sizeof(*log));
    struct hw_genesis genesis = {
        .format_version = HW_FORMAT_VERSION, .page_size = page_size, .page_count = page_count};
    struct hw_error err;

    log->page_size = page_size;
    log->page_count = page_count;
    log->chance = seed * 0x9e3779b97f4a7c15 + 1;
    log->time_ms = 1790000000000;
    log->snapshot_seq = log->label_seq = UINT64_MAX;
    log->pages = calloc(LOG_PAGES_MAX, page_size);
    for (size_t i = 0; i < (size_t)page_count * page_size; i++)
        log->pages[i] = (uint8_t)(log_random(log, 8) == 0 ? log_random(log, 256) : 0);
    log->sum = genesis.sum = sum_of_all(log);
    assert_int_equal(hw_core_create(env, NULL, &log->core, &err), HW_OK);
    assert_int_equal(hw_transaction_encoder_new(page_size, &log->encoder, &err), HW_OK);
    assert_int_equal(hw_group_coder_new(&log->coder, &err), HW_OK);
    batch_begin(log);
    block_begin(log, HW_ENTRY_GENESIS, true, true);
    hw_genesis_encode(&genesis, &log->block);
    block_add(log);
    remember_state(log, batch_commit(log));
    return log;
}

void log_builder_free(struct log_builder *log)
{
    for (uint32_t i = 0; i < log->state_count; i++)
        free(log->states[i].pages);
    hw_transaction_encoder_free(log->encoder);
    hw_group_coder_free(log->coder);
    hw_buffer_release(&log->block);
    hw_core_close(log->core);
    free(log->pages);
    free(log);
}

/* --------------------------------------------------------------------------------- transactions */

static void scribble(struct log_builder *log, uint32_t page_number)
{
    uint8_t *page = page_at(log, page_number);
    size_t size = 1 + log_random(log, 40);
    size_t start = log_random(log, log->page_size - size);

    for (size_t i = 0; i < size; i++)
        page[start + i] = (uint8_t)log_random(log, 256);
}

static void block_flush(struct log_builder *log, uint32_t page_count, uint64_t *sum,
                        uint64_t sum_after, bool starts, bool ends)
{
    struct hw_transaction numbers = {
        .page_count = page_count, .sum_before = *sum, .sum_after = sum_after};
    struct hw_error err;

    block_begin(log, HW_ENTRY_TRANSACTION, starts, ends);
    assert_int_equal(hw_transaction_encode(log->encoder, &numbers, &log->block, &err), HW_OK);
    hw_transaction_encoder_clear(log->encoder);
    block_add(log);
    *sum = sum_after;
}

/* Has page p an image that a reader of the log will have? */
static bool has_previous(const struct log_builder *log, uint32_t page_number, uint32_t old_count)
{
    return page_number <= old_count &&
           !(log->in_snapshot && (page_number - 1) / HW_GROUP_PAGES >= log->taken);
}

uint64_t log_transaction(struct log_builder *log, uint32_t changes, uint32_t page_count)
{
    uint32_t old_count = log->page_count;
    uint8_t *old = malloc((size_t)LOG_PAGES_MAX * log->page_size);
    uint64_t block_sum = log->sum, sum = log->sum;
    bool starts = true;
    struct hw_error err;

    assert_in_range(page_count, 1, LOG_PAGES_MAX);
    memcpy(old, log->pages, (size_t)LOG_PAGES_MAX * log->page_size);
    batch_begin(log);
    for (uint32_t p = 1; p <= page_count; p++) {
        const uint8_t *before = old + (size_t)(p - 1) * log->page_size;
        const uint8_t *previous = has_previous(log, p, old_count) ? before : NULL;

        if (p <= old_count && log_random(log, page_count) >= changes)
            continue;
        scribble(log, p);
        if (hw_transaction_encoder_add(log->encoder, p, page_at(log, p), previous, &err) != HW_OK) {
            block_flush(log, page_count, &block_sum, sum, starts, false);
            starts = false;
            assert_int_equal(
                hw_transaction_encoder_add(log->encoder, p, page_at(log, p), previous, &err),
                HW_OK);
        }
        log->touched[(p - 1) / HW_GROUP_PAGES] = hw_core_batch_next(log->core);
        if (p <= old_count)
            sum ^= hw_page_sum(p, before, log->page_size);
        sum ^= hw_page_sum(p, page_at(log, p), log->page_size);
    }
    for (uint32_t p = page_count + 1; p <= old_count; p++) {
        sum ^= hw_page_sum(p, page_at(log, p), log->page_size);
        memset(page_at(log, p), 0xee, log->page_size); /* what a file may hold there */
        log->touched[(p - 1) / HW_GROUP_PAGES] = hw_core_batch_next(log->core);
    }
    log->page_count = page_count;
    block_flush(log, page_count, &block_sum, sum, starts, true);
    log->sum = sum;
    assert_true(sum == sum_of_all(log));
    free(old);
    remember_state(log, batch_commit(log));
    return log->states[log->state_count - 1].seq;
}

/* ------------------------------------------------------------------------------------ snapshots */

static uint64_t last_state_seq(const struct log_builder *log)
{
    return log->states[log->state_count - 1].seq;
}

static uint32_t group_count(const struct log_builder *log)
{
    return (log->page_count + HW_GROUP_PAGES - 1) / HW_GROUP_PAGES;
}

static void begin_snapshot(struct log_builder *log)
{
    if (log->in_snapshot)
        return;
    log->in_snapshot = true;
    log->taken = 0;
}

void log_snapshot_group(struct log_builder *log)
{
    struct hw_group group = {.page_size = log->page_size, .base_seq = last_state_seq(log)};
    uint32_t first;
    struct hw_error err;

    begin_snapshot(log);
    if (log->taken >= group_count(log))
        return;
    first = log->taken * HW_GROUP_PAGES + 1;
    group.group = log->taken;
    group.page_count = log->page_count - first + 1;
    if (group.page_count > HW_GROUP_PAGES)
        group.page_count = HW_GROUP_PAGES;
    batch_begin(log);
    block_begin(log, HW_ENTRY_GROUP, true, true);
    assert_int_equal(hw_group_encode(log->coder, &group, hw_core_batch_next(log->core),
                                     page_at(log, first), &log->block, &err),
                     HW_OK);
    block_add(log);
    log->groups[log->taken++] =
        (struct hw_snapshot_group){.block_seq = batch_commit(log), .base_seq = group.base_seq};
}

uint64_t log_snapshot(struct log_builder *log, bool reuse)
{
    struct hw_snapshot snapshot = {.page_size = log->page_size, .least_base = UINT64_MAX};

    begin_snapshot(log);
    while (log->taken < group_count(log)) {
        struct hw_snapshot_group *known = &log->groups[log->taken];

        if (reuse && known->block_seq != 0 && known->base_seq >= log->touched[log->taken]) {
            known->base_seq = last_state_seq(log);
            log->taken++;
        } else {
            log_snapshot_group(log);
        }
    }
    /* Those too that the database no longer has: transactions may be differences to them. */
    snapshot.group_count = snapshot.groups_here = log->taken;
    for (uint32_t i = 0; i < snapshot.group_count; i++) {
        if (log->groups[i].base_seq < snapshot.least_base)
            snapshot.least_base = log->groups[i].base_seq;
        if (log->groups[i].base_seq > snapshot.greatest_base)
            snapshot.greatest_base = log->groups[i].base_seq;
    }
    /* Any later state will do, and one is needed if the database has shrunk since. */
    if (log_state_at(log, snapshot.greatest_base)->page_count > log->page_count ||
        log_random(log, 2) == 0)
        snapshot.greatest_base = last_state_seq(log);
    snapshot.page_count = log_state_at(log, snapshot.greatest_base)->page_count;
    snapshot.sum = log_state_at(log, snapshot.greatest_base)->sum;
    batch_begin(log);
    block_begin(log, HW_ENTRY_SNAPSHOT, true, true);
    hw_snapshot_encode(&snapshot, hw_core_batch_next(log->core), log->groups, &log->block);
    block_add(log);
    log->in_snapshot = false;
    log->snapshot_seq = batch_commit(log);
    return log->snapshot_seq;
}

/* -------------------------------------------------------------------------------- small entries */

uint64_t log_raw(struct log_builder *log, enum hw_entry_type type, const void *body, size_t size)
{
    return log_raw_part(log, type, true, true, body, size);
}

uint64_t log_raw_part(struct log_builder *log, enum hw_entry_type type, bool starts, bool ends,
                      const void *body, size_t size)
{
    batch_begin(log);
    block_begin(log, type, starts, ends);
    hw_buffer_add(&log->block, body, size);
    block_add(log);
    return batch_commit(log);
}

uint64_t log_label(struct log_builder *log, const char *name)
{
    struct hw_label label = {{0}};

    strncpy(label.name, name, sizeof(label.name) - 1);
    batch_begin(log);
    block_begin(log, HW_ENTRY_LABEL, true, true);
    hw_label_encode(&label, &log->block);
    block_add(log);
    log->label_seq = batch_commit(log);
    return log->label_seq;
}

uint64_t log_gap(struct log_builder *log, const char *reason, uint32_t page_count)
{
    struct hw_gap gap = {.from_sum = log->sum, .from_page_count = log->page_count};

    strncpy(gap.reason, reason, sizeof(gap.reason) - 1);
    for (uint32_t p = 1; p <= page_count; p++) {
        scribble(log, p);
        log->touched[(p - 1) / HW_GROUP_PAGES] = UINT64_MAX - 1; /* never the same again */
    }
    log->page_count = page_count;
    gap.to_page_count = page_count;
    gap.to_sum = log->sum = sum_of_all(log);
    batch_begin(log);
    block_begin(log, HW_ENTRY_GAP, true, true);
    hw_gap_encode(&gap, &log->block);
    block_add(log);
    remember_state(log, batch_commit(log));
    for (uint32_t g = 0; g < LOG_PAGES_MAX / HW_GROUP_PAGES; g++) {
        log->groups[g] = (struct hw_snapshot_group){0};
        log->touched[g] = last_state_seq(log);
    }
    return last_state_seq(log);
}

void log_mix(struct log_builder *log, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        uint64_t dice = log_random(log, 20);
        uint32_t size = log->page_count;

        if (dice < 8 || size < 40 || size > LOG_PAGES_MAX - 100)
            (void)log_transaction(log, 1 + (uint32_t)log_random(log, 6), size < 40 ? 41 : size);
        else if (dice < 11)
            (void)log_transaction(log, 1 + (uint32_t)log_random(log, 6),
                                  1 + (uint32_t)log_random(log, size));
        else if (dice < 14)
            (void)log_transaction(log, 2, size + (uint32_t)log_random(log, 90));
        else if (dice < 15)
            (void)log_label(log, "a label");
        else if (dice < 18)
            log_snapshot_group(log);
        else
            (void)log_snapshot(log, !log->in_snapshot);
    }
}
