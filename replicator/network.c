/* Implements network.h. */
#include "network.h"

#include "program.h"

static bool add(const char **list, size_t *count, size_t most, const char *value)
{
    if (*count == most)
        return false;
    list[(*count)++] = value;
    return true;
}

bool network_add_listen(struct network_wishes *wishes, const char *url)
{
    return add(wishes->listen, &wishes->listen_count, NETWORK_URLS_MAX, url);
}

bool network_add_allow(struct network_wishes *wishes, const char *who)
{
    return add(wishes->allow, &wishes->allow_count, NETWORK_ALLOW_MAX, who);
}

static int told(int code, char *error)
{
    int result = code == SQLITE_OK ? DONE : failure_code(code, error);

    sqlite3_free(error);
    return result;
}

int network_allow(hyperwal_node *node, const char *who)
{
    char *error = NULL;
    int code = hyperwal_node_allow(node, who, &error);

    return told(code, error);
}

int network_listen(hyperwal_node *node, const char *url)
{
    char *error = NULL;
    int code = hyperwal_node_listen(node, url, NULL, &error);

    return told(code, error);
}

static int node_open(const char *identity, hyperwal_node **node)
{
    char *error = NULL;
    int code = hyperwal_node_open(identity, node, &error);

    return told(code, error);
}

int network_open(const struct network_wishes *wishes, hyperwal_node **node)
{
    hyperwal_node *opened = NULL;
    int result;

    *node = NULL;
    if (wishes->listen_count == 0)
        return DONE;
    result = node_open(wishes->identity, &opened);
    for (size_t i = 0; result == DONE && i < wishes->allow_count; i++)
        result = network_allow(opened, wishes->allow[i]);
    for (size_t i = 0; result == DONE && i < wishes->listen_count; i++)
        result = network_listen(opened, wishes->listen[i]);
    if (result == DONE)
        *node = opened;
    else
        hyperwal_node_close(opened);
    return result;
}
