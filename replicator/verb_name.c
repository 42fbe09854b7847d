/* hyperwal name: petnames, which need a network. */
#include <stddef.h>

#include "program.h"

static const struct option options[] = {
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int run(int argc, char **argv)
{
    int c = option_next(&verb_name, argc, argv, options);

    if (c == OPTION_HELP || c == OPTION_BAD)
        return option_exit(c);
    return usage_error(&verb_name, "petnames are for peers, and this build has no network");
}

const struct verb verb_name = {
    .name = "name",
    .synopsis = "add|list|remove ...",
    .summary = "(needs a network, which this build does not have)",
    .help =
        "Local names for the keys of peers.  This build has no network: databases are named by\n"
        "their paths.\n",
    .run = run,
};
