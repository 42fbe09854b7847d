/*
 * hyperwal serve: be the worker of databases, or stand by for it, and take in new ones.
 *
 * One thread sleeps on a signal and on inotify; the library's own threads do the work.  A directory
 * is watched for new databases.  The directory of every served database is watched too: a program
 * that does not use the VFS tells nobody when it commits, but it writes to the WAL.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "network.h"
#include "program.h"
#include "report.h"
#include "served.h"

enum { OPTION_JSON = 1, OPTION_LISTEN, OPTION_ALLOW, OPTION_HTTP };
enum { REST_MS = 1 };    /* after events, until the next ones are read */
enum { RETRY_MS = 500 }; /* while a database could not be opened because it was busy */
enum { EVENT_BUFFER = 16 * (sizeof(struct inotify_event) + NAME_MAX + 1) };

static const struct option options[] = {
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"http", required_argument, NULL, OPTION_HTTP},
    {"allow", required_argument, NULL, OPTION_ALLOW},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct directory {
    char *path; /* full, owned */
    int watch;
    bool is_open_to_new; /* named on the command line: databases that appear in it are served */
};

struct server {
    struct served_list served;
    struct directory *directories; /* owned */
    size_t directory_count;
    int inotify, signals;
    bool is_json;
    bool has_busy; /* a database of an open directory was busy: look again soon */
};

/* -------------------------------------------------------------------------- directories */

static bool ends_with(const char *name, const char *suffix)
{
    size_t size = strlen(name), suffix_size = strlen(suffix);

    return size > suffix_size && strcmp(name + size - suffix_size, suffix) == 0;
}

/* Files that SQLite and we keep beside a database. */
static bool is_companion(const char *name)
{
    return name[0] == '.' || ends_with(name, "-wal") || ends_with(name, "-shm") ||
           ends_with(name, "-journal") || ends_with(name, "-hyper") || ends_with(name, ".tmp");
}

static int directory_watch(struct server *server, const char *path, bool is_open_to_new)
{
    const uint32_t mask = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                          IN_CLOSE_WRITE | IN_ONLYDIR;
    struct directory *grown;
    int watch = inotify_add_watch(server->inotify, path, mask);

    if (watch < 0)
        return failure("%s: cannot watch it: %s%s", path, strerror(errno),
                       errno == ENOSPC ? "; raise fs.inotify.max_user_watches" : "");
    for (size_t i = 0; i < server->directory_count; i++) {
        if (server->directories[i].watch == watch) {
            server->directories[i].is_open_to_new |= is_open_to_new;
            return DONE;
        }
    }
    grown = realloc(server->directories, (server->directory_count + 1) * sizeof(*grown));
    if (grown == NULL)
        return failure("no memory");
    server->directories = grown;
    grown += server->directory_count;
    *grown = (struct directory){strdup(path), watch, is_open_to_new};
    if (grown->path == NULL)
        return failure("no memory");
    server->directory_count++;
    return DONE;
}

/* A file of an open directory that may be, or have become, a database. */
static void guess(struct server *server, const struct directory *directory, const char *name)
{
    char *path = NULL;
    int result;

    if (is_companion(name) || asprintf(&path, "%s/%s", directory->path, name) < 0)
        return;
    if (served_add(&server->served, path, true, server->is_json, &result) == SERVED_AGAIN)
        server->has_busy = true;
    free(path);
}

static int directory_scan(struct server *server, const struct directory *directory)
{
    struct dirent **names = NULL;
    int count = scandir(directory->path, &names, NULL, alphasort);

    if (count < 0)
        return failure("%s: %s", directory->path, strerror(errno));
    for (int i = 0; i < count; i++) {
        guess(server, directory, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return DONE;
}

static void scan_open(struct server *server)
{
    server->has_busy = false;
    for (size_t i = 0; i < server->directory_count; i++)
        if (server->directories[i].is_open_to_new)
            (void)directory_scan(server, &server->directories[i]); /* said; others go on */
}

/* -------------------------------------------------------------------------------- events */

static void look_all(struct server *server)
{
    for (size_t i = 0; i < server->served.count; i++)
        server->served.items[i].is_written = true;
}

static void gone(struct server *server, struct served *served)
{
    (void)failure("%s: removed or renamed; no longer served", served->path);
    served_remove(&server->served, served);
}

/* Something happened to `name` in `directory`. */
static void event(struct server *server, const struct directory *directory, const char *name,
                  uint32_t mask)
{
    struct served *served;
    char *path = NULL;
    bool is_wal = ends_with(name, "-wal"), is_journal = ends_with(name, "-journal");
    size_t size = strlen(name) - (is_wal ? 4 : is_journal ? 8 : 0);

    if (asprintf(&path, "%s/%.*s", strcmp(directory->path, "/") == 0 ? "" : directory->path,
                 (int)size, name) < 0)
        return;
    served = served_find(&server->served, path);
    if (served != NULL && is_wal)
        served->is_written = true;
    else if (served != NULL && !is_journal && (mask & (IN_DELETE | IN_MOVED_FROM)) != 0)
        gone(server, served);
    else if (served != NULL && !is_journal)
        sidecar_wake(&served->sidecar); /* a checkpoint, of who waits for our mark perhaps */
    else if (served == NULL && directory->is_open_to_new && !is_wal)
        guess(server, directory, path + strlen(directory->path) + 1);
    free(path);
}

static void events_read(struct server *server)
{
    _Alignas(struct inotify_event) char buffer[EVENT_BUFFER];
    ssize_t size = read(server->inotify, buffer, sizeof(buffer));

    for (char *p = buffer; p < buffer + size;) {
        const struct inotify_event *one = (const void *)p;

        p += sizeof(*one) + one->len;
        if ((one->mask & IN_Q_OVERFLOW) != 0) { /* some were lost */
            look_all(server);
            scan_open(server);
            continue;
        }
        for (size_t i = 0; one->len > 0 && i < server->directory_count; i++) {
            if (server->directories[i].watch == one->wd) {
                event(server, &server->directories[i], one->name, one->mask);
                break;
            }
        }
    }
}

static int serve_until_signal(struct server *server)
{
    struct pollfd fds[] = {{server->signals, POLLIN, 0}, {server->inotify, POLLIN, 0}};

    for (;;) {
        int wait_ms = served_wait(&server->served);
        int count;

        if (server->has_busy && (wait_ms < 0 || wait_ms > RETRY_MS))
            wait_ms = RETRY_MS;
        if (fds[1].fd < 0)
            wait_ms = REST_MS;
        count = poll(fds, 2, wait_ms);
        if (count < 0 && errno != EINTR)
            return failure("poll: %s", strerror(errno));
        if (count > 0 && fds[0].revents != 0)
            return DONE;
        if (count > 0 && fds[1].revents != 0) {
            events_read(server);
            fds[1].fd = -1; /* a busy writer is looked at once in a while, not for each frame */
        } else {
            fds[1].fd = server->inotify;
        }
        served_work(&server->served);
        if (count == 0 && server->has_busy && wait_ms == RETRY_MS)
            scan_open(server);
    }
}

/* --------------------------------------------------------------------------------- start */

static int add_database(struct server *server, const char *path)
{
    enum served_result added;
    char *directory, *slash;
    int result;

    added = served_add(&server->served, path, false, server->is_json, &result);
    if (added == SERVED_AGAIN)
        return failure("%s: busy: another program is in a transaction, or does not let it change "
                       "to WAL mode",
                       path);
    if (added == SERVED_FAILED)
        return result;
    if (added == SERVED_IGNORE) /* named twice */
        return DONE;
    directory = strdup(server->served.items[server->served.count - 1].path);
    if (directory == NULL)
        return failure("no memory");
    slash = strrchr(directory, '/');
    slash[slash == directory ? 1 : 0] = '\0';
    result = directory_watch(server, directory, false);
    free(directory);
    return result;
}

static int add_directory(struct server *server, const char *path)
{
    char *full = path_full(path);
    int result;

    if (full == NULL)
        return failure("%s: %s", path, strerror(errno));
    result = directory_watch(server, full, true); /* first, lest one appears in between */
    free(full);
    return result;
}

static int add_all(struct server *server, char **paths, int count)
{
    int result = DONE;

    for (int i = 0; i < count && result == DONE; i++) {
        struct stat stat_;

        if (stat(paths[i], &stat_) == 0 && S_ISDIR(stat_.st_mode))
            result = add_directory(server, paths[i]);
        else
            result = add_database(server, paths[i]);
    }
    if (result == DONE)
        scan_open(server);
    return result;
}

static void print_ready(const struct server *server)
{
    struct json json;

    if (!server->is_json) {
        puts("ready");
        fflush(stdout);
        return;
    }
    json_begin(&json);
    json_bool(&json, "ready", true);
    json_end(&json);
}

static int serve(struct server *server, const struct network_wishes *wishes, char **paths,
                 int count)
{
    sigset_t set;
    int result;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    server->signals = signalfd(-1, &set, SFD_CLOEXEC);
    server->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (server->signals < 0 || server->inotify < 0)
        result = failure("cannot watch for signals and files: %s%s", strerror(errno),
                         errno == EMFILE ? "; raise fs.inotify.max_user_instances" : "");
    else
        result = network_open(wishes, &server->served.node); /* with the signals blocked */
    if (result == DONE)
        result = add_all(server, paths, count);
    if (result == DONE) {
        print_ready(server);
        result = serve_until_signal(server);
    }
    served_release(&server->served);
    hyperwal_node_close(server->served.node);
    for (size_t i = 0; i < server->directory_count; i++)
        free(server->directories[i].path);
    free(server->directories);
    if (server->signals >= 0)
        close(server->signals);
    if (server->inotify >= 0)
        close(server->inotify);
    return result;
}

static int run(int argc, char **argv)
{
    struct server server = {.inotify = -1, .signals = -1};
    struct network_wishes wishes = {0};
    int c;

    while ((c = option_next(&verb_serve, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        if (c == OPTION_HTTP)
            return usage_error(&verb_serve, "--http: this build has no status page");
        if (c == OPTION_JSON)
            server.is_json = true;
        else if (!(c == OPTION_LISTEN ? network_add_listen(&wishes, optarg)
                                      : network_add_allow(&wishes, optarg)))
            return usage_error(&verb_serve, "at most %d --listen and %d --allow",
                               (int)NETWORK_URLS_MAX, (int)NETWORK_ALLOW_MAX);
    }
    if (optind == argc)
        return usage_error(&verb_serve, "needs a DB or a DIR");
    if (wishes.allow_count > 0 && wishes.listen_count == 0)
        return usage_error(&verb_serve, "--allow needs --listen");
    return serve(&server, &wishes, argv + optind, argc - optind);
}

const struct verb verb_serve = {
    .name = "serve",
    .synopsis = "[--listen URL]... [--allow KEY|any]... DB|DIR... [--json]",
    .summary = "write the logs of databases, or stand by for it",
    .help =
        "Opens every DB, and every database in DIR, also those that appear there later, and keeps\n"
        "it open: its commits go into its log, which is made if it is missing.  Prints a line\n"
        "`NAME KEY URL` for each and then `ready`; SIGTERM and SIGINT end it.\n\n"
        "  --listen URL     serve the logs to others: tcp://HOST[:PORT], ws://HOST:PORT/PATH or\n"
        "                   ipc://PATH; port 0 takes a free one, which the printed URLs have.  A "
        "DB\n"
        "                   may then be a replica, whose log is served as far as it is there\n"
        "  --allow KEY|any  let in who has this identity key (`hyperwal key` prints one's own), "
        "or\n"
        "                   anybody; without it a listener that only this machine can reach lets\n"
        "                   everybody in, and another one is refused\n"
        "  --json           the same as objects: name, key, url, path; then ready\n\n"
        "Without --listen there is no network; followers on this machine read the log's files.\n",
    .run = run,
};
