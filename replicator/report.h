/*
 * report.h - how facts look: JSON objects, times, sizes, and a line of progress on a terminal
 */
#ifndef HYPERWAL_REPORT_H
#define HYPERWAL_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One object on one line of standard output. */
struct json {
    bool has_field;
};
void json_begin(struct json *json);
void json_text(struct json *json, const char *name, const char *value); /* NULL: null */
void json_number(struct json *json, const char *name, uint64_t value);
void json_seq(struct json *json, const char *name, uint64_t seq); /* none: null */
void json_bool(struct json *json, const char *name, bool value);
void json_time(struct json *json, const char *name, int64_t time_ms); /* 0: null */
void json_sum(struct json *json, const char *name, uint64_t sum);     /* 16 hex digits */
void json_key(struct json *json, const char *name, const unsigned char key[32]);
void json_raw(struct json *json, const char *name, const char *value);
void json_item(struct json *json, const char *value); /* of an array, whose [ and ] are yours */
void json_close(struct json *json);                   /* of an object within another one */
void json_end(struct json *json);

enum { TIME_TEXT = 32, SIZE_TEXT = 24, KEY_TEXT = 65 };
/* A key as people tell it to each other: 52 characters of z-base-32. */
const char *key_short(const unsigned char key[32], char out[KEY_TEXT]);
/* "2026-11-22T10:00:00.123Z" */
const char *time_text(int64_t time_ms, char out[TIME_TEXT]);
/* "1.4 MiB" */
const char *size_text(uint64_t bytes, char out[SIZE_TEXT]);
const char *key_text(const unsigned char key[32], char out[KEY_TEXT]);
/* Somebody else's words, on standard output: what steers a terminal or ends a line is a "?". */
void words_print(const char *text);

/*
 * Progress of something that may take long: nothing for the first second, and nothing at all if
 * standard error is no terminal; then one line with rate and time left.  report_progress() is a
 * hyperwal_progress and stops when a signal asked for it.
 */
struct progress {
    const char *what;
    bool is_bytes; /* else blocks */
    bool is_terminal, is_shown;
    double started, last; /* seconds */
    uint64_t total;
};
void progress_begin(struct progress *progress, const char *what, bool is_bytes);
int report_progress(void *ctx, uint64_t done, uint64_t total);
void progress_end(struct progress *progress); /* wipes the line */

double seconds_now(void); /* of a clock that only goes forward */

#endif
