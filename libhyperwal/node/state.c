/* What a server says of one of its databases: one JSON object. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "node/hub_internal.h"

static void add(struct hw_buffer *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add(struct hw_buffer *out, const char *format, ...)
{
    char text[512];
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (size > 0)
        hw_buffer_add(out, text, (size_t)size < sizeof(text) ? (size_t)size : sizeof(text) - 1);
}

static void add_string(struct hw_buffer *out, struct hw_slice text)
{
    hw_buffer_add_u8(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.bytes[i];

        if (c < 0x20 || c == '"' || c == '\\')
            add(out, "\\u%04x", c);
        else
            hw_buffer_add_u8(out, c);
    }
    hw_buffer_add_u8(out, '"');
}

static void add_peer(struct hw_buffer *out, const struct hub_link *link)
{
    const struct hw_link *wire = hw_peer_link_of(link->conn->peer, link->log->replication);
    const uint8_t *key = hw_peer_remote_key(link->conn->peer);
    struct hw_link_status status = {0};
    char text[2 * HW_KEY_SIZE + 1] = "";

    if (wire != NULL)
        hw_link_status(wire, &status);
    if (key != NULL)
        hw_key_format(key, text);
    add(out, "{\"address\":");
    add_string(
        out, (struct hw_slice){(const uint8_t *)link->conn->address, strlen(link->conn->address)});
    add(out, ",\"key\":\"%s\",\"length\":%llu", text, (unsigned long long)status.remote_length);
    if (link->has_ack)
        add(out, ",\"received\":%llu,\"durable\":%llu,\"applied\":%llu",
            (unsigned long long)link->ack.received, (unsigned long long)link->ack.durable,
            (unsigned long long)link->ack.applied);
    add(out, "}");
}

void state_write(struct hub_log *log, struct hw_slice name, bool with_peers, struct hw_buffer *out)
{
    const struct hw_core_identity *identity = hw_core_identity(log->core);
    struct hw_core_head head = hw_core_head(log->core);
    char key[2 * HW_KEY_SIZE + 1], discovery[2 * HW_KEY_SIZE + 1];
    size_t began = out->size;
    const char *comma = "";

    hw_key_format(identity->key, key);
    hw_key_format(identity->discovery_key, discovery);
    add(out, "{\"name\":");
    add_string(out, name);
    add(out,
        ",\"role\":\"%s\",\"key\":\"%s\",\"discovery_key\":\"%s\",\"length\":%llu,"
        "\"byte_length\":%llu,\"fork\":%llu,\"first_kept\":%llu",
        hw_core_is_mirror(log->core) ? "mirror" : "primary", key, discovery,
        (unsigned long long)head.length, (unsigned long long)head.byte_length,
        (unsigned long long)head.fork, (unsigned long long)hw_core_first_kept(log->core));
    if (head.length != 0)
        add(out, ",\"seq\":%llu", (unsigned long long)head.length - 1);
    add(out, ",\"peers\":[");
    for (const struct hub_link *l = with_peers ? log->links : NULL; l != NULL; l = l->next_of_log) {
        if (out->size - began > HW_STATE_TEXT_MAX - 1024)
            break; /* the message has a limit; the count tells */
        add(out, "%s", comma);
        add_peer(out, l);
        comma = ",";
    }
    add(out, "],\"peer_count\":%u}", log->link_count);
}
