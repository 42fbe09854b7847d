/*
 * The small files beside a log, which a crash, a disk or somebody else may have left in any state:
 * the first byte says which, the others are what is in it.
 */
#include <stdlib.h>
#include <string.h>

#include "capture/internal.h"
#include "env/peer_table.h"
#include "env/shared_page.h"
#include "fuzz/fuzz.h"
#include "hypercore/overtaken.h"
#include "node/fences.h"
#include "sim/sim.h"

enum { PAGE_SIZE = 4096 };

static void read_position(struct hw_env *env)
{
    struct hw_position_file position, again;

    if (hw_position_read(env, "/log", &position, NULL) != HW_OK)
        return;
    if (hw_position_write(env, "/log", &position, NULL) != HW_OK ||
        hw_position_read(env, "/log", &again, NULL) != HW_OK ||
        !hw_position_same_file(&position, &again))
        abort(); /* what was read can be written and read again */
}

static void read_overtaken(struct hw_env *env)
{
    struct hw_core_head head = {.length = 5};
    struct hw_overtaken overtaken;
    enum hw_status status = hw_overtaken_allows(env, "/log", &head, NULL);

    if (hw_overtaken_read(env, "/log", &overtaken, NULL) == HW_OK &&
        hw_overtaken_is_above(overtaken.fork, overtaken.length, &head) != (status == HW_EFORK))
        abort();
}

static void read_sums(struct hw_env *env)
{
    struct hw_sums *sums = NULL;
    uint64_t sum;

    if (hw_sums_open(env, "/log", PAGE_SIZE, &sums, NULL) != HW_OK)
        return;
    (void)hw_sums_matches(sums, 7, 3, 0, 1);
    for (uint32_t page = 1; page < 6; page++)
        if (hw_sums_get(sums, page, &sum, NULL) != HW_OK)
            break;
    if (hw_sums_set(sums, 2, 99, NULL) == HW_OK && hw_sums_commit(sums, 8, NULL) == HW_OK &&
        (hw_sums_get(sums, 2, &sum, NULL) != HW_OK || sum != 99))
        abort();
    hw_sums_close(sums);
}

static void read_peers(struct hw_env *env)
{
    struct hw_peer_row row = {.counts = true, .received = 3, .durable = 2, .applied = 1};
    struct hw_peer_table *table = NULL;
    unsigned index;

    if (hw_peer_table_open(env, "/log", false, &table, NULL) != HW_OK)
        return;
    for (unsigned i = 0; i < HW_PEER_ROWS; i++)
        (void)hw_peer_table_get(table, i, &row);
    (void)hw_peer_table_confirmed(table, 2, false);
    row.id[0] = 1;
    if (hw_peer_table_claim(table, &row, &index, NULL) == HW_OK)
        (void)hw_peer_table_set(table, index, &row);
    hw_peer_table_bury(table);
    (void)!hw_peer_table_set_fork(table, 1, NULL);
    (void)!hw_peer_table_set_length(table, 2, NULL);
    hw_peer_table_close(table);
}

static void read_page(struct hw_env *env)
{
    struct hw_shared_page *page = NULL;
    struct hw_shared_gap gap;
    uint64_t since;

    if (hw_shared_page_open(env, "/log", true, &page, NULL) != HW_OK)
        return;
    (void)hw_shared_durable_length(page);
    (void)hw_shared_position(page);
    (void)hw_shared_door(page);
    (void)hw_shared_round(page);
    (void)hw_shared_gaps(page, &gap);
    (void)hw_shared_remote_wait(page, &since);
    (void)hw_shared_take_urgent(page);
    (void)hw_shared_may_sign(page, 1);
    hw_shared_set_durable_length(page, 9);
    if (hw_shared_durable_length(page) != 9)
        abort();
    hw_shared_page_close(page);
}

static void read_fences(struct hw_env *env)
{
    uint64_t first, next;

    if (hw_fences_take(env, "/log", 10, &first, NULL) != HW_OK)
        return;
    if (hw_fences_take(env, "/log", 10, &next, NULL) != HW_OK || next != first + 10)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct {
        const char *path;
        void (*read)(struct hw_env *env);
    } files[] = {
        {"/log/position", read_position}, {"/log/overtaken", read_overtaken},
        {"/log/sums", read_sums},         {"/log/peers", read_peers},
        {"/log/shared", read_page},       {"/log/fences", read_fences},
    };
    static struct sim *sim;
    size_t which;

    if (size == 0)
        return 0;
    if (sim == NULL)
        sim = sim_new(1);
    sim_reset(sim, 1);
    which = bytes[0] % (sizeof(files) / sizeof(files[0]));
    if (sim_env(sim)->ops->make_dir(sim_env(sim), "/log", NULL) != HW_OK)
        abort();
    sim_file_put(sim, files[which].path, bytes + 1, size - 1);
    files[which].read(sim_env(sim));
    if (sim_open_handles(sim) != 0)
        abort();
    return 0;
}
