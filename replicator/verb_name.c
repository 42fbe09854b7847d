/* hyperwal name: petnames, which this version does not have. */
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
    return usage_error(&verb_name, "this version has no petnames: name a log by its URL");
}

const struct verb verb_name = {
    .name = "name",
    .synopsis = "add|list|remove ...",
    .summary = "(not in this version)",
    .help =
        "Local names for the keys of logs.  This version does not have them: databases are named\n"
        "by their paths or URLs.\n",
    .run = run,
};
