/* Implements bench/lib.h. */
#include "lib.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char directory[1024]; /* of this run's files; "" before bench_start */
static int owner;            /* process that removes it: children made by fork do not */
static bool first_field;

void bench_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ------------------------------------------------------------------------------ files */

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *position)
{
    (void)info;
    (void)type;
    (void)position;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); /* best effort: it is a scratch place */
}

static void remove_directory(void)
{
    if (directory[0] != 0 && getpid() == owner)
        remove_tree(directory);
}

const char *bench_path(const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    char *path = malloc(size);

    if (path == NULL)
        bench_die("no memory");
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

uint64_t bench_file_size(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0)
        bench_die("stat '%s': %s", path, strerror(errno));
    return (uint64_t)info.st_size;
}

void bench_copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    uint64_t left = bench_file_size(from);

    if (in < 0 || out < 0)
        bench_die("copy '%s' to '%s': %s", from, to, strerror(errno));
    while (left > 0) {
        ssize_t sent = sendfile(out, in, NULL, left < 1U << 30 ? (size_t)left : 1U << 30);

        if (sent <= 0)
            bench_die("copy '%s' to '%s': %s", from, to, strerror(errno));
        left -= (uint64_t)sent;
    }
    if (fsync(out) != 0)
        bench_die("sync '%s': %s", to, strerror(errno));
    close(in);
    close(out);
}

void bench_remove_database(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", "-hyper"};
    char name[1200];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
        remove_tree(name);
    }
}

uint64_t bench_proc_status(int pid, const char *key)
{
    char path[64], line[256];
    size_t key_size = strlen(key);
    uint64_t value = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", pid == 0 ? (int)getpid() : pid);
    file = fopen(path, "re");
    if (file == NULL)
        bench_die("open '%s': %s", path, strerror(errno));
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, key_size) == 0 && line[key_size] == ':')
            value = strtoull(line + key_size + 1, NULL, 10);
    }
    fclose(file);
    return value;
}

/* ------------------------------------------------------------------------------- time */

uint64_t bench_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void bench_sleep_until(uint64_t monotonic_ns)
{
    struct timespec until = {(time_t)(monotonic_ns / 1000000000U),
                             (long)(monotonic_ns % 1000000000U)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
}

double bench_fdatasync_us(void)
{
    enum { ROUNDS = 200, WRITE_SIZE = 4096 };
    static char block[WRITE_SIZE];
    struct bench_series series = {0};
    const char *path = bench_path("fdatasync");
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    double median;

    if (file < 0)
        bench_die("open '%s': %s", path, strerror(errno));
    for (int round = 0; round < 2 * ROUNDS; round++) {
        uint64_t start;

        if (round == ROUNDS)
            (void)fsync(file); /* from here on the file does not grow */
        if (pwrite(file, block, WRITE_SIZE, (off_t)(round % ROUNDS) * WRITE_SIZE) != WRITE_SIZE)
            bench_die("write '%s': %s", path, strerror(errno));
        start = bench_now_ns();
        if (round >= ROUNDS && fdatasync(file) != 0)
            bench_die("sync '%s': %s", path, strerror(errno));
        if (round >= ROUNDS)
            bench_series_add(&series, (double)(bench_now_ns() - start) / 1e3);
    }
    close(file);
    unlink(path);
    median = bench_series_percentile(&series, 0.5);
    bench_series_release(&series);
    return median;
}

/* ---------------------------------------------------------------------------- options */

static void usage(const struct bench_options *options, FILE *out)
{
    fprintf(out,
            "usage: bench_%s [--dir DIR] [--vfs NAME] [--only CASE] [--seconds N] [--size MIB]\n"
            "       [--random] [--keep]\n",
            options->name);
}

static void parse(struct bench_options *options, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(argv[i], "--help") == 0) {
            usage(options, stdout);
            exit(0);
        } else if (strcmp(argv[i], "--random") == 0) {
            options->random_values = true;
            continue;
        } else if (strcmp(argv[i], "--keep") == 0) {
            options->keep = true;
            continue;
        } else if (value != NULL && strcmp(argv[i], "--dir") == 0) {
            options->dir = value;
        } else if (value != NULL && strcmp(argv[i], "--vfs") == 0) {
            options->vfs = value;
        } else if (value != NULL && strcmp(argv[i], "--only") == 0) {
            options->only = value;
        } else if (value != NULL && strcmp(argv[i], "--seconds") == 0 && strtod(value, NULL) > 0) {
            options->seconds = strtod(value, NULL);
        } else if (value != NULL && strcmp(argv[i], "--size") == 0 &&
                   strtoull(value, NULL, 10) > 0) {
            options->size_mib = strtoull(value, NULL, 10);
        } else {
            usage(options, stderr);
            exit(2);
        }
        i++;
    }
}

void bench_start(struct bench_options *options, int argc, char **argv)
{
    if (options->dir == NULL)
        options->dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    if (options->vfs == NULL)
        options->vfs = "hyperwal";
    parse(options, argc, argv);

    snprintf(directory, sizeof(directory), "%s/hyperwal-bench-XXXXXX", options->dir);
    if (mkdtemp(directory) == NULL)
        bench_die("make a directory in '%s': %s", options->dir, strerror(errno));
    owner = getpid();
    if (!options->keep)
        atexit(remove_directory);
    if (hyperwal_register(0) != SQLITE_OK)
        bench_die("hyperwal_register failed");
}

bool bench_selected(const struct bench_options *options, const char *case_name)
{
    return options->only == NULL || strncmp(case_name, options->only, strlen(options->only)) == 0;
}

/* ----------------------------------------------------------------------- measurements */

void bench_series_add(struct bench_series *series, double value)
{
    if (series->count == series->capacity) {
        series->capacity = series->capacity == 0 ? 1024 : 2 * series->capacity;
        series->values = realloc(series->values, series->capacity * sizeof(double));
        if (series->values == NULL)
            bench_die("no memory");
    }
    series->values[series->count++] = value;
}

void bench_series_release(struct bench_series *series)
{
    free(series->values);
    *series = (struct bench_series){0};
}

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

double bench_series_percentile(struct bench_series *series, double part)
{
    double rank = ceil(part * (double)series->count);

    if (series->count == 0)
        return 0;
    qsort(series->values, series->count, sizeof(double), compare_doubles);
    return series->values[rank < 1 ? 0 : (size_t)rank - 1];
}

double bench_series_sum(const struct bench_series *series)
{
    double sum = 0;

    for (size_t i = 0; i < series->count; i++)
        sum += series->values[i];
    return sum;
}

/* ------------------------------------------------------------------------------- JSON */

static void json_key(const char *key)
{
    printf("%s\"%s\":", first_field ? "" : ",", key);
    first_field = false;
}

void bench_json_begin(const struct bench_options *options)
{
    putchar('{');
    first_field = true;
    bench_json_text("bench", options->name);
}

void bench_json_text(const char *key, const char *value)
{
    json_key(key);
    printf("\"%s\"", value); /* our own words only: nothing to escape */
}

void bench_json_number(const char *key, double value)
{
    json_key(key);
    if (!isfinite(value))
        printf("null");
    else if (fabs(value) < 9e15 && value == floor(value))
        printf("%.0f", value);
    else
        printf(fabs(value) >= 1000 ? "%.0f" : "%.4g", value);
}

void bench_json_bool(const char *key, bool value)
{
    json_key(key);
    fputs(value ? "true" : "false", stdout);
}

void bench_json_ratio(double ratio, double target, bool at_least)
{
    bench_json_number("ratio", ratio);
    bench_json_number("target", target);
    bench_json_bool("met", at_least ? ratio >= target : ratio <= target);
}

void bench_json_end(void)
{
    puts("}");
    fflush(stdout);
}
