/* Implements sim_for_each_fault(): one scenario with a fault at each of its operations in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/sim_private.h"

/* What ran last: an assertion leaves by longjmp, and the reader wants to know where it was. */
static char running[256];

static void say_what_ran(void)
{
    if (running[0] != '\0')
        (void)fprintf(stderr, "sim: the last scenario did not end: %s\n", running);
}

static const char *kind_name(enum sim_fault_kind kind)
{
    switch (kind) {
    case SIM_EIO:
        return "EIO";
    case SIM_ENOSPC:
        return "ENOSPC";
    case SIM_EMFILE:
        return "EMFILE";
    case SIM_SHORT_READ:
        return "SHORT_READ";
    case SIM_BIT_FLIP:
        return "BIT_FLIP";
    case SIM_CRASH:
        return "CRASH";
    case SIM_KILL:
        return "KILL";
    case SIM_ENOMEM:
        return "ENOMEM";
    }
    return "?";
}

static void note(const struct sim *sim, const struct sim_fault *fault, unsigned mode)
{
    static bool registered;

    if (!registered)
        registered = atexit(say_what_ran) == 0;
    (void)snprintf(running, sizeof(running), "%s at %llu, crash mode %u, HYPERWAL_SEED=%llu",
                   kind_name(fault->kind), (unsigned long long)fault->at, mode,
                   (unsigned long long)sim->seed);
}

/* One run; false: the fault was not reached. */
static bool run_once(struct sim *sim, const struct sim_scenario *scenario,
                     const struct sim_fault *fault, enum sim_crash_mode mode)
{
    bool reached;

    sim_reset(sim, scenario->seed);
    note(sim, fault, (unsigned)mode);
    if (scenario->prepare != NULL)
        scenario->prepare(sim, scenario->ctx);
    sim_set_fault(sim, fault);
    scenario->run(sim, scenario->ctx);
    sim_set_fault(sim, NULL);
    reached = sim_fault_was_reached(sim);
    if (sim_has_crashed(sim))
        sim_crash(sim, mode);
    else if (reached && fault->kind == SIM_KILL)
        sim_kill(sim, SIM_ALL_PROCESSES);
    scenario->check(sim, scenario->ctx);
    return reached;
}

/* What was tried in this program, by kind; told at its end. */
static uint64_t power_losses, kills, failed_calls, failed_allocations;

static void say_how_many(void)
{
    printf("sim: %llu power losses, %llu kills, %llu failed calls, %llu failed allocations\n",
           (unsigned long long)power_losses, (unsigned long long)kills,
           (unsigned long long)failed_calls, (unsigned long long)failed_allocations);
}

static void count_one(enum sim_fault_kind kind)
{
    static bool registered;

    if (!registered)
        registered = atexit(say_how_many) == 0;
    if (kind == SIM_CRASH)
        power_losses++;
    else if (kind == SIM_KILL)
        kills++;
    else if (kind == SIM_ENOMEM)
        failed_allocations++;
    else
        failed_calls++;
}

/* Try fewer operations, where each costs more (sanitizers) or time is short. */
static uint64_t stride_factor(void)
{
    const char *text = getenv("HYPERWAL_STRIDE");
    uint64_t factor = text == NULL ? 1 : strtoull(text, NULL, 10);

    return factor > 1 ? factor : 1;
}

static uint64_t run_kind(struct sim *sim, const struct sim_scenario *scenario,
                         enum sim_fault_kind kind, enum sim_crash_mode mode)
{
    bool ends_it = kind == SIM_CRASH || kind == SIM_KILL;
    uint64_t factor = stride_factor();
    uint64_t stride = (scenario->stride == 0 ? 1 : scenario->stride) * factor;
    uint64_t runs = 0;
    struct sim_fault fault = {.kind = kind,
                              .operations = scenario->operations,
                              .path = scenario->path,
                              .for_ever = scenario->for_ever && !ends_it};

    for (fault.at = 1;; fault.at += stride) {
        runs += factor;
        if (!run_once(sim, scenario, &fault, mode))
            return runs;
        count_one(kind);
    }
}

uint64_t sim_for_each_fault(struct sim *sim, const struct sim_scenario *scenario)
{
    uint64_t runs = 0;

    for (unsigned kind = SIM_EIO; kind <= SIM_ENOMEM; kind <<= 1) {
        if (!(scenario->faults & kind))
            continue;
        if (kind != SIM_CRASH) {
            runs += run_kind(sim, scenario, (enum sim_fault_kind)kind, SIM_KEEP);
            continue;
        }
        for (unsigned mode = SIM_KEEP; mode < SIM_CRASH_MODES; mode++)
            if (scenario->crash_modes == 0 || (scenario->crash_modes & (1U << mode)))
                runs += run_kind(sim, scenario, SIM_CRASH, (enum sim_crash_mode)mode);
    }
    running[0] = '\0';
    return runs;
}
