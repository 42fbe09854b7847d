/* Implements the part of include/hyperwal.h about names: petnames, and what servers call theirs. */
#include <string.h>

#include "api_log.h"
#include "api_remote.h"
#include "base/alloc.h"
#include "hypercore/manifest.h"
#include "node/known.h"
#include "node/names.h"
#include "node/place.h"

enum { ASK_MS = 10000 };

/* ------------------------------------------------------------------------------ petnames */

int hyperwal_name_add(const hyperwal_name *name, int replaces, char **error)
{
    struct hw_error err = {0};
    struct hw_names *names = NULL;
    struct hw_name entry = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (name == NULL || name->name == NULL || (name->url_count > 0 && name->urls == NULL))
        return SQLITE_MISUSE;
    entry.name = name->name;
    entry.has_key = name->has_key != 0;
    memcpy(entry.key, name->key, sizeof(entry.key));
    entry.path = name->path;
    entry.urls = name->urls;
    entry.url_count = name->url_count;
    status = hw_names_open(hw_env_posix(), NULL, true, &names, &err);
    if (status == HW_OK)
        status = hw_names_put(names, &entry, replaces != 0, &err);
    hw_names_close(names);
    if (status == HW_EEXIST) {
        hw_api_tell(error, &err);
        return SQLITE_CONSTRAINT;
    }
    return hw_api_told(error, status, &err);
}

int hyperwal_name_remove(const char *name, char **error)
{
    struct hw_error err = {0};
    struct hw_names *names = NULL;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (name == NULL)
        return SQLITE_MISUSE;
    status = hw_names_open(hw_env_posix(), NULL, false, &names, &err);
    if (status == HW_OK)
        status = hw_names_remove(names, name, &err);
    else if (status == HW_ENOTFOUND)
        hw_fail(&err, status, "%s: no such name", name);
    hw_names_close(names);
    return hw_api_told(error, status, &err);
}

struct teller {
    int (*each)(void *ctx, const hyperwal_name *name);
    void *ctx;
    const char *server; /* URL of a server; NULL: petnames */
};

static bool tell_name(void *ctx, const struct hw_name *name)
{
    const struct teller *teller = ctx;
    hyperwal_name entry = {.name = name->name,
                           .has_key = name->has_key,
                           .path = name->path,
                           .urls = name->urls,
                           .url_count = (unsigned)name->url_count};

    memcpy(entry.key, name->key, sizeof(entry.key));
    return teller->each(teller->ctx, &entry) != 0;
}

int hyperwal_name_list(int (*each)(void *ctx, const hyperwal_name *name), void *ctx, char **error)
{
    struct hw_error err = {0};
    struct hw_names *names = NULL;
    struct teller teller = {.each = each, .ctx = ctx};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (each == NULL)
        return SQLITE_MISUSE;
    status = hw_names_open(hw_env_posix(), NULL, false, &names, &err);
    if (status == HW_OK)
        status = hw_names_each(names, tell_name, &teller, &err);
    else if (status == HW_ENOTFOUND)
        status = HW_OK; /* nobody has given a name yet */
    hw_names_close(names);
    return hw_api_told(error, status, &err);
}

/* ------------------------------------------------------------------------------- servers */

static bool tell_served(void *ctx, const char *name, const uint8_t key[HW_KEY_SIZE])
{
    const struct teller *teller = ctx;
    char url[HW_URL_MAX];
    const char *urls[] = {url};
    hyperwal_name entry = {.name = name, .has_key = 1, .urls = urls};

    memcpy(entry.key, key, sizeof(entry.key));
    hw_address_format(teller->server, name, url);
    entry.url_count = url[0] != '\0';
    return teller->each(teller->ctx, &entry) != 0;
}

int hyperwal_remote_names(const char *url, int (*each)(void *ctx, const hyperwal_name *name),
                          void *ctx, char **error)
{
    struct hw_error err = {0};
    struct hyperwal_node *node = NULL;
    struct hw_address server;
    struct teller teller = {.each = each, .ctx = ctx, .server = server.dial};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (url == NULL || each == NULL)
        return SQLITE_MISUSE;
    status = hw_address_parse_server(url, &server, &err);
    if (status == HW_OK)
        status = hw_api_node_open(NULL, &node, &err);
    if (status == HW_OK)
        status = hw_hub_list(node->hub, &server, ASK_MS, tell_served, &teller, &err);
    hyperwal_node_close(node);
    return hw_api_told(error, status, &err);
}

int hyperwal_remote_key(const char *url, unsigned char key[32], char **error)
{
    struct hw_error err = {0};
    struct hyperwal_node *node = NULL;
    struct hw_address address;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (url == NULL || key == NULL)
        return SQLITE_MISUSE;
    status = hw_address_parse(url, &address, &err);
    if (status == HW_OK)
        status = hw_api_node_open(NULL, &node, &err);
    if (status == HW_OK)
        status = hw_hub_resolve(node->hub, &address, ASK_MS, key, &err);
    hyperwal_node_close(node);
    return hw_api_told(error, status, &err);
}

int hyperwal_key_parse(const char *text, unsigned char key[32])
{
    return text != NULL && key != NULL && hw_key_parse(text, key) ? SQLITE_OK : SQLITE_MISUSE;
}

int hyperwal_server_forget(const char *url, unsigned *count, char **error)
{
    struct hw_error err = {0};
    struct hw_env *env = hw_env_posix();
    struct hw_address server;
    char *path = NULL;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (url == NULL || count == NULL)
        return SQLITE_MISUSE;
    status = hw_address_parse_server(url, &server, &err);
    if (status != HW_OK && hw_address_parse(url, &server, NULL) == HW_OK)
        status = HW_OK; /* of one of its databases */
    if (status == HW_OK)
        status = hw_config_path("known_servers", "HYPERWAL_KNOWN_SERVERS", &path, &err);
    if (status == HW_OK)
        status = hw_known_forget(env, path, server.dial, count, &err);
    hw_free(path);
    return hw_api_told(error, status, &err);
}

/* --------------------------------------------------------------------------- what is SRC? */

int hyperwal_find(const char *src, char **where, int *is_remote, char **error)
{
    struct hw_error err = {0};
    struct hw_place place = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (src == NULL || where == NULL || is_remote == NULL)
        return SQLITE_MISUSE;
    status = hw_place_find(hw_env_posix(), src, &place, &err);
    if (status == HW_OK) {
        *where = sqlite3_mprintf("%s", place.is_remote ? place.urls[0] : place.path);
        *is_remote = place.is_remote;
        if (*where == NULL)
            status = hw_fail(&err, HW_ENOMEM, "no memory for a place");
    }
    hw_place_release(&place);
    return hw_api_told(error, status, &err);
}
