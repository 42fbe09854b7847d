/* hyperwal status: what a log, a database with a log, or a replica is and how far it is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1 };

static const struct option options[] = {
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct lag {
    uint64_t blocks, entries, bytes;
    int64_t since_ms; /* when the first entry that is behind was committed; 0: nothing is */
};

struct facts {
    const char *path; /* as named */
    const char *role;
    bool has_head;   /* of a replica: its log is in reach */
    bool is_replica; /* the next two */
    uint64_t applied_seq, applied_sum;
    unsigned char key[32];
    hyperwal_head head;
    hyperwal_log *log; /* owned; NULL: not in reach */
    struct lag lag;    /* of a replica */
    char *remote;      /* owned: what the server says, JSON; NULL: nothing */
};

enum { PEER_ROWS = 256 };

/* What somebody who applied `seq` lacks. */
static struct lag lag_of(const struct facts *facts, uint64_t seq)
{
    const hyperwal_head *head = &facts->head;
    struct lag lag = {0};

    if (!facts->has_head || head->seq == HYPERWAL_SEQ_NONE)
        return lag;
    if (seq == HYPERWAL_SEQ_NONE)
        lag.blocks = head->seq + 1;
    else
        lag.blocks = head->seq > seq ? head->seq - seq : 0;
    if (lag.blocks > 0)
        (void)hyperwal_log_after(facts->log, seq, &lag.entries, &lag.bytes, &lag.since_ms);
    return lag;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* How long ago the first entry that is behind was committed. */
static uint64_t lag_ms(const struct lag *lag)
{
    int64_t passed = lag->since_ms == 0 ? 0 : now_ms() - lag->since_ms;

    return passed > 0 ? (uint64_t)passed : 0;
}

static void print_peers_json(const struct facts *facts)
{
    hyperwal_peer peer;
    struct json json;
    unsigned row = 0;
    const char *comma = "";

    while (facts->log != NULL && hyperwal_log_peer(facts->log, &row, &peer) == SQLITE_OK) {
        struct lag lag = lag_of(facts, peer.applied_seq);

        fputs(comma, stdout);
        comma = ", ";
        json_begin(&json);
        json_text(&json, "address", peer.address);
        json_key(&json, "key", peer.key);
        json_bool(&json, "connected", peer.is_connected != 0);
        json_time(&json, "since", peer.since_ms);
        json_number(&json, "length", peer.length);
        json_seq(&json, "received_seq", peer.received_seq);
        json_seq(&json, "durable_seq", peer.durable_seq);
        json_seq(&json, "applied_seq", peer.applied_seq);
        json_number(&json, "lag", lag.blocks);
        json_number(&json, "lag_entries", lag.entries);
        json_number(&json, "lag_bytes", lag.bytes);
        json_number(&json, "lag_ms", lag_ms(&lag));
        json_close(&json);
    }
}

static void print_json(const struct facts *facts)
{
    const hyperwal_head *head = &facts->head;
    struct json json;

    json_begin(&json);
    json_text(&json, "path", facts->path);
    json_text(&json, "role", facts->role);
    json_key(&json, "key", facts->key);
    if (facts->has_head) {
        json_key(&json, "discovery_key", head->discovery_key);
        json_number(&json, "length", head->length);
        json_number(&json, "byte_length", head->byte_length);
        json_number(&json, "fork", head->fork);
        json_key(&json, "tree_hash", head->tree_hash);
    }
    json_seq(&json, "seq", facts->is_replica ? facts->applied_seq : head->seq);
    if (facts->has_head) {
        json_number(&json, "page_size", head->page_size);
        json_number(&json, "pages", head->page_count);
    }
    json_sum(&json, "sum", facts->is_replica ? facts->applied_sum : head->sum);
    if (facts->has_head) {
        json_time(&json, "time", head->time_ms);
        json_seq(&json, "snapshot_seq", head->snapshot_seq);
        json_number(&json, "first_kept", head->first_kept);
        json_number(&json, "log_bytes", head->stored_bytes);
        json_number(&json, "worker_pid", head->worker_pid);
        json_text(&json, "alarm", head->alarm);
    }
    if (facts->is_replica && facts->has_head) {
        json_seq(&json, "head_seq", head->seq);
        json_number(&json, "lag", facts->lag.blocks);
        json_number(&json, "lag_entries", facts->lag.entries);
        json_number(&json, "lag_bytes", facts->lag.bytes);
        json_number(&json, "lag_ms", lag_ms(&facts->lag));
    }
    if (facts->remote != NULL)
        json_raw(&json, "server", facts->remote);
    json_raw(&json, "peers", "[");
    print_peers_json(facts);
    putchar(']');
    json_end(&json);
}

static void print_seq(const char *name, uint64_t seq)
{
    if (seq == HYPERWAL_SEQ_NONE)
        printf("%-13s none\n", name);
    else
        printf("%-13s %" PRIu64 "\n", name, seq);
}

static void print_head(const struct facts *facts)
{
    const hyperwal_head *head = &facts->head;
    char text[KEY_TEXT], size[SIZE_TEXT];

    printf("%-13s %s\n", "discovery key", key_text(head->discovery_key, text));
    printf("%-13s %" PRIu64 " blocks, %s", "length", head->length,
           size_text(head->byte_length, size));
    printf(", fork %" PRIu64 ", on disk %s\n", head->fork, size_text(head->stored_bytes, size));
    print_seq(facts->is_replica ? "head seq" : "seq", head->seq);
    if (head->seq != HYPERWAL_SEQ_NONE)
        printf("%-13s %s\n", "time", time_text(head->time_ms, text));
    printf("%-13s %" PRIu32 " pages of %" PRIu32 " bytes (%s)\n", "size", head->page_count,
           head->page_size, size_text((uint64_t)head->page_count * head->page_size, size));
    printf("%-13s %016" PRIx64 "\n", "state sum", head->sum);
    print_seq("snapshot", head->snapshot_seq);
    if (head->first_kept > 0)
        printf("%-13s blocks below %" PRIu64 "\n", "pruned", head->first_kept);
    if (head->worker_pid != 0)
        printf("%-13s process %u\n", "written by", head->worker_pid);
    if (head->alarm[0] != '\0')
        printf("%-13s %s\n", "ALARM", head->alarm);
}

static void print_lag(const char *name, const struct lag *lag)
{
    char size[SIZE_TEXT];

    printf("%-13s %" PRIu64 " blocks", name, lag->blocks);
    if (lag->entries > 0)
        printf(", %" PRIu64 " entries, %s, %.1f s", lag->entries, size_text(lag->bytes, size),
               (double)lag_ms(lag) / 1000);
    putchar('\n');
}

static void print_peers(const struct facts *facts)
{
    hyperwal_peer peer;
    unsigned row = 0;

    while (facts->log != NULL && hyperwal_log_peer(facts->log, &row, &peer) == SQLITE_OK) {
        struct lag lag = lag_of(facts, peer.applied_seq);
        char text[KEY_TEXT];

        printf("%-13s %s %s%s\n", "peer", key_text(peer.key, text), peer.address,
               peer.is_connected != 0 ? "" : " (left)");
        print_seq("  received", peer.received_seq);
        print_seq("  durable", peer.durable_seq);
        print_seq("  applied", peer.applied_seq);
        print_lag("  lag", &lag);
    }
}

static void print_text(const struct facts *facts)
{
    char text[KEY_TEXT];

    printf("%-13s %s\n", "path", facts->path);
    printf("%-13s %s\n", "role", facts->role);
    printf("%-13s %s\n", "key", key_text(facts->key, text));
    if (facts->is_replica) {
        print_seq("applied seq", facts->applied_seq);
        printf("%-13s %016" PRIx64 "\n", "applied sum", facts->applied_sum);
    }
    if (facts->has_head)
        print_head(facts);
    if (facts->is_replica && facts->has_head)
        print_lag("lag", &facts->lag);
    else if (facts->is_replica)
        printf("%-13s unknown: its log is not where it was\n", "lag");
    print_peers(facts);
}

static const char *role_of(const struct facts *facts)
{
    if (facts->is_replica)
        return "replica";
    if (source_is_remote(facts->path))
        return "remote";
    return facts->head.has_key != 0 ? "primary" : "mirror";
}

static int look_at_log(struct facts *facts)
{
    char *error = NULL;
    int code = hyperwal_log_open(facts->path, &facts->log, &error);
    int result = DONE;

    if (code == SQLITE_OK) {
        code = hyperwal_log_head(facts->log, &facts->head);
        if (code != SQLITE_OK) {
            result = failure_code(code, hyperwal_log_errmsg(facts->log));
        } else {
            facts->has_head = true;
            if (!facts->is_replica)
                memcpy(facts->key, facts->head.key, sizeof(facts->key));
        }
    } else if (!facts->is_replica) {
        result = failure_code(code, error);
    }
    sqlite3_free(error);
    return result;
}

static int look(const char *src, struct facts *facts)
{
    char *error = NULL;
    int code, result;

    *facts = (struct facts){.path = src};
    code =
        hyperwal_replica_info(src, 0, facts->key, &facts->applied_seq, &facts->applied_sum, &error);
    facts->is_replica = code == SQLITE_OK;
    if (code != SQLITE_OK && code != SQLITE_NOTFOUND) {
        result = failure_code(code, error);
        sqlite3_free(error);
        return result;
    }
    sqlite3_free(error);
    result = look_at_log(facts);
    if (result == DONE && facts->is_replica)
        facts->lag = lag_of(facts, facts->applied_seq);
    /* A peer of another kind says nothing: its log tells all the same. */
    if (result == DONE && source_is_remote(src))
        (void)hyperwal_remote_status(src, &facts->remote, NULL);
    facts->role = role_of(facts);
    return result;
}

static int run(int argc, char **argv)
{
    bool is_json = false;
    struct facts facts;
    char *src;
    int result, c;

    while ((c = option_next(&verb_status, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_status, "needs one SRC");
    src = source_path(argv[optind]);
    if (src == NULL)
        return failure("no memory");
    result = look(src, &facts);
    if (result == DONE && is_json)
        print_json(&facts);
    else if (result == DONE)
        print_text(&facts);
    sqlite3_free(facts.remote);
    hyperwal_log_close(facts.log);
    free(src);
    return result;
}

const struct verb verb_status = {
    .name = "status",
    .synopsis = "SRC [--json]",
    .summary = "what a log or replica is, and how far",
    .help =
        "SRC is a database with a log, a log directory, a replica, or a URL; nothing is changed.\n"
        "The role is primary, mirror (a log without its secret key), replica, or remote.  Of a\n"
        "primary, and of what is served from here, every follower is told with its lag.\n\n"
        "  --json  one object: path, role, key, discovery_key, length, byte_length, fork,\n"
        "          tree_hash, seq, page_size, pages, sum, time, snapshot_seq, first_kept,\n"
        "          log_bytes, worker_pid, alarm, peers; of a replica seq and sum are what it has\n"
        "          applied, and there are head_seq, lag (in blocks), lag_entries, lag_bytes and\n"
        "          lag_ms (age of the first entry not applied).  Without the log in reach a "
        "replica\n"
        "          gives only path, role, key, seq, sum and peers.  Of a URL there is server, "
        "what\n"
        "          the server says of it.  peers: address, key, connected, since, length,\n"
        "          received_seq, durable_seq, applied_seq, lag, lag_entries, lag_bytes, lag_ms\n",
    .run = run,
};
