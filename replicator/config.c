/* Implements config.h. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

/* What a value is. */
enum kind {
    LIST_PATH, /* a path each */
    LIST_TEXT,
    ONE_PATH,
    ONE_TEXT,
    ONE_NUMBER,
    ONE_SWITCH, /* yes or no */
};

struct setting {
    const char *key;
    enum kind kind;
    size_t offset;        /* in struct config */
    size_t most;          /* of a list, or the greatest number */
    unsigned least, fall; /* of a number: the least, and the default */
};

static const struct setting settings[] = {
    {"database", LIST_PATH, offsetof(struct config, databases), CONFIG_PATHS_MAX, 0, 0},
    {"directory", LIST_PATH, offsetof(struct config, directories), CONFIG_PATHS_MAX, 0, 0},
    {"listen", LIST_TEXT, offsetof(struct config, listen), NETWORK_URLS_MAX, 0, 0},
    {"allow", LIST_TEXT, offsetof(struct config, allow), NETWORK_ALLOW_MAX, 0, 0},
    {"allow-write", LIST_TEXT, offsetof(struct config, allow_write), NETWORK_ALLOW_MAX, 0, 0},
    {"authorized-keys", ONE_PATH, offsetof(struct config, authorized_keys), 0, 0, 0},
    {"identity", ONE_PATH, offsetof(struct config, identity), 0, 0, 0},
    {"http", ONE_TEXT, offsetof(struct config, http), 0, 0, 0},
    {"http-public", ONE_SWITCH, offsetof(struct config, is_http_public), 0, 0, 0},
    {"create-limit", ONE_NUMBER, offsetof(struct config, create_most), 4096, 0, 1000},
    {"rest-after", ONE_NUMBER, offsetof(struct config, rest_s), 86400, 0, 30},
    {"stop-timeout", ONE_NUMBER, offsetof(struct config, stop_s), 3600, 1, 20},
};
enum { SETTING_COUNT = sizeof(settings) / sizeof(settings[0]) };

static bool is_list(const struct setting *setting)
{
    return setting->kind == LIST_PATH || setting->kind == LIST_TEXT;
}

static bool is_text(const struct setting *setting)
{
    return setting->kind == ONE_PATH || setting->kind == ONE_TEXT;
}

static struct config_list *list_of(const struct config *config, const struct setting *setting)
{
    return (struct config_list *)((uintptr_t)config + setting->offset);
}

static char **text_of(const struct config *config, const struct setting *setting)
{
    return (char **)((uintptr_t)config + setting->offset);
}

static unsigned *number_of(const struct config *config, const struct setting *setting)
{
    return (unsigned *)((uintptr_t)config + setting->offset);
}

void config_release(struct config *config)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (is_list(&settings[i])) {
            struct config_list *list = list_of(config, &settings[i]);

            for (size_t k = 0; k < list->count; k++)
                free(list->items[k]);
            free(list->items);
        } else if (is_text(&settings[i])) {
            free(*text_of(config, &settings[i]));
        }
    }
    *config = (struct config){0};
}

/* ----------------------------------------------------------------------------------- set */

int config_list_add(struct config_list *list, const char *value)
{
    char **grown = realloc(list->items, (list->count + 1) * sizeof(*grown));
    char *copy = strdup(value);

    if (grown != NULL)
        list->items = grown;
    if (grown == NULL || copy == NULL) {
        free(copy);
        return failure("no memory");
    }
    list->items[list->count++] = copy;
    return DONE;
}

void config_list_cut(struct config_list *list)
{
    free(list->items[--list->count]);
}

static int wrong(const char *where, const char *key, const char *why)
{
    (void)failure("%s: %s: %s", where, key, why);
    return USAGE;
}

static int number_set(struct config *config, const struct setting *setting, const char *where,
                      const char *value)
{
    char why[96];
    uint64_t number;

    if (!number_parse(value, &number) || number < setting->least || number > setting->most) {
        snprintf(why, sizeof(why), "a number from %u to %zu, not `%.20s'", setting->least,
                 setting->most, value);
        return wrong(where, setting->key, why);
    }
    *number_of(config, setting) = (unsigned)number;
    return DONE;
}

static int switch_set(struct config *config, const struct setting *setting, const char *where,
                      const char *value)
{
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return wrong(where, setting->key, "yes or no");
    *number_of(config, setting) = strcmp(value, "yes") == 0;
    return DONE;
}

static int text_set(char **text, const char *value)
{
    *text = strdup(value);
    return *text != NULL ? DONE : failure("no memory");
}

int config_set(struct config *config, const char *where, const char *key, const char *value)
{
    const struct setting *setting = settings, *end = settings + SETTING_COUNT;
    char why[64];

    while (setting < end && strcmp(setting->key, key) != 0)
        setting++;
    if (setting == end)
        return wrong(where, key, "there is no such setting");
    if (value[0] == '\0')
        return wrong(where, key, "has no value");
    if (is_list(setting)) {
        if (list_of(config, setting)->count < setting->most)
            return config_list_add(list_of(config, setting), value);
        snprintf(why, sizeof(why), "at most %zu of them", setting->most);
        return wrong(where, key, why);
    }
    if ((config->given & 1U << (setting - settings)) != 0)
        return wrong(where, key, "is set already");
    config->given |= 1U << (setting - settings);
    if (setting->kind == ONE_SWITCH)
        return switch_set(config, setting, where, value);
    return setting->kind == ONE_NUMBER ? number_set(config, setting, where, value)
                                       : text_set(text_of(config, setting), value);
}

int config_merge(struct config *config, const struct config *given)
{
    int result = DONE;

    for (size_t i = 0; i < SETTING_COUNT && result == DONE; i++) {
        const struct setting *setting = &settings[i];
        unsigned bit = 1U << i;

        if (is_list(setting)) {
            const struct config_list *more = list_of(given, setting);

            for (size_t k = 0; k < more->count && result == DONE; k++) {
                config->given &= ~bit;
                result = config_set(config, "command line", setting->key, more->items[k]);
            }
        } else if (!is_text(setting)) {
            if ((given->given & bit) != 0)
                *number_of(config, setting) = *number_of(given, setting);
            else if ((config->given & bit) == 0)
                *number_of(config, setting) = setting->fall;
        } else if ((given->given & bit) != 0) {
            free(*text_of(config, setting));
            result = text_set(text_of(config, setting), *text_of(given, setting));
        }
        config->given |= given->given & bit;
    }
    return result;
}

/* ------------------------------------------------------------------------------ the file */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Cut the blanks off both ends. */
static char *trim(char *begin, char *end)
{
    while (begin < end && is_blank(*begin))
        begin++;
    while (end > begin && is_blank(end[-1]))
        end--;
    *end = '\0';
    return begin;
}

static int line_set(struct config *config, const char *where, char *line, char *end)
{
    char *equals = memchr(line, '=', (size_t)(end - line));
    const char *key, *value;

    if (memchr(line, '\0', (size_t)(end - line)) != NULL)
        return wrong(where, "a zero byte", "this is no text");
    if (trim(line, end)[0] == '\0' || trim(line, end)[0] == '#')
        return DONE;
    if (equals == NULL)
        return wrong(where, trim(line, end), "a line is KEY = VALUE");
    key = trim(line, equals);
    value = trim(equals + 1, end);
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (strcmp(settings[i].key, key) == 0 && value[0] != '/' && value[0] != '\0' &&
            (settings[i].kind == LIST_PATH || settings[i].kind == ONE_PATH))
            return wrong(where, key, "a path in a file begins with /");
    return config_set(config, where, key, value);
}

static int text_parse(struct config *config, const char *path, char *text, size_t size)
{
    char *where = NULL, *line = text;
    int result = DONE;

    for (unsigned number = 1; line < text + size && result == DONE; number++) {
        char *end = memchr(line, '\n', (size_t)(text + size - line));

        if (end == NULL)
            end = text + size; /* one byte beyond it is ours */
        if (asprintf(&where, "%s:%u", path, number) < 0)
            return failure("no memory");
        result = line_set(config, where, line, end);
        free(where);
        line = end + 1;
    }
    return result;
}

int config_read(struct config *config, const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    char *text = malloc(CONFIG_SIZE_MAX + 1);
    ssize_t got = 0;
    size_t size = 0;
    int result;

    if (text == NULL) {
        result = failure("no memory");
        goto done;
    }
    while (file >= 0 && size <= CONFIG_SIZE_MAX &&
           (got = read(file, text + size, CONFIG_SIZE_MAX + 1 - size)) > 0)
        size += (size_t)got;
    if (file < 0 || got < 0)
        result = failure("%s: %s", path, strerror(errno));
    else if (size > CONFIG_SIZE_MAX)
        result = wrong(path, "the file", "more than 1 MiB: this is no configuration");
    else
        result = text_parse(config, path, text, size);
done:
    if (file >= 0)
        close(file);
    free(text);
    return result;
}

char *config_default_path(void)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int made = -1;

    if (config != NULL && config[0] == '/')
        made = asprintf(&path, "%s/hyperwal/serve.conf", config);
    else if (home != NULL && home[0] == '/')
        made = asprintf(&path, "%s/.config/hyperwal/serve.conf", home);
    if (made >= 0 && access(path, F_OK) == 0)
        return path;
    if (made >= 0)
        free(path);
    return access("/etc/hyperwal.conf", F_OK) == 0 ? strdup("/etc/hyperwal.conf") : NULL;
}

void config_print(const struct config *config)
{
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const struct setting *setting = &settings[i];

        if (is_list(setting)) {
            const struct config_list *list = list_of(config, setting);

            for (size_t k = 0; k < list->count; k++)
                printf("%s = %s\n", setting->key, list->items[k]);
        } else if (setting->kind == ONE_SWITCH) {
            printf("%s = %s\n", setting->key, *number_of(config, setting) != 0 ? "yes" : "no");
        } else if (setting->kind == ONE_NUMBER) {
            printf("%s = %u\n", setting->key, *number_of(config, setting));
        } else if (*text_of(config, setting) != NULL) {
            printf("%s = %s\n", setting->key, *text_of(config, setting));
        }
    }
}
