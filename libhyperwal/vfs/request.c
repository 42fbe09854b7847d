/* Implements the requests of vfs/shim.h: what users ask of one open database. */
#include <inttypes.h>
#include <string.h>

#include "apply/apply.h"
#include "base/alloc.h"
#include "hypercore/hypercore.h"
#include "vfs/shim.h"

/* ------------------------------------------------------------------------------- status */

static void add_text(sqlite3_str *out, const char *text)
{
    sqlite3_str_appendchar(out, 1, '"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            sqlite3_str_appendf(out, "\\%c", *p);
        else if ((unsigned char)*p < 0x20)
            sqlite3_str_appendf(out, "\\u%04x", (unsigned)*p);
        else
            sqlite3_str_appendchar(out, 1, *p);
    }
    sqlite3_str_appendchar(out, 1, '"');
}

static void add_string(sqlite3_str *out, const char *name, const char *text)
{
    sqlite3_str_appendf(out, "\"%s\":", name);
    add_text(out, text);
    sqlite3_str_appendchar(out, 1, ',');
}

static void add_number(sqlite3_str *out, const char *name, uint64_t value)
{
    sqlite3_str_appendf(out, "\"%s\":%llu,", name, (unsigned long long)value);
}

static void add_seq(sqlite3_str *out, const char *name, uint64_t seq)
{
    if (seq == UINT64_MAX)
        sqlite3_str_appendf(out, "\"%s\":null,", name);
    else
        add_number(out, name, seq);
}

static void add_key(sqlite3_str *out, const char *name, const uint8_t key[HW_KEY_SIZE])
{
    char hex[2 * HW_KEY_SIZE + 1];

    hw_key_format(key, hex);
    sqlite3_str_appendf(out, "\"%s\":\"%s\",", name, hex);
}

/* A sum has more bits than a JSON number keeps: 16 hex digits. */
static void add_sum(sqlite3_str *out, uint64_t sum)
{
    sqlite3_str_appendf(out, "\"sum\":\"%08x%08x\",", (unsigned)(sum >> 32), (unsigned)sum);
}

/* The object is complete, if `status` is HW_OK. */
static enum hw_status finish(sqlite3_str *out, enum hw_status status, char **text,
                             struct hw_error *err)
{
    sqlite3_str_appendchar(out, 1, '}');
    if (status != HW_OK) {
        sqlite3_free(sqlite3_str_finish(out));
        return status;
    }
    *text = sqlite3_str_finish(out);
    return *text == NULL ? hw_fail(err, HW_ENOMEM, "no memory for the status") : HW_OK;
}

/* The fields of `hyperwal status --json`. */
static void add_peer(sqlite3_str *out, const struct hw_capture_peer *peer)
{
    const struct hw_peer_row *row = &peer->row;
    char since[32];

    hw_time_format(row->since_ms, since);
    sqlite3_str_appendchar(out, 1, '{');
    add_string(out, "address", row->address);
    add_key(out, "key", row->key);
    sqlite3_str_appendf(out, "\"connected\":%s,", row->process_id != 0 ? "true" : "false");
    add_string(out, "since", since);
    add_number(out, "length", row->length);
    add_seq(out, "received_seq", row->received - 1); /* 0, nothing, wraps to none */
    add_seq(out, "durable_seq", row->durable - 1);
    add_seq(out, "applied_seq", row->applied - 1);
    add_number(out, "lag", peer->lag_blocks);
    add_number(out, "lag_entries", peer->lag_entries);
    add_number(out, "lag_bytes", peer->lag_bytes);
    sqlite3_str_appendf(out, "\"lag_ms\":%lld}", (long long)peer->lag_ms);
}

static enum hw_status add_peers(sqlite3_str *out, struct hw_env *env, const char *dir,
                                struct hw_error *err)
{
    struct hw_capture_peer *peers = hw_alloc(HW_PEER_ROWS * sizeof(*peers));
    size_t count;

    if (peers == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the status");
    count = hw_capture_peers(env, dir, peers);
    sqlite3_str_appendall(out, "\"peers\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            sqlite3_str_appendchar(out, 1, ',');
        add_peer(out, &peers[i]);
    }
    sqlite3_str_appendchar(out, 1, ']');
    hw_free(peers);
    return HW_OK;
}

struct addresses {
    sqlite3_str *out;
    unsigned count;
};

static void add_address(void *ctx, const char *address)
{
    struct addresses *addresses = ctx;

    if (addresses->count++ > 0)
        sqlite3_str_appendchar(addresses->out, 1, ',');
    add_text(addresses->out, address);
}

/* Where this process serves it. */
static void add_listens(sqlite3_str *out, struct hw_shim_database *database)
{
    struct addresses addresses = {.out = out};

    sqlite3_str_appendall(out, "\"listen\":[");
    hw_shim_listen_each(database, add_address, &addresses);
    sqlite3_str_appendall(out, "],");
}

/* A replica of a remote log has that log beside it, which others may follow. */
static enum hw_status add_replica_peers(sqlite3_str *out, struct hw_shim_file *file,
                                        struct hw_error *err)
{
    char *dir = hw_format("%s-hyper", file->path);
    enum hw_status status;

    if (dir == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for the status");
    status = add_peers(out, file->shim->env, dir, err);
    hw_free(dir);
    return status;
}

static enum hw_status primary_status(struct hw_shim_file *file, char **text, struct hw_error *err)
{
    struct hw_capture_status now;
    const char *dir = hw_capture_log_dir(file->capture);
    sqlite3_str *out = sqlite3_str_new(NULL);
    enum hw_status status;

    hw_capture_status(file->capture, &now);
    sqlite3_str_appendchar(out, 1, '{');
    add_string(out, "path", file->path);
    add_string(out, "role", "primary");
    add_string(out, "log", dir);
    add_string(out, "state", now.state);
    add_string(out, "alarm", now.alarm);
    add_key(out, "key", now.key);
    add_key(out, "discovery_key", now.discovery_key);
    add_number(out, "length", now.length);
    add_number(out, "byte_length", now.byte_length);
    add_number(out, "fork", now.fork);
    add_seq(out, "seq", now.seq);
    add_number(out, "page_size", now.page_size);
    add_number(out, "pages", now.page_count);
    add_sum(out, now.sum);
    add_seq(out, "snapshot_seq", now.snapshot_seq);
    add_number(out, "log_bytes", now.log_bytes);
    add_number(out, "wal_bytes", now.wal_bytes);
    add_number(out, "lag", now.lag_frames);
    add_number(out, "commits", now.commits);
    add_string(out, "durability", hw_durability_name(file->durability));
    add_number(out, "replicas", file->replicas);
    add_number(out, "waiters", now.remote_waiters);
    sqlite3_str_appendall(out, "\"unconfirmed\":{");
    add_seq(out, "seq", now.unconfirmed_count == 0 ? UINT64_MAX : now.unconfirmed_seq);
    add_number(out, "count", now.unconfirmed_count);
    sqlite3_str_appendf(out, "\"since\":%lld},", (long long)now.unconfirmed_since_ms);
    add_number(out, "worker_pid", now.worker_pid);
    add_listens(out, file->database);
    status = add_peers(out, file->shim->env, dir, err);
    return finish(out, status, text, err);
}

static enum hw_status replica_status(struct hw_shim_file *file, char **text, struct hw_error *err)
{
    struct hw_replica_info info;
    enum hw_status status = hw_replica_info(file->shim->env, file->path, &info, err);
    uint64_t seq = UINT64_MAX;
    sqlite3_str *out;

    if (status == HW_OK)
        status = hw_shim_replica_seq(file, &seq, err);
    if (status != HW_OK)
        return status;
    out = sqlite3_str_new(NULL);
    sqlite3_str_appendchar(out, 1, '{');
    add_string(out, "path", file->path);
    add_string(out, "role", "replica");
    add_key(out, "key", info.key);
    add_string(out, "source", info.source);
    add_seq(out, "seq", seq);
    if (seq == info.seq)
        add_sum(out, info.sum);
    status = add_replica_peers(out, file, err);
    return finish(out, status, text, err);
}

static enum hw_status key_text(const uint8_t key[HW_KEY_SIZE], char **text, struct hw_error *err)
{
    char hex[2 * HW_KEY_SIZE + 1];

    hw_key_format(key, hex);
    *text = sqlite3_mprintf("%s", hex);
    return *text == NULL ? hw_fail(err, HW_ENOMEM, "no memory for the key") : HW_OK;
}

/* -------------------------------------------------------------------------------- roles */

/*
 * The worker works while somebody has the WAL open, and begins when somebody reads: for a
 * connection that did not read yet another one does, *reader, until the request is answered.
 */
static enum hw_status make_ready(struct hw_shim_file *file, uint64_t timeout_ms, sqlite3 **reader,
                                 struct hw_error *err)
{
    enum hw_header_state header = hw_internal_header(file);
    enum hw_status status = HW_OK;

    if (file->ready || file->is_alone || header == HW_HEADER_EMPTY)
        return HW_OK;
    if (header == HW_HEADER_OTHER)
        status = hw_internal_switch(file, err);
    return status == HW_OK ? hw_internal_read(file, timeout_ms, reader, err) : status;
}

/* Everything that is committed now is in the log when this returns. */
static enum hw_status primary_seq(struct hw_shim_file *file, uint64_t timeout_ms, uint64_t *seq,
                                  struct hw_error *err)
{
    if (!file->ready && hw_internal_header(file) == HW_HEADER_EMPTY) {
        *seq = UINT64_MAX; /* a database without a page has no state to log */
        return HW_OK;
    }
    return hw_capture_wait_logged(file->capture, timeout_ms, seq, err);
}

static enum hw_status ask_worker(struct hw_shim_file *file, struct hw_vfs_request *request,
                                 struct hw_error *err)
{
    enum hw_status status;
    uint64_t seq;

    if (request->kind == HW_REQUEST_SNAPSHOT)
        return hw_capture_snapshot(file->capture, request->timeout_ms, &request->seq, err);
    status = primary_seq(file, request->timeout_ms, &seq, err);
    if (status != HW_OK)
        return status;
    switch (request->kind) {
    case HW_REQUEST_SEQ:
        request->seq = seq;
        return HW_OK;
    case HW_REQUEST_WAIT:
        if (seq != UINT64_MAX && seq >= request->seq)
            return HW_OK;
        return hw_fail(err, HW_ETIMEOUT,
                       "seq %llu is not in the log: this is the primary, whose commits make it",
                       (unsigned long long)request->seq);
    case HW_REQUEST_LABEL:
        return hw_capture_label(file->capture, request->label, request->timeout_ms, &request->seq,
                                err);
    case HW_REQUEST_PRUNE:
        return hw_capture_prune(file->capture, request->seq, request->dry_run, request->timeout_ms,
                                &request->freed, err);
    case HW_REQUEST_SNAPSHOT:
    case HW_REQUEST_STATUS:
    case HW_REQUEST_KEY:
        break;
    }
    return hw_fail(err, HW_EMISUSE, "unknown request");
}

static enum hw_status ask_primary(struct hw_shim_file *file, struct hw_vfs_request *request,
                                  struct hw_error *err)
{
    struct hw_capture_status now;
    sqlite3 *reader = NULL;
    enum hw_status status;

    switch (request->kind) {
    case HW_REQUEST_STATUS:
        return primary_status(file, &request->text, err);
    case HW_REQUEST_KEY:
        hw_capture_status(file->capture, &now);
        return key_text(now.key, &request->text, err);
    case HW_REQUEST_SEQ:
    case HW_REQUEST_WAIT:
    case HW_REQUEST_SNAPSHOT:
    case HW_REQUEST_LABEL:
    case HW_REQUEST_PRUNE:
        break;
    }
    status = make_ready(file, request->timeout_ms, &reader, err);
    if (status == HW_OK)
        status = ask_worker(file, request, err);
    (void)sqlite3_close(reader); /* it has no statements: cannot be busy */
    return status;
}

static enum hw_status ask_replica(struct hw_shim_file *file, struct hw_vfs_request *request,
                                  struct hw_error *err)
{
    struct hw_replica_info info;
    enum hw_status status;

    switch (request->kind) {
    case HW_REQUEST_SEQ:
        return hw_shim_replica_seq(file, &request->seq, err);
    case HW_REQUEST_WAIT:
        return hw_shim_replica_wait(file, request->seq, request->timeout_ms, err);
    case HW_REQUEST_SNAPSHOT:
    case HW_REQUEST_LABEL:
    case HW_REQUEST_PRUNE:
        return hw_fail(err, HW_EREADONLY,
                       "this is a replica: its log is labelled and pruned at the primary");
    case HW_REQUEST_STATUS:
        return replica_status(file, &request->text, err);
    case HW_REQUEST_KEY:
        status = hw_replica_info(file->shim->env, file->path, &info, err);
        return status == HW_OK ? key_text(info.key, &request->text, err) : status;
    }
    return hw_fail(err, HW_EMISUSE, "unknown request");
}

static enum hw_status remote_status(const struct hw_cache_status *now, const char *path,
                                    char **text, struct hw_error *err)
{
    sqlite3_str *out = sqlite3_str_new(NULL);

    sqlite3_str_appendchar(out, 1, '{');
    add_string(out, "path", path);
    add_string(out, "role", "remote");
    add_string(out, "source", now->source);
    add_key(out, "key", now->key);
    sqlite3_str_appendf(out, "\"online\":%s,", now->is_online ? "true" : "false");
    add_string(out, "problem", now->problem);
    add_number(out, "length", now->length);
    add_seq(out, "seq", now->seq);
    add_number(out, "page_size", now->page_size);
    add_number(out, "pages", now->pages);
    add_number(out, "present_pages", now->pages_present);
    add_number(out, "present_bytes", now->pages_present * now->page_size);
    add_number(out, "received_bytes", now->bytes_received);
    sqlite3_str_appendf(out, "\"worker_pid\":%u", (unsigned)hw_env_pid(now->holder));
    return finish(out, HW_OK, text, err);
}

/* A database elsewhere, through its cache on this machine. */
static enum hw_status ask_remote(struct hw_shim_file *file, struct hw_vfs_request *request,
                                 struct hw_error *err)
{
    const struct hw_vfs_remotes *remotes = file->shim->remotes;
    struct hw_cache_status now;

    remotes->status(file->cache, &now);
    switch (request->kind) {
    case HW_REQUEST_SEQ:
        request->seq = now.seq;
        return HW_OK;
    case HW_REQUEST_WAIT:
        return remotes->wait(file->cache, request->seq, request->timeout_ms, err);
    case HW_REQUEST_STATUS:
        return remote_status(&now, remotes->path(file->cache), &request->text, err);
    case HW_REQUEST_KEY:
        return key_text(now.key, &request->text, err);
    case HW_REQUEST_SNAPSHOT:
    case HW_REQUEST_LABEL:
    case HW_REQUEST_PRUNE:
        break;
    }
    return hw_fail(err, HW_EREADONLY,
                   "this database is elsewhere: its log is labelled and pruned there");
}

int hw_shim_request(struct hw_shim_file *file, struct hw_vfs_request *request)
{
    struct hw_error *err = &request->error;
    enum hw_status status;

    if (file->role == HW_SHIM_PRIMARY)
        status = ask_primary(file, request, err);
    else if (file->role == HW_SHIM_REPLICA)
        status = ask_replica(file, request, err);
    else if (file->role == HW_SHIM_REMOTE)
        status = ask_remote(file, request, err);
    else
        status = hw_fail(err, HW_EREADONLY,
                         "this connection is read-only, immutable or without locks: it takes no "
                         "part in the log");
    return hw_vfs_code(status);
}
