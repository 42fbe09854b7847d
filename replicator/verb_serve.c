/* hyperwal serve: the command line of the server (server.h) and its configuration (config.h). */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "config.h"
#include "program.h"
#include "server.h"

enum {
    OPTION_JSON = 1,
    OPTION_LISTEN,
    OPTION_ALLOW,
    OPTION_ALLOW_WRITE,
    OPTION_KEYS,
    OPTION_HTTP,
    OPTION_HTTP_PUBLIC,
    OPTION_CONFIG,
    OPTION_CHECK,
    OPTION_IDENTITY,
};

static const struct option options[] = {
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"http", required_argument, NULL, OPTION_HTTP},
    {"http-public", no_argument, NULL, OPTION_HTTP_PUBLIC},
    {"allow", required_argument, NULL, OPTION_ALLOW},
    {"allow-write", required_argument, NULL, OPTION_ALLOW_WRITE},
    {"authorized-keys", required_argument, NULL, OPTION_KEYS},
    {"identity", required_argument, NULL, OPTION_IDENTITY},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"check-config", no_argument, NULL, OPTION_CHECK},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct wishes {
    struct config given;
    const char *config_path;
    bool is_json, is_check;
};

/* Which setting of the file an option is; NULL: none. */
static const char *key_of(int option)
{
    switch (option) {
    case OPTION_LISTEN:
        return "listen";
    case OPTION_ALLOW:
        return "allow";
    case OPTION_ALLOW_WRITE:
        return "allow-write";
    case OPTION_KEYS:
        return "authorized-keys";
    case OPTION_IDENTITY:
        return "identity";
    case OPTION_HTTP:
        return "http";
    default:
        return NULL;
    }
}

static int take_option(struct wishes *wishes, int c)
{
    switch (c) {
    case OPTION_HTTP_PUBLIC:
        return config_set(&wishes->given, "command line", "http-public", "yes");
    case OPTION_JSON:
        wishes->is_json = true;
        return DONE;
    case OPTION_CHECK:
        wishes->is_check = true;
        return DONE;
    case OPTION_CONFIG:
        wishes->config_path = optarg;
        return DONE;
    default:
        return config_set(&wishes->given, "command line", key_of(c), optarg);
    }
}

static int take_paths(struct wishes *wishes, char **paths, int count)
{
    int result = DONE;

    for (int i = 0; i < count && result == DONE; i++) {
        struct stat stat_;
        bool is_directory = stat(paths[i], &stat_) == 0 && S_ISDIR(stat_.st_mode);

        result = config_set(&wishes->given, "command line", is_directory ? "directory" : "database",
                            paths[i]);
    }
    return result;
}

/* The file, if there is one, and the command line make `config`. */
static int configure(const struct wishes *wishes, const char *path, struct config *config)
{
    int result = path != NULL ? config_read(config, path) : DONE;

    if (result == DONE)
        result = config_merge(config, &wishes->given);
    if (result != DONE)
        return result;
    if (config->databases.count == 0 && config->directories.count == 0)
        return usage_error(&verb_serve, "needs a DB or a DIR");
    if (config->allow.count + config->allow_write.count > 0 && config->listen.count == 0)
        return usage_error(&verb_serve, "--allow and --allow-write need --listen");
    return DONE;
}

static int run(int argc, char **argv)
{
    struct wishes wishes = {0};
    struct config config = {0};
    char *fall = NULL;
    int c, result = DONE;

    while (result == DONE && (c = option_next(&verb_serve, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD) {
            config_release(&wishes.given);
            return option_exit(c);
        }
        result = take_option(&wishes, c);
    }
    if (result == DONE)
        result = take_paths(&wishes, argv + optind, argc - optind);
    if (result == DONE && wishes.config_path == NULL && optind == argc) {
        fall = config_default_path();
        wishes.config_path = fall;
    }
    if (result == DONE)
        result = configure(&wishes, wishes.config_path, &config);
    if (result == DONE && wishes.is_check)
        config_print(&config);
    else if (result == DONE)
        result = server_run(&(struct server_options){.config_path = wishes.config_path,
                                                     .given = &wishes.given,
                                                     .is_json = wishes.is_json},
                            &config);
    config_release(&config);
    config_release(&wishes.given);
    free(fall);
    return result;
}

const struct verb verb_serve = {
    .name = "serve",
    .synopsis = "[--config FILE] [--check-config] [--listen URL]... [--allow KEY|any]... "
                "[--allow-write KEY|any]... [--authorized-keys FILE] [--identity FILE] "
                "[--http ADDR] [--http-public] [--json] "
                "[DB|DIR]...",
    .summary = "write the logs of databases, or stand by for it",
    .help =
        "Opens every DB, and every database in DIR, also those that appear there later, and keeps\n"
        "it open: its commits go into its log, which is made if it is missing.  Prints a line\n"
        "`NAME KEY URL` for each and then `ready`; SIGTERM and SIGINT end it, SIGHUP makes it "
        "read\n"
        "its configuration and the authorized keys again.\n\n"
        "  --config FILE    settings (hyperwal(1) lists them); without DB and DIR the default is\n"
        "                   ~/.config/hyperwal/serve.conf or else /etc/hyperwal.conf\n"
        "  --check-config   say what is wrong with the settings, or print them, and end\n"
        "  --listen URL     serve the logs to others: tcp://HOST[:PORT], ws://HOST:PORT/PATH or\n"
        "                   ipc://PATH; port 0 takes a free one, which the printed URLs have.  A "
        "DB\n"
        "                   may then be a replica, whose log is served as far as it is there\n"
        "  --allow KEY|any  let in who has this identity key (`hyperwal key` prints one's own), "
        "or\n"
        "                   anybody, to read; without any rule a listener that only this machine "
        "can\n"
        "                   reach lets everybody read, and another one is refused\n"
        "  --allow-write KEY|any\n"
        "                   the same, to read and to write\n"
        "  --authorized-keys FILE\n"
        "                   rights for keys and names (hyperwal(1), AUTHORIZED KEYS); without it "
        "the\n"
        "                   user's own file, if there is one.  It is read again when it changes\n"
        "  --identity FILE  the key of this server among peers, made if it is missing\n"
        "  --http ADDR      a status page, /status.json and /metrics at [HOST:]PORT of this "
        "machine\n"
        "  --http-public    others than this machine may see that, too\n"
        "  --json           the same as objects: name, key, url, path; http; then ready\n\n"
        "Without --listen there is no network; followers on this machine read the log's files.\n",
    .run = run,
};
