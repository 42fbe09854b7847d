/* Implements server.h. */
#include "server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "create.h"
#include "http.h"
#include "network.h"
#include "notify.h"
#include "page.h"
#include "program.h"
#include "report.h"
#include "served.h"
#include "watch.h"

enum { TIDY_S = 2 };      /* at the end, WALs of databases at rest are removed for so long */
enum { REST_MS = 1 };     /* after events, until the next ones are read */
enum { ROUND_MS = 1000 }; /* of tries in a row, before others have their turn */

struct server {
    const struct server_options *options; /* borrowed */
    struct config config;
    struct served_list served;
    struct watch watch;
    struct notify notify;
    struct creator creator;
    struct http *http;        /* owned; NULL: there is no status page */
    struct config_list bound; /* what it listens at, as it was given */
    int signals;
};

/* ----------------------------------------------------------------------------- databases */

/* Also if it is served already: it may be that its directory could not be watched. */
static int watch_database(struct server *server, const char *path)
{
    char *full = path_full(path);
    struct served *served = full != NULL ? served_find(&server->served, full) : NULL;
    int result = full != NULL ? watch_beside(&server->watch, full)
                              : failure("%s: %s", path, strerror(errno));

    if (result == DONE && served != NULL && served->named == NULL) {
        served->named = strdup(path);
        if (served->named == NULL)
            result = failure("no memory");
    }
    free(full);
    return result;
}

/* *is_busy: somebody is in a transaction. */
static int add_database(struct server *server, const char *path, bool *is_busy)
{
    enum served_result added;
    int result;

    added = served_add(&server->served, path, false, server->options->is_json, &result);
    notify_starting(&server->notify, server->served.count);
    *is_busy = added == SERVED_AGAIN;
    if (added == SERVED_AGAIN)
        return failure("%s: busy: another program is in a transaction, or does not let it change "
                       "to WAL mode",
                       path);
    if (added == SERVED_FAILED)
        return result;
    return watch_database(server, path);
}

/* The same while the server runs: what failed is said, and tried again. */
static void take_database(struct server *server, const char *path)
{
    struct late_list *late = &server->watch.late;
    bool is_busy = false;
    int result;

    late_begin(late, path);
    result = add_database(server, path, &is_busy);
    late_end(late, LATE_NAMED, path,
             is_busy          ? LATE_BUSY
             : result != DONE ? LATE_FAILED
                              : LATE_DONE);
}

static void added_one(void *ctx)
{
    struct server *server = ctx;

    served_work(&server->served); /* the first ones may rest before the last ones are open */
    notify_starting(&server->notify, server->served.count);
}

/* The lists are no longer than there is room for. */
static void network_wishes_make(const struct config *config, struct network_wishes *wishes)
{
    *wishes = (struct network_wishes){.identity = config->identity,
                                      .authorized_keys = config->authorized_keys};
    for (size_t i = 0; i < config->listen.count; i++)
        (void)network_add_listen(wishes, config->listen.items[i]);
    for (size_t i = 0; i < config->allow.count; i++)
        (void)network_add_allow(wishes, config->allow.items[i]);
    for (size_t i = 0; i < config->allow_write.count; i++)
        (void)network_add_allow_write(wishes, config->allow_write.items[i]);
}

static int open_network(struct server *server)
{
    struct network_wishes wishes;

    network_wishes_make(&server->config, &wishes);
    for (size_t i = 0; i < server->config.listen.count; i++)
        if (config_list_add(&server->bound, server->config.listen.items[i]) != DONE)
            return FAILED;
    return network_open(&wishes, &server->served.node);
}

static int add_all(struct server *server)
{
    const struct config *config = &server->config;
    bool is_busy;
    int result = DONE;

    for (size_t i = 0; i < config->databases.count && result == DONE; i++)
        result = add_database(server, config->databases.items[i], &is_busy);
    for (size_t i = 0; i < config->directories.count && result == DONE; i++)
        result = watch_directory(&server->watch, config->directories.items[i]);
    if (result == DONE)
        watch_scan(&server->watch, added_one, server);
    return result;
}

/* -------------------------------------------------------------------------------- reload */

static bool list_has(const struct config_list *list, const char *value)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], value) == 0)
            return true;
    return false;
}

/*
 * Is there a path in the list that leads to the same place?  Where one leads cannot always be seen:
 * nothing is given up for that, and `full` is found.
 */
static bool list_leads_to(const struct config_list *list, const char *full)
{
    const char *unseen = NULL;
    int why = 0;
    bool found = false;

    for (size_t i = 0; i < list->count && !found; i++) {
        char *other = path_full(list->items[i]);

        if (other == NULL && errno != ENOENT && errno != ENOTDIR) {
            unseen = list->items[i];
            why = errno;
        }
        found = other != NULL && strcmp(other, full) == 0;
        free(other);
    }
    if (!found && unseen != NULL)
        (void)failure("%s: kept until the next reload: %s: %s", full, unseen, strerror(why));
    return found || unseen != NULL;
}

static bool is_in_open(const struct server *server, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t size = slash == path ? 1 : (size_t)(slash - path);

    return watch_is_open(&server->watch, path, size);
}

static bool is_wanted(const struct server *server, const struct served *served)
{
    return is_in_open(server, served->path) ||
           (served->link != NULL && is_in_open(server, served->link)) ||
           list_leads_to(&server->config.databases, served->path);
}

/* By what is, not by what was asked for before: that may have failed. */
static void reload_databases(struct server *server)
{
    const struct config *config = &server->config;
    struct watch *watch = &server->watch;

    watch_read(watch);          /* who is gone already is not taken for one that is served */
    late_release(&watch->late); /* all is tried now, and said */
    for (size_t i = 0; i < watch->count; i++)
        if (watch->items[i].is_open_to_new &&
            !list_leads_to(&server->config.directories, watch->items[i].path))
            watch_shut(watch, watch->items[i].path);
    for (size_t i = server->served.count; i > 0; i--) {
        struct served *served = &server->served.items[i - 1];

        free(served->named); /* is told anew */
        served->named = NULL;
        if (is_wanted(server, served))
            continue;
        (void)failure("%s: not in the configuration any more; no longer served", served->path);
        served_remove(&server->served, served, true);
    }
    for (size_t i = 0; i < config->databases.count; i++)
        take_database(server, config->databases.items[i]);
    for (size_t i = 0; i < config->directories.count; i++)
        watch_take(watch, config->directories.items[i], added_one, server);
}

static bool is_same_text(const char *one, const char *other)
{
    return one != NULL && other != NULL ? strcmp(one, other) == 0 : one == other;
}

static bool is_same_list(const struct config_list *one, const struct config_list *other)
{
    bool is_same = one->count == other->count;

    for (size_t i = 0; i < one->count && is_same; i++)
        is_same = strcmp(one->items[i], other->items[i]) == 0;
    return is_same;
}

/* Needs a restart: what is in force stays in the configuration. */
static void text_keep(char **now, char **old)
{
    char *fresh = *now;

    *now = *old;
    *old = fresh;
}

static void list_keep(struct config_list *now, struct config_list *old)
{
    struct config_list fresh = *now;

    *now = *old;
    *old = fresh;
}

/* Listen where nobody listens yet; what fails is said, and tried at the next reload. */
static void listen_all(struct server *server)
{
    const struct config_list *wanted = &server->config.listen;

    for (size_t i = 0; i < wanted->count; i++) {
        if (list_has(&server->bound, wanted->items[i]) ||
            config_list_add(&server->bound, wanted->items[i]) != DONE)
            continue;
        if (network_listen(server->served.node, wanted->items[i]) != DONE)
            config_list_cut(&server->bound);
    }
}

static void reload_network(struct server *server, struct config *old)
{
    struct config *now = &server->config;
    hyperwal_node *node = server->served.node;
    bool needs_restart = !is_same_text(old->identity, now->identity) ||
                         !is_same_text(old->authorized_keys, now->authorized_keys) ||
                         !is_same_text(old->http, now->http) ||
                         old->is_http_public != now->is_http_public ||
                         (node == NULL && now->listen.count > 0);
    struct network_wishes wishes;

    for (size_t i = 0; i < server->bound.count; i++)
        needs_restart |= !list_has(&now->listen, server->bound.items[i]);
    if (needs_restart)
        (void)failure("the first listener, one that is gone, another identity, another file of "
                      "authorized keys, and http: these changes of the configuration need a "
                      "restart");
    text_keep(&now->identity, &old->identity);
    text_keep(&now->authorized_keys, &old->authorized_keys);
    text_keep(&now->http, &old->http);
    now->is_http_public = old->is_http_public;
    if (node == NULL)
        return;
    network_wishes_make(now, &wishes);
    if ((!is_same_list(&old->allow, &now->allow) ||
         !is_same_list(&old->allow_write, &now->allow_write)) &&
        network_allow(node, &wishes) != DONE) { /* said, as are those below */
        list_keep(&now->allow, &old->allow);
        list_keep(&now->allow_write, &old->allow_write);
    }
    (void)network_reload(node);
    listen_all(server);
}

static void reload(struct server *server)
{
    struct config old = server->config, fresh = {0};
    int result = DONE;

    notify_reloading(&server->notify);
    if (server->options->config_path != NULL)
        result = config_read(&fresh, server->options->config_path);
    if (result == DONE)
        result = config_merge(&fresh, server->options->given);
    if (result == DONE) {
        server->config = fresh;
        server->served.rest_s = fresh.rest_s;
        reload_network(server, &old);
        reload_databases(server);
        config_release(&old);
    } else {
        (void)failure("the configuration is as it was");
        config_release(&fresh);
    }
    notify_ready(&server->notify, server->served.count);
}

/* --------------------------------------------------------------------------------- loop */

static bool is_to_end(struct server *server)
{
    struct signalfd_siginfo info;

    if (read(server->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return false;
    if (info.ssi_signo != SIGHUP)
        return true;
    reload(server);
    return false;
}

/* Milliseconds until something is due, or -1. */
static int time_to_wait(struct server *server)
{
    int wait_ms = served_wait(&server->served), alive_ms = notify_alive(&server->notify);
    double late_s = late_wait(&server->watch.late);

    if (late_s >= 0 && (wait_ms < 0 || wait_ms > late_s * 1000))
        wait_ms = (int)(late_s * 1000) + 1;
    if (alive_ms >= 0 && (wait_ms < 0 || wait_ms > alive_ms))
        wait_ms = alive_ms;
    return wait_ms;
}

static char *answer(void *ctx, enum http_page page)
{
    struct server *server = ctx;

    return page_make(&server->served, page);
}

static void create(struct server *server)
{
    const struct config *config = &server->config;

    creator_work(&server->creator, &server->watch,
                 config->directories.count > 0 ? config->directories.items[0] : NULL,
                 config->create_most);
}

/*
 * It was removed.  If it is back it is served again, but an empty file may be one into which a
 * backup is just being copied.  A link that is gone, too, is not waited for.
 */
static void take_back(struct server *server, const char *path)
{
    struct late_list *late = &server->watch.late;
    bool is_named = list_has(&server->config.databases, path), is_awaited, is_back;
    struct stat stat_;

    late_begin(late, path);
    is_awaited = is_named || lstat(path, &stat_) == 0 || errno != ENOENT;
    is_back = stat(path, &stat_) == 0 && stat_.st_size > 0;
    late_end(late, LATE_GONE, path, is_awaited && !is_back ? LATE_FAILED : LATE_DONE);
    if (is_back && is_named)
        take_database(server, path);
    else if (is_back)
        (void)watch_guess(&server->watch, path);
}

/* What could not be served before. */
static void try_again(struct server *server)
{
    struct watch *watch = &server->watch;
    double end = seconds_now() + ROUND_MS / 1000.0;
    enum late_kind kind;
    char *path = NULL;

    if (late_takes_more(&watch->late))
        watch_scan(watch, NULL, NULL);
    while (seconds_now() < end && (path = late_next(&watch->late, &kind)) != NULL) {
        if (kind == LATE_NAMED)
            take_database(server, path);
        else if (kind == LATE_GONE)
            take_back(server, path);
        else if (kind == LATE_DIRECTORY)
            watch_take(watch, path, NULL, NULL);
        else
            (void)watch_guess(watch, path);
        free(path);
    }
}

static int serve_until_signal(struct server *server)
{
    struct pollfd fds[] = {{server->signals, POLLIN, 0},
                           {server->watch.inotify, POLLIN, 0},
                           {server->creator.event, POLLIN, 0},
                           {http_event(server->http), POLLIN, 0}};

    for (;;) {
        size_t served_count = server->served.count;
        int wait_ms = time_to_wait(server);
        int count = poll(fds, 4, fds[1].fd < 0 ? REST_MS : wait_ms);

        if (count < 0 && errno != EINTR)
            return failure("poll: %s", strerror(errno));
        if (count > 0 && fds[0].revents != 0 && is_to_end(server))
            return DONE;
        if (count > 0 && fds[1].revents != 0) {
            watch_read(&server->watch);
            fds[1].fd = -1; /* a busy writer is looked at once in a while, not for each frame */
        } else {
            fds[1].fd = server->watch.inotify;
        }
        if (count > 0 && fds[2].revents != 0)
            create(server);
        if (count > 0 && fds[3].revents != 0)
            http_work(server->http, answer, server);
        served_work(&server->served);
        try_again(server);
        if (server->served.count != served_count)
            notify_status(&server->notify, server->served.count);
    }
}

static void print_http(const struct server *server)
{
    struct json json;

    if (!server->options->is_json) {
        printf("http %s\n", http_url(server->http));
        return;
    }
    json_begin(&json);
    json_text(&json, "http", http_url(server->http));
    json_end(&json);
}

static void print_ready(const struct server *server)
{
    struct json json;

    if (!server->options->is_json) {
        puts("ready");
        fflush(stdout);
        return;
    }
    json_begin(&json);
    json_bool(&json, "ready", true);
    json_end(&json);
}

/* Close what can be closed in time; false: something could not. */
static bool close_all(struct server *server)
{
    double end = seconds_now() + server->config.stop_s, tidy_end = seconds_now() + TIDY_S;
    size_t left;

    notify_stopping(&server->notify);
    while (server->served.count > 0 && seconds_now() < end) {
        (void)notify_alive(&server->notify);
        served_remove(&server->served, &server->served.items[server->served.count - 1],
                      seconds_now() < tidy_end);
    }
    left = server->served.count;
    if (left > 0)
        (void)failure(
            "%zu databases were not closed in %u s (stop-timeout): the next start goes on "
            "from their WALs",
            left, server->config.stop_s);
    return left == 0;
}

int server_run(const struct server_options *options, struct config *config)
{
    struct server server = {
        .options = options, .config = *config, .creator = {.event = -1}, .signals = -1};
    sigset_t set;
    int result;

    *config = (struct config){0};
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before there are threads */
    /* A page at a time: twenty at once, as is usual, are most of what a database at rest has. */
    (void)sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0);
    notify_open(&server.notify);
    server.signals = signalfd(-1, &set, SFD_CLOEXEC);
    result = watch_open(&server.watch, &server.served, options->is_json);
    if (result == DONE && server.signals < 0)
        result = failure("cannot wait for signals: %s", strerror(errno));
    if (result == DONE)
        result = open_network(&server);
    if (result == DONE)
        result = creator_open(&server.creator, server.served.node);
    if (result == DONE && server.config.http != NULL)
        result = http_open(server.config.http, server.config.is_http_public != 0, &server.http);
    server.served.rest_s = server.config.rest_s;
    if (result == DONE)
        result = add_all(&server);
    if (result == DONE) {
        if (server.http != NULL)
            print_http(&server);
        print_ready(&server);
        notify_ready(&server.notify, server.served.count);
        result = serve_until_signal(&server);
    }
    creator_close(&server.creator);
    http_close(server.http);
    if (!close_all(&server))
        _exit(result); /* nothing of what is open is half done */
    served_release(&server.served);
    hyperwal_node_close(server.served.node);
    watch_close(&server.watch);
    notify_close(&server.notify);
    config_release(&server.config);
    while (server.bound.count > 0)
        config_list_cut(&server.bound);
    free(server.bound.items);
    if (server.signals >= 0)
        close(server.signals);
    return result;
}
