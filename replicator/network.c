/* Implements network.h. */
#include "network.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

bool network_add_allow_write(struct network_wishes *wishes, const char *who)
{
    return add(wishes->allow_write, &wishes->allow_write_count, NETWORK_ALLOW_MAX, who);
}

static int told(int code, char *error)
{
    int result = code == SQLITE_OK ? DONE : failure_code(code, error);

    sqlite3_free(error);
    return result;
}

/* The rules that the options say, as text from malloc(); NULL: no memory. */
static char *rules_text(const struct network_wishes *wishes)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < wishes->allow_count; i++)
        fprintf(out, "read * %s\n", wishes->allow[i]);
    for (size_t i = 0; i < wishes->allow_write_count; i++)
        fprintf(out, "write * %s\n", wishes->allow_write[i]);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* The library would name a line of the rules; here it is an option. */
static int check_key(const char *option, const char *who)
{
    size_t size = strlen(who);
    bool is_key = size == 52 || size == 64; /* of what characters, the library will say */

    for (const char *p = who; *p != '\0'; p++)
        is_key = is_key && isalnum((unsigned char)*p) != 0;
    if (is_key || strcmp(who, "any") == 0)
        return DONE;
    (void)failure("%s %s: neither `any' nor a key (64 hex digits, or 52 of z-base-32); `hyperwal "
                  "key' prints one's own",
                  option, who);
    return USAGE;
}

int network_allow(hyperwal_node *node, const struct network_wishes *wishes)
{
    char *error = NULL, *text;
    int code, result = DONE;

    for (size_t i = 0; i < wishes->allow_count && result == DONE; i++)
        result = check_key("--allow", wishes->allow[i]);
    for (size_t i = 0; i < wishes->allow_write_count && result == DONE; i++)
        result = check_key("--allow-write", wishes->allow_write[i]);
    if (result != DONE)
        return result;
    text = rules_text(wishes);
    if (text == NULL)
        return failure("no memory");
    code = hyperwal_node_set_rules(node, text, &error);
    free(text);
    return told(code, error);
}

int network_reload(hyperwal_node *node)
{
    char *error = NULL;
    int code = hyperwal_node_reload(node, &error);

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

static int authorize(hyperwal_node *node, const char *path)
{
    char *error = NULL;
    int code = hyperwal_node_authorize(node, path, &error);

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
    if (result == DONE)
        result = authorize(opened, wishes->authorized_keys);
    if (result == DONE && wishes->allow_count + wishes->allow_write_count > 0)
        result = network_allow(opened, wishes);
    for (size_t i = 0; result == DONE && i < wishes->listen_count; i++)
        result = network_listen(opened, wishes->listen[i]);
    if (result == DONE)
        *node = opened;
    else
        hyperwal_node_close(opened);
    return result;
}
