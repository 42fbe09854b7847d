/* Implements node/rules.h. */
#include "node/rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "hypercore/hypercore.h"
#include "hypercore/manifest.h"

/*
 * Patterns as they are kept: each one a byte (1: it takes away), then its characters, then a zero.
 * No name that a rule is about has such characters of its own.
 */
enum { STAR = 1, QUESTION = 2, KEEPS = 1, TAKES = 2, KEY_TEXT_MAX = 2 * HW_KEY_SIZE };

struct hw_rule {
    unsigned rights;
    bool is_any;
    uint8_t key[HW_IDENTITY_KEY_SIZE];
    uint8_t *patterns; /* owned */
    size_t size;       /* of `patterns` */
};

static const struct {
    const char *name;
    enum hw_right right;
    unsigned gives; /* all that goes with it */
} rights[] = {
    {"read", HW_RIGHT_READ, HW_RIGHT_READ},
    {"write", HW_RIGHT_WRITE, HW_RIGHT_WRITE | HW_RIGHT_READ},
    {"create", HW_RIGHT_CREATE, HW_RIGHT_CREATE | HW_RIGHT_WRITE | HW_RIGHT_READ},
    {"promote", HW_RIGHT_PROMOTE, HW_RIGHT_PROMOTE | HW_RIGHT_WRITE | HW_RIGHT_READ},
};
enum { RIGHT_COUNT = sizeof(rights) / sizeof(rights[0]) };

const char *hw_right_name(enum hw_right right)
{
    for (size_t i = 0; i < RIGHT_COUNT; i++)
        if (rights[i].right == right)
            return rights[i].name;
    return "";
}

static unsigned rights_with_all(unsigned some)
{
    unsigned all = some;

    for (size_t i = 0; i < RIGHT_COUNT; i++)
        if ((some & rights[i].right) != 0)
            all |= rights[i].gives;
    return all;
}

/* ------------------------------------------------------------------------------ patterns */

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One pattern; at most as long as its text and the two bytes around it. */
static enum hw_status pattern_compile(struct hw_slice text, uint8_t *out, size_t *size,
                                      struct hw_error *err)
{
    size_t at = 0, end = 0;

    out[end++] = text.size > 0 && text.bytes[0] == '!' ? TAKES : KEEPS;
    if (out[0] == TAKES)
        at++;
    if (at == text.size)
        return hw_fail(err, HW_EMISUSE, "a pattern with nothing in it; * is for all names");
    for (; at < text.size; at++) {
        uint8_t c = text.bytes[at];

        if (c == '%') {
            int high = text.size - at > 2 ? hex_digit(text.bytes[at + 1]) : -1;
            int low = high < 0 ? -1 : hex_digit(text.bytes[at + 2]);

            if (low < 0)
                return hw_fail(err, HW_EMISUSE,
                               "a %% in a pattern without two hex digits behind it");
            c = (uint8_t)(high << 4 | low);
            at += 2;
            if (c < ' ' || c == 0x7f)
                return hw_fail(err, HW_EMISUSE, "a pattern with a control character in it");
        } else if (c == '*' || c == '?') {
            c = c == '*' ? STAR : QUESTION;
        }
        out[end++] = c;
    }
    out[end++] = 0;
    *size = end;
    return HW_OK;
}

static enum hw_status patterns_compile(struct hw_slice text, struct hw_rule *rule,
                                       struct hw_error *err)
{
    uint8_t *out = hw_alloc(3 * text.size + 3); /* owned; a comma is worth two more bytes */
    size_t size = 0;
    bool keeps = false;

    if (out == NULL)
        return hw_fail(err, HW_ENOMEM, "no memory for a rule");
    for (size_t start = 0, end; start <= text.size; start = end + 1) {
        size_t one = 0;
        enum hw_status status;

        for (end = start; end < text.size && text.bytes[end] != ',';)
            end++;
        status = pattern_compile((struct hw_slice){text.bytes + start, end - start}, out + size,
                                 &one, err);
        if (status != HW_OK) {
            hw_free(out);
            return status;
        }
        keeps = keeps || out[size] == KEEPS;
        size += one;
    }
    if (!keeps) {
        hw_free(out);
        return hw_fail(err, HW_EMISUSE,
                       "patterns that only take away; put another before them, * perhaps");
    }
    rule->patterns = out;
    rule->size = size;
    return HW_OK;
}

/* One step back to the last star is enough: what an earlier one could take, the last one can. */
static bool pattern_fits(const uint8_t *pattern, struct hw_slice name)
{
    const uint8_t *star = NULL;
    size_t at = 0, star_at = 0;

    while (at < name.size) {
        if (*pattern == STAR) {
            star = ++pattern;
            star_at = at;
        } else if (*pattern == QUESTION || (*pattern > QUESTION && *pattern == name.bytes[at])) {
            pattern++;
            at++;
        } else if (star != NULL) {
            pattern = star;
            at = ++star_at;
        } else {
            return false;
        }
    }
    while (*pattern == STAR)
        pattern++;
    return *pattern == 0;
}

static bool rule_fits(const struct hw_rule *rule, struct hw_slice name)
{
    bool fits = false;

    for (const uint8_t *p = rule->patterns; p < rule->patterns + rule->size;
         p += strlen((const char *)p) + 1) {
        if (!pattern_fits(p + 1, name))
            continue;
        if (*p == TAKES)
            return false;
        fits = true;
    }
    return fits;
}

/* --------------------------------------------------------------------------------- rules */

void hw_rules_release(struct hw_rules *rules)
{
    if (rules == NULL)
        return;
    for (size_t i = 0; i < rules->count; i++)
        hw_free(rules->items[i].patterns);
    hw_free(rules->items);
    *rules = (struct hw_rules){0};
}

/* Where the rules of this key begin, or would. */
static size_t lower_bound(const struct hw_rules *rules, const uint8_t *key)
{
    size_t low = 0, high = rules->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct hw_rule *rule = &rules->items[middle];

        if (rule->is_any || memcmp(rule->key, key, HW_IDENTITY_KEY_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_of(const struct hw_rules *rules, size_t at, const uint8_t *key)
{
    return at < rules->count && !rules->items[at].is_any &&
           memcmp(rules->items[at].key, key, HW_IDENTITY_KEY_SIZE) == 0;
}

/* At the end of the others; room doubles at each power of two. */
static enum hw_status rule_append(struct hw_rules *rules, unsigned given, struct hw_slice patterns,
                                  const uint8_t *key, struct hw_error *err)
{
    struct hw_rule rule = {.rights = rights_with_all(given), .is_any = key == NULL};
    enum hw_status status;

    if (rules->count == HW_RULES_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d rules", HW_RULES_MAX);
    status = patterns_compile(patterns, &rule, err);
    if (status != HW_OK)
        return status;
    if ((rules->count & (rules->count - 1)) == 0) {
        size_t capacity = rules->count == 0 ? 1 : 2 * rules->count;
        struct hw_rule *grown = hw_realloc(rules->items, capacity * sizeof(*grown));

        if (grown == NULL) {
            hw_free(rule.patterns);
            return hw_fail(err, HW_ENOMEM, "no memory for a rule");
        }
        rules->items = grown;
    }
    if (key != NULL)
        memcpy(rule.key, key, sizeof(rule.key));
    rules->items[rules->count++] = rule;
    return HW_OK;
}

enum hw_status hw_rules_add(struct hw_rules *rules, unsigned given, struct hw_slice patterns,
                            const uint8_t *key, struct hw_error *err)
{
    size_t at = key != NULL ? lower_bound(rules, key) : 0;
    enum hw_status status = rule_append(rules, given, patterns, key, err);
    struct hw_rule rule;

    if (status != HW_OK)
        return status;
    rule = rules->items[rules->count - 1];
    memmove(rules->items + at + 1, rules->items + at, (rules->count - 1 - at) * sizeof(rule));
    rules->items[at] = rule;
    return HW_OK;
}

unsigned hw_rules_rights(const struct hw_rules *rules, const uint8_t key[HW_IDENTITY_KEY_SIZE],
                         struct hw_slice name)
{
    unsigned all = 0;

    for (size_t i = 0; i < rules->count && rules->items[i].is_any; i++)
        if ((rules->items[i].rights & ~all) != 0 && rule_fits(&rules->items[i], name))
            all |= rules->items[i].rights;
    for (size_t i = lower_bound(rules, key); is_of(rules, i, key); i++)
        if ((rules->items[i].rights & ~all) != 0 && rule_fits(&rules->items[i], name))
            all |= rules->items[i].rights;
    return all;
}

bool hw_rules_know(const struct hw_rules *rules, const uint8_t key[HW_IDENTITY_KEY_SIZE])
{
    return (rules->count > 0 && rules->items[0].is_any) ||
           is_of(rules, lower_bound(rules, key), key);
}

/* ---------------------------------------------------------------------------------- text */

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of a line, which gets shorter; empty: there is none. */
static struct hw_slice word_take(struct hw_slice *line)
{
    struct hw_slice word;
    size_t size = 0;

    while (line->size > 0 && is_blank(line->bytes[0])) {
        line->bytes++;
        line->size--;
    }
    while (size < line->size && !is_blank(line->bytes[size]))
        size++;
    word = (struct hw_slice){line->bytes, size};
    line->bytes += size;
    line->size -= size;
    return word;
}

static enum hw_status rights_parse(struct hw_slice word, unsigned *out, struct hw_error *err)
{
    unsigned all = 0;

    for (size_t start = 0, end; start <= word.size; start = end + 1) {
        unsigned right = 0;

        for (end = start; end < word.size && word.bytes[end] != ',';)
            end++;
        for (size_t i = 0; i < RIGHT_COUNT; i++)
            if (strlen(rights[i].name) == end - start &&
                memcmp(rights[i].name, word.bytes + start, end - start) == 0)
                right = rights[i].right;
        if (right == 0)
            return hw_fail(err, HW_EMISUSE,
                           "\"%.*s\" is no right: read, write, create or promote, with commas "
                           "between them",
                           end - start > 40 ? 40 : (int)(end - start),
                           (const char *)word.bytes + start);
        all |= right;
    }
    *out = all;
    return HW_OK;
}

/* *is_any, or the key. */
static enum hw_status who_parse(struct hw_slice word, bool *is_any, uint8_t *key,
                                struct hw_error *err)
{
    char text[KEY_TEXT_MAX + 1] = "";

    *is_any = word.size == 3 && memcmp(word.bytes, "any", 3) == 0;
    if (word.size <= KEY_TEXT_MAX)
        memcpy(text, word.bytes, word.size);
    if (*is_any || hw_key_parse(text, key))
        return HW_OK;
    return hw_fail(err, HW_EMISUSE,
                   "%s; a key has 64 hex digits or 52 characters of z-base-32, and `any' is for "
                   "anybody",
                   word.size == 0 ? "after rights and names there is no key" : "not a key");
}

static int rule_compare(const void *one, const void *other)
{
    const struct hw_rule *a = one, *b = other;

    if (a->is_any != b->is_any)
        return a->is_any ? -1 : 1;
    return memcmp(a->key, b->key, sizeof(a->key));
}

static enum hw_status line_parse(struct hw_slice line, struct hw_rules *rules, struct hw_error *err)
{
    struct hw_slice words[3];
    uint8_t key[HW_IDENTITY_KEY_SIZE];
    unsigned given = 0;
    bool is_any = false;
    enum hw_status status;

    if (line.size > HW_RULE_LINE_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d bytes", HW_RULE_LINE_MAX);
    for (size_t i = 0; i < line.size; i++)
        if ((line.bytes[i] < ' ' && !is_blank(line.bytes[i])) || line.bytes[i] == 0x7f)
            return hw_fail(err, HW_EMISUSE, "a control character");
    for (size_t i = 0; i < 3; i++)
        words[i] = word_take(&line);
    if (words[0].size == 0 || words[0].bytes[0] == '#')
        return HW_OK;
    status = rights_parse(words[0], &given, err);
    if (status == HW_OK && words[1].size == 0)
        status = hw_fail(err, HW_EMISUSE, "after the rights there are no names; * is for all");
    if (status == HW_OK)
        status = who_parse(words[2], &is_any, key, err);
    if (status == HW_OK)
        status = rule_append(rules, given, words[1], is_any ? NULL : key, err);
    return status;
}

enum hw_status hw_rules_decode(struct hw_slice text, struct hw_rules *out, struct hw_error *err)
{
    struct hw_rules rules = {0};
    unsigned number = 0;

    if (text.size > HW_RULES_TEXT_MAX)
        return hw_fail(err, HW_ELIMIT, "more than %d bytes", HW_RULES_TEXT_MAX);
    for (size_t start = 0, end; start < text.size; start = end + 1) {
        const uint8_t *newline = memchr(text.bytes + start, '\n', text.size - start);
        enum hw_status status;

        end = newline == NULL ? text.size : (size_t)(newline - text.bytes);
        number++;
        status = line_parse((struct hw_slice){text.bytes + start, end - start}, &rules, err);
        if (status != HW_OK) {
            hw_rules_release(&rules);
            return hw_prefix(err, status, "line %u", number);
        }
    }
    if (rules.count > 0)
        qsort(rules.items, rules.count, sizeof(*rules.items), rule_compare);
    *out = rules;
    return HW_OK;
}
