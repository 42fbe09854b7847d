/* Implements the fault plan of sim/sim.h: every operation of the disk passes sim_begin(). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "sim/sim_private.h"

enum {
    ENOSPC_OPERATIONS = SIM_OPEN | SIM_WRITE | SIM_SYNC | SIM_TRUNCATE | SIM_ALLOCATE | SIM_RENAME |
                        SIM_MAKE_DIR | SIM_MAP
};
/* Taking a lock fails only where a test asks for it by name. */
enum { EIO_OPERATIONS = SIM_FILE_OPERATIONS };

static unsigned kind_operations(enum sim_fault_kind kind)
{
    switch (kind) {
    case SIM_EIO:
        return EIO_OPERATIONS;
    case SIM_ENOSPC:
        return ENOSPC_OPERATIONS;
    case SIM_EMFILE:
        return SIM_OPEN | SIM_LIST | SIM_SYNC_DIR;
    case SIM_SHORT_READ:
    case SIM_BIT_FLIP:
        return SIM_READ;
    case SIM_CRASH:
    case SIM_KILL:
        return SIM_ANY;
    case SIM_ENOMEM:
        return 0;
    }
    return 0;
}

static bool allow_allocation(void *ctx, size_t size)
{
    struct sim *sim = ctx;

    (void)size;
    sim->fault_seen++;
    if (sim->fault_seen != sim->fault.at && !(sim->fault.for_ever && sim->fault_reached))
        return true;
    sim->fault_reached = true;
    return false;
}

void sim_set_fault(struct sim *sim, const struct sim_fault *fault)
{
    if (sim->has_fault && sim->fault.kind == SIM_ENOMEM)
        hw_alloc_set_hook(NULL, NULL);
    sim->has_fault = fault != NULL;
    sim->fault_reached = fault == NULL ? sim->fault_reached : false;
    sim->fault_seen = 0;
    if (fault == NULL)
        return;
    sim->fault = *fault;
    if (sim->fault.operations == 0)
        sim->fault.operations = kind_operations(fault->kind);
    if (fault->kind == SIM_ENOMEM)
        hw_alloc_set_hook(allow_allocation, sim);
}

bool sim_fault_was_reached(const struct sim *sim)
{
    return sim->fault_reached;
}

bool sim_has_crashed(const struct sim *sim)
{
    return sim->crashed;
}

bool sim_is_killed(const struct sim *sim, unsigned process)
{
    return process < SIM_PROCESS_COUNT && sim->is_dead[process];
}

static bool is_hit(struct sim *sim, enum sim_operation operation, const char *path)
{
    const struct sim_fault *fault = &sim->fault;

    if (!sim->has_fault || !(fault->operations & operation))
        return false;
    if (fault->path != NULL && strstr(path, fault->path) == NULL)
        return false;
    sim->fault_seen++;
    if (sim->fault_seen == fault->at || (fault->for_ever && sim->fault_seen > fault->at)) {
        sim->fault_reached = true;
        return true;
    }
    return false;
}

static struct sim_outcome hit(struct sim *sim)
{
    struct sim_outcome failed = {.verdict = SIM_FAIL, .os_errno = EIO};

    switch (sim->fault.kind) {
    case SIM_EIO:
    case SIM_ENOMEM:
        return failed;
    case SIM_ENOSPC:
        failed.os_errno = ENOSPC;
        return failed;
    case SIM_EMFILE:
        failed.os_errno = EMFILE;
        return failed;
    case SIM_SHORT_READ:
        return (struct sim_outcome){.verdict = SIM_CUT};
    case SIM_BIT_FLIP:
        return (struct sim_outcome){.verdict = SIM_FLIP};
    case SIM_CRASH:
        sim->crashed = true;
        return failed;
    case SIM_KILL:
        sim_kill(sim, sim->process);
        sim->is_dead[sim->process] = true; /* until the driver says sim_kill(), too */
        return failed;
    }
    return failed;
}

static void tally(struct sim *sim, enum sim_operation operation, const char *path)
{
    for (size_t i = 0; i < sim->tally_count; i++) {
        struct sim_tally *found = &sim->tallies[i];

        if (found->operation == operation && strcmp(found->path, path) == 0) {
            found->count++;
            return;
        }
    }
    sim->tallies =
        sim_grow(sim->tallies, &sim->tally_capacity, sim->tally_count + 1, sizeof(*sim->tallies));
    sim->tallies[sim->tally_count] = (struct sim_tally){.operation = operation, .count = 1};
    (void)snprintf(sim->tallies[sim->tally_count].path, SIM_PATH_SIZE, "%s", path);
    sim->tally_count++;
}

uint64_t sim_count(const struct sim *sim, unsigned operations, const char *path_part)
{
    uint64_t count = 0;

    for (size_t i = 0; i < sim->tally_count; i++)
        if ((sim->tallies[i].operation & operations) &&
            (path_part == NULL || strstr(sim->tallies[i].path, path_part) != NULL))
            count += sim->tallies[i].count;
    return count;
}

static const char *operation_name(enum sim_operation operation)
{
    static const char *const names[] = {"open",     "read", "write",    "sync",   "truncate",
                                        "allocate", "stat", "map",      "rename", "remove",
                                        "make_dir", "list", "sync_dir", "lock",   "unlock"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (operation == 1U << i)
            return names[i];
    return "?";
}

struct sim_outcome sim_begin(struct sim *sim, const struct sim_handle *handle,
                             enum sim_operation operation, const char *path, uint64_t offset,
                             uint64_t size)
{
    struct sim_outcome outcome = {.verdict = SIM_GO};
    uint64_t words[4] = {operation, offset, size, sim->process};

    sim->operations++;
    sim->now_ns += 1000;
    sim->trace = sim_hash(sim->trace, words, sizeof(words));
    sim->trace = sim_hash(sim->trace, path, strlen(path));
    tally(sim, operation, path);
    if (sim->crashed || (handle == NULL ? sim->is_dead[sim->process] : sim_is_dead(handle)))
        outcome = (struct sim_outcome){.verdict = SIM_FAIL, .os_errno = EIO};
    else if (is_hit(sim, operation, path))
        outcome = hit(sim);
    if (sim->prints)
        (void)fprintf(stderr, "sim %llu p%u %s %s %llu+%llu%s\n",
                      (unsigned long long)sim->operations, sim->process, operation_name(operation),
                      path, (unsigned long long)offset, (unsigned long long)size,
                      outcome.verdict == SIM_GO     ? ""
                      : outcome.verdict == SIM_FAIL ? " FAILS"
                                                    : " ALTERED");
    return outcome;
}
