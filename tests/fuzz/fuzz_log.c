/*
 * A log whose key signed anything: `size le16 | block` again and again.  The tree and signature are
 * right, so it comes through from a primary that is broken or means harm; listing, verifying,
 * restoring, reading the past and following must end with a state whose sum is the log's, or with
 * an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply/apply.h"
#include "fuzz/fuzz.h"
#include "sim/sim.h"

enum {
    BLOCKS_MAX = 64,
    SPACE = 16 << 20,
    PAGES_MAX = 4096,
    PAGE_SIZE_MAX = 65536,
    STEPS_MAX = 10 * BLOCKS_MAX
};

static struct sim *machine;

struct blocks {
    size_t at[BLOCKS_MAX + 1]; /* where each begins, with its size before it; and the end */
    size_t count;
};

static struct blocks take_apart(const uint8_t *bytes, size_t size)
{
    struct blocks blocks = {.count = 0};

    while (blocks.count < BLOCKS_MAX && blocks.at[blocks.count] + 2 < size) {
        size_t at = blocks.at[blocks.count], end = at + 2 + hw_get_le16(bytes + at);

        blocks.at[++blocks.count] = end < size ? end : size;
    }
    return blocks;
}

static struct hw_core *make_log(void)
{
    struct hw_core *core = NULL;
    struct hw_error err;

    if (hw_core_create(sim_env(machine), NULL, &core, &err) != HW_OK)
        abort();
    return core;
}

/* Blocks first .. end - 1 become one batch. */
static void append(struct hw_core *core, const uint8_t *bytes, const struct blocks *blocks,
                   size_t first, size_t end)
{
    struct hw_error err;

    if (hw_core_batch_begin(core, &err) != HW_OK)
        abort();
    for (size_t i = first; i < end; i++)
        if (hw_core_batch_add(core, bytes + blocks->at[i] + 2,
                              blocks->at[i + 1] - blocks->at[i] - 2, &err) != HW_OK)
            abort();
    if (hw_core_batch_commit(core, NULL, 0, &err) != HW_OK)
        abort();
}

static void expect_sum(const char *what, uint64_t sum, const struct hw_state *state)
{
    if (sum == state->sum)
        return;
    (void)fprintf(stderr, "%s at seq %llu has another sum than the log\n", what,
                  (unsigned long long)state->seq);
    abort();
}

/* Is all of it as it should be? */
static bool look_at(struct hw_core *core, char label[HW_LABEL_SIZE_MAX + 1], int64_t *time_ms)
{
    struct hw_entry_summary entry;
    uint64_t next = 0, before;
    struct hw_error err;
    enum hw_status status;

    do {
        before = next;
        status = hw_entry_next(core, &next, &entry, &err);
        if (status == HW_OK && next <= before)
            abort(); /* it would go on for ever */
        if (status == HW_OK && entry.header.type == HW_ENTRY_LABEL)
            memcpy(label, entry.text, sizeof(entry.text));
        if (status == HW_OK)
            *time_ms = entry.header.time_ms;
    } while (status == HW_OK);
    (void)hw_entry_last(core);
    return hw_verify_deep(sim_env(machine), core, NULL, NULL, &err) == HW_OK;
}

static void take_range(void *ctx, uint64_t start, uint64_t end)
{
    (void)ctx;
    if (start > end)
        abort();
}

static void restore(struct hw_core *core, const struct hw_target *target, bool is_sound)
{
    enum hw_status status;
    struct hw_state state;
    struct hw_error err;
    const uint8_t *bytes;
    uint64_t sum = 0;
    size_t size;

    status = hw_state_blocks(core, target, take_range, NULL, &err);
    if (status == HW_OK || status == HW_ENOTFOUND)
        status = hw_restore(sim_env(machine), sim_vfs(machine), core, target, "/out.db", false,
                            NULL, NULL, &state, &err);
    if (status == HW_ECORRUPT && is_sound) {
        (void)fprintf(stderr, "verified, and yet: %s\n", err.message);
        abort();
    }
    if (status != HW_OK)
        return;
    bytes = sim_file_bytes(machine, "/out.db", &size);
    if (bytes == NULL || size != (size_t)state.page_size * state.page_count)
        abort();
    for (uint32_t i = 0; i < state.page_count; i++)
        sum ^= hw_page_sum(i + 1, bytes + (size_t)i * state.page_size, state.page_size);
    expect_sum("a restored file", sum, &state);
    sim_file_remove(machine, "/out.db");
}

/* Groups are expanded as pages are asked for: the whole is the log's only if that is sound. */
static void read_past(struct hw_core *core, const struct hw_target *target, bool is_sound)
{
    static uint8_t page[PAGE_SIZE_MAX];
    enum hw_status status = HW_OK;
    struct hw_past *past = NULL;
    struct hw_state state;
    struct hw_error err;
    uint64_t sum = 0;

    if (hw_past_open(sim_env(machine), core, target, &past, &err) != HW_OK)
        return;
    state = hw_past_state(past);
    for (uint32_t i = 1; status == HW_OK && i <= state.page_count && i <= PAGES_MAX; i++) {
        status = hw_past_read(past, i, page, &err);
        if (status == HW_OK)
            sum ^= hw_page_sum(i, page, state.page_size);
    }
    if (status == HW_OK && state.page_count <= PAGES_MAX && is_sound)
        expect_sum("the past", sum, &state);
    hw_past_close(past);
}

static struct hw_replica *open_replica(struct hw_core *core)
{
    struct hw_replica *replica = NULL;
    struct hw_error err;

    if (hw_replica_open(sim_env(machine), sim_vfs(machine), core, "/replica.db", NULL, NULL,
                        &replica, &err) != HW_OK)
        return NULL;
    return replica;
}

/* As `hyperwal follow` does: an error is told, and what it meant to do is tried again. */
static void follow(struct hw_replica *replica)
{
    struct hw_state state = {.seq = 0};
    enum hw_status status = HW_OK;
    struct hw_error err;
    uint64_t sum = 0;
    int steps = 0;

    for (int errors = 0; errors < 3 && status != HW_END; errors++) {
        do
            status = hw_replica_step(replica, &err);
        while (status == HW_OK && steps++ < STEPS_MAX);
        if (steps > STEPS_MAX)
            abort(); /* it would go on for ever */
    }
    state.seq = hw_replica_seq(replica);
    state.sum = hw_replica_sum(replica);
    if (state.seq != UINT64_MAX &&
        hw_database_sum(sim_vfs(machine), "/replica.db", &state.page_size, &state.page_count, &sum,
                        &err) == HW_OK)
        expect_sum("a replica", sum, &state);
}

/* ---------------------------------------------------------------------- changes, block by block */

/* Bytes from..to come again at `at`. */
static size_t copy_in(uint8_t *bytes, size_t size, size_t capacity, size_t at, size_t from,
                      size_t to)
{
    uint8_t *copy;

    if (size + (to - from) > capacity)
        return size;
    copy = malloc(to - from);
    if (copy == NULL)
        return size;
    memcpy(copy, bytes + from, to - from);
    memmove(bytes + at + (to - from), bytes + at, size - at);
    memcpy(bytes + at, copy, to - from);
    free(copy);
    return size + (to - from);
}

static size_t remove_part(uint8_t *bytes, size_t size, size_t from, size_t to)
{
    memmove(bytes + from, bytes + to, size - to);
    return size - (to - from);
}

/* Blocks go, come again elsewhere, change place, and say in their headers that they are others. */
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t capacity, unsigned seed)
{
    enum { NUMBERS = 40 }; /* bytes of a block in which its numbers are */
    struct blocks blocks = take_apart(bytes, size);
    size_t one, other, from, to;

    if (blocks.count == 0 || seed % 8 < 3)
        return LLVMFuzzerMutate(bytes, size, capacity);
    one = seed / 16 % blocks.count;
    other = seed / 1024 % blocks.count;
    from = blocks.at[one];
    to = blocks.at[one + 1];
    if (to - from < 4)
        return LLVMFuzzerMutate(bytes, size, capacity);
    switch (seed % 8) {
    case 3:
        return remove_part(bytes, size, from, to);
    case 4:
        return copy_in(bytes, size, capacity, blocks.at[other], from, to);
    case 5:
        bytes[from + 2] = (uint8_t)(1 + seed / 1024 % 7); /* its type */
        return size;
    case 6:
        bytes[from + 3] ^= (uint8_t)(1 + seed / 1024 % 3); /* starts, ends */
        return size;
    default:
        to = to - from < NUMBERS ? to : from + NUMBERS;
        bytes[from + 2 + seed / 1024 % (to - from - 2)] = (uint8_t)(seed >> 20);
        return size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char label[HW_LABEL_SIZE_MAX + 1] = "";
    struct hw_target target = {.kind = HW_TARGET_HEAD};
    struct blocks blocks = take_apart(bytes, size);
    struct hw_replica *replica;
    struct hw_core *core;
    bool is_sound;

    if (blocks.count == 0)
        return 0;
    if (machine == NULL)
        machine = sim_new(1);
    sim_reset(machine, 1);
    sim_set_space(machine, SPACE);
    core = make_log();
    append(core, bytes, &blocks, 0, blocks.count / 2); /* the other half comes while it follows */
    replica = open_replica(core);
    if (replica != NULL)
        follow(replica);
    append(core, bytes, &blocks, blocks.count / 2, blocks.count);
    is_sound = look_at(core, label, &target.time_ms);
    restore(core, &target, is_sound);
    read_past(core, &target, is_sound);
    if (replica == NULL)
        replica = open_replica(core);
    if (replica != NULL)
        follow(replica);
    hw_replica_close(replica);
    target.kind = HW_TARGET_TIME;
    restore(core, &target, is_sound);
    if (label[0] != '\0') {
        target.kind = HW_TARGET_LABEL;
        target.label = label;
        restore(core, &target, is_sound);
    }
    hw_core_close(core);
    if (sim_open_handles(machine) != 0)
        abort();
    return 0;
}
