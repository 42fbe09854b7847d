/* Implements support/json.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/json.h"

struct parser {
    const char *name; /* of the file */
    const char *start, *next;
};

static struct json *parse_value(struct parser *parser);

static void bad(const struct parser *parser, const char *what)
{
    fail_msg("%s: %s at byte %ld", parser->name, what, (long)(parser->next - parser->start));
}

static void skip_blank(struct parser *parser)
{
    while (*parser->next != '\0' && strchr(" \t\r\n", *parser->next) != NULL)
        parser->next++;
}

static bool skip_if(struct parser *parser, char c)
{
    skip_blank(parser);
    if (*parser->next != c)
        return false;
    parser->next++;
    return true;
}

static size_t put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* Bytes that the string which goes on here needs at most, and a zero. */
static size_t string_room(const char *text)
{
    size_t size = 0;

    while (text[size] != '\0' && text[size] != '"')
        size += text[size] == '\\' && text[size + 1] != '\0' ? 2 : 1;
    return size + 1;
}

static char *parse_string(struct parser *parser)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char *text, *out;

    if (!skip_if(parser, '"'))
        bad(parser, "no string");
    text = out = malloc(string_room(parser->next));
    while (*parser->next != '"') {
        const char *escape;

        if (*parser->next == '\0')
            bad(parser, "string without end");
        if (*parser->next != '\\') {
            *out++ = *parser->next++;
            continue;
        }
        parser->next++;
        if (*parser->next == 'u') {
            char digits[5] = {0};

            memcpy(digits, parser->next + 1, 4);
            out += put_utf8(out, (unsigned)strtoul(digits, NULL, 16));
            parser->next += 5;
            continue;
        }
        escape = strchr(escapes, *parser->next);
        if (escape == NULL)
            bad(parser, "unknown escape");
        *out++ = meanings[escape - escapes];
        parser->next++;
    }
    parser->next++;
    *out = '\0';
    return realloc(text, (size_t)(out - text) + 1);
}

static void parse_members(struct parser *parser, struct json *json, char end)
{
    struct json **link = &json->first;

    if (skip_if(parser, end))
        return;
    do {
        char *name = json->kind == JSON_OBJECT ? parse_string(parser) : NULL;

        if (name != NULL && !skip_if(parser, ':'))
            bad(parser, "no colon");
        *link = parse_value(parser);
        (*link)->name = name;
        link = &(*link)->next;
        json->count++;
    } while (skip_if(parser, ','));
    if (!skip_if(parser, end))
        bad(parser, "array or object without end");
}

static void parse_number(struct parser *parser, struct json *json)
{
    char *end;

    json->kind = JSON_NUMBER;
    json->number = strtod(parser->next, &end);
    if (end == parser->next)
        bad(parser, "no value");
    if (*parser->next != '-')
        json->integer = strtoull(parser->next, NULL, 10);
    parser->next = end;
}

static bool skip_word(struct parser *parser, const char *word)
{
    if (strncmp(parser->next, word, strlen(word)) != 0)
        return false;
    parser->next += strlen(word);
    return true;
}

static struct json *parse_value(struct parser *parser)
{
    struct json *json = calloc(1, sizeof(*json));

    skip_blank(parser);
    if (*parser->next == '{' || *parser->next == '[') {
        bool is_object = *parser->next++ == '{';

        json->kind = is_object ? JSON_OBJECT : JSON_ARRAY;
        parse_members(parser, json, is_object ? '}' : ']');
    } else if (*parser->next == '"') {
        json->kind = JSON_STRING;
        json->text = parse_string(parser);
    } else if (skip_word(parser, "true")) {
        json->kind = JSON_BOOL;
        json->boolean = true;
    } else if (skip_word(parser, "false")) {
        json->kind = JSON_BOOL;
    } else if (!skip_word(parser, "null")) {
        parse_number(parser, json);
    }
    return json;
}

static char *read_text(const char *path)
{
    FILE *file;
    char *text;
    long size;

    file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s: cannot open", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    assert_true(size > 0);
    assert_int_equal(fseek(file, 0, SEEK_SET), 0);
    text = calloc(1, (size_t)size + 1);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    (void)fclose(file);
    return text;
}

struct json *json_load_file(const char *path)
{
    struct parser parser = {.name = path};
    struct json *json;
    char *text = read_text(path);

    parser.start = parser.next = text;
    json = parse_value(&parser);
    free(text);
    return json;
}

struct json *json_load_lines_file(const char *path)
{
    struct parser parser = {.name = path};
    struct json *lines = calloc(1, sizeof(*lines)), **last = &lines->first;
    char *text = read_text(path);

    lines->kind = JSON_ARRAY;
    parser.start = parser.next = text;
    for (skip_blank(&parser); *parser.next != '\0'; skip_blank(&parser)) {
        *last = parse_value(&parser);
        last = &(*last)->next;
        lines->count++;
    }
    free(text);
    return lines;
}

void json_free(struct json *json)
{
    while (json != NULL) {
        struct json *next = json->next;

        json_free(json->first);
        free(json->text);
        free(json->name);
        free(json);
        json = next;
    }
}

/* ---------------------------------------------------------------------------------- lookup */

const struct json *json_find(const struct json *object, const char *name)
{
    const struct json *member = object->first;

    while (member != NULL && strcmp(member->name, name) != 0)
        member = member->next;
    return member == NULL || member->kind == JSON_NULL ? NULL : member;
}

const struct json *json_get(const struct json *object, const char *name)
{
    const struct json *member = json_find(object, name);

    if (member == NULL) {
        fail_msg("the vectors have no \"%s\" here", name);
        abort(); /* not reached */
    }
    return member;
}

uint64_t json_integer(const struct json *object, const char *name)
{
    const struct json *member = json_get(object, name);

    assert_int_equal(member->kind, JSON_NUMBER);
    return member->integer;
}

const char *json_text(const struct json *object, const char *name)
{
    const struct json *member = json_get(object, name);

    assert_int_equal(member->kind, JSON_STRING);
    return member->text;
}

bool json_bool(const struct json *object, const char *name)
{
    const struct json *member = json_get(object, name);

    assert_int_equal(member->kind, JSON_BOOL);
    return member->boolean;
}

uint8_t *json_hex(const struct json *string, size_t *size)
{
    uint8_t *bytes;

    assert_int_equal(string->kind, JSON_STRING);
    *size = strlen(string->text) / 2;
    bytes = malloc(*size + 1);
    for (size_t i = 0; i < *size; i++) {
        char digits[3] = {string->text[2 * i], string->text[2 * i + 1], '\0'};

        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return bytes;
}

void json_hex_fixed(const struct json *string, uint8_t *out, size_t size)
{
    size_t found;
    uint8_t *bytes = json_hex(string, &found);

    assert_int_equal(found, size);
    memcpy(out, bytes, size);
    free(bytes);
}
