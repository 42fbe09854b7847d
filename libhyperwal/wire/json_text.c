/* Implements wire/json_text.h. */
#include "wire/json_text.h"

#include <string.h>

struct text {
    const uint8_t *at, *end;
};

static bool take(struct text *text, char c)
{
    while (text->at < text->end && *text->at == ' ')
        text->at++;
    if (text->at == text->end || *text->at != (uint8_t)c)
        return false;
    text->at++;
    return true;
}

static bool take_word(struct text *text, const char *word)
{
    size_t size = strlen(word);

    if ((size_t)(text->end - text->at) < size || memcmp(text->at, word, size) != 0)
        return false;
    text->at += size;
    return true;
}

static bool is_one_of(uint8_t c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* What follows a backslash. */
static bool take_escape(struct text *text)
{
    if (text->at == text->end || !is_one_of(*text->at, "\"\\/bfnrtu"))
        return false;
    if (*text->at++ != 'u')
        return true;
    for (unsigned i = 0; i < 4; i++)
        if (text->at == text->end || !is_one_of(*text->at++, "0123456789abcdefABCDEF"))
            return false;
    return true;
}

static bool take_string(struct text *text)
{
    if (!take(text, '"'))
        return false;
    while (text->at < text->end) {
        uint8_t c = *text->at++;

        if (c == '"')
            return true;
        if (c < 0x20 || c == 0x7f || (c == '\\' && !take_escape(text)))
            return false;
    }
    return false;
}

static unsigned take_digits(struct text *text)
{
    unsigned count = 0;

    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; count++)
        text->at++;
    return count;
}

static bool take_number(struct text *text)
{
    (void)take_word(text, "-");
    if (!take_word(text, "0") && take_digits(text) == 0)
        return false;
    if (take_word(text, ".") && take_digits(text) == 0)
        return false;
    if (!take_word(text, "e") && !take_word(text, "E"))
        return true;
    if (!take_word(text, "+"))
        (void)take_word(text, "-");
    return take_digits(text) > 0;
}

static bool take_value(struct text *text, unsigned depth);

/* Behind its first bracket. */
static bool take_members(struct text *text, unsigned depth, bool has_names, char close)
{
    if (take(text, close))
        return true;
    do {
        if (has_names && !(take_string(text) && take(text, ':')))
            return false;
        if (!take_value(text, depth))
            return false;
    } while (take(text, ','));
    return take(text, close);
}

static bool take_value(struct text *text, unsigned depth)
{
    if (take(text, '{'))
        return depth > 0 && take_members(text, depth - 1, true, '}');
    if (take(text, '['))
        return depth > 0 && take_members(text, depth - 1, false, ']');
    if (text->at < text->end && *text->at == '"')
        return take_string(text);
    return take_word(text, "true") || take_word(text, "false") || take_word(text, "null") ||
           take_number(text);
}

bool hw_json_is_object(struct hw_slice slice)
{
    struct text text = {slice.bytes, slice.bytes + slice.size};

    return slice.size > 0 && slice.bytes[0] == '{' && take_value(&text, HW_JSON_DEPTH_MAX) &&
           text.at == text.end;
}
