/* Implements report.h. */
#include "report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

/* --------------------------------------------------------------------------------- JSON */

void json_begin(struct json *json)
{
    json->has_field = false;
    putchar('{');
}

static void json_string(const char *text)
{
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            printf("\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            printf("\\u%04x", *p);
        else
            putchar(*p);
    }
    putchar('"');
}

static void json_name(struct json *json, const char *name)
{
    if (json->has_field)
        fputs(", ", stdout);
    json->has_field = true;
    json_string(name);
    fputs(": ", stdout);
}

void json_text(struct json *json, const char *name, const char *value)
{
    json_name(json, name);
    if (value == NULL)
        fputs("null", stdout);
    else
        json_string(value);
}

void json_number(struct json *json, const char *name, uint64_t value)
{
    json_name(json, name);
    printf("%" PRIu64, value);
}

void json_seq(struct json *json, const char *name, uint64_t seq)
{
    if (seq == HYPERWAL_SEQ_NONE)
        json_text(json, name, NULL);
    else
        json_number(json, name, seq);
}

void json_bool(struct json *json, const char *name, bool value)
{
    json_raw(json, name, value ? "true" : "false");
}

void json_time(struct json *json, const char *name, int64_t time_ms)
{
    char text[TIME_TEXT];

    json_text(json, name, time_ms != 0 ? time_text(time_ms, text) : NULL);
}

void json_sum(struct json *json, const char *name, uint64_t sum)
{
    char text[17];

    snprintf(text, sizeof(text), "%016" PRIx64, sum);
    json_text(json, name, text);
}

void json_key(struct json *json, const char *name, const unsigned char key[32])
{
    char text[KEY_TEXT];

    json_text(json, name, key_text(key, text));
}

void json_raw(struct json *json, const char *name, const char *value)
{
    json_name(json, name);
    fputs(value, stdout);
}

void json_item(struct json *json, const char *value)
{
    if (json->has_field)
        putchar(',');
    json->has_field = true;
    json_string(value);
}

void json_close(struct json *json)
{
    (void)json;
    putchar('}');
}

void json_end(struct json *json)
{
    json_close(json);
    putchar('\n');
    fflush(stdout); /* whoever reads a pipe wants the line now */
}

/* -------------------------------------------------------------------------------- texts */

const char *key_short(const unsigned char key[32], char out[KEY_TEXT])
{
    static const char digits[] = "ybndrfg8ejkmcpqxot1uwisza345h769";
    size_t size = 0;

    for (unsigned bit = 0; bit < 256; bit += 5) { /* the last digit has one bit of the key */
        unsigned byte = bit / 8;
        unsigned two = (unsigned)key[byte] << 8 | (byte + 1 < 32 ? key[byte + 1] : 0U);

        out[size++] = digits[two >> (11 - bit % 8) & 31];
    }
    out[size] = '\0';
    return out;
}

const char *time_text(int64_t time_ms, char out[TIME_TEXT])
{
    int64_t ms = time_ms % 1000;
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm parts;
    size_t size = 0;

    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    if (gmtime_r(&seconds, &parts) != NULL)
        size = strftime(out, TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
    if (size == 0) /* a year beyond every calendar */
        snprintf(out, TIME_TEXT, "%" PRId64, time_ms);
    else
        snprintf(out + size, TIME_TEXT - size, ".%03uZ", (unsigned)ms);
    return out;
}

void words_print(const char *text)
{
    for (; *text != '\0'; text++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

const char *size_text(uint64_t bytes, char out[SIZE_TEXT])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, SIZE_TEXT, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

const char *key_text(const unsigned char key[32], char out[KEY_TEXT])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 32; i++) {
        out[2 * i] = digits[key[i] >> 4];
        out[2 * i + 1] = digits[key[i] & 15];
    }
    out[64] = '\0';
    return out;
}

/* ----------------------------------------------------------------------------- progress */

double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void progress_begin(struct progress *progress, const char *what, bool is_bytes)
{
    *progress = (struct progress){.what = what, .is_bytes = is_bytes};
    progress->is_terminal = isatty(STDERR_FILENO) == 1;
    progress->started = progress->last = seconds_now();
}

static void progress_draw(const struct progress *progress, uint64_t done, uint64_t total,
                          double elapsed)
{
    double rate = (double)done / elapsed;
    double left = rate > 0 && total > done ? (double)(total - done) / rate : 0;
    char done_text[SIZE_TEXT], rate_text[SIZE_TEXT];

    if (progress->is_bytes) {
        size_text(done, done_text);
        size_text((uint64_t)rate, rate_text);
    } else {
        snprintf(done_text, sizeof(done_text), "%" PRIu64 " blocks", done);
        snprintf(rate_text, sizeof(rate_text), "%.0f blocks", rate);
    }
    fprintf(stderr, "\r\033[K%s: %s, %3.0f %%, %s/s, %.0f s left", progress->what, done_text,
            total > 0 ? 100.0 * (double)done / (double)total : 100.0, rate_text, left);
    fflush(stderr);
}

int report_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *progress = ctx;
    double now;

    if (stop_asked())
        return 0;
    if (!progress->is_terminal)
        return 1;
    now = seconds_now();
    if (total != progress->total && done < total / 2) { /* a new round with a count of its own */
        progress->total = total;
        progress->started = progress->is_shown ? now : progress->started;
    }
    if (now - progress->started < 1 || now - progress->last < 0.1)
        return 1;
    progress->last = now;
    progress->is_shown = true;
    progress_draw(progress, done, total, now - progress->started);
    return 1;
}

void progress_end(struct progress *progress)
{
    if (progress->is_shown)
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}
