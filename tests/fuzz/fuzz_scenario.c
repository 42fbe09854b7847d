/*
 * The whole system over the simulated disk: the bytes choose what each process does next, who dies
 * and when, and what of the disk survives; the oracle of sim/random_world.h says what may be there
 * afterwards.  No decoder: here the search is for an order of events that nobody thought of.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz/fuzz.h"
#include "sim/random_world.h"

enum { CHOICES_MAX = 2048 }; /* bytes; more make a scenario slow, not richer */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct random_world world; /* of one process as of all its scenarios */

    if (world.sim == NULL && !random_init(&world))
        abort();
    random_run_choices(&world, bytes, size < CHOICES_MAX ? size : CHOICES_MAX);
    if (world.failure[0] != '\0') {
        (void)fprintf(stderr, "scenario: %s\n", world.failure);
        abort();
    }
    return 0;
}
