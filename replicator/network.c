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

int network_open(const struct network_wishes *wishes, hyperwal_node **node)
{
    char *error = NULL;
    int code = SQLITE_OK, result = DONE;

    *node = NULL;
    if (wishes->listen_count == 0)
        return DONE;
    code = hyperwal_node_open(NULL, node, &error);
    for (size_t i = 0; code == SQLITE_OK && i < wishes->allow_count; i++)
        code = hyperwal_node_allow(*node, wishes->allow[i], &error);
    for (size_t i = 0; code == SQLITE_OK && i < wishes->listen_count; i++)
        code = hyperwal_node_listen(*node, wishes->listen[i], NULL, &error);
    if (code != SQLITE_OK) {
        result = failure_code(code, error);
        hyperwal_node_close(*node);
        *node = NULL;
    }
    sqlite3_free(error);
    return result;
}
