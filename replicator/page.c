/* Implements page.h. */
#include "page.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "report.h"

enum { FOLLOWERS_SHOWN = 16 };

struct follower {
    hyperwal_peer peer;
    uint64_t blocks, entries, bytes; /* that it does not show yet */
    int64_t since_ms;                /* of the first of them; 0: none */
};

struct view { /* of one database */
    const struct served *served;
    hyperwal_head head;
    uint64_t wal_bytes;
    bool is_worker;
    struct follower followers[FOLLOWERS_SHOWN];
    unsigned shown, connected;
    char error[256]; /* why its log cannot be read; "" */
};

static int64_t now_ms(void)
{
    struct timespec now = {0};

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t lag_ms(const struct follower *follower)
{
    int64_t passed = follower->since_ms == 0 ? 0 : now_ms() - follower->since_ms;

    return passed > 0 ? (uint64_t)passed : 0;
}

static void followers_read(hyperwal_log *log, struct view *view)
{
    hyperwal_peer peer;
    unsigned row = 0;

    while (hyperwal_log_peer(log, &row, &peer) == SQLITE_OK) {
        struct follower *follower = &view->followers[view->shown];
        uint64_t applied = peer.applied_seq == HYPERWAL_SEQ_NONE ? 0 : peer.applied_seq;

        view->connected += peer.is_connected != 0;
        if (view->shown == FOLLOWERS_SHOWN || peer.is_connected == 0)
            continue;
        *follower = (struct follower){.peer = peer};
        if (view->head.seq != HYPERWAL_SEQ_NONE && view->head.seq > applied) {
            follower->blocks = view->head.seq - applied;
            (void)hyperwal_log_after(log, applied, &follower->entries, &follower->bytes,
                                     &follower->since_ms); /* zeros */
        }
        view->shown++;
    }
}

static void log_read(struct view *view)
{
    hyperwal_log *log = NULL;
    char *error = NULL;
    int code = hyperwal_log_open(view->served->path, &log, &error);

    if (code == SQLITE_OK)
        code = hyperwal_log_head(log, &view->head);
    if (code == SQLITE_OK)
        followers_read(log, view);
    else
        snprintf(view->error, sizeof(view->error), "%s",
                 log != NULL     ? hyperwal_log_errmsg(log)
                 : error != NULL ? error
                                 : sqlite3_errstr(code));
    sqlite3_free(error);
    hyperwal_log_close(log);
}

static void view_take(const struct served_list *list, struct served *served, struct view *view)
{
    struct stat stat_;
    hyperwal_wal look = {.log = HYPERWAL_LOG_NOWHERE};
    char *wal = sqlite3_mprintf("%s-wal", served->path);
    bool is_resting = served->rest.db != NULL && served->db == NULL && !served->is_touched;

    *view = (struct view){.served = served};
    if (wal != NULL && stat(wal, &stat_) == 0)
        view->wal_bytes = (uint64_t)stat_.st_size;
    sqlite3_free(wal);
    view->is_worker = served->db != NULL && !served->is_replica &&
                      hyperwal_wal_look(served->db, NULL, &look) == SQLITE_OK &&
                      look.log == HYPERWAL_LOG_HERE;
    if (is_resting && served->has_head && list->node == NULL) {
        view->head = served->head;
        return;
    }
    log_read(view);
    served->has_head = is_resting && view->error[0] == '\0';
    if (served->has_head)
        served->head = view->head;
}

static const char *state_of(const struct view *view)
{
    if (view->served->is_replica)
        return "replica";
    return view->served->db == NULL ? "resting" : "awake";
}

/* -------------------------------------------------------------------------------- escapes */

/* `text` with what would end it, or steer a terminal, in place of it; any bytes are UTF-8 then. */
static void add_escaped(sqlite3_str *out, const char *text, enum http_page page)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p < 0x20 || *p >= 0x7f)
            sqlite3_str_appendchar(out, 1, '?');
        else if (page != HTTP_STATUS && (*p == '"' || *p == '\\'))
            sqlite3_str_appendf(out, "\\%c", *p);
        else if (page == HTTP_STATUS && strchr("<>&\"'", *p) != NULL)
            sqlite3_str_appendf(out, "&#%d;", *p);
        else
            sqlite3_str_appendchar(out, 1, (char)*p);
    }
}

/* ------------------------------------------------------------------------------- metrics */

enum metric_kind { GAUGE, COUNTER };
static const struct metric {
    const char *name, *help;
    enum metric_kind kind;
} metrics[] = {
    {"log_blocks", "Length of the log.", GAUGE},
    {"log_bytes", "Bytes of all blocks of the log, also of pruned ones.", GAUGE},
    {"log_stored_bytes", "Bytes of the log on disk.", GAUGE},
    {"log_fork", "Fork of the log.", GAUGE},
    {"seq", "Seq of the last state in the log.", GAUGE},
    {"snapshot_seq", "Seq of the newest complete snapshot.", GAUGE},
    {"last_commit_timestamp_seconds", "When the last state in the log was committed.", GAUGE},
    {"database_bytes", "Size of the database.", GAUGE},
    {"wal_bytes", "Size of the WAL file.", GAUGE},
    {"commits_total", "Commits through the VFS since the boot, as of the last look.", COUNTER},
    {"alarm", "1: something is wrong; the status page has the words.", GAUGE},
    {"worker_here", "1: this process writes the log.", GAUGE},
    {"awake", "1: open; 0: at rest, nobody writes.", GAUGE},
    {"followers", "Connected followers.", GAUGE},
};
enum { METRIC_COUNT = sizeof(metrics) / sizeof(metrics[0]) };

static uint64_t zero_if_none(uint64_t seq)
{
    return seq == HYPERWAL_SEQ_NONE ? 0 : seq;
}

/* In the order of the table. */
static void values_of(const struct view *view, uint64_t values[METRIC_COUNT])
{
    const hyperwal_head *head = &view->head;
    const uint64_t all[METRIC_COUNT] = {
        head->length,
        head->byte_length,
        head->stored_bytes,
        head->fork,
        zero_if_none(head->seq),
        zero_if_none(head->snapshot_seq),
        (uint64_t)(head->time_ms / 1000),
        (uint64_t)head->page_count * head->page_size,
        view->wal_bytes,
        view->served->commits,
        head->alarm[0] != '\0' || view->error[0] != '\0',
        view->is_worker,
        view->served->db != NULL,
        view->connected,
    };

    memcpy(values, all, sizeof(all));
}

static void add_metric_head(sqlite3_str *out, const char *name, const char *help,
                            enum metric_kind kind)
{
    sqlite3_str_appendf(out, "# HELP hyperwal_%s %s\n# TYPE hyperwal_%s %s\n", name, help, name,
                        kind == COUNTER ? "counter" : "gauge");
}

static void add_follower_metrics(sqlite3_str *out, const struct view *views, size_t count)
{
    static const struct {
        const char *name, *help;
    } kinds[] = {
        {"follower_lag_blocks", "Blocks that a follower does not show yet."},
        {"follower_lag_seconds", "Age of the first of them."},
    };

    for (int kind = 0; kind < 2; kind++) {
        add_metric_head(out, kinds[kind].name, kinds[kind].help, GAUGE);
        for (size_t i = 0; i < count; i++) {
            for (unsigned f = 0; f < views[i].shown; f++) {
                const struct follower *follower = &views[i].followers[f];
                char key[KEY_TEXT];

                sqlite3_str_appendf(out, "hyperwal_%s{database=\"", kinds[kind].name);
                add_escaped(out, views[i].served->name, HTTP_METRICS);
                sqlite3_str_appendf(out, "\",follower=\"%.16s\",address=\"",
                                    key_text(follower->peer.key, key));
                add_escaped(out, follower->peer.address, HTTP_METRICS);
                if (kind == 0)
                    sqlite3_str_appendf(out, "\"} %llu\n", (unsigned long long)follower->blocks);
                else
                    sqlite3_str_appendf(out, "\"} %.3f\n", (double)lag_ms(follower) / 1000);
            }
        }
    }
}

static void add_metrics(sqlite3_str *out, const struct view *views, size_t count)
{
    add_metric_head(out, "info", "Version of the server.", GAUGE);
    sqlite3_str_appendf(out, "hyperwal_info{version=\"%s\",sqlite=\"%s\"} 1\n", hyperwal_version(),
                        sqlite3_libversion());
    add_metric_head(out, "databases", "Databases that are served.", GAUGE);
    sqlite3_str_appendf(out, "hyperwal_databases %llu\n", (unsigned long long)count);
    for (size_t m = 0; m < METRIC_COUNT; m++) {
        add_metric_head(out, metrics[m].name, metrics[m].help, metrics[m].kind);
        for (size_t i = 0; i < count; i++) {
            uint64_t values[METRIC_COUNT];

            values_of(&views[i], values);
            sqlite3_str_appendf(out, "hyperwal_%s{database=\"", metrics[m].name);
            add_escaped(out, views[i].served->name, HTTP_METRICS);
            sqlite3_str_appendf(out, "\"} %llu\n", (unsigned long long)values[m]);
        }
    }
    add_follower_metrics(out, views, count);
}

/* ---------------------------------------------------------------------------------- JSON */

static void add_text(sqlite3_str *out, const char *name, const char *text)
{
    sqlite3_str_appendf(out, "\"%s\": \"", name);
    add_escaped(out, text, HTTP_JSON);
    sqlite3_str_appendall(out, "\", ");
}

static void add_number(sqlite3_str *out, const char *name, uint64_t number)
{
    if (number == HYPERWAL_SEQ_NONE)
        sqlite3_str_appendf(out, "\"%s\": null, ", name);
    else
        sqlite3_str_appendf(out, "\"%s\": %llu, ", name, (unsigned long long)number);
}

static void add_json_followers(sqlite3_str *out, const struct view *view)
{
    char key[KEY_TEXT];

    for (unsigned f = 0; f < view->shown; f++) {
        const struct follower *follower = &view->followers[f];

        sqlite3_str_appendall(out, f > 0 ? ", {" : "{");
        add_text(out, "key", key_text(follower->peer.key, key));
        add_text(out, "address", follower->peer.address);
        add_number(out, "applied_seq", follower->peer.applied_seq);
        add_number(out, "durable_seq", follower->peer.durable_seq);
        add_number(out, "lag_entries", follower->entries);
        add_number(out, "lag_bytes", follower->bytes);
        add_number(out, "lag_ms", lag_ms(follower));
        sqlite3_str_appendf(out, "\"lag\": %llu}", (unsigned long long)follower->blocks);
    }
}

static void add_json_view(sqlite3_str *out, const struct view *view)
{
    const hyperwal_head *head = &view->head;
    char text[TIME_TEXT], key[KEY_TEXT];

    sqlite3_str_appendchar(out, 1, '{');
    add_text(out, "name", view->served->name);
    add_text(out, "path", view->served->path);
    add_text(out, "state", state_of(view));
    add_text(out, "key", key_text(head->key, key));
    add_number(out, "length", head->length);
    add_number(out, "byte_length", head->byte_length);
    add_number(out, "log_bytes", head->stored_bytes);
    add_number(out, "fork", head->fork);
    add_number(out, "seq", head->seq);
    add_number(out, "snapshot_seq", head->snapshot_seq);
    add_number(out, "page_size", head->page_size);
    add_number(out, "pages", head->page_count);
    add_number(out, "wal_bytes", view->wal_bytes);
    add_number(out, "commits", view->served->commits);
    add_number(out, "worker_pid", head->worker_pid);
    if (head->time_ms != 0)
        add_text(out, "time", time_text(head->time_ms, text));
    add_text(out, "alarm", view->error[0] != '\0' ? view->error : head->alarm);
    add_number(out, "followers", view->connected);
    sqlite3_str_appendall(out, "\"peers\": [");
    add_json_followers(out, view);
    sqlite3_str_appendall(out, "]}");
}

static void add_json(sqlite3_str *out, const struct view *views, size_t count)
{
    sqlite3_str_appendchar(out, 1, '{');
    add_text(out, "version", hyperwal_version());
    add_text(out, "sqlite", sqlite3_libversion());
    add_number(out, "pid", (uint64_t)getpid());
    sqlite3_str_appendall(out, "\"databases\": [");
    for (size_t i = 0; i < count; i++) {
        sqlite3_str_appendall(out, i > 0 ? ",\n" : "\n");
        add_json_view(out, &views[i]);
    }
    sqlite3_str_appendall(out, "]}\n");
}

/* ---------------------------------------------------------------------------------- page */

static void add_row(sqlite3_str *out, const struct view *view)
{
    const hyperwal_head *head = &view->head;
    const char *alarm = view->error[0] != '\0' ? view->error : head->alarm;
    char size[SIZE_TEXT], time[TIME_TEXT], key[KEY_TEXT];
    uint64_t most = 0;

    for (unsigned f = 0; f < view->shown; f++)
        if (view->followers[f].blocks > most)
            most = view->followers[f].blocks;
    sqlite3_str_appendall(out, "<tr><td title=\"");
    add_escaped(out, view->served->path, HTTP_STATUS);
    sqlite3_str_appendall(out, "\">");
    add_escaped(out, view->served->name, HTTP_STATUS);
    sqlite3_str_appendf(out, "<td title=\"%s\">%.8s<td>%s<td>", key_text(head->key, key), key,
                        state_of(view));
    if (head->seq != HYPERWAL_SEQ_NONE)
        sqlite3_str_appendf(out, "%llu", (unsigned long long)head->seq);
    sqlite3_str_appendf(out, "<td>%s", head->time_ms != 0 ? time_text(head->time_ms, time) : "");
    sqlite3_str_appendf(out, "<td>%s",
                        size_text((uint64_t)head->page_count * head->page_size, size));
    sqlite3_str_appendf(out, "<td>%s", size_text(head->stored_bytes, size));
    sqlite3_str_appendf(out, "<td>%s<td>%u<td>%llu<td class=alarm>",
                        size_text(view->wal_bytes, size), view->connected,
                        (unsigned long long)most);
    add_escaped(out, alarm, HTTP_STATUS);
    sqlite3_str_appendall(out, "\n");
}

static void add_page(sqlite3_str *out, const struct view *views, size_t count)
{
    sqlite3_str_appendf(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>hyperwal</title><style>"
        "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}"
        ".alarm{color:#b00}</style><h1>hyperwal %s</h1><p>%llu database%s. "
        "<a href=status.json>status.json</a> <a href=metrics>metrics</a>\n"
        "<table><tr><th>database<th>key<th>state<th>seq<th>last commit<th>size<th>log<th>WAL"
        "<th>followers<th>lag<th>alarm\n",
        hyperwal_version(), (unsigned long long)count, count == 1 ? "" : "s");
    for (size_t i = 0; i < count; i++)
        add_row(out, &views[i]);
    sqlite3_str_appendall(out, "</table></html>\n");
}

char *page_make(struct served_list *list, enum http_page page)
{
    struct view *views = calloc(list->count + 1, sizeof(*views));
    sqlite3_str *out = sqlite3_str_new(NULL);

    for (size_t i = 0; views != NULL && i < list->count; i++)
        view_take(list, &list->items[i], &views[i]);
    if (views != NULL && page == HTTP_METRICS)
        add_metrics(out, views, list->count);
    else if (views != NULL && page == HTTP_JSON)
        add_json(out, views, list->count);
    else if (views != NULL)
        add_page(out, views, list->count);
    free(views);
    return sqlite3_str_finish(out); /* NULL if memory went out, or nothing was written */
}
