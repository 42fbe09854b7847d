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
    const char *path;        /* behind host and port, borrowed: "" or from its slash on */
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

static bool is_host(const char *host, size_t size)
{
    bool is_ipv6 = size > 2 && host[0] == '[' && host[size - 1] == ']';

    if (size == 0 || size > HOST_MAX)
        return false;
    for (size_t i = is_ipv6 ? 1 : 0; i < size - (is_ipv6 ? 1 : 0); i++)
        if (!is_alphanumeric(host[i]) && !is_one_of(host[i], is_ipv6 ? ":.%" : ".-_"))
            return false;
    return true;
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
    const char *last_colon = NULL;

    for (const char *p = start; p < end; p++) {
        if (*p == ']')
            last_colon = NULL; /* those before it are of the address */
        else if (*p == ':')
            last_colon = p;
    }
    if (size > 0 && start[0] == '[' && end[-1] == ']')
        last_colon = NULL;
    out->port = HW_PORT_DEFAULT;
    if (last_colon != NULL) {
        host_end = last_colon;
        if (!parse_port(last_colon + 1, (size_t)(end - last_colon - 1), &out->port) ||
            (out->port == 0 && !is_listen))
            return hw_fail(err, HW_EMISUSE, "%s: a port is a number from 1 to 65535", url);
    }
    size = (size_t)(host_end - start);
    if (is_listen && (size == 0 || (size == 1 && *start == '*'))) {
        memcpy(out->host, "*", sizeof("*"));
        return HW_OK;
    }
    if (!is_host(start, size))
        return hw_fail(err, HW_EMISUSE,
                       "%s: no host; a name, an IPv4 address or an IPv6 address in brackets", url);
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
    path = strchr(rest, '/');
    out->path = path == NULL ? "" : path;
    return parse_authority(url, rest, path == NULL ? strlen(rest) : (size_t)(path - rest),
                           is_listen, out, err);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum hw_status decode_name(const char *url, const char *text, char out[HW_NAME_MAX + 1],
                                  struct hw_error *err)
{
    size_t size = 0;

    for (; *text != 0; text++) {
        char c = *text;

        if (is_one_of(c, "/?#"))
            return hw_fail(err, HW_EMISUSE, "%s: write / ? # of a name as %%2F %%3F %%23", url);
        if (c == '%') {
            int high = hex_digit(text[1]);
            int low = high < 0 ? -1 : hex_digit(text[2]);

            if (low < 0)
                return hw_fail(err, HW_EMISUSE, "%s: %% without two hex digits behind it", url);
            c = (char)(high << 4 | low);
            text += 2;
            if ((unsigned char)c < ' ' || c == 0x7f)
                return hw_fail(err, HW_EMISUSE, "%s: a name with a control character in it", url);
        }
        if (size == HW_NAME_MAX)
            return hw_fail(err, HW_EMISUSE, "%s: a name has at most %d bytes", url, HW_NAME_MAX);
        out[size++] = c;
    }
    out[size] = 0;
    if (size == 0)
        return hw_fail(err, HW_EMISUSE, "%s: behind the last / there is a name or a key", url);
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

enum hw_status hw_address_parse(const char *url, struct hw_address *out, struct hw_error *err)
{
    struct hw_address address = {.has_key = false};
    struct url parts;
    const char *slash;
    enum hw_status status;

    status = split(url, false, &parts, err);
    if (status != HW_OK)
        return status;
    slash = strrchr(parts.path, '/');
    if (slash == NULL || (parts.scheme == SCHEME_TCP && slash != parts.path))
        return hw_fail(err, HW_EMISUSE, "%s: behind the %s there is /NAME, and no more", url,
                       parts.scheme == SCHEME_IPC ? "socket" : "host");
    status = decode_name(url, slash + 1, address.name, err);
    if (status != HW_OK)
        return status;
    status = format_dial(url, &parts, parts.path, (size_t)(slash - parts.path), address.dial, err);
    if (status != HW_OK)
        return status;
    if (hw_key_parse(address.name, address.key)) {
        address.has_key = true;
        address.name[0] = 0;
    }
    *out = address;
    return HW_OK;
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

/* 127.0.0.0/8 in four numbers. */
static bool is_loopback_ipv4(const char *host)
{
    unsigned parts = 0, value = 0, digits = 0;

    if (strncmp(host, "127.", 4) != 0)
        return false;
    for (const char *p = host;; p++) {
        if (*p >= '0' && *p <= '9' && digits < 3) {
            value = 10 * value + (unsigned)(*p - '0');
            digits++;
            continue;
        }
        if (digits == 0 || value > 255 || (*p != '.' && *p != 0))
            return false;
        parts++;
        value = digits = 0;
        if (*p == 0)
            return parts == 4;
    }
}

bool hw_address_is_local(const char *listen_url)
{
    struct url parts;

    if (split(listen_url, true, &parts, NULL) != HW_OK)
        return false;
    return parts.scheme == SCHEME_IPC || strcmp(parts.host, "localhost") == 0 ||
           strcmp(parts.host, "[::1]") == 0 || is_loopback_ipv4(parts.host);
}

static bool is_wildcard(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "[::]") == 0;
}

void hw_address_format(const char *listen_url, const char *name, char out[HW_URL_MAX])
{
    static const char hex[] = "0123456789ABCDEF";
    const char *host;
    struct url parts;
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
    for (; size >= 0 && size < HW_URL_MAX - 3 && *name != 0; name++) {
        unsigned char c = (unsigned char)*name;

        if (c <= ' ' || c == 0x7f || is_one_of((char)c, "/?#%")) {
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
