/* Implements wire/address.h. */
#include "wire/address.h"

#include <stdio.h>
#include <string.h>

#include "hypercore/manifest.h"

enum { SOCKET_PATH_MAX = 107, HOST_MAX = 253, PORT_DIGITS_MAX = 5 };

enum scheme { SCHEME_TCP, SCHEME_WS, SCHEME_IPC };
static const struct {
    const char *prefix;
    enum scheme scheme;
} schemes[] = {
    {"hyper://", SCHEME_TCP},
    {"tcp://", SCHEME_TCP},
    {"ws://", SCHEME_WS},
    {"ipc://", SCHEME_IPC},
};

struct url {
    enum scheme scheme;
    char host[HOST_MAX + 1]; /* with the brackets of an IPv6 address; "" for ipc */
    unsigned port;           /* HW_PORT_DEFAULT if none is named */
    const char *path;        /* behind host and port, borrowed: "" or from its / or ? on */
};

/* The scheme, and where the rest begins; NULL: it is none of ours. */
static const char *find_scheme(const char *src, enum scheme *out)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t size = strlen(schemes[i].prefix);

        if (strncmp(src, schemes[i].prefix, size) == 0) {
            *out = schemes[i].scheme;
            return src + size;
        }
    }
    return NULL;
}

bool hw_address_is_remote(const char *src)
{
    enum scheme scheme;
    const char *rest = find_scheme(src, &scheme);

    if (rest == NULL)
        return false;
    return scheme == SCHEME_IPC || *rest != '/'; /* hyper:///PATH is a file of this machine */
}

static bool is_one_of(char c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

static bool is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four decimal numbers. */
static bool is_ipv4(const char *text, size_t size)
{
    unsigned parts = 0, value = 0, digits = 0;

    for (size_t i = 0; i <= size; i++) {
        if (i < size && text[i] >= '0' && text[i] <= '9' && digits < 3) {
            value = 10 * value + (unsigned)(text[i] - '0');
            digits++;
            continue;
        }
        if (digits == 0 || value > 255 || (i < size && text[i] != '.'))
            return false;
        parts++;
        value = digits = 0;
    }
    return parts == 4;
}

/* Eight groups of hex digits, of which one :: stands for some; IPv4 for the last two; %ZONE. */
static bool is_ipv6(const char *text, size_t size)
{
    const char *zone = memchr(text, '%', size);
    size_t end = zone != NULL ? (size_t)(zone - text) : size, at = 0;
    unsigned groups = 0;
    bool has_gap = false;

    if (end + 1 == size)
        return false; /* a zone of no characters */
    for (size_t i = end + 1; i < size; i++)
        if (!is_alphanumeric(text[i]) && !is_one_of(text[i], ".-_"))
            return false;
    while (at < end) {
        size_t digits = 0;

        if (end - at >= 2 && text[at] == ':' && text[at + 1] == ':') {
            if (has_gap)
                return false;
            has_gap = true;
            at += 2;
            continue;
        }
        if (at > 0 && text[at - 1] != ':') {
            if (text[at] != ':')
                return false;
            at++;
        }
        if (is_ipv4(text + at, end - at)) {
            groups += 2;
            break;
        }
        while (at + digits < end && hex_digit(text[at + digits]) >= 0)
            digits++;
        if (digits == 0 || digits > 4)
            return false;
        at += digits;
        groups++;
    }
    return has_gap ? groups < 8 : groups == 8;
}

/* Why this is no host; NULL: it is one. */
static const char *host_problem(const char *host, size_t size)
{
    size_t colons = 0;

    if (size == 0)
        return "no host is named";
    if (size > HOST_MAX)
        return "a host of more than 253 characters";
    if (host[0] == '[' || host[size - 1] == ']') {
        if (host[0] != '[' || host[size - 1] != ']')
            return "a bracket without the other one";
        return is_ipv6(host + 1, size - 2) ? NULL : "no IPv6 address in the brackets";
    }
    for (size_t i = 0; i < size; i++) {
        colons += host[i] == ':';
        if (host[i] == '@')
            return "no user is named: keys say who one is";
        if (!is_alphanumeric(host[i]) && !is_one_of(host[i], ".-_:"))
            return "no host: a name, an IPv4 address or an IPv6 address in brackets";
        if (host[i] == '.' && (i == 0 || host[i - 1] == '.'))
            return "a host with a dot too many";
    }
    return colons > 0 ? "an IPv6 address is written in brackets" : NULL;
}

static bool parse_port(const char *digits, size_t size, unsigned *out)
{
    unsigned port = 0;

    if (size == 0 || size > PORT_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        port = 10 * port + (unsigned)(digits[i] - '0');
    }
    *out = port;
    return port <= 65535;
}

/* HOST[:PORT]; one who listens may say "*" or nothing for all that this machine has. */
static enum hw_status parse_authority(const char *url, const char *start, size_t size,
                                      bool is_listen, struct url *out, struct hw_error *err)
{
    const char *end = start + size, *host_end = end;
    const char *last_colon = NULL, *problem;

    for (const char *p = start; p < end; p++) {
        if (*p == ']')
            last_colon = NULL; /* those before it are of the address */
        else if (*p == ':')
            last_colon = p;
    }
    if (size > 0 && start[0] == '[' && (end[-1] == ']' || memchr(start, ']', size) == NULL))
        last_colon = NULL;
    out->port = HW_PORT_DEFAULT;
    if (last_colon != NULL) {
        host_end = last_colon;
        if (!parse_port(last_colon + 1, (size_t)(end - last_colon - 1), &out->port) ||
            (out->port == 0 && !is_listen)) {
            if (memchr(start, ':', (size_t)(last_colon - start)) != NULL && start[0] != '[')
                return hw_fail(err, HW_EMISUSE, "%s: an IPv6 address is written in brackets", url);
            return hw_fail(err, HW_EMISUSE, "%s: a port is a number from 1 to 65535", url);
        }
    }
    size = (size_t)(host_end - start);
    if (is_listen && (size == 0 || (size == 1 && *start == '*'))) {
        memcpy(out->host, "*", sizeof("*"));
        return HW_OK;
    }
    problem = host_problem(start, size);
    if (problem != NULL)
        return hw_fail(err, HW_EMISUSE, "%s: %s", url, problem);
    memcpy(out->host, start, size);
    out->host[size] = 0;
    return HW_OK;
}

static enum hw_status split(const char *url, bool is_listen, struct url *out, struct hw_error *err)
{
    const char *rest = find_scheme(url, &out->scheme);
    const char *path;

    if (rest == NULL)
        return hw_fail(err, HW_EMISUSE,
                       "%.200s: not an address: it begins with hyper://, tcp://, ws:// or ipc://",
                       url);
    if (strlen(url) >= HW_URL_MAX)
        return hw_fail(err, HW_EMISUSE, "%.100s...: an address of more than %d bytes", url,
                       HW_URL_MAX - 1);
    for (const char *p = url; *p != 0; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return hw_fail(err, HW_EMISUSE, "an address with a control character in it");
    if (out->scheme == SCHEME_IPC) {
        out->host[0] = 0;
        out->port = 0;
        out->path = rest;
        return HW_OK;
    }
    path = rest + strcspn(rest, "/?");
    out->path = path;
    return parse_authority(url, rest, (size_t)(path - rest), is_listen, out, err);
}

/* Why this is no name: characters that end one, or that mean something else; NULL: it is one. */
static const char *name_problem(const char *text, size_t size, bool has_folders)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '/' && !has_folders)
            return "write / of a name as %2F";
        if (text[i] == '/' && (i == 0 || i + 1 == size || text[i - 1] == '/'))
            return "around each / of a name there is something";
        if (text[i] == '#')
            return "write # of a name as %23";
        if (text[i] == '%' &&
            (size - i < 3 || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0))
            return "% without two hex digits behind it; write % itself as %25";
    }
    return NULL;
}

/* Does it look like a key that lost or gained some of its characters? */
static enum hw_status check_key_size(const char *url, const char *text, size_t size,
                                     struct hw_error *err)
{
    enum { HEX = 2 * HW_KEY_SIZE, NEAR = 8, BASE_32 = 52 };
    size_t hex = 0, base_32 = 0;

    while (hex < size && hex_digit(text[hex]) >= 0)
        hex++;
    while (base_32 < size && is_one_of(text[base_32], "ybndrfg8ejkmcpqxot1uwisza345h769"))
        base_32++;
    if (hex == size && size != HEX && size >= HEX - NEAR && size <= HEX + NEAR)
        return hw_fail(err, HW_EMISUSE,
                       "%s: %zu hex digits are no key, which has 64; if it is a name all the same, "
                       "write one of them as %%XX",
                       url, size);
    if (base_32 == size && (size == BASE_32 - 1 || size == BASE_32 + 1))
        return hw_fail(err, HW_EMISUSE,
                       "%s: %zu characters of z-base-32 are no key, which has 52; if it is a name "
                       "all the same, write one of them as %%XX",
                       url, size);
    return HW_OK;
}

static enum hw_status decode_name(const char *url, const char *text, size_t size, bool has_folders,
                                  char out[HW_NAME_MAX + 1], struct hw_error *err)
{
    const char *problem = name_problem(text, size, has_folders);
    size_t used = 0;

    if (size == 0)
        return hw_fail(err, HW_EMISUSE, "%s: behind the last / there is a name or a key", url);
    if (problem != NULL)
        return hw_fail(err, HW_EMISUSE, "%s: %s", url, problem);
    for (size_t i = 0; i < size; i++) {
        char c = text[i];

        if (c == '%') {
            c = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
            if ((unsigned char)c < ' ' || c == 0x7f)
                return hw_fail(err, HW_EMISUSE, "%s: a name with a control character in it", url);
        }
        if (used == HW_NAME_MAX)
            return hw_fail(err, HW_EMISUSE, "%s: a name has at most %d bytes", url, HW_NAME_MAX);
        out[used++] = c;
    }
    out[used] = 0;
    return check_key_size(url, text, size, err);
}

/* What follows the name, from its ? on, or nothing. */
static enum hw_status parse_query(const char *url, const char *query, struct hw_address *out,
                                  struct hw_error *err)
{
    static const char server[] = "?server=";

    if (*query == 0)
        return HW_OK;
    if (strncmp(query, server, sizeof(server) - 1) != 0)
        return hw_fail(err, HW_EMISUSE,
                       "%s: an address has one parameter, ?server=KEY; write ? of a name as %%3F, "
                       "and give parameters of SQLite in a file: URI",
                       url);
    if (!hw_key_parse(query + sizeof(server) - 1, out->server))
        return hw_fail(err, HW_EMISUSE,
                       "%s: server= wants a key, 64 hex digits or 52 characters of z-base-32", url);
    out->has_server = true;
    return HW_OK;
}

/* Where to connect, from the parts; `path` is what the transport needs of it. */
static enum hw_status format_dial(const char *url, const struct url *parts, const char *path,
                                  size_t path_size, char out[HW_URL_MAX], struct hw_error *err)
{
    int size;

    if (parts->scheme == SCHEME_IPC) {
        if (path_size == 0 || path_size > SOCKET_PATH_MAX || path[path_size - 1] == '/')
            return hw_fail(err, HW_EMISUSE, "%s: the path of a socket has 1 to %d bytes", url,
                           SOCKET_PATH_MAX);
        size = snprintf(out, HW_URL_MAX, "ipc://%.*s", (int)path_size, path);
    } else if (parts->scheme == SCHEME_WS) {
        while (path_size > 0 && path[path_size - 1] == '/')
            path_size--; /* both sides must spell it the same */
        size = snprintf(out, HW_URL_MAX, "ws://%s:%u%.*s", parts->host, parts->port,
                        path_size == 0 ? 1 : (int)path_size, path_size == 0 ? "/" : path);
    } else {
        size = snprintf(out, HW_URL_MAX, "tcp://%s:%u", parts->host, parts->port);
    }
    if (size < 0 || size >= HW_URL_MAX)
        return hw_fail(err, HW_EMISUSE, "%s: an address of more than %d bytes", url,
                       HW_URL_MAX - 1);
    return HW_OK;
}

/* Where the ? of a parameter is, or the end: a name has none, a path before it may. */
static const char *find_query(const struct url *parts)
{
    const char *slash = strrchr(parts->path, '/');
    const char *first = strchr(parts->path, '?'), *query;

    if (parts->scheme == SCHEME_TCP || slash == NULL)
        query = first;
    else
        query = strchr(slash, '?');
    return query != NULL ? query : parts->path + strlen(parts->path);
}

enum hw_status hw_address_parse(const char *url, struct hw_address *out, struct hw_error *err)
{
    struct hw_address address = {.has_key = false};
    struct url parts;
    const char *query, *name;
    enum hw_status status;

    status = split(url, false, &parts, err);
    if (status != HW_OK)
        return status;
    query = find_query(&parts);
    for (name = query; name > parts.path && name[-1] != '/';)
        name--;
    if (parts.scheme == SCHEME_TCP && parts.path < query)
        name = parts.path + 1; /* it may be in folders */
    if (name == parts.path)
        return hw_fail(err, HW_EMISUSE, "%s: behind the %s there is /NAME", url,
                       parts.scheme == SCHEME_IPC ? "socket" : "host");
    status = decode_name(url, name, (size_t)(query - name), parts.scheme == SCHEME_TCP,
                         address.name, err);
    if (status == HW_OK)
        status = parse_query(url, query, &address, err);
    if (status == HW_OK)
        status = format_dial(url, &parts, parts.path, (size_t)(name - 1 - parts.path), address.dial,
                             err);
    if (status != HW_OK)
        return status;
    if (hw_key_parse(address.name, address.key)) {
        address.has_key = true;
        address.name[0] = 0;
    }
    *out = address;
    return HW_OK;
}

enum hw_status hw_address_parse_server(const char *url, struct hw_address *out,
                                       struct hw_error *err)
{
    struct hw_address address = {.has_key = false};
    struct url parts;
    const char *query;
    size_t path_size;
    enum hw_status status = split(url, false, &parts, err);

    if (status != HW_OK)
        return status;
    query = find_query(&parts);
    path_size = (size_t)(query - parts.path);
    if (parts.scheme == SCHEME_TCP && path_size > 1)
        return hw_fail(err, HW_EMISUSE, "%s: a server is named without one of its databases", url);
    status = parse_query(url, query, &address, err);
    if (status == HW_OK)
        status = format_dial(url, &parts, parts.path, path_size, address.dial, err);
    if (status == HW_OK)
        *out = address;
    return status;
}

enum hw_status hw_address_parse_listen(const char *url, char out[HW_URL_MAX], struct hw_error *err)
{
    struct url parts;
    size_t path_size;
    enum hw_status status;

    status = split(url, true, &parts, err);
    if (status != HW_OK)
        return status;
    path_size = strlen(parts.path);
    if (parts.scheme == SCHEME_TCP && strspn(parts.path, "/") < path_size)
        return hw_fail(err, HW_EMISUSE, "%s: to listen, say no name: it is that of each database",
                       url);
    return format_dial(url, &parts, parts.path, path_size, out, err);
}

bool hw_address_is_socket(const char *url)
{
    enum scheme scheme;

    return find_scheme(url, &scheme) != NULL && scheme == SCHEME_IPC;
}

bool hw_address_is_local(const char *listen_url)
{
    struct url parts;

    if (split(listen_url, true, &parts, NULL) != HW_OK)
        return false;
    return parts.scheme == SCHEME_IPC || strcmp(parts.host, "localhost") == 0 ||
           strcmp(parts.host, "[::1]") == 0 ||
           (strncmp(parts.host, "127.", 4) == 0 && is_ipv4(parts.host, strlen(parts.host)));
}

static bool is_wildcard(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0;
}

/* Each / has something on both sides, so that it need not be written as %2F. */
static bool has_plain_folders(const char *name)
{
    size_t size = strlen(name);

    return size > 0 && name[0] != '/' && name[size - 1] != '/' && strstr(name, "//") == NULL;
}

void hw_address_format(const char *listen_url, const char *name, char out[HW_URL_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    const char *host, *start = name;
    struct url parts;
    bool has_folders, is_like_key;
    int size;

    out[0] = 0;
    if (split(listen_url, true, &parts, NULL) != HW_OK)
        return;
    host = is_wildcard(parts.host) ? "127.0.0.1" : parts.host;
    if (parts.scheme == SCHEME_IPC)
        size = snprintf(out, HW_URL_MAX, "ipc://%s/", parts.path);
    else if (parts.scheme == SCHEME_WS)
        size = snprintf(out, HW_URL_MAX, "ws://%s:%u%s%s", host, parts.port, parts.path,
                        parts.path[0] != 0 && parts.path[strlen(parts.path) - 1] == '/' ? "" : "/");
    else
        size = snprintf(out, HW_URL_MAX, "hyper://%s:%u/", host, parts.port);
    has_folders = parts.scheme == SCHEME_TCP && has_plain_folders(name);
    is_like_key = check_key_size(name, name, strlen(name), NULL) != HW_OK;
    for (; size >= 0 && size < HW_URL_MAX - 3 && *name != 0; name++) {
        unsigned char c = (unsigned char)*name;

        if (c <= ' ' || c == 0x7f || is_one_of((char)c, "?#%") || (c == '/' && !has_folders) ||
            (is_like_key && name == start)) {
            out[size++] = '%';
            out[size++] = hex[c >> 4];
            c = (unsigned char)hex[c & 15];
        }
        out[size++] = (char)c;
    }
    if (size < 0 || size >= HW_URL_MAX || *name != 0)
        size = 0; /* rather nothing than something else */
    out[size] = 0;
}
