/* Implements the network's part of include/hyperwal.h: nodes, identities, what a server says. */
#include <string.h>

#include "api_log.h"
#include "api_remote.h"
#include "base/alloc.h"
#include "hypercore/manifest.h"
#include "node/place.h"

enum { ASK_MS = 10000 };

int hw_api_told(char **error, enum hw_status status, const struct hw_error *err)
{
    if (status == HW_OK)
        return SQLITE_OK;
    hw_api_tell(error, err);
    return status == HW_EIO || status == HW_ENOTFOUND ? SQLITE_CANTOPEN : hw_api_code(status);
}

enum hw_status hw_api_node_open(const char *identity_file, struct hyperwal_node **out,
                                struct hw_error *err)
{
    struct hyperwal_node *node = NULL;
    enum hw_status status;

    if (!hw_sqlite_has_threads())
        return hw_fail(err, HW_EMISUSE, "this SQLite has no threads: no network");
    node = hw_zalloc(sizeof(*node));
    if (node == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a node");
    node->env = hw_env_posix();
    status = hw_hub_open_for_user(node->env, identity_file, &node->hub, err);
    if (status != HW_OK) {
        hw_free(node);
        return status;
    }
    *out = node;
    return HW_OK;
}

int hyperwal_node_open(const char *identity_file, hyperwal_node **node, char **error)
{
    struct hw_error err = {0};

    if (error != NULL)
        *error = NULL;
    if (node == NULL)
        return SQLITE_MISUSE;
    return hw_api_told(error, hw_api_node_open(identity_file, node, &err), &err);
}

void hyperwal_node_close(hyperwal_node *node)
{
    if (node == NULL)
        return;
    hw_hub_close(node->hub);
    hw_free(node);
}

static enum hw_status allow(struct hyperwal_node *node, const char *who, unsigned rights,
                            const char *names, struct hw_error *err)
{
    uint8_t key[HW_KEY_SIZE];

    if (strcmp(who, "any") == 0)
        return hw_hub_allow(node->hub, rights, names, NULL, err);
    if (!hw_key_parse(who, key))
        return hw_fail(err, HW_EMISUSE,
                       "%s: neither `any' nor a key (64 hex digits, or 52 of z-base-32); "
                       "`hyperwal key' prints one's own",
                       who);
    return hw_hub_allow(node->hub, rights, names, key, err);
}

int hyperwal_node_allow(hyperwal_node *node, const char *who, char **error)
{
    return hyperwal_node_grant(node, who, HYPERWAL_READ, "*", error);
}

int hyperwal_node_grant(hyperwal_node *node, const char *who, unsigned rights, const char *names,
                        char **error)
{
    struct hw_error err = {0};

    if (error != NULL)
        *error = NULL;
    if (node == NULL || who == NULL || names == NULL || (rights & ~(unsigned)HW_RIGHTS_ALL) != 0)
        return SQLITE_MISUSE;
    return hw_api_told(error, allow(node, who, rights, names, &err), &err);
}

int hyperwal_node_set_rules(hyperwal_node *node, const char *rules, char **error)
{
    struct hw_slice text = {(const uint8_t *)rules, rules != NULL ? strlen(rules) : 0};
    struct hw_error err = {0};

    if (error != NULL)
        *error = NULL;
    if (node == NULL || rules == NULL)
        return SQLITE_MISUSE;
    return hw_api_told(error, hw_hub_set_rules(node->hub, text, &err), &err);
}

int hyperwal_node_authorize(hyperwal_node *node, const char *path, char **error)
{
    struct hw_error err = {0};

    if (error != NULL)
        *error = NULL;
    if (node == NULL)
        return SQLITE_MISUSE;
    return hw_api_told(error, hw_hub_authorize(node->hub, path, &err), &err);
}

int hyperwal_node_reload(hyperwal_node *node, char **error)
{
    struct hw_error err = {0};

    if (error != NULL)
        *error = NULL;
    if (node == NULL)
        return SQLITE_MISUSE;
    return hw_api_told(error, hw_hub_reload_access(node->hub, &err), &err);
}

int hyperwal_node_listen(hyperwal_node *node, const char *url, char **bound, char **error)
{
    struct hw_error err = {0};
    char listen[HW_URL_MAX], at[HW_URL_MAX] = "";
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (bound != NULL)
        *bound = NULL;
    if (node == NULL || url == NULL)
        return SQLITE_MISUSE;
    status = hw_address_parse_listen(url, listen, &err);
    if (status == HW_OK)
        status = hw_hub_listen(node->hub, listen, at, &err);
    if (status == HW_OK && node->bound[0] == '\0')
        memcpy(node->bound, at, sizeof(node->bound));
    if (status == HW_OK && bound != NULL) {
        *bound = sqlite3_mprintf("%s", at);
        if (*bound == NULL)
            status = hw_fail(&err, HW_ENOMEM, "no memory for a URL");
    }
    return hw_api_told(error, status, &err);
}

/* Is `dir` the log that lies beside the database `src`, and of a primary? */
static enum hw_status take_writes(struct hyperwal_node *node, const char *name, const char *src,
                                  const char *dir, struct hw_error *err)
{
    char *beside = hw_format("%s-hyper", src);
    bool is_replica = false;
    enum hw_status status;

    if (beside == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory to serve %s", name);
    status = hw_api_has_file(node->env, dir, "replica", &is_replica, err);
    if (status == HW_OK && strcmp(beside, dir) == 0 && !is_replica &&
        hyperwal_register(0) == SQLITE_OK)
        status = hw_hub_take_writes(node->hub, name, src, "hyperwal", err);
    hw_free(beside);
    return status;
}

int hyperwal_node_serve(hyperwal_node *node, const char *name, const char *src, char **error)
{
    struct hw_error err = {0};
    char *dir = NULL;
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (node == NULL || name == NULL || src == NULL)
        return SQLITE_MISUSE;
    if (name[0] == '\0' || strlen(name) > HW_NAME_MAX)
        status = hw_fail(&err, HW_EMISUSE, "a name has 1 to %d bytes", (int)HW_NAME_MAX);
    else
        status = hw_api_log_dir(node->env, src, &dir, &err);
    if (status == HW_OK)
        status = hw_hub_serve(node->hub, name, dir, &err);
    if (status == HW_OK)
        status = take_writes(node, name, src, dir, &err);
    hw_free(dir);
    return hw_api_told(error, status, &err);
}

char *hyperwal_node_url(hyperwal_node *node, const char *name)
{
    char url[HW_URL_MAX] = "";

    if (node != NULL && name != NULL && node->bound[0] != '\0')
        hw_address_format(node->bound, name, url);
    return url[0] != '\0' ? sqlite3_mprintf("%s", url) : NULL;
}

void hyperwal_node_unserve(hyperwal_node *node, const char *name)
{
    hw_hub_unserve(node->hub, name);
}

int hyperwal_identity(const char *identity_file, unsigned char key[32], char **error)
{
    struct hw_error err = {0};
    struct hw_identity identity;
    enum hw_status status = hw_identity_load(hw_env_posix(), identity_file, &identity, &err);

    if (error != NULL)
        *error = NULL;
    if (status == HW_OK) {
        memcpy(key, identity.public_key, 32);
        memset(&identity, 0, sizeof(identity));
    }
    return hw_api_told(error, status, &err);
}

/* Of several addresses the first that answers. */
static enum hw_status ask(const struct hw_place *place, struct hw_buffer *text,
                          struct hw_error *err)
{
    struct hyperwal_node *node = NULL;
    enum hw_status status = hw_api_node_open(NULL, &node, err);

    if (status != HW_OK)
        return status;
    status = HW_ENOTFOUND;
    for (size_t i = 0; i < place->count && status != HW_OK; i++)
        status = hw_hub_ask(node->hub, &place->addresses[i], ASK_MS, text, NULL, err);
    hyperwal_node_close(node);
    return status;
}

int hyperwal_remote_status(const char *url, char **json, char **error)
{
    struct hw_error err = {0};
    struct hw_buffer text = {0};
    struct hw_place place = {0};
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (url == NULL || json == NULL)
        return SQLITE_MISUSE;
    *json = NULL;
    status = hw_place_find(hw_env_posix(), url, &place, &err);
    if (status == HW_OK && !place.is_remote)
        status = hw_fail(&err, HW_EMISUSE, "%s: not an address, and no petname with one%s", url,
                         place.hint);
    if (status == HW_OK)
        status = ask(&place, &text, &err);
    if (status == HW_OK) {
        *json = sqlite3_mprintf("%.*s", (int)text.size, (const char *)text.bytes);
        if (*json == NULL)
            status = hw_fail(&err, HW_ENOMEM, "no memory for a status");
    }
    hw_place_release(&place);
    hw_buffer_release(&text);
    return hw_api_told(error, status, &err);
}

/* ---------------------------------------------------------------------- new databases */

int hyperwal_node_on_create(hyperwal_node *node, void (*asked)(void *ctx), void *ctx)
{
    if (node == NULL)
        return SQLITE_MISUSE;
    return hw_api_code(hw_hub_on_create(node->hub, asked, ctx, NULL));
}

int hyperwal_node_creation(hyperwal_node *node, hyperwal_creation *creation)
{
    struct hw_hub_creation wish;

    if (node == NULL || creation == NULL)
        return SQLITE_MISUSE;
    if (hw_hub_creation_next(node->hub, &wish) != HW_OK)
        return SQLITE_DONE;
    *creation = (hyperwal_creation){.id = wish.id, .page_size = wish.page_size};
    memcpy(creation->name, wish.name, sizeof(wish.name));
    return SQLITE_OK;
}

void hyperwal_node_created(hyperwal_node *node, uint64_t id, const char *why)
{
    if (node != NULL)
        hw_hub_creation_done(node->hub, id, why);
}

int hyperwal_remote_create(const char *url, unsigned page_size, unsigned char key[32], char **error)
{
    struct hyperwal_node *node = NULL;
    struct hw_error err = {0};
    struct hw_address address;
    uint8_t made[HW_KEY_SIZE];
    enum hw_status status;

    if (error != NULL)
        *error = NULL;
    if (url == NULL)
        return SQLITE_MISUSE;
    status = hw_address_parse(url, &address, &err);
    if (status == HW_OK)
        status = hw_api_node_open(NULL, &node, &err);
    if (status == HW_OK)
        status = hw_hub_create(node->hub, &address, page_size, ASK_MS, made, &err);
    hyperwal_node_close(node);
    if (status == HW_OK && key != NULL)
        memcpy(key, made, sizeof(made));
    if (status == HW_EEXIST) {
        hw_api_tell(error, &err);
        return SQLITE_DONE;
    }
    return hw_api_told(error, status, &err);
}
