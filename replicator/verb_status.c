/* hyperwal status: what a log, a database with a log, or a replica is and how far it is. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "program.h"
#include "report.h"

enum { OPTION_JSON = 1 };

static const struct option options[] = {
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

struct facts {
    const char *path; /* as named */
    const char *role;
    bool has_head;   /* of a replica: its log is in reach */
    bool is_replica; /* the next two */
    uint64_t applied_seq, applied_sum;
    unsigned char key[32];
    hyperwal_head head;
};

/* Blocks of the log that carry states and are not in the replica. */
static uint64_t lag_of(const struct facts *facts)
{
    if (!facts->is_replica || !facts->has_head || facts->head.seq == HYPERWAL_SEQ_NONE)
        return 0;
    if (facts->applied_seq == HYPERWAL_SEQ_NONE)
        return facts->head.seq + 1;
    return facts->head.seq > facts->applied_seq ? facts->head.seq - facts->applied_seq : 0;
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
        json_number(&json, "lag", lag_of(facts));
    }
    json_raw(&json, "peers", "[]");
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
        printf("%-13s %" PRIu64 " blocks\n", "lag", lag_of(facts));
    else if (facts->is_replica)
        printf("%-13s unknown: its log is not where it was\n", "lag");
}

static int look(const char *src, struct facts *facts)
{
    hyperwal_log *log = NULL;
    char *error = NULL;
    int code, result = DONE;

    *facts = (struct facts){.path = src};
    code =
        hyperwal_replica_info(src, 0, facts->key, &facts->applied_seq, &facts->applied_sum, &error);
    facts->is_replica = code == SQLITE_OK;
    if (code != SQLITE_OK && code != SQLITE_NOTFOUND) {
        result = failure_code(code, error);
        goto done;
    }
    sqlite3_free(error);
    error = NULL;
    code = hyperwal_log_open(src, &log, &error);
    if (code == SQLITE_OK) {
        code = hyperwal_log_head(log, &facts->head);
        if (code != SQLITE_OK) {
            result = failure_code(code, hyperwal_log_errmsg(log));
            goto done;
        }
        facts->has_head = true;
        if (!facts->is_replica)
            memcpy(facts->key, facts->head.key, sizeof(facts->key));
    } else if (!facts->is_replica) {
        result = failure_code(code, error);
    }
    facts->role = facts->is_replica ? "replica" : facts->head.has_key != 0 ? "primary" : "mirror";
done:
    sqlite3_free(error);
    hyperwal_log_close(log);
    return result;
}

static int run(int argc, char **argv)
{
    bool is_json = false;
    struct facts facts;
    int result, c;

    while ((c = option_next(&verb_status, argc, argv, options)) != -1) {
        if (c == OPTION_HELP || c == OPTION_BAD)
            return option_exit(c);
        is_json = true;
    }
    if (argc - optind != 1)
        return usage_error(&verb_status, "needs one SRC");
    result = look(argv[optind], &facts);
    if (result != DONE)
        return result;
    if (is_json)
        print_json(&facts);
    else
        print_text(&facts);
    return DONE;
}

const struct verb verb_status = {
    .name = "status",
    .synopsis = "SRC [--json]",
    .summary = "what a log or replica is, and how far",
    .help =
        "SRC is a database with a log, a log directory, or a replica; nothing is changed.\n"
        "The role is primary, mirror (a log without its secret key) or replica.\n\n"
        "  --json  one object: path, role, key, discovery_key, length, byte_length, fork,\n"
        "          tree_hash, seq, page_size, pages, sum, time, snapshot_seq, first_kept,\n"
        "          log_bytes, worker_pid, alarm, peers; of a replica seq and sum are what it has\n"
        "          applied, and there are head_seq and lag (in blocks).  Without the log in reach\n"
        "          a replica gives only path, role, key, seq, sum and peers\n",
    .run = run,
};
