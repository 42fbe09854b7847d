/*
 * support/json.h - reads the JSON of tests/vectors
 *
 * A whole document becomes a tree of nodes.  A lookup that finds nothing fails the test, so that a
 * vector file that changed its shape cannot pass unread.
 */
#ifndef SUPPORT_JSON_H
#define SUPPORT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_kind kind;
    bool boolean;
    double number;
    uint64_t integer;   /* of a number without fraction or sign */
    char *text;         /* owned; of a string */
    char *name;         /* owned; of a member of an object */
    struct json *first; /* owned; of an array or object */
    struct json *next;
    size_t count; /* of an array or object */
};

/* tests/vectors/NAME; fails the test if it is not there or not JSON. */
#define json_load(name) json_load_file(HW_VECTORS "/" name)
struct json *json_load_file(const char *path);
/* The same for a file with one value a line: an array of them. */
#define json_load_lines(name) json_load_lines_file(HW_VECTORS "/" name)
struct json *json_load_lines_file(const char *path);
void json_free(struct json *json);

const struct json *json_get(const struct json *object, const char *name); /* must be there */
const struct json *json_find(const struct json *object,
                             const char *name); /* NULL: missing or null */
uint64_t json_integer(const struct json *object, const char *name);
const char *json_text(const struct json *object, const char *name);
bool json_bool(const struct json *object, const char *name);

/* Bytes of a hex string; owned by the caller (free). */
uint8_t *json_hex(const struct json *string, size_t *size);
/* Hex of exactly `size` bytes. */
void json_hex_fixed(const struct json *string, uint8_t *out, size_t size);

#endif
