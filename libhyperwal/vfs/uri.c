/* Implements vfs/uri.h. */
#include "vfs/uri.h"

#include <string.h>

#include "base/sqlite.h"
#include "env/peer_table.h"
#include "hypercore/manifest.h"

enum { TIMEOUT_DEFAULT_MS = 10000, REPLICAS_DEFAULT = 1, REPLICAS_MAX = HW_PEER_ROWS };

static const char *const durability_names[] = {
    [HW_DURABILITY_ASYNC] = "async",
    [HW_DURABILITY_LOCAL] = "local",
    [HW_DURABILITY_REMOTE] = "remote",
    [HW_DURABILITY_REMOTE_APPLY] = "remote_apply",
};

enum hw_status hw_number_parse(const char *text, uint64_t *out, struct hw_error *err)
{
    uint64_t value = 0;

    for (const char *p = text; *p != '\0'; p++) {
        unsigned digit = (unsigned)*p - '0';

        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return hw_fail(err, HW_EMISUSE, "'%s' is not a number (digits only)", text);
        value = value * 10 + digit;
    }
    if (*text == '\0')
        return hw_fail(err, HW_EMISUSE, "a number is missing");
    *out = value;
    return HW_OK;
}

const char *hw_durability_name(enum hw_durability durability)
{
    return durability_names[durability];
}

enum hw_status hw_durability_parse(const char *text, enum hw_durability *out, struct hw_error *err)
{
    for (unsigned i = 0; i < sizeof(durability_names) / sizeof(durability_names[0]); i++) {
        if (sqlite3_stricmp(text, durability_names[i]) == 0) {
            *out = (enum hw_durability)i;
            return HW_OK;
        }
    }
    return hw_fail(err, HW_EMISUSE,
                   "unknown durability '%s': use async, local, remote or remote_apply", text);
}

enum hw_status hw_durability_check(enum hw_durability durability, uint64_t replicas,
                                   struct hw_error *err)
{
    if (durability >= HW_DURABILITY_REMOTE && replicas == 0)
        return hw_fail(err, HW_EMISUSE,
                       "durability=%s with replicas=0 waits for nobody: use durability=local, or "
                       "replicas=1 to %d",
                       hw_durability_name(durability), REPLICAS_MAX);
    return HW_OK;
}

/* One of two words; HW_END: the parameter is not there. */
static enum hw_status choose(const char *name, const char *parameter, const char *no,
                             const char *yes, bool *out, struct hw_error *err)
{
    const char *value = sqlite3_uri_parameter(name, parameter);

    if (value == NULL)
        return HW_END;
    if (sqlite3_stricmp(value, yes) == 0)
        *out = true;
    else if (sqlite3_stricmp(value, no) == 0)
        *out = false;
    else
        return hw_fail(err, HW_EMISUSE, "URI parameter %s: unknown value '%s': use %s or %s",
                       parameter, value, no, yes);
    return HW_OK;
}

static enum hw_status number(const char *name, const char *parameter, uint64_t max, uint64_t *out,
                             struct hw_error *err)
{
    const char *value = sqlite3_uri_parameter(name, parameter);
    enum hw_status status;

    if (value == NULL)
        return HW_END;
    status = hw_number_parse(value, out, err);
    if (status == HW_OK && *out > max)
        status = hw_fail(err, HW_EMISUSE, "'%s' is above the limit of %llu", value,
                         (unsigned long long)max);
    return status == HW_OK ? HW_OK : hw_prefix(err, status, "URI parameter %s", parameter);
}

/* Which state of the past is asked for, if one is. */
static enum hw_status parse_past(const char *name, struct hw_uri *uri, struct hw_error *err)
{
    const char *time = sqlite3_uri_parameter(name, "time");
    const char *label = sqlite3_uri_parameter(name, "label");
    enum hw_status status = number(name, "seq", UINT64_MAX - 1, &uri->target.seq, err);
    bool seq = status == HW_OK;

    if (status < 0)
        return status;
    if ((int)seq + (time != NULL) + (label != NULL) > 1)
        return hw_fail(err, HW_EMISUSE, "URI parameters seq, time and label exclude each other");
    uri->past = seq || time != NULL || label != NULL;
    if (seq) {
        uri->target.kind = HW_TARGET_SEQ;
    } else if (time != NULL) {
        uri->target.kind = HW_TARGET_TIME;
        status = hw_time_parse(time, &uri->target.time_ms, err);
        if (status != HW_OK)
            return hw_prefix(err, status, "URI parameter time");
    } else if (label != NULL) {
        if (*label == '\0')
            return hw_fail(err, HW_EMISUSE, "URI parameter label: a name is missing");
        uri->target.kind = HW_TARGET_LABEL;
        uri->target.label = label;
    }
    return HW_OK;
}

/* Only a log that grows here can be served from here. */
static enum hw_status parse_listen(const char *name, struct hw_uri *uri, struct hw_error *err)
{
    const char *why = NULL;

    uri->listen = sqlite3_uri_parameter(name, "listen");
    uri->access = sqlite3_uri_parameter(name, "access");
    if (uri->access != NULL && *uri->access == '\0')
        return hw_fail(err, HW_EMISUSE, "URI parameter access: the name of a file is missing");
    if (uri->access != NULL && uri->listen == NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter access: '%s': it says who may write what listen=URL serves",
                       uri->access);
    if (uri->listen == NULL)
        return HW_OK;
    if (*uri->listen == '\0')
        why = "a URL is missing";
    else if (uri->past)
        why = "a state of the past has no followers: leave seq, time or label out";
    else if (uri->pass_through)
        why = "with immutable or nolock there is no log to serve";
    if (why != NULL)
        return hw_fail(err, HW_EMISUSE, "URI parameter listen: '%s': %s", uri->listen, why);
    return HW_OK;
}

/* What only a remote database has, and what it has not. */
static enum hw_status parse_remote(const char *name, struct hw_uri *uri, struct hw_error *err)
{
    static const char *const local[] = {"log",        "storage",    "listen",
                                        "access",     "durability", "replicas",
                                        "on_timeout", "immutable",  "nolock"};
    const char *server = sqlite3_uri_parameter(name, "server");
    enum hw_status status = number(name, "cache_max", INT64_MAX, &uri->cache_max, err);

    uri->has_server = server != NULL;
    if (uri->has_server && !hw_key_parse(server, uri->server))
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter server: '%.80s' is no key, which has 64 hex digits or 52 "
                       "characters of z-base-32",
                       server);
    if (status >= 0)
        status = choose(name, "hydrate", "0", "1", &uri->hydrate, err);
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]) && uri->refused == NULL; i++) {
        if (sqlite3_uri_parameter(name, local[i]) != NULL)
            uri->refused = local[i];
    }
    return status < 0 ? status : HW_OK;
}

enum hw_status hw_uri_parse(const char *name, struct hw_uri *out, struct hw_error *err)
{
    struct hw_uri uri = {.timeout_ms = TIMEOUT_DEFAULT_MS, .replicas = REPLICAS_DEFAULT};
    const char *durability = sqlite3_uri_parameter(name, "durability");
    enum hw_status status;

    uri.log_dir = sqlite3_uri_parameter(name, "log");
    if (uri.log_dir != NULL && *uri.log_dir == '\0')
        return hw_fail(err, HW_EMISUSE, "URI parameter log: the name of a directory is missing");
    status = choose(name, "storage", "file", "memory", &uri.memory, err);
    if (status >= 0)
        status = choose(name, "on_timeout", "error", "continue", &uri.continue_on_timeout, err);
    if (status >= 0)
        status = number(name, "timeout", UINT32_MAX, &uri.timeout_ms, err);
    if (status >= 0)
        status = number(name, "replicas", REPLICAS_MAX, &uri.replicas, err);
    if (status >= 0)
        status = parse_past(name, &uri, err);
    if (status < 0)
        return status;
    if (uri.memory && uri.log_dir != NULL)
        return hw_fail(err, HW_EMISUSE,
                       "URI parameter log: '%s': with storage=memory the log is in memory, too: "
                       "leave one of the two out",
                       uri.log_dir);
    if (durability != NULL) {
        status = hw_durability_parse(durability, &uri.durability, err);
        if (status == HW_OK)
            status = hw_durability_check(uri.durability, uri.replicas, err);
        if (status != HW_OK)
            return hw_prefix(err, status, "URI parameter durability");
    }
    uri.pass_through = sqlite3_uri_boolean(name, "immutable", 0) != 0 ||
                       sqlite3_uri_boolean(name, "nolock", 0) != 0;
    status = parse_listen(name, &uri, err);
    if (status == HW_OK)
        status = parse_remote(name, &uri, err);
    if (status != HW_OK)
        return status;
    *out = uri;
    return HW_OK;
}
